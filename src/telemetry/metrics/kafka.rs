//! Kafka: what was forwarded, and what waits there.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::Label;
use super::{Float, Metrics};

#[derive(Debug, Default)]
pub(in crate::telemetry) struct KafkaMetrics {
    forwarded: Counter,
    acknowledged: Gauge,
    under_way: Gauge,
    uncovered: Gauge,
    throttled: Family<Label, Float>,
}

impl KafkaMetrics {
    pub(super) fn register(r: &mut Registry) -> KafkaMetrics {
        let kafka = KafkaMetrics::default();
        r.register(
            "forwarded_records",
            "Records that Kafka has acknowledged, those sent again included",
            kafka.forwarded.clone(),
        );
        let help = "Records that Kafka has acknowledged and that are in no slot yet";
        r.register("forward_acknowledged", help, kafka.acknowledged.clone());
        kafka.uncovered.set(-1);
        let help = "Records that the spool has had and that are in no slot yet; -1 before anything is known";
        r.register("forward_uncovered", help, kafka.uncovered.clone());
        r.register("forward_under_way", "Records that Kafka has not answered for yet", kafka.under_way.clone());
        let help = "How long a quota of the brokers last made a client wait for an answer; 0 while none does";
        r.register_with_unit("kafka_throttled", help, Unit::Seconds, kafka.throttled.clone());
        kafka
    }
}

/// How forwarding goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Records that were acknowledged since this was told last.
    pub new: u64,
    /// Acknowledged, and in no slot yet.
    pub acknowledged: u64,
    /// Sent, and not answered for yet.
    pub under_way: u64,
    /// In no slot, sent or not.
    pub uncovered: u64,
}

impl Metrics {
    /// Forwarding has got so far.
    pub fn forwarded(&self, forwarded: Forwarded) {
        self.kafka.forwarded.inc_by(forwarded.new);
        self.kafka.acknowledged.set(i64::try_from(forwarded.acknowledged).unwrap_or(i64::MAX));
        self.kafka.uncovered.set(i64::try_from(forwarded.uncovered).unwrap_or(i64::MAX));
        self.kafka.under_way.set(i64::try_from(forwarded.under_way).unwrap_or(i64::MAX));
    }

    /// Whether a quota makes the `producer` or the `consumer` wait: how long, and what to do.
    pub fn kafka_quota(&self, client: &'static str, held_up: Option<(Duration, &str)>) {
        let wait = held_up.map_or(0.0, |(wait, _)| wait.as_secs_f64());
        self.kafka.throttled.get_or_create_owned(&[("client", client.to_string())]).set(wait);
        let alarm = format!("kafka/{client}-quota");
        match held_up {
            Some((_, why)) => self.alarms().raise(&alarm, why),
            None => self.alarms().clear(&alarm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::value;
    use super::*;

    #[test]
    fn a_quota_is_a_number_and_an_alarm_of_its_client_while_it_holds_it_up() {
        let metrics = Metrics::new();
        metrics.kafka_quota("producer", Some((Duration::from_millis(2_500), "ask for more")));
        metrics.kafka_quota("consumer", None);
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_kafka_throttled_seconds{client=\"producer\"}"), 2.5);
        assert_eq!(value(&text, "tickmint_kafka_throttled_seconds{client=\"consumer\"}"), 0.0);
        let alarms = metrics.alarms().list();
        let alarms: Vec<_> = alarms.iter().map(|alarm| (alarm.name.as_str(), alarm.why.as_str())).collect();
        assert_eq!(alarms, [("kafka/producer-quota", "ask for more")]);
        metrics.kafka_quota("producer", None);
        assert_eq!(value(&metrics.encode(&[]), "tickmint_kafka_throttled_seconds{client=\"producer\"}"), 0.0);
        assert_eq!(metrics.alarms().list(), []);
    }
}
