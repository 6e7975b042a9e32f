//! The latest place of each key, for as many keys as fit into a given memory.
//!
//! One pass over the log looks at the keys whose hash lies in one range. The range begins where the pass before ended and
//! is cut down whenever the table is full, so each pass takes in as many keys as fit. Hashes only choose the range and the
//! slot; keys are compared in full.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const EMPTY: u32 = u32::MAX;

/// Which record of which segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Number of the record in it.
    pub record: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    start: usize,
    len: u32,
    place: Place,
}

/// A table of keys with hashes in `range`.
#[derive(Debug)]
pub(super) struct Keys {
    seed: u64,
    first: u64,
    last: u64,
    memory_bytes: usize,
    /// All keys, one behind the other.
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// Open addressing: numbers of slots, at most three quarters full.
    table: Vec<u32>,
}

impl Keys {
    /// An empty table; `seed` should not be known to whoever chooses the keys.
    pub fn new(memory_bytes: usize, seed: u64) -> Keys {
        Keys {
            seed,
            first: 0,
            last: u64::MAX,
            memory_bytes,
            bytes: Vec::new(),
            slots: Vec::new(),
            table: vec![EMPTY; 64],
        }
    }

    /// Empties the table and goes on to the hashes behind the range that it had; `false` if there are none.
    pub fn next_range(&mut self) -> bool {
        let Some(first) = self.last.checked_add(1) else { return false };
        (self.first, self.last) = (first, u64::MAX);
        self.bytes.clear();
        self.slots.clear();
        self.table.fill(EMPTY);
        true
    }

    /// Notes that `key` is at `place` now, and returns where it was before. Keys outside of the range are passed over.
    pub fn put(&mut self, key: &[u8], place: Place) -> Option<Place> {
        let hash = xxh3_64_with_seed(key, self.seed);
        if !(self.first..=self.last).contains(&hash) {
            return None;
        }
        if let Some(found) = self.find(hash, key) {
            return Some(std::mem::replace(&mut self.slots[found].place, place));
        }
        while !self.has_room(key.len()) && self.shrink() {
            if hash > self.last {
                return None;
            }
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { hash, start, len, place });
        if self.slots.len() * 4 > self.table.len() * 3 {
            self.table = vec![EMPTY; self.table.len() * 2];
            self.fill();
        } else {
            self.link(self.slots.len() - 1);
        }
        None
    }

    /// Whether `key` is in the table.
    pub fn contains(&self, key: &[u8]) -> bool {
        let hash = xxh3_64_with_seed(key, self.seed);
        (self.first..=self.last).contains(&hash) && self.find(hash, key).is_some()
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            let number = self.table[at];
            if number == EMPTY {
                return None;
            }
            let slot = &self.slots[number as usize];
            if slot.hash == hash && self.bytes[slot.start..slot.start + slot.len as usize] == *key {
                return Some(number as usize);
            }
            at = (at + 1) % self.table.len();
        }
    }

    fn home(&self, hash: u64) -> usize {
        // The high bits are much the same for all keys of a narrow range.
        usize::try_from(hash % self.table.len() as u64).unwrap_or(0)
    }

    fn link(&mut self, number: usize) {
        let mut at = self.home(self.slots[number].hash);
        while self.table[at] != EMPTY {
            at = (at + 1) % self.table.len();
        }
        self.table[at] = u32::try_from(number).unwrap_or(EMPTY);
    }

    fn fill(&mut self) {
        for number in 0..self.slots.len() {
            self.link(number);
        }
    }

    /// Whether one more key fits, with all that would have to grow for it.
    fn has_room(&self, key_len: usize) -> bool {
        let grown = |len: usize, more: usize, capacity: usize| {
            if len + more <= capacity { capacity } else { (capacity * 2).max(len + more) }
        };
        let bytes = grown(self.bytes.len(), key_len, self.bytes.capacity());
        let slots = grown(self.slots.len(), 1, self.slots.capacity());
        let is_crowded = (self.slots.len() + 1) * 4 > self.table.len() * 3;
        let table = if is_crowded { self.table.len() * 2 } else { self.table.len() };
        let total = bytes + slots * size_of::<Slot>() + table * size_of::<u32>();
        total <= self.memory_bytes && self.slots.len() < EMPTY as usize - 1
    }

    /// Gives up the upper half of the keys by cutting the range; `false` if there is only one hash, which has to do.
    fn shrink(&mut self) -> bool {
        let mut hashes: Vec<u64> = self.slots.iter().map(|slot| slot.hash).collect();
        hashes.sort_unstable();
        let Some(&largest) = hashes.last() else { return false };
        let middle = hashes[(hashes.len() - 1) / 2];
        let last = if middle < largest {
            middle
        } else {
            match hashes.iter().rev().find(|hash| **hash < largest) {
                Some(hash) => *hash,
                None => return false,
            }
        };
        self.last = last;
        let mut end = 0;
        self.slots.retain_mut(|slot| {
            let stays = slot.hash <= last;
            if stays {
                // Keys lie in the order of their slots, so they only move down.
                self.bytes.copy_within(slot.start..slot.start + slot.len as usize, end);
                slot.start = end;
                end += slot.len as usize;
            }
            stays
        });
        self.bytes.truncate(end);
        self.table.fill(EMPTY);
        self.fill();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const fn at(n: u32) -> Place {
        Place { segment: n / 100, record: n % 100 }
    }

    /// Runs all passes over `keys` and returns for each its last position, and how many passes it took.
    fn run(keys: &[Vec<u8>], memory_bytes: usize) -> (BTreeMap<Vec<u8>, u32>, u32, usize) {
        let mut table = Keys::new(memory_bytes, 7);
        let (mut latest, mut passes, mut largest) = (BTreeMap::new(), 0, 0);
        loop {
            passes += 1;
            for (n, key) in (0u32..).zip(keys) {
                table.put(key, at(n));
                let used = table.bytes.capacity()
                    + table.slots.capacity() * size_of::<Slot>()
                    + table.table.len() * 4;
                largest = largest.max(used);
            }
            for key in keys.iter().filter(|key| table.contains(key)) {
                let found = table.find(xxh3_64_with_seed(key, 7), key).unwrap();
                let place = table.slots[found].place;
                let before = latest.insert(key.clone(), place.segment * 100 + place.record);
                assert!(before.is_none_or(|before| before == place.segment * 100 + place.record));
            }
            if !table.next_range() {
                return (latest, passes, largest);
            }
        }
    }

    fn expected(keys: &[Vec<u8>]) -> BTreeMap<Vec<u8>, u32> {
        (0u32..).zip(keys).map(|(n, key)| (key.clone(), n)).collect()
    }

    #[test]
    fn each_key_is_met_in_one_pass_with_its_last_place_however_small_the_memory() {
        let keys: Vec<_> =
            (0..6000u32).map(|n| format!("key {}", n * 7919 % 4000).into_bytes()).collect();
        for (memory_bytes, most_passes) in [(1 << 20, 1), (64 << 10, 12), (4 << 10, 200)] {
            let (latest, passes, largest) = run(&keys, memory_bytes);
            assert_eq!(latest, expected(&keys));
            assert!(passes <= most_passes, "{passes} passes with {memory_bytes} bytes");
            assert!(largest <= memory_bytes, "{largest} of {memory_bytes} bytes");
        }
        assert!(run(&keys, 64 << 10).1 > 1);
    }

    #[test]
    fn a_key_that_is_larger_than_the_memory_is_taken_alone() {
        let keys: Vec<_> = (0..5u8).map(|n| vec![n; 100_000]).collect();
        let (latest, passes, _) = run(&keys, 4 << 10);
        assert_eq!(latest, expected(&keys));
        assert!(passes >= 3, "{passes}");
    }

    #[test]
    fn keys_are_told_apart_by_their_bytes_and_not_by_their_hash() {
        let mut table = Keys::new(4 << 10, 0);
        table.put(b"a", at(1));
        // As if both had the same hash.
        let hash = table.slots[0].hash;
        assert_eq!(table.find(hash, b"b"), None);
        assert_eq!(table.find(hash, b"a"), Some(0));
        assert_eq!(table.put(b"", at(2)), None);
        assert_eq!(table.put(b"", at(3)), Some(at(2)));
        assert_eq!(table.put(b"a", at(4)), Some(at(1)));
    }
}
