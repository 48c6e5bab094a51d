//! Appends to the log of this life.
//!
//! Entries are staged in memory, then written and fsynced together. What the disk refuses is rolled
//! back whole: the file is cut to its last durable length and the state is that of the last fsync,
//! so the callers may send the same again. That goes into a new segment: of the file that was refused,
//! the kernel may have forgotten pages that it never wrote, and the next fsync would not say so.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fail::fail_point;

use super::mark::{Mark, Place};
use super::reader::LogView;
use super::segment::{self, DrainedBy, Header, LogKind, Scanned, SegmentView, frame_entry, unreadable};
use super::state::LogState;
use crate::domain::entry::{Control, Entry};
use crate::domain::identity::LogId;
use crate::faults::may_write;

/// The open log.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    id: LogId,
    segment_bytes: u64,
    file: File,
    closed: Arc<VecDeque<SegmentView>>,
    current: SegmentView,
    /// With what is staged.
    state: LogState,
    /// Without it.
    durable: LogState,
    /// Its [`LogState::changes`] when the segment last told all of it.
    told: u64,
    staged: Vec<u8>,
    /// Reasons of outages that are over, as their gaps say; asked for after each sync.
    gaps: Vec<String>,
    /// A rollback did not succeed: it comes before anything else.
    dirty: bool,
    /// The next segment comes before anything more: something was refused. If it was the making of that
    /// segment, its file may be there with all that the log says now.
    rotating: bool,
}

/// Makes the folder and fsyncs its parent, so that it is there after a power cut.
pub fn create_dir_durably(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl LogWriter {
    /// Makes a new log in `spool_dir` that this machine's partition writers drain. It goes on with the sessions of the
    /// log before it, by what that says at its end.
    pub fn create(spool_dir: &Path, id: LogId, before: LogState, segment_bytes: u64) -> io::Result<LogWriter> {
        LogWriter::create_of(LogKind::BRONZE, spool_dir, id, before, segment_bytes)
    }

    /// The same, of any kind.
    pub fn create_of(kind: LogKind, spool_dir: &Path, id: LogId, before: LogState, segment_bytes: u64) -> io::Result<LogWriter> {
        let dir = spool_dir.join(id.to_string());
        create_dir_durably(&dir)?;
        let inherited = before.inherit(id, kind.partitions);
        let (file, current) = new_segment(&dir, 0, kind.drained_by, &inherited)?;
        let (durable, told) = (inherited.clone(), inherited.changes);
        let closed = Arc::default();
        Ok(LogWriter {
            dir,
            id,
            segment_bytes,
            file,
            closed,
            current,
            state: inherited,
            durable,
            told,
            staged: Vec::new(),
            gaps: Vec::new(),
            dirty: false,
            rotating: false,
        })
    }

    /// Goes on with a log of [`LogKind::BRONZE`]: see [`LogWriter::reopen_of`].
    pub fn reopen(spool_dir: &Path, id: LogId, segment_bytes: u64) -> io::Result<LogWriter> {
        LogWriter::reopen_of(LogKind::BRONZE, spool_dir, id, segment_bytes)
    }

    /// Goes on with the log of this life after its actor was restarted: reads what is there, makes
    /// sure it is durable, and begins a new segment behind it.
    pub fn reopen_of(kind: LogKind, spool_dir: &Path, id: LogId, segment_bytes: u64) -> io::Result<LogWriter> {
        let dir = spool_dir.join(id.to_string());
        let (closed, state) = scan_log(&dir)?;
        let (number, state) = match closed.back() {
            Some(last) => (last.number + 1, state),
            None => (0, LogState::default().inherit(id, kind.partitions)),
        };
        let (file, current) = new_segment(&dir, number, kind.drained_by, &state)?;
        let (durable, told) = (state.clone(), state.changes);
        let closed = Arc::new(closed);
        Ok(LogWriter {
            dir,
            id,
            segment_bytes,
            file,
            closed,
            current,
            state,
            durable,
            told,
            staged: Vec::new(),
            gaps: Vec::new(),
            dirty: false,
            rotating: false,
        })
    }

    /// The log's id.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// What the log says, staged entries included.
    pub fn state(&self) -> &LogState {
        &self.state
    }

    /// What of it can be read.
    pub fn view(&self) -> LogView {
        LogView { closed: self.closed.clone(), current: Some(self.current.clone()) }
    }

    /// Bytes on disk and staged.
    pub fn bytes(&self) -> u64 {
        self.view().bytes() + self.staged.len() as u64
    }

    /// Adds an entry to the next [`LogWriter::sync`].
    pub fn stage(&mut self, entry: &Entry) {
        frame_entry(entry, &mut self.staged);
        self.state.apply(entry);
        if let Entry::Control { control: Control::Gap(gap), .. } = entry
            && gap.first_received_at.is_some()
        {
            self.gaps.push(gap.reason.clone());
        }
    }

    /// The reasons of the outages whose gaps the last sync made durable. Each is told once.
    pub fn take_gaps(&mut self) -> Vec<String> {
        std::mem::take(&mut self.gaps)
    }

    /// Whether anything is staged.
    pub fn is_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Writes what is staged and makes it durable. Blocks. After an error nothing of it stands, and
    /// the same may be staged again.
    pub fn sync(&mut self) -> io::Result<()> {
        let done = self.try_sync();
        if done.is_err() {
            self.staged.clear();
            self.gaps.clear();
            self.state = self.durable.clone();
            self.dirty = self.cut().is_err();
            self.rotating = true;
        }
        done
    }

    fn try_sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.cut()?;
            self.dirty = false;
        }
        let is_full = self.current.holds_any() && self.current.len + self.staged.len() as u64 > self.segment_bytes;
        if is_full || self.rotating {
            self.rotate()?;
            self.rotating = false;
        }
        fail_point!("spool.before-write");
        may_write("entries")?;
        self.file.write_all_at(&self.staged, self.current.len)?;
        fail_point!("spool.before-fsync");
        may_write("fsync of entries")?;
        self.file.sync_data()?;
        self.is_still_there()?;
        fail_point!("spool.after-fsync");
        self.current.len += self.staged.len() as u64;
        #[cfg(feature = "faults")]
        crate::faults::witness(format_args!("synced {}/{} {}", self.id, self.current.number, self.current.len));
        self.current.end.clone_from(&self.state.next);
        self.durable.clone_from(&self.state);
        self.staged.clear();
        self.mark();
        Ok(())
    }

    /// What is written to a file that somebody has deleted is gone when the process is. Nobody is told that it is
    /// durable, and the next segment tells of what is missing.
    fn is_still_there(&self) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        let path = segment::path(&self.dir, self.current.number);
        let why = format!("{} was deleted while it was written: what it held and Bronze does not have is lost", path.display());
        Err(io::Error::new(io::ErrorKind::NotFound, why))
    }

    /// Says that all up to here is durable. Where the disk does not take it, the next one says so too:
    /// nobody's answer depends on it.
    fn mark(&mut self) {
        let place = Place { log: self.id, segment: self.current.number, at: self.current.len };
        let mark = Mark::new(place, &self.durable, self.told).encode();
        if may_write("mark").is_ok() && self.file.write_all_at(&mark, place.at).is_ok() {
            self.current.len += mark.len() as u64;
            self.told = self.durable.changes;
        }
    }

    /// Takes away what an fsync that was refused may have left.
    fn cut(&self) -> io::Result<()> {
        may_write("cut")?;
        self.file.set_len(self.current.len)
    }

    /// Closes the segment and begins the next one. Its header is the state without what is staged. One that holds
    /// nothing goes: a disk that refuses for hours would fill the folder. But no two files ever have the same number: a reader
    /// that has the first one open would take all that is in the second for damaged.
    fn rotate(&mut self) -> io::Result<()> {
        let (file, next) = new_segment(&self.dir, self.current.number + 1, self.current.drained_by, &self.durable)?;
        fail_point!("spool.rotated");
        self.told = self.durable.changes;
        self.file = file;
        let before = std::mem::replace(&mut self.current, next);
        if before.holds_any() {
            Arc::make_mut(&mut self.closed).push_back(before);
        } else if let Err(error) = remove(&segment::path(&self.dir, before.number)) {
            tracing::debug!(%error, "an empty segment stays: the next start finds nothing in it");
        }
        Ok(())
    }

    /// Deletes the closed segments up to number `last`, of which Bronze has all. After an error those that are left may be
    /// tried again. A reader that still has one open goes on reading its file.
    pub fn delete_to(&mut self, last: u32) -> io::Result<Vec<u32>> {
        let mut deleted = Vec::new();
        while let Some(first) = self.closed.front().filter(|first| first.number <= last) {
            let number = first.number;
            remove(&segment::path(&self.dir, number))?;
            fail_point!("spool.segment-deleted");
            Arc::make_mut(&mut self.closed).pop_front();
            deleted.push(number);
        }
        Ok(deleted)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn new_segment(dir: &Path, number: u32, drained_by: DrainedBy, state: &LogState) -> io::Result<(File, SegmentView)> {
    let log = state.log;
    let header = Header { log, number, drained_by, state: state.clone() }.encode();
    let (unmade, path) = (segment::unmade_path(dir, number), segment::path(dir, number));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unmade)?;
    may_write("header")?;
    file.write_all_at(&header, 0)?;
    fail_point!("spool.new-segment");
    may_write("fsync of header")?;
    file.sync_all()?;
    std::fs::rename(&unmade, path)?;
    may_write("fsync of folder")?;
    sync_dir(dir)?;
    let body_at = header.len() as u64;
    #[cfg(feature = "faults")]
    crate::faults::witness(format_args!("synced {log}/{number} {body_at}"));
    let (base, end) = (state.next.clone(), state.next.clone());
    Ok((file, SegmentView { log, number, drained_by, base, end, body_at, len: body_at }))
}

/// Reads all of a log that nobody writes: what is valid in each segment, and what it says at its
/// end. What was valid but perhaps not yet durable is made durable.
///
/// A segment that is damaged leaves a hole, which the next one's header tells of. Where none comes
/// behind it, nothing would tell of it, and the log cannot be gone on with: that is an error.
///
/// The next one's header also says where a segment ends: what was refused and cut away behind that may
/// be there again after a power failure, and was sent again.
pub fn scan_log(dir: &Path) -> io::Result<(VecDeque<SegmentView>, LogState)> {
    let mut views = VecDeque::<SegmentView>::new();
    let (mut last_state, mut damaged) = (LogState::default(), None);
    for number in segment::numbers(dir)? {
        match segment::scan(dir, number)? {
            Scanned::Unmade => {}
            Scanned::Damaged => damaged = Some(segment::path(dir, number)),
            Scanned::Valid(view, state) => {
                let path = segment::path(dir, number);
                let synced = File::open(&path).and_then(|file| file.sync_data());
                synced.map_err(|error| unreadable(path.display(), &error))?;
                #[cfg(feature = "faults")]
                crate::faults::witness(format_args!(
                    "synced {}/{number} {}",
                    dir.file_name().unwrap_or_default().display(),
                    std::fs::metadata(&path)?.len()
                ));
                if let Some(before) = views.back_mut() {
                    before.end = before.end.map(|chain, end| *view.base.get(chain).unwrap_or(end).min(end));
                }
                (last_state, damaged) = (state, None);
                views.push_back(view);
            }
        }
    }
    match damaged {
        None => Ok((views, last_state)),
        Some(path) => {
            let path = path.display();
            let why = format!(
                "{path} is damaged at its header or in several places, or an earlier tickmint wrote it. Put a copy of the file back, or \
                 let that tickmint drain it; to go on without its records, move it away"
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::reader::{Chunk, LogReader};
    use super::*;
    use crate::domain::entry::{Content, Opened};
    use crate::domain::hour::Hour;
    use crate::domain::identity::SessionId;
    use crate::domain::stream::Stream;
    use crate::domain::verdict::{Flags, Judged, JudgedFrame, RawFrame, Reason, Verdict};

    fn frame(session: SessionId, state: &LogState, number: u32, trades: usize, bad: bool) -> Entry {
        let mut elements: Vec<Judged> = (0..trades)
            .map(|i| Judged { range: i as u32..i as u32 + 1, partition: 0, verdict: Verdict::Trade(Flags::default()) })
            .collect();
        if bad {
            let verdict = Verdict::Quarantined { reason: Reason::BadPrice, detail: "x".into() };
            elements.push(Judged { range: 0..1, partition: 0, verdict });
        }
        let frame = RawFrame { number, received_at: number.into(), payload: Bytes::from_static(b"0123456789"), binary: false };
        let seq = *state.sessions[&session].records.first();
        Entry::Frame { session, seq, judged: JudgedFrame { frame, elements, traceparent: None } }
    }

    fn open(log: &mut LogWriter) -> SessionId {
        let session = SessionId::generate();
        log.stage(&Entry::Opened(Opened { session, shard: "s".into(), symbols: vec![], at: 0 }));
        session
    }

    /// Reads all of a stream: (offset, seq) of each record; panics on a hole.
    fn read_all(dir: &Path, view: &LogView, stream: Stream) -> Vec<(u64, u64)> {
        let (mut reader, mut from, mut all) = (LogReader::new(dir, stream), 0, Vec::new());
        loop {
            match reader.read(view, from).unwrap() {
                Chunk::End => return all,
                Chunk::Lost { to } => panic!("{from}..{to} is lost"),
                Chunk::Records { records, next } => {
                    all.extend(records.into_iter().map(|record| match record.content {
                        Content::Data { seq, .. } => (record.offset, seq),
                        Content::Tick(_) | Content::Opened(_) | Content::Ended(_) | Content::Lost { .. } => {
                            (record.offset, u64::MAX)
                        }
                    }));
                    assert!(next > from);
                    from = next;
                }
            }
        }
    }

    #[test]
    fn each_stream_reads_its_own_records_over_many_segments() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(temp.path(), LogId::generate(), LogState::default(), 600).unwrap();
        let session = open(&mut log);
        for number in 1..=50 {
            let entry = frame(session, log.state(), number, 3, number % 5 == 0);
            log.stage(&entry);
            log.sync().unwrap();
        }
        log.stage(&Entry::Tick { hour: Hour(1) });
        log.sync().unwrap();
        assert!(log.view().closed.len() > 5);
        let dir = temp.path().join(log.id().to_string());
        let mut trades: Vec<_> = (0..150).map(|n| (n, n)).collect();
        trades.push((150, u64::MAX));
        assert_eq!(read_all(&dir, &log.view(), Stream::Trades), trades);
        assert_eq!(read_all(&dir, &log.view(), Stream::Quarantine).len(), 11);
        assert_eq!(read_all(&dir, &log.view(), Stream::Gaps), [(0, u64::MAX), (1, u64::MAX)], "the opening and the turn");
    }

    #[test]
    fn what_is_staged_but_not_synced_is_not_in_the_view() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(temp.path(), LogId::generate(), LogState::default(), 1 << 20).unwrap();
        let session = open(&mut log);
        let entry = frame(session, log.state(), 1, 3, false);
        log.stage(&entry);
        assert_eq!(log.view().end(Stream::Trades), 0);
        log.sync().unwrap();
        assert_eq!(log.view().end(Stream::Trades), 3);
    }

    #[test]
    fn deleted_segments_are_lost_to_a_reader_that_comes_too_late() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(temp.path(), LogId::generate(), LogState::default(), 300).unwrap();
        let session = open(&mut log);
        for number in 1..=20 {
            let entry = frame(session, log.state(), number, 2, false);
            log.stage(&entry);
            log.sync().unwrap();
        }
        let keep = log.view().closed[2].clone();
        assert_eq!(log.delete_to(keep.number - 1).unwrap(), [0, 1]);
        let dir = temp.path().join(log.id().to_string());
        let first = LogReader::new(&dir, Stream::Trades).read(&log.view(), 0).unwrap();
        assert!(matches!(first, Chunk::Lost { to } if to == keep.base[Stream::Trades]), "{first:?}");
    }

    /// A folder in the place of a file is to its reader what a bad sector is: an error of the disk.
    #[test]
    fn a_segment_that_the_disk_does_not_give_is_named_with_the_cure_and_nothing_is_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        let log = three_segments(temp.path());
        let (path, away) = (segment::path(&log.dir, 1), temp.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        std::fs::create_dir(&path).unwrap();
        let (mut reader, from) = (LogReader::new(&log.dir, Stream::Trades), log.view().closed[1].base[Stream::Trades]);
        let scanned = scan_log(&log.dir).unwrap_err().to_string();
        for error in [scanned, reader.read(&log.view(), from).unwrap_err().to_string()] {
            assert!(error.contains("00000001.seg") && error.contains("put a copy of the file back"), "{error}");
        }
        let error = reader.read(&log.view(), from).unwrap_err().to_string();
        assert!(error.contains(&format!("from byte {}", log.view().closed[1].body_at)), "{error}");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&away, &path).unwrap();
        let found = reader.read(&log.view(), from).unwrap();
        assert!(matches!(&found, Chunk::Records { records, .. } if records[0].offset == from), "{found:?}");
    }

    /// The rest of a segment that somebody deletes is a hole with a name, and what comes after it is there.
    #[test]
    fn a_segment_that_is_deleted_under_the_writer_takes_nothing_that_comes_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(temp.path(), LogId::generate(), LogState::default(), 1 << 20).unwrap();
        let session = open(&mut log);
        let append = |log: &mut LogWriter, number| {
            let entry = frame(session, log.state(), number, 2, false);
            log.stage(&entry);
            log.sync()
        };
        append(&mut log, 1).unwrap();
        std::fs::remove_file(segment::path(&log.dir, 0)).unwrap();
        let refused = append(&mut log, 2).unwrap_err();
        assert!(refused.to_string().contains("00000000.seg was deleted while it was written"), "{refused}");
        append(&mut log, 2).unwrap();
        let (views, state) = scan_log(&log.dir).unwrap();
        assert_eq!((views.len(), &state), (1, log.state()), "the session goes on, and its counts are known");
        assert_eq!(
            [&views[0].base, &views[0].end],
            [&[2, 1, 0].into(), &[4, 1, 0].into()],
            "the first two trades are missed by their numbers"
        );
    }

    /// A log of three segments, its last one with entries.
    fn three_segments(temp: &Path) -> LogWriter {
        let mut log = LogWriter::create(temp, LogId::generate(), LogState::default(), 300).unwrap();
        let session = open(&mut log);
        for number in 1.. {
            let entry = frame(session, log.state(), number, 2, false);
            log.stage(&entry);
            log.sync().unwrap();
            if log.current.number == 2 {
                return log;
            }
        }
        unreachable!("it rotates")
    }

    #[test]
    fn a_segment_whose_making_was_cut_short_holds_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let log = three_segments(temp.path());
        let next = segment::path(&log.dir, 3);
        let header = std::fs::read(segment::path(&log.dir, 2)).unwrap()[..log.current.body_at as usize].to_vec();
        let left =
            [vec![], header[..5].to_vec(), header[..60].to_vec(), header[..header.len() - 1].to_vec(), vec![0; header.len()]];
        for left in left {
            std::fs::write(&next, &left).unwrap();
            let (views, state) = scan_log(&log.dir).unwrap();
            assert_eq!((views.len(), &state), (3, log.state()), "{left:?}");
            let reopened = LogWriter::reopen(temp.path(), log.id, 300).unwrap();
            assert_eq!((reopened.current.number, reopened.state()), (3, log.state()));
        }
    }

    /// Of the last segment nothing else tells: neither a reader nor the counts of a session's end.
    #[test]
    fn a_damaged_header_of_the_last_segment_is_an_error_and_of_another_one_a_hole() {
        let temp = tempfile::tempdir().unwrap();
        let log = three_segments(temp.path());
        for number in [2, 1] {
            let path = segment::path(&log.dir, number);
            let whole = std::fs::read(&path).unwrap();
            for at in 0..log.current.body_at as usize {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                std::fs::write(&path, bytes).unwrap();
                let found = scan_log(&log.dir);
                match number {
                    2 => assert!(found.unwrap_err().to_string().contains("00000002.seg is damaged"), "byte {at}"),
                    _ => assert_eq!(found.unwrap().0.iter().map(|view| view.number).collect::<Vec<_>>(), [0, 2], "byte {at}"),
                }
            }
            std::fs::write(&path, whole).unwrap();
        }
        assert_eq!(&scan_log(&log.dir).unwrap().1, log.state(), "the control: nothing is damaged");
    }

    /// A dead log whose last segment tells of sessions and frames, and where the entries begin there.
    fn dead_log(temp: &Path) -> (PathBuf, LogState, u64) {
        let mut log = LogWriter::create(temp, LogId::generate(), LogState::default(), 1 << 20).unwrap();
        for _ in 0..3 {
            let session = open(&mut log);
            for number in 1..=4 {
                let entry = frame(session, log.state(), number, 2, number == 3);
                log.stage(&entry);
                log.sync().unwrap();
            }
        }
        (log.dir.clone(), log.state().clone(), log.current.body_at)
    }

    /// The offsets of a stream that a dead log still holds, and those that it says are lost.
    fn held_and_lost(dir: &Path, stream: Stream) -> io::Result<(Vec<u64>, Vec<u64>)> {
        let view = LogView { closed: Arc::new(scan_log(dir)?.0), current: None };
        let (mut reader, mut from, mut held, mut lost) = (LogReader::new(dir, stream), 0, vec![], vec![]);
        loop {
            match reader.read(&view, from)? {
                Chunk::End => return Ok((held, lost)),
                Chunk::Lost { to } => {
                    lost.extend(from..to);
                    from = to;
                }
                Chunk::Records { records, next } => {
                    held.extend(records.iter().map(|record| record.offset));
                    from = next;
                }
            }
        }
    }

    /// Flips each byte among the entries of the last segment; how many times records went without a
    /// name, and how many records were lost at most.
    fn flip_each(dir: &Path, state: &LogState, body_at: u64) -> (usize, usize) {
        let path = segment::path(dir, 0);
        let whole = std::fs::read(&path).unwrap();
        let (mut nameless, mut most) = (0, 0);
        for at in body_at as usize..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, bytes).unwrap();
            let told = scan_log(dir).unwrap().1 == *state;
            let mut found = true;
            for stream in Stream::ALL {
                let (held, lost) = held_and_lost(dir, stream).unwrap();
                let mut all = [&held[..], &lost].concat();
                all.sort_unstable();
                found &= all == (0..state.next[stream]).collect::<Vec<_>>();
                most = most.max(lost.len());
            }
            nameless += usize::from(!(told && found));
        }
        std::fs::write(&path, whole).unwrap();
        (nameless, most)
    }

    #[test]
    fn a_flipped_byte_in_a_dead_logs_last_segment_costs_its_group_and_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, state, body_at) = dead_log(temp.path());
        assert_eq!(flip_each(&dir, &state, body_at), (0, 2), "a group is two trades, and a damaged mark takes the next one");
    }

    #[test]
    fn a_log_with_an_opening_and_all_that_tells_of_it_damaged_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, state, body_at) = dead_log(temp.path());
        let path = segment::path(&dir, 0);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = Place { log: dir.file_name().unwrap().to_str().unwrap().parse().unwrap(), segment: 0, at: body_at };
        let marks: Vec<_> = Mark::find(&bytes[body_at as usize..], place).map(|mark| mark.at() as usize).collect();
        // The last session's opening stands before the ninth of twelve marks, which alone tells of it again.
        let before = u32::from_le_bytes(bytes[marks[7]..][..4].try_into().unwrap()) as usize;
        bytes[marks[7] + segment::ENTRY_HEADER + before + 20] ^= 1;
        bytes[marks[8] + 40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = scan_log(&dir).unwrap_err().to_string();
        assert!(error.contains("00000000.seg is damaged"), "{error}");
        bytes[marks[8] + 40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(scan_log(&dir).unwrap().1, state, "the control: one of the two tells");
    }

    #[cfg(feature = "faults")]
    mod refusing {
        use std::cell::Cell;
        use std::rc::Rc;

        use super::*;
        use crate::faults::with_disk;

        /// The control of the test above.
        #[test]
        fn without_marks_a_flipped_byte_takes_records_without_a_name() {
            let temp = tempfile::tempdir().unwrap();
            let (dir, state, body_at) = with_disk(|what| what == "mark", || dead_log(temp.path()));
            let (nameless, _) = flip_each(&dir, &state, body_at);
            let entries = segment::path(&dir, 0).metadata().unwrap().len() - body_at;
            assert_eq!(nameless as u64, entries, "each of them");
        }

        /// The disk takes the new segment's header and then does not answer for it.
        #[test]
        fn nothing_comes_before_a_segment_that_could_not_be_made() {
            let temp = tempfile::tempdir().unwrap();
            let mut log = LogWriter::create(temp.path(), LogId::generate(), LogState::default(), 600).unwrap();
            let session = open(&mut log);
            log.sync().unwrap();
            for number in 1..=5 {
                let entry = frame(session, log.state(), number, 5, false); // too long for the rest of the segment
                log.stage(&entry);
            }
            with_disk(|what| what == "fsync of folder", || log.sync().unwrap_err());
            let later = open(&mut log); // short enough
            log.sync().unwrap();
            let (_, state) = scan_log(&log.dir).unwrap();
            assert!(state.sessions.contains_key(&later), "{state:?}");
        }

        /// A log with an fsync that was refused in the middle; the segment of that and all frames behind.
        fn refused_once(temp: &Path) -> (LogWriter, SegmentView, Entry) {
            let mut log = LogWriter::create(temp, LogId::generate(), LogState::default(), 1 << 20).unwrap();
            let session = open(&mut log);
            log.stage(&frame(session, log.state(), 1, 2, false));
            log.sync().unwrap();
            let (before, refused) = (log.current.clone(), frame(session, log.state(), 2, 2, false));
            log.stage(&refused);
            with_disk(|what| what == "fsync of entries", || log.sync().unwrap_err());
            for number in 2..=4 {
                let entry = frame(session, log.state(), number, 2, false);
                log.stage(&entry);
                log.sync().unwrap();
            }
            (log, before, refused)
        }

        /// A kernel that has failed to write pages may drop them, and the next fsync of the file succeeds.
        #[test]
        fn what_the_kernel_forgets_of_a_refused_file_takes_nothing_of_what_was_answered_for() {
            let temp = tempfile::tempdir().unwrap();
            let (log, before, _) = refused_once(temp.path());
            let path = segment::path(&log.dir, before.number);
            let mut bytes = std::fs::read(&path).unwrap();
            let place = Place { log: log.id, segment: before.number, at: 0 };
            let mark = Mark::find(&bytes[..before.len as usize], place).last().unwrap().at() as usize;
            bytes[mark..before.len as usize].fill(0);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(held_and_lost(&log.dir, Stream::Trades).unwrap(), ((0..8).collect(), vec![]));
            assert_eq!(&scan_log(&log.dir).unwrap().1, log.state());
        }

        /// A power failure brings back what was cut away, and its sender has sent it again.
        #[test]
        fn what_was_refused_and_is_there_again_stands_once() {
            let temp = tempfile::tempdir().unwrap();
            let (log, before, refused) = refused_once(temp.path());
            let mut bytes = std::fs::read(segment::path(&log.dir, before.number)).unwrap();
            frame_entry(&refused, &mut bytes);
            std::fs::write(segment::path(&log.dir, before.number), bytes).unwrap();
            assert_eq!(held_and_lost(&log.dir, Stream::Trades).unwrap(), ((0..8).collect(), vec![]));
            assert_eq!(&scan_log(&log.dir).unwrap().1, log.state());
        }

        #[test]
        fn a_disk_that_refuses_for_hours_leaves_no_pile_of_segments() {
            let temp = tempfile::tempdir().unwrap();
            let mut log = LogWriter::create(temp.path(), LogId::generate(), LogState::default(), 1 << 20).unwrap();
            open(&mut log);
            log.sync().unwrap();
            for _ in 0..20 {
                open(&mut log);
                with_disk(|what| what == "fsync of entries", || log.sync().unwrap_err());
            }
            open(&mut log);
            log.sync().unwrap();
            assert_eq!(segment::numbers(&log.dir).unwrap(), [0, 20]);
            assert_eq!(&scan_log(&log.dir).unwrap().1, log.state());
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(100))]

            /// Whatever the disk refuses, and whenever the writer dies of it: what it answered for is
            /// there, and nothing stands twice.
            #[test]
            fn what_was_answered_for_is_there(steps in prop::collection::vec((0u8..10, 1usize..8, prop::collection::vec(any::<prop::sample::Index>(), 0..2)), 1..40)) {
                let temp = tempfile::tempdir().unwrap();
                let id = LogId::generate();
                let mut log = LogWriter::create(temp.path(), id, LogState::default(), 600).unwrap();
                let mut session = open(&mut log);
                log.sync().unwrap();
                let (mut number, mut promised) = (0, log.state().clone());
                for (kind, trades, refused) in steps {
                    match kind {
                        0 => log = match with_disk(refuse(&refused), || LogWriter::reopen(temp.path(), id, 600)) {
                            Ok(log) => log,
                            Err(_) => LogWriter::reopen(temp.path(), id, 600).unwrap(),
                        },
                        1 => session = open(&mut log),
                        _ if log.state().sessions.contains_key(&session) => {
                            number += 1;
                            let entry = frame(session, log.state(), number, trades, kind == 2);
                            log.stage(&entry);
                        }
                        _ => session = open(&mut log),
                    }
                    if with_disk(refuse(&refused), || log.sync()).is_ok() {
                        promised = log.state().clone();
                    }
                    let (views, found) = scan_log(&log.dir).unwrap();
                    let view = LogView { closed: Arc::new(views), current: None };
                    for stream in Stream::ALL {
                        prop_assert!(found.next[stream] >= promised.next[stream]);
                        let read = read_all(&log.dir, &view, stream);
                        prop_assert_eq!(read.len() as u64, found.next[stream]);
                    }
                    for session in promised.sessions.keys() {
                        prop_assert!(found.shards.values().any(|last| last >= session), "{session:?} is forgotten");
                    }
                }
            }
        }

        /// Refuses the things that a disk is asked for with these numbers.
        fn refuse(at: &[prop::sample::Index]) -> impl FnMut(&'static str) -> bool + use<> {
            let (at, asked) = (at.iter().map(|at| at.index(7)).collect::<Vec<_>>(), Rc::new(Cell::new(0)));
            move |_| at.contains(&asked.replace(asked.get() + 1))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// What was durable is read back whatever a crash leaves behind it: a torn tail, garbage.
        #[test]
        fn after_a_crash_all_that_was_durable_is_there(frames in 1u32..30, durable in 0u32..30, garbage in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let temp = tempfile::tempdir().unwrap();
            let id = LogId::generate();
            let mut log = LogWriter::create(temp.path(), id, LogState::default(), 500).unwrap();
            let session = open(&mut log);
            log.sync().unwrap();
            for number in 1..=durable.min(frames) {
                let entry = frame(session, log.state(), number, 2, false);
                log.stage(&entry);
                log.sync().unwrap();
            }
            let (promised, state) = (log.view(), log.state().clone());
            // Not acknowledged: a part of it may be on disk, or something else altogether.
            let mut torn = Vec::new();
            frame_entry(&frame(session, log.state(), frames + 1, 2, false), &mut torn);
            torn.truncate(cut.index(torn.len()));
            torn.extend(garbage);
            let current = promised.current.clone().unwrap();
            log.file.write_all_at(&torn, current.len).unwrap();
            drop(log);

            let reopened = LogWriter::reopen(temp.path(), id, 500).unwrap();
            let dir = temp.path().join(id.to_string());
            let found = read_all(&dir, &reopened.view(), Stream::Trades);
            prop_assert!(found.len() as u64 >= promised.end(Stream::Trades));
            prop_assert_eq!(&found[..], &(0..found.len() as u64).map(|n| (n, n)).collect::<Vec<_>>()[..]);
            if found.len() as u64 == promised.end(Stream::Trades) {
                prop_assert_eq!(reopened.state(), &state);
            }
        }

        /// A flipped byte in the middle costs records, and the reader says which; it never invents
        /// any and never panics.
        #[test]
        fn a_flipped_byte_is_found_and_named(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let temp = tempfile::tempdir().unwrap();
            let id = LogId::generate();
            let mut log = LogWriter::create(temp.path(), id, LogState::default(), 400).unwrap();
            let session = open(&mut log);
            for number in 1..=20 {
                let entry = frame(session, log.state(), number, 2, false);
                log.stage(&entry);
                log.sync().unwrap();
            }
            let dir = temp.path().join(id.to_string());
            let file = segment::path(&dir, log.view().closed[3].number);
            let mut bytes = std::fs::read(&file).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            std::fs::write(&file, bytes).unwrap();

            let view = log.view();
            let (mut reader, mut from, mut read, mut lost) = (LogReader::new(&dir, Stream::Trades), 0, 0, 0);
            loop {
                match reader.read(&view, from).unwrap() {
                    Chunk::End => break,
                    Chunk::Lost { to } => { prop_assert!(to > from); lost += to - from; from = to; }
                    Chunk::Records { records, next } => {
                        for record in &records {
                            let same = matches!(record.content, Content::Data { seq, .. } if seq == record.offset);
                            prop_assert!(same, "{:?}", record);
                        }
                        read += records.len() as u64;
                        prop_assert!(next > from || records.is_empty());
                        from = next;
                    }
                }
            }
            prop_assert_eq!(read + lost, 40);
        }
    }
}
