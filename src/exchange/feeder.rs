//! Plays the market: takes frames from the tape or the simulation and gives them out in time.
//!
//! A thread reads or makes frames, a few groups ahead. At market speed (times N) a frame is given out
//! when its time has come, whoever listens; a connection that cannot take it is dropped. At `max`
//! the market waits: while nobody is subscribed, and for the slowest connection.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::Frame;
use super::hub::{Full, Hub};
use super::ledger::{Ledger, Line};
use super::market::Market;
use super::tape::Tape;
use super::{ExchangeError, Simulation, Speed};

/// Frames that go from the reading thread together.
const GROUP: usize = 64;

/// Groups that wait: little, as a tape is to be played and not to be held.
const GROUPS_AHEAD: usize = 4;

/// How long the market waits for a client that does not read, when its queue is full already.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often it is looked at then.
const LOOK: Duration = Duration::from_millis(20);

type Group = Result<Vec<Arc<Frame>>, ExchangeError>;

/// What is played, opened but not begun.
pub(super) enum Source {
    Tape { tape: Box<Tape>, retime: bool },
    Simulation { simulation: Simulation, seed: u64 },
}

/// How it is played.
pub(super) struct Feeder {
    pub(super) hub: Arc<Hub>,
    pub(super) ledger: Ledger,
    pub(super) speed: Speed,
    /// The market begins when nobody has subscribed for this long.
    pub(super) quiet: Duration,
}

impl Feeder {
    /// Plays all of it. Returns when every connection was sent its last frame.
    pub(super) async fn play(self, source: Source) -> Result<(), ExchangeError> {
        self.somebody().await;
        let mut groups = source.start(now_ms());
        let begin = Instant::now();
        let (mut frames, mut trades) = (0, 0);
        let mut first = None;
        let mut full = Vec::new();
        while let Some(group) = groups.recv().await {
            for frame in group? {
                match self.speed {
                    Speed::Max => {
                        if self.hub.subscribed_at().is_none() {
                            self.somebody().await;
                        }
                    }
                    Speed::Times(times) => {
                        let millis = frame.at.saturating_sub(*first.get_or_insert(frame.at));
                        let due = begin + Duration::from_secs_f64(millis as f64 / 1000.0 / times);
                        if due > Instant::now() {
                            sleep_until(due).await;
                        }
                    }
                }
                frames += 1;
                trades += frame.trades.len() as u64;
                self.hub.route(&frame, &mut full);
                self.make_room(&mut full).await;
            }
        }
        self.end(frames, trades).await
    }

    /// Waits until somebody has subscribed and, it seems, to all that they want.
    async fn somebody(&self) {
        let mut changes = self.hub.changes();
        loop {
            match self.hub.subscribed_at() {
                Some(last) if last.elapsed() >= self.quiet => return,
                Some(last) => sleep_until(last + self.quiet).await,
                // The hub lives as long as `self`.
                None => changes.changed().await.unwrap_or(()),
            }
        }
    }

    /// Waits for connections that are behind. At market speed one whose client does not read is
    /// dropped; one that waits for our own ledger is not to blame.
    async fn make_room(&self, full: &mut Vec<Full>) {
        for Full { number, queue, item } in full.drain(..) {
            loop {
                match timeout(LOOK, queue.reserve()).await {
                    Ok(Ok(room)) => room.send(item),
                    Ok(Err(_)) => {} // it has ended
                    Err(_) if self.speed == Speed::Max || self.hub.blocked_for(number) < PATIENCE => continue,
                    Err(_) => self.hub.drop_slow(number),
                }
                break;
            }
        }
    }

    async fn end(&self, frames: u64, trades: u64) -> Result<(), ExchangeError> {
        let mut changes = self.hub.changes();
        let mut full = Vec::new();
        self.hub.end(&mut full);
        self.make_room(&mut full).await;
        while !self.hub.all_drained() {
            changes.changed().await.unwrap_or(());
        }
        let mut line = Vec::new();
        Line::End { frames, trades, at_us: now_us() }.write(&mut line);
        self.ledger.commit(line).await.map_err(|error| ExchangeError::Ledger(error.to_string()))?;
        self.hub.finish();
        let status = self.hub.status();
        tracing::info!(frames, trades, frames_sent = status.frames_sent, trades_sent = status.trades_sent, "the tape has ended");
        Ok(())
    }
}

impl Source {
    /// Starts the thread that reads or makes the frames. It ends with the frames or the receiver.
    fn start(self, now: i64) -> mpsc::Receiver<Group> {
        let (groups, played) = mpsc::channel(GROUPS_AHEAD);
        thread::spawn(move || match self {
            Source::Tape { mut tape, retime } => {
                if retime {
                    tape.retime(now);
                }
                read(&mut tape, &groups);
            }
            Source::Simulation { simulation, seed } => {
                let market = Market::new(&simulation, seed, simulation.start.unwrap_or(now));
                make(market, &groups);
            }
        });
        played
    }
}

fn read(tape: &mut Tape, groups: &mpsc::Sender<Group>) {
    loop {
        let mut group = Vec::with_capacity(GROUP);
        let mut ended = false;
        while group.len() < GROUP && !ended {
            match tape.next() {
                Ok(Some(frame)) => group.push(Arc::new(frame)),
                Ok(None) => ended = true,
                Err(error) => {
                    // What came before the fault is played; nobody listens if the sending fails.
                    groups.blocking_send(Ok(group)).ok();
                    groups.blocking_send(Err(error)).ok();
                    return;
                }
            }
        }
        if groups.blocking_send(Ok(group)).is_err() || ended {
            return;
        }
    }
}

fn make(mut market: Market, groups: &mpsc::Sender<Group>) {
    let mut made = Vec::new();
    loop {
        let goes_on = market.step(&mut made);
        if made.len() >= GROUP || !goes_on {
            let group = made.drain(..).map(Arc::new).collect();
            if groups.blocking_send(Ok(group)).is_err() {
                return;
            }
        }
        // A market that is closed for days makes nothing to send.
        if !goes_on || groups.is_closed() {
            return;
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Microseconds since 1970.
pub(super) fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}
