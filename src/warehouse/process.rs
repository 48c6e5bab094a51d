//! The refiner process: started, spoken to over its pipes, killed when it hangs. It ends by itself
//! when its standard input closes, so it never outlives the daemon.

use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::protocol::{self, Done, Event, SlotRow, TailRow, VERSION};
use crate::config::WarehouseConfig;
use crate::io::store::S3Access;
use crate::telemetry::metrics::Failing;

/// Python, dbt and DuckDB are loaded and the project is parsed within this.
const START_WITHIN: Duration = Duration::from_secs(120);

/// It finishes what it does, or is killed, within this.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The process that runs, by its id; 0 if none does.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// Kills the process that still runs, for an end of this one that drops nothing. One that is stopped or hangs
/// would not see that its standard input has closed. Whether there was one.
pub fn kill_left_behind() -> bool {
    let left = RUNNING.swap(0, Relaxed);
    if left != 0 {
        kill_group(left);
    }
    left != 0
}

/// It leads a group of its own, so what it has started itself goes with it.
fn kill_group(leader: u32) {
    if let Ok(leader) = libc::pid_t::try_from(leader) {
        // SAFETY: `kill` takes two numbers. That the process is gone is no error here.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}

/// Why a round was not refined.
#[derive(Debug, thiserror::Error)]
pub enum RefineError {
    /// The process is gone, hangs or speaks nonsense: it must be started anew.
    #[error("the refiner process {0}")]
    Process(String),
    /// dbt or DuckDB says no. Gold stays at the last good version.
    #[error("the warehouse failed in {phase}: {error}")]
    Failed {
        /// Where.
        phase: String,
        /// Why.
        error: String,
        /// Whether the same may succeed later.
        retryable: bool,
        /// What the warehouse's book says of it, if it could be written down.
        failing: Option<Failing>,
    },
}

/// The running process.
pub struct Refinery {
    child: Child,
    /// Closed when it is told to stop.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    next_id: u64,
}

/// What it is given for a run.
pub struct Work<'a> {
    /// In the order of their chains.
    pub slots: &'a [SlotRow],
    /// How the objects are read, where they lie in a bucket.
    pub s3: Option<&'a S3Access>,
    /// The W3C trace context of this run, where it is sampled.
    pub traceparent: Option<&'a str>,
    /// The rounds before that failed.
    pub failing: Option<&'a Failing>,
}

/// What it said when it came up.
pub struct Hello {
    /// The last run that was published.
    pub run: u64,
    /// What it has of each chain.
    pub tails: std::collections::BTreeMap<String, TailRow>,
    /// What its book says of rounds that failed.
    pub failing: Option<Failing>,
}

/// The dbt variables, as JSON. Gold is made anew when the rules among them change.
pub fn variables(config: &WarehouseConfig) -> String {
    serde_json::json!({ "sale_conditions": config.sale_conditions, "positions": config.positions }).to_string()
}

impl Refinery {
    /// Starts it and waits until it is up.
    pub async fn start(python: &std::path::Path, config: &WarehouseConfig) -> Result<(Refinery, Hello), RefineError> {
        let mut command = Command::new(python);
        command
            .args(["-m", "refiner", "--db"])
            .arg(&config.database)
            .arg("--gold")
            .arg(&config.gold_dir)
            .args(["--vars", &variables(config)])
            .current_dir(&config.project_dir)
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| RefineError::Process(format!("cannot be started: {error}")))?;
        RUNNING.store(child.id().unwrap_or_default(), Relaxed);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("it was piped");
        let mut refinery = Refinery { child, stdin, lines: BufReader::new(stdout).lines(), next_id: 0 };
        let event = timeout(START_WITHIN, refinery.event()).await;
        match event.map_err(|_| RefineError::Process(format!("was not up after {START_WITHIN:?}")))?? {
            Event::Hello { version: VERSION, run, tails, failing } => Ok((refinery, Hello { run, tails, failing })),
            Event::Hello { version, .. } => {
                Err(RefineError::Process(format!("speaks version {version} of the protocol, this program {VERSION}")))
            }
            Event::Failed { phase, error, retryable, failing, .. } => {
                Err(RefineError::Failed { phase, error, retryable, failing })
            }
            other => Err(RefineError::Process(format!("did not greet but said {other:?}"))),
        }
    }

    /// Has the slots refined. `progress` is told the phases, the first of them at once. A run may take as
    /// long as it likes, as long as it is heard of: `silence` is the longest time that it is not.
    pub async fn refine(&mut self, work: Work<'_>, silence: Duration, progress: impl Fn(&str)) -> Result<Done, RefineError> {
        self.next_id += 1;
        let wanted = self.next_id;
        let Work { slots, s3, traceparent, failing } = work;
        let command = protocol::Command::Refine { id: wanted, traceparent, s3, failing, slots };
        let hung = |_| RefineError::Process(format!("hangs: it has not worked for {silence:?} (`warehouse.run_timeout`)"));
        progress("load");
        timeout(silence, self.send(&command)).await.map_err(hung)??;
        loop {
            match timeout(silence, self.event()).await.map_err(hung)?? {
                Event::Progress { id, again: true, .. } if id == wanted => {}
                Event::Progress { id, phase, .. } if id == wanted => progress(&phase),
                Event::Done(done) if done.id == wanted => return Ok(done),
                Event::Failed { id, phase, error, retryable, failing } if id == wanted => {
                    return Err(RefineError::Failed { phase, error, retryable, failing });
                }
                other => return Err(RefineError::Process(format!("answered out of turn: {other:?}"))),
            }
        }
    }

    /// Lets it finish and exit; kills it if it does not.
    pub async fn stop(mut self) {
        let told = self.send(&protocol::Command::Stop).await.is_ok();
        drop(self.stdin.take());
        if !told || timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }

    async fn send(&mut self, command: &protocol::Command<'_>) -> Result<(), RefineError> {
        let mut line = serde_json::to_vec(command).expect("a command has only string keys");
        line.push(b'\n');
        let Some(stdin) = &mut self.stdin else { return Err(RefineError::Process("was told to stop".into())) };
        stdin.write_all(&line).await.map_err(|error| RefineError::Process(format!("does not listen: {error}")))
    }

    async fn event(&mut self) -> Result<Event, RefineError> {
        match self.lines.next_line().await {
            Ok(Some(line)) => {
                serde_json::from_str(&line).map_err(|error| RefineError::Process(format!("said `{line}`: {error}")))
            }
            Ok(None) => {
                let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(RefineError::Process(format!("ended ({status}); its last words are in the log")))
            }
            Err(error) => Err(RefineError::Process(format!("cannot be read: {error}"))),
        }
    }
}

impl Drop for Refinery {
    fn drop(&mut self) {
        // No id: it has ended, and been waited for.
        if let Some(running) = self.child.id() {
            kill_group(running);
        }
        RUNNING.store(0, Relaxed);
    }
}
