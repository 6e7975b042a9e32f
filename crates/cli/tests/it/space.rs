//! No space left half-way: what was stored until then is counted to the line.

use crate::support::{Store, limited};

const LINES: usize = 600_000;

fn lines() -> String {
    (0..LINES).map(|n| format!("{n}\n")).collect()
}

/// The number that a command gives in "acknowledged before that: N lines of input".
fn acknowledged(message: &str) -> usize {
    let (_, count) = message.split_once("acknowledged before that: ").expect(message);
    count.split(' ').next().unwrap().parse().unwrap()
}

/// The batches before the one that failed, up to three of 4,096 lines, were stored and neither waited for nor counted.
#[test]
fn a_producer_on_a_full_disk_says_exactly_how_many_lines_are_stored() {
    let input = lines();
    for (partitions, kib) in [(1, 3_000), (1, 4_500), (1, 7_300), (3, 2_100)] {
        let store = Store::new();
        store.create_topic("events", partitions);
        let file = store.file("lines", input.as_bytes());
        let dir = store.dir();
        let (dir, file) = (dir.to_str().unwrap(), file.to_str().unwrap());
        let produce = ["--dir", dir, "produce", "events", "--file", file, "--print-offsets"];
        let finished = limited(kib, &produce);
        let printed = String::from_utf8(finished.stdout.clone()).unwrap().lines().count();
        let message = finished.failed(1);
        assert!(message.contains("no space"), "{message}");
        let stored = store.run(&["consume", "events"]).ok_text();
        assert_eq!(acknowledged(&message), stored.lines().count(), "{partitions}: {message}");
        assert!(stored.lines().count() > 4_096 && stored.lines().count() < LINES, "{message}");
        // In input order up to the first that is not stored, which of several partitions may come before others that are.
        assert!(
            printed <= stored.lines().count()
                && (printed == stored.lines().count() || partitions > 1)
        );
        if partitions == 1 {
            assert!(input.starts_with(&stored), "what is stored is not the beginning of the input");
        }
    }
}

#[test]
fn a_sender_on_a_full_disk_says_exactly_how_many_messages_are_stored() {
    let store = Store::new();
    store.run(&["queue", "create", "jobs"]).ok();
    let file = store.file("lines", lines().as_bytes());
    let dir = store.dir();
    let (dir, file) = (dir.to_str().unwrap(), file.to_str().unwrap());
    let message =
        limited(4_000, &["--dir", dir, "queue", "send", "jobs", "--file", file]).failed(1);
    let described = store.run(&["queue", "describe", "jobs", "--json"]).ok();
    let ready = crate::support::parsed(&described)[0]["ready"].as_u64().unwrap();
    assert_eq!(acknowledged(&message) as u64, ready, "{message}");
    assert!(ready > 1_000 && ready < LINES as u64, "{message}");
}
