//! What a Kafka record of ours looks like: one packed header that says who it is, a key, and a value that
//! anybody can read. No I/O and no Kafka here.
//!
//! ```text
//! header `tickmint`     68 bytes: see `envelope`
//! header `traceparent`  text, where the frame is sampled
//! key                   trades: the symbol; gaps and quarantine: what the caller gives
//! value                 JSON or Avro of the stream's schema, in Confluent's framing where there is a registry;
//!                       null where the record is a tick, or tells of a session or of a loss
//! ```
//!
//! [`encode::Encoder`] writes records, [`decode::Decoder`] reads them, whatever their format: each says
//! it in its header, so a topic may change its format, or get a registry, in the middle. What our own schema wrote is
//! read and written by hand; what another version wrote goes through `apache-avro`. See
//! docs/adr/0011-wire-format.md.

mod avro;
pub mod decode;
pub mod encode;
pub mod envelope;
pub mod error;
mod json;
mod resolve;
pub mod schemas;

use std::fmt;

pub use error::WireError;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON text.
    Json,
    /// Avro, binary.
    Avro,
}

impl Format {
    /// The name in the config, and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro => "avro",
        }
    }
}

/// The number that a registry gave to a schema. Another registry gives another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Confluent's framing: a zero byte and the schema's id, big-endian.
const FRAMING: usize = 5;

#[cfg(test)]
mod tests;
