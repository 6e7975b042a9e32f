//! Verifies one segment file: head, frames, records, footer, hash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::Output;
use super::report::Problem;
use crate::batch::{Batch, Scope};
use crate::behind;
use crate::error::Corruption;
use crate::frames::{Frames, Step};
use crate::index::Index;
use crate::io::{File, read_full};
use crate::layout::{FOOTER_LEN, Footer, HEAD_LEN, SEGMENT_BYTES_MAX, SegmentHead};

/// A segment file that is open.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub file: &'a Arc<dyn File>,
    /// For findings.
    pub shown: &'a Path,
    pub base_offset: u64,
    pub log_id: [u8; 16],
    /// What must be there: every offset below. `None`: whatever there is.
    pub until: Option<u64>,
    /// For findings: one past the last offset that belongs here, `u64::MAX` if nobody knows it.
    pub reach: u64,
}

/// What a segment came to.
#[derive(Debug)]
pub(super) struct Verified {
    /// One past its last offset.
    pub end_offset: u64,
    pub generation: u32,
    pub footer: Option<Footer>,
    /// The hash by which the next segment knows it.
    pub chain_hash: [u8; 16],
    /// What its indexes should say, if all its frames verify.
    pub index: Option<Index>,
    /// Nothing was found to be wrong with it.
    pub is_whole: bool,
}

/// The sums over the frames.
struct Sums {
    next_offset: u64,
    count: u64,
    max_timestamp: i64,
    min_timestamp: i64,
    hash: Xxh3,
    index: Index,
    is_whole: bool,
}

/// Verifies the segment; `None` if its head is not one of this log, so that nothing in it can be.
pub(super) fn verify(out: &mut Output<'_>, subject: &Subject<'_>) -> Option<Verified> {
    out.report.segments += 1;
    let found_before = out.report.findings.len();
    let all = Some(subject.base_offset..subject.reach);
    let (head, bytes) = match read_head(subject) {
        Ok(found) => found,
        Err(problem) => {
            out.damage(subject.shown, 0, all, problem);
            return None;
        }
    };
    let len = match subject.file.len() {
        Ok(len) => len,
        Err(e) => {
            out.unreadable(subject.shown, "stat", &e);
            return None;
        }
    };
    if len > SEGMENT_BYTES_MAX {
        let what = Corruption::Truncated { expected: SEGMENT_BYTES_MAX, found: len };
        out.damage(subject.shown, SEGMENT_BYTES_MAX, None, Problem::Corruption(what));
    }
    let len = len.min(SEGMENT_BYTES_MAX);
    let footer = match read_footer(subject, &head, len) {
        Ok(footer) => footer,
        Err(e) => {
            out.unreadable(subject.shown, "read", &e);
            return None;
        }
    };
    let (footer, what) = match footer {
        Ok(footer) => (Some(footer), Corruption::Magic),
        Err(what) => (None, what),
    };
    let mut sums = Sums {
        next_offset: subject.base_offset,
        count: 0,
        max_timestamp: i64::MIN,
        min_timestamp: i64::MAX,
        hash: Xxh3::new(),
        index: Index::default(),
        is_whole: true,
    };
    sums.hash.update(&bytes);
    let goal = Goal {
        limit: footer.as_ref().map_or(len, |footer| footer.data_end),
        until: match (&footer, subject.until) {
            (Some(footer), _) => Some(footer.end_offset),
            (None, until) => until,
        },
        reach: subject.reach,
        is_sealed: footer.is_some(),
    };
    let data_end = walk(out, subject, &head, &goal, &mut sums);
    match &footer {
        Some(footer) => compare(out, subject, &head, footer, &sums),
        None if sums.is_whole => match had_footer(subject.file.as_ref(), data_end, len) {
            Ok(false) => {}
            Ok(true) => {
                let at = Footer::position(data_end);
                out.damage(subject.shown, at, None, Problem::Corruption(what));
            }
            Err(e) => out.unreadable(subject.shown, "read", &e),
        },
        None => {}
    }
    let end_offset = footer.as_ref().map_or(sums.next_offset, |footer| footer.end_offset);
    let hash = footer.as_ref().map_or([0; 16], |footer| footer.hash);
    Some(Verified {
        end_offset,
        generation: head.generation,
        chain_hash: if head.superseded_hash == [0; 16] { hash } else { head.superseded_hash },
        is_whole: out.report.findings.len() == found_before,
        index: (footer.is_some() && sums.is_whole).then_some(sums.index),
        footer,
    })
}

fn read_head(subject: &Subject<'_>) -> Result<(SegmentHead, [u8; HEAD_LEN]), Problem> {
    let mut bytes = [0; HEAD_LEN];
    let got = read_full(subject.file.as_ref(), &mut bytes, 0)
        .map_err(|e| Problem::Io { op: "read", message: e.to_string() })?;
    if got < HEAD_LEN {
        let what = Corruption::Truncated { expected: HEAD_LEN as u64, found: got as u64 };
        return Err(Problem::Corruption(what));
    }
    let head = SegmentHead::decode(&bytes).map_err(Problem::Corruption)?;
    if head.log_id != subject.log_id || head.base_offset != subject.base_offset {
        return Err(Problem::Corruption(Corruption::Misplaced));
    }
    Ok((head, bytes))
}

/// The footer, if the file ends with a valid one.
fn read_footer(
    subject: &Subject<'_>,
    head: &SegmentHead,
    len: u64,
) -> std::io::Result<Result<Footer, Corruption>> {
    let nothing = Ok(Err(Corruption::Magic));
    let Some(position) = len.checked_sub(FOOTER_LEN as u64) else { return nothing };
    let mut bytes = [0; FOOTER_LEN];
    if read_full(subject.file.as_ref(), &mut bytes, position)? < FOOTER_LEN {
        return nothing;
    }
    Ok(Footer::decode(&bytes).and_then(|footer| {
        let own = footer.log_id == head.log_id
            && footer.base_offset == head.base_offset
            && footer.epoch == head.epoch
            && Footer::position(footer.data_end) == position;
        if own { Ok(footer) } else { Err(Corruption::Misplaced) }
    }))
}

/// Whether a file whose frames end at `data_end` has the length that only sealing gives it, and bytes where its footer
/// belongs. The footer is written within one sector, so a crash leaves all of it or nothing.
fn had_footer(file: &dyn File, data_end: u64, len: u64) -> std::io::Result<bool> {
    let position = Footer::position(data_end);
    if position + FOOTER_LEN as u64 != len {
        return Ok(false);
    }
    let mut bytes = [0; FOOTER_LEN];
    read_full(file, &mut bytes, position)?;
    Ok(bytes != [0; FOOTER_LEN])
}

/// How far the frames must go.
struct Goal {
    limit: u64,
    until: Option<u64>,
    /// As in [`Subject`].
    reach: u64,
    is_sealed: bool,
}

impl Goal {
    /// How far what is lost from `from` on goes; `u64::MAX` if nothing says that anything is.
    fn lost_to(&self, from: u64) -> u64 {
        Some(self.until.unwrap_or(self.reach)).filter(|end| *end > from).unwrap_or(u64::MAX)
    }

    fn is_reached(&self, position: u64, next_offset: u64) -> bool {
        match self.until {
            Some(until) if !self.is_sealed => next_offset >= until,
            Some(_) => position >= self.limit,
            None => position >= self.limit && self.lost_to(next_offset) == u64::MAX,
        }
    }
}

/// Takes in all frames as far as the goal; returns where they end.
fn walk(
    out: &mut Output<'_>,
    subject: &Subject<'_>,
    head: &SegmentHead,
    goal: &Goal,
    sums: &mut Sums,
) -> u64 {
    let scope = Scope::new(&head.log_id, head.epoch, head.base_offset, head.base_timestamp);
    let start = HEAD_LEN as u64;
    let mut frames = Frames::new(Arc::clone(subject.file), scope.clone(), start, goal.limit);
    // What is believed behind damage, once some was met, and where the run ends that the walk is in.
    let (mut behind, mut run_end) = (None, u64::MAX);
    while !goal.is_reached(frames.position(), sums.next_offset) {
        let position = frames.position();
        let what = match frames.peek() {
            Ok(Step::Frame(frame)) if sums.next_offset < run_end => {
                let len = frame.frame_len() as u64;
                sums.hash.update(frames.frame_bytes(&frame));
                let expected = sums.next_offset;
                let before = sums.count;
                let taken = frames.batch(frame).and_then(|batch| {
                    let is_dense = head.generation == 0;
                    sums.index.note(
                        frame.delta(),
                        position,
                        sums.max_timestamp.max(batch.max_timestamp()),
                    );
                    sums.take(&batch, is_dense)
                });
                out.report.bytes += len;
                out.report.batches += 1;
                out.report.records += sums.count - before;
                out.advance(len);
                frames.skip(&frame);
                if let Err(what) = taken {
                    sums.is_whole = false;
                    let offsets = expected..sums.next_offset.max(expected);
                    out.damage(subject.shown, position, Some(offsets), Problem::Corruption(what));
                }
                continue;
            }
            Ok(Step::End) => match goal.lost_to(sums.next_offset) {
                u64::MAX if goal.until.is_none() => break,
                _ => Corruption::LostDurable { durable_upto: goal.until.unwrap_or(goal.reach) },
            },
            Ok(Step::Frame(_)) => Corruption::Field("a frame that contradicts others"),
            Ok(Step::Damaged(what)) => what,
            Err(e) => {
                // Nobody knows what is behind it.
                sums.is_whole = false;
                let offsets = sums.next_offset..goal.lost_to(sums.next_offset);
                let problem = Problem::Io { op: "read", message: e.to_string() };
                out.damage(subject.shown, position, Some(offsets), problem);
                break;
            }
        };
        sums.is_whole = false;
        let lost_from = sums.next_offset;
        let lost_to = goal.lost_to(lost_from);
        let runs = behind.get_or_insert_with(|| {
            let (file, limit) = (subject.file, goal.limit);
            let end = goal.until.or((goal.reach < u64::MAX).then_some(goal.reach));
            let found = behind::runs(file, &scope, position, limit, lost_from, end);
            let runs = found.unwrap_or_else(|e| {
                out.unreadable(subject.shown, "read", &e);
                Vec::new()
            });
            runs.into_iter()
        });
        let run = runs.next();
        let lost_to = run.as_ref().map_or(lost_to, |run| run.offsets.start);
        let problem = Problem::Corruption(what);
        out.damage(subject.shown, position, Some(lost_from..lost_to), problem);
        let Some(run) = run else { break };
        frames.seek(run.position);
        out.advance(run.position - position);
        sums.next_offset = run.offsets.start;
        run_end = run.offsets.end;
    }
    frames.position()
}

impl Sums {
    fn take(&mut self, batch: &Batch<'_>, is_dense: bool) -> Result<(), Corruption> {
        let expected = self.next_offset;
        let found = batch.base_offset();
        self.next_offset = self.next_offset.max(batch.last_offset() + 1);
        self.count += u64::from(batch.count());
        let mut max_timestamp = i64::MIN;
        for record in batch.records() {
            let timestamp = record?.timestamp;
            max_timestamp = max_timestamp.max(timestamp);
            self.min_timestamp = self.min_timestamp.min(timestamp);
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        if found < expected || (is_dense && found != expected) {
            return Err(Corruption::Offset { expected, found });
        }
        if is_dense && batch.last_offset() - found != u64::from(batch.count()) - 1 {
            return Err(Corruption::Field(
                "a gap in the offsets of a segment that was never compacted",
            ));
        }
        if max_timestamp != batch.max_timestamp() {
            return Err(Corruption::Field("largest timestamp of a batch"));
        }
        Ok(())
    }
}

/// Compares what the frames came to with what the footer says.
fn compare(
    out: &mut Output<'_>,
    subject: &Subject<'_>,
    head: &SegmentHead,
    footer: &Footer,
    sums: &Sums,
) {
    let at = Footer::position(footer.data_end);
    match padding_is_zero(subject.file.as_ref(), footer.data_end, at) {
        Ok(true) => {}
        Ok(false) => {
            let what = Corruption::Field("bytes where zeros belong");
            out.damage(subject.shown, footer.data_end, None, Problem::Corruption(what));
        }
        Err(e) => out.unreadable(subject.shown, "read", &e),
    }
    if !sums.is_whole {
        return;
    }
    let ends_well = if head.generation == 0 {
        sums.next_offset == footer.end_offset
    } else {
        sums.next_offset <= footer.end_offset
    };
    let what = if sums.hash.digest128().to_le_bytes() != footer.hash {
        Corruption::Hash
    } else if !ends_well {
        Corruption::Offset { expected: footer.end_offset, found: sums.next_offset }
    } else if sums.count != footer.count {
        Corruption::Field("count of records in the footer")
    } else if (sums.min_timestamp, sums.max_timestamp)
        != (footer.min_timestamp, footer.max_timestamp)
    {
        Corruption::Field("timestamps in the footer")
    } else {
        return;
    };
    out.damage(subject.shown, at, None, Problem::Corruption(what));
}

fn padding_is_zero(file: &dyn File, from: u64, end: u64) -> std::io::Result<bool> {
    let mut bytes = [0; crate::layout::FOOTER_ALIGN as usize];
    let len = usize::try_from(end - from).unwrap_or(bytes.len()).min(bytes.len());
    let got = read_full(file, &mut bytes[..len], from)?;
    Ok(bytes[..got].iter().all(|b| *b == 0))
}

/// The path of a segment's companion.
pub(super) fn companion(shown: &Path, extension: &str) -> PathBuf {
    shown.with_extension(extension)
}
