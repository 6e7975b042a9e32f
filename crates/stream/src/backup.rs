//! A backup of a store of which its journal says that it is whole.

use logmill_storage::DataDir;
use logmill_storage::backup::{self, BackupProgress, BackupReport};

use crate::error::Result;
use crate::shared::Shared;
use crate::streams::StreamsOptions;
use crate::verify::lost_logs;

/// Copies a store that is open for reading, as [`logmill_storage::backup::backup`] does, if each of its topics' partitions
/// that has had a log has one.
///
/// # Errors
/// As there, and [`Corrupt`](logmill_storage::Error::Corrupt) with [`LostLog`](logmill_storage::Corruption::LostLog) if a partition or
/// the journal is gone: nothing was copied, and an earlier backup still counts, which may have what is lost.
/// # Cost
/// As there; the journal is read once more.
pub fn backup(
    source: &DataDir,
    target: &DataDir,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport> {
    let shared = Shared::open(source, None, &StreamsOptions::default())?;
    if let Some((_, lost)) = lost_logs(&shared)?.into_iter().next() {
        return Err(lost.into());
    }
    Ok(backup::backup(source, target, progress)?)
}
