use std::path::Path;
use std::sync::Mutex;

use queue_file::QueueFile;

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "queue-file 2", kind: Kind::Queue, open, note: "first in, first out; no lease" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let mut queue = QueueFile::open(path.join("queue")).expect("queue");
    queue.set_sync_writes(level == Level::Synced);
    Some(Box::new(Queue(Mutex::new(Owned(queue)))))
}

struct Queue(Mutex<Owned>);

struct Owned(QueueFile);

// SAFETY: the queue is used by one thread at a time, behind the mutex, and moves with nothing of its thread.
unsafe impl Send for Owned {}

impl Engine for Queue {
    fn append(&self, batch: &[&[u8]]) {
        self.0.lock().expect("lock").0.add_n(batch).expect("add");
    }

    fn take(&self) -> bool {
        let queue = &mut self.0.lock().expect("lock").0;
        let taken = queue.peek().expect("peek");
        taken.is_some() && queue.remove().is_ok()
    }
}
