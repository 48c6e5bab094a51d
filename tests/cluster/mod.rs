//! Against a real Kafka.

use std::path::PathBuf;
use std::sync::OnceLock;

use tickmint::config::{Config, KafkaConfig, KafkaSettings, Settings};
use uuid::Uuid;

use crate::support::kafka::{Kafka, Options, PASSWORD, Security, USER};
use crate::support::servers::Skip;

mod brokers;
mod campaign;
mod check;
mod clients;
mod copies;
mod demo;
mod faults;
mod locked;
mod outcome;
mod partitions;
mod quotas;
mod registry;
mod rig;
mod seaweed;
mod topics;

/// Where the brokers are: with TLS and a login, too, of which `app` with `app-secret` is the only one.
struct Cluster {
    plain: String,
    secure: String,
    /// Who signs the brokers' certificates.
    ca: PathBuf,
}

/// One broker that all tests of this module share. It ends with the process.
fn cluster() -> Result<Cluster, Skip> {
    static SHARED: OnceLock<Result<(Kafka, tempfile::TempDir), String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("the system's folder can be written");
        // A login of another kind must be refused.
        let only = "listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512".to_string();
        let options = Options { security: Security::SaslSsl, properties: vec![only], ..Options::default() };
        let kafka = Kafka::start(folder.path(), options).map_err(|Skip(reason)| reason)?;
        Ok((kafka, folder))
    });
    match shared {
        Ok((kafka, _)) => Ok(Cluster { plain: kafka.bootstrap(), secure: kafka.secure_bootstrap(), ca: kafka.ca_file() }),
        Err(reason) => Err(Skip(reason.clone())),
    }
}

/// A `[kafka]` with topics of its own, as many copies as there are brokers, and what `change` makes of it.
fn config(brokers: &str, change: impl FnOnce(&mut KafkaSettings)) -> KafkaConfig {
    let brokers: Vec<_> = brokers.split(',').map(str::to_owned).collect();
    let copies = if brokers.len() < 3 { 1 } else { 3 };
    let mut kafka = KafkaSettings {
        brokers,
        topic_prefix: format!("test-{}.", Uuid::now_v7()),
        partitions: 3,
        replication_factor: copies,
        min_insync: copies.div_ceil(2),
        ..KafkaSettings::default()
    };
    change(&mut kafka);
    // Who only archives needs no keys of a feed.
    let mut settings = Settings { kafka: Some(kafka), roles: vec!["archive".into()], ..Settings::default() };
    // For records of up to 2 MiB, twice as long as brokers take by default: such small ones as tests have run out of memory
    // over longer ones.
    settings.feed.max_frame_bytes = "128 KiB".into();
    Config::from_settings(&settings).unwrap().kafka.unwrap()
}
