//! Keeps one WebSocket session of a shard open.
//!
//! In: the feed's messages. Out: frames in batches, to the validator; a batch is kept until it is
//! durable, and while one is under way the next one fills. One batch at a time: that is the order,
//! the back-pressure (the socket is not read when the next batch is full) and the loss detection in
//! one. After a restart it opens a new session; the spool tells of the end of the old one.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use fail::fail_point;
use futures_util::SinkExt;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::config::{FeedConfig, Secret};
use crate::domain::frame::Watchlist;
use crate::domain::identity::SessionId;
use crate::domain::shard::Shard;
use crate::io::finnhub::{self, ConnectError, Socket};
use crate::messages::feed::{AppendError, EndSession, Judge, OpenSession};
use crate::spool::commit::SPOOL_FULL;
use crate::spool::pace::Pace;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::metrics::ShardMetrics;
use crate::telemetry::{Metrics, Traces};

mod reading;
mod silence;

use reading::{Mark, Reading};

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
            tokio::select! {
                () = live(&parts, stop) => {}
                () = silence::watch(&parts) => {}
            }
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

/// What the server said when it closed.
fn goodbye(close: Option<CloseFrame>) -> String {
    match close {
        Some(close) => format!("the server closed the connection: {} {}", close.code, close.reason),
        None => "the server closed the connection".to_string(),
    }
}

#[cfg(test)]
mod tests;
