//! A store: a directory with topics in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::{Clock, DataDir, DataDirOptions, LogConfig};
use logmill_stream::{Journal, Streams, StreamsOptions, Topic, TopicConfig};

use crate::error::Result;

/// The journal is the log with this name; topics have ids from 1.
const JOURNAL: &str = "0";

/// How to open a [`Store`].
#[derive(Clone, Debug, Default)]
pub struct StoreBuilder {
    dir: DataDirOptions,
    streams: StreamsOptions,
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

    /// Opens the store in `path`; for writing, the directory is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage): [`Locked`](logmill_storage::Error::Locked) by another writer, corrupt, or
    /// refused by the system.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let dir = self.dir.open(path)?;
        let journal = Journal::open(&dir, JOURNAL, LogConfig::default())?;
        let streams = Streams::open(&dir, &journal, &self.streams)?;
        Ok(Store { dir, journal, streams })
    }
}

/// An open store. Clones share it; every method may be called from any thread.
///
/// Dropping the last clone is as a crash: nothing that was acknowledged is lost, and the next open has more to do than
/// after [`Store::close`].
#[derive(Clone, Debug)]
pub struct Store {
    dir: DataDir,
    journal: Journal,
    streams: Streams,
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

    /// Creates a topic. It is there, durably, when this returns.
    ///
    /// # Errors
    /// [`TopicExists`](logmill_stream::Error::TopicExists), [`InvalidName`](logmill_stream::Error::InvalidName),
    /// [`InvalidPartitions`](logmill_stream::Error::InvalidPartitions),
    /// [`InvalidSetting`](logmill_stream::Error::InvalidSetting); [`Error::Storage`](crate::Error::Storage).
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        Ok(self.streams.create_topic(name, &config)?)
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

    /// Does the background work that is due, on this thread: for a store with [`StoreBuilder::threads`] 0.
    pub fn tick(&self) {
        self.dir.tick();
    }

    /// Makes everything durable and closes the store, for all its clones.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage): the first error of a part; every part was closed all the same.
    pub fn close(self) -> Result<()> {
        self.dir.stop_background();
        let streams = self.streams.close();
        let journal = self.journal.close();
        streams?;
        journal?;
        Ok(())
    }
}
