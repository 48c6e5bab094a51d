//! Drains a log into a chain: what a partition writer does, one step at a time.
//!
//! In: records of one chain, in offset order. Out: objects and slots. Nothing in here is the
//! truth: after a crash, or when another writer decided a slot, it starts from the chain again, and
//! never from what it remembers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fail::fail_point;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use uuid::Uuid;

use super::budget::Budget;
use super::chain::{Chain, ChainError};
use super::encode::{Encoded, Encoder};
use super::open::{Object, Open};
use super::poison::Poison;
use super::source::{Opening, Piece, Source, SourceError};
use crate::clock;
use crate::domain::chain::{Body, DataRange, Position, SLOT_VERSION, Slot, Tail};
use crate::domain::entry::Record;
use crate::domain::hour::Hour;
use crate::domain::identity::{LogId, Micros};
use crate::domain::object::{self, Form};
use crate::faults::{Flaw, flawed};
use crate::io::{self, store::Store};
use crate::telemetry::traces::{Span, Traces, logs_of};

/// So long it waits before it looks again whether there is room in memory.
const FOR_ROOM: Duration = Duration::from_millis(20);

/// When an object is closed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At so many bytes of records.
    pub flush_bytes: usize,
    /// So long after its first record.
    pub flush_after: Duration,
    /// Of raw and typed objects.
    pub zstd_level: i32,
}

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The chain or the store.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] SourceError),
    /// The encoder did not come to its end.
    #[error("records could not be encoded: {0}")]
    Encoder(String),
}

impl From<crate::io::store::StoreError> for ArchiveError {
    fn from(error: crate::io::store::StoreError) -> ArchiveError {
        ArchiveError::Chain(error.into())
    }
}

impl ArchiveError {
    /// Whether the same step may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ArchiveError::Chain(error) => error.is_retryable(),
            ArchiveError::Log(_) | ArchiveError::Encoder(_) => true,
        }
    }
}

/// What a step did.
#[derive(Debug)]
pub enum Step {
    /// Read or opened something; go on at once.
    Progress,
    /// A slot stands: ours or another's.
    Decided(Box<Slot>),
    /// Nothing to read, and what is open is not due before this instant (if anything is open).
    Idle {
        /// When the open object is due.
        due: Option<Instant>,
    },
}

/// A slot and its objects, ready to be sent as often as it takes.
struct Prepared {
    slot: Slot,
    objects: Vec<(String, Bytes)>,
    /// From the encoding until the slot is decided.
    span: Option<Span>,
}

/// Drains the log of one chain.
pub struct Archiver {
    chain: Chain,
    store: Arc<dyn Store>,
    source: Box<dyn Source>,
    limits: Limits,
    budget: Arc<Budget>,
    poison: Poison,
    traces: Traces,
    writer: Uuid,
    epoch: u64,
    open: Option<Open>,
    prepared: Option<Prepared>,
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.budget.left(self.chain.id);
    }
}

/// What an archiver works with.
pub struct Parts {
    /// The chain it extends.
    pub chain: Chain,
    /// Where objects go.
    pub store: Arc<dyn Store>,
    /// What it drains.
    pub source: Box<dyn Source>,
    /// When objects are closed.
    pub limits: Limits,
    /// Shared with the other writers.
    pub budget: Arc<Budget>,
    /// Which records are left out.
    pub poison: Poison,
    /// Traces objects with sampled frames in them.
    pub traces: Traces,
}

impl Archiver {
    /// An archiver that has not looked at anything yet.
    pub fn new(parts: Parts) -> Archiver {
        let Parts { chain, store, source, limits, budget, poison, traces } = parts;
        let writer = Uuid::now_v7();
        Archiver { chain, store, source, limits, budget, poison, traces, writer, epoch: 0, open: None, prepared: None }
    }

    /// Does the next thing that is to be done. With `flush`, what is open counts as due.
    pub async fn step(&mut self, flush: bool) -> Result<Step, ArchiveError> {
        if self.prepared.is_some() {
            return self.commit().await;
        }
        // Whoever comes next reads the rest of a log that is not this writer's alone.
        let is_empty = || self.open.as_ref().is_none_or(|open| open.since.is_none() && open.pending.len() == 0);
        if flush && !self.source.is_drained_to_its_end() && is_empty() {
            return Ok(Step::Idle { due: None });
        }
        if self.open.is_none() {
            let tail = self.chain.tail().await?;
            return self.begin(tail).await;
        }
        if let Some(open) = &mut self.open {
            open.absorb(self.limits.flush_bytes, Hour(Hour::of(clock::now()).0 + 1));
            self.budget.holds(self.chain.id, open.object.memory());
            if open.object.is_buffer_full() {
                self.encode().await?;
                return Ok(Step::Progress);
            }
        }
        if self.is_due(flush) {
            self.prepare_data().await?;
            return self.commit().await;
        }
        // What it has goes on to the store when it is due, and who has nothing yet is let in.
        if self.budget.is_overfull() && self.open.as_ref().is_some_and(|open| open.since.is_some()) {
            tokio::time::sleep(FOR_ROOM).await;
            return Ok(Step::Progress);
        }
        self.read().await
    }

    /// How many records of the log are not archived yet, and the receipt of the oldest of them that
    /// has been read; `None` before the chain was read.
    pub fn lag(&self) -> Option<(u64, Option<Micros>)> {
        let open = self.open.as_ref()?;
        let end = self.source.end().unwrap_or(open.read);
        let oldest = open.object.first.or(open.pending.as_slice().first().map(|record| record.received_at));
        Some((end.saturating_sub(open.at.start), oldest))
    }

    /// The log that it drains and where the tail is in there, if that lies behind the log's end: the log has lost
    /// what the chain has.
    pub fn past_end(&self) -> Option<(LogId, u64)> {
        let open = self.open.as_ref()?;
        let end = self.source.end()?;
        (open.at.start > end).then_some((open.log, open.at.start))
    }

    /// Whether a log that has lost its end gets further again by itself: one that others write, too.
    pub fn log_grows_back(&self) -> bool {
        !self.source.is_drained_to_its_end()
    }

    /// Resolves when there may be more to read than the last step found.
    pub fn changed(&self) -> BoxFuture<'static, ()> {
        self.source.changed()
    }

    /// Where log lines of what is under way belong.
    pub fn log_span(&self) -> tracing::Span {
        logs_of(self.prepared.as_ref().and_then(|prepared| prepared.span.as_ref()))
    }

    /// Takes up the chain at its tail. A generation of a log that is not here is closed.
    async fn begin(&mut self, tail: Tail) -> Result<Step, ArchiveError> {
        self.epoch += 1;
        fail_point!("archive.began");
        #[cfg(feature = "faults")]
        let tail = super::flawed::stored_offset(self.poison.path(), tail);
        match (self.source.open(tail.incarnation, tail.next.start).await?, tail.incarnation) {
            (Opening::Read, Some(log)) => {
                self.open = Some(Open::at(tail, log));
                Ok(Step::Progress)
            }
            (Opening::Read, None) => Ok(Step::Progress),
            (Opening::Close { next }, Some(_)) if flawed(Flaw::NoEndSlot) => {
                let begun = Position { generation: tail.next.generation + 1, start: 0 };
                self.open = Some(Open::at(Tail { next: begun, incarnation: Some(next), ..tail }, next));
                Ok(Step::Progress)
            }
            (Opening::Close { next }, _) => {
                self.prepared = Some(Prepared { slot: self.slot_at(&tail, Body::End { next }), objects: Vec::new(), span: None });
                self.commit().await
            }
        }
    }

    /// Reads the next records, or finds out that there are none.
    async fn read(&mut self) -> Result<Step, ArchiveError> {
        let Some(open) = &mut self.open else { return Ok(Step::Progress) };
        let due = open.since.map(|since| since + self.limits.flush_after);
        match self.source.read(open.read).await? {
            Piece::Records { records, next } => {
                assert!(open.pending.len() == 0, "what was read before is absorbed, or it is due");
                open.pending = records.into_iter();
                open.read = next;
                Ok(Step::Progress)
            }
            Piece::Lost { to, reason, spooled } => {
                if open.absorbed > open.at.start {
                    self.prepare_data().await?;
                } else {
                    // A log that is read again after another one may begin behind what was read before.
                    let run = spooled.map(|log| (log, open.carry.read.run(log, open.at.start)));
                    let body = match run {
                        Some((_, (true, last))) => Body::Data { end: last.min(to - 1), data: None },
                        Some((log, (false, last))) => {
                            let end = last.min(to - 1);
                            open.carry.lost.insert_all(log, open.at.start, end);
                            Body::Gap { end, reason: reason.to_string() }
                        }
                        None => Body::Gap { end: to - 1, reason: reason.to_string() },
                    };
                    self.prepare(body, Vec::new());
                }
                self.commit().await
            }
            Piece::End => Ok(Step::Idle { due }),
            Piece::Changed => {
                self.open = None;
                self.budget.holds(self.chain.id, 0);
                Ok(Step::Progress)
            }
            Piece::Closed { next } => {
                if open.absorbed > open.at.start {
                    self.prepare_data().await?;
                } else {
                    self.prepare(Body::End { next }, Vec::new());
                }
                self.commit().await
            }
        }
    }

    fn is_due(&self, flush: bool) -> bool {
        let Some(open) = &self.open else { return false };
        let Some(since) = open.since else { return false };
        // What stays behind after absorbing waits for the object to be closed.
        let full = open.pending.len() > 0 || open.object.bytes >= self.limits.flush_bytes;
        let drained = || !self.source.is_drained_to_its_end() || self.source.end().is_none_or(|end| open.read >= end);
        full || since.elapsed() >= self.limits.flush_after || flush && drained() || self.budget.must_flush(self.chain.id)
    }

    /// Encodes what the buffer holds, so that it need not be kept as it came.
    async fn encode(&mut self) -> Result<(), ArchiveError> {
        // Not there meanwhile: who is interrupted here begins at the chain again.
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let fill = self.filling(&mut open);
        let (encoder, buffer) = self.in_turn(fill).await?;
        (open.object.encoder, open.object.buffer) = (Some(encoder), buffer);
        self.open = Some(open);
        Ok(())
    }

    /// The work of encoding what the buffer holds; then the encoder, and the buffer to be filled again.
    fn filling(&self, open: &mut Open) -> impl FnOnce() -> (Encoder, Vec<Record>) + use<> {
        let (mut records, encoder) = (open.object.take_buffer(), open.object.encoder.take());
        let range = records.first().zip(records.last()).map(|(first, last)| (first.offset, last.offset));
        let attempt = range.map(|(first, last)| self.poison.attempt(open.log, first, last));
        fail_point!("archive.noted");
        let (stream, level) = (self.chain.id.stream, self.limits.zstd_level);
        move || {
            let mut encoder = encoder.unwrap_or_else(|| Encoder::new(stream, level));
            if let Some(attempt) = attempt {
                encoder.add(&records, &attempt);
            }
            records.clear();
            (encoder, records)
        }
    }

    /// Has a thread of its own do what takes long, when it is this writer's turn.
    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ArchiveError> {
        let _turn = self.budget.turn().await;
        io::blocking(work).await.map_err(|error| ArchiveError::Encoder(error.to_string()))
    }

    /// Makes the objects of what is absorbed, and the slot that commits them.
    async fn prepare_data(&mut self) -> Result<(), ArchiveError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let end = open.absorbed - 1;
        let Some(first) = open.object.first else {
            if flawed(Flaw::NoEmptySlots) {
                open.since = None;
            } else {
                self.prepare(Body::Data { end, data: None }, Vec::new());
            }
            return Ok(());
        };
        // Not there meanwhile, as in `encode`.
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let (at, id) = (open.at, self.chain.id);
        let hour = open.carry.archive_hour.unwrap_or(Hour::of(first));
        let span = self.traces.span_object(id.stream, open.object.traced.iter().map(|context| &**context));
        let fill = self.filling(&mut open);
        #[cfg(feature = "faults")]
        super::flawed::store_offset(self.poison.path(), open.log, end + 1);
        let work = || {
            let (encoder, buffer) = fill();
            (encoder.finish(), buffer)
        };
        let (encoded, buffer) = self.in_turn(work).await?;
        open.object = Object::with(buffer);
        self.open = Some(open);
        let Encoded { rows, raw, typed, min_time, max_time, event_hours, poison } = encoded;
        fail_point!("archive.encoded");
        let raw_ref = object::name(Form::Raw, id, hour, at, end, &raw);
        let typed_ref = object::name(Form::Typed, id, hour, at, end, &typed);
        let objects = vec![(raw_ref.key.clone(), Bytes::from(raw)), (typed_ref.key.clone(), Bytes::from(typed))];
        let data = DataRange { rows, raw: raw_ref, typed: typed_ref, hour, min_time, max_time, event_hours, poison };
        self.prepare(Body::Data { end, data: Some(data) }, objects);
        if let (Some(mut span), Some(prepared)) = (span, &mut self.prepared) {
            span.count("tickmint.records", rows);
            let named = ["tickmint.raw", "tickmint.typed"].into_iter().zip(&prepared.objects);
            named.for_each(|(name, (key, _))| span.note(name, key));
            prepared.slot.traceparent = Some(span.traceparent());
            prepared.span = Some(span);
        }
        Ok(())
    }

    fn prepare(&mut self, body: Body, objects: Vec<(String, Bytes)>) {
        let Some(open) = &self.open else { return };
        let tail = Tail { next: open.at, incarnation: Some(open.log), carry: open.carry.clone() };
        self.prepared = Some(Prepared { slot: self.slot_at(&tail, body), objects, span: None });
    }

    fn slot_at(&self, tail: &Tail, body: Body) -> Slot {
        Slot {
            version: SLOT_VERSION,
            stream: self.chain.id.stream,
            partition: self.chain.id.partition,
            position: tail.next,
            incarnation: tail.incarnation,
            body,
            carry: tail.carry.clone(),
            writer: self.writer,
            epoch: self.epoch,
            written_at: clock::now(),
            traceparent: None,
        }
    }

    /// Sends what is prepared: the objects, and when they are answered for, the slot. After an error
    /// the same is sent again by the next step.
    async fn commit(&mut self) -> Result<Step, ArchiveError> {
        let Some(prepared) = &self.prepared else { return Ok(Step::Progress) };
        fail_point!("archive.before-objects");
        if flawed(Flaw::SlotBeforeObjects) {
            self.chain.decide(&prepared.slot).await?;
        }
        let puts = prepared.objects.iter().map(|(key, body)| self.store.put(key, body.clone()));
        futures_util::future::try_join_all(puts).await?;
        fail_point!("archive.after-objects");
        let stands = self.chain.decide(&prepared.slot).await?;
        fail_point!("archive.decided");
        let ours = stands == prepared.slot;
        let span = self.prepared.take().and_then(|done| done.span);
        if let (Some(mut span), false) = (span, ours) {
            span.fail(&"another writer decided the slot");
        }
        let tail = stands.tail();
        self.poison.passed(tail.incarnation, tail.next.start);
        self.budget.holds(self.chain.id, 0);
        match &mut self.open {
            Some(open)
                if (ours || flawed(Flaw::LoserKeepsState))
                    && tail.incarnation == Some(open.log)
                    && tail.next.generation == open.at.generation =>
            {
                open.go_on(tail.next);
            }
            // Another decided, or the generation is closed: from the chain again.
            _ => self.open = None,
        }
        Ok(Step::Decided(Box::new(stands)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::watch;

    use super::*;
    use crate::audit;
    use crate::bronze::source::Spooled;
    use crate::domain::archived::{Archived, Chains};
    use crate::domain::chain::ChainId;
    use crate::domain::identity::SessionId;
    use crate::domain::shard::Shard;
    use crate::domain::stream::Stream;
    use crate::domain::verdict::{Flags, Judged, JudgedFrame, RawFrame, Verdict};
    use crate::io::folder::FolderStore;
    use crate::messages::feed::{Append, EndSession, OpenSession};
    use crate::spool::commit::{Request, Room, commit};
    use crate::spool::deletion::Deletion;
    use crate::spool::logs::{self, Logs};
    use crate::spool::reader::LogView;
    use crate::spool::segment::{self, DrainedBy};
    use crate::spool::writer::LogWriter;

    const ROOM: Room = Room { used: 0, max: u64::MAX, reserve: 0 };
    const TRADE: &str = r#"{"c":["1"],"p":164.0601,"s":"AAPL","t":1680286537580,"v":5}"#;

    /// One life of the process: a log, and what can be read of all logs in the folder.
    struct Life {
        log: LogWriter,
        durable: watch::Sender<LogView>,
        logs: Logs,
    }

    impl Life {
        fn begin(spool: &Path) -> Life {
            let id = LogId::generate();
            let found = logs::find(spool).unwrap();
            let log = LogWriter::create(spool, id, found.last, 2000).unwrap();
            let (durable, view) = watch::channel(log.view());
            Life { log, durable, logs: Logs::new(spool.to_path_buf(), found.dead, id, view) }
        }

        fn open(&mut self) -> SessionId {
            let session = SessionId::generate();
            let shard = Shard { name: "s".into(), symbols: Arc::new(["AAPL".to_string()]) };
            self.commit(Request::Open(OpenSession { session, shard }));
            session
        }

        /// Frames of two trades each, received at hour `hour`.
        fn append(&mut self, session: SessionId, numbers: std::ops::RangeInclusive<u32>, hour: i64) {
            let frames = numbers.map(|number| {
                let payload = Bytes::from(format!("{TRADE},{TRADE}"));
                let length = TRADE.len() as u32;
                let element =
                    |start| Judged { range: start..start + length, partition: 0, verdict: Verdict::Trade(Flags::default()) };
                let frame = RawFrame { number, received_at: Hour(hour).begins() + i64::from(number), payload, binary: false };
                JudgedFrame { frame, elements: vec![element(0), element(length + 1)], traceparent: None }
            });
            self.commit(Request::Append(Append { session, frames: frames.collect() }));
        }

        fn commit(&mut self, request: Request) {
            assert_eq!(commit(&mut self.log, &[request], ROOM, 0), [Ok(())]);
            self.durable.send_replace(self.log.view());
        }

        fn archiver(&self, store: &Arc<dyn Store>, spool: &Path) -> Archiver {
            self.archiver_of(Stream::Trades, store, spool)
        }

        fn archiver_of(&self, stream: Stream, store: &Arc<dyn Store>, spool: &Path) -> Archiver {
            self.archiver_with(4096, stream, store, spool)
        }

        fn archiver_with(&self, flush_bytes: usize, stream: Stream, store: &Arc<dyn Store>, spool: &Path) -> Archiver {
            let id = ChainId { stream, partition: 0 };
            Archiver::new(Parts {
                chain: Chain::new(id, store.clone()),
                store: store.clone(),
                source: Box::new(Spooled::new(self.logs.clone(), id)),
                limits: Limits { flush_bytes, flush_after: Duration::from_secs(3600), zstd_level: 1 },
                budget: Budget::new(1 << 30),
                poison: Poison::load(spool.join("poison.json")),
                traces: Traces::default(),
            })
        }
    }

    async fn drain(archiver: &mut Archiver) -> Vec<Slot> {
        let mut slots = Vec::new();
        loop {
            match archiver.step(true).await.unwrap() {
                Step::Idle { due: None } => return slots,
                Step::Decided(slot) => slots.push(*slot),
                Step::Progress | Step::Idle { .. } => {}
            }
        }
    }

    fn store(dir: &Path) -> Arc<dyn Store> {
        Arc::new(FolderStore::open(dir.join("bronze")).unwrap())
    }

    #[tokio::test]
    async fn all_lives_are_archived_once_in_the_order_of_their_logs() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let mut first = Life::begin(&spool);
        let session = first.open();
        first.append(session, 1..=40, 10);
        drain(&mut first.archiver(&store, &spool)).await;
        first.append(session, 41..=50, 10); // durable, and the process dies before it is archived
        let mut second = Life::begin(&spool);
        let session = second.open();
        second.append(session, 1..=5, 11);
        let slots = drain(&mut second.archiver(&store, &spool)).await;
        assert!(slots.iter().any(|slot| matches!(slot.body, Body::End { .. })), "the old generation is closed");
        let found = audit::bronze::read(&store, Some(&spool)).await.unwrap();
        assert_eq!((found.archived[0], found.waiting[0], found.duplicated), (110, 0, 0));
        assert_eq!(found.faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_came_of_a_wrong_clock_does_not_keep_the_chain_in_its_hour() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let (mut life, now) = (Life::begin(&spool), Hour::of(clock::now()));
        let session = life.open();
        life.append(session, 1..=1, now.0);
        life.append(session, 2..=2, now.0 + 600_000); // in 68 years
        life.commit(Request::Tick(Hour(now.0 + 700_000)));
        life.append(session, 3..=3, now.0);
        let slots = drain(&mut life.archiver(&store, &spool)).await;
        let reached = slots.iter().filter_map(|slot| slot.carry.archive_hour).max();
        assert!(reached.is_some_and(|hour| (now.0..=now.0 + 2).contains(&hour.0)), "{reached:?}, {now}");
        let found = audit::bronze::read(&store, Some(&spool)).await.unwrap();
        assert_eq!((found.archived[0], found.waiting[0], found.faults), (6, 0, vec![]));
    }

    /// Else one flipped byte would fill the spool for ever.
    #[tokio::test]
    async fn a_damaged_log_goes_when_all_else_of_it_is_archived() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let mut first = Life::begin(&spool);
        let session = first.open();
        first.append(session, 1..=40, 10);
        first.append(session, 41..=80, 10);
        let (dead, dir) = (first.log.id(), spool.join(first.log.id().to_string()));
        drop(first);
        let damaged = segment::path(&dir, 1);
        let mut bytes = std::fs::read(&damaged).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(damaged, bytes).unwrap();

        let second = Life::begin(&spool);
        let mut archived = Chains::default();
        for stream in Stream::ALL {
            let slots = drain(&mut second.archiver_of(stream, &store, &spool)).await;
            archived.learn(stream.into(), Archived::behind(slots.last().unwrap()));
        }
        let found = audit::bronze::read(&store, None).await.unwrap();
        assert!(found.slots[1] > 0 && found.archived[0] < 160, "nothing was damaged: {found:?}");
        Deletion::new(second.logs.clone(), DrainedBy::Bronze).delete_dead(&archived).unwrap();
        assert!(second.logs.view(dead).is_none(), "{archived:?}");
    }

    #[tokio::test]
    async fn an_object_of_many_pieces_is_archived_once_however_often_its_writer_is_interrupted() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let mut life = Life::begin(&spool);
        let session = life.open();
        for round in 0..60 {
            life.append(session, round * 100 + 1..=round * 100 + 100, 10);
        }
        let mut archiver = life.archiver_with(32 << 20, Stream::Trades, &store, &spool);
        for wait in (0..2000).step_by(100) {
            drop(tokio::time::timeout(Duration::from_micros(wait), archiver.step(false)).await);
        }
        let slots = drain(&mut archiver).await;
        assert_eq!(slots.iter().filter_map(Slot::data).map(|data| data.rows).collect::<Vec<_>>(), [12_000]);
        let found = audit::bronze::read(&store, None).await.unwrap();
        assert_eq!((found.archived[0], found.duplicated), (12_000, 0));
        assert_eq!(found.faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn two_writers_that_know_nothing_of_each_other_archive_everything_once() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let mut life = Life::begin(&spool);
        let session = life.open();
        life.append(session, 1..=200, 10);
        let (mut one, mut two) = (life.archiver(&store, &spool), life.archiver(&store, &spool));
        tokio::join!(drain(&mut one), drain(&mut two));
        let found = audit::bronze::read(&store, None).await.unwrap();
        assert_eq!((found.archived[0], found.duplicated), (400, 0));
        assert_eq!(found.faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_clone_of_the_folder_closes_and_reopens_and_nothing_is_archived_twice() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        let other = temp.path().join("clone");
        std::fs::create_dir_all(&spool).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        let (mut life, mut foreign) = (Life::begin(&spool), Life::begin(&other));
        let (a, b) = (life.open(), foreign.open());
        for round in 0..3 {
            life.append(a, round * 10 + 1..=round * 10 + 10, 10);
            foreign.append(b, round * 10 + 1..=round * 10 + 10, 10);
            drain(&mut life.archiver(&store, &spool)).await;
            drain(&mut foreign.archiver(&store, &other)).await;
        }
        let found = audit::bronze::read(&store, None).await.unwrap();
        assert_eq!((found.archived[0], found.duplicated), (120, 0));
        assert_eq!(found.faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_slots_hand_on_stays_small_however_many_sessions_there_were() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let mut life = Life::begin(&spool);
        for _ in 0..10 {
            for _ in 0..100 {
                let session = life.open();
                life.append(session, 1..=1, 10);
                let end = EndSession { session, frames: 1, last_received_at: None, reason: "disconnected".into() };
                life.commit(Request::End(end));
            }
            for stream in Stream::ALL {
                let slots = drain(&mut life.archiver_of(stream, &store, &spool)).await;
                let largest = slots.iter().map(|slot| serde_json::to_vec(&slot.carry).unwrap().len()).max();
                assert!(largest.is_some_and(|largest| largest < 400), "{stream}: {largest:?}");
            }
        }
        let found = audit::bronze::read(&store, None).await.unwrap();
        assert_eq!((found.archived, found.duplicated), ([2000, 1999, 0], 0), "999 gaps and 1,000 ends");
        assert_eq!(found.faults, Vec::<String>::new());
    }

    /// A copy of the spool is started while the daemon that it was copied from goes on: both tell of the
    /// end of the same session, and each finds the chain in a log that it does not have.
    #[tokio::test]
    async fn a_copy_of_the_spool_archives_what_is_new_in_it_and_nothing_twice() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store, copied) = (temp.path().join("spool"), store(temp.path()), temp.path().join("copy"));
        std::fs::create_dir_all(&spool).unwrap();
        let mut life = Life::begin(&spool);
        let session = life.open();
        life.append(session, 1..=40, 10);
        std::fs::create_dir_all(copied.join(life.log.id().to_string())).unwrap();
        for segment in std::fs::read_dir(life.logs.dir(life.log.id())).unwrap() {
            let there = copied.join(life.log.id().to_string()).join(segment.as_ref().unwrap().file_name());
            std::fs::copy(segment.unwrap().path(), there).unwrap();
        }
        let end =
            |frames, reason: &str| Request::End(EndSession { session, frames, last_received_at: None, reason: reason.into() });
        life.append(session, 41..=60, 10);
        life.commit(end(60, "disconnected"));
        let mut copy = Life::begin(&copied);
        copy.commit(end(40, "process_died"));
        let new = copy.open();
        copy.append(new, 1..=10, 10);
        let mut archived = Chains::default();
        for _ in 0..3 {
            for stream in Stream::ALL {
                let slots = drain(&mut life.archiver_of(stream, &store, &spool)).await;
                archived.learn(stream.into(), Archived::behind(slots.last().unwrap()));
                drain(&mut copy.archiver_of(stream, &store, &copied)).await;
            }
            if let Some(last) = Deletion::new(life.logs.clone(), DrainedBy::Bronze).last_done(&archived).0 {
                life.log.delete_to(last).unwrap();
            }
            life.durable.send_replace(life.log.view());
        }
        assert!(life.log.view().start(Stream::Trades) > 0, "it is read again and begins behind what is gone");
        let found = audit::bronze::read(&store, None).await.unwrap();
        assert_eq!((found.archived, found.duplicated), ([140, 2, 0], 0), "one end, and the gap of the new session");
        assert_eq!(found.faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn an_object_holds_one_hour_and_hours_never_go_back() {
        let temp = tempfile::tempdir().unwrap();
        let (spool, store) = (temp.path().join("spool"), store(temp.path()));
        std::fs::create_dir_all(&spool).unwrap();
        let mut life = Life::begin(&spool);
        let session = life.open();
        for (numbers, hour) in [(1..=3, 10), (4..=6, 12), (7..=9, 11)] {
            life.append(session, numbers, hour);
        }
        life.commit(Request::Tick(Hour(13)));
        let slots = drain(&mut life.archiver(&store, &spool)).await;
        let hours: Vec<_> = slots.iter().filter_map(|slot| Some((slot.data()?.hour.0, slot.data()?.rows))).collect();
        assert_eq!(hours, [(10, 6), (12, 12)], "the clock went back: it stays in the hour reached");
        assert_eq!(slots.last().unwrap().carry.archive_hour, Some(Hour(13)), "the tick moved an idle partition on");
    }
}
