//! Producers: where records go, when they are acknowledged, and that none is there twice.

use std::sync::mpsc;
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{Durability, Header};
use logmill_stream::{
    Delivery, Error, Producer, ProducerConfig, ProducerRecord, TimestampType, Topic, TopicConfig,
    partition_for_key,
};

use crate::support::{NOW_MS, TestStore, all_values, values};

fn producer(store: &TestStore) -> Producer {
    store.streams.producer(ProducerConfig::new()).unwrap()
}

fn named(store: &TestStore, name: &str) -> Producer {
    store.streams.producer(ProducerConfig::new().name(name)).unwrap()
}

#[test]
fn keyed_records_go_where_kafka_puts_them_and_keep_their_order() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 5);
    let producer = producer(&store);
    for n in 0..100 {
        let key = format!("user-{}", n % 10);
        let value = format!("{key} {n}");
        let sent =
            producer.send(&ProducerRecord::new("t", value.as_bytes()).key(key.as_bytes())).unwrap();
        if n == 99 {
            assert_eq!(
                sent.wait().unwrap().partition.partition,
                partition_for_key(key.as_bytes(), 5)
            );
        }
    }
    producer.flush().unwrap();
    for partition in topic.partitions() {
        let mut last = std::collections::HashMap::new();
        for value in values(&partition) {
            let (key, n) = value.split_once(' ').unwrap();
            assert_eq!(partition_for_key(key.as_bytes(), 5), partition.number());
            let n: u32 = n.parse().unwrap();
            assert!(last.insert(key.to_owned(), n).is_none_or(|before| before < n));
        }
    }
    assert_eq!(all_values(&topic).len(), 100);
}

#[test]
fn keyless_records_fill_one_batch_after_the_other() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 3);
    let producer = store.streams.producer(ProducerConfig::new().batch_bytes_max(100)).unwrap();
    for n in 0..60 {
        let _ = producer.send(&ProducerRecord::new("t", format!("{n:010}").as_bytes())).unwrap();
    }
    producer.flush().unwrap();
    for partition in topic.partitions() {
        let values: Vec<u32> = values(&partition).iter().map(|v| v.parse().unwrap()).collect();
        assert_eq!(values.len(), 20);
        for run in values.chunks(10) {
            assert_eq!(run[9] - run[0], 9, "a batch is a run of what was sent: {values:?}");
        }
    }
}

#[test]
fn a_record_arrives_with_all_its_parts_and_the_acknowledgement_says_where() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    let producer = producer(&store);
    let headers = [Header { name: "h", value: b"1" }, Header { name: "h", value: b"2" }];
    let record =
        ProducerRecord::new("t", b"v").key(b"k").headers(&headers).timestamp(5).partition(1);
    let first = producer.send(&record).unwrap();
    let second = producer.send(&ProducerRecord::tombstone("t", b"k").partition(1)).unwrap();
    let (second, first) = (second.wait().unwrap(), first.wait().unwrap());
    assert_eq!((first.partition.partition, first.offset, first.timestamp), (1, Some(0), 5));
    assert_eq!((second.offset, second.timestamp, second.duplicate), (Some(1), NOW_MS, false));
    let records = topic.partition(1).unwrap().read(0, 1_000).unwrap();
    assert_eq!(
        records[0].headers.iter().map(|(n, v)| (n.as_str(), &v[..])).collect::<Vec<_>>(),
        [("h", b"1".as_slice()), ("h", b"2".as_slice())]
    );
    assert_eq!(
        (records[1].key.as_deref(), records[1].value.as_deref()),
        (Some(b"k".as_slice()), None)
    );
}

#[test]
fn a_record_lingers_until_its_time_its_batch_is_full_or_somebody_waits() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    let config = ProducerConfig::new().linger(Duration::from_millis(5)).batch_bytes_max(10);
    let producer = store.streams.producer(config).unwrap();
    let send = |value: &[u8]| producer.send(&ProducerRecord::new("t", value)).unwrap();
    let _ = send(b"a");
    store.dir.tick();
    assert_eq!(all_values(&topic), [""; 0]);
    store.clock.advance(Duration::from_millis(5));
    store.dir.tick();
    topic.partition(0).unwrap().sync().unwrap();
    assert_eq!(all_values(&topic), ["a"]);
    let _ = send(b"b");
    let _ = send(b"0123456789");
    topic.partition(0).unwrap().sync().unwrap();
    assert_eq!(all_values(&topic).len(), 3);
    let _ = send(b"c");
    assert_eq!(send(b"d").wait().unwrap().offset, Some(4));
    assert_eq!(all_values(&topic).len(), 5);
    let at_once = store.streams.producer(ProducerConfig::new().linger(Duration::ZERO)).unwrap();
    let _ = at_once.send(&ProducerRecord::new("t", b"e")).unwrap();
    assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 6);
}

#[test]
fn dropping_a_producer_appends_what_it_has_collected() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    let first = producer(&store);
    let clone = first.clone();
    let _ = first.send(&ProducerRecord::new("t", b"a")).unwrap();
    drop(first);
    assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 0);
    drop(clone);
    assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 1);
}

#[test]
fn callbacks_are_called_once_with_the_place_or_the_reason() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 1);
    for durability in [Durability::Sync, Durability::Buffered] {
        let producer =
            store.streams.producer(ProducerConfig::new().durability(durability)).unwrap();
        let (tell, told) = mpsc::channel();
        for n in 0..3u8 {
            let tell = tell.clone();
            producer
                .send_with(&ProducerRecord::new("t", &[n]), move |result| {
                    tell.send((n, result)).unwrap()
                })
                .unwrap();
        }
        assert!(told.try_recv().is_err());
        producer.flush().unwrap();
        for n in 0..3u8 {
            let (who, result) = told.try_recv().unwrap();
            assert_eq!((who, result.unwrap().offset.unwrap() % 3), (n, u64::from(n)));
        }
        assert!(told.try_recv().is_err());
    }
    store.streams.delete_topic("t").unwrap();
}

#[test]
fn without_anybody_waiting_the_background_calls_back() {
    let place = tempfile::tempdir().unwrap();
    let dir = logmill_storage::DataDir::open(place.path()).unwrap();
    let journal =
        logmill_storage::Journal::open(&dir, "0", logmill_storage::LogConfig::default()).unwrap();
    let streams = logmill_stream::Streams::open(&dir, &journal, &Default::default()).unwrap();
    streams.create_topic("t", &TopicConfig::new()).unwrap();
    let producer = streams.producer(ProducerConfig::new()).unwrap();
    let (tell, told) = mpsc::channel();
    let again = producer.clone();
    producer
        .send_with(&ProducerRecord::new("t", b"a"), move |result| {
            // A callback may send.
            let _ = again.send(&ProducerRecord::new("t", b"b")).unwrap();
            tell.send(result.unwrap().offset).unwrap();
        })
        .unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), Some(0));
}

#[test]
fn what_cannot_be_sent_is_refused_at_once_and_what_fails_later_is_told() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic =
        store.streams.create_topic("t", &TopicConfig::new().record_bytes_max(1_024)).unwrap();
    let producer = producer(&store);
    let refused = producer.send(&ProducerRecord::new("typo", b"")).unwrap_err();
    assert!(matches!(refused, Error::UnknownTopic { name } if name == "typo"));
    let refused = producer.send(&ProducerRecord::new("t", b"").partition(1)).unwrap_err();
    assert!(matches!(refused, Error::UnknownPartition { partition: 1, .. }));
    let failed = producer.send(&ProducerRecord::new("t", &[0; 2_000])).unwrap().wait().unwrap_err();
    let Error::NotDelivered { cause, .. } = failed else { panic!("{failed}") };
    assert!(matches!(
        &*cause,
        Error::Storage(logmill_storage::Error::RecordTooLarge { max: 1_024, .. })
    ));
    let failed = producer.flush().unwrap_err();
    assert!(
        matches!(failed, Error::NotDelivered { .. }),
        "a flush tells of what nobody waited for"
    );
    producer.flush().unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    drop(topic);
    store.streams.delete_topic("t").unwrap();
    assert!(matches!(
        producer.send(&ProducerRecord::new("t", b"")),
        Err(Error::UnknownTopic { .. })
    ));
    store.topic("t", 1);
    assert_eq!(
        producer.send(&ProducerRecord::new("t", b"")).unwrap().wait().unwrap().offset,
        Some(0)
    );
}

#[test]
fn sending_blocks_at_the_limit_of_memory_and_not_before() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    let producer = store.streams.producer(ProducerConfig::new().buffer_bytes_max(1_000)).unwrap();
    for n in 0..1_000u32 {
        let _ = producer.send(&ProducerRecord::new("t", &[0; 100]).partition(n % 2)).unwrap();
        assert!(producer.buffered_bytes() <= 1_000);
    }
    let _ = producer.send(&ProducerRecord::new("t", &[0; 5_000])).unwrap();
    producer.flush().unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    let ends: u64 = topic.partitions().iter().map(|p| p.end_offset().unwrap()).sum();
    assert_eq!(ends, 1_001);
}

#[test]
fn with_log_append_time_acknowledgements_have_the_time_of_the_append() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new().timestamps(TimestampType::LogAppendTime);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let producer = producer(&store);
    let sent = producer.send(&ProducerRecord::new("t", b"x").timestamp(5)).unwrap();
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(sent.wait().unwrap().timestamp, NOW_MS + 1_000);
    assert_eq!(topic.partition(0).unwrap().get(0).unwrap().unwrap().timestamp, NOW_MS + 1_000);
}

/// Sends the numbers as a producer that begins anew from its source would.
fn send_numbers(store: &TestStore, numbers: std::ops::Range<u64>) -> Vec<bool> {
    let producer = named(store, "loader");
    let sent: Vec<_> = numbers
        .map(|n| {
            let value = n.to_string();
            producer
                .send(&ProducerRecord::new("t", value.as_bytes()).key(value.as_bytes()).sequence(n))
                .unwrap()
        })
        .collect();
    sent.into_iter().map(|sent| sent.wait().unwrap().duplicate).collect()
}

#[test]
fn a_named_producer_that_sends_again_after_a_crash_duplicates_nothing() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 3);
    assert!(send_numbers(&store, 0..50).iter().all(|duplicate| !duplicate));
    drop(store);

    let store = TestStore::open(place.path());
    let duplicates = send_numbers(&store, 0..80);
    assert!(duplicates[..50].iter().all(|duplicate| *duplicate));
    assert!(duplicates[50..].iter().all(|duplicate| !duplicate));
    let topic = store.streams.topic("t").unwrap();
    let mut all: Vec<u64> = all_values(&topic).iter().map(|value| value.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..80).collect::<Vec<_>>());
    let last = named(&store, "loader").last_sequence("t", partition_for_key(b"79", 3)).unwrap();
    assert_eq!(last, Some(79));
    assert_eq!(named(&store, "other").last_sequence("t", 0).unwrap(), None);
}

#[test]
fn an_earlier_producer_of_the_name_is_fenced() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    let zombie = named(&store, "p");
    let collected = zombie.send(&ProducerRecord::new("t", b"collected").sequence(1)).unwrap();
    let successor = named(&store, "p");
    let failed = collected.wait().unwrap_err();
    let Error::NotDelivered { cause, .. } = failed else { panic!("{failed}") };
    assert!(matches!(&*cause, Error::ProducerFenced { epoch: 1, current: 2, .. }), "{cause}");
    let refused = zombie.send(&ProducerRecord::new("t", b"more").sequence(2)).unwrap_err();
    assert!(matches!(refused, Error::ProducerFenced { .. }));
    successor.send(&ProducerRecord::new("t", b"mine").sequence(1)).unwrap().wait().unwrap();
    assert_eq!(all_values(&topic), ["mine"]);
}

#[test]
fn a_number_sent_twice_in_one_life_is_appended_once_and_both_are_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    let producer = named(&store, "p");
    let first = producer.send(&ProducerRecord::new("t", b"x").sequence(7)).unwrap();
    let (tell, told) = mpsc::channel();
    producer
        .send_with(&ProducerRecord::new("t", b"x").sequence(7), move |result| {
            tell.send(result.unwrap()).unwrap()
        })
        .unwrap();
    let again = producer.send(&ProducerRecord::new("t", b"x").sequence(7)).unwrap();
    assert!(again.wait().unwrap().duplicate);
    assert_eq!(first.wait().unwrap().offset, Some(0));
    producer.flush().unwrap();
    assert!(told.try_recv().unwrap().duplicate);
    assert_eq!(all_values(&topic), ["x"]);
}

#[test]
fn what_removed_records_said_of_their_producer_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    let producer = named(&store, "p");
    producer.send(&ProducerRecord::new("t", b"x").sequence(7)).unwrap().wait().unwrap();
    drop(producer);
    topic.partition(0).unwrap().delete_records_before(1).unwrap();
    drop((store, topic));
    let store = TestStore::open(place.path());
    let producer = named(&store, "p");
    assert_eq!(producer.last_sequence("t", 0).unwrap(), Some(7));
    assert!(
        producer
            .send(&ProducerRecord::new("t", b"x").sequence(7))
            .unwrap()
            .wait()
            .unwrap()
            .duplicate
    );
    let next = producer.send(&ProducerRecord::new("t", b"y").sequence(8)).unwrap().wait().unwrap();
    assert_eq!(next.offset, Some(1));
}

/// A topic "t" that keeps records for a minute, in small segments; the first is full, and begins with sequence 7 of producer "p".
fn numbered_record_that_retention_will_take(store: &TestStore) -> (Topic, Producer) {
    let config =
        TopicConfig::new().segment_bytes_max(4_096).retention(Some(Duration::from_secs(60)));
    let topic = store.streams.create_topic("t", &config).unwrap();
    let producer = named(store, "p");
    let record = ProducerRecord::new("t", b"x").sequence(7);
    producer.send(&record.timestamp(NOW_MS)).unwrap().wait().unwrap();
    let plain = logmill_storage::Record::value(&[0; 2_000]).timestamp(NOW_MS);
    for _ in 0..4 {
        topic.partition(0).unwrap().append(&plain).unwrap();
    }
    (topic, producer)
}

#[test]
fn after_a_crash_the_sequence_is_written_down_before_retention_can_take_the_record_that_carries_it()
{
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let (topic, producer) = numbered_record_that_retention_will_take(&store);
    drop((producer, topic, store));

    let store = TestStore::open(place.path());
    let partition = store.streams.topic("t").unwrap().partition(0).unwrap();
    store.clock.advance(Duration::from_secs(3_600));
    partition.stats().unwrap();
    for _ in 0..70 {
        store.clock.advance(Duration::from_secs(1));
        store.dir.tick();
    }
    assert!(partition.start_offset().unwrap() > 0, "retention was meant to take the record");
    assert_eq!(named(&store, "p").last_sequence("t", 0).unwrap(), Some(7));
}

/// The background of an open log knew nothing of named producers: it removed the record that carried a sequence, and after a
/// crash the number was taken for new.
#[test]
fn what_background_retention_removes_while_the_producer_lives_is_kept_across_a_crash() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let (topic, producer) = numbered_record_that_retention_will_take(&store);
    store.clock.advance(Duration::from_secs(3_600));
    for _ in 0..70 {
        store.clock.advance(Duration::from_secs(1));
        store.dir.tick();
    }
    let start = topic.partition(0).unwrap().start_offset().unwrap();
    assert!(start > 0, "retention was meant to take the record");
    drop((producer, topic, store));
    let store = TestStore::open(place.path());
    assert_eq!(named(&store, "p").last_sequence("t", 0).unwrap(), Some(7));
}

/// Sends a number, which has the same key each time; each third one has none.
fn send(producer: &Producer, n: u64) -> Delivery {
    let (value, key) = (n.to_string(), format!("key-{}", n % 50));
    let record = ProducerRecord::new("t", value.as_bytes()).sequence(n);
    producer.send(&if n.is_multiple_of(3) { record } else { record.key(key.as_bytes()) }).unwrap()
}

fn send_all(producer: &Producer, range: std::ops::Range<u64>) {
    let sent: Vec<_> = range.map(|n| send(producer, n)).collect();
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
}

fn assert_each_once(topic: &Topic, numbers: u64) {
    let mut all: Vec<u64> = all_values(topic).iter().map(|value| value.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..numbers).collect::<Vec<_>>());
}

/// A record without a key went to whatever partition had the turn. Sent again after a crash, it was appended to another one too,
/// or it counted as a duplicate in one that had a higher number, and was nowhere.
#[test]
fn what_is_sent_again_without_a_key_goes_where_it_went_before() {
    let keyless = |store: &TestStore, range: std::ops::Range<u64>| {
        let config = ProducerConfig::new().name("p").batch_bytes_max(20);
        let producer = store.streams.producer(config).unwrap();
        let sent: Vec<_> = range
            .map(|n| {
                let value = n.to_string();
                producer.send(&ProducerRecord::new("t", value.as_bytes()).sequence(n)).unwrap()
            })
            .collect();
        let duplicates = sent.into_iter().map(|sent| sent.wait().unwrap().duplicate);
        duplicates.filter(|duplicate| *duplicate).count()
    };
    for crash in [500, 508, 516] {
        let place = tempfile::tempdir().unwrap();
        let store = TestStore::open(place.path());
        store.topic("t", 3);
        assert_eq!(keyless(&store, 0..crash), 0);
        drop(store);
        let store = TestStore::open(place.path());
        assert_eq!(keyless(&store, 137..1_000) as u64, crash - 137);
        let topic = store.streams.topic("t").unwrap();
        assert_each_once(&topic, 1_000);
        for partition in topic.partitions() {
            let count = values(&partition).len();
            assert!(count > 100, "partition {} has {count} of 1,000", partition.number());
        }
    }
}

/// A record went by the number of partitions that there was when it was sent again: into another partition than before, which
/// had it twice, or lost.
#[test]
fn what_is_sent_again_after_partitions_were_added_goes_where_it_went_before_and_what_is_new_does_not()
 {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    let producer = named(&store, "p");
    send_all(&producer, 0..200);
    // These are on their way while the partitions come.
    let collected: Vec<_> = (200..230)
        .map(|n| {
            let value = n.to_string();
            let record = ProducerRecord::new("t", value.as_bytes()).key(value.as_bytes());
            producer.send(&record.sequence(n)).unwrap()
        })
        .collect();
    topic.add_partitions(5).unwrap();
    let again = ProducerRecord::new("t", b"229").key(b"229").sequence(229);
    assert!(producer.send(&again).unwrap().wait().unwrap().duplicate);
    for sent in collected {
        assert!(!sent.wait().unwrap().duplicate);
    }
    send_all(&producer, 150..200);
    send_all(&producer, 230..300);
    assert_each_once(&topic, 300);
    let key = (0..)
        .map(|n| format!("key-{n}"))
        .find(|key| partition_for_key(key.as_bytes(), 5) > 1)
        .unwrap();
    let record = ProducerRecord::new("t", b"300").key(key.as_bytes()).sequence(300);
    let sent = producer.send(&record).unwrap().wait().unwrap();
    assert_eq!(sent.partition.partition, partition_for_key(key.as_bytes(), 5));
    drop((producer, topic, store));

    let store = TestStore::open(place.path());
    let producer = named(&store, "p");
    assert!(producer.send(&record).unwrap().wait().unwrap().duplicate);
    assert!(producer.send(&again).unwrap().wait().unwrap().duplicate);
    send_all(&producer, 0..200);
    assert_each_once(&store.streams.topic("t").unwrap(), 301);
}

#[test]
fn however_often_partitions_are_added_and_the_power_fails_each_number_is_there_once() {
    let mut crashes = 0;
    for seed in 1..=20u64 {
        let mut random = seed;
        let mut below = |end: u64| {
            // Knuth's, of which the upper half is good.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % end
        };
        let disk = SimDisk::new(seed);
        let mut store = TestStore::on(&disk);
        store.topic("t", 1 + u32::try_from(below(3)).unwrap());
        let mut producer = named(&store, "p");
        let (mut acknowledged, mut next, mut highest) = (0, 0, 0);
        for _ in 0..25 {
            let topic = store.streams.topic("t").unwrap();
            match below(6) {
                0 => topic.add_partitions(topic.partition_count() + 1).unwrap(),
                1 => {
                    disk.crash(&CrashPlan::random(below(1 << 30)));
                    drop((producer, topic, store));
                    store = TestStore::on(&disk);
                    crashes += 1;
                    producer = named(&store, "p");
                    next = acknowledged;
                }
                2 => {
                    // What the other one had on its way is refused.
                    producer = named(&store, "p");
                    next = acknowledged;
                }
                3 => {
                    let end = next + below(40);
                    (next..end).for_each(|n| drop(send(&producer, n)));
                    next = end;
                }
                _ => {
                    next += below(80);
                    send_all(&producer, below(acknowledged + 1)..next);
                    acknowledged = next;
                }
            }
            highest = highest.max(next);
        }
        send_all(&producer, 0..highest);
        assert_each_once(&store.streams.topic("t").unwrap(), highest);
        // Journaled, and in the snapshot that stands for the journal.
        drop(producer);
        store.close();
        let store = TestStore::on(&disk);
        send_all(&named(&store, "p"), 0..highest);
        assert_each_once(&store.streams.topic("t").unwrap(), highest);
    }
    assert!(crashes > 20, "the power was meant to fail: {crashes} times");
}
