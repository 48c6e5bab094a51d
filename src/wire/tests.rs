//! Messages from end to end, and the ways by hand beside `apache-avro` and the schemas.

use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::{Decimal, Schema, from_avro_datum, to_avro_datum};
use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::avro;
use super::decode::{Decoder, Incoming, Received};
use super::encode::{Encoder, Message};
use super::envelope::LENGTH;
use super::resolve::Writer;
use super::{Format, SchemaId, WireError, schemas};
use crate::domain::entry::{Content, Control, Gap, Payload, Record, SessionEnd};
use crate::domain::hour::Hour;
use crate::domain::identity::{Delivery, LogId, Origin, SessionId};
use crate::domain::per_chain::PerChain;
use crate::domain::stream::{PerStream, STREAMS, Stream};
use crate::domain::trade::Trade;
use crate::domain::verdict::{Flags, Reason};

const IDS: PerStream<SchemaId> = [SchemaId(7), SchemaId(8), SchemaId(0x0102_0304)];

fn origin() -> Origin {
    Origin { log: LogId(Uuid::from_u128(5)), place: 9 }
}

fn session() -> impl Strategy<Value = SessionId> + Clone {
    any::<u128>().prop_map(|id| SessionId(Uuid::from_u128(id)))
}

/// A trade as text, in the form of the feed and in others.
fn trade() -> impl Strategy<Value = String> {
    let number = "(0|[1-9][0-9]{0,9})(\\.[0-9]{1,8})?|[0-9]e-0?[0-8]";
    let symbol = "[A-Z]{1,5}|BINANCE:[A-Z]{6}|\\\\u00e9|é[a-z ]{1,3}";
    let codes = "null|\\[\\]|\\[\"[0-9]{1,2}\"\\]|\\[\"[0-9]{1,2}\",\"[0-9]\"\\]|\\[ \"é\" \\]";
    (codes, number, symbol, 0..253_402_300_800_000i64, number, 0..3).prop_map(|(codes, price, symbol, time, size, form)| {
        match form {
            0 => format!(r#"{{"c":{codes},"p":{price},"s":"{symbol}","t":{time},"v":{size}}}"#),
            1 => format!(r#"{{"s":"{symbol}","p":{price},"v":{size},"t":{time}}}"#),
            _ => format!(r#" {{"x":{{"s":[]}}, "v": {size},"c":{codes},"t":{time},"s" :"{symbol}","p":{price}}}"#),
        }
    })
}

fn control() -> impl Strategy<Value = Control> {
    let micros = || prop::option::of(any::<i64>());
    let gap = ((".{0,6}", prop::collection::vec(".{0,6}", 0..3), session()), (any::<u32>(), micros(), micros(), ".{0,9}"))
        .prop_map(|((shard, symbols, previous_session), (last_frame, last_received_at, first_received_at, reason))| {
            let opened = first_received_at.map(|_| origin());
            Control::Gap(Gap {
                shard,
                symbols,
                previous_session,
                last_frame,
                last_received_at,
                first_received_at,
                reason,
                opened,
            })
        });
    let end = (".{0,6}", any::<u32>(), [0..=i64::MAX as u64, 0..=9, 0..=300], micros(), ".{0,9}").prop_map(
        |(shard, frames, records, last_received_at, reason)| {
            let mut partitions = PerChain::of(3);
            partitions[Stream::Quarantine] = records[2];
            let partitions = (frames % 2 == 0).then_some(partitions);
            Control::SessionEnd(SessionEnd {
                shard,
                frames,
                records,
                partitions,
                last_received_at,
                reason,
                opened: Some(origin()),
            })
        },
    );
    prop_oneof![gap, end]
}

fn quarantined() -> impl Strategy<Value = Payload> {
    let raw = prop_oneof![".{0,30}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..30)];
    (raw, 0..Reason::ALL.len(), ".{0,20}").prop_map(|(raw, reason, detail)| Payload::Quarantined {
        raw: raw.into(),
        reason: Reason::ALL[reason],
        detail,
    })
}

fn payload() -> impl Strategy<Value = (Stream, Payload)> {
    prop_oneof![
        (trade(), 0u8..8).prop_map(|(raw, flags)| (Stream::Trades, Payload::Trade { raw: raw.into(), flags: Flags(flags) })),
        control().prop_map(|control| (Stream::Gaps, Payload::Control(Box::new(control)))),
        quarantined().prop_map(|payload| (Stream::Quarantine, payload)),
    ]
}

fn data() -> impl Strategy<Value = (Stream, Record)> {
    let who = (session(), any::<u32>(), any::<u16>(), 0..=i64::MAX as u64);
    (payload(), who, any::<i64>(), prop::option::of("00-[0-9a-f]{32}-[0-9a-f]{16}-01")).prop_map(
        |((stream, payload), (session, frame, index, seq), received_at, traceparent)| {
            let content = Content::Data { delivery: Delivery { session, frame, index }, seq, payload };
            (stream, Record { offset: 0, origin: origin(), received_at, traceparent: traceparent.map(Arc::from), content })
        },
    )
}

fn record() -> impl Strategy<Value = (Stream, Record)> {
    let told = prop_oneof![
        (0..500_000i64).prop_map(|hour| (Hour(hour).begins(), Content::Tick(Hour(hour)))),
        (any::<i64>(), session()).prop_map(|(at, session)| (at, Content::Opened(session))),
        (any::<i64>(), session()).prop_map(|(at, session)| (at, Content::Ended(session))),
        (any::<i64>(), 9..u64::MAX - 1).prop_map(|(at, last)| (at, Content::Lost { last })),
    ];
    let told = (0..STREAMS, told).prop_map(|(stream, (received_at, content))| {
        (Stream::ALL[stream], Record { offset: 0, origin: origin(), received_at, traceparent: None, content })
    });
    prop_oneof![4 => data(), 1 => told]
}

fn encoders() -> [Encoder; 4] {
    [(Format::Json, None), (Format::Json, Some(IDS)), (Format::Avro, None), (Format::Avro, Some(IDS))]
        .map(|(format, ids)| Encoder::new(format, ids))
}

fn incoming<'a>(message: &Message<'a>) -> Incoming<'a> {
    Incoming {
        header: Some(message.header),
        traceparent: message.traceparent.map(str::as_bytes),
        value: message.value.map(Bytes::copy_from_slice),
    }
}

/// A bare Avro value.
fn avro_of(stream: Stream, record: &Record) -> Vec<u8> {
    Encoder::new(Format::Avro, None).encode(stream, b"k", record).unwrap().value.unwrap().to_vec()
}

fn avro_schema(stream: Stream) -> Schema {
    Schema::parse_str(schemas::schema(stream, Format::Avro)).unwrap()
}

fn nullable(value: Option<Value>) -> Value {
    match value {
        None => Value::Union(0, Value::Null.into()),
        Some(value) => Value::Union(1, value.into()),
    }
}

/// The record as the schema describes it, made without our writer.
fn as_described(record: &Record) -> Value {
    let Content::Data { delivery, seq, payload } = &record.content else { panic!("{record:?}") };
    let text = |text: &str| Value::String(text.into());
    let long = |number: u64| nullable(Some(Value::Long(number as i64)));
    let mut fields = vec![
        ("session", Value::Uuid(delivery.session.0)),
        ("frame", Value::Long(delivery.frame.into())),
        ("idx", Value::Int(delivery.index.into())),
        ("seq", Value::Long(*seq as i64)),
        ("received_at", Value::TimestampMicros(record.received_at)),
    ];
    match payload {
        Payload::Trade { raw, flags } => {
            let trade = Trade::parse(raw).unwrap();
            // All eight bytes, of which the first are needless.
            let decimal = |units: i64| Value::Decimal(Decimal::from(units.to_be_bytes()));
            fields.extend([
                ("source", text("finnhub")),
                ("symbol", text(&trade.symbol)),
                ("price", decimal(trade.price)),
                ("size", decimal(trade.size)),
                ("event_time", Value::TimestampMillis(trade.event_time)),
                ("conditions", nullable(trade.conditions.as_deref().map(text))),
                ("time_suspect", Value::Boolean(flags.has(Flags::TIME_SUSPECT))),
                ("price_update", Value::Boolean(flags.has(Flags::PRICE_UPDATE))),
                ("frame_repeat", Value::Boolean(flags.has(Flags::FRAME_REPEAT))),
                ("raw", text(std::str::from_utf8(raw).unwrap())),
            ]);
        }
        Payload::Control(control) => {
            let micros = |at: Option<i64>| nullable(at.map(Value::TimestampMicros));
            let raw = ("raw", text(&serde_json::to_string(control).unwrap()));
            fields.extend(match &**control {
                Control::Gap(gap) => [
                    ("kind", text("gap")),
                    ("shard", text(&gap.shard)),
                    ("symbols", nullable(Some(text(&gap.symbols.join(","))))),
                    ("previous_session", nullable(Some(Value::Uuid(gap.previous_session.0)))),
                    ("reason", text(&gap.reason)),
                    ("last_received_at", micros(gap.last_received_at)),
                    ("first_received_at", micros(gap.first_received_at)),
                    ("last_frame", long(gap.last_frame.into())),
                    ("frames", nullable(None)),
                    ("trades", nullable(None)),
                    ("quarantined", nullable(None)),
                    ("gaps", nullable(None)),
                    raw,
                ],
                Control::SessionEnd(end) => [
                    ("kind", text("session_end")),
                    ("shard", text(&end.shard)),
                    ("symbols", nullable(None)),
                    ("previous_session", nullable(None)),
                    ("reason", text(&end.reason)),
                    ("last_received_at", micros(end.last_received_at)),
                    ("first_received_at", nullable(None)),
                    ("last_frame", nullable(None)),
                    ("frames", long(end.frames.into())),
                    ("trades", long(end.records[Stream::Trades.index()])),
                    ("quarantined", long(end.records[Stream::Quarantine.index()])),
                    ("gaps", long(end.records[Stream::Gaps.index()])),
                    raw,
                ],
            });
        }
        Payload::Foreign { .. } => panic!("nobody writes one"),
        Payload::Quarantined { raw, reason, detail } => {
            fields.extend([("reason", text(reason.name())), ("detail", text(detail)), ("raw", Value::Bytes(raw.to_vec()))]);
        }
    }
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

fn payload_of(record: Record) -> Payload {
    match record.content {
        Content::Data { payload, .. } => payload,
        other => panic!("{other:?}"),
    }
}

fn flags_of(payload: &Payload) -> Flags {
    if let Payload::Trade { flags, .. } = payload { *flags } else { Flags::default() }
}

proptest! {
    #[test]
    fn a_record_reads_back_from_its_message((stream, record) in record()) {
        for mut encoder in encoders() {
            let message = encoder.encode(stream, b"shard-1", &record).unwrap();
            let received = Decoder::new(stream).decode(incoming(&message)).unwrap();
            let Record { received_at, traceparent, content, .. } = record.clone();
            prop_assert_eq!(message.value.is_some(), matches!(content, Content::Data { .. }));
            let key = match &content {
                Content::Data { payload: Payload::Trade { raw, .. }, .. } => Some(Trade::parse(raw).unwrap().symbol.into_owned()),
                Content::Data { .. } => Some("shard-1".to_string()),
                Content::Tick(_) | Content::Opened(_) | Content::Ended(_) | Content::Lost { .. } => None,
            };
            prop_assert_eq!(message.key, key.as_deref().map(str::as_bytes));
            prop_assert_eq!(received, Received { origin: origin(), received_at, traceparent, content });
        }
    }

    #[test]
    fn an_encoder_forgets_the_records_before(records in prop::collection::vec(record(), 1..6)) {
        for (mut used, n) in encoders().into_iter().zip(0..) {
            for (stream, record) in &records {
                let mut fresh = encoders().into_iter().nth(n).unwrap();
                let message = fresh.encode(*stream, b"k", record).unwrap();
                prop_assert_eq!(used.encode(*stream, b"k", record).unwrap(), message);
            }
        }
    }

    #[test]
    fn avro_by_hand_is_what_the_library_reads((stream, record) in data()) {
        let value = avro_of(stream, &record);
        let mut rest = &value[..];
        let read = from_avro_datum(&avro_schema(stream), &mut rest, None).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read, as_described(&record));
    }

    #[test]
    fn avro_of_the_library_is_read_by_hand((stream, record) in data()) {
        let value = Bytes::from(to_avro_datum(&avro_schema(stream), as_described(&record)).unwrap());
        let payload = payload_of(record);
        prop_assert_eq!(avro::read(stream, value, flags_of(&payload)).unwrap(), payload);
    }

    #[test]
    fn json_is_as_its_schema_says((stream, record) in data()) {
        let mut encoder = Encoder::new(Format::Json, None);
        let value = encoder.encode(stream, b"k", &record).unwrap().value.unwrap();
        let value: serde_json::Value = serde_json::from_slice(value).unwrap();
        let schema = jsonschema::validator_for(&serde_json::from_str(schemas::schema(stream, Format::Json)).unwrap()).unwrap();
        let faults: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        prop_assert!(faults.is_empty(), "{value}: {faults:?}");
        prop_assert!(!schema.is_valid(&serde_json::json!({ "kind": "gap" })), "the schema refuses nothing");
    }

    /// The two ways may find fault with different things, but what both read is the same.
    #[test]
    fn mangled_avro_never_panics_and_is_never_read_in_two_ways(
        (stream, record) in data(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3), cut: bool,
    ) {
        let mut value = avro_of(stream, &record);
        for (at, byte) in edits {
            let at = at.index(value.len());
            value[at] = byte;
            if cut {
                value.truncate(at);
                break;
            }
        }
        let ours = avro::read(stream, value.clone().into(), Flags::default());
        let theirs = Writer::new(stream, "ours", schemas::schema(stream, Format::Avro)).unwrap().read(stream, &value, Flags::default());
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn no_message_makes_it_panic(
        (stream, record) in record(), at in any::<prop::sample::Index>(), byte: u8, other in prop::collection::vec(any::<u8>(), 0..90),
    ) {
        for mut encoder in encoders() {
            let message = encoder.encode(stream, b"k", &record).unwrap();
            let whole = incoming(&message);
            let mangled = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            };
            let header = mangled(message.header);
            let value = message.value.map(|value| Bytes::from(mangled(value)));
            let decoder = Decoder::new(stream);
            for message in [
                Incoming { header: Some(&header), ..whole.clone() },
                Incoming { value: value.clone(), traceparent: Some(&other), ..whole.clone() },
                Incoming { value: None, ..whole.clone() },
                Incoming { value: Some(other.clone().into()), ..whole.clone() },
                Incoming { header: Some(&other), value, ..whole },
            ] {
                drop(decoder.decode(message).map_err(|error| error.to_string()));
            }
        }
    }
}

fn trade_record() -> Record {
    let delivery = Delivery { session: SessionId(Uuid::from_u128(3)), frame: 1, index: 2 };
    let raw = r#"{"c":["1"],"p":164.06,"s":"AAPL","t":1680286537580,"v":5}"#.into();
    let content = Content::Data { delivery, seq: 4, payload: Payload::Trade { raw, flags: Flags::PRICE_UPDATE } };
    Record { offset: 0, origin: origin(), received_at: 1_680_286_537_580_000, traceparent: None, content }
}

#[test]
fn the_value_of_a_trade_is_its_text_and_is_not_copied() {
    let record = trade_record();
    let Content::Data { payload: Payload::Trade { raw, .. }, .. } = &record.content else { panic!() };
    let mut bare = Encoder::new(Format::Json, None);
    let message = bare.encode(Stream::Trades, b"", &record).unwrap();
    assert_eq!(message.value.unwrap().as_ptr(), raw.as_ptr());
    assert_eq!((message.key, message.header.len()), (Some(&b"AAPL"[..]), LENGTH));
    for mut encoder in encoders() {
        let message = incoming(&encoder.encode(Stream::Trades, b"", &record).unwrap());
        let value = message.value.clone().unwrap();
        let received = Decoder::new(Stream::Trades).decode(message).unwrap();
        let Content::Data { payload: Payload::Trade { raw: read, .. }, .. } = received.content else { panic!() };
        assert_eq!(read, raw);
        assert!(value.as_ptr_range().contains(&read.as_ptr()));
    }
}

#[test]
fn with_a_registry_the_value_begins_with_the_schemas_id() {
    let record = trade_record();
    for format in [Format::Json, Format::Avro] {
        let mut bare = Encoder::new(format, None);
        let mut framed = Encoder::new(format, Some(IDS));
        let value = framed.encode(Stream::Trades, b"", &record).unwrap().value.unwrap();
        assert_eq!(value[..5], [0, 0, 0, 0, 7]);
        assert_eq!(Some(&value[5..]), bare.encode(Stream::Trades, b"", &record).unwrap().value);
    }
}

#[test]
fn what_is_not_ours_is_refused_with_what_to_do() {
    let record = trade_record();
    let decoder = Decoder::new(Stream::Trades);
    assert_eq!(decoder.decode(Incoming::default()), Err(WireError::NoHeader));
    let mut encoder = Encoder::new(Format::Avro, Some(IDS));
    let message = incoming(&encoder.encode(Stream::Trades, b"", &record).unwrap());
    let other = Decoder::new(Stream::Gaps).decode(message.clone()).unwrap_err();
    assert_eq!(other, WireError::OtherStream { found: Stream::Trades, wanted: Stream::Gaps });
    for (value, why) in [
        (None, "none where the header promises one"),
        (Some("\0\0"), "without its schema id"),
        (Some("\u{1}\0\0\0\0"), "without its schema id"),
    ] {
        let text = decoder.decode(Incoming { value: value.map(Bytes::from), ..message.clone() }).unwrap_err().to_string();
        assert!(text.starts_with("malformed value: ") && text.contains(why), "{text}");
    }
    let mut encoder = Encoder::new(Format::Json, None);
    let misplaced = encoder.encode(Stream::Gaps, b"", &record).unwrap_err();
    assert_eq!(misplaced, WireError::OtherStream { found: Stream::Trades, wanted: Stream::Gaps });
    // Where nobody looks at a member, its bytes may be anything; a string of Avro may not.
    let mut not_text = record.clone();
    *not_text.raw_mut().unwrap() = Bytes::from_static(b"{\"x\":\"\xff\",\"s\":\"A\",\"p\":1,\"t\":1,\"v\":1}");
    let error = Encoder::new(Format::Avro, None).encode(Stream::Trades, b"", &not_text).unwrap_err();
    assert!(matches!(&error, WireError::NoTrade(why) if why.contains("utf-8")), "{error}");
    let mut broken = record;
    *broken.raw_mut().unwrap() = "{}".into();
    for mut encoder in encoders() {
        let error = encoder.encode(Stream::Trades, b"", &broken).unwrap_err();
        assert!(matches!(&error, WireError::NoTrade(why) if why.contains("\"s\" is a required property")), "{error}");
    }
}

#[test]
fn a_trace_context_that_makes_no_sense_is_none() {
    let record = trade_record();
    let mut encoder = Encoder::new(Format::Json, None);
    let message = incoming(&encoder.encode(Stream::Trades, b"", &record).unwrap());
    for (header, kept) in [(&[b'0'; 55][..], true), (&[b'0'; 256], false), (&[0xff], false)] {
        let received = Decoder::new(Stream::Trades).decode(Incoming { traceparent: Some(header), ..message.clone() }).unwrap();
        assert_eq!(received.traceparent.is_some(), kept, "{header:?}");
    }
}

mod versions;
