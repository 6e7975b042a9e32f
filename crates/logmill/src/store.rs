//! A store: a directory with topics and queues in it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use logmill_queue::{Queue, QueueConfig, Queues, QueuesOptions};
use logmill_storage::backup::{BackupReport, RestoreReport, restore};
use logmill_storage::verify::{VerifyProgress, VerifyReport};
use logmill_storage::{
    Clock, DataDir, DataDirOptions, Durability, Journal, LogRecovery, Owner, Publisher, Reclaimed,
    Task, Tell,
};
use logmill_stream::{
    Consumer, ConsumerConfig, GroupDescription, GroupKind, Producer, ProducerConfig, ResetTo,
    ShareConsumer, ShareConsumerConfig, Streams, StreamsOptions, Topic, TopicConfig,
};

use crate::error::Result;
use crate::stats::Stats;

/// The journal is the log with this name; topics have ids from 1.
const JOURNAL: &str = "0";
/// How often the journal's old segments are looked at.
const RECLAIM_EVERY: Duration = Duration::from_secs(10);

/// How to open a [`Store`].
#[derive(Clone, Debug, Default)]
pub struct StoreBuilder {
    dir: DataDirOptions,
    streams: StreamsOptions,
    queues: QueuesOptions,
}

impl StoreBuilder {
    /// Opens for reading only: beside a live writer in this or another process, without ever writing a byte. Default no.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.dir = self.dir.read_only(read_only);
        self
    }

    /// How long to wait for another writer to go before [`Error::Locked`](logmill_storage::Error::Locked). Default: not at
    /// all.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.dir = self.dir.lock_wait(wait);
        self
    }

    /// How many threads do the background work, default 2. With 0 it is done by [`Store::tick`].
    pub fn threads(mut self, threads: usize) -> Self {
        self.dir = self.dir.threads(threads);
        self
    }

    /// Where time comes from, default the system.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.dir = self.dir.clock(clock);
        self
    }

    /// How many partitions keep their files open at most, unless more are in use at once. Default 256.
    pub fn open_partitions_max(mut self, partitions: usize) -> Self {
        self.streams = self.streams.open_partitions_max(partitions);
        self
    }

    /// What an acknowledgement means where nothing else says: for topics made from now on without a durability, for messages
    /// where neither the queue nor the call says, and for commits of positions. Default [`Durability::Sync`]: it survives
    /// power loss.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.streams = self.streams.durability(durability);
        self.queues = self.queues.durability(durability);
        self
    }

    /// How large a segment of the journal becomes, which holds messages and positions: 64 KiB to 1 GiB, default 64 MiB.
    /// Space is given back by whole segments.
    pub fn journal_segment_bytes(mut self, bytes: u64) -> Self {
        self.queues = self.queues.segment_bytes_max(bytes);
        self
    }

    /// How long a group without members is remembered, default 7 days; `None` for ever.
    pub fn offsets_retention(mut self, time: Option<Duration>) -> Self {
        self.streams = self.streams.offsets_retention(time);
        self
    }

    /// How many bytes of compacted topics the background reads in a second, to compact them: at least 1, default 64 MiB. It
    /// reads a segment, or a tenth of it, at a time and rests in between.
    pub fn compaction_bytes_per_second(mut self, bytes: u64) -> Self {
        self.streams = self.streams.compaction_bytes_per_second(bytes);
        self
    }

    /// Opens the store in `path`; for writing, the directory is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage): [`Locked`](logmill_storage::Error::Locked) by another writer, corrupt, a backup
    /// ([`IsBackup`](logmill_storage::Error::IsBackup)), or refused by the system.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let dir = self.dir.open(path)?;
        dir.refuse_backup()?;
        if dir.is_read_only() {
            let streams = Streams::follow(&dir, &self.streams)?;
            let queues = Queues::follow(&dir, self.queues)?;
            return Ok(Store { dir, journal: None, streams, queues, _keeper: None, page: None });
        }
        // A snapshot of everything about streams is one record.
        let journal =
            Journal::open(&dir, JOURNAL, self.queues.journal_config().record_bytes_max(1 << 30))?;
        let streams = Streams::open(&dir, &journal, &self.streams)?;
        let queues = Queues::open_on(&dir, &journal, self.queues)?;
        let keeper = Arc::new(Keeper {
            dir: dir.clone(),
            journal: journal.clone(),
            streams: streams.clone(),
            queues: queues.clone(),
            at_work: Mutex::default(),
        });
        let task: Arc<dyn Task> = Arc::<Keeper>::clone(&keeper);
        dir.every(RECLAIM_EVERY, Arc::downgrade(&task));
        queues.when_much_is_journaled(Arc::downgrade(&task));
        let tell: Arc<dyn Tell> = keeper;
        let page = Some(Arc::new(dir.publish(Arc::downgrade(&tell))));
        Ok(Store {
            dir,
            journal: Some(journal),
            streams,
            queues: Some(queues),
            _keeper: Some(task),
            page,
        })
    }
}

/// Gives back the journal's space.
#[derive(Debug)]
struct Keeper {
    dir: DataDir,
    journal: Journal,
    streams: Streams,
    queues: Queues,
    /// Held while space is given back, so that it is done once at a time.
    at_work: Mutex<()>,
}

impl Keeper {
    fn give_back(&self) {
        let _once = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        // What fails here is tried again, and nothing is lost meanwhile.
        let done = self.reclaim();
        done.iter().for_each(|done| self.queues.note_reclaimed(done));
        self.dir.note("journal", &done.map(|_| ()));
    }

    fn reclaim(&self) -> logmill_storage::Result<Reclaimed> {
        let queues = self.queues.owner();
        self.streams.with_owners(|streams| {
            let owners: Vec<&dyn Owner> =
                streams.iter().copied().chain([queues.as_ref()]).collect();
            self.journal.reclaim(&owners)
        })
    }

    /// What cannot be told now is told next time.
    #[cfg(feature = "metrics")]
    fn publish(&self) {
        self.dir.activity().publish();
        let queues = self.queues.stats().unwrap_or_default();
        queues.iter().for_each(logmill_queue::QueueStats::publish);
        let groups = self.streams.group_stats().unwrap_or_default();
        groups.iter().for_each(logmill_stream::GroupStats::publish);
    }
}

impl Tell for Keeper {
    /// What costs little: a group's lag would open its partitions.
    fn tell(&self) -> String {
        let (activity, health) = (self.dir.activity(), self.dir.health());
        let queues = self.queues.stats().unwrap_or_default();
        Stats { activity, health, queues, ..Stats::default() }.to_string()
    }
}

impl Task for Keeper {
    fn run(self: Arc<Self>) {
        self.give_back();
        #[cfg(feature = "metrics")]
        self.publish();
    }
}

/// An open store. Clones share it; every method may be called from any thread.
///
/// Dropping the last clone is as a crash: nothing that was acknowledged is lost, and the next open has more to do than
/// after [`Store::close`].
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) dir: DataDir,
    /// `None` in a store that is open for reading.
    journal: Option<Journal>,
    pub(crate) streams: Streams,
    /// `None` in a store that is open for reading and was never written to.
    pub(crate) queues: Option<Queues>,
    /// Works as long as the store is open; `None` in a store that is open for reading.
    _keeper: Option<Arc<dyn Task>>,
    /// What it says of itself, once a second; `None` in a store that is open for reading.
    page: Option<Arc<Publisher>>,
}

impl Store {
    /// How to open a store otherwise than [`Store::open`] does.
    pub fn builder() -> StoreBuilder {
        StoreBuilder::default()
    }

    /// Opens the store in `path` for writing, and makes it if it is not there.
    ///
    /// # Errors
    /// As [`StoreBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Store::builder().open(path)
    }

    /// The store's directory.
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// What opening the journal (logs `0` and `0/1`) and the partitions that were used so far has found, where a log had not
    /// been closed: above all, which bytes were set aside in `quarantine/` since they may have been acknowledged.
    pub fn recovery(&self) -> Vec<LogRecovery> {
        self.dir.recovery()
    }

    /// Creates a topic. It is there, durably, when this returns.
    ///
    /// # Errors
    /// [`TopicExists`](logmill_stream::Error::TopicExists), [`InvalidName`](logmill_stream::Error::InvalidName),
    /// [`InvalidPartitions`](logmill_stream::Error::InvalidPartitions),
    /// [`InvalidSetting`](logmill_stream::Error::InvalidSetting); [`Error::Storage`](crate::Error::Storage).
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        Ok(self.streams.create_topic(name, &config)?)
    }

    /// The topic called `name`, created if there is none, as a service wants it that starts for the second time. One that is
    /// there keeps its partitions and settings, whatever `config` says: see [`Topic::alter`].
    ///
    /// # Errors
    /// As [`Store::create_topic`], but for a topic that exists.
    pub fn ensure_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        Ok(self.streams.ensure_topic(name, &config)?)
    }

    /// The topic called `name`. A store that is open for reading finds those that its writer has made meanwhile.
    ///
    /// # Errors
    /// [`UnknownTopic`](logmill_stream::Error::UnknownTopic); [`Error::Storage`](crate::Error::Storage).
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(self.streams.topic(name)?)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn topics(&self) -> Result<Vec<Topic>> {
        Ok(self.streams.topics()?)
    }

    /// Deletes a topic with its records and every group's positions in it.
    ///
    /// # Errors
    /// [`UnknownTopic`](logmill_stream::Error::UnknownTopic); [`Error::Storage`](crate::Error::Storage).
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        Ok(self.streams.delete_topic(name)?)
    }

    /// A producer with the defaults: records linger up to 5 ms to make batches, and each topic says what an
    /// acknowledgement means.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn producer(&self) -> Result<Producer> {
        self.producer_with(ProducerConfig::new())
    }

    /// A producer.
    ///
    /// # Errors
    /// [`InvalidName`](logmill_stream::Error::InvalidName); [`Error::Storage`](crate::Error::Storage).
    pub fn producer_with(&self, config: ProducerConfig) -> Result<Producer> {
        Ok(self.streams.producer(config)?)
    }

    /// A consumer of `group`, which is made if there is none, with the defaults: Kafka's, so a new group begins after the
    /// last record, and positions are committed every 5 seconds. It reads nothing before it subscribes.
    ///
    /// # Errors
    /// As [`Store::consumer_with`].
    pub fn consumer(&self, group: &str) -> Result<Consumer> {
        self.consumer_with(group, ConsumerConfig::new())
    }

    /// A consumer of `group`, which is made if there is none.
    ///
    /// # Errors
    /// [`InvalidName`](logmill_stream::Error::InvalidName), [`GroupKind`](logmill_stream::Error::GroupKind);
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn consumer_with(&self, group: &str, config: ConsumerConfig) -> Result<Consumer> {
        Ok(self.streams.consumer(group, config)?)
    }

    /// A consumer of the share group `group`, which is made if there is none: any number of them share the records of a
    /// partition, and each record is leased and acknowledged by itself. It reads nothing before it subscribes.
    ///
    /// # Errors
    /// [`InvalidName`](logmill_stream::Error::InvalidName), [`GroupKind`](logmill_stream::Error::GroupKind),
    /// [`UnknownTopic`](logmill_stream::Error::UnknownTopic) for the dead-letter topic;
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn share_consumer(
        &self,
        group: &str,
        config: ShareConsumerConfig,
    ) -> Result<ShareConsumer> {
        Ok(self.streams.share_consumer(group, config)?)
    }

    /// All groups, by name. A store that is open for reading finds those that its writer has made meanwhile.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn groups(&self) -> Result<Vec<(String, GroupKind)>> {
        Ok(self.streams.groups()?)
    }

    /// What a group is doing, how far it has come, and its lag.
    ///
    /// # Errors
    /// [`UnknownGroup`](logmill_stream::Error::UnknownGroup); [`Error::Storage`](crate::Error::Storage).
    pub fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        Ok(self.streams.describe_group(group)?)
    }

    /// Sends a group without members elsewhere in a topic, in all its partitions.
    ///
    /// # Errors
    /// [`UnknownGroup`](logmill_stream::Error::UnknownGroup), [`UnknownTopic`](logmill_stream::Error::UnknownTopic),
    /// [`GroupActive`](logmill_stream::Error::GroupActive); [`Error::Storage`](crate::Error::Storage).
    pub fn reset_group(&self, group: &str, topic: &str, to: ResetTo) -> Result<()> {
        Ok(self.streams.reset_group(group, topic, to)?)
    }

    /// Deletes a group without members, with all its positions.
    ///
    /// # Errors
    /// [`UnknownGroup`](logmill_stream::Error::UnknownGroup), [`GroupActive`](logmill_stream::Error::GroupActive);
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn delete_group(&self, group: &str) -> Result<()> {
        Ok(self.streams.delete_group(group)?)
    }

    /// Creates a queue, or finds the one that exists with the same value for every attribute that `config` sets. It is
    /// there, durably, when this returns.
    ///
    /// # Errors
    /// [`QueueNameExists`](logmill_queue::Error::QueueNameExists), [`InvalidQueueName`](logmill_queue::Error::InvalidQueueName),
    /// [`OutOfBounds`](logmill_queue::Error::OutOfBounds), [`QueueDoesNotExist`](logmill_queue::Error::QueueDoesNotExist) for
    /// the dead-letter queue; [`Error::Storage`](crate::Error::Storage).
    pub fn create_queue(&self, name: &str, config: &QueueConfig) -> Result<Queue> {
        match &self.queues {
            Some(queues) => Ok(queues.create(name, config)?),
            None => Err(logmill_storage::Error::ReadOnly { path: self.path() }.into()),
        }
    }

    /// The queue called `name`.
    ///
    /// # Errors
    /// [`QueueDoesNotExist`](logmill_queue::Error::QueueDoesNotExist).
    pub fn queue(&self, name: &str) -> Result<Queue> {
        Ok(self.queues_with(name)?.queue(name)?)
    }

    /// The queues, of which a store that was never written to has none.
    fn queues_with(&self, name: &str) -> Result<&Queues> {
        let missing = || logmill_queue::Error::QueueDoesNotExist { name: name.to_owned() };
        Ok(self.queues.as_ref().ok_or_else(missing)?)
    }

    /// The names of the queues that begin with `prefix`, in order.
    pub fn queues(&self, prefix: &str) -> Vec<String> {
        self.queues.as_ref().map_or_else(Vec::new, |queues| queues.list(prefix))
    }

    /// Deletes a queue with everything in it, durably.
    ///
    /// # Errors
    /// [`QueueDoesNotExist`](logmill_queue::Error::QueueDoesNotExist), [`QueueInUse`](logmill_queue::Error::QueueInUse);
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn delete_queue(&self, name: &str) -> Result<()> {
        Ok(self.queues_with(name)?.delete(name)?)
    }

    /// Copies the store into the directory `target`, beside whoever writes to it: what readers see at one moment. Into the
    /// backup of an earlier moment only what is new is copied, and that one counts until this one is complete and durable.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) or [`Error::Stream`](crate::Error::Stream), as
    /// [`backup`](logmill_stream::backup()), which also tells how far it has come.
    /// # Cost
    /// Reads, verifies and writes all that is new.
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<BackupReport> {
        let source = DataDirOptions::new().read_only(true).open(self.path())?;
        Ok(logmill_stream::backup(&source, &DataDir::open(target)?, &mut |_| {})?)
    }

    /// Makes a store in `target`, which is new or empty, of the backup in `source`. Positions and receipts that were given
    /// out after the backup are recognised, and refused.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage), as [`restore`], which also tells how far it has come.
    /// # Cost
    /// Reads every byte of the backup, writes it, and reads it again.
    pub fn restore(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<RestoreReport> {
        let source = DataDirOptions::new().read_only(true).open(source)?;
        Ok(restore(&source, &DataDir::open(target)?, &mut |_| {})?)
    }

    /// Verifies every byte of the store in `path`, beside whoever writes to it, and that every log that its journal knows of
    /// is there; changes nothing. `progress` is told how far it is.
    ///
    /// `Ok` means that the store was looked at, not that it is sound: see
    /// [`VerifyReport::worst`](logmill_storage::verify::VerifyReport).
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the directory cannot be listed. Whatever is wrong in it is a finding.
    /// # Cost
    /// Reads every byte of every segment once, and the journal twice.
    pub fn verify(
        path: impl AsRef<Path>,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport> {
        let dir = DataDirOptions::new().read_only(true).open(path)?;
        Ok(logmill_stream::verify(&dir, progress)?)
    }

    /// Does the background work that is due, on this thread: for a store with [`StoreBuilder::threads`] 0.
    pub fn tick(&self) {
        self.dir.tick();
    }

    /// Makes everything durable and closes the store, for all its clones and whatever came from it: topics, queues, producers
    /// and consumers get errors from then on, and the directory can be opened again at once.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage): the first error of a part; every part was closed all the same.
    pub fn close(self) -> Result<()> {
        self.dir.stop_background();
        self.page.iter().for_each(|page| page.end());
        let queues = self.queues.map_or(Ok(()), Queues::close);
        let streams = self.streams.close();
        let journal = self.journal.map_or(Ok(()), Journal::close);
        self.dir.close();
        queues?;
        streams?;
        Ok(journal?)
    }
}
