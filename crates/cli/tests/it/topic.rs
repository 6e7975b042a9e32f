//! `topic`: making, changing and looking at topics, each command a process of its own.

use serde_json::json;

use crate::support::{Store, parsed};

#[test]
fn a_topic_is_created_described_altered_grown_and_deleted() {
    let store = Store::new();
    let create = [
        "topic",
        "create",
        "events",
        "--partitions",
        "3",
        "--retention",
        "7d",
        "--cleanup",
        "delete",
    ];
    assert_eq!(store.run(&create).ok_text(), "");
    let describe = ["topic", "describe", "events", "--json"];
    let described = parsed(&store.run(&describe).ok());
    assert_eq!(described[0]["partition_count"], 3);
    assert_eq!(described[0]["settings"]["retention.ms"], "604800000");
    assert_eq!(described[0]["settings"]["cleanup.policy"], "delete");

    let alter = [
        "topic",
        "alter",
        "events",
        "--retention",
        "forever",
        "--cleanup",
        "compact",
        "--set",
        "segment.bytes=65536",
        "--json",
    ];
    let altered = parsed(&store.run(&alter).ok());
    assert_eq!(altered[0]["settings"]["retention.ms"], "-1");
    assert_eq!(altered[0]["settings"]["cleanup.policy"], "compact");
    assert_eq!(altered[0]["settings"]["segment.bytes"], "65536");

    store.run(&["topic", "add-partitions", "events", "--partitions", "5"]).ok();
    let refused = store.run_with(&["produce", "events"], b"one\n").failed(1);
    assert!(refused.contains("no key"), "{refused}");
    store.run_with(&["produce", "events", "--key-field", "1"], b"one\ntwo\n").ok();
    let described = parsed(&store.run(&describe).ok());
    assert_eq!(described[0]["partition_count"], 5);
    let partitions = described[0]["partitions"].as_array().unwrap();
    let records: u64 = partitions.iter().map(|at| at["end_offset"].as_u64().unwrap()).sum();
    assert_eq!((partitions.len(), records), (5, 2));
    let text = store.run(&["topic", "describe", "events"]).ok_text();
    assert!(text.contains("cleanup.policy           compact\n"), "{text}");

    let listed = parsed(&store.run(&["topic", "list", "--json"]).ok());
    let bytes = &listed[0]["bytes"];
    assert!(bytes.as_u64().unwrap() > 0, "{listed:?}");
    assert_eq!(
        listed,
        [
            json!({"name": "events", "partitions": 5, "records": 2, "bytes": bytes, "cleanup": "compact"})
        ]
    );
    let text = store.run(&["topic", "list"]).ok_text();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TOPIC", "PARTITIONS", "RECORDS", "SIZE", "CLEANUP"], "{text}");
    assert_eq!((rows.len(), &rows[1][..3]), (2, &["events", "5", "2"][..]), "{text}");
    assert_eq!(rows[1].last(), Some(&"compact"), "{text}");
    let deleted = store.run(&["topic", "delete", "events", "--json"]).ok();
    assert_eq!(parsed(&deleted), [json!({"name": "events", "deleted": true})]);
    assert_eq!(store.run(&["topic", "list"]).ok_text(), "");
    assert!(store.run(&describe).failed(1).contains("events"));
}

#[test]
fn what_a_topic_cannot_be_is_refused_and_changes_nothing() {
    let store = Store::new();
    for bad in [
        &["topic", "create", "t", "--retention", "soon"][..],
        &["topic", "create", "t", "--cleanup", "burn"],
        &["topic", "create", "t", "--set", "no.such.setting=1"],
        &["topic", "create", "t", "--set", "segment.bytes=1"],
    ] {
        assert_eq!(store.run(bad).code, 2, "{bad:?}");
    }
    assert!(!store.dir().exists());
    store.run(&["topic", "create", "t", "--partitions", "3"]).ok();
    let again = store.run(&["topic", "create", "t"]).failed(1);
    assert!(again.contains("already"), "{again}");
    store.run(&["topic", "create", "u", "--partitions", "0"]).failed(2);
    store.run(&["topic", "create", "u", "--partitions", "10001"]).failed(2);
    let fewer = store.run(&["topic", "add-partitions", "t", "--partitions", "2"]).failed(1);
    assert!(fewer.contains('3') && fewer.contains('2'), "{fewer}");
    store.run(&["topic", "alter", "nothing", "--retention", "1d"]).failed(1);
    let described = parsed(&store.run(&["topic", "describe", "t", "--json"]).ok());
    assert_eq!(described[0]["partition_count"], 3);
}

#[test]
fn both_ways_of_cleaning_up_are_asked_for_in_one_word_or_in_kafkas() {
    let store = Store::new();
    let policy = || {
        let described = parsed(&store.run(&["topic", "describe", "t", "--json"]).ok());
        described[0]["settings"]["cleanup.policy"].as_str().unwrap().to_owned()
    };
    store.run(&["topic", "create", "t", "--cleanup", "both"]).ok();
    assert_eq!(policy(), "compact,delete");
    for word in ["compact,delete", "delete,compact", "both"] {
        store.run(&["topic", "alter", "t", "--cleanup", "delete"]).ok();
        assert_eq!(policy(), "delete");
        store.run(&["topic", "alter", "t", "--cleanup", word]).ok();
        assert_eq!(policy(), "compact,delete", "{word}");
    }
}

/// The last one won, without a word.
#[test]
fn a_setting_that_is_given_twice_is_bad_usage() {
    let store = Store::new();
    for (bad, name) in [
        (&["--set", "retention.ms=1000", "--retention", "7d"][..], "retention.ms"),
        (&["--set", "cleanup.policy=delete", "--cleanup", "compact"], "cleanup.policy"),
        (&["--set", "segment.bytes=65536", "--set", "segment.bytes=131072"], "segment.bytes"),
    ] {
        for command in ["create", "alter"] {
            let arguments = [&["topic", command, "t"], bad].concat();
            let message = store.run(&arguments).failed(2);
            assert!(message.contains(name), "{arguments:?}: {message}");
        }
    }
    assert!(!store.dir().exists());
}

#[test]
fn retention_is_applied_now() {
    let store = Store::new();
    store.run(&["topic", "create", "t", "--set", "segment.bytes=65536"]).ok();
    store.produce("t", "a line of thirty-two characters\n".repeat(6_000).as_bytes());
    let text = store.run(&["topic", "retain", "t"]).ok_text();
    assert_eq!(text, "partition 0: nothing to remove\n");

    store.run(&["topic", "alter", "t", "--set", "retention.records=3000"]).ok();
    let retained = parsed(&store.run(&["topic", "retain", "t", "--json"]).ok());
    let removed = retained[0]["records_removed"].as_u64().unwrap();
    assert!((1..=3_000).contains(&removed), "{retained:?}");
    assert_eq!(
        (&retained[0]["partition"], &retained[0]["start_offset"]),
        (&json!(0), &json!(removed))
    );
    let bytes = |name: &str| retained[0][name].as_u64().unwrap();
    assert!(bytes("bytes_after") < bytes("bytes_before"), "{retained:?}");
    let left = store.run(&["consume", "t"]).ok_text().lines().count() as u64;
    assert_eq!(left, 6_000 - removed);

    store.run(&["topic", "alter", "t", "--set", "retention.records=1"]).ok();
    let text = store.run(&["topic", "retain", "t", "--partition", "0"]).ok_text();
    assert!(text.starts_with("partition 0: ") && text.contains(" records removed, "), "{text}");
    store.run(&["topic", "retain", "t", "--partition", "1"]).failed(1);
}
