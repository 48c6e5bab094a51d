//! What is known of the topics: which incarnation, how many partitions. Looked at again every few seconds, since a topic
//! may be deleted and created again while we work.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::chain::ChainId;
use crate::domain::identity::LogId;
use crate::domain::per_chain::PerChain;
use crate::domain::stream::{PerStream, Stream};
use crate::io::kafka::KafkaError;
use crate::io::kafka::topics::{Described, TopicState, Topics};

/// How often the topics are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the cluster.
#[derive(Clone, Default)]
pub struct Known {
    /// Asks it; none before it was reached.
    pub topics: Option<Topics>,
    /// Each topic; none: nothing is known of it yet, or it is missing.
    pub view: PerStream<Option<Described>>,
}

/// What was last known of the cluster. A clone sees the same.
#[derive(Clone)]
pub struct Cluster(watch::Receiver<Known>);

impl Cluster {
    /// Knows what is sent there.
    pub fn new(known: watch::Receiver<Known>) -> Cluster {
        Cluster(known)
    }

    /// Asks the cluster; none before it was reached.
    pub fn topics(&self) -> Option<Topics> {
        self.0.borrow().topics.clone()
    }

    /// The topic of a stream; none while it is not there.
    pub fn topic(&self, stream: Stream) -> Option<Described> {
        self.0.borrow().view[stream.index()]
    }

    /// The incarnation of a stream's log.
    pub fn incarnation(&self, stream: Stream) -> Option<LogId> {
        self.topic(stream).map(|topic| topic.incarnation)
    }

    /// How many partitions the topics have, the one with the most; none before anything is known.
    pub fn partitions(&self) -> Option<u32> {
        Stream::ALL.into_iter().filter_map(|stream| self.topic(stream)).map(|topic| topic.partitions).max()
    }

    /// Resolves when something becomes another than it is now.
    pub async fn changed(&mut self) {
        self.0.mark_unchanged();
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Looks at the topics once, and tells what is new; which of them are missing.
pub async fn look(topics: &Topics, known: &watch::Sender<Known>) -> Result<Vec<Stream>, KafkaError> {
    let view = topics.describe().await?.map(|state| match state {
        TopicState::There(topic) => Some(topic),
        TopicState::Missing => None,
    });
    known.send_if_modified(|known| {
        let is_new = known.view != view || known.topics.is_none();
        *known = Known { topics: Some(topics.clone()), view };
        is_new
    });
    Ok(Stream::ALL.into_iter().filter(|stream| view[stream.index()].is_none()).collect())
}

/// Where the logs of all chains end now, and of which incarnation they are. Those that cannot be told are left out.
pub async fn ends(cluster: &Cluster) -> PerChain<Option<(LogId, u64)>> {
    let mut ends = PerChain::of(cluster.partitions().unwrap_or(1));
    let Some(topics) = cluster.topics() else { return ends };
    for stream in Stream::ALL {
        let Some(before) = cluster.topic(stream) else { continue };
        for partition in 0..before.partitions {
            if let Ok(found) = topics.watermarks(stream, partition).await {
                ends[ChainId { stream, partition }] = Some((before.incarnation, found.end));
            }
        }
    }
    ends
}
