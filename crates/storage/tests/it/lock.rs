//! One writer, any number of readers beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::io::{Disk, Io, LockKind};
use logmill_storage::{
    AppendOptions, DataDir, DataDirOptions, Durability, Error, Log, LogConfig, Record, Visibility,
};

#[test]
fn a_second_writer_is_told_who_has_the_store_and_may_wait_for_it() {
    let place = tempfile::tempdir().unwrap();
    let first = DataDir::open(place.path()).unwrap();
    match DataDir::open(place.path()) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    let path = place.path().to_owned();
    let waiter = std::thread::spawn(move || {
        DataDirOptions::new().lock_wait(Duration::from_secs(60)).open(path).map(|_| ())
    });
    drop(first);
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_log_is_open_once_at_a_time_and_can_be_opened_again_when_it_was_dropped() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    for round in 0..50 {
        let log =
            Log::open(&dir, "1", LogConfig::default().durability(Durability::Buffered)).unwrap();
        assert_eq!(log.end_offset(), round * 10);
        assert!(matches!(Log::open(&dir, "1", LogConfig::default()), Err(Error::Locked { .. })));
        assert!(matches!(dir.remove_log("1"), Err(Error::Locked { .. })));
        for _ in 0..10 {
            log.append(&Record::value(b"x")).unwrap();
        }
        // Background work may be at it when it is dropped.
        log.roll().unwrap();
    }
    dir.remove_log("1").unwrap();
    assert_eq!(dir.logs().unwrap(), Vec::<String>::new());
}

#[test]
fn a_closed_directory_goes_to_the_next_writer_with_the_last_log_that_is_closed() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    log.append(&Record::value(b"x")).unwrap();
    dir.close();
    assert!(matches!(Log::open(&dir, "2", LogConfig::default()), Err(Error::Closed { .. })));
    assert!(matches!(DataDir::open(place.path()), Err(Error::Locked { .. })));
    let held = log.clone();
    log.close().unwrap();
    let next = DataDir::open(place.path()).unwrap();
    assert!(matches!(held.append(&Record::value(b"late")), Err(Error::Closed { .. })));
    assert_eq!(held.get(0).unwrap().unwrap().value.as_deref(), Some(&b"x"[..]));
    assert_eq!(Log::open(&next, "1", LogConfig::default()).unwrap().end_offset(), 1);
}

#[test]
fn a_reader_in_a_directory_opened_for_reading_sees_what_is_durable_and_writes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default().segment_bytes_max(4 << 10)).unwrap();
    for n in 0..100u32 {
        log.append(&Record::value(&n.to_le_bytes())).unwrap();
    }
    let before = listing(place.path());
    let reading = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let follower = Log::open(&reading, "1", LogConfig::default()).unwrap();
    assert_eq!(follower.high_watermark(), 100);
    assert!(matches!(follower.append(&Record::value(b"no")), Err(Error::ReadOnly { .. })));
    let mut reader = follower.reader(0).unwrap();
    let mut seen = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        seen += batch.count();
    }
    assert_eq!(seen, 100);
    assert_eq!(listing(place.path()), before);

    log.append(&Record::value(b"one more")).unwrap();
    let batch = reader.next_batch_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(batch.base_offset(), 100);

    // What is stored and not durable is no business of another process while the writer lives.
    let buffered =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    log.append_with(&[Record::value(b"not synced")], &buffered).unwrap();
    assert_eq!(log.reader_with(101, Visibility::Stored).unwrap().high_watermark(), 102);
    drop((log, dir));
    follower.refresh().unwrap();
    assert_eq!(
        follower.high_watermark(),
        102,
        "the writer died: what recovery would keep is there"
    );
}

/// A read-only open used to make the file whose lock says that a writer lives, in a copy of a store that came without it.
#[test]
fn a_reader_makes_no_file_not_even_one_to_lock() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    log.append(&Record::value(b"x")).unwrap();
    log.close().unwrap();
    drop(dir);
    for name in ["LOCK", "ALIVE"] {
        std::fs::remove_file(place.path().join(name)).unwrap();
    }
    let reading = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    assert!(!reading.writer_is_alive().unwrap());
    let follower = Log::open(&reading, "1", LogConfig::default()).unwrap();
    assert_eq!(follower.read(0, 100).unwrap().len(), 1);
    let names: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["1"]);
}

/// A reader holds a lock for the instant in which it asks whether a writer lives. A writer used to wait for that without
/// end, whatever time it was given, so a reader that was stopped just then stopped the writer as well.
#[test]
fn a_reader_that_holds_on_to_its_lock_does_not_keep_a_writer_waiting_for_ever() {
    let place = tempfile::tempdir().unwrap();
    drop(DataDir::open(place.path()).unwrap());
    let reader = Disk::open(place.path(), false).unwrap();
    let held = reader.lock(Path::new("ALIVE"), LockKind::Shared).unwrap().unwrap();
    match DataDir::open(place.path()) {
        Err(Error::Locked { path, pid: None }) => assert_eq!(path, place.path().join("ALIVE")),
        other => panic!("{other:?}"),
    }
    drop(held);
    DataDir::open(place.path()).unwrap();
}

fn listing(path: &Path) -> Vec<(String, u64)> {
    let mut names: Vec<_> = std::fs::read_dir(path.join("1"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    names.sort();
    names
}

#[test]
fn a_tail_reader_wakes_when_something_is_appended() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let ready = Arc::new(std::sync::Barrier::new(2));
    let tail = {
        let (log, ready) = (log.clone(), Arc::clone(&ready));
        std::thread::spawn(move || {
            let mut reader = log.reader(0).unwrap();
            ready.wait();
            let batch = reader.next_batch_timeout(Duration::from_secs(60)).unwrap().unwrap();
            batch.records().next().unwrap().unwrap().value.unwrap().to_vec()
        })
    };
    ready.wait();
    log.append(&Record::value(b"wake up")).unwrap();
    assert_eq!(tail.join().unwrap(), b"wake up");
    assert!(!log.wait_for(1, Duration::from_millis(5)).unwrap());
}
