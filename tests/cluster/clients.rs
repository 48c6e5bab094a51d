//! The clients: that librdkafka and brokers take what we tell them, and do what must hold.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tickmint::bronze::source::{Opening, Piece, Source};
use tickmint::config::KafkaConfig;
use tickmint::domain::chain::ChainId;
use tickmint::domain::stream::Stream;
use tickmint::io::kafka::topics::TopicState;
use tickmint::io::kafka::{Topics, Watch, client};
use tickmint::kafka::cluster::{Cluster as KnownCluster, Known, View, look};
use tickmint::kafka::reader::Reader;
use tickmint::kafka::source::{Means, Partition};

use super::faults::admin;
use super::{Cluster, cluster, config};
use crate::support::servers::or_skip;

/// Time for all of a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time of what is sent, in milliseconds: not so long ago that the brokers' retention takes it away in the middle of a test.
static SENT_AT: LazyLock<i64> = LazyLock::new(|| tickmint::clock::now() / 1000 - 3_600_000);

fn made(config: &KafkaConfig) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Topics::open(config).await.unwrap().ensure(Stream::Trades).await.unwrap() });
    config.topic(Stream::Trades)
}

/// Keeps what brokers answer.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<Result<i64, String>>>>);

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let answer = result.as_ref().map(Message::offset).map_err(|(error, _)| error.to_string());
        self.0.lock().unwrap().push(answer);
    }
}

/// Sends to partition 1, which holds nothing yet.
fn send<'a>(config: &KafkaConfig, topic: &str, values: impl IntoIterator<Item = &'a [u8]>) {
    send_behind(0, config, topic, values);
}

/// Sends to partition 1, which ends at offset `end`.
fn send_behind<'a>(end: i64, config: &KafkaConfig, topic: &str, values: impl IntoIterator<Item = &'a [u8]>) {
    let answers = Answers::default();
    let producer: BaseProducer<Answers> = client::producer(config).create_with_context(answers.clone()).unwrap();
    let mut sent = 0;
    for value in values {
        let record = BaseRecord::to(topic).partition(1).key("AAPL").payload(value).timestamp(*SENT_AT);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        sent += 1;
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(*answers.0.lock().unwrap(), (end..end + sent).map(Ok).collect::<Vec<_>>());
}

fn reader(config: &KafkaConfig, topic: &str, from: i64) -> BaseConsumer<Watch> {
    let reader: BaseConsumer<Watch> = client::reader(config, 1).create_with_context(Watch::new("reader")).unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 1, Offset::Offset(from)).unwrap();
    reader.assign(&partitions).unwrap();
    reader
}

#[test]
fn a_reader_begins_where_it_is_told_and_an_offset_that_is_not_there_is_an_error() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let topic = made(&config);
    send(&config, &topic, [b"a".as_slice(), b"b", b"c"]);

    let there = reader(&config, &topic, 1);
    for (offset, value) in [(1, b"b"), (2, b"c")] {
        let record = there.poll(PATIENCE).unwrap().unwrap();
        assert_eq!((record.offset(), record.payload()), (offset, Some(value.as_slice())));
        assert_eq!(record.timestamp().to_millis(), Some(*SENT_AT), "the time is ours, though it is an hour ago");
    }
    // Neither from the first nor from the next: the chain must be asked.
    match reader(&config, &topic, 99).poll(PATIENCE).unwrap() {
        Err(KafkaError::MessageConsumption(code)) => assert_eq!(code, RDKafkaErrorCode::AutoOffsetReset),
        other => panic!("{other:?}"),
    }
}

/// The partition of trades that all of this is about.
const CHAIN: ChainId = ChainId { stream: Stream::Trades, partition: 1 };

/// That partition as its writer reads it, from the beginning.
struct Read {
    config: KafkaConfig,
    topic: String,
    topics: Topics,
    known: tokio::sync::watch::Sender<Known>,
    view: View,
    cluster: KnownCluster,
    reader: Reader,
    partition: Partition,
}

impl Read {
    /// One that has read two records.
    async fn begin() -> Option<Read> {
        let servers = or_skip(cluster())?;
        let config = config(&servers.plain, |_| {});
        let topics = Topics::open(&config).await.unwrap();
        topics.ensure(CHAIN.stream).await.unwrap();
        let (known, knows) = tokio::sync::watch::channel(Known::default());
        let (reader, cluster) = (Reader::new(&config).unwrap(), KnownCluster::new(knows));
        let means = Means { reader: reader.clone(), cluster: cluster.clone(), registry: None };
        let (topic, partition) = (config.topic(CHAIN.stream), Partition::new(means, CHAIN));
        let mut read = Read { config, topic, topics, known, view: View::default(), cluster, reader, partition };
        read.open().await;
        send(&read.config, &read.topic, [b"a".as_slice(), b"b"]);
        read.read(0, 2).await;
        Some(read)
    }

    /// Looks at the topics, and opens the one that is there.
    async fn open(&mut self) {
        for _ in 0..2 {
            look(&self.topics, &self.known, &mut self.view).await.unwrap();
        }
        let (until, incarnation) = (Instant::now() + PATIENCE, self.cluster.incarnation(CHAIN.stream));
        // One that is new is not led at once.
        while let Err(error) = self.partition.open(incarnation, 0).await.inspect(|opening| assert_eq!(*opening, Opening::Read)) {
            assert!(Instant::now() < until, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads what stands from `from` to `end`.
    async fn read(&mut self, from: u64, end: u64) {
        let (until, mut next) = (Instant::now() + PATIENCE, from);
        while next < end {
            assert!(Instant::now() < until, "after {next} nothing comes any more");
            match self.partition.read(next).await.unwrap() {
                Piece::Records { next: behind, .. } => next = behind,
                Piece::End => self.partition.changed().await,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// As in a fault of the client's that nobody reports: it does not bring any more what it was told to.
#[tokio::test]
async fn a_partition_that_the_client_has_lost_sight_of_is_read_again() {
    let Some(mut read) = Read::begin().await else { return };
    read.reader.unassign(&read.reader.current(), CHAIN).unwrap();
    send_behind(2, &read.config, &read.topic, [b"c".as_slice()]);
    read.read(2, 3).await;
}

/// The client has seen it go: it has another queue for it afterwards.
#[tokio::test]
async fn a_topic_that_was_away_and_was_created_anew_is_read_from_its_beginning() {
    let Some(mut read) = Read::begin().await else { return };
    admin(&read.config).delete_topics(&[&read.topic], &AdminOptions::new()).await.unwrap();
    // Its fetches fail meanwhile, so that it asks.
    for _ in 0..30 {
        read.partition.read(2).await.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    read.topics.ensure(CHAIN.stream).await.unwrap();
    read.open().await;
    send(&read.config, &read.topic, [b"c".as_slice(), b"d"]);
    read.read(0, 2).await;
}

#[test]
fn a_record_as_long_as_any_can_be_goes_through() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let topic = made(&config);
    // What does not compress. Its key and the record's own overhead are among what `max_record_bytes` allows for.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(config.max_record_bytes - 1024)
    .collect();
    send(&config, &topic, [noise.as_slice(), b"after it"]);
    let reader = reader(&config, &topic, 0);
    assert!(reader.poll(PATIENCE).unwrap().unwrap().payload() == Some(&noise));
    assert_eq!(reader.poll(PATIENCE).unwrap().unwrap().payload(), Some(b"after it".as_slice()));
}

/// Shows something only where brokers have `auto.create.topics.enable`, as they do by default.
#[test]
fn a_producer_makes_no_topic_by_accident() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let answers = Answers::default();
    let producer: BaseProducer<Answers> = client::producer(&config).create_with_context(answers.clone()).unwrap();
    let topic = config.topic(Stream::Trades);
    producer.send(BaseRecord::<(), _>::to(&topic).partition(1).payload("x")).map_err(|(error, _)| error).unwrap();
    // It asks for the topic ten times meanwhile, or learns at once that there is none.
    producer.poll(Duration::from_secs(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let state = runtime.block_on(async { Topics::open(&config).await.unwrap().describe().await.unwrap() })[0];
    assert_eq!(state, TopicState::Missing);
    assert!(answers.0.lock().unwrap().iter().all(Result::is_err));
}

#[test]
fn members_of_a_group_share_the_partitions_and_leave_them_to_each_other() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |kafka| kafka.group = format!("test-{}", uuid::Uuid::now_v7()));
    let topic = made(&config);
    let member = || -> BaseConsumer<Watch> {
        let member: BaseConsumer<Watch> = client::member(&config, 3, None).create_with_context(Watch::new("member")).unwrap();
        member.subscribe(&[&topic]).unwrap();
        member
    };
    let has = |member: &BaseConsumer<Watch>| -> BTreeSet<i32> {
        // Nobody has told it where to begin, and it must not choose.
        match member.poll(Duration::from_millis(20)) {
            Some(Err(error)) => assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset)),
            Some(Ok(_)) => panic!("a record"),
            None => {}
        }
        member.assignment().unwrap().elements().iter().map(|element| element.partition()).collect()
    };
    let begun = Instant::now();
    let one = member();
    while has(&one).len() < 3 {
        assert!(begun.elapsed() < PATIENCE, "one has none");
    }
    let other = member();
    loop {
        let (one, other) = (has(&one), has(&other));
        assert!(one.is_disjoint(&other), "no partition is with both: {one:?} {other:?}");
        if one.len() + other.len() == 3 && !other.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{one:?} {other:?}");
    }
    drop(one);
    while has(&other).len() < 3 {
        assert!(begun.elapsed() < PATIENCE, "the other has not got all");
    }
}
