//! `tickmint run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::{BLOCKED, GAVE_UP, NOT_DRAINED};
use crate::app;
use crate::config::Config;
use crate::supervisor::Outcome;
use crate::telemetry::{self, Metrics};

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// The config; see config/example.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, or until the tree gives up. Both end with an ordered drain.
pub fn run(args: Args) -> Result<ExitCode> {
    #[cfg(feature = "faults")]
    crate::faults::start();
    let config = Config::load(&args.config)?;
    let telemetry = telemetry::start(&config.telemetry)?;
    let code = actix::System::new().block_on(daemon(config));
    drop(telemetry);
    // `exit` and not a return: a thread that is blocked must not keep the process.
    match code {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => Err(error),
    }
}

async fn daemon(config: Config) -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    let metrics = Arc::new(Metrics::new());
    let app = app::start(&config, metrics).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), store = app.store.describe(), "tickmint runs");
    let failed = tokio::select! {
        outcome = app.root.failed() => Some(outcome),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match &failed {
        Some(outcome) => tracing::error!(reason = %outcome, "the tree gives up; draining what still runs"),
        None => tracing::info!("stopping: draining"),
    }
    let late = match timeout(config.drain_within, app.root.shutdown()).await {
        Ok(undrained) => undrained.iter().map(ToString::to_string).collect(),
        Err(_) => vec![format!("not everything stopped within {:?}", config.drain_within)],
    };
    if !late.is_empty() {
        tracing::warn!(?late, "not drained in time; the spool keeps it for the next start");
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
