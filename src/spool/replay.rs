//! Reads all records of a log of the spool, of every chain, in the order in which they were made durable.
//!
//! Places and sequence numbers by partition do not stand in the entries: they are counted on from the state that each
//! segment's header holds. What the disk has damaged is told as lost, by chain.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::mark::{Mark, Place};
use super::reader::{LogView, read_at};
use super::segment::{self, SegmentView, Whole, next_whole};
use super::state::LogState;
use crate::domain::chain::ChainId;
use crate::domain::entry::{Content, Control, Entry, Payload, Record};
use crate::domain::identity::{Delivery, LogId, Origin};
use crate::domain::per_chain::PerChain;
use crate::domain::stream::Stream;
use crate::domain::verdict::{JudgedFrame, Verdict};

/// How much is read at once: a few thousand records.
const READ_BYTES: usize = 1 << 20;

/// A record with the chain that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The chain.
    pub chain: ChainId,
    /// The shard that it came over: the key of what has no symbol. None of a tick.
    pub shard: Option<Arc<str>>,
    /// The record. Its offset is its place: it has none in Kafka yet.
    pub record: Record,
}

/// What comes next in a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Records, of which each chain's are in order; perhaps none.
    Records(Vec<Outgoing>),
    /// Places of chains that the disk has lost, by the first and the last.
    Lost(Vec<(ChainId, u64, u64)>),
    /// Nothing (yet).
    End,
}

/// A place in the log from which reading goes on.
struct Cursor {
    segment: u32,
    file: File,
    at: u64,
    /// What the log says there.
    state: LogState,
}

/// Reads one log, and parts of it again.
pub struct Replay {
    dir: PathBuf,
    log: LogId,
    cursor: Option<Cursor>,
    /// The number of the segment to begin with, where there is no cursor.
    begin: u32,
    /// How many places of each chain the entry at hand has taken so far; zeros between entries.
    taken: PerChain<u64>,
}

impl Replay {
    /// Reads the log whose folder is `dir` from its first segment.
    pub fn new(dir: PathBuf, log: LogId) -> Replay {
        Replay { dir, log, cursor: None, begin: 0, taken: PerChain::default() }
    }

    /// Goes back to the beginning of a segment.
    pub fn rewind(&mut self, segment: u32) {
        (self.cursor, self.begin) = (None, segment);
    }

    /// The segment that is read, or would be.
    pub fn segment(&self) -> u32 {
        self.cursor.as_ref().map_or(self.begin, |cursor| cursor.segment)
    }

    /// Reads on. Blocks on the disk. After an error the same is tried again by the next call.
    pub fn next(&mut self, view: &LogView) -> io::Result<Piece> {
        let Some(cursor) = &mut self.cursor else {
            let Some(first) = view.segments().find(|segment| segment.number >= self.begin) else { return Ok(Piece::End) };
            self.cursor = Some(open(&self.dir, first)?);
            return Ok(Piece::Records(Vec::new()));
        };
        let of = cursor.segment;
        let Some(segment) = view.segments().find(|segment| segment.number >= of) else { return Ok(Piece::End) };
        if segment.number == of && cursor.at < segment.len {
            return self.advance(segment);
        }
        let next = if segment.number == of { view.segments().find(|segment| segment.number > of) } else { Some(segment) };
        let Some(next) = next else { return Ok(Piece::End) };
        // What a segment in between held and nobody needs any more was deleted; what one of them lost is lost.
        let opened = open(&self.dir, next)?;
        let lost = if segment.number == of { lost_between(&cursor.state.next, &next.base) } else { Vec::new() };
        self.cursor = Some(opened);
        Ok(if lost.is_empty() { Piece::Records(Vec::new()) } else { Piece::Lost(lost) })
    }

    /// Reads on in the segment of the cursor.
    fn advance(&mut self, segment: &SegmentView) -> io::Result<Piece> {
        let Some(cursor) = &mut self.cursor else { return Ok(Piece::End) };
        let (mut want, rest) = (READ_BYTES, (segment.len - cursor.at) as usize);
        loop {
            let path = segment::path(&self.dir, cursor.segment);
            let read = read_at(&cursor.file, cursor.at, want.min(rest));
            let bytes = read.map_err(|error| segment::unreadable(path.display(), &error))?;
            let mut records = Vec::new();
            let mut used = 0;
            while let Some(Whole { decoded, end }) = next_whole(&bytes, used) {
                if let Some(entry) = decoded {
                    let is_told = scatter(self.log, &entry, &cursor.state, &mut self.taken, &mut records);
                    let lost = if is_told { Vec::new() } else { places(&entry, &cursor.state) };
                    if !lost.is_empty() {
                        if used > 0 {
                            break; // what is read so far comes first
                        }
                        cursor.state.apply(&entry);
                        cursor.at += end as u64;
                        return Ok(Piece::Lost(lost));
                    }
                    cursor.state.apply(&entry);
                }
                used = end;
            }
            cursor.at += used as u64;
            if used > 0 {
                // What was refused and cut away behind the segment's end may be there again: it was sent again.
                records.retain(|out: &Outgoing| out.record.origin.place < segment.end[out.chain]);
                return Ok(Piece::Records(records));
            }
            if bytes.len() == want && want < rest {
                want *= 2; // an entry longer than one read
                continue;
            }
            return Ok(Piece::Lost(pass_damage(cursor, segment)?));
        }
    }
}

/// Goes on behind damaged bytes, at the next mark or at the segment's end; what they took.
fn pass_damage(cursor: &mut Cursor, segment: &SegmentView) -> io::Result<Vec<(ChainId, u64, u64)>> {
    let before = cursor.state.next.clone();
    let from = (cursor.at + 1).min(segment.len);
    let bytes = read_at(&cursor.file, from, (segment.len - from) as usize)?;
    let place = Place { log: segment.log, segment: segment.number, at: from };
    match Mark::find(&bytes, place).find(|mark| mark.tell(&mut cursor.state)) {
        Some(mark) => cursor.at = mark.at(),
        None => {
            cursor.at = segment.len;
            cursor.state.next.clone_from(&segment.end);
        }
    }
    Ok(lost_between(&before, &cursor.state.next))
}

fn lost_between(from: &PerChain<u64>, to: &PerChain<u64>) -> Vec<(ChainId, u64, u64)> {
    let lost = to.iter().filter_map(|(chain, to)| {
        let from = from.get(chain).copied().unwrap_or_default();
        (from < *to).then(|| (chain, from, to - 1))
    });
    lost.collect()
}

fn open(dir: &std::path::Path, segment: &SegmentView) -> io::Result<Cursor> {
    let path = segment::path(dir, segment.number);
    let (file, header) = segment::read_head(&path)?;
    Ok(Cursor { segment: segment.number, file, at: segment.body_at, state: header.state })
}

/// The places that an entry takes, as ranges of one.
fn places(entry: &Entry, state: &LogState) -> Vec<(ChainId, u64, u64)> {
    let mut next = state.next.clone();
    let mut all = Vec::new();
    entry.each_place(state.partitions(), |chain| {
        all.push((chain, next[chain], next[chain]));
        next[chain] += 1;
    });
    all
}

/// Takes the records of all chains out of an entry, by what the log says before it; `false` if that does not know the
/// session, since damage has taken its opening: then nobody can tell its numbers.
fn scatter(log: LogId, entry: &Entry, state: &LogState, taken: &mut PerChain<u64>, out: &mut Vec<Outgoing>) -> bool {
    let mut push = |chain: ChainId, place: u64, shard: Option<&Arc<str>>, received_at, traceparent, content| {
        let record = Record { offset: place, origin: Origin { log, place }, received_at, traceparent, content };
        out.push(Outgoing { chain, shard: shard.cloned(), record });
    };
    match entry {
        Entry::Tick { hour } => entry.each_place(state.partitions(), |chain| {
            push(chain, state.next[chain], None, hour.begins(), None, Content::Tick(*hour));
        }),
        Entry::Opened(opened) => {
            let (chain, shard) = (state.gaps_of(&opened.shard), Arc::from(opened.shard.as_str()));
            push(chain, state.next[chain], Some(&shard), opened.at, None, Content::Opened(opened.session));
        }
        Entry::Control { delivery, seq, at, control } => {
            let shard = Arc::from(control.shard());
            entry.each_place(state.partitions(), |chain| {
                let content = match (chain.stream, control) {
                    (Stream::Gaps, control) => {
                        Content::Data { delivery: *delivery, seq: *seq, payload: Payload::Control(Box::new(control.clone())) }
                    }
                    (_, Control::SessionEnd(_) | Control::Gap(_)) => Content::Ended(delivery.session),
                };
                push(chain, state.next[chain], Some(&shard), *at, None, content);
            });
        }
        Entry::Frame { session, judged, .. } => {
            let Some(known) = state.sessions.get(session) else { return judged.elements.is_empty() };
            taken.widen(state.partitions());
            let JudgedFrame { frame, elements, traceparent } = judged;
            let shard: Arc<str> = Arc::from(known.shard.as_str());
            for (index, element) in elements.iter().enumerate() {
                let chain =
                    ChainId { stream: element.verdict.stream(), partition: u32::from(element.partition) % state.partitions() };
                let raw = frame.payload.slice(element.range.start as usize..element.range.end as usize);
                let payload = match &element.verdict {
                    Verdict::Trade(flags) => Payload::Trade { raw, flags: *flags },
                    Verdict::Quarantined { reason, detail } => {
                        Payload::Quarantined { raw, reason: *reason, detail: detail.clone() }
                    }
                };
                let delivery = Delivery { session: *session, frame: frame.number, index: index as u16 };
                let (place, seq) = (state.next[chain] + taken[chain], known.records[chain] + taken[chain]);
                taken[chain] += 1;
                let content = Content::Data { delivery, seq, payload };
                push(chain, place, Some(&shard), frame.received_at, traceparent.clone(), content);
            }
            entry.each_place(state.partitions(), |chain| taken[chain] = 0);
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::entry::Opened;
    use crate::domain::hour::Hour;
    use crate::domain::identity::SessionId;
    use crate::domain::verdict::{Flags, Judged, RawFrame, Reason};
    use crate::spool::segment::{DrainedBy, LogKind};
    use crate::spool::writer::LogWriter;

    const PARTITIONS: u32 = 3;

    pub(crate) fn log(dir: &Path, segment_bytes: u64) -> LogWriter {
        let kind = LogKind { drained_by: DrainedBy::Kafka, partitions: PARTITIONS };
        LogWriter::create_of(kind, dir, LogId::generate(), LogState::default(), segment_bytes).unwrap()
    }

    /// A session with so many frames of three trades in different partitions, and one record that is none.
    pub(crate) fn fill(log: &mut LogWriter, frames: u32) -> SessionId {
        let session = SessionId::generate();
        log.stage(&Entry::Opened(Opened { session, shard: "s".into(), symbols: vec![], at: 0 }));
        for number in 1..=frames {
            let trade = |n: u32| Judged {
                range: n..n + 1,
                partition: (n + number) as u16 % 3,
                verdict: Verdict::Trade(Flags::default()),
            };
            let mut elements: Vec<_> = (0..3).map(trade).collect();
            let verdict = Verdict::Quarantined { reason: Reason::BadPrice, detail: "x".into() };
            elements.push(Judged { range: 0..1, partition: 1, verdict });
            let frame = RawFrame { number, received_at: 7, payload: bytes::Bytes::from_static(b"0123456789"), binary: false };
            log.stage(&Entry::Frame { session, seq: [0; 3], judged: JudgedFrame { frame, elements, traceparent: None } });
            log.sync().unwrap();
        }
        log.stage(&Entry::Tick { hour: Hour(9) });
        let end = log.state().end_of(session, frames, 9, "x").unwrap();
        log.stage(&end);
        log.sync().unwrap();
        session
    }

    /// Overwrites all entries of a segment in the spool `dir`.
    pub(crate) fn ruin(dir: &Path, segment: &SegmentView) {
        let path = segment::path(&dir.join(segment.log.to_string()), segment.number);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[segment.body_at as usize..].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
    }

    /// All that is left of a log: records, and what is lost.
    fn read_all(replay: &mut Replay, view: &LogView) -> (Vec<Outgoing>, Vec<(ChainId, u64, u64)>) {
        let (mut all, mut gone) = (Vec::new(), Vec::new());
        loop {
            match replay.next(view).unwrap() {
                Piece::Records(records) => all.extend(records),
                Piece::Lost(lost) => gone.extend(lost),
                Piece::End => return (all, gone),
            }
        }
    }

    /// A full disk takes headers and no entries, so an empty segment follows upon another. Whoever has the first one open must not
    /// take what the last one holds for damaged, and tell it as lost.
    #[cfg(feature = "faults")]
    #[test]
    fn who_has_a_segment_open_that_stays_empty_reads_on_in_the_one_that_takes_its_place() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 1 << 20);
        fill(&mut log, 2);
        let mut replay = Replay::new(temp.path().join(log.id().to_string()), log.id());
        let before = read_all(&mut replay, &log.view()).0.len();
        for _ in 0..3 {
            log.stage(&Entry::Tick { hour: Hour(10) });
            let is_full = |what: &str| what == "entries";
            assert!(crate::faults::with_disk(is_full, || log.sync()).is_err());
            assert_eq!(read_all(&mut replay, &log.view()), (vec![], vec![]));
        }
        fill(&mut log, 2);
        let (records, lost) = read_all(&mut replay, &log.view());
        assert_eq!((records.len(), lost), (before, vec![]));
    }

    /// Of each chain the places that are there, in the order in which they came.
    fn places_of(all: &[Outgoing]) -> PerChain<Vec<u64>> {
        let mut places = PerChain::<Vec<u64>>::of(PARTITIONS);
        all.iter().for_each(|out| places[out.chain].push(out.record.origin.place));
        places
    }

    #[test]
    fn places_and_numbers_are_dense_in_each_chain_over_all_segments() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 400);
        let session = fill(&mut log, 40);
        let view = log.view();
        assert!(view.closed.len() > 5, "one segment proves nothing");
        let mut replay = Replay::new(temp.path().join(log.id().to_string()), log.id());
        let (all, lost) = read_all(&mut replay, &view);
        assert_eq!(lost, []);
        let places = places_of(&all);
        for (chain, places) in places.iter() {
            assert_eq!(*places, (0..view.end(chain)).collect::<Vec<_>>(), "{chain}");
        }
        let mut seqs = PerChain::<Vec<u64>>::of(PARTITIONS);
        let mut ends = Vec::new();
        for out in &all {
            assert_eq!(out.record.origin.log, log.id());
            if let Content::Data { delivery, seq, payload } = &out.record.content {
                assert_eq!(delivery.session, session);
                seqs[out.chain].push(*seq);
                if let Payload::Control(control) = payload
                    && let Control::SessionEnd(end) = &**control
                {
                    ends.push(end.clone());
                }
            }
        }
        let [end] = &ends[..] else { panic!("{ends:?}") };
        for (chain, seqs) in seqs.iter() {
            assert_eq!(*seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "{chain}");
            let of_end = u64::from(chain == log.state().gaps_of("s"));
            assert_eq!(end.records_of(chain) + of_end, seqs.len() as u64, "{chain}: the end says how many there were");
        }
        assert_eq!(end.records, [120, 0, 40]);
        let opened = all.iter().find(|out| matches!(out.record.content, Content::Opened(_))).unwrap();
        assert_eq!(end.opened, Some(opened.record.origin));

        // Read again from the middle: the same from there on.
        let middle = view.closed[view.closed.len() / 2].clone();
        replay.rewind(middle.number);
        let (again, _) = read_all(&mut replay, &view);
        let from = |out: &&Outgoing| out.record.origin.place >= middle.base[out.chain];
        assert_eq!(again, all.iter().filter(from).cloned().collect::<Vec<_>>());
    }

    #[test]
    fn a_living_log_is_read_on_as_it_grows() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 1 << 20);
        let mut replay = Replay::new(temp.path().join(log.id().to_string()), log.id());
        let mut all = Vec::new();
        for _ in 0..5 {
            fill(&mut log, 3);
            all.extend(read_all(&mut replay, &log.view()).0);
        }
        for (chain, places) in places_of(&all).iter() {
            assert_eq!(*places, (0..log.view().end(chain)).collect::<Vec<_>>(), "{chain}");
        }
    }

    /// Every byte of a segment in the middle, one after the other.
    #[test]
    fn whichever_byte_is_damaged_each_place_is_read_or_told_as_lost_and_all_others_are_as_they_were() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 1200);
        fill(&mut log, 40);
        let (dir, id) = (temp.path().join(log.id().to_string()), log.id());
        let view = log.view();
        let (whole, _) = read_all(&mut Replay::new(dir.clone(), id), &view);
        let middle = &view.closed[1];
        let path = segment::path(&dir, middle.number);
        let good = std::fs::read(&path).unwrap();
        let mut damaged = 0;
        for at in (middle.body_at as usize..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            let (all, lost) = read_all(&mut Replay::new(dir.clone(), id), &view);
            damaged += usize::from(!lost.is_empty());
            let is_lost = |out: &&Outgoing| {
                lost.iter().any(|(chain, from, to)| *chain == out.chain && (*from..=*to).contains(&out.record.origin.place))
            };
            assert_eq!(all, whole.iter().filter(|out| !is_lost(out)).cloned().collect::<Vec<_>>(), "byte {at}");
        }
        assert!(damaged > 20, "{damaged}: nothing was damaged");
    }
}
