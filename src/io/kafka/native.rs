//! What is asked of a cluster through librdkafka's C interface, and all that is `unsafe`.
//!
//! rdkafka wraps neither DescribeTopics, which alone tells a topic's id, nor the words with which a broker
//! refuses to create one; its admin client never reads librdkafka's main queue, so nobody would learn why no
//! broker answers; and without a callback OpenSSL says of a certificate no more than that it is not good. So
//! the few requests that are needed are made here, on a client of our own. All of it blocks.
//!
//! Each call gives librdkafka a queue, and its answer is one event on that. What an event holds lives as long
//! as the event does, and is copied out of it before that ends.

mod rights;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::{RDKafkaAdminOp, RDKafkaResourceType, RDKafkaRespErr, RDKafkaType};

use super::watch::Watch;

/// How often it is looked whether the answer will never come.
const LOOK: Duration = Duration::from_millis(50);
/// Broker after broker may have to be tried before one answers; what one of them says against us is then no
/// reason to give up yet.
const OTHERS: Duration = Duration::from_secs(2);

/// A broker's or librdkafka's word against a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    /// Perhaps empty.
    pub(super) text: String,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) id: String,
    /// `host:port` of all brokers that are up, as they are advertised.
    pub(super) brokers: Vec<String>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) id: [u8; 16],
    pub(super) partitions: u32,
    /// Of the partition that has the fewest.
    pub(super) replicas: u16,
    /// Partitions that nobody leads, so that they can neither be written nor read.
    pub(super) leaderless: u32,
    /// Copies in sync, of the partition that has the fewest.
    pub(super) in_sync: u16,
}

/// A topic to be.
pub(super) struct NewTopic<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: u32,
    pub(super) replicas: u16,
    pub(super) settings: Vec<(&'static str, String)>,
}

/// What is wanted of a request beside its plain answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Nothing.
    Plain,
    /// That nothing is done, and it is only said whether it would be.
    OnlyAsk,
    /// What the user may do with it.
    Rights,
}

/// A client that asks about the cluster.
pub(super) struct Native(Client<Watch>);

impl Native {
    /// Makes the client. It connects when it is asked something.
    pub(super) fn new(config: &ClientConfig, watch: Watch) -> Result<Native, KafkaError> {
        let native = config.create_native_config()?;
        // SAFETY: the pointer is that of a live config, which is changed before anybody else has it.
        unsafe {
            sys::rd_kafka_conf_set_events(native.ptr(), sys::RD_KAFKA_EVENT_ERROR);
            // It cannot fail but in a build without TLS, and then there is no certificate either.
            let _: sys::rd_kafka_conf_res_t = sys::rd_kafka_conf_set_ssl_cert_verify_cb(native.ptr(), Some(on_certificate));
        }
        // The kind of client that does the least by itself.
        Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, watch).map(Native)
    }

    /// What the client has said of itself.
    pub(super) fn watch(&self) -> &Watch {
        self.0.context()
    }

    /// The cluster's id and its brokers.
    pub(super) fn describe_cluster(&self, within: Duration) -> Result<Cluster, Refusal> {
        let event = self.ask(within, Wanted::Plain, |client, options, queue| {
            // SAFETY: the three live until the call is over; librdkafka keeps what it needs.
            unsafe { sys::rd_kafka_DescribeCluster(client, options, queue) };
        })?;
        // SAFETY: the event is of this kind, and lives until the end of this function.
        unsafe {
            let result = sys::rd_kafka_event_DescribeCluster_result(event.ptr());
            let nodes = items(|count| sys::rd_kafka_DescribeCluster_result_nodes(result, count));
            let address = |&node: &*const sys::rd_kafka_Node_t| {
                format!("{}:{}", text(sys::rd_kafka_Node_host(node)), sys::rd_kafka_Node_port(node))
            };
            let id = text(sys::rd_kafka_DescribeCluster_result_cluster_id(result));
            Ok(Cluster { id, brokers: nodes.iter().map(address).collect() })
        }
    }

    /// The topics of these names, in their order.
    pub(super) fn describe_topics(&self, names: &[String], within: Duration) -> Result<Vec<Result<Topic, Refusal>>, Refusal> {
        let event = self.ask_for_topics(names, Wanted::Plain, within)?;
        // SAFETY: the event is of this kind, and lives until the end of this function.
        unsafe { Ok(described(&event).iter().map(|&topic| topic_of(topic)).collect()) }
    }

    /// The answer is of DescribeTopics.
    fn ask_for_topics(
        &self,
        names: &[String],
        wanted: Wanted,
        within: Duration,
    ) -> Result<Owned<sys::rd_kafka_event_t>, Refusal> {
        let names: Vec<CString> = names.iter().map(|name| c_text(name)).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names live longer than this call, which copies them.
        let topics = unsafe { sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
        let topics = Owned::new(topics, sys::rd_kafka_TopicCollection_destroy);
        self.ask(within, wanted, |client, options, queue| {
            // SAFETY: as above; the collection is copied.
            unsafe { sys::rd_kafka_DescribeTopics(client, topics.ptr(), options, queue) };
        })
    }

    /// Creates a topic, or only asks whether that would be done.
    pub(super) fn create_topic(&self, topic: &NewTopic<'_>, only_ask: bool, within: Duration) -> Result<(), Refusal> {
        let name = c_text(topic.name);
        let (partitions, replicas) = (c_int::try_from(topic.partitions).unwrap_or(c_int::MAX), c_int::from(topic.replicas));
        let mut why = [0; 512];
        // SAFETY: the name lives longer than this call, which copies it, and the buffer is as long as it is said to be.
        let new = unsafe { sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replicas, why.as_mut_ptr(), why.len()) };
        if new.is_null() {
            // SAFETY: librdkafka has written a text there, which ends with a zero.
            return Err(Refusal { code: Code::InvalidArgument, text: unsafe { text(why.as_ptr()) } });
        }
        let new = Owned::new(new, sys::rd_kafka_NewTopic_destroy);
        for (name, value) in &topic.settings {
            let (name, value) = (c_text(name), c_text(value));
            // SAFETY: both live longer than this call, which copies them.
            accepted(unsafe { sys::rd_kafka_NewTopic_set_config(new.ptr(), name.as_ptr(), value.as_ptr()) })?;
        }
        let wanted = if only_ask { Wanted::OnlyAsk } else { Wanted::Plain };
        let event = self.ask(within, wanted, |client, options, queue| {
            // SAFETY: one topic, which is copied.
            unsafe { sys::rd_kafka_CreateTopics(client, &mut new.ptr(), 1, options, queue) };
        })?;
        // SAFETY: the event is of this kind, and lives until the end of this function.
        unsafe {
            let result = sys::rd_kafka_event_CreateTopics_result(event.ptr());
            for &topic in items(|count| sys::rd_kafka_CreateTopics_result_topics(result, count)) {
                let error = sys::rd_kafka_topic_result_error(topic);
                refused(error, || text(sys::rd_kafka_topic_result_error_string(topic)))?;
            }
        }
        Ok(())
    }

    /// The settings of a topic, those that it has by default among them. What has no value is left out.
    pub(super) fn topic_settings(&self, topic: &str, within: Duration) -> Result<BTreeMap<String, String>, Refusal> {
        let name = c_text(topic);
        // SAFETY: the name lives longer than this call, which copies it.
        let resource = unsafe { sys::rd_kafka_ConfigResource_new(RDKafkaResourceType::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr()) };
        let resource = Owned::new(resource, sys::rd_kafka_ConfigResource_destroy);
        let event = self.ask(within, Wanted::Plain, |client, options, queue| {
            // SAFETY: one resource, which is copied.
            unsafe { sys::rd_kafka_DescribeConfigs(client, &mut resource.ptr(), 1, options, queue) };
        })?;
        let mut settings = BTreeMap::new();
        // SAFETY: the event is of this kind, and lives until the end of this function.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConfigs_result(event.ptr());
            for &resource in items(|count| sys::rd_kafka_DescribeConfigs_result_resources(result, count)) {
                let error = sys::rd_kafka_ConfigResource_error(resource);
                refused(error, || text(sys::rd_kafka_ConfigResource_error_string(resource)))?;
                for &entry in items(|count| sys::rd_kafka_ConfigResource_configs(resource, count)) {
                    let value = sys::rd_kafka_ConfigEntry_value(entry);
                    if !value.is_null() {
                        settings.insert(text(sys::rd_kafka_ConfigEntry_name(entry)), text(value));
                    }
                }
            }
        }
        Ok(settings)
    }

    /// First and next offset of a partition, by its leader.
    pub(super) fn watermarks(&self, topic: &str, partition: i32, within: Duration) -> Result<(i64, i64), Refusal> {
        let outcome = self.0.fetch_watermarks(topic, partition, within);
        self.hear();
        outcome.map_err(|error| Refusal { code: error.rdkafka_error_code().unwrap_or(Code::Unknown), text: String::new() })
    }

    /// Sends a request and waits for its answer, unless the watch tells that there will be none.
    fn ask(
        &self,
        within: Duration,
        wanted: Wanted,
        send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Owned<sys::rd_kafka_event_t>, Refusal> {
        let (client, begun) = (self.0.native_ptr(), Instant::now());
        // SAFETY: the client lives as long as `self`; options and queue end before it.
        let (options, queue) = unsafe {
            (sys::rd_kafka_AdminOptions_new(client, RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_ANY), sys::rd_kafka_queue_new(client))
        };
        let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy);
        let queue = Owned::new(queue, sys::rd_kafka_queue_destroy);
        let (millis, mut why) = (c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX), [0; 512]);
        // SAFETY: the buffer is as long as it is said to be.
        unsafe {
            accepted(sys::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), millis, why.as_mut_ptr(), why.len()))?;
            match wanted {
                Wanted::Plain => {}
                Wanted::OnlyAsk => {
                    accepted(sys::rd_kafka_AdminOptions_set_validate_only(options.ptr(), 1, why.as_mut_ptr(), why.len()))?;
                }
                Wanted::Rights => {
                    let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.ptr(), 1);
                    if !error.is_null() {
                        let error = Owned::new(error, sys::rd_kafka_error_destroy);
                        answered(error.ptr())?;
                    }
                }
            }
        }
        send(client, options.ptr(), queue.ptr());
        loop {
            // SAFETY: the queue lives; an event that is taken off it is ours.
            let event = unsafe { sys::rd_kafka_queue_poll(queue.ptr(), LOOK.as_millis() as c_int) };
            self.hear();
            if !event.is_null() {
                let event = Owned::new(event, sys::rd_kafka_event_destroy);
                // SAFETY: the event lives, and its text with it.
                unsafe {
                    let error = sys::rd_kafka_event_error(event.ptr());
                    refused(error, || text(sys::rd_kafka_event_error_string(event.ptr())))?;
                }
                return Ok(event);
            }
            let given_up = self.watch().hopeless_since().is_some_and(|since| since.max(begun).elapsed() > OTHERS);
            if given_up || begun.elapsed() > within + OTHERS {
                return Err(Refusal { code: Code::OperationTimedOut, text: String::new() });
            }
        }
    }

    /// Takes what librdkafka says of itself off its main queue and tells the watch.
    pub(super) fn hear(&self) {
        // SAFETY: the client lives as long as `self`.
        let queue = Owned::new(unsafe { sys::rd_kafka_queue_get_main(self.0.native_ptr()) }, sys::rd_kafka_queue_destroy);
        loop {
            // SAFETY: the queue lives; an event that is taken off it is ours.
            let event = unsafe { sys::rd_kafka_queue_poll(queue.ptr(), 0) };
            if event.is_null() {
                return;
            }
            let event = Owned::new(event, sys::rd_kafka_event_destroy);
            // SAFETY: the event lives until the end of this turn, and its texts with it.
            unsafe {
                match sys::rd_kafka_event_type(event.ptr()) {
                    sys::RD_KAFKA_EVENT_LOG => {
                        let (mut facility, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                        if sys::rd_kafka_event_log(event.ptr(), &mut facility, &mut line, &mut level) == 0 {
                            self.watch().hear_line(level, &text(facility), &text(line));
                        }
                    }
                    sys::RD_KAFKA_EVENT_ERROR => {
                        let code = code_of(sys::rd_kafka_event_error(event.ptr()));
                        self.watch().hear_error(code, &text(sys::rd_kafka_event_error_string(event.ptr())));
                    }
                    _ => {} // nothing else is asked for
                }
            }
        }
    }
}

/// Called by OpenSSL, on a thread of librdkafka, with its verdict on one certificate of a broker's chain. It
/// stays as it is: this only listens.
unsafe extern "C" fn on_certificate(
    _client: *mut sys::rd_kafka_t,
    broker: *const c_char,
    _id: i32,
    fault: *mut c_int,
    _depth: c_int,
    _certificate: *const c_char,
    _size: usize,
    _why: *mut c_char,
    _why_size: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka gives a place that holds OpenSSL's verdict, a text, and the pointer that `Client::new` has
    // set: to the watch, which the client holds for as long as it has threads.
    unsafe {
        let fault = *fault;
        if fault == 0 {
            return 1;
        }
        if let Some(watch) = opaque.cast::<Watch>().as_ref() {
            watch.hear_certificate(fault, &text(broker));
        }
    }
    0
}

/// A thing of librdkafka that must be given back.
struct Owned<T> {
    thing: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// librdkafka ends the process where there is no memory, so there is a thing.
    fn new(thing: *mut T, free: unsafe extern "C" fn(*mut T)) -> Owned<T> {
        Owned { thing: NonNull::new(thing).expect("librdkafka gives what it makes"), free }
    }

    fn ptr(&self) -> *mut T {
        self.thing.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made by librdkafka, is freed by the function that belongs to it, and nobody else has it.
        unsafe { (self.free)(self.thing.as_ptr()) }
    }
}

/// The topics of an answer.
///
/// # Safety
/// `event` is of DescribeTopics.
unsafe fn described(event: &Owned<sys::rd_kafka_event_t>) -> &[*const sys::rd_kafka_TopicDescription_t] {
    // SAFETY: by the caller's word; the topics live as long as the event.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.ptr());
        items(|count| sys::rd_kafka_DescribeTopics_result_topics(result, count))
    }
}

/// Reads a topic out of an answer.
///
/// # Safety
/// `topic` is of an answer that lives.
unsafe fn topic_of(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<Topic, Refusal> {
    // SAFETY: all of it belongs to the topic, and is copied here.
    unsafe {
        answered(sys::rd_kafka_TopicDescription_error(topic))?;
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let id = match id.is_null() {
            true => [0; 16],
            false => {
                let (high, low) = (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id));
                (u128::from(high as u64) << 64 | u128::from(low as u64)).to_be_bytes()
            }
        };
        let partitions = items(|count| sys::rd_kafka_TopicDescription_partitions(topic, count));
        let replicas = |&&partition: &&*const sys::rd_kafka_TopicPartitionInfo_t| {
            items(|count| sys::rd_kafka_TopicPartitionInfo_replicas(partition, count)).len()
        };
        let in_sync = |&&partition: &&*const sys::rd_kafka_TopicPartitionInfo_t| {
            items(|count| sys::rd_kafka_TopicPartitionInfo_isr(partition, count)).len()
        };
        let leaderless = |&&partition: &&*const sys::rd_kafka_TopicPartitionInfo_t| {
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
            leader.is_null() || sys::rd_kafka_Node_id(leader) < 0
        };
        Ok(Topic {
            id,
            partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
            replicas: partitions.iter().map(|partition| replicas(&partition)).min().unwrap_or(0) as u16,
            leaderless: partitions.iter().filter(leaderless).count() as u32,
            in_sync: partitions.iter().map(|partition| in_sync(&partition)).min().unwrap_or(0) as u16,
        })
    }
}

/// A list of an answer.
///
/// # Safety
/// `list` sets the count and returns the begin of so many pointers, or null, that live for `'a`.
unsafe fn items<'a, T>(list: impl FnOnce(*mut usize) -> *mut *const T) -> &'a [*const T] {
    let mut count = 0;
    let begin = list(&mut count);
    if begin.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: by the caller's word.
    unsafe { std::slice::from_raw_parts(begin, count) }
}

/// A text of librdkafka's, or none.
///
/// # Safety
/// Where it is not null, it ends with a zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's word.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

/// Names and values of ours hold no zeros: a config is validated.
fn c_text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn code_of(error: RDKafkaRespErr) -> Code {
    error.into()
}

fn refused(error: RDKafkaRespErr, why: impl FnOnce() -> String) -> Result<(), Refusal> {
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(Refusal { code: code_of(error), text: why() }),
    }
}

/// What an answer says of one thing.
///
/// # Safety
/// `error` is null or of an answer that lives.
unsafe fn answered(error: *const sys::rd_kafka_error_t) -> Result<(), Refusal> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: by the caller's word.
    unsafe { refused(sys::rd_kafka_error_code(error), || text(sys::rd_kafka_error_string(error))) }
}

fn accepted(error: RDKafkaRespErr) -> Result<(), Refusal> {
    refused(error, String::new)
}
