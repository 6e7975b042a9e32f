use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine as RaftEngine, LogBatch, MessageExt, ReadableSize};

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "raft-engine 0.4", kind: Kind::Log, open, note: "a raft group for each thread; checks a checksum; compression off, as the payloads would shrink" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let config = Config {
        dir: path.to_str().expect("UTF-8").to_owned(),
        batch_compression_threshold: ReadableSize::kb(0),
        purge_threshold: ReadableSize::gb(10),
        ..Config::default()
    };
    let engine = RaftEngine::open(config).expect("engine");
    Some(Box::new(Log { engine, is_synced: level == Level::Synced }))
}

struct Log {
    engine: RaftEngine,
    is_synced: bool,
}

struct Entries;

const MASK: u64 = (1 << 40) - 1;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        (number(&entry.value) & MASK) + 1
    }
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"))
}

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        let entries: Vec<BytesValue> = batch
            .iter()
            .map(|payload| BytesValue { value: payload.to_vec(), ..BytesValue::default() })
            .collect();
        let mut log_batch = LogBatch::with_capacity(batch.len());
        log_batch.add_entries::<Entries>((number(batch[0]) >> 40) + 1, &entries).expect("entries");
        self.engine.write(&mut log_batch, self.is_synced).expect("write");
    }

    fn can_scan(&self) -> bool {
        true
    }

    fn scan(&self) -> u64 {
        let (mut next, mut bytes) = (1, 0);
        let end = self.engine.last_index(1).expect("entries") + 1;
        let mut entries = Vec::new();
        while next < end {
            entries.clear();
            let upto = end.min(next + 1000);
            self.engine.fetch_entries_to::<Entries>(1, next, upto, None, &mut entries).expect("fetch");
            bytes += entries.iter().map(|entry| entry.value.len() as u64).sum::<u64>();
            next = upto;
        }
        bytes
    }

    fn can_get(&self) -> bool {
        true
    }

    fn get(&self, index: u64) -> usize {
        self.engine.get_entry::<Entries>(1, index + 1).expect("get").expect("an entry").value.len()
    }
}
