//! Retention: what a log removes by itself, and what those see who are reading it.

use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, Fault, Op};
use logmill_storage::{Error, Log, LogConfig, Record, Retention};

use crate::support::Bench;

const HOUR: Duration = Duration::from_secs(3600);

fn config(retention: Retention) -> LogConfig {
    LogConfig::default().segment_bytes_max(4 << 10).retention(retention)
}

/// Appends `count` records of about 100 bytes: 30 fill a segment.
fn append(log: &Log, count: u32) {
    for n in 0..count {
        log.append(&Record::value(&[n as u8; 80])).unwrap();
    }
}

fn bytes(bytes: u64) -> Retention {
    Retention { bytes: Some(bytes), ..Retention::default() }
}

fn age(age: Duration) -> Retention {
    Retention { age: Some(age), ..Retention::default() }
}

#[test]
fn the_background_keeps_the_log_at_its_limit_and_gives_the_space_back() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(bytes(10_000))).unwrap();
    for _ in 0..40 {
        append(&log, 40);
        bench.clock.advance(Duration::from_secs(1));
        dir.tick();
    }
    let stats = log.stats().unwrap();
    assert!(log.start_offset() > 1200, "{stats:?}");
    assert!(stats.segments <= 5, "{stats:?}");
    assert_eq!(bench.files("1/0", ".log").len(), stats.segments);
    assert_eq!(bench.files("1/0", ".index").len(), stats.segments - 1);
    let first = log.start_offset();
    assert_eq!(log.get(first).unwrap().unwrap().offset, first);
    assert!(matches!(
        log.get(first - 1),
        Err(Error::OffsetOutOfRange { offset, start, .. }) if offset == first - 1 && start == first
    ));
}

#[test]
fn records_that_grow_old_go_though_nothing_is_appended_any_more() {
    let bench = Bench::new(2);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(age(HOUR))).unwrap();
    append(&log, 200);
    log.settle().unwrap();
    dir.tick();
    let segments = log.stats().unwrap().segments;
    for _ in 0..59 {
        bench.clock.advance(Duration::from_secs(60));
        dir.tick();
    }
    assert_eq!(log.stats().unwrap().segments, segments);
    for _ in 0..4 {
        bench.clock.advance(Duration::from_secs(60));
        dir.tick();
    }
    assert_eq!(log.stats().unwrap().segments, 1, "the active one stays");
    assert!(log.start_offset() > 100);
    assert_eq!(log.end_offset(), 200);
}

#[test]
fn space_that_is_only_reserved_does_not_count() {
    let bench = Bench::new(3);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(bytes(20_000)).segment_bytes_max(64 << 10)).unwrap();
    append(&log, 100);
    log.roll().unwrap();
    append(&log, 1);
    assert!(log.stats().unwrap().bytes > 40_000, "the active segment has a reservation");
    assert_eq!(log.apply_retention().unwrap(), 0);
    append(&log, 250);
    assert_eq!(log.apply_retention().unwrap(), 100);
}

#[test]
fn a_clock_that_jumps_back_removes_nothing_and_one_record_from_the_future_keeps_what_follows() {
    let bench = Bench::new(4);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(age(HOUR))).unwrap();
    append(&log, 100);
    let start = 1_700_000_000_000;
    bench.clock.set_wall_ms(start - 3_600_000 * 24 * 365);
    assert_eq!(log.apply_retention().unwrap(), 0);
    log.append(&Record::value(b"late").timestamp(start + 7_200_000)).unwrap();
    log.roll().unwrap();
    append(&log, 100);
    log.roll().unwrap();
    append(&log, 1);
    bench.clock.set_wall_ms(start + 3_600_001);
    let kept = log.apply_retention().unwrap();
    assert!((40..=100).contains(&kept), "{kept}: the segment of record 100 is kept");
    bench.clock.set_wall_ms(start + 7_200_000 + 3_600_001);
    assert_eq!(log.apply_retention().unwrap(), 201);
}

#[test]
fn a_reader_finishes_a_segment_that_was_removed_under_it_and_then_learns_that_the_rest_is_gone() {
    let bench = Bench::new(5);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(bytes(5_000))).unwrap();
    append(&log, 300);
    let mut reader = log.reader(0).unwrap();
    let first = reader.next_batch().unwrap().unwrap().base_offset();
    assert_eq!(first, 0);
    let start = log.apply_retention().unwrap();
    assert!(start > 200);
    assert!(!bench.files("1/0", ".log").contains(&"1/0/00000000000000000000.log".to_owned()));
    let mut last = 0;
    let error = loop {
        match reader.next_batch() {
            Ok(Some(batch)) => last = batch.last_offset(),
            Ok(None) => panic!("the end was not reached"),
            Err(e) => break e,
        }
    };
    assert!((25..45).contains(&last), "it read on to the end of its segment, {last}");
    match error {
        Error::OffsetOutOfRange { offset, start: from, end } => {
            assert_eq!((offset, from, end), (last + 1, start, 300));
        }
        other => panic!("{other}"),
    }
    reader.seek(start).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), start);
}

#[test]
fn without_a_policy_nothing_goes_and_a_reader_of_another_process_may_not_ask() {
    let bench = Bench::new(6);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(Retention::default())).unwrap();
    append(&log, 200);
    assert_eq!(log.apply_retention().unwrap(), 0);
    let other = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let follower = Log::open(&other, "1/0", LogConfig::default()).unwrap();
    assert!(matches!(follower.apply_retention(), Err(Error::ReadOnly { .. })));
}

#[test]
fn a_crash_at_any_call_of_a_removal_leaves_the_old_start_or_the_new_one_and_every_record_after_it()
{
    let bench = Bench::new(7);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(Retention::default())).unwrap();
    append(&log, 300);
    log.close().unwrap();
    drop(dir);
    let removal = |bench: &Bench| {
        let dir = bench.dir();
        let log = Log::open(&dir, "1/0", config(bytes(5_000)))?;
        log.apply_retention()
    };
    let whole = bench.fork(0);
    let start = removal(&whole).unwrap();
    assert!(start > 200);
    let last = whole.disk.ops().total();
    let mut seen = [0, 0];
    for op in 0..last {
        for seed in 0..4 {
            let bench = bench.fork(op * 31 + seed);
            bench.disk.stop_at(op);
            let options = bench.options().open_with(bench.disk.io());
            let stopped = options
                .and_then(|dir| Log::open(&dir, "1/0", config(bytes(5_000))))
                .and_then(|log| log.apply_retention());
            assert!(bench.disk.is_stopped(), "op {op}: {stopped:?}");
            bench.disk.crash(&CrashPlan::random(seed + op));
            let report = bench.verify();
            assert!(report.worst <= Some(logmill_storage::verify::Severity::Note), "{report:?}");
            let dir = bench.dir();
            let log = Log::open(&dir, "1/0", config(Retention::default())).unwrap();
            let found = log.start_offset();
            assert!(found == 0 || found == start, "op {op}: {found}");
            seen[usize::from(found == start)] += 1;
            let mut reader = log.reader(found).unwrap();
            let mut expected = found;
            while let Some(batch) = reader.next_batch().unwrap() {
                assert_eq!(batch.base_offset(), expected);
                expected = batch.last_offset() + 1;
            }
            assert_eq!(expected, 300);
            // It can be done again.
            drop(reader);
            drop(log);
            drop(dir);
            assert_eq!(removal(&bench).unwrap(), start);
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn what_the_background_cannot_remove_is_tried_again() {
    let bench = Bench::new(8);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config(bytes(5_000))).unwrap();
    append(&log, 200);
    log.settle().unwrap();
    bench.disk.fail_next(Op::Unlink, Fault::Emfile);
    assert!(matches!(log.apply_retention(), Err(Error::Io { op: "unlink", .. })));
    assert_eq!(bench.disk.faults_fired(), 1);
    assert!(log.start_offset() > 100, "it is not given out any more");
    assert!(bench.files("1/0", ".log").len() > 4);
    log.append(&Record::value(b"more")).unwrap();
    bench.clock.advance(Duration::from_secs(1));
    dir.tick();
    let segments = log.stats().unwrap().segments;
    assert!(segments <= 4);
    assert_eq!(bench.files("1/0", ".log").len(), segments);
}
