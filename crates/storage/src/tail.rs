//! Who waits for the end of a log to move, and how they are woken without a lock while nobody does.

use std::sync::Weak;
use std::time::Duration;

use crate::planted::{self, Bug};
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex};

/// Somebody who wants to know that there is more to read.
pub trait Wake: Send + Sync {
    /// Called after the high watermark moved, by whoever moved it: must not block.
    fn wake(&self);
}

#[inline]
fn fence_all() {
    if !planted::has(Bug::NotFenced) {
        fence(Ordering::SeqCst);
    }
}

#[derive(Default)]
pub(crate) struct Tail {
    /// Threads that watch, and wakers: the writer looks here before it takes the lock.
    interested: AtomicUsize,
    wakers: Mutex<Vec<Weak<dyn Wake>>>,
    moved: Condvar,
}

impl Tail {
    /// The end has moved.
    #[inline]
    pub fn notify(&self) {
        // Pairs with the fences in `sleep_unless` and `on_move`: either they see the new end, or we see them.
        fence_all();
        if self.interested.load(Ordering::Relaxed) > 0 {
            self.notify_slow();
        }
    }

    #[cold]
    fn notify_slow(&self) {
        let mut gone = 0;
        let mut wakers = self.wakers.lock();
        wakers.retain(|waker| match waker.upgrade() {
            Some(waker) => {
                waker.wake();
                true
            }
            None => {
                gone += 1;
                false
            }
        });
        self.interested.fetch_sub(gone, Ordering::SeqCst);
        drop(wakers);
        self.moved.notify_all();
    }

    /// Asks for a call whenever the end has moved. Where it is now, the caller looks afterwards.
    pub fn on_move(&self, waker: Weak<dyn Wake>) {
        self.wakers.lock().push(waker);
        self.interested.fetch_add(1, Ordering::SeqCst);
        fence_all();
    }

    /// From now on this thread is told.
    pub fn watch(&self) -> Watch<'_> {
        self.interested.fetch_add(1, Ordering::SeqCst);
        Watch { tail: self }
    }
}

/// A thread that waits for the end to move.
pub(crate) struct Watch<'a> {
    tail: &'a Tail,
}

impl Watch<'_> {
    /// Sleeps until the end moves, at most for `nap`, unless `seen` finds what is waited for; returns whether it did.
    pub fn sleep_unless(&self, nap: Duration, seen: impl Fn() -> bool) -> bool {
        let early = planted::has(Bug::LookedBeforeLocked).then(&seen);
        let mut wakers = self.tail.wakers.lock();
        fence_all();
        if early.unwrap_or_else(seen) {
            return true;
        }
        if !nap.is_zero() {
            self.tail.moved.wait_for(&mut wakers, nap);
        }
        false
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.tail.interested.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;

    #[derive(Default)]
    struct Called(AtomicBool);

    impl Wake for Called {
        fn wake(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// There was no fence between the move of a log's end and the look for somebody who waits, nor between the word of
    /// somebody who waits and the look at the end: on a processor that lets a load overtake a store each could miss the other,
    /// and the reader slept on until the next append. Miri lets loads do so; elsewhere this shows little.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody waits meanwhile")]
    fn who_asks_to_be_woken_as_the_end_moves_sees_it_or_is_woken() {
        for _ in 0..20 {
            let (tail, end) = (Tail::default(), AtomicU64::new(0));
            let called = Arc::new(Called::default());
            let waker: Arc<dyn Wake> = Arc::<Called>::clone(&called);
            let seen = std::thread::scope(|threads| {
                threads.spawn(|| {
                    end.fetch_max(1, Ordering::AcqRel);
                    tail.notify();
                });
                tail.on_move(Arc::downgrade(&waker));
                end.load(Ordering::Acquire) == 1
            });
            assert!(seen || called.0.load(Ordering::Relaxed));
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody waits meanwhile")]
    fn who_is_asleep_is_woken_by_the_move_and_who_sees_it_does_not_sleep() {
        let (tail, end) = (Tail::default(), AtomicU64::new(0));
        let has_moved = || end.load(Ordering::Acquire) > 0;
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| {
                let watch = tail.watch();
                while !watch.sleep_unless(Duration::from_secs(3600), has_moved) {}
            });
            end.fetch_max(1, Ordering::AcqRel);
            tail.notify();
            waits.join().unwrap();
        });
        assert_eq!(tail.interested.load(Ordering::Relaxed), 0);
    }
}
