//! The classic: events of users in one topic, read by several independent groups.
//!
//! ```text
//! cargo run --example user_events -- events.txt [DIR]
//! ```
//! Each line of the file is an event; its first word is the user. The topic `user-events` has three partitions, and a
//! user's events always go to the same one. Three groups each get every event, in order for each user: `analytics` with
//! one consumer, `recommendations` with two, `notifications` with four, of which one sits idle. In the middle of its work
//! a consumer of `notifications` dies, and the idle one takes over where it had committed.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "what is read is no file of the store")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use logmill::{Consumer, ConsumerConfig, GroupPhase, ProducerRecord, StartAt, Store, TopicConfig};

const TOPIC: &str = "user-events";
const PARTITIONS: u32 = 3;
/// The consumers of each group.
const GROUPS: [(&str, usize); 3] = [("analytics", 1), ("recommendations", 2), ("notifications", 4)];

/// What a group has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Partition and offset of each event, so that one that is delivered twice counts once.
    events: BTreeSet<(u32, u64)>,
    /// The last event of each user, by its number in the file.
    last: BTreeMap<String, usize>,
    deliveries: usize,
    out_of_order: usize,
    idle: usize,
    took_over: usize,
}

/// What came out for one group.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The group.
    pub group: &'static str,
    /// How many different events it got.
    pub events: usize,
    /// How many users they were of.
    pub users: usize,
    /// How many events it got a second time, because the first receiver died before it committed.
    pub redelivered: usize,
    /// How many events came before an earlier one of the same user.
    pub out_of_order: usize,
    /// How many of its consumers had nothing to read at first.
    pub idle: usize,
    /// How many of those have read events in the end.
    pub took_over: usize,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Publishes the lines of `input` in a store at `dir` and has the groups read them.
pub fn run(input: &str, dir: &Path) -> Outcome<Vec<Report>> {
    let store = Store::open(dir)?;
    store.create_topic(TOPIC, TopicConfig::new().partitions(PARTITIONS))?;
    let published = publish(&store, input)?;
    let seen: Vec<Mutex<Seen>> = GROUPS.iter().map(|_| Mutex::default()).collect();
    let mut members = Vec::new();
    for (group, consumers) in GROUPS {
        members.push(join(&store, group, consumers)?);
    }
    let results: Vec<Outcome<()>> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (((group, _), consumers), seen) in GROUPS.iter().zip(members).zip(&seen) {
            for (number, consumer) in consumers.into_iter().enumerate() {
                let dies = *group == "notifications" && number == 0;
                threads.push(scope.spawn(move || consume(consumer, seen, published, dies)));
            }
        }
        let panicked = |_| Err("a consumer panicked".into());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    results.into_iter().collect::<Outcome<Vec<()>>>()?;
    store.close()?;
    let reports = GROUPS.iter().zip(seen).map(|((group, _), seen)| {
        let seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Report {
            group,
            events: seen.events.len(),
            users: seen.last.len(),
            redelivered: seen.deliveries - seen.events.len(),
            out_of_order: seen.out_of_order,
            idle: seen.idle,
            took_over: seen.took_over,
        }
    });
    Ok(reports.collect())
}

fn publish(store: &Store, input: &str) -> Outcome<usize> {
    let producer = store.producer()?;
    let mut published = 0;
    for line in input.lines() {
        let Some(user) = line.split_whitespace().next() else { continue };
        let event = format!("{published} {line}");
        // The delivery could be waited for; the flush below waits for all of them.
        let _ =
            producer.send(&ProducerRecord::new(TOPIC, event.as_bytes()).key(user.as_bytes()))?;
        published += 1;
    }
    producer.flush()?;
    Ok(published)
}

/// The consumers of a group, each with its share of the partitions.
fn join(store: &Store, group: &str, count: usize) -> Outcome<Vec<Consumer>> {
    let config =
        ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None).records_max(50);
    let mut consumers = Vec::new();
    for _ in 0..count {
        let mut consumer = store.consumer_with(group, config.clone())?;
        consumer.subscribe(&[TOPIC])?;
        consumers.push(consumer);
    }
    // The first one had all partitions for a moment. With each call a consumer does its part in the rebalance.
    while store.describe_group(group)?.phase != GroupPhase::Stable {
        for consumer in &mut consumers {
            consumer.heartbeat()?;
        }
    }
    Ok(consumers)
}

fn consume(
    mut consumer: Consumer,
    seen: &Mutex<Seen>,
    published: usize,
    dies: bool,
) -> Outcome<()> {
    let mut is_idle = consumer.assignment().is_empty();
    lock(seen).idle += usize::from(is_idle);
    loop {
        let records = consumer.poll(Duration::from_millis(100))?;
        if is_idle && !records.is_empty() {
            is_idle = false;
            lock(seen).took_over += 1;
        }
        for record in records.iter() {
            let event = std::str::from_utf8(record.value.unwrap_or_default())?;
            let (number, _) = event.split_once(' ').unwrap_or((event, ""));
            let user = String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
            handle(seen, (record.partition, record.offset), user, number.parse()?);
        }
        if dies && !records.is_empty() {
            // It dies before it has committed what it just did, as a crash would have it.
            return die(consumer);
        }
        consumer.commit()?;
        if lock(seen).events.len() == published {
            consumer.close()?;
            return Ok(());
        }
    }
}

fn handle(seen: &Mutex<Seen>, place: (u32, u64), user: String, number: usize) {
    let mut seen = lock(seen);
    seen.deliveries += 1;
    if !seen.events.insert(place) {
        return;
    }
    let before = seen.last.insert(user, number);
    if before.is_some_and(|before| before >= number) {
        seen.out_of_order += 1;
    }
}

fn die(consumer: Consumer) -> Outcome<()> {
    drop(consumer);
    Ok(())
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next() else { return Err("usage: user_events FILE [DIR]".into()) };
    let input = std::fs::read_to_string(file)?;
    let place = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| place.path().to_owned(), Into::into);
    for report in run(&input, &dir)? {
        let Report { group, events, users, redelivered, out_of_order, idle, took_over } = report;
        println!(
            "{group:16} {events} events of {users} users, {redelivered} delivered again, {out_of_order} out of order; \
             of {idle} idle consumers {took_over} took over"
        );
    }
    Ok(())
}
