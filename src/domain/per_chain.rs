//! A value a chain: of each stream, one a partition.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chain::ChainId;
use super::stream::{PerStream, Stream};

/// One value for each stream and partition of a log. All streams have the same number of partitions: one where the spool
/// is the log, that of the topics with Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerChain<T>(Vec<PerStream<T>>);

impl<T: Default> PerChain<T> {
    /// Default values for `partitions` partitions, of which there is at least one.
    pub fn of(partitions: u32) -> PerChain<T> {
        PerChain((0..partitions.max(1)).map(|_| PerStream::default()).collect())
    }
}

impl<T: Default> PerChain<T> {
    /// Adds partitions with default values until there are at least so many.
    pub fn widen(&mut self, partitions: u32) {
        self.0.resize_with(self.0.len().max(partitions as usize), PerStream::default);
    }
}

impl<T: Default> Default for PerChain<T> {
    fn default() -> PerChain<T> {
        PerChain::of(1)
    }
}

impl<T> PerChain<T> {
    /// How many partitions a stream has.
    pub fn partitions(&self) -> u32 {
        self.0.len() as u32
    }

    /// The value of a chain; `None` for a partition that is not there.
    pub fn get(&self, chain: ChainId) -> Option<&T> {
        self.0.get(chain.partition as usize).map(|streams| &streams[chain.stream.index()])
    }

    /// The values of the first partition: all of them where there is only one.
    pub fn first(&self) -> &PerStream<T> {
        &self.0[0]
    }

    /// The value of a chain, to be changed.
    pub fn get_mut(&mut self, chain: ChainId) -> Option<&mut T> {
        self.0.get_mut(chain.partition as usize).map(|streams| &mut streams[chain.stream.index()])
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    /// All chains with their values.
    pub fn iter(&self) -> impl Iterator<Item = (ChainId, &T)> {
        let chains = |partition| Stream::ALL.map(|stream| ChainId { stream, partition });
        self.0.iter().zip(0..).flat_map(move |(streams, partition)| chains(partition).into_iter().zip(streams))
    }

    /// The same with other values.
    pub fn map<U>(&self, mut change: impl FnMut(ChainId, &T) -> U) -> PerChain<U> {
        let of = |partition, streams: &PerStream<T>| {
            Stream::ALL.map(|stream| change(ChainId { stream, partition }, &streams[stream.index()]))
        };
        let mut of = of;
        PerChain(self.0.iter().zip(0..).map(|(streams, partition)| of(partition, streams)).collect())
    }
}

impl PerChain<u64> {
    /// The sum of all partitions, by stream.
    pub fn totals(&self) -> PerStream<u64> {
        self.0.iter().fold(PerStream::default(), |sums, counts| std::array::from_fn(|stream| sums[stream] + counts[stream]))
    }
}

impl<T, C: Into<ChainId>> Index<C> for PerChain<T> {
    type Output = T;

    fn index(&self, chain: C) -> &T {
        let chain = chain.into();
        &self.0[chain.partition as usize][chain.stream.index()]
    }
}

impl<T, C: Into<ChainId>> IndexMut<C> for PerChain<T> {
    fn index_mut(&mut self, chain: C) -> &mut T {
        let chain = chain.into();
        &mut self.0[chain.partition as usize][chain.stream.index()]
    }
}

impl<T> From<PerStream<T>> for PerChain<T> {
    fn from(only: PerStream<T>) -> PerChain<T> {
        PerChain(vec![only])
    }
}

/// One partition is written as a list of its streams, more than one as a list of such lists.
impl<T: Serialize> Serialize for PerChain<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [only] => only.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for PerChain<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PerChain<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written<T> {
            One(PerStream<T>),
            Many(Vec<PerStream<T>>),
        }
        match Written::deserialize(deserializer)? {
            Written::One(only) => Ok(PerChain(vec![only])),
            Written::Many(all) if all.is_empty() => Err(serde::de::Error::custom("no partition")),
            Written::Many(all) => Ok(PerChain(all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_from_its_json_and_one_partition_is_a_plain_list() {
        let mut counts = PerChain::<u64>::of(1);
        counts[ChainId { stream: Stream::Gaps, partition: 0 }] = 7;
        assert_eq!(serde_json::to_string(&counts).unwrap(), "[0,7,0]");
        let mut many = PerChain::<u64>::of(4);
        many[ChainId { stream: Stream::Quarantine, partition: 3 }] = 9;
        for counts in [counts, many] {
            let text = serde_json::to_string(&counts).unwrap();
            assert_eq!(serde_json::from_str::<PerChain<u64>>(&text).unwrap(), counts, "{text}");
        }
        assert!(serde_json::from_str::<PerChain<u64>>("[]").is_err());
    }

    #[test]
    fn each_chain_has_its_own_value() {
        let mut counts = PerChain::<u64>::of(3);
        let chains: Vec<_> = counts.iter().map(|(chain, _)| chain).collect();
        assert_eq!(chains.len(), 9);
        for (n, chain) in (1..).zip(&chains) {
            counts[*chain] = n;
        }
        assert_eq!(counts.map(|chain, n| (chain, *n)).iter().map(|(_, pair)| *pair).collect::<Vec<_>>(), {
            chains.iter().copied().zip(1..).collect::<Vec<_>>()
        });
        assert_eq!(counts.totals().iter().sum::<u64>(), 45);
        assert_eq!(counts.get(ChainId { stream: Stream::Trades, partition: 3 }), None);
    }
}
