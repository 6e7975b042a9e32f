//! What the engine tells `tracing`, with feature `tracing`; nothing otherwise. Without a subscriber it is silent too.
//!
//! Error: a log's writing life is over. Warn: background work fails, or bytes were set aside. Info: it succeeds again.
//! Debug: logs opened, segments removed; spans of what takes time. Trace: each sync.

#![cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::recovery::RecoveryReport;

/// What is told while this lives is told within it.
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

pub(crate) fn opening(log: &Path) -> Span {
    Span {
        #[cfg(feature = "tracing")]
        _entered: tracing::debug_span!("open_log", log = %log.display()).entered(),
    }
}

pub(crate) fn compacting(log: &Path) -> Span {
    Span {
        #[cfg(feature = "tracing")]
        _entered: tracing::debug_span!("compact", log = %log.display()).entered(),
    }
}

pub(crate) fn reclaiming() -> Span {
    Span {
        #[cfg(feature = "tracing")]
        _entered: tracing::debug_span!("reclaim_journal").entered(),
    }
}

pub(crate) fn backing_up(target: &Path) -> Span {
    Span {
        #[cfg(feature = "tracing")]
        _entered: tracing::debug_span!("backup", target = %target.display()).entered(),
    }
}

pub(crate) fn synced(appends: u64, took: Duration) {
    #[cfg(feature = "tracing")]
    tracing::trace!(appends, ?took, "appends are durable");
}

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
            let quarantined = &report.quarantined;
            tracing::warn!(%log, end_offset, dropped_bytes, ?quarantined, "log opened, doubtful bytes set aside");
        }
    }
}

pub(crate) fn removed(log: &Path, segments: u64, bytes: u64) {
    #[cfg(feature = "tracing")]
    tracing::debug!(log = %log.display(), segments, bytes, "segments removed");
}
