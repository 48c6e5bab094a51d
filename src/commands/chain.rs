//! `tickmint chain show`: the slots of a chain, as they stand in the store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::bronze::chain::{Chain, Follower};
use crate::config::{self, Config};
use crate::domain::chain::{Body, ChainId, Position, Slot};
use crate::domain::stream::Stream;
use crate::io::store;

/// Looks into the commit chain.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Prints the slots of a chain, oldest first
    Show(Args),
}

/// Arguments of `chain show`.
#[derive(clap::Args)]
#[command(after_help = "\
Each line is a slot: generation, range of offsets, what it holds. Objects that no slot names do not count.

Examples:
  tickmint chain show
  tickmint chain show --stream gaps
  tickmint chain show --json | tail -1 | jq .")]
pub struct Args {
    /// The config of the daemon
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// trades, gaps or quarantine
    #[arg(long, default_value = "trades", value_parser = stream)]
    stream: Stream,
    /// The partition of the stream
    #[arg(long, default_value_t = 0)]
    partition: u32,
    /// Print each slot as one line of JSON, as it stands in the store
    #[arg(long)]
    json: bool,
}

fn stream(name: &str) -> Result<Stream, String> {
    Stream::from_name(name).ok_or_else(|| format!("no such stream; there are {}", Stream::ALL.map(Stream::name).join(", ")))
}

/// Prints.
pub fn run(command: Command) -> Result<ExitCode> {
    let Command::Show(args) = command;
    let config = Config::load_without_keys(&args.config)?;
    super::block_on(show(&config, &args))??;
    Ok(ExitCode::SUCCESS)
}

async fn show(config: &Config, args: &Args) -> Result<()> {
    let store = store::open(&config.bronze.store)?;
    let id = ChainId { stream: args.stream, partition: args.partition };
    let mut follower = Follower::new(Chain::new(id, store.clone()), Position::default());
    while let Some(slot) = follower.next().await.context("the chain cannot be read")? {
        if !super::print(&(if args.json { serde_json::to_string(&slot)? } else { line(&slot) } + "\n"))? {
            return Ok(());
        }
    }
    let next = follower.position();
    follower.end().await.context("this is not the chain's tail")?;
    if !args.json && next == Position::default() {
        let there = store.describe();
        super::print(&format!("{id} has no slot in {there}: nothing is archived of it yet, or there is no such partition\n"))?;
    } else if !args.json {
        super::print(&format!("tail: generation {}, offset {}\n", next.generation, next.start))?;
    }
    Ok(())
}

fn line(slot: &Slot) -> String {
    let Position { generation, start } = slot.position;
    let what = match &slot.body {
        Body::Data { end, data: Some(data) } => {
            format!("{start}-{end}  {} rows, {} + {} bytes, {}", data.rows, data.raw.bytes, data.typed.bytes, data.raw.key)
        }
        Body::Data { end, data: None } => format!("{start}-{end}  nothing new"),
        Body::Gap { end, reason } => format!("{start}-{end}  GAP: {reason}"),
        Body::End { next } => format!("{start}  end; the next generation reads log {next}"),
    };
    format!("g{generation} {what}")
}
