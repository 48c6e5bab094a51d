//! What Silver holds, asked of the warehouse's own audit, which reads the DuckDB file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::config::WarehouseConfig;

/// Counts of one stream in Silver.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct StreamCount {
    /// Rows, rejected ones included.
    pub rows: u64,
    /// Distinct identities among them.
    pub distinct: u64,
    /// Rows that its loads say they brought, in the transactions that brought them.
    pub kept: u64,
}

/// Counts by stream.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SilverCount {
    /// By the stream's name.
    pub streams: BTreeMap<String, StreamCount>,
}

/// Counts what Silver holds.
pub async fn read(python: &Path, config: &WarehouseConfig) -> Result<SilverCount> {
    let mut command = Command::new(python);
    command.args(["-m", "refiner.audit", "--db"]).arg(&config.database).current_dir(&config.project_dir);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("{} cannot be started", python.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("its answer cannot be read")
}
