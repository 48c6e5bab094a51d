//! Real servers and the things that make them fail.

pub(crate) mod bucket;
pub mod disk;
mod http;
pub mod kafka;
mod process;
pub mod python;
pub mod registry;
pub mod s3_proxy;
pub mod servers;
pub mod toxiproxy;
