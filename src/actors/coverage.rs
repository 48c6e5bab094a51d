//! Follows the chains, whoever writes them, and tells how far they are.
//!
//! In: nothing. Out: [`Covered`], to the spool, which may delete, and to the forwarder, which need not send again. After
//! a restart it begins at the tails.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

use crate::bronze::chain::{self, Chain, ChainError, Follower};
use crate::domain::archived::Archived;
use crate::domain::chain::ChainId;
use crate::io::store::Store;
use crate::kafka::cluster::Cluster;
use crate::messages::bronze::Covered;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// Each look costs a read a chain.
const EVERY: Duration = Duration::from_secs(3);

/// So many looks in a row fail before it is an alarm.
const LOOKS: u32 = 10;

/// See the module.
pub struct Coverage {
    parts: Parts,
}

/// What it is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Alarms.
    pub metrics: Arc<Metrics>,
    /// Where the chains are.
    pub store: Arc<dyn Store>,
    /// How many partitions there are at least: those of the config and of the logs in the spool.
    pub partitions: u32,
    /// How many the topics have.
    pub cluster: Cluster,
    /// Who is told.
    pub told: Arc<OnceLock<Vec<Recipient<Covered>>>>,
}

impl Coverage {
    /// One that has not looked yet.
    pub fn new(parts: Parts) -> Coverage {
        Coverage { parts }
    }
}

impl Actor for Coverage {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let parts = self.parts.clone();
        let follow = async move {
            let (mut followers, mut failed) = (BTreeMap::new(), 0);
            loop {
                match look(&parts, &mut followers).await {
                    Ok(told) => {
                        failed = 0;
                        parts.metrics.alarms().clear("coverage");
                        parts.vitals.clear_note("store");
                        parts.vitals.advance(told);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "how far the chains are is not known");
                        parts.vitals.note("store", error.to_string());
                        failed += 1;
                        if failed >= LOOKS {
                            parts
                                .metrics
                                .alarms()
                                .raise("coverage", format!("{error}; until it can be read, the spool deletes nothing"));
                        }
                    }
                }
                sleep(EVERY).await;
            }
        };
        ctx.spawn(wrap_future(follow));
    }
}

impl Supervised for Coverage {
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Child for Coverage {}

/// Follows all chains to their tails; of how many there was news. After an error, of the others all the same.
async fn look(parts: &Parts, followers: &mut BTreeMap<ChainId, Option<Follower>>) -> Result<u64, ChainError> {
    let partitions = parts.cluster.partitions().unwrap_or(0).max(parts.partitions);
    for chain in ChainId::all(partitions) {
        followers.entry(chain).or_default();
    }
    let found = stream::iter(followers).map(|(chain, follower)| news(&parts.store, *chain, follower));
    let found: Vec<_> = found.buffer_unordered(chain::AT_ONCE).collect().await;
    let (mut told, mut failed) = (0, None);
    for found in found {
        match found {
            Ok(None) => {}
            Ok(Some(covered)) => {
                told += 1;
                for recipient in parts.told.get().into_iter().flatten() {
                    // Who is down learns it with the next slot.
                    recipient.send(covered.clone()).await.ok();
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(told), Err)
}

/// How far a chain is, if that is new.
async fn news(store: &Arc<dyn Store>, chain: ChainId, follower: &mut Option<Follower>) -> Result<Option<Covered>, ChainError> {
    let archived = match follower {
        Some(follower) => {
            let mut last = None;
            loop {
                match follower.next().await {
                    Ok(Some(slot)) => last = Some(Archived::behind(&slot)),
                    // What was read is told; the error comes again.
                    Err(error) if last.is_none() => return Err(error),
                    Ok(None) | Err(_) => break last,
                }
            }
        }
        None => {
            let of = Chain::new(chain, store.clone());
            let tail = of.tail().await?;
            *follower = Some(Follower::new(of, tail.next));
            Some(Archived::at(tail))
        }
    };
    Ok(archived.map(|archived| Covered { chain, archived }))
}
