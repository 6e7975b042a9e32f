//! Stores for tests: on a real directory, with a clock that stands still and without background threads.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::{DataDir, DataDirOptions, Journal, LogConfig, ManualClock};
use logmill_stream::{
    Consumer, ConsumerConfig, Partition, Records, StartAt, Streams, StreamsOptions, Topic,
    TopicConfig, TopicPartition,
};

/// When the tests' clocks start: 2023-11-14T22:13:20Z.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// An open store.
pub struct TestStore {
    pub dir: DataDir,
    pub journal: Journal,
    pub streams: Streams,
    pub clock: Arc<ManualClock>,
}

impl TestStore {
    pub fn open(path: &Path) -> TestStore {
        TestStore::with(path, &StreamsOptions::default())
    }

    pub fn with(path: &Path, options: &StreamsOptions) -> TestStore {
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let dir = DataDirOptions::new().threads(0).clock(clock.clone()).open(path).unwrap();
        TestStore::of(dir, clock, options)
    }

    /// On a simulated disk.
    pub fn on(disk: &SimDisk) -> TestStore {
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let dir =
            DataDirOptions::new().threads(0).clock(clock.clone()).open_with(disk.io()).unwrap();
        TestStore::of(dir, clock, &StreamsOptions::default())
    }

    fn of(dir: DataDir, clock: Arc<ManualClock>, options: &StreamsOptions) -> TestStore {
        let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
        let streams = Streams::open(&dir, &journal, options).unwrap();
        TestStore { dir, journal, streams, clock }
    }

    pub fn close(self) {
        self.streams.close().unwrap();
        self.journal.close().unwrap();
    }
}

/// All values of a partition, as text.
pub fn values(partition: &Partition) -> Vec<String> {
    let mut values = Vec::new();
    let mut reader = partition.reader(partition.start_offset().unwrap()).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

/// The values of all partitions, one after the other.
pub fn all_values(topic: &Topic) -> Vec<String> {
    topic.partitions().iter().flat_map(values).collect()
}

impl TestStore {
    /// A topic with as many partitions.
    pub fn topic(&self, name: &str, partitions: u32) -> Topic {
        self.streams.create_topic(name, &TopicConfig::new().partitions(partitions)).unwrap()
    }

    /// A consumer that begins with the first record and commits only when told.
    pub fn consumer(&self, group: &str) -> Consumer {
        self.consumer_with(group, manual())
    }

    pub fn consumer_with(&self, group: &str, config: ConsumerConfig) -> Consumer {
        self.streams.consumer(group, config).unwrap()
    }

    /// As [`TestStore::consumer`], subscribed to one topic.
    pub fn subscriber(&self, group: &str, topic: &str) -> Consumer {
        let mut consumer = self.consumer(group);
        consumer.subscribe(&[topic]).unwrap();
        consumer
    }
}

pub fn manual() -> ConsumerConfig {
    ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None)
}

/// Appends text to a partition.
pub fn append(topic: &Topic, partition: u32, values: &[&str]) {
    for value in values {
        let record = logmill_storage::Record::value(value.as_bytes());
        topic.partition(partition).unwrap().append(&record).unwrap();
    }
}

/// The values of polled records, as text.
pub fn texts(records: &Records) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap())
        .collect()
}

/// Polls until there is nothing more, without waiting.
pub fn drain(consumer: &mut Consumer) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(texts(&records));
    }
}

pub fn named(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

/// The partition numbers that a consumer reads.
pub fn numbers(consumer: &Consumer) -> Vec<u32> {
    consumer.assignment().iter().map(|partition| partition.partition).collect()
}

/// Lets all consumers of a group take part in a rebalance, without reading anything.
pub fn settle(consumers: &mut [&mut Consumer]) {
    for _ in 0..3 {
        for consumer in consumers.iter_mut() {
            consumer.heartbeat().unwrap();
        }
    }
}
