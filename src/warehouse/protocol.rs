//! The lines that go through the pipe to the refiner process: JSON, one message a line.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::domain::chain::{Body, Slot};
use crate::domain::hour::Hour;
use crate::io::store::S3Access;
use crate::telemetry::metrics::Failing;

/// The version of the protocol that this program speaks.
pub const VERSION: u32 = 1;

/// What the process is told.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Command<'a> {
    /// Take these slots in, build Silver and Gold, publish.
    Refine {
        /// Comes back in the answer.
        id: u64,
        /// The W3C trace context of this run, where it is sampled.
        traceparent: Option<&'a str>,
        /// How the objects are read, where they lie in a bucket.
        s3: Option<&'a S3Access>,
        /// The rounds before that failed, as far as they are known here: a process that was killed could not
        /// write it down.
        failing: Option<&'a Failing>,
        /// In the order of their chains. Those that it knows already are ignored.
        slots: &'a [SlotRow],
    },
    /// Finish and exit.
    Stop,
}

/// A slot as the warehouse stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotRow {
    /// The stream's name.
    pub stream: &'static str,
    /// The chain's partition.
    pub partition: u32,
    /// The chain's generation.
    pub generation: u64,
    /// The first offset covered.
    pub start: u64,
    /// The last offset covered.
    pub end: u64,
    /// `data` or `gap`.
    pub kind: &'static str,
    /// Records in it.
    pub rows: u64,
    /// Where the typed object is; none where there are no rows.
    pub typed: Option<String>,
    /// The archive hour of its objects.
    pub archive_hour: Option<Hour>,
    /// Where the raw object is, and the offsets that only it holds; none where typed has all.
    pub poison: Option<PoisonRow>,
}

/// Records that killed their writer: in raw, not in typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoisonRow {
    /// Where the raw object is.
    pub raw: String,
    /// Their offsets.
    pub offsets: Vec<u64>,
}

impl SlotRow {
    /// The row of a slot, its objects found at `address(key)`; `None` for an end slot, which covers
    /// nothing.
    pub fn of(slot: &Slot, address: impl Fn(&str) -> String) -> Option<SlotRow> {
        let (end, kind) = match &slot.body {
            Body::Data { end, .. } => (*end, "data"),
            Body::Gap { end, .. } => (*end, "gap"),
            Body::End { .. } => return None,
        };
        let data = slot.data();
        Some(SlotRow {
            stream: slot.stream.name(),
            partition: slot.partition,
            generation: slot.position.generation,
            start: slot.position.start,
            end,
            kind,
            rows: data.map_or(0, |data| data.rows),
            typed: data.map(|data| address(&data.typed.key)),
            archive_hour: data.map(|data| data.hour),
            poison: data
                .filter(|data| !data.poison.is_empty())
                .map(|data| PoisonRow { raw: address(&data.raw.key), offsets: data.poison.clone() }),
        })
    }
}

/// What the process says.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It is up.
    Hello {
        /// See [`VERSION`].
        version: u32,
        /// The last run that was published.
        run: u64,
        /// Per `stream/partition`, the last slot that it has.
        tails: BTreeMap<String, TailRow>,
        /// What its book says of rounds that failed.
        #[serde(default)]
        failing: Option<Failing>,
    },
    /// It has got so far with a command.
    Progress {
        /// The command.
        id: u64,
        /// `load`, `silver`, `gold`, `test`, `publish`.
        phase: String,
        /// It was told of before; the command is still at work.
        #[serde(default)]
        again: bool,
    },
    /// Done, and published.
    Done(Done),
    /// Not done; Gold is as it was.
    Failed {
        /// The command.
        id: u64,
        /// Where.
        phase: String,
        /// Why.
        error: String,
        /// Whether the same may succeed later.
        retryable: bool,
        /// What its book says of it and of those before.
        #[serde(default)]
        failing: Option<Failing>,
    },
}

/// The last slot that the warehouse has of a chain.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct TailRow {
    /// Its generation.
    pub generation: u64,
    /// The last offset that it covers.
    pub end: u64,
}

/// The outcome of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct Done {
    /// The command.
    pub id: u64,
    /// The run that is now published.
    pub run: u64,
    /// Rows by table, as `silver.trades`.
    #[serde(default)]
    pub rows: BTreeMap<String, u64>,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
    /// What the models go on without.
    #[serde(default)]
    pub unread: Option<Unread>,
    /// What is wrong with the user's file of positions; those read before stay.
    #[serde(default)]
    pub portfolio_error: Option<String>,
}

/// Slots that wait for an object that cannot be read. The warehouse tries them again each round.
#[derive(Clone, Debug, Deserialize)]
pub struct Unread {
    /// How many.
    pub slots: u64,
    /// The first object, and why it cannot be read.
    pub error: String,
}

impl Display for Unread {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let Unread { slots, error } = self;
        write!(
            formatter,
            "Silver goes on without {slots} slots, of which an object cannot be read ({error}): put a copy of it back, and they are taken"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_as_the_process_expects_and_writes_them() {
        let slots = [SlotRow {
            stream: "trades",
            partition: 0,
            generation: 1,
            start: 0,
            end: 9,
            kind: "data",
            rows: 10,
            typed: Some("/b/x.parquet".into()),
            archive_hour: Some(Hour(495_740)),
            poison: Some(PoisonRow { raw: "/b/x.jsonl.zst".into(), offsets: vec![4] }),
        }];
        let line =
            serde_json::to_string(&Command::Refine { id: 3, traceparent: None, s3: None, failing: None, slots: &slots }).unwrap();
        assert_eq!(
            line,
            r#"{"cmd":"refine","id":3,"traceparent":null,"s3":null,"failing":null,"slots":[{"stream":"trades","partition":0,"generation":1,"start":0,"end":9,"kind":"data","rows":10,"typed":"/b/x.parquet","archive_hour":"2026-07-21T20","poison":{"raw":"/b/x.jsonl.zst","offsets":[4]}}]}"#
        );
        let hello = r#"{"event":"hello","version":1,"pid":7,"duckdb":"1.5.5","dbt":"1.11.16","run":17,"tails":{"trades/0":{"generation":1,"end":1234}}}"#;
        let Event::Hello { run: 17, tails, .. } = serde_json::from_str(hello).unwrap() else { panic!() };
        assert_eq!(tails["trades/0"].end, 1234);
        let done = r#"{"event":"done","id":1,"run":7,"unread":{"slots":2,"error":"/b/x.parquet: gone"}}"#;
        let Event::Done(Done { unread: Some(unread), .. }) = serde_json::from_str(done).unwrap() else { panic!() };
        assert!(unread.to_string().contains("2 slots") && unread.to_string().contains("/b/x.parquet: gone"), "{unread}");
        let failed = r#"{"event":"failed","id":1,"phase":"dbt","error":"x","retryable":true}"#;
        assert!(matches!(serde_json::from_str(failed).unwrap(), Event::Failed { retryable: true, failing: None, .. }));
        let failed =
            failed.replace('}', r#","failing":{"since":"2026-11-23T15:00:00.5+00:00","rounds":2,"phase":"gold","error":"y"}}"#);
        let Event::Failed { failing: Some(failing), .. } = serde_json::from_str(&failed).unwrap() else { panic!() };
        assert_eq!((failing.since_ms(), failing.rounds, failing.phase.as_str()), (1_795_446_000_500, 2, "gold"));
        let progress = r#"{"event":"progress","id":1,"phase":"gold","again":true}"#;
        assert!(matches!(serde_json::from_str(progress).unwrap(), Event::Progress { again: true, .. }));
    }
}
