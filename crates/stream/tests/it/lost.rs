//! A directory that is gone is never taken for one that was not made yet: its offsets would be given again.
#![expect(clippy::disallowed_methods, reason = "these tests take directories away")]

use std::fs;
use std::path::Path;

use logmill_storage::verify::{Problem, Severity};
use logmill_storage::{
    AppendOptions, Corruption, DataDir, DataDirOptions, Entry, Error as StorageError, Journal,
    LogConfig, Record,
};
use logmill_stream::{Error, Streams, StreamsOptions, TopicConfig, backup, verify};
use tempfile::TempDir;

use crate::support::{TestStore, all_values, values};

/// A closed store with a topic of three partitions, of which two were used.
fn store() -> TempDir {
    let place = TempDir::new().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("events", 3);
    for partition in [0, 2] {
        topic.partition(partition).unwrap().append(&Record::value(b"kept")).unwrap();
    }
    store.close();
    place
}

fn lost(error: &Error) -> Option<&Path> {
    match error {
        Error::Storage(StorageError::Corrupt { path, what: Corruption::LostLog, .. }) => Some(path),
        _ => None,
    }
}

/// The paths at which a log is said to be lost, or not to be known.
fn found(place: &Path) -> Vec<String> {
    let dir = DataDirOptions::new().read_only(true).open(place).unwrap();
    let report = verify(&dir, &mut |_| {}).unwrap();
    let damage = report.findings.iter().filter(|found| found.severity == Severity::Corrupt);
    damage
        .map(|found| {
            assert!(matches!(
                found.problem,
                Problem::Corruption(
                    Corruption::LostLog | Corruption::LostManifest | Corruption::Field(_)
                )
            ));
            found.path.strip_prefix(place).unwrap().display().to_string()
        })
        .collect()
}

#[test]
fn a_partition_that_lost_its_directory_is_an_error_and_not_a_new_one_until_it_is_back() {
    let place = store();
    assert_eq!(found(place.path()), [""; 0]);
    let (home, away) = (place.path().join("1/2"), place.path().join("away"));
    fs::rename(&home, &away).unwrap();
    assert_eq!(found(place.path()), ["1/2"]);

    let store = TestStore::open(place.path());
    let topic = store.streams.topic("events").unwrap();
    let partition = topic.partition(2).unwrap();
    for refused in [
        partition.append(&Record::value(b"over it")).map(drop),
        partition.end_offset().map(drop),
        partition.reader(0).map(drop),
    ] {
        assert_eq!(lost(&refused.unwrap_err()), Some(home.as_path()));
    }
    assert!(!home.exists(), "something was put in its place");
    assert_eq!(store.dir.health().problems[0].part, "log 1/2");
    topic.partition(0).unwrap().append(&Record::value(b"more")).unwrap();
    topic.partition(1).unwrap().append(&Record::value(b"first")).unwrap();

    fs::rename(&away, &home).unwrap();
    assert_eq!(partition.append(&Record::value(b"more")).unwrap(), 1);
    assert_eq!(values(&partition), ["kept", "more"]);
    assert!(store.dir.health().is_ok());
    store.close();
    assert_eq!(found(place.path()), [""; 0]);
}

/// It was said to have lost its directory, which was to be brought back and lay there.
#[test]
fn a_partition_that_lost_its_manifest_alone_is_told_that_and_not_that_its_directory_is_gone() {
    let place = store();
    let (manifest, away) = (place.path().join("1/2/manifest"), place.path().join("away"));
    fs::rename(&manifest, &away).unwrap();
    assert_eq!(found(place.path()), ["1/2/manifest"]);
    let says_so = |error: Error| match &error {
        Error::Storage(e @ StorageError::Corrupt { path, what: Corruption::LostManifest, .. }) => {
            assert_eq!(path, &manifest);
            assert!(e.to_string().contains("bring the manifest back"), "{e}");
        }
        _ => panic!("{error:?}"),
    };

    let store = TestStore::open(place.path());
    let partition = store.streams.topic("events").unwrap().partition(2).unwrap();
    says_so(partition.append(&Record::value(b"over it")).unwrap_err());
    says_so(partition.reader(0).map(drop).unwrap_err());
    assert_eq!(store.dir.health().problems[0].part, "log 1/2");
    let reading = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let follower = Streams::follow(&reading, &StreamsOptions::default()).unwrap();
    let topic = follower.topic("events").unwrap();
    says_so(topic.partition(2).unwrap().end_offset().unwrap_err());
    assert!(!manifest.exists(), "another was put in its place");

    fs::rename(&away, &manifest).unwrap();
    assert_eq!(partition.append(&Record::value(b"more")).unwrap(), 1);
    assert!(store.dir.health().is_ok());
    store.close();
    assert_eq!(found(place.path()), [""; 0]);
}

#[test]
fn what_is_lost_is_in_the_stores_health_before_anybody_uses_it() {
    let place = store();
    fs::remove_dir_all(place.path().join("1/0")).unwrap();
    let store = TestStore::open(place.path());
    store.clock.advance(std::time::Duration::from_secs(2));
    store.dir.tick();
    let health = store.dir.health();
    assert_eq!(health.problems.iter().map(|p| p.part.as_str()).collect::<Vec<_>>(), ["log 1/0"]);
    store.streams.delete_topic("events").unwrap();
    assert!(store.dir.health().is_ok(), "what was deleted is not missed");
    store.close();
    assert_eq!(found(place.path()), [""; 0]);
}

#[test]
fn who_only_reads_is_told_of_a_lost_partition_and_takes_an_unused_one_for_empty() {
    let place = store();
    fs::remove_dir_all(place.path().join("1/0")).unwrap();
    let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let streams = Streams::follow(&dir, &StreamsOptions::default()).unwrap();
    let topic = streams.topic("events").unwrap();
    assert!(lost(&topic.partition(0).unwrap().end_offset().unwrap_err()).is_some());
    assert_eq!(topic.partition(1).unwrap().end_offset().unwrap(), 0);
    assert_eq!(values(&topic.partition(2).unwrap()), ["kept"]);
}

/// A backup was made of what was left, and took the place of the one that had the lost partition.
#[test]
fn a_backup_of_a_store_that_lost_a_partition_fails_and_leaves_the_earlier_one() {
    let (place, target) = (store(), TempDir::new().unwrap());
    let back_up = || {
        let source = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
        backup(&source, &DataDir::open(target.path()).unwrap(), &mut |_| {})
    };
    assert_eq!(back_up().unwrap().offsets, 2 + journaled(place.path()));
    let earlier = fs::read(target.path().join("BACKUP")).unwrap();
    let (home, away) = (place.path().join("1/2"), place.path().join("away"));
    for lost_dir in [&home, &place.path().join("0")] {
        fs::rename(lost_dir, &away).unwrap();
        assert_eq!(lost(&back_up().unwrap_err()), Some(lost_dir.as_path()));
        assert_eq!(fs::read(target.path().join("BACKUP")).unwrap(), earlier);
        fs::rename(&away, lost_dir).unwrap();
    }
    fs::remove_dir_all(&home).unwrap();
    let store = TestStore::open(place.path());
    store.streams.delete_topic("events").unwrap();
    store.close();
    assert_eq!(back_up().unwrap().logs, 2, "what was deleted is not missed");
}

fn journaled(place: &Path) -> u64 {
    let dir = DataDirOptions::new().read_only(true).open(place).unwrap();
    Journal::open(&dir, "0", LogConfig::default()).unwrap().reach().hot
}

/// A catalogue that could not be read was a store without topics to whoever only reads.
#[test]
fn who_only_reads_is_told_that_the_end_of_the_journal_was_lost() {
    for checkpoint in [true, false] {
        let place = store();
        fs::remove_file(place.path().join("0/00000000000000000000.log")).unwrap();
        if !checkpoint {
            fs::remove_file(place.path().join("0/checkpoint-0")).unwrap();
        }
        let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
        let told = Streams::follow(&dir, &StreamsOptions::default()).unwrap_err();
        assert!(matches!(told, Error::Storage(StorageError::Corrupt { .. })), "{told}");
    }
}

#[test]
fn a_partition_without_its_manifest_or_behind_a_link_does_not_verify() {
    let place = store();
    let manifest = place.path().join("1/0/manifest");
    fs::remove_file(&manifest).unwrap();
    for file in fs::read_dir(place.path().join("1/0")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let (home, away) = (place.path().join("1/2"), place.path().join("away"));
    fs::rename(&home, &away).unwrap();
    std::os::unix::fs::symlink(&away, &home).unwrap();
    let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let report = verify(&dir, &mut |_| {}).unwrap();
    assert!(report.worst == Some(Severity::Corrupt), "{report:?}");
    for path in ["1/0", "1/2"] {
        let path = place.path().join(path);
        let says = |f: &logmill_storage::verify::Finding| {
            f.severity == Severity::Corrupt && f.path.starts_with(&path)
        };
        assert!(report.findings.iter().any(says), "{path:?}: {report:?}");
    }
}

#[test]
fn a_store_that_lost_its_journal_is_not_opened_until_it_is_back() {
    let place = store();
    let (home, away) = (place.path().join("0"), place.path().join("away"));
    fs::rename(&home, &away).unwrap();
    // A store from before there was a mark is known by its other logs.
    for has_mark in [true, false] {
        if !has_mark {
            fs::remove_file(place.path().join("JOURNAL")).unwrap();
        }
        assert_eq!(found(place.path()), if has_mark { ["0", "0/1"].as_slice() } else { &["0"] });
        for read_only in [false, true] {
            let dir = DataDirOptions::new().read_only(read_only).open(place.path()).unwrap();
            let opened = Journal::open(&dir, "0", LogConfig::default());
            assert_eq!(lost(&opened.unwrap_err().into()), Some(home.as_path()));
        }
        assert!(!home.exists(), "something was put in its place");
    }
    fs::rename(&away, &home).unwrap();
    let store = TestStore::open(place.path());
    assert_eq!(all_values(&store.streams.topic("events").unwrap()), ["kept", "kept"]);
    store.close();
    assert!(place.path().join("JOURNAL").exists());
}

#[test]
fn a_journal_that_lost_one_of_its_parts_is_not_opened() {
    for file in ["0/manifest", "0/1/manifest"] {
        let place = store();
        let manifest = place.path().join(file);
        fs::remove_file(&manifest).unwrap();
        assert_eq!(found(place.path()), [file]);
        let dir = DataDir::open(place.path()).unwrap();
        let error = Journal::open(&dir, "0", LogConfig::default()).unwrap_err();
        let StorageError::Corrupt { path, what: Corruption::LostManifest, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(path, &manifest);
        assert!(!manifest.exists());
    }
}

/// Written by a build that did not journal which partitions have a log: their use makes up for it.
#[test]
fn a_partition_of_an_older_store_is_noted_when_it_is_used() {
    let place = TempDir::new().unwrap();
    let store = TestStore::open(place.path());
    // Topic created, 1, "old", 2 partitions, no settings.
    let created = [2, 1, 1, 3, b'o', b'l', b'd', 2, 0];
    let entry = Entry { owner: 0, bytes: &created };
    store.journal.append(&[entry], &AppendOptions::default()).unwrap();
    drop(store);
    for partition in ["1/0", "1/1"] {
        let dir = DataDir::open(place.path()).unwrap();
        let log = logmill_storage::Log::open(&dir, partition, LogConfig::default()).unwrap();
        log.append(&Record::value(b"kept")).unwrap();
        log.close().unwrap();
    }
    let store = TestStore::open(place.path());
    assert_eq!(values(&store.streams.topic("old").unwrap().partition(0).unwrap()), ["kept"]);
    store.close();
    for partition in ["1/0", "1/1"] {
        fs::remove_dir_all(place.path().join(partition)).unwrap();
    }
    assert_eq!(found(place.path()), ["1/0"], "nobody knows that the other was there");
}

#[test]
fn a_log_of_which_the_journal_does_not_know_does_not_verify() {
    let place = store();
    fs::create_dir(place.path().join("9")).unwrap();
    fs::rename(place.path().join("1/0"), place.path().join("9/0")).unwrap();
    let mut found = found(place.path());
    found.sort();
    assert_eq!(found, ["1/0", "9/0"]);
}

#[test]
fn what_a_snapshot_of_the_journal_says_of_lost_partitions_is_what_its_entries_said() {
    let place = store();
    let store = TestStore::open(place.path());
    store.streams.checkpoint().unwrap();
    store.streams.create_topic("other", &TopicConfig::new()).unwrap();
    store.close();
    fs::remove_dir_all(place.path().join("1/2")).unwrap();
    assert_eq!(found(place.path()), ["1/2"]);
}
