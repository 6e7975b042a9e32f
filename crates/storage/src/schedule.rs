//! Background work: tasks that ask to be run later, on a few threads or, in a simulation, by the caller.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Clock;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};

/// Something to do in the background.
pub trait Task: Debug + Send + Sync {
    /// Does what is due, and asks to be run again if more is to come. Keeps its errors for whoever asks.
    fn run(self: Arc<Self>);
}

struct Due {
    at: Duration,
    /// Tasks that are due at the same time run in the order in which they asked.
    ticket: u64,
    task: Weak<dyn Task>,
    /// Run again so long after the end of each run.
    every: Option<Duration>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.ticket) == (other.at, other.ticket)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.ticket).cmp(&(other.at, other.ticket))
    }
}

#[derive(Default)]
struct State {
    due: BinaryHeap<Reverse<Due>>,
    next_ticket: u64,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Runs tasks when they are due.
pub(crate) struct Schedule {
    shared: Arc<Shared>,
    threads_max: usize,
}

impl Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule").field("threads_max", &self.threads_max).finish_non_exhaustive()
    }
}

impl Schedule {
    /// With at most `threads_max` threads, started when there is something to do; with none, [`run_due`](Self::run_due) does it.
    pub fn new(clock: Arc<dyn Clock>, threads_max: usize) -> Schedule {
        Schedule {
            shared: Arc::new(Shared { clock, state: Mutex::default(), changed: Condvar::new() }),
            threads_max,
        }
    }

    /// Runs `task` once, `delay` from now, unless it is gone by then.
    pub fn after(&self, delay: Duration, task: Weak<dyn Task>) {
        self.add(delay, None, task);
    }

    /// Runs `task` after `interval`, again and again, until it is gone.
    pub fn every(&self, interval: Duration, task: Weak<dyn Task>) {
        self.add(interval, Some(interval), task);
    }

    #[expect(clippy::disallowed_methods, reason = "the background threads")]
    fn add(&self, delay: Duration, every: Option<Duration>, task: Weak<dyn Task>) {
        let at = self.shared.clock.monotonic().saturating_add(delay);
        let mut state = self.shared.state.lock();
        if state.stopped {
            return;
        }
        state.push(at, task, every);
        if state.threads.len() < self.threads_max {
            let shared = Arc::clone(&self.shared);
            let named = thread::Builder::new().name("logmill".to_owned());
            // Without a thread the work waits for the next append, sync or close that does it on the way.
            if let Ok(thread) = named.spawn(move || shared.serve()) {
                state.threads.push(thread);
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Runs what is due, on this thread.
    pub fn run_due(&self) {
        let now = self.shared.clock.monotonic();
        loop {
            // The lock must be free while the task runs: it may ask to be run again.
            let Some(due) = self.shared.state.lock().take(now) else { return };
            self.shared.run(due);
        }
    }

    /// Drops what has not begun and waits for what has.
    pub fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        let dropped = std::mem::take(&mut state.due);
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        drop(dropped);
        self.shared.changed.notify_all();
        let own = thread::current().id();
        for thread in threads {
            // The last handle of a store may be dropped by a task itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn push(&mut self, at: Duration, task: Weak<dyn Task>, every: Option<Duration>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.due.push(Reverse(Due { at, ticket, task, every }));
    }

    fn take(&mut self, now: Duration) -> Option<Due> {
        match self.due.peek() {
            Some(Reverse(due)) if due.at <= now => self.due.pop().map(|Reverse(due)| due),
            _ => None,
        }
    }
}

impl Shared {
    fn run(&self, due: Due) {
        let Some(task) = due.task.upgrade() else { return };
        task.run();
        if let Some(interval) = due.every {
            let at = self.clock.monotonic().saturating_add(interval);
            let mut state = self.state.lock();
            if !state.stopped {
                state.push(at, due.task, due.every);
            }
        }
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            let now = self.clock.monotonic();
            if let Some(due) = state.take(now) {
                drop(state);
                self.run(due);
                state = self.state.lock();
                continue;
            }
            match state.due.peek().map(|Reverse(due)| due.at - now) {
                Some(delay) => drop(self.changed.wait_for(&mut state, delay)),
                None => self.changed.wait(&mut state),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::ManualClock;

    #[derive(Debug)]
    struct Again {
        schedule: Schedule,
        runs: AtomicU32,
    }

    impl Task for Again {
        fn run(self: Arc<Self>) {
            self.runs.fetch_add(1, Ordering::SeqCst);
            self.schedule.after(
                Duration::from_secs(1),
                Arc::downgrade(&(Arc::clone(&self) as Arc<dyn Task>)),
            );
        }
    }

    #[test]
    fn without_threads_a_task_may_ask_to_be_run_again_while_it_runs() {
        let clock = Arc::new(ManualClock::at(0));
        let task =
            Arc::new(Again { schedule: Schedule::new(clock.clone(), 0), runs: AtomicU32::new(0) });
        task.schedule.after(Duration::ZERO, Arc::downgrade(&(Arc::clone(&task) as Arc<dyn Task>)));
        task.schedule.run_due();
        task.schedule.run_due();
        assert_eq!(task.runs.load(Ordering::SeqCst), 1);
        clock.advance(Duration::from_secs(1));
        task.schedule.run_due();
        assert_eq!(task.runs.load(Ordering::SeqCst), 2);
    }

    #[derive(Debug, Default)]
    struct Count(AtomicU32);

    impl Task for Count {
        fn run(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_runs_at_intervals_does_so_until_it_is_gone() {
        let clock = Arc::new(ManualClock::at(0));
        let (schedule, task) = (Schedule::new(clock.clone(), 0), Arc::new(Count::default()));
        let weak: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(&task) as Arc<dyn Task>));
        schedule.every(Duration::from_secs(10), weak);
        for seconds in 1..=30 {
            clock.advance(Duration::from_secs(1));
            schedule.run_due();
            assert_eq!(task.0.load(Ordering::SeqCst), seconds / 10);
        }
        drop(task);
        clock.advance(Duration::from_secs(10));
        schedule.run_due();
        assert!(schedule.shared.state.lock().due.is_empty());
    }
}
