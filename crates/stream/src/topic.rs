//! A topic: a name, settings, and partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use logmill_storage::LogConfig;
use parking_lot::RwLock;

use crate::PartitionId;
use crate::config::{TopicConfig, TopicSettings};
use crate::error::{Error, Result};
use crate::partition::{Partition, PartitionCore};
use crate::shared::Shared;
use crate::state::TopicState;

/// What all handles of a topic share.
#[derive(Debug)]
pub(crate) struct TopicCore {
    id: u32,
    name: Arc<str>,
    settings: RwLock<Arc<TopicSettings>>,
    settings_version: AtomicU64,
    partitions: RwLock<Vec<Arc<PartitionCore>>>,
    /// As many as `partitions` has, for those who only count.
    partition_count: AtomicU32,
    is_deleted: AtomicBool,
}

impl TopicCore {
    pub(crate) fn new(id: u32, state: &TopicState) -> Result<TopicCore> {
        let core = TopicCore {
            id,
            name: Arc::clone(&state.name),
            settings: RwLock::new(Arc::new(TopicSettings::from(&state.settings)?)),
            settings_version: AtomicU64::new(0),
            partitions: RwLock::new(Vec::new()),
            partition_count: AtomicU32::new(0),
            is_deleted: AtomicBool::new(false),
        };
        core.grow(state);
        Ok(core)
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// Notes that the topic is gone: whoever still has it looks for another of its name.
    pub(crate) fn set_deleted(&self) {
        self.is_deleted.store(true, Ordering::Release);
    }

    pub(crate) fn settings(&self) -> Arc<TopicSettings> {
        Arc::clone(&self.settings.read())
    }

    pub(crate) fn settings_version(&self) -> u64 {
        self.settings_version.load(Ordering::Acquire)
    }

    /// The settings as a log is opened with them, and their version.
    pub(crate) fn log_config(&self) -> (u64, LogConfig) {
        let settings = self.settings.read();
        (self.settings_version(), settings.log_config())
    }

    /// Takes over what the journal says now.
    pub(crate) fn update(&self, state: &TopicState) -> Result<()> {
        let new = TopicSettings::from(&state.settings)?;
        let mut settings = self.settings.write();
        if **settings != new {
            *settings = Arc::new(new);
            self.settings_version.fetch_add(1, Ordering::AcqRel);
        }
        drop(settings);
        self.grow(state);
        Ok(())
    }

    fn grow(&self, state: &TopicState) {
        let count = state.partitions;
        let mut partitions = self.partitions.write();
        let known = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        partitions.extend(
            (known..count)
                .map(|partition| PartitionCore::new(PartitionId { topic: self.id, partition })),
        );
        for core in partitions.iter().filter(|core| state.is_made(core.id.partition)) {
            core.set_made(state.log_id(core.id.partition));
        }
        self.partition_count.fetch_max(count, Ordering::AcqRel);
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.partition_count.load(Ordering::Acquire)
    }

    pub(crate) fn partition(&self, number: u32) -> Option<Arc<PartitionCore>> {
        self.partitions.read().get(number as usize).cloned()
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<PartitionCore>> {
        self.partitions.read().clone()
    }
}

/// A topic. A handle is cheap to clone.
#[derive(Clone, Debug)]
pub struct Topic {
    pub(crate) shared: Arc<Shared>,
    pub(crate) core: Arc<TopicCore>,
}

impl Topic {
    /// Its name.
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// Its id, which names its directory and is never given to another topic.
    pub fn id(&self) -> u32 {
        self.core.id()
    }

    /// How many partitions it has now.
    pub fn partition_count(&self) -> u32 {
        self.core.partition_count()
    }

    /// How it behaves now.
    pub fn settings(&self) -> TopicSettings {
        TopicSettings::clone(&self.core.settings())
    }

    /// All its partitions, in order.
    pub fn partitions(&self) -> Vec<Partition> {
        self.core.partitions().into_iter().map(|core| self.handle(core)).collect()
    }

    /// One of its partitions, counted from 0.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn partition(&self, number: u32) -> Result<Partition> {
        match self.core.partition(number) {
            Some(core) => Ok(self.handle(core)),
            None => Err(Error::UnknownPartition {
                topic: self.name().into(),
                partition: number,
                partitions: self.partition_count(),
            }),
        }
    }

    /// The partition that records with this key go to now.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`] never, as long as the topic has a partition.
    pub fn partition_for_key(&self, key: &[u8]) -> Result<Partition> {
        self.partition(crate::partition_for_key(key, self.partition_count()))
    }

    fn handle(&self, core: Arc<PartitionCore>) -> Partition {
        Partition { shared: Arc::clone(&self.shared), topic: Arc::clone(&self.core), core }
    }

    /// Changes the settings that `config` sets. New segments, appends and retention go by them from the next use of a
    /// partition on; a shorter retention holds for the records that are there already. How far readers see, which follows
    /// from the durability, changes in each partition when nobody reads it.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`]; [`Error::PartitionsNotChanged`] if `config` gives another number of partitions: that
    /// is for [`Topic::add_partitions`].
    pub fn alter(&self, config: TopicConfig) -> Result<()> {
        self.shared.alter_topic(self.id(), &config)
    }

    /// Raises the number of partitions to `count`. Records of a key may go to another partition than before, but for those that a
    /// producer with a name sends again; and groups that read the topic are rebalanced.
    ///
    /// # Errors
    /// [`Error::PartitionsNotIncreased`] if there are as many already: partitions are never removed.
    pub fn add_partitions(&self, count: u32) -> Result<()> {
        self.shared.add_partitions(self.id(), count)
    }
}
