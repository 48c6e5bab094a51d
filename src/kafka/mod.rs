//! Kafka as the log: between the spool's forwarder and the chains' archivers. No actors here.
//!
//! * [`sender`]: the forwarder's way into the topics.
//! * [`forwarding`]: the thread that forwards.
//! * [`source`]: an archiver's way out of a partition; [`reader`] and [`queue`] below it.
//! * [`member`]: the consumer group, which decides only who works on what.
//! * [`quota`]: what brokers' quotas hold up, and what to do about it.
//! * [`schemas`]: the ids of our schemas in the registry.
//! * [`cluster`]: what is known of the topics, looked at again every few seconds.

pub mod cluster;
pub mod forwarding;
pub mod member;
mod queue;
pub mod quota;
pub mod reader;
pub mod schemas;
pub mod sender;
pub mod source;

/// An offset, as librdkafka counts them.
fn offset(at: u64) -> rdkafka::topic_partition_list::Offset {
    rdkafka::topic_partition_list::Offset::Offset(i64::try_from(at).unwrap_or(i64::MAX))
}
