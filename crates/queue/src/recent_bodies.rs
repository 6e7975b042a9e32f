//! The latest entries with messages: who receives what was just sent need not read it from the journal.

use std::collections::VecDeque;

/// How many bytes are kept.
const BYTES_MAX: usize = 256 << 10;
/// Larger entries are not kept.
const ENTRY_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug)]
struct Kept {
    location: u64,
    start: usize,
    len: usize,
}

/// A ring of entries by location, which rises.
#[derive(Debug, Default)]
pub(crate) struct RecentBodies {
    ring: Vec<u8>,
    /// Where the next entry goes.
    next: usize,
    kept: VecDeque<Kept>,
}

impl RecentBodies {
    #[inline]
    pub(crate) fn keep(&mut self, location: u64, entry: &[u8]) {
        if entry.len() > ENTRY_MAX || self.kept.back().is_some_and(|last| last.location >= location)
        {
            return;
        }
        if self.ring.len() < BYTES_MAX && self.next + entry.len() > self.ring.len() {
            self.ring.resize((self.ring.len() * 2).clamp(2 * ENTRY_MAX, BYTES_MAX), 0);
        }
        if self.next + entry.len() > self.ring.len() {
            // What lies behind is older than what is written from the start on.
            let behind = self.next;
            while self.kept.front().is_some_and(|first| first.start >= behind) {
                self.kept.pop_front();
            }
            self.next = 0;
        }
        let (start, end) = (self.next, self.next + entry.len());
        while self
            .kept
            .front()
            .is_some_and(|first| first.start < end && first.start + first.len > start)
        {
            self.kept.pop_front();
        }
        if let Some(room) = self.ring.get_mut(start..end) {
            room.copy_from_slice(entry);
            self.kept.push_back(Kept { location, start, len: entry.len() });
            self.next = end;
        }
    }

    #[inline]
    pub(crate) fn find(&self, location: u64) -> Option<&[u8]> {
        let first = self.kept.front()?.location;
        if location < first {
            return None;
        }
        let at = self.kept.binary_search_by_key(&location, |kept| kept.location).ok()?;
        let kept = self.kept.get(at)?;
        self.ring.get(kept.start..kept.start + kept.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_last_is_found_and_what_was_overwritten_is_not() {
        let mut recent = RecentBodies::default();
        let entry = |i: u64| vec![i as u8; 1000 + (i as usize * 37) % 5000];
        for i in 0..2000u64 {
            recent.keep(i * 3, &entry(i));
            for back in 0..20.min(i) {
                assert_eq!(recent.find((i - back) * 3), Some(entry(i - back).as_slice()));
            }
            for old in 0..=i {
                let found = recent.find(old * 3);
                assert!(found.is_none_or(|found| found == entry(old)));
            }
        }
        assert_eq!(recent.find(0), None);
        assert_eq!(recent.find(1), None);
        assert!(recent.ring.len() <= BYTES_MAX);
    }
}
