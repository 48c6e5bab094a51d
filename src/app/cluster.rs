//! The tree of a daemon of a cluster: Kafka is the log, and several daemons share the work.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Arbiter;
use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::archive::{self, Told, Writer, Writers};
use super::{DRAIN_WITHIN, Plant, child, feed, spooling, start_refiner};
use crate::actors::{consumer, coverage, forwarder, schemas, topics};
use crate::bronze::source::Source;
use crate::config::{Config, KafkaConfig};
use crate::io::kafka::client::try_out;
use crate::io::kafka::topics::Topics;
use crate::kafka::cluster::{Cluster, Known};
use crate::kafka::forwarding::MakeSender;
use crate::kafka::reader::Reader;
use crate::kafka::schemas::Schemas;
use crate::kafka::sender::KafkaSender;
use crate::kafka::source::{Means, Partition};
use crate::spool::segment::{DrainedBy, LogKind};
use crate::telemetry::metrics::alarm_of;
use crate::wire::encode::Encoder;

/// The cluster, as far as it could be reached.
pub(super) struct Reached {
    topics: Option<Topics>,
    /// None is configured, or its ids may be unknown yet.
    schemas: Option<Schemas>,
}

/// Reaches the cluster and its registry, and creates or checks topics and schemas. One that is away now is no error: trades
/// wait in the spool. One that says no is, since no restart cures that.
pub(super) async fn reach(config: &Config, kafka: &KafkaConfig) -> Result<Reached> {
    try_out(kafka, config.roles).context("`[kafka]` cannot be used")?;
    let topics = match topics::connect(kafka).await {
        Ok(topics) => Some(topics),
        Err(error) if error.is_retryable() => {
            tracing::warn!(%error, "the cluster was not reached: until it is, {}", config.roles.meanwhile());
            None
        }
        Err(error) => return Err(error).context("`[kafka]` cannot be used"),
    };
    let Some(registry) = &kafka.registry else { return Ok(Reached { topics, schemas: None }) };
    let unusable = "`[kafka.registry]` cannot be used";
    let schemas = Schemas::new(kafka, registry, &config.data_dir).context(unusable)?;
    match schemas.ensure().await {
        Err(error) if !error.is_retryable() => return Err(error).context(unusable),
        Err(error) => tracing::warn!(%error, known = schemas.ids().is_some(), "the schema registry was not reached"),
        Ok(_) => {}
    }
    Ok(Reached { topics, schemas: Some(schemas) })
}

/// Starts what the roles ask for.
pub(super) fn start(plant: &Plant<'_>, kafka: &KafkaConfig, reached: Reached) -> Result<()> {
    let Reached { topics: reached, schemas } = reached;
    let (config, roles) = (plant.config, plant.config.roles);
    if let Some(demand) = config.shared_folder() {
        tracing::warn!("{demand}");
    }
    let (known, knows) = watch::channel(Known { topics: reached.clone(), ..Known::default() });
    let cluster = Cluster::new(knows);
    let watching = (plant.metrics.clone(), kafka.clone(), Arc::new(known));
    plant.root.top.spawn(child("topics", DRAIN_WITHIN), &plant.bronze.handle(), move |_, vitals| {
        let (metrics, config, known) = watching;
        topics::TopicWatch::new(topics::Parts { vitals, metrics, config, roles, topics: reached, known })
    })?;
    if let Some(schemas) = schemas.clone() {
        let metrics = plant.metrics.clone();
        plant.root.top.spawn(child("schemas", DRAIN_WITHIN), &plant.bronze.handle(), move |_, vitals| {
            schemas::SchemaKeeper::new(schemas::Parts { vitals, metrics, schemas })
        })?;
    }
    start_refiner(plant, kafka.partitions)?;

    let told: Told = Arc::new(OnceLock::new());
    let mut recipients = Vec::new();
    if roles.archive {
        let (known, least) = (cluster.clone(), kafka.partitions);
        archive::start_sealer(plant, Arc::new(move || known.chains(least)))?;
        recipients.push(start_consumer(plant, kafka, &cluster, schemas.as_ref(), &told)?.recipient());
    }
    if roles.feed {
        let kind = LogKind { drained_by: DrainedBy::Kafka, partitions: kafka.partitions };
        let spooling = spooling::open(config, kind)?;
        let name = spooling::name(&config.spool.dir)?;
        let parts = (plant.metrics.clone(), plant.store.clone(), spooling.partitions, cluster.clone(), told.clone());
        plant.root.top.spawn(child("coverage", DRAIN_WITHIN), &plant.bronze.handle(), move |_, vitals| {
            let (metrics, store, partitions, cluster, told) = parts;
            coverage::Coverage::new(coverage::Parts { vitals, metrics, store, partitions, cluster, told })
        })?;
        let sender = make_sender(kafka.clone(), cluster.clone(), schemas);
        let (metrics, logs) = (plant.metrics.clone(), spooling.logs.clone());
        let notes = config.spool.dir.join("forwarded.json");
        let forwarder =
            plant.root.top.spawn(child("forwarder", config.drain_within), &Arbiter::new().handle(), move |_, vitals| {
                forwarder::Forwarder::new(forwarder::Parts { vitals, metrics, logs, notes, cluster, sender })
            })?;
        let spool = feed::start_spool(plant, spooling)?;
        recipients.extend([spool.clone().recipient(), forwarder.recipient()]);
        drop(told.set(recipients));
        return feed::start_shards(plant, &spool, kafka.partitions, Some(&name));
    }
    drop(told.set(recipients));
    Ok(())
}

/// What makes the forwarder's producers.
fn make_sender(kafka: KafkaConfig, cluster: Cluster, schemas: Option<Schemas>) -> MakeSender {
    Arc::new(move || {
        let ids = match &schemas {
            Some(schemas) => Some(schemas.ids().ok_or("the schema registry has not given its ids yet")?),
            None => None,
        };
        let encoder = Encoder::new(kafka.format, ids);
        KafkaSender::new(&kafka, cluster.clone(), encoder).map_err(|error| error.to_string())
    })
}

/// The supervisor of the writers, and who starts and stops them.
fn start_consumer(
    plant: &Plant<'_>,
    kafka: &KafkaConfig,
    cluster: &Cluster,
    schemas: Option<&Schemas>,
    told: &Told,
) -> Result<actix::Addr<consumer::Consumer>> {
    let writers = Writers::new(plant, told)?;
    let supervisor = writers.supervisor.clone();
    let reader = Reader::new(kafka).context("`[kafka]` cannot be used")?;
    let means = Means { reader: reader.clone(), cluster: cluster.clone(), registry: schemas.map(Schemas::registry) };
    let start = start_writer(writers, means, kafka.drain_within);
    let (metrics, config, cluster) = (plant.metrics.clone(), kafka.clone(), cluster.clone());
    let name = format!("tickmint-{}", spooling::name(&plant.config.data_dir)?);
    let consumer =
        plant.root.top.spawn(child("consumer", plant.config.drain_within), &plant.bronze.handle(), move |_, vitals| {
            consumer::Consumer::new(consumer::Parts {
                vitals,
                metrics,
                config,
                name,
                cluster,
                reader,
                writers: supervisor,
                start,
            })
        })?;
    Ok(consumer)
}

/// Starts the writer of an assigned partition.
fn start_writer(writers: Writers, means: Means, drain_within: Duration) -> consumer::StartWriter {
    // The group gives a partition away after its own time; who is slower may finish beside the next writer, but not for as long as
    // the process may take: other decisions of the group wait for it.
    let drain_within = drain_within.max(DRAIN_WITHIN);
    Arc::new(move |chain, name| {
        let means = means.clone();
        let source = move || Box::new(Partition::new(means.clone(), chain)) as Box<dyn Source>;
        writers.start(Writer { chain, name, alarm: alarm_of(chain), drain_within }, source)
    })
}
