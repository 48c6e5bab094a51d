//! What the bucket has deleted because it was old enough: it has expired, and is not lost.
//!
//! Of an expired object its slot tells how many records it had, and nobody any more which ones. So what is missing of a session
//! is held to be among them where it can be: its chain has that many expired records, and it is not known to have come
//! too late for that. What came behind its stream's horizon ([`Retention::horizon`]) is lost as ever.

use std::collections::BTreeMap;

use serde::Serialize;

use super::found::{Found, SessionCount};
use crate::domain::chain::{ChainId, DataRange};
use crate::domain::hour::Hour;
use crate::domain::identity::{Micros, SessionId};
use crate::domain::stream::Stream;
use crate::io::s3::retention::Retention;

/// Records that have expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// As the server sent them.
    pub raw: u64,
    /// As typed columns.
    pub typed: u64,
    /// The newest archive hour that has any of them.
    pub until: Option<Hour>,
}

impl Expired {
    /// Adds a slot of which these objects have expired.
    pub(super) fn add(&mut self, data: &DataRange, [raw, typed]: [bool; 2]) {
        self.raw += if raw { data.rows } else { 0 };
        self.typed += if typed { data.rows.saturating_sub(data.poison.len() as u64) } else { 0 };
        self.until = self.until.max((raw || typed).then_some(data.hour));
    }
}

/// By stream, of those that have any.
pub(super) fn by_stream(chains: &BTreeMap<ChainId, Expired>) -> BTreeMap<Stream, Expired> {
    let mut streams = BTreeMap::<_, Expired>::new();
    for (chain, Expired { raw, typed, until }) in chains {
        let stream = streams.entry(chain.stream).or_default();
        (stream.raw, stream.typed, stream.until) = (stream.raw + raw, stream.typed + typed, stream.until.max(*until));
    }
    streams
}

impl SessionCount {
    /// Remembers what tells that a record came too late to have expired.
    pub(super) fn received(&mut self, retention: &Retention, chain: ChainId, at: Micros, seq: u64) {
        self.last_received_at = self.last_received_at.max(Some(at));
        if retention.horizon(chain.stream).is_some_and(|horizon| at > horizon) {
            let first = self.kept.entry(chain).or_insert(seq);
            *first = seq.min(*first);
        }
    }
}

impl Found {
    /// Whether records of a session may be among those of a stream that have expired.
    pub(super) fn may_have_expired(&self, session: SessionId, stream: Stream) -> bool {
        let has_expired = self.expired.iter().any(|(chain, expired)| chain.stream == stream && expired.raw > 0);
        has_expired && opened_at(session).is_some_and(|at| self.is_before_horizon(at, stream))
    }

    /// Whether a session has ended, as far as is known, and what told of its end has expired.
    pub(super) fn end_has_expired(&self, session: SessionId) -> bool {
        let is_told = |count: &SessionCount| count.end.is_some() || count.living.is_some() || count.is_open;
        // Its end came behind all else of it.
        let is_late = |at| !self.is_before_horizon(at, Stream::Gaps);
        let count = self.sessions.get(&session);
        self.may_have_expired(session, Stream::Gaps)
            && !count.is_some_and(|count| is_told(count) || count.last_received_at.is_some_and(is_late))
    }

    fn is_before_horizon(&self, at: Micros, stream: Stream) -> bool {
        self.retention.horizon(stream).is_some_and(|horizon| at <= horizon)
    }
}

/// Expired records that nothing is known to be yet.
pub(super) struct Unnamed(BTreeMap<ChainId, u64>);

impl Unnamed {
    pub(super) fn of(found: &Found) -> Unnamed {
        Unnamed(found.expired.iter().map(|(chain, expired)| (*chain, expired.raw)).collect())
    }

    /// How many of a session's records that are missing, from number `low` to `high` of a chain, have expired.
    pub(super) fn take(&mut self, found: &Found, session: SessionId, chain: ChainId, (low, high): (u64, u64)) -> u64 {
        let Some(left) = self.0.get_mut(&chain).filter(|_| found.may_have_expired(session, chain.stream)) else { return 0 };
        // Numbers are given in the order of receipt.
        let kept = found.sessions.get(&session).and_then(|count| count.kept.get(&chain));
        let old = kept.map_or(high + 1, |kept| *kept.min(&(high + 1))).saturating_sub(low);
        let taken = old.min(*left);
        *left -= taken;
        taken
    }
}

/// When a session was opened, by the daemon's clock.
fn opened_at(session: SessionId) -> Option<Micros> {
    let (seconds, nanos) = session.0.get_timestamp()?.to_unix();
    Some(i64::try_from(seconds).ok()? * 1_000_000 + i64::from(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use sha2::{Digest, Sha256};
    use uuid::{NoContext, Timestamp, Uuid};

    use super::super::bronze::read_all;
    use super::super::ledger::{Connection, Sent};
    use super::super::report::{Report, report};
    use super::super::warehouse::{StreamCount, WarehouseCount};
    use super::*;
    use crate::domain::chain::{Body, Carry, ObjectRef, Position, SLOT_VERSION, Slot};
    use crate::domain::entry::{Control, Gap, SessionEnd};
    use crate::domain::identity::{Delivery, LogId};
    use crate::domain::object::hex;
    use crate::io::folder::FolderStore;
    use crate::io::s3::lifecycle::{Expires, Rule};
    use crate::io::store::Store;

    const DAY: Micros = 86_400_000_000;
    const BEGIN: Micros = 1_795_464_000_000_000;
    const TRADES: ChainId = ChainId { stream: Stream::Trades, partition: 0 };
    const GAPS: ChainId = ChainId { stream: Stream::Gaps, partition: 0 };

    fn thirty_days(prefix: &str, now: Micros) -> Retention {
        let rule = Rule { id: "r".into(), prefix: prefix.into(), expires: Expires::After(30), bytes: 0..u64::MAX };
        Retention::new(vec![rule], "", now)
    }

    /// A record and its place.
    #[derive(Clone, Debug)]
    struct Row {
        session: SessionId,
        frame: u32,
        seq: u64,
        at: Micros,
        control: Option<Control>,
    }

    /// One shard, a session a day from `BEGIN` on, a frame of one trade an hour.
    struct Shard {
        chains: BTreeMap<ChainId, Vec<Row>>,
        ledger: BTreeMap<u64, Connection>,
    }

    impl Shard {
        /// Sessions of so many frames. Two more frames of each were sent, and not received.
        fn of(frames: &[u32]) -> Shard {
            let mut shard = Shard { chains: [(TRADES, vec![]), (GAPS, vec![])].into(), ledger: BTreeMap::new() };
            let mut before: Option<(SessionId, SessionEnd)> = None;
            for (day, &frames) in (0..).zip(frames) {
                let opened = BEGIN + day * DAY;
                let session = SessionId(Uuid::new_v7(Timestamp::from_unix(NoContext, (opened / 1_000_000) as u64, 0)));
                let at = |frame: u32| opened + i64::from(frame) * DAY / 24;
                let row = |frame, seq, control| Row { session, frame, seq, at: at(frame), control };
                shard.of_chain(TRADES).extend((1..=frames).map(|frame| row(frame, u64::from(frame) - 1, None)));
                let gap = before.map(|(previous, end)| {
                    Control::Gap(Gap {
                        shard: "s".into(),
                        symbols: vec![],
                        previous_session: previous,
                        last_frame: end.frames,
                        last_received_at: end.last_received_at,
                        first_received_at: Some(at(1)),
                        reason: "stalled".into(),
                        opened: None,
                    })
                });
                let gaps = u64::from(gap.is_some());
                let end = SessionEnd {
                    shard: "s".into(),
                    frames,
                    records: [u64::from(frames), gaps, 0],
                    partitions: None,
                    last_received_at: Some(at(frames)),
                    reason: "stalled".into(),
                    opened: None,
                };
                shard.of_chain(GAPS).extend(gap.map(|gap| row(1, 0, Some(gap))));
                shard.of_chain(GAPS).push(row(frames, gaps, Some(Control::SessionEnd(end.clone()))));
                let sent = (1..=frames + 2).map(|number| Sent { number, trades: 1, bad: 0 }).collect();
                shard.ledger.insert(day as u64, Connection { session: Some(session), frames: sent });
                before = Some((session, end));
            }
            shard
        }

        fn of_chain(&mut self, chain: ChainId) -> &mut Vec<Row> {
            self.chains.get_mut(&chain).unwrap()
        }

        /// What is found in slots of so many rows, of which `expires` says whether those behind which it may are gone.
        fn found(&self, retention: Retention, slot: usize, mut expires: impl FnMut() -> bool) -> Found {
            let mut found = Found { retention, ..Found::default() };
            for (chain, rows) in &self.chains {
                for rows in rows.chunks(slot) {
                    let written_at = rows.last().unwrap().at;
                    let object = object(&format!("bronze/raw/{}/x", chain.stream), b"");
                    if found.retention.may_have_deleted(&object, written_at) && expires() {
                        let expired = found.expired.entry(*chain).or_default();
                        expired.add(&data(rows.len(), object.clone(), object), [true, true]);
                        continue;
                    }
                    for row in rows {
                        found.archived[chain.stream.index()] += 1;
                        let delivery = Delivery { session: row.session, frame: row.frame, index: 0 };
                        assert!(found.record(*chain, delivery, row.seq, row.at));
                        if chain.stream == Stream::Gaps {
                            found.control(row.session, row.control.clone());
                        }
                    }
                }
            }
            found
        }

        fn trades(&self) -> u64 {
            self.chains[&TRADES].len() as u64
        }
    }

    /// The report, Silver having been loaded with so many trades when they were there.
    fn with_silver(found: &Found, ledger: Option<&BTreeMap<u64, Connection>>, rows: u64) -> Report {
        let mut report = report(found, ledger);
        let trades = StreamCount { rows, distinct: rows, kept: rows };
        let warehouse = WarehouseCount { streams: [("trades".to_string(), trades)].into(), ..WarehouseCount::default() };
        report.hold_against_warehouse(found, &warehouse);
        report
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whichever of the old slots are gone, nothing is lost, neither by the counts nor by the ledger; and Silver, which has
        /// them all, has nothing twice. Control: a record that came too late to have expired is missed.
        #[test]
        fn what_has_expired_is_not_lost_and_what_is_younger_is(
            frames in prop::collection::vec(1u32..24, 1..8),
            slot in 1usize..20,
            days in 28i64..42,
            gone in prop::collection::vec(any::<bool>(), 200),
            folders in prop::sample::select(vec!["", "bronze/raw/trades/", "bronze/raw/gaps/"]),
            victim in any::<prop::sample::Index>(),
        ) {
            let mut shard = Shard::of(&frames);
            let retention = || thirty_days(folders, BEGIN + days * DAY);
            let mut gone = gone.into_iter().cycle();
            let found = shard.found(retention(), slot, || gone.next().unwrap());
            for ledger in [None, Some(&shard.ledger)] {
                let report = with_silver(&found, ledger, shard.trades());
                prop_assert!(report.is_clean() && report.findings.is_empty() && report.cut_off.is_empty(), "{:#?}", report);
                let expired = report.expired.get(&Stream::Trades).map_or(0, |expired| expired.raw);
                prop_assert_eq!(report.archived + expired, shard.trades());
                prop_assert_eq!(with_silver(&found, ledger, shard.trades() + 1).duplicated, 1);
            }

            let horizon = |stream| retention().horizon(stream).unwrap_or(Micros::MIN);
            let rows = shard.of_chain(TRADES);
            let Some(young) = rows.iter().position(|row| row.at > horizon(Stream::Trades)) else { return Ok(()) };
            let lost = rows.remove(young + victim.index(rows.len() - young));
            prop_assert_eq!(report(&shard.found(retention(), slot, || false), None).lost, 1);
            // Where what is older has expired, a hole at the horizon may reach behind it, and an end may have to tell of it.
            let rows = &shard.chains[&TRADES];
            let is_behind = |row: &Row| row.session == lost.session && row.at > horizon(Stream::Trades) && row.at < lost.at;
            let is_told = lost.at > horizon(Stream::Gaps) || rows.iter().any(|row| row.session == lost.session && row.at > lost.at);
            if is_told && rows.iter().any(is_behind) {
                prop_assert_eq!(report(&shard.found(retention(), slot, || true), None).lost, 1);
            }
        }
    }

    #[test]
    fn no_more_is_held_to_have_expired_than_slots_say() {
        let mut shard = Shard::of(&[20, 20, 20]);
        let retention = || thirty_days("", BEGIN + 90 * DAY);
        let mut slots = 0;
        let mut first = || {
            slots += 1;
            slots == 4
        };
        assert!(report(&shard.found(retention(), 5, &mut first), None).is_clean(), "five of the first session");
        shard.of_chain(TRADES).remove(30);
        let said = report(&shard.found(retention(), 5, || false), None);
        assert_eq!((said.lost, said.faults), (1, 0), "nothing has expired: {said:#?}");
        shard.of_chain(TRADES).drain(0..6);
        let mut slots = 0;
        let mut second = || {
            slots += 1;
            slots == 3
        };
        let said = report(&shard.found(retention(), 5, &mut second), None);
        assert_eq!((said.lost, said.expired[&Stream::Trades].raw), (7, 5), "seven were in no slot: {said:#?}");
    }

    #[test]
    fn an_end_that_would_have_come_behind_the_horizon_has_not_expired() {
        let shard = Shard::of(&[20, 20, 20]);
        let mut found = shard.found(thirty_days("", BEGIN + 31 * DAY), 1, || true);
        let last = *found.sessions.keys().next_back().unwrap();
        found.sessions.get_mut(&last).unwrap().end = None;
        let said = report(&found, None);
        assert!(said.faults == 1 && said.findings[0].contains("has no end"), "{said:#?}");
        // The control: one whose last record is old enough; unless the chain of the gaps says that its end never came.
        let mut found = shard.found(thirty_days("", BEGIN + 60 * DAY), 1, || true);
        found.sessions.entry(last).or_default();
        assert!(report(&found, None).is_clean());
        found.sessions.get_mut(&last).unwrap().is_open = true;
        assert_eq!(report(&found, None).faults, 1);
        // Nor was one cut off whose end has expired, though something of it is lost.
        let mut shard = shard;
        shard.of_chain(TRADES).remove(5);
        let said = report(&shard.found(thirty_days("bronze/raw/gaps/", BEGIN + 60 * DAY), 1, || true), None);
        assert_eq!((said.lost, said.faults, said.cut_off.len()), (1, 0, 0), "{said:#?}");
    }

    fn object(key: &str, content: &[u8]) -> ObjectRef {
        ObjectRef { key: key.into(), bytes: content.len() as u64, sha256: hex(&Sha256::digest(content)) }
    }

    fn data(rows: usize, raw: ObjectRef, typed: ObjectRef) -> DataRange {
        let (hour, poison) = (Hour::of(BEGIN), vec![]);
        DataRange { rows: rows as u64, raw, typed, hour, min_time: 0, max_time: 0, event_hours: vec![], poison }
    }

    /// A chain of slots of one record each, written a day after the other; of each whether its raw and its typed object are there.
    async fn chain(store: &Arc<dyn Store>, there: &[[bool; 2]]) {
        let log = LogId::generate();
        let mut position = Position::default();
        let slots = (0..).zip(there).map(|(day, there)| (day, Some(there)));
        for (day, objects) in std::iter::once((0, None)).chain(slots) {
            let mut body = Body::End { next: log };
            if let Some(are_there) = objects {
                let line = format!(r#"{{"session":"{}","frame":1,"index":0,"seq":0,"received_at":{BEGIN}}}"#, LogId::generate());
                let raw = zstd::encode_all(line.as_bytes(), 1).unwrap();
                let contents = [("raw", raw), ("typed", day.to_string().into_bytes())];
                let [raw, typed] =
                    contents.map(|(form, content)| (object(&format!("bronze/{form}/trades/{day}"), &content), content));
                for ((object, content), is_there) in [&raw, &typed].into_iter().zip(are_there) {
                    if *is_there {
                        store.put(&object.key, content.clone().into()).await.unwrap();
                    }
                }
                body = Body::Data { end: position.start, data: Some(data(1, raw.0, typed.0)) };
            }
            let slot = Slot {
                version: SLOT_VERSION,
                stream: Stream::Trades,
                partition: 0,
                position,
                incarnation: objects.map(|_| log),
                body,
                carry: Carry::default(),
                writer: Uuid::nil(),
                epoch: 0,
                written_at: BEGIN + day * DAY,
                traceparent: None,
            };
            store.create(&position.key(TRADES), serde_json::to_vec(&slot).unwrap().into()).await.unwrap();
            position = slot.tail().next;
        }
    }

    #[tokio::test]
    async fn of_objects_that_are_not_there_the_old_ones_have_expired_each_by_its_own_rule() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
        let all = [[false, false], [false, true], [true, false], [true, true], [false, false]];
        chain(&store, &all).await;
        let counts = |found: &Found| {
            let Expired { raw, typed, .. } = found.expired.get(&TRADES).copied().unwrap_or_default();
            (found.archived[0], raw, typed, found.faults.len())
        };
        let read = async |retention| read_all(&store, &[], 1, retention).await.unwrap();
        assert_eq!(counts(&read(Retention::default()).await), (2, 0, 0, 6));
        // Thirty days are the rule's, and a day is allowed for: the first four are old enough.
        let now = BEGIN + (29 + 3) * DAY;
        let found = read(thirty_days("", now)).await;
        assert_eq!(counts(&found), (2, 2, 2, 2), "the last one is too young: {found:#?}");
        assert!(found.faults.iter().all(|fault| fault.contains("trades/4 is named by a slot and is not there")), "{found:#?}");
        assert_eq!(counts(&read(thirty_days("bronze/raw/", now)).await), (2, 2, 0, 4));
        let report = report(&read(thirty_days("", BEGIN + 99 * DAY)).await, None);
        let told = serde_json::to_value(&report.expired).unwrap();
        assert_eq!(told, serde_json::json!({"trades": {"raw": 3, "typed": 3, "until": "2026-11-23T20"}}));
    }
}
