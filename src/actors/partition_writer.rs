//! Writes one partition of one stream to Bronze.
//!
//! In: the log's records, in offset order. Out: objects and slots, and to the spool, what is
//! covered. After a restart it begins at the chain again; nothing it remembered matters. A store
//! that does not answer is waited for, with back-off, and said in its notes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use rand::Rng;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::bronze::archiver::{ArchiveError, Archiver, Step};
use crate::bronze::chain::ChainError;
use crate::domain::chain::{Archived, Slot};
use crate::domain::stream::Stream;
use crate::messages::bronze::Covered;
use crate::spool::logs::Logs;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// No step takes this long: each request to the store has its own, shorter time-out.
const STEP_WITHIN: Duration = Duration::from_secs(180);

/// Waits between attempts when the store does not answer.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(15);

/// See the module.
pub struct PartitionWriter {
    parts: Parts,
    archiver: Arc<Mutex<Archiver>>,
}

/// What a writer is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
    /// What it archives.
    pub stream: Stream,
    /// The log it drains.
    pub logs: Logs,
    /// Told what is archived. Set once the spool, which starts later, has an address.
    pub covered: Arc<OnceLock<Recipient<Covered>>>,
    /// Makes an archiver that has not looked at anything yet.
    pub archiver: Arc<dyn Fn() -> Archiver + Send + Sync>,
}

impl PartitionWriter {
    /// A writer that begins when it is started.
    pub fn new(parts: Parts) -> PartitionWriter {
        let archiver = Arc::new(Mutex::new((parts.archiver)()));
        PartitionWriter { parts, archiver }
    }

    fn run(&self, ctx: &mut Context<Self>) {
        let (parts, archiver) = (self.parts.clone(), self.archiver.clone());
        let run = async move { archive(&parts, &archiver).await };
        ctx.spawn(wrap_future::<_, Self>(run).map(|reason, writer, ctx| {
            writer.parts.vitals.fail(reason);
            ctx.stop();
        }));
    }
}

impl Actor for PartitionWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run(ctx);
    }
}

impl Supervised for PartitionWriter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.archiver = Arc::new(Mutex::new((self.parts.archiver)()));
    }
}

impl Child for PartitionWriter {
    /// Archives all that is durable. What the deadline cuts off is archived by the next life.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let (parts, archiver) = (self.parts.clone(), self.archiver.clone());
        let drain = async move {
            let mut archiver = archiver.lock().await;
            let mut attempt = 0;
            loop {
                match step(&parts, &mut archiver, true).await {
                    Ok(Step::Idle { due: None }) => return,
                    Ok(Step::Idle { .. } | Step::Progress | Step::Decided(_)) => attempt = 0,
                    Err(Trouble::Passing(error)) => {
                        archiver.log_span().in_scope(|| tracing::warn!(%error, "draining: the store does not take it"));
                        sleep(back_off(attempt)).await;
                        attempt += 1;
                    }
                    Err(Trouble::Lasting(error)) => {
                        tracing::error!(%error, "draining: given up; the spool keeps it");
                        return;
                    }
                }
            }
        };
        Box::pin(wrap_future(drain))
    }
}

enum Trouble {
    Passing(String),
    Lasting(String),
}

/// Archives for ever; returns why it cannot.
async fn archive(parts: &Parts, archiver: &Mutex<Archiver>) -> String {
    let mut durable = parts.logs.watch();
    let mut attempt = 0;
    loop {
        durable.mark_unchanged();
        let mut guard = archiver.lock().await;
        let done = step(parts, &mut guard, false).await;
        let logs = guard.log_span();
        drop(guard);
        match done {
            Ok(Step::Progress | Step::Decided(_)) => {
                attempt = 0;
                parts.vitals.clear_note("store");
                tokio::task::yield_now().await;
            }
            Ok(Step::Idle { due }) => {
                attempt = 0;
                let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                tokio::select! {
                    _ = durable.changed() => {}
                    () = sleep_until(due) => {}
                }
            }
            Err(Trouble::Passing(error)) => {
                let wait = back_off(attempt);
                attempt += 1;
                logs.in_scope(|| {
                    tracing::warn!(%error, attempt, ?wait, "the store does not take it; what is durable waits in the spool");
                });
                parts.metrics.archive_failed(parts.stream, &error);
                parts.vitals.note("store", error);
                sleep(wait).await;
            }
            Err(Trouble::Lasting(error)) => return error,
        }
    }
}

async fn step(parts: &Parts, archiver: &mut Archiver, flush: bool) -> Result<Step, Trouble> {
    let done = timeout(STEP_WITHIN, archiver.step(flush)).await;
    let done = done.map_err(|_| Trouble::Lasting(format!("a step took longer than {STEP_WITHIN:?}")))?;
    if let Some((records, oldest)) = archiver.lag() {
        parts.vitals.gauge("lag_records", records as f64);
        parts.metrics.archive_lag(parts.stream, records, oldest);
    }
    match done {
        Ok(Step::Decided(slot)) => {
            tell(parts, &slot).await;
            Ok(Step::Decided(slot))
        }
        Ok(step) => Ok(step),
        Err(error) => Err(trouble(&error)),
    }
}

async fn tell(parts: &Parts, slot: &Slot) {
    if let Some(data) = slot.data() {
        parts.vitals.advance(data.rows);
        if !data.poison.is_empty() {
            let (stream, offsets, raw) = (slot.stream, &data.poison, &data.raw.key);
            tracing::error!(%stream, ?offsets, raw, "records that kill their writer were left out of typed");
        }
    }
    parts.metrics.slot_decided(slot);
    let covered = Covered { stream: slot.stream, archived: Archived::behind(slot) };
    // A spool that is down learns it with the next slot.
    if let Some(spool) = parts.covered.get()
        && let Err(error) = spool.send(covered).await
    {
        tracing::debug!(%error, "the spool was not told of a slot");
    }
}

/// A store that says no (credentials that have run out, a policy, a clock) is waited for like one that
/// says nothing: the spool has room, and the feed must not suffer. A chain that is not as it should be
/// is another matter.
fn trouble(error: &ArchiveError) -> Trouble {
    let text = error.to_string();
    match error {
        ArchiveError::Chain(ChainError::Newer { .. } | ChainError::Damaged { .. }) => Trouble::Lasting(text),
        ArchiveError::Chain(ChainError::Store(_)) | ArchiveError::Log(_) => Trouble::Passing(text),
    }
}

fn back_off(attempt: u32) -> Duration {
    let full = RETRY_MIN.saturating_mul(1 << attempt.min(16)).min(RETRY_MAX);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}
