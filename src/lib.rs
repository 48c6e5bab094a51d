//! Tickmint: live trades into a medallion lakehouse, exactly once, without Kafka Connect.

pub mod domain;
pub mod messages;
pub mod config;
pub mod http;
pub mod io;
pub mod telemetry;
