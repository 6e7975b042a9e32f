use std::sync::OnceLock;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::{Clock, DataDir, DataDirOptions, ManualClock};

use super::*;
use crate::{Message, QueueConfig, Queues, QueuesOptions};

fn queues(clock: Arc<dyn Clock>) -> (DataDir, Queues) {
    let options = DataDirOptions::new().threads(0).clock(clock);
    let dir = options.open_with(SimDisk::new(1).io()).unwrap();
    let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
    (dir, queues)
}

/// The threads that had been started went on without anybody who could stop them.
#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn a_worker_that_cannot_start_all_its_threads_stops_the_others() {
    let (_dir, queues) = queues(Arc::new(ManualClock::at(0)));
    let queue = queues.create("q", &QueueConfig::standard()).unwrap();
    queue.send(&Message::new(b"m")).unwrap();
    let queues = Arc::new(queues);
    let (handled, ends) = (Arc::new(AtomicU64::new(0)), Arc::clone(&queues));
    let counted = Arc::clone(&handled);
    let handler = move |_: &ReceivedMessage| {
        counted.fetch_add(1, Ordering::SeqCst);
        // Who is at work has an end of it, in this test.
        ends.delete("q").map_err(Failure::from)
    };
    let mut started: Vec<Work> = Vec::new();
    let refused = queue.worker(WorkerOptions::new().threads(3)).run_on(handler, |work| {
        if started.len() == 2 {
            return Err(io::Error::other("no more threads"));
        }
        started.push(work);
        std::thread::Builder::new().spawn(|| {})
    });
    assert!(matches!(refused, Err(Error::Thread(_))));
    assert_eq!(started.len(), 2);
    started.into_iter().for_each(|work| work());
    assert_eq!(handled.load(Ordering::SeqCst), 0);
    assert_eq!(queue.counts().unwrap().ready, 1);
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// A clock that tells when it is looked at.
struct Hooked {
    clock: ManualClock,
    hook: OnceLock<Hook>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.clock.fmt(f)
    }
}

impl Clock for Hooked {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        if let Some(hook) = self.hook.get() {
            hook();
        }
        self.clock.monotonic()
    }
}

/// A worker could end between the look at what is due and its extension, and what it had given back was taken once more.
#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn no_end_of_a_worker_comes_between_what_is_due_and_its_extension() {
    let clock = Arc::new(Hooked { clock: ManualClock::at(0), hook: OnceLock::new() });
    let (_dir, queues) = queues(Arc::<Hooked>::clone(&clock));
    let queue = queues.create("q", &QueueConfig::standard()).unwrap();
    queue.send(&Message::new(b"m")).unwrap();
    let receipt = *queue.receive(&ReceiveOptions::new()).unwrap()[0].receipt();
    let held = HashMap::from([(1, (receipt, Duration::ZERO))]);
    let crew = Arc::new(Crew {
        queue: queue.clone(),
        lease: Duration::from_secs(60),
        stop: AtomicBool::new(false),
        counters: Counters::default(),
        at_work: Mutex::new(AtWork { next: 1, held, threads: 0, done: false }),
        changed: Condvar::new(),
    });
    let (seen, watched) = (Arc::new(OnceLock::new()), Arc::clone(&crew));
    let first = Arc::clone(&seen);
    let hook = move || {
        // The extension looks at the clock when it has the queues for itself.
        if watched.queue.shared.engine.is_locked() {
            first.get_or_init(|| watched.at_work.is_locked());
        }
    };
    assert!(clock.hook.set(Box::new(hook)).is_ok());
    let keeper = std::thread::spawn({
        let crew = Arc::clone(&crew);
        move || crew.keep_leases()
    });
    while seen.get().is_none() {
        std::thread::yield_now();
    }
    crew.finish(Duration::ZERO);
    keeper.join().unwrap();
    assert_eq!(seen.get(), Some(&true), "whether a worker had to wait with its end");
    let report = crew.report();
    assert_eq!((report.released, report.errors), (1, 0));
    assert_eq!(queue.counts().unwrap().ready, 1);
}
