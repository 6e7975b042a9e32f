//! Which of a log's oldest segments its retention removes.
//!
//! As in Kafka: whole segments, oldest first, up to the first that stays, and never the active one. A segment's age is that
//! of its latest timestamp, so one record from the future keeps its segment, and all that come after it, until that time
//! has come. A wall clock that jumps back makes segments younger and removes nothing; one that jumps ahead removes early
//! what a limit of age would have removed later.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Retention;
use crate::error::Result;
use crate::io::Open;
use crate::writer::Writer;

/// How often the background looks whether a segment has become too old, while nothing is appended.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// Somebody who has to keep something that records say before retention removes them.
pub trait BeforeRemoval: Send + Sync {
    /// Called before anything is removed, by the thread that is about to, without a lock; it may read, and block.
    ///
    /// # Errors
    /// Nothing is removed then, and it is tried again.
    fn before_removal(&self) -> Result<()>;
}

/// Who is to be asked before records are removed.
pub(crate) enum Keeper {
    Nobody,
    Here(Arc<dyn BeforeRemoval>),
    Gone,
}

/// What decides about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub base_offset: u64,
    pub end_offset: u64,
    /// Without what is only reserved.
    pub bytes: u64,
    /// The least i64 if there is no record.
    pub max_timestamp: i64,
    pub is_sealed: bool,
}

/// The start offset that `policy` leaves a log of these segments, oldest first: the base offset of the first that stays.
/// If all may go, the end offset of the last.
pub(crate) fn retain(segments: &[SegmentFacts], policy: &Retention, now_ms: i64) -> u64 {
    let Some(first) = segments.first() else { return 0 };
    let mut bytes_after: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let end_offset = segments.last().map_or(first.base_offset, |last| last.end_offset);
    let mut start_offset = first.base_offset;
    for segment in segments {
        bytes_after -= segment.bytes;
        let records_after = end_offset.saturating_sub(segment.end_offset);
        let age_ms = i128::from(now_ms) - i128::from(segment.max_timestamp);
        let too_old = policy
            .age
            .is_some_and(|age| u128::try_from(age_ms).is_ok_and(|age_ms| age_ms > age.as_millis()));
        let enough_after = policy.bytes.is_some_and(|bytes| bytes_after >= bytes)
            || policy.records.is_some_and(|records| records_after >= records);
        if !segment.is_sealed || !(too_old || enough_after) {
            break;
        }
        start_offset = segment.end_offset;
    }
    start_offset
}

/// Removes what the log's policy says, and returns the start offset.
pub(crate) fn apply(writer: &Writer) -> Result<u64> {
    let start = writer.view.start();
    let policy = writer.live_config.retention();
    if policy == Retention::default() {
        return Ok(start);
    }
    let facts = facts(writer)?;
    let now_ms = writer.view.dir.clock().wall_ms();
    let kept_from = retain(&facts, &policy, now_ms).max(start);
    // An earlier removal may have been cut short by an error.
    let is_left_over = facts.get(1).is_some_and(|second| second.base_offset <= start);
    if kept_from <= start && !is_left_over {
        return Ok(start);
    }
    match writer.keeper() {
        Keeper::Nobody => {}
        Keeper::Here(keeper) => keeper.before_removal()?,
        // Whoever has to keep something is about to go; the next open removes.
        Keeper::Gone => return Ok(start),
    }
    writer.delete_before(kept_from)
}

fn facts(writer: &Writer) -> Result<Vec<SegmentFacts>> {
    let segments = writer.view.segments();
    let active = writer.active_bytes();
    let mut facts = Vec::with_capacity(segments.len());
    for (i, segment) in segments.iter().enumerate() {
        let base_offset = segment.base_offset();
        let next = segments.get(i + 1).map(|next| next.base_offset());
        let unsealed = |bytes| SegmentFacts {
            base_offset,
            end_offset: next.unwrap_or_else(|| writer.view.stored()).max(base_offset),
            bytes,
            max_timestamp: i64::MAX,
            is_sealed: false,
        };
        if let Some((_, bytes)) = active.filter(|(base, _)| *base == base_offset) {
            facts.push(unsealed(bytes));
            continue;
        }
        if segment.known_footer().is_none() {
            let file = segment.open(Open::Read)?;
            if segment.footer(file.as_ref())?.is_none() {
                facts.push(unsealed(file.len().map_err(segment.failed("stat"))?));
                continue;
            }
        }
        facts.extend(segment.known_footer().map(|footer| SegmentFacts {
            base_offset,
            end_offset: footer.end_offset,
            bytes: footer.file_len(),
            max_timestamp: footer.max_timestamp,
            is_sealed: true,
        }));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests;
