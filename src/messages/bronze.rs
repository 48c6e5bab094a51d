//! From the log to Bronze.

use std::sync::Arc;

use actix::Message;

use crate::domain::intervals::Seen;
use crate::domain::stream::Stream;

/// A chain has archived this: what the spool holds of it may go.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Covered {
    /// The stream of the chain.
    pub stream: Stream,
    /// Everything archived so far, as the newest slot hands it on.
    pub seen: Arc<Seen>,
    /// Where the chain stands in the log of its generation. Says nothing of what may go: a new log
    /// begins at 0 again.
    pub tail: u64,
}
