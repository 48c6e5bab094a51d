//! Writers, sweeper and spool of one machine, all real, in every order that a seed leads to: dropped
//! between any two steps, with requests that are lost, late, answered wrongly. In the end the same
//! audit as `tickmint verify` must find everything once. And the same worlds with one rule of the
//! protocol left out: the audit must notice.

mod cluster;
mod world;

use tickmint::audit::report::Report;
use tickmint::faults::{Flaw, with_flaw};

use world::World;

/// Worlds in which all rules hold. `TICKMINT_WORLDS` sets another number.
fn worlds() -> u64 {
    crate::support::amount("TICKMINT_WORLDS", 150)
}

/// The folder of a world, in memory where there is such a place: a disk is no part of these worlds, and they fsync without end.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// How many worlds without a rule may go well by luck.
const PATIENCE: u64 = 2000;

fn outcome(seed: u64, flaw: Option<Flaw>) -> (Vec<String>, Report) {
    with_flaw(flaw, || tickmint::commands::block_on(World::run(seed)).unwrap())
}

#[test]
fn whatever_the_order_everything_is_archived_once() {
    for seed in 0..worlds() {
        let (findings, _) = outcome(seed, None);
        assert!(findings.is_empty(), "seed {seed}: {findings:#?}");
    }
}

/// What a broken rule does to an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Records are nowhere.
    Lost,
    /// Records are archived twice.
    Doubled,
    /// Slots do not follow on each other.
    Chain,
    /// Objects that a slot names are gone.
    Objects,
    /// An hour that was declared complete has changed.
    Hour,
    /// Something is never archived, though nothing is in its way.
    Stuck,
}

impl Harm {
    fn is_in(self, findings: &[String], report: &Report) -> bool {
        let says = |words: &str| findings.iter().any(|finding| finding.contains(words));
        match self {
            Harm::Lost => report.lost > 0,
            Harm::Doubled => report.duplicated > 0,
            Harm::Chain => says("do not abut"),
            Harm::Objects => says("is named by a slot and is not there"),
            Harm::Hour => says("was declared complete"),
            Harm::Stuck => says("never"),
        }
    }
}

/// The first world that is harmed without the rule in a way that the rule is against. An audit that
/// cannot be made has noticed nothing, and with the rule the same world must be well.
fn is_noticed(flaw: Flaw, harms: &[Harm]) {
    notice(flaw, harms, outcome);
}

/// See [`is_noticed`]; in worlds of another kind.
fn notice(flaw: Flaw, harms: &[Harm], outcome: fn(u64, Option<Flaw>) -> (Vec<String>, Report)) {
    for seed in 0..PATIENCE {
        let (findings, report) = outcome(seed, Some(flaw));
        let noticed: Vec<Harm> = harms.iter().copied().filter(|harm| harm.is_in(&findings, &report)).collect();
        if !noticed.is_empty() {
            println!("{flaw:?}: noticed in world {seed} as {noticed:?}: {}", findings[0]);
            let (findings, _) = outcome(seed, None);
            assert!(findings.is_empty(), "world {seed} is not well with the rule either: {findings:#?}");
            return;
        }
    }
    panic!("{PATIENCE} worlds without a rule ({flaw:?}), and nobody noticed {harms:?}");
}

#[test]
fn a_writer_that_begins_at_a_stored_offset_is_noticed() {
    is_noticed(Flaw::StoredOffset, &[Harm::Chain]);
}

#[test]
fn an_hour_in_the_slots_name_is_noticed() {
    is_noticed(Flaw::HourInName, &[Harm::Lost, Harm::Doubled]);
}

#[test]
fn a_store_that_checks_and_then_acts_is_noticed() {
    is_noticed(Flaw::CheckThenAct, &[Harm::Chain, Harm::Lost, Harm::Doubled]);
}

#[test]
fn a_slot_before_its_objects_is_noticed() {
    is_noticed(Flaw::SlotBeforeObjects, &[Harm::Objects]);
}

#[test]
fn a_loser_that_keeps_its_own_state_is_noticed() {
    is_noticed(Flaw::LoserKeepsState, &[Harm::Lost, Harm::Doubled]);
}

#[test]
fn a_spool_that_deletes_by_the_tail_is_noticed() {
    is_noticed(Flaw::DeleteByTail, &[Harm::Lost]);
}

#[test]
fn a_sweeper_that_reads_names_and_tail_apart_is_noticed() {
    is_noticed(Flaw::SweepApart, &[Harm::Objects]);
}

#[test]
fn an_hour_that_is_not_handed_on_is_noticed() {
    is_noticed(Flaw::HourNotHandedOn, &[Harm::Hour]);
}

#[test]
fn equal_trades_taken_for_one_are_noticed() {
    is_noticed(Flaw::DedupByValue, &[Harm::Lost]);
}

#[test]
fn what_is_forgotten_too_early_is_noticed() {
    is_noticed(Flaw::ForgetEarly, &[Harm::Doubled]);
}

#[test]
fn a_generation_without_an_end_is_noticed() {
    is_noticed(Flaw::NoEndSlot, &[Harm::Chain, Harm::Lost, Harm::Doubled, Harm::Stuck]);
}

#[test]
fn a_closed_generation_that_counts_as_passed_is_noticed() {
    is_noticed(Flaw::ClosedHasPassed, &[Harm::Hour]);
}
