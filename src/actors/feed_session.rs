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
use fail::fail_point;
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::clock;
use crate::config::{FeedConfig, Secret};
use crate::domain::frame::Watchlist;
use crate::domain::identity::{Micros, SessionId};
use crate::domain::verdict::RawFrame;
use crate::io::finnhub::{self, ConnectError, Socket};
use crate::messages::feed::{AppendError, EndSession, Judge, OpenSession, Shard};
use crate::spool::commit::SPOOL_FULL;
use crate::spool::pace::Pace;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::metrics::ShardMetrics;
use crate::telemetry::{Metrics, Traces};

/// A batch holds at most so many frames: at ten trades each, what the spool writes in one go.
const BATCH_FRAMES: usize = 2048;

/// And at most so many bytes, or one frame.
const BATCH_BYTES: usize = 1 << 20;

/// The last number that a frame may have; the end of the session takes the one behind it.
const LAST_FRAME: u32 = u32::MAX - 1;

/// A refused key or a full spool does not mend in a second.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// A connection that lived so long was a good one: the next back-off starts small.
const GOOD_LIFE: Duration = Duration::from_secs(60);

/// Between two tries to hand something over.
const RESEND_AFTER: Duration = Duration::from_millis(100);

/// How long a new connection waits for the spool to take its session.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// A server that does not take a few kilobytes by then is dead.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(10);

/// How long an end waits for a spool that does not take it; its successor tells of it then.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How long the server's goodbye is waited for.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// How often silent symbols and a batch that waits too long are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

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
    /// How often a batch is handed over: as often as the spool makes its log durable. What comes
    /// meanwhile is in the batch of the next fsync, and not in the one after it.
    pub pace: Pace,
    /// What it serves.
    pub shard: Shard,
    /// The key that it uses.
    pub key: Secret,
    /// Counts and alarms, and its own part of them.
    pub metrics: Arc<Metrics>,
    /// See `metrics`.
    pub shard_metrics: Arc<ShardMetrics>,
    /// Traces some of its frames until they are durable.
    pub traces: Traces,
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
    Closed(String),
    Stalled,
    Broken(String),
    SpoolFull,
    /// The spool does not know the session: it was restarted, or the disk refused its opening.
    NotOpen,
    /// There are no more numbers for its frames.
    NumbersUsedUp,
}

impl End {
    fn reason(&self) -> &'static str {
        match self {
            End::Shutdown => "shutdown",
            End::Closed(_) => "closed_by_server",
            End::Stalled => "stalled",
            End::Broken(_) => "disconnected",
            End::SpoolFull => SPOOL_FULL,
            End::NotOpen => "session_died",
            End::NumbersUsedUp => "numbers_used_up",
        }
    }
}

/// Connects again and again until it is told to stop.
async fn live(parts: &Parts, mut stop: watch::Receiver<bool>) {
    let mut attempt = 0;
    while !*stop.borrow() {
        let wait = once(parts, stop.clone(), &mut attempt).await;
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
async fn once(parts: &Parts, mut stop: watch::Receiver<bool>, attempt: &mut u32) -> Duration {
    let Parts { vitals, config, shard, .. } = parts;
    let session = SessionId::generate();
    vitals.note("connection", "connecting");
    let socket = tokio::select! {
        () = stopped(&mut stop) => return Duration::ZERO,
        socket = finnhub::connect(&config.url, &parts.key, session, &shard.name, config.max_frame_bytes) => socket,
    };
    let mut socket = match socket {
        Ok(socket) => socket,
        Err(error) => return unreachable(parts, &error, attempt),
    };
    fail_point!("session.connected");
    let connected_at = Instant::now();
    let mut reading = Reading::new(parts, session);
    let end = match open(parts, session, &mut stop).await {
        Ok(()) => match subscribe(&mut socket, shard, &mut stop).await {
            Ok(()) => reading.until_the_end(&mut socket, stop).await,
            Err(end) => end,
        },
        Err(_) if *stop.borrow() => End::Shutdown,
        Err(error) => {
            vitals.note("feed", error.to_string());
            tracing::error!(shard = shard.name, %error, "the spool takes no session");
            return LONG_WAIT.min(config.reconnect_max);
        }
    };
    // What was read and could not be made durable is as if it had not been read: it lies in the gap.
    let Mark { frames, received_at } = reading.durable;
    parts.metrics.disconnected(&parts.shard_metrics, end.reason());
    tracing::info!(shard = shard.name, %session, frames, ?end, "the session has ended");
    match &end {
        End::Broken(why) | End::Closed(why) => vitals.note("feed", why.clone()),
        End::Stalled => vitals.note("feed", format!("no message for {:?}", config.watchdog)),
        End::Shutdown | End::SpoolFull | End::NotOpen | End::NumbersUsedUp => {}
    }
    fail_point!("session.ending");
    close(parts, EndSession { session, frames, last_received_at: received_at, reason: end.reason().to_string() }).await;
    drop(timeout(GOODBYE_WITHIN, socket.close(None)).await);
    if connected_at.elapsed() > GOOD_LIFE {
        *attempt = 0;
    }
    match end {
        End::Shutdown => Duration::ZERO,
        End::SpoolFull => LONG_WAIT.min(config.reconnect_max),
        End::Closed(_) | End::Stalled | End::Broken(_) | End::NotOpen | End::NumbersUsedUp => back_off(config, attempt),
    }
}

/// Tells of a connection that did not come about; returns how long to wait before the next try.
fn unreachable(parts: &Parts, error: &ConnectError, attempt: &mut u32) -> Duration {
    let (shard, mends_soon) = (&parts.shard.name, error.is_retryable());
    let wait = if mends_soon { back_off(&parts.config, attempt) } else { LONG_WAIT };
    if mends_soon {
        tracing::warn!(shard, %error, ?wait, "no connection to the feed");
    } else {
        tracing::error!(shard, %error, ?wait, "no connection to the feed");
    }
    parts.vitals.note("feed", error.to_string());
    parts.metrics.unreachable(&parts.shard_metrics, error);
    wait
}

/// Asks for all symbols. The server does not answer, so that is all.
async fn subscribe(socket: &mut Socket, shard: &Shard, stop: &mut watch::Receiver<bool>) -> Result<(), End> {
    let ask = async {
        for symbol in shard.symbols.iter() {
            socket.feed(finnhub::subscribe(symbol)).await?;
        }
        socket.flush().await
    };
    let asked = tokio::select! {
        biased;
        () = stopped(stop) => return Err(End::Shutdown),
        asked = timeout(SUBSCRIBE_WITHIN, ask) => asked,
    };
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(End::Broken(error.to_string())),
        Err(_) => Err(End::Stalled),
    }
}

fn back_off(config: &FeedConfig, attempt: &mut u32) -> Duration {
    let full = config.reconnect_min.saturating_mul(1 << (*attempt).min(16)).min(config.reconnect_max);
    *attempt = attempt.saturating_add(1);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Has the spool take the session, before anything is asked of the server.
async fn open(parts: &Parts, session: SessionId, stop: &mut watch::Receiver<bool>) -> Result<(), AppendError> {
    let late = Instant::now() + OPEN_WITHIN;
    loop {
        let open = OpenSession { session, shard: parts.shard.clone() };
        let answer = parts.open.send(open).timeout(OPEN_WITHIN).await;
        match answer.unwrap_or(Err(AppendError::Down("spool"))) {
            Err(AppendError::Down(_) | AppendError::Disk(_)) if Instant::now() < late && !*stop.borrow() => {
                tokio::select! {
                    () = sleep(RESEND_AFTER) => {}
                    () = stopped(stop) => {}
                }
            }
            answer => return answer,
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

/// How far a session has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    /// The number of the last frame.
    frames: u32,
    /// When it was read.
    received_at: Option<Micros>,
}

/// Resolves when a batch is durable, with its last frame, or cannot be made so.
type Delivery = Pin<Box<dyn Future<Output = Result<Mark, AppendError>>>>;

/// A batch on its way to the disk.
struct UnderWay {
    delivery: Delivery,
    since: Instant,
}

/// One open connection.
struct Reading<'a> {
    parts: &'a Parts,
    session: SessionId,
    read: Mark,
    durable: Mark,
    /// Read, and not yet under way.
    batch: Vec<RawFrame>,
    batch_bytes: usize,
    under_way: Option<UnderWay>,
    pace: Pace,
    /// The batch stays open until then.
    not_before: Instant,
}

impl<'a> Reading<'a> {
    fn new(parts: &'a Parts, session: SessionId) -> Reading<'a> {
        Reading {
            parts,
            session,
            read: Mark::default(),
            durable: Mark::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            under_way: None,
            pace: parts.pace.clone(),
            not_before: Instant::now(),
        }
    }

    /// Reads until the connection or the process ends, then hands over what was read.
    async fn until_the_end(&mut self, socket: &mut Socket, stop: watch::Receiver<bool>) -> End {
        self.begin();
        let end = self.read_on(socket, stop).await;
        self.parts.vitals.clear_note("backlog");
        match end {
            End::SpoolFull | End::NotOpen => end,
            End::Shutdown | End::Closed(_) | End::Stalled | End::Broken(_) | End::NumbersUsedUp => {
                self.finish().await.err().unwrap_or(end)
            }
        }
    }

    fn begin(&self) {
        fail_point!("session.opened");
        let Parts { vitals, metrics, shard_metrics, shard, .. } = self.parts;
        vitals.clear_note("feed");
        vitals.note("connection", format!("session {}", self.session));
        metrics.connected(shard_metrics);
        tracing::info!(shard = shard.name, session = %self.session, symbols = shard.symbols.len(), "connected");
    }

    async fn read_on(&mut self, socket: &mut Socket, mut stop: watch::Receiver<bool>) -> End {
        let patience = self.parts.config.watchdog;
        let mut watchdog = Instant::now() + patience;
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            let room = self.batch.len() < BATCH_FRAMES && self.batch_bytes < BATCH_BYTES;
            let waits = self.under_way.is_none() && !self.batch.is_empty();
            if waits && (!room || Instant::now() >= self.not_before) {
                self.under_way = Some(self.hand_over());
                continue;
            }
            if self.read.frames == LAST_FRAME {
                return End::NumbersUsedUp;
            }
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return End::Shutdown,
                done = arrival(&mut self.under_way) => {
                    if let Err(end) = self.arrived(done) {
                        return end;
                    }
                    if !room {
                        // Nobody listened, so the silence was ours.
                        watchdog = Instant::now() + patience;
                    }
                }
                message = socket.next(), if room => {
                    watchdog = Instant::now() + patience;
                    match message {
                        // Not every server hangs up after its goodbye.
                        Some(Ok(Message::Close(close))) => return End::Closed(goodbye(close)),
                        Some(Ok(message)) => self.read(message),
                        Some(Err(error)) => return End::Broken(error.to_string()),
                        None => return End::Closed(goodbye(None)),
                    }
                }
                () = sleep_until(self.not_before), if waits => {}
                () = sleep_until(watchdog), if room => return End::Stalled,
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK_EVERY;
                    self.note_stale();
                    self.note_backlog();
                }
            }
        }
    }

    fn read(&mut self, message: Message) {
        let (payload, binary) = match message {
            Message::Text(text) => (Bytes::from(text), false),
            Message::Binary(bytes) => (bytes, true),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return,
        };
        let received_at = clock::now();
        self.read = Mark { frames: self.read.frames + 1, received_at: Some(received_at) };
        self.batch_bytes += payload.len();
        self.parts.shard_metrics.received(1, payload.len() as u64, received_at);
        self.batch.push(RawFrame { number: self.read.frames, received_at, payload, binary });
    }

    /// Begins to hand the batch over; it is sent until it is durable or cannot be.
    fn hand_over(&mut self) -> UnderWay {
        let now = Instant::now();
        self.pace.take(now);
        self.not_before = now + self.pace.wait(now);
        fail_point!("session.batch");
        self.batch_bytes = 0;
        let frames: Arc<[RawFrame]> = std::mem::take(&mut self.batch).into();
        let mut spans = self.parts.traces.span_frames(&self.parts.shard.name, self.session, &frames);
        let traced = spans.iter().map(|(number, span)| (*number, span.traceparent().into())).collect();
        let batch = Judge { session: self.session, frames, traced };
        let (validator, vitals, count, mark) =
            (self.parts.validator.clone(), self.parts.vitals.clone(), batch.frames.len(), self.read);
        let delivery = Box::pin(async move {
            loop {
                match validator.send(batch.clone()).await.unwrap_or(Err(AppendError::Down("validator"))) {
                    Ok(()) => {
                        drop(spans); // durable: that is where they end
                        vitals.advance(count as u64);
                        return Ok(mark);
                    }
                    Err(error @ (AppendError::Full { .. } | AppendError::NotOpen(_))) => {
                        spans.iter_mut().for_each(|(_, span)| span.fail(&error));
                        return Err(error);
                    }
                    Err(error @ (AppendError::Down(_) | AppendError::Disk(_))) => {
                        tracing::debug!(%error, "a batch is sent again");
                        sleep(RESEND_AFTER).await;
                    }
                }
            }
        });
        UnderWay { delivery, since: Instant::now() }
    }

    /// The batch under way has arrived, or will not.
    fn arrived(&mut self, answer: Result<Mark, AppendError>) -> Result<(), End> {
        self.under_way = None;
        match answer {
            Ok(mark) => {
                fail_point!("session.acknowledged");
                #[cfg(feature = "faults")]
                crate::faults::witness(format_args!("acknowledged {} {}", self.session, mark.frames));
                self.durable = mark;
                Ok(())
            }
            Err(AppendError::Full { .. }) => Err(End::SpoolFull),
            Err(AppendError::NotOpen(_) | AppendError::Down(_) | AppendError::Disk(_)) => Err(End::NotOpen),
        }
    }

    /// Hands over the batch under way and the one behind it.
    async fn finish(&mut self) -> Result<(), End> {
        loop {
            if self.under_way.is_none() {
                if self.batch.is_empty() {
                    return Ok(());
                }
                self.under_way = Some(self.hand_over());
            }
            let answer = arrival(&mut self.under_way).await;
            self.arrived(answer)?;
        }
    }

    fn note_stale(&self) {
        let then = clock::now() - self.parts.config.stale_after.as_micros() as Micros;
        let silent = self.parts.watch.silent_since(then);
        self.parts.shard_metrics.stale(silent.len());
        match silent.len() {
            0 => self.parts.vitals.clear_note("silent_symbols"),
            _ => self.parts.vitals.note("silent_symbols", silent.join(" ")),
        }
    }

    fn note_backlog(&self) {
        match &self.under_way {
            Some(batch) if batch.since.elapsed() >= LOOK_EVERY => {
                let seconds = batch.since.elapsed().as_secs();
                let text =
                    format!("a batch has been waiting for the disk for {seconds} s, {} frames behind it", self.batch.len());
                self.parts.vitals.note("backlog", text);
            }
            Some(_) | None => self.parts.vitals.clear_note("backlog"),
        }
    }
}

/// What the server said when it closed.
fn goodbye(close: Option<CloseFrame>) -> String {
    match close {
        Some(close) => format!("the server closed the connection: {} {}", close.code, close.reason),
        None => "the server closed the connection".to_string(),
    }
}

/// Resolves when the batch under way has arrived, or will not; never where there is none.
async fn arrival(under_way: &mut Option<UnderWay>) -> Result<Mark, AppendError> {
    match under_way {
        Some(batch) => batch.delivery.as_mut().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
