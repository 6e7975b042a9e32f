//! Small stores that are right, to be damaged.

use std::sync::OnceLock;

use logmill_queue::{Queues, QueuesOptions};
use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{
    AppendOptions, Compression, DataDir, Durability, Header, Journal, Log, LogConfig, Producer,
    Record,
};
use logmill_stream::{Streams, StreamsOptions};

use crate::dir_on;

fn fill(log: &Log, from: u64) {
    let headers = [Header { name: "trace", value: b"\x00\x01" }];
    for n in (from..from + 12).step_by(6) {
        log.append(&Record::value(&n.to_le_bytes()).key(b"key")).unwrap();
        let text = Record::value(&[b'.'; 90]).headers(&headers);
        log.append_batch(&[text, Record::tombstone(b"gone"), text]).unwrap();
        let sequence = i32::try_from(n).unwrap() / 6 * 2;
        let producer = Some(Producer { id: 7, epoch: 1, sequence });
        let options = AppendOptions { producer, ..AppendOptions::default() };
        log.append_with(&[Record::value(b"once"), text], &options).unwrap();
    }
}

fn open(disk: &SimDisk, compression: Compression) -> Log {
    let config = LogConfig::default().compression(compression);
    Log::open(&dir_on(disk, false).unwrap(), "1", config).unwrap()
}

fn two_segments() -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    let log = open(&disk, Compression::None);
    fill(&log, 0);
    log.roll().unwrap();
    log.settle().unwrap();
    log.close().unwrap();
    let log = open(&disk, Compression::Lz4);
    fill(&log, 12);
    (disk, log)
}

/// A sealed segment with all that lies beside one, and a compressed tail, closed.
pub fn closed() -> SimDisk {
    let (disk, log) = two_segments();
    log.close().unwrap();
    disk
}

/// The same with a third segment, zstd in it, and an end that power loss has left in doubt.
pub fn crashed() -> SimDisk {
    let (disk, log) = two_segments();
    log.roll().unwrap();
    log.settle().unwrap();
    log.close().unwrap();
    let log = open(&disk, Compression::Zstd);
    fill(&log, 24);
    let options =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    log.append_with(&[Record::value(&[b'?'; 500])], &options).unwrap();
    disk.crash(&CrashPlan::everything());
    disk
}

/// A journal with queues and streams in it. Made once.
pub fn engines() -> &'static SimDisk {
    static ENGINES: OnceLock<SimDisk> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let disk = SimDisk::new(1);
        let dir = dir_on(&disk, false).unwrap();
        let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
        let (queues, streams) = open_engines(&dir, &journal).expect("an empty store opens");
        let queue = queues.create("work", &logmill_queue::QueueConfig::standard()).unwrap();

        for _ in 0..4 {
            queue.send(&logmill_queue::Message::new(b"a message")).unwrap();
        }
        let config = logmill_stream::TopicConfig::new().partitions(2);
        streams.create_topic("events", &config).unwrap();
        drop((queue, queues, streams));
        journal.close().unwrap();
        drop(dir);
        disk
    })
}

/// Opens everything that stands on the journal; `None` if one of them refuses what it finds.
pub fn open_engines(dir: &DataDir, journal: &Journal) -> Option<(Queues, Streams)> {
    let queues = Queues::open_on(dir, journal, QueuesOptions::default()).ok();
    let streams = Streams::open(dir, journal, &StreamsOptions::default()).ok();
    Some((queues?, streams?))
}

/// Entries as the `journal` target has them: owner (u8), length (u16), bytes.
pub fn entries(mut data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut entries = Vec::new();
    while let [owner, low, high, rest @ ..] = data {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        entries.push((u64::from(owner % 4), &rest[..len]));
        data = &rest[len..];
    }
    entries
}
