//! Real servers and the things that make them fail.

pub(crate) mod bucket;
pub mod python;
pub mod s3_proxy;
pub mod servers;
