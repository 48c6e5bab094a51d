//! A server as a child of the test: in a process group of its own, gone when its [`Process`] is, and when the
//! test process is, however that ends.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

/// The slowest seen was SeaweedFS with 25 s on two busy cores; who is not ready then never will be.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Another process may take a free port before the server does. That often in a row it is something else.
pub(super) const STARTS: u32 = 4;

/// Below the range that Linux takes for outgoing connections, which could otherwise snatch them.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Runs the server until it ends or standard input does: the test holds the other end of that, so also a
/// killed test leaves nothing behind. The shell says the server's pid, ends after the server has, and takes
/// along what is left of the process group.
const WITH_THE_TEST: &str = r#"
exec 3<&0
"$@" < /dev/null 3<&- >&2 &
server=$!
echo $server
(read -r _ <&3; kill -KILL $server) &
wait $server
echo "ended with status $?" >&2
kill -KILL 0
"#;

/// A running server. Ends with this value.
pub(super) struct Process {
    shell: Child,
    server: libc::pid_t,
    log: PathBuf,
    /// Where this run begins in the log.
    begin: u64,
}

impl Process {
    /// Starts the command; what it prints is added to the log.
    pub(super) fn start(command: &Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(log)?;
        let begin = file.metadata()?.len();
        let mut shell = with_the_test(command).stderr(file).spawn().context("cannot be started")?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let server = line.trim().parse().context("the shell tells the server's pid")?;
        Ok(Self { shell, server, log: log.to_owned(), begin })
    }

    /// Returns when it is ready: `is_ready` is asked with what this run has printed.
    pub(super) fn wait_until(&mut self, is_ready: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !is_ready(&self.printed()) {
            self.check()?;
            anyhow::ensure!(begun.elapsed() < READY_WITHIN, "not ready after {READY_WITHIN:?}:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let status = self.shell.try_wait()?;
        anyhow::ensure!(status.is_none(), "has ended:\n{}", self.log_tail());
        Ok(())
    }

    /// Sends a signal to the server (and to nobody else of its group).
    pub(super) fn signal(&self, signal: libc::c_int) {
        // SAFETY: no memory is involved. The pid is the server's: its parent reaps it, and then ends at once.
        let sent = unsafe { libc::kill(self.server, signal) };
        assert_eq!(sent, 0, "the server is gone:\n{}", self.log_tail());
    }

    /// Stops the server, until it is sent `SIGCONT`. One of its threads hears of it, and the others run on for a moment: this
    /// returns when all stand.
    pub(super) fn pause(&self) {
        self.signal(libc::SIGSTOP);
        let begun = Instant::now();
        while !self.stands() {
            assert!(begun.elapsed() < READY_WITHIN, "it does not stop:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stands(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.server)).expect("the server is there");
        let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        // Behind the name, which may hold anything.
        states.all(|state| state.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    }

    /// Returns when the server has ended by itself.
    pub(super) fn wait_for_the_end(mut self, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.shell.try_wait()?.is_none() {
            anyhow::ensure!(begun.elapsed() < within, "has not ended after {within:?}:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What this run has printed.
    fn printed(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = std::fs::File::open(&self.log)
            && file.seek(SeekFrom::Start(self.begin)).is_ok()
        {
            file.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        let printed = self.printed();
        let lines: Vec<_> = printed.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.shell.stdin.take()); // the shell reads the end of its input and kills the server
        if let Err(error) = self.shell.wait() {
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
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    shell
}

/// Ports that nobody listens on now. Two calls in one process never return the same, and processes begin
/// at different places.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port_before(0))
}

/// As [`free_ports`]; so many (a few) behind it are free as well.
pub(crate) fn free_port_before(others: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start - 100; // all ports behind the last one are below the end
    let first = (std::process::id() % u32::from(count)) as u16;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut candidates = (0..count).map(|_| {
        let step = NEXT.fetch_add(1 + others, Ordering::Relaxed) % count;
        PORTS.start + (first + step) % count
    });
    candidates.find(|port| (*port..=port + others).all(is_free)).expect("some ports are free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_takes_its_shell_along() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(Command::new("true").arg("ignored"), &folder.path().join("log")).unwrap();
        let input = process.shell.stdin.take(); // stays open: its end would kill
        process.wait_for_the_end(Duration::from_secs(10)).unwrap();
        drop(input);
    }

    #[test]
    fn a_server_that_dies_while_it_is_waited_for_is_told_of_with_what_it_said_last() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "ready, says the run before\n").unwrap();
        let mut process = Process::start(Command::new("sh").args(["-c", "echo no luck; exit 7"]), &log).unwrap();
        let said = process.wait_until(|printed| printed.contains("ready")).unwrap_err().to_string();
        assert!(said.contains("no luck\nended with status 7") && !said.contains("the run before"), "{said}");
    }

    #[test]
    fn no_port_is_given_out_twice() {
        let mut ports = [free_ports::<5>(), free_ports::<5>()].concat();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 10);
    }
}
