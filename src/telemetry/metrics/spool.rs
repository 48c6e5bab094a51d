//! The spool: its size, its fsyncs, and how long a message waits for them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::labels::{Label, seconds};
use crate::domain::identity::Micros;
use crate::domain::stream::{PerStream, Stream};

/// A spool this full, its reserve aside, raises an alarm long before anything is missed.
const SPOOL_ALARM: f64 = 0.8;

#[derive(Debug)]
pub(in crate::telemetry) struct SpoolMetrics {
    pub(in crate::telemetry) bytes: Gauge,
    pub(in crate::telemetry) limit: Gauge,
    pub(in crate::telemetry) durable: PerStream<Counter>,
    appends: Counter,
    fsync: Histogram,
    frame_to_durable: Histogram,
    pub(in crate::telemetry) latest_micros: AtomicU64,
}

impl SpoolMetrics {
    pub(super) fn register(r: &mut Registry) -> SpoolMetrics {
        let records: Family<Label, Counter> = Family::default();
        let spool = SpoolMetrics {
            bytes: Gauge::default(),
            limit: Gauge::default(),
            durable: Stream::ALL.map(|stream| records.get_or_create_owned(&[("stream", stream.name().to_string())])),
            appends: Counter::default(),
            fsync: seconds(),
            frame_to_durable: seconds(),
            latest_micros: AtomicU64::new(0),
        };
        r.register("spool_records", "Records made durable, by stream", records);
        r.register_with_unit("spool_used", "What the spool takes of the disk", Unit::Bytes, spool.bytes.clone());
        r.register_with_unit("spool_limit", "What the spool may take of the disk", Unit::Bytes, spool.limit.clone());
        r.register("spool_appends", "Groups of entries that were fsynced together", spool.appends.clone());
        r.register_with_unit("spool_fsync", "One group's write and fsync", Unit::Seconds, spool.fsync.clone());
        let help = "From the receipt of a message until it is durable";
        r.register_with_unit("frame_to_durable", help, Unit::Seconds, spool.frame_to_durable.clone());
        spool
    }
}

impl Metrics {
    /// A group of entries was written and fsynced in so long; these records are durable now.
    pub fn appended(&self, took: Duration, records: PerStream<u64>) {
        self.spool.appends.inc();
        self.spool.fsync.observe(took.as_secs_f64());
        for (counter, n) in self.spool.durable.iter().zip(records) {
            counter.inc_by(n);
        }
    }

    /// Messages received at these times are durable at `now`.
    pub fn frames_durable(&self, received_at: impl IntoIterator<Item = Micros>, now: Micros) {
        let mut longest = None;
        for at in received_at {
            let micros = u64::try_from(now - at).unwrap_or_default();
            self.spool.frame_to_durable.observe(micros as f64 / 1e6);
            longest = longest.max(Some(micros));
        }
        if let Some(micros) = longest {
            self.spool.latest_micros.store(micros, Relaxed);
        }
    }

    /// How much of the disk the spool takes, and may take; trades may not have the last `reserve` of it.
    pub fn spool_used(&self, used: u64, limit: u64, reserve: u64) {
        self.spool.bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.spool.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        let share = used as f64 / limit.saturating_sub(reserve).max(1) as f64;
        if share >= SPOOL_ALARM {
            let why = format!(
                "{:.0} % of `spool.max_bytes` less `spool.reserve_bytes` are used: Bronze does not take what it holds",
                share * 100.0
            );
            self.alarms.raise("spool", why);
        } else {
            self.alarms.clear("spool");
        }
    }

    /// The spool's disk refuses, or takes again what it is given.
    pub fn spool_disk(&self, refusal: Option<&dyn std::fmt::Display>) {
        match refusal {
            Some(error) => self.alarms.raise("spool/disk", error.to_string()),
            None => self.alarms.clear("spool/disk"),
        }
    }

    /// What Bronze has cannot be deleted, or it can again.
    pub fn spool_deletes(&self, refusal: Option<&dyn std::fmt::Display>) {
        match refusal {
            Some(error) => self.alarms.raise("spool/delete", format!("archived segments cannot be deleted: {error}")),
            None => self.alarms.clear("spool/delete"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::value;
    use super::*;

    #[test]
    fn a_spool_that_fills_raises_an_alarm_before_it_is_full() {
        let metrics = Metrics::new();
        metrics.spool_used(79, 100, 0);
        assert_eq!(metrics.alarms().list(), []);
        metrics.spool_used(80, 100, 0);
        assert!(metrics.alarms().list()[0].why.starts_with("80 % of `spool.max_bytes`"));
        // With a large reserve nothing is taken any more from 60 on.
        metrics.spool_used(47, 100, 40);
        assert_eq!(metrics.alarms().list(), []);
        metrics.spool_used(48, 100, 40);
        assert_eq!(metrics.alarms().list()[0].name, "spool");
        metrics.spool_used(10, 100, 40);
        assert_eq!(metrics.alarms().list(), []);
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_spool_used_bytes"), 10.0);
        assert_eq!(value(&text, "tickmint_spool_limit_bytes"), 100.0);
    }
}
