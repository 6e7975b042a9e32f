use std::path::Path;

use redb::{Database, Durability, ReadableTable, ReadableDatabase, TableDefinition};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "redb 4", kind: Kind::Log, open, note: "a key-value tree: the index is the key; buffered: Durability::None, so kill -9 takes it" };

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let database = Database::create(path.join("log.redb")).expect("database");
    Some(Box::new(Log { database, is_synced: level == Level::Synced }))
}

struct Log {
    database: Database,
    is_synced: bool,
}

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let mut write = self.database.begin_write().expect("transaction");
        write.set_durability(if self.is_synced { Durability::Immediate } else { Durability::None }).expect("durability");
        let mut table = write.open_table(TABLE).expect("table");
        for payload in batch {
            let key = u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"));
            table.insert(key, *payload).expect("insert");
        }
        drop(table);
        write.commit().expect("commit");
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let read = self.database.begin_read().expect("transaction");
        let table = read.open_table(TABLE).expect("table");
        table.iter().expect("iterator").map(|entry| entry.expect("entry").1.value().len() as u64).sum()
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        let read = self.database.begin_read().expect("transaction");
        let table = read.open_table(TABLE).expect("table");
        table.get(index).expect("get").expect("a value").value().len()
    }
}
