//! All streams of a store: the state that the journal tells, and the topics that stand for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{AppendOptions, DataDir, Durability, Task, Ticket};
use parking_lot::{Mutex, RwLock};

use crate::config::{PARTITIONS_MAX, TopicConfig, TopicSettings};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::groups::{ActiveGroups, GroupDescription, ResetTo};
use crate::journal::{Journal, JournalEntry};
use crate::open_logs::OpenLogs;
use crate::partition::{Partition, PartitionCore};
use crate::producer::Gates;
use crate::state::{Position, State};
use crate::topic::{Topic, TopicCore};
use crate::{GroupKind, PartitionId, name};

/// The journal owner of everything about streams.
pub(crate) const OWNER: u64 = 0;
/// How often silent members of groups are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// At each so many looks, partitions that were not used since are closed.
const SWEEP_EACH: u64 = 10;

/// How streams work in a store.
#[derive(Clone, Debug)]
pub struct StreamsOptions {
    open_partitions_max: usize,
}

impl Default for StreamsOptions {
    fn default() -> Self {
        StreamsOptions { open_partitions_max: 256 }
    }
}

impl StreamsOptions {
    /// How many partitions keep their files open at most, as long as no more are in use at once: at least 1, default
    /// 256. The least recently used are closed; a closed one is opened again when it is used.
    pub fn open_partitions_max(mut self, partitions: usize) -> Self {
        self.open_partitions_max = partitions.max(1);
        self
    }
}

/// What the journal has told so far.
#[derive(Debug, Default)]
struct Known {
    state: State,
    /// The journal offset that comes next.
    next: u64,
}

#[derive(Debug, Default)]
struct Topics {
    by_id: HashMap<u32, Arc<TopicCore>>,
    by_name: HashMap<Arc<str>, Arc<TopicCore>>,
}

/// What all handles of a store's streams share.
pub(crate) struct Shared {
    pub(crate) dir: DataDir,
    journal: Journal,
    /// Held while entries are submitted, so that the journal and the fold have the same order; never while waiting.
    known: Mutex<Known>,
    topics: RwLock<Topics>,
    pub(crate) open_logs: OpenLogs,
    pub(crate) groups: ActiveGroups,
    pub(crate) gates: Gates,
    producers_opened: AtomicU32,
    sweeps: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("path", &self.dir.path()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Journals what `decide` wants, and folds it in; `Ok` when it is as durable as asked. `decide` sees the state
    /// that its entries will follow.
    pub(crate) fn change<T>(
        &self,
        durability: Durability,
        decide: impl FnOnce(&State) -> Result<(Vec<Vec<u8>>, T)>,
    ) -> Result<T> {
        let (result, ticket) = self.begin(durability, decide)?;
        if let Some(ticket) = ticket {
            ticket.wait()?;
        }
        Ok(result)
    }

    /// As [`Shared::change`], without waiting. No ticket: nothing was to be journaled.
    pub(crate) fn begin<T>(
        &self,
        durability: Durability,
        decide: impl FnOnce(&State) -> Result<(Vec<Vec<u8>>, T)>,
    ) -> Result<(T, Option<Ticket>)> {
        let mut known = self.known.lock();
        let (entries, result) = decide(&known.state)?;
        let ticket = self.submit(&mut known, &entries, durability)?;
        Ok((result, ticket))
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
        self.topics.read().by_name.get(name).cloned()
    }

    /// The ids of the topics whose name is wanted.
    pub(crate) fn topic_ids(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<u32> {
        self.topics
            .read()
            .by_id
            .values()
            .filter(|core| wanted(core.name()))
            .map(|core| core.id())
            .collect()
    }

    /// Id and number of partitions of every topic, by name.
    pub(crate) fn topic_list(&self) -> Vec<(u32, u32)> {
        let mut cores: Vec<_> = self.topics.read().by_id.values().cloned().collect();
        cores.sort_by_key(|core| core.shared_name());
        cores.iter().map(|core| (core.id(), core.partition_count())).collect()
    }

    /// A handle to a partition.
    pub(crate) fn partition(self: &Arc<Self>, id: PartitionId) -> Result<Partition> {
        let topic = self
            .topics
            .read()
            .by_id
            .get(&id.topic)
            .cloned()
            .ok_or_else(|| unknown(self, id.topic))?;
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

    fn submit(
        &self,
        known: &mut Known,
        entries: &[Vec<u8>],
        durability: Durability,
    ) -> Result<Option<Ticket>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let tagged: Vec<_> =
            entries.iter().map(|bytes| JournalEntry { owner: OWNER, bytes }).collect();
        let options = AppendOptions { durability: Some(durability), ..AppendOptions::default() };
        let ticket = self.journal.submit(&tagged, &options)?;
        for bytes in entries {
            // What was just encoded is decoded again, so that live changes and replay go one way.
            known
                .state
                .apply(&Entry::decode(bytes).map_err(|what| journal_corruption(known.next, what))?);
        }
        known.next = known.next.max(ticket.offsets().last_offset + 1);
        Ok(Some(ticket))
    }

    /// Reads what was journaled since the last time.
    fn catch_up(&self) -> Result<()> {
        let mut known = self.known.lock();
        let Known { state, next } = &mut *known;
        let from = *next;
        self.journal.replay(from, |offset, owner, bytes| {
            if owner == OWNER {
                let entry =
                    Entry::decode(bytes).map_err(|what| journal_corruption(offset, what))?;
                state.apply(&entry);
            }
            *next = offset + 1;
            Ok(())
        })?;
        self.follow(state)
    }

    /// Brings the topic handles in line with the state. The caller holds the lock of the state.
    fn follow(&self, state: &State) -> Result<()> {
        let mut topics = self.topics.write();
        for (id, topic) in state.topics.iter() {
            match topics.by_id.get(&id) {
                Some(core) => core.update(topic)?,
                None => {
                    let core = Arc::new(TopicCore::new(id, topic)?);
                    topics.by_name.insert(core.shared_name(), Arc::clone(&core));
                    topics.by_id.insert(id, core);
                }
            }
        }
        let gone: Vec<u32> =
            topics.by_id.keys().copied().filter(|id| state.topics.get(*id).is_none()).collect();
        for id in gone {
            topics.forget(id);
        }
        Ok(())
    }

    fn follow_topic(&self, id: u32) -> Result<()> {
        let known = self.known.lock();
        let mut topics = self.topics.write();
        match (known.state.topics.get(id), topics.by_id.get(&id)) {
            (Some(state), Some(core)) => core.update(state)?,
            (Some(state), None) => {
                let core = Arc::new(TopicCore::new(id, state)?);
                topics.by_name.insert(core.shared_name(), Arc::clone(&core));
                topics.by_id.insert(id, core);
            }
            (None, _) => topics.forget(id),
        }
        drop((topics, known));
        self.tell_groups();
        Ok(())
    }

    pub(crate) fn alter_topic(&self, id: u32, config: &TopicConfig) -> Result<()> {
        self.change(Durability::Sync, |state| {
            let topic = state.topics.get(id).ok_or_else(|| unknown(self, id))?;
            if config.partitions.is_some_and(|partitions| partitions != topic.partitions) {
                return Err(Error::PartitionsNotChanged {
                    topic: topic.name.to_string(),
                    partitions: topic.partitions,
                });
            }
            let mut settings = topic.settings.clone();
            settings.merge(&config.settings);
            TopicSettings::from(&settings)?;
            Ok((vec![Entry::TopicAltered { topic: id, settings }.encoded()], ()))
        })?;
        self.follow_topic(id)
    }

    pub(crate) fn add_partitions(&self, id: u32, count: u32) -> Result<()> {
        self.change(Durability::Sync, |state| {
            let topic = state.topics.get(id).ok_or_else(|| unknown(self, id))?;
            check_partitions(count)?;
            if count <= topic.partitions {
                return Err(Error::PartitionsNotIncreased {
                    topic: topic.name.to_string(),
                    partitions: topic.partitions,
                    asked: count,
                });
            }
            Ok((vec![Entry::PartitionsAdded { topic: id, partitions: count }.encoded()], ()))
        })?;
        self.follow_topic(id)
    }

    /// Removes the directories of deleted topics. What somebody still reads, and what a crash cuts short, is left to a
    /// later call, and at the latest to the next open.
    fn remove_condemned(&self) -> Result<()> {
        let condemned: Vec<_> = self.look(|state| state.topics.condemned().collect());
        for (topic, partitions) in condemned {
            let logs = (0..partitions)
                .map(|partition| PartitionCore::log_name(PartitionId { topic, partition }));
            let mut is_gone = true;
            for name in logs.chain([topic.to_string()]) {
                match self.dir.remove_log(&name) {
                    Err(logmill_storage::Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(logmill_storage::Error::Locked { .. }) => {
                        is_gone = false;
                        break;
                    }
                    other => other?,
                }
            }
            if is_gone {
                self.change(Durability::Buffered, |_| {
                    Ok((vec![Entry::TopicRemoved { topic }.encoded()], ()))
                })?;
            }
        }
        Ok(())
    }
}

fn unknown(shared: &Shared, id: u32) -> Error {
    let name =
        shared.topics.read().by_id.get(&id).map(|core| core.name().to_owned()).unwrap_or_default();
    Error::UnknownTopic { name }
}

fn check_partitions(count: u32) -> Result<()> {
    if (1..=PARTITIONS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(Error::InvalidPartitions { asked: count })
    }
}

impl Topics {
    fn forget(&mut self, id: u32) {
        if let Some(core) = self.by_id.remove(&id) {
            self.by_name.remove(core.name());
            core.set_deleted();
            for partition in core.partitions() {
                // Its records go anyway, so an error while closing has nothing left to tell.
                let _ = partition.retire();
            }
        }
    }
}

impl Task for Shared {
    fn run(self: Arc<Self>) {
        if self.sweeps.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EACH) {
            self.open_logs.sweep();
            // What cannot be removed now is tried again.
            let _ = self.remove_condemned();
        }
        self.expire_members();
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(&self) as Arc<dyn Task>));
        self.dir.after(LOOK_EVERY, task);
    }
}

/// The topics, producers and groups of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    pub(crate) shared: Arc<Shared>,
}

impl Streams {
    /// Reads what `journal` says about streams.
    ///
    /// # Errors
    /// [`Error::Storage`].
    /// # Cost
    /// One pass over the journal since its last checkpoint. No partition is opened.
    pub fn open(dir: &DataDir, journal: &Journal, options: &StreamsOptions) -> Result<Streams> {
        let shared = Arc::new(Shared {
            dir: dir.clone(),
            journal: journal.clone(),
            known: Mutex::default(),
            topics: RwLock::default(),
            open_logs: OpenLogs::new(options.open_partitions_max),
            groups: ActiveGroups::default(),
            gates: Gates::default(),
            producers_opened: AtomicU32::new(0),
            sweeps: AtomicU64::new(1),
        });
        shared.catch_up()?;
        if !dir.is_read_only() {
            shared.remove_condemned()?;
        }
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(&shared) as Arc<dyn Task>));
        dir.after(LOOK_EVERY, task);
        Ok(Streams { shared })
    }

    /// Creates a topic. It is there, durably, when this returns.
    ///
    /// # Errors
    /// [`Error::TopicExists`], [`Error::InvalidName`], [`Error::InvalidPartitions`], [`Error::InvalidSetting`];
    /// [`Error::Storage`].
    pub fn create_topic(&self, name: &str, config: &TopicConfig) -> Result<Topic> {
        name::check_topic(name)?;
        let partitions = config.partitions.unwrap_or(1);
        check_partitions(partitions)?;
        TopicSettings::from(&config.settings)?;
        let id = self.shared.change(Durability::Sync, |state| {
            if state.topics.id_of(name).is_some() {
                return Err(Error::TopicExists { name: name.into() });
            }
            let topic = state.topics.next_id();
            let settings = config.settings.clone();
            Ok((vec![Entry::TopicCreated { topic, name, partitions, settings }.encoded()], topic))
        })?;
        self.shared.follow_topic(id)?;
        self.topic(name)
    }

    /// The topic called `name`. In a store that is open for reading, one that its writer has created meanwhile is found.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]; [`Error::Storage`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        self.look_again()?;
        let core = self.shared.topics.read().by_name.get(name).cloned();
        match core {
            Some(core) => Ok(Topic { shared: Arc::clone(&self.shared), core }),
            None => {
                name::check_topic(name)?;
                Err(Error::UnknownTopic { name: name.into() })
            }
        }
    }

    /// Another process may have changed what this one only reads.
    fn look_again(&self) -> Result<()> {
        if self.shared.dir.is_read_only() { self.shared.catch_up() } else { Ok(()) }
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn topics(&self) -> Result<Vec<Topic>> {
        self.look_again()?;
        let mut cores: Vec<_> = self.shared.topics.read().by_id.values().cloned().collect();
        cores.sort_by_key(|core| core.shared_name());
        Ok(cores.into_iter().map(|core| Topic { shared: Arc::clone(&self.shared), core }).collect())
    }

    /// Deletes a topic with all its records and every group's positions in it. A new topic of that name is another one.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]; [`Error::Storage`]: if it comes from removing files, the topic is gone nevertheless, and
    /// the next open removes them.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let id = self.shared.change(Durability::Sync, |state| {
            let unknown = || Error::UnknownTopic { name: name.into() };
            let id = state.topics.id_of(name).ok_or_else(unknown)?;
            let partitions = state.topics.get(id).ok_or_else(unknown)?.partitions;
            Ok((vec![Entry::TopicDeleted { topic: id, partitions }.encoded()], id))
        })?;
        self.shared.follow_topic(id)?;
        self.shared.remove_condemned()
    }

    /// All groups, by name. In a store that is open for reading, those that its writer has made meanwhile too.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn groups(&self) -> Result<Vec<(String, GroupKind)>> {
        self.look_again()?;
        Ok(self.shared.group_names())
    }

    /// What a group is doing, and how far it has come.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`]; [`Error::Storage`].
    pub fn describe_group(&self, name: &str) -> Result<GroupDescription> {
        self.look_again()?;
        self.shared.describe_group(name)
    }

    /// Sends a group without members elsewhere in a topic, in all its partitions.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownTopic`], [`Error::GroupActive`]; [`Error::Storage`].
    pub fn reset_group(&self, group: &str, topic: &str, to: ResetTo) -> Result<()> {
        self.shared.reset_group(group, topic, to)
    }

    /// Deletes a group without members, with all its positions.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::GroupActive`]; [`Error::Storage`].
    pub fn delete_group(&self, name: &str) -> Result<()> {
        self.shared.delete_group(name)
    }

    /// How many partitions have their files open.
    pub fn open_partitions(&self) -> usize {
        self.shared.open_logs.len()
    }

    /// Closes every partition. Handles stop working; the journal stays open, as it is not only the streams'.
    ///
    /// # Errors
    /// [`Error::Storage`]: the first that closing a partition met. All were tried.
    pub fn close(&self) -> Result<()> {
        let cores: Vec<_> = self.shared.topics.read().by_id.values().cloned().collect();
        let mut result = Ok(());
        for partition in cores.iter().flat_map(|core| core.partitions()) {
            result = result.and(partition.retire());
        }
        result
    }
}

/// The storage error for a journal entry that says nothing this build understands.
fn journal_corruption(offset: u64, what: &'static str) -> logmill_storage::Error {
    logmill_storage::Error::Corrupt {
        path: "0".into(),
        position: 0,
        offset,
        what: logmill_storage::Corruption::Field(what),
    }
}
