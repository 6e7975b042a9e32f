//! What a verification has found.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Output;
use crate::error::{Corruption, Error};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is lost and nothing will be refused: what can be made anew, what the next writer tidies up.
    Note,
    /// Bytes that may have been acknowledged and are not part of the log: set aside, or to be set aside at the next open.
    Ambiguous,
    /// The system did not let it be read, so nothing is known about it.
    Unreadable,
    /// Records that were durable are missing or damaged, or the log cannot be opened.
    Corrupt,
}

/// What is the matter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The bytes are not what docs/format.md says.
    Corruption(Corruption),
    /// The system refused `op`.
    Io {
        /// The call.
        op: &'static str,
        /// What the system said.
        message: String,
    },
    /// Bytes behind the end that were never acknowledged; the next writer cuts them off.
    TornTail {
        /// How many.
        bytes: u64,
    },
    /// Bytes behind the end that may have been acknowledged; the next writer sets them aside.
    DoubtfulTail {
        /// How many.
        bytes: u64,
    },
    /// A file that recovery has set aside.
    Quarantined {
        /// Its length.
        bytes: u64,
    },
    /// One slot of the manifest does not decode, as after a crash while it was written; the other one counts.
    ManifestSlot(Corruption),
    /// A file that can be made anew is damaged.
    Disposable(Corruption),
    /// An index that is whole but does not fit its segment; it is not believed.
    StaleIndex,
    /// A sealed segment has no such index; looking up takes a scan.
    MissingIndex,
    /// A segment that compaction or retention has replaced or removed, but for its file.
    Superseded,
    /// A file that was being made; the next writer removes it.
    Temporary,
    /// A name that no version of this engine gives.
    Unexpected,
    /// A link, a device, or a file with more than one name: it is never opened.
    NotAFile,
    /// Others than the owner can get at it.
    LooseMode {
        /// The permission bits.
        mode: u32,
    },
}

/// Something that a verification has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, bytes from its start.
    pub position: u64,
    /// The offsets that are affected: missing, damaged, or in doubt. Where nobody knows how far that goes, the end is
    /// `u64::MAX`.
    pub offsets: Option<Range<u64>>,
    /// What it is.
    pub problem: Problem,
}

/// What [`verify`](super::verify) has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What was found, log by log and within a log in the order of offsets.
    pub findings: Vec<Finding>,
    /// Findings beyond the first 10,000, which are only counted.
    pub omitted: u64,
    /// Logs that were looked at.
    pub logs: u64,
    /// Segments that were looked at.
    pub segments: u64,
    /// Batches that verify.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of these batches on disk.
    pub bytes: u64,
    /// The worst of all findings, the omitted ones included.
    pub worst: Option<Severity>,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of segment files that are done with.
    pub done: u64,
    /// Bytes of all segment files, as far as was known at the beginning.
    pub total: u64,
}

const FINDINGS_MAX: usize = 10_000;
/// Several looks at one file meet the same, one soon after the other.
const LOOKS_BACK: usize = 64;

impl VerifyReport {
    /// Takes in an error that was met apart from the verification, as a finding.
    pub fn add(&mut self, error: Error) {
        let mut out = Output {
            root: Path::new(""),
            report: std::mem::take(self),
            done: 0,
            total: 0,
            progress: &mut |_| {},
        };
        out.error(error);
        *self = out.report;
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.worst = self.worst.max(Some(finding.severity));
        if self.findings.iter().rev().take(LOOKS_BACK).any(|known| *known == finding) {
            return;
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// Takes in the report of a part.
    pub(super) fn absorb(&mut self, part: VerifyReport) {
        self.logs += part.logs;
        self.segments += part.segments;
        self.batches += part.batches;
        self.records += part.records;
        self.bytes += part.bytes;
        self.omitted += part.omitted;
        self.worst = self.worst.max(part.worst);
        for finding in part.findings {
            self.push(finding);
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Ambiguous => "ambiguous",
            Severity::Unreadable => "unreadable",
            Severity::Corrupt => "corrupt",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Corruption(what) => write!(f, "{what}"),
            Problem::Io { op, message } => write!(f, "{op}: {message}"),
            Problem::TornTail { bytes } => {
                write!(
                    f,
                    "{bytes} bytes of an append that was never acknowledged; the next writer cuts them off"
                )
            }
            Problem::DoubtfulTail { bytes } => write!(
                f,
                "{bytes} bytes that may or may not have been acknowledged; the next writer sets them aside in quarantine"
            ),
            Problem::Quarantined { bytes } => {
                write!(
                    f,
                    "{bytes} bytes that may have been acknowledged were set aside here by a recovery"
                )
            }
            Problem::ManifestSlot(what) => write!(f, "one of two slots does not count: {what}"),
            Problem::Disposable(what) => write!(f, "{what}; it can be made anew and is not needed"),
            Problem::StaleIndex => {
                f.write_str("the index does not fit its segment and is not used")
            }
            Problem::MissingIndex => {
                f.write_str("the segment has no such index; looking up takes a scan")
            }
            Problem::Superseded => {
                f.write_str("replaced or removed, but for its file; the next writer removes it")
            }
            Problem::Temporary => f.write_str("was being made; the next writer removes it"),
            Problem::Unexpected => f.write_str("no file of this store"),
            Problem::NotAFile => {
                f.write_str("not a plain file or directory of its own, and never opened")
            }
            Problem::LooseMode { mode } => {
                write!(
                    f,
                    "mode {mode:04o} lets others in; chmod it to 0600 (files) or 0700 (directories)"
                )
            }
        }
    }
}

/// One line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at position {}", self.severity, self.path.display(), self.position)?;
        match &self.offsets {
            Some(Range { start, end: u64::MAX }) => write!(f, " (offsets from {start} on)")?,
            Some(Range { start, end }) => write!(f, " (offsets {start}..{end})")?,
            None => {}
        }
        write!(f, ": {}", self.problem)
    }
}
