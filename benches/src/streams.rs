//! The work that streams are measured by: 100-byte values with 16-byte keys.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use logmill::{
    AppendOptions, Consumer, ConsumerConfig, Durability, Producer, ProducerRecord, Record, StartAt,
    Store, Topic, TopicConfig,
};

use crate::payload;

/// A topic whose appends are acknowledged at this level.
pub fn topic(store: &Store, name: &str, partitions: u32, durability: Durability) -> Topic {
    let config = TopicConfig::new().partitions(partitions).durability(durability);
    store.create_topic(name, config).expect("topic")
}

/// Sends `count` records through a batching producer, from this thread, and waits for all of them.
pub fn produce(producer: &Producer, topic: &str, count: u64) {
    let value = payload(100, 1);
    for number in 0..count {
        let key = u128::from(number).to_le_bytes();
        let _ = producer.send(&ProducerRecord::new(topic, &value).key(&key)).expect("send");
    }
    producer.flush().expect("flush");
}

/// A consumer that begins with the first record and commits when it is told to.
pub fn consumer(store: &Store, group: &str, topic: &str) -> Consumer {
    let config = ConsumerConfig::new()
        .start_at(StartAt::Earliest)
        .auto_commit(None)
        .commit_durability(Durability::Buffered);
    let mut consumer = store.consumer_with(group, config).expect("consumer");
    consumer.subscribe(&[topic]).expect("subscribe");
    consumer
}

/// Polls until `count` records came, and looks at each of them.
pub fn poll(consumer: &mut Consumer, count: u64) {
    let (mut seen, mut bytes) = (0, 0);
    while seen < count {
        let records = consumer.poll(Duration::from_secs(10)).expect("poll");
        for record in records.iter() {
            bytes += record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            seen += 1;
        }
    }
    assert_eq!(bytes as u64, seen * 116);
}

/// Commits `count` positions, one by one.
pub fn commit(consumer: &mut Consumer, topic: &str, count: u64) {
    let at = logmill::TopicPartition { topic: topic.into(), partition: 0 };
    for offset in 0..count {
        let ticket = consumer.commit_offsets_async(&[(at.clone(), offset.into())]).expect("commit");
        drop(ticket);
    }
}

/// Synced commits of one position by `groups` consumers at once, each with a group and a thread of its own, `each` of them;
/// commits a second.
pub fn synced_commits(store: &Store, topic: &str, groups: usize, each: u64) -> f64 {
    let config = ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None);
    let at = logmill::TopicPartition { topic: topic.into(), partition: 0 };
    let mut consumers: Vec<_> = (0..groups)
        .map(|group| {
            let group = format!("synced-{group}");
            let mut consumer = store.consumer_with(&group, config.clone()).expect("consumer");
            consumer.subscribe(&[topic]).expect("subscribe");
            consumer.poll(Duration::ZERO).expect("poll");
            consumer
        })
        .collect();
    let begin = Instant::now();
    thread::scope(|scope| {
        for consumer in &mut consumers {
            let at = &at;
            scope.spawn(move || {
                for offset in 0..each {
                    consumer.commit_offsets(&[(at.clone(), offset.into())]).expect("commit");
                }
            });
        }
    });
    (groups as u64 * each) as f64 / begin.elapsed().as_secs_f64()
}

/// Synced appends of lone records by `threads` threads, `each` of them, to the topics in turn; records a second.
pub fn synced(topics: &[Topic], threads: usize, each: usize) -> f64 {
    let value = payload(100, 1);
    let partitions: Vec<_> =
        topics.iter().map(|topic| topic.partition(0).expect("partition")).collect();
    let options = AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
    let begin = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let (partitions, value, options) = (&partitions, &value, &options);
            scope.spawn(move || {
                for number in 0..each {
                    let partition = &partitions[(thread + number * 7) % partitions.len()];
                    partition.append_with(&[Record::value(value)], options).expect("append");
                }
            });
        }
    });
    (threads * each) as f64 / begin.elapsed().as_secs_f64()
}

/// The times from a hand-over in one thread to its arrival in another that waits for it.
pub fn hand_overs(
    count: usize,
    mut give: impl FnMut(),
    mut take: impl FnMut() + Send,
) -> Vec<Duration> {
    let begun = Mutex::new(Instant::now());
    let (done, next) = std::sync::mpsc::channel();
    let mut times = Vec::with_capacity(count);
    thread::scope(|scope| {
        let begun = &begun;
        scope.spawn(move || {
            for _ in 0..count {
                take();
                let took = begun.lock().expect("lock").elapsed();
                done.send(took).expect("send");
            }
        });
        for _ in 0..count {
            // Until the other waits, or else nobody is woken.
            thread::sleep(Duration::from_micros(300));
            *begun.lock().expect("lock") = Instant::now();
            give();
            times.push(next.recv().expect("hand-over"));
        }
    });
    times.sort_unstable();
    times
}

/// A condition variable and a flag: the least that a hand-over costs.
pub fn bare_hand_overs(count: usize) -> Vec<Duration> {
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let taker = Arc::clone(&pair);
    hand_overs(
        count,
        || {
            *pair.0.lock().expect("lock") = true;
            pair.1.notify_one();
        },
        move || {
            let mut full = taker.0.lock().expect("lock");
            while !*full {
                full = taker.1.wait(full).expect("wait");
            }
            *full = false;
        },
    )
}

/// From an append to a consumer that waits in a poll.
pub fn consumer_hand_overs(topic: &Topic, mut consumer: Consumer, count: usize) -> Vec<Duration> {
    let partition = topic.partition(0).expect("partition");
    hand_overs(
        count,
        || {
            partition.append(&Record::value(b"news")).expect("append");
        },
        move || while consumer.poll(Duration::from_secs(10)).expect("poll").is_empty() {},
    )
}
