//! All that can happen, one step at a time, and what each step does.

use stateright::{Model, Property};

use super::flaws::Flaw;
use super::properties;
use super::state::{
    Carry, Entry, Kind, Log, Message, Network, Object, Record, RecordSet, Request, Segment, Session, Slot, Spool, State, Store,
    Used, Writer, WriterId,
};
use super::world::World;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    // The writers.
    AskBroker(WriterId),
    ReadChain(WriterId),
    Read(WriterId),
    Flush(WriterId),
    PutGap(WriterId),
    /// Notices that its log is another incarnation by now, and begins again.
    Reopen(WriterId),
    /// No answer has come: the same request again.
    SendAgain(WriterId),
    Crash(WriterId),

    // The store.
    /// The racy store looks whether the name is free, and writes in a later step.
    Check(Message),
    Deliver(Message),
    DeliverAndLoseTheAnswer(Message),

    // The Forwarder.
    Append(Record),
    AppendAgain(Record),
    /// The Forwarder dies with this append under way.
    LeaveUnderWay(Record),
    ArriveLate(Record),
    AppendForget(Session),

    // The log.
    Expire,
    Truncate,
    Recreate,

    // The spool.
    DeleteSegment(Segment),
    LoseDisk,

    // The sweeper and the sealer.
    SweeperLooks,
    Sweep(Object),
    Seal,
}

impl World {
    /// All that can happen now. Where this is empty, nothing will ever happen again.
    pub fn possible_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for id in 0..state.writers.len() {
            self.writer_actions(state, id, actions);
        }
        self.store_actions(state, actions);
        self.forwarder_actions(state, actions);
        self.log_actions(state, actions);
        self.spool_actions(state, actions);
        self.sweeper_actions(state, actions);
        self.sealer_actions(state, actions);
    }

    fn store_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for message in state.network.messages() {
            let is_slot = matches!(message.request, Request::PutSlot { .. });
            if self.is_flawed(Flaw::RacySlotStore) && is_slot && !message.checked {
                actions.push(Action::Check(message.clone()));
                continue;
            }
            actions.push(Action::Deliver(message.clone()));
            // Where nobody waits for the answer any more, losing it makes no difference.
            if state.writers[message.writer].is_waiting_for(&message.request) {
                actions.push(Action::DeliverAndLoseTheAnswer(message.clone()));
            }
        }
    }

    fn perform(&self, state: &mut State, action: Action) {
        match action {
            Action::AskBroker(id) => self.ask_broker(state, id),
            Action::ReadChain(id) => self.read_chain(state, id),
            Action::Read(id) => self.read(state, id),
            Action::Flush(id) => self.flush(state, id),
            Action::PutGap(id) => self.put_gap(state, id),
            Action::Reopen(id) => state.writers[id] = Writer::down(),
            Action::SendAgain(id) => self.send_again(state, id),
            Action::Crash(id) => {
                state.used.crashes += 1;
                state.writers[id] = Writer::down();
            }

            Action::Check(message) => self.check(state, message),
            Action::Deliver(message) => {
                state.arrive(&message);
                self.answered(state, message.writer, &message.request);
            }
            Action::DeliverAndLoseTheAnswer(message) => state.arrive(&message),

            Action::Append(record) => {
                state.append(record);
                state.spool.sent += 1;
            }
            Action::AppendAgain(record) => {
                if !self.needs_resend(state, record) {
                    state.used.resends += 1;
                }
                state.append(record);
            }
            Action::LeaveUnderWay(record) => {
                state.spool.under_way.insert(record);
                state.used.late += 1;
            }
            Action::ArriveLate(record) => {
                state.spool.under_way.remove(record);
                state.append(record);
            }
            Action::AppendForget(floor) => {
                state.spool.forgotten_below = floor;
                state.log.entries.push(Entry::Forget { floor });
            }

            Action::Expire => {
                state.expire();
                state.used.expiries += 1;
            }
            Action::Truncate => {
                state.log.entries.pop();
                state.used.truncations += 1;
            }
            Action::Recreate => state.recreate(),

            Action::DeleteSegment(segment) => {
                state.spool.held = state.spool.held.minus(self.of_segment(segment));
            }
            Action::LoseDisk => {
                state.spool.disk_lost = true;
                state.spool.held = RecordSet::EMPTY;
            }

            Action::SweeperLooks => {
                state.sweeper_view = Some(state.look());
                state.used.looks += 1;
            }
            Action::Sweep(object) => {
                state.store.objects.remove(&object);
            }
            Action::Seal => state.sealed = Some(state.store.rows_of_hour_0()),
        }
    }

    /// [`Flaw::RacySlotStore`]: the name is free now, and the store writes later without looking again.
    fn check(&self, state: &mut State, message: Message) {
        let Request::PutSlot { generation, start, .. } = &message.request else {
            unreachable!("only slots are put under a condition");
        };
        state.network.take(&message);
        if state.store.slots.contains_key(&(*generation, *start)) {
            self.answered(state, message.writer, &message.request);
        } else {
            state.network.send(Message { checked: true, ..message });
        }
    }
}

impl State {
    /// A request reaches the store. A slot is written only where there is none (`If-None-Match: *`).
    fn arrive(&mut self, message: &Message) {
        self.network.take(message);
        match message.request.clone() {
            Request::PutObject(object) => {
                self.store.objects.insert(object);
            }
            Request::PutSlot { generation, start, slot } if message.checked => {
                self.store.slots.insert((generation, start), slot);
            }
            Request::PutSlot { generation, start, slot } => {
                self.store.slots.entry((generation, start)).or_insert(slot);
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut store = Store::default();
        if self.recreations == 0 {
            // Where the topic lives for ever, the first end slot (which names it) stands already.
            let first = Slot { kind: Kind::End { next: 0 }, carry: Carry::default() };
            store.slots.insert((0, 0), first);
        }
        vec![State {
            writers: [Writer::down(), Writer::down()],
            network: Network::default(),
            store,
            log: Log::default(),
            spool: Spool { held: self.all_records(), ..Spool::default() },
            sweeper_view: None,
            sealed: None,
            used: Used::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.perform(&mut next, action);
        // A counterexample reads better where the writers keep their names.
        Some(if self.flaw.is_none() { next.canonical() } else { next })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
