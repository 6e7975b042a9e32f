//! The figures of streams that have a target, each beside its target: `cargo run --release -p logmill-benches --example
//! streams`. Ratios are of one run; the machine decides the rest. `-- wake topics` measures these rows only; the others are `produce`,
//! `poll`, `commit`.

use std::time::Duration;

use logmill::{Durability, ProducerConfig, Store};
use logmill_benches::{Scratch, seconds, streams};

const RECORDS: u64 = 5_000_000;
const ROUNDS: usize = 3;

/// The seconds that this process has worked, on all processors.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn rounds(mut figure: impl FnMut() -> f64) -> f64 {
    median((0..ROUNDS).map(|_| figure()).collect())
}

fn per_second(work: impl FnOnce()) -> f64 {
    RECORDS as f64 / seconds(work) / 1e6
}

fn main() {
    let rows: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |row: &str| rows.is_empty() || rows.iter().any(|asked| asked == row);
    if wanted("produce") {
        produce();
    }
    if wanted("poll") || wanted("commit") {
        poll_and_commit();
    }
    if wanted("wake") {
        wake();
    }
    if wanted("topics") {
        topics();
    }
}

fn produce() {
    let produced = rounds(|| {
        let scratch = Scratch::new("produce");
        let store = Store::open(scratch.path()).expect("store");
        streams::topic(&store, "t", 1, Durability::Buffered);
        let producer = store.producer_with(ProducerConfig::new()).expect("producer");
        let rate = per_second(|| streams::produce(&producer, "t", RECORDS));
        store.close().expect("close");
        rate
    });
    println!("produced, buffered, one thread      {produced:8.2} M/s       target 3");
}

fn poll_and_commit() {
    let scratch = Scratch::new("poll");
    let store = Store::open(scratch.path()).expect("store");
    streams::topic(&store, "t", 1, Durability::Buffered);
    streams::produce(&store.producer().expect("producer"), "t", RECORDS);
    let mut consumer = streams::consumer(&store, "g", "t");
    streams::poll(&mut consumer, RECORDS);
    let polled = rounds(|| {
        consumer.seek("t", 0, 0).expect("seek");
        per_second(|| streams::poll(&mut consumer, RECORDS))
    });
    println!("polled by a group, one partition    {polled:8.2} M/s       target 10");

    let before = cpu_seconds();
    consumer.seek("t", 0, 0).expect("seek");
    streams::poll(&mut consumer, RECORDS);
    let one = cpu_seconds() - before;
    let mut groups: Vec<_> =
        (0..10).map(|n| streams::consumer(&store, &format!("group-{n}"), "t")).collect();
    let before = cpu_seconds();
    for consumer in &mut groups {
        streams::poll(consumer, RECORDS);
    }
    let ten = (cpu_seconds() - before) / one;
    println!("CPU of ten groups                   {ten:8.2} x one     target 12");

    let commits = 200_000;
    let rate =
        rounds(|| commits as f64 / seconds(|| streams::commit(&mut consumer, "t", commits)) / 1e3);
    println!("commits, buffered                   {rate:8.0} k/s       target 100");

    let before = store.stats().expect("stats").activity.syncs;
    let rate = streams::synced_commits(&store, "t", 32, 200);
    let syncs = store.stats().expect("stats").activity.syncs - before;
    println!(
        "commits, synced, 32 groups          {:8.0} k/s       {:.1} commits a sync",
        rate / 1e3,
        32.0 * 200.0 / syncs as f64
    );

    drop((consumer, groups));
    store.close().expect("close");
}

fn wake() {
    let scratch = Scratch::new("wake");
    let store = Store::open(scratch.path()).expect("store");
    let topic = streams::topic(&store, "t", 1, Durability::Buffered);
    let consumer = streams::consumer(&store, "g", "t");
    let p50 = |times: Vec<Duration>| times[times.len() / 2].as_secs_f64() * 1e6;
    let bare = p50(streams::bare_hand_overs(4_000));
    let wake = p50(streams::consumer_hand_overs(&topic, consumer, 4_000));
    println!(
        "publish to wake, p50                {wake:8.1} us        target {:.1}, 2 x the condition variable's {bare:.1}",
        2.0 * bare
    );
    store.close().expect("close");
}

fn topics() {
    let mut rates = Vec::new();
    for count in [1, 100] {
        let scratch = Scratch::new("topics");
        let store = Store::open(scratch.path()).expect("store");
        let topics: Vec<_> = (0..count)
            .map(|n| streams::topic(&store, &format!("t{n}"), 1, Durability::Sync))
            .collect();
        streams::synced(&topics, 64, 20);
        rates.push(rounds(|| streams::synced(&topics, 64, 200)));
    }
    println!(
        "synced, 64 threads, 100 topics      {:8.0} /s        target {:.0}, half of one topic's {:.0}: {:.2}",
        rates[1],
        rates[0] / 2.0,
        rates[0],
        rates[1] / rates[0]
    );
}
