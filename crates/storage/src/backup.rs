//! Copies a store into a directory of its own, beside its live writer, and makes a store of such a copy again.
//!
//! A backup is what readers of the store could see at one moment for the journal, and at that moment or later for every
//! other log: whatever the journal refers to is there. Of a sealed segment there is one copy, under a name that holds its
//! hash, so that the next backup of the same store only copies what is new. What counts is the catalogue, which is
//! replaced as a whole when everything that it names is durable: a backup that is cut short leaves the one before.
//!
//! Segments are copied, or share their blocks where the file system can (`FICLONE`); there are no hard links, by which a
//! store and its backup would be damaged together. Every byte is read and verified on the way.

pub(crate) mod catalogue;
mod copy;
mod pin;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use restore::{RestoreReport, restore};

use crate::data_dir::DataDir;
use crate::error::{Error, Result};
use crate::io::{Kind, Open, unlink_if_there, write_full};
use crate::journal::{COLD_NAME as COLD, NAME as HOT};
use crate::segment::parse_name;
use catalogue::{Catalogue, LogCopy};
use copy::Copier;
use pin::Pinned;

/// The catalogue's name.
pub(crate) const CATALOGUE: &str = "BACKUP";
/// The directory of the copies.
pub(crate) const FILES: &str = "files";
/// How often a log is looked at that changes meanwhile.
const LOOKS: u32 = 8;

/// How far a backup or a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Bytes of segment files that are done with.
    pub done: u64,
    /// Bytes of all segment files, as far as was known at the beginning.
    pub total: u64,
}

/// What [`backup`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Logs in the backup.
    pub logs: u64,
    /// Records that lie between the starts and ends of their logs; compaction may have removed some.
    pub offsets: u64,
    /// Segments in the backup.
    pub segments: u64,
    /// Bytes of all files in the backup.
    pub bytes: u64,
    /// Segments that had to be copied; the others were there from an earlier backup.
    pub copied_segments: u64,
    /// Bytes that had to be copied or cloned.
    pub copied_bytes: u64,
    /// Segments among the copied ones that share their blocks with the store's.
    pub cloned_segments: u64,
    /// Files of earlier backups that are not needed any more and were removed.
    pub removed_files: u64,
    /// Logs whose writer died and left bytes that may have been acknowledged. They are not in the backup.
    pub doubtful: Vec<String>,
}

/// Copies the store `source`, opened for reading only, into the directory `target`: everything that its readers see.
/// Works beside a live writer, which is not held up. Where `target` holds an earlier backup of the store, only what is new
/// is copied, and the earlier backup counts until this one is complete.
///
/// `Ok` means that the backup is complete and durable. It is no store: [`restore`] makes one of it.
///
/// # Errors
/// [`Error::Corrupt`]: the store, or what is in `target`, is damaged; the earlier backup, if any, stays.
/// [`Error::ReadOnly`]: the target. [`Error::Io`], also where `target` holds something else, or the backup of another store.
/// [`Error::DiskFull`].
/// # Cost
/// Reads and verifies all that is new, and writes it. Of a log that is appended to, the active segment is copied each time.
pub fn backup(
    source: &DataDir,
    target: &DataDir,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport> {
    if target.is_read_only() {
        return Err(Error::ReadOnly { path: target.path().to_owned() });
    }
    let _span = crate::events::backing_up(target.path());
    let old = Catalogue::load(target)?;
    prepare(target, old.is_some())?;
    let mut total = 0;
    // Before the journal is looked at: it knows the topic of every log that is there now.
    let mut names = source.logs()?;
    names.retain(|name| name != HOT && name != COLD);
    for name in names.iter().map(String::as_str).chain([HOT, COLD]) {
        total += segment_bytes(source, name);
    }
    let journal = pin::journal(source)?;
    refuse_another_stores(target, old.as_ref(), &journal)?;
    let mut copier = Copier::new(target, total, progress)?;
    let mut logs = Vec::new();
    for pinned in journal {
        logs.push(copier.log(pinned)?);
    }
    for name in &names {
        if let Some(pinned) = pin::pin(source, name)? {
            logs.push(copier.log(pinned)?);
        }
    }
    let catalogue = Catalogue { taken_at: source.clock().wall_ms(), logs };
    let mut report = copier.finish()?;
    store(target, &catalogue)?;
    report.removed_files = remove_unneeded(target, &catalogue)?;
    for log in &catalogue.logs {
        report.logs += 1;
        report.offsets += log.end_offset - log.start_offset;
        report.segments += log.segments.len() as u64;
        report.bytes += log.files().map(|file| file.len).sum::<u64>();
    }
    Ok(report)
}

/// Makes the directory of copies. A directory that is neither empty nor a backup is none of ours.
fn prepare(target: &DataDir, is_backup: bool) -> Result<()> {
    let (io, root) = (target.io(), target.path());
    if !is_backup {
        refuse_unless_empty(target, "back up into", &[FILES])?;
    }
    io.create_dir(Path::new(FILES)).map_err(|e| Error::io("create", root.join(FILES), e))?;
    io.sync_dir(Path::new("")).map_err(|e| Error::io("sync", root, e))
}

/// A store is known by its journal's id, which a restored one has too.
fn refuse_another_stores(
    target: &DataDir,
    old: Option<&Catalogue>,
    journal: &[Pinned],
) -> Result<()> {
    let theirs = old.and_then(|old| old.logs.iter().find(|log| log.name == HOT));
    let ours = journal.iter().find(|log| log.name == HOT);
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if theirs.log_id != ours.manifest.log_id => {
            let (theirs, ours) = (hex(&theirs.log_id), hex(&ours.manifest.log_id));
            let what = format!(
                "it holds the backup of another store, of journal {theirs} and not {ours}; give each store a directory of its own"
            );
            Err(refusal(target, "back up into", std::io::ErrorKind::AlreadyExists, what))
        }
        _ => Ok(()),
    }
}

fn refuse_unless_empty(target: &DataDir, op: &'static str, permitted: &[&str]) -> Result<()> {
    let listed = target.io().list(Path::new(""));
    let entries = listed.map_err(|e| Error::io("list", target.path(), e))?;
    let is_ours = |name: &str| {
        ["LOCK", "ALIVE"].contains(&name) || permitted.contains(&name) || name.ends_with(".tmp")
    };
    match entries.iter().find(|entry| !is_ours(&entry.name)) {
        None => Ok(()),
        Some(entry) => {
            let what = format!("it must be empty, and there is {:?} in it", entry.name);
            Err(refusal(target, op, std::io::ErrorKind::DirectoryNotEmpty, what))
        }
    }
}

fn refusal(target: &DataDir, op: &'static str, kind: std::io::ErrorKind, what: String) -> Error {
    Error::Io { op, path: target.path().to_owned(), source: std::io::Error::new(kind, what) }
}

fn segment_bytes(source: &DataDir, name: &str) -> u64 {
    let entries = source.io().list(Path::new(name)).unwrap_or_default();
    entries.iter().filter(|e| parse_name(&e.name, "log").is_some()).map(|e| e.len).sum()
}

/// Puts a new catalogue in the place of the old one. Everything that it names is durable.
fn store(target: &DataDir, catalogue: &Catalogue) -> Result<()> {
    let (io, root) = (target.io(), target.path());
    let (temporary, path) = (Path::new("BACKUP.tmp"), Path::new(CATALOGUE));
    let failed = |op: &'static str| move |e| Error::io(op, root.join(CATALOGUE), e);
    unlink_if_there(io.as_ref(), temporary).map_err(failed("unlink"))?;
    let file = io.open(temporary, Open::Create).map_err(failed("create"))?;
    write_full(file.as_ref(), catalogue.encode().as_bytes(), 0).map_err(failed("write"))?;
    file.sync_data().map_err(failed("sync"))?;
    io.rename(temporary, path).map_err(failed("rename"))?;
    io.sync_dir(Path::new("")).map_err(failed("sync"))
}

fn remove_unneeded(target: &DataDir, catalogue: &Catalogue) -> Result<u64> {
    let needed: BTreeSet<&str> =
        catalogue.logs.iter().flat_map(LogCopy::files).map(|file| file.name.as_str()).collect();
    let mut removed = 0;
    for name in copies(target)?.into_keys() {
        if !needed.contains(name.as_str()) {
            let path = Path::new(FILES).join(name);
            target
                .io()
                .unlink(&path)
                .map_err(|e| Error::io("unlink", target.path().join(path), e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The files of all backups in a directory, with their lengths.
fn copies(target: &DataDir) -> Result<BTreeMap<String, u64>> {
    let entries = target
        .io()
        .list(Path::new(FILES))
        .map_err(|e| Error::io("list", target.path().join(FILES), e))?;
    let files = entries.into_iter().filter(|entry| entry.kind == Kind::File);
    Ok(files.map(|entry| (entry.name, entry.len)).collect())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
