//! The warehouse: its runs, and what is in it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{Label, long_seconds};
use super::{Float, Metrics};
use crate::telemetry::alarms::unix_ms;

#[derive(Debug)]
pub(in crate::telemetry) struct WarehouseMetrics {
    pub(in crate::telemetry) runs: Counter,
    pub(in crate::telemetry) failures: Counter,
    seconds: Histogram,
    rows: Family<Label, Gauge>,
    pub(in crate::telemetry) run: Gauge,
    last_success: Float,
    failing_since: Float,
    failed_rounds: Gauge,
    failing: Mutex<Option<Failing>>,
    pub(in crate::telemetry) latest: Mutex<LatestRun>,
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

/// Rounds that failed one after another: Gold stays at the version before the first of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failing {
    /// When the first of them failed.
    pub since: jiff::Timestamp,
    /// How many.
    pub rounds: u64,
    /// Where the last one failed: `silver`, `gold`, `test`, `publish`, or before that.
    pub phase: String,
    /// Why the last one failed.
    pub error: String,
}

impl Failing {
    /// When the first of them failed, in milliseconds of Unix time.
    pub fn since_ms(&self) -> u64 {
        u64::try_from(self.since.as_millisecond()).unwrap_or_default()
    }
}

impl WarehouseMetrics {
    pub(super) fn register(r: &mut Registry) -> WarehouseMetrics {
        let warehouse = WarehouseMetrics {
            runs: Counter::default(),
            failures: Counter::default(),
            seconds: long_seconds(),
            rows: Family::default(),
            run: Gauge::default(),
            last_success: Float::default(),
            failing_since: Float::default(),
            failed_rounds: Gauge::default(),
            failing: Mutex::default(),
            latest: Mutex::default(),
        };
        r.register("warehouse_runs", "Runs that were published", warehouse.runs.clone());
        r.register("warehouse_failures", "Runs that failed", warehouse.failures.clone());
        r.register_with_unit("warehouse_run", "Runs that were published", Unit::Seconds, warehouse.seconds.clone());
        r.register("warehouse_rows", "Rows by table", warehouse.rows.clone());
        r.register("warehouse_run_number", "The run that is published", warehouse.run.clone());
        let help = "When the warehouse was last up to date, in Unix time";
        r.register_with_unit("warehouse_last_success_timestamp", help, Unit::Seconds, warehouse.last_success.clone());
        let help = "When the first of the rounds failed that have failed in a row, in Unix time; 0 if the last one was good";
        r.register_with_unit("warehouse_failing_since_timestamp", help, Unit::Seconds, warehouse.failing_since.clone());
        r.register("warehouse_failed_rounds", "Rounds that have failed in a row", warehouse.failed_rounds.clone());
        warehouse
    }
}

impl Metrics {
    /// A run was published.
    pub fn refined(&self, run: u64, seconds: f64, rows: BTreeMap<String, u64>, without: Option<&dyn std::fmt::Display>) {
        self.warehouse.runs.inc();
        self.warehouse.seconds.observe(seconds);
        self.warehouse.run.set(i64::try_from(run).unwrap_or(i64::MAX));
        for (table, rows) in &rows {
            let gauge = self.warehouse.rows.get_or_create_owned(&[("table", table.clone())]);
            gauge.set(i64::try_from(*rows).unwrap_or(i64::MAX));
        }
        let latest = LatestRun { run, seconds, at_ms: unix_ms(), rows };
        *self.warehouse.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
        match without {
            None => self.warehouse_up_to_date(),
            Some(without) => {
                self.set_failing(|_| None);
                self.alarms.raise("warehouse", without.to_string());
            }
        }
    }

    /// The warehouse has all that is in Bronze.
    pub fn warehouse_up_to_date(&self) {
        self.warehouse.last_success.set(unix_ms() as f64 / 1e3);
        self.set_failing(|_| None);
        self.alarms.clear("warehouse");
    }

    /// The warehouse has come up: the run that is published, and what its book says of rounds that failed.
    pub fn warehouse_greets(&self, run: u64, told: Option<Failing>) {
        self.warehouse.run.set(i64::try_from(run).unwrap_or(i64::MAX));
        self.set_failing(|before| match (before, told) {
            (Some(before), Some(told)) => {
                Some(Failing { since: before.since.min(told.since), rounds: before.rounds.max(told.rounds), ..before })
            }
            (before, told) => before.or(told),
        });
    }

    /// A round failed; Gold stays as it was. `told` is what the warehouse's book says of it: a process that is
    /// gone has written nothing down.
    pub fn refine_failed(&self, phase: &str, error: &dyn std::fmt::Display, told: Option<Failing>) {
        self.warehouse.failures.inc();
        let seen = || {
            let since = jiff::Timestamp::from_microsecond(crate::clock::now()).unwrap_or_default();
            Failing { since, rounds: 1, phase: phase.into(), error: error.to_string() }
        };
        self.set_failing(|before| {
            let now = told.unwrap_or_else(seen);
            Some(match before {
                None => now,
                Some(before) => Failing { since: before.since.min(now.since), rounds: now.rounds.max(before.rounds + 1), ..now },
            })
        });
    }

    /// What is wrong with the user's file of positions, if anything.
    pub fn positions(&self, error: Option<&str>) {
        match error {
            None => self.alarms.clear("warehouse/positions"),
            Some(error) => self.alarms.raise("warehouse/positions", error.to_string()),
        }
    }

    /// Slots that are missing from the chains before the warehouse has them.
    pub fn holes(&self, holes: &[impl std::fmt::Display]) {
        match holes {
            [] => self.alarms.clear("warehouse/chains"),
            [hole, ..] => {
                let more = if holes.len() > 1 { format!(" (and in {} other chains)", holes.len() - 1) } else { String::new() };
                self.alarms.raise("warehouse/chains", format!("Silver stands still: {hole}{more}"));
            }
        }
    }

    /// The rounds that have failed in a row.
    pub fn failing(&self) -> Option<Failing> {
        self.warehouse.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its alarm begins and ends with it. One that something else has raised is left alone.
    fn set_failing(&self, change: impl FnOnce(Option<Failing>) -> Option<Failing>) {
        let mut failing = self.warehouse.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failing.take();
        let was_failing = before.is_some();
        *failing = change(before);
        self.warehouse.failing_since.set(failing.as_ref().map_or(0.0, |failing| failing.since_ms() as f64 / 1e3));
        let rounds = failing.as_ref().map_or(0, |failing| failing.rounds);
        self.warehouse.failed_rounds.set(i64::try_from(rounds).unwrap_or(i64::MAX));
        match &*failing {
            Some(failing) => {
                let Failing { rounds, phase, error, .. } = failing;
                let why = format!("Gold stays as it is, {rounds} failed in a row, the last one in {phase}: {error}");
                self.alarms.raise_since("warehouse", failing.since_ms(), why);
            }
            None if was_failing => self.alarms.clear("warehouse"),
            None => {}
        }
    }
}
