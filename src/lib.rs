//! Tickmint: live trades into a medallion lakehouse, exactly once, without Kafka Connect.

pub mod domain;
pub mod messages;
pub mod config;
pub mod audit;
pub mod bronze;
pub mod io;
pub mod supervisor;
pub mod telemetry;
pub mod warehouse;
pub mod actors;
pub mod app;
pub mod commands;
pub mod spool;
