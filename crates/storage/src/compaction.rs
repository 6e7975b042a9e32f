//! Compaction by key: of all records of a key, the latest stays.
//!
//! ```text
//! passes   read the sealed segments, and mark every record that has a later one of its key     (nothing is written)
//! plan     look at every frame once more: what stays of it?                                     (nothing is written)
//! rewrite  for each run of adjacent segments that changes: write one new segment beside them,
//!          sync it, rename it over the first, sync the directory, then remove the others
//! ```
//! Offsets and order stay as they are; gaps remain where records went. Runs are rewritten oldest first, and the first that
//! fails ends the compaction: so a tombstone never goes before what it deletes, whatever happens in between.
//! Appends and reads go on meanwhile; the log is held still for the renaming alone.

mod keys;
mod passes;
mod plan;
mod rewrite;

use std::sync::Arc;

use crate::batch::Batch;
use crate::error::{Corruption, Error, Result};
use crate::frames::{Frames, Step};
use crate::io::{File, Open};
use crate::layout::{Footer, HEAD_LEN, SegmentHead};
use crate::segment::Segment;
use crate::writer::Writer;

/// What [`Log::compact`](crate::Log::compact) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// Sealed segments that could be compacted.
    pub segments: usize,
    /// Passes over the keys; 0 if there were no new ones.
    pub passes: u32,
    /// Segments that were rewritten.
    pub rewritten: usize,
    /// Segments that they became.
    pub written: usize,
    /// Records that were removed, tombstones included.
    pub records_removed: u64,
    /// Tombstones that were removed.
    pub tombstones_removed: u64,
    /// Bytes of the segments that were rewritten.
    pub bytes_before: u64,
    /// Bytes of what they became.
    pub bytes_after: u64,
}

impl CompactionReport {
    /// Whether there was nothing to do: no byte was written.
    pub const fn is_idle(&self) -> bool {
        self.rewritten == 0
    }
}

/// What one compaction leaves for the next one of the same process, so that it need not look at everything again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Below this each key is there once, but for `superseded`.
    clean_upto: u64,
    /// Offsets of records that have a later one of their key and stay for their producers' sake, rising.
    superseded: Vec<u64>,
    /// The commits that were remembered for their producers then.
    pinned: Vec<u64>,
    /// The earliest time at which a tombstone may go.
    next_horizon: Option<i64>,
}

/// A sealed segment that is compacted.
#[derive(Debug)]
struct Source {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    head: SegmentHead,
    footer: Footer,
}

/// Compacts the log as far as it is sealed.
pub(crate) fn run(writer: &Writer, memory: &mut Memory) -> Result<CompactionReport> {
    writer.settle()?;
    let config = writer.live_config.compaction();
    let now_ms = writer.view.dir.clock().wall_ms();
    let sources = sources(writer, now_ms)?;
    let mut report = CompactionReport { segments: sources.len(), ..CompactionReport::default() };
    let Some(end_offset) = sources.last().map(|source| source.footer.end_offset) else {
        return Ok(report);
    };
    let clean = sources.partition_point(|source| source.footer.end_offset <= memory.clean_upto);
    let is_due = memory.next_horizon.is_some_and(|horizon| horizon <= now_ms);
    let pinned = writer.recent_batches();
    let is_let_go = !memory.superseded.is_empty() && memory.pinned != pinned;
    if clean == sources.len() && !is_due && !is_let_go {
        return Ok(report);
    }
    let mut marks = passes::Marks::new(sources.len());
    if clean < sources.len() {
        let seed = seed(writer)?;
        report.passes = passes::run(&sources, clean, config.memory_bytes, seed, &mut marks)?;
    }
    let rules = plan::Rules {
        start: writer.view.start(),
        now_ms,
        tombstone_retention: config.tombstone_retention,
        superseded: std::mem::take(&mut memory.superseded),
        pinned,
    };
    let plan = plan::make(&sources, &marks, &rules)?;
    // Until all of it is done, nothing is known to be clean.
    memory.clean_upto = 0;
    if rewrite::run(writer, &sources, &marks, &rules, &plan, &mut report)? {
        memory.clean_upto = end_offset;
        memory.superseded = plan.superseded;
        memory.pinned = rules.pinned;
        memory.next_horizon = plan.next_horizon;
    }
    Ok(report)
}

/// The oldest sealed segments, up to the first with a record that is younger than the minimum lag.
fn sources(writer: &Writer, now_ms: i64) -> Result<Vec<Source>> {
    let min_lag = writer.live_config.compaction().min_lag;
    let min_lag = i64::try_from(min_lag.as_millis()).unwrap_or(i64::MAX);
    let youngest = if min_lag > 0 { now_ms.saturating_sub(min_lag) } else { i64::MAX };
    let mut sources = Vec::new();
    for segment in writer.view.segments().iter() {
        let file = segment.open(Open::Read)?;
        let Some(footer) = segment.footer(file.as_ref())?.cloned() else { break };
        if footer.max_timestamp > youngest {
            break;
        }
        let head = segment.head_to_write(file.as_ref())?.clone();
        sources.push(Source { segment: Arc::clone(segment), file, head, footer });
    }
    Ok(sources)
}

fn seed(writer: &Writer) -> Result<u64> {
    let mut seed = [0; 8];
    let view = &writer.view;
    view.dir.io().random(&mut seed).map_err(|e| Error::io("random", view.shown(), e))?;
    Ok(u64::from_le_bytes(seed))
}

impl Source {
    /// Tells `each` of every batch and its bytes on disk, in order; anything that is not a batch is corruption.
    fn for_each(&self, mut each: impl FnMut(&Batch<'_>, u64) -> Result<()>) -> Result<()> {
        let segment = &self.segment;
        let scope = segment.scope(self.file.as_ref())?;
        let end = self.footer.data_end;
        let mut frames = Frames::new(Arc::clone(&self.file), scope, HEAD_LEN as u64, end);
        let mut next_offset = self.head.base_offset;
        while frames.position() < end {
            let position = frames.position();
            let mut bytes = 0;
            let taken = match frames.peek().map_err(segment.failed("read"))? {
                Step::Frame(head) => {
                    bytes = head.frame_len() as u64;
                    frames.take(head)
                }
                Step::End => Err(Corruption::Truncated { expected: end, found: position }),
                Step::Damaged(what) => Err(what),
            };
            let batch = taken.map_err(|what| segment.corrupt(position, next_offset, what))?;
            next_offset = batch.last_offset() + 1;
            each(&batch, bytes)?;
        }
        Ok(())
    }

    /// What is wrong with a record of the batch at `offset`.
    fn corrupt(&self, offset: u64, what: Corruption) -> Error {
        self.segment.corrupt(0, offset, what)
    }
}
