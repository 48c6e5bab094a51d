//! The config as it is written in the file. Each option has a default, so that a file holds only
//! what is special; [`super::Config`] is what comes of it.
//!
//! `config/example.toml` shows them all; a test keeps it complete.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::Roles;
use super::kafka::KafkaSettings;

/// A duration or a size, as text; it is read later, so that all errors can be told at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl From<&str> for Quantity {
    fn from(text: &str) -> Quantity {
        Quantity(text.into())
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bare number is taken too, so that the error can say which unit to add.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text such as \"150s\" or \"64 MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder of everything that Tickmint keeps: `data`, in the working directory.
    pub data_dir: PathBuf,
    /// How long an ordered stop may take in all: `60s`.
    pub drain_within: Quantity,
    /// What of all this the process does: `["feed", "archive", "refine", "serve"]`.
    pub roles: Vec<String>,
    /// `[http]`
    pub http: HttpSettings,
    /// `[feed]`
    pub feed: FeedSettings,
    /// `[validation]`
    pub validation: ValidationSettings,
    /// `[spool]`
    pub spool: SpoolSettings,
    /// `[kafka]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSettings>,
    /// `[bronze]`
    pub bronze: BronzeSettings,
    /// `[warehouse]`
    pub warehouse: WarehouseSettings,
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data_dir: "data".into(),
            drain_within: "60s".into(),
            roles: Roles::NAMES.map(String::from).into(),
            http: HttpSettings::default(),
            feed: FeedSettings::default(),
            validation: ValidationSettings::default(),
            spool: SpoolSettings::default(),
            kafka: None,
            bronze: BronzeSettings::default(),
            warehouse: WarehouseSettings::default(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

/// The web server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port: `127.0.0.1:8080`. Anything but the loopback needs a token.
    pub listen: String,
    /// A file that holds the token which requests must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings { listen: "127.0.0.1:8080".into(), token_file: None, token_env: None }
    }
}

/// Where trades come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedSettings {
    /// The server: `wss://ws.finnhub.io`.
    pub url: String,
    /// No message for this long means that the connection is dead: `150s`.
    pub watchdog: Quantity,
    /// The first wait before a reconnect: `1s`.
    pub reconnect_min: Quantity,
    /// The longest wait before a reconnect: `60s`.
    pub reconnect_max: Quantity,
    /// A symbol without a trade for this long is reported: `5m`.
    pub stale_after: Quantity,
    /// A longer message is quarantined: `1 MiB`.
    pub max_frame_bytes: Quantity,
    /// What the plan allows to subscribe to with one key: `50`.
    pub symbols_per_key: usize,
    /// `[[feed.keys]]`: one connection each.
    pub keys: Vec<KeySettings>,
}

impl Default for FeedSettings {
    fn default() -> FeedSettings {
        FeedSettings {
            url: "wss://ws.finnhub.io".into(),
            watchdog: "150s".into(),
            reconnect_min: "1s".into(),
            reconnect_max: "60s".into(),
            stale_after: "5m".into(),
            max_frame_bytes: "1 MiB".into(),
            symbols_per_key: 50,
            keys: Vec::new(),
        }
    }
}

/// A key of the feed and what it subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeySettings {
    /// A file that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The environment variable that holds it: `FINNHUB_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// What to stream: `["AAPL", "BINANCE:BTCUSDT"]`.
    pub symbols: Vec<String>,
}

/// What counts as a trade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationSettings {
    /// A trade older than this on receipt is flagged: `24h`, or `none`.
    pub max_age: Quantity,
    /// A trade this far in the future on receipt is flagged: `5m`, or `none`.
    pub max_ahead: Quantity,
}

impl Default for ValidationSettings {
    fn default() -> ValidationSettings {
        ValidationSettings { max_age: "24h".into(), max_ahead: "5m".into() }
    }
}

/// The durable log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSettings {
    /// Its folder: `spool`, inside `data_dir` unless absolute.
    pub dir: PathBuf,
    /// The most it may take of the disk: `8 GiB`.
    pub max_bytes: Quantity,
    /// The part of it that is kept free for gaps and ends: `64 MiB`.
    pub reserve_bytes: Quantity,
    /// The size of its files: `64 MiB`.
    pub segment_bytes: Quantity,
    /// The mean time between two fsyncs under load: `5ms`.
    pub group: Quantity,
}

impl Default for SpoolSettings {
    fn default() -> SpoolSettings {
        SpoolSettings {
            dir: "spool".into(),
            max_bytes: "8 GiB".into(),
            reserve_bytes: "64 MiB".into(),
            segment_bytes: "64 MiB".into(),
            group: "5ms".into(),
        }
    }
}

/// The archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BronzeSettings {
    /// `s3://bucket/prefix`, or a folder: `lake`, inside `data_dir` unless absolute.
    pub store: String,
    /// An object is closed at this many bytes of records: `32 MiB`.
    pub flush_bytes: Quantity,
    /// An object is closed this long after its first record: `5s`.
    pub flush_after: Quantity,
    /// All open objects together: `64 MiB`.
    pub memory: Quantity,
    /// The level of compression, 1 to 19: `1`.
    pub zstd_level: i32,
    /// `[bronze.s3]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Settings>,
}

impl Default for BronzeSettings {
    fn default() -> BronzeSettings {
        BronzeSettings {
            store: "lake".into(),
            flush_bytes: "32 MiB".into(),
            flush_after: "5s".into(),
            memory: "64 MiB".into(),
            zstd_level: 1,
            s3: None,
        }
    }
}

/// How a bucket is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Settings {
    /// Another server than AWS: `http://127.0.0.1:9000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region: `us-east-1`. By default what the environment or the profile says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `endpoint/bucket/key` and not `bucket.endpoint/key`. By default where there is an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// A file that holds the access key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_env: Option<String>,
    /// A file that holds the secret key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_env: Option<String>,
    /// One attempt of one request: `10s`. Each 128 KiB of its body have a second more.
    pub attempt_timeout: Quantity,
}

impl Default for S3Settings {
    fn default() -> S3Settings {
        S3Settings {
            endpoint: None,
            region: None,
            path_style: None,
            access_key_file: None,
            access_key_env: None,
            secret_key_file: None,
            secret_key_env: None,
            attempt_timeout: "10s".into(),
        }
    }
}

/// Silver and Gold on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarehouseSettings {
    /// `false` where something else refines Bronze.
    pub enabled: bool,
    /// The DuckDB file: `warehouse.duckdb`, inside `data_dir` unless absolute.
    pub database: PathBuf,
    /// Where Gold is published as Parquet: `gold`, inside `data_dir` unless absolute.
    pub gold_dir: PathBuf,
    /// The dbt project: `dbt`.
    pub project_dir: PathBuf,
    /// The Python that has dbt. By default one is made on first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<PathBuf>,
    /// The least time between two runs: `5s`.
    pub every: Quantity,
    /// A run that has not worked for so long is taken for hung: `5m`.
    pub run_timeout: Quantity,
    /// Which trades may move a bar: `cts_utp` or `lean`.
    pub sale_conditions: String,
    /// A CSV file of what you bought and sold, for the table `portfolio`. By default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<PathBuf>,
}

impl Default for WarehouseSettings {
    fn default() -> WarehouseSettings {
        WarehouseSettings {
            enabled: true,
            database: "warehouse.duckdb".into(),
            gold_dir: "gold".into(),
            project_dir: "dbt".into(),
            python: None,
            every: "5s".into(),
            run_timeout: "5m".into(),
            sale_conditions: "cts_utp".into(),
            positions: None,
        }
    }
}

/// Logs and traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// A filter: `info`, or `tickmint=debug,info`.
    pub log: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// Where traces go: `http://127.0.0.1:4318`. By default nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// The share of frames that are traced, 0 to 1: `0.01`.
    pub sample: f64,
}

impl Default for TelemetrySettings {
    fn default() -> TelemetrySettings {
        TelemetrySettings { log: "info".into(), json: false, otlp_endpoint: None, sample: 0.01 }
    }
}

impl Settings {
    /// Settings in which nothing is absent: by it the options are known by name.
    pub(super) fn complete() -> Settings {
        let (file, env) = (Some(PathBuf::new()), Some(String::new()));
        let mut all = Settings::default();
        (all.http.token_file, all.http.token_env) = (file.clone(), env.clone());
        all.feed.keys = vec![KeySettings { key_file: file.clone(), key_env: env.clone(), symbols: Vec::new() }];
        all.kafka = Some(KafkaSettings::complete());
        all.bronze.s3 = Some(S3Settings {
            endpoint: env.clone(),
            region: env.clone(),
            path_style: Some(true),
            access_key_file: file.clone(),
            access_key_env: env.clone(),
            secret_key_file: file.clone(),
            secret_key_env: env.clone(),
            attempt_timeout: S3Settings::default().attempt_timeout,
        });
        (all.warehouse.python, all.warehouse.positions) = (file.clone(), file);
        all.telemetry.otlp_endpoint = env;
        all
    }
}
