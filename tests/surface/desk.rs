//! A desk to sit at and use the program as a person would: a folder, a config, a port, and what the
//! program said. Whatever it says must not hold a secret.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub(super) const TICKMINT: &str = env!("CARGO_BIN_EXE_tickmint");

/// All keys, tokens and passwords of these tests begin with it.
pub(super) const SECRET: &str = "hunter2";

/// Symbols of the simulated market.
const SYMBOLS: usize = 3;

/// Nothing here takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command said and how it ended.
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ran {
    /// It ended so, and said all of this, and no secret.
    #[track_caller]
    pub(super) fn says(&self, code: i32, parts: &[&str]) -> &Ran {
        let Ran { out, err, .. } = self;
        let said = format!("exit code {:?}\n--- stdout\n{out}\n--- stderr\n{err}", self.code);
        assert!(!out.contains(SECRET) && !err.contains(SECRET), "a secret is shown: {said}");
        assert_eq!(self.code, Some(code), "{said}");
        for part in parts {
            assert!(out.contains(part) || err.contains(part), "`{part}` is not in {said}");
        }
        self
    }
}

/// A process that does not outlive its test.
pub(super) struct Process {
    pub(super) child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    pub(super) fn signal(&self, name: &str) {
        let told = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// The exit code, when it has come.
    pub(super) fn ends(&mut self) -> Option<i32> {
        let mut code = None;
        wait(&format!("it ends; its log:\n{}", self.log()), || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log says so.
    pub(super) fn until_it_says(&self, text: &str) {
        wait(&format!("it says `{text}`"), || self.log().contains(text));
    }
}

/// An answer of the web server.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A folder with a config.
pub(super) struct Desk {
    pub(super) dir: tempfile::TempDir,
    pub(super) listen: SocketAddr,
}

impl Desk {
    pub(super) fn new() -> Desk {
        let desk = Desk { dir: tempfile::tempdir().unwrap(), listen: free_address() };
        desk.write("key", &format!("{SECRET}-key\n"));
        desk.config(&[]);
        desk
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes the config: all is well, the feed's server is away, nothing is refined; but these
    /// sections are so.
    pub(super) fn config(&self, sections: &[(&str, &str)]) {
        let usual = [
            ("", format!("data_dir = {:?}\ndrain_within = \"50s\"", self.path("data"))),
            ("http", format!("listen = \"{}\"", self.listen)),
            ("feed", "url = \"ws://127.0.0.1:1\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"".to_string()),
            ("bronze", "flush_after = \"150ms\"".to_string()),
            ("warehouse", "enabled = false".to_string()),
        ];
        let mut text = String::new();
        let mut add = |name: &str, lines: &str| {
            let head = if name.is_empty() { String::new() } else { format!("[{name}]\n") };
            text.push_str(&format!("{head}{lines}\n"));
        };
        for (name, lines) in &usual {
            let other = sections.iter().find(|(other, _)| other == name);
            add(name, other.map_or(lines.as_str(), |(_, lines)| lines));
        }
        for (name, lines) in sections.iter().filter(|(name, _)| usual.iter().all(|(other, _)| other != name)) {
            add(name, lines);
        }
        text.push_str(&format!(
            "[[feed.keys]]\nkey_file = {:?}\nsymbols = {:?}\n",
            self.path("key"),
            tickmint::exchange::simulated_symbols(SYMBOLS)
        ));
        self.write("tickmint.toml", &text);
    }

    /// A command of the program in this folder, with `--config` where that stands.
    pub(super) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(TICKMINT);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env_remove("RUST_LOG");
        for word in line.split_whitespace() {
            match word {
                "--config" => command.arg("--config").arg("tickmint.toml"),
                word => command.arg(word),
            };
        }
        command
    }

    pub(super) fn run(&self, line: &str) -> Ran {
        self.finish(&mut self.command(line))
    }

    /// Runs it to its end.
    pub(super) fn finish(&self, command: &mut Command) -> Ran {
        let out = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        command.stdout(out.reopen().unwrap());
        let mut process = self.begin(command);
        let code = process.ends();
        Ran { code, out: std::fs::read_to_string(out.path()).unwrap(), err: process.log() }
    }

    /// Starts it.
    pub(super) fn begin(&self, command: &mut Command) -> Process {
        let (log, path) = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap().keep().unwrap();
        Process { child: command.stderr(log).spawn().unwrap(), log: path }
    }

    /// A daemon that listens.
    pub(super) fn daemon(&self) -> Process {
        let process = self.begin(&mut self.command("run --config"));
        wait("the daemon listens", || self.get("/livez").is_some());
        process
    }

    /// An exchange with this key, and its address; the daemon's config goes to it with `sections`.
    pub(super) fn exchange(&self, key: &str, args: &str, sections: &[(&str, &str)]) -> Process {
        let mut command =
            self.command(&format!("exchange --listen 127.0.0.1:0 --ledger ledger --simulate {SYMBOLS} --key {key} {args}"));
        let mut process = self.begin(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("ws://").next().unwrap().to_string();
        let feed = format!("url = \"ws://{address}\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"");
        let mut all = vec![("feed", feed.as_str())];
        all.extend_from_slice(sections);
        self.config(&all);
        process
    }

    pub(super) fn get(&self, path: &str) -> Option<Answer> {
        get(self.listen, path, "")
    }

    /// Waits until what is there is as wanted.
    pub(super) fn until(&self, what: &str, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let mut found = None;
        wait(what, || {
            found = self.get(path).filter(|answer| wanted(answer));
            found.is_some()
        });
        found.unwrap()
    }
}

/// One request, with more headers.
pub(super) fn get(server: SocketAddr, path: &str, headers: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.into(), body: body.into() })
}

pub(super) fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Where nobody listened a moment ago.
pub(super) fn free_address() -> SocketAddr {
    let [port] = crate::support::servers::free_ports();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The folder of the dbt project.
pub(super) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt")
}
