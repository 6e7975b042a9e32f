//! Reads a whole store directory and says what is wrong with it, without writing a byte and without mapping a file.
//!
//! Every frame of every segment is verified, with its records, against the footers, their hashes and their chain; what
//! follows the end of a log is judged as recovery would judge it. Beside a live writer only what is durable is judged.

mod backup;
mod beside;
mod log;
mod report;
mod segment;

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::data_dir::{DataDir, is_log_name};
use crate::error::{Corruption, Error, Result};
use crate::io::{Entry, Kind};
use crate::journal;
use crate::segment::parse_name;
pub use report::{Finding, Problem, Severity, VerifyProgress, VerifyReport};

/// Names at the top of a store that are no logs.
const TOP: [&str; 4] = ["LOCK", "ALIVE", journal::MARK, crate::stats_page::NAME];
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Verifies every log of the directory, or of the backup in it, which should have been opened for reading only. `progress` is told how far it is,
/// after every batch.
///
/// `Ok` means that the directory was looked at, not that it is sound: see [`VerifyReport::worst`].
///
/// # Errors
/// [`Error::Io`] if the store directory itself cannot be listed. [`Error::Locked`]: a backup that is being taken. Whatever is
/// wrong further down is a finding.
/// # Cost
/// Reads every byte of every segment once; a damaged stretch a few times.
pub fn verify(dir: &DataDir, progress: &mut dyn FnMut(VerifyProgress)) -> Result<VerifyReport> {
    let entries = list(dir, Path::new(""))?;
    if backup::is_one(&entries) {
        return backup::verify(dir, &entries, progress);
    }
    let mut names = Vec::new();
    for entry in &entries {
        if entry.kind == Kind::Directory && is_log_name(&entry.name) {
            names.push(PathBuf::from(&entry.name));
            for inner in list(dir, Path::new(&entry.name)).unwrap_or_default() {
                if inner.kind == Kind::Directory && is_log_name(&inner.name) {
                    names.push(Path::new(&entry.name).join(inner.name));
                }
            }
        }
    }
    // As numbers, so that "10" comes after "9".
    names.sort_by_cached_key(|name| -> Vec<u64> {
        name.iter().filter_map(|part| part.to_str()?.parse().ok()).collect()
    });
    let mut out = Output {
        root: dir.path(),
        report: VerifyReport::default(),
        done: 0,
        total: names.iter().map(|name| segment_bytes(dir, name)).sum(),
        progress,
    };
    match dir.io().mode() {
        Ok(mode) => out.look_at_mode(dir.path(), mode, DIR_MODE),
        Err(e) => out.unreadable(dir.path(), "stat", &e),
    }
    for entry in &entries {
        let path = out.root.join(&entry.name);
        let is_known = match entry.kind {
            Kind::File => TOP.contains(&entry.name.as_str()) || entry.name.ends_with(".tmp"),
            Kind::Directory => is_log_name(&entry.name),
            Kind::Other => false,
        };
        out.look_at(&path, entry, is_known);
    }
    if entries.iter().any(|entry| entry.name == journal::MARK) {
        for name in [journal::NAME, journal::COLD_NAME] {
            out.must_be_there(dir, name);
        }
    }
    for name in &names {
        log::verify(&mut out, dir, name);
    }
    out.done = out.total;
    out.tell();
    Ok(out.report)
}

fn list(dir: &DataDir, path: &Path) -> Result<Vec<Entry>> {
    let mut entries =
        dir.io().list(path).map_err(|e| Error::io("list", dir.path().join(path), e))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn segment_bytes(dir: &DataDir, name: &Path) -> u64 {
    let entries = list(dir, name).unwrap_or_default();
    let segments = entries.iter().filter(|entry| parse_name(&entry.name, "log").is_some());
    segments.map(|entry| entry.len).sum()
}

/// Where findings and progress go.
struct Output<'a> {
    root: &'a Path,
    report: VerifyReport,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(VerifyProgress),
}

impl Output<'_> {
    fn find(
        &mut self,
        severity: Severity,
        path: &Path,
        position: u64,
        offsets: Option<Range<u64>>,
        problem: Problem,
    ) {
        let path = path.to_owned();
        self.report.push(Finding { severity, path, position, offsets, problem });
    }

    fn note(&mut self, path: &Path, problem: Problem) {
        self.find(Severity::Note, path, 0, None, problem);
    }

    fn damage(
        &mut self,
        path: &Path,
        position: u64,
        offsets: Option<Range<u64>>,
        problem: Problem,
    ) {
        let severity = match &problem {
            Problem::Io { .. } => Severity::Unreadable,
            _ => Severity::Corrupt,
        };
        self.find(severity, path, position, offsets, problem);
    }

    fn unreadable(&mut self, path: &Path, op: &'static str, error: &std::io::Error) {
        if crate::io::is_not_a_file(error) {
            return self.damage(path, 0, None, Problem::NotAFile);
        }
        self.damage(path, 0, None, Problem::Io { op, message: error.to_string() });
    }

    /// An error of the engine, as a finding.
    fn error(&mut self, error: Error) {
        match error {
            Error::Corrupt { path, position, offset, what } => {
                let offsets = match &what {
                    Corruption::LostLog
                    | Corruption::LostManifest
                    | Corruption::LostCopy
                    | Corruption::ForeignLog { .. } => None,
                    Corruption::Gap { expected, found }
                    | Corruption::Offset { expected, found }
                        if expected < found =>
                    {
                        Some(*expected..*found)
                    }
                    Corruption::LostDurable { durable_upto } if offset < *durable_upto => {
                        Some(offset..*durable_upto)
                    }
                    _ => Some(offset..u64::MAX),
                };
                self.damage(&path, position, offsets, Problem::Corruption(what));
            }
            Error::Io { op, path, source } => self.unreadable(&path, op, &source),
            Error::NotAFile { path } => self.damage(&path, 0, None, Problem::NotAFile),
            other => {
                let root = self.root;
                let problem = Problem::Io { op: "read", message: other.to_string() };
                self.damage(root, 0, None, problem);
            }
        }
    }

    fn must_be_there(&mut self, dir: &DataDir, name: &str) {
        match dir.has_log(name) {
            Ok(true) => {}
            Ok(false) => self.error(dir.lost_log(name)),
            Err(e) => self.error(e),
        }
    }

    /// What can be said of any name.
    fn look_at(&mut self, path: &Path, entry: &Entry, is_known: bool) {
        match entry.kind {
            Kind::File => self.look_at_mode(path, entry.mode, FILE_MODE),
            Kind::Directory => self.look_at_mode(path, entry.mode, DIR_MODE),
            Kind::Other => return self.note(path, Problem::NotAFile),
        }
        if !is_known {
            self.note(path, Problem::Unexpected);
        } else if entry.name.ends_with(".tmp") {
            self.note(path, Problem::Temporary);
        }
    }

    fn look_at_mode(&mut self, path: &Path, mode: u32, permitted: u32) {
        if mode & !permitted != 0 {
            self.note(path, Problem::LooseMode { mode });
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        self.tell();
    }

    fn tell(&mut self) {
        (self.progress)(VerifyProgress { done: self.done, total: self.total });
    }
}
