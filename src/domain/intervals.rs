//! Sets of sequence numbers as sorted, disjoint intervals, and such a set per session.
//!
//! A maximum would not do: it drops a hole that is filled late (model: "max-only instead of
//! intervals" loses records).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::identity::SessionId;

/// A set of `u64` as inclusive intervals `[low, high]`, sorted, neither touching nor overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// The set of all numbers from `low` to `high`, both included.
    pub fn of(low: u64, high: u64) -> Self {
        Intervals(vec![(low, high)])
    }

    /// Whether `n` is in the set.
    pub fn contains(&self, n: u64) -> bool {
        // Almost always asked about the end of the last interval.
        let at = self.0.partition_point(|&(low, _)| low <= n);
        at > 0 && n <= self.0[at - 1].1
    }

    /// Whether all of `low..=high` is in the set.
    pub fn covers(&self, low: u64, high: u64) -> bool {
        let at = self.0.partition_point(|&(first, _)| first <= low);
        at > 0 && high <= self.0[at - 1].1
    }

    /// Adds `n`; `false` when it was there already.
    pub fn insert(&mut self, n: u64) -> bool {
        if let Some(last) = self.0.last_mut()
            && last.1.checked_add(1) == Some(n)
        {
            last.1 = n;
            return true;
        }
        if self.contains(n) {
            return false;
        }
        let at = self.0.partition_point(|&(low, _)| low <= n);
        let joins_left = at > 0 && self.0[at - 1].1 + 1 == n;
        let joins_right = self.0.get(at).is_some_and(|&(low, _)| n + 1 == low);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = n,
            (false, true) => self.0[at].0 = n,
            (false, false) => self.0.insert(at, (n, n)),
        }
        true
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&(low, high)| high - low + 1).sum()
    }

    /// Whether the set holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The intervals, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// What is missing between 0 and `end` (not included).
    pub fn holes_below(&self, end: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut next = 0;
        for &(low, high) in &self.0 {
            if next >= end {
                break;
            }
            if low > next {
                holes.push((next, low.min(end) - 1));
            }
            next = high + 1;
        }
        if next < end {
            holes.push((next, end - 1));
        }
        holes
    }
}

/// What a chain has archived: per session, the sequence numbers seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(pub BTreeMap<SessionId, Intervals>);

impl Seen {
    /// Notes `seq` of `session`; `false` when it is a repeat.
    pub fn insert(&mut self, session: SessionId, seq: u64) -> bool {
        self.0.entry(session).or_default().insert(seq)
    }

    /// Whether all of `low..=high` of `session` is archived.
    pub fn covers(&self, session: SessionId, low: u64, high: u64) -> bool {
        self.0.get(&session).is_some_and(|set| set.covers(low, high))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers_and_stays_minimal(numbers in prop::collection::vec(0u64..60, 0..120)) {
            let (mut set, mut reference) = (Intervals::default(), BTreeSet::new());
            for n in numbers {
                prop_assert_eq!(set.insert(n), reference.insert(n));
            }
            prop_assert_eq!(set.len(), reference.len() as u64);
            for n in 0..61 {
                prop_assert_eq!(set.contains(n), reference.contains(&n));
                for m in n..61 {
                    prop_assert_eq!(set.covers(n, m), (n..=m).all(|x| reference.contains(&x)));
                }
            }
            let touching = set.0.windows(2).any(|pair| pair[0].1 + 1 >= pair[1].0);
            prop_assert!(!touching, "not minimal: {:?}", set);
            let holes: BTreeSet<u64> = set.holes_below(50).into_iter().flat_map(|(a, b)| a..=b).collect();
            let missing: BTreeSet<u64> = (0..50).filter(|n| !reference.contains(n)).collect();
            prop_assert_eq!(holes, missing);
        }
    }
}
