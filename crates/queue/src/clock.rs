//! The queues' clock: the wall clock at open, then monotonic, and never before what the journal knows already.
//!
//! So no jump of the wall clock ends a lease or a delay early or holds one up while the store is open, and after a step back
//! between two opens time goes on where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use logmill_storage::Clock;

use crate::decide::Now;

#[derive(Debug)]
pub(crate) struct QueueClock {
    clock: Arc<dyn Clock>,
    /// The queues' time when `started` was read, in ms.
    time: i64,
    started: Duration,
    /// The wall clock is read once in a ms: then, and what it said.
    read_at: AtomicI64,
    wall: AtomicI64,
}

impl QueueClock {
    /// A clock that shows `time` now.
    pub(crate) fn starting_at(clock: Arc<dyn Clock>, time: i64) -> QueueClock {
        let started = clock.monotonic();
        QueueClock { clock, time, started, read_at: AtomicI64::new(-1), wall: AtomicI64::new(0) }
    }

    #[inline]
    pub(crate) fn now(&self) -> Now {
        let passed = self.clock.monotonic().saturating_sub(self.started);
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        if self.read_at.load(Ordering::Acquire) != passed {
            self.wall.store(self.clock.wall_ms(), Ordering::Release);
            self.read_at.store(passed, Ordering::Release);
        }
        Now { time: self.time.saturating_add(passed), wall: self.wall.load(Ordering::Acquire) }
    }
}
