//! The queue of one partition that a reader is assigned, taken in batches. All `unsafe` of reading is here: the `rdkafka`
//! crate hands out one message at a time, with a lock and an allocation for each.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use crate::io::kafka::Apart;
use crate::io::kafka::watch::Watch;

/// The client that reads all partitions of a process.
pub(super) type Client = Apart<BaseConsumer<Watch>>;

/// Messages that are taken at once.
const BATCH: usize = 2048;

/// See the module. It must be made before its partition is assigned: else the first messages go elsewhere.
pub struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    /// Told when the queue is not empty any more. The queue's callback holds it, too.
    filled: Arc<Notify>,
    topic: CString,
    partition: i32,
    /// Outlives the queue.
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues may be used from any thread, and the messages are ours alone.
unsafe impl Send for Queue {}

/// A message, or that there is an error in its place, which is as long there as its batch.
pub enum Taken<'a> {
    /// A message.
    Message(Message<'a>),
    /// The partition cannot be read on: why.
    Error(Code),
}

/// A message that librdkafka owns.
#[derive(Clone, Copy)]
pub struct Message<'a>(&'a sys::rd_kafka_message_t);

impl Queue {
    /// The queue of a partition, apart from the client's own.
    pub fn new(client: &Arc<Client>, topic: &str, partition: u32) -> Queue {
        let topic = CString::new(topic).expect("the config refuses names that no topic can have");
        let (filled, partition) = (Arc::new(Notify::new()), partition as i32);
        // SAFETY: the client is alive, and stays so as long as the queue (see `client`). The callback's pointer is a count
        // of `filled`, given back in `drop` after the callback is taken away.
        let queue = unsafe {
            let native = client.client().native_ptr();
            let queue = sys::rd_kafka_queue_get_partition(native, topic.as_ptr(), partition);
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            let opaque = Arc::into_raw(filled.clone()).cast_mut().cast::<c_void>();
            sys::rd_kafka_queue_cb_event_enable(queue, Some(on_filled), opaque);
            queue
        };
        let queue = NonNull::new(queue).expect("librdkafka has a queue for every partition of a consumer");
        Queue { queue, messages: Vec::with_capacity(BATCH), filled, topic, partition, client: client.clone() }
    }

    /// Whose it is.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Told when there is something again, after the queue was found empty.
    pub fn filled(&self) -> Arc<Notify> {
        self.filled.clone()
    }

    /// Takes what is there, at most one batch, and does not wait. The batch before is gone.
    pub fn take(&mut self) -> impl ExactSizeIterator<Item = Taken<'_>> {
        self.give_back();
        // SAFETY: there is room for a batch, and as many pointers are set as it says. An error (-1) sets none.
        unsafe {
            let taken = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.messages.as_mut_ptr(), BATCH);
            self.messages.set_len(usize::try_from(taken).unwrap_or(0));
        }
        self.messages.iter().map(|message| {
            // SAFETY: the pointers of a batch are valid until they are given back, for which `self` is needed.
            let message = unsafe { &**message };
            match Code::from(message.err) {
                Code::NoError => Taken::Message(Message(message)),
                code => Taken::Error(code),
            }
        })
    }

    /// The offset behind the last message of the partition, as the last answer of its broker said.
    pub fn known_end(&self) -> Option<u64> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, and both numbers are there to be written.
        let code = unsafe {
            let native = self.client.client().native_ptr();
            sys::rd_kafka_get_watermark_offsets(native, self.topic.as_ptr(), self.partition, &raw mut low, &raw mut high)
        };
        (Code::from(code) == Code::NoError).then(|| u64::try_from(high).ok()).flatten()
    }

    fn give_back(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: it came from a batch, and nothing borrows from it any more.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.give_back();
        // SAFETY: the queue is ours. Taking the callback away waits for one that runs; then its count can be given back.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            drop(Arc::from_raw(Arc::as_ptr(&self.filled)));
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Called by a thread of librdkafka.
unsafe extern "C" fn on_filled(_: *mut sys::rd_kafka_t, filled: *mut c_void) {
    // SAFETY: it is the pointer that `Queue::new` gave, which counts as long as this callback is set.
    unsafe { &*filled.cast::<Notify>() }.notify_one();
}

impl<'a> Message<'a> {
    /// Its offset.
    pub fn offset(&self) -> u64 {
        self.0.offset.max(0) as u64
    }

    /// Its value; `None` for null.
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: pointer and length belong together, and live as long as the message.
        (!self.0.payload.is_null()).then(|| unsafe { slice::from_raw_parts(self.0.payload.cast(), self.0.len) })
    }

    /// When it was written, by its timestamp: milliseconds since the Unix epoch.
    pub fn timestamp(&self) -> i64 {
        // SAFETY: the message is alive, and a null pointer asks for nothing more.
        unsafe { sys::rd_kafka_message_timestamp(self.0, ptr::null_mut()) }
    }

    /// The last header of each of these names.
    pub fn headers<const N: usize>(&self, names: [&str; N]) -> [Option<&'a [u8]>; N] {
        let (mut found, mut headers) = ([None; N], ptr::null_mut());
        // SAFETY: the headers stay with the message; names and values in them live as long. Names end with a zero byte.
        unsafe {
            if Code::from(sys::rd_kafka_message_headers(self.0, &raw mut headers)) != Code::NoError {
                return found;
            }
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            let mut at = 0;
            while Code::from(sys::rd_kafka_header_get_all(headers, at, &raw mut name, &raw mut value, &raw mut length))
                == Code::NoError
            {
                at += 1;
                let name = std::ffi::CStr::from_ptr(name).to_bytes();
                if let Some(place) = names.iter().position(|wanted| wanted.as_bytes() == name) {
                    found[place] = (!value.is_null()).then(|| slice::from_raw_parts(value.cast(), length));
                }
            }
        }
        found
    }
}
