//! The commit chain, model-checked: spool -> Kafka partition -> Bronze objects and commit slots, as in
//! ADR 2.
//!
//! One partition of one stream, and two writers that *both* believe that they own it. Requests may arrive
//! long after their sender has crashed, and answers may be lost. The Forwarder may append a record again at
//! any time, also one that has died; retention advances, the log may lose its end, the topic may be created
//! anew (twice), the spool's disk may be lost, and a sweeper deletes orphans by its own old view.
//! [stateright] visits every state that these can lead to and looks whether the [`properties`] hold there.
//!
//! The model is of the protocol, not of the code. It says which rules are needed: each of the 18 [`flaws`]
//! leaves one out, and each of them breaks something. The tests of the code leave the same rules out.
//!
//! Not in it: several partitions and sessions at once, Kafka's own fencing, poison records, the folder
//! store's details, and fairness (that two quarrelling writers make progress is argued: each slot is decided
//! by one of them).
//!
//! ```text
//! cargo test --release model:: -- --nocapture                        a minute of CPU
//! TICKMINT_FULL_MODEL=1 cargo test --release model:: -- --nocapture  all of it, 1.5 GB
//! TICKMINT_MODEL_TRACE=1                                             prints the counterexamples of the flaws
//! ```
#![allow(unreachable_pub, reason = "the parts of the model are public to each other, and to nobody else")]
#![allow(clippy::print_stdout, reason = "the numbers of states are the result")]

mod actions;
mod chain;
mod check;
mod configurations;
mod flaws;
mod properties;
mod state;
mod surroundings;
mod world;
mod writer;

use std::io::Write;

use configurations::Sound;
use flaws::Flaw;

/// For one run. The test harness runs several at once anyway.
const THREADS: usize = 2;

/// Runs the short configurations; the long ones only where they are asked for.
fn all_hold(runs: Vec<Sound>) {
    let wants_all = std::env::var("TICKMINT_FULL_MODEL").is_ok_and(|value| value == "1");
    let (left_out, runs): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.is_long && !wants_all);
    let failures: Vec<_> = runs.iter().filter_map(|run| check::holds(run, THREADS).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|run| run.name).collect();
        let note = format!("left out: {} (TICKMINT_FULL_MODEL=1 runs them)\n", names.join("; "));
        // Past the test harness, which shows only what failed tests print.
        std::io::stderr().write_all(note.as_bytes()).expect("stderr is open");
    }
}

#[test]
fn it_holds_with_crashes_and_copies() {
    all_hold(configurations::crashes_and_copies());
}

#[test]
fn it_holds_with_old_views_of_the_sweeper() {
    all_hold(configurations::old_views_of_the_sweeper());
}

#[test]
fn it_holds_when_retention_passes_the_tail() {
    all_hold(configurations::retention());
}

#[test]
fn it_holds_when_the_topic_is_created_again() {
    all_hold(configurations::recreation());
}

#[test]
fn it_holds_when_the_topic_is_created_again_twice() {
    all_hold(configurations::two_recreations());
}

#[test]
fn it_holds_when_sessions_are_forgotten() {
    all_hold(configurations::forgotten_sessions());
}

#[test]
fn it_holds_when_hours_are_sealed() {
    all_hold(configurations::sealed_hours());
}

#[test]
fn it_holds_when_the_log_loses_its_end() {
    all_hold(configurations::truncation());
}

#[test]
fn every_rule_that_is_left_out_breaks_something() {
    let failures: Vec<_> = Flaw::ALL.into_iter().filter_map(|flaw| check::is_caught(flaw).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
