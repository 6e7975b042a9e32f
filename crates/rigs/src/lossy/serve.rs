//! The disk as a file system that the kernel mounts.
//!
//! The kernel may keep pages of an open file, as it does for any disk: that a sync failed is no reason for it to forget them.
//! It forgets all of them when the file system is mounted anew, which is what a power loss takes.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    Session, TimeOrNow, WriteFlags,
};

use super::disk::{BLOCK, Content, Directory, Disk, File, Refusal};
use crate::tools::{Outcome, failed};

/// The kernel asks again each time.
const AT_ONCE: Duration = Duration::ZERO;

/// A disk that more than one mount is made of, one after the other.
pub type Shared = Arc<Mutex<Disk>>;

struct Server(Shared);

/// Locks a disk.
pub fn locked(disk: &Shared) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts `disk`, until what is returned is dropped.
pub fn mount(disk: &Shared, at: &Path) -> Outcome<BackgroundSession> {
    Session::new(Server(Arc::clone(disk)), at, &Config::default())
        .and_then(Session::spawn)
        .map_err(failed("mounting by FUSE"))
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Errno {
        match refusal {
            Refusal::Io => Errno::EIO,
            Refusal::Full => Errno::ENOSPC,
            Refusal::NotThere => Errno::ENOENT,
            Refusal::There => Errno::EEXIST,
            Refusal::NotEmpty => Errno::ENOTEMPTY,
        }
    }
}

fn attributes(disk: &Disk, number: u64) -> Result<FileAttr, Refusal> {
    let node = disk.node(number)?;
    let (kind, nlink) = match node.content {
        Content::File(_) => (FileType::RegularFile, 1),
        Content::Directory(_) => (FileType::Directory, 2),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size: node.len(),
        blocks: node.len().div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.mode,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    })
}

fn name(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn answer(reply: ReplyEmpty, done: Result<(), Refusal>) {
    match done {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(refusal.into()),
    }
}

fn answer_entry(reply: ReplyEntry, found: Result<FileAttr, Refusal>) {
    match found {
        Ok(attributes) => reply.entry(&AT_ONCE, &attributes, Generation(0)),
        Err(refusal) => reply.error(refusal.into()),
    }
}

fn answer_attributes(reply: ReplyAttr, found: Result<FileAttr, Refusal>) {
    match found {
        Ok(attributes) => reply.attr(&AT_ONCE, &attributes),
        Err(refusal) => reply.error(refusal.into()),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, called: &OsStr, reply: ReplyEntry) {
        let disk = locked(&self.0);
        let found = disk.lookup(parent.0, &name(called));
        answer_entry(reply, found.and_then(|number| attributes(&disk, number)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(reply, attributes(&locked(&self.0), number.0));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = locked(&self.0);
        let done = size
            .map_or(Ok(()), |len| disk.set_len(number.0, len))
            .and_then(|()| mode.map_or(Ok(()), |mode| disk.set_mode(number.0, bits(mode))));
        answer_attributes(reply, done.and_then(|()| attributes(&disk, number.0)));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        called: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mut disk = locked(&self.0);
        let content = Content::Directory(Directory::default());
        let made = disk.make(parent.0, &name(called), bits(mode & !umask), content);
        answer_entry(reply, made.and_then(|number| attributes(&disk, number)));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        called: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = locked(&self.0);
        let content = Content::File(File::default());
        let made = disk.make(parent.0, &name(called), bits(mode & !umask), content);
        match made.and_then(|number| attributes(&disk, number)) {
            Ok(attributes) => reply.created(
                &AT_ONCE,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, called: &OsStr, reply: ReplyEmpty) {
        answer(reply, locked(&self.0).remove(parent.0, &name(called)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, called: &OsStr, reply: ReplyEmpty) {
        answer(reply, locked(&self.0).remove(parent.0, &name(called)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        called: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (name(called), name(new_name));
        answer(reply, locked(&self.0).rename((parent.0, &from), (new_parent.0, &to)));
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match locked(&self.0).node(number.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        position: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match locked(&self.0).read(number.0, position, len) {
            Ok(bytes) => reply.data(bytes),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        position: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match locked(&self.0).write(number.0, position, bytes) {
            Ok(len) => reply.written(len as u32),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, locked(&self.0).sync(number.0));
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, locked(&self.0).sync(number.0));
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        position: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode == 0 {
            answer(reply, locked(&self.0).reserve(number.0, position..position + len));
        } else {
            reply.error(Errno::EOPNOTSUPP);
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        let disk = locked(&self.0);
        let names = match disk.names(number.0) {
            Ok(names) => names,
            Err(refusal) => return reply.error(refusal.into()),
        };
        for (at, (called, number)) in (1..).zip(names).skip(after as usize) {
            let kind = match disk.node(*number).map(|node| &node.content) {
                Ok(Content::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(*number), at, kind, called) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (used, most) = locked(&self.0).space();
        let free = most.saturating_sub(used);
        reply.statfs(most, free, free, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }
}

/// The permissions in a mode.
const fn bits(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}
