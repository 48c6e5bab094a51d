//! What there is in the modelled world at one moment: the store, the log, the spool, the two writers and
//! the requests on their way.
//!
//! The words are those of ADR 2; the numbers are small (`u8`) because a run visits hundreds of
//! thousands of states and keeps each of them.

use std::collections::{BTreeMap, BTreeSet};

/// A generation of the chain. Generation 0 holds nothing but the `end` slot that names the first one.
pub type Generation = u8;
/// An incarnation of the log: in Kafka a topic id, embedded the id of a spool log.
pub type Incarnation = u8;
/// A place in one incarnation of the log.
pub type Offset = u8;
/// A record, by its number in the spool. Stands for its (session, seq).
pub type Record = u8;
/// A session, numbered in the order of its start. Sessions are ordered within a spool log.
pub type Session = u8;
/// A segment file of the spool; the unit in which the spool deletes.
pub type Segment = u8;
/// An hour of receipt, and so of the archive.
pub type Hour = u8;
/// Which of the two writers.
pub type WriterId = usize;

/// A set of records. In the real slot: for each session the intervals of `seq`, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordSet(u8);

impl RecordSet {
    pub const EMPTY: Self = Self(0);

    pub fn contains(self, record: Record) -> bool {
        self.0 & 1 << record != 0
    }

    pub fn insert(&mut self, record: Record) {
        self.0 |= 1 << record;
    }

    pub fn remove(&mut self, record: Record) {
        self.0 &= !(1 << record);
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn includes(self, other: Self) -> bool {
        other.minus(self).is_empty()
    }

    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn iter(self) -> impl Iterator<Item = Record> {
        (0..8).filter(move |record| self.contains(*record))
    }
}

impl FromIterator<Record> for RecordSet {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let mut set = Self::EMPTY;
        for record in records {
            set.insert(record);
        }
        set
    }
}

/// What each slot hands on to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Carry {
    /// What is archived, of the sessions at or above the floor.
    pub seen: RecordSet,
    /// Whatever still arrives from a session below it is a repeat.
    pub floor: Session,
    /// The archive hour: the greatest hour of receipt so far.
    pub hour: Hour,
}

/// A data object. Its name is its content, so writing it again is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    pub generation: Generation,
    pub start: Offset,
    pub end: Offset,
    pub records: Vec<Record>,
}

impl Object {
    /// Generation, first and last offset: what the slot that names it must cover.
    pub fn place(&self) -> (Generation, Offset, Option<Offset>) {
        (self.generation, self.start, Some(self.end))
    }
}

/// What a slot decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The offsets up to `end` are archived, in `object`; without one they held nothing but repeats.
    Data { end: Offset, object: Option<Object> },
    /// The log's start had passed the tail: the offsets up to `end` are gone from the log.
    Gap { end: Offset },
    /// The generation is closed; the next one belongs to the incarnation `next`. Covers no offset.
    End { next: Incarnation },
}

/// A slot of the chain: the only commit point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub kind: Kind,
    pub carry: Carry,
}

impl Slot {
    /// The object that the slot names.
    pub fn object(&self) -> Option<&Object> {
        match &self.kind {
            Kind::Data { object, .. } => object.as_ref(),
            Kind::Gap { .. } | Kind::End { .. } => None,
        }
    }

    /// The last offset that it covers; none where it closes its generation.
    pub fn end(&self) -> Option<Offset> {
        match self.kind {
            Kind::Data { end, .. } | Kind::Gap { end } => Some(end),
            Kind::End { .. } => None,
        }
    }

    /// How many records it archives.
    pub fn rows(&self) -> usize {
        self.object().map_or(0, |object| object.records.len())
    }
}

/// The S3 bucket: data objects, put without a condition, and slots, put with `If-None-Match: *`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Store {
    pub objects: BTreeSet<Object>,
    pub slots: BTreeMap<(Generation, Offset), Slot>,
}

/// A request to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    PutObject(Object),
    PutSlot { generation: Generation, start: Offset, slot: Slot },
}

/// A request under way. It may arrive long after its sender has crashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    pub writer: WriterId,
    pub request: Request,
    /// The racy store of [`Flaw::RacySlotStore`](super::flaws::Flaw) found the name free and will write now.
    pub checked: bool,
}

/// The requests under way, each as often as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(BTreeMap<Message, u8>);

impl Network {
    pub fn send(&mut self, message: Message) {
        *self.0.entry(message).or_insert(0) += 1;
    }

    /// One copy of the message leaves the network.
    pub fn take(&mut self, message: &Message) {
        let copies = self.0.get_mut(message).expect("only what is under way can arrive");
        *copies -= 1;
        if *copies == 0 {
            self.0.remove(message);
        }
    }

    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.0.keys()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same network with the two writers' parts exchanged.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let exchange = |message: &Message| Message { writer: 1 - message.writer, ..message.clone() };
        Self(self.0.iter().map(|(message, copies)| (exchange(message), *copies)).collect())
    }
}

/// What stands at one offset of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    Record(Record),
    /// `Forget{log, floor}`: all sessions below are complete in Bronze and gone from the spool.
    Forget {
        floor: Session,
    },
    /// Retention has taken it.
    Expired,
}

/// The partition of the Kafka topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Log {
    pub incarnation: Incarnation,
    pub entries: Vec<Entry>,
    /// The first offset that retention has left.
    pub start: Offset,
    /// The group's committed offset: written for lag tools and never read, but by the flawed.
    pub committed: Offset,
}

impl Log {
    pub fn end(&self) -> Offset {
        self.entries.len() as Offset
    }

    /// The record stands at this offset or later.
    pub fn holds_from(&self, offset: Offset, record: Record) -> bool {
        self.entries.iter().skip(usize::from(offset)).any(|entry| *entry == Entry::Record(record))
    }
}

/// The spool, and the Forwarder that reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spool {
    /// What it has not deleted yet.
    pub held: RecordSet,
    /// So many records were appended to the log for the first time.
    pub sent: u8,
    /// Appends of a dead Forwarder that may still arrive.
    pub under_way: RecordSet,
    /// The floor of the `Forget` that was appended, if any.
    pub forgotten_below: Session,
    pub disk_lost: bool,
}

/// What a writer is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Must ask the broker for the incarnation of its log.
    Down,
    /// Has the answer, which may be old by now; has not read the chain yet.
    Opening,
    /// Reads the log into its buffer.
    Reading,
    /// Has sent a request and cannot go on without its answer.
    Waiting(Request),
}

/// A writer that believes that it owns the partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    pub phase: Phase,
    /// The incarnation that the broker named when it asked.
    pub incarnation: Incarnation,
    pub generation: Generation,
    /// The offset at which its next slot begins.
    pub start: Offset,
    /// The offset that it reads next.
    pub next: Offset,
    /// The new records among what it has read since `start`.
    pub buffer: Vec<Record>,
    /// What its next slot will hand on.
    pub carry: Carry,
}

impl Writer {
    /// A writer that knows nothing: everything it needs is in the store and the log.
    pub fn down() -> Self {
        Self { phase: Phase::Down, incarnation: 0, generation: 0, start: 0, next: 0, buffer: Vec::new(), carry: Carry::default() }
    }

    pub fn is_waiting_for(&self, request: &Request) -> bool {
        matches!(&self.phase, Phase::Waiting(awaited) if awaited == request)
    }
}

/// What a sweeper knows, from one reading of the chain: it may be old when it acts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SweeperView {
    /// For each generation its tail, and whether it is closed.
    pub tails: Vec<(Offset, bool)>,
    /// The objects that slots name.
    pub named: BTreeSet<Object>,
}

/// How much has happened of what a [`World`](super::world::World) limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Used {
    pub crashes: u8,
    pub copies: u8,
    pub resends: u8,
    pub late: u8,
    pub expiries: u8,
    pub truncations: u8,
    pub looks: u8,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    pub writers: [Writer; 2],
    pub network: Network,
    pub store: Store,
    pub log: Log,
    pub spool: Spool,
    pub sweeper_view: Option<SweeperView>,
    /// Hour 0 was declared complete, with so many records.
    pub sealed: Option<usize>,
    pub used: Used,
}

impl State {
    /// The two writers are alike, so of two states that mirror each other only one is kept.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self.writers[0].cmp(&self.writers[1]) {
            Less => {}
            Greater => {
                self.writers.swap(0, 1);
                self.network = self.network.mirrored();
            }
            Equal => {
                let mirrored = self.network.mirrored();
                if mirrored < self.network {
                    self.network = mirrored;
                }
            }
        }
        self
    }
}
