//! `tickmint exchange`: a stand-in for Finnhub's WebSocket feed.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::block_on;
use crate::exchange::{self, Exchange, FAULTS_HELP, Faults, Key, Options, Simulation, Source, Speed};

/// Arguments of `exchange`.
#[derive(clap::Args)]
#[command(
    about = "A server that speaks Finnhub's WebSocket protocol, fed by a simulated market or a recorded tape",
    after_long_help = format!("{FAULTS_HELP}\n\n{EXAMPLES}")
)]
pub struct Args {
    /// Where to listen; port 0 takes a free one, which the first line of the output names
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Play a recorded tape: the text of one frame a line, plain or gzip
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    tape: Option<PathBuf>,
    /// Play a simulated market of N symbols; what is played without --tape, with 50
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    simulate: Option<u32>,
    /// N times as fast as the trades' times say, or `max`: as fast as the slowest client takes it
    #[arg(long, value_name = "N|max", default_value = "1")]
    speed: Speed,
    /// Move the tape's times so that its first trade is now
    #[arg(long, requires = "tape")]
    retime: bool,
    /// Write down every frame, fsynced before it is sent; an existing file is gone on with
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// What shall go wrong and how often, as `drop=0.001,stall=0.0005:5s`; all kinds are below
    #[arg(long, value_name = "SPEC", default_value = "", hide_default_value = true)]
    faults: Faults,
    /// The seed of the market and of the faults: the same one gives the same again
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// A key that is let in, for one connection at a time; may be given several times
    #[arg(long = "key", value_name = "KEY", default_value = "demo")]
    keys: Vec<Key>,
    /// Symbols that one connection may subscribe to; Finnhub refuses the 52nd
    #[arg(long, value_name = "N", default_value_t = 51)]
    max_symbols: usize,
    /// How often each connection is sent {"type":"ping"}
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    ping_every: Duration,
    #[command(flatten)]
    market: Market,
}

/// Of the simulated market only.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of the simulated market")]
struct Market {
    /// Trades a second in the mean, over all symbols; 1.2 a symbol if not given
    #[arg(long, value_name = "N", conflicts_with = "tape", value_parser = rate)]
    rate: Option<f64>,
    /// End after so many trades, as a tape does
    #[arg(long, value_name = "N", conflicts_with = "tape", value_parser = clap::value_parser!(u64).range(1..))]
    trades: Option<u64>,
    /// Keep New York's hours: without, the market is open always
    #[arg(long, conflicts_with = "tape")]
    market_hours: bool,
    /// When the market's clock starts, as `2026-03-02T09:30:00-05:00`; now if not given
    #[arg(long, value_name = "TIME", conflicts_with = "tape")]
    start: Option<jiff::Timestamp>,
    /// Print the symbols of the market, the busiest first, and end
    #[arg(long, conflicts_with = "tape")]
    list_symbols: bool,
}

const EXAMPLES: &str = "\
Examples:
  A market of 50 symbols that is open now; clients connect to ws://127.0.0.1:8090/?token=demo
    tickmint exchange
  A recorded day as fast as the client reads, with a ledger to audit by
    tickmint exchange --tape day.jsonl.gz --speed max --ledger exchange.ledger
  The same at 100 times its speed as if it began now, over a bad line
    tickmint exchange --tape day.jsonl.gz --speed 100 --retime --faults drop=0.0005,stall=0.0002:3s,late=0.02:5m
  A whole trading day in 15 minutes, for three keys
    tickmint exchange --simulate 120 --market-hours --start 2026-03-02T04:00:00-05:00 --speed 64 --key a --key b --key c

How far it is: GET /status on the same port. SIGTERM or SIGINT ends it and its ledger in order.";

/// How many symbols are simulated, if nothing else is said.
const SYMBOLS: u32 = 50;

/// Serves until SIGTERM or SIGINT.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.market.list_symbols {
        let symbols = exchange::simulated_symbols(args.simulate.unwrap_or(SYMBOLS) as usize);
        super::print(&(symbols.join("\n") + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // Where logs are taken already, they stay.
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).try_init().ok();
    block_on(serve(options(args)))??;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "scripts read the port from the first line")]
async fn serve(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    let Options { speed, faults, .. } = options.clone();
    let exchange = Exchange::bind(options).await?;
    println!("listening on ws://{}", exchange.local_addr());
    tracing::info!(?speed, %faults, "exchange opens");
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let exchange::Status { frames_sent, trades_sent, finished, .. } = exchange.run(stop).await?.status;
    tracing::info!(frames_sent, trades_sent, finished, "exchange closes");
    Ok(())
}

fn options(args: Args) -> Options {
    let Args { listen, tape, simulate, speed, retime, ledger, faults, seed, keys, max_symbols, ping_every, market } = args;
    let Market { rate, trades, market_hours, start, list_symbols: _ } = market;
    let source = match tape {
        Some(path) => Source::Tape { path, retime },
        None => Source::Simulation(Simulation {
            symbols: simulate.unwrap_or(SYMBOLS) as usize,
            rate,
            market_hours,
            start: start.map(|start| start.as_millisecond()),
            trades,
        }),
    };
    Options { listen, speed, ledger, faults, seed, keys, max_symbols, ping_every, ..Options::new(source) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("the time is `{text}`, must be a duration such as 500ms, 5s, 10m or 1h");
    exchange::duration(text).filter(|time| !time.is_zero()).ok_or_else(wanted)
}

fn rate(text: &str) -> Result<f64, String> {
    let wanted = || format!("the rate is `{text}`, must be a number above 0, at most 10000000");
    text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 1e7).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches};

    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let command = Args::augment_args(Command::new("exchange"));
        command.clone().debug_assert();
        let matches = command.try_get_matches_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        Ok(options(Args::from_arg_matches(&matches).map_err(|error| error.to_string())?))
    }

    #[test]
    fn the_plainest_line_simulates_50_symbols() {
        let options = parse("exchange").unwrap();
        assert_eq!(options.source, Source::Simulation(Simulation::of(50)));
        assert_eq!((options.speed, options.max_symbols, options.keys.len()), (Speed::Times(1.0), 51, 1));
        let tape = parse("exchange --tape x.gz --retime --speed max --key a --key b").unwrap();
        assert_eq!(tape.source, Source::Tape { path: "x.gz".into(), retime: true });
        assert_eq!((tape.speed, tape.keys.len()), (Speed::Max, 2));
    }

    #[test]
    fn a_wrong_line_names_what_is_wrong() {
        for (line, part) in [
            ("exchange --faults stal=0.1", "unknown fault `stal`"),
            ("exchange --faults drop=7", "must be from 0 to 1"),
            ("exchange --speed quick", "the speed is `quick`"),
            ("exchange --speed 0", "the speed is `0`"),
            ("exchange --tape a --simulate 5", "cannot be used with"),
            ("exchange --retime", "--tape"),
            ("exchange --ping-every 5", "the time is `5`"),
            ("exchange --trades 0", "'--trades <N>': 0 is not in 1.."),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
