//! Reading and extending a chain in a store. Any number of writers may do so at once: each slot is
//! decided by whoever creates it first, and everybody goes on from what then stands there.

use std::cell::Cell;
use std::sync::Arc;

use fail::fail_point;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::chain::{ChainId, Position, SLOT_VERSION, Slot, Tail};
use crate::domain::stream::Stream;
use crate::io::store::{Store, StoreError};

/// So many chains are read at once by who follows all. One after the other, hundreds of them would grow faster than they can be
/// read from a bucket.
pub const AT_ONCE: usize = 8;

/// Why a chain cannot be read or extended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChainError {
    /// The store does not answer, or says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A slot was written by a newer version: this one must not touch the chain.
    #[error("slot {key} has version {found}, this program knows {SLOT_VERSION}: use the newer one")]
    Newer {
        /// The slot.
        key: String,
        /// Its version.
        found: u64,
    },
    /// What stands there is no slot of this chain.
    #[error("slot {key} is damaged: {reason}")]
    Damaged {
        /// The slot.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Slots stand behind a place where none stands: somebody has deleted it.
    #[error(
        "slot {key} is not there, and slots behind it are: put a copy of it back (an older version of the bucket's \
         object, a backup), until then nobody can read on behind it"
    )]
    Missing {
        /// The slot.
        key: String,
    },
}

impl ChainError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ChainError::Store(error) if error.is_retryable())
    }
}

/// These chains, and of each stream those of further partitions as far as they have begun in a store.
pub async fn all(store: &Arc<dyn Store>, known: impl IntoIterator<Item = ChainId>) -> Result<Vec<ChainId>, StoreError> {
    let mut chains: Vec<_> = known.into_iter().collect();
    for stream in Stream::ALL {
        let next = chains.iter().filter(|chain| chain.stream == stream).map(|chain| chain.partition + 1).max();
        for partition in next.unwrap_or(0).. {
            let chain = ChainId { stream, partition };
            if store.first(&chain.prefix()).await?.is_none() {
                break;
            }
            chains.push(chain);
        }
    }
    Ok(chains)
}

/// One chain in one store.
#[derive(Clone)]
pub struct Chain {
    /// Its name.
    pub id: ChainId,
    store: Arc<dyn Store>,
}

impl Chain {
    /// The chain `id` of `store`.
    pub fn new(id: ChainId, store: Arc<dyn Store>) -> Chain {
        Chain { id, store }
    }

    /// The slot at `position`, or `None` where none stands yet.
    pub async fn slot(&self, position: Position) -> Result<Option<Slot>, ChainError> {
        let key = position.key(self.id);
        #[cfg(feature = "faults")]
        let key = super::flawed::find(&*self.store, self.id, key).await?;
        let Some(bytes) = self.store.get(&key).await? else { return Ok(None) };
        let damaged = |reason: String| ChainError::Damaged { key: key.clone(), reason };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let version = value["version"].as_u64().unwrap_or(0);
        if version > u64::from(SLOT_VERSION) {
            return Err(ChainError::Newer { key, found: version });
        }
        let slot: Slot = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        if slot.position != position || slot.stream != self.id.stream || slot.partition != self.id.partition {
            return Err(damaged("its body is that of another place".to_string()));
        }
        Ok(Some(slot))
    }

    /// Of which place a key is that is listed. Of a foreign one nobody knows what stands behind it.
    fn position(&self, key: &str) -> Result<Position, ChainError> {
        let foreign =
            || ChainError::Damaged { key: key.to_string(), reason: "it has no slot's name; move it elsewhere".to_string() };
        Position::from_key(self.id, key).ok_or_else(foreign)
    }

    /// Where the chain stands: one listing of one key, then a read that must find nothing.
    pub async fn tail(&self) -> Result<Tail, ChainError> {
        let newest = self.store.first(&self.id.prefix()).await?;
        #[cfg(feature = "faults")]
        let newest = newest.map(super::flawed::without_hour);
        let mut tail = match newest {
            Some(key) => {
                let position = self.position(&key)?;
                self.slot(position).await?.ok_or(ChainError::Missing { key })?.tail()
            }
            None => Tail::default(),
        };
        while let Some(slot) = self.slot(tail.next).await? {
            tail = slot.tail();
        }
        Ok(tail)
    }

    /// Sends `slot`, then reads what stands in its place: it, or what another writer decided before.
    /// The answer to the request does not matter; its own may have been lost and sent twice.
    pub async fn decide(&self, slot: &Slot) -> Result<Slot, ChainError> {
        let key = slot.position.key(self.id);
        #[cfg(feature = "faults")]
        let key = super::flawed::key(key, slot);
        let body = serde_json::to_vec(slot).expect("a slot has only string keys");
        fail_point!("slot.before-create");
        self.store.create(&key, body.into()).await?;
        fail_point!("slot.after-create");
        #[cfg(feature = "faults")]
        if crate::faults::flawed(crate::faults::Flaw::HourInName) {
            return Ok(slot.clone()); // nobody else can have created a name with this writer's hour
        }
        let stands = self.slot(slot.position).await?;
        let gone = || ChainError::Damaged { key, reason: "it was created and is not there".to_string() };
        stands.ok_or_else(gone)
    }
}

/// Follows a chain from a position on, slot by slot.
pub struct Follower {
    chain: Chain,
    next: Position,
}

impl Follower {
    /// Begins at `next`, which must be a place of the chain: the first, or one behind a slot.
    pub fn new(chain: Chain, next: Position) -> Follower {
        Follower { chain, next }
    }

    /// Where the next slot will stand.
    pub fn position(&self) -> Position {
        self.next
    }

    /// The chain's name.
    pub fn id(&self) -> ChainId {
        self.chain.id
    }

    /// The next slot, or `None` at the tail.
    pub async fn next(&mut self) -> Result<Option<Slot>, ChainError> {
        let slot = self.chain.slot(self.next).await?;
        if let Some(slot) = &slot {
            self.pass(slot);
        }
        Ok(slot)
    }

    /// Goes on behind `slot`, one of those [`ahead`].
    pub fn pass(&mut self, slot: &Slot) {
        self.next = slot.tail().next;
    }

    /// What stands from here to the tail, or until `left` is used up.
    async fn ahead(&self, left: &Cell<usize>) -> Result<Vec<Slot>, ChainError> {
        let (mut slots, mut next) = (Vec::new(), self.next);
        while left.get() > 0
            && let Some(slot) = self.chain.slot(next).await?
        {
            next = slot.tail().next;
            left.set(left.get().saturating_sub(1));
            slots.push(slot);
        }
        Ok(slots)
    }

    /// At the tail: whether it is one. An error says that the chain has a hole here. Costs a listing of one key.
    pub async fn end(&self) -> Result<(), ChainError> {
        let id = self.chain.id;
        let newest = self.chain.store.first(&id.prefix()).await?;
        #[cfg(feature = "faults")]
        let newest = newest.map(super::flawed::without_hour);
        let newest = newest.map(|key| self.chain.position(&key)).transpose()?;
        let is_behind = newest.is_some_and(|newest| newest > self.next);
        // Whoever wrote that one found a slot here. It may have come since this place was looked at.
        if is_behind && self.chain.slot(self.next).await?.is_none() {
            return Err(ChainError::Missing { key: self.next.key(id) });
        }
        Ok(())
    }
}

/// What is new in several chains.
pub struct Ahead {
    /// Whose slot, by the follower's place among those that were asked for, and the slot: of each chain in its order.
    pub slots: Vec<(usize, Slot)>,
    /// Whether there may be more. If not, each chain was read to its tail.
    pub more: bool,
}

/// What stands behind the followers' places, [`AT_ONCE`] chains at once, about `most` slots. Nothing is passed: an error or a
/// caller that ends would else skip slots that nobody has noted. Pass each in the same step as it is noted.
pub async fn ahead(followers: impl Iterator<Item = &Follower>, most: usize) -> Result<Ahead, ChainError> {
    let left = Cell::new(most);
    let read = stream::iter(followers).map(|follower| follower.ahead(&left)).buffered(AT_ONCE);
    let read: Vec<_> = read.try_collect().await?;
    let slots = read.into_iter().enumerate().flat_map(|(at, slots)| slots.into_iter().map(move |slot| (at, slot)));
    Ok(Ahead { slots: slots.collect(), more: left.get() == 0 })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::io::memory::MemoryStore;

    #[tokio::test]
    async fn a_foreign_object_among_the_slots_is_told_and_nothing_is_taken_for_the_tail() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let chain = Chain::new(ChainId { stream: Stream::Trades, partition: 0 }, store.clone());
        assert_eq!(chain.tail().await.unwrap().next, Position::default());
        let foreign = format!("{}0-copy-of-a-slot.json", chain.id.prefix());
        store.put(&foreign, Bytes::from_static(b"x")).await.unwrap();
        let told = chain.tail().await.unwrap_err().to_string();
        assert!(told.contains(&foreign) && told.contains("move it elsewhere"), "{told}");
        assert!(Follower::new(chain, Position::default()).end().await.is_err());
    }

    #[tokio::test]
    async fn all_chains_are_the_known_ones_and_those_behind_them_that_have_begun() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let names = |chains: Vec<ChainId>| chains.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let known = "trades/0 gaps/0 quarantine/0";
        assert_eq!(names(all(&store, ChainId::all(1)).await.unwrap()), known);
        for partition in [1, 2, 4] {
            let chain = ChainId { stream: Stream::Gaps, partition };
            store.put(&Position::default().key(chain), Bytes::from_static(b"{}")).await.unwrap();
        }
        assert_eq!(names(all(&store, ChainId::all(1)).await.unwrap()), format!("{known} gaps/1 gaps/2"));
    }
}
