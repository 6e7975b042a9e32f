//! What the background does: expires what nobody looks at, fires schedules, moves dead letters, writes checkpoints, gives
//! back space.

use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{Reach, Task};

use crate::carry::QueueOwner;
use crate::checkpoint;
use crate::engine::Engine;
use crate::error::Result;
use crate::shared::{Level, OWNER, Shared};

/// What could not be done is tried again after this time.
const RETRY_MS: i64 = 1000;
/// The same for checkpoints and for giving back space, which may have to read much before they fail.
const RETRY_SPACE_MS: i64 = 60_000;

/// An allocator keeps what it was given back for later; glibc's does not keep a block of more than 32 MiB.
const GIVEN_BACK: usize = 33 << 20;

impl Task for Shared {
    fn run(self: Arc<Self>) {
        self.keep();
    }
}

impl Shared {
    /// Does what is due. An error is met again by the next call that needs what it concerns.
    pub(crate) fn keep(&self) {
        if self.dir.is_read_only() {
            return;
        }
        let read = self.read_for_redrives();
        let mut engine = self.lock();
        if engine.is_closed {
            return;
        }
        engine.keeper_at = i64::MAX;
        let now = self.now();
        let queues: Vec<u32> = engine.slots.keys().copied().collect();
        let mut next = i64::MAX;
        let mut failed = read.err().map(|error| error.to_string());
        for queue in queues {
            let expired = self.expire(&mut engine, queue, now);
            let stepped = self.step_redrive(&mut engine, queue, now);
            let fired = self.fire_due(&mut engine, queue, now);
            let later = Some(now.time + RETRY_MS);
            let errors = [expired.as_ref().err(), stepped.as_ref().err(), fired.as_ref().err()];
            if let Some(error) = errors.into_iter().flatten().next() {
                failed = Some(error.to_string());
            }
            let expiry = engine.slots.get(&queue).and_then(|slot| slot.state.next_expiry());
            let expiry = if expired.is_ok() { expiry } else { later };
            let moments = [expiry, stepped.unwrap_or(later), fired.unwrap_or(later)];
            next = moments.into_iter().flatten().min().unwrap_or(i64::MAX).min(next);
        }
        let is_retry = engine.space_due.is_some_and(|due| due <= now.time);
        let is_much = engine.unchecked_bytes > self.checkpoint_interval(&engine);
        let due = is_retry || is_much && engine.space_due.is_none();
        // At least a millisecond on, so that what cannot be done now is not tried without end.
        if next < i64::MAX {
            self.wake_keeper(&mut engine, next.max(now.time + 1));
        }
        let abandoned = std::mem::take(&mut engine.abandoned);
        drop(engine);
        self.dir.note("queues", &failed.map_or(Ok(()), Err));
        for queue in abandoned {
            // A sync that fails poisons the journal, which says so.
            if self.settle(Level::sync()).is_ok() {
                self.show(queue);
            }
        }
        if due {
            // Space is given back even if there is none for the state.
            let (written, reclaimed) = (self.checkpoint(), self.reclaim());
            if let Some(keeper) = self.space_keeper.get() {
                self.dir.after(Duration::ZERO, Weak::clone(keeper));
            }
            let done = written.and(reclaimed);
            let mut engine = self.lock();
            engine.space_tried = now.time;
            engine.space_due = done.is_err().then(|| now.time.saturating_add(RETRY_SPACE_MS));
            if let Some(due) = engine.space_due {
                self.wake_keeper(&mut engine, due);
            }
            drop(engine);
            self.dir.note("checkpoint of queues", &done);
        }
    }

    /// Has the background see soon whether space can be given back: the disk is full.
    pub(crate) fn want_space(&self, engine: &mut Engine) {
        let tried = engine.space_tried.saturating_add(RETRY_SPACE_MS);
        let due = *engine.space_due.get_or_insert(tried.max(self.now().time));
        self.wake_keeper(engine, due);
    }

    /// Writing the state must not cost more than what is journaled meanwhile.
    pub(crate) fn checkpoint_interval(&self, engine: &Engine) -> u64 {
        self.options.checkpoint_bytes.max(engine.checkpoint_len.saturating_mul(2)).min(1 << 30)
    }

    pub(crate) fn checkpoint(&self) -> Result<()> {
        let _one_at_a_time = self.reclaiming.lock();
        let mut engine = self.lock();
        let reach = Reach { hot: self.journal.reach().hot, cold: engine.cold_known };
        // Room enough at once: a buffer that grows leaves its smaller ones behind. What is not touched costs nothing.
        let expected = usize::try_from(engine.checkpoint_len).unwrap_or(0);
        let mut state = Vec::with_capacity((expected + expected / 4).max(GIVEN_BACK));
        checkpoint::save(&mut engine, &mut state);
        engine.checkpoint_len = state.len() as u64;
        let unchecked = std::mem::take(&mut engine.unchecked_bytes);
        drop(engine);
        let written = self.journal.checkpoint(OWNER, reach, &state);
        if written.is_err() {
            self.lock().unchecked_bytes += unchecked;
        }
        Ok(written?)
    }

    pub(crate) fn reclaim(&self) -> Result<()> {
        let _one_at_a_time = self.reclaiming.lock();
        if !self.owns_journal.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(());
        }
        let owner = QueueOwner { shared: self.this.upgrade().ok_or(crate::error::Error::Closed)? };
        let done = self.journal.reclaim(&[&owner])?;
        self.lock().reclaimed.add(&done);
        Ok(())
    }
}
