//! One open connection: reads frames into batches and hands them over, one at a time.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fail::fail_point;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use super::{End, Parts, RESEND_AFTER, goodbye, stopped};
use crate::clock;
use crate::domain::identity::{Micros, SessionId};
use crate::domain::verdict::RawFrame;
use crate::io::finnhub::Socket;
use crate::messages::feed::{AppendError, Judge};
use crate::spool::pace::Pace;

/// A batch holds at most so many frames: at ten trades each, what the spool writes in one go.
pub(super) const BATCH_FRAMES: usize = 2048;

/// And at most so many bytes, or one frame.
const BATCH_BYTES: usize = 1 << 20;

/// The last number that a frame may have; the end of the session takes the one behind it.
const LAST_FRAME: u32 = u32::MAX - 1;

/// How often a batch that waits too long is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How far a session has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of the last frame.
    pub(super) frames: u32,
    /// When it was read.
    pub(super) received_at: Option<Micros>,
}

/// Resolves when a batch is durable, with its last frame, or cannot be made so.
type Delivery = Pin<Box<dyn Future<Output = Result<Mark, AppendError>>>>;

/// A batch on its way to the disk.
struct UnderWay {
    delivery: Delivery,
    since: Instant,
}

/// One open connection.
pub(super) struct Reading<'a> {
    parts: &'a Parts,
    session: SessionId,
    read: Mark,
    /// What was read and is not so far is as if it had not been read: it lies in the gap.
    pub(super) durable: Mark,
    /// Read, and not yet under way.
    batch: Vec<RawFrame>,
    batch_bytes: usize,
    under_way: Option<UnderWay>,
    /// The batch stays open as long as it says.
    pace: Pace,
}

impl<'a> Reading<'a> {
    pub(super) fn new(parts: &'a Parts, session: SessionId) -> Reading<'a> {
        Reading {
            parts,
            session,
            read: Mark::default(),
            durable: Mark::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            under_way: None,
            pace: parts.pace.clone(),
        }
    }

    /// Reads until the connection or the process ends, then hands over what was read.
    pub(super) async fn until_the_end(&mut self, socket: &mut Socket, stop: watch::Receiver<bool>) -> End {
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
            let wait = self.pace.wait(Instant::now());
            if waits && (!room || wait.is_zero()) {
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
                () = sleep(wait), if waits => {}
                () = sleep_until(watchdog), if room => return End::Stalled,
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK_EVERY;
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
        self.pace.take(Instant::now());
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

    /// The batch under way has arrived, or will not: then this session is over, as no frame may be
    /// left out of its row.
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

/// Resolves when the batch under way has arrived, or will not; never where there is none.
async fn arrival(under_way: &mut Option<UnderWay>) -> Result<Mark, AppendError> {
    match under_way {
        Some(batch) => batch.delivery.as_mut().await,
        None => std::future::pending().await,
    }
}
