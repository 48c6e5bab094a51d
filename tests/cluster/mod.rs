//! What stands beside Kafka: real servers.

mod registry;
