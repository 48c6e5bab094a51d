//! The same with Kafka between the spools and the chains: the real forwarder, writers, sweeper and spools, and the log in
//! memory; in every order that a seed leads to. Then with one rule left out.

mod log;
mod world;

use tickmint::audit::report::Report;
use tickmint::faults::{Flaw, with_flaw};

use super::{Harm, notice, worlds};
use world::World;

fn outcome(seed: u64, flaw: Option<Flaw>) -> (Vec<String>, Report) {
    with_flaw(flaw, || tickmint::commands::block_on(World::run(seed)).unwrap())
}

#[test]
fn whatever_the_order_everything_that_was_durable_is_archived_once() {
    for seed in 0..worlds() {
        let (findings, _) = outcome(seed, None);
        assert!(findings.is_empty(), "seed {seed}: {findings:#?}");
    }
}

#[test]
fn a_forwarder_that_sends_nothing_again_of_what_the_chain_has_passed_is_noticed() {
    notice(Flaw::NoResend, &[Harm::Lost, Harm::Stuck], outcome);
}

#[test]
fn a_forwarder_whose_records_do_not_say_where_they_come_from_is_noticed() {
    notice(Flaw::NoOrigin, &[Harm::Doubled], outcome);
}

#[test]
fn a_writer_that_begins_at_a_stored_offset_is_noticed() {
    notice(Flaw::StoredOffset, &[Harm::Chain], outcome);
}

#[test]
fn the_greatest_place_taken_for_all_below_it_is_noticed() {
    notice(Flaw::GreatestOnly, &[Harm::Lost, Harm::Stuck], outcome);
}

#[test]
fn a_loser_that_keeps_its_own_state_is_noticed() {
    notice(Flaw::LoserKeepsState, &[Harm::Lost, Harm::Doubled, Harm::Chain], outcome);
}

#[test]
fn a_slot_before_its_objects_is_noticed() {
    notice(Flaw::SlotBeforeObjects, &[Harm::Objects], outcome);
}

#[test]
fn a_spool_that_deletes_by_the_tail_is_noticed() {
    notice(Flaw::DeleteByTail, &[Harm::Lost], outcome);
}

#[test]
fn what_one_copy_has_lost_taken_for_read_is_noticed() {
    notice(Flaw::LostIsRead, &[Harm::Lost], outcome);
}

#[test]
fn logs_of_one_name_are_noticed() {
    notice(Flaw::SameLogName, &[Harm::Lost], outcome);
}

#[test]
fn repeats_without_a_slot_are_noticed() {
    notice(Flaw::NoEmptySlots, &[Harm::Stuck], outcome);
}

#[test]
fn a_generation_without_an_end_is_noticed() {
    notice(Flaw::NoEndSlot, &[Harm::Chain, Harm::Lost, Harm::Doubled, Harm::Stuck], outcome);
}

#[test]
fn what_a_generation_does_not_hand_on_is_noticed() {
    notice(Flaw::ForgetEarly, &[Harm::Doubled], outcome);
}
