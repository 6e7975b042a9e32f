//! What happens at once: threads that produce, consume, come, go and die, while topics grow, appear and disappear.
//!
//! Nothing here depends on how fast the machine is: a member that is to be found silent has a short session, all others
//! one that no pause of a test machine lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use logmill_storage::{DataDir, Durability, Journal, LogConfig};
use logmill_stream::{
    Acknowledge, Consumer, Error, ProducerConfig, ProducerRecord, RebalanceListener,
    ShareConsumerConfig, ShareGroupConfig, StartAt, Streams, StreamsOptions, TopicConfig,
    TopicPartition,
};

use crate::support::manual;

struct Store {
    dir: DataDir,
    _journal: Journal,
    streams: Streams,
    _place: tempfile::TempDir,
}

fn store() -> Store {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    Store { dir, _journal: journal, streams, _place: place }
}

/// The reader of each partition, by the word of the readers themselves.
type Owners = Arc<Mutex<BTreeMap<u32, u64>>>;

/// Notes who reads what, and that nobody else does.
struct Watch {
    me: u64,
    owners: Owners,
    /// Where this member has to go on in each partition, once it has read from it.
    next: Arc<Mutex<BTreeMap<u32, u64>>>,
}

impl RebalanceListener for Watch {
    fn on_assigned(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        let mut owners = self.owners.lock().unwrap();
        for TopicPartition { partition, .. } in partitions {
            let other = owners.insert(*partition, self.me);
            assert_eq!(other, None, "partition {partition} has two readers");
            self.next.lock().unwrap().remove(partition);
        }
    }

    fn on_revoked(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        let mut owners = self.owners.lock().unwrap();
        for TopicPartition { partition, .. } in partitions {
            assert_eq!(owners.remove(partition), Some(self.me));
        }
    }
}

/// Leaving tells no listener, so what was read is given up here, before others can have it.
fn leave(consumer: Consumer, owners: &Owners, me: u64) {
    owners.lock().unwrap().retain(|_, owner| *owner != me);
    drop(consumer);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn members_come_go_and_die_while_partitions_are_added_and_every_record_arrives_in_order() {
    const RECORDS: u64 = 3_000;
    let store = store();
    let config = TopicConfig::new().partitions(3).durability(Durability::Buffered);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let (owners, deaths) = (Owners::default(), AtomicU64::new(0));
    let delivered: Mutex<BTreeMap<u32, BTreeSet<u64>>> = Mutex::default();
    let produced = AtomicBool::new(false);
    let is_complete = || {
        let delivered = delivered.lock().unwrap();
        produced.load(Ordering::SeqCst)
            && topic.partitions().iter().all(|partition| {
                let read = delivered.get(&partition.number()).map_or(0, BTreeSet::len);
                read as u64 == partition.end_offset().unwrap()
            })
    };
    let one_life = |me: u64, dies: bool, polls: u64| {
        let session = Duration::from_millis(if dies { 50 } else { 600_000 });
        let config = manual()
            .session_timeout(session)
            .records_max(20)
            .commit_durability(Durability::Buffered);
        let mut consumer = store.streams.consumer("g", config).unwrap();
        let next: Arc<Mutex<BTreeMap<u32, u64>>> = Arc::default();
        if dies {
            deaths.fetch_add(1, Ordering::SeqCst);
        } else {
            let (owners, next) = (Arc::clone(&owners), Arc::clone(&next));
            consumer.set_listener(Watch { me, owners, next });
        }
        consumer.subscribe(&["t"]).unwrap();
        for _ in 0..polls {
            let records = match consumer.poll(Duration::from_millis(2)) {
                Ok(records) => records,
                // On a machine that stands still for a while the group is sooner than the death.
                Err(Error::NotAssigned { .. } | Error::Group { .. }) if dies => break,
                Err(error) => panic!("{error}"),
            };
            for record in records.iter() {
                let mut next = next.lock().unwrap();
                let due = next.insert(record.partition, record.offset + 1);
                assert!(dies || due.is_none_or(|due| due == record.offset), "{due:?} {record:?}");
                delivered
                    .lock()
                    .unwrap()
                    .entry(record.partition)
                    .or_default()
                    .insert(record.offset);
            }
            match consumer.commit() {
                Ok(()) => {}
                Err(Error::NotAssigned { .. } | Error::Group { .. }) if dies => {}
                Err(error) => panic!("{error}"),
            }
        }
        if dies {
            std::mem::forget(consumer);
        } else {
            leave(consumer, &owners, me);
        }
    };
    thread::scope(|scope| {
        let producers: Vec<_> = (0..2u64)
            .map(|number| {
                let (streams, topic) = (store.streams.clone(), topic.clone());
                scope.spawn(move || {
                    let producer = streams.producer(ProducerConfig::new()).unwrap();
                    for n in 0..RECORDS {
                        let (key, value) = (format!("{number}-{}", n % 10), n.to_string());
                        let record = ProducerRecord::new("t", value.as_bytes());
                        let _ = producer.send(&record.key(key.as_bytes())).unwrap();
                        if number == 0 && n % (RECORDS / 3) == RECORDS / 6 {
                            topic.add_partitions(topic.partition_count() + 2).unwrap();
                        }
                    }
                    producer.flush().unwrap();
                })
            })
            .collect();
        for slot in 0..3u64 {
            let (one_life, is_complete) = (&one_life, &is_complete);
            scope.spawn(move || {
                for life in 0.. {
                    // At last all of them live, so that what the dead had is read to the end.
                    one_life(
                        slot << 32 | life,
                        life % 4 == slot && life < 12,
                        5 + (slot + life) % 7,
                    );
                    if life >= 12 && is_complete() {
                        return;
                    }
                }
            });
        }
        for producer in producers {
            producer.join().unwrap();
        }
        produced.store(true, Ordering::SeqCst);
    });
    assert_eq!(topic.partition_count(), 9);
    assert_eq!(deaths.into_inner(), 9);
    for partition in topic.partitions() {
        let mut last: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for record in partition.range(0, u64::MAX).unwrap().collect().unwrap() {
            let n = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap();
            let before = last.insert(record.key.unwrap().to_vec(), n);
            assert!(before.is_none_or(|before| before < n), "of one key and partition, in order");
        }
    }
}

/// Whether this is how an operation on a topic that was just deleted has to end.
fn is_gone(error: &Error) -> bool {
    match error {
        Error::UnknownTopic { .. } => true,
        Error::NotDelivered { cause, .. } => is_gone(cause),
        _ => false,
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn topics_of_a_pattern_come_and_go_under_live_producers_and_consumers() {
    const TOPICS: usize = 24;
    const KEPT: usize = 3;
    const EACH: u64 = 40;
    let store = store();
    let config = TopicConfig::new().partitions(2).durability(Durability::Buffered);
    let done = AtomicBool::new(false);
    let read: Mutex<BTreeMap<(String, u32), Vec<u64>>> = Mutex::default();
    let (mut gone_for_producers, mut left) = (0, BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut consumer = store.streams.consumer("g", manual()).unwrap();
                consumer.subscribe_pattern("e[0-9]+").unwrap();
                let mut was_done = false;
                loop {
                    match consumer.poll(Duration::from_millis(5)) {
                        Ok(records) => {
                            for record in records.iter() {
                                let place = (record.topic.to_owned(), record.partition);
                                read.lock().unwrap().entry(place).or_default().push(record.offset);
                            }
                            if was_done && records.is_empty() {
                                return;
                            }
                        }
                        Err(error) => assert!(is_gone(&error), "{error}"),
                    }
                    was_done = done.load(Ordering::SeqCst);
                }
            });
        }
        let stray = scope.spawn(|| {
            // Sends to all topics, whether they are there or not.
            let producer = store.streams.producer(ProducerConfig::new()).unwrap();
            let mut gone = 0;
            for n in 0u64.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let topic = format!("e{}", n % TOPICS as u64);
                let sent = producer.send(&ProducerRecord::new(&topic, b"stray"));
                if let Err(error) = sent.and_then(logmill_stream::Delivery::wait) {
                    assert!(is_gone(&error), "{error}");
                    gone += 1;
                }
            }
            // What was not delivered is said once more.
            if let Err(error) = producer.flush() {
                assert!(is_gone(&error), "{error}");
            }
            gone
        });
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        for number in 0..TOPICS {
            let name = format!("e{number}");
            store.streams.create_topic(&name, &config).unwrap();
            for n in 0..EACH {
                let record = ProducerRecord::new(&name, b"v").partition((n % 2) as u32);
                producer.send(&record).unwrap().wait().unwrap();
            }
            if number >= KEPT {
                store.streams.delete_topic(&format!("e{}", number - KEPT)).unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
        gone_for_producers = stray.join().unwrap();
    });
    assert!(gone_for_producers > 0, "the stray producer was meant to meet topics that are gone");
    for topic in store.streams.topics().unwrap() {
        left.insert(topic.name().to_owned());
        for partition in topic.partitions() {
            // Several readers, one after the other: a new one goes on at the start, since none of them commits.
            let place = (topic.name().to_owned(), partition.number());
            let read = read.lock().unwrap()[&place].clone();
            let seen: BTreeSet<u64> = read.into_iter().collect();
            assert_eq!(seen, (0..partition.end_offset().unwrap()).collect(), "{place:?}");
        }
    }
    assert_eq!(left.len(), KEPT);
    let ids: BTreeSet<u32> = store.streams.topics().unwrap().iter().map(|t| t.id()).collect();
    store.streams.create_topic("last", &config).unwrap();
    store.streams.delete_topic("last").unwrap();
    for log in store.dir.logs().unwrap() {
        let topic: u32 = log.split('/').next().unwrap().parse().unwrap();
        assert!(topic == 0 || ids.contains(&topic), "the files of {log} are still there");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn members_of_a_share_group_die_under_load_and_what_was_accepted_never_comes_again() {
    const RECORDS: u64 = 2_000;
    let store = store();
    let config = TopicConfig::new().partitions(2).durability(Durability::Buffered);
    let topic = store.streams.create_topic("t", &config).unwrap();
    let accepted: Mutex<BTreeSet<(u32, u64)>> = Mutex::default();
    // The last number of each key that was handed out: of one key there is one record out at a time, in order.
    let last: Mutex<BTreeMap<Vec<u8>, u64>> = Mutex::default();
    let group = ShareGroupConfig::new()
        .start_at(StartAt::Earliest)
        .key_ordered(true)
        .deliveries_max(None)
        .lease(Duration::from_secs(600));
    let config = ShareConsumerConfig::new().group(group).explicit(true).records_max(16);
    thread::scope(|scope| {
        scope.spawn(|| {
            let producer = store.streams.producer(ProducerConfig::new()).unwrap();
            for n in 0..RECORDS {
                let (key, value) = (format!("k{}", n % 50), n.to_string());
                let record = ProducerRecord::new("t", value.as_bytes());
                let _ = producer.send(&record.key(key.as_bytes())).unwrap();
            }
            producer.flush().unwrap();
        });
        for slot in 0..3usize {
            let (store, config, accepted, last) = (&store, &config, &accepted, &last);
            scope.spawn(move || {
                for life in 0usize.. {
                    let mut consumer = store.streams.share_consumer("g", config.clone()).unwrap();
                    consumer.subscribe(&["t"]).unwrap();
                    for _ in 0..3 + (slot + life) % 5 {
                        let records = consumer.poll(Duration::from_millis(2)).unwrap();
                        let mut places = Vec::new();
                        for (number, record) in records.iter().enumerate() {
                            let place = (record.record.partition, record.record.offset);
                            assert!(!accepted.lock().unwrap().contains(&place), "{place:?}");
                            let key = record.record.key.unwrap().to_vec();
                            let n = std::str::from_utf8(record.record.value.unwrap()).unwrap();
                            let n: u64 = n.parse().unwrap();
                            let before = last.lock().unwrap().insert(key, n);
                            assert!(before.is_none_or(|before| before <= n), "{before:?} {n}");
                            if number % 4 != 3 {
                                consumer
                                    .acknowledge(record.receipt(), Acknowledge::Accept)
                                    .unwrap();
                                places.push(place);
                            }
                        }
                        // It can come to others as soon as the commit has begun, and must not.
                        accepted.lock().unwrap().extend(places);
                        consumer.commit().unwrap();
                    }
                    // What is not acknowledged goes to the others.
                    drop(consumer);
                    if accepted.lock().unwrap().len() as u64 == RECORDS {
                        return;
                    }
                }
            });
        }
    });
    let described = store.streams.describe_group("g").unwrap();
    assert_eq!((described.lag(), accepted.lock().unwrap().len() as u64), (0, RECORDS));
    assert_eq!(topic.partitions().iter().map(|p| p.end_offset().unwrap()).sum::<u64>(), RECORDS);
}
