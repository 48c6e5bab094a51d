//! From the log to Bronze.

use actix::Message;

use crate::domain::archived::Archived;
use crate::domain::chain::ChainId;

/// A chain has got so far: what the spool holds of it may go.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Covered {
    /// The chain.
    pub chain: ChainId,
    /// How far it is.
    pub archived: Archived,
}
