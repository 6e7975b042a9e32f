//! What a rival can do.

use std::path::Path;

/// What an append's return promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Not synced. The notes say whose records kill -9 takes.
    Buffered,
    /// On the device.
    Synced,
}

/// Whom a row compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Log,
    Queue,
    /// A server of its own, across a socket.
    Broker,
}

/// A log or a queue under test.
pub trait Engine: Sync {
    /// Appends the payloads in one call, or in a loop where the engine has no such call. Each payload begins with its
    /// index: thread in the upper 24 bits, number in the lower 40.
    fn append(&self, batch: &[&[u8]]);
    /// Acknowledges what a buffering engine has kept back; timed with the appends.
    fn finish(&self) {}
    /// Whether [`scan`](Self::scan) is there.
    fn can_scan(&self) -> bool {
        false
    }
    /// Reads everything in order and returns the bytes of all payloads.
    fn scan(&self) -> u64 {
        unimplemented!("asked first")
    }
    /// Whether [`get`](Self::get) is there.
    fn can_get(&self) -> bool {
        false
    }
    /// Reads the record at `index` and returns its length.
    fn get(&self, _index: u64) -> usize {
        unimplemented!("asked first")
    }
    /// Receives one message and deletes it; `false` if there is none.
    fn take(&self) -> bool {
        unimplemented!("queues have it")
    }
}

/// How to open a rival.
pub struct Peer {
    pub name: &'static str,
    pub kind: Kind,
    /// `None`: not at this level.
    pub open: fn(&Path, Level) -> Option<Box<dyn Engine>>,
    /// What its number does not say.
    pub note: &'static str,
}
