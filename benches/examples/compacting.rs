//! How long appends take while the background compacts another topic: `cargo run --release -p logmill-benches --example
//! compacting -- [GIGABYTES [BYTES_PER_SECOND]]`; 1 and the usual 64 MiB/s by default, 0 for no bound. A buffered and a synced
//! append take turns, while the compaction goes on and when it is done.

use std::time::{Duration, Instant};

use logmill::{Cleanup, Durability, Partition, Record, Store, TopicConfig};
use logmill_benches::{Scratch, payload};

const VALUE: usize = 230;
const BATCH: u64 = 100;
/// Each key is there so many times.
const ROUNDS: u64 = 10;
/// The background has its first look after a second.
const FIRST_LOOK: Duration = Duration::from_millis(1_100);
/// What compaction does after so long is as before.
const LONGEST: Duration = Duration::from_secs(45);
const IDLE: Duration = Duration::from_secs(12);

/// Bytes that this process has read so far, from the page cache or the disk.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("io");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("rchar")
}

/// Makes a compacted topic of so many bytes, and the two that are appended to.
fn fill(store: &Store, bytes: u64) {
    let config = TopicConfig::new().cleanup(Cleanup::Compact).durability(Durability::Buffered);
    let partition = store.create_topic("compacted", config).expect("topic").partition(0);
    let (partition, value) = (partition.expect("partition"), payload(VALUE, 1));
    let records = bytes / (VALUE as u64 + 20);
    for batch in 0..records / BATCH {
        let keys: Vec<_> =
            (0..BATCH).map(|n| ((batch * BATCH + n) % (records / ROUNDS)).to_le_bytes()).collect();
        let batch: Vec<_> = keys.iter().map(|key| Record::value(&value).key(key)).collect();
        partition.append_batch(&batch).expect("append");
    }
    for durability in [Durability::Buffered, Durability::Sync] {
        let config = TopicConfig::new().durability(durability);
        store.create_topic(name(durability), config).expect("topic");
    }
}

fn name(durability: Durability) -> &'static str {
    if durability == Durability::Sync { "synced" } else { "buffered" }
}

/// Appends to both until `is_over` says so; what each append took.
fn append(both: &[Partition; 2], mut is_over: impl FnMut() -> bool) -> [Vec<Duration>; 2] {
    let value = payload(VALUE, 2);
    let mut spent = [Vec::new(), Vec::new()];
    while !is_over() {
        for _ in 0..100 {
            for (partition, spent) in both.iter().zip(&mut spent) {
                let begin = Instant::now();
                partition.append(&Record::value(&value)).expect("append");
                spent.push(begin.elapsed());
            }
        }
    }
    spent
}

fn print(when: &str, spent: [Vec<Duration>; 2]) {
    for (what, mut spent) in ["buffered", "synced"].iter().zip(spent) {
        spent.sort_unstable();
        let at =
            |share: f64| spent[((spent.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        println!(
            "{when:<10} {what:<9} {:>8} {:>9.1} {:>9.1} {:>9.1} {:>10.1}",
            spent.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<f64>().expect("a number"));
    let bytes = (arguments.next().unwrap_or(1.0) * 1e9) as u64;
    let rate = match arguments.next() {
        None => 64 << 20,
        Some(0.0) => u64::MAX,
        Some(rate) => rate as u64,
    };
    let scratch = Scratch::new("compacting");
    // Without threads nothing is compacted yet.
    let store = Store::builder().threads(0).open(scratch.path()).expect("open");
    fill(&store, bytes);
    store.close().expect("close");

    let store = Store::builder().compaction_bytes_per_second(rate).open(scratch.path());
    let store = store.expect("open");
    let partition = |topic: &str| store.topic(topic).and_then(|topic| Ok(topic.partition(0)?));
    let both = ["buffered", "synced"].map(|topic| partition(topic).expect("partition"));
    let compacted = partition("compacted").expect("partition");
    let left = || compacted.stats().expect("stats").bytes;
    let before = left();
    println!(
        "{:<10} {:<9} {:>8} {:>9} {:>9} {:>9} {:>10}   us",
        "", "", "appends", "p50", "p99", "p99.9", "max"
    );
    std::thread::sleep(FIRST_LOOK);
    let (begin, read_before) = (Instant::now(), bytes_read());
    let spent = append(&both, || left() < before / 4 || begin.elapsed() > LONGEST);
    let (took, read) = (begin.elapsed().as_secs_f64(), bytes_read() - read_before);
    print("compacting", spent);
    println!("{:.0} MB/s were read for {took:.1} s", read as f64 / 1e6 / took);
    // Until it is done.
    let mut read = 0;
    while bytes_read() > read + (1 << 20) {
        read = bytes_read();
        std::thread::sleep(Duration::from_millis(1_500));
    }
    let begin = Instant::now();
    print("idle", append(&both, || begin.elapsed() > IDLE));
    store.close().expect("close");
}
