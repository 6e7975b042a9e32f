//! Records under a few keys, compacted over and over.

use std::collections::HashSet;
use std::path::Path;

use logmill::storage::{AppendOptions, Durability, Log, LogConfig, Record};
use logmill_torture::random::{Random, mix};

use super::{Level, Seen, Workload, dir, payload, refused};
use crate::history::{History, Moment, Violation, judge};
use crate::tools::{Outcome, failed};

const KEYS: u64 = 40;

/// One record after another.
#[derive(Debug, Default)]
pub struct Compaction {
    appends: History,
}

/// The key of the record at an offset.
fn key(offset: u64) -> [u8; 8] {
    (mix(offset) % KEYS).to_le_bytes()
}

fn open(store: &Path) -> logmill::storage::Result<Log> {
    Log::open(&dir(store)?, "1", LogConfig::default().segment_bytes_max(16 << 10))
}

impl Workload for Compaction {
    fn play(
        &mut self,
        store: &Path,
        operations: usize,
        level: Level,
        random: &mut Random,
        now: &dyn Fn() -> Moment,
    ) -> Outcome {
        let log = open(store).map_err(failed("open"))?;
        let durability = if level == Level::Sync { Durability::Sync } else { Durability::Buffered };
        let options = AppendOptions { durability: Some(durability), ..AppendOptions::default() };
        let mut removed = 0;
        for offset in 0..operations as u64 {
            self.appends.begin(now());
            let value = payload(offset);
            log.append_with(&[Record::value(&value).key(&key(offset))], &options)
                .map_err(failed("append"))?;
            if level != Level::Buffered {
                self.appends.acknowledge(self.appends.begun(), now());
            } else if random.once_in(20) {
                log.sync().map_err(failed("sync"))?;
                self.appends.acknowledge(self.appends.begun(), now());
            }
            if random.once_in(50) {
                if level != Level::Lying {
                    log.settle().map_err(failed("settle"))?;
                }
                removed += log.compact().map_err(failed("compaction"))?.records_removed;
            }
        }
        if removed == 0 && level != Level::Lying {
            return Err("compaction removed nothing".to_owned());
        }
        Ok(())
    }

    fn check(&self, store: &Path, moment: Moment) -> Result<Seen, Violation> {
        let log = open(store).map_err(refused("open"))?;
        let end = log.end_offset();
        let legal = self.appends.legal(moment);
        judge(usize::try_from(end).unwrap_or(usize::MAX), &legal)?;
        let mut found = HashSet::new();
        let mut least = 0;
        let mut reader = log.reader(0).map_err(refused("reader"))?;
        while let Some(batch) = reader.next_batch().map_err(refused("reading"))? {
            for record in batch.records() {
                let record = record.map_err(refused("decoding"))?;
                let offset = record.offset;
                if offset < least {
                    return Err(Violation::Reordered(format!("{offset} after {least}")));
                }
                let value = payload(offset);
                if (record.key, record.value) != (Some(&key(offset)), Some(&value)) {
                    return Err(Violation::Invented(format!("other bytes at offset {offset}")));
                }
                found.insert(offset);
                least = offset + 1;
            }
        }
        // Going back from the end, the first of each key is its latest.
        let mut keys = HashSet::new();
        let missing =
            (0..end).rev().find(|offset| keys.insert(key(*offset)) && !found.contains(offset));
        if let Some(offset) = missing {
            return Err(Violation::Lost(format!("the latest record of a key, at offset {offset}")));
        }
        let seen = Seen::new(end < *legal.end() as u64, Some(log.recovery()));
        log.compact().map_err(refused("compaction"))?;
        drop(reader);
        log.close().map_err(refused("close"))?;
        let log = open(store).map_err(refused("open again"))?;
        if log.end_offset() != end || !log.recovery().clean {
            return Err(Violation::Lost(format!("{:?} after {end} was closed", log.recovery())));
        }
        Ok(seen)
    }
}
