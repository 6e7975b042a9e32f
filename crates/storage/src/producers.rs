//! What the log remembers of idempotent producers: for each id its epoch and its last batches.
//!
//! A pure state: the writer asks it before an append and tells it after; recovery tells it what it finds.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, VecDeque};

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::batch::Producer;
use crate::error::{Corruption, Error, Result};
use crate::layout::OFFSET_END;
use crate::planted::{self, Bug};

/// How many batches are remembered for each producer, as Kafka does.
const RECENT: usize = 5;
/// How many producers are remembered: with one more, those that have been silent longest are forgotten, a quarter at once.
/// A log that is given a new id with each record would otherwise fill the memory.
const PRODUCERS_MAX: usize = 100_000;
/// The longest snapshot.
pub(crate) const SNAPSHOT_MAX: usize = HEAD_LEN + PRODUCERS_MAX * RECENT * ENTRY_LEN;
pub(crate) const MAGIC: &[u8; 8] = b"LOGMILLP";
const HEAD_LEN: usize = 36;
const ENTRY_LEN: usize = 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recent {
    pub epoch: i16,
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: u64,
}

/// The producers of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    by_id: BTreeMap<i64, VecDeque<Recent>>,
    /// Producers of which nothing is left, since all that they had was taken back: the epoch and the sequence of the first
    /// batch. What was on its way behind it must not become the first one.
    taken_back: BTreeMap<i64, (i16, i32)>,
}

/// What a batch is to its producer's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// It comes next.
    Next,
    /// It was appended before, at this offset.
    Duplicate(u64),
}

const fn advance(sequence: i32, by: u32) -> i32 {
    // Kafka's sequences run through the non-negative i32 and wrap to 0.
    ((sequence as u32).wrapping_add(by) & 0x7FFF_FFFF).cast_signed()
}

impl Producer {
    /// No reader takes a frame with a negative id, epoch or sequence.
    pub(crate) const fn is_valid(self) -> bool {
        self.id >= 0 && self.epoch >= 0 && self.sequence >= 0
    }

    /// The same producer, `count` records on.
    pub(crate) const fn after(self, count: u32) -> Producer {
        Producer { sequence: advance(self.sequence, count), ..self }
    }
}

impl Producers {
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Judges a batch of `count` records.
    #[inline(never)]
    pub fn check(&self, producer: Producer, count: u32) -> Result<Check> {
        if !producer.is_valid() {
            return Err(Error::InvalidProducer { producer });
        }
        let Some(last) = self.by_id.get(&producer.id).and_then(VecDeque::back) else {
            return match self.taken_back.get(&producer.id) {
                Some(&(epoch, expected))
                    if producer.epoch == epoch && ![0, expected].contains(&producer.sequence) =>
                {
                    let (producer_id, found) = (producer.id, producer.sequence);
                    Err(Error::OutOfOrderSequence { producer_id, expected, found })
                }
                _ => Ok(Check::Next),
            };
        };
        if producer.epoch < last.epoch {
            return Err(Error::ProducerFenced {
                producer_id: producer.id,
                current: last.epoch,
                found: producer.epoch,
            });
        }
        if producer.epoch > last.epoch {
            return match producer.sequence {
                0 => Ok(Check::Next),
                found => {
                    Err(Error::OutOfOrderSequence { producer_id: producer.id, expected: 0, found })
                }
            };
        }
        let last_sequence = advance(producer.sequence, count.saturating_sub(1));
        let again = self.by_id.get(&producer.id).into_iter().flatten().find(|batch| {
            batch.epoch == producer.epoch
                && batch.first_sequence == producer.sequence
                && batch.last_sequence == last_sequence
        });
        if planted::has(Bug::RetryAppended) && again.is_some() {
            return Ok(Check::Next);
        }
        if let Some(batch) = again {
            return Ok(Check::Duplicate(batch.base_offset));
        }
        match advance(last.last_sequence, 1) {
            expected if expected == producer.sequence => Ok(Check::Next),
            expected => Err(Error::OutOfOrderSequence {
                producer_id: producer.id,
                expected,
                found: producer.sequence,
            }),
        }
    }

    /// Notes a batch. The frames of one commit follow each other and are one batch to a retry. What lies at `stored` or after
    /// may be taken back: of what lies before, the last one is kept.
    #[inline(never)]
    pub fn note(
        &mut self,
        producer: Producer,
        count: u32,
        base_offset: u64,
        continued: bool,
        stored: u64,
    ) {
        if self.by_id.len() >= PRODUCERS_MAX && !self.by_id.contains_key(&producer.id) {
            self.forget_silent();
        }
        self.taken_back.remove(&producer.id);
        let recent = self.by_id.entry(producer.id).or_default();
        let last_sequence = advance(producer.sequence, count.saturating_sub(1));
        match recent.back_mut() {
            Some(batch) if continued => batch.last_sequence = last_sequence,
            _ => {
                while recent.len() >= RECENT
                    && recent.get(1).is_some_and(|second| second.base_offset < stored)
                {
                    recent.pop_front();
                }
                recent.push_back(Recent {
                    epoch: producer.epoch,
                    first_sequence: producer.sequence,
                    last_sequence,
                    base_offset,
                });
            }
        }
    }

    #[cold]
    fn forget_silent(&mut self) {
        let latest = |recent: &VecDeque<Recent>| recent.back().map_or(0, |batch| batch.base_offset);
        let mut offsets: Vec<u64> = self.by_id.values().map(latest).collect();
        let (_, kept_from, _) = offsets.select_nth_unstable(PRODUCERS_MAX / 4);
        let kept_from = *kept_from;
        self.by_id.retain(|_, recent| latest(recent) >= kept_from);
    }

    /// Forgets batches at or after `end`, which did not come to be.
    pub fn truncate(&mut self, end: u64) {
        self.by_id.retain(|id, recent| {
            let first = recent.front().map(|batch| (batch.epoch, batch.first_sequence));
            recent.retain(|batch| batch.base_offset < end);
            if recent.is_empty() {
                self.taken_back.extend(first.map(|first| (*id, first)));
            }
            !recent.is_empty()
        });
        while self.taken_back.len() > PRODUCERS_MAX {
            self.taken_back.pop_first();
        }
    }

    /// The epoch and the last sequence of a producer.
    pub fn last(&self, id: i64) -> Option<(i16, i32)> {
        self.by_id.get(&id)?.back().map(|batch| (batch.epoch, batch.last_sequence))
    }

    /// The offset of a producer's last record.
    pub fn last_offset(&self, id: i64) -> Option<u64> {
        let batch = self.by_id.get(&id)?.back()?;
        let count_less_one =
            advance(batch.last_sequence, batch.first_sequence.wrapping_neg().cast_unsigned());
        Some(batch.base_offset.saturating_add(count_less_one.cast_unsigned().into()))
    }

    /// The snapshot file for the state just before `offset`.
    pub fn encode(&self, log_id: &[u8; 16], offset: u64) -> Vec<u8> {
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(MAGIC);
        LE::write_u64(&mut head[12..], offset);
        head[20..].copy_from_slice(log_id);
        let mut entries = Vec::new();
        for (id, recent) in &self.by_id {
            // What is before the last few is durable by now, and remembered no longer.
            for batch in recent.iter().skip(recent.len().saturating_sub(RECENT)) {
                let mut bytes = [0; ENTRY_LEN];
                LE::write_i64(&mut bytes[0..], *id);
                LE::write_i16(&mut bytes[8..], batch.epoch);
                LE::write_i32(&mut bytes[12..], batch.first_sequence);
                LE::write_i32(&mut bytes[16..], batch.last_sequence);
                LE::write_u64(&mut bytes[20..], batch.base_offset);
                entries.extend_from_slice(&bytes);
            }
        }
        let crc = crc(&head, &entries);
        LE::write_u32(&mut head[8..12], crc);
        [&head[..], &entries].concat()
    }

    /// Reads a snapshot file; `None` if it is not one for this log and `offset`: then the log is read instead.
    pub fn decode(bytes: &[u8], log_id: &[u8; 16], offset: u64) -> Option<Producers> {
        let (of, at, producers) = Producers::decode_any(bytes).ok()?;
        (of == *log_id && at == offset).then_some(producers)
    }

    /// Reads a snapshot file of any log: its log id, its offset, and the state.
    pub fn decode_any(bytes: &[u8]) -> Result<([u8; 16], u64, Producers), Corruption> {
        let Some((head, body)) = bytes.split_first_chunk::<HEAD_LEN>() else {
            let expected = HEAD_LEN as u64;
            return Err(Corruption::Truncated { expected, found: bytes.len() as u64 });
        };
        if head[..8] != MAGIC[..] {
            return Err(Corruption::Magic);
        }
        let (expected, found) = (crc(head, body), LE::read_u32(&head[8..]));
        if expected != found {
            return Err(Corruption::Checksum { expected, found });
        }
        let (entries, []) = body.as_chunks::<ENTRY_LEN>() else {
            return Err(Corruption::Field("length of a producer snapshot"));
        };
        let mut producers = Producers::default();
        for entry in entries {
            let batch = Recent {
                epoch: LE::read_i16(&entry[8..]),
                first_sequence: LE::read_i32(&entry[12..]),
                last_sequence: LE::read_i32(&entry[16..]),
                base_offset: LE::read_u64(&entry[20..]),
            };
            let least = i32::from(batch.epoch).min(batch.first_sequence).min(batch.last_sequence);
            if least < 0 || batch.base_offset >= OFFSET_END {
                return Err(Corruption::Field("producer snapshot"));
            }
            producers.by_id.entry(LE::read_i64(&entry[0..])).or_default().push_back(batch);
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&head[20..]);
        Ok((log_id, LE::read_u64(&head[12..20]), producers))
    }

    /// The batches that are remembered, by producer and in order.
    pub fn recent(&self) -> impl Iterator<Item = (i64, &Recent)> {
        self.by_id.iter().flat_map(|(id, recent)| recent.iter().map(move |batch| (*id, batch)))
    }
}

fn crc(head: &[u8; HEAD_LEN], entries: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[12..]);
    hasher.update(entries);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(epoch: i16, sequence: i32) -> Producer {
        Producer { id: 9, epoch, sequence }
    }

    #[test]
    fn a_retry_of_any_of_the_last_five_batches_is_a_duplicate_at_its_first_offset() {
        let mut state = Producers::default();
        for n in 0..7 {
            assert_eq!(state.check(producer(0, n * 10), 10).unwrap(), Check::Next);
            state.note(producer(0, n * 10), 10, u64::from(n.unsigned_abs()) * 10, false, u64::MAX);
        }
        for n in 2..7 {
            let offset = u64::from(n as u32) * 10;
            assert_eq!(state.check(producer(0, n * 10), 10).unwrap(), Check::Duplicate(offset));
        }
        assert!(matches!(
            state.check(producer(0, 10), 10),
            Err(Error::OutOfOrderSequence { expected: 70, found: 10, .. })
        ));
    }

    #[test]
    fn a_gap_is_refused_an_old_epoch_is_fenced_and_a_new_epoch_starts_at_zero() {
        let mut state = Producers::default();
        state.note(producer(3, 0), 5, 100, false, u64::MAX);
        assert!(matches!(
            state.check(producer(3, 6), 1),
            Err(Error::OutOfOrderSequence { expected: 5, found: 6, .. })
        ));
        assert!(matches!(
            state.check(producer(2, 5), 1),
            Err(Error::ProducerFenced { current: 3, found: 2, .. })
        ));
        assert!(matches!(
            state.check(producer(4, 5), 1),
            Err(Error::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(state.check(producer(4, 0), 1).unwrap(), Check::Next);
    }

    #[test]
    fn what_overlaps_a_batch_or_is_of_an_older_epoch_is_no_retry_of_it() {
        let mut state = Producers::default();
        for sequence in [0, 1] {
            state.note(producer(0, sequence), 1, 100, false, u64::MAX);
        }
        state.note(producer(1, 0), 1, 102, false, u64::MAX);
        assert_eq!(state.check(producer(1, 1), 1).unwrap(), Check::Next);
        state.note(producer(1, 1), 4, 103, false, u64::MAX);
        assert_eq!(state.check(producer(1, 1), 4).unwrap(), Check::Duplicate(103));
        for (sequence, count) in [(1, 3), (2, 3)] {
            assert!(matches!(
                state.check(producer(1, sequence), count),
                Err(Error::OutOfOrderSequence { expected: 5, .. })
            ));
        }
    }

    /// A producer's first batch was taken back for want of space while the next one was on its way: that counted as the first
    /// and took its place.
    #[test]
    fn what_follows_a_first_batch_that_was_taken_back_is_refused_and_that_batch_is_not() {
        let mut state = Producers::default();
        state.note(producer(0, 0), 5, 100, false, 100);
        state.truncate(100);
        assert!(matches!(
            state.check(producer(0, 5), 1),
            Err(Error::OutOfOrderSequence { expected: 0, found: 5, .. })
        ));
        assert_eq!(state.check(producer(0, 0), 2).unwrap(), Check::Next);
        assert_eq!(state.check(producer(1, 0), 2).unwrap(), Check::Next);
        state.note(producer(0, 0), 2, 100, false, 100);
        assert_eq!(state.check(producer(0, 2), 1).unwrap(), Check::Next);
    }

    /// Of a producer with more batches on their way than are remembered, nothing was left when these were taken back.
    #[test]
    fn whatever_is_taken_back_the_last_batch_before_it_is_remembered() {
        let mut state = Producers::default();
        for n in 0..100 {
            state.note(producer(0, n), 1, n.unsigned_abs().into(), false, 10);
        }
        state.truncate(10);
        assert_eq!((state.last(9), state.last_offset(9)), (Some((0, 9)), Some(9)));
        for n in 10..20 {
            state.note(producer(0, n), 1, n.unsigned_abs().into(), false, 200);
        }
        assert_eq!(state.recent().count(), RECENT);
    }

    #[test]
    fn sequences_wrap_to_zero_after_the_largest_i32() {
        let mut state = Producers::default();
        state.note(producer(0, i32::MAX - 1), 2, 0, false, u64::MAX);
        assert_eq!(state.check(producer(0, 0), 1).unwrap(), Check::Next);
    }

    #[test]
    fn of_too_many_producers_those_that_were_silent_longest_are_forgotten() {
        let mut state = Producers::default();
        let max = i64::try_from(PRODUCERS_MAX).unwrap();
        let append = |state: &mut Producers, id: i64, sequence: i32, offset: i64| {
            let (producer, offset) = (Producer { id, epoch: 0, sequence }, offset.cast_unsigned());
            state.note(producer, 1, offset, false, offset);
        };
        (0..max).for_each(|id| append(&mut state, id, 0, id));
        append(&mut state, 0, 1, max);
        assert_eq!(state.by_id.len(), PRODUCERS_MAX);
        append(&mut state, max, 0, max + 1);
        assert_eq!(state.by_id.len(), PRODUCERS_MAX * 3 / 4 + 1);
        assert_eq!(state.last(0), Some((0, 1)), "it has appended since");
        assert_eq!((state.last(1), state.last(max / 4)), (None, None));
        assert_eq!((state.last(max / 4 + 1), state.last(max)), (Some((0, 0)), Some((0, 0))));
        assert!(state.encode(&[1; 16], 0).len() <= SNAPSHOT_MAX);
    }

    #[test]
    fn of_too_many_whose_batches_were_taken_back_one_is_forgotten_for_each_that_comes() {
        let mut state = Producers::default();
        for id in (0..).take(PRODUCERS_MAX) {
            state.note(Producer { id, epoch: 0, sequence: 0 }, 1, 5, false, 0);
        }
        state.truncate(5);
        let behind =
            |state: &Producers, id| state.check(Producer { id, epoch: 0, sequence: 1 }, 1).is_err();
        assert!(behind(&state, 0) && behind(&state, 1));
        state.note(Producer { id: i64::MAX, epoch: 0, sequence: 0 }, 1, 5, false, 0);
        state.truncate(5);
        assert_eq!(state.taken_back.len(), PRODUCERS_MAX);
        assert_eq!([0, 1, i64::MAX].map(|id| behind(&state, id)), [false, true, true]);
    }

    #[test]
    fn the_longest_snapshot_is_that_of_all_that_can_be_remembered() {
        let mut state = Producers::default();
        for id in (0..).take(PRODUCERS_MAX) {
            for sequence in (0..).take(RECENT + 1) {
                state.note(Producer { id, epoch: 0, sequence }, 1, 5, false, u64::MAX);
            }
        }
        assert_eq!(state.encode(&[1; 16], 0).len(), SNAPSHOT_MAX);
    }

    #[test]
    fn a_snapshot_survives_a_round_trip_and_no_flipped_bit() {
        let mut state = Producers::default();
        state.note(producer(0, 0), 5, 100, false, u64::MAX);
        state.note(producer(0, 5), 5, 105, false, u64::MAX);
        let bytes = state.encode(&[1; 16], 110);
        assert_eq!(Producers::decode(&bytes, &[1; 16], 110), Some(state));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Producers::decode(&bytes, &[1; 16], 110), None);
        }
    }

    #[test]
    fn a_snapshot_that_is_summed_rightly_and_makes_no_sense_is_refused() {
        let mut state = Producers::default();
        state.note(producer(3, 1), 5, 100, false, u64::MAX);
        let bytes = state.encode(&[1; 16], 110);
        let sealed = |mut bytes: Vec<u8>| {
            let (head, body) = bytes.split_first_chunk::<HEAD_LEN>().unwrap();
            let crc = crc(head, body);
            LE::write_u32(&mut bytes[8..12], crc);
            Producers::decode_any(&bytes).map(|(.., producers)| producers)
        };
        let with = |at: usize, value: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[HEAD_LEN + at..][..value.len()].copy_from_slice(value);
            sealed(bytes)
        };
        assert_eq!(with(8, &[3, 0]), Ok(state));
        let refused = Err(Corruption::Field("producer snapshot"));
        for at in [9, 15, 19] {
            assert_eq!(with(at, &[0x80]), refused, "a negative number that ends at {at}");
        }
        assert_eq!(with(20, &OFFSET_END.to_le_bytes()), refused);
        let longer = Err(Corruption::Field("length of a producer snapshot"));
        assert_eq!(sealed([&bytes[..], &[0]].concat()), longer);
        assert_eq!(Producers::decode(&bytes, &[2; 16], 110), None);
        assert_eq!(Producers::decode(&bytes, &[1; 16], 111), None);
    }
}
