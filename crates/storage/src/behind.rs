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

/// The runs behind `damaged` and before the position `limit`, in order, with offsets from `from` on, which is one past those
/// before the damage, to the segment's `end`. Without an end, in a segment that was never sealed and is followed by none, the
/// last whole frame has the last offset, as offsets rise.
///
/// # Cost
/// Reads the segment from there to the end of its data, damaged stretches a few times.
pub(crate) fn runs(
    file: &Arc<dyn File>,
    scope: &Scope,
    damaged: u64,
    limit: u64,
    from: u64,
    end: Option<u64>,
) -> io::Result<Vec<Run>> {
    let limit = limit.min(frames_end(file.as_ref())?);
    let offsets = match end {
        Some(end) => from..end,
        None => from..reach(file, scope, damaged, limit)?,
    };
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

/// One past the last offset of the last whole frame.
fn reach(file: &Arc<dyn File>, scope: &Scope, damaged: u64, limit: u64) -> io::Result<u64> {
    let mut resync = Resync::new(file, scope, limit);
    let mut frames = Frames::new(Arc::clone(file), scope.clone(), damaged, limit);
    let mut reach = 0;
    while let Some(found) = resync.next(frames.position() + 1)? {
        frames.seek(found);
        while let Some(batch) = frames.next_valid()? {
            reach = batch.last_offset() + 1;
        }
    }
    Ok(reach)
}

/// Where to begin to look for `offset`, unless it may have been in what is damaged.
pub(crate) fn begin(runs: &[Run], offset: u64) -> Option<u64> {
    Some(runs.iter().rev().find(|run| run.offsets.start <= offset)?.position)
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::batch::{Encoder, FrameSpec};
    use crate::io::Open;
    use crate::io::sim::SimDisk;
    use crate::record::Record;

    fn scope() -> Scope {
        Scope::new(&[7; 16], 1, 100, 0)
    }

    /// The frame of so many records from an offset on.
    fn frame(offset: u64, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let spec = FrameSpec { base_offset: offset, ..FrameSpec::default() };
        Encoder::default().dense(&mut out, &scope(), &spec, &vec![Record::value(b"v"); count], 0);
        out
    }

    /// The offsets of the runs behind damage and these frames, of a segment in which 105..200 may be there.
    fn found(frames: &[Vec<u8>]) -> Vec<(u64, u64)> {
        let bytes = [&[vec![0xAB; 20]], frames].concat().concat();
        let disk = SimDisk::new(1);
        disk.write_file("a", &bytes).unwrap();
        let file = disk.io().open("a".as_ref(), Open::Read).unwrap();
        let runs = runs(&file, &scope(), 0, u64::MAX, 105, Some(200)).unwrap();
        for run in &runs {
            let first = frame(run.offsets.start, 1);
            assert_eq!(bytes[run.position as usize + 8..][..4], first[8..12], "{run:?}");
            assert_eq!(begin(&runs, run.offsets.start), Some(run.position));
        }
        runs.iter().map(|run| (run.offsets.start, run.offsets.end)).collect()
    }

    #[test]
    fn frames_that_follow_each_other_are_a_run_within_what_may_be_there() {
        let gap = || vec![0xAB; 20];
        assert_eq!(found(&[frame(105, 1), frame(106, 4), frame(110, 1)]), [(105, 111)]);
        assert_eq!(found(&[frame(105, 1), frame(108, 1)]), [(105, 109)], "compaction leaves gaps");
        assert_eq!(found(&[frame(105, 1), gap(), frame(106, 1)]), [(105, 106), (106, 107)]);
        assert_eq!(found(&[frame(104, 1), frame(105, 1)]), [(105, 106)]);
        assert_eq!(found(&[frame(199, 1), frame(200, 1)]), [(199, 200)]);
        assert_eq!(found(&[frame(199, 2)]), []);
        assert_eq!(found(&[gap()]), []);
        assert_eq!(begin(&[], 105), None);
    }

    #[test]
    fn of_frames_that_contradict_each_other_none_is_believed() {
        assert_eq!(found(&[frame(150, 1), frame(106, 1), frame(107, 1)]), []);
        assert_eq!(found(&[frame(150, 1), frame(150, 1), frame(151, 1)]), [(151, 152)]);
        let gap = || vec![0xAB; 20];
        let kept = [frame(110, 1), gap(), frame(150, 3), gap(), frame(111, 1), frame(160, 1)];
        assert_eq!(found(&kept), [(110, 111), (160, 161)]);
        assert_eq!(found(&[frame(110, 2), gap(), frame(111, 1), frame(120, 1)]), [(120, 121)]);
    }
}
