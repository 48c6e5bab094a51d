//! The table of streams: a stream is a row here, and all take the same way.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of record with its own chain, topic, schema and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Valid trades, flagged where something is odd.
    Trades,
    /// Outages of the feed and the ends of sessions, with their counts.
    Gaps,
    /// What could not be read as a trade, with the reason: the dead-letter queue.
    Quarantine,
}

/// How many streams there are: the size of per-stream arrays.
pub const STREAMS: usize = 3;

/// One number per stream, in the order of [`Stream::ALL`].
pub type PerStream<T> = [T; STREAMS];

impl Stream {
    /// All streams, in the order of their index.
    pub const ALL: [Stream; STREAMS] = [Stream::Trades, Stream::Gaps, Stream::Quarantine];

    /// The name in Bronze keys, topics and dbt sources.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Trades => "trades",
            Stream::Gaps => "gaps",
            Stream::Quarantine => "quarantine",
        }
    }

    /// The place in a [`PerStream`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The stream of that name.
    pub fn from_name(name: &str) -> Option<Stream> {
        Stream::ALL.into_iter().find(|stream| stream.name() == name)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
