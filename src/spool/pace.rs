//! How often the log is made durable: once a group interval at the most on average, and a few times
//! at once after a rest, so that the rest of a burst does not wait for its first frame's interval.
//!
//! The rule is the generic cell rate algorithm (ITU-T I.371, annex A; RFC 2697's bucket in another
//! form): each take is due one interval after the one before, and may come up to [`AHEAD`] intervals
//! early.

use std::time::Duration;

use tokio::time::Instant;

/// Timers go off up to so much late: a shorter wait is none. What comes early is made up for by the
/// next wait, as the times that are due do not move.
const TIMER: Duration = Duration::from_millis(1);

/// After a rest so many more may follow the first at once.
const AHEAD: u32 = 3;

/// See the module.
#[derive(Clone, Debug)]
pub struct Pace {
    group: Duration,
    due: Instant,
}

impl Pace {
    /// One every `group` at the most, on average.
    pub fn new(group: Duration) -> Pace {
        Pace { group, due: Instant::now() }
    }

    /// How long the next one has to wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let wait = self.due.saturating_duration_since(now).saturating_sub(self.group * AHEAD);
        if wait <= TIMER { Duration::ZERO } else { wait }
    }

    /// One happens now.
    pub fn take(&mut self, now: Instant) {
        self.due = self.due.max(now) + self.group;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: Duration = Duration::from_millis(5);

    #[test]
    fn a_burst_after_a_rest_is_taken_at_once_and_then_one_an_interval() {
        let mut pace = Pace::new(GROUP);
        let now = Instant::now();
        for _ in 0..=AHEAD {
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.take(now);
        }
        assert!(pace.wait(now) > GROUP - TIMER, "{:?}", pace.wait(now));
        assert_eq!(pace.wait(now + GROUP), Duration::ZERO);
        pace.take(now + GROUP);
        assert!(pace.wait(now + GROUP) > GROUP - TIMER);
        // A rest gives back as much as it was long, and no more than the whole burst.
        let late = now + Duration::from_secs(3600);
        for _ in 0..=AHEAD {
            assert_eq!(pace.wait(late), Duration::ZERO);
            pace.take(late);
        }
        assert!(pace.wait(late) > GROUP - TIMER);
    }

    #[test]
    fn without_an_interval_nothing_waits() {
        let mut pace = Pace::new(Duration::ZERO);
        let now = Instant::now();
        for _ in 0..100 {
            pace.take(now);
            assert_eq!(pace.wait(now), Duration::ZERO);
        }
    }

    proptest! {
        /// However the work arrives: in any span of time there are no more than one an interval and
        /// the burst, and nobody waits longer than an interval (and what the one before came early).
        #[test]
        fn never_more_than_one_an_interval_and_a_burst(pauses in prop::collection::vec(0u64..20_000, 1..200)) {
            let mut pace = Pace::new(GROUP);
            let mut now = Instant::now();
            let mut taken = Vec::new();
            for micros in pauses {
                now += Duration::from_micros(micros);
                let wait = pace.wait(now);
                prop_assert!(wait <= GROUP + TIMER);
                now += wait;
                pace.take(now);
                taken.push(now);
            }
            for (n, first) in taken.iter().enumerate() {
                for (m, last) in taken.iter().enumerate().skip(n) {
                    let least = (GROUP * (m - n) as u32).saturating_sub(GROUP * AHEAD + TIMER);
                    prop_assert!(*last - *first >= least, "{} in {:?}", m - n + 1, *last - *first);
                }
            }
        }
    }
}
