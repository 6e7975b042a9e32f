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

    assert_eq!(store.run(&["topic", "list"]).ok_text(), "events\n");
    assert_eq!(
        parsed(&store.run(&["topic", "list", "--json"]).ok()),
        [json!({"name": "events", "partitions": 5})]
    );
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
