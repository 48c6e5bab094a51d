//! The time of day, in one place, so that a test may let hours pass in seconds.

use std::time::Duration;

use crate::domain::identity::Micros;

/// Now, in microseconds of Unix time.
pub fn now() -> Micros {
    let now = jiff::Timestamp::now().as_microsecond();
    #[cfg(feature = "faults")]
    let now = crate::faults::hurried(now);
    now
}

/// A wait that belongs to the time of day: as much shorter as [`now`] runs faster.
pub fn wait(time: Duration) -> Duration {
    #[cfg(feature = "faults")]
    let time = time / crate::faults::hurry();
    time
}
