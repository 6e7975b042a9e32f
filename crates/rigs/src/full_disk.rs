//! A full disk: on small file systems, filled up to fifty levels while a log and a queue are open.
//!
//! Everything acknowledged stays readable, the refusal has its type, the queue is drained while nothing is free, and both
//! take more once there is space, without being opened again. A store to a mapping that the disk has no block for would
//! kill this process, so that it is still there at the end says that there was none.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logmill::Message;
use logmill::queue::{Queue, QueueConfig, Queues, QueuesOptions, ReceiveOptions};
use logmill::storage::{Durability, Error, Log, LogConfig, Record};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::tools::{FileSystem, Mounted, Outcome, call, failed, text};
use crate::workload::{self, payload};

/// Free bytes rise by so many from one level to the next.
const LEVEL_BYTES: u64 = 24 << 10;
/// Refusals before the disk counts as full.
const REFUSALS: usize = 5;

/// Fill real file systems up while a store is open
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many levels on tmpfs and ext4; a fifth as many on XFS, btrfs and overlay
    #[arg(long, default_value_t = 50)]
    levels: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
    Overlay,
}

/// What one level came to.
#[derive(Default)]
struct Counts {
    appended: u64,
    refused: u64,
    deleted: u64,
    /// Levels at which a deletion found no space.
    undrained: u64,
}

/// Runs the rig.
pub fn run(arguments: &Arguments) -> Outcome {
    let home = workload::home()?;
    println!(
        "{:<10}{:>8}{:>14}{:>10}{:>10}{:>18}",
        "on", "levels", "acknowledged", "refused", "deleted", "drained too late"
    );
    for place in [Place::Tmpfs, Place::Ext4, Place::Xfs, Place::Btrfs, Place::Overlay] {
        let levels = match place {
            Place::Tmpfs | Place::Ext4 => arguments.levels,
            _ => arguments.levels.div_ceil(5),
        };
        let mut total = Counts::default();
        for level in 0..levels {
            let counts = in_place(place, home.path(), level)
                .map_err(|what| format!("{place:?}, level {level}: {what}"))?;
            total.appended += counts.appended;
            total.refused += counts.refused;
            total.deleted += counts.deleted;
            total.undrained += counts.undrained;
        }
        println!(
            "{:<10}{levels:>8}{:>14}{:>10}{:>10}{:>18}",
            format!("{place:?}").to_lowercase(),
            total.appended,
            total.refused,
            total.deleted,
            total.undrained
        );
        if total.refused < levels || total.deleted < levels {
            return Err("the disk was not full at every level, or nothing was drained".to_owned());
        }
    }
    limits(&home.path().join("limited"))?;
    println!(
        "a limit of file size and one of descriptors: refused, and gone on when they were raised"
    );
    Ok(())
}

fn in_place(place: Place, home: &Path, level: u64) -> Outcome<Counts> {
    let at = home.join("mounted");
    fs::create_dir_all(&at).map_err(failed("a mount point"))?;
    let image = home.join("disk");
    let mut below = None;
    let mounted = match place {
        Place::Tmpfs => Mounted::tmpfs(&at)?,
        Place::Ext4 | Place::Xfs | Place::Btrfs => {
            let file_system = match place {
                Place::Ext4 => FileSystem::Ext4,
                Place::Xfs => FileSystem::Xfs,
                _ => FileSystem::Btrfs,
            };
            file_system.make(&image)?;
            Mounted::mount(file_system, &image, &at)?
        }
        Place::Overlay => {
            let lower = home.join("below");
            fs::create_dir_all(&lower).map_err(failed("a mount point"))?;
            below = Some(Mounted::tmpfs(&lower)?);
            Mounted::overlay(&lower, &at)?
        }
    };
    let counts = at_level(place, &at, level)?;
    mounted.unmount()?;
    below.map_or(Ok(()), Mounted::unmount)?;
    Ok(counts)
}

fn open_log(store: &Path, level: u64) -> logmill::storage::Result<Log> {
    // Synced and not, in turn; what is not synced is stored through mappings where that is safe.
    let durability = if level.is_multiple_of(2) { Durability::Buffered } else { Durability::Sync };
    let config = LogConfig::default().segment_bytes_max(256 << 10).durability(durability);
    Log::open(&workload::dir(&store.join("log"))?, "1", config)
}

fn open_queues(store: &Path) -> logmill::queue::Result<Queues> {
    let options = QueuesOptions::default().segment_bytes_max(256 << 10);
    Queues::open(&workload::dir(&store.join("queue"))?, options)
}

fn at_level(place: Place, at: &Path, level: u64) -> Outcome<Counts> {
    let store = at.join("store");
    let log = open_log(&store, level).map_err(failed("open"))?;
    let queues = open_queues(&store).map_err(failed("open"))?;
    let queue = queues.create("q", &QueueConfig::standard()).map_err(failed("create"))?;
    let mut counts = Counts::default();
    for id in 0..20 {
        log.append(&Record::value(&payload(id))).map_err(failed("append"))?;
        queue.send(&Message::new(&payload(id))).map_err(failed("send"))?;
    }
    // Stores that a sync has passed behave otherwise than those before the first one.
    if level.is_multiple_of(4) {
        log.sync().map_err(failed("sync"))?;
    }
    if place == Place::Xfs {
        // A clone shares its blocks, so that the next store needs new ones.
        let segment = store.join("log/1").join(format!("{:020}.log", 0));
        call("cp", &["--reflink=always", text(&segment), text(&at.join("clone"))])?;
    }
    let filler = fill(at, level * LEVEL_BYTES)?;

    let mut refusals = 0;
    let mut end = 20;
    while refusals < REFUSALS {
        match log.append(&Record::value(&payload(end))) {
            Ok(offset) if offset == end => end += 1,
            Err(Error::DiskFull { .. }) => refusals += 1,
            other => return Err(format!("append {end} on a full disk: {other:?}")),
        }
    }
    let mut sent = 20;
    while refusals < 2 * REFUSALS {
        match queue.send(&Message::new(&payload(sent))) {
            Ok(_) => sent += 1,
            Err(logmill::queue::Error::Storage(Error::DiskFull { .. })) => refusals += 1,
            other => return Err(format!("send {sent} on a full disk: {other:?}")),
        }
    }
    counts.appended += end + sent;
    counts.refused += refusals as u64;
    read(&log, end)?;
    let drained = drain(&queue, &mut counts.deleted);
    // btrfs needs a new block for each change, and a file of zeros is no reserve there.
    let is_refused = matches!(&drained, Err(Drain::Full(_)));
    if let Err(e) = drained
        && !(is_refused && place == Place::Btrfs)
    {
        return Err(format!("draining a full disk: {e}"));
    }
    counts.undrained += u64::from(is_refused);
    fs::remove_file(filler).map_err(failed("removing the filler"))?;
    if is_refused {
        drain(&queue, &mut counts.deleted).map_err(failed("draining"))?;
    }
    if counts.deleted != sent {
        return Err(format!("{sent} messages were sent, {} drained", counts.deleted));
    }

    for _ in 0..20 {
        log.append(&Record::value(&payload(end))).map_err(failed("append when space is back"))?;
        end += 1;
    }
    queue.send(&Message::new(b"again")).map_err(failed("send when space is back"))?;
    log.sync().map_err(failed("sync when space is back"))?;
    read(&log, end)?;
    if level.is_multiple_of(3) {
        queues.clone().close().map_err(failed("close"))?;
        log.clone().close().map_err(failed("close"))?;
    }
    drop((log, queue, queues));

    let log = open_log(&store, level).map_err(failed("open again"))?;
    read(&log, end)?;
    let queues = open_queues(&store).map_err(failed("open again"))?;
    let queue = queues.queue("q").map_err(failed("queue"))?;
    let left = queue.counts().map_err(failed("counts"))?;
    if left.ready != 1 || left.in_flight != 0 {
        return Err(format!("one message should be left: {left:?}"));
    }
    Ok(counts)
}

enum Drain {
    /// There was no space for a deletion.
    Full(Error),
    Wrong(String),
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drain::Full(e) => e.fmt(f),
            Drain::Wrong(what) => what.fmt(f),
        }
    }
}

/// Receives and deletes everything, and counts it.
fn drain(queue: &Queue, deleted: &mut u64) -> Result<(), Drain> {
    let options = ReceiveOptions::new().max(100).visibility_timeout(Duration::ZERO);
    let other = |e: logmill::queue::Error| match e {
        logmill::queue::Error::Storage(e @ Error::DiskFull { .. }) => Drain::Full(e),
        e => Drain::Wrong(e.to_string()),
    };
    loop {
        let messages = queue.receive(&options).map_err(other)?;
        if messages.is_empty() {
            return Ok(());
        }
        for message in messages {
            if message.body() != payload(*deleted) {
                return Err(Drain::Wrong(format!("message {deleted} is another")));
            }
            queue.delete(message.receipt()).map_err(other)?;
            *deleted += 1;
        }
    }
}

/// The log holds the records up to `end`, in order.
fn read(log: &Log, end: u64) -> Outcome {
    let next = workload::read(log)?;
    if next == end { Ok(()) } else { Err(format!("{end} records acknowledged, {next} there")) }
}

/// Writes a file that leaves about `free` bytes.
fn fill(at: &Path, free: u64) -> Outcome<PathBuf> {
    let path = at.join("filler");
    let mut file = File::create(&path).map_err(failed("creating the filler"))?;
    let block = [0x5a; 4096];
    loop {
        let room = rustix::fs::statvfs(at).map_err(failed("statvfs"))?;
        let blocks = (room.f_bavail * room.f_frsize).saturating_sub(free) / 4096;
        let mut full = blocks == 0;
        for _ in 0..blocks {
            full |= file.write_all(&block).is_err();
            if full {
                break;
            }
        }
        // Where allocation is delayed, it is known only now what there is.
        full |= file.sync_all().is_err();
        if full {
            return Ok(path);
        }
    }
}

/// The process's own limits.
fn limits(store: &Path) -> Outcome {
    let with = |resource, soft: u64, work: &mut dyn FnMut() -> Outcome| {
        let before = getrlimit(resource);
        let limited = Rlimit { current: Some(soft), ..before };
        setrlimit(resource, limited).map_err(failed("setting a limit"))?;
        let done = work();
        setrlimit(resource, before).map_err(failed("raising a limit"))?;
        done
    };
    let log = open_log(store, 1).map_err(failed("open"))?;
    let mut end = 0;
    // The log must see the limit before the kernel does, which would send a deadly signal.
    with(Resource::Fsize, 96 << 10, &mut || loop {
        match log.append(&Record::value(&payload(end))) {
            Ok(_) => end += 1,
            Err(Error::DiskFull { .. }) => return Ok(()),
            Err(e) => return Err(format!("append under a limit of file size: {e}")),
        }
    })?;
    read(&log, end)?;
    let append = |end: &mut u64| -> Outcome {
        for _ in 0..400 {
            log.append(&Record::value(&payload(*end))).map_err(failed("append, limit raised"))?;
            *end += 1;
        }
        Ok(())
    };
    append(&mut end)?;
    let open = fs::read_dir("/proc/self/fd").map_err(failed("descriptors"))?.count() as u64;
    let mut refused = false;
    with(Resource::Nofile, open - 1, &mut || {
        for _ in 0..1000 {
            match log.append(&Record::value(&payload(end))) {
                Ok(_) => end += 1,
                Err(Error::Io { .. }) => {
                    refused = true;
                    return Ok(());
                }
                Err(e) => return Err(format!("append without descriptors: {e}")),
            }
        }
        Ok(())
    })?;
    if !refused {
        return Err("no descriptor was ever missing".to_owned());
    }
    append(&mut end)?;
    read(&log, end)?;
    log.close().map_err(failed("close"))
}
