//! Sets of numbers as sorted, disjoint intervals; such a set per session, and per log.
//!
//! A maximum would not do: it drops a hole that is filled late (model: "max-only instead of
//! intervals" loses records).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::identity::{LogId, SessionId};

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

    /// Whether `n` is in the set, and up to where all numbers behind it are as well or are not.
    pub fn run(&self, n: u64) -> (bool, u64) {
        let at = self.0.partition_point(|&(low, _)| low <= n);
        match self.0[..at].last() {
            Some(&(_, high)) if n <= high => (true, high),
            Some(_) | None => (false, self.0.get(at).map_or(u64::MAX, |&(low, _)| low - 1)),
        }
    }

    /// Adds all of `low..=high`.
    pub fn insert_all(&mut self, low: u64, high: u64) {
        // What overlaps or touches it becomes one with it.
        let first = self.0.partition_point(|&(_, end)| end < low.saturating_sub(1));
        let behind = self.0.partition_point(|&(begin, _)| begin <= high.saturating_add(1));
        let joined = self.0[first..behind].iter().fold((low, high), |(low, high), &(begin, end)| (low.min(begin), high.max(end)));
        self.0.splice(first..behind, [joined]);
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

    /// Takes out all of `low..=high`.
    pub fn remove(&mut self, low: u64, high: u64) {
        let first = self.0.partition_point(|&(_, end)| end < low);
        let behind = self.0.partition_point(|&(begin, _)| begin <= high);
        if first >= behind {
            return;
        }
        let (before, after) = (self.0[first].0, self.0[behind - 1].1);
        let left = (before < low).then(|| (before, low - 1));
        let right = (after > high).then(|| (high + 1, after));
        self.0.splice(first..behind, left.into_iter().chain(right));
    }

    /// What is missing of `low..=high`.
    pub fn missing(&self, low: u64, high: u64) -> Vec<(u64, u64)> {
        let mut all = Intervals::of(low, high);
        let first = self.0.partition_point(|&(_, end)| end < low);
        self.0[first..].iter().take_while(|(begin, _)| *begin <= high).for_each(|&(begin, end)| all.remove(begin, end));
        all.0
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

/// What a chain has archived of the sessions that have not ended: per session, the sequence numbers seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(pub BTreeMap<SessionId, Intervals>);

impl Seen {
    /// Knows `session` from here on.
    pub fn open(&mut self, session: SessionId) {
        self.0.entry(session).or_default();
    }

    /// Whether `session` was opened, or something of it was seen, and it has not ended.
    pub fn knows(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    /// Notes `seq` of `session`; `false` when it is a repeat.
    pub fn insert(&mut self, session: SessionId, seq: u64) -> bool {
        self.0.entry(session).or_default().insert(seq)
    }

    /// Forgets a session that has ended.
    pub fn forget(&mut self, session: SessionId) {
        self.0.remove(&session);
    }
}

/// What a chain has read: per log, the offsets. What stands there is a repeat, in whichever copy of the
/// log it is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Read(pub BTreeMap<LogId, Intervals>);

impl Read {
    /// Notes `offset` of `log`; `false` when it was read before.
    pub fn insert(&mut self, log: LogId, offset: u64) -> bool {
        self.0.entry(log).or_default().insert(offset)
    }

    /// Whether `offset` of `log` was read.
    pub fn contains(&self, log: LogId, offset: u64) -> bool {
        self.0.get(&log).is_some_and(|set| set.contains(offset))
    }

    /// Whether all of `low..=high` of `log` was read.
    pub fn covers(&self, log: LogId, low: u64, high: u64) -> bool {
        self.0.get(&log).is_some_and(|set| set.covers(low, high))
    }

    /// What of `low..=high` of `log` was not read.
    pub fn missing(&self, log: LogId, low: u64, high: u64) -> Vec<(u64, u64)> {
        self.0.get(&log).map_or_else(|| vec![(low, high)], |set| set.missing(low, high))
    }

    /// See [`Intervals::run`].
    pub fn run(&self, log: LogId, offset: u64) -> (bool, u64) {
        self.0.get(&log).map_or((false, u64::MAX), |set| set.run(offset))
    }

    /// Notes all of `low..=high` of `log`.
    pub fn insert_all(&mut self, log: LogId, low: u64, high: u64) {
        self.0.entry(log).or_default().insert_all(low, high);
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_is_added_as_its_numbers_one_by_one(ranges in prop::collection::vec((0u64..60, 0u64..12), 0..20)) {
            let (mut by_range, mut one_by_one) = (Intervals::default(), Intervals::default());
            for (low, length) in ranges {
                by_range.insert_all(low, low + length);
                for n in low..=low + length {
                    one_by_one.insert(n);
                }
                prop_assert_eq!(&by_range, &one_by_one);
            }
            by_range.insert_all(7, u64::MAX);
            prop_assert!(by_range.covers(7, u64::MAX));
        }

        #[test]
        fn a_range_is_taken_out_as_its_numbers_one_by_one(numbers in prop::collection::vec(0u64..60, 0..60), low in 0u64..60, length in 0u64..20) {
            let mut set = Intervals::default();
            for n in &numbers {
                set.insert(*n);
            }
            let high = low + length;
            let missing: Vec<u64> = set.missing(low, high).into_iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(missing, (low..=high).filter(|n| !numbers.contains(n)).collect::<Vec<_>>());
            set.remove(low, high);
            let mut left = Intervals::default();
            for n in numbers.iter().filter(|n| !(low..=high).contains(*n)) {
                left.insert(*n);
            }
            prop_assert_eq!(set, left);
        }

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
            for n in 0..61 {
                let (is_in, last) = set.run(n);
                prop_assert!((n..=last.min(60)).all(|m| reference.contains(&m) == is_in));
                prop_assert!(last >= 60 || reference.contains(&(last + 1)) != is_in);
            }
            let touching = set.0.windows(2).any(|pair| pair[0].1 + 1 >= pair[1].0);
            prop_assert!(!touching, "not minimal: {:?}", set);
            let holes: BTreeSet<u64> = set.holes_below(50).into_iter().flat_map(|(a, b)| a..=b).collect();
            let missing: BTreeSet<u64> = (0..50).filter(|n| !reference.contains(n)).collect();
            prop_assert_eq!(holes, missing);
        }
    }
}
