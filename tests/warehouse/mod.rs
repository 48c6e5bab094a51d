//! The warehouse's own tests are pytest's, for the refiner is Python: each file here is one test of
//! this binary, so that one command runs all. They start the real refiner process and speak to it over
//! its pipes, as the daemon does. They begin in the order of their names, so the long ones are not named
//! last: one of four minutes at the end leaves a core idle.

use crate::support::python;
use crate::support::servers::or_skip;

/// Runs a file of this folder in the pinned environment.
fn pytest(file: &str) {
    let Some(command) = or_skip(python::python("tests/warehouse")) else { return };
    python::pytest(command, &format!("tests/warehouse/{file}.py"));
}

#[test]
fn the_protocol_of_the_pipe() {
    pytest("test_protocol");
}

#[test]
fn records_on_their_way_into_silver() {
    pytest("test_silver");
}

#[test]
fn what_the_audit_of_silver_and_gold_sees() {
    pytest("test_audit");
}

#[test]
fn recorded_days_in_gold() {
    pytest("test_tapes");
}

#[test]
fn the_refiner_is_killed_at_every_point() {
    pytest("test_crashes");
}

#[test]
fn bars_are_a_merge_of_their_trades() {
    pytest("test_gold");
}

#[test]
fn indicators_are_those_of_ta_lib_and_pandas() {
    pytest("test_indicators");
}

#[test]
fn the_trading_calendar() {
    pytest("test_calendar");
}

#[test]
fn failures_are_told_until_they_are_mended() {
    pytest("test_failures");
}

#[test]
fn the_rules_that_reject_a_trade() {
    pytest("test_rules");
}

#[test]
fn the_quality_of_the_data_is_told() {
    pytest("test_quality");
}

#[test]
fn the_portfolio_of_a_file_of_fills() {
    pytest("test_portfolio");
}

#[test]
fn deliveries_in_any_order_end_in_the_same_gold() {
    pytest("test_deliveries");
}

/// A file that nobody runs tests nothing.
#[test]
fn every_file_is_run_from_here() {
    let here = std::fs::read_to_string(file!()).unwrap();
    for entry in std::fs::read_dir("tests/warehouse").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(file) = name.strip_suffix(".py").filter(|file| file.starts_with("test_")) {
            assert!(here.contains(&format!("pytest(\"{file}\")")), "{name} is not run by tests/warehouse/mod.rs");
        }
    }
}
