//! The cluster between spool and Bronze: `[kafka]`.

mod properties;
mod settings;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use crate::domain::stream::Stream;
use crate::wire::Format;

pub use settings::{KafkaSettings, RegistrySettings};

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Some brokers, `host:port`; never empty.
    pub brokers: Vec<String>,
    /// Put before the names of streams; see [`KafkaConfig::topic`].
    pub topic_prefix: String,
    /// Partitions of a topic.
    pub partitions: u32,
    /// Copies of a partition.
    pub replication_factor: u16,
    /// Copies that must have a record before it counts as written; at most `replication_factor`.
    pub min_insync: u16,
    /// How long topics keep a record.
    pub retention: Duration,
    /// Whether a topic that is missing may be created.
    pub create_topics: bool,
    /// What a record's value is.
    pub format: Format,
    /// How batches are compressed.
    pub compression: Compression,
    /// The name of this client for the brokers.
    pub client_id: String,
    /// The consumer group of all who archive.
    pub group: String,
    /// How long a record waits for others to go with it.
    pub linger: Duration,
    /// The most bytes that wait in the producer; a record always fits.
    pub buffer: usize,
    /// How long the writer of a revoked partition may flush.
    pub drain_within: Duration,
    /// TLS; `None`: in the clear.
    pub tls: Option<TlsConfig>,
    /// Who logs in.
    pub sasl: Option<SaslConfig>,
    /// Further properties of librdkafka, none of which touches what must hold.
    pub properties: BTreeMap<String, String>,
    /// The schema registry.
    pub registry: Option<RegistryConfig>,
    /// No record is longer, in bytes, as it follows from `feed.max_frame_bytes` and the format.
    pub max_record_bytes: usize,
}

impl KafkaConfig {
    /// The topic of a stream.
    pub fn topic(&self, stream: Stream) -> String {
        format!("{}{stream}", self.topic_prefix)
    }

    /// The protocol of the brokers' port, as in `kafka.security`.
    pub fn security(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Little work.
    Lz4,
    /// More work, smaller.
    Zstd,
    /// As lz4, for consumers that know nothing newer.
    Snappy,
    /// Much work.
    Gzip,
    /// As they are.
    None,
}

impl Compression {
    /// The name in the config and in librdkafka.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
            Compression::None => "none",
        }
    }
}

/// TLS to the brokers. Their certificates are always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Who signs the brokers' certificates, in PEM; `None`: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate.
    pub identity: Option<TlsIdentity>,
}

/// A certificate of our own, by which the brokers know us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// In PEM.
    pub certificate_file: PathBuf,
    /// In PEM.
    pub key_file: PathBuf,
    /// Of a key that is encrypted.
    pub key_password: Option<Secret>,
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslConfig {
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How the password is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself is not sent.
    ScramSha512,
    /// As above, with a shorter hash.
    ScramSha256,
    /// The password is sent, so TLS should be around it.
    Plain,
}

impl Mechanism {
    /// The name in the config and in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
        }
    }
}

/// The schema registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `https://host:port`, without a slash at the end.
    pub url: String,
    /// Basic authentication.
    pub login: Option<(String, Secret)>,
    /// Who signs its certificate, in PEM; `None`: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Whether a schema that is missing may be registered.
    pub register: bool,
}

/// The most bytes of one record, given the longest frame that is no quarantine record.
///
/// The socket takes frames twice as long, and one that cannot be taken apart goes into quarantine whole. In
/// JSON a control character of it takes six bytes (`\u0001`); in Avro a byte is a byte. The rest is for
/// everything else in a record, of which a verdict's detail is the longest (64 KiB, escaped likewise).
fn longest_record(format: Format, max_frame_bytes: usize) -> usize {
    let by_byte = match format {
        Format::Json => 6,
        Format::Avro => 1,
    };
    max_frame_bytes.saturating_mul(2 * by_byte).saturating_add(512 << 10)
}
