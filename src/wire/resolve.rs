//! Values that another version of an Avro schema wrote: `apache-avro` reads them with the writer's schema
//! and makes of them what Bronze needs. Far slower than `avro`, so only for those.

use std::sync::LazyLock;

use apache_avro::schema_compatibility::SchemaCompatibility;
use apache_avro::types::Value;
use apache_avro::{Schema, from_avro_datum};
use bytes::Bytes;

use super::avro::quarantined;
use super::{Format, WireError, json, schemas};
use crate::domain::entry::Payload;
use crate::domain::stream::{PerStream, Stream};
use crate::domain::verdict::Flags;

/// No field is longer. What a broken length could claim otherwise would be reserved before it is missed.
const LONGEST: usize = 64 << 20;

/// The fields that Bronze is written from.
const NEEDED: PerStream<&[&str]> = [&["raw"], &["raw"], &["reason", "detail", "raw"]];

/// Our schemas with nothing but these fields. So a change to another field does not matter here, and the
/// library, which holds no decimal compatible with any, has none to judge.
static READERS: LazyLock<PerStream<Schema>> = LazyLock::new(|| {
    apache_avro::util::max_allocation_bytes(LONGEST);
    Stream::ALL.map(|stream| {
        let mut schema: serde_json::Value = serde_json::from_str(schemas::schema(stream, Format::Avro)).expect("a test reads it");
        let fields = schema["fields"].as_array_mut().expect("a record has fields");
        fields.retain(|field| NEEDED[stream.index()].iter().any(|name| field["name"] == *name));
        Schema::parse(&schema).expect("a test reads with it")
    })
});

/// A schema that values were written with, out of which ours can be made.
#[derive(Clone, Debug)]
pub(super) struct Writer(Schema);

impl Writer {
    /// The schema of values of a stream, as text. `name` is for the error.
    pub(super) fn new(stream: Stream, name: &str, text: &str) -> Result<Writer, WireError> {
        let breaking = |reason: String| WireError::Breaking { writer: name.to_string(), reason };
        let schema = Schema::parse_str(text).map_err(|error| breaking(format!("no Avro schema: {error}")))?;
        SchemaCompatibility::can_read(&schema, &READERS[stream.index()]).map_err(|error| breaking(error.to_string()))?;
        Ok(Writer(schema))
    }

    /// What a value holds.
    pub(super) fn read(&self, stream: Stream, mut value: &[u8], flags: Flags) -> Result<Payload, WireError> {
        let malformed = |_| WireError::value("not as its writer's schema has it");
        let read = from_avro_datum(&self.0, &mut value, Some(&READERS[stream.index()])).map_err(malformed)?;
        if !value.is_empty() {
            return Err(WireError::value("bytes behind its last field"));
        }
        let Value::Record(mut fields) = read else { return Err(WireError::value("no record")) };
        let mut field = |name: &'static str| {
            let at = fields.iter().position(|(field, _)| field == name)?;
            Some(fields.swap_remove(at).1)
        };
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => Ok(text),
            _ => Err(WireError::value("a text that is none")),
        };
        match stream {
            Stream::Trades => Ok(Payload::Trade { raw: text(field("raw"))?.into(), flags }),
            Stream::Gaps => json::control(text(field("raw"))?.as_bytes()).map(|control| Payload::Control(Box::new(control))),
            Stream::Quarantine => {
                let Some(Value::Bytes(raw)) = field("raw") else { return Err(WireError::value("bytes that are none")) };
                quarantined(&text(field("reason"))?, text(field("detail"))?, Bytes::from(raw))
            }
        }
    }
}
