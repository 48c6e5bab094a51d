//! Holds what was found against what should be there. Nothing here reads anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::expired::{self, Expired, Unnamed};
use super::found::{Found, FrameCount, SessionCount};
use super::kafka::Standing;
use super::ledger::{Connection, Sent};
use super::outages;
use crate::domain::chain::ChainId;
use crate::domain::identity::SessionId;
use crate::domain::intervals::Intervals;
use crate::domain::stream::Stream;

/// How many findings are written out; all are counted.
const FINDINGS: usize = 20;

/// The outcome of an audit. Counts are of trades unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Sent by the exchange, by its ledger; none without a ledger.
    pub sent: Option<u64>,
    /// Sent and never durable: covered by a gap or by the end of their session, or sent to one that has
    /// not ended, behind all that the spool has of it.
    pub not_received: Option<u64>,
    /// In Bronze or in the spool.
    pub durable: u64,
    /// In Bronze.
    pub archived: u64,
    /// Records that the bucket's lifecycle rules have deleted at their age, by stream. They are in neither of these, and not lost.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub expired: BTreeMap<Stream, Expired>,
    /// In the spool only: the next start archives them.
    pub waiting: u64,
    /// In Silver, rejected ones included; none where there is no warehouse or it was not asked.
    pub silver: Option<u64>,
    /// One-minute bars in Gold as it is published; none where it is not.
    pub gold: Option<u64>,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Outages of the feed.
    pub gaps: u64,
    /// Records that should be there and are not.
    pub lost: u64,
    /// The sessions that nothing has ended and no spool at hand knows, each with what of `lost` is missing of it, perhaps
    /// nothing: so it looks when a disk was lost, or when the spool of a daemon was not given to the audit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cut_off: BTreeMap<SessionId, u64>,
    /// How much of `lost` is of which session, as far as that is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub incomplete: BTreeMap<SessionId, u64>,
    /// Records that are there more than once.
    pub duplicated: u64,
    /// Objects, slots, logs, files of Gold, ends and gaps that are not as they should be: damaged, missing,
    /// out of reach. What is missing because of them is also in `lost` where a sequence number or a count
    /// tells of it.
    pub faults: u64,
    /// Of each partition of Kafka, where its log and its chain stand; none without Kafka.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Standing>,
    /// What is wrong, for people; the first ones.
    pub findings: Vec<String>,
    /// What is to be known and is not wrong; the first ones.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing is lost, nothing doubled and nothing damaged.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.faults == 0
    }

    pub(super) fn lose(&mut self, records: u64, what: impl FnOnce() -> String) {
        self.lost += records;
        self.finding(what);
    }

    /// Loses records of a session.
    fn lose_of(&mut self, session: Option<SessionId>, found: &Found, records: u64, what: impl FnOnce() -> String) {
        if let Some(session) = session {
            *self.incomplete.entry(session).or_default() += records;
            if is_cut_off(found, session) {
                *self.cut_off.entry(session).or_default() += records;
            }
        }
        self.lose(records, what);
    }

    pub(super) fn fault(&mut self, what: impl FnOnce() -> String) {
        self.faults += 1;
        self.finding(what);
    }

    pub(super) fn duplicate(&mut self, records: u64, what: impl FnOnce() -> String) {
        self.duplicated += records;
        self.finding(what);
    }

    fn finding(&mut self, what: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS {
            self.findings.push(what());
        }
    }

    /// Something to know that is nothing wrong.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.notes.len() < FINDINGS {
            self.notes.push(what());
        }
    }
}

/// Counts, and finds holes: within sessions always, against the ledger where there is one.
pub fn report(found: &Found, ledger: Option<&BTreeMap<u64, Connection>>) -> Report {
    let of = |stream: Stream| stream.index();
    let mut report = Report {
        durable: found.archived[of(Stream::Trades)] + found.waiting[of(Stream::Trades)],
        archived: found.archived[of(Stream::Trades)],
        expired: expired::by_stream(&found.expired),
        waiting: found.waiting[of(Stream::Trades)],
        quarantined: found.archived[of(Stream::Quarantine)],
        gaps: found.gaps.iter().filter(|gap| gap.first_received_at.is_some()).count() as u64,
        duplicated: found.duplicated,
        partitions: found.partitions.clone(),
        ..Report::default()
    };
    for fault in &found.faults {
        report.fault(|| fault.clone());
    }
    if found.foreign > 0 {
        report.note(|| {
            format!("{} records of the topics were not written by Tickmint: they are in raw and in quarantine", found.foreign)
        });
    }
    for note in &found.notes {
        report.note(|| note.clone());
    }
    outages::check(found, &mut report);
    let missing = holes(found, &mut report);
    if let Some(ledger) = ledger {
        against(found, ledger, missing, &mut report);
    }
    report
}

/// Of one session, records of what the exchange sent that are missing by their numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    lost: u64,
    expired: u64,
}

/// Sequence numbers are dense, and a session's end says how many there were. Of each session what is missing.
fn holes(found: &Found, report: &mut Report) -> BTreeMap<SessionId, Missing> {
    let mut missing = BTreeMap::<_, Missing>::new();
    let mut unnamed = Unnamed::of(found);
    for (session, count) in &found.sessions {
        let none = Intervals::default();
        for chain in chains_of(count) {
            let seqs = count.seqs.get(&chain).unwrap_or(&none);
            let highest = seqs.iter().last().map_or(0, |(_, high)| high + 1);
            let told = count.end.as_ref().map_or(highest, |end| end.records_of(chain));
            // Its end is itself one of the gaps.
            if highest > told && chain.stream != Stream::Gaps {
                let what = || format!("session {session}: its end tells of {told} records of {chain}, and there are {highest}");
                match outages::has_outlived_its_end(count) {
                    true => report.note(|| what() + ": a daemon on a copy of the spool ended it while it lived"),
                    false => report.fault(what),
                }
            }
            let wanted = told.max(highest);
            for (low, high) in seqs.holes_below(wanted) {
                let expired = unnamed.take(found, *session, chain, (low, high));
                let lost = high - low + 1 - expired;
                if lost > 0 {
                    let of_these =
                        if expired > 0 { format!(", and only {expired} of these have expired") } else { String::new() };
                    report.lose_of(Some(*session), found, lost, || {
                        format!("session {session}: {chain} {low} to {high} are missing{of_these}")
                    });
                }
                if chain.stream != Stream::Gaps {
                    let missing = missing.entry(*session).or_default();
                    (missing.lost, missing.expired) = (missing.lost + lost, missing.expired + expired);
                }
            }
        }
    }
    missing
}

/// The chains that have something of a session, or should.
fn chains_of(count: &SessionCount) -> BTreeSet<ChainId> {
    let partitions =
        count.end.iter().flat_map(|end| end.partitions.iter().flat_map(|counts| counts.iter().map(|(chain, _)| chain)));
    let streams = Stream::ALL.into_iter().map(ChainId::from);
    count.seqs.keys().copied().chain(streams).chain(partitions).collect()
}

/// Each frame of the ledger. What is `missing` already by its number is not lost once more.
fn against(found: &Found, ledger: &BTreeMap<u64, Connection>, mut missing: BTreeMap<SessionId, Missing>, report: &mut Report) {
    let (unknown, nothing) = (SessionCount::default(), FrameCount::default());
    let (mut sent, mut not_received, mut untold) = (0, 0, 0);
    for (number, connection) in ledger {
        let count = connection.session.and_then(|session| found.sessions.get(&session)).unwrap_or(&unknown);
        // Up to here the log has all of it; behind it, the end or the gap says that there is nothing.
        let received = count.last().unwrap_or(0);
        let declared = declared(found, connection.session);
        let mut counted = connection.session.and_then(|session| missing.remove(&session)).unwrap_or_default();
        for &Sent { number: frame, trades, bad } in &connection.frames {
            sent += u64::from(trades);
            let (wanted, have) = (trades + bad, count.frames.get(&frame).unwrap_or(&nothing));
            let there = have.trades + have.quarantined;
            if there == 0 && frame > received && declared.is_some_and(|last| frame > last) {
                not_received += u64::from(trades);
            } else if there < wanted {
                let records = u64::from(wanted - there);
                let expired = records.min(counted.expired);
                counted.expired -= expired;
                let again = (records - expired).min(counted.lost);
                counted.lost -= again;
                let more = records - expired - again;
                // Behind all that is there: only the end could say whether it was received.
                if connection.session.is_some_and(|session| found.end_has_expired(session)) {
                    untold += more;
                } else if expired < records {
                    report.lose_of(connection.session, found, more, || {
                        format!("connection {number} frame {frame}: {there} of {wanted} records")
                    });
                }
            } else if there > wanted {
                let more = u64::from(there - wanted);
                report.duplicate(more, || format!("connection {number} frame {frame}: {there} records of {wanted}"));
            } else if have.trades > trades {
                let wrong = have.trades - trades;
                report.fault(|| format!("connection {number} frame {frame}: {wrong} bad records are archived as trades"));
            }
        }
        let was_sent = |frame: &u32| connection.frames.binary_search_by_key(frame, |sent| sent.number).is_ok();
        for frame in count.frames.keys().filter(|frame| !was_sent(frame)) {
            report.fault(|| format!("connection {number} frame {frame} is archived and was never sent"));
        }
    }
    (report.sent, report.not_received) = (Some(sent), Some(not_received));
    if untold > 0 {
        report.note(|| {
            format!(
                "{untold} records of the ledger have expired or were never received: the ends of their sessions have expired, too"
            )
        });
    }
}

/// The last frame of a session behind which some record says that nothing was received; none where nothing
/// tells of its end. One that nobody knows is lost whole: a session asks for trades only after the spool has
/// it, and what the spool has is told by its successor.
fn declared(found: &Found, session: Option<SessionId>) -> Option<u32> {
    let Some(session) = session else { return Some(0) }; // no daemon of ours listened
    let told = found.sessions.get(&session).and_then(SessionCount::told);
    let gaps = found.gaps.iter().filter(|gap| gap.previous_session == session).map(|gap| gap.last_frame);
    // Each of them was durable: what the most of them tells of must be there.
    gaps.chain(told).max()
}

/// Whether nothing has ended a session, and no spool at hand knows it.
fn is_cut_off(found: &Found, session: SessionId) -> bool {
    found.sessions.get(&session).is_none_or(|count| count.end.is_none() && count.living.is_none())
        && !found.end_has_expired(session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::entry::{Gap, SessionEnd};
    use crate::domain::intervals::Intervals;

    /// A session with `frames` of two trades each, and a ledger of `sent` such frames.
    fn world(frames: u32, sent: u32, ended: bool) -> (Found, BTreeMap<u64, Connection>, SessionId) {
        let session = SessionId::generate();
        let trades = u64::from(frames) * 2;
        let end = ended.then(|| SessionEnd {
            shard: "s".into(),
            frames,
            records: [trades, 0, 0],
            partitions: None,
            last_received_at: None,
            reason: "shutdown".into(),
            opened: None,
        });
        let all = trades.checked_sub(1).map(|last| (Stream::Trades.into(), Intervals::of(0, last)));
        let seqs = all.into_iter().collect();
        let frames = (1..=frames).map(|n| (n, FrameCount::of(2, 0))).collect();
        let count = SessionCount { seqs, frames, end, shard: Some("s".into()), ..SessionCount::default() };
        let found = Found { sessions: [(session, count)].into(), archived: [trades, 0, 0], ..Found::default() };
        let frames = (1..=sent).map(|number| Sent { number, trades: 2, bad: 0 }).collect();
        (found, [(1, Connection { session: Some(session), frames })].into(), session)
    }

    /// What is found where the fourth frame was `sent` and what is there of it is `there`.
    fn fourth(sent: Sent, there: FrameCount) -> Report {
        let (mut found, mut ledger, session) = world(10, 10, true);
        ledger.get_mut(&1).unwrap().frames[3] = Sent { number: 4, ..sent };
        found.sessions.get_mut(&session).unwrap().frames.insert(4, there);
        report(&found, Some(&ledger))
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
        let report = report(&found, Some(&ledger));
        assert_eq!((report.lost, report.faults), (4, 1), "and the missing end is a fault: {report:?}");
        assert_eq!(report.cut_off.into_values().collect::<Vec<_>>(), [4]);
        let (found, ledger, session) = world(10, 10, false);
        let report = super::report(&found, Some(&ledger));
        assert_eq!((report.lost, report.faults), (0, 1), "it may have received more");
        assert_eq!(report.cut_off, [(session, 0)].into());
    }

    #[test]
    fn behind_what_the_spool_has_of_a_living_session_nothing_is_lost_yet() {
        let (mut found, ledger, session) = world(10, 12, false);
        found.sessions.get_mut(&session).unwrap().living = Some(10);
        let killed = report(&found, Some(&ledger));
        assert!(killed.is_clean() && killed.notes.len() == 1, "{killed:?}");
        assert_eq!((killed.not_received, killed.lost), (Some(4), 0));
        // The control: the spool says that it has one frame more, and it is not there.
        found.sessions.get_mut(&session).unwrap().living = Some(11);
        let report = report(&found, Some(&ledger));
        assert_eq!((report.lost, report.cut_off.len()), (2, 0), "it is not cut off: its spool is here");
    }

    #[test]
    fn a_session_of_which_nothing_is_there_is_lost_whole() {
        let (found, ledger, _) = world(10, 12, true);
        let gone = Found { archived: found.archived, ..Found::default() };
        let report = report(&gone, Some(&ledger));
        assert_eq!((report.lost, report.not_received), (24, Some(0)), "{report:?}");
        assert_eq!(report.cut_off.into_values().collect::<Vec<_>>(), [24]);
    }

    #[test]
    fn what_was_sent_to_no_daemon_of_ours_is_not_received() {
        let (_, mut ledger, _) = world(10, 12, true);
        ledger.get_mut(&1).unwrap().session = None;
        let report = report(&Found::default(), Some(&ledger));
        assert_eq!((report.is_clean(), report.not_received), (true, Some(24)));
    }

    #[test]
    fn a_bad_frame_is_in_quarantine_and_not_among_the_trades() {
        let bad = Sent { number: 4, trades: 0, bad: 1 };
        let of = |trades, quarantined| fourth(bad, FrameCount::of(trades, quarantined));
        assert!(of(0, 1).is_clean());
        assert_eq!((of(0, 0).lost, of(0, 2).duplicated, of(1, 1).duplicated), (1, 1, 1));
        let taken = of(1, 0);
        assert_eq!((taken.faults, taken.lost, taken.duplicated), (1, 0, 0), "{taken:?}");
        assert!(taken.findings[0].contains("1 bad records are archived as trades"), "{taken:?}");
    }

    #[test]
    fn of_a_mixed_frame_each_element_is_where_it_belongs() {
        let mixed = Sent { number: 4, trades: 2, bad: 1 };
        let of = |trades, quarantined| fourth(mixed, FrameCount::of(trades, quarantined));
        assert!(of(2, 1).is_clean());
        assert_eq!((of(2, 0).lost, of(1, 1).lost, of(3, 0).faults, of(2, 2).duplicated), (1, 1, 1, 1));
        assert!(of(1, 2).is_clean(), "one that is too strange for us is there all the same, and counted");
    }

    #[test]
    fn a_bad_frame_behind_all_that_is_there_is_lost_unless_that_is_declared() {
        let (mut found, mut ledger, session) = world(10, 10, true);
        ledger.get_mut(&1).unwrap().frames.push(Sent { number: 11, trades: 0, bad: 1 });
        assert!(report(&found, Some(&ledger)).is_clean());
        found.sessions.get_mut(&session).unwrap().end.as_mut().unwrap().frames = 11;
        assert_eq!(report(&found, Some(&ledger)).lost, 1);
    }

    #[test]
    fn what_was_never_sent_is_a_fault() {
        let (found, mut ledger, _) = world(10, 10, true);
        ledger.get_mut(&1).unwrap().frames.remove(3);
        let report = report(&found, Some(&ledger));
        assert_eq!((report.faults, report.lost, report.duplicated), (1, 0, 0), "{report:?}");
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
        let seqs = &mut found.sessions.get_mut(&session).unwrap().seqs;
        seqs.insert(Stream::Trades.into(), Intervals::of(0, 17));
        assert_eq!(report(&found, None).lost, 2);
    }

    #[test]
    fn who_has_told_of_the_most_of_a_session_is_believed() {
        let (mut found, ledger, session) = world(10, 12, true);
        let gap = Gap {
            shard: "s".into(),
            symbols: vec![],
            previous_session: session,
            last_frame: 11,
            last_received_at: None,
            first_received_at: None,
            reason: "stalled".into(),
            opened: None,
        };
        found.gaps.push(gap);
        let report = report(&found, Some(&ledger));
        assert_eq!((report.lost, report.not_received), (2, Some(2)), "it ended on a copy, and lived on: {report:?}");
    }

    #[test]
    fn more_than_the_end_tells_of_is_a_fault_unless_the_session_outlived_it() {
        let (mut found, _, session) = world(10, 10, true);
        let of = |found: &mut Found, frames, trades| {
            let end = found.sessions.get_mut(&session).unwrap().end.as_mut().unwrap();
            (end.frames, end.records) = (frames, [trades, 0, 0]);
        };
        of(&mut found, 10, 19);
        let told = report(&found, None);
        assert_eq!((told.faults, told.lost), (1, 0), "{told:?}");
        of(&mut found, 9, 18);
        let copied = report(&found, None);
        assert!(copied.is_clean() && copied.notes[0].contains("a copy of the spool"), "{copied:?}");
    }

    #[test]
    fn what_is_missing_by_its_number_and_in_the_ledger_is_lost_once() {
        let (mut found, ledger, session) = world(10, 11, false);
        let count = found.sessions.get_mut(&session).unwrap();
        count.frames.remove(&4);
        let mut there = Intervals::of(0, 5);
        there.insert_all(8, 19);
        count.seqs.insert(Stream::Trades.into(), there);
        assert_eq!(report(&found, Some(&ledger)).lost, 2 + 2, "a frame in the middle, and one that nothing tells of");
    }

    #[test]
    fn more_records_than_trades_are_doubled() {
        let (mut found, ledger, session) = world(10, 10, true);
        found.sessions.get_mut(&session).unwrap().frames.insert(4, FrameCount::of(3, 0));
        assert_eq!(report(&found, Some(&ledger)).duplicated, 1);
    }
}
