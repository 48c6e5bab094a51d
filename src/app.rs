//! Wires the actors: the only file that knows every one of them.
//!
//! ```text
//! root ── http               probes, metrics, page
//!      ├─ refiner            Gold from what is new in Bronze
//!      ├─ hour_sealer        `_complete/` markers, orphans
//!      ├─ writers/*          one per stream: log -> objects and slots
//!      ├─ spool              the one durable log
//!      └─ shards/*/          one supervisor a key: validator, session
//! ```
//!
//! Children start top to bottom and stop bottom to top: the source ends first, each stage works off
//! what it has accepted, then the next one ends.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Addr, Arbiter};
use anyhow::{Context as _, Result, bail};
use fail::fail_point;
use tokio::sync::watch;

use crate::actors::{feed_session, hour_sealer, partition_writer, refiner, spool, validator};
use crate::bronze::archiver::{Archiver, Limits, Parts};
use crate::bronze::budget::Budget;
use crate::bronze::chain::Chain;
use crate::bronze::poison::Poison;
use crate::bronze::source::Spooled;
use crate::clock;
use crate::config::{Config, StoreConfig};
use crate::domain::chain::ChainId;
use crate::domain::frame::{Rules, Watchlist};
use crate::domain::identity::LogId;
use crate::domain::stream::Stream;
use crate::http;
use crate::io::measured::Measured;
use crate::io::probe::ProbeError;
use crate::io::probed::Probed;
use crate::io::store::{self, Store};
use crate::spool::logs::{self, FolderLock, Logs};
use crate::spool::pace::Pace;
use crate::spool::segment::LogKind;
use crate::spool::writer::{LogWriter, create_dir_durably};
use crate::supervisor::{ChildSpec, Intensity, Policy, Root};
use crate::telemetry::{Metrics, Traces};
use crate::warehouse::rounds::Rounds;

/// How long one actor may take to drain. The writers have the most to do.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// No turn of an actor's loop for this long means that it hangs.
const STALL_AFTER: Duration = Duration::from_secs(20);

/// Whoever does not answer by then is not waited for before the feed is read.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What a running daemon is made of.
pub struct App {
    /// The tree.
    pub root: Root,
    /// Where objects go.
    pub store: Arc<dyn Store>,
    /// Held while the process lives: nobody else may use the folder.
    _lock: FolderLock,
}

/// Starts everything. An error here is one that a restart does not cure: a wrong config, a folder
/// that cannot be written, a store that is not safe.
pub async fn start(config: &Config, metrics: Arc<Metrics>, traces: &Traces) -> Result<App> {
    let listener = http::server::bind(&config.http)?;
    let lock = take_spool(&config.spool.dir)?;
    let store = store::open(&config.bronze.store).context("`bronze.store` cannot be used")?;
    if let StoreConfig::Folder(root) = &config.bronze.store {
        make_lake(root)?;
    }
    let store = Arc::new(Probed::new(Arc::new(Measured::new(store, metrics.clone()))));
    probe_first_use(config, &store).await?;
    let store: Arc<dyn Store> = store;
    let (logs, log, durable) = open_spool(config)?;

    let root = Root::start(policy(3, 600));
    let feed = Arbiter::new();
    let io = Arbiter::new();
    let bronze = Arbiter::new();
    let web = Arbiter::new();

    let state = http::State::new(config, metrics.clone(), root.registry.clone());
    root.top.spawn(child("http", DRAIN_WITHIN), &web.handle(), move |_, vitals| http::Web::new(vitals, listener, state))?;

    if let Some(warehouse) = config.warehouse.clone() {
        let chains = chains();
        let (every, store, metrics, traces) = (warehouse.every, store.clone(), metrics.clone(), traces.clone());
        let rounds = Arc::new(move || Rounds::new(warehouse.clone(), store.clone(), chains.clone(), traces.clone()));
        root.top.spawn(child("refiner", config.drain_within), &bronze.handle(), move |_, vitals| {
            refiner::Refiner::new(refiner::Parts { vitals, metrics, every, rounds })
        })?;
    }

    let (sealed, counted) = (store.clone(), metrics.clone());
    root.top.spawn(child("hour_sealer", DRAIN_WITHIN), &bronze.handle(), move |_, vitals| {
        hour_sealer::HourSealer::new(vitals, counted, sealed, chains())
    })?;

    let covered = Arc::new(OnceLock::new());
    let writers = root.top.supervisor(child("writers", DRAIN_WITHIN), policy(5, 30))?;
    let budget = Budget::new(config.bronze.memory);
    for stream in Stream::ALL {
        let archiver = archiver_of(stream, config, &store, &logs, &budget, traces);
        let (covered, metrics) = (covered.clone(), metrics.clone());
        let spec = ChildSpec { together: true, ..child(stream.name(), DRAIN_WITHIN) };
        writers.spawn(spec, &bronze.handle(), move |_, vitals| {
            partition_writer::PartitionWriter::new(partition_writer::Parts { vitals, metrics, chain: stream.into(), alarm: format!("bronze/{stream}"), covered, archiver })
        })?;
    }

    let parts = (config.spool.clone(), logs.clone(), metrics.clone(), traces.clone());
    let spool = root.top.spawn(child("spool", DRAIN_WITHIN), &io.handle(), move |_, vitals| {
        let (config, logs, metrics, traces) = parts;
        let kind = LogKind::BRONZE;
        spool::Spool::new(spool::SpoolParts { config, vitals, logs, kind, log, durable, metrics, traces })
    })?;
    drop(covered.set(vec![spool.clone().recipient()]));

    start_feed(config, &root, &feed, &spool, (&metrics, traces))?;
    Ok(App { root, store, _lock: lock })
}

/// A disk that is full now is waited for, as it is later.
fn make_lake(root: &Path) -> Result<()> {
    match std::fs::create_dir_all(root) {
        Err(error) if !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            let root = root.display();
            Err(error).with_context(|| {
                format!("`bronze.store` is `{root}`, which cannot be made: choose a folder that this user may write")
            })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Refuses a store whose creates are not atomic: two writers would both believe that they decided a
/// slot; and a folder that this user may not write. One that is away is not refused: [`Probed`] probes it
/// when it is there again, and until then trades wait in the spool.
async fn probe_first_use(config: &Config, store: &Probed) -> Result<()> {
    let asked = store.get("_probe/is-it-there");
    let outcome = match tokio::time::timeout(STORE_ANSWERS_WITHIN, asked).await {
        Err(_) => Err(format!("it does not answer within {STORE_ANSWERS_WITHIN:?}")),
        Ok(Err(error)) if error.is_retryable() => Err(error.to_string()),
        Ok(_) => match store.ensure().await {
            Ok(()) => Ok(()),
            Err(error @ ProbeError::Unsafe { .. }) => return Err(error.into()),
            Err(ProbeError::Store(error)) if !error.is_retryable() && matches!(config.bronze.store, StoreConfig::Folder(_)) => {
                return Err(anyhow::Error::from(error).context("`bronze.store` cannot be used"));
            }
            Err(error) => Err(error.to_string()),
        },
    };
    if let Err(error) = outcome {
        let store = store.describe();
        tracing::warn!(store, error, "`bronze.store` could not be probed: trades wait in the spool until it can be");
    }
    Ok(())
}

/// The chains of a daemon whose spool is the log: one partition a stream.
fn chains() -> Vec<ChainId> {
    Stream::ALL.map(|stream| ChainId { stream, partition: 0 }).to_vec()
}

/// What remakes a writer's archiver after each restart.
fn archiver_of(
    stream: Stream,
    config: &Config,
    store: &Arc<dyn Store>,
    logs: &Logs,
    budget: &Arc<Budget>,
    traces: &Traces,
) -> Arc<dyn Fn() -> Archiver + Send + Sync> {
    let limits = Limits {
        flush_bytes: config.bronze.flush_bytes,
        flush_after: config.bronze.flush_after,
        zstd_level: config.bronze.zstd_level,
    };
    let notes = config.data_dir.join(format!("poison-{stream}.json"));
    let (store, logs, budget, traces) = (store.clone(), logs.clone(), budget.clone(), traces.clone());
    Arc::new(move || {
        let chain = Chain::new(ChainId { stream, partition: 0 }, store.clone());
        let poison = Poison::load(notes.clone());
        let source = Box::new(Spooled::new(logs.clone(), stream));
        let (store, budget, traces) = (store.clone(), budget.clone(), traces.clone());
        Archiver::new(Parts { chain, store, source, limits, budget, poison, traces })
    })
}

/// Reads the logs of earlier lives and begins one of its own, which first tells of the sessions that
/// died without a word.
fn open_spool(config: &Config) -> Result<(Logs, LogWriter, watch::Sender<crate::spool::reader::LogView>)> {
    let dir = &config.spool.dir;
    let failed = |what| move |error| spool_failed(error, dir, what);
    logs::sweep(dir).map_err(failed("which cannot be cleaned up"))?;
    let found = logs::find(dir).map_err(failed("which cannot be read"))?;
    let id = LogId::after(found.dead.keys().next_back().copied());
    let log = LogWriter::create(dir, id, found.last, config.spool.segment_bytes);
    let mut log = log.map_err(failed("where no log can be begun"))?;
    fail_point!("start.log-created");
    let now = clock::now();
    for session in log.state().living() {
        if let Some(end) = log.state().end_of(session, 0, now, "process_died") {
            log.stage(&end);
        }
    }
    fail_point!("start.ends-staged");
    log.sync().map_err(failed("where the log cannot be written"))?;
    let (durable, view) = watch::channel(log.view());
    let logs = Logs::new(dir.clone(), found.dead, id, view);
    Ok((logs, log, durable))
}

/// Names the option, and what can be done.
fn spool_failed(error: std::io::Error, dir: &Path, what: &str) -> anyhow::Error {
    let cure = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "its disk is full, make room there",
        _ => "choose a folder that this user may write",
    };
    anyhow::Error::from(error).context(format!("`spool.dir` is `{}`, {what}: {cure}", dir.display()))
}

fn child(id: &str, drain_within: Duration) -> ChildSpec {
    ChildSpec { drain_within, stall_after: STALL_AFTER, ..ChildSpec::permanent(id) }
}

/// A supervisor that fails itself when a child of it fails more than `max_restarts` times in so many
/// seconds. Restarts multiply over the levels and each level's take the time of those below: so the
/// top has the smallest number and the longest window, else a loop far down would never get there.
fn policy(max_restarts: usize, seconds: u64) -> Policy {
    Policy { intensity: Intensity { max_restarts, period: Duration::from_secs(seconds) }, ..Policy::default() }
}

/// Makes the spool's folder and keeps every other daemon out of it.
fn take_spool(dir: &Path) -> Result<FolderLock> {
    let unusable = |error| spool_failed(error, dir, "which cannot be made or written");
    create_dir_durably(dir).map_err(unusable)?;
    match FolderLock::take(dir).map_err(unusable)? {
        Some(lock) => Ok(lock),
        None => bail!("another tickmint uses `spool.dir` {}: stop it, or give this one a `data_dir` of its own", dir.display()),
    }
}

/// One supervisor a shard: its validator, then its session.
fn start_feed(
    config: &Config,
    root: &Root,
    arbiter: &Arbiter,
    spool: &Addr<spool::Spool>,
    (metrics, traces): (&Arc<Metrics>, &Traces),
) -> Result<()> {
    let shards = root.top.supervisor(child("shards", DRAIN_WITHIN), policy(3, 180))?;
    for (shard, key) in &config.feed.shards {
        let supervisor = shards.supervisor(child(&shard.name, DRAIN_WITHIN), policy(5, 30))?;
        let now = clock::now();
        let watch = Arc::new(Watchlist::partitioned(shard, 1, now));
        let micros = |span: Option<Duration>| span.map(|span| span.as_micros() as i64);
        let rules = Rules {
            watch: watch.clone(),
            max_age: micros(config.validation.max_age),
            max_ahead: micros(config.validation.max_ahead),
            max_frame_bytes: config.feed.max_frame_bytes,
        };
        let (counted, append) = (metrics.clone(), spool.clone().recipient());
        let validator = supervisor.spawn(child("validator", DRAIN_WITHIN), &arbiter.handle(), move |_, vitals| {
            validator::Validator::new(validator::Parts { vitals, rules, metrics: counted, spool: append })
        })?;
        let (shard, key, feed, spool) = (shard.clone(), key.clone(), config.feed.clone(), spool.clone());
        let (metrics, shard_metrics, traces) = (metrics.clone(), metrics.shard(&shard.name), traces.clone());
        let pace = Pace::new(config.spool.group);
        supervisor.spawn(child("session", DRAIN_WITHIN), &arbiter.handle(), move |_, vitals| {
            feed_session::FeedSession::new(feed_session::Parts {
                vitals,
                config: feed,
                pace: pace.clone(),
                shard,
                key,
                metrics,
                shard_metrics,
                traces,
                watch,
                validator: validator.recipient(),
                open: spool.clone().recipient(),
                end: spool.recipient(),
            })
        })?;
    }
    Ok(())
}
