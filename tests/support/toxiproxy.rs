//! Toxiproxy for tests: connections that are slow, cut or refused on request, as a child of the test.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::http::request;
use super::servers::{Probe, Server, Skip, free_ports, part};

/// A running Toxiproxy.
pub struct Toxiproxy {
    server: Server,
}

impl Toxiproxy {
    /// Returns when it answers. It has no proxies yet.
    pub fn start(dir: &Path) -> Result<Self, Skip> {
        let binary = part("toxiproxy")?;
        let server = Server::start("toxiproxy", dir, |_| {
            let [port] = free_ports();
            let mut command = Command::new(&binary);
            command.args(["-host", "127.0.0.1", "-port"]).arg(port.to_string());
            (command, Probe { port, path: "/version", status: 200 }, None)
        });
        Ok(Self { server })
    }

    /// A proxy before `upstream` (host and port); where it listens. For Kafka see
    /// [`Kafka::behind`](super::kafka::Kafka::behind): its brokers tell clients where they are.
    pub fn proxy(&self, name: &str, upstream: &str) -> String {
        let [port] = free_ports();
        let listen = super::servers::local(port);
        self.proxy_at(name, &listen, upstream);
        listen
    }

    /// A proxy that listens there.
    pub fn proxy_at(&self, name: &str, listen: &str, upstream: &str) {
        self.ask("POST", "/proxies", 201, Some(json!({"name": name, "listen": listen, "upstream": upstream, "enabled": true})));
    }

    /// Whether the proxy takes connections. Not enabled it cuts those that it has, and refuses others.
    pub fn set_enabled(&self, proxy: &str, is_enabled: bool) {
        self.ask("POST", &format!("/proxies/{proxy}"), 200, Some(json!({"enabled": is_enabled})));
    }

    /// Adds a toxic to what goes downstream (to the client): `latency` with `{"latency": 300}` (ms), `timeout`
    /// with `{"timeout": 0}` (nothing comes any more), `bandwidth` with `{"rate": 10}` (KB/s), `reset_peer`,
    /// `slow_close`, `slicer`, `limit_data`. It is named after its kind.
    pub fn add_toxic(&self, proxy: &str, kind: &str, attributes: Value) {
        let toxic = json!({"name": kind, "type": kind, "stream": "downstream", "attributes": attributes});
        self.ask("POST", &format!("/proxies/{proxy}/toxics"), 200, Some(toxic));
    }

    /// As [`add_toxic`](Self::add_toxic), on what goes upstream (to the server); named `upstream-` and its kind.
    pub fn add_upstream_toxic(&self, proxy: &str, kind: &str, attributes: Value) {
        let toxic = json!({"name": format!("upstream-{kind}"), "type": kind, "stream": "upstream", "attributes": attributes});
        self.ask("POST", &format!("/proxies/{proxy}/toxics"), 200, Some(toxic));
    }

    /// Takes a toxic away again.
    pub fn remove_toxic(&self, proxy: &str, name: &str) {
        self.ask("DELETE", &format!("/proxies/{proxy}/toxics/{name}"), 204, None);
    }

    /// Takes all toxics away, and enables all proxies.
    pub fn reset(&self) {
        self.ask("POST", "/reset", 204, None);
    }

    fn ask(&self, method: &str, path: &str, wanted: u16, body: Option<Value>) {
        // Who is sent a body that he does not read resets the connection.
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let (status, said) = request(method, &format!("{}{path}", self.server.endpoint()), &body).expect("toxiproxy answers");
        assert_eq!(status, wanted, "{method} {path} {body}: {said}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::support::servers::or_skip;

    /// Sends back each line of each connection.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        address
    }

    /// The line that comes back, nothing if the connection ends.
    fn say(stream: &TcpStream) -> Option<String> {
        let mut line = String::new();
        (&*stream).write_all(b"hello\n").ok()?;
        let read = BufReader::new(stream).read_line(&mut line).ok()?;
        (read > 0).then_some(line)
    }

    #[test]
    fn it_passes_delays_cuts_and_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let Some(toxiproxy) = or_skip(Toxiproxy::start(folder.path())) else {
            return;
        };
        let address = toxiproxy.proxy("echo", &echo());
        let stream = TcpStream::connect(&address).unwrap();
        assert_eq!(say(&stream).unwrap(), "hello\n");

        toxiproxy.add_toxic("echo", "latency", json!({"latency": 200}));
        let begun = Instant::now();
        assert_eq!(say(&stream).unwrap(), "hello\n");
        assert!(begun.elapsed() >= Duration::from_millis(200));
        toxiproxy.remove_toxic("echo", "latency");
        toxiproxy.add_upstream_toxic("echo", "timeout", json!({"timeout": 0}));
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(say(&stream), None);

        toxiproxy.set_enabled("echo", false);
        assert!(TcpStream::connect(&address).is_err());
        toxiproxy.reset();
        let stream = TcpStream::connect(&address).unwrap();
        assert_eq!(say(&stream).unwrap(), "hello\n");
        toxiproxy.set_enabled("echo", false);
        assert_eq!(say(&stream), None);
    }
}
