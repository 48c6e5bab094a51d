//! Kafka: what was forwarded, and what waits there.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;

#[derive(Debug, Default)]
pub(in crate::telemetry) struct KafkaMetrics {
    forwarded: Counter,
    acknowledged: Gauge,
    under_way: Gauge,
    uncovered: Gauge,
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
}
