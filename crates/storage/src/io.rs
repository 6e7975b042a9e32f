//! Every system call of the engine, behind two traits, so that a simulated disk can stand in for the real one.
//!
//! Paths are relative to the store directory that the [`Io`] was made for, and have only the components that
//! docs/format.md names. An implementation never follows a symbolic link and never leaves its directory.

use std::fmt::{self, Debug};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

mod disk;
#[expect(unsafe_code, reason = "the one module that maps files")]
mod mapped;
#[cfg(feature = "sim")]
pub mod sim;

pub use disk::Disk;

/// How [`Io::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing, with mode 0600.
    Create,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with one name.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a device, a FIFO, a socket, or a regular file with more than one name: never opened.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last component of the path. Names that are not UTF-8 come with replacement characters and match nothing.
    pub name: String,
    /// What it stands for.
    pub kind: Kind,
    /// Length in bytes (0 for anything but a file).
    pub len: u64,
    /// Permission bits: 0o600 and 0o700 as this engine makes them.
    pub mode: u32,
}

/// Whose lock [`Io::lock`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// One holder at a time.
    Exclusive,
    /// Any number of holders, none of them exclusive.
    Shared,
}

/// Holds a lock until dropped; the death of the process drops it too.
pub trait Lock: Debug + Send + Sync {}

/// The file systems that matter for how bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileSystem {
    /// ext4: stores through a mapping of reserved blocks are safe.
    Ext4,
    /// tmpfs: as ext4.
    Tmpfs,
    /// XFS: positional writes, unless the user opts in.
    Xfs,
    /// btrfs: positional writes.
    Btrfs,
    /// Anything else: positional writes.
    Other,
}

/// A directory of files.
pub trait Io: Debug + Send + Sync + 'static {
    /// Opens a regular file that has one name; anything else is an error.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Makes a directory with mode 0700, if it is not there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The permission bits of the directory itself.
    fn mode(&self) -> io::Result<u32>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Renames a file, replacing what has the new name. Durable only after [`sync_dir`](Io::sync_dir).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Durable only after [`sync_dir`](Io::sync_dir).
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an advisory lock on a file; `None`: somebody else holds it. An exclusive one makes the file if needed, a
    /// shared one never does: whoever only reads leaves no trace.
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>>;
    /// The kind of file system that holds the directory.
    fn file_system(&self) -> FileSystem;
    /// Free bytes that this process may use.
    fn free_space(&self) -> io::Result<u64>;
    /// An id that changes when the machine (and with it the page cache) starts anew.
    fn boot_id(&self) -> [u8; 16];
    /// Fills `buffer` with random bytes, for identities.
    fn random(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// An open file. Every call may be used from any thread.
#[expect(
    clippy::len_without_is_empty,
    reason = "lengths here are asked for, and never compared with zero"
)]
pub trait File: Debug + Send + Sync + 'static {
    /// Reads at `position`; 0 means end of file, fewer bytes than asked mean nothing.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes at `position`; may write less than asked.
    fn write_at(&self, buffer: &[u8], position: u64) -> io::Result<usize>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with a hole) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Gets blocks for a range, so that writing there later cannot run out of space; extends the file. After an error the
    /// length is as before. Where the file system cannot do this, zeros are written from the present end on, and holes
    /// before it stay.
    fn reserve(&self, position: u64, len: u64) -> io::Result<()>;
    /// Makes bytes and length durable. After an error nothing is known, and a retry would lie.
    fn sync_data(&self) -> io::Result<()>;
    /// Asks the system to forget cached pages, so that the next read sees the device.
    fn drop_cache(&self) -> io::Result<()>;
    /// The stretches from `position` on where other bytes than zeros may be, in order: what is reserved and was never
    /// written is left out, where the file system tells. Reading nearby can add to them, so this is asked first.
    fn written_from(&self, position: u64) -> io::Result<Vec<Range<u64>>> {
        Ok(std::iter::once(position..self.len()?.max(position)).collect())
    }
    /// Makes this empty file share the blocks of `source`, all of it. `false`, and nothing was done, where that is not
    /// possible; then the bytes have to be copied.
    fn reflink(&self, source: &dyn File) -> io::Result<bool> {
        let _ = source;
        Ok(false)
    }
    /// The descriptor, of a file that has one.
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    /// Maps the first `len` bytes for stores. They must have been reserved.
    fn map(&self, len: u64) -> io::Result<Box<dyn Region>>;
}

/// A mapped prefix of a file that can be stored to. What is stored survives the death of the process.
#[expect(
    clippy::len_without_is_empty,
    reason = "lengths here are asked for, and never compared with zero"
)]
pub trait Region: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Copies `bytes` to `position`. The stores of one call are done before those of the next.
    ///
    /// # Panics
    /// If the range is not inside the region: the caller's own bookkeeping is wrong.
    fn store(&mut self, position: u64, bytes: &[u8]);
}

/// What an [`Io`] answers when a name stands for something that it never opens: see [`Kind::Other`].
#[derive(Debug)]
struct NotAFile;

impl fmt::Display for NotAFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a plain file or directory with one name")
    }
}

impl std::error::Error for NotAFile {}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, NotAFile)
}

/// Only plain components: no root, no `.` or `..`, so that a path can name nothing outside.
fn check_plain(path: &Path) -> io::Result<()> {
    if path.components().all(|c| matches!(c, Component::Normal(_))) {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path in a store has plain components only",
        ))
    }
}

/// Whether `error` says that a name stood for a link, a device or a file with more than one name, which was not touched.
pub fn is_not_a_file(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotAFile>())
}

/// Removes the name of a file, if there is one.
pub(crate) fn unlink_if_there(io: &dyn Io, path: &Path) -> io::Result<()> {
    match io.unlink(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Reads exactly `buffer.len()` bytes unless the file ends first; returns how many there were.
pub fn read_full(file: &dyn File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let least = buffer.len();
    read_at_least(file, buffer, least, position)
}

/// Reads into the buffer until it has `least` bytes or the file ends; returns how many there were.
pub(crate) fn read_at_least(
    file: &dyn File,
    buffer: &mut [u8],
    least: usize,
    position: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while done < least {
        match file.read_at(&mut buffer[done..], position + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes all of `buffer`. After an error any part of it may have been written.
pub fn write_full(file: &dyn File, buffer: &[u8], position: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.write_at(&buffer[done..], position + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
