//! `tickmint status`: what a running daemon does, as a table.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::client;
use crate::config::{self, Config};

/// Arguments of `status`.
#[derive(clap::Args)]
#[command(after_help = "\
Asks /health of the daemon at `http.listen`. Exits with 0 only if all is well: no alarm, every actor runs.

Examples:
  tickmint status
  tickmint status --json | jq .alarms
  watch tickmint status --config data/demo/tickmint.toml")]
pub struct Args {
    /// The config of the daemon
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// Print the JSON of /health
    #[arg(long)]
    json: bool,
}

/// Asks the daemon and prints.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load_without_keys(&args.config)?;
    let health = super::block_on(client::get(config.http.listen, "/health", config.http.token.as_ref()))?;
    let health = health.with_context(|| {
        format!(
            "no daemon with `http.listen` = `{}` answers: is it started (`tickmint run --config {}`)?",
            config.http.listen,
            args.config.display()
        )
    })?;
    super::print(&if args.json { serde_json::to_string_pretty(&health)? + "\n" } else { table(&health) })?;
    let well = health["status"].as_str() == Some("ok");
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
}

fn table(health: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let mut out = format!("status {}, version {}\n\n", text(&health["status"]), text(&health["version"]));
    out.push_str(&format!("{:<28} {:<9} {:>8} {:>12}  {}\n", "actor", "state", "restarts", "progress", "notes"));
    for actor in health["actors"].as_array().into_iter().flatten() {
        let notes: Vec<String> =
            actor["notes"].as_object().into_iter().flatten().map(|(name, note)| format!("{name}: {}", text(note))).collect();
        let failure = match &actor["last_failure"] {
            Value::Null => String::new(),
            failure => format!("  last failure: {}", text(failure.get("text").unwrap_or(failure))),
        };
        out.push_str(&format!(
            "{:<28} {:<9} {:>8} {:>12}  {}{failure}\n",
            text(&actor["path"]),
            text(&actor["state"]),
            text(&actor["restarts"]),
            text(&actor["progress"]),
            notes.join("; ")
        ));
    }
    for alarm in health["alarms"].as_array().into_iter().flatten() {
        out.push_str(&format!("! {}: {}\n", text(&alarm["name"]), text(&alarm["why"])));
    }
    let (gold, failing) = (&health["warehouse"]["gold"], &health["warehouse"]["failing"]);
    if gold.is_object() {
        out.push_str(&format!("Gold: run {}, published at {}\n", text(&gold["run"]), text(&gold["published_at"])));
    }
    if failing.is_object() {
        out.push_str(&format!(
            "Gold: no newer run since {}; rounds that failed in a row: {}, the last one in {}: {}\n",
            text(&failing["since"]),
            text(&failing["rounds"]),
            text(&failing["phase"]),
            text(&failing["error"])
        ));
    }
    out
}
