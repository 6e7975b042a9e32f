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

fn dump_with(path: &std::path::Path, arguments: &[&str]) -> Finished {
    let path = path.to_str().unwrap();
    crate::support::logmill(&[&["dump", path], arguments].concat())
}

/// A store with a topic, a group and a queue.
fn filled() -> Store {
    let store = store();
    store.run(&["consume", "events", "--group", "readers"]).ok();
    store.run(&["queue", "create", "jobs", "--visibility-timeout", "90s"]).ok();
    store.run_with(&["queue", "send", "jobs", "--delay", "1s"], b"resize 17\n").ok();
    store.run_with(&["queue", "send", "jobs"], b"\xffbytes\n").ok();
    store.run(&["queue", "receive", "jobs", "--delete"]).ok();
    store
}

/// Entries were shown as the bytes of records, whose keys nobody knows to be owners.
#[test]
fn the_entries_of_the_journal_are_shown_by_name_and_field() {
    let store = filled();
    let segment = store.dir().join("0/00000000000000000000.log");
    let text = dump(&segment).ok_text();
    for expected in [
        " streams: topic created topic=1 name=\"events\" partitions=1 settings=",
        " streams: group created group=1 kind=\"consumers\" name=\"readers\"",
        " streams: committed group=1 ",
        " queues: created queue=1 ",
        "visibility_timeout_ms=90000",
        " queues: sent queue=1 sequence=1 message={time=",
        "body=\"resize 17\"}",
        "body=\"\\xffbytes\"}",
        " queues: deleted queue=1 ",
    ] {
        assert!(text.contains(expected), "no {expected:?} in:\n{text}");
    }
    let items = parsed(&dump_json(&segment).ok());
    let said = |name: &str| {
        let found = items.iter().find(|item| item["said"]["entry"] == name);
        &found.unwrap_or_else(|| panic!("no {name} in {items:?}"))["said"]
    };
    assert_eq!(said("topic created")["name"], "events");
    let committed = items.iter().map(|item| &item["said"]["positions"][0]);
    let mut committed = committed.filter(|position| position["partition"] == "1/0");
    assert!(committed.any(|position| position["offset"] == 3), "{items:?}");
    let message = &said("sent")["message"];
    assert_eq!(message["body"], "resize 17");
    assert_eq!(message["due"].as_i64().unwrap() - message["time"].as_i64().unwrap(), 1_000);
    assert!(items.iter().all(|item| item["kind"] != "record" && item["bytes_base64"].is_null()));
    // A partition's records stay what they are, also those of `1/0`.
    let items = parsed(&dump_json(&store.files("log")[0]).ok());
    assert!(items.iter().any(|item| item["kind"] == "record"), "{items:?}");
    // And so does the journal's copy in a backup stay the journal's.
    let backup = Store::new();
    store.run(&["backup", backup.dir().to_str().unwrap()]).ok();
    let copies = std::fs::read_dir(backup.dir().join("files")).unwrap();
    let copy = copies.map(|entry| entry.unwrap().path());
    let is_journal = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("0-");
    let copy = copy.filter(|path| is_journal(path)).min().unwrap();
    assert!(dump(&copy).ok_text().contains(" streams: topic created "));
}

/// The text of a checkpoint was what Rust's `{:?}` makes of it.
#[test]
fn a_checkpoint_says_whose_it_is_and_how_far_it_goes() {
    let store = filled();
    let checkpoints = std::fs::read_dir(store.dir().join("0")).unwrap();
    let paths = checkpoints.map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("checkp");
    let mut paths: Vec<_> = paths.filter(is_one).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no checkpoint was written");
    for path in paths {
        let whose = if path.ends_with("checkpoint-2") { "queues" } else { "streams" };
        let text = dump(&path).ok_text();
        assert!(text.starts_with("checkpoint at position 0\n"), "{text}");
        assert!(text.contains(&format!("  owner: {whose}\n")), "{text}");
        assert!(text.contains("  before hot offset: "), "{text}");
        let item = &parsed(&dump_json(&path).ok())[0];
        assert_eq!((&item["kind"], &item["owner"]), (&"checkpoint".into(), &whose.into()));
        assert!(item["hot_offset"].as_u64() > Some(0) && item["bytes"].is_u64(), "{item}");
    }
}

#[test]
fn a_dump_begins_with_the_batch_that_holds_an_offset() {
    let store = Store::new();
    for n in 0..5 {
        let lines: String = (0..10).map(|i| format!("value {}\n", n * 10 + i)).collect();
        store.produce("events", lines.as_bytes());
    }
    let segment = &store.files("log")[0];
    let all = parsed(&dump_with(segment, &["--json"]).ok());
    for (offset, base) in [(0, 0), (9, 0), (10, 10), (37, 30), (49, 40)] {
        let items = parsed(&dump_with(segment, &["--json", "--offset", &offset.to_string()]).ok());
        assert_eq!((&items[0]["kind"], &items[0]["base_offset"]), (&"frame".into(), &base.into()));
        assert_eq!(items, all[all.len() - items.len()..]);
        let text = dump_with(segment, &["--offset", &offset.to_string()]).ok_text();
        assert!(text.starts_with("frame at position "), "{text}");
    }
    let message = dump_with(segment, &["--offset", "50"]).failed(1);
    assert!(message.contains("no batch with offset 50"), "{message}");
}

/// They were called corrupt.
#[test]
fn every_other_file_of_a_store_or_a_backup_is_told_for_what_it_is() {
    let store = filled();
    let backup = Store::new();
    store.run(&["backup", backup.dir().to_str().unwrap()]).ok();
    let spare = store.file("spare", &[0; 4096]);
    let page = store.file("stats", b"# logmill stats 1\nlogmill_syncs_total 7\n");
    let cases = [
        (store.dir().join("LOCK"), "the lock of the store's writer"),
        (store.dir().join("ALIVE"), "whether a writer lives"),
        (store.dir().join("JOURNAL"), "the mark of a store"),
        (page, "what the writer last said"),
        (spare, "space that is kept back"),
    ];
    for (path, what) in cases {
        let text = dump(&path).ok_text();
        assert!(text.contains(what), "{}: {text}", path.display());
        let item = &parsed(&dump_json(&path).ok())[0];
        assert_eq!(item["kind"], "plain", "{item}");
        assert!(item["what"].as_str().unwrap().contains(what), "{item}");
    }
    let catalogue = backup.dir().join("BACKUP");
    let text = dump(&catalogue).ok_text();
    assert!(text.starts_with("backup at position 0\n  taken at: "), "{text}");
    assert!(text.contains("\n  log 1/0: id ") && text.contains(" files/1.0-"), "{text}");
    let items = parsed(&dump_json(&catalogue).ok());
    assert_eq!((&items[0]["kind"], &items[0]["logs"]), (&"backup".into(), &3.into()));
    let copies: Vec<_> = items.iter().filter(|item| item["kind"] == "backup_copy").collect();
    assert!(
        copies.iter().all(|copy| backup
            .dir()
            .join("files")
            .join(copy["name"].as_str().unwrap())
            .exists())
    );
    let mut bytes = std::fs::read(&catalogue).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&catalogue, bytes).unwrap();
    dump(&catalogue).failed(3);
}

/// Sparse, so it costs nothing.
#[test]
fn a_segment_of_more_than_four_gib_is_shown_with_what_it_holds() {
    let store = store();
    let segment = &store.files("log")[0];
    let bytes = std::fs::read(segment).unwrap();
    let data_end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let large = store.file("large.log", &bytes[..data_end]);
    let file = std::fs::OpenOptions::new().write(true).open(&large).unwrap();
    file.set_len(5 << 30).unwrap();
    let text = dump(&large).ok_text();
    assert!(text.contains(r#"value "beta two""#), "{text}");
    let rest = text.lines().last().unwrap().strip_prefix("zero bytes at position ").unwrap();
    let (position, bytes) = rest.split_once(": ").unwrap();
    let [position, bytes] = [position, bytes].map(|number| number.parse::<u64>().unwrap());
    assert_eq!(position + bytes, 5 << 30, "{text}");
    // No segment goes there, so what lies there is none of its records.
    std::os::unix::fs::FileExt::write_all_at(&file, b"lost", 9 << 29).unwrap();
    let finished = dump(&large);
    let text = String::from_utf8(finished.stdout.clone()).unwrap();
    assert!(text.contains(r#"value "beta two""#), "{text}");
    assert!(text.contains("DAMAGE at position 4294967296, 1073741824 bytes"), "{text}");
    finished.failed(3);
}
