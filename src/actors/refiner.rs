//! Has Silver and Gold made of what is new in Bronze.
//!
//! In: nothing; it follows the chains. Out: Gold as Parquet, published by the Python process that
//! this actor owns. After a restart the warehouse is asked how far it is.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;
use crate::warehouse::process::RefineError;
use crate::warehouse::rounds::{Round, RoundError, Rounds};

/// Wait after a failed round: a broken model or a store that is down does not mend in a second.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// See the module.
pub struct Refiner {
    parts: Parts,
    rounds: Arc<Mutex<Rounds>>,
}

/// What a refiner is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
    /// The least time between two rounds.
    pub every: Duration,
    /// Makes rounds that have not started anything yet.
    pub rounds: Arc<dyn Fn() -> Rounds + Send + Sync>,
}

impl Refiner {
    /// A refiner that begins when it is started.
    pub fn new(parts: Parts) -> Refiner {
        let rounds = Arc::new(Mutex::new((parts.rounds)()));
        Refiner { parts, rounds }
    }
}

impl Actor for Refiner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (parts, rounds) = (self.parts.clone(), self.rounds.clone());
        ctx.spawn(wrap_future(async move { refine(&parts, &rounds).await }));
    }
}

impl Supervised for Refiner {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.rounds = Arc::new(Mutex::new((self.parts.rounds)()));
    }
}

impl Child for Refiner {
    /// Refines what is left, then lets the process go.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let (parts, rounds) = (self.parts.clone(), self.rounds.clone());
        let drain = async move {
            let mut rounds = rounds.lock().await;
            loop {
                match round(&parts, &mut rounds).await {
                    Ok(Round::Refined { .. }) => {}
                    Ok(Round::Nothing) => break,
                    Err(error) => {
                        tracing::error!(%error, "draining: Gold stays behind Bronze until the next start");
                        break;
                    }
                }
            }
            rounds.stop().await;
        };
        Box::pin(wrap_future(drain))
    }
}

/// Refines for ever.
async fn refine(parts: &Parts, rounds: &Mutex<Rounds>) {
    loop {
        let mut guard = rounds.lock().await;
        let done = round(parts, &mut guard).await;
        drop(guard);
        match done {
            Ok(Round::Refined { more: true, .. }) => {}
            Ok(Round::Refined { .. } | Round::Nothing) => sleep(parts.every).await,
            Err(error) => {
                tracing::error!(%error, "Gold stays as it is");
                if let RoundError::Refine(RefineError::Process(_)) = error {
                    // The process is gone; another one, and no failure of this actor: a warehouse that
                    // cannot run must not take the feed down with it.
                    *rounds.lock().await = (parts.rounds)();
                }
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn round(parts: &Parts, rounds: &mut Rounds) -> Result<Round, RoundError> {
    let vitals = &parts.vitals;
    let done = rounds.round(|phase| vitals.note("phase", phase)).await;
    match &done {
        Ok(Round::Refined { done, .. }) => {
            vitals.clear_note("failing");
            vitals.note("phase", "waiting");
            parts.metrics.refined(done.run, done.seconds, done.rows.clone());
            vitals.advance(1);
            tracing::info!(run = done.run, seconds = done.seconds, rows = ?done.rows, "Gold is published");
        }
        Ok(Round::Nothing) => {
            vitals.note("phase", "waiting");
            parts.metrics.warehouse_up_to_date();
        }
        Err(error) => {
            parts.metrics.refine_failed(error);
            vitals.note("failing", error.to_string());
        }
    }
    done
}
