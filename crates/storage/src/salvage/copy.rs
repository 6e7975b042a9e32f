//! The copy itself.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::{Readable, Source};
use super::walk::Walk;
use super::{Event, Gap, SalvageReport};
use crate::batch::{Batch, Scope};
use crate::data_dir::{Claimed, DataDir};
use crate::epochs::raised;
use crate::error::{Corruption, Error, Result};
use crate::io::Open;
use crate::layout::{Footer, HEAD_LEN, Manifest, Proven, SegmentHead, State};
use crate::log::{make_directories, new_log_id};
use crate::manifest::{self, ManifestFile};
use crate::record::{Header, Record, RecordView};
use crate::recovery;
use crate::segment::{Segment, file_name};
use crate::segment_writer::SegmentWriter;
use crate::verify::Problem;

/// A copy on its way.
pub(super) struct Copy<'a> {
    source: &'a Source<'a>,
    target: &'a DataDir,
    name: &'a Path,
    tell: &'a mut dyn FnMut(Event<'_>),
    log_id: [u8; 16],
    report: SalvageReport,
    /// The next offset to be copied.
    next: u64,
    /// The segment that is being written.
    output: Option<SegmentWriter>,
    /// What was finished, in order.
    footers: Vec<Footer>,
    has_producers: bool,
    /// The frame copied last said that its commit goes on.
    is_open: bool,
    done: u64,
    total: u64,
    /// Segments that are there under their names, to be removed again if the copy fails.
    made: Made<'a>,
    _claimed: Claimed,
}

/// Files of a log without a manifest.
struct Made<'a> {
    target: &'a DataDir,
    name: &'a Path,
    bases: Vec<u64>,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        let (io, root) = (self.target.io().as_ref(), self.target.path());
        for base in &self.bases {
            // What stays is not a log, and the next try says that it is there.
            let _ = recovery::remove_segment(io, root, self.name, *base);
        }
    }
}

impl<'a> Copy<'a> {
    /// Makes the directory of the new log.
    pub fn begin(
        source: &'a Source<'a>,
        target: &'a DataDir,
        name: &'a Path,
        tell: &'a mut dyn FnMut(Event<'_>),
    ) -> Result<Copy<'a>> {
        let claimed = target.claim(name)?;
        make_directories(target, name)?;
        let (io, root) = (target.io(), target.path());
        let bases = recovery::list_segments(io.as_ref(), root, name)?;
        if !bases.is_empty() || io.open(&name.join(manifest::NAME), Open::Read).is_ok() {
            return Err(Error::Io {
                op: "create",
                path: root.join(name),
                source: std::io::ErrorKind::AlreadyExists.into(),
            });
        }
        // It takes the place of the old one for whoever knows that by its id; in a higher epoch, so that no file of the one
        // passes for one of the other.
        let log_id = match source.log_id {
            Some(id) => id,
            None => new_log_id(target)?,
        };
        Ok(Copy {
            source,
            target,
            name,
            tell,
            log_id,
            report: SalvageReport {
                is_without_manifest: source.manifest.is_none(),
                ..SalvageReport::default()
            },
            next: source.manifest.as_ref().map_or(0, |manifest| manifest.start_offset),
            output: None,
            footers: Vec::new(),
            has_producers: source.manifest.as_ref().is_some_and(|m| m.has_producers),
            is_open: false,
            done: 0,
            total: source.segments.iter().map(|(_, len)| len).sum(),
            made: Made { target, name, bases: Vec::new() },
            _claimed: claimed,
        })
    }

    pub fn run(mut self) -> Result<SalvageReport> {
        let start = self.next;
        if self.source.manifest.is_none()
            && let Some((first, _)) = self.source.segments.first()
        {
            self.next = *first;
        }
        for (i, (base, len)) in self.source.segments.iter().enumerate() {
            let next_base = self.source.segments.get(i + 1).map(|(next, _)| *next);
            if next_base.is_none_or(|next| next > start) {
                self.segment(*base, next_base)?;
            }
            self.done += len;
            self.progress(self.done);
        }
        self.end_commit();
        let end = self.next.max(self.source.witness);
        if end > self.next {
            let last = self.source.segments.last().map_or(0, |(base, _)| *base);
            let what = Corruption::LostDurable { durable_upto: end };
            self.gap(self.next..end, last, 0, Problem::Corruption(what));
        }
        self.finish_segment(end)?;
        self.finish(start, end)
    }

    fn progress(&mut self, done: u64) {
        (self.tell)(Event::Progress { done: done.min(self.total), total: self.total });
    }

    fn gap(&mut self, offsets: Range<u64>, base: u64, position: u64, problem: Problem) {
        self.report.gaps += 1;
        self.report.offsets_lost += offsets.end.saturating_sub(offsets.start);
        let gap = Gap { offsets, path: self.source.shown(base), position, problem };
        (self.tell)(Event::Gap(&gap));
    }

    /// Copies what there is in one segment below the base offset of the next one, which owns what follows.
    fn segment(&mut self, base: u64, next_base: Option<u64>) -> Result<()> {
        let readable = match self.source.segment(base) {
            Ok(readable) => readable,
            // Nothing was ever stored in it.
            Err(Problem::Corruption(_))
                if next_base.is_none()
                    && base == self.next
                    && base >= self.source.witness
                    && self.source.is_blank(base) =>
            {
                return Ok(());
            }
            Err(problem) => {
                let end = next_base.unwrap_or(base).max(self.next);
                self.end_commit();
                self.gap(self.next..end, base, 0, problem);
                self.next = end;
                return Ok(());
            }
        };
        if base > self.next {
            self.end_commit();
            let what = Corruption::Gap { expected: self.next, found: base };
            self.gap(self.next..base, base, 0, Problem::Corruption(what));
            self.next = base;
        }
        self.report.segments_with_guessed_timestamps += u64::from(readable.is_guessed);
        let Readable { file, patient, head, footer, limit, .. } = &readable;
        let scope = Scope::new(&head.log_id, head.epoch, base, head.base_timestamp);
        let mut walk = Walk::new(file, &scope, *limit);
        let failed = |e| Error::io("read", self.source.shown(base), e);
        let (mut begun, mut damaged_at) = (false, None);
        // The end that a sealed segment names is good even if all before it is lost.
        let end = footer.as_ref().map(|footer| footer.end_offset);
        // Compaction may have taken in what the next one has, if a crash has left that there.
        let reach = end.or(next_base);
        while let Some(frame) = walk.next(self.next, reach).map_err(failed)? {
            let position = walk.frames.position();
            if let Some(damage) = walk.damage.take() {
                damaged_at.get_or_insert(damage);
            }
            let batch = match walk.frames.take(frame) {
                Ok(batch) => batch,
                Err(what) => {
                    damaged_at.get_or_insert(super::walk::Damage { position, what });
                    walk.frames.skip(&frame);
                    continue;
                }
            };
            let is_void = batch.last_offset() < self.next
                || reach.is_some_and(|reach| batch.base_offset() >= reach);
            if is_void {
                continue;
            }
            let is_dense = head.generation == 0;
            if batch.base_offset() > self.next && (is_dense || damaged_at.is_some()) {
                let (at, problem) = match damaged_at.take() {
                    Some(damage) => {
                        let range = damage.position..position;
                        let refused = patient.refusal(&range);
                        let problem = match refused {
                            Some(message) => Problem::Io { op: "read", message },
                            None => Problem::Corruption(damage.what),
                        };
                        (damage.position, problem)
                    }
                    None => {
                        let (expected, found) = (self.next, batch.base_offset());
                        (position, Problem::Corruption(Corruption::Offset { expected, found }))
                    }
                };
                self.end_commit();
                self.gap(self.next..batch.base_offset(), base, at, problem);
            }
            damaged_at = None;
            if !begun {
                self.begin_segment(head)?;
                begun = true;
            }
            self.add(&batch)?;
            self.progress(self.done + position);
        }
        if let Some(damage) = walk.damage.take() {
            damaged_at.get_or_insert(damage);
        }
        let end = end.or(next_base).unwrap_or(self.next).max(self.next);
        if let Some(damage) = damaged_at {
            self.end_commit();
            let bytes = limit.saturating_sub(damage.position);
            let problem = match patient.refusal(&(damage.position..*limit)) {
                Some(message) => Problem::Io { op: "read", message },
                None if end > self.next => Problem::Corruption(damage.what),
                None => Problem::DoubtfulTail { bytes },
            };
            self.gap(self.next..end, base, damage.position, problem);
        } else if end > self.next && head.generation == 0 {
            self.end_commit();
            let what = Corruption::LostDurable { durable_upto: end };
            self.gap(self.next..end, base, *limit, Problem::Corruption(what));
        }
        self.next = end;
        Ok(())
    }

    /// Begins a segment in the new log as `head` is in the old one.
    fn begin_segment(&mut self, head: &SegmentHead) -> Result<()> {
        self.finish_segment(head.base_offset)?;
        let name = file_name(head.base_offset, "log");
        let head = SegmentHead {
            read_only_features: 0,
            log_id: self.log_id,
            // There may be gaps in it.
            generation: head.generation.max(1),
            superseded_hash: [0; 16],
            ..head.clone()
        };
        let shown = self.target.path().join(self.name).join(&name);
        let temporary = self.name.join(format!("{name}.tmp"));
        self.output = Some(SegmentWriter::create(self.target.io(), temporary, shown, head)?);
        Ok(())
    }

    fn add(&mut self, batch: &Batch<'_>) -> Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let from = self.next;
        let records: Vec<RecordView<'_>> =
            batch.records().flatten().filter(|record| record.offset >= from).collect();
        let headers: Vec<Vec<Header<'_>>> =
            records.iter().map(|record| record.headers.collect()).collect();
        if !records.is_empty() {
            let plain = records.iter().zip(&headers).map(|(record, headers)| {
                let delta = u32::try_from(record.offset - batch.base_offset()).unwrap_or(u32::MAX);
                let timestamp = Some(record.timestamp);
                (
                    delta,
                    record.timestamp,
                    Record { key: record.key, value: record.value, headers, timestamp },
                )
            });
            output.add(&batch.copied(), plain)?;
        }
        self.has_producers |= batch.producer().is_some();
        self.report.records += records.len() as u64;
        self.is_open = batch.continues();
        self.next = batch.last_offset() + 1;
        Ok(())
    }

    /// What comes next is no part of the commit that is open, if one is.
    fn end_commit(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.report.partial_commits += 1;
            if let Some(output) = &mut self.output {
                output.end_commit();
            }
        }
    }

    /// Seals the segment that is being written: the next one begins at `end_offset`.
    fn finish_segment(&mut self, end_offset: u64) -> Result<()> {
        let Some(output) = self.output.take() else { return Ok(()) };
        let previous_hash = self.footers.last().map_or([0; 16], |footer| footer.hash);
        let written = output.finish(end_offset, previous_hash, self.target.clock().wall_ms())?;
        let (io, root) = (self.target.io(), self.target.path());
        let base = written.head.base_offset;
        let segment = Segment::new(Arc::clone(io), root, self.name, self.log_id, base);
        self.made.bases.push(base);
        io.rename(written.temporary.path(), &segment.path()).map_err(segment.failed("rename"))?;
        written.temporary.keep();
        segment.store_index(written.index);
        self.footers.push(written.footer);
        self.report.segments += 1;
        Ok(())
    }

    /// Makes it a log: the manifest comes when all else is durable.
    fn finish(mut self, start: u64, end: u64) -> Result<SalvageReport> {
        let (io, root) = (self.target.io().as_ref(), self.target.path());
        let shown: PathBuf = root.join(self.name);
        io.sync_dir(self.name).map_err(|e| Error::io("sync", &shown, e))?;
        let first = self.footers.first().map_or(end, |footer| footer.base_offset);
        let proven = match self.footers.last() {
            Some(last) => Proven {
                offset: end,
                segment: last.base_offset,
                position: last.data_end,
                max_timestamp: last.max_timestamp,
            },
            None => Proven { offset: end, segment: end, position: 0, max_timestamp: i64::MIN },
        };
        debug_assert!(proven.position == 0 || proven.position >= HEAD_LEN as u64);
        let old = self.source.manifest.as_ref();
        let now_ms = self.target.clock().wall_ms();
        let manifest = Manifest {
            read_only_features: 0,
            generation: 1,
            log_id: self.log_id,
            epoch: raised(self.source.epoch()),
            state: State::Clean,
            start_offset: start.max(first),
            proven,
            boot_id: self.target.io().boot_id(),
            created_at: old.map_or(now_ms, |manifest| manifest.created_at),
            has_producers: self.has_producers,
            owner: old.map(|manifest| manifest.owner.clone()).unwrap_or_default(),
        };
        self.report.start_offset = manifest.start_offset;
        self.report.end_offset = end;
        ManifestFile::create(io, self.name, root, manifest)?;
        self.made.bases.clear();
        Ok(self.report)
    }
}
