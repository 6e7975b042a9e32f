//! Partitions in tasks of a runtime (feature `tokio`). An append's twin is [`Partition::submit`], whose ticket is awaited.

use std::sync::Arc;
use std::time::Duration;

use logmill_storage::Batch;
use tokio::task::coop;

use super::{Partition, PartitionReader};
use crate::error::Result;
use crate::signal::Signal;

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
        let mut signal: Option<Arc<Signal>> = None;
        loop {
            if let Some(log) = self.log_if_made()?
                && log.wait_for(offset, Duration::ZERO)?
            {
                return Ok(true);
            }
            let now = clock.monotonic();
            match &signal {
                _ if now >= deadline => return Ok(false),
                Some(signal) => {
                    let until = self.next_look(now, deadline);
                    signal.wait_until_async(&*clock, until).await;
                }
                // An append may have come just before.
                None => signal = Some(self.signal()),
            }
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
