//! What the user may do with a topic and with a group, as the brokers tell it (KIP-430).

use std::time::Duration;

use rdkafka::bindings as sys;

use super::super::rights::Right;
use super::{Native, Refusal, Wanted, answered, c_text, described, items};

impl Native {
    /// On a topic; none where the brokers do not tell.
    pub(in crate::io::kafka) fn topic_rights(&self, topic: &str, within: Duration) -> Result<Option<Vec<Right>>, Refusal> {
        let event = self.ask_for_topics(&[topic.to_owned()], Wanted::Rights, within)?;
        // SAFETY: the event is of this kind, and lives until the end of this function.
        unsafe {
            let Some(&topic) = described(&event).first() else { return Ok(None) };
            answered(sys::rd_kafka_TopicDescription_error(topic))?;
            Ok(rights(|count| sys::rd_kafka_TopicDescription_authorized_operations(topic, count)))
        }
    }

    /// On a consumer group, which need not be there; none where the brokers do not tell.
    pub(in crate::io::kafka) fn group_rights(&self, group: &str, within: Duration) -> Result<Option<Vec<Right>>, Refusal> {
        let name = c_text(group);
        let event = self.ask(within, Wanted::Rights, |client, options, queue| {
            // SAFETY: one name, which is copied.
            unsafe { sys::rd_kafka_DescribeConsumerGroups(client, &mut name.as_ptr(), 1, options, queue) };
        })?;
        // SAFETY: the event is of this kind, and lives until the end of this function.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.ptr());
            let groups = items(|count| sys::rd_kafka_DescribeConsumerGroups_result_groups(result, count));
            let Some(&group) = groups.first() else { return Ok(None) };
            answered(sys::rd_kafka_ConsumerGroupDescription_error(group))?;
            Ok(rights(|count| sys::rd_kafka_ConsumerGroupDescription_authorized_operations(group, count)))
        }
    }
}

/// Those of a list that matter to us; none where there is no list.
///
/// # Safety
/// `list` sets the count and returns the begin of so many operations, or null.
unsafe fn rights(list: impl FnOnce(*mut usize) -> *const sys::rd_kafka_AclOperation_t) -> Option<Vec<Right>> {
    let mut count = 0;
    let begin = list(&mut count);
    if begin.is_null() {
        return None;
    }
    // SAFETY: by the caller's word. An empty list has a begin, too.
    let operations = unsafe { std::slice::from_raw_parts(begin, count) };
    Some(operations.iter().filter_map(|operation| right(*operation)).collect())
}

fn right(operation: sys::rd_kafka_AclOperation_t) -> Option<Right> {
    match operation {
        sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Right::Describe),
        sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Right::DescribeConfigs),
        sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ => Some(Right::Read),
        sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE => Some(Right::Write),
        _ => None, // librdkafka's, not ours: Create, Delete, Alter and so on
    }
}
