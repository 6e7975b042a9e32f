use std::path::Path;
use std::sync::Mutex;

use rusqlite::Connection;

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "SQLite job table", kind: Kind::Queue, open, note: "one transaction claims, another deletes" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let table = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, until INTEGER NOT NULL DEFAULT 0, value BLOB NOT NULL);
                 CREATE INDEX ready ON jobs (until, id)";
    Some(Box::new(Queue(Mutex::new(super::sqlite::connect(path, level, table)))))
}

struct Queue(Mutex<Connection>);

impl Engine for Queue {
    fn append(&self, batch: &[&[u8]]) {
        let connection = self.0.lock().expect("lock");
        for payload in batch {
            let mut insert = connection.prepare_cached("INSERT INTO jobs (value) VALUES (?1)").expect("statement");
            insert.execute([payload]).expect("insert");
        }
    }

    fn take(&self) -> bool {
        let connection = self.0.lock().expect("lock");
        let claim = "UPDATE jobs SET until = 30000 WHERE id = (SELECT id FROM jobs WHERE until <= 0 ORDER BY until, id LIMIT 1)
                     RETURNING id, value";
        let mut claim = connection.prepare_cached(claim).expect("statement");
        let Ok((id, _)) = claim.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))) else {
            return false;
        };
        let mut delete = connection.prepare_cached("DELETE FROM jobs WHERE id = ?1").expect("statement");
        delete.execute([id]).expect("delete") == 1
    }
}
