//! `tickmint check`: finds out before anything runs whether it can run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{FAILED, words};
use crate::config::{self, Config, WarehouseConfig};
use crate::http;
use crate::io::{probe, store};
use crate::warehouse::python;

/// Arguments of `check`.
#[derive(clap::Args)]
#[command(after_help = "\
Tells of everything at once: what is wrong in the config, and then whether the folders can be written,
the port is free, the store creates objects atomically (it writes to `_probe/`) and Python has dbt.
Exits with 78 if the config is wrong, with 1 if something else is.

Example:
  tickmint check")]
pub struct Args {
    /// The config to check
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
}

/// Checks one thing after another; all are tried, and each that fails says what to do.
#[expect(clippy::print_stdout, reason = "the findings are the output")]
pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let connections = match config.feed.shards.len() {
        1 => "1 connection".to_string(),
        n => format!("{n} connections"),
    };
    println!("ok    config {}: {connections} to {}", args.config.display(), config.feed.url);
    let mut well = true;
    let mut say = |what: String, outcome: Result<String>| match outcome {
        Ok(text) => println!("ok    {what}: {text}"),
        Err(error) => {
            well = false;
            println!("FAIL  {what}: {}", words(&error));
        }
    };
    say("`data_dir`".to_string(), writable(&config.data_dir));
    say("`spool.dir`".to_string(), writable(&config.spool.dir));
    let free = http::server::bind(&config.http).map(|_| format!("{} is free", config.http.listen));
    say("`http.listen`".to_string(), free.map_err(Into::into));
    super::block_on(async {
        say("`bronze.store`".to_string(), store_is_safe(&config).await);
        if let Some(warehouse) = &config.warehouse {
            say("`warehouse`".to_string(), python_has_dbt(warehouse).await);
        }
    })?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn writable(dir: &Path) -> Result<String> {
    let failed = |what: &str| format!("`{}` {what}: choose a folder that this user may write", dir.display());
    std::fs::create_dir_all(dir).with_context(|| failed("cannot be made"))?;
    let file = dir.join(".check");
    std::fs::write(&file, b"x").and_then(|()| std::fs::remove_file(&file)).with_context(|| failed("cannot be written"))?;
    Ok(format!("{} can be written", dir.display()))
}

#[expect(clippy::print_stdout, reason = "an installation takes half a minute, which is told")]
async fn python_has_dbt(warehouse: &WarehouseConfig) -> Result<String> {
    let python = match &warehouse.python {
        Some(python) => python.clone(),
        None => python::find_or_make(&warehouse.project_dir, |step| println!("      {step}")).await?,
    };
    let versions = python::packages(&python, &warehouse.project_dir).await?;
    Ok(format!("{} has {versions}", python.display()))
}

async fn store_is_safe(config: &Config) -> Result<String> {
    let store = store::open(&config.bronze.store)?;
    let report = probe::probe(&*store, probe::FOLDER, probe::Size::default()).await?;
    Ok(format!(
        "{}: creates are atomic ({} rounds, {} writers at once)",
        store.describe(),
        report.size.rounds,
        report.size.writers
    ))
}
