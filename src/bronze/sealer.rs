//! Sweeps what no slot names out of archive hours that are over, and declares them complete.
//!
//! An hour is complete when the tail of every chain has passed it: nothing can be archived in it any
//! more, since the archive hour never goes back, over generations too. Then its folders are looked
//! through for orphans, and `_complete/YYYY/MM/DD/HH.json` says so, with counts (also of an hour in which
//! nothing came: who waits for it must not wait for ever) and with the places where the next hour begins.
//! A new process goes on behind the last marker, so the marker comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fail::fail_point;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use serde::{Deserialize, Serialize};

use super::chain::{self, Chain, ChainError, Follower};
use crate::domain::chain::{Body, ChainId, DataRange, Position, Slot};
use crate::domain::hour::Hour;
use crate::domain::identity::Micros;
use crate::domain::object::{self, Form};
use crate::faults::{Flaw, flawed};
use crate::io::store::Store;

/// How many days back a process looks for the last complete hour before it lists all of them.
const DAYS_BACK: i64 = 14;

/// Hours in which nothing came are declared complete so far back from the hour that is reached. A machine whose
/// clock began at 1970 would else have half a million of them.
const EMPTY_HOURS_BACK: i64 = 24 * 31;

/// So many slots are held at once, where much is new.
const SLOTS: usize = 4_096;

/// Where the markers of complete hours lie.
pub const COMPLETE: &str = "_complete/";

/// What an hour holds of one chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourCount {
    /// Slots with data.
    pub slots: u64,
    /// Records.
    pub rows: u64,
    /// Bytes of the raw and the typed objects.
    pub bytes: u64,
}

impl HourCount {
    /// Adds what a slot commits.
    pub fn add(&mut self, data: &DataRange) {
        self.slots += 1;
        self.rows += data.rows;
        self.bytes += data.raw.bytes + data.typed.bytes;
    }
}

/// The marker of a complete hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// The hour.
    pub hour: Hour,
    /// What it holds, by `stream/partition`.
    pub chains: BTreeMap<String, HourCount>,
    /// By `stream/partition`, a place in the chain before which all of the hour's slots stand.
    pub next: BTreeMap<String, Position>,
    /// When it was declared, microseconds.
    pub sealed_at: Micros,
}

impl Complete {
    /// The key of an hour's marker.
    pub fn key(hour: Hour) -> String {
        format!("{COMPLETE}{}.json", hour.folder())
    }
}

/// What was done in a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Hours that were declared complete.
    pub hours: Vec<Hour>,
    /// Orphans that were deleted.
    pub orphans: Vec<String>,
}

/// One chain as far as it has been read.
struct Reading {
    follower: Follower,
    reached: Option<Hour>,
    /// Where the chain stood when it first reached each hour.
    began: BTreeMap<Hour, Position>,
}

/// Follows all chains and seals the hours that they have passed.
pub struct Sealer {
    store: Arc<dyn Store>,
    chains: Vec<ChainId>,
    /// Where chains are read from, by their names, if not from their beginning. None before the last marker has been looked for.
    begins: Option<BTreeMap<String, Position>>,
    /// Of `chains`, in their order.
    readings: Vec<Reading>,
    counts: BTreeMap<Hour, BTreeMap<String, HourCount>>,
    named: BTreeMap<Hour, BTreeSet<String>>,
    /// The last hour that is complete.
    last: Option<Hour>,
}

impl Sealer {
    /// A sealer that has not read anything yet.
    pub fn new(store: Arc<dyn Store>, chains: Vec<ChainId>) -> Sealer {
        Sealer { store, chains, begins: None, readings: Vec::new(), counts: BTreeMap::new(), named: BTreeMap::new(), last: None }
    }

    /// Waits for these, too, from the next round on: no hour is complete before they have passed it.
    pub fn follow(&mut self, chains: Vec<ChainId>) {
        let new = chains.into_iter().filter(|id| !self.chains.contains(id));
        self.chains.extend(new.collect::<Vec<_>>());
    }

    /// Reads what is new in the chains, seals and sweeps what they have passed. After an error the
    /// same is tried again by the next round.
    pub async fn round(&mut self, now: Micros) -> Result<Sealed, ChainError> {
        self.start(now).await?;
        let mut more = true;
        while more {
            let ahead = chain::ahead(self.readings.iter().map(|reading| &reading.follower), SLOTS).await?;
            ahead.slots.iter().for_each(|(at, slot)| self.note(*at, slot));
            more = ahead.more;
        }
        let ends = stream::iter(&self.readings).map(|reading| reading.follower.end()).buffered(chain::AT_ONCE);
        ends.try_for_each(future::ok).await?;
        if flawed(Flaw::SweepApart) {
            self.read_tails_again().await?;
        }
        let mut sealed = Sealed::default();
        for hour in self.due() {
            sealed.orphans.extend(self.sweep(hour).await?);
            self.seal(hour, now).await?;
            self.counts.remove(&hour);
            self.named.remove(&hour);
            // From the next hour on: where it begins is all that is asked for.
            self.readings.iter_mut().for_each(|reading| reading.began = reading.began.split_off(&Hour(hour.0 + 1)));
            self.last = Some(hour);
            sealed.hours.push(hour);
        }
        Ok(sealed)
    }

    /// The hours that every chain has passed and that were not declared complete, in order.
    fn due(&self) -> BTreeSet<Hour> {
        let Some(passed) = self.readings.iter().map(|reading| reading.reached).min().flatten() else { return BTreeSet::new() };
        let began = self.readings.iter().flat_map(|reading| reading.began.keys()).min();
        let first = self.last.map(|last| Hour(last.0 + 1)).or(began.copied()).unwrap_or(passed);
        let empty = first.0.max(passed.0 - EMPTY_HOURS_BACK)..passed.0;
        self.counts.range(..passed).map(|(hour, _)| *hour).chain(empty.map(Hour)).collect()
    }

    /// Moves on to the tails of now, and overlooks the names in between: [`Flaw::SweepApart`].
    async fn read_tails_again(&mut self) -> Result<(), ChainError> {
        for reading in &mut self.readings {
            while let Some(slot) = reading.follower.next().await? {
                reading.reached = reading.reached.max(slot.carry.archive_hour);
            }
        }
        Ok(())
    }

    /// Finds the last marker, and begins with the chains that are not read yet.
    async fn start(&mut self, now: Micros) -> Result<(), ChainError> {
        if self.begins.is_none() {
            let last = self.last_complete(now).await?;
            self.last = last.as_ref().map(|complete| complete.hour);
            self.begins = Some(last.map(|complete| complete.next).unwrap_or_default());
        }
        let begin =
            |id: &ChainId| self.begins.as_ref().and_then(|begins| begins.get(&id.to_string())).copied().unwrap_or_default();
        for id in &self.chains[self.readings.len()..] {
            let follower = Follower::new(Chain::new(*id, self.store.clone()), begin(id));
            self.readings.push(Reading { follower, reached: None, began: BTreeMap::new() });
        }
        Ok(())
    }

    async fn last_complete(&self, now: Micros) -> Result<Option<Complete>, ChainError> {
        let days = (0..DAYS_BACK).map(|back| Hour(Hour::of(now).0 - 24 * back).folder());
        let days = days.map(|folder| format!("{COMPLETE}{}/", &folder[..10]));
        for folder in days.chain([COMPLETE.to_string()]) {
            let Some(newest) = self.store.list(&folder).await?.pop() else { continue };
            let complete = self.store.get(&newest).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if complete.is_some() {
                return Ok(complete);
            }
        }
        Ok(None)
    }

    /// Takes the slot in, and passes it: in one step, as a name that is overlooked would be an orphan's.
    fn note(&mut self, at: usize, slot: &Slot) {
        let reading = &mut self.readings[at];
        reading.follower.pass(slot);
        if let Some(hour) = slot.carry.archive_hour {
            reading.reached = reading.reached.max(Some(hour));
            reading.began.entry(hour).or_insert(slot.position);
            if flawed(Flaw::ClosedHasPassed) && matches!(slot.body, Body::End { .. }) {
                reading.reached = Some(Hour(hour.0 + 1));
            }
        }
        let Some(data) = slot.data().filter(|data| Some(data.hour) > self.last) else { return };
        let chain = reading.follower.id().to_string();
        let count = self.counts.entry(data.hour).or_default().entry(chain).or_default();
        count.add(data);
        self.named.entry(data.hour).or_default().extend([data.raw.key.clone(), data.typed.key.clone()]);
    }

    async fn seal(&self, hour: Hour, now: Micros) -> Result<(), ChainError> {
        let next = self.readings.iter().map(|reading| {
            let after = reading.began.range(Hour(hour.0 + 1)..).next().map(|(_, position)| *position);
            (reading.follower.id().to_string(), after.unwrap_or(reading.follower.position()))
        });
        let mut chains = self.counts.get(&hour).cloned().unwrap_or_default();
        for id in &self.chains {
            chains.entry(id.to_string()).or_default();
        }
        let complete = Complete { hour, chains, next: next.collect(), sealed_at: now };
        let body = serde_json::to_vec_pretty(&complete).expect("the keys are strings");
        // One that another process wrote says the same: an hour that all have passed does not change.
        fail_point!("seal.before-marker");
        self.store.create(&Complete::key(hour), body.into()).await?;
        fail_point!("seal.after-marker");
        Ok(())
    }

    /// Deletes the hour's objects that no slot names. Names and tails are of one reading of the chains;
    /// an object at or above the tail may belong to a slot that is being written.
    async fn sweep(&self, hour: Hour) -> Result<Vec<String>, ChainError> {
        let none = BTreeSet::new();
        let named = self.named.get(&hour).unwrap_or(&none);
        let mut orphans = Vec::new();
        for reading in &self.readings {
            let (id, tail) = (reading.follower.id(), reading.follower.position());
            for form in [Form::Raw, Form::Typed] {
                for key in self.store.list(&object::hour_prefix(form, id, hour)).await? {
                    let below =
                        object::parse_name(&key).is_some_and(|(p, position)| p == id.partition && is_below(position, tail));
                    if below && !named.contains(&key) {
                        self.store.delete(&key).await?;
                        fail_point!("sweep.orphan");
                        orphans.push(key);
                    }
                }
            }
        }
        Ok(orphans)
    }
}

/// Whether what stands there is either named by a slot or never will be.
fn is_below(position: Position, tail: Position) -> bool {
    if flawed(Flaw::SweepAcrossGenerations) {
        return position.start < tail.start;
    }
    position < tail || flawed(Flaw::SweepAboveTail)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::chain::{Body, Carry, DataRange, SLOT_VERSION};
    use crate::domain::identity::LogId;
    use crate::domain::stream::Stream;
    use crate::io::memory::{Fault, MemoryStore};
    use crate::io::store::CHAINS;

    const TRADES: ChainId = ChainId { stream: Stream::Trades, partition: 0 };
    const GAPS: ChainId = ChainId { stream: Stream::Gaps, partition: 0 };

    /// A chain that is written by hand: each slot's hour, with data or not.
    async fn write(store: &Arc<dyn Store>, id: ChainId, slots: &[(u64, u64, i64, bool)]) {
        for &(generation, start, hour, with_data) in slots {
            let position = Position { generation, start };
            let mut data = None;
            if with_data {
                let refer =
                    |form| object::name(form, id, Hour(hour), position, start, format!("{generation} {start}").as_bytes());
                let (raw, typed) = (refer(Form::Raw), refer(Form::Typed));
                for object in [&raw, &typed] {
                    store.put(&object.key, Bytes::from(format!("{generation} {start}"))).await.unwrap();
                }
                let (min_time, max_time, event_hours) = (0, 0, vec![]);
                data = Some(DataRange { rows: 2, raw, typed, hour: Hour(hour), min_time, max_time, event_hours, poison: vec![] });
            }
            let slot = Slot {
                version: SLOT_VERSION,
                stream: id.stream,
                partition: id.partition,
                position,
                incarnation: None,
                body: Body::Data { end: start, data },
                carry: Carry { archive_hour: Some(Hour(hour)), ..Carry::default() },
                writer: uuid::Uuid::nil(),
                epoch: 1,
                written_at: 0,
                traceparent: None,
            };
            Chain::new(id, store.clone()).decide(&slot).await.unwrap();
        }
    }

    async fn end(store: &Arc<dyn Store>, id: ChainId, start: u64, hour: i64) {
        let slot = Slot {
            version: SLOT_VERSION,
            stream: id.stream,
            partition: id.partition,
            position: Position { generation: 0, start },
            incarnation: None,
            body: Body::End { next: LogId::generate() },
            carry: Carry { archive_hour: Some(Hour(hour)), ..Carry::default() },
            writer: uuid::Uuid::nil(),
            epoch: 1,
            written_at: 0,
            traceparent: None,
        };
        Chain::new(id, store.clone()).decide(&slot).await.unwrap();
    }

    fn store() -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }

    #[tokio::test]
    async fn an_hour_is_complete_when_every_chain_has_passed_it() {
        let store = store();
        let mut sealer = Sealer::new(store.clone(), vec![TRADES, GAPS]);
        write(&store, TRADES, &[(0, 0, 10, true), (0, 1, 10, true), (0, 2, 11, true)]).await;
        assert_eq!(sealer.round(Hour(12).begins()).await.unwrap(), Sealed::default(), "gaps have not passed");
        write(&store, GAPS, &[(0, 0, 11, false)]).await;
        assert_eq!(sealer.round(Hour(12).begins()).await.unwrap().hours, [Hour(10)]);
        let bytes = store.get(&Complete::key(Hour(10))).await.unwrap().unwrap();
        let complete: Complete = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(complete.chains["trades/0"].rows, 4);
        assert_eq!(sealer.round(Hour(12).begins()).await.unwrap(), Sealed::default(), "once");
    }

    #[tokio::test]
    async fn a_new_process_goes_on_behind_the_last_complete_hour_and_counts_nothing_twice() {
        let store = store();
        write(&store, TRADES, &[(0, 0, 10, true), (0, 1, 11, true)]).await;
        assert_eq!(Sealer::new(store.clone(), vec![TRADES]).round(Hour(12).begins()).await.unwrap().hours, [Hour(10)]);
        end(&store, TRADES, 2, 11).await;
        write(&store, TRADES, &[(1, 0, 11, true), (1, 1, 12, true)]).await;
        assert_eq!(Sealer::new(store.clone(), vec![TRADES]).round(Hour(13).begins()).await.unwrap().hours, [Hour(11)]);
        let bytes = store.get(&Complete::key(Hour(11))).await.unwrap().unwrap();
        let complete: Complete = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(complete.chains["trades/0"], HourCount { slots: 2, rows: 4, bytes: complete.chains["trades/0"].bytes });
    }

    #[tokio::test]
    async fn a_chain_that_joins_is_waited_for_too_and_counted() {
        const JOINED: ChainId = ChainId { stream: Stream::Trades, partition: 1 };
        let store = store();
        let mut sealer = Sealer::new(store.clone(), vec![TRADES]);
        write(&store, TRADES, &[(0, 0, 10, true), (0, 1, 12, true)]).await;
        assert_eq!(sealer.round(Hour(12).begins()).await.unwrap().hours, [Hour(10), Hour(11)]);
        sealer.follow(vec![TRADES, JOINED]);
        write(&store, TRADES, &[(0, 2, 13, true)]).await;
        assert_eq!(sealer.round(Hour(13).begins()).await.unwrap(), Sealed::default(), "it has not come so far");
        write(&store, JOINED, &[(0, 0, 12, true), (0, 1, 13, false)]).await;
        assert_eq!(sealer.round(Hour(13).begins()).await.unwrap().hours, [Hour(12)]);
        let bytes = store.get(&Complete::key(Hour(12))).await.unwrap().unwrap();
        let complete: Complete = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            complete.chains.iter().map(|(id, count)| (id.as_str(), count.rows)).collect::<Vec<_>>(),
            [("trades/0", 2), ("trades/1", 2)]
        );
    }

    #[tokio::test]
    async fn a_hole_in_a_chain_is_told_and_seals_nothing_until_it_is_filled() {
        let store = store();
        write(&store, TRADES, &[(0, 0, 10, true), (0, 1, 11, true), (0, 2, 12, true)]).await;
        let key = Position { generation: 0, start: 1 }.key(TRADES);
        let slot = store.get(&key).await.unwrap().unwrap();
        store.delete(&key).await.unwrap();
        let mut sealer = Sealer::new(store.clone(), vec![TRADES]);
        let told = sealer.round(Hour(13).begins()).await.unwrap_err().to_string();
        assert!(told.contains(&key) && told.contains("put a copy of it back"), "{told}");
        store.put(&key, slot).await.unwrap();
        assert_eq!(sealer.round(Hour(13).begins()).await.unwrap().hours, [Hour(10), Hour(11)]);
    }

    /// A slot that is passed and not noted would leave its objects without a name: the sweeper would take them for orphans.
    #[tokio::test]
    async fn what_was_read_of_a_chain_counts_though_another_could_not_be_read() {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        for chain in [TRADES, GAPS] {
            write(&store, chain, &[(0, 0, 10, true), (0, 1, 10, true), (0, 2, 11, false)]).await;
        }
        let mut sealer = Sealer::new(store.clone(), vec![TRADES, GAPS]);
        for start in 0..3 {
            let broken = Position { generation: 0, start }.key(GAPS);
            memory.set_faults(move |operation, key| (operation == "get" && key == broken).then_some(Fault::Retry));
            assert!(sealer.round(Hour(12).begins()).await.is_err());
        }
        memory.heal();
        let sealed = sealer.round(Hour(12).begins()).await.unwrap();
        assert_eq!(sealed, Sealed { hours: vec![Hour(10)], orphans: vec![] });
        let complete = store.get(&Complete::key(Hour(10))).await.unwrap().unwrap();
        let complete: Complete = serde_json::from_slice(&complete).unwrap();
        assert!(complete.chains.values().all(|count| count.rows == 4), "{complete:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn chains_are_read_beside_each_other() {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let chains: Vec<_> = (0..16).map(|partition| ChainId { stream: Stream::Trades, partition }).collect();
        for chain in &chains {
            write(&store, *chain, &[(0, 0, 10, true), (0, 1, 10, true), (0, 2, 10, true)]).await;
        }
        let second = std::time::Duration::from_secs(1);
        memory.set_faults(move |operation, key| (operation == "get" && key.contains(CHAINS)).then_some(Fault::Delay(second)));
        let begin = tokio::time::Instant::now();
        Sealer::new(store, chains).round(Hour(12).begins()).await.unwrap();
        // Four reads a chain, the last of which finds nothing.
        assert_eq!(begin.elapsed().as_secs(), 4 * 16 / chain::AT_ONCE as u64);
    }

    #[tokio::test]
    async fn an_hour_in_which_nothing_came_is_complete_too() {
        let store = store();
        let mut sealer = Sealer::new(store.clone(), vec![TRADES, GAPS]);
        write(&store, TRADES, &[(0, 0, 10, true), (0, 1, 13, false)]).await;
        write(&store, GAPS, &[(0, 0, 13, false)]).await;
        assert_eq!(sealer.round(Hour(13).begins()).await.unwrap().hours, [Hour(10), Hour(11), Hour(12)]);
        let bytes = store.get(&Complete::key(Hour(11))).await.unwrap().unwrap();
        let complete: Complete = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(complete.chains.keys().collect::<Vec<_>>(), ["gaps/0", "trades/0"]);
        assert!(complete.chains.values().all(|count| *count == HourCount::default()), "{complete:?}");

        // A new process after a pause, which tells of the turn at its start.
        write(&store, TRADES, &[(0, 2, 15, false)]).await;
        write(&store, GAPS, &[(0, 1, 15, false)]).await;
        let mut next = Sealer::new(store.clone(), vec![TRADES, GAPS]);
        assert_eq!(next.round(Hour(15).begins()).await.unwrap().hours, [Hour(13), Hour(14)]);
    }

    #[tokio::test]
    async fn after_a_long_absence_or_a_clock_that_was_wrong_only_a_month_of_empty_hours_is_declared() {
        let store = store();
        write(&store, TRADES, &[(0, 0, 5, true), (0, 1, 500_000, true), (0, 2, 500_001, false)]).await;
        let sealed = Sealer::new(store.clone(), vec![TRADES]).round(Hour(500_001).begins()).await.unwrap().hours;
        assert_eq!((sealed[0], sealed.len()), (Hour(5), 1 + EMPTY_HOURS_BACK as usize), "the hour with data is among them");
        assert_eq!(sealed.last(), Some(&Hour(500_000)));
        // Months later the last marker is still found.
        let mut next = Sealer::new(store.clone(), vec![TRADES]);
        assert_eq!(next.round(Hour(510_000).begins()).await.unwrap(), Sealed::default());
    }

    /// A process that dies between the two leaves work for the next one, never an orphan behind a marker.
    #[tokio::test]
    async fn an_hour_is_swept_before_it_is_declared_complete() {
        let store = store();
        write(&store, TRADES, &[(0, 0, 10, true), (0, 1, 11, true)]).await;
        let lost = object::name(Form::Raw, TRADES, Hour(10), Position { generation: 0, start: 0 }, 5, b"the loser's").key;
        store.put(&lost, Bytes::from_static(b"x")).await.unwrap();
        let mut sealer = Sealer::new(store.clone(), vec![TRADES]);
        sealer.start(Hour(12).begins()).await.unwrap();
        sealer.seal(Hour(9), 0).await.unwrap();
        drop(sealer); // it dies
        let sealed = Sealer::new(store.clone(), vec![TRADES]).round(Hour(12).begins()).await.unwrap();
        assert_eq!((sealed.hours, sealed.orphans), (vec![Hour(10)], vec![lost]));
    }

    /// A chain in its second generation, and objects that no slot names: two that lost to another writer's, and two that a slot
    /// may name soon. What the sweeper deletes, by place.
    async fn swept() -> Vec<(u64, u64)> {
        let store = store();
        write(&store, TRADES, &[(0, 0, 10, true)]).await;
        end(&store, TRADES, 1, 10).await;
        write(&store, TRADES, &[(1, 0, 10, true), (1, 1, 11, true)]).await;
        for (generation, start) in [(0, 5), (1, 0), (1, 2), (2, 0)] {
            let unnamed = object::name(Form::Raw, TRADES, Hour(10), Position { generation, start }, 9, b"unnamed").key;
            store.put(&unnamed, Bytes::from_static(b"x")).await.unwrap();
        }
        let sealed = Sealer::new(store.clone(), vec![TRADES]).round(Hour(12).begins()).await.unwrap();
        assert_eq!(sealed.hours, [Hour(10)]);
        assert_eq!(store.list("bronze/raw/").await.unwrap().len(), 7 - sealed.orphans.len());
        let place = |key: &String| object::parse_name(key).map(|(_, at)| (at.generation, at.start)).unwrap();
        sealed.orphans.iter().map(place).collect()
    }

    #[tokio::test]
    async fn orphans_below_the_tail_go_and_nothing_else() {
        assert_eq!(swept().await, [(0, 5), (1, 0)]);
    }

    #[cfg(feature = "faults")]
    #[test]
    fn a_sweeper_that_does_not_stop_at_the_tail_of_its_generation_is_noticed() {
        for flaw in [Flaw::SweepAboveTail, Flaw::SweepAcrossGenerations] {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let swept = crate::faults::with_flaw(Some(flaw), || runtime.block_on(swept()));
            assert!(swept.contains(&(2, 0)), "{flaw:?}: {swept:?}");
        }
    }
}
