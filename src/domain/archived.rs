//! How far the chains are, as those know it who send to them and who delete what they have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::chain::{Carry, ChainId, Position, Slot, Tail};
use super::identity::LogId;
use super::intervals::Read;

/// How far a chain is.
#[derive(Clone, Debug, Default)]
pub struct Archived {
    /// Per log of the spool, the places that it has read.
    pub read: Arc<Read>,
    /// Those that somebody's copy of the log had lost. Another copy may have them still.
    pub lost: Arc<Read>,
    /// The log in which it stands; none before the first slot.
    pub log: Option<LogId>,
    /// The place of its next slot.
    pub next: Position,
}

impl Archived {
    /// Where the chain is behind this slot.
    pub fn behind(slot: &Slot) -> Archived {
        Archived::at(slot.tail())
    }

    /// Where the chain is at its tail.
    pub fn at(tail: Tail) -> Archived {
        let Tail { next, incarnation, carry: Carry { read, lost, .. } } = tail;
        Archived { read: Arc::new(read), lost: Arc::new(lost), log: incarnation, next }
    }
}

/// How far each chain is, of those that are known.
#[derive(Clone, Debug, Default)]
pub struct Chains(BTreeMap<ChainId, Archived>);

impl Chains {
    /// Takes in how far a chain is; `None` if as much was known already. What is told of a slot may come late, by another way than
    /// what is told of the next one: to believe it then would take back what is known.
    pub fn learn(&mut self, chain: ChainId, archived: Archived) -> Option<&Archived> {
        match self.0.entry(chain) {
            Entry::Occupied(known) if known.get().next >= archived.next => None,
            place => Some(place.insert_entry(archived).into_mut()),
        }
    }

    /// How far a chain is; `None`: nothing is known of it.
    pub fn get(&self, chain: ChainId) -> Option<&Archived> {
        self.0.get(&chain)
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = (ChainId, &Archived)> {
        self.0.iter().map(|(chain, archived)| (*chain, archived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stream::Stream;

    #[test]
    fn what_is_told_late_of_a_chain_is_no_news_and_takes_nothing_back() {
        let (mut chains, trades) = (Chains::default(), ChainId::from(Stream::Trades));
        let mut learn = |generation, start| {
            let archived = Archived { next: Position { generation, start }, ..Archived::default() };
            chains.learn(trades, archived).is_some()
        };
        assert!(learn(0, 0) && learn(1, 4) && learn(1, 5) && learn(2, 0));
        assert!(!learn(2, 0) && !learn(1, 9));
        assert_eq!(chains.get(trades).unwrap().next, Position { generation: 2, start: 0 });
    }
}
