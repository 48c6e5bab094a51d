use std::collections::BTreeMap;

use super::*;

const EXAMPLE: &str = include_str!("../../config/example.toml");

/// What stands in the environment of these tests.
fn env(name: &str) -> Option<String> {
    match name {
        "KEY_A" | "FINNHUB_KEY" => Some("key-a\n".into()),
        "KEY_B" => Some("key-b".into()),
        "KAFKA_API_SECRET" => Some("kafka-secret".into()),
        "REGISTRY_API_SECRET" => Some("registry-secret".into()),
        "MSK_PASSWORD" => Some("msk-secret".into()),
        "LAKE_ACCESS_KEY" | "LAKE_SECRET_KEY" => Some("lake".into()),
        "EMPTY" => Some(" ".into()),
        _ => None,
    }
}

pub(super) fn config(text: &str) -> Config {
    parse(text, &env, Needs::Roles).unwrap()
}

pub(super) fn problems(text: &str) -> Vec<String> {
    parse(text, &env, Needs::Roles).unwrap_err().problems.iter().map(ToString::to_string).collect()
}

/// A feed that is all right, below whatever is to be tested.
pub(super) fn with_feed(text: &str) -> String {
    format!("{text}\n[[feed.keys]]\nkey_env = \"KEY_A\"\nsymbols = [\"AAPL\"]\n")
}

pub(super) fn problem(text: &str) -> String {
    let problems = problems(&with_feed(text));
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.concat()
}

/// The options of a table by their path; those of `[[feed.keys]]` without its number.
fn options(table: &toml::Table, path: &str, out: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(table) => options(table, &path, out),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().filter_map(toml::Value::as_table).for_each(|table| options(table, &path, out));
            }
            _ => drop(out.insert(path, value.clone())),
        }
    }
}

fn options_of(settings: &impl serde::Serialize) -> BTreeMap<String, toml::Value> {
    let mut out = BTreeMap::new();
    options(&toml::Table::try_from(settings).unwrap(), "", &mut out);
    out
}

#[test]
fn the_example_is_a_config() {
    let config = config(EXAMPLE);
    assert_eq!(config.feed.shards.len(), 1);
    assert_eq!(config.feed.shards[0].1.reveal(), "key-a");
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.spool.dir, here.join("data/spool"));
    assert!(matches!(config.bronze.store, StoreConfig::Folder(dir) if dir == here.join("data/lake")));
    let warehouse = config.warehouse.unwrap();
    assert_eq!((warehouse.gold_dir, warehouse.project_dir), (here.join("data/gold"), here.join("dbt")));
    assert_eq!(config.feed.watchdog, Duration::from_secs(150));
    assert_eq!(config.http.token, None);
}

#[test]
fn the_example_shows_each_option_with_its_default() {
    let shown = options_of(&EXAMPLE.parse::<toml::Table>().unwrap());
    let mut defaults = options_of(&Settings::default());
    // There is no default for which key and which symbols.
    for option in ["feed.keys", "feed.keys.key_env", "feed.keys.symbols"] {
        defaults.remove(option);
    }
    for (option, default) in &defaults {
        assert_eq!(shown.get(option), Some(default), "`{option}`");
    }

    // An option without a default is commented out, without a space, so that it can be told from prose.
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let all: String = EXAMPLE.lines().map(uncomment).collect();
    let mut shown = options_of(&all.parse::<toml::Table>().unwrap());
    let properties: Vec<_> = shown.keys().filter(|option| option.starts_with("kafka.properties.")).cloned().collect();
    assert!(!properties.is_empty(), "those of librdkafka are not ours to list, but some are shown");
    properties.iter().for_each(|option| drop(shown.remove(option)));
    let known = options_of(&Settings::complete());
    let names = |options: &BTreeMap<String, toml::Value>| options.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&shown), names(&known));
    let parsed = file::parse(&all);
    assert_eq!(parsed.problems, []);
    // Of sections that need not be there.
    let mut optional = Settings::default();
    let kafka = KafkaSettings { registry: Some(RegistrySettings::default()), ..KafkaSettings::default() };
    (optional.kafka, optional.bronze.s3) = (Some(kafka), Some(settings::S3Settings::default()));
    let mut defaults = options_of(&optional);
    // There is no default for where a cluster is.
    for option in ["feed.keys", "kafka.brokers", "kafka.registry.url"] {
        defaults.remove(option);
    }
    for (option, default) in &defaults {
        assert_eq!(shown.get(option), Some(default), "`{option}`");
    }
}

#[test]
fn the_examples_of_clusters_are_configs() {
    let cloud = config(include_str!("../../config/confluent-cloud.toml")).kafka.unwrap();
    let sasl = cloud.sasl.unwrap();
    assert_eq!((sasl.mechanism, sasl.password.reveal()), (Mechanism::Plain, "kafka-secret"));
    assert_eq!(cloud.tls, Some(TlsConfig::default()));
    assert_eq!(cloud.registry.unwrap().login.unwrap().1.reveal(), "registry-secret");
    assert!(cloud.max_record_bytes <= 8 << 20, "more, a shared cluster does not take: {}", cloud.max_record_bytes);
    assert_eq!(cloud.properties["socket.keepalive.enable"], "true");

    let msk = config(include_str!("../../config/msk.toml")).kafka.unwrap();
    let sasl = msk.sasl.unwrap();
    assert_eq!((sasl.mechanism, sasl.password.reveal()), (Mechanism::ScramSha512, "msk-secret"));
    assert_eq!((msk.brokers.len(), msk.registry), (3, None));
    assert!(msk.brokers.iter().all(|broker| broker.ends_with(":9096")));

    let local = config(include_str!("../../config/local-cluster.toml")).kafka.unwrap();
    assert_eq!(local.brokers, ["127.0.0.1:19091", "127.0.0.1:19092", "127.0.0.1:19093"], "the base port of scripts/cluster");
    assert_eq!(local.registry.unwrap().url, "http://127.0.0.1:19101/apis/ccompat/v7");
}

#[test]
fn each_option_of_the_example_has_a_sentence_above_it() {
    let mut commented = false;
    for line in EXAMPLE.lines() {
        match line {
            "" => commented = false,
            line if line.starts_with("# ") => commented = true,
            line => assert!(commented, "`{line}` has no comment above it"),
        }
    }
}

#[test]
fn a_value_that_does_not_go_with_another_is_told_with_both_and_the_cure() {
    assert_eq!(
        problem("[spool]\nmax_bytes = \"1 GiB\"\n\nreserve_bytes = \"2 GiB\""),
        "line 4: `spool.reserve_bytes` is `2 GiB`, must be below `spool.max_bytes` (1 GiB): lower it or raise the other"
    );
    assert_eq!(
        problem("[feed]\nreconnect_min = \"2m\""),
        "line 2: `feed.reconnect_min` is `2m`, must be at most `feed.reconnect_max` (60s): lower it or raise the other"
    );
    assert_eq!(
        problem("[bronze]\nmemory = \"16 MiB\""),
        "`bronze.flush_bytes` is `32 MiB`, must be at most `bronze.memory` (16 MiB): lower it or raise the other"
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = "drain_within = 60\n[http]\nlisten = \"localhost:80\"\n[spool]\nmax_bytes = \"lots\"\nfoo = 1\n\
                [bronze]\nstore = \"gs://x\"\nzstd_level = 99\n[warehouse]\nsale_conditions = \"mine\"\n\
                [telemetry]\nsample = 2.0\nlog = \"a=b=c\"\notlp_endpoint = \"host:4318\"\njson = 1\n[feed]\nurl = \"https://x\"\n";
    let problems = problems(&with_feed(text));
    let starts = [
        "line 1: `drain_within` is `60`, which lacks a unit: write `60s`",
        "line 3: `http.listen` is `localhost:80`, must be an address and a port",
        "line 5: `spool.max_bytes` is `lots`, which is not a size",
        "line 6: there is no option `spool.foo`",
        "line 8: `bronze.store` is `gs://x`, must be a folder or a bucket",
        "line 9: `bronze.zstd_level` is `99`, must be from 1",
        "line 11: `warehouse.sale_conditions` is `mine`, must be one of `cts_utp`, `lean`",
        "line 13: `telemetry.sample` is `2`, must be a share",
        "line 14: `telemetry.log` is `a=b=c`, which is no filter",
        "line 15: `telemetry.otlp_endpoint` is `host:4318`, must be a web address",
        "line 16: `telemetry.json` is `1`, must be true or false without quotes",
        "line 18: `feed.url` is `https://x`, must be a WebSocket's address",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}\nis not\n{start}");
    }
}

#[test]
fn only_the_loopback_goes_without_a_token() {
    for listen in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:1"] {
        config(&with_feed(&format!("[http]\nlisten = \"{listen}\"")));
    }
    for listen in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1"] {
        let problem = problem(&format!("[http]\nlisten = \"{listen}\""));
        assert!(problem.contains("set `http.token_file` or `http.token_env`"), "{problem}");
    }
    let guarded = config(&with_feed("[http]\nlisten = \"0.0.0.0:1\"\ntoken_env = \"KEY_B\""));
    assert_eq!(guarded.http.token, Some(Secret::new("key-b")));
}

#[test]
fn secrets_come_from_files_and_the_environment_and_say_so_when_they_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "from-a-file\n").unwrap();
    let config = config(&with_feed(&format!("[http]\ntoken_file = \"{}\"", file.display())));
    assert_eq!(config.http.token.unwrap().reveal(), "from-a-file");

    let told = |option: &str| problem(&format!("[http]\n{option}"));
    assert!(told("token_env = \"ABSENT\"").contains("`http.token_env` is `ABSENT`, which is not set"));
    assert!(told("token_env = \"EMPTY\"").contains("`http.token_env` is `EMPTY`, which is empty"));
    assert!(told("token_file = \"/nowhere/x\"").contains("`http.token_file` is `/nowhere/x`, which cannot be read"));
    assert!(told("token_file = \"/nowhere/x\"\ntoken_env = \"KEY_A\"").contains("`token_env` too: remove one"));
    let shy = told("token_env = \"c0ffee\"");
    assert!(shy.contains("may be the secret itself") && !shy.contains("c0ffee"), "{shy}");
    let url = told("[feed]\nurl = \"wss://ws.finnhub.io?token=c0ffee\"");
    assert!(url.contains("carries a token") && !url.contains("c0ffee"), "{url}");
}

#[test]
fn a_config_never_prints_a_secret() {
    let config = config(&with_feed("[http]\ntoken_env = \"KEY_B\""));
    let shown = format!("{config:?}");
    assert!(!shown.contains("key-a") && !shown.contains("key-b"), "{shown}");
}

#[test]
fn each_key_makes_a_shard_with_its_symbols_sorted() {
    let text = "[[feed.keys]]\nkey_env = \"KEY_A\"\nsymbols = [\"MSFT\", \"AAPL\"]\n[[feed.keys]]\nkey_env = \"KEY_B\"\nsymbols = [\"TSLA\"]\n";
    let shards = config(text).feed.shards;
    let names: Vec<_> = shards.iter().map(|(shard, _)| (shard.name.as_str(), shard.symbols.join(" "))).collect();
    assert_eq!(names, [("shard-1", "AAPL MSFT".to_string()), ("shard-2", "TSLA".to_string())]);
}

#[test]
fn a_feed_that_would_double_or_lose_trades_is_refused() {
    let text = "[[feed.keys]]\nkey_env = \"KEY_A\"\nsymbols = [\"AAPL\", \"AAPL\", \"a b\"]\n\
                [[feed.keys]]\nkey_env = \"KEY_A\"\nsymbols = [\"AAPL\"]\n[[feed.keys]]\n";
    let found = problems(text);
    let parts = [
        "line 3: `symbols` of `[[feed.keys]]` no. 1 has `AAPL` twice",
        "line 3: `symbols` of `[[feed.keys]]` no. 1 has `a b`, which no exchange lists",
        "line 6: `symbols` of `[[feed.keys]]` no. 2 has `AAPL`, as has no. 1",
        "`symbols` of `[[feed.keys]]` no. 3 is empty",
        "`[[feed.keys]]` no. 3 has no key: set `key_file` or `key_env`",
        "the key of `[[feed.keys]]` no. 2 is that of no. 1",
    ];
    for part in parts {
        assert!(found.iter().any(|problem| problem.starts_with(part)), "{part}\nis not in\n{found:#?}");
    }
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    assert!(problems("")[0].starts_with("`feed.keys` is empty: add a `[[feed.keys]]`"));
    let many: Vec<_> = (0..51).map(|n| format!("S{n}")).collect();
    let found = problems(&format!("[[feed.keys]]\nkey_env = \"KEY_A\"\nsymbols = {many:?}\n"));
    assert!(found[0].contains("has 51 symbols, must be at most `feed.symbols_per_key` (50)"), "{found:?}");
}

#[test]
fn a_reader_of_data_needs_no_keys() {
    let text = "[[feed.keys]]\nkey_env = \"ABSENT\"\nsymbols = [\"AAPL\"]\n";
    assert!(parse(text, &env, Needs::Roles).is_err());
    for needs in [Needs::Nothing, Needs::Cluster] {
        assert_eq!(parse(text, &env, needs).unwrap().feed.shards[0].1.reveal(), "");
        parse("", &env, needs).unwrap();
    }
}

#[test]
fn a_bucket_is_taken_apart() {
    let s3 = |text: &str| match config(&with_feed(text)).bronze.store {
        StoreConfig::S3(s3) => s3,
        StoreConfig::Folder(dir) => panic!("{dir:?}"),
    };
    let aws = s3("[bronze]\nstore = \"s3://bucket\"");
    assert_eq!((aws.bucket.as_str(), aws.prefix.as_str(), aws.path_style), ("bucket", "", false));
    assert_eq!((aws.endpoint, aws.credentials), (None, None));
    let minio = s3("[bronze]\nstore = \"s3://bucket/a/b/\"\n[bronze.s3]\nendpoint = \"http://127.0.0.1:9000\"\n\
                    access_key_env = \"KEY_A\"\nsecret_key_env = \"KEY_B\"");
    assert_eq!((minio.prefix.as_str(), minio.path_style), ("a/b/", true));
    assert_eq!(minio.credentials, Some(("key-a".into(), Secret::new("key-b"))));

    assert!(problem("[bronze]\nstore = \"s3:///x\"").contains("names no bucket"));
    assert!(problem("[bronze.s3]\nregion = \"x\"").contains("but `bronze.store` is the folder `lake`"));
    let half = problem("[bronze]\nstore = \"s3://bucket\"\n[bronze.s3]\naccess_key_env = \"KEY_A\"");
    assert!(half.contains("has the `access_key` but not the `secret_key`"), "{half}");
}

#[test]
fn absolute_folders_stay_where_they_are_and_ages_can_be_switched_off() {
    let config = config(&with_feed(
        "data_dir = \"/d\"\n[spool]\ndir = \"/fast/spool\"\n[warehouse]\nenabled = false\n[validation]\nmax_age = \"none\"",
    ));
    assert_eq!(config.spool.dir, PathBuf::from("/fast/spool"));
    assert!(config.warehouse.is_none());
    assert_eq!((config.validation.max_age, config.validation.max_ahead), (None, Some(Duration::from_secs(300))));
}

#[test]
fn an_error_names_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tickmint.toml");
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("config {}: cannot be read", path.display())), "{error}");
    std::fs::write(&path, "x = 1\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("has 2 problems:\n  line 1: there is no option `x`"), "{error}");
}

#[test]
fn settings_can_be_made_by_a_program() {
    let settings = Settings::default();
    assert_eq!(Config::from_settings(&settings).unwrap_err().problems.len(), 1, "only the keys are absent");
}

#[test]
fn a_folder_must_be_seen_by_all_daemons_of_a_cluster() {
    let of = |roles: &str, cluster: &str, store: &str| {
        let text = format!("roles = {roles}\n{cluster}[bronze]\nstore = \"{store}\"\n");
        parse(&text, &env, Needs::Nothing).unwrap().shared_folder()
    };
    let (archive, all, cluster) = ("[\"archive\"]", "[\"feed\", \"archive\"]", "[kafka]\nbrokers = [\"k:1\"]\n");
    let told = of(archive, cluster, "/srv/lake").unwrap();
    assert!(told.contains("`bronze.store` is the folder /srv/lake") && told.contains("`s3://bucket/prefix`"), "{told}");
    assert!(of(all, cluster, "/srv/lake").is_some());
    assert_eq!(of(archive, cluster, "s3://bucket/lake"), None);
    assert_eq!(of("[\"serve\"]", cluster, "/srv/lake"), None, "it writes nothing there");
}
