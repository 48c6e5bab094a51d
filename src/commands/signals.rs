//! SIGTERM and SIGINT, for the commands that end in order.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// The same signal so soon after is the same one: `timeout` and some supervisors send it to the process
/// and then to its group.
const SAME_WITHIN: Duration = Duration::from_millis(300);

/// From its creation on, neither ends the process by itself.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    last: Option<(&'static str, Instant)>,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?,
            last: None,
        })
    }

    /// Waits for the next one; returns its name.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            };
            if is_another(&mut self.last, name, Instant::now()) {
                return name;
            }
        }
    }
}

/// Whether it is not the `last` one, sent twice.
fn is_another(last: &mut Option<(&'static str, Instant)>, name: &'static str, now: Instant) -> bool {
    let is_same = last.is_some_and(|(before, at)| before == name && now.duration_since(at) < SAME_WITHIN);
    if !is_same {
        *last = Some((name, now));
    }
    !is_same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_signal_at_once_is_one_and_later_or_another_is_a_second() {
        let (mut last, begun) = (None, Instant::now());
        let mut sent = |name, millis| is_another(&mut last, name, begun + Duration::from_millis(millis));
        assert!(sent("SIGTERM", 0));
        assert!(!sent("SIGTERM", 1) && !sent("SIGTERM", 299), "counted from the first");
        assert!(sent("SIGTERM", 301) && sent("SIGINT", 302) && sent("SIGTERM", 303));
    }
}
