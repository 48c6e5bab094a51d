//! The outside world: files, sockets, object stores, the schema registry. No actors here.

pub mod finnhub;
pub mod folder;
pub mod kafka;
pub mod measured;
#[cfg(any(test, feature = "faults"))]
pub mod memory;
pub mod probe;
pub mod probed;
pub mod registry;
pub mod s3;
pub mod store;
