//! From [`Settings`] to [`Config`]: reads quantities, fetches secrets, and checks what belongs
//! together. Goes through all of it, so that everything that is wrong is told at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::check::{Check, GIB, LONG, MIB, Needs, SHORT};
use super::settings::{KeySettings, S3Settings, Settings};
use super::{
    BronzeConfig, Config, FeedConfig, HttpConfig, Roles, S3Config, Secret, SpoolConfig, StoreConfig, TelemetryConfig,
    ValidationConfig, WarehouseConfig,
};
use crate::domain::shard::Shard;

/// The tables of sale conditions that there are.
const SALE_CONDITIONS: &[(&str, &str)] = &[("cts_utp", "cts_utp"), ("lean", "lean")];

impl Check<'_> {
    /// The config, to be used only if there are no problems.
    pub(super) fn config(&mut self, settings: &Settings) -> Config {
        let data_dir = if settings.data_dir.as_os_str().is_empty() {
            self.wrong("data_dir", "", "must be a folder: write such as `/var/lib/tickmint`");
            PathBuf::new()
        } else {
            self.absolute("data_dir", &settings.data_dir)
        };
        let roles = self.roles(settings);
        let feed = self.feed(settings, roles.feed);
        Config {
            drain_within: self.duration("drain_within", &settings.drain_within, LONG),
            http: self.http(settings),
            kafka: self.kafka(settings, roles, feed.max_frame_bytes),
            feed,
            validation: ValidationConfig {
                max_age: self.optional("validation.max_age", &settings.validation.max_age),
                max_ahead: self.optional("validation.max_ahead", &settings.validation.max_ahead),
            },
            spool: self.spool(settings, &data_dir),
            bronze: self.bronze(settings, &data_dir),
            warehouse: self.warehouse(settings, &data_dir),
            telemetry: self.telemetry(settings),
            roles,
            data_dir,
        }
    }

    /// What this process does. What is wrong counts as all, so that the rest is checked as by default.
    fn roles(&mut self, settings: &Settings) -> Roles {
        let (mut roles, mut wrong) = (Roles::NONE, settings.roles.is_empty());
        if wrong {
            self.problem(
                "roles",
                format!("`roles` is empty: name some of `{}`, or remove it, which means all", Roles::NAMES.join("`, `")),
            );
        }
        for name in &settings.roles {
            match roles.get_mut(name) {
                Some(role) if *role => {
                    self.problem("roles", format!("`roles` has `{name}` twice: remove one"));
                    wrong = true;
                }
                Some(role) => *role = true,
                None => {
                    self.problem("roles", format!("`roles` has `{name}`, must be some of `{}`", Roles::NAMES.join("`, `")));
                    wrong = true;
                }
            }
        }
        if !wrong && settings.kafka.is_none() && roles != Roles::ALL {
            let text = format!(
                "`roles` is `{}`, but there is no `[kafka]`: without it the spool is the log between `feed` and `archive`, and one \
                 daemon does all; add `[kafka]`, or remove `roles` (with `warehouse.enabled = false` others refine)",
                settings.roles.join("`, `")
            );
            self.problem("roles", text);
            wrong = true;
        }
        if wrong { Roles::ALL } else { roles }
    }

    fn http(&mut self, settings: &Settings) -> HttpConfig {
        let http = &settings.http;
        let token = self.secret("http", "token", http.token_file.as_deref(), http.token_env.as_deref());
        let listen = http.listen.parse::<SocketAddr>().unwrap_or_else(|_| {
            self.wrong(
                "http.listen",
                &http.listen,
                "must be an address and a port: write such as `127.0.0.1:8080` or `0.0.0.0:8080`",
            );
            SocketAddr::from(([127, 0, 0, 1], 0))
        });
        let given = http.token_file.is_some() || http.token_env.is_some();
        if !listen.ip().is_loopback() && !given {
            self.wrong(
                "http.listen",
                &http.listen,
                "can be reached from other machines, so requests must carry a token: \
                 set `http.token_file` or `http.token_env`, or listen on `127.0.0.1`",
            );
        }
        HttpConfig { listen, token }
    }

    /// The exchange's side. Its keys are needed by those who listen to it.
    fn feed(&mut self, settings: &Settings, listens: bool) -> FeedConfig {
        let feed = &settings.feed;
        let host = feed.url.strip_prefix("wss://").or_else(|| feed.url.strip_prefix("ws://"));
        if feed.url.contains("token=") || feed.url.contains('@') {
            // Not `wrong`, which would show it.
            let cure = "the key belongs into `[[feed.keys]]`, as `key_file` or `key_env`";
            self.problem("feed.url", format!("`feed.url` carries a token or a password: {cure}"));
        } else if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            self.wrong(
                "feed.url",
                &feed.url,
                "must be a WebSocket's address: write such as `wss://ws.finnhub.io` or `ws://127.0.0.1:9000`",
            );
        }
        let config = FeedConfig {
            url: feed.url.clone(),
            shards: self.shards(&feed.keys, feed.symbols_per_key, self.needs == Needs::Roles && listens),
            watchdog: self.duration("feed.watchdog", &feed.watchdog, LONG),
            reconnect_min: self.duration("feed.reconnect_min", &feed.reconnect_min, LONG),
            reconnect_max: self.duration("feed.reconnect_max", &feed.reconnect_max, LONG),
            stale_after: self.duration("feed.stale_after", &feed.stale_after, LONG),
            max_frame_bytes: self.bytes("feed.max_frame_bytes", &feed.max_frame_bytes, 1024..=256 << 20),
        };
        if config.reconnect_min > config.reconnect_max {
            self.compare("feed.reconnect_min", &feed.reconnect_min, "at most", "feed.reconnect_max", &feed.reconnect_max);
        }
        config
    }

    fn shards(&mut self, keys: &[KeySettings], limit: usize, needs_keys: bool) -> Vec<(Shard, Secret)> {
        let told = self.problems.iter().any(|problem| problem.text.starts_with("`feed.keys` "));
        if keys.is_empty() && needs_keys && !told {
            self.problem(
                "feed.keys",
                "`feed.keys` is empty: add a `[[feed.keys]]` with `key_env` or `key_file`, and `symbols`".into(),
            );
        }
        let mut owners = BTreeMap::new();
        let mut shards: Vec<(Shard, Secret)> = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let (path, place) = (format!("feed.keys[{n}]"), format!("`[[feed.keys]]` no. {}", n + 1));
            let symbols = self.symbols(key, n, limit, &mut owners, &path, &place);
            let secret = if needs_keys { self.key(key, &path, &place) } else { Secret::new("") };
            if let Some(other) = shards.iter().position(|(_, other)| !other.reveal().is_empty() && *other == secret) {
                let text = format!(
                    "the key of {place} is that of no. {}: the server closes both connections of a key that is used twice, \
                     so give each a key of its own",
                    other + 1
                );
                self.problem(&path, text);
            }
            shards.push((Shard { name: format!("shard-{}", n + 1), symbols }, secret));
        }
        shards
    }

    fn key(&mut self, key: &KeySettings, path: &str, place: &str) -> Secret {
        let found = self.secret(path, "key", key.key_file.as_deref(), key.key_env.as_deref());
        if key.key_file.is_none() && key.key_env.is_none() {
            self.problem(path, format!("{place} has no key: set `key_file` or `key_env`"));
        }
        found.unwrap_or_else(|| Secret::new(""))
    }

    fn symbols(
        &mut self,
        key: &KeySettings,
        n: usize,
        limit: usize,
        owners: &mut BTreeMap<String, usize>,
        path: &str,
        place: &str,
    ) -> Arc<[String]> {
        let path = format!("{path}.symbols");
        let mut symbols = key.symbols.clone();
        symbols.sort();
        if symbols.is_empty() {
            self.problem(&path, format!("`symbols` of {place} is empty: name what it shall stream, such as `[\"AAPL\"]`"));
        }
        if symbols.len() > limit {
            let text = format!(
                "`symbols` of {place} has {} symbols, must be at most `feed.symbols_per_key` ({limit}): \
                 move some to another `[[feed.keys]]` with a key of its own, or raise the limit if the plan allows more",
                symbols.len()
            );
            self.problem(&path, text);
        }
        for symbol in &symbols {
            if symbol.is_empty() || symbol.len() > 64 || symbol.chars().any(|c| c.is_whitespace() || c.is_control()) {
                let text = format!(
                    "`symbols` of {place} has `{symbol}`, which no exchange lists: write it as Finnhub does, such as `BINANCE:BTCUSDT`"
                );
                self.problem(&path, text);
            }
            match owners.insert(symbol.clone(), n) {
                Some(other) if other == n => {
                    self.problem(&path, format!("`symbols` of {place} has `{symbol}` twice: remove one"));
                }
                Some(other) => {
                    let text = format!(
                        "`symbols` of {place} has `{symbol}`, as has no. {}: each of its trades would come twice, so remove one",
                        other + 1
                    );
                    self.problem(&path, text);
                }
                None => {}
            }
        }
        symbols.into()
    }

    fn spool(&mut self, settings: &Settings, data_dir: &Path) -> SpoolConfig {
        let spool = &settings.spool;
        let config = SpoolConfig {
            dir: data_dir.join(&spool.dir),
            max_bytes: self.size("spool.max_bytes", &spool.max_bytes, MIB..=u64::MAX),
            reserve_bytes: self.size("spool.reserve_bytes", &spool.reserve_bytes, 4096..=u64::MAX),
            segment_bytes: self.size("spool.segment_bytes", &spool.segment_bytes, 4096..=1 << 40),
            group: self.duration("spool.group", &spool.group, Duration::ZERO..=Duration::from_secs(1)),
        };
        if config.reserve_bytes >= config.max_bytes {
            self.compare("spool.reserve_bytes", &spool.reserve_bytes, "below", "spool.max_bytes", &spool.max_bytes);
        }
        if config.segment_bytes > config.max_bytes / 2 {
            self.compare("spool.segment_bytes", &spool.segment_bytes, "at most half of", "spool.max_bytes", &spool.max_bytes);
        }
        config
    }

    fn bronze(&mut self, settings: &Settings, data_dir: &Path) -> BronzeConfig {
        let bronze = &settings.bronze;
        let config = BronzeConfig {
            store: self.store(settings, data_dir),
            flush_bytes: self.bytes("bronze.flush_bytes", &bronze.flush_bytes, 1..=GIB),
            flush_after: self.duration("bronze.flush_after", &bronze.flush_after, SHORT..=Duration::from_secs(3600)),
            memory: self.bytes("bronze.memory", &bronze.memory, MIB..=1 << 40),
            zstd_level: bronze.zstd_level,
        };
        if config.flush_bytes > config.memory {
            self.compare("bronze.flush_bytes", &bronze.flush_bytes, "at most", "bronze.memory", &bronze.memory);
        }
        if !(1..=19).contains(&bronze.zstd_level) {
            self.wrong(
                "bronze.zstd_level",
                &bronze.zstd_level.to_string(),
                "must be from 1 (fast) to 19 (small): 1 is the default, and from about 6 on lines of trades shrink, for several times the work",
            );
        }
        config
    }

    fn store(&mut self, settings: &Settings, data_dir: &Path) -> StoreConfig {
        let store = &settings.bronze.store;
        if let Some(place) = store.strip_prefix("s3://") {
            return StoreConfig::S3(self.s3(store, place, settings.bronze.s3.as_ref()));
        }
        if store.is_empty() || store.contains("://") {
            self.wrong(
                "bronze.store",
                store,
                "must be a folder or a bucket: write such as `lake`, `/srv/lake` or `s3://bucket/prefix`",
            );
        } else if settings.bronze.s3.is_some() {
            self.problem(
                "bronze.s3",
                format!("`[bronze.s3]` is set, but `bronze.store` is the folder `{store}`: write `s3://bucket/prefix` there, or remove the section"),
            );
        }
        StoreConfig::Folder(data_dir.join(store))
    }

    fn s3(&mut self, store: &str, place: &str, s3: Option<&S3Settings>) -> S3Config {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(valid) {
            self.wrong(
                "bronze.store",
                store,
                "names no bucket: write `s3://bucket/prefix`, the bucket in 3 to 63 lower-case letters, digits, `-` and `.`",
            );
        }
        let defaults = S3Settings::default();
        let s3 = s3.unwrap_or(&defaults);
        if let Some(endpoint) = &s3.endpoint {
            self.web_address("bronze.s3.endpoint", endpoint, "http://127.0.0.1:9000");
        }
        let id = self.secret("bronze.s3", "access_key", s3.access_key_file.as_deref(), s3.access_key_env.as_deref());
        let secret = self.secret("bronze.s3", "secret_key", s3.secret_key_file.as_deref(), s3.secret_key_env.as_deref());
        let given = |file: &Option<PathBuf>, env: &Option<String>| file.is_some() || env.is_some();
        let (has_id, has_secret) =
            (given(&s3.access_key_file, &s3.access_key_env), given(&s3.secret_key_file, &s3.secret_key_env));
        if has_id != has_secret {
            let (there, absent) = if has_id { ("access_key", "secret_key") } else { ("secret_key", "access_key") };
            self.problem(
                "bronze.s3",
                format!("`bronze.s3` has the `{there}` but not the `{absent}`: set `{absent}_file` or `{absent}_env` too, or neither, and the environment or the machine's role gives both"),
            );
        }
        S3Config {
            bucket: bucket.into(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
            path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
            credentials: id.zip(secret).map(|(id, secret)| (id.reveal().into(), secret)),
            attempt_timeout: self.duration("bronze.s3.attempt_timeout", &s3.attempt_timeout, LONG),
        }
    }

    fn warehouse(&mut self, settings: &Settings, data_dir: &Path) -> Option<WarehouseConfig> {
        let warehouse = &settings.warehouse;
        let config = WarehouseConfig {
            database: data_dir.join(&warehouse.database),
            gold_dir: data_dir.join(&warehouse.gold_dir),
            project_dir: self.absolute("warehouse.project_dir", &warehouse.project_dir),
            // A bare name is looked for on the PATH.
            python: warehouse.python.as_ref().map(|python| {
                if python.components().count() > 1 { self.absolute("warehouse.python", python) } else { python.clone() }
            }),
            every: self.duration("warehouse.every", &warehouse.every, LONG),
            run_timeout: self.duration("warehouse.run_timeout", &warehouse.run_timeout, LONG),
            sale_conditions: self.choice("warehouse.sale_conditions", &warehouse.sale_conditions, SALE_CONDITIONS).into(),
            positions: warehouse.positions.as_ref().map(|positions| self.absolute("warehouse.positions", positions)),
        };
        warehouse.enabled.then_some(config)
    }

    fn telemetry(&mut self, settings: &Settings) -> TelemetryConfig {
        let telemetry = &settings.telemetry;
        if let Err(error) = telemetry.log.parse::<tracing_subscriber::filter::EnvFilter>() {
            self.wrong(
                "telemetry.log",
                &telemetry.log,
                &format!("is no filter ({error}): write such as `info` or `tickmint=debug,info`"),
            );
        }
        if let Some(endpoint) = &telemetry.otlp_endpoint {
            self.web_address("telemetry.otlp_endpoint", endpoint, "http://127.0.0.1:4318");
        }
        if !(0.0..=1.0).contains(&telemetry.sample) {
            self.wrong(
                "telemetry.sample",
                &telemetry.sample.to_string(),
                "must be a share from 0 to 1: 0.01 traces one frame in a hundred",
            );
        }
        TelemetryConfig {
            log: telemetry.log.clone(),
            json: telemetry.json,
            otlp_endpoint: telemetry.otlp_endpoint.clone(),
            sample: telemetry.sample,
        }
    }
}
