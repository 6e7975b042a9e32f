//! The figures of queues that have a target, each beside its target: `cargo run --release -p logmill-benches --example
//! queues`. Messages of 100 bytes; medians of three rounds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use logmill::queue::Durability;
use logmill::{Message, Queue, QueueConfig, ReceiveOptions, Store};
use logmill_benches::{Scratch, payload, seconds};

const MESSAGES: usize = 1_000_000;
const ROUNDS: usize = 3;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn rounds(mut figure: impl FnMut() -> f64) -> f64 {
    median((0..ROUNDS).map(|_| figure()).collect())
}

fn with_queue<T>(durability: Durability, work: impl FnOnce(&Queue) -> T) -> T {
    let scratch = Scratch::new("queues");
    let store = Store::builder().durability(durability).open(scratch.path()).expect("store");
    let queue = store.create_queue("q", &QueueConfig::standard()).expect("queue");
    let result = work(&queue);
    drop(queue);
    store.close().expect("close");
    result
}

fn send(queue: &Queue, count: usize, batch: usize) {
    let body = payload(100, 7);
    if batch == 1 {
        for _ in 0..count {
            queue.send(&Message::new(&body)).expect("send");
        }
        return;
    }
    let messages = vec![Message::new(&body); batch];
    for _ in 0..count / batch {
        assert!(queue.send_batch(&messages).expect("send").iter().all(Result::is_ok));
    }
}

/// Receives and deletes as many as there are.
fn drain(queue: &Queue, count: usize, batch: usize) {
    let options = ReceiveOptions::new().max(batch);
    let mut done = 0;
    while done < count {
        let got = queue.receive(&options).expect("receive");
        assert!(!got.is_empty(), "{done} of {count}");
        done += got.len();
        match &got[..] {
            [one] => queue.delete(one.receipt()).expect("delete"),
            many => {
                let receipts: Vec<_> = many.iter().map(|message| *message.receipt()).collect();
                assert!(queue.delete_batch(&receipts).expect("delete").iter().all(Result::is_ok));
            }
        }
    }
}

/// Complete send, receive, delete cycles a second of 64 threads, each call waiting for the disk.
fn synced_cycles(batch: usize, calls: usize) -> f64 {
    with_queue(Durability::Sync, |queue| {
        let spent = seconds(|| {
            std::thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        for _ in 0..calls {
                            send(queue, batch, batch);
                            drain(queue, batch, batch);
                        }
                    });
                }
            });
        });
        (64 * calls * batch) as f64 / spent
    })
}

/// Microseconds at the median, of a synced send and of a bare write with fdatasync, in turns.
fn synced_send_and_floor() -> (f64, f64) {
    let scratch = Scratch::new("floor");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(scratch.path().join("floor"))
        .expect("file");
    file.write_all_at(&vec![0; 4 << 20], 0).expect("blocks");
    file.sync_all().expect("sync");
    let body = payload(100, 7);
    let timed = |work: &mut dyn FnMut()| {
        let begin = Instant::now();
        work();
        begin.elapsed().as_secs_f64() * 1e6
    };
    with_queue(Durability::Sync, |queue| {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for at in 0..2000_u64 {
            ours.push(timed(&mut || {
                queue.send(&Message::new(&body)).expect("send");
            }));
            floor.push(timed(&mut || {
                file.write_all_at(&body, at * 128).expect("write");
                file.sync_data().expect("fdatasync");
            }));
        }
        (median(ours), median(floor))
    })
}

fn main() {
    for (batch, sends, drains) in [(1, 2, 1), (10, 4, 2)] {
        let mut drained = Vec::new();
        let sent = rounds(|| {
            with_queue(Durability::Buffered, |queue| {
                let sending = seconds(|| send(queue, MESSAGES, batch));
                drained.push(MESSAGES as f64 / seconds(|| drain(queue, MESSAGES, batch)) / 1e6);
                MESSAGES as f64 / sending / 1e6
            })
        });
        let drained = median(drained);
        println!("buffered, batches of {batch:2}: send          {sent:8.2} M/s    target {sends}");
        println!(
            "buffered, batches of {batch:2}: receive+delete {drained:7.2} M/s    target {drains}"
        );
    }
    for (batch, calls, target) in [(1, 500, 30_000), (10, 250, 150_000)] {
        let rate = rounds(|| synced_cycles(batch, calls));
        println!(
            "synced, 64 threads, batches of {batch:2}       {rate:8.0} cycles/s target {target}"
        );
    }
    let (ours, floor) = synced_send_and_floor();
    println!(
        "synced send, one thread, p50          {ours:8.1} us     {:.2} x fdatasync's {floor:.1}, target 1.1",
        ours / floor
    );
}
