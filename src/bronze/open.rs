//! The object that is being filled: what was read of the log, as far as no slot stands for it.

use std::vec::IntoIter;

use tokio::time::Instant;

use crate::domain::chain::{Carry, Position, Tail};
use crate::domain::entry::{Content, Control, Payload, Record};
use crate::domain::hour::Hour;
use crate::domain::identity::LogId;
use crate::domain::intervals::Read;
use crate::faults::{Flaw, flawed};

/// What a record costs in memory beside its own bytes.
const RECORD_OVERHEAD: usize = size_of::<Record>() + 16;

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
    /// To be archived by the next slot.
    pub(super) buffer: Vec<Record>,
    /// What the buffer holds in memory.
    pub(super) buffer_bytes: usize,
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
            buffer: Vec::new(),
            buffer_bytes: 0,
            since: None,
        }
    }

    /// Moves records from what was read into the buffer, until it holds `flush_bytes` or an hour turns.
    pub(super) fn absorb(&mut self, flush_bytes: usize) {
        self.buffer.reserve(self.pending.len());
        while let Some(next) = self.pending.as_slice().first() {
            let hour = Hour::of(next.received_at);
            let turns = self.carry.archive_hour.is_some_and(|reached| hour > reached);
            if turns && !self.buffer.is_empty() || self.buffer_bytes >= flush_bytes {
                break;
            }
            let Some(record) = self.pending.next() else { break };
            self.absorbed = record.offset + 1;
            self.since.get_or_insert_with(Instant::now);
            let is_new = self.carry.take(&record);
            if flawed(Flaw::GreatestOnly) {
                self.carry.read.insert_all(record.origin.log, 0, record.origin.place);
            }
            if is_new && !(flawed(Flaw::DedupByValue) && self.buffer.last().is_some_and(|last| equals(last, &record))) {
                self.buffer_bytes += RECORD_OVERHEAD + record_bytes(&record);
                self.buffer.push(record);
            }
        }
        if self.pending.len() == 0 {
            self.absorbed = self.read;
        }
    }

    /// The slot that was prepared stands, and `next` is the place of the next one.
    pub(super) fn go_on(&mut self, next: Position) {
        self.at = next;
        self.buffer_bytes = 0;
        self.since = None;
        if self.absorbed < next.start {
            (self.absorbed, self.read) = (next.start, next.start); // a gap was passed
        }
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
