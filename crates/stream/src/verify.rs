//! Verifies a store against what its journal says should be there.

use std::collections::BTreeMap;

use logmill_storage::verify::{self, Severity, VerifyProgress, VerifyReport};
use logmill_storage::{Corruption, DataDir};

use crate::PartitionId;
use crate::binding::{self, damaged};
use crate::entry::LogId;
use crate::error::{Error, Result};
use crate::partition::PartitionCore;
use crate::shared::Shared;
use crate::streams::StreamsOptions;

const UNREADABLE: Severity = Severity::Unreadable;

/// Verifies every byte of a store that is open for reading, as [`logmill_storage::verify::verify`] does, and that the logs
/// are those of its topics: a partition that has had a log and has none now, or another one, is damage, and so is a log of
/// which the journal does not know.
///
/// # Errors
/// [`Error::Storage`] if the store directory itself cannot be listed. Whatever is wrong further down is a finding.
/// # Cost
/// Reads every byte of every segment once, and the journal twice.
pub fn verify(dir: &DataDir, progress: &mut dyn FnMut(VerifyProgress)) -> Result<VerifyReport> {
    // Before the journal is read: it knows the topic of every log that is there now.
    let listed = dir.logs().unwrap_or_default();
    let mut report = verify::verify(dir, progress)?;
    match compare(dir, &listed, &mut report) {
        // As a rule that is what was found on the way.
        Err(Error::Storage(error)) if report.worst.is_none_or(|worst| worst < UNREADABLE) => {
            report.add(error);
        }
        Ok(()) | Err(Error::Storage(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// Compares what is there with what the journal knows of.
fn compare(dir: &DataDir, listed: &[String], report: &mut VerifyReport) -> Result<()> {
    let shared = Shared::open(dir, None, &StreamsOptions::default())?;
    for (id, error) in lost_logs(&shared)? {
        let path = dir.path().join(PartitionCore::log_name(id));
        let mut worse = report.findings.iter().filter(|found| found.severity >= UNREADABLE);
        if !worse.any(|found| found.path.starts_with(&path)) {
            report.add(error);
        }
    }
    unknown_logs(&shared, listed).into_iter().for_each(|error| report.add(error));
    Ok(())
}

/// The logs of a store that are not as its journal says: partitions that have had a log and have none now or another one,
/// and logs of which the journal does not know. Looks at names and manifests only; [`verify()`] tells the same of a store,
/// beside all else.
///
/// # Errors
/// [`Error::Storage`]: the journal is damaged or gone, so that nobody knows which logs there should be; or the store
/// directory cannot be listed.
/// # Cost
/// Reads the journal once, and the manifest of each log.
pub fn misplaced_logs(dir: &DataDir) -> Result<Vec<logmill_storage::Error>> {
    let listed = dir.logs()?;
    let shared = Shared::open(dir, None, &StreamsOptions::default())?;
    let mut misplaced: Vec<_> = lost_logs(&shared)?.into_iter().map(|(_, error)| error).collect();
    misplaced.extend(unknown_logs(&shared, &listed));
    Ok(misplaced)
}

/// The logs of which the journal says that they belong to a partition, by their names, and the id of each.
///
/// # Errors
/// As [`misplaced_logs`].
/// # Cost
/// Reads the journal once.
pub fn bound_logs(dir: &DataDir) -> Result<BTreeMap<String, [u8; 16]>> {
    let shared = Shared::open(dir, None, &StreamsOptions::default())?;
    let bound = |(id, log): (PartitionId, Option<LogId>)| Some((PartitionCore::log_name(id), log?));
    Ok(shared.look(|state| state.topics.made().filter_map(bound).collect()))
}

/// What to say of each log among the `listed` that the journal does not know.
fn unknown_logs(shared: &Shared, listed: &[String]) -> Vec<logmill_storage::Error> {
    let dir = &shared.dir;
    let what = || Corruption::Field("a log that the journal does not know");
    listed
        .iter()
        // What is gone by now was deleted with its topic.
        .filter(|name| !is_known(shared, name) && dir.has_log(name).unwrap_or(false))
        .map(|name| damaged(dir, name, what()))
        .collect()
}

/// The partitions that have had a log, as the journal says, and have none now or another one; and why.
pub(crate) fn lost_logs(shared: &Shared) -> Result<Vec<(PartitionId, logmill_storage::Error)>> {
    let made: Vec<_> = shared.look(|state| state.topics.made().collect());
    let check = |(id, log)| Some((id, binding::check(&shared.dir, id, log).err()?));
    let mut lost: Vec<_> = made.into_iter().filter_map(check).collect();
    if !lost.is_empty() {
        // A topic may have been deleted since the journal was read.
        shared.catch_up()?;
        lost.retain(|(id, _)| shared.look(|state| state.topics.has_made(*id)));
    }
    Ok(lost)
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
