//! Starts and stops the writers of the partitions that the group gives to this process.
//!
//! In: the group's decisions, and how far the writers are. Out: writers, below the supervisor of its own. After a
//! restart it joins the group anew; until then its writers are stopped.
//!
//! It joins by the name of its data folder, so that a process that died is not waited for by the group when its next life
//! comes. A daemon on a copy of the folder takes the place over; whoever loses it so joins without a name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::KafkaConfig;
use crate::domain::chain::ChainId;
use crate::kafka::cluster::Cluster;
use crate::kafka::member::{Decision, Member};
use crate::messages::bronze::Covered;
use crate::supervisor::{Child, SpawnError, SupervisorRef, Vitals};
use crate::telemetry::Metrics;

/// See the module.
pub struct Consumer {
    parts: Parts,
    member: Option<Member>,
    /// Whether another daemon has come with its name.
    is_replaced: bool,
    works: Works,
}

/// The chains whose writers run.
type Works = Arc<Mutex<BTreeSet<ChainId>>>;

/// What a consumer is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
    /// The cluster and the group.
    pub config: KafkaConfig,
    /// By which it is known in the group.
    pub name: String,
    /// What is known of the topics.
    pub cluster: Cluster,
    /// Above the writers.
    pub writers: SupervisorRef,
    /// Starts a writer below that, by this name.
    pub start: StartWriter,
}

/// Is raised while the group does not let this process take part.
const ALARM: &str = "consumer";

/// Starts the writer of a chain, by this name.
pub type StartWriter = Arc<dyn Fn(ChainId, &str) -> Result<(), SpawnError> + Send + Sync>;

/// The name of a chain's writer.
fn name(chain: ChainId) -> String {
    format!("{}-{}", chain.stream, chain.partition)
}

impl Consumer {
    /// One that has not joined yet.
    pub fn new(parts: Parts) -> Consumer {
        Consumer { parts, member: None, is_replaced: false, works: Works::default() }
    }

    fn join(&mut self, ctx: &mut Context<Self>) {
        let (tell, decisions) = unbounded_channel();
        let name = Some(self.parts.name.as_str()).filter(|_| !self.is_replaced);
        // Where nobody listens any more, the partitions are given away at once.
        match Member::join(&self.parts.config, name, move |decision| drop(tell.send(decision))) {
            Ok(member) => {
                self.member = Some(member);
                let (parts, works) = (self.parts.clone(), self.works.clone());
                let obeyed = wrap_future::<_, Self>(async move { obey(&parts, &works, decisions).await });
                ctx.spawn(obeyed.map(|end, consumer, ctx| {
                    if let End::Replaced = end {
                        consumer.is_replaced = true;
                        let why = "another daemon is in the group by the name of this data folder: a copy of it runs somewhere";
                        consumer.parts.vitals.fail(why.to_string());
                        ctx.stop();
                    }
                }));
            }
            Err(error) => {
                self.parts.vitals.fail(error.to_string());
                ctx.stop();
            }
        }
    }
}

/// Why there are no more decisions.
enum End {
    /// The member is gone.
    Left,
    /// Another one has its name.
    Replaced,
}

/// One decision after the other: a partition that comes back must have left before.
async fn obey(parts: &Parts, works: &Works, mut decisions: UnboundedReceiver<Decision>) -> End {
    while let Some(decision) = decisions.recv().await {
        match decision {
            Decision::Assigned(chains) => {
                parts.metrics.alarms().clear(ALARM);
                chains.into_iter().for_each(|chain| begin(parts, works, chain));
            }
            Decision::Replaced => return End::Replaced,
            Decision::Refused(why) => {
                let group = &parts.config.group;
                parts
                    .metrics
                    .alarms()
                    .raise(ALARM, format!("consumer group `{group}`: {why}; what it would give us is not archived"));
            }
            Decision::Revoked(chains, done) => {
                leave(parts, works, chains).await;
                done.send(()).ok(); // it may have taken too long
            }
        }
        parts.vitals.gauge("partitions", works.lock().unwrap_or_else(PoisonError::into_inner).len() as f64);
    }
    End::Left
}

fn begin(parts: &Parts, works: &Works, chain: ChainId) {
    match (parts.start)(chain, &name(chain)) {
        Ok(()) => {
            works.lock().unwrap_or_else(PoisonError::into_inner).insert(chain);
        }
        Err(error) => tracing::error!(%chain, %error, "a writer could not be started"),
    }
}

/// Drains and stops writers, all at once.
async fn leave(parts: &Parts, works: &Works, chains: Vec<ChainId>) {
    let stops = chains.iter().map(|chain| async { parts.writers.stop(&name(*chain)).await });
    for undrained in futures_util::future::join_all(stops).await.into_iter().flatten() {
        tracing::warn!(?undrained, "a writer was not drained: the next one of its partition does it again");
    }
    let mut works = works.lock().unwrap_or_else(PoisonError::into_inner);
    for chain in chains {
        works.remove(&chain);
        parts.metrics.archive_left(chain);
    }
}

fn all(works: &Works) -> Vec<ChainId> {
    works.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
}

impl Actor for Consumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.join(ctx);
    }
}

impl Supervised for Consumer {
    fn restarting(&mut self, _: &mut Self::Context) {
        let (parts, works, member) = (self.parts.clone(), self.works.clone(), self.member.take());
        actix_rt::spawn(async move {
            leave(&parts, &works, all(&works)).await;
            drop(tokio::task::spawn_blocking(move || drop(member)).await);
        });
        self.works = Works::default();
    }
}

impl Child for Consumer {
    /// The writers are drained before the group is left: so whoever comes next finds the chains where these stopped.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let (parts, works, member) = (self.parts.clone(), self.works.clone(), self.member.take());
        Box::pin(wrap_future(async move {
            leave(&parts, &works, all(&works)).await;
            drop(tokio::task::spawn_blocking(move || drop(member)).await);
        }))
    }
}

impl Handler<Covered> for Consumer {
    type Result = ();

    fn handle(&mut self, Covered { chain, archived }: Covered, _: &mut Self::Context) {
        if let Some(member) = &self.member
            && archived.log.is_some()
            && archived.log == self.parts.cluster.incarnation(chain.stream)
        {
            member.commit(chain, archived.next.start);
        }
    }
}
