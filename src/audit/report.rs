//! Holds what was found against what should be there. Nothing here reads anything.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bronze::Found;
use super::ledger::Connection;
use super::silver::{SilverCount, StreamCount};
use crate::domain::identity::SessionId;
use crate::domain::stream::Stream;

/// How many findings are written out; all are counted.
const FINDINGS: usize = 20;

/// The outcome of an audit. Counts are of trades unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Sent by the exchange, by its ledger; none without a ledger.
    pub sent: Option<u64>,
    /// Sent and never durable: covered by a gap or by the end of their session.
    pub not_received: Option<u64>,
    /// In Bronze or in the spool.
    pub durable: u64,
    /// In Bronze.
    pub archived: u64,
    /// In the spool only: the next start archives them.
    pub waiting: u64,
    /// In Silver, rejected ones included; none where there is no warehouse or it was not asked.
    pub silver: Option<u64>,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Outages of the feed.
    pub gaps: u64,
    /// Records that should be there and are not.
    pub lost: u64,
    /// Records that are there more than once.
    pub duplicated: u64,
    /// Objects, slots and logs that are not as they should be: damaged, missing, out of reach. What is
    /// missing because of them is also in `lost` where a sequence number or a count tells of it.
    pub faults: u64,
    /// What is wrong, for people; the first ones.
    pub findings: Vec<String>,
}

impl Report {
    /// Whether nothing is lost, nothing doubled and nothing damaged.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.faults == 0
    }

    /// Adds what Silver holds. Silver may be behind Bronze, where runs have failed, never ahead of it.
    pub fn hold_against_silver(&mut self, silver: &SilverCount) {
        for (stream, count) in &silver.streams {
            let StreamCount { rows, distinct, kept } = *count;
            if rows > distinct {
                self.duplicated += rows - distinct;
                self.finding(|| format!("Silver's {stream} are {rows} rows of {distinct} identities"));
            }
            if rows < kept {
                self.lose(kept - rows, || format!("Silver's {stream} are {rows} rows, of {kept} that were loaded"));
            }
        }
        let trades = silver.streams.get(Stream::Trades.name()).copied().unwrap_or_default();
        self.silver = Some(trades.rows);
        if trades.rows > self.archived {
            self.duplicated += trades.rows - self.archived;
            self.finding(|| "Silver has more trades than Bronze".to_string());
        }
    }

    fn lose(&mut self, records: u64, what: impl FnOnce() -> String) {
        self.lost += records;
        self.finding(what);
    }

    fn finding(&mut self, what: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS {
            self.findings.push(what());
        }
    }
}

/// Counts, and finds holes: within sessions always, against the ledger where there is one.
pub fn report(found: &Found, ledger: Option<&BTreeMap<u64, Connection>>) -> Report {
    let of = |stream: Stream| stream.index();
    let mut report = Report {
        durable: found.archived[of(Stream::Trades)] + found.waiting[of(Stream::Trades)],
        archived: found.archived[of(Stream::Trades)],
        waiting: found.waiting[of(Stream::Trades)],
        quarantined: found.archived[of(Stream::Quarantine)],
        gaps: found.gaps.iter().filter(|gap| gap.first_received_at.is_some()).count() as u64,
        duplicated: found.duplicated,
        ..Report::default()
    };
    for fault in &found.faults {
        report.finding(|| fault.clone());
    }
    report.faults = found.faults.len() as u64;
    let missing = holes(found, &mut report);
    if let Some(ledger) = ledger {
        against(found, ledger, missing, &mut report);
    }
    report
}

/// Sequence numbers are dense, and a session's end says how many there were. Of each session how many
/// records of what the exchange sent are missing.
fn holes(found: &Found, report: &mut Report) -> BTreeMap<SessionId, u64> {
    let mut missing = BTreeMap::<_, u64>::new();
    for (session, count) in &found.sessions {
        for stream in Stream::ALL {
            let seqs = &count.seqs[stream.index()];
            let highest = seqs.iter().last().map_or(0, |(_, high)| high + 1);
            let wanted = count.end.as_ref().map_or(highest, |end| end.records[stream.index()].max(highest));
            for (low, high) in seqs.holes_below(wanted) {
                report.lose(high - low + 1, || format!("session {session}: {stream} {low} to {high} are missing"));
                if stream != Stream::Gaps {
                    *missing.entry(*session).or_default() += high - low + 1;
                }
            }
        }
    }
    missing
}

/// Each frame of the ledger. What is `missing` already by its number is not lost once more.
fn against(found: &Found, ledger: &BTreeMap<u64, Connection>, mut missing: BTreeMap<SessionId, u64>, report: &mut Report) {
    let (mut sent, mut not_received) = (0, 0);
    for (number, connection) in ledger {
        let count = connection.session.and_then(|session| found.sessions.get(&session));
        // Up to here the log has all of it; behind it, the end or the gap says that there is nothing.
        let received = count.map_or(0, |count| count.frames.keys().last().copied().unwrap_or(0));
        let mut counted = connection.session.and_then(|session| missing.remove(&session)).unwrap_or_default();
        let mut lose = |report: &mut Report, records: u64, what: &dyn Fn() -> String| {
            let again = records.min(counted);
            counted -= again;
            report.lose(records - again, what);
        };
        for &(frame, trades) in &connection.trades {
            sent += u64::from(trades);
            let have = count.and_then(|count| count.frames.get(&frame)).copied().unwrap_or(0);
            match have.cmp(&trades) {
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => {
                    report.duplicated += u64::from(have - trades);
                    report.finding(|| format!("connection {number} frame {frame}: {have} records of {trades} trades"));
                }
                std::cmp::Ordering::Less if have == 0 && frame > received && is_declared(found, connection.session, frame) => {
                    not_received += u64::from(trades);
                }
                std::cmp::Ordering::Less => {
                    let what = || format!("connection {number} frame {frame}: {have} of {trades} trades");
                    lose(report, u64::from(trades - have), &what);
                }
            }
        }
        for &frame in &connection.bad {
            let have = count.is_some_and(|count| count.frames.contains_key(&frame));
            if !have && frame <= received {
                lose(report, 1, &|| format!("connection {number}: bad frame {frame} is not in quarantine"));
            }
        }
    }
    (report.sent, report.not_received) = (Some(sent), Some(not_received));
}

/// Whether some record says that `frame` of `session` and all behind it were not received.
fn is_declared(found: &Found, session: Option<SessionId>, frame: u32) -> bool {
    let Some(session) = session else { return true }; // no daemon of ours listened
    let ended = found.sessions.get(&session).and_then(|count| count.end.as_ref()).is_some_and(|end| frame > end.frames);
    let gap = || found.gaps.iter().any(|gap| gap.previous_session == session && frame > gap.last_frame);
    // A session that died before its opening was durable: no record can name it, and the gap around
    // it spans it.
    let unknown = !found.sessions.contains_key(&session);
    ended || gap() || unknown
}

#[cfg(test)]
mod tests {
    use super::super::bronze::SessionCount;
    use super::*;
    use crate::domain::entry::SessionEnd;
    use crate::domain::intervals::Intervals;

    /// A session with `frames` of two trades each, and a ledger of `sent` such frames.
    fn world(frames: u32, sent: u32, ended: bool) -> (Found, BTreeMap<u64, Connection>, SessionId) {
        let session = SessionId::generate();
        let trades = u64::from(frames) * 2;
        let end = ended.then(|| SessionEnd {
            shard: "s".into(),
            frames,
            records: [trades, 0, 0],
            last_received_at: None,
            reason: "shutdown".into(),
        });
        let seqs = if trades == 0 {
            Default::default()
        } else {
            [Intervals::of(0, trades - 1), Intervals::default(), Intervals::default()]
        };
        let count = SessionCount { seqs, frames: (1..=frames).map(|n| (n, 2)).collect(), end };
        let found = Found { sessions: [(session, count)].into(), archived: [trades, 0, 0], ..Found::default() };
        let connection = Connection { session: Some(session), trades: (1..=sent).map(|n| (n, 2)).collect(), bad: vec![] };
        (found, [(1, connection)].into(), session)
    }

    #[test]
    fn what_was_sent_after_the_end_is_declared_and_not_lost() {
        let (found, ledger, _) = world(10, 12, true);
        let report = report(&found, Some(&ledger));
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.sent, report.durable, report.not_received), (Some(24), 20, Some(4)));
    }

    #[test]
    fn without_an_end_or_a_gap_it_is_lost() {
        let (found, ledger, _) = world(10, 12, false);
        assert_eq!(report(&found, Some(&ledger)).lost, 4);
    }

    #[test]
    fn a_hole_is_lost_though_the_session_ended() {
        let (mut found, ledger, session) = world(10, 10, true);
        let count = found.sessions.get_mut(&session).unwrap();
        count.frames.remove(&4);
        let report = report(&found, Some(&ledger));
        assert_eq!(report.lost, 2, "{report:?}");
    }

    #[test]
    fn a_missing_tail_is_lost_by_the_counts_of_the_end() {
        let (mut found, _, session) = world(10, 10, true);
        found.sessions.get_mut(&session).unwrap().seqs[0] = Intervals::of(0, 17);
        assert_eq!(report(&found, None).lost, 2);
    }

    #[test]
    fn what_is_missing_by_its_number_and_in_the_ledger_is_lost_once() {
        let (mut found, ledger, session) = world(10, 11, false);
        let count = found.sessions.get_mut(&session).unwrap();
        count.frames.remove(&4);
        count.seqs[0] = Intervals::of(0, 5);
        (8..20).for_each(|seq| assert!(count.seqs[0].insert(seq)));
        assert_eq!(report(&found, Some(&ledger)).lost, 2 + 2, "a frame in the middle, and one that nothing tells of");
    }

    #[test]
    fn more_records_than_trades_are_doubled() {
        let (mut found, ledger, session) = world(10, 10, true);
        found.sessions.get_mut(&session).unwrap().frames.insert(4, 3);
        assert_eq!(report(&found, Some(&ledger)).duplicated, 1);
    }
}
