//! What of the log may be deleted: only what the chains have read in this very log, or have declared lost
//! in it: a damaged byte must not keep what is around it for ever.
//!
//! The tail of a chain alone says nothing: a new log begins at offset 0 again (model: "the spool
//! deletes by the tail" loses records), and a chain may have gone over to another machine's log.

use super::reader::LogView;
use super::segment::SegmentView;
use crate::domain::chain::Archived;
use crate::domain::identity::LogId;
use crate::domain::stream::PerStream;
use crate::faults::{Flaw, flawed};

/// Whether the segment of `log` may go.
pub fn may_go(segment: &SegmentView, log: LogId, archived: &PerStream<Archived>) -> bool {
    let mut streams = segment.base.iter().zip(segment.end).zip(archived);
    if flawed(Flaw::DeleteByTail) {
        return streams.all(|((_, end), archived)| end <= archived.next);
    }
    streams.all(|((&base, end), archived)| base == end || archived.settled.covers(log, base, end - 1))
}

/// Whether a dead log may go: every chain has left it, also one that never held a record. A chain that
/// stands in a log which is gone does not know which one comes next, and begins with the oldest again.
pub fn dead_may_go(view: &LogView, log: LogId, archived: &PerStream<Archived>) -> bool {
    let is_left = archived.iter().all(|archived| archived.log.is_some_and(|at| at > log));
    (is_left || flawed(Flaw::DeleteByTail)) && view.closed.iter().all(|segment| may_go(segment, log, archived))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::intervals::Read;

    /// A chain of trades that has read so much of a log and stands behind it.
    fn read(log: LogId, offsets: impl IntoIterator<Item = u64>) -> PerStream<Archived> {
        let (mut read, mut next) = (Read::default(), 0);
        for offset in offsets {
            read.insert(log, offset);
            next = offset + 1;
        }
        [Archived { log: Some(log), next, settled: Arc::new(read) }, Archived::default(), Archived::default()]
    }

    #[test]
    fn a_segment_stays_until_all_of_it_is_read_in_its_own_log() {
        let (log, other) = (LogId::generate(), LogId::generate());
        let segment = SegmentView { log: LogId::generate(), number: 0, base: [4, 0, 0], end: [6, 0, 0], body_at: 0, len: 0 };
        assert!(!may_go(&segment, log, &PerStream::default()), "nothing is known");
        assert!(!may_go(&segment, log, &read(log, 0..5)));
        assert!(may_go(&segment, log, &read(log, 0..6)));
        assert!(!may_go(&segment, log, &read(log, (0..5).chain(6..9))), "the chain has passed what it did not read");
        assert!(!may_go(&segment, log, &read(other, 0..9)), "of another log");
    }

    #[test]
    fn a_dead_log_stays_while_a_chain_stands_in_it_though_it_is_empty() {
        let (log, later) = (LogId::generate(), LogId::generate());
        let everywhere = |at: [LogId; 3]| at.map(|at| Archived { log: Some(at), ..Archived::default() });
        assert!(!dead_may_go(&LogView::default(), log, &PerStream::default()));
        assert!(!dead_may_go(&LogView::default(), log, &everywhere([later, log, later])));
        assert!(dead_may_go(&LogView::default(), log, &everywhere([later, later, later])));
    }
}
