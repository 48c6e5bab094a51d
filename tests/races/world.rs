//! One machine under a seed: lives of a spool, four writers, a sweeper, a store with faults, and now and
//! then a daemon on a copy of the spool.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::audit::{self, report::Report};
use tickmint::bronze::archiver::{ArchiveError, Archiver, Limits, Parts, Step};
use tickmint::bronze::budget::Budget;
use tickmint::bronze::chain::{Chain, ChainError};
use tickmint::bronze::poison::Poison;
use tickmint::bronze::sealer::{Sealed, Sealer};
use tickmint::bronze::source::Spooled;
use tickmint::domain::archived::{Archived, Chains};
use tickmint::domain::chain::ChainId;
use tickmint::domain::hour::Hour;
use tickmint::domain::identity::{LogId, SessionId};
use tickmint::domain::shard::Shard;
use tickmint::domain::stream::Stream;
use tickmint::domain::verdict::{Flags, Judged, JudgedFrame, RawFrame, Verdict};
use tickmint::faults::{Flaw, flawed};
use tickmint::io::folder::FolderStore;
use tickmint::io::memory::{Fault, MemoryStore};
use tickmint::io::store::Store;
use tickmint::messages::feed::{Append, EndSession, OpenSession};
use tickmint::spool::commit::{Request, Room, commit};
use tickmint::spool::deletion::Deletion;
use tickmint::spool::logs::{self, Logs};
use tickmint::spool::reader::LogView;
use tickmint::spool::segment::LogKind;
use tickmint::spool::writer::LogWriter;
use tokio::sync::watch;

const ROOM: Room = Room { used: 0, max: u64::MAX, reserve: 0 };
/// Two writers of trades know nothing of each other.
const WRITERS: [Stream; 4] = [Stream::Trades, Stream::Trades, Stream::Gaps, Stream::Quarantine];
pub(super) const FIRST_HOUR: i64 = 489_000;

/// A worker that is between two steps, or within one.
pub(super) enum Task<T, R> {
    Between(T),
    Within(LocalBoxFuture<'static, (T, R)>),
}

pub(super) type WriterTask = Task<Archiver, Result<Step, ArchiveError>>;
pub(super) type SweeperTask = Task<Sealer, Result<Sealed, ChainError>>;

/// One life of the process: its log, and its view of all logs.
pub(super) struct Life {
    spool: PathBuf,
    pub(super) log: LogWriter,
    pub(super) durable: watch::Sender<LogView>,
    pub(super) logs: Logs,
    session: SessionId,
    frames: u32,
}

pub(super) struct World {
    random: StdRng,
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    /// The store, where it is the one in memory.
    memory: Option<MemoryStore>,
    life: Life,
    /// One that somebody started on a copy of the spool.
    copy: Option<Life>,
    writers: Vec<Option<WriterTask>>,
    sweeper: Option<SweeperTask>,
    archived: Chains,
    hour: i64,
    sent: u64,
}

impl World {
    /// Lives through the world of a seed; what is wrong at its end, and the audit's counts.
    pub(super) async fn run(seed: u64) -> (Vec<String>, Report) {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = super::folder();
        std::fs::create_dir_all(dir.path().join("spool")).unwrap();
        // Drawn whatever the flaw: the same seed without it must be the same world.
        let is_in_memory = random.random_bool(0.8);
        let memory = match flawed(Flaw::CheckThenAct) {
            true => Some(MemoryStore::check_then_act()),
            false => is_in_memory.then(MemoryStore::new),
        };
        let store: Arc<dyn Store> = match &memory {
            Some(memory) => Arc::new(memory.clone()),
            None => Arc::new(FolderStore::open(dir.path().join("lake")).unwrap()),
        };
        let hour = FIRST_HOUR;
        let life = Life::begin(&dir.path().join("spool"), hour, LogKind::BRONZE, "s");
        let writers = WRITERS.map(|_| None).into_iter().collect();
        let mut world = World {
            random,
            dir,
            store,
            memory,
            life,
            copy: None,
            writers,
            sweeper: None,
            archived: Chains::default(),
            hour,
            sent: 0,
        };
        for _ in 0..120 {
            world.act().await;
        }
        world.finish().await
    }

    async fn act(&mut self) {
        match self.random.random_range(0..100) {
            0..24 => {
                let append = self.frames(false);
                self.life.commit(Request::Append(append.clone()));
                if self.random.random_bool(0.2) {
                    self.life.commit(Request::Append(append)); // the answer was lost
                }
            }
            24..27 => self.turn_the_hour(),
            27..80 => {
                let writer = self.random.random_range(0..self.writers.len());
                let flush = self.random.random_bool(0.5);
                for _ in 0..self.random.random_range(1..6) {
                    self.nudge_writer(writer, flush).await;
                }
            }
            80..84 => {
                let writer = self.random.random_range(0..self.writers.len());
                self.writers[writer] = None; // it dies in the middle of its step
            }
            84..87 => self.new_life(),
            87..94 => self.nudge_sweeper().await,
            94 => self.sweeper = None,
            95..97 => self.delete_covered(),
            97 => self.use_copy().await,
            _ => self.change_the_weather(),
        }
    }

    /// The next frames of a life: of the machine's own, or of the one on a copy.
    fn frames(&mut self, of_copy: bool) -> Append {
        let at = self.hour_of_receipt();
        let life = if of_copy { self.copy.as_mut().unwrap() } else { &mut self.life };
        let (append, trades) = frames(life, at, 1, &mut self.random);
        self.sent += trades;
        append
    }

    /// Somebody starts a daemon on a copy of the spool, and of what its folder holds it knows no better.
    async fn use_copy(&mut self) {
        if self.copy.is_none() {
            let there = self.dir.path().join("copy");
            copy_logs(&self.life.spool, &there);
            self.copy = Some(Life::begin(&there, self.hour, LogKind::BRONZE, "s"));
        }
        let append = self.frames(true);
        let Some(copy) = &mut self.copy else { return };
        copy.commit(Request::Append(append));
        for stream in Stream::ALL {
            let (mut archiver, flush) = (self.archiver(stream, true), self.random.random_bool(0.5));
            for _ in 0..self.random.random_range(0..12) {
                drop(archiver.step(flush).await); // it may be that the store says no
            }
        }
    }

    /// The clock of a machine may be set back.
    fn hour_of_receipt(&mut self) -> i64 {
        self.hour - i64::from(self.random.random_bool(0.15))
    }

    fn turn_the_hour(&mut self) {
        self.hour += 1;
        self.life.commit(Request::Tick(Hour(self.hour)));
    }

    /// The process dies, all of its writers with it, and begins again.
    fn new_life(&mut self) {
        self.writers.iter_mut().for_each(|writer| *writer = None);
        self.sweeper = None;
        self.archived = Chains::default();
        if self.random.random_bool(0.3) {
            let is_fast = self.random.random_bool(0.3);
            die_early(&self.dir.path().join("spool"), is_fast);
        }
        self.life = Life::begin(&self.dir.path().join("spool"), self.hour, LogKind::BRONZE, "s");
    }

    fn change_the_weather(&mut self) {
        if let Some(memory) = &self.memory {
            weather(memory, &mut self.random);
        }
    }

    fn archiver(&self, stream: Stream, of_copy: bool) -> Archiver {
        let id = ChainId { stream, partition: 0 };
        let life = if of_copy { self.copy.as_ref().unwrap() } else { &self.life };
        Archiver::new(Parts {
            chain: Chain::new(id, self.store.clone()),
            store: self.store.clone(),
            source: Box::new(Spooled::new(life.logs.clone(), stream)),
            limits: Limits { flush_bytes: 2000, flush_after: Duration::from_secs(3600), zstd_level: 1 },
            budget: Budget::new(1 << 20),
            poison: Poison::load(life.spool.join(format!("poison-{stream}.json"))),
            traces: tickmint::telemetry::Traces::default(),
        })
    }

    async fn nudge_writer(&mut self, writer: usize, flush: bool) {
        let stream = WRITERS[writer];
        let task = self.writers[writer].take().unwrap_or_else(|| Task::Between(self.archiver(stream, false)));
        let times = self.random.random_range(1..12);
        let (task, done) = nudge(task, times, step(flush)).await;
        self.writers[writer] = Some(task);
        match done {
            Some(Ok(Step::Decided(slot))) => {
                self.archived.learn(slot.stream.into(), Archived::behind(&slot));
            }
            Some(Err(error)) if !error.is_retryable() => self.writers[writer] = None,
            _ => {}
        }
    }

    async fn nudge_sweeper(&mut self) {
        let chains = Stream::ALL.map(|stream| ChainId { stream, partition: 0 }).to_vec();
        let task = self.sweeper.take().unwrap_or_else(|| Task::Between(Sealer::new(self.store.clone(), chains)));
        let (times, now) = (self.random.random_range(1..40), Hour(self.hour).begins());
        self.sweeper = Some(nudge(task, times, round(now)).await.0);
    }

    /// As the spool does.
    fn delete_covered(&mut self) {
        let mut deletion = Deletion::new(self.life.logs.clone(), LogKind::BRONZE.drained_by);
        deletion.delete_dead(&self.archived).unwrap();
        if let Some(last) = deletion.last_done(&self.archived).0 {
            self.life.log.delete_to(last).unwrap();
        }
        self.life.durable.send_replace(self.life.log.view());
    }

    /// The weather clears up, the last life drains, and the audit comes.
    async fn finish(mut self) -> (Vec<String>, Report) {
        if let Some(memory) = &self.memory {
            memory.heal();
            memory.deliver();
        }
        if let Some(copy) = &mut self.copy {
            copy.end_session(); // nobody comes after it who would tell of its end
        }
        self.new_life();
        self.turn_the_hour();
        let (mut findings, mut report) = (Vec::new(), Report::default());
        let lives = self.copy.iter().map(|_| true).chain([false]).collect::<Vec<_>>();
        for (of_copy, stream) in lives.into_iter().flat_map(|of_copy| Stream::ALL.map(|stream| (of_copy, stream))) {
            let mut archiver = self.archiver(stream, of_copy);
            if !drain(&mut archiver).await {
                findings.push(format!("{stream} is never archived to its end"));
            }
        }
        let chains = Stream::ALL.map(|stream| ChainId { stream, partition: 0 }).to_vec();
        if let Err(error) = Sealer::new(self.store.clone(), chains).round(Hour(self.hour).begins()).await {
            findings.push(format!("hours cannot be sealed: {error}"));
        }
        let spool = self.dir.path().join("spool");
        match audit::bronze::read(&self.store, Some(&spool)).await {
            Err(error) => findings.push(format!("the audit fails: {error}")),
            Ok(found) => {
                report = audit::report::report(&found, None);
                findings.extend(report.findings.clone());
                if !report.is_clean() || report.archived != self.sent || report.waiting != 0 {
                    findings.push(format!("sent {}: {report:?}", self.sent));
                }
            }
        }
        (findings, report)
    }
}

/// The next frames of a life, of trades that go to so many partitions; and how many trades they are.
pub(super) fn frames(life: &mut Life, at: i64, partitions: u32, random: &mut StdRng) -> (Append, u64) {
    let (mut batch, mut sent) = (Vec::new(), 0);
    for _ in 0..random.random_range(1..6) {
        life.frames += 1;
        let trades = random.random_range(1..4);
        // Often of the same value: these are two trades, not one.
        let trade = format!(r#"{{"c":["1"],"p":{},"s":"AAPL","t":1680286537580,"v":5}}"#, random.random_range(1..3));
        let length = trade.len() as u32;
        let elements = (0..trades).map(|n| Judged {
            range: n * (length + 1)..n * (length + 1) + length,
            partition: random.random_range(0..partitions) as u16,
            verdict: Verdict::Trade(Flags::default()),
        });
        let elements = elements.collect();
        let payload = Bytes::from(vec![trade.as_str(); trades as usize].join(","));
        let frame = RawFrame { number: life.frames, received_at: Hour(at).begins() + 1, payload, binary: false };
        batch.push(JudgedFrame { frame, elements, traceparent: None });
        sent += u64::from(trades);
    }
    (Append { session: life.session, frames: batch }, sent)
}

/// Other faults of the store from now on; what was late arrives.
pub(super) fn weather(memory: &MemoryStore, random: &mut StdRng) {
    memory.deliver();
    let (mut random, trouble) = (StdRng::seed_from_u64(random.random()), random.random_range(0.0..0.5));
    memory.set_faults(move |_, _| {
        if !random.random_bool(trouble) {
            return None;
        }
        Some(match random.random_range(0..5) {
            0 => Fault::Retry,
            1 => Fault::LoseAnswer,
            2 => Fault::Late,
            _ => Fault::Delay(Duration::from_micros(random.random_range(1..3000))),
        })
    });
}

/// Begins a writer's step.
pub(super) fn step(flush: bool) -> impl FnOnce(Archiver) -> LocalBoxFuture<'static, (Archiver, Result<Step, ArchiveError>)> {
    move |mut archiver| {
        Box::pin(async move {
            let done = archiver.step(flush).await;
            (archiver, done)
        })
    }
}

/// Begins a sweeper's round.
pub(super) fn round(now: i64) -> impl FnOnce(Sealer) -> LocalBoxFuture<'static, (Sealer, Result<Sealed, ChainError>)> {
    move |mut sealer| {
        Box::pin(async move {
            let done = sealer.round(now).await;
            (sealer, done)
        })
    }
}

impl Life {
    pub(super) fn begin(spool: &std::path::Path, hour: i64, kind: LogKind, shard: &str) -> Life {
        let found = logs::find(spool).unwrap();
        let (id, session) = (found.next(), SessionId::generate());
        let mut log = LogWriter::create_of(kind, spool, id, found.last, 700).unwrap();
        for session in log.state().living() {
            if let Some(end) = log.state().end_of(session, 0, Hour(hour).begins(), "process_died") {
                log.stage(&end);
            }
        }
        log.sync().unwrap();
        let (durable, view) = watch::channel(log.view());
        let logs = Logs::new(spool.to_path_buf(), found.dead, id, view);
        let mut life = Life { spool: spool.to_path_buf(), log, durable, logs, session, frames: 0 };
        let shard = Shard { name: shard.into(), symbols: Arc::new(["AAPL".to_string()]) };
        life.commit(Request::Tick(Hour(hour)));
        life.commit(Request::Open(OpenSession { session, shard }));
        life
    }

    /// Ends its session in order.
    pub(super) fn end_session(&mut self) {
        let (session, reason) = (self.session, "shutdown".to_string());
        self.commit(Request::End(EndSession { session, frames: self.frames, last_received_at: None, reason }));
    }

    pub(super) fn commit(&mut self, request: Request) {
        assert_eq!(commit(&mut self.log, &[request], ROOM, 0), [Ok(())]);
        self.durable.send_replace(self.log.view());
    }
}

/// A life that died before its log had a header, perhaps one whose clock was fast.
pub(super) fn die_early(spool: &std::path::Path, is_fast: bool) {
    let hour = if is_fast { 3_600_000 << 80 } else { 0 };
    let log = LogId(uuid::Uuid::from_u128(LogId::generate().0.as_u128() + hour));
    std::fs::create_dir(spool.join(log.to_string())).unwrap();
}

/// Copies the logs of a spool, as somebody does who clones a machine.
pub(super) fn copy_logs(from: &std::path::Path, to: &std::path::Path) {
    for log in std::fs::read_dir(from).unwrap().map(|log| log.unwrap().path()).filter(|log| log.is_dir()) {
        let there = to.join(log.file_name().unwrap());
        std::fs::create_dir_all(&there).unwrap();
        for segment in std::fs::read_dir(&log).unwrap().map(|segment| segment.unwrap().path()) {
            std::fs::copy(&segment, there.join(segment.file_name().unwrap())).unwrap();
        }
    }
}

/// Polls a task so many times; what its step came to, if it ended.
pub(super) async fn nudge<T, R>(
    task: Task<T, R>,
    times: u32,
    begin: impl FnOnce(T) -> LocalBoxFuture<'static, (T, R)>,
) -> (Task<T, R>, Option<R>) {
    let mut step = match task {
        Task::Between(worker) => begin(worker),
        Task::Within(step) => step,
    };
    for _ in 0..times {
        if let Poll::Ready((worker, done)) = futures_util::poll!(&mut step) {
            return (Task::Between(worker), Some(done));
        }
        // For a store that takes its time, and for what other threads do.
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_micros(10));
    }
    (Task::Within(step), None)
}

/// Whether all is archived after a bounded number of steps.
async fn drain(archiver: &mut Archiver) -> bool {
    for _ in 0..3000 {
        match archiver.step(true).await {
            Ok(Step::Idle { due: None }) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}
