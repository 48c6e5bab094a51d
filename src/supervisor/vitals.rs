//! The vital signs of one actor: written by the actor and by what runs it, read by anyone.
//!
//! Nothing here waits for the actor, so `/health` tells the truth about an actor that hangs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;

use super::exit::Exit;

/// What an actor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// Not yet through `started` and the waits it asked for.
    Starting,
    /// Its loop turns.
    Running,
    /// Failed; it waits for its supervisor or for the end of its back-off.
    Down,
    /// Works off its queue and what it has accepted.
    Draining,
    /// Gone.
    Stopped,
    /// Its thread does not come back. Only a new process cures this.
    Blocked,
}

impl State {
    const ALL: [State; 6] = [State::Starting, State::Running, State::Down, State::Draining, State::Stopped, State::Blocked];
}

/// The last failure of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
    /// What, as [`Exit`] puts it.
    pub text: String,
}

/// What an actor shows to the outside.
#[derive(Debug)]
pub struct Vitals {
    path: String,
    /// What the milliseconds below count from.
    epoch: Instant,
    state: AtomicU8,
    state_since: AtomicU64,
    /// Starts that were begun, the current one included.
    incarnation: AtomicU32,
    /// When the actor's own loop last turned, or it last made progress.
    last_turn: AtomicU64,
    /// When the actor's thread last served what runs the actor.
    thread_turn: AtomicU64,
    /// When the current poll of the actor began, plus one; 0 when it is not being polled.
    poll_began: AtomicU64,
    progress: AtomicU64,
    /// Why the actor is about to stop.
    reason: Mutex<Option<Exit>>,
    last_failure: Mutex<Option<Failure>>,
    notes: Mutex<BTreeMap<&'static str, String>>,
    gauges: Mutex<BTreeMap<&'static str, f64>>,
}

/// For the actor.
impl Vitals {
    /// Vitals of an actor that nobody supervises, for a test of the actor alone.
    pub fn unsupervised(path: impl Into<String>) -> Arc<Vitals> {
        Vitals::new(path.into())
    }

    /// Notes why the actor is about to stop, so that the stop counts as a failure.
    /// `ctx.stop()` must follow.
    pub fn fail(&self, reason: impl Into<String>) {
        self.fail_with(Exit::Failed(reason.into()));
    }

    /// As [`Vitals::fail`], where no restart can help (configuration, credentials): the tree gives up.
    pub fn fail_fatally(&self, reason: impl Into<String>) {
        self.fail_with(Exit::Fatal { path: self.path.clone(), reason: reason.into() });
    }

    /// Counts work done. It is a sign of life too: a long recovery inside one `ctx.wait` is not
    /// taken for a hang while it advances.
    pub fn advance(&self, by: u64) {
        self.progress.fetch_add(by, Relaxed);
        self.last_turn.store(self.now(), Relaxed);
    }

    /// Shows a text in `/health` until the actor fails.
    pub fn note(&self, name: &'static str, text: impl Into<String>) {
        lock(&self.notes).insert(name, text.into());
    }

    /// Takes a note away: what it said is over.
    pub fn clear_note(&self, name: &'static str) {
        lock(&self.notes).remove(name);
    }

    /// Shows a number in `/health` until the actor fails.
    pub fn gauge(&self, name: &'static str, value: f64) {
        lock(&self.gauges).insert(name, value);
    }
}

/// For everyone.
impl Vitals {
    /// The actor's place in the tree, such as `writers/trades-0`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the actor is doing.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// For how long it has been doing that.
    pub fn state_time(&self) -> Duration {
        self.since(&self.state_since)
    }

    /// How often it was restarted.
    pub fn restarts(&self) -> u32 {
        self.incarnation().saturating_sub(1)
    }

    /// Time since its loop last turned. Below a second for an actor that is well, also when idle.
    pub fn silence(&self) -> Duration {
        self.since(&self.last_turn)
    }

    /// Time since its thread last turned.
    pub fn thread_silence(&self) -> Duration {
        self.since(&self.thread_turn)
    }

    /// How long its thread has been inside its current handler or future.
    pub fn poll_time(&self) -> Duration {
        match self.poll_began.load(Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_millis((self.now() + 1).saturating_sub(began)),
        }
    }

    /// The work it has counted.
    pub fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    /// The last failure, which a restart does not clear.
    pub fn last_failure(&self) -> Option<Failure> {
        lock(&self.last_failure).clone()
    }

    /// What this incarnation has noted.
    pub fn notes(&self) -> BTreeMap<&'static str, String> {
        lock(&self.notes).clone()
    }

    /// What this incarnation has measured.
    pub fn gauges(&self) -> BTreeMap<&'static str, f64> {
        lock(&self.gauges).clone()
    }
}

/// For the supervisor and the child's runner.
impl Vitals {
    pub(super) fn new(path: String) -> Arc<Vitals> {
        Arc::new(Vitals {
            path,
            epoch: Instant::now(),
            state: AtomicU8::new(State::Starting as u8),
            state_since: AtomicU64::new(0),
            incarnation: AtomicU32::new(0),
            last_turn: AtomicU64::new(0),
            thread_turn: AtomicU64::new(0),
            poll_began: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            reason: Mutex::default(),
            last_failure: Mutex::default(),
            notes: Mutex::default(),
            gauges: Mutex::default(),
        })
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation.load(Relaxed)
    }

    /// A new incarnation, before any code of the actor runs: so a panic in it belongs to it.
    pub(super) fn begins(&self) {
        self.incarnation.fetch_add(1, Relaxed);
        self.last_turn.store(self.now(), Relaxed);
        self.set_state(State::Starting);
    }

    /// The incarnation is over, and with it what it said of itself.
    pub(super) fn ends(&self) {
        lock(&self.reason).take();
        lock(&self.notes).clear();
        lock(&self.gauges).clear();
        self.set_state(State::Down);
    }

    /// The actor's loop turned.
    pub(super) fn turns(&self) {
        self.last_turn.store(self.now(), Relaxed);
        if self.state() == State::Starting {
            self.set_state(State::Running);
        }
    }

    /// The actor's thread turned.
    pub(super) fn thread_turns(&self) {
        self.thread_turn.store(self.now(), Relaxed);
    }

    pub(super) fn poll_begins(&self) {
        self.poll_began.store(self.now() + 1, Relaxed);
    }

    pub(super) fn poll_ends(&self) {
        self.poll_began.store(0, Relaxed);
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
        self.state_since.store(self.now(), Relaxed);
    }

    pub(super) fn fail_with(&self, exit: Exit) {
        *lock(&self.reason) = Some(exit);
    }

    pub(super) fn take_reason(&self) -> Option<Exit> {
        lock(&self.reason).take()
    }

    pub(super) fn record_failure(&self, exit: &Exit) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        *lock(&self.last_failure) = Some(Failure { at_ms, text: exit.to_string() });
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, instant: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(instant.load(Relaxed)))
    }
}

/// What these locks guard is whole after each statement, so a panic elsewhere spoils nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_survives_its_number() {
        let vitals = Vitals::unsupervised("a");
        for state in State::ALL {
            vitals.set_state(state);
            assert_eq!(vitals.state(), state);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn times_count_from_the_last_sign() {
        let vitals = Vitals::unsupervised("a");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(vitals.silence(), Duration::from_secs(9));
        vitals.advance(3);
        assert_eq!((vitals.silence(), vitals.progress()), (Duration::ZERO, 3));
        assert_eq!(vitals.thread_silence(), Duration::from_secs(9));

        assert_eq!(vitals.poll_time(), Duration::ZERO);
        vitals.poll_begins();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(vitals.poll_time(), Duration::from_secs(2));
        vitals.poll_ends();
        assert_eq!(vitals.poll_time(), Duration::ZERO);
    }

    #[test]
    fn a_new_incarnation_starts_clean_but_remembers_the_last_failure() {
        let vitals = Vitals::unsupervised("a");
        vitals.begins();
        vitals.note("lag", "12 s");
        vitals.gauge("lag_records", 7.0);
        vitals.fail("no reason to stop after all");
        vitals.record_failure(&Exit::Panicked("boom".into()));
        assert_eq!((vitals.notes()["lag"].as_str(), vitals.gauges()["lag_records"]), ("12 s", 7.0));

        vitals.ends();
        vitals.begins();
        assert_eq!((vitals.notes().len(), vitals.gauges().len(), vitals.take_reason()), (0, 0, None));
        assert_eq!(vitals.restarts(), 1);
        let failure = vitals.last_failure().unwrap();
        assert_eq!(failure.text, "panicked: boom");
        assert!(failure.at_ms > 1_700_000_000_000);
    }
}
