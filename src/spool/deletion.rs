//! What of the log may be deleted: only what the chains have read in this very log, or have declared lost
//! in it: a damaged byte must not keep what is around it for ever.
//!
//! The tail of a chain alone says nothing: a new log begins at offset 0 again (model: "the spool
//! deletes by the tail" loses records), and a chain may have gone over to another machine's log.

use super::reader::LogView;
use super::segment::{DrainedBy, LogKind, SegmentView};
use crate::domain::archived::Chains;
use crate::domain::identity::LogId;
use crate::domain::stream::Stream;
use crate::faults::{Flaw, flawed};

/// Whether the segment of `log` may go.
pub fn may_go(segment: &SegmentView, log: LogId, archived: &Chains) -> bool {
    segment.base.iter().all(|(chain, &base)| {
        let (end, archived) = (segment.end[chain], archived.get(chain));
        if flawed(Flaw::DeleteByTail) {
            return end <= archived.map_or(0, |archived| archived.next.start);
        }
        base == end || archived.is_some_and(|archived| archived.settled.covers(log, base, end - 1))
    })
}

/// Whether a dead log may go. One that partition writers drain must be left by every chain, also if it never held a
/// record: a chain that stands in a log which is gone does not know which one comes next, and begins with the oldest
/// again. With Kafka no chain stands in a log of the spool.
pub fn dead_may_go(view: &LogView, log: LogId, kind: LogKind, archived: &Chains) -> bool {
    let is_left = |stream: Stream| {
        archived.get(stream.into()).and_then(|archived| archived.log).is_some_and(|at| at.is_topic() || at > log)
    };
    let is_left = kind.drained_by == DrainedBy::Kafka || Stream::ALL.into_iter().all(is_left);
    (is_left || flawed(Flaw::DeleteByTail)) && view.closed.iter().all(|segment| may_go(segment, log, archived))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::archived::Archived;
    use crate::domain::chain::Position;
    use crate::domain::intervals::Read;

    /// A chain of trades that has read so much of a log and stands behind it.
    fn read(log: LogId, offsets: impl IntoIterator<Item = u64>) -> Chains {
        let (mut read, mut start) = (Read::default(), 0);
        for offset in offsets {
            read.insert(log, offset);
            start = offset + 1;
        }
        let next = Position { generation: 1, start };
        let mut chains = Chains::default();
        chains.learn(Stream::Trades.into(), Archived { log: Some(log), next, settled: Arc::new(read) });
        chains
    }

    #[test]
    fn a_segment_stays_until_all_of_it_is_read_in_its_own_log() {
        let (log, other) = (LogId::generate(), LogId::generate());
        let (base, end) = ([4, 0, 0].into(), [6, 0, 0].into());
        let segment = SegmentView { log, number: 0, drained_by: DrainedBy::Bronze, base, end, body_at: 0, len: 0 };
        assert!(!may_go(&segment, log, &Chains::default()), "nothing is known");
        assert!(!may_go(&segment, log, &read(log, 0..5)));
        assert!(may_go(&segment, log, &read(log, 0..6)));
        assert!(!may_go(&segment, log, &read(log, (0..5).chain(6..9))), "the chain has passed what it did not read");
        assert!(!may_go(&segment, log, &read(other, 0..9)), "of another log");
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
        let may_go = |chains: &Chains| dead_may_go(&LogView::default(), log, LogKind::BRONZE, chains);
        assert!(!may_go(&Chains::default()));
        assert!(!may_go(&everywhere([later, log, later])));
        assert!(may_go(&everywhere([later, later, later])));
        let kafka = LogKind { drained_by: DrainedBy::Kafka, partitions: 4 };
        assert!(dead_may_go(&LogView::default(), log, kafka, &Chains::default()), "it never held a record");
    }
}
