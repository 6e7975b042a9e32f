//! A backup is no store: it is verified as what it is, nobody writes beside it, and half of one makes no store.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Store, parsed};

/// A store of several segments, and the backup of it.
fn backed_up() -> (Store, Store) {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    store.produce("events", &b"a line of some length\n".repeat(10_000));
    let backup = Store::new();
    store.run(&["backup", backup.dir().to_str().unwrap()]).ok();
    (store, backup)
}

/// The copies, in order of their names; the journal's come first.
fn copies(backup: &Store) -> Vec<PathBuf> {
    let entries = fs::read_dir(backup.dir().join("files")).unwrap();
    let mut copies: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    copies.sort();
    assert!(copies.len() > 4, "{copies:?}");
    copies
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// It was called sound whatever was in it, since there are no logs in a backup.
#[test]
fn verify_finds_what_is_missing_or_changed_in_a_backup() {
    let (_store, backup) = backed_up();
    let report = &parsed(&backup.run(&["verify", "--json"]).ok())[0];
    assert_eq!((&report["sound"], &report["logs"]), (&true.into(), &3.into()), "{report}");
    // The topic and what the journal says.
    assert!(report["records"].as_u64() > Some(10_000), "{report}");

    let copies = copies(&backup);
    for copy in [&copies[0], copies.last().unwrap()] {
        let whole = fs::read(copy).unwrap();
        let find = |problem: &str| {
            let finished = backup.run(&["verify", "--json"]);
            let report = &parsed(&finished.stdout)[0];
            let finding = &report["findings"][0];
            assert_eq!(finding["path"], copy.to_str().unwrap(), "{report}");
            assert!(finding["message"].as_str().unwrap().contains(problem), "{report}");
            finished.failed(3);
        };
        flip(copy, whole.len() / 3);
        find("checksum");
        fs::write(copy, &whole[..whole.len() - 1]).unwrap();
        find("bytes expected");
        fs::remove_file(copy).unwrap();
        find("is not there");
        fs::write(copy, whole).unwrap();
        backup.run(&["verify"]);
    }
    let catalogue = backup.dir().join("BACKUP");
    let whole = fs::read(&catalogue).unwrap();
    flip(&catalogue, 30);
    backup.run(&["verify"]).failed(3);
    fs::remove_file(&catalogue).unwrap();
    backup.run(&["verify"]).failed(3);
    fs::write(&catalogue, whole).unwrap();
    assert_eq!(backup.run(&["verify"]).code, 0);
}

/// `produce` made a store of it, which the next backup refused to go on with.
#[test]
fn no_command_writes_into_a_backup_or_reads_it_as_a_store() {
    let (store, backup) = backed_up();
    let before = backup.snapshot();
    let source = store.dir();
    let into = backup.dir();
    let cases: [&[&str]; 12] = [
        &["produce", "events"],
        &["consume", "events"],
        &["consume", "events", "--group", "g"],
        &["topic", "create", "more"],
        &["topic", "list"],
        &["group", "list"],
        &["queue", "create", "jobs"],
        &["queue", "list"],
        &["compact", "events"],
        &["stats"],
        &["top", "--once"],
        &["backup", "elsewhere"],
    ];
    for arguments in cases {
        let finished = backup.run_with(arguments, b"line\n");
        assert_eq!(finished.stdout, b"", "{arguments:?}");
        let message = finished.failed(1);
        assert!(message.contains("is a backup"), "{arguments:?}: {message}");
        assert!(message.contains("restore"), "{arguments:?}: {message}");
    }
    let salvage = ["--dir", source.to_str().unwrap(), "salvage", into.to_str().unwrap()];
    let salvaged = std::process::Command::new(env!("CARGO_BIN_EXE_logmill")).args(salvage).output();
    let message = String::from_utf8(salvaged.unwrap().stderr).unwrap();
    assert!(message.contains("is a backup"), "{message}");
    let files = |snapshot: Vec<(PathBuf, Vec<u8>)>| {
        let is_lock = |path: &PathBuf| path.ends_with("LOCK") || path.ends_with("ALIVE");
        snapshot.into_iter().filter(|(path, _)| !is_lock(path)).collect::<Vec<_>>()
    };
    assert_eq!(files(backup.snapshot()), files(before));
    store.run(&["backup", into.to_str().unwrap()]).ok();
}

/// What it left opened as a new store: the journal's directory was there, and nothing in it yet.
#[test]
fn a_restore_of_a_backup_that_lacks_a_file_leaves_nothing_and_names_it() {
    let (_store, backup) = backed_up();
    for copy in copies(&backup) {
        let whole = fs::read(&copy).unwrap();
        fs::remove_file(&copy).unwrap();
        let restored = Store::new();
        let message = restored.run(&["restore", backup.dir().to_str().unwrap()]).failed(3);
        assert!(message.contains(copy.to_str().unwrap()), "{message}");
        let left: Vec<_> = restored.snapshot().into_iter().map(|(path, _)| path).collect();
        assert!(
            left.iter().all(|path| path.ends_with("LOCK") || path.ends_with("ALIVE")),
            "{left:?}"
        );
        fs::write(&copy, whole).unwrap();
    }
}

/// Whatever it was that stopped it.
#[test]
fn a_restore_that_fails_half_way_leaves_a_directory_that_is_refused() {
    let (_store, backup) = backed_up();
    for copy in copies(&backup) {
        let whole = fs::read(&copy).unwrap();
        flip(&copy, 60);
        let restored = Store::new();
        restored.run(&["restore", backup.dir().to_str().unwrap()]).failed(3);
        for arguments in [&["consume", "events"][..], &["stats"], &["topic", "list"], &["verify"]] {
            restored.run(arguments).failed(3);
        }
        restored.run_with(&["produce", "events"], b"line\n").failed(3);
        fs::write(&copy, whole).unwrap();
    }
}
