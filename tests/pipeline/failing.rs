//! A model that is broken, and a run that takes long: readers have the last good version, and everybody who
//! asks is told since when and why there is no newer one, over every restart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::refiner::child_of;
use super::rig::{Rig, TICKMINT, end, pause, signal};
use crate::support::python::python;
use crate::support::servers::or_skip;

const MODEL: &str = "models/gold/ohlc_1m.sql";

/// A world whose daemon has a dbt project of its own, to be broken.
fn world() -> Option<(Rig, PathBuf)> {
    or_skip(python("dbt"))?;
    let symbols = tickmint::exchange::simulated_symbols(10);
    let rig = Rig::new(&["--simulate", "10", "--rate", "100"], &symbols, "");
    rig.with_warehouse();
    let (shipped, own) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt"), rig.path("project"));
    assert!(Command::new("cp").arg("-r").args([&shipped, &own]).status().unwrap().success());
    rig.edit(&format!("{shipped:?}"), &format!("{own:?}"));
    rig.edit("[warehouse]\n", "[warehouse]\nevery = \"100ms\"\n");
    Some((rig, own))
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn warehouse(rig: &Rig) -> Value {
    rig.get("/health").map_or(Value::Null, |health| health["warehouse"].clone())
}

/// Waits for so many rounds that have failed in a row; returns what the health says of them.
fn wait_for_failures(rig: &Rig, rounds: u64) -> Value {
    let is_failing = |warehouse: &Value| warehouse["failing"]["rounds"].as_u64() >= Some(rounds);
    rig.wait_for("rounds fail", || is_failing(&warehouse(rig)));
    warehouse(rig)
}

fn status(rig: &Rig) -> String {
    let output = Command::new(TICKMINT).args(["status", "--config"]).arg(rig.path("tickmint.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "it is not well");
    String::from_utf8(output.stdout).unwrap()
}

fn runs(rig: &Rig) -> Option<u64> {
    rig.get("/api/pipeline")?["silver"]["runs"].as_u64()
}

#[test]
fn a_broken_model_leaves_readers_the_last_good_version_and_is_told_until_it_is_mended() {
    let Some((mut rig, project)) = world() else { return };
    let model = project.join(MODEL);
    let mut daemon = rig.daemon();
    rig.wait_for("there are bars", || rig.get("/api/bars").is_some_and(|bars| bars["bars"][0]["trades"].as_u64() > Some(0)));
    assert_eq!(warehouse(&rig)["failing"], Value::Null);
    assert_eq!(rig.metric("tickmint_warehouse_failing_since_timestamp_seconds"), Some(0.0));

    // Broken while it runs: the next process finds it.
    edit(&model, "\nfrom bars\n", "\nfrom bars where no_such_column\n");
    signal("-KILL", child_of(&daemon).unwrap());
    rig.wait_for("the model fails", || warehouse(&rig)["failing"]["phase"] == "gold");
    let first = wait_for_failures(&rig, 2);
    let (failing, gold) = (&first["failing"], &first["gold"]);
    assert!(failing["error"].as_str().unwrap().contains("no_such_column"), "{failing}");
    let since: jiff::Timestamp = failing["since"].as_str().unwrap().parse().unwrap();
    rig.wait_for_alarm("warehouse", true);
    let health = rig.get("/health").unwrap();
    let alarm = health["alarms"].as_array().unwrap().iter().find(|alarm| alarm["name"] == "warehouse").unwrap();
    assert_eq!(alarm["since_ms"], since.as_millisecond());
    assert!(alarm["why"].as_str().unwrap().contains("no_such_column"), "{alarm}");
    assert_eq!(rig.metric("tickmint_warehouse_failing_since_timestamp_seconds"), Some(since.as_millisecond() as f64 / 1e3));
    let said = status(&rig);
    for part in [
        &format!("Gold: run {}, published at {}", gold["run"], gold["published_at"].as_str().unwrap()),
        &format!("no newer run since {since}"),
        "in gold: ",
        "no_such_column",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let manifest: Value = serde_json::from_slice(&std::fs::read(rig.path("gold/manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["run"], &manifest["failing"]["phase"]), (&gold["run"], &"gold".into()));
    let bars = rig.get("/api/bars").unwrap();
    assert!(bars["run"] == gold["run"] && bars["bars"][0]["trades"].as_u64() > Some(0), "the page has the old bars: {bars}");

    // The new life of both processes knows it, and that it is the same series.
    daemon.0.kill().unwrap();
    daemon.wait();
    let mut daemon = rig.daemon();
    let again = wait_for_failures(&rig, failing["rounds"].as_u64().unwrap() + 1);
    assert_eq!((&again["failing"]["since"], &again["gold"]), (&failing["since"], gold));
    assert_eq!(rig.get("/api/bars").unwrap()["run"], gold["run"]);

    edit(&model, "\nfrom bars where no_such_column\n", "\nfrom bars\n");
    rig.wait_for("it is mended", || warehouse(&rig)["failing"].is_null() && warehouse(&rig)["gold"]["run"].is_u64());
    rig.wait_for_alarm("warehouse", false);
    assert!(warehouse(&rig)["gold"]["run"].as_u64() > gold["run"].as_u64());
    rig.end_exchange();
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    let (report, well) = rig.verify();
    assert!(well, "{report:#}");
}

#[test]
fn a_project_that_cannot_be_parsed_is_told_from_the_start() {
    let Some((rig, project)) = world() else { return };
    let torn = project.join("models/gold/torn.sql");
    std::fs::write(&torn, "select {{ 1").unwrap();
    let mut daemon = rig.daemon();
    let first = wait_for_failures(&rig, 1);
    assert_eq!((&first["failing"]["phase"], &first["gold"]), (&"project".into(), &Value::Null));
    assert!(first["failing"]["error"].as_str().unwrap().contains("cannot be parsed"), "{first}");
    assert_eq!(rig.actors()["shards/shard-1/session"]["state"], "running", "Bronze needs no model");
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    let mut daemon = rig.daemon();
    let again = wait_for_failures(&rig, first["failing"]["rounds"].as_u64().unwrap() + 1);
    assert_eq!(again["failing"]["since"], first["failing"]["since"]);
    std::fs::remove_file(torn).unwrap();
    rig.wait_for("it is mended", || warehouse(&rig)["failing"].is_null() && warehouse(&rig)["gold"]["run"].is_u64());
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
}

/// One statement that works for longer than `warehouse.run_timeout` is let be; a process that does not work is not.
#[test]
fn a_run_that_works_is_not_killed_and_one_that_hangs_is() {
    let Some((rig, project)) = world() else { return };
    let model = project.join(MODEL);
    let slow = "cross join (select count(*) as n from range(50000) a, range(20000) b where hash(a.range + b.range) = 1) slow";
    edit(&model, "\nfrom bars\n", &format!("\nfrom bars {slow}\n"));
    edit(&model, "cast(trades as bigint)", "cast(trades + slow.n as bigint)");
    let timeout = Duration::from_secs(3);
    rig.edit("[warehouse]\n", &format!("[warehouse]\nrun_timeout = \"{}s\"\n", timeout.as_secs()));
    let mut daemon = rig.daemon();
    rig.wait_until("a long run is published", |pipeline| {
        pipeline["silver"]["latest"]["seconds"].as_f64() > Some(2.0 * timeout.as_secs_f64())
    });
    let pipeline = rig.get("/api/pipeline").unwrap();
    assert_eq!(pipeline["silver"]["failures"], 0, "{}", pipeline["silver"]);

    // The control: it is stopped, and is found and replaced, however long that takes to come to light.
    let stopped = child_of(&daemon).unwrap();
    signal("-STOP", stopped);
    let failing = wait_for_failures(&rig, 1);
    assert!(failing["failing"]["error"].as_str().unwrap().contains("`warehouse.run_timeout`"), "{failing}");
    rig.wait_for("it is replaced", || child_of(&daemon).is_some_and(|pid| pid != stopped));
    let before = runs(&rig);
    rig.wait_for("a run is published", || runs(&rig) > before && warehouse(&rig)["failing"].is_null());
    pause(Duration::from_millis(200));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
}

/// A file of the user's: what is wrong in it is said, and neither stops Gold nor takes away what stood.
#[test]
fn positions_are_valued_and_a_wrong_line_is_an_alarm() {
    let Some((rig, _)) = world() else { return };
    let file = rig.path("positions.csv");
    let symbol = tickmint::exchange::simulated_symbols(1).remove(0);
    let good = format!("account,symbol,executed_at,quantity,price\nmain,{symbol},2026-01-05T15:00:00Z,10,90\n");
    std::fs::write(&file, &good).unwrap();
    rig.edit("[warehouse]\n", &format!("[warehouse]\npositions = {file:?}\n"));
    let mut daemon = rig.daemon();
    let positions = || rig.metric("tickmint_warehouse_rows{table=\"gold.portfolio\"}").unwrap_or_default();
    rig.wait_for("there is a position", || positions() > 0.0);
    std::fs::write(&file, format!("{good}main,{symbol},yesterday,10,90\n")).unwrap();
    rig.wait_for_alarm("warehouse/positions", true);
    let health = rig.get("/health").unwrap();
    let alarm = health["alarms"].as_array().unwrap().iter().find(|alarm| alarm["name"] == "warehouse/positions").unwrap();
    assert!(alarm["why"].as_str().unwrap().contains("yesterday"), "{alarm}");
    assert!(positions() > 0.0 && warehouse(&rig)["failing"].is_null());
    std::fs::write(&file, &good).unwrap();
    rig.wait_for_alarm("warehouse/positions", false);
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
}
