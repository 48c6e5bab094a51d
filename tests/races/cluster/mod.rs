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
