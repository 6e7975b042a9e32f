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
use crate::segment_writer::{SegmentWriter, Written};
use crate::writer::Writer;

/// Rewrites every run of segments that changes. `false`: a segment was removed meanwhile, and the rest is left for the next
/// time.
pub(super) fn run(
    writer: &Writer,
    sources: &[Source],
    marks: &Marks,
    rules: &Rules,
    plan: &Plan,
    report: &mut CompactionReport,
) -> Result<bool> {
    for group in groups(sources, plan, writer.live_config.segment_bytes_max()) {
        let fates = &plan.fates[group.clone()];
        if !fates.iter().any(|fate| fate.changes) {
            continue;
        }
        let inputs = &sources[group.clone()];
        let written = write(writer, inputs, group.start, marks, rules)?;
        let bytes_after = written.footer.file_len();
        let segments: Vec<_> = inputs
            .iter()
            .map(|source| (Arc::clone(&source.segment), Arc::clone(&source.file)))
            .collect();
        if !writer.replace(&segments, written)? {
            return Ok(false);
        }
        report.rewritten += inputs.len();
        report.written += 1;
        report.records_removed += fates.iter().map(|fate| fate.records_removed).sum::<u64>();
        report.tombstones_removed += fates.iter().map(|fate| fate.tombstones_removed).sum::<u64>();
        report.bytes_before += inputs.iter().map(|source| source.footer.file_len()).sum::<u64>();
        report.bytes_after += bytes_after;
    }
    Ok(true)
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

/// Writes one new segment out of `inputs`, the first of which has the number `first`.
fn write(
    writer: &Writer,
    inputs: &[Source],
    first: usize,
    marks: &Marks,
    rules: &Rules,
) -> Result<Written> {
    let (oldest, youngest) = (&inputs[0], &inputs[inputs.len() - 1]);
    let view = &writer.view;
    let name = file_name(oldest.head.base_offset, "log");
    let head = SegmentHead {
        generation: inputs.iter().map(|input| input.head.generation).max().unwrap_or(0) + 1,
        superseded_hash: youngest.segment.chain_hash(youngest.file.as_ref())?,
        ..oldest.head.clone()
    };
    let mut output = SegmentWriter::create(
        view.dir.io(),
        view.path.join(format!("{name}.compacted.tmp")),
        oldest.segment.shown(),
        head,
    )?;
    let mut kept = Kept::default();
    for (number, input) in (first..).zip(inputs) {
        let mut judge = Judge::new(marks, rules, number);
        let mut is_open = false;
        input.for_each(|batch, bytes| {
            judge.judge(input, batch, bytes, &mut kept)?;
            if kept.count > 0 {
                add(&mut output, batch, &kept)?;
                is_open = batch.continues();
            } else if is_open && !batch.continues() {
                output.end_commit();
                is_open = false;
            }
            Ok(())
        })?;
    }
    let previous_hash = oldest.footer.previous_hash;
    output.finish(youngest.footer.end_offset, previous_hash, rules.now_ms)
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
