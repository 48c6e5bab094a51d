//! Forwarding: from the spool's logs to Kafka, until Bronze has it. No actors and no client of Kafka here.
//!
//! * [`progress`]: what of a log Kafka has, and what must be sent again.
//! * [`engine`]: sends what must be sent, by a [`engine::Sender`].

pub mod engine;
pub mod progress;
