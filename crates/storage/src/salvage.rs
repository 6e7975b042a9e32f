//! Copies out of a damaged log every record that still verifies, into a new log elsewhere.
//!
//! Offsets, timestamps, epochs, producers and codecs stay as they are; what is lost is a gap, and is reported. Behind
//! damage the copy goes on at the next frame that verifies, which may be at any byte, if readers would believe it: what the
//! damaged record holds may look like one. Neither a manifest nor the heads of sealed segments are needed.

mod copy;
mod patient;
mod source;
mod walk;

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::data_dir::{DataDir, is_log_name};
use crate::error::{Error, Result};
use crate::verify::Problem;

/// Something that is not in the new log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The offsets that are missing. Empty: bytes behind the last record that are none. In a segment that was compacted
    /// some of them may have been removed before.
    pub offsets: Range<u64>,
    /// The file where they were, or should have been.
    pub path: PathBuf,
    /// Where in the file the damage begins.
    pub position: u64,
    /// What is the matter with it.
    pub problem: Problem,
}

/// What [`salvage`] tells as it goes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something is lost.
    Gap(&'a Gap),
    /// How far it is.
    Progress {
        /// Bytes of segment files that are done with.
        done: u64,
        /// Bytes of all segment files.
        total: u64,
    },
}

/// What [`salvage`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The first offset of the new log.
    pub start_offset: u64,
    /// The next offset that the new log will give: behind everything that is known to have been there.
    pub end_offset: u64,
    /// Segments that were written.
    pub segments: u64,
    /// Records that were copied.
    pub records: u64,
    /// Gaps that were told of.
    pub gaps: u64,
    /// Offsets in them.
    pub offsets_lost: u64,
    /// Commits of which the end is lost. What is left of them was copied.
    pub partial_commits: u64,
    /// The old log had no manifest, or a damaged one: what was before its first segment or behind its last is not known, and
    /// not counted as lost.
    pub is_without_manifest: bool,
    /// Segments whose head was lost, and with it what their timestamps count from: these are as near as could be told.
    pub segments_with_guessed_timestamps: u64,
}

/// Copies the log `name` of `source` into `target`, where there must be no such log yet. Nothing is written to `source`,
/// which must have been opened for reading only.
///
/// `Ok` means that everything that verifies is durable in `target`, not that nothing was lost: see the report.
///
/// # Errors
/// [`Error::Locked`]: the source has a live writer, in whatever process. [`Error::InvalidName`]; [`Error::ReadOnly`]: the
/// target. [`Error::Io`], [`Error::DiskFull`] of the target, or `AlreadyExists` in it: there is no log then, since its
/// manifest comes last. What cannot be read of the source is a gap.
/// # Cost
/// Reads every segment once, damaged stretches a few times. Memory for the largest batch.
pub fn salvage(
    source: &DataDir,
    name: &str,
    target: &DataDir,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<SalvageReport> {
    salvage_as(source, name, target, name, tell)
}

/// As [`salvage`], of a log that lies in the place of another: it becomes the log `home` of the target.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_as(
    source: &DataDir,
    name: &str,
    target: &DataDir,
    home: &str,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<SalvageReport> {
    if let Some(name) = [name, home].into_iter().find(|name| !is_log_name(name)) {
        return Err(Error::InvalidName { name: name.to_owned() });
    }
    if source.writer_is_alive()? {
        return Err(Error::Locked { path: source.path().to_owned(), pid: None });
    }
    if target.is_read_only() {
        return Err(Error::ReadOnly { path: target.path().join(home) });
    }
    let found = source::Source::look(source, Path::new(name))?;
    copy::Copy::begin(&found, target, Path::new(home), tell)?.run()
}

/// The id of the log that lies under `name`, if its manifest and all its segments that name one name the same.
pub fn log_id(source: &DataDir, name: &str) -> Option<[u8; 16]> {
    let found = source::Source::look(source, Path::new(name)).ok()?;
    found.log_id.filter(|_| found.is_of_one_log)
}
