//! Stores for tests: on a real directory, with a clock that stands still and without background threads.

use std::path::Path;
use std::sync::Arc;

use logmill_storage::{DataDir, DataDirOptions, LogConfig, ManualClock};
use logmill_stream::{Journal, Partition, Streams, StreamsOptions, Topic};

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
