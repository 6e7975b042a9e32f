//! Named producers after a failure: nothing is appended behind a sequence that was not delivered.

use std::collections::BTreeSet;
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, Fault, Op, SimDisk};
use logmill_storage::{Durability, Error as StorageError};
use logmill_stream::{
    Delivery, Error, Producer, ProducerConfig, ProducerRecord, RecordMetadata, Result, TopicConfig,
    partition_for_key,
};

use crate::support::{TestStore, all_values, values};

/// A named producer whose records make a batch each.
fn one_by_one(store: &TestStore) -> Producer {
    store.streams.producer(ProducerConfig::new().name("p").linger(Duration::ZERO)).unwrap()
}

/// A named producer whose batches are appended when they are waited for.
fn collecting(store: &TestStore) -> Producer {
    store.streams.producer(ProducerConfig::new().name("p")).unwrap()
}

fn send(producer: &Producer, sequence: u64) -> Result<Delivery> {
    let value = sequence.to_string();
    producer.send(&ProducerRecord::new("t", value.as_bytes()).sequence(sequence))
}

fn deliver(producer: &Producer, sequence: u64) -> Result<RecordMetadata> {
    send(producer, sequence)?.wait()
}

/// Why a record was not delivered.
fn cause(result: Result<RecordMetadata>) -> std::sync::Arc<Error> {
    match result {
        Err(Error::NotDelivered { cause, .. }) => cause,
        other => panic!("was meant to fail: {other:?}"),
    }
}

#[track_caller]
fn assert_full(result: Result<RecordMetadata>) {
    let cause = cause(result);
    assert!(matches!(&*cause, Error::Storage(StorageError::DiskFull { .. })), "{cause}");
}

#[track_caller]
fn assert_behind<T: std::fmt::Debug>(result: Result<T>, first: u64, refused: Option<u64>) {
    let refusal = result.unwrap_err();
    let Error::BehindUndelivered { partition, undelivered, sequence } = &refusal else {
        panic!("{refusal}")
    };
    assert_eq!((&*partition.topic, partition.partition), ("t", 0));
    assert_eq!((*undelivered, *sequence), (first, refused));
}

/// What happens while the next write finds no space.
fn without_space<T>(disk: &SimDisk, act: impl FnOnce() -> T) -> T {
    let before = disk.faults_fired();
    disk.fail_next(Op::Write, Fault::Enospc);
    let result = act();
    assert_eq!(disk.faults_fired(), before + 1, "the disk was meant to be full");
    result
}

/// A record whose batch found no space was reported as not delivered. The next one, of a higher sequence, was appended;
/// sent again, the first counted as a duplicate, was confirmed, and was nowhere.
#[test]
fn what_is_newer_than_an_undelivered_record_is_refused_until_that_is_delivered() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let producer = one_by_one(&store);
    deliver(&producer, 1).unwrap();
    assert_full(without_space(&disk, || deliver(&producer, 2)));
    assert_behind(send(&producer, 3), 2, Some(3));
    assert_behind(producer.send(&ProducerRecord::new("t", b"unnumbered")), 2, None);
    assert!(deliver(&producer, 1).unwrap().duplicate);
    assert!(!deliver(&producer, 2).unwrap().duplicate);
    // The one that was refused is next, and not the one after it.
    assert_behind(send(&producer, 4), 3, Some(4));
    for sequence in [3, 4, 5] {
        assert!(!deliver(&producer, sequence).unwrap().duplicate);
    }
    producer.send(&ProducerRecord::new("t", b"unnumbered")).unwrap().wait().unwrap();
    assert_eq!(all_values(&topic), ["1", "2", "3", "4", "5", "unnumbered"]);
}

#[test]
fn a_batch_of_several_is_sent_again_one_by_one_and_in_order() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let producer = collecting(&store);
    let sent: Vec<_> = [10, 20, 30].map(|n| send(&producer, n).unwrap()).into_iter().collect();
    without_space(&disk, || sent.into_iter().for_each(|sent| assert_full(sent.wait())));
    assert_behind(send(&producer, 20), 10, Some(20));
    deliver(&producer, 10).unwrap();
    assert_behind(send(&producer, 30), 20, Some(30));
    let twenty = send(&producer, 20).unwrap();
    assert!(send(&producer, 20).unwrap().wait().unwrap().duplicate);
    let thirty = send(&producer, 30).unwrap();
    assert_eq!((twenty.wait().unwrap().offset, thirty.wait().unwrap().offset), (Some(1), Some(2)));
    deliver(&producer, 31).unwrap();
    assert_eq!(all_values(&topic), ["10", "20", "30", "31"]);
}

/// A smaller number that was never sent before is in order as long as the partition has no higher one.
#[test]
fn a_retry_may_begin_before_what_failed_but_not_behind_it() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let producer = one_by_one(&store);
    deliver(&producer, 1).unwrap();
    assert_full(without_space(&disk, || deliver(&producer, 5)));
    for sequence in [3, 4, 5, 6] {
        assert!(!deliver(&producer, sequence).unwrap().duplicate);
    }
    assert_eq!(all_values(&topic), ["1", "3", "4", "5", "6"]);
}

#[test]
fn records_that_were_collected_behind_a_batch_that_fails_fail_with_it() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let config = ProducerConfig::new().name("p").batch_bytes_max(1_000);
    let producer = store.streams.producer(config).unwrap();
    let large = ProducerRecord::new("t", &[b'x'; 1_000]).sequence(1);
    // Its batch is full and on its way; the next is being collected when it fails.
    let first = producer.send(&large).unwrap();
    let (second, third) = (send(&producer, 2).unwrap(), send(&producer, 3).unwrap());
    assert_full(without_space(&disk, || first.wait()));
    for refusal in [second, third].map(|sent| cause(sent.wait())) {
        assert!(
            matches!(&*refusal, Error::BehindUndelivered { undelivered: 1, sequence: Some(2), .. }),
            "{refusal}"
        );
    }
    assert_behind(send(&producer, 4), 1, Some(4));
    producer.send(&large).unwrap().wait().unwrap();
    for sequence in [2, 3, 4] {
        assert!(!deliver(&producer, sequence).unwrap().duplicate);
    }
    assert_eq!(all_values(&topic)[1..], ["2", "3", "4"]);
}

#[test]
fn a_record_without_a_sequence_that_was_collected_behind_a_batch_that_fails_fails_with_it() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let config = ProducerConfig::new().name("p").batch_bytes_max(1_000);
    let producer = store.streams.producer(config).unwrap();
    let large = ProducerRecord::new("t", &[b'x'; 1_000]).sequence(1);
    let first = producer.send(&large).unwrap();
    let unnumbered = producer.send(&ProducerRecord::new("t", b"unnumbered")).unwrap();
    assert_full(without_space(&disk, || first.wait()));
    let refusal = cause(unnumbered.wait());
    assert!(
        matches!(&*refusal, Error::BehindUndelivered { undelivered: 1, sequence: None, .. }),
        "{refusal}"
    );
    producer.send(&large).unwrap().wait().unwrap();
    assert_eq!(all_values(&topic).len(), 1);
}

/// As before, but the retry comes while the others are still being collected: it must not go behind them, nor they before it.
#[test]
fn a_retry_does_not_join_what_was_collected_behind_it() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let config = ProducerConfig::new().name("p").batch_bytes_max(1_000);
    let producer = store.streams.producer(config).unwrap();
    let large = ProducerRecord::new("t", &[b'x'; 1_000]).sequence(1);
    let first = producer.send(&large).unwrap();
    let second = send(&producer, 2).unwrap();
    assert_full(without_space(&disk, || first.wait()));
    assert!(!producer.send(&large).unwrap().wait().unwrap().duplicate);
    let refusal = cause(second.wait());
    assert!(matches!(&*refusal, Error::BehindUndelivered { undelivered: 1, .. }), "{refusal}");
    assert!(!deliver(&producer, 2).unwrap().duplicate);
    assert_eq!(all_values(&topic)[1..], ["2"]);
}

/// Nobody has looked at the delivery that failed: somebody else's sync met the full disk.
#[test]
fn a_failure_that_nobody_has_looked_at_counts() {
    for already_there in [0, 1] {
        let disk = SimDisk::new(1);
        let store = TestStore::on(&disk);
        let topic = store.topic("t", 1);
        let producer = one_by_one(&store);
        for n in 0..already_there {
            deliver(&producer, n).unwrap();
        }
        let mut on_their_way: Vec<_> = (1..10).map(|n| send(&producer, n).unwrap()).collect();
        without_space(&disk, || topic.partition(0).unwrap().sync().unwrap_err());
        let later = send(&producer, 10).and_then(Delivery::wait);
        assert!(later.is_err(), "{later:?}");
        on_their_way.drain(..).for_each(|sent| assert_full(sent.wait()));
        for n in 1..=10 {
            assert!(!deliver(&producer, n).unwrap().duplicate, "{n}");
        }
        let wanted: Vec<_> =
            (if already_there > 0 { 0 } else { 1 }..=10).map(|n| n.to_string()).collect();
        assert_eq!(all_values(&topic), wanted);
    }
}

/// More batches on their way than a log remembers of a producer: when they were taken back it had forgotten the producer
/// altogether, and what was there already was appended again.
#[test]
fn batches_that_are_taken_back_leave_what_the_log_knew_before_them() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let producer = one_by_one(&store);
    for n in 0..3 {
        deliver(&producer, n).unwrap();
    }
    let on_their_way: Vec<_> = (3..20).map(|n| send(&producer, n).unwrap()).collect();
    without_space(&disk, || topic.partition(0).unwrap().sync().unwrap_err());
    on_their_way.into_iter().for_each(|sent| assert_full(sent.wait()));
    assert_eq!(producer.last_sequence("t", 0).unwrap(), Some(2));
    for n in 0..20 {
        assert_eq!(deliver(&producer, n).unwrap().duplicate, n < 3, "{n}");
    }
    assert_eq!(all_values(&topic), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// A failed sync leaves the outcome open. Whoever opens the log anew knows, and goes by what it has.
#[test]
fn after_an_unknown_outcome_the_log_that_was_opened_anew_says_what_was_delivered() {
    for kept in [CrashPlan::everything(), CrashPlan::nothing()] {
        let disk = SimDisk::new(1);
        let store = TestStore::on(&disk);
        store.topic("t", 1);
        let producer = one_by_one(&store);
        deliver(&producer, 1).unwrap();
        let on_their_way = [2, 3].map(|n| send(&producer, n).unwrap());
        disk.fail_next(Op::Sync, Fault::Eio);
        for sent in on_their_way {
            let cause = cause(sent.wait());
            assert!(
                matches!(&*cause, Error::Storage(StorageError::OutcomeUnknown { .. })),
                "{cause}"
            );
        }
        assert_eq!(disk.faults_fired(), 1);
        assert!(send(&producer, 4).is_err());
        drop((producer, store));
        disk.crash(&kept);
        let store = TestStore::on(&disk);
        let producer = one_by_one(&store);
        let last = producer.last_sequence("t", 0).unwrap().unwrap();
        for n in 1..=4 {
            assert_eq!(deliver(&producer, n).unwrap().duplicate, n <= last, "{n} after {last}");
        }
        let topic = store.streams.topic("t").unwrap();
        assert_eq!(all_values(&topic), ["1", "2", "3", "4"]);
    }
}

/// A partition whose sync failed is opened anew once nobody uses it, while its producer lives on.
#[test]
fn a_producer_that_outlives_its_log_goes_by_what_the_new_one_has() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 1);
    let producer = one_by_one(&store);
    deliver(&producer, 1).unwrap();
    let sent = send(&producer, 2).unwrap();
    disk.fail_next(Op::Sync, Fault::Eio);
    let _ = cause(sent.wait());
    assert_eq!(disk.faults_fired(), 1);
    let refused = send(&producer, 3).unwrap_err();
    assert!(matches!(refused, Error::Storage(StorageError::Poisoned { .. })), "{refused}");
    for _ in 0..60 {
        store.clock.advance(Duration::from_secs(1));
        store.dir.tick();
    }
    let last = producer.last_sequence("t", 0).unwrap().unwrap();
    if last < 2 {
        assert_behind(send(&producer, 3), 2, Some(3));
    }
    for n in 2..=4 {
        assert_eq!(deliver(&producer, n).unwrap().duplicate, n <= last, "{n} after {last}");
    }
    assert_eq!(all_values(&topic), ["1", "2", "3", "4"]);
}

/// A duplicate was as safe as the last batch, also when that had failed: records that were there were reported as not
/// delivered until another batch began.
#[test]
fn a_duplicate_is_confirmed_though_a_later_batch_has_failed() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    store.topic("t", 1);
    let producer = one_by_one(&store);
    deliver(&producer, 1).unwrap();
    assert_full(without_space(&disk, || deliver(&producer, 2)));
    assert!(deliver(&producer, 1).unwrap().duplicate);
}

/// One record that no log takes makes its batch fail, and can never be delivered: it is given up, the rest goes on.
#[test]
fn what_can_never_be_delivered_is_given_up_by_its_sequence() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let config = TopicConfig::new().record_bytes_max(1_024);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let producer = collecting(&store);
    let large = ProducerRecord::new("t", &[0; 2_000]).sequence(2);
    let sent =
        [send(&producer, 1).unwrap(), producer.send(&large).unwrap(), send(&producer, 3).unwrap()];
    let causes = sent.map(|sent| cause(sent.wait()));
    assert!(
        causes.iter().all(|cause| matches!(
            &**cause,
            Error::Storage(StorageError::RecordTooLarge { max: 1_024, .. })
        )),
        "{causes:?}"
    );
    deliver(&producer, 1).unwrap();
    let _ = cause(producer.send(&large).unwrap().wait());
    assert_behind(send(&producer, 3), 2, Some(3));
    assert_eq!(producer.give_up("t", 0, 2).unwrap(), [2]);
    assert_behind(send(&producer, 4), 3, Some(4));
    deliver(&producer, 3).unwrap();
    assert_eq!(producer.give_up("t", 0, u64::MAX).unwrap(), [4]);
    deliver(&producer, 5).unwrap();
    assert_eq!(all_values(&topic), ["1", "3", "5"]);
    assert_eq!(producer.give_up("t", 0, u64::MAX).unwrap(), [0; 0]);
    assert!(matches!(producer.give_up("u", 0, 1), Err(Error::UnknownTopic { .. })));
}

/// The first record of a partition did not get as far as a batch, since there was no space for the partition's first files, or
/// to write down where the producer's records go.
#[test]
fn a_record_that_was_refused_for_want_of_space_counts_as_one_that_was_not_delivered() {
    for is_known in [false, true] {
        let disk = SimDisk::new(1);
        let store = TestStore::on(&disk);
        let topic = store.topic("t", 2);
        let producer = one_by_one(&store);
        if is_known {
            let elsewhere = ProducerRecord::new("t", b"0").partition(1).sequence(0);
            producer.send(&elsewhere).unwrap().wait().unwrap();
        }
        let to_first = |n: u64| {
            let value = n.to_string();
            producer.send(&ProducerRecord::new("t", value.as_bytes()).partition(0).sequence(n))
        };
        let refused = without_space(&disk, || to_first(1).unwrap_err());
        assert!(matches!(refused, Error::Storage(StorageError::DiskFull { .. })), "{refused}");
        assert_behind(to_first(2), 1, Some(2));
        for n in [1, 2] {
            assert!(!to_first(n).unwrap().wait().unwrap().duplicate);
        }
        assert_eq!(values(&topic.partition(0).unwrap()), ["1", "2"]);
    }
}

/// Where it is to go is not known before that is written down, and yet nothing goes before it.
#[test]
fn a_record_that_was_refused_since_its_way_could_not_be_written_down_holds_up_what_comes_behind_it()
{
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 2);
    let producer = one_by_one(&store);
    let mut next = 0;
    // At the first record, and at the first after each time that partitions were added, also while it could not be written.
    for (partitions, then) in [(2, None), (3, Some(4)), (6, None), (7, Some(9))] {
        if partitions > topic.partition_count() {
            topic.add_partitions(partitions).unwrap();
        }
        let refused = without_space(&disk, || send(&producer, next).unwrap_err());
        assert!(matches!(refused, Error::Storage(StorageError::DiskFull { .. })), "{refused}");
        if let Some(more) = then {
            topic.add_partitions(more).unwrap();
        }
        // These are of one run of numbers, and so of one partition, unless the second goes by more partitions.
        match send(&producer, next + 1).and_then(Delivery::wait) {
            Err(Error::BehindUndelivered { undelivered, .. }) => assert_eq!(undelivered, next),
            Ok(sent) => assert!(partitions > 2 && !sent.duplicate, "{next}: {sent:?}"),
            Err(other) => panic!("{other}"),
        }
        assert!(!deliver(&producer, next).unwrap().duplicate, "{next}");
        for n in next + 1..next + 64 {
            deliver(&producer, n).unwrap();
        }
        next += 64;
    }
    for n in 0..next {
        assert!(deliver(&producer, n).unwrap().duplicate);
    }
    let mut all: Vec<u64> = all_values(&topic).iter().map(|n| n.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..next).collect::<Vec<_>>());
}

#[test]
fn a_partition_that_failed_holds_up_no_other() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 2);
    let producer = one_by_one(&store);
    let to = |partition, sequence| {
        let record = ProducerRecord::new("t", b"x").partition(partition).sequence(sequence);
        producer.send(&record).and_then(Delivery::wait)
    };
    to(0, 0).unwrap();
    to(1, 1).unwrap();
    assert_full(without_space(&disk, || to(0, 2)));
    to(1, 3).unwrap();
    assert!(matches!(to(0, 4), Err(Error::BehindUndelivered { undelivered: 2, .. })));
    to(0, 2).unwrap();
    to(0, 4).unwrap();
    assert_eq!(all_values(&topic).len(), 5);
}

#[test]
fn who_sends_on_in_spite_of_being_refused_costs_a_bounded_memory() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    store.topic("t", 1);
    let producer = one_by_one(&store);
    assert!(without_space(&disk, || deliver(&producer, 0)).is_err());
    for n in 1..70_000 {
        assert_behind(send(&producer, n), 0, Some(n));
    }
    let known = producer.give_up("t", 0, u64::MAX).unwrap();
    assert_eq!((known[0], known.len()), (0, 65_536));
}

/// A small generator, so that a run is its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// A careless producer: it sends ahead whatever failed, looks at its deliveries late and in any order, and sends what failed
/// again when it comes to it. Whatever it does, what it was told holds, and in the end everything is there once and in order.
#[test]
fn whatever_a_careless_producer_does_nothing_is_lost_doubled_or_out_of_order() {
    let (mut refusals, mut faults) = (0, 0);
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let disk = SimDisk::new(seed);
        let store = TestStore::on(&disk);
        let topic = store.topic("t", 1);
        let durability = [Durability::Sync, Durability::Buffered][dice.below(2) as usize];
        let linger = Duration::from_millis(dice.below(2) * 5);
        let config = ProducerConfig::new()
            .name("p")
            .linger(linger)
            .batch_bytes_max(1 + dice.below(30) as usize)
            .durability(durability);
        let mut producer = store.streams.producer(config.clone()).unwrap();
        let mut delivered = BTreeSet::new();
        let mut on_their_way = Vec::new();
        let mut next = 0;
        let mut again = BTreeSet::new();
        for _ in 0..60 {
            match dice.below(12) {
                0..=4 => {
                    match send(&producer, next) {
                        Ok(sent) => on_their_way.push((next, sent)),
                        Err(refused) => {
                            refusals +=
                                u32::from(matches!(refused, Error::BehindUndelivered { .. }));
                            again.insert(next);
                        }
                    }
                    next += 1;
                }
                5 | 6 if !again.is_empty() => {
                    // Mostly the first, sometimes any.
                    let skip = if dice.below(4) == 0 { dice.below(again.len() as u64) } else { 0 };
                    let sequence = *again.iter().nth(skip as usize).unwrap();
                    match send(&producer, sequence) {
                        Ok(sent) => {
                            again.remove(&sequence);
                            on_their_way.push((sequence, sent));
                        }
                        Err(Error::BehindUndelivered { .. }) => refusals += 1,
                        Err(other) => assert!(
                            matches!(other, Error::Storage(StorageError::DiskFull { .. })),
                            "seed {seed}: {other}"
                        ),
                    }
                }
                7 | 8 if !on_their_way.is_empty() => {
                    let index = dice.below(on_their_way.len() as u64) as usize;
                    let (sequence, sent) = on_their_way.swap_remove(index);
                    match sent.wait() {
                        Ok(_) => drop(delivered.insert(sequence)),
                        Err(_) => drop(again.insert(sequence)),
                    }
                }
                9 => {
                    disk.fail_next([Op::Write, Op::Reserve][dice.below(2) as usize], Fault::Enospc)
                }
                10 if dice.below(3) == 0 => drop(topic.partition(0).unwrap().sync()),
                10 => {
                    store.clock.advance(Duration::from_millis(10));
                    store.dir.tick();
                }
                11 if dice.below(10) == 0 => {
                    // Its successor knows nothing of what was not delivered: it goes by the log, and begins at a point
                    // that was certainly sent.
                    for (sequence, sent) in on_their_way.drain(..) {
                        if sent.wait().is_err() {
                            again.insert(sequence);
                        }
                    }
                    disk.heal();
                    if let Ok(opened) = store.streams.producer(config.clone()) {
                        producer = opened;
                        if let Some(first) = again.first().copied() {
                            again.extend(first..next);
                        }
                        for sequence in std::mem::take(&mut again) {
                            on_their_way.push((sequence, send(&producer, sequence).unwrap()));
                        }
                    }
                }
                _ => {}
            }
        }
        faults += disk.faults_fired();
        disk.heal();
        for (sequence, sent) in on_their_way {
            match sent.wait() {
                Ok(_) => drop(delivered.insert(sequence)),
                Err(_) => drop(again.insert(sequence)),
            }
        }
        topic.partition(0).unwrap().sync().unwrap();
        let there = |topic| -> Vec<u64> {
            all_values(topic).iter().map(|value| value.parse().unwrap()).collect()
        };
        let now = there(&topic);
        assert!(now.is_sorted_by(|a, b| a < b), "seed {seed}: {now:?}");
        for sequence in &delivered {
            assert!(now.contains(sequence), "seed {seed}: {sequence} was delivered: {now:?}");
        }
        for sequence in again {
            let retried = deliver(&producer, sequence);
            assert!(retried.is_ok(), "seed {seed}: {sequence}: {retried:?} {now:?}");
        }
        topic.partition(0).unwrap().sync().unwrap();
        let now = there(&topic);
        assert_eq!(now, (0..next).collect::<Vec<_>>(), "seed {seed}");
    }
    assert!(refusals > 500, "{refusals} refusals");
    assert!(faults > 500, "{faults} faults");
}

/// What failed before partitions were added is sent again where it failed: there it holds up what comes behind it.
#[test]
fn a_retry_after_partitions_were_added_goes_to_the_partition_that_it_failed_in() {
    let disk = SimDisk::new(1);
    let store = TestStore::on(&disk);
    let topic = store.topic("t", 2);
    let producer = one_by_one(&store);
    let moves = |key: &String| {
        let of = |partitions| partition_for_key(key.as_bytes(), partitions);
        of(2) != of(3)
    };
    let key = (0..).map(|n| format!("key-{n}")).find(moves).unwrap();
    let deliver = |n: u64| {
        let value = n.to_string();
        let record = ProducerRecord::new("t", value.as_bytes()).key(key.as_bytes()).sequence(n);
        producer.send(&record)?.wait()
    };
    deliver(1).unwrap();
    assert_full(without_space(&disk, || deliver(2)));
    topic.add_partitions(3).unwrap();
    for n in [1, 2] {
        let sent = deliver(n).unwrap();
        assert_eq!(sent.partition.partition, partition_for_key(key.as_bytes(), 2));
        assert_eq!(sent.duplicate, n == 1);
    }
    assert_eq!(deliver(3).unwrap().partition.partition, partition_for_key(key.as_bytes(), 3));
    assert_eq!(all_values(&topic).len(), 3);
}
