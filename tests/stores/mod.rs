//! The stores against real servers, and against servers whose network fails.
//!
//! What any store must do is [`promises`]; it runs on a folder, MinIO and SeaweedFS. Each is probed too,
//! and a store that checks and then writes, on a server that could do better, must not pass.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use tickmint::config::{S3Config, Secret, StoreConfig};
use tickmint::io::probe::{self, ProbeError, Size, probe, probe_once};
use tickmint::io::s3::S3Store;
use tickmint::io::store::{self, Created, Store, StoreError};

use crate::support::bucket::{BUCKET, owner};
use crate::support::s3_proxy::{Fault, Reply, Rule, S3Proxy};
use crate::support::servers::{Server, Skip, or_skip};

mod lifecycle;

/// More than one answer of a server holds.
const MANY: usize = 1_100;

/// More at once are slow on SeaweedFS: it has a lock that they wait for.
const FEW: Size = Size { writers: 3, rounds: 6 };

/// A server with one bucket.
struct Rig {
    server: Server,
    admin: aws_sdk_s3::Client,
    _folder: TempDir,
}

impl Rig {
    async fn start(start: fn(&std::path::Path) -> Result<Server, Skip>) -> Option<Rig> {
        let folder = tempfile::tempdir().unwrap();
        let server = or_skip(start(folder.path()))?;
        let admin = owner(&server).await;
        Some(Rig { server, admin, _folder: folder })
    }

    async fn minio() -> Option<Rig> {
        Rig::start(Server::start_minio).await
    }

    async fn seaweedfs() -> Option<Rig> {
        Rig::start(Server::start_seaweedfs).await
    }

    fn config(&self) -> S3Config {
        S3Config {
            bucket: BUCKET.into(),
            prefix: "tickmint/".into(),
            endpoint: Some(self.server.endpoint().into()),
            region: None,
            path_style: true,
            credentials: Some((Server::ACCESS_KEY.into(), Secret::new(Server::SECRET_KEY))),
            attempt_timeout: Duration::from_secs(60), // far from what any answer takes
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        store::open(&StoreConfig::S3(self.config())).unwrap()
    }

    /// The store as seen through a network that fails.
    fn through_proxy(&self) -> (S3Proxy, S3Store) {
        let proxy = S3Proxy::start(self.server.endpoint()).unwrap();
        let store = S3Store::new(S3Config { endpoint: Some(proxy.endpoint()), ..self.config() }).unwrap();
        (proxy, store)
    }
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What the trait promises, in a store that is empty at first.
async fn promises(store: &dyn Store) {
    // The first one to create an object wins, and its body stays.
    let slot = "_commit/trades/p0/9999999999-9999999999999999999.json";
    let prefix = "_commit/trades/p0/";
    assert_eq!(store.get(slot).await.unwrap(), None);
    assert_eq!(store.first(prefix).await.unwrap(), None);
    assert_eq!(store.list(prefix).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.create(slot, body("mine")).await.unwrap(), Created::New);
    assert_eq!(store.create(slot, body("another's")).await.unwrap(), Created::AlreadyThere);
    assert_eq!(store.create(slot, body("mine")).await.unwrap(), Created::AlreadyThere);
    assert_eq!(store.get(slot).await.unwrap(), Some(body("mine")));

    // A chain is read from its newest slot, or from one that was it not long ago.
    let mut slots = vec![slot.to_owned()];
    for newer in [8, 7, 6] {
        slots.push(format!("{prefix}999999999{newer}-9999999999999999999.json"));
        assert_eq!(store.create(slots.last().unwrap(), Bytes::new()).await.unwrap(), Created::New);
        let first = store.first(prefix).await.unwrap().unwrap();
        assert!(slots.contains(&first), "{first}");
    }

    // An object may be put again, and be of any size.
    let noise: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (key, content) in [("a/empty", Bytes::new()), ("a/small", body("x")), ("a/large", noise.into())] {
        store.put(key, content.clone()).await.unwrap();
        store.put(key, content.clone()).await.unwrap();
        assert_eq!(store.get(key).await.unwrap(), Some(content));
    }

    // A list is sorted and holds what lies below the prefix, nothing else.
    for key in ["b/c/2", "b/c/1", "b/c-d/1", "b/cd"] {
        store.put(key, body(key)).await.unwrap();
    }
    assert_eq!(store.list("b/c/").await.unwrap(), ["b/c/1", "b/c/2"]);
    assert_eq!(store.list("b/").await.unwrap(), ["b/c-d/1", "b/c/1", "b/c/2", "b/cd"]);
    assert_eq!(store.first("b/c/").await.unwrap().as_deref(), Some("b/c/1"));
    assert_eq!(store.list("nothing/").await.unwrap(), Vec::<String>::new());

    // What was deleted is gone, and that it was not there does not matter.
    store.delete("b/c/1").await.unwrap();
    store.delete("b/c/1").await.unwrap();
    assert_eq!(store.get("b/c/1").await.unwrap(), None);
    assert_eq!(store.list("b/c/").await.unwrap(), ["b/c/2"]);

    // More than one page.
    let keys: BTreeSet<String> = (0..MANY).map(|n| format!("many/{}/{n:05}", n % 3)).collect();
    let puts = keys.iter().map(|key| store.put(key, Bytes::new()));
    stream::iter(puts).buffer_unordered(8).try_collect::<Vec<()>>().await.unwrap();
    assert_eq!(store.list("many/").await.unwrap(), Vec::from_iter(keys));

    // Keys that a store could take for something else are not taken at all.
    for key in ["../a", "/a", "a//b", "a/", ""] {
        assert!(!store.put(key, Bytes::new()).await.unwrap_err().is_retryable(), "{key:?}");
    }
}

/// It passes, and the next start finds the note.
async fn passes_the_probe(store: &dyn Store, size: Size) {
    let report = probe_once(store, probe::FOLDER, size).await.unwrap();
    assert_eq!((report.size, report.unclear), (size, 0));
    assert!(report.took.is_some());
    assert_eq!(probe_once(store, probe::FOLDER, size).await.unwrap().took, None);
    assert_eq!(store.list(probe::FOLDER).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_folder_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::open(&StoreConfig::Folder(folder.path().join("data"))).unwrap();
    promises(&*store).await;
    passes_the_probe(&*store, Size::default()).await;
}

#[tokio::test]
async fn minio_keeps_its_promises() {
    let Some(rig) = Rig::minio().await else { return };
    promises(&*rig.store()).await;
    passes_the_probe(&*rig.store(), Size::default()).await;
}

#[tokio::test]
async fn seaweedfs_keeps_its_promises() {
    let Some(rig) = Rig::seaweedfs().await else { return };
    promises(&*rig.store()).await;
    passes_the_probe(&*rig.store(), FEW).await;
}

/// Looks whether the object is there, and then writes it.
struct CheckThenAct(S3Store);

impl Store for CheckThenAct {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
        async move {
            if self.0.get(key).await?.is_some() {
                return Ok(Created::AlreadyThere);
            }
            self.0.put(key, body).await.map(|()| Created::New)
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.put(key, body)
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        self.0.get(key)
    }

    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.0.first(prefix)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.0.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.delete(key)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn address(&self, key: &str) -> String {
        self.0.address(key)
    }
}

#[tokio::test]
async fn the_probe_catches_a_real_server_that_is_asked_to_check_and_then_write() {
    let Some(rig) = Rig::minio().await else { return };
    let store = CheckThenAct(S3Store::new(rig.config()).unwrap());
    let error = probe(&store, probe::FOLDER, Size::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ProbeError::Unsafe { .. }), "{text}");
    assert!(text.starts_with(&format!("s3://lake/tickmint/ at {}", rig.server.endpoint())), "{text}");
    assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
}

/// `Retry`, and the server has heard of it once: nothing in between tries again.
fn assert_asked_once(proxy: &S3Proxy, before: usize, error: &StoreError) {
    assert!(error.is_retryable(), "{error}");
    assert_eq!(proxy.seen().len(), before + 1, "{error}");
}

#[tokio::test]
async fn a_failing_network_is_a_retry_whatever_the_server_did() {
    let Some(rig) = Rig::minio().await else { return };
    let (proxy, store) = rig.through_proxy();
    let faults = [
        (Fault::Refuse(Reply::SLOW_DOWN), Created::New),
        (Fault::Refuse(Reply::INTERNAL_ERROR), Created::New),
        (Fault::Refuse(Reply::CONFLICT), Created::New),
        (Fault::Refuse(Reply { status: 429, code: "TooManyRequests" }), Created::New),
        (Fault::Refuse(Reply { status: 200, code: "InternalError" }), Created::New),
        (Fault::Refuse(Reply { status: 404, code: "NoSuchRoute" }), Created::New),
        (Fault::Reset { carried_out: false }, Created::New),
        (Fault::Reset { carried_out: true }, Created::AlreadyThere),
        (Fault::CarryOutThen(Reply::INTERNAL_ERROR), Created::AlreadyThere),
        (Fault::CarryOutThen(Reply { status: 200, code: "InternalError" }), Created::AlreadyThere),
    ];
    for (n, (fault, then)) in faults.into_iter().enumerate() {
        let key = format!("_commit/trades/p0/{n}");
        let before = proxy.seen().len();
        proxy.inject(Rule::once(fault));
        let error = store.create(&key, body("mine")).await.unwrap_err();
        assert_asked_once(&proxy, before, &error);
        assert_eq!(store.create(&key, body("mine")).await.unwrap(), then, "{fault:?}");

        for read in ["get", "first", "list"] {
            let before = proxy.seen().len();
            proxy.inject(Rule::once(fault));
            let outcome = match read {
                "get" => store.get(&key).await.map(drop),
                "first" => store.first("_commit/trades/p0/").await.map(drop),
                _ => store.list("_commit/trades/p0/").await.map(drop),
            };
            match outcome {
                Err(error) => assert_asked_once(&proxy, before, &error),
                // To a GET a 200 is the object. No server is known to answer one so.
                Ok(()) => assert!(read == "get" && format!("{fault:?}").contains("200"), "{read} {fault:?}"),
            }
        }
        assert_eq!(store.get(&key).await.unwrap(), Some(body("mine")));
    }

    proxy.inject(Rule::once(Fault::CutAnswer).method("GET"));
    assert!(store.get("_commit/trades/p0/0").await.unwrap_err().is_retryable());
    proxy.inject(Rule::once(Fault::Refuse(Reply { status: 200, code: "PreconditionFailed" })));
    assert_eq!(store.create("_commit/trades/p0/0", body("mine")).await.unwrap(), Created::AlreadyThere);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time_and_its_late_write_does_no_harm() {
    let Some(rig) = Rig::minio().await else { return };
    let (proxy, store) = rig.through_proxy();
    let impatient =
        S3Store::new(S3Config { endpoint: Some(proxy.endpoint()), attempt_timeout: Duration::from_secs(1), ..rig.config() })
            .unwrap();
    proxy.inject(Rule::once(Fault::Hold).method("PUT"));
    // On a busy machine it may give up before the request is under way.
    while proxy.seen().is_empty() {
        assert!(impatient.create("a", body("late")).await.unwrap_err().is_retryable());
    }
    assert_eq!(store.create("a", body("in time")).await.unwrap(), Created::New);
    proxy.release();
    proxy.wait_until(|seen| seen.iter().any(|request| request.answer == Some(412))).await;
    assert_eq!(store.get("a").await.unwrap(), Some(body("in time")));

    proxy.inject(Rule::once(Fault::NoAnswer { carried_out: true }).method("GET"));
    assert!(impatient.get("a").await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn the_newest_slot_is_found_with_one_request_whatever_the_length_of_the_chain() {
    let Some(rig) = Rig::minio().await else { return };
    let (proxy, store) = rig.through_proxy();
    let slot = |n: usize| format!("_commit/trades/p0/{:05}.json", 99_999 - n);
    stream::iter(0..MANY).for_each_concurrent(8, |n| rig_put(&rig, slot(n))).await;
    // As a console does when a person makes a folder.
    rig_put(&rig, "_commit/trades/p0/".into()).await;
    let before = proxy.seen().len();
    assert_eq!(store.first("_commit/trades/p0/").await.unwrap(), Some(slot(MANY - 1)));
    assert_eq!(proxy.seen().len(), before + 1);
    assert_eq!(store.list("_commit/trades/p0/").await.unwrap().len(), MANY);
}

/// Past the store.
async fn rig_put(rig: &Rig, key: String) {
    let key = format!("tickmint/{key}");
    rig.admin.put_object().bucket(BUCKET).key(key).send().await.unwrap();
}

/// Reading says so, it is no use to ask again, and nothing looks as if it were merely not there.
async fn assert_no_reading(config: S3Config, text: &str) {
    let store = S3Store::new(config).unwrap();
    let outcomes = [
        settled(|| store.get("_commit/trades/p0/1")).await,
        settled(|| store.first("_commit/trades/p0/")).await,
        settled(|| store.list("_commit/trades/p0/")).await,
    ];
    assert_refusals(outcomes, text);
}

/// Writing says so, and it is no use to ask again.
async fn assert_no_writing(config: S3Config, text: &str) {
    let store = S3Store::new(config).unwrap();
    let outcomes =
        [settled(|| store.create("_commit/trades/p0/1", body("1"))).await, settled(|| store.put("a", body("1"))).await];
    assert_refusals(outcomes, text);
}

/// MinIO answers for a while after its start that it does not know yet who may do what.
async fn settled<T>(request: impl AsyncFn() -> Result<T, StoreError>) -> Result<(), StoreError> {
    loop {
        match request().await {
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
            outcome => return outcome.map(drop),
        }
    }
}

fn assert_refusals<const N: usize>(outcomes: [Result<(), StoreError>; N], text: &str) {
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains(text), "{error}");
    }
}

async fn strangers_are_refused(rig: &Rig) {
    for (id, secret) in [("stranger", "stranger's"), (Server::ACCESS_KEY, "guessed")] {
        let config = || S3Config { credentials: Some((id.into(), Secret::new(secret))), ..rig.config() };
        assert_no_reading(config(), "correct the credentials").await;
        assert_no_writing(config(), "correct the credentials").await;
    }
}

fn nowhere(rig: &Rig) -> S3Config {
    S3Config { bucket: "nowhere".into(), ..rig.config() }
}

#[tokio::test]
async fn minio_refuses_with_words_that_help() {
    let Some(rig) = Rig::minio().await else { return };
    strangers_are_refused(&rig).await;
    assert_no_reading(nowhere(&rig), "there is no bucket `nowhere`").await;
    assert_no_writing(nowhere(&rig), "there is no bucket `nowhere`").await;

    let (proxy, store) = rig.through_proxy();
    for (status, code, text) in [
        (301, "PermanentRedirect", "set `region`"),
        (400, "AuthorizationHeaderMalformed", "set `region`"),
        (403, "AccessDenied", "s3:PutObject"),
        (501, "NotImplemented", "If-None-Match"),
    ] {
        proxy.inject(Rule::once(Fault::Refuse(Reply { status, code })));
        let error = store.create("a", body("1")).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains(text), "{error}");
    }
    let error = probe(&CheckThenAct(store), probe::FOLDER, FEW).await.unwrap_err();
    assert!(matches!(error, ProbeError::Unsafe { .. }), "the proxy refuses nothing now: {error}");
}

#[tokio::test]
async fn seaweedfs_refuses_with_words_that_help() {
    let Some(rig) = Rig::seaweedfs().await else { return };
    strangers_are_refused(&rig).await;
    // Who writes gets the bucket made, if his rights allow it.
    assert_no_reading(nowhere(&rig), "there is no bucket `nowhere`").await;
}

#[tokio::test]
async fn a_slot_that_somebody_deleted_is_no_free_place() {
    let Some(rig) = Rig::minio().await else { return };
    let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    rig.admin.put_bucket_versioning().bucket(BUCKET).versioning_configuration(versioning).send().await.unwrap();
    let store = rig.store();
    for key in ["_commit/trades/p0/1", "bronze/1"] {
        store.create(key, body("1")).await.unwrap();
        store.delete(key).await.unwrap();
    }
    let error = store.get("_commit/trades/p0/1").await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("this slot was deleted"), "{error}");
    assert_eq!(store.get("bronze/1").await.unwrap(), None);
    assert_eq!(store.get("_commit/trades/p0/2").await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let Some(mut rig) = Rig::minio().await else { return };
    let store = rig.store();
    store.create("a", body("1")).await.unwrap();
    rig.server.stop();
    assert!(store.get("a").await.unwrap_err().is_retryable());
    rig.server.start_again();
    assert_eq!(store.get("a").await.unwrap(), Some(body("1")));
}

/// `cargo test --release --test it stores::figures -- --ignored --nocapture`
#[tokio::test]
#[ignore = "measures, asserts nothing"]
async fn figures() {
    let folder = tempfile::tempdir().unwrap();
    measure("folder", &*store::open(&StoreConfig::Folder(folder.path().into())).unwrap()).await;
    if let Some(rig) = Rig::minio().await {
        measure("minio", &*rig.store()).await;
    }
    if let Some(rig) = Rig::seaweedfs().await {
        measure("seaweedfs", &*rig.store()).await;
    }
}

async fn measure(name: &str, store: &dyn Store) {
    const TIMES: usize = 300;
    let content = Bytes::from(vec![7; 4096]);
    let key = |n: usize| format!("_commit/trades/p0/{:05}", 99_999 - n);
    let rate = |begun: std::time::Instant| TIMES as f64 / begun.elapsed().as_secs_f64();

    let begun = std::time::Instant::now();
    for n in 0..TIMES {
        store.create(&key(n), content.clone()).await.unwrap();
    }
    let create = rate(begun);
    let begun = std::time::Instant::now();
    for n in 0..TIMES {
        store.put(&format!("a/{n}"), content.clone()).await.unwrap();
    }
    let put = rate(begun);
    let begun = std::time::Instant::now();
    for chunk in (0..TIMES).collect::<Vec<_>>().chunks(8) {
        join_all(chunk.iter().map(async |n| store.put(&format!("b/{n}"), content.clone()).await.unwrap())).await;
    }
    let put_by_eight = rate(begun);
    let begun = std::time::Instant::now();
    for n in 0..TIMES {
        store.get(&key(n)).await.unwrap();
    }
    let get = rate(begun);
    let begun = std::time::Instant::now();
    for _ in 0..TIMES {
        store.first("_commit/trades/p0/").await.unwrap();
    }
    let first = rate(begun);
    eprintln!("{name}: create {create:.0}/s, put {put:.0}/s (8 at once {put_by_eight:.0}/s), get {get:.0}/s, first {first:.0}/s");
    for size in [Size { writers: 2, rounds: 20 }, Size { writers: 4, rounds: 20 }, Size::default()] {
        eprintln!("{name}: probe {size:?}: {:?}", probe(store, probe::FOLDER, size).await.unwrap().took.unwrap());
    }
}
