//! Every actor of the process, in start order: the source of `/health` and of an ordered stop.
//!
//! It talks to the runners directly, so both work while supervisors are down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::child::Command;
use super::exit::{Exit, span};
use super::policy::{ChildSpec, Restart};
use super::vitals::{Failure, State, Vitals, lock};

/// How long an actor may take beyond its own limit to say that it has stopped.
const GRACE: Duration = Duration::from_millis(500);

/// A root supervisor that is silent for longer does not supervise. It beats twice a second.
const ROOT_SILENCE: Duration = Duration::from_secs(10);

/// What the tree keeps of one actor.
pub(super) struct Member {
    pub(super) spec: ChildSpec,
    pub(super) vitals: Arc<Vitals>,
    commands: mpsc::UnboundedSender<Command>,
    /// Told to stop, so nobody may restart it.
    stopping: AtomicBool,
}

impl Member {
    pub(super) fn new(path: String, spec: ChildSpec) -> (Arc<Member>, mpsc::UnboundedReceiver<Command>) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let stopping = AtomicBool::new(false);
        (Arc::new(Member { spec, vitals: Vitals::new(path), commands, stopping }), inbox)
    }

    pub(super) fn path(&self) -> &str {
        self.vitals.path()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    pub(super) fn begin_to_stop(&self) {
        self.stopping.store(true, SeqCst);
    }

    /// A runner that is gone has reported its end, so that the order may be lost.
    pub(super) fn tell(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    fn is_below(&self, path: &str) -> bool {
        self.path().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether two neighbours drain at the same time.
    fn stops_with(&self, next: &Member) -> bool {
        let parent = |member: &Member| member.path().strip_suffix(&member.spec.id).map(str::to_owned);
        self.spec.together && next.spec.together && parent(self) == parent(next)
    }

    async fn stop(&self) -> Option<Why> {
        let ChildSpec { drain_within: within, stall_after, .. } = self.spec;
        let (done, mut stopped) = oneshot::channel();
        if !self.tell(Command::Stop { within, done }) {
            return None;
        }
        let begun = Instant::now();
        loop {
            match timeout(GRACE, &mut stopped).await {
                Ok(Ok(missed)) => return missed,
                Ok(Err(_)) => return None, // Somebody else stopped it, and was told how that went.
                // What sits on a blocked thread cannot drain, so its time is not waited for.
                Err(_) if self.vitals.thread_silence() >= stall_after => return Some(Why::Unreachable),
                Err(_) if begun.elapsed() >= within + GRACE => return Some(Why::Unreachable),
                Err(_) => {}
            }
        }
    }
}

/// An actor that did not finish what it had accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Undrained {
    /// Its place in the tree.
    pub path: String,
    /// What kept it.
    pub why: Why,
}

/// Why an actor did not drain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It took longer than this, and was dropped.
    #[error("not drained within {}", span(*.0))]
    Late(Duration),
    /// It failed while it drained.
    #[error("failed while draining: {0}")]
    Failed(Exit),
    /// Its thread is blocked.
    #[error("its thread does not answer")]
    Unreachable,
}

/// Why a child cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// A sibling of this name is there, perhaps still draining.
    #[error("there is a child `{0}` already")]
    Duplicate(String),
    /// The id would not make a path.
    #[error("`{0}` cannot name a child: must not be empty nor contain `/`")]
    BadId(String),
    /// The supervisor, or the whole process, is being stopped.
    #[error("`{0}` came too late: its supervisor is stopping")]
    Stopping(String),
}

/// What `/health` says of one actor.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its place in the tree; the supervisor of `writers/trades` is `writers`, and that one's `root`.
    pub path: String,
    /// What it is doing.
    pub state: State,
    /// For how long.
    pub state_ms: u64,
    /// Whether it is restarted.
    pub restart: Restart,
    /// How often it was restarted.
    pub restarts: u32,
    /// Time since its loop last turned.
    pub silence_ms: u64,
    /// How long its thread has been inside its current handler.
    pub poll_ms: u64,
    /// The work it has counted.
    pub progress: u64,
    /// Its last failure, if it ever failed.
    pub last_failure: Option<Failure>,
    /// What this incarnation has noted.
    pub notes: BTreeMap<&'static str, String>,
    /// What this incarnation has measured.
    pub gauges: BTreeMap<&'static str, f64>,
}

impl From<&Member> for Report {
    fn from(Member { spec, vitals, .. }: &Member) -> Report {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Report {
            path: vitals.path().into(),
            state: vitals.state(),
            state_ms: millis(vitals.state_time()),
            restart: spec.restart,
            restarts: vitals.restarts(),
            silence_ms: millis(vitals.silence()),
            poll_ms: millis(vitals.poll_time()),
            progress: vitals.progress(),
            last_failure: vitals.last_failure(),
            notes: vitals.notes(),
            gauges: vitals.gauges(),
        }
    }
}

/// The answer of a probe: well when nobody complains.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What the probe should say.
    pub ok: bool,
    /// Who keeps it from being well.
    pub complaints: Vec<Complaint>,
}

/// One reason why a probe fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// The actor.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl From<Vec<Complaint>> for Verdict {
    fn from(complaints: Vec<Complaint>) -> Verdict {
        Verdict { ok: complaints.is_empty(), complaints }
    }
}

#[derive(Default)]
struct Entries {
    /// In start order.
    members: Vec<Arc<Member>>,
    /// The process is being stopped.
    closing: bool,
}

/// All actors of one tree. Cheap to clone, usable from any thread.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<Mutex<Entries>>,
}

/// What it shows.
impl Registry {
    /// All actors in start order. Reads atomics only, so no actor can hold it up.
    pub fn snapshot(&self) -> Vec<Report> {
        self.members().iter().map(|member| Report::from(&**member)).collect()
    }

    /// The vitals of one actor.
    pub fn vitals(&self, path: &str) -> Option<Arc<Vitals>> {
        self.members().iter().find(|member| member.path() == path).map(|member| member.vitals.clone())
    }

    /// Whether this process is worth keeping: no thread is blocked and the tree is supervised.
    pub fn live(&self) -> Verdict {
        let closing = self.is_closing();
        let complaint = |member: &Arc<Member>| {
            let Member { vitals, .. } = &**member;
            let unsupervised = member.path() == ROOT && !closing && vitals.silence() >= ROOT_SILENCE;
            let why = match vitals.state() {
                State::Blocked => "its thread is blocked".into(),
                _ if unsupervised => format!("has not looked after its children for {}", span(vitals.silence())),
                _ => return None,
            };
            Some(Complaint { path: member.path().into(), why })
        };
        Verdict::from(self.members().iter().filter_map(complaint).collect::<Vec<_>>())
    }

    /// Whether this process does its work: each permanent child runs.
    pub fn ready(&self) -> Verdict {
        let closing = self.is_closing();
        let complaint = |member: &Arc<Member>| {
            let Member { spec, vitals, .. } = &**member;
            let expected = spec.restart == Restart::Permanent && (closing || !member.is_stopping());
            let why = match (vitals.state(), vitals.last_failure()) {
                (State::Running, _) => return None,
                (State::Down | State::Blocked, Some(failure)) => format!("down: {}", failure.text),
                (state, _) => format!("{state:?}").to_lowercase(),
            };
            expected.then(|| Complaint { path: member.path().into(), why })
        };
        Verdict::from(self.members().iter().filter_map(complaint).collect::<Vec<_>>())
    }
}

/// How it ends.
impl Registry {
    /// Drains and stops every actor, the last started first; each has its own deadline. Afterwards
    /// no child can be started.
    ///
    /// Returns at the latest after the sum of the deadlines, whatever the actors do, and names
    /// those that did not drain. An actor that is down has nothing to drain and is not named.
    pub async fn shutdown(&self) -> Vec<Undrained> {
        lock(&self.entries).closing = true;
        self.stop_below(None).await
    }

    /// Drains, stops and removes one actor and what is below it. An unknown path is gone already.
    ///
    /// Goes on if the caller is dropped meanwhile.
    pub(super) async fn stop(&self, path: String) -> Vec<Undrained> {
        let registry = self.clone();
        let stop = tokio::spawn(async move { registry.stop_below(Some(&path)).await });
        stop.await.unwrap_or_default() // An error would mean that the runtime ends.
    }

    async fn stop_below(&self, path: Option<&str>) -> Vec<Undrained> {
        // The top of what is stopped is marked at once, as it must not be given more children. The
        // others are marked at their turn: until then somebody may need them, so they are restarted.
        if let Some(top) = self.members().iter().find(|member| Some(member.path()) == path) {
            top.begin_to_stop();
        }
        let members = self.members();
        let concerned = |member: &&Arc<Member>| path.is_none_or(|path| member.is_below(path));
        let mut undrained = Vec::new();
        let in_turn: Vec<_> = members.iter().filter(concerned).rev().collect();
        for wave in in_turn.chunk_by(|one, next| one.stops_with(next)) {
            wave.iter().for_each(|member| member.begin_to_stop());
            let missed = join_all(wave.iter().map(|member| member.stop())).await;
            for (member, missed) in wave.iter().zip(missed) {
                if path.is_some() && missed != Some(Why::Unreachable) {
                    self.remove(member);
                }
                let path = member.path().to_string();
                match missed {
                    None => debug!(actor = path, "stopped"),
                    Some(why) => {
                        warn!(actor = path, %why, "stopped without having drained");
                        undrained.push(Undrained { path, why });
                    }
                }
            }
        }
        undrained
    }
}

impl Registry {
    /// Adds a child of `parent`; the root has none.
    pub(super) fn add(&self, member: &Arc<Member>, parent: Option<&Member>) -> Result<(), SpawnError> {
        let id = &member.spec.id;
        if id.is_empty() || id.contains('/') {
            return Err(SpawnError::BadId(id.clone()));
        }
        let mut entries = lock(&self.entries);
        // What has been stopped is no longer among the members, but its mark stays.
        let ends = |parent: &Member| {
            let takes_it_along = |other: &Arc<Member>| other.is_stopping() && parent.is_below(other.path());
            parent.is_stopping() || entries.members.iter().any(takes_it_along)
        };
        if entries.closing || parent.is_some_and(ends) {
            return Err(SpawnError::Stopping(member.path().into()));
        }
        if entries.members.iter().any(|other| other.path() == member.path()) {
            return Err(SpawnError::Duplicate(member.path().into()));
        }
        entries.members.push(member.clone());
        Ok(())
    }

    fn remove(&self, gone: &Arc<Member>) {
        lock(&self.entries).members.retain(|member| !Arc::ptr_eq(member, gone));
    }

    fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.entries).members.clone()
    }

    fn is_closing(&self) -> bool {
        lock(&self.entries).closing
    }
}

/// The path of the root supervisor.
pub(super) const ROOT: &str = "root";
