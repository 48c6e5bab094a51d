//! The processes of the demo: the exchange and the daemon, as `tickmint exchange` and `tickmint run`
//! would be.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Source;
use crate::commands::client;

/// How long the exchange has to come up.
const UP_WITHIN: Duration = Duration::from_secs(20);

/// A running exchange.
pub(super) struct Exchange {
    pub(super) process: Child,
    pub(super) address: SocketAddr,
}

impl Exchange {
    /// Starts it with as many keys.
    pub(super) async fn start(source: &Source, keys: usize, dir: &Path) -> Result<Exchange> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exchange", "--listen", "127.0.0.1:0", "--ledger"]).arg(dir.join("exchange.ledger"));
        match source {
            Source::Tape { file, speed } => command.arg("--tape").arg(file).args(["--speed", speed]),
            Source::Market { symbols, rate } => {
                command.args(["--simulate", &symbols.to_string()]);
                if let Some(rate) = rate {
                    command.args(["--rate", &rate.to_string()]);
                }
                &mut command
            }
        };
        for n in 1..=keys {
            command.args(["--key", &format!("demo-{n}")]);
        }
        let log = dir.join("exchange.log");
        let stderr = std::fs::File::create(&log)?;
        let mut process =
            own(&mut command).stdout(Stdio::piped()).stderr(stderr).spawn().context("the exchange cannot be started")?;
        let stdout = process.stdout.take().context("its output was piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(UP_WITHIN, lines.next_line()).await.context("the exchange does not come up")??;
        let Some(address) = line.as_deref().and_then(|line| line.rsplit("ws://").next()?.trim().parse().ok()) else {
            bail!("the exchange did not come up: {}", last_words(&log));
        };
        Ok(Exchange { process, address })
    }

    pub(super) async fn status(&self) -> Option<Value> {
        client::get(self.address, "/status", None).await.ok()
    }
}

/// Starts the daemon.
pub(super) fn start_daemon(log: &Path, config: &Path) -> Result<Child> {
    let stderr = std::fs::File::create(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(stderr);
    own(&mut command).spawn().context("the daemon cannot be started")
}

/// A process that ends with this one, and that Ctrl-C in the terminal does not reach: the demo tells
/// each when its time has come.
fn own(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only one system call is made, which is safe there.
    unsafe {
        command.pre_exec(|| {
            // However the demo dies, its parts are told. Linux only; elsewhere they outlive a `kill -9`.
            #[cfg(target_os = "linux")]
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.process_group(0).stdin(Stdio::null()).kill_on_drop(true)
}

/// Asks a process to end.
pub(super) fn tell(process: &Child) {
    if let Some(pid) = process.id().and_then(|pid| libc::pid_t::try_from(pid).ok()) {
        // SAFETY: a system call on a child that has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Asks a process to end, and waits for it. One that has ended already is fine.
pub(super) async fn stop(process: &mut Child, within: Duration, use_of: &mut Use) -> Result<ExitStatus> {
    tell(process);
    let until = Instant::now() + within;
    loop {
        use_of.look(process);
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > until {
            bail!("it takes longer than {within:?} to end");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The last line of a log.
pub(super) fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    last.strip_prefix("tickmint: ").unwrap_or(last).to_string()
}

/// What the daemon took of the machine, as the kernel counts it; the Python process is not in it.
#[derive(Default)]
pub(super) struct Use {
    /// The peak of its resident memory, bytes.
    pub(super) memory: u64,
    /// User and system time, seconds.
    pub(super) cpu: f64,
}

impl Use {
    pub(super) fn look(&mut self, process: &Child) {
        let Some(pid) = process.id() else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        self.memory = peak.map_or(self.memory, |kib| kib << 10);
        // Fields 14 and 15 of proc(5), in ticks of 1/100 s; the name before them may hold spaces.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if let (Some(Ok(user)), Some(Ok(system))) =
            (fields.get(11).map(|n| n.parse::<u64>()), fields.get(12).map(|n| n.parse::<u64>()))
        {
            self.cpu = (user + system) as f64 / 100.0;
        }
    }
}
