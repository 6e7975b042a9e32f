//! What files can hold: less, more, much more, and bytes whose checksums are right.

use std::fs::{self, OpenOptions};
use std::path::Path;

use super::{Case, Store, case, killed};
use crate::format::crc32;

/// What is done to the bytes of a file.
type Edit = fn(&mut [u8]);

const TIB: u64 = 1 << 40;

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn set_len(path: &Path, len: u64) {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Changes a segment's head and gives it the checksum that it should have.
fn head(path: &Path, at: usize, value: &[u8]) {
    change(path, |bytes| {
        put(bytes, at, value);
        let crc = crc32(&[&bytes[..124]]);
        put(bytes, 124, &crc.to_le_bytes());
    });
}

/// Changes both slots of a manifest that are there, and gives them the checksums that they should have.
fn manifest(path: &Path, at: usize, value: &[u8]) {
    change(path, |bytes| {
        for slot in bytes.chunks_exact_mut(4096).filter(|slot| slot.starts_with(b"LOGMILLM")) {
            put(slot, at, value);
            let crc = crc32(&[&slot[..4092]]);
            put(slot, 4092, &crc.to_le_bytes());
        }
    });
}

/// Changes a segment's footer and gives it the checksum that it should have.
fn footer(path: &Path, at: usize, value: &[u8]) {
    change(path, |bytes| {
        let start = bytes.len() - 128;
        let footer = &mut bytes[start..];
        put(footer, at, value);
        let crc = crc32(&[&footer[..124]]);
        put(footer, 124, &crc.to_le_bytes());
    });
}

/// Changes the first frame of a segment and gives its head, and all of it, the checksums that they should have.
fn frame(path: &Path, edit: impl FnOnce(&mut [u8])) {
    change(path, |bytes| {
        let (segment, frames) = bytes.split_at_mut(128);
        edit(frames);
        let seed: [&[u8]; 3] = [&segment[24..40], &segment[48..52], &segment[40..48]];
        let [id, epoch, base] = seed;
        let short = crc32(&[id, epoch, base, &frames[4..14]]).to_le_bytes();
        put(frames, 14, &short[..2]);
        let length = u32::from_le_bytes(frames[4..8].try_into().unwrap()) as usize;
        if let Some(covered) = frames.get(4..16 + length) {
            let crc = crc32(&[id, epoch, base, covered]).to_le_bytes();
            put(frames, 0, &crc);
        }
    });
}

pub fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(heads());
    cases.extend(manifests());
    cases.extend(frames());
    cases.extend(numbers());
    cases
}

fn last(s: &Store) -> std::path::PathBuf {
    s.segment(s.bases.len() - 1)
}

/// Recovery looked through all of a last segment that was a sparse file of 1 TiB, which took a quarter of an hour. No
/// segment is longer than its index can say.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in [1, 127, 128, 129, 144, 500, 511, 512, TIB] {
        let kind = if len == TIB { "1 TiB, sparse".to_owned() } else { format!("{len} bytes") };
        cases.push(case(format!("first segment: {kind}"), move |s| set_len(&s.segment(0), len)));
        // Verifying what is as long as a segment can be takes its time; two of these are enough.
        if len < TIB {
            cases.push(case(format!("last segment: {kind}"), move |s| set_len(&last(s), len)));
        }
        cases.push(killed(format!("last segment: {kind}, after a kill"), move |s| {
            set_len(&last(s), len);
        }));
    }
    for name in
        ["manifest", "live", "spare", "00000000000000000000.producers", "checkpoint-5", "x.tmp"]
    {
        for len in [1, 4095, TIB] {
            let kind = if len == TIB { "1 TiB, sparse".to_owned() } else { format!("{len} bytes") };
            cases.push(case(format!("{name}: {kind}"), move |s| {
                set_len(&s.path(&format!("1/{name}")), len);
            }));
        }
    }
    for extension in ["index", "time"] {
        cases.push(case(format!("{extension}: 1 TiB, sparse"), move |s| {
            set_len(&s.beside(0, extension), TIB);
        }));
    }
    cases.push(case("LOCK: 1 TiB, sparse", |s| set_len(&s.path("LOCK"), TIB)));
    cases.push(case("last segment: a page of noise behind it", |s| {
        change(&last(s), |bytes| bytes.extend((0..4096u32).map(|n| (n * 37 % 251) as u8)));
    }));
    cases.push(killed("last segment: a page of noise in its reservation", |s| {
        change(&last(s), |bytes| {
            let at = bytes.len() - 4096;
            (0..4096u32).for_each(|n| bytes[at + n as usize] = (n * 37 % 251) as u8);
        });
    }));
    cases.push(case("first segment: zeros throughout", |s| change(&s.segment(0), |b| b.fill(0))));
    cases.push(case("last segment: zeros throughout", |s| change(&last(s), |b| b.fill(0))));
    cases.push(case("middle segment: ones throughout", |s| change(&s.segment(1), |b| b.fill(255))));
    cases.push(case("middle segment: its second half zero", |s| {
        change(&s.segment(1), |b| {
            let half = b.len() / 2;
            b[half..].fill(0);
        });
    }));
    cases
}

fn heads() -> Vec<Case> {
    let fields: [(&str, usize, &'static [u8]); 12] = [
        ("format version 2", 8, &[2, 0]),
        ("format version 0", 8, &[0, 0]),
        ("head length 64", 10, &[64, 0]),
        ("an unknown incompatible feature", 12, &[0, 0, 0, 0x80]),
        ("an unknown read-only-compatible feature", 16, &[1, 0, 0, 0]),
        ("an unknown compatible feature", 20, &[1, 0, 0, 0]),
        ("another log's id", 24, &[9; 16]),
        ("another base offset", 40, &[200; 8]),
        ("a later epoch", 48, &[9, 0, 0, 0]),
        ("the last epoch", 48, &[255; 4]),
        ("a generation", 52, &[1, 0, 0, 0]),
        ("a key id", 80, &[1; 16]),
    ];
    fields
        .into_iter()
        .flat_map(|(what, at, value)| {
            [
                case(format!("middle segment: {what}"), move |s| head(&s.segment(1), at, value)),
                case(format!("last segment: {what}"), move |s| head(&last(s), at, value)),
            ]
        })
        .collect()
}

/// A log that was closed and whose start lay behind its end was opened, and the segments that hold its records were removed
/// for lying below the start. What was below a start was durable, so such a log has lost something.
///
/// A log without segments was opened whose proven point lay far inside a segment that begins with it; the segment that the
/// next append made was then found too short for that point, and the log could not be opened again.
fn manifests() -> Vec<Case> {
    let fields: [(&str, usize, &'static [u8]); 16] = [
        ("format version 2", 8, &[2, 0]),
        ("a slot of 65535 bytes", 10, &[255, 255]),
        ("an unknown incompatible feature", 12, &[0, 0, 0, 0x80]),
        ("an unknown read-only-compatible feature", 16, &[1, 0, 0, 0]),
        ("an unknown compatible feature", 20, &[1, 0, 0, 0]),
        ("another log's id", 32, &[9; 16]),
        ("the last epoch", 48, &[255; 4]),
        ("an unknown state", 52, &[7, 0, 0, 0]),
        ("open", 52, &[0, 0, 0, 0]),
        ("a start behind the end", 56, &[0, 0, 0, 1, 0, 0, 0, 0]),
        ("a start at the end of all offsets", 56, &[255; 8]),
        ("a proven offset behind the end", 64, &[0, 0, 0, 1, 0, 0, 0, 0]),
        ("a proven segment that is not there", 72, &[0, 0, 0, 1, 0, 0, 0, 0]),
        ("a proven point inside a segment that begins with it", 72, &[61, 0, 0, 0, 0, 0, 0, 0]),
        ("a proven position behind the file", 80, &[255, 255, 255, 255, 0, 0, 0, 0]),
        ("an owner's configuration of 65535 bytes", 128, &[255, 255]),
    ];
    let mut cases: Vec<_> = fields
        .into_iter()
        .map(|(what, at, value)| {
            case(format!("manifest: {what}"), move |s| manifest(&s.path("1/manifest"), at, value))
        })
        .collect();
    cases.push(case("manifest: slots swapped", |s| {
        change(&s.path("1/manifest"), |bytes| bytes.rotate_left(4096));
    }));
    cases.push(case("manifest: the later slot lost", |s| {
        change(&s.path("1/manifest"), |bytes| {
            let generation =
                |slot: usize| u64::from_le_bytes(bytes[slot + 24..slot + 32].try_into().unwrap());
            let later = if generation(4096) > generation(0) { 4096 } else { 0 };
            bytes[later..later + 4096].fill(0);
        });
    }));
    cases.push(case("manifest: zeros throughout", |s| {
        change(&s.path("1/manifest"), |bytes| bytes.fill(0));
    }));
    cases
}

/// A frame whose sums are right and whose offset lies ahead was taken for one behind a gap that compaction had left, and
/// reading ended there as if there were nothing more. Only a compacted segment has gaps.
fn frames() -> Vec<Case> {
    let edits: [(&str, Edit); 8] = [
        ("a length of 4 GiB", |f| put(f, 4, &[255; 4])),
        ("no length", |f| put(f, 4, &[0; 4])),
        ("a length of one", |f| put(f, 4, &[1, 0, 0, 0])),
        ("an offset far ahead", |f| put(f, 8, &[255, 255, 255, 127])),
        ("an unknown flag", |f| f[13] |= 0x80),
        ("gzip", |f| f[12] |= 1),
        ("lz4 that is none", |f| f[12] |= 3),
        ("a count that is none", |f| f[12] |= 8),
    ];
    edits
        .into_iter()
        .flat_map(|(what, edit)| {
            [
                case(format!("frame: {what}"), move |s| frame(&s.segment(1), edit)),
                killed(format!("frame of the tail: {what}"), move |s| frame(&last(s), edit)),
            ]
        })
        .collect()
}

/// What is counted up had no next number, and positions no place in a segment: with overflow checks that was a panic. A frame
/// in a sparse file was given the memory that it asked for, 4 GiB.
fn numbers() -> Vec<Case> {
    vec![
        case("footer: data that ends nowhere", |s| footer(&s.segment(1), 56, &[255; 8])),
        case("footer: data that ends behind any segment", |s| {
            footer(&s.segment(1), 56, &[0, 0, 0, 0, 2, 0, 0, 0]);
        }),
        killed("manifest: the last epoch, after a kill", |s| {
            manifest(&s.path("1/manifest"), 48, &[255; 4]);
        }),
        case("manifest: the last generation", |s| manifest(&s.path("1/manifest"), 24, &[255; 8])),
        killed("last segment: the last epoch, after a kill", |s| head(&last(s), 48, &[255; 4])),
        case("middle segment: the last generation", |s| head(&s.segment(1), 52, &[255; 4])),
        killed("frame of the tail: a length of 4 GiB, in as long a file", |s| {
            frame(&last(s), |f| put(f, 4, &[0, 0, 0, 0xF0]));
            set_len(&last(s), 1 << 32);
        }),
    ]
}
