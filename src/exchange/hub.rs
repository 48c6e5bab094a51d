//! Who is connected and what they want: the one thing that all connections share.
//!
//! Frames go from the market through [`Hub::route`] into a bounded queue a connection. The lock is
//! held for look-ups only, never while anything waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::frame::Frame;

/// Frames that may wait for a connection when the market goes on regardless: enough for the busiest
/// seconds known (900 trades) at many times their speed, and a few MiB of memory.
const PACED_QUEUE: usize = 4096;

/// Frames that may wait for a connection when the market waits as well: some groups of the ledger.
const WAITING_QUEUE: usize = 1024;

/// Connections that are over but still shown.
const SHOWN_CLOSED: usize = 1000;

/// What a connection's queue holds.
#[derive(Debug)]
pub(super) enum Item {
    Frame(Arc<Frame>),
    /// The tape has ended.
    End,
}

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// Somebody else came with the same key.
    SecondConnection,
    /// It does not read as fast as the market goes.
    TooSlow,
    /// The exchange stops.
    Stopped,
}

/// The answer to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscribed {
    New,
    Already,
    TooMany,
}

/// A connection's own counts, which it writes and the status reads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Text and binary messages.
    pub(super) frames: AtomicU64,
    /// Trades in frames of trades, repeats included.
    pub(super) trades: AtomicU64,
    /// Since when it writes to the network, in milliseconds since [`EPOCH`] and at least 1; 0 if it does not.
    writing_since: AtomicU64,
}

/// Some moment in this process's life.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Counts {
    /// Writing to the network begins or has ended.
    pub(super) fn writing(&self, begins: bool) {
        let now = EPOCH.elapsed().as_millis() as u64 + 1;
        self.writing_since.store(if begins { now } else { 0 }, Relaxed);
    }

    fn blocked_for(&self) -> Duration {
        let now = EPOCH.elapsed().as_millis() as u64 + 1;
        match self.writing_since.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now.saturating_sub(since)),
        }
    }
}

/// A connection's end of the hub.
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) queue: mpsc::Receiver<Item>,
    pub(super) kicks: mpsc::Receiver<Kick>,
    pub(super) counts: Arc<Counts>,
}

/// The state of the exchange for `GET /status`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Open connections.
    pub connections: usize,
    /// Symbols subscribed to, summed over the open connections.
    pub subscriptions: usize,
    /// Text and binary messages sent, pings and faults included.
    pub frames_sent: u64,
    /// Trades sent, repeats included.
    pub trades_sent: u64,
    /// Whether the tape has ended and every connection was sent its last frame.
    pub finished: bool,
    /// Open connections and the last that were closed.
    pub per_connection: Vec<ConnectionStatus>,
}

/// A connection for `GET /status`.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Its number in the ledger.
    pub conn: u64,
    /// The client's `X-Request-Id`.
    pub request_id: Option<String>,
    /// Whether it is still there.
    pub open: bool,
    /// Its symbols.
    pub subscriptions: usize,
    /// Text and binary messages sent to it: the `n` of the last one.
    pub sent: u64,
    /// Trades sent to it, repeats included.
    pub trades: u64,
}

struct Entry {
    key: usize,
    request_id: Option<String>,
    symbols: BTreeSet<Box<str>>,
    queue: mpsc::Sender<Item>,
    kicks: mpsc::Sender<Kick>,
    counts: Arc<Counts>,
    /// The tape has ended, but this connection was not yet sent all of it.
    draining: bool,
}

impl Entry {
    fn status(&self, number: u64, open: bool) -> ConnectionStatus {
        ConnectionStatus {
            conn: number,
            request_id: self.request_id.clone(),
            open,
            subscriptions: if open { self.symbols.len() } else { 0 },
            sent: self.counts.frames.load(Relaxed),
            trades: self.counts.trades.load(Relaxed),
        }
    }
}

#[derive(Default)]
struct State {
    last: u64,
    open: BTreeMap<u64, Entry>,
    closed: VecDeque<ConnectionStatus>,
    closed_frames: u64,
    closed_trades: u64,
    last_subscribe: Option<Instant>,
    stopped: bool,
}

/// See the module.
pub(super) struct Hub {
    state: Mutex<State>,
    finished: AtomicBool,
    /// Grows with everything that somebody might wait for.
    changes: watch::Sender<u64>,
    queue: usize,
    max_symbols: usize,
}

impl Hub {
    /// `waits`: whether the market waits for the slowest. Connection numbers go on after `last`.
    pub(super) fn new(waits: bool, max_symbols: usize, last: u64) -> Hub {
        Hub {
            state: Mutex::new(State { last, ..State::default() }),
            finished: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            queue: if waits { WAITING_QUEUE } else { PACED_QUEUE },
            max_symbols,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Sees every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A seat for a new connection, or the number of the one that holds the key.
    pub(super) fn join(&self, key: usize, request_id: Option<&str>) -> Result<Seat, u64> {
        let mut state = self.state();
        match state.open.iter().find(|(_, entry)| entry.key == key) {
            Some((&occupant, _)) => Err(occupant),
            None => Ok(self.seat(&mut state, key, request_id)),
        }
    }

    /// A seat for a connection that will be told to go, as will the one that holds its key.
    pub(super) fn collide(&self, key: usize, request_id: Option<&str>) -> Seat {
        let mut state = self.state();
        state.open.values().filter(|entry| entry.key == key).for_each(|entry| kick(entry, Kick::SecondConnection));
        let seat = self.seat(&mut state, key, request_id);
        state.open.get(&seat.number).into_iter().for_each(|entry| kick(entry, Kick::SecondConnection));
        seat
    }

    fn seat(&self, state: &mut State, key: usize, request_id: Option<&str>) -> Seat {
        let (queue, queued) = mpsc::channel(self.queue);
        let (kicks, kicked) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        state.last += 1;
        let number = state.last;
        let request_id = request_id.map(str::to_owned);
        let entry = Entry { key, request_id, symbols: BTreeSet::new(), queue, kicks, counts: counts.clone(), draining: false };
        if state.stopped {
            kick(&entry, Kick::Stopped);
        }
        state.open.insert(number, entry);
        Seat { number, queue: queued, kicks: kicked, counts }
    }

    /// The connection is over.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.state();
        if let Some(entry) = state.open.remove(&number) {
            let status = entry.status(number, false);
            state.closed_frames += status.sent;
            state.closed_trades += status.trades;
            state.closed.push_back(status);
            if state.closed.len() > SHOWN_CLOSED {
                state.closed.pop_front();
            }
        }
        drop(state);
        self.changed();
    }

    /// Notes a subscription.
    pub(super) fn subscribe(&self, number: u64, symbol: &str) -> Subscribed {
        let mut state = self.state();
        let max = self.max_symbols;
        let Some(entry) = state.open.get_mut(&number) else { return Subscribed::Already };
        if entry.symbols.contains(symbol) {
            return Subscribed::Already;
        }
        if entry.symbols.len() >= max {
            return Subscribed::TooMany;
        }
        entry.symbols.insert(symbol.into());
        state.last_subscribe = Some(Instant::now());
        drop(state);
        self.changed();
        Subscribed::New
    }

    /// Takes a subscription back; whether there was one.
    pub(super) fn unsubscribe(&self, number: u64, symbol: &str) -> bool {
        let removed = self.state().open.get_mut(&number).is_some_and(|entry| entry.symbols.remove(symbol));
        self.changed();
        removed
    }

    /// When somebody subscribed last; `None` while nobody has any symbol.
    pub(super) fn subscribed_at(&self) -> Option<Instant> {
        let state = self.state();
        state.last_subscribe.filter(|_| state.open.values().any(|entry| !entry.symbols.is_empty()))
    }

    /// Puts into each queue what its connection wants of the frame. What has no room is handed back.
    pub(super) fn route(&self, frame: &Arc<Frame>, full: &mut Vec<Full>) {
        let state = self.state();
        for (&number, entry) in state.open.iter().filter(|(_, entry)| !entry.symbols.is_empty()) {
            let Some(wanted) = frame.wanted(|symbol| entry.symbols.contains(symbol)) else { continue };
            match entry.queue.try_send(Item::Frame(wanted)) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(item)) => full.push(Full { number, queue: entry.queue.clone(), item }),
            }
        }
    }

    /// How long the connection has been waiting for its client to read.
    pub(super) fn blocked_for(&self, number: u64) -> Duration {
        self.state().open.get(&number).map_or(Duration::ZERO, |entry| entry.counts.blocked_for())
    }

    /// Ends a connection that is too slow and takes its symbols, so that nothing more is put in.
    pub(super) fn drop_slow(&self, number: u64) {
        if let Some(entry) = self.state().open.get_mut(&number) {
            entry.symbols.clear();
            kick(entry, Kick::TooSlow);
        }
    }

    /// Ends all connections, and those that come after.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.open.values().for_each(|entry| kick(entry, Kick::Stopped));
        drop(state);
        self.changed();
    }

    /// Completes when the exchange stops.
    pub(super) async fn stopped(&self) {
        let mut changes = self.changes();
        while !self.state().stopped {
            changes.changed().await.unwrap_or(()); // the sender is ours
        }
    }

    /// The tape has ended: tells all connections. What has no room for that is handed back.
    pub(super) fn end(&self, full: &mut Vec<Full>) {
        for (&number, entry) in &mut self.state().open {
            entry.draining = true;
            if entry.queue.try_send(Item::End).is_err() {
                full.push(Full { number, queue: entry.queue.clone(), item: Item::End });
            }
        }
    }

    /// The connection was sent its last frame.
    pub(super) fn drained(&self, number: u64) {
        self.state().open.get_mut(&number).into_iter().for_each(|entry| entry.draining = false);
        self.changed();
    }

    /// Whether all connections that were told of the end were sent their last frame, or are gone.
    pub(super) fn all_drained(&self) -> bool {
        self.state().open.values().all(|entry| !entry.draining)
    }

    /// Nothing will be played any more.
    pub(super) fn finish(&self) {
        self.finished.store(true, Relaxed);
        self.changed();
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state();
        let open = state.open.iter().map(|(&number, entry)| entry.status(number, true));
        let mut per_connection: Vec<_> = state.closed.iter().cloned().chain(open).collect();
        per_connection.sort_by_key(|connection| connection.conn);
        let now = per_connection.iter().filter(|connection| connection.open);
        Status {
            connections: state.open.len(),
            subscriptions: now.clone().map(|connection| connection.subscriptions).sum(),
            frames_sent: state.closed_frames + now.clone().map(|connection| connection.sent).sum::<u64>(),
            trades_sent: state.closed_trades + now.map(|connection| connection.trades).sum::<u64>(),
            finished: self.finished.load(Relaxed),
            per_connection,
        }
    }
}

/// A frame for a queue that has no room.
pub(super) struct Full {
    pub(super) number: u64,
    pub(super) queue: mpsc::Sender<Item>,
    pub(super) item: Item,
}

fn kick(entry: &Entry, why: Kick) {
    // The first reason stands; a connection that is gone needs none.
    entry.kicks.try_send(why).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(symbols: &[&str]) -> Arc<Frame> {
        let elements: Vec<_> = symbols.iter().map(|symbol| format!(r#"{{"p":1,"s":"{symbol}","t":1,"v":1}}"#)).collect();
        Arc::new(Frame::parse(format!(r#"{{"data":[{}],"type":"trade"}}"#, elements.join(","))).unwrap().unwrap())
    }

    #[test]
    fn a_connection_is_sent_its_symbols_only() {
        let hub = Hub::new(true, 2, 7);
        let (mut one, mut two) = (hub.join(0, Some("r")).ok().unwrap(), hub.join(1, None).ok().unwrap());
        assert_eq!((one.number, two.number), (8, 9));
        assert_eq!(hub.subscribe(8, "A"), Subscribed::New);
        assert_eq!(hub.subscribe(8, "A"), Subscribed::Already);
        assert_eq!(hub.subscribe(8, "B"), Subscribed::New);
        assert_eq!(hub.subscribe(8, "C"), Subscribed::TooMany);
        assert_eq!(hub.subscribe(9, "C"), Subscribed::New);
        let mut full = Vec::new();
        hub.route(&frame(&["A", "B"]), &mut full);
        hub.route(&frame(&["A", "C"]), &mut full);
        hub.route(&frame(&["X"]), &mut full);
        let sent = |seat: &mut Seat| {
            std::iter::from_fn(|| match seat.queue.try_recv() {
                Ok(Item::Frame(frame)) => Some(frame.trades.iter().map(|trade| trade.symbol.to_string()).collect::<String>()),
                _ => None,
            })
            .collect::<Vec<_>>()
        };
        assert_eq!((sent(&mut one), sent(&mut two)), (vec!["AB".to_owned(), "A".to_owned()], vec!["C".to_owned()]));
        assert!(full.is_empty());
        assert!(hub.unsubscribe(8, "A") && !hub.unsubscribe(8, "A"));
        assert_eq!(hub.subscribe(8, "C"), Subscribed::New);
    }

    #[test]
    fn a_second_connection_on_a_key_ends_both() {
        let hub = Hub::new(true, 2, 0);
        let mut first = hub.join(0, None).ok().unwrap();
        assert_eq!(hub.join(0, None).err(), Some(1));
        let mut second = hub.collide(0, None);
        assert_eq!(first.kicks.try_recv(), Ok(Kick::SecondConnection));
        assert_eq!(second.kicks.try_recv(), Ok(Kick::SecondConnection));
        hub.leave(1);
        hub.leave(2);
        assert!(hub.join(0, None).is_ok(), "then the key is free");
        assert_eq!(hub.status().per_connection.len(), 3);
    }

    #[test]
    fn a_full_queue_hands_back() {
        let hub = Hub::new(true, 2, 0);
        let mut seat = hub.join(0, None).ok().unwrap();
        hub.subscribe(1, "A");
        let mut full = Vec::new();
        for _ in 0..WAITING_QUEUE + 2 {
            hub.route(&frame(&["A"]), &mut full);
        }
        assert_eq!(full.len(), 2);
        hub.drop_slow(full[0].number);
        assert_eq!(seat.kicks.try_recv(), Ok(Kick::TooSlow));
        assert!(hub.subscribed_at().is_none());
    }
}
