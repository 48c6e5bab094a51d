//! The commit chain: what is committed to Bronze is what the slots say, and nothing else.
//!
//! One chain per stream and partition, for ever, in generations. A slot's name is the end of the
//! slot before it plus one, so each name is a one-shot decision: whoever creates it first decides.
//! `docs/adr/0002-commit-chain.md` has the protocol; `tests/model` checks it with all interleavings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Content, Control, Payload, Record};
use super::hour::Hour;
use super::identity::{LogId, Micros, Origin, SessionId};
use super::intervals::{Read, Seen};
use super::stream::Stream;

/// The version of the slot's body. A writer that meets a newer one stops.
pub const SLOT_VERSION: u32 = 1;

/// Digits of a generation in a slot's name: 10^10 generations are one a second for 300 years.
const GENERATION_DIGITS: usize = 10;
/// Digits of an offset in a slot's name: the most that fit an `u64`.
const OFFSET_DIGITS: usize = 19;

/// A chain's name: the stream and its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// The stream it archives.
    pub stream: Stream,
    /// The partition of it; 0 where the spool is the log.
    pub partition: u32,
}

impl ChainId {
    /// All chains where each stream has so many partitions.
    pub fn all(partitions: u32) -> impl Iterator<Item = ChainId> {
        (0..partitions).flat_map(|partition| Stream::ALL.map(|stream| ChainId { stream, partition }))
    }

    /// The folder of its slots, with the slash at the end.
    pub fn prefix(self) -> String {
        format!("_commit/{}/p{}/", self.stream, self.partition)
    }
}

/// The only chain of a stream where the spool is the log, else its first.
impl From<Stream> for ChainId {
    fn from(stream: Stream) -> ChainId {
        ChainId { stream, partition: 0 }
    }
}

impl std::fmt::Display for ChainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// A place in a chain where a slot may stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Counts incarnations of the log, 0 being the one before the first.
    pub generation: u64,
    /// The offset in that incarnation of the log.
    pub start: u64,
}

impl Position {
    /// The key of the slot there. Inverted, so that the newest slot sorts first.
    pub fn key(self, chain: ChainId) -> String {
        let generation = invert(self.generation, GENERATION_DIGITS);
        let start = invert(self.start, OFFSET_DIGITS);
        format!("{}{generation:0gw$}-{start:0sw$}.json", chain.prefix(), gw = GENERATION_DIGITS, sw = OFFSET_DIGITS)
    }

    /// The position that a slot's key names, or `None` if the key is not of that form.
    pub fn from_key(chain: ChainId, key: &str) -> Option<Position> {
        let name = key.strip_prefix(&chain.prefix())?.strip_suffix(".json")?;
        let (generation, start) = name.split_once('-')?;
        if generation.len() != GENERATION_DIGITS || start.len() != OFFSET_DIGITS {
            return None;
        }
        let position = Position {
            generation: invert(generation.parse().ok()?, GENERATION_DIGITS),
            start: invert(start.parse().ok()?, OFFSET_DIGITS),
        };
        Some(position)
    }
}

fn invert(n: u64, digits: usize) -> u64 {
    let top = 10u64.pow(digits as u32) - 1;
    top - n.min(top)
}

/// What a slot hands on to the next one: everything its writer must know, so that no writer's own
/// memory matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// Per log of the spool, the places that were read. A record that stands there is a repeat.
    #[serde(default)]
    pub read: Read,
    /// Per log of the spool, the places that it did not hold any more when their turn came. A copy of the log may hold
    /// them still: so they are not among those that were read.
    #[serde(default, skip_serializing_if = "Read::is_empty")]
    pub lost: Read,
    /// In the chains of gaps, per session that has not ended, what has been archived. A record in here is a repeat.
    pub seen: Seen,
    /// In the chains of gaps, sessions whose end was archived before all else of them, and the number of that end: their
    /// opening was not read, or records before the end are still missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ended: BTreeMap<SessionId, u64>,
    /// The archive hour reached; `None` before the first record.
    pub archive_hour: Option<Hour>,
}

impl Carry {
    /// Takes in a record; whether it is to be archived. Of a session nothing is left in here once its opening and its
    /// end have been read: see ADR 6.
    pub fn take(&mut self, record: &Record) -> bool {
        // Of a repeat as well: ticks of a log that knows fewer partitions have no places of their own (`forward/engine.rs`).
        self.archive_hour = self.archive_hour.max(Some(Hour::of(record.received_at)));
        let Origin { log, place } = record.origin;
        if let Content::Lost { last } = record.content {
            self.lost.insert_all(log, place, last);
            return false;
        }
        if !self.read.insert(log, place) {
            return false;
        }
        match &record.content {
            // Its place is its offset, and the chain has read all before that: one interval, however many there are.
            Content::Data { payload: Payload::Foreign { .. }, .. } => {
                self.read.insert_all(log, 0, place);
                true
            }
            Content::Tick(_) => false,
            Content::Opened(session) => {
                self.seen.open(*session);
                self.forget_if_whole(*session);
                false
            }
            Content::Ended(session) => {
                self.seen.forget(*session);
                false
            }
            Content::Data { delivery, seq, payload: Payload::Control(control) } => {
                self.take_control(delivery.session, *seq, control)
            }
            Content::Data { .. } => true,
            Content::Lost { .. } => false,
        }
    }

    /// The end of a session may stand in several logs, each written by one that went on from a copy of the spool: the
    /// first one is archived, and what comes of the session after it is a repeat. Its opening stands in one log only.
    fn take_control(&mut self, session: SessionId, seq: u64, control: &Control) -> bool {
        let was_opened = match control.opened() {
            Some(Origin { log, place }) => self.read.contains(log, place),
            // An earlier version wrote it, and in one log after the other: the opening was read unless it was lost.
            None => self.lost.is_empty() || self.seen.knows(session),
        };
        let is_end = matches!(control, Control::SessionEnd(_));
        let has_ended = self.ended.contains_key(&session);
        if has_ended && is_end || was_opened && !has_ended && !self.seen.knows(session) {
            return false;
        }
        let is_new = self.seen.insert(session, seq);
        // One whose number was given to a gap was written on a copy that does not know of the gap: whoever does, will end the
        // session.
        if is_new && is_end {
            self.ended.insert(session, seq);
        }
        if was_opened {
            self.forget_if_whole(session);
        }
        is_new
    }

    /// Forgets a session that was opened and has ended, if nothing before its end is missing.
    fn forget_if_whole(&mut self, session: SessionId) {
        let is_whole = |last: &u64| self.seen.0.get(&session).is_some_and(|seen| seen.covers(0, *last));
        if self.ended.get(&session).is_some_and(is_whole) {
            self.ended.remove(&session);
            self.seen.forget(session);
        }
    }
}

/// An object in the store, named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// What a slot commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// The log's records up to `end` are archived: in `data`, or there was nothing new in them.
    Data {
        /// The last offset covered.
        end: u64,
        /// The objects; `None` for a range of nothing but repeats and ticks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<DataRange>,
    },
    /// The log no longer holds the records up to `end`.
    Gap {
        /// The last offset of the hole.
        end: u64,
        /// What made the hole.
        reason: String,
    },
    /// The generation is closed; the next one reads the log `next` from offset 0.
    End {
        /// The incarnation of the next generation.
        next: LogId,
    },
}

/// The two objects of a data slot and what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRange {
    /// Records in the raw object.
    pub rows: u64,
    /// One JSON line a record, zstd.
    pub raw: ObjectRef,
    /// The same as typed columns, Parquet.
    pub typed: ObjectRef,
    /// The archive hour of the objects.
    pub hour: Hour,
    /// Bounds of the event times (of the receipt where a stream has none), microseconds.
    pub min_time: Micros,
    /// See `min_time`.
    pub max_time: Micros,
    /// The event hours that the records touch, in order.
    pub event_hours: Vec<Hour>,
    /// Offsets of records that are in raw and left out of typed: they killed their writer three times, or something else
    /// than Tickmint has written them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poison: Vec<u64>,
}

/// A slot of the chain: immutable, and the only commit point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// See [`SLOT_VERSION`].
    pub version: u32,
    /// The stream of the chain.
    pub stream: Stream,
    /// The partition of the chain.
    pub partition: u32,
    /// Where it stands.
    #[serde(flatten)]
    pub position: Position,
    /// The log that the generation reads; none in generation 0.
    pub incarnation: Option<LogId>,
    /// What it commits.
    #[serde(flatten)]
    pub body: Body,
    /// What it hands on.
    pub carry: Carry,
    /// Who wrote it: new at each start of a writer. For diagnosis, and to know one's own.
    pub writer: uuid::Uuid,
    /// How often that writer has read the chain anew.
    pub epoch: u64,
    /// When, by the writer's clock, microseconds.
    pub written_at: Micros,
    /// The W3C trace context of the commit, where it was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Where a chain stands: the one open place, and what was handed on to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The place of the next slot.
    pub next: Position,
    /// The log that the open generation reads; `None` in generation 0.
    pub incarnation: Option<LogId>,
    /// What the slot before hands on.
    pub carry: Carry,
}

impl Slot {
    /// The tail that this slot leaves behind.
    pub fn tail(&self) -> Tail {
        let (next, incarnation) = match &self.body {
            Body::Data { end, .. } | Body::Gap { end, .. } => (Position { start: end + 1, ..self.position }, self.incarnation),
            Body::End { next } => (Position { generation: self.position.generation + 1, start: 0 }, Some(*next)),
        };
        Tail { next, incarnation, carry: self.carry.clone() }
    }

    /// The last offset that it covers; `None` for an end slot, which covers none.
    pub fn end(&self) -> Option<u64> {
        match self.body {
            Body::Data { end, .. } | Body::Gap { end, .. } => Some(end),
            Body::End { .. } => None,
        }
    }

    /// The objects it names, if it has any.
    pub fn data(&self) -> Option<&DataRange> {
        match &self.body {
            Body::Data { data, .. } => data.as_ref(),
            Body::Gap { .. } | Body::End { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::{Gap, SessionEnd};
    use super::super::identity::{Delivery, SessionId};
    use super::super::verdict::Flags;
    use super::*;

    const CHAIN: ChainId = ChainId { stream: Stream::Trades, partition: 0 };

    #[test]
    fn a_slot_reads_back_from_its_json() {
        let slot = Slot {
            version: SLOT_VERSION,
            stream: Stream::Gaps,
            partition: 0,
            position: Position { generation: 3, start: 17 },
            incarnation: Some(LogId::generate()),
            body: Body::End { next: LogId::generate() },
            carry: Carry { archive_hour: Some(Hour(495_000)), ..Carry::default() },
            writer: uuid::Uuid::now_v7(),
            epoch: 1,
            written_at: 7,
            traceparent: None,
        };
        let text = serde_json::to_string(&slot).unwrap();
        assert!(text.contains(r#""kind":"end""#), "{text}");
        assert_eq!(serde_json::from_str::<Slot>(&text).unwrap(), slot);
    }

    #[test]
    fn of_foreign_records_nothing_is_kept_but_how_far_they_were_read() {
        let (mut carry, topic) = (Carry::default(), LogId::generate());
        let mut take = |offset| {
            let delivery = Delivery { session: SessionId::generate(), frame: 1, index: 0 };
            let payload = Payload::Foreign { raw: Default::default(), why: String::new() };
            let content = Content::Data { delivery, seq: offset, payload };
            carry.take(&Record {
                offset,
                origin: Origin { log: topic, place: offset },
                received_at: 0,
                traceparent: None,
                content,
            })
        };
        let ours_between = [3, 7, 8, 20];
        assert_eq!(ours_between.map(&mut take), [true; 4]);
        assert_eq!(ours_between.map(&mut take), [false; 4], "repeats");
        assert!(take(21));
        assert_eq!(carry.read.0[&topic].missing(0, 30), [(22, 30)]);
    }

    #[test]
    fn a_key_of_another_form_names_no_position() {
        for key in ["_commit/trades/p0/1-2.json", "_commit/trades/p1/x", "_commit/gaps/p0/9999999999-9999999999999999999.json"] {
            assert_eq!(Position::from_key(CHAIN, key), None, "{key}");
        }
    }

    /// The records of one log in one stream, at rising offsets.
    struct Reading(Carry, LogId);

    impl Reading {
        fn take(&mut self, offset: u64, content: Content) -> bool {
            let Reading(carry, log) = self;
            let origin = Origin { log: *log, place: offset };
            carry.take(&Record { offset, origin, received_at: 0, traceparent: None, content })
        }
    }

    fn trade(session: SessionId, seq: u64) -> Content {
        let delivery = Delivery { session, frame: 1, index: 0 };
        Content::Data { delivery, seq, payload: Payload::Trade { raw: Default::default(), flags: Flags::default() } }
    }

    fn gap(session: SessionId, seq: u64, opened: Option<Origin>) -> Content {
        let gap = Control::Gap(Gap {
            shard: "s".into(),
            symbols: vec![],
            previous_session: SessionId::generate(),
            last_frame: 1,
            last_received_at: None,
            first_received_at: Some(1),
            reason: "x".into(),
            opened,
        });
        let delivery = Delivery { session, frame: 0, index: 0 };
        Content::Data { delivery, seq, payload: Payload::Control(Box::new(gap)) }
    }

    fn end(session: SessionId, seq: u64, opened: Option<Origin>) -> Content {
        let (shard, reason) = ("s".into(), "x".into());
        let end = SessionEnd { shard, frames: 1, records: [0; 3], partitions: None, last_received_at: None, reason, opened };
        let delivery = Delivery { session, frame: 2, index: 0 };
        Content::Data { delivery, seq, payload: Payload::Control(Box::new(Control::SessionEnd(end))) }
    }

    #[test]
    fn what_was_read_of_a_log_is_a_repeat_though_its_session_is_forgotten() {
        let (session, log) = (SessionId::generate(), LogId::generate());
        let mut reading = Reading(Carry::default(), log);
        let all = || [(0, trade(session, 0)), (1, trade(session, 1)), (2, Content::Ended(session))];
        assert_eq!(all().map(|(offset, content)| reading.take(offset, content)), [true, true, false]);
        assert_eq!(reading.0.seen, Seen::default(), "of trades the places say it all");
        assert_eq!(all().map(|(offset, content)| reading.take(offset, content)), [false; 3], "the log is read again");
    }

    #[test]
    fn the_end_of_a_session_is_archived_once_whoever_writes_it() {
        let (session, log) = (SessionId::generate(), LogId::generate());
        for opened in [None, Some(Origin { log, place: 0 })] {
            let mut reading = Reading(Carry::default(), log);
            assert!(!reading.take(0, Content::Opened(session)));
            let mut copy = Reading(reading.0, LogId::generate());
            assert!(copy.take(0, end(session, 0, opened)), "by the successor");
            let mut other = Reading(copy.0, LogId::generate());
            assert!(!other.take(0, end(session, 0, opened)), "by one that went on from a copy of the spool");
            assert_eq!((other.0.seen, other.0.ended.len()), (Seen::default(), 0));
        }
    }

    #[test]
    fn an_end_that_comes_before_its_opening_is_archived_once_too() {
        let (session, log) = (SessionId::generate(), LogId::generate());
        let opened = Some(Origin { log, place: 4 });
        let mut successor = Reading(Carry::default(), LogId::generate());
        assert!(successor.take(0, end(session, 0, opened)), "the opening is not there, and perhaps never will be");
        assert!(!successor.take(1, end(session, 0, opened)), "by another successor");
        let mut resent = Reading(successor.0, log);
        assert!(!resent.take(4, Content::Opened(session)));
        assert_eq!((&resent.0.seen, resent.0.ended.len()), (&Seen::default(), 0), "all of it is known now");
        assert!(!resent.take(5, end(session, 0, opened)), "by a third one");
    }

    #[test]
    fn a_gap_that_is_sent_again_after_the_end_is_archived_once() {
        let (session, log) = (SessionId::generate(), LogId::generate());
        let opened = Some(Origin { log, place: 0 });
        let mut reading = Reading(Carry::default(), log);
        reading.take(0, Content::Opened(session));
        let mut successor = Reading(reading.0, LogId::generate());
        assert!(successor.take(0, end(session, 1, opened)), "the gap before it was lost on its way");
        assert!(!successor.take(1, end(session, 1, opened)), "by another successor");
        let mut again = Reading(successor.0, log);
        assert!(again.take(1, gap(session, 0, opened)));
        assert_eq!((&again.0.seen, again.0.ended.len()), (&Seen::default(), 0), "all of it is known now");
        assert!(!again.take(2, gap(session, 0, opened)), "on a copy");
    }

    #[test]
    fn an_end_that_does_not_know_of_a_gap_does_not_stand_for_the_one_that_does() {
        let (session, log) = (SessionId::generate(), LogId::generate());
        let opened = Some(Origin { log, place: 0 });
        let mut reading = Reading(Carry::default(), log);
        reading.take(0, Content::Opened(session));
        assert!(reading.take(1, gap(session, 0, opened)));
        let mut copy = Reading(reading.0, LogId::generate());
        assert!(!copy.take(0, end(session, 0, opened)), "by one that went on from a copy made before the gap");
        let mut original = Reading(copy.0, log);
        assert!(original.take(2, end(session, 1, opened)));
        assert_eq!(original.0.seen, Seen::default());
    }

    #[test]
    fn an_end_of_an_earlier_version_is_archived_where_its_opening_may_be_lost() {
        let mut reading = Reading(Carry::default(), LogId::generate());
        let session = SessionId::generate();
        assert!(!reading.take(1, end(session, 0, None)));
        reading.0.lost.insert_all(LogId::generate(), 7, 7);
        assert!(reading.take(2, end(session, 0, None)));
    }

    proptest! {
        #[test]
        fn newer_slots_sort_first_and_keys_read_back(g in 0u64..9_999_999_999, s in 0u64..9_999_999_999_999_999_999, h in 0u64..9_999_999_999, t in 0u64..9_999_999_999_999_999_999) {
            let (a, b) = (Position { generation: g, start: s }, Position { generation: h, start: t });
            prop_assert_eq!(Position::from_key(CHAIN, &a.key(CHAIN)), Some(a));
            prop_assert_eq!(a.cmp(&b), b.key(CHAIN).cmp(&a.key(CHAIN)));
        }
    }
}
