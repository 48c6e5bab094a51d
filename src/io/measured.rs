//! Any store, its requests counted and timed.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::store::{Created, S3Access, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::StoreOutcome;

/// See the module.
pub struct Measured {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Measured {
    /// Tells `metrics` of what is asked of `store`.
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Measured {
        Measured { store, metrics }
    }

    fn measure<'a, T>(
        &'a self,
        operation: &'static str,
        request: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>>
    where
        T: Send + 'a,
    {
        Box::pin(async move {
            let mut running =
                Running { metrics: &self.metrics, operation, since: Instant::now(), outcome: StoreOutcome::GivenUp };
            let answer = request.await;
            running.outcome = match &answer {
                Ok(_) => StoreOutcome::Ok,
                Err(StoreError::Retry { .. }) => StoreOutcome::Retry,
                Err(StoreError::Refused { .. }) => StoreOutcome::Refused,
            };
            answer
        })
    }
}

/// A request that is counted when it ends, also where nobody waits for its end any more.
struct Running<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    since: Instant,
    outcome: StoreOutcome,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.metrics.store_request(self.operation, self.since.elapsed(), self.outcome);
    }
}

impl Store for Measured {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
        self.measure("create", self.store.create(key, body))
    }

    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.measure("put", self.store.put(key, body))
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        self.measure("get", self.store.get(key))
    }

    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.measure("first", self.store.first(prefix))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.measure("list", self.store.list(prefix))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.measure("delete", self.store.delete(key))
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn address(&self, key: &str) -> String {
        self.store.address(key)
    }

    fn access(&self) -> BoxFuture<'_, Result<Option<S3Access>, StoreError>> {
        self.store.access()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::memory::{Fault, MemoryStore};
    use super::*;

    /// How many requests were counted, by operation and outcome.
    fn counts(metrics: &Metrics) -> BTreeMap<(String, String), u64> {
        let text = metrics.encode(&[]);
        let lines = text.lines().filter_map(|line| line.strip_prefix("tickmint_store_request_seconds_count{operation=\""));
        let parts = lines.filter_map(|line| line.split_once("\",outcome=\""));
        let counts = parts.filter_map(|(operation, rest)| Some((operation, rest.split_once("\"} ")?)));
        counts.map(|(operation, (outcome, n))| ((operation.to_string(), outcome.to_string()), n.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn every_request_is_counted_once_by_what_it_was_and_how_it_ended() {
        let (memory, metrics) = (MemoryStore::new(), Arc::new(Metrics::new()));
        let store = Measured::new(Arc::new(memory.clone()), metrics.clone());
        store.create("a/1", "x".into()).await.unwrap();
        assert_eq!(store.create("a/1", "y".into()).await.unwrap(), Created::AlreadyThere, "which is an answer as well");
        store.put("a/2", "z".into()).await.unwrap();
        assert_eq!(store.get("a/2").await.unwrap().unwrap(), "z");
        assert_eq!(store.first("a/").await.unwrap().unwrap(), "a/1");
        assert_eq!(store.list("a/").await.unwrap().len(), 2);
        store.delete("a/2").await.unwrap();
        memory.fail_next("put", Fault::Retry);
        store.put("a/3", "".into()).await.unwrap_err();
        memory.fail_next("get", Fault::Refuse);
        store.get("a/3").await.unwrap_err();
        memory.fail_next("put", Fault::Delay(Duration::from_secs(60)));
        assert!(futures_util::poll!(store.put("a/4", "".into())).is_pending(), "and it is dropped");
        let wanted = [
            ("create", "ok", 2),
            ("delete", "ok", 1),
            ("first", "ok", 1),
            ("get", "ok", 1),
            ("get", "refused", 1),
            ("list", "ok", 1),
            ("put", "given_up", 1),
            ("put", "ok", 1),
            ("put", "retry", 1),
        ];
        let wanted = wanted.map(|(operation, outcome, n)| ((operation.to_string(), outcome.to_string()), n));
        assert_eq!(counts(&metrics), BTreeMap::from(wanted));
        let text = metrics.encode(&[]);
        assert!(text.contains("tickmint_store_errors_total{operation=\"put\"} 1"), "{text}");
    }
}
