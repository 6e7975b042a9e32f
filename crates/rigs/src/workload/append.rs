//! Batches appended to a log, several on their way at a time, and the oldest records removed now and then.

use std::collections::VecDeque;
use std::path::Path;

use logmill::Ticket;
use logmill::storage::{AppendOptions, Durability, Log, LogConfig, Record};
use logmill_torture::random::Random;

use super::{Level, Seen, Workload, dir, payload, refused};
use crate::history::{History, Moment, Violation, judge};
use crate::tools::{Outcome, failed};

/// Batches that are on their way at most.
const IN_FLIGHT: usize = 4;

/// Batches, and where the log was made to begin.
#[derive(Debug, Default)]
pub struct Appends {
    batches: History,
    /// The offset after each batch.
    ends: Vec<u64>,
    trims: History,
    /// The start offset after each trim.
    starts: Vec<u64>,
}

fn open(store: &Path) -> logmill::storage::Result<Log> {
    Log::open(&dir(store)?, "1", LogConfig::default().segment_bytes_max(32 << 10))
}

impl Appends {
    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Submits a batch of one to six records.
    fn submit(
        &mut self,
        log: &Log,
        level: Level,
        random: &mut Random,
        now: Moment,
    ) -> Outcome<Ticket> {
        let first = self.end();
        let values: Vec<_> = (first..=first + random.below(6)).map(payload).collect();
        let records: Vec<_> = values.iter().map(|value| Record::value(value)).collect();
        let durability = if level == Level::Sync { Durability::Sync } else { Durability::Buffered };
        let options = AppendOptions { durability: Some(durability), ..AppendOptions::default() };
        self.batches.begin(now);
        self.ends.push(first + values.len() as u64);
        log.submit(&records, &options).map_err(failed("append"))
    }

    fn trim(&mut self, log: &Log, random: &mut Random, now: &dyn Fn() -> Moment) -> Outcome {
        let durable = self.batches.acknowledged().checked_sub(1).map_or(0, |last| self.ends[last]);
        let least = self.starts.last().copied().unwrap_or(0);
        let start = least + random.below(durable.saturating_sub(least) + 1);
        self.trims.begin(now());
        self.starts.push(start);
        log.delete_records_before(start).map_err(failed("removing records"))?;
        self.trims.acknowledge(self.starts.len(), now());
        Ok(())
    }
}

impl Workload for Appends {
    fn play(
        &mut self,
        store: &Path,
        operations: usize,
        level: Level,
        random: &mut Random,
        now: &dyn Fn() -> Moment,
    ) -> Outcome {
        let log = open(store).map_err(failed("open"))?;
        let mut tickets = VecDeque::new();
        let mut waited = 0;
        for _ in 0..operations {
            if random.once_in(60) {
                self.trim(&log, random, now)?;
            }
            tickets.push_back(self.submit(&log, level, random, now())?);
            while tickets.len() > random.below(IN_FLIGHT as u64 + 1) as usize {
                let Some(ticket) = tickets.pop_front() else { break };
                ticket.wait().map_err(failed("append"))?;
                waited += 1;
                if level != Level::Buffered {
                    self.batches.acknowledge(waited, now());
                }
            }
            if level == Level::Buffered && random.once_in(20) {
                let begun = self.batches.begun();
                log.sync().map_err(failed("sync"))?;
                self.batches.acknowledge(begun, now());
            }
        }
        Ok(())
    }

    fn check(&self, store: &Path, moment: Moment) -> Result<Seen, Violation> {
        let log = open(store).map_err(refused("open"))?;
        let start = log.start_offset();
        let legal = self.trims.legal(moment);
        let starts = |count: usize| count.checked_sub(1).map_or(0, |last| self.starts[last]);
        if !legal.clone().any(|count| starts(count) == start) {
            return Err(Violation::Lost(format!("the log begins at {start}, {legal:?} trims")));
        }
        let mut next = start;
        let mut reader = log.reader(start).map_err(refused("reader"))?;
        while let Some(batch) = reader.next_batch().map_err(refused("reading"))? {
            for record in batch.records() {
                let record = record.map_err(refused("decoding"))?;
                if record.offset != next {
                    let what = format!("offset {next} expected, {} found", record.offset);
                    return Err(Violation::Reordered(what));
                }
                if record.value != Some(payload(next).as_slice()) {
                    return Err(Violation::Invented(format!("other bytes at offset {next}")));
                }
                next += 1;
            }
        }
        let found = self.ends.partition_point(|end| *end <= next);
        judge(found, &self.batches.legal(moment))?;
        if found.checked_sub(1).map_or(0, |last| self.ends[last]) != next {
            return Err(Violation::Lost(format!("a part of a batch, up to offset {next}")));
        }
        let seen = Seen::new(found < *self.batches.legal(moment).end(), Some(log.recovery()));
        let given = log.append(&Record::value(b"after")).map_err(refused("append"))?;
        if given != next {
            return Err(Violation::Lost(format!("offset {given} given after {next}")));
        }
        drop(reader);
        log.close().map_err(refused("close"))?;
        let log = open(store).map_err(refused("open again"))?;
        match (log.start_offset(), log.end_offset(), log.recovery().clean) {
            (first, end, true) if first == start && end == next + 1 => Ok(seen),
            other => Err(Violation::Lost(format!("{other:?} after {start}..={next} was closed"))),
        }
    }
}
