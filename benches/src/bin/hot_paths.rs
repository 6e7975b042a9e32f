//! One hot path at a time, `COUNT` records of it: `cargo run --release -p logmill-benches --bin hot_paths -- append 1000000`.
//! For perf and callgrind; the printed time says how fast it was. `.ci/instructions` counts instructions with it.

use std::path::Path;

use logmill::{Message, Queue, QueueConfig, ReceiveOptions, Store};
use logmill_benches::{Scratch, filled, payload, seconds, streams};
use logmill_storage::{AppendOptions, DataDirOptions, Durability, Log, LogConfig, Record};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(count)) = (arguments.next(), arguments.next()) else {
        eprintln!(
            "usage: hot_paths append|append_100|synced|submit|scan|scan_100|get_100|send|send_10|receive_delete|receive_delete_10|poll COUNT [THREADS [BYTES]]"
        );
        std::process::exit(2);
    };
    let mut number = |default| arguments.next().map_or(default, |n| n.parse().expect("a number"));
    let (threads, bytes) = (number(0), number(100));
    let count: usize = count.parse().expect("a count");
    let scratch = Scratch::new("hot");
    let dir = DataDirOptions::new().threads(threads).open(scratch.path()).expect("directory");
    let open = |durability| {
        Log::open(&dir, "1", LogConfig::default().durability(durability)).expect("log")
    };
    let value = payload(bytes, 7);
    let record = Record::value(&value);
    let spent = match path.as_str() {
        "append" => {
            let log = open(Durability::Buffered);
            log.append(&record).expect("append");
            seconds(|| {
                (0..count).for_each(|_| {
                    log.append(&record).expect("append");
                })
            })
        }
        "append_100" => {
            let log = open(Durability::Buffered);
            let records = vec![record; 100];
            log.append_batch(&records).expect("append");
            seconds(|| {
                (0..count / 100).for_each(|_| {
                    log.append_batch(&records).expect("append");
                });
            })
        }
        "synced" => {
            let log = open(Durability::Sync);
            seconds(|| {
                (0..count).for_each(|_| {
                    log.append(&record).expect("append");
                })
            })
        }
        "submit" => {
            let log = open(Durability::Sync);
            let options = AppendOptions::default();
            let mut tickets = std::collections::VecDeque::with_capacity(8192);
            seconds(|| {
                for _ in 0..count {
                    tickets.push_back(log.submit(&[record], &options).expect("submit"));
                    if tickets.len() >= 8192 {
                        tickets.pop_front().expect("a ticket").wait().expect("synced");
                    }
                }
                tickets.drain(..).for_each(|ticket| {
                    ticket.wait().expect("synced");
                });
            })
        }
        "scan" | "scan_100" => {
            let log = filled(&dir, count, bytes, if path == "scan" { 1 } else { 100 });
            let mut read = 0;
            let spent = seconds(|| {
                let mut reader = log.reader(0).expect("reader");
                while let Some(batch) = reader.next_batch().expect("a verified batch") {
                    read += batch
                        .records()
                        .map(|r| r.expect("a record").value.map_or(0, <[u8]>::len))
                        .sum::<usize>();
                }
            });
            assert_eq!(read, count * bytes, "every record is read");
            spent
        }
        "get_100" => {
            let log = filled(&dir, 1_000_000.min(count.next_multiple_of(100)), bytes, 100);
            let end = log.end_offset();
            let mut offset = 1u64;
            seconds(|| {
                for _ in 0..count {
                    offset = (offset
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407))
                        % end;
                    log.get(offset).expect("get").expect("a record");
                }
            })
        }
        "send" => {
            let (_store, queue) = queue(&scratch.path().join("store"), threads);
            seconds(|| send(&queue, &value, count))
        }
        "send_10" => {
            let (_store, queue) = queue(&scratch.path().join("store"), threads);
            let messages = [Message::new(&value); 10];
            seconds(|| {
                for _ in 0..count / 10 {
                    let sent = queue.send_batch(&messages).expect("send");
                    assert!(sent.iter().all(Result::is_ok));
                }
            })
        }
        "receive_delete" => {
            let (_store, queue) = queue(&scratch.path().join("store"), threads);
            send(&queue, &value, count);
            seconds(|| {
                for _ in 0..count {
                    let got = queue.receive(&ReceiveOptions::new()).expect("receive");
                    queue.delete(got[0].receipt()).expect("delete");
                }
            })
        }
        "receive_delete_10" => {
            let (_store, queue) = queue(&scratch.path().join("store"), threads);
            send(&queue, &value, count);
            let options = ReceiveOptions::new().max(10);
            seconds(|| {
                for _ in 0..count / 10 {
                    let got = queue.receive(&options).expect("receive");
                    assert_eq!(got.len(), 10);
                    let receipts: Vec<_> = got.iter().map(|message| *message.receipt()).collect();
                    let deleted = queue.delete_batch(&receipts).expect("delete");
                    assert!(deleted.iter().all(Result::is_ok));
                }
            })
        }
        "poll" => {
            let store =
                Store::builder().threads(0).open(scratch.path().join("store")).expect("store");
            streams::topic(&store, "t", 1, Durability::Buffered);
            streams::produce(&store.producer().expect("producer"), "t", count as u64);
            let mut consumer = streams::consumer(&store, "g", "t");
            seconds(|| streams::poll(&mut consumer, count as u64))
        }
        _ => panic!("no hot path named {path}"),
    };
    println!(
        "{path}: {:.1} ns each, {:.2} M/s",
        spent * 1e9 / count as f64,
        count as f64 / spent / 1e6
    );
}

fn queue(path: &Path, threads: usize) -> (Store, Queue) {
    let store = Store::builder().threads(threads).durability(Durability::Buffered);
    let store = store.open(path).expect("store");
    let queue = store.create_queue("q", &QueueConfig::standard()).expect("queue");
    (store, queue)
}

fn send(queue: &Queue, body: &[u8], count: usize) {
    for _ in 0..count {
        queue.send(&Message::new(body)).expect("send");
    }
}
