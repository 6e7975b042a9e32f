//! Writes the seeds of the corpora: `cargo run --example seeds` in `fuzz/`. Each is a real file, or a store, of today's format.

use std::collections::BTreeMap;
use std::{fs, io};

use logmill_fuzz::files::{NAMES, pack};
use logmill_fuzz::{dir_on, stores};
use logmill_storage::io::sim::SimDisk;
use logmill_storage::{Journal, LogConfig};

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(&dir)?;
    fs::write(format!("{dir}/seed-{name}"), bytes)
}

fn without_reservation(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 17));
    bytes
}

fn log(name: &str, disk: &SimDisk) -> io::Result<()> {
    let mut files = BTreeMap::new();
    for (number, path) in NAMES.iter().enumerate() {
        let Some(bytes) = disk.read_file(path) else { continue };
        let file = path.rsplit('/').next().unwrap_or(path);
        if path.ends_with(".log") {
            seed("batch", &format!("{name}-{file}"), &without_reservation(bytes.clone()))?;
        }
        if [".index", ".time", ".producers"].iter().any(|end| path.ends_with(end)) {
            seed("index", &format!("{name}-{file}"), &bytes)?;
        }
        files.insert(number, without_reservation(bytes));
    }
    seed("open_log", name, &pack(&files))
}

fn main() -> io::Result<()> {
    log("closed", &stores::closed())?;
    log("crashed", &stores::crashed())?;
    let dir = dir_on(stores::engines(), false).expect("a store");
    let journal = Journal::open(&dir, "0", LogConfig::default()).expect("a journal");
    let mut entries = Vec::new();
    journal
        .replay(Default::default(), |entry| {
            entries.push(entry.owner as u8);
            entries.extend_from_slice(&(entry.bytes.len() as u16).to_le_bytes());
            entries.extend_from_slice(entry.bytes);
            Ok(())
        })
        .expect("entries");
    seed("journal", "engines", &entries)?;
    let (queues, streams) = stores::open_engines(&dir, &journal).expect("engines");
    queues.checkpoint().expect("a checkpoint");
    drop((queues, streams));
    for owner in 0..4 {
        if let Some((_, state)) = journal.load_checkpoint(owner) {
            seed("checkpoint", &format!("{owner}"), &[&[owner as u8], &state[..]].concat())?;
        }
    }
    let script: Vec<u8> = (0..400u32).map(|n| (n * n * 7 % 251) as u8).collect();
    seed("operations", "any", &script)
}
