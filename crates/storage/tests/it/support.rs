//! Stores on a simulated disk, with a clock that stands still.

use std::sync::Arc;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::verify::{VerifyReport, verify};
use logmill_storage::{DataDir, DataDirOptions, Error, Log, ManualClock, RecordBuf};

/// A disk, a clock, and processes on them.
pub struct Bench {
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
}

impl Bench {
    pub fn new(seed: u64) -> Bench {
        Bench { disk: SimDisk::new(seed), clock: Arc::new(ManualClock::at(1_700_000_000_000)) }
    }

    /// The same clock and another machine in the same state.
    pub fn fork(&self, seed: u64) -> Bench {
        Bench { disk: self.disk.fork(seed), clock: Arc::clone(&self.clock) }
    }

    /// Opens the store; background work is done by `tick` alone.
    pub fn dir(&self) -> DataDir {
        self.options().open_with(self.disk.io()).unwrap()
    }

    pub fn options(&self) -> DataDirOptions {
        DataDirOptions::new().threads(0).clock(Arc::<ManualClock>::clone(&self.clock))
    }

    pub fn verify(&self) -> VerifyReport {
        let dir = self.options().read_only(true).open_with(self.disk.io()).unwrap();
        verify(&dir, &mut |_| {}).unwrap()
    }

    /// The files of a log whose names end with `.extension`, in order.
    pub fn files(&self, log: &str, extension: &str) -> Vec<String> {
        let within = |path: &&String| {
            path.strip_prefix(log)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|name| !name.contains('/') && name.ends_with(extension))
        };
        self.disk.paths().iter().filter(within).cloned().collect()
    }
}

/// Everything that a reader gets from the log's start on.
pub fn records(log: &Log) -> Vec<RecordBuf> {
    let mut records = Vec::new();
    let mut reader = log.reader(log.start_offset()).unwrap();
    reader
        .for_each(|record| {
            records.push(RecordBuf::from(record));
            Ok::<_, Error>(())
        })
        .unwrap();
    records
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
