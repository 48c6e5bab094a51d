//! Keeps one WebSocket session of a shard open.
//!
//! In: the feed's messages. Out: frames in batches, to the validator; a batch is kept until it is
//! durable, and while one is under way the next one fills. One batch at a time: that is the order,
//! the back-pressure (the socket is not read when the next batch is full) and the loss detection in
//! one. After a restart it opens a new session; the spool tells of the end of the old one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::config::{FeedConfig, Secret};
use crate::domain::frame::Watchlist;
use crate::domain::identity::{Micros, SessionId};
use crate::domain::verdict::RawFrame;
use crate::io::finnhub::{self, ConnectError, Socket};
use crate::messages::feed::{AppendError, EndSession, Judge, OpenSession, Shard};
use crate::spool::commit::SPOOL_FULL;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ShardMetrics;

/// A batch holds at most so many frames: at ten trades each, what the spool writes in one go.
const BATCH_FRAMES: usize = 2048;

/// And at most so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// A refused key or a full spool does not mend in a second.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// A connection that lived so long was a good one: the next back-off starts small.
const GOOD_LIFE: Duration = Duration::from_secs(60);

/// Between two tries to hand a batch over.
const RESEND_AFTER: Duration = Duration::from_millis(100);

/// How long an end waits for a spool that does not take it; its successor tells of it then.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How often silent symbols are looked for.
const STALE_CHECK: Duration = Duration::from_secs(10);

/// See the module.
pub struct FeedSession {
    parts: Parts,
    /// Set when the source is to end.
    stop: Arc<watch::Sender<bool>>,
    /// Closed when the source has ended.
    ended: watch::Receiver<()>,
    running: Option<watch::Sender<()>>,
}

/// What a session is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Times and limits.
    pub config: FeedConfig,
    /// What it serves.
    pub shard: Shard,
    /// The key that it uses.
    pub key: Secret,
    /// Counts and alarms, and its own part of them.
    pub metrics: Arc<Metrics>,
    /// See `metrics`.
    pub shard_metrics: Arc<ShardMetrics>,
    /// When each of its symbols last traded.
    pub watch: Arc<Watchlist>,
    /// Judges its frames and has them made durable.
    pub validator: Recipient<Judge>,
    /// Told of its beginnings.
    pub open: Recipient<OpenSession>,
    /// Told of its ends.
    pub end: Recipient<EndSession>,
}

impl FeedSession {
    /// A session that connects when it is started.
    pub fn new(parts: Parts) -> FeedSession {
        let (running, ended) = watch::channel(());
        FeedSession { parts, stop: Arc::new(watch::Sender::new(false)), ended, running: Some(running) }
    }
}

impl Actor for FeedSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (parts, stop, running) = (self.parts.clone(), self.stop.subscribe(), self.running.take());
        let run = async move {
            live(&parts, stop).await;
            drop(running);
        };
        ctx.spawn(wrap_future(run));
    }
}

impl Supervised for FeedSession {
    fn restarting(&mut self, _: &mut Self::Context) {
        let (running, ended) = watch::channel(());
        (self.running, self.ended) = (Some(running), ended);
    }
}

impl Child for FeedSession {
    /// Stops reading at once; what has been read is made durable and the session's end is written.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        Box::pin(wrap_future(async move { while ended.changed().await.is_ok() {} }))
    }
}

/// Why a session ended, as the gap will say it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Shutdown,
    Closed,
    Stalled,
    Broken(String),
    SpoolFull,
    /// The spool does not know the session: it was restarted, or the disk refused its opening.
    NotOpen,
}

impl End {
    fn reason(&self) -> &'static str {
        match self {
            End::Shutdown => "shutdown",
            End::Closed => "closed_by_server",
            End::Stalled => "stalled",
            End::Broken(_) => "disconnected",
            End::SpoolFull => SPOOL_FULL,
            End::NotOpen => "session_died",
        }
    }
}

/// Connects again and again until it is told to stop.
async fn live(parts: &Parts, mut stop: watch::Receiver<bool>) {
    let mut attempt = 0;
    while !*stop.borrow() {
        let began = Instant::now();
        let wait = once(parts, &stop, &mut attempt).await;
        if began.elapsed() > GOOD_LIFE {
            attempt = 0;
        }
        parts.vitals.note("connection", format!("waiting {:.1} s before the next try", wait.as_secs_f64()));
        tokio::select! {
            () = sleep(wait) => {}
            () = stopped(&mut stop) => {}
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// One connection from beginning to end; returns how long to wait before the next.
async fn once(parts: &Parts, stop: &watch::Receiver<bool>, attempt: &mut u32) -> Duration {
    let Parts { vitals, config, shard, .. } = parts;
    let session = SessionId::generate();
    vitals.note("connection", "connecting");
    let socket = finnhub::connect(&config.url, &parts.key, session, &shard.name, config.max_frame_bytes).await;
    let mut socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            let wait = if error.is_retryable() { back_off(config, attempt) } else { LONG_WAIT };
            match &error {
                ConnectError::Passing(_) => tracing::warn!(shard = shard.name, %error, ?wait, "no connection to the feed"),
                _ => tracing::error!(shard = shard.name, %error, ?wait, "no connection to the feed"),
            }
            vitals.note("feed", error.to_string());
            parts.metrics.unreachable(&parts.shard_metrics, &error);
            return wait;
        }
    };
    if let Err(error) = open(parts, session).await {
        vitals.note("feed", error.to_string());
        tracing::error!(shard = shard.name, %error, "the spool takes no session");
        return LONG_WAIT.min(config.reconnect_max);
    }
    if let Err(error) = subscribe(&mut socket, shard).await {
        tracing::debug!(%error, "the first read will say why");
    }
    vitals.clear_note("feed");
    parts.metrics.connected(&parts.shard_metrics);
    vitals.note("connection", format!("session {session}"));
    tracing::info!(shard = shard.name, %session, symbols = shard.symbols.len(), "connected");
    let mut reading = Reading { parts, session, frames: 0, last_received_at: None, batch: Vec::new(), batch_bytes: 0 };
    let end = reading.until_the_end(&mut socket, stop.clone()).await;
    let (frames, last_received_at) = (reading.frames, reading.last_received_at);
    parts.metrics.disconnected(&parts.shard_metrics, end.reason());
    tracing::info!(shard = shard.name, %session, frames, ?end, "the session has ended");
    close(parts, EndSession { session, frames, last_received_at, reason: end.reason().to_string() }).await;
    drop(timeout(Duration::from_secs(1), socket.close(None)).await);
    match end {
        End::SpoolFull => LONG_WAIT.min(config.reconnect_max),
        _ => back_off(config, attempt),
    }
}

async fn subscribe(socket: &mut Socket, shard: &Shard) -> Result<(), tungstenite::Error> {
    for symbol in shard.symbols.iter() {
        socket.feed(finnhub::subscribe(symbol)).await?;
    }
    socket.flush().await
}

fn back_off(config: &FeedConfig, attempt: &mut u32) -> Duration {
    let full = config.reconnect_min.saturating_mul(1 << (*attempt).min(16)).min(config.reconnect_max);
    *attempt += 1;
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

async fn open(parts: &Parts, session: SessionId) -> Result<(), AppendError> {
    loop {
        let open = OpenSession { session, shard: parts.shard.clone() };
        match parts.open.send(open).await.unwrap_or(Err(AppendError::Down("spool"))) {
            Err(AppendError::Down(_)) => sleep(RESEND_AFTER).await,
            other => return other,
        }
    }
}

async fn close(parts: &Parts, end: EndSession) {
    let told = async {
        while parts.end.send(end.clone()).await.unwrap_or(Err(AppendError::Down("spool"))).is_err() {
            sleep(RESEND_AFTER).await;
        }
    };
    if timeout(END_WITHIN, told).await.is_err() {
        tracing::warn!(session = %end.session, "its end could not be written; its successor tells of it");
    }
}

type Delivery = Pin<Box<dyn Future<Output = Result<(), AppendError>>>>;

/// One open connection.
struct Reading<'a> {
    parts: &'a Parts,
    session: SessionId,
    frames: u32,
    last_received_at: Option<Micros>,
    /// Read, and not yet under way.
    batch: Vec<RawFrame>,
    batch_bytes: usize,
}

impl Reading<'_> {
    /// Reads until the connection or the process ends, then hands over what was read.
    async fn until_the_end(&mut self, socket: &mut Socket, mut stop: watch::Receiver<bool>) -> End {
        let mut under_way: Option<Delivery> = None;
        let mut watchdog = Instant::now() + self.parts.config.watchdog;
        let mut stale_check = Instant::now() + STALE_CHECK;
        let end = loop {
            if under_way.is_none() && !self.batch.is_empty() {
                under_way = Some(self.hand_over());
            }
            let room = self.batch.len() < BATCH_FRAMES && self.batch_bytes < BATCH_BYTES;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break End::Shutdown,
                done = deliver(&mut under_way) => match done {
                    Ok(()) => {}
                    Err(AppendError::Full { .. }) => break End::SpoolFull,
                    Err(_) => break End::NotOpen,
                },
                message = socket.next(), if room => {
                    watchdog = Instant::now() + self.parts.config.watchdog;
                    match message {
                        Some(Ok(message)) => self.read(message),
                        Some(Err(error)) => break End::Broken(error.to_string()),
                        None => break End::Closed,
                    }
                }
                () = sleep_until(watchdog), if room => break End::Stalled,
                () = sleep_until(stale_check) => {
                    stale_check += STALE_CHECK;
                    self.note_stale();
                }
            }
        };
        if !matches!(end, End::SpoolFull | End::NotOpen) {
            self.finish(under_way).await;
        }
        end
    }

    fn read(&mut self, message: Message) {
        let (payload, binary) = match message {
            Message::Text(text) => (Bytes::from(text), false),
            Message::Binary(bytes) => (bytes, true),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return,
        };
        let received_at = jiff::Timestamp::now().as_microsecond();
        self.frames += 1;
        self.last_received_at = Some(received_at);
        self.batch_bytes += payload.len();
        self.parts.shard_metrics.received(1, payload.len() as u64, received_at);
        self.batch.push(RawFrame { number: self.frames, received_at, payload, binary });
    }

    /// Begins to hand the batch over; it is sent until it is durable or cannot be.
    fn hand_over(&mut self) -> Delivery {
        self.batch_bytes = 0;
        let frames: Arc<[RawFrame]> = std::mem::take(&mut self.batch).into();
        let batch = Judge { session: self.session, frames };
        let (validator, vitals, count) = (self.parts.validator.clone(), self.parts.vitals.clone(), batch.frames.len());
        Box::pin(async move {
            loop {
                match validator.send(batch.clone()).await.unwrap_or(Err(AppendError::Down("validator"))) {
                    Ok(()) => {
                        vitals.advance(count as u64);
                        return Ok(());
                    }
                    Err(error @ (AppendError::Full { .. } | AppendError::NotOpen(_))) => return Err(error),
                    Err(error @ (AppendError::Down(_) | AppendError::Disk(_))) => {
                        tracing::debug!(%error, "a batch is sent again");
                        sleep(RESEND_AFTER).await;
                    }
                }
            }
        })
    }

    /// Hands over the batch under way and the one behind it.
    async fn finish(&mut self, under_way: Option<Delivery>) {
        if let Some(under_way) = under_way
            && under_way.await.is_err()
        {
            return;
        }
        if !self.batch.is_empty() {
            drop(self.hand_over().await);
        }
    }

    fn note_stale(&self) {
        let then = jiff::Timestamp::now().as_microsecond() - self.parts.config.stale_after.as_micros() as Micros;
        let silent = self.parts.watch.silent_since(then);
        self.parts.shard_metrics.stale(silent.len());
        match silent.len() {
            0 => self.parts.vitals.clear_note("silent_symbols"),
            _ => self.parts.vitals.note("silent_symbols", silent.join(" ")),
        }
    }
}

/// Resolves when the batch under way is durable; never where there is none.
async fn deliver(under_way: &mut Option<Delivery>) -> Result<(), AppendError> {
    match under_way {
        Some(delivery) => {
            let done = delivery.await;
            *under_way = None;
            done
        }
        None => std::future::pending().await,
    }
}
