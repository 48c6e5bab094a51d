//! Real servers for tests: MinIO, SeaweedFS and Jaeger as children of the test, on the loopback. (The cluster's own
//! are in [`kafka`](super::kafka), [`registry`](super::registry) and [`toxiproxy`](super::toxiproxy).)
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

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::http::request;
use super::process::{Process, STARTS};
pub(crate) use super::process::{free_port_before, free_ports};

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
    let is_required = is_required();
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

/// Whether what is not to be had fails a test.
pub(super) fn is_required() -> bool {
    std::env::var("TICKMINT_REQUIRE_PARTS").is_ok_and(|value| value == "1")
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
pub(super) struct Probe {
    pub(super) port: u16,
    pub(super) path: &'static str,
    pub(super) status: u16,
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
    pub(super) fn start(name: &str, dir: &Path, prepare: impl Fn(&Path) -> (Command, Probe, Option<[u16; 2]>)) -> Self {
        std::fs::create_dir_all(dir.join(name)).expect("the test's folder can be written");
        let dir = dir.canonicalize().expect("the test's folder is there");
        let mut tries = 1;
        loop {
            let (mut command, ready, ports) = prepare(&dir);
            command.current_dir(&dir).env("HOME", &dir);
            let url = |port| format!("http://{}", local(port));
            let mut server = Self {
                command,
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
        let mut process = Process::start(&self.command, &self.log)?;
        let url = format!("http://{}{}", local(self.ready.port), self.ready.path);
        let status = || request("GET", &url, "").ok().map(|(status, _)| status);
        process.wait_until(|_| status() == Some(self.ready.status))?;
        self.process = Some(process);
        Ok(())
    }
}

pub(super) fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

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
        let traces = format!("{}/v1/traces", jaeger.otlp_endpoint());
        assert_eq!(request("POST", &traces, &body.to_string()).unwrap().0, 200);
        let query = format!("{}/api/traces/{trace}", jaeger.endpoint());
        while !request("GET", &query, "").unwrap().1.contains("eee19b7ec3c1b174") {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
