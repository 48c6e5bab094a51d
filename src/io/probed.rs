//! Any store, not written to before it has passed the [`probe`](super::probe).
//!
//! A store may be away when the daemon starts. Trades then wait in the spool, and whoever first writes
//! finds out whether the store is safe; until that is known, writes fail as if it were still away.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::probe::{FOLDER, ProbeError, Size, probe_once};
use super::store::{Created, S3Access, Store, StoreError};

/// Several writers wait for one probe, and for this long after it failed they do not begin another.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// See the module.
pub struct Probed {
    store: Arc<dyn Store>,
    passed: AtomicBool,
    /// When it last failed, and how. Held by who probes.
    failed: Mutex<Option<(Instant, ProbeError)>>,
}

impl Probed {
    /// Asks nothing of `store` yet.
    pub fn new(store: Arc<dyn Store>) -> Probed {
        Probed { store, passed: AtomicBool::new(false), failed: Mutex::default() }
    }

    /// Probes the store, unless it has passed. That it is unsafe is final.
    pub async fn ensure(&self) -> Result<(), ProbeError> {
        if self.passed.load(Acquire) {
            return Ok(());
        }
        let mut failed = self.failed.lock().await;
        if self.passed.load(Acquire) {
            return Ok(());
        }
        if let Some((at, error)) = &*failed
            && (matches!(error, ProbeError::Unsafe { .. }) || at.elapsed() < AGAIN_AFTER)
        {
            return Err(error.clone());
        }
        match probe_once(&*self.store, FOLDER, Size::default()).await {
            Ok(report) => {
                tracing::info!(store = self.store.describe(), took = ?report.took, "the store has passed the probe");
                self.passed.store(true, Release);
                Ok(())
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn before(&self, operation: &'static str, key: &str) -> Result<(), StoreError> {
        self.ensure().await.map_err(|error| {
            let (key, reason) = (key.to_owned(), format!("nothing is written to a store that was not probed: {error}"));
            match error {
                ProbeError::Store(StoreError::Retry { .. }) | ProbeError::Unclear { .. } => {
                    StoreError::Retry { operation, key, reason }
                }
                ProbeError::Store(StoreError::Refused { .. }) | ProbeError::Unsafe { .. } => {
                    StoreError::Refused { operation, key, reason }
                }
            }
        })
    }
}

impl Store for Probed {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
        async move {
            self.before("create", key).await?;
            self.store.create(key, body).await
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.before("put", key).await?;
            self.store.put(key, body).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        self.store.get(key)
    }

    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.store.first(prefix)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.store.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.before("delete", key).await?;
            self.store.delete(key).await
        }
        .boxed()
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
    use super::super::memory::{Fault, MemoryStore};
    use super::*;

    fn is_kept(memory: &MemoryStore) -> bool {
        memory.objects().contains_key("a/1")
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_before_the_store_has_passed() {
        let memory = MemoryStore::new();
        memory.set_faults(|_, key| key.starts_with(FOLDER).then_some(Fault::Retry));
        let store = Probed::new(Arc::new(memory.clone()));
        let error = store.create("a/1", "x".into()).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("was not probed"), "{error}");
        assert!(!is_kept(&memory), "though the store would have taken it");
        let asked = memory.requests().len();
        store.put("a/1", "x".into()).await.unwrap_err();
        assert_eq!(memory.requests().len(), asked, "no probe so soon after the last one");

        memory.heal();
        tokio::time::sleep(AGAIN_AFTER).await;
        assert_eq!(store.create("a/1", "x".into()).await.unwrap(), Created::New);
        assert!(is_kept(&memory));
        let creates = |memory: &MemoryStore| memory.requests().iter().filter(|(asked, _)| *asked == "create").count();
        let before = creates(&memory);
        store.create("a/2", "x".into()).await.unwrap();
        assert_eq!(creates(&memory), before + 1, "probed once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unsafe_store_is_never_written_to() {
        let memory = MemoryStore::check_then_act();
        let store = Probed::new(Arc::new(memory.clone()));
        for _ in 0..2 {
            let error = store.create("a/1", "x".into()).await.unwrap_err();
            assert!(!error.is_retryable() && error.to_string().contains("not safe to commit to"), "{error}");
            tokio::time::sleep(AGAIN_AFTER * 2).await;
        }
        assert!(!is_kept(&memory));
        assert_eq!(store.get("a/1").await.unwrap(), None, "it may be read");
    }
}
