//! What is there to be copied: segment files, and whatever says how to read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian as LE};

use super::patient::Patient;
use super::walk::Walk;
use crate::batch::Scope;
use crate::data_dir::DataDir;
use crate::error::{Corruption, Error, Result};
use crate::io::{File, Kind, Open, read_full};
use crate::layout::{FOOTER_LEN, Footer, HEAD_LEN, Manifest, SEGMENT_BYTES_MAX, SegmentHead};
use crate::live_page;
use crate::manifest;
use crate::recovery::last_non_zero;
use crate::resync::{Resync, frames_end};
use crate::segment::{file_name, parse_name};
use crate::verify::Problem;

/// The files of a log.
#[derive(Debug)]
pub(super) struct Source<'a> {
    dir: &'a DataDir,
    name: &'a Path,
    pub manifest: Option<Manifest>,
    /// The manifest's, or the one that its heads agree on, if any.
    pub log_id: Option<[u8; 16]>,
    /// No two of the manifest and the heads disagree about that.
    pub is_of_one_log: bool,
    /// Base offsets and lengths, in order.
    pub segments: Vec<(u64, u64)>,
    /// Everything below is known to have been durable.
    pub witness: u64,
    /// Epochs that some head names, for segments whose own is lost.
    epochs: Vec<u32>,
}

/// A segment that can be read.
#[derive(Debug)]
pub(super) struct Readable {
    pub file: Arc<dyn File>,
    /// The same, to be asked what could not be read.
    pub patient: Arc<Patient>,
    pub head: SegmentHead,
    pub footer: Option<Footer>,
    /// Where its frames end at the latest.
    pub limit: u64,
    /// The timestamps in it may all be wrong by the same amount.
    pub is_guessed: bool,
}

impl<'a> Source<'a> {
    /// Looks at the directory and at every head.
    pub fn look(dir: &'a DataDir, name: &'a Path) -> Result<Source<'a>> {
        let io = dir.io().as_ref();
        let entries = io.list(name).map_err(|e| Error::io("list", dir.path().join(name), e))?;
        let mut segments: Vec<(u64, u64)> = entries
            .iter()
            .filter(|entry| entry.kind == Kind::File)
            .filter_map(|entry| Some((parse_name(&entry.name, "log")?, entry.len)))
            .collect();
        segments.sort_unstable();
        let manifest = match manifest::load(io, name, dir.path(), Open::Read) {
            Ok(Some((manifest, _))) => Some(manifest),
            // A damaged manifest is as good as none.
            _ if !segments.is_empty() => None,
            Ok(None) => {
                let path = dir.path().join(name);
                let source = std::io::ErrorKind::NotFound.into();
                return Err(Error::Io { op: "open", path, source });
            }
            Err(error) => return Err(error),
        };
        let mut source = Source {
            dir,
            name,
            log_id: manifest.as_ref().map(|manifest| manifest.log_id),
            is_of_one_log: true,
            manifest,
            segments,
            witness: 0,
            epochs: Vec::new(),
        };
        let mut ids: BTreeMap<[u8; 16], usize> = BTreeMap::new();
        for (base, _) in &source.segments {
            let head = source.open(*base).ok().and_then(|file| read_head(file.as_ref()).ok());
            if let Some(Ok(head)) = head {
                *ids.entry(head.log_id).or_default() += 1;
                source.epochs.push(head.epoch);
            }
        }
        source.epochs.sort_unstable();
        source.epochs.dedup();
        let most = ids.iter().max_by_key(|(_, count)| **count);
        source.log_id = source.log_id.or(most.map(|(id, _)| *id));
        source.is_of_one_log = ids.keys().all(|id| Some(*id) == source.log_id);
        // One that cannot be had is as good as none, too.
        let live = live_page::load(io, dir.path(), name).ok().flatten();
        let live = live.filter(|live| Some(live.log_id) == source.log_id);
        source.witness = live.map_or(0, |live| live.durable);
        if let Some(manifest) = &source.manifest {
            source.witness = source.witness.max(manifest.proven.offset);
        }
        Ok(source)
    }

    /// The largest epoch that anything names.
    pub fn epoch(&self) -> u32 {
        let manifest = self.manifest.as_ref().map_or(0, |manifest| manifest.epoch);
        self.epochs.last().copied().unwrap_or(0).max(manifest)
    }

    pub fn shown(&self, base: u64) -> PathBuf {
        self.dir.path().join(self.name).join(file_name(base, "log"))
    }

    fn open(&self, base: u64) -> std::io::Result<Arc<dyn File>> {
        self.dir.io().open(&self.name.join(file_name(base, "log")), Open::Read)
    }

    /// Whether there is nothing but zeros in the segment, as in one that a writer had begun to reserve when it died.
    pub fn is_blank(&self, base: u64) -> bool {
        let last = || {
            let file = self.open(base)?;
            last_non_zero(file.as_ref(), 0, file.len()?)
        };
        last().is_ok_and(|last| last == 0)
    }

    /// Opens a segment and finds out how to read it.
    pub fn segment(&self, base: u64) -> Result<Readable, Problem> {
        let failed = |op| move |e: std::io::Error| Problem::Io { op, message: e.to_string() };
        let patient = Arc::new(Patient::new(self.open(base).map_err(failed("open"))?));
        let file: Arc<dyn File> = Arc::<Patient>::clone(&patient);
        // What counts is what the device has; if the system will not forget, so be it.
        let _ = file.drop_cache();
        let end = frames_end(file.as_ref()).map_err(failed("stat"))?;
        let len = file.len().map_err(failed("stat"))?.min(SEGMENT_BYTES_MAX);
        let footer = self.footer(file.as_ref(), base, len).map_err(failed("read"))?;
        let limit = footer.as_ref().map_or(end, |footer| footer.data_end);
        let (head, is_guessed) = match read_head(file.as_ref()).map_err(failed("read"))? {
            Ok(head) if Some(head.log_id) == self.log_id && head.base_offset == base => {
                (head, false)
            }
            Ok(_) => return Err(Problem::Corruption(Corruption::Misplaced)),
            Err(what) => self
                .guess_head(&file, base, footer.as_ref(), limit)
                .map_err(failed("read"))?
                .ok_or(Problem::Corruption(what))?,
        };
        Ok(Readable { file, patient, head, footer, limit, is_guessed })
    }

    /// The footer, if it is one of this log and segment.
    fn footer(&self, file: &dyn File, base: u64, len: u64) -> std::io::Result<Option<Footer>> {
        let Some(position) = len.checked_sub(FOOTER_LEN as u64) else { return Ok(None) };
        let mut bytes = [0; FOOTER_LEN];
        read_full(file, &mut bytes, position)?;
        Ok(Footer::decode(&bytes).ok().filter(|footer| {
            Some(footer.log_id) == self.log_id
                && footer.base_offset == base
                && Footer::position(footer.data_end) == position
        }))
    }

    /// A head in place of a damaged one: with the epoch for which a frame verifies, and timestamps that agree with the
    /// footer, if there is one. Whether these are a guess.
    fn guess_head(
        &self,
        file: &Arc<dyn File>,
        base: u64,
        footer: Option<&Footer>,
        limit: u64,
    ) -> std::io::Result<Option<(SegmentHead, bool)>> {
        let Some(log_id) = self.log_id else { return Ok(None) };
        let mut bytes = [0; HEAD_LEN];
        read_full(file.as_ref(), &mut bytes, 0)?;
        let written = LE::read_u32(&bytes[48..52]);
        let named = footer.map(|footer| footer.epoch);
        let known = self.epochs.iter().rev().copied();
        let manifest = self.manifest.as_ref().map(|manifest| manifest.epoch);
        for epoch in named.into_iter().chain([written]).chain(known).chain(manifest) {
            let scope = Scope::new(&log_id, epoch, base, 0);
            let first = Resync::new(file, &scope, limit).next(HEAD_LEN as u64)?;
            if first.is_none() {
                continue;
            }
            let (base_timestamp, is_guessed) = match footer {
                Some(footer) => base_timestamp(file, &scope, footer)?,
                None => {
                    let written = LE::read_i64(&bytes[56..64]);
                    let scope = Scope::new(&log_id, epoch, base, written);
                    // What counts from it must be a time, or no record could be read.
                    let reads = Resync::new(file, &scope, limit).next(HEAD_LEN as u64)? == first;
                    (if reads { written } else { 0 }, true)
                }
            };
            let head = SegmentHead {
                read_only_features: 0,
                log_id,
                base_offset: base,
                epoch,
                generation: 0,
                base_timestamp,
                superseded_hash: [0; 16],
            };
            return Ok(Some((head, is_guessed)));
        }
        Ok(None)
    }
}

fn read_head(file: &dyn File) -> std::io::Result<Result<SegmentHead, Corruption>> {
    let mut bytes = [0; HEAD_LEN];
    let got = read_full(file, &mut bytes, 0)?;
    if got < HEAD_LEN {
        let expected = HEAD_LEN as u64;
        return Ok(Err(Corruption::Truncated { expected, found: got as u64 }));
    }
    Ok(SegmentHead::decode(&bytes))
}

/// What timestamps count from, if the footer's least and greatest are those of the records; and whether they disagree.
fn base_timestamp(
    file: &Arc<dyn File>,
    scope: &Scope,
    footer: &Footer,
) -> std::io::Result<(i64, bool)> {
    let (mut least, mut greatest) = (i64::MAX, i64::MIN);
    let mut walk = Walk::new(file, scope, footer.data_end);
    let mut next = footer.base_offset;
    while let Some(head) = walk.next(next, Some(footer.end_offset))? {
        let Ok(batch) = walk.frames.take(head) else {
            // Its checksum is right and it is no batch: as long as it is not passed over it comes again.
            walk.frames.skip(&head);
            continue;
        };
        next = next.max(batch.last_offset() + 1);
        for record in batch.records().flatten() {
            least = least.min(record.timestamp);
            greatest = greatest.max(record.timestamp);
        }
    }
    let from_greatest = footer.max_timestamp.wrapping_sub(greatest);
    Ok((from_greatest, footer.min_timestamp.wrapping_sub(least) != from_greatest))
}
