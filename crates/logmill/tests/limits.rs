//! Many topics at once: what they hold open and how much memory they take. `LOGMILL_LIMIT_TOPICS=1000` is the size that
//! docs/stream.md states; a test of every day makes fewer.
#![expect(clippy::disallowed_methods, reason = "it asks /proc about itself, and takes times")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::Instant;

use logmill::{Durability, Record, Store, TopicConfig};

const PARTITIONS: u32 = 10;
const FILES_MAX: usize = 1_024;
const RESIDENT_KB_MAX: u64 = 256 << 10;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn check(when: &str, topics: usize) {
    let (files, resident) = (open_files(), resident_kb());
    println!("{when}: {topics} topics x {PARTITIONS}: {files} files, {resident} kB resident");
    assert!(files <= FILES_MAX, "{files} files open {when}");
    assert!(resident <= RESIDENT_KB_MAX, "{resident} kB resident {when}");
}

#[test]
fn many_topics_hold_few_files_and_little_memory_and_open_at_once() {
    let topics = std::env::var("LOGMILL_LIMIT_TOPICS").map_or(30, |n| n.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let config = TopicConfig::new().partitions(PARTITIONS).durability(Durability::Buffered);
    let mut handles = Vec::new();
    for number in 0..topics {
        let topic = store.create_topic(&format!("topic-{number}"), config.clone()).unwrap();
        for partition in topic.partitions() {
            partition.append(&Record::value(b"a record").key(b"key")).unwrap();
        }
        handles.push(topic);
    }
    check("after an append to each partition", topics);
    drop(handles);
    let begin = Instant::now();
    store.close().unwrap();
    println!("closed in {:?}", begin.elapsed());

    let begin = Instant::now();
    let store = Store::open(place.path()).unwrap();
    println!("opened in {:?}", begin.elapsed());
    assert_eq!(store.topics().unwrap().len(), topics);
    check("after opening", topics);
    for topic in store.topics().unwrap() {
        for partition in topic.partitions() {
            assert_eq!(partition.end_offset().unwrap(), 1);
        }
    }
    check("after a look at each partition", topics);
    store.close().unwrap();
}
