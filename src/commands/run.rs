//! `tickmint run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use tokio::time::timeout;

use super::signals::Signals;
use super::{BLOCKED, GAVE_UP, NOT_DRAINED};
use crate::app;
use crate::config::{self, Config};
use crate::supervisor::Outcome;
use crate::telemetry::{self, Metrics, Traces};
use crate::warehouse::process;

/// Arguments of `run`.
#[derive(clap::Args)]
#[command(after_help = "\
SIGTERM or Ctrl-C stops it in order, within `drain_within` (60 s by default): what was received is
archived and refined; with `[kafka]` it is sent, and the other daemons archive it, or this one when it
runs again. A second signal ends it at once; what is not archived stays in the spool for the next start.

Examples:
  cp config/example.toml tickmint.toml             every option with its default and a sentence
  tickmint check                                   whether it can run
  tickmint run
  tickmint status                                  meanwhile, elsewhere")]
pub struct Args {
    /// The config; see config/example.toml
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, or until the tree gives up. Both end with an ordered drain.
pub fn run(args: Args) -> Result<ExitCode> {
    #[cfg(feature = "faults")]
    crate::faults::start();
    let config = Config::load(&args.config)?;
    let telemetry = telemetry::start(&config.telemetry)?;
    let code = actix::System::new().block_on(daemon(config, telemetry.traces.clone()));
    drop(telemetry);
    // `exit` and not a return: a thread that is blocked must not keep the process.
    match code {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => Err(error),
    }
}

async fn daemon(config: Config, traces: Traces) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let app = tokio::select! {
        app = app::start(&config, Arc::new(Metrics::new()), &traces) => app?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before it ran");
            return Ok(0);
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), store = app.store.describe(), "tickmint runs");
    let failed = tokio::select! {
        outcome = app.root.failed() => Some(outcome),
        signal = signals.next() => {
            tracing::info!(signal, "stopping: draining");
            None
        }
    };
    if let Some(outcome) = &failed {
        tracing::error!(reason = %outcome, "the tree gives up; draining what still runs");
    }
    let late = tokio::select! {
        stopped = timeout(config.drain_within, app.root.shutdown()) => match stopped {
            Ok(undrained) => undrained.iter().map(ToString::to_string).collect(),
            Err(_) => vec![format!("not everything stopped within {:?} (`drain_within`)", config.drain_within)],
        },
        signal = signals.next() => vec![format!("ended at once by a second signal ({signal})")],
    };
    if process::kill_left_behind() {
        tracing::warn!("the refiner process did not end in time and was killed; the next start goes on where its tables are");
    }
    if !late.is_empty() {
        tracing::warn!(?late, "not drained in time; what is durable is there for the next start");
    }
    Ok(code(failed.as_ref(), late.is_empty()))
}

fn code(failed: Option<&Outcome>, drained: bool) -> u8 {
    match failed {
        Some(Outcome::Blocked(_)) => BLOCKED,
        Some(Outcome::GaveUp(_) | Outcome::Fatal(_)) => GAVE_UP,
        None if drained => 0,
        None => NOT_DRAINED,
    }
}
