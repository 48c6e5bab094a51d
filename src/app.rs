//! Wires the actors: the only module that knows every one of them.
//!
//! ```text
//! root ── http               probes, metrics, page
//!      ├─ refiner            Gold from what is new in Bronze
//!      ├─ hour_sealer        `_complete/` markers, orphans
//!      ├─ writers/*          one per stream, or with Kafka one per assigned partition: log -> objects and slots
//!      ├─ spool              the one durable log
//!      └─ shards/*/          one supervisor a key: validator, session
//! ```
//!
//! With Kafka there are besides, before the spool: `topics` (what is known of the cluster), `schemas` (the registry's ids),
//! `consumer` (starts and stops writers as the group says), `coverage` (how far the chains are, whoever writes them) and
//! `forwarder` (spool -> Kafka).
//!
//! Children start top to bottom and stop bottom to top: the source ends first, each stage works off
//! what it has accepted, then the next one ends.

mod archive;
mod cluster;
mod feed;
mod lake;
mod spooling;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Arbiter;
use anyhow::{Context as _, Result};

use crate::actors::refiner;
use crate::config::Config;
use crate::domain::chain::ChainId;
use crate::http;
use crate::io::store::Store;
use crate::spool::logs::FolderLock;
use crate::spool::segment::LogKind;
use crate::supervisor::{ChildSpec, Intensity, Policy, Root};
use crate::telemetry::{Metrics, Traces};
use crate::warehouse::rounds::Rounds;

/// How long one actor may take to drain. The writers have the most to do.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// No turn of an actor's loop for this long means that it hangs.
const STALL_AFTER: Duration = Duration::from_secs(20);

/// What a running daemon is made of.
pub struct App {
    /// The tree.
    pub root: Root,
    /// Where objects go.
    pub store: Arc<dyn Store>,
    /// Held while the process lives: nobody else may use the folder.
    _lock: FolderLock,
}

/// What all parts of the tree are made with.
struct Plant<'a> {
    config: &'a Config,
    root: &'a Root,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    traces: Traces,
    bronze: Arbiter,
}

/// Starts everything. An error here is one that a restart does not cure: a wrong config, a folder
/// that cannot be written, a store that is not safe.
pub async fn start(config: &Config, metrics: Arc<Metrics>, traces: &Traces) -> Result<App> {
    let listener = http::server::bind(&config.http)?;
    make_data_dir(&config.data_dir)?;
    let (option, dir) = if config.roles.feed { ("spool.dir", &config.spool.dir) } else { ("data_dir", &config.data_dir) };
    let lock = spooling::take(option, dir)?;
    let store = lake::open(config, &metrics).await?;
    let cluster = match &config.kafka {
        Some(kafka) if config.roles.use_kafka() => Some(cluster::reach(config, kafka).await?),
        Some(_) | None => None,
    };

    let root = Root::start(policy(3, 600));
    let (web, bronze) = (Arbiter::new(), Arbiter::new());
    let state = http::State::new(config, metrics.clone(), root.registry.clone());
    root.top.spawn(child("http", DRAIN_WITHIN), &web.handle(), move |_, vitals| http::Web::new(vitals, listener, state))?;

    let plant = Plant { config, root: &root, store: store.clone(), metrics, traces: traces.clone(), bronze };
    match (&config.kafka, cluster) {
        (Some(kafka), Some(reached)) => cluster::start(&plant, kafka, reached)?,
        (Some(kafka), None) => start_refiner(&plant, kafka.partitions)?,
        (None, _) => embedded(&plant)?,
    }
    Ok(App { root, store, _lock: lock })
}

/// The tree of a daemon whose spool is the log: one partition a stream.
fn embedded(plant: &Plant<'_>) -> Result<()> {
    let spooling = spooling::open(plant.config, LogKind::BRONZE)?;
    start_refiner(plant, 1)?;
    archive::start_sealer(plant, Arc::new(|| ChainId::all(1).collect()))?;
    let told = Arc::new(OnceLock::new());
    archive::start_writers(plant, &spooling.logs, &told)?;
    let spool = feed::start_spool(plant, spooling)?;
    drop(told.set(vec![spool.clone().recipient()]));
    feed::start_shards(plant, &spool, 1, None)
}

/// Also a process without a spool keeps notes: of records that kill their writers.
fn make_data_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| {
        format!("`data_dir` is `{}`, which cannot be made: choose a folder that this user may write", dir.display())
    })
}

/// The refiner, if this process is to have one.
fn start_refiner(plant: &Plant<'_>, partitions: u32) -> Result<()> {
    let Some(warehouse) = plant.config.warehouse.clone().filter(|_| plant.config.roles.refine) else { return Ok(()) };
    let (every, store, metrics, traces) = (warehouse.every, plant.store.clone(), plant.metrics.clone(), plant.traces.clone());
    let rounds = Arc::new(move || Rounds::new(warehouse.clone(), store.clone(), partitions, traces.clone()));
    plant.root.top.spawn(child("refiner", plant.config.drain_within), &plant.bronze.handle(), move |_, vitals| {
        refiner::Refiner::new(refiner::Parts { vitals, metrics, every, rounds })
    })?;
    Ok(())
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
