//! Messages to records.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::envelope::{Envelope, Form, Kind};
use super::resolve::Writer;
use super::{FRAMING, Format, SchemaId, WireError, avro, json, schemas};
use crate::domain::entry::{Content, Payload};
use crate::domain::identity::{Micros, Origin};
use crate::domain::stream::Stream;
use crate::domain::verdict::Flags;

/// Longer trace contexts are nobody's.
const LONGEST_TRACEPARENT: usize = 255;

/// A message as it comes.
#[derive(Clone, Debug, Default)]
pub struct Incoming<'a> {
    /// The header [`super::envelope::NAME`].
    pub header: Option<&'a [u8]>,
    /// The header [`super::envelope::TRACEPARENT`].
    pub traceparent: Option<&'a [u8]>,
    /// The value; what is read shares it.
    pub value: Option<Bytes>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where it stands in the spool that sent it.
    pub origin: Origin,
    /// When its frame was read, or when it was made.
    pub received_at: Micros,
    /// The W3C trace context of its frame, where that is sampled.
    pub traceparent: Option<Arc<str>>,
    /// What it is.
    pub content: Content,
}

/// Reads the messages of one stream's topic.
pub struct Decoder {
    stream: Stream,
    /// By the numbers of the Avro schemas before ours.
    older: HashMap<u8, Writer>,
    /// By the registry's ids: those of newer versions.
    learned: HashMap<SchemaId, Writer>,
}

impl Decoder {
    /// Knows the schemas of this version and of those before it.
    pub fn new(stream: Stream) -> Decoder {
        let older = schemas::OLDER.iter().filter(|(of, ..)| *of == stream);
        Decoder::with_older(stream, older.map(|(_, number, text)| (*number, *text)))
    }

    pub(super) fn with_older<'a>(stream: Stream, older: impl IntoIterator<Item = (u8, &'a str)>) -> Decoder {
        let older = older.into_iter().map(|(number, text)| {
            let writer = Writer::new(stream, &format!("schema number {number}"), text);
            (number, writer.expect("a schema of ours reads those before it: a test builds a decoder of each stream"))
        });
        Decoder { stream, older: older.collect(), learned: HashMap::new() }
    }

    /// Takes in a schema that [`WireError::wanted_schema`] has asked for; then the message can be decoded.
    ///
    /// # Errors
    /// Ours cannot be made of it.
    pub fn learn(&mut self, id: SchemaId, schema: &str) -> Result<(), WireError> {
        let writer = Writer::new(self.stream, &format!("schema {id} of the registry"), schema)?;
        self.learned.insert(id, writer);
        Ok(())
    }

    /// Reads a message.
    pub fn decode(&self, message: Incoming<'_>) -> Result<Received, WireError> {
        let Envelope { stream, origin, received_at, kind } = Envelope::decode(message.header.ok_or(WireError::NoHeader)?)?;
        if stream != self.stream {
            return Err(WireError::OtherStream { found: stream, wanted: self.stream });
        }
        let content = match kind {
            Kind::Tick(hour) => Content::Tick(hour),
            Kind::Opened(session) => Content::Opened(session),
            Kind::Ended(session) => Content::Ended(session),
            Kind::Lost { to } => Content::Lost { last: to - 1 },
            Kind::Data { delivery, seq, flags, form } => {
                let value = message.value.ok_or(WireError::value("none where the header promises one"))?;
                let payload = self.payload(value, form, flags)?;
                Content::Data { delivery, seq, payload }
            }
        };
        Ok(Received { origin, received_at, traceparent: message.traceparent.and_then(trace_context), content })
    }

    fn payload(&self, mut value: Bytes, form: Form, flags: Flags) -> Result<Payload, WireError> {
        let id = match form.framed {
            true if value.len() < FRAMING || value[0] != 0 => return Err(WireError::value("without its schema id")),
            true => {
                value.advance(1);
                Some(SchemaId(value.get_u32()))
            }
            false => None,
        };
        let ours = schemas::AVRO[self.stream.index()];
        match form.format {
            Format::Json => json::read(self.stream, value, flags),
            Format::Avro if form.schema == ours => avro::read(self.stream, value, flags),
            Format::Avro => match self.older.get(&form.schema) {
                Some(writer) => writer.read(self.stream, &value, flags),
                None => self.writer(id, form.schema)?.read(self.stream, &value, flags),
            },
        }
    }

    fn writer(&self, id: Option<SchemaId>, number: u8) -> Result<&Writer, WireError> {
        let Some(id) = id else {
            return Err(WireError::Newer { what: "Avro schema number", found: format!("{number}, without a registry,") });
        };
        self.learned.get(&id).ok_or(WireError::SchemaWanted { id })
    }
}

/// A trace context that makes no sense is none: it must not hold up a record.
fn trace_context(header: &[u8]) -> Option<Arc<str>> {
    let text = std::str::from_utf8(header).ok()?;
    (text.len() <= LONGEST_TRACEPARENT).then(|| text.into())
}
