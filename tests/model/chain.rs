//! The chain as anybody can read it from the store: tails, the open generation, what is archived.
//!
//! A slot begins at the end + 1 of the one before, so a generation is read from offset 0 by following the
//! slots; the real code gets at the newest by one LIST, with the same result.

use std::collections::BTreeSet;

use super::flaws::Flaw;
use super::state::{Carry, Generation, Incarnation, Kind, Object, Offset, Record, RecordSet, State, Store};
use super::world::World;

/// More generations than any run reaches.
pub const GENERATIONS: Generation = 12;

/// Where one generation stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub tail: Offset,
    /// What its last slot hands on.
    pub carry: Carry,
    /// It has an `end` slot, which names the incarnation of the next one.
    pub closed_for: Option<Incarnation>,
}

/// The one place of the chain where a slot may be written.
#[derive(Clone, Copy, Debug)]
pub struct OpenGeneration {
    pub generation: Generation,
    /// Generation 0 has none: it only names the first.
    pub incarnation: Option<Incarnation>,
    pub tail: Offset,
    pub carry: Carry,
}

impl Store {
    /// Follows the slots of a generation; `handed_on` is what the one before it handed on.
    pub fn standing(&self, generation: Generation, handed_on: Carry) -> Standing {
        let mut standing = Standing { tail: 0, carry: handed_on, closed_for: None };
        while let Some(slot) = self.slots.get(&(generation, standing.tail)) {
            standing.carry = slot.carry;
            match slot.kind {
                Kind::Data { end, .. } | Kind::Gap { end } => standing.tail = end + 1,
                Kind::End { next } => {
                    standing.closed_for = Some(next);
                    break;
                }
            }
        }
        standing
    }

    /// For each generation its tail, and whether it is closed.
    pub fn tails(&self) -> Vec<(Offset, bool)> {
        let of = |generation| {
            let standing = self.standing(generation, Carry::default());
            (standing.tail, standing.closed_for.is_some())
        };
        (0..GENERATIONS).map(of).collect()
    }

    /// The objects that slots name: what is committed.
    pub fn named(&self) -> BTreeSet<Object> {
        self.slots.values().filter_map(|slot| slot.object().cloned()).collect()
    }

    /// The records of all committed objects, as often as they are in one.
    pub fn archived(&self) -> impl Iterator<Item = Record> {
        self.slots.values().filter_map(|slot| slot.object()).flat_map(|object| object.records.iter().copied())
    }

    pub fn archived_set(&self) -> RecordSet {
        self.archived().collect()
    }

    /// How many records lie in hour 0 of the archive.
    pub fn rows_of_hour_0(&self) -> usize {
        self.slots.values().filter(|slot| slot.carry.hour == 0).map(|slot| slot.rows()).sum()
    }
}

impl World {
    /// Two of the flaws know no generations: each incarnation has a chain of its own.
    pub fn has_a_chain_per_incarnation(&self) -> bool {
        self.is_flawed(Flaw::ChainPerIncarnation) || self.is_flawed(Flaw::NoEndSlot)
    }

    /// Where the chain goes on: at the tail of the first generation that is not closed.
    pub fn open_generation(&self, store: &Store) -> OpenGeneration {
        let mut generation = 0;
        let mut incarnation = None;
        let mut handed_on = Carry::default();
        loop {
            let Standing { tail, carry, closed_for } = store.standing(generation, handed_on);
            if closed_for.is_none() {
                return OpenGeneration { generation, incarnation, tail, carry };
            }
            generation += 1;
            incarnation = closed_for;
            handed_on = self.taken_over(carry);
        }
    }

    /// What a new generation takes over from the closed one: everything.
    fn taken_over(&self, mut carry: Carry) -> Carry {
        if self.is_flawed(Flaw::NoCarryOver) {
            carry.seen = RecordSet::EMPTY;
        }
        if self.is_flawed(Flaw::HourNotCarried) {
            carry.hour = 0;
        }
        carry
    }

    /// The offset of the present log up to which the chain has decided.
    pub fn tail(&self, state: &State) -> Offset {
        if self.has_a_chain_per_incarnation() {
            return state.store.standing(state.log.incarnation + 1, Carry::default()).tail;
        }
        let open = self.open_generation(&state.store);
        if open.incarnation == Some(state.log.incarnation) { open.tail } else { 0 }
    }

    /// What the chain claims to have archived, by seen sets and floors: by this the spool deletes.
    pub fn claimed(&self, store: &Store) -> RecordSet {
        let claimed = store
            .slots
            .values()
            .fold(RecordSet::EMPTY, |all, slot| all.union(slot.carry.seen).union(self.below(slot.carry.floor)));
        if self.is_flawed(Flaw::MaxOnly) {
            return (0..self.count()).filter(|record| self.is_seen(claimed, *record)).collect();
        }
        claimed
    }

    /// Lost with a disk, and then the floor was raised over it: `verify` names it from the hole in its
    /// session's counts.
    pub fn declared_lost(&self, state: &State) -> RecordSet {
        if !state.spool.disk_lost {
            return RecordSet::EMPTY;
        }
        let floors = state.store.slots.values().map(|slot| slot.carry.floor);
        floors.fold(RecordSet::EMPTY, |all, floor| all.union(self.below(floor)))
    }

    /// The seen set says that the record is archived.
    pub fn is_seen(&self, seen: RecordSet, record: Record) -> bool {
        if self.is_flawed(Flaw::MaxOnly) {
            let session = self.record(record).session;
            return (record..self.count()).any(|later| seen.contains(later) && self.record(later).session == session);
        }
        seen.contains(record)
    }

    /// The record need not be archived again.
    pub fn is_repeat(&self, carry: &Carry, record: Record) -> bool {
        self.is_seen(carry.seen, record) || self.record(record).session < carry.floor
    }
}
