//! Records to the two objects of a slot: raw (one JSON line a record, zstd) and typed (Parquet).
//!
//! Typed is a pure function of raw. A record's text is taken over verbatim; the columns come from
//! reading that text again.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use base64::Engine;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use uuid::fmt::Hyphenated;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use super::columns;
use super::poison::Attempt;
use crate::domain::entry::{Content, Payload, Record};
use crate::domain::hour::Hour;
use crate::domain::identity::{Micros, SessionId};
use crate::domain::stream::Stream;
use crate::domain::trade::Trade;

/// Lines go to the compressor in pieces of so many bytes: it is slow on small ones.
const PIECE: usize = 256 << 10;

/// How far back the compressor looks, as a power of two. What repeats in the lines repeats within a few hundred of them: of a
/// day of US equities' trades, level 1 took 0.18 us a line with 17 and not 0.28 as with its own 19, and the object was 2 %
/// smaller. With 16 it is 1 % larger again, takes as long, and holds half as much memory.
const RAW_WINDOW: u32 = 16;

/// Rows of a page of typed at most. Each column has a compressor of its own, whose memory goes by the size of its pages: with the
/// crate's 20,000 rows they were half of what an encoder holds.
const PAGE_ROWS: usize = 8192;

/// Of a stream's columns about so many in a hundred have pages of full size, of eight bytes a row; the others hold a few distinct
/// values.
const FULL_COLUMNS: usize = 50;

/// The two objects and what is in them.
pub struct Encoded {
    /// Records in raw.
    pub rows: u64,
    /// The raw object.
    pub raw: Vec<u8>,
    /// The typed object.
    pub typed: Vec<u8>,
    /// Bounds of the event times, of the receipt where there is none.
    pub min_time: Micros,
    /// See `min_time`.
    pub max_time: Micros,
    /// The event hours touched.
    pub event_hours: Vec<Hour>,
    /// Offsets left out of typed.
    pub poison: Vec<u64>,
}

/// Makes the two objects of a slot out of its records, piece by piece: what it was given is held as it will be stored, and not as
/// it came. Blocks for a microsecond or so a record.
pub struct Encoder {
    stream: Stream,
    lines: Lines,
    raw: zstd::Encoder<'static, Vec<u8>>,
    typed: TypedWriter,
    rows: u64,
    /// Receipt of the first record.
    received_at: Micros,
    min_time: Micros,
    max_time: Micros,
    event_hours: BTreeSet<Hour>,
    poison: Vec<u64>,
    /// What the compressors hold beside their output.
    compressors: usize,
}

impl Encoder {
    /// Objects with nothing in them yet, at the given zstd level.
    pub fn new(stream: Stream, zstd_level: i32) -> Encoder {
        let mut raw = zstd::Encoder::new(Vec::new(), zstd_level).expect("a buffer in memory takes everything");
        for parameter in of_lines(zstd_level) {
            raw.set_parameter(parameter).expect("it is in zstd's bounds");
        }
        Encoder {
            stream,
            lines: Lines::new(),
            raw,
            typed: TypedWriter::new(stream, zstd_level),
            rows: 0,
            received_at: 0,
            min_time: Micros::MAX,
            max_time: Micros::MIN,
            event_hours: BTreeSet::new(),
            poison: Vec::new(),
            compressors: compressors(stream, zstd_level),
        }
    }

    /// Adds `records`, which come next and have an identity each. They become columns together, so they should be some thousands
    /// at most.
    ///
    /// # Panics
    /// If a record that validation let through cannot be read again: see [`super::poison`].
    pub fn add(&mut self, records: &[Record], attempt: &Attempt) {
        if self.rows == 0 {
            self.received_at = records.first().map_or(0, |record| record.received_at);
        }
        self.rows += records.len() as u64;
        let mut builder = columns::Columns::new(self.stream, records.len());
        for record in records {
            if self.lines.text.len() >= PIECE {
                self.lines.flush(&mut self.raw);
            }
            #[cfg_attr(not(feature = "faults"), expect(unused_variables))]
            let begins = self.lines.add(record);
            if record.is_foreign() || attempt.is_poison(record.offset) {
                self.poison.push(record.offset);
                continue;
            }
            #[cfg(feature = "faults")]
            crate::faults::poison(&self.lines.text[begins..]);
            let time = builder.push(record);
            (self.min_time, self.max_time) = (self.min_time.min(time), self.max_time.max(time));
            if Hour::of(time) != Hour::of(self.max_time) || self.event_hours.is_empty() {
                self.event_hours.insert(Hour::of(time));
            }
            self.event_hours.insert(Hour::of(self.max_time));
        }
        self.typed.write(&builder.finish());
        attempt.survived();
    }

    /// What it holds in memory, in bytes, about.
    pub fn memory(&self) -> usize {
        self.compressors + self.lines.text.capacity() + self.raw.get_ref().capacity() + self.typed.memory()
    }

    /// The objects. Something was added.
    pub fn finish(mut self) -> Encoded {
        if self.poison.len() as u64 == self.rows {
            (self.min_time, self.max_time) = (self.received_at, self.received_at);
        }
        self.lines.flush(&mut self.raw);
        Encoded {
            rows: self.rows,
            raw: self.raw.finish().expect("a buffer in memory takes everything"),
            typed: self.typed.finish(),
            min_time: self.min_time,
            max_time: self.max_time,
            event_hours: self.event_hours.into_iter().collect(),
            poison: self.poison,
        }
    }
}

/// What the compressor of the lines is told beside its level. From 4 on it would keep tables of far more places than it looks back
/// to: at 19, 84 MB of them.
fn of_lines(level: i32) -> impl Iterator<Item = CParameter> {
    let tables = [CParameter::HashLog(RAW_WINDOW + 1), CParameter::ChainLog(RAW_WINDOW + 1)];
    [CParameter::WindowLog(RAW_WINDOW)].into_iter().chain(tables.into_iter().filter(move |_| level >= 4))
}

/// What the compressors of an encoder hold beside their output, as zstd says of two like them: 3 MB at level 1, 15 at 19.
fn compressors(stream: Stream, level: i32) -> usize {
    static OF_LEVEL: [OnceLock<(usize, usize)>; 23] = [const { OnceLock::new() }; 23];
    let (lines, page) = *OF_LEVEL[level.clamp(0, 22) as usize].get_or_init(|| {
        let (source, mut out) = (vec![0; PIECE], vec![0; PIECE]);
        let (mut lines, mut page) = (CCtx::create(), CCtx::create());
        for parameter in of_lines(level).chain([CParameter::CompressionLevel(level)]) {
            lines.set_parameter(parameter).expect("it is in zstd's bounds");
        }
        page.set_parameter(CParameter::CompressionLevel(level)).expect("it is in zstd's bounds");
        let mut into = OutBuffer::around(&mut out[..]);
        lines.compress_stream(&mut into, &mut InBuffer::around(&source)).expect("there is room");
        page.compress2(&mut out[..], &source[..8 * PAGE_ROWS]).expect("there is room");
        (lines.sizeof(), page.sizeof())
    });
    lines + columns::schema(stream).fields().len() * page * FULL_COLUMNS / 100
}

struct TypedWriter(ArrowWriter<Vec<u8>>);

impl TypedWriter {
    fn new(stream: Stream, zstd_level: i32) -> TypedWriter {
        let level = ZstdLevel::try_new(zstd_level).unwrap_or_default();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_created_by("tickmint".to_string());
        // Nobody looks for a row by these, and texts are dear to compare.
        for column in ["session", "source", "conditions"] {
            properties = properties.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::None);
        }
        // Nearly every value is another one: a dictionary would be built and thrown away.
        for column in ["seq", "record_offset", "received_at", "event_time", "frame"] {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
        }
        let properties = properties.build();
        let schema = Arc::new(columns::schema(stream));
        TypedWriter(ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("the schema is our own"))
    }

    fn write(&mut self, batch: &RecordBatch) {
        self.0.write(batch).expect("the columns are of the schema");
    }

    fn memory(&self) -> usize {
        self.0.memory_size() + self.0.bytes_written()
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("a buffer in memory takes everything")
    }
}

/// Lines of the raw object on their way to the compressor.
struct Lines {
    text: Vec<u8>,
    /// The session of the line before, as text: it seldom changes.
    session: Option<(SessionId, [u8; Hyphenated::LENGTH])>,
}

impl Lines {
    fn new() -> Lines {
        Lines { text: Vec::with_capacity(PIECE + 1024), session: None }
    }

    fn flush(&mut self, raw: &mut impl Write) {
        raw.write_all(&self.text).expect("a buffer in memory takes everything");
        self.text.clear();
    }

    /// Appends a record as a line; where it begins.
    fn add(&mut self, record: &Record) -> usize {
        let begins = self.text.len();
        let Content::Data { delivery, seq, payload } = &record.content else { return begins };
        let session = match self.session {
            Some((session, text)) if session == delivery.session => text,
            _ => {
                let mut text = [0; Hyphenated::LENGTH];
                delivery.session.0.hyphenated().encode_lower(&mut text);
                self.session.insert((delivery.session, text)).1
            }
        };
        let line = &mut self.text;
        line.extend_from_slice(b"{\"session\":\"");
        line.extend_from_slice(&session);
        line.push(b'"');
        number(line, ",\"frame\":", delivery.frame);
        number(line, ",\"index\":", delivery.index);
        number(line, ",\"seq\":", *seq);
        number(line, ",\"offset\":", record.offset);
        number(line, ",\"received_at\":", record.received_at);
        line.push(b',');
        match payload {
            Payload::Trade { raw, flags } => {
                if flags.0 != 0 {
                    let names: Vec<_> = flags.names().collect();
                    member(line, "flags", &names);
                    line.push(b',');
                }
                text_member(line, raw);
            }
            Payload::Control(control) => {
                let text = serde_json::to_string(control).expect("a control record has only string keys");
                member(line, "raw", &text);
            }
            Payload::Foreign { raw, why } => {
                member(line, "foreign", why);
                line.push(b',');
                text_member(line, raw);
            }
            Payload::Quarantined { raw, reason, detail } => {
                member(line, "reason", reason.name());
                line.push(b',');
                member(line, "detail", detail);
                line.push(b',');
                text_member(line, raw);
            }
        }
        line.extend_from_slice(b"}\n");
        begins
    }
}

fn number(line: &mut Vec<u8>, name: &str, value: impl serde::Serialize) {
    line.extend_from_slice(name.as_bytes());
    serde_json::to_writer(line, &value).expect("a number");
}

/// The server's bytes: as a JSON string where they are text, else in base64.
fn text_member(line: &mut Vec<u8>, raw: &[u8]) {
    match std::str::from_utf8(raw) {
        Ok(text) => {
            line.extend_from_slice(b"\"raw\":");
            string(line, text);
        }
        Err(_) => member(line, "raw_base64", &base64::engine::general_purpose::STANDARD.encode(raw)),
    }
}

/// A JSON string. A trade's text is full of quotes, which a writer of long plain runs is slow on.
fn string(line: &mut Vec<u8>, text: &str) {
    // Without a way out, which would have it look at one byte at a time.
    if text.bytes().fold(false, |found, byte| found | (byte < b' ')) {
        serde_json::to_writer(line, text).expect("a string");
        return;
    }
    let mut at = line.len() + 1;
    line.resize(at + 2 * text.len() + 1, b'"');
    for byte in text.bytes() {
        line[at] = b'\\';
        at += usize::from(byte == b'"' || byte == b'\\');
        line[at] = byte;
        at += 1;
    }
    line[at] = b'"';
    line.truncate(at + 1);
}

fn member<T: serde::Serialize + ?Sized>(line: &mut Vec<u8>, name: &str, value: &T) {
    line.push(b'"');
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    serde_json::to_writer(line, value).expect("a string or a list of them");
}

/// Reads a trade's text again. Validation has let it through, so it can be read.
pub(super) fn reread(raw: &[u8]) -> Trade<'_> {
    match Trade::parse(raw) {
        Ok(trade) => trade,
        Err(error) => panic!("a trade that was valid cannot be read again: {error}: {}", String::from_utf8_lossy(raw)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::bronze::poison::Poison;
    use crate::domain::identity::{Delivery, LogId, Origin};
    use crate::domain::verdict::Flags;

    fn trade(offset: u64) -> Record {
        let minute = 1_680_286_537_580 + 60_000 * offset;
        let raw = Bytes::from(format!(r#"{{"c":["1"],"p":164.06,"s":"S{}","t":{minute},"v":{offset}}}"#, offset % 3));
        let delivery = Delivery { session: SessionId(uuid::Uuid::nil()), frame: offset as u32, index: 0 };
        let content = Content::Data { delivery, seq: offset, payload: Payload::Trade { raw, flags: Flags::default() } };
        Record { offset, origin: Origin::default(), received_at: 7, traceparent: None, content }
    }

    /// The lines, the rows, and what else is told of the objects of these pieces.
    fn encoded(pieces: &[&[Record]]) -> (Vec<u8>, RecordBatch, String) {
        let temp = tempfile::tempdir().unwrap();
        let poison = Poison::load(temp.path().join("notes.json"));
        let mut encoder = Encoder::new(Stream::Trades, 1);
        pieces.iter().for_each(|records| encoder.add(records, &poison.attempt(LogId::generate(), 0, 0)));
        let Encoded { rows, raw, typed, min_time, max_time, event_hours, .. } = encoder.finish();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(typed)).unwrap().with_batch_size(1 << 20).build();
        let mut batches = reader.unwrap();
        let batch = batches.next().unwrap().unwrap();
        assert!(batches.next().is_none());
        (zstd::decode_all(&raw[..]).unwrap(), batch, format!("{rows} {min_time} {max_time} {event_hours:?}"))
    }

    #[test]
    fn no_level_makes_an_encoder_hold_more_than_a_budget_has_room_for() {
        let held = [1, 3, 6, 9, 12, 19].map(|level| Encoder::new(Stream::Trades, level).memory());
        assert!(held.iter().all(|held| (1 << 20..24 << 20).contains(held)), "{held:?}");
    }

    proptest! {
        #[test]
        fn an_object_is_the_same_in_however_many_pieces_its_records_came(sizes in prop::collection::vec(0_usize..200, 1..8)) {
            let records: Vec<_> = (0..=sizes.iter().sum::<usize>() as u64).map(trade).collect();
            let (mut pieces, mut rest) = (Vec::new(), &records[..]);
            for size in sizes {
                let (piece, others) = rest.split_at(size);
                pieces.push(piece);
                rest = others;
            }
            pieces.push(rest);
            prop_assert_eq!(encoded(&pieces), encoded(&[&records]));
        }

        #[test]
        fn a_string_is_written_as_serde_json_writes_it(text in "[\"\\\\a-z\u{0}-\u{20}é]*|.*") {
            let mut line = b"{".to_vec();
            string(&mut line, &text);
            prop_assert_eq!(&line[1..], serde_json::to_vec(&text).unwrap());
        }
    }
}
