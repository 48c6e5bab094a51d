use super::*;
use crate::config::tests::{config, problem, problems, with_feed};
use crate::config::{Config, Roles};

fn kafka(text: &str) -> KafkaConfig {
    config(&with_feed(&format!("[kafka]\nbrokers = [\"k:9092\"]\n{text}"))).kafka.unwrap()
}

/// What is wrong with a `[kafka]` that is all right but for these lines, the first of which is line 3.
fn wrong(text: &str) -> String {
    problem(&format!("[kafka]\nbrokers = [\"k:9092\"]\n{text}"))
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n";

#[test]
fn without_the_section_there_is_no_cluster_and_with_it_brokers_are_enough() {
    assert_eq!(config(&with_feed("")).kafka, None);
    let kafka = kafka("");
    assert_eq!(kafka.topic(Stream::Trades), "tickmint.trades");
    assert_eq!((kafka.partitions, kafka.replication_factor, kafka.min_insync), (12, 3, 2));
    assert_eq!((kafka.format, kafka.compression), (Format::Json, Compression::Lz4));
    assert_eq!((kafka.tls, kafka.sasl, kafka.registry), (None, None, None));
    assert_eq!(
        problem("[kafka]"),
        "`kafka.brokers` is empty: name some, such as `brokers = [\"kafka-1:9092\", \"kafka-2:9092\"]`"
    );
    assert_eq!(
        problem("[kafka]\nbrokers = \"kafka-1:9092\""),
        "line 2: `kafka.brokers` is `\"kafka-1:9092\"`, must be a list in square brackets"
    );
}

#[test]
fn what_is_wrong_names_the_option_the_value_and_the_cure() {
    for (text, told) in [
        (
            "partitions = 0",
            "line 3: `kafka.partitions` is `0`, must be from 1 to 1000: 12 is a good number, and can be raised later",
        ),
        ("replication_factor = 0", "line 3: `kafka.replication_factor` is `0`, must be at least 1: with 3 a broker may be lost"),
        (
            "min_insync = 4",
            "line 3: `kafka.min_insync` is `4`, must be from 1 to `kafka.replication_factor` (3): with 3 copies write `2`",
        ),
        ("retention = \"10m\"", "line 3: `kafka.retention` is `10m`, must be from 1h to 366d"),
        ("format = \"xml\"", "line 3: `kafka.format` is `xml`, must be one of `json`, `avro`"),
        (
            "compression = \"lzma\"",
            "line 3: `kafka.compression` is `lzma`, must be one of `lz4`, `zstd`, `snappy`, `gzip`, `none`",
        ),
        (
            "security = \"tls\"",
            "line 3: `kafka.security` is `tls`, must be one of `plaintext`, `ssl`, `sasl_plaintext`, `sasl_ssl`",
        ),
        (
            "sasl_mechanism = \"GSSAPI\"",
            "line 3: `kafka.sasl_mechanism` is `GSSAPI`, must be one of `SCRAM-SHA-512`, `SCRAM-SHA-256`, `PLAIN`",
        ),
        ("linger = \"2s\"", "line 3: `kafka.linger` is `2s`, must be from 0ms to 1s"),
        (
            "buffer = \"8 MiB\"",
            "line 3: `kafka.buffer` is `8 MiB`, must be at least 12800 KiB: so long a record may be by `feed.max_frame_bytes` (1 MiB), as `kafka.format` json",
        ),
        (
            "drain_within = \"90s\"",
            "line 3: `kafka.drain_within` is `90s`, must be at most `drain_within` (60s): lower it or raise the other",
        ),
        (
            "topic_prefix = \"a/b\"",
            "line 3: `kafka.topic_prefix` is `a/b`, must be at most 239 ASCII letters, digits, `.`, `_` and `-`: write such as `tickmint.`",
        ),
        (
            "group = \"\"",
            "line 3: `kafka.group` is ``, must be ASCII letters, digits, `.`, `_` and `-`: write such as `tickmint`",
        ),
        (
            "username = \"me\"",
            "line 3: `kafka.username` is set, but `kafka.security` is `plaintext`: write `kafka.security = \"sasl_ssl\"`, or remove it",
        ),
        (
            "ca_file = \"x\"",
            "line 3: `kafka.ca_file` is set, but `kafka.security` is `plaintext`: write `kafka.security = \"ssl\"`, or remove it",
        ),
        (
            "security = \"sasl_ssl\"\nusername = \"me\"",
            "line 3: `kafka.security` is `sasl_ssl`, but there is no password: set `kafka.password_file` or `kafka.password_env`",
        ),
        (
            "security = \"sasl_ssl\"\npassword_env = \"KEY_A\"",
            "`kafka.username` is not set, but `kafka.security` is `sasl_ssl`: say who logs in",
        ),
        (
            "security = \"ssl\"\nca_file = \"/nowhere/ca\"",
            "line 4: `kafka.ca_file` is `/nowhere/ca`, which cannot be read (No such file or directory (os error 2)): give the path of a file in PEM",
        ),
        (
            "security = \"ssl\"\nkey_file = \"x\"",
            "line 4: `kafka.key_file` is set, but `kafka.certificate_file` is not: a certificate and its key go together",
        ),
        ("linger_ms = 5", "line 3: there is no option `kafka.linger_ms`: did you mean `kafka.linger`?"),
        (
            "[kafka.registry]",
            "`kafka.registry.url` is not set: write such as `http://127.0.0.1:8081`, or remove `[kafka.registry]`",
        ),
        (
            "[kafka.registry]\nurl = \"reg:8081\"",
            "line 4: `kafka.registry.url` is `reg:8081`, must be a web address: write such as `http://127.0.0.1:8081`",
        ),
        (
            "[kafka.registry]\nurl = \"http://r\"\nusername = \"me\"",
            "line 3: `kafka.registry` has a `username`, but no `kafka.registry.password_file`: set both, or neither",
        ),
    ] {
        assert_eq!(wrong(text), told);
    }
    for (broker, told) in [
        ("kafka-1", "`kafka.brokers` has `kafka-1`, which is not a host and a port: write such as `kafka-1:9092`"),
        ("PLAINTEXT://a:1", "`kafka.brokers` has `PLAINTEXT://a:1`: write each as host and port, without a protocol"),
        ("a:1,b:1", "`kafka.brokers` has `a:1,b:1`: write each as host and port"),
        ("a:1\", \"a:1", "`kafka.brokers` has `a:1` twice: remove one"),
    ] {
        let found = problem(&format!("[kafka]\nbrokers = [\"{broker}\"]"));
        assert!(found.starts_with(&format!("line 2: {told}")), "{found}");
    }
}

#[test]
fn a_frame_must_fit_into_a_record_that_a_broker_takes() {
    let long = |format| {
        problem(&format!(
            "[feed]\nmax_frame_bytes = \"16 MiB\"\n[kafka]\nbrokers = [\"k:1\"]\nbuffer = \"1 GiB\"\nformat = {format:?}"
        ))
    };
    let told = long("json");
    assert!(told.starts_with("line 2: `feed.max_frame_bytes` is `16 MiB`, must be less with `[kafka]`"), "{told}");
    let avro = config(&with_feed("[feed]\nmax_frame_bytes = \"16 MiB\"\n[kafka]\nbrokers = [\"k:1\"]\nformat = \"avro\""));
    assert_eq!(avro.kafka.unwrap().max_record_bytes, (32 << 20) + (512 << 10));
}

#[test]
fn secrets_are_never_in_the_file_and_never_shown() {
    for text in [
        "password = \"c0ffee\"",
        "key_password = \"c0ffee\"",
        "[kafka.registry]\nurl = \"http://r\"\npassword = \"c0ffee\"",
        "[kafka.registry]\nurl = \"http://me:c0ffee@r\"",
        "[kafka.properties]\nsasl.password = \"c0ffee\"",
        "[kafka.properties]\n\"ssl.key.password\" = \"c0ffee\"",
        "[kafka.properties]\nssl.keystore.password = \"c0ffee\"",
        "[kafka.properties]\nsasl.oauthbearer.client.secret = \"c0ffee\"",
    ] {
        let told = wrong(text);
        assert!(!told.contains("c0ffee"), "{told}");
    }
    let login = "security = \"sasl_ssl\"\nusername = \"me\"\npassword_env = \"KEY_A\"\n\
                 [kafka.registry]\nurl = \"http://r/\"\nusername = \"me\"\npassword_env = \"KEY_B\"";
    let config = kafka(login);
    assert_eq!(config.sasl.as_ref().unwrap().password.reveal(), "key-a");
    assert_eq!(config.registry.as_ref().unwrap().url, "http://r");
    let shown = format!("{config:?}");
    assert!(!shown.contains("key-a") && !shown.contains("key-b"), "{shown}");
}

#[test]
fn files_in_pem_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (pem, key, der) = (file("ca.pem", PEM), file("key.pem", KEY), file("ca.der", "0\u{1}"));
    let encrypted = file("encrypted.pem", &KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    let tls = |text: &str| format!("security = \"ssl\"\n{text}");
    let pair = |certificate: &str, key: &str| tls(&format!("certificate_file = \"{certificate}\"\nkey_file = \"{key}\""));
    let config = kafka(&format!("{}\nca_file = \"{pem}\"", pair(&pem, &key))).tls.unwrap();
    assert_eq!(config.ca_file.unwrap().display().to_string(), pem);
    assert_eq!(config.identity.unwrap().key_password, None);
    assert!(wrong(&tls(&format!("ca_file = \"{der}\""))).contains("which holds no certificate in PEM"));
    assert!(wrong(&pair(&pem, &pem)).contains("which holds no private key in PEM"));
    assert!(wrong(&pair(&pem, &encrypted)).contains("which is encrypted: set `kafka.key_password_file`"));
    let identity = kafka(&format!("{}\nkey_password_env = \"KEY_A\"", pair(&pem, &encrypted))).tls.unwrap().identity.unwrap();
    assert_eq!(identity.key_password, Some(Secret::new("key-a")));
    assert!(wrong(&tls("key_password_env = \"KEY_A\"")).contains("no `kafka.key_file`"));
}

#[test]
fn properties_are_taken_in_both_ways_of_writing_and_those_that_would_break_something_are_refused_with_the_reason() {
    let given = kafka("[kafka.properties]\nsocket.timeout.ms = 30000\n\"client.rack\" = \"a\"\nsocket.keepalive.enable = true")
        .properties;
    let given: Vec<_> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(given, ["client.rack=a", "socket.keepalive.enable=true", "socket.timeout.ms=30000"]);
    for (property, told) in [
        ("acks = 1", "line 4: `kafka.properties.acks` must stay `all`: what only one broker has is lost with it; remove it"),
        (
            "enable.idempotence = false",
            "line 4: `kafka.properties.enable.idempotence` must stay true: else a lost answer doubles records",
        ),
        (
            "auto.offset.reset = \"earliest\"",
            "line 4: `kafka.properties.auto.offset.reset` must stay `error`: the chain in Bronze says where",
        ),
        ("transactional.id = \"x\"", "line 4: `kafka.properties.transactional.id` is not used: the chain in Bronze"),
        ("test.mock.num.brokers = 3", "line 4: `kafka.properties.test.mock.num.brokers` puts a broker in memory"),
        ("group.id = \"x\"", "line 4: `kafka.properties.group.id` is set by `kafka.group`: write it there"),
        (
            "sokcet.timeout.ms = 1",
            "line 4: `kafka.properties.sokcet.timeout.ms` is refused by librdkafka: No such configuration property",
        ),
        (
            "socket.timeout.ms = 1",
            "line 4: `kafka.properties.socket.timeout.ms` is refused by librdkafka: Configuration property \"socket.timeout.ms\" value 1 is outside allowed range",
        ),
        ("client.rack = [1]", "line 4: `kafka.properties.client.rack` must be a text, a number, true or false"),
    ] {
        let found = wrong(&format!("[kafka.properties]\n{property}"));
        assert!(found.starts_with(told), "{found}\nis not\n{told}");
    }
}

#[test]
fn roles_need_a_cluster_between_them_and_only_those_who_listen_need_keys() {
    assert_eq!(config(&with_feed("")).roles, Roles::ALL);
    let archive = "roles = [\"archive\"]\n[kafka]\nbrokers = [\"k:1\"]\n";
    let roles = config(archive).roles;
    assert_eq!(roles, Roles { feed: false, archive: true, refine: false, serve: false });
    assert_eq!((roles.to_string().as_str(), Roles::ALL.to_string().as_str()), ("archive", "feed, archive, refine, serve"));
    // One file for all daemons: what another of them needs is not asked for here.
    let keys = format!("{archive}[[feed.keys]]\nkey_env = \"ABSENT\"\nsymbols = [\"A\"]\n");
    assert_eq!(config(&keys).feed.shards.len(), 1);
    let login = "[kafka]\nbrokers = [\"k:1\"]\nsecurity = \"sasl_ssl\"\nusername = \"me\"\npassword_env = \"ABSENT\"\n";
    assert!(!config(&format!("roles = [\"serve\", \"refine\"]\n{login}")).roles.feed);
    assert_eq!(problems(&format!("roles = [\"archive\"]\n{login}")).len(), 1);
    let feed = problems("roles = [\"feed\"]\n[kafka]\nbrokers = [\"k:1\"]\n");
    assert!(feed[0].starts_with("`feed.keys` is empty"), "{feed:?}");

    assert_eq!(
        problem("roles = [\"feed\", \"serve\"]"),
        "line 1: `roles` is `feed`, `serve`, but there is no `[kafka]`: without it the spool is the log between `feed` and \
         `archive`, and one daemon does all; add `[kafka]`, or remove `roles` (with `warehouse.enabled = false` others refine)"
    );
    assert!(problem("roles = []").starts_with("line 1: `roles` is empty: name some of `feed`, `archive`, `refine`, `serve`"));
    assert!(problem("roles = [\"feed\", \"feed\"]").ends_with("`roles` has `feed` twice: remove one"));
    assert!(problem("roles = [\"cook\"]").ends_with("`roles` has `cook`, must be some of `feed`, `archive`, `refine`, `serve`"));
}

#[test]
fn who_only_looks_at_the_archive_needs_no_secrets_of_the_cluster_and_who_verifies_does() {
    let text = "[kafka]\nbrokers = [\"k:1\"]\nsecurity = \"sasl_ssl\"\nusername = \"me\"\npassword_env = \"ABSENT\"\nca_file = \"/nowhere\"\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tickmint.toml");
    std::fs::write(&path, text).unwrap();
    assert_eq!(Config::load_without_keys(&path).unwrap().kafka.unwrap().brokers, ["k:1"]);
    assert_eq!(Config::load(&path).unwrap_err().problems.len(), 3, "the password, the authority, the feed's keys");
    assert_eq!(Config::load_to_verify(&path).unwrap_err().problems.len(), 2, "the password, the authority");
    let password = dir.path().join("password");
    std::fs::write(&password, "c0ffee").unwrap();
    let login = format!("security = \"sasl_ssl\"\nusername = \"me\"\npassword_file = {password:?}\n");
    std::fs::write(&path, format!("roles = [\"serve\", \"refine\"]\n[kafka]\nbrokers = [\"k:1\"]\n{login}")).unwrap();
    let read = Config::load_to_verify(&path).unwrap().kafka.unwrap().sasl.unwrap();
    assert_eq!(read.password.reveal(), "c0ffee", "the cluster is audited whatever the daemon does");
}
