//! Against a real Kafka.

use std::path::PathBuf;

use tickmint::config::{Config, KafkaConfig, KafkaSettings, Settings};
use uuid::Uuid;

use crate::support::servers::Skip;

mod clients;
mod topics;

/// Where the brokers are: with TLS and a login, too, of which `app` with `app-secret` is the only one.
struct Cluster {
    plain: String,
    secure: String,
    /// Who signs the brokers' certificates.
    ca: PathBuf,
}

const USER: &str = "app";
const PASSWORD: &str = "app-secret";

/// The cluster that the environment names: TICKMINT_TEST_KAFKA and TICKMINT_TEST_KAFKA_TLS are lists of brokers,
/// TICKMINT_TEST_KAFKA_CA is a file.
fn cluster() -> Result<Cluster, Skip> {
    let named = |name: &str| std::env::var(name).map_err(|_| Skip(format!("no cluster: set {name}")));
    Ok(Cluster {
        plain: named("TICKMINT_TEST_KAFKA")?,
        secure: named("TICKMINT_TEST_KAFKA_TLS")?,
        ca: named("TICKMINT_TEST_KAFKA_CA")?.into(),
    })
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
    let settings = Settings { kafka: Some(kafka), roles: vec!["archive".into()], ..Settings::default() };
    Config::from_settings(&settings).unwrap().kafka.unwrap()
}
