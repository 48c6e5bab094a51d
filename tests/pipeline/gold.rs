//! Gold of a whole demo against candles that a script computes straight from the tape.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::python::python;
use crate::support::servers::{Skip, free_ports, or_skip};

const TICKMINT: &str = env!("CARGO_BIN_EXE_tickmint");

/// Where recorded days are, if somebody has them: in `TICKMINT_TAPES`, or a folder beside the project.
pub(super) fn tape_path(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tapes");
    std::env::var_os("TICKMINT_TAPES").map_or(beside, PathBuf::from).join(name)
}

fn tape(name: &str) -> Option<PathBuf> {
    let path = tape_path(name);
    let missing = || Skip(format!("no tape {} (set TICKMINT_TAPES to a folder of tapes)", path.display()));
    or_skip(if path.exists() { Ok(path.clone()) } else { Err(missing()) })
}

/// Runs a demo to its end; returns what it printed. It must say that nothing was lost or doubled.
fn demo(dir: &Path, arguments: &[&str]) -> String {
    let [port] = free_ports();
    let port = port.to_string();
    let mut command = Command::new(TICKMINT);
    command.args(["demo", "--port", &port, "--data-dir"]).arg(dir).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
    assert!(output.status.success(), "{out}\n{err}\n{log}");
    println!("{out}");
    out.into_owned()
}

/// Holds the published Gold against the tape; returns what the script said and whether all is equal.
pub(super) fn compare(gold: &Path, tape: &Path, more: &[&str]) -> (String, bool) {
    let mut command = or_skip(python("dbt")).expect("the demo has made it");
    command.arg("tests/oracle/compare.py").arg(gold).arg(tape).args(more);
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    (said, output.status.success())
}

/// The frames of trades that a ledger tells of, as a tape.
pub(super) fn tape_of(ledger: &Path, tape: &Path) -> usize {
    let lines = std::fs::read_to_string(ledger).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let frames: Vec<String> =
        lines.filter(|line| line["what"] == "trade").filter_map(|line| Some(line["text"].as_str()?.to_string() + "\n")).collect();
    std::fs::write(tape, frames.concat()).unwrap();
    frames.len()
}

#[test]
fn bars_of_a_made_market_equal_those_of_an_independent_script() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second, made) = (temp.path().join("first"), temp.path().join("second"), temp.path().join("made.jsonl"));
    demo(&first, &["--for", "12s"]);
    assert!(tape_of(&first.join("exchange.ledger"), &made) > 20);
    demo(&second, &["--tape", made.to_str().unwrap(), "--speed", "max"]);
    let (said, equal) = compare(&second.join("gold"), &made, &[]);
    assert!(equal, "{said}");

    // The control: one trade of another size, and the same comparison must see it.
    let text = std::fs::read_to_string(&made).unwrap();
    let (first_line, rest) = text.split_once('\n').unwrap();
    let changed = first_line.replacen("\"v\":", "\"v\":1", 1);
    std::fs::write(&made, format!("{changed}\n{rest}")).unwrap();
    let (said, equal) = compare(&second.join("gold"), &made, &[]);
    assert!(!equal && said.contains("volume"), "{said}");
}

#[test]
fn a_recorded_day_is_in_gold_to_the_last_digit() {
    let Some(tape) = tape("us-equity-20131007.jsonl.gz") else { return };
    let temp = tempfile::tempdir().unwrap();
    let said = demo(temp.path(), &["--tape", tape.to_str().unwrap(), "--speed", "max"]);
    assert!(said.contains("388417  trades in Silver"), "{said}");
    let (said, equal) = compare(&temp.path().join("gold"), &tape, &[]);
    assert!(equal, "{said}");
}

#[test]
fn hundreds_of_equal_trades_in_a_millisecond_are_all_kept() {
    let Some(tape) = tape("crypto-btcusdt-20240809.jsonl.gz") else { return };
    let temp = tempfile::tempdir().unwrap();
    let said = demo(temp.path(), &["--tape", tape.to_str().unwrap(), "--speed", "max"]);
    assert!(said.contains("19904  trades in Silver"), "{said}");
    let (said, equal) = compare(&temp.path().join("gold"), &tape, &[]);
    assert!(equal, "{said}");
}

#[test]
fn a_recorded_day_under_leans_rule_meets_the_bars_that_lean_publishes() {
    let Some(tape) = tape("us-equity-20131007.jsonl.gz") else { return };
    let published = tape.with_file_name("us-equity-20131007.bars.csv.gz");
    let published = published.to_str().unwrap();
    let temp = tempfile::tempdir().unwrap();
    demo(temp.path(), &["--tape", tape.to_str().unwrap(), "--speed", "max", "--sale-conditions", "lean"]);
    let gold = temp.path().join("gold");
    let (said, well) = compare(&gold, &tape, &["lean", published]);
    assert!(well && said.contains("differences: none"), "{said}");
    assert!(!said.contains("NOT EXPLAINED"), "{said}");

    // The control: the same comparison sees that these are not the bars of the rule that ships.
    let (said, well) = compare(&gold, &tape, &["cts_utp"]);
    assert!(!well, "{said}");
}
