//! Who a record is. Identity is given on receipt and never taken from values: one real trade in
//! five equals another in every field (design, invariant 3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One WebSocket connection: a UUIDv7, so sessions sort by the time they began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

/// One log: of the spool, which is one life of the process (a UUIDv7), or of Kafka, which is one topic of one cluster until
/// it is deleted (a UUIDv8). The *incarnation* of a generation.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub Uuid);

macro_rules! uuid_newtype {
    ($name:ident) => {
        impl $name {
            /// A new one, later than all made before it by this process.
            pub fn generate() -> Self {
                $name(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map($name)
            }
        }
    };
}

uuid_newtype!(SessionId);
uuid_newtype!(LogId);

impl LogId {
    /// Whether it is a topic of Kafka's and no log of a spool: these are of UUID's version 7.
    pub fn is_topic(self) -> bool {
        self.0.get_version_num() == 8
    }
}

impl LogId {
    /// A new one behind `last`, whatever the clock says: the order of logs is the order of lives. It is nobody else's, not
    /// even where a copy of the spool begins at the same moment: of two logs with one name, the chains would take the
    /// records of the second for repeats.
    pub fn after(last: Option<LogId>) -> LogId {
        let new = LogId::generate();
        last.filter(|last| *last >= new).map_or(new, |last| {
            // The millisecond after that of `last`, in the first 48 bits; version and random bits are the new one's.
            let (millis, random) = ((last.0.as_u128() >> 80) + 1, new.0.as_u128() & ((1 << 80) - 1));
            LogId(Uuid::from_u128(millis << 80 | random))
        })
    }
}

/// Where a record stands in the spool: the same in every copy of it, however often it is resent. What stands
/// there never changes, so a chain that has read it knows a repeat (ADR 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The spool's log.
    pub log: LogId,
    /// Which record of its stream and partition in that log, from 0.
    pub place: u64,
}

/// The identity of one delivered record: unique for ever, the same however often it is resent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Delivery {
    /// The connection it came over.
    pub session: SessionId,
    /// The message's number in its session, from 1; 0 is for records made before the first one.
    pub frame: u32,
    /// The place in the frame, from 0.
    pub index: u16,
}

/// Microseconds since the Unix epoch, UTC.
pub type Micros = i64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_in_the_order_of_lives_and_no_two_have_one_name() {
        let now = LogId::generate();
        assert!(LogId::after(None) >= now && LogId::after(Some(LogId::default())) >= now);
        // The clock was set back: by an hour, since the log that a spool and its copy both end with.
        let last = LogId(Uuid::from_u128(now.0.as_u128() + (3_600_000 << 80)));
        let (one, other) = (LogId::after(Some(last)), LogId::after(Some(last)));
        assert!(last < one && last < other && one != other, "{last} {one} {other}");
        assert!(LogId::after(Some(one)) > one && !one.is_topic() && one.0.get_version_num() == 7);
    }
}
