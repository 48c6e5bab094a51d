//! Every metric, by name, with the functions that move it.
//!
//! One [`Metrics`] is shared by all actors. Its functions are called once a batch, never wait, and
//! raise or clear the alarm that belongs to what they are told, so that the two never disagree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::alarms::{Alarms, unix_ms};
use super::process;
use crate::domain::chain::{Body, Slot};
use crate::domain::identity::Micros;
use crate::domain::stream::{PerStream, Stream};
use crate::domain::verdict::{Flags, JudgedFrame, Reason, Verdict};
use crate::supervisor::{Report, State};

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A spool this full raises an alarm, long before anything is missed.
const SPOOL_ALARM: f64 = 0.85;

type Float = Gauge<f64, AtomicU64>;
type Label = [(&'static str, String); 1];
type StoreLabels = [(&'static str, &'static str); 2];

/// All metrics and alarms of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    alarms: Alarms,
    started_ms: u64,
    pub(super) shards: Mutex<BTreeMap<String, Arc<ShardMetrics>>>,
    shard_families: ShardFamilies,
    pub(super) feed: FeedCounters,
    pub(super) spool: SpoolMetrics,
    pub(super) bronze: PerStream<BronzeMetrics>,
    store_errors: ByLabel,
    store_seconds: Family<StoreLabels, Histogram, fn() -> Histogram>,
    pub(super) warehouse: WarehouseMetrics,
}

/// Counters of one name that differ in one label; knows the values that have occurred.
#[derive(Debug)]
pub(super) struct ByLabel {
    label: &'static str,
    family: Family<Label, Counter>,
    known: Mutex<BTreeMap<String, Counter>>,
}

#[derive(Debug, Default)]
struct ShardFamilies {
    connected: Family<Label, Gauge>,
    frames: Family<Label, Counter>,
    bytes: Family<Label, Counter>,
    last_frame: Family<Label, Float>,
    stale: Family<Label, Gauge>,
    disconnects: Family<[(&'static str, String); 2], Counter>,
}

/// One connection's metrics: its session holds them.
#[derive(Debug)]
pub struct ShardMetrics {
    metrics: MetricsOfShard,
    disconnects: Family<[(&'static str, String); 2], Counter>,
    alarm: String,
    name: String,
    pub(super) disconnected: AtomicU64,
    pub(super) last_frame_at: AtomicI64,
}

#[derive(Debug)]
pub(super) struct MetricsOfShard {
    pub(super) connected: Gauge,
    pub(super) frames: Counter,
    bytes: Counter,
    last_frame: Float,
    pub(super) stale: Gauge,
}

#[derive(Debug)]
pub(super) struct FeedCounters {
    pub(super) judged: Counter,
    pub(super) trades: Counter,
    pub(super) flagged: ByLabel,
    pub(super) quarantined: ByLabel,
    pub(super) gaps: ByLabel,
}

#[derive(Debug)]
pub(super) struct SpoolMetrics {
    pub(super) bytes: Gauge,
    pub(super) limit: Gauge,
    pub(super) durable: PerStream<Counter>,
    appends: Counter,
    fsync: Histogram,
    frame_to_durable: Histogram,
    pub(super) latest_micros: AtomicU64,
}

#[derive(Debug)]
pub(super) struct BronzeMetrics {
    pub(super) records: Counter,
    pub(super) objects: Counter,
    pub(super) bytes: Counter,
    pub(super) slots: Counter,
    pub(super) lag_records: Gauge,
    pub(super) lag_seconds: Float,
}

#[derive(Debug)]
pub(super) struct WarehouseMetrics {
    pub(super) runs: Counter,
    pub(super) failures: Counter,
    seconds: Histogram,
    rows: Family<Label, Gauge>,
    pub(super) run: Gauge,
    last_success: Float,
    pub(super) latest: Mutex<LatestRun>,
}

/// What the last run that was published did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct LatestRun {
    /// Its number.
    pub run: u64,
    /// How long it took.
    pub seconds: f64,
    /// When it was published, in milliseconds of Unix time.
    pub at_ms: u64,
    /// Rows by table, as `silver.trades`.
    pub rows: BTreeMap<String, u64>,
}

impl ByLabel {
    /// Shows `known` from the start, so that their first increase is one.
    fn new(label: &'static str, known: impl IntoIterator<Item = &'static str>) -> ByLabel {
        let counters = ByLabel { label, family: Family::default(), known: Mutex::default() };
        known.into_iter().for_each(|value| counters.add(value, 0));
        counters
    }

    fn add(&self, value: &str, n: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(value) {
            Some(counter) => drop(counter.inc_by(n)),
            None => {
                let counter = self.family.get_or_create_owned(&[(self.label, value.to_string())]);
                counter.inc_by(n);
                known.insert(value.into(), counter);
            }
        }
    }

    pub(super) fn values(&self) -> BTreeMap<String, u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(value, counter)| (value.clone(), counter.get())).collect()
    }
}

/// From 100 us (an fsync of an NVMe disk) to 100 s (a store that is away).
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 10f64.powf(1.0 / 3.0), 19))
}

/// From 0.1 s to about 15 min.
fn long_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.5, 11))
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Their names and what they mean.
impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("tickmint");
        let r = &mut registry;
        let build: Family<Label, Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_string())]).set(1);
        r.register("build_info", "The version that runs", build);

        let shards = ShardFamilies::default();
        r.register("feed_connected", "Whether the shard's connection is up", shards.connected.clone());
        r.register("feed_frames", "Messages received", shards.frames.clone());
        r.register("feed_bytes", "Bytes of messages received", shards.bytes.clone());
        let help = "When the last message came, in Unix time";
        r.register_with_unit("feed_last_frame_timestamp", help, Unit::Seconds, shards.last_frame.clone());
        r.register("feed_stale_symbols", "Symbols without a trade for `feed.stale_after`", shards.stale.clone());
        r.register("feed_disconnects", "Connections that have ended, by reason", shards.disconnects.clone());

        let feed = FeedCounters {
            judged: Counter::default(),
            trades: Counter::default(),
            flagged: ByLabel::new("flag", FLAGS.iter().flat_map(|flag| flag.names())),
            quarantined: ByLabel::new("reason", Reason::ALL.map(Reason::name)),
            gaps: ByLabel::new("reason", []),
        };
        r.register("frames", "Messages that have been validated", feed.judged.clone());
        r.register("trades", "Trades that have been validated", feed.trades.clone());
        r.register("trades_flagged", "Trades that are odd, by what is odd about them", feed.flagged.family.clone());
        r.register("quarantined", "What is no trade, by reason", feed.quarantined.family.clone());
        r.register("gaps", "Outages of the feed that were recorded from end to end, by reason", feed.gaps.family.clone());

        let spool = SpoolMetrics::register(r);
        let bronze = BronzeMetrics::register(r);
        let store_errors = ByLabel::new("operation", []);
        r.register("store_errors", "Requests to the store that failed, by operation", store_errors.family.clone());
        let store_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        let help = "Requests to the store, by operation and outcome";
        r.register_with_unit("store_request", help, Unit::Seconds, store_seconds.clone());
        let warehouse = WarehouseMetrics::register(r);

        Metrics {
            registry,
            alarms: Alarms::default(),
            started_ms: unix_ms(),
            shards: Mutex::default(),
            shard_families: shards,
            feed,
            spool,
            bronze,
            store_errors,
            store_seconds,
            warehouse,
        }
    }
}

impl SpoolMetrics {
    fn register(r: &mut Registry) -> SpoolMetrics {
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

impl BronzeMetrics {
    fn register(r: &mut Registry) -> PerStream<BronzeMetrics> {
        let [records, objects, bytes, slots] = std::array::from_fn(|_| Family::<Label, Counter>::default());
        let (lag_records, lag_seconds) = (Family::<Label, Gauge>::default(), Family::<Label, Float>::default());
        let bronze = Stream::ALL.map(|stream| {
            let label = [("stream", stream.name().to_string())];
            BronzeMetrics {
                records: records.get_or_create_owned(&label),
                objects: objects.get_or_create_owned(&label),
                bytes: bytes.get_or_create_owned(&label),
                slots: slots.get_or_create_owned(&label),
                lag_records: lag_records.get_or_create_owned(&label),
                lag_seconds: lag_seconds.get_or_create_owned(&label),
            }
        });
        r.register("bronze_records", "Records archived", records);
        r.register("bronze_objects", "Objects written and committed, raw and typed", objects);
        r.register("bronze_bytes", "Bytes of these objects", bytes);
        r.register("bronze_slots", "Slots decided, empty ones included", slots);
        r.register("bronze_lag_records", "Records that are durable and not archived", lag_records);
        r.register_with_unit("bronze_lag", "Age of the oldest of these", Unit::Seconds, lag_seconds);
        bronze
    }
}

impl WarehouseMetrics {
    fn register(r: &mut Registry) -> WarehouseMetrics {
        let warehouse = WarehouseMetrics {
            runs: Counter::default(),
            failures: Counter::default(),
            seconds: long_seconds(),
            rows: Family::default(),
            run: Gauge::default(),
            last_success: Float::default(),
            latest: Mutex::default(),
        };
        r.register("warehouse_runs", "Runs that were published", warehouse.runs.clone());
        r.register("warehouse_failures", "Runs that failed", warehouse.failures.clone());
        r.register_with_unit("warehouse_run", "Runs that were published", Unit::Seconds, warehouse.seconds.clone());
        r.register("warehouse_rows", "Rows by table", warehouse.rows.clone());
        r.register("warehouse_run_number", "The run that is published", warehouse.run.clone());
        let help = "When the warehouse was last up to date, in Unix time";
        r.register_with_unit("warehouse_last_success_timestamp", help, Unit::Seconds, warehouse.last_success.clone());
        warehouse
    }
}

/// Where trades come from.
impl Metrics {
    /// The metrics of a shard; the same ones each time.
    pub fn shard(&self, name: &str) -> Arc<ShardMetrics> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (label, families) = ([("shard", name.to_string())], &self.shard_families);
            Arc::new(ShardMetrics {
                metrics: MetricsOfShard {
                    connected: families.connected.get_or_create_owned(&label),
                    frames: families.frames.get_or_create_owned(&label),
                    bytes: families.bytes.get_or_create_owned(&label),
                    last_frame: families.last_frame.get_or_create_owned(&label),
                    stale: families.stale.get_or_create_owned(&label),
                },
                disconnects: families.disconnects.clone(),
                alarm: format!("feed/{name}"),
                name: name.into(),
                disconnected: AtomicU64::new(0),
                last_frame_at: AtomicI64::new(0),
            })
        };
        shards.entry(name.into()).or_insert_with(new).clone()
    }

    /// A shard's connection is up.
    pub fn connected(&self, shard: &ShardMetrics) {
        shard.metrics.connected.set(1);
        self.alarms.clear(&shard.alarm);
    }

    /// A shard's connection has ended: `stalled`, `closed_by_server`... Ends in good order raise no
    /// alarm.
    pub fn disconnected(&self, shard: &ShardMetrics, reason: &'static str) {
        shard.metrics.connected.set(0);
        shard.disconnected.fetch_add(1, Relaxed);
        let labels = [("shard", shard.name.clone()), ("reason", reason.to_string())];
        shard.disconnects.get_or_create(&labels).inc();
        if reason != "shutdown" {
            self.alarms.raise(&shard.alarm, format!("no connection: {reason}"));
        }
    }

    /// A shard cannot connect.
    pub fn unreachable(&self, shard: &ShardMetrics, error: &dyn std::fmt::Display) {
        self.alarms.raise(&shard.alarm, format!("no connection: {error}"));
    }

    /// What validation made of a batch.
    pub fn judged(&self, frames: &[JudgedFrame]) {
        let (mut trades, mut flagged, mut quarantined) = (0, [0; 3], [0; Reason::ALL.len()]);
        for element in frames.iter().flat_map(|judged| &judged.elements) {
            match &element.verdict {
                Verdict::Trade(flags) => {
                    trades += 1;
                    for (count, flag) in flagged.iter_mut().zip(FLAGS) {
                        *count += u64::from(flags.has(flag));
                    }
                }
                Verdict::Quarantined { reason, .. } => quarantined[*reason as usize] += 1,
            }
        }
        self.feed.judged.inc_by(frames.len() as u64);
        self.feed.trades.inc_by(trades);
        let named = FLAGS.iter().flat_map(|flag| flag.names()).zip(flagged);
        named.filter(|(_, n)| *n > 0).for_each(|(name, n)| self.feed.flagged.add(name, n));
        let named = Reason::ALL.iter().map(|reason| reason.name()).zip(quarantined);
        named.filter(|(_, n)| *n > 0).for_each(|(name, n)| self.feed.quarantined.add(name, n));
    }

    /// An outage of the feed is over, and its gap is durable.
    pub fn gap(&self, reason: &str) {
        self.feed.gaps.add(reason, 1);
    }
}

const FLAGS: [Flags; 3] = [Flags::TIME_SUSPECT, Flags::PRICE_UPDATE, Flags::FRAME_REPEAT];

impl ShardMetrics {
    /// Messages were read from the socket, the last of them at that time.
    pub fn received(&self, frames: u64, bytes: u64, at: Micros) {
        self.metrics.frames.inc_by(frames);
        self.metrics.bytes.inc_by(bytes);
        self.metrics.last_frame.set(at as f64 / 1e6);
        self.last_frame_at.store(at, Relaxed);
    }

    /// So many of its symbols have been silent for long.
    pub fn stale(&self, symbols: usize) {
        self.metrics.stale.set(symbols as i64);
    }

    pub(super) fn numbers(&self) -> &MetricsOfShard {
        &self.metrics
    }
}

/// The spool.
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

    /// How much of the disk the spool takes, and may take.
    pub fn spool_used(&self, used: u64, limit: u64) {
        self.spool.bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.spool.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        let share = used as f64 / limit.max(1) as f64;
        if share >= SPOOL_ALARM {
            let why = format!("{:.0} % of `spool.max_bytes` are used: Bronze does not take what it holds", share * 100.0);
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
}

/// Bronze.
impl Metrics {
    /// A slot of ours was decided.
    pub fn slot_decided(&self, slot: &Slot) {
        let bronze = &self.bronze[slot.stream.index()];
        bronze.slots.inc();
        if let Some(data) = slot.data() {
            bronze.records.inc_by(data.rows);
            bronze.objects.inc_by(2);
            bronze.bytes.inc_by(data.raw.bytes + data.typed.bytes);
        }
        if let Body::Gap { end, reason } = &slot.body {
            let why = format!("the log lost offsets {} to {end} before they were archived: {reason}", slot.position.start);
            self.alarms.raise(&format!("bronze/{}/hole", slot.stream), why);
        }
        self.archive_works(slot.stream);
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

    /// A stream is archived, or there is nothing to archive.
    pub fn archive_works(&self, stream: Stream) {
        self.alarms.clear(&format!("bronze/{stream}"));
    }

    /// A request to the store was answered, or failed.
    pub fn store_request(&self, operation: &'static str, took: Duration, outcome: StoreOutcome) {
        let labels = [("operation", operation), ("outcome", outcome.name())];
        self.store_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if matches!(outcome, StoreOutcome::Retry | StoreOutcome::Refused) {
            self.store_errors.add(operation, 1);
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

/// The warehouse.
impl Metrics {
    /// A run was published.
    pub fn refined(&self, run: u64, seconds: f64, rows: BTreeMap<String, u64>) {
        self.warehouse.runs.inc();
        self.warehouse.seconds.observe(seconds);
        self.warehouse.run.set(i64::try_from(run).unwrap_or(i64::MAX));
        for (table, rows) in &rows {
            let gauge = self.warehouse.rows.get_or_create_owned(&[("table", table.clone())]);
            gauge.set(i64::try_from(*rows).unwrap_or(i64::MAX));
        }
        let latest = LatestRun { run, seconds, at_ms: unix_ms(), rows };
        *self.warehouse.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
        self.warehouse_up_to_date();
    }

    /// The warehouse has all that is in Bronze.
    pub fn warehouse_up_to_date(&self) {
        self.warehouse.last_success.set(unix_ms() as f64 / 1e3);
        self.alarms.clear("warehouse");
    }

    /// A run failed; Gold stays as it was.
    pub fn refine_failed(&self, error: &dyn std::fmt::Display) {
        self.warehouse.failures.inc();
        self.alarms.raise("warehouse", error.to_string());
    }
}

/// What is shown.
impl Metrics {
    /// What a person should look at.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// When the process began, in milliseconds of Unix time.
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// All of it as OpenMetrics text, with the actors as the supervisor's registry shows them and
    /// the process as the kernel does.
    pub fn encode(&self, actors: &[Report]) -> String {
        let mut text = String::with_capacity(16 << 10);
        encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &self.of_actors(actors)))
            .and_then(|()| encode_registry(&mut text, &self.of_process()))
            .and_then(|()| encode_eof(&mut text))
            .expect("writing to a string cannot fail");
        text
    }

    fn of_actors(&self, actors: &[Report]) -> Registry {
        let mut registry = Registry::with_prefix("tickmint");
        let (restarts, progress) = (Family::<Label, Counter>::default(), Family::<Label, Counter>::default());
        let (states, silence) = (Family::<[(&'static str, String); 2], Gauge>::default(), Family::<Label, Float>::default());
        for actor in actors {
            let label = [("actor", actor.path.clone())];
            restarts.get_or_create(&label).inc_by(u64::from(actor.restarts));
            progress.get_or_create(&label).inc_by(actor.progress);
            silence.get_or_create(&label).set(actor.silence_ms as f64 / 1e3);
            states.get_or_create(&[("actor", actor.path.clone()), ("state", state_name(actor.state).into())]).set(1);
        }
        registry.register("actor_restarts", "Restarts of an actor", restarts);
        registry.register("actor_progress", "Work that an actor has counted", progress);
        registry.register("actor_state", "1 for the state that an actor is in", states);
        registry.register_with_unit("actor_silence", "Time since an actor's loop last turned", Unit::Seconds, silence);
        let alarms = Family::<Label, Gauge>::default();
        for alarm in self.alarms.list() {
            alarms.get_or_create(&[("alarm", alarm.name)]).set(1);
        }
        registry.register("alarm", "1 for each alarm that is raised; /health says why", alarms);
        registry
    }

    /// Under the names that every dashboard knows, so without our prefix.
    fn of_process(&self) -> Registry {
        let usage = process::usage();
        let mut registry = Registry::with_prefix("process");
        let cpu: Counter<f64, AtomicU64> = Counter::default();
        cpu.inc_by(usage.cpu_seconds);
        let whole = |n: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
            gauge
        };
        let start = Float::default();
        start.set(self.started_ms as f64 / 1e3);
        registry.register_with_unit("cpu", "User and system time", Unit::Seconds, cpu);
        registry.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, whole(usage.rss_bytes));
        registry.register("open_fds", "Open file descriptors", whole(usage.open_files));
        registry.register_with_unit("start_time", "When the process began, in Unix time", Unit::Seconds, start);
        registry
    }
}

/// As in `/health`.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Down => "down",
        State::Draining => "draining",
        State::Stopped => "stopped",
        State::Blocked => "blocked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verdict::{Judged, RawFrame};
    use crate::supervisor::Restart;

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    fn judged(verdicts: Vec<Verdict>) -> JudgedFrame {
        let frame = RawFrame { number: 1, received_at: 0, payload: "".into(), binary: false };
        let elements = verdicts.into_iter().map(|verdict| Judged { range: 0..0, verdict }).collect();
        JudgedFrame { frame, elements, traceparent: None }
    }

    #[test]
    fn verdicts_are_counted_by_what_they_are() {
        let metrics = Metrics::new();
        let odd = Verdict::Trade(Flags::TIME_SUSPECT.with(Flags::PRICE_UPDATE));
        let bad = Verdict::Quarantined { reason: Reason::BadPrice, detail: String::new() };
        metrics.judged(&[judged(vec![Verdict::Trade(Flags::default()), odd, bad.clone()]), judged(vec![bad])]);
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_frames_total"), 2.0);
        assert_eq!(value(&text, "tickmint_trades_total"), 2.0);
        assert_eq!(value(&text, "tickmint_trades_flagged_total{flag=\"time_suspect\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_trades_flagged_total{flag=\"price_update\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_quarantined_total{reason=\"bad_price\"}"), 2.0);
        assert_eq!(value(&text, "tickmint_trades_flagged_total{flag=\"frame_repeat\"}"), 0.0);
    }

    #[test]
    fn a_shard_that_loses_its_connection_raises_an_alarm_until_it_has_one() {
        let metrics = Metrics::new();
        let shard = metrics.shard("shard-1");
        metrics.connected(&shard);
        shard.received(3, 99, 1_760_000_000_500_000);
        metrics.disconnected(&metrics.shard("shard-1"), "stalled");
        assert_eq!(metrics.alarms().list()[0].why, "no connection: stalled");
        metrics.unreachable(&shard, &"refused");
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_feed_connected{shard=\"shard-1\"}"), 0.0);
        assert_eq!(value(&text, "tickmint_feed_frames_total{shard=\"shard-1\"}"), 3.0);
        assert_eq!(value(&text, "tickmint_feed_last_frame_timestamp_seconds{shard=\"shard-1\"}"), 1_760_000_000.5);
        assert_eq!(value(&text, "tickmint_feed_disconnects_total{shard=\"shard-1\",reason=\"stalled\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_alarm{alarm=\"feed/shard-1\"}"), 1.0);
        metrics.connected(&shard);
        metrics.disconnected(&shard, "shutdown");
        assert_eq!(metrics.alarms().list(), []);
    }

    #[test]
    fn a_spool_that_fills_raises_an_alarm_before_it_is_full() {
        let metrics = Metrics::new();
        metrics.spool_used(84, 100);
        assert_eq!(metrics.alarms().list(), []);
        metrics.spool_used(85, 100);
        assert!(metrics.alarms().list()[0].why.starts_with("85 % of `spool.max_bytes`"));
        metrics.spool_used(10, 100);
        assert_eq!(metrics.alarms().list(), []);
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_spool_used_bytes"), 10.0);
        assert_eq!(value(&text, "tickmint_spool_limit_bytes"), 100.0);
    }

    #[test]
    fn times_are_histograms_of_seconds() {
        let metrics = Metrics::new();
        metrics.appended(Duration::from_millis(2), [5, 0, 1]);
        metrics.frames_durable([1_000_000, 1_004_000], 1_006_000);
        metrics.store_request("put", Duration::from_millis(40), StoreOutcome::Retry);
        metrics.refined(3, 1.5, BTreeMap::from([("silver.trades".into(), 70)]));
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_spool_fsync_seconds_sum"), 0.002);
        assert_eq!(value(&text, "tickmint_frame_to_durable_seconds_count"), 2.0);
        assert_eq!(value(&text, "tickmint_spool_records_total{stream=\"trades\"}"), 5.0);
        assert_eq!(value(&text, "tickmint_store_errors_total{operation=\"put\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_store_request_seconds_count{operation=\"put\",outcome=\"retry\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_warehouse_run_number"), 3.0);
        assert_eq!(value(&text, "tickmint_warehouse_rows{table=\"silver.trades\"}"), 70.0);
        assert_eq!(metrics.spool.latest_micros.load(Relaxed), 6_000, "the longest of the batch");
    }

    #[test]
    fn what_fails_is_an_alarm_until_it_works() {
        let metrics = Metrics::new();
        metrics.archive_failed(Stream::Trades, &"put x: no route");
        metrics.refine_failed(&"dbt says no");
        metrics.spool_disk(Some(&"no space"));
        let names: Vec<_> = metrics.alarms().list().into_iter().map(|alarm| alarm.name).collect();
        assert_eq!(names, ["bronze/trades", "spool/disk", "warehouse"]);
        metrics.archive_works(Stream::Gaps);
        assert_eq!(metrics.alarms().list().len(), 3, "another stream says nothing of this one");
        metrics.archive_works(Stream::Trades);
        metrics.warehouse_up_to_date();
        metrics.spool_disk(None);
        assert_eq!(metrics.alarms().list(), []);
    }

    #[test]
    fn all_names_are_known_and_the_text_ends_as_openmetrics_does() {
        let actor = Report {
            path: "writers/trades".into(),
            state: State::Down,
            state_ms: 5,
            restart: Restart::Permanent,
            restarts: 3,
            silence_ms: 2_500,
            poll_ms: 0,
            progress: 70,
            last_failure: None,
            notes: BTreeMap::new(),
            gauges: BTreeMap::new(),
        };
        let text = Metrics::new().encode(&[actor]);
        assert_eq!(value(&text, "tickmint_actor_restarts_total{actor=\"writers/trades\"}"), 3.0);
        assert_eq!(value(&text, "tickmint_actor_progress_total{actor=\"writers/trades\"}"), 70.0);
        assert_eq!(value(&text, "tickmint_actor_state{actor=\"writers/trades\",state=\"down\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_actor_silence_seconds{actor=\"writers/trades\"}"), 2.5);
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        for name in &names {
            assert!(name.starts_with("tickmint_") || name.starts_with("process_"), "{name}");
        }
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        for name in
            ["process_cpu_seconds", "process_resident_memory_bytes", "tickmint_actor_restarts", "tickmint_bronze_lag_seconds"]
        {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
