//! The partition writer: reads the chain, then the log, writes an object, then its slot.
//!
//! It holds nothing that the store and the log do not hold; so a crash is simply [`Writer::down`]. After
//! each slot it goes on by what the slot in the store says, whoever wrote that.

use super::actions::Action;
use super::chain::Standing;
use super::flaws::Flaw;
use super::state::{Carry, Entry, Generation, Kind, Message, Object, Offset, Phase, Request, Slot, State, Writer, WriterId};
use super::world::World;

impl World {
    /// What the writer may do now.
    pub(super) fn writer_actions(&self, state: &State, id: WriterId, actions: &mut Vec<Action>) {
        let writer = &state.writers[id];
        match &writer.phase {
            Phase::Down => actions.push(Action::AskBroker(id)),
            Phase::Opening => actions.push(Action::ReadChain(id)),
            Phase::Reading => self.reading_actions(state, id, actions),
            Phase::Waiting(request) => {
                let sent = |message: &Message| message.writer == id && message.request == *request;
                let is_under_way = state.network.messages().any(sent);
                if !is_under_way || state.used.copies < self.copies {
                    actions.push(Action::SendAgain(id));
                }
            }
        }
        if writer.phase != Phase::Down && state.used.crashes < self.crashes {
            actions.push(Action::Crash(id));
        }
    }

    fn reading_actions(&self, state: &State, id: WriterId, actions: &mut Vec<Action>) {
        let (writer, log) = (&state.writers[id], &state.log);
        let is_current = writer.incarnation == log.incarnation;
        let is_readable = (log.start..log.end()).contains(&writer.next);
        if (is_current || self.reads_by_name)
            && is_readable
            && !self.would_turn_the_hour(writer, log.entries[usize::from(writer.next)])
        {
            actions.push(Action::Read(id));
        }
        if writer.next > writer.start {
            // Where the log has gone on without it, it must commit what it has before it can place a gap.
            if !writer.buffer.is_empty() || self.empty_slots || writer.next < log.start {
                actions.push(Action::Flush(id));
            }
        } else if is_current && writer.start < log.start {
            actions.push(Action::PutGap(id));
        }
        if !is_current {
            actions.push(Action::Reopen(id));
        }
    }

    /// An object holds one archive hour: the buffer must be flushed before a record of a later one.
    fn would_turn_the_hour(&self, writer: &Writer, entry: Entry) -> bool {
        match entry {
            Entry::Record(record) => {
                !self.is_repeat(&writer.carry, record)
                    && !writer.buffer.is_empty()
                    && self.record(record).hour > writer.carry.hour
            }
            Entry::Forget { .. } | Entry::Expired => false,
        }
    }

    /// The broker names the incarnation of the log. The answer may be old when the chain is read.
    pub(super) fn ask_broker(&self, state: &mut State, id: WriterId) {
        let writer = &mut state.writers[id];
        writer.incarnation = state.log.incarnation;
        writer.phase = Phase::Opening;
        if self.recreations == 0 {
            // The answer cannot grow old: one step less, and far fewer states.
            self.read_chain(state, id);
        }
    }

    /// Goes to the tail of the open generation; closes it first where it is of another incarnation than
    /// the writer's log. So whoever has an old view only costs one more generation.
    pub(super) fn read_chain(&self, state: &mut State, id: WriterId) {
        if self.is_flawed(Flaw::CommittedOffset) {
            return self.start_from_committed_offset(state, id);
        }
        if self.has_a_chain_per_incarnation() {
            return self.read_chain_of_incarnation(state, id);
        }
        let open = self.open_generation(&state.store);
        if open.incarnation == Some(state.writers[id].incarnation) {
            state.writers[id].go_to(open.generation, open.tail, open.carry);
        } else {
            self.close(state, id, open.generation, open.tail, open.carry);
        }
    }

    /// [`Flaw::CommittedOffset`]: trusts Kafka for the place, and the chain only for what is seen.
    fn start_from_committed_offset(&self, state: &mut State, id: WriterId) {
        let at = state.log.committed.max(state.log.start);
        let before = state.store.slots.iter().filter(|((_, start), _)| *start < at);
        let carry = before.map(|(_, slot)| slot.carry).next_back().unwrap_or_default();
        state.writers[id].go_to(1, at, carry);
    }

    /// [`Flaw::ChainPerIncarnation`] and [`Flaw::NoEndSlot`]: an earlier draft, in which incarnation `i` had
    /// the chain `i + 1` for itself and an `end` slot linked it to the one before.
    fn read_chain_of_incarnation(&self, state: &mut State, id: WriterId) {
        let own = state.writers[id].incarnation + 1;
        let Standing { tail, carry, closed_for } = state.store.standing(own, Carry::default());
        let older = (1..own).rev().find(|generation| state.store.slots.contains_key(&(*generation, 0)));
        let writer = &mut state.writers[id];
        match older {
            _ if closed_for.is_some() => *writer = Writer::down(),
            Some(older) if tail == 0 => {
                let old = state.store.standing(older, Carry::default());
                if old.closed_for == Some(writer.incarnation) || self.is_flawed(Flaw::NoEndSlot) {
                    writer.go_to(own, 0, old.carry);
                } else if old.closed_for.is_some() {
                    *writer = Writer::down();
                } else {
                    self.close(state, id, older, old.tail, old.carry);
                }
            }
            None if own > 1 && self.is_flawed(Flaw::NoEndSlot) => *writer = Writer::down(),
            Some(_) | None => writer.go_to(own, tail, carry),
        }
    }

    /// Puts the `end` slot at the tail: the next generation begins with what it hands on.
    fn close(&self, state: &mut State, id: WriterId, generation: Generation, tail: Offset, carry: Carry) {
        let kind = Kind::End { next: state.writers[id].incarnation };
        self.send(state, id, Request::PutSlot { generation, start: tail, slot: Slot { kind, carry } });
    }

    /// Reads one entry of the log.
    pub(super) fn read(&self, state: &mut State, id: WriterId) {
        let writer = &mut state.writers[id];
        let entry = state.log.entries[usize::from(writer.next)];
        writer.next += 1;
        match entry {
            Entry::Record(record) if self.is_repeat(&writer.carry, record) => {}
            Entry::Record(record) => {
                writer.buffer.push(record);
                writer.carry.seen.insert(record);
                writer.carry.hour = writer.carry.hour.max(self.record(record).hour);
            }
            Entry::Forget { floor } => {
                writer.carry.seen = writer.carry.seen.minus(self.below(floor));
                if !self.is_flawed(Flaw::ForgetWithoutFloor) {
                    writer.carry.floor = writer.carry.floor.max(floor);
                }
            }
            Entry::Expired => unreachable!("what is below the log's start is not read"),
        }
    }

    /// Puts the object of what was read; its slot follows the answer. Without new records only a slot.
    pub(super) fn flush(&self, state: &mut State, id: WriterId) {
        let writer = &state.writers[id];
        if writer.buffer.is_empty() {
            let slot = self.put_slot(writer, None);
            return self.send(state, id, slot);
        }
        let object =
            Object { generation: writer.generation, start: writer.start, end: writer.next - 1, records: writer.buffer.clone() };
        let slot = self.put_slot(writer, Some(object.clone()));
        self.send(state, id, Request::PutObject(object));
        if self.is_flawed(Flaw::SlotBeforeData) {
            self.send(state, id, slot);
        }
    }

    /// Says in the chain that retention has taken what comes next.
    pub(super) fn put_gap(&self, state: &mut State, id: WriterId) {
        let writer = &state.writers[id];
        let slot = Slot { kind: Kind::Gap { end: state.log.start - 1 }, carry: writer.carry };
        let request = Request::PutSlot { generation: writer.generation, start: writer.start, slot };
        self.send(state, id, request);
    }

    pub(super) fn send_again(&self, state: &mut State, id: WriterId) {
        let Phase::Waiting(request) = state.writers[id].phase.clone() else {
            unreachable!("only who waits sends again");
        };
        if state.network.messages().any(|message| message.writer == id && message.request == request) {
            state.used.copies += 1;
        }
        self.send(state, id, request);
    }

    fn send(&self, state: &mut State, id: WriterId, request: Request) {
        state.writers[id].phase = Phase::Waiting(request.clone());
        state.network.send(Message { writer: id, request, checked: false });
    }

    fn put_slot(&self, writer: &Writer, object: Option<Object>) -> Request {
        let mut carry = writer.carry;
        if self.is_flawed(Flaw::ForgetAtSessionEnd) {
            for session in 0..=1 {
                let of_session = self.records_where(|record| record.session == session);
                if carry.seen.includes(of_session) {
                    carry.seen = carry.seen.minus(of_session);
                }
            }
        }
        let kind = Kind::Data { end: writer.next - 1, object };
        Request::PutSlot { generation: writer.generation, start: writer.start, slot: Slot { kind, carry } }
    }

    /// The store has answered. For a slot, 200 and 412 are handled alike: what stands in the store now says
    /// where the writer goes on.
    pub(super) fn answered(&self, state: &mut State, id: WriterId, request: &Request) {
        let State { writers, store, log, .. } = state;
        let writer = &mut writers[id];
        if !writer.is_waiting_for(request) {
            return;
        }
        match request {
            Request::PutObject(object) => {
                let slot = self.put_slot(writer, Some(object.clone()));
                self.send(state, id, slot);
            }
            Request::PutSlot { generation, start, slot: ours } => {
                let slot = &store.slots[&(*generation, *start)];
                match slot.kind {
                    Kind::Data { end, .. } | Kind::Gap { end } if !matches!(ours.kind, Kind::End { .. }) => {
                        if self.is_flawed(Flaw::CommittedOffset) {
                            log.committed = end + 1;
                        }
                        let keeps_own = self.is_flawed(Flaw::KeepOwnSeen) && slot != ours;
                        let carry = if keeps_own { writer.carry } else { slot.carry };
                        writer.go_to(*generation, end + 1, carry);
                    }
                    // The generation is closed, or somebody else was quicker than our closing: look again.
                    Kind::Data { .. } | Kind::Gap { .. } | Kind::End { .. } => *writer = Writer::down(),
                }
            }
        }
    }
}

impl Writer {
    /// Goes on reading at an offset, with what the slot before it handed on.
    fn go_to(&mut self, generation: Generation, at: Offset, carry: Carry) {
        self.phase = Phase::Reading;
        self.generation = generation;
        self.start = at;
        self.next = at;
        self.buffer.clear();
        self.carry = carry;
    }
}
