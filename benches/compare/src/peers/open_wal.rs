use std::path::Path;
use std::sync::Mutex;

use open_wal::{Lsn, Wal, WalConfig};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "open-wal 0.2", kind: Kind::Log, open, note: "buffered: in memory until a commit, so kill -9 takes it; behind a mutex; checks a checksum" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let (wal, _) = Wal::open(path, WalConfig::default()).expect("log");
    Some(Box::new(Log { wal: Mutex::new((wal, 0)), is_synced: level == Level::Synced }))
}

struct Log {
    wal: Mutex<(Wal, u64)>,
    is_synced: bool,
}

/// What is kept in memory before a commit of a buffered row.
const KEPT: u64 = 1 << 20;

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let (wal, kept) = &mut *self.wal.lock().expect("lock");
        for payload in batch {
            wal.append(payload).expect("append");
            *kept += payload.len() as u64;
        }
        if self.is_synced || *kept > KEPT {
            wal.commit().expect("commit");
            *kept = 0;
        }
    }

    fn finish(&self) {
        self.wal.lock().expect("lock").0.commit().expect("commit");
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let (wal, _) = &*self.wal.lock().expect("lock");
        let (mut reader, mut bytes) = (wal.reader_from(Lsn(0)).expect("reader"), 0);
        while let Some(record) = reader.next() {
            bytes += record.expect("record").1.len() as u64;
        }
        bytes
    }
}
