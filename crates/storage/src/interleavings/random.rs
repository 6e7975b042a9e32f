//! Whole histories of a log on the simulated disk, with shuttle: threads append and sync, one reads, one does as another
//! process would, one rolls, seals and removes, and then the power goes.

use std::collections::BTreeMap;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::{alone, notices, open, options};
use crate::config::{LogConfig, WritePath};
use crate::error::Error;
use crate::io::sim::{CrashPlan, SimDisk};
use crate::log::Log;
use crate::planted::Bug;
use crate::record::Record;
use crate::writer::AppendOptions;

/// How many schedules at each change; `LOGMILL_SCHEDULES` says how many in a longer run.
const SCHEDULES: usize = 4_000;
const APPENDERS: u64 = 2;
const APPENDS: u64 = 2;
const LOOKS: u32 = 12;
const HOUR: Duration = Duration::from_secs(3600);

fn config(path: WritePath) -> LogConfig {
    LogConfig::default().write_path(path)
}

type Acknowledged = BTreeMap<u64, [u8; 2]>;

/// Appends `APPENDS` records by turns as a caller that blocks and as a task. Returns what was acknowledged, and the disk as it
/// was then.
fn appends(disk: &SimDisk, log: &Log, by: u64) -> (Acknowledged, SimDisk) {
    let mut acknowledged = Acknowledged::new();
    for n in 0..APPENDS {
        let value = [by, n].map(|byte| u8::try_from(byte).unwrap());
        let record = Record::value(&value);
        let appended = if (by + n).is_multiple_of(2) {
            log.append(&record).unwrap()
        } else {
            let ticket = log.submit(&[record], &AppendOptions::default()).unwrap();
            shuttle::future::block_on(ticket).unwrap().base_offset
        };
        assert!(log.durable_offset() > appended, "{appended} was acknowledged and is not durable");
        acknowledged.insert(appended, value);
    }
    (acknowledged, disk.fork(1))
}

/// Reads all that is there until the last of `count` records, in order and once each, but for those that were removed.
fn reads(log: &Log, count: u64) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut reader = log.reader_with(log.start_offset(), crate::Visibility::Level);
    while let Err(Error::OffsetOutOfRange { .. }) = reader {
        reader = log.reader(log.start_offset());
    }
    let mut reader = reader.unwrap();
    while reader.position() < count {
        let position = reader.position();
        let sees_from = log.start_offset();
        match reader.next_batch_timeout(HOUR) {
            Ok(Some(batch)) => {
                for record in batch.records().map(Result::unwrap) {
                    assert!(record.offset >= position, "{} came again", record.offset);
                    found.insert(record.offset, record.value.unwrap().to_vec());
                }
            }
            Ok(None) => panic!("woken, and nothing there"),
            Err(Error::OffsetOutOfRange { offset, start, .. }) => {
                assert!(offset < start && sees_from <= start, "{offset} is not below {start}");
                let _ = reader.seek(log.start_offset());
            }
            Err(e) => panic!("{e}"),
        }
    }
    found
}

/// Reads as another process does, as far as it comes in some looks.
fn follows(disk: &SimDisk) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    let dir = options(0).read_only(true).open_with(disk.io()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let mut reader = log.reader(log.start_offset()).unwrap();
    for _ in 0..LOOKS {
        log.refresh().unwrap();
        let position = reader.position();
        match reader.next_batch() {
            Ok(Some(batch)) => {
                for record in batch.records().map(Result::unwrap) {
                    assert!(record.offset >= position, "{} came again", record.offset);
                    found.insert(record.offset, record.value.unwrap().to_vec());
                }
            }
            Ok(None) => thread::yield_now(),
            Err(Error::OffsetOutOfRange { offset, start, .. }) => {
                assert!(offset < start, "{offset} is not below {start}");
                let _ = reader.seek(log.start_offset());
            }
            Err(e) => panic!("{e}"),
        }
    }
    found
}

/// Rolls, seals and removes all but the last segment.
fn retains(log: &Log) {
    log.roll().unwrap();
    log.settle().unwrap();
    let durable = log.durable_offset();
    let start = log.delete_records_before(durable / 2).unwrap();
    assert!(start <= durable);
}

fn history(path: WritePath) {
    let disk = SimDisk::new(1);
    let (dir, log) = open(&disk, 1, config(path));
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|by| {
            let (disk, log) = (disk.clone(), log.clone());
            thread::spawn(move || appends(&disk, &log, by))
        })
        .collect();
    let reader = {
        let log = log.clone();
        thread::spawn(move || reads(&log, APPENDERS * APPENDS))
    };
    let retainer = {
        let log = log.clone();
        thread::spawn(move || retains(&log))
    };
    let follower = {
        let disk = disk.clone();
        thread::spawn(move || follows(&disk))
    };
    let acknowledged: Vec<_> = appenders.into_iter().map(|thread| thread.join().unwrap()).collect();
    retainer.join().unwrap();
    let found = [reader.join().unwrap(), follower.join().unwrap()].into_iter().flatten();
    let given: Acknowledged = acknowledged.iter().flat_map(|(of_one, _)| of_one.clone()).collect();
    assert_eq!(given.len() as u64, APPENDERS * APPENDS, "an offset was given to two");
    for (offset, value) in found {
        assert_eq!(given[&offset], value[..], "at {offset}");
    }
    let start = log.start_offset();
    drop((log, dir));
    for (of_one, disk) in acknowledged.into_iter().chain([(given, disk)]) {
        disk.crash(&CrashPlan::nothing());
        survived(&disk, path, &of_one, start);
    }
}

/// Everything acknowledged is there after the power came back, but for what was removed.
fn survived(disk: &SimDisk, path: WritePath, acknowledged: &Acknowledged, removed_below: u64) {
    let (_dir, log) = open(disk, 0, config(path));
    assert!(log.start_offset() <= removed_below, "what was kept is gone");
    for (offset, value) in acknowledged.range(log.start_offset()..) {
        let record = log.get(*offset).unwrap().expect("what was acknowledged");
        assert_eq!(record.value.as_deref(), Some(&value[..]));
    }
}

fn run(scheduler: impl Scheduler + 'static, path: WritePath) -> usize {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.max_steps = MaxSteps::FailAfter(1_000_000);
    Runner::new(scheduler, config).run(move || history(path))
}

/// Half of them at random, half with few preemptions at places of a random kind, on either way into the files.
fn explore(schedules: usize) {
    let each = schedules / 4;
    for path in [WritePath::Positional, WritePath::Mapped] {
        assert_eq!(run(RandomScheduler::new_from_seed(1, each), path), each);
        assert_eq!(run(PctScheduler::new_from_seed(2, 3, each), path), each);
    }
}

#[test]
fn appends_syncs_reads_and_removals_keep_their_promises_in_any_order() {
    let _turn = alone();
    let schedules = std::env::var("LOGMILL_SCHEDULES").map_or(SCHEDULES, |n| n.parse().unwrap());
    explore(schedules);
}

#[test]
fn a_race_that_is_planted_is_found() {
    let _turn = alone();
    for bug in [Bug::LookedBeforeLocked, Bug::WakerKeptLate, Bug::RetiredNotSynced] {
        assert!(notices(bug, || explore(SCHEDULES)), "{bug:?} was not noticed");
    }
}
