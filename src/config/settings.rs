//! The config as written in the file: TOML, every option with its default. Unknown options are
//! refused. [`super::Config`] is made of it by [`super::validate`].

use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where spool, warehouse and Gold live, unless said otherwise.
    pub data_dir: Option<String>,
    /// How long an ordered stop may take in all.
    pub drain_within: Option<String>,
    /// The web server.
    pub http: Http,
    /// The exchange's side.
    pub feed: Feed,
    /// What counts as a trade.
    pub validation: Validation,
    /// The durable log.
    pub spool: Spool,
    /// The archive.
    pub bronze: Bronze,
    /// Silver and Gold.
    pub warehouse: Warehouse,
    /// Logs and traces.
    pub telemetry: Telemetry,
}

/// `[http]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `127.0.0.1:8080`
    pub listen: Option<String>,
    /// A file with the token that every request must carry.
    pub token_file: Option<String>,
    /// A variable with it.
    pub token_env: Option<String>,
}

/// `[feed]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feed {
    /// `wss://ws.finnhub.io`
    pub url: Option<String>,
    /// `[[feed.keys]]`: one connection each.
    pub keys: Vec<Key>,
    /// No message for this long: the connection is dead.
    pub watchdog: Option<String>,
    /// First wait before a reconnect.
    pub reconnect_min: Option<String>,
    /// Longest wait before a reconnect.
    pub reconnect_max: Option<String>,
    /// A symbol without a trade for this long is stale.
    pub stale_after: Option<String>,
    /// Longer frames are quarantined.
    pub max_frame_bytes: Option<String>,
}

/// `[[feed.keys]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Key {
    /// A file with the key.
    pub key_file: Option<String>,
    /// A variable with it.
    pub key_env: Option<String>,
    /// Refused: a secret does not belong into a config.
    pub key: Option<String>,
    /// Its symbols, at most 50.
    pub symbols: Vec<String>,
}

/// `[validation]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// An older event is suspect; `none` for recorded days.
    pub max_age: Option<String>,
    /// An event further in the future is suspect.
    pub max_ahead: Option<String>,
}

/// `[spool]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Its folder; `spool` in the data folder.
    pub dir: Option<String>,
    /// All logs together.
    pub max_bytes: Option<String>,
    /// Kept for gaps and ends.
    pub reserve_bytes: Option<String>,
    /// A segment is closed at this size.
    pub segment_bytes: Option<String>,
    /// The least time between the starts of two fsyncs.
    pub group: Option<String>,
}

/// `[bronze]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bronze {
    /// A folder, or `s3://bucket/prefix`; `bronze` in the data folder.
    pub store: Option<String>,
    /// `[bronze.s3]`
    pub s3: S3,
    /// An object is closed at this many bytes of records.
    pub flush_bytes: Option<String>,
    /// An object is closed this long after its first record.
    pub flush_after: Option<String>,
    /// All open buffers together.
    pub memory: Option<String>,
    /// 1 (fast) to 19.
    pub zstd_level: Option<i32>,
}

/// `[bronze.s3]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Another server than AWS.
    pub endpoint: Option<String>,
    /// The region to sign for.
    pub region: Option<String>,
    /// `endpoint/bucket/key` and not `bucket.endpoint/key`.
    pub path_style: Option<bool>,
    /// Variables with the credentials; without them the SDK's chain gives them.
    pub access_key_env: Option<String>,
    /// See `access_key_env`.
    pub secret_key_env: Option<String>,
    /// One attempt of one request.
    pub attempt_timeout: Option<String>,
}

/// `[warehouse]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Warehouse {
    /// `false` where another daemon refines.
    pub enabled: Option<bool>,
    /// The DuckDB file; `warehouse.duckdb` in the data folder.
    pub database: Option<String>,
    /// Where Gold is published; `gold` in the data folder.
    pub gold_dir: Option<String>,
    /// The dbt project.
    pub project_dir: Option<String>,
    /// A Python that has the pinned packages.
    pub python: Option<String>,
    /// The least time between two runs.
    pub every: Option<String>,
    /// A run that takes longer is taken for hung.
    pub run_timeout: Option<String>,
    /// `cts_utp` or `lean`.
    pub sale_conditions: Option<String>,
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// A filter as `info` or `tickmint=debug,info`.
    pub log: Option<String>,
    /// `text` or `json`.
    pub format: Option<String>,
    /// `http://host:4318`: where traces go.
    pub otlp_endpoint: Option<String>,
    /// The share of frames that are traced, 0 to 1.
    pub sample: Option<f64>,
}
