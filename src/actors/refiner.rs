//! Has Silver and Gold made of what is new in Bronze.
//!
//! In: nothing; it follows the chains. Out: Gold as Parquet, published by the Python process that
//! this actor owns. After a restart the warehouse is asked how far it is.

use std::cell::RefCell;
use std::fmt::Display;
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

/// Wait at most so long after a round that was refused again and again: only a person can mend that.
const REFUSED_AFTER: Duration = Duration::from_secs(60);

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
                    Ok(Round::Refined { done, more }) if more || done.unread.is_none() => {}
                    // What cannot be read is tried again after the next start.
                    Ok(Round::Refined { .. } | Round::Nothing) => break,
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
    let mut refused = 0;
    loop {
        let mut guard = rounds.lock().await;
        let done = round(parts, &mut guard).await;
        let logs = guard.log_span();
        drop(guard);
        refused = if done.as_ref().is_err_and(RoundError::is_refusal) { refused + 1 } else { 0 };
        match done {
            Ok(Round::Refined { more: true, .. }) => {}
            Ok(Round::Refined { .. } | Round::Nothing) => sleep(parts.every).await,
            Err(error) => {
                logs.in_scope(|| tracing::error!(%error, "Gold stays as it is"));
                if let RoundError::Refine(RefineError::Process(_)) = error {
                    // The process is gone; another one, and no failure of this actor: a warehouse that
                    // cannot run must not take the feed down with it.
                    *rounds.lock().await = (parts.rounds)();
                }
                sleep(wait_after(refused)).await;
            }
        }
    }
}

/// How long to wait after a round that failed, the last `refused` of them with a refusal.
fn wait_after(refused: u32) -> Duration {
    RETRY_AFTER.saturating_mul(2u32.saturating_pow(refused)).min(REFUSED_AFTER)
}

async fn round(parts: &Parts, rounds: &mut Rounds) -> Result<Round, RoundError> {
    let (vitals, metrics) = (&parts.vitals, &parts.metrics);
    let phase = RefCell::new(String::new());
    let progress = |name: &str| {
        *phase.borrow_mut() = name.into();
        vitals.note("phase", name);
    };
    let done = match rounds.open(progress).await {
        Ok(hello) => {
            if let Some(hello) = hello {
                metrics.warehouse_greets(hello.run, hello.failing);
            }
            let done = rounds.round(metrics.failing().as_ref(), progress).await;
            metrics.holes(rounds.holes());
            done
        }
        Err(error) => Err(error),
    };
    match &done {
        Ok(Round::Refined { done, .. }) => {
            vitals.note("phase", "waiting");
            let unread = done.unread.as_ref();
            metrics.refined(done.run, done.seconds, done.rows.clone(), unread.map(|unread| unread as &dyn Display));
            parts.metrics.positions(done.portfolio_error.as_deref());
            vitals.advance(1);
            rounds.log_span().in_scope(|| match unread {
                None => {
                    vitals.clear_note("failing");
                    tracing::info!(run = done.run, seconds = done.seconds, rows = ?done.rows, "Gold is published");
                }
                Some(unread) => {
                    vitals.note("failing", unread.to_string());
                    tracing::error!(run = done.run, seconds = done.seconds, rows = ?done.rows, %unread, "Gold lacks some slots");
                }
            });
        }
        Ok(Round::Nothing) => {
            vitals.note("phase", "waiting");
            metrics.warehouse_up_to_date();
        }
        Err(error) => {
            let (told, why) = match error {
                RoundError::Refine(RefineError::Failed { failing, error, .. }) => (failing.clone(), error.clone()),
                other => (None, other.to_string()),
            };
            metrics.refine_failed(error.phase(&phase.borrow()), &why, told);
            vitals.note("failing", error.to_string());
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_is_refused_is_tried_less_and_less_often_and_one_that_failed_as_before() {
        let waits = [0, 1, 2, 3, 4, 5, u32::MAX].map(|refused| wait_after(refused).as_secs());
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
        let failed = |retryable| {
            RoundError::from(RefineError::Failed { phase: "dbt".into(), error: "no".into(), retryable, failing: None })
        };
        assert!(failed(false).is_refusal() && !failed(true).is_refusal());
        assert!(!RoundError::from(RefineError::Process("is gone".into())).is_refusal());
    }
}
