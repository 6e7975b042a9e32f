//! Stores on a simulated disk, with a clock that stands still.

use std::sync::Arc;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::verify::{VerifyReport, verify};
use logmill_storage::{DataDir, DataDirOptions, ManualClock};

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
