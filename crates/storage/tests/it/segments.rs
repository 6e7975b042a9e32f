//! Segments: when they are made, how they grow, when they end, and in which order what becomes durable.

use std::sync::Arc;
use std::time::Duration;

use logmill_storage::io::FileSystem;
use logmill_storage::io::sim::{CrashPlan, Fault, Op, SimDisk};
use logmill_storage::{
    Compression, DataDir, DataDirOptions, Durability, Error, Log, LogConfig, ManualClock, Record,
    WritePath,
};

const START_MS: i64 = 1_700_000_000_000;

fn sim(disk: &SimDisk, clock: &Arc<ManualClock>) -> DataDir {
    let clock = Arc::<ManualClock>::clone(clock);
    DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap()
}

fn segments(disk: &SimDisk) -> Vec<(String, usize)> {
    let logs = disk.paths().into_iter().filter(|path| path.ends_with(".log"));
    let mut found: Vec<_> = logs
        .map(|path| {
            let len = disk.read_file(&path).unwrap().len();
            (path, len)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn there_is_no_segment_before_the_first_append_and_the_reservation_doubles_and_is_trimmed() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let dir = sim(&disk, &clock);
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    assert_eq!(segments(&disk), []);
    log.append(&Record::value(b"first")).unwrap();
    let lengths =
        |disk: &SimDisk| segments(disk).into_iter().map(|(_, len)| len).collect::<Vec<_>>();
    assert_eq!(lengths(&disk), [64 << 10]);
    for _ in 0..70 {
        log.append(&Record::value(&[7; 1000])).unwrap();
    }
    assert_eq!(lengths(&disk), [128 << 10]);
    log.close().unwrap();
    assert!(lengths(&disk)[0] < 73_000, "{:?}", lengths(&disk));
}

#[test]
fn a_segment_is_synced_under_a_temporary_name_and_in_its_directory_before_the_first_acknowledgement()
 {
    let disk = SimDisk::new(1);
    disk.set_file_system(FileSystem::Other);
    let clock = Arc::new(ManualClock::at(START_MS));
    let dir = sim(&disk, &clock);
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    disk.start_trace();
    log.append(&Record::value(b"first")).unwrap();
    let trace = disk.trace();
    let at = |what: &str| {
        trace
            .iter()
            .position(|line| line.contains(what))
            .unwrap_or_else(|| panic!("{what} not in {trace:#?}"))
    };
    let order = [
        at("sync 1/manifest"),
        at("create 1/00000000000000000000.log.tmp"),
        at("sync 1/00000000000000000000.log.tmp"),
        at("rename 1/00000000000000000000.log.tmp"),
        at("sync_dir 1"),
    ];
    assert!(order.is_sorted(), "{order:?} in {trace:#?}");
    let data_sync = trace.iter().rposition(|line| line.contains("sync 1/0000")).unwrap();
    let live =
        trace.iter().rposition(|line| line.contains("write") && line.contains("1/live")).unwrap();
    assert!(order[4] < data_sync, "the record is synced after its segment has its name");
    assert!(data_sync < live, "what is acknowledged is said after the sync: {trace:#?}");
}

/// Each log that was made listed all of those beside it, twice: ten thousand partitions of a topic took a hundred million
/// system calls.
#[test]
fn a_directory_is_looked_at_once_however_many_logs_are_made_in_it() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let dir = sim(&disk, &clock);
    let append = |name: &str| {
        let log = Log::open(&dir, name, LogConfig::default()).unwrap();
        log.append(&Record::value(b"acknowledged")).unwrap();
        log.close().unwrap();
    };
    append("7/0");
    disk.start_trace();
    (1..20).for_each(|number| append(&format!("7/{number}")));
    let trace = disk.trace();
    assert!(trace.iter().any(|line| line == "list 7/1"), "the trace has them: {trace:#?}");
    assert!(!trace.iter().any(|line| line == "list 7"), "{trace:#?}");

    // One that was removed and made again is as durable as the first was.
    (0..20).for_each(|number| dir.remove_log(&format!("7/{number}")).unwrap());
    dir.remove_log("7").unwrap();
    append("7/3");
    disk.crash(&CrashPlan::nothing());
    let dir = sim(&disk, &clock);
    assert_eq!(Log::open(&dir, "7/3", LogConfig::default()).unwrap().end_offset(), 1);
}

#[test]
fn a_segment_ends_when_it_is_full_or_old() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let dir = sim(&disk, &clock);
    let config =
        LogConfig::default().segment_bytes_max(8 << 10).segment_age_max(Duration::from_secs(60));
    let log = Log::open(&dir, "1", config).unwrap();
    for _ in 0..20 {
        log.append(&Record::value(&[7; 1000])).unwrap();
    }
    let full = segments(&disk).len();
    assert!((3..=4).contains(&full), "{full} segments of 8 KiB for 20 KB");
    clock.advance(Duration::from_secs(59));
    log.append(&Record::value(b"young")).unwrap();
    assert_eq!(segments(&disk).len(), full);
    clock.advance(Duration::from_secs(2));
    log.append(&Record::value(b"too old for the last one")).unwrap();
    assert_eq!(segments(&disk).len(), full + 1);
    log.settle().unwrap();
    assert_eq!(log.read(0, usize::MAX).unwrap().len(), 22);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own_and_is_all_or_nothing() {
    for path in [WritePath::Mapped, WritePath::Positional] {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::at(START_MS));
        let dir = sim(&disk, &clock);
        let config = LogConfig::default()
            .segment_bytes_max(16 << 10)
            .durability(Durability::Buffered)
            .write_path(path);
        let log = Log::open(&dir, "1", config.clone()).unwrap();
        log.append(&Record::value(b"before")).unwrap();
        let big = vec![7; 600 << 10];
        let records: Vec<_> = (0..5).map(|_| Record::value(&big)).collect();
        let appended = log.append_batch(&records).unwrap();
        log.append(&Record::value(b"after")).unwrap();
        assert_eq!((appended.base_offset, appended.last_offset), (1, 5));
        assert_eq!(segments(&disk).len(), 3);
        drop((log, dir));
        disk.kill();
        let log = Log::open(&sim(&disk, &clock), "1", config).unwrap();
        let lens: Vec<_> = log
            .read(0, usize::MAX)
            .unwrap()
            .iter()
            .map(|r| r.value.as_ref().unwrap().len())
            .collect();
        assert_eq!(lens, [6, 600 << 10, 600 << 10, 600 << 10, 600 << 10, 600 << 10, 5]);
    }
}

#[test]
fn what_cannot_be_appended_is_refused_with_its_limit_and_nothing_is_written() {
    let disk = SimDisk::new(1);
    let dir = sim(&disk, &Arc::new(ManualClock::at(START_MS)));
    let log = Log::open(&dir, "1", LogConfig::default().record_bytes_max(1 << 10)).unwrap();
    assert!(matches!(
        log.append(&Record::value(&[0; 1 << 10])),
        Err(Error::RecordTooLarge { max: 1024, .. })
    ));
    assert!(matches!(log.append_batch(&[]), Err(Error::EmptyBatch)));
    assert!(matches!(
        log.append(&Record::value(b"x").timestamp(i64::MAX)),
        Err(Error::TimestampOutOfRange { timestamp: i64::MAX })
    ));
    assert_eq!((log.end_offset(), segments(&disk).len()), (0, 0));
    for config in [
        LogConfig::default().segment_bytes_max(1),
        LogConfig::default().record_bytes_max((1 << 30) + 1),
        LogConfig::default().segment_age_max(Duration::ZERO),
    ] {
        assert!(matches!(Log::open(&dir, "2", config), Err(Error::InvalidConfig { .. })));
    }
    for name in ["", "a", "01", "../1", "1/", "1/2/3", "-1", "+1", "1/ 2"] {
        assert!(
            matches!(Log::open(&dir, name, LogConfig::default()), Err(Error::InvalidName { .. })),
            "{name:?}"
        );
    }
}

#[test]
fn compressed_batches_come_back_as_they_were_and_take_less_space() {
    let mut codecs = vec![Compression::Lz4];
    if cfg!(feature = "zstd") {
        codecs.push(Compression::Zstd);
    }
    let text = b"the same words again and again and again and again".repeat(20);
    for codec in codecs {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::at(START_MS));
        let dir = sim(&disk, &clock);
        let log = Log::open(&dir, "1", LogConfig::default().compression(codec)).unwrap();
        for _ in 0..10 {
            log.append_batch(&[
                Record::value(&text).key(b"k"),
                Record::tombstone(b"k"),
                Record::value(b""),
            ])
            .unwrap();
        }
        log.close().unwrap();
        let stored: usize = segments(&disk).iter().map(|(_, len)| len).sum();
        assert!(stored < 10 * text.len() / 4, "{stored} bytes with {codec:?}");
        let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
        for (i, record) in log.read(0, usize::MAX).unwrap().iter().enumerate() {
            let expected = match i % 3 {
                0 => Some(text.as_slice()),
                1 => None,
                _ => Some(&b""[..]),
            };
            assert_eq!(record.value.as_deref(), expected);
        }
    }
}

#[test]
fn what_shrinks_most_is_not_mistaken_for_what_would_fill_the_memory() {
    let zeros = vec![0; (16 << 20) - 100];
    for codec in [Compression::Lz4, Compression::Zstd] {
        if codec == Compression::Zstd && cfg!(not(feature = "zstd")) {
            continue;
        }
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let log = Log::open(&dir, "1", LogConfig::default().compression(codec)).unwrap();
        log.append(&Record::value(&zeros)).unwrap();
        log.append_batch(&vec![Record::value(b""); 1 << 20]).unwrap();
        assert!(log.get(0).unwrap().unwrap().value.unwrap() == zeros);
        assert_eq!(log.read(1, usize::MAX).unwrap().len(), 1 << 20);
    }
}

#[test]
fn the_first_offset_at_or_after_a_time_is_found_whatever_order_the_timestamps_have() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let dir = sim(&disk, &clock);
    let log = Log::open(&dir, "1", LogConfig::default().segment_bytes_max(32 << 10)).unwrap();
    let mut times = Vec::new();
    for n in 0..2000i64 {
        // Rising on the whole, with late ones among them.
        let ms = START_MS + n * 10 - if n % 7 == 0 { 350 } else { 0 };
        log.append(&Record::value(&[7; 90]).timestamp(ms)).unwrap();
        times.push(ms);
    }
    for reopened in [false, true] {
        for ms in (START_MS - 400..START_MS + 20_100).step_by(37) {
            let expected = times.iter().position(|time| *time >= ms).map(|i| i as u64);
            assert_eq!(
                log.offset_for_timestamp(ms).unwrap(),
                expected,
                "{ms}, reopened {reopened}"
            );
        }
        log.settle().unwrap();
    }
}

/// A full segment that could not be sealed, since it was damaged meanwhile, kept what is proven from moving on: each open
/// after a crash had more to read, and then refused the log for a segment that no sealed log would have looked at.
#[test]
fn a_full_segment_that_is_damaged_before_it_is_sealed_holds_up_nothing_behind_it() {
    for is_closed in [true, false] {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::at(0));
        let dir = sim(&disk, &clock);
        let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
        log.append(&Record::value(b"damaged")).unwrap();
        log.roll().unwrap();
        log.append(&Record::value(b"behind")).unwrap();
        let path = "1/00000000000000000000.log";
        let bytes = disk.read_file(path).unwrap();
        let at = bytes.windows(7).position(|bytes| bytes == b"damaged").unwrap() as u64;
        disk.flip_bit(path, at * 8).unwrap();
        let corrupt = |error: &Error| matches!(error, Error::Corrupt { offset: 0, .. });
        assert!(corrupt(&log.settle().unwrap_err()));
        if is_closed {
            assert!(corrupt(&log.close().unwrap_err()), "it is told");
        } else {
            drop(log);
        }
        drop(dir);

        let dir = sim(&disk, &clock);
        let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
        assert_eq!((log.recovery().proven_offset, log.recovery().scanned_bytes), (2, 0));
        assert_eq!(log.recovery().clean, is_closed);
        assert_eq!(log.append(&Record::value(b"more")).unwrap(), 2);
        assert!(corrupt(&log.get(0).unwrap_err()));
        assert_eq!(log.get(1).unwrap().unwrap().value.as_deref(), Some(b"behind".as_slice()));
    }
}

/// Each look at a log opened and measured every file: a partition of a thousand segments, every 15 seconds.
#[test]
fn the_size_of_a_sealed_segment_is_asked_for_once() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let dir = sim(&disk, &clock);
    let config = LogConfig::default().segment_bytes_max(1 << 16).durability(Durability::Buffered);
    let log = Log::open(&dir, "1", config.clone()).unwrap();
    for _ in 0..100 {
        log.append(&Record::value(&[7; 10_000])).unwrap();
    }
    log.settle().unwrap();
    let on_disk = || {
        let files = dir.io().list(std::path::Path::new("1")).unwrap();
        files.iter().filter(|file| file.name.ends_with(".log")).map(|file| file.len).sum::<u64>()
    };
    let calls = |log: &Log| {
        let before = disk.ops().total();
        let stats = log.stats().unwrap();
        let calls = disk.ops().total() - before;
        assert_eq!(stats.bytes, on_disk());
        assert!(stats.segments > 15);
        calls
    };
    assert!(calls(&log) <= 2, "the active one");
    log.close().unwrap();
    let log = Log::open(&dir, "1", config).unwrap();
    calls(&log);
    assert!(calls(&log) <= 6, "the last one, which has no footer");
    log.roll().unwrap();
    log.settle().unwrap();
    calls(&log);
}

/// As `scripts/failed-fsync` has it now and then on a real disk: the write that fails is one that the making of a segment
/// needs. Nothing of it was acknowledged and its file is thrown away, so the log is not in doubt.
#[test]
fn a_segment_that_cannot_be_made_durable_is_thrown_away_and_the_log_goes_on_in_another() {
    let faults = [Fault::SyncEioKeep, Fault::SyncEioSome, Fault::SyncEioRevert, Fault::SyncEioDrop];
    for (fault, is_first) in faults.into_iter().flat_map(|fault| [(fault, true), (fault, false)]) {
        let (mut met, mut at) = (0, 0);
        loop {
            let disk = SimDisk::new(at);
            let clock = Arc::new(ManualClock::at(START_MS));
            let log = Log::open(&sim(&disk, &clock), "1", LogConfig::default()).unwrap();
            if !is_first {
                log.append(&Record::value(b"earlier")).unwrap();
                log.roll().unwrap();
            }
            let earlier = log.end_offset();
            disk.fail_nth(disk.ops().total() + at, fault);
            let refused = log.append(&Record::value(b"refused"));
            if disk.faults_fired() == 0 {
                break;
            }
            at += 1;
            if !matches!(refused, Err(Error::Io { op: "create" | "sync directory of", .. })) {
                continue;
            }
            met += 1;
            assert_eq!((log.end_offset(), log.high_watermark()), (earlier, earlier));
            assert_eq!(log.append(&Record::value(b"once more")).unwrap(), earlier);
            assert_eq!(log.append(&Record::value(b"and on")).unwrap(), earlier + 1);
            disk.crash(&CrashPlan::nothing());
            let log = Log::open(&sim(&disk, &clock), "1", LogConfig::default()).unwrap();
            let found: Vec<_> = crate::support::records(&log);
            let found: Vec<_> = found.iter().map(|record| record.value.as_deref()).collect();
            let expected = [&b"earlier"[..], b"once more", b"and on"].map(Some);
            assert_eq!(found, expected[usize::from(is_first)..], "{fault:?}, call {at}");
        }
        assert!(met > 0, "{fault:?} met the making of no segment");
    }
}

/// One that the log does not know of would make a clean close look like a crash.
#[test]
fn a_segment_that_cannot_be_mapped_is_taken_back() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let config = LogConfig::default().write_path(WritePath::Mapped);
    let log = Log::open(&sim(&disk, &clock), "1", config.clone()).unwrap();
    disk.fail_next(Op::Map, Fault::Eio);
    assert!(matches!(log.append(&Record::value(b"refused")), Err(Error::Io { op: "map", .. })));
    assert_eq!(disk.faults_fired(), 1);
    assert_eq!(segments(&disk), []);
    log.close().unwrap();
    assert!(Log::open(&sim(&disk, &clock), "1", config).unwrap().recovery().clean);
}

#[test]
fn a_moment_is_found_within_a_later_segment_by_that_segments_own_index() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(START_MS));
    let log = Log::open(&sim(&disk, &clock), "1", LogConfig::default()).unwrap();
    let moment = |n: i64| START_MS + n * 10;
    for n in 0..600 {
        if n == 100 {
            log.roll().unwrap();
            log.settle().unwrap();
        }
        log.append(&Record::value(&[7; 1_000]).timestamp(moment(n))).unwrap();
    }
    log.sync().unwrap();
    for n in [0, 99, 100, 101, 350, 599] {
        assert_eq!(log.offset_for_timestamp(moment(n)).unwrap(), Some(n as u64));
        assert_eq!(log.offset_for_timestamp(moment(n) - 1).unwrap(), Some(n as u64));
    }
    assert_eq!(log.offset_for_timestamp(moment(600)).unwrap(), None);
}
