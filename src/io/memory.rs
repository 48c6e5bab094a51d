//! A store in memory for tests, with all that can go wrong between a writer and a real one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::store::{Created, Store, StoreError, check_key, check_prefix};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; doing it again is right.
    Retry,
    /// Nothing is done, nor will it ever be.
    Refuse,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It is done late, and answered then.
    Delay(Duration),
    /// The sender is told nothing came of it; it is on its way, and done at [`MemoryStore::deliver`].
    /// Only for `create` and `put`; of others nothing is ever done.
    Late,
}

type Choose = Box<dyn FnMut(&'static str, &str) -> Option<Fault> + Send>;

/// The store. Cloning gives another handle to the same one.
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Bytes>,
    choose: Option<Choose>,
    is_racy: bool,
    /// Created or put, by a sender that no longer waits for it: whether conditionally, key, body.
    late: Vec<(bool, String, Bytes)>,
    requests: Vec<(&'static str, String)>,
}

impl MemoryStore {
    /// A store without objects and faults.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A store that looks whether the object is there and, if not, writes it: two steps, in between
    /// which others do the same. It is what the probe must refuse.
    pub fn check_then_act() -> MemoryStore {
        let store = MemoryStore::default();
        store.inner().is_racy = true;
        store
    }

    /// Asks this for each request, by operation (`create`, `put`, `get`, `first`, `list`, `delete`) and key.
    pub fn set_faults(&self, choose: impl FnMut(&'static str, &str) -> Option<Fault> + Send + 'static) {
        self.inner().choose = Some(Box::new(choose));
    }

    /// No faults from now on.
    pub fn heal(&self) {
        self.inner().choose = None;
    }

    /// The next request of that kind meets the fault; all others none.
    pub fn fail_next(&self, operation: &'static str, fault: Fault) {
        let mut next = Some(fault);
        self.set_faults(move |requested, _| if requested == operation { next.take() } else { None });
    }

    /// Does what [`Fault::Late`] kept on its way, in the order it was sent. The number of requests.
    pub fn deliver(&self) -> usize {
        let mut inner = self.inner();
        let late = std::mem::take(&mut inner.late);
        let count = late.len();
        for (is_conditional, key, body) in late {
            if !is_conditional || !inner.objects.contains_key(&key) {
                inner.objects.insert(key, body);
            }
        }
        count
    }

    /// All that was asked of it, faults included, by operation and key.
    pub fn requests(&self) -> Vec<(&'static str, String)> {
        self.inner().requests.clone()
    }

    /// All objects, for comparison. Not counted as a request.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.inner().objects.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Meets the fault that is chosen for the request, or does it. `late` is what is to be done later.
    async fn request<T>(
        &self,
        operation: &'static str,
        key: &str,
        late: Option<(bool, Bytes)>,
        work: impl AsyncFnOnce() -> T,
    ) -> Result<T, StoreError> {
        let fault = {
            let mut inner = self.inner();
            inner.requests.push((operation, key.to_owned()));
            inner.choose.as_mut().and_then(|choose| choose(operation, key))
        };
        let retry = |reason: &str| StoreError::Retry { operation, key: key.to_owned(), reason: reason.into() };
        match fault {
            None => Ok(work().await),
            Some(Fault::Retry) => Err(retry("connection reset (injected)")),
            Some(Fault::Refuse) => {
                Err(StoreError::Refused { operation, key: key.to_owned(), reason: "access denied (injected)".into() })
            }
            Some(Fault::LoseAnswer) => {
                work().await;
                Err(retry("no answer (injected)"))
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(work().await)
            }
            Some(Fault::Late) => {
                self.inner().late.extend(late.map(|(is_conditional, body)| (is_conditional, key.to_owned(), body)));
                Err(retry("timed out (injected)"))
            }
        }
    }

    async fn create_now(&self, key: &str, body: Bytes) -> Created {
        if self.inner().is_racy {
            let is_there = self.inner().objects.contains_key(key);
            for _ in 0..6 {
                tokio::task::yield_now().await;
            }
            if is_there {
                return Created::AlreadyThere;
            }
            self.inner().objects.insert(key.to_owned(), body);
            return Created::New;
        }
        let mut inner = self.inner();
        if inner.objects.contains_key(key) {
            return Created::AlreadyThere;
        }
        inner.objects.insert(key.to_owned(), body);
        Created::New
    }

    fn keys_below(&self, prefix: &str) -> Vec<String> {
        let inner = self.inner();
        let keys = inner.objects.range(prefix.to_owned()..).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(prefix)).cloned().collect()
    }
}

impl Store for MemoryStore {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
        async move {
            check_key("create", key)?;
            let late = Some((true, body.clone()));
            self.request("create", key, late, async || self.create_now(key, body).await).await
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            check_key("put", key)?;
            let late = Some((false, body.clone()));
            let put = async || drop(self.inner().objects.insert(key.to_owned(), body));
            self.request("put", key, late, put).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        async move {
            check_key("get", key)?;
            self.request("get", key, None, async || self.inner().objects.get(key).cloned()).await
        }
        .boxed()
    }

    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            check_prefix("first", prefix)?;
            self.request("first", prefix, None, async || self.keys_below(prefix).into_iter().next()).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            check_prefix("list", prefix)?;
            self.request("list", prefix, None, async || self.keys_below(prefix)).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            check_key("delete", key)?;
            let delete = async || drop(self.inner().objects.remove(key));
            self.request("delete", key, None, delete).await
        }
        .boxed()
    }

    fn describe(&self) -> String {
        "memory".into()
    }

    fn address(&self, key: &str) -> String {
        format!("memory:{key}")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn body(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn it_is_a_store() {
        let store = MemoryStore::new();
        assert_eq!(store.create("a/2", body("2")).await.unwrap(), Created::New);
        assert_eq!(store.create("a/2", body("3")).await.unwrap(), Created::AlreadyThere);
        store.put("a/1", body("1")).await.unwrap();
        store.put("ab/1", body("1")).await.unwrap();
        assert_eq!(store.get("a/2").await.unwrap(), Some(body("2")));
        assert_eq!(store.list("a/").await.unwrap(), ["a/1", "a/2"]);
        assert_eq!(store.first("a/").await.unwrap().as_deref(), Some("a/1"));
        store.delete("a/1").await.unwrap();
        assert_eq!(store.get("a/1").await.unwrap(), None);
        assert_eq!(store.first("b/").await.unwrap(), None);
        assert_eq!(store.requests().len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_does_what_it_says() {
        let store = MemoryStore::new();
        store.fail_next("create", Fault::Retry);
        assert!(store.create("k", body("1")).await.unwrap_err().is_retryable());
        store.fail_next("create", Fault::Refuse);
        assert!(!store.create("k", body("2")).await.unwrap_err().is_retryable());
        assert_eq!(store.objects().len(), 0);

        store.fail_next("create", Fault::Late);
        assert!(store.create("k", body("3")).await.unwrap_err().is_retryable());
        assert_eq!(store.create("k", body("4")).await.unwrap(), Created::New);
        assert_eq!(store.deliver(), 1);
        assert_eq!(store.get("k").await.unwrap(), Some(body("4")));

        store.fail_next("create", Fault::LoseAnswer);
        assert!(store.create("l", body("5")).await.unwrap_err().is_retryable());
        assert_eq!(store.create("l", body("5")).await.unwrap(), Created::AlreadyThere);

        store.fail_next("create", Fault::Delay(Duration::from_secs(60)));
        let (slow, fast) = tokio::join!(store.create("m", body("6")), store.create("m", body("7")));
        assert_eq!((slow.unwrap(), fast.unwrap()), (Created::AlreadyThere, Created::New));
    }

    #[tokio::test]
    async fn checking_and_then_acting_has_several_winners() {
        let store = MemoryStore::check_then_act();
        let created = join_all((0..4).map(|_| store.create("k", Bytes::new()))).await;
        assert!(created.into_iter().all(|created| created.unwrap() == Created::New));
        assert_eq!(store.create("k", Bytes::new()).await.unwrap(), Created::AlreadyThere);
    }
}
