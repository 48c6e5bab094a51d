//! The client that reads the partitions of a process, each from the offset that its chain says.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use super::queue::{Client, Queue};
use super::quota::{HeldUp, Quota};
use crate::config::KafkaConfig;
use crate::domain::chain::ChainId;
use crate::domain::stream::Stream;
use crate::io::kafka::watch::Watch;
use crate::io::kafka::{KafkaError, client};

/// How long the client's own events may wait: errors, log lines, statistics.
const EVENTS_WITHIN: Duration = Duration::from_millis(500);

/// See the module. A clone is the same client.
#[derive(Clone)]
pub struct Reader {
    client: Arc<Client>,
    config: Arc<KafkaConfig>,
}

impl Reader {
    /// A client that reads nothing yet. It connects by itself, and again whenever it must.
    ///
    /// # Errors
    /// librdkafka does not take the config: a file of it cannot be read, say.
    pub fn new(config: &KafkaConfig) -> Result<Reader, KafkaError> {
        let settings = client::reader(config, config.partitions as usize * crate::domain::stream::STREAMS);
        let made = settings.create_with_context(Watch::new("reader"));
        let client: Arc<Client> = Arc::new(made.map_err(|error| KafkaError::of_creation(&error, config))?);
        listen(Arc::downgrade(&client));
        Ok(Reader { client, config: Arc::new(config.clone()) })
    }

    /// Whether a quota makes it wait.
    pub fn held_up(&self) -> Option<HeldUp> {
        Quota::Consumer.held_up(self.client.context(), &self.config)
    }

    /// The name of a stream's topic.
    pub fn topic(&self, stream: Stream) -> String {
        self.config.topic(stream)
    }

    /// The queue of a chain's partition. Nothing comes into it before [`Reader::assign`].
    pub fn queue(&self, chain: ChainId) -> Queue {
        Queue::new(&self.client, &self.config.topic(chain.stream), chain.partition)
    }

    /// Reads the partition from `offset` on.
    pub fn assign(&self, chain: ChainId, offset: u64) -> Result<(), KafkaError> {
        self.client
            .incremental_assign(&self.list(chain, super::offset(offset)))
            .map_err(|error| self.failed("read", chain, &error))
    }

    /// Reads the partition no more.
    pub fn unassign(&self, chain: ChainId) -> Result<(), KafkaError> {
        let list = self.list(chain, Offset::Invalid);
        self.client.incremental_unassign(&list).map_err(|error| self.failed("leave", chain, &error))
    }

    /// What a broker's word against reading the partition means.
    pub fn refused(&self, chain: ChainId, code: RDKafkaErrorCode) -> KafkaError {
        let trouble = self.client.context().trouble();
        KafkaError::of_reading(code, chain.partition, &self.topic(chain.stream), trouble.as_ref(), &self.config)
    }

    fn list(&self, chain: ChainId, offset: Offset) -> TopicPartitionList {
        let (topic, mut list) = (self.config.topic(chain.stream), TopicPartitionList::with_capacity(1));
        let added = list.add_partition_offset(&topic, chain.partition as i32, offset);
        added.expect("an offset is a number below 2^63, or none");
        list
    }

    fn failed(&self, what: &str, chain: ChainId, error: &rdkafka::error::KafkaError) -> KafkaError {
        let what = format!("cannot {what} partition {} of topic `{}`", chain.partition, self.config.topic(chain.stream));
        KafkaError::Retry { what, reason: error.to_string() }
    }
}

/// Serves the client's events for as long as it is there. Messages go to the queues of their partitions, and to no other.
fn listen(client: Weak<Client>) {
    let listen = move || {
        while let Some(client) = client.upgrade() {
            drop(client.poll(EVENTS_WITHIN));
        }
    };
    let spawned = std::thread::Builder::new().name("kafka-reader".into()).spawn(listen);
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for the events of the reader: its errors will not be told");
    }
}
