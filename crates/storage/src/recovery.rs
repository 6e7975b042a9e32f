//! Where a log ends, and what to do about the bytes after that.
//!
//! Everything below the manifest's proven point is durable and is not read. From there on the frames are verified one by
//! one; the log ends after the last complete commit. Whether bytes behind the end are an append that was cut short, or
//! damage to records that were acknowledged, cannot be told from the bytes: a power cut can legally leave a valid frame
//! behind a hole. So there are witnesses of what was durable (the manifest, the live page, `durable_upto` in frames and in
//! later segments), and [`judge`] decides by them alone.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{FrameHead, HEAD_LEN as FRAME_HEAD_LEN};
use crate::data_dir::DataDir;
use crate::error::{Corruption, Error, Result};
use crate::frames::Step;
use crate::io::{Entry, File, Io, Kind, Open, read_full, unlink_if_there, write_full};
use crate::layout::{Footer, HEAD_LEN, Live, Manifest, Proven, State};
use crate::manifest;
use crate::planted::{self, Bug};
use crate::resync::Resync;
use crate::segment::{self, Segment};
use crate::writer::SPARE;

const QUARANTINE: &str = "quarantine";
/// What the reserve keeps for itself.
const RESERVE_LEAST: u64 = 4 << 10;
/// How far before the proven point the frame that ends there is looked for: most are short.
const LOOKS_BACK: [u64; 2] = [4 << 10, 2 << 20];
/// What looks like it by its length alone is verified so often at the most.
const TRIES_BACK: u32 = 64;
/// How much is copied or rewritten at once.
const COPY_BYTES: usize = 1 << 20;

/// What the bytes behind the end of the log may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rest {
    /// Zero bytes or nothing.
    Nothing,
    /// Bytes that are no complete commit.
    Bytes,
}

/// What lies in segments that begin behind the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Later {
    /// There are none.
    Nothing,
    /// They hold no frame.
    Empty,
    /// They hold frames.
    Frames,
}

/// All that [`judge`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Evidence {
    /// What follows the end in its segment.
    pub rest: Rest,
    /// What follows in other segments.
    pub later: Later,
    /// Somebody says that an offset at or after the end was durable.
    pub witnessed: bool,
    /// The machine has not been started anew since, and the writer had acknowledged nothing at or after the end.
    pub unacknowledged: bool,
    /// The user would rather not open than lose what may have been acknowledged.
    pub strict: bool,
}

/// What recovery does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing follows the end.
    #[default]
    Clean,
    /// What follows was never acknowledged, and is cut off.
    Cut,
    /// What follows may have been acknowledged: it is set aside in `quarantine/`, then cut off.
    Ambiguous,
    /// As `Ambiguous`, in strict mode: the log is not opened and nothing is changed.
    Refused,
    /// Durable records are missing or damaged: the log is not opened for writing and nothing is changed.
    Corrupt,
}

/// The decision table of recovery.
pub const fn judge(evidence: &Evidence) -> Verdict {
    let doubt = if evidence.strict { Verdict::Refused } else { Verdict::Ambiguous };
    match (evidence.witnessed, evidence.rest, evidence.later) {
        (true, _, _) => Verdict::Corrupt,
        (false, Rest::Nothing, Later::Nothing) => Verdict::Clean,
        // Frames in a later segment outlived bytes before them: only a lost cache does that.
        (false, _, Later::Frames) => doubt,
        // A segment is made before its first frame, so an empty one promises nothing.
        (false, Rest::Nothing, Later::Empty) => Verdict::Cut,
        (false, Rest::Bytes, Later::Nothing | Later::Empty) => {
            if evidence.unacknowledged {
                Verdict::Cut
            } else {
                doubt
            }
        }
    }
}

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The log had been closed, so nothing had to be looked at.
    pub clean: bool,
    /// What was found behind the end, and what it led to.
    pub verdict: Verdict,
    /// The log's end: the next offset to be given.
    pub end_offset: u64,
    /// The log's epoch from now on.
    pub epoch: u32,
    /// Where the scan began: everything before was known to be durable.
    pub proven_offset: u64,
    /// How many bytes were verified.
    pub scanned_bytes: u64,
    /// How many bytes behind the end were cut off or set aside, reservations not counted.
    pub dropped_bytes: u64,
    /// Copies of what was set aside, relative to the store directory.
    pub quarantined: Vec<PathBuf>,
}

/// What opening one of a directory's logs found and did: see [`DataDir::recovery`](crate::DataDir::recovery).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecovery {
    /// The log's name, such as `0` or `7/3`.
    pub log: String,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// A segment without a footer.
#[derive(Debug)]
pub(crate) struct Unsealed {
    pub segment: Arc<Segment>,
    pub file: Arc<dyn File>,
    /// Bytes before this are known to be durable.
    pub proven: u64,
    /// Where its frames end; `None` if that had not to be looked for, as all of it is proven.
    pub end_position: Option<u64>,
    pub end_offset: u64,
}

/// What a look at the files of a log has found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The segments that make up the log, oldest first.
    pub segments: Vec<Arc<Segment>>,
    /// Segments that were removed or superseded, but for their files.
    pub obsolete: Vec<u64>,
    /// Segments behind the end.
    pub later: Vec<Arc<Segment>>,
    /// Those of `segments` that have no footer.
    pub unsealed: Vec<Unsealed>,
    pub end: Proven,
    /// Bytes behind the end in its segment, up to the last that is not zero.
    pub rest_bytes: u64,
    /// Those in segments that begin behind the end.
    pub later_bytes: u64,
    /// Somebody says that all offsets below this were durable.
    pub witness: u64,
    pub verdict: Verdict,
    /// For `Corrupt`: what is wrong at the end.
    pub damage: Corruption,
    pub scanned_bytes: u64,
    /// The largest epoch seen anywhere.
    pub epoch: u32,
}

/// What is known before the files are looked at.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub io: &'a Arc<dyn Io>,
    pub root: &'a Path,
    pub dir: &'a Path,
    pub manifest: &'a Manifest,
    pub live: Option<Live>,
    /// Where to begin: the manifest's proven point, or where an earlier scan ended.
    pub from: Proven,
    pub strict: bool,
    /// Ask the system to read the device, not its cache.
    pub drop_cache: bool,
}

/// The base offsets of the segment files in a directory, in order. Nothing else may have such a name.
pub(crate) fn list_segments(io: &dyn Io, root: &Path, dir: &Path) -> Result<Vec<u64>> {
    let named = list_names(io, root, dir)?;
    match named.iter().find(|(_, kind)| *kind != Kind::File) {
        Some((base, _)) => {
            let path = root.join(dir).join(segment::file_name(*base, "log"));
            Err(Error::NotAFile { path })
        }
        None => Ok(named.into_iter().map(|(base, _)| base).collect()),
    }
}

/// The base offsets in the names of segments, in order, and what has the name: readers are refused where they come to
/// something else.
pub(crate) fn list_names(io: &dyn Io, root: &Path, dir: &Path) -> Result<Vec<(u64, Kind)>> {
    let listed = io.list(dir).map_err(|e| Error::io("list", root.join(dir), e))?;
    let segment = |entry: Entry| Some((segment::parse_name(&entry.name, "log")?, entry.kind));
    let mut named: Vec<_> = listed.into_iter().filter_map(segment).collect();
    named.sort_unstable_by_key(|(base, _)| *base);
    Ok(named)
}

/// Whether somebody writes the log, or has written it since its manifest was read: what was found in its files without a
/// writer may be half of one state and half of another.
pub(crate) fn has_writer_come(dir: &DataDir, log: &Path, manifest: &Manifest) -> Result<bool> {
    if dir.writer_is_alive()? {
        return Ok(true);
    }
    let now = manifest::load(dir.io().as_ref(), log, dir.path(), Open::Read)?;
    Ok(now.is_none_or(|(now, _)| now.generation != manifest.generation))
}

impl Known<'_> {
    pub fn segment(&self, base_offset: u64) -> Arc<Segment> {
        Arc::new(Segment::new(
            Arc::clone(self.io),
            self.root,
            self.dir,
            self.manifest.log_id,
            base_offset,
        ))
    }

    /// The number of the segment that holds the start offset: the last that begins at or before it, but for those that
    /// compaction has merged into an earlier one and a crash has left there.
    pub fn first_kept(&self, bases: &[u64]) -> Result<usize> {
        let start = self.manifest.start_offset;
        let last = bases.partition_point(|base| *base <= start).saturating_sub(1);
        for (i, base) in bases[..last].iter().enumerate() {
            let segment = self.segment(*base);
            let file = match segment.open(Open::Read) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                opened => opened?,
            };
            let footer = segment.footer(file.as_ref());
            // What lies below the start is not needed, so nobody minds what it looks like.
            if let Ok(Some(footer)) = footer
                && footer.end_offset > start
                && segment.head(file.as_ref()).is_ok_and(|head| head.generation > 0)
            {
                return Ok(i);
            }
        }
        Ok(last)
    }

    /// The segments of a log that was closed, if its files are as the manifest says.
    pub fn closed(&self, bases: &[u64]) -> Result<Option<Scan>> {
        let end = self.manifest.proven;
        if self.manifest.state != State::Clean || self.manifest.start_offset > end.offset {
            return Ok(None);
        }
        let first = self.first_kept(bases)?;
        let (obsolete, kept) = bases.split_at(first);
        let segments: Vec<_> = kept.iter().map(|base| self.segment(*base)).collect();
        let mut unsealed = Vec::new();
        let mut reached = self.manifest.start_offset;
        for (i, segment) in segments.iter().enumerate() {
            let file = segment.open(Open::Read)?;
            let next = segments.get(i + 1).map(|next| next.base_offset());
            let fits = match (segment.footer(file.as_ref())?, next) {
                (Some(footer), Some(next)) => footer.end_offset == next,
                (Some(footer), None) => {
                    (segment.base_offset(), footer.end_offset, footer.data_end)
                        == (end.segment, end.offset, end.position)
                }
                (None, Some(_)) => true,
                (None, None) => {
                    let len = file.len().map_err(segment.failed("stat"))?;
                    (segment.base_offset(), len) == (end.segment, end.position)
                        && self.is_borne_out(segment, &file, &end)?
                }
            };
            if !fits {
                return Ok(None);
            }
            reached = next.unwrap_or(end.offset);
            if segment.footer(file.as_ref())?.is_none() {
                unsealed.push(Unsealed {
                    segment: Arc::clone(segment),
                    file,
                    proven: 0,
                    end_position: next.is_none().then_some(end.position),
                    end_offset: reached,
                });
            }
        }
        if reached != end.offset {
            return Ok(None);
        }
        if segments.first().is_some_and(|first| first.base_offset() > self.manifest.start_offset) {
            return Ok(None);
        }
        Ok(Some(Scan {
            segments,
            obsolete: obsolete.to_vec(),
            later: Vec::new(),
            unsealed,
            end,
            rest_bytes: 0,
            later_bytes: 0,
            witness: end.offset,
            verdict: Verdict::Clean,
            damage: Corruption::Hash,
            scanned_bytes: 0,
            epoch: self.manifest.epoch,
        }))
    }

    /// Where a log ends that nobody writes, and what follows.
    pub fn judge(&self, bases: &[u64]) -> Result<Scan> {
        match self.closed(bases)? {
            Some(closed) => Ok(closed),
            None => self.scan(bases),
        }
    }

    /// Whether the last frame before `point` ends there and at its offset. What comes before is not looked at, but if this
    /// one is gone (its file was cut, or lost its end to zeros), then what is appended behind it could never be read. A frame
    /// that is longer than the longest look is believed.
    fn is_borne_out(
        &self,
        segment: &Segment,
        file: &Arc<dyn File>,
        point: &Proven,
    ) -> Result<bool> {
        let start = HEAD_LEN as u64;
        if point.position <= start {
            return Ok(point.position == start && point.offset == segment.base_offset());
        }
        if segment.head(file.as_ref()).is_err() {
            // Then neither readers nor appends come past it, and what is before it can be read.
            return Ok(true);
        }
        let mut window = Vec::new();
        let mut tries = 0;
        for look in LOOKS_BACK {
            let from = point.position.saturating_sub(look).max(start);
            window.resize(usize::try_from(point.position - from).unwrap_or(0), 0);
            let got =
                read_full(file.as_ref(), &mut window, from).map_err(segment.failed("read"))?;
            if got < window.len() {
                return Ok(false);
            }
            for (i, bytes) in window.windows(FRAME_HEAD_LEN).enumerate().rev() {
                let left = window.len() - i;
                if bytes.first_chunk().and_then(FrameHead::unverified).map(|head| head.frame_len())
                    != Some(left)
                {
                    continue;
                }
                // Hostile bytes may hold any number of lengths that fit.
                tries += 1;
                if tries > TRIES_BACK {
                    return Ok(false);
                }
                let at = from + i as u64;
                let mut frames = segment.frames(Arc::clone(file), at, point.position)?;
                if let Some(batch) = frames.next_valid().map_err(segment.failed("read"))? {
                    return Ok(batch.last_offset() + 1 == point.offset);
                }
            }
            if from == start {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at every segment's head and footer, and at all frames that are not proven.
    pub fn scan(&self, bases: &[u64]) -> Result<Scan> {
        let manifest = self.manifest;
        // Records are removed only once they are durable.
        let mut witness = self.from.offset.max(manifest.start_offset);
        if let Some(live) =
            self.live.filter(|live| live.log_id == manifest.log_id && live.epoch == manifest.epoch)
        {
            witness = witness.max(live.durable);
        }
        let mut scan = Scan {
            segments: Vec::new(),
            obsolete: Vec::new(),
            later: Vec::new(),
            unsealed: Vec::new(),
            end: Proven {
                offset: manifest.start_offset,
                segment: manifest.start_offset,
                position: 0,
                max_timestamp: i64::MIN,
            },
            rest_bytes: 0,
            later_bytes: 0,
            witness: 0,
            verdict: Verdict::Clean,
            damage: Corruption::LostDurable { durable_upto: witness },
            scanned_bytes: 0,
            epoch: manifest.epoch,
        };
        let first = self.first_kept(bases)?;
        scan.obsolete.extend_from_slice(&bases[..first]);
        let mut rest = Rest::Nothing;
        let mut head_is_zero = true;
        let mut ended = false;
        for (i, base) in bases.iter().enumerate().skip(first) {
            let segment = self.segment(*base);
            let is_first = scan.segments.is_empty();
            if ended || (!is_first && *base > scan.end.offset) {
                ended = true;
                scan.later.push(segment);
                continue;
            }
            if is_first && *base > scan.end.offset {
                let what = Corruption::Gap { expected: scan.end.offset, found: *base };
                return Err(segment.corrupt(0, scan.end.offset, what));
            }
            let file = segment.open(Open::Read)?;
            if !is_first && *base < scan.end.offset {
                // Compaction put its output in place of several segments and died before it removed the others.
                match scan.segments.last() {
                    Some(last)
                        if last
                            .open(Open::Read)
                            .and_then(|f| Ok(last.head(f.as_ref())?.generation))?
                            > 0 =>
                    {
                        scan.obsolete.push(*base);
                        continue;
                    }
                    _ => {
                        let what = Corruption::Offset { expected: scan.end.offset, found: *base };
                        return Err(segment.corrupt(0, *base, what));
                    }
                }
            }
            let head = match segment.head(file.as_ref()) {
                Ok(head) => head,
                // The last segment may have been made and never synced in full. Whatever holds frames had a head before.
                Err(_) if i + 1 == bases.len() && *base >= witness && is_zero(&segment, &file)? => {
                    ended = true;
                    scan.later.push(segment);
                    continue;
                }
                Err(e) => return Err(e),
            };
            scan.epoch = scan.epoch.max(head.epoch);
            if let Some(footer) = segment.footer(file.as_ref())?.cloned() {
                scan.end = Proven {
                    offset: footer.end_offset,
                    segment: *base,
                    position: footer.data_end,
                    max_timestamp: footer.max_timestamp,
                };
                witness = witness.max(footer.end_offset);
                scan.segments.push(segment);
                continue;
            }
            if let Some(next) = bases.get(i + 1).filter(|next| **next <= self.from.offset) {
                scan.end = Proven {
                    offset: *next,
                    segment: *base,
                    position: HEAD_LEN as u64,
                    max_timestamp: i64::MIN,
                };
                scan.segments.push(Arc::clone(&segment));
                scan.unsealed.push(Unsealed {
                    segment,
                    file,
                    proven: 0,
                    end_position: None,
                    end_offset: *next,
                });
                continue;
            }
            if self.drop_cache {
                file.drop_cache().map_err(segment.failed("drop cache of"))?;
            }
            let next = bases.get(i + 1).copied();
            let found = self.scan_segment(&segment, &file, next, &mut scan, &mut witness)?;
            rest = found.rest;
            head_is_zero = found.head_is_zero;
            if found.rest == Rest::Bytes && next == Some(scan.end.offset) {
                // The next segment begins where this one ends, so what a failed write left behind it is nothing.
                rest = Rest::Nothing;
                scan.rest_bytes = 0;
            } else {
                scan.damage = found.damage;
            }
        }
        let later = self.look_at_later(&mut scan, &mut witness)?;
        scan.witness = witness;
        let same_boot = manifest.boot_id == self.io.boot_id() && manifest.boot_id != [0; 16];
        let stored_page = self.live.filter(|live| {
            live.log_id == manifest.log_id
                && live.epoch == manifest.epoch
                && live.boot[..] == manifest.boot_id[..8]
                && !live.mapped
        });
        let evidence = Evidence {
            rest,
            later,
            witnessed: witness > scan.end.offset,
            unacknowledged: same_boot
                && (head_is_zero || stored_page.is_some_and(|live| live.stored <= scan.end.offset)),
            strict: self.strict,
        };
        scan.verdict = judge(&evidence);
        if planted::has(Bug::WitnessesIgnored) && scan.verdict == Verdict::Corrupt {
            scan.verdict = Verdict::Cut;
        }
        if scan.verdict == Verdict::Corrupt && rest == Rest::Nothing {
            scan.damage = Corruption::LostDurable { durable_upto: witness };
        }
        Ok(scan)
    }

    fn scan_segment(
        &self,
        segment: &Arc<Segment>,
        file: &Arc<dyn File>,
        next: Option<u64>,
        scan: &mut Scan,
        witness: &mut u64,
    ) -> Result<EndOfSegment> {
        let len = segment.len(file.as_ref())?;
        let is_here =
            self.from.segment == segment.base_offset() && self.from.position >= HEAD_LEN as u64;
        let resumed = is_here && self.is_borne_out(segment, file, &self.from)?;
        let begin = if resumed { self.from.position } else { HEAD_LEN as u64 };
        scan.end = Proven {
            offset: if resumed { self.from.offset } else { segment.base_offset() },
            segment: segment.base_offset(),
            position: begin,
            max_timestamp: if resumed { self.from.max_timestamp } else { i64::MIN },
        };
        // What a failed write has left where the next segment begins may be whole frames.
        let until = next.unwrap_or(u64::MAX);
        let mut frames = segment.frames(Arc::clone(file), begin, len)?.until(until);
        let (mut next_offset, mut max_timestamp) = (scan.end.offset, scan.end.max_timestamp);
        let damage = loop {
            let head = match frames.peek().map_err(segment.failed("read"))? {
                Step::Frame(head) => head,
                Step::End => break None,
                Step::Damaged(what) => break Some(what),
            };
            let batch = match frames.take(head) {
                Ok(batch) => batch,
                Err(what) => break Some(what),
            };
            if batch.base_offset() != next_offset {
                break Some(Corruption::Offset {
                    expected: next_offset,
                    found: batch.base_offset(),
                });
            }
            next_offset = batch.last_offset() + 1;
            max_timestamp = max_timestamp.max(batch.max_timestamp());
            *witness = (*witness).max(batch.durable_upto().unwrap_or(0));
            if !batch.continues() || planted::has(Bug::PartialBatchKept) {
                scan.end.offset = next_offset;
                scan.end.position = frames.position();
                scan.end.max_timestamp = max_timestamp;
            }
        };
        scan.scanned_bytes += scan.end.position - begin;
        let end = scan.end;
        if is_here && len < self.from.position && end.offset >= self.from.offset {
            let what = Corruption::Truncated { expected: self.from.position, found: len };
            return Err(segment.corrupt(len, end.offset, what));
        }
        let head_is_zero =
            head_is_zero(file.as_ref(), end.position, len).map_err(segment.failed("read"))?;
        scan.rest_bytes =
            if segment.footer_at(file.as_ref(), Footer::position(end.position))?.is_some() {
                // The footer was written; the length that goes with it was not.
                0
            } else {
                last_non_zero(file.as_ref(), end.position, len).map_err(segment.failed("read"))?
            };
        if scan.rest_bytes > 0 {
            let later_witness = find_witness(segment, file, end, len)?;
            *witness = (*witness).max(later_witness);
        }
        scan.segments.push(Arc::clone(segment));
        scan.unsealed.push(Unsealed {
            segment: Arc::clone(segment),
            file: Arc::clone(file),
            proven: begin,
            end_position: Some(end.position),
            end_offset: end.offset,
        });
        Ok(EndOfSegment {
            rest: if scan.rest_bytes > 0 { Rest::Bytes } else { Rest::Nothing },
            head_is_zero,
            damage: damage.unwrap_or(Corruption::LostDurable { durable_upto: *witness }),
        })
    }

    /// Whether the segments behind the end hold frames, and what these have witnessed.
    fn look_at_later(&self, scan: &mut Scan, witness: &mut u64) -> Result<Later> {
        let mut found = if scan.later.is_empty() { Later::Nothing } else { Later::Empty };
        for segment in &scan.later {
            let file = segment.open(Open::Read)?;
            let len = segment.len(file.as_ref())?;
            let bytes = last_non_zero(file.as_ref(), HEAD_LEN as u64, len)
                .map_err(segment.failed("read"))?;
            if bytes > 0 {
                found = Later::Frames;
            }
            scan.later_bytes += bytes;
            let Ok(head) = segment.head(file.as_ref()) else { continue };
            scan.epoch = scan.epoch.max(head.epoch);
            if let Some(footer) = segment.footer(file.as_ref())? {
                *witness = (*witness).max(footer.end_offset);
            }
            let start = Proven {
                offset: segment.base_offset(),
                segment: segment.base_offset(),
                position: HEAD_LEN as u64,
                max_timestamp: i64::MIN,
            };
            *witness = (*witness).max(find_witness(segment, &file, start, len)?);
        }
        Ok(found)
    }
}

struct EndOfSegment {
    rest: Rest,
    head_is_zero: bool,
    damage: Corruption,
}

/// Whether the file holds nothing but zeros.
fn is_zero(segment: &Segment, file: &Arc<dyn File>) -> Result<bool> {
    let len = segment.len(file.as_ref())?;
    Ok(last_non_zero(file.as_ref(), 0, len).map_err(segment.failed("read"))? == 0)
}

/// Whether what is there of a frame's head at `position` is zero, in a file that ends at `end`.
fn head_is_zero(file: &dyn File, position: u64, end: u64) -> std::io::Result<bool> {
    let mut head = [0; FRAME_HEAD_LEN];
    let len = usize::try_from(end.saturating_sub(position)).unwrap_or(head.len()).min(head.len());
    read_full(file, &mut head[..len], position)?;
    Ok(head == [0; FRAME_HEAD_LEN])
}

/// How many bytes lie between `from` and the last byte before `end` that is not zero.
pub(crate) fn last_non_zero(file: &dyn File, from: u64, end: u64) -> std::io::Result<u64> {
    let most = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
    let mut buffer = vec![0; most.min(256 << 10)];
    let mut last = from;
    for written in file.written_from(from)? {
        let (mut position, end) = (written.start, written.end.min(end));
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(buffer.len()).min(buffer.len());
            let got = read_full(file, &mut buffer[..want], position)?;
            if let Some(i) = last_set(&buffer[..got]) {
                last = position + i as u64 + 1;
            }
            position += want as u64;
        }
    }
    Ok(last - from)
}

/// The index of the last byte that is not zero. Reservations are long and mostly zero, so this looks at 64 at a time.
fn last_set(bytes: &[u8]) -> Option<usize> {
    let mut end = bytes.len();
    for chunk in bytes.rchunks(64) {
        if chunk != &[0; 64][..chunk.len()] {
            let begin = end - chunk.len();
            return chunk.iter().rposition(|b| *b != 0).map(|i| begin + i);
        }
        end -= chunk.len();
    }
    None
}

/// The largest `durable_upto` of any valid frame behind `end`, at whatever byte it begins. What is found is believed as a
/// witness only and is never returned as a record. A file with too many false heads to look at every frame is damaged.
fn find_witness(segment: &Segment, file: &Arc<dyn File>, end: Proven, len: u64) -> Result<u64> {
    let scope = segment.scope(file.as_ref())?;
    let mut resync = Resync::new(file, &scope, len);
    let mut frames = segment.frames(Arc::clone(file), end.position, len)?;
    let mut witness = 0;
    while let Some(at) = resync.next(frames.position()).map_err(segment.failed("read"))? {
        frames.seek(at);
        while let Some(batch) = frames.next_valid().map_err(segment.failed("read"))? {
            witness = witness.max(batch.durable_upto().unwrap_or(0));
        }
        frames.seek(frames.position().max(at + 1));
    }
    if resync.is_exhausted() {
        let what = Corruption::Field(
            "more heads of frames than can be followed: durable records may be behind them",
        );
        return Err(segment.corrupt(end.position, end.offset, what));
    }
    Ok(witness)
}

/// Makes the files agree with what the scan found, and everything before the end durable.
///
/// Each step leaves files in which a scan finds the same end, so recovery may be cut short anywhere and run again.
pub(crate) fn apply(known: &Known<'_>, scan: &mut Scan) -> Result<Vec<PathBuf>> {
    let shown = known.root.join(known.dir);
    let place = scan.segments.last().map_or_else(|| shown.clone(), |last| last.shown());
    let (position, offset) = (scan.end.position, scan.end.offset);
    match scan.verdict {
        Verdict::Clean | Verdict::Cut | Verdict::Ambiguous => {}
        Verdict::Refused => return Err(Error::Ambiguous { path: place, position, offset }),
        Verdict::Corrupt => {
            return Err(Error::Corrupt {
                path: place,
                position,
                offset,
                what: scan.damage.clone(),
            });
        }
    }
    let mut quarantined = Vec::new();
    if scan.verdict == Verdict::Ambiguous && !planted::has(Bug::NotQuarantined) {
        quarantined = quarantine(known, scan)?;
    } else {
        for segment in scan.later.drain(..).rev() {
            known.io.unlink(&segment.path()).map_err(segment.failed("unlink"))?;
        }
    }
    keep_compacted(known, scan)?;
    for base in &scan.obsolete {
        remove_segment(known.io.as_ref(), known.root, known.dir, *base)?;
    }
    tidy(known, scan.end.offset)?;
    known.io.sync_dir(known.dir).map_err(|e| Error::io("sync", &shown, e))?;

    let mut kept: Vec<Unsealed> = Vec::new();
    for mut unsealed in std::mem::take(&mut scan.unsealed) {
        let segment = &unsealed.segment;
        match unsealed.end_position {
            Some(end) if end == HEAD_LEN as u64 => {
                // It holds nothing, and the next append makes one of the same name.
                known.io.unlink(&segment.path()).map_err(segment.failed("unlink"))?;
                known.io.sync_dir(known.dir).map_err(|e| Error::io("sync", &shown, e))?;
                scan.segments.retain(|other| other.base_offset() != segment.base_offset());
                scan.end = end_of(scan.segments.last(), kept.last(), scan.end)?;
                if let Some(last) = kept.last_mut() {
                    trim(last, scan.end)?;
                }
                continue;
            }
            Some(end) => {
                let file = segment.open(Open::Write)?;
                rewrite(segment, file.as_ref(), unsealed.proven, end)?;
                unsealed.file = file;
            }
            None => {}
        }
        kept.push(unsealed);
    }
    scan.unsealed = kept;
    Ok(quarantined)
}

/// Cuts off the reservation of a segment that had others behind it and is the last one now.
fn trim(unsealed: &mut Unsealed, end: Proven) -> Result<()> {
    let segment = &unsealed.segment;
    if unsealed.end_position.is_none() && segment.base_offset() == end.segment {
        let file = segment.open(Open::Write)?;
        rewrite(segment, file.as_ref(), end.position, end.position)?;
        unsealed.file = file;
        unsealed.end_position = Some(end.position);
    }
    Ok(())
}

/// Where a log ends whose last segment is `last`; `unsealed` is the last that has no footer.
fn end_of(last: Option<&Arc<Segment>>, unsealed: Option<&Unsealed>, end: Proven) -> Result<Proven> {
    let Some(last) = last else {
        return Ok(Proven { segment: end.offset, position: 0, max_timestamp: i64::MIN, ..end });
    };
    let file = last.open(Open::Read)?;
    if let Some(footer) = last.footer(file.as_ref())? {
        return Ok(Proven {
            offset: footer.end_offset,
            segment: last.base_offset(),
            position: footer.data_end,
            max_timestamp: footer.max_timestamp,
        });
    }
    let position = match unsealed.and_then(|unsealed| unsealed.end_position) {
        Some(position) => position,
        None => {
            // All of it was durable before the next one was begun.
            last.walk_to(&file, u64::MAX, end.offset)?.data_end
        }
    };
    Ok(Proven {
        offset: end.offset,
        segment: last.base_offset(),
        position,
        max_timestamp: end.max_timestamp,
    })
}

/// Writes the bytes of `from..end` over themselves, cuts off what follows, and syncs: then they are on the device, and not
/// only in a cache that a failed sync has left clean.
fn rewrite(segment: &Segment, file: &dyn File, from: u64, end: u64) -> Result<()> {
    if planted::has(Bug::CacheTrusted) {
        return file.set_len(end).map_err(segment.failed("cut"));
    }
    let mut buffer = vec![0; piece(end.saturating_sub(from))];
    let mut position = from;
    while position < end {
        let want = piece(end - position);
        let got = read_full(file, &mut buffer[..want], position).map_err(segment.failed("read"))?;
        if got < want {
            let what = Corruption::Truncated { expected: end, found: position + got as u64 };
            return Err(segment.corrupt(position, segment.base_offset(), what));
        }
        write_full(file, &buffer[..got], position).map_err(segment.failed("write"))?;
        position += got as u64;
    }
    file.set_len(end).and_then(|()| file.sync_data()).map_err(segment.failed("sync"))
}

/// Does what takes space. Where there is none, the log's reserve gives up half of its own, as often as need be: a log that
/// cannot be opened cannot be drained either.
fn with_reserve(known: &Known<'_>, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match act() {
            Err(Error::DiskFull { .. }) if halve_reserve(known).unwrap_or(false) => {}
            done => return done,
        }
    }
}

/// `false`: there is nothing worth giving.
fn halve_reserve(known: &Known<'_>) -> std::io::Result<bool> {
    let spare = known.io.open(&known.dir.join(SPARE), Open::Write)?;
    let half = spare.len()? / 2;
    if half < RESERVE_LEAST {
        return Ok(false);
    }
    spare.set_len(half)?;
    Ok(true)
}

/// Copies what may have been acknowledged into `quarantine/`, the latest first, before anything is cut off.
fn quarantine(known: &Known<'_>, scan: &mut Scan) -> Result<Vec<PathBuf>> {
    let dir = known.dir.join(QUARANTINE);
    let failed = |op| {
        let shown = known.root.join(&dir);
        move |e| Error::io(op, shown, e)
    };
    with_reserve(known, || known.io.create_dir(&dir).map_err(failed("create")))?;
    known.io.sync_dir(known.dir).map_err(failed("sync"))?;
    let mut quarantined = Vec::new();
    let epoch = scan.epoch;
    for segment in scan.later.drain(..).rev() {
        let path = dir.join(format!("{:020}-{epoch}.log", segment.base_offset()));
        with_reserve(known, || {
            known.io.rename(&segment.path(), &path).map_err(segment.failed("quarantine"))
        })?;
        quarantined.push(path);
    }
    let rest = scan.unsealed.last().and_then(|last| Some((last, last.end_position?)));
    if let Some((last, end_position)) = rest.filter(|_| scan.rest_bytes > 0) {
        let path =
            dir.join(format!("{:020}-{epoch}-{}.bytes", last.segment.base_offset(), end_position));
        let temporary = dir.join("bytes.tmp");
        with_reserve(known, || {
            unlink_if_there(known.io.as_ref(), &temporary).map_err(failed("unlink"))?;
            let copy = known.io.open(&temporary, Open::Create).map_err(failed("create"))?;
            let range = end_position..end_position + scan.rest_bytes;
            copy_to(&last.segment, last.file.as_ref(), range, copy.as_ref(), failed("write"))?;
            copy.sync_data().map_err(failed("sync"))
        })?;
        known.io.rename(&temporary, &path).map_err(failed("rename"))?;
        quarantined.push(path);
    }
    known.io.sync_dir(&dir).map_err(failed("sync"))?;
    Ok(quarantined)
}

/// How many of `bytes` are copied or rewritten at once.
fn piece(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(COPY_BYTES).min(COPY_BYTES)
}

/// Copies a range of a segment to the beginning of another file, as far as it goes.
fn copy_to(
    segment: &Segment,
    from: &dyn File,
    range: Range<u64>,
    to: &dyn File,
    not_written: impl FnOnce(std::io::Error) -> Error,
) -> Result<()> {
    let mut buffer = vec![0; piece(range.end - range.start)];
    let mut position = range.start;
    while position < range.end {
        let want = piece(range.end - position);
        let got = read_full(from, &mut buffer[..want], position).map_err(segment.failed("read"))?;
        if let Err(e) = write_full(to, &buffer[..got], position - range.start) {
            return Err(not_written(e));
        }
        position += want as u64;
    }
    Ok(())
}

/// Before what a compacted segment was made of is removed, its name is made durable. That it is there says little: the sync
/// of its directory may have failed, which leaves a name in the cache that no later sync writes. So a copy takes its place.
/// Where there is no space for one, the next sync is trusted.
fn keep_compacted(known: &Known<'_>, scan: &Scan) -> Result<()> {
    for (segment, next) in scan
        .segments
        .iter()
        .zip(scan.segments.iter().skip(1).map(|next| next.base_offset()).chain([scan.end.offset]))
    {
        let inside = segment.base_offset() + 1..next;
        if !scan.obsolete.iter().any(|base| inside.contains(base)) {
            continue;
        }
        let path = segment.path();
        let temporary = path.with_extension("log.compacted.tmp");
        let copied = with_reserve(known, || {
            unlink_if_there(known.io.as_ref(), &temporary).map_err(segment.failed("unlink"))?;
            let from = segment.open(Open::Read)?;
            let to = known.io.open(&temporary, Open::Create).map_err(segment.failed("create"))?;
            let len = from.len().map_err(segment.failed("length of"))?;
            copy_to(segment, from.as_ref(), 0..len, to.as_ref(), segment.failed("write"))?;
            to.sync_data().map_err(segment.failed("sync"))
        });
        match copied {
            Ok(()) => known.io.rename(&temporary, &path).map_err(segment.failed("rename"))?,
            Err(Error::DiskFull { .. }) => {}
            Err(e) => return Err(e),
        }
        let root = known.root;
        known.io.sync_dir(known.dir).map_err(|e| Error::io("sync", root.join(known.dir), e))?;
    }
    Ok(())
}

/// Removes a segment and its indexes; the directory is not synced. A snapshot of producers with its base offset stays: it
/// is of the log as a whole, may be the only one, and goes when there is a newer one.
pub(crate) fn remove_segment(io: &dyn Io, root: &Path, dir: &Path, base_offset: u64) -> Result<()> {
    // The log file goes last, so that its indexes are never orphans.
    for extension in ["index", "time", "log"] {
        let path = dir.join(segment::file_name(base_offset, extension));
        unlink_if_there(io, &path).map_err(|e| Error::io("unlink", root.join(path), e))?;
    }
    Ok(())
}

/// Removes temporary files, and snapshots of producers that know of records which are no more. Makes durable what a recovery
/// that was cut short has put into quarantine: a segment that came back from there would have nothing before it.
fn tidy(known: &Known<'_>, end: u64) -> Result<()> {
    for entry in
        known.io.list(known.dir).map_err(|e| Error::io("list", known.root.join(known.dir), e))?
    {
        let is_ahead = segment::parse_name(&entry.name, "producers").is_some_and(|at| at > end)
            && !planted::has(Bug::SnapshotAheadBelieved);
        if (is_ahead || entry.name.ends_with(".tmp")) && entry.kind == Kind::File {
            let path = known.dir.join(&entry.name);
            known.io.unlink(&path).map_err(|e| Error::io("unlink", known.root.join(&path), e))?;
        } else if entry.name == QUARANTINE && entry.kind == Kind::Directory {
            let path = known.dir.join(&entry.name);
            known.io.sync_dir(&path).map_err(|e| Error::io("sync", known.root.join(&path), e))?;
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "sim"))]
mod tests;
