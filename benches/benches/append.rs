//! Appends: one at a time, in batches, synced by one thread and by many, pipelined.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logmill_benches::{Scratch, payload};
use logmill_storage::{AppendOptions, DataDir, Durability, Log, LogConfig, Record};

fn log(scratch: &Scratch, durability: Durability) -> (DataDir, Log) {
    let dir = DataDir::open(scratch.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default().durability(durability)).unwrap();
    (dir, log)
}

fn buffered(c: &mut Criterion) {
    let mut group = c.benchmark_group("append/buffered");
    for (len, batch) in [(100, 1), (100, 100), (1024, 1), (1024, 100)] {
        let value = payload(len, 1);
        let records = vec![Record::value(&value); batch];
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{len} B"), batch), |b| {
            // The log is cut now and then, so that the disk does not fill up; the cut is not timed.
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let scratch = Scratch::new("append");
                    let (_dir, log) = log(&scratch, Durability::Buffered);
                    let round = left.min((512 << 20) / (len * batch) as u64);
                    let begin = Instant::now();
                    for _ in 0..round {
                        log.append_batch(&records).unwrap();
                    }
                    spent += begin.elapsed();
                    left -= round;
                }
                spent
            });
        });
    }
    group.finish();
}

fn synced(c: &mut Criterion) {
    let mut group = c.benchmark_group("append/synced");
    group.throughput(Throughput::Elements(1));
    let value = payload(100, 1);
    for threads in [1, 2, 4, 8, 16, 32, 64] {
        let scratch = Scratch::new("synced");
        let (_dir, log) = log(&scratch, Durability::Sync);
        group.bench_function(BenchmarkId::new("threads", threads), |b| {
            b.iter_custom(|iterations| {
                let begin = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let share = iterations / threads + u64::from(thread < iterations % threads);
                        let (log, value) = (&log, &value);
                        scope.spawn(move || {
                            for _ in 0..share {
                                log.append(&Record::value(value)).unwrap();
                            }
                        });
                    }
                });
                begin.elapsed()
            });
        });
    }
    group.bench_function("pipelined", |b| {
        let scratch = Scratch::new("pipelined");
        let (_dir, log) = log(&scratch, Durability::Sync);
        b.iter_custom(|iterations| {
            let options = AppendOptions::default();
            let mut tickets = std::collections::VecDeque::new();
            let begin = Instant::now();
            for _ in 0..iterations {
                tickets.push_back(log.submit(&[Record::value(&value)], &options).unwrap());
                if tickets.len() > 4096 {
                    tickets.pop_front().unwrap().wait().unwrap();
                }
            }
            for ticket in tickets {
                ticket.wait().unwrap();
            }
            begin.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, buffered, synced);
criterion_main!(benches);
