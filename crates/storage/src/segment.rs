//! One segment: a file of frames, its head, its footer once sealed, and its indexes.
//!
//! A segment holds no open file of its own: whoever works with it does, and shares it with the others through a weak
//! handle, so that thousands of idle segments cost no descriptors and a reader goes on reading a removed one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use xxhash_rust::xxh3::Xxh3;

use crate::batch::{Batch, FrameHead, Scope};
use crate::behind::{self, Run};
use crate::error::{Corruption, Error, Result};
use crate::frames::{Frames, Step};
use crate::index::{Index, OffsetEntry};
use crate::io::{File, Io, Open, read_full, unlink_if_there, write_full};
use crate::layout::{FOOTER_LEN, Footer, HEAD_LEN, OFFSET_END, SEGMENT_BYTES_MAX, SegmentHead};
use crate::planted::{self, Bug};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// `{base_offset:020}.{extension}`.
pub(crate) fn file_name(base_offset: u64, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

/// The base offset in the name of a segment file, and only of one.
pub(crate) fn parse_name(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let base_offset = digits.parse().ok().filter(|offset| *offset < OFFSET_END)?;
    (file_name(base_offset, extension) == name).then_some(base_offset)
}

/// A segment of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: u64,
    log_id: [u8; 16],
    io: Arc<dyn Io>,
    /// The log's directory, relative to the store.
    dir: PathBuf,
    /// The store directory, for messages.
    root: PathBuf,
    file: Mutex<Option<Weak<dyn File>>>,
    /// The file, once its name may belong to another one: see [`pin`](Self::pin).
    pinned: OnceLock<Arc<dyn File>>,
    head: OnceLock<SegmentHead>,
    footer: OnceLock<Footer>,
    /// This process appends to it, so there is no footer to look for.
    is_active: AtomicBool,
    /// Where a frame begins, or the end of all of them: what was proven when the log was opened.
    landmark: OnceLock<OffsetEntry>,
    /// `None` until somebody looks for something in a segment that was not written by this process.
    index: Mutex<Option<Index>>,
}

impl Segment {
    pub fn new(
        io: Arc<dyn Io>,
        root: &Path,
        dir: &Path,
        log_id: [u8; 16],
        base_offset: u64,
    ) -> Segment {
        Segment {
            base_offset,
            log_id,
            io,
            dir: dir.to_owned(),
            root: root.to_owned(),
            file: Mutex::new(None),
            pinned: OnceLock::new(),
            head: OnceLock::new(),
            footer: OnceLock::new(),
            is_active: AtomicBool::new(false),
            landmark: OnceLock::new(),
            index: Mutex::new(None),
        }
    }

    /// The same segment with nothing known of its file.
    pub fn unread(&self) -> Segment {
        Segment::new(Arc::clone(&self.io), &self.root, &self.dir, self.log_id, self.base_offset)
    }

    pub const fn base_offset(&self) -> u64 {
        self.base_offset
    }

    /// Relative to the store directory.
    pub fn path(&self) -> PathBuf {
        self.dir.join(file_name(self.base_offset, "log"))
    }

    /// For messages.
    pub fn shown(&self) -> PathBuf {
        self.root.join(self.path())
    }

    pub fn corrupt(&self, position: u64, offset: u64, what: Corruption) -> Error {
        Error::Corrupt { path: self.shown(), position, offset, what }
    }

    pub fn failed(&self, op: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |e| Error::io(op, self.shown(), e)
    }

    /// The length of `file`. A longer file than any segment is refused: looking through a sparse one would take hours.
    pub fn len(&self, file: &dyn File) -> Result<u64> {
        let len = file.len().map_err(self.failed("stat"))?;
        if len > SEGMENT_BYTES_MAX {
            let what = Corruption::Truncated { expected: SEGMENT_BYTES_MAX, found: len };
            return Err(self.corrupt(SEGMENT_BYTES_MAX, self.base_offset, what));
        }
        Ok(len)
    }

    /// The file, shared with everybody who has it open.
    pub fn open(&self, how: Open) -> Result<Arc<dyn File>> {
        let mut shared = self.file.lock();
        if let Some(file) = self.pinned.get() {
            return Ok(Arc::clone(file));
        }
        // A handle for reading cannot serve a writer.
        if how == Open::Read
            && let Some(file) = shared.as_ref().and_then(Weak::upgrade)
        {
            return Ok(file);
        }
        let file = self.io.open(&self.path(), how).map_err(|e| Error::open(self.shown(), e))?;
        if how == Open::Write {
            self.head_to_write(file.as_ref())?;
        }
        *shared = Some(Arc::downgrade(&file));
        Ok(file)
    }

    /// Goes on with `file`, which is open, whatever gets its name: compaction is about to replace it. Who has looked this
    /// segment up before, or opens it now, sees what it was.
    pub fn pin(&self, file: Arc<dyn File>) {
        let _open = self.file.lock();
        let _ = self.pinned.set(file);
    }

    /// Notes the head and the footer of a segment that was written as a whole.
    pub fn set_sealed(&self, head: SegmentHead, footer: Footer) {
        let _ = self.head.set(head);
        let _ = self.footer.set(footer);
    }

    /// Makes the segment: a temporary file with its head, synced, renamed, the directory synced.
    pub fn create(&self, head: &SegmentHead, reserve: u64) -> Result<Arc<dyn File>> {
        let path = self.path();
        let temporary = self.dir.join(format!("{}.tmp", file_name(self.base_offset, "log")));
        unlink_if_there(self.io.as_ref(), &temporary).map_err(self.failed("unlink"))?;
        let file = self.io.open(&temporary, Open::Create).map_err(self.failed("create"))?;
        let written = file
            .reserve(0, reserve)
            .and_then(|()| write_full(file.as_ref(), &head.encode(), 0))
            .and_then(|()| file.sync_data());
        if let Err(e) = written {
            let _ = self.io.unlink(&temporary);
            return Err(self.failed("create")(e));
        }
        self.install(&temporary, &path, head)?;
        *self.file.lock() = Some(Arc::downgrade(&file));
        Ok(file)
    }

    /// Makes the segment out of `spare`, a file that has its blocks already.
    pub fn create_from_spare(&self, head: &SegmentHead, spare: &Path) -> Result<Arc<dyn File>> {
        let file =
            self.io.open(spare, Open::Write).map_err(|e| Error::open(self.root.join(spare), e))?;
        write_full(file.as_ref(), &head.encode(), 0)
            .and_then(|()| file.sync_data())
            .map_err(self.failed("create"))?;
        self.install(spare, &self.path(), head)?;
        *self.file.lock() = Some(Arc::downgrade(&file));
        Ok(file)
    }

    /// Takes back a segment that nothing was stored in: one that the log does not know of would make a clean close look like
    /// a crash.
    pub fn abandon(&self) {
        let _ = self.io.unlink(&self.path());
    }

    fn install(&self, from: &Path, path: &Path, head: &SegmentHead) -> Result<()> {
        let renamed = self.io.rename(from, path).map_err(self.failed("rename"));
        let named = renamed.and_then(|()| {
            if planted::has(Bug::NoDirectorySync) {
                return Ok(());
            }
            self.io.sync_dir(&self.dir).map_err(self.failed("sync directory of"))
        });
        if let Err(e) = named {
            let _ = self.io.rename(path, from);
            return Err(e);
        }
        let _ = self.head.set(head.clone());
        *self.index.lock() = Some(Index::default());
        Ok(())
    }

    /// The head, read once.
    pub fn head(&self, file: &dyn File) -> Result<&SegmentHead> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let mut bytes = [0; HEAD_LEN];
        let len = read_full(file, &mut bytes, 0).map_err(self.failed("read"))?;
        let corrupt = |what| self.corrupt(0, self.base_offset, what);
        if len < HEAD_LEN {
            return Err(corrupt(Corruption::Truncated {
                expected: HEAD_LEN as u64,
                found: len as u64,
            }));
        }
        let head = SegmentHead::decode(&bytes).map_err(corrupt)?;
        if head.log_id != self.log_id || head.base_offset != self.base_offset {
            return Err(corrupt(Corruption::Misplaced));
        }
        Ok(self.head.get_or_init(|| head))
    }

    /// The head, if this build knows enough of the file to write it.
    pub fn head_to_write(&self, file: &dyn File) -> Result<&SegmentHead> {
        let head = self.head(file)?;
        head.check_writable().map_err(|what| self.corrupt(0, self.base_offset, what))?;
        Ok(head)
    }

    pub fn scope(&self, file: &dyn File) -> Result<Scope> {
        let head = self.head(file)?;
        Ok(Scope::new(&self.log_id, head.epoch, self.base_offset, head.base_timestamp))
    }

    /// The footer, if the segment is sealed.
    pub fn footer(&self, file: &dyn File) -> Result<Option<&Footer>> {
        if let Some(footer) = self.footer.get() {
            return Ok(Some(footer));
        }
        if self.is_active() {
            return Ok(None);
        }
        let len = file.len().map_err(self.failed("stat"))?;
        let Some(position) = len.checked_sub(FOOTER_LEN as u64) else { return Ok(None) };
        match self.footer_at(file, position)? {
            Some(footer) => Ok(Some(self.footer.get_or_init(|| footer))),
            None => Ok(None),
        }
    }

    /// The footer, if somebody has looked at it before.
    pub fn known_footer(&self) -> Option<&Footer> {
        self.footer.get()
    }

    /// This process begins, or ceases, to append.
    pub fn set_active(&self, is_active: bool) {
        self.is_active.store(is_active, Ordering::Relaxed);
    }

    /// Whether this process appends to it.
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// A valid footer of this segment at `position`.
    pub fn footer_at(&self, file: &dyn File, position: u64) -> Result<Option<Footer>> {
        let mut bytes = [0; FOOTER_LEN];
        let len = read_full(file, &mut bytes, position).map_err(self.failed("read"))?;
        if len < FOOTER_LEN {
            return Ok(None);
        }
        let Ok(footer) = Footer::decode(&bytes) else { return Ok(None) };
        let head = self.head(file)?;
        let own = footer.log_id == self.log_id
            && footer.base_offset == self.base_offset
            && footer.epoch == head.epoch
            && Footer::position(footer.data_end) == position;
        Ok(own.then_some(footer))
    }

    /// The hash by which the segment after this one knows it; zero if it is not sealed.
    pub fn chain_hash(&self, file: &dyn File) -> Result<[u8; 16]> {
        let superseded = self.head(file)?.superseded_hash;
        let hash = self.footer(file)?.map_or([0; 16], |footer| footer.hash);
        Ok(if superseded == [0; 16] { hash } else { superseded })
    }

    /// Walks the frames from `position` on.
    pub fn frames(&self, file: Arc<dyn File>, position: u64, limit: u64) -> Result<Frames> {
        let scope = self.scope(file.as_ref())?;
        Ok(Frames::new(file, scope, position, limit))
    }

    /// Notes a frame that was appended.
    pub fn note(&self, delta: u32, position: u64, max_timestamp: i64) {
        if let Some(index) = self.index.lock().as_mut() {
            index.note(delta, position, max_timestamp);
        }
    }

    /// Forgets index entries at or after `position`.
    pub fn truncate_index(&self, position: u64) {
        if let Some(index) = self.index.lock().as_mut() {
            index.truncate(position);
        }
    }

    /// A frame begins at this place, or all of them end there: who looks for what comes behind it need not read what comes
    /// before. The segment's start is none, since an index from there on is whole and has times.
    pub fn set_landmark(&self, offset: u64, position: u64) {
        let delta = u32::try_from(offset.saturating_sub(self.base_offset));
        if let (Ok(delta @ 1..), Ok(position)) = (delta, u32::try_from(position)) {
            let _ = self.landmark.set(OffsetEntry { delta, position });
        }
    }

    /// Sends `frames` to a frame at or before the one that holds `offset`, of a log that ends at `end`.
    pub fn seek(&self, frames: &mut Frames, offset: u64, limit: u64, end: u64) -> Result<()> {
        let delta = u32::try_from(offset.saturating_sub(self.base_offset)).unwrap_or(u32::MAX);
        let file = Arc::clone(frames.file());
        let entry = self.with_index(&file, delta, limit, end, |index| index.floor(delta))?;
        if let Some(entry) = entry {
            frames.seek(u64::from(entry.position));
            match frames.peek().map_err(self.failed("read"))? {
                Step::Frame(head) if head.delta() == entry.delta => return Ok(()),
                _ => {
                    frames.forget();
                }
            }
        }
        frames.seek(HEAD_LEN as u64);
        Ok(())
    }

    /// An offset of this segment at or before the first record with a timestamp of at least `ms`.
    pub fn offset_before_time(
        &self,
        file: &Arc<dyn File>,
        ms: i64,
        limit: u64,
        end: u64,
    ) -> Result<u64> {
        let delta = self.with_index(file, 0, limit, end, |index| index.before_time(ms))?;
        Ok(self.base_offset + u64::from(delta.unwrap_or(0)))
    }

    /// Looks at an index that knows the frames from `delta` on.
    fn with_index<T>(
        &self,
        file: &Arc<dyn File>,
        delta: u32,
        limit: u64,
        end: u64,
        look: impl FnOnce(&Index) -> T,
    ) -> Result<T> {
        let reaches = |index: &&Index| index.reaches(delta);
        if let Some(index) = self.index.lock().as_ref().filter(reaches) {
            return Ok(look(index));
        }
        let loaded = match (self.load_index(), self.landmark.get()) {
            (Some(index), _) => index,
            (None, Some(landmark)) if landmark.delta <= delta => {
                self.index_behind(file, *landmark, limit, end)?
            }
            (None, _) => self.index_anew(file, limit, end)?,
        };
        let mut index = self.index.lock();
        if index.as_ref().filter(reaches).is_none() {
            *index = Some(loaded);
        }
        Ok(look(index.get_or_insert_default()))
    }

    /// The index of the frames from `landmark` on, if all of them can be read; else of all frames that can.
    fn index_behind(
        &self,
        file: &Arc<dyn File>,
        landmark: OffsetEntry,
        limit: u64,
        end: u64,
    ) -> Result<Index> {
        let mut index = Index::beginning_at(landmark);
        let mut frames = self.frames(Arc::clone(file), u64::from(landmark.position), limit)?;
        let mut reached = self.base_offset + u64::from(landmark.delta);
        while reached < end
            && let Step::Frame(frame) = frames.peek().map_err(self.failed("read"))?
            && let Ok(batch) = frames.batch(frame)
        {
            reached = batch.last_offset() + 1;
            index.note_behind_damage(frame.delta(), frames.position());
            frames.skip(&frame);
        }
        if reached < end { self.index_anew(file, limit, end) } else { Ok(index) }
    }

    /// The index of a segment that has none, of all frames that can be read.
    fn index_anew(&self, file: &Arc<dyn File>, limit: u64, end: u64) -> Result<Index> {
        let (walked, damage) = self.walk_until_damage(file, limit, end)?;
        let mut index = walked.index;
        if damage.is_some() && walked.end_offset < end {
            let lost = walked.end_offset..end;
            for run in self.behind(file, walked.data_end, limit, lost)? {
                let mut frames = self.frames(Arc::clone(file), run.position, limit)?;
                while let Step::Frame(frame) = frames.peek().map_err(self.failed("read"))?
                    && self.base_offset + u64::from(frame.delta()) < run.offsets.end
                {
                    index.note_behind_damage(frame.delta(), frames.position());
                    frames.skip(&frame);
                }
            }
        }
        Ok(index)
    }

    /// Where frames with offsets of `offsets` can be read behind the damage at a position.
    pub fn behind(
        &self,
        file: &Arc<dyn File>,
        damaged: u64,
        limit: u64,
        offsets: Range<u64>,
    ) -> Result<Vec<Run>> {
        let scope = self.scope(file.as_ref())?;
        behind::runs(file, &scope, damaged, limit, offsets.start, Some(offsets.end))
            .map_err(self.failed("read"))
    }

    fn load_index(&self) -> Option<Index> {
        // The files of a segment that is not sealed do not reach to its end.
        self.footer.get()?;
        let read = |extension| {
            let path = self.dir.join(file_name(self.base_offset, extension));
            let file = self.io.open(&path, Open::Read).ok()?;
            // An index has at most one entry for each stretch of at most 4 GiB of log.
            let len = file.len().ok().filter(|len| *len <= 64 << 20)?;
            let mut bytes = vec![0; usize::try_from(len).ok()?];
            let got = read_full(file.as_ref(), &mut bytes, 0).ok()?;
            bytes.truncate(got);
            Some(bytes)
        };
        Index::decode(&read("index")?, &read("time")?, &self.log_id, self.base_offset).ok()
    }

    /// Writes the index files. They are never needed, so an error only costs time later.
    pub fn store_index(&self, index: Index) {
        let (offsets, times) = index.encode(&self.log_id, self.base_offset);
        for (extension, bytes) in [("index", offsets), ("time", times)] {
            let path = self.dir.join(file_name(self.base_offset, extension));
            let _ = self.io.unlink(&path);
            if let Ok(file) = self.io.open(&path, Open::Create) {
                let _ = write_full(file.as_ref(), &bytes, 0);
            }
        }
        *self.index.lock() = Some(index);
    }

    /// Reads all frames up to `limit`, verifying each.
    pub fn walk(&self, file: &Arc<dyn File>, limit: u64) -> Result<Walked> {
        match self.walk_until_damage(file, limit, u64::MAX)? {
            (walked, None) => Ok(walked),
            (walked, Some(what)) => Err(self.corrupt(walked.data_end, walked.end_offset, what)),
        }
    }

    /// Reads the frames of all offsets before `end_offset`, verifying each, whatever a failed write has left behind them.
    pub fn walk_to(&self, file: &Arc<dyn File>, limit: u64, end_offset: u64) -> Result<Walked> {
        let (walked, damage) = self.walk_until_damage(file, limit, end_offset)?;
        if walked.end_offset == end_offset {
            return Ok(walked);
        }
        let what = damage.unwrap_or(Corruption::LostDurable { durable_upto: end_offset });
        Err(self.corrupt(walked.data_end, walked.end_offset, what))
    }

    /// Reads frames up to `limit`, offset `until` or the first damage, and says what that is.
    fn walk_until_damage(
        &self,
        file: &Arc<dyn File>,
        limit: u64,
        until: u64,
    ) -> Result<(Walked, Option<Corruption>)> {
        let mut frames = self.frames(Arc::clone(file), HEAD_LEN as u64, limit)?.until(until);
        let mut head = [0; HEAD_LEN];
        read_full(file.as_ref(), &mut head, 0).map_err(self.failed("read"))?;
        let mut hash = Xxh3::new();
        hash.update(&head);
        let mut walked = Walked {
            end_offset: self.base_offset,
            count: 0,
            data_end: HEAD_LEN as u64,
            max_timestamp: i64::MIN,
            min_timestamp: i64::MAX,
            index: Index::default(),
            hash: [0; 16],
        };
        let damage = loop {
            let frame = match frames.peek().map_err(self.failed("read"))? {
                Step::Frame(frame) => frame,
                Step::End => break None,
                Step::Damaged(what) => break Some(what),
            };
            let position = frames.position();
            if let Err(what) = walked.add(frames.batch(frame), &frame, position) {
                break Some(what);
            }
            hash.update(frames.frame_bytes(&frame));
            frames.skip(&frame);
            walked.data_end = frames.position();
        };
        walked.hash = hash.digest128().to_le_bytes();
        Ok((walked, damage))
    }

    /// Seals the segment, all of whose frames, up to `data_end` where that is known, were synced: footer, length, sync,
    /// indexes.
    pub fn seal(
        &self,
        file: &Arc<dyn File>,
        end_offset: u64,
        data_end: Option<u64>,
        previous_hash: [u8; 16],
        now_ms: i64,
    ) -> Result<()> {
        let walked = self.walk_to(file, data_end.unwrap_or(u64::MAX), end_offset)?;
        if let Some(expected) = data_end.filter(|data_end| *data_end != walked.data_end) {
            let what = Corruption::Truncated { expected, found: walked.data_end };
            return Err(self.corrupt(walked.data_end, walked.end_offset, what));
        }
        self.write_footer(file.as_ref(), &walked, end_offset, previous_hash, now_ms)?;
        self.store_index(walked.index);
        Ok(())
    }

    /// Writes the footer for what was walked, and syncs.
    pub fn write_footer(
        &self,
        file: &dyn File,
        walked: &Walked,
        end_offset: u64,
        previous_hash: [u8; 16],
        now_ms: i64,
    ) -> Result<()> {
        let footer = Footer {
            epoch: self.head(file)?.epoch,
            log_id: self.log_id,
            base_offset: self.base_offset,
            end_offset,
            count: walked.count,
            data_end: walked.data_end,
            max_timestamp: walked.max_timestamp,
            min_timestamp: walked.min_timestamp,
            hash: walked.hash,
            sealed_at: now_ms,
            previous_hash,
        };
        let position = Footer::position(walked.data_end);
        #[expect(clippy::cast_possible_truncation, reason = "less than 512")]
        let mut bytes = vec![0; (position - walked.data_end) as usize];
        bytes.extend_from_slice(&footer.encode());
        file.set_len(position + FOOTER_LEN as u64)
            .and_then(|()| write_full(file, &bytes, walked.data_end))
            .and_then(|()| file.sync_data())
            .map_err(self.failed("seal"))?;
        let _ = self.footer.set(footer);
        Ok(())
    }
}

/// What the frames of a segment come to.
#[derive(Debug)]
pub(crate) struct Walked {
    pub end_offset: u64,
    pub count: u64,
    pub data_end: u64,
    pub max_timestamp: i64,
    pub min_timestamp: i64,
    pub index: Index,
    pub hash: [u8; 16],
}

impl Walked {
    fn add(
        &mut self,
        batch: Result<Batch<'_>, Corruption>,
        frame: &FrameHead,
        position: u64,
    ) -> Result<(), Corruption> {
        let batch = batch?;
        if batch.base_offset() < self.end_offset {
            return Err(Corruption::Offset {
                expected: self.end_offset,
                found: batch.base_offset(),
            });
        }
        for record in batch.records() {
            let timestamp = record?.timestamp;
            self.min_timestamp = self.min_timestamp.min(timestamp);
            self.max_timestamp = self.max_timestamp.max(timestamp);
        }
        self.index.note(frame.delta(), position, self.max_timestamp);
        self.count += u64::from(batch.count());
        self.end_offset = batch.last_offset() + 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
