//! A Kafka cluster: clients of it, what they say of themselves, its topics, and what we may do there.

mod apart;
pub mod client;
pub mod error;
mod native;
pub mod rights;
pub mod rules;
pub mod topics;
pub mod watch;

pub use apart::Apart;
pub use error::KafkaError;
pub use rules::Finding;
pub use topics::Topics;
pub use watch::Watch;
