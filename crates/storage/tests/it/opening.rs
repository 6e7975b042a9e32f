//! What opening reads, and what closing says.

use logmill_storage::io::sim::{CrashPlan, Fault, Op};
use logmill_storage::{AppendOptions, Durability, Error, Log, LogConfig, Record, WritePath};

use crate::support::{Bench, records};

fn append(log: &Log, count: u64) {
    let options =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    for _ in 0..count {
        log.append_with(&[Record::value(&[7; 1000])], &options).unwrap();
    }
}

/// Kills the process of a log with as many sealed segments of 50 KB, and as many records of 1,000 bytes that nothing proves yet.
fn killed(segments: u64, unproven: u64) -> Bench {
    let bench = Bench::new(segments);
    let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
    for _ in 0..segments {
        append(&log, 50);
        log.roll().unwrap();
    }
    log.settle().unwrap();
    append(&log, unproven);
    bench.disk.kill();
    bench
}

#[test]
fn opening_after_a_kill_reads_twice_what_is_unproven_and_the_ends_of_each_segment() {
    for (segments, unproven) in [(1, 0), (50, 0), (1, 1_000), (50, 1_000)] {
        let bench = killed(segments, unproven);
        let before = bench.disk.ops().bytes_read();
        let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
        let read = bench.disk.ops().bytes_read() - before;
        assert_eq!(log.end_offset(), segments * 50 + unproven);
        let most = 100_000 + 512 * segments + 2_100 * unproven;
        assert!(read < most, "{segments} segments, {unproven} unproven: {read} bytes of {most}");
    }
}

/// To find the first record that was appended after it had been opened again, all of a segment of up to a gigabyte was read.
#[test]
fn whoever_reads_on_after_an_open_reads_nothing_of_what_came_before_in_the_segment() {
    for clean in [false, true] {
        let bench = Bench::new(1);
        let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
        append(&log, 10_000);
        log.settle().unwrap();
        if clean {
            log.close().unwrap();
        } else {
            append(&log, 10);
            bench.disk.kill();
        }
        let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
        let end = log.end_offset();
        append(&log, 10);
        log.sync().unwrap();
        let before = bench.disk.ops().bytes_read();
        for offset in [end - if clean { 0 } else { 10 }, end + 5] {
            assert_eq!(log.get(offset).unwrap().unwrap().offset, offset);
        }
        let read = bench.disk.ops().bytes_read() - before;
        assert!(read < 500_000, "clean {clean}: {read} bytes");
        assert_eq!(log.get(5_000).unwrap().unwrap().offset, 5_000);
        let at = log.offset_for_timestamp(0).unwrap();
        assert_eq!(at, Some(0), "a time needs the whole of the index");
    }
}

/// A segment in which nothing was stored yet was proven up to its start, and its index from there on passed for a whole one,
/// though it had no times: each look-up read all of the segment.
#[test]
fn times_are_looked_up_in_an_index_though_a_segment_was_proven_up_to_its_start() {
    const LATER: i64 = 1_800_000_000_000;
    let config = || LogConfig::default().write_path(WritePath::Positional);
    let bench = Bench::new(1);
    let log = Log::open(&bench.dir(), "0", config()).unwrap();
    append(&log, 1);
    log.roll().unwrap();
    let refused = log.submit(&[Record::value(b"refused")], &AppendOptions::default()).unwrap();
    bench.disk.fail_next(Op::Write, Fault::Enospc);
    assert!(refused.wait().is_err());
    assert_eq!(bench.disk.faults_fired(), 1);
    log.close().unwrap();
    let log = Log::open(&bench.dir(), "0", config()).unwrap();
    for ms in 1..2_000 {
        log.append(&Record::value(&[7; 1000]).timestamp(LATER + ms)).unwrap();
    }
    let looked_up = || {
        let before = bench.disk.ops().bytes_read();
        assert_eq!(log.offset_for_timestamp(LATER + 1_900).unwrap(), Some(1_900));
        bench.disk.ops().bytes_read() - before
    };
    looked_up();
    assert!(looked_up() < 200_000);
}

#[test]
fn closing_says_that_a_sync_failed_and_has_then_kept_what_a_crash_would() {
    for fault in [Fault::SyncEioKeep, Fault::SyncEioSome, Fault::SyncEioRevert, Fault::SyncEioDrop]
    {
        let bench = Bench::new(1);
        let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
        log.append(&Record::value(b"durable")).unwrap();
        append(&log, 1);
        bench.disk.fail_next(Op::Sync, fault);
        let said = log.close().unwrap_err();
        assert_eq!(bench.disk.faults_fired(), 1);
        assert!(matches!(said, Error::OutcomeUnknown { .. }), "{fault}: {said}");
        bench.disk.crash(&CrashPlan::nothing());
        let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
        assert!(!log.recovery().clean);
        assert_eq!(records(&log)[0].value.as_deref(), Some(b"durable".as_slice()));
    }
}
