//! Share consumers in tasks of a runtime (feature `tokio`).

use std::time::Duration;

use logmill_storage::Part;

use super::{ShareConsumer, ShareRecords};
use crate::error::Result;
use crate::turn;

impl ShareConsumer {
    /// As [`ShareConsumer::poll`], for tasks. Dropped before it is ready it has leased nothing.
    ///
    /// # Errors
    /// As [`ShareConsumer::poll`].
    /// # Cost
    /// As [`ShareConsumer::poll`]: records that are not in the page cache are read from the disk by the polling thread.
    pub async fn poll_async(&mut self, timeout: Duration) -> Result<ShareRecords> {
        self.begin_poll()?;
        turn::poll_async(self, timeout).await
    }

    /// As [`ShareConsumer::commit`], for tasks. Dropped before it is ready, the group was told, and the next commit waits
    /// for the disk.
    ///
    /// # Errors
    /// As [`ShareConsumer::commit`].
    pub async fn commit_async(&mut self) -> Result<()> {
        self.begin_commit()?;
        if let Some(journal) = self.to_sync()?.cloned() {
            for part in [Part::Hot, Part::Cold] {
                journal.part(part).submit_sync()?.await?;
            }
        }
        self.is_unsynced = false;
        self.refused()
    }

    /// As [`ShareConsumer::close`], for tasks. Dropped before it is ready, the group was left nevertheless.
    ///
    /// # Errors
    /// As [`ShareConsumer::close`].
    pub async fn close_async(mut self) -> Result<()> {
        self.commit_async().await
    }
}
