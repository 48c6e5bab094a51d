//! A world of one exchange and one daemon at a time, in a folder of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tickmint::audit::{self, found::Found};
use tickmint::io::folder::FolderStore;
use tickmint::io::store::Store;

use crate::support::servers::free_ports;

/// The program under test.
pub(crate) const TICKMINT: &str = env!("CARGO_BIN_EXE_tickmint");

/// No process of ours takes longer to come up or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.wait_within(PATIENCE)
    }

    /// As [`Process::wait`], where that takes its time.
    pub(crate) fn wait_within(&mut self, limit: Duration) -> std::process::ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end by itself within {limit:?}");
            pause(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    exchange: Process,
    /// Where the exchange listens.
    pub(crate) address: String,
    port: u16,
    /// The environment of the next life.
    environment: BTreeMap<&'static str, String>,
    /// The command that starts our program in a world of its own, if it is to have one.
    within: Vec<String>,
    /// When the daemon's clock began to run faster, and how much.
    hurry: (i64, i64),
}

impl Rig {
    /// Starts an exchange with these arguments, and writes the daemon's config for its `symbols`, with
    /// `more` options at its end.
    pub(crate) fn new(exchange: &[&str], symbols: &[String], more: &str) -> Rig {
        Rig::with_shards(exchange, &[symbols], more)
    }

    /// As [`Rig::new`], with a key for the symbols of each shard: `key-1`, `key-2`...
    pub(crate) fn with_shards(exchange: &[&str], shards: &[&[String]], more: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<_> = (1..=shards.len()).map(|n| format!("key-{n}")).collect();
        let mut command = Command::new(TICKMINT);
        command.args(["exchange", "--listen", "127.0.0.1:0", "--ledger"]).arg(dir.path().join("ledger")).args(exchange);
        command.args(keys.iter().flat_map(|key| ["--key", key]));
        let log = std::fs::File::create(dir.path().join("exchange.log")).unwrap();
        let mut process = Process(command.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("ws://").next().unwrap().to_string();
        let [port] = free_ports();
        let sections = keys.iter().zip(shards).map(|(key, symbols)| {
            let file = dir.path().join(key);
            std::fs::write(&file, key).unwrap();
            format!("[[feed.keys]]\nkey_file = {file:?}\nsymbols = {symbols:?}\n")
        });
        let config = format!(
            "data_dir = {dir:?}\ndrain_within = \"50s\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
             [feed]\nurl = \"ws://{address}\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\n{sections}\
             [validation]\nmax_age = \"none\"\n\
             [spool]\nsegment_bytes = \"256 KiB\"\n\
             [warehouse]\nenabled = false\n[bronze]\nflush_after = \"150ms\"\n{more}",
            dir = dir.path(),
            sections = sections.collect::<String>(),
        );
        std::fs::write(dir.path().join("tickmint.toml"), config).unwrap();
        Rig { dir, exchange: process, address, port, environment: BTreeMap::new(), within: Vec::new(), hurry: (0, 1) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lives from now on have a warehouse, and time for its last run: on a loaded machine one takes half a
    /// minute.
    pub(crate) fn with_warehouse(&self) {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt");
        self.edit("[warehouse]\nenabled = false\n", &format!("[warehouse]\nproject_dir = {project:?}\n"));
        self.edit("drain_within = \"50s\"", "drain_within = \"110s\"");
    }

    /// Lives from now on have none.
    pub(crate) fn without_warehouse(&self) {
        self.edit("[warehouse]\n", "[warehouse]\nenabled = false\n");
    }

    /// Changes the config of lives from now on.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.path("tickmint.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Sets a variable for all lives from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.environment.insert(name, value.to_string());
    }

    /// Lives and audits from now on are started by this command.
    pub(crate) fn start_within(&mut self, command: Vec<String>) {
        self.within = command;
    }

    /// From now on the daemon's time of day runs so much faster.
    pub(crate) fn hurry(&mut self, factor: i64) {
        self.hurry = (tickmint::clock::now(), factor);
        self.set("TICKMINT_HURRY", &format!("{}:{factor}", self.hurry.0));
    }

    /// The daemon's time of day.
    pub(crate) fn now(&self) -> i64 {
        let (begin, factor) = self.hurry;
        begin + (tickmint::clock::now() - begin) * factor
    }

    /// A new life of the daemon.
    pub(crate) fn daemon(&self) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut command = tickmint(&self.within);
        Process(
            command
                .args(["run", "--config"])
                .arg(self.path("tickmint.toml"))
                .envs(&self.environment)
                .stderr(log)
                .spawn()
                .unwrap(),
        )
    }

    /// Asks the running daemon.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(path)?).ok()
    }

    /// As [`Rig::get`], for what is no JSON.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        fetch(&format!("127.0.0.1:{}", self.port), path)
    }

    /// Waits until it is so.
    pub(crate) fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}\n{}", self.log());
            pause(Duration::from_millis(50));
        }
    }

    /// Waits until the daemon says so.
    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) {
        self.wait_for(what, || self.get("/api/pipeline").is_some_and(|pipeline| is_so(&pipeline)));
    }

    /// Waits until the daemon's alarms are such.
    pub(crate) fn wait_for_alarms(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        self.wait_for(what, || self.get("/health").is_some_and(|health| is_so(&health["alarms"].to_string())));
    }

    /// Waits until this alarm, and not one whose name only begins so, is raised or over: for a person in
    /// `/health`, for a machine in `/metrics`.
    pub(crate) fn wait_for_alarm(&self, name: &str, is_raised: bool) {
        let what = if is_raised { "the alarm is raised" } else { "the alarm is over" };
        self.wait_for(&format!("{what}: {name}"), || {
            let (Some(health), Some(metrics)) = (self.get("/health"), self.text("/metrics")) else { return false };
            let is_told = health["alarms"].as_array().unwrap().iter().any(|alarm| alarm["name"] == name);
            let gauge = value(&metrics, &format!("tickmint_alarm{{alarm=\"{name}\"}}"));
            is_told == is_raised && gauge == is_raised.then_some(1.0)
        });
    }

    /// A number of `/metrics`; none where nobody has counted yet, or nobody answers.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        value(&self.text("/metrics")?, series)
    }

    /// Waits until the daemon's actors are such, by their paths.
    pub(crate) fn wait_for_actors(&self, what: &str, is_so: impl Fn(&BTreeMap<String, Value>) -> bool) {
        self.wait_for(what, || is_so(&self.actors()));
    }

    /// The actors as `/health` has them; none while nobody answers there.
    pub(crate) fn actors(&self) -> BTreeMap<String, Value> {
        let health = self.get("/health").unwrap_or_default();
        let actors = health["actors"].as_array().cloned().unwrap_or_default();
        actors.into_iter().map(|actor| (actor["path"].as_str().unwrap().to_string(), actor)).collect()
    }

    /// What an actor has noted.
    pub(crate) fn note(&self, path: &str, name: &str) -> Option<String> {
        self.actors().get(path)?["notes"][name].as_str().map(str::to_string)
    }

    /// Waits until each of so many shards has received something that is durable.
    pub(crate) fn wait_for_shards(&self, shards: usize) {
        let progress =
            |actors: &BTreeMap<String, Value>, n| actors.get(&format!("shards/shard-{n}/session"))?["progress"].as_u64();
        self.wait_for_actors("each shard's first batch is durable", |actors| (1..=shards).all(|n| progress(actors, n) > Some(0)));
    }

    /// All that is archived, or waits in the spool.
    pub(crate) fn found(&self) -> Found {
        let store: Arc<dyn Store> = Arc::new(FolderStore::open(self.path("lake")).unwrap());
        let spool = self.path("spool");
        let read = audit::bronze::read(&store, Some(&spool));
        tickmint::commands::block_on(read).unwrap().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Ends the exchange in good order, its ledger complete.
    pub(crate) fn end_exchange(&mut self) {
        if self.exchange.0.try_wait().unwrap().is_none() {
            end(&mut self.exchange);
        }
    }

    /// Audits; returns the report and whether the command said that all is well.
    pub(crate) fn verify(&self) -> (Value, bool) {
        audit(tickmint(&self.within), self.dir.path())
    }
}

/// Our program, started by that command if there is one.
fn tickmint(within: &[String]) -> Command {
    let mut words = within.iter().map(String::as_str).chain([TICKMINT]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// The value of a series in the text of `/metrics`.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The body of an answer; `None` if nobody answers.
pub(crate) fn fetch(address: &str, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_string())
}

pub(crate) fn verify(dir: &Path) -> (Value, bool) {
    audit(Command::new(TICKMINT), dir)
}

fn audit(mut command: Command, dir: &Path) -> (Value, bool) {
    command.args(["verify", "--json", "--config"]).arg(dir.join("tickmint.toml")).arg("--ledger").arg(dir.join("ledger"));
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.success())
}

/// SIGTERM, and the exit code.
pub(crate) fn end(process: &mut Process) -> Option<i32> {
    signal("-TERM", process.0.id());
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < until, "it does not end");
        pause(Duration::from_millis(20));
    }
}

/// As `kill` does: `-STOP`, say.
pub(crate) fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success(), "{name}");
}

pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
