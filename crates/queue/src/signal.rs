//! How those who wait at a queue learn that something happened there: threads, and tasks of a runtime.

use std::time::Duration;

use parking_lot::{Condvar, MutexGuard};

use crate::engine::Engine;

#[derive(Debug, Default)]
pub(crate) struct Signal {
    threads: Condvar,
    #[cfg(feature = "tokio")]
    tasks: tokio::sync::Notify,
}

impl Signal {
    /// There is something for one of them.
    pub(crate) fn notify_one(&self) {
        self.threads.notify_one();
        #[cfg(feature = "tokio")]
        self.tasks.notify_one();
    }

    /// All of them look again.
    pub(crate) fn notify_all(&self) {
        self.threads.notify_all();
        #[cfg(feature = "tokio")]
        self.tasks.notify_waiters();
    }

    /// Blocks until there is news, at most for `pause`.
    pub(crate) fn wait_for(&self, engine: &mut MutexGuard<'_, Engine>, pause: Duration) {
        self.threads.wait_for(engine, pause);
    }

    /// News from the moment of this call on.
    #[cfg(feature = "tokio")]
    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.tasks.notified()
    }
}
