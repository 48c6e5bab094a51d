//! Configuration in two types: [`Settings`] as written in the file, [`Config`] as validated. What
//! reaches an actor cannot be wrong.
//!
//! Secrets come from files or the environment, never from the config itself, and are never printed.

mod check;
mod error;
mod file;
mod kafka;
pub mod settings;
mod units;
mod validate;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::shard::Shard;
use check::{Check, Env, Needs};
use file::Lines;

pub use error::{ConfigError, Problem};
pub use kafka::{
    Compression, KafkaConfig, KafkaSettings, Mechanism, RegistryConfig, RegistrySettings, SaslConfig, TlsConfig, TlsIdentity,
};
pub use settings::Settings;

pub use crate::wire::Format;

/// A secret: never printed, only used.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value, for the one who must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where spool, warehouse and Gold live, unless said otherwise.
    pub data_dir: PathBuf,
    /// How long an ordered stop may take in all before the process ends anyway.
    pub drain_within: Duration,
    /// What of all this the process does.
    pub roles: Roles,
    /// The web server.
    pub http: HttpConfig,
    /// The exchange's side.
    pub feed: FeedConfig,
    /// What counts as a trade.
    pub validation: ValidationConfig,
    /// The durable log.
    pub spool: SpoolConfig,
    /// The cluster between spool and archive; `None`: the spool is the log that is archived.
    pub kafka: Option<KafkaConfig>,
    /// The archive.
    pub bronze: BronzeConfig,
    /// Silver and Gold; `None` where another daemon refines.
    pub warehouse: Option<WarehouseConfig>,
    /// Logs, metrics, traces.
    pub telemetry: TelemetryConfig,
}

/// The config of a command that is told of none.
pub const DEFAULT_FILE: &str = "tickmint.toml";

impl Config {
    /// Reads, checks and completes the config of a daemon.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::read(path, Needs::Roles)
    }

    /// As [`Config::load`], for a command that looks at the archive or asks the daemon: `chain show`, `status`. The keys
    /// of the feed and the cluster's secrets need not be there, and are empty.
    pub fn load_without_keys(path: &Path) -> Result<Config, ConfigError> {
        Config::read(path, Needs::Nothing)
    }

    /// As [`Config::load`], for `verify`, which looks at the cluster, too. Only the keys of the feed need not be there.
    pub fn load_to_verify(path: &Path) -> Result<Config, ConfigError> {
        Config::read(path, Needs::Cluster)
    }

    /// Checks and completes settings that come from no file.
    pub fn from_settings(settings: &Settings) -> Result<Config, ConfigError> {
        check(settings, &Lines::new(), &environment, Needs::Roles, Vec::new())
    }

    /// What must hold of a store that is a folder, where several daemons archive to it: nothing of it shows here.
    pub fn shared_folder(&self) -> Option<String> {
        let is_shared = self.kafka.is_some() && self.roles.use_kafka();
        match &self.bronze.store {
            StoreConfig::Folder(folder) if is_shared => Some(format!(
                "`bronze.store` is the folder {}: all daemons of a cluster must see the same one, else each keeps an archive with \
                 holes; have it mounted on all of their machines, or write a bucket, `s3://bucket/prefix`",
                folder.display()
            )),
            StoreConfig::Folder(_) | StoreConfig::S3(_) => None,
        }
    }

    fn read(path: &Path, needs: Needs) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        parse(&text, &environment, needs).map_err(|error| error.in_file(path))
    }
}

/// From a file's text to a config.
fn parse(text: &str, env: Env<'_>, needs: Needs) -> Result<Config, ConfigError> {
    let parsed = file::parse(text);
    match parsed.settings {
        Some(settings) => check(&settings, &parsed.lines, env, needs, parsed.problems),
        None => Err(ConfigError::new(parsed.problems)),
    }
}

fn check(settings: &Settings, lines: &Lines, env: Env<'_>, needs: Needs, problems: Vec<Problem>) -> Result<Config, ConfigError> {
    let of_reading = problems.len();
    let mut check = Check { lines, env, needs, problems, of_reading };
    let config = check.config(settings);
    if check.problems.is_empty() { Ok(config) } else { Err(ConfigError::new(check.problems)) }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What one process does of what there is to do. Without a cluster, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Listens to the exchange, keeps the spool and sends it on.
    pub feed: bool,
    /// Writes Bronze.
    pub archive: bool,
    /// Makes Silver and Gold, if `warehouse` says so.
    pub refine: bool,
    /// Shows Gold: the page and the API.
    pub serve: bool,
}

impl Roles {
    /// All of it.
    pub const ALL: Roles = Roles { feed: true, archive: true, refine: true, serve: true };
    const NONE: Roles = Roles { feed: false, archive: false, refine: false, serve: false };
    /// As they are written.
    const NAMES: [&str; 4] = ["feed", "archive", "refine", "serve"];

    /// Whether it sends to Kafka or reads from there. Who does neither knows the archive only.
    pub fn use_kafka(self) -> bool {
        self.feed || self.archive
    }

    /// Where what cannot go on waits, for messages.
    pub fn meanwhile(self) -> &'static str {
        if self.feed { "trades wait in the spool" } else { "records wait in Kafka, until `kafka.retention` is over" }
    }

    fn flags(self) -> [bool; 4] {
        [self.feed, self.archive, self.refine, self.serve]
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "feed" => &mut self.feed,
            "archive" => &mut self.archive,
            "refine" => &mut self.refine,
            "serve" => &mut self.serve,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = Roles::NAMES.into_iter().zip(self.flags()).filter(|(_, is_set)| *is_set).map(|(name, _)| name);
        f.write_str(&names.collect::<Vec<_>>().join(", "))
    }
}

/// The web server.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The bearer token that every request must carry; required where `listen` is not the loopback.
    pub token: Option<Secret>,
}

/// Where trades come from.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// `wss://ws.finnhub.io` or an exchange of our own.
    pub url: String,
    /// One connection each: a key and its symbols.
    pub shards: Vec<(Shard, Secret)>,
    /// No message for this long: the connection is dead. Finnhub pings once a minute.
    pub watchdog: Duration,
    /// First wait before a reconnect; doubles up to `reconnect_max`, with jitter.
    pub reconnect_min: Duration,
    /// Longest wait before a reconnect.
    pub reconnect_max: Duration,
    /// A symbol without a trade for this long is reported stale.
    pub stale_after: Duration,
    /// Frames longer than this many bytes are quarantined.
    pub max_frame_bytes: usize,
}

/// What counts as a trade.
#[derive(Clone, Debug)]
pub struct ValidationConfig {
    /// An event time further in the past of its receipt is suspect; `None` for recorded days.
    pub max_age: Option<Duration>,
    /// An event time further in the future of its receipt is suspect.
    pub max_ahead: Option<Duration>,
}

/// The durable log.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Its folder.
    pub dir: PathBuf,
    /// All logs together may hold this much.
    pub max_bytes: u64,
    /// Kept free below `max_bytes` for gaps and ends.
    pub reserve_bytes: u64,
    /// A segment is closed at this size.
    pub segment_bytes: u64,
    /// The least mean time between the starts of two fsyncs; see [`crate::spool::pace`].
    pub group: Duration,
}

/// The archive.
#[derive(Clone, Debug)]
pub struct BronzeConfig {
    /// Where the objects go.
    pub store: StoreConfig,
    /// An object is closed at this many bytes of records.
    pub flush_bytes: usize,
    /// An object is closed this long after its first record.
    pub flush_after: Duration,
    /// All open buffers together.
    pub memory: usize,
    /// The level of zstd for raw objects and Parquet.
    pub zstd_level: i32,
}

/// Where the objects go.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket.
    S3(S3Config),
}

/// A bucket of S3 or of a server that speaks it.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Its name.
    pub bucket: String,
    /// Put before every key; empty or with a slash at the end.
    pub prefix: String,
    /// Another server than AWS.
    pub endpoint: Option<String>,
    /// The region to sign for.
    pub region: Option<String>,
    /// `endpoint/bucket/key` and not `bucket.endpoint/key`.
    pub path_style: bool,
    /// Credentials from the config; otherwise the SDK's chain (environment, profile, role) gives them.
    pub credentials: Option<(String, Secret)>,
    /// One attempt of one request, beside the time that its body has.
    pub attempt_timeout: Duration,
}

/// Silver and Gold on this machine.
#[derive(Clone, Debug)]
pub struct WarehouseConfig {
    /// The DuckDB file.
    pub database: PathBuf,
    /// Where Gold is published as Parquet.
    pub gold_dir: PathBuf,
    /// The dbt project.
    pub project_dir: PathBuf,
    /// The Python that has dbt; `None`: made on first use from the pinned requirements.
    pub python: Option<PathBuf>,
    /// The least time between two runs.
    pub every: Duration,
    /// A run that has not worked for so long is taken for hung, and its process killed.
    pub run_timeout: Duration,
    /// The table of sale conditions: `cts_utp` or `lean`.
    pub sale_conditions: String,
    /// The user's file of fills, which the refiner reads whenever it has changed.
    pub positions: Option<PathBuf>,
}

/// Logs, metrics, traces.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// A filter as `info` or `tickmint=debug,info`.
    pub log: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// `http://host:4318`: where traces go; none by default.
    pub otlp_endpoint: Option<String>,
    /// The share of frames that are traced, 0 to 1.
    pub sample: f64,
}

#[cfg(test)]
mod tests;
