//! The worker loop: threads that receive, handle, and delete or return.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::limits::{self, CENTURY_MS, Limit, REASON_BYTES_MAX, within};
use crate::queue::{Queue, ReceiveOptions};
use crate::receipt::Receipt;
use crate::stored::ReceivedMessage;

/// How a handler says that it did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It failed: again, after the delay of the queue's retry policy.
    Retry(String),
    /// It failed: again, after this delay.
    RetryAfter(Duration, String),
    /// It will never succeed: to the dead-letter queue, now.
    Reject(String),
    /// It was not the message's fault: again, at once.
    Release,
}

impl<E: std::error::Error> From<E> for Failure {
    /// Any error means another try, by the queue's retry policy.
    fn from(error: E) -> Failure {
        Failure::Retry(error.to_string())
    }
}

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    threads: usize,
    lease: Option<Duration>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        WorkerOptions { threads: 1, lease: None }
    }
}

impl WorkerOptions {
    /// One thread, the queue's visibility timeout.
    pub fn new() -> WorkerOptions {
        WorkerOptions::default()
    }

    /// How many messages are handled at once: 1 (default) to 1,024.
    pub const fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// For how long a message is taken at a time; while its handler runs it is extended at half of it. If the process
    /// dies, the message comes back after this time. Default: the queue's visibility timeout.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }
}

/// What a worker has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Messages that were handled and deleted.
    pub succeeded: u64,
    /// Messages whose handler failed, panics included.
    pub failed: u64,
    /// Handlers that panicked.
    pub panicked: u64,
    /// Messages that were given back unhandled at the end.
    pub released: u64,
    /// Receives, deletes and returns that the queue refused.
    pub errors: u64,
}

/// What a worker's thread does.
type Work = Box<dyn FnOnce() + Send>;

/// A worker of a queue that is not running yet.
#[derive(Debug)]
pub struct Worker {
    queue: Queue,
    options: WorkerOptions,
}

#[derive(Debug, Default)]
struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    released: AtomicU64,
    errors: AtomicU64,
}

#[derive(Debug)]
struct Crew {
    queue: Queue,
    lease: Duration,
    stop: AtomicBool,
    counters: Counters,
    at_work: Mutex<AtWork>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct AtWork {
    next: u64,
    /// What each handler holds, and when that must be extended, on the worker's clock.
    held: HashMap<u64, (Receipt, Duration)>,
    threads: usize,
    done: bool,
}

impl Queue {
    /// A worker for this queue: see [`Worker::run`].
    pub fn worker(&self, options: WorkerOptions) -> Worker {
        Worker { queue: self.clone(), options }
    }
}

impl Worker {
    /// Starts the threads and returns at once. Each receives a message, runs `handler` on it while its lease is kept up,
    /// and deletes it if the handler returns `Ok`. An `Err` or a panic is a failed attempt: the message comes back by the
    /// queue's retry policy, and after its last permitted receive goes to the dead-letter queue.
    ///
    /// A message may be handled twice (its process died, or stood still for longer than the lease): make handlers
    /// idempotent.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::Thread`]; [`Error::QueueDoesNotExist`].
    #[expect(clippy::disallowed_methods, reason = "a pool of workers is threads")]
    pub fn run<F>(self, handler: F) -> Result<RunningWorker>
    where
        F: Fn(&ReceivedMessage) -> Result<(), Failure> + Send + Sync + 'static,
    {
        self.run_on(handler, |work| {
            std::thread::Builder::new().name("logmill-worker".to_owned()).spawn(work)
        })
    }

    /// As [`run`](Worker::run), on threads that `spawn` starts.
    fn run_on<F>(
        self,
        handler: F,
        mut spawn: impl FnMut(Work) -> io::Result<JoinHandle<()>>,
    ) -> Result<RunningWorker>
    where
        F: Fn(&ReceivedMessage) -> Result<(), Failure> + Send + Sync + 'static,
    {
        let Worker { queue, options } = self;
        within(Limit::WorkerThreads, options.threads as u64, 1, 1024)?;
        let config = queue.config()?;
        let lease = options.lease.unwrap_or(config.get_visibility_timeout());
        limits::duration(
            Limit::VisibilityTimeout,
            lease,
            1,
            config.lease_max_ms.unsigned_abs().min(CENTURY_MS),
        )?;
        let crew = Arc::new(Crew {
            queue,
            lease,
            stop: AtomicBool::new(false),
            counters: Counters::default(),
            at_work: Mutex::new(AtWork { threads: options.threads, ..AtWork::default() }),
            changed: Condvar::new(),
        });
        let handler = Arc::new(handler);
        // Dropped, it stops those threads that were started.
        let mut running = RunningWorker {
            crew: Arc::clone(&crew),
            threads: Vec::with_capacity(options.threads + 1),
        };
        let mut spawn = |work: Work| spawn(work).map_err(Error::Thread);
        for _ in 0..options.threads {
            let (crew, handler) = (Arc::clone(&crew), Arc::clone(&handler));
            running.threads.push(spawn(Box::new(move || crew.work(handler.as_ref())))?);
        }
        running.threads.push(spawn(Box::new(move || crew.keep_leases()))?);
        Ok(running)
    }
}

/// A worker's threads. Dropping it stops them as [`shutdown`](RunningWorker::shutdown) does, without waiting.
#[derive(Debug)]
pub struct RunningWorker {
    crew: Arc<Crew>,
    threads: Vec<JoinHandle<()>>,
}

impl RunningWorker {
    /// What it has done so far.
    pub fn report(&self) -> WorkerReport {
        self.crew.report()
    }

    /// Takes no more messages, waits up to `grace` for the handlers that run, and gives back the messages of those that
    /// still do: others can receive them at once. (Such a handler's thread goes on until the handler returns.)
    pub fn shutdown(mut self, grace: Duration) -> WorkerReport {
        let finished = self.crew.finish(grace);
        for thread in self.threads.drain(..) {
            if finished {
                // A handler's panic was caught, so a thread that panicked is our own mistake, and reported as such.
                if thread.join().is_err() {
                    self.crew.counters.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        self.crew.report()
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.crew.finish(Duration::ZERO);
        }
    }
}

impl Crew {
    fn report(&self) -> WorkerReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        WorkerReport {
            succeeded: read(&self.counters.succeeded),
            failed: read(&self.counters.failed),
            panicked: read(&self.counters.panicked),
            released: read(&self.counters.released),
            errors: read(&self.counters.errors),
        }
    }

    fn count(&self, result: &Result<()>) {
        if result.is_err() {
            self.counters.errors.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn work(&self, handler: &(dyn Fn(&ReceivedMessage) -> Result<(), Failure> + Sync)) {
        let wait =
            ReceiveOptions::new().visibility_timeout(self.lease).wait(Duration::from_secs(3600));
        while !self.stop.load(Ordering::Acquire) {
            match self.queue.receive_unless(&wait, &self.stop) {
                Ok(messages) => messages.iter().for_each(|message| self.handle(message, handler)),
                Err(Error::Closed | Error::QueueDoesNotExist { .. }) => break,
                Err(error) => {
                    self.count(&Err(error));
                    let mut at_work = self.at_work.lock();
                    self.changed.wait_for(&mut at_work, Duration::from_millis(100));
                }
            }
        }
        self.at_work.lock().threads -= 1;
        self.changed.notify_all();
    }

    fn handle(
        &self,
        message: &ReceivedMessage,
        handler: &(dyn Fn(&ReceivedMessage) -> Result<(), Failure> + Sync),
    ) {
        let ticket = {
            let mut at_work = self.at_work.lock();
            at_work.next += 1;
            let ticket = at_work.next;
            let due = self.queue.shared.monotonic() + self.lease / 2;
            at_work.held.insert(ticket, (*message.receipt(), due));
            ticket
        };
        self.changed.notify_all();
        let outcome = catch_unwind(AssertUnwindSafe(|| handler(message)));
        let held = self.at_work.lock().held.remove(&ticket).is_some();
        self.changed.notify_all();
        if !held {
            // It was given back at the end of the worker's time.
            return;
        }
        let receipt = message.receipt();
        let failed = |panicked: bool| {
            self.counters.failed.fetch_add(1, Ordering::AcqRel);
            self.counters.panicked.fetch_add(u64::from(panicked), Ordering::AcqRel);
        };
        let done = match outcome {
            Ok(Ok(())) => self.queue.delete(receipt).inspect(|()| {
                self.counters.succeeded.fetch_add(1, Ordering::AcqRel);
            }),
            Ok(Err(Failure::Release)) => self.queue.release(receipt),
            Ok(Err(Failure::Retry(reason))) => {
                failed(false);
                self.queue.nack(receipt, shortened(&reason))
            }
            Ok(Err(Failure::RetryAfter(delay, reason))) => {
                failed(false);
                self.queue.nack_after(receipt, delay, shortened(&reason))
            }
            Ok(Err(Failure::Reject(reason))) => {
                failed(false);
                self.queue.reject(receipt, shortened(&reason))
            }
            Err(panic) => {
                failed(true);
                let text = panic.downcast_ref::<&str>().copied();
                let text = text
                    .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                    .unwrap_or("no message");
                self.queue.nack(receipt, shortened(&format!("the handler panicked: {text}")))
            }
        };
        self.count(&done);
    }

    /// Extends leases at half their length, as long as anybody works.
    fn keep_leases(&self) {
        let mut at_work = self.at_work.lock();
        while !at_work.done {
            let now = self.queue.shared.monotonic();
            let due: Vec<(u64, Receipt)> = at_work
                .held
                .iter()
                .filter(|(_, (_, due))| *due <= now)
                .map(|(ticket, (receipt, _))| (*ticket, *receipt))
                .collect();
            for (ticket, receipt) in due {
                // Under the lock, so that what a shutdown gives back is not taken again.
                match self.queue.change_visibility(&receipt, self.lease) {
                    // At the end of the longest lease the message is left to its timeout.
                    Err(Error::OutOfBounds { .. }) => set_due(&mut at_work, ticket, Duration::MAX),
                    Err(error) => {
                        self.count(&Err(error));
                        set_due(&mut at_work, ticket, now + self.lease / 2);
                    }
                    Ok(()) => set_due(&mut at_work, ticket, now + self.lease / 2),
                }
            }
            let now = self.queue.shared.monotonic();
            let next = at_work.held.values().map(|(_, due)| due.saturating_sub(now)).min();
            let pause = next.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(1));
            self.changed.wait_for(&mut at_work, pause.min(Duration::from_secs(3600)));
        }
    }

    /// Whether every handler finished in time.
    fn finish(&self, grace: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        self.queue.wake_all();
        let started = self.queue.shared.monotonic();
        let mut at_work = self.at_work.lock();
        while at_work.threads > 0 {
            let passed = self.queue.shared.monotonic().saturating_sub(started);
            let Some(left) = grace.checked_sub(passed).filter(|left| !left.is_zero()) else {
                break;
            };
            self.changed.wait_for(&mut at_work, left);
        }
        at_work.done = true;
        let finished = at_work.threads == 0;
        let held = std::mem::take(&mut at_work.held);
        drop(at_work);
        self.changed.notify_all();
        for (receipt, _) in held.into_values() {
            let released = self.queue.release(&receipt);
            self.counters.released.fetch_add(u64::from(released.is_ok()), Ordering::AcqRel);
        }
        finished
    }
}

fn set_due(at_work: &mut AtWork, ticket: u64, due: Duration) {
    if let Some((_, at)) = at_work.held.get_mut(&ticket) {
        *at = due;
    }
}

/// The reason, as long as a nack takes.
fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
