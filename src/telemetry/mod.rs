//! Logs. Metrics and traces join them here.

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::config::TelemetryConfig;

/// Starts logging to standard error.
pub fn start(config: &TelemetryConfig) -> Result<()> {
    let filter: EnvFilter = config.log.parse().context("the filter was validated")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = if config.json { builder.json().try_init() } else { builder.try_init() };
    done.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}
