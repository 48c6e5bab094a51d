//! The command line: arguments in, exit code out.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tickmint::commands::{self, chain, check, demo, exchange, run, status, verify};

/// Records are allocated by one thread and freed by another, most of them by librdkafka. Beside glibc's malloc with one arena the
/// archive takes a tenth less of the processor's time, and the forwarder a sixth.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, and what is free goes back to the system soon: with jemalloc's own settings the archive held a third more.
// SAFETY: jemalloc looks for this name; what it finds is a text that ends with a zero byte.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 46] = b"narenas:2,dirty_decay_ms:500,muzzy_decay_ms:0\0";

/// Streams live stock trades into a medallion lakehouse, exactly once, without Kafka Connect.
#[derive(Parser)]
#[command(version, about, after_help = commands::EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on one machine, no keys, no services: exchange, daemon, warehouse, web page
    Demo(demo::Args),
    /// The daemon: from the WebSocket to Bronze, Silver and Gold
    Run(run::Args),
    /// An exchange that speaks Finnhub's WebSocket protocol, faults included
    Exchange(Box<exchange::Args>),
    /// Checks a config, folders, store, Python, cluster and registry before anything runs
    Check(check::Args),
    /// What a running daemon does: its actors, their state and what they say
    Status(status::Args),
    /// Audits spool, Kafka, chains, Bronze, Silver and Gold, and proves that nothing is lost or doubled
    Verify(verify::Args),
    /// Looks into the commit chain
    #[command(subcommand)]
    Chain(chain::Command),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Exchange(args) => exchange::run(*args),
        Command::Check(args) => check::run(args),
        Command::Status(args) => status::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Chain(command) => chain::run(command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tickmint: {}", commands::words(&error));
        commands::exit_code_of(&error)
    })
}
