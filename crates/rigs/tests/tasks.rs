//! docs/tasks.md has every call of what a store hands out once, and names twins that are there.
#![expect(clippy::disallowed_methods, reason = "it reads the sources, not a store")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What a store hands out, and the store.
const HANDLES: &[&str] = &[
    "CommitTicket",
    "Consumer",
    "Delivery",
    "Partition",
    "PartitionReader",
    "Producer",
    "Queue",
    "RangeReader",
    "RecordStream",
    "Replay",
    "RunningWorker",
    "ShareConsumer",
    "Store",
    "Table",
    "Topic",
    "Worker",
];
/// Methods of traits that nobody calls by name.
const TRAITS: &[&str] = &["drop", "fmt", "into_future", "poll_next"];

/// `Type::method` for each public method of a handle.
fn calls(listing: &str, found: &mut BTreeSet<String>) {
    for line in listing.lines() {
        let Some((signature, _)) = line.split_once('(') else { continue };
        let Some((_, path)) = signature.split_once("fn ") else { continue };
        let path = path.split('<').next().unwrap();
        let mut names = path.rsplit("::");
        let (Some(method), Some(handle)) = (names.next(), names.next()) else { continue };
        // A lifetime stands between the type and the method: `RecordStream<'_>::commit_async`.
        let is_ticket = method == "poll" && handle == "CommitTicket";
        if HANDLES.contains(&handle) && !TRAITS.contains(&method) && !is_ticket {
            found.insert(format!("{handle}::{method}"));
        }
    }
}

#[test]
fn every_call_stands_on_the_page_of_tasks_once_and_every_twin_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut there = BTreeSet::new();
    for package in ["logmill", "logmill-queue", "logmill-stream"] {
        let listing = root.join(format!("docs/public-api/{package}.txt"));
        let listing = fs::read_to_string(listing).unwrap();
        calls(&listing.replace("<'_>", "").replace("<'a>", ""), &mut there);
    }
    assert!(there.contains("Queue::send") && there.contains("RecordStream::commit_async"));
    let page = fs::read_to_string(root.join("docs/tasks.md")).unwrap();
    let mut named = BTreeMap::<&str, u32>::new();
    for code in page.split('`').skip(1).step_by(2) {
        let handle = code.split("::").next().unwrap();
        if code.contains("::") && HANDLES.contains(&handle) {
            *named.entry(code).or_default() += 1;
        }
    }
    let missing: Vec<_> = there.iter().filter(|call| !named.contains_key(call.as_str())).collect();
    assert!(missing.is_empty(), "docs/tasks.md does not say whether these wait: {missing:?}");
    let invented: Vec<_> = named.keys().filter(|call| !there.contains(**call)).collect();
    assert!(invented.is_empty(), "docs/tasks.md names what is not there: {invented:?}");
    let twice: Vec<_> = named.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "docs/tasks.md names these more than once: {twice:?}");
}
