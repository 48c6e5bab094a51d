//! Settings to [`Config`]. All that is wrong is said at once; each error names the option, the
//! value and the cure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::settings::{Key, Settings};
use super::units;
use super::{
    BronzeConfig, Config, FeedConfig, HttpConfig, S3Config, Secret, SpoolConfig, StoreConfig, TelemetryConfig, ValidationConfig,
    WarehouseConfig,
};
use crate::messages::feed::Shard;

/// About so many symbols does the feed allow a key (51 were accepted, the 52nd refused).
const SYMBOLS_A_KEY: usize = 50;

/// The config is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the config {0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// It is not TOML, or has an option that does not exist.
    #[error("the config {0}: {1}")]
    Syntax(String, String),
    /// Options that are wrong, one text each.
    #[error("{}", .0.join("\n"))]
    Options(Vec<String>),
}

impl Config {
    /// Reads a config. Relative paths in it are relative to where the process runs.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File(name.clone(), error))?;
        let settings = toml::from_str(&text).map_err(|error| ConfigError::Syntax(name, error.to_string()))?;
        Config::from_settings(&settings)
    }

    /// Validates settings.
    pub fn from_settings(settings: &Settings) -> Result<Config, ConfigError> {
        let mut faults = Faults(Vec::new());
        let config = validate(settings, &mut faults);
        if faults.0.is_empty() { Ok(config) } else { Err(ConfigError::Options(faults.0)) }
    }
}

struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, option: &str, value: &str, cure: &str) {
        self.0.push(format!("`{option}` is `{value}`, {cure}"));
    }

    fn duration(&mut self, option: &str, value: Option<&String>, default: &str) -> Duration {
        let text = value.map_or(default, String::as_str);
        units::duration(text).unwrap_or_else(|| {
            self.add(option, text, "which is no duration: write it as `5ms`, `150s`, `5m` or `24h`");
            Duration::ZERO
        })
    }

    fn size(&mut self, option: &str, value: Option<&String>, default: &str) -> u64 {
        let text = value.map_or(default, String::as_str);
        units::size(text).unwrap_or_else(|| {
            self.add(option, text, "which is no size: write it as `64 MiB` or `8 GiB`");
            0
        })
    }

    /// A secret from a file or a variable; `None` where neither is named.
    fn secret(&mut self, option: &str, file: Option<&String>, variable: Option<&String>) -> Option<Secret> {
        let value = match (file, variable) {
            (Some(file), None) => std::fs::read_to_string(file)
                .map_err(|error| self.add(&format!("{option}_file"), file, &format!("which cannot be read ({error}): write the secret into it"))),
            (None, Some(variable)) => std::env::var(variable)
                .map_err(|_| self.add(&format!("{option}_env"), variable, "which is not set: export it before the start")),
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.0.push(format!("`{option}_file` and `{option}_env` are both set: keep one of them"));
                return None;
            }
        };
        let value = value.ok()?.trim().to_string();
        if value.is_empty() {
            self.0.push(format!("the secret that `{option}_file` or `{option}_env` names is empty"));
            return None;
        }
        Some(Secret::new(value))
    }
}

fn validate(settings: &Settings, faults: &mut Faults) -> Config {
    let data_dir = PathBuf::from(settings.data_dir.as_deref().unwrap_or("data"));
    Config {
        drain_within: faults.duration("drain_within", settings.drain_within.as_ref(), "60s"),
        http: http(settings, faults),
        feed: feed(settings, faults),
        validation: validation(settings, faults),
        spool: spool(settings, &data_dir, faults),
        bronze: bronze(settings, &data_dir, faults),
        warehouse: warehouse(settings, &data_dir, faults),
        telemetry: telemetry(settings, faults),
        data_dir,
    }
}

fn http(settings: &Settings, faults: &mut Faults) -> HttpConfig {
    let text = settings.http.listen.as_deref().unwrap_or("127.0.0.1:8080");
    let listen = text.parse().unwrap_or_else(|_| {
        faults.add("http.listen", text, "which is no address: write it as `127.0.0.1:8080`");
        SocketAddr::from(([127, 0, 0, 1], 0))
    });
    let token = faults.secret("http.token", settings.http.token_file.as_ref(), settings.http.token_env.as_ref());
    if !listen.ip().is_loopback() && token.is_none() {
        faults.add("http.listen", text, "which others can reach: set `http.token_file` or `http.token_env`, or listen on 127.0.0.1");
    }
    HttpConfig { listen, token }
}

fn feed(settings: &Settings, faults: &mut Faults) -> FeedConfig {
    let feed = &settings.feed;
    let url = feed.url.clone().unwrap_or_else(|| "wss://ws.finnhub.io".to_string());
    if !url.starts_with("ws://") && !url.starts_with("wss://") {
        faults.add("feed.url", &url, "which must begin with `wss://` (or `ws://` for an exchange of your own)");
    }
    if feed.keys.is_empty() {
        faults.0.push("`feed.keys` is missing: add a [[feed.keys]] with `key_file` or `key_env` and `symbols`".to_string());
    }
    let shards = feed.keys.iter().enumerate().filter_map(|(n, key)| shard(n, key, faults)).collect::<Vec<_>>();
    let mut owners = BTreeMap::new();
    for (shard, _) in &shards {
        for symbol in shard.symbols.iter() {
            if let Some(before) = owners.insert(symbol.clone(), shard.name.clone()) {
                faults.add("feed.keys.symbols", symbol, &format!("which is in {before} and in {}: each trade would be counted twice; keep one", shard.name));
            }
        }
    }
    let reconnect_min = faults.duration("feed.reconnect_min", feed.reconnect_min.as_ref(), "1s");
    let reconnect_max = faults.duration("feed.reconnect_max", feed.reconnect_max.as_ref(), "60s");
    if reconnect_min.is_zero() || reconnect_min > reconnect_max {
        let value = feed.reconnect_min.as_deref().unwrap_or("1s");
        faults.add("feed.reconnect_min", value, "must be above 0 and not above `feed.reconnect_max`");
    }
    FeedConfig {
        url,
        shards,
        watchdog: faults.duration("feed.watchdog", feed.watchdog.as_ref(), "150s"),
        reconnect_min,
        reconnect_max,
        stale_after: faults.duration("feed.stale_after", feed.stale_after.as_ref(), "5m"),
        max_frame_bytes: faults.size("feed.max_frame_bytes", feed.max_frame_bytes.as_ref(), "1 MiB") as usize,
    }
}

fn shard(n: usize, key: &Key, faults: &mut Faults) -> Option<(Shard, Secret)> {
    let option = format!("feed.keys[{n}]");
    if key.key.is_some() {
        faults.0.push(format!("`{option}.key` holds the key itself: put it into a file and name that in `key_file`, or use `key_env`"));
        return None;
    }
    let before = faults.0.len();
    let secret = faults.secret(&format!("{option}.key"), key.key_file.as_ref(), key.key_env.as_ref());
    if secret.is_none() && faults.0.len() == before {
        faults.0.push(format!("`{option}` has no key: set `key_file` or `key_env`"));
    }
    let mut symbols = key.symbols.clone();
    symbols.sort_unstable();
    symbols.dedup();
    if symbols.is_empty() || symbols.iter().any(String::is_empty) {
        faults.0.push(format!("`{option}.symbols` is empty or has an empty name: list what to subscribe to, as \"AAPL\""));
    }
    if symbols.len() > SYMBOLS_A_KEY {
        faults.add(&format!("{option}.symbols"), &format!("{} symbols", symbols.len()), &format!("a key takes {SYMBOLS_A_KEY}: spread them over several [[feed.keys]]"));
    }
    let shard = Shard { name: format!("shard-{}", n + 1), symbols: Arc::from(symbols) };
    Some((shard, secret?))
}

fn validation(settings: &Settings, faults: &mut Faults) -> ValidationConfig {
    let mut bound = |option: &str, value: Option<&String>, default| match value.map(String::as_str) {
        Some("none") => None,
        _ => Some(faults.duration(option, value, default)),
    };
    ValidationConfig {
        max_age: bound("validation.max_age", settings.validation.max_age.as_ref(), "24h"),
        max_ahead: bound("validation.max_ahead", settings.validation.max_ahead.as_ref(), "5m"),
    }
}

fn spool(settings: &Settings, data_dir: &Path, faults: &mut Faults) -> SpoolConfig {
    let spool = &settings.spool;
    let config = SpoolConfig {
        dir: spool.dir.as_ref().map_or_else(|| data_dir.join("spool"), PathBuf::from),
        max_bytes: faults.size("spool.max_bytes", spool.max_bytes.as_ref(), "8 GiB"),
        reserve_bytes: faults.size("spool.reserve_bytes", spool.reserve_bytes.as_ref(), "64 MiB"),
        segment_bytes: faults.size("spool.segment_bytes", spool.segment_bytes.as_ref(), "64 MiB"),
        group: faults.duration("spool.group", spool.group.as_ref(), "5ms"),
    };
    if config.reserve_bytes >= config.max_bytes {
        let value = spool.reserve_bytes.as_deref().unwrap_or("64 MiB");
        faults.add("spool.reserve_bytes", value, "must be below `spool.max_bytes`: lower it or raise the other");
    }
    if config.group > Duration::from_secs(1) {
        let value = spool.group.as_deref().unwrap_or_default();
        faults.add("spool.group", value, "at most 1s: nothing is acknowledged for so long");
    }
    config
}

fn bronze(settings: &Settings, data_dir: &Path, faults: &mut Faults) -> BronzeConfig {
    let bronze = &settings.bronze;
    let zstd_level = bronze.zstd_level.unwrap_or(1);
    if !(1..=19).contains(&zstd_level) {
        faults.add("bronze.zstd_level", &zstd_level.to_string(), "must be from 1 (fast) to 19 (small)");
    }
    let config = BronzeConfig {
        store: store(settings, data_dir, faults),
        flush_bytes: faults.size("bronze.flush_bytes", bronze.flush_bytes.as_ref(), "16 MiB") as usize,
        flush_after: faults.duration("bronze.flush_after", bronze.flush_after.as_ref(), "60s"),
        memory: faults.size("bronze.memory", bronze.memory.as_ref(), "64 MiB") as usize,
        zstd_level,
    };
    if config.flush_bytes > config.memory {
        let value = bronze.flush_bytes.as_deref().unwrap_or("16 MiB");
        faults.add("bronze.flush_bytes", value, "must not be above `bronze.memory`: lower it or raise the other");
    }
    config
}

fn store(settings: &Settings, data_dir: &Path, faults: &mut Faults) -> StoreConfig {
    let (bronze, s3) = (&settings.bronze, &settings.bronze.s3);
    let Some(address) = bronze.store.as_deref().and_then(|store| store.strip_prefix("s3://")) else {
        return StoreConfig::Folder(bronze.store.as_ref().map_or_else(|| data_dir.join("bronze"), PathBuf::from));
    };
    let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
    if bucket.is_empty() {
        faults.add("bronze.store", "s3://", "which names no bucket: write it as `s3://bucket/prefix`");
    }
    let prefix = prefix.trim_matches('/');
    let credentials = match (&s3.access_key_env, &s3.secret_key_env) {
        (None, None) => None,
        (access, secret) => {
            let access = faults.secret("bronze.s3.access_key", None, access.as_ref());
            let secret = faults.secret("bronze.s3.secret_key", None, secret.as_ref());
            if access.is_none() || secret.is_none() {
                faults.0.push("`bronze.s3` needs both `access_key_env` and `secret_key_env`, or neither".to_string());
            }
            access.zip(secret).map(|(access, secret)| (access.reveal().to_string(), secret))
        }
    };
    StoreConfig::S3(S3Config {
        bucket: bucket.to_string(),
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
        credentials,
        attempt_timeout: faults.duration("bronze.s3.attempt_timeout", s3.attempt_timeout.as_ref(), "20s"),
    })
}

fn warehouse(settings: &Settings, data_dir: &Path, faults: &mut Faults) -> Option<WarehouseConfig> {
    let warehouse = &settings.warehouse;
    let sale_conditions = warehouse.sale_conditions.clone().unwrap_or_else(|| "cts_utp".to_string());
    if !matches!(sale_conditions.as_str(), "cts_utp" | "lean") {
        faults.add("warehouse.sale_conditions", &sale_conditions, "must be `cts_utp` or `lean`");
    }
    let path = |value: &Option<String>, default: PathBuf| value.as_ref().map_or(default, PathBuf::from);
    // The process runs in the project's folder, so no path may depend on where this one runs.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let config = WarehouseConfig {
        database: absolute(path(&warehouse.database, data_dir.join("warehouse.duckdb"))),
        gold_dir: absolute(path(&warehouse.gold_dir, data_dir.join("gold"))),
        project_dir: absolute(path(&warehouse.project_dir, project_dir())),
        python: warehouse.python.as_ref().map(PathBuf::from),
        every: faults.duration("warehouse.every", warehouse.every.as_ref(), "10s"),
        run_timeout: faults.duration("warehouse.run_timeout", warehouse.run_timeout.as_ref(), "5m"),
        sale_conditions,
    };
    warehouse.enabled.unwrap_or(true).then_some(config)
}

/// `dbt` where the process runs, or in the source tree that it was built from.
fn project_dir() -> PathBuf {
    let here = PathBuf::from("dbt");
    if here.join("requirements.txt").exists() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt") }
}

fn telemetry(settings: &Settings, faults: &mut Faults) -> TelemetryConfig {
    let telemetry = &settings.telemetry;
    let format = telemetry.format.as_deref().unwrap_or("text");
    if !matches!(format, "text" | "json") {
        faults.add("telemetry.format", format, "must be `text` or `json`");
    }
    let log = telemetry.log.clone().unwrap_or_else(|| "info".to_string());
    if log.parse::<tracing_subscriber::EnvFilter>().is_err() {
        faults.add("telemetry.log", &log, "which is no filter: write it as `info` or `tickmint=debug,info`");
    }
    let sample = telemetry.sample.unwrap_or(0.01);
    if !(0.0..=1.0).contains(&sample) {
        faults.add("telemetry.sample", &sample.to_string(), "must be from 0 to 1");
    }
    TelemetryConfig { log, json: format == "json", otlp_endpoint: telemetry.otlp_endpoint.clone(), sample }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        let settings: Settings = toml::from_str(text).unwrap();
        Config::from_settings(&settings).unwrap_err().to_string()
    }

    const KEYS: &str = "[[feed.keys]]\nkey_env = \"PATH\"\nsymbols = [\"AAPL\"]\n";

    #[test]
    fn the_example_is_a_config_once_it_has_a_key() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml")).unwrap();
        let settings: Settings = toml::from_str(&text.replace("FINNHUB_KEY", "PATH")).unwrap();
        let config = Config::from_settings(&settings).unwrap();
        let defaults = Config::from_settings(&toml::from_str(KEYS).unwrap()).unwrap();
        let without_symbols = |mut config: Config| {
            config.feed.shards.clear();
            format!("{config:#?}")
        };
        assert_eq!(without_symbols(config), without_symbols(defaults), "the example shows other values than the defaults");
    }

    #[test]
    fn an_error_names_the_option_the_value_and_the_cure() {
        for (text, expected) in [
            ("[spool]\ngroup = \"5 parsecs\"", "`spool.group` is `5 parsecs`, which is no duration: write it as `5ms`"),
            ("[spool]\nmax_bytes = \"1 GiB\"\nreserve_bytes = \"2 GiB\"", "`spool.reserve_bytes` is `2 GiB`, must be below `spool.max_bytes`"),
            ("[http]\nlisten = \"0.0.0.0:8080\"", "`http.listen` is `0.0.0.0:8080`, which others can reach: set `http.token_file`"),
            ("[feed]\nurl = \"https://x\"", "`feed.url` is `https://x`, which must begin with `wss://`"),
            ("[warehouse]\nsale_conditions = \"nyse\"", "`warehouse.sale_conditions` is `nyse`, must be `cts_utp` or `lean`"),
            ("[bronze]\nstore = \"s3://\"", "which names no bucket"),
            ("[telemetry]\nsample = 2.0", "`telemetry.sample` is `2`, must be from 0 to 1"),
        ] {
            let found = faults(&format!("{text}\n{KEYS}"));
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn keys_come_from_files_and_variables_only_and_all_faults_are_said_at_once() {
        let found = faults("[[feed.keys]]\nkey = \"abc123\"\n[[feed.keys]]\nkey_env = \"TICKMINT_NO_SUCH\"\nsymbols = [\"A\"]\n[[feed.keys]]\nsymbols=[]");
        assert!(found.contains("`feed.keys[0].key` holds the key itself"), "{found}");
        assert!(!found.contains("abc123"), "{found}");
        assert!(found.contains("`feed.keys[1].key_env` is `TICKMINT_NO_SUCH`, which is not set"), "{found}");
        assert!(found.contains("`feed.keys[2]` has no key"), "{found}");
    }

    #[test]
    fn a_symbol_twice_or_too_many_of_them() {
        let two = faults(&format!("{KEYS}{KEYS}"));
        assert!(two.contains("`feed.keys.symbols` is `AAPL`, which is in shard-1 and in shard-2"), "{two}");
        let many: Vec<_> = (0..51).map(|n| format!("\"S{n}\"")).collect();
        let many = faults(&format!("[[feed.keys]]\nkey_env=\"PATH\"\nsymbols=[{}]", many.join(",")));
        assert!(many.contains("51 symbols"), "{many}");
    }

    #[test]
    fn an_unknown_option_is_refused_with_its_line() {
        let error = toml::from_str::<Settings>("[spool]\nmax_byte = \"1 GiB\"").unwrap_err().to_string();
        assert!(error.contains("max_byte") && error.contains("line 2") && error.contains("max_bytes"), "{error}");
    }
}
