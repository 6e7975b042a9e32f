use std::path::Path;
use std::sync::Mutex;

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "commitlog 0.2", kind: Kind::Log, open, note: "never synced; a scan checks no checksum" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    (level == Level::Buffered).then_some(())?;
    let mut options = LogOptions::new(path);
    options.segment_max_bytes(1 << 30).index_max_items(20_000_000);
    Some(Box::new(Log(Mutex::new(CommitLog::new(options).expect("log")))))
}

struct Log(Mutex<CommitLog>);

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let mut log = self.0.lock().expect("lock");
        if let [one] = batch {
            log.append_msg(one).expect("append");
        } else {
            let mut messages = MessageBuf::default();
            batch.iter().for_each(|payload| messages.push(payload).expect("message"));
            log.append(&mut messages).expect("append");
        }
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let log = self.0.lock().expect("lock");
        let (mut next, mut bytes) = (0, 0);
        while next < log.next_offset() {
            for message in log.read(next, ReadLimit::max_bytes(256 << 10)).expect("read").iter() {
                bytes += message.payload().len() as u64;
                next = message.offset() + 1;
            }
        }
        bytes
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        let log = self.0.lock().expect("lock");
        let read = log.read(index, ReadLimit::max_bytes(256)).expect("read");
        read.iter().next().expect("a message").payload().len()
    }
}
