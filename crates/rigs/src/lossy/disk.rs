//! A disk in memory that forgets what was not synced.
//!
//! After a power loss a file has what its last sync covered, and of the sectors written since then any; its length is the
//! old or the new one. A directory has the names of its last sync, and of the changes since then the first few. Syncing a
//! file does not make its name durable: that is less than any real file system does, and all that the contract asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use logmill_torture::random::Random;

use super::plan::{Call, Fault, Met, Plan};

const SECTOR: usize = 512;
/// Space is taken in blocks of this size.
pub const BLOCK: u64 = 4096;
/// The number of the directory that everything is in.
pub const ROOT: u64 = 1;

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Io,
    Full,
    NotThere,
    There,
    NotEmpty,
}

type Result<T = ()> = std::result::Result<T, Refusal>;

/// Bytes: as they are read, and as they are on the platter.
#[derive(Debug, Default)]
pub struct File {
    bytes: Vec<u8>,
    platter: Vec<u8>,
    /// Sectors that the platter does not have.
    unsynced: BTreeSet<usize>,
    blocks: BTreeSet<u64>,
}

/// A change of the names in a directory.
#[derive(Clone, Debug)]
enum Change {
    Add(String, u64),
    Remove(String),
    Rename(String, String),
}

/// Names: as they are looked up, and as they are on the platter.
#[derive(Debug, Default)]
pub struct Directory {
    names: BTreeMap<String, u64>,
    platter: BTreeMap<String, u64>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
pub enum Content {
    File(File),
    Directory(Directory),
}

/// What a number stands for.
#[derive(Debug)]
pub struct Node {
    pub mode: u16,
    pub content: Content,
}

impl Node {
    /// Bytes of a file.
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::File(file) => file.bytes.len() as u64,
            Content::Directory(_) => 0,
        }
    }
}

/// The disk, with the fault that is to come.
#[derive(Debug)]
pub struct Disk {
    nodes: BTreeMap<u64, Node>,
    plan: Plan,
    /// Syncs answer that all is well, and do nothing.
    lies: bool,
}

impl Disk {
    /// An empty one; one that lies does nothing when it is told to sync.
    pub fn new(lies: bool) -> Disk {
        let root = Node { mode: 0o700, content: Content::Directory(Directory::default()) };
        Disk { nodes: BTreeMap::from([(ROOT, root)]), plan: Plan::default(), lies }
    }

    /// Makes `fault` come with one of the next calls that change something.
    pub fn plan(&mut self, fault: Option<Fault>, calls: u64) {
        self.plan.arm(fault, calls);
    }

    /// How often the fault has come.
    pub fn fired(&self) -> u64 {
        self.plan.fired()
    }

    /// Whether there is no power any more.
    pub fn is_dark(&self) -> bool {
        self.plan.is_dark()
    }

    /// The power is cut, and comes back. Returns whether something was forgotten.
    pub fn power_loss(&mut self, random: &mut Random) -> bool {
        self.plan.arm(None, 0);
        let mut forgot = false;
        for node in self.nodes.values_mut() {
            forgot |= match &mut node.content {
                Content::File(file) => file.power_loss(random),
                Content::Directory(directory) => directory.power_loss(random),
            };
        }
        forgot
    }

    pub fn node(&self, number: u64) -> Result<&Node> {
        if self.is_dark() {
            return Err(Refusal::Io);
        }
        self.nodes.get(&number).ok_or(Refusal::NotThere)
    }

    fn file(&mut self, number: u64) -> Result<&mut File> {
        match self.nodes.get_mut(&number).map(|node| &mut node.content) {
            Some(Content::File(file)) => Ok(file),
            _ => Err(Refusal::NotThere),
        }
    }

    fn directory(&mut self, number: u64) -> Result<&mut Directory> {
        match self.nodes.get_mut(&number).map(|node| &mut node.content) {
            Some(Content::Directory(directory)) => Ok(directory),
            _ => Err(Refusal::NotThere),
        }
    }

    /// The names in a directory.
    pub fn names(&self, number: u64) -> Result<&BTreeMap<String, u64>> {
        match &self.node(number)?.content {
            Content::Directory(directory) => Ok(&directory.names),
            Content::File(_) => Err(Refusal::NotThere),
        }
    }

    pub fn lookup(&self, parent: u64, name: &str) -> Result<u64> {
        self.names(parent)?.get(name).copied().ok_or(Refusal::NotThere)
    }

    /// Makes a file or a directory.
    pub fn make(&mut self, parent: u64, name: &str, mode: u16, content: Content) -> Result<u64> {
        self.plan.admit(Call::Other)?;
        if self.lookup(parent, name).is_ok() {
            return Err(Refusal::There);
        }
        let number = 1 + self.nodes.keys().next_back().copied().unwrap_or(ROOT);
        self.directory(parent)?.change(Change::Add(name.to_owned(), number));
        self.nodes.insert(number, Node { mode, content });
        Ok(number)
    }

    /// Removes a name; what has none any more takes no space.
    pub fn remove(&mut self, parent: u64, name: &str) -> Result {
        self.plan.admit(Call::Other)?;
        let number = self.lookup(parent, name)?;
        if self.names(number).is_ok_and(|names| !names.is_empty()) {
            return Err(Refusal::NotEmpty);
        }
        self.directory(parent)?.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    /// Renames; from one directory into another it is two changes, of which a power loss may take either.
    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Result {
        self.plan.admit(Call::Other)?;
        let number = self.lookup(from.0, from.1)?;
        let (old, new) = (from.1.to_owned(), to.1.to_owned());
        if from.0 == to.0 {
            self.directory(from.0)?.change(Change::Rename(old, new));
        } else {
            self.directory(to.0)?.change(Change::Add(new, number));
            self.directory(from.0)?.change(Change::Remove(old));
        }
        Ok(())
    }

    pub fn read(&self, number: u64, position: u64, len: u32) -> Result<&[u8]> {
        let Content::File(file) = &self.node(number)?.content else {
            return Err(Refusal::NotThere);
        };
        let begin = file.bytes.len().min(position as usize);
        Ok(&file.bytes[begin..file.bytes.len().min(begin + len as usize)])
    }

    /// Writes as much of `bytes` as there is space for, or half of it where that is the fault.
    pub fn write(&mut self, number: u64, position: u64, bytes: &[u8]) -> Result<usize> {
        let wanted = match self.plan.admit(Call::Write)? {
            Met::Short if bytes.len() > 1 => &bytes[..bytes.len() / 2],
            _ => bytes,
        };
        let end = self.room(number, position..position + wanted.len() as u64)?;
        let fits = &wanted[..(end - position) as usize];
        if fits.is_empty() && !bytes.is_empty() {
            return Err(Refusal::Full);
        }
        let file = self.file(number)?;
        let (begin, end) = (position as usize, end as usize);
        file.resize(file.bytes.len().max(end));
        file.bytes[begin..end].copy_from_slice(fits);
        file.mark(begin..end);
        Ok(fits.len())
    }

    /// Gets blocks for a range, all or none of them.
    pub fn reserve(&mut self, number: u64, range: Range<u64>) -> Result {
        self.plan.admit(Call::Write)?;
        if self.room(number, range.clone())? < range.end {
            return Err(Refusal::Full);
        }
        let file = self.file(number)?;
        file.resize(file.bytes.len().max(range.end as usize));
        Ok(())
    }

    pub fn set_len(&mut self, number: u64, len: u64) -> Result {
        self.plan.admit(Call::Other)?;
        self.file(number)?.resize(len as usize);
        Ok(())
    }

    pub fn set_mode(&mut self, number: u64, mode: u16) -> Result {
        self.node(number)?;
        if let Some(node) = self.nodes.get_mut(&number) {
            node.mode = mode;
        }
        Ok(())
    }

    /// Makes a file's bytes, or a directory's names, durable.
    pub fn sync(&mut self, number: u64) -> Result {
        let met = self.plan.admit(Call::Sync)?;
        let lies = self.lies;
        let node = self.nodes.get_mut(&number).ok_or(Refusal::NotThere)?;
        match (&mut node.content, met) {
            (Content::File(file), Met::FailedSync { forgets }) => {
                file.fail_sync(forgets);
                return Err(Refusal::Io);
            }
            (Content::Directory(_), Met::FailedSync { .. }) => return Err(Refusal::Io),
            _ if lies => {}
            (Content::File(file), _) => file.sync(),
            (Content::Directory(directory), _) => directory.sync(),
        }
        Ok(())
    }

    /// Blocks in use, and how many there are.
    pub fn space(&mut self) -> (u64, u64) {
        let used = self.used();
        (used, self.plan.blocks_max(used))
    }

    fn used(&self) -> u64 {
        let named = self.nodes.values().filter_map(|node| match &node.content {
            Content::Directory(directory) => Some(directory.names.values()),
            Content::File(_) => None,
        });
        let files = named.flatten().filter_map(|number| match &self.nodes.get(number)?.content {
            Content::File(file) => Some(file.blocks.len() as u64),
            Content::Directory(_) => None,
        });
        files.sum()
    }

    /// Gives blocks to as much of a range as there is space for, and returns its end.
    fn room(&mut self, number: u64, range: Range<u64>) -> Result<u64> {
        let (used, most) = self.space();
        let mut left = most.saturating_sub(used);
        let file = self.file(number)?;
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            if file.blocks.contains(&block) {
                continue;
            }
            if left == 0 {
                self.plan.note_full();
                return Ok(range.end.min((block * BLOCK).max(range.start)));
            }
            left -= 1;
            file.blocks.insert(block);
        }
        Ok(range.end)
    }
}

impl File {
    fn mark(&mut self, range: Range<usize>) {
        self.unsynced.extend(range.start / SECTOR..range.end.div_ceil(SECTOR));
    }

    fn resize(&mut self, len: usize) {
        let before = self.bytes.len();
        self.bytes.resize(len, 0);
        self.mark(before.min(len)..before.max(len));
        self.blocks.retain(|block| block * BLOCK < len as u64);
    }

    fn sync(&mut self) {
        self.platter.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.unsynced) {
            copy_sector(&self.bytes, &mut self.platter, sector);
        }
    }

    /// The platter stays as it is, and is not told again. The cache shows what was written, or forgets it.
    fn fail_sync(&mut self, forgets: bool) {
        let mut old = self.platter.clone();
        old.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.unsynced) {
            if forgets {
                copy_sector(&old, &mut self.bytes, sector);
            }
        }
    }

    fn power_loss(&mut self, random: &mut Random) -> bool {
        let unsynced = std::mem::take(&mut self.unsynced);
        // Of 16 sectors, so many arrive: none and all of them are as likely as anything between.
        let of_16 = random.pick(&[0, 0, 4, 8, 14, 16, 16]);
        if random.once_in(2) {
            self.platter.resize(self.bytes.len(), 0);
        }
        let mut forgot = self.platter.len() != self.bytes.len();
        for sector in unsynced {
            if random.below(16) < of_16 {
                copy_sector(&self.bytes, &mut self.platter, sector);
            } else {
                forgot = true;
            }
        }
        self.bytes.clone_from(&self.platter);
        self.blocks = (0..(self.bytes.len() as u64).div_ceil(BLOCK)).collect();
        forgot
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let end = ((sector + 1) * SECTOR).min(from.len()).min(to.len());
    let range = (sector * SECTOR).min(end)..end;
    to[range.clone()].copy_from_slice(&from[range]);
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        self.unsynced.drain(..).for_each(|change| apply(&mut self.platter, &change));
    }

    fn power_loss(&mut self, random: &mut Random) -> bool {
        let kept = random.below(self.unsynced.len() as u64 + 1) as usize;
        let forgot = kept < self.unsynced.len();
        self.unsynced.truncate(kept);
        self.sync();
        self.names.clone_from(&self.platter);
        forgot
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Add(name, number) => {
            names.insert(name.clone(), *number);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(number) = names.remove(from) {
                names.insert(to.clone(), number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
