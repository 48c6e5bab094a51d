//! From the socket to the fsync.

use std::sync::Arc;

use actix::Message;

use crate::domain::identity::{Micros, SessionId};
use crate::domain::shard::Shard;
use crate::domain::verdict::{JudgedFrame, RawFrame};

/// Why frames are not durable. After `Disk` and `Down` the sender sends them again; after `Full` and `NotOpen` it ends
/// its session, and they lie in the gap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The spool has reached `spool.max_bytes`: stop reading and end the session.
    #[error("the spool is full: {used} of {max} bytes; Bronze does not take what it holds")]
    Full {
        /// Bytes on disk.
        used: u64,
        /// `spool.max_bytes`.
        max: u64,
    },
    /// The disk refused; try again after a while.
    #[error("the spool cannot be written: {0}")]
    Disk(String),
    /// The session was not opened, or has ended.
    #[error("session {0} is not open")]
    NotOpen(SessionId),
    /// The actor that was asked has gone down with the request; it is being restarted.
    #[error("{0} is being restarted")]
    Down(&'static str),
}

/// Frames of one session in the order of their numbers, to be judged and made durable.
/// Answered when they are on disk; sent again after any other answer, with the same numbers.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), AppendError>")]
pub struct Judge {
    /// The connection.
    pub session: SessionId,
    /// Never empty.
    pub frames: Arc<[RawFrame]>,
    /// Of the frames that are sampled, the number and the W3C trace context, numbers rising.
    pub traced: Arc<[(u32, Arc<str>)]>,
}

/// Judged frames of one session. A frame that is there already is answered as done.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), AppendError>")]
pub struct Append {
    /// The connection.
    pub session: SessionId,
    /// Never empty, numbers rising.
    pub frames: Vec<JudgedFrame>,
}

/// A connection is up. Before its first frame, the spool writes the gap since the session before
/// and, if that one never ended, its end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), AppendError>")]
pub struct OpenSession {
    /// The new connection.
    pub session: SessionId,
    /// What it serves.
    pub shard: Shard,
}

/// A connection has ended.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), AppendError>")]
pub struct EndSession {
    /// The connection.
    pub session: SessionId,
    /// Its last frame that is durable. What was read behind it lies in the gap.
    pub frames: u32,
    /// When that was.
    pub last_received_at: Option<Micros>,
    /// As the gap will say it: `disconnected`, `stalled`, `shutdown`, `spool_full`...
    pub reason: String,
}
