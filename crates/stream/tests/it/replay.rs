//! Reading without a group: readers, ranges, snapshots, and the latest value of a key.

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
