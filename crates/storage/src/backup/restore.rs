//! Makes a store of a backup.

use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::catalogue::{Catalogue, FileCopy, LogCopy};
use super::{BackupProgress, CATALOGUE, COLD, FILES, HOT, copies, refuse_unless_empty};
use crate::data_dir::DataDir;
use crate::epochs::raised;
use crate::error::{Corruption, Error, Result};
use crate::io::{File, Open, read_full, write_full};
use crate::journal::make_mark;
use crate::layout::{Footer, Manifest, Proven, State};
use crate::log::make_directories;
use crate::manifest::ManifestFile;
use crate::segment::{Segment, file_name};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// What [`restore`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// When the backup was taken, ms since 1970.
    pub taken_at: i64,
    /// Logs in the new store.
    pub logs: u64,
    /// Segments in it.
    pub segments: u64,
    /// Bytes that were copied.
    pub bytes: u64,
    /// The largest log epoch in it.
    pub epoch: u32,
}

/// Makes a store in `target`, which must be empty, of the backup in `source`, which must have been opened for reading
/// only.
///
/// Every log gets a higher epoch than it had: positions and receipts that were given out after the backup was taken are
/// recognised as belonging to records that this store never had. `Ok` means that every record was verified and the store
/// is durable. The manifests come last, the journal's last of all, so what a crash or an error leaves is refused as a store that
/// has lost its journal.
///
/// # Errors
/// [`Error::Corrupt`]: the backup is damaged. [`Error::Locked`]: it is being written. [`Error::Io`] with
/// `DirectoryNotEmpty`: the target, where nothing was changed; with `NotFound`: there is no backup in `source`.
/// [`Error::ReadOnly`], [`Error::DiskFull`].
/// # Cost
/// Reads every byte of the backup, writes it, and reads it again.
pub fn restore(
    source: &DataDir,
    target: &DataDir,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<RestoreReport> {
    if source.writer_is_alive()? {
        return Err(Error::Locked { path: source.path().to_owned(), pid: None });
    }
    if target.is_read_only() {
        return Err(Error::ReadOnly { path: target.path().to_owned() });
    }
    let Some(catalogue) = Catalogue::load(source)? else {
        let path = source.path().join(CATALOGUE);
        return Err(Error::Io { op: "open", path, source: std::io::ErrorKind::NotFound.into() });
    };
    refuse_unless_empty(target, "restore into", &[])?;
    look_for_copies(source, &catalogue)?;
    let total = catalogue.logs.iter().flat_map(LogCopy::files).map(|file| file.len).sum();
    let mut restore = Restore {
        source,
        target,
        report: RestoreReport { taken_at: catalogue.taken_at, ..RestoreReport::default() },
        total,
        progress,
    };
    // A journal that is marked and not there is lost: until its manifest, the last, is written, nobody takes this for a store.
    if [HOT, COLD].iter().all(|name| catalogue.logs.iter().any(|log| log.name == *name)) {
        make_mark(target)?;
    }
    let (journal, others): (Vec<_>, Vec<_>) =
        catalogue.logs.iter().partition(|log| log.name == HOT);
    let mut manifests = Vec::new();
    for log in journal.into_iter().chain(others) {
        manifests.push((log, restore.log(log)?));
    }
    for (log, manifest) in manifests.into_iter().rev() {
        ManifestFile::create(target.io().as_ref(), Path::new(&log.name), target.path(), manifest)?;
    }
    Ok(restore.report)
}

/// Every copy must be there with its length, before anything is made of the others.
fn look_for_copies(source: &DataDir, catalogue: &Catalogue) -> Result<()> {
    let present = copies(source)?;
    for copy in catalogue.logs.iter().flat_map(LogCopy::files) {
        let what = match present.get(&copy.name) {
            Some(len) if *len == copy.len => continue,
            Some(len) => Corruption::Truncated { expected: copy.len, found: *len },
            None => Corruption::LostCopy,
        };
        let path = source.path().join(FILES).join(&copy.name);
        return Err(Error::Corrupt { path, position: 0, offset: copy.offset, what });
    }
    Ok(())
}

struct Restore<'a> {
    source: &'a DataDir,
    target: &'a DataDir,
    report: RestoreReport,
    total: u64,
    progress: &'a mut dyn FnMut(BackupProgress),
}

impl Restore<'_> {
    /// Copies and verifies a log, all but its manifest.
    fn log(&mut self, log: &LogCopy) -> Result<Manifest> {
        let name = Path::new(&log.name);
        let (io, root) = (self.target.io(), self.target.path());
        make_directories(self.target, name)?;
        let mut proven = Proven {
            offset: log.end_offset,
            segment: log.end_offset,
            position: 0,
            max_timestamp: i64::MIN,
        };
        let mut previous_hash = [0; 16];
        for (i, copy) in log.segments.iter().enumerate() {
            let end_offset = log.segments.get(i + 1).map_or(log.end_offset, |next| next.offset);
            let segment = Segment::new(Arc::clone(io), root, name, log.log_id, copy.offset);
            let (file, _) = self.file(copy, name, "log")?;
            let footer = verify(&segment, &file, copy, end_offset, previous_hash, self.target)?;
            previous_hash = segment.chain_hash(file.as_ref())?;
            proven = Proven {
                offset: log.end_offset,
                segment: copy.offset,
                position: footer.data_end,
                max_timestamp: footer.max_timestamp,
            };
            self.report.segments += 1;
        }
        if let Some(copy) = &log.producers {
            let (_, hash) = self.file(copy, name, "producers")?;
            if hash != copy.hash {
                let path = self.source.path().join(FILES).join(&copy.name);
                let (position, offset, what) = (0, copy.offset, Corruption::Hash);
                return Err(Error::Corrupt { path, position, offset, what });
            }
        }
        io.sync_dir(name).map_err(|e| Error::io("sync", root.join(name), e))?;
        let epoch = raised(log.epoch);
        self.report.logs += 1;
        self.report.epoch = self.report.epoch.max(epoch);
        Ok(Manifest {
            read_only_features: 0,
            generation: 1,
            log_id: log.log_id,
            epoch,
            state: State::Clean,
            start_offset: log.start_offset,
            proven,
            boot_id: io.boot_id(),
            created_at: log.created_at,
            has_producers: log.has_producers,
            owner: log.owner.clone(),
        })
    }

    /// Copies a file of the backup into a log, durably but for its name, and returns it with the hash of all its bytes.
    fn file(
        &mut self,
        copy: &FileCopy,
        log: &Path,
        extension: &str,
    ) -> Result<(Arc<dyn File>, [u8; 16])> {
        let from = Path::new(FILES).join(&copy.name);
        let shown = self.source.path().join(&from);
        let source =
            self.source.io().open(&from, Open::Read).map_err(|e| Error::open(shown.clone(), e))?;
        let to = log.join(file_name(copy.offset, extension));
        let written = self.target.path().join(&to);
        let file = self
            .target
            .io()
            .open(&to, Open::Create)
            .map_err(|e| Error::io("create", &written, e))?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        while position < copy.len {
            let wanted = usize::try_from(copy.len - position).map_or(CHUNK, |n| n.min(CHUNK));
            let chunk = &mut buffer[..wanted];
            let read = read_full(source.as_ref(), chunk, position)
                .map_err(|e| Error::io("read", &shown, e))?;
            if read < wanted {
                let found = position + read as u64;
                let what = Corruption::Truncated { expected: copy.len, found };
                return Err(Error::Corrupt { path: shown, position: found, offset: 0, what });
            }
            write_full(file.as_ref(), chunk, position)
                .map_err(|e| Error::io("write", &written, e))?;
            hash.update(chunk);
            position += wanted as u64;
            self.report.bytes += wanted as u64;
            (self.progress)(BackupProgress { done: self.report.bytes, total: self.total });
        }
        file.sync_data().map_err(|source| Error::Io { op: "sync", path: written, source })?;
        Ok((file, hash.digest128().to_le_bytes()))
    }
}

/// Verifies every record of a segment, seals it if the backup had it without a footer, and makes its indexes.
fn verify(
    segment: &Segment,
    file: &Arc<dyn File>,
    copy: &FileCopy,
    end_offset: u64,
    previous_hash: [u8; 16],
    target: &DataDir,
) -> Result<Footer> {
    let sealed = segment.footer(file.as_ref())?.cloned();
    let limit = sealed.as_ref().map_or(copy.len, |footer| footer.data_end);
    let walked = segment.walk(file, limit)?;
    if walked.hash != copy.hash {
        return Err(segment.corrupt(0, copy.offset, Corruption::Hash));
    }
    if sealed.is_none() {
        if walked.end_offset != end_offset {
            let what = Corruption::Offset { expected: end_offset, found: walked.end_offset };
            return Err(segment.corrupt(walked.data_end, walked.end_offset, what));
        }
        let now_ms = target.clock().wall_ms();
        segment.write_footer(file.as_ref(), &walked, end_offset, previous_hash, now_ms)?;
    }
    let footer = segment.footer(file.as_ref())?.cloned();
    let what = Corruption::Field("a segment without its footer");
    let footer = footer.ok_or_else(|| segment.corrupt(limit, copy.offset, what))?;
    segment.store_index(walked.index);
    Ok(footer)
}
