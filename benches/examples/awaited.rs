//! What waiting in a task adds to a call, beside the same call that blocks: `cargo run --release -p logmill-benches --example awaited`.
//! The two take turns, call by call, so that a machine that drifts drifts for both. Tasks run on a runtime of one thread. The last
//! row has nothing of logmill in it: a sync by the thread that wants it, and by another one that is asked and answers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use logmill::{
    AppendOptions, Consumer, ConsumerConfig, Durability, Message, Partition, Producer,
    ProducerConfig, ProducerRecord, Queue, QueueConfig, ReceiveOptions, Record, StartAt, Store,
    TopicConfig,
};
use logmill_benches::{Scratch, payload};

/// Calls of each kind; a thirtieth of it where each waits for the disk.
const CALLS: usize = 60_000;

/// Times an expression and gives back its value.
macro_rules! timed {
    ($spent:expr, $call:expr) => {{
        let begin = Instant::now();
        let value = $call;
        $spent.push(begin.elapsed());
        value.expect("call")
    }};
}

const PAGE: usize = 4096;
const PAGES: usize = 4096;

fn main() {
    let scratch = Scratch::new("awaited");
    let store = Store::open(scratch.path()).expect("open");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    println!(
        "{:<34} {:>11} {:>11} {:>9} {:>11}",
        "p50, microseconds", "blocking", "awaited", "added", "by a pool"
    );
    for durability in [Durability::Buffered, Durability::Sync] {
        let sides = Sides::new(&store, durability);
        runtime.block_on(sides.run());
    }
    store.close().expect("close");
    bare(&scratch.path().join("bare"));
}

/// What two hand-overs between sleeping threads add to a sync: no awaited call can add less.
fn bare(path: &Path) {
    let file = File::create(path).expect("create");
    file.write_all_at(&vec![0; PAGE * PAGES], 0).expect("write");
    file.sync_all().expect("sync");
    let sync = |n: usize| {
        file.write_all_at(&[1; 150], (n % PAGES * PAGE) as u64).and_then(|()| file.sync_data())
    };
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let mut spent = Spent::default();
    std::thread::scope(|threads| {
        threads.spawn(move || asked.iter().try_for_each(|n| answer.send(sync(n))));
        for n in 0..CALLS / 30 {
            timed!(spent.blocking, sync(n));
            timed!(spent.awaited, {
                ask.send(n).expect("a thread");
                answered.recv().expect("a thread")
            });
        }
        drop(ask);
    });
    spent.print("bare", "write and sync");
}

struct Sides {
    name: &'static str,
    calls: usize,
    queue: Queue,
    partition: Partition,
    producer: Producer,
    consumer: Consumer,
    value: Vec<u8>,
}

/// Both sides' durations of one call.
#[derive(Default)]
struct Spent {
    blocking: Vec<Duration>,
    awaited: Vec<Duration>,
    /// The blocking call on a thread of the runtime's pool, which is what a call without a twin would cost a task.
    pooled: Vec<Duration>,
}

impl Spent {
    fn print(mut self, level: &str, what: &str) {
        let p50 = |spent: &mut Vec<Duration>| {
            spent.sort_unstable();
            spent[spent.len() / 2].as_nanos() as f64 / 1e3
        };
        let (blocking, awaited) = (p50(&mut self.blocking), p50(&mut self.awaited));
        let what = format!("{level}: {what}");
        print!("{what:<34} {blocking:>11.2} {awaited:>11.2} {:>9.2}", awaited - blocking);
        match self.pooled.is_empty() {
            true => println!(),
            false => println!(" {:>11.2}", p50(&mut self.pooled)),
        }
    }
}

impl Sides {
    fn new(store: &Store, durability: Durability) -> Sides {
        let (name, calls) = match durability {
            Durability::Sync => ("synced", CALLS / 30),
            _ => ("buffered", CALLS),
        };
        let queue = store
            .create_queue(name, &QueueConfig::standard().durability(durability))
            .expect("queue");
        let topic =
            store.create_topic(name, TopicConfig::new().durability(durability)).expect("topic");
        let config = ProducerConfig::new().linger(Duration::ZERO);
        let producer = store.producer_with(config).expect("producer");
        let config = ConsumerConfig::new()
            .start_at(StartAt::Earliest)
            .auto_commit(None)
            .records_max(1)
            .commit_durability(durability);
        let mut consumer = store.consumer_with(name, config).expect("consumer");
        consumer.subscribe(&[name]).expect("subscribe");
        let partition = topic.partition(0).expect("partition");
        Sides { name, calls, queue, partition, producer, consumer, value: payload(100, 7) }
    }

    async fn run(mut self) {
        let (mut sent, mut received, mut deleted) =
            (Spent::default(), Spent::default(), Spent::default());
        let options = ReceiveOptions::new();
        for _ in 0..self.calls {
            let message = Message::new(&self.value);
            timed!(sent.blocking, self.queue.send(&message));
            timed!(sent.awaited, self.queue.send_async(&message).await);
            let (queue, value) = (self.queue.clone(), self.value.clone());
            let call = move || queue.send(&Message::new(&value)).expect("send");
            timed!(sent.pooled, tokio::task::spawn_blocking(call).await);
            let got = self.queue.receive(&options).expect("receive");
            let receipts = [*got[0].receipt()];
            drop(self.queue.delete_batch_with(&receipts, Durability::Buffered).expect("delete"));
            let got = timed!(received.blocking, self.queue.receive(&options));
            timed!(deleted.blocking, self.queue.delete(got[0].receipt()));
            let got = timed!(received.awaited, self.queue.receive_async(&options).await);
            timed!(deleted.awaited, self.queue.delete_async(got[0].receipt()).await);
        }
        sent.print(self.name, "Queue::send");
        received.print(self.name, "Queue::receive");
        deleted.print(self.name, "Queue::delete");

        let (mut appended, mut produced) = (Spent::default(), Spent::default());
        let options = AppendOptions::default();
        for _ in 0..self.calls {
            let record = Record::value(&self.value);
            timed!(appended.blocking, self.partition.append(&record));
            timed!(
                appended.awaited,
                async { self.partition.submit(&[record], &options).expect("submit").await }.await
            );
            let record = ProducerRecord::new(self.name, &self.value);
            timed!(produced.blocking, self.producer.send(&record).and_then(|sent| sent.wait()));
            timed!(produced.awaited, self.producer.send_async(&record).await);
        }
        appended.print(self.name, "Partition::append");
        produced.print(self.name, "Producer::send and wait");

        let (mut polled, mut committed) = (Spent::default(), Spent::default());
        let wait = Duration::from_secs(1);
        for _ in 0..self.calls {
            let records = timed!(polled.blocking, self.consumer.poll(wait));
            assert_eq!(records.len(), 1);
            timed!(committed.blocking, self.consumer.commit());
            let records = timed!(polled.awaited, self.consumer.poll_async(wait).await);
            assert_eq!(records.len(), 1);
            timed!(committed.awaited, self.consumer.commit_async().expect("commit").await);
        }
        polled.print(self.name, "Consumer::poll");
        committed.print(self.name, "Consumer::commit");
    }
}
