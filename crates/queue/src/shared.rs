//! What all handles of the queues share: the journal, the clock, and the engine under one mutex.
//!
//! The mutex is held while a call decides, journals (a copy into the page cache) and applies; never while anybody syncs,
//! waits, or reads a body from the disk on behalf of a receive.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use logmill_storage::{
    AppendOptions, DataDir, Durability, Entry as JournalEntry, Error as StorageError, Journal,
    Part, Task,
};
use parking_lot::{Mutex, MutexGuard};

use crate::bodies::Bodies;
use crate::carry::LastCarry;
use crate::clock::QueueClock;
use crate::decide::Now;
use crate::engine::Engine;
use crate::entry::{Entry, Fact};
use crate::error::{Error, Result};
use crate::queues::QueuesOptions;

/// This crate's entries in a journal that others use, too.
pub(crate) const OWNER: u64 = 2;
/// What an entry takes in the journal beside its own bytes, roughly.
const ENTRY_OVERHEAD: u64 = 30;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: DataDir,
    pub(crate) journal: Journal,
    pub(crate) options: QueuesOptions,
    pub(crate) clock: QueueClock,
    /// Tells receives that could not be stored from those of other runs.
    pub(crate) session: u32,
    pub(crate) engine: Mutex<Engine>,
    bodies: Bodies,
    /// Held while space is given back, so that it is done once at a time.
    pub(crate) reclaiming: Mutex<()>,
    pub(crate) last_carry: LastCarry,
    /// Whether the queues have the journal for themselves, and look after its space.
    pub(crate) owns_journal: AtomicBool,
    /// Who gives back the space of a journal that is not the queues' own: asked when much was journaled.
    pub(crate) space_keeper: OnceLock<Weak<dyn Task>>,
    /// What the wall clock said at open.
    pub(crate) opened_wall: i64,
    /// A weak handle to itself, for the background.
    pub(crate) this: Weak<Shared>,
}

/// How sure a call wants to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    durability: Durability,
    use_spare: bool,
    /// What the wall clock has just said.
    wall_ms: Option<i64>,
}

impl Shared {
    pub(crate) fn new(
        dir: DataDir,
        journal: Journal,
        options: QueuesOptions,
        clock: QueueClock,
        engine: Engine,
    ) -> Arc<Shared> {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let opened_wall = dir.clock().wall_ms();
        let session = u32::try_from(random >> 32).unwrap_or(1).max(1);
        Arc::new_cyclic(|this| Shared {
            dir,
            journal,
            options,
            clock,
            session,
            engine: Mutex::new(engine),
            bodies: Bodies::default(),
            reclaiming: Mutex::default(),
            last_carry: LastCarry::default(),
            owns_journal: AtomicBool::new(false),
            space_keeper: OnceLock::new(),
            opened_wall,
            this: Weak::clone(this),
        })
    }

    #[inline]
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Time that never goes back, for pauses.
    pub(crate) fn monotonic(&self) -> Duration {
        self.dir.clock().monotonic()
    }

    /// The durability of a call: its own, the queue's, or the default.
    pub(crate) fn level(&self, own: Option<Durability>, queue: Option<Durability>) -> Level {
        let durability = own.or(queue).unwrap_or(self.options.durability);
        Level { durability, use_spare: false, wall_ms: None }
    }

    /// Journals `entries` as one batch, all or nothing, and applies them. Returns the location of the first.
    #[inline]
    pub(crate) fn commit(
        &self,
        engine: &mut Engine,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Result<u64> {
        self.commit_with(engine, entries, &level.options())
    }

    pub(crate) fn commit_with(
        &self,
        engine: &mut Engine,
        entries: &[Entry<'_>],
        options: &AppendOptions,
    ) -> Result<u64> {
        engine.scratch.clear();
        let committed = match entries {
            [entry] => self.commit_one(engine, entry, options),
            _ => self.commit_many(engine, entries, options),
        };
        let bytes = engine.scratch.len() as u64 + ENTRY_OVERHEAD * entries.len() as u64;
        if engine.scratch.capacity() > 1 << 20 {
            engine.scratch = Vec::new();
        }
        match committed {
            Ok(base) => {
                engine.unchecked_bytes += bytes;
                engine.reclaimed.journaled_bytes += bytes;
                if engine.unchecked_bytes > self.checkpoint_interval(engine)
                    && engine.space_due.is_none()
                {
                    self.wake_keeper(engine, i64::MIN);
                }
                Ok(base)
            }
            Err(error) => {
                if matches!(error, StorageError::DiskFull { .. }) {
                    self.want_space(engine);
                }
                Err(error.into())
            }
        }
    }

    #[inline]
    fn commit_one(
        &self,
        engine: &mut Engine,
        entry: &Entry<'_>,
        options: &AppendOptions,
    ) -> Result<u64, StorageError> {
        let bytes = encoded(entry, &mut engine.scratch);
        let at = self.journal.append(&[JournalEntry { owner: OWNER, bytes }], options)?.base_offset;
        engine.apply(entry, at);
        if entry.fact.is_message() {
            engine.recent.keep(at, &engine.scratch);
        }
        Ok(at)
    }

    fn commit_many(
        &self,
        engine: &mut Engine,
        entries: &[Entry<'_>],
        options: &AppendOptions,
    ) -> Result<u64, StorageError> {
        let mut ends = Vec::with_capacity(entries.len());
        for entry in entries {
            entry.encode(&mut engine.scratch);
            ends.push(engine.scratch.len());
        }
        let starts = || std::iter::once(0).chain(ends.iter().copied());
        let encoded: Vec<JournalEntry<'_>> = (starts().zip(&ends))
            .map(|(start, end)| {
                let bytes = engine.scratch.get(start..*end).unwrap_or_default();
                JournalEntry { owner: OWNER, bytes }
            })
            .collect();
        let base = self.journal.append(&encoded, options)?.base_offset;
        for (((entry, start), end), at) in entries.iter().zip(starts()).zip(&ends).zip(base..) {
            engine.apply(entry, at);
            if entry.fact.is_message() {
                engine.recent.keep(at, engine.scratch.get(start..*end).unwrap_or_default());
            }
        }
        Ok(base)
    }

    /// Journals and applies one entry that is worth less than progress: on a full disk it is applied all the same, and
    /// forgotten by a crash. Leases are of this kind.
    pub(crate) fn commit_lease(
        &self,
        engine: &mut Engine,
        entry: &mut Entry<'_>,
        now: Now,
    ) -> Result<()> {
        match self.commit(engine, std::slice::from_ref(entry), Level::buffered().at(now)) {
            Err(Error::Storage(StorageError::DiskFull { .. })) => {
                if let Fact::Received { lease, .. } = &mut entry.fact {
                    lease.session = self.session;
                }
                engine.apply(entry, 0);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Waits until everything that was committed before holds at `level`.
    pub(crate) fn settle(&self, level: Level) -> Result<()> {
        if level.durability == Durability::Sync {
            self.journal.part(Part::Hot).sync()?;
        }
        Ok(())
    }

    /// Shows the messages of `queue` that are durable by now to those who wait.
    pub(crate) fn show(&self, queue: u32) {
        let mut engine = self.lock();
        let durable = self.durable();
        if let Ok(slot) = engine.slot(queue) {
            while slot.unsynced.pop_front_if(|at| *at < durable).is_some() {}
            if slot.waiters > 0 {
                slot.signal.notify_all();
            }
        }
    }

    /// The bytes of the entry at `at`; `None` if it is not there any more.
    pub(crate) fn read(&self, at: u64) -> Result<Option<Bytes>> {
        let mut entry = Bytes::new();
        Ok(self.bodies.read_one(&self.journal, at, &mut entry)?.then_some(entry))
    }

    /// The bytes of the entries at `wanted`; `None` for those that are not there any more.
    pub(crate) fn read_all(&self, wanted: &[u64]) -> Result<Vec<Option<Bytes>>> {
        self.bodies.read(&self.journal, wanted)
    }

    /// As [`read_all`](Self::read_all), and `None` for those that are damaged.
    pub(crate) fn read_undamaged(&self, wanted: &[u64]) -> Result<Vec<Option<Bytes>>> {
        let is_damaged =
            |error: &Error| matches!(error, Error::Storage(StorageError::Corrupt { .. }));
        match self.read_all(wanted) {
            Err(error) if is_damaged(&error) => {}
            read => return read,
        }
        let one = |at: &u64| match self.read(*at) {
            Err(error) if is_damaged(&error) => Ok(None),
            read => read,
        };
        wanted.iter().map(one).collect()
    }

    /// Reads the entry that holds a message into `entry`, wherever it is carried meanwhile; `false` if the message is gone.
    #[inline]
    pub(crate) fn read_message(
        &self,
        queue: u32,
        sequence: u64,
        mut at: u64,
        entry: &mut Bytes,
    ) -> Result<bool> {
        while !self.bodies.read_one(&self.journal, at, entry)? {
            let moved = self.location_of(queue, sequence)?;
            match moved {
                Some(moved) if moved != at => at = moved,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    #[cold]
    fn location_of(&self, queue: u32, sequence: u64) -> Result<Option<u64>> {
        Ok(self.lock().slot(queue)?.state.location_of(sequence))
    }

    /// Reads the body of a message while the engine is locked.
    pub(crate) fn read_locked(&self, engine: &Engine, at: u64) -> Result<Option<Bytes>> {
        match engine.recent.find(at) {
            Some(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
            None => self.read(at),
        }
    }

    /// Has the background look after the queues at `time` on their clock, if it would not sooner.
    pub(crate) fn wake_keeper(&self, engine: &mut Engine, time: i64) {
        if time >= engine.keeper_at || self.dir.is_read_only() {
            return;
        }
        engine.keeper_at = time;
        let delay = time.saturating_sub(self.now().time).max(0).unsigned_abs();
        let this: Weak<dyn Task> = Weak::<Shared>::clone(&self.this);
        self.dir.after(Duration::from_millis(delay), this);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock()
    }
}

/// The bytes of an entry, put into `scratch` alone. Not inlined: who has just set a length by itself, and then loads it and the
/// address at once, waits for it.
#[inline(never)]
fn encoded<'a>(entry: &Entry<'_>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    entry.encode(scratch);
    scratch
}

impl Level {
    /// The same, with the disk's reserve: for what gives back space.
    pub(crate) fn with_spare(self) -> Level {
        Level { use_spare: true, ..self }
    }

    /// The same, by one who has just looked at the clock.
    pub(crate) const fn at(self, now: Now) -> Level {
        Level { wall_ms: Some(now.wall), ..self }
    }

    /// What the journal is asked for. Syncing is the caller's, outside of the lock; but what is stored is stored now, so that a
    /// full disk is met before anything is applied.
    pub(crate) fn options(self) -> AppendOptions {
        let durability = match self.durability {
            Durability::Sync | Durability::Buffered => Durability::Buffered,
            interval @ Durability::Interval(_) => interval,
        };
        AppendOptions {
            durability: Some(durability),
            use_spare: self.use_spare,
            wall_ms: self.wall_ms,
            ..AppendOptions::default()
        }
    }

    pub(crate) fn waits(self) -> bool {
        self.durability == Durability::Sync
    }

    pub(crate) const fn buffered() -> Level {
        Level { durability: Durability::Buffered, use_spare: false, wall_ms: None }
    }

    pub(crate) const fn sync() -> Level {
        Level { durability: Durability::Sync, use_spare: false, wall_ms: None }
    }
}
