//! Real servers for tests: MinIO, SeaweedFS and Jaeger as children of the test, on the loopback.
//!
//! ```text
//! let folder = tempfile::tempdir()?;
//! let Some(minio) = or_skip(Server::start_minio(folder.path())) else { return };
//! ```
//!
//! `scripts/parts` gets the binaries. One that is not there is no failure: the test prints
//! `SKIPPED: reason` and passes; with `TICKMINT_REQUIRE_PARTS=1`, as in CI, it is fetched or built, and
//! where that cannot be, the test fails. A server that is there and does not start always fails the test.
//!
//! A server lives in a process group of its own and dies with its [`Server`], and with the test process
//! however that ends. Its data, its configuration and its log (`<name>.log`) lie in the given folder.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

/// The slowest seen was SeaweedFS with 25 s on two busy cores; who is not ready then never will be.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Another process may take a free port before the server does. That often in a row it is something else.
const STARTS: u32 = 4;

/// Below the range that Linux takes for outgoing connections, which could otherwise snatch them.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Runs the server until it ends or standard input does: the test holds the other end of that, so also a
/// killed test leaves nothing behind. The shell ends after the server has, and takes along what is left of
/// the process group.
const WITH_THE_TEST: &str = r#"
exec 3<&0
"$@" < /dev/null 3<&- &
server=$!
(read -r _ <&3; kill -KILL $server) &
wait $server
echo "ended with status $?" >&2
kill -KILL 0
"#;

/// Why a test cannot run here. It is not the test's fault.
#[derive(Debug)]
pub struct Skip(pub String);

/// The value, or nothing and a line that says why the test is left out.
pub fn or_skip<T>(outcome: Result<T, Skip>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(Skip(reason)) => {
            // Past the test harness, which shows only what failed tests print.
            let line = format!("SKIPPED: {reason}\n");
            std::io::stderr().write_all(line.as_bytes()).expect("stderr is open");
            // `scripts/test` says them once more at its end, where nobody overlooks them.
            if let Some(list) = std::env::var_os("TICKMINT_SKIPPED") {
                let mut list = std::fs::File::options().append(true).create(true).open(list).expect("the list can be written");
                list.write_all(line.as_bytes()).expect("the list can be written");
            }
            None
        }
    }
}

/// The path of a binary that `scripts/parts` provides.
pub fn part(name: &str) -> Result<PathBuf, Skip> {
    let is_required = std::env::var("TICKMINT_REQUIRE_PARTS").is_ok_and(|value| value == "1");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/parts");
    let mut command = Command::new(script);
    if !is_required {
        command.arg("--have"); // a test that nobody asked for builds nothing for minutes
    }
    let output = command.arg(name).stdin(Stdio::null()).output().expect("scripts/parts can be run");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(stdout.trim())),
        Some(3) if !is_required => {
            let reason = stderr.lines().next_back().unwrap_or(name);
            Err(Skip(reason.trim_start_matches("parts: ").to_owned()))
        }
        _ => panic!("`scripts/parts {name}` failed, {}:\n{stderr}", output.status),
    }
}

/// A running server.
pub struct Server {
    command: Command,
    process: Option<Process>,
    log: PathBuf,
    ready: Probe,
    endpoint: String,
    otlp: Option<String>,
}

/// Asked until it answers so.
#[derive(Clone)]
struct Probe {
    port: u16,
    path: &'static str,
    status: u16,
}

impl Server {
    pub const ACCESS_KEY: &str = "tickmint-test";
    pub const SECRET_KEY: &str = "tickmint-test-secret";
    pub const REGION: &str = "us-east-1";

    /// MinIO on one folder. Its conditional PUT is atomic under any contention.
    pub fn start_minio(dir: &Path) -> Result<Self, Skip> {
        let binary = part("minio")?;
        Ok(Self::start("minio", dir, |dir| {
            let [port] = free_ports();
            let mut command = Command::new(&binary);
            command
                .args(["server", "--quiet", "--address"])
                .arg(format!("127.0.0.1:{port}"))
                .arg(dir.join("minio"))
                .env("MINIO_ROOT_USER", Self::ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", Self::SECRET_KEY)
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off")
                .env("MINIO_PROMETHEUS_AUTH_TYPE", "public");
            (command, Probe { port, path: "/", status: 403 }, None)
        }))
    }

    /// SeaweedFS, all in one. Its conditional PUT is atomic too, but more than four writers of one name
    /// take seconds a round.
    pub fn start_seaweedfs(dir: &Path) -> Result<Self, Skip> {
        let binary = part("seaweedfs")?;
        Ok(Self::start("seaweedfs", dir, |dir| {
            let ports: [u16; 10] = free_ports();
            let names = ["s3.port", "master.port", "volume.port", "filer.port", "admin.port"];
            let mut command = Command::new(&binary);
            command.arg("-alsologtostderr=true").arg("mini");
            for (name, pair) in names.iter().zip(ports.chunks_exact(2)) {
                command.arg(format!("-{name}={}", pair[0])).arg(format!("-{name}.grpc={}", pair[1]));
            }
            command
                .arg(format!("-dir={}", dir.join("seaweedfs").display()))
                .arg(format!("-s3.localSocket={}", dir.join("s3.sock").display()))
                .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"])
                .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"])
                .env("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY);
            // It answers those without a key with 403, once it knows who has one.
            (command, Probe { port: ports[0], path: "/", status: 403 }, None)
        }))
    }

    /// Jaeger with a store in memory: OTLP in, query API out, no web page.
    pub fn start_jaeger(dir: &Path) -> Result<Self, Skip> {
        let binary = part("jaeger")?;
        Ok(Self::start("jaeger", dir, |dir| {
            let [query, query_grpc, otlp, otlp_grpc, health] = free_ports();
            let config = serde_json::json!({
                "service": {
                    "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
                    "pipelines": {"traces": {
                        "receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"],
                    }},
                    "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                },
                "extensions": {
                    "healthcheckv2": {"use_v2": true, "http": {"endpoint": local(health)}},
                    // A query with a greater limit is an error 500.
                    "jaeger_storage": {"backends": {"mem": {"memory": {"max_traces": 10_000}}}},
                    "jaeger_query": {
                        "storage": {"traces": "mem"},
                        // Otherwise Jaeger stores traces of its own queries among ours.
                        "enable_tracing": false,
                        "http": {"endpoint": local(query)},
                        "grpc": {"endpoint": local(query_grpc)},
                    },
                },
                "receivers": {"otlp": {"protocols": {
                    "grpc": {"endpoint": local(otlp_grpc)}, "http": {"endpoint": local(otlp)},
                }}},
                "exporters": {"jaeger_storage_exporter": {"trace_storage": "mem"}},
            });
            // JSON is YAML.
            let file = dir.join("jaeger.yaml");
            std::fs::write(&file, config.to_string()).expect("the test's folder can be written");
            let mut command = Command::new(&binary);
            command.arg("--config").arg(file);
            let probe = Probe { port: health, path: "/status", status: 200 };
            (command, probe, Some([query, otlp]))
        }))
    }

    /// Where it serves S3; of Jaeger, the query API.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where Jaeger takes OTLP over HTTP (`/v1/traces` below it).
    pub fn otlp_endpoint(&self) -> &str {
        self.otlp.as_deref().expect("only Jaeger takes traces")
    }

    /// Kills the server, as a crash of its machine would: nothing is flushed, connections break. Its data
    /// stay.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the stopped server again: same ports, same data.
    pub fn start_again(&mut self) {
        self.stop();
        if let Err(failure) = self.launch() {
            panic!("{failure:#}");
        }
    }

    /// `prepare` gives the command, how to know that it is ready, and of a server with several endpoints
    /// the ports of the query API and of OTLP. It is asked anew for each try, with other ports.
    fn start(name: &str, dir: &Path, prepare: impl Fn(&Path) -> (Command, Probe, Option<[u16; 2]>)) -> Self {
        std::fs::create_dir_all(dir.join(name)).expect("the test's folder can be written");
        let dir = dir.canonicalize().expect("the test's folder is there");
        let mut tries = 1;
        loop {
            let (mut command, ready, ports) = prepare(&dir);
            command.current_dir(&dir).env("HOME", &dir);
            let url = |port| format!("http://{}", local(port));
            let mut server = Self {
                command: with_the_test(&command),
                process: None,
                log: dir.join(format!("{name}.log")),
                endpoint: url(ports.map_or(ready.port, |[query, _]| query)),
                otlp: ports.map(|[_, otlp]| url(otlp)),
                ready,
            };
            match server.launch() {
                Ok(()) => return server,
                Err(_) if tries < STARTS => tries += 1,
                Err(failure) => panic!("{name}: {failure:#}"),
            }
        }
    }

    /// Returns when it is ready.
    fn launch(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        self.command.stdout(log.try_clone()?).stderr(log);
        let mut process = Process(self.command.spawn().context("cannot be started")?);
        let begun = Instant::now();
        while self.ready.ask().ok() != Some(self.ready.status) {
            if let Some(status) = process.0.try_wait()? {
                anyhow::bail!("has ended, {status}:\n{}", self.log_tail());
            }
            anyhow::ensure!(begun.elapsed() < READY_WITHIN, "not ready after {READY_WITHIN:?}:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// The server's process group. Ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take()); // the shell reads the end of its input and kills the server
        if let Err(error) = self.0.wait() {
            eprintln!("a test's server could not be waited for: {error}");
        }
    }
}

/// The command, in a process group of its own that ends with the test.
fn with_the_test(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", WITH_THE_TEST, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell.stdin(Stdio::piped()).process_group(0);
    shell
}

impl Probe {
    /// One GET; the status of the answer.
    fn ask(&self) -> anyhow::Result<u16> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let (path, host) = (self.path, local(self.port));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12]; // "HTTP/1.1 200"
        stream.read_exact(&mut start)?;
        Ok(std::str::from_utf8(&start[9..])?.parse()?)
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Ports that nobody listens on now. Two calls in one process never return the same, and processes begin
/// at different places.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    let first = (std::process::id() % u32::from(count)) as u16; // less than 22,000
    std::array::from_fn(|_| {
        let mut candidates = (0..count).map(|_| {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % count;
            PORTS.start + (first + step) % count
        });
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        candidates.find(is_free).expect("some port is free")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(url: &str) -> bool {
        let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
        TcpStream::connect(address).is_ok()
    }

    fn starts_stops_and_starts_again(start: fn(&Path) -> Result<Server, Skip>) {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut server) = or_skip(start(folder.path())) else {
            return;
        };
        let endpoint = server.endpoint().to_owned();
        assert!(answers(&endpoint));
        server.stop();
        assert!(!answers(&endpoint));
        server.start_again();
        assert!(answers(&endpoint));
        drop(server);
        assert!(!answers(&endpoint));
    }

    #[test]
    fn minio_starts_stops_and_starts_again() {
        starts_stops_and_starts_again(Server::start_minio);
    }

    #[test]
    fn seaweedfs_starts_stops_and_starts_again() {
        starts_stops_and_starts_again(Server::start_seaweedfs);
    }

    #[test]
    fn jaeger_starts_stops_and_starts_again() {
        starts_stops_and_starts_again(Server::start_jaeger);
    }

    fn ask(url: &str, request: &str, body: &str) -> String {
        let host = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn jaeger_shows_the_traces_that_it_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let Some(jaeger) = or_skip(Server::start_jaeger(folder.path())) else {
            return;
        };
        let trace = "5b8efff798038103d269b633813fc60c";
        let service = serde_json::json!({"key": "service.name", "value": {"stringValue": "tickmint"}});
        let span = serde_json::json!({
            "traceId": trace, "spanId": "eee19b7ec3c1b174", "name": "frame",
            "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000",
        });
        let body = serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}],
        }]});
        let answer = ask(jaeger.otlp_endpoint(), "POST /v1/traces", &body.to_string());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let query = format!("GET /api/traces/{trace}");
        while !ask(jaeger.endpoint(), &query, "").contains("eee19b7ec3c1b174") {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_server_that_ends_takes_its_shell_along() {
        let mut command = with_the_test(Command::new("true").arg("ignored"));
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take(); // stays open: waiting would close it
        assert!(!child.wait().unwrap().success());
        drop(input);
    }

    #[test]
    fn no_port_is_given_out_twice() {
        let mut ports = [free_ports::<5>(), free_ports::<5>()].concat();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 10);
    }
}
