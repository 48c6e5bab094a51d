//! The archive's side of the tree: writers, and the sealer of hours.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{ArbiterHandle, Recipient};
use anyhow::Result;

use super::{DRAIN_WITHIN, Plant, child, policy};
use crate::actors::hour_sealer::{self, Chains};
use crate::actors::partition_writer;
use crate::bronze::archiver::{Archiver, Limits, Parts};
use crate::bronze::budget::Budget;
use crate::bronze::chain::Chain;
use crate::bronze::poison::Poison;
use crate::bronze::source::{Source, Spooled};
use crate::config::{BronzeConfig, Config, StoreConfig};
use crate::domain::chain::ChainId;
use crate::domain::stream::Stream;
use crate::io::s3::patience;
use crate::io::store::Store;
use crate::messages::bronze::Covered;
use crate::spool::logs::Logs;
use crate::supervisor::{ChildSpec, SpawnError, SupervisorRef};
use crate::telemetry::{Metrics, Traces};

/// Who is told how far chains are. Set when all of them are started.
pub(super) type Told = Arc<OnceLock<Vec<Recipient<Covered>>>>;

/// The sealer of hours.
pub(super) fn start_sealer(plant: &Plant<'_>, chains: Chains) -> Result<()> {
    let (store, metrics) = (plant.store.clone(), plant.metrics.clone());
    plant.root.top.spawn(child("hour_sealer", DRAIN_WITHIN), &plant.bronze.handle(), move |_, vitals| {
        hour_sealer::HourSealer::new(vitals, metrics, store, chains)
    })?;
    Ok(())
}

/// One writer a stream: the spool is the log.
pub(super) fn start_writers(plant: &Plant<'_>, logs: &Logs, told: &Told) -> Result<()> {
    let writers = Writers::new(plant, told)?;
    for stream in Stream::ALL {
        let logs = logs.clone();
        let source = move || Box::new(Spooled::new(logs.clone(), stream)) as Box<dyn Source>;
        let writer = Writer {
            chain: stream.into(),
            name: stream.name(),
            alarm: format!("bronze/{stream}"),
            drain_within: plant.config.drain_within,
        };
        writers.start(writer, source)?;
    }
    Ok(())
}

/// A writer of one chain.
pub(super) struct Writer<'a> {
    pub(super) chain: ChainId,
    /// What it is called below the supervisor, and in the file of its deaths.
    pub(super) name: &'a str,
    /// The alarm of what is wrong with its chain.
    pub(super) alarm: String,
    pub(super) drain_within: Duration,
}

/// The supervisor of the writers, and what they share.
pub(super) struct Writers {
    pub(super) supervisor: SupervisorRef,
    arbiter: ArbiterHandle,
    config: Config,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    traces: Traces,
    budget: Arc<Budget>,
    told: Told,
}

impl Writers {
    /// The supervisor, and no writer yet.
    pub(super) fn new(plant: &Plant<'_>, told: &Told) -> Result<Writers> {
        Ok(Writers {
            supervisor: plant.root.top.supervisor(child("writers", DRAIN_WITHIN), policy(5, 30))?,
            arbiter: plant.bronze.handle(),
            config: plant.config.clone(),
            store: plant.store.clone(),
            metrics: plant.metrics.clone(),
            traces: plant.traces.clone(),
            budget: Budget::new(plant.config.bronze.memory),
            told: told.clone(),
        })
    }

    /// Starts a writer of what `source` reads.
    pub(super) fn start(
        &self,
        writer: Writer<'_>,
        source: impl Fn() -> Box<dyn Source> + Send + Sync + 'static,
    ) -> Result<(), SpawnError> {
        let Writer { chain, name, alarm, drain_within } = writer;
        let archiver = self.archiver(chain, &format!("poison-{name}.json"), source);
        let (told, metrics, bronze) = (self.told.clone(), self.metrics.clone(), &self.config.bronze);
        let (put_within, flush_after) = (put_within(bronze), bronze.flush_after);
        let spec = ChildSpec { together: true, ..child(name, drain_within) };
        self.supervisor.spawn(spec, &self.arbiter, move |_, vitals| {
            partition_writer::PartitionWriter::new(partition_writer::Parts {
                vitals,
                metrics,
                chain,
                alarm,
                flush_after,
                put_within,
                told,
                archiver,
            })
        })?;
        Ok(())
    }

    /// What makes the archiver of a writer, at its start and after each restart. Deaths of the writer are noted in the file `notes`.
    fn archiver(
        &self,
        chain: ChainId,
        notes: &str,
        source: impl Fn() -> Box<dyn Source> + Send + Sync + 'static,
    ) -> Arc<dyn Fn() -> Archiver + Send + Sync> {
        let bronze = &self.config.bronze;
        let limits = Limits { flush_bytes: bronze.flush_bytes, flush_after: bronze.flush_after, zstd_level: bronze.zstd_level };
        let notes = self.config.data_dir.join(notes);
        let (store, budget, traces) = (self.store.clone(), self.budget.clone(), self.traces.clone());
        Arc::new(move || {
            let poison = Poison::load(notes.clone());
            let (store, budget, traces) = (store.clone(), budget.clone(), traces.clone());
            let chain = Chain::new(chain, store.clone());
            Archiver::new(Parts { chain, store, source: source(), limits, budget, poison, traces })
        })
    }
}

/// How long the largest object may take into the store: it is hardly more than its records are before compression.
fn put_within(bronze: &BronzeConfig) -> Duration {
    match &bronze.store {
        StoreConfig::S3(s3) => patience(s3.attempt_timeout, bronze.flush_bytes as u64),
        StoreConfig::Folder(_) => Duration::ZERO,
    }
}
