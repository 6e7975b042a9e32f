use std::path::Path;
use std::sync::Mutex;

use yaque::{Receiver, Sender};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "yaque 0.6", kind: Kind::Queue, open, note: "never synced; no lease: a message that is received is gone with its process's next commit" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    (level == Level::Buffered).then_some(())?;
    let (sender, receiver) = yaque::channel(path.join("queue")).expect("queue");
    Some(Box::new(Queue { sender: Mutex::new(sender), receiver: Mutex::new(receiver) }))
}

struct Queue {
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
}

impl Engine for Queue {
    fn append(&self, batch: &[&[u8]]) {
        let mut sender = self.sender.lock().expect("lock");
        for payload in batch {
            sender.try_send(payload).ok().expect("send");
        }
    }

    fn take(&self) -> bool {
        let mut receiver = self.receiver.lock().expect("lock");
        let taken = receiver.try_recv();
        taken.is_ok_and(|message| message.commit().is_ok())
    }
}
