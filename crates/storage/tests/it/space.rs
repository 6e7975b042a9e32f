//! A full disk: nothing acknowledged is harmed, appends come back with the space, and the spare lets deletions through.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use logmill_storage::io::FileSystem;
use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{
    AppendOptions, DataDir, DataDirOptions, Durability, Error, Log, LogConfig, ManualClock, Record,
};

const SPARE: u64 = 64 << 10;

fn open(disk: &SimDisk, durability: Durability) -> (DataDir, Log) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap();
    let config =
        LogConfig::default().durability(durability).segment_bytes_max(32 << 10).spare_bytes(SPARE);
    let log = Log::open(&dir, "1", config).unwrap();
    (dir, log)
}

fn values(log: &Log) -> Vec<Vec<u8>> {
    log.read(log.start_offset(), usize::MAX)
        .unwrap()
        .into_iter()
        .map(|r| r.value.unwrap().to_vec())
        .collect()
}

#[test]
fn a_full_disk_harms_nothing_and_appends_go_on_when_space_returns() {
    for (file_system, durability) in [
        (FileSystem::Ext4, Durability::Sync),
        (FileSystem::Ext4, Durability::Buffered),
        (FileSystem::Other, Durability::Buffered),
    ] {
        let disk = SimDisk::new(3);
        disk.set_file_system(file_system);
        let (_dir, log) = open(&disk, durability);
        disk.set_capacity(Some(disk.used() + (200 << 10)));
        let mut expected = Vec::new();
        let mut refused = 0;
        for n in 0..4000u32 {
            let value = n.to_le_bytes().repeat(25);
            match log.append(&Record::value(&value)) {
                Ok(_) => expected.push(value),
                Err(Error::DiskFull { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
            }
        }
        assert!(refused > 100, "the disk was full");
        assert_eq!(values(&log), expected);
        disk.set_capacity(None);
        log.append(&Record::value(b"space is back")).unwrap();
        expected.push(b"space is back".to_vec());
        assert_eq!(values(&log), expected);
        log.close().unwrap();
    }
}

#[test]
fn the_spare_lets_hundreds_of_deletions_through_on_a_full_disk_and_is_made_anew_after() {
    let disk = SimDisk::new(4);
    let (dir, log) = open(&disk, Durability::Sync);
    disk.set_capacity(Some(disk.used() + (64 << 10)));
    while log.append(&Record::value(&[7; 400])).is_ok() {}
    // Whatever is left in the last block is used up too.
    while log.append(&Record::value(b"d")).is_ok() {}
    let freeing = AppendOptions { use_spare: true, ..AppendOptions::default() };
    let mut deletions = 0;
    while log.append_with(&[Record::value(b"delete 123456")], &freeing).is_ok() {
        deletions += 1;
    }
    // 64 KiB of frames of 45 bytes at the most.
    assert!(deletions >= 1400, "{deletions} deletions went through");
    assert!(matches!(log.append(&Record::value(b"d")), Err(Error::DiskFull { .. })));
    log.delete_records_before(log.end_offset() - 10).unwrap();
    disk.set_capacity(None);
    log.settle().unwrap();
    assert!(disk.paths().iter().any(|path| path.ends_with("spare")), "{:?}", disk.paths());
    drop((log, dir));
    disk.kill();
    let (_dir, log) = open(&disk, Durability::Sync);
    assert_eq!(values(&log).len(), 10);
}

/// `cp --sparse=always` makes one hole of a spare, and then there is no reserve any more.
#[test]
fn a_spare_that_was_copied_without_its_blocks_gets_them_again() {
    let place = tempfile::tempdir().unwrap();
    let open = || {
        let dir = DataDir::open(place.path()).unwrap();
        let log = Log::open(&dir, "1", LogConfig::default().spare_bytes(1 << 20)).unwrap();
        (dir, log)
    };
    let blocks = || std::fs::metadata(place.path().join("1/spare")).unwrap().blocks() * 512;
    drop(open());
    assert!(blocks() >= 1 << 20);
    std::fs::File::create(place.path().join("1/spare")).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(blocks(), 0);
    drop(open());
    assert!(blocks() >= 1 << 20);
}

/// The process died on the full disk, or the power went: what is opened again is drained all the same.
#[test]
fn a_log_that_is_opened_on_a_full_disk_lets_deletions_through_by_its_spare() {
    for power in [false, true] {
        for file_system in [FileSystem::Ext4, FileSystem::Other] {
            let disk = SimDisk::new(5);
            disk.set_file_system(file_system);
            let (dir, log) = open(&disk, Durability::Sync);
            disk.set_capacity(Some(disk.used() + (64 << 10)));
            while log.append(&Record::value(&[7; 400])).is_ok() {}
            while log.append(&Record::value(b"d")).is_ok() {}
            let end = log.end_offset();
            drop((log, dir));
            if power {
                disk.crash(&CrashPlan::random(3))
            } else {
                disk.kill()
            }
            disk.set_capacity(Some(disk.used()));
            let (_dir, log) = open(&disk, Durability::Sync);
            assert_eq!(log.end_offset(), end);
            let freeing = AppendOptions { use_spare: true, ..AppendOptions::default() };
            let mut deletions = 0;
            while log.append_with(&[Record::value(b"delete 123456")], &freeing).is_ok() {
                deletions += 1;
            }
            assert!(deletions >= 1400, "{deletions} went through, {power} {file_system:?}");
        }
    }
}

/// What is in doubt is copied before it is cut, and there was no space for the copy: the log could not be opened, and so
/// nothing in it be deleted.
#[test]
fn doubtful_bytes_are_set_aside_on_a_full_disk_at_the_cost_of_the_spare_which_is_made_anew_after() {
    let disk = SimDisk::new(6);
    let (dir, log) = open(&disk, Durability::Buffered);
    for _ in 0..20 {
        log.append(&Record::value(&[7; 400])).unwrap();
    }
    drop((log, dir));
    disk.kill();
    disk.corrupt("1/00000000000000000000.log", 1024, 512, |bytes| bytes.fill(0)).unwrap();
    disk.set_capacity(Some(disk.used()));
    let (dir, log) = open(&disk, Durability::Buffered);
    let report = log.recovery();
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    let kept = report.quarantined[0].to_string_lossy();
    assert_eq!(disk.read_file(&kept).unwrap().len() as u64, report.dropped_bytes);
    let freeing = AppendOptions { use_spare: true, ..AppendOptions::default() };
    log.append_with(&[Record::value(b"delete 123456")], &freeing).unwrap();
    disk.set_capacity(None);
    log.settle().unwrap();
    assert_eq!(disk.read_file("1/spare").unwrap().len() as u64, SPARE);
    drop(dir);
}
