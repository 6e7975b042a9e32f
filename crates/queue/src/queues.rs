//! The queues of a store: open, create, find, list, delete, close.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use logmill_storage::{
    DataDir, Durability, Journal, LogConfig, Owner, Part, Reach, Reclaimed, Task, Visibility,
    WritePath,
};

use crate::clock::QueueClock;
use crate::config::{QueueConfig, RedriveAllow};
use crate::engine::{Engine, SpaceReport};
use crate::entry::{Entry, Fact};
use crate::error::{Error, Result};
use crate::limits;
use crate::queue::Queue;
use crate::shared::{Level, OWNER, Shared};
use crate::{carry, checkpoint, replay};

/// How the queues of a store behave. Not stored: it may change between opens.
#[derive(Clone, Debug)]
pub struct QueuesOptions {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes_max: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) spare_bytes: u64,
    pub(crate) write_path: WritePath,
}

impl Default for QueuesOptions {
    fn default() -> Self {
        QueuesOptions {
            durability: Durability::Sync,
            segment_bytes_max: 64 << 20,
            checkpoint_bytes: 32 << 20,
            spare_bytes: 1 << 20,
            write_path: WritePath::Auto,
        }
    }
}

impl QueuesOptions {
    /// The durability of sends and deletes where neither the call nor its queue says. Default [`Durability::Sync`].
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How large a journal segment becomes: 64 KiB to 1 GiB, default 64 MiB. Space is given back by whole segments.
    /// Counts only where the queues open the journal themselves.
    pub const fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// After how many journaled bytes the state is written out, so that opening need not read them: at least 64 KiB,
    /// default 32 MiB. Less makes opening after a crash faster and costs writes.
    pub const fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// How much is kept in reserve for deletes on a full disk. Default 1 MiB, some 15,000 deletes one at a time. Counts
    /// only where the queues open the journal themselves.
    pub const fn spare_bytes(mut self, bytes: u64) -> Self {
        self.spare_bytes = bytes;
        self
    }

    /// By which way bytes reach the journal. Default: as the durability suggests. Counts only where the queues open the
    /// journal themselves.
    pub const fn write_path(mut self, path: WritePath) -> Self {
        self.write_path = path;
        self
    }

    /// The settings of a journal for queues.
    pub fn journal_config(&self) -> LogConfig {
        LogConfig::default()
            .durability(self.durability)
            .visibility(Visibility::Stored)
            .write_path(self.write_path)
            .segment_bytes_max(self.segment_bytes_max)
            .spare_bytes(self.spare_bytes)
    }
}

/// All queues of a store. Clones share it; every method may be called from any thread.
///
/// Dropping the last handle without [`close`](Queues::close) is as a crash of the process: nothing that was acknowledged
/// is lost, and the next open has to read the journal from the last checkpoint on.
#[derive(Clone, Debug)]
pub struct Queues {
    pub(crate) shared: Arc<Shared>,
}

impl Queues {
    /// Opens the queues of `dir` with a journal of their own, the log `0`.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Corrupt`].
    /// # Cost
    /// The last checkpoint, and the journal after it: see [`QueuesOptions::checkpoint_bytes`].
    pub fn open(dir: &DataDir, options: QueuesOptions) -> Result<Queues> {
        let journal = Journal::open(dir, "0", options.journal_config())?;
        let queues = Queues::open_on(dir, &journal, options)?;
        queues.shared.owns_journal.store(true, Ordering::Release);
        Ok(queues)
    }

    /// Opens the queues of `dir` on a journal that others use too. Whoever opened it closes it, after these queues, and
    /// gives back its space with [`Journal::reclaim`], naming [`owner`](Queues::owner) among the owners.
    ///
    /// # Errors
    /// As [`open`](Queues::open).
    pub fn open_on(dir: &DataDir, journal: &Journal, options: QueuesOptions) -> Result<Queues> {
        let mut engine = Engine::default();
        let mut from = Reach::default();
        if let Some((reach, state)) = journal.load_checkpoint(OWNER)
            && let Ok(loaded) = checkpoint::load(&state)
        {
            (engine, from) = (loaded, reach);
        }
        replay::replay(journal, from, &mut engine)?;
        let wall = dir.clock().wall_ms();
        let expected = match engine.clock_set {
            Some((time, then)) => time.saturating_add(wall.saturating_sub(then)),
            None => wall,
        };
        let time = expected.max(engine.latest);
        let apart = time != expected;
        let clock = QueueClock::starting_at(Arc::clone(dir.clock()), time);
        let shared = Shared::new(dir.clone(), journal.clone(), options, clock, engine);
        if !dir.is_read_only() {
            let mut engine = shared.lock();
            if apart {
                let entry = Entry { queue: 0, fact: Fact::ClockSet { time, wall } };
                shared.commit(&mut engine, &[entry], Level::buffered())?;
            }
            for slot in engine.slots.values_mut() {
                slot.state.advance(time);
            }
            shared.wake_keeper(&mut engine, time);
        }
        Ok(Queues { shared })
    }

    /// Opens the queues of a store that is open for reading, beside its writer; `None` if it was never written to.
    ///
    /// # Errors
    /// As [`open`](Queues::open).
    pub fn follow(dir: &DataDir, options: QueuesOptions) -> Result<Option<Queues>> {
        match Journal::open(dir, "0", options.journal_config()) {
            Ok(journal) => Queues::open_on(dir, &journal, options).map(Some),
            Err(logmill_storage::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has `keeper` run when so much was journaled that a checkpoint is due, or when the disk is full: for whoever gives back
    /// the space of a journal that others use, too. The first to say so counts.
    pub fn when_much_is_journaled(&self, keeper: Weak<dyn Task>) {
        let _ = self.shared.space_keeper.set(keeper);
    }

    /// Counts what giving back the space of a journal that others use, too, has come to: see [`space`](Queues::space).
    pub fn note_reclaimed(&self, done: &Reclaimed) {
        self.shared.lock().reclaimed.add(done);
    }

    /// The part that the queues play in giving back the journal's space.
    pub fn owner(&self) -> Arc<dyn Owner> {
        Arc::new(carry::QueueOwner { shared: Arc::clone(&self.shared) })
    }

    /// Creates a queue, or finds the one that exists, if it has the same value for every attribute that `config` sets.
    /// It is there, durably, when this returns.
    ///
    /// # Errors
    /// [`Error::QueueNameExists`] names the first attribute that differs. [`Error::InvalidQueueName`],
    /// [`Error::OutOfBounds`], [`Error::Unsupported`], [`Error::QueueDoesNotExist`] (the dead-letter queue),
    /// [`Error::RedriveRefused`]: nothing was written. [`Error::Storage`].
    pub fn create(&self, name: &str, config: &QueueConfig) -> Result<Queue> {
        limits::queue_name(name, config.fifo)?;
        config.validate()?;
        let shared = &self.shared;
        let mut engine = shared.lock();
        if engine.is_closed {
            return Err(Error::Closed);
        }
        if let Some(slot) = engine.named(name) {
            return match slot.state.config.conflict(config) {
                Some(attribute) => Err(Error::QueueNameExists { name: name.to_owned(), attribute }),
                None => Ok(self.handle(slot.state.id, name)),
            };
        }
        check_dead_letter(&engine, name, config)?;
        let queue = engine.next_queue;
        let fact = Fact::Created { time: shared.now().time, name, config: Cow::Borrowed(config) };
        shared.commit(&mut engine, &[Entry { queue, fact }], Level::sync())?;
        drop(engine);
        shared.settle(Level::sync())?;
        Ok(self.handle(queue, name))
    }

    /// The queue called `name`.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn queue(&self, name: &str) -> Result<Queue> {
        let engine = self.shared.lock();
        match engine.named(name) {
            _ if engine.is_closed => Err(Error::Closed),
            Some(slot) => Ok(self.handle(slot.state.id, name)),
            None => Err(Error::QueueDoesNotExist { name: name.to_owned() }),
        }
    }

    /// The names of the queues that begin with `prefix`, in order.
    pub fn list(&self, prefix: &str) -> Vec<String> {
        let engine = self.shared.lock();
        let from = engine.by_name.range(prefix.to_owned()..);
        from.map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The names of the queues that use `name` as their dead-letter queue, in order.
    pub fn dead_letter_sources(&self, name: &str) -> Vec<String> {
        let engine = self.shared.lock();
        let uses = |id: &u32| {
            engine
                .slots
                .get(id)
                .is_some_and(|slot| slot.state.config.dead_letter.as_deref() == Some(name))
        };
        engine.by_name.iter().filter(|(_, id)| uses(id)).map(|(name, _)| name.clone()).collect()
    }

    /// Deletes a queue with everything in it, durably. Its name can be used again at once.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`]; [`Error::QueueInUse`]: it is another queue's dead-letter queue; [`Error::Storage`].
    pub fn delete(&self, name: &str) -> Result<()> {
        if let Some(by) = self.dead_letter_sources(name).into_iter().find(|by| by != name) {
            return Err(Error::QueueInUse { name: name.to_owned(), by });
        }
        let queue = self.queue(name)?.id;
        let shared = &self.shared;
        let mut engine = shared.lock();
        engine.slot(queue)?;
        let entry = Entry { queue, fact: Fact::Removed { time: shared.now().time } };
        let level = Level::sync().with_spare();
        shared.commit(&mut engine, &[entry], level)?;
        drop(engine);
        shared.settle(level)
    }

    /// Writes the state out, so that the next open need not read the journal so far. The background does it in time.
    ///
    /// # Errors
    /// [`Error::Storage`]: the old checkpoint still counts.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.checkpoint()
    }

    /// Gives back the space of journal segments that hold nothing or little that is needed. The background does it in
    /// time, where the queues have the journal for themselves.
    ///
    /// # Errors
    /// [`Error::Storage`]: nothing is lost, and it may be tried again.
    pub fn reclaim(&self) -> Result<()> {
        self.shared.reclaim()
    }

    /// What was done about the journal's space, and what it cost.
    pub fn space(&self) -> SpaceReport {
        let engine = self.shared.lock();
        let live_bytes = engine.space.total(Part::Hot) + engine.space.total(Part::Cold);
        SpaceReport { live_bytes, ..engine.reclaimed }
    }

    /// Does the background's work that is due, on this thread: for directories without threads of their own.
    pub fn tick(&self) {
        self.shared.keep();
        self.shared.dir.tick();
    }

    /// Ends all waiting, writes the state out, and closes the journal if these queues opened it. Messages in flight stay
    /// in flight until their visibility timeout.
    ///
    /// # Errors
    /// [`Error::Storage`]: what was acknowledged is safe, and the next open takes longer. If that is all, for want of space
    /// for the state, it is none.
    pub fn close(self) -> Result<()> {
        let mut engine = self.shared.lock();
        if engine.is_closed {
            return Ok(());
        }
        engine.is_closed = true;
        for slot in engine.slots.values() {
            slot.signal.notify_all();
        }
        drop(engine);
        if self.shared.dir.is_read_only() {
            return Ok(());
        }
        let written = self.shared.checkpoint();
        if self.shared.owns_journal.load(Ordering::Acquire) {
            self.shared.journal.clone().close()?;
        }
        match written {
            Err(Error::Storage(logmill_storage::Error::DiskFull { .. })) => Ok(()),
            written => written,
        }
    }

    fn handle(&self, id: u32, name: &str) -> Queue {
        Queue { shared: Arc::clone(&self.shared), id, name: name.into() }
    }
}

/// Checks that the queue that `config` names for its dead letters is there and takes them.
pub(crate) fn check_dead_letter(engine: &Engine, name: &str, config: &QueueConfig) -> Result<()> {
    let Some(target) = &config.dead_letter else { return Ok(()) };
    let refused =
        |what| Err(Error::RedriveRefused { source: name.to_owned(), target: target.clone(), what });
    if target == name {
        return refused("a queue cannot be its own dead-letter queue");
    }
    let Some(slot) = engine.named(target) else {
        return Err(Error::QueueDoesNotExist { name: target.clone() });
    };
    if slot.state.config.fifo != config.fifo {
        return refused("one is FIFO and the other is not");
    }
    match &slot.state.config.redrive_allow {
        RedriveAllow::All => Ok(()),
        RedriveAllow::None => refused("it takes no dead letters"),
        RedriveAllow::Queues(sources) if sources.iter().any(|source| source == name) => Ok(()),
        RedriveAllow::Queues(_) => refused("it takes dead letters of other queues only"),
    }
}
