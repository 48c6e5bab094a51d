//! Keeps an eye on the cluster: connects to it, creates or checks its topics, and looks every few seconds whether they
//! are still the same.
//!
//! In: nothing. Out: what is known of the topics, to whoever has a [`Cluster`](crate::kafka::cluster::Cluster). After a
//! restart it connects anew; what was known stays.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::*;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::{KafkaConfig, Roles};
use crate::domain::stream::Stream;
use crate::io::kafka::KafkaError;
use crate::io::kafka::topics::Topics;
use crate::kafka::cluster::{Known, LOOK_EVERY, View, look};
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// So many looks in a row find partitions that cannot be used before it is an alarm: leaders are chosen within seconds.
const LOOKS: u32 = 1 + 30 / LOOK_EVERY.as_secs() as u32;

/// See the module.
pub struct TopicWatch {
    parts: Parts,
}

/// What it is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Alarms.
    pub metrics: Arc<Metrics>,
    /// The cluster.
    pub config: KafkaConfig,
    /// What this daemon does.
    pub roles: Roles,
    /// A connection that was made already, when the process began.
    pub topics: Option<Topics>,
    /// Where it tells what it knows.
    pub known: Arc<watch::Sender<Known>>,
}

impl TopicWatch {
    /// One that has not looked yet.
    pub fn new(parts: Parts) -> TopicWatch {
        TopicWatch { parts }
    }
}

impl Actor for TopicWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let parts = self.parts.clone();
        ctx.spawn(wrap_future(async move { watch_topics(parts).await }));
    }
}

impl Supervised for TopicWatch {
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Child for TopicWatch {}

async fn watch_topics(parts: Parts) {
    let (mut topics, mut before, mut lacking) = (parts.topics.clone(), View::default(), 0);
    loop {
        let looked = match &topics {
            Some(topics) => look(topics, &parts.known, &mut before).await,
            None => match connect(&parts.config).await {
                Ok(connected) => {
                    tracing::info!("connected to the cluster");
                    look(topics.insert(connected), &parts.known, &mut before).await
                }
                Err(error) => Err(error),
            },
        };
        match looked {
            Ok(missing) if missing.is_empty() => {
                parts.vitals.advance(1);
                parts.vitals.clear_note("cluster");
                parts.metrics.alarms().clear("kafka");
                let why = lacks(&before, &parts.config);
                lacking = if why.is_empty() { 0 } else { lacking + 1 };
                if lacking >= LOOKS {
                    parts.metrics.alarms().raise("kafka/partitions", format!("{why}; what belongs there waits"));
                } else if lacking == 0 {
                    parts.metrics.alarms().clear("kafka/partitions");
                }
            }
            Ok(missing) => {
                let names: Vec<_> = missing.iter().map(|stream| parts.config.topic(*stream)).collect();
                let why = format!(
                    "topics are gone: {}; what is not archived is in the spools: create them again as they were, or restart with \
                     `kafka.create_topics`, and it is sent again",
                    names.join(", ")
                );
                parts.vitals.note("cluster", why.clone());
                parts.metrics.alarms().raise("kafka", why);
            }
            Err(error) => {
                let why = format!("{error}; {}", parts.roles.meanwhile());
                parts.vitals.note("cluster", why.clone());
                parts.metrics.alarms().raise("kafka", why);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Which topics have partitions that cannot be used as they are now, and why.
fn lacks(view: &View, config: &KafkaConfig) -> String {
    let lacks = Stream::ALL.into_iter().filter_map(|stream| {
        let why = view[stream.index()]?.lacks(config.min_insync)?;
        Some(format!("topic `{}`: {why}", config.topic(stream)))
    });
    lacks.collect::<Vec<_>>().join("; ")
}

/// Connects, and creates or checks the topics.
pub async fn connect(config: &KafkaConfig) -> Result<Topics, KafkaError> {
    let topics = Topics::open(config).await?;
    for note in topics.ensure_all().await?.into_iter().flat_map(|ensured| ensured.notes) {
        tracing::warn!("{note}");
    }
    Ok(topics)
}
