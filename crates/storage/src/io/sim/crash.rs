//! What a loss of power leaves of everything that was not synced.

use std::sync::Arc;

use super::inode::{Inode, What};
use super::pages::{PAGE, Page};
use super::random::Random;

/// How far past the durable end of a file a crash exposes what its blocks held before.
const STALE_PAGES: u64 = 64;

/// Which of the pending pieces a crash keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None of them.
    Nothing,
    /// All of them: as if everything had been synced.
    Everything,
    /// As the seed has it: for each piece any of the values that it had since its last sync, for a mapped store a half-done
    /// one too. Whether a file keeps most or little is drawn for each file, so that both ends come up often.
    Random,
    /// The newest value of piece i if bit i is set, the durable one otherwise and from the 64th piece on. Pieces are counted by
    /// [`SimDisk::pending_pieces`](super::SimDisk::pending_pieces), names by
    /// [`SimDisk::pending_names`](super::SimDisk::pending_names), in the order in which they came to be.
    Mask(u64),
}

/// What [`SimDisk::crash`](super::SimDisk::crash) does.
#[derive(Clone, Debug)]
pub struct CrashPlan {
    /// Decides whatever is random.
    pub seed: u64,
    /// Which bytes and lengths of files are kept.
    pub data: Keep,
    /// Which changes of names are kept.
    pub names: Keep,
    /// Bytes that are kept or lost as one: 512 or 4,096. The length of a file is a piece of its own.
    pub sector: usize,
    /// Whether a length that is kept without the bytes may expose what the blocks held before, instead of zeros.
    pub stale: bool,
}

impl CrashPlan {
    /// Everything that no sync had made durable is gone.
    pub fn nothing() -> CrashPlan {
        CrashPlan { seed: 0, data: Keep::Nothing, names: Keep::Nothing, sector: 512, stale: false }
    }

    /// Everything is there, synced or not.
    pub fn everything() -> CrashPlan {
        CrashPlan { data: Keep::Everything, names: Keep::Everything, ..CrashPlan::nothing() }
    }

    /// Anything may be there or not; sectors of 512 bytes, of 4,096, and stale bytes come up by turns.
    pub fn random(seed: u64) -> CrashPlan {
        let mut random = Random::new(seed);
        let sector = if random.chance(4) { 512 } else { PAGE };
        CrashPlan { seed, data: Keep::Random, names: Keep::Random, sector, stale: random.chance(2) }
    }

    /// Exactly the pieces and changes of names whose bits are set.
    pub fn exactly(pieces: u64, names: u64) -> CrashPlan {
        CrashPlan { data: Keep::Mask(pieces), names: Keep::Mask(names), ..CrashPlan::nothing() }
    }
}

/// Picks one version of each piece in turn.
#[derive(Debug)]
pub(super) struct Chooser {
    keep: Keep,
    random: Random,
    count: u32,
    newest: u64,
    oldest: u64,
}

impl Chooser {
    pub(super) fn new(keep: Keep, seed: u64) -> Chooser {
        let mut chooser =
            Chooser { keep, random: Random::new(seed), count: 0, newest: 0, oldest: 0 };
        chooser.next_group();
        chooser
    }

    /// Draws how much of the next file is kept.
    fn next_group(&mut self) {
        const EIGHTHS: [u64; 5] = [0, 1, 4, 7, 8];
        self.newest = EIGHTHS[self.random.below(EIGHTHS.len())];
        self.oldest = EIGHTHS[self.random.below(EIGHTHS.len())];
    }

    /// One of the versions `0..=newest`, 0 being the durable one.
    pub(super) fn pick(&mut self, newest: usize) -> usize {
        let bit = self.count;
        self.count += 1;
        match self.keep {
            Keep::Nothing => 0,
            Keep::Everything => newest,
            Keep::Mask(bits) => newest * usize::from(bits.checked_shr(bit).unwrap_or(0) & 1 == 1),
            Keep::Random if self.random.chance(self.newest) => newest,
            Keep::Random if self.random.chance(self.oldest) => 0,
            Keep::Random => self.random.below(newest + 1),
        }
    }

    fn tears(&mut self) -> bool {
        self.keep == Keep::Random && self.random.chance(4)
    }
}

/// Undoes a part of what made `before` into `after`: a copy that was cut short keeps any of its 8-byte words.
pub(super) fn tear(before: &[u8], after: &mut [u8], random: &mut Random) {
    let words = after.len().div_ceil(8);
    let at = random.below(words + 1);
    let way = random.below(3);
    for (word, (old, new)) in before.chunks(8).zip(after.chunks_mut(8)).enumerate() {
        let kept = match way {
            0 => word < at,
            1 => word >= at,
            _ => random.chance(4),
        };
        if !kept {
            new.copy_from_slice(old);
        }
    }
}

impl Inode {
    /// The pieces that a crash can lose: pairs of a sector and a change that touched it, sorted.
    fn pieces(&self, sector: usize) -> Vec<(u64, u32)> {
        let size = sector as u64;
        let mut pieces = Vec::new();
        let add = |pieces: &mut Vec<(u64, u32)>, start: u64, end: u64, change: usize| {
            pieces.extend((start / size..end.div_ceil(size)).map(|s| (s, change as u32)));
        };
        for (i, change) in self.changes.iter().enumerate() {
            if let What::Write { .. } = change.what {
                let range = change.range();
                add(&mut pieces, range.start, range.end, i);
            }
        }
        pieces.sort_unstable();
        // Zeros over what is zero anyway are no change, and may be many.
        let mut written: Vec<u64> = pieces.iter().map(|(s, _)| s * size / PAGE as u64).collect();
        written.dedup();
        for (i, change) in self.changes.iter().enumerate() {
            if let What::Zero(range) = &change.what {
                let mut at = range.start;
                while at < range.end {
                    let page = at / PAGE as u64;
                    let end = ((page + 1) * PAGE as u64).min(range.end);
                    if self.platter.get(page as usize).is_some()
                        || written.binary_search(&page).is_ok()
                    {
                        add(&mut pieces, at, end, i);
                    }
                    at = end;
                }
            }
        }
        pieces.sort_unstable();
        pieces
    }

    /// The lengths that a crash can leave, the durable one first.
    fn lengths(&self) -> Vec<u64> {
        let mut lengths = vec![self.platter_len];
        lengths.extend(self.changes.iter().filter(|c| c.resizes).map(|c| c.len));
        lengths.dedup();
        lengths
    }

    pub(super) fn pending_pieces(&self, sector: usize) -> usize {
        let sectors = self.pieces(sector).chunk_by(|a, b| a.0 == b.0).count();
        sectors + usize::from(self.lengths().len() > 1)
    }

    /// The file after a loss of power; `None` if nothing was pending.
    pub(super) fn settle(
        &self,
        chooser: &mut Chooser,
        plan: &CrashPlan,
        stale: &[Arc<Page>],
    ) -> Option<Inode> {
        if self.is_durable() {
            return None;
        }
        chooser.next_group();
        let lengths = self.lengths();
        let version = if lengths.len() > 1 { chooser.pick(lengths.len() - 1) } else { 0 };
        let len = lengths[version];
        let mut pages = self.platter.clone();
        let mut blocks = if version == lengths.len() - 1 {
            self.blocks.clone()
        } else {
            self.platter_blocks.clone()
        };
        let size = plan.sector as u64;
        let mut kept = Vec::new();
        let mut bytes = vec![0; plan.sector];
        for versions in self.pieces(plan.sector).chunk_by(|a, b| a.0 == b.0) {
            let newest = versions.len();
            let picked = chooser.pick(newest);
            if picked == 0 {
                continue;
            }
            let (sector, change) = versions[picked - 1];
            let position = sector * size;
            kept.push(sector);
            blocks.add(position..position + size);
            if self.changes[change as usize].mapped && chooser.tears() {
                let mut before = vec![0; plan.sector];
                self.sector_after(position, &versions[..picked - 1], &mut before);
                self.sector_after(position, &versions[..picked], &mut bytes);
                tear(&before, &mut bytes, &mut chooser.random);
            } else if picked == newest {
                self.cache.read(position, &mut bytes);
            } else {
                self.sector_after(position, &versions[..picked], &mut bytes);
            }
            pages.write(position, &bytes);
        }
        if plan.stale && len > self.platter_len {
            let first = self.platter_len.div_ceil(size);
            for sector in first..len.div_ceil(size).min(first + STALE_PAGES * PAGE as u64 / size) {
                let range = sector * size..(sector + 1) * size;
                if kept.binary_search(&sector).is_err() && self.platter_blocks.missing(&range) > 0 {
                    expose(stale, range.start, &mut bytes, &mut chooser.random);
                    pages.write(range.start, &bytes);
                }
            }
        }
        pages.truncate(len);
        blocks.truncate(len);
        Some(Inode::settled(pages, len, blocks))
    }

    /// What the sector at `position` held after the last of `versions`.
    fn sector_after(&self, position: u64, versions: &[(u64, u32)], bytes: &mut [u8]) {
        self.platter.read(position, bytes);
        let end = position + bytes.len() as u64;
        for (_, change) in versions {
            let change = &self.changes[*change as usize];
            let range = change.range();
            let (from, to) = (range.start.max(position), range.end.min(end));
            let target = &mut bytes[(from - position) as usize..(to - position) as usize];
            match &change.what {
                What::Write { position: start, bytes } => {
                    target.copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
                }
                What::Zero(_) => target.fill(0),
                What::Resize => {}
            }
        }
    }
}

/// Fills a sector with what its block may have held: bytes of a removed file if there was one, or noise.
fn expose(stale: &[Arc<Page>], position: u64, bytes: &mut [u8], random: &mut Random) {
    if stale.is_empty() || random.chance(1) {
        bytes
            .chunks_mut(8)
            .for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]));
    } else {
        // A page keeps its bytes together, as a block does.
        let page = &stale[(position / PAGE as u64) as usize % stale.len()];
        let at = (position % PAGE as u64) as usize;
        bytes.copy_from_slice(&page[at..at + bytes.len()]);
    }
}
