//! Bronze: what was archived, what waits, and the requests to the store.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ByLabel, Label, seconds};
use super::{Float, Metrics};
use crate::domain::chain::{Body, DataRange, Slot};
use crate::domain::identity::{LogId, Micros};
use crate::domain::stream::{PerStream, Stream};
use crate::telemetry::alarms::unix_ms;

type StoreLabels = [(&'static str, &'static str); 2];

#[derive(Debug)]
pub(in crate::telemetry) struct BronzeMetrics {
    pub(in crate::telemetry) records: Counter,
    pub(in crate::telemetry) objects: Counter,
    pub(in crate::telemetry) bytes: Counter,
    pub(in crate::telemetry) slots: Counter,
    poison: Counter,
    pub(in crate::telemetry) lag_records: Gauge,
    pub(in crate::telemetry) lag_seconds: Float,
}

#[derive(Debug)]
pub(super) struct StoreMetrics {
    errors: ByLabel,
    seconds: Family<StoreLabels, Histogram, fn() -> Histogram>,
}

impl BronzeMetrics {
    pub(super) fn register(r: &mut Registry) -> PerStream<BronzeMetrics> {
        let [records, objects, bytes, slots, poison] = std::array::from_fn(|_| Family::<Label, Counter>::default());
        let (lag_records, lag_seconds) = (Family::<Label, Gauge>::default(), Family::<Label, Float>::default());
        let bronze = Stream::ALL.map(|stream| {
            let label = [("stream", stream.name().to_string())];
            BronzeMetrics {
                records: records.get_or_create_owned(&label),
                objects: objects.get_or_create_owned(&label),
                bytes: bytes.get_or_create_owned(&label),
                slots: slots.get_or_create_owned(&label),
                poison: poison.get_or_create_owned(&label),
                lag_records: lag_records.get_or_create_owned(&label),
                lag_seconds: lag_seconds.get_or_create_owned(&label),
            }
        });
        r.register("bronze_records", "Records archived", records);
        r.register("bronze_objects", "Objects written and committed, raw and typed", objects);
        r.register("bronze_bytes", "Bytes of these objects", bytes);
        r.register("bronze_slots", "Slots decided, empty ones included", slots);
        r.register("bronze_poison", "Records left out of typed because their writer died of them", poison);
        r.register("bronze_lag_records", "Records that are durable and not archived", lag_records);
        r.register_with_unit("bronze_lag", "Age of the oldest of these", Unit::Seconds, lag_seconds);
        bronze
    }
}

impl StoreMetrics {
    pub(super) fn register(r: &mut Registry) -> StoreMetrics {
        let store = StoreMetrics {
            errors: ByLabel::new("operation", []),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
        };
        r.register("store_errors", "Requests to the store that failed, by operation", store.errors.family.clone());
        let help = "Requests to the store, by operation and outcome";
        r.register_with_unit("store_request", help, Unit::Seconds, store.seconds.clone());
        store
    }
}

impl Metrics {
    /// A slot of ours was decided.
    pub fn slot_decided(&self, slot: &Slot) {
        let bronze = &self.bronze[slot.stream.index()];
        bronze.slots.inc();
        if let Some(data) = slot.data() {
            bronze.records.inc_by(data.rows);
            bronze.objects.inc_by(2);
            bronze.bytes.inc_by(data.raw.bytes + data.typed.bytes);
            self.poison(slot.stream, data);
        }
        if let Body::Gap { end, reason } = &slot.body {
            let why = format!("the log lost offsets {} to {end} before they were archived: {reason}", slot.position.start);
            self.alarms.raise(&format!("bronze/{}/hole", slot.stream), why);
        }
        self.archive_works(slot.stream);
    }

    /// Stays an alarm as long as the process lives: what it is about stays in quarantine.
    fn poison(&self, stream: Stream, data: &DataRange) {
        let bronze = &self.bronze[stream.index()];
        bronze.poison.inc_by(data.poison.len() as u64);
        if !data.poison.is_empty() {
            let why = format!(
                "the writer died three times of each of {} records; they are in raw, not in typed, and in Silver's quarantine with \
                 reason `poison`; the last ones are in {}: please report them",
                bronze.poison.get(),
                data.raw.key,
            );
            self.alarms.raise(&format!("bronze/{stream}/poison"), why);
        }
    }

    /// How much of a stream is durable and not archived, and since when the oldest of it waits.
    pub fn archive_lag(&self, stream: Stream, records: u64, oldest: Option<Micros>) {
        let bronze = &self.bronze[stream.index()];
        bronze.lag_records.set(i64::try_from(records).unwrap_or(i64::MAX));
        let seconds = oldest.map_or(0.0, |at| (unix_ms() as f64 / 1e3 - at as f64 / 1e6).max(0.0));
        bronze.lag_seconds.set(seconds);
    }

    /// A stream cannot be archived, and it will be tried again.
    pub fn archive_failed(&self, stream: Stream, error: &dyn std::fmt::Display) {
        self.alarms.raise(&format!("bronze/{stream}"), error.to_string());
    }

    /// A log ends before what was archived of it: somebody has put an old copy of it back. Stays an alarm as long
    /// as the process lives.
    pub fn log_lost_its_end(&self, stream: Stream, log: LogId, tail: u64) {
        let why = format!(
            "log {log} ends before offset {tail}, up to which it is archived: what is archived is kept; was an old copy put back?"
        );
        self.alarms.raise(&format!("bronze/{stream}/log"), why);
    }

    /// A stream is archived, or there is nothing to archive.
    pub fn archive_works(&self, stream: Stream) {
        self.alarms.clear(&format!("bronze/{stream}"));
    }

    /// Hours cannot be declared complete, or they can again.
    pub fn sealing(&self, error: Option<&dyn std::fmt::Display>) {
        match error {
            Some(error) => self.alarms.raise("bronze/hours", format!("hours cannot be declared complete: {error}")),
            None => self.alarms.clear("bronze/hours"),
        }
    }

    /// A request to the store was answered, or failed.
    pub fn store_request(&self, operation: &'static str, took: Duration, outcome: StoreOutcome) {
        let labels = [("operation", operation), ("outcome", outcome.name())];
        self.store.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if matches!(outcome, StoreOutcome::Retry | StoreOutcome::Refused) {
            self.store.errors.add(operation, 1);
        }
    }
}

/// How a request to the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It was answered.
    Ok,
    /// The store did not answer, or asked to be left alone: it will be tried again.
    Retry,
    /// The store said no.
    Refused,
    /// Whoever asked did not wait for the answer.
    GivenUp,
}

impl StoreOutcome {
    fn name(self) -> &'static str {
        match self {
            StoreOutcome::Ok => "ok",
            StoreOutcome::Retry => "retry",
            StoreOutcome::Refused => "refused",
            StoreOutcome::GivenUp => "given_up",
        }
    }
}
