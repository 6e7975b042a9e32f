//! The streams of a store, as their users see them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{DataDir, Durability, Journal, Owner, Task};

use crate::compactor::Compactor;
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::groups::{GroupDescription, ResetTo};
use crate::keeper::LOOK_EVERY;
use crate::known::StreamsOwner;
use crate::shared::Shared;
use crate::topic::Topic;
use crate::{GroupKind, name};

/// How streams work in a store.
#[derive(Clone, Debug)]
pub struct StreamsOptions {
    pub(crate) open_partitions_max: usize,
    pub(crate) offsets_retention: Option<Duration>,
    pub(crate) durability: Durability,
    pub(crate) compaction_bytes_per_second: u64,
}

impl Default for StreamsOptions {
    fn default() -> Self {
        StreamsOptions {
            open_partitions_max: 256,
            offsets_retention: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            durability: Durability::Sync,
            compaction_bytes_per_second: 64 << 20,
        }
    }
}

impl StreamsOptions {
    /// How many partitions keep their files open at most, as long as no more are in use at once: at least 1, default
    /// 256. The least recently used are closed; a closed one is opened again when it is used.
    pub fn open_partitions_max(mut self, partitions: usize) -> Self {
        self.open_partitions_max = partitions.max(1);
        self
    }

    /// How long a group without members is remembered after its last commit or member, default 7 days as Kafka's
    /// `offsets.retention.minutes`; `None` for ever.
    pub fn offsets_retention(mut self, time: Option<Duration>) -> Self {
        self.offsets_retention = time;
        self
    }

    /// What topics get that are made without a durability, and what commits wait for whose consumer does not say. Default
    /// [`Durability::Sync`]. A topic keeps what it was made with.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many bytes of compacted topics the background reads in a second, a segment or a tenth of it at a time: at least 1,
    /// default 64 MiB. Each byte is read two or three times, and what stays of what changes is read once more and written. As
    /// Kafka's `log.cleaner.io.max.bytes.per.second`.
    pub fn compaction_bytes_per_second(mut self, bytes: u64) -> Self {
        self.compaction_bytes_per_second = bytes.max(1);
        self
    }
}

/// The topics, producers and groups of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    pub(crate) shared: Arc<Shared>,
}

impl Streams {
    /// Opens the streams of a store for writing, on a journal that others may use too. Whoever opened the journal closes
    /// it, after these streams, and gives back its space, with [`Streams::with_owners`] among them.
    ///
    /// # Errors
    /// [`Error::Storage`].
    /// # Cost
    /// The last checkpoint, and the journal after it. No partition is opened.
    pub fn open(dir: &DataDir, journal: &Journal, options: &StreamsOptions) -> Result<Streams> {
        let streams = Streams { shared: Arc::new(Shared::open(dir, Some(journal), options)?) };
        streams.shared.take_up_intents()?;
        streams.shared.remove_condemned()?;
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(&streams.shared) as Arc<dyn Task>));
        dir.after(LOOK_EVERY, task);
        let rate = options.compaction_bytes_per_second;
        let compactor =
            streams.shared.compactor.get_or_init(|| Compactor::new(&streams.shared, rate));
        compactor.schedule(&streams.shared, LOOK_EVERY);
        Ok(streams)
    }

    /// Opens the streams of a store that is open for reading. Its writer may be at work, or not have begun.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn follow(dir: &DataDir, options: &StreamsOptions) -> Result<Streams> {
        Ok(Streams { shared: Arc::new(Shared::open(dir, None, options)?) })
    }

    /// Creates a topic. It is there, durably, when this returns.
    ///
    /// # Errors
    /// [`Error::TopicExists`], [`Error::InvalidName`], [`Error::InvalidPartitions`], [`Error::InvalidSetting`];
    /// [`Error::Storage`].
    pub fn create_topic(&self, name: &str, config: &TopicConfig) -> Result<Topic> {
        self.shared.create_topic(name, config)?;
        self.topic(name)
    }

    /// The topic called `name`, created if there is none. One that is there keeps its partitions and settings, whatever
    /// `config` says.
    ///
    /// # Errors
    /// As [`Streams::create_topic`], but for a topic that exists.
    pub fn ensure_topic(&self, name: &str, config: &TopicConfig) -> Result<Topic> {
        match self.create_topic(name, config) {
            Err(Error::TopicExists { .. }) => self.topic(name),
            created => created,
        }
    }

    /// The topic called `name`. In a store that is open for reading, one that its writer has created meanwhile is found.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]; [`Error::Storage`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        self.look_again()?;
        let core = self.shared.topic_by_name(name);
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
        let cores = self.shared.topics.read().sorted();
        Ok(cores.into_iter().map(|core| Topic { shared: Arc::clone(&self.shared), core }).collect())
    }

    /// Deletes a topic with all its records and every group's positions in it. A new topic of that name is another one.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]; [`Error::Storage`]: if it comes from removing files, the topic is gone nevertheless, and
    /// the next open removes them.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.shared.delete_topic(name)
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

    /// Shows `with` the parts that streams and their intents play in giving back the journal's space: see
    /// [`Journal::reclaim`](logmill_storage::Journal::reclaim).
    pub fn with_owners<T>(&self, with: impl FnOnce(&[&dyn Owner]) -> T) -> T {
        let streams = StreamsOwner(&self.shared.known);
        match self.shared.intents.get() {
            Some(intents) => with(&[&streams, intents]),
            None => with(&[&streams]),
        }
    }

    /// Writes a checkpoint, so that the next open has less to read. The background does so by itself.
    ///
    /// # Errors
    /// [`Error::Storage`]; a checkpoint that fails changes nothing but the time of the next open.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.checkpoint()
    }

    /// Closes every partition, and writes a checkpoint. Handles stop working; the journal stays open, as it is not only
    /// the streams'.
    ///
    /// # Errors
    /// [`Error::Storage`]: the first that was met. Everything was tried. That there is no space for a checkpoint is none.
    pub fn close(&self) -> Result<()> {
        let mut result = Ok(());
        self.shared.set_closed();
        let cores = self.shared.topics.read().sorted();
        for partition in cores.iter().flat_map(|core| core.partitions()) {
            result = result.and(partition.retire());
        }
        self.shared.tell_groups();
        if self.shared.dir.is_read_only() {
            return result;
        }
        match self.shared.checkpoint() {
            // The next open reads the journal instead.
            Err(Error::Storage(logmill_storage::Error::DiskFull { .. })) => result,
            written => result.and(written),
        }
    }
}
