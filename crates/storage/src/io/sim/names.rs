//! Names as they will be after a loss of power: what is durable, and every change that is not yet.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fault::Fault;
use super::inode::Inode;
use super::pages::Page;
use super::random::Random;
use super::volume::{Ino, Node, Place, Volume};

/// A change of names that no sync has made durable yet.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) what: Naming,
    pub(super) ino: Ino,
    /// A sync of its directory failed and forgot it: the next one is Ok without it.
    pub(super) forgotten: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Naming {
    Link(Place),
    Unlink(Place),
    /// Both directories must be synced; the flags say which were.
    Rename {
        from: Place,
        to: Place,
        synced: [bool; 2],
    },
}

impl NameChange {
    fn is_of(&self, directory: Ino) -> bool {
        match &self.what {
            Naming::Link((d, _)) | Naming::Unlink((d, _)) => *d == directory,
            Naming::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
        }
    }

    /// Whether the two decide about the same name or the same file.
    fn is_superseded_by(&self, later: &NameChange) -> bool {
        let sets = |change: &NameChange| match &change.what {
            Naming::Link(place) | Naming::Unlink(place) => place.clone(),
            Naming::Rename { to, .. } => to.clone(),
        };
        self.ino == later.ino || sets(self) == sets(later)
    }
}

impl Volume {
    pub(super) fn sync_dir(
        &mut self,
        path: &Path,
        fault: Option<Fault>,
        random: &mut Random,
    ) -> io::Result<()> {
        let ino = self.find(path)?;
        self.directory(ino)?;
        for mut change in std::mem::take(&mut self.changes) {
            if change.forgotten || !change.is_of(ino) {
                self.changes.push(change);
                continue;
            }
            let reaches = match fault {
                None | Some(Fault::SyncFalseFailure) => true,
                Some(Fault::SyncEioKeep) => false,
                Some(_) => random.chance(4),
            };
            if !reaches {
                change.forgotten = true;
            } else if let Naming::Rename { from, to, synced } = &mut change.what {
                *synced = [synced[0] || from.0 == ino, synced[1] || to.0 == ino];
                if *synced == [true; 2] {
                    self.make_durable(&change);
                    continue;
                }
            } else {
                self.make_durable(&change);
                continue;
            }
            self.changes.push(change);
        }
        Ok(())
    }

    /// Puts a change into the durable names; an older one about the same name can no longer come back.
    pub(super) fn make_durable(&mut self, change: &NameChange) {
        self.changes.retain(|older| !older.is_superseded_by(change));
        self.persist(change);
    }

    fn persist(&mut self, change: &NameChange) {
        let ino = change.ino;
        match &change.what {
            Naming::Link((directory, name)) => {
                if let Some(directory) = self.directory_mut(*directory) {
                    directory.durable.insert(name.clone(), ino);
                }
            }
            Naming::Unlink((directory, name)) => {
                if let Some(directory) = self.directory_mut(*directory)
                    && directory.durable.get(name) == Some(&ino)
                {
                    directory.durable.remove(name);
                }
            }
            Naming::Rename { to, .. } => {
                // Whatever name it had before, for an earlier rename may have been lost: never two.
                self.forget_durable_names(ino);
                if let Some(directory) = self.directory_mut(to.0) {
                    directory.durable.insert(to.1.clone(), ino);
                }
            }
        }
    }

    pub(super) fn forget_durable_names(&mut self, ino: Ino) {
        for slot in self.slots.values_mut() {
            if let Node::Directory(directory) = &mut slot.node
                && directory.durable.values().any(|i| *i == ino)
            {
                Arc::make_mut(directory).durable.retain(|_, i| *i != ino);
            }
        }
    }

    pub(super) fn pending_names(&self) -> usize {
        self.changes.len()
    }

    /// The power is gone: what is durable is all there is, with those of the other changes that `keep` picks.
    pub(super) fn lose_power(
        &mut self,
        mut keep_name: impl FnMut() -> bool,
        mut settle: impl FnMut(&Inode, &[Arc<Page>]) -> Option<Inode>,
    ) {
        for change in std::mem::take(&mut self.changes) {
            if keep_name() {
                self.persist(&change);
            }
        }
        for slot in self.slots.values_mut() {
            if let Node::Directory(directory) = &mut slot.node
                && directory.names != directory.durable
            {
                let directory = Arc::make_mut(directory);
                directory.names.clone_from(&directory.durable);
            }
        }
        self.collect(&BTreeSet::new());
        for slot in self.slots.values_mut() {
            slot.linked = true;
            if let Node::File(inode) = &mut slot.node
                && let Some(settled) = settle(inode, &self.stale)
            {
                *inode = Arc::new(settled);
            }
        }
        self.orphans = 0;
        self.used = self.inodes().map(|inode| inode.blocks.bytes()).sum();
    }
}
