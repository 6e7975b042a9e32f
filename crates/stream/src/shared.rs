//! What all handles of a store's streams share: the journal, what it has told, and the topics that stand for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use logmill_storage::{
    AppendOptions, DataDir, Durability, Entry as JournalEntry, INTENTS, Intents, Journal, Log,
    LogConfig, Part, SyncTicket,
};
use parking_lot::{Mutex, RwLock};

use crate::PartitionId;
use crate::compactor::Compactor;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::groups::ActiveGroups;
use crate::keeper::FIRST_LOOK;
use crate::known::{Known, OWNER};
use crate::open_logs::OpenLogs;
use crate::partition::{OpenLog, Partition, PartitionCore};
use crate::producer::Gates;
use crate::share::ActiveShareGroups;
use crate::state::{Position, State};
use crate::streams::StreamsOptions;
use crate::topic::TopicCore;
use crate::topics::Topics;

/// The journal's name.
pub(crate) const JOURNAL: &str = "0";

/// Appends to partitions that are said in the journal first.
pub(crate) type PartitionIntents = Intents<ResolveLog>;
/// Opens a partition's log by its name; nothing if its topic is gone.
type ResolveLog = Box<dyn Fn(&str) -> logmill_storage::Result<Option<Log>> + Send + Sync>;

/// How a change is journaled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    durability: Durability,
    use_spare: bool,
}

impl From<Durability> for Level {
    fn from(durability: Durability) -> Level {
        Level { durability, use_spare: false }
    }
}

impl Level {
    /// Synced, and with the disk's reserve: for what gives back space.
    pub(crate) const FREEING: Level = Level { durability: Durability::Sync, use_spare: true };
}

pub(crate) struct Shared {
    pub(crate) dir: DataDir,
    /// Set from the beginning, unless the store is read while its writer has not made it yet.
    journal: OnceLock<Journal>,
    /// Held while entries are submitted, so that the journal and the fold have the same order; never while waiting.
    pub(crate) known: Mutex<Known>,
    /// Set unless the store is open for reading.
    pub(crate) intents: OnceLock<PartitionIntents>,
    /// Partitions whose logs intents have opened.
    untold: Mutex<BTreeSet<PartitionId>>,
    pub(crate) topics: RwLock<Topics>,
    pub(crate) open_logs: OpenLogs,
    pub(crate) groups: ActiveGroups,
    pub(crate) share_groups: ActiveShareGroups,
    pub(crate) gates: Gates,
    /// How long a group without members is remembered.
    pub(crate) offsets_retention: Option<Duration>,
    producers_opened: AtomicU32,
    /// Set unless the store is open for reading.
    pub(crate) compactor: OnceLock<Arc<Compactor>>,
    /// How often the background has looked around.
    pub(crate) looks: AtomicU64,
    is_closed: AtomicBool,
    /// Where nothing else says.
    pub(crate) durability: Durability,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("path", &self.dir.path()).finish_non_exhaustive()
    }
}

impl Shared {
    /// With everything that `journal` says; without one, as far as there is one by now.
    pub(crate) fn open(
        dir: &DataDir,
        journal: Option<&Journal>,
        options: &StreamsOptions,
    ) -> Result<Shared> {
        let shared = Shared {
            dir: dir.clone(),
            journal: journal.cloned().map(OnceLock::from).unwrap_or_default(),
            known: Mutex::default(),
            intents: OnceLock::new(),
            untold: Mutex::default(),
            topics: RwLock::default(),
            open_logs: OpenLogs::new(options.open_partitions_max),
            groups: ActiveGroups::default(),
            share_groups: ActiveShareGroups::default(),
            gates: Gates::default(),
            offsets_retention: options.offsets_retention,
            producers_opened: AtomicU32::new(0),
            compactor: OnceLock::new(),
            looks: AtomicU64::new(FIRST_LOOK),
            is_closed: AtomicBool::new(false),
            durability: options.durability,
        };
        if let Some(journal) = shared.journal()? {
            let loaded = journal.load_checkpoint(OWNER);
            // A checkpoint that says nothing this build understands is as good as none.
            if let Some(known) =
                loaded.and_then(|(reach, bytes)| Known::from_checkpoint(reach, &bytes).ok())
            {
                *shared.known.lock() = known;
            }
        }
        shared.catch_up()?;
        Ok(shared)
    }

    /// Refuses what would wait for records or make changes from now on.
    pub(crate) fn set_closed(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(logmill_storage::Error::Closed { path: self.dir.path().to_owned() }.into());
        }
        Ok(())
    }

    /// The journal, if there is one yet.
    pub(crate) fn journal(&self) -> Result<Option<&Journal>> {
        if self.journal.get().is_none() && self.dir.is_read_only() {
            match Journal::open(&self.dir, JOURNAL, LogConfig::default()) {
                Ok(journal) => drop(self.journal.set(journal)),
                Err(logmill_storage::Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.journal.get())
    }

    /// Journals what `decide` wants, and folds it in; `Ok` when it is as durable as asked. `decide` sees the state
    /// that its entries will follow.
    pub(crate) fn change<T>(
        &self,
        level: impl Into<Level>,
        decide: impl FnOnce(&State) -> Result<(Vec<Vec<u8>>, T)>,
    ) -> Result<T> {
        let (result, ticket) = self.begin(level, decide)?;
        if let Some(ticket) = ticket {
            ticket.wait()?;
        }
        Ok(result)
    }

    /// As [`Shared::change`], without waiting for a sync. No ticket: there is nothing to be waited for.
    pub(crate) fn begin<T>(
        &self,
        level: impl Into<Level>,
        decide: impl FnOnce(&State) -> Result<(Vec<Vec<u8>>, T)>,
    ) -> Result<(T, Option<SyncTicket>)> {
        let mut known = self.known.lock();
        let (entries, result) = decide(&known.state)?;
        if entries.is_empty() {
            return Ok((result, None));
        }
        let read_only = || logmill_storage::Error::ReadOnly { path: self.dir.path().join(JOURNAL) };
        let journal = self.journal()?.ok_or_else(read_only)?;
        let tagged: Vec<_> =
            entries.iter().map(|bytes| JournalEntry { owner: OWNER, bytes }).collect();
        // What was just encoded is decoded again, so that live changes and replay go one way; and before it is journaled,
        // so that nothing gets there that no replay can read.
        let decoded = entries.iter().map(|bytes| Entry::decode(bytes));
        let decoded: Vec<_> = decoded
            .collect::<Result<_, _>>()
            .map_err(|what| self.corrupt(journal.reach().hot, what))?;
        // It is stored before it is taken in, so that a full disk changes nothing; only the sync may come later.
        let Level { durability, use_spare } = level.into();
        let (stored, is_synced) = match durability {
            Durability::Sync => (Durability::Buffered, true),
            other => (other, false),
        };
        let options =
            AppendOptions { durability: Some(stored), use_spare, ..AppendOptions::default() };
        let first = journal.append(&tagged, &options)?.base_offset;
        for ((offset, entry), bytes) in (first..).zip(&decoded).zip(&entries) {
            known.take_in(offset, entry, bytes.len()).map_err(|what| self.corrupt(offset, what))?;
        }
        let hot = journal.part(Part::Hot);
        let ticket = if is_synced { Some(hot.submit_sync()?) } else { None };
        Ok((result, ticket))
    }

    /// What is to be appended to partitions besides what their producers append.
    pub(crate) fn intents(&self) -> Result<&PartitionIntents> {
        let read_only = || logmill_storage::Error::ReadOnly { path: self.dir.path().join(JOURNAL) };
        Ok(self.intents.get().ok_or_else(read_only)?)
    }

    /// Takes up the intents that a crash has left, and does them.
    pub(crate) fn take_up_intents(self: &Arc<Self>) -> Result<()> {
        let Some(journal) = self.journal()? else { return Ok(()) };
        let this = Arc::downgrade(self);
        let resolve: ResolveLog = Box::new(move |name| {
            let Some(shared) = this.upgrade() else { return Ok(None) };
            match PartitionCore::parse_log_name(name).map(|id| shared.partition(id)) {
                Some(Ok(partition)) => match shared.resolve(&partition) {
                    Ok(log) => Ok(Some(log.clone_log())),
                    Err(Error::Storage(error)) => Err(error),
                    Err(_) => Ok(None),
                },
                Some(Err(_)) | None => Ok(None),
            }
        });
        let intents = Intents::new(journal.clone(), resolve);
        let from = self.known.lock().intents_from();
        journal.replay(from, |entry| match entry.owner {
            INTENTS => intents.replay(entry.place, entry.bytes).map_err(|what| {
                logmill_storage::Error::Corrupt {
                    path: self.dir.path().join(JOURNAL),
                    position: 0,
                    offset: entry.place.offset(),
                    what,
                }
            }),
            _ => Ok(()),
        })?;
        let _ = self.intents.set(intents);
        // What cannot be done now (its disk may be full) is tried again by the background.
        self.complete_intents();
        Ok(())
    }

    /// A partition's log, for an intent: the locks that are held then forbid to journal that it was made.
    fn resolve(self: &Arc<Self>, partition: &Partition) -> Result<Arc<OpenLog>> {
        let log = partition.core.log_untold(self, &partition.topic)?;
        self.untold.lock().insert(partition.core.id);
        Ok(log)
    }

    /// Does the intents that are left. What fails is tried again the next time.
    pub(crate) fn complete_intents(self: &Arc<Self>) {
        if let Some(intents) = self.intents.get() {
            let _ = intents.complete();
        }
        self.tell_untold();
    }

    /// Journals which logs intents have made. Where that fails, the next use of the partition does it.
    pub(crate) fn tell_untold(self: &Arc<Self>) {
        for id in std::mem::take(&mut *self.untold.lock()) {
            let _ = self.partition(id).and_then(|partition| partition.log());
        }
    }

    /// Reads what was journaled since the last time.
    pub(crate) fn catch_up(&self) -> Result<()> {
        let Some(journal) = self.journal()? else { return Ok(()) };
        let mut known = self.known.lock();
        let from = known.next;
        for part in [Part::Cold, Part::Hot] {
            journal.part(part).refresh()?;
        }
        journal.replay(from, |entry| {
            known.replay(&entry).map_err(|what| self.corrupt(entry.place.offset(), what))
        })?;
        self.topics.write().follow(&known.state)
    }

    pub(crate) fn corrupt(&self, offset: u64, what: &'static str) -> logmill_storage::Error {
        logmill_storage::Error::Corrupt {
            path: self.dir.path().join(JOURNAL),
            position: 0,
            offset,
            what: logmill_storage::Corruption::Field(what),
        }
    }

    /// A number that no producer had before, to begin with another sticky partition than the others.
    pub(crate) fn next_producer_seed(&self) -> u32 {
        self.producers_opened.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks at the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.known.lock().state)
    }

    /// What a group has committed in a partition.
    pub(crate) fn position(&self, group: u64, partition: PartitionId) -> Option<Position> {
        self.look(|state| state.groups.get(group)?.positions.get(&partition).cloned())
    }

    pub(crate) fn topic_by_name(&self, name: &str) -> Option<Arc<TopicCore>> {
        self.topics.read().by_name(name).cloned()
    }

    /// The ids of the topics whose name is wanted.
    pub(crate) fn topic_ids(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<u32> {
        self.topics.read().iter().filter(|core| wanted(core.name())).map(|core| core.id()).collect()
    }

    /// Id and number of partitions of every topic, by name.
    pub(crate) fn topic_list(&self) -> Vec<(u32, u32)> {
        self.topics.read().sorted().iter().map(|core| (core.id(), core.partition_count())).collect()
    }

    /// A handle to a partition.
    pub(crate) fn partition(self: &Arc<Self>, id: PartitionId) -> Result<Partition> {
        let topic =
            self.topics.read().by_id(id.topic).cloned().ok_or_else(|| self.unknown(id.topic))?;
        self.partition_of(topic, id.partition)
    }

    /// A handle to a partition.
    pub(crate) fn partition_by_name(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
    ) -> Result<Partition> {
        let topic =
            self.topic_by_name(topic).ok_or_else(|| Error::UnknownTopic { name: topic.into() })?;
        self.partition_of(topic, partition)
    }

    fn partition_of(self: &Arc<Self>, topic: Arc<TopicCore>, partition: u32) -> Result<Partition> {
        match topic.partition(partition) {
            Some(core) => Ok(Partition { shared: Arc::clone(self), topic, core }),
            None => Err(Error::UnknownPartition {
                topic: topic.name().into(),
                partition,
                partitions: topic.partition_count(),
            }),
        }
    }

    pub(crate) fn unknown(&self, id: u32) -> Error {
        let topics = self.topics.read();
        Error::UnknownTopic {
            name: topics.by_id(id).map(|core| core.name().to_owned()).unwrap_or_default(),
        }
    }
}
