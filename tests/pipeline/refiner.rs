//! The refiner process is killed, over and over, under a daemon that runs. What the tables hold and
//! what is published at named points of its work: `tests/warehouse/test_crashes.py`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::gold::{compare, tape_of};
use super::kills::count;
use super::rig::{Process, Rig, end, pause, signal};
use crate::support::python::python;
use crate::support::servers::or_skip;

/// The exchange sends so many trades and no more.
const TRADES: u64 = 24_000;

/// So many refiners are killed, while the market plays: an idle one that is gone is not missed.
const KILLS: usize = 5;

#[test]
fn a_refiner_that_is_killed_is_started_anew_and_gold_comes_out_the_same() {
    if or_skip(python("dbt")).is_none() {
        return;
    }
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "400", "--trades", &TRADES.to_string()], &symbols, "");
    rig.with_warehouse();
    rig.edit("[warehouse]\n", "[warehouse]\nevery = \"100ms\"\n");
    let mut daemon = rig.daemon();
    let mut random = StdRng::seed_from_u64(20_261_124);
    let mut killed = Vec::new();
    let archived = |pipeline: &Value| pipeline["bronze"]["trades"]["records"].as_u64();
    while killed.len() < KILLS && rig.get("/api/pipeline").is_none_or(|pipeline| archived(&pipeline) < Some(TRADES)) {
        if let Some(refiner) = child_of(&daemon).filter(|pid| !killed.contains(pid)) {
            if killed.len() % 2 == 0 {
                // While it comes up, or over all that has gathered meanwhile.
                pause(Duration::from_millis(random.random_range(0..5000)));
            } else {
                // In the midst of its rounds, which follow on one another.
                let runs = runs(&rig);
                rig.wait_until("a run is published", |pipeline| {
                    pipeline["silver"]["runs"].as_u64() > runs || archived(pipeline) == Some(TRADES)
                });
                pause(Duration::from_millis(random.random_range(0..1000)));
            }
            signal("-KILL", refiner);
            killed.push(refiner);
        }
        pause(Duration::from_millis(50));
    }
    assert!(killed.len() > 2, "{} were killed: the market was over too soon", killed.len());
    rig.wait_until("all is archived", |pipeline| archived(pipeline) == Some(TRADES));
    rig.wait_until("it is refined", |pipeline| pipeline["silver"]["latest"]["rows"]["silver.trades"] == TRADES);
    let pipeline = rig.get("/api/pipeline").unwrap();
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();

    let (report, well) = rig.verify();
    println!("{} kills, {}: {report}", killed.len(), pipeline["silver"]);
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "silver"), count(&report, "archived")), (TRADES, TRADES), "{report:#}");
    assert!(count(&report, "gold") > 0, "{report:#}");
    let manifest: Value = serde_json::from_slice(&std::fs::read(rig.path("gold/manifest.json")).unwrap()).unwrap();
    let bars = rig.path("gold").join(manifest["tables"]["ohlc_1m"]["files"][0].as_str().unwrap());
    let content = std::fs::read(&bars).unwrap();
    std::fs::write(&bars, &content[..content.len() / 2]).unwrap();
    let (damaged, well) = rig.verify();
    assert!(!well && count(&damaged, "faults") == 1, "half a file of Gold was not seen: {damaged:#}");
    std::fs::write(bars, content).unwrap();
    let tape = rig.path("received.jsonl");
    assert!(tape_of(&rig.path("ledger"), &tape) > 100);
    let (said, equal) = compare(&rig.path("gold"), &tape, &[]);
    assert!(equal, "{said}");

    // Nothing new comes, and what is not published is published all the same.
    std::fs::remove_file(rig.path("gold/manifest.json")).unwrap();
    let mut daemon = rig.daemon();
    rig.wait_until("Gold is published anew", |_| rig.path("gold/manifest.json").is_file());
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    let (said, equal) = compare(&rig.path("gold"), &tape, &[]);
    assert!(equal, "{said}");
}

/// A typed object is gone while all others are there: Silver takes the others, an alarm names it for as long
/// as it is away, over a new start too, and Silver has all when it is back.
#[test]
fn an_object_that_is_gone_is_an_alarm_and_the_others_go_on() {
    if or_skip(python("dbt")).is_none() {
        return;
    }
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000", "--trades", "6000"], &symbols, "");
    let mut daemon = rig.daemon();
    rig.wait_until("all is archived", |pipeline| pipeline["bronze"]["trades"]["records"] == 6000);
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let mut objects = Vec::new();
    files(&rig.path("lake/bronze/typed/trades"), &mut objects);
    objects.sort();
    assert!(objects.len() > 2, "{objects:?}");
    let (path, away) = (objects[1].clone(), rig.path("away"));
    std::fs::rename(&path, &away).unwrap();

    rig.with_warehouse();
    rig.edit("[warehouse]\n", "[warehouse]\nevery = \"100ms\"\n");
    let silver = |pipeline: &Value| pipeline["silver"]["latest"]["rows"]["silver.trades"].as_u64();
    for start in 1..=2 {
        let mut daemon = rig.daemon();
        rig.wait_until("the others are refined", |pipeline| silver(pipeline) > Some(0));
        rig.wait_for_alarms("the object is named", |alarms| alarms.contains("warehouse") && alarms.contains(name(&path)));
        assert!(silver(&rig.get("/api/pipeline").unwrap()) < Some(6000));
        assert!(rig.get("/health").unwrap().to_string().contains("put a copy of it back"), "start {start}");
        if start == 2 {
            std::fs::rename(&away, &path).unwrap();
            rig.wait_until("all is refined", |pipeline| silver(pipeline) == Some(6000));
            rig.wait_for_alarms("and is over", |alarms| !alarms.contains("warehouse"));
        }
        assert_eq!(end(&mut daemon), Some(0), "it drains, {}", rig.log());
    }
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well && count(&report, "silver") == 6000, "{report:#}");
}

/// It is stopped, so it sees neither that it shall end nor that nobody is there any more.
#[test]
fn a_refiner_that_does_not_end_is_not_left_behind() {
    if or_skip(python("dbt")).is_none() {
        return;
    }
    let symbols = tickmint::exchange::simulated_symbols(5);
    let rig = Rig::new(&["--simulate", "5", "--rate", "50"], &symbols, "");
    rig.with_warehouse();
    rig.edit("drain_within = \"110s\"", "drain_within = \"4s\"");
    let mut daemon = rig.daemon();
    rig.wait_for("a run is published", || runs(&rig) > Some(0));
    let refiner = child_of(&daemon).unwrap();
    signal("-STOP", refiner);
    let begin = std::time::Instant::now();
    assert_eq!(end(&mut daemon), Some(75), "{}", rig.log());
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(rig.log().contains("the refiner process did not end in time and was killed"), "{}", rig.log());
    rig.wait_for("it is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{refiner}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap_or_default().starts_with('Z') || stat.is_empty()
    });
    // Nothing of it is in the way of the next.
    rig.edit("drain_within = \"4s\"", "drain_within = \"110s\"");
    let mut daemon = rig.daemon();
    rig.wait_for("a run is published", || runs(&rig) > Some(0));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
}

/// A slot is deleted before Silver has it, under a daemon that runs.
#[test]
fn a_slot_that_is_deleted_is_an_alarm_with_its_cure_and_all_is_taken_when_it_is_back() {
    if or_skip(python("dbt")).is_none() {
        return;
    }
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "400"], &symbols, "");
    rig.with_warehouse();
    rig.edit("[warehouse]\n", "[warehouse]\nevery = \"4s\"\n");
    let mut daemon = rig.daemon();
    rig.wait_for("a run is published", || runs(&rig) > Some(0));
    // The names of slots are inverted: the newest sorts first. What comes now is not read for four seconds.
    let slots = || {
        let mut slots = Vec::new();
        files(&rig.path("lake/_commit/trades"), &mut slots);
        slots.sort();
        slots
    };
    let before = slots().len();
    rig.wait_for("there are new slots", || slots().len() > before + 2);
    let (slot, away) = (slots()[1].clone(), rig.path("away"));
    std::fs::rename(&slot, &away).unwrap();
    let silver = |rig: &Rig| rig.get("/api/pipeline").unwrap()["silver"]["latest"]["rows"]["silver.trades"].as_u64();

    rig.wait_for_alarms("the slot and its cure are named", |alarms| {
        alarms.contains("warehouse/chains") && alarms.contains(name(&slot)) && alarms.contains("put a copy of it back")
    });
    let stands = silver(&rig);
    pause(Duration::from_secs(5));
    assert_eq!(silver(&rig), stands, "Silver stands still in front of it");
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    let (report, well) = rig.verify();
    let said = report["findings"].to_string();
    assert!(!well && said.contains(name(&slot)) && said.contains("put a copy of it back"), "{report:#}");

    let mut daemon = rig.daemon();
    rig.wait_for_alarm("warehouse/chains", true);
    rig.wait_for_alarm("bronze/hours", true);
    std::fs::rename(&away, &slot).unwrap();
    rig.wait_for_alarm("warehouse/chains", false);
    rig.wait_for_alarm("bronze/hours", false);
    rig.wait_for("Silver goes on", || silver(&rig) > stands);
    rig.end_exchange();
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    let (report, well) = rig.verify();
    assert!(well, "{report:#}");
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { files(&entry, found) } else { found.push(entry) }
    }
}

fn runs(rig: &Rig) -> Option<u64> {
    rig.get("/api/pipeline").and_then(|pipeline| pipeline["silver"]["runs"].as_u64())
}

/// The process that the daemon has started, if it has: only its refiner is one.
pub(super) fn child_of(daemon: &Process) -> Option<u32> {
    let parent = daemon.0.id().to_string();
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.into_iter().find(|pid| {
        // `pid (name) state parent ...`; a zombie is gone already.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(&parent)
    })
}
