//! What compaction by key costs where there are very many keys: `cargo run --release -p logmill-benches --example compaction
//! -- [GIGABYTES [KEYS]]`; 10 and 10 M by default, in some 25 GB of disk. Each key is there a few times, in no order; one
//! that holds all keys at once would need half a gigabyte.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logmill_benches::{Scratch, anonymous, payload, seconds};
use logmill_storage::{DataDir, Durability, Log, LogConfig, Record};

const BATCH: usize = 100;
const VALUE: usize = 230;

/// As the keys of real topics: an id of 24 bytes.
fn key(number: u64) -> [u8; 24] {
    let mut key = *b"customer-000000000000000";
    let digits = format!("{number:015}");
    key[9..].copy_from_slice(digits.as_bytes());
    key
}

fn fill(log: &Log, bytes: u64, keys: u64) -> u64 {
    let value = payload(VALUE, 1);
    let records = bytes / (VALUE as u64 + 34);
    let mut random = 1u64;
    for _ in 0..records / BATCH as u64 {
        let batch: Vec<_> = (0..BATCH)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                key((random >> 33) % keys)
            })
            .collect();
        let batch: Vec<_> = batch.iter().map(|key| Record::value(&value).key(key)).collect();
        log.append_batch(&batch).expect("append");
    }
    log.roll().expect("roll");
    log.settle().expect("settle");
    records
}

/// Runs `work`; returns its result and the most anonymous memory that was seen on the way, in MiB.
fn peak<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let watch = threads.spawn(|| {
            let mut most = anonymous();
            while !is_done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                most = most.max(anonymous());
            }
            most
        });
        let result = work();
        is_done.store(true, Ordering::Relaxed);
        (result, watch.join().expect("watch"))
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<f64>().expect("a number"));
    let gigabytes = arguments.next().unwrap_or(10.0);
    let keys = arguments.next().unwrap_or(10e6) as u64;
    let scratch = Scratch::new("compaction");
    let dir = DataDir::open(scratch.path()).expect("directory");
    let config = LogConfig::default().durability(Durability::Buffered);
    let log = Log::open(&dir, "1", config).expect("log");
    let records = fill(&log, (gigabytes * 1e9) as u64, keys);
    let before = anonymous();
    println!("{gigabytes} GB, {records} records, at most {keys} keys; {before:.1} MiB before");
    let mut report = None;
    let mut spent = 0.0;
    let ((), most) = peak(|| spent = seconds(|| report = Some(log.compact().expect("compact"))));
    let report = report.expect("report");
    println!(
        "peak {:.1} MiB more, {} passes, {:.0} s; {} records are left, {:.2} GB of {:.2}",
        most - before,
        report.passes,
        spent,
        records - report.records_removed,
        report.bytes_after as f64 / 1e9,
        report.bytes_before as f64 / 1e9,
    );
    log.close().expect("close");
}
