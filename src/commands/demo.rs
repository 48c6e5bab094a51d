//! `tickmint demo`: everything on one machine. It starts the exchange and the daemon as processes of
//! their own, exactly as `tickmint exchange` and `tickmint run` would be, watches them, and at the
//! end lets the daemon drain and audits what it did.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::{client, verify};
use crate::config::Config;
use crate::exchange;
use crate::warehouse::python;

/// Symbols of the simulated market.
const SYMBOLS: usize = 32;

/// Symbols that one key takes, as with Finnhub.
const SYMBOLS_A_KEY: usize = 50;

/// How long the daemon has to come up, and at the end to drain.
const DAEMON_WITHIN: Duration = Duration::from_secs(120);

/// Arguments of `demo`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tickmint demo                                     a simulated market until Ctrl-C
  tickmint demo --for 90s                           the same, then drain, audit and exit
  tickmint demo --tape day.jsonl.gz --speed max     a recorded day as fast as it goes

With --for, or at the end of a tape, it exits with 0 only if nothing was lost or doubled.")]
pub struct Args {
    /// Where everything is kept; what is there already stays
    #[arg(long, value_name = "DIR", default_value = "data/demo")]
    data_dir: PathBuf,
    /// The port of the web page
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// A recorded day (frames of Finnhub, one a line, gzip or plain) and not the simulated market
    #[arg(long, value_name = "FILE")]
    tape: Option<PathBuf>,
    /// How fast the tape plays: times the real speed, or max
    #[arg(long, value_name = "N|max", default_value = "1")]
    speed: String,
    /// Ends after this time, as 90s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    run_for: Option<Duration>,
    /// Which trades may move a candle: cts_utp (the consolidated tape's rules) or lean (for comparison)
    #[arg(long, default_value = "cts_utp", value_parser = ["cts_utp", "lean"])]
    sale_conditions: String,
}

fn time(text: &str) -> Result<Duration, String> {
    exchange::duration(text).ok_or_else(|| "write it as 90s or 5m".to_string())
}

/// Runs the demo.
pub fn run(args: Args) -> Result<ExitCode> {
    super::block_on(demo(args))?
}

async fn demo(args: Args) -> Result<ExitCode> {
    let dir = std::path::absolute(&args.data_dir)?;
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("`--data-dir` is {}, which cannot be made: choose one that you may write", dir.display()))?;
    if let Err(error) = std::net::TcpListener::bind(("127.0.0.1", args.port)) {
        bail!("`--port` is {}, which cannot be listened on ({error}): stop what uses it, or choose another", args.port);
    }
    let page = SocketAddr::from(([127, 0, 0, 1], args.port));
    let view = View::new();

    let mut exchange = Exchange::start(&args, &dir).await?;
    let config_path = dir.join("tickmint.toml");
    write_config(&args, &dir, exchange.address, &config_path)?;
    let config = Config::load(&config_path)?;
    if let Some(warehouse) = &config.warehouse {
        python::find_or_make(&warehouse.project_dir, |step| view.say(step)).await?;
    }
    let mut daemon = start_daemon(&dir, &config_path)?;
    let mut use_of = Use::default();
    let why = watch(&args, &view, &mut exchange, &mut daemon, page, &mut use_of).await?;
    view.say(why.text());

    stop(&mut daemon, DAEMON_WITHIN, &mut use_of).await.context("the daemon did not stop in order; its log is daemon.log")?;
    stop(&mut exchange.process, Duration::from_secs(10), &mut Use::default())
        .await
        .context("the exchange did not stop in order")?;
    view.say("auditing: ledger, spool, chains, Bronze, Silver");
    let report = verify::verify(&config, Some(&dir.join("exchange.ledger"))).await?;
    view.end();
    summary(&dir, &report, &view, &use_of);
    Ok(if report.is_clean() && !matches!(why, Why::Died(_)) { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
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

struct Exchange {
    process: Child,
    address: SocketAddr,
}

impl Exchange {
    async fn start(args: &Args, dir: &Path) -> Result<Exchange> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exchange", "--listen", "127.0.0.1:0", "--ledger"]).arg(dir.join("exchange.ledger"));
        match &args.tape {
            Some(tape) => command.arg("--tape").arg(tape).args(["--speed", &args.speed]),
            None => command.args(["--simulate", &SYMBOLS.to_string()]),
        };
        for n in 1..=symbols(args)?.chunks(SYMBOLS_A_KEY).len() {
            command.args(["--key", &format!("demo-{n}")]);
        }
        let log = std::fs::File::create(dir.join("exchange.log"))?;
        let mut process =
            own(&mut command).stdout(Stdio::piped()).stderr(log).spawn().context("the exchange cannot be started")?;
        let stdout = process.stdout.take().context("its output was piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(Duration::from_secs(20), lines.next_line()).await.context("the exchange does not come up")??;
        let Some(address) = line.as_deref().and_then(|line| line.rsplit("ws://").next()?.trim().parse().ok()) else {
            let said = std::fs::read_to_string(dir.join("exchange.log")).unwrap_or_default();
            bail!("the exchange did not start: {}", said.trim());
        };
        Ok(Exchange { process, address })
    }

    async fn status(&self) -> Option<Value> {
        client::get(self.address, "/status", None).await.ok()
    }
}

/// A process that ends with this one.
fn own(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).kill_on_drop(true)
}

fn symbols(args: &Args) -> Result<Vec<String>> {
    Ok(match &args.tape {
        Some(tape) => exchange::symbols_of_tape(tape)?,
        None => exchange::simulated_symbols(SYMBOLS),
    })
}

fn start_daemon(dir: &Path, config: &Path) -> Result<Child> {
    let log = std::fs::File::create(dir.join("daemon.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(log);
    own(&mut command).spawn().context("the daemon cannot be started")
}

/// Writes the config of the demo, so that every other command can be used on it too.
fn write_config(args: &Args, dir: &Path, exchange: SocketAddr, path: &Path) -> Result<()> {
    let mut text = format!(
        "# Written by `tickmint demo`.\ndata_dir = {:?}\ndrain_within = \"110s\"\n\n[http]\nlisten = \"127.0.0.1:{}\"\n\n[feed]\nurl = \"ws://{exchange}\"\nreconnect_min = \"200ms\"\n\n",
        dir.display().to_string(),
        args.port,
    );
    for (n, symbols) in symbols(args)?.chunks(SYMBOLS_A_KEY).enumerate() {
        let file = dir.join(format!("demo-{}.key", n + 1));
        std::fs::write(&file, format!("demo-{}\n", n + 1))?;
        text.push_str(&format!("[[feed.keys]]\nkey_file = {:?}\nsymbols = {symbols:?}\n\n", file.display().to_string()));
    }
    if args.tape.is_some() {
        text.push_str("[validation]\nmax_age = \"none\"\n\n");
    }
    let project = project_dir()?;
    text.push_str(&format!(
        "[bronze]\nflush_after = \"1s\"\n\n[warehouse]\nevery = \"1s\"\nproject_dir = {:?}\nsale_conditions = {:?}\n",
        project.display().to_string(),
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
    view: &View,
    exchange: &mut Exchange,
    daemon: &mut Child,
    page: SocketAddr,
    use_of: &mut Use,
) -> Result<Why> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let began = Instant::now();
    view.say(&format!("the page is http://{page}/"));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(Why::Asked),
            _ = interrupt.recv() => return Ok(Why::Asked),
            status = daemon.wait() => {
                view.say(&format!("the daemon has ended by itself ({}); see daemon.log", status?));
                return Ok(Why::Died("the daemon died"));
            }
            _ = exchange.process.wait() => return Ok(Why::Died("the exchange died; see exchange.log")),
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

/// Asks a process to stop, and waits for it. One that has ended already is fine.
async fn stop(process: &mut Child, within: Duration, use_of: &mut Use) -> Result<()> {
    if let Some(pid) = process.id() {
        let told = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
        told.context("`kill` cannot be started")?;
    }
    let until = Instant::now() + within;
    loop {
        use_of.look(process);
        if let Some(status) = process.try_wait()? {
            return if status.success() { Ok(()) } else { bail!("it ended with {status}") };
        }
        if Instant::now() > until {
            bail!("it takes longer than {within:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What the daemon took of the machine, as the kernel counts it; the Python process is not in it.
#[derive(Default)]
struct Use {
    /// The peak of its resident memory, bytes.
    memory: u64,
    /// User and system time, seconds.
    cpu: f64,
}

impl Use {
    fn look(&mut self, process: &Child) {
        let Some(pid) = process.id() else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        self.memory = peak.map_or(self.memory, |kib| kib << 10);
        // Fields 14 and 15 of proc(5), in ticks of 1/100 s; the name before them may hold spaces.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if let (Some(Ok(user)), Some(Ok(system))) =
            (fields.get(11).map(|n| n.parse::<u64>()), fields.get(12).map(|n| n.parse::<u64>()))
        {
            self.cpu = (user + system) as f64 / 100.0;
        }
    }
}

/// One line that moves, on a terminal; plain lines elsewhere.
struct View {
    bar: ProgressBar,
    began: Instant,
}

impl View {
    fn new() -> View {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}").expect("the template is fixed"));
        bar.enable_steady_tick(Duration::from_millis(120));
        View { bar, began: Instant::now() }
    }

    fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64());
        } else {
            self.bar.println(format!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64()));
        }
    }

    fn show(&self, exchange: &Value, pipeline: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let rows = &pipeline["silver"]["latest"]["rows"];
        self.bar.set_message(format!(
            "sent {} | durable {} | Bronze {} | Silver {} | bars {}",
            number(&exchange["trades_sent"]),
            number(&pipeline["spool"]["records"]["trades"]),
            number(&pipeline["bronze"]["trades"]["records"]),
            number(&rows["silver.trades"]),
            number(&rows["gold.ohlc_1m"]),
        ));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[expect(clippy::print_stdout, reason = "the summary is the output")]
fn summary(dir: &Path, report: &crate::audit::report::Report, view: &View, use_of: &Use) {
    println!("{}", verify::text(report));
    println!("{:>13}  {:>9.1} s  in all, the audit included", "took", view.began.elapsed().as_secs_f64());
    println!(
        "{:>13}  {:>9.2} s  of the daemon: {:.0} trades a CPU second",
        "CPU",
        use_of.cpu,
        report.durable as f64 / use_of.cpu.max(0.01)
    );
    println!("{:>13}  {:>7.0} MiB  of the daemon at its peak", "memory", use_of.memory as f64 / f64::from(1 << 20));
    println!("\nEverything is kept in {}.", dir.display());
}
