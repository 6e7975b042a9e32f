//! Many threads at once, and the worker loop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use logmill_queue::{
    Durability, Failure, Message, Queue, QueueConfig, Queues, QueuesOptions, ReceiveOptions, Retry,
    WorkerOptions,
};
use logmill_storage::io::sim::SimDisk;
use logmill_storage::{Clock, DataDirOptions, SystemClock};
use parking_lot::Mutex;

use crate::model::Random;
use crate::store::{Store, ms, receive, receive_one, send, send_each, text};

#[test]
fn a_worker_retries_by_policy_rejects_and_survives_panics() {
    let store = Store::in_real_time();
    store.create("dead", QueueConfig::standard());
    let retry = Retry::Fixed { delay: ms(1) };
    let queue = store.create("q", QueueConfig::standard().dead_letter("dead", 3).retry(retry));
    send_each(&queue, &["good", "flaky", "broken", "panics", "hopeless"]);
    let worker = queue.worker(WorkerOptions::new().threads(2)).run(|message| {
        match text(message.body()).as_str() {
            "flaky" if message.receive_count() < 3 => Err(Failure::Retry("not yet".to_owned())),
            "broken" => Err(std::io::Error::other("it is broken").into()),
            "panics" => panic!("on purpose"),
            "hopeless" => Err(Failure::Reject("never".to_owned())),
            _ => Ok(()),
        }
    });
    let worker = worker.unwrap();
    let dead = store.queue("dead");
    while queue.counts().unwrap() != Default::default() || dead.counts().unwrap().ready < 3 {
        std::thread::yield_now();
    }
    let report = worker.shutdown(Duration::from_secs(3600));
    assert_eq!((report.succeeded, report.failed, report.panicked), (2, 2 + 3 + 3 + 1, 3));
    let mut letters = HashMap::new();
    while let Some(letter) = crate::store::receive(&dead, 1).pop() {
        letters.insert(text(letter.body()), letter.earlier_history().unwrap().clone());
    }
    assert_eq!(letters["broken"].last_reason.as_deref(), Some("it is broken"));
    assert_eq!(letters["panics"].last_reason.as_deref(), Some("the handler panicked: on purpose"));
    assert_eq!((letters["panics"].failed, letters["hopeless"].receives), (3, 1));
}

#[test]
fn a_lease_is_kept_up_while_its_handler_runs() {
    let store = Store::in_real_time();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "slow");
    let runs = Arc::new(AtomicU64::new(0));
    let (seen, watched) = (Arc::clone(&runs), queue.clone());
    let worker =
        queue.worker(WorkerOptions::new().threads(2).lease(ms(3000))).run(move |message| {
            seen.fetch_add(1, Ordering::SeqCst);
            let extended = |until: i64| {
                watched.find(message.id()).is_ok_and(|m| match m.state() {
                    logmill_queue::MessageState::InFlight { until: now } => now > until + 200,
                    _ => false,
                })
            };
            let logmill_queue::MessageState::InFlight { until } = message.state() else {
                return Ok(());
            };
            while !extended(until) {
                std::thread::yield_now();
            }
            Ok(())
        });
    let worker = worker.unwrap();
    while queue.counts().unwrap() != Default::default() {
        std::thread::yield_now();
    }
    assert_eq!(worker.shutdown(Duration::from_secs(3600)).succeeded, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_shutdown_gives_back_what_does_not_finish_in_time() {
    let store = Store::in_real_time();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "endless");
    let (gate, at_gate) = (Arc::new(Mutex::new(())), Arc::new(AtomicU64::new(0)));
    let closed = gate.lock();
    let (waits, arrived) = (Arc::clone(&gate), Arc::clone(&at_gate));
    let worker = queue.worker(WorkerOptions::new()).run(move |_| {
        arrived.fetch_add(1, Ordering::SeqCst);
        drop(waits.lock());
        Ok(())
    });
    let worker = worker.unwrap();
    while at_gate.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let report = worker.shutdown(ms(1));
    assert_eq!((report.released, report.succeeded), (1, 0));
    let again = receive_one(&queue);
    assert_eq!((again.receive_count(), again.history().released), (2, 1));
    drop(closed);
}

/// A clock that counts how often one thread has looked at it.
#[derive(Debug)]
struct Watched {
    clock: SystemClock,
    thread: ThreadId,
    looks: AtomicU64,
}

impl Clock for Watched {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        if std::thread::current().id() == self.thread {
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
        self.clock.monotonic()
    }
}

#[test]
fn a_receive_that_waits_looks_when_it_comes_and_when_a_message_does_and_never_between() {
    let thread = std::thread::current().id();
    let clock = Watched { clock: SystemClock::new(), thread, looks: AtomicU64::new(0) };
    let clock = Arc::new(clock);
    let options = DataDirOptions::new().threads(0).clock(Arc::<Watched>::clone(&clock));
    let dir = options.open_with(SimDisk::new(1).io()).unwrap();
    let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
    let config = QueueConfig::standard().visibility_timeout(ms(300));
    let queue = queues.create("q", &config).unwrap();
    queue.send(&Message::new(b"m").delay(ms(300))).unwrap();
    for count in 1..=2 {
        let before = clock.looks.load(Ordering::SeqCst);
        let wait = ReceiveOptions::new().wait(Duration::from_secs(3600));
        assert_eq!(queue.receive(&wait).unwrap()[0].receive_count(), count);
        // For the end of its wait, at the queue before it waits, and at the end of the delay or the timeout.
        assert_eq!(clock.looks.load(Ordering::SeqCst) - before, 3, "receive {count}");
    }
}

/// How many messages: 20,000, or as `LOGMILL_QUEUE_MESSAGES` says. A million take a quarter of a minute in a release build.
fn messages() -> u64 {
    std::env::var("LOGMILL_QUEUE_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// What the workers of the test below know together.
#[derive(Default)]
struct Watch {
    handled: AtomicU64,
    /// Messages that a living worker has in its hands.
    holding: AtomicU64,
    died: AtomicU64,
    receives: Mutex<HashSet<(bool, u64, u32)>>,
    last_of_group: Mutex<HashMap<String, u64>>,
}

impl Watch {
    /// Works until `total` messages are handled; now and then dies with what it has and is replaced.
    fn work(&self, queue: &Queue, is_fifo: bool, seed: u64, total: u64) {
        let mut random = Random::new(seed);
        while self.handled.load(Ordering::SeqCst) < total {
            self.holding.fetch_add(10, Ordering::SeqCst);
            for message in receive(queue, 1 + random.below(10) as usize) {
                let receive = (is_fifo, message.sequence(), message.receive_count());
                assert!(
                    self.receives.lock().insert(receive),
                    "one receive for two holders: {receive:?}"
                );
                if random.below(300) == 0 {
                    self.died.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                let group = message.group().unwrap_or_default().to_owned();
                let last = self.last_of_group.lock().get(&group).copied().unwrap_or(0);
                queue.delete(message.receipt()).unwrap();
                if is_fifo {
                    assert!(message.sequence() > last, "group {group} went back to {last}");
                    self.last_of_group.lock().insert(group, message.sequence());
                }
                self.handled.fetch_add(1, Ordering::SeqCst);
            }
            self.holding.fetch_sub(10, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn every_message_is_handled_by_one_holder_at_a_time_and_in_order_in_its_group_though_workers_die() {
    let options = QueuesOptions::default().durability(Durability::Buffered);
    let store = Store::with(1, options);
    let plain = store.create("q", QueueConfig::standard());
    let fifo = store.create("q.fifo", QueueConfig::fifo());
    let (senders, workers) = (8, 32);
    let total = messages() / senders * senders;
    let watch = Watch::default();
    std::thread::scope(|scope| {
        for sender in 0..senders {
            let (plain, fifo) = (&plain, &fifo);
            scope.spawn(move || {
                for i in 0..total / senders {
                    let body = format!("{sender}-{i}");
                    let message = Message::new(body.as_bytes());
                    if sender % 2 == 0 {
                        plain.send(&message).unwrap();
                    } else {
                        // A sender's groups are its own, so that its order is the group's.
                        let group = format!("{sender}-{}", i % 50);
                        fifo.send(&message.group(&group).deduplication_id(&body)).unwrap();
                    }
                }
            });
        }
        for worker in 0..workers {
            let (queue, watch) = (if worker % 2 == 0 { &plain } else { &fifo }, &watch);
            scope.spawn(move || watch.work(queue, worker % 2 == 1, worker, total));
        }
        // Time passes only while no living worker holds anything, so only the leases of the dead run out.
        while watch.handled.load(Ordering::SeqCst) < total {
            let idle = [&plain, &fifo].iter().all(|queue| queue.peek(1).unwrap().is_empty());
            if idle && watch.holding.load(Ordering::SeqCst) == 0 {
                store.pass(30_000);
            }
            std::thread::yield_now();
        }
    });
    assert!(watch.died.load(Ordering::SeqCst) > 0);
    assert_eq!(watch.handled.load(Ordering::SeqCst), total);
    for queue in [&plain, &fifo] {
        assert_eq!(queue.counts().unwrap(), Default::default());
        let tally = queue.tally().unwrap();
        assert_eq!((tally.sent, tally.deleted), (total / 2, total / 2));
    }
}

#[test]
fn options_of_a_store_can_be_buffered() {
    let options = QueuesOptions::default().durability(Durability::Buffered);
    let mut store = Store::with(3, options);
    send(&store.create("q", QueueConfig::standard()), "m");
    store.kill();
    assert_eq!(receive_one(&store.queue("q")).body(), b"m", "kill -9 takes nothing");
}
