//! The object that is being filled: what was read of the log, as far as no slot stands for it.

use std::sync::Arc;
use std::vec::IntoIter;

use tokio::time::Instant;

use super::encode::Encoder;
use crate::domain::chain::{Carry, Position, Tail};
use crate::domain::entry::{Content, Control, Payload, Record};
use crate::domain::hour::Hour;
use crate::domain::identity::{LogId, Micros};
use crate::domain::intervals::Read;
use crate::faults::{Flaw, flawed};
use crate::telemetry::traces::LINKS;

/// What a record costs in memory beside its own bytes.
const RECORD_OVERHEAD: usize = size_of::<Record>() + 16;

/// What a line of raw has beside the bytes of its record, about.
const LINE_OVERHEAD: usize = 150;

/// So many records are encoded together at most: it bounds the memory beside the encoded.
const PIECE_RECORDS: usize = 2048;
/// Or as many as hold so many bytes.
const PIECE_BYTES: usize = 4 << 20;

/// Where an archiver stands in the chain and in the log.
pub(super) struct Open {
    /// The place of the next slot.
    pub(super) at: Position,
    /// The log of the open generation.
    pub(super) log: LogId,
    /// What the next slot will hand on, as far as absorbed.
    pub(super) carry: Carry,
    /// The offset behind what is absorbed.
    pub(super) absorbed: u64,
    /// Read, and not yet absorbed.
    pub(super) pending: IntoIter<Record>,
    /// The offset behind what is read.
    pub(super) read: u64,
    /// What the next slot will commit, as far as absorbed.
    pub(super) object: Object,
    /// When the first offset that is not covered by a slot was absorbed.
    pub(super) since: Option<Instant>,
}

impl Open {
    /// Takes up `log` at the tail of the chain.
    pub(super) fn at(tail: Tail, log: LogId) -> Open {
        let Tail { next: at, carry, .. } = tail;
        Open {
            at,
            log,
            carry: handed_on(carry, at.start),
            absorbed: at.start,
            pending: Vec::new().into_iter(),
            read: at.start,
            object: Object::default(),
            since: None,
        }
    }

    /// Moves records from what was read into the object, until it holds `flush_bytes`, an hour turns, or the buffer is to be
    /// encoded first. No hour behind `latest` is reached, whatever a record says: one that came of a wrong clock would keep
    /// the chain there for good.
    pub(super) fn absorb(&mut self, flush_bytes: usize, latest: Hour) {
        self.object.make_room(self.pending.len());
        while let Some(next) = self.pending.as_slice().first() {
            let hour = Hour::of(next.received_at).min(latest);
            let turns = self.carry.archive_hour.is_some_and(|reached| hour > reached);
            if turns && !self.object.is_empty() || self.object.bytes >= flush_bytes || self.object.is_buffer_full() {
                break;
            }
            let Some(record) = self.pending.next() else { break };
            self.absorbed = record.offset + 1;
            self.since.get_or_insert_with(Instant::now);
            let before = self.carry.archive_hour;
            let is_new = self.carry.take(&record);
            self.carry.archive_hour = self.carry.archive_hour.min(before.max(Some(latest)));
            if flawed(Flaw::GreatestOnly) {
                self.carry.read.insert_all(record.origin.log, 0, record.origin.place);
            }
            if is_new && !(flawed(Flaw::DedupByValue) && self.object.buffer.last().is_some_and(|last| equals(last, &record))) {
                self.object.push(record);
            }
        }
        if self.pending.len() == 0 {
            self.absorbed = self.read;
        }
    }

    /// The slot that was prepared stands, and `next` is the place of the next one.
    pub(super) fn go_on(&mut self, next: Position) {
        self.at = next;
        self.since = None;
        if self.absorbed < next.start {
            (self.absorbed, self.read) = (next.start, next.start); // a gap was passed
        }
    }
}

/// An object on its way: what was absorbed first is encoded, the rest waits in a buffer.
#[derive(Default)]
pub(super) struct Object {
    /// Not encoded yet.
    pub(super) buffer: Vec<Record>,
    /// What the buffer holds in memory.
    buffer_bytes: usize,
    /// What is encoded, if anything is.
    pub(super) encoder: Option<Encoder>,
    /// Of all its lines, about, before compression.
    pub(super) bytes: usize,
    /// Receipt of its first record.
    pub(super) first: Option<Micros>,
    /// The trace contexts of its first frames that are sampled.
    pub(super) traced: Vec<Arc<str>>,
}

impl Object {
    /// One with nothing in it. `buffer` is empty, and has room from the one before.
    pub(super) fn with(buffer: Vec<Record>) -> Object {
        Object { buffer, ..Object::default() }
    }

    /// Room in the buffer for so many more records, but for no more than are encoded together.
    fn make_room(&mut self, records: usize) {
        let (held, room) = (self.buffer.len(), self.buffer.capacity());
        let wanted = (held + records).min(PIECE_RECORDS);
        if wanted > room {
            self.buffer.reserve_exact(wanted.max(2 * room).min(PIECE_RECORDS) - held);
        }
    }

    fn push(&mut self, record: Record) {
        let bytes = record_bytes(&record);
        self.bytes += LINE_OVERHEAD + bytes;
        self.buffer_bytes += RECORD_OVERHEAD + bytes;
        self.first.get_or_insert(record.received_at);
        if let Some(context) = record.traceparent.as_ref().filter(|context| self.traced.last() != Some(context))
            && self.traced.len() <= LINKS
        {
            self.traced.push(context.clone());
        }
        self.buffer.push(record);
    }

    /// Whether there is no record in it.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether the buffer is to be encoded before more is absorbed.
    pub(super) fn is_buffer_full(&self) -> bool {
        self.buffer.len() >= PIECE_RECORDS || self.buffer_bytes >= PIECE_BYTES
    }

    /// What it holds in memory, in bytes, about.
    pub(super) fn memory(&self) -> usize {
        self.buffer_bytes + self.encoder.as_ref().map_or(0, Encoder::memory)
    }

    /// What is to be encoded next.
    pub(super) fn take_buffer(&mut self) -> Vec<Record> {
        self.buffer_bytes = 0;
        std::mem::take(&mut self.buffer)
    }
}

/// What the writer goes on with at offset `start`.
fn handed_on(mut carry: Carry, start: u64) -> Carry {
    if flawed(Flaw::HourNotHandedOn) {
        carry.archive_hour = None;
    }
    if flawed(Flaw::ForgetEarly) && start == 0 {
        carry.read = Read::default();
    }
    carry
}

/// Whether two trades have the same text: for [`Flaw::DedupByValue`].
fn equals(one: &Record, other: &Record) -> bool {
    let text = |record: &Record| match &record.content {
        Content::Data { payload: Payload::Trade { raw, .. }, .. } => Some(raw.clone()),
        Content::Data { .. } | Content::Tick(_) | Content::Opened(_) | Content::Ended(_) | Content::Lost { .. } => None,
    };
    text(one).is_some_and(|text_of_one| Some(text_of_one) == text(other))
}

fn record_bytes(record: &Record) -> usize {
    match &record.content {
        Content::Tick(_) | Content::Opened(_) | Content::Ended(_) | Content::Lost { .. } => 0,
        Content::Data { payload: Payload::Trade { raw, .. }, .. } => raw.len(),
        Content::Data {
            payload: Payload::Quarantined { raw, detail: more, .. } | Payload::Foreign { raw, why: more }, ..
        } => raw.len() + more.len(),
        Content::Data { payload: Payload::Control(_), .. } => 256 + size_of::<Control>(),
    }
}
