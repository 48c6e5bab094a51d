//! Every metric, by name, with the functions that move it.
//!
//! One [`Metrics`] is shared by all actors. Its functions are called once a batch, never wait, and
//! raise or clear the alarm that belongs to what they are told, so that the two never disagree.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::alarms::{Alarms, unix_ms};
use super::process;
use crate::domain::stream::PerStream;
use crate::supervisor::{Report, State};

mod bronze;
mod feed;
mod kafka;
mod labels;
mod spool;
mod warehouse;

pub use bronze::{StoreOutcome, alarm_of};
pub use feed::ShardMetrics;
pub use kafka::Forwarded;
pub use warehouse::{Failing, LatestRun};

use bronze::{BronzeMetrics, StoreMetrics};
use feed::{FeedCounters, ShardFamilies};
use kafka::KafkaMetrics;
use labels::Label;
use spool::SpoolMetrics;
use warehouse::WarehouseMetrics;

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Float = Gauge<f64, AtomicU64>;

/// All metrics and alarms of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    alarms: Alarms,
    started_ms: u64,
    pub(in crate::telemetry) shards: Mutex<BTreeMap<String, Arc<ShardMetrics>>>,
    shard_families: ShardFamilies,
    pub(in crate::telemetry) feed: FeedCounters,
    pub(in crate::telemetry) spool: SpoolMetrics,
    pub(in crate::telemetry) bronze: PerStream<BronzeMetrics>,
    store: StoreMetrics,
    kafka: KafkaMetrics,
    pub(in crate::telemetry) warehouse: WarehouseMetrics,
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

        let shards = ShardFamilies::register(r);
        let feed = FeedCounters::register(r);
        let spool = SpoolMetrics::register(r);
        let bronze = BronzeMetrics::register(r);
        let store = StoreMetrics::register(r);
        let kafka = KafkaMetrics::register(r);
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
            store,
            kafka,
            warehouse,
        }
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
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::*;
    use crate::supervisor::Restart;

    pub(super) fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    #[test]
    fn times_are_histograms_of_seconds() {
        let metrics = Metrics::new();
        metrics.appended(Duration::from_millis(2), [5, 0, 1]);
        metrics.frames_durable([1_000_000, 1_004_000], 1_006_000);
        metrics.store_request("put", Duration::from_millis(40), StoreOutcome::Retry);
        metrics.refined(3, 1.5, BTreeMap::from([("silver.trades".into(), 70)]), None);
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
        metrics.archive_failed("bronze/trades", &"put x: no route");
        metrics.refine_failed("gold", &"dbt says no", None);
        metrics.spool_disk(Some(&"no space"));
        let names: Vec<_> = metrics.alarms().list().into_iter().map(|alarm| alarm.name).collect();
        assert_eq!(names, ["bronze/trades", "spool/disk", "warehouse"]);
        metrics.archive_works("bronze/gaps");
        assert_eq!(metrics.alarms().list().len(), 3, "another stream says nothing of this one");
        metrics.archive_works("bronze/trades");
        metrics.refined(4, 1.5, BTreeMap::new(), Some(&"an object is gone"));
        assert_eq!(metrics.alarms().list()[1].why, "an object is gone", "Gold is published, and lacks something");
        metrics.warehouse_up_to_date();
        metrics.spool_disk(None);
        assert_eq!(metrics.alarms().list(), []);
    }

    #[test]
    fn a_series_of_failed_rounds_has_one_beginning_whoever_tells_of_it() {
        let metrics = Metrics::new();
        let told = |since: &str, rounds| Failing {
            since: since.parse().unwrap(),
            rounds,
            phase: "test".into(),
            error: "unique: 1 result".into(),
        };
        let alarm = |metrics: &Metrics| {
            let alarms = metrics.alarms().list();
            alarms.first().map(|alarm| (alarm.since_ms, alarm.why.clone()))
        };
        // Of lives before this one the warehouse's book knows.
        metrics.warehouse_greets(7, Some(told("2026-11-23T15:00:00Z", 3)));
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_warehouse_failing_since_timestamp_seconds"), 1_795_446_000.0);
        assert_eq!(value(&text, "tickmint_warehouse_failed_rounds"), 3.0);
        assert_eq!(value(&text, "tickmint_warehouse_failures_total"), 0.0, "none in this life");
        assert_eq!(value(&text, "tickmint_warehouse_run_number"), 7.0);
        let (since_ms, why) = alarm(&metrics).unwrap();
        assert_eq!(since_ms, 1_795_446_000_000);
        assert!(why.contains("3 failed") && why.contains("in test: unique: 1 result"), "{why}");
        metrics.refine_failed("gold", &"it is gone", None);
        let failing = metrics.failing().unwrap();
        assert_eq!((failing.rounds, failing.phase.as_str(), failing.error.as_str()), (4, "gold", "it is gone"));
        // A new warehouse knows less than this process.
        metrics.refine_failed("x", &"", Some(told("2026-11-23T16:00:00Z", 1)));
        let failing = metrics.failing().unwrap();
        assert_eq!((failing.since.to_string().as_str(), failing.rounds), ("2026-11-23T15:00:00Z", 5));
        metrics.warehouse_greets(7, None);
        assert_eq!(metrics.failing(), Some(failing), "it did not see it");
        metrics.refined(8, 1.0, BTreeMap::new(), Some(&"an object is gone"));
        assert_eq!(metrics.failing(), None);
        let (since_ms, why) = alarm(&metrics).unwrap();
        assert!(since_ms > 1_795_446_000_000 && why == "an object is gone", "another trouble, with its own beginning");
        metrics.refine_failed("gold", &"dbt says no", None);
        assert!(metrics.failing().unwrap().since_ms() >= metrics.started_ms());
        metrics.warehouse_up_to_date();
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_warehouse_failing_since_timestamp_seconds"), 0.0);
        assert_eq!(value(&text, "tickmint_warehouse_failed_rounds"), 0.0);
        assert_eq!((alarm(&metrics), metrics.failing()), (None, None));
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

    /// A family without a member is not in the text, so the names are taken from where they are registered.
    #[test]
    fn each_metric_is_in_the_docs_and_no_other() {
        let sources = [
            include_str!("metrics.rs"),
            include_str!("metrics/bronze.rs"),
            include_str!("metrics/feed.rs"),
            include_str!("metrics/kafka.rs"),
            include_str!("metrics/spool.rs"),
            include_str!("metrics/warehouse.rs"),
        ];
        let calls = sources.iter().flat_map(|text| text.split("register").skip(1));
        let named =
            calls.filter_map(|call| call.trim_start_matches("_with_unit").strip_prefix('(')?.trim_start().strip_prefix('"'));
        let named: BTreeSet<_> = named.filter_map(|call| call.split('"').next()).collect();
        let docs = include_str!("../../docs/operations.md").split('`');
        let told = docs.filter_map(|word| word.strip_prefix("tickmint_").or_else(|| word.strip_prefix("process_")));
        let told = told.filter(|word| !word.contains('{')).map(|word| {
            let counted = word.trim_end_matches("_total");
            let bare = counted.trim_end_matches("_seconds").trim_end_matches("_bytes");
            if named.contains(counted) { counted } else { bare }
        });
        assert_eq!(told.collect::<BTreeSet<_>>(), named);
    }
}
