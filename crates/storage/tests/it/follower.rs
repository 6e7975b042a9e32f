//! A log that one process writes, as another one sees it that only reads. Here both are in one process; they share
//! nothing but the simulated disk.

use std::time::Duration;

use logmill_storage::io::sim::{Fault, Op};
use logmill_storage::{
    AppendOptions, DataDir, Durability, Error, Log, LogConfig, Reader, Record, WritePath,
};

use crate::support::Bench;

const WAYS: [WritePath; 2] = [WritePath::Mapped, WritePath::Positional];

fn buffered(way: WritePath) -> LogConfig {
    LogConfig::default().durability(Durability::Buffered).write_path(way)
}

fn write(bench: &Bench, config: &LogConfig) -> (DataDir, Log) {
    let dir = bench.dir();
    let log = Log::open(&dir, "0", config.clone()).unwrap();
    (dir, log)
}

fn follow(bench: &Bench, config: &LogConfig) -> Log {
    let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    Log::open(&dir, "0", config.clone()).unwrap()
}

fn append(log: &Log, values: &[&str]) -> u64 {
    let records: Vec<_> = values.iter().map(|value| Record::value(value.as_bytes())).collect();
    log.append_batch(&records).unwrap().base_offset
}

/// What the reader gets until there is no more.
fn rest(reader: &mut Reader) -> Result<Vec<String>, Error> {
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records() {
            let value = record.unwrap().value.unwrap().to_vec();
            values.push(String::from_utf8(value).unwrap());
        }
    }
    Ok(values)
}

#[test]
fn a_reader_in_another_process_sees_what_a_buffered_log_has_stored() {
    for way in WAYS {
        let (bench, config) = (Bench::new(1), buffered(way));
        let (_dir, log) = write(&bench, &config);
        append(&log, &["a"]);
        let follower = follow(&bench, &config);
        let mut reader = follower.reader(0).unwrap();
        assert_eq!(rest(&mut reader).unwrap(), ["a"], "{way:?}");
        append(&log, &["b", "c"]);
        append(&log, &["d"]);
        assert_eq!(rest(&mut reader).unwrap(), ["b", "c", "d"]);
        assert_eq!((log.durable_offset(), follower.durable_offset()), (0, 0));
        log.sync().unwrap();
        assert_eq!(rest(&mut reader).unwrap(), [""; 0]);
        append(&log, &["e"]);
        assert_eq!(rest(&mut reader).unwrap(), ["e"]);
    }
}

#[test]
fn a_reader_in_another_process_sees_of_a_synced_log_what_is_durable() {
    for way in WAYS {
        let bench = Bench::new(1);
        let config = LogConfig::default().write_path(way);
        let (_dir, log) = write(&bench, &config);
        append(&log, &["durable"]);
        let options =
            AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
        log.append_with(&[Record::value(b"stored")], &options).unwrap();
        let mut reader = follow(&bench, &config).reader(0).unwrap();
        assert_eq!(rest(&mut reader).unwrap(), ["durable"], "{way:?}");
        log.sync().unwrap();
        assert_eq!(rest(&mut reader).unwrap(), ["stored"]);
    }
}

#[test]
fn a_reader_in_another_process_follows_over_segments_and_retention() {
    for way in WAYS {
        let (bench, config) = (Bench::new(1), buffered(way));
        let (dir, log) = write(&bench, &config);
        append(&log, &["a"]);
        let mut reader = follow(&bench, &config).reader(0).unwrap();
        let mut seen = rest(&mut reader).unwrap();
        for i in 0..20 {
            append(&log, &[&format!("{i}")]);
            if i % 3 == 0 {
                log.roll().unwrap();
            }
            if i % 7 == 0 {
                dir.tick();
                log.delete_records_before(i / 2).unwrap();
            }
            if i % 2 == 0 {
                seen.extend(rest(&mut reader).unwrap());
            }
        }
        seen.extend(rest(&mut reader).unwrap());
        let all: Vec<String> =
            std::iter::once("a".to_owned()).chain((0..20).map(|i| i.to_string())).collect();
        assert_eq!(seen, all, "{way:?}");
    }
}

/// A commit of several frames is on its way through the mapping: some of its frames are there, the last is not.
#[test]
fn a_reader_in_another_process_does_not_see_a_part_of_a_commit() {
    let bench = Bench::new(1);
    let config = buffered(WritePath::Mapped).frame_bytes(1024);
    let (_dir, log) = write(&bench, &config);
    append(&log, &["before"]);
    let values = ["x".repeat(600), "y".repeat(600), "z".repeat(600)];
    append(&log, &values.each_ref().map(String::as_str));
    let path = "0/00000000000000000000.log";
    let file = bench.disk.read_file(path).unwrap();
    let at = file.windows(8).rposition(|window| window == b"zzzzzzzz").unwrap() as u64;
    bench.disk.flip_bit(path, at * 8).unwrap();
    let mut reader = follow(&bench, &config).reader(0).unwrap();
    assert_eq!(rest(&mut reader).unwrap(), ["before"]);
    bench.disk.flip_bit(path, at * 8).unwrap();
    assert_eq!(rest(&mut reader).unwrap(), values);
}

/// A full disk let the first of two commits through, then both were taken back, and their offsets given to others.
#[test]
fn a_reader_in_another_process_never_sees_what_a_full_disk_has_made_the_writer_take_back() {
    let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
    let (_dir, log) = write(&bench, &config);
    append(&log, &["kept"]);
    let mut reader = follow(&bench, &config).reader(0).unwrap();
    assert_eq!(rest(&mut reader).unwrap(), ["kept"]);
    let synced = AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
    let first = log.submit(&[Record::value(b"taken back")], &synced).unwrap();
    let fired = bench.disk.faults_fired();
    bench.disk.fail_next(Op::Write, Fault::ShortWrite);
    let next = bench.disk.ops().total() + 1;
    bench.disk.fail_nth(next, Fault::Enospc);
    let refused = log.append(&Record::value(&[7; 60_000])).unwrap_err();
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    assert!(bench.disk.faults_fired() >= fired + 2);
    drop(first);
    bench.disk.heal();
    assert_eq!(rest(&mut reader).unwrap(), [""; 0]);
    append(&log, &["instead"]);
    assert_eq!(rest(&mut reader).unwrap(), ["instead"]);
}

#[test]
fn a_reader_in_another_process_goes_on_with_the_next_writer() {
    for way in WAYS {
        let (bench, config) = (Bench::new(1), buffered(way));
        let (dir, log) = write(&bench, &config);
        append(&log, &["a", "b"]);
        let mut reader = follow(&bench, &config).reader(0).unwrap();
        assert_eq!(rest(&mut reader).unwrap(), ["a", "b"], "{way:?}");
        append(&log, &["c"]);
        // The writer dies.
        drop((log, dir));
        assert_eq!(rest(&mut reader).unwrap(), ["c"]);
        let (dir, log) = write(&bench, &config);
        assert_eq!(append(&log, &["d"]), 3);
        assert_eq!(rest(&mut reader).unwrap(), ["d"]);
        append(&log, &["e"]);
        log.close().unwrap();
        drop(dir);
        let (_dir, log) = write(&bench, &config);
        append(&log, &["f"]);
        assert_eq!(rest(&mut reader).unwrap(), ["e", "f"]);
    }
}

/// What was stored is lost with a failed sync that drops it from the cache; the next writer gives its offsets to other
/// records. A reader that had seen the first would go on behind the others, as if nothing had been.
#[test]
fn a_reader_in_another_process_is_told_when_what_it_has_read_was_lost_by_a_failed_sync() {
    for again in [&["other"][..], &["other", "another", "third", "fourth"]] {
        let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
        let (dir, log) = write(&bench, &config);
        append(&log, &["durable"]);
        log.sync().unwrap();
        append(&log, &["lost"]);
        append(&log, &["lost too"]);
        let mut reader = follow(&bench, &config).reader(0).unwrap();
        assert_eq!(rest(&mut reader).unwrap(), ["durable", "lost", "lost too"]);
        let fired = bench.disk.faults_fired();
        bench.disk.fail_next(Op::Sync, Fault::SyncEioRevert);
        log.sync().unwrap_err();
        assert_eq!(bench.disk.faults_fired(), fired + 1);
        drop((log, dir));
        let (_dir, log) = write(&bench, &config);
        for value in again {
            append(&log, &[value]);
        }
        for _ in 0..2 {
            let told = rest(&mut reader).unwrap_err();
            assert!(matches!(told, Error::OffsetOutOfRange { offset: 3, start: 0, .. }), "{told}");
        }
        reader.seek(1).unwrap();
        assert_eq!(rest(&mut reader).unwrap(), again);
    }
}

#[test]
fn who_waits_for_a_log_of_another_process_is_woken_by_what_was_stored() {
    for way in WAYS {
        let (bench, config) = (Bench::new(1), buffered(way));
        let (_dir, log) = write(&bench, &config);
        append(&log, &["a"]);
        let mut reader = follow(&bench, &config).reader(1).unwrap();
        std::thread::scope(|threads| {
            let waits = threads.spawn(move || {
                reader.next_batch_timeout(Duration::from_secs(3600)).unwrap().unwrap().base_offset()
            });
            append(&log, &["b"]);
            while !waits.is_finished() {
                bench.clock.advance(Duration::from_millis(10));
                std::thread::yield_now();
            }
            assert_eq!(waits.join().unwrap(), 1, "{way:?}");
        });
    }
}

/// The reader stood between two segments when a failed sync took back the end of the first. What it had read last was in
/// the segment it was done with, so nobody asked whether that was still there, and it went on behind records that it never
/// saw.
#[test]
fn a_reader_in_another_process_is_told_of_a_lost_end_of_the_segment_that_it_was_done_with() {
    for read in [3, 4] {
        let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
        let (dir, log) = write(&bench, &config);
        append(&log, &["durable"]);
        log.sync().unwrap();
        append(&log, &["lost"]);
        append(&log, &["lost too"]);
        log.roll().unwrap();
        append(&log, &["lost in the next"]);
        append(&log, &["lost at last"]);
        let mut reader = follow(&bench, &config).reader(0).unwrap();
        for offset in 0..read {
            assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), offset);
        }
        let fired = bench.disk.faults_fired();
        bench.disk.fail_next(Op::Sync, Fault::SyncEioRevert);
        log.sync().unwrap_err();
        assert_eq!(bench.disk.faults_fired(), fired + 1);
        drop((log, dir));
        let (_dir, log) = write(&bench, &config);
        assert_eq!(log.end_offset(), 1);
        for value in ["a", "b", "c", "d", "e", "f"] {
            append(&log, &[value]);
        }
        for _ in 0..2 {
            let told = rest(&mut reader).unwrap_err();
            assert!(matches!(told, Error::OffsetOutOfRange { start: 0, .. }), "{told}");
        }
        reader.seek(1).unwrap();
        assert_eq!(rest(&mut reader).unwrap(), ["a", "b", "c", "d", "e", "f"]);
    }
}

/// With no writer there, a reader had found records in the cache that a failed sync had kept from the device. The next
/// writer looked at the device and gave their offsets anew, and when it was gone too, the reader took its own earlier look
/// for a witness: the log was called corrupt.
#[test]
fn what_a_reader_found_without_a_writer_is_no_witness_against_the_next_writer() {
    let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
    let (dir, log) = write(&bench, &config);
    append(&log, &["durable"]);
    log.sync().unwrap();
    append(&log, &["lost"]);
    append(&log, &["lost too"]);
    let fired = bench.disk.faults_fired();
    bench.disk.fail_next(Op::Sync, Fault::SyncEioKeep);
    log.sync().unwrap_err();
    assert_eq!(bench.disk.faults_fired(), fired + 1);
    drop((log, dir));
    let follower = follow(&bench, &config);
    let mut before = follower.reader(0).unwrap();
    assert_eq!(rest(&mut before).unwrap(), ["durable", "lost", "lost too"]);
    let (dir, log) = write(&bench, &config);
    assert_eq!(log.end_offset(), 1);
    append(&log, &["other"]);
    drop((log, dir));
    let told = rest(&mut before).unwrap_err();
    assert!(matches!(told, Error::OffsetOutOfRange { offset: 3, .. }), "{told}");
    assert_eq!(
        rest(&mut follow(&bench, &config).reader(0).unwrap()).unwrap(),
        ["durable", "other"]
    );
}

/// A sync had failed, and the next writer cut off what was lost with it, but had not come as far as to say so when a reader
/// looked: records were reported as durable and damaged that had never been durable.
#[test]
fn a_recovery_that_stops_anywhere_is_no_damage_to_a_reader_in_another_process() {
    let (mut stopped, mut told) = (0, 0);
    for at in 1..80 {
        let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
        let (dir, log) = write(&bench, &config);
        append(&log, &["durable"]);
        log.sync().unwrap();
        append(&log, &["lost"]);
        log.roll().unwrap();
        append(&log, &["lost too"]);
        let mut reader = follow(&bench, &config).reader(0).unwrap();
        assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 0);
        bench.disk.fail_next(Op::Sync, Fault::SyncEioRevert);
        log.sync().unwrap_err();
        drop((log, dir));
        let dir = bench.dir();
        let fired = bench.disk.faults_fired();
        bench.disk.fail_nth(bench.disk.ops().total() + at, Fault::Eio);
        // It has the store, whether it could open the log or not.
        let opened = Log::open(&dir, "0", config.clone()).is_ok();
        assert!(opened || bench.disk.faults_fired() > fired);
        bench.disk.heal();
        match rest(&mut reader) {
            Ok(values) => assert!(["lost", "lost too"].iter().eq(&values)),
            Err(Error::OffsetOutOfRange { offset, start: 0, end: 1 }) => {
                assert!(offset >= 1);
                told += u32::from(!opened);
            }
            Err(other) => panic!("stopped at call {at}: {other}"),
        }
        stopped += u32::from(!opened);
    }
    assert!(stopped > 40);
    assert!(told > 5);
}

/// The next writer kept what had not been durable and compacted it, which changes its batch or takes it out: a reader that
/// had read it last was told that it was lost.
#[test]
fn a_reader_in_another_process_goes_on_when_the_next_writer_has_compacted_what_it_read_last() {
    for way in WAYS {
        for values in [&["old", "new"][..], &["old"]] {
            let (bench, config) = (Bench::new(1), buffered(way));
            let (dir, log) = write(&bench, &config);
            append(&log, &["durable"]);
            log.sync().unwrap();
            let records: Vec<_> =
                values.iter().map(|value| Record::value(value.as_bytes()).key(b"k")).collect();
            log.append_batch(&records).unwrap();
            let mut reader = follow(&bench, &config).reader(0).unwrap();
            assert_eq!(rest(&mut reader).unwrap().len(), 1 + values.len());
            drop((log, dir));
            let (_dir, log) = write(&bench, &config);
            log.append(&Record::value(b"latest").key(b"k")).unwrap();
            log.roll().unwrap();
            log.settle().unwrap();
            append(&log, &["after"]);
            log.sync().unwrap();
            let compacted = log.compact().unwrap();
            assert_eq!(compacted.records_removed, values.len() as u64, "{compacted:?}");
            assert_eq!(rest(&mut reader).unwrap(), ["latest", "after"], "{way:?}");
        }
    }
}

/// What a reader had read was of another log of the same name. It waited at its own place, and went on behind records that
/// it never saw, or called their segment corrupt.
#[test]
fn a_reader_in_another_process_is_told_when_its_log_was_removed_and_another_has_its_name() {
    let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
    let (dir, log) = write(&bench, &config);
    append(&log, &["a"]);
    append(&log, &["b"]);
    let follower = follow(&bench, &config);
    let mut reader = follower.reader(0).unwrap();
    assert_eq!(rest(&mut reader).unwrap(), ["a", "b"]);
    log.close().unwrap();
    dir.remove_log("0").unwrap();
    let log = Log::open(&dir, "0", config.clone()).unwrap();
    for value in ["c", "d", "e"] {
        append(&log, &[value]);
    }
    let removed = |error: Error| assert!(matches!(error, Error::Removed { .. }), "{error}");
    removed(rest(&mut reader).unwrap_err());
    removed(rest(&mut follower.reader(0).unwrap()).unwrap_err());
    removed(follower.wait_for(2, Duration::from_secs(3600)).unwrap_err());
    assert_eq!(rest(&mut follow(&bench, &config).reader(0).unwrap()).unwrap(), ["c", "d", "e"]);
}

/// Two threads that waited for one log woke each other with every look, and so looked without a pause.
#[test]
fn a_log_of_another_process_is_looked_at_every_10_ms_however_many_wait() {
    let (bench, config) = (Bench::new(1), buffered(WritePath::Positional));
    let (_dir, log) = write(&bench, &config);
    append(&log, &["a"]);
    let follower = follow(&bench, &config);
    let looks = || bench.disk.ops().of(Op::List);
    let begun = looks();
    follower.refresh().unwrap();
    let each = looks() - begun;
    assert!(each > 0);
    let begun = looks();
    std::thread::scope(|threads| {
        let waiting: Vec<_> = (0..3)
            .map(|_| threads.spawn(|| follower.wait_for(1, Duration::from_secs(3600)).unwrap()))
            .collect();
        // Each looks when it begins to wait, then there is one look for each 10 ms of the clock.
        let until = |count: u64| {
            while looks() - begun < count * each {
                std::thread::yield_now();
            }
        };
        until(3);
        for step in 1..=5 {
            bench.clock.advance(Duration::from_millis(9));
            std::thread::sleep(Duration::from_millis(30));
            assert_eq!(looks() - begun, (2 + step) * each, "too early");
            bench.clock.advance(Duration::from_millis(1));
            until(3 + step);
        }
        append(&log, &["b"]);
        bench.clock.advance(Duration::from_millis(10));
        assert!(waiting.into_iter().all(|waits| waits.join().unwrap()));
    });
}
