//! What a FIFO queue remembers of the ids that it has seen.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use crate::entry::Memory;
use crate::envelope::Deduplication;

/// The key under which an id is remembered: the first half of SHA-256(scope, 0, id). 128 bits do not collide by accident.
pub(crate) type Key = [u8; 16];

/// The SHA-256 of a body.
pub(crate) fn content(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// The key of an id in `group`'s scope, or in the queue's where that is empty. The id of a body is its hash in hexadecimal.
#[inline]
pub(crate) fn key(group: &str, id: &Deduplication<'_>) -> Option<Key> {
    match id {
        Deduplication::None => None,
        Deduplication::Id(id) => key_of(group, id),
        Deduplication::Content(content) => key_of(group, &hexadecimal(content)),
    }
}

fn key_of(group: &str, id: &str) -> Option<Key> {
    let mut hash = Sha256::new();
    hash.update(group.as_bytes());
    hash.update([0]);
    hash.update(id.as_bytes());
    hash.finalize().first_chunk::<16>().copied()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    sequence: u64,
    /// 0: until the message is deleted.
    expires: i64,
}

/// The ids of a queue, each with the message that it came with first.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    seen: HashMap<Key, Seen>,
    /// In the order in which they were remembered, which is nearly that in which they expire.
    timed: VecDeque<(i64, Key)>,
    /// Those that are remembered until their message is deleted.
    bound: HashMap<u64, Key>,
    /// How many have left `timed` at its front, ever.
    expired: u64,
    /// How many of those that ever were in `timed` are written in the cold part of the journal.
    carried: u64,
}

impl Memories {
    /// The message that came with this id and is remembered at `now`.
    pub(crate) fn find(&self, key: &Key, now: i64) -> Option<u64> {
        let seen = self.seen.get(key)?;
        (seen.expires == 0 || seen.expires > now).then_some(seen.sequence)
    }

    pub(crate) fn remember(&mut self, memory: Memory) {
        let Memory { key, sequence, expires } = memory;
        if let Some(old) = self.seen.insert(key, Seen { sequence, expires }) {
            self.bound.remove(&old.sequence);
        }
        if expires == 0 {
            self.bound.insert(sequence, key);
        } else {
            self.timed.push_back((expires, key));
        }
    }

    /// Forgets what was remembered until `sequence` is deleted.
    pub(crate) fn deleted(&mut self, sequence: u64) {
        if self.bound.is_empty() {
            return;
        }
        if let Some(key) = self.bound.remove(&sequence) {
            self.seen.remove(&key);
        }
    }

    /// Forgets what has expired.
    pub(crate) fn advance(&mut self, now: i64) {
        while let Some((expires, key)) =
            self.timed.front().copied().filter(|(expires, _)| *expires <= now)
        {
            self.timed.pop_front();
            self.expired += 1;
            if self.seen.get(&key).is_some_and(|seen| seen.expires == expires) {
                self.seen.remove(&key);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Memories::default();
    }

    /// Those that the cold part of the journal does not have and that no message has with it, in the order in which they were
    /// remembered; and how many there ever were, for [`note_carried`](Self::note_carried).
    pub(crate) fn new_ones(&self) -> (Vec<Memory>, u64) {
        let known = usize::try_from(self.carried.saturating_sub(self.expired)).unwrap_or(0);
        let new = self.timed.iter().skip(known).filter_map(|timed| self.timed_one(timed));
        (new.collect(), self.ever())
    }

    /// How many with an end there ever were.
    pub(crate) fn ever(&self) -> u64 {
        self.expired + self.timed.len() as u64
    }

    /// Notes that the first `ever` with an end are in the cold part of the journal.
    pub(crate) fn note_carried(&mut self, ever: u64) {
        self.carried = self.carried.max(ever);
    }

    /// What is remembered until the message is deleted.
    pub(crate) fn bound_to(&self, sequence: u64) -> Option<Memory> {
        let key = *self.bound.get(&sequence)?;
        Some(Memory { key, sequence, expires: 0 })
    }

    fn timed_one(&self, (expires, key): &(i64, Key)) -> Option<Memory> {
        let seen = self.seen.get(key).filter(|seen| seen.expires == *expires)?;
        Some(Memory { key: *key, sequence: seen.sequence, expires: *expires })
    }

    /// All, in the order in which they were remembered; those bound to a message last, by sequence.
    pub(crate) fn all(&self) -> Vec<Memory> {
        let timed = self.timed.iter().filter_map(|timed| self.timed_one(timed));
        let mut bound: Vec<Memory> = self
            .bound
            .iter()
            .map(|(sequence, key)| Memory { key: *key, sequence: *sequence, expires: 0 })
            .collect();
        bound.sort_by_key(|memory| memory.sequence);
        timed.chain(bound).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_id_of_a_body_is_its_sha_256() {
        assert_eq!(
            hexadecimal(&content(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn an_explicit_id_equal_to_the_content_id_is_the_same_id_and_scopes_keep_ids_apart() {
        let by_content = key("", &Deduplication::Content(content(b"abc")));
        let text = hexadecimal(&content(b"abc"));
        assert_eq!(by_content, key("", &Deduplication::Id(&text)));
        assert_ne!(by_content, key("g", &Deduplication::Id(&text)));
        assert_eq!(key("", &Deduplication::None), None);
    }

    #[test]
    fn a_memory_ends_with_its_window_or_with_its_message() {
        let mut memories = Memories::default();
        memories.remember(Memory { key: [1; 16], sequence: 1, expires: 100 });
        memories.remember(Memory { key: [2; 16], sequence: 2, expires: 0 });
        assert_eq!(memories.find(&[1; 16], 99), Some(1));
        assert_eq!(memories.find(&[1; 16], 100), None);
        memories.advance(100);
        assert_eq!(memories.all(), [Memory { key: [2; 16], sequence: 2, expires: 0 }]);
        memories.deleted(2);
        assert_eq!(memories.all(), []);
    }
}
