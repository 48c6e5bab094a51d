//! `tickmint check`: finds out before anything runs whether it can run.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::FAILED;
use crate::config::Config;
use crate::io::{probe, store};
use crate::warehouse::python;

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Args {
    /// The config to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Checks one thing after another; all are tried, and each that fails says what to do.
#[expect(clippy::print_stdout, reason = "the findings are the output")]
pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    println!("ok    config {}: {} connections", args.config.display(), config.feed.shards.len());
    let mut well = true;
    let mut say = |what: String, outcome: Result<String>| match outcome {
        Ok(text) => println!("ok    {what}: {text}"),
        Err(error) => {
            well = false;
            println!("FAIL  {what}: {error:#}");
        }
    };
    say(format!("`spool.dir` {}", config.spool.dir.display()), writable(&config.spool.dir));
    say(format!("`http.listen` {}", config.http.listen), port_is_free(&config));
    super::block_on(async {
        say("`bronze.store`".to_string(), store_is_safe(&config).await);
        if let Some(warehouse) = &config.warehouse {
            let found = match &warehouse.python {
                Some(python) => Ok(python.display().to_string()),
                None => python::find_or_make(&warehouse.project_dir, |step| println!("      {step}"))
                    .await
                    .map(|python| python.display().to_string())
                    .map_err(Into::into),
            };
            say("`warehouse.python`".to_string(), found);
        }
    })?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn writable(dir: &Path) -> Result<String> {
    std::fs::create_dir_all(dir).context("it cannot be made: choose a folder that this user may write")?;
    let file = dir.join(".check");
    std::fs::write(&file, b"x")
        .and_then(|()| std::fs::remove_file(&file))
        .context("it cannot be written: choose another or free its disk")?;
    Ok("can be written".to_string())
}

fn port_is_free(config: &Config) -> Result<String> {
    match TcpListener::bind(config.http.listen) {
        Ok(_) => Ok("is free".to_string()),
        Err(error) => {
            Err(error).context("it cannot be listened on (does another tickmint run?): stop that, or choose another port")
        }
    }
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
