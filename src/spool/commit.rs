//! Requests to the log, staged and made durable together. Pure but for the one fsync.

use fail::fail_point;

use crate::domain::entry::{Control, Entry, Gap, Opened};
use crate::domain::hour::Hour;
use crate::domain::identity::{Delivery, Micros};
use crate::messages::feed::{Append, AppendError, EndSession, OpenSession};

use super::writer::LogWriter;

/// A session that ended so has a gap of its own name: the machine, not the feed, was the cause.
pub const SPOOL_FULL: &str = "spool_full";

/// What the log is asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Frames to append.
    Append(Append),
    /// A connection is up.
    Open(OpenSession),
    /// A connection has ended.
    End(EndSession),
    /// The hour has turned, perhaps while nobody was there.
    Tick(Hour),
}

/// How much room there is.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Bytes of all logs.
    pub used: u64,
    /// `spool.max_bytes`.
    pub max: u64,
    /// `spool.reserve_bytes`: kept for ends and gaps.
    pub reserve: u64,
}

impl Room {
    fn is_full(&self) -> bool {
        self.used + self.reserve > self.max
    }
}

/// Stages all requests and makes them durable; one answer each. If the disk refuses, nothing of
/// them stands and each may be sent again. Blocks.
pub fn commit(log: &mut LogWriter, requests: &[Request], room: Room, now: Micros) -> Vec<Result<(), AppendError>> {
    let mut answers: Vec<_> = requests.iter().map(|request| stage(log, request, room, now)).collect();
    fail_point!("spool.staged");
    if log.is_staged()
        && let Err(error) = log.sync()
    {
        let refused = AppendError::Disk(error.to_string());
        answers.iter_mut().filter(|answer| answer.is_ok()).for_each(|answer| *answer = Err(refused.clone()));
    }
    answers
}

fn stage(log: &mut LogWriter, request: &Request, room: Room, now: Micros) -> Result<(), AppendError> {
    let full = || AppendError::Full { used: room.used, max: room.max };
    match request {
        Request::Append(_) | Request::Open(_) if room.is_full() => Err(full()),
        Request::Append(append) => stage_frames(log, append),
        Request::Open(open) => {
            stage_open(log, open, now);
            Ok(())
        }
        Request::End(end) => {
            stage_end(log, end, now);
            Ok(())
        }
        Request::Tick(hour) => {
            // Else asked again: the answer was lost.
            if hour.turns(log.state().hour) {
                log.stage(&Entry::Tick { hour: *hour });
            }
            Ok(())
        }
    }
}

fn stage_frames(log: &mut LogWriter, append: &Append) -> Result<(), AppendError> {
    let session = append.session;
    let Some(state) = log.state().sessions.get(&session).filter(|state| state.ended.is_none()) else {
        return Err(AppendError::NotOpen(session));
    };
    let done = state.frames;
    if let Some(first) = append.frames.first()
        && let Some(gap) = log.state().gap_before(session, first.frame.received_at)
    {
        log.stage(&gap);
    }
    for judged in append.frames.iter().filter(|judged| judged.frame.number > done) {
        let seq = *log.state().sessions[&session].records.first();
        log.stage(&Entry::Frame { session, seq, judged: judged.clone() });
    }
    Ok(())
}

fn stage_open(log: &mut LogWriter, open: &OpenSession, now: Micros) {
    let state = log.state();
    if state.sessions.contains_key(&open.session) {
        return; // asked again: the answer was lost
    }
    // Its successor tells of a session that died without a word.
    if let Some(end) = state.shards.get(&open.shard.name).and_then(|before| state.end_of(*before, 0, now, "session_died")) {
        log.stage(&end);
    }
    log.stage(&Entry::Opened(Opened {
        session: open.session,
        shard: open.shard.name.clone(),
        symbols: open.shard.symbols.to_vec(),
        at: now,
    }));
}

fn stage_end(log: &mut LogWriter, end: &EndSession, now: Micros) {
    if end.reason == SPOOL_FULL
        && let Some(gap) = open_gap(log, end, now)
    {
        log.stage(&gap);
    }
    if let Some(entry) = log.state().end_of(end.session, end.frames, now, &end.reason) {
        log.stage(&entry);
    }
}

/// The gap that begins now, so that the outage can be seen while it lasts.
fn open_gap(log: &LogWriter, end: &EndSession, at: Micros) -> Option<Entry> {
    let state = log.state().sessions.get(&end.session).filter(|state| state.ended.is_none())?;
    // The session may not know how far it got: the answer to its last frames was lost.
    let frames = end.frames.max(state.frames);
    let control = Control::Gap(Gap {
        shard: state.shard.clone(),
        symbols: state.symbols.clone(),
        previous_session: end.session,
        last_frame: frames,
        last_received_at: end.last_received_at.max(state.last_received_at),
        first_received_at: None,
        reason: end.reason.clone(),
        opened: state.opened,
    });
    let delivery = Delivery { session: end.session, frame: frames.saturating_add(1), index: 1 };
    Some(Entry::Control { delivery, seq: state.records[log.state().gaps_of(&state.shard)], at, control })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::identity::{LogId, SessionId};
    use crate::domain::shard::Shard;
    use crate::domain::stream::Stream;
    use crate::domain::verdict::{Flags, Judged, JudgedFrame, RawFrame, Verdict};
    use crate::spool::state::LogState;

    const ROOM: Room = Room { used: 0, max: 1000, reserve: 100 };

    fn log(dir: &std::path::Path) -> LogWriter {
        LogWriter::create(dir, LogId::generate(), LogState::default(), 1 << 20).unwrap()
    }

    fn open(session: SessionId) -> Request {
        let shard = Shard { name: "shard-1".into(), symbols: Arc::new(["AAPL".to_string()]) };
        Request::Open(OpenSession { session, shard })
    }

    fn append(session: SessionId, numbers: std::ops::RangeInclusive<u32>) -> Request {
        let frames = numbers.map(|number| {
            let frame = RawFrame { number, received_at: 7, payload: "ab".into(), binary: false };
            let elements = vec![Judged { range: 0..2, partition: 0, verdict: Verdict::Trade(Flags::default()) }];
            JudgedFrame { frame, elements, traceparent: None }
        });
        Request::Append(Append { session, frames: frames.collect() })
    }

    fn end(session: SessionId, reason: &str) -> Request {
        Request::End(EndSession { session, frames: 3, last_received_at: Some(7), reason: reason.into() })
    }

    #[test]
    fn a_frame_sent_again_is_done_and_stands_once() {
        let temp = tempfile::tempdir().unwrap();
        let (mut log, session) = (log(temp.path()), SessionId::generate());
        let answers = commit(&mut log, &[open(session), append(session, 1..=3), append(session, 2..=4)], ROOM, 0);
        assert_eq!(answers, [Ok(()), Ok(()), Ok(())]);
        assert_eq!(log.view().end(Stream::Trades), 4);
        assert_eq!(commit(&mut log, &[append(session, 1..=4)], ROOM, 0), [Ok(())]);
        assert_eq!(log.view().end(Stream::Trades), 4);
    }

    #[test]
    fn an_hours_turn_stands_once_over_all_lives() {
        let temp = tempfile::tempdir().unwrap();
        let mut first = log(temp.path());
        commit(&mut first, &[Request::Tick(Hour(7)), Request::Tick(Hour(7)), Request::Tick(Hour(6))], ROOM, 0);
        assert_eq!(first.view().end(Stream::Quarantine), 1, "asked again, or the clock was set back");
        let mut second = LogWriter::create(temp.path(), LogId::generate(), first.state().clone(), 1 << 20).unwrap();
        commit(&mut second, &[Request::Tick(Hour(7))], ROOM, 0);
        assert_eq!(second.view().end(Stream::Quarantine), 0);
        commit(&mut second, &[Request::Tick(Hour(9))], ROOM, 0);
        assert_eq!(second.view().end(Stream::Quarantine), 1);
        commit(&mut second, &[Request::Tick(Hour(2)), Request::Tick(Hour(3))], ROOM, 0);
        assert_eq!(second.view().end(Stream::Quarantine), 3, "the clock had been far ahead, and is right now");
    }

    #[test]
    fn nobody_appends_to_a_session_that_is_not_open() {
        let temp = tempfile::tempdir().unwrap();
        let (mut log, session) = (log(temp.path()), SessionId::generate());
        assert_eq!(commit(&mut log, &[append(session, 1..=1)], ROOM, 0), [Err(AppendError::NotOpen(session))]);
        commit(&mut log, &[open(session), end(session, "disconnected"), end(session, "disconnected")], ROOM, 0);
        assert_eq!(log.view().end(Stream::Gaps), 2, "opened, and ended once");
        assert_eq!(commit(&mut log, &[append(session, 4..=4)], ROOM, 0), [Err(AppendError::NotOpen(session))]);
    }

    #[test]
    fn a_full_spool_takes_only_the_end_and_the_gap() {
        let temp = tempfile::tempdir().unwrap();
        let (mut log, session) = (log(temp.path()), SessionId::generate());
        commit(&mut log, &[open(session), append(session, 1..=3)], ROOM, 0);
        let full = Room { used: 901, ..ROOM };
        let answers = commit(&mut log, &[append(session, 4..=4), open(SessionId::generate()), end(session, SPOOL_FULL)], full, 0);
        assert!(matches!(answers[..], [Err(AppendError::Full { used: 901, max: 1000 }), Err(_), Ok(())]), "{answers:?}");
        assert_eq!(
            Stream::ALL.map(|stream| log.view().end(stream)),
            [3 + 1, 3, 1],
            "an opening, a gap, an end, which stands in all"
        );
    }

    #[test]
    fn a_gap_that_begins_now_lies_behind_all_frames_of_the_log() {
        let temp = tempfile::tempdir().unwrap();
        let (mut log, session) = (log(temp.path()), SessionId::generate());
        // The session says that it got to frame 3: it never heard of the other two.
        commit(&mut log, &[open(session), append(session, 1..=5)], ROOM, 0);
        let Request::End(said) = end(session, SPOOL_FULL) else { unreachable!() };
        let Some(Entry::Control { delivery, control: Control::Gap(gap), .. }) = open_gap(&log, &said, 0) else { panic!() };
        assert_eq!((delivery.frame, delivery.index, gap.last_frame), (6, 1, 5));
    }

    #[test]
    fn the_gap_comes_with_the_first_frame_of_the_next_session() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path());
        let (first, second, third) = (SessionId::generate(), SessionId::generate(), SessionId::generate());
        commit(&mut log, &[open(first), append(first, 1..=3), open(second)], ROOM, 0);
        assert_eq!(log.view().end(Stream::Gaps), 3, "two openings, and the end of the first, by its successor");
        commit(&mut log, &[open(third), append(third, 1..=1)], ROOM, 0);
        assert_eq!(log.view().end(Stream::Gaps), 6, "the end of the second, the third, and one gap since the first");
        let gap = log.state().gap_before(third, 0);
        assert_eq!(gap, None);
        assert_eq!(log.take_gaps(), ["session_died"], "told once, when it is durable");
        assert_eq!(log.take_gaps(), [""; 0]);
    }
}
