//! What a process sees of the simulated disk: every call is counted, and open to faults.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Fault, Op, Step};
use super::handle::{SimFile, SimLock};
use super::volume::{Ino, Node};
use super::{Machine, State};
use crate::io::{Entry, File, FileSystem, Io, Kind, Lock, LockKind, Open};
use crate::sync::MutexGuard;

const DIR_MODE: u32 = 0o700;

/// Every call of a process that is no more ends with this.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this simulated process is dead")
    }
}

impl std::error::Error for Cut {}

pub(super) fn cut() -> io::Error {
    io::Error::other(Cut)
}

pub(super) fn is_cut(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cut>())
}

/// One process on the machine: dead after the next kill or crash.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) machine: Arc<Machine>,
    pub(super) generation: u64,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Process {
    /// Locks the machine, if this process is alive.
    pub(super) fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.machine.state.lock();
        (state.generation == self.generation).then_some(state)
    }

    pub(super) fn step(
        &self,
        op: Op,
        len: usize,
        describe: impl FnOnce() -> String,
    ) -> io::Result<(MutexGuard<'_, State>, Step)> {
        let mut state = self.state().ok_or_else(cut)?;
        let step = state.control.step(op, len, describe).ok_or_else(cut)?;
        Ok((state, step))
    }

    /// A call that either happens or does not.
    pub(super) fn all_or_nothing<T>(
        &self,
        op: Op,
        describe: impl FnOnce() -> String,
        call: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let (mut state, step) = self.step(op, 0, describe)?;
        if !happens(&mut state, op, step) {
            verdict(step)?;
        }
        let done = call(&mut state);
        verdict(step)?;
        done
    }
}

/// Whether a call that either happens or does not happens: one that fails may have been done.
fn happens(state: &mut State, op: Op, step: Step) -> bool {
    match step {
        Step::Go => true,
        Step::Cut | Step::Fail(Fault::Eio) => op.changes() && state.random.chance(4),
        Step::Fail(_) => false,
    }
}

/// What the caller hears.
pub(super) fn verdict(step: Step) -> io::Result<()> {
    match step {
        Step::Go => Ok(()),
        Step::Cut => Err(cut()),
        Step::Fail(fault) => Err(fault.error()),
    }
}

impl Io for Process {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let op = if how == Open::Create { Op::Create } else { Op::Open };
        let verb = if how == Open::Create { "create" } else { "open" };
        let (mut state, step) = self.step(op, 0, || format!("{verb} {}", path.display()))?;
        if !happens(&mut state, op, step) {
            verdict(step)?;
        }
        let ino = if how == Open::Create {
            state.volume.create(path)?
        } else {
            state.volume.find(path)?
        };
        state.volume.file(ino)?;
        verdict(step)?;
        state.hold(ino);
        drop(state);
        let path = path.to_string_lossy().into();
        Ok(Arc::new(SimFile { process: self.clone(), ino, writable: how != Open::Read, path }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let describe = || format!("create_dir {}", path.display());
        self.all_or_nothing(Op::CreateDir, describe, |state| state.volume.create_dir(path))
    }

    fn mode(&self) -> io::Result<u32> {
        Ok(DIR_MODE)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.all_or_nothing(
            Op::List,
            || format!("list {}", path.display()),
            |state| {
                let volume = &state.volume;
                let names = &volume.directory(volume.find(path)?)?.names;
                let entry = |(name, ino): (&Arc<str>, &Ino)| {
                    let (kind, len) = match volume.node(*ino) {
                        Ok(Node::File(inode)) => (Kind::File, inode.len),
                        Ok(Node::Directory(_)) => (Kind::Directory, 0),
                        Ok(Node::Other) | Err(_) => (Kind::Other, 0),
                    };
                    let mode = if kind == Kind::Directory { DIR_MODE } else { 0o600 };
                    Entry { name: name.to_string(), kind, len, mode }
                };
                let mut entries: Vec<Entry> = names.iter().map(entry).collect();
                for last in (1..entries.len()).rev() {
                    entries.swap(last, state.random.below(last + 1));
                }
                Ok(entries)
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.all_or_nothing(
            Op::Rename,
            || format!("rename {} -> {}", from.display(), to.display()),
            |state| {
                if let Some(replaced) = state.volume.rename(from, to)? {
                    state.release_unless_open(replaced);
                }
                Ok(())
            },
        )
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.all_or_nothing(
            Op::Unlink,
            || format!("unlink {}", path.display()),
            |state| {
                let ino = state.volume.unlink(path)?;
                state.release_unless_open(ino);
                Ok(())
            },
        )
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let describe = || format!("remove_dir {}", path.display());
        self.all_or_nothing(Op::RemoveDir, describe, |state| {
            state.volume.remove_dir(path).map(|_| ())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, step) =
            self.step(Op::SyncDir, 0, || format!("sync_dir {}", path.display()))?;
        let state = &mut *state;
        let fault = match step {
            Step::Go => None,
            Step::Cut if state.random.chance(4) => return Err(cut()),
            Step::Cut => Some(Fault::SyncFalseFailure),
            Step::Fail(Fault::Emfile) => return Err(Fault::Emfile.error()),
            Step::Fail(fault) => Some(fault.of_sync(&mut state.random)),
        };
        state.volume.sync_dir(path, fault, &mut state.random)?;
        let open = &state.open;
        state.volume.collect_orphans(|| open.keys().copied().collect());
        verdict(step)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>> {
        let describe = || format!("lock {}", path.display());
        let ino = self.all_or_nothing(Op::Lock, describe, |state| {
            let ino = match state.volume.find(path) {
                Err(e) if kind == LockKind::Exclusive && e.kind() == io::ErrorKind::NotFound => {
                    state.volume.create(path)?
                }
                found => found?,
            };
            state.volume.file(ino)?;
            Ok(ino)
        })?;
        let taken = self.state().ok_or_else(cut)?.try_lock(ino, kind);
        Ok(taken.then(|| Box::new(SimLock { process: self.clone(), ino }) as Box<dyn Lock>))
    }

    fn file_system(&self) -> FileSystem {
        self.machine.state.lock().file_system
    }

    fn free_space(&self) -> io::Result<u64> {
        self.all_or_nothing(Op::FreeSpace, String::new, |state| Ok(state.room()))
    }

    fn boot_id(&self) -> [u8; 16] {
        self.machine.state.lock().boot_id()
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state().ok_or_else(cut)?;
        for word in buffer.chunks_mut(8) {
            word.copy_from_slice(&state.random.next().to_le_bytes()[..word.len()]);
        }
        Ok(())
    }
}
