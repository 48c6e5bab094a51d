//! Follows the chains, whoever writes them, and tells how far they are.
//!
//! In: nothing. Out: [`Covered`], to the spool, which may delete, and to the forwarder, which need not send again. After
//! a restart it begins at the tails.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use tokio::time::sleep;

use crate::bronze::chain::{Chain, ChainError, Follower};
use crate::domain::chain::{Archived, ChainId};
use crate::io::store::Store;
use crate::kafka::cluster::Cluster;
use crate::messages::bronze::Covered;
use crate::supervisor::{Child, Vitals};

/// Each look costs a read a chain.
const EVERY: Duration = Duration::from_secs(3);

/// See the module.
pub struct Coverage {
    parts: Parts,
}

/// What it is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
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
            let mut followers = BTreeMap::new();
            loop {
                match look(&parts, &mut followers).await {
                    Ok(told) => {
                        parts.vitals.clear_note("store");
                        parts.vitals.advance(told);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "how far the chains are is not known");
                        parts.vitals.note("store", error.to_string());
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

/// Follows all chains to their tails; of how many there was news.
async fn look(parts: &Parts, followers: &mut BTreeMap<ChainId, Follower>) -> Result<u64, ChainError> {
    let partitions = parts.cluster.partitions().unwrap_or(0).max(parts.partitions);
    let mut news = 0;
    for chain in ChainId::all(partitions) {
        let archived = match followers.get_mut(&chain) {
            Some(follower) => {
                let mut last = None;
                while let Some(slot) = follower.next().await? {
                    last = Some(Archived::behind(&slot));
                }
                last
            }
            None => {
                let of = Chain::new(chain, parts.store.clone());
                let tail = of.tail().await?;
                followers.insert(chain, Follower::new(of, tail.next));
                Some(Archived::at(tail))
            }
        };
        let Some(archived) = archived else { continue };
        news += 1;
        for told in parts.told.get().into_iter().flatten() {
            // Who is down learns it with the next slot.
            told.send(Covered { chain, archived: archived.clone() }).await.ok();
        }
    }
    Ok(news)
}
