//! Reading without a group: readers, ranges, snapshots, and the latest value of a key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logmill_storage::Record;
use logmill_stream::{Cleanup, Error, TopicConfig};

use crate::support::{TestStore, append};

fn texts(records: &[logmill_storage::RecordBuf]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.value.as_ref().unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn a_range_is_read_forwards_and_a_snapshot_does_not_grow() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c", "d"]);
    let partition = topic.partition(0).unwrap();
    assert_eq!(texts(&partition.range(1, 3).unwrap().collect().unwrap()), ["b", "c"]);
    assert!(partition.range(4, 4).unwrap().collect().unwrap().is_empty());
    let snapshot = partition.range(0, u64::MAX).unwrap();
    append(&topic, 0, &["e"]);
    assert_eq!((snapshot.end(), snapshot.collect().unwrap().len()), (4, 4));
    partition.delete_records_before(2).unwrap();
    assert!(matches!(
        partition.range(0, 3),
        Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange { offset: 0, start: 2, .. }))
    ));
}

#[test]
fn a_reader_follows_what_is_appended_and_seeks_both_ways() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    let mut reader = topic.partition(0).unwrap().reader(0).unwrap();
    assert!(reader.next_batch().unwrap().is_none());
    append(&topic, 0, &["a", "b"]);
    assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 0);
    assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 1);
    reader.seek(0).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 0);
    assert_eq!((reader.position(), reader.high_watermark().unwrap()), (1, 2));
    assert!(reader.seek(3).is_err());
}

#[test]
fn a_table_knows_the_latest_value_of_each_key_and_learns_of_later_ones() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new().partitions(3).cleanup(Cleanup::Compact);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let put = |key: &str, value: Option<&str>| {
        let record = match value {
            Some(value) => Record::value(value.as_bytes()).key(key.as_bytes()),
            None => Record::tombstone(key.as_bytes()),
        };
        topic.partition_for_key(key.as_bytes()).unwrap().append(&record).unwrap();
    };
    for n in 0..100 {
        put(&format!("key-{}", n % 10), Some(&n.to_string()));
    }
    put("key-3", None);
    let mut table = topic.table().unwrap();
    let mut value = |key: &str| table.get(key.as_bytes()).unwrap().map(|r| texts(&[r]).remove(0));
    assert_eq!(value("key-7").as_deref(), Some("97"));
    assert_eq!(value("key-3"), None);
    assert_eq!(value("absent"), None);
    put("key-7", Some("new"));
    put("key-3", Some("again"));
    assert_eq!(value("key-7").as_deref(), Some("new"));
    assert_eq!(value("key-3").as_deref(), Some("again"));
    topic.add_partitions(7).unwrap();
    for n in 0..10 {
        let key = format!("key-{n}");
        assert!(value(&key).is_some(), "{key} is found where it was before partitions were added");
    }
    assert_eq!(table.len(), 10);
    assert_eq!(table.keys().count(), 10);
}

/// A tombstone only took the key out of its own partition, and the other partitions were searched then: a value from before
/// partitions were added came back. One that was in the partition of the key now hid a newer one elsewhere.
#[test]
fn the_newest_record_of_a_key_counts_however_often_partitions_were_added() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    let mut watched = topic.table().unwrap();
    let keys: Vec<String> = (0..120).map(|n| format!("key-{n}")).collect();
    let mut expected: BTreeMap<&str, String> = BTreeMap::new();
    let mut numbers = 0..;
    for (round, partitions) in [2, 3, 5, 6, 7].into_iter().enumerate() {
        if partitions > topic.partition_count() {
            topic.add_partitions(partitions).unwrap();
        }
        // In the second round each other key is deleted, and so on: with other keys in each.
        for (at, key) in keys.iter().enumerate() {
            let partition = topic.partition_for_key(key.as_bytes()).unwrap();
            if round == 0 || (at / 2) % (round + 1) == 0 {
                let value = format!("{key} {}", numbers.next().unwrap());
                partition.append(&Record::value(value.as_bytes()).key(key.as_bytes())).unwrap();
                expected.insert(key, value);
            } else if at % (round + 1) == 1 {
                partition.append(&Record::tombstone(key.as_bytes())).unwrap();
                expected.remove(key.as_str());
            }
        }
        store.clock.advance(Duration::from_millis(1));
        for table in [&mut watched, &mut topic.table().unwrap()] {
            for key in &keys {
                let found = table.get(key.as_bytes()).unwrap().map(|r| texts(&[r]).remove(0));
                assert_eq!(found.as_ref(), expected.get(key.as_str()), "{key}, {partitions}");
            }
            let mut listed: Vec<_> = table.keys().collect();
            listed.sort_unstable();
            let wanted: BTreeSet<_> = expected.keys().map(|key| key.as_bytes()).collect();
            assert_eq!(listed, wanted.into_iter().collect::<Vec<_>>());
            assert_eq!(table.len(), expected.len());
        }
        assert!(round == 0 || expected.len() < keys.len(), "some keys were meant to be deleted");
    }
}

#[test]
fn of_records_of_one_key_and_one_time_the_one_in_the_partition_that_the_key_goes_to_counts() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 4);
    let home = topic.partition_for_key(b"k").unwrap().number();
    for partition in topic.partitions() {
        let value = partition.number().to_string();
        partition.append(&Record::value(value.as_bytes()).key(b"k")).unwrap();
    }
    let mut table = topic.table().unwrap();
    assert_eq!(texts(&[table.get(b"k").unwrap().unwrap()]), [home.to_string()]);
    // An older time counts in the same partition, since the record is behind the other, and in no other partition.
    let old = Record::value(b"late").key(b"k").timestamp(5);
    topic.partition((home + 1) % 4).unwrap().append(&old).unwrap();
    assert_eq!(texts(&[table.get(b"k").unwrap().unwrap()]), [home.to_string()]);
    topic.partition(home).unwrap().append(&old).unwrap();
    assert_eq!(texts(&[table.get(b"k").unwrap().unwrap()]), ["late"]);
    assert_eq!(texts(&[topic.table().unwrap().get(b"k").unwrap().unwrap()]), ["late"]);
}

/// Each question made one in its partition, with its syncs, and a table in all of them.
#[test]
fn readers_and_tables_make_no_logs_and_see_what_is_appended_after_they_came() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 4);
    let mut table = topic.table().unwrap();
    let partition = topic.partition(1).unwrap();
    let mut reader = partition.reader(0).unwrap();
    assert!(reader.next_batch().unwrap().is_none());
    assert!(reader.next_batch_timeout(Duration::ZERO).unwrap().is_none());
    reader.seek(0).unwrap();
    let out_of_range = |error| {
        use logmill_storage::Error::OffsetOutOfRange;
        matches!(error, Error::Storage(OffsetOutOfRange { offset: 1, start: 0, end: 0 }))
    };
    assert!(out_of_range(reader.seek(1).unwrap_err()));
    assert!(out_of_range(partition.reader(1).unwrap_err()));
    assert!(out_of_range(partition.get(1).unwrap_err()));
    assert!(partition.read(0, 1_000).unwrap().is_empty());
    assert!(partition.range(0, 9).unwrap().collect().unwrap().is_empty());
    assert_eq!((partition.end_of_epoch(0).unwrap(), partition.recovery().unwrap()), (0, None));
    assert_eq!(table.get(b"k").unwrap(), None);
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1"]);

    partition.append(&Record::value(b"v").key(b"k")).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 0);
    assert_eq!(table.get(b"k").unwrap().unwrap().value.as_deref(), Some(&b"v"[..]));
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1", "1/1"]);
}

/// Where there was a log, whoever waited was not told that its topic was deleted.
#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends, and deletes, meanwhile")]
fn who_waits_for_a_record_is_woken_by_it_and_by_the_end_of_its_topic() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    for offset in [0, 1] {
        let partition = store.topic("t", 1).partition(0).unwrap();
        if offset == 1 {
            partition.append(&Record::value(b"first")).unwrap();
        }
        assert!(!partition.wait_for(offset, Duration::ZERO).unwrap());
        let wait = |offset| partition.wait_for(offset, Duration::from_secs(3_600));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(offset));
            partition.append(&Record::value(b"v")).unwrap();
            assert!(waiter.join().unwrap().unwrap());
            let waiter = scope.spawn(|| wait(offset + 1));
            store.streams.delete_topic("t").unwrap();
            let error = waiter.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::UnknownTopic { .. }), "{error}");
        });
        assert_eq!(store.dir.logs().unwrap(), ["0", "0/1"]);
    }
}
