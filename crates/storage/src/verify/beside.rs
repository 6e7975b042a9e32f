//! What lies beside the segments of a log: names, the manifest, and files that can be lost without harm.

use std::path::Path;
use std::sync::Arc;

use super::log::Subjects;
use super::report::{Problem, Severity};
use super::segment::{Verified, companion};
use super::{Output, list};
use crate::checkpoint::{self, CheckpointHead};
use crate::data_dir::{DataDir, is_log_name};
use crate::error::Corruption;
use crate::index::IndexFile;
use crate::io::{Entry, File, Kind, Open, read_full};
use crate::layout::{HEAD_LEN, LIVE_LEN, Live, Manifest, SLOT_LEN, SegmentHead};
use crate::manifest;
use crate::producers::Producers;
use crate::segment::{file_name, parse_name};

/// Indexes and producer snapshots are not read beyond this, here as elsewhere.
const DISPOSABLE_MAX: u64 = 64 << 20;

/// Names, kinds and modes.
pub(super) fn look_at_entries(
    out: &mut Output<'_>,
    shown: &Path,
    entries: &[Entry],
    is_alive: bool,
) {
    for entry in entries {
        let path = shown.join(&entry.name);
        let name = entry.name.as_str();
        let is_temporary = name.ends_with(".tmp");
        if is_temporary && is_alive {
            continue;
        }
        let is_segment = parse_name(name, "log").is_some();
        let is_known = match entry.kind {
            Kind::File => {
                let of_segment = ["index", "time", "producers"]
                    .iter()
                    .any(|extension| parse_name(name, extension).is_some());
                is_segment
                    || of_segment
                    || is_temporary
                    || [manifest::NAME, "live", crate::writer::SPARE].contains(&name)
                    || checkpoint::parse_name(name).is_some()
            }
            // Not a byte of it is missed, but the writer that would write it refuses the log.
            Kind::Directory | Kind::Other if name == "live" => {
                out.damage(&path, 0, None, Problem::NotAFile);
                continue;
            }
            Kind::Directory => name == "quarantine" || is_log_name(name),
            Kind::Other => {
                if is_segment || name == manifest::NAME {
                    out.damage(&path, 0, None, Problem::NotAFile);
                    continue;
                }
                false
            }
        };
        out.look_at(&path, entry, is_known);
    }
}

/// The slot that counts, if one does.
pub(super) fn look_at_manifest(
    out: &mut Output<'_>,
    dir: &DataDir,
    name: &Path,
) -> Option<Manifest> {
    let shown = dir.path().join(name).join(manifest::NAME);
    let (current, file) = match manifest::load(dir.io().as_ref(), name, dir.path(), Open::Read) {
        Ok(Some(found)) => found,
        Ok(None) => return None,
        Err(e) => {
            out.error(e);
            return None;
        }
    };
    let mut bytes = [0; 2 * SLOT_LEN];
    if let Err(e) = read_full(file.as_ref(), &mut bytes, 0) {
        out.unreadable(&shown, "read", &e);
    }
    for (i, slot) in bytes.as_chunks::<SLOT_LEN>().0.iter().enumerate() {
        if let Err(what) = Manifest::decode(slot) {
            let position = (i * SLOT_LEN) as u64;
            out.find(Severity::Note, &shown, position, None, Problem::ManifestSlot(what));
        }
    }
    Some(current)
}

/// The log id that the first sound head names.
pub(super) fn any_log_id(dir: &DataDir, name: &Path, bases: &[u64]) -> Option<[u8; 16]> {
    bases.iter().find_map(|base| {
        let file = dir.io().open(&name.join(file_name(*base, "log")), Open::Read).ok()?;
        let mut bytes = [0; HEAD_LEN];
        read_full(file.as_ref(), &mut bytes, 0).ok().filter(|got| *got == HEAD_LEN)?;
        Some(SegmentHead::decode(&bytes).ok()?.log_id)
    })
}

impl Subjects<'_> {
    pub(super) fn look_at_indexes(&self, out: &mut Output<'_>, path: &Path, verified: &Verified) {
        let (Some(index), Some(footer)) = (&verified.index, &verified.footer) else { return };
        let (offsets, times) = index.encode(&self.log_id, footer.base_offset);
        for (extension, expected) in [("index", offsets), ("time", times)] {
            let shown = companion(path, extension);
            let name = file_name(footer.base_offset, extension);
            match self.read_disposable(&name) {
                Ok(Some(bytes)) if bytes == expected => {}
                Ok(Some(bytes)) => match IndexFile::decode(&bytes) {
                    Ok(_) => out.note(&shown, Problem::StaleIndex),
                    Err(what) => out.note(&shown, Problem::Disposable(what)),
                },
                // It is made after the footer, at leisure.
                Ok(None) if self.is_alive => {}
                Ok(None) => out.note(&shown, Problem::MissingIndex),
                Err(e) => out.unreadable(&shown, "read", &e),
            }
        }
    }

    fn open_disposable(&self, name: &str) -> std::io::Result<Option<Arc<dyn File>>> {
        match self.open(name) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read_disposable(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_disposable(name)? else { return Ok(None) };
        let len = usize::try_from(file.len()?.min(DISPOSABLE_MAX)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        let got = read_full(file.as_ref(), &mut bytes, 0)?;
        bytes.truncate(got);
        Ok(Some(bytes))
    }

    /// The live page, producer snapshots and checkpoints: all of them can be lost without harm.
    pub(super) fn look_at_disposables(&self, out: &mut Output<'_>, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.kind == Kind::File) {
            let producers_at = parse_name(&entry.name, "producers");
            let owner = checkpoint::parse_name(&entry.name);
            if entry.name != "live" && producers_at.is_none() && owner.is_none() {
                continue;
            }
            let path = self.shown.join(&entry.name);
            let read = match owner {
                Some(_) => self
                    .open_disposable(&entry.name)
                    .and_then(|file| file.map(|file| checkpoint::read(file.as_ref())).transpose()),
                None => self.read_disposable(&entry.name).map(|bytes| bytes.map(Ok)),
            };
            let bytes = match read {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(e) => {
                    out.unreadable(&path, "read", &e);
                    continue;
                }
            };
            let decoded = bytes.and_then(|bytes| match (producers_at, owner) {
                (Some(at), _) => Producers::decode_any(&bytes)
                    .map(|(log_id, offset, _)| (log_id, offset) == (self.log_id, at)),
                (_, Some(owner)) => CheckpointHead::decode(&bytes)
                    .map(|(head, _)| (head.log_id, head.owner) == (self.log_id, owner)),
                (None, None) => decode_live(&bytes).map(|live| live.log_id == self.log_id),
            });
            // A live writer replaces them while we look.
            match decoded {
                Ok(true) => {}
                Ok(false) => out.note(&path, Problem::Disposable(Corruption::Misplaced)),
                Err(_) if self.is_alive => {}
                Err(what) => out.note(&path, Problem::Disposable(what)),
            }
        }
    }

    pub(super) fn look_at_quarantine(&self, out: &mut Output<'_>, entries: &[Entry]) {
        if !entries.iter().any(|e| e.name == "quarantine" && e.kind == Kind::Directory) {
            return;
        }
        match list(self.dir, &self.name.join("quarantine")) {
            Ok(entries) => {
                for entry in entries {
                    let path = self.shown.join("quarantine").join(&entry.name);
                    out.look_at(&path, &entry, true);
                    if entry.kind == Kind::File && !entry.name.ends_with(".tmp") {
                        let problem = Problem::Quarantined { bytes: entry.len };
                        out.find(Severity::Ambiguous, &path, 0, None, problem);
                    }
                }
            }
            Err(e) => out.error(e),
        }
    }
}

fn decode_live(bytes: &[u8]) -> Result<Live, Corruption> {
    match bytes.first_chunk::<LIVE_LEN>() {
        Some(bytes) => Live::decode(bytes),
        None => {
            let found = bytes.len() as u64;
            Err(Corruption::Truncated { expected: LIVE_LEN as u64, found })
        }
    }
}
