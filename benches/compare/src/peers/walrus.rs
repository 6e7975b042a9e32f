use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "walrus-rust 0.2", kind: Kind::Log, open, note: "reading consumes; checks a checksum" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    // SAFETY: rounds begin when no other thread of this process reads the environment.
    unsafe {
        std::env::set_var("WALRUS_DATA_DIR", path);
        std::env::set_var("WALRUS_QUIET", "1");
    }
    let schedule = if level == Level::Synced { FsyncSchedule::SyncEach } else { FsyncSchedule::NoFsync };
    let reading = ReadConsistency::AtLeastOnce { persist_every: 100_000 };
    Some(Box::new(Log(Walrus::with_consistency_and_schedule(reading, schedule).expect("log"))))
}

struct Log(Walrus);

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        match batch {
            [one] => self.0.append_for_topic("t", one).expect("append"),
            many => self.0.batch_append_for_topic("t", many).expect("append"),
        }
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let mut bytes = 0;
        loop {
            let entries = self.0.batch_read_for_topic("t", 256 << 10, true).expect("read");
            if entries.is_empty() {
                return bytes;
            }
            bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        }
    }
}
