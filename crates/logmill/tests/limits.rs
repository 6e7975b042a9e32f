//! Many topics, and many partitions, at once: what they hold open and how much memory they take. `LOGMILL_LIMIT_TOPICS=1000`,
//! `LOGMILL_LIMIT_PARTITIONS=10000` and `LOGMILL_LIMIT_SHARED=10000` are the sizes that docs/stream.md states; a test of every day
//! makes fewer.
#![expect(clippy::disallowed_methods, reason = "it asks /proc about itself, and takes times")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use logmill::{
    Acknowledge, ConsumerConfig, Durability, ProducerRecord, Record, ShareConsumer,
    ShareConsumerConfig, ShareGroupConfig, StartAt, Store, TopicConfig,
};

const PARTITIONS: u32 = 10;
const FILES_MAX: usize = 1_024;
const RESIDENT_KB_MAX: u64 = 256 << 10;

/// Held by each test: files and memory are counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn size(variable: &str, of_every_day: u32) -> u32 {
    std::env::var(variable).map_or(of_every_day, |n| n.parse().unwrap())
}

fn check(when: &str) {
    let (files, resident) = (open_files(), resident_kb());
    println!("{when}: {files} files, {resident} kB resident");
    assert!(files <= FILES_MAX, "{files} files open {when}");
    assert!(resident <= RESIDENT_KB_MAX, "{resident} kB resident {when}");
}

#[test]
fn many_topics_hold_few_files_and_little_memory_and_open_at_once() {
    let _alone = alone();
    let topics = size("LOGMILL_LIMIT_TOPICS", 30);
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let config = TopicConfig::new().partitions(PARTITIONS).durability(Durability::Buffered);
    let mut handles = Vec::new();
    for number in 0..topics {
        let topic = store.create_topic(&format!("topic-{number}"), config.clone()).unwrap();
        for partition in topic.partitions() {
            partition.append(&Record::value(b"a record").key(b"key")).unwrap();
        }
        handles.push(topic);
    }
    check("after an append to each partition");
    drop(handles);
    let begin = Instant::now();
    store.close().unwrap();
    println!("closed in {:?}", begin.elapsed());

    let store = open(place.path());
    assert_eq!(store.topics().unwrap().len(), topics as usize);
    check("after opening");
    for topic in store.topics().unwrap() {
        for partition in topic.partitions() {
            assert_eq!(partition.end_offset().unwrap(), 1);
        }
    }
    check("after a look at each partition");
    store.close().unwrap();
}

const MEMBERS: u64 = 4;
/// So many that keys reach every partition.
const RECORDS_EACH: u64 = 12;

fn open(place: &Path) -> Store {
    let begin = Instant::now();
    let store = Store::open(place).unwrap();
    println!("opened in {:?}", begin.elapsed());
    store
}

/// Sends keyed records, which are acknowledged when this returns.
fn produce(store: &Store, partitions: u32, round: u64) -> u64 {
    let producer = store.producer().unwrap();
    let records = u64::from(partitions) * RECORDS_EACH;
    for number in 0..records {
        let (key, value) = (format!("user-{number}"), round.to_string());
        let record = ProducerRecord::new("t", value.as_bytes()).key(key.as_bytes());
        let _delivery = producer.send(&record).unwrap();
    }
    producer.flush().unwrap();
    records
}

/// Has a group of several members read what it has not read, and returns how many records of which round those were.
fn consume(store: &Store, partitions: u32, expected: u64, round: u64) {
    let topic = store.topic("t").unwrap();
    let (seen, files) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..MEMBERS {
            scope.spawn(|| {
                let config = ConsumerConfig::new().start_at(StartAt::Earliest);
                let mut consumer = store.consumer_with("g", config).unwrap();
                consumer.subscribe(&["t"]).unwrap();
                while seen.load(Ordering::Relaxed) < expected {
                    let records = consumer.poll(Duration::from_millis(100)).unwrap();
                    for record in records.iter() {
                        assert_eq!(record.value, Some(round.to_string().as_bytes()));
                        let partition = topic.partition_for_key(record.key.unwrap());
                        assert_eq!(record.partition, partition.unwrap().number());
                    }
                    seen.fetch_add(records.len() as u64, Ordering::Relaxed);
                    files.fetch_max(open_files() as u64, Ordering::Relaxed);
                }
                consumer.commit().unwrap();
                consumer.close().unwrap();
            });
        }
    });
    println!("at most {} files open while reading", files.load(Ordering::Relaxed));
    assert!(files.into_inner() <= FILES_MAX as u64);
    assert_eq!(seen.into_inner(), expected, "each record once");
    let group = store.describe_group("g").unwrap();
    assert_eq!((group.partitions.len(), group.lag()), (partitions as usize, 0));
}

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = act();
    println!("{what} in {:?}", begin.elapsed());
    check(what);
    result
}

#[test]
fn one_topic_of_many_partitions_is_written_read_by_a_group_closed_and_killed_within_the_same_limits()
 {
    const NAME: &str = "one_topic_of_many_partitions_is_written_read_by_a_group_closed_and_killed_within_the_same_limits";
    const KILLED: &str = "LOGMILL_LIMIT_KILLED";
    let _alone = alone();
    let partitions = size("LOGMILL_LIMIT_PARTITIONS", 300);
    if let Some(place) = std::env::var_os(KILLED) {
        let store = open(Path::new(&place));
        produce(&store, partitions, 1);
        println!("acknowledged");
        loop {
            std::thread::park();
        }
    }
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let config = TopicConfig::new().partitions(partitions).durability(Durability::Buffered);
    store.create_topic("t", config).unwrap();
    let sent = timed("produced", || produce(&store, partitions, 0));
    timed("consumed", || consume(&store, partitions, sent, 0));
    timed("closed", || store.close().unwrap());

    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(KILLED, place.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("acknowledged")));
    killed.kill().unwrap();
    killed.wait().unwrap();

    let store = timed("opened after a kill", || open(place.path()));
    timed("consumed after a kill", || consume(&store, partitions, sent, 1));
    timed("closed", || store.close().unwrap());
    let store = timed("opened after a close", || open(place.path()));
    let topic = store.topic("t").unwrap();
    for partition in topic.partitions() {
        assert!(partition.end_offset().unwrap() > 0, "partition {}", partition.number());
    }
    store.close().unwrap();
}

/// A member of the share group "shared" that says of each record what becomes of it.
fn member(store: &Store, in_flight: u32, records_max: usize) -> ShareConsumer {
    let group = ShareGroupConfig::new()
        .start_at(StartAt::Earliest)
        .in_flight_max(in_flight)
        .lease(Duration::from_secs(600));
    let config = ShareConsumerConfig::new()
        .group(group)
        .explicit(true)
        .records_max(records_max)
        .durability(Durability::Buffered);
    let mut member = store.share_consumer("shared", config).unwrap();
    member.subscribe(&["t"]).unwrap();
    member
}

/// Has a member poll once; says how many records it was lent, which it accepts if it is to.
fn lend(member: &mut ShareConsumer, accept: bool) -> u64 {
    let records = member.poll(Duration::ZERO).unwrap();
    if accept {
        for receipt in records.receipts() {
            member.acknowledge(receipt, Acknowledge::Accept).unwrap();
        }
        member.commit().unwrap();
    }
    records.len() as u64
}

fn shared_topic(place: &Path, partitions: u32, records: u32) -> Store {
    let store = open(place);
    let config = TopicConfig::new().partitions(partitions).durability(Durability::Buffered);
    let topic = store.create_topic("t", config).unwrap();
    for number in 0..records {
        let partition = topic.partition(number % partitions).unwrap();
        partition.append(&Record::value(b"a record")).unwrap();
    }
    store
}

#[test]
fn a_share_group_of_many_members_many_partitions_and_many_records_in_flight_stays_within_them() {
    let _alone = alone();
    let many = size("LOGMILL_LIMIT_SHARED", 200);

    let place = tempfile::tempdir().unwrap();
    let store = shared_topic(place.path(), 1, many);
    let mut members: Vec<_> = (0..many).map(|_| member(&store, many, 1)).collect();
    let lent = timed("a record for each member", || {
        members.iter_mut().map(|member| lend(member, true)).sum::<u64>()
    });
    assert_eq!(lent, u64::from(many));
    assert_eq!(store.describe_group("shared").unwrap().lag(), 0);
    timed("members gone", || drop(members));
    store.close().unwrap();

    let place = tempfile::tempdir().unwrap();
    let store = shared_topic(place.path(), 1, 2 * many);
    let mut members: Vec<_> = (0..4).map(|_| member(&store, many, 500)).collect();
    let out = |store: &Store| store.describe_group("shared").unwrap().partitions[0].in_flight;
    timed("all that may be in flight is", || {
        while members.iter_mut().map(|member| lend(member, false)).sum::<u64>() > 0 {}
    });
    assert_eq!(out(&store), many as usize, "the limit, and no more");
    drop(members);
    assert_eq!(out(&store), 0, "who is gone holds nothing");
    let mut member_of_all = member(&store, many, 500);
    let mut accepted = 0;
    timed("each of them again, accepted", || {
        while accepted < u64::from(2 * many) {
            accepted += lend(&mut member_of_all, true);
        }
    });
    assert_eq!((accepted, out(&store)), (u64::from(2 * many), 0));
    drop(member_of_all);
    store.close().unwrap();

    let place = tempfile::tempdir().unwrap();
    let store = timed("a record in each partition", || shared_topic(place.path(), many, many));
    let mut members: Vec<_> = (0..4).map(|_| member(&store, 2_000, 500)).collect();
    let mut accepted = 0;
    timed("each partition's record accepted", || {
        while accepted < u64::from(many) {
            accepted += members.iter_mut().map(|member| lend(member, true)).sum::<u64>();
        }
    });
    assert_eq!(accepted, u64::from(many), "each once");
    assert_eq!(store.describe_group("shared").unwrap().lag(), 0);
    drop(members);
    store.close().unwrap();
}
