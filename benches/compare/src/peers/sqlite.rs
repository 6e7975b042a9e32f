use std::path::Path;
use std::sync::Mutex;

use rusqlite::Connection;

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "SQLite (WAL)", kind: Kind::Log, open, note: "synchronous = OFF or FULL; no checksum; behind a mutex" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let table = "CREATE TABLE log (id INTEGER PRIMARY KEY, value BLOB NOT NULL)";
    Some(Box::new(Log(Mutex::new(connect(path, level, table)))))
}

pub fn connect(path: &Path, level: Level, table: &str) -> Connection {
    let connection = Connection::open(path.join("log.db")).expect("database");
    let synchronous = if level == Level::Synced { "FULL" } else { "OFF" };
    connection
        .execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; {table}"))
        .expect("set-up");
    connection
}

struct Log(Mutex<Connection>);

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let mut connection = self.0.lock().expect("lock");
        let transaction = connection.transaction().expect("transaction");
        let mut insert = transaction.prepare_cached("INSERT INTO log (value) VALUES (?1)").expect("statement");
        for payload in batch {
            insert.execute([payload]).expect("insert");
        }
        drop(insert);
        transaction.commit().expect("commit");
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let connection = self.0.lock().expect("lock");
        let mut select = connection.prepare("SELECT value FROM log ORDER BY id").expect("statement");
        let mut rows = select.query([]).expect("rows");
        let mut bytes = 0;
        while let Some(row) = rows.next().expect("row") {
            bytes += row.get_ref(0).expect("value").as_blob().expect("bytes").len() as u64;
        }
        bytes
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        let connection = self.0.lock().expect("lock");
        let mut select = connection.prepare_cached("SELECT value FROM log WHERE id = ?1").expect("statement");
        select.query_row([index as i64 + 1], |row| Ok(row.get_ref(0)?.as_blob()?.len())).expect("a row")
    }
}
