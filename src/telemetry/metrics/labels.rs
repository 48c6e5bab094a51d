//! Counters that differ in a label, and the buckets of histograms.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// One label.
pub(super) type Label = [(&'static str, String); 1];

/// Counters of one name that differ in one label; knows the values that have occurred.
#[derive(Debug)]
pub(in crate::telemetry) struct ByLabel {
    label: &'static str,
    pub(super) family: Family<Label, Counter>,
    known: Mutex<BTreeMap<String, Counter>>,
}

impl ByLabel {
    /// Shows `known` from the start, so that their first increase is one.
    pub(super) fn new(label: &'static str, known: impl IntoIterator<Item = &'static str>) -> ByLabel {
        let counters = ByLabel { label, family: Family::default(), known: Mutex::default() };
        known.into_iter().for_each(|value| counters.add(value, 0));
        counters
    }

    pub(super) fn add(&self, value: &str, n: u64) {
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

    pub(in crate::telemetry) fn values(&self) -> BTreeMap<String, u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(value, counter)| (value.clone(), counter.get())).collect()
    }
}

/// From 100 us (an fsync of an NVMe disk) to 100 s (a store that is away).
pub(super) fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 10f64.powf(1.0 / 3.0), 19))
}

/// From 0.1 s to about 15 min.
pub(super) fn long_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.5, 11))
}
