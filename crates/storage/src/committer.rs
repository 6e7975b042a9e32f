//! The thread that syncs on behalf of those who wait without blocking.

use std::sync::Arc;

use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use crate::writer::Writer;

#[derive(Debug, Default)]
struct State {
    wanted: Vec<Arc<Writer>>,
    thread: Option<JoinHandle<()>>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Syncs logs for which a task waits. It has one thread, from the first such wait on.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
}

impl Committer {
    /// Has the thread sync `writer`; gives it back if there is no thread.
    #[expect(clippy::disallowed_methods, reason = "the commit thread")]
    pub fn request(&self, writer: Arc<Writer>) -> Result<(), Arc<Writer>> {
        let mut state = self.shared.state.lock();
        if !state.stopped && state.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let named = thread::Builder::new().name("logmill-commit".to_owned());
            state.thread = named.spawn(move || shared.serve()).ok();
        }
        if state.stopped || state.thread.is_none() {
            return Err(writer);
        }
        state.wanted.push(writer);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Syncs what was asked for, and ends the thread.
    pub fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        let thread = state.thread.take();
        drop(state);
        self.shared.changed.notify_one();
        if let Some(thread) = thread
            // The last handle of a store may be dropped by this thread.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if !state.wanted.is_empty() {
                let wanted = std::mem::take(&mut state.wanted);
                drop(state);
                wanted.iter().for_each(|writer| writer.commit_requested());
                drop(wanted);
                state = self.state.lock();
            } else if state.stopped {
                return;
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}
