//! How long a log takes to open after kill -9, by its size: `cargo run --release -p logmill-benches --example
//! open_after_kill -- 1 4 10` (gigabytes). A child fills the log, leaves 16 MiB that nobody has synced, and is killed.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use logmill_benches::{Scratch, payload, seconds};
use logmill_storage::{DataDir, DataDirOptions, Durability, Log, LogConfig, Record};

const UNPROVEN: usize = 16 << 20;

fn fill(path: &str, gigabytes: usize) {
    // Without background threads nothing is synced but what is asked for.
    let dir = DataDirOptions::new().threads(0).open(path).expect("directory");
    let log =
        Log::open(&dir, "1", LogConfig::default().durability(Durability::Buffered)).expect("log");
    let value = payload(1024, 1);
    let records = vec![Record::value(&value); 100];
    let bytes = gigabytes << 30;
    for i in 0..(bytes - UNPROVEN) / (100 * 1044) {
        log.append_batch(&records).expect("append");
        if i % 1000 == 0 {
            log.settle().expect("settle");
        }
    }
    log.settle().expect("settle");
    for _ in 0..UNPROVEN / (100 * 1044) {
        log.append_batch(&records).expect("append");
    }
    println!("filled");
    std::io::stdout().flush().expect("stdout");
    loop {
        std::thread::park();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, path, gigabytes] = arguments.as_slice()
        && child == "fill"
    {
        fill(path, gigabytes.parse().expect("gigabytes"));
    }
    for gigabytes in &arguments {
        let scratch = Scratch::new("open");
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["fill", scratch.path().to_str().expect("UTF-8"), gigabytes])
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        child
            .stdout
            .take()
            .expect("pipe")
            .read_exact(&mut [0; 7])
            .expect("a child that filled the log");
        child.kill().expect("kill");
        child.wait().expect("wait");
        let dir = DataDir::open(scratch.path()).expect("directory");
        let mut log = None;
        let spent =
            seconds(|| log = Some(Log::open(&dir, "1", LogConfig::default()).expect("log")));
        let log = log.expect("log");
        let report = log.recovery();
        println!(
            "{gigabytes} GB: opened in {:.1} ms, {:.1} MiB unproven, {} records, {:?}",
            spent * 1e3,
            report.scanned_bytes as f64 / f64::from(1 << 20),
            log.end_offset(),
            report.verdict
        );
    }
}
