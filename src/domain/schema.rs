//! The feed's schema, `schemas/frame.schema.json`, as the explanation of what validation refuses.
//!
//! The hot path is code of its own (`scan`, `trade`, `frame`); the schema is asked only where that
//! has refused, for the words. A property test here keeps the two in agreement. What the schema
//! cannot see (keys given twice, digits that a binary float does not hold) it does not explain.

use std::sync::LazyLock;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Value, json};

use super::verdict::Reason;

/// Longer explanations are cut: they quote what was sent.
const LONGEST: usize = 200;

static FRAME: LazyLock<Validator> = LazyLock::new(|| validator(&source()));

static TRADE: LazyLock<Validator> = LazyLock::new(|| {
    let mut source = source();
    let trade = source["$defs"]["trade"].take();
    validator(&json!({ "$schema": source["$schema"], "allOf": [trade] }))
});

fn source() -> Value {
    serde_json::from_str(include_str!("../../schemas/frame.schema.json")).expect("the file is JSON: a test reads it")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::validator_for(schema).expect("the file is a schema: a test reads it")
}

/// What the schema finds wrong with a message.
pub(super) fn fault_of_frame(text: &[u8]) -> Option<String> {
    explain(&FRAME, text, |_| true)
}

/// What the schema finds wrong with an element that was refused for `reason`.
pub(super) fn fault_of_trade(text: &[u8], reason: Reason) -> Option<String> {
    explain(&TRADE, text, |field| match reason {
        Reason::BadPrice => field == "p",
        Reason::BadSize => field == "v",
        Reason::BadTime => field == "t",
        Reason::WrongShape => matches!(field, "" | "s" | "c"),
        Reason::NotJson | Reason::Binary | Reason::Overlong | Reason::UnknownSymbol | Reason::ServerError => false,
    })
}

/// The first fault of a field that is asked for, in words: `p: "1" is not of type "number"`.
fn explain(schema: &Validator, text: &[u8], asked_for: impl Fn(&str) -> bool) -> Option<String> {
    let value: Value = serde_json::from_slice(text).ok()?;
    schema.iter_errors(&value).find_map(|error| {
        let path = error.instance_path().as_str().trim_start_matches('/');
        let field = match error.kind() {
            ValidationErrorKind::Required { property } => property.as_str().unwrap_or_default(),
            _ => path.split('/').next().unwrap_or_default(),
        };
        let words = if path.is_empty() { error.to_string() } else { format!("{path}: {error}") };
        asked_for(field).then(|| words[..words.floor_char_boundary(LONGEST)].to_string())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::bronze::encode::Encoder;
    use crate::bronze::poison::Poison;
    use crate::domain::entry::{Content, Control, Gap, Payload, Record, SessionEnd};
    use crate::domain::frame::{Kind, Rules, Watchlist, judge};
    use crate::domain::identity::{Delivery, LogId, Origin, SessionId};
    use crate::domain::per_chain::PerChain;
    use crate::domain::stream::Stream;
    use crate::domain::verdict::{Flags, RawFrame, Verdict};

    /// The reasons that are not of the schema's making.
    fn is_of_the_schema(verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Trade(_) => false,
            Verdict::Quarantined { reason, .. } => !matches!(reason, Reason::UnknownSymbol | Reason::ServerError),
        }
    }

    /// A JSON text for a member, and numbers that a binary float holds: of others the schema says
    /// something else.
    fn value() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,6})?([eE]-?[0-2])?|-0|1e10|9999999999|-1e-7|2e15";
        prop_oneof![
            4 => number,
            1 => "(1[0-9]{12}|1[0-9]{14}|253402300799999|253402300800000)(\\.0)?",
            3 => "\"(AAPL|trade|ping|error|news|\\\\u0041|)\"",
            2 => "\\[((\"1\"|\"24\"|7|null)(,(\"1\"|7))?)?\\]",
            1 => "null|true|\\{\\}|\\{\"s\":1\\}",
        ]
    }

    fn members(keys: &'static [&'static str], good: &'static [&'static str]) -> impl Strategy<Value = String> {
        let member = |key: &'static str, good: &'static str| {
            let value = prop_oneof![12 => Just(Some(good.to_string())), 2 => value().prop_map(Some), 1 => Just(None)];
            value.prop_map(move |value| value.map(|value| format!("{key:?}:{value}")))
        };
        let all: Vec<_> = keys.iter().zip(good).map(|(key, good)| member(key, good)).collect();
        all.prop_shuffle().prop_map(|members| format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(",")))
    }

    fn element() -> impl Strategy<Value = String> {
        let good = &["[\"1\"]", "164.0601", "\"AAPL\"", "1680286537580", "5", "[]"];
        prop_oneof![9 => members(&["c", "p", "s", "t", "v", "x"], good), 1 => value()]
    }

    fn frame() -> impl Strategy<Value = String> {
        let data = prop::collection::vec(element(), 0..4).prop_map(|elements| format!("[{}]", elements.join(",")));
        let data = prop_oneof![9 => data.prop_map(Some), 1 => value().prop_map(Some), 1 => Just(None)];
        let kind = prop_oneof![6 => Just("\"trade\"".to_string()), 1 => "\"(ping|error|news|tr\\\\u0061de)\"", 1 => value()];
        let kind = prop_oneof![12 => kind.prop_map(Some), 1 => Just(None)];
        (data, kind, any::<bool>(), 0..20).prop_map(|(data, kind, kind_first, whole)| {
            if whole == 0 {
                return kind.unwrap_or_default();
            }
            let mut members = vec![data.map(|data| format!("\"data\":{data}")), kind.map(|kind| format!("\"type\":{kind}"))];
            if kind_first {
                members.reverse();
            }
            format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_schema_and_the_hot_path_accept_the_same_frames(payload in frame()) {
            let watch = Arc::new(Watchlist::new(&["AAPL".to_string()], 0));
            let rules = Rules { watch, max_age: None, max_ahead: None, max_frame_bytes: 10_000 };
            let raw = RawFrame { number: 1, received_at: 0, payload: payload.clone().into(), binary: false };
            let judgement = judge(&raw, None, &rules);
            let refused = judgement.elements.iter().any(|judged| is_of_the_schema(&judged.verdict));
            let value: Option<Value> = serde_json::from_str(&payload).ok();
            prop_assert_eq!(value.is_some_and(|value| FRAME.is_valid(&value)), !refused, "{:?}", judgement);
            if judgement.kind == Kind::Trades {
                for judged in &judgement.elements {
                    let text = &payload[judged.range.start as usize..judged.range.end as usize];
                    let value = serde_json::from_str(text).unwrap();
                    prop_assert_eq!(TRADE.is_valid(&value), !is_of_the_schema(&judged.verdict), "{}: {:?}", text, judged);
                }
            }
        }
    }

    #[test]
    fn what_the_schema_cannot_see_is_refused_all_the_same() {
        for (text, accepts) in [
            (r#"{"s":"A","p":0.123456789,"t":0,"v":1}"#, true),
            (r#"{"s":"A","p":1,"p":1,"t":0,"v":1}"#, true),
            (r#"{"s":"A","p":1e-400,"t":0,"v":1}"#, true),
            (r#"{"s":"A","p":9999999999.99999999,"t":0,"v":1}"#, false),
        ] {
            assert_eq!(TRADE.is_valid(&serde_json::from_str(text).unwrap()), accepts, "{text}");
            assert_eq!(crate::domain::trade::Trade::parse(text.as_bytes()).is_ok(), !accepts, "{text}");
        }
    }

    fn schema_of_lines(stream: Stream) -> Validator {
        let path = format!("{}/schemas/raw.{stream}.schema.json", env!("CARGO_MANIFEST_DIR"));
        validator(&serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }

    fn lines(stream: Stream, payloads: Vec<Payload>) -> Vec<Value> {
        let records = payloads.into_iter().enumerate().map(|(n, payload)| {
            let delivery = Delivery { session: SessionId::generate(), frame: n as u32, index: 3 };
            Record {
                offset: 40 + n as u64,
                origin: Origin::default(),
                received_at: 7,
                traceparent: None,
                content: Content::Data { delivery, seq: n as u64, payload },
            }
        });
        let temp = tempfile::tempdir().unwrap();
        let attempt = Poison::load(temp.path().join("poison")).attempt(LogId::generate(), 40, 99);
        let mut encoder = Encoder::new(stream, 1);
        encoder.add(&records.collect::<Vec<_>>(), &attempt);
        let raw = zstd::decode_all(&encoder.finish().raw[..]).unwrap();
        raw.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn assert_all_valid(stream: Stream, lines: &[Value]) {
        let schema = schema_of_lines(stream);
        for line in lines {
            let faults: Vec<_> = schema.iter_errors(line).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{line}: {faults:?}");
            assert!(!schema.is_valid(&json!({ "session": line["session"] })), "the schema refuses nothing");
        }
    }

    #[test]
    fn the_lines_of_bronze_are_as_their_schemas_say() {
        let raw: bytes::Bytes = r#"{"c":null,"p":1,"s":"A","t":0,"v":0}"#.into();
        let odd = Flags::TIME_SUSPECT.with(Flags::PRICE_UPDATE).with(Flags::FRAME_REPEAT);
        let trades = [Flags::default(), odd].map(|flags| Payload::Trade { raw: raw.clone(), flags });
        assert_all_valid(Stream::Trades, &lines(Stream::Trades, trades.into()));

        let texts = [bytes::Bytes::from("{"), bytes::Bytes::from_static(&[0xff, 0])];
        let quarantined = Reason::ALL.iter().flat_map(|reason| texts.iter().map(|raw| (*reason, raw.clone())));
        let quarantined = quarantined.map(|(reason, raw)| Payload::Quarantined { raw, reason, detail: "d".into() });
        assert_all_valid(Stream::Quarantine, &lines(Stream::Quarantine, quarantined.collect()));

        let gap = |first_received_at| Gap {
            shard: "shard-1".into(),
            symbols: vec!["A".into()],
            previous_session: SessionId::generate(),
            last_frame: 7,
            last_received_at: None,
            first_received_at,
            reason: "stalled".into(),
            opened: first_received_at.map(|_| Origin { log: LogId::generate(), place: 4 }),
        };
        let mut partitions = PerChain::of(4);
        partitions[Stream::Trades] = 1;
        let end = |partitions: Option<PerChain<u64>>| SessionEnd {
            shard: "s".into(),
            frames: 9,
            records: [1, 2, 3],
            opened: partitions.is_some().then(Origin::default),
            partitions,
            last_received_at: Some(1),
            reason: "shutdown".into(),
        };
        let ends = [None, Some(partitions)].map(|partitions| Control::SessionEnd(end(partitions)));
        let controls = [None, Some(5)].map(|first| Control::Gap(gap(first))).into_iter().chain(ends);
        let lines = lines(Stream::Gaps, controls.map(|control| Payload::Control(Box::new(control))).collect());
        assert_all_valid(Stream::Gaps, &lines);
        let control = validator(&serde_json::from_str(include_str!("../../schemas/control.schema.json")).unwrap());
        for line in lines {
            let record: Value = serde_json::from_str(line["raw"].as_str().unwrap()).unwrap();
            assert!(control.is_valid(&record), "{record}");
        }
    }

    #[test]
    fn the_avro_records_have_the_typed_columns() {
        for (stream, text, bronze_has, kafka_has) in [
            (Stream::Trades, include_str!("../../schemas/trade.avsc"), "record_offset", Some("raw")),
            (Stream::Gaps, include_str!("../../schemas/gap.avsc"), "record_offset", Some("raw")),
            // Avro has bytes, so it need not tell text from base64.
            (Stream::Quarantine, include_str!("../../schemas/quarantine.avsc"), "record_offset,raw_base64", None),
        ] {
            let avro: Value = serde_json::from_str(text).unwrap();
            let names: Vec<_> = avro["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
            let typed = crate::bronze::columns::schema(stream);
            // Bronze knows the place in the log, Kafka the text.
            let columns = typed.fields().iter().map(|field| field.name().as_str());
            let columns = columns.filter(|name| bronze_has.split(',').all(|only| only != *name));
            assert_eq!(names, columns.chain(kafka_has).collect::<Vec<_>>());
        }
    }
}
