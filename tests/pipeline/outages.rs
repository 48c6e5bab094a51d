//! A real S3 server that fails in every way that matters: the daemon says so, recovers alone, and
//! loses nothing.

use std::time::Duration;

use super::kills::count;
use super::rig::{Rig, end, pause};
use crate::support::bucket::{BUCKET, owner};
use crate::support::s3_proxy::{Fault, Reply, Rule, S3Proxy};
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

#[test]
fn a_failing_store_is_said_waited_for_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Server::start_minio(folder.path())) else { return };
    tickmint::commands::block_on(owner(&server)).unwrap();
    let proxy = S3Proxy::start(server.endpoint()).unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, &bronze(secrets.path(), &proxy.endpoint()));
    let mut daemon = rig.daemon();
    rig.wait_until("trades reach the bucket", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(0));

    // Refused for a while: an alarm, and it goes away by itself.
    proxy.inject(Rule::always(Fault::Refuse(Reply::SLOW_DOWN)));
    rig.wait_for_alarms("the outage is said", |alarms| alarms.contains("bronze/trades"));
    proxy.clear();
    rig.wait_for_alarms("and is over", |alarms| !alarms.contains("bronze/"));

    // A store that says no is no reason to give up: credentials are renewed, policies mended.
    proxy.inject(Rule::always(Fault::Refuse(Reply::FORBIDDEN)));
    rig.wait_for_alarms("the refusal is said", |alarms| alarms.contains("bronze/trades"));
    pause(Duration::from_secs(3));
    proxy.clear();
    rig.wait_for_alarms("and is over", |alarms| !alarms.contains("bronze/"));

    // Answers that are lost, late or not what they seem, on slots and on objects.
    let writes = |fault| Rule::times(3, fault).method("PUT");
    for fault in [
        Fault::CarryOutThen(Reply::INTERNAL_ERROR),
        Fault::Refuse(Reply::CONFLICT),
        Fault::Reset { carried_out: true },
        Fault::Reset { carried_out: false },
        Fault::Slow(Duration::from_millis(300)),
    ] {
        proxy.inject(writes(fault).path("_commit/"));
        proxy.inject(writes(fault).path("bronze/"));
    }
    proxy.inject(Rule::once(Fault::NoAnswer { carried_out: true }).method("PUT").path("_commit/"));
    let before = rig.get("/api/pipeline").unwrap()["bronze"]["trades"]["records"].as_u64();
    pause(Duration::from_secs(4));
    proxy.clear();
    rig.wait_until("archiving goes on", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > before);

    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
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
