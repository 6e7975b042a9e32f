//! Where reading can go on behind damage.
//!
//! A checksum is seeded with the log's random id, its epoch and the segment's base offset, but whoever may read a segment
//! file can send its bytes as a value, or make others with that seed. So a whole frame behind damage, which may lie inside
//! of a record that is damaged, is not taken for one by its checksum alone: its offsets must be above those before the
//! damage and within the segment, and every whole frame from there to the end of the data must rise. Where two contradict
//! each other, neither is believed. So what a damaged record holds can pass at most for that record itself, and for none
//! that follows.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::Scope;
use crate::frames::{Frames, Step};
use crate::io::File;
use crate::resync::{Resync, frames_end};

/// Frames behind damage that follow each other without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub position: u64,
    pub offsets: Range<u64>,
}

/// The runs behind `damaged` and before the position `limit`, in order, with offsets of `offsets`: from one past those before
/// the damage to the segment's end.
///
/// # Cost
/// Reads the segment from there to the end of its data, damaged stretches a few times.
pub(crate) fn runs(
    file: &Arc<dyn File>,
    scope: &Scope,
    damaged: u64,
    limit: u64,
    offsets: Range<u64>,
) -> io::Result<Vec<Run>> {
    let limit = limit.min(frames_end(file.as_ref())?);
    let mut resync = Resync::new(file, scope, limit);
    let mut frames = Frames::new(Arc::clone(file), scope.clone(), damaged, limit);
    let mut runs: Vec<Run> = Vec::new();
    let mut reached = offsets.start;
    while let Some(found) = resync.next(frames.position() + 1)? {
        frames.seek(found);
        let mut goes_on = false;
        loop {
            let position = frames.position();
            let Step::Frame(head) = frames.peek()? else { break };
            let Ok(batch) = frames.take(head) else { break };
            let (first, end) = (batch.base_offset(), batch.last_offset() + 1);
            let is_within = first >= offsets.start && end <= offsets.end;
            let rises = is_within && first >= reached;
            match runs.last_mut() {
                Some(run) if rises && goes_on => run.offsets.end = end,
                _ if rises => runs.push(Run { position, offsets: first..end }),
                _ if is_within => runs.retain(|run| run.offsets.end <= first),
                _ => {}
            }
            goes_on = rises;
            if is_within {
                reached = reached.max(end);
            }
        }
    }
    Ok(runs)
}

/// Where to begin to look for `offset`, unless it may have been in what is damaged.
pub(crate) fn begin(runs: &[Run], offset: u64) -> Option<u64> {
    Some(runs.iter().rev().find(|run| run.offsets.start <= offset)?.position)
}
