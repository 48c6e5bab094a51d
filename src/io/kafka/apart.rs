//! Ends a client on a thread of its own.

use std::ops::Deref;

/// A client of librdkafka's, of any kind. It waits for its own threads when it ends, which an actor must not, and it may do so for
/// ever: a count that is lost in one of its faults keeps a thread alive. Nobody waits for it here.
pub struct Apart<C: Send + 'static>(Option<C>);

impl<C: Send + 'static> Apart<C> {
    /// From here on it is used through this, and ends with this.
    pub fn new(client: C) -> Apart<C> {
        Apart(Some(client))
    }
}

impl<C: Send + 'static> Deref for Apart<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.0.as_ref().expect("it is there until this is dropped")
    }
}

impl<C: Send + 'static> Drop for Apart<C> {
    fn drop(&mut self) {
        let client = self.0.take();
        if let Err(error) = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(client)) {
            tracing::warn!(%error, "no thread to end a Kafka client on: it was ended in place");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    struct Hangs(Receiver<()>);

    impl Drop for Hangs {
        fn drop(&mut self) {
            self.0.recv().ok();
        }
    }

    #[test]
    fn nobody_waits_for_a_client_that_does_not_end() {
        let (ends, end) = channel();
        drop(Apart::new(Hangs(end)));
        ends.send(()).expect("it has not ended yet");
    }
}
