//! A real schema registry for tests: Apicurio's, which speaks Confluent's API, as a child of the test.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::servers::{Probe, Server, Skip, free_ports, part};

/// Where Confluent's API begins. A bare `/subjects` is 404.
const BASE: &str = "/apis/ccompat/v7";

/// A running registry. It starts within 1.7 s of processor time and takes 165 MiB.
pub struct Registry {
    server: Server,
    /// Of what it knows.
    folder: PathBuf,
}

impl Registry {
    /// Returns when it answers. A new one allows everything: its compatibility is NONE. What it knows lies in
    /// the folder, and a kill costs nothing of it.
    pub fn start(dir: &Path) -> Result<Self, Skip> {
        let binary = part("registry")?;
        let server = Server::start("registry", dir, |dir| {
            let [port] = free_ports();
            let mut command = Command::new(&binary);
            command.arg(port.to_string()).arg(dir.join("registry/schemas"));
            (command, Probe { port, path: "/apis/ccompat/v7/subjects", status: 200 }, None)
        });
        Ok(Self { server, folder: dir.join("registry") })
    }

    /// What a client takes for its registry: a URL with a path.
    pub fn url(&self) -> String {
        format!("{}{BASE}", self.server.endpoint())
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Of the stopped registry, all schemas are gone.
    pub fn forget(&self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }

    /// Starts the stopped registry again: same port, same schemas.
    pub fn start_again(&mut self) {
        self.server.start_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::http::request;
    use crate::support::servers::or_skip;

    fn schema(fields: &str) -> String {
        let schema = format!(r#"{{"type": "record", "name": "Trade", "fields": [{{"name": "p", "type": "string"}}{fields}]}}"#);
        serde_json::json!({ "schema": schema }).to_string()
    }

    #[test]
    fn it_refuses_what_is_not_compatible_both_ways_also_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut registry) = or_skip(Registry::start(folder.path())) else {
            return;
        };
        let ask = |method: &str, url: &str, body: &str| request(method, url, body).unwrap();
        let (config, versions) =
            (format!("{}/config", registry.url()), format!("{}/subjects/trades-value/versions", registry.url()));
        assert!(ask("GET", &config, "").1.contains("NONE"));
        assert_eq!(ask("PUT", &config, r#"{"compatibility": "FULL_TRANSITIVE"}"#).0, 200);
        assert_eq!(ask("POST", &versions, &schema("")).0, 200);
        registry.stop();
        assert!(request("GET", &config, "").is_err());
        registry.start_again();
        assert_eq!(ask("POST", &versions, &schema(r#", {"name": "v", "type": "string"}"#)).0, 409);
        assert_eq!(ask("POST", &versions, &schema(r#", {"name": "v", "type": "string", "default": ""}"#)).0, 200);
        assert_eq!(ask("GET", &versions, ""), (200, "[1,2]".to_owned()));
    }
}
