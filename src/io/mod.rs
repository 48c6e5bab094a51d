//! The outside world: files, sockets, object stores. No actors here.

pub mod finnhub;
pub mod folder;
pub mod store;
