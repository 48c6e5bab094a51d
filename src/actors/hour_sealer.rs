//! Declares hours complete and sweeps orphans out of them.
//!
//! In: nothing; it follows the chains. Out: `_complete/` markers. After a restart it goes on behind
//! the last marker.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use tokio::time::sleep;

use crate::bronze::sealer::Sealer;
use crate::clock;
use crate::domain::chain::ChainId;
use crate::io::store::Store;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// Hours turn slowly, and each look costs a read a chain.
const EVERY: Duration = Duration::from_secs(20);

/// Tells which chains there are now; none while that is not known. Others may join them, as a topic can be given more partitions.
pub type Chains = Arc<dyn Fn() -> Vec<ChainId> + Send + Sync>;

/// See the module.
pub struct HourSealer {
    vitals: Arc<Vitals>,
    metrics: Arc<Metrics>,
    store: Arc<dyn Store>,
    chains: Chains,
}

impl HourSealer {
    /// A sealer of these chains.
    pub fn new(vitals: Arc<Vitals>, metrics: Arc<Metrics>, store: Arc<dyn Store>, chains: Chains) -> HourSealer {
        HourSealer { vitals, metrics, store, chains }
    }
}

impl Actor for HourSealer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (vitals, metrics) = (self.vitals.clone(), self.metrics.clone());
        let (chains, mut sealer) = (self.chains.clone(), Sealer::new(self.store.clone(), Vec::new()));
        let run = async move {
            loop {
                sealer.follow(chains());
                let round = sealer.round(clock::now()).await;
                metrics.sealing(round.as_ref().err().map(|error| error as &dyn std::fmt::Display));
                match round {
                    Ok(sealed) => {
                        vitals.clear_note("store");
                        vitals.advance(sealed.hours.len() as u64);
                        if let Some(hour) = sealed.hours.last() {
                            tracing::info!(%hour, orphans = sealed.orphans.len(), "an hour is complete");
                            vitals.note("complete", hour.to_string());
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "hours are not sealed for now");
                        vitals.note("store", error.to_string());
                    }
                }
                sleep(clock::wait(EVERY)).await;
            }
        };
        ctx.spawn(wrap_future(run));
    }
}

impl Supervised for HourSealer {
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Child for HourSealer {}
