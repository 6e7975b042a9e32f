//! After a failed sync a service goes on without a new process, whoever reads meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use logmill_storage::io::sim::{Fault, Op, SimDisk};
use logmill_storage::{Error as StorageError, Record};
use logmill_stream::{
    Acknowledge, Error, Partition, PartitionReader, ShareConsumer, ShareConsumerConfig,
    ShareGroupConfig, StartAt, Topic,
};

use crate::support::{TestStore, append, drain, values};

const WAYS: [Fault; 5] = [
    Fault::SyncEioKeep,
    Fault::SyncEioSome,
    Fault::SyncEioRevert,
    Fault::SyncEioDrop,
    Fault::SyncFalseFailure,
];

/// Has the next sync of the partition fail, under a record that is lost or is not.
fn poison(disk: &SimDisk, partition: &Partition, way: Fault) {
    disk.fail_next(Op::Sync, way);
    let failed = partition.append(&Record::value(b"in doubt")).unwrap_err();
    assert!(matches!(failed, Error::Storage(StorageError::OutcomeUnknown { .. })), "{failed}");
    assert_eq!(disk.faults_fired(), 1);
    let refused = partition.append(&Record::value(b"refused")).unwrap_err();
    assert!(matches!(refused, Error::Storage(StorageError::Poisoned { .. })), "{refused}");
}

/// As long as the background takes to come round.
fn pass(store: &TestStore) {
    for _ in 0..11 {
        store.clock.advance(Duration::from_secs(1));
        store.dir.tick();
    }
}

fn rest_of(reader: &mut PartitionReader) -> Vec<String> {
    let mut rest = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records() {
            rest.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    rest
}

fn store_with_a(disk: &SimDisk) -> (TestStore, Topic) {
    let store = TestStore::on(disk);
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    (store, topic)
}

/// It was opened again when nobody had it any more, and a consumer that waits for records has it for ever: all appends were
/// refused until the process was started anew.
#[test]
fn a_poisoned_partition_is_opened_again_under_its_consumers_and_readers() {
    let mut seen = BTreeSet::new();
    for way in WAYS {
        let disk = SimDisk::new(1);
        let (store, topic) = store_with_a(&disk);
        let partition = topic.partition(0).unwrap();
        let mut consumer = store.subscriber("g", "t");
        assert_eq!(drain(&mut consumer), ["a"]);
        let mut reader = partition.reader(0).unwrap();
        assert_eq!(rest_of(&mut reader), ["a"]);
        let epoch = partition.epoch().unwrap();

        poison(&disk, &partition, way);
        assert_eq!(values(&partition), ["a"], "what is durable can be read");
        assert_eq!(drain(&mut consumer), [""; 0]);
        assert!(!store.dir.health().is_ok());
        pass(&store);

        partition.append(&Record::value(b"later")).unwrap();
        let kept = values(&partition);
        assert!(kept == ["a", "later"] || kept == ["a", "in doubt", "later"], "{kept:?}");
        assert_eq!(drain(&mut consumer), kept[1..]);
        assert_eq!(rest_of(&mut reader), kept[1..]);
        assert!(partition.epoch().unwrap() > epoch);
        assert!(store.dir.health().is_ok());
        consumer.commit().unwrap();
        drop((consumer, reader, partition, topic));
        seen.insert(kept.len());
        store.close();
        assert_eq!(
            values(&TestStore::on(&disk).streams.topic("t").unwrap().partition(0).unwrap()),
            kept
        );
    }
    assert_eq!(seen, BTreeSet::from([2, 3]), "there for good, and gone for good");
}

fn share_consumer(store: &TestStore) -> ShareConsumer {
    let group = ShareGroupConfig::new().start_at(StartAt::Earliest);
    let config = ShareConsumerConfig::new().group(group).explicit(true);
    let mut consumer = store.streams.share_consumer("g", config).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    consumer
}

/// Takes what there is, and accepts it.
fn work(consumer: &mut ShareConsumer) -> Vec<String> {
    let records = consumer.poll(Duration::ZERO).unwrap();
    for receipt in records.receipts() {
        consumer.acknowledge(receipt, Acknowledge::Accept).unwrap();
    }
    consumer.commit().unwrap();
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    records.iter().map(|record| text(record.record.value)).collect()
}

#[test]
fn a_share_group_goes_on_in_a_partition_that_was_poisoned() {
    for way in WAYS {
        let disk = SimDisk::new(1);
        let (store, topic) = store_with_a(&disk);
        let partition = topic.partition(0).unwrap();
        let mut consumer = share_consumer(&store);
        assert_eq!(work(&mut consumer), ["a"]);
        poison(&disk, &partition, way);
        assert_eq!(work(&mut consumer), [""; 0]);
        pass(&store);
        partition.append(&Record::value(b"later")).unwrap();
        let mut worked = work(&mut consumer);
        worked.extend(work(&mut consumer));
        assert_eq!(worked, values(&partition)[1..]);
    }
}

/// The journal is in the way of everything, so all of the store is opened anew; what is still held of the old one was in the
/// way of that.
#[test]
fn a_store_whose_journal_is_poisoned_is_opened_again_by_the_same_process() {
    for way in WAYS {
        let disk = SimDisk::new(1);
        let (store, topic) = store_with_a(&disk);
        let mut consumer = store.subscriber("g", "t");
        assert_eq!(drain(&mut consumer), ["a"]);
        disk.fail_next(Op::Sync, way);
        let failed = consumer.commit().unwrap_err();
        assert!(matches!(failed, Error::Storage(StorageError::OutcomeUnknown { .. })), "{failed}");
        assert_eq!(disk.faults_fired(), 1);
        let partition = topic.partition(0).unwrap();
        let TestStore { streams, journal, dir, .. } = store;
        let _ = streams.close();
        let closed = journal.close().unwrap_err();
        assert!(matches!(closed, StorageError::Poisoned { .. }), "{closed}");
        dir.close();

        let again = TestStore::on(&disk);
        assert!(partition.append(&Record::value(b"late")).is_err());
        let partition = again.streams.topic("t").unwrap().partition(0).unwrap();
        partition.append(&Record::value(b"b")).unwrap();
        let mut consumer = again.subscriber("g", "t");
        let read = drain(&mut consumer);
        assert!(read == ["a", "b"] || read == ["b"], "{read:?}");
        consumer.commit().unwrap();
    }
}
