//! The bytes of a file in shared 4 KiB pages, and the ranges that have blocks.

use std::ops::Range;
use std::sync::Arc;

/// Length in bytes of what is shared, dirtied and written back as one.
pub(super) const PAGE: usize = 4096;

pub(super) type Page = [u8; PAGE];

/// A page that is not there reads as zeros. Copies share pages until one of them is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Vec<Option<Arc<Page>>>);

/// The pages that hold any byte of `range`.
pub(super) fn pages_of(range: &Range<u64>) -> Range<usize> {
    if range.is_empty() {
        return 0..0;
    }
    index(range.start)..index(range.end - 1) + 1
}

fn index(position: u64) -> usize {
    usize::try_from(position / PAGE as u64).unwrap_or(usize::MAX)
}

fn within(position: u64) -> usize {
    (position % PAGE as u64) as usize
}

impl Pages {
    /// One past the last page that is there.
    pub(super) fn end(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, page: usize) -> Option<&Arc<Page>> {
        self.0.get(page)?.as_ref()
    }

    /// Makes `page` the one of `other`, whatever that is.
    pub(super) fn share(&mut self, page: usize, other: &Pages) {
        let shared = other.get(page).cloned();
        match self.0.get_mut(page) {
            Some(slot) => *slot = shared,
            None if shared.is_some() => {
                self.0.resize(page, None);
                self.0.push(shared);
            }
            None => {}
        }
    }

    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            let at = position + done as u64;
            let n = (PAGE - within(at)).min(buffer.len() - done);
            let part = &mut buffer[done..done + n];
            match self.get(index(at)) {
                Some(page) => part.copy_from_slice(&page[within(at)..within(at) + n]),
                None => part.fill(0),
            }
            done += n;
        }
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = position + done as u64;
            let n = (PAGE - within(at)).min(bytes.len() - done);
            if self.0.len() <= index(at) {
                self.0.resize(index(at) + 1, None);
            }
            let page = self.0[index(at)].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within(at)..within(at) + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
    }

    /// Puts zeros, making no page for them.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        for page in pages_of(&range) {
            let Some(slot) = self.0.get_mut(page) else { return };
            let start = page as u64 * PAGE as u64;
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end - start).min(PAGE as u64) as usize;
            if from == 0 && to == PAGE {
                *slot = None;
            } else if let Some(page) = slot {
                Arc::make_mut(page)[from..to].fill(0);
            }
        }
    }

    /// Forgets everything from `len` on.
    pub(super) fn truncate(&mut self, len: u64) {
        let end = index(len) + usize::from(within(len) > 0);
        self.0.truncate(end);
        if within(len) > 0 && self.0.len() == end {
            self.zero(len..end as u64 * PAGE as u64);
        }
    }

    pub(super) fn into_pages(self) -> impl Iterator<Item = Arc<Page>> {
        self.0.into_iter().flatten()
    }
}

/// Which bytes have blocks: sorted ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks(Vec<Range<u64>>);

impl Blocks {
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// How many bytes of `range` have no block yet.
    pub(super) fn missing(&self, range: &Range<u64>) -> u64 {
        let overlap =
            |r: &Range<u64>| r.end.min(range.end).saturating_sub(r.start.max(range.start));
        (range.end - range.start) - self.0.iter().map(overlap).sum::<u64>()
    }

    /// How many bytes from the start of `range` can have blocks if `room` more bytes can be had.
    pub(super) fn fitting(&self, range: &Range<u64>, mut room: u64) -> u64 {
        let mut at = range.start;
        for held in self.0.iter().filter(|r| r.end > range.start && r.start < range.end) {
            let gap = held.start.saturating_sub(at);
            if gap > room {
                break;
            }
            room -= gap;
            at = at.max(held.end.min(range.end));
        }
        let next = self.0.iter().map(|r| r.start).find(|s| *s >= at).unwrap_or(u64::MAX);
        at.saturating_add(room).min(next).min(range.end).max(at) - range.start
    }

    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // The common case: more at the end of the last range.
        if let Some(last) = self.0.last_mut()
            && last.start <= range.start
            && range.start <= last.end
        {
            last.end = last.end.max(range.end);
            return;
        }
        let first = self.0.partition_point(|r| r.end < range.start);
        let end = self.0.partition_point(|r| r.start <= range.end);
        let mut joined = range;
        for held in &self.0[first..end] {
            joined = joined.start.min(held.start)..joined.end.max(held.end);
        }
        self.0.splice(first..end, [joined]);
    }

    pub(super) fn truncate(&mut self, len: u64) {
        self.0.retain(|r| r.start < len);
        if let Some(last) = self.0.last_mut() {
            last.end = last.end.min(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_shared_until_written() {
        let mut one = Pages::default();
        one.write(4090, b"across a page");
        let two = one.clone();
        one.write(4090, b"ACROSS");
        let mut bytes = [0; 13];
        two.read(4090, &mut bytes);
        assert_eq!(&bytes, b"across a page");
        one.read(4090, &mut bytes);
        assert_eq!(&bytes, b"ACROSS a page");
        let shared = |page| Arc::ptr_eq(one.get(page).unwrap(), two.get(page).unwrap());
        assert_eq!([0, 1].map(shared), [false, true]);
    }

    #[test]
    fn zeroing_and_truncating_leave_zeros() {
        let mut pages = Pages::default();
        pages.write(0, &[7; 3 * PAGE]);
        pages.zero(100..PAGE as u64 * 2 + 100);
        let mut bytes = vec![1; 3 * PAGE];
        pages.read(0, &mut bytes);
        assert!(bytes[..100].iter().all(|b| *b == 7));
        assert!(bytes[100..2 * PAGE + 100].iter().all(|b| *b == 0));
        assert!(bytes[2 * PAGE + 100..].iter().all(|b| *b == 7));
        pages.truncate(50);
        assert_eq!(pages.end(), 1);
        pages.read(0, &mut bytes);
        assert_eq!(bytes.iter().filter(|b| **b != 0).count(), 50);
    }

    #[test]
    fn blocks_join_count_and_say_what_fits() {
        let mut blocks = Blocks::default();
        blocks.add(10..20);
        blocks.add(30..40);
        blocks.add(50..60);
        assert_eq!((blocks.bytes(), blocks.missing(&(0..60))), (30, 30));
        assert_eq!(blocks.fitting(&(0..60), 0), 0);
        assert_eq!(blocks.fitting(&(0..60), 5), 5);
        assert_eq!(blocks.fitting(&(0..60), 10), 20);
        assert_eq!(blocks.fitting(&(0..60), 15), 25);
        assert_eq!(blocks.fitting(&(12..35), 10), 23);
        assert_eq!(blocks.fitting(&(55..70), 3), 8);
        blocks.add(15..45);
        assert_eq!(blocks, Blocks(vec![10..45, 50..60]));
        blocks.add(45..50);
        assert_eq!((blocks.0.len(), &blocks.0[0]), (1, &(10..60)));
        blocks.truncate(11);
        assert_eq!(blocks.bytes(), 1);
        blocks.truncate(0);
        assert_eq!(blocks.bytes(), 0);
    }
}
