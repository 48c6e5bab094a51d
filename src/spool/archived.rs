//! What of the log may be deleted: only what the chains have archived *and* left behind.
//!
//! The tail of a chain alone says nothing: a new log begins at offset 0 again (model: "the spool
//! deletes by the tail" loses records). What the chain has seen alone is not enough either: an hour's
//! turn stands in the log too and is no session's record; a writer that finds it gone must take it
//! for a loss.

use std::sync::Arc;

use super::reader::LogView;
use super::segment::SegmentView;
use crate::domain::chain::Slot;
use crate::domain::identity::LogId;
use crate::domain::intervals::Seen;
use crate::domain::stream::PerStream;
use crate::faults::{Flaw, flawed};

/// How far the chain of a stream is.
#[derive(Clone, Debug, Default)]
pub struct Archived {
    /// All that it has archived, as its newest slot hands it on.
    pub seen: Arc<Seen>,
    /// The log in which it stands; none before the first slot.
    pub log: Option<LogId>,
    /// The next offset in there.
    pub next: u64,
}

impl Archived {
    /// Where the chain is behind this slot.
    pub fn behind(slot: &Slot) -> Archived {
        let tail = slot.tail();
        Archived { seen: Arc::new(tail.carry.seen), log: tail.incarnation, next: tail.next.start }
    }

    /// Whether it will never read that log before `end` again. Logs are numbered by their time.
    fn is_past(&self, log: LogId, end: u64) -> bool {
        self.log.is_some_and(|at| at > log || at == log && self.next >= end)
    }
}

/// Whether the segment of `log` may go.
pub fn may_go(segment: &SegmentView, log: LogId, archived: &PerStream<Archived>) -> bool {
    let mut streams = segment.base.iter().zip(segment.end).zip(archived);
    if flawed(Flaw::DeleteByTail) {
        return streams.all(|((_, end), archived)| end <= archived.next);
    }
    let is_past = streams.all(|((&base, end), archived)| base == end || archived.is_past(log, end));
    is_past && segment.ranges.are_covered(|stream| &archived[stream].seen)
}

/// Whether a dead log may go: every chain has left it, also one that never held a record. A chain that
/// stands in a log which is gone does not know which one comes next, and begins with the oldest again.
pub fn dead_may_go(view: &LogView, log: LogId, archived: &PerStream<Archived>) -> bool {
    let is_left = archived.iter().all(|archived| archived.log.is_some_and(|at| at > log));
    (is_left || flawed(Flaw::DeleteByTail)) && view.closed.iter().all(|segment| may_go(segment, log, archived))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::SessionId;
    use crate::spool::segment::Ranges;

    fn segment(base: u64, end: u64) -> SegmentView {
        let ranges = Ranges::default();
        SegmentView { number: 0, base: [base, 0, 0], end: [end, 0, 0], body_at: 0, len: 0, ranges }
    }

    fn at(log: LogId, next: u64) -> PerStream<Archived> {
        [Archived { log: Some(log), next, ..Archived::default() }, Archived::default(), Archived::default()]
    }

    #[test]
    fn a_turn_of_the_hour_stays_until_the_chain_has_passed_it() {
        let (before, log, later) = (LogId::generate(), LogId::generate(), LogId::generate());
        let segment = segment(4, 5);
        assert!(!may_go(&segment, log, &PerStream::default()), "nothing is known");
        assert!(!may_go(&segment, log, &at(log, 4)));
        assert!(may_go(&segment, log, &at(log, 5)));
        assert!(!may_go(&segment, log, &at(before, 900)), "the tail of another log");
        assert!(may_go(&segment, log, &at(later, 0)));
    }

    #[test]
    fn a_dead_log_stays_while_a_chain_stands_in_it_though_it_is_empty() {
        let (log, later) = (LogId::generate(), LogId::generate());
        let everywhere = |at: [LogId; 3]| at.map(|at| Archived { log: Some(at), ..Archived::default() });
        assert!(!dead_may_go(&LogView::default(), log, &PerStream::default()));
        assert!(!dead_may_go(&LogView::default(), log, &everywhere([later, log, later])));
        assert!(dead_may_go(&LogView::default(), log, &everywhere([later, later, later])));
    }

    #[test]
    fn records_stay_until_they_are_seen_though_the_chain_has_passed_them() {
        let (log, session) = (LogId::generate(), SessionId::generate());
        let mut segment = segment(0, 2);
        segment.ranges.add(session, [(0, 2), (0, 0), (0, 0)]);
        let mut archived = at(log, 2);
        assert!(!may_go(&segment, log, &archived));
        let mut seen = Seen::default();
        seen.insert(session, 0);
        seen.insert(session, 1);
        archived[0].seen = Arc::new(seen);
        assert!(may_go(&segment, log, &archived));
    }
}
