//! A history of a log, against the same model as the tests' random histories; here the coverage chooses.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use logmill_storage::{Compression, Durability, Retention, WritePath};

#[path = "../../crates/storage/tests/it/model/world.rs"]
mod world;

use world::{Item, Op, Setup, run};

/// Takes bytes as long as there are any.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn level(&mut self) -> Option<Durability> {
        Some(match self.next()? % 3 {
            0 => Durability::Sync,
            1 => Durability::Buffered,
            _ => Durability::Interval(Duration::from_millis(200)),
        })
    }

    fn items(&mut self) -> Option<Vec<Item>> {
        let count = self.next()? % 16;
        (0..=count).map(|_| self.item()).collect()
    }

    fn item(&mut self) -> Option<Item> {
        let (kind, len) = (self.next()?, u16::from(self.next()?));
        Some(Item {
            key: (kind & 1 == 0).then_some(kind >> 5),
            value: (kind & 2 == 0).then_some(if kind & 4 == 0 { len } else { len * 16 }),
            shift: (kind & 24 == 0).then_some(len as i8),
        })
    }

    fn setup(&mut self) -> Option<Setup> {
        let (kind, limit) = (self.next()?, u64::from(self.next()?) + 1);
        let (age, records) = (Some(Duration::from_secs(limit)), Some(limit));
        Some(Setup {
            seed: u64::from(self.next()?),
            durability: self.level()?,
            write_path: if kind & 1 == 0 { WritePath::Mapped } else { WritePath::Positional },
            compression: if kind & 6 == 0 { Compression::Lz4 } else { Compression::None },
            segment_bytes: 4096 << (kind >> 3 & 3),
            retention: match kind >> 5 {
                0 => Retention { age, ..Retention::default() },
                1 => Retention { records, ..Retention::default() },
                _ => Retention::default(),
            },
        })
    }

    fn op(&mut self) -> Option<Op> {
        Some(match self.next()? % 18 {
            0..=4 => Op::Append(self.level()?, self.items()?),
            5 => Op::Submit(self.items()?),
            6 => Op::Sync,
            7 | 8 => Op::Roll,
            9 => Op::Settle,
            10 => Op::Tick(self.next()?),
            11 => Op::Retain,
            12 => Op::DeleteBefore(self.next()?),
            13 => Op::Compact,
            14 => Op::Look(self.next()?),
            15 => Op::Reopen,
            16 => Op::Kill,
            _ => Op::Crash(u64::from(self.next()?)),
        })
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let Some(setup) = script.setup() else { return };
    let ops: Vec<Op> = std::iter::from_fn(|| script.op()).take(64).collect();
    run(setup, &ops);
});
