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

use crate::clock;
use crate::config::SpoolConfig;
use crate::domain::archived::Chains;
use crate::domain::hour::Hour;
use crate::domain::stream::PerStream;
use crate::faults::{Flaw, flawed};
use crate::messages::bronze::Covered;
use crate::messages::feed::{Append, AppendError, EndSession, OpenSession};
use crate::spool::commit::{Request, Room, commit};
use crate::spool::deletion::Deletion;
use crate::spool::logs::Logs;
use crate::spool::pace::Pace;
use crate::spool::reader::LogView;
use crate::spool::segment::LogKind;
use crate::spool::writer::LogWriter;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::traces::logs_of;
use crate::telemetry::{Metrics, Traces};

/// How often the clock is looked at for the turn of the hour.
const TICK_CHECK: Duration = Duration::from_secs(1);

/// A commit that takes this long raises an alarm: the disk hangs. A slow one takes a second.
const HUNG_AFTER: Duration = Duration::from_secs(10);

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
    kind: LogKind,
    log: SharedLog,
    durable: Arc<watch::Sender<LogView>>,
    metrics: Arc<Metrics>,
    traces: Traces,
    pending: Vec<(Request, Answer)>,
    /// A commit is under way, or one is due at a known time.
    busy: bool,
    /// Since when a commit has been on the disk.
    writing: Option<Instant>,
    pace: Pace,
    /// The last hour of whose turn the log tells.
    hour: Option<Hour>,
    /// A turn is on its way into the log.
    turning: bool,
    archived: Chains,
    deletion: Arc<Mutex<Deletion>>,
    /// A deletion is under way; and since it began, more was archived.
    deleting: Option<bool>,
}

/// What a spool is made of.
pub struct SpoolParts {
    /// Sizes and times.
    pub config: SpoolConfig,
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// The logs of this machine.
    pub logs: Logs,
    /// Of what kind the living one is.
    pub kind: LogKind,
    /// The living one.
    pub log: LogWriter,
    /// Where it tells what is durable.
    pub durable: watch::Sender<LogView>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
    /// Traces commits with sampled frames in them.
    pub traces: Traces,
}

impl Spool {
    /// A spool on an open log.
    pub fn new(parts: SpoolParts) -> Spool {
        let pace = Pace::new(parts.config.group);
        let SpoolParts { config, vitals, logs, kind, log, durable, metrics, traces } = parts;
        Spool {
            config,
            vitals,
            kind,
            hour: log.state().hour,
            turning: false,
            log: Arc::new(Mutex::new(Some(log))),
            durable: Arc::new(durable),
            metrics,
            traces,
            pending: Vec::new(),
            pace,
            busy: false,
            writing: None,
            archived: Chains::default(),
            deletion: Arc::new(Mutex::new(Deletion::new(logs.clone(), kind.drained_by))),
            deleting: None,
            logs,
        }
    }

    fn request(&mut self, request: Request, ctx: &mut Context<Self>) -> ResponseActFuture<Self, Result<(), AppendError>> {
        let (answer, answered) = oneshot::channel();
        self.pending.push((request, answer));
        self.kick(ctx);
        Box::pin(wrap_future(async { answered.await.unwrap_or(Err(AppendError::Down("spool"))) }))
    }

    /// Commits what is pending, unless that is under way, when the pace allows it.
    fn kick(&mut self, ctx: &mut Context<Self>) {
        if self.busy || self.pending.is_empty() {
            return;
        }
        self.busy = true;
        let wait = self.pace.wait(Instant::now());
        if wait.is_zero() {
            self.commit(ctx);
        } else {
            ctx.run_later(wait, Spool::commit);
        }
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.pace.take(now);
        self.writing = Some(now);
        let (requests, answers): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().unzip();
        let answers = if flawed(Flaw::AckBeforeFsync) { answer_all(answers) } else { answers };
        let room = self.tell_room();
        let (log, durable, config) = (self.log.clone(), self.durable.clone(), self.config.clone());
        let (kind, id) = (self.kind, self.logs.live());
        let (metrics, traces) = (self.metrics.clone(), self.traces.clone());
        let work = move || {
            let mut shared = log.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = match shared.take() {
                Some(log) => Ok(log),
                None => LogWriter::reopen_of(kind, &config.dir, id, config.segment_bytes),
            };
            match taken {
                Ok(mut log) => {
                    let mut span = traces.span_append(traced(&requests));
                    let (began, before) = (Instant::now(), log.state().next.totals());
                    let results = commit(&mut log, &requests, room, clock::now());
                    let took = began.elapsed();
                    let refused = results.iter().find_map(|result| result.as_ref().err());
                    span.iter_mut().zip(refused).for_each(|(span, refused)| span.fail(refused));
                    let logs = logs_of(span.as_ref());
                    drop(span); // before anybody can read what it wrote
                    measure(&metrics, &requests, &results, took, before, log.state().next.totals());
                    durable.send_replace(log.view());
                    log.take_gaps().iter().for_each(|reason| metrics.gap(reason));
                    *shared = Some(log);
                    (results, logs)
                }
                Err(error) => (vec![Err(AppendError::Disk(error.to_string())); requests.len()], tracing::Span::none()),
            }
        };
        let done = wrap_future::<_, Self>(tokio::task::spawn_blocking(work)).map(move |results, spool, ctx| match results {
            Ok((results, logs)) => logs.in_scope(|| spool.committed(answers, results, ctx)),
            Err(error) => {
                spool.vitals.fail(format!("a commit died: {error}"));
                ctx.stop();
            }
        });
        ctx.spawn(done);
    }

    fn committed(&mut self, answers: Vec<Answer>, results: Vec<Result<(), AppendError>>, ctx: &mut Context<Self>) {
        self.writing = None;
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

    /// Also while nothing is committed: Bronze makes room at night, when the feed is silent.
    fn tell_room(&self) -> Room {
        let room = Room { used: self.logs.bytes(), max: self.config.max_bytes, reserve: self.config.reserve_bytes };
        self.metrics.spool_used(room.used, room.max, room.reserve);
        room
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.look_at_disk();
        self.tell_room();
        self.turn_the_hour(ctx);
    }

    /// Tells the log of an hour that has turned since it was last told: also of one that turned while no
    /// process was there, else all chains would stay in the hour of the last one for up to an hour. Tried
    /// again until it stands.
    fn turn_the_hour(&mut self, ctx: &mut Context<Self>) {
        let hour = Hour::of(clock::now());
        if self.turning || !hour.turns(self.hour) {
            return;
        }
        self.turning = true;
        let turned = self.request(Request::Tick(hour), ctx).map(move |done, spool, _| {
            spool.turning = false;
            if done.is_ok() {
                spool.hour = Some(hour);
            }
        });
        ctx.spawn(turned);
    }

    /// Tells of a disk that does not answer. The end of the commit takes it back.
    fn look_at_disk(&self) {
        let Some(hung) = self.writing.map(|since| since.elapsed()).filter(|hung| *hung >= HUNG_AFTER) else { return };
        let why = format!("the disk hangs: a write has not returned for {} s", hung.as_secs());
        if hung < HUNG_AFTER + TICK_CHECK {
            tracing::error!(dir = %self.config.dir.display(), "the spool's disk hangs");
        }
        self.metrics.spool_disk(Some(&why));
        self.vitals.note("disk", why);
    }

    /// Deletes what the chains have archived. One deletion at a time: they would wait for a commit that hangs, each with a thread.
    fn delete_covered(&mut self, ctx: &mut Context<Self>) {
        if let Some(again) = &mut self.deleting {
            *again = true;
            return;
        }
        self.deleting = Some(false);
        let (deletion, archived) = (self.deletion.clone(), self.archived.clone());
        let (log, durable) = (self.log.clone(), self.durable.clone());
        let work = move || -> std::io::Result<()> {
            let mut deletion = deletion.lock().unwrap_or_else(PoisonError::into_inner);
            let dead = deletion.delete_dead(&archived);
            let (last, unknown) = deletion.last_done(&archived);
            let others = dead.and(unknown);
            let Some(last) = last else { return others };
            let mut shared = log.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(log) = shared.as_mut() else { return others };
            let (before, done) = (log.view().closed.len(), log.delete_to(last));
            if log.view().closed.len() != before {
                durable.send_replace(log.view());
            }
            done.and(others)
        };
        let done = wrap_future::<_, Self>(tokio::task::spawn_blocking(work)).map(|result, spool, ctx| {
            if spool.deleting.take() == Some(true) {
                spool.delete_covered(ctx);
            }
            let result = result.unwrap_or_else(|died| Err(std::io::Error::other(died)));
            spool.metrics.spool_deletes(result.as_ref().err().map(|error| error as &dyn std::fmt::Display));
            if let Err(error) = result {
                tracing::error!(%error, "archived segments cannot be deleted");
            }
        });
        ctx.spawn(done);
    }
}

impl Actor for Spool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.turn_the_hour(ctx);
        ctx.run_interval(TICK_CHECK, Spool::tick);
    }
}

impl Supervised for Spool {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.pending.clear();
        self.busy = false;
        self.writing = None;
        self.turning = false;
        self.deleting = None;
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
        self.archived.learn(covered.chain, covered.archived);
        self.delete_covered(ctx);
    }
}

/// The trace contexts of the frames that are sampled.
fn traced(requests: &[Request]) -> impl Iterator<Item = &str> {
    let frames = requests.iter().flat_map(|request| match request {
        Request::Append(append) => append.frames.as_slice(),
        Request::Open(_) | Request::End(_) | Request::Tick(_) => &[],
    });
    frames.filter_map(|judged| judged.traceparent.as_deref())
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
            metrics.frames_durable(append.frames.iter().map(|judged| judged.frame.received_at), clock::now());
        }
    }
}

#[cfg(all(test, feature = "faults"))]
mod tests {
    use super::*;
    use crate::domain::identity::{LogId, SessionId};
    use crate::domain::shard::Shard;
    use crate::domain::stream::Stream;
    use crate::spool::state::LogState;

    /// Takes the fail point away also where the test fails: other tests of this process write logs too.
    struct Hung;

    impl Hung {
        fn begin() -> Hung {
            fail::cfg("spool.before-fsync", "pause").expect("it is an action");
            Hung
        }
    }

    impl Drop for Hung {
        fn drop(&mut self) {
            fail::remove("spool.before-fsync");
        }
    }

    /// A spool in `dir` that is not started yet, what it makes durable, and what it counts and shows.
    fn spool(dir: &std::path::Path) -> (Spool, watch::Receiver<LogView>, Arc<Metrics>, Arc<Vitals>) {
        let id = LogId::generate();
        let log = LogWriter::create(dir, id, LogState::default(), 1 << 20).expect("a test's folder can be written");
        let (durable, view) = watch::channel(log.view());
        let logs = Logs::new(dir.to_path_buf(), std::collections::BTreeMap::new(), id, view.clone());
        let config = SpoolConfig {
            dir: dir.to_path_buf(),
            max_bytes: 1 << 30,
            reserve_bytes: 0,
            segment_bytes: 1 << 20,
            group: Duration::ZERO,
        };
        let (metrics, vitals) = (Arc::new(Metrics::new()), Vitals::unsupervised("spool"));
        let (counted, shown) = (metrics.clone(), vitals.clone());
        let (kind, traces) = (LogKind::BRONZE, Traces::default());
        let parts = SpoolParts { config, vitals, logs, kind, log, durable, metrics, traces };
        (Spool::new(parts), view, counted, shown)
    }

    #[actix::test]
    async fn the_hours_turn_is_told_at_a_start_and_again_until_the_disk_takes_it() {
        let temp = tempfile::tempdir().unwrap();
        let (mut spool, view, metrics, _) = spool(temp.path());
        let (there, away) = (spool.logs.dir(spool.logs.live()), temp.path().join("away"));
        spool.log = SharedLog::default(); // reads the log again, and does not find it
        std::fs::rename(&there, &away).unwrap();
        tokio::time::pause();
        let spool = spool.start();
        while metrics.alarms().list().is_empty() {
            tokio::time::sleep(DISK_PAUSE).await;
        }
        std::fs::rename(&away, &there).unwrap();
        for _ in 0..20 {
            tokio::time::sleep(TICK_CHECK).await;
        }
        assert_eq!(view.borrow().end(Stream::Quarantine), 1, "once");
        drop(spool);
    }

    #[actix::test]
    async fn a_spool_that_empties_while_the_feed_is_silent_takes_its_alarm_back() {
        let temp = tempfile::tempdir().unwrap();
        let (mut spool, view, metrics, _) = spool(temp.path());
        let (held, durable) = (view.borrow().bytes(), spool.durable.clone());
        (spool.config.max_bytes, spool.turning) = (held + 1, true); // no hour turns
        tokio::time::pause();
        let spool = spool.start();
        tokio::time::sleep(2 * TICK_CHECK).await;
        assert_eq!(metrics.alarms().list()[0].name, "spool");
        durable.send_replace(LogView::default());
        tokio::time::sleep(2 * TICK_CHECK).await;
        assert_eq!(metrics.alarms().list(), []);
        drop(spool);
    }

    #[actix::test]
    async fn a_disk_that_hangs_is_an_alarm_until_it_answers() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, _view, counted, shown) = spool(temp.path());
        let spool = spool.start();
        let shard = Shard { name: "shard-1".into(), symbols: Arc::new(["A".to_string()]) };
        let open = || OpenSession { session: SessionId::generate(), shard: shard.clone() };

        tokio::time::pause(); // advances by hand only, as long as a write is under way
        let hung = Hung::begin();
        let answer = spool.send(open());
        tokio::pin!(answer);
        assert!(futures_util::poll!(&mut answer).is_pending());
        while counted.alarms().list().is_empty() {
            tokio::time::advance(TICK_CHECK).await;
            tokio::task::yield_now().await;
        }
        assert!(counted.alarms().list()[0].why.contains("hangs"), "{:?}", counted.alarms().list());
        assert!(shown.notes()["disk"].contains("has not returned for 1"), "{:?}", shown.notes());
        assert!(counted.encode(&[]).contains("tickmint_alarm{alarm=\"spool/disk\"} 1"));
        drop(hung);
        assert_eq!(answer.await.unwrap(), Ok(()), "nothing is lost");
        assert_eq!((counted.alarms().list(), shown.notes().len()), (vec![], 0));

        // The control: a disk that answers is no alarm, however much time passes between two writes.
        assert_eq!(spool.send(open()).await.unwrap(), Ok(()));
        for _ in 0..5 {
            tokio::time::advance(HUNG_AFTER).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(counted.alarms().list(), []);
    }
}
