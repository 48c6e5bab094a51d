//! The outside world: files, sockets, object stores. No actors here.

pub mod folder;
pub mod store;
