//! Streams: the batching producer, a consumer group's poll, commits, waking a waiting consumer, many topics.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logmill::{Durability, ProducerConfig, Store, TopicConfig};
use logmill_benches::{Scratch, streams};

const RECORDS: u64 = 1_000_000;

fn produce(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream/produce");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    for partitions in [1, 8] {
        group.bench_function(BenchmarkId::new("partitions", partitions), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let scratch = Scratch::new("produce");
                    let store = Store::open(scratch.path()).unwrap();
                    streams::topic(&store, "t", partitions, Durability::Buffered);
                    let producer = store.producer_with(ProducerConfig::new()).unwrap();
                    let begin = Instant::now();
                    streams::produce(&producer, "t", RECORDS);
                    spent += begin.elapsed();
                    store.close().unwrap();
                }
                spent
            });
        });
    }
    group.finish();
}

fn poll(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream/poll");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    let scratch = Scratch::new("poll");
    let store = Store::open(scratch.path()).unwrap();
    streams::topic(&store, "t", 1, Durability::Buffered);
    streams::produce(&store.producer().unwrap(), "t", RECORDS);
    let mut consumer = streams::consumer(&store, "g", "t");
    group.bench_function("one partition, hot", |b| {
        b.iter(|| {
            consumer.heartbeat().unwrap();
            consumer.seek("t", 0, 0).unwrap();
            streams::poll(&mut consumer, RECORDS);
        });
    });
    group.finish();
}

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream/commit");
    group.throughput(Throughput::Elements(1));
    let scratch = Scratch::new("commit");
    let store = Store::open(scratch.path()).unwrap();
    store.create_topic("t", TopicConfig::new()).unwrap();
    let mut consumer = streams::consumer(&store, "g", "t");
    consumer.heartbeat().unwrap();
    group.bench_function("buffered", |b| {
        b.iter_custom(|iterations| {
            let begin = Instant::now();
            streams::commit(&mut consumer, "t", iterations);
            begin.elapsed()
        });
    });
    group.finish();
}

fn wake(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream/wake");
    group.sample_size(10);
    let scratch = Scratch::new("wake");
    let store = Store::open(scratch.path()).unwrap();
    let topic = streams::topic(&store, "t", 1, Durability::Buffered);
    let count = |iterations| usize::try_from(iterations).unwrap();
    group.bench_function("condition variable", |b| {
        b.iter_custom(|iterations| streams::bare_hand_overs(count(iterations)).iter().sum());
    });
    let mut groups = 0;
    group.bench_function("consumer", |b| {
        b.iter_custom(|iterations| {
            groups += 1;
            let mut consumer = streams::consumer(&store, &format!("g{groups}"), "t");
            while !consumer.poll(Duration::ZERO).unwrap().is_empty() {}
            streams::consumer_hand_overs(&topic, consumer, count(iterations)).iter().sum()
        });
    });
    group.finish();
}

fn many_topics(c: &mut Criterion) {
    const EACH: usize = 50;
    let mut group = c.benchmark_group("stream/synced, 64 threads");
    group.sample_size(10).throughput(Throughput::Elements(64 * EACH as u64));
    for count in [1, 100] {
        let scratch = Scratch::new("topics");
        let store = Store::open(scratch.path()).unwrap();
        let topics: Vec<_> = (0..count)
            .map(|n| streams::topic(&store, &format!("t{n}"), 1, Durability::Sync))
            .collect();
        group.bench_function(BenchmarkId::new("topics", count), |b| {
            b.iter(|| streams::synced(&topics, 64, EACH));
        });
    }
    group.finish();
}

criterion_group!(benches, produce, poll, commit, wake, many_topics);
criterion_main!(benches);
