//! What validation says of each element of a frame. Verdicts are attached; nothing is dropped.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::identity::Micros;
use super::stream::{PerStream, Stream};

/// Oddities of a valid trade. It is kept; Silver decides what to make of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The event time is too far from the receipt.
    pub const TIME_SUSPECT: Flags = Flags(1);
    /// A size of 0: a price update, not a trade.
    pub const PRICE_UPDATE: Flags = Flags(2);
    /// The frame is byte for byte the one before it in its session.
    pub const FRAME_REPEAT: Flags = Flags(4);

    /// Both sets of flags.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of what is set, as they stand in raw lines.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(Flags::TIME_SUSPECT, "time_suspect"), (Flags::PRICE_UPDATE, "price_update"), (Flags::FRAME_REPEAT, "frame_repeat")]
            .into_iter()
            .filter(move |(flag, _)| self.has(*flag))
            .map(|(_, name)| name)
    }
}

/// Why something is no trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The frame is not JSON text.
    NotJson,
    /// The frame came as a binary message.
    Binary,
    /// The frame is longer than the feed may send.
    Overlong,
    /// JSON, but not of the shape that the schema demands.
    WrongShape,
    /// The price is missing, not a number, negative, or does not fit DECIMAL(18,8).
    BadPrice,
    /// The size is missing, not a number, negative, or does not fit DECIMAL(18,8).
    BadSize,
    /// The event time is missing, not an integer, or outside what a timestamp can hold.
    BadTime,
    /// Nobody subscribed to this symbol on this connection.
    UnknownSymbol,
    /// The server reports an error.
    ServerError,
}

impl Reason {
    /// All reasons, by their number.
    pub const ALL: [Reason; 9] = [
        Reason::NotJson,
        Reason::Binary,
        Reason::Overlong,
        Reason::WrongShape,
        Reason::BadPrice,
        Reason::BadSize,
        Reason::BadTime,
        Reason::UnknownSymbol,
        Reason::ServerError,
    ];

    /// The name in the quarantine table and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotJson => "not_json",
            Reason::Binary => "binary",
            Reason::Overlong => "overlong",
            Reason::WrongShape => "wrong_shape",
            Reason::BadPrice => "bad_price",
            Reason::BadSize => "bad_size",
            Reason::BadTime => "bad_time",
            Reason::UnknownSymbol => "unknown_symbol",
            Reason::ServerError => "server_error",
        }
    }
}

/// The verdict on one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A trade, perhaps an odd one.
    Trade(Flags),
    /// Not a trade: to the quarantine stream.
    Quarantined {
        /// Why.
        reason: Reason,
        /// What exactly, for a person.
        detail: String,
    },
}

impl Verdict {
    /// The stream that the element goes to.
    pub fn stream(&self) -> Stream {
        match self {
            Verdict::Trade(_) => Stream::Trades,
            Verdict::Quarantined { .. } => Stream::Quarantine,
        }
    }
}

/// One element of a frame with its verdict. Its place in the list is its index in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Where its text stands in the payload; the whole of it where the frame could not be taken apart.
    pub range: Range<u32>,
    /// The partition of its stream that it goes to: 0 where the spool is the log.
    pub partition: u16,
    /// What it is.
    pub verdict: Verdict,
}

/// A message as it came over the socket.
#[derive(Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Its number in the session, from 1; every text or binary message counts.
    pub number: u32,
    /// When it was read.
    pub received_at: Micros,
    /// Its bytes, verbatim.
    pub payload: Bytes,
    /// Whether it came as a binary message.
    pub binary: bool,
}

impl std::fmt::Debug for RawFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frame {} of {} bytes", self.number, self.payload.len())
    }
}

/// A frame with the verdicts on its elements: what the spool makes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedFrame {
    /// The message.
    pub frame: RawFrame,
    /// Its elements in their order; none for a ping.
    pub elements: Vec<Judged>,
    /// The W3C trace context, where this frame is sampled.
    pub traceparent: Option<Arc<str>>,
}

impl JudgedFrame {
    /// How many records it makes, by stream.
    pub fn counts(&self) -> PerStream<u16> {
        let mut counts = [0; super::stream::STREAMS];
        for element in &self.elements {
            counts[element.verdict.stream().index()] += 1;
        }
        counts
    }
}
