//! Stores that an earlier build has written, as they lie in fixtures/: today's code must open them, for ever.
//!
//! `closed` was closed; `crashed` was killed with records that nobody had synced; `damaged` is `closed` with one flipped
//! bit in its sealed segment. A fixture that was released is never written again.

use std::path::{Path, PathBuf};

use logmill_storage::io::sim::SimDisk;
use logmill_storage::verify::Severity;
use logmill_storage::{
    AppendOptions, Compression, Durability, Error, Header, Journal, Log, LogConfig, Producer,
    Record, RecordBuf,
};

use crate::format;
use crate::support::{Bench, records};

const SEALED: &str = "1/00000000000000000000.log";
const PRODUCER: i64 = 7;

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/v1").join(name)
}

fn fixture(name: &str) -> Bench {
    let bench = Bench::new(1);
    let root = place(name);
    for dir in ["", "0", "0/1", "1"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let within = path.strip_prefix(&root).unwrap().to_str().unwrap();
                bench.disk.write_file(within, &std::fs::read(&path).unwrap()).unwrap();
            }
        }
    }
    bench
}

fn write_fixture(name: &str, disk: &SimDisk) {
    for path in disk.paths() {
        let target = place(name).join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, disk.read_file(&path).unwrap()).unwrap();
    }
}

/// Four batches: a lone record, three of which one is a tombstone, an idempotent one, and a text that compresses.
fn fill(log: &Log, round: i32) {
    let text = b"an event that repeats itself, as events do ".repeat(4);
    let headers = [Header { name: "trace", value: b"\x00\x01\x02" }];
    log.append(&Record::value(&round.to_le_bytes()).key(b"round")).unwrap();
    let record = Record::value(&text).headers(&headers).timestamp(1_600_000_000_000);
    log.append_batch(&[record, Record::tombstone(b"gone"), record]).unwrap();
    let producer = Some(Producer { id: PRODUCER, epoch: 1, sequence: round });
    let options = AppendOptions { producer, ..AppendOptions::default() };
    log.append_with(&[Record::value(b"once").timestamp(1_600_000_000_001)], &options).unwrap();
    log.append(&Record::value(&text).timestamp(1_600_000_000_002)).unwrap();
}

/// A sealed segment of two rounds, a compressed tail of one, and a journal with a checkpoint.
fn made() -> (Bench, Log) {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let entry = logmill_storage::Entry { owner: 5, bytes: b"an entry" };
    journal.append(&[entry, entry], &AppendOptions::default()).unwrap();
    journal.checkpoint(5, journal.reach(), b"the state").unwrap();
    journal.close().unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    fill(&log, 0);
    fill(&log, 1);
    log.roll().unwrap();
    log.settle().unwrap();
    log.close().unwrap();
    let log = Log::open(&dir, "1", LogConfig::default().compression(Compression::Lz4)).unwrap();
    fill(&log, 2);
    (bench, log)
}

#[test]
#[ignore = "writes fixtures/v1: once for each version of the format"]
fn write_the_fixtures_of_this_version() {
    let (bench, log) = made();
    log.close().unwrap();
    write_fixture("closed", &bench.disk);
    bench.disk.flip_bit(SEALED, 300 * 8).unwrap();
    write_fixture("damaged", &bench.disk);
    let (bench, log) = made();
    let options =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    log.append_with(&[Record::value(b"stored, not synced")], &options).unwrap();
    bench.disk.kill();
    write_fixture("crashed", &bench.disk);
}

/// What the rounds have put into a log, by today's code in a store of its own.
fn expected() -> Vec<RecordBuf> {
    records(&made().1)
}

#[test]
fn a_closed_store_of_version_1_opens_with_all_its_records() {
    let bench = fixture("closed");
    assert_eq!(bench.verify().worst, None);
    let dir = bench.dir();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    assert!(log.recovery().clean, "{:?}", log.recovery());
    assert_eq!(records(&log), expected());
    assert_eq!(log.last_sequence(PRODUCER).unwrap(), Some((1, 2)));
    assert_eq!(log.append(&Record::value(b"goes on")).unwrap(), 18);
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let (reach, state) = journal.load_checkpoint(5).unwrap();
    assert_eq!((reach.hot, &state[..]), (2, &b"the state"[..]));
    assert_eq!(journal.reach(), reach);
}

#[test]
fn a_store_of_version_1_whose_process_was_killed_opens_with_all_its_records() {
    let bench = fixture("crashed");
    let dir = bench.dir();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    assert!(!log.recovery().clean);
    let found = records(&log);
    assert_eq!(found[..18], expected());
    assert_eq!(found[18].value.as_deref(), Some(&b"stored, not synced"[..]));
    assert_eq!(found.len(), 19);
    log.close().unwrap();
    drop(dir);
    assert!(bench.verify().worst <= Some(Severity::Note));
}

#[test]
fn a_damaged_store_of_version_1_says_where_and_what_is_before_can_be_read() {
    let bench = fixture("damaged");
    assert_eq!(bench.verify().worst, Some(Severity::Corrupt));
    let log = Log::open(&bench.dir(), "1", LogConfig::default()).unwrap();
    let mut found = Vec::new();
    let damage = log.reader(0).unwrap().for_each(|record| {
        found.push(RecordBuf::from(record));
        Ok::<_, Error>(())
    });
    let sealed = bench.disk.read_file(SEALED).unwrap();
    let frame = format::frames(&sealed).find(|frame| frame.contains(&300)).unwrap();
    match damage {
        Err(Error::Corrupt { position, offset, .. }) => {
            assert_eq!((position, offset), (frame.start as u64, found.len() as u64));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(found, expected()[..found.len()]);
}
