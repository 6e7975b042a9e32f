//! A damaged store: found by `verify`, and by `consume` when it comes to it; never skipped, never changed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{Finished, Store};

/// A store whose only segment was closed cleanly, with a value to aim at.
fn store() -> Store {
    let store = Store::new();
    let text: String =
        (0..2_000).map(|n| format!("a line of text with the number {n}\n")).collect();
    store.produce("events", text.as_bytes());
    store
}

/// Inverts one byte at `position`.
fn damage(path: &Path, position: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[!byte[0]], position).unwrap();
}

fn position_of(path: &Path, needle: &str) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes
        .windows(needle.len())
        .position(|window| window == needle.as_bytes())
        .expect("the needle is stored") as u64
}

/// Both commands exit with 3 and name the damaged file, and neither changes a byte.
fn is_found(store: &Store, path: &Path) -> Finished {
    let before = store.snapshot();
    let verified = store.run(&["verify"]);
    let report = String::from_utf8_lossy(&verified.stdout).into_owned() + &verified.stderr;
    assert_eq!(verified.code, 3, "{report}");
    assert!(report.contains(path.to_str().unwrap()), "{report}");
    let consumed = store.run(&["consume", "events"]);
    assert_eq!(consumed.code, 3, "{}", consumed.stderr);
    assert!(consumed.stderr.contains(path.to_str().unwrap()), "{}", consumed.stderr);
    assert!(store.snapshot() == before, "looking at damage changed the store");
    consumed
}

#[test]
fn a_sound_store_verifies_and_nothing_is_changed() {
    let store = store();
    let before = store.snapshot();
    assert_eq!(store.run(&["verify"]).code, 0);
    let json = store.run(&["verify", "--json"]).ok();
    assert!(
        serde_json::from_slice::<serde_json::Value>(&json).is_ok(),
        "{}",
        String::from_utf8_lossy(&json)
    );
    assert!(store.snapshot() == before, "verify changed the store");
}

#[test]
fn a_directory_that_is_no_store_does_not_verify() {
    let store = Store::new();
    fs::create_dir(store.dir()).unwrap();
    let message = store.run(&["verify"]).failed(1);
    assert!(message.contains(store.dir().to_str().unwrap()), "{message}");
}

#[test]
fn a_damaged_value_ends_consume_after_the_records_before_it() {
    let store = store();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the number 1500") + 11);
    let consumed = is_found(&store, &segment);
    let printed = String::from_utf8(consumed.stdout).unwrap();
    for (n, line) in printed.lines().enumerate() {
        assert_eq!(line, format!("a line of text with the number {n}"));
    }
    assert!(printed.lines().count() <= 1500);
}

#[test]
fn a_damaged_magic_is_corruption() {
    let store = store();
    let segment = store.files("log").remove(0);
    damage(&segment, 0);
    is_found(&store, &segment);
}

#[test]
fn an_unknown_version_is_corruption() {
    let store = store();
    let segment = store.files("log").remove(0);
    damage(&segment, 8);
    is_found(&store, &segment);
}

#[test]
fn a_segment_cut_short_is_corruption() {
    let store = store();
    let segment = store.files("log").remove(0);
    let half = position_of(&segment, "the number 1000");
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(half).unwrap();
    is_found(&store, &segment);
}

#[test]
fn damaged_indexes_change_nothing_for_a_reader() {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    let text: String =
        (0..10_000).map(|n| format!("a line of text with the number {n}\n")).collect();
    store.produce("events", text.as_bytes());
    let indexes = [store.files("index"), store.files("time")].concat();
    assert!(indexes.len() >= 8, "{indexes:?}");
    for index in indexes {
        damage(&index, fs::metadata(&index).unwrap().len() - 1);
    }
    assert_eq!(store.run(&["consume", "events"]).ok_text(), text);
    let last = store.run(&["consume", "events", "--from", "9999"]).ok_text();
    assert_eq!(last, "a line of text with the number 9999\n");
    assert_eq!(store.run(&["verify"]).code, 0, "what can be made anew is no damage");
}

#[test]
fn a_partition_that_is_gone_is_corruption_and_is_not_begun_anew() {
    let store = store();
    let away = store.dir().join("away");
    fs::rename(store.partition(), &away).unwrap();
    is_found(&store, &store.partition());
    let refused = store.run_with(&["produce", "events"], b"over it\n");
    assert!(refused.failed(3).contains("bring its directory back"));
    assert!(!store.partition().exists());
    std::os::unix::fs::symlink(&away, store.partition()).unwrap();
    store.run(&["verify"]).failed(3);
    fs::remove_file(store.partition()).unwrap();
    fs::rename(away, store.partition()).unwrap();
    store.produce("events", b"the last\n");
    assert!(store.run(&["consume", "events"]).ok_text().ends_with("the number 1999\nthe last\n"));
}

#[test]
fn a_store_without_its_journal_is_corruption_and_takes_nothing_until_it_is_back() {
    let store = store();
    let (home, away) = (store.dir().join("0"), store.dir().join("away"));
    fs::rename(&home, &away).unwrap();
    is_found(&store, &home);
    for arguments in [&["produce", "new"][..], &["topic", "create", "new"], &["queue", "list"]] {
        let message = store.run(arguments).failed(3);
        assert!(message.contains("bring its directory back"), "{message}");
    }
    assert!(!home.exists());
    fs::rename(away, home).unwrap();
    store.produce("events", b"the last\n");
    assert_eq!(store.run(&["verify"]).code, 0);
}

/// A buffered producer that was killed, whose last line is damaged afterwards: nothing can say whether that line had been
/// acknowledged, or was being written when the producer died.
#[test]
fn bytes_that_may_have_been_acknowledged_are_reported_before_and_after_they_are_set_aside() {
    let store = Store::new();
    let mut producer = store.live_producer(&["events", "--durability", "buffered"]);
    let mut stdin = producer.stdin.take().unwrap();
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    for line in ["the first\n", "the second\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        stdout.read_line(&mut String::new()).unwrap();
    }
    producer.kill().unwrap();
    producer.wait().unwrap();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the second"));

    assert_eq!(is_found(&store, &store.partition()).stdout, b"the first\n");
    store.produce("events", b"the third\n");
    assert_eq!(store.run(&["consume", "events"]).ok(), b"the first\nthe third\n");
    let verified = store.run(&["verify"]);
    let report = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.code, 3, "{report}");
    assert!(report.contains("quarantine"), "{report}");
}

/// A store whose producer was killed has no clean end, so it seemed to end where the damage began: `consume` printed what
/// was before it and exited with 0, however much of what had been acknowledged was missing.
#[test]
fn damage_to_acknowledged_records_of_a_killed_producer_ends_consume_with_3() {
    let store = Store::new();
    let mut producer = store.live_producer(&["events"]);
    let mut stdin = producer.stdin.take().unwrap();
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    for line in ["the first\n", "the second\n", "the third\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        stdout.read_line(&mut String::new()).unwrap();
    }
    producer.kill().unwrap();
    producer.wait().unwrap();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the second"));
    assert_eq!(is_found(&store, &segment).stdout, b"the first\n");
    damage(&segment, position_of(&segment, "the first"));
    assert_eq!(is_found(&store, &segment).stdout, b"");
}

/// A log of which a file was lost was read as an empty one.
#[test]
fn a_lost_segment_and_a_lost_manifest_are_corruption() {
    for lost in ["log", "manifest"] {
        let store = store();
        let path = match lost {
            "log" => store.files("log").remove(0),
            _ => store.partition().join("manifest"),
        };
        fs::remove_file(&path).unwrap();
        assert_eq!(is_found(&store, &store.partition()).stdout, b"", "without {lost}");
    }
}
