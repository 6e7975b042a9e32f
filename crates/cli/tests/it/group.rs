//! `consume --group` and `group`: each run goes on where the one before ended.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Store, parsed};

fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
    range.map(|number| format!("line{number} x\n")).collect::<String>().into_bytes()
}

/// A topic of three partitions with lines that are their own keys.
fn store_with(range: std::ops::Range<u32>) -> Store {
    let store = Store::new();
    store.run(&["topic", "create", "events", "--partitions", "3"]).ok();
    store.run_with(&["produce", "events", "--key-field", "1"], &lines(range)).ok();
    store
}

fn sorted(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

fn described(store: &Store, group: &str) -> Value {
    parsed(&store.run(&["group", "describe", group, "--json"]).ok()).remove(0)
}

#[test]
fn a_new_group_begins_at_the_earliest_record_and_each_run_goes_on_where_the_last_one_ended() {
    let store = store_with(0..100);
    let consume = ["consume", "events", "--group", "g"];
    let first = store.run(&consume).ok_text();
    assert_eq!((first.lines().count(), sorted(&first).len()), (100, 100));
    assert_eq!(store.run(&consume).ok_text(), "");
    store.run_with(&["produce", "events", "--key-field", "1"], &lines(100..105)).ok();
    assert_eq!(sorted(&store.run(&consume).ok_text()).len(), 5);
    assert_eq!(described(&store, "g")["lag"], 0);
}

#[test]
fn a_run_prints_at_most_max_and_commits_exactly_what_it_printed() {
    let store = store_with(0..100);
    let mut seen = BTreeSet::new();
    for (max, expected) in [("0", 0), ("7", 7), ("50", 50), ("1", 1), ("1000", 42)] {
        let text = store
            .run(&["consume", "events", "--group", "g", "--members", "2", "--max", max])
            .ok_text();
        assert_eq!(text.lines().count(), expected, "--max {max}");
        seen.extend(text.lines().map(str::to_owned));
        assert_eq!(described(&store, "g")["lag"], 100 - seen.len());
    }
    assert_eq!(seen.len(), 100);
}

#[test]
fn members_share_the_partitions_and_more_of_them_than_partitions_do_no_harm() {
    let store = store_with(0..3_000);
    let text = store.run(&["consume", "events", "--group", "g", "--members", "5", "--json"]).ok();
    let records = parsed(&text);
    let places: BTreeSet<(u64, u64)> = records
        .iter()
        .map(|record| (record["partition"].as_u64().unwrap(), record["offset"].as_u64().unwrap()))
        .collect();
    assert_eq!((records.len(), places.len()), (3_000, 3_000));
    for partition in 0..3 {
        let of = |record: &&Value| record["partition"] == partition;
        let offsets: Vec<_> =
            records.iter().filter(of).map(|record| record["offset"].as_u64().unwrap()).collect();
        assert!(offsets.is_sorted(), "partition {partition} is in order");
    }
    assert_eq!(described(&store, "g")["phase"], "empty");
}

/// With thousands of them each had to look at what the others did, and the command did not end.
#[test]
fn as_many_members_as_there_may_be_read_everything_and_end() {
    let store = Store::new();
    store.run(&["topic", "create", "events", "--partitions", "300"]).ok();
    store.run_with(&["produce", "events", "--key-field", "1"], &lines(0..2_000)).ok();
    let text = store.run(&["consume", "events", "--group", "g", "--members", "256"]).ok_text();
    assert_eq!((text.lines().count(), sorted(&text).len()), (2_000, 2_000));
    assert_eq!(described(&store, "g")["lag"], 0);
}

#[test]
fn from_says_where_a_group_without_a_position_begins_and_nothing_later() {
    let store = store_with(0..10);
    let consume = |group: &str, from: &str| {
        store
            .run(&["consume", "events", "--group", group, "--from", from])
            .ok_text()
            .lines()
            .count()
    };
    assert_eq!(consume("late", "latest"), 0);
    assert_eq!(consume("late", "earliest"), 0, "it has a position by now");
    assert_eq!(consume("past", "@0"), 10);
    assert_eq!(consume("future", "@99999999999999"), 0);
    assert_eq!(described(&store, "late")["lag"], 0);
}

#[test]
fn groups_are_listed_described_reset_and_deleted() {
    let store = store_with(0..10);
    store.run(&["consume", "events", "--group", "a"]).ok();
    store.run(&["consume", "events", "--group", "b", "--max", "4"]).ok();
    let text = store.run(&["group", "list"]).ok_text();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let figures = [["a", "consumers", "events", "0"], ["b", "consumers", "events", "6"]];
    assert_eq!(rows[0], ["GROUP", "KIND", "TOPICS", "LAG"], "{text}");
    assert_eq!(rows[1..], figures, "{text}");
    assert_eq!(
        parsed(&store.run(&["group", "list", "--json"]).ok()),
        [
            json!({"name": "a", "kind": "consumers", "topics": ["events"], "lag": 0}),
            json!({"name": "b", "kind": "consumers", "topics": ["events"], "lag": 6}),
        ]
    );
    let text = store.run(&["group", "describe", "b"]).ok_text();
    assert!(text.contains("lag                      6\n"), "{text}");

    let reset = store.run(&["group", "reset", "a", "--to", "earliest", "--json"]).ok();
    assert_eq!(parsed(&reset)[0]["lag"], 10);
    store.run(&["group", "reset", "a", "--to", "2", "--topic", "events"]).ok();
    let ends: u64 = described(&store, "a")["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| at["end_offset"].as_u64().unwrap().min(2))
        .sum();
    assert_eq!(described(&store, "a")["lag"], 10 - ends);
    store.run(&["group", "reset", "a", "--to", "latest"]).ok();
    assert_eq!(store.run(&["consume", "events", "--group", "a"]).ok_text(), "");

    store.run(&["group", "delete", "a"]).ok();
    assert_eq!(parsed(&store.run(&["group", "list", "--json"]).ok())[0]["name"], "b");
    assert_eq!(store.run(&["group", "list"]).ok_text().lines().count(), 2);
    assert!(store.run(&["group", "describe", "a"]).failed(1).contains('a'));
    store.run(&["group", "reset", "b", "--to", "earliest", "--topic", "none"]).failed(1);
    store.run(&["group", "delete", "none"]).failed(1);
}

#[test]
fn what_makes_no_sense_with_a_group_is_bad_usage() {
    let store = store_with(0..1);
    for bad in [
        &["consume", "events", "--group", "g", "--follow"][..],
        &["consume", "events", "--group", "g", "--partition", "0"],
        &["consume", "events", "--members", "2"],
        &["consume", "events", "--group", "g", "--members", "0"],
        &["consume", "events", "--group", "g", "--members", "257"],
        &["consume", "events", "--group", "g", "--members", "20000"],
        &["group", "reset", "g", "--to", "yesterday"],
    ] {
        assert_eq!(store.run(bad).code, 2, "{bad:?}");
    }
    store.run(&["consume", "none", "--group", "g"]).failed(1);
}

/// Puts the files of the topic's partition back as they are in `kept`.
fn put_back(store: &Store, kept: &std::path::Path) {
    std::fs::remove_dir_all(store.partition()).unwrap();
    copy(kept, &store.partition());
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &to),
            false => assert!(std::fs::copy(&path, to).is_ok()),
        }
    }
}

#[test]
fn a_group_whose_partition_lost_its_end_is_told_so_and_skips_nothing() {
    use std::io::{BufRead, BufReader, Write};

    let store = Store::new();
    let kept = tempfile::tempdir().unwrap();
    let mut producer = store.live_producer(&["events"]);
    let mut input = producer.stdin.take().unwrap();
    let mut offsets = BufReader::new(producer.stdout.take().unwrap()).lines();
    let mut produce = |line: &[u8]| {
        input.write_all(line).unwrap();
        offsets.next().unwrap().unwrap()
    };
    (0..3).for_each(|_| drop(produce(b"early\n")));
    // A copy of an open log is what is left of it when its process dies now.
    copy(&store.partition(), kept.path());
    (0..3).for_each(|_| drop(produce(b"lost\n")));
    drop(input);
    assert!(producer.wait().unwrap().success());
    let consume = ["consume", "events", "--group", "g"];
    assert_eq!(store.run(&consume).ok_text().lines().count(), 6);

    put_back(&store, kept.path());
    let told = |expected: &str| {
        let refused = store.run(&consume);
        assert_eq!(refused.stdout, b"");
        let message = refused.failed(1);
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("seek or reset the group"), "{message}");
    };
    told("group \"g\": position 6 of epoch 1 in partition 0 of topic \"events\" is beyond 3");
    // At the offsets of what is lost there are others now, and beyond the position.
    store.produce("events", b"new\nnew\nnew\nnew\nnew\n");
    told("group \"g\": position 6 of epoch 1 in partition 0 of topic \"events\" is beyond 3");
    store.run(&["group", "reset", "g", "--to", "3"]).ok();
    assert_eq!(store.run(&consume).ok_text(), "new\n".repeat(5));
}

#[test]
fn a_reset_that_resets_nothing_says_so() {
    let store = store_with(0..10);
    let opened = logmill::Store::open(store.dir()).unwrap();
    drop(opened.consumer("new").unwrap());
    opened.close().unwrap();
    let told = store.run(&["group", "reset", "new", "--to", "earliest"]).failed(1);
    assert!(told.contains("\"new\" has no position") && told.contains("--topic"), "{told}");
    store.run(&["group", "reset", "new", "--to", "latest", "--topic", "events"]).ok();
    store.run(&["group", "reset", "new", "--to", "earliest"]).ok();
}

#[test]
fn what_retention_took_before_a_group_had_read_it_is_said_once_and_skipped() {
    let store = Store::new();
    let settings = ["--set", "segment.ms=1", "--set", "retention.records=100"];
    store.run(&[&["topic", "create", "s"], &settings[..]].concat()).ok();
    store.produce("s", &lines(0..200));
    let consume = ["consume", "s", "--group", "g"];
    store.run(&[&consume[..], &["--max", "50"]].concat()).ok();
    store.produce("s", &lines(200..400));
    store.run(&["topic", "retain", "s"]).ok();
    let start = 400 - described(&store, "g")["lag"].as_u64().unwrap();
    assert!(start > 50, "retention was meant to take unread records: {start}");
    let rest = store.run(&consume);
    let told = format!(
        "logmill: partition 0: {} offsets from 50 on were removed before group \"g\" had read them\n",
        start - 50
    );
    assert_eq!((rest.code, rest.stderr.as_str()), (0, told.as_str()));
    assert_eq!(rest.stdout.iter().filter(|byte| **byte == b'\n').count() as u64, 400 - start);
    store.run(&consume).ok();
}

/// Each of them got one, with its syncs: over hundreds of partitions a run was slow.
#[test]
fn partitions_that_never_had_a_record_get_no_log_from_being_consumed_or_retained() {
    let store = Store::new();
    store.run(&["topic", "create", "events", "--partitions", "8"]).ok();
    let produce = |input: &[u8]| {
        store.run_with(&["produce", "events", "--key-field", "1"], input).ok();
    };
    let home = |key: &[u8]| logmill::stream::partition_for_key(key, 8);
    produce(b"a 1\na 2\na 3\n");
    let consume = ["consume", "events", "--group", "g", "--members", "3"];
    assert_eq!(store.run(&consume).ok_text().lines().count(), 3);
    assert_eq!(described(&store, "g")["lag"], 0);
    let text = store.run(&["topic", "retain", "events"]).ok_text();
    assert_eq!(text.lines().filter(|line| line.ends_with(": nothing to remove")).count(), 8);
    let made: Vec<u32> =
        (0..8).filter(|number| store.dir().join(format!("1/{number}")).exists()).collect();
    assert_eq!(made, [home(b"a")]);
    let other = (b'b'..=b'z').find(|key| home(&[*key]) != home(b"a")).unwrap() as char;
    produce(format!("{other} 1\n{other} 2\n").as_bytes());
    assert_eq!(store.run(&consume).ok_text().lines().count(), 2);
}
