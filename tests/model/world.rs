//! What may happen in a run, and how often: the bounds that keep the number of states finite.

use super::flaws::Flaw;
use super::state::{Hour, Record, RecordSet, Segment, Session};

/// A record of the spool.
#[derive(Clone, Copy, Debug)]
pub struct Spooled {
    pub session: Session,
    pub segment: Segment,
    /// Hour of receipt.
    pub hour: Hour,
}

/// How the sweeper of orphans works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweeper {
    Off,
    /// Acts on what stands at that moment.
    Fresh,
    /// Acts on what it read at some time before. It reads so many times.
    Stale(u8),
}

/// One run of the model. Counts say how often a thing may happen at most; it also may not happen at all.
#[derive(Clone, Debug)]
pub struct World {
    /// `None`: the protocol as it is.
    pub flaw: Option<Flaw>,
    /// What the spool holds at the beginning, in its order.
    pub records: Vec<Spooled>,
    /// Crashes of a writer.
    pub crashes: u8,
    /// Requests sent again while the first is still under way.
    pub copies: u8,
    /// Appends of a record that was there already.
    pub resends: u8,
    /// Appends of a dead Forwarder that arrive later.
    pub late: u8,
    /// Steps of Kafka's retention, one offset each.
    pub expiries: u8,
    /// Times that the log loses its last entry (an unclean election).
    pub truncations: u8,
    /// Times that the topic is created anew.
    pub recreations: u8,
    /// A consumer goes on reading the new topic under the old incarnation.
    pub reads_by_name: bool,
    /// The spool's disk may be lost.
    pub disk_loss: bool,
    /// The Forwarder appends `Forget` when the first session is complete in Bronze and deleted.
    pub forgets: bool,
    /// Hour 0 is declared complete.
    pub seals: bool,
    /// A slot may hold nothing but repeats (no object).
    pub empty_slots: bool,
    pub sweeper: Sweeper,
}

impl World {
    /// Two writers, and so many records of one session in one segment. Nothing goes wrong but that
    /// answers get lost.
    pub fn of(records: usize) -> Self {
        Self {
            flaw: None,
            records: vec![Spooled { session: 0, segment: 0, hour: 0 }; records],
            crashes: 0,
            copies: 0,
            resends: 0,
            late: 0,
            expiries: 0,
            truncations: 0,
            recreations: 0,
            reads_by_name: false,
            disk_loss: false,
            forgets: false,
            seals: false,
            empty_slots: true,
            sweeper: Sweeper::Off,
        }
    }

    /// Two sessions of one record, each in a segment of its own.
    pub fn of_two_sessions() -> Self {
        let record = |session| Spooled { session, segment: session, hour: 0 };
        Self { records: vec![record(0), record(1)], ..Self::of(2) }
    }

    /// Two records of one session, received in different hours.
    pub fn of_two_hours() -> Self {
        let record = |hour| Spooled { session: 0, segment: 0, hour };
        Self { records: vec![record(0), record(1)], ..Self::of(2) }
    }

    pub fn is_flawed(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// How many records there are.
    pub fn count(&self) -> u8 {
        self.records.len() as u8
    }

    pub fn record(&self, record: Record) -> Spooled {
        self.records[usize::from(record)]
    }

    pub fn all_records(&self) -> RecordSet {
        (0..self.count()).collect()
    }

    pub fn records_where(&self, holds: impl Fn(Spooled) -> bool) -> RecordSet {
        (0..self.count()).filter(|record| holds(self.record(*record))).collect()
    }

    /// The records of the sessions below the floor.
    pub fn below(&self, floor: Session) -> RecordSet {
        self.records_where(|record| record.session < floor)
    }

    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        0..=self.records.iter().map(|record| record.segment).max().unwrap_or(0)
    }
}
