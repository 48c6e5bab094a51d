//! The actors: one file each, thin over the modules that do the work.

pub mod feed_session;
pub mod hour_sealer;
pub mod partition_writer;
pub mod refiner;
pub mod spool;
pub mod validator;
