//! Share groups: many consumers on one partition, a lease and an acknowledgement for each record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logmill_storage::io::sim::{Fault, Op, SimDisk};
use logmill_storage::{AppendOptions, Durability, LogConfig, Part, Record, Visibility};
use logmill_stream::{
    Acknowledge, Error, ResetTo, ShareConsumer, ShareConsumerConfig, ShareGroupConfig,
    ShareRecords, StartAt, TopicConfig,
};

use crate::support::{TestStore, all_values, append, drain};

fn early() -> ShareGroupConfig {
    ShareGroupConfig::new().start_at(StartAt::Earliest)
}

fn consumer_with(store: &TestStore, group: ShareGroupConfig) -> ShareConsumer {
    let config = ShareConsumerConfig::new().group(group).explicit(true).records_max(10);
    let mut consumer = store.streams.share_consumer("g", config).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    consumer
}

fn consumer(store: &TestStore) -> ShareConsumer {
    consumer_with(store, early())
}

fn poll(consumer: &mut ShareConsumer) -> ShareRecords {
    consumer.poll(Duration::ZERO).unwrap()
}

fn texts(records: &ShareRecords) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.record.value.unwrap().to_vec()).unwrap()).collect()
}

fn say(consumer: &mut ShareConsumer, records: &ShareRecords, how: Acknowledge) {
    for receipt in records.receipts() {
        consumer.acknowledge(receipt, how).unwrap();
    }
    consumer.commit().unwrap();
}

fn store_with(values: &[&str]) -> (tempfile::TempDir, TestStore) {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, values);
    (place, store)
}

#[test]
fn consumers_share_the_records_of_one_partition_and_each_has_one_holder() {
    let (_place, store) = store_with(&["a", "b", "c", "d"]);
    let config = ShareConsumerConfig::new().group(early()).explicit(true).records_max(2);
    let mut consumers: Vec<_> = (0..3)
        .map(|_| {
            let mut consumer = store.streams.share_consumer("g", config.clone()).unwrap();
            consumer.subscribe(&["t"]).unwrap();
            consumer
        })
        .collect();
    let got: Vec<_> = consumers.iter_mut().map(|consumer| texts(&poll(consumer))).collect();
    assert_eq!(got, [vec!["a", "b"], vec!["c", "d"], vec![]]);
    assert_eq!(store.streams.describe_group("g").unwrap().partitions[0].in_flight, 4);
}

#[test]
fn accepted_records_do_not_come_again_and_released_ones_do_at_once() {
    let (_place, store) = store_with(&["a", "b", "c"]);
    let mut one = consumer(&store);
    let mut two = consumer(&store);
    let records = poll(&mut one);
    assert_eq!(records.iter().map(|r| r.delivery_count).collect::<Vec<_>>(), [1, 1, 1]);
    let receipts: Vec<_> = records.receipts().collect();
    one.acknowledge(receipts[0], Acknowledge::Accept).unwrap();
    one.acknowledge(receipts[1], Acknowledge::Release).unwrap();
    one.commit().unwrap();
    let again = poll(&mut two);
    assert_eq!((texts(&again), again.iter().next().unwrap().delivery_count), (vec!["b".into()], 2));
    say(&mut two, &again, Acknowledge::Accept);
    one.acknowledge(receipts[2], Acknowledge::Accept).unwrap();
    one.commit().unwrap();
    assert!(poll(&mut two).is_empty());
    assert_eq!(store.streams.describe_group("g").unwrap().lag(), 0);
}

#[test]
fn without_explicit_acknowledgement_the_next_poll_accepts() {
    let (_place, store) = store_with(&["a", "b", "c"]);
    let config = ShareConsumerConfig::new().group(early()).records_max(1);
    let mut consumer = store.streams.share_consumer("g", config).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&poll(&mut consumer)), ["a"]);
    let second = poll(&mut consumer);
    consumer.acknowledge(second.receipts().next().unwrap(), Acknowledge::Release).unwrap();
    assert_eq!(texts(&poll(&mut consumer)), ["b"], "what was said counts");
    consumer.commit().unwrap();
    assert_eq!(texts(&poll(&mut consumer)), ["c"]);
    drop(consumer);
    let mut consumer = self::consumer(&store);
    assert_eq!(texts(&poll(&mut consumer)), ["c"], "dropped without a word, it comes back at once");
}

#[test]
fn a_lease_that_runs_out_gives_the_record_to_others_and_a_late_word_changes_nothing() {
    let (_place, store) = store_with(&["a"]);
    let group = early().lease(Duration::from_secs(30));
    let mut slow = consumer_with(&store, group.clone());
    let mut other = consumer_with(&store, group);
    let held = poll(&mut slow);
    assert!(poll(&mut other).is_empty());
    store.clock.advance(Duration::from_secs(20));
    slow.acknowledge(held.receipts().next().unwrap(), Acknowledge::Renew).unwrap();
    store.clock.advance(Duration::from_secs(20));
    assert!(poll(&mut other).is_empty(), "a renewed lease holds");
    store.clock.advance(Duration::from_secs(11));
    let again = poll(&mut other);
    assert_eq!(again.iter().next().unwrap().delivery_count, 2);
    for how in [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject] {
        slow.acknowledge(held.receipts().next().unwrap(), how).unwrap();
        let late = slow.commit().unwrap_err();
        assert!(matches!(&late, Error::LeaseLost { records } if records.len() == 1), "{late}");
    }
    let late = slow.acknowledge(held.receipts().next().unwrap(), Acknowledge::Renew).unwrap_err();
    assert!(matches!(late, Error::LeaseLost { .. }));
    say(&mut other, &again, Acknowledge::Accept);
}

#[test]
fn acknowledgements_with_any_number_of_holes_survive_crash_and_restart() {
    let values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let texts_of: Vec<&str> = values.iter().map(String::as_str).collect();
    let (place, store) = store_with(&texts_of);
    let config = ShareConsumerConfig::new().group(early()).explicit(true).records_max(1_000);
    let mut consumer = store.streams.share_consumer("g", config.clone()).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    let records = poll(&mut consumer);
    for record in records.iter().filter(|r| r.record.offset % 3 == 1) {
        consumer.acknowledge(record.receipt(), Acknowledge::Accept).unwrap();
    }
    consumer.commit().unwrap();
    drop((records, consumer, store));

    let mut store = TestStore::open(place.path());
    for close in [true, false] {
        let mut consumer = store.streams.share_consumer("g", config.clone()).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let records = poll(&mut consumer);
        let offsets: Vec<u64> = records.iter().map(|r| r.record.offset).collect();
        assert_eq!(offsets, (0..500).filter(|offset| offset % 3 != 1).collect::<Vec<_>>());
        let expected = if close { 2 } else { 3 };
        assert!(
            records.iter().all(|r| r.delivery_count == expected),
            "deliveries are counted across crashes"
        );
        drop((records, consumer));
        if close {
            store.close();
            store = TestStore::open(place.path());
        }
    }
}

#[test]
fn a_record_delivered_too_often_or_rejected_goes_to_the_dead_letter_topic_once() {
    let (place, store) = store_with(&["poison", "good", "bad"]);
    let dead = store.topic("dead", 1);
    let group = early().deliveries_max(Some(2)).dead_letter_topic(Some("dead"));
    let mut consumer = consumer_with(&store, group);
    let first = poll(&mut consumer);
    let receipts: Vec<_> = first.receipts().collect();
    consumer.acknowledge(receipts[0], Acknowledge::Release).unwrap();
    consumer.acknowledge(receipts[1], Acknowledge::Accept).unwrap();
    consumer.acknowledge(receipts[2], Acknowledge::Reject).unwrap();
    consumer.commit().unwrap();
    dead.partition(0).unwrap().sync().unwrap();
    assert_eq!(all_values(&dead), ["bad"]);
    let second = poll(&mut consumer);
    assert_eq!(texts(&second), ["poison"]);
    say(&mut consumer, &second, Acknowledge::Release);
    assert!(poll(&mut consumer).is_empty());
    dead.partition(0).unwrap().sync().unwrap();
    assert_eq!(all_values(&dead), ["bad", "poison"]);
    let copy = dead.partition(0).unwrap().get(1).unwrap().unwrap();
    let headers: BTreeMap<&str, &str> = copy
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        headers,
        BTreeMap::from([
            ("logmill.dead.group", "g"),
            ("logmill.dead.topic", "t"),
            ("logmill.dead.partition", "0"),
            ("logmill.dead.offset", "0"),
            ("logmill.dead.deliveries", "2"),
            ("logmill.dead.reason", "delivery count limit"),
        ])
    );
    drop((consumer, dead));
    drop(store);
    let store = TestStore::open(place.path());
    let mut consumer = consumer_with(&store, ShareGroupConfig::new());
    assert!(poll(&mut consumer).is_empty());
    assert_eq!(
        all_values(&store.streams.topic("dead").unwrap()),
        ["bad", "poison"],
        "a crash doubles nothing"
    );
}

/// A copy is larger than its record, by the headers that say why it is dead. One that was too large for the dead-letter topic
/// was refused at each try, for ever, and held up all that came after it.
#[test]
fn a_dead_record_goes_to_its_topic_however_large_it_is() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    for bytes in [1_024, 20 << 20] {
        let limit = TopicConfig::new().record_bytes_max(bytes);
        let topic = store.streams.create_topic("t", &limit).unwrap();
        let dead = store.streams.create_topic("dead", &limit).unwrap();
        let large = "l".repeat(usize::try_from(bytes).unwrap() - 74);
        append(&topic, 0, &[&large, "small"]);
        let mut consumer = consumer_with(&store, early().dead_letter_topic(Some("dead")));
        let records = poll(&mut consumer);
        say(&mut consumer, &records, Acknowledge::Reject);
        dead.partition(0).unwrap().sync().unwrap();
        assert!(all_values(&dead) == [&large, "small"], "of at most {bytes} bytes");
        drop(consumer);
        store.streams.delete_topic("t").unwrap();
        store.streams.delete_topic("dead").unwrap();
    }
}

/// All that died at once went in one batch of the journal, which takes 2 GiB: of larger records, nothing did.
#[test]
fn many_large_records_that_die_at_once_are_moved_in_several_batches() {
    let (_place, store) = store_with(&[]);
    let topic = store.streams.topic("t").unwrap();
    let dead = store.topic("dead", 1);
    let sent: Vec<String> = (0..9).map(|n| n.to_string().repeat(1 << 20)).collect();
    append(&topic, 0, &sent.iter().map(String::as_str).collect::<Vec<_>>());
    let mut consumer = consumer_with(&store, early().dead_letter_topic(Some("dead")));
    let records = poll(&mut consumer);
    let before = store.journal.reach().hot;
    say(&mut consumer, &records, Acknowledge::Reject);
    let mut batches = 0;
    let mut reader = store.journal.part(Part::Hot).reader_with(before, Visibility::Stored).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        let bytes: usize = batch.records().map(|r| r.unwrap().value.unwrap().len()).sum();
        assert!(bytes < 5 << 20, "{bytes} bytes");
        batches += 1;
    }
    assert!(batches >= 3, "{batches}");
    dead.partition(0).unwrap().sync().unwrap();
    assert!(all_values(&dead) == sent);
    assert_eq!(store.streams.describe_group("g").unwrap().lag(), 0);
}

#[test]
fn a_dead_record_that_no_entry_of_the_journal_can_carry_hides_no_other_and_ends_without_a_topic() {
    let (_place, store) = store_with(&["small"]);
    let topic = store.streams.topic("t").unwrap();
    let dead = store.topic("dead", 1);
    append(&topic, 0, &["large".repeat(1_200_000).as_str(), "good"]);
    // As if it were larger than 1 GiB.
    let small = LogConfig::default().record_bytes_max(5 << 20);
    store.journal.part(Part::Hot).set_config(&small).unwrap();
    let group = early().deliveries_max(Some(1)).dead_letter_topic(Some("dead"));
    let lease = Duration::from_secs(30);
    let mut consumer = consumer_with(&store, group.lease(lease));
    let records = poll(&mut consumer);
    let receipts: Vec<_> = records.receipts().collect();
    for receipt in &receipts[..2] {
        consumer.acknowledge(*receipt, Acknowledge::Reject).unwrap();
    }
    let is_large = |error: Error| match error {
        Error::DeadLetterTooLarge { partition, offset: 1, bytes: 6_000_000.., max: 0x50_0000 } => {
            partition == crate::support::named("t", 0)
        }
        other => panic!("{other}"),
    };
    assert!(is_large(consumer.commit().unwrap_err()));
    assert!(is_large(consumer.commit().unwrap_err()), "what is left to be said is said again");
    let moved = || {
        dead.partition(0).unwrap().sync().unwrap();
        all_values(&dead)
    };
    assert_eq!(moved(), ["small"], "once");

    store.clock.advance(2 * lease);
    append(&topic, 0, &["new"]);
    let mut other = consumer_with(&store, ShareGroupConfig::new());
    assert_eq!(texts(&poll(&mut other)), ["new"]);
    assert!(is_large(other.poll(Duration::ZERO).unwrap_err()));
    let mut last = consumer_with(&store, ShareGroupConfig::new().dead_letter_topic(None));
    assert!(poll(&mut last).is_empty());
    assert_eq!(moved(), ["small", "good"]);
    let partition = &store.streams.describe_group("g").unwrap().partitions[0];
    assert_eq!(partition.in_flight, 1, "only what the other has");
}

#[test]
fn a_lease_that_runs_out_too_often_is_dead_too_and_without_a_topic_it_is_passed_over() {
    let (_place, store) = store_with(&["a", "b"]);
    let group = early().deliveries_max(Some(2)).lease(Duration::from_secs(1));
    let mut consumer = consumer_with(&store, group);
    for _ in 0..2 {
        assert_eq!(texts(&poll(&mut consumer)), ["a", "b"]);
        store.clock.advance(Duration::from_secs(2));
    }
    assert!(poll(&mut consumer).is_empty());
    assert_eq!(store.streams.describe_group("g").unwrap().lag(), 0);
}

#[test]
fn key_ordered_groups_hand_out_one_record_of_a_key_at_a_time_and_all_keys_in_parallel() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let partition = store.topic("t", 1).partition(0).unwrap();
    for n in 0..1_000u32 {
        let (key, value) = (format!("key-{}", if n < 900 { 0 } else { n % 10 }), n.to_string());
        partition.append(&Record::value(value.as_bytes()).key(key.as_bytes())).unwrap();
    }
    let config =
        ShareConsumerConfig::new().group(early().key_ordered(true)).explicit(true).records_max(100);
    let mut consumers: Vec<_> = (0..3)
        .map(|_| {
            let mut consumer = store.streams.share_consumer("g", config.clone()).unwrap();
            consumer.subscribe(&["t"]).unwrap();
            consumer
        })
        .collect();
    let first = poll(&mut consumers[0]);
    let keys: BTreeSet<_> = first.iter().map(|r| r.record.key.unwrap().to_vec()).collect();
    assert_eq!((first.len(), keys.len()), (10, 10), "900 records of one key hide no other");
    assert!(poll(&mut consumers[1]).is_empty());
    say(&mut consumers[0], &first, Acknowledge::Accept);
    let mut last: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut note = |records: &ShareRecords| {
        for record in records.iter() {
            let n: u32 =
                std::str::from_utf8(record.record.value.unwrap()).unwrap().parse().unwrap();
            assert!(
                last.insert(record.record.key.unwrap().to_vec(), n).is_none_or(|before| before < n)
            );
        }
    };
    note(&first);
    let mut seen = first.len();
    for turn in 0.. {
        let consumer = &mut consumers[turn % 3];
        let records = poll(consumer);
        if records.is_empty() {
            break;
        }
        note(&records);
        seen += records.len();
        say(consumer, &records, Acknowledge::Accept);
    }
    assert_eq!(seen, 1_000);
}

#[test]
fn no_more_records_are_out_than_permitted() {
    let (_place, store) = store_with(&["a", "b", "c", "d"]);
    let mut consumer = consumer_with(&store, early().in_flight_max(2));
    let first = poll(&mut consumer);
    assert_eq!(texts(&first), ["a", "b"]);
    assert!(poll(&mut consumer).is_empty());
    consumer.acknowledge(first.receipts().nth(1).unwrap(), Acknowledge::Accept).unwrap();
    consumer.commit().unwrap();
    assert_eq!(texts(&poll(&mut consumer)), ["c"]);
}

#[test]
fn share_groups_and_ordinary_groups_read_a_topic_independently() {
    let (_place, store) = store_with(&["a", "b"]);
    let mut share = consumer(&store);
    let records = poll(&mut share);
    say(&mut share, &records, Acknowledge::Accept);
    let other = ShareConsumerConfig::new().group(early());
    let mut other = store.streams.share_consumer("other", other).unwrap();
    other.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&poll(&mut other)), ["a", "b"]);
    assert_eq!(drain(&mut store.subscriber("ordinary", "t")), ["a", "b"]);
    assert!(matches!(
        store.streams.consumer("g", Default::default()),
        Err(Error::GroupKind { .. })
    ));
    assert!(matches!(
        store.streams.share_consumer("ordinary", Default::default()),
        Err(Error::GroupKind { .. })
    ));
}

#[test]
fn a_share_group_without_consumers_can_be_replayed() {
    let (_place, store) = store_with(&["a", "b", "c"]);
    let mut consumer = self::consumer(&store);
    let records = poll(&mut consumer);
    say(&mut consumer, &records, Acknowledge::Accept);
    assert!(matches!(
        store.streams.reset_group("g", "t", ResetTo::Earliest),
        Err(Error::GroupActive { .. })
    ));
    drop(consumer);
    store.streams.reset_group("g", "t", ResetTo::Offset(1)).unwrap();
    assert_eq!(texts(&poll(&mut self::consumer(&store))), ["b", "c"]);
    store.streams.delete_group("g").unwrap();
    assert_eq!(texts(&poll(&mut self::consumer(&store))), ["a", "b", "c"]);
}

#[test]
fn a_new_share_group_begins_after_the_last_record_unless_told_otherwise() {
    let (_place, store) = store_with(&["a"]);
    let mut consumer = consumer_with(&store, ShareGroupConfig::new());
    assert!(poll(&mut consumer).is_empty());
    append(&store.streams.topic("t").unwrap(), 0, &["b"]);
    assert_eq!(texts(&poll(&mut consumer)), ["b"]);
}

#[test]
fn what_retention_removes_is_no_longer_handed_out() {
    let (_place, store) = store_with(&["a", "b", "c"]);
    let mut consumer = consumer_with(&store, early().in_flight_max(1));
    let held = poll(&mut consumer);
    store.streams.topic("t").unwrap().partition(0).unwrap().delete_records_before(2).unwrap();
    assert_eq!(texts(&poll(&mut consumer)), ["c"], "and what was held no longer counts");
    consumer.acknowledge(held.receipts().next().unwrap(), Acknowledge::Accept).unwrap();
    assert!(matches!(consumer.commit(), Err(Error::LeaseLost { .. })));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn a_waiting_share_consumer_is_woken_by_an_append_and_by_a_release() {
    let place = tempfile::tempdir().unwrap();
    let dir = logmill_storage::DataDir::open(place.path()).unwrap();
    let journal =
        logmill_storage::Journal::open(&dir, "0", logmill_storage::LogConfig::default()).unwrap();
    let streams = logmill_stream::Streams::open(&dir, &journal, &Default::default()).unwrap();
    let topic = streams.create_topic("t", &Default::default()).unwrap();
    let config = ShareConsumerConfig::new().group(early()).explicit(true);
    let mut one = streams.share_consumer("g", config.clone()).unwrap();
    let mut two = streams.share_consumer("g", config).unwrap();
    one.subscribe(&["t"]).unwrap();
    two.subscribe(&["t"]).unwrap();
    assert!(two.poll(Duration::ZERO).unwrap().is_empty());
    let poll_long = |consumer: &mut ShareConsumer, then: &mut dyn FnMut()| {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| consumer.poll(Duration::from_secs(600)).unwrap());
            then();
            waiting.join().unwrap()
        })
    };
    let held = poll_long(&mut one, &mut || append(&topic, 0, &["a"]));
    assert_eq!(texts(&held), ["a"]);
    let again = poll_long(&mut two, &mut || {
        for receipt in held.receipts() {
            one.acknowledge(receipt, Acknowledge::Release).unwrap();
        }
        one.commit().unwrap();
    });
    assert_eq!(texts(&again), ["a"]);
}

#[test]
fn a_move_to_the_dead_letter_topic_that_a_crash_cut_short_is_finished_at_the_next_open_and_only_once()
 {
    use std::sync::atomic::{AtomicBool, Ordering};

    use logmill_storage::{
        DataDir, Error as StorageError, Intent, Intents, Journal, Log, LogConfig,
    };

    let (place, store) = store_with(&["a"]);
    let dead = store.topic("dead", 1);
    assert_eq!(dead.id(), 2);
    drop(dead);
    store.close();

    // The journal's batch is written, and the process dies before the append.
    let dir = DataDir::open(place.path()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let log = Log::open(&dir, "2/0", LogConfig::default()).unwrap();
    let is_dead = AtomicBool::new(false);
    let intents = Intents::new(journal.clone(), |_: &str| {
        if is_dead.swap(true, Ordering::SeqCst) {
            Err(StorageError::Closed { path: "2/0".into() })
        } else {
            Ok(Some(log.clone()))
        }
    });
    let intent = Intent { log: "2/0", record: Record::value(b"a") };
    intents.commit(&[], &[intent], &Default::default()).unwrap();
    assert_eq!(intents.pending(), 1, "the crash was meant to come before the append");
    assert_eq!(log.end_offset(), 0);
    drop(intents);
    drop((journal, log, dir));

    for _ in 0..3 {
        let store = TestStore::open(place.path());
        let dead = store.streams.topic("dead").unwrap();
        dead.partition(0).unwrap().sync().unwrap();
        assert_eq!(all_values(&dead), ["a"]);
    }
}

/// A receipt can be copied. Said twice in one commit, it made a journal entry that nothing can read back.
#[test]
fn a_receipt_that_is_acknowledged_twice_counts_once() {
    let (place, store) = store_with(&["a", "b"]);
    let mut one = consumer(&store);
    let receipts: Vec<_> = poll(&mut one).receipts().collect();
    one.acknowledge(receipts[0], Acknowledge::Accept).unwrap();
    one.acknowledge(receipts[0], Acknowledge::Accept).unwrap();
    let late = one.commit().unwrap_err();
    assert!(matches!(&late, Error::LeaseLost { records } if records.len() == 1), "{late}");
    drop((one, store));
    let store = TestStore::open(place.path());
    assert_eq!(texts(&poll(&mut consumer(&store))), ["b"]);
}

#[test]
fn beyond_a_million_records_that_wait_for_one_of_their_key_nothing_is_looked_at_until_fewer_wait() {
    const WAITING: usize = 1_000_000;
    let (_place, store) = store_with(&[]);
    let partition = store.streams.topic("t").unwrap().partition(0).unwrap();
    let options = logmill_storage::AppendOptions {
        durability: Some(logmill_storage::Durability::Buffered),
        ..Default::default()
    };
    let stuck = [Record::value(b"").key(b"stuck"); 1_000];
    for _ in 0..WAITING / stuck.len() {
        partition.append_with(&stuck, &options).unwrap();
    }
    // One is out, so this is the millionth that waits; and this the first that is too far away.
    partition.append_with(&stuck[..1], &options).unwrap();
    partition.append_with(&[Record::value(b"").key(b"free")], &options).unwrap();
    partition.sync().unwrap();
    let mut consumer = consumer_with(&store, early().key_ordered(true));
    let offsets = |records: &ShareRecords| -> Vec<u64> {
        records.iter().map(|record| record.record.offset).collect()
    };
    let held = poll(&mut consumer);
    assert_eq!(offsets(&held), [0]);
    assert!(poll(&mut consumer).is_empty());
    say(&mut consumer, &held, Acknowledge::Accept);
    assert_eq!(offsets(&poll(&mut consumer)), [1, WAITING as u64 + 1]);
}

/// Retention took the record that was leased, and the next one of its key was handed out beside it.
#[test]
fn two_records_of_one_key_are_not_in_work_at_once_though_retention_took_the_first() {
    for ends in ["accepted", "released", "rejected", "run out", "gone"] {
        let (_place, store) = store_with(&[]);
        let partition = store.streams.topic("t").unwrap().partition(0).unwrap();
        for value in [b"1", b"2", b"3"] {
            partition.append(&Record::value(value).key(b"k")).unwrap();
        }
        let group = || early().key_ordered(true).deliveries_max(Some(1));
        let (mut one, mut two) = (consumer_with(&store, group()), consumer_with(&store, group()));
        let held = poll(&mut one);
        assert_eq!(texts(&held), ["1"]);
        partition.delete_records_before(2).unwrap();
        assert!(poll(&mut two).is_empty(), "the first record of the key is still worked on");
        match ends {
            "accepted" => say(&mut one, &held, Acknowledge::Accept),
            "released" => say(&mut one, &held, Acknowledge::Release),
            "rejected" => say(&mut one, &held, Acknowledge::Reject),
            "run out" => store.clock.advance(Duration::from_secs(31)),
            _ => drop(one),
        }
        assert_eq!(texts(&poll(&mut two)), ["3"], "{ends}");
        assert_eq!(store.streams.describe_group("g").unwrap().partitions[0].in_flight, 1);
    }
}

/// Whoever joined with another order changed it under the hands of the others: records that had been looked at without regard
/// to their keys went out together.
#[test]
fn a_group_with_members_does_not_become_key_ordered_and_one_without_does_from_its_first_record_on()
{
    let (_place, store) = store_with(&[]);
    let partition = store.streams.topic("t").unwrap().partition(0).unwrap();
    for value in [b"1", b"2", b"3"] {
        partition.append(&Record::value(value).key(b"k")).unwrap();
    }
    let ordered = |ordered| ShareConsumerConfig::new().group(early().key_ordered(ordered));
    let mut plain = consumer(&store);
    assert_eq!(texts(&poll(&mut plain)), ["1", "2", "3"]);
    let refused = store.streams.share_consumer("g", ordered(true)).unwrap_err();
    assert!(matches!(refused, Error::GroupActive { members: 1, .. }), "{refused}");
    store.streams.share_consumer("g", ordered(false)).unwrap();
    drop(plain);

    let mut first = consumer_with(&store, early().key_ordered(true));
    assert_eq!(texts(&poll(&mut first)), ["1"]);
    let refused = store.streams.share_consumer("g", ordered(false)).unwrap_err();
    assert!(matches!(refused, Error::GroupActive { members: 1, .. }), "{refused}");
    let mut second = consumer(&store);
    assert!(poll(&mut second).is_empty(), "who says nothing of the order takes the group as it is");
}

/// A sync failed under two records that were lent; the partition was opened anew without them, and others took their offsets.
/// What was said of the lent ones was done to those others, which nobody had seen.
#[test]
fn what_is_said_of_a_record_that_a_failed_sync_took_is_not_done_to_the_one_in_its_place() {
    for says in ["accepted", "rejected", "run out", "gone"] {
        let disk = SimDisk::new(1);
        let store = TestStore::on(&disk);
        let topic = store
            .streams
            .create_topic("t", &TopicConfig::new().durability(Durability::Buffered))
            .unwrap();
        let dead = store.topic("dead", 1);
        let partition = topic.partition(0).unwrap();
        append(&topic, 0, &["kept"]);
        partition.sync().unwrap();
        append(&topic, 0, &["lost"]);
        let group = early().deliveries_max(Some(1)).dead_letter_topic(Some("dead"));
        let mut one = consumer_with(&store, group.clone());
        let held = poll(&mut one);
        assert_eq!(texts(&held), ["kept", "lost"]);
        let lost = held.receipts().nth(1).unwrap();
        one.acknowledge(held.receipts().next().unwrap(), Acknowledge::Accept).unwrap();
        one.commit().unwrap();

        disk.fail_next(Op::Sync, Fault::SyncEioRevert);
        partition.sync().unwrap_err();
        assert_eq!(disk.faults_fired(), 1);
        for _ in 0..11 {
            store.clock.advance(Duration::from_secs(1));
            store.dir.tick();
        }
        assert_eq!(partition.append(&Record::value(b"never delivered")).unwrap(), 1);

        let mut two = consumer_with(&store, group.lease(Duration::from_secs(60)));
        match says {
            "accepted" | "rejected" => {
                let how = match says {
                    "accepted" => Acknowledge::Accept,
                    _ => Acknowledge::Reject,
                };
                one.acknowledge(lost, how).unwrap();
                let late = one.commit().unwrap_err();
                assert!(matches!(&late, Error::LeaseLost { records } if records.len() == 1));
            }
            "run out" => store.clock.advance(Duration::from_secs(61)),
            _ => drop(one),
        }
        assert_eq!(texts(&poll(&mut two)), ["never delivered"], "{says}");
        dead.partition(0).unwrap().sync().unwrap();
        assert_eq!(all_values(&dead), [""; 0], "{says}");
    }
}

/// A poll takes at most 65,536 records of a partition. One that had wanted more counted the partition as read to its end, and
/// the rest was handed out after the next append.
#[test]
fn a_poll_that_takes_as_many_of_a_partition_as_one_may_leaves_the_rest_to_the_next() {
    const TAKEN: usize = 1 << 16;
    let (_place, store) = store_with(&[]);
    let partition = store.streams.topic("t").unwrap().partition(0).unwrap();
    let options =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    for _ in 0..(TAKEN + 1_000) / 1_000 + 1 {
        partition.append_with(&[Record::value(b""); 1_000], &options).unwrap();
    }
    partition.sync().unwrap();
    let end = usize::try_from(partition.end_offset().unwrap()).unwrap();
    let group = early().in_flight_max(200_000);
    let config = ShareConsumerConfig::new().group(group).explicit(true).records_max(100_000);
    let mut consumer = store.streams.share_consumer("g", config).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer).len(), TAKEN);
    assert_eq!(poll(&mut consumer).len(), end - TAKEN);
    assert!(poll(&mut consumer).is_empty());
}

/// The consumer's first look made one in each of them, with its syncs.
#[test]
fn share_groups_make_no_logs_and_see_what_is_appended_after_they_came() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 8);
    for (name, start) in [("latest", StartAt::Latest), ("earliest", StartAt::Earliest)] {
        let config = ShareConsumerConfig::new().group(ShareGroupConfig::new().start_at(start));
        let mut consumer = store.streams.share_consumer(name, config).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        assert!(poll(&mut consumer).is_empty());
        consumer.close().unwrap();
    }
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1"]);
    append(&topic, 3, &["a"]);
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1", "1/3"]);
    drop(topic);
    store.close();
    // Also after a restart: where they began is known.
    let store = TestStore::open(place.path());
    for name in ["latest", "earliest"] {
        let config = ShareConsumerConfig::new().explicit(true);
        let mut consumer = store.streams.share_consumer(name, config).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let records = poll(&mut consumer);
        assert_eq!(texts(&records), ["a"], "{name}");
        say(&mut consumer, &records, Acknowledge::Accept);
        assert!(poll(&mut consumer).is_empty());
        assert_eq!(store.streams.describe_group(name).unwrap().lag(), 0);
    }
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1", "1/3"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends meanwhile")]
fn a_waiting_share_consumer_is_woken_by_the_first_record_of_a_partition() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    let mut waiting = consumer(&store);
    assert!(poll(&mut waiting).is_empty());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| waiting.poll(Duration::from_secs(3_600)).unwrap());
        append(&topic, 1, &["a"]);
        assert_eq!(texts(&waiter.join().unwrap()), ["a"]);
    });
    assert_eq!(store.dir.logs().unwrap(), ["0", "0/1", "1/1"]);
}
