//! What the cluster holds: of each partition where its log is and how far the chain is, and the records that are in no slot
//! yet.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::found::Found;
use crate::bronze::source::{Opening, Piece, Source, SourceError};
use crate::config::KafkaConfig;
use crate::domain::chain::ChainId;
use crate::domain::identity::LogId;
use crate::domain::stream::Stream;
use crate::io::kafka::KafkaError;
use crate::io::kafka::topics::Topics;
use crate::kafka::cluster::{Cluster, Known, View, look};
use crate::kafka::reader::Reader;
use crate::kafka::source::{Means, Partition};

/// Nothing comes of a partition that has something for so long: its broker is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// A partition and its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// `stream/partition`.
    pub chain: String,
    /// The incarnation of its log.
    pub log: LogId,
    /// The first offset that retention has left.
    pub start: u64,
    /// The offset behind the last record.
    pub end: u64,
    /// The chain's open generation.
    pub generation: u64,
    /// The offset of its next slot.
    pub next: u64,
    /// Whether that generation reads this log.
    pub is_read: bool,
    /// Offsets that no slot covers, ticks and repeats included.
    pub unarchived: u64,
}

/// The cluster cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The brokers.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A partition.
    #[error("{chain}: {error}")]
    Source {
        /// Which.
        chain: ChainId,
        /// Why.
        error: SourceError,
    },
}

impl Found {
    /// Adds what the topics hold and no slot does that was read before: what a daemon archives meanwhile is counted here.
    pub async fn cluster(&mut self, config: &KafkaConfig) -> Result<(), ClusterError> {
        let topics = Topics::open(config).await?;
        let (known, knows) = watch::channel(Known::default());
        for missing in look(&topics, &known, &mut View::default()).await? {
            self.faults.push(format!("topic `{}` is not there", config.topic(missing)));
        }
        let means = Means { reader: Reader::new(config)?, cluster: Cluster::new(knows), registry: None };
        for stream in Stream::ALL {
            let Some(topic) = means.cluster.topic(stream) else { continue };
            for partition in 0..topic.partitions {
                let chain = ChainId { stream, partition };
                let tail = self.tails.get(&chain).cloned().unwrap_or_default();
                let found = topics.watermarks(stream, partition).await?;
                let is_read = tail.incarnation == Some(topic.incarnation);
                // A log that the chain does not read yet is read from its start.
                let from = if is_read { tail.next.start } else { found.start };
                let standing = Standing {
                    chain: chain.to_string(),
                    log: topic.incarnation,
                    start: found.start,
                    end: found.end,
                    generation: tail.next.generation,
                    next: tail.next.start,
                    is_read,
                    unarchived: found.end.saturating_sub(from),
                };
                if is_read && tail.next.start > found.end {
                    let end = found.end;
                    self.faults.push(format!("{chain}: the log ends at {end}, before offset {from}, up to which it is archived"));
                } else if is_read && from < found.start {
                    let gone = found.start - from;
                    self.notes.push(format!(
                        "{chain}: retention has deleted {gone} offsets from {from} on that are in no slot; what they held is sent again \
                         by the spools that have it"
                    ));
                }
                self.partitions.push(standing);
                if from < found.end {
                    let source = Partition::new(means.clone(), chain);
                    self.unarchived(chain, source, topic.incarnation, from.max(found.start), found.end).await?;
                }
            }
        }
        Ok(())
    }

    /// Counts the records of a partition from one offset to another.
    async fn unarchived(
        &mut self,
        chain: ChainId,
        mut source: Partition,
        log: LogId,
        from: u64,
        to: u64,
    ) -> Result<(), ClusterError> {
        let failed = |error| ClusterError::Source { chain, error };
        if source.open(Some(log), from).await.map_err(failed)? != Opening::Read {
            return Err(failed(SourceError::Kafka("its topic was created anew meanwhile: verify again".into())));
        }
        let (mut at, mut last) = (from, Instant::now());
        while at < to {
            match source.read(at).await.map_err(failed)? {
                Piece::Records { records, next } => {
                    records.into_iter().for_each(|record| self.unsettled(chain, record));
                    (at, last) = (next, Instant::now());
                }
                Piece::Lost { to, .. } => at = to,
                Piece::End if last.elapsed() > PATIENCE => {
                    let why = format!("nothing comes from offset {at} on, and it should have records up to {to}");
                    return Err(failed(SourceError::Kafka(why)));
                }
                Piece::End => tokio::time::sleep(Duration::from_millis(20)).await,
                Piece::Closed { .. } | Piece::Changed => {
                    return Err(failed(SourceError::Kafka("its topic was created anew meanwhile: verify again".into())));
                }
            }
        }
        Ok(())
    }
}
