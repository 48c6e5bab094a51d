//! The power fails: of the spool only that is left which an fsync had reached. What was acknowledged
//! to the feed must be among it.
//!
//! The machine's page cache survives a kill -9, so the kill alone shows nothing. The daemon under test
//! tells a witness of each fsync that returned and of each answer that the feed was given; the rig cuts
//! the files back to the former and asks for the latter.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::domain::identity::SessionId;
use tickmint::spool::segment;

use super::kills::count;
use super::rig::{Rig, end, pause};

/// What the witness was told.
#[derive(Default)]
struct Told {
    /// Of each session the last frame that was acknowledged.
    acknowledged: BTreeMap<SessionId, u32>,
    /// Of each segment, by `log/number`, how much an fsync has reached.
    synced: BTreeMap<String, u64>,
}

impl Told {
    fn read(rig: &Rig) -> Told {
        let mut told = Told::default();
        let text = std::fs::read_to_string(rig.path("witness")).unwrap_or_default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["acknowledged", session, frame] => {
                    let last = told.acknowledged.entry(session.parse().unwrap()).or_default();
                    *last = (*last).max(frame.parse().unwrap());
                }
                ["synced", segment, length] => drop(told.synced.insert(segment.to_string(), length.parse().unwrap())),
                _ => panic!("the witness says `{line}`"),
            }
        }
        told
    }
}

/// Cuts every segment back to what was fsynced; the number of bytes that are gone.
fn cut_power(rig: &Rig) -> u64 {
    let (told, mut gone) = (Told::read(rig), 0);
    for log in std::fs::read_dir(rig.path("spool")).unwrap() {
        let dir = log.unwrap().path();
        for number in dir.is_dir().then(|| segment::numbers(&dir).unwrap()).into_iter().flatten() {
            let path = segment::path(&dir, number);
            let synced = told.synced.get(&format!("{}/{number}", dir.file_name().unwrap().to_str().unwrap())).copied();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let (length, keep) = (file.metadata().unwrap().len(), synced.unwrap_or(0));
            gone += length.saturating_sub(keep);
            file.set_len(length.min(keep)).unwrap();
        }
    }
    gone
}

/// Sessions that were promised more frames than the archive and the spool have.
fn broken_promises(rig: &Rig) -> Vec<String> {
    let found = rig.found();
    let broken = Told::read(rig).acknowledged.into_iter().filter_map(|(session, promised)| {
        let kept = found.sessions.get(&session).map_or(0, |count| {
            count.end.as_ref().map_or(0, |end| end.frames).max(count.frames.keys().last().copied().unwrap_or(0))
        });
        (kept < promised).then(|| format!("{session}: {promised} frames were acknowledged, {kept} are there"))
    });
    broken.collect()
}

/// Lives that end by a power failure at a bad moment, then one that ends in good order.
fn outages(lives: u32, flaw: &str) -> (Rig, u64) {
    let mut random = StdRng::seed_from_u64(20_261_125);
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000"], &symbols, "");
    let witness = rig.path("witness");
    rig.set("TICKMINT_WITNESS", witness.to_str().unwrap());
    rig.set("TICKMINT_FLAW", flaw);
    let mut gone = 0;
    for life in 0..lives {
        let points = ["spool.before-write", "spool.before-fsync", "spool.after-fsync", "session.acknowledged"];
        let point = points[life as usize % points.len()];
        rig.set("TICKMINT_FAULTS", &format!("{point}=abort@{}", random.random_range(5..40)));
        let mut daemon = rig.daemon();
        daemon.wait();
        gone += cut_power(&rig);
    }
    rig.set("TICKMINT_FAULTS", "");
    rig.set("TICKMINT_FLAW", "");
    let mut last = rig.daemon();
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(100));
    pause(Duration::from_millis(100));
    assert_eq!(end(&mut last), Some(0), "{}", rig.log());
    rig.end_exchange();
    (rig, gone)
}

#[test]
fn what_was_acknowledged_survives_a_power_failure() {
    let (rig, gone) = outages(12, "");
    assert!(gone > 0, "the power failures hit nothing");
    assert_eq!(broken_promises(&rig), Vec::<String>::new());
    let (report, well) = rig.verify();
    println!("{gone} bytes were not fsynced and are gone: {report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
}

#[test]
fn an_answer_before_the_fsync_is_noticed() {
    let (rig, _) = outages(8, "AckBeforeFsync");
    let broken = broken_promises(&rig);
    println!("{broken:#?}");
    assert!(!broken.is_empty(), "trades were acknowledged and lost, and nobody noticed");
}
