//! Entries of the spool's log, and the records that a partition writer reads out of them.
//!
//! An entry is what must become durable together: a frame with its verdicts, a gap, a session's
//! end, a tick. Its bytes start with a prelude (kind and the number of records by stream), so that
//! a reader of one stream can pass over the rest without reading it.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::chain::ChainId;
use super::hour::Hour;
use super::identity::{Delivery, LogId, Micros, Origin, SessionId};
use super::partition::symbol_partition;
use super::per_chain::PerChain;
use super::stream::{PerStream, STREAMS, Stream};
use super::verdict::{Flags, Judged, JudgedFrame, RawFrame, Reason, Verdict};

/// Bytes of the prelude: the kind and one count a stream.
pub const PRELUDE: usize = 1 + 2 * STREAMS;

const FRAME: u8 = 1;
const CONTROL: u8 = 2;
const TICK: u8 = 3;
const OPENED: u8 = 4;

const BINARY: u8 = 1;
/// Each element is followed by its partition.
const PARTITIONED: u8 = 2;
const QUARANTINED: u8 = 0x80;

/// An outage of the feed: from the last receipt before it to the first one after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The shard whose connection was out.
    pub shard: String,
    /// Its symbols.
    pub symbols: Vec<String>,
    /// The session before; what the server sent on it after `last_frame` is not here.
    pub previous_session: SessionId,
    /// The last frame received on it.
    pub last_frame: u32,
    /// When that was.
    pub last_received_at: Option<Micros>,
    /// The first receipt after; none while the outage lasts.
    pub first_received_at: Option<Micros>,
    /// What made it: `disconnected`, `process_died`, `spool_full`...
    pub reason: String,
    /// Where the opening of the session that tells of it stands, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Origin>,
}

/// The end of a session and what it delivered in all: by this, completeness can be proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    /// The shard it served.
    pub shard: String,
    /// The number of its last frame that is durable, pings included. What came after it was not received.
    pub frames: u32,
    /// Records by stream, this one not counted.
    pub records: PerStream<u64>,
    /// The same by partition, where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PerChain<u64>>,
    /// The last receipt.
    pub last_received_at: Option<Micros>,
    /// Why it ended.
    pub reason: String,
    /// Where the opening of the session stands, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Origin>,
}

impl SessionEnd {
    /// How many records the session delivered to a chain, this one not counted.
    pub fn records_of(&self, chain: ChainId) -> u64 {
        match &self.partitions {
            Some(partitions) => partitions.get(chain).copied().unwrap_or_default(),
            None if chain.partition == 0 => self.records[chain.stream.index()],
            None => 0,
        }
    }
}

/// What the gaps stream holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Control {
    /// See [`Gap`].
    Gap(Gap),
    /// See [`SessionEnd`].
    SessionEnd(SessionEnd),
}

impl Control {
    /// The shard that it is about.
    pub fn shard(&self) -> &str {
        match self {
            Control::Gap(gap) => &gap.shard,
            Control::SessionEnd(end) => &end.shard,
        }
    }

    /// Where the opening of its session stands, if that is known.
    pub fn opened(&self) -> Option<Origin> {
        match self {
            Control::Gap(gap) => gap.opened,
            Control::SessionEnd(end) => end.opened,
        }
    }
}

/// A connection was opened: archived nowhere, so that a successor can tell of it and the chain of the
/// gaps knows whose end is still to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The connection.
    pub session: SessionId,
    /// What it serves.
    pub shard: String,
    /// Its symbols.
    pub symbols: Vec<String>,
    /// When.
    pub at: Micros,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A frame and its verdicts.
    Frame {
        /// The connection.
        session: SessionId,
        /// The sequence numbers of its first record in partition 0 of each stream.
        seq: PerStream<u64>,
        /// What came.
        judged: JudgedFrame,
    },
    /// A record of the gaps stream.
    Control {
        /// Its identity.
        delivery: Delivery,
        /// Its sequence number in the session's gaps.
        seq: u64,
        /// When it was made.
        at: Micros,
        /// What it says.
        control: Control,
    },
    /// A connection was opened.
    Opened(Opened),
    /// The hour has turned: moves the archive hour of idle partitions on.
    Tick {
        /// The hour that began.
        hour: Hour,
    },
}

/// The bytes do not make an entry: the log is torn here or its disk has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed log entry: {0}")]
pub struct Malformed(&'static str);

impl Entry {
    /// Each place that it takes in a log of so many partitions. With Kafka the end of a session stands in its
    /// stream only: there, no chain forgets by it what it has read.
    pub fn each_place(&self, partitions: u32, mut take: impl FnMut(ChainId)) {
        let gaps = |shard: &str| ChainId { stream: Stream::Gaps, partition: symbol_partition(shard.as_bytes(), partitions) };
        match self {
            Entry::Frame { judged, .. } => judged.elements.iter().for_each(|element| {
                take(ChainId { stream: element.verdict.stream(), partition: u32::from(element.partition) % partitions });
            }),
            Entry::Opened(opened) => take(gaps(&opened.shard)),
            Entry::Control { control: control @ Control::Gap(_), .. } => take(gaps(control.shard())),
            Entry::Control { control, .. } if partitions > 1 => take(gaps(control.shard())),
            Entry::Control { .. } | Entry::Tick { .. } => {
                for partition in 0..partitions {
                    Stream::ALL.into_iter().for_each(|stream| take(ChainId { stream, partition }));
                }
            }
        }
    }

    /// How many records it holds in a log of one partition, by stream. A tick and a session's end take a place in each.
    pub fn counts(&self) -> PerStream<u16> {
        match self {
            Entry::Frame { judged, .. } => judged.counts(),
            Entry::Control { control: Control::Gap(_), .. } | Entry::Opened(_) => [0, 1, 0],
            Entry::Control { control: Control::SessionEnd(_), .. } | Entry::Tick { .. } => [1; STREAMS],
        }
    }

    /// Appends its bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let counts = self.counts();
        let kind = match self {
            Entry::Frame { .. } => FRAME,
            Entry::Control { .. } => CONTROL,
            Entry::Opened(_) => OPENED,
            Entry::Tick { .. } => TICK,
        };
        out.put_u8(kind);
        for count in counts {
            out.put_u16_le(count);
        }
        match self {
            Entry::Frame { session, seq, judged } => encode_frame(*session, *seq, judged, out),
            Entry::Control { delivery, seq, at, control } => {
                out.put_slice(delivery.session.0.as_bytes());
                out.put_u32_le(delivery.frame);
                out.put_u16_le(delivery.index);
                out.put_u64_le(*seq);
                out.put_i64_le(*at);
                serde_json::to_writer(out, control).expect("a control record has only string keys");
            }
            Entry::Opened(opened) => serde_json::to_writer(out, opened).expect("it has only string keys"),
            Entry::Tick { hour } => out.put_i64_le(hour.0),
        }
    }

    /// Reads an entry from exactly its bytes, which it shares.
    pub fn decode(mut bytes: Bytes) -> Result<Entry, Malformed> {
        let (kind, _) = prelude(&bytes)?;
        bytes.advance(PRELUDE);
        match kind {
            FRAME => decode_frame(bytes),
            CONTROL => {
                need(&bytes, 38)?;
                let delivery =
                    Delivery { session: take_session(&mut bytes), frame: bytes.get_u32_le(), index: bytes.get_u16_le() };
                let (seq, at) = (bytes.get_u64_le(), bytes.get_i64_le());
                let control = serde_json::from_slice(&bytes).map_err(|_| Malformed("control record"))?;
                Ok(Entry::Control { delivery, seq, at, control })
            }
            TICK => {
                need(&bytes, 8)?;
                Ok(Entry::Tick { hour: Hour(bytes.get_i64_le()) })
            }
            OPENED => serde_json::from_slice(&bytes).map(Entry::Opened).map_err(|_| Malformed("opened session")),
            _ => Err(Malformed("unknown kind")),
        }
    }
}

/// The counts by stream of an entry, without reading the rest of it.
pub fn counts_of(bytes: &[u8]) -> Result<PerStream<u16>, Malformed> {
    prelude(bytes).map(|(_, counts)| counts)
}

fn prelude(bytes: &[u8]) -> Result<(u8, PerStream<u16>), Malformed> {
    if bytes.len() < PRELUDE {
        return Err(Malformed("shorter than its prelude"));
    }
    let count = |i: usize| u16::from_le_bytes([bytes[1 + 2 * i], bytes[2 + 2 * i]]);
    Ok((bytes[0], std::array::from_fn(count)))
}

fn need(bytes: &Bytes, n: usize) -> Result<(), Malformed> {
    if bytes.remaining() < n { Err(Malformed("cut short")) } else { Ok(()) }
}

fn take_session(bytes: &mut Bytes) -> SessionId {
    let mut id = [0; 16];
    bytes.copy_to_slice(&mut id);
    SessionId(uuid::Uuid::from_bytes(id))
}

fn encode_frame(session: SessionId, seq: PerStream<u64>, judged: &JudgedFrame, out: &mut Vec<u8>) {
    let frame = &judged.frame;
    out.put_slice(session.0.as_bytes());
    out.put_u32_le(frame.number);
    out.put_i64_le(frame.received_at);
    let partitioned = judged.elements.iter().any(|element| element.partition != 0);
    out.put_u8(if frame.binary { BINARY } else { 0 } | if partitioned { PARTITIONED } else { 0 });
    for first in seq {
        out.put_u64_le(first);
    }
    let traceparent = judged.traceparent.as_deref().unwrap_or_default();
    out.put_u8(traceparent.len() as u8);
    out.put_slice(traceparent.as_bytes());
    out.put_u32_le(frame.payload.len() as u32);
    out.put_slice(&frame.payload);
    for Judged { range, partition, verdict } in &judged.elements {
        out.put_u32_le(range.start);
        out.put_u32_le(range.end);
        if partitioned {
            out.put_u16_le(*partition);
        }
        match verdict {
            Verdict::Trade(flags) => out.put_u8(flags.0),
            Verdict::Quarantined { reason, detail } => {
                out.put_u8(QUARANTINED | *reason as u8);
                let detail = &detail.as_bytes()[..detail.floor_char_boundary(u16::MAX as usize)];
                out.put_u16_le(detail.len() as u16);
                out.put_slice(detail);
            }
        }
    }
}

fn decode_frame(mut bytes: Bytes) -> Result<Entry, Malformed> {
    need(&bytes, 16 + 4 + 8 + 1 + 8 * STREAMS + 1)?;
    let session = take_session(&mut bytes);
    let (number, received_at) = (bytes.get_u32_le(), bytes.get_i64_le());
    let kind = bytes.get_u8();
    let (binary, partitioned) = (kind & BINARY != 0, kind & PARTITIONED != 0);
    let seq = std::array::from_fn(|_| bytes.get_u64_le());
    let traced = bytes.get_u8() as usize;
    need(&bytes, traced + 4)?;
    let traceparent = match bytes.split_to(traced) {
        text if text.is_empty() => None,
        text => Some(Arc::from(std::str::from_utf8(&text).map_err(|_| Malformed("trace context"))?)),
    };
    let length = bytes.get_u32_le() as usize;
    need(&bytes, length)?;
    let payload = bytes.split_to(length);
    let mut elements = Vec::new();
    while bytes.has_remaining() {
        elements.push(decode_element(&mut bytes, length as u32, partitioned)?);
    }
    let frame = RawFrame { number, received_at, payload, binary };
    Ok(Entry::Frame { session, seq, judged: JudgedFrame { frame, elements, traceparent } })
}

fn decode_element(bytes: &mut Bytes, length: u32, partitioned: bool) -> Result<Judged, Malformed> {
    need(bytes, if partitioned { 11 } else { 9 })?;
    let range = bytes.get_u32_le()..bytes.get_u32_le();
    if range.start > range.end || range.end > length {
        return Err(Malformed("an element lies outside its frame"));
    }
    let partition = if partitioned { bytes.get_u16_le() } else { 0 };
    let code = bytes.get_u8();
    if code & QUARANTINED == 0 {
        return Ok(Judged { range, partition, verdict: Verdict::Trade(Flags(code)) });
    }
    let reason = *Reason::ALL.get((code & !QUARANTINED) as usize).ok_or(Malformed("unknown reason"))?;
    need(bytes, 2)?;
    let length = bytes.get_u16_le() as usize;
    need(bytes, length)?;
    let detail = String::from_utf8(bytes.split_to(length).into()).map_err(|_| Malformed("detail"))?;
    Ok(Judged { range, partition, verdict: Verdict::Quarantined { reason, detail } })
}

/// One record of a chain, at its offset in the log that the chain reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in its stream and partition.
    pub offset: u64,
    /// Where it stands in the spool; the offset is the same as the place where the spool is the log.
    pub origin: Origin,
    /// When its frame was read, or when it was made.
    pub received_at: Micros,
    /// The W3C trace context of its frame, where that is sampled.
    pub traceparent: Option<Arc<str>>,
    /// What it is.
    pub content: Content,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tick: takes an offset, is archived nowhere.
    Tick(Hour),
    /// A session's records may come from here on: told to the gaps, archived nowhere.
    Opened(SessionId),
    /// A session's records are all there: told to the streams that do not archive its end.
    Ended(SessionId),
    /// The spool has lost its records from this place on: told to the chain that reads Kafka, archived nowhere.
    Lost {
        /// The last place that is lost.
        last: u64,
    },
    /// Something with an identity, to be archived exactly once.
    Data {
        /// Who it is.
        delivery: Delivery,
        /// Its number in (session, stream, partition).
        seq: u64,
        /// What is archived.
        payload: Payload,
    },
}

/// What is archived of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A trade: its text, verbatim, and its flags.
    Trade {
        /// The JSON text of the element.
        raw: Bytes,
        /// Oddities.
        flags: Flags,
    },
    /// A gap or a session's end. Boxed: it is rare, and would make all records three times as long.
    Control(Box<Control>),
    /// What is no trade.
    Quarantined {
        /// Its bytes, verbatim.
        raw: Bytes,
        /// Why.
        reason: Reason,
        /// What exactly.
        detail: String,
    },
    /// A record of the topic that is none of ours: in raw with its reason, and left out of typed.
    Foreign {
        /// Its value, verbatim.
        raw: Bytes,
        /// Why it is none.
        why: String,
    },
}

impl Record {
    /// Whether something else than Tickmint has written it.
    pub fn is_foreign(&self) -> bool {
        matches!(self.content, Content::Data { payload: Payload::Foreign { .. }, .. })
    }

    /// The server's bytes, where it holds any.
    pub fn raw_mut(&mut self) -> Option<&mut Bytes> {
        match &mut self.content {
            Content::Data {
                payload: Payload::Trade { raw, .. } | Payload::Quarantined { raw, .. } | Payload::Foreign { raw, .. },
                ..
            } => Some(raw),
            Content::Data { payload: Payload::Control(_), .. }
            | Content::Tick(_)
            | Content::Opened(_)
            | Content::Ended(_)
            | Content::Lost { .. } => None,
        }
    }
}

/// Takes out of an entry of a log of one partition the records of one stream, the first of them at `offset`.
pub fn records(log: LogId, entry: Entry, stream: Stream, mut offset: u64, out: &mut Vec<Record>) {
    let origin = |place| Origin { log, place };
    match entry {
        Entry::Tick { hour } => {
            let (received_at, content) = (hour.begins(), Content::Tick(hour));
            out.push(Record { offset, origin: origin(offset), received_at, traceparent: None, content });
        }
        Entry::Opened(Opened { session, at, .. }) => {
            if stream == Stream::Gaps {
                let content = Content::Opened(session);
                out.push(Record { offset, origin: origin(offset), received_at: at, traceparent: None, content });
            }
        }
        Entry::Control { delivery, seq, at, control } => {
            let content = match control {
                control if stream == Stream::Gaps => {
                    Content::Data { delivery, seq, payload: Payload::Control(Box::new(control)) }
                }
                Control::SessionEnd(_) => Content::Ended(delivery.session),
                Control::Gap(_) => return,
            };
            out.push(Record { offset, origin: origin(offset), received_at: at, traceparent: None, content });
        }
        Entry::Frame { session, seq, judged } => {
            let mut seq = seq[stream.index()];
            for (index, element) in judged.elements.into_iter().enumerate() {
                if element.verdict.stream() != stream {
                    continue;
                }
                let raw = judged.frame.payload.slice(element.range.start as usize..element.range.end as usize);
                let payload = match element.verdict {
                    Verdict::Trade(flags) => Payload::Trade { raw, flags },
                    Verdict::Quarantined { reason, detail } => Payload::Quarantined { raw, reason, detail },
                };
                let delivery = Delivery { session, frame: judged.frame.number, index: index as u16 };
                let content = Content::Data { delivery, seq, payload };
                let (received_at, traceparent) = (judged.frame.received_at, judged.traceparent.clone());
                out.push(Record { offset, origin: origin(offset), received_at, traceparent, content });
                offset += 1;
                seq += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            (0u8..8).prop_map(|flags| Verdict::Trade(Flags(flags))),
            (0usize..Reason::ALL.len(), ".{0,20}")
                .prop_map(|(n, detail)| Verdict::Quarantined { reason: Reason::ALL[n], detail }),
        ]
    }

    fn frame() -> impl Strategy<Value = Entry> {
        let parts = (prop::collection::vec(any::<u8>(), 0..80), prop::collection::vec(verdict(), 0..12), any::<[u64; 3]>());
        (parts, any::<u32>(), any::<i64>(), any::<bool>(), prop::option::of("[0-9a-f-]{55}")).prop_map(
            |((payload, verdicts, seq), number, received_at, binary, traceparent)| {
                let length = payload.len() as u32;
                let judged = |(n, verdict)| Judged { range: length / 2..length, partition: n % (1 + number % 3) as u16, verdict };
                let elements = (0..).zip(verdicts).map(judged).collect();
                let frame = RawFrame { number, received_at, payload: payload.into(), binary };
                let traceparent = traceparent.map(Arc::from);
                Entry::Frame { session: SessionId::generate(), seq, judged: JudgedFrame { frame, elements, traceparent } }
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_from_its_bytes(entry in frame()) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert_eq!(counts_of(&bytes).unwrap(), entry.counts());
            prop_assert_eq!(Entry::decode(bytes.into()).unwrap(), entry);
        }

        #[test]
        fn cut_or_mangled_bytes_are_refused_or_read_but_never_panic(entry in frame(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            drop(Entry::decode(Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())])));
            let at = flip.index(bytes.len());
            bytes[at] ^= 0x55;
            drop(Entry::decode(bytes.into()));
        }
    }

    #[test]
    fn records_of_a_stream_get_dense_offsets_and_numbers() {
        let verdicts = [
            Verdict::Trade(Flags::default()),
            Verdict::Quarantined { reason: Reason::BadPrice, detail: "-1".into() },
            Verdict::Trade(Flags::PRICE_UPDATE),
        ];
        let elements = verdicts
            .into_iter()
            .zip([0..1, 1..2, 2..3])
            .map(|(verdict, range)| Judged { range, partition: 0, verdict })
            .collect();
        let frame = RawFrame { number: 9, received_at: 5, payload: Bytes::from_static(b"abc"), binary: false };
        let entry = Entry::Frame {
            session: SessionId::generate(),
            seq: [40, 0, 7],
            judged: JudgedFrame { frame, elements, traceparent: None },
        };
        let mut trades = Vec::new();
        records(LogId::default(), entry.clone(), Stream::Trades, 100, &mut trades);
        let summary: Vec<_> = trades
            .iter()
            .map(|record| match &record.content {
                Content::Data { delivery, seq, payload: Payload::Trade { raw, .. } } => {
                    (record.offset, delivery.index, *seq, raw.clone())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(summary, [(100, 0, 40, "a".into()), (101, 2, 41, "c".into())]);
        let mut quarantined = Vec::new();
        records(LogId::default(), entry, Stream::Quarantine, 3, &mut quarantined);
        assert!(matches!(quarantined[0].content, Content::Data { seq: 7, .. }), "{quarantined:?}");
    }
}
