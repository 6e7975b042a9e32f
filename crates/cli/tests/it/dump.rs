//! `dump`: what one file of a store holds.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Finished, Store, parsed};

fn dump(path: &std::path::Path) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logmill"));
    command.arg("dump").arg(path).stdin(Stdio::null()).output().unwrap().into()
}

fn dump_json(path: &std::path::Path) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logmill"));
    command.args(["dump", "--json"]).arg(path).stdin(Stdio::null()).output().unwrap().into()
}

fn kinds(items: &[serde_json::Value]) -> Vec<&str> {
    items.iter().map(|item| item["kind"].as_str().unwrap()).collect()
}

fn store() -> Store {
    let store = Store::new();
    let input = b"alpha one\nbeta two\n\xff\xfe three\n";
    store.run_with(&["produce", "events", "--key-field", "1"], input).ok();
    store
}

#[test]
fn a_segment_shows_its_head_frames_and_records() {
    let store = store();
    let text = dump(&store.files("log")[0]).ok_text();
    for expected in [
        "base offset: 0",
        "log epoch: 1",
        r#"key "alpha" value "alpha one""#,
        "beta two",
        r"\xff\xfe three",
    ] {
        assert!(text.contains(expected), "no {expected:?} in:\n{text}");
    }
}

#[test]
fn a_sealed_segment_shows_its_footer_and_its_indexes_their_entries() {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    store.produce("events", &b"a line of some length\n".repeat(10_000));
    let segment = dump(&store.files("log")[0]).ok_text();
    let footer = segment.split_once("\nfooter at position").expect("a footer").1;
    assert!(footer.contains("end offset: "), "{footer}");
    let index = dump(&store.files("index")[0]).ok_text();
    assert!(index.contains("offset index") && index.contains("offset 0: position 128"), "{index}");
    let times = dump(&store.files("time")[0]).ok_text();
    assert!(times.contains("time index") && times.contains(": offset 0\n"), "{times}");
}

#[test]
fn the_manifest_and_the_live_page_are_shown_too() {
    let store = store();
    let manifest = dump(&store.partition().join("manifest")).ok_text();
    assert!(
        manifest.contains("state: clean") && manifest.contains("proven offset: 3"),
        "{manifest}"
    );
    let live = dump(&store.partition().join("live")).ok_text();
    assert!(live.contains("durable offset: 3"), "{live}");
}

#[test]
fn every_kind_of_file_is_dumped_as_objects_that_say_what_they_are() {
    let store = store();
    let items = parsed(&dump_json(&store.files("log")[0]).ok());
    let of = |kind: &str| items.iter().filter(|item| item["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(kinds(&items)[..2], ["segment_head", "frame"]);
    let records = of("record");
    assert_eq!(records.len(), 3);
    assert_eq!((&records[0]["key"], &records[0]["value"]), (&"alpha".into(), &"alpha one".into()));
    assert_eq!(records[2]["value_base64"], "//4gdGhyZWU=", "{}", records[2]);
    let counted: u64 = of("frame").iter().map(|frame| frame["records"].as_u64().unwrap()).sum();
    assert_eq!(counted, 3);

    let items = parsed(&dump_json(&store.partition().join("manifest")).ok());
    let current = items.iter().find(|item| item["is_current"] == true).unwrap();
    assert_eq!((&current["state"], &current["proven_offset"]), (&"clean".into(), &3.into()));
    let items = parsed(&dump_json(&store.partition().join("live")).ok());
    assert_eq!((kinds(&items), &items[0]["durable_offset"]), (vec!["live"], &3.into()));
}

/// The first segment, with a bit flipped in the middle of its records.
fn damaged(store: &Store) -> PathBuf {
    let segment = store.files("log").swap_remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|window| window == b"beta two").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    segment
}

#[test]
fn damage_is_an_object_too_and_the_exit_code_says_so() {
    let store = store();
    let segment = damaged(&store);
    let finished = dump_json(&segment);
    let items = parsed(&finished.stdout);
    assert!(kinds(&items).contains(&"damage"), "{items:?}");
    finished.failed(3);
}

#[test]
fn a_damaged_file_is_shown_up_to_the_damage() {
    let store = store();
    let segment = damaged(&store);
    let finished = dump(&segment);
    assert!(String::from_utf8_lossy(&finished.stdout).contains("base offset"));
    let message = finished.failed(3);
    assert!(message.contains("position"), "{message}");
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let store = store();
    let text = store.file("notes.txt", b"no segment at all");
    dump(&text).failed(3);
    let message = dump(&store.dir().join("nowhere.log")).failed(1);
    assert!(message.contains("nowhere.log"), "{message}");
}
