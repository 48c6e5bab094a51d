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
use super::segment::{self, ENTRY_HEADER, SegmentView, next_frame};
use crate::domain::entry::{Entry, Record, counts_of, records};
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
    fn segments(&self) -> impl DoubleEndedIterator<Item = &SegmentView> {
        self.closed.iter().chain(&self.current)
    }

    /// The offset of the oldest record that is still there.
    pub fn start(&self, stream: Stream) -> u64 {
        self.segments().next().map_or(0, |segment| segment.base[stream.index()])
    }

    /// The offset behind the newest record.
    pub fn end(&self, stream: Stream) -> u64 {
        self.segments().next_back().map_or(0, |segment| segment.end[stream.index()])
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

/// Reads one stream of one log.
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
        let stream = self.stream.index();
        if from < view.start(self.stream) {
            return Ok(Chunk::Lost { to: view.start(self.stream) });
        }
        let Some(segment) = view.segments().find(|segment| from < segment.end[stream]) else {
            return Ok(Chunk::End);
        };
        if from < segment.base[stream] {
            return Ok(Chunk::Lost { to: segment.base[stream] });
        }
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.segment == segment.number && cursor.offset <= from => cursor,
            _ => Cursor {
                segment: segment.number,
                file: File::open(segment::path(&self.dir, segment.number))?,
                at: segment.body_at,
                offset: segment.base[stream],
            },
        };
        let found = loop {
            if let Some(records) = advance(&mut cursor, segment, self.stream, from)? {
                break Chunk::Records { records, next: cursor.offset };
            }
            // The bytes are damaged: the next mark, or the next segment, says where reading goes on.
            match mark_behind(&cursor, segment)? {
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
    let mut want = READ_BYTES;
    while found.is_empty() && cursor.at < segment.len {
        let bytes = read_at(&cursor.file, cursor.at, want.min((segment.len - cursor.at) as usize))?;
        let mut used = 0;
        while let Some((crc, body)) = next_frame(&bytes[used..]) {
            let (length, counts) = (body.len(), counts_of(body));
            // Of what is passed over the counts must be true too.
            let Some(counts) = counts.ok().filter(|_| crc32c::crc32c(body) == crc) else { return Ok(some_if_any(found)) };
            let count = u64::from(counts[stream.index()]);
            if cursor.offset + count > from && count > 0 {
                let body = bytes.slice(used + ENTRY_HEADER..used + ENTRY_HEADER + length);
                let Ok(entry) = Entry::decode(body) else { return Ok(some_if_any(found)) };
                records(entry, stream, cursor.offset, &mut found);
            }
            cursor.offset += count;
            used += ENTRY_HEADER + length;
            cursor.at += (ENTRY_HEADER + length) as u64;
        }
        if used == 0 {
            if bytes.len() as u64 >= segment.len - (cursor.at) {
                return Ok(some_if_any(found)); // an entry that reaches beyond the valid end
            }
            want *= 2; // an entry longer than one read
        }
    }
    found.retain(|record| record.offset >= from);
    // The segment ends before the record that it should hold: a damaged count.
    Ok(some_if_any(found))
}

fn some_if_any(found: Vec<Record>) -> Option<Vec<Record>> {
    if found.is_empty() { None } else { Some(found) }
}

fn read_at(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
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
