//! Writes one partition of one stream to Bronze.
//!
//! In: the log's records, in offset order. Out: objects and slots, and to the spool, what is
//! covered. After a restart it begins at the chain again; nothing it remembered matters. A store
//! that does not answer is waited for, with back-off, and said in its notes.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use rand::Rng;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::bronze::archiver::{ArchiveError, Archiver, Step};
use crate::bronze::chain::ChainError;
use crate::domain::archived::Archived;
use crate::domain::chain::{Body, ChainId, Slot};
use crate::domain::identity::LogId;
use crate::messages::bronze::Covered;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// A step takes at most this long beside its requests to the store, which have a time-out of their own.
const STEP_WITHIN: Duration = Duration::from_secs(180);

/// Waits between attempts when the store does not answer.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Where it says no: that needs a hand, so there is no hurry.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// What logs a chain was given over to is looked at for so long.
const OF_LATE: Duration = Duration::from_secs(600);

/// A log line of an outage that goes on comes so often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct PartitionWriter {
    parts: Parts,
    /// Of this life.
    archiver: Option<Arc<Mutex<Archiver>>>,
}

/// What a writer is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
    /// What it archives.
    pub chain: ChainId,
    /// The name of the alarm that it raises.
    pub alarm: String,
    /// How long records wait for their object to be closed.
    pub flush_after: Duration,
    /// How long its largest object may take into the store.
    pub put_within: Duration,
    /// Told what is archived. Set once those who start later have an address.
    pub told: Arc<OnceLock<Vec<Recipient<Covered>>>>,
    /// Makes an archiver that has not looked at anything yet.
    pub archiver: Arc<dyn Fn() -> Archiver + Send + Sync>,
}

impl PartitionWriter {
    /// A writer that begins when it is started.
    pub fn new(parts: Parts) -> PartitionWriter {
        PartitionWriter { parts, archiver: None }
    }

    fn run(&mut self, ctx: &mut Context<Self>) {
        let archiver = Arc::new(Mutex::new((self.parts.archiver)()));
        self.archiver = Some(archiver.clone());
        let parts = self.parts.clone();
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
    /// The archiver of the life before ends before the next one is made: both would listen to the same queue of the Kafka
    /// client, and the end of one takes the other's ear away.
    fn restarting(&mut self, _: &mut Self::Context) {
        self.archiver = None;
    }
}

impl Child for PartitionWriter {
    /// Archives all that is durable. What the deadline cuts off is archived by the next life.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let (parts, archiver) = (self.parts.clone(), self.archiver.clone());
        let drain = async move {
            let Some(archiver) = archiver else { return };
            let mut archiver = archiver.lock().await;
            let mut outage = Outage::default();
            loop {
                match step(&parts, &mut archiver, true).await {
                    Ok(Step::Idle { due: None }) => return,
                    Ok(Step::Idle { .. } | Step::Progress | Step::Decided(_)) => outage = Outage::default(),
                    Err(Trouble::Passing { error, of: Place::Chain, .. } | Trouble::Stuck(error)) => {
                        tracing::error!(%error, "draining: given up; what is durable waits");
                        return;
                    }
                    Err(Trouble::Passing { error, refused, of }) => {
                        if outage.is_to_be_said(Instant::now()) {
                            archiver.log_span().in_scope(|| tracing::warn!(%error, "draining: {}", of.text()));
                        }
                        sleep(outage.wait(refused)).await;
                    }
                }
            }
        };
        Box::pin(wrap_future(drain))
    }
}

enum Trouble {
    Passing {
        error: String,
        /// The same will be said again until somebody sees to it.
        refused: bool,
        of: Place,
    },
    /// A step does not come to an end. Another archiver may get on.
    Stuck(String),
}

/// What has the trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Store,
    Log,
    /// It is not as it must be, and nobody but a person mends it.
    Chain,
}

impl Place {
    fn text(self) -> &'static str {
        match self {
            Place::Store => "the store does not take it; what is durable waits",
            Place::Log => "the log cannot be read for now; what is in it waits there",
            Place::Chain => "the chain is not as it must be; what is durable waits",
        }
    }
}

/// Writers with different logs that close each other's generations, each before the other has archived anything of its own.
#[derive(Debug, Default)]
struct Rivals(VecDeque<(Instant, LogId)>);

impl Rivals {
    /// A slot was decided. Whether the chain goes to and fro between logs: a log that has ended does not come again by itself.
    fn contend(&mut self, slot: &Slot, now: Instant) -> bool {
        while self.0.front().is_some_and(|(when, _)| now.duration_since(*when) > OF_LATE) {
            self.0.pop_front();
        }
        if let Body::End { next } = slot.body {
            self.0.push_back((now, next));
        }
        let count = |log: &LogId| self.0.iter().filter(|(_, other)| other == log).count();
        self.0.iter().any(|(_, log)| count(log) >= 3)
    }
}

/// A time in which the store does not take anything.
#[derive(Debug, Default)]
struct Outage {
    attempts: u32,
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Outage {
    /// Counts one more attempt, and tells whether a line of it belongs into the log: of the first, and
    /// then of one a minute.
    fn is_to_be_said(&mut self, now: Instant) -> bool {
        self.attempts += 1;
        self.since.get_or_insert(now);
        let is_due = self.said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }

    /// How long to wait after that attempt.
    fn wait(&self, refused: bool) -> Duration {
        let max = if refused { REFUSED_MAX } else { RETRY_MAX };
        let full = RETRY_MIN.saturating_mul(1 << self.attempts.saturating_sub(1).min(16)).min(max);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It is over; how long it was, if there was one.
    fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = std::mem::take(self).since?;
        Some(now.duration_since(since))
    }
}

/// Archives for ever; returns why it cannot.
async fn archive(parts: &Parts, archiver: &Mutex<Archiver>) -> String {
    let (mut outage, mut rivals) = (Outage::default(), Rivals::default());
    let rivalry = format!("{}/rivals", parts.alarm);
    loop {
        let mut guard = archiver.lock().await;
        let done = step(parts, &mut guard, false).await;
        let (logs, changed) = (guard.log_span(), guard.changed());
        drop(guard);
        if done.is_ok()
            && let Some(took) = outage.end(Instant::now())
        {
            logs.in_scope(|| tracing::info!(?took, "it goes on"));
            parts.vitals.clear_note("trouble");
        }
        match done {
            Ok(Step::Progress) => tokio::task::yield_now().await,
            Ok(Step::Decided(slot)) => {
                if !rivals.contend(&slot, Instant::now()) {
                    parts.metrics.alarms().clear(&rivalry);
                    tokio::task::yield_now().await;
                    continue;
                }
                let why = "somebody archives another log into this chain, and each closes what the other has begun: no other daemon may \
                           use this `bronze.store` than those of one cluster with one `kafka.topic_prefix`";
                parts.metrics.alarms().raise(&rivalry, why);
                // Each gets its turn: in less time than it takes to fill an object nobody would ever archive one.
                if matches!(slot.body, Body::End { .. }) {
                    sleep(parts.flush_after.mul_f64(rand::rng().random_range(1.0..=3.0))).await;
                }
            }
            Ok(Step::Idle { due }) => {
                if due.is_none() {
                    // After an outage that nothing waited for no slot comes to say so.
                    parts.metrics.archive_works(&parts.alarm);
                }
                let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                }
            }
            Err(Trouble::Stuck(error)) => {
                parts.metrics.archive_failed(&parts.alarm, &error);
                return error;
            }
            Err(Trouble::Passing { error, refused, of }) => {
                let is_to_be_said = outage.is_to_be_said(Instant::now());
                let (wait, attempts) = (outage.wait(refused), outage.attempts);
                if is_to_be_said {
                    logs.in_scope(|| {
                        tracing::warn!(%error, attempts, ?wait, "{}", of.text());
                    });
                }
                parts.metrics.archive_failed(&parts.alarm, &error);
                parts.vitals.note("trouble", error);
                sleep(wait).await;
            }
        }
    }
}

async fn step(parts: &Parts, archiver: &mut Archiver, flush: bool) -> Result<Step, Trouble> {
    let within = STEP_WITHIN + parts.put_within;
    let done = timeout(within, archiver.step(flush)).await;
    let done = done.map_err(|_| Trouble::Stuck(format!("a step took longer than {within:?}")))?;
    // While it catches up, slots come often enough to show by.
    if !matches!(done, Ok(Step::Progress)) {
        show(parts, archiver);
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

fn show(parts: &Parts, archiver: &Archiver) {
    if let Some((records, oldest)) = archiver.lag() {
        parts.vitals.gauge("lag_records", records as f64);
        parts.metrics.archive_lag(parts.chain, records, oldest);
    }
    match archiver.past_end() {
        Some(lost) => parts.metrics.log_lost_its_end(&parts.alarm, Some(lost)),
        None if archiver.log_grows_back() => parts.metrics.log_lost_its_end(&parts.alarm, None),
        None => {} // a spool that was put back is to be looked at, also when it is drained
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
    parts.metrics.slot_decided(&parts.alarm, slot);
    let chain = ChainId { stream: slot.stream, partition: slot.partition };
    let covered = Covered { chain, archived: Archived::behind(slot) };
    // Who is down learns it with the next slot.
    for told in parts.told.get().into_iter().flatten() {
        if let Err(error) = told.send(covered.clone()).await {
            tracing::debug!(%error, "nobody was told of a slot");
        }
    }
}

/// A store that says no (credentials that have run out, a policy, a clock) is waited for like one that
/// says nothing: the spool has room, and the feed must not suffer. So is a chain that is not as it must be.
fn trouble(error: &ArchiveError) -> Trouble {
    let text = error.to_string();
    match error {
        ArchiveError::Chain(ChainError::Newer { .. } | ChainError::Damaged { .. } | ChainError::Missing { .. }) => {
            Trouble::Passing { error: text, refused: true, of: Place::Chain }
        }
        ArchiveError::Chain(ChainError::Store(error)) => {
            Trouble::Passing { error: text, refused: !error.is_retryable(), of: Place::Store }
        }
        ArchiveError::Log(_) | ArchiveError::Encoder(_) => Trouble::Passing { error: text, refused: false, of: Place::Log },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use tokio::sync::watch;

    use super::*;
    use crate::bronze::archiver::{self, Limits};
    use crate::bronze::budget::Budget;
    use crate::bronze::chain::Chain;
    use crate::bronze::poison::Poison;
    use crate::bronze::source::{Opening, Piece, Source, SourceError, Spooled};
    use crate::domain::chain::{Carry, Position};
    use crate::domain::identity::LogId;
    use crate::domain::stream::Stream;
    use crate::io::memory::{Fault, MemoryStore};
    use crate::io::store::Store;
    use crate::spool::logs::Logs;
    use crate::spool::state::LogState;
    use crate::spool::writer::LogWriter;
    use crate::telemetry::Traces;

    #[test]
    fn a_chain_that_goes_to_and_fro_between_two_logs_has_rivals_and_one_that_goes_on_has_none() {
        let end = |next| Slot { body: Body::End { next }, ..slot() };
        let [ours, theirs, third] = [(); 3].map(|()| LogId::generate());
        let mut rivals = Rivals::default();
        let now = Instant::now();
        let seen = [ours, theirs, ours, theirs, ours].map(|next| rivals.contend(&end(next), now));
        assert_eq!(seen, [false, false, false, false, true]);
        assert!(rivals.contend(&slot(), now), "until there is rest");
        assert!(!rivals.contend(&slot(), now + OF_LATE + Duration::from_secs(1)));
        // Dead logs that are worked off, a topic that is created anew.
        assert!([ours, theirs, third].iter().all(|next| !rivals.contend(&end(*next), now)));
    }

    #[test]
    fn a_daemon_that_is_begun_again_and_again_is_told_of_before_slots_are_huge() {
        let (metrics, mut slot) = (Metrics::new(), slot());
        for raised in [0, 1] {
            metrics.slot_decided("bronze/trades", &slot);
            assert_eq!(metrics.alarms().list().len(), raised);
            (0..10_000).for_each(|_| drop(slot.carry.read.0.insert(LogId::generate(), Default::default())));
        }
    }

    fn slot() -> Slot {
        Slot {
            version: crate::domain::chain::SLOT_VERSION,
            stream: Stream::Trades,
            partition: 0,
            position: Position::default(),
            incarnation: None,
            body: Body::Data { end: 0, data: None },
            carry: Carry::default(),
            writer: uuid::Uuid::nil(),
            epoch: 1,
            written_at: 0,
            traceparent: None,
        }
    }

    /// An archiver of the gaps.
    fn of(store: &MemoryStore, source: impl Source + 'static, notes: &std::path::Path) -> Archiver {
        let store = Arc::new(store.clone());
        Archiver::new(archiver::Parts {
            chain: Chain::new(Stream::Gaps.into(), store.clone()),
            store,
            source: Box::new(source),
            limits: Limits { flush_bytes: 4096, flush_after: Duration::from_secs(1), zstd_level: 1 },
            budget: Budget::new(1 << 20),
            poison: Poison::load(notes.to_path_buf()),
            traces: Traces::default(),
        })
    }

    /// A writer of a log in `dir` that holds nothing.
    fn idle(dir: &std::path::Path, store: &MemoryStore) -> Parts {
        let (stream, id) = (Stream::Gaps, LogId::generate());
        let log = LogWriter::create(dir, id, LogState::default(), 1 << 20).expect("a test's folder can be written");
        let logs = Logs::new(dir.to_path_buf(), BTreeMap::new(), id, watch::channel(log.view()).1);
        let (store, notes, drained) = (store.clone(), dir.join("poison.json"), logs);
        let archiver = move || of(&store, Spooled::new(drained.clone(), stream), &notes);
        let (vitals, metrics) = (Vitals::unsupervised("writers/gaps"), Arc::new(Metrics::new()));
        let (chain, alarm) = (stream.into(), "bronze/gaps".into());
        Parts {
            vitals,
            metrics,
            chain,
            alarm,
            flush_after: Duration::ZERO,
            put_within: Duration::ZERO,
            told: Arc::default(),
            archiver: Arc::new(archiver),
        }
    }

    #[tokio::test]
    async fn an_outage_that_nothing_waited_for_is_over_when_the_store_is_back() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let parts = idle(dir.path(), &store);
        // One life begins the chain; the next one only finds it, at its second attempt.
        for alarms in [0, 1] {
            let archiver = Mutex::new((parts.archiver)());
            let mut run = Box::pin(archive(&parts, &archiver));
            let (mut raised, begun) = (0, Instant::now());
            while store.objects().is_empty() || raised < alarms || !parts.metrics.alarms().list().is_empty() {
                assert!(timeout(Duration::from_millis(10), &mut run).await.is_err(), "it archives for ever");
                raised = raised.max(parts.metrics.alarms().list().len());
                assert!(begun.elapsed() < Duration::from_secs(60), "still {:?}", parts.metrics.alarms().list());
            }
            drop(run);
            store.fail_next("first", Fault::Retry);
        }
        assert_eq!(store.objects().len(), 1, "nothing was to be archived");
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_cannot_be_read_is_an_alarm_and_no_reason_to_give_up() {
        let (dir, store, id) = (tempfile::tempdir().unwrap(), MemoryStore::new(), ChainId::from(Stream::Gaps));
        let key = Position::default().key(id);
        store.put(&key, Bytes::from_static(b"no slot")).await.unwrap();
        let parts = idle(dir.path(), &store);
        let archiver = Mutex::new((parts.archiver)());
        let mut run = Box::pin(archive(&parts, &archiver));
        let a_while = 10 * REFUSED_MAX;
        assert!(timeout(a_while, &mut run).await.is_err(), "it waits for somebody to mend it");
        let alarms = format!("{:?}", parts.metrics.alarms().list());
        assert!(alarms.contains(&key) && alarms.contains("is damaged"), "{alarms}");
        store.delete(&key).await.unwrap();
        assert!(timeout(a_while, &mut run).await.is_err());
        assert_eq!(parts.metrics.alarms().list(), []);
    }

    /// A log that never answers. How many there are, its count tells.
    struct Silent(#[expect(dead_code, reason = "it is counted")] Arc<()>);

    impl Source for Silent {
        fn open(&mut self, _: Option<LogId>, _: u64) -> BoxFuture<'_, Result<Opening, SourceError>> {
            Box::pin(std::future::pending())
        }

        fn read(&mut self, _: u64) -> BoxFuture<'_, Result<Piece, SourceError>> {
            Box::pin(std::future::ready(Ok(Piece::End)))
        }

        fn end(&self) -> Option<u64> {
            None
        }

        fn changed(&self) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }

        fn is_drained_to_its_end(&self) -> bool {
            true
        }
    }

    #[actix::test]
    async fn the_archiver_of_the_life_before_is_gone_when_the_next_one_is_made() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let poison = dir.path().join("poison.json");
        tokio::time::pause(); // each life ends when its step has taken too long
        let parts = idle(dir.path(), &store);
        let (log, (made, mut lives)) = (Arc::new(()), tokio::sync::mpsc::unbounded_channel());
        let archiver = move || {
            made.send(Arc::strong_count(&log) - 1).unwrap();
            of(&store, Silent(log.clone()), &poison)
        };
        let parts = Parts { archiver: Arc::new(archiver), ..parts };
        #[expect(clippy::disallowed_methods, reason = "it needs nothing more than to be restarted, and does not panic")]
        let writer = actix::Supervisor::start(|_| PartitionWriter::new(parts));
        for life in 0..3 {
            let others = timeout(10 * STEP_WITHIN, lives.recv()).await.expect("it is begun again");
            assert_eq!(others, Some(0), "life {life}");
        }
        drop(writer);
    }

    #[test]
    fn an_outage_is_said_when_it_begins_and_then_once_a_minute() {
        let (mut outage, begun) = (Outage::default(), Instant::now());
        let said = (0..300).filter(|second| outage.is_to_be_said(begun + Duration::from_secs(*second)));
        assert_eq!(said.collect::<Vec<_>>(), [0, 60, 120, 180, 240]);
        assert_eq!(outage.end(begun + Duration::from_secs(300)), Some(Duration::from_secs(300)));
        assert_eq!(outage.end(begun), None, "it is told once that it is over");
        assert!(outage.is_to_be_said(begun), "the next one is said at once");
    }

    #[test]
    fn a_refusal_is_tried_again_less_often() {
        let long = Outage { attempts: 40, ..Outage::default() };
        assert!((RETRY_MAX / 2..=RETRY_MAX).contains(&long.wait(false)));
        assert!((REFUSED_MAX / 2..=REFUSED_MAX).contains(&long.wait(true)));
        let first = Outage { attempts: 1, ..Outage::default() };
        assert!(first.wait(true) <= RETRY_MIN);
    }
}
