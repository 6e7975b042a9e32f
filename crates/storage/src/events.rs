//! What the engine tells `tracing`, with feature `tracing`; nothing otherwise. Without a subscriber it is silent too.
//!
//! Error: a log's writing life is over. Warn: background work fails, or bytes were set aside. Info: it succeeds again.
//! Debug: logs opened, segments removed.

#![cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]

use std::path::Path;

use crate::error::Error;
use crate::recovery::RecoveryReport;

pub(crate) fn problem(part: &str, what: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(part, what, "background work failed and is tried again");
}

pub(crate) fn well_again(part: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(part, "background work succeeded again");
}

pub(crate) fn poisoned(log: &Path, why: &Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(log = %log.display(), %why, "the log cannot be written to until it is opened again");
}

pub(crate) fn opened(log: &Path, report: &RecoveryReport) {
    #[cfg(feature = "tracing")]
    {
        let log = log.display();
        let RecoveryReport { clean, end_offset, scanned_bytes, dropped_bytes, .. } = report;
        if report.quarantined.is_empty() {
            tracing::debug!(%log, clean, end_offset, scanned_bytes, dropped_bytes, "log opened");
        } else {
            let quarantined = report.quarantined.len();
            tracing::warn!(%log, end_offset, dropped_bytes, quarantined, "log opened, doubtful bytes set aside");
        }
    }
}

pub(crate) fn removed(log: &Path, segments: u64, bytes: u64) {
    #[cfg(feature = "tracing")]
    tracing::debug!(log = %log.display(), segments, bytes, "segments removed");
}
