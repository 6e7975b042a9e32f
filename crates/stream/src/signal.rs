//! How a waiting consumer learns that there is something to do: an append, a rebalance, a call from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use logmill_storage::{Clock, Wake};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::PartitionId;

#[derive(Debug, Default)]
struct State {
    /// Partitions with news.
    ready: Vec<PartitionId>,
    /// Something else than an append happened: the group changed.
    kicked: bool,
    /// Somebody wants a poll to return.
    woken: bool,
    is_waiting: bool,
}

/// The one place where a consumer waits, or a reader.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
    /// When its consumer was last seen, in ns of the store's monotonic clock.
    last_seen: AtomicU64,
    /// While its consumer waits here, it is alive.
    is_polling: AtomicBool,
    #[cfg(feature = "tokio")]
    tasks: tokio::sync::Notify,
}

impl Signal {
    pub(crate) fn kick(&self) {
        let mut state = self.state.lock();
        state.kicked = true;
        self.notify(state);
    }

    pub(crate) fn wake_poll(&self) {
        let mut state = self.state.lock();
        state.woken = true;
        self.notify(state);
    }

    fn push(&self, partition: PartitionId) {
        let mut state = self.state.lock();
        state.ready.push(partition);
        self.notify(state);
    }

    /// Wakes the consumer, after the lock that it needs first is free.
    fn notify(&self, state: MutexGuard<'_, State>) {
        let is_waiting = state.is_waiting;
        drop(state);
        if is_waiting {
            self.changed.notify_one();
            // Kept for a task that is about to wait: it looked while the lock was held.
            #[cfg(feature = "tokio")]
            self.tasks.notify_one();
        }
    }

    /// Takes the partitions with news.
    pub(crate) fn take_ready(&self) -> Vec<PartitionId> {
        std::mem::take(&mut self.state.lock().ready)
    }

    /// Whether somebody wanted the poll to return; asking forgets it.
    pub(crate) fn take_woken(&self) -> bool {
        std::mem::take(&mut self.state.lock().woken)
    }

    /// Waits for any news, at most until `deadline`.
    pub(crate) fn wait_until(&self, clock: &dyn Clock, deadline: Duration) {
        let mut state = self.state.lock();
        loop {
            if !state.ready.is_empty() || state.kicked || state.woken {
                state.kicked = false;
                return;
            }
            let left = deadline.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return;
            }
            state.is_waiting = true;
            self.is_polling.store(true, Ordering::Release);
            self.changed.wait_for(&mut state, left);
            self.is_polling.store(false, Ordering::Release);
            state.is_waiting = false;
        }
    }

    /// As [`Signal::wait_until`], for a task. Dropped before it is ready it has taken no news.
    #[cfg(feature = "tokio")]
    pub(crate) async fn wait_until_async(&self, clock: &dyn Clock, deadline: Duration) {
        let _awaiting = Awaiting::begin(self, clock);
        loop {
            {
                let mut state = self.state.lock();
                if !state.ready.is_empty() || state.kicked || state.woken {
                    state.kicked = false;
                    return;
                }
                state.is_waiting = true;
            }
            let left = deadline.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return;
            }
            // That the time is over is no error: it is time to look again.
            let _ = tokio::time::timeout(left, self.tasks.notified()).await;
        }
    }

    pub(crate) fn seen(&self, now: Duration) {
        self.last_seen.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn last_seen(&self, now: Duration) -> Duration {
        if self.is_polling.load(Ordering::Acquire) {
            return now;
        }
        Duration::from_nanos(self.last_seen.load(Ordering::Relaxed))
    }
}

/// For whoever waits for one partition.
impl Wake for Signal {
    fn wake(&self) {
        self.kick();
    }
}

/// A consumer whose task waits. It is alive until it is woken or gives up, and was seen then.
#[cfg(feature = "tokio")]
struct Awaiting<'a> {
    signal: &'a Signal,
    clock: &'a dyn Clock,
}

#[cfg(feature = "tokio")]
impl<'a> Awaiting<'a> {
    fn begin(signal: &'a Signal, clock: &'a dyn Clock) -> Awaiting<'a> {
        signal.is_polling.store(true, Ordering::Release);
        Awaiting { signal, clock }
    }
}

#[cfg(feature = "tokio")]
impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.signal.state.lock().is_waiting = false;
        // In this order: a poll that was dropped after hours is no silence of hours.
        self.signal.seen(self.clock.monotonic());
        self.signal.is_polling.store(false, Ordering::Release);
    }
}

/// Tells a signal of appends to one partition; only of the first since the consumer last looked.
#[derive(Debug)]
pub(crate) struct Listener {
    partition: PartitionId,
    signal: Arc<Signal>,
    is_flagged: AtomicBool,
}

impl Listener {
    /// One that has told already: the consumer looks at a new partition without being told.
    pub(crate) fn flagged(partition: PartitionId, signal: Arc<Signal>) -> Arc<Listener> {
        Arc::new(Listener { partition, signal, is_flagged: AtomicBool::new(true) })
    }

    /// The consumer has read everything: the next append is news. It has to look once more after this, since an append
    /// may have come just before.
    pub(crate) fn rearm(&self) {
        self.is_flagged.store(false, Ordering::SeqCst);
    }

    /// The consumer has found news by itself, and need not be told.
    pub(crate) fn disarm(&self) {
        self.is_flagged.store(true, Ordering::SeqCst);
    }
}

impl Wake for Listener {
    fn wake(&self) {
        if !self.is_flagged.load(Ordering::SeqCst) && !self.is_flagged.swap(true, Ordering::SeqCst)
        {
            self.signal.push(self.partition);
        }
    }
}
