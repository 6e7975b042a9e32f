//! One test for each rule of streams that Kafka, Kinesis, Pulsar and RabbitMQ users rely on. The numbers are the rows of
//! the table in docs/stream.md, which also says what is deliberately not here.

use std::collections::BTreeSet;
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{Compression, DataDirOptions, Durability, Journal, LogConfig, Record};
use logmill_stream::{
    Acknowledge, Assignor, Cleanup, Error, OffsetAndMetadata, Partition, ProducerConfig,
    ProducerRecord, Refusal, ResetTo, ShareConsumerConfig, ShareGroupConfig, StartAt, Streams,
    StreamsOptions, TimestampType, Topic, TopicConfig, partition_for_key,
};

use crate::support::{
    NOW_MS, TestStore, all_values, append, drain, manual, named, numbers, settle, texts, values,
};

fn store() -> (tempfile::TempDir, TestStore) {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    (place, store)
}

fn fill(topic: &Topic, records: usize, bytes: usize, timestamp: i64) {
    let value = vec![b'x'; bytes];
    for _ in 0..records {
        topic.partition(0).unwrap().append(&Record::value(&value).timestamp(timestamp)).unwrap();
    }
    // What the background would do in time.
    topic.partition(0).unwrap().settle().unwrap();
}

/// The rows of the table in docs/stream.md, each with what the table says of it.
fn table() -> Vec<(u32, &'static str)> {
    let text = include_str!("../../../../docs/stream.md");
    let (_, table) = text.split_once("| row | rule | |").unwrap();
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| ") || line.starts_with("|-")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, numbers, _, says, _] = cells[..] else { panic!("{line}") };
        for part in numbers.split(", ").filter(|_| !numbers.starts_with('-')) {
            let (first, last) = part.split_once('–').unwrap_or((part, part));
            let numbers = first.parse().unwrap()..=last.parse().unwrap();
            rows.extend(numbers.map(|number| (number, says)));
        }
    }
    rows
}

#[test]
fn every_row_of_the_table_that_is_kept_has_its_test_and_no_other_has() {
    let tests: BTreeSet<u32> = include_str!("conformance.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("fn row_")?.get(..3)?.parse().ok())
        .collect();
    let rows = table();
    let kept: BTreeSet<u32> =
        rows.iter().filter(|(_, says)| says.starts_with('✓')).map(|(row, _)| *row).collect();
    assert_eq!(tests, kept);
    let left_out: Vec<_> = rows.iter().filter(|(row, _)| !kept.contains(row)).collect();
    assert!(left_out.iter().all(|(_, says)| says.starts_with('–')), "{left_out:?}");
    let all: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
    let unique: BTreeSet<u32> = all.iter().copied().collect();
    // Row 109, tiered storage, is no matter of a library.
    assert_eq!(unique, (68..=131).filter(|row| *row != 109).collect());
    assert_eq!(unique.len(), all.len(), "a row is there twice");
}

#[test]
fn row_068_reading_takes_nothing_away() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b"]);
    for _ in 0..3 {
        assert_eq!(all_values(&topic), ["a", "b"]);
    }
}

#[test]
fn row_069_each_partition_is_a_log_of_its_own() {
    let (_place, store) = store();
    let topic = store.topic("t", 3);
    append(&topic, 0, &["a"]);
    append(&topic, 2, &["b", "c"]);
    assert_eq!(
        topic.partitions().iter().map(values).collect::<Vec<_>>(),
        [vec!["a"], vec![], vec!["b", "c"]]
    );
}

#[test]
fn row_070_a_key_goes_to_murmur2_modulo_the_partitions_as_in_kafka() {
    let (_place, store) = store();
    let topic = store.topic("t", 10);
    assert_eq!(topic.partition_for_key(b"foobar").unwrap().number(), 6);
    let producer = store.streams.producer(ProducerConfig::new()).unwrap();
    let sent =
        producer.send(&ProducerRecord::new("t", b"v").key(b"foobar")).unwrap().wait().unwrap();
    assert_eq!(sent.partition, named("t", 6));
}

#[test]
fn row_071_records_without_a_key_stick_to_a_partition_for_a_batch() {
    let (_place, store) = store();
    store.topic("t", 4);
    let producer = store.streams.producer(ProducerConfig::new().batch_bytes_max(40)).unwrap();
    let sent: Vec<_> =
        (0..16).map(|_| producer.send(&ProducerRecord::new("t", b"0123456789")).unwrap()).collect();
    let partitions: Vec<u32> =
        sent.into_iter().map(|sent| sent.wait().unwrap().partition.partition).collect();
    for batch in partitions.chunks(4) {
        assert_eq!(batch.iter().collect::<BTreeSet<_>>().len(), 1, "{partitions:?}");
    }
    assert_eq!(partitions.iter().collect::<BTreeSet<_>>().len(), 4, "{partitions:?}");
}

#[test]
fn row_072_partitions_can_be_added_and_keys_may_move() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    topic.add_partitions(8).unwrap();
    let moved = (0..100u32).filter(|n| partition_for_key(&n.to_le_bytes(), 8) != 0).count();
    assert!(moved > 50);
    assert_eq!(values(&topic.partition(0).unwrap()), ["a"], "what is there stays where it is");
}

#[test]
fn row_073_partitions_cannot_be_removed() {
    let (_place, store) = store();
    let topic = store.topic("t", 3);
    assert!(matches!(
        topic.add_partitions(2),
        Err(Error::PartitionsNotIncreased { partitions: 3, asked: 2, .. })
    ));
}

#[test]
fn row_075_offsets_are_dense() {
    let (_place, store) = store();
    let partition = store.topic("t", 1).partition(0).unwrap();
    for n in 0..50 {
        let batch = vec![Record::value(b"x"); 1 + n % 3];
        partition.append_batch(&batch).unwrap();
    }
    let offsets: Vec<u64> = partition.read(0, 1 << 20).unwrap().iter().map(|r| r.offset).collect();
    assert_eq!(offsets, (0..partition.end_offset().unwrap()).collect::<Vec<_>>());
}

#[test]
fn row_077_a_record_has_the_producers_time_or_the_logs_by_choice() {
    let (_place, store) = store();
    for (name, kind, expected) in
        [("c", TimestampType::CreateTime, 5), ("l", TimestampType::LogAppendTime, NOW_MS)]
    {
        let topic = store.streams.create_topic(name, &TopicConfig::new().timestamps(kind)).unwrap();
        topic.partition(0).unwrap().append(&Record::value(b"x").timestamp(5)).unwrap();
        assert_eq!(topic.partition(0).unwrap().get(0).unwrap().unwrap().timestamp, expected);
    }
}

#[test]
fn row_078_batches_are_compressed_where_the_topic_says_so() {
    let (_place, store) = store();
    let bytes = |name: &str, compression| {
        let topic =
            store.streams.create_topic(name, &TopicConfig::new().compression(compression)).unwrap();
        let record = Record::value(&[b'x'; 1_000]);
        topic.partition(0).unwrap().append_batch(&[record; 100]).unwrap();
        assert_eq!(values(&topic.partition(0).unwrap()).len(), 100);
        drop(topic);
        let log = store.streams.topic(name).unwrap().partition(0).unwrap();
        log.sync().unwrap();
        let file = format!("{}/0/00000000000000000000.log", log.id().topic);
        let handle = store
            .dir
            .io()
            .open(std::path::Path::new(&file), logmill_storage::io::Open::Read)
            .unwrap();
        let mut all = vec![0; 200_000];
        let read = logmill_storage::io::read_full(handle.as_ref(), &mut all, 0).unwrap();
        all[..read].iter().filter(|byte| **byte == b'x').count()
    };
    assert!(bytes("plain", Compression::None) >= 100_000);
    assert!(bytes("small", Compression::Lz4) < 5_000);
}

#[test]
fn row_079_damage_is_reported_and_never_skipped() {
    let (place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "c"]);
    drop(topic);
    store.close();
    let path = "1/0/00000000000000000000.log";
    let dir = logmill_storage::DataDir::open(place.path()).unwrap();
    let file = dir.io().open(std::path::Path::new(path), logmill_storage::io::Open::Write).unwrap();
    let mut bytes = vec![0; 1_000];
    logmill_storage::io::read_full(file.as_ref(), &mut bytes, 0).unwrap();
    let at = bytes.windows(16).position(|window| window == [b'b'; 16]).unwrap();
    logmill_storage::io::write_full(file.as_ref(), b"B", at as u64).unwrap();
    drop((file, dir));
    let store = TestStore::open(place.path());
    let mut consumer = store.subscriber("g", "t");
    assert_eq!(texts(&consumer.poll(Duration::ZERO).unwrap()), ["aaaaaaaaaaaaaaaa"]);
    for _ in 0..2 {
        let damage = consumer.poll(Duration::ZERO).unwrap_err();
        assert!(
            matches!(damage, Error::Storage(logmill_storage::Error::Corrupt { offset: 1, .. })),
            "{damage}"
        );
    }
}

#[test]
fn row_083_a_named_group_keeps_its_position() {
    let (place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b"]);
    let mut consumer = store.subscriber("g", "t");
    drain(&mut consumer);
    consumer.commit().unwrap();
    append(&topic, 0, &["c"]);
    drop((consumer, topic, store));
    let store = TestStore::open(place.path());
    assert_eq!(drain(&mut store.subscriber("g", "t")), ["c"]);
}

#[test]
fn row_084_a_commit_covers_everything_before_it() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let mut consumer = store.subscriber("g", "t");
    consumer.commit_offsets(&[(named("t", 0), 2.into())]).unwrap();
    drop(consumer);
    assert_eq!(drain(&mut store.subscriber("g", "t")), ["c"]);
}

#[test]
fn row_085_a_commit_carries_a_remark_of_up_to_4096_bytes() {
    let (_place, store) = store();
    store.topic("t", 1);
    let mut consumer = store.subscriber("g", "t");
    let remark = |bytes| OffsetAndMetadata { offset: 0, metadata: "m".repeat(bytes) };
    consumer.commit_offsets(&[(named("t", 0), remark(4_096))]).unwrap();
    assert_eq!(consumer.committed("t", 0).unwrap().unwrap().metadata.len(), 4_096);
    let refused = consumer.commit_offsets(&[(named("t", 0), remark(4_097))]).unwrap_err();
    assert!(matches!(refused, Error::MetadataTooLong { bytes: 4_097 }));
}

#[test]
fn row_086_partitions_are_assigned_by_range_round_robin_sticky_or_cooperative_sticky() {
    let (_place, store) = store();
    store.topic("t", 4);
    for (assignor, first) in [
        (Assignor::Range, [0, 1]),
        (Assignor::RoundRobin, [0, 2]),
        (Assignor::Sticky, [0, 1]),
        (Assignor::CooperativeSticky, [0, 1]),
    ] {
        let member = || {
            let mut member =
                store.consumer_with(&assignor.to_string(), manual().assignor(assignor));
            member.subscribe(&["t"]).unwrap();
            member
        };
        let (mut a, mut b) = (member(), member());
        settle(&mut [&mut a, &mut b]);
        assert_eq!(numbers(&a), first, "{assignor}");
        let all: BTreeSet<u32> = numbers(&a).into_iter().chain(numbers(&b)).collect();
        assert_eq!((all.len(), numbers(&b).len()), (4, 2), "{assignor}");
    }
}

#[test]
fn row_087_a_cooperative_rebalance_never_stops_what_does_not_move() {
    let (_place, store) = store();
    let topic = store.topic("t", 2);
    let mut a = store.subscriber("g", "t");
    let mut b = store.subscriber("g", "t");
    // The rebalance is under way: one partition is being handed over.
    let kept = numbers(&a)[0];
    append(&topic, kept, &["x"]);
    assert_eq!(drain(&mut a), ["x"], "in the midst of it");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((numbers(&a), numbers(&b).len()), (vec![kept], 1));
}

#[test]
fn row_088_a_static_member_that_returns_in_time_causes_no_rebalance() {
    let (_place, store) = store();
    store.topic("t", 2);
    let fixed = |name: &str| {
        let mut member = store
            .consumer_with("g", manual().instance(name).session_timeout(Duration::from_secs(60)));
        member.subscribe(&["t"]).unwrap();
        member
    };
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    settle(&mut [&mut a, &mut b]);
    let generation = store.streams.describe_group("g").unwrap().generation;
    let before = numbers(&a);
    drop(a);
    let a = fixed("a");
    assert_eq!(numbers(&a), before);
    assert_eq!(store.streams.describe_group("g").unwrap().generation, generation);
}

#[test]
fn row_089_a_member_that_is_silent_for_its_session_time_out_loses_its_partitions() {
    let (_place, store) = store();
    store.topic("t", 2);
    let config = || manual().session_timeout(Duration::from_secs(30));
    let mut silent = store.consumer_with("g", config());
    silent.subscribe(&["t"]).unwrap();
    let mut other = store.consumer_with("g", config());
    other.subscribe(&["t"]).unwrap();
    settle(&mut [&mut silent, &mut other]);
    for second in 0..=31 {
        assert_eq!(numbers(&other).len(), if second <= 30 { 1 } else { 2 }, "after {second} s");
        store.clock.advance(Duration::from_secs(1));
        other.heartbeat().unwrap();
    }
    assert_eq!(numbers(&other), [0, 1]);
}

#[test]
fn row_089_a_member_that_joined_and_has_not_polled_yet_is_not_silent() {
    // A member counted as last seen at the beginning of time until its first poll; random histories found it.
    let (_place, store) = store();
    store.topic("t", 1);
    store.clock.advance(Duration::from_secs(10_000));
    let mut first = store.consumer_with("g", manual().session_timeout(Duration::from_secs(30)));
    first.subscribe(&["t"]).unwrap();
    store.clock.advance(Duration::from_secs(20));
    let mut second = store.consumer_with("g", manual().session_timeout(Duration::from_secs(1)));
    second.subscribe(&["t"]).unwrap();
    store.clock.advance(Duration::from_secs(2));
    store.dir.tick();
    assert_eq!(store.streams.describe_group("g").unwrap().members.len(), 1);
    assert_eq!(numbers(&first), [0]);
    first.commit().unwrap();
}

#[test]
fn row_090_a_zombies_commit_is_refused() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    let mut zombie = store.consumer_with("g", manual().session_timeout(Duration::from_secs(1)));
    zombie.subscribe(&["t"]).unwrap();
    drain(&mut zombie);
    store.clock.advance(Duration::from_secs(2));
    store.dir.tick();
    let refused = zombie.commit().unwrap_err();
    assert!(
        matches!(&refused, Error::Group { refusal: Refusal::UnknownMember(_), .. }),
        "{refused}"
    );
    assert_eq!(zombie.committed("t", 0).unwrap(), Some(0.into()));
}

#[test]
fn row_091_with_a_share_group_more_consumers_than_partitions_share_the_work() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let group = ShareGroupConfig::new().start_at(StartAt::Earliest);
    let config = ShareConsumerConfig::new().group(group).explicit(true).records_max(1);
    let mut consumers: Vec<_> = (0..3)
        .map(|_| {
            let mut consumer = store.streams.share_consumer("g", config.clone()).unwrap();
            consumer.subscribe(&["t"]).unwrap();
            consumer
        })
        .collect();
    let got: Vec<usize> =
        consumers.iter_mut().map(|c| c.poll(Duration::ZERO).unwrap().len()).collect();
    assert_eq!(got, [1, 1, 1]);
}

#[test]
fn row_092_a_new_group_begins_where_it_is_told_and_remembers_that() {
    let (_place, store) = store();
    let partition = store.topic("t", 1).partition(0).unwrap();
    for (age_s, value) in [(100, "old"), (10, "young")] {
        let at = NOW_MS - age_s * 1_000;
        partition.append(&Record::value(value.as_bytes()).timestamp(at)).unwrap();
    }
    for (start, seen) in [
        (StartAt::Earliest, vec!["old", "young"]),
        (StartAt::Latest, vec![]),
        (StartAt::By(Duration::from_secs(50)), vec!["young"]),
    ] {
        let group = format!("{start:?}");
        let mut consumer = store.consumer_with(&group, manual().start_at(start));
        consumer.subscribe(&["t"]).unwrap();
        assert_eq!(drain(&mut consumer), seen);
        assert!(consumer.committed("t", 0).unwrap().is_some());
    }
    let mut nowhere = store.consumer_with("n", manual().start_at(StartAt::Nowhere));
    nowhere.subscribe(&["t"]).unwrap();
    assert!(matches!(nowhere.poll(Duration::ZERO), Err(Error::NoPosition { .. })));
    nowhere.seek("t", 0, 1).unwrap();
    assert_eq!(drain(&mut nowhere), ["young"]);
}

#[test]
fn row_093_a_group_without_members_expires() {
    let (place, store) = store();
    drop(store);
    let store = TestStore::with(
        place.path(),
        &StreamsOptions::default().offsets_retention(Some(Duration::from_secs(3_600))),
    );
    store.topic("t", 1);
    drop(store.subscriber("g", "t"));
    for _ in 0..200 {
        store.clock.advance(Duration::from_secs(60));
        store.dir.tick();
    }
    assert!(store.streams.groups().unwrap().is_empty());
}

#[test]
fn row_094_a_pattern_subscribes_to_present_and_future_topics_whose_whole_name_matches() {
    let (_place, store) = store();
    store.topic("user-a", 1);
    store.topic("a-user-a", 1);
    let mut consumer = store.consumer("g");
    consumer.subscribe_pattern("user-[a-z]").unwrap();
    store.topic("user-b", 1);
    store.topic("user-bb", 1);
    drain(&mut consumer);
    assert_eq!(consumer.assignment(), [named("user-a", 0), named("user-b", 0)]);
}

#[test]
fn row_095_lag_is_the_distance_to_the_end() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let mut consumer = store.consumer_with("g", manual().records_max(1));
    consumer.subscribe(&["t"]).unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(consumer.lag("t", 0).unwrap(), 2);
    assert_eq!(
        store.streams.describe_group("g").unwrap().lag(),
        3,
        "a group's lag is that of what it committed"
    );
}

#[test]
fn row_096_retention_by_time_removes_old_segments() {
    let (_place, store) = store();
    let config =
        TopicConfig::new().segment_bytes_max(4_096).retention(Some(Duration::from_secs(60)));
    let topic = store.streams.create_topic("t", &config).unwrap();
    fill(&topic, 10, 1_000, NOW_MS);
    let partition = topic.partition(0).unwrap();
    assert_eq!(partition.apply_retention().unwrap(), 0);
    store.clock.advance(Duration::from_secs(61));
    assert!(partition.apply_retention().unwrap() > 0);
}

#[test]
fn row_097_retention_by_bytes_is_for_each_partition() {
    let (_place, store) = store();
    let config =
        TopicConfig::new().partitions(2).segment_bytes_max(4_096).retention_bytes(Some(9_000));
    let topic = store.streams.create_topic("t", &config).unwrap();
    fill(&topic, 40, 1_000, NOW_MS);
    let kept = 40 - topic.partition(0).unwrap().apply_retention().unwrap();
    assert!((8..=16).contains(&kept), "{kept}");
    assert_eq!(topic.partition(1).unwrap().apply_retention().unwrap(), 0);
}

#[test]
fn row_098_retention_by_count_keeps_at_least_so_many() {
    let (_place, store) = store();
    let config = TopicConfig::new().segment_bytes_max(4_096).retention_records(Some(7));
    let topic = store.streams.create_topic("t", &config).unwrap();
    fill(&topic, 40, 1_000, NOW_MS);
    let kept = 40 - topic.partition(0).unwrap().apply_retention().unwrap();
    assert!((7..=14).contains(&kept), "{kept}");
}

#[test]
fn row_099_retention_removes_whole_segments_and_never_the_active_one() {
    let (_place, store) = store();
    let config = TopicConfig::new().retention(Some(Duration::from_secs(1)));
    let topic = store.streams.create_topic("t", &config).unwrap();
    fill(&topic, 3, 100, NOW_MS);
    store.clock.advance(Duration::from_secs(100));
    assert_eq!(topic.partition(0).unwrap().apply_retention().unwrap(), 0);
    assert_eq!(all_values(&topic).len(), 3);

    let config = config.segment_bytes_max(4_096);
    let partition = store.streams.create_topic("u", &config).unwrap().partition(0).unwrap();
    // The segment in which the last old record is holds a young one too, and stays.
    for age_s in [100, 100, 100, 100, 100, 100, 100, 0, 0, 0, 0] {
        let at = NOW_MS + 100_000 - age_s * 1_000;
        partition.append(&Record::value(&[0; 1_000]).timestamp(at)).unwrap();
    }
    partition.settle().unwrap();
    let start = partition.apply_retention().unwrap();
    assert!((1..7).contains(&start), "some old records stay with a young one: {start}");
    let first = store.dir.io().list(std::path::Path::new("2/0")).unwrap();
    let first = first.iter().filter_map(|file| file.name.strip_suffix(".log")).min();
    assert_eq!(first.unwrap().parse(), Ok(start), "it begins with a whole segment");
}

#[test]
fn row_101_records_stay_after_every_group_has_read_them() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    for group in ["g", "h"] {
        let mut consumer = store.subscriber(group, "t");
        drain(&mut consumer);
        consumer.commit().unwrap();
    }
    assert_eq!(all_values(&topic), ["a"]);
}

#[test]
fn row_102_a_full_disk_refuses_what_is_new_by_type_and_takes_nothing_away() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let producer = store.streams.producer(ProducerConfig::new()).unwrap();
    let send = |value: &[u8]| producer.send(&ProducerRecord::new("t", value)).unwrap().wait();
    send(b"kept").unwrap();
    disk.set_capacity(Some(disk.used()));
    // What is reserved already can still be filled.
    let mut kept = 1;
    let refused = loop {
        match send(&[0; 50_000]) {
            Ok(_) => kept += 1,
            Err(refused) => break refused,
        }
    };
    let Error::NotDelivered { cause, .. } = &refused else { panic!("{refused}") };
    assert!(
        matches!(**cause, Error::Storage(logmill_storage::Error::DiskFull { .. })),
        "{refused}"
    );
    let partition = topic.partition(0).unwrap();
    assert_eq!(partition.range(0, u64::MAX).unwrap().collect().unwrap().len(), kept);
    disk.set_capacity(None);
    assert_eq!(send(b"and on").unwrap().offset, Some(kept as u64));
}

#[test]
fn row_103_a_shorter_retention_holds_for_what_is_there() {
    let (_place, store) = store();
    let topic =
        store.streams.create_topic("t", &TopicConfig::new().segment_bytes_max(4_096)).unwrap();
    fill(&topic, 10, 1_000, NOW_MS);
    store.clock.advance(Duration::from_secs(3_600));
    assert_eq!(topic.partition(0).unwrap().apply_retention().unwrap(), 0);
    topic.alter(TopicConfig::new().retention(Some(Duration::from_secs(60)))).unwrap();
    assert!(topic.partition(0).unwrap().apply_retention().unwrap() > 0);
}

/// A compacted topic with ten values for `k`, one for `other`, and enough behind them to seal their segments.
fn compacted(store: &TestStore, config: TopicConfig) -> Partition {
    let config = config.segment_bytes_max(4_096).cleanup(Cleanup::Compact);
    let partition = store.streams.create_topic("t", &config).unwrap().partition(0).unwrap();
    for number in 0..10 {
        let value = [number; 500];
        partition.append(&Record::value(&value).key(b"k").timestamp(NOW_MS)).unwrap();
    }
    partition.append(&Record::value(b"kept").key(b"other").timestamp(NOW_MS)).unwrap();
    partition
}

fn fill_up(partition: &Partition) {
    for _ in 0..10 {
        partition.append(&Record::value(&[0; 500]).key(b"filler").timestamp(NOW_MS)).unwrap();
    }
    partition.settle().unwrap();
}

fn offsets_of(partition: &Partition, key: &[u8]) -> Vec<u64> {
    let records = partition.range(0, u64::MAX).unwrap().collect().unwrap();
    let of_key = records.iter().filter(|record| record.key.as_deref() == Some(key));
    of_key.map(|record| record.offset).collect()
}

#[test]
fn row_104_compaction_keeps_the_latest_record_of_each_key_at_its_offset() {
    let (_place, store) = store();
    let partition = compacted(&store, TopicConfig::new());
    fill_up(&partition);
    let report = partition.compact().unwrap();
    assert!(report.records_removed >= 9, "{report:?}");
    assert_eq!(offsets_of(&partition, b"k"), [9]);
    assert_eq!(offsets_of(&partition, b"other"), [10]);
    assert_eq!(drain(&mut store.subscriber("g", "t")).len(), records(&partition));
}

fn records(partition: &Partition) -> usize {
    partition.range(0, u64::MAX).unwrap().collect().unwrap().len()
}

#[test]
fn row_105_a_tombstone_deletes_its_key_and_goes_itself_after_its_horizon() {
    let (_place, store) = store();
    let config = TopicConfig::new().tombstone_retention(Duration::from_secs(60));
    let partition = compacted(&store, config);
    partition.append(&Record::tombstone(b"k").timestamp(NOW_MS)).unwrap();
    fill_up(&partition);
    partition.compact().unwrap();
    assert_eq!(offsets_of(&partition, b"k"), [11], "only the tombstone");
    store.clock.advance(Duration::from_secs(61));
    partition.compact().unwrap();
    assert_eq!(offsets_of(&partition, b"k"), [0; 0]);
}

#[test]
fn row_106_records_younger_than_the_lag_are_not_compacted() {
    let (_place, store) = store();
    let config = TopicConfig::new().compaction_lag_min(Duration::from_secs(60));
    let partition = compacted(&store, config);
    fill_up(&partition);
    assert!(partition.compact().unwrap().is_idle());
    assert_eq!(offsets_of(&partition, b"k").len(), 10);
    store.clock.advance(Duration::from_secs(61));
    partition.compact().unwrap();
    assert_eq!(offsets_of(&partition, b"k"), [9]);
}

#[test]
fn row_107_a_key_is_removed_from_a_compacted_topic_by_its_tombstone() {
    let (_place, store) = store();
    let config = TopicConfig::new().tombstone_retention(Duration::ZERO);
    let partition = compacted(&store, config);
    partition.append(&Record::tombstone(b"k").timestamp(NOW_MS)).unwrap();
    fill_up(&partition);
    for _ in 0..2 {
        partition.compact().unwrap();
        store.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(offsets_of(&partition, b"k"), [0; 0]);
    assert_eq!(offsets_of(&partition, b"other"), [10]);
}

#[test]
fn row_108_a_prefix_can_be_deleted() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let partition = topic.partition(0).unwrap();
    assert_eq!(partition.delete_records_before(2).unwrap(), 2);
    assert_eq!((values(&partition), partition.start_offset().unwrap()), (vec!["c".into()], 2));
    assert!(matches!(
        partition.get(1),
        Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange { .. }))
    ));
    assert_eq!(
        partition.delete_records_before(u64::MAX).unwrap(),
        3,
        "beyond the end means everything"
    );
}

/// A store on a simulated disk; what it has not synced can be lost.
fn simulated(disk: &SimDisk) -> Streams {
    let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap()
}

#[test]
fn row_111_an_acknowledgement_means_on_the_disk() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let streams = simulated(&disk);
        streams.create_topic("t", &TopicConfig::new()).unwrap();
        let producer = streams.producer(ProducerConfig::new()).unwrap();
        for _ in 0..5 {
            producer.send(&ProducerRecord::new("t", b"x")).unwrap().wait().unwrap();
        }
        disk.crash(&CrashPlan::nothing());
        let streams = simulated(&disk);
        assert_eq!(all_values(&streams.topic("t").unwrap()).len(), 5);
    }
}

#[test]
fn row_112_durability_is_chosen_for_each_topic_and_each_producer() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let streams = simulated(&disk);
        let buffered = TopicConfig::new().durability(Durability::Buffered);
        streams.create_topic("t", &buffered).unwrap();
        let producer = streams.producer(ProducerConfig::new()).unwrap();
        producer.send(&ProducerRecord::new("t", b"x")).unwrap().wait().unwrap();
        let synced = streams.producer(ProducerConfig::new().durability(Durability::Sync)).unwrap();
        if seed % 2 == 0 {
            synced.send(&ProducerRecord::new("t", b"y")).unwrap().wait().unwrap();
        }
        disk.crash(&CrashPlan::nothing());
        let streams = simulated(&disk);
        let left = all_values(&streams.topic("t").unwrap());
        if seed % 2 == 0 {
            assert_eq!(left, ["x", "y"]);
        } else {
            lost += 1 - left.len();
        }
    }
    assert!(lost > 0, "buffered records were meant to be lost");
}

#[test]
fn row_113_a_named_producer_never_duplicates_across_restarts() {
    let (place, store) = store();
    store.topic("t", 1);
    drop(store);
    for _ in 0..3 {
        let store = TestStore::open(place.path());
        let producer = store.streams.producer(ProducerConfig::new().name("p")).unwrap();
        for n in 0..10u64 {
            let _ = producer.send(&ProducerRecord::new("t", &n.to_le_bytes()).sequence(n)).unwrap();
        }
        producer.flush().unwrap();
        assert_eq!(producer.last_sequence("t", 0).unwrap(), Some(9));
    }
    let store = TestStore::open(place.path());
    assert_eq!(store.streams.topic("t").unwrap().partition(0).unwrap().end_offset().unwrap(), 10);
}

#[test]
fn row_114_records_are_appended_in_the_order_in_which_they_were_sent() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    let producer = store.streams.producer(ProducerConfig::new().batch_bytes_max(7)).unwrap();
    let sent: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for value in &sent {
        let _ = producer.send(&ProducerRecord::new("t", value.as_bytes())).unwrap();
    }
    producer.flush().unwrap();
    assert_eq!(all_values(&topic), sent);
}

#[test]
fn row_118_a_producer_fences_its_predecessor() {
    let (_place, store) = store();
    store.topic("t", 1);
    let open =
        || store.streams.producer(ProducerConfig::new().name("p").linger(Duration::ZERO)).unwrap();
    let zombie = open();
    let _ = zombie.send(&ProducerRecord::new("t", b"a")).unwrap().wait().unwrap();
    let _successor = open();
    let refused = zombie.send(&ProducerRecord::new("t", b"b")).unwrap_err();
    assert!(matches!(refused, Error::ProducerFenced { .. }), "{refused}");
}

#[test]
fn row_119_a_producer_that_is_too_fast_is_slowed_down() {
    let (_place, store) = store();
    store.topic("t", 1);
    let producer = store.streams.producer(ProducerConfig::new().buffer_bytes_max(500)).unwrap();
    for _ in 0..100 {
        let _ = producer.send(&ProducerRecord::new("t", &[0; 50])).unwrap();
        assert!(producer.buffered_bytes() <= 500);
    }
}

#[test]
fn row_122_a_record_for_a_topic_that_is_not_there_is_refused() {
    let (_place, store) = store();
    let producer = store.streams.producer(ProducerConfig::new()).unwrap();
    assert!(matches!(
        producer.send(&ProducerRecord::new("t", b"x")),
        Err(Error::UnknownTopic { .. })
    ));
}

#[test]
fn row_123_a_consumer_seeks_to_any_position() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let mut consumer = store.subscriber("g", "t");
    drain(&mut consumer);
    consumer.seek("t", 0, 1).unwrap();
    assert_eq!(
        (consumer.position("t", 0).unwrap(), drain(&mut consumer)),
        (1, vec!["b".into(), "c".into()])
    );
    consumer.seek_to_beginning("t", 0).unwrap();
    assert_eq!(drain(&mut consumer).len(), 3);
    consumer.seek("t", 0, 0).unwrap();
    consumer.seek_to_end("t", 0).unwrap();
    assert_eq!(drain(&mut consumer), [""; 0]);
    consumer.seek_to_committed("t", 0).unwrap();
    assert_eq!(drain(&mut consumer).len(), 3);
    assert!(matches!(consumer.seek("t", 1, 0), Err(Error::UnknownPartition { .. })));
}

#[test]
fn row_124_a_consumer_seeks_to_the_first_record_at_or_after_a_time() {
    let (_place, store) = store();
    let partition = store.topic("t", 1).partition(0).unwrap();
    for (timestamp, value) in [(10, "a"), (30, "b"), (20, "c"), (40, "d")] {
        partition.append(&Record::value(value.as_bytes()).timestamp(timestamp)).unwrap();
    }
    let mut consumer = store.subscriber("g", "t");
    for (ms, seen) in [(0, 4), (11, 3), (30, 3), (31, 1), (41, 0)] {
        consumer.seek_to_timestamp("t", 0, ms).unwrap();
        assert_eq!(drain(&mut consumer).len(), seen, "{ms}");
    }
}

#[test]
fn row_125_a_whole_group_is_rewound_while_it_is_inactive() {
    let (_place, store) = store();
    let topic = store.topic("t", 2);
    append(&topic, 0, &["a"]);
    append(&topic, 1, &["b"]);
    let mut consumer = store.subscriber("g", "t");
    drain(&mut consumer);
    consumer.commit().unwrap();
    assert!(matches!(
        store.streams.reset_group("g", "t", ResetTo::Earliest),
        Err(Error::GroupActive { .. })
    ));
    drop(consumer);
    store.streams.reset_group("g", "t", ResetTo::Earliest).unwrap();
    assert_eq!(drain(&mut store.subscriber("g", "t")).len(), 2);
}

#[test]
fn row_126_a_range_is_read_forwards() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c", "d"]);
    let range = topic.partition(0).unwrap().range(1, 3).unwrap().collect().unwrap();
    assert_eq!(range.iter().map(|r| r.offset).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn row_127_one_record_is_read_by_its_offset() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b"]);
    assert_eq!(
        topic.partition(0).unwrap().get(1).unwrap().unwrap().value.as_deref(),
        Some(b"b".as_slice())
    );
}

#[test]
fn row_128_the_latest_value_of_a_key_is_looked_up() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    for value in [b"1", b"2"] {
        topic.partition(0).unwrap().append(&Record::value(value).key(b"k")).unwrap();
    }
    let mut table = topic.table().unwrap();
    assert_eq!(table.get(b"k").unwrap().unwrap().value.as_deref(), Some(b"2".as_slice()));
    topic.partition(0).unwrap().append(&Record::tombstone(b"k")).unwrap();
    assert!(table.get(b"k").unwrap().is_none());
}

#[test]
fn row_129_a_reader_needs_no_group() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    assert_eq!(values(&topic.partition(0).unwrap()), ["a"]);
    let mut consumer = store.consumer("g");
    consumer.assign(&[named("t", 0)]).unwrap();
    assert_eq!(drain(&mut consumer), ["a"]);
    assert!(store.streams.describe_group("g").unwrap().members.is_empty());
}

#[test]
fn row_130_what_a_share_group_has_acknowledged_can_be_delivered_again() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b"]);
    let group = ShareGroupConfig::new().start_at(StartAt::Earliest);
    for _ in 0..2 {
        let mut consumer = store
            .streams
            .share_consumer("g", ShareConsumerConfig::new().group(group.clone()))
            .unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert_eq!(records.len(), 2);
        for receipt in records.receipts() {
            consumer.acknowledge(receipt, Acknowledge::Accept).unwrap();
        }
        consumer.close().unwrap();
        store.streams.reset_group("g", "t", ResetTo::Earliest).unwrap();
    }
}

#[test]
fn row_131_a_reader_follows_the_tail() {
    let (_place, store) = store();
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    let mut consumer = store.consumer_with("g", manual().start_at(StartAt::Latest));
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(drain(&mut consumer), [""; 0]);
    append(&topic, 0, &["b"]);
    assert_eq!(drain(&mut consumer), ["b"]);
}
