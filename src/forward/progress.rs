//! What of a spool log Kafka has, is being sent, or must be sent again. Pure.
//!
//! A record needs to be sent as long as no slot covers it and it is neither under way nor acknowledged. An
//! acknowledgement holds only as long as the record can still be archived from where it went: not below the chain's
//! tail, not at or past the log's end, not in another incarnation. Every doubt ends in one more copy, which the chain
//! knows as a repeat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::archived::Archived;
use crate::domain::chain::{ChainId, Position};
use crate::domain::identity::LogId;
use crate::domain::intervals::Intervals;
use crate::domain::per_chain::PerChain;
use crate::domain::stream::Stream;
use crate::faults::{Flaw, flawed};

/// So far apart are the offsets of one run at most. What a part of it has become is known only when the chain has passed
/// all of them; and where several daemons send to a partition, a run without gaps is a record or two.
const SPAN: u64 = 4096;

/// Acknowledged records with places that rise without a gap, and offsets that rise, perhaps with records of others in
/// between: without any, each offset is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// The last place.
    high: u64,
    /// The offset of the first, or of one before it.
    offset: u64,
    /// The offset of the last, or of one behind it. An earlier version noted none, as it knew each.
    #[serde(default)]
    last: u64,
    /// Where they went.
    incarnation: LogId,
    /// How often the logs' ends had been asked for when the last of them was acknowledged; a process counts from 0.
    #[serde(skip)]
    round: u64,
}

impl Run {
    /// Whether the offset of each record is known; `low` is its first place.
    fn is_dense(&self, low: u64) -> bool {
        self.last - self.offset == self.high - low
    }
}

/// What a log's records became of, for the next process: a hint, which is doubted like all that was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hint(Vec<(Stream, u32, u64, Run)>);

/// Places, by the first and the last of each row of them.
pub type Ranges = Vec<(u64, u64)>;

/// One chain's part of a log.
#[derive(Clone, Debug, Default)]
struct Part {
    /// In a slot.
    covered: Intervals,
    /// The chain was told that these are lost: of this copy of the log, or of another one.
    lost: Intervals,
    /// Cannot be read of this copy, as far as it was read.
    unreadable: Intervals,
    /// Under way or acknowledged.
    sent: Intervals,
    /// Acknowledged and not covered, by the first place.
    acknowledged: BTreeMap<u64, Run>,
    /// The incarnation of the chain's log, and the offset below which `covered` is all that is archived of it.
    passed: (Option<LogId>, u64),
}

impl Part {
    /// How many places are in a slot, or cannot be sent.
    fn settled(&self) -> u64 {
        let lost = self.unreadable.iter().flat_map(|(first, last)| self.covered.missing(first, last));
        self.covered.len() + lost.map(|(first, last)| last - first + 1).sum::<u64>()
    }
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

    /// What was acknowledged and is in no slot yet.
    pub fn hint(&self) -> Hint {
        let runs = self.parts.iter().flat_map(|(chain, part)| {
            part.acknowledged.iter().map(move |(low, run)| (chain.stream, chain.partition, *low, *run))
        });
        Hint(runs.collect())
    }

    /// Believes what the process before has left behind, until there is doubt.
    pub fn believe(&mut self, Hint(runs): Hint) {
        for (stream, partition, low, run) in runs {
            let Some(part) = self.parts.get_mut(ChainId { stream, partition }) else { continue };
            if low <= run.high {
                part.sent.insert_all(low, run.high);
                part.acknowledged.insert(low, Run { last: run.last.max(run.offset + (run.high - low)), ..run });
            }
        }
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

    /// These places cannot be read. Which of them no slot covers; and of these, those of which the chain was not told yet, and that
    /// are not on their way.
    pub fn unreadable(&mut self, chain: ChainId, first: u64, last: u64) -> (Ranges, Ranges) {
        let part = &mut self.parts[chain];
        part.unreadable.insert_all(first, last);
        let uncovered = part.covered.missing(first, last);
        let untold = uncovered.iter().flat_map(|&(first, last)| part.lost.missing(first, last));
        let to_tell = untold.flat_map(|(first, last)| part.sent.missing(first, last)).collect();
        (uncovered, to_tell)
    }

    /// The broker has it.
    pub fn acknowledged(&mut self, chain: ChainId, place: u64, offset: u64, incarnation: LogId, round: u64) {
        let runs = &mut self.parts[chain].acknowledged;
        if let Some((low, run)) = runs.range_mut(..=place).next_back()
            && run.high + 1 == place
            && run.incarnation == incarnation
            && offset > run.last
            && (offset - run.offset < SPAN || run.is_dense(*low) && offset == run.last + 1)
        {
            (run.high, run.last, run.round) = (place, offset, round);
            return;
        }
        runs.insert(place, Run { high: place, offset, last: offset, incarnation, round });
    }

    /// The broker does not have it, or nobody knows. It is to be sent again, unless a slot covers it.
    pub fn failed(&mut self, chain: ChainId, place: u64) {
        self.parts[chain].sent.remove(place, place);
    }

    /// What the chain says of this log. What it has read need not be sent, whatever became of it; what it takes for lost is
    /// not told again, but sent once more where it can be read.
    pub fn covered(&mut self, chain: ChainId, Archived { read, lost, .. }: &Archived) {
        let Some(part) = self.parts.get_mut(chain) else { return };
        if let Some(lost) = lost.0.get(&self.log) {
            part.lost.clone_from(lost);
        }
        if let Some(read) = read.0.get(&self.log) {
            part.covered.clone_from(read);
        }
        if flawed(Flaw::LostIsRead) {
            part.lost.iter().for_each(|(first, last)| part.covered.insert_all(first, last));
        }
        let uncovered = |(low, run): (&u64, &Run)| -> Vec<(u64, Run)> {
            let offset = |place: u64| run.offset + (place - low);
            let piece = |(a, b)| match run.is_dense(*low) {
                true => (a, Run { high: b, offset: offset(a), last: offset(b), ..*run }),
                false => (a, Run { high: b, ..*run }),
            };
            part.covered.missing(*low, run.high).into_iter().map(piece).collect()
        };
        let mut acknowledged: BTreeMap<_, _> = part.acknowledged.iter().flat_map(uncovered).collect();
        // What told the chain of these stands as the first of them, and no slot will say that it was read.
        for (first, last) in part.unreadable.iter().filter(|(first, last)| part.lost.covers(*first, *last)) {
            acknowledged.retain(|low, run| *low < first || run.high > last);
        }
        part.acknowledged = acknowledged;
    }

    /// The chain has reached a place in an incarnation of the log, and [`Progress::covered`] was told of it: what lies below
    /// and is not covered will not be archived from there. The first place that is to be sent again.
    pub fn passed(&mut self, chain: ChainId, incarnation: Option<LogId>, next: Position) -> Option<u64> {
        self.parts.get_mut(chain)?.passed = (incarnation, next.start);
        self.doubt(chain, |run| if Some(run.incarnation) == incarnation { 0..next.start } else { 0..0 })
    }

    /// The log's end, asked for in round `round`: what was acknowledged before that and lies at or behind it is gone. So is what was
    /// acknowledged where the chain had passed already (a late answer, a log that had lost its end): no later slot would tell.
    pub fn ends(&mut self, chain: ChainId, incarnation: LogId, end: u64, round: u64) -> Option<u64> {
        let (passed, behind) = self.parts.get(chain)?.passed;
        let missed = self.doubt(chain, |run| if Some(run.incarnation) == passed { 0..behind } else { 0..0 });
        let gone =
            self.doubt(chain, |run| if run.incarnation == incarnation && run.round < round { end..u64::MAX } else { 0..0 });
        missed.into_iter().chain(gone).min()
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

    /// How many records of those up to these places no slot covers, but for those that cannot be read.
    pub fn uncovered(&self, ends: impl Fn(ChainId) -> u64) -> u64 {
        self.parts.iter().map(|(chain, part)| ends(chain).saturating_sub(part.settled())).sum()
    }

    /// How many records wait for the chain: acknowledged, and not covered.
    pub fn acknowledged_count(&self) -> u64 {
        self.parts.iter().flat_map(|(_, part)| part.acknowledged.iter()).map(|(low, run)| run.high - low + 1).sum()
    }

    /// Takes back acknowledgements whose offsets lie in what `gone` says of their run. Of one with others' records in it: all,
    /// if its last is gone, and else none yet, as what is left comes to an end soon.
    fn doubt(&mut self, chain: ChainId, gone: impl Fn(&Run) -> std::ops::Range<u64>) -> Option<u64> {
        let part = self.parts.get_mut(chain)?;
        let mut kept = BTreeMap::new();
        let mut first = None;
        for (low, run) in std::mem::take(&mut part.acknowledged) {
            let place = |offset: u64| low + (offset - run.offset);
            let gone = gone(&run);
            let behind = run.last + 1;
            let (mut from, to) = (gone.start.clamp(run.offset, behind), gone.end.clamp(run.offset, behind));
            let is_dense = run.is_dense(low);
            if !is_dense && from < to && to == behind {
                part.sent.remove(low, run.high);
                first = first.or(Some(low));
                continue;
            }
            if !is_dense {
                from = to;
            }
            if from >= to {
                kept.insert(low, run);
                continue;
            }
            first = first.or(Some(place(from)));
            part.sent.remove(place(from), place(to - 1));
            if from > run.offset {
                kept.insert(low, Run { high: place(from - 1), last: from - 1, ..run });
            }
            if to < behind {
                kept.insert(place(to), Run { offset: to, ..run });
            }
        }
        part.acknowledged = kept;
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::intervals::Read;

    const CHAIN: ChainId = ChainId { stream: Stream::Trades, partition: 3 };

    #[test]
    fn of_a_range_that_is_damaged_only_what_nobody_has_is_wanted() {
        let log = LogId::generate();
        let mut progress = Progress::new(log, 4);
        progress.covered(CHAIN, &archived(log, 0, 12));
        assert!(progress.take(CHAIN, 15));
        assert_eq!(progress.unreadable(CHAIN, 10, 20), (vec![(13, 20)], vec![(13, 14), (16, 20)]));
        assert_eq!(progress.unreadable(CHAIN, 3, 12), (vec![], vec![]));
    }

    /// The chain was told of them by whoever has another copy of the log.
    #[test]
    fn what_is_lost_elsewhere_is_not_told_again_and_is_sent_where_it_can_be_read() {
        let (mut progress, log, topic) = sent();
        let lost = Arc::new(Read([(log, Intervals::of(3, 12))].into()));
        progress.covered(CHAIN, &Archived { lost, ..archived(log, 0, 1) });
        assert_eq!(progress.uncovered(|chain| if chain == CHAIN { 15 } else { 0 }), 15 - 2);
        assert_eq!(progress.acknowledged_count(), 8, "what this copy has sent of them counts until it is read, or passed");
        assert_eq!(progress.passed(CHAIN, Some(topic), position(200)), Some(2));
        assert_eq!(missing(&progress), (2..10).collect::<Vec<_>>());
        assert_eq!(progress.unreadable(CHAIN, 11, 14), (vec![(11, 14)], vec![(13, 14)]));
        assert_eq!(progress.uncovered(|chain| if chain == CHAIN { 15 } else { 0 }), 15 - 2 - 4);
    }

    /// It is in no slot, so it would be doubted when the chain has passed it, and the segment read once more.
    #[test]
    fn what_told_of_a_loss_is_done_when_the_chain_knows_of_it() {
        let (log, topic) = (LogId::generate(), LogId::generate());
        let mut progress = Progress::new(log, 4);
        assert_eq!(progress.unreadable(CHAIN, 3, 5).1, [(3, 5)]);
        assert!(progress.take(CHAIN, 3));
        progress.acknowledged(CHAIN, 3, 100, topic, 1);
        progress.covered(CHAIN, &archived(log, 0, 2));
        assert_eq!(progress.acknowledged_count(), 1);
        let lost = Arc::new(Read([(log, Intervals::of(3, 5))].into()));
        progress.covered(CHAIN, &Archived { lost, ..archived(log, 0, 2) });
        assert_eq!((progress.acknowledged_count(), progress.passed(CHAIN, Some(topic), position(101))), (0, None));
    }

    fn position(start: u64) -> Position {
        Position { generation: 1, start }
    }

    /// A log of which ten records were sent and acknowledged, at the offsets from 100 on.
    fn sent() -> (Progress, LogId, LogId) {
        let (log, topic) = (LogId::generate(), LogId::generate());
        let mut progress = Progress::new(log, 4);
        for place in 0..10 {
            assert!(progress.take(CHAIN, place));
            progress.acknowledged(CHAIN, place, 100 + place, topic, 1);
        }
        (progress, log, topic)
    }

    fn of(read: &Read) -> Archived {
        Archived { read: read.clone().into(), ..Archived::default() }
    }

    fn archived(log: LogId, low: u64, high: u64) -> Archived {
        of(&Read([(log, Intervals::of(low, high))].into()))
    }

    /// As [`sent`], but somebody else's records stand between: offsets 100, 103, 106 and so on.
    fn sent_beside_others() -> (Progress, LogId, LogId) {
        let (log, topic) = (LogId::generate(), LogId::generate());
        let mut progress = Progress::new(log, 4);
        for place in 0..10 {
            assert!(progress.take(CHAIN, place));
            progress.acknowledged(CHAIN, place, 100 + 3 * place, topic, 1);
        }
        (progress, log, topic)
    }

    #[test]
    fn with_others_records_in_between_it_is_one_run_that_is_doubted_when_the_chain_has_passed_it() {
        let (mut progress, log, topic) = sent_beside_others();
        assert_eq!(progress.hint().0.len(), 1);
        progress.covered(CHAIN, &archived(log, 0, 3));
        assert_eq!(progress.acknowledged_count(), 6);
        assert_eq!(progress.passed(CHAIN, Some(topic), position(120)), None, "which of them it has passed is not known");
        progress.covered(CHAIN, &archived(log, 0, 7));
        assert_eq!(progress.passed(CHAIN, Some(topic), position(128)), Some(8));
        assert_eq!(missing(&progress), [8, 9]);

        let (mut progress, _, topic) = sent_beside_others();
        assert_eq!(progress.ends(CHAIN, topic, 128, 2), None);
        assert_eq!(progress.ends(CHAIN, topic, 127, 2), Some(0), "some of them are gone");
        assert_eq!(missing(&progress), (0..10).collect::<Vec<_>>());
    }

    /// As after an answer that came late, or a log that has lost its end: no slot will come that tells of it.
    #[test]
    fn what_is_acknowledged_where_the_chain_has_passed_is_found_with_the_next_round() {
        let (log, topic) = (LogId::generate(), LogId::generate());
        let mut progress = Progress::new(log, 4);
        (0..4).for_each(|place| assert!(progress.take(CHAIN, place)));
        progress.covered(CHAIN, &archived(log, 0, 0));
        assert_eq!(progress.passed(CHAIN, Some(topic), position(120)), None);
        for (place, offset, incarnation) in [(1, 119, topic), (2, 120, topic), (3, 100, LogId::generate())] {
            progress.acknowledged(CHAIN, place, offset, incarnation, 1);
        }
        assert_eq!(progress.ends(CHAIN, topic, 121, 1), Some(1));
        assert!(progress.take(CHAIN, 1) && !progress.take(CHAIN, 0) && !progress.take(CHAIN, 2) && !progress.take(CHAIN, 3));
    }

    #[test]
    fn a_run_ends_before_the_chain_would_never_pass_it() {
        let (log, topic) = (LogId::generate(), LogId::generate());
        let mut progress = Progress::new(log, 4);
        let most = 10 * SPAN;
        for place in 0..most {
            progress.take(CHAIN, place);
            progress.acknowledged(CHAIN, place, 2 * place, topic, 1);
        }
        assert_eq!(progress.hint().0.len() as u64, 2 * most / SPAN);
    }

    #[test]
    fn a_hint_of_an_earlier_version_is_of_known_offsets() {
        let (progress, log, topic) = sent();
        let text = serde_json::to_string(&progress.hint()).unwrap();
        let old = text.replace(",\"last\":109", "");
        assert_ne!(old, text);
        let mut next = Progress::new(log, 4);
        next.believe(serde_json::from_str(&old).unwrap());
        assert_eq!(next.ends(CHAIN, topic, 107, 1), Some(7));
    }

    /// What would be sent of the ten.
    fn missing(progress: &Progress) -> Vec<u64> {
        let mut progress = progress.clone();
        (0..10).filter(|place| progress.take(CHAIN, *place)).collect()
    }

    #[test]
    fn what_is_acknowledged_is_not_sent_again_until_there_is_doubt() {
        let (mut progress, log, topic) = sent();
        assert_eq!((missing(&progress), progress.acknowledged_count()), (vec![], 10));
        progress.covered(CHAIN, &archived(log, 0, 3));
        assert_eq!(progress.passed(CHAIN, Some(topic), position(104)), None, "all below the tail is covered");
        assert_eq!(progress.acknowledged_count(), 6);
        assert_eq!(progress.passed(CHAIN, Some(topic), position(106)), Some(4), "the chain has passed two and did not take them");
        assert_eq!(missing(&progress), [4, 5]);
        assert_eq!(progress.passed(CHAIN, Some(LogId::generate()), position(999)), None, "the tail of another incarnation");
    }

    #[test]
    fn what_lies_behind_the_logs_end_is_gone_if_it_was_there_before_the_end_was_asked_for() {
        let (mut progress, _, topic) = sent();
        assert_eq!(progress.ends(CHAIN, topic, 108, 1), None, "acknowledged in that round: the answer may be older");
        assert_eq!(progress.ends(CHAIN, topic, 108, 2), Some(8));
        assert_eq!(missing(&progress), [8, 9]);
    }

    #[test]
    fn what_went_to_another_incarnation_is_sent_again() {
        let (mut progress, log, topic) = sent();
        progress.covered(CHAIN, &archived(log, 0, 1));
        assert_eq!(progress.is_now(CHAIN, topic), None);
        assert_eq!(progress.is_now(CHAIN, LogId::generate()), Some(2));
        assert_eq!(missing(&progress), (2..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_process_sends_only_what_has_no_answer_and_doubts_the_rest_as_this_one_would() {
        let (progress, log, topic) = sent();
        let text = serde_json::to_string(&progress.hint()).unwrap();
        let mut next = Progress::new(log, 4);
        next.believe(serde_json::from_str(&text).unwrap());
        assert_eq!((missing(&next), next.acknowledged_count()), (vec![], 10), "{text}");
        assert!(next.take(CHAIN, 10));
        assert_eq!(next.ends(CHAIN, topic, 107, 1), Some(7));
        assert_eq!(missing(&next), [7, 8, 9]);
        let mut fewer = Progress::new(log, 2);
        fewer.believe(progress.hint());
        assert_eq!(fewer.acknowledged_count(), 0, "a partition that the log does not have");
    }

    #[test]
    fn of_a_producer_that_is_gone_only_what_it_had_no_answer_for_is_sent_again() {
        let (mut progress, log, _) = sent();
        progress.covered(CHAIN, &archived(log, 0, 3));
        for place in 10..12 {
            assert!(progress.take(CHAIN, place));
        }
        progress.forget_under_way();
        assert_eq!(missing(&progress), [0; 0]);
        assert!(progress.take(CHAIN, 10) && progress.take(CHAIN, 11));
    }

    proptest! {
        /// Whatever happens, a record is covered, on its way, or sent next, once the chain has read the log to its end. Answers come
        /// late, and what is known of the topic, too; and where the chain has nothing to read, there is no news of it.
        #[test]
        fn nothing_is_forgotten(steps in prop::collection::vec((0u8..8, 0u64..10, 0u64..30), 0..80)) {
            let (log, mut topic) = (LogId::generate(), LogId::generate());
            let (mut known, mut round) = (topic, 0);
            let mut progress = Progress::new(log, 4);
            // By place: where each copy went, and what is under way, with its offset where it stands. The chain: its tail, and what
            // it has read.
            let mut copies: Vec<Vec<(LogId, u64)>> = vec![Vec::new(); 10];
            let mut under_way = BTreeMap::<u64, Option<u64>>::new();
            let (mut end, mut tail, mut covered) = (0u64, 0u64, Read::default());
            let read_to = |to: u64, tail: &mut u64, topic, copies: &[Vec<(LogId, u64)>], covered: &mut Read, skips: bool| {
                for (place, copies) in copies.iter().enumerate() {
                    let is_read = |(of, offset): &(LogId, u64)| {
                        *of == topic && (*tail..to).contains(offset) && !(skips && offset % 3 == 0)
                    };
                    if copies.iter().any(is_read) {
                        covered.insert(log, place as u64);
                    }
                }
                *tail = to;
            };
            for (what, place, number) in steps {
                match what {
                    0 => drop(progress.take(CHAIN, place).then(|| under_way.insert(place, None))),
                    1 => {
                        if let Some(stands @ None) = under_way.get_mut(&place) {
                            *stands = Some(end);
                            copies[place as usize].push((topic, end));
                            end += 1 + number % 3; // others send, too
                        }
                    }
                    2 => {
                        if let Some(Some(offset)) = under_way.get(&place).copied() {
                            under_way.remove(&place);
                            progress.acknowledged(CHAIN, place, offset, known, round);
                        }
                    }
                    3 if under_way.remove(&place).is_some() => progress.failed(CHAIN, place),
                    4 if end > tail => {
                        // The chain reads on, and may pass over a part of it.
                        read_to((tail + number).min(end), &mut tail, topic, &copies, &mut covered, true);
                        progress.covered(CHAIN, &of(&covered));
                        progress.passed(CHAIN, Some(topic), position(tail));
                    }
                    5 => {
                        // It loses its end, sometimes even what the chain has read.
                        end = end.saturating_sub(number / 8).max(if number % 8 == 7 { 0 } else { tail.min(end) });
                        for copies in &mut copies {
                            copies.retain(|(of, offset)| *of != topic || *offset < end);
                        }
                        round += 1;
                        progress.ends(CHAIN, known, end, round);
                    }
                    6 if number == 0 => {
                        topic = LogId::generate();
                        (end, tail) = (0, 0);
                    }
                    7 => {
                        known = topic;
                        progress.is_now(CHAIN, known);
                    }
                    _ => {}
                }
            }
            progress.is_now(CHAIN, topic);
            progress.ends(CHAIN, topic, end, round + 1);
            if end > tail {
                read_to(end, &mut tail, topic, &copies, &mut covered, false);
                progress.covered(CHAIN, &of(&covered));
                progress.passed(CHAIN, Some(topic), position(end));
            }
            let unsent = missing(&progress);
            for place in 0..10 {
                prop_assert!(
                    covered.contains(log, place) || under_way.contains_key(&place) || unsent.contains(&place),
                    "{place} is forgotten"
                );
            }
        }
    }
}
