//! Where the records of a chain come from: the spool's logs ([`Spooled`]), or a partition of a Kafka topic
//! (`crate::kafka`). An archiver asks for them by offset and knows of no other difference.

use futures_util::future::BoxFuture;

use crate::domain::chain::ChainId;
use crate::domain::entry::Record;
use crate::domain::identity::LogId;
use crate::spool::logs::Logs;
use crate::spool::reader::{self, LogReader};

/// Why a log cannot be read. Every one of them is waited for: what is in the log stays there.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The spool's disk.
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] std::io::Error),
    /// The brokers, with the cure where one is known.
    #[error("the partition cannot be read: {0}")]
    Kafka(String),
}

/// Whether the log of the open generation is the one that the source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It is: go on reading it.
    Read,
    /// It is another one: the generation is closed, and the next one reads this log.
    Close {
        /// The incarnation of the next generation.
        next: LogId,
    },
}

/// What stands at an offset.
#[derive(Debug)]
pub enum Piece {
    /// Records with rising offsets, the first at or after the one asked for.
    Records {
        /// The records; perhaps none, where the log has used offsets for itself.
        records: Vec<Record>,
        /// Where to go on.
        next: u64,
    },
    /// The log does not hold the records from the offset asked for up to `to` (not included).
    Lost {
        /// The first offset that is there again.
        to: u64,
        /// Why not.
        reason: &'static str,
        /// The log of the spool, where the offsets are places in it.
        spooled: Option<LogId>,
    },
    /// Nothing yet at this offset.
    End,
    /// The log is over, and nothing comes behind this offset: the next generation reads this log.
    Closed {
        /// The incarnation of the next generation.
        next: LogId,
    },
    /// It is not the log that was opened any more: what is open is to be dropped, and the chain read again.
    Changed,
}

/// Reads one chain's log.
pub trait Source: Send {
    /// Prepares to read the log `incarnation` from offset `from` on, if it is the one to be read. `None`: no generation
    /// is open yet.
    fn open(&mut self, incarnation: Option<LogId>, from: u64) -> BoxFuture<'_, Result<Opening, SourceError>>;

    /// Reads what stands at `from`, which is where the last read ended, or where the log was opened.
    fn read(&mut self, from: u64) -> BoxFuture<'_, Result<Piece, SourceError>>;

    /// The offset behind the last record of the opened log, as far as it is known.
    fn end(&self) -> Option<u64>;

    /// Resolves when there may be more to read than the last read found.
    fn changed(&self) -> BoxFuture<'static, ()>;

    /// Whether whoever drains the chain should first read on to the log's end: nobody else would.
    fn is_drained_to_its_end(&self) -> bool;
}

/// The spool's logs, one after the other: the spool is the log.
pub struct Spooled {
    logs: Logs,
    chain: ChainId,
    open: Option<(LogId, LogReader)>,
    durable: tokio::sync::watch::Receiver<reader::LogView>,
}

impl Spooled {
    /// Reads `chain` out of `logs`.
    pub fn new(logs: Logs, chain: impl Into<ChainId>) -> Spooled {
        let durable = logs.watch();
        Spooled { logs, chain: chain.into(), open: None, durable }
    }

    async fn read_log(&mut self, from: u64) -> Result<Piece, SourceError> {
        self.durable.mark_unchanged();
        let Some((log, mut reader)) = self.open.take() else { return Ok(Piece::Changed) };
        // A dead log that was deleted meanwhile has been drained by everyone who needs it.
        let view = self.logs.view(log).unwrap_or_default();
        let task = tokio::task::spawn_blocking(move || (reader.read(&view, from), reader));
        let (chunk, reader) = task.await.map_err(std::io::Error::other)?;
        self.open = Some((log, reader));
        Ok(match chunk? {
            reader::Chunk::Records { records, next } => Piece::Records { records, next },
            reader::Chunk::Lost { to } => {
                Piece::Lost { to, reason: "the spool does not hold these records any more", spooled: Some(log) }
            }
            reader::Chunk::End if log == self.logs.live() => Piece::End,
            reader::Chunk::End => Piece::Closed { next: self.logs.after(Some(log)) },
        })
    }
}

impl Source for Spooled {
    fn open(&mut self, incarnation: Option<LogId>, _: u64) -> BoxFuture<'_, Result<Opening, SourceError>> {
        let here = incarnation.filter(|log| self.logs.view(*log).is_some());
        let opening = match here {
            Some(log) => {
                self.open = Some((log, LogReader::new(&self.logs.dir(log), self.chain.stream)));
                Opening::Read
            }
            None => Opening::Close { next: self.logs.after(None) },
        };
        Box::pin(async move { Ok(opening) })
    }

    fn read(&mut self, from: u64) -> BoxFuture<'_, Result<Piece, SourceError>> {
        Box::pin(self.read_log(from))
    }

    fn end(&self) -> Option<u64> {
        let (log, _) = self.open.as_ref()?;
        Some(self.logs.view(*log)?.end(self.chain))
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut durable = self.durable.clone();
        Box::pin(async move {
            if durable.changed().await.is_err() {
                std::future::pending::<()>().await; // the log's writer is gone
            }
        })
    }

    fn is_drained_to_its_end(&self) -> bool {
        true
    }
}
