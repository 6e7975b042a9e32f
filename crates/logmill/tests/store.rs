//! The store as its users see it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill::queue::Durability;
use logmill::{
    ConsumerConfig, Message, Queue, QueueConfig, ReceiveOptions, Record, StartAt, Store,
    TopicConfig,
};

fn values(topic: &logmill::Topic) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for partition in topic.partitions() {
        let mut reader = partition.reader(partition.start_offset().unwrap()).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            values.extend(batch.records().map(|record| record.unwrap().value.unwrap().to_vec()));
        }
    }
    values
}

#[test]
fn topics_and_records_survive_close_and_reopen() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let topic = store.create_topic("events", TopicConfig::new().partitions(3)).unwrap();
    topic.partition(2).unwrap().append(&Record::value(b"hello")).unwrap();
    drop(topic);
    store.close().unwrap();

    let store = Store::open(place.path()).unwrap();
    let topic = store.topic("events").unwrap();
    assert_eq!(topic.partition_count(), 3);
    assert_eq!(values(&topic), [b"hello"]);
    store.close().unwrap();
}

#[test]
fn a_closed_store_can_be_opened_again_while_what_came_from_it_is_still_held() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let topic = store.create_topic("events", TopicConfig::new()).unwrap();
    let queue = store.create_queue("work", &logmill::QueueConfig::standard()).unwrap();
    let (partition, clone) = (topic.partition(0).unwrap(), store.clone());
    partition.append(&Record::value(b"hello")).unwrap();
    queue.send(&logmill::Message::new(b"do")).unwrap();
    store.close().unwrap();

    let again = Store::open(place.path()).unwrap();
    assert!(partition.append(&Record::value(b"late")).is_err());
    assert!(queue.send(&logmill::Message::new(b"late")).is_err());
    assert!(clone.create_topic("late", TopicConfig::new()).is_err());
    clone.close().unwrap();
    assert_eq!(values(&again.topic("events").unwrap()), [b"hello"]);
    assert_eq!(again.queue("work").unwrap().counts().unwrap().ready, 1);
    assert!(matches!(
        Store::open(place.path()).unwrap_err().storage(),
        Some(logmill::storage::Error::Locked { .. })
    ));
}

#[test]
fn dropping_a_store_loses_nothing_that_was_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let topic = store.create_topic("events", TopicConfig::new()).unwrap();
    topic.partition(0).unwrap().append(&Record::value(b"hello")).unwrap();
    drop((topic, store));

    let store = Store::builder().lock_wait(Duration::from_secs(10)).open(place.path()).unwrap();
    assert_eq!(values(&store.topic("events").unwrap()), [b"hello"]);
}

#[test]
fn a_second_writer_is_told_who_has_the_store() {
    let place = tempfile::tempdir().unwrap();
    let _store = Store::open(place.path()).unwrap();
    let refused = Store::open(place.path()).unwrap_err();
    let Some(logmill::storage::Error::Locked { pid, .. }) = refused.storage() else {
        panic!("{refused}")
    };
    assert_eq!(*pid, Some(std::process::id()));
}

#[test]
fn a_read_only_store_sees_topics_and_records_that_its_writer_makes_meanwhile() {
    let place = tempfile::tempdir().unwrap();
    let writer = Store::open(place.path()).unwrap();
    let reader = Store::builder().read_only(true).open(place.path()).unwrap();
    assert!(reader.topics().unwrap().is_empty());

    let topic = writer.create_topic("events", TopicConfig::new().partitions(2)).unwrap();
    let seen = reader.topic("events").unwrap();
    assert_eq!(seen.partition_count(), 2);
    assert_eq!(seen.partition(0).unwrap().high_watermark().unwrap(), 0);

    topic.partition(1).unwrap().append(&Record::value(b"hello")).unwrap();
    assert_eq!(values(&seen), [b"hello"]);
    topic.partition(1).unwrap().append(&Record::value(b"again")).unwrap();
    assert!(seen.partition(1).unwrap().wait_for(1, Duration::from_secs(10)).unwrap());
    assert_eq!(values(&seen), [b"hello".to_vec(), b"again".to_vec()]);

    let refused = seen.partition(1).unwrap().append(&Record::value(b"no")).unwrap_err();
    assert!(
        matches!(
            refused,
            logmill::stream::Error::Storage(logmill::storage::Error::ReadOnly { .. })
        ),
        "{refused}"
    );
    let refused = reader.create_topic("more", TopicConfig::new()).unwrap_err();
    assert!(
        matches!(refused.storage(), Some(logmill::storage::Error::ReadOnly { .. })),
        "{refused}"
    );
}

#[test]
fn an_absent_directory_is_no_store_to_read() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    assert!(Store::builder().read_only(true).open(&absent).is_err());
    assert!(!absent.exists());
}

/// A store of small journal segments, whose queue has a message that nobody can receive for an hour.
fn beside_a_stuck_message(place: &Path) -> (Arc<logmill::ManualClock>, Store, Queue) {
    let clock = Arc::new(logmill::ManualClock::at(1_700_000_000_000));
    let store = Store::builder()
        .threads(0)
        .clock(Arc::<logmill::ManualClock>::clone(&clock))
        .journal_segment_bytes(8 << 20)
        .durability(Durability::Buffered)
        .open(place)
        .unwrap();
    let queue = store.create_queue("q", &QueueConfig::standard()).unwrap();
    queue.send(&Message::new(b"stuck").delay(Duration::from_secs(3600))).unwrap();
    (clock, store, queue)
}

/// A mebibyte goes through the queue.
fn send_and_delete(queue: &Queue) {
    queue.send(&Message::new(&vec![7; 1 << 20])).unwrap();
    let got = queue.receive(&ReceiveOptions::new()).unwrap();
    queue.delete(got[0].receipt()).unwrap();
}

/// What queues journal was read twice at every open, for streams and for what they owe each other: they wrote a checkpoint
/// after their own bytes only. 10 million messages took two seconds.
#[test]
fn streams_write_a_checkpoint_when_others_fill_the_journal_and_its_space_is_reported() {
    let place = tempfile::tempdir().unwrap();
    let (clock, store, queue) = beside_a_stuck_message(place.path());
    for _ in 0..50 {
        send_and_delete(&queue);
    }
    let checkpoint = place.path().join("0/checkpoint-0");
    assert!(!checkpoint.exists());
    for _ in 0..30 {
        clock.advance(Duration::from_secs(1));
        store.tick();
    }
    assert!(checkpoint.exists());
    let space = store.stats().unwrap().space;
    assert!(space.segments >= 4 && space.carried_bytes > 0, "{space:?}");
    assert!(space.write_amplification() < 1.01, "{space:?}");
    drop(queue);
    drop(store);
    let store = Store::builder().clock(clock).open(place.path()).unwrap();
    assert_eq!(store.queue("q").unwrap().counts().unwrap().delayed, 1);
    store.close().unwrap();
}

/// Ten seconds of the fastest sends were 20 segments before the first look at them.
#[test]
fn space_is_given_back_by_bytes_journaled_and_not_by_time_alone() {
    let place = tempfile::tempdir().unwrap();
    let (clock, store, queue) = beside_a_stuck_message(place.path());
    for _ in 0..150 {
        send_and_delete(&queue);
        clock.advance(Duration::from_millis(20));
        store.tick();
    }
    let space = store.stats().unwrap().space;
    assert!(space.segments >= 10, "{space:?}");
    store.close().unwrap();
}

#[test]
fn after_an_older_backup_is_restored_a_group_skips_nothing_and_a_kept_position_is_seen_to_be_lost()
{
    use logmill::storage::DataDir;
    use logmill::storage::backup::{backup, restore};

    let (place, kept, new) = [(); 3].map(|()| tempfile::tempdir().unwrap()).into();
    let append = |store: &Store, values: &[&str]| {
        let partition = store.topic("events").unwrap().partition(0).unwrap();
        for value in values {
            partition.append(&Record::value(value.as_bytes())).unwrap();
        }
    };
    let read = |store: &Store| {
        let mut consumer = store.consumer("g").unwrap();
        consumer.subscribe(&["events"]).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        let values = records.iter().map(|r| String::from_utf8_lossy(r.value.unwrap()).into_owned());
        let values: Vec<String> = values.collect();
        consumer.commit().unwrap();
        values
    };
    let store = Store::open(place.path()).unwrap();
    store.create_topic("events", TopicConfig::new()).unwrap();
    append(&store, &["a", "b", "c"]);
    assert_eq!(read(&store), [""; 0], "a new group begins at the end");
    append(&store, &["d", "e"]);
    assert_eq!(read(&store), ["d", "e"]);
    append(&store, &["f"]);
    let open = |path: &std::path::Path, read_only| {
        logmill::storage::DataDirOptions::new().read_only(read_only).open(path).unwrap()
    };
    backup(&open(place.path(), true), &DataDir::open(kept.path()).unwrap(), &mut |_| {}).unwrap();
    append(&store, &["g", "h", "i"]);
    assert_eq!(read(&store), ["f", "g", "h", "i"]);
    let partition = store.topic("events").unwrap().partition(0).unwrap();
    let position = (partition.epoch().unwrap(), partition.end_offset().unwrap());
    store.close().unwrap();

    restore(&open(kept.path(), true), &DataDir::open(new.path()).unwrap(), &mut |_| {}).unwrap();
    let store = Store::open(new.path()).unwrap();
    append(&store, &["j", "k", "l", "m", "n"]);
    assert_eq!(read(&store), ["f", "j", "k", "l", "m", "n"]);
    let partition = store.topic("events").unwrap().partition(0).unwrap();
    assert!(partition.epoch().unwrap() > position.0);
    assert_eq!((partition.end_of_epoch(position.0).unwrap(), position.1), (6, 9));
    store.close().unwrap();
}

#[test]
fn what_a_store_says_of_durability_holds_where_nothing_else_is_said() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::builder().durability(Durability::Buffered).open(place.path()).unwrap();
    let plain = store.create_topic("plain", TopicConfig::new()).unwrap();
    let safe = store.create_topic("safe", TopicConfig::new().durability(Durability::Sync)).unwrap();
    assert_eq!(plain.settings().durability, Durability::Buffered);
    assert_eq!(safe.settings().durability, Durability::Sync);
    let queue = store.create_queue("work", &QueueConfig::standard()).unwrap();
    let earliest = ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None);
    let mut consumer = store.consumer_with("g", earliest).unwrap();
    consumer.subscribe(&["plain"]).unwrap();

    // The first use of a partition is journaled durably, whatever its level, so that a loss of its directory is noticed.
    for topic in [&plain, &safe] {
        topic.partition(0).unwrap().append(&Record::value(b"first")).unwrap();
    }
    let syncs = || store.stats().unwrap().activity.syncs;
    let before = syncs();
    plain.partition(0).unwrap().append(&Record::value(b"a")).unwrap();
    queue.send(&Message::new(b"a")).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 2);
    consumer.commit().unwrap();
    assert_eq!(syncs(), before, "nobody waited for the disk");
    safe.partition(0).unwrap().append(&Record::value(b"a")).unwrap();
    assert_eq!(syncs(), before + 1);
    drop(consumer);
    store.close().unwrap();

    // A topic keeps what it was made with, whatever the store says later.
    let store = Store::open(place.path()).unwrap();
    assert_eq!(store.topic("plain").unwrap().settings().durability, Durability::Buffered);
    let later = store.create_topic("later", TopicConfig::new()).unwrap();
    assert_eq!(later.settings().durability, Durability::Sync);
    store.close().unwrap();
}

#[test]
fn a_store_is_backed_up_while_it_is_written_and_restored_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let (live, copy) = (place.path().join("live"), place.path().join("copy"));
    let store = Store::open(&live).unwrap();
    let topic = store.create_topic("events", TopicConfig::new()).unwrap();
    let queue = store.create_queue("work", &QueueConfig::standard()).unwrap();
    topic.partition(0).unwrap().append(&Record::value(b"first")).unwrap();
    queue.send(&Message::new(b"first")).unwrap();
    store.backup(&copy).unwrap();
    topic.partition(0).unwrap().append(&Record::value(b"second")).unwrap();
    store.backup(&copy).unwrap();
    topic.partition(0).unwrap().append(&Record::value(b"too late")).unwrap();
    store.close().unwrap();

    let restored = place.path().join("restored");
    Store::restore(&copy, &restored).unwrap();
    let store = Store::open(&restored).unwrap();
    assert_eq!(values(&store.topic("events").unwrap()), [b"first".to_vec(), b"second".to_vec()]);
    let got = store.queue("work").unwrap().receive(&ReceiveOptions::new()).unwrap();
    assert_eq!(got[0].body(), b"first");
    store.close().unwrap();
    let refused = Store::restore(&copy, &live).unwrap_err();
    assert!(refused.storage().is_some(), "{refused}");
}
