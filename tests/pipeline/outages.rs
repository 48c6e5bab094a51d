//! A real S3 server that fails in every way that matters: the daemon says so, recovers alone, and
//! loses nothing.

use std::time::Duration;

use super::kills::count;
use super::rig::{Rig, end};
use crate::support::bucket::{BUCKET, owner};
use crate::support::s3_proxy::{Fault, Reply, Rule, S3Proxy, Seen};
use crate::support::servers::{Server, or_skip};

/// A config of Bronze in the bucket, reached at `endpoint`.
pub(super) fn bronze(rig_dir: &std::path::Path, endpoint: &str) -> String {
    let (access, secret) = (rig_dir.join("access"), rig_dir.join("secret"));
    std::fs::write(&access, Server::ACCESS_KEY).unwrap();
    std::fs::write(&secret, Server::SECRET_KEY).unwrap();
    format!(
        "store = \"s3://{BUCKET}/tick\"\n[bronze.s3]\nendpoint = {:?}\nregion = {:?}\nattempt_timeout = \"2s\"\n\
         access_key_file = {access:?}\nsecret_key_file = {secret:?}\n",
        endpoint,
        Server::REGION,
    )
}

/// What the writer of trades asks of the store, one after the other.
#[derive(Clone, Copy)]
struct Asked {
    /// Its name in `tickmint_store_errors_total`.
    operation: &'static str,
    method: &'static str,
    path: &'static str,
}

const OBJECTS: Asked = Asked { operation: "put", method: "PUT", path: "/bronze/" };
const SLOTS: Asked = Asked { operation: "create", method: "PUT", path: "/_commit/trades/" };
const SLOTS_READ: Asked = Asked { operation: "get", method: "GET", path: "/_commit/trades/" };

/// Every way to fail, and whether the attempt fails with it.
const FAULTS: [(Fault, bool); 9] = [
    (Fault::Refuse(Reply::SLOW_DOWN), true),
    // A store that says no is no reason to give up: credentials are renewed, policies mended.
    (Fault::Refuse(Reply::FORBIDDEN), true),
    (Fault::Refuse(Reply::CONFLICT), true),
    (Fault::CarryOutThen(Reply::INTERNAL_ERROR), true),
    (Fault::NoAnswer { carried_out: true }, true),
    (Fault::NoAnswer { carried_out: false }, true),
    (Fault::Reset { carried_out: true }, true),
    (Fault::Reset { carried_out: false }, true),
    (Fault::Slow(Duration::from_millis(300)), false),
];

/// The store fails so until the proxy has done it twice and everybody has said it; then no more.
fn a_fault_is_met_said_and_over(rig: &Rig, proxy: &S3Proxy, asked: Asked, fault: Fault, fails: bool) {
    let Asked { operation, method, path } = asked;
    let errors = || rig.metric(&format!("tickmint_store_errors_total{{operation=\"{operation}\"}}")).unwrap_or(0.0);
    let slots = || rig.metric("tickmint_bronze_slots_total{stream=\"trades\"}").unwrap_or(0.0);
    let (seen_before, errors_before, slots_before) = (proxy.seen().len(), errors(), slots());
    let is_met = |seen: &Seen| seen.fault == Some(fault) && seen.method == method && seen.target.contains(path);
    let met = || proxy.seen()[seen_before..].iter().filter(|seen| is_met(seen)).count();
    let what = |what: &str| format!("{what}: {fault:?} of {method} {path}");

    proxy.inject(Rule::always(fault).method(method).path(path));
    rig.wait_for(&what("it is met twice"), || met() >= 2);
    if fails {
        rig.wait_for_alarm("bronze/trades", true);
        rig.wait_for(&what("the errors are counted"), || errors() >= errors_before + 2.0);
    } else {
        rig.wait_for(&what("slots are decided meanwhile"), || slots() >= slots_before + 2.0);
    }
    let (met, errors) = (met(), errors() - errors_before);
    proxy.clear();
    rig.wait_for_alarm("bronze/trades", false);
    let slots_before = slots();
    rig.wait_for(&what("archiving goes on"), || slots() > slots_before);
    println!("{fault:?} of {method} {path}: met {met} times, {errors} errors counted");
}

#[test]
fn a_failing_store_is_said_waited_for_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Server::start_minio(folder.path())) else { return };
    tickmint::commands::block_on(owner(&server)).unwrap();
    let proxy = S3Proxy::start(server.endpoint()).unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, &bronze(secrets.path(), &proxy.endpoint()));
    rig.edit("attempt_timeout = \"2s\"", "attempt_timeout = \"1s\"");
    let mut daemon = rig.daemon();
    rig.wait_until("trades reach the bucket", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(0));
    rig.wait_for_alarm("bronze/trades", false);

    // Each by itself: objects go before the slot, and one that fails keeps the slot from being tried.
    for asked in [OBJECTS, SLOTS] {
        for (fault, fails) in FAULTS {
            a_fault_is_met_said_and_over(&rig, &proxy, asked, fault, fails);
        }
    }
    // A slot is decided only when it was read.
    a_fault_is_met_said_and_over(&rig, &proxy, SLOTS_READ, Fault::Refuse(Reply::SLOW_DOWN), true);
    a_fault_is_met_said_and_over(&rig, &proxy, SLOTS_READ, Fault::CutAnswer, true);

    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    assert!(count(&report, "archived") > 1000, "{report:#}");
}

/// What is not known to create atomically is not written to, however long it takes to find out.
#[test]
fn a_store_that_is_away_at_the_start_is_probed_when_it_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Server::start_minio(folder.path())) else { return };
    tickmint::commands::block_on(owner(&server)).unwrap();
    let proxy = S3Proxy::start(server.endpoint()).unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, &bronze(secrets.path(), &proxy.endpoint()));
    // At first it answers nothing; then all but what the probe asks.
    proxy.inject(Rule::always(Fault::Refuse(Reply::SLOW_DOWN)));
    let mut daemon = rig.daemon();
    rig.wait_for_alarms("the outage is said", |alarms| alarms.contains("bronze/trades"));
    proxy.clear();
    proxy.inject(Rule::always(Fault::Refuse(Reply::SLOW_DOWN)).path("_probe/"));
    rig.wait_for_alarms("that it was not probed is said", |alarms| alarms.contains("was not probed"));
    let pipeline = rig.get("/api/pipeline").unwrap();
    assert_eq!(pipeline["bronze"]["trades"]["records"], 0, "written to, though nobody knows whether it is safe");
    assert!(pipeline["spool"]["records"]["trades"].as_u64() > Some(0), "the feed is read meanwhile: {pipeline:#}");

    proxy.clear();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(0));
    rig.wait_for_alarms("it is over", |alarms| !alarms.contains("bronze/"));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
}
