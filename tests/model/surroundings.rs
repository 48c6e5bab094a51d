//! Everything around the writers: the spool and its Forwarder, the log's misfortunes, the sweeper of
//! orphans, the sealer of hours.

use std::collections::BTreeSet;

use super::actions::Action;
use super::chain::GENERATIONS;
use super::flaws::Flaw;
use super::state::{Entry, Kind, Object, Offset, Record, RecordSet, Segment, State, SweeperView};
use super::world::{Sweeper, World};

impl World {
    /// The Forwarder appends in order; again what needs it, and now and then what does not.
    pub(super) fn forwarder_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (spool, used) = (&state.spool, &state.used);
        if spool.sent < self.count() && spool.held.contains(spool.sent) {
            actions.push(Action::Append(spool.sent));
        }
        for record in 0..spool.sent {
            if spool.held.contains(record) {
                if used.resends < self.resends || self.needs_resend(state, record) {
                    actions.push(Action::AppendAgain(record));
                }
                if used.late < self.late && !spool.under_way.contains(record) {
                    actions.push(Action::LeaveUnderWay(record));
                }
            }
            if spool.under_way.contains(record) {
                actions.push(Action::ArriveLate(record));
            }
        }
        let first_session_is_deleted = self.below(1).iter().all(|record| !spool.held.contains(record));
        if self.forgets && spool.forgotten_below == 0 && first_session_is_deleted {
            actions.push(Action::AppendForget(1));
        }
    }

    /// In the spool, not in Bronze, and no longer in the part of the log that is still to be read.
    pub(super) fn needs_resend(&self, state: &State, record: Record) -> bool {
        if self.is_flawed(Flaw::ResendAfterGapOnly) {
            let is_gap = |kind: &Kind| matches!(kind, Kind::Gap { .. });
            if state.log.incarnation == 0 && !state.store.slots.values().any(|slot| is_gap(&slot.kind)) {
                return false;
            }
        }
        let to_read = self.tail(state).max(state.log.start);
        state.spool.held.contains(record)
            && !self.claimed(&state.store).contains(record)
            && !state.log.holds_from(to_read, record)
    }

    /// Kafka: retention, an unclean election, a topic deleted and created again.
    pub(super) fn log_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (log, used) = (&state.log, &state.used);
        if used.expiries < self.expiries && log.start < log.end() {
            actions.push(Action::Expire);
        }
        if used.truncations < self.truncations && log.start < log.end() {
            actions.push(Action::Truncate);
        }
        if log.incarnation < self.recreations {
            actions.push(Action::Recreate);
        }
    }

    pub(super) fn spool_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for segment in self.segments() {
            let records = self.of_segment(segment);
            if state.spool.held.includes(records) && self.may_delete(state, records) {
                actions.push(Action::DeleteSegment(segment));
            }
        }
        if self.disk_loss && !state.spool.disk_lost {
            actions.push(Action::LoseDisk);
        }
    }

    pub(super) fn of_segment(&self, segment: Segment) -> RecordSet {
        self.records_where(|record| record.segment == segment)
    }

    /// The spool deletes by coverage, never by the tail.
    fn may_delete(&self, state: &State, records: RecordSet) -> bool {
        if self.is_flawed(Flaw::SpoolByTail) {
            let tail = self.tail(state);
            return records.iter().all(|record| record < state.spool.sent && !state.log.holds_from(tail, record));
        }
        self.claimed(&state.store).includes(records)
    }

    pub(super) fn sweeper_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let fresh;
        let view = match self.sweeper {
            Sweeper::Off => return,
            Sweeper::Fresh => {
                fresh = Some(state.look());
                &fresh
            }
            Sweeper::Stale(looks) => {
                if state.used.looks < looks {
                    actions.push(Action::SweeperLooks);
                }
                &state.sweeper_view
            }
        };
        let Some(SweeperView { tails, named }) = view else {
            return;
        };
        let tails_now;
        let tails = if self.is_flawed(Flaw::SweepNamesThenTail) {
            tails_now = state.store.tails();
            &tails_now
        } else {
            tails
        };
        for object in &state.store.objects {
            if self.is_orphan(tails, named, object) {
                actions.push(Action::Sweep(object.clone()));
            }
        }
    }

    /// No slot names the object, and none ever will: its generation is closed, or its start has been passed.
    fn is_orphan(&self, tails: &[(Offset, bool)], named: &BTreeSet<Object>, object: &Object) -> bool {
        if self.is_flawed(Flaw::SweepBySharedPrefix) {
            return (1..GENERATIONS).any(|generation| {
                let is_named = object.generation == generation && named.contains(object);
                object.start < tails[usize::from(generation)].0 && !is_named
            });
        }
        let (tail, is_closed) = tails[usize::from(object.generation)];
        !named.contains(object) && (is_closed || object.start < tail || self.is_flawed(Flaw::SweepAboveTail))
    }

    /// Hour 0 is complete when the open generation has passed it; a closed one counts for nothing.
    pub(super) fn sealer_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.seals || state.sealed.is_some() {
            return;
        }
        let open = self.open_generation(&state.store);
        let is_new = || open.generation > 1 && !state.store.slots.contains_key(&(open.generation, 0));
        if open.carry.hour > 0 || self.is_flawed(Flaw::EndedCountsAsPassed) && is_new() {
            actions.push(Action::Seal);
        }
    }
}

impl State {
    pub(super) fn append(&mut self, record: Record) {
        self.log.entries.push(Entry::Record(record));
    }

    /// Names and tails from one reading of the chain.
    pub(super) fn look(&self) -> SweeperView {
        SweeperView { tails: self.store.tails(), named: self.store.named() }
    }

    /// Retention takes the first entry that is left.
    pub(super) fn expire(&mut self) {
        let first = usize::from(self.log.start);
        self.log.entries[first] = Entry::Expired;
        self.log.start += 1;
    }

    /// A new topic of the old name: another incarnation, empty.
    pub(super) fn recreate(&mut self) {
        self.log.incarnation += 1;
        self.log.entries.clear();
        self.log.start = 0;
        self.log.committed = 0;
    }
}
