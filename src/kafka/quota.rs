//! What brokers' quotas hold up. Nothing is lost by that: what is not sent yet waits in the spool, what is not read yet
//! in Kafka. But the longer it lasts the more of it waits, and only a person can give us more.

use std::time::Duration;

use crate::config::KafkaConfig;
use crate::io::kafka::Watch;
use crate::supervisor::Vitals;
use crate::telemetry::Metrics;

/// Which of the rates that brokers limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// What a client sends.
    Producer,
    /// What it reads.
    Consumer,
}

/// A client that is made to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// How long, for one answer.
    pub wait: Duration,
    /// Who waits, what that costs, and what to do.
    pub why: String,
}

impl Quota {
    /// What the client that is watched waits for, if it does.
    pub fn held_up(self, watch: &Watch, config: &KafkaConfig) -> Option<HeldUp> {
        watch.throttled().map(|wait| HeldUp { wait, why: self.why(wait, config) })
    }

    /// Shows in the actor's notes, in the metrics and by the alarm whether the client waits.
    pub fn show(self, held_up: Option<&HeldUp>, vitals: &Vitals, metrics: &Metrics) {
        match held_up {
            Some(held_up) => vitals.note("quota", held_up.why.clone()),
            None => vitals.clear_note("quota"),
        }
        let client = match self {
            Quota::Producer => "producer",
            Quota::Consumer => "consumer",
        };
        metrics.kafka_quota(client, held_up.map(|held_up| (held_up.wait, held_up.why.as_str())));
    }

    /// A quota is one for all who have the client id, on each broker. So to share the work among more daemons helps only
    /// where partitions come to be led by brokers that have room, and we do not advise it.
    fn why(self, wait: Duration, config: &KafkaConfig) -> String {
        let (who, what, setting, less) = match self {
            Quota::Producer => (
                "producer",
                "trades wait in the spool",
                "producer_byte_rate",
                "send less: fewer symbols, `kafka.compression = \"zstd\"`, `kafka.format = \"avro\"`",
            ),
            Quota::Consumer => (
                "reader",
                "what is not archived yet waits in Kafka, until `kafka.retention` ends",
                "consumer_byte_rate",
                "let others read by another client id",
            ),
        };
        let id = &config.client_id;
        format!(
            "a quota of the brokers makes the {who} (client id `{id}`) wait up to {:.1} s for an answer; {what}; raise it with \
             `kafka-configs.sh --alter --entity-type clients --entity-name {id} --add-config {setting}=BYTES_A_SECOND` (or for \
             the user; `request_percentage` may be the one), or {less}",
            wait.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, KafkaSettings, Settings};

    #[test]
    fn it_is_said_who_waits_how_long_and_what_to_do() {
        let kafka = KafkaSettings { brokers: vec!["k:1".into()], client_id: "desk-7".into(), ..KafkaSettings::default() };
        let settings = Settings { kafka: Some(kafka), roles: vec!["archive".into()], ..Settings::default() };
        let config = Config::from_settings(&settings).unwrap().kafka.unwrap();
        for (quota, parts) in [
            (Quota::Producer, ["the producer (client id `desk-7`)", "in the spool", "--add-config producer_byte_rate="]),
            (Quota::Consumer, ["the reader (client id `desk-7`)", "in Kafka", "--add-config consumer_byte_rate="]),
        ] {
            let why = quota.why(Duration::from_millis(12_340), &config);
            assert!(why.contains("up to 12.3 s") && parts.iter().all(|part| why.contains(part)), "{why}");
        }
        assert_eq!(Quota::Producer.held_up(&Watch::new("test"), &config), None);
    }
}
