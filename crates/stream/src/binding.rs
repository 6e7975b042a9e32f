//! Which log belongs to a partition: the one that the journal knows, and no other that lies in its place.

use logmill_storage::{Corruption, DataDir, Error, Result};

use crate::PartitionId;
use crate::entry::LogId;
use crate::partition::PartitionCore;

/// Checks that a partition that has had a log has it still: the log `expected`, or any where the journal does not say which.
///
/// # Errors
/// [`Error::Corrupt`]: it is lost, or another lies in its place. Those of [`DataDir::log_id`].
pub(crate) fn check(dir: &DataDir, id: PartitionId, expected: Option<LogId>) -> Result<()> {
    let name = PartitionCore::log_name(id);
    let found = dir.log_id(&name)?;
    match (expected, found) {
        (_, None) => Err(dir.lost_log(&name)),
        (Some(expected), Some(found)) if expected != found => {
            Err(damaged(dir, &name, Corruption::ForeignLog { expected, found }))
        }
        _ => Ok(()),
    }
}

/// As [`check`], and from now on the store's health says so.
pub(crate) fn check_and_note(
    dir: &DataDir,
    id: PartitionId,
    expected: Option<LogId>,
) -> Result<()> {
    let checked = check(dir, id, expected);
    if let Err(Error::Corrupt {
        what: Corruption::LostLog | Corruption::LostManifest | Corruption::ForeignLog { .. },
        ..
    }) = &checked
    {
        dir.note(&format!("log {}", PartitionCore::log_name(id)), &checked);
    }
    checked
}

pub(crate) fn damaged(dir: &DataDir, name: &str, what: Corruption) -> Error {
    Error::Corrupt { path: dir.path().join(name), position: 0, offset: 0, what }
}
