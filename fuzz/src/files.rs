//! A store directory as one string of bytes: pieces of files, so that a mutation changes what matters and no long zeros.
//!
//! A piece is a name (u8), a position (u32), a length (u16) and that many bytes. A piece without bytes makes the file
//! reach to its position.

use std::collections::BTreeMap;

use logmill_storage::io::sim::SimDisk;

use crate::checksums;

/// The names that a piece can have.
pub const NAMES: [&str; 10] = [
    "1/manifest",
    "1/live",
    "1/00000000000000000000.log",
    "1/00000000000000000000.index",
    "1/00000000000000000000.time",
    "1/00000000000000000012.producers",
    "1/00000000000000000012.log",
    "1/00000000000000000024.log",
    "1/00000000000000000024.producers",
    "LOCK",
];
const HEAD: usize = 7;
/// No file is longer, so that memory tells of the engine and not of the input.
const LEN_MAX: usize = 1 << 20;
/// Zeros that are not worth a piece.
const RUN: usize = 24;

/// The files by name, each whole.
pub fn unpack(mut data: &[u8]) -> BTreeMap<usize, Vec<u8>> {
    let mut files: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    while let Some((head, rest)) = data.split_at_checked(HEAD) {
        let position = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize % LEN_MAX;
        let len = usize::from(u16::from_le_bytes([head[5], head[6]])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        let file = files.entry(usize::from(head[0]) % NAMES.len()).or_default();
        file.resize(file.len().max(position + len), 0);
        file[position..position + len].copy_from_slice(bytes);
        data = rest;
    }
    files
}

/// The reverse of [`unpack`].
pub fn pack(files: &BTreeMap<usize, Vec<u8>>) -> Vec<u8> {
    let mut data = Vec::new();
    for (name, file) in files {
        let mut put = |position: usize, bytes: &[u8]| {
            data.push(u8::try_from(*name).expect("a short table"));
            data.extend_from_slice(&u32::try_from(position).expect("a small file").to_le_bytes());
            data.extend_from_slice(&u16::try_from(bytes.len()).expect("a piece").to_le_bytes());
            data.extend_from_slice(bytes);
        };
        put(file.len(), &[]);
        let mut at = 0;
        while let Some(start) = file[at..].iter().position(|byte| *byte != 0) {
            let start = at + start;
            let stop = file.len().min(start + usize::from(u16::MAX));
            let len = file[start..stop].windows(RUN).position(|w| w.iter().all(|byte| *byte == 0));
            at = len.map_or(stop, |len| start + len);
            put(start, &file[start..at]);
        }
    }
    data
}

/// The same with checksums that are right.
pub fn repair(data: &[u8]) -> Vec<u8> {
    let mut files = unpack(data);
    files.values_mut().for_each(|file| checksums::repair(file));
    pack(&files)
}

/// A disk that holds them.
pub fn disk_with(data: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    for (name, file) in unpack(data) {
        disk.write_file(NAMES[name], &file).expect("a plain path");
    }
    disk
}
