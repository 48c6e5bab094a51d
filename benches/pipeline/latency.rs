//! From the receipt of a frame until it is durable: the real session, validator and spool in this
//! process, an exchange of ours behind a socket, and the bare fsync of the same disk meanwhile.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tickmint::actors::{feed_session, spool, validator};
use tickmint::config::{FeedConfig, Secret, SpoolConfig};
use tickmint::domain::frame::{Rules, Watchlist};
use tickmint::domain::identity::{LogId, Micros};
use tickmint::domain::shard::Shard;
use tickmint::messages::feed::{AppendError, Judge};
use tickmint::spool::logs::Logs;
use tickmint::spool::pace::Pace;
use tickmint::spool::segment::LogKind;
use tickmint::spool::state::LogState;
use tickmint::spool::writer::LogWriter;
use tickmint::supervisor::Vitals;
use tickmint::telemetry::{Metrics, Traces};
use tokio::sync::watch;

use super::quantile;

/// Trades a second: the load of a hundred busy symbols, and bursts.
const RATES: [&str; 3] = ["167", "2000", "20000"];

/// How long each rate is watched.
const TIME: Duration = Duration::from_secs(8);

/// How often the bare fsync is timed meanwhile.
const FSYNC_EVERY: Duration = Duration::from_millis(20);

/// The default of `spool.group`.
const GROUP: Duration = Duration::from_millis(5);

/// Stands between session and validator and takes the time of each frame.
struct Meter {
    validator: Addr<validator::Validator>,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl Actor for Meter {
    type Context = Context<Self>;
}

impl Handler<Judge> for Meter {
    type Result = ResponseFuture<Result<(), AppendError>>;

    fn handle(&mut self, batch: Judge, _: &mut Context<Self>) -> Self::Result {
        let (validator, waits) = (self.validator.clone(), self.waits.clone());
        Box::pin(async move {
            let received: Vec<Micros> = batch.frames.iter().map(|frame| frame.received_at).collect();
            let answer = validator.send(batch).await.unwrap();
            let now = tickmint::clock::now();
            waits.lock().unwrap().extend(received.iter().map(|at| Duration::from_micros((now - at).max(0) as u64)));
            answer
        })
    }
}

pub(crate) fn measure() {
    println!("\nfrom the receipt of a frame until it is durable (group interval {} ms):", GROUP.as_millis());
    for rate in RATES {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (over, until) = std::sync::mpsc::channel();
        let file = std::fs::File::create(dir.path().join("fsync")).unwrap();
        let disk = std::thread::spawn(move || fsyncs(&file, &until));
        let mut waits = System::new().block_on(waits(rate, dir.path()));
        drop(over);
        let mut fsyncs = disk.join().unwrap();
        fsyncs.sort_unstable();
        waits.sort_unstable();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let p99 = quantile(&waits, 0.99);
        let bound = GROUP + 2 * quantile(&fsyncs, 0.99);
        println!(
            "  {rate:>6} trades/s: p50 {:>7.2} ms, p99 {:>7.2} ms of {} frames; fsync p50 {:.2} ms, p99 {:.2} ms; \
             p99 is {:.2} of group + 2 x fsync p99",
            millis(quantile(&waits, 0.5)),
            millis(p99),
            waits.len(),
            millis(quantile(&fsyncs, 0.5)),
            millis(quantile(&fsyncs, 0.99)),
            p99.as_secs_f64() / bound.as_secs_f64(),
        );
    }
}

/// Appends of 4 KiB, each made durable, on the same disk and meanwhile.
fn fsyncs(file: &std::fs::File, until: &std::sync::mpsc::Receiver<()>) -> Vec<Duration> {
    let time = |n: u64| {
        let begun = Instant::now();
        file.write_all_at(&[7; 4096], n * 4096).unwrap();
        file.sync_data().unwrap();
        begun.elapsed()
    };
    let goes_on = |_: &u64| until.recv_timeout(FSYNC_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
    (0..).take_while(goes_on).map(time).collect()
}

async fn waits(rate: &str, dir: &std::path::Path) -> Vec<Duration> {
    let symbols = tickmint::exchange::simulated_symbols(100);
    let mut exchange = Command::new(env!("CARGO_BIN_EXE_tickmint"));
    exchange.args(["exchange", "--listen", "127.0.0.1:0", "--simulate", "100", "--rate", rate, "--max-symbols", "100"]);
    let mut exchange = exchange.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(exchange.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = format!("ws://{}", line.trim().rsplit("ws://").next().unwrap());

    let log = LogWriter::create(dir, LogId::generate(), LogState::default(), 64 << 20).unwrap();
    let (durable, view) = watch::channel(log.view());
    let logs = Logs::new(dir.to_path_buf(), Default::default(), log.id(), view);
    let config =
        SpoolConfig { dir: dir.to_path_buf(), max_bytes: 1 << 40, reserve_bytes: 0, segment_bytes: 64 << 20, group: GROUP };
    let (metrics, waits) = (Arc::new(Metrics::new()), Arc::new(Mutex::new(Vec::new())));
    let vitals = Vitals::unsupervised;
    let traces = Traces::default();
    let kind = LogKind::BRONZE;
    let parts = spool::SpoolParts { config, vitals: vitals("spool"), logs, kind, log, durable, metrics: metrics.clone(), traces };
    let spool_thread = Arbiter::new(); // as the daemon has it
    let spool = spool::Spool::start_in_arbiter(&spool_thread.handle(), move |_| spool::Spool::new(parts));
    let watch = Arc::new(Watchlist::new(&symbols, 0));
    let rules = Rules { watch: watch.clone(), max_age: None, max_ahead: None, max_frame_bytes: 1 << 20 };
    let parts =
        validator::Parts { vitals: vitals("validator"), rules, metrics: metrics.clone(), spool: spool.clone().recipient() };
    let meter = Meter { validator: validator::Validator::new(parts).start(), waits: waits.clone() }.start();
    let seconds = Duration::from_secs;
    feed_session::FeedSession::new(feed_session::Parts {
        vitals: vitals("session"),
        config: FeedConfig {
            url,
            shards: Vec::new(),
            watchdog: seconds(60),
            reconnect_min: seconds(1),
            reconnect_max: seconds(1),
            stale_after: seconds(60),
            max_frame_bytes: 1 << 20,
        },
        pace: Pace::new(GROUP),
        shard: Shard { name: "shard-1".into(), symbols: symbols.into() },
        key: Secret::new("demo"),
        metrics: metrics.clone(),
        shard_metrics: metrics.shard("shard-1"),
        traces: Traces::default(),
        watch,
        validator: meter.recipient(),
        open: spool.clone().recipient(),
        end: spool.recipient(),
    })
    .start();
    tokio::time::sleep(Duration::from_secs(1)).await; // the beginning of a session is not what is asked
    waits.lock().unwrap().clear();
    tokio::time::sleep(TIME).await;
    drop((exchange.kill(), exchange.wait()));
    let waits = std::mem::take(&mut *waits.lock().unwrap());
    assert!(!waits.is_empty(), "no frames came");
    waits
}
