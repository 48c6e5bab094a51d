//! The rules of the protocol, each by what is done where it is left out.
//!
//! Every flaw must break a property (see [`configurations`](super::configurations)): so the model shows
//! that each rule of ADR 2 is needed, and that the properties would notice.

/// One rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A writer starts from Kafka's committed offset (or the log's start), not from the chain.
    CommittedOffset,
    /// The store's `If-None-Match` is check-then-act.
    RacySlotStore,
    /// The slot keeps the greatest seq of a session, not the intervals.
    MaxOnly,
    /// After a slot was lost to another writer, the loser keeps its own seen set.
    KeepOwnSeen,
    /// A slot is sent before the answer for its data object came.
    SlotBeforeData,
    /// The sweeper deletes unnamed objects whose start is not below the tail, too.
    SweepAboveTail,
    /// The sweeper lists the names first and reads the tail later.
    SweepNamesThenTail,
    /// The sweeper tells generations apart by a short name that two of them share.
    SweepBySharedPrefix,
    /// The spool deletes a segment once the tail has passed its records' offsets.
    SpoolByTail,
    /// The Forwarder resends only what a gap slot or a re-creation made it resend.
    ResendAfterGapOnly,
    /// A buffer of nothing but repeats is never committed.
    NoEmptySlots,
    /// A chain per incarnation instead of generations: who finds no older chain begins an unlinked one.
    ChainPerIncarnation,
    /// The same, and the successor takes the seen sets over without closing the old chain.
    NoEndSlot,
    /// A new generation starts with empty seen sets.
    NoCarryOver,
    /// A session's intervals leave the slot as soon as the session is complete.
    ForgetAtSessionEnd,
    /// They leave it when the spool says so (after deleting them), but no floor stays behind.
    ForgetWithoutFloor,
    /// A new generation does not take the archive hour over.
    HourNotCarried,
    /// For the hour seal, a closed generation counts as one that has passed every hour.
    EndedCountsAsPassed,
}

impl Flaw {
    /// All of them, in the order of `facts/commit-chain-model.md`.
    pub const ALL: [Self; 18] = [
        Self::CommittedOffset,
        Self::RacySlotStore,
        Self::MaxOnly,
        Self::KeepOwnSeen,
        Self::SlotBeforeData,
        Self::SweepAboveTail,
        Self::SweepNamesThenTail,
        Self::SweepBySharedPrefix,
        Self::SpoolByTail,
        Self::ResendAfterGapOnly,
        Self::NoEmptySlots,
        Self::ChainPerIncarnation,
        Self::NoEndSlot,
        Self::NoCarryOver,
        Self::ForgetAtSessionEnd,
        Self::ForgetWithoutFloor,
        Self::HourNotCarried,
        Self::EndedCountsAsPassed,
    ];
}
