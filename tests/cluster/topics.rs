//! Topics: created, found, checked, told apart; and why a cluster does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tickmint::config::{KafkaConfig, KafkaSettings};
use tickmint::domain::stream::Stream;
use tickmint::io::kafka::topics::{Described, Prospect, TopicState};
use tickmint::io::kafka::{KafkaError, Topics, client};

use super::{Cluster, PASSWORD, USER, cluster, config};
use crate::support::servers::or_skip;

/// Time for all of a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who waits for an answer that does not come waits no longer.
const IMPATIENCE: Duration = Duration::from_secs(5);

/// The owner's own client, which shares no code with ours.
fn owner(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

async fn settings_of(brokers: &str, topic: &str) -> BTreeMap<String, String> {
    let described = owner(brokers).describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
    let entries = described.into_iter().next().unwrap().unwrap().entries;
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

async fn delete(brokers: &str, topic: &str) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    owner(brokers).delete_topics(&[topic], &options).await.unwrap()[0].as_ref().unwrap();
}

async fn create(brokers: &str, topic: &NewTopic<'_>) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    owner(brokers).create_topics([topic], &options).await.unwrap()[0].as_ref().unwrap();
}

fn there(state: TopicState) -> Described {
    match state {
        TopicState::There(topic) => topic,
        TopicState::Missing => panic!("it is there"),
    }
}

#[tokio::test]
async fn a_topic_is_created_with_our_settings_and_then_found() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let topics = Topics::open(&config).await.unwrap();
    assert_eq!(topics.describe().await.unwrap(), [TopicState::Missing; 3]);
    assert_eq!(topics.prospect(Stream::Trades).await.unwrap(), Prospect::Created);
    assert_eq!(topics.describe().await.unwrap(), [TopicState::Missing; 3], "who only asks creates nothing");

    let [trades, gaps, quarantine] = topics.ensure_all().await.unwrap();
    assert!(trades.created && gaps.created && quarantine.created);
    assert_eq!((trades.topic.partitions, trades.topic.leaderless, trades.notes), (3, 0, vec![]));
    assert_ne!(trades.topic.incarnation, gaps.topic.incarnation);
    let settings = settings_of(&plain, &config.topic(Stream::Trades)).await;
    let of = |name: &str| settings[name].as_str();
    assert_eq!((of("cleanup.policy"), of("retention.ms"), of("message.timestamp.type")), ("delete", "604800000", "CreateTime"));
    assert_eq!(of("min.insync.replicas"), config.min_insync.to_string());
    assert_eq!(of("max.message.bytes"), config.max_record_bytes.to_string());

    let again = topics.ensure(Stream::Trades).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.topic, trades.topic);
    assert_eq!(there(topics.describe().await.unwrap()[0]), trades.topic);
    let other = Topics::open(&config).await.unwrap();
    assert_eq!(other.ensure(Stream::Trades).await.unwrap().topic, trades.topic, "each daemon names it alike");
}

#[tokio::test]
async fn a_topic_that_is_created_again_is_another_one_with_as_many_partitions() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let topics = Topics::open(&config).await.unwrap();
    let first = topics.ensure(Stream::Gaps).await.unwrap().topic;
    delete(&plain, &config.topic(Stream::Gaps)).await;
    while topics.describe().await.unwrap()[1] != TopicState::Missing {}
    let second = topics.ensure(Stream::Gaps).await.unwrap();
    assert!(second.created);
    assert_eq!(second.topic.partitions, first.partitions);
    assert_ne!(second.topic.incarnation, first.incarnation);
}

#[tokio::test]
async fn two_daemons_that_begin_at_once_make_one_topic() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let (one, other) = (Topics::open(&config).await.unwrap(), Topics::open(&config).await.unwrap());
    let (one, other) = tokio::join!(one.ensure_all(), other.ensure_all());
    assert_eq!(one.unwrap().map(|topic| topic.topic), other.unwrap().map(|topic| topic.topic));
}

#[tokio::test]
async fn all_mismatches_of_all_topics_are_told_at_once() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |kafka| kafka.partitions = 2);
    let (trades, gaps) = (config.topic(Stream::Trades), config.topic(Stream::Gaps));
    let copies = || TopicReplication::Fixed(config.replication_factor.into());
    let topic = NewTopic::new(&trades, 1, copies())
        .set("cleanup.policy", "compact")
        .set("retention.ms", "3600000")
        .set("max.message.bytes", "1048588")
        .set("message.timestamp.type", "LogAppendTime")
        .set("message.timestamp.before.max.ms", "60000")
        .set("message.timestamp.after.max.ms", "1000");
    create(&plain, &topic).await;
    create(&plain, &NewTopic::new(&gaps, 5, copies()).set("retention.bytes", "1000000").set("max.message.bytes", "20000000"))
        .await;

    let topics = Topics::open(&config).await.unwrap();
    let Err(KafkaError::Topics(findings)) = topics.ensure_all().await else { panic!("it is refused") };
    let told: Vec<_> = findings.iter().map(|finding| (finding.topic.as_str(), finding.setting, finding.found.as_str())).collect();
    assert_eq!(
        told,
        [
            (trades.as_str(), "partitions", "1"),
            (&trades, "cleanup.policy", "compact"),
            (&trades, "message.timestamp.type", "LogAppendTime"),
            (&trades, "retention.ms", "3600000"),
            (&trades, "max.message.bytes", "1048588"),
            (&trades, "message.timestamp.before.max.ms", "60000"),
            (&trades, "message.timestamp.after.max.ms", "1000"),
        ]
    );
    let gaps = topics.ensure(Stream::Gaps).await.unwrap();
    assert_eq!(gaps.topic.partitions, 5, "all that there are");
    assert_eq!(gaps.notes.iter().map(|note| note.setting).collect::<Vec<_>>(), ["partitions", "retention.bytes"]);
    assert!(matches!(topics.prospect(Stream::Trades).await.unwrap(), Prospect::There { findings, .. } if findings.len() == 7));
}

#[tokio::test]
async fn where_others_make_the_topics_a_missing_one_is_told_with_the_command_for_it() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |kafka| kafka.create_topics = false);
    let topics = Topics::open(&config).await.unwrap();
    for error in [topics.ensure(Stream::Trades).await.unwrap_err(), topics.prospect(Stream::Trades).await.unwrap_err()] {
        let text = error.to_string();
        let command =
            format!("`kafka-topics.sh --create --topic {} --partitions 3 --replication-factor", config.topic(Stream::Trades));
        assert!(matches!(error, KafkaError::Missing { .. }) && text.contains(&command), "{text}");
    }
    assert!(matches!(topics.watermarks(Stream::Trades, 0).await, Err(KafkaError::Missing { .. })));
    assert_eq!(topics.describe().await.unwrap(), [TopicState::Missing; 3], "to ask for it does not create it");
}

#[tokio::test]
async fn more_copies_than_brokers_are_told_in_the_brokers_words() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |kafka| kafka.replication_factor = 7);
    let error = Topics::open(&config).await.unwrap().ensure(Stream::Trades).await.unwrap_err();
    let text = error.to_string();
    assert!(
        !error.is_retryable() && text.contains("lower `kafka.replication_factor` (7)") && text.contains("broker(s)"),
        "{text}"
    );
}

#[tokio::test]
async fn watermarks_are_those_of_the_partition() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let config = config(&plain, |_| {});
    let topics = Topics::open(&config).await.unwrap();
    topics.ensure(Stream::Trades).await.unwrap();
    let topic = config.topic(Stream::Trades);
    let sent = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = client::producer(&config).create().unwrap();
        for _ in 0..3 {
            producer.send(BaseRecord::<(), _>::to(&topic).partition(1).payload("x")).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    });
    sent.await.unwrap();
    let of = async |partition| topics.watermarks(Stream::Trades, partition).await.map(|found| (found.start, found.end));
    assert_eq!((of(0).await, of(1).await), (Ok((0, 0)), Ok((0, 3))));
    assert!(matches!(of(99).await, Err(KafkaError::Missing { .. })));
}

/// With TLS and a login, and what `change` makes of that.
fn secure(cluster: &Cluster, brokers: &str, dir: &tempfile::TempDir, change: impl FnOnce(&mut KafkaSettings)) -> KafkaConfig {
    let password = dir.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    config(brokers, |kafka| {
        kafka.security = "sasl_ssl".into();
        (kafka.username, kafka.password_file) = (Some(USER.into()), Some(password));
        kafka.ca_file = Some(cluster.ca.clone());
        change(kafka);
    })
}

async fn refusal(config: &KafkaConfig) -> KafkaError {
    match Topics::open_within(config, IMPATIENCE).await {
        Ok(_) => panic!("nobody should answer"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn who_knows_the_password_and_the_authority_is_let_in() {
    let Some(cluster) = or_skip(cluster()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = secure(&cluster, &cluster.secure, &dir, |_| {});
    let topics = Topics::open(&config).await.unwrap();
    assert!(topics.ensure(Stream::Trades).await.unwrap().created);
}

#[tokio::test]
async fn each_wrong_setting_is_told_by_its_name_and_soon() {
    let Some(cluster) = or_skip(cluster()) else { return };
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wrong = other.path().join("wrong");
    std::fs::write(&wrong, "wrong-secret").unwrap();
    let secure = |brokers: &str, change: &dyn Fn(&mut KafkaSettings)| secure(&cluster, brokers, &dir, change);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let named = cluster.secure.replace("127.0.0.1", "127.1"); // the same address, which the certificate does not name;
    let mut failed = Vec::new();
    let plain_login = |kafka: &mut KafkaSettings| (kafka.security, kafka.ca_file) = ("sasl_plaintext".into(), None);
    for (what, config, parts) in [
        ("port", config(&nobody, |_| {}), &["no broker of `kafka.brokers`", "refused"][..]),
        ("name", config("no-such-host.invalid:9092", |_| {}), &["no broker of `kafka.brokers`", "DNS"]),
        (
            "password",
            secure(&cluster.secure, &|kafka| kafka.password_file = Some(wrong.clone())),
            &["lets nobody in as `app`", "`kafka.password_file`"],
        ),
        (
            "user",
            secure(&cluster.secure, &|kafka| kafka.username = Some("nobody".into())),
            &["lets nobody in as `nobody`", "`kafka.username`"],
        ),
        (
            "mechanism",
            secure(&cluster.secure, &|kafka| kafka.sasl_mechanism = "PLAIN".into()),
            &["`kafka.sasl_mechanism` is `PLAIN`", "SCRAM-SHA-512"],
        ),
        (
            "authority",
            secure(&cluster.secure, &|kafka| kafka.ca_file = None),
            &["cannot be trusted", "as there is no `kafka.ca_file`"],
        ),
        ("host", secure(&named, &|_| {}), &["its certificate is for another name", "`kafka.brokers`"]),
        (
            "TLS to a port without",
            secure(&cluster.plain, &|_| {}),
            &["`kafka.security` is `sasl_ssl`", "does not answer with TLS"],
        ),
        ("no TLS to a port with", config(&cluster.secure, |_| {}), &["`kafka.security` is `plaintext`", "may expect TLS"]),
        (
            "no TLS, with a login",
            secure(&cluster.secure, &plain_login),
            &["`kafka.security` is `sasl_plaintext`", "may expect TLS"],
        ),
    ] {
        let begun = std::time::Instant::now();
        let error = refusal(&config).await;
        let (text, took) = (error.to_string(), begun.elapsed());
        println!("{what}: {text} ({took:.1?})");
        assert!(!text.contains("secret"), "{text}");
        if !parts.iter().all(|part| text.contains(part)) || took > IMPATIENCE * 2 {
            failed.push(format!("{what}, after {took:.1?}: {text}\nlacks some of {parts:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
