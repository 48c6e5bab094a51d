//! A cluster of one exchange, real brokers, a real bucket, and two daemons that share the work.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::pipeline::rig::{Process, TICKMINT, fetch, pause};
use crate::support::bucket::{BUCKET, owner};
use crate::support::kafka::{Kafka, Options};
use crate::support::servers::{Server, Skip, free_ports};

/// The keys of the feed: one a daemon.
const KEYS: [&str; 2] = ["key-1", "key-2"];

/// So many partitions have the topics.
pub(super) const PARTITIONS: u32 = 4;

/// See the module.
pub(super) struct Cluster {
    pub(super) dir: tempfile::TempDir,
    pub(super) kafka: Kafka,
    /// Outlives the daemons.
    _minio: Server,
    exchange: Process,
    ports: [u16; 2],
}

/// A daemon of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    A,
    B,
}

impl Daemon {
    pub(super) const ALL: [Daemon; 2] = [Daemon::A, Daemon::B];

    pub(super) fn name(self) -> &'static str {
        match self {
            Daemon::A => "a",
            Daemon::B => "b",
        }
    }
}

impl Cluster {
    /// Starts everything but the daemons. The exchange plays with these arguments, and each daemon streams half of `symbols`.
    pub(super) fn start(kafka: Options, exchange: &[&str], symbols: &[String], more: &str) -> Result<Cluster, Skip> {
        let dir = tempfile::tempdir().unwrap();
        let minio = Server::start_minio(dir.path())?;
        let kafka = Kafka::start(dir.path(), kafka)?;
        tickmint::commands::block_on(owner(&minio)).unwrap();
        let mut command = Command::new(TICKMINT);
        command.args(["exchange", "--listen", "127.0.0.1:0", "--ledger"]).arg(dir.path().join("ledger")).args(exchange);
        command.args(KEYS.iter().flat_map(|key| ["--key", key]));
        let log = std::fs::File::create(dir.path().join("exchange.log")).unwrap();
        let mut process = Process(command.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("ws://").next().unwrap().to_string();
        let (secret, ports) = (dir.path().join("secret"), free_ports());
        std::fs::write(&secret, Server::SECRET_KEY).unwrap();
        std::fs::write(dir.path().join("access"), Server::ACCESS_KEY).unwrap();
        let halves = symbols.split_at(symbols.len() / 2);
        for ((daemon, key), (symbols, port)) in Daemon::ALL.iter().zip(KEYS).zip([halves.0, halves.1].into_iter().zip(ports)) {
            let (home, key_file) = (dir.path().join(daemon.name()), dir.path().join(key));
            std::fs::write(&key_file, key).unwrap();
            let config = format!(
                "data_dir = {home:?}\ndrain_within = \"60s\"\nroles = [\"feed\", \"archive\"]\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
                 [feed]\nurl = \"ws://{address}\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\n\
                 [[feed.keys]]\nkey_file = {key_file:?}\nsymbols = {symbols:?}\n\
                 [spool]\nsegment_bytes = \"1 MiB\"\n\
                 [kafka]\nbrokers = {brokers:?}\npartitions = {PARTITIONS}\nreplication_factor = {copies}\nmin_insync = {insync}\n{more}\n\
                 [bronze]\nstore = \"s3://{BUCKET}/lake\"\nflush_after = \"1s\"\n\
                 [bronze.s3]\nendpoint = {endpoint:?}\naccess_key_file = {access:?}\nsecret_key_file = {secret:?}\n\
                 [warehouse]\nenabled = false\n",
                brokers = kafka.bootstrap().split(',').collect::<Vec<_>>(),
                copies = kafka.bootstrap().split(',').count(),
                insync = if kafka.bootstrap().contains(',') { 2 } else { 1 },
                endpoint = minio.endpoint(),
                access = dir.path().join("access"),
            );
            std::fs::write(dir.path().join(format!("{}.toml", daemon.name())), config).unwrap();
        }
        Ok(Cluster { dir, kafka, _minio: minio, exchange: process, ports })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new life of a daemon.
    pub(super) fn daemon(&self, daemon: Daemon) -> Process {
        let log = self.path(&format!("{}.log", daemon.name()));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let config = self.path(&format!("{}.toml", daemon.name()));
        Process(Command::new(TICKMINT).args(["run", "--config"]).arg(config).stderr(log).spawn().unwrap())
    }

    /// Asks a running daemon.
    pub(super) fn get(&self, daemon: Daemon, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(daemon, path)?).ok()
    }

    /// As [`Cluster::get`], for what is no JSON.
    pub(super) fn text(&self, daemon: Daemon, path: &str) -> Option<String> {
        fetch(&format!("127.0.0.1:{}", self.ports[daemon as usize]), path)
    }

    /// A number of `/metrics`; none where nobody answers.
    pub(super) fn metric(&self, daemon: Daemon, series: &str) -> Option<f64> {
        let text = self.text(daemon, "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until it is so.
    pub(super) fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !is_so() {
            assert!(std::time::Instant::now() < until, "not within {PATIENCE:?}: {what}\n{}", self.logs());
            pause(std::time::Duration::from_millis(100));
        }
    }

    /// What the daemons have logged.
    pub(super) fn logs(&self) -> String {
        let log = |daemon: Daemon| std::fs::read_to_string(self.path(&format!("{}.log", daemon.name()))).unwrap_or_default();
        Daemon::ALL.map(log).concat()
    }

    /// Ends the exchange in good order, its ledger complete.
    pub(super) fn end_exchange(&mut self) {
        crate::pipeline::rig::end(&mut self.exchange);
    }

    /// Audits everything; the report and whether the command said that all is well.
    pub(super) fn verify(&self) -> (Value, bool) {
        let mut command = Command::new(TICKMINT);
        command.args(["verify", "--json", "--config"]).arg(self.path("a.toml")).arg("--ledger").arg(self.path("ledger"));
        let further = self.path("b/spool");
        if Path::new(&further).exists() {
            command.arg("--spool").arg(further);
        }
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (report, output.status.success())
    }
}

/// Nothing takes longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);
