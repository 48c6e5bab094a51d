//! Writers, sweeper and spool of one machine, all real, in every order that a seed leads to: dropped
//! between any two steps, with requests that are lost, late, answered wrongly. In the end the same
//! audit as `tickmint verify` must find everything once. And the same worlds with one rule of the
//! protocol left out: the audit must notice.

mod world;

use tickmint::faults::{Flaw, with_flaw};

use world::World;

/// Worlds in which all rules hold. `TICKMINT_WORLDS` sets another number.
fn worlds() -> u64 {
    std::env::var("TICKMINT_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

/// How many worlds without a rule may go well by luck.
const PATIENCE: u64 = 2000;

fn findings(seed: u64, flaw: Option<Flaw>) -> Vec<String> {
    with_flaw(flaw, || tickmint::commands::block_on(World::run(seed)).unwrap())
}

#[test]
fn whatever_the_order_everything_is_archived_once() {
    for seed in 0..worlds() {
        let found = findings(seed, None);
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
    }
}

/// The first world that goes wrong without the rule.
fn is_noticed(flaw: Flaw) {
    for seed in 0..PATIENCE {
        if let Some(first) = findings(seed, Some(flaw)).first() {
            println!("{flaw:?}: noticed in world {seed}: {first}");
            return;
        }
    }
    panic!("{PATIENCE} worlds without a rule ({flaw:?}) and nobody noticed");
}

#[test]
fn a_writer_that_begins_at_a_stored_offset_is_noticed() {
    is_noticed(Flaw::StoredOffset);
}

#[test]
fn an_hour_in_the_slots_name_is_noticed() {
    is_noticed(Flaw::HourInName);
}

#[test]
fn a_store_that_checks_and_then_acts_is_noticed() {
    is_noticed(Flaw::CheckThenAct);
}

#[test]
fn a_slot_before_its_objects_is_noticed() {
    is_noticed(Flaw::SlotBeforeObjects);
}

#[test]
fn a_loser_that_keeps_its_own_state_is_noticed() {
    is_noticed(Flaw::LoserKeepsState);
}

#[test]
fn a_spool_that_deletes_by_the_tail_is_noticed() {
    is_noticed(Flaw::DeleteByTail);
}

#[test]
fn a_sweeper_that_reads_names_and_tail_apart_is_noticed() {
    is_noticed(Flaw::SweepApart);
}

#[test]
fn an_hour_that_is_not_handed_on_is_noticed() {
    is_noticed(Flaw::HourNotHandedOn);
}

#[test]
fn equal_trades_taken_for_one_are_noticed() {
    is_noticed(Flaw::DedupByValue);
}

#[test]
fn what_is_forgotten_too_early_is_noticed() {
    is_noticed(Flaw::ForgetEarly);
}
