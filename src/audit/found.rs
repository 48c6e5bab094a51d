//! What an audit has found, by session and by chain: who reads adds to it, who reports holds it against what should be there.

use std::collections::{BTreeMap, BTreeSet};

use super::expired::Expired;
use crate::bronze::sealer::HourCount;
use crate::domain::chain::{ChainId, Tail};
use crate::domain::entry::{Control, Gap, SessionEnd};
use crate::domain::hour::Hour;
use crate::domain::identity::{Delivery, Micros, SessionId};
use crate::domain::intervals::Intervals;
use crate::domain::stream::{PerStream, Stream};
use crate::io::s3::retention::Retention;

/// Records of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameCount {
    /// That are trades.
    pub trades: u32,
    /// That are none.
    pub quarantined: u32,
    /// Which of its first 64 elements are there.
    first: u64,
    /// Which of the others, where there are any.
    #[expect(clippy::box_collection, reason = "of most frames there are none, and there are hundreds of millions of frames")]
    rest: Option<Box<BTreeSet<u16>>>,
}

impl FrameCount {
    /// With so many.
    #[cfg(test)]
    pub(super) fn of(trades: u32, quarantined: u32) -> FrameCount {
        FrameCount { trades, quarantined, ..FrameCount::default() }
    }

    /// Whether the element was not there yet.
    fn insert(&mut self, index: u16) -> bool {
        match 1_u64.checked_shl(index.into()) {
            Some(bit) => {
                let is_new = self.first & bit == 0;
                self.first |= bit;
                is_new
            }
            None => self.rest.get_or_insert_default().insert(index),
        }
    }
}

/// What is known of one session.
#[derive(Clone, Debug, Default)]
pub struct SessionCount {
    /// Sequence numbers, by chain.
    pub seqs: BTreeMap<ChainId, Intervals>,
    /// Records of trades and quarantine, by frame.
    pub frames: BTreeMap<u32, FrameCount>,
    /// Its first frame that made records, and when that was read.
    pub first: Option<(u32, Micros)>,
    /// The shard it served, if that is known.
    pub shard: Option<String>,
    /// Outages that its first frame has ended: one, or none where nothing was before it.
    pub gaps: Vec<Gap>,
    /// Its end, if that is known.
    pub end: Option<SessionEnd>,
    /// The last frame that the spool has of it, where the newest log says that it has not ended.
    pub living: Option<u32>,
    /// The chain of the gaps says that its end was never archived.
    pub is_open: bool,
    /// The last receipt of all that is there.
    pub last_received_at: Option<Micros>,
    /// By chain, the first of its records that came too late to have expired.
    pub kept: BTreeMap<ChainId, u64>,
}

impl SessionCount {
    /// Its last frame of which there is anything.
    pub fn last(&self) -> Option<u32> {
        self.frames.keys().last().copied()
    }

    /// Its last frame that was durable, as its end or a spool tells.
    pub fn told(&self) -> Option<u32> {
        self.end.as_ref().map(|end| end.frames).max(self.living)
    }
}

/// A slot of a chain that covers offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covering {
    /// Its generation.
    pub generation: u64,
    /// The last offset it covers.
    pub end: u64,
    /// Records in it.
    pub rows: u64,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Found {
    /// By session: archived or waiting in the spool.
    pub sessions: BTreeMap<SessionId, SessionCount>,
    /// Records in Bronze, by stream.
    pub archived: PerStream<u64>,
    /// Records that only the spool has, by stream.
    pub waiting: PerStream<u64>,
    /// Records of topics that something else wrote.
    pub foreign: u64,
    /// Of each partition of Kafka, where it stands.
    pub partitions: Vec<super::kafka::Standing>,
    /// Identities that stand in Bronze more than once.
    pub duplicated: u64,
    /// Gaps of the feed.
    pub gaps: Vec<Gap>,
    /// Slots by kind: data, gap, end.
    pub slots: [u64; 3],
    /// Of each chain, the slots that cover offsets, in order.
    pub chains: BTreeMap<String, Vec<Covering>>,
    /// Of each chain that has a slot, where it stood when it was read: a daemon may add to it meanwhile.
    pub tails: BTreeMap<ChainId, Tail>,
    /// What the bucket may have deleted for its age.
    pub retention: Retention,
    /// Of each chain, the records that it has.
    pub expired: BTreeMap<ChainId, Expired>,
    /// What the slots name, by archive hour and `stream/partition`.
    pub hours: BTreeMap<Hour, BTreeMap<String, HourCount>>,
    /// Objects that slots name, and that are neither there nor expired.
    pub missing: u64,
    /// What is to be known, and is not wrong by itself.
    pub notes: Vec<String>,
    /// What must not be: a missing object, a hash that differs, a slot that does not abut.
    pub faults: Vec<String>,
}

impl Found {
    /// Counts a record that was received `at` a time; `false` when it was counted before.
    pub(super) fn record(&mut self, chain: ChainId, delivery: Delivery, seq: u64, at: Micros) -> bool {
        let Delivery { session, frame, index } = delivery;
        let count = self.sessions.entry(session).or_default();
        if !count.seqs.entry(chain).or_default().insert(seq) {
            return false;
        }
        count.received(&self.retention, chain, at, seq);
        if chain.stream == Stream::Gaps {
            return true;
        }
        if count.first.is_none_or(|(first, _)| frame < first) {
            count.first = Some((frame, at));
        }
        let of_frame = count.frames.entry(frame).or_default();
        if !of_frame.insert(index) {
            self.duplicated += 1;
            self.faults.push(format!("{session} frame {frame} index {index} is there again, as number {seq} of {chain}"));
        } else if chain.stream == Stream::Trades {
            of_frame.trades += 1;
        } else {
            of_frame.quarantined += 1;
        }
        true
    }

    pub(super) fn control(&mut self, session: SessionId, control: Option<Control>) {
        let count = self.sessions.entry(session).or_default();
        match control {
            Some(Control::Gap(gap)) => {
                count.shard = Some(gap.shard.clone());
                if gap.first_received_at.is_some() {
                    count.gaps.push(gap.clone());
                }
                self.gaps.push(gap);
            }
            Some(Control::SessionEnd(end)) => {
                count.shard = Some(end.shard.clone());
                // A chain takes the first, what else it is told is a repeat (ADR 6). Two chains, where the number of partitions was
                // another, may have taken one each: then all that the greater one tells of must be there.
                if count.end.as_ref().is_none_or(|known| known.frames < end.frames) {
                    count.end = Some(end);
                }
            }
            None => self.faults.push(format!("a control record of session {session} cannot be read")),
        }
    }
}
