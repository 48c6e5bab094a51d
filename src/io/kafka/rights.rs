//! Whether the brokers let the user do what a daemon does, asked in ways that leave nothing behind.
//!
//! Brokers tell what one may do with a topic that is there, and with any group. Whether an idempotent producer may begin they
//! do not tell, since that may follow from Write on any topic: so one begins, and sends nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::statistics::Statistics;

use super::client;
use super::error::KafkaError;
use super::native::Refusal;
use super::topics::{Topics, blocking, is_absence};
use super::watch::Watch;
use crate::config::{KafkaConfig, Roles};
use crate::domain::stream::Stream;

/// How often it is looked whether a producer has begun.
const LOOK: Duration = Duration::from_millis(50);

/// An operation, by the name that `kafka-acls` gives it. Read and Write bring Describe along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To see that it is there, and where.
    Describe,
    /// To see its settings.
    DescribeConfigs,
    /// To send to it.
    Write,
    /// To read it; of a group: to be its member.
    Read,
}

/// What is known of the rights on a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// These the user has, and no others of [`Right`].
    Told(Vec<Right>),
    /// It cannot be asked: why.
    Untold(&'static str),
}

impl Right {
    /// What daemons of these roles need on each topic.
    pub fn on_topics(roles: Roles) -> Vec<Right> {
        let of_roles = [(roles.feed, Right::Write), (roles.archive, Right::Read)];
        let of_roles = of_roles.into_iter().filter(|(has, _)| *has).map(|(_, right)| right);
        [Right::Describe, Right::DescribeConfigs].into_iter().chain(of_roles).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Right::Describe => "Describe",
            Right::DescribeConfigs => "DescribeConfigs",
            Right::Write => "Write",
            Right::Read => "Read",
        }
    }

    /// `Write and Read`.
    pub fn list(rights: &[Right]) -> String {
        let names: Vec<_> = rights.iter().map(|right| right.name()).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
            Some(_) | None => names.concat(),
        }
    }
}

impl Rights {
    /// Those of `needed` that the user is known not to have.
    pub fn lacking(&self, needed: &[Right]) -> Vec<Right> {
        match self {
            Rights::Told(has) => needed.iter().copied().filter(|right| !has.contains(right)).collect(),
            Rights::Untold(_) => Vec::new(),
        }
    }

    fn of(answer: Result<Option<Vec<Right>>, Refusal>) -> Result<Rights, Refusal> {
        match answer {
            Ok(Some(rights)) => Ok(Rights::Told(rights)),
            Ok(None) => Ok(Rights::Untold("these brokers do not tell")),
            // Each right on a thing brings along that one may describe it.
            Err(Refusal { code: Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed, .. }) => {
                Ok(Rights::Told(Vec::new()))
            }
            Err(refusal) if is_absence(refusal.code) => Ok(Rights::Untold("that is told only of a topic that is there")),
            Err(refusal) => Err(refusal),
        }
    }
}

impl Topics {
    /// What the user may do with the topic of a stream.
    pub async fn rights_on_topic(&self, stream: Stream) -> Result<Rights, KafkaError> {
        self.ask(move |inner| {
            let topic = inner.config.topic(stream);
            let answer = inner.native().topic_rights(&topic, inner.within);
            inner.heard(|| format!("ask for the rights on topic `{topic}`"), "", Rights::of(answer))
        })
        .await
    }

    /// What the user may do with the consumer group.
    pub async fn rights_on_group(&self) -> Result<Rights, KafkaError> {
        self.ask(|inner| {
            let group = &inner.config.group;
            let answer = inner.native().group_rights(group, inner.within);
            inner.heard(|| format!("ask for the rights on group `{group}`"), "", Rights::of(answer))
        })
        .await
    }
}

/// Has a producer begin as the forwarder's does, which asks the brokers for an id, and ends it.
pub async fn producer_begins(config: &KafkaConfig, within: Duration) -> Result<(), KafkaError> {
    let config = config.clone();
    blocking(move || begin(&config, within)).await
}

fn begin(config: &KafkaConfig, within: Duration) -> Result<(), KafkaError> {
    let mut settings = client::producer(config);
    settings.set("statistics.interval.ms", LOOK.as_millis().to_string()); // they tell that it has begun
    let context = Beginner { watch: Watch::new("beginner"), has_begun: AtomicBool::new(false) };
    let made: Result<BaseProducer<Beginner>, _> = settings.create_with_context(context);
    let producer = made.map_err(|error| KafkaError::of_creation(&error, config))?;
    let (context, begun) = (producer.client().context(), Instant::now());
    while begun.elapsed() < within {
        producer.poll(LOOK);
        if context.has_begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some((code, text)) = producer.client().fatal_error() {
            return Err(KafkaError::of_producer(code, text, config));
        }
    }
    Err(KafkaError::of_trouble(context.watch.trouble().as_ref(), config))
}

/// Listens to a producer until it has its id.
struct Beginner {
    watch: Watch,
    has_begun: AtomicBool,
}

impl ClientContext for Beginner {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.watch.log(level, facility, line);
    }

    fn error(&self, error: Native, reason: &str) {
        self.watch.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned") {
            self.has_begun.store(true, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Beginner {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::config;
    use super::*;

    const NONE: Roles = Roles { feed: false, archive: false, refine: false, serve: false };

    #[test]
    fn each_role_needs_its_own_and_what_is_lacking_is_named() {
        use Right::{Describe, DescribeConfigs, Read, Write};
        let (feeds, archives) = (Roles { feed: true, ..NONE }, Roles { archive: true, ..NONE });
        assert_eq!(Right::on_topics(feeds), [Describe, DescribeConfigs, Write]);
        assert_eq!(Right::on_topics(archives), [Describe, DescribeConfigs, Read]);
        let all = Right::on_topics(Roles { feed: true, archive: true, ..NONE });
        let lacking = |has: &[Right]| Right::list(&Rights::Told(has.to_vec()).lacking(&all));
        assert_eq!(lacking(&[]), "Describe, DescribeConfigs, Write and Read");
        assert_eq!(lacking(&[Read, Describe]), "DescribeConfigs and Write");
        assert_eq!(lacking(&[Read, Describe, DescribeConfigs]), "Write");
        assert_eq!(lacking(&all), "");
        assert_eq!(Rights::Untold("x").lacking(&all), [], "nobody is accused of what is not known");
    }

    #[test]
    fn who_may_not_even_describe_may_nothing_and_what_is_not_there_is_untold() {
        let of = |code| Rights::of(Err(Refusal { code, text: String::new() }));
        for code in [Code::TopicAuthorizationFailed, Code::GroupAuthorizationFailed] {
            assert_eq!(of(code), Ok(Rights::Told(Vec::new())));
        }
        assert!(matches!(of(Code::UnknownTopicOrPartition), Ok(Rights::Untold(_))));
        assert!(of(Code::OperationTimedOut).is_err());
        assert!(matches!(Rights::of(Ok(None)), Ok(Rights::Untold(_))));
        assert_eq!(Rights::of(Ok(Some(vec![Right::Read]))), Ok(Rights::Told(vec![Right::Read])));
    }

    #[tokio::test]
    async fn a_producer_that_nobody_answers_has_not_begun() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let error = producer_begins(&config(&[&nobody]), Duration::from_millis(300)).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains(&nobody), "{error}");
    }
}
