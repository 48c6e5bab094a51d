//! The runs: 23 in which the protocol holds whatever happens, and one for each flaw.
//!
//! They are those of `facts/commit-chain-model.md`, under the same names; the numbers of states are pinned
//! here, since a model that has quietly become smaller proves less. Whoever changes the model on purpose
//! changes them too.

use super::flaws::Flaw;
use super::properties::{CHAIN, LOST, OBJECTS, SEALED, STUCK, TWICE};
use super::world::{Sweeper, World};

/// A run in which every property must hold.
pub struct Sound {
    pub name: &'static str,
    pub world: World,
    /// How many different states there are.
    pub states: usize,
    /// Left out unless the full model is asked for.
    pub is_long: bool,
}

fn short(name: &'static str, states: usize, world: World) -> Sound {
    Sound { name, world, states, is_long: false }
}

fn long(name: &'static str, states: usize, world: World) -> Sound {
    Sound { is_long: true, ..short(name, states, world) }
}

/// Writers crash, requests are sent twice, records are appended twice.
pub fn crashes_and_copies() -> Vec<Sound> {
    vec![
        short("S1a crash, resend", 253_595, World { crashes: 1, resends: 1, sweeper: Sweeper::Fresh, ..World::of(2) }),
        short(
            "S1b copies under way, resends",
            249_373,
            World { copies: 2, resends: 1, sweeper: Sweeper::Fresh, empty_slots: false, ..World::of(2) },
        ),
        long("S1c crashes and copies", 737_218, World { crashes: 2, copies: 2, ..World::of(2) }),
        long("S1d three records, crash, copy", 590_049, World { crashes: 1, copies: 1, empty_slots: false, ..World::of(3) }),
    ]
}

/// The sweeper of orphans acts on what it read long ago.
pub fn old_views_of_the_sweeper() -> Vec<Sound> {
    vec![
        short(
            "S2a sweeper with an old view, crash, resend",
            440_128,
            World { crashes: 1, resends: 1, sweeper: Sweeper::Stale(1), empty_slots: false, ..World::of(2) },
        ),
        short("S2b sweeper with old views, copies", 18_116, World { copies: 1, sweeper: Sweeper::Stale(2), ..World::of(2) }),
    ]
}

/// Kafka's retention passes the tail.
pub fn retention() -> Vec<Sound> {
    vec![
        short("S3a retention twice", 235_489, World { expiries: 2, sweeper: Sweeper::Fresh, ..World::of(2) }),
        short(
            "S3b retention, crash",
            307_603,
            World { expiries: 1, crashes: 1, sweeper: Sweeper::Fresh, empty_slots: false, ..World::of(2) },
        ),
        short(
            "S3c retention, resends",
            141_642,
            World { expiries: 1, resends: 1, sweeper: Sweeper::Fresh, empty_slots: false, ..World::of(2) },
        ),
        short("S3d retention, disk lost", 22_560, World { expiries: 1, disk_loss: true, ..World::of(2) }),
    ]
}

/// The topic is deleted and created again, and not everybody has noticed.
pub fn recreation() -> Vec<Sound> {
    vec![
        long(
            "S4a re-creation, crash",
            1_197_130,
            World { recreations: 1, crashes: 1, sweeper: Sweeper::Fresh, empty_slots: false, ..World::of(2) },
        ),
        long(
            "S4b re-creation, retention",
            771_586,
            World { recreations: 1, expiries: 1, sweeper: Sweeper::Fresh, empty_slots: false, ..World::of(2) },
        ),
        short(
            "S4c re-creation, sweeper with an old view",
            234_249,
            World { recreations: 1, sweeper: Sweeper::Stale(1), empty_slots: false, ..World::of(2) },
        ),
        short("S4d re-creation, read by name", 118_464, World { recreations: 1, reads_by_name: true, ..World::of(2) }),
    ]
}

/// And once more.
pub fn two_recreations() -> Vec<Sound> {
    vec![
        short("S5a re-creation twice", 912_279, World { recreations: 2, empty_slots: false, ..World::of(2) }),
        long(
            "S5b re-creation twice, crash, sweeper",
            858_424,
            World { recreations: 2, crashes: 1, sweeper: Sweeper::Fresh, empty_slots: false, ..World::of(1) },
        ),
    ]
}

/// Sessions leave the slots, and a floor stays behind.
pub fn forgotten_sessions() -> Vec<Sound> {
    vec![
        short("S6a sessions forgotten, dead Forwarder", 144_829, World { late: 1, forgets: true, ..World::of_two_sessions() }),
        short(
            "S6b sessions forgotten, re-creation",
            162_146,
            World { recreations: 1, forgets: true, empty_slots: false, ..World::of_two_sessions() },
        ),
        short("S6c sessions forgotten, disk lost", 9_078, World { disk_loss: true, forgets: true, ..World::of_two_sessions() }),
    ]
}

/// Hours of the archive are declared complete.
pub fn sealed_hours() -> Vec<Sound> {
    vec![
        short(
            "S7a hours, re-creation, retention",
            581_144,
            World { recreations: 1, expiries: 1, seals: true, empty_slots: false, ..World::of_two_hours() },
        ),
        short("S7b hours, resends", 5_274, World { resends: 1, seals: true, ..World::of_two_hours() }),
    ]
}

/// The log loses its end in an unclean election.
pub fn truncation() -> Vec<Sound> {
    vec![
        short("S8a truncation twice", 45_159, World { truncations: 2, sweeper: Sweeper::Fresh, ..World::of(2) }),
        long("S8b truncation, crash, resend", 4_857_647, World { truncations: 1, crashes: 1, resends: 1, ..World::of(2) }),
    ]
}

/// What a flaw breaks, and a world in which it does.
pub struct Broken {
    pub property: &'static str,
    pub world: World,
}

/// The smallest world known in which leaving out the rule does harm.
pub fn that_shows(flaw: Flaw) -> Broken {
    let (property, world) = match flaw {
        Flaw::CommittedOffset => (CHAIN, World { expiries: 1, ..World::of(2) }),
        Flaw::RacySlotStore => (TWICE, World::of(2)),
        Flaw::MaxOnly => (LOST, World { expiries: 1, ..World::of(2) }),
        Flaw::KeepOwnSeen => (LOST, World::of(2)),
        Flaw::SlotBeforeData => (OBJECTS, World::of(2)),
        Flaw::SweepAboveTail => (OBJECTS, World { sweeper: Sweeper::Fresh, ..World::of(2) }),
        Flaw::SweepNamesThenTail => (OBJECTS, World { sweeper: Sweeper::Stale(1), ..World::of(2) }),
        Flaw::SweepBySharedPrefix => (OBJECTS, World { sweeper: Sweeper::Fresh, recreations: 1, ..World::of(2) }),
        Flaw::SpoolByTail => (LOST, World { expiries: 1, ..World::of(2) }),
        Flaw::ResendAfterGapOnly => (STUCK, World { truncations: 1, ..World::of(2) }),
        Flaw::NoEmptySlots => (STUCK, World { truncations: 2, empty_slots: false, ..World::of(2) }),
        Flaw::ChainPerIncarnation | Flaw::NoEndSlot => (TWICE, World { recreations: 1, ..World::of(2) }),
        Flaw::NoCarryOver => (TWICE, World { recreations: 1, resends: 1, ..World::of(2) }),
        Flaw::ForgetAtSessionEnd => (TWICE, World { resends: 1, ..World::of(2) }),
        Flaw::ForgetWithoutFloor => (TWICE, World { late: 1, forgets: true, ..World::of_two_sessions() }),
        Flaw::HourNotCarried => (SEALED, World { recreations: 1, expiries: 1, seals: true, ..World::of_two_hours() }),
        Flaw::EndedCountsAsPassed => (SEALED, World { recreations: 1, seals: true, ..World::of(2) }),
    };
    Broken { property, world: World { flaw: Some(flaw), ..world } }
}
