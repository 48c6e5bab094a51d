//! Starts and stops the writers of the partitions that the group gives to this process.
//!
//! In: the group's decisions, and how far the writers are. Out: writers, below the supervisor of its own. After a
//! restart its writers are stopped, and then it joins the group anew.
//!
//! It joins by the name of its data folder, so that a process that died is not waited for by the group when its next life
//! comes. A daemon on a copy of the folder takes the place over; whoever loses it so joins without a name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::config::KafkaConfig;
use crate::domain::chain::ChainId;
use crate::kafka::cluster::Cluster;
use crate::kafka::member::{Decision, Member};
use crate::kafka::quota::Quota;
use crate::kafka::reader::Reader;
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
    /// The life before: it drains its writers, and then leaves the group.
    leaving: Option<JoinHandle<()>>,
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
    /// Reads what the writers archive.
    pub reader: Reader,
    /// Above the writers.
    pub writers: SupervisorRef,
    /// Starts a writer below that, by this name.
    pub start: StartWriter,
}

/// Is raised while the group does not let this process take part.
const ALARM: &str = "consumer";

/// How often the reader's quota is looked at: statistics come no more often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Starts the writer of a chain, by this name.
pub type StartWriter = Arc<dyn Fn(ChainId, &str) -> Result<(), SpawnError> + Send + Sync>;

/// The name of a chain's writer.
fn name(chain: ChainId) -> String {
    format!("{}-{}", chain.stream, chain.partition)
}

impl Consumer {
    /// One that has not joined yet.
    pub fn new(parts: Parts) -> Consumer {
        Consumer { parts, member: None, is_replaced: false, works: Works::default(), leaving: None }
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
                    let why = match end {
                        End::Left if consumer.member.is_none() => return,
                        End::Left => "the thread of its membership has died".to_string(),
                        End::Replaced => {
                            consumer.is_replaced = true;
                            "another daemon is in the group by the name of this data folder: a copy of it runs somewhere"
                                .to_string()
                        }
                        End::Unable(error) => error.to_string(),
                    };
                    consumer.parts.vitals.fail(why);
                    ctx.stop();
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
    /// The member is gone: it was dropped, or its thread has died.
    Left,
    /// Another one has its name.
    Replaced,
    /// A writer could not be started. What is assigned and not worked on would be archived by nobody.
    Unable(SpawnError),
}

/// One decision after the other: a partition that comes back must have left before.
async fn obey(parts: &Parts, works: &Works, mut decisions: UnboundedReceiver<Decision>) -> End {
    while let Some(decision) = decisions.recv().await {
        match decision {
            Decision::Assigned(chains) => {
                parts.metrics.alarms().clear(ALARM);
                for chain in chains {
                    match (parts.start)(chain, &name(chain)) {
                        Ok(()) => drop(lock(works).insert(chain)),
                        Err(error) => return End::Unable(error),
                    }
                }
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
        parts.vitals.gauge("partitions", lock(works).len() as f64);
    }
    End::Left
}

/// Drains and stops writers, all at once.
async fn leave(parts: &Parts, works: &Works, chains: Vec<ChainId>) {
    let stops = chains.iter().map(|chain| async { parts.writers.stop(&name(*chain)).await });
    for undrained in futures_util::future::join_all(stops).await.into_iter().flatten() {
        tracing::warn!(?undrained, "a writer was not drained: the next one of its partition does it again");
    }
    let mut works = lock(works);
    for chain in chains {
        works.remove(&chain);
        parts.metrics.archive_left(chain);
    }
}

fn lock(works: &Works) -> MutexGuard<'_, BTreeSet<ChainId>> {
    works.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consumer {
    /// Drains the writers, and then leaves the group: so whoever comes next finds the chains where these stopped.
    fn leave(&mut self) -> JoinHandle<()> {
        let (parts, works) = (self.parts.clone(), std::mem::take(&mut self.works));
        let (member, before) = (self.member.take(), self.leaving.take());
        actix_rt::spawn(async move {
            if let Some(before) = before {
                drop(before.await);
            }
            let chains = lock(&works).iter().copied().collect();
            leave(&parts, &works, chains).await;
            drop(tokio::task::spawn_blocking(move || drop(member)).await);
        })
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    /// A writer of the life before that still drains stands in the way of one of this life.
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |Consumer { parts, .. }, _| {
            Quota::Consumer.show(parts.reader.held_up().as_ref(), &parts.vitals, &parts.metrics);
        });
        match self.leaving.take() {
            None => self.join(ctx),
            Some(leaving) => drop(ctx.spawn(wrap_future::<_, Self>(leaving).map(|_, consumer, ctx| consumer.join(ctx)))),
        }
    }
}

impl Supervised for Consumer {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.leaving = Some(self.leave());
    }
}

impl Child for Consumer {
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let left = self.leave();
        Box::pin(wrap_future(async move { drop(left.await) }))
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
