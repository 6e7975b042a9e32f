//! One file: what the page cache shows, what the platter has, and every change in between.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use super::pages::{Blocks, PAGE, Pages, pages_of};
use super::random::Random;

/// What was done to a file since its last sync.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) what: What,
    /// Length of the file afterwards.
    pub(super) len: u64,
    pub(super) resizes: bool,
    /// Stored through a mapping, so that a power cut may find it half done.
    pub(super) mapped: bool,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Write {
        position: u64,
        bytes: Arc<[u8]>,
    },
    Zero(Range<u64>),
    /// The length or the reservation only.
    Resize,
}

impl Change {
    /// The bytes whose value it set.
    pub(super) fn range(&self) -> Range<u64> {
        match &self.what {
            What::Write { position, bytes } => *position..position + bytes.len() as u64,
            What::Zero(range) => range.clone(),
            What::Resize => 0..0,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) cache: Pages,
    pub(super) len: u64,
    pub(super) blocks: Blocks,
    pub(super) platter: Pages,
    pub(super) platter_len: u64,
    pub(super) platter_blocks: Blocks,
    /// Changes that the next sync makes durable, oldest first.
    pub(super) changes: Vec<Change>,
    /// Pages that a failed sync left clean in the cache, though the platter has something else.
    adrift: BTreeSet<usize>,
    /// Whether the next sync writes length and blocks.
    resized: bool,
}

impl Inode {
    /// A file whose bytes are durable.
    pub(super) fn durable(bytes: &[u8]) -> Inode {
        let mut inode = Inode::default();
        inode.write(0, bytes, false);
        inode.sync();
        inode
    }

    /// A file of which everything is durable.
    pub(super) fn settled(pages: Pages, len: u64, blocks: Blocks) -> Inode {
        Inode {
            cache: pages.clone(),
            platter: pages,
            len,
            platter_len: len,
            platter_blocks: blocks.clone(),
            blocks,
            ..Inode::default()
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.changes.is_empty() && self.adrift.is_empty() && self.len == self.platter_len
    }

    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> usize {
        let left = self.len.saturating_sub(position);
        let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.cache.read(position, &mut buffer[..n]);
        n
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8], mapped: bool) {
        if bytes.is_empty() {
            return;
        }
        let range = position..position + bytes.len() as u64;
        self.dirty(&range);
        let what = if bytes.iter().all(|b| *b == 0) {
            self.cache.zero(range.clone());
            What::Zero(range.clone())
        } else {
            self.cache.write(position, bytes);
            What::Write { position, bytes: bytes.into() }
        };
        let old = self.blocks.missing(&range);
        self.blocks.add(range.clone());
        let resizes = range.end > self.len;
        self.len = self.len.max(range.end);
        // A page behind the durable end takes the length along, whatever a failed sync has given up before.
        self.resized |= resizes || old > 0 || range.end > self.platter_len;
        self.changes.push(Change { what, len: self.len, resizes, mapped });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        let what = if len < self.len {
            // Beyond the pages of both there is nothing to lose.
            let end = (self.cache.end().max(self.platter.end()) as u64 * PAGE as u64)
                .clamp(len, self.len);
            self.dirty(&(len..end));
            self.cache.truncate(len);
            self.blocks.truncate(len);
            What::Zero(len..end)
        } else {
            What::Resize
        };
        self.len = len;
        self.resized = true;
        self.changes.push(Change { what, len, resizes: true, mapped: false });
    }

    pub(super) fn reserve(&mut self, range: Range<u64>) {
        let resizes = range.end > self.len;
        self.len = self.len.max(range.end);
        self.blocks.add(range);
        self.resized = true;
        self.changes.push(Change { what: What::Resize, len: self.len, resizes, mapped: false });
    }

    /// A page is written as a whole: one that a failed sync gave up comes along with the next change to it.
    fn dirty(&mut self, range: &Range<u64>) {
        if self.adrift.is_empty() {
            return;
        }
        for page in pages_of(range) {
            if self.adrift.remove(&page) {
                let position = page as u64 * PAGE as u64;
                let bytes: Arc<[u8]> = match self.cache.get(page) {
                    Some(page) => page.as_slice().into(),
                    None => [0; PAGE].as_slice().into(),
                };
                let what = What::Write { position, bytes };
                self.changes.push(Change { what, len: self.len, resizes: false, mapped: false });
            }
        }
    }

    fn dirty_pages(&self) -> BTreeSet<usize> {
        let end = self.cache.end().max(self.platter.end());
        self.changes.iter().flat_map(|c| pages_of(&c.range())).filter(|p| *p < end).collect()
    }

    pub(super) fn sync(&mut self) {
        let end = self.cache.end().max(self.platter.end());
        for change in std::mem::take(&mut self.changes) {
            let pages = pages_of(&change.range());
            for page in pages.start..pages.end.min(end) {
                self.platter.share(page, &self.cache);
            }
        }
        self.settle_size(true);
    }

    fn settle_size(&mut self, durable: bool) {
        if self.resized && durable {
            self.platter_len = self.len;
            self.platter_blocks = self.blocks.clone();
        }
        self.resized = false;
    }

    /// A sync that reports an error: afterwards no page is dirty, whatever became of it.
    pub(super) fn fail_sync(&mut self, fault: Fault, random: &mut Random) {
        if fault == Fault::SyncFalseFailure {
            return self.sync();
        }
        let some = matches!(fault, Fault::SyncEioSome | Fault::SyncEioDrop);
        let forgets = matches!(fault, Fault::SyncEioRevert | Fault::SyncEioDrop);
        for page in self.dirty_pages() {
            if some && random.chance(4) {
                self.platter.share(page, &self.cache);
            } else if forgets {
                self.cache.share(page, &self.platter);
            } else {
                self.adrift.insert(page);
            }
        }
        self.cache.truncate(self.len);
        self.changes.clear();
        self.settle_size(some && random.chance(4));
    }

    /// Clean pages are read from the platter from now on.
    pub(super) fn drop_cache(&mut self) {
        for page in std::mem::take(&mut self.adrift) {
            self.cache.share(page, &self.platter);
        }
        self.cache.truncate(self.len);
    }

    /// Changes bytes behind everybody's back, on the platter and in the cache.
    pub(super) fn corrupt(&mut self, range: Range<u64>, change: impl Fn(&mut [u8])) {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        for pages in [&mut self.cache, &mut self.platter] {
            pages.read(range.start, &mut bytes);
            change(&mut bytes);
            pages.write(range.start, &bytes);
        }
    }
}
