//! What records cost on disk: in sealed segments, with their indexes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::io::Io;
use logmill_storage::io::sim::SimDisk;
use logmill_storage::{DataDir, DataDirOptions, Durability, Log, LogConfig, ManualClock, Record};

const VALUE: [u8; 100] = [b'v'; 100];

/// Bytes of all sealed segments of the log and of what belongs to them, and how many records they hold.
fn sealed_size(io: &dyn Io, log: &Log) -> (u64, u64) {
    log.roll().unwrap();
    log.settle().unwrap();
    let files = io.list(Path::new("0")).unwrap();
    let of = |extension: &str| -> Vec<u64> {
        files.iter().filter(|f| f.name.ends_with(extension)).map(|f| f.len).collect()
    };
    let segments = of(".log");
    assert!(segments.len() > 1);
    assert_eq!((of(".index").len(), of(".time").len()), (segments.len(), segments.len()));
    let bytes = [segments, of(".index"), of(".time")].concat().iter().sum();
    (bytes, log.end_offset())
}

#[expect(clippy::print_stdout, reason = "the figures are wanted, not only the verdict")]
fn overhead(dir: &DataDir, config: LogConfig, count: u64, append: impl Fn(&Log, u64)) -> f64 {
    let log = Log::open(dir, "0", config.segment_bytes_max(256 << 10)).unwrap();
    for n in 0..count {
        append(&log, n);
    }
    let (bytes, records) = sealed_size(dir.io().as_ref(), &log);
    let overhead = bytes as f64 / (records * VALUE.len() as u64) as f64 - 1.0;
    println!("{records} records: {:.2} % overhead", overhead * 100.0);
    overhead
}

fn lone(log: &Log, _: u64) {
    log.append(&Record::value(&VALUE)).unwrap();
}

fn hundred(log: &Log, _: u64) {
    log.append_batch(&[Record::value(&VALUE); 100]).unwrap();
}

#[test]
fn a_lone_value_of_100_bytes_costs_at_most_30_percent() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let config = LogConfig::default().durability(Durability::Buffered);
    assert!(overhead(&dir, config, 10_000, lone) <= 0.30);
}

#[test]
fn a_lone_synced_value_of_100_bytes_says_what_is_durable_and_costs_at_most_30_percent() {
    // Ten a second: on a real disk the test would wait for each of them.
    let clock = Arc::new(ManualClock::at(0));
    let options = DataDirOptions::new().threads(0).clock(Arc::clone(&clock) as _);
    let dir = options.open_with(SimDisk::new(1).io()).unwrap();
    let spaced = |log: &Log, n: u64| {
        clock.advance(Duration::from_millis(100));
        lone(log, n);
    };
    assert!(overhead(&dir, LogConfig::default(), 10_000, spaced) <= 0.30);
}

#[test]
fn values_of_100_bytes_in_batches_of_100_cost_at_most_12_percent() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    assert!(overhead(&dir, LogConfig::default(), 200, hundred) <= 0.12);
}
