//! kill -9 at random moments while a market plays. The number of kills: `TICKMINT_KILLS`, 25 if not
//! set.

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::count::{assert_counted_alike, independent_count};
use super::rig::{Rig, end, pause, verify};

pub(super) fn count(report: &serde_json::Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let kills = std::env::var("TICKMINT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    let seed = 20_261_123;
    let mut random = StdRng::seed_from_u64(seed);
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000"], &symbols, "");
    for _ in 0..kills {
        let mut daemon = rig.daemon();
        pause(Duration::from_millis(random.random_range(30..900)));
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
    }
    let mut last = rig.daemon();
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    let code = end(&mut last);
    rig.end_exchange();
    assert_eq!(code, Some(0), "{}", rig.log());

    let (report, well) = rig.verify();
    println!("seed {seed}, {kills} kills: {report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    assert_eq!(count(&report, "archived"), count(&report, "durable"));
    assert!(count(&report, "archived") > 1000 && count(&report, "gaps") > 0, "the kills hit nothing: {report:#}");
    assert_counted_alike(rig.dir.path(), &report);
    controls(&rig);
}

/// Before anybody comes after it, a dead daemon's spool says how far its session got: what is behind that is not
/// lost. A spool that is gone says nothing, and what was in it is.
#[test]
fn a_death_is_no_loss_yet_and_a_spool_that_is_gone_is_one() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000"], &symbols, "");
    let mut daemon = rig.daemon();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let (report, well) = rig.verify();
    assert!(well && report["notes"].to_string().contains("has not ended"), "{report:#}");
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"), "{report:#}");

    let (spool, away) = (rig.path("spool"), rig.path("away"));
    std::fs::rename(&spool, &away).unwrap();
    let (report, well) = rig.verify();
    assert!(!well && report["findings"].to_string().contains("has no end"), "a spool that is gone was not seen: {report:#}");
    std::fs::rename(&away, &spool).unwrap();
    assert!(rig.verify().1, "it was put back");

    // Daemons go on with empty spools, one after one that died, and one after one that ended well. They cannot
    // know that there were others before them.
    for (away, missing) in [("away", "has no end"), ("away-too", "is told by no gap from its beginning on")] {
        std::fs::rename(&spool, rig.path(away)).unwrap();
        let mut daemon = rig.daemon();
        rig.wait_until("trades are durable", |pipeline| pipeline["spool"]["records"]["trades"].as_u64() > Some(1000));
        assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
        let (report, well) = rig.verify();
        println!("with an empty spool: {report}");
        assert!(!well && report["findings"].to_string().contains(missing), "{report:#}");
    }
    rig.end_exchange();
    let Some((counted, well)) = independent_count(rig.dir.path()) else { return };
    let findings = counted["findings"].to_string();
    assert!(!well && findings.contains("0 ends") && findings.contains("0 gaps"), "{counted:#}");
}

/// The same audit must see what it is for: an object that is gone, and one that was changed.
pub(super) fn controls(rig: &Rig) {
    let objects = files_below(&rig.path("lake/bronze/raw/trades"));
    let object = &objects[objects.len() / 2];
    let content = std::fs::read(object).unwrap();

    std::fs::remove_file(object).unwrap();
    let (report, well) = verify(rig.dir.path());
    assert!(!well && count(&report, "lost") > 0, "a missing object was not seen: {report:#}");

    let other = std::fs::read(objects.iter().find(|other| *other != object).unwrap()).unwrap();
    std::fs::write(object, other).unwrap();
    let (report, well) = verify(rig.dir.path());
    assert!(!well && count(&report, "lost") > 0, "a changed object was not seen: {report:#}");

    std::fs::write(object, content).unwrap();
    assert!(verify(rig.dir.path()).1, "it was put back");
}

pub(super) fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
