//! The real disk: system calls on names beneath one directory, held open from the start.
//!
//! Nothing here follows a symbolic link or leaves the directory, whatever somebody puts into it meanwhile:
//! `openat2(RESOLVE_BENEATH)` where the kernel has it, one `openat(O_NOFOLLOW)` for each component elsewhere.

use std::ffi::OsStr;
use std::fs::{File as StdFile, Metadata};
use std::io;
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{
    Entry, File, FileSystem, Io, Kind, Lock, LockKind, Open, Region, check_plain, mapped,
    not_a_file,
};

/// How many stretches of a sparse file are told apart: what lies behind them counts as one.
#[cfg(target_os = "linux")]
const STRETCHES_MAX: usize = 4096;
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: Mode = Mode::from_raw_mode(0o700);

/// Enough to look a name up in a directory.
#[cfg(target_os = "linux")]
const SEARCH: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = LIST;
/// What listing and syncing a directory need.
const LIST: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// `NONBLOCK`, so that a FIFO in a file's place cannot hang the caller before it is recognised.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A directory on the machine's own file system.
#[derive(Debug)]
pub struct Disk {
    root: StdFile,
    /// Whether the kernel has `openat2` and lets this process call it.
    beneath: bool,
    file_system: FileSystem,
    boot_id: [u8; 16],
}

impl Disk {
    /// Opens the directory `root`; with `create`, makes it and its missing parents with mode 0700 and makes their names
    /// durable. `root` itself may be a symbolic link: it is the caller's own path.
    ///
    /// # Errors
    /// What the system says, `NotFound` if there is no directory and `create` is false.
    /// # Cost
    /// A few system calls; with `create`, a sync of the parent directory.
    pub fn open(root: &Path, create: bool) -> io::Result<Disk> {
        if create {
            make_directories(root)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry_on_intr(|| rustix::fs::open(root, flags, Mode::empty()))?;
        Ok(Disk {
            // Old kernels lack it, and some containers forbid it.
            beneath: openat2(root.as_fd(), Path::new("."), SEARCH, Mode::empty()).is_ok(),
            file_system: file_system(root.as_fd()),
            boot_id: boot_id().unwrap_or_default(),
            root: root.into(),
        })
    }

    /// Opens what `path` names beneath the root, following no link on the way.
    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        check_plain(path)?;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        if self.beneath {
            return retry_on_intr(|| openat2(self.root.as_fd(), path, flags, mode))
                .map_err(refusal);
        }
        let mut held: Option<OwnedFd> = None;
        let mut components = path.iter().peekable();
        while let Some(name) = components.next() {
            let at = held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let (flags, mode) =
                if components.peek().is_some() { (SEARCH, Mode::empty()) } else { (flags, mode) };
            let opened =
                retry_on_intr(|| rustix::fs::openat(at, name, flags, mode)).map_err(refusal)?;
            held = Some(opened);
        }
        held.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Runs `call` with the directory that holds `path` and the last component.
    fn in_parent<T>(
        &self,
        path: &Path,
        call: impl FnOnce(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        check_plain(path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                call(self.open_beneath(parent, SEARCH, Mode::empty())?.as_fd(), name)
            }
            _ => call(self.root.as_fd(), name),
        }
    }

    fn open_file(&self, path: &Path, how: Open) -> io::Result<DiskFile> {
        let (flags, mode) = match how {
            Open::Read => (FILE | OFlags::RDONLY, Mode::empty()),
            Open::Write => (FILE | OFlags::RDWR, Mode::empty()),
            Open::Create => (FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, FILE_MODE),
        };
        let file = StdFile::from(self.open_beneath(path, flags, mode)?);
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.nlink() == 0 {
            // It was removed between the opening and the look at it.
            return Err(io::ErrorKind::NotFound.into());
        }
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(not_a_file());
        }
        if how == Open::Create && metadata.mode() & 0o777 != 0o600 {
            rustix::fs::fchmod(&file, FILE_MODE)?;
        }
        Ok(DiskFile { file, bytes_max: AtomicU64::new(file_bytes_max()) })
    }
}

impl Io for Disk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.open_file(path, how)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.in_parent(path, |parent, name| {
            match retry_on_intr(|| rustix::fs::mkdirat(parent, name, DIR_MODE)) {
                Ok(()) => set_directory_mode(parent, name),
                Err(Errno::EXIST) => {
                    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                    if is_directory { Ok(()) } else { Err(not_a_file()) }
                }
                Err(e) => Err(refusal(e)),
            }
        })
    }

    fn mode(&self) -> io::Result<u32> {
        Ok(permissions(&rustix::fs::fstat(&self.root)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let directory = self.open_beneath(path, LIST, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if stat.st_nlink == 1 => Kind::File,
                FileType::RegularFile if stat.st_nlink == 0 => continue,
                FileType::Directory => Kind::Directory,
                _ => Kind::Other,
            };
            let len = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
            let (name, mode) = (name.to_string_lossy().into_owned(), permissions(&stat));
            entries.push(Entry { name, kind, len, mode });
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.in_parent(from, |from_parent, from_name| {
            self.in_parent(to, |to_parent, to_name| {
                let rename = || rustix::fs::renameat(from_parent, from_name, to_parent, to_name);
                Ok(retry_on_intr(rename)?)
            })
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.in_parent(path, |parent, name| {
            Ok(retry_on_intr(|| rustix::fs::unlinkat(parent, name, AtFlags::empty()))?)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.in_parent(path, |parent, name| {
            Ok(retry_on_intr(|| rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))?)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        StdFile::from(self.open_beneath(path, LIST, Mode::empty())?).sync_all()
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>> {
        let operation = match kind {
            LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
            LockKind::Shared => FlockOperation::NonBlockingLockShared,
        };
        loop {
            let Some(file) = self.open_lock_file(path, kind)? else { continue };
            match retry_on_intr(|| rustix::fs::flock(&file, operation)) {
                // A lock on a file that lost its name meanwhile excludes nobody.
                Ok(()) if file.metadata()?.nlink() == 0 => {}
                Ok(()) => return Ok(Some(Box::new(DiskLock { _file: file }))),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn file_system(&self) -> FileSystem {
        self.file_system
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        random(buffer)
    }
}

impl Disk {
    /// The file to lock; `None` if somebody else made it between two calls, so try again.
    fn open_lock_file(&self, path: &Path, kind: LockKind) -> io::Result<Option<StdFile>> {
        let opened = match self.open_file(path, Open::Write) {
            Err(e) if kind == LockKind::Exclusive && e.kind() == io::ErrorKind::NotFound => {
                self.open_file(path, Open::Create)
            }
            // Whoever may only read the store can still share its lock.
            Err(e)
                if kind == LockKind::Shared
                    && matches!(
                        e.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    ) =>
            {
                self.open_file(path, Open::Read)
            }
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(Some(file.file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The lock lives as long as the descriptor.
#[derive(Debug)]
struct DiskLock {
    _file: StdFile,
}

impl Lock for DiskLock {}

#[derive(Debug)]
struct DiskFile {
    file: StdFile,
    /// `RLIMIT_FSIZE`, looked up when the file is opened and whenever it is to grow. A write beyond it raises SIGXFSZ,
    /// which kills the host process, so no such write is made.
    bytes_max: AtomicU64,
}

impl DiskFile {
    /// How many of `len` bytes at `position` may be written.
    fn permitted(&self, position: u64, len: usize) -> io::Result<usize> {
        let room = self.bytes_max.load(Ordering::Relaxed).saturating_sub(position);
        match usize::try_from(room).unwrap_or(usize::MAX) {
            0 if len > 0 => Err(Errno::FBIG.into()),
            room => Ok(len.min(room)),
        }
    }

    fn check_growth(&self, end: u64) -> io::Result<()> {
        let max = file_bytes_max();
        self.bytes_max.store(max, Ordering::Relaxed);
        if end > max { Err(Errno::FBIG.into()) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.file, len))?)
    }

    /// Where the file system cannot reserve, written zeros are the reservation.
    fn write_zeros(&self, from: u64, end: u64) -> io::Result<()> {
        let mut position = from;
        while position < end {
            let n =
                usize::try_from(end - position).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            super::write_full(self, &ZEROS[..n], position)?;
            position += n as u64;
        }
        Ok(())
    }
}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, position) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn write_at(&self, buffer: &[u8], position: u64) -> io::Result<usize> {
        let buffer = &buffer[..self.permitted(position, buffer.len())?];
        loop {
            match self.file.write_at(buffer, position) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_growth(len)?;
        self.truncate(len)
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = position.checked_add(len).ok_or(Errno::FBIG)?;
        self.check_growth(end)?;
        let old = self.len()?;
        let reserved = match allocate(&self.file, position, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(old.max(position), end),
            reserved => reserved.map_err(io::Error::from),
        };
        // A file system that ran out of space half-way may have extended the file by what it had.
        if reserved.is_err() && self.len()? > old {
            self.truncate(old)?;
        }
        reserved
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        retry_on_intr(|| rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed))?;
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn written_from(&self, position: u64) -> io::Result<Vec<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        let (mut written, mut from, end) = (Vec::new(), position, self.len()?);
        // Some file systems have told of holes where fresh bytes were; those that are known here are tested.
        while from < end && file_system(self.file.as_fd()) != FileSystem::Other {
            match seek(&self.file, SeekFrom::Data(from)) {
                Ok(data) if written.len() < STRETCHES_MAX => {
                    from = seek(&self.file, SeekFrom::Hole(data)).unwrap_or(end);
                    written.push(data..from);
                }
                Err(Errno::NXIO) => return Ok(written),
                _ => break,
            }
        }
        if from < end {
            written.push(from..end);
        }
        Ok(written)
    }

    #[cfg(target_os = "linux")]
    fn reflink(&self, source: &dyn File) -> io::Result<bool> {
        let Some(source) = source.descriptor() else { return Ok(false) };
        match retry_on_intr(|| rustix::fs::ioctl_ficlone(&self.file, source)) {
            Ok(()) => Ok(true),
            // Another file system, or one that shares no blocks.
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::PERM) => {
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn map(&self, len: u64) -> io::Result<Box<dyn Region>> {
        mapped::map(&self.file, len)
    }
}

/// What the system says when it meets a link, a directory, a socket or a device where a file or directory should be.
fn refusal(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO | Errno::NODEV | Errno::XDEV => {
            not_a_file()
        }
        // Some BSDs answer so to O_NOFOLLOW on a link.
        #[cfg(not(target_os = "linux"))]
        Errno::MLINK => not_a_file(),
        _ => errno.into(),
    }
}

#[cfg_attr(
    target_os = "linux",
    expect(clippy::useless_conversion, reason = "it has 16 bits on other systems")
)]
fn permissions(stat: &rustix::fs::Stat) -> u32 {
    (Mode::from_raw_mode(stat.st_mode).bits() & 0o7777).into()
}

/// Makes `path` and its missing parents, and makes their names durable.
fn make_directories(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => return Ok(()),
    };
    let make = || retry_on_intr(|| rustix::fs::mkdir(path, DIR_MODE));
    let made = match make() {
        Err(Errno::NOENT) => {
            make_directories(parent)?;
            make()
        }
        made => made,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open_parent =
        || retry_on_intr(|| rustix::fs::open(parent, flags, Mode::empty())).map(StdFile::from);
    match made {
        Ok(()) => {
            let parent = open_parent()?;
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            set_directory_mode(parent.as_fd(), name)?;
            parent.sync_all()
        }
        // The process that made it may have died before its sync; a parent that may not be read is not ours to sync.
        Err(Errno::EXIST) => open_parent().map_or(Ok(()), |parent| parent.sync_all()),
        Err(e) => Err(e.into()),
    }
}

/// Gives a directory that was just made the mode that the umask may have kept from it.
fn set_directory_mode(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(not_a_file());
    }
    if stat.st_mode & 0o777 == DIR_MODE.bits() {
        return Ok(());
    }
    match retry_on_intr(|| rustix::fs::openat(parent, name, LIST, Mode::empty())) {
        Ok(directory) => Ok(rustix::fs::fchmod(directory, DIR_MODE)?),
        // A umask that keeps even the owner from reading leaves only the name to go by.
        Err(Errno::ACCESS) => Ok(rustix::fs::chmodat(parent, name, DIR_MODE, AtFlags::empty())?),
        Err(e) => Err(refusal(e)),
    }
}

/// Opens without leaving `root` or following a link, all at once.
#[cfg(target_os = "linux")]
fn openat2(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, mode, resolve)
}

#[cfg(not(target_os = "linux"))]
fn openat2(_: BorrowedFd<'_>, _: &Path, _: OFlags, _: Mode) -> rustix::io::Result<OwnedFd> {
    Err(Errno::NOSYS)
}

#[cfg(target_os = "linux")]
fn file_system(root: BorrowedFd<'_>) -> FileSystem {
    match rustix::fs::fstatfs(root).map(|stat| stat.f_type as u32) {
        Ok(0xEF53) => FileSystem::Ext4,
        Ok(0x0102_1994) => FileSystem::Tmpfs,
        Ok(0x5846_5342) => FileSystem::Xfs,
        Ok(0x9123_683E) => FileSystem::Btrfs,
        _ => FileSystem::Other,
    }
}

#[cfg(not(target_os = "linux"))]
fn file_system(_root: BorrowedFd<'_>) -> FileSystem {
    FileSystem::Other
}

/// The kernel's own id of this boot; `None` where there is none.
fn boot_id() -> Option<[u8; 16]> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = StdFile::from(
        rustix::fs::open("/proc/sys/kernel/random/boot_id", flags, Mode::empty()).ok()?,
    );
    let mut text = [0; 36];
    file.read_exact_at(&mut text, 0).ok()?;
    let mut digits = text.iter().filter_map(|b| char::from(*b).to_digit(16));
    let mut id = [0; 16];
    for byte in &mut id {
        *byte = u8::try_from(digits.next()? * 16 + digits.next()?).ok()?;
    }
    Some(id)
}

#[cfg(target_os = "linux")]
fn allocate(file: &StdFile, position: u64, len: u64) -> rustix::io::Result<()> {
    retry_on_intr(|| {
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), position, len)
    })
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &StdFile, _position: u64, _len: u64) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

#[cfg(target_os = "linux")]
fn random(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = retry_on_intr(|| {
            rustix::rand::getrandom(&mut *buffer, rustix::rand::GetRandomFlags::empty())
        })?;
        buffer = &mut buffer[n..];
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn random(buffer: &mut [u8]) -> io::Result<()> {
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    StdFile::from(rustix::fs::open("/dev/urandom", flags, Mode::empty())?).read_exact(buffer)
}

fn file_bytes_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Whether the first `len` bytes have blocks, as far as the system tells.
pub(super) fn is_reserved(metadata: &Metadata, len: u64) -> bool {
    metadata.len() >= len && metadata.blocks().saturating_mul(512) >= len
}

#[cfg(test)]
mod tests;
