//! What may go wrong at which call, and the count of calls that says when.

use std::fmt;
use std::io;

use rustix::io::Errno;

use super::random::Random;

/// One counted call of [`Io`](crate::io::Io), [`File`](crate::io::File) or [`Region`](crate::io::Region).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Op {
    /// `Io::open` of an existing file.
    Open,
    /// `Io::open` of a new file.
    Create,
    /// `Io::create_dir`.
    CreateDir,
    /// `Io::list`.
    List,
    /// `Io::rename`.
    Rename,
    /// `Io::unlink`.
    Unlink,
    /// `Io::remove_dir`.
    RemoveDir,
    /// `Io::sync_dir`.
    SyncDir,
    /// `Io::lock`.
    Lock,
    /// `Io::free_space`.
    FreeSpace,
    /// `File::read_at`.
    Read,
    /// `File::write_at`.
    Write,
    /// `File::len`.
    Len,
    /// `File::set_len`.
    SetLen,
    /// `File::reserve`.
    Reserve,
    /// `File::sync_data`.
    Sync,
    /// `File::drop_cache`.
    DropCache,
    /// `File::map`.
    Map,
    /// `Region::store`.
    Store,
}

const OPS: usize = Op::Store as usize + 1;

impl Op {
    /// Whether such a call can change what a crash leaves.
    pub fn changes(self) -> bool {
        use Op::{
            Create, CreateDir, RemoveDir, Rename, Reserve, SetLen, Store, Sync, SyncDir, Unlink,
            Write,
        };
        matches!(
            self,
            Create
                | CreateDir
                | Rename
                | Unlink
                | RemoveDir
                | SyncDir
                | Write
                | SetLen
                | Reserve
                | Sync
                | Store
        )
    }
}

/// How many calls there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ops {
    counts: [u64; OPS],
    total: u64,
    pub(super) bytes_read: u64,
}

impl Ops {
    /// Calls of one kind.
    pub fn of(&self, op: Op) -> u64 {
        self.counts[op as usize]
    }

    /// All counted calls: the index of the next one.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The bytes that all reads together gave.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

/// A way for a call to fail. Each happens only at calls where a real disk can do it: see [`Fault::can_hit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// EIO at any call but a store. A write may have put a part of its bytes, a change of names may have happened;
    /// a sync does one of what the `Sync*` faults do, as the seed has it.
    Eio,
    /// ENOSPC where something is to be written or made. Nothing was.
    Enospc,
    /// EDQUOT: as [`Fault::Enospc`].
    Edquot,
    /// EINTR at a read or a write.
    Eintr,
    /// A write of at least two bytes puts some of them, not all, and says so.
    ShortWrite,
    /// A read that could return at least two bytes returns fewer.
    ShortRead,
    /// EMFILE where a descriptor is needed.
    Emfile,
    /// A sync says EIO; nothing reached the platter, the cache still shows all and counts it as clean: the next sync is Ok
    /// and keeps nothing of it (ext4, XFS).
    SyncEioKeep,
    /// As [`Fault::SyncEioKeep`], but some pages did reach the platter.
    SyncEioSome,
    /// A sync says EIO and the cache goes back to what the platter has (btrfs).
    SyncEioRevert,
    /// A sync says EIO, some pages reached the platter, the others are gone from the cache too.
    SyncEioDrop,
    /// A sync says EIO, though everything is durable.
    SyncFalseFailure,
}

impl Fault {
    /// Whether this can happen at a call of kind `op` that moves `len` bytes.
    pub fn can_hit(self, op: Op, len: usize) -> bool {
        use Op::{
            Create, CreateDir, List, Lock, Open, Read, RemoveDir, Rename, Reserve, Store, Sync,
            SyncDir, Unlink, Write,
        };
        match self {
            Fault::Eio => op != Store,
            Fault::Enospc | Fault::Edquot => {
                matches!(op, Create | CreateDir | Rename | Reserve | Write)
            }
            Fault::Eintr => matches!(op, Read | Write),
            Fault::ShortWrite => op == Write && len > 1,
            Fault::ShortRead => op == Read && len > 1,
            Fault::Emfile => {
                matches!(
                    op,
                    Open | Create | CreateDir | List | Rename | Unlink | RemoveDir | SyncDir | Lock
                )
            }
            Fault::SyncEioKeep
            | Fault::SyncEioSome
            | Fault::SyncEioRevert
            | Fault::SyncEioDrop
            | Fault::SyncFalseFailure => matches!(op, Sync | SyncDir),
        }
    }

    /// What the caller gets to see.
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Enospc => Errno::NOSPC,
            Fault::Edquot => Errno::DQUOT,
            Fault::Eintr => Errno::INTR,
            Fault::Emfile => Errno::MFILE,
            _ => Errno::IO,
        }
        .into()
    }

    /// One of the ways for a sync to fail, where only "EIO" was asked for.
    pub(super) fn of_sync(self, random: &mut Random) -> Fault {
        use Fault::{SyncEioDrop, SyncEioKeep, SyncEioRevert, SyncEioSome, SyncFalseFailure};
        const WAYS: [Fault; 5] =
            [SyncEioKeep, SyncEioSome, SyncEioRevert, SyncEioDrop, SyncFalseFailure];
        if self == Fault::Eio { WAYS[random.below(WAYS.len())] } else { self }
    }
}

/// What is to happen at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The call does its work.
    Go,
    /// The call fails so.
    Fail(Fault),
    /// The process dies in the middle of the call.
    Cut,
}

#[derive(Clone, Debug)]
struct Armed {
    from: u64,
    op: Option<Op>,
    once: bool,
    spent: bool,
    fault: Fault,
}

/// Counts calls and says what happens at each.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) ops: Ops,
    /// The indexes of calls that could change what a crash leaves.
    pub(super) changes: Vec<u64>,
    pub(super) fired: u64,
    pub(super) trace: Option<Vec<String>>,
    armed: Vec<Armed>,
    stop: Option<(u64, Step)>,
    stopped: bool,
}

impl Control {
    pub(super) fn arm(&mut self, from: u64, op: Option<Op>, once: bool, fault: Fault) {
        self.armed.push(Armed { from, op, once, spent: false, fault });
    }

    /// The process dies before the call `at`, or inside it.
    pub(super) fn stop(&mut self, at: u64, inside: bool) {
        self.stop = Some((at, if inside { Step::Cut } else { Step::Go }));
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// A new process: no fault is armed and nothing is cut.
    pub(super) fn disarm(&mut self) {
        self.armed.clear();
        self.stop = None;
        self.stopped = false;
    }

    /// Counts a call; `None` means that the process is dead.
    pub(super) fn step(
        &mut self,
        op: Op,
        len: usize,
        describe: impl FnOnce() -> String,
    ) -> Option<Step> {
        if self.stopped {
            return None;
        }
        let index = self.ops.total;
        let mut step = Step::Go;
        if let Some((at, how)) = self.stop
            && index >= at
        {
            self.stopped = true;
            if how == Step::Go {
                return None;
            }
            step = Step::Cut;
        }
        self.ops.total += 1;
        self.ops.counts[op as usize] += 1;
        if op.changes() {
            self.changes.push(index);
        }
        if step == Step::Go {
            let hits = |a: &&mut Armed| {
                !a.spent
                    && index >= a.from
                    && a.op.is_none_or(|o| o == op)
                    && a.fault.can_hit(op, len)
            };
            if let Some(armed) = self.armed.iter_mut().find(hits) {
                armed.spent = armed.once;
                self.fired += 1;
                step = Step::Fail(armed.fault);
            }
        }
        if let Some(trace) = &mut self.trace
            && !matches!(op, Op::Read | Op::Len | Op::FreeSpace)
        {
            let mut line = describe();
            match step {
                Step::Go => {}
                Step::Fail(fault) => line.push_str(&format!(" ({fault})")),
                Step::Cut => line.push_str(" (cut)"),
            }
            trace.push(line);
        }
        Some(step)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Eio => "EIO",
            Fault::Enospc => "ENOSPC",
            Fault::Edquot => "EDQUOT",
            Fault::Eintr => "EINTR",
            Fault::ShortWrite => "short write",
            Fault::ShortRead => "short read",
            Fault::Emfile => "EMFILE",
            Fault::SyncEioKeep => "EIO, kept in the cache only",
            Fault::SyncEioSome => "EIO, some of it durable",
            Fault::SyncEioRevert => "EIO, reverted",
            Fault::SyncEioDrop => "EIO, dropped",
            Fault::SyncFalseFailure => "EIO, yet durable",
        })
    }
}
