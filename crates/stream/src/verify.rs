//! Verifies a store against what its journal says should be there.

use logmill_storage::verify::{self, VerifyProgress, VerifyReport};
use logmill_storage::{Corruption, DataDir};

use crate::PartitionId;
use crate::error::{Error, Result};
use crate::partition::PartitionCore;
use crate::shared::Shared;
use crate::streams::StreamsOptions;

/// Verifies every byte of a store that is open for reading, as [`logmill_storage::verify::verify`] does, and that the logs
/// are those of its topics: a partition that has had a log and has none now is damage, and so is a log of which the journal
/// does not know.
///
/// # Errors
/// [`Error::Storage`] if the store directory itself cannot be listed. Whatever is wrong further down is a finding.
/// # Cost
/// Reads every byte of every segment once, and the journal twice.
pub fn verify(dir: &DataDir, progress: &mut dyn FnMut(VerifyProgress)) -> Result<VerifyReport> {
    // Before the journal is read: it knows the topic of every log that is there now.
    let listed = dir.logs()?;
    let mut report = verify::verify(dir, progress)?;
    let shared = match Shared::open(dir, None, &StreamsOptions::default()) {
        Ok(shared) => shared,
        Err(Error::Storage(error)) => {
            // As a rule that is what was found on the way.
            if report.worst.is_none_or(|worst| worst < verify::Severity::Unreadable) {
                report.add(error);
            }
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let made: Vec<PartitionId> = shared.look(|state| state.topics.made().collect());
    let lost: Vec<_> = made.into_iter().filter(|id| !has_log(dir, *id)).collect();
    if !lost.is_empty() {
        // A topic may have been deleted since the journal was read.
        shared.catch_up()?;
        for id in lost.into_iter().filter(|id| shared.look(|state| state.topics.has_made(*id))) {
            report.add(damaged(dir, &PartitionCore::log_name(id), Corruption::LostLog));
        }
    }
    for name in listed {
        // What is gone by now was deleted with its topic.
        if !is_known(&shared, &name) && dir.has_log(&name)? {
            report.add(damaged(
                dir,
                &name,
                Corruption::Field("a log that the journal does not know"),
            ));
        }
    }
    Ok(report)
}

/// What is there and cannot be opened was found before.
fn has_log(dir: &DataDir, id: PartitionId) -> bool {
    dir.has_log(&PartitionCore::log_name(id)).unwrap_or(true)
}

fn is_known(shared: &Shared, name: &str) -> bool {
    let Some(PartitionId { topic, partition }) = PartitionCore::parse_log_name(name) else {
        return name == crate::shared::JOURNAL;
    };
    // The journal's cold part, and its directories of topics that are being deleted.
    topic == 0
        || shared.look(|state| {
            let partitions = state.topics.get(topic).map(|topic| topic.partitions);
            let condemned = state.topics.condemned().find(|(id, _)| *id == topic);
            partitions.or(condemned.map(|(_, count)| count)).is_some_and(|count| partition < count)
        })
}

fn damaged(dir: &DataDir, name: &str, what: Corruption) -> logmill_storage::Error {
    logmill_storage::Error::Corrupt { path: dir.path().join(name), position: 0, offset: 0, what }
}
