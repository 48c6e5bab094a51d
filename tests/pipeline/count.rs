//! A second audit, by scripts that share nothing with the daemon: one must come to the same figures, and both compare what was
//! archived with what was sent, trade by trade; the other for lakes that are too large for the first.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kills::{count, files_below};
use super::rig::{Rig, end, verify};
use crate::support::python::python;
use crate::support::servers::or_skip;

/// Its report on the ledger and the lake of a rig's folder, and whether all is well; none where there is
/// no Python for it. The daemon must have ended.
pub(super) fn independent_count(dir: &Path) -> Option<(Value, bool)> {
    says("count.py", dir)
}

/// What one of the scripts says.
fn says(script: &str, dir: &Path) -> Option<(Value, bool)> {
    let mut command = or_skip(python("dbt"))?;
    command.arg(format!("tests/oracle/{script}")).arg(dir.join("ledger")).arg(dir.join("lake"));
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    Some((report, output.status.success()))
}

/// Holds the daemon's own audit against the independent one.
pub(super) fn assert_counted_alike(dir: &Path, report: &Value) {
    let Some((counted, well)) = independent_count(dir) else { return };
    println!("counted independently: {counted}");
    assert!(well, "{counted:#}");
    for name in ["sent", "archived", "lost", "duplicated", "quarantined", "gaps"] {
        assert_eq!(counted[name], report[name], "{name}: {counted:#} is not {report:#}");
    }
    assert_eq!(counted["covered"], report["not_received"], "{counted:#} is not {report:#}");
    let Some((content, well)) = says("content.py", dir) else { return };
    assert!(well, "{content:#}");
    for name in ["sent", "archived", "quarantined"] {
        assert_eq!(content[name], report[name], "{name}: {content:#} is not {report:#}");
    }
}

#[test]
fn two_audits_agree_and_the_second_bites() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let faults = ["--simulate", "20", "--rate", "2000", "--faults", "malformed=0.02,absurd=0.02,repeat=0.02,shuffle=0.05"];
    let mut rig = Rig::new(&faults, &symbols, "");
    for _ in 0..3 {
        let mut daemon = rig.daemon();
        rig.wait_for_shards(1);
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
    }
    let mut daemon = rig.daemon();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    assert!(well, "{report:#}");
    assert!(count(&report, "quarantined") > 0 && count(&report, "gaps") >= 3, "three lives had received something: {report:#}");
    assert_counted_alike(rig.dir.path(), &report);
    controls(&rig);
}

fn controls(rig: &Rig) {
    let dir = rig.dir.path();
    let ledger = rig.path("ledger");
    let sent = std::fs::read_to_string(&ledger).unwrap();
    // Of the last life, which was not killed: its first frames have arrived. A repeat shows no text.
    let last = sent.lines().rfind(|line| line.contains(r#""kind":"open""#)).unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    let of_last = format!(r#"{{"kind":"frame","conn":{},"#, last["conn"]);
    let is_shown = |line: &&str| line.starts_with(&of_last) && line.contains(r#""what":"trade""#) && line.contains(r#""text""#);
    let frame = sent.lines().filter(is_shown).nth(20).unwrap();

    with_other_content(&ledger, sent.replacen(frame, &frame.replacen(r#"\"p\":"#, r#"\"p\":1"#, 1), 1), || {
        assert_seen(dir, "changed", "another price in the ledger");
        assert_seen_by("content.py", dir, "changed", "another price in the ledger");
    });
    with_other_content(&ledger, sent.replacen(&format!("{frame}\n"), "", 1), || {
        assert_seen(dir, "faults", "a frame that was never sent");
        assert_seen_by("content.py", dir, "unsent", "a frame that was never sent");
    });
    let opened = sent.lines().find(|line| line.contains(r#""kind":"open""#)).unwrap();
    let one = r#"{"kind":"frame","conn":1,"n":0,"at_us":0,"what":"trade","trades":1}"#;
    with_other_content(&ledger, sent.replacen(opened, &format!("{opened}\n{one}"), 1), || {
        assert_seen(dir, "lost", "a frame more, before all that was received");
    });

    let bad = sent.lines().find(|line| line.contains(r#""what":"malformed""#)).unwrap();
    with_other_content(&ledger, sent.replacen(bad, &bad.replacen(r#""bad":1"#, r#""bad":2"#, 1), 1), || {
        assert_seen(dir, "lost", "a bad record more");
    });
    let trades: Value = serde_json::from_str(frame).unwrap();
    let trades = &trades["trades"];
    let (good, none) = (format!(r#""what":"trade","trades":{trades}"#), format!(r#""what":"absurd","trades":0,"bad":{trades}"#));
    with_other_content(&ledger, sent.replacen(frame, &frame.replacen(&good, &none, 1), 1), || {
        assert_seen(dir, "faults", "bad records among the trades");
        let (report, well) = verify(dir);
        assert!(!well && report["findings"].to_string().contains("bad records are archived as trades"), "{report:#}");
    });

    for form in ["raw", "typed"] {
        let objects = files_below(&rig.path(&format!("lake/bronze/{form}/trades")));
        let (object, other) = (&objects[objects.len() / 2], std::fs::read(&objects[0]).unwrap());
        with_other_content(object, other, || {
            assert_seen(dir, "faults", &format!("another {form} object"));
            assert_seen_by("content.py", dir, "faults", &format!("another {form} object"));
        });
    }

    // The same records in one slot more.
    let (path, slot) = last_slot(&rig.path("lake/_commit/trades"));
    let (end, rows) = (slot["end"].as_u64().unwrap(), slot["data"]["rows"].as_u64().unwrap());
    let mut again = slot;
    (again["start"], again["end"]) = ((end + 1).into(), (end + rows).into());
    let more = path.with_file_name("more.json");
    std::fs::write(&more, again.to_string()).unwrap();
    assert_seen(dir, "duplicated", "records in two slots");
    assert_seen_by("content.py", dir, "doubled", "records in two slots");
    std::fs::remove_file(more).unwrap();

    // The typed object of another slot, by its right hash.
    let kept = std::fs::read(&path).unwrap();
    let mut slot: Value = serde_json::from_slice(&kept).unwrap();
    slot["data"]["typed"] = other_slot(&path)["data"]["typed"].clone();
    with_other_content(&path, slot.to_string(), || {
        assert_seen(dir, "faults", "another slot's typed object");
        assert_seen_by("content.py", dir, "typed_wrong", "another slot's typed object");
    });

    assert!(independent_count(dir).is_none_or(|(_, well)| well), "all was put back");
}

fn with_other_content(path: &Path, content: impl AsRef<[u8]>, check: impl FnOnce()) {
    let kept = std::fs::read(path).unwrap();
    assert_ne!(kept, content.as_ref(), "the control changes nothing");
    std::fs::write(path, content).unwrap();
    check();
    std::fs::write(path, kept).unwrap();
}

fn assert_seen(dir: &Path, name: &str, what: &str) {
    assert_seen_by("count.py", dir, name, what);
}

fn assert_seen_by(script: &str, dir: &Path, name: &str, what: &str) {
    let Some((report, well)) = says(script, dir) else { return };
    assert!(!well && count(&report, name) > 0, "{what} was not seen by {script}: {report:#}");
}

/// The slots with data.
fn slots(dir: &Path) -> impl Iterator<Item = (PathBuf, Value)> {
    let slots = files_below(dir).into_iter().map(|path| {
        let slot: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, slot)
    });
    slots.filter(|(_, slot)| slot["data"].is_object())
}

/// The newest slot with data, which is the chain's last: no daemon has come after it.
fn last_slot(dir: &Path) -> (PathBuf, Value) {
    let position = |slot: &Value| (slot["generation"].as_u64(), slot["start"].as_u64());
    slots(dir).max_by_key(|(_, slot)| position(slot)).unwrap()
}

/// Another one of the same chain.
fn other_slot(than: &Path) -> Value {
    slots(than.parent().unwrap()).find(|(path, _)| path != than).unwrap().1
}
