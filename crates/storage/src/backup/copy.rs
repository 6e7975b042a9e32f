//! Copies the files of one log after the other into a backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::catalogue::{FileCopy, LogCopy};
use super::pin::{Pinned, PinnedSegment};
use super::{BackupProgress, BackupReport, FILES, copies};
use crate::data_dir::DataDir;
use crate::error::{Corruption, Error, Result};
use crate::frames::Step;
use crate::io::{File, Io, Open, read_full, write_full};
use crate::layout::HEAD_LEN;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
const TEMPORARY: &str = "copying.tmp";

/// Copies into a backup.
pub(super) struct Copier<'a> {
    target: &'a DataDir,
    /// What is there.
    present: BTreeMap<String, u64>,
    report: BackupReport,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(BackupProgress),
}

/// What part of a file to copy, and what to hash of it.
#[derive(Clone, Copy)]
struct Extent {
    len: u64,
    hashed: u64,
}

impl<'a> Copier<'a> {
    pub fn new(
        target: &'a DataDir,
        total: u64,
        progress: &'a mut dyn FnMut(BackupProgress),
    ) -> Result<Copier<'a>> {
        let present = copies(target)?;
        Ok(Copier { target, present, report: BackupReport::default(), done: 0, total, progress })
    }

    /// Copies what is not there of `log`.
    pub fn log(&mut self, log: Pinned) -> Result<LogCopy> {
        if log.is_doubtful {
            self.report.doubtful.push(log.name.clone());
        }
        let segments = log
            .segments
            .iter()
            .map(|segment| self.segment(&log.name, segment))
            .collect::<Result<Vec<_>>>()?;
        let producers = match &log.producers {
            Some((offset, file)) => Some(self.producers(&log.name, *offset, file)?),
            None => None,
        };
        Ok(LogCopy {
            name: log.name,
            log_id: log.manifest.log_id,
            epoch: log.manifest.epoch,
            start_offset: log.start_offset,
            end_offset: log.end_offset,
            created_at: log.manifest.created_at,
            has_producers: log.manifest.has_producers,
            owner: log.manifest.owner,
            segments,
            producers,
        })
    }

    fn segment(&mut self, log: &str, pinned: &PinnedSegment) -> Result<FileCopy> {
        let PinnedSegment { segment, file, end_offset } = pinned;
        let base = segment.base_offset();
        let file_len = file.len().map_err(segment.failed("stat"))?;
        let (extent, known) = match segment.footer(file.as_ref())? {
            Some(footer) => (Extent { len: file_len, hashed: footer.data_end }, Some(footer.hash)),
            None => {
                let end = end_position(pinned, *end_offset, file_len)?;
                (Extent { len: end, hashed: end }, None)
            }
        };
        if let Some(hash) = known {
            let copy = FileCopy::new(log, "log", base, hash, extent.len);
            if self.present.get(&copy.name) == Some(&extent.len) {
                self.advance(file_len);
                return Ok(copy);
            }
        }
        let read = |e| segment.failed("read")(e);
        let (hash, is_clone) = self.copy(file.as_ref(), extent, &read)?;
        if known.is_some_and(|known| known != hash) {
            return Err(segment.corrupt(0, base, Corruption::Hash));
        }
        let copy = FileCopy::new(log, "log", base, hash, extent.len);
        self.keep(&copy)?;
        self.report.copied_segments += 1;
        self.report.cloned_segments += u64::from(is_clone);
        self.advance(file_len.saturating_sub(extent.len));
        Ok(copy)
    }

    fn producers(&mut self, log: &str, offset: u64, file: &Arc<dyn File>) -> Result<FileCopy> {
        let failed = |e| Error::io("read", format!("{log}: producers at {offset}"), e);
        let len = file.len().map_err(failed)?;
        let (hash, _) = self.copy(file.as_ref(), Extent { len, hashed: len }, &failed)?;
        let copy = FileCopy::new(log, "producers", offset, hash, len);
        self.keep(&copy)?;
        Ok(copy)
    }

    /// Copies to the temporary file, durably, and returns the hash, and whether blocks are shared.
    fn copy(
        &mut self,
        source: &dyn File,
        extent: Extent,
        failed: &dyn Fn(std::io::Error) -> Error,
    ) -> Result<([u8; 16], bool)> {
        let (io, path) = (self.target.io(), temporary());
        let shown = self.target.path().join(&path);
        discard(io.as_ref(), &path).map_err(|e| Error::io("unlink", &shown, e))?;
        let file = io.open(&path, Open::Create).map_err(|e| Error::io("create", &shown, e))?;
        let write = |e| Error::io("write", &shown, e);
        // A clone is of the whole file: an active segment ends in bytes that are none of the log's yet.
        let is_whole = source.len().map_err(failed)? == extent.len;
        let is_clone = is_whole && file.reflink(source).map_err(write)?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        while position < extent.len {
            let wanted = usize::try_from(extent.len - position).map_or(CHUNK, |n| n.min(CHUNK));
            let chunk = &mut buffer[..wanted];
            if read_full(source, chunk, position).map_err(failed)? < wanted {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let hashed = usize::try_from(extent.hashed.saturating_sub(position))
                .map_or(wanted, |n| n.min(wanted));
            hash.update(&chunk[..hashed]);
            if !is_clone {
                write_full(file.as_ref(), chunk, position).map_err(write)?;
            }
            position += wanted as u64;
            self.advance(wanted as u64);
        }
        file.sync_data().map_err(|source| Error::Io { op: "sync", path: shown.clone(), source })?;
        self.report.copied_bytes += extent.len;
        Ok((hash.digest128().to_le_bytes(), is_clone))
    }

    /// Gives the temporary file its name.
    fn keep(&mut self, copy: &FileCopy) -> Result<()> {
        let (io, path) = (self.target.io(), Path::new(FILES).join(&copy.name));
        io.rename(&temporary(), &path)
            .map_err(|e| Error::io("rename", self.target.path().join(&path), e))?;
        self.present.insert(copy.name.clone(), copy.len);
        Ok(())
    }

    /// Makes the names durable.
    pub fn finish(self) -> Result<BackupReport> {
        self.target
            .io()
            .sync_dir(Path::new(FILES))
            .map_err(|e| Error::io("sync", self.target.path().join(FILES), e))?;
        Ok(self.report)
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        // The store may have grown since.
        self.total = self.total.max(self.done);
        (self.progress)(BackupProgress { done: self.done, total: self.total });
    }
}

fn temporary() -> PathBuf {
    Path::new(FILES).join(TEMPORARY)
}

fn discard(io: &dyn Io, path: &Path) -> std::io::Result<()> {
    match io.unlink(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        unlinked => unlinked,
    }
}

/// Where in a segment without a footer the records below `end_offset` end. Verifies them.
fn end_position(pinned: &PinnedSegment, end_offset: u64, file_len: u64) -> Result<u64> {
    let segment = &pinned.segment;
    let mut frames = segment.frames(Arc::clone(&pinned.file), HEAD_LEN as u64, file_len)?;
    let mut next = segment.base_offset();
    while next < end_offset {
        let taken = match frames.peek().map_err(segment.failed("read"))? {
            Step::Frame(head) => frames.take(head).map(|batch| batch.last_offset() + 1),
            Step::End => Err(Corruption::LostDurable { durable_upto: end_offset }),
            Step::Damaged(what) => Err(what),
        };
        let position = frames.position();
        next = taken.map_err(|what| segment.corrupt(position, next, what))?;
    }
    Ok(frames.position())
}
