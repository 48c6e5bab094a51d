//! Every actor of a running daemon is made to panic, to hang, to block its thread, and to crash again
//! and again. The tree does what it is for, and the ledger says that nothing was lost on the way.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::kills::count;
use super::rig::{Rig, end, pause};

/// All actors of a daemon with one key, and with the warehouse.
const ACTORS: [&str; 9] = [
    "http",
    "refiner",
    "hour_sealer",
    "writers/trades",
    "writers/quarantine",
    "writers/gaps",
    "spool",
    "shards/shard-1/validator",
    "shards/shard-1/session",
];

/// An exchange and a daemon's config. Connections come back soon.
fn rig() -> Rig {
    let symbols = tickmint::exchange::simulated_symbols(20);
    Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, "")
}

/// Waits until each actor has been restarted once and runs, its last failure holding `why`.
fn wait_for_restarts(rig: &Rig, why: &str) {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let seen = rig.actors();
        let missing: Vec<_> = ACTORS
            .into_iter()
            .filter(|path| {
                let is_back = |actor: &Value| {
                    actor["restarts"] == 1
                        && actor["state"] == "running"
                        && actor["last_failure"]["text"].as_str().is_some_and(|text| text.contains(why))
                };
                !seen.get(*path).is_some_and(is_back)
            })
            .collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "not restarted once, or not for this ({why}): {missing:?}\n{seen:#?}\n{}", rig.log());
        pause(Duration::from_millis(200));
    }
}

/// The end of the story: the ledger holds.
fn nothing_is_lost(mut rig: Rig) {
    rig.set("TICKMINT_FAULTS", "");
    let mut last = rig.daemon();
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(100));
    assert_eq!(end(&mut last), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
}

/// `what` of every actor, one after the other, half a second times `apart` between them.
fn once_each(what: &str, apart: usize) -> String {
    let faults = ACTORS.iter().enumerate();
    let faults = faults.map(|(n, path)| format!("actor:{path}={}*off->1*return({what})", 6 + n * apart));
    faults.collect::<Vec<_>>().join(";")
}

#[test]
fn an_actor_that_panics_is_restarted_and_no_other() {
    let mut rig = rig();
    rig.with_warehouse();
    rig.set("TICKMINT_FAULTS", &once_each("panic", 2));
    let mut daemon = rig.daemon();
    wait_for_restarts(&rig, "panicked: as a test asked");
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    nothing_is_lost(rig);
}

#[test]
fn an_actor_that_hangs_is_restarted() {
    let mut rig = rig();
    rig.with_warehouse();
    rig.set("TICKMINT_FAULTS", &once_each("hang", 1));
    let mut daemon = rig.daemon();
    wait_for_restarts(&rig, "hung for");
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    nothing_is_lost(rig);
}

/// The exit code of a daemon that ends by itself.
fn code_of(rig: &Rig) -> Option<i32> {
    rig.daemon().0.wait().unwrap().code()
}

#[test]
fn a_blocked_thread_ends_the_process_with_its_code() {
    // One of each thread; all at the same time, as each takes as long as a stall is waited for.
    let blocked = ["http", "writers/trades", "spool", "shards/shard-1/session"].map(|path| {
        std::thread::spawn(move || {
            let mut rig = rig();
            rig.set("TICKMINT_FAULTS", &format!("actor:{path}=6*off->1*return(600000)"));
            assert_eq!(code_of(&rig), Some(70), "{path}\n{}", rig.log());
            assert!(rig.log().contains(path), "the log does not say who: {}", rig.log());
            nothing_is_lost(rig);
        })
    });
    for case in blocked {
        case.join().unwrap();
    }
}

#[test]
fn a_crash_loop_goes_up_the_tree_and_ends_with_its_code() {
    let short = ["http", "spool", "writers/trades"].map(|path| (path, false));
    // Through three supervisors: two minutes.
    let long = std::env::var("TICKMINT_LONG").is_ok().then_some(("shards/shard-1/validator", true));
    let loops = short.into_iter().chain(long).map(|(path, is_deep)| {
        std::thread::spawn(move || {
            let mut rig = rig();
            rig.set("TICKMINT_FAULTS", &format!("actor:{path}=return(panic)"));
            assert_eq!(code_of(&rig), Some(69), "{path}\n{}", rig.log());
            let log = rig.log();
            assert!(log.contains(&format!("{path} restarted too often")), "the log does not say who: {log}");
            assert!(!is_deep || log.contains("shards restarted too often"), "{log}");
            nothing_is_lost(rig);
        })
    });
    for case in loops.collect::<Vec<_>>() {
        case.join().unwrap();
    }
}
