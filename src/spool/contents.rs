//! All that can be read of a log, whoever drains it: for those who look at the whole of it, and drain nothing.

use std::io;
use std::path::PathBuf;

use super::reader::{Chunk, LogReader, LogView};
use super::replay::{Piece, Replay};
use super::segment::DrainedBy;
use crate::domain::chain::ChainId;
use crate::domain::entry::Record;
use crate::domain::identity::LogId;
use crate::domain::stream::Stream;

/// What stands in a log.
pub enum Item {
    /// A record of a chain.
    Record(ChainId, Record),
    /// Places of a chain that cannot be read, by the first and the last.
    Lost(ChainId, u64, u64),
}

/// Tells all that stands in the log whose folder is `dir`. Blocks on the disk.
pub fn read(dir: PathBuf, log: LogId, view: &LogView, mut tell: impl FnMut(Item)) -> io::Result<()> {
    if view.kind().is_some_and(|kind| kind.drained_by == DrainedBy::Kafka) {
        let mut replay = Replay::new(dir, log);
        loop {
            match replay.next(view)? {
                Piece::Records(records) => records.into_iter().for_each(|out| tell(Item::Record(out.chain, out.record))),
                Piece::Lost(lost) => lost.into_iter().for_each(|(chain, from, to)| tell(Item::Lost(chain, from, to))),
                Piece::End => return Ok(()),
            }
        }
    }
    for stream in Stream::ALL {
        let (mut reader, mut from) = (LogReader::new(&dir, stream), view.start(stream));
        loop {
            from = match reader.read(view, from)? {
                Chunk::Records { records, next } => {
                    records.into_iter().for_each(|record| tell(Item::Record(stream.into(), record)));
                    next
                }
                Chunk::Lost { to } => {
                    tell(Item::Lost(stream.into(), from, to - 1));
                    to
                }
                Chunk::End => break,
            }
        }
    }
    Ok(())
}
