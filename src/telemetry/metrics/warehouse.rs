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

impl WarehouseMetrics {
    pub(super) fn register(r: &mut Registry) -> WarehouseMetrics {
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
            Some(without) => self.alarms.raise("warehouse", without.to_string()),
        }
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
