//! A segment file: a header with all that a reader must know, then entries.
//!
//! `TICKLOG3 | u32 length | u32 crc32c | header (JSON)` and then `u32 length | u32 crc32c | bytes` for
//! each entry and each [`Mark`], little-endian. A segment appears with its whole header, under another
//! name before. After a crash it may end in the middle of an entry, or hold anything behind the last
//! fsync: reading stops at the first entry that is not whole, unless a mark stands behind it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::mark::{Mark, Place, is_mark};
use super::state::LogState;
use crate::domain::entry::Entry;
use crate::domain::identity::LogId;
use crate::domain::per_chain::PerChain;

const MAGIC: &[u8; 8] = b"TICKLOG3";

/// No header is longer: a damaged length must not ask for more memory.
const MAX_HEADER: u32 = 64 << 20;

/// Bytes before an entry: its length and its checksum.
pub const ENTRY_HEADER: usize = 8;

/// By whom a log is drained, for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainedBy {
    /// The partition writers of this machine: the spool is the log.
    #[default]
    Bronze,
    /// The forwarder: Kafka is the log.
    Kafka,
}

/// What kind of log one is, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogKind {
    /// See [`DrainedBy`].
    pub drained_by: DrainedBy,
    /// How many partitions each of its streams has: one where the spool is the log.
    pub partitions: u32,
}

impl LogKind {
    /// One that partition writers of this machine drain.
    pub const BRONZE: LogKind = LogKind { drained_by: DrainedBy::Bronze, partitions: 1 };
}

/// The head of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The log it belongs to.
    pub log: LogId,
    /// Its place in the log, from 0.
    pub number: u32,
    /// See [`DrainedBy`].
    pub drained_by: DrainedBy,
    /// What the log says up to here.
    pub state: LogState,
}

/// The file of a segment.
pub fn path(log_dir: &Path, number: u32) -> PathBuf {
    log_dir.join(format!("{number:08}.seg"))
}

/// The file of a segment that has no durable header yet.
pub fn unmade_path(log_dir: &Path, number: u32) -> PathBuf {
    log_dir.join(format!("{number:08}.new"))
}

/// The numbers of a log's segments, in order.
pub fn numbers(log_dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(log_dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")).and_then(|stem| stem.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Header {
    /// Its bytes in the file.
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a header has only string keys");
        let mut bytes = MAGIC.to_vec();
        frame(&json, &mut bytes);
        bytes
    }
}

/// Appends `length | crc32c | body` to `out`.
pub fn frame(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out.extend_from_slice(body);
}

/// Encodes an entry at the end of `out`, framed.
pub fn frame_entry(entry: &Entry, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; ENTRY_HEADER]);
    entry.encode(out);
    let body = &out[at + ENTRY_HEADER..];
    let (length, crc) = (body.len() as u32, crc32c::crc32c(body));
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Splits off the next framed body of `bytes`, or `None` where no whole one stands. Its checksum is
/// not looked at.
pub fn next_frame(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let body = bytes.get(ENTRY_HEADER..ENTRY_HEADER.checked_add(length)?)?;
    Some((crc, body))
}

/// What a segment holds that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// The log it belongs to.
    pub log: LogId,
    /// Its place in the log.
    pub number: u32,
    /// By whom the log is drained.
    pub drained_by: DrainedBy,
    /// The place of its first record, by chain.
    pub base: PerChain<u64>,
    /// The place behind its last record, by chain.
    pub end: PerChain<u64>,
    /// Where its first entry stands.
    pub body_at: u64,
    /// Up to where it is valid and durable.
    pub len: u64,
}

impl SegmentView {
    /// Whether it holds anything but its header.
    pub fn holds_any(&self) -> bool {
        self.len > self.body_at
    }
}

/// What stands in a segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// What is valid in it, and what the log says at its end.
    Valid(SegmentView, LogState),
    /// The process died while it made the segment: nothing was ever appended to it.
    Unmade,
    /// The disk has damaged what was durable, and nobody knows what the log says at its end: the header
    /// cannot be read though more than a header stands there, or the entries are damaged at two places.
    Damaged,
}

/// What the disk says of a file, with its name and the cure.
pub fn unreadable(file: impl Display, error: &io::Error) -> io::Error {
    let why = format!(
        "{file} cannot be read ({error}). Mend the disk, or put a copy of the file back; to go on without its records, stop \
         tickmint and move it away"
    );
    io::Error::new(error.kind(), why)
}

/// The header at the beginning of `bytes` and its length, if it is whole.
fn read_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let (crc, json) = next_frame(bytes.strip_prefix(MAGIC)?)?;
    let header = (crc32c::crc32c(json) == crc).then(|| serde_json::from_slice(json).ok()).flatten()?;
    Some((header, MAGIC.len() + ENTRY_HEADER + json.len()))
}

/// Opens a segment and reads its header.
pub fn read_head(path: &Path) -> io::Result<(File, Header)> {
    let of = |error| unreadable(path.display(), &error);
    let mut file = File::open(path).map_err(of)?;
    let mut head = vec![0; MAGIC.len() + ENTRY_HEADER];
    file.read_exact(&mut head).map_err(of)?;
    let length = head.as_chunks::<4>().0[MAGIC.len() / 4];
    head.resize(head.len() + u32::from_le_bytes(length).min(MAX_HEADER) as usize, 0);
    file.read_exact(&mut head[MAGIC.len() + ENTRY_HEADER..]).map_err(of)?;
    let header = read_header(&head).map(|(header, _)| header);
    header.map(|header| (file, header)).ok_or_else(|| of(io::Error::new(io::ErrorKind::InvalidData, "its header is damaged")))
}

/// Whether a file without a readable header is one whose creation was cut short: it ends before its
/// header does. Its length alone does not say so, since that may be what is damaged. Blocks that never
/// reached the disk read as zeros.
fn is_unmade(bytes: &[u8]) -> bool {
    let (magic, rest) = bytes.split_at(bytes.len().min(MAGIC.len()));
    let json = rest.get(ENTRY_HEADER..).unwrap_or_default();
    let ends_within = match serde_json::Deserializer::from_slice(json).into_iter::<Header>().next() {
        Some(Err(error)) => error.is_eof(),
        Some(Ok(_)) => false,
        None => true,
    };
    MAGIC.starts_with(magic) && ends_within || bytes.iter().all(|byte| *byte == 0)
}

/// Reads a whole segment after a crash.
pub fn scan(log_dir: &Path, number: u32) -> io::Result<Scanned> {
    let path = path(log_dir, number);
    let bytes = Bytes::from(std::fs::read(&path).map_err(|error| unreadable(path.display(), &error))?);
    let (header, body_at) = match read_header(&bytes) {
        Some((header, body_at)) if header.number == number => (header, body_at),
        None if is_unmade(&bytes) => return Ok(Scanned::Unmade),
        Some(_) | None => return Ok(Scanned::Damaged),
    };
    let (log, mut state, mut at) = (header.log, header.state.clone(), body_at);
    loop {
        if let Some(entry) = next_whole(&bytes, at) {
            if let Some(entry) = entry.decoded {
                state.apply(&entry);
            }
            at = entry.end;
        } else {
            // Damage, if a mark stands behind it; else the torn tail.
            let from = (at + 1).min(bytes.len());
            let place = Place { log, segment: number, at: from as u64 };
            let mut marks = Mark::find(&bytes[from..], place).peekable();
            if marks.peek().is_none() {
                break;
            }
            let Some(mark) = marks.find(|mark| mark.tell(&mut state)) else { return Ok(Scanned::Damaged) };
            at = mark.at() as usize;
        }
    }
    let (body_at, len) = (body_at as u64, at as u64);
    let (drained_by, base, end) = (header.drained_by, header.state.next, state.next.clone());
    let view = SegmentView { log, number, drained_by, base, end, body_at, len };
    Ok(Scanned::Valid(view, state))
}

/// A whole frame of a file.
pub struct Whole {
    /// The entry, if it is not a mark.
    pub decoded: Option<Entry>,
    /// Where the next one begins.
    pub end: usize,
}

/// The entry or mark that stands at `at`, if it is whole and undamaged.
pub fn next_whole(bytes: &Bytes, at: usize) -> Option<Whole> {
    let (crc, body) = next_frame(&bytes[at..])?;
    let end = at + ENTRY_HEADER + body.len();
    if crc32c::crc32c(body) != crc {
        return None;
    }
    let decoded = if is_mark(body) { None } else { Some(Entry::decode(bytes.slice(at + ENTRY_HEADER..end)).ok()?) };
    Some(Whole { decoded, end })
}
