//! Records of other versions: what may change, and what may not.

use apache_avro::schema_compatibility::SchemaCompatibility;
use serde_json::{Value as Json, json};

use super::*;

/// A copy of a stream's Avro schema, changed.
fn changed(stream: Stream, change: impl FnOnce(&mut Vec<Json>)) -> String {
    let mut schema: Json = serde_json::from_str(schemas::schema(stream, Format::Avro)).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    schema.to_string()
}

/// A newer version: two more fields, one of them before all others and one behind.
fn newer(stream: Stream) -> String {
    changed(stream, |fields| {
        fields.insert(0, json!({ "name": "venue", "type": "string", "default": "?" }));
        fields.push(json!({ "name": "legs", "type": ["null", { "type": "array", "items": "double" }], "default": null }));
    })
}

/// An older version, which had no `received_at` and no flags.
fn older(stream: Stream) -> String {
    let since = ["received_at", "time_suspect", "price_update", "frame_repeat", "symbols"];
    changed(stream, |fields| fields.retain(|field| since.iter().all(|name| field["name"] != *name)))
}

/// The record as that version wrote it.
fn written(schema: &str, record: &Record) -> Vec<u8> {
    let Value::Record(mut fields) = as_described(record) else { panic!() };
    let known: Json = serde_json::from_str(schema).unwrap();
    fields.retain(|(name, _)| known["fields"].as_array().unwrap().iter().any(|field| field["name"] == *name));
    if schema.contains("venue") {
        fields.insert(0, ("venue".into(), Value::String("X".into())));
        let legs = Value::Array(vec![Value::Double(0.5), Value::Double(-1.0)]);
        fields.push(("legs".into(), nullable(Some(legs))));
    }
    to_avro_datum(&Schema::parse_str(schema).unwrap(), Value::Record(fields)).unwrap()
}

/// A message of ours, with the number of another Avro schema and that one's value.
fn foreign<'a>(
    header: &'a mut [u8; LENGTH],
    stream: Stream,
    record: &Record,
    number: u8,
    value: Vec<u8>,
    id: Option<u32>,
) -> Incoming<'a> {
    let mut encoder = Encoder::new(Format::Avro, id.map(|id| [SchemaId(id); STREAMS]));
    let message = encoder.encode(stream, b"", record).unwrap();
    header.copy_from_slice(message.header);
    header[4] = number;
    let framing = id.map(|id| [&[0], &id.to_be_bytes()[..]].concat()).unwrap_or_default();
    Incoming { header: Some(header), traceparent: None, value: Some([framing, value].concat().into()) }
}

fn payload_received(received: Result<Received, WireError>) -> Payload {
    match received {
        Ok(Received { content: Content::Data { payload, .. }, .. }) => payload,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_newer_version_wrote_is_read_once_its_schema_is_known((stream, record) in data()) {
        let (mut header, schema) = ([0; LENGTH], newer(stream));
        let message = foreign(&mut header, stream, &record, 2, written(&schema, &record), Some(900));
        let mut decoder = Decoder::new(stream);
        let wanted = decoder.decode(message.clone()).unwrap_err();
        prop_assert_eq!(wanted.wanted_schema(), Some(SchemaId(900)));
        decoder.learn(SchemaId(900), &schema).unwrap();
        prop_assert_eq!(payload_received(decoder.decode(message)), payload_of(record));
    }

    #[test]
    fn what_an_older_version_wrote_is_read_without_a_registry((stream, record) in data()) {
        let (mut header, schema) = ([0; LENGTH], older(stream));
        let message = foreign(&mut header, stream, &record, 200, written(&schema, &record), None);
        let decoder = Decoder::with_older(stream, [(200, &*schema)]);
        prop_assert_eq!(payload_received(decoder.decode(message)), payload_of(record));
    }

    /// A reader with a newer schema, such as somebody else's, fills in the defaults.
    #[test]
    fn what_this_version_writes_is_read_with_a_newer_schema((stream, record) in data()) {
        let value = avro_of(stream, &record);
        let newer = Schema::parse_str(&newer(stream)).unwrap();
        let read = from_avro_datum(&avro_schema(stream), &mut &value[..], None).unwrap();
        let Value::Record(fields) = read else { panic!() };
        // The library holds no decimal compatible with any: those it need not resolve.
        let Schema::Record(mut target) = newer else { panic!() };
        target.fields.retain(|field| !matches!(field.schema, Schema::Decimal(_)));
        let Value::Record(resolved) = Value::Record(fields).resolve(&Schema::Record(target)).unwrap() else { panic!() };
        prop_assert!(resolved.contains(&("venue".into(), Value::String("?".into()))), "{resolved:?}");
        prop_assert!(resolved.contains(&("legs".into(), nullable(None))), "{resolved:?}");
    }

    #[test]
    fn mangled_values_of_another_version_never_make_it_panic(
        (stream, record) in data(), at in any::<prop::sample::Index>(), byte: u8, cut: bool,
    ) {
        let (mut header, schema) = ([0; LENGTH], newer(stream));
        let mut value = written(&schema, &record);
        let at = at.index(value.len());
        value[at] = byte;
        value.truncate(if cut { at } else { value.len() });
        let mut decoder = Decoder::new(stream);
        decoder.learn(SchemaId(1), &schema).unwrap();
        drop(decoder.decode(foreign(&mut header, stream, &record, 2, value, Some(1))));
    }

    #[test]
    fn json_of_another_version_is_read((stream, record) in data()) {
        let mut encoder = Encoder::new(Format::Json, None);
        let message = encoder.encode(stream, b"", &record).unwrap();
        let mut value: serde_json::Map<String, Json> = serde_json::from_slice(message.value.unwrap()).unwrap();
        value.insert("new".into(), json!({ "a": [1] }));
        let schema: Json = serde_json::from_str(schemas::schema(stream, Format::Json)).unwrap();
        prop_assert!(jsonschema::is_valid(&schema, &value.clone().into()), "a reader of this version takes it");
        let text = Bytes::from(serde_json::to_vec(&value).unwrap());
        let read = payload_received(Decoder::new(stream).decode(Incoming { value: Some(text.clone()), ..incoming(&message) }));
        match payload_of(record) {
            Payload::Trade { flags, .. } => prop_assert_eq!(read, Payload::Trade { raw: text, flags }),
            same => prop_assert_eq!(read, same),
        }
    }
}

#[test]
fn a_schema_that_ours_cannot_be_made_of_is_told() {
    let retyped = |name: &'static str, kind: &'static str| {
        move |fields: &mut Vec<Json>| {
            fields.iter_mut().filter(|field| field["name"] == name).for_each(|field| field["type"] = kind.into())
        }
    };
    for (stream, schema, why) in [
        (Stream::Trades, changed(Stream::Trades, retyped("raw", "long")), "'raw' in reader schema does not match the type"),
        (Stream::Trades, changed(Stream::Trades, |fields| fields.retain(|field| field["name"] != "raw")), "raw"),
        (Stream::Gaps, changed(Stream::Gaps, retyped("raw", "double")), "'raw' in reader schema does not match the type"),
        (Stream::Quarantine, changed(Stream::Quarantine, retyped("detail", "boolean")), "'detail' in reader schema"),
        (Stream::Trades, schemas::schema(Stream::Gaps, Format::Avro).to_string(), "Trade"),
        (Stream::Trades, "{".to_string(), "no Avro schema"),
    ] {
        let error = Decoder::new(stream).learn(SchemaId(31), &schema).unwrap_err();
        assert!(matches!(error, WireError::Breaking { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("what schema 31 of the registry wrote cannot be read") && text.contains(why), "{text}");
        assert!(text.contains("run the version that wrote it, or start a new topic"), "{text}");
    }
    // What Bronze does not need may become anything.
    Decoder::new(Stream::Trades).learn(SchemaId(31), &changed(Stream::Trades, retyped("price", "double"))).unwrap();
}

#[test]
fn a_newer_value_that_names_no_schema_is_told() {
    let (mut header, record) = ([0; LENGTH], trade_record());
    let value = written(&newer(Stream::Trades), &record);
    let text = Decoder::new(Stream::Trades)
        .decode(foreign(&mut header, Stream::Trades, &record, 2, value, None))
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("Avro schema number 2, without a registry, is unknown to this version: a newer Tickmint"), "{text}");
}

/// The registry decides by the same rules; this is what its FULL_TRANSITIVE would say of the changes above.
#[test]
fn the_changes_that_are_allowed_are_so_in_both_directions() {
    for stream in [Stream::Gaps, Stream::Quarantine] {
        let (ours, newer) = (avro_schema(stream), Schema::parse_str(&newer(stream)).unwrap());
        SchemaCompatibility::mutual_read(&ours, &newer).unwrap();
    }
}
