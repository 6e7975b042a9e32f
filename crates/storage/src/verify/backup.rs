//! Verifies a backup: its catalogue, and that every copy that this names is there, whole and the one that was made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::report::{Problem, VerifyReport};
use super::segment::{self, Subject};
use super::{Output, VerifyProgress};
use crate::backup::catalogue::{Catalogue, FileCopy, LogCopy};
use crate::backup::{CATALOGUE, FILES};
use crate::data_dir::{DataDir, is_log_name};
use crate::error::{Corruption, Error, Result};
use crate::io::{Entry, File, Kind, Open, read_full};

/// Names at the top of a backup.
const TOP: [&str; 4] = ["LOCK", "ALIVE", CATALOGUE, FILES];
/// How much is read at a time.
const CHUNK: u64 = 1 << 20;

/// Whether a directory holds a backup, complete or not, and no store.
pub(super) fn is_one(entries: &[Entry]) -> bool {
    let has_log =
        || entries.iter().any(|entry| entry.kind == Kind::Directory && is_log_name(&entry.name));
    let has_copies =
        || entries.iter().any(|entry| entry.kind == Kind::Directory && entry.name == FILES);
    entries.iter().any(|entry| entry.name == CATALOGUE) || (has_copies() && !has_log())
}

pub(super) fn verify(
    dir: &DataDir,
    entries: &[Entry],
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport> {
    // Copies come and go until its catalogue is replaced.
    if dir.writer_is_alive()? {
        return Err(Error::Locked { path: dir.path().to_owned(), pid: None });
    }
    let report = VerifyReport::default();
    let mut out = Output { root: dir.path(), report, done: 0, total: 0, progress };
    for entry in entries {
        let is_known = TOP.contains(&entry.name.as_str()) || entry.name.ends_with(".tmp");
        out.look_at(&out.root.join(&entry.name), entry, is_known);
    }
    let catalogue = match Catalogue::load(dir) {
        Ok(Some(catalogue)) => catalogue,
        Ok(None) => {
            lost(&mut out, &dir.path().join(CATALOGUE));
            return Ok(out.report);
        }
        Err(e) => {
            out.error(e);
            return Ok(out.report);
        }
    };
    out.total = catalogue.logs.iter().flat_map(LogCopy::files).map(|copy| copy.len).sum();
    for log in &catalogue.logs {
        out.report.logs += 1;
        for (i, copy) in log.segments.iter().enumerate() {
            let end_offset = log.segments.get(i + 1).map_or(log.end_offset, |next| next.offset);
            if let Some((file, shown)) = open(&mut out, dir, copy) {
                verify_segment(&mut out, log, copy, end_offset, &file, &shown);
            }
        }
        if let Some(copy) = &log.producers
            && let Some((file, shown)) = open(&mut out, dir, copy)
        {
            verify_producers(&mut out, copy, file.as_ref(), &shown);
        }
    }
    out.done = out.total;
    out.tell();
    Ok(out.report)
}

fn lost(out: &mut Output<'_>, path: &Path) {
    out.damage(path, 0, None, Problem::Corruption(Corruption::LostCopy));
}

/// The copy, if it is there with its length.
fn open(out: &mut Output<'_>, dir: &DataDir, copy: &FileCopy) -> Option<(Arc<dyn File>, PathBuf)> {
    let path = Path::new(FILES).join(&copy.name);
    let shown = dir.path().join(&path);
    let opened = dir.io().open(&path, Open::Read).and_then(|file| Ok((file.len()?, file)));
    match opened {
        Ok((len, file)) if len == copy.len => return Some((file, shown)),
        Ok((found, _)) => {
            let what = Corruption::Truncated { expected: copy.len, found };
            out.damage(&shown, found.min(copy.len), None, Problem::Corruption(what));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => lost(out, &shown),
        Err(e) => out.unreadable(&shown, "open", &e),
    }
    None
}

fn verify_segment(
    out: &mut Output<'_>,
    log: &LogCopy,
    copy: &FileCopy,
    end_offset: u64,
    file: &Arc<dyn File>,
    shown: &Path,
) {
    let subject = Subject {
        file,
        shown,
        base_offset: copy.offset,
        log_id: log.log_id,
        until: Some(end_offset),
        reach: end_offset,
    };
    let Some(verified) = segment::verify(out, &subject) else { return };
    // One that was sealed is the one that was copied; another is known by its frames alone.
    if verified.is_whole && verified.footer.is_some_and(|footer| footer.hash != copy.hash) {
        out.damage(shown, 0, None, Problem::Corruption(Corruption::Hash));
    }
}

fn verify_producers(out: &mut Output<'_>, copy: &FileCopy, file: &dyn File, shown: &Path) {
    match hash(file, copy.len) {
        Ok(hash) if hash == copy.hash => {}
        Ok(_) => out.damage(shown, 0, None, Problem::Corruption(Corruption::Hash)),
        Err(e) => out.unreadable(shown, "read", &e),
    }
}

fn hash(file: &dyn File, len: u64) -> std::io::Result<[u8; 16]> {
    let mut hash = Xxh3::new();
    let mut buffer = Vec::new();
    for position in (0..len).step_by(CHUNK as usize) {
        buffer.resize(usize::try_from(CHUNK.min(len - position)).unwrap_or(0), 0);
        read_full(file, &mut buffer, position)?;
        hash.update(&buffer);
    }
    Ok(hash.digest128().to_le_bytes())
}
