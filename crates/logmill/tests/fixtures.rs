//! A whole store that an earlier build has written, as it lies in fixtures/v1/store: today's code must open it, for ever,
//! and find in it every topic, queue, group, position and message. A fixture that was released is never written again.

#![expect(clippy::disallowed_methods, reason = "a fixture's files are copied as they are")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logmill::queue::{Missed, Repeat, Retry};
use logmill::{
    Acknowledge, Attribute, Cleanup, ConsumerConfig, Counts, Header, ManualClock, Message,
    OffsetAndMetadata, ProducerConfig, ProducerRecord, QueueConfig, ReceiveOptions, Record,
    ShareConsumerConfig, ShareGroupConfig, StartAt, Store, TopicConfig,
};

/// When the fixture's clock stood still: 2023-11-14T22:13:20Z.
const NOW_MS: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/v1/store")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(path: &Path) -> (Store, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let builder = Store::builder().threads(0).clock(Arc::<ManualClock>::clone(&clock));
    (builder.open(path).unwrap(), clock)
}

fn shared() -> ShareConsumerConfig {
    let group = ShareGroupConfig::new().start_at(StartAt::Earliest);
    ShareConsumerConfig::new().group(group).explicit(true)
}

/// Everything that a store can hold, in small.
fn fill(path: &Path) {
    let (store, clock) = open(path);
    let config = TopicConfig::new().partitions(3).retention(Some(24 * HOUR));
    let events = store.create_topic("events", config).unwrap();
    let rows = store.create_topic("rows", TopicConfig::new().cleanup(Cleanup::Compact)).unwrap();
    store.create_topic("gone", TopicConfig::new()).unwrap();
    store.delete_topic("gone").unwrap();
    let headers = [Header { name: "trace", value: b"\x00\x01" }];
    for n in 0..3_u8 {
        let value = [b'v', n];
        let record = Record::value(&value).key(b"user-7").headers(&headers);
        events.partition(1).unwrap().append(&record).unwrap();
    }
    rows.partition(0).unwrap().append(&Record::value(b"Ada").key(b"7")).unwrap();
    rows.partition(0).unwrap().append(&Record::tombstone(b"8")).unwrap();

    let producer = store.producer_with(ProducerConfig::new().name("relay")).unwrap();
    for sequence in [10, 20] {
        let record = ProducerRecord::new("events", b"relayed").partition(2).sequence(sequence);
        producer.send(&record).unwrap().wait().unwrap();
    }
    producer.close().unwrap();

    let mut consumer =
        store.consumer_with("analytics", ConsumerConfig::new().auto_commit(None)).unwrap();
    let at = events.partition(1).unwrap().name();
    let position = OffsetAndMetadata { offset: 2, metadata: "half-way".to_owned() };
    consumer.commit_offsets(&[(at, position)]).unwrap();
    drop(consumer);

    let mut consumer = store.share_consumer("sharers", shared()).unwrap();
    consumer.subscribe(&["events"]).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    for record in records.iter().filter(|record| record.record.partition == 1) {
        let how = [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject];
        let how = how[usize::try_from(record.record.offset).unwrap()];
        consumer.acknowledge(record.receipt(), how).unwrap();
    }
    consumer.close().unwrap();

    store.create_queue("failed", &QueueConfig::standard()).unwrap();
    let config = QueueConfig::standard()
        .dead_letter("failed", 5)
        .retry(Retry::Fixed { delay: Duration::from_secs(7) })
        .visibility_timeout(HOUR);
    let work = store.create_queue("work", &config).unwrap();
    work.send(&Message::new(b"held")).unwrap();
    work.receive(&ReceiveOptions::new()).unwrap();
    work.send(&Message::new(b"bad")).unwrap();
    let bad = work.receive(&ReceiveOptions::new()).unwrap();
    work.reject(bad[0].receipt(), "no such image").unwrap();
    let attributes = [Attribute::string("kind", "thumbnail"), Attribute::number("width", "640")];
    work.send(&Message::new(b"ready").attributes(&attributes).priority(9)).unwrap();
    work.send(&Message::new(b"later").delay(2 * HOUR)).unwrap();
    let repeat = Repeat::Every(24 * HOUR);
    work.schedule("nightly", &repeat, &Message::new(b"tick"), Missed::Latest).unwrap();

    let orders = store.create_queue("orders.fifo", &QueueConfig::fifo()).unwrap();
    for (group, id) in [("a", "1"), ("a", "2"), ("b", "3")] {
        let message = Message::new(id.as_bytes()).group(group).deduplication_id(id);
        orders.send(&message).unwrap();
    }
    clock.advance(Duration::from_secs(1));
    store.tick();
    store.close().unwrap();
}

#[test]
#[ignore = "writes fixtures/v1/store: once for each version of the format"]
fn write_the_fixture_of_this_version() {
    let made = tempfile::tempdir().unwrap();
    fill(made.path());
    // A megabyte of reserve each, which says nothing and is made anew.
    for spare in ["0/spare", "0/1/spare"] {
        std::fs::remove_file(made.path().join(spare)).unwrap();
    }
    copy(made.path(), &place());
}

fn bodies(messages: &[logmill::ReceivedMessage]) -> Vec<&[u8]> {
    messages.iter().map(|message| message.body()).collect()
}

fn check(path: &Path) {
    let (store, clock) = open(path);
    let topics: Vec<_> = store.topics().unwrap().iter().map(|t| t.name().to_owned()).collect();
    assert_eq!(topics, ["events", "rows"]);
    let events = store.topic("events").unwrap();
    assert_eq!(events.partition_count(), 3);
    assert_eq!(events.settings().retention, Some(24 * HOUR));
    assert_eq!(store.topic("rows").unwrap().settings().cleanup, Cleanup::Compact);
    let records = events.partition(1).unwrap().read(0, 1 << 20).unwrap();
    let values: Vec<_> = records.iter().map(|record| record.value.clone().unwrap()).collect();
    assert_eq!(values, [&b"v\x00"[..], b"v\x01", b"v\x02"]);
    assert_eq!((records[0].timestamp, records[0].headers.len()), (NOW_MS, 1));
    let rows = store.topic("rows").unwrap().partition(0).unwrap().read(0, 1 << 20).unwrap();
    assert_eq!((rows[0].key.as_deref(), &rows[1].value), (Some(&b"7"[..]), &None));

    let producer = store.producer_with(ProducerConfig::new().name("relay")).unwrap();
    assert_eq!(producer.last_sequence("events", 2).unwrap(), Some(20));
    let again = ProducerRecord::new("events", b"relayed").partition(2).sequence(20);
    assert!(producer.send(&again).unwrap().wait().unwrap().duplicate);

    let mut consumer =
        store.consumer_with("analytics", ConsumerConfig::new().auto_commit(None)).unwrap();
    let committed = consumer.committed("events", 1).unwrap().unwrap();
    assert_eq!((committed.offset, committed.metadata.as_str()), (2, "half-way"));
    consumer.subscribe(&["events"]).unwrap();
    let polled = consumer.poll(Duration::ZERO).unwrap();
    let read: Vec<_> = polled.iter().map(|record| (record.partition, record.offset)).collect();
    assert_eq!(read, [(1, 2)], "the other partitions begin at their end");
    drop(consumer);

    let mut sharer = store.share_consumer("sharers", shared()).unwrap();
    sharer.subscribe(&["events"]).unwrap();
    let polled = sharer.poll(Duration::ZERO).unwrap();
    let shared: Vec<_> = polled
        .iter()
        .filter(|record| record.record.partition == 1)
        .map(|record| (record.record.offset, record.delivery_count))
        .collect();
    assert_eq!(shared, [(1, 2)], "one was accepted, one released, one rejected");
    drop(sharer);

    assert_eq!(store.queues(""), ["failed", "orders.fifo", "work"]);
    let work = store.queue("work").unwrap();
    let counts = work.counts().unwrap();
    let Counts { ready, in_flight, delayed, .. } = counts;
    assert_eq!((ready, in_flight, delayed), (1, 1, 1), "{counts:?}");
    assert_eq!(work.schedules().unwrap()[0].name, "nightly");
    let options = ReceiveOptions::new().max(10);
    let got = work.receive(&options).unwrap();
    assert_eq!((bodies(&got), got[0].priority()), (vec![&b"ready"[..]], 9));
    assert_eq!(got[0].attributes()[1], Attribute::number("width", "640"));
    work.delete(got[0].receipt()).unwrap();
    clock.advance(HOUR);
    let got = work.receive(&options).unwrap();
    assert_eq!((bodies(&got), got[0].receive_count()), (vec![&b"held"[..]], 2));
    clock.advance(2 * HOUR);
    store.tick();
    assert!(bodies(&work.receive(&options).unwrap()).contains(&&b"later"[..]));
    let failed = store.queue("failed").unwrap().receive(&options).unwrap();
    assert_eq!(bodies(&failed), [b"bad"]);
    assert!(failed[0].earlier_history().is_some_and(|past| past.death.is_some()));

    let orders = store.queue("orders.fifo").unwrap();
    let mut got = bodies(&orders.receive(&options).unwrap()).concat();
    got.sort_unstable();
    assert_eq!(got, b"123");
    assert_eq!(events.partition(1).unwrap().append(&Record::value(b"goes on")).unwrap(), 3);
    store.close().unwrap();
}

#[test]
fn a_store_of_version_1_opens_with_its_topics_groups_positions_and_queues() {
    let copied = tempfile::tempdir().unwrap();
    copy(&place(), copied.path());
    check(copied.path());
}

/// So that what the fixture is checked for is what its generator makes.
#[test]
fn a_store_of_today_passes_the_same_check() {
    let made = tempfile::tempdir().unwrap();
    fill(made.path());
    check(made.path());
}
