//! What of the logs may be deleted: only what the chains have read in this very log, or have been told is lost in it
//! and cannot be read here either. A damaged byte must not keep what is around it for ever; but what one copy of a
//! log has lost, another may hold still, and it fills the hole (ADR 6).
//!
//! The tail of a chain alone says nothing: a new log begins at offset 0 again (model: "the spool
//! deletes by the tail" loses records), and a chain may have gone over to another machine's log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::contents::{self, Item};
use super::logs::Logs;
use super::reader::LogView;
use super::segment::{DrainedBy, SegmentView};
use crate::domain::archived::{Archived, Chains};
use crate::domain::chain::ChainId;
use crate::domain::identity::LogId;
use crate::domain::intervals::Intervals;
use crate::domain::per_chain::PerChain;
use crate::domain::stream::Stream;
use crate::faults::{Flaw, flawed};

/// What could be read of a segment keeps it for so long; the disk may lose more of it. What could not is not remembered: a good
/// copy may be put in its place before it goes.
const BELIEVE: Duration = Duration::from_secs(60);

/// Decides what may go of the logs of a machine.
pub struct Deletion {
    logs: Logs,
    /// Who drains a log that has no segment to say so.
    drained_by: DrainedBy,
    /// What can be read of segments that stay for it, and when that was found.
    readable: BTreeMap<(LogId, u32), (Instant, PerChain<Intervals>)>,
}

impl Deletion {
    /// Of these logs; `drained_by` is who drains one that has no segment to say so.
    pub fn new(logs: Logs, drained_by: DrainedBy) -> Deletion {
        Deletion { logs, drained_by, readable: BTreeMap::new() }
    }

    /// Deletes the dead logs that may go. Blocks. After an error with one of them, the others all the same.
    pub fn delete_dead(&mut self, archived: &Chains) -> io::Result<()> {
        let mut result = Ok(());
        for (log, view) in self.logs.dead() {
            let drained_by = view.kind().map_or(self.drained_by, |kind| kind.drained_by);
            let deleted = match self.dead_may_go(log, &view, drained_by, archived) {
                Ok(false) => continue,
                Ok(true) => self.logs.delete(log),
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) => tracing::info!(%log, "a drained log is deleted"),
                Err(error) => result = Err(error),
            }
        }
        self.readable.retain(|_, (found, _)| found.elapsed() < BELIEVE);
        result
    }

    /// The last segment of the living log up to which all may go, if any may; and why it is not known of the next one.
    pub fn last_done(&mut self, archived: &Chains) -> (Option<u32>, io::Result<()>) {
        let view = self.logs.view(self.logs.live()).unwrap_or_default();
        let mut last = None;
        for segment in view.closed.iter() {
            match self.may_go(segment, archived) {
                Ok(true) => last = Some(segment.number),
                Ok(false) => break,
                Err(error) => return (last, Err(error)),
            }
        }
        (last, Ok(()))
    }

    /// Whether a segment that is not written any more may go. Blocks on the disk where all else of it is read, and something
    /// is said to be lost.
    pub fn may_go(&mut self, segment: &SegmentView, archived: &Chains) -> io::Result<bool> {
        match self.said_lost(segment, archived) {
            Some(places) => Ok(!self.can_be_read(segment, &places)?),
            None => Ok(false),
        }
    }

    /// The places of a segment that the chains have been told are lost, and that would be read if they were here; none if the
    /// chains are not done with the rest of it.
    fn said_lost(&self, segment: &SegmentView, archived: &Chains) -> Option<Vec<(ChainId, u64, u64)>> {
        let mut places = Vec::new();
        for (chain, &base) in segment.base.iter() {
            let (end, archived) = (segment.end[chain], archived.get(chain));
            if flawed(Flaw::DeleteByTail) {
                if end > archived.map_or(0, |archived| archived.next.start) {
                    return None;
                }
            } else if base < end {
                let archived = archived?;
                for (first, last) in archived.read.missing(segment.log, base, end - 1) {
                    if !archived.lost.covers(segment.log, first, last) {
                        return None;
                    }
                    if !self.is_passed(segment, archived, last) && !flawed(Flaw::LostIsRead) {
                        places.push((chain, first, last));
                    }
                }
            }
        }
        Some(places)
    }

    /// Whether nobody here goes back to a place. The writers of this machine go on from where the chain stands; where that is a
    /// log which is not here, they begin with the oldest one that is. The forwarder goes back to all.
    fn is_passed(&self, segment: &SegmentView, archived: &Archived, place: u64) -> bool {
        let is_behind = |at: LogId| at > segment.log || at == segment.log && archived.next.start > place;
        let is_passed = |at: LogId| at.is_topic() || is_behind(at) && self.logs.view(at).is_some();
        segment.drained_by == DrainedBy::Bronze && archived.log.is_some_and(is_passed)
    }

    /// Whether a dead log may go. One that partition writers drain must be left by every chain, also if it never held a
    /// record: a chain that stands in a log which is gone does not know which one comes next, and begins with the oldest
    /// again. With Kafka no chain stands in a log of the spool.
    fn dead_may_go(&mut self, log: LogId, view: &LogView, drained_by: DrainedBy, archived: &Chains) -> io::Result<bool> {
        let is_left = |stream: Stream| {
            archived.get(stream.into()).and_then(|archived| archived.log).is_some_and(|at| at.is_topic() || at > log)
        };
        let is_left = drained_by == DrainedBy::Kafka || Stream::ALL.into_iter().all(is_left) || flawed(Flaw::DeleteByTail);
        if !is_left {
            return Ok(false);
        }
        // Nothing is read of one before all are done.
        let all: Option<Vec<_>> = view.closed.iter().map(|segment| Some((segment, self.said_lost(segment, archived)?))).collect();
        for (segment, places) in all.iter().flatten() {
            if self.can_be_read(segment, places)? {
                return Ok(false);
            }
        }
        Ok(all.is_some())
    }

    /// Whether any of these places of a segment can be read.
    fn can_be_read(&mut self, segment: &SegmentView, places: &[(ChainId, u64, u64)]) -> io::Result<bool> {
        if places.is_empty() {
            return Ok(false);
        }
        let has_any = |readable: &PerChain<Intervals>| {
            let is_there = |chain, first, last| {
                let of_chain: Option<&Intervals> = readable.get(chain);
                of_chain.is_some_and(|there| there.missing(first, last) != [(first, last)])
            };
            places.iter().any(|&(chain, first, last)| is_there(chain, first, last))
        };
        let name = (segment.log, segment.number);
        if self.readable.get(&name).is_some_and(|(found, readable)| found.elapsed() < BELIEVE && has_any(readable)) {
            return Ok(true);
        }
        let readable = read(&self.logs, segment)?;
        let has_any = has_any(&readable);
        if has_any {
            self.readable.insert(name, (Instant::now(), readable));
        }
        Ok(has_any)
    }
}

/// The places that can be read of a segment.
fn read(logs: &Logs, segment: &SegmentView) -> io::Result<PerChain<Intervals>> {
    let (dir, view) = (logs.dir(segment.log), LogView { closed: Arc::new([segment.clone()].into()), current: None });
    let mut places = PerChain::<Intervals>::of(segment.base.partitions());
    contents::read(dir, segment.log, &view, |item| {
        if let Item::Record(chain, record) = item {
            places[chain].insert(record.origin.place);
        }
    })?;
    Ok(places)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::super::replay::tests::{fill, log, ruin};
    use super::super::segment::{self, LogKind};
    use super::super::state::LogState;
    use super::super::writer::LogWriter;
    use super::*;
    use crate::domain::chain::Position;
    use crate::domain::intervals::Read;

    const TRADES: ChainId = ChainId { stream: Stream::Trades, partition: 0 };

    fn places(log: LogId, offsets: impl IntoIterator<Item = u64>) -> Arc<Read> {
        let mut places = Read::default();
        for offset in offsets {
            places.insert(log, offset);
        }
        places.into()
    }

    /// A chain of trades that has read so much of a log and stands behind it.
    fn read(log: LogId, offsets: impl IntoIterator<Item = u64>) -> Chains {
        let read = places(log, offsets);
        let start = read.0[&log].iter().last().map_or(0, |(_, last)| last + 1);
        let mut chains = Chains::default();
        let next = Position { generation: 1, start };
        chains.learn(TRADES, Archived { log: Some(log), next, read, ..Archived::default() });
        chains
    }

    fn deletion(dir: &std::path::Path, live: LogId, view: LogView) -> Deletion {
        Deletion::new(Logs::new(dir.into(), BTreeMap::new(), live, watch::channel(view).1), DrainedBy::Bronze)
    }

    #[test]
    fn a_segment_stays_until_all_of_it_is_read_in_its_own_log() {
        let (log, other) = (LogId::generate(), LogId::generate());
        let (base, end) = ([4, 0, 0].into(), [6, 0, 0].into());
        let segment = SegmentView { log, number: 0, drained_by: DrainedBy::Bronze, base, end, body_at: 0, len: 0 };
        let mut deletion = deletion("nowhere".as_ref(), log, LogView::default());
        let mut may_go = |chains: &Chains| deletion.may_go(&segment, chains).unwrap();
        assert!(!may_go(&Chains::default()), "nothing is known");
        assert!(!may_go(&read(log, 0..5)));
        assert!(may_go(&read(log, 0..6)));
        assert!(!may_go(&read(log, (0..5).chain(6..9))), "the chain has passed what it did not read");
        assert!(!may_go(&read(other, 0..9)), "of another log");
    }

    /// What damage took from one copy of a log the chain is told is lost. Whoever has a good copy has what fills the hole.
    #[test]
    fn what_another_copy_has_lost_stays_where_it_can_be_read_until_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 1200);
        fill(&mut log, 40);
        let (id, view) = (log.id(), log.view());
        let segment = &view.closed[1];
        let chains = |is_read: bool| {
            let mut chains = Chains::default();
            for (chain, &base) in segment.base.iter() {
                let (all, hole) = (places(id, 0..1000), base + 1..segment.end[chain]);
                let (read, lost) = match chain == TRADES && !is_read {
                    true => (places(id, (0..1000).filter(|place| !hole.contains(place))), places(id, hole)),
                    false => (all, Arc::default()),
                };
                chains.learn(chain, Archived { read, lost, next: Position { generation: 1, start: 1 }, log: None });
            }
            chains
        };
        assert!(segment.end[TRADES] - segment.base[TRADES] > 1, "there is no hole");
        let fresh = || deletion(temp.path(), id, view.clone());
        let mut good = fresh();
        assert!(!good.may_go(segment, &chains(false)).unwrap());
        assert!(good.may_go(segment, &chains(true)).unwrap(), "the hole is filled");

        let path = segment::path(&temp.path().join(id.to_string()), segment.number);
        let good_copy = std::fs::read(&path).unwrap();
        ruin(temp.path(), segment);
        let mut bad = fresh();
        assert!(bad.may_go(segment, &chains(false)).unwrap(), "it is lost here, too");
        std::fs::write(&path, good_copy).unwrap();
        assert_eq!(bad.last_done(&chains(false)).0, Some(0), "it was put back, and what was found before says nothing");
    }

    /// A chain that comes back begins before the hole, and reads it.
    #[test]
    fn where_writers_drain_the_log_a_hole_that_can_be_read_stays_until_the_chain_is_behind_it() {
        let temp = tempfile::tempdir().unwrap();
        let (id, other) = (LogId::generate(), LogId::generate());
        let mut log = LogWriter::create_of(LogKind::BRONZE, temp.path(), id, LogState::default(), 1200).unwrap();
        fill(&mut log, 40);
        let view = log.view();
        let segment = &view.closed[1];
        let mut deletion = deletion(temp.path(), id, view.clone());
        let mut may_go = |at, start| {
            let mut chains = Chains::default();
            for (chain, &base) in segment.base.iter() {
                let (read, lost) = (places(id, 0..base + 1), places(id, base + 1..segment.end[chain]));
                chains.learn(chain, Archived { read, lost, log: Some(at), next: Position { generation: 1, start } });
            }
            deletion.may_go(segment, &chains).unwrap()
        };
        assert!(!may_go(other, 0), "it closes that one, and begins with the oldest that is here");
        assert!(!may_go(id, 0), "it has come back");
        assert!(may_go(id, 10_000), "nobody goes back to it");
    }

    #[test]
    fn a_dead_log_stays_while_a_chain_stands_in_it_though_it_is_empty() {
        let (log, later) = (LogId::generate(), LogId::generate());
        let at = |at| Archived { log: Some(at), ..Archived::default() };
        let everywhere = |logs: [LogId; 3]| {
            let mut chains = Chains::default();
            for (stream, log) in Stream::ALL.into_iter().zip(logs) {
                chains.learn(stream.into(), at(log));
            }
            chains
        };
        let mut deletion = deletion("nowhere".as_ref(), later, LogView::default());
        let mut may_go =
            |of: LogKind, chains: &Chains| deletion.dead_may_go(log, &LogView::default(), of.drained_by, chains).unwrap();
        assert!(!may_go(LogKind::BRONZE, &Chains::default()));
        assert!(!may_go(LogKind::BRONZE, &everywhere([later, log, later])));
        assert!(may_go(LogKind::BRONZE, &everywhere([later, later, later])));
        let kafka = LogKind { drained_by: DrainedBy::Kafka, partitions: 4 };
        assert!(may_go(kafka, &Chains::default()), "it never held a record");
    }
}
