//! Records to messages.

use uuid::fmt::Hyphenated;

use super::avro::{self, Identity, Session};
use super::envelope::{Envelope, Form, Kind, LENGTH};
use super::{Format, SchemaId, WireError, json, schemas};
use crate::domain::entry::{Content, Payload, Record};
use crate::domain::identity::SessionId;
use crate::domain::stream::{PerStream, Stream};
use crate::domain::trade::{NoTrade, Trade, symbol_of};
use crate::domain::verdict::Flags;

/// A message of Kafka, to be handed over before the next one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The header [`super::envelope::NAME`].
    pub header: &'a [u8],
    /// The header [`super::envelope::TRACEPARENT`], where there is one.
    pub traceparent: Option<&'a str>,
    /// The key; none for what has no value.
    pub key: Option<&'a [u8]>,
    /// The value; null where the header says all.
    pub value: Option<&'a [u8]>,
}

/// Writes records of all streams. Its buffers are used again and again.
pub struct Encoder {
    format: Format,
    ids: Option<PerStream<SchemaId>>,
    header: [u8; LENGTH],
    key: Vec<u8>,
    value: Vec<u8>,
    /// The session of the record before, as text: it seldom changes.
    session: Option<(SessionId, Session)>,
}

impl Encoder {
    /// Writes values in `format`; with the ids of a registry, in Confluent's framing.
    pub fn new(format: Format, ids: Option<PerStream<SchemaId>>) -> Encoder {
        Encoder { format, ids, header: [0; LENGTH], key: Vec::new(), value: Vec::new(), session: None }
    }

    /// The message of a record. Its key is `key`, but of a trade the symbol.
    ///
    /// # Errors
    /// The record is not of `stream`, or a trade that validation has never seen.
    pub fn encode<'a>(&'a mut self, stream: Stream, key: &'a [u8], record: &'a Record) -> Result<Message<'a>, WireError> {
        let Record { origin, received_at, .. } = *record;
        let envelope = |kind| Envelope { stream, origin, received_at, kind };
        let (delivery, seq, payload) = match &record.content {
            Content::Tick(hour) => return Ok(self.without_value(envelope(Kind::Tick(*hour)))),
            Content::Opened(session) => return Ok(self.without_value(envelope(Kind::Opened(*session)))),
            Content::Lost { last } => return Ok(self.without_value(envelope(Kind::Lost { to: last.saturating_add(1) }))),
            Content::Ended(session) => return Ok(self.without_value(envelope(Kind::Ended(*session)))),
            Content::Data { delivery, seq, payload } => (*delivery, *seq, payload),
        };
        let framing = self.ids.map(|ids| ids[stream.index()]);
        self.value.clear();
        if let Some(id) = framing {
            self.value.push(0);
            self.value.extend_from_slice(&id.0.to_be_bytes());
        }
        let session = self.session_text(delivery.session);
        let who = Identity { session: &session, delivery, seq, received_at: record.received_at };
        let (mut flags, mut key, mut verbatim) = (Flags::default(), key, None);
        match (stream, payload) {
            (Stream::Trades, Payload::Trade { raw, flags: odd }) => {
                self.trade(&who, raw, *odd, framing.is_some())?;
                (flags, key) = (*odd, &self.key);
                // Then the value is the text and nothing else, and need not be copied.
                verbatim = (self.value.is_empty()).then_some(&raw[..]);
            }
            (Stream::Gaps, Payload::Control(control)) => match self.format {
                Format::Json => json::write_gap(&mut self.value, control),
                Format::Avro => avro::write_gap(&mut self.value, &who, control),
            },
            (Stream::Quarantine, Payload::Quarantined { raw, reason, detail }) => match self.format {
                Format::Json => json::write_quarantined(&mut self.value, *reason, detail, raw),
                Format::Avro => avro::write_quarantined(&mut self.value, &who, *reason, detail, raw),
            },
            (Stream::Trades | Stream::Gaps | Stream::Quarantine, other) => {
                return Err(WireError::OtherStream { found: stream_of(other), wanted: stream });
            }
        }
        let schema = if self.format == Format::Avro { schemas::AVRO[stream.index()] } else { 0 };
        let form = Form { format: self.format, framed: framing.is_some(), schema };
        self.header = envelope(Kind::Data { delivery, seq, flags, form }).encode();
        let value = verbatim.unwrap_or(&self.value);
        Ok(Message { header: &self.header, traceparent: record.traceparent.as_deref(), key: Some(key), value: Some(value) })
    }

    /// Appends a trade to the value, unless that would be its bare text; puts its symbol into the key.
    fn trade(&mut self, who: &Identity<'_>, raw: &[u8], flags: Flags, framed: bool) -> Result<(), WireError> {
        let no_trade = |no: NoTrade| WireError::NoTrade(no.to_string());
        self.key.clear();
        match self.format {
            Format::Json => {
                self.key.extend_from_slice(symbol_of(raw).map_err(no_trade)?.as_bytes());
                if framed {
                    self.value.extend_from_slice(raw);
                }
            }
            Format::Avro => {
                let trade = Trade::parse(raw).map_err(no_trade)?;
                std::str::from_utf8(raw).map_err(|error| WireError::NoTrade(error.to_string()))?;
                self.key.extend_from_slice(trade.symbol.as_bytes());
                avro::write_trade(&mut self.value, who, &trade, flags, raw);
            }
        }
        Ok(())
    }

    fn session_text(&mut self, session: SessionId) -> Session {
        match self.session {
            Some((last, text)) if last == session => text,
            _ => {
                let mut text = [0; Hyphenated::LENGTH];
                session.0.hyphenated().encode_lower(&mut text);
                self.session.insert((session, text)).1
            }
        }
    }

    fn without_value(&mut self, envelope: Envelope) -> Message<'_> {
        self.header = envelope.encode();
        Message { header: &self.header, traceparent: None, key: None, value: None }
    }
}

fn stream_of(payload: &Payload) -> Stream {
    match payload {
        Payload::Trade { .. } => Stream::Trades,
        Payload::Control(_) => Stream::Gaps,
        Payload::Quarantined { .. } | Payload::Foreign { .. } => Stream::Quarantine,
    }
}
