//! Which partitions have their log open: idle ones are closed, and beyond a limit the least recently used ones are.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::partition::PartitionCore;

/// The partitions with an open log, the one opened longest ago first.
#[derive(Debug)]
pub(crate) struct OpenLogs {
    open: Mutex<Vec<Weak<PartitionCore>>>,
    max: usize,
}

impl OpenLogs {
    pub(crate) fn new(max: usize) -> OpenLogs {
        OpenLogs { open: Mutex::new(Vec::new()), max }
    }

    /// Notes that a partition's log was opened, and makes room for it.
    pub(crate) fn opened(&self, partition: &Arc<PartitionCore>) {
        let mut open = self.open.lock();
        open.push(Arc::downgrade(partition));
        if open.len() <= self.max {
            return;
        }
        // Taken out while the lock is not held: closing a log may sync it.
        let candidates = std::mem::take(&mut *open);
        drop(open);
        let mut excess = candidates.len() - self.max;
        // A quarter more, so that not every opening has to close one.
        excess += self.max / 4;
        let mut kept = Vec::with_capacity(candidates.len());
        for weak in candidates {
            match weak.upgrade() {
                // An error of the log's is met again by whoever uses it next.
                Some(core)
                    if excess > 0
                        && !Arc::ptr_eq(&core, partition)
                        && core.close_if_idle(false).unwrap_or(true) =>
                {
                    excess -= 1;
                }
                Some(_) => kept.push(weak),
                None => excess = excess.saturating_sub(1),
            }
        }
        let mut open = self.open.lock();
        kept.append(&mut open);
        *open = kept;
    }

    /// Closes what was not used since the last sweep.
    pub(crate) fn sweep(&self) {
        let candidates = std::mem::take(&mut *self.open.lock());
        let idle = |weak: &Weak<PartitionCore>| match weak.upgrade() {
            Some(core) => core.close_if_idle(false).unwrap_or(true),
            None => true,
        };
        let mut kept: Vec<_> = candidates.into_iter().filter(|weak| !idle(weak)).collect();
        let mut open = self.open.lock();
        kept.append(&mut open);
        *open = kept;
    }

    /// How many logs are open.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}
