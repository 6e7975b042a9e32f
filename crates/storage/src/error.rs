//! What can go wrong, with the place where it did.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::backup::hex;
use crate::batch::Producer;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the storage engine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused `op` on `path`. If bytes were being written, the log is now poisoned.
    Io {
        /// The call that was refused.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space (or quota, or permitted file size) for `path`. Nothing was appended, everything acknowledged is
    /// still there and readable, and appending works again as soon as space returns.
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes at `position` of `path` are not what docs/format.md says. Nothing was changed. Records from
    /// `offset` on cannot be read in this segment; `logmill salvage` copies out what still can.
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Bytes from the start of the file.
        position: u64,
        /// The first offset that is affected.
        offset: u64,
        /// What is wrong there.
        what: Corruption,
    },
    /// `path` is not a regular file with one name (or not a directory where one belongs), and was not touched.
    NotAFile {
        /// The offending name.
        path: PathBuf,
    },
    /// `offset` is outside `start..end`: removed by retention, or not written yet.
    OffsetOutOfRange {
        /// The offset that was asked for.
        offset: u64,
        /// The first offset that is there.
        start: u64,
        /// One past the last offset that may be read.
        end: u64,
    },
    /// The encoded record is larger than `max` bytes. Nothing was written.
    RecordTooLarge {
        /// Encoded size.
        bytes: u64,
        /// The log's limit.
        max: u64,
    },
    /// A batch needs at least one record. Nothing was written.
    EmptyBatch,
    /// A timestamp is more than 2^61 ms away from 1970. Nothing was written.
    TimestampOutOfRange {
        /// The timestamp, ms since 1970.
        timestamp: i64,
    },
    /// `name` is not the name of a log: one or two numbers, as `0` or `7/3`.
    InvalidName {
        /// What was given.
        name: String,
    },
    /// A producer's id, epoch or sequence is negative. Nothing was written.
    InvalidProducer {
        /// What was given.
        producer: Producer,
    },
    /// A producer's batch does not follow its last one. Nothing was written.
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The sequence that would follow.
        expected: i32,
        /// The sequence that came.
        found: i32,
    },
    /// A newer epoch of this producer has written: this one is a zombie and must stop. Nothing was written.
    ProducerFenced {
        /// The producer.
        producer_id: i64,
        /// The epoch that holds.
        current: i16,
        /// The epoch that came.
        found: i16,
    },
    /// Another writer has the store open.
    Locked {
        /// The store directory.
        path: PathBuf,
        /// The owner's process id, where it could be read.
        pid: Option<u32>,
    },
    /// A sync failed while this append waited for it: the records may or may not be on disk. Nothing retries it.
    /// Reopen the log to learn which, before appending them again.
    OutcomeUnknown {
        /// The log.
        path: PathBuf,
    },
    /// An earlier write or sync failed, so what is on disk is unknown. Reopen the log to recover.
    Poisoned {
        /// The log.
        path: PathBuf,
    },
    /// The log was opened for reading only.
    ReadOnly {
        /// The log.
        path: PathBuf,
    },
    /// The log was closed.
    Closed {
        /// The log.
        path: PathBuf,
    },
    /// The log was removed by the process that writes it, and by now another may have its name: open it anew.
    Removed {
        /// The log.
        path: PathBuf,
    },
    /// The directory holds a backup: nothing is written beside it, and nothing read from it but by
    /// [`restore`](crate::backup::restore), which makes a store of it.
    IsBackup {
        /// The directory.
        path: PathBuf,
    },
    /// Strict mode: recovery would have to set bytes aside that it cannot prove to be worthless. Nothing was changed.
    Ambiguous {
        /// The segment.
        path: PathBuf,
        /// Where the doubtful bytes begin.
        position: u64,
        /// The first offset in doubt.
        offset: u64,
    },
    /// A configuration value is outside its range.
    InvalidConfig {
        /// The setting.
        name: &'static str,
        /// The value that was given.
        value: u64,
        /// Least permitted value.
        least: u64,
        /// Greatest permitted value.
        most: u64,
    },
    /// This build cannot read or write `codec`.
    UnsupportedCodec {
        /// Kafka's number of the codec.
        codec: u8,
    },
}

/// In what way bytes differ from docs/format.md.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corruption {
    /// The file does not begin with the magic of its kind.
    Magic,
    /// A format version that this build does not know.
    Version {
        /// What the file says.
        found: u16,
    },
    /// Feature bits that this build does not know and must not ignore.
    Features {
        /// The unknown bits.
        unknown: u32,
    },
    /// A checksum differs.
    Checksum {
        /// What the bytes give.
        expected: u32,
        /// What the file says.
        found: u32,
    },
    /// The file ends too early.
    Truncated {
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are.
        found: u64,
    },
    /// The file belongs to another log, or to another place in this one.
    Misplaced,
    /// An offset does not follow the one before.
    Offset {
        /// The offset that belongs here.
        expected: u64,
        /// The offset that is here.
        found: u64,
    },
    /// A field has a value that it cannot have.
    Field(&'static str),
    /// A segment between two others is missing.
    Gap {
        /// The offset at which a segment should begin.
        expected: u64,
        /// Where the next one begins.
        found: u64,
    },
    /// The bytes differ from the hash in the segment's footer.
    Hash,
    /// Records below `durable_upto` are missing or damaged, though they were durable once.
    LostDurable {
        /// Every offset below this was durable.
        durable_upto: u64,
    },
    /// The log was there once, with all that it was given, and its directory is gone.
    LostLog,
    /// The log's directory is there, and its manifest is gone, without which nobody knows what belongs to it.
    LostManifest,
    /// A file that the catalogue of a backup names is gone, or the catalogue itself.
    LostCopy,
    /// Another log lies where this one belongs: one that was copied here, of this store or of another.
    ForeignLog {
        /// The id of the log that belongs here.
        expected: [u8; 16],
        /// The id of the one that is here.
        found: [u8; 16],
    },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Corruption::Magic => f.write_str("the magic bytes are wrong"),
            Corruption::Version { found } => {
                write!(f, "format version {found} is not known to this build")
            }
            Corruption::Features { unknown } => {
                write!(f, "feature bits {unknown:#x} are not known to this build")
            }
            Corruption::Checksum { expected, found } => {
                write!(f, "checksum {found:#010x} found, {expected:#010x} computed")
            }
            Corruption::Truncated { expected, found } => {
                write!(f, "{expected} bytes expected, {found} found")
            }
            Corruption::Misplaced => f.write_str("the bytes belong to another log or place"),
            Corruption::Offset { expected, found } => {
                write!(f, "offset {expected} expected, {found} found")
            }
            Corruption::Field(what) => write!(f, "impossible value: {what}"),
            Corruption::Gap { expected, found } => {
                write!(
                    f,
                    "a segment that begins at offset {expected} is missing, the next begins at {found}"
                )
            }
            Corruption::Hash => f.write_str("the bytes differ from the hash in the footer"),
            Corruption::LostDurable { durable_upto } => {
                write!(f, "records below offset {durable_upto} were durable and are damaged")
            }
            Corruption::LostLog => f.write_str(
                "this log was made once and is gone; nothing was put in its place: bring its directory back, or restore a backup",
            ),
            Corruption::LostManifest => f.write_str(
                "the manifest is gone, and the rest of this log was left as it is: bring the manifest back, restore a backup, or copy the records out with logmill salvage",
            ),
            Corruption::LostCopy => f.write_str(
                "this file belongs to the backup and is not there: back up again, as long as there is the store",
            ),
            Corruption::ForeignLog { expected, found } => write!(
                f,
                "log {} belongs here and log {} was found, which was not touched: bring the right directory back, or restore a backup",
                hex(expected),
                hex(found)
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { op, path, source } => write!(f, "{op} {}: {source}", path.display()),
            Error::DiskFull { path, source } => {
                write!(
                    f,
                    "no space for {}: {source}; nothing was lost, free space and append again",
                    path.display()
                )
            }
            Error::Corrupt {
                path,
                what:
                    what @ (Corruption::LostLog
                    | Corruption::LostManifest
                    | Corruption::LostCopy
                    | Corruption::ForeignLog { .. }),
                ..
            } => {
                write!(f, "corrupt: {}: {what}", path.display())
            }
            Error::Corrupt { path, position, offset, what } => write!(
                f,
                "corrupt: {} at position {position} (records from offset {offset}): {what}; see logmill verify and salvage",
                path.display()
            ),
            Error::NotAFile { path } => {
                write!(
                    f,
                    "{} is not a plain file or directory of its own and was not touched",
                    path.display()
                )
            }
            Error::OffsetOutOfRange { offset, start, end } => {
                write!(f, "offset {offset} is outside {start}..{end}")
            }
            Error::RecordTooLarge { bytes, max } => {
                write!(f, "record of {bytes} bytes is larger than {max}")
            }
            Error::TimestampOutOfRange { timestamp } => {
                write!(f, "timestamp {timestamp} is more than 2^61 ms from 1970")
            }
            Error::InvalidName { name } => {
                write!(f, "{name:?} is not the name of a log, such as 0 or 7/3")
            }
            Error::EmptyBatch => f.write_str("a batch needs at least one record"),
            Error::InvalidProducer { producer: Producer { id, epoch, sequence } } => write!(
                f,
                "producer {id}, epoch {epoch}, sequence {sequence}: none of them may be negative"
            ),
            Error::OutOfOrderSequence { producer_id, expected, found } => {
                write!(f, "producer {producer_id}: sequence {expected} expected, {found} found")
            }
            Error::ProducerFenced { producer_id, current, found } => {
                write!(f, "producer {producer_id}: epoch {found} was fenced by epoch {current}")
            }
            Error::Locked { path, pid: Some(pid) } => {
                write!(f, "{} is open in process {pid}", path.display())
            }
            Error::Locked { path, pid: None } => {
                write!(f, "{} is open in another process", path.display())
            }
            Error::OutcomeUnknown { path } => write!(
                f,
                "{}: a sync failed, the records may or may not be on disk; reopen the log to learn which",
                path.display()
            ),
            Error::Poisoned { path } => {
                write!(
                    f,
                    "{}: an earlier write or sync failed; reopen the log to recover",
                    path.display()
                )
            }
            Error::ReadOnly { path } => write!(f, "{} is open for reading only", path.display()),
            Error::Closed { path } => write!(f, "{} is closed", path.display()),
            Error::Removed { path } => {
                write!(f, "{} was removed; what has its name now is another log", path.display())
            }
            Error::IsBackup { path } => write!(
                f,
                "{} is a backup and no store, and was not touched: restore it into a directory of its own, and use that",
                path.display()
            ),
            Error::Ambiguous { path, position, offset } => write!(
                f,
                "{} at position {position} (offset {offset}): bytes that may or may not have been acknowledged; \
                 open without strict mode to set them aside in quarantine",
                path.display()
            ),
            Error::InvalidConfig { name, value, least, most } => {
                write!(f, "{name} is {value}, permitted are {least} to {most}")
            }
            Error::UnsupportedCodec { codec } => {
                write!(f, "compression codec {codec} is not in this build")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Error {
    /// Wraps what the system said about opening `path`, telling what is no plain file from the rest.
    pub(crate) fn open(path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::open_as("open", path, source)
    }

    /// As [`open`](Self::open), where `op` opens the file by the way.
    pub(crate) fn open_as(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Error {
        if crate::io::is_not_a_file(&source) {
            Error::NotAFile { path: path.into() }
        } else {
            Error::io(op, path, source)
        }
    }

    /// Wraps what the system said about `op` on `path`, telling a full disk from the rest.
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Error {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Error::DiskFull { path, source },
            _ => Error::Io { op, path, source },
        }
    }
}
