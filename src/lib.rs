//! Tickmint: live trades into a medallion lakehouse, exactly once, without Kafka Connect.
//!
//! ```text
//! exchange ==ws==> FeedSession -> Validator -> Spool -> PartitionWriter -> Bronze -> Refiner -> Silver, Gold
//! ```
//!
//! Dependencies point downward: `commands` and `app` know the actors, the actors know `spool`,
//! `bronze` and `warehouse`, these know `io`, and everybody knows `domain`, which knows nobody.

pub mod actors;
pub mod app;
pub mod audit;
pub mod bronze;
pub mod clock;
pub mod commands;
pub mod config;
pub mod domain;
pub mod exchange;
pub mod faults;
pub mod forward;
pub mod http;
pub mod io;
pub mod kafka;
pub mod messages;
pub mod spool;
pub mod supervisor;
pub mod telemetry;
pub mod warehouse;
pub mod wire;
