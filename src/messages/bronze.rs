//! From the log to Bronze.

use actix::Message;

use crate::domain::chain::Archived;
use crate::domain::stream::Stream;

/// A chain has got so far: what the spool holds of it may go.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Covered {
    /// The stream of the chain.
    pub stream: Stream,
    /// How far it is.
    pub archived: Archived,
}
