//! Which partition a record goes to: Kafka's default partitioner, bit for bit.
//!
//! A keyed record goes to `toPositive(murmur2(key)) % partitions`, so a key keeps its partition when a producer moves
//! here from Kafka. A record without a key goes to the sticky partition: one after the other, a batch at a time; but a named
//! producer's numbered one by its number, since whoever sends it again knows nothing of batches.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The hash that Kafka's default partitioner takes of a key: MurmurHash 2 with Kafka's seed, as Java's signed `int`.
///
/// ```
/// assert_eq!(logmill_stream::murmur2(b"foobar"), -790_332_482);
/// ```
pub fn murmur2(data: &[u8]) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "Java's array length is 32 bits wide, and the hash folds it in"
    )]
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0u32, |k, byte| k << 8 | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0u32, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// The partition of `0..partitions` that a record with this key goes to.
///
/// # Panics
/// If `partitions` is 0: there is no topic without a partition.
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0);
    (murmur2(key) & i32::MAX).cast_unsigned() % partitions
}

/// So many consecutive sequences go to one partition, to make batches there.
const RUN: u64 = 64;

/// The partition of `0..partitions` for a named producer's record without a key: the same, however often it is sent.
pub(crate) fn partition_for_sequence(sequence: u64, partitions: u32) -> u32 {
    partition_for_key(&(sequence / RUN).to_le_bytes(), partitions)
}

/// Where records without a key go: to one partition until its batch is done, then to the next.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: u32,
}

impl Sticky {
    /// Starts at a partition that depends on `seed`, so that many short-lived producers do not all begin at 0.
    pub(crate) fn new(seed: u32) -> Sticky {
        Sticky { current: seed }
    }

    pub(crate) fn current(&self, partitions: u32) -> u32 {
        self.current % partitions
    }

    /// The batch for `partition` is done. A batch of keyed records elsewhere changes nothing.
    pub(crate) fn batch_done(&mut self, partition: u32, partitions: u32) {
        if self.current(partitions) == partition {
            self.current = (partition + 1) % partitions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_values_that_kafka_publishes_in_its_own_tests() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (&[12, 42, 56, 24, 109, 111], 274_204_207),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key), expected, "{key:?}");
        }
    }

    #[test]
    fn murmur2_agrees_with_the_second_implementation_for_every_tail_length_and_the_empty_key() {
        // Published by librdkafka, which compares them with the Java client.
        let cases: [(&[u8], u32); 7] = [
            (b"kafka", 0xd067_cf64),
            (b"giberish123456789", 0x8f55_2b0c),
            (b"1234", 0x9fc9_7b14),
            (b"234", 0xe7c0_09ca),
            (b"34", 0x8739_30da),
            (b"4", 0x5a4b_5ca1),
            (b"", 0x106e_08d9),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key).cast_unsigned(), expected, "{key:?}");
        }
    }

    #[test]
    fn a_key_goes_to_the_positive_hash_modulo_the_partitions() {
        assert_eq!(partition_for_key(b"foobar", 10), 6);
        assert_eq!(partition_for_key(b"21", 12), 1_173_551_340 % 12);
        for partitions in 1..100 {
            assert!(partition_for_key(b"user-7", partitions) < partitions);
        }
    }

    #[test]
    fn keyless_records_stay_with_a_partition_until_its_batch_is_done() {
        let mut sticky = Sticky::new(7);
        assert_eq!(sticky.current(3), 1);
        sticky.batch_done(0, 3);
        assert_eq!(sticky.current(3), 1);
        sticky.batch_done(1, 3);
        assert_eq!(sticky.current(3), 2);
        sticky.batch_done(2, 3);
        assert_eq!(sticky.current(3), 0);
        assert_eq!(Sticky::new(5).current(1), 0);
    }
}
