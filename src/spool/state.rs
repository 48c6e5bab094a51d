//! What a log says: offsets by stream, and for each session how far it got. The writer keeps it
//! while it appends; after a crash it comes out of the last segment's header and entries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::chain::ChainId;
use crate::domain::entry::{Control, Entry, Gap, Opened, SessionEnd};
use crate::domain::hour::Hour;
use crate::domain::identity::{Delivery, LogId, Micros, Origin, SessionId};
use crate::domain::partition::symbol_partition;
use crate::domain::per_chain::PerChain;
use crate::domain::stream::Stream;

/// How far a session got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// What it serves.
    pub shard: String,
    /// Its symbols.
    pub symbols: Vec<String>,
    /// The last frame in the log.
    pub frames: u32,
    /// The next sequence number, by chain.
    pub records: PerChain<u64>,
    /// Where its opening stands; none where an earlier version wrote it.
    #[serde(default)]
    pub opened: Option<Origin>,
    /// When its last frame was read.
    pub last_received_at: Option<Micros>,
    /// Why it ended; `None` while it lives or if it died without a word.
    pub ended: Option<String>,
    /// The session before it, until the gap between the two is in the log.
    pub after: Option<Previous>,
}

/// The session before, as the gap record needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    session: SessionId,
    last_frame: u32,
    last_received_at: Option<Micros>,
    reason: String,
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The log. One that an earlier version wrote does not say.
    #[serde(default)]
    pub log: LogId,
    /// The next place, by chain.
    pub next: PerChain<u64>,
    /// Living sessions, and of each shard the last one.
    pub sessions: BTreeMap<SessionId, SessionState>,
    /// Of each shard the last session.
    pub shards: BTreeMap<String, SessionId>,
    /// The last hour whose turn is told of, in this log or in one before it; none before the first.
    #[serde(default)]
    pub hour: Option<Hour>,
    /// How many entries that are no frames it heard of. Frames change only how far a session got.
    pub changes: u64,
}

/// A place that no log ever has. Fits into Avro's long.
const NOWHERE: u64 = i64::MAX as u64;

impl LogState {
    /// What the new log `log` takes over from the one of the life before: sessions and the hour, not places.
    pub fn inherit(&self, log: LogId, partitions: u32) -> LogState {
        let mut inherited = LogState { log, next: PerChain::of(partitions), ..self.clone() };
        for session in inherited.sessions.values_mut() {
            session.records.widen(partitions);
            // In the chain where its end will stand, nobody has read its opening.
            if symbol_partition(session.shard.as_bytes(), partitions) != self.gaps_of(&session.shard).partition {
                session.opened = session.opened.map(|Origin { log, .. }| Origin { log, place: NOWHERE });
            }
        }
        inherited
    }

    /// How many partitions each stream has in this log.
    pub fn partitions(&self) -> u32 {
        self.next.partitions()
    }

    /// The chain in which gaps and ends of a shard stand.
    pub fn gaps_of(&self, shard: &str) -> ChainId {
        ChainId { stream: Stream::Gaps, partition: symbol_partition(shard.as_bytes(), self.partitions()) }
    }

    /// Notes an entry that stands in the log.
    pub fn apply(&mut self, entry: &Entry) {
        self.changes += u64::from(!matches!(entry, Entry::Frame { .. }));
        match entry {
            Entry::Opened(opened) => self.opened(opened),
            Entry::Tick { hour } => self.hour = Some(*hour),
            Entry::Frame { session, judged, .. } => {
                if let Some(state) = self.sessions.get_mut(session) {
                    state.frames = judged.frame.number;
                    state.last_received_at = Some(judged.frame.received_at);
                    entry.each_place(self.next.partitions(), |chain| state.records[chain] += 1);
                }
            }
            Entry::Control { delivery, control, .. } => {
                let gaps = self.gaps_of(control.shard());
                if let Some(state) = self.sessions.get_mut(&delivery.session) {
                    state.records[gaps] += 1;
                    match control {
                        Control::Gap(gap) if gap.first_received_at.is_some() => state.after = None,
                        Control::Gap(_) => {}
                        Control::SessionEnd(end) => {
                            state.ended = Some(end.reason.clone());
                            state.frames = state.frames.max(end.frames);
                        }
                    }
                }
            }
        }
        entry.each_place(self.next.partitions(), |chain| self.next[chain] += 1);
    }

    fn opened(&mut self, opened: &Opened) {
        let before = self.shards.insert(opened.shard.clone(), opened.session);
        let after = before.and_then(|session| {
            let last = self.sessions.remove(&session)?;
            // One that never received anything leaves the outage open that was there before it.
            last.after.or(Some(Previous {
                session,
                last_frame: last.frames,
                last_received_at: last.last_received_at,
                reason: last.ended.unwrap_or_else(|| "unknown".to_string()),
            }))
        });
        let state = SessionState {
            shard: opened.shard.clone(),
            symbols: opened.symbols.clone(),
            frames: 0,
            records: PerChain::of(self.partitions()),
            opened: Some(Origin { log: self.log, place: self.next[self.gaps_of(&opened.shard)] }),
            last_received_at: None,
            ended: None,
            after,
        };
        self.sessions.insert(opened.session, state);
    }

    /// The end of `session`, to be written by itself or by its successor; `None` if it has ended or
    /// is not known.
    pub fn end_of(&self, session: SessionId, frames: u32, at: Micros, reason: &str) -> Option<Entry> {
        let state = self.sessions.get(&session).filter(|state| state.ended.is_none())?;
        let frames = frames.max(state.frames);
        let control = Control::SessionEnd(SessionEnd {
            shard: state.shard.clone(),
            frames,
            records: state.records.totals(),
            partitions: (state.records.partitions() > 1).then(|| state.records.clone()),
            last_received_at: state.last_received_at,
            reason: reason.to_string(),
            opened: state.opened,
        });
        let delivery = Delivery { session, frame: frames.saturating_add(1), index: 0 };
        Some(Entry::Control { delivery, seq: state.records[self.gaps_of(&state.shard)], at, control })
    }

    /// The gap between `session` and the one before it, closed by its first receipt; `None` if there
    /// was none before or the gap is in the log already.
    pub fn gap_before(&self, session: SessionId, first_received_at: Micros) -> Option<Entry> {
        let state = self.sessions.get(&session)?;
        let previous = state.after.as_ref()?;
        let control = Control::Gap(Gap {
            shard: state.shard.clone(),
            symbols: state.symbols.clone(),
            previous_session: previous.session,
            last_frame: previous.last_frame,
            last_received_at: previous.last_received_at,
            first_received_at: Some(first_received_at),
            reason: previous.reason.clone(),
            opened: state.opened,
        });
        let (delivery, seq) = (Delivery { session, frame: 0, index: 0 }, state.records[self.gaps_of(&state.shard)]);
        Some(Entry::Control { delivery, seq, at: first_received_at, control })
    }

    /// Living sessions: those whose end is not in the log.
    pub fn living(&self) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, state)| state.ended.is_none()).map(|(session, _)| *session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(state: &mut LogState) -> SessionId {
        let session = SessionId::generate();
        let opened = Opened { session, shard: "shard-1".into(), symbols: vec!["AAPL".into()], at: 1 };
        state.apply(&Entry::Opened(opened));
        session
    }

    #[test]
    fn an_end_in_another_chain_than_the_opening_names_a_place_that_is_never_read() {
        let mut before = LogState { next: PerChain::of(12), ..LogState::default() };
        let shards: Vec<_> = (0..40).map(|shard| format!("shard-{shard}")).collect();
        let sessions = shards.iter().map(|shard| {
            let opened = Opened { session: SessionId::generate(), shard: shard.clone(), symbols: vec![], at: 1 };
            before.apply(&Entry::Opened(opened.clone()));
            opened.session
        });
        let sessions: Vec<_> = sessions.collect();
        let after = before.inherit(LogId::generate(), 18);
        let mut moved = 0;
        for (session, shard) in sessions.iter().zip(&shards) {
            let Some(Entry::Control { control, .. }) = after.end_of(*session, 0, 5, "process_died") else { panic!("{shard}") };
            let is_moved = before.gaps_of(shard) != after.gaps_of(shard);
            assert_eq!(control.opened().map(|opened| opened.place == NOWHERE), Some(is_moved), "{shard}");
            moved += u32::from(is_moved);
        }
        assert!((1..40).contains(&moved), "{moved}");
        assert_eq!(before.inherit(LogId::generate(), 12).sessions, before.sessions, "as many partitions");
    }

    #[test]
    fn a_successor_writes_the_end_of_the_dead_and_the_gap_between() {
        let mut state = LogState::default();
        let first = open(&mut state);
        assert_eq!(state.gap_before(first, 9), None, "nothing was before the first");
        let mut state = state.inherit(LogId::generate(), 1);
        let end = state.end_of(first, 0, 5, "process_died").unwrap();
        state.apply(&end);
        assert_eq!(state.end_of(first, 0, 5, "again"), None);
        let second = open(&mut state);
        let gap = state.gap_before(second, 9).unwrap();
        let Entry::Control { control: Control::Gap(found), delivery, .. } = &gap else { panic!("{gap:?}") };
        assert_eq!((found.previous_session, found.reason.as_str(), found.first_received_at), (first, "process_died", Some(9)));
        assert_eq!((delivery.session, delivery.frame), (second, 0));
        state.apply(&gap);
        assert_eq!(state.gap_before(second, 10), None);
        assert_eq!(state.living(), [second]);
        assert_eq!(state.next, [1, 3, 1].into(), "an end, which stands in all, an opening and a gap");
    }
}
