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
}
