use std::path::Path;

use heed::byteorder::BE;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "LMDB (heed 0.22)", kind: Kind::Log, open, note: "no checksum; buffered: NO_SYNC, a transaction for each append" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let mut options = EnvOpenOptions::new();
    options.map_size(4 << 30);
    if level == Level::Buffered {
        // SAFETY: a crash of the machine may lose the file, and the round is over then.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: nobody else has the file, which is in a directory of its own.
    let env = unsafe { options.open(path).expect("environment") };
    let mut write = env.write_txn().expect("transaction");
    let records = env.create_database(&mut write, None).expect("database");
    write.commit().expect("commit");
    Some(Box::new(Log { env, records, is_appended: level == Level::Buffered }))
}

struct Log {
    env: Env,
    records: Database<U64<BE>, Bytes>,
    is_appended: bool,
}

fn key(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"))
}

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let mut write = self.env.write_txn().expect("transaction");
        for payload in batch {
            // With several threads the keys do not arrive in order.
            let flags = if self.is_appended { PutFlags::APPEND } else { PutFlags::empty() };
            self.records.put_with_flags(&mut write, flags, &key(payload), payload).expect("put");
        }
        write.commit().expect("commit");
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let read = self.env.read_txn().expect("transaction");
        let records = self.records.iter(&read).expect("iterator");
        records.map(|entry| entry.expect("entry").1.len() as u64).sum()
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        let read = self.env.read_txn().expect("transaction");
        self.records.get(&read, &index).expect("get").expect("a value").len()
    }
}
