//! Writes what stays, and puts it in the place of what was.

use std::ops::Range;
use std::sync::Arc;

use super::passes::Marks;
use super::plan::{Judge, Kept, Plan, Rules};
use super::{CompactionReport, Source};
use crate::batch::{Batch, FrameSpec};
use crate::error::Result;
use crate::layout::{HEAD_LEN, SegmentHead};
use crate::record::{Header, Record};
use crate::segment::file_name;
use crate::segment_writer::SegmentWriter;
use crate::writer::Writer;

/// What a step came to.
pub(super) enum Next {
    /// So many bytes were read.
    Read(u64),
    /// A segment was removed meanwhile.
    Overtaken,
    /// There is nothing left to be rewritten.
    Done,
}

/// Rewrites every run of segments that changes.
#[derive(Debug)]
pub(super) struct Rewrite {
    groups: std::vec::IntoIter<Range<usize>>,
    output: Option<Box<Output>>,
}

/// The segment that one group becomes.
#[derive(Debug)]
struct Output {
    writer: SegmentWriter,
    group: Range<usize>,
    /// The next segment of the group.
    next: usize,
}

impl Rewrite {
    pub fn new(sources: &[Source], plan: &Plan, segment_bytes_max: u64) -> Rewrite {
        let mut groups = groups(sources, plan, segment_bytes_max);
        groups.retain(|group| plan.fates[group.clone()].iter().any(|fate| fate.changes));
        Rewrite { groups: groups.into_iter(), output: None }
    }

    /// Copies what stays of the next segment; after the last of a group, puts what they became in their place.
    pub fn step(
        &mut self,
        writer: &Writer,
        sources: &[Source],
        marks: &Marks,
        rules: &Rules,
        plan: &Plan,
        report: &mut CompactionReport,
    ) -> Result<Next> {
        let output = match &mut self.output {
            Some(output) => output,
            None => match self.next_group(writer, sources) {
                Some(group) => self.output.insert(Box::new(Output::begin(writer, sources, group)?)),
                None => return Ok(Next::Done),
            },
        };
        if output.next < output.group.end {
            return output.copy_next(sources, marks, rules).map(Next::Read);
        }
        let Some(output) = self.output.take() else { return Ok(Next::Done) };
        let Output { writer: output, group, .. } = *output;
        let (inputs, fates) = (&sources[group.clone()], &plan.fates[group]);
        let (oldest, youngest) = (&inputs[0], &inputs[inputs.len() - 1]);
        let end_offset = youngest.footer.end_offset;
        let written = output.finish(end_offset, oldest.footer.previous_hash, rules.now_ms)?;
        let (bytes_after, read_back) = (written.footer.file_len(), written.footer.data_end);
        let segments: Vec<_> = inputs
            .iter()
            .map(|source| (Arc::clone(&source.segment), Arc::clone(&source.file)))
            .collect();
        if !writer.replace(&segments, written)? {
            return Ok(Next::Overtaken);
        }
        report.rewritten += inputs.len();
        report.written += 1;
        report.records_removed += fates.iter().map(|fate| fate.records_removed).sum::<u64>();
        report.tombstones_removed += fates.iter().map(|fate| fate.tombstones_removed).sum::<u64>();
        report.bytes_before += inputs.iter().map(|source| source.footer.file_len()).sum::<u64>();
        report.bytes_after += bytes_after;
        Ok(Next::Read(read_back))
    }

    /// The next group, without what retention has removed by now.
    fn next_group(&mut self, writer: &Writer, sources: &[Source]) -> Option<Range<usize>> {
        let start = writer.view.start();
        let rest = |group: Range<usize>| {
            let inputs = &sources[group.clone()];
            let gone = inputs.partition_point(|input| input.footer.end_offset <= start);
            group.start + gone..group.end
        };
        self.groups.by_ref().map(rest).find(|group| !group.is_empty())
    }
}

/// Runs of adjacent segments that fit into one, as long as can be.
fn groups(sources: &[Source], plan: &Plan, segment_bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (number, source) in sources.iter().enumerate() {
        let more = plan.fates[number].bytes;
        match groups.last_mut() {
            Some(group)
                if HEAD_LEN as u64 + bytes + more <= segment_bytes_max
                    && fits(&sources[group.start], &sources[number - 1], source) =>
            {
                group.end = number + 1;
                bytes += more;
            }
            _ => {
                groups.push(number..number + 1);
                bytes = more;
            }
        }
    }
    groups
}

/// Whether `next` may follow `last` in a segment that begins as `first`.
fn fits(first: &Source, last: &Source, next: &Source) -> bool {
    last.footer.end_offset == next.head.base_offset
        && first.head.epoch == next.head.epoch
        && next.footer.end_offset - first.head.base_offset <= u64::from(u32::MAX)
}

impl Output {
    fn begin(writer: &Writer, sources: &[Source], group: Range<usize>) -> Result<Output> {
        let inputs = &sources[group.clone()];
        let (oldest, youngest) = (&inputs[0], &inputs[inputs.len() - 1]);
        let view = &writer.view;
        let name = file_name(oldest.head.base_offset, "log");
        let head = SegmentHead {
            generation: inputs.iter().map(|input| input.head.generation).max().unwrap_or(0) + 1,
            superseded_hash: youngest.segment.chain_hash(youngest.file.as_ref())?,
            ..oldest.head.clone()
        };
        let writer = SegmentWriter::create(
            view.dir.io(),
            view.path.join(format!("{name}.compacted.tmp")),
            oldest.segment.shown(),
            head,
        )?;
        Ok(Output { writer, next: group.start, group })
    }

    /// Returns how many bytes were read.
    fn copy_next(&mut self, sources: &[Source], marks: &Marks, rules: &Rules) -> Result<u64> {
        let (input, output) = (&sources[self.next], &mut self.writer);
        let mut judge = Judge::new(marks, rules, self.next);
        let mut kept = Kept::default();
        let mut is_open = false;
        input.for_each(|batch, bytes| {
            judge.judge(input, batch, bytes, &mut kept)?;
            if kept.count > 0 {
                add(output, batch, &kept)?;
                is_open = batch.continues();
            } else if is_open && !batch.continues() {
                output.end_commit();
                is_open = false;
            }
            Ok(())
        })?;
        self.next += 1;
        Ok(input.footer.data_end)
    }
}

fn add(output: &mut SegmentWriter, batch: &Batch<'_>, kept: &Kept) -> Result<()> {
    let spec = FrameSpec { delete_horizon: kept.horizon, ..batch.copied() };
    let mut headers: Vec<Header<'_>> = Vec::new();
    let staying = || batch.records().flatten().zip(&kept.stays).filter(|(_, stays)| **stays);
    let mut ends = Vec::with_capacity(kept.count as usize);
    for (record, _) in staying() {
        headers.extend(record.headers);
        ends.push(headers.len());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let records = staying().zip(starts.zip(&ends)).map(|((record, _), (start, end))| {
        let delta = u32::try_from(record.offset - batch.base_offset()).unwrap_or(u32::MAX);
        let headers = &headers[start..*end];
        let timestamp = Some(record.timestamp);
        let plain = Record { key: record.key, value: record.value, headers, timestamp };
        (delta, record.timestamp, plain)
    });
    output.add(&spec, records)
}
