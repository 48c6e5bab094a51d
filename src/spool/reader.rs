//! Reads one stream's records out of a log, in the order of their offsets.
//!
//! What may be read comes in as a [`LogView`]: of a dead log what its scan found valid, of the
//! living one what is durable. Records that no segment holds any more are answered as
//! [`Chunk::Lost`], never passed over.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::mark::{Mark, Place};
use super::segment::{self, ENTRY_HEADER, LogKind, SegmentView, next_frame, unreadable};
use crate::domain::chain::ChainId;
use crate::domain::entry::{Entry, Record, counts_of, records};
use crate::domain::identity::LogId;
use crate::domain::stream::Stream;

/// How much is read at once: a few thousand records.
const READ_BYTES: usize = 1 << 20;

/// The readable part of a log.
#[derive(Clone, Debug, Default)]
pub struct LogView {
    /// Segments that will not change, oldest first. Coverage takes them away from the front.
    pub closed: Arc<VecDeque<SegmentView>>,
    /// The one that is being written, up to where it is durable; none in a dead log.
    pub current: Option<SegmentView>,
}

impl LogView {
    /// All of its segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &SegmentView> {
        self.closed.iter().chain(&self.current)
    }

    /// The place of the oldest record of a chain that is still there.
    pub fn start(&self, chain: impl Into<ChainId>) -> u64 {
        self.segments().next().and_then(|segment| segment.base.get(chain.into())).copied().unwrap_or_default()
    }

    /// The place behind the newest record of a chain.
    pub fn end(&self, chain: impl Into<ChainId>) -> u64 {
        self.segments().next_back().and_then(|segment| segment.end.get(chain.into())).copied().unwrap_or_default()
    }

    /// By whom the log is drained, and how many partitions it has; none where it has no segment, and so no record.
    pub fn kind(&self) -> Option<LogKind> {
        let first = self.segments().next()?;
        Some(LogKind { drained_by: first.drained_by, partitions: first.base.partitions() })
    }

    /// The bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.len).sum()
    }
}

/// What stands at an offset.
#[derive(Debug)]
pub enum Chunk {
    /// Records with rising offsets, the first at or after the one asked for; the next read goes on
    /// at `next`.
    Records {
        /// The records.
        records: Vec<Record>,
        /// Where to go on.
        next: u64,
    },
    /// The log does not hold the records from the offset asked for up to `to` (not included).
    Lost {
        /// The first offset that is there again.
        to: u64,
    },
    /// Nothing (yet) at this offset.
    End,
}

/// A place in the log from which reading goes on.
#[derive(Debug)]
struct Cursor {
    segment: u32,
    file: File,
    at: u64,
    offset: u64,
}

/// Reads one stream of a log of one partition.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    stream: Stream,
    cursor: Option<Cursor>,
}

impl LogReader {
    /// A reader of `stream` in the log whose folder is `dir`.
    pub fn new(dir: &Path, stream: Stream) -> LogReader {
        LogReader { dir: dir.to_path_buf(), stream, cursor: None }
    }

    /// Reads what stands at `from`. Blocks on the disk.
    pub fn read(&mut self, view: &LogView, from: u64) -> io::Result<Chunk> {
        let stream = self.stream;
        if from < view.start(stream) {
            return Ok(Chunk::Lost { to: view.start(stream) });
        }
        let Some(segment) = view.segments().find(|segment| from < segment.end[stream]) else {
            return Ok(Chunk::End);
        };
        if from < segment.base[stream] {
            return Ok(Chunk::Lost { to: segment.base[stream] });
        }
        let path = segment::path(&self.dir, segment.number);
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.segment == segment.number && cursor.offset <= from => cursor,
            _ => Cursor {
                segment: segment.number,
                file: File::open(&path).map_err(|error| unreadable(path.display(), &error))?,
                at: segment.body_at,
                offset: segment.base[stream],
            },
        };
        let found = loop {
            // Tried again until it can be read, and never passed over: the disk may be ill, and not the file.
            let of = |at, error| unreadable(format_args!("{} from byte {at}", path.display()), &error);
            let read = advance(&mut cursor, segment, self.stream, from);
            if let Some(records) = read.map_err(|error| of(cursor.at, error))? {
                break Chunk::Records { records, next: cursor.offset.min(segment.end[stream]) };
            }
            // The bytes are damaged: the next mark, or the next segment, says where reading goes on.
            match mark_behind(&cursor, segment).map_err(|error| of(cursor.at, error))? {
                Some(mark) => (cursor.at, cursor.offset) = (mark.at(), mark.next()[stream]),
                None => break Chunk::Lost { to: segment.end[stream] },
            }
            if cursor.offset > from {
                break Chunk::Lost { to: cursor.offset };
            }
        };
        self.cursor = Some(cursor);
        Ok(found)
    }
}

/// The first mark behind what cannot be read.
fn mark_behind(cursor: &Cursor, segment: &SegmentView) -> io::Result<Option<Mark>> {
    let from = (cursor.at + 1).min(segment.len);
    let bytes = read_at(&cursor.file, from, (segment.len - from) as usize)?;
    Ok(Mark::find(&bytes, Place { log: segment.log, segment: segment.number, at: from }).next())
}

/// Reads on from the cursor to the next chunk that holds records of the stream at or after `from`;
/// `None` if an entry is damaged before any is found.
fn advance(cursor: &mut Cursor, segment: &SegmentView, stream: Stream, from: u64) -> io::Result<Option<Vec<Record>>> {
    let mut found = Vec::new();
    let (mut want, mut kept) = (READ_BYTES, 0);
    while found.is_empty() && cursor.at < segment.len {
        let rest = (segment.len - cursor.at) as usize;
        let bytes = read_at(&cursor.file, cursor.at, want.min(rest))?;
        kept = bytes.len();
        match take(cursor, &bytes, (segment.log, stream), from, &mut found) {
            Taken::Whole => want = READ_BYTES,
            // An entry longer than one read.
            Taken::None if bytes.len() == want && want < rest => want *= 2,
            // An entry that reaches beyond the valid end, or a file that has lost its end.
            Taken::None | Taken::Damaged => break,
        }
    }
    let end = segment.end[stream];
    found.retain(|record| (from..end).contains(&record.offset));
    own(&mut found, kept);
    // The segment ends before the record that it should hold: a damaged count.
    if found.is_empty() { Ok(None) } else { Ok(Some(found)) }
}

/// What [`take`] found.
enum Taken {
    /// Whole entries.
    Whole,
    /// Not one whole entry.
    None,
    /// Perhaps whole entries, and then a damaged one.
    Damaged,
}

/// Takes the records out of the whole entries in `bytes`, which begin at the cursor, and moves it on.
fn take(cursor: &mut Cursor, bytes: &Bytes, (log, stream): (LogId, Stream), from: u64, found: &mut Vec<Record>) -> Taken {
    let mut used = 0;
    while let Some((crc, body)) = next_frame(&bytes[used..]) {
        let (length, counts) = (body.len(), counts_of(body));
        // Of what is passed over the counts must be true too.
        let Some(counts) = counts.ok().filter(|_| crc32c::crc32c(body) == crc) else { return Taken::Damaged };
        let count = u64::from(counts[stream.index()]);
        if cursor.offset + count > from && count > 0 {
            let body = bytes.slice(used + ENTRY_HEADER..used + ENTRY_HEADER + length);
            let Ok(entry) = Entry::decode(body) else { return Taken::Damaged };
            records(log, entry, stream, cursor.offset, found);
        }
        cursor.offset += count;
        used += ENTRY_HEADER + length;
        cursor.at += (ENTRY_HEADER + length) as u64;
    }
    if used == 0 { Taken::None } else { Taken::Whole }
}

/// Gives records bytes of their own where they would keep more than twice as much of the `kept` bytes that
/// were read with them: of a stream whose records stand far apart, a thousand times what whoever counts them
/// knows of.
fn own(found: &mut [Record], kept: usize) {
    let mut raws: Vec<_> = found.iter_mut().filter_map(Record::raw_mut).collect();
    let held = raws.iter().map(|raw| raw.len()).sum::<usize>();
    if held * 2 >= kept {
        return;
    }
    let mut bytes = BytesMut::with_capacity(held);
    raws.iter().for_each(|raw| bytes.extend_from_slice(raw));
    let mut bytes = bytes.freeze();
    raws.iter_mut().for_each(|raw| **raw = bytes.split_to(raw.len()));
}

/// Reads `length` bytes at `at`; fewer where the file ends.
pub fn read_at(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length);
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut buffer[filled..], at + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::entry::{Content, Opened, Payload};
    use crate::domain::identity::{LogId, SessionId};
    use crate::domain::verdict::{Flags, Judged, JudgedFrame, RawFrame, Reason, Verdict};
    use crate::spool::state::LogState;
    use crate::spool::writer::LogWriter;

    /// Frames of a thousand trades and, in the last of every twenty, one record that is none.
    fn log(temp: &Path, frames: u32) -> LogWriter {
        let mut log = LogWriter::create(temp, LogId::generate(), LogState::default(), 1 << 30).unwrap();
        let session = SessionId::generate();
        log.stage(&Entry::Opened(Opened { session, shard: "s".into(), symbols: vec![], at: 0 }));
        for number in 1..=frames {
            let trade =
                |at: u32| Judged { range: at * 60..at * 60 + 60, partition: 0, verdict: Verdict::Trade(Flags::default()) };
            let mut elements: Vec<_> = (0..1000).map(trade).collect();
            if number % 20 == 0 {
                let verdict = Verdict::Quarantined { reason: Reason::BadPrice, detail: "-1".into() };
                elements.push(Judged { range: 0..60, partition: 0, verdict });
            }
            let frame = RawFrame { number, received_at: 0, payload: vec![b'x'; 60_000].into(), binary: false };
            let seq = *log.state().sessions[&session].records.first();
            log.stage(&Entry::Frame { session, seq, judged: JudgedFrame { frame, elements, traceparent: None } });
        }
        log.sync().unwrap();
        log
    }

    /// The bytes of the server that a chunk's records hold, and those that stay in memory for them.
    fn held_and_kept(records: Vec<Record>) -> (usize, usize) {
        let mut raws = records.into_iter().filter_map(|record| match record.content {
            Content::Data { payload: Payload::Trade { raw, .. } | Payload::Quarantined { raw, .. }, .. } => Some(raw),
            _ => None,
        });
        let Some(first) = raws.next() else { return (0, 0) };
        let held = first.len() + raws.map(|raw| raw.len()).sum::<usize>();
        (held, Vec::from(first).capacity()) // takes over all that was allocated with it
    }

    #[test]
    fn records_keep_at_most_twice_their_own_bytes_in_memory_however_far_apart_they_stand() {
        let temp = tempfile::tempdir().unwrap();
        let log = log(temp.path(), 200);
        for (stream, count) in [(Stream::Quarantine, 10), (Stream::Trades, 200_000)] {
            let mut reader = LogReader::new(&temp.path().join(log.id().to_string()), stream);
            let (mut from, mut held, mut kept) = (0, 0, 0);
            while let Chunk::Records { records, next } = reader.read(&log.view(), from).unwrap() {
                let chunk = held_and_kept(records);
                (from, held, kept) = (next, held + chunk.0, kept + chunk.1);
            }
            assert_eq!(held, count * 60);
            assert!(kept <= 2 * held, "{stream}: {held} bytes keep {kept}");
        }
    }

    #[test]
    fn a_file_that_has_lost_its_end_is_a_loss_with_a_name() {
        let temp = tempfile::tempdir().unwrap();
        let log = log(temp.path(), 40);
        let (dir, view) = (temp.path().join(log.id().to_string()), log.view());
        let path = segment::path(&dir, 0);
        for len in [view.current.as_ref().unwrap().len - 1000, 2_000_000, 100_000, 0] {
            File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
            let (mut reader, mut from, mut read) = (LogReader::new(&dir, Stream::Trades), 0, 0);
            let to = loop {
                match reader.read(&view, from).unwrap() {
                    Chunk::Records { records, next } => (read, from) = (read + records.len() as u64, next),
                    Chunk::Lost { to } => break to,
                    Chunk::End => panic!("{len}: nothing says what is lost"),
                }
            };
            assert_eq!((read, to), (from, view.end(Stream::Trades)), "{len}");
            assert!(from < to && matches!(reader.read(&view, to).unwrap(), Chunk::End));
        }
    }
}
