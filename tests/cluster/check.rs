//! What `tickmint check` finds out from a cluster and its registry, and that it leaves them as they are.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tickmint::commands::block_on;
use tickmint::domain::stream::Stream;
use tickmint::io::kafka::Topics;
use tickmint::io::registry::{Policy, Registry};
use tickmint::wire::{Format, schemas};

use super::registry::{access, retyped, url, with_a_field};
use super::{Cluster, cluster, config};
use crate::pipeline::rig::{Process, TICKMINT, end, fetch, pause};
use crate::support::http::request;
use crate::support::kafka::{Kafka, Options, PASSWORD, Security, USER};
use crate::support::servers::{free_ports, or_skip};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who has a config and tries whether it will do.
struct Newcomer {
    dir: tempfile::TempDir,
    port: u16,
}

impl Newcomer {
    fn new() -> Newcomer {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("key", "key"), ("password", PASSWORD)] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let [port] = free_ports();
        Newcomer { dir, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the config of a daemon that feeds and archives, or only archives.
    fn writes(&self, name: &str, feeds: bool, kafka: &str) {
        let feed = format!("[[feed.keys]]\nkey_file = {:?}\nsymbols = [\"A\"]\n", self.path("key"));
        let (roles, feed) = if feeds { ("\"feed\", \"archive\"", feed.as_str()) } else { ("\"archive\"", "") };
        let text = format!(
            "roles = [{roles}]\ndata_dir = {:?}\n{feed}[http]\nlisten = \"127.0.0.1:{}\"\n[warehouse]\nenabled = false\n\
             [kafka]\npartitions = 3\nreplication_factor = 1\nmin_insync = 1\n{kafka}",
            self.path("data"),
            self.port,
        );
        std::fs::write(self.path(name), text).unwrap();
    }

    /// What `check` says, and its exit code.
    fn checks(&self) -> (String, Option<i32>) {
        let output = Command::new(TICKMINT).args(["check", "--config"]).arg(self.path("all.toml")).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (said, output.status.code())
    }

    /// Waits until `check` says all of this, since brokers hear of a right one after the other; what it says then.
    fn is_told(&self, code: i32, parts: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let (said, ended) = self.checks();
            let lacks: Vec<_> = parts.iter().filter(|part| !said.contains(**part)).collect();
            if ended == Some(code) && lacks.is_empty() {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "exit code {ended:?}, {lacks:?} is not in\n{said}");
        }
    }
}

#[test]
fn a_missing_right_is_told_by_check_and_by_the_daemon_until_it_is_granted() {
    let newcomer = Newcomer::new();
    let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    // Who comes by the plain port: brokers, and the owner.
    let properties = [authorizer, "super.users=User:ANONYMOUS"].map(str::to_owned).to_vec();
    let options = Options { security: Security::SaslSsl, properties, ..Options::default() };
    let Some(kafka) = or_skip(Kafka::start(&newcomer.path("kafka"), options)) else { return };
    let owners = config(&kafka.bootstrap(), |_| {});
    let prefix = &owners.topic_prefix;
    let topic = |stream| format!("topic `{}`", owners.topic(stream));
    let brokers = format!(
        "brokers = [{:?}]\ntopic_prefix = {prefix:?}\nsecurity = \"sasl_ssl\"\nca_file = {:?}\nusername = {USER:?}\npassword_file = {:?}\n",
        kafka.secure_bootstrap(),
        kafka.ca_file(),
        newcomer.path("password"),
    );
    newcomer.writes("all.toml", true, &brokers);
    newcomer.writes("archive.toml", false, &brokers);
    let [trades, gaps, quarantine] = Stream::ALL.map(topic);
    let of_topics = |what: &str| [&trades, &gaps, &quarantine].map(|topic| what.replace("TOPIC", topic));
    let is_told = |code, topics: &str, others: &[&str]| {
        let topics = of_topics(topics);
        newcomer.is_told(code, &[&topics.each_ref().map(String::as_str), others].concat())
    };
    let of_prefix = ["--topic", prefix, "--resource-pattern-type", "prefixed"];

    let no_group = "FAIL  rights on group `tickmint`: grant Read on group `tickmint` to user `app`";
    let said = is_told(
        1,
        "FAIL  rights on TOPIC: grant Describe, DescribeConfigs, Write and Read on TOPIC to user `app`",
        &["ok    `kafka`: cluster ", no_group, "note  `bronze.store` is the folder "],
    );
    assert!(!said.contains("idempotent producer"), "it would say the same once more\n{said}");

    kafka.grant(USER, &[&["--operation", "Describe", "--operation", "DescribeConfigs"], &of_prefix[..]].concat());
    let producer = "FAIL  idempotent producer: the producer cannot go on (ClusterAuthorizationFailed";
    is_told(1, "TOPIC is not known: that is told only of a topic that is there", &[no_group, producer]);
    is_told(1, "grant Create on TOPIC, or run `kafka-topics.sh --create", &[no_group]);

    kafka.grant(USER, &[&["--operation", "Create"], &of_prefix[..]].concat());
    is_told(1, "ok    TOPIC: is not there, and will be created with 3 partitions", &[no_group, producer]);

    let log = std::fs::File::create(newcomer.path("log")).unwrap();
    let mut command = Command::new(TICKMINT);
    command.args(["run", "--config"]).arg(newcomer.path("archive.toml")).stdout(Stdio::null()).stderr(log);
    let mut daemon = Process(command.spawn().unwrap());
    let log = || std::fs::read_to_string(newcomer.path("log")).unwrap();
    let has_alarm = |text: &str| {
        let health = fetch(&format!("127.0.0.1:{}", newcomer.port), "/health").unwrap_or_default();
        let health: serde_json::Value = serde_json::from_str(&health).unwrap_or_default();
        health["alarms"].as_array().map(|_| health["alarms"].to_string().contains(text))
    };
    let wait_for_alarm = |text: &str, is_raised: bool| {
        let begun = Instant::now();
        while has_alarm(text) != Some(is_raised) {
            assert!(begun.elapsed() < PATIENCE, "the alarm `{text}` should be {is_raised}\n{}", log());
            pause(Duration::from_millis(100));
        }
    };
    wait_for_alarm("grant Read on group `tickmint`", true);
    assert!(log().contains("all daemons of a cluster must see the same one"), "{}", log());
    is_told(1, "FAIL  rights on TOPIC: grant Write and Read on TOPIC to user `app`", &[no_group]);
    is_told(1, "ok    TOPIC: 3 partitions", &[]);

    kafka.grant(USER, &["--operation", "Read", "--group", "tickmint"]);
    wait_for_alarm("grant Read on group `tickmint`", false);
    wait_for_alarm(&format!("grant Read on {trades}"), true);
    kafka.grant(USER, &[&["--operation", "Read"], &of_prefix[..]].concat());
    wait_for_alarm("grant Read on", false);
    assert_eq!(end(&mut daemon), Some(0), "{}", log());
    let group = "ok    rights on group `tickmint`: Read";
    is_told(1, "FAIL  rights on TOPIC: grant Write on TOPIC to user `app`", &[group]);

    kafka.grant(USER, &[&["--operation", "Write"], &of_prefix[..]].concat());
    let may = "ok    rights on TOPIC: Describe, DescribeConfigs, Write and Read";
    is_told(0, may, &[group, "ok    idempotent producer: may begin"]);
    block_on(async {
        let topics = Topics::open(&owners).await.unwrap();
        for partition in 0..3 {
            let found = topics.watermarks(Stream::Trades, partition).await.unwrap();
            assert_eq!((found.start, found.end), (0, 0), "who checks writes nothing");
        }
    })
    .unwrap();
}

#[test]
fn the_registry_is_asked_what_would_become_of_the_schemas_and_is_given_none() {
    let Some(Cluster { plain, .. }) = or_skip(cluster()) else { return };
    let (Some(url), newcomer) = (url(), Newcomer::new()) else { return };
    let ours = config(&plain, |_| {});
    let writes = |url: &str, more: &str| {
        let prefix = &ours.topic_prefix;
        let kafka = format!("brokers = [{plain:?}]\ntopic_prefix = {prefix:?}\n[kafka.registry]\nurl = {url:?}\n{more}");
        newcomer.writes("all.toml", false, &kafka);
    };
    let subject = |stream| schemas::subject(&ours.topic(stream));
    let of = |stream, outcome: &str, text: &str| format!("{outcome}schema of subject `{}`: {text}", subject(stream));
    let is_told = |code, parts: &[String]| newcomer.is_told(code, &parts.iter().map(String::as_str).collect::<Vec<_>>());

    writes(&url, "");
    let answers = format!("ok    `kafka.registry`: {url} answers");
    let first = |stream| of(stream, "ok    ", "json is not there, and will be registered as the first");
    is_told(0, &[std::slice::from_ref(&answers), &Stream::ALL.map(first)[..]].concat());
    let (_, subjects) = request("GET", &format!("{url}/subjects"), "").unwrap();
    assert!(!subjects.contains(&ours.topic_prefix), "{subjects}");

    writes(&url, "register = false\n");
    let absent = |stream| format!("FAIL  schema of subject `{0}`: subject `{0}` of the schema registry", subject(stream));
    is_told(1, &[&[answers], &Stream::ALL.map(absent)[..]].concat());

    let registry = Registry::new(access(url.clone())).unwrap();
    let register = |stream, schema: &str| {
        let subject = subject(stream);
        block_on(registry.ensure(&subject, Format::Json, schema, Policy::Register)).unwrap().unwrap()
    };
    register(Stream::Trades, &retyped(Stream::Trades, Format::Json));
    let id = register(Stream::Gaps, schemas::schema(Stream::Gaps, Format::Json));
    register(Stream::Quarantine, &with_a_field(Stream::Quarantine, Format::Json));
    writes(&url, "");
    let refused = format!("FAIL  schema of subject `{}`: the schema registry at {url} refuses the json", subject(Stream::Trades));
    let beside = of(Stream::Quarantine, "ok    ", "json is not there, goes with what is, and will be registered");
    let said = is_told(1, &[refused, of(Stream::Gaps, "ok    ", &format!("json has id {id}")), beside.clone()]);
    let lax = of(Stream::Quarantine, "note  ", "it was compared by NONE, to which the subject is held");
    assert!(!said.contains(&lax), "{said}");
    let config = format!("{url}/config/{}", subject(Stream::Quarantine));
    assert_eq!(request("PUT", &config, r#"{"compatibility":"NONE"}"#).unwrap().0, 200);
    is_told(1, &[beside, lax]);

    let [nobody] = free_ports();
    writes(&format!("http://127.0.0.1:{nobody}"), "");
    let said = is_told(1, &["FAIL  `kafka.registry`: the schema registry at http://127.0.0.1".into(), "is not reached".into()]);
    assert!(!said.contains("schema of subject"), "{said}");
}
