//! A disk that is full for a while: what could not be journaled has not happened.

use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, Fault, Op, SimDisk};
use logmill_storage::{DataDirOptions, Error as StorageError, Journal, LogConfig, Part};
use logmill_stream::{
    Acknowledge, Error, OffsetAndMetadata, ResetTo, Result, ShareConsumer, ShareConsumerConfig,
    ShareGroupConfig, StartAt, Streams, StreamsOptions, TopicConfig,
};

use crate::support::{TestStore, all_values, append, drain, manual, named};

/// Has the next write find no space, and says what `act` makes of that.
fn without_space<T: std::fmt::Debug>(disk: &SimDisk, act: impl FnOnce() -> Result<T>) {
    let before = disk.faults_fired();
    disk.fail_next(Op::Write, Fault::Enospc);
    let refused = act();
    assert_eq!(disk.faults_fired(), before + 1, "the disk was meant to be full: {refused:?}");
    assert!(matches!(refused, Err(Error::Storage(StorageError::DiskFull { .. }))), "{refused:?}");
}

fn share_consumer(store: &TestStore) -> ShareConsumer {
    let group = ShareGroupConfig::new()
        .start_at(StartAt::Earliest)
        .deliveries_max(Some(3))
        .dead_letter_topic(Some("dead"));
    let config = ShareConsumerConfig::new().group(group).explicit(true);
    let mut consumer = store.streams.share_consumer("g", config).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    consumer
}

fn deliveries(consumer: &mut ShareConsumer) -> Vec<(u64, u32)> {
    let records = consumer.poll(Duration::ZERO).unwrap();
    records.iter().map(|record| (record.record.offset, record.delivery_count)).collect()
}

fn in_flight(store: &TestStore) -> usize {
    store.streams.describe_group("g").unwrap().partitions[0].in_flight
}

/// Leases were granted, and deliveries counted, before they were journaled. A consumer whose polls failed for want of space
/// saw nothing; each failed poll counted as a delivery all the same, and its leases ran out one after the other until the
/// records lay in the dead-letter topic without ever having been delivered.
#[test]
fn a_poll_that_fails_lends_nothing_and_counts_nothing() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let (topic, dead) = (store.topic("t", 1), store.topic("dead", 1));
    let mut consumer = share_consumer(&store);
    assert_eq!(deliveries(&mut consumer), []);
    append(&topic, 0, &["a", "b", "c"]);
    for _ in 0..5 {
        without_space(&disk, || consumer.poll(Duration::ZERO));
        assert_eq!(in_flight(&store), 0);
        store.clock.advance(Duration::from_secs(31));
    }
    assert_eq!(deliveries(&mut consumer), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(in_flight(&store), 3);
    store.clock.advance(Duration::from_secs(31));
    assert_eq!(deliveries(&mut consumer), [(0, 2), (1, 2), (2, 2)]);
    assert_eq!(all_values(&dead), [""; 0]);
}

/// A release was done before the accept beside it was journaled, and an accept before the move of a rejected record: when one
/// of these found no space, the next try was told that leases were lost which had been given back as asked.
#[test]
fn acknowledgements_that_find_no_space_somewhere_are_there_for_the_next_try() {
    let mut in_flight_after = Vec::new();
    for nth in 0.. {
        let disk = SimDisk::new(1);
        let store = TestStore::on(&disk);
        let (topic, dead) = (store.topic("t", 1), store.topic("dead", 1));
        append(&topic, 0, &["accepted", "released", "rejected"]);
        let mut consumer = share_consumer(&store);
        let records = consumer.poll(Duration::ZERO).unwrap();
        let how = [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject];
        for (receipt, how) in records.receipts().zip(how) {
            consumer.acknowledge(receipt, how).unwrap();
        }
        let before = disk.ops().total();
        disk.fail_nth(before + nth, Fault::Enospc);
        let committed = consumer.commit();
        if disk.ops().total() <= before + nth {
            break;
        }
        if let Err(refused) = committed {
            assert!(
                matches!(refused, Error::Storage(StorageError::DiskFull { .. })),
                "at {nth}: {refused}"
            );
            in_flight_after.push(in_flight(&store));
            consumer.commit().unwrap();
        }
        assert_eq!(in_flight(&store), 0, "at {nth}");
        // Where only the copy found no space, the background makes it.
        store.clock.advance(Duration::from_secs(1));
        store.dir.tick();
        dead.partition(0).unwrap().sync().unwrap();
        assert_eq!(all_values(&dead), ["rejected"], "at {nth}");
        assert_eq!(deliveries(&mut consumer), [(1, 2)], "at {nth}");
    }
    in_flight_after.dedup();
    assert_eq!(in_flight_after, [3, 1], "before anything had happened, and before the move");
}

/// Every change of the catalogue was folded in when it had its place in the journal, and written with the next sync. If that
/// found no space, the journal gave the place to others, and the memory kept what had never been: a topic that could not be
/// created, nor used, nor deleted; a checkpoint even kept it, and passed over what the journal had in its place.
#[test]
fn a_change_that_found_no_space_has_not_happened_now_or_after_a_restart() {
    type Change = fn(&TestStore) -> Result<()>;
    let changes: [(&str, Change); 9] = [
        ("create topic", |store| store.streams.create_topic("new", &TopicConfig::new()).map(drop)),
        ("delete topic", |store| store.streams.delete_topic("t")),
        ("alter topic", |store| {
            let config = TopicConfig::new().retention(Some(Duration::from_secs(60)));
            store.streams.topic("t").unwrap().alter(config)
        }),
        ("add partitions", |store| store.streams.topic("t").unwrap().add_partitions(7)),
        ("delete group", |store| store.streams.delete_group("g")),
        ("reset group", |store| store.streams.reset_group("g", "t", ResetTo::Earliest)),
        ("commit", |store| {
            let offsets = [(named("t", 0), 1.into())];
            store.consumer("g").commit_offsets(&offsets)
        }),
        ("make group", |store| store.streams.consumer("new", manual()).map(drop)),
        ("open producer", |store| {
            let config = logmill_stream::ProducerConfig::new().name("p");
            store.streams.producer(config).map(drop)
        }),
    ];
    for (name, change) in changes {
        for durable in [true, false] {
            let disk = SimDisk::new(1);
            let store = TestStore::on(&disk);
            let topic = store.topic("t", 2);
            append(&topic, 0, &["a", "b", "c"]);
            let mut consumer = store.subscriber("g", "t");
            assert_eq!(drain(&mut consumer).len(), 3, "{name}");
            consumer.commit().unwrap();
            drop((consumer, topic));
            let facts = facts(&store);
            without_space(&disk, || change(&store));
            assert_eq!(self::facts(&store), facts, "{name}");
            if durable {
                // What comes next takes the place in the journal, and a checkpoint knows it.
                store.topic("next", 1);
                store.streams.checkpoint().unwrap();
                store.streams.delete_topic("next").unwrap();
            }
            drop(store);
            disk.crash(&CrashPlan::nothing());
            let store = TestStore::on(&disk);
            assert_eq!(self::facts(&store), facts, "{name}, after a crash");
            change(&store).unwrap();
        }
    }
}

/// Deleting a topic needs a few bytes of the journal, and on a full disk there were none for that.
#[test]
fn on_a_full_disk_a_topic_can_be_deleted_which_gives_its_space_back() {
    let disk = SimDisk::new(1);
    let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
    let config = LogConfig::default().spare_bytes(64 << 10).segment_bytes_max(64 << 10);
    let journal = Journal::open(&dir, "0", config).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    for name in ["t", "u"] {
        let topic = streams.create_topic(name, &TopicConfig::new()).unwrap();
        append(&topic, 0, &["x"; 100]);
    }
    drop(streams.consumer("g", manual()).unwrap());
    journal.part(Part::Hot).settle().unwrap();
    dir.tick();
    disk.set_capacity(Some(disk.used()));
    let is_full = |refused: Error| {
        assert!(matches!(refused, Error::Storage(StorageError::DiskFull { .. })), "{refused}");
    };
    // Until the reserve is all that is left.
    let long = "m".repeat(4_000);
    let refused = loop {
        let at = OffsetAndMetadata { offset: 0, metadata: long.clone() };
        let mut consumer = streams.consumer("g", manual()).unwrap();
        if let Err(refused) = consumer.commit_offsets(&[(named("u", 0), at)]) {
            break refused;
        }
    };
    is_full(refused);
    is_full(
        streams
            .create_topic("more", &TopicConfig::new().set("retention.ms", "1").unwrap())
            .unwrap_err(),
    );
    let used = disk.used();
    streams.delete_topic("t").unwrap();
    assert!(disk.used() < used, "its files are gone");
    streams.delete_group("g").unwrap();
    streams.create_topic("more", &TopicConfig::new()).unwrap();
}

/// Everything that the journal knows about streams, as text.
fn facts(store: &TestStore) -> String {
    let topics = store.streams.topics().unwrap();
    let topics: Vec<_> = topics
        .iter()
        .map(|topic| (topic.name().to_owned(), topic.partition_count(), topic.settings()))
        .collect();
    let groups = store.streams.groups().unwrap();
    let groups: Vec<_> = groups
        .iter()
        .map(|(name, _)| {
            let group = store.streams.describe_group(name).unwrap();
            let committed = group.partitions.iter().map(|p| (p.partition.clone(), p.committed));
            (name.clone(), committed.collect::<Vec<_>>())
        })
        .collect();
    format!("{topics:?} {groups:?}")
}
