//! The directory tree as processes see it, and the files in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::inode::Inode;
use super::names::{NameChange, Naming};
use super::pages::Page;
use crate::io::{check_plain, not_a_file};

pub(super) type Ino = u64;
pub(super) type Place = (Ino, Arc<str>);
type Names = BTreeMap<Arc<str>, Ino>;

const ROOT: Ino = 1;
/// How many files without a name are kept for a crash to bring back, before they are looked through.
const ORPHANS_MAX: usize = 16;
/// How many pages of removed files a crash can expose in place of bytes that were never written.
const STALE_MAX: usize = 32;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Arc<Inode>),
    Directory(Arc<Directory>),
    /// A link, a device, a FIFO: never opened.
    Other,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) names: Names,
    pub(super) durable: Names,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) node: Node,
    /// Whether a name leads here now.
    pub(super) linked: bool,
}

/// Everything that a snapshot holds. Copies share all files until they are changed.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) slots: BTreeMap<Ino, Slot>,
    /// Oldest first.
    pub(super) changes: Vec<NameChange>,
    next: Ino,
    /// Bytes that have blocks.
    pub(super) used: u64,
    /// How many files without a name a crash may bring back.
    pub(super) orphans: usize,
    /// Pages of files that are gone.
    pub(super) stale: Vec<Arc<Page>>,
}

impl Volume {
    pub(super) fn new() -> Volume {
        let root = Slot { node: Node::Directory(Arc::default()), linked: true };
        Volume {
            slots: BTreeMap::from([(ROOT, root)]),
            changes: Vec::new(),
            next: ROOT + 1,
            used: 0,
            orphans: 0,
            stale: Vec::new(),
        }
    }

    // ---- looking up

    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        check_plain(path)?;
        let mut at = ROOT;
        for name in path.iter() {
            let name = name.to_str().ok_or(io::ErrorKind::NotFound)?;
            at = *self.directory(at)?.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The directory that holds `path`, and the last component.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.directory(parent)?;
        Ok((parent, name.into()))
    }

    pub(super) fn node(&self, ino: Ino) -> io::Result<&Node> {
        self.slots.get(&ino).map(|s| &s.node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn directory(&self, ino: Ino) -> io::Result<&Directory> {
        match self.node(ino)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) | Node::Other => Err(not_a_file()),
        }
    }

    pub(super) fn file(&self, ino: Ino) -> io::Result<&Inode> {
        match self.node(ino)? {
            Node::File(inode) => Ok(inode),
            Node::Directory(_) | Node::Other => Err(not_a_file()),
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> io::Result<&mut Inode> {
        match self.slots.get_mut(&ino).map(|s| &mut s.node) {
            Some(Node::File(inode)) => Ok(Arc::make_mut(inode)),
            Some(_) => Err(not_a_file()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn directory_mut(&mut self, ino: Ino) -> Option<&mut Directory> {
        match self.slots.get_mut(&ino).map(|s| &mut s.node) {
            Some(Node::Directory(directory)) => Some(Arc::make_mut(directory)),
            _ => None,
        }
    }

    /// All files, with a name or without.
    pub(super) fn inodes(&self) -> impl Iterator<Item = &Inode> {
        self.slots.values().filter_map(|slot| match &slot.node {
            Node::File(inode) => Some(&**inode),
            Node::Directory(_) | Node::Other => None,
        })
    }

    /// Changes a file and keeps the count of bytes that have blocks.
    pub(super) fn change<T>(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Inode) -> T,
    ) -> io::Result<T> {
        let file = self.file_mut(ino)?;
        let before = file.blocks.bytes();
        let changed = change(file);
        let after = file.blocks.bytes();
        self.used = self.used - before + after;
        Ok(changed)
    }

    /// All files that have a name, with it.
    pub(super) fn files(&self) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = open.pop() {
            let Ok(directory) = self.directory(ino) else {
                found.push((path, ino));
                continue;
            };
            for (name, ino) in &directory.names {
                let path =
                    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
                open.push((path, *ino));
            }
        }
        found.sort();
        found
    }

    // ---- changing names

    fn add(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.slots.insert(ino, Slot { node, linked: true });
        ino
    }

    fn link(&mut self, path: &Path, node: Node) -> io::Result<Ino> {
        let place = self.place(path)?;
        if self.directory(place.0)?.names.contains_key(&place.1) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = self.add(node);
        if let Some(directory) = self.directory_mut(place.0) {
            directory.names.insert(place.1.clone(), ino);
        }
        self.changes.push(NameChange { what: Naming::Link(place), ino, forgotten: false });
        Ok(ino)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Ino> {
        self.link(path, Node::File(Arc::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.link(path, Node::Directory(Arc::default())) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let there = self.find(path)?;
                self.directory(there).map(|_| ())
            }
            made => made.map(|_| ()),
        }
    }

    /// Takes the last name of a file away. Its blocks are free once nobody has it open: see [`Volume::release`].
    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        if let Node::Directory(_) = self.node(ino)? {
            return Err(Errno::ISDIR.into());
        }
        self.unlink_any(path, ino)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        if !self.directory(ino)?.names.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.unlink_any(path, ino)
    }

    fn unlink_any(&mut self, path: &Path, ino: Ino) -> io::Result<Ino> {
        let place = self.place(path)?;
        if let Some(directory) = self.directory_mut(place.0) {
            directory.names.remove(&place.1);
        }
        self.orphan(ino);
        self.changes.push(NameChange { what: Naming::Unlink(place), ino, forgotten: false });
        Ok(ino)
    }

    fn orphan(&mut self, ino: Ino) {
        if let Some(slot) = self.slots.get_mut(&ino) {
            slot.linked = false;
            self.orphans += 1;
        }
    }

    /// Renames; returns the file that lost its name to this one.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<Option<Ino>> {
        let ino = self.find(from)?;
        let (from_place, to_place) = (self.place(from)?, self.place(to)?);
        let replaced = self.directory(to_place.0)?.names.get(&to_place.1).copied();
        if replaced == Some(ino) {
            return Ok(None);
        }
        let is_directory = matches!(self.node(ino)?, Node::Directory(_));
        match replaced.map(|r| self.node(r)).transpose()? {
            Some(Node::Directory(_)) if !is_directory => return Err(Errno::ISDIR.into()),
            Some(Node::Directory(there)) if !there.names.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            Some(Node::File(_) | Node::Other) if is_directory => return Err(Errno::NOTDIR.into()),
            _ if is_directory && to.starts_with(from) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            _ => {}
        }
        if let Some(directory) = self.directory_mut(from_place.0) {
            directory.names.remove(&from_place.1);
        }
        if let Some(directory) = self.directory_mut(to_place.0) {
            directory.names.insert(to_place.1.clone(), ino);
        }
        if let Some(replaced) = replaced {
            self.orphan(replaced);
        }
        let what = Naming::Rename { from: from_place, to: to_place, synced: [false; 2] };
        self.changes.push(NameChange { what, ino, forgotten: false });
        Ok(replaced)
    }

    /// Nobody has the nameless file `ino` open any more: its blocks can be had by others.
    pub(super) fn release(&mut self, ino: Ino) {
        if let Ok(file) = self.file(ino) {
            self.used = self.used.saturating_sub(file.blocks.bytes());
        }
    }

    /// Nobody has these files open any more: the blocks of those without a name can be had by others.
    pub(super) fn release_all<'a>(&mut self, inos: impl IntoIterator<Item = &'a Ino>) {
        for ino in inos {
            if self.slots.get(ino).is_some_and(|slot| !slot.linked) {
                self.release(*ino);
            }
        }
    }

    /// Files that no name can lead to after any crash, and nobody has open, are gone for good.
    pub(super) fn collect_orphans(&mut self, open: impl FnOnce() -> BTreeSet<Ino>) {
        if self.orphans >= ORPHANS_MAX {
            self.collect(&open());
        }
    }

    pub(super) fn collect(&mut self, open: &BTreeSet<Ino>) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        next.extend(open);
        next.extend(self.changes.iter().map(|c| c.ino));
        reached.extend(&next);
        while let Some(ino) = next.pop() {
            if let Ok(directory) = self.directory(ino) {
                let names = directory.names.values().chain(directory.durable.values());
                next.extend(names.filter(|i| reached.insert(**i)));
            }
        }
        let stale = &mut self.stale;
        self.slots.retain(|ino, slot| {
            let keep = reached.contains(ino);
            if !keep && let Node::File(inode) = &slot.node {
                stale.extend(inode.platter.clone().into_pages().take(STALE_MAX));
            }
            keep
        });
        let excess = self.stale.len().saturating_sub(STALE_MAX);
        self.stale.drain(..excess);
        self.orphans = self.slots.values().filter(|s| !s.linked).count();
    }

    // ---- what tests do behind everybody's back

    /// Puts a node at `path` as if it had been durable for ever, with the directories above it; returns what had the name.
    pub(super) fn plant(&mut self, path: &Path, node: Node) -> io::Result<Option<Ino>> {
        let mut above = PathBuf::new();
        for component in path.parent().into_iter().flat_map(Path::components) {
            above.push(component);
            if self.find(&above).is_err() {
                self.plant_one(&above, Node::Directory(Arc::default()))?;
            }
        }
        self.plant_one(path, node)
    }

    fn plant_one(&mut self, path: &Path, node: Node) -> io::Result<Option<Ino>> {
        let place = self.place(path)?;
        if let Node::File(inode) = &node {
            self.used += inode.blocks.bytes();
        }
        let ino = self.add(node);
        let old = self.directory_mut(place.0).and_then(|d| d.names.insert(place.1.clone(), ino));
        if let Some(old) = old {
            self.orphan(old);
        }
        self.make_durable(&NameChange { what: Naming::Link(place), ino, forgotten: false });
        Ok(old)
    }

    /// Takes a file away as if it had never been.
    pub(super) fn uproot(&mut self, path: &Path) -> io::Result<Ino> {
        let ino = self.unlink(path)?;
        self.changes.retain(|c| c.ino != ino);
        self.forget_durable_names(ino);
        Ok(ino)
    }
}
