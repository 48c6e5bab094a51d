//! The forwarder's way into the topics: an idempotent producer that waits for all replicas in sync.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::Timeout;

use super::cluster::{Cluster, created_anew};
use super::quota::{HeldUp, Quota};
use crate::clock;
use crate::config::KafkaConfig;
use crate::domain::identity::LogId;
use crate::domain::stream::{PerStream, Stream};
use crate::forward::engine::{Outcome, SendError, Sender, Tag};
use crate::io::kafka::watch::{Watch, watched};
use crate::io::kafka::{Apart, KafkaError, client};
use crate::spool::replay::Outgoing;
use crate::wire::encode::Encoder;
use crate::wire::envelope::{NAME, TRACEPARENT};

/// See the module.
pub struct KafkaSender {
    /// What is under way when it ends is left to the next one: nobody waits for answers any more.
    producer: Apart<BaseProducer<Context>>,
    topics: PerStream<String>,
    cluster: Cluster,
    /// Of each topic the incarnation that it was when the producer first sent to it.
    sends_to: PerStream<Option<LogId>>,
    encoder: Encoder,
    config: KafkaConfig,
    /// Why a record last was not taken by the brokers.
    refused: Option<String>,
}

/// Listens to the producer, and keeps its answers until they are asked for. They come while it is polled.
struct Context {
    watch: Watch,
    answers: Mutex<Vec<(Tag, Result<u64, Native>)>>,
}

impl KafkaSender {
    /// A producer that has sent nothing yet. It connects by itself, and again whenever it must.
    ///
    /// # Errors
    /// librdkafka does not take the config.
    pub fn new(config: &KafkaConfig, cluster: Cluster, encoder: Encoder) -> Result<KafkaSender, KafkaError> {
        let context = Context { watch: Watch::new("producer"), answers: Mutex::default() };
        let made = client::producer(config).create_with_context(context);
        let producer = made.map_err(|error| KafkaError::of_creation(&error, config))?;
        let topics = Stream::ALL.map(|stream| config.topic(stream));
        let sends_to = cluster.incarnations();
        Ok(KafkaSender {
            producer: Apart::new(producer),
            topics,
            cluster,
            sends_to,
            encoder,
            config: config.clone(),
            refused: None,
        })
    }

    /// Why nothing goes on, if that is known: what a broker said to a record, or how the connections are.
    pub fn trouble(&self) -> Option<String> {
        let of_client = || {
            let trouble = self.producer.client().context().watch.trouble()?;
            Some(KafkaError::of_trouble(Some(&trouble), &self.config).to_string())
        };
        self.refused.clone().or_else(of_client)
    }

    /// Whether a quota makes it wait.
    pub fn held_up(&self) -> Option<HeldUp> {
        Quota::Producer.held_up(&self.producer.client().context().watch, &self.config)
    }

    /// How many records are under way.
    pub fn under_way(&self) -> usize {
        self.producer.in_flight_count().max(0) as usize
    }

    fn fail_if_fatal(&self) -> Result<(), SendError> {
        match self.producer.client().fatal_error() {
            Some((code, text)) => Err(SendError(KafkaError::of_producer(code, text, &self.config).to_string())),
            None => Ok(()),
        }
    }

    /// Fails where a topic was created anew, which takes another producer: librdkafka (2.12) has lost some of what it was
    /// sending to the one before, and neither sent nor failed it for as long as it was watched (3 minutes). `now` is what the
    /// topics are.
    fn keep_to(&mut self, now: &PerStream<Option<LogId>>) -> Result<(), SendError> {
        let anew = created_anew(&mut self.sends_to, now).map(|stream| &self.topics[stream.index()]);
        anew.map_or(Ok(()), |topic| Err(SendError(format!("topic `{topic}` was created anew"))))
    }
}

impl Sender for KafkaSender {
    fn send(&mut self, outgoing: &Outgoing) -> Result<bool, SendError> {
        let (chain, record) = (outgoing.chain, &outgoing.record);
        // Where a topic has fewer partitions than it had, what belongs to the others waits: to send it elsewhere would
        // mix the order of a symbol's trades with that of another chain.
        if self.cluster.topic(chain.stream).is_none_or(|topic| chain.partition >= topic.partitions) {
            self.refused =
                Some(format!("topic `{}` is not there with partition {}", self.topics[chain.stream.index()], chain.partition));
            return Ok(false);
        }
        let key = outgoing.shard.as_deref().unwrap_or_default().as_bytes();
        let message = self.encoder.encode(chain.stream, key, record).map_err(|error| SendError(error.to_string()))?;
        let mut headers = OwnedHeaders::new_with_capacity(2).insert(Header { key: NAME, value: Some(message.header) });
        if let Some(traceparent) = message.traceparent {
            headers = headers.insert(Header { key: TRACEPARENT, value: Some(traceparent) });
        }
        let tag = Box::new(Tag { chain, origin: record.origin });
        let mut base = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topics[chain.stream.index()], tag)
            .partition(chain.partition as i32)
            // When it is sent, and not when it was received: after a long outage retention would delete it at once.
            .timestamp(clock::now().max(0) / 1000)
            .headers(headers);
        base.key = message.key;
        base.payload = message.value;
        match self.producer.send(base) {
            Ok(()) => Ok(true),
            Err((Native::MessageProduction(Code::QueueFull), _)) => Ok(false),
            Err((error, _)) => {
                self.fail_if_fatal()?;
                self.refused = Some(error.to_string());
                Ok(false)
            }
        }
    }

    fn answers(&mut self) -> Result<Vec<(Tag, Outcome)>, SendError> {
        // Never with a time to wait: this client spins through the last millisecond of it.
        self.producer.poll(Timeout::After(Duration::ZERO));
        let answers = std::mem::take(&mut *self.producer.client().context().lock());
        let incarnations = self.cluster.incarnations();
        let mut outcomes = Vec::with_capacity(answers.len());
        for (tag, answer) in answers {
            // A broker that knows the record from before does not always know where it put it.
            let outcome = match (answer, incarnations[tag.chain.stream.index()]) {
                (Ok(offset), Some(incarnation)) => {
                    self.refused = None;
                    self.producer.client().context().watch.forget_troubles();
                    Outcome::Acknowledged { offset, incarnation }
                }
                (Ok(_), None) => Outcome::Failed,
                (Err(error), _) => {
                    let topic = &self.topics[tag.chain.stream.index()];
                    self.refused = Some(KafkaError::of_record(&error, topic, &self.config).to_string());
                    Outcome::Failed
                }
            };
            outcomes.push((tag, outcome));
        }
        self.fail_if_fatal()?;
        self.keep_to(&incarnations)?;
        Ok(outcomes)
    }

    fn partitions(&self, stream: Stream) -> u32 {
        self.cluster.topic(stream).map_or(0, |topic| topic.partitions)
    }
}

impl Context {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Tag, Result<u64, Native>)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

watched!(Context);

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Tag>;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: Box<Tag>) {
        let answer = match result {
            Ok(message) => u64::try_from(message.offset()).map_err(|_| Native::MessageProduction(Code::NoOffset)),
            Err((error, _)) => Err(error.clone()),
        };
        self.lock().push((*tag, answer));
    }
}
