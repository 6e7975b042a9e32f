//! What the simulated disk promises to tests that stand on it.

use std::collections::BTreeSet;

use super::*;
use crate::io::{Entry, File, Kind, Open, is_not_a_file, read_full, write_full};

mod bytes;
mod faults;
mod meddling;
mod names;
mod processes;

const PAGE: usize = pages::PAGE;

fn create(io: &Arc<dyn Io>, path: &str) -> Arc<dyn File> {
    io.open(Path::new(path), Open::Create).unwrap()
}

fn open(disk: &SimDisk, path: &str) -> Arc<dyn File> {
    disk.io().open(Path::new(path), Open::Write).unwrap()
}

/// A file `a` of `len` bytes 1, durable with its name.
fn durable(seed: u64, len: usize) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(seed);
    let io = disk.io();
    let file = create(&io, "a");
    write_full(&*file, &vec![1; len], 0).unwrap();
    file.sync_data().unwrap();
    io.sync_dir(Path::new("")).unwrap();
    (disk, file)
}

/// What `path` holds after a crash, for each of `count` random crashes.
fn after_crashes(disk: &SimDisk, path: &str, count: u64) -> Vec<Option<Vec<u8>>> {
    (0..count)
        .map(|seed| {
            let disk = disk.fork(seed);
            disk.crash(&CrashPlan::random(seed));
            disk.read_file(path)
        })
        .collect()
}

fn sectors(bytes: &[u8], sector: usize) -> Vec<u8> {
    bytes.chunks(sector).map(|s| s[0]).collect()
}

fn names_after(disk: &SimDisk, count: u64) -> BTreeSet<Vec<String>> {
    (0..count)
        .map(|seed| {
            let disk = disk.fork(seed);
            disk.crash(&CrashPlan::random(seed));
            disk.paths()
        })
        .collect()
}

fn sets(names: &[&[&str]]) -> BTreeSet<Vec<String>> {
    names.iter().map(|n| n.iter().map(|n| n.to_string()).collect()).collect()
}
