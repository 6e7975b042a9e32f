//! What one file of a store says, item by item, whatever its bytes are.
//!
//! A file is recognised by its first bytes, wherever it lies: a quarantined or copied segment can be looked at as well.
//! Damage does not end the walk: it is an item like the others, and the walk goes on at the next frame that verifies.

mod fields;
mod walk;

use std::path::Path;

use crate::batch::Batch;
pub use crate::dump::fields::{Field, Fields};
use crate::error::{Corruption, Error};
use crate::io::{Disk, Io, Open};
use crate::journal::{self, Part, Reach, Replayed};
pub use crate::layout::{Footer, Live, Manifest, Proven, SegmentHead, State};
use crate::record::RecordView;

/// One thing that a file says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// The head of a segment; its frames follow.
    SegmentHead(&'a SegmentHead),
    /// A frame that verifies; its records follow.
    Batch {
        /// Where it begins.
        position: u64,
        /// Bytes of the frame on disk.
        bytes: u64,
        /// What it says beside its records.
        batch: Batch<'a>,
    },
    /// A record of the batch before.
    Record(RecordView<'a>),
    /// Bytes that are not what docs/format.md says.
    Damage {
        /// Where they begin.
        position: u64,
        /// How many were passed over.
        bytes: u64,
        /// The first offset that is affected (0 in a file that has none).
        offset: u64,
        /// What is wrong with the first of them.
        what: Corruption,
    },
    /// Zero bytes: space that was reserved, or padding.
    Unused {
        /// Where they begin.
        position: u64,
        /// How many there are.
        bytes: u64,
    },
    /// The footer of a sealed segment.
    Footer {
        /// Where it begins.
        position: u64,
        /// What it says.
        footer: &'a Footer,
    },
    /// A valid slot of a manifest.
    ManifestSlot {
        /// Where it begins.
        position: u64,
        /// No other valid slot has a larger generation.
        is_current: bool,
        /// What it says.
        slot: &'a Manifest,
    },
    /// The live page.
    Live(&'a Live),
    /// The head of an offset index or, with `is_time`, of a time index; its entries follow.
    Index {
        /// Timestamps to offsets, instead of offsets to positions.
        is_time: bool,
        /// The log that it belongs to.
        log_id: [u8; 16],
        /// The segment that it belongs to.
        base_offset: u64,
        /// How many entries follow.
        entries: u64,
    },
    /// An entry of an offset index: a frame begins there.
    OffsetEntry {
        /// The frame's base offset.
        offset: u64,
        /// Where it begins.
        position: u64,
    },
    /// An entry of a time index.
    TimeEntry {
        /// The base offset of a frame.
        offset: u64,
        /// The largest timestamp up to that frame, inclusive, ms since 1970.
        max_timestamp: i64,
    },
    /// The head of a producer snapshot; its batches follow.
    Producers {
        /// The log that it belongs to.
        log_id: [u8; 16],
        /// The state is the one just before this offset.
        offset: u64,
    },
    /// A batch that is remembered, so that a retry of it is recognised.
    Producer {
        /// Who appended it.
        id: i64,
        /// In which incarnation.
        epoch: i16,
        /// The sequence number of its first record.
        first_sequence: i32,
        /// The sequence number of its last record.
        last_sequence: i32,
        /// The offset of its first record.
        base_offset: u64,
    },
    /// A checkpoint; what it holds is a matter of its owner.
    Checkpoint {
        /// The journal's hot part.
        log_id: [u8; 16],
        /// Whose it is.
        owner: u64,
        /// Everything before this is taken in.
        reach: Reach,
        /// Bytes of the owner's state.
        bytes: u64,
    },
    /// The catalogue of a backup; its logs follow.
    Backup {
        /// When it was taken, ms since 1970.
        taken_at: i64,
        /// How many logs follow.
        logs: u64,
    },
    /// A log in a backup; its copies follow.
    BackupLog {
        /// Its name.
        name: &'a str,
        /// Its id.
        log_id: [u8; 16],
        /// The epoch that it had.
        epoch: u32,
        /// Its first offset.
        start_offset: u64,
        /// One past its last offset.
        end_offset: u64,
    },
    /// A file of the log before.
    BackupCopy {
        /// Its name in the backup.
        name: &'a str,
        /// Where in the log it belongs.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The hash that its name holds.
        hash: [u8; 16],
    },
    /// A file that has no format of its own to be taken apart, by its name.
    Plain {
        /// What such a file is for.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// What there is to be read in it.
        text: &'a str,
    },
}

/// The entry that a record of a journal is, with its owner; `None` if it is none.
pub fn journal_entry<'a>(record: &RecordView<'a>) -> Option<Replayed<'a>> {
    let in_part = |part| journal::replayed(part, record).ok();
    in_part(Part::Hot).or_else(|| in_part(Part::Cold))
}

/// Tells `each` what the file `path` says: a segment, an index, a manifest, a live page, a producer snapshot, a checkpoint or
/// the catalogue of a backup; of the other files of a store, which their names tell, what they are for. Nothing is written, and nothing but this file is looked at.
///
/// # Errors
/// [`Error::Corrupt`] after the last item if there was any damage, or at once if the file is of another kind;
/// [`Error::NotAFile`], [`Error::Io`]; what `each` returns.
/// # Cost
/// One pass over the file; memory for its largest batch (for files other than segments: for all of it).
pub fn dump<E: From<Error>>(
    path: impl AsRef<Path>,
    each: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let path = path.as_ref();
    let name = path.file_name().ok_or_else(|| Error::NotAFile { path: path.to_owned() })?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let disk = Disk::open(parent, false).map_err(|e| Error::io("open", path, e))?;
    dump_file(&disk, Path::new(name), path, each)
}

/// As [`dump`], for a file of any [`Io`]; `shown` is its name in errors.
///
/// # Errors
/// As [`dump`].
pub fn dump_file<E: From<Error>>(
    io: &dyn Io,
    path: &Path,
    shown: &Path,
    mut each: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let file = io.open(path, Open::Read).map_err(|e| Error::open(shown, e))?;
    let len = file.len().map_err(|e| Error::io("stat", shown, e))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut dump =
        walk::Dump { file, name, shown: shown.to_owned(), len, damage: None, each: &mut each };
    dump.run()?;
    match dump.damage {
        Some(damage) => Err(E::from(damage)),
        None => Ok(()),
    }
}
