//! The daemon dies at each of its named points, and the ledger is held against what is left.
//!
//! Each life is told at which point to die, and at which pass of it. `TICKMINT_ABORTS` deaths a point;
//! 1 if not set, and 8 in the long form (`just chaos`).

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::domain::hour::Hour;
use tickmint::faults::POINTS;

use super::kills::{controls, count};
use super::rig::{Rig, end, pause};

const SIGABRT: i32 = 6;

/// A life that does not come to its point by then has not died at it, which fails the test.
const LIFE: Duration = Duration::from_secs(60);

/// At how many passes of a point a life may die: as often as it comes by in a second or two.
fn passes(point: &str) -> u64 {
    match point {
        "start.log-created" | "start.ends-staged" | "session.connected" | "session.opened" | "session.ending" => 1,
        "spool.log-deleted" | "seal.before-marker" | "seal.after-marker" | "sweep.orphan" => 1,
        "archive.began" | "spool.segment-deleted" | "spool.rotated" | "spool.new-segment" => 2,
        _ => 12,
    }
}

/// Objects that no slot names, as a writer leaves them that died before its slot.
fn leave_orphans(rig: &Rig) {
    let hour = Hour::of(rig.now());
    for ahead in 0..20 {
        let folder = rig.path("lake/bronze/raw/trades").join(Hour(hour.0 + ahead).folder());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("p0-g0-0-5-deadbeef.jsonl.zst"), "nobody names it").unwrap();
    }
}

#[test]
fn a_death_at_any_point_loses_nothing_and_doubles_nothing() {
    let deaths: u64 = std::env::var("TICKMINT_ABORTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let seed = 20_261_124;
    let mut random = StdRng::seed_from_u64(seed);
    let symbols = tickmint::exchange::simulated_symbols(20);
    // Connections that end now and then, so that a session ends other than by a death.
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000", "--faults", "drop=0.003"], &symbols, "");
    // An hour in two seconds, or hours would never be sealed.
    rig.hurry(1800);
    for round in 0..deaths {
        for point in POINTS {
            let pass = random.random_range(1..=passes(point));
            if point == "sweep.orphan" {
                leave_orphans(&rig);
            }
            rig.set("TICKMINT_FAULTS", &format!("{point}=abort@{pass}"));
            let mut daemon = rig.daemon();
            let begun = std::time::Instant::now();
            let status = loop {
                if let Some(status) = daemon.0.try_wait().unwrap() {
                    break status;
                }
                assert!(begun.elapsed() < LIFE, "round {round}: it never came to {point} {pass} times:\n{}", rig.log());
                pause(Duration::from_millis(10));
            };
            assert_eq!(status.signal(), Some(SIGABRT), "round {round}, {point} {pass}: {status}\n{}", rig.log());
        }
    }
    rig.set("TICKMINT_FAULTS", "");
    let mut last = rig.daemon();
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    let code = end(&mut last);
    rig.end_exchange();
    assert_eq!(code, Some(0), "{}", rig.log());

    let (report, well) = rig.verify();
    println!("seed {seed}, {} points, {deaths} deaths at each: {report}", POINTS.len());
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    assert_eq!(count(&report, "archived"), count(&report, "durable"));
    controls(&rig);
}
