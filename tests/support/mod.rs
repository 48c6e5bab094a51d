//! Real servers and the things that make them fail.

pub mod s3_proxy;
pub mod servers;
