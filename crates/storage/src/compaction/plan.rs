//! What stays of each frame, and so which segments are worth rewriting.

use std::time::Duration;

use super::Source;
use super::passes::Marks;
use crate::batch::Batch;
use crate::error::Result;
use crate::record::{RecordView, TIMESTAMP_MAX};

/// What a frame may grow by, for the groups that compaction adds.
const FRAME_GROWTH: u64 = 24;

/// By what it is decided.
#[derive(Debug)]
pub(super) struct Rules {
    /// Records below are deleted.
    pub start: u64,
    pub now_ms: i64,
    pub tombstone_retention: Duration,
    /// Offsets of records that are known to have a later one of their key, rising.
    pub superseded: Vec<u64>,
    /// Base offsets of the commits that producers may send again, rising.
    pub pinned: Vec<u64>,
}

/// What stays of one frame.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// For each record of the frame.
    pub stays: Vec<bool>,
    pub count: u32,
    /// Until when the tombstones stay that are among them.
    pub horizon: Option<i64>,
    /// The frame will not be as it was.
    pub changes: bool,
    pub tombstones_removed: u64,
    /// A record that has a later one of its key and stays all the same.
    pub superseded: Option<u64>,
    /// About the bytes that it takes.
    pub bytes: u64,
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub changes: bool,
    pub records_removed: u64,
    pub tombstones_removed: u64,
    /// About the bytes that its frames take.
    pub bytes: u64,
}

/// What becomes of all segments.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub fates: Vec<Fate>,
    /// See [`Rules::superseded`], for the next compaction.
    pub superseded: Vec<u64>,
    pub next_horizon: Option<i64>,
}

/// Goes through the frames of one segment, knowing which record is which and where commits begin.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    marks: &'a Marks,
    rules: &'a Rules,
    segment: usize,
    /// Number of the next record in the segment.
    record: u32,
    /// Base offset of the commit that goes on, if one does.
    commit: Option<u64>,
}

impl Plan {
    /// Decides about every frame of the next segment without changing anything. Returns how many bytes were read.
    pub fn step(&mut self, sources: &[Source], marks: &Marks, rules: &Rules) -> Result<u64> {
        let number = self.fates.len();
        let source = &sources[number];
        let mut fate = Fate::default();
        let mut judge = Judge::new(marks, rules, number);
        let mut kept = Kept::default();
        source.for_each(|batch, bytes| {
            judge.judge(source, batch, bytes, &mut kept)?;
            fate.changes |= kept.changes;
            fate.records_removed += u64::from(batch.count() - kept.count);
            fate.tombstones_removed += kept.tombstones_removed;
            fate.bytes += kept.bytes;
            self.superseded.extend(kept.superseded);
            self.next_horizon = match (self.next_horizon, kept.horizon) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            Ok(())
        })?;
        self.fates.push(fate);
        Ok(source.footer.data_end)
    }
}

impl<'a> Judge<'a> {
    pub fn new(marks: &'a Marks, rules: &'a Rules, segment: usize) -> Judge<'a> {
        Judge { marks, rules, segment, record: 0, commit: None }
    }

    /// Decides about the next frame, which takes `bytes` on disk.
    pub fn judge(
        &mut self,
        source: &Source,
        batch: &Batch<'_>,
        bytes: u64,
        kept: &mut Kept,
    ) -> Result<()> {
        let Rules { start, now_ms, tombstone_retention, .. } = *self.rules;
        let commit = self.commit.unwrap_or(batch.base_offset());
        self.commit = batch.continues().then_some(commit);
        let horizon = batch.delete_horizon().unwrap_or_else(|| {
            let ms = i64::try_from(tombstone_retention.as_millis()).unwrap_or(i64::MAX);
            // For ever is a timestamp too, and is stored as the distance from another one.
            now_ms.saturating_add(ms).clamp(-TIMESTAMP_MAX, TIMESTAMP_MAX)
        });
        let mut stays = std::mem::take(&mut kept.stays);
        stays.clear();
        *kept = Kept { stays, ..Kept::default() };
        let mut has_tombstones = false;
        let (mut weight, mut weight_kept) = (0, 0);
        let mut last = None;
        for record in batch.records() {
            let record = record.map_err(|what| source.corrupt(batch.base_offset(), what))?;
            let is_tombstone = record.key.is_some() && record.value.is_none();
            let stays = record.offset >= start
                && !self.is_superseded(&record)
                && (!is_tombstone || now_ms < horizon);
            has_tombstones |= stays && is_tombstone;
            kept.tombstones_removed += u64::from(is_tombstone && !stays);
            kept.count += u32::from(stays);
            weight += record.weight();
            weight_kept += if stays { record.weight() } else { 0 };
            kept.stays.push(stays);
            last = Some((record.offset, record.weight(), is_tombstone));
            self.record = self.record.wrapping_add(1);
        }
        let is_pinned =
            batch.producer().is_some() && self.rules.pinned.binary_search(&commit).is_ok();
        if let (0, true, Some((offset, weight, is_tombstone))) = (kept.count, is_pinned, last)
            && offset >= start
        {
            // Without a frame, a retry of this batch would not be recognised.
            if let Some(stays) = kept.stays.last_mut() {
                *stays = true;
            }
            kept.count = 1;
            weight_kept = weight;
            kept.tombstones_removed -= u64::from(is_tombstone);
            has_tombstones = is_tombstone;
            kept.superseded = Some(offset);
        }
        kept.horizon = has_tombstones.then_some(horizon);
        kept.changes =
            kept.count < batch.count() || (has_tombstones && batch.delete_horizon().is_none());
        if kept.count > 0 {
            kept.bytes = bytes * weight_kept / weight.max(1) + FRAME_GROWTH;
        }
        Ok(())
    }

    fn is_superseded(&self, record: &RecordView<'_>) -> bool {
        self.marks.is_superseded(self.segment, self.record)
            || self.rules.superseded.binary_search(&record.offset).is_ok()
    }
}
