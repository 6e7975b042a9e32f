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

/// The head of a segment and each of its frames, as the target takes them.
fn frames(name: &str, segment: &[u8]) -> io::Result<()> {
    seed("codec", &format!("{name}-head"), &segment[..128])?;
    let mut at = 128;
    while let Some(head) = segment.get(at..at + 16).filter(|head| **head != [0; 16]) {
        let end = at + 16 + u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let frame = [b"f", &head[8..14], &segment[at + 16..end]].concat();
        seed("codec", &format!("{name}-frame-at-{at}"), &frame)?;
        at = end;
    }
    if let Some(footer) = segment.get(at.next_multiple_of(512)..) {
        seed("codec", &format!("{name}-footer"), &footer[..footer.len().min(128)])?;
    }
    Ok(())
}

fn log(name: &str, disk: &SimDisk) -> io::Result<()> {
    let mut files = BTreeMap::new();
    for (number, path) in NAMES.iter().enumerate() {
        let Some(bytes) = disk.read_file(path) else { continue };
        let file = path.rsplit('/').next().unwrap_or(path);
        if path.ends_with(".log") {
            seed("batch", &format!("{name}-{file}"), &without_reservation(bytes.clone()))?;
            frames(&format!("{name}-{file}"), &bytes)?;
        }
        if [".index", ".time", ".producers"].iter().any(|end| path.ends_with(end)) {
            seed("index", &format!("{name}-{file}"), &bytes)?;
            seed("codec", &format!("{name}-{file}"), &bytes)?;
        }
        if path.ends_with("manifest") {
            seed("codec", &format!("{name}-manifest"), &bytes[..4096])?;
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
