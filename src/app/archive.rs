//! The archive's side of the tree: writers, and the sealer of hours.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Recipient;
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
use crate::supervisor::{ChildSpec, SupervisorRef};
use crate::telemetry::Traces;

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

/// The supervisor of the writers.
pub(super) fn supervise_writers(plant: &Plant<'_>) -> Result<SupervisorRef> {
    Ok(plant.root.top.supervisor(child("writers", DRAIN_WITHIN), policy(5, 30))?)
}

/// One writer a stream: the spool is the log.
pub(super) fn start_writers(plant: &Plant<'_>, logs: &Logs, told: &Told) -> Result<()> {
    let writers = supervise_writers(plant)?;
    let budget = Budget::new(plant.config.bronze.memory);
    for stream in Stream::ALL {
        let logs = logs.clone();
        let source = move || Box::new(Spooled::new(logs.clone(), stream)) as Box<dyn Source>;
        let makes = Makes { config: plant.config, store: &plant.store, traces: &plant.traces, budget: &budget };
        let archiver = makes.archiver(stream.into(), &format!("poison-{stream}.json"), Arc::new(source));
        let (told, metrics, put_within) = (told.clone(), plant.metrics.clone(), put_within(&plant.config.bronze));
        let spec = ChildSpec { together: true, ..child(stream.name(), plant.config.drain_within) };
        writers.spawn(spec, &plant.bronze.handle(), move |_, vitals| {
            let (chain, alarm) = (stream.into(), format!("bronze/{stream}"));
            let parts = partition_writer::Parts { vitals, metrics, chain, alarm, put_within, told, archiver };
            partition_writer::PartitionWriter::new(parts)
        })?;
    }
    Ok(())
}

/// How long the largest object may take into the store: it is hardly more than its records are before compression.
pub(super) fn put_within(bronze: &BronzeConfig) -> Duration {
    match &bronze.store {
        StoreConfig::S3(s3) => patience(s3.attempt_timeout, bronze.flush_bytes as u64),
        StoreConfig::Folder(_) => Duration::ZERO,
    }
}

/// Makes the archiver of a writer, at its start and after each restart.
pub(super) type MakeArchiver = Arc<dyn Fn() -> Archiver + Send + Sync>;

/// What archivers are made with.
pub(super) struct Makes<'a> {
    pub(super) config: &'a Config,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) traces: &'a Traces,
    pub(super) budget: &'a Arc<Budget>,
}

impl Makes<'_> {
    /// What remakes the archiver of a chain's writer. Deaths of the writer are noted in the file `notes`.
    pub(super) fn archiver(
        &self,
        chain: ChainId,
        notes: &str,
        source: Arc<dyn Fn() -> Box<dyn Source> + Send + Sync>,
    ) -> MakeArchiver {
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
