//! Whether what was read ends where it was to end. A log whose durable records are damaged seems to end where the damage
//! begins; and what a dead writer left behind the end is no record, but it may have been one.

use std::path::{Path, PathBuf};

use logmill::Partition;
use logmill::storage::LogRecovery;
use logmill::storage::recovery::Verdict;

use crate::failure::{Failure, Outcome};

/// Where the files of a partition are: see docs/format.md.
pub fn partition_dir(root: &Path, partition: &Partition) -> PathBuf {
    let id = partition.id();
    root.join(id.topic.to_string()).join(id.partition.to_string())
}

/// Whether the partition ends of its own accord, if nobody writes it.
pub fn check(root: &Path, partition: &Partition) -> Outcome {
    let Some(report) = partition.recovery()? else { return Ok(()) };
    match report.verdict {
        Verdict::Ambiguous => {
            Err(Failure::Corrupt(doubt(&partition_dir(root, partition), report.end_offset)))
        }
        Verdict::Corrupt => {
            // Reading on says what is wrong there.
            partition.reader(partition.high_watermark()?)?.next_batch()?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is doubtful at the end of the journal, whose other damage is met while it is read.
pub fn doubts_of_journal(root: &Path, found: &[LogRecovery]) -> Vec<String> {
    let is_doubtful = |found: &&LogRecovery| {
        ["0", "0/1"].contains(&found.log.as_str()) && found.report.verdict == Verdict::Ambiguous
    };
    let doubtful = found.iter().filter(is_doubtful);
    doubtful.map(|found| doubt(&root.join(&found.log), found.report.end_offset)).collect()
}

fn doubt(dir: &Path, end: u64) -> String {
    format!(
        "{}: behind offset {end} there are bytes that may or may not have been acknowledged; logmill verify says where, \
         and the next writer sets them aside in quarantine",
        dir.display()
    )
}

/// A line for each log of which a writer has set bytes aside, relative to `root`.
pub fn set_aside(root: &Path, found: &[LogRecovery]) -> Vec<String> {
    let moved = found.iter().filter(|found| !found.report.quarantined.is_empty());
    moved
        .map(|LogRecovery { log, report, .. }| {
            let files: Vec<_> = report
                .quarantined
                .iter()
                .map(|file| root.join(file).display().to_string())
                .collect();
            format!(
                "log {log}: {} bytes behind offset {}, of a writer that died, may have been acknowledged and are set aside \
                 in {}",
                report.dropped_bytes,
                report.end_offset,
                files.join(", ")
            )
        })
        .collect()
}
