//! `[kafka]` as it is written in the file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::settings::Quantity;

/// The cluster between spool and Bronze. Without it the spool is the log that Bronze is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// Some of its brokers, from which the others are learnt: `["kafka-1:9092", "kafka-2:9092"]`.
    pub brokers: Vec<String>,
    /// Put before the names of streams: `tickmint.` makes `tickmint.trades`.
    pub topic_prefix: String,
    /// Partitions of a topic that is created; one that is there must have at least as many: `12`.
    pub partitions: u32,
    /// Copies of each partition: `3`.
    pub replication_factor: u16,
    /// The copies that must have a record before it counts as written: `2`.
    pub min_insync: u16,
    /// How long the topics keep a record: `7d`.
    pub retention: Quantity,
    /// `false` where topics are made by others: then they are only checked.
    pub create_topics: bool,
    /// What a record's value is: `json` or `avro`.
    pub format: String,
    /// How batches are compressed: `lz4`, `zstd`, `snappy`, `gzip` or `none`.
    pub compression: String,
    /// The name under which brokers log and limit this client: `tickmint`.
    pub client_id: String,
    /// The consumer group of all who archive: `tickmint`.
    pub group: String,
    /// How long a record waits for others to go with it: `5ms`.
    pub linger: Quantity,
    /// The most that waits to be sent, beside the spool: `64 MiB`.
    pub buffer: Quantity,
    /// How long the writer of a partition that goes to another daemon may flush: `10s`.
    pub drain_within: Quantity,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security: String,
    /// `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`.
    pub sasl_mechanism: String,
    /// Who logs in, with SASL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The certificates that sign those of the brokers, in PEM. By default the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, in PEM, where the brokers ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Its key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// A file that holds the key's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password_env: Option<String>,
    /// `[kafka.registry]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySettings>,
    /// `[kafka.properties]`: librdkafka's own, by their names, dotted or in quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<toml::Table>,
}

impl Default for KafkaSettings {
    fn default() -> KafkaSettings {
        KafkaSettings {
            brokers: Vec::new(),
            topic_prefix: "tickmint.".into(),
            partitions: 12,
            replication_factor: 3,
            min_insync: 2,
            retention: "7d".into(),
            create_topics: true,
            format: "json".into(),
            compression: "lz4".into(),
            client_id: "tickmint".into(),
            group: "tickmint".into(),
            linger: "5ms".into(),
            buffer: "64 MiB".into(),
            drain_within: "10s".into(),
            security: "plaintext".into(),
            sasl_mechanism: "SCRAM-SHA-512".into(),
            username: None,
            password_file: None,
            password_env: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password_file: None,
            key_password_env: None,
            registry: None,
            properties: None,
        }
    }
}

/// The schema registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Its address: `http://127.0.0.1:8081`.
    pub url: String,
    /// Who logs in, if it asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The certificates that sign the registry's, in PEM. By default the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// `false` where schemas are registered by others: then they are only checked.
    pub register: bool,
}

impl Default for RegistrySettings {
    fn default() -> RegistrySettings {
        RegistrySettings {
            url: String::new(),
            username: None,
            password_file: None,
            password_env: None,
            ca_file: None,
            register: true,
        }
    }
}

impl KafkaSettings {
    /// Settings in which nothing is absent; see [`crate::config::Settings`].
    pub(in crate::config) fn complete() -> KafkaSettings {
        let (file, env) = (Some(PathBuf::new()), Some(String::new()));
        KafkaSettings {
            username: env.clone(),
            password_file: file.clone(),
            password_env: env.clone(),
            ca_file: file.clone(),
            certificate_file: file.clone(),
            key_file: file.clone(),
            key_password_file: file.clone(),
            key_password_env: env.clone(),
            registry: Some(RegistrySettings {
                username: env.clone(),
                password_file: file.clone(),
                password_env: env,
                ca_file: file,
                ..RegistrySettings::default()
            }),
            properties: Some(toml::Table::new()),
            ..KafkaSettings::default()
        }
    }
}
