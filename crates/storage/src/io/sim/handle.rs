//! What a process holds of the simulated disk: open files, mappings, locks.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::fault::{Fault, Op, Step};
use super::process::{Process, cut, verdict};
use super::volume::Ino;
use super::{State, crash};
use crate::io::{File, Lock, Region};

/// No file of a simulated disk gets longer, so that a wild position cannot eat the host's memory.
const LEN_MAX: u64 = 1 << 36;

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) process: Process,
    pub(super) ino: Ino,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Some(mut state) = self.process.state() {
            state.unlock(self.ino);
        }
    }
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) process: Process,
    pub(super) ino: Ino,
    pub(super) writable: bool,
    /// Where it was opened, for the trace.
    pub(super) path: Arc<str>,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(mut state) = self.process.state() {
            state.let_go(self.ino);
        }
    }
}

impl SimFile {
    fn check(&self, end: Option<u64>) -> io::Result<()> {
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        if end.is_none_or(|end| end > LEN_MAX) { Err(Errno::FBIG.into()) } else { Ok(()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let (mut state, step) = self.process.step(Op::Read, buffer.len(), String::new)?;
        let want = match step {
            Step::Go => buffer.len(),
            Step::Cut => return Err(cut()),
            Step::Fail(Fault::ShortRead) => 1 + state.random.below(buffer.len() - 1),
            Step::Fail(fault) => return Err(fault.error()),
        };
        let got = state.volume.file(self.ino)?.read(position, &mut buffer[..want]);
        state.control.ops.bytes_read += got as u64;
        Ok(got)
    }

    fn write_at(&self, buffer: &[u8], position: u64) -> io::Result<usize> {
        let end = position.checked_add(buffer.len() as u64);
        self.check(end)?;
        let describe = || format!("write {} {position}+{}", self.path, buffer.len());
        let (mut state, step) = self.process.step(Op::Write, buffer.len(), describe)?;
        let want = match step {
            Step::Go => buffer.len(),
            Step::Cut | Step::Fail(Fault::Eio) => state.random.below(buffer.len() + 1),
            Step::Fail(Fault::ShortWrite) => 1 + state.random.below(buffer.len() - 1),
            Step::Fail(fault) => return Err(fault.error()),
        };
        let room = state.room();
        let range = position..position + want as u64;
        let fits = state.volume.file(self.ino)?.blocks.fitting(&range, room) as usize;
        state.volume.change(self.ino, |inode| inode.write(position, &buffer[..fits], false))?;
        if step != Step::Fail(Fault::ShortWrite) {
            verdict(step)?;
        }
        if want > 0 && fits == 0 { Err(Errno::NOSPC.into()) } else { Ok(fits) }
    }

    fn len(&self) -> io::Result<u64> {
        self.process
            .all_or_nothing(Op::Len, String::new, |state| Ok(state.volume.file(self.ino)?.len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(Some(len))?;
        let describe = || format!("set_len {} {len}", self.path);
        let call = |state: &mut State| state.volume.change(self.ino, |inode| inode.set_len(len));
        self.process.all_or_nothing(Op::SetLen, describe, call)
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        let end = position.checked_add(len);
        self.check(end)?;
        let describe = || format!("reserve {} {position}+{len}", self.path);
        self.process.all_or_nothing(Op::Reserve, describe, |state| {
            let range = position..position + len;
            if range.is_empty() {
                return Ok(());
            }
            if state.volume.file(self.ino)?.blocks.missing(&range) > state.room() {
                return Err(Errno::NOSPC.into());
            }
            state.volume.change(self.ino, |inode| inode.reserve(range))
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, step) = self.process.step(Op::Sync, 0, || format!("sync {}", self.path))?;
        let state = &mut *state;
        let inode = state.volume.file_mut(self.ino)?;
        match step {
            Step::Go => inode.sync(),
            Step::Cut if state.random.chance(4) => {}
            Step::Cut => inode.sync(),
            Step::Fail(fault) => {
                let way = fault.of_sync(&mut state.random);
                inode.fail_sync(way, &mut state.random);
            }
        }
        verdict(step)
    }

    fn drop_cache(&self) -> io::Result<()> {
        let describe = || format!("drop_cache {}", self.path);
        self.process.all_or_nothing(Op::DropCache, describe, |state| {
            // The system keeps pages that are mapped.
            if !state.is_mapped(self.ino) {
                state.volume.file_mut(self.ino)?.drop_cache();
            }
            Ok(())
        })
    }

    fn map(&self, len: u64) -> io::Result<Box<dyn Region>> {
        self.check(Some(len))?;
        let describe = || format!("map {} {len}", self.path);
        self.process.all_or_nothing(Op::Map, describe, |state| {
            let inode = state.volume.file(self.ino)?;
            if len == 0 || inode.len < len || inode.blocks.missing(&(0..len)) > 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "only reserved bytes can be mapped",
                ));
            }
            state.hold_mapping(self.ino);
            Ok(())
        })?;
        let (process, path) = (self.process.clone(), Arc::clone(&self.path));
        Ok(Box::new(SimRegion { process, ino: self.ino, len, path }))
    }
}

#[derive(Debug)]
struct SimRegion {
    process: Process,
    ino: Ino,
    len: u64,
    path: Arc<str>,
}

impl Drop for SimRegion {
    fn drop(&mut self) {
        if let Some(mut state) = self.process.state() {
            state.let_go_mapping(self.ino);
        }
    }
}

impl Region for SimRegion {
    fn len(&self) -> u64 {
        self.len
    }

    fn store(&mut self, position: u64, bytes: &[u8]) {
        let end = position.checked_add(bytes.len() as u64);
        assert!(end.is_some_and(|end| end <= self.len), "a store outside the mapped region");
        let describe = || format!("store {} {position}+{}", self.path, bytes.len());
        // A dead process stores nothing, and nobody is left to be told.
        let Ok((mut state, step)) = self.process.step(Op::Store, bytes.len(), describe) else {
            return;
        };
        let state = &mut *state;
        let Ok(inode) = state.volume.file_mut(self.ino) else { return };
        let end = position + bytes.len() as u64;
        assert!(
            end <= inode.len,
            "SIGBUS: a store beyond the end of a file that was cut while it was mapped"
        );
        if step == Step::Cut {
            let mut before = vec![0; bytes.len()];
            let mut after = bytes.to_vec();
            inode.read(position, &mut before);
            crash::tear(&before, &mut after, &mut state.random);
            inode.write(position, &after, true);
        } else {
            inode.write(position, bytes, true);
        }
    }
}
