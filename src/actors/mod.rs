//! The actors: one file each, thin over the modules that do the work.

pub mod consumer;
pub mod coverage;
pub mod feed_session;
pub mod forwarder;
pub mod hour_sealer;
pub mod partition_writer;
pub mod refiner;
pub mod schemas;
pub mod spool;
pub mod topics;
pub mod validator;
