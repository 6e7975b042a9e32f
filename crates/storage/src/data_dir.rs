//! A store directory: the lock of its one writer, its clock, its background work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use crate::activity::{Activity, Counters};
use crate::clock::{Clock, SystemClock};
use crate::committer::Committer;
use crate::error::{Corruption, Error, Result};
use crate::health::{Health, Problems};
use crate::io::{Disk, Io, Kind, Lock, LockKind, Open, read_full, write_full};
use crate::manifest;
use crate::recovery::{LogRecovery, RecoveryReport};
use crate::schedule::{Schedule, Task};
use crate::sync::{Condvar, Mutex};
use crate::writer::Writer;

const LOCK: &str = "LOCK";
const ALIVE: &str = "ALIVE";
/// How often a process that waits for the lock looks again; the system has no timed wait for it.
const LOCK_RETRY: Duration = Duration::from_millis(5);
/// How long a writer waits at least for readers to let go of [`ALIVE`], which takes them microseconds.
const READERS_LEAVE: Duration = Duration::from_secs(1);

/// How to open a [`DataDir`].
#[derive(Clone, Debug)]
pub struct DataDirOptions {
    read_only: bool,
    lock_wait: Duration,
    threads: usize,
    clock: Arc<dyn Clock>,
}

impl Default for DataDirOptions {
    fn default() -> Self {
        DataDirOptions {
            read_only: false,
            lock_wait: Duration::ZERO,
            threads: 2,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl DataDirOptions {
    /// The defaults: for writing, no wait for the lock, two background threads, the system's clock.
    pub fn new() -> DataDirOptions {
        DataDirOptions::default()
    }

    /// Opens for reading only: works beside a live writer in any process, takes no lock, never writes a byte.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How long to wait for another writer to go. Default: not at all.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// How many threads do background work at most; they start when there is some. Default 2. With 0 it is done by
    /// [`DataDir::tick`] and [`Log::close`](crate::Log::close) alone.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Where time comes from. Default: the system.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the directory `path`, making it (with mode 0700) unless it is opened for reading.
    ///
    /// # Errors
    /// [`Error::Locked`] if another writer has it; [`Error::Io`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<DataDir> {
        let path = path.as_ref();
        let disk = Disk::open(path, !self.read_only).map_err(|e| Error::io("open", path, e))?;
        self.open_at(path.to_owned(), Arc::new(disk))
    }

    /// Opens a directory of another implementation of [`Io`], such as the simulated disk.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(self, io: Arc<dyn Io>) -> Result<DataDir> {
        self.open_at(PathBuf::new(), io)
    }

    fn open_at(self, path: PathBuf, io: Arc<dyn Io>) -> Result<DataDir> {
        let locks = if self.read_only {
            None
        } else {
            Some(take_locks(io.as_ref(), &path, self.lock_wait)?)
        };
        let inner = Arc::new(Inner {
            path,
            io,
            schedule: Schedule::new(Arc::clone(&self.clock), self.threads),
            committer: (self.threads > 0).then(Committer::default),
            counters: Arc::default(),
            problems: Problems::default(),
            recovered: Mutex::default(),
            clock: self.clock,
            read_only: self.read_only,
            locks: Mutex::new(locks),
            logs: Mutex::default(),
            log_freed: Condvar::new(),
            durable_names: Mutex::default(),
        });
        let in_use = InUse { inner: Arc::clone(&inner) };
        Ok(DataDir { inner, _in_use: Some(Arc::new(in_use)) })
    }
}

fn take_locks(io: &dyn Io, path: &Path, wait: Duration) -> Result<[Box<dyn Lock>; 2]> {
    let Some(lock) = take_lock(io, path, LOCK, wait)? else {
        return Err(Error::Locked { path: path.to_owned(), pid: owner(io) });
    };
    // The pid is for messages only, so a disk that is too full to note it does not stop us.
    if let Ok(file) = io.open(Path::new(LOCK), Open::Write) {
        let _ = file
            .set_len(0)
            .and_then(|()| write_full(file.as_ref(), std::process::id().to_string().as_bytes(), 0));
    }
    // Readers take this second lock for an instant to learn whether a writer lives; they never delay the first. One that
    // was stopped in that instant still has it.
    let Some(alive) = take_lock(io, path, ALIVE, wait.max(READERS_LEAVE))? else {
        return Err(Error::Locked { path: path.join(ALIVE), pid: None });
    };
    Ok([lock, alive])
}

/// Takes the exclusive lock on `name`; `None` if somebody else still has it after `wait`.
fn take_lock(
    io: &dyn Io,
    path: &Path,
    name: &str,
    wait: Duration,
) -> Result<Option<Box<dyn Lock>>> {
    let mut waited = Duration::ZERO;
    loop {
        let lock = io
            .lock(Path::new(name), LockKind::Exclusive)
            .map_err(|e| Error::open_as("lock", path.join(name), e))?;
        if lock.is_some() || waited >= wait {
            return Ok(lock);
        }
        let step = LOCK_RETRY.min(wait - waited);
        Condvar::new().wait_for(&mut Mutex::new(()).lock(), step);
        waited += step;
    }
}

fn owner(io: &dyn Io) -> Option<u32> {
    let file = io.open(Path::new(LOCK), Open::Read).ok()?;
    let mut digits = [0; 16];
    let len = read_full(file.as_ref(), &mut digits, 0).ok()?;
    std::str::from_utf8(&digits[..len]).ok()?.trim().parse().ok()
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    io: Arc<dyn Io>,
    schedule: Schedule,
    /// `None` without threads.
    committer: Option<Committer>,
    counters: Arc<Counters>,
    problems: Problems,
    /// What opening the logs has found, by name.
    recovered: Mutex<BTreeMap<String, RecoveryReport>>,
    clock: Arc<dyn Clock>,
    read_only: bool,
    /// Given back when nobody writes in the directory any more.
    locks: Mutex<Option<[Box<dyn Lock>; 2]>>,
    logs: Mutex<Logs>,
    log_freed: Condvar,
    /// Directories that hold logs and whose own names are durable: looking at them once is enough, however many logs they hold.
    durable_names: Mutex<BTreeSet<PathBuf>>,
}

#[derive(Debug, Default)]
struct Logs {
    open: BTreeMap<PathBuf, Use>,
    /// No more are opened; with the last of them the locks go.
    is_closed: bool,
}

/// How a log's files are in use by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Somebody has the log open.
    Open,
    /// It was dropped while background work was at it, which is being finished.
    Draining,
}

/// The right to write a log's files; one at a time.
#[derive(Debug)]
pub(crate) struct Claimed {
    dir: DataDir,
    log: PathBuf,
}

impl Claimed {
    /// The user is done with the log, background work may not be.
    pub fn drain(&self) {
        if let Some(used) = self.dir.inner.logs.lock().open.get_mut(&self.log) {
            *used = Use::Draining;
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut logs = self.dir.inner.logs.lock();
        logs.open.remove(&self.log);
        self.dir.inner.unlock_if_done(&logs);
        drop(logs);
        self.dir.inner.log_freed.notify_all();
    }
}

/// An open store directory. Clones share it; the lock goes with [`close`](DataDir::close), or else with the last of them, of
/// the logs in it, and of their readers and tickets.
#[derive(Clone, Debug)]
pub struct DataDir {
    inner: Arc<Inner>,
    /// `None` in what background work itself holds.
    _in_use: Option<Arc<InUse>>,
}

/// Goes with the last handle that a user has, and waits for background work: when a store has been dropped, it can be
/// opened again at once.
#[derive(Debug)]
struct InUse {
    inner: Arc<Inner>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Inner {
    fn stop(&self) {
        self.schedule.stop();
        if let Some(committer) = &self.committer {
            committer.stop();
        }
    }

    fn unlock_if_done(&self, logs: &Logs) {
        if logs.is_closed && logs.open.is_empty() {
            drop(self.locks.lock().take());
        }
    }
}

impl DataDir {
    /// Opens `path` for writing with the defaults.
    ///
    /// # Errors
    /// As [`DataDirOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<DataDir> {
        DataDirOptions::new().open(path)
    }

    /// A handle that does not keep background work going.
    pub(crate) fn unused(&self) -> DataDir {
        DataDir { inner: Arc::clone(&self.inner), _in_use: None }
    }

    /// Takes the right to write `log`, waiting for background work on an earlier handle to finish.
    pub(crate) fn claim(&self, log: &Path) -> Result<Claimed> {
        let mut logs = self.inner.logs.lock();
        loop {
            match logs.open.get(log) {
                _ if logs.is_closed => {
                    return Err(Error::Closed { path: self.inner.path.clone() });
                }
                None => break,
                Some(Use::Draining) => self.inner.log_freed.wait(&mut logs),
                Some(Use::Open) => {
                    let pid = Some(std::process::id());
                    return Err(Error::Locked { path: self.inner.path.join(log), pid });
                }
            }
        }
        logs.open.insert(log.to_owned(), Use::Open);
        Ok(Claimed { dir: self.unused(), log: log.to_owned() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Its files.
    pub fn io(&self) -> &Arc<dyn Io> {
        &self.inner.io
    }

    /// Runs `task` in the background, `delay` from now, unless it is gone by then.
    pub fn after(&self, delay: Duration, task: Weak<dyn Task>) {
        self.inner.schedule.after(delay, task);
    }

    /// Runs `task` in the background after `interval`, again and again, until it is gone.
    pub fn every(&self, interval: Duration, task: Weak<dyn Task>) {
        self.inner.schedule.every(interval, task);
    }

    /// Does the background work that is due, on this thread: for directories opened without threads.
    pub fn tick(&self) {
        self.inner.schedule.run_due();
    }

    /// Ends background work: what has begun is finished, the rest is left to the closing of each log.
    pub fn stop_background(&self) {
        self.inner.stop();
    }

    /// Ends background work and lets go of the directory, for all its clones: no more logs can be opened through them, and
    /// as soon as each that was opened for writing has been closed or dropped, another writer can have it, whatever readers
    /// are left.
    pub fn close(&self) {
        self.inner.stop();
        let mut logs = self.inner.logs.lock();
        logs.is_closed = true;
        self.inner.unlock_if_done(&logs);
    }

    /// What its logs have done since it was opened.
    ///
    /// # Cost
    /// Some hundred loads; the writing threads notice nothing.
    pub fn activity(&self) -> Activity {
        self.inner.counters.load()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.inner.counters
    }

    /// What background work could not do at its last try, and which logs cannot be written to any more.
    pub fn health(&self) -> Health {
        self.inner.problems.load()
    }

    /// What opening its logs has found since it was opened, by log: of those that had not been closed, and where it is open
    /// for reading only, of those behind whose end something lies. A store's partitions are opened when they are used.
    ///
    /// Where [`quarantined`](RecoveryReport::quarantined) names files, bytes were set aside that may have been acknowledged.
    pub fn recovery(&self) -> Vec<LogRecovery> {
        let recovered = self.inner.recovered.lock();
        let all = recovered.iter();
        all.map(|(log, report)| LogRecovery { log: log.clone(), report: report.clone() }).collect()
    }

    pub(crate) fn note_recovery(&self, log: &str, report: &RecoveryReport) {
        let mut recovered = self.inner.recovered.lock();
        let mut report = report.clone();
        if let Some(earlier) = recovered.remove(log) {
            // What was set aside stays where it is, however often the log is opened after.
            report.dropped_bytes += earlier.dropped_bytes;
            report.quarantined.splice(0..0, earlier.quarantined);
        }
        recovered.insert(log.to_owned(), report);
    }

    /// Takes in how background work on `part` ended: a failure is in [`health`](Self::health) until the next success.
    pub fn note<E: std::fmt::Display>(&self, part: &str, outcome: &std::result::Result<(), E>) {
        let failed = outcome.as_ref().err().map(|error| error as &dyn std::fmt::Display);
        self.inner.problems.note(self.inner.clock.as_ref(), part, failed);
    }

    /// Has the commit thread sync `writer`; gives it back if there is none.
    pub(crate) fn commit_soon(&self, writer: Arc<Writer>) -> std::result::Result<(), Arc<Writer>> {
        match &self.inner.committer {
            Some(committer) => committer.request(writer),
            None => Err(writer),
        }
    }

    /// Whether a writer, in this process or another, has the directory open now.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn writer_is_alive(&self) -> Result<bool> {
        if !self.inner.read_only {
            return Ok(true);
        }
        match self.inner.io.lock(Path::new(ALIVE), LockKind::Shared) {
            Ok(lock) => Ok(lock.is_none()),
            // A reader makes no files: without the file there has been no writer, or it may not even be looked at.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::open_as("lock", self.inner.path.join(ALIVE), e)),
        }
    }

    /// The names of the logs in the directory, such as `0` or `7/3`, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn logs(&self) -> Result<Vec<String>> {
        let mut logs = Vec::new();
        for outer in self.numeric("")? {
            if self.has_manifest(&outer)? {
                logs.push(outer.clone());
            }
            for inner in self.numeric(&outer)? {
                let name = format!("{outer}/{inner}");
                if self.has_manifest(&name)? {
                    logs.push(name);
                }
            }
        }
        Ok(logs)
    }

    /// Removes a log and all its records. It must not be open. What the last sync of the directory had stays until
    /// the removal is complete, so a crash half-way is finished by calling this again.
    ///
    /// # Errors
    /// [`Error::Locked`] if it is open; [`Error::Io`]; [`Error::ReadOnly`].
    pub fn remove_log(&self, name: &str) -> Result<()> {
        if self.inner.read_only {
            return Err(Error::ReadOnly { path: self.inner.path.join(name) });
        }
        let (dir, io) = (Path::new(name), &self.inner.io);
        let _claimed = self.claim(dir)?;
        let failed = |e| Error::io("remove", self.inner.path.join(dir), e);
        // The manifest goes first and durably: from then on the directory is no log.
        for manifest_only in [true, false] {
            for entry in io.list(dir).map_err(failed)? {
                match entry.kind {
                    Kind::Directory if manifest_only => {}
                    Kind::Directory => {
                        let inner = dir.join(&entry.name);
                        for file in io.list(&inner).map_err(failed)? {
                            io.unlink(&inner.join(&file.name)).map_err(failed)?;
                        }
                        io.remove_dir(&inner).map_err(failed)?;
                    }
                    Kind::File | Kind::Other if !manifest_only || entry.name == "manifest" => {
                        io.unlink(&dir.join(&entry.name)).map_err(failed)?;
                    }
                    Kind::File | Kind::Other => {}
                }
            }
            io.sync_dir(dir).map_err(failed)?;
        }
        self.inner.durable_names.lock().retain(|name| !name.starts_with(dir));
        self.inner.recovered.lock().remove(name);
        io.remove_dir(dir).map_err(failed)?;
        io.sync_dir(dir.parent().unwrap_or(Path::new(""))).map_err(failed)
    }

    pub(crate) fn durable_names(&self) -> &Mutex<BTreeSet<PathBuf>> {
        &self.inner.durable_names
    }

    fn numeric(&self, dir: &str) -> Result<Vec<String>> {
        let listed = self
            .inner
            .io
            .list(Path::new(dir))
            .map_err(|e| Error::io("list", self.inner.path.join(dir), e))?;
        let mut names: Vec<(u64, String)> = listed
            .into_iter()
            .filter(|entry| entry.kind == Kind::Directory)
            .filter_map(|entry| numeric_name(&entry.name).map(|number| (number, entry.name)))
            .collect();
        names.sort_unstable();
        Ok(names.into_iter().map(|(_, name)| name).collect())
    }

    /// Whether there is a log of this name, without looking at what it holds.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::Io`].
    pub fn has_log(&self, name: &str) -> Result<bool> {
        self.has_file(&Path::new(name).join(manifest::NAME))
    }

    /// What to say of a log that was made once and is not there: its directory is gone, or only the manifest in it.
    pub fn lost_log(&self, name: &str) -> Error {
        let path = self.inner.path.join(name);
        let (path, what) = match self.inner.io.list(Path::new(name)) {
            Ok(_) => (path.join(manifest::NAME), Corruption::LostManifest),
            Err(_) => (path, Corruption::LostLog),
        };
        Error::Corrupt { path, position: 0, offset: 0, what }
    }

    /// The id that the log of this name was given when it was made, which no other log has; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: its manifest is damaged. [`Error::NotAFile`], [`Error::Io`].
    pub fn log_id(&self, name: &str) -> Result<Option<[u8; 16]>> {
        let io = self.inner.io.as_ref();
        let loaded = manifest::load(io, Path::new(name), &self.inner.path, Open::Read)?;
        Ok(loaded.map(|(manifest, _)| manifest.log_id))
    }

    /// Refuses a directory that holds a backup.
    ///
    /// # Errors
    /// [`Error::IsBackup`]; [`Error::NotAFile`], [`Error::Io`].
    pub fn refuse_backup(&self) -> Result<()> {
        match self.has_file(Path::new(crate::backup::CATALOGUE))? {
            true => Err(Error::IsBackup { path: self.inner.path.clone() }),
            false => Ok(()),
        }
    }

    pub(crate) fn has_file(&self, path: &Path) -> Result<bool> {
        match self.inner.io.open(path, Open::Read) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::open(self.inner.path.join(path), e)),
        }
    }

    fn has_manifest(&self, name: &str) -> Result<bool> {
        let listed = self
            .inner
            .io
            .list(Path::new(name))
            .map_err(|e| Error::io("list", self.inner.path.join(name), e))?;
        Ok(listed.iter().any(|entry| entry.name == "manifest"))
    }
}

/// The number that a directory's name is, in its one spelling.
fn numeric_name(name: &str) -> Option<u64> {
    let number = name.parse::<u64>().ok()?;
    (number.to_string() == name).then_some(number)
}

/// Checks that `name` is one or two numbers, as `0` or `7/3`: a caller's mistake otherwise.
pub(crate) fn is_log_name(name: &str) -> bool {
    name.split('/').count() <= 2 && name.split('/').all(|part| numeric_name(part).is_some())
}
