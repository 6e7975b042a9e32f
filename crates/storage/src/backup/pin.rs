//! Takes hold of a log as it is at one moment: its segments are open, so what the writer removes or replaces afterwards
//! stays readable.

use std::path::Path;
use std::sync::Arc;

use super::{COLD, HOT, LOOKS};
use crate::config::LogConfig;
use crate::data_dir::DataDir;
use crate::error::{Corruption, Error, Result};
use crate::io::{File, Open};
use crate::layout::Manifest;
use crate::log::Log;
use crate::manifest;
use crate::recovery::Verdict;
use crate::segment::{self, Segment};
use crate::view::View;

/// A log at one moment.
pub(super) struct Pinned {
    pub name: String,
    pub manifest: Manifest,
    pub start_offset: u64,
    pub end_offset: u64,
    /// In order; together they hold `start_offset..end_offset`.
    pub segments: Vec<PinnedSegment>,
    /// The latest snapshot of producers that is not beyond the end, and its offset.
    pub producers: Option<(u64, Arc<dyn File>)>,
    /// Bytes behind the end may have been acknowledged.
    pub is_doubtful: bool,
}

/// A segment with its open file.
pub(super) struct PinnedSegment {
    pub segment: Segment,
    pub file: Arc<dyn File>,
    /// One past the last offset that is wanted of it.
    pub end_offset: u64,
}

/// Both parts of the journal, the hot one first.
///
/// What leaves the hot part is in the cold part by then. So the cold part is taken first, and the moment is good if the
/// hot part had lost nothing until both were taken: no entry can have been on its way between them.
pub(super) fn journal(source: &DataDir) -> Result<Vec<Pinned>> {
    let mut looks = 0;
    loop {
        let before = start_offset(source, HOT)?;
        let cold = pin(source, COLD)?;
        let hot = pin(source, HOT)?;
        let after = hot.as_ref().map(|hot| hot.start_offset);
        if before == after || looks == LOOKS {
            if before != after {
                return Err(changing(source, HOT));
            }
            return Ok(hot.into_iter().chain(cold).collect());
        }
        looks += 1;
    }
}

fn start_offset(source: &DataDir, name: &str) -> Result<Option<u64>> {
    let io = source.io().as_ref();
    match manifest::load(io, Path::new(name), source.path(), Open::Read)? {
        Some((manifest, _)) => Ok(Some(manifest.start_offset)),
        None => Ok(None),
    }
}

/// Takes hold of `name`; `None` if it is not there, or goes while it is looked for.
pub(super) fn pin(source: &DataDir, name: &str) -> Result<Option<Pinned>> {
    for _ in 0..=LOOKS {
        let log = match Log::open(source, name, LogConfig::default()) {
            Err(e) if is_gone(&e) => return Ok(None),
            opened => opened?,
        };
        let Some((manifest, _)) =
            manifest::load(source.io().as_ref(), Path::new(name), source.path(), Open::Read)?
        else {
            return Ok(None);
        };
        // Whoever restores it writes a manifest of its own.
        manifest::check_writable(&manifest, &source.path().join(name))?;
        match look(&log, log.view(), name, manifest) {
            Ok(Some(pinned)) => return Ok(Some(pinned)),
            // A segment was removed or replaced between two looks.
            Ok(None) => {}
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Err(changing(source, name))
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// A segment that retention or compaction removes is gone at the next look too; one that is missing for good is damage.
fn changing(source: &DataDir, name: &str) -> Error {
    let what = Corruption::Field("a log whose segments do not join");
    Error::Corrupt { path: source.path().join(name), position: 0, offset: 0, what }
}

fn look(log: &Log, view: &View, name: &str, manifest: Manifest) -> Result<Option<Pinned>> {
    let start_offset = view.start();
    let mut end_offset = view.durable();
    view.check_end(end_offset)?;
    let all = view.segments();
    let mut segments: Vec<PinnedSegment> = Vec::new();
    let mut reached = start_offset;
    for (i, listed) in all.iter().enumerate() {
        let base = listed.base_offset();
        if base >= end_offset {
            break;
        }
        let segment = listed.unread();
        let file = segment.open(Open::Read)?;
        let sealed_end = segment.footer(file.as_ref())?.map(|footer| footer.end_offset);
        let is_left_over = sealed_end.is_some_and(|end| end <= reached) && !segments.is_empty();
        if is_left_over {
            continue;
        }
        if base > reached {
            return Ok(None);
        }
        // What is sealed is durable, also what was sealed since.
        end_offset = end_offset.max(sealed_end.unwrap_or(0));
        let next = all.get(i + 1).map(|next| next.base_offset());
        let end = sealed_end.or(next).unwrap_or(end_offset).min(end_offset);
        reached = reached.max(end);
        segments.push(PinnedSegment { segment, file, end_offset: end });
    }
    if reached < end_offset {
        return Ok(None);
    }
    let producers = producers(view, end_offset, manifest.has_producers)?;
    Ok(Some(Pinned {
        name: name.to_owned(),
        manifest,
        start_offset,
        end_offset,
        segments,
        producers,
        is_doubtful: log.recovery().verdict == Verdict::Ambiguous,
    }))
}

fn producers(view: &View, end_offset: u64, wanted: bool) -> Result<Option<(u64, Arc<dyn File>)>> {
    if !wanted {
        return Ok(None);
    }
    let io = view.dir.io();
    let entries = io.list(&view.path).map_err(|e| Error::io("list", view.shown(), e))?;
    let offsets = entries.iter().filter_map(|e| segment::parse_name(&e.name, "producers"));
    let Some(offset) = offsets.filter(|offset| *offset <= end_offset).max() else {
        return Ok(None);
    };
    let path = view.path.join(segment::file_name(offset, "producers"));
    let file =
        io.open(&path, Open::Read).map_err(|e| Error::open(view.dir.path().join(&path), e))?;
    Ok(Some((offset, file)))
}
