//! What the benches share: payloads and stores of a known content.

pub mod streams;

use std::path::{Path, PathBuf};
use std::time::Instant;

use logmill_storage::{DataDir, Durability, Log, LogConfig, Record};

/// Where bench stores are made: on a real disk, as the figures are about one.
pub fn place() -> PathBuf {
    std::env::var_os("LOGMILL_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench-data"),
        PathBuf::from,
    )
}

/// A directory of its own under [`place`], removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    pub fn new(name: &str) -> Scratch {
        let path = place().join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("bench directory");
        Scratch(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `len` bytes, constant but for an 8-byte counter, as the peers were measured with.
pub fn payload(len: usize, counter: u64) -> Vec<u8> {
    let mut bytes = vec![b'x'; len];
    bytes[..8].copy_from_slice(&counter.to_le_bytes());
    bytes
}

/// A log of `count` records of `len` bytes, appended `batch` at a time without syncs.
pub fn filled(dir: &DataDir, count: usize, len: usize, batch: usize) -> Log {
    let log =
        Log::open(dir, "1", LogConfig::default().durability(Durability::Buffered)).expect("log");
    let value = payload(len, 7);
    let records = vec![Record::value(&value); batch];
    for _ in 0..count / batch {
        log.append_batch(&records).expect("append");
    }
    log
}

/// The time of `work` in seconds.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// Anonymous resident memory of this process in MiB.
pub fn anonymous() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("RssAnon");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib / 1024.0
}
