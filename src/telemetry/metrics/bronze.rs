//! Bronze: what was archived, what waits, and the requests to the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ByLabel, Label, seconds};
use super::{Float, Metrics};
use crate::domain::chain::{Body, ChainId, DataRange, Slot};
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
    partitions: Gauge,
    pub(in crate::telemetry) lag_records: Gauge,
    pub(in crate::telemetry) lag_seconds: Float,
    /// Of each partition that this process writes.
    lags: Mutex<BTreeMap<u32, Lag>>,
}

/// How much of a partition is in the log and not archived, and since when the oldest of it waits.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    records: u64,
    oldest: Option<Micros>,
}

#[derive(Debug)]
pub(super) struct StoreMetrics {
    errors: ByLabel,
    seconds: Family<StoreLabels, Histogram, fn() -> Histogram>,
}

impl BronzeMetrics {
    pub(super) fn register(r: &mut Registry) -> PerStream<BronzeMetrics> {
        let [records, objects, bytes, slots, poison] = std::array::from_fn(|_| Family::<Label, Counter>::default());
        let [partitions, lag_records] = std::array::from_fn(|_| Family::<Label, Gauge>::default());
        let lag_seconds = Family::<Label, Float>::default();
        let bronze = Stream::ALL.map(|stream| {
            let label = [("stream", stream.name().to_string())];
            BronzeMetrics {
                records: records.get_or_create_owned(&label),
                objects: objects.get_or_create_owned(&label),
                bytes: bytes.get_or_create_owned(&label),
                slots: slots.get_or_create_owned(&label),
                poison: poison.get_or_create_owned(&label),
                partitions: partitions.get_or_create_owned(&label),
                lag_records: lag_records.get_or_create_owned(&label),
                lag_seconds: lag_seconds.get_or_create_owned(&label),
                lags: Mutex::default(),
            }
        });
        r.register("bronze_records", "Records archived", records);
        r.register("bronze_objects", "Objects written and committed, raw and typed", objects);
        r.register("bronze_bytes", "Bytes of these objects", bytes);
        r.register("bronze_slots", "Slots decided, empty ones included", slots);
        r.register(
            "bronze_poison",
            "Records left out of typed, as their writer died of them or something else than Tickmint has written them",
            poison,
        );
        r.register("bronze_partitions", "Partitions that this daemon archives", partitions);
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

/// A daemon makes a log at each start, and a slot names all that were ever read (ADR 6): so many come of no daemon that works.
const MANY_LOGS: usize = 10_000;
/// About what one takes in a slot.
const BYTES_A_LOG: usize = 60;

/// The alarm of a chain where each stream has several.
pub fn alarm_of(chain: ChainId) -> String {
    format!("bronze/{chain}")
}

impl Metrics {
    /// A slot of ours was decided. `alarm` is the name of what is wrong with its chain.
    pub fn slot_decided(&self, alarm: &str, slot: &Slot) {
        let bronze = &self.bronze[slot.stream.index()];
        bronze.slots.inc();
        if let Some(data) = slot.data() {
            bronze.records.inc_by(data.rows);
            bronze.objects.inc_by(2);
            bronze.bytes.inc_by(data.raw.bytes + data.typed.bytes);
            self.poison(alarm, slot.stream, data);
        }
        if let Body::Gap { end, reason } = &slot.body {
            let why = format!("the log lost offsets {} to {end} before they were archived: {reason}", slot.position.start);
            self.alarms.raise(&format!("{alarm}/hole"), why);
        }
        let logs = slot.carry.read.0.len();
        if logs >= MANY_LOGS {
            let why = format!(
                "each slot hands on what was read of {logs} logs, {} KiB and more with each start of a daemon: one of them is begun \
                 again and again",
                logs * BYTES_A_LOG / 1024
            );
            self.alarms.raise(&format!("{alarm}/logs"), why);
        }
        self.archive_works(alarm);
    }

    /// Stays an alarm as long as the process lives: what it is about stays in quarantine.
    fn poison(&self, alarm: &str, stream: Stream, data: &DataRange) {
        let bronze = &self.bronze[stream.index()];
        bronze.poison.inc_by(data.poison.len() as u64);
        if !data.poison.is_empty() {
            let why = format!(
                "{} records are in raw and in Silver's quarantine (reason `poison`), not in typed; the last ones are in {}. One with \
                 `foreign` in its line there was written into the topic by something else than Tickmint: find out by what. Of each other \
                 the writer has died three times: please report it",
                bronze.poison.get(),
                data.raw.key,
            );
            self.alarms.raise(&format!("{alarm}/poison"), why);
        }
    }

    /// How much of a chain is in its log and not archived, and since when the oldest of it waits.
    pub fn archive_lag(&self, chain: ChainId, records: u64, oldest: Option<Micros>) {
        self.set_lag(chain, |lags| {
            lags.insert(chain.partition, Lag { records, oldest });
        });
    }

    /// This process does not write the chain any more: whoever does, tells what is wrong with it.
    pub fn archive_left(&self, chain: ChainId) {
        let alarm = alarm_of(chain);
        self.alarms.clear(&alarm);
        self.alarms.clear(&format!("{alarm}/log"));
        self.set_lag(chain, |lags| {
            lags.remove(&chain.partition);
        });
    }

    fn set_lag(&self, chain: ChainId, change: impl FnOnce(&mut BTreeMap<u32, Lag>)) {
        let bronze = &self.bronze[chain.stream.index()];
        let mut lags = bronze.lags.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lags);
        let records = lags.values().map(|lag| lag.records).sum::<u64>();
        let oldest = lags.values().filter_map(|lag| lag.oldest).min();
        bronze.partitions.set(i64::try_from(lags.len()).unwrap_or(i64::MAX));
        bronze.lag_records.set(i64::try_from(records).unwrap_or(i64::MAX));
        let seconds = oldest.map_or(0.0, |at| (unix_ms() as f64 / 1e3 - at as f64 / 1e6).max(0.0));
        bronze.lag_seconds.set(seconds);
    }

    /// A chain cannot be archived, and it will be tried again.
    pub fn archive_failed(&self, alarm: &str, error: &dyn std::fmt::Display) {
        self.alarms.raise(alarm, error.to_string());
    }

    /// A log ends before what was archived of it, or does not any more. The spool's never does by itself: somebody has
    /// put an old copy of it back.
    pub fn log_lost_its_end(&self, alarm: &str, lost: Option<(LogId, u64)>) {
        let alarm = format!("{alarm}/log");
        match lost {
            Some((log, tail)) => self.alarms.raise(
                &alarm,
                format!(
                    "log {log} ends before offset {tail}, up to which it is archived: what is archived is kept; was an old copy \
                     put back, or a broker elected that had fallen behind?"
                ),
            ),
            None => self.alarms.clear(&alarm),
        }
    }

    /// A chain is archived, or there is nothing to archive.
    pub fn archive_works(&self, alarm: &str) {
        self.alarms.clear(alarm);
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
