//! Which partition a key belongs to: the rule of Kafka's own default partitioner, so that every other
//! producer and every join by key agrees with ours.

/// The seed and the two constants of `org.apache.kafka.common.utils.Utils.murmur2`.
const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The partition of `key` among `partitions`; 0 partitions count as 1.
pub fn symbol_partition(key: &[u8], partitions: u32) -> u32 {
    // Kafka's `toPositive`: the sign is cut off, not turned.
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Murmur2 in the form that Kafka has: 32 bits, its own seed. Java's result is this as a signed number.
fn murmur2(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let hash = words.iter().fold(SEED ^ bytes.len() as u32, |hash, word| {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (word ^ (word >> R)).wrapping_mul(M)
    });
    let mut hash = match rest {
        [] => hash,
        rest => {
            let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
            (hash ^ tail).wrapping_mul(M)
        }
    };
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `UtilsTest.testMurmur2` in Kafka.
    const VECTORS: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];

    #[test]
    fn hashes_are_those_of_kafkas_own_test() {
        for (key, hash) in VECTORS {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_the_positive_hash_modulo_their_number() {
        for (key, hash) in VECTORS {
            for partitions in [1, 2, 3, 12, 50, 1_000] {
                assert_eq!(symbol_partition(key.as_bytes(), partitions), (hash & 0x7fff_ffff) as u32 % partitions, "{key}");
            }
        }
        assert_eq!((symbol_partition(b"", 0), symbol_partition(b"AAPL", 0)), (0, 0));
    }

    #[test]
    fn symbols_spread_over_the_partitions() {
        let mut counts = [0; 12];
        for n in 0..1_200 {
            counts[symbol_partition(format!("SYM{n}").as_bytes(), 12) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
    }
}
