//! `dump`: one file, item by item, whatever its bytes.

use std::path::Path;

use logmill_storage::dump::{Item, dump_file};
use logmill_storage::{
    AppendOptions, Corruption, Entry, Error, Journal, Log, LogConfig, Producer, Record,
};

use crate::support::Bench;

/// A closed log "7/0" with sealed segments and a journal "0" with a checkpoint.
fn store() -> Bench {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    journal.append(&[Entry { owner: 3, bytes: b"a" }], &AppendOptions::default()).unwrap();
    journal.checkpoint(3, journal.reach(), b"state").unwrap();
    journal.close().unwrap();
    let log = Log::open(&dir, "7/0", LogConfig::default().segment_bytes_max(4 << 10)).unwrap();
    for n in 0..60u32 {
        let value = format!("value {n} {}", "x".repeat(60));
        let sequence = i32::try_from(n).unwrap();
        let options = AppendOptions {
            producer: Some(Producer { id: 9, epoch: 1, sequence }),
            ..AppendOptions::default()
        };
        log.append_with(&[Record::value(value.as_bytes()).key(b"k")], &options).unwrap();
    }
    log.close().unwrap();
    bench
}

/// A word for each item.
fn dumped(bench: &Bench, path: &str) -> (Vec<String>, Result<(), Error>) {
    let mut seen = Vec::new();
    let io = bench.disk.io();
    let result = dump_file(io.as_ref(), Path::new(path), Path::new(path), |item| {
        seen.push(match item {
            Item::SegmentHead(head) => format!("head {}", head.base_offset),
            Item::Batch { batch, .. } => format!("batch {}", batch.base_offset()),
            Item::Record(record) => format!("record {}", record.offset),
            Item::Damage { offset, .. } => format!("damage {offset}"),
            Item::Unused { .. } => "unused".to_owned(),
            Item::Footer { footer, .. } => format!("footer {}", footer.end_offset),
            Item::ManifestSlot { is_current, .. } => format!("slot {is_current}"),
            Item::Live(_) => "live".to_owned(),
            Item::Index { is_time, entries, .. } => format!("index {is_time} {entries}"),
            Item::OffsetEntry { offset, .. } | Item::TimeEntry { offset, .. } => {
                format!("entry {offset}")
            }
            Item::Producers { .. } => "producers".to_owned(),
            Item::Producer { id, last_sequence, .. } => format!("producer {id} {last_sequence}"),
            Item::Checkpoint { owner, bytes, .. } => format!("checkpoint {owner} {bytes}"),
            _ => "other".to_owned(),
        });
        Ok::<(), Error>(())
    });
    (seen, result)
}

fn all_files(bench: &Bench) -> Vec<String> {
    bench.disk.paths().into_iter().filter(|path| path.contains('/')).collect()
}

#[test]
fn every_kind_of_file_is_recognised_by_its_bytes_and_shown_in_full() {
    let bench = store();
    let first = &bench.files("7/0", ".log")[0];
    let (seen, result) = dumped(&bench, first);
    result.unwrap();
    assert_eq!(seen[..3], ["head 0", "batch 0", "record 0"]);
    let footer = seen.last().unwrap();
    let records = seen.iter().filter(|item| item.starts_with("record")).count();
    assert_eq!(*footer, format!("footer {records}"));
    for (path, expected) in [
        ("7/0/manifest", vec!["slot false", "slot true"]),
        ("7/0/live", vec!["live"]),
        ("0/checkpoint-3", vec!["checkpoint 3 5"]),
    ] {
        let (mut seen, result) = dumped(&bench, path);
        result.unwrap();
        seen.sort();
        assert_eq!(seen, expected);
    }
    let (seen, _) = dumped(&bench, &bench.files("7/0", ".index")[0]);
    assert_eq!(seen, ["index false 1", "entry 0"]);
    let (seen, _) = dumped(&bench, &bench.files("7/0", ".time")[0]);
    assert_eq!(seen, ["index true 1", "entry 0"]);
    let (seen, _) = dumped(&bench, &bench.files("7/0", ".producers")[0]);
    assert_eq!(seen[0], "producers");
    assert_eq!(seen.len(), 6);
    assert_eq!(seen.last().unwrap(), "producer 9 59");
}

#[test]
fn damage_is_an_item_and_an_error_at_the_end_and_what_follows_is_shown() {
    let bench = store();
    let path = &bench.files("7/0", ".log")[0];
    let bytes = bench.disk.read_file(path).unwrap();
    let at = bytes.windows(8).position(|w| w == b"value 5 ").unwrap() as u64;
    bench.disk.flip_bit(path, at * 8).unwrap();
    let (seen, result) = dumped(&bench, path);
    let damage = seen.iter().position(|item| item == "damage 5").unwrap();
    assert_eq!(seen[damage - 1..=damage + 1], ["record 4", "damage 5", "batch 6"]);
    match result {
        Err(Error::Corrupt { position, offset: 5, what: Corruption::Checksum { .. }, .. }) => {
            assert!(position < at);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_bytes_of_any_kind_of_file_do_more_than_end_in_an_error() {
    let bench = store();
    for path in all_files(&bench) {
        let bytes = bench.disk.read_file(&path).unwrap();
        for bit in (0..bytes.len() as u64 * 8).step_by(29) {
            let bench = bench.fork(bit);
            bench.disk.flip_bit(&path, bit).unwrap();
            let (seen, _) = dumped(&bench, &path);
            assert!(seen.len() < 500, "{path} bit {bit}");
        }
        for len in (0..bytes.len()).step_by(13) {
            let bench = bench.fork(len as u64);
            bench.disk.write_file(&path, &bytes[..len]).unwrap();
            drop(dumped(&bench, &path));
        }
    }
}

#[test]
fn a_file_of_another_kind_is_refused_and_an_absent_one_is_an_io_error() {
    let bench = store();
    bench.disk.write_file("7/0/notes", b"no segment at all").unwrap();
    bench.disk.write_file("7/0/empty", b"").unwrap();
    for path in ["7/0/notes", "7/0/empty"] {
        let (seen, result) = dumped(&bench, path);
        assert!(seen.is_empty());
        assert!(matches!(result, Err(Error::Corrupt { what: Corruption::Magic, .. })));
    }
    assert!(matches!(dumped(&bench, "7/0/nowhere").1, Err(Error::Io { op: "open", .. })));
    bench.disk.plant_other("7/0/link").unwrap();
    assert!(matches!(dumped(&bench, "7/0/link").1, Err(Error::NotAFile { .. })));
}

#[test]
fn an_error_of_the_caller_ends_the_walk() {
    let bench = store();
    let path = &bench.files("7/0", ".log")[0];
    let io = bench.disk.io();
    let mut seen = 0;
    let result = dump_file(io.as_ref(), Path::new(path), Path::new(path), |_| {
        seen += 1;
        if seen == 4 { Err(Error::EmptyBatch) } else { Ok(()) }
    });
    assert!(matches!(result, Err(Error::EmptyBatch)));
    assert_eq!(seen, 4);
}
