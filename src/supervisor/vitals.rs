//! The vital signs of every actor, readable without asking the actor.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::supervisor::child::Exit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Starting,
    Running,
    /// Failed; its supervisor lets it wait before the next start.
    Down,
    Draining,
    Stopped,
    /// Its thread does not return from a handler. Only a new process cures this.
    Blocked,
}

impl From<u8> for State {
    fn from(n: u8) -> State {
        [State::Starting, State::Running, State::Down, State::Draining, State::Stopped, State::Blocked][n as usize]
    }
}

/// Shared by the actor (which writes) and by its supervisor and `/health` (which read).
pub struct Vitals {
    epoch: Instant,
    state: AtomicU8,
    generation: AtomicU32,
    /// Milliseconds since `epoch` when the actor's loop last turned.
    last_beat: AtomicU64,
    /// Milliseconds since `epoch`, plus one, when the current poll began; 0 when not in a poll.
    poll_began: AtomicU64,
    progress: AtomicU64,
    failure: Mutex<Option<Exit>>,
    last_failure: Mutex<Option<String>>,
    notes: Mutex<std::collections::BTreeMap<&'static str, String>>,
}

impl Vitals {
    pub fn new(epoch: Instant) -> Arc<Self> {
        Arc::new(Vitals {
            epoch,
            state: AtomicU8::new(State::Starting as u8),
            generation: AtomicU32::new(0),
            last_beat: AtomicU64::new(epoch.elapsed().as_millis() as u64),
            poll_began: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            failure: Mutex::new(None),
            last_failure: Mutex::new(None),
            notes: Mutex::default(),
        })
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    pub fn state(&self) -> State {
        self.state.load(Relaxed).into()
    }

    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    pub fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap().clone()
    }

    /// Time since the actor's loop last turned.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last_beat.load(Relaxed)))
    }

    /// How long the thread has been inside the current poll of this actor.
    pub fn poll_time(&self) -> Duration {
        match self.poll_began.load(Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_millis((self.now() + 1).saturating_sub(began)),
        }
    }

    /// Note.
    pub fn note(&self, name: &'static str, text: impl Into<String>) { self.notes.lock().unwrap().insert(name, text.into()); }
    /// Clear.
    pub fn clear_note(&self, name: &'static str) { self.notes.lock().unwrap().remove(name); }
    /// Gauge.
    pub fn gauge(&self, name: &'static str, value: f64) { self.note(name, value.to_string()); }
    /// Notes.
    pub fn notes(&self) -> std::collections::BTreeMap<&'static str, String> { self.notes.lock().unwrap().clone() }

    /// Counts work done, for `/health`: records written, batches acknowledged.
    pub fn advance(&self, by: u64) {
        self.progress.fetch_add(by, Relaxed);
    }

    /// Notes why the actor is about to stop; its supervisor then treats the stop as a failure.
    pub fn fail(&self, reason: impl Into<String>) {
        *self.failure.lock().unwrap() = Some(Exit::Failed(reason.into()));
    }

    /// As [`Vitals::fail`], where a restart cannot help: the whole tree gives up.
    pub fn fail_fatally(&self, reason: impl Into<String>) {
        *self.failure.lock().unwrap() = Some(Exit::Fatal(reason.into()));
    }

    pub(crate) fn take_failure(&self) -> Option<Exit> {
        self.failure.lock().unwrap().take()
    }

    pub(crate) fn record_failure(&self, reason: &str) {
        *self.last_failure.lock().unwrap() = Some(reason.to_string());
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    pub(crate) fn born(&self) {
        self.generation.fetch_add(1, Relaxed);
        self.beat();
        self.set_state(State::Running);
    }

    pub(crate) fn beat(&self) {
        self.last_beat.store(self.now(), Relaxed);
    }

    pub(crate) fn poll_begins(&self) {
        self.poll_began.store(self.now() + 1, Relaxed);
    }

    pub(crate) fn poll_ends(&self) {
        self.poll_began.store(0, Relaxed);
    }
}

