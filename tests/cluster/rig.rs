//! A cluster of one exchange, real brokers, a real bucket behind a proxy that fails on command, and daemons that share the work.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tickmint::config::{Config, KafkaConfig};

use crate::pipeline::rig::{Process, TICKMINT, end, fetch, pause};
use crate::support::bucket::{BUCKET, owner};
use crate::support::kafka::{Kafka, Options, PASSWORD, Security, USER};
use crate::support::registry::Registry;
use crate::support::s3_proxy::S3Proxy;
use crate::support::servers::{Server, Skip, free_ports};

/// The two daemons that are always there: each streams half of the symbols.
pub(super) const A: &str = "a";
pub(super) const B: &str = "b";

/// The keys that the exchange takes.
const KEYS: u32 = 9;
/// So many partitions have the topics.
pub(super) const PARTITIONS: u32 = 4;
/// Nothing takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// What a cluster is made of.
pub(super) struct Servers {
    pub(super) kafka: Options,
    /// The server of the bucket.
    pub(super) bucket: fn(&Path) -> Result<Server, Skip>,
    /// Values are Avro then.
    pub(super) has_registry: bool,
}

impl Default for Servers {
    fn default() -> Servers {
        Servers { kafka: Options::default(), bucket: Server::start_minio, has_registry: false }
    }
}

/// See the module.
pub(super) struct Cluster {
    pub(super) dir: tempfile::TempDir,
    pub(super) kafka: Kafka,
    /// Between the daemons and the bucket.
    pub(super) store: S3Proxy,
    /// Outlives the daemons.
    _bucket: Server,
    /// Where values are Avro.
    pub(super) registry: Option<Registry>,
    exchange: Process,
    address: String,
    /// Of each daemon that there ever was, where it answers.
    ports: BTreeMap<String, u16>,
    symbols: Vec<String>,
}

impl Cluster {
    /// Starts everything but the daemons. The exchange plays with these arguments.
    pub(super) fn start(servers: Servers, exchange: &[&str], symbols: &[String]) -> Result<Cluster, Skip> {
        let dir = tempfile::tempdir().unwrap();
        let bucket = (servers.bucket)(dir.path())?;
        let kafka = Kafka::start(dir.path(), servers.kafka)?;
        let registry = if servers.has_registry { Some(Registry::start(dir.path())?) } else { None };
        tickmint::commands::block_on(owner(&bucket)).unwrap();
        let mut command = Command::new(TICKMINT);
        command.args(["exchange", "--listen", "127.0.0.1:0", "--ledger"]).arg(dir.path().join("ledger")).args(exchange);
        for key in 1..=KEYS {
            std::fs::write(dir.path().join(format!("key-{key}")), format!("key-{key}")).unwrap();
            command.args(["--key", &format!("key-{key}")]);
        }
        let log = std::fs::File::create(dir.path().join("exchange.log")).unwrap();
        let mut process = Process(command.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("ws://").next().unwrap().to_string();
        std::fs::write(dir.path().join("secret"), Server::SECRET_KEY).unwrap();
        std::fs::write(dir.path().join("access"), Server::ACCESS_KEY).unwrap();
        let (store, middle) = (S3Proxy::start(bucket.endpoint()).unwrap(), symbols.len() / 2);
        let ports = BTreeMap::new();
        let mut cluster = Cluster {
            dir,
            kafka,
            store,
            _bucket: bucket,
            registry,
            exchange: process,
            address,
            ports,
            symbols: symbols.to_vec(),
        };
        if cluster.kafka.security() != Security::Plaintext {
            cluster.present(&cluster.kafka.client_certificate(), &cluster.kafka.client_key(), PASSWORD);
        }
        cluster.configure(A, Some((1, 0..middle)));
        cluster.configure(B, Some((2, middle..symbols.len())));
        Ok(cluster)
    }

    /// Writes the config of a daemon, which streams these symbols with that key, or only archives.
    pub(super) fn configure(&mut self, name: &str, feed: Option<(u32, std::ops::Range<usize>)>) {
        let [port] = free_ports();
        self.ports.insert(name.to_string(), port);
        let feed = feed.map(|(key, symbols)| {
            format!(
                "roles = [\"feed\", \"archive\"]\n[feed]\nurl = \"ws://{}\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\n\
                 [[feed.keys]]\nkey_file = {:?}\nsymbols = {:?}\n[spool]\nsegment_bytes = \"1 MiB\"\n",
                self.address,
                self.path(&format!("key-{key}")),
                &self.symbols[symbols],
            )
        });
        let values = self.registry.as_ref().map(|registry| {
            format!("format = \"avro\"\n[kafka.registry]\nurl = {:?}\n", registry.url()) // the last of its section
        });
        let brokers = match self.kafka.security() {
            Security::Plaintext => self.kafka.bootstrap(),
            Security::SaslSsl | Security::MutualTls => self.kafka.secure_bootstrap(),
        };
        let brokers: Vec<_> = brokers.split(',').map(str::to_owned).collect();
        let config = format!(
            "data_dir = {home:?}\ndrain_within = \"60s\"\n{feed}[http]\nlisten = \"127.0.0.1:{port}\"\n\
             [kafka]\nbrokers = {brokers:?}\npartitions = {PARTITIONS}\nreplication_factor = {copies}\nmin_insync = {insync}\n{security}{values}\
             [bronze]\nstore = \"s3://{BUCKET}/lake\"\nflush_after = \"1s\"\n\
             [bronze.s3]\nendpoint = {endpoint:?}\naccess_key_file = {access:?}\nsecret_key_file = {secret:?}\n\
             [warehouse]\nenabled = false\n",
            home = self.path(name),
            feed = feed.as_deref().unwrap_or("roles = [\"archive\"]\n"),
            copies = brokers.len(),
            insync = brokers.len().div_ceil(2),
            security = self.security(),
            values = values.unwrap_or_default(),
            endpoint = self.store.endpoint(),
            access = self.path("access"),
            secret = self.path("secret"),
        );
        std::fs::write(self.config(name), config).unwrap();
    }

    /// The options of `[kafka]` by which the brokers let a daemon in.
    fn security(&self) -> String {
        match self.kafka.security() {
            Security::Plaintext => String::new(),
            Security::SaslSsl => format!(
                "security = \"sasl_ssl\"\nca_file = {:?}\nusername = {USER:?}\npassword_file = {:?}\n",
                self.kafka.ca_file(),
                self.path("password"),
            ),
            Security::MutualTls => format!(
                "security = \"ssl\"\nca_file = {:?}\ncertificate_file = {:?}\nkey_file = {:?}\n",
                self.kafka.ca_file(),
                self.path("client.pem"),
                self.path("client.key"),
            ),
        }
    }

    /// Lives of daemons from now on show this certificate or this password, whichever the brokers ask for.
    pub(super) fn present(&self, certificate: &Path, key: &Path, password: &str) {
        std::fs::copy(certificate, self.path("client.pem")).unwrap();
        std::fs::copy(key, self.path("client.key")).unwrap();
        std::fs::write(self.path("password"), password).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the config of a daemon is.
    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.toml"))
    }

    /// How A reaches the brokers.
    pub(super) fn kafka_config(&self) -> KafkaConfig {
        Config::load_without_keys(&self.config(A)).unwrap().kafka.unwrap()
    }

    /// The daemons that there ever were.
    pub(super) fn names(&self) -> Vec<String> {
        self.ports.keys().cloned().collect()
    }

    /// What a daemon is asked to tell of its answers and its fsyncs.
    pub(super) fn witness(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.witness"))
    }

    /// Whether a daemon has a spool, that is a feed.
    pub(super) fn has_spool(&self, name: &str) -> bool {
        self.path(&format!("{name}/spool")).exists()
    }

    /// A new life of a daemon.
    pub(super) fn daemon(&self, name: &str) -> Process {
        self.daemon_with(name, &[])
    }

    /// As [`Cluster::daemon`], with these variables.
    pub(super) fn daemon_with(&self, name: &str, variables: &[(&str, String)]) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(TICKMINT);
        command.args(["run", "--config"]).arg(self.config(name)).envs(variables.iter().cloned()).stderr(log);
        Process(command.spawn().unwrap())
    }

    /// Asks a running daemon.
    pub(super) fn get(&self, name: &str, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(name, path)?).ok()
    }

    /// As [`Cluster::get`], for what is no JSON.
    pub(super) fn text(&self, name: &str, path: &str) -> Option<String> {
        fetch(&format!("127.0.0.1:{}", self.ports[name]), path)
    }

    /// A number of `/metrics`; none where nobody answers.
    pub(super) fn metric(&self, name: &str, series: &str) -> Option<f64> {
        let text = self.text(name, "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until it is so.
    pub(super) fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < until, "{}\nnot within {PATIENCE:?}: {what}", self.logs());
            pause(Duration::from_millis(100));
        }
    }

    /// What a daemon has logged.
    pub(super) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// What the daemons have logged last, and how they are.
    pub(super) fn logs(&self) -> String {
        let last = |name: &String| {
            let log = self.log(name);
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("no connection to the feed")).collect();
            let lines = lines[lines.len().saturating_sub(60)..].join("\n");
            let metrics = self.text(name, "/metrics").unwrap_or_default();
            let is_told = |line: &&str| ["tickmint_forward", "tickmint_bronze_lag"].iter().any(|of| line.starts_with(of));
            let metrics: Vec<_> = metrics.lines().filter(is_told).collect();
            let health = self.text(name, "/health").unwrap_or_default();
            format!("--- {name}\n{lines}\n{}\n{health}\n", metrics.join("\n"))
        };
        self.ports.keys().map(last).collect()
    }

    /// Ends the exchange in good order, its ledger complete.
    pub(super) fn end_exchange(&mut self) {
        assert_eq!(end(&mut self.exchange), Some(0), "the exchange");
    }

    /// The exchange ends, all that A has got is archived, it ends in good order, and the audit finds nothing wrong.
    pub(super) fn ends_well(&mut self, mut a: Process) {
        self.end_exchange();
        self.wait_for("all of it is archived", || self.metric(A, "tickmint_forward_uncovered") == Some(0.0));
        assert_eq!(end(&mut a), Some(0), "{}", self.logs());
        let (report, is_well) = self.verify();
        assert!(is_well, "{report:#}\n{}", self.logs());
        assert_eq!(report["waiting"], 0, "{report:#}");
    }

    /// Audits everything; the report and whether the command said that all is well.
    pub(super) fn verify(&self) -> (Value, bool) {
        self.verify_with(&[])
    }

    /// As [`Cluster::verify`], with these spools, too.
    pub(super) fn verify_with(&self, spools: &[PathBuf]) -> (Value, bool) {
        let mut command = Command::new(TICKMINT);
        command.args(["verify", "--json", "--config"]).arg(self.config(A)).arg("--ledger").arg(self.path("ledger"));
        for name in self.names().iter().filter(|name| *name != A && self.has_spool(name)) {
            command.arg("--spool").arg(self.path(&format!("{name}/spool")));
        }
        command.args(spools.iter().flat_map(|spool| ["--spool".as_ref(), spool.as_os_str()]));
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (report, output.status.success())
    }
}
