//! What of a spool log Kafka has, is being sent, or must be sent again. Pure.
//!
//! A record needs to be sent as long as no slot covers it and it is neither under way nor acknowledged. An
//! acknowledgement holds only as long as the record can still be archived from where it went: not below the chain's
//! tail, not at or past the log's end, not in another incarnation. Every doubt ends in one more copy, which the chain
//! knows as a repeat.

use std::collections::BTreeMap;

use crate::domain::chain::{ChainId, Position};
use crate::domain::identity::LogId;
use crate::domain::intervals::{Intervals, Read};
use crate::domain::per_chain::PerChain;

/// Acknowledged records with rising places and offsets, without a gap in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The last place.
    high: u64,
    /// The offset of the first.
    offset: u64,
    /// Where they went.
    incarnation: LogId,
    /// How often the logs' ends had been asked for when the last of them was acknowledged.
    round: u64,
}

/// One chain's part of a log.
#[derive(Clone, Debug, Default)]
struct Part {
    /// In a slot, or lost for good.
    covered: Intervals,
    /// Under way or acknowledged.
    sent: Intervals,
    /// Acknowledged and not covered, by the first place.
    acknowledged: BTreeMap<u64, Run>,
}

/// How far one log of the spool is forwarded.
#[derive(Clone, Debug)]
pub struct Progress {
    log: LogId,
    parts: PerChain<Part>,
}

impl Progress {
    /// Nothing of the log is known to be anywhere.
    pub fn new(log: LogId, partitions: u32) -> Progress {
        Progress { log, parts: PerChain::of(partitions) }
    }

    /// How many partitions the log has.
    pub fn partitions(&self) -> u32 {
        self.parts.partitions()
    }

    /// Whether a record is to be sent now. It counts as under way from here on.
    pub fn take(&mut self, chain: ChainId, place: u64) -> bool {
        let part = &mut self.parts[chain];
        !part.covered.contains(place) && part.sent.insert(place)
    }

    /// The broker has it.
    pub fn acknowledged(&mut self, chain: ChainId, place: u64, offset: u64, incarnation: LogId, round: u64) {
        let runs = &mut self.parts[chain].acknowledged;
        if let Some((low, run)) = runs.range_mut(..=place).next_back()
            && run.high + 1 == place
            && run.offset + (place - low) == offset
            && run.incarnation == incarnation
        {
            (run.high, run.round) = (place, round);
            return;
        }
        runs.insert(place, Run { high: place, offset, incarnation, round });
    }

    /// The broker does not have it, or nobody knows. It is to be sent again, unless a slot covers it.
    pub fn failed(&mut self, chain: ChainId, place: u64) {
        self.parts[chain].sent.remove(place, place);
    }

    /// What the chain says of this log. It need not be sent, whatever became of it.
    pub fn covered(&mut self, chain: ChainId, settled: &Read) {
        let (Some(part), Some(covered)) = (self.parts.get_mut(chain), settled.0.get(&self.log)) else { return };
        part.covered.clone_from(covered);
        let uncovered = |(low, run): (&u64, &Run)| -> Vec<(u64, Run)> {
            let offset = |place: u64| run.offset + (place - low);
            covered.missing(*low, run.high).into_iter().map(|(a, b)| (a, Run { high: b, offset: offset(a), ..*run })).collect()
        };
        part.acknowledged = part.acknowledged.iter().flat_map(uncovered).collect();
    }

    /// The chain has reached a place in an incarnation of the log, and [`Progress::covered`] was told of it: what lies below
    /// and is not covered will not be archived from there. The first place that is to be sent again.
    pub fn passed(&mut self, chain: ChainId, incarnation: Option<LogId>, next: Position) -> Option<u64> {
        self.doubt(chain, |run| if Some(run.incarnation) == incarnation { 0..next.start } else { 0..0 })
    }

    /// The log's end, asked for in round `round`: what was acknowledged before that and lies at or behind it is gone.
    pub fn ends(&mut self, chain: ChainId, incarnation: LogId, end: u64, round: u64) -> Option<u64> {
        self.doubt(chain, |run| if run.incarnation == incarnation && run.round < round { end..u64::MAX } else { 0..0 })
    }

    /// The topic is of this incarnation now: what went to another one may be gone with it.
    pub fn is_now(&mut self, chain: ChainId, incarnation: LogId) -> Option<u64> {
        self.doubt(chain, |run| if run.incarnation == incarnation { 0..0 } else { 0..u64::MAX })
    }

    /// What is under way counts as not sent: the producer is gone with its answers.
    pub fn forget_under_way(&mut self) {
        for part in self.parts.values_mut() {
            part.sent = Intervals::default();
            part.acknowledged.iter().for_each(|(low, run)| part.sent.insert_all(*low, run.high));
        }
    }

    /// How many records wait for the chain: acknowledged, and not covered.
    pub fn acknowledged_count(&self) -> u64 {
        self.parts.iter().flat_map(|(_, part)| part.acknowledged.iter()).map(|(low, run)| run.high - low + 1).sum()
    }

    /// Takes back acknowledgements whose offsets lie in what `gone` says of their run.
    fn doubt(&mut self, chain: ChainId, gone: impl Fn(&Run) -> std::ops::Range<u64>) -> Option<u64> {
        let part = self.parts.get_mut(chain)?;
        let mut kept = BTreeMap::new();
        let mut first = None;
        for (low, run) in std::mem::take(&mut part.acknowledged) {
            let place = |offset: u64| low + (offset - run.offset);
            let gone = gone(&run);
            let behind = run.offset + (run.high - low) + 1;
            let (from, to) = (gone.start.clamp(run.offset, behind), gone.end.clamp(run.offset, behind));
            if from >= to {
                kept.insert(low, run);
                continue;
            }
            first = first.or(Some(place(from)));
            part.sent.remove(place(from), place(to - 1));
            if from > run.offset {
                kept.insert(low, Run { high: place(from - 1), ..run });
            }
            if to < behind {
                kept.insert(place(to), Run { offset: to, ..run });
            }
        }
        part.acknowledged = kept;
        first
    }
}
