//! Sends what the spool holds to the log that the chains read, and again what will not be archived from there.
//!
//! It holds nothing that the spool and the chains do not say: a new one sends all that no slot covers, but for what the one before
//! has noted as acknowledged, until that is in doubt.

use std::collections::BTreeMap;
use std::io;

use super::progress::{Hint, Progress};
use crate::domain::archived::{Archived, Chains};
use crate::domain::chain::ChainId;
use crate::domain::entry::{Content, Record};
use crate::domain::identity::{LogId, Origin};
use crate::domain::intervals::Intervals;
use crate::domain::per_chain::PerChain;
use crate::domain::stream::Stream;
use crate::faults::{Flaw, flawed};
use crate::spool::logs::Logs;
use crate::spool::reader::LogView;
use crate::spool::replay::{Outgoing, Piece, Replay};

/// Whose answer one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The chain.
    pub chain: ChainId,
    /// The record.
    pub origin: Origin,
}

/// What became of a record that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands at this offset, on all replicas that are in sync.
    Acknowledged {
        /// The offset.
        offset: u64,
        /// The incarnation of the log, as far as the sender knows.
        incarnation: LogId,
    },
    /// It does not stand there, or nobody knows.
    Failed,
}

/// Sends records to the log of the chains.
pub trait Sender {
    /// Takes a record on its way; `false` if there is no room now.
    fn send(&mut self, outgoing: &Outgoing) -> Result<bool, SendError>;

    /// What became of records since the last call, as far as that is known; does not wait.
    fn answers(&mut self) -> Result<Vec<(Tag, Outcome)>, SendError>;

    /// How many partitions a stream has in the log now.
    fn partitions(&self, stream: Stream) -> u32;
}

/// Why nothing more can be sent by this sender. What was under way has no answer; a new sender sends it again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SendError(pub String);

/// Why a step did not succeed. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The spool.
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] io::Error),
    /// The sender is not to be used any more.
    #[error(transparent)]
    Sender(#[from] SendError),
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; go on at once.
    Progress,
    /// The sender has no room.
    Full,
    /// All that the spool holds is sent.
    Idle,
}

/// One log on its way.
struct Forwarded {
    replay: Replay,
    progress: Progress,
    /// Read and not sent yet, in reverse.
    waiting: Vec<Outgoing>,
}

/// See the module.
pub struct Engine {
    logs: Logs,
    forwarded: BTreeMap<LogId, Forwarded>,
    archived: Chains,
    /// How often the logs' ends were asked for.
    round: u64,
    /// Of logs that were not looked at yet, what the process before has left behind.
    hints: Hints,
    /// The places of logs that could not be read, and that no slot covered then.
    lost: BTreeMap<(LogId, ChainId), Intervals>,
}

/// What was acknowledged of each log.
pub type Hints = BTreeMap<LogId, Hint>;

impl Engine {
    /// Nothing is known to be sent yet but what the process before has left behind.
    pub fn new(logs: Logs, hints: Hints) -> Engine {
        Engine { logs, forwarded: BTreeMap::new(), archived: Chains::default(), round: 0, hints, lost: BTreeMap::new() }
    }

    /// What was acknowledged, for the next process.
    pub fn hints(&self) -> Hints {
        self.forwarded.iter().map(|(log, forwarded)| (*log, forwarded.progress.hint())).collect()
    }

    /// A chain has got so far.
    pub fn archived(&mut self, chain: ChainId, archived: Archived) {
        let Some(archived) = self.archived.learn(chain, archived) else { return };
        for (log, forwarded) in &mut self.forwarded {
            forwarded.progress.covered(chain, archived);
            if flawed(Flaw::NoResend) {
                continue;
            }
            let again = forwarded.progress.passed(chain, archived.log, archived.next);
            forwarded.go_back(self.logs.view(*log), chain, again);
        }
    }

    /// Begins a new round of asking for the logs' ends; its number, to be given back with the answers.
    pub fn begin_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// The log of a chain is of this incarnation and ends there, asked for in round `round`.
    pub fn log_is(&mut self, chain: ChainId, incarnation: LogId, end: u64, round: u64) {
        for (log, forwarded) in &mut self.forwarded {
            let (other, gone) =
                (forwarded.progress.is_now(chain, incarnation), forwarded.progress.ends(chain, incarnation, end, round));
            let again = [other, gone].into_iter().flatten().min();
            forwarded.go_back(self.logs.view(*log), chain, again);
        }
    }

    /// The sender is another one from here on: nobody answers for what was under way.
    pub fn new_sender(&mut self) {
        for forwarded in self.forwarded.values_mut() {
            forwarded.progress.forget_under_way();
            forwarded.waiting.clear();
            forwarded.replay.rewind(0);
        }
    }

    /// How many records Kafka has and no slot covers.
    pub fn acknowledged(&self) -> u64 {
        self.forwarded.values().map(|forwarded| forwarded.progress.acknowledged_count()).sum()
    }

    /// How many records the spool has had and no slot covers, as far as the chains are known.
    pub fn uncovered(&self) -> u64 {
        let of = |(log, forwarded): (&LogId, &Forwarded)| {
            let view = self.logs.view(*log).unwrap_or_default();
            forwarded.progress.uncovered(|chain| view.end(chain))
        };
        self.forwarded.iter().map(of).sum()
    }

    /// What damage has cost in this process: of each log and chain, how many records.
    pub fn lost(&self) -> impl Iterator<Item = (LogId, ChainId, u64)> {
        let lost = self.lost.iter().filter(|(_, places)| !places.is_empty());
        lost.map(|((log, chain), places)| (*log, *chain, places.len()))
    }

    /// Takes in what became of records. Something failed: whoever sends at once again, fails again.
    pub fn answers(&mut self, answers: Vec<(Tag, Outcome)>) -> bool {
        let mut is_failed = false;
        for (Tag { chain, origin: Origin { log, place } }, outcome) in answers {
            let Some(forwarded) = self.forwarded.get_mut(&log) else { continue };
            match outcome {
                Outcome::Acknowledged { offset, incarnation } => {
                    forwarded.progress.acknowledged(chain, place, offset, incarnation, self.round);
                }
                Outcome::Failed => {
                    is_failed = true;
                    forwarded.progress.failed(chain, place);
                    forwarded.go_back(self.logs.view(log), chain, Some(place));
                }
            }
        }
        is_failed
    }

    /// Sends what comes next, the oldest log first.
    pub fn step(&mut self, sender: &mut dyn Sender) -> Result<Step, ForwardError> {
        self.look_for_logs();
        for (log, forwarded) in &mut self.forwarded {
            let Some(view) = self.logs.view(*log) else { continue };
            if forwarded.waiting.is_empty() {
                match forwarded.replay.next(&view)? {
                    Piece::End => continue,
                    Piece::Records(records) => forwarded.waiting = records,
                    Piece::Lost(lost) => {
                        for (chain, first, last) in lost {
                            // What was read before it was damaged is not lost, and would hide the rest of the range.
                            let (uncovered, to_tell) = forwarded.progress.unreadable(chain, first, last);
                            let lost = self.lost.entry((*log, chain)).or_default();
                            uncovered.into_iter().for_each(|(first, last)| lost.insert_all(first, last));
                            forwarded.waiting.extend(to_tell.into_iter().map(|(first, last)| told(*log, chain, first, last)));
                        }
                    }
                }
                forwarded.waiting.reverse();
            }
            return forwarded.send(sender);
        }
        Ok(Step::Idle)
    }

    /// Knows the logs that are there, and no others.
    fn look_for_logs(&mut self) {
        let here = self.logs.ids();
        self.forwarded.retain(|log, _| here.contains(log));
        for log in here {
            if self.forwarded.contains_key(&log) {
                continue;
            }
            let Some(kind) = self.logs.view(log).and_then(|view| view.kind()) else { continue };
            let mut progress = Progress::new(log, kind.partitions);
            progress.believe(self.hints.remove(&log).unwrap_or_default());
            for (chain, archived) in self.archived.iter() {
                progress.covered(chain, archived);
                progress.passed(chain, archived.log, archived.next);
            }
            let replay = Replay::new(self.logs.dir(log), log);
            self.forwarded.insert(log, Forwarded { replay, progress, waiting: Vec::new() });
        }
    }
}

impl Forwarded {
    /// Reads again from the segment that holds the place, if it has been passed.
    fn go_back(&mut self, view: Option<LogView>, chain: ChainId, place: Option<u64>) {
        let (Some(view), Some(place)) = (view, place) else { return };
        let of = |counts: &PerChain<u64>| counts.get(chain).copied().unwrap_or_default();
        let Some(segment) = view.segments().find(|segment| place < of(&segment.end)) else { return };
        // A place between two segments is told of as lost at the end of the first.
        let before = view.segments().take_while(|before| before.number < segment.number).last();
        let segment = before.filter(|_| place < of(&segment.base)).unwrap_or(segment);
        if segment.number <= self.replay.segment() {
            self.replay.rewind(segment.number);
            self.waiting.clear(); // read again behind it
        }
    }

    fn send(&mut self, sender: &mut dyn Sender) -> Result<Step, ForwardError> {
        while let Some(outgoing) = self.waiting.last() {
            let (chain, place) = (outgoing.chain, outgoing.record.origin.place);
            let mut send =
                || if flawed(Flaw::NoOrigin) { sender.send(&with_new_origin(outgoing)) } else { sender.send(outgoing) };
            if self.progress.take(chain, place) && !send()? {
                self.progress.failed(chain, place);
                return Ok(Step::Full);
            }
            if let Content::Tick(_) = outgoing.record.content
                && chain.partition == 0
            {
                tick_the_others(outgoing, self.progress.partitions()..sender.partitions(chain.stream), sender)?;
            }
            self.waiting.pop();
        }
        Ok(Step::Progress)
    }
}

/// Partitions that the topic has got since this log was begun have no places in it; their hours turn all the same.
fn tick_the_others(tick: &Outgoing, others: std::ops::Range<u32>, sender: &mut dyn Sender) -> Result<(), SendError> {
    for partition in others {
        let chain = ChainId { partition, ..tick.chain };
        // All have the same place, so all but the first are repeats. A chain takes a repeat's hour all the same (`Carry::take`).
        let record = Record { origin: Origin::default(), ..tick.record.clone() };
        if !sender.send(&Outgoing { chain, shard: None, record })? {
            break; // the next hour comes
        }
    }
    Ok(())
}

/// For [`Flaw::NoOrigin`].
fn with_new_origin(outgoing: &Outgoing) -> Outgoing {
    let record = Record { origin: Origin { log: LogId::generate(), place: 0 }, ..outgoing.record.clone() };
    Outgoing { record, ..outgoing.clone() }
}

/// What tells a chain that the spool has lost records.
fn told(log: LogId, chain: ChainId, from: u64, last: u64) -> Outgoing {
    let record = Record {
        offset: from,
        origin: Origin { log, place: from },
        received_at: 0,
        traceparent: None,
        content: Content::Lost { last },
    };
    Outgoing { chain, shard: None, record }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;
    use crate::domain::chain::Position;
    use crate::domain::intervals::Read;
    use crate::spool::replay::tests::{fill, log, ruin};

    /// Takes everything, and answers for nothing.
    #[derive(Default)]
    struct Takes(Vec<Outgoing>);

    impl Sender for Takes {
        fn send(&mut self, outgoing: &Outgoing) -> Result<bool, SendError> {
            self.0.push(outgoing.clone());
            Ok(true)
        }

        fn answers(&mut self) -> Result<Vec<(Tag, Outcome)>, SendError> {
            Ok(Vec::new())
        }

        fn partitions(&self, _: Stream) -> u32 {
            3
        }
    }

    impl Takes {
        /// What it is told that is lost, and all else, by chain and place.
        fn of(&self, chain: ChainId) -> (Vec<(u64, u64)>, Intervals) {
            let (mut lost, mut sent) = (Vec::new(), Intervals::default());
            for outgoing in self.0.iter().filter(|outgoing| outgoing.chain == chain) {
                let place = outgoing.record.origin.place;
                match outgoing.record.content {
                    Content::Lost { last } => lost.push((place, last)),
                    _ => drop(sent.insert(place)),
                }
            }
            (lost, sent)
        }
    }

    #[test]
    fn what_damage_has_cost_is_told_but_for_what_the_chain_has() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 1200);
        fill(&mut log, 40);
        let (id, view) = (log.id(), log.view());
        ruin(temp.path(), &view.closed[1]);

        let chain = ChainId { stream: Stream::Trades, partition: 0 };
        let logs = Logs::new(temp.path().into(), BTreeMap::new(), id, watch::channel(view.clone()).1);
        let mut engine = Engine::new(logs, Hints::default());
        let run = |engine: &mut Engine| {
            let mut sender = Takes::default();
            while engine.step(&mut sender).unwrap() != Step::Idle {}
            sender.of(chain)
        };
        let (lost, sent) = run(&mut engine);
        let [(first, last)] = lost[..] else { panic!("{lost:?}") };
        assert!(last > first, "enough to have read some of it before");
        assert_eq!(sent.missing(0, view.end(chain) - 1), [(first, last)]);
        let cost = engine.lost().find(|(_, of, _)| *of == chain);
        assert_eq!(cost, Some((id, chain, last - first + 1)));

        // Nobody has taken it: it is told again.
        let tag = |place| Tag { chain, origin: Origin { log: id, place } };
        assert!(engine.answers(vec![(tag(first), Outcome::Failed)]));
        assert_eq!(run(&mut engine).0, [(first, last)]);

        // The chain has the first of them, from before the damage: that hides none of the rest.
        let mut read = Read::default();
        read.insert_all(id, 0, first);
        let next = Position { generation: 1, start: 1 };
        engine.archived(chain, Archived { read: Arc::new(read), next, ..Archived::default() });
        engine.new_sender();
        let (lost, sent) = run(&mut engine);
        assert_eq!((lost, sent.contains(first - 1)), (vec![(first + 1, last)], false));
    }

    #[test]
    fn what_a_segment_held_that_is_gone_is_told_until_somebody_has_taken_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut log = log(temp.path(), 1200);
        fill(&mut log, 40);
        let (id, mut view) = (log.id(), log.view());
        let chain = ChainId { stream: Stream::Trades, partition: 0 };
        let gone = Arc::make_mut(&mut view.closed).remove(1).unwrap();
        let (first, last) = (gone.base[chain], gone.end[chain] - 1);
        let logs = Logs::new(temp.path().into(), BTreeMap::new(), id, watch::channel(view).1);
        let mut engine = Engine::new(logs, Hints::default());
        for _ in 0..2 {
            let mut sender = Takes::default();
            while engine.step(&mut sender).unwrap() != Step::Idle {}
            assert_eq!(sender.of(chain).0, [(first, last)]);
            engine.answers(vec![(Tag { chain, origin: Origin { log: id, place: first } }, Outcome::Failed)]);
        }
    }
}
