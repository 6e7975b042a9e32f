//! Partitions in tasks of a runtime (feature `tokio`). An append's twin is [`Partition::submit`], whose ticket is awaited.

use std::sync::Arc;
use std::time::Duration;

use logmill_storage::{Batch, Wake};
use tokio::sync::Notify;
use tokio::task::coop;

use super::{LOOK_AGAIN, Partition, PartitionReader};
use crate::error::Result;

/// A task that waits for a log's end to move.
#[derive(Debug, Default)]
struct Watcher(Notify);

impl Wake for Watcher {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl Partition {
    /// As [`Partition::sync`], for tasks.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub async fn sync_async(&self) -> Result<u64> {
        let log = self.log()?;
        let synced = async { log.submit_sync()?.await };
        synced.await.map_err(|error| self.met(error))?;
        Ok(log.durable_offset())
    }

    /// As [`Partition::wait_for`], for tasks.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    /// # Cost
    /// In a process that only reads, a look at the writer's files every 10 ms for each task that waits.
    pub async fn wait_for_async(&self, offset: u64, timeout: Duration) -> Result<bool> {
        coop::consume_budget().await;
        let clock = Arc::clone(self.shared.dir.clock());
        let deadline = clock.monotonic().saturating_add(timeout);
        let watcher = Arc::new(Watcher::default());
        let waker: Arc<dyn Wake> = Arc::<Watcher>::clone(&watcher);
        // What is watched stays open meanwhile.
        let mut watched = None;
        loop {
            let log = self.log_if_any()?;
            if let Some(log) = &log
                && log.wait_for(offset, Duration::ZERO)?
            {
                return Ok(true);
            }
            let left = deadline.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return Ok(false);
            }
            if watched.is_none()
                && let Some(log) = log
            {
                log.on_append(Arc::downgrade(&waker));
                // An append may have come just before.
                watched = Some(log);
                continue;
            }
            let pause = if self.shared.dir.is_read_only() { left.min(LOOK_AGAIN) } else { left };
            // That the pause is over is no error: it is time to look again.
            let _ = tokio::time::timeout(pause, watcher.0.notified()).await;
        }
    }
}

impl PartitionReader {
    /// As [`PartitionReader::next_batch_timeout`], for tasks. Dropped before it is ready it has read nothing.
    ///
    /// # Errors
    /// As [`PartitionReader::next_batch`].
    /// # Cost
    /// As [`Partition::wait_for_async`]; what is not in the page cache is read from the disk by the polling thread.
    pub async fn next_batch_timeout_async(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Batch<'_>>> {
        self.partition.wait_for_async(self.position(), timeout).await?;
        self.next_batch()
    }
}
