//! `tickmint demo`: everything on one machine. It starts the exchange and the daemon as processes of
//! their own, exactly as `tickmint exchange` and `tickmint run` would be, watches them, and at the
//! end lets the daemon drain and audits what it did.

mod parts;
mod view;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::signals::Signals;
use super::{FAILED, NOT_DRAINED, client, verify};
use crate::config::Config;
use crate::exchange;
use crate::warehouse::{gold, python};
use parts::{Exchange, Use, last_words, start_daemon, stop, tell};
use view::{View, summary};

/// Symbols of the simulated market.
const SYMBOLS: u16 = 32;

/// Symbols that one key takes, as with Finnhub.
const SYMBOLS_A_KEY: usize = 50;

/// How long the daemon has at the end to drain: a little more than it gives itself.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);

/// How long the exchange has to end.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// So many of the newest bars are shown at the end.
const BARS: usize = 8;

/// The first line of a config that a demo wrote. Another one is never overwritten.
const WRITTEN_BY_A_DEMO: &str = "# Written by `tickmint demo`.";

/// Arguments of `demo`.
#[derive(clap::Args)]
#[command(after_help = "\
Ctrl-C drains, audits and prints what was sent, archived, lost and doubled; so do --for and the end of
a tape. It exits with 0 only if nothing was lost or doubled. A second Ctrl-C ends it at once (75).

Examples:
  tickmint demo                                     a simulated market until Ctrl-C
  tickmint demo --for 90s                           the same, ends by itself
  tickmint demo --symbols 100 --rate 167            10,000 trades a minute of 100 symbols
  tickmint demo --tape day.jsonl.gz --speed max     a recorded day as fast as it goes
  tickmint status --config data/demo/tickmint.toml  meanwhile, elsewhere")]
pub struct Args {
    /// Where everything is kept; what an earlier demo left there is gone on with
    #[arg(long, value_name = "DIR", default_value = "data/demo")]
    data_dir: PathBuf,
    /// The port of the web page
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Symbols of the simulated market
    #[arg(long, value_name = "N", default_value_t = SYMBOLS, value_parser = clap::value_parser!(u16).range(1..=1000), conflicts_with = "tape")]
    symbols: u16,
    /// Trades a second of the simulated market in the mean; 1.2 a symbol if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "tape")]
    rate: Option<u32>,
    /// A recorded day (frames of Finnhub, one a line, gzip or plain) and not the simulated market
    #[arg(long, value_name = "FILE")]
    tape: Option<PathBuf>,
    /// How fast the tape plays: times the real speed, or max; 1 if not given
    #[arg(long, value_name = "N|max", value_parser = speed, requires = "tape")]
    speed: Option<String>,
    /// Ends after this time, as 90s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    run_for: Option<Duration>,
    /// Which trades may move a candle: cts_utp (the consolidated tape's rules) or lean (for comparison)
    #[arg(long, value_name = "TABLE", default_value = "cts_utp", value_parser = ["cts_utp", "lean"])]
    sale_conditions: String,
}

fn time(text: &str) -> Result<Duration, String> {
    exchange::duration(text).filter(|time| !time.is_zero()).ok_or_else(|| "write it as 90s or 5m".to_string())
}

fn speed(text: &str) -> Result<String, String> {
    text.parse::<exchange::Speed>().map(|_| text.to_string())
}

/// What the exchange plays.
enum Source {
    Market { symbols: usize, rate: Option<u32> },
    Tape { file: PathBuf, speed: String },
}

impl Source {
    fn of(args: &Args) -> Source {
        match &args.tape {
            Some(file) => Source::Tape { file: file.clone(), speed: args.speed.clone().unwrap_or_else(|| "1".into()) },
            None => Source::Market { symbols: args.symbols.into(), rate: args.rate },
        }
    }

    fn symbols(&self) -> Result<Vec<String>> {
        let file = match self {
            Source::Market { symbols, .. } => return Ok(exchange::simulated_symbols(*symbols)),
            Source::Tape { file, .. } => file,
        };
        let cure = "give a recording, the text of one frame of Finnhub a line, gzip or plain";
        let symbols = exchange::symbols_of_tape(file)
            .map_err(|error| anyhow::anyhow!("`--tape` is `{}`, which cannot be played ({error}): {cure}", file.display()))?;
        if symbols.is_empty() {
            bail!("`--tape` is `{}`, which holds no trades: {cure}", file.display());
        }
        Ok(symbols)
    }
}

/// Runs the demo.
pub fn run(args: Args) -> Result<ExitCode> {
    super::block_on(demo(args))?
}

async fn demo(args: Args) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let dir = std::path::absolute(&args.data_dir)?;
    let _lock = take(&dir)?;
    if let Err(error) = std::net::TcpListener::bind(("127.0.0.1", args.port)) {
        bail!("`--port` is `{}`, where nothing can listen ({error}): stop what uses it, or choose another", args.port);
    }
    let mut view = View::new();
    let prepared = tokio::select! {
        prepared = prepare(&args, &dir, &view) => prepared?,
        signal = signals.next() => {
            view.end();
            bail!("stopped by {signal} before anything ran");
        }
    };
    let Prepared { mut exchange, mut daemon, config, log } = prepared;
    let mut use_of = Use::default();
    let why = watch(&args, &mut view, &mut exchange, &mut daemon, &mut use_of, &mut signals).await?;
    view.say(why.text());

    let ended = tokio::select! {
        ended = stop(&mut daemon, DRAINED_WITHIN, &mut use_of) => Some(ended),
        _ = signals.next() => None,
    };
    let Some(ended) = ended else {
        // Both end at once, in order as far as a moment allows.
        tell(&daemon);
        tell(&exchange.process);
        let both = async { tokio::join!(daemon.wait(), exchange.process.wait()) };
        drop(tokio::time::timeout(CLOSED_WITHIN, both).await);
        view.end();
        eprintln!("tickmint: ended at once by a second signal, and not audited; the next demo in {} goes on", dir.display());
        return Ok(ExitCode::from(NOT_DRAINED));
    };
    stop(&mut exchange.process, CLOSED_WITHIN, &mut Use::default()).await.context("the exchange")?;
    let status = ended.with_context(|| format!("the daemon, whose log is {}", log.display()))?;
    if !status.success() {
        view.say(&format!("the daemon ended with {status}: {}; its log is {}", last_words(&log), log.display()));
    }
    view.say("auditing: ledger, spool, chains, Bronze, Silver, Gold");
    let report = verify::verify(&config, Some(&dir.join("exchange.ledger")), &[]).await?;
    let bars = match &config.warehouse {
        Some(warehouse) => gold::newest_bars(warehouse.gold_dir.clone(), BARS).await,
        None => Vec::new(),
    };
    view.end();
    summary(&dir, &report, &bars, &view, &use_of);
    let well = report.is_clean() && status.success() && !matches!(why, Why::Died(_));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Makes the folder of the demo and keeps other demos out of it.
fn take(dir: &Path) -> Result<File> {
    let unusable = |error: std::io::Error| {
        let dir = dir.display();
        anyhow::anyhow!("`--data-dir` is `{dir}`, which cannot be written ({error}): choose a folder that this user may write")
    };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    let config = std::fs::read_to_string(dir.join("tickmint.toml")).unwrap_or_default();
    if !config.is_empty() && !config.starts_with(WRITTEN_BY_A_DEMO) {
        bail!(
            "`--data-dir` is `{}`, where a tickmint.toml stands that no demo wrote: choose another folder, so that it is not overwritten",
            dir.display()
        );
    }
    let lock = File::options().create(true).append(true).open(dir.join("demo.lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("`--data-dir` is `{}`, where another demo runs: stop that, or choose another folder", dir.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// What runs.
struct Prepared {
    exchange: Exchange,
    daemon: Child,
    config: Config,
    log: PathBuf,
}

/// Starts everything. Dropped on the way, it takes what it has started along.
async fn prepare(args: &Args, dir: &Path, view: &View) -> Result<Prepared> {
    let source = Source::of(args);
    let symbols = source.symbols()?;
    if dir.join("exchange.ledger").exists() {
        view.say(&format!("going on with what an earlier demo left in {}; its counts are in the summary too", dir.display()));
    }
    let exchange = Exchange::start(&source, symbols.len().div_ceil(SYMBOLS_A_KEY), dir).await?;
    let (path, log) = (dir.join("tickmint.toml"), dir.join("daemon.log"));
    write_config(args, dir, exchange.address, &symbols, &path)?;
    let config = Config::load(&path)?;
    if let Some(warehouse) = &config.warehouse {
        python::find_or_make(&warehouse.project_dir, |step| view.say(step)).await?;
    }
    let daemon = start_daemon(&log, &path)?;
    Ok(Prepared { exchange, daemon, config, log })
}

/// Why the demo ends.
enum Why {
    Asked,
    Time,
    TapeEnded,
    Died(&'static str),
}

impl Why {
    fn text(&self) -> &'static str {
        match self {
            Why::Asked => "stopping: the daemon drains",
            Why::Time => "the time is over: the daemon drains",
            Why::TapeEnded => "the tape is over: the daemon drains",
            Why::Died(what) => what,
        }
    }
}

/// A path as TOML has it.
fn quoted(path: &Path) -> Result<toml::Value> {
    let Some(text) = path.to_str() else {
        bail!("`{}` cannot stand in a config, as it is not UTF-8: choose another `--data-dir`", path.display());
    };
    Ok(toml::Value::from(text))
}

/// Writes the config of the demo, so that every other command can be used on it too.
fn write_config(args: &Args, dir: &Path, exchange: SocketAddr, symbols: &[String], path: &Path) -> Result<()> {
    let mut text = format!(
        "{WRITTEN_BY_A_DEMO}\ndata_dir = {}\ndrain_within = \"110s\"\n\n[http]\nlisten = \"127.0.0.1:{}\"\n\n[feed]\nurl = \"ws://{exchange}\"\nreconnect_min = \"200ms\"\n\n",
        quoted(dir)?,
        args.port,
    );
    for (n, symbols) in symbols.chunks(SYMBOLS_A_KEY).enumerate() {
        let file = dir.join(format!("demo-{}.key", n + 1));
        std::fs::write(&file, format!("demo-{}\n", n + 1))?;
        let symbols = toml::Value::from(symbols.to_vec());
        text.push_str(&format!("[[feed.keys]]\nkey_file = {}\nsymbols = {symbols}\n\n", quoted(&file)?));
    }
    if args.tape.is_some() {
        text.push_str("[validation]\nmax_age = \"none\"\n\n");
    }
    let project = project_dir()?;
    text.push_str(&format!(
        "[bronze]\nflush_after = \"1s\"\n\n[warehouse]\nevery = \"1s\"\nproject_dir = {}\nsale_conditions = {:?}\n",
        quoted(&project)?,
        args.sale_conditions
    ));
    std::fs::write(path, text)?;
    Ok(())
}

/// The folder `dbt` where this runs, or in the source tree that the program was built from.
fn project_dir() -> Result<PathBuf> {
    let candidates = [PathBuf::from("dbt"), Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt")];
    match candidates.iter().find(|dir| dir.join("requirements.txt").exists()) {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => bail!("the dbt project is not found ({}): start the demo in the source tree", candidates[0].display()),
    }
}

/// Shows how things go until something ends them.
async fn watch(
    args: &Args,
    view: &mut View,
    exchange: &mut Exchange,
    daemon: &mut Child,
    use_of: &mut Use,
    signals: &mut Signals,
) -> Result<Why> {
    let page = SocketAddr::from(([127, 0, 0, 1], args.port));
    let began = Instant::now();
    view.say(&format!("the page is http://{page}/; Ctrl-C drains and audits"));
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(Why::Asked),
            _ = daemon.wait() => return Ok(Why::Died("the daemon has ended by itself")),
            _ = exchange.process.wait() => return Ok(Why::Died("the exchange has ended by itself; see exchange.log")),
            () = sleep(Duration::from_millis(300)) => {}
        }
        use_of.look(daemon);
        let status = exchange.status().await.unwrap_or_default();
        let pipeline = client::get(page, "/api/pipeline", None).await.unwrap_or_default();
        view.show(&status, &pipeline);
        if args.run_for.is_some_and(|time| began.elapsed() >= time) {
            return Ok(Why::Time);
        }
        let received = pipeline["feed"]["frames"].as_u64().unwrap_or(0);
        let sent = status["frames_sent"].as_u64().unwrap_or(u64::MAX);
        if args.tape.is_some() && status["finished"] == true && received >= sent {
            return Ok(Why::TapeEnded);
        }
    }
}
