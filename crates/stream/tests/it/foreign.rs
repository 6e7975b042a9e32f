//! A directory copied over another partition's is not taken for that partition: each log says which it is, and the journal
//! knows which belongs where.
#![expect(clippy::disallowed_methods, reason = "these tests copy directories over others")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use logmill_storage::salvage::salvage;
use logmill_storage::verify::{Problem, Severity};
use logmill_storage::{
    AppendOptions, Corruption, DataDir, DataDirOptions, Entry, Error as StorageError, Log,
    LogConfig, Record,
};
use logmill_stream::{Error, Streams, StreamsOptions, verify};
use tempfile::TempDir;

use crate::support::{TestStore, values};

/// A closed store with a topic of two partitions: in `n` there are n + 1 records.
fn store() -> TempDir {
    let place = TempDir::new().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("events", 2);
    for partition in [0, 1, 1] {
        let record = Record::value(if partition == 0 { b"zero" } else { b"one." });
        topic.partition(partition).unwrap().append(&record).unwrap();
    }
    store.close();
    place
}

/// Puts a copy of directory `from` where `to` was.
fn copy_over(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn is_foreign<T: std::fmt::Debug>(result: Result<T, Error>, at: &Path) -> bool {
    let Err(Error::Storage(StorageError::Corrupt { path, what, .. })) = result else {
        return false;
    };
    path == at && matches!(what, Corruption::ForeignLog { .. })
}

/// The partitions in whose place `verify` finds others; nothing else is to be wrong.
fn found(place: &Path) -> Vec<String> {
    let dir = DataDirOptions::new().read_only(true).open(place).unwrap();
    let report = verify(&dir, &mut |_| {}).unwrap();
    let name = |path: &Path| path.strip_prefix(place).unwrap().display().to_string();
    let foreign =
        |problem: &Problem| matches!(problem, Problem::Corruption(Corruption::ForeignLog { .. }));
    let damage = report.findings.iter().filter(|found| found.severity == Severity::Corrupt);
    damage
        .map(|found| {
            assert!(foreign(&found.problem), "{found:?}");
            name(&found.path)
        })
        .collect()
}

/// `verify` called it sound, and readers were given the other partition's records as this one's.
#[test]
fn a_partition_copied_over_another_is_refused_and_left_as_it_is_until_the_right_one_is_back() {
    let place = store();
    let (zero, one) = (place.path().join("1/0"), place.path().join("1/1"));
    let away = place.path().join("away");
    fs::rename(&one, &away).unwrap();
    copy_over(&zero, &one);
    let copied = files(&one);

    let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let streams = Streams::follow(&dir, &StreamsOptions::default()).unwrap();
    let topic = streams.topic("events").unwrap();
    assert!(is_foreign(topic.partition(1).unwrap().reader(0), &one));
    assert_eq!(values(&topic.partition(0).unwrap()), ["zero"]);
    drop((topic, streams, dir));

    let store = TestStore::open(place.path());
    let partition = store.streams.topic("events").unwrap().partition(1).unwrap();
    assert!(is_foreign(partition.append(&Record::value(b"into it")), &one));
    assert!(is_foreign(partition.end_offset(), &one));
    assert_eq!(store.dir.health().problems[0].part, "log 1/1");
    assert_eq!(files(&one), copied, "what is not ours was changed");

    fs::remove_dir_all(&one).unwrap();
    fs::rename(&away, &one).unwrap();
    assert_eq!(values(&partition), ["one.", "one."]);
    assert!(store.dir.health().is_ok());
    store.close();
    assert_eq!(found(place.path()), [""; 0]);
}

#[test]
fn verify_finds_every_partition_in_whose_place_another_lies_whichever_store_it_is_of() {
    let place = store();
    let (zero, one) = (place.path().join("1/0"), place.path().join("1/1"));
    let (away, other) = (TempDir::new().unwrap(), store());
    copy_over(&one, &away.path().join("1"));
    copy_over(&zero, &one);
    assert_eq!(found(place.path()), ["1/1"]);
    copy_over(&away.path().join("1"), &zero);
    assert_eq!(found(place.path()), ["1/0", "1/1"], "swapped");
    for partition in ["1/0", "1/1"] {
        copy_over(&other.path().join(partition), &place.path().join(partition));
    }
    assert_eq!(found(place.path()), ["1/0", "1/1"], "of another store");
    assert_eq!(found(other.path()), [""; 0]);
}

#[test]
fn a_foreign_log_is_in_the_stores_health_before_anybody_uses_it() {
    let place = store();
    copy_over(&place.path().join("1/0"), &place.path().join("1/1"));
    let store = TestStore::open(place.path());
    store.clock.advance(std::time::Duration::from_secs(2));
    store.dir.tick();
    let problems = store.dir.health().problems;
    assert_eq!(problems.iter().map(|p| p.part.as_str()).collect::<Vec<_>>(), ["log 1/1"]);
    store.streams.delete_topic("events").unwrap();
    assert!(store.dir.health().is_ok());
    store.close();
}

#[test]
fn what_a_checkpoint_and_a_snapshot_say_of_logs_is_what_the_entries_said() {
    let place = store();
    let store = TestStore::open(place.path());
    store.streams.checkpoint().unwrap();
    store.close();
    let store = TestStore::open(place.path());
    store.streams.checkpoint().unwrap();
    store.close();
    copy_over(&place.path().join("1/0"), &place.path().join("1/1"));
    assert_eq!(found(place.path()), ["1/1"]);
}

/// Written by a build that journaled that a log was made, and not which.
#[test]
fn a_partition_of_an_older_store_is_bound_to_its_log_when_it_is_used() {
    let place = TempDir::new().unwrap();
    let store = TestStore::open(place.path());
    // Topic created, 1, "old", 3 partitions, no settings; logs made, 1, one range of three.
    let entries: [&[u8]; 2] = [&[2, 1, 1, 3, b'o', b'l', b'd', 3, 0], &[21, 1, 1, 1, 0, 3]];
    let entries = entries.map(|bytes| Entry { owner: 0, bytes });
    store.journal.append(&entries, &AppendOptions::default()).unwrap();
    drop(store);
    for name in ["1/0", "1/1", "1/2"] {
        let dir = DataDir::open(place.path()).unwrap();
        let log = Log::open(&dir, name, LogConfig::default()).unwrap();
        log.append(&Record::value(name.as_bytes())).unwrap();
        log.close().unwrap();
    }
    let store = TestStore::open(place.path());
    let old = store.streams.topic("old").unwrap();
    for partition in [0, 1] {
        assert_eq!(values(&old.partition(partition).unwrap()), [format!("1/{partition}")]);
    }
    store.close();
    for partition in ["1/1", "1/2"] {
        copy_over(&place.path().join("1/0"), &place.path().join(partition));
    }
    assert_eq!(found(place.path()), ["1/1"], "nobody knows which the third was");
}

/// A log that is salvaged takes the place of the one that it was made from, in its store or in a new one.
#[test]
fn a_salvaged_log_is_not_foreign() {
    let place = store();
    let rescued = TempDir::new().unwrap();
    let source = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let target = DataDir::open(rescued.path()).unwrap();
    for log in source.logs().unwrap() {
        salvage(&source, &log, &target, &mut |_| {}).unwrap();
    }
    drop((source, target));
    assert_eq!(found(rescued.path()), [""; 0]);
    let store = TestStore::open(rescued.path());
    let topic = store.streams.topic("events").unwrap();
    assert_eq!(values(&topic.partition(1).unwrap()), ["one.", "one."]);
    store.close();

    copy_over(&rescued.path().join("1/1"), &place.path().join("1/1"));
    assert_eq!(found(place.path()), [""; 0]);
}
