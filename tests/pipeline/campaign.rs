//! The daemon dies at each of its named points, and the ledger is held against what is left.
//!
//! Each life is told at which point to die, and at which pass of it. `TICKMINT_ABORTS` deaths a point;
//! 1 if not set, and 8 in the long form (`just chaos`).

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::bronze::sealer::Complete;
use tickmint::domain::hour::Hour;
use tickmint::faults::POINTS;

use super::count::assert_counted_alike;
use super::kills::{assert_gaps_between_sessions, controls, count};
use super::rig::{Process, Rig, end, pause};
use crate::support::amount;

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

/// An object that no slot names.
const ORPHAN: &str = "p0-g0-0-5-deadbeef.jsonl.zst";

fn folder(rig: &Rig, hour: Hour) -> PathBuf {
    rig.path("lake/bronze/raw/trades").join(hour.folder())
}

/// Objects that no slot names, as a writer leaves them that died before its slot; in which hours.
fn leave_orphans(rig: &Rig) -> Vec<Hour> {
    let hour = Hour::of(rig.now());
    let hours: Vec<Hour> = (0..20).map(|ahead| Hour(hour.0 + ahead)).collect();
    for hour in &hours {
        std::fs::create_dir_all(folder(rig, *hour)).unwrap();
        std::fs::write(folder(rig, *hour).join(ORPHAN), "nobody names it").unwrap();
    }
    hours
}

/// Of the hours those that were declared complete.
fn complete(rig: &Rig, hours: &[Hour]) -> Vec<Hour> {
    let is_complete = |hour: &&Hour| rig.path("lake").join(Complete::key(**hour)).exists();
    hours.iter().filter(is_complete).copied().collect()
}

/// Waits for the death that this life was told of, and for no other.
fn wait_for_death(rig: &Rig, daemon: &mut Process, told: usize, point: &str, pass: u64) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = daemon.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < LIFE, "it never came to {point} {pass} times:\n{}", rig.log());
        pause(Duration::from_millis(10));
    };
    let log = rig.log();
    let said: Vec<&str> = log[told..].lines().filter(|line| line.starts_with("died at ")).collect();
    assert_eq!(said, [format!("died at {point}, pass {pass}, as a test asked")], "{status}\n{log}");
    assert_eq!(status.signal(), Some(SIGABRT), "{point} {pass}: {status}\n{log}");
}

#[test]
fn a_death_at_any_point_loses_nothing_and_doubles_nothing() {
    let deaths = amount("TICKMINT_ABORTS", 1);
    let seed = 20_261_124;
    let mut random = StdRng::seed_from_u64(seed);
    let symbols = tickmint::exchange::simulated_symbols(20);
    // Connections that end now and then, so that a session ends other than by a death.
    let (some, others) = symbols.split_at(10);
    let mut rig = Rig::with_shards(&["--simulate", "20", "--rate", "3000", "--faults", "drop=0.003"], &[some, others], "");
    // An hour in two seconds, or hours would never be sealed.
    rig.hurry(1800);
    let mut orphaned = Vec::new();
    for _ in 0..deaths {
        for point in POINTS {
            let pass = random.random_range(1..=passes(point));
            if point == "sweep.orphan" {
                orphaned.extend(leave_orphans(&rig));
            }
            rig.set("TICKMINT_FAULTS", &format!("{point}=abort@{pass}"));
            let told = rig.log().len();
            let mut daemon = rig.daemon();
            wait_for_death(&rig, &mut daemon, told, point, pass);
        }
    }
    rig.set("TICKMINT_FAULTS", "");
    let mut last = rig.daemon();
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    rig.wait_until("hours with orphans are complete", |_| !complete(&rig, &orphaned).is_empty());
    let code = end(&mut last);
    rig.end_exchange();
    assert_eq!(code, Some(0), "{}", rig.log());

    let (report, well) = rig.verify();
    println!("seed {seed}, {} points, {deaths} deaths at each: {report}", POINTS.len());
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    assert_eq!(count(&report, "archived"), count(&report, "durable"));
    assert!(count(&report, "gaps") > 0, "{report:#}");
    assert_gaps_between_sessions(&rig);
    let complete = complete(&rig, &orphaned);
    let left: Vec<Hour> = complete.iter().copied().filter(|hour| folder(&rig, *hour).join(ORPHAN).exists()).collect();
    assert!(left.is_empty(), "of {complete:?}, declared complete, orphans are left in {left:?}");
    assert_counted_alike(rig.dir.path(), &report);
    controls(&rig);
}
