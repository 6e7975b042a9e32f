//! What goes on by itself: retention of partitions that nobody uses, the end of groups that nobody uses.

use std::time::Duration;

use logmill_storage::Record;
use logmill_stream::{Cleanup, Error, Partition, StreamsOptions, TopicConfig};

use crate::support::{NOW_MS, TestStore, append, drain};

fn pass(store: &TestStore, seconds: u64, step: u64) {
    for _ in 0..seconds / step {
        store.clock.advance(Duration::from_secs(step));
        store.dir.tick();
    }
}

#[test]
fn retention_reaches_partitions_whose_files_are_closed() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new()
        .partitions(2)
        .segment_bytes_max(4_096)
        .retention(Some(Duration::from_secs(60)));
    let topic = store.streams.create_topic("t", &config).unwrap();
    for _ in 0..10 {
        topic.partition(0).unwrap().append(&Record::value(&[0; 1_000]).timestamp(NOW_MS)).unwrap();
    }
    topic.partition(0).unwrap().stats().unwrap();
    drop(topic);
    store.close();
    let store = TestStore::open(place.path());
    assert_eq!(store.streams.open_partitions(), 0);
    pass(&store, 2 * 3_600, 10);
    let topic = store.streams.topic("t").unwrap();
    assert!(topic.partition(0).unwrap().start_offset().unwrap() > 0);
    assert!(
        !store.dir.logs().unwrap().contains(&"1/1".into()),
        "a partition without records gets no files"
    );
}

/// Appends `rounds` values for each of four keys.
fn update(partition: &Partition, rounds: std::ops::Range<u32>) {
    for round in rounds {
        for key in [b"a", b"b", b"c", b"d"] {
            let value = format!("{round:0500}");
            let record = Record::value(value.as_bytes()).key(key).timestamp(NOW_MS);
            partition.append(&record).unwrap();
        }
    }
}

fn records(partition: &Partition) -> usize {
    partition.range(0, u64::MAX).unwrap().collect().unwrap().len()
}

#[test]
fn compacted_topics_are_compacted_without_being_asked_and_others_are_not() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let small = TopicConfig::new().segment_bytes_max(4_096).retention(None);
    let compacted = small.clone().cleanup(Cleanup::Compact);
    let compacted = store.streams.create_topic("compacted", &compacted).unwrap();
    let plain = store.streams.create_topic("plain", &small).unwrap();
    for topic in [&compacted, &plain] {
        update(&topic.partition(0).unwrap(), 0..50);
    }
    pass(&store, 30, 1);
    let partition = compacted.partition(0).unwrap();
    let left = records(&partition);
    assert!((4..20).contains(&left), "{left} records of 200");
    assert_eq!(records(&plain.partition(0).unwrap()), 200);
    assert_eq!(partition.end_offset().unwrap(), 200, "offsets stay");

    // What comes later is compacted too, and again in the next life, whether or not anybody uses the partition.
    update(&partition, 50..100);
    pass(&store, 30, 1);
    let left = records(&partition);
    assert!((4..20).contains(&left), "{left} records of 400");
    update(&partition, 100..150);
    drop((partition, compacted, plain));
    store.close();
    let store = TestStore::open(place.path());
    pass(&store, 60, 1);
    let partition = store.streams.topic("compacted").unwrap().partition(0).unwrap();
    let left = records(&partition);
    assert!((4..20).contains(&left), "{left} records of 600");
}

#[test]
fn the_background_compacts_no_more_bytes_than_permitted_and_comes_to_every_partition() {
    const RATE: u64 = 4_096;
    const PARTITIONS: u32 = 8;
    let place = tempfile::tempdir().unwrap();
    let options = StreamsOptions::default().compaction_bytes_per_second(RATE);
    let store = TestStore::with(place.path(), &options);
    let config = TopicConfig::new()
        .partitions(PARTITIONS)
        .segment_bytes_max(4_096)
        .retention(None)
        .cleanup(Cleanup::Compact);
    let topic = store.streams.create_topic("t", &config).unwrap();
    for partition in topic.partitions() {
        update(&partition, 0..50);
        partition.settle().unwrap();
    }
    let sizes = || -> Vec<u64> {
        topic.partitions().iter().map(|partition| partition.stats().unwrap().bytes).collect()
    };
    let before = sizes();
    let (largest, total) = (*before.iter().max().unwrap(), before.iter().sum::<u64>());
    let compacted = || -> u64 {
        let now = sizes();
        before.iter().zip(now).filter(|(before, now)| now < before).map(|(before, _)| *before).sum()
    };
    let mut seconds = 0;
    while compacted() < total {
        pass(&store, 1, 1);
        seconds += 1;
        // Each byte is read twice before anything is written.
        let permitted = seconds * RATE / 2 + largest;
        assert!(compacted() <= permitted, "{} bytes in {seconds} s", compacted());
        assert!(seconds < 15 + 4 * total / RATE + 60, "it comes to an end");
    }
}

/// The rate was an average over whole partitions: a large one was read from end to end without a rest.
#[test]
fn a_lone_partition_is_compacted_no_faster_than_permitted() {
    // A segment takes as long as a look of the background.
    const RATE: u64 = 4_096;
    let place = tempfile::tempdir().unwrap();
    let options = StreamsOptions::default().compaction_bytes_per_second(RATE);
    let store = TestStore::with(place.path(), &options);
    let config =
        TopicConfig::new().segment_bytes_max(4_096).retention(None).cleanup(Cleanup::Compact);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let partition = topic.partition(0).unwrap();
    update(&partition, 0..100);
    partition.settle().unwrap();
    let bytes = || partition.stats().unwrap().bytes;
    let before = bytes();
    let mut seconds = 0;
    while bytes() > before / 4 {
        pass(&store, 1, 1);
        seconds += 1;
        assert!(seconds < 60 + 4 * before / RATE, "it comes to an end");
    }
    assert!(seconds > 2 * before / RATE, "{before} bytes in {seconds} s");
    assert!(records(&partition) < 20);
}

#[test]
fn retention_visits_few_closed_partitions_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 40);
    (0..40).for_each(|partition| append(&topic, partition, &["a"]));
    drop(topic);
    store.close();
    let store = TestStore::open(place.path());
    // From then on each of them is due.
    store.clock.advance(Duration::from_secs(30 * 60));
    let mut open = Vec::new();
    for _ in 0..7 {
        pass(&store, 1, 1);
        open.push(store.streams.open_partitions());
    }
    assert_eq!(open, [8, 16, 24, 32, 40, 40, 40]);
}

#[test]
fn a_deleted_key_leaves_a_compacted_topic_when_its_tombstone_is_old_enough() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new()
        .segment_bytes_max(4_096)
        .retention(None)
        .cleanup(Cleanup::Compact)
        .tombstone_retention(Duration::from_secs(60));
    let topic = store.streams.create_topic("t", &config).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(&Record::value(b"secret").key(b"gone")).unwrap();
    partition.append(&Record::tombstone(b"gone")).unwrap();
    update(&partition, 0..20);
    let of_gone = || {
        let all = partition.range(0, u64::MAX).unwrap().collect().unwrap();
        all.into_iter().filter(|record| record.key.as_deref() == Some(b"gone")).count()
    };
    pass(&store, 30, 1);
    assert_eq!(of_gone(), 1, "the value goes, the tombstone stays for slow readers");
    pass(&store, 120, 1);
    assert_eq!(of_gone(), 0);
}

#[test]
fn a_group_is_forgotten_seven_days_after_its_last_member_and_not_before() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    let mut busy = store.consumer_with(
        "busy",
        crate::support::manual().session_timeout(Duration::from_secs(40 * 86_400)),
    );
    busy.subscribe(&["t"]).unwrap();
    let mut gone = store.subscriber("gone", "t");
    drain(&mut gone);
    gone.commit().unwrap();
    drop(gone);
    pass(&store, 6 * 86_400, 600);
    assert!(store.streams.describe_group("gone").is_ok());
    pass(&store, 2 * 86_400, 600);
    assert!(matches!(store.streams.describe_group("gone"), Err(Error::UnknownGroup { .. })));
    assert!(
        store.streams.describe_group("busy").is_ok(),
        "a group with a member stays, whether it commits or not"
    );
    drop((topic, busy));
    drop(store);
    let store = TestStore::open(place.path());
    // The new clock starts where the old one did.
    store.clock.advance(Duration::from_secs(16 * 86_400));
    pass(&store, 120, 1);
    assert!(matches!(store.streams.describe_group("busy"), Err(Error::UnknownGroup { .. })));
}

#[test]
fn groups_are_kept_for_ever_if_the_store_says_so() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::with(place.path(), &StreamsOptions::default().offsets_retention(None));
    store.topic("t", 1);
    drop(store.subscriber("g", "t"));
    pass(&store, 30 * 86_400, 3_600);
    assert!(store.streams.describe_group("g").is_ok());
}
