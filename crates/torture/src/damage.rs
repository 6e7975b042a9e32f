//! Damage: bits of acknowledged records turn over while nobody looks. R13 and R14: what was durable is reported, never cut;
//! what is in doubt is copied before it is cut.

use std::sync::Arc;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::recovery::Verdict;
use logmill_storage::{Error, ManualClock};

use crate::op::{Level, Op, Shape};
use crate::oracle::End;
use crate::run::{Machine, WALL_MS};
use crate::setup::Setup;
use crate::store::Store;
use crate::world::explain;

const SEGMENT: &str = "0/00000000000000000000.log";
/// Where the first frame begins, and how much of it is turned over.
const FIRST: u64 = 128;
const BITS: std::ops::Range<u64> = FIRST * 8..(FIRST + 400) * 8;

/// A store whose process was killed after these operations.
fn killed(setup: Setup, ops: &[Op]) -> Result<Machine, String> {
    let mut machine = Machine::fresh(setup, 1).map_err(explain)?;
    machine.start(End::Closed).map_err(explain)?;
    for op in ops {
        machine.run(*op).map_err(explain)?;
    }
    machine.kill();
    Ok(machine)
}

fn flipped(machine: &Machine, bit: u64) -> Result<SimDisk, String> {
    let disk = machine.disk.fork(bit);
    disk.flip_bit(SEGMENT, bit).map_err(|e| e.to_string())?;
    Ok(disk)
}

fn open(disk: &SimDisk, setup: &Setup) -> Result<Store, Error> {
    Store::open(disk.io(), setup, &Arc::new(ManualClock::at(WALL_MS)))
}

/// Turns over bits of records that are durable, and of some that may be lost; returns how many.
pub fn run() -> Result<u64, String> {
    let mut flips = 0;
    for setup in Setup::PLAIN {
        // The second append says that the first is durable.
        let durable = killed(setup, &[Op::Append(Level::Sync, Shape::Three); 2])?;
        for bit in BITS.step_by(13) {
            flips += 1;
            match open(&flipped(&durable, bit)?, &setup) {
                Err(Error::Corrupt { .. }) => {}
                Err(e) => return Err(format!("{setup}, bit {bit}: {e}")),
                Ok(store) => {
                    return Err(format!("{setup}, bit {bit}: {:?}", store.log().recovery()));
                }
            }
        }
    }
    let setup = Setup { mapped: true, buffered: true, ..Setup::PLAIN[0] };
    let stored = killed(setup, &[Op::Append(Level::Buffered, Shape::Three)])?;
    for bit in BITS.skip(FIRST as usize).step_by(13) {
        flips += 1;
        let disk = flipped(&stored, bit)?;
        let store = open(&disk, &setup).map_err(|e| format!("{setup}, bit {bit}: {e}"))?;
        let report = store.log().recovery();
        let is_kept = |path: &std::path::PathBuf| disk.read_file(&path.to_string_lossy()).is_some();
        if report.verdict != Verdict::Ambiguous
            || report.quarantined.is_empty()
            || !report.quarantined.iter().all(is_kept)
        {
            return Err(format!("{setup}, bit {bit}: nothing set aside: {report:?}"));
        }
    }
    Ok(flips)
}

#[cfg(test)]
mod tests {
    #[test]
    fn damage_to_durable_records_is_reported_and_what_is_in_doubt_is_set_aside() {
        assert!(super::run().unwrap() > 1_000);
    }
}
