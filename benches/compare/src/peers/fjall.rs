use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "fjall 3", kind: Kind::Log, open, note: "a key-value tree: the index is the key; kill -9 takes nothing" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let database = Database::builder(path).open().expect("database");
    let records = database.keyspace("log", KeyspaceCreateOptions::default).expect("keyspace");
    Some(Box::new(Log { database, records, is_synced: level == Level::Synced }))
}

struct Log {
    database: Database,
    records: Keyspace,
    is_synced: bool,
}

fn key(payload: &[u8]) -> [u8; 8] {
    u64::from_le_bytes(payload[..8].try_into().expect("8 bytes")).to_be_bytes()
}

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        if let [one] = batch {
            self.records.insert(key(one), *one).expect("insert");
        } else {
            let mut write = self.database.batch();
            batch.iter().for_each(|payload| write.insert(&self.records, key(payload), *payload));
            write.commit().expect("commit");
        }
        if self.is_synced {
            self.database.persist(PersistMode::SyncData).expect("sync");
        }
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        self.records.iter().map(|entry| entry.value().expect("value").len() as u64).sum()
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        self.records.get(index.to_be_bytes()).expect("get").expect("a value").len()
    }
}
