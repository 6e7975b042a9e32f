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
//! Appends and reads go on meanwhile; the log is held still for the renaming alone. A step reads one segment once, so that
//! whoever compacts can rest in between.

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
use passes::{Marks, Passes};
use plan::{Plan, Rules};
use rewrite::{Next, Rewrite};

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

/// What [`Log::compact_step`](crate::Log::compact_step) has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStep {
    /// Bytes of segments that were read.
    pub bytes_read: u64,
    /// What the compaction has done, if this was its last step.
    pub report: Option<CompactionReport>,
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
    /// A compaction that rests.
    running: Option<Box<Compaction>>,
}

/// A compaction on its way.
#[derive(Debug)]
struct Compaction {
    sources: Vec<Source>,
    /// How many of them are as the last compaction left them.
    clean: usize,
    marks: Marks,
    rules: Rules,
    report: CompactionReport,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Passes(Passes),
    Plan(Plan),
    Rewrite(Plan, Rewrite),
}

/// A sealed segment that is compacted.
#[derive(Debug)]
struct Source {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    head: SegmentHead,
    footer: Footer,
}

/// Compacts the log as far as it is sealed, from the beginning to the end.
pub(crate) fn run(writer: &Writer, memory: &mut Memory) -> Result<CompactionReport> {
    memory.running = None;
    loop {
        if let Some(report) = step(writer, memory, u64::MAX)?.report {
            return Ok(report);
        }
    }
}

/// Goes on with the compaction that rests, or begins one, until at least `bytes` were read or it is done.
pub(crate) fn step(writer: &Writer, memory: &mut Memory, bytes: u64) -> Result<CompactionStep> {
    let mut bytes_read = 0;
    let mut compaction = match memory.running.take() {
        Some(resting) => resting,
        None => match Compaction::begin(writer, memory)? {
            Ok(begun) => Box::new(begun),
            Err(report) => return Ok(CompactionStep { bytes_read, report: Some(report) }),
        },
    };
    while let Some(read) = compaction.step(writer, memory)? {
        bytes_read += read;
        if bytes_read >= bytes {
            memory.running = Some(compaction);
            return Ok(CompactionStep { bytes_read, report: None });
        }
    }
    Ok(CompactionStep { bytes_read, report: Some(compaction.report) })
}

impl Compaction {
    /// Finds out what there is to do; the report of one that has nothing to do.
    fn begin(
        writer: &Writer,
        memory: &Memory,
    ) -> Result<std::result::Result<Compaction, CompactionReport>> {
        writer.settle()?;
        let config = writer.live_config.compaction();
        let now_ms = writer.view.dir.clock().wall_ms();
        let sources = sources(writer, now_ms)?;
        let report = CompactionReport { segments: sources.len(), ..CompactionReport::default() };
        let clean = sources.partition_point(|source| source.footer.end_offset <= memory.clean_upto);
        let is_due = memory.next_horizon.is_some_and(|horizon| horizon <= now_ms);
        let pinned = writer.recent_batches();
        let is_let_go = !memory.superseded.is_empty() && memory.pinned != pinned;
        if sources.is_empty() || (clean == sources.len() && !is_due && !is_let_go) {
            return Ok(Err(report));
        }
        let phase = if clean < sources.len() {
            Phase::Passes(Passes::new(config.memory_bytes, seed(writer)?))
        } else {
            Phase::Plan(Plan::default())
        };
        let rules = Rules {
            start: writer.view.start(),
            now_ms,
            tombstone_retention: config.tombstone_retention,
            superseded: memory.superseded.clone(),
            pinned,
        };
        let marks = Marks::new(sources.len());
        Ok(Ok(Compaction { sources, clean, marks, rules, report, phase }))
    }

    /// Reads the next segment, and says how many bytes that were; `None`: it is done.
    fn step(&mut self, writer: &Writer, memory: &mut Memory) -> Result<Option<u64>> {
        let Compaction { sources, clean, marks, rules, report, phase } = self;
        match phase {
            Phase::Passes(passes) => {
                let read = passes.step(sources, *clean, marks)?;
                report.passes = passes.begun();
                if passes.is_done() {
                    *phase = Phase::Plan(Plan::default());
                }
                Ok(Some(read))
            }
            Phase::Plan(plan) => {
                let read = plan.step(sources, marks, rules)?;
                if plan.fates.len() == sources.len() {
                    // Until all of it is done, nothing is known to be clean.
                    memory.clean_upto = 0;
                    let plan = std::mem::take(plan);
                    let most = writer.live_config.segment_bytes_max();
                    let rewrite = Rewrite::new(sources, &plan, most);
                    *phase = Phase::Rewrite(plan, rewrite);
                }
                Ok(Some(read))
            }
            Phase::Rewrite(plan, rewrite) => {
                match rewrite.step(writer, sources, marks, rules, plan, report)? {
                    Next::Read(bytes) => return Ok(Some(bytes)),
                    // The rest is left for the next time.
                    Next::Overtaken => {}
                    Next::Done => {
                        memory.clean_upto = sources.last().map_or(0, |last| last.footer.end_offset);
                        memory.superseded = std::mem::take(&mut plan.superseded);
                        memory.pinned = std::mem::take(&mut rules.pinned);
                        memory.next_horizon = plan.next_horizon;
                    }
                }
                Ok(None)
            }
        }
    }
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
