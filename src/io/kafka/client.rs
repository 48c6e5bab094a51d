//! From the validated config to librdkafka's, for each kind of client.
//!
//! What must hold is set last, so that nothing overrides it: a record counts as written when all in-sync
//! copies have it, is sent for as long as it takes, keeps its order, and is never read from another place
//! than the chain says.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;

use super::apart::Apart;
use super::error::KafkaError;
use crate::config::{KafkaConfig, Roles};

/// How often librdkafka tells its statistics, in milliseconds: what quotas cost is read off them.
const STATISTICS: u32 = 5_000;
/// Beside the bytes that wait in the producer, librdkafka keeps some 200 for each record. By so many bytes of
/// `kafka.buffer` there may be one, so that short records do not take many times as much.
const BYTES_A_RECORD: usize = 512;
/// What a reader has fetched and nobody has taken yet, over all of its partitions. Of short records librdkafka keeps four
/// times as much beside them.
const READ_AHEAD: usize = 6 << 20;
/// The most that one partition reads ahead, however few there are, and the least, however many.
const PARTITION_AHEAD: std::ops::RangeInclusive<usize> = 128 << 10..=512 << 10;
/// One answer of one broker, if it does not hold a single record that is longer.
const FETCH: usize = 8 << 20;
/// A daemon that has died gives its partitions to others after so long, in milliseconds.
const SESSION: u32 = 10_000;

/// Of a client that sends. Each record names its partition and its time.
pub fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut client = common(config, |client| {
        let buffer = config.buffer.max(config.max_record_bytes);
        client.set("linger.ms", config.linger.as_millis().to_string());
        client.set("queue.buffering.max.kbytes", (buffer >> 10).to_string());
        client.set("queue.buffering.max.messages", (buffer / BYTES_A_RECORD).to_string());
        client.set("compression.codec", config.compression.name());
        client.set("message.max.bytes", config.max_record_bytes.to_string());
    });
    client.set("acks", "all");
    client.set("enable.idempotence", "true");
    // The most that idempotence keeps in order.
    client.set("max.in.flight.requests.per.connection", "5");
    // Never: a record that is given up on would come too late to be in order.
    client.set("message.timeout.ms", "0");
    client.set("delivery.report.only.error", "false");
    client
}

/// Of a client that reads partitions which it is told, each from an offset that it is told, with a queue for
/// each of `partitions`. It commits nothing by itself, and an offset that is not there is an error.
pub fn reader(config: &KafkaConfig, partitions: usize) -> ClientConfig {
    let ahead = (READ_AHEAD / partitions.max(1)).clamp(*PARTITION_AHEAD.start(), *PARTITION_AHEAD.end());
    let mut client = common(config, |client| {
        client.set("queued.max.messages.kbytes", (ahead >> 10).to_string());
        // It is the bytes that are to end the reading ahead: where there is room again, more is fetched within these ms, and not
        // within a second, by when the room was empty (5 M records in 23 s and not in 59).
        client.set("queued.min.messages", "1000000");
        client.set("fetch.queue.backoff.ms", "10");
        client.set("fetch.message.max.bytes", ahead.to_string());
        // A broker has one question at a time. One that asks only of partitions in which nothing comes, since the others have
        // been read ahead, is not to keep these waiting: with librdkafka's 500 ms, 2 M records took a third longer.
        client.set("fetch.wait.max.ms", "100");
        client.set("session.timeout.ms", SESSION.to_string());
        client.set("heartbeat.interval.ms", (SESSION / 3).to_string());
    });
    client.set("fetch.max.bytes", FETCH.to_string());
    // The first record of an answer comes whole, however long it is.
    client.set("receive.message.max.bytes", (2 * FETCH + 2 * config.max_record_bytes).to_string());
    // Partitions can be assigned only where there is a group, if nobody joins it.
    client.set("group.id", &config.group);
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    client.set("auto.offset.reset", "error");
    client.set("isolation.level", "read_committed");
    client.set("check.crcs", "true");
    client
}

/// As [`reader`], of a client that joins the group and is told its partitions by that. They come and go one by
/// one: who keeps a partition reads on. Of a static member, who has a name, a restart within the session's time
/// moves nothing; the next life of one without a name waits until the group has missed the one before.
pub fn member(config: &KafkaConfig, partitions: usize, name: Option<&str>) -> ClientConfig {
    let mut client = reader(config, partitions);
    if let Some(name) = name {
        client.set("group.instance.id", name);
    }
    client.set("partition.assignment.strategy", "cooperative-sticky");
    // The group hears of partitions that were added when its leader looks at the topics: librdkafka's 5 minutes are long, where
    // an hour is not complete without them.
    client.set("topic.metadata.refresh.interval.ms", "10000");
    client
}

/// Whether librdkafka takes the config for the clients that these roles need. Properties may exclude each other, and that shows in
/// a client only; no broker is asked.
///
/// # Errors
/// What it says, and which option it is about.
pub fn try_out(config: &KafkaConfig, roles: Roles) -> Result<(), KafkaError> {
    let failed = |error| KafkaError::of_creation(&error, config);
    if roles.feed {
        drop(Apart::new(producer(config).create::<BaseProducer>().map_err(failed)?));
    }
    if roles.archive {
        drop(Apart::new(member(config, 1, None).create::<BaseConsumer>().map_err(failed)?));
    }
    Ok(())
}

/// Of a client that asks about the cluster.
pub(super) fn admin(config: &KafkaConfig) -> ClientConfig {
    common(config, |_| {})
}

/// What all have in common, and `ours`, which the properties of the config may override.
fn common(config: &KafkaConfig, ours: impl FnOnce(&mut ClientConfig)) -> ClientConfig {
    let mut client = ClientConfig::new();
    // A broker that was away for a while is not left alone for 10 s more.
    client.set("reconnect.backoff.max.ms", "1000");
    ours(&mut client);
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    let chatty = config.properties.contains_key("debug");
    client.set_log_level(if chatty { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    client.set("bootstrap.servers", config.brokers.join(","));
    client.set("client.id", &config.client_id);
    client.set("statistics.interval.ms", STATISTICS.to_string());
    // A topic is created on purpose or not at all. A producer would ask brokers to do it, which by default they do.
    client.set("allow.auto.create.topics", "false");
    client.set("security.protocol", config.security());
    if let Some(tls) = &config.tls {
        let ca = tls.ca_file.as_ref().map(|file| file.display().to_string());
        // OpenSSL's own idea of where the system has them is that of the machine on which it was built.
        client.set("ssl.ca.location", ca.as_deref().unwrap_or("probe"));
        if let Some(identity) = &tls.identity {
            client.set("ssl.certificate.location", identity.certificate_file.display().to_string());
            client.set("ssl.key.location", identity.key_file.display().to_string());
            if let Some(password) = &identity.key_password {
                client.set("ssl.key.password", password.reveal());
            }
        }
    }
    if let Some(sasl) = &config.sasl {
        client.set("sasl.mechanism", sasl.mechanism.name());
        client.set("sasl.username", &sasl.username);
        client.set("sasl.password", sasl.password.reveal());
    }
    client
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Compression, Config, KafkaSettings, Mechanism, SaslConfig, Secret, Settings, TlsConfig};

    pub(in crate::io::kafka) fn config(brokers: &[&str]) -> KafkaConfig {
        let kafka = KafkaSettings { brokers: brokers.iter().map(ToString::to_string).collect(), ..KafkaSettings::default() };
        let settings = Settings { kafka: Some(kafka), roles: vec!["archive".into()], ..Settings::default() };
        Config::from_settings(&settings).unwrap().kafka.unwrap()
    }

    /// The values that librdkafka itself then has.
    fn values(client: &ClientConfig, names: &[&str]) -> Vec<String> {
        let native = client.create_native_config().unwrap();
        names.iter().map(|name| native.get(name).unwrap()).collect()
    }

    #[test]
    fn librdkafka_takes_what_must_hold_whatever_else_it_is_told() {
        let overridden = [("acks", "1"), ("enable.auto.commit", "true"), ("auto.offset.reset", "earliest"), ("client.rack", "a")];
        let config = KafkaConfig {
            properties: overridden.map(|(name, value)| (name.to_string(), value.to_string())).into(),
            compression: Compression::Zstd,
            ..config(&["a:1", "b:2"])
        };
        let names =
            ["bootstrap.servers", "acks", "enable.idempotence", "max.in.flight", "message.timeout.ms", "compression.codec"];
        assert_eq!(values(&producer(&config), &names), ["a:1,b:2", "-1", "true", "5", "0", "zstd"]);
        let names = ["allow.auto.create.topics", "client.rack", "queue.buffering.max.kbytes", "message.max.bytes"];
        assert_eq!(values(&producer(&config), &names), ["false", "a", "65536", "13107200"]);
        for client in [reader(&config, 12), member(&config, 12, None)] {
            let names = ["enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset", "isolation.level", "check.crcs"];
            assert_eq!(values(&client, &names), ["false", "false", "error", "read_committed", "true"]);
        }
        assert_eq!(
            values(&member(&config, 12, None), &["group.id", "partition.assignment.strategy"]),
            ["tickmint", "cooperative-sticky"]
        );
    }

    #[test]
    fn what_is_read_ahead_is_bounded_over_all_partitions() {
        let ahead = |partitions| values(&reader(&config(&["a:1"]), partitions), &["queued.max.messages.kbytes"]).concat();
        assert_eq!([ahead(0), ahead(1), ahead(12), ahead(1000)], ["512", "512", "512", "128"]);
    }

    #[test]
    fn experts_may_override_what_is_only_a_choice() {
        let config =
            KafkaConfig { properties: BTreeMap::from([("session.timeout.ms".into(), "30000".into())]), ..config(&["a:1"]) };
        assert_eq!(values(&member(&config, 1, None), &["session.timeout.ms", "heartbeat.interval.ms"]), ["30000", "3333"]);
    }

    #[test]
    fn secrets_go_to_librdkafka_and_nowhere_else() {
        let sasl = SaslConfig { mechanism: Mechanism::Plain, username: "me".into(), password: Secret::new("c0ffee") };
        let config = KafkaConfig { sasl: Some(sasl), tls: Some(TlsConfig::default()), ..config(&["a:1"]) };
        let client = producer(&config);
        assert_eq!(client.get("sasl.password"), Some("c0ffee"));
        assert_eq!(values(&client, &["security.protocol", "sasl.mechanism"]), ["sasl_ssl", "PLAIN"]);
        let shown = format!("{config:?} {client:?}");
        assert!(!shown.contains("c0ffee"), "{shown}");
    }
}
