//! Every actor of a running daemon is made to panic, to hang, to block its thread, and to crash again
//! and again. The tree does what it is for, and the ledger says that nothing was lost on the way.

use std::time::Duration;

use super::kills::count;
use super::rig::{Rig, end};

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

/// The restarts that the log tells of: whose, and why.
fn restarts(rig: &Rig) -> Vec<(String, String)> {
    let log = rig.log();
    let told = log.lines().filter_map(|line| line.split_once(" restarting actor=\"")?.1.split_once("\" exit="));
    told.map(|(path, rest)| (path.to_string(), rest.split(" restarts=").next().unwrap().to_string())).collect()
}

/// Waits until each of `faulty` has been restarted for this, and all actors run.
fn wait_for_restarts(rig: &Rig, faulty: &[&str], why: &str) {
    rig.wait_for(&format!("{faulty:?} were restarted ({why})"), || {
        let (told, seen) = (restarts(rig), rig.actors());
        let is_back = |path: &&str| {
            told.iter().any(|(whose, exit)| whose == path && exit.contains(why))
                && seen.get(*path).is_some_and(|actor| actor["restarts"].as_u64() > Some(0))
        };
        faulty.iter().all(is_back) && seen.values().all(|actor| actor["state"] == "running")
    });
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

/// `what` of each, one after the other, half a second times `apart` between them.
fn once_each(faulty: &[&str], what: &str, apart: usize) -> String {
    let faults = faulty.iter().enumerate();
    let faults = faults.map(|(n, path)| format!("actor:{path}={}*off->1*return({what})", 6 + n * apart));
    faults.collect::<Vec<_>>().join(";")
}

/// Has each of `faulty` do that once; it is restarted for it, and nobody else is restarted at all.
fn misbehave_once(faulty: &[&str], what: &str, apart: usize, why: &str) -> Vec<(String, String)> {
    let mut rig = rig();
    if faulty.contains(&"refiner") {
        rig.with_warehouse();
    }
    rig.set("TICKMINT_FAULTS", &once_each(faulty, what, apart));
    let mut daemon = rig.daemon();
    wait_for_restarts(&rig, faulty, why);
    let (told, seen) = (restarts(&rig), rig.actors());
    for (path, actor) in seen.iter().filter(|(path, _)| !faulty.contains(&path.as_str())) {
        assert_eq!(actor["restarts"], 0, "{path} was restarted too: {actor:#}\n{}", rig.log());
    }
    assert!(seen.len() > faulty.len(), "nobody is there who could be left alone: {seen:#?}");
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    nothing_is_lost(rig);
    told
}

/// All actors of one daemon, and of another one only that in the middle, for which all others wait.
fn all_and_one(what: &'static str, apart: usize, why: &'static str) -> [Vec<(String, String)>; 2] {
    let one = std::thread::spawn(move || misbehave_once(&["spool"], what, apart, why));
    let all = misbehave_once(&ACTORS, what, apart, why);
    [all, one.join().unwrap()]
}

#[test]
fn an_actor_that_panics_is_restarted_and_no_other() {
    let why = "panicked: as a test asked";
    for (told, faulty) in all_and_one("panic", 2, why).iter().zip([&ACTORS[..], &["spool"]]) {
        let mut panicked: Vec<_> = told.iter().filter(|(_, exit)| exit.contains(why)).map(|(path, _)| path.as_str()).collect();
        let mut wanted = faulty.to_vec();
        panicked.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(panicked, wanted, "each once: {told:?}");
    }
}

#[test]
fn an_actor_that_hangs_is_restarted_and_no_other() {
    for told in all_and_one("hang", 1, "hung for") {
        assert!(told.iter().all(|(_, exit)| exit.contains("hung for")), "and for nothing else: {told:?}");
    }
}

/// Ends a daemon by a fault of one actor; what it left is archived by the next.
fn ends_with(code: i32, path: &str, fault: &str, limit: Duration) -> String {
    let mut rig = rig();
    if path == "refiner" {
        rig.with_warehouse();
    }
    rig.set("TICKMINT_FAULTS", &format!("actor:{path}={fault}"));
    let ended = rig.daemon().wait_within(limit).code();
    let log = rig.log();
    assert_eq!(ended, Some(code), "{path}\n{log}");
    if path == "refiner" {
        rig.without_warehouse(); // the next one is for Bronze
    }
    nothing_is_lost(rig);
    log
}

/// Which actors share a thread, so that one of them blocks the others.
const THREADS: [&[&str]; 4] = [
    &["http"],
    &["refiner", "hour_sealer", "writers/trades", "writers/quarantine", "writers/gaps"],
    &["spool"],
    &["shards/shard-1/validator", "shards/shard-1/session"],
];

#[test]
fn a_blocked_thread_ends_the_process_with_its_code() {
    // All at the same time, as each takes as long as a stall is waited for.
    let blocked = ACTORS.map(|path| {
        std::thread::spawn(move || {
            let log = ends_with(70, path, "6*off->1*return(600000)", Duration::from_secs(120));
            let is_named = |who: &&str| log.contains(&format!("{who} is on a thread that has been blocked"));
            let named: Vec<_> = ACTORS.into_iter().filter(is_named).collect();
            let thread = THREADS.iter().find(|thread| thread.contains(&path)).unwrap();
            assert!(!named.is_empty() && named.iter().all(|who| thread.contains(who)), "{path} blocks, named: {named:?}\n{log}");
            named.contains(&path)
        })
    });
    let named = blocked.map(|case| case.join().unwrap());
    println!("{} of {} who blocked their thread are named themselves", named.iter().filter(|is| **is).count(), ACTORS.len());
    let alone = |path: &str| THREADS.iter().any(|thread| *thread == [path]);
    assert!(ACTORS.into_iter().zip(named).all(|(path, is_named)| is_named || !alone(path)));
}

#[test]
fn a_crash_loop_goes_up_the_tree_and_ends_with_its_code() {
    let short = ["http", "refiner", "hour_sealer", "spool", "writers/trades"].map(|path| (path, false));
    // Through three supervisors: two minutes.
    let long = std::env::var("TICKMINT_LONG").is_ok().then_some(("shards/shard-1/validator", true));
    let loops = short.into_iter().chain(long).map(|(path, is_deep)| {
        std::thread::spawn(move || {
            let log = ends_with(69, path, "return(panic)", Duration::from_secs(if is_deep { 300 } else { 120 }));
            assert!(log.contains(&format!("{path} restarted too often")), "the log does not say who: {log}");
            assert!(!is_deep || log.contains("shards restarted too often"), "{log}");
        })
    });
    for case in loops.collect::<Vec<_>>() {
        case.join().unwrap();
    }
}
