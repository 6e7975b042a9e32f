//! The manifest file: two slots, written in turn, so that one of them is whole after any crash.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Corruption, Error, Result};
use crate::io::{File, Io, Open, read_full, unlink_if_there, write_full};
use crate::layout::{Manifest, SLOT_LEN};
use crate::planted::{self, Bug};

pub(crate) const NAME: &str = "manifest";

/// The manifest of a log that is open for writing.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    file: Arc<dyn File>,
    path: PathBuf,
    current: Manifest,
}

/// Reads the slot that counts. `Ok(None)`: there is no manifest.
pub(crate) fn load(
    io: &dyn Io,
    dir: &Path,
    shown: &Path,
    how: Open,
) -> Result<Option<(Manifest, Arc<dyn File>)>> {
    let path = dir.join(NAME);
    let file = match io.open(&path, how) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::open(shown.join(&path), e)),
    };
    if how == Open::Write {
        // The process before may have died between write and sync, or its sync may have failed: what is believed now
        // must be what the device has, or the next power loss takes an epoch back that somebody has seen.
        file.sync_data()
            .and_then(|()| file.drop_cache())
            .map_err(|e| Error::io("sync", shown.join(&path), e))?;
    }
    let mut slots = [[0; SLOT_LEN]; 2];
    let bytes = slots.as_flattened_mut();
    let expected = bytes.len();
    let len =
        read_full(file.as_ref(), bytes, 0).map_err(|e| Error::io("read", shown.join(&path), e))?;
    let corrupt =
        |position, what| Error::Corrupt { path: shown.join(&path), position, offset: 0, what };
    if len < expected {
        let what = Corruption::Truncated { expected: expected as u64, found: len as u64 };
        return Err(corrupt(0, what));
    }
    let [first, second] = &slots;
    match (Manifest::decode(first), Manifest::decode(second)) {
        (Ok(a), Ok(b)) if a.log_id != b.log_id => {
            Err(corrupt(SLOT_LEN as u64, Corruption::Misplaced))
        }
        (Ok(a), Ok(b)) => Ok(Some((if a.generation > b.generation { a } else { b }, file))),
        // A slot from a newer build is no torn slot: falling back would forget what it says.
        (Err(what @ (Corruption::Version { .. } | Corruption::Features { .. })), _) => {
            Err(corrupt(0, what))
        }
        (_, Err(what @ (Corruption::Version { .. } | Corruption::Features { .. }))) => {
            Err(corrupt(SLOT_LEN as u64, what))
        }
        (Ok(slot), Err(_)) | (Err(_), Ok(slot)) => Ok(Some((slot, file))),
        (Err(what), Err(_)) => Err(corrupt(0, what)),
    }
}

/// Whether this build knows enough of the log in the directory `shown` to write it.
pub(crate) fn check_writable(manifest: &Manifest, shown: &Path) -> Result<()> {
    let refused = |what| Error::Corrupt { path: shown.join(NAME), position: 0, offset: 0, what };
    manifest.check_writable().map_err(refused)
}

impl ManifestFile {
    pub const fn opened(file: Arc<dyn File>, path: PathBuf, current: Manifest) -> ManifestFile {
        ManifestFile { file, path, current }
    }

    /// Makes the manifest of a new log: temporary file, sync, rename, sync of the directory.
    pub fn create(io: &dyn Io, dir: &Path, shown: &Path, first: Manifest) -> Result<ManifestFile> {
        let (temporary, path) = (dir.join("manifest.tmp"), dir.join(NAME));
        let failed = |op| {
            let shown = shown.join(&path);
            move |e| Error::io(op, shown, e)
        };
        unlink_if_there(io, &temporary).map_err(failed("unlink"))?;
        let file = io.open(&temporary, Open::Create).map_err(failed("create"))?;
        let slot = first.encode();
        write_full(file.as_ref(), &slot, 0).map_err(failed("write"))?;
        write_full(file.as_ref(), &slot, SLOT_LEN as u64).map_err(failed("write"))?;
        file.sync_data().map_err(failed("sync"))?;
        io.rename(&temporary, &path).map_err(failed("rename"))?;
        io.sync_dir(dir).map_err(failed("sync"))?;
        Ok(ManifestFile { file, path: shown.join(path), current: first })
    }

    pub const fn current(&self) -> &Manifest {
        &self.current
    }

    /// Writes a changed manifest to the older slot and syncs it. After an error either slot may count.
    pub fn store(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut next = self.current.clone();
        change(&mut next);
        if next == self.current {
            return Ok(());
        }
        // No manifest with the last generation is opened.
        next.generation = next.generation.saturating_add(1);
        let slot = if next.generation.is_multiple_of(2) { 0 } else { SLOT_LEN as u64 };
        write_full(self.file.as_ref(), &next.encode(), slot)
            .map_err(|e| Error::io("write", &self.path, e))?;
        if planted::has(Bug::ManifestNotSynced) {
            self.current = next;
            return Ok(());
        }
        // Whatever its kind, a failed sync is never a mere lack of space.
        self.file.sync_data().map_err(|source| Error::Io {
            op: "sync",
            path: self.path.clone(),
            source,
        })?;
        self.current = next;
        Ok(())
    }
}
