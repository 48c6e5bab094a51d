//! Why an actor ended, and why the whole tree did, in words that an operator can act on.

use std::time::Duration;

/// Why one incarnation of an actor ended.
///
/// The texts nest: `writers/trades restarted too often (5 in 30 s), last: panicked: no more offsets`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exit {
    /// It stopped and gave no reason.
    #[error("stopped by itself")]
    Stopped,
    /// It gave up: [`super::Vitals::fail`].
    #[error("{0}")]
    Failed(String),
    /// A handler, a future or a hook of it panicked.
    #[error("panicked: {0}")]
    Panicked(String),
    /// Its loop did not turn for this long, though its thread did: an await that never returns.
    #[error("hung for {}", span(*.0))]
    Stalled(Duration),
    /// It was down for this long and its supervisor had heard nothing of it.
    #[error("was down for {} without being restarted", span(*.0))]
    Forgotten(Duration),
    /// A child of this supervisor failed once more than the supervisor's intensity allows.
    #[error("{path} restarted too often ({restarts} in {}), last: {last}", span(*.period))]
    CrashLoop {
        /// The child.
        path: String,
        /// How many restarts were made within `period`.
        restarts: usize,
        /// The sliding window.
        period: Duration,
        /// The failure that was one too many.
        last: Box<Exit>,
    },
    /// A failure that no restart cures: [`super::Vitals::fail_fatally`].
    #[error("{path}: {reason}")]
    Fatal {
        /// The actor that found out.
        path: String,
        /// What it found.
        reason: String,
    },
    /// Its thread does not come back. Only a new process cures this.
    #[error("{path} is on a thread that has been blocked for {}", span(*.time))]
    Blocked {
        /// The actor, the one in whose handler the thread is if that is known.
        path: String,
        /// For how long, when it was noticed.
        time: Duration,
    },
    /// It panicked while it was being built, so there is nothing that could be restarted.
    #[error("{path} could not be built: {panic}")]
    Unbuilt {
        /// The actor.
        path: String,
        /// What the panic said.
        panic: String,
    },
    /// It was dropped together with its arbiter.
    #[error("{path} vanished with its arbiter")]
    Vanished {
        /// The actor.
        path: String,
    },
}

impl Exit {
    /// Whether a [`super::Restart::Transient`] child is started again after it.
    pub fn is_failure(&self) -> bool {
        *self != Exit::Stopped
    }

    /// Whether it goes up to the root unchanged, because no restart in place can cure it.
    pub fn is_final(&self) -> bool {
        self.concerns_the_process() || matches!(self, Exit::Unbuilt { .. } | Exit::Vanished { .. })
    }

    /// Whether it goes up even if nobody would have restarted the child.
    pub(super) fn concerns_the_process(&self) -> bool {
        matches!(self, Exit::Fatal { .. } | Exit::Blocked { .. })
    }
}

/// Why the whole tree gave up. The process drains what still works, and exits with a code for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outcome {
    /// Failures that restarts did not cure. A new process may.
    #[error("gave up: {0}")]
    GaveUp(Exit),
    /// Configuration or credentials: a new process would fail in the same way.
    #[error("cannot go on: {0}")]
    Fatal(Exit),
    /// A thread does not come back; its actors cannot be drained.
    #[error("thread blocked: {0}")]
    Blocked(Exit),
}

impl From<Exit> for Outcome {
    fn from(exit: Exit) -> Outcome {
        match exit {
            Exit::Fatal { .. } => Outcome::Fatal(exit),
            Exit::Blocked { .. } => Outcome::Blocked(exit),
            _ => Outcome::GaveUp(exit),
        }
    }
}

/// A duration as people write it: `250 ms`, `1.5 s`, `30 s`.
pub(super) fn span(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis() / 100) {
        (0, _) => format!("{} ms", time.as_millis()),
        (seconds, 0) => format!("{seconds} s"),
        (seconds, tenths) => format!("{seconds}.{tenths} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash_loop(path: &str, restarts: usize, seconds: u64, last: Exit) -> Exit {
        Exit::CrashLoop { path: path.into(), restarts, period: Duration::from_secs(seconds), last: Box::new(last) }
    }

    #[test]
    fn a_nested_failure_tells_its_cause() {
        let worker = crash_loop("writers/trades", 5, 30, Exit::Panicked("no more offsets".into()));
        let group = crash_loop("writers", 3, 60, worker);
        assert_eq!(
            Outcome::from(group).to_string(),
            "gave up: writers restarted too often (3 in 60 s), last: \
             writers/trades restarted too often (5 in 30 s), last: panicked: no more offsets"
        );
    }

    #[test]
    fn the_outcomes_are_told_apart() {
        let fatal = Exit::Fatal { path: "feed".into(), reason: "the key is refused".into() };
        assert_eq!(Outcome::from(fatal).to_string(), "cannot go on: feed: the key is refused");
        let blocked = Exit::Blocked { path: "spool".into(), time: Duration::from_millis(31_540) };
        let text = "thread blocked: spool is on a thread that has been blocked for 31.5 s";
        assert_eq!(Outcome::from(blocked).to_string(), text);
        assert!(matches!(Outcome::from(Exit::Vanished { path: "a".into() }), Outcome::GaveUp(_)));
        assert!(matches!(Outcome::from(Exit::Panicked("root".into())), Outcome::GaveUp(_)));
    }

    #[test]
    fn spans_read_well() {
        let texts = [250, 1000, 1549, 30_000].map(|millis| span(Duration::from_millis(millis)));
        assert_eq!(texts, ["250 ms", "1 s", "1.5 s", "30 s"]);
    }
}
