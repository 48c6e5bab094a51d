//! Marks between the entries: what stands before one was durable when it was written.
//!
//! After a crash, bytes that are no entry are either a torn tail, which nobody was answered for, or
//! damage to what was durable. A mark behind them says that it is damage, how many records it took, and
//! where reading goes on. It is written after the fsync and not fsynced itself: a killed process leaves
//! it, a power cut may take the last one.

use serde::{Deserialize, Serialize};

use super::segment::{ENTRY_HEADER, frame, next_frame};
use super::state::{LogState, SessionState};
use crate::domain::entry::PRELUDE;
use crate::domain::identity::{LogId, Micros, SessionId};
use crate::domain::per_chain::PerChain;

/// Begins the body of a mark, in the place of an entry's prelude: a kind that no entry has, and no
/// records.
const PRELUDE_OF_MARKS: [u8; PRELUDE] = {
    let mut prelude = [0; PRELUDE];
    prelude[0] = 5;
    prelude
};

/// Where a mark stands, so that none is taken for one that only looks like it: a payload may hold any
/// bytes, but who sends it does not know the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The log.
    pub log: LogId,
    /// The number of the segment.
    pub segment: u32,
    /// The byte of the segment's file at which the mark begins.
    pub at: u64,
}

/// A mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    place: Place,
    says: Says,
}

/// What the log says up to a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Says {
    /// All: something but frames came since the mark before.
    All(LogState),
    /// How far the frames got.
    Frames {
        /// [`LogState::changes`].
        changes: u64,
        /// [`LogState::next`].
        next: PerChain<u64>,
        /// The sessions that live.
        sessions: Vec<(SessionId, Progress)>,
    },
}

/// What frames change of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    frames: u32,
    records: PerChain<u64>,
    last_received_at: Option<Micros>,
}

/// Whether the body of a frame is a mark.
pub fn is_mark(body: &[u8]) -> bool {
    body.starts_with(&PRELUDE_OF_MARKS)
}

impl Mark {
    /// The mark at `place` in a log that says `state`, if what said all of it before was at `told`
    /// changes.
    pub fn new(place: Place, state: &LogState, told: u64) -> Mark {
        let living = || state.sessions.iter().filter(|(_, session)| session.ended.is_none());
        let says = if state.changes == told {
            let sessions = living().map(|(id, session)| (*id, Progress::of(session))).collect();
            Says::Frames { changes: state.changes, next: state.next.clone(), sessions }
        } else {
            Says::All(state.clone())
        };
        Mark { place, says }
    }

    /// Its bytes in the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = PRELUDE_OF_MARKS.to_vec();
        serde_json::to_writer(&mut body, self).expect("a mark has only string keys");
        let mut bytes = Vec::with_capacity(ENTRY_HEADER + body.len());
        frame(&body, &mut bytes);
        bytes
    }

    /// The next place, by chain.
    pub fn next(&self) -> &PerChain<u64> {
        match &self.says {
            Says::All(state) => &state.next,
            Says::Frames { next, .. } => next,
        }
    }

    /// The byte of the file at which it begins.
    pub fn at(&self) -> u64 {
        self.place.at
    }

    /// What the log says here, told by one who knows what it said at some place before: `false`, and
    /// nothing told, if more than frames came between the two.
    pub fn tell(&self, known: &mut LogState) -> bool {
        match &self.says {
            Says::All(state) => known.clone_from(state),
            Says::Frames { changes, next, sessions } if *changes == known.changes => {
                known.next.clone_from(next);
                for (id, progress) in sessions {
                    if let Some(session) = known.sessions.get_mut(id) {
                        progress.tell(session);
                    }
                }
            }
            Says::Frames { .. } => return false,
        }
        true
    }

    /// The marks in `bytes`, which begin at the byte `from.at` of the file that `from` names.
    pub fn find(bytes: &[u8], from: Place) -> impl Iterator<Item = Mark> {
        let kinds = bytes.windows(PRELUDE).enumerate().filter(|(_, window)| is_mark(window));
        let starts = kinds.filter_map(|(body_at, _)| body_at.checked_sub(ENTRY_HEADER));
        starts.filter_map(move |at| {
            let (crc, body) = next_frame(&bytes[at..])?;
            let json = body.strip_prefix(&PRELUDE_OF_MARKS).filter(|_| crc32c::crc32c(body) == crc)?;
            let mark: Mark = serde_json::from_slice(json).ok()?;
            (mark.place == Place { at: from.at + at as u64, ..from }).then_some(mark)
        })
    }
}

impl Progress {
    fn of(session: &SessionState) -> Progress {
        Progress { frames: session.frames, records: session.records.clone(), last_received_at: session.last_received_at }
    }

    fn tell(&self, session: &mut SessionState) {
        (session.frames, session.last_received_at) = (self.frames, self.last_received_at);
        session.records.clone_from(&self.records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(at: u64) -> Place {
        Place { log: LogId::generate(), segment: 3, at }
    }

    #[test]
    fn a_mark_is_found_where_it_was_written_and_nowhere_else() {
        let place = place(1000);
        let mark = Mark::new(place, &LogState::default(), 0);
        let bytes = [&[7; 50][..], &mark.encode(), &[5, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let find = |from: Place| Mark::find(&bytes, from).collect::<Vec<_>>();
        assert_eq!(find(Place { at: 950, ..place }), [mark]);
        assert_eq!(find(Place { at: 951, ..place }), [], "copied to another place");
        assert_eq!(find(Place { at: 950, segment: 4, ..place }), []);
        assert_eq!(find(Place { at: 950, log: LogId::generate(), ..place }), []);
        for end in 0..bytes.len() - 9 {
            assert_eq!(Mark::find(&bytes[..end], Place { at: 950, ..place }).count(), 0, "cut short");
        }
    }

    #[test]
    fn who_missed_more_than_frames_is_told_nothing_by_frames_alone() {
        let known = LogState { changes: 4, ..LogState::default() };
        let now = LogState { changes: 5, next: [9, 8, 7].into(), ..LogState::default() };
        let mut told = known.clone();
        assert!(!Mark::new(place(0), &now, 5).tell(&mut told));
        assert_eq!(told, known);
        assert!(Mark::new(place(0), &now, 4).tell(&mut told));
        assert_eq!(told, now);
    }
}
