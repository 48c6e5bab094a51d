//! Kafka in memory: partitions that lose their start to retention and their end to an unclean election, topics that are
//! created anew, a producer whose answers are lost, a consumer that notices late.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::bronze::source::{Opening, Piece, Source, SourceError};
use tickmint::domain::chain::ChainId;
use tickmint::domain::entry::Record;
use tickmint::domain::identity::LogId;
use tickmint::domain::stream::{PerStream, Stream};
use tickmint::forward::engine::{Outcome, SendError, Sender, Tag};
use tickmint::spool::replay::Outgoing;

/// So many records may be under way.
const ROOM: usize = 24;

/// All topics. A clone is the same cluster.
#[derive(Clone)]
pub(super) struct Topics(Arc<Mutex<PerStream<Topic>>>);

struct Topic {
    incarnation: LogId,
    partitions: Vec<Log>,
}

#[derive(Default)]
struct Log {
    start: u64,
    records: VecDeque<Record>,
}

impl Log {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }
}

fn topic(partitions: u32) -> Topic {
    Topic { incarnation: LogId::generate(), partitions: (0..partitions).map(|_| Log::default()).collect() }
}

impl Topics {
    pub(super) fn new(partitions: u32) -> Topics {
        Topics(Arc::new(Mutex::new(Stream::ALL.map(|_| topic(partitions)))))
    }

    fn lock(&self) -> MutexGuard<'_, PerStream<Topic>> {
        self.0.lock().unwrap()
    }

    fn with<T>(&self, chain: ChainId, work: impl FnOnce(&mut Log) -> T) -> T {
        work(&mut self.lock()[chain.stream.index()].partitions[chain.partition as usize])
    }

    pub(super) fn incarnation(&self, stream: Stream) -> LogId {
        self.lock()[stream.index()].incarnation
    }

    pub(super) fn end(&self, chain: ChainId) -> u64 {
        self.with(chain, |log| log.end())
    }

    /// Its offset.
    pub(super) fn append(&self, chain: ChainId, record: Record) -> u64 {
        self.with(chain, |log| {
            log.records.push_back(record);
            log.end() - 1
        })
    }

    /// Retention deletes so many records of the start.
    pub(super) fn expire(&self, chain: ChainId, count: u64) {
        self.with(chain, |log| {
            for _ in 0..count {
                log.start += u64::from(log.records.pop_front().is_some());
            }
        });
    }

    /// A broker is elected that lacks so many records of the end.
    pub(super) fn truncate(&self, chain: ChainId, count: u64) {
        self.with(chain, |log| (0..count).for_each(|_| drop(log.records.pop_back())));
    }

    /// Somebody deletes the topic and creates it again.
    pub(super) fn recreate(&self, stream: Stream) {
        let topic_now = &mut self.lock()[stream.index()];
        *topic_now = topic(topic_now.partitions.len() as u32);
    }
}

/// A producer of one process.
pub(super) struct MemorySender {
    topics: Topics,
    random: StdRng,
    under_way: VecDeque<(Tag, Record)>,
    /// As it last heard.
    known: PerStream<LogId>,
    is_calm: bool,
}

impl MemorySender {
    pub(super) fn new(topics: &Topics, seed: u64, is_calm: bool) -> MemorySender {
        let known = Stream::ALL.map(|stream| topics.incarnation(stream));
        let (topics, random) = (topics.clone(), StdRng::seed_from_u64(seed));
        MemorySender { topics, random, under_way: VecDeque::new(), known, is_calm }
    }

    /// From here on all arrives, once, and is answered for as it is.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// What is under way when its process dies: it may arrive at any time.
    pub(super) fn left_behind(self) -> impl Iterator<Item = (ChainId, Record)> {
        self.under_way.into_iter().map(|(tag, record)| (tag.chain, record))
    }
}

impl Sender for MemorySender {
    fn send(&mut self, outgoing: &Outgoing) -> Result<bool, SendError> {
        if self.under_way.len() >= ROOM {
            return Ok(false);
        }
        self.under_way.push_back((Tag { chain: outgoing.chain, origin: outgoing.record.origin }, outgoing.record.clone()));
        Ok(true)
    }

    fn answers(&mut self) -> Result<Vec<(Tag, Outcome)>, SendError> {
        if self.is_calm || self.random.random_bool(0.7) {
            self.known = Stream::ALL.map(|stream| self.topics.incarnation(stream));
        }
        let count = if self.is_calm { ROOM } else { self.random.random_range(0..ROOM) };
        let mut answers = Vec::new();
        while answers.len() < count
            && let Some((tag, record)) = self.under_way.pop_front()
        {
            let fate = if self.is_calm { 99 } else { self.random.random_range(0..100) };
            if fate < 4 {
                answers.push((tag, Outcome::Failed));
                continue;
            }
            if fate < 8 {
                self.topics.append(tag.chain, record.clone()); // written twice, as without idempotence
            }
            let offset = self.topics.append(tag.chain, record);
            let incarnation = self.known[tag.chain.stream.index()];
            let is_lost = (8..16).contains(&fate);
            answers.push((tag, if is_lost { Outcome::Failed } else { Outcome::Acknowledged { offset, incarnation } }));
        }
        Ok(answers)
    }

    fn partitions(&self, stream: Stream) -> u32 {
        self.topics.lock()[stream.index()].partitions.len() as u32
    }
}

/// A consumer of one partition.
pub(super) struct MemorySource {
    topics: Topics,
    chain: ChainId,
    random: StdRng,
    /// The incarnation that it takes the topic for.
    opened: Option<LogId>,
    /// As another process last heard, long ago.
    stale: Option<LogId>,
}

impl MemorySource {
    /// `stale`: what it takes the topic for at first, where it has not heard of the newest.
    pub(super) fn new(topics: &Topics, chain: ChainId, seed: u64, stale: Option<LogId>) -> MemorySource {
        MemorySource { topics: topics.clone(), chain, random: StdRng::seed_from_u64(seed), opened: None, stale }
    }

    fn piece(&mut self, from: u64) -> Piece {
        let now = self.topics.incarnation(self.chain.stream);
        // Until it notices, it reads by name: what it gets is of the new topic.
        if self.opened != Some(now) && self.random.random_bool(0.5) {
            self.stale = None;
            return Piece::Changed;
        }
        let count = self.random.random_range(1..6);
        self.topics.with(self.chain, |log| {
            if from < log.start {
                return Piece::Lost { to: log.start, reason: "retention", spooled: None };
            }
            let at = (from - log.start) as usize;
            let with_offset = |(n, record): (usize, &Record)| Record { offset: from + n as u64, ..record.clone() };
            let records: Vec<_> = log.records.iter().skip(at).take(count).enumerate().map(with_offset).collect();
            match records.len() as u64 {
                0 => Piece::End,
                taken => Piece::Records { records, next: from + taken },
            }
        })
    }
}

impl Source for MemorySource {
    fn open(&mut self, incarnation: Option<LogId>, _: u64) -> BoxFuture<'_, Result<Opening, SourceError>> {
        let topic = self.stale.unwrap_or_else(|| self.topics.incarnation(self.chain.stream));
        self.opened = Some(topic);
        let opening = if incarnation == Some(topic) { Opening::Read } else { Opening::Close { next: topic } };
        Box::pin(async move { Ok(opening) })
    }

    fn read(&mut self, from: u64) -> BoxFuture<'_, Result<Piece, SourceError>> {
        let piece = self.piece(from);
        Box::pin(async move { Ok(piece) })
    }

    fn end(&self) -> Option<u64> {
        Some(self.topics.end(self.chain))
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn is_drained_to_its_end(&self) -> bool {
        false
    }
}
