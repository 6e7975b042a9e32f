//! Topics: created, described, altered, grown, deleted, and there again after a restart.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logmill_storage::{AppendOptions, Durability, Error as StorageError, Record};
use logmill_stream::{
    Cleanup, Error, ProducerConfig, ProducerRecord, StreamsOptions, TimestampType, TopicConfig,
};

use crate::support::{NOW_MS, TestStore, all_values, named, values};

fn names(store: &TestStore) -> Vec<String> {
    store.streams.topics().unwrap().iter().map(|topic| topic.name().to_owned()).collect()
}

#[test]
fn a_topic_is_there_after_a_restart_with_its_settings_and_its_records() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new().partitions(3).retention(None).cleanup(Cleanup::Compact);
    let topic = store.streams.create_topic("b", &config).unwrap();
    store.streams.create_topic("a", &TopicConfig::new()).unwrap();
    topic.partition(1).unwrap().append(&Record::value(b"x").key(b"k")).unwrap();
    assert_eq!(topic.id(), 1);
    drop(topic);
    store.close();

    let store = TestStore::open(place.path());
    assert_eq!(names(&store), ["a", "b"]);
    let topic = store.streams.topic("b").unwrap();
    assert_eq!((topic.id(), topic.partition_count()), (1, 3));
    assert_eq!((topic.settings().retention, topic.settings().cleanup), (None, Cleanup::Compact));
    assert_eq!(all_values(&topic), ["x"]);
}

/// The directory of the journal was lost with all that it knew of topics, and a new one made. The next topic to be made got
/// the first id again, and with it the directory of a lost topic: its consumers were given 200,000 records of another one.
/// No new journal is made any more while the others are there, but one may come from elsewhere.
#[test]
#[expect(clippy::disallowed_methods, reason = "the directory is lost behind the engine's back")]
fn a_new_topic_does_not_take_over_the_records_of_one_that_the_journal_has_lost() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("lost", &TopicConfig::new()).unwrap();
    topic.partition(0).unwrap().append(&Record::value(b"x")).unwrap();
    drop(topic);
    store.close();
    std::fs::rename(place.path().join("0"), place.path().join("gone")).unwrap();
    let another = tempfile::tempdir().unwrap();
    TestStore::open(another.path()).close();
    std::fs::rename(another.path().join("0"), place.path().join("0")).unwrap();

    let store = TestStore::open(place.path());
    let refused = store.streams.create_topic("new", &TopicConfig::new()).unwrap_err();
    assert!(
        matches!(&refused, Error::Storage(StorageError::Corrupt { path, .. }) if path.ends_with("1")),
        "{refused}"
    );
    assert!(refused.to_string().contains("bring the journal back"), "{refused}");
    assert_eq!(names(&store), [""; 0]);
    store.close();

    // With the journal all is as it was.
    std::fs::remove_dir_all(place.path().join("0")).unwrap();
    std::fs::rename(place.path().join("gone"), place.path().join("0")).unwrap();
    let store = TestStore::open(place.path());
    assert_eq!(all_values(&store.streams.topic("lost").unwrap()), ["x"]);
    store.streams.create_topic("new", &TopicConfig::new()).unwrap();
}

/// A service that creates its topics as it starts failed when it started for the second time.
#[test]
fn a_topic_is_made_by_the_first_start_and_found_as_it_is_by_the_second() {
    let place = tempfile::tempdir().unwrap();
    for partitions in [3, 5] {
        let store = TestStore::open(place.path());
        let config = TopicConfig::new().partitions(partitions);
        let topic = store.streams.ensure_topic("t", &config).unwrap();
        assert_eq!((topic.id(), topic.partition_count()), (1, 3));
        let refused = store.streams.ensure_topic("a b", &config).unwrap_err();
        assert!(matches!(refused, Error::InvalidName { .. }), "{refused}");
        store.close();
    }
}

#[test]
fn what_cannot_be_created_is_refused_by_type() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let create =
        |name: &str, config: TopicConfig| store.streams.create_topic(name, &config).unwrap_err();
    store.streams.create_topic("t", &TopicConfig::new()).unwrap();
    assert!(matches!(create("t", TopicConfig::new()), Error::TopicExists { name } if name == "t"));
    assert!(matches!(create("a b", TopicConfig::new()), Error::InvalidName { .. }));
    assert!(matches!(
        create("u", TopicConfig::new().partitions(0)),
        Error::InvalidPartitions { asked: 0 }
    ));
    assert!(matches!(
        create("u", TopicConfig::new().partitions(10_001)),
        Error::InvalidPartitions { .. }
    ));
    assert!(matches!(
        create("u", TopicConfig::new().segment_bytes_max(1)),
        Error::InvalidSetting { .. }
    ));
    assert!(
        matches!(store.streams.topic("u").unwrap_err(), Error::UnknownTopic { name } if name == "u")
    );
    let unknown = store.streams.topic("t").unwrap().partition(1).unwrap_err();
    assert!(matches!(unknown, Error::UnknownPartition { partition: 1, partitions: 1, .. }));
    assert_eq!(names(&store), ["t"]);
}

#[test]
fn partitions_are_added_and_never_removed() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new().partitions(2)).unwrap();
    topic.partition(1).unwrap().append(&Record::value(b"x")).unwrap();
    topic.add_partitions(4).unwrap();
    assert_eq!(topic.partitions().len(), 4);
    assert_eq!(values(&topic.partition(1).unwrap()), ["x"]);
    for fewer in [4, 3, 1] {
        let refused = topic.add_partitions(fewer).unwrap_err();
        assert!(
            matches!(refused, Error::PartitionsNotIncreased { partitions: 4, asked, .. } if asked == fewer)
        );
    }
    drop(topic);
    store.close();
    assert_eq!(TestStore::open(place.path()).streams.topic("t").unwrap().partition_count(), 4);
}

#[test]
fn settings_change_while_the_topic_is_in_use() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(&Record::value(&[0; 2_000])).unwrap();
    topic
        .alter(TopicConfig::new().record_bytes_max(1_024).durability(Durability::Buffered))
        .unwrap();
    assert_eq!(topic.settings().record_bytes_max, 1_024);
    assert_eq!(topic.settings().retention, Some(Duration::from_secs(604_800)));
    let refused = partition.append(&Record::value(&[0; 2_000])).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Storage(logmill_storage::Error::RecordTooLarge { max: 1_024, .. })
        ),
        "{refused}"
    );
    assert_eq!(partition.append(&Record::value(b"x")).unwrap(), 1);
    let refused = topic.alter(TopicConfig::new().partitions(9)).unwrap_err();
    assert!(matches!(refused, Error::PartitionsNotChanged { partitions: 1, .. }));
    assert!(matches!(
        topic.alter(TopicConfig::new().segment_bytes_max(1)),
        Err(Error::InvalidSetting { .. })
    ));
}

#[test]
fn settings_change_under_a_reader_that_has_the_log_open() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(&Record::value(&[0; 2_000])).unwrap();
    let mut reader = partition.reader(0).unwrap();
    topic.alter(TopicConfig::new().record_bytes_max(1_024)).unwrap();
    assert!(matches!(
        partition.append(&Record::value(&[0; 2_000])),
        Err(Error::Storage(logmill_storage::Error::RecordTooLarge { max: 1_024, .. }))
    ));
    topic.alter(TopicConfig::new().record_bytes_max(4_096)).unwrap();
    partition.append(&Record::value(&[0; 2_000])).unwrap();
    let mut seen = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        seen += batch.records().count();
    }
    assert_eq!(seen, 2);
}

#[test]
fn a_deleted_topic_is_gone_with_its_files_and_a_new_one_of_its_name_is_empty() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let old = store.streams.create_topic("t", &TopicConfig::new().partitions(2)).unwrap();
    let partition = old.partition(0).unwrap();
    partition.append(&Record::value(b"x")).unwrap();
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1", "1/0"]);
    store.streams.delete_topic("t").unwrap();
    assert!(matches!(partition.append(&Record::value(b"y")), Err(Error::UnknownTopic { .. })));
    assert!(matches!(store.streams.topic("t"), Err(Error::UnknownTopic { .. })));
    assert!(matches!(store.streams.delete_topic("t"), Err(Error::UnknownTopic { .. })));
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1"]);
    assert!(!place.path().join("1").exists());
    let new = store.streams.create_topic("t", &TopicConfig::new()).unwrap();
    assert_eq!(new.id(), 2);
    assert!(all_values(&new).is_empty());
}

#[test]
fn a_deletion_that_a_crash_cut_short_is_finished_at_the_next_open() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new().partitions(3)).unwrap();
    for partition in topic.partitions() {
        partition.append(&Record::value(b"x")).unwrap();
    }
    // A directory where the removal expects a file makes it fail in the middle, after the topic itself is gone.
    for deep in ["1/1/quarantine", "1/1/quarantine/deep"] {
        store.dir.io().create_dir(Path::new(deep)).unwrap();
    }
    assert!(matches!(store.streams.delete_topic("t"), Err(Error::Storage(_))));
    assert!(matches!(store.streams.topic("t"), Err(Error::UnknownTopic { .. })));
    store.dir.io().remove_dir(Path::new("1/1/quarantine/deep")).unwrap();
    drop((store, topic));

    let store = TestStore::open(place.path());
    assert_eq!(names(&store), Vec::<String>::new());
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1"]);
}

#[test]
fn with_log_append_time_a_record_has_the_time_of_the_append_whatever_it_says() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = |name: &str, kind| {
        store.streams.create_topic(name, &TopicConfig::new().timestamps(kind)).unwrap()
    };
    let create = topic("create", TimestampType::CreateTime).partition(0).unwrap();
    let append = topic("append", TimestampType::LogAppendTime).partition(0).unwrap();
    for partition in [&create, &append] {
        partition.append(&Record::value(b"x").timestamp(5)).unwrap();
        partition.append(&Record::value(b"y")).unwrap();
    }
    let times = |partition: &logmill_stream::Partition| -> Vec<i64> {
        partition.read(0, 1_000).unwrap().iter().map(|record| record.timestamp).collect()
    };
    assert_eq!(times(&create), [5, NOW_MS]);
    assert_eq!(times(&append), [NOW_MS, NOW_MS]);
}

#[test]
fn idle_partitions_are_closed_and_opened_again_when_they_are_used() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new().partitions(3)).unwrap();
    let partitions = topic.partitions();
    for partition in &partitions {
        partition.append(&Record::value(b"x")).unwrap();
    }
    let reader = partitions[0].reader(0).unwrap();
    assert_eq!(store.streams.open_partitions(), 3);
    for _ in 0..25 {
        store.clock.advance(Duration::from_secs(1));
        store.dir.tick();
    }
    assert_eq!(store.streams.open_partitions(), 1, "the one with a reader stays open");
    drop(reader);
    assert_eq!(partitions[2].append(&Record::value(b"y")).unwrap(), 1);
    assert_eq!(values(&partitions[2]), ["x", "y"]);
}

#[test]
fn no_more_partitions_are_open_than_permitted_unless_they_are_in_use() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::with(place.path(), &StreamsOptions::default().open_partitions_max(4));
    let topic = store.streams.create_topic("t", &TopicConfig::new().partitions(40)).unwrap();
    for partition in topic.partitions() {
        partition.append(&Record::value(b"x")).unwrap();
        assert!(store.streams.open_partitions() <= 6, "{}", store.streams.open_partitions());
    }
    let readers: Vec<_> =
        topic.partitions().iter().map(|partition| partition.reader(0).unwrap()).collect();
    assert_eq!(store.streams.open_partitions(), 40);
    drop(readers);
    for partition in topic.partitions() {
        assert_eq!(values(&partition), ["x"]);
    }
}

/// While one thread closed logs to make room nobody knew that they were still open, and the others opened as many again: a group
/// of four had 1,362 files open of 1,024.
#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn threads_that_make_room_at_the_same_time_have_one_partition_more_open_each() {
    const THREADS: usize = 4;
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::with(place.path(), &StreamsOptions::default().open_partitions_max(8));
    let topic = store.topic("t", 64);
    let root = place.path().canonicalize().unwrap();
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let files = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
        let logs = files
            .filter(|file| file.starts_with(&root) && file.extension().is_some_and(|e| e == "log"));
        logs.map(|log| log.parent().unwrap().to_owned()).collect::<HashSet<_>>().len()
    };
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let (topic, most, open) = (&topic, &most, &open);
            scope.spawn(move || {
                for n in 0..160 {
                    let partition = (n * THREADS + first) % 64;
                    topic.partitions()[partition].append(&Record::value(b"x")).unwrap();
                    most.fetch_max(open(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(all_values(&topic).len(), THREADS * 160);
    // And the journal's own log.
    let most = most.into_inner();
    assert!((8..=8 + THREADS + 1).contains(&most), "{most}");
}

/// A partition whose log had been closed to make room could not be opened again while a ticket of its was waited for by
/// nobody yet: the append waited for the ticket, and the ticket's owner for the append.
#[test]
fn a_partition_that_was_closed_to_make_room_is_there_again_whoever_holds_tickets() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::with(place.path(), &StreamsOptions::default().open_partitions_max(1));
    let topic = store.topic("t", 8);
    let mut tickets = Vec::new();
    for _ in 0..3 {
        for partition in topic.partitions() {
            let record = [Record::value(b"x")];
            tickets.push(partition.submit(&record, &AppendOptions::default()).unwrap());
        }
    }
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(all_values(&topic).len(), 24);
}

/// A compacted topic took records without a key, and kept them for ever.
#[test]
fn a_compacted_topic_refuses_records_without_a_key_however_they_come() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    let (keyed, keyless) = (Record::value(b"a").key(b"k"), Record::value(b"b"));
    partition.append(&keyless).unwrap();
    let producer = store.streams.producer(ProducerConfig::new()).unwrap();
    let collected = producer.send(&ProducerRecord::new("t", b"c")).unwrap();
    topic.alter(TopicConfig::new().cleanup(Cleanup::CompactAndDelete)).unwrap();

    let refused = |result: Result<(), Error>| match result.unwrap_err() {
        Error::KeyMissing { partition, index } if partition == named("t", 0) => index,
        other => panic!("{other}"),
    };
    let two = [keyed, keyless];
    assert_eq!(refused(partition.append_batch(&two).map(drop)), 1);
    assert_eq!(refused(partition.submit(&two, &AppendOptions::default()).map(drop)), 1);
    assert_eq!(refused(producer.send(&ProducerRecord::new("t", b"d")).map(drop)), 0);
    match collected.wait().unwrap_err() {
        Error::NotDelivered { cause, .. } => {
            assert!(matches!(*cause, Error::KeyMissing { index: 0, .. }), "{cause}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(all_values(&topic), ["b"], "what was there before stays");
    partition.append(&keyed).unwrap();
    producer.send(&ProducerRecord::new("t", b"e").key(b"k")).unwrap().wait().unwrap();
    assert_eq!(all_values(&topic), ["b", "a", "e"]);
}

#[test]
fn a_named_producers_record_without_a_key_counts_as_not_delivered_until_it_is_given_up() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new().cleanup(Cleanup::Compact);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let producer = store.streams.producer(ProducerConfig::new().name("p")).unwrap();
    let keyed = |sequence| ProducerRecord::new("t", b"v").key(b"k").sequence(sequence);
    producer.send(&keyed(1)).unwrap().wait().unwrap();
    let keyless = ProducerRecord::new("t", b"v").sequence(2);
    assert!(matches!(producer.send(&keyless), Err(Error::KeyMissing { .. })));
    assert!(matches!(
        producer.send(&keyed(3)),
        Err(Error::BehindUndelivered { undelivered: 2, .. })
    ));
    assert_eq!(producer.give_up("t", 0, 3).unwrap(), [2, 3]);
    producer.send(&keyed(4)).unwrap().wait().unwrap();
    assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 2);
}
