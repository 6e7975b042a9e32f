//! logmill, and what the machine itself allows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use logmill_storage::{DataDir, Durability, Log, LogConfig, Record};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEERS: &[Peer] = &[
    Peer {
        name: "logmill",
        kind: Kind::Log,
        open: open_log,
        note: "verifies every checksum that it reads; survives kill -9",
    },
    Peer {
        name: "floor: write(2)",
        kind: Kind::Log,
        open: open_write,
        note: "one write call for each append, zero-written blocks when synced",
    },
    Peer {
        name: "floor: mapped store",
        kind: Kind::Log,
        open: open_mapped,
        note: "lengths and payloads, one CRC-32 for each call, stored into zero-written, present pages; a read verifies the CRC-32",
    },
    Peer {
        name: "logmill",
        kind: Kind::Queue,
        open: open_queue,
        note: "leases for 30 s; survives kill -9",
    },
    Peer {
        name: "logmill",
        kind: Kind::Broker,
        open: open_queue,
        note: "a queue in the process; leases for 30 s",
    },
];

struct Ours {
    log: Log,
    _dir: DataDir,
}

fn open_log(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let durability = match level {
        Level::Buffered => Durability::Buffered,
        Level::Synced => Durability::Sync,
    };
    let dir = DataDir::open(path).expect("directory");
    let log = Log::open(&dir, "1", LogConfig::default().durability(durability)).expect("log");
    Some(Box::new(Ours { log, _dir: dir }))
}

impl Engine for Ours {
    fn append(&self, batch: &[&[u8]]) {
        match batch {
            [one] => _ = self.log.append(&Record::value(one)).expect("append"),
            many => {
                let mut records = [Record::value(b""); 100];
                for (record, value) in records.iter_mut().zip(many) {
                    *record = Record::value(value);
                }
                self.log.append_batch(&records[..many.len()]).expect("append");
            }
        }
    }

    fn scan(&self) -> u64 {
        let mut bytes = 0;
        let mut reader = self.log.reader(0).expect("reader");
        while let Some(batch) = reader.next_batch().expect("batch") {
            bytes += batch
                .records()
                .map(|r| r.expect("record").value.map_or(0, |v| v.len() as u64))
                .sum::<u64>();
        }
        bytes
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        self.log.get(index).expect("get").and_then(|r| r.value).map_or(0, |v| v.len())
    }
}

struct Raw {
    file: File,
    level: Level,
    end: Mutex<u64>,
}

const ZEROED: u64 = 64 << 20;

fn open_write(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let file = File::create_new(path.join("raw")).expect("file");
    if level == Level::Synced {
        let zeros = vec![0; 1 << 20];
        (0..ZEROED >> 20).for_each(|i| file.write_all_at(&zeros, i << 20).expect("zeros"));
        file.sync_all().expect("sync");
    }
    Some(Box::new(Raw { file, level, end: Mutex::new(0) }))
}

impl Engine for Raw {
    fn append(&self, batch: &[&[u8]]) {
        let mut bytes = Vec::with_capacity(8 + batch.iter().map(|b| b.len() + 4).sum::<usize>());
        frame(&mut bytes, batch);
        let mut end = self.end.lock().expect("lock");
        self.file.write_all_at(&bytes, *end).expect("write");
        *end += bytes.len() as u64;
        drop(end);
        if self.level == Level::Synced {
            self.file.sync_data().expect("sync");
        }
    }
}

/// One checksum for the call, and a length before each payload.
fn frame(bytes: &mut Vec<u8>, batch: &[&[u8]]) {
    bytes.extend_from_slice(&[0; 8]);
    for payload in batch {
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    let crc = crc32fast::hash(&bytes[8..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes[4..8].copy_from_slice(&(batch.len() as u32).to_le_bytes());
}

struct Mapped(Mutex<Frames>);

/// Frames in a mapped file; what leads to them is in memory.
struct Frames {
    map: memmap2::MmapMut,
    end: usize,
    /// Where each begins.
    starts: Vec<usize>,
    bytes: Vec<u8>,
}

const MAPPED: usize = 1 << 30;

fn open_mapped(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    if level == Level::Synced {
        return None;
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path.join("mapped"))
        .expect("file");
    let zeros = vec![0; 1 << 20];
    (0..MAPPED >> 20).for_each(|i| file.write_all_at(&zeros, (i << 20) as u64).expect("zeros"));
    // SAFETY: the file is this process's own, in a directory of its own, and nobody cuts it.
    let map = unsafe { memmap2::MmapMut::map_mut(&file).expect("map") };
    let _ = map.advise(memmap2::Advice::PopulateWrite);
    let starts = Vec::with_capacity(4 << 20);
    Some(Box::new(Mapped(Mutex::new(Frames { map, end: 0, starts, bytes: Vec::new() }))))
}

impl Frames {
    /// The payloads of a frame whose checksum is right.
    fn payloads(&self, number: usize) -> impl Iterator<Item = &[u8]> {
        let start = self.starts[number];
        let end = self.starts.get(number + 1).copied().unwrap_or(self.end);
        let (crc, mut left) = (&self.map[start..start + 4], &self.map[start + 8..end]);
        assert_eq!(crc, crc32fast::hash(left).to_le_bytes());
        std::iter::from_fn(move || {
            let (len, rest) = left.split_first_chunk()?;
            let (payload, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
            left = rest;
            Some(payload)
        })
    }
}

impl Engine for Mapped {
    fn append(&self, batch: &[&[u8]]) {
        let Frames { map, end, starts, bytes } = &mut *self.0.lock().expect("lock");
        bytes.clear();
        frame(bytes, batch);
        map[*end..*end + bytes.len()].copy_from_slice(bytes);
        starts.push(*end);
        *end += bytes.len();
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let frames = self.0.lock().expect("lock");
        let numbers = 0..frames.starts.len();
        numbers.flat_map(|number| frames.payloads(number)).map(|p| p.len() as u64).sum()
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        let frames = self.0.lock().expect("lock");
        let (number, within) = (index / 100, index % 100);
        frames.payloads(number as usize).nth(within as usize).map_or(0, |p| p.to_vec().len())
    }
}

struct OurQueue {
    queue: logmill::Queue,
    _store: logmill::Store,
}

fn open_queue(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let durability = match level {
        Level::Buffered => Durability::Buffered,
        Level::Synced => Durability::Sync,
    };
    let store = logmill::Store::builder().durability(durability).open(path).expect("store");
    let queue = store.create_queue("q", &logmill::QueueConfig::standard()).expect("queue");
    Some(Box::new(OurQueue { queue, _store: store }))
}

impl Engine for OurQueue {
    fn append(&self, batch: &[&[u8]]) {
        match batch {
            [one] => _ = self.queue.send(&logmill::Message::new(one)).expect("send"),
            many => {
                let messages: Vec<_> =
                    many.iter().map(|body| logmill::Message::new(body)).collect();
                self.queue.send_batch(&messages).expect("send");
            }
        }
    }

    fn take(&self) -> bool {
        let received = self.queue.receive(&logmill::ReceiveOptions::default()).expect("receive");
        received.first().is_some_and(|message| self.queue.delete(message.receipt()).is_ok())
    }
}
