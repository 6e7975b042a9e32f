use std::path::Path;

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "okaywal 0.3", kind: Kind::Log, open, note: "prints from its library; one entry for each record" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    (level == Level::Synced).then_some(())?;
    Some(Box::new(Log(Configuration::default_for(path).open(LogVoid).expect("log"))))
}

struct Log(WriteAheadLog);

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let mut entry = self.0.begin_entry().expect("entry");
        for payload in batch {
            entry.write_chunk(payload).expect("chunk");
        }
        entry.commit().expect("commit");
    }
}
