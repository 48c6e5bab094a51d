//! What one connection to the feed serves.

use std::sync::Arc;

/// One WebSocket's worth of symbols: a key of the feed and a part of its symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name in gaps, metrics and the tree: its place among the `[[feed.keys]]`, so it stays over restarts while
    /// those keep their order.
    pub name: String,
    /// Its symbols, sorted.
    pub symbols: Arc<[String]>,
}
