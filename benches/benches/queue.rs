//! Queues: the cycle of send, receive and delete, by itself and with a backlog; opening with one.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logmill::queue::Durability;
use logmill::{Message, Queue, QueueConfig, ReceiveOptions, Store};
use logmill_benches::{Scratch, payload};

const BACKLOG: usize = 1_000_000;

fn open(scratch: &Scratch, durability: Durability) -> (Store, Queue) {
    let store = Store::builder().durability(durability).open(scratch.path()).unwrap();
    let queue = store.create_queue("q", &QueueConfig::standard()).unwrap();
    (store, queue)
}

fn send(queue: &Queue, batch: usize) {
    let body = payload(100, 7);
    if batch == 1 {
        queue.send(&Message::new(&body)).unwrap();
    } else {
        let sent = queue.send_batch(&vec![Message::new(&body); batch]).unwrap();
        assert!(sent.iter().all(Result::is_ok));
    }
}

fn cycle(queue: &Queue, batch: usize) {
    send(queue, batch);
    let got = queue.receive(&ReceiveOptions::new().max(batch)).unwrap();
    assert_eq!(got.len(), batch);
    let receipts: Vec<_> = got.iter().map(|message| *message.receipt()).collect();
    assert!(queue.delete_batch(&receipts).unwrap().iter().all(Result::is_ok));
}

fn cycles(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/cycle");
    for (name, durability) in [("buffered", Durability::Buffered), ("synced", Durability::Sync)] {
        for batch in [1, 10] {
            let scratch = Scratch::new("cycle");
            let (store, queue) = open(&scratch, durability);
            group.throughput(Throughput::Elements(batch as u64));
            group
                .bench_function(BenchmarkId::new(name, batch), |b| b.iter(|| cycle(&queue, batch)));
            drop(queue);
            store.close().unwrap();
        }
    }
    group.finish();
}

fn backlog(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/backlog");
    let scratch = Scratch::new("backlog");
    let (mut store, queue) = open(&scratch, Durability::Buffered);
    (0..BACKLOG / 100).for_each(|_| send(&queue, 100));
    group.throughput(Throughput::Elements(1));
    group.bench_function("cycle", |b| b.iter(|| cycle(&queue, 1)));
    drop(queue);
    group.sample_size(10).throughput(Throughput::Elements(BACKLOG as u64));
    group.bench_function("close and open", |b| {
        b.iter(|| {
            store.clone().close().unwrap();
            store = Store::open(scratch.path()).unwrap();
        });
    });
    group.finish();
    store.close().unwrap();
}

criterion_group!(benches, cycles, backlog);
criterion_main!(benches);
