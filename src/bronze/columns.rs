//! The typed columns of each stream: what dbt's sources read.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Decimal128Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use base64::Engine;

use super::encode::reread;
use crate::domain::entry::{Content, Control, Payload, Record};
use crate::domain::identity::{Micros, SessionId};
use crate::domain::stream::Stream;
use crate::domain::verdict::Flags;

/// Digits of prices and sizes in all, and behind the point.
const PRECISION: u8 = 18;
const SCALE: i8 = 8;

/// The schema of a stream's typed objects.
pub fn schema(stream: Stream) -> Schema {
    let utc = || Some(Arc::from("UTC"));
    let micros = || DataType::Timestamp(TimeUnit::Microsecond, utc());
    let mut fields = vec![
        Field::new("session", DataType::Utf8, false),
        Field::new("frame", DataType::Int64, false),
        Field::new("idx", DataType::Int32, false),
        Field::new("seq", DataType::Int64, false),
        Field::new("record_offset", DataType::Int64, false),
        Field::new("received_at", micros(), false),
    ];
    match stream {
        Stream::Trades => fields.extend([
            Field::new("source", DataType::Utf8, false),
            Field::new("symbol", DataType::Utf8, false),
            Field::new("price", DataType::Decimal128(PRECISION, SCALE), false),
            Field::new("size", DataType::Decimal128(PRECISION, SCALE), false),
            Field::new("event_time", DataType::Timestamp(TimeUnit::Millisecond, utc()), false),
            Field::new("conditions", DataType::Utf8, true),
            Field::new("time_suspect", DataType::Boolean, false),
            Field::new("price_update", DataType::Boolean, false),
            Field::new("frame_repeat", DataType::Boolean, false),
        ]),
        Stream::Gaps => fields.extend([
            Field::new("kind", DataType::Utf8, false),
            Field::new("shard", DataType::Utf8, false),
            Field::new("symbols", DataType::Utf8, true),
            Field::new("previous_session", DataType::Utf8, true),
            Field::new("reason", DataType::Utf8, false),
            Field::new("last_received_at", micros(), true),
            Field::new("first_received_at", micros(), true),
            Field::new("last_frame", DataType::Int64, true),
            Field::new("frames", DataType::Int64, true),
            Field::new("trades", DataType::Int64, true),
            Field::new("quarantined", DataType::Int64, true),
            Field::new("gaps", DataType::Int64, true),
        ]),
        Stream::Quarantine => fields.extend([
            Field::new("reason", DataType::Utf8, false),
            Field::new("detail", DataType::Utf8, false),
            Field::new("raw", DataType::Utf8, false),
            Field::new("raw_base64", DataType::Boolean, false),
        ]),
    }
    Schema::new(fields)
}

/// Rows of one stream on their way to columns.
pub struct Columns {
    stream: Stream,
    session: StringBuilder,
    /// The session of the row before, as text: it seldom changes.
    last_session: Option<(SessionId, String)>,
    frame: Int64Builder,
    idx: Int32Builder,
    seq: Int64Builder,
    offset: Int64Builder,
    received_at: TimestampMicrosecondBuilder,
    rest: Rest,
}

enum Rest {
    Trades(Box<Trades>),
    Gaps(Box<Gaps>),
    Quarantine(Box<Quarantine>),
}

struct Trades {
    source: StringBuilder,
    symbol: StringBuilder,
    price: Decimal128Builder,
    size: Decimal128Builder,
    event_time: TimestampMillisecondBuilder,
    conditions: StringBuilder,
    flags: [BooleanBuilder; 3],
}

#[derive(Default)]
struct Gaps {
    texts: [StringBuilder; 5],
    times: [TimestampMicrosecondBuilder; 2],
    counts: [Int64Builder; 5],
}

#[derive(Default)]
struct Quarantine {
    texts: [StringBuilder; 3],
    base64: BooleanBuilder,
}

impl Columns {
    /// Room for `rows` rows.
    pub fn new(stream: Stream, rows: usize) -> Columns {
        let rest = match stream {
            Stream::Trades => Rest::Trades(Box::new(Trades {
                source: StringBuilder::with_capacity(rows, rows * 7),
                symbol: StringBuilder::with_capacity(rows, rows * 6),
                price: decimal(rows),
                size: decimal(rows),
                event_time: TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC"),
                conditions: StringBuilder::with_capacity(rows, rows * 4),
                flags: std::array::from_fn(|_| BooleanBuilder::with_capacity(rows)),
            })),
            Stream::Gaps => Rest::Gaps(Box::default()),
            Stream::Quarantine => Rest::Quarantine(Box::default()),
        };
        Columns {
            stream,
            session: StringBuilder::with_capacity(rows, rows * uuid::fmt::Hyphenated::LENGTH),
            last_session: None,
            frame: Int64Builder::with_capacity(rows),
            idx: Int32Builder::with_capacity(rows),
            seq: Int64Builder::with_capacity(rows),
            offset: Int64Builder::with_capacity(rows),
            received_at: TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            rest,
        }
    }

    /// Adds a record; returns its event time, or its receipt where it has none. A tick adds nothing.
    pub fn push(&mut self, record: &Record) -> Micros {
        let Content::Data { delivery, seq, payload } = &record.content else { return record.received_at };
        // Everything that can fail comes before the first column is touched.
        let time = self.rest.push(payload).unwrap_or(record.received_at);
        if self.last_session.as_ref().is_none_or(|(last, _)| *last != delivery.session) {
            self.last_session = Some((delivery.session, delivery.session.to_string()));
        }
        self.session.append_option(self.last_session.as_ref().map(|(_, text)| text));
        self.frame.append_value(delivery.frame.into());
        self.idx.append_value(delivery.index.into());
        self.seq.append_value(*seq as i64);
        self.offset.append_value(record.offset as i64);
        self.received_at.append_value(record.received_at);
        time
    }

    /// The rows as columns of [`schema`].
    pub fn finish(mut self) -> RecordBatch {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.session.finish()),
            Arc::new(self.frame.finish()),
            Arc::new(self.idx.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.received_at.finish()),
        ];
        match self.rest {
            Rest::Trades(mut trades) => {
                columns.extend([
                    Arc::new(trades.source.finish()) as ArrayRef,
                    Arc::new(trades.symbol.finish()),
                    Arc::new(trades.price.finish()),
                    Arc::new(trades.size.finish()),
                    Arc::new(trades.event_time.finish()),
                    Arc::new(trades.conditions.finish()),
                ]);
                columns.extend(trades.flags.iter_mut().map(|flag| Arc::new(flag.finish()) as ArrayRef));
            }
            Rest::Gaps(mut gaps) => {
                columns.extend(gaps.texts.iter_mut().map(|text| Arc::new(text.finish()) as ArrayRef));
                for time in gaps.times {
                    columns.push(Arc::new(time.with_timezone("UTC").finish()));
                }
                columns.extend(gaps.counts.iter_mut().map(|count| Arc::new(count.finish()) as ArrayRef));
            }
            Rest::Quarantine(mut quarantine) => {
                columns.extend(quarantine.texts.iter_mut().map(|text| Arc::new(text.finish()) as ArrayRef));
                columns.push(Arc::new(quarantine.base64.finish()));
            }
        }
        RecordBatch::try_new(Arc::new(schema(self.stream)), columns).expect("the columns are of the schema")
    }
}

impl Rest {
    fn push(&mut self, payload: &Payload) -> Option<Micros> {
        match (self, payload) {
            (Rest::Trades(columns), Payload::Trade { raw, flags }) => Some(columns.push(raw, *flags)),
            (Rest::Gaps(columns), Payload::Control(control)) => {
                columns.push(control);
                None
            }
            (Rest::Quarantine(columns), Payload::Quarantined { raw, reason, detail }) => {
                columns.push(raw, reason.name(), detail);
                None
            }
            (Rest::Trades(_) | Rest::Gaps(_) | Rest::Quarantine(_), _) => {
                unreachable!("a stream's reader returns records of that stream only")
            }
        }
    }
}

impl Trades {
    fn push(&mut self, raw: &[u8], flags: Flags) -> Micros {
        let trade = reread(raw);
        self.source.append_value("finnhub");
        self.symbol.append_value(&trade.symbol);
        self.price.append_value(trade.price.into());
        self.size.append_value(trade.size.into());
        self.event_time.append_value(trade.event_time);
        self.conditions.append_option(trade.conditions.as_deref());
        for (column, flag) in self.flags.iter_mut().zip([Flags::TIME_SUSPECT, Flags::PRICE_UPDATE, Flags::FRAME_REPEAT]) {
            column.append_value(flags.has(flag));
        }
        trade.event_time * 1000
    }
}

impl Gaps {
    fn push(&mut self, control: &Control) {
        match control {
            Control::Gap(gap) => {
                let texts = [
                    Some("gap".to_string()),
                    Some(gap.shard.clone()),
                    Some(gap.symbols.join(",")),
                    Some(gap.previous_session.to_string()),
                    Some(gap.reason.clone()),
                ];
                let counts = [Some(i64::from(gap.last_frame)), None, None, None, None];
                self.row(texts, [gap.last_received_at, gap.first_received_at], counts);
            }
            Control::SessionEnd(end) => {
                let texts = [Some("session_end".to_string()), Some(end.shard.clone()), None, None, Some(end.reason.clone())];
                let record = |stream: Stream| Some(end.records[stream.index()] as i64);
                let counts =
                    [None, Some(i64::from(end.frames)), record(Stream::Trades), record(Stream::Quarantine), record(Stream::Gaps)];
                self.row(texts, [end.last_received_at, None], counts);
            }
        }
    }

    fn row(&mut self, texts: [Option<String>; 5], times: [Option<Micros>; 2], counts: [Option<i64>; 5]) {
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.append_option(text);
        }
        for (column, time) in self.times.iter_mut().zip(times) {
            column.append_option(time);
        }
        for (column, count) in self.counts.iter_mut().zip(counts) {
            column.append_option(count);
        }
    }
}

impl Quarantine {
    fn push(&mut self, raw: &[u8], reason: &str, detail: &str) {
        self.texts[0].append_value(reason);
        self.texts[1].append_value(detail);
        match std::str::from_utf8(raw) {
            Ok(text) => self.texts[2].append_value(text),
            Err(_) => self.texts[2].append_value(base64::engine::general_purpose::STANDARD.encode(raw)),
        }
        self.base64.append_value(std::str::from_utf8(raw).is_err());
    }
}

fn decimal(rows: usize) -> Decimal128Builder {
    Decimal128Builder::with_capacity(rows)
        .with_precision_and_scale(PRECISION, SCALE)
        .expect("18 digits with 8 behind the point fit 128 bits")
}
