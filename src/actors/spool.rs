//! The one durable log of the machine.
//!
//! In: frames with their verdicts, and the beginnings and ends of sessions. Out: an answer when they
//! are on disk. All that arrives while an fsync runs shares the next one. After a restart it goes
//! on with the log as it stands on disk; a request that was under way is sent again by its sender
//! and answered as done if it had got there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::clock::now;
use crate::config::SpoolConfig;
use crate::domain::hour::Hour;
use crate::domain::stream::PerStream;
use crate::faults::{Flaw, flawed};
use crate::messages::bronze::Covered;
use crate::messages::feed::{Append, AppendError, EndSession, OpenSession};
use crate::spool::archived::{Archived, may_go};
use crate::spool::commit::{Request, Room, commit};
use crate::spool::logs::Logs;
use crate::spool::reader::LogView;
use crate::spool::writer::LogWriter;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// How often the clock is looked at for the turn of the hour.
const TICK_CHECK: Duration = Duration::from_secs(1);

/// How long the disk is left alone after it refused.
const DISK_PAUSE: Duration = Duration::from_millis(500);

type Answer = oneshot::Sender<Result<(), AppendError>>;

/// The log while nobody uses it. A commit that panics leaves nothing here, and the next one reads
/// the log from disk again.
type SharedLog = Arc<Mutex<Option<LogWriter>>>;

/// See the module.
pub struct Spool {
    config: SpoolConfig,
    vitals: Arc<Vitals>,
    logs: Logs,
    log: SharedLog,
    durable: Arc<watch::Sender<LogView>>,
    metrics: Arc<Metrics>,
    pending: Vec<(Request, Answer)>,
    /// A commit is under way, or one is due at a known time.
    busy: bool,
    last_commit: Instant,
    hour: Hour,
    archived: PerStream<Archived>,
}

/// What a spool is made of.
pub struct SpoolParts {
    /// Sizes and times.
    pub config: SpoolConfig,
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// The logs of this machine.
    pub logs: Logs,
    /// The living one.
    pub log: LogWriter,
    /// Where it tells what is durable.
    pub durable: watch::Sender<LogView>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
}

impl Spool {
    /// A spool on an open log.
    pub fn new(parts: SpoolParts) -> Spool {
        let SpoolParts { config, vitals, logs, log, durable, metrics } = parts;
        Spool {
            config,
            vitals,
            logs,
            log: Arc::new(Mutex::new(Some(log))),
            durable: Arc::new(durable),
            metrics,
            pending: Vec::new(),
            busy: false,
            last_commit: Instant::now(),
            hour: Hour::of(now()),
            archived: PerStream::default(),
        }
    }

    fn request(&mut self, request: Request, ctx: &mut Context<Self>) -> ResponseActFuture<Self, Result<(), AppendError>> {
        let (answer, answered) = oneshot::channel();
        self.pending.push((request, answer));
        self.kick(ctx);
        Box::pin(wrap_future(async { answered.await.unwrap_or(Err(AppendError::Down("spool"))) }))
    }

    /// Commits what is pending, unless that is under way; not sooner than one group interval after
    /// the commit before.
    fn kick(&mut self, ctx: &mut Context<Self>) {
        if self.busy || self.pending.is_empty() {
            return;
        }
        self.busy = true;
        let wait = (self.last_commit + self.config.group).saturating_duration_since(Instant::now());
        if wait.is_zero() {
            self.commit(ctx);
        } else {
            ctx.run_later(wait, Spool::commit);
        }
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        self.last_commit = Instant::now();
        let (requests, answers): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().unzip();
        let answers = if flawed(Flaw::AckBeforeFsync) { answer_all(answers) } else { answers };
        let room = Room { used: self.logs.bytes(), max: self.config.max_bytes, reserve: self.config.reserve_bytes };
        let (log, durable, config, id) = (self.log.clone(), self.durable.clone(), self.config.clone(), self.logs.live());
        let metrics = self.metrics.clone();
        metrics.spool_used(room.used, room.max);
        let work = move || {
            let mut shared = log.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = match shared.take() {
                Some(log) => Ok(log),
                None => LogWriter::reopen(&config.dir, id, config.segment_bytes),
            };
            match taken {
                Ok(mut log) => {
                    let (began, before) = (Instant::now(), log.state().next);
                    let results = commit(&mut log, &requests, room, now());
                    measure(&metrics, &requests, &results, began.elapsed(), before, log.state().next);
                    durable.send_replace(log.view());
                    *shared = Some(log);
                    results
                }
                Err(error) => vec![Err(AppendError::Disk(error.to_string())); requests.len()],
            }
        };
        let done = wrap_future::<_, Self>(tokio::task::spawn_blocking(work)).map(move |results, spool, ctx| match results {
            Ok(results) => spool.committed(answers, results, ctx),
            Err(error) => {
                spool.vitals.fail(format!("a commit died: {error}"));
                ctx.stop();
            }
        });
        ctx.spawn(done);
    }

    fn committed(&mut self, answers: Vec<Answer>, results: Vec<Result<(), AppendError>>, ctx: &mut Context<Self>) {
        let refused = results.iter().find_map(|result| match result {
            Err(error @ AppendError::Disk(_)) => Some(error.to_string()),
            _ => None,
        });
        self.vitals.advance(results.iter().filter(|result| result.is_ok()).count() as u64);
        for (answer, result) in answers.into_iter().zip(results) {
            // A sender that has gone down sends again.
            drop(answer.send(result));
        }
        fail::fail_point!("spool.answered");
        self.metrics.spool_disk(refused.as_ref().map(|reason| reason as &dyn std::fmt::Display));
        match refused {
            None => {
                self.vitals.clear_note("disk");
                self.busy = false;
                self.kick(ctx);
            }
            Some(reason) => {
                tracing::error!(%reason, "the spool's disk refuses");
                self.vitals.note("disk", reason);
                ctx.run_later(DISK_PAUSE, |spool, ctx| {
                    spool.busy = false;
                    spool.kick(ctx);
                });
            }
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let hour = Hour::of(now());
        if hour > self.hour {
            self.hour = hour;
            self.pending.push((Request::Tick(hour), oneshot::channel().0));
            self.kick(ctx);
        }
    }

    /// Deletes what the chains have archived.
    fn delete_covered(&mut self, ctx: &mut Context<Self>) {
        let (logs, log, archived, durable) = (self.logs.clone(), self.log.clone(), self.archived.clone(), self.durable.clone());
        let work = move || -> std::io::Result<()> {
            for (id, view) in logs.dead() {
                if view.closed.iter().all(|segment| may_go(segment, id, &archived)) {
                    logs.delete(id)?;
                    tracing::info!(log = %id, "a drained log is deleted");
                }
            }
            let mut shared = log.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(log) = shared.as_mut()
                && !log.delete_while(|segment| may_go(segment, logs.live(), &archived))?.is_empty()
            {
                durable.send_replace(log.view());
            }
            Ok(())
        };
        let done = wrap_future::<_, Self>(tokio::task::spawn_blocking(work)).map(|result, spool, _| {
            if let Ok(Err(error)) = result {
                tracing::error!(%error, "archived segments cannot be deleted");
                spool.vitals.note("disk", format!("archived segments cannot be deleted: {error}"));
            }
        });
        ctx.spawn(done);
    }
}

impl Actor for Spool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK_CHECK, Spool::tick);
    }
}

impl Supervised for Spool {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.pending.clear();
        self.busy = false;
    }
}

impl Child for Spool {}

impl Handler<Append> for Spool {
    type Result = ResponseActFuture<Self, Result<(), AppendError>>;

    fn handle(&mut self, append: Append, ctx: &mut Self::Context) -> Self::Result {
        self.request(Request::Append(append), ctx)
    }
}

impl Handler<OpenSession> for Spool {
    type Result = ResponseActFuture<Self, Result<(), AppendError>>;

    fn handle(&mut self, open: OpenSession, ctx: &mut Self::Context) -> Self::Result {
        self.request(Request::Open(open), ctx)
    }
}

impl Handler<EndSession> for Spool {
    type Result = ResponseActFuture<Self, Result<(), AppendError>>;

    fn handle(&mut self, end: EndSession, ctx: &mut Self::Context) -> Self::Result {
        self.request(Request::End(end), ctx)
    }
}

impl Handler<Covered> for Spool {
    type Result = ();

    fn handle(&mut self, covered: Covered, ctx: &mut Self::Context) {
        self.archived[covered.stream.index()] = covered.archived;
        self.delete_covered(ctx);
    }
}

/// For [`Flaw::AckBeforeFsync`]: tells everyone that all is durable. Nobody is left to be told later.
fn answer_all(answers: Vec<Answer>) -> Vec<Answer> {
    for answer in answers {
        drop(answer.send(Ok(())));
    }
    Vec::new()
}

/// Tells the metrics of a commit: its time, its records, and how long each frame waited.
fn measure(
    metrics: &Metrics,
    requests: &[Request],
    results: &[Result<(), AppendError>],
    took: Duration,
    from: PerStream<u64>,
    to: PerStream<u64>,
) {
    metrics.appended(took, std::array::from_fn(|stream| to[stream] - from[stream]));
    let done = requests.iter().zip(results).filter(|(_, result)| result.is_ok());
    for (request, _) in done {
        if let Request::Append(append) = request {
            metrics.frames_durable(append.frames.iter().map(|judged| judged.frame.received_at), now());
        }
    }
}
