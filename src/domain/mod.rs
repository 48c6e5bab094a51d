//! What Tickmint is about, without I/O and without actors: identities, records, the commit chain's
//! slots and names, frames and trades. Everything here is pure and tested by properties.

pub mod archived;
pub mod chain;
pub mod entry;
pub mod frame;
pub mod hour;
pub mod identity;
pub mod intervals;
pub mod object;
pub mod partition;
pub mod per_chain;
mod scan;
mod schema;
pub mod shard;
pub mod stream;
pub mod trade;
pub mod verdict;
