//! A partition of a topic, as the log of a chain.
//!
//! The chain says where to begin, never the group's committed offset. Before anything is read it is made sure that the
//! log is the one of the open generation, and that the offset lies in it: behind its end nothing is read and nobody
//! guesses; before its start there is a hole, and it is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, OptionFuture};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;
use uuid::Uuid;

use super::cluster::Cluster;
use super::queue::{Client, Message, Queue, Taken};
use super::reader::Reader;
use crate::bronze::source::{Opening, Piece, Source, SourceError};
use crate::domain::chain::ChainId;
use crate::domain::entry::{Content, Payload, Record};
use crate::domain::identity::{Delivery, LogId, Micros, Origin, SessionId};
use crate::io::kafka::topics::Watermarks;
use crate::io::registry::Registry;
use crate::wire::WireError;
use crate::wire::decode::{Decoder, Incoming, Received};
use crate::wire::envelope::{NAME, TRACEPARENT};

/// Where a chain waits behind the end of its log, or nothing comes, the brokers are asked again so often.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Where nothing has come of a partition for so long, the brokers are asked whether that is so; if it is not, twice as long after
/// that, as slow is not silent. For what was seen of librdkafka, see ADR 12.
const SILENT: Duration = Duration::from_secs(15);
/// See [`SILENT`].
const SILENT_MOST: Duration = Duration::from_secs(240);

/// Values are copied together in pieces of so many bytes.
const ARENA: usize = 256 << 10;

/// What a partition is read with.
#[derive(Clone)]
pub struct Means {
    /// Reads.
    pub reader: Reader,
    /// Knows which incarnation the topics are, and where they begin and end.
    pub cluster: Cluster,
    /// Knows the schemas of other versions.
    pub registry: Option<Arc<Registry>>,
}

impl Means {
    /// Where the log of a chain begins and ends, as the partition's leader says.
    async fn watermarks(&self, chain: ChainId) -> Result<Watermarks, SourceError> {
        let unknown = || SourceError::Kafka("none of `kafka.brokers` was reached yet".to_string());
        let topics = self.cluster.topics().ok_or_else(unknown)?;
        let found = topics.watermarks(chain.stream, chain.partition).await;
        found.map_err(|error| SourceError::Kafka(error.to_string()))
    }
}

/// How the partition is read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not at all.
    Away,
    /// From its queue, this offset next.
    Reading { log: LogId, next: u64 },
    /// Not any more: where the next offset lies must be asked.
    Unsure { log: LogId },
    /// The log begins only there.
    Before { log: LogId, start: u64 },
    /// The log ends before the chain does, as it said when it was asked.
    Behind { log: LogId, asked: Instant },
}

/// See the module.
pub struct Partition {
    means: Means,
    chain: ChainId,
    decoder: Decoder,
    /// While it is read.
    queue: Option<Queue>,
    standing: Standing,
    end: Option<u64>,
    /// When the brokers are asked whether there is really nothing, and after how long a silence that is.
    ask: (Instant, Duration),
    arena: BytesMut,
    /// A schema that is wanted before the next message can be read.
    wanted: Option<crate::wire::SchemaId>,
}

impl Partition {
    /// Reads nothing yet.
    pub fn new(means: Means, chain: ChainId) -> Partition {
        Partition {
            chain,
            decoder: Decoder::new(chain.stream),
            queue: None,
            means,
            standing: Standing::Away,
            end: None,
            ask: (Instant::now() + SILENT, SILENT),
            arena: BytesMut::new(),
            wanted: None,
        }
    }

    async fn open_log(&mut self, incarnation: Option<LogId>, from: u64) -> Result<Opening, SourceError> {
        self.leave();
        let topic = self.topic()?;
        if incarnation != Some(topic) {
            return Ok(Opening::Close { next: topic });
        }
        self.stand_at(topic, from, SILENT).await?;
        Ok(Opening::Read)
    }

    /// The topic's name.
    fn name(&self) -> String {
        self.means.reader.topic(self.chain.stream)
    }

    /// The incarnation of the topic now.
    fn topic(&self) -> Result<LogId, SourceError> {
        let gone = || SourceError::Kafka(format!("topic `{}` is not there, or not known yet", self.name()));
        let topic = self.means.cluster.topic(self.chain.stream).ok_or_else(gone)?;
        if self.chain.partition >= topic.partitions {
            let (partitions, partition) = (topic.partitions, self.chain.partition);
            let why = format!("topic `{}` has {partitions} partitions, and so no partition {partition} any more", self.name());
            return Err(SourceError::Kafka(why));
        }
        Ok(topic.incarnation)
    }

    /// Reads from `from` on, if that lies in the log. After so long a silence the brokers are asked.
    async fn stand_at(&mut self, log: LogId, from: u64, silent: Duration) -> Result<(), SourceError> {
        self.leave();
        let found = self.means.watermarks(self.chain).await?;
        self.end = Some(found.end);
        self.ask = (Instant::now() + silent, silent);
        self.standing = if from < found.start {
            Standing::Before { log, start: found.start }
        } else if from > found.end {
            Standing::Behind { log, asked: Instant::now() }
        } else {
            // Asked for each time: a topic that the client has seen go has other queues when it is there again.
            let client = self.client()?;
            let queue = self.queue.insert(self.means.reader.queue(&client, self.chain));
            let assigned = self.means.reader.assign(queue.client(), self.chain, from);
            assigned.map_err(|error| SourceError::Kafka(error.to_string()))?;
            Standing::Reading { log, next: from }
        };
        Ok(())
    }

    /// The client that reads now, which may be another one than before.
    fn client(&self) -> Result<Arc<Client>, SourceError> {
        let client = self.means.reader.client_for(&self.means.cluster.incarnations());
        client.map_err(|error| SourceError::Kafka(error.to_string()))
    }

    /// Whether another client reads now than the one that was told of the partition.
    fn is_left_behind(&self) -> bool {
        let client = self.means.reader.current();
        self.queue.as_ref().is_none_or(|queue| !Arc::ptr_eq(&client, queue.client()))
    }

    fn leave(&mut self) {
        if let (Standing::Reading { .. }, Some(queue)) = (self.standing, &self.queue)
            && let Err(error) = self.means.reader.unassign(queue.client(), self.chain)
        {
            tracing::warn!(chain = %self.chain, %error, "a partition could not be left; what still comes of it is dropped");
        }
        // Before there is another one: the end of one takes the other's ear away, if it is the same to the client.
        self.queue = None;
        self.standing = Standing::Away;
    }

    async fn read_log(&mut self, from: u64) -> Result<Piece, SourceError> {
        let (log, is_right) = match self.standing {
            Standing::Away => return Ok(Piece::Changed),
            Standing::Reading { log, next } => (log, next == from && !self.is_left_behind()),
            Standing::Before { start, .. } if from < start => {
                let reason = "Kafka's retention had deleted these records before they were archived";
                return Ok(Piece::Lost { to: start, reason, spooled: None });
            }
            Standing::Before { log, .. } | Standing::Unsure { log } => (log, false),
            Standing::Behind { log, asked } if asked.elapsed() < ASK_AGAIN => (log, true),
            Standing::Behind { log, .. } => (log, false),
        };
        if self.topic()? != log {
            self.leave();
            return Ok(Piece::Changed);
        }
        if let (Some(id), Some(registry)) = (self.wanted, &self.means.registry) {
            let schema = registry.schema(id).await.map_err(|error| SourceError::Kafka(error.to_string()))?;
            self.decoder.learn(id, &schema).map_err(|error| SourceError::Kafka(error.to_string()))?;
            self.wanted = None;
            self.stand_at(log, from, SILENT).await?;
        } else if !is_right {
            // Another client, because of another partition that says nothing: how long this one has been silent goes on.
            let silent = if self.is_left_behind() { self.ask.1 } else { SILENT };
            self.stand_at(log, from, silent).await?;
        }
        let Standing::Reading { log, .. } = self.standing else { return Ok(Piece::End) };
        let piece = self.take(log, from)?;
        if !matches!(piece, Piece::End) {
            self.ask = (Instant::now() + SILENT, SILENT);
        } else if self.ask.0 <= Instant::now() {
            self.look_behind(log, from).await?;
        }
        Ok(piece)
    }

    /// Asks whether there is really nothing to read. A client that has lost sight of the partition is told of it anew, and given up
    /// if that was in vain: nothing else would find that out, and what waits there is in no alarm but that of the spool.
    async fn look_behind(&mut self, log: LogId, from: u64) -> Result<(), SourceError> {
        let silent = self.ask.1;
        self.ask = (Instant::now() + silent, silent);
        // Who waits for a quota would only wait for longer, and who cannot be asked has nothing to give.
        let asked = if self.means.reader.held_up().is_some() { None } else { self.means.watermarks(self.chain).await.ok() };
        let Some(end) = asked.map(|found| found.end).filter(|end| *end > from) else { return Ok(()) };
        let (partition, topic) = (self.chain.partition, self.name());
        tracing::warn!(topic, partition, from, end, ?silent, "Kafka's client brings nothing of what is there: it is told anew");
        // Once: what others' transactions leave at the end of the log is never brought.
        if let Some(queue) = self.queue.as_ref().filter(|_| silent == 2 * SILENT) {
            self.means.reader.give_up(queue.client()).map_err(|error| SourceError::Kafka(error.to_string()))?;
        }
        self.stand_at(log, from, (2 * silent).min(SILENT_MOST)).await
    }

    /// Takes what has come.
    fn take(&mut self, log: LogId, from: u64) -> Result<Piece, SourceError> {
        let Some(queue) = &mut self.queue else { return Ok(Piece::End) };
        let batch = queue.take();
        let (mut records, mut next, mut stopped) = (Vec::with_capacity(batch.len()), from, None);
        for taken in batch {
            match taken {
                Taken::Message(message) if message.offset() < next => {} // of before it was assigned anew
                Taken::Message(message) => {
                    match read(&self.decoder, self.chain, log, &message, &mut self.arena) {
                        Ok(record) => records.push(record),
                        Err(error) => {
                            stopped = Some(Stop::Wire(error));
                            break;
                        }
                    }
                    next = message.offset() + 1;
                }
                Taken::Error(code) => {
                    stopped = Some(Stop::Broker(code));
                    break;
                }
            }
        }
        // The client knows it from the last fetch, which may be of before the partition was assigned anew.
        self.end = queue.known_end().filter(|end| *end >= next).or(self.end);
        self.standing = match stopped {
            None => Standing::Reading { log, next },
            Some(_) => {
                // What of the batch is not read is gone from the queue: it is asked for again.
                self.standing = Standing::Reading { log, next };
                self.leave();
                Standing::Unsure { log }
            }
        };
        if next > from {
            return Ok(Piece::Records { records, next });
        }
        match stopped {
            None => Ok(Piece::End),
            // Where the offset lies, if not in the log, is asked next.
            Some(Stop::Broker(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::PartitionEOF)) => Ok(Piece::End),
            Some(Stop::Broker(code)) => Err(SourceError::Kafka(self.means.reader.refused(self.chain, code).to_string())),
            Some(Stop::Wire(error)) => {
                self.wanted = error.wanted_schema();
                if self.wanted.is_some() && self.means.registry.is_some() {
                    return Ok(Piece::Records { records, next: from });
                }
                let (partition, topic) = (self.chain.partition, self.name());
                Err(SourceError::Kafka(format!(
                    "the record at offset {from} of partition {partition} of topic `{topic}` cannot be read: {error}"
                )))
            }
        }
    }
}

/// Why a batch was not read to its end.
enum Stop {
    Broker(Code),
    Wire(WireError),
}

/// Reads a message. What something else than Tickmint has written is taken as it is: the chain archives it apart.
fn read(decoder: &Decoder, chain: ChainId, log: LogId, message: &Message<'_>, arena: &mut BytesMut) -> Result<Record, WireError> {
    let [header, traceparent] = message.headers([NAME, TRACEPARENT]);
    let value = message.value().map(|value| keep(value, arena));
    let offset = message.offset();
    match decoder.decode(Incoming { header, traceparent, value: value.clone() }) {
        Ok(Received { origin, received_at, traceparent, content }) => {
            Ok(Record { offset, origin, received_at, traceparent, content: own(content, value.as_ref(), arena) })
        }
        Err(error @ (WireError::NoHeader | WireError::Malformed { .. } | WireError::OtherStream { .. })) => {
            let payload = Payload::Foreign { raw: value.unwrap_or_default(), why: error.to_string() };
            let delivery = foreign(chain, log, offset);
            let content = Content::Data { delivery, seq: offset, payload };
            let received_at = Micros::from(message.timestamp().max(0)).saturating_mul(1000);
            Ok(Record { offset, origin: Origin { log, place: offset }, received_at, traceparent: None, content })
        }
        Err(error) => Err(error),
    }
}

/// An identity for what has none: by where it stands in which log.
fn foreign(chain: ChainId, log: LogId, offset: u64) -> Delivery {
    let mut id = log.0.into_bytes();
    id[0] ^= chain.stream.index() as u8 + 1;
    id[1..5].iter_mut().zip(chain.partition.to_be_bytes()).for_each(|(byte, of)| *byte ^= of);
    let session = SessionId(Uuid::from_bytes(id));
    Delivery { session, frame: (offset >> 16) as u32, index: offset as u16 }
}

/// Copies a value out of librdkafka's memory, which would keep several times as much for it.
fn keep(value: &[u8], arena: &mut BytesMut) -> Bytes {
    if arena.capacity() - arena.len() < value.len() {
        *arena = BytesMut::with_capacity(ARENA.max(value.len()));
    }
    arena.extend_from_slice(value);
    arena.split().freeze()
}

/// Copies the text out of a value that holds much besides: the archive's memory is counted by the texts.
fn own(mut content: Content, value: Option<&Bytes>, arena: &mut BytesMut) -> Content {
    if let Content::Data { payload: Payload::Trade { raw, .. } | Payload::Quarantined { raw, .. }, .. } = &mut content
        && value.is_some_and(|value| value.len() > 2 * raw.len())
    {
        *raw = keep(raw, arena);
    }
    content
}

impl Source for Partition {
    fn open(&mut self, incarnation: Option<LogId>, from: u64) -> BoxFuture<'_, Result<Opening, SourceError>> {
        Box::pin(self.open_log(incarnation, from))
    }

    fn read(&mut self, from: u64) -> BoxFuture<'_, Result<Piece, SourceError>> {
        Box::pin(self.read_log(from))
    }

    fn end(&self) -> Option<u64> {
        self.end
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let (filled, mut cluster) = (self.queue.as_ref().map(Queue::filled), self.means.cluster.clone());
        Box::pin(async move {
            let filled = OptionFuture::from(filled.as_ref().map(|filled| filled.notified()));
            tokio::select! {
                Some(()) = filled => {}
                () = cluster.changed() => {}
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        })
    }

    fn is_drained_to_its_end(&self) -> bool {
        false
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.leave();
    }
}
