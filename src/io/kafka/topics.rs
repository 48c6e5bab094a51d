//! The topics of a cluster: found or made, checked, and told apart from others of the same name.
//!
//! An offset means something only within one *incarnation* of a topic: one that was deleted and created again
//! has the same name and begins anew. Kafka gives each its id, and by that and the cluster's a generation of
//! the chain knows its log.
//!
//! All calls are asynchronous; the waiting is done on tokio's threads for blocking work. Nothing is kept but
//! the client: each call asks the brokers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;
use sha2::{Digest, Sha256};
use tokio::task::JoinError;

use super::error::KafkaError;
use super::native::{Cluster, Native, NewTopic, Refusal, Topic};
use super::rules::{self, Finding, Found};
use super::watch::Watch;
use super::{Apart, client};
use crate::config::KafkaConfig;
use crate::domain::identity::LogId;
use crate::domain::stream::{PerStream, Stream};

/// How long an answer may take: time for a broker that is down to be found so, and for the next.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a topic that was created may take until each broker that is asked knows it, and all of it is led.
const CREATED_WITHIN: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A topic that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Which of all topics that ever had this name.
    pub incarnation: LogId,
    /// Its partitions, from 0; never none.
    pub partitions: u32,
    /// Partitions that nobody leads for now: they can neither be written nor read.
    pub leaderless: u32,
    /// Copies that are in sync, of the partition that has the fewest.
    pub in_sync: u16,
}

impl Described {
    /// Why records of some partition wait, if one can tell: with fewer than `min_insync` copies in sync none is taken.
    pub fn lacks(&self, min_insync: u16) -> Option<String> {
        if self.leaderless > 0 {
            Some(format!("{} of its {} partitions have no leader", self.leaderless, self.partitions))
        } else if self.in_sync < min_insync {
            Some(format!("a partition has {} copies in sync, and `kafka.min_insync` is {min_insync}", self.in_sync))
        } else {
            None
        }
    }
}

/// A topic, as it is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// There is none of the name.
    Missing,
    /// There is one.
    There(Described),
}

/// A topic that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// What it is.
    pub topic: Described,
    /// Whether it was not there before.
    pub created: bool,
    /// What is unwise about it.
    pub notes: Vec<Finding>,
}

/// What would become of a topic, without anything being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// It would be created, and the brokers would do it.
    Created,
    /// It is there.
    There {
        /// What it is.
        topic: Described,
        /// What is wrong or unwise about it.
        findings: Vec<Finding>,
    },
}

/// Offsets of a partition: those from `start` and below `end` are there, or were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first that retention has left.
    pub start: u64,
    /// The next that will be given.
    pub end: u64,
}

/// The topics of a cluster. A clone asks by the same client.
#[derive(Clone)]
pub struct Topics(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: KafkaConfig,
    pub(super) within: Duration,
    native: Apart<Native>,
}

impl Topics {
    /// Connects to the cluster. Each answer may take [`ANSWER_WITHIN`].
    pub async fn open(config: &KafkaConfig) -> Result<Topics, KafkaError> {
        Topics::open_within(config, ANSWER_WITHIN).await
    }

    /// As [`Topics::open`], with another time for each answer.
    pub async fn open_within(config: &KafkaConfig, within: Duration) -> Result<Topics, KafkaError> {
        let config = config.clone();
        let opened = blocking(move || {
            let native = Native::new(&client::admin(&config), Watch::new("topics"));
            let native = native.map_err(|error| KafkaError::of_creation(&error, &config))?;
            Ok(Topics(Arc::new(Inner { config, within, native: Apart::new(native) })))
        });
        let topics = opened.await?;
        topics.cluster().await?;
        Ok(topics)
    }

    /// The cluster's id, and `host:port` of its brokers as they call themselves.
    pub async fn cluster(&self) -> Result<(String, Vec<String>), KafkaError> {
        let Cluster { id, brokers } = self.ask(|inner| inner.cluster()).await?;
        Ok((id, brokers))
    }

    /// All topics, as they are just now. Two small requests: good for being asked every few seconds.
    ///
    /// Some broker is asked, and one may lag behind the others: for a moment after a topic was created it may
    /// say that there is none, or tell of the one before. Who acts on a change should have been told it twice.
    pub async fn describe(&self) -> Result<PerStream<TopicState>, KafkaError> {
        self.ask(|inner| {
            let states = inner.describe(&Stream::ALL)?;
            Ok(std::array::from_fn(|at| states[at]))
        })
        .await
    }

    /// The topic of a stream, created if it was missing and that is allowed. An error tells all that is wrong
    /// with it.
    pub async fn ensure(&self, stream: Stream) -> Result<Ensured, KafkaError> {
        self.ask(move |inner| inner.ensure(stream)).await
    }

    /// [`Topics::ensure`] for all streams. An error of settings tells all that is wrong with all of them.
    pub async fn ensure_all(&self) -> Result<PerStream<Ensured>, KafkaError> {
        let (mut ensured, mut refused) = (Vec::new(), Vec::new());
        for stream in Stream::ALL {
            match self.ensure(stream).await {
                Ok(topic) => ensured.push(topic),
                Err(KafkaError::Topics(findings)) => refused.extend(findings),
                Err(error) => return Err(error),
            }
        }
        ensured.try_into().map_err(|_| KafkaError::Topics(refused))
    }

    /// What [`Topics::ensure`] would find or do.
    pub async fn prospect(&self, stream: Stream) -> Result<Prospect, KafkaError> {
        self.ask(move |inner| inner.prospect(stream)).await
    }

    /// Which offsets a partition has. Its leader is asked.
    pub async fn watermarks(&self, stream: Stream, partition: u32) -> Result<Watermarks, KafkaError> {
        self.ask(move |inner| inner.watermarks(stream, partition)).await
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Inner) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let inner = Arc::clone(&self.0);
        blocking(move || question(&inner)).await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    let stopping = |error: JoinError| KafkaError::Retry { what: "ask the cluster".into(), reason: error.to_string() };
    crate::io::blocking(work).await.map_err(stopping)?
}

impl Inner {
    pub(super) fn native(&self) -> &Native {
        &self.native
    }

    /// An answer, or who must do what about its absence.
    pub(super) fn heard<T>(&self, what: impl Fn() -> String, cure: &str, answer: Result<T, Refusal>) -> Result<T, KafkaError> {
        let watch = self.native().watch();
        match answer {
            Ok(answer) => {
                watch.forget_troubles();
                Ok(answer)
            }
            Err(refusal) => Err(KafkaError::of_refusal(what(), &refusal, watch.trouble().as_ref(), &self.config, cure)),
        }
    }

    fn cluster(&self) -> Result<Cluster, KafkaError> {
        let cluster = self.heard(|| "ask for the cluster's id".into(), "", self.native().describe_cluster(self.within))?;
        if cluster.id.is_empty() {
            let reason = "the brokers tell no id of their cluster: Kafka 2.8 or newer is needed".into();
            return Err(KafkaError::Refused { what: "ask for the cluster's id".into(), reason });
        }
        Ok(cluster)
    }

    /// The cluster is asked for its id each time: another one may have taken its place.
    fn describe(&self, streams: &[Stream]) -> Result<Vec<TopicState>, KafkaError> {
        let cluster = self.cluster()?.id;
        let found = self.topics(streams)?;
        let state = |(stream, topic): (&Stream, Option<Topic>)| match topic {
            Some(topic) => Ok(TopicState::There(self.described(&cluster, *stream, &topic)?)),
            None => Ok(TopicState::Missing),
        };
        streams.iter().zip(found).map(state).collect()
    }

    fn topics(&self, streams: &[Stream]) -> Result<Vec<Option<Topic>>, KafkaError> {
        let names: Vec<String> = streams.iter().map(|stream| self.config.topic(*stream)).collect();
        let answer = self.native().describe_topics(&names, self.within);
        let topics =
            self.heard(|| format!("describe the topics {}", names.join(", ")), "grant Describe on the topics", answer)?;
        let one = |(name, topic): (&String, Result<Topic, Refusal>)| match topic {
            Ok(topic) => Ok(Some(topic)),
            Err(refusal) if is_absence(refusal.code) => Ok(None),
            Err(refusal) => {
                let cure = format!("grant Describe on topic `{name}`");
                self.heard(|| format!("describe topic `{name}`"), &cure, Err(refusal))
            }
        };
        names.iter().zip(topics).map(one).collect()
    }

    fn described(&self, cluster: &str, stream: Stream, topic: &Topic) -> Result<Described, KafkaError> {
        if topic.id == [0; 16] {
            return Err(KafkaError::Refused {
                what: format!("ask for the id of topic `{}`", self.config.topic(stream)),
                reason: "the brokers tell none: Kafka 2.8 or newer is needed".into(),
            });
        }
        let incarnation = incarnation(cluster, topic.id);
        Ok(Described { incarnation, partitions: topic.partitions, leaderless: topic.leaderless, in_sync: topic.in_sync })
    }

    fn ensure(&self, stream: Stream) -> Result<Ensured, KafkaError> {
        let cluster = self.cluster()?.id;
        let (topic, created) = match self.topics(&[stream])?.remove(0) {
            Some(topic) => (topic, false),
            None => (self.create(stream)?, true),
        };
        let findings = self.findings(stream, &topic)?;
        let (refused, notes): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.is_refused);
        if !refused.is_empty() {
            return Err(KafkaError::Topics(refused));
        }
        Ok(Ensured { topic: self.described(&cluster, stream, &topic)?, created, notes })
    }

    fn prospect(&self, stream: Stream) -> Result<Prospect, KafkaError> {
        let cluster = self.cluster()?.id;
        match self.topics(&[stream])?.remove(0) {
            Some(topic) => {
                let findings = self.findings(stream, &topic)?;
                Ok(Prospect::There { topic: self.described(&cluster, stream, &topic)?, findings })
            }
            None => self.ask_to_create(stream, true).map(|()| Prospect::Created),
        }
    }

    /// A broker that is asked may not have heard yet of a topic that another one has told of.
    fn findings(&self, stream: Stream, topic: &Topic) -> Result<Vec<Finding>, KafkaError> {
        let (name, begun) = (self.config.topic(stream), Instant::now());
        let cure = format!("grant DescribeConfigs on topic `{name}`: whether it is safe to use stands in its settings");
        let answer = loop {
            match self.native().topic_settings(&name, self.within) {
                Err(refusal) if is_absence(refusal.code) && begun.elapsed() < CREATED_WITHIN => pause(),
                answer => break answer,
            }
        };
        let settings = self.heard(|| format!("read the settings of topic `{name}`"), &cure, answer)?;
        let found = Found { partitions: topic.partitions, replicas: topic.replicas, settings };
        Ok(rules::decide(&name, &found, &self.config))
    }

    /// Creates the topic, and returns when all of its partitions are led. Another daemon may do the same meanwhile.
    fn create(&self, stream: Stream) -> Result<Topic, KafkaError> {
        self.ask_to_create(stream, false)?;
        let begun = Instant::now();
        loop {
            match self.topics(&[stream])?.remove(0) {
                Some(topic) if topic.leaderless == 0 && topic.partitions > 0 => return Ok(topic),
                Some(_) | None if begun.elapsed() < CREATED_WITHIN => pause(),
                Some(topic) => return Ok(topic),
                None => {
                    return Err(KafkaError::Retry {
                        what: format!("create topic `{}`", self.config.topic(stream)),
                        reason: format!("it was created, and after {CREATED_WITHIN:?} it is still not there"),
                    });
                }
            }
        }
    }

    fn ask_to_create(&self, stream: Stream, only_ask: bool) -> Result<(), KafkaError> {
        let config = &self.config;
        let name = config.topic(stream);
        let by_hand = || {
            let settings: Vec<_> =
                rules::settings(config).iter().map(|(name, value)| format!("--config {name}={value}")).collect();
            format!(
                "`kafka-topics.sh --create --topic {name} --partitions {} --replication-factor {} {}`",
                config.partitions,
                config.replication_factor,
                settings.join(" ")
            )
        };
        if !config.create_topics {
            let cure = format!("run {}, or write `kafka.create_topics = true`", by_hand());
            return Err(KafkaError::Missing { topic: name, cure });
        }
        let topic = NewTopic {
            name: &name,
            partitions: config.partitions,
            replicas: config.replication_factor,
            settings: rules::settings(config),
        };
        let answer = match self.native().create_topic(&topic, only_ask, self.within) {
            Err(refusal) if refusal.code == Code::TopicAlreadyExists => Ok(()),
            Err(Refusal { code: Code::InvalidReplicationFactor, text }) => {
                let lower = format!(
                    "{}; lower `kafka.replication_factor` ({}) or add brokers",
                    text.trim_end_matches('.'),
                    config.replication_factor
                );
                Err(Refusal { code: Code::InvalidReplicationFactor, text: lower })
            }
            Err(refusal) if matches!(refusal.code, Code::PolicyViolation | Code::InvalidConfig | Code::InvalidPartitions) => {
                let text =
                    format!("{}; change what it is about in `[kafka]` ({})", refusal.text.trim_end_matches('.'), by_hand());
                Err(Refusal { text, ..refusal })
            }
            answer => answer,
        };
        let cure = format!("grant Create on topic `{name}`, or run {}", by_hand());
        self.heard(|| format!("create topic `{name}`"), &cure, answer)
    }

    fn watermarks(&self, stream: Stream, partition: u32) -> Result<Watermarks, KafkaError> {
        let name = self.config.topic(stream);
        let answer = self.native().watermarks(&name, i32::try_from(partition).unwrap_or(i32::MAX), self.within);
        if let Err(refusal) = &answer
            && is_absence(refusal.code)
        {
            let cure =
                format!("or not its partition {partition}; if it is not being created or altered just now, create or alter it");
            return Err(KafkaError::Missing { topic: name, cure });
        }
        let what = || format!("ask for the offsets of topic `{name}`, partition {partition}");
        let (start, end) = self.heard(what, &format!("grant Describe on topic `{name}`"), answer)?;
        let offset = |offset: i64| u64::try_from(offset).unwrap_or_default();
        Ok(Watermarks { start: offset(start), end: offset(end) })
    }
}

#[expect(clippy::disallowed_methods, reason = "on tokio's threads for blocking work there are no actors")]
fn pause() {
    std::thread::sleep(LOOK);
}

pub(super) fn is_absence(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition)
}

/// The log that a topic is, for a chain: made of the cluster's id and the topic's, so that it is the same for
/// all daemons and for ever. A UUIDv8, which the spool's logs, of version 7, cannot be.
pub fn incarnation(cluster: &str, topic: [u8; 16]) -> LogId {
    let hash = Sha256::new().chain_update(cluster).chain_update([0]).chain_update(topic).finalize();
    let bytes: [u8; 16] = std::array::from_fn(|at| hash[at]);
    LogId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::config;
    use super::*;

    #[test]
    fn partitions_that_cannot_be_used_are_told_with_the_reason() {
        let well = Described { incarnation: incarnation("c", [0; 16]), partitions: 12, leaderless: 0, in_sync: 2 };
        assert_eq!(well.lacks(2), None);
        assert_eq!(well.lacks(3).unwrap(), "a partition has 2 copies in sync, and `kafka.min_insync` is 3");
        assert_eq!(Described { leaderless: 4, in_sync: 0, ..well }.lacks(2).unwrap(), "4 of its 12 partitions have no leader");
    }

    #[test]
    fn an_incarnation_is_of_cluster_and_topic_and_of_no_spool() {
        let one = incarnation("dGlja21pbnQtY2x1c3Rlcg", [7; 16]);
        // Python: hashlib.sha256(cluster + b"\0" + topic).digest()[:16], version and variant set.
        assert_eq!(one.to_string(), "2a39d4ad-7610-8aea-ba63-212b2e3d301b");
        assert_eq!(one.0.get_version_num(), 8);
        assert_eq!(one.0.get_variant(), uuid::Variant::RFC4122);
        assert_ne!(one, incarnation("dGlja21pbnQtY2x1c3Rlcg", [8; 16]));
        assert_ne!(one, incarnation("dGlja21pbnQtY2x1c3Rlch", [7; 16]));
    }

    #[tokio::test]
    async fn a_cluster_that_is_not_there_is_told_with_its_address_and_the_reason() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config(&[&nobody.to_string()]);
        let Err(error) = Topics::open_within(&config, Duration::from_secs(1)).await else { panic!("nobody is there") };
        let text = error.to_string();
        assert!(error.is_retryable() && text.contains(&nobody.to_string()) && text.contains("refused"), "{text}");
    }
}
