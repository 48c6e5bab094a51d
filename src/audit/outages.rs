//! Holds sessions against their ends, and the outages between them against their gaps.
//!
//! Where no ledger tells of it, only these say that the tail of a session, or all of one, is gone: a session
//! subscribes after its opening is durable, a successor writes the end of one that died, and the first frame
//! of the next one brings the gap (`spool/state.rs`).

use std::collections::{BTreeMap, BTreeSet};

use super::found::{Found, SessionCount};
use super::report::Report;
use crate::domain::entry::Gap;
use crate::domain::identity::SessionId;
use crate::domain::stream::Stream;

/// Each session has ended, and each outage is told by one gap, which says how long it was.
pub(super) fn check(found: &Found, report: &mut Report) {
    ends(found, report);
    gaps(found, report);
}

fn ends(found: &Found, report: &mut Report) {
    let mut expired = 0;
    for (session, count) in found.sessions.iter().filter(|(_, count)| count.end.is_none()) {
        match count.living {
            None if found.end_has_expired(*session) => expired += 1,
            Some(_) => report.note(|| format!("session {session} has not ended: the next start declares what it missed")),
            None => {
                report.cut_off.entry(*session).or_default();
                report.fault(|| {
                    format!("session {session} has no end, and the spool does not know it: what it received last may be lost")
                });
            }
        }
    }
    if expired > 0 {
        report.note(|| format!("the ends of {expired} sessions have expired, of which there is something else"));
    }
}

fn has_received(count: &SessionCount) -> bool {
    !count.frames.is_empty() || count.told() > Some(0)
}

/// Whether more is there of a session than its end tells of: it ended on a copy of the spool, and lived on.
pub(super) fn has_outlived_its_end(count: &SessionCount) -> bool {
    count.end.as_ref().is_some_and(|end| count.last() > Some(end.frames))
}

fn gaps(found: &Found, report: &mut Report) {
    let mut begun = BTreeSet::new();
    let mut named = BTreeMap::<SessionId, u32>::new();
    for gap in found.sessions.values().flat_map(|count| &count.gaps) {
        *named.entry(gap.previous_session).or_default() += 1;
    }
    for (session, times) in named.iter().filter(|(_, times)| **times > 1) {
        report.note(|| format!("session {session} has {times} successors: a daemon ran on a copy of the spool"));
    }
    // Where a copy of the spool has ended a session that lived on, the gap before that one is nowhere.
    let unnamed = found.sessions.values().filter(|count| has_outlived_its_end(count) && count.gaps.is_empty());
    let copied: BTreeSet<_> = unnamed.filter_map(|count| count.shard.as_ref()).collect();
    for (session, count) in found.sessions.iter().filter(|(_, count)| has_received(count)) {
        // Without a shard it has neither end nor gap, which was told.
        let Some(shard) = &count.shard else { continue };
        if count.gaps.len() > 1 {
            report.fault(|| format!("the outage before session {session} is told by {} gaps", count.gaps.len()));
        }
        let gap = count.gaps.first();
        let previous = gap.and_then(|gap| Some((gap, found.sessions.get(&gap.previous_session)?)));
        match (gap, previous) {
            (Some(gap), None) if found.may_have_expired(gap.previous_session, Stream::Gaps) => {}
            (Some(gap), None) => report.fault(|| {
                let previous = gap.previous_session;
                format!("the gap before session {session} begins with session {previous}, of which nothing else is known")
            }),
            (Some(gap), Some((_, previous))) if has_received(previous) && previous.shard.as_ref() == Some(shard) => {
                bracket(report, (*session, count), gap, previous, named.get(&gap.previous_session) == Some(&1));
            }
            // On both a spool and a copy of it, the first one that received anything.
            (Some(gap), Some(_)) if named.get(&gap.previous_session) > Some(&1) || copied.contains(shard) => {}
            // The first one of its shard that received anything.
            _ if begun.insert(shard) => {}
            // Its gap has expired, or what told of the shard of the session before it.
            _ if found.may_have_expired(gap.map_or(*session, |gap| gap.previous_session), Stream::Gaps) => {}
            // What a chain hears of a session behind its end is a repeat, gaps included (ADR 6).
            _ if has_outlived_its_end(count) => report.note(|| {
                format!(
                    "a daemon on a copy of the spool ended session {session} while it lived: no gap tells of the outage before it"
                )
            }),
            _ => {
                report.fault(|| format!("the outage of {shard} before session {session} is told by no gap from its beginning on"))
            }
        }
    }
}

/// A gap lasts from the last receipt of the session before to the first one of the session that brings it.
fn bracket(report: &mut Report, (session, count): (SessionId, &SessionCount), gap: &Gap, previous: &SessionCount, only: bool) {
    if let Some(end) = previous.end.as_ref().filter(|_| only) {
        let (says, is) = ((gap.last_frame, gap.last_received_at), (end.frames, end.last_received_at));
        let what = || {
            format!("the gap before session {session} begins at {says:?} (frame, receipt), the session before it ended at {is:?}")
        };
        // By the frame first: a clock may be set back within a session.
        if says > is && !has_outlived_its_end(previous) {
            report.fault(what);
        } else if says != is {
            report.note(what); // so does one that was told of on a copy of the spool; it hides nothing
        }
    }
    let until = gap.first_received_at;
    if count.first.is_some_and(|(frame, at)| frame == 1 && Some(at) != until) {
        report.fault(|| format!("the gap before session {session} ends at {until:?}, its first frame came at {:?}", count.first));
    }
    if gap.last_received_at > until {
        if count.first.is_some_and(|(_, at)| Some(at) < gap.last_received_at) {
            report.note(|| format!("the clock was set back before session {session}: its gap ends before it begins"));
        } else {
            report.fault(|| format!("the gap before session {session} ends before it begins"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::found::FrameCount;
    use super::super::report::report;
    use super::*;
    use crate::domain::entry::SessionEnd;

    /// A shard's sessions, one after the other: each received one frame, and has its gap and its end.
    fn shard(sessions: usize) -> (Found, Vec<SessionId>) {
        let ids: Vec<_> = (0..sessions).map(|_| SessionId::generate()).collect();
        let mut found = Found::default();
        for (place, id) in ids.iter().enumerate() {
            let at = place as i64 * 100;
            let end = SessionEnd {
                shard: "s".into(),
                frames: 1,
                records: [0; 3],
                partitions: None,
                last_received_at: Some(at),
                reason: "stalled".into(),
                opened: None,
            };
            let gap = |previous: &SessionId| Gap {
                shard: "s".into(),
                symbols: vec![],
                previous_session: *previous,
                last_frame: 1,
                last_received_at: Some(at - 100),
                first_received_at: Some(at),
                reason: "stalled".into(),
                opened: None,
            };
            let count = SessionCount {
                frames: [(1, FrameCount::of(1, 0))].into(),
                first: Some((1, at)),
                shard: Some("s".into()),
                gaps: place.checked_sub(1).map(|before| gap(&ids[before])).into_iter().collect(),
                end: Some(end),
                ..SessionCount::default()
            };
            found.sessions.insert(*id, count);
        }
        (found, ids)
    }

    /// The one thing that is said of a shard of three that was changed so.
    fn of_three(change: impl FnOnce(&mut Found, &[SessionId])) -> String {
        let (mut found, ids) = shard(3);
        change(&mut found, &ids);
        let report = report(&found, None);
        assert_eq!((report.faults, report.findings.len(), report.lost), (1, 1, 0), "{report:?}");
        report.findings[0].clone()
    }

    fn of(found: &mut Found, id: SessionId) -> &mut SessionCount {
        found.sessions.get_mut(&id).unwrap()
    }

    #[test]
    fn sessions_with_their_ends_and_gaps_are_well() {
        let report = report(&shard(3).0, None);
        assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
    }

    #[test]
    fn a_session_without_an_end_is_a_fault_unless_it_lives() {
        let said = of_three(|found, ids| of(found, ids[1]).end = None);
        assert!(said.contains("has no end"), "{said}");
        let (mut found, ids) = shard(2);
        (of(&mut found, ids[1]).end, of(&mut found, ids[1]).living) = (None, Some(1));
        let report = report(&found, None);
        assert!(report.is_clean() && report.notes.len() == 1, "{report:?}");
        assert!(report.notes[0].contains("has not ended: the next start declares what it missed"), "{report:?}");
    }

    #[test]
    fn one_that_was_opened_and_of_which_nothing_came_needs_an_end_and_no_gap() {
        let said = of_three(|found, _| drop(found.sessions.insert(SessionId::generate(), SessionCount::default())));
        assert!(said.contains("has no end"), "{said}");
        let (mut found, ids) = shard(2);
        let mut silent = of(&mut found, ids[0]).clone();
        silent.end.as_mut().unwrap().frames = 0;
        found.sessions.insert(SessionId::generate(), SessionCount { frames: Default::default(), first: None, ..silent });
        assert!(report(&found, None).is_clean());
    }

    #[test]
    fn an_outage_without_a_gap_and_one_with_two_are_faults() {
        let said = of_three(|found, ids| of(found, ids[2]).gaps.clear());
        assert!(said.contains("before session") && said.contains("no gap"), "{said}");
        let said = of_three(|found, ids| {
            let again = of(found, ids[2]).gaps[0].clone();
            of(found, ids[2]).gaps.push(again);
        });
        assert!(said.contains("2 gaps"), "{said}");
        let said = of_three(|found, ids| of(found, ids[2]).gaps[0].previous_session = SessionId::generate());
        assert!(said.contains("of which nothing else is known"), "{said}");
    }

    #[test]
    fn a_gap_begins_with_the_last_session_that_received_anything() {
        let silent = |found: &mut Found, id: SessionId| {
            let count = of(found, id);
            (count.frames, count.first, count.end.as_mut().unwrap().frames) = (BTreeMap::new(), None, 0);
        };
        let said = of_three(|found, ids| {
            silent(found, ids[1]);
            of(found, ids[1]).gaps.clear();
            of(found, ids[2]).gaps[0].last_frame = 0;
        });
        assert!(said.contains("from its beginning on"), "{said}");
        let (mut found, ids) = shard(3);
        silent(&mut found, ids[0]);
        of(&mut found, ids[2]).gaps[0].previous_session = ids[0];
        let copied = report(&found, None);
        assert!(copied.is_clean() && copied.notes.len() == 1, "one ran on a spool, one on its copy: {copied:?}");
        let (mut found, ids) = shard(3);
        of(&mut found, ids[2]).gaps.clear();
        of(&mut found, ids[2]).end.as_mut().unwrap().frames = 0;
        let ended = report(&found, None);
        assert!(ended.is_clean() && ended.notes.len() == 1, "the copy ended it before its first frame came: {ended:?}");
        let (mut found, ids) = shard(3);
        of(&mut found, ids[1]).end.as_mut().unwrap().frames = 0;
        let went_on = report(&found, None);
        assert!(went_on.is_clean() && went_on.notes.len() == 1, "and it went on: the gap behind it knows better: {went_on:?}");
    }

    #[test]
    fn a_gap_that_is_shorter_than_the_outage_is_a_fault() {
        let said = of_three(|found, ids| of(found, ids[2]).gaps[0].last_received_at = Some(150));
        assert!(said.contains("the session before it ended at (1, Some(100))"), "{said}");
        let said = of_three(|found, ids| of(found, ids[2]).gaps[0].last_frame = 7);
        assert!(said.contains("begins at (7,"), "{said}");
        let (mut found, ids) = shard(3);
        of(&mut found, ids[2]).gaps[0].last_received_at = Some(50);
        let longer = report(&found, None);
        assert!(longer.is_clean() && longer.notes[0].contains("begins at (1, Some(50))"), "{longer:?}");
        let said = of_three(|found, ids| of(found, ids[2]).gaps[0].first_received_at = Some(180));
        assert!(said.contains("its first frame came at"), "{said}");
        let said = of_three(|found, ids| {
            of(found, ids[2]).first = Some((3, 200)); // the first ones were pings
            of(found, ids[2]).gaps[0].first_received_at = Some(50);
        });
        assert!(said.contains("ends before it begins"), "{said}");
    }

    #[test]
    fn a_clock_that_was_set_back_and_a_copy_of_the_spool_are_told_and_are_no_faults() {
        let (mut found, ids) = shard(3);
        (of(&mut found, ids[2]).first, of(&mut found, ids[2]).gaps[0].first_received_at) = (Some((1, 30)), Some(30));
        let set_back = report(&found, None);
        assert!(set_back.is_clean() && set_back.notes[0].contains("set back"), "{set_back:?}");
        let (mut found, ids) = shard(3);
        of(&mut found, ids[2]).gaps[0] = of(&mut found, ids[1]).gaps[0].clone();
        of(&mut found, ids[2]).gaps[0].first_received_at = Some(200);
        let copied = report(&found, None);
        assert!(copied.is_clean() && copied.notes[0].contains("copy of the spool"), "{copied:?}");
    }
}
