//! The consumer group. It decides only who works on which partition; where each begins is said by its chain.
//!
//! The client that joins is not the one that reads: its partitions are paused as soon as they come. What it commits is a
//! hint for those who watch lag, and nobody reads it here.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};

use crate::config::KafkaConfig;
use crate::domain::chain::ChainId;
use crate::domain::stream::Stream;
use crate::io::kafka::watch::{Watch, watched};
use crate::io::kafka::{KafkaError, client};

/// How long a poll of the group waits: the group's events, and the end of the thread, are seen within it.
const POLL: Duration = Duration::from_millis(200);

/// How long its end is waited for: it says good-bye to the group, whose broker may be away.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What the group decides.
#[derive(Debug)]
pub enum Decision {
    /// These partitions are to be worked on from now on.
    Assigned(Vec<ChainId>),
    /// These are others' from now on. They get them when the answer is there, or its sender is gone, or it took too long.
    Revoked(Vec<ChainId>, Sender<()>),
    /// Nothing, as a broker refuses to let us take part: why.
    Refused(String),
    /// Another member has come with the same name: this one is out of the group for good.
    Replaced,
}

/// A member of the group. It leaves when it is dropped.
pub struct Member {
    commits: Sender<(ChainId, u64)>,
    /// Told when the thread is over, and closed if it has died.
    over: Receiver<()>,
    ends: Arc<std::sync::atomic::AtomicBool>,
}

struct Context {
    config: Arc<KafkaConfig>,
    watch: Watch,
    decide: Mutex<Box<dyn FnMut(Decision) + Send>>,
    /// What the member has. Commits of anything else may be sent while it is not known to the group, and one with a name would
    /// be shut out for it as an impostor.
    assigned: Mutex<BTreeSet<ChainId>>,
}

impl Member {
    /// Joins the group, by name if there is one (see [`client::member`]). `decide` is called on the member's thread, and must not wait.
    ///
    /// # Errors
    /// librdkafka does not take the config.
    pub fn join(
        config: &KafkaConfig,
        name: Option<&str>,
        decide: impl FnMut(Decision) + Send + 'static,
    ) -> Result<Member, KafkaError> {
        let config = Arc::new(config.clone());
        let context = Context {
            config: config.clone(),
            watch: Watch::new("member"),
            decide: Mutex::new(Box::new(decide)),
            assigned: Mutex::default(),
        };
        let made = client::member(&config, 1, name).create_with_context(context);
        let client: BaseConsumer<Context> = made.map_err(|error| KafkaError::of_creation(&error, &config))?;
        let topics = Stream::ALL.map(|stream| config.topic(stream));
        let failed = |error: Native| KafkaError::Client(error.to_string());
        client.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).map_err(failed)?;
        let (commits, to_commit) = channel();
        let ends = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (told, of) = (ends.clone(), config.clone());
        let (lives, over) = channel::<()>();
        let serve = move || {
            serve(client, &of, &to_commit, &told);
            lives.send(()).ok(); // nobody may wait for it any more
        };
        let thread = std::thread::Builder::new().name("kafka-member".into()).spawn(serve);
        thread.map_err(|error| KafkaError::Client(error.to_string()))?;
        Ok(Member { commits, over, ends })
    }

    /// Tells those who watch lag that all below `offset` is archived. It may never get there.
    pub fn commit(&self, chain: ChainId, offset: u64) {
        self.commits.send((chain, offset)).ok(); // nobody is there any more only at the end
    }
}

impl Drop for Member {
    /// The others get its partitions at once, or those of one with a name if it is not back within the session's time.
    fn drop(&mut self) {
        self.ends.store(true, std::sync::atomic::Ordering::Relaxed);
        match self.over.recv_timeout(END_WITHIN) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(within = ?END_WITHIN, "a member of the group does not end: it is not waited for any more");
            }
            Err(RecvTimeoutError::Disconnected) => tracing::error!("the group's thread had died"),
        }
    }
}

fn serve(
    client: BaseConsumer<Context>,
    config: &KafkaConfig,
    commits: &Receiver<(ChainId, u64)>,
    ends: &std::sync::atomic::AtomicBool,
) {
    while !ends.load(std::sync::atomic::Ordering::Relaxed) {
        // What comes is an event or, of a partition that was not yet paused, a message that the reader reads, too.
        if let Some(Err(error)) = client.poll(POLL) {
            match client.client().fatal_error() {
                Some((Code::FencedInstanceId, _)) => return client.context().decide(Decision::Replaced),
                Some((_, why)) => client.context().decide(Decision::Refused(why)),
                None if is_refusal(&error) => {
                    let trouble = client.context().watch.trouble();
                    let why = KafkaError::of_group(&error, trouble.as_ref(), config).to_string();
                    client.context().decide(Decision::Refused(why));
                }
                None => {}
            }
        }
        let mut list = TopicPartitionList::new();
        for (chain, offset) in commits.try_iter().filter(|(chain, _)| client.context().assigned().contains(chain)) {
            drop(list.add_partition_offset(&config.topic(chain.stream), chain.partition as i32, super::offset(offset)));
        }
        if list.count() > 0
            && let Err(error) = client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the group was not told how far the archive is");
        }
    }
    client.unsubscribe();
}

/// Whether a broker says something against our part in the group. Connections that break are tried again, and are told of
/// elsewhere.
fn is_refusal(error: &Native) -> bool {
    match error.rdkafka_error_code() {
        None | Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::PartitionEOF) => false,
        // Of a partition for which the group has no offset yet. That is the chain's business, and the reader's.
        Some(Code::AutoOffsetReset) => false,
        Some(_) => true,
    }
}

impl Context {
    fn chains(&self, list: &TopicPartitionList) -> Vec<ChainId> {
        let of = |topic: &str| Stream::ALL.into_iter().find(|stream| self.config.topic(*stream) == topic);
        let elements = list.elements();
        let chain = |topic: &str, partition: i32| Some(ChainId { stream: of(topic)?, partition: u32::try_from(partition).ok()? });
        elements.iter().filter_map(|element| chain(element.topic(), element.partition())).collect()
    }

    fn assigned(&self) -> MutexGuard<'_, BTreeSet<ChainId>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, decision: Decision) {
        (self.decide.lock().unwrap_or_else(PoisonError::into_inner))(decision);
    }
}

watched!(Context);

impl ConsumerContext for Context {
    /// The partitions are given away after this: whoever worked on them has time until then.
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let (chains, (done, is_done)) = (self.chains(list), channel());
            self.assigned().retain(|chain| !chains.contains(chain));
            self.decide(Decision::Revoked(chains, done));
            if let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(self.config.drain_within) {
                tracing::warn!(within = ?self.config.drain_within, "revoked partitions are given away before they were drained");
            }
        }
    }

    fn post_rebalance(&self, client: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = client.pause(list) {
                    tracing::warn!(%error, "partitions could not be paused: they are fetched twice");
                }
                self.watch.forget_troubles();
                let chains = self.chains(list);
                self.assigned().extend(&chains);
                self.decide(Decision::Assigned(chains));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "the group could not be rebalanced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_us_out_of_the_group_is_a_refusal() {
        let refused = |code| is_refusal(&Native::MessageConsumption(code));
        assert!(refused(Code::GroupAuthorizationFailed) && refused(Code::FencedInstanceId));
        assert!(!refused(Code::AutoOffsetReset), "a new group knows no offsets");
        assert!(!refused(Code::BrokerTransportFailure));
    }
}
