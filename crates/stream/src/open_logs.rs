//! Which partitions have their log open: idle ones are closed, and beyond a limit the least recently used ones are.

use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::partition::PartitionCore;

/// The partitions with an open log, the one opened longest ago first; those that are being closed are among them.
#[derive(Debug)]
pub(crate) struct OpenLogs {
    open: Mutex<Vec<Weak<PartitionCore>>>,
    /// Held by who closes. Others who open wait for it: what is being closed is still open, and theirs would come on top.
    closing: Mutex<()>,
    max: usize,
}

impl OpenLogs {
    pub(crate) fn new(max: usize) -> OpenLogs {
        OpenLogs { open: Mutex::default(), closing: Mutex::default(), max }
    }

    /// Notes that a partition's log was opened, and makes room for it.
    pub(crate) fn opened(&self, partition: &Arc<PartitionCore>) {
        self.open.lock().push(Arc::downgrade(partition));
        if self.len() <= self.max {
            return;
        }
        let closing = self.closing.lock();
        let excess = self.len().saturating_sub(self.max);
        if excess > 0 {
            // A quarter more, so that not every opening has to close one.
            self.close(&closing, excess + self.max / 4, Some(partition));
        }
    }

    /// Closes what was not used since the last sweep.
    pub(crate) fn sweep(&self) {
        self.close(&self.closing.lock(), usize::MAX, None);
    }

    /// Closes up to `count` idle logs, the oldest first. Who closes removes, so the list can only grow at its end meanwhile.
    fn close(
        &self,
        _closing: &MutexGuard<'_, ()>,
        mut count: usize,
        but: Option<&Arc<PartitionCore>>,
    ) {
        // Not under the lock: closing a log may sync it.
        let candidates = self.open.lock().clone();
        let mut is_closed = candidates
            .iter()
            .map(|weak| {
                let closed = count > 0
                    && weak.upgrade().is_none_or(|core| {
                        // An error of the log's is met again by whoever uses it next.
                        but.is_none_or(|but| !Arc::ptr_eq(&core, but))
                            && core.close_if_idle(false).unwrap_or(true)
                    });
                count -= usize::from(closed);
                closed
            })
            .collect::<Vec<_>>()
            .into_iter();
        self.open.lock().retain(|_| !is_closed.next().unwrap_or(false));
    }

    /// How many logs are open.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}
