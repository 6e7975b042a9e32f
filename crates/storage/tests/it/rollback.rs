//! Appends that a full disk takes back, and whose offsets are given to others: no reader has seen them, and none meets what a
//! failed write has left of them.

use logmill_storage::io::sim::{Fault, Op};
use logmill_storage::{
    AppendOptions, DataDir, Durability, Error, Log, LogConfig, Reader, Record, Visibility,
    WritePath,
};

use crate::support::{Bench, Numbers, records};

const FIRST: &str = "0/00000000000000000000.log";

fn config() -> LogConfig {
    LogConfig::default().write_path(WritePath::Positional).segment_bytes_max(64 << 10)
}

fn write(bench: &Bench) -> (DataDir, Log) {
    let dir = bench.dir();
    let log = Log::open(&dir, "0", config()).unwrap();
    (dir, log)
}

fn follow(bench: &Bench) -> Log {
    let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    Log::open(&dir, "0", config()).unwrap()
}

/// What the reader gets until there is no more.
fn rest(reader: &mut Reader) -> Vec<String> {
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records() {
            let value = record.unwrap().value.unwrap().to_vec();
            values.push(String::from_utf8(value).unwrap());
        }
    }
    values
}

fn values(log: &Log) -> Vec<String> {
    rest(&mut log.reader_with(log.start_offset(), Visibility::Stored).unwrap())
}

/// Appends "taken back", and a full disk takes it back after the write has put that, and a part of what comes behind it.
fn take_back(bench: &Bench, log: &Log) {
    let long = "x".repeat(50_000);
    let synced = AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
    let first = log.submit(&[Record::value(b"taken back")], &synced).unwrap();
    let second = log.submit(&[Record::value(long.as_bytes())], &synced).unwrap();
    let fired = bench.disk.faults_fired();
    bench.disk.fail_next(Op::Write, Fault::ShortWrite);
    bench.disk.fail_next(Op::Write, Fault::Enospc);
    for refused in [first.wait(), second.wait()] {
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    }
    assert_eq!(bench.disk.faults_fired(), fired + 2);
    let file = bench.disk.read_file(FIRST).unwrap();
    assert!(file.windows(10).any(|window| window == b"taken back"));
}

/// The next segment began where the data of this one ended, and behind that lay a whole frame of what had been taken back,
/// with the offset that the next segment's first record has: readers that had come to the end of this one read that.
#[test]
fn a_reader_at_the_end_of_a_segment_does_not_read_what_a_failed_write_has_left_there() {
    let bench = Bench::new(1);
    let (_dir, log) = write(&bench);
    log.append(&Record::value(b"kept")).unwrap();
    let follower = follow(&bench);
    let mut readers = [
        log.reader_with(0, Visibility::Stored).unwrap(),
        log.reader_with(0, Visibility::Durable).unwrap(),
        follower.reader_with(0, Visibility::Stored).unwrap(),
        follower.reader_with(0, Visibility::Durable).unwrap(),
    ];
    for reader in &mut readers {
        assert_eq!(rest(reader), ["kept"]);
    }
    take_back(&bench, &log);
    for reader in &mut readers {
        assert_eq!(rest(reader), [""; 0]);
    }
    log.roll().unwrap();
    log.append(&Record::value(b"instead")).unwrap();
    for (n, reader) in readers.iter_mut().enumerate() {
        assert_eq!(rest(reader), ["instead"], "reader {n}");
    }
    assert_eq!(values(&log), ["kept", "instead"]);
}

/// As above, and the process died: the frame that had been taken back counted as the log's, so the next segment seemed to begin
/// before the end of this one, and the log could not be opened.
#[test]
fn a_log_is_opened_whose_segment_has_behind_its_end_what_a_failed_write_has_left() {
    for is_settled in [false, true] {
        let bench = Bench::new(1);
        let (dir, log) = write(&bench);
        log.append(&Record::value(b"kept")).unwrap();
        take_back(&bench, &log);
        log.roll().unwrap();
        log.append(&Record::value(b"instead")).unwrap();
        if is_settled {
            // What is proven is not looked at again.
            bench.disk.fail_next(Op::Write, Fault::Enospc);
            assert!(matches!(log.settle(), Err(Error::DiskFull { .. })));
        }
        drop((log, dir));
        bench.disk.kill();
        assert_eq!(values(&follow(&bench)), ["kept", "instead"]);
        let (_dir, log) = write(&bench);
        assert_eq!(values(&log), ["kept", "instead"]);
        assert_eq!(log.recovery().dropped_bytes, 0);
        log.settle().unwrap();
        assert_eq!(bench.verify().findings, []);
        assert_eq!(log.stats().unwrap().failure, None);
    }
}

/// Sealing a segment of an earlier session that had been left unsealed went on into what a failed write had left behind its
/// end, and so failed for ever.
#[test]
fn a_segment_that_was_left_unsealed_is_sealed_where_the_next_one_begins() {
    let bench = Bench::new(1);
    let (dir, log) = write(&bench);
    log.append(&Record::value(b"kept")).unwrap();
    take_back(&bench, &log);
    log.roll().unwrap();
    log.append(&Record::value(b"instead")).unwrap();
    let fired = bench.disk.faults_fired();
    bench.disk.fail_next(Op::Write, Fault::Enospc);
    assert!(matches!(log.close(), Err(Error::DiskFull { .. })));
    assert_eq!(bench.disk.faults_fired(), fired + 1);
    drop(dir);
    let (_dir, log) = write(&bench);
    assert!(log.recovery().clean);
    log.settle().unwrap();
    assert_eq!(values(&log), ["kept", "instead"]);
    assert_eq!(log.get(1).unwrap().unwrap().value.unwrap(), &b"instead"[..]);
    assert_eq!(bench.verify().findings, []);
}

/// Values that say which append they are of.
fn stamps(log: &Log) -> Vec<u64> {
    records(log).iter().map(|record| stamp(record.value.as_deref().unwrap())).collect()
}

fn stamp(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// A reader, the furthest that it could see, and what it has seen.
struct Witness {
    reader: Reader,
    high_watermark: u64,
    seen: Vec<(u64, u64)>,
}

impl Witness {
    fn look(&mut self, numbers: &mut Numbers) {
        let high_watermark = self.reader.high_watermark();
        assert!(high_watermark >= self.high_watermark, "what was shown is hidden again");
        self.high_watermark = high_watermark;
        if numbers.below(4) == 0 {
            let back = numbers.below(high_watermark.min(3) + 1);
            self.reader.seek(high_watermark - back).unwrap();
        }
        if numbers.below(4) == 0 {
            return;
        }
        while let Some(batch) = self.reader.next_batch().unwrap() {
            for record in batch.records() {
                let record = record.unwrap();
                self.seen.push((record.offset, stamp(record.value.unwrap())));
            }
        }
    }
}

/// What is shown is stored, and what is stored is never taken back: a reader may keep bytes of what it can see, and need not be
/// told of what a full disk takes back.
#[test]
fn what_a_reader_has_seen_is_never_taken_back_by_a_full_disk() {
    let (mut taken_back, mut looks) = (0, 0);
    for seed in 0..300 {
        let bench = Bench::new(seed);
        let mut numbers = Numbers(seed);
        let (dir, log) = write(&bench);
        let follower = follow(&bench);
        let mut witnesses = Vec::new();
        for log in [&log, &follower] {
            for visibility in [Visibility::Stored, Visibility::Durable, Visibility::Stored] {
                let reader = log.reader_with(0, visibility).unwrap();
                witnesses.push(Witness { reader, high_watermark: 0, seen: Vec::new() });
            }
        }
        for step in 0..60 {
            if numbers.below(4) == 0 {
                bench.disk.fail_next(Op::Write, Fault::ShortWrite);
                bench.disk.fail_next(Op::Write, Fault::Enospc);
            }
            let done = match numbers.below(8) {
                0 => log.roll(),
                1 => log.sync().map(drop),
                2 => log.settle(),
                _ => {
                    let level = [Durability::Sync, Durability::Buffered][numbers.below(2) as usize];
                    let options =
                        AppendOptions { durability: Some(level), ..AppendOptions::default() };
                    let value = (step | seed << 32).to_le_bytes();
                    let value = value.repeat(1 + numbers.below(60) as usize);
                    log.submit(&[Record::value(&value)], &options).map(drop)
                }
            };
            taken_back += u32::from(matches!(done, Err(Error::DiskFull { .. })));
            if numbers.below(2) == 0 {
                bench.disk.heal();
            }
            witnesses.iter_mut().for_each(|witness| witness.look(&mut numbers));
        }
        bench.disk.heal();
        log.append(&Record::value(&[7; 8])).unwrap();
        let stored = stamps(&log);
        for (n, Witness { seen, .. }) in witnesses.iter().enumerate() {
            looks += seen.len();
            let is_there = |(offset, stamp): &(u64, u64)| stored[*offset as usize] == *stamp;
            assert!(seen.iter().all(is_there), "seed {seed}, reader {n}");
        }
        drop((log, dir));
        bench.disk.kill();
        let (_dir, log) = write(&bench);
        assert_eq!(stamps(&log), stored, "seed {seed}");
    }
    assert!(taken_back > 1_000 && looks > 10_000, "{taken_back}, {looks}");
}
