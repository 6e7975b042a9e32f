//! Reads a log from an offset on, as far as the high watermark, and goes on as it moves.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Batch, FrameHead, RecordBuf};
use crate::behind::{self, Run};
use crate::config::Visibility;
use crate::error::{Corruption, Error, Result};
use crate::frames::{Frames, Step};
use crate::io::Open;
use crate::layout::HEAD_LEN;
use crate::segment::Segment;
use crate::view::View;

/// A place in a log, and a buffer.
///
/// It reads on in a segment that retention has removed meanwhile; after that it gets [`Error::OffsetOutOfRange`].
#[derive(Debug)]
pub struct Reader {
    view: Arc<View>,
    visibility: Visibility,
    /// The next offset to hand out is at least this.
    next: u64,
    place: Option<Place>,
    /// The batch that ends at `next`, if it was handed out.
    taken: Option<Taken>,
}

#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    frames: Frames,
    /// The base offset of the following segment, once there is one, or where the footer says that this one ends: then no more
    /// is appended to it.
    until: Option<u64>,
    /// The high watermark when the buffer was filled, or where the segment ends if that is less: bytes of later offsets may
    /// have changed since.
    filled: u64,
    /// The log's epoch and durable offset at that time or before.
    epoch: u32,
    durable: u64,
    /// One past the frames that are known to lie before the position.
    passed: u64,
    /// The position of damage, and what there is behind it.
    behind: Option<(u64, Vec<Run>)>,
}

/// What was known of the log when a batch was read.
#[derive(Clone, Copy, Debug)]
struct Taken {
    epoch: u32,
    durable: u64,
}

/// What the next batch is, before it is borrowed.
enum Next {
    Batch(FrameHead),
    None,
}

impl Reader {
    pub(crate) const fn unplaced(view: Arc<View>, visibility: Visibility) -> Reader {
        Reader { view, visibility, next: 0, place: None, taken: None }
    }

    pub(crate) fn new(view: Arc<View>, visibility: Visibility, from: u64) -> Result<Reader> {
        let mut reader = Reader::unplaced(view, visibility);
        reader.seek(from)?;
        Ok(reader)
    }

    /// The offset that comes next: one past the last batch, or where it was sent.
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// One past the last offset that this reader can get now.
    pub fn high_watermark(&self) -> u64 {
        self.view.high_watermark(self.visibility)
    }

    /// Goes to `offset`, from the log's start offset to its high watermark inclusive.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`].
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        if offset < self.view.start() || offset > self.high_watermark() {
            return Err(self.view.out_of_range(offset, self.visibility));
        }
        // Close ahead in the same segment, reading on beats looking up.
        let near = offset >= self.next
            && offset - self.next < 64
            && self
                .place
                .as_ref()
                .is_some_and(|place| place.until.is_none_or(|until| offset < until));
        self.next = offset;
        self.taken = None;
        self.place.take_if(|place| place.epoch != self.view.epoch());
        if !near {
            self.place = match self.place.take() {
                Some(mut place) if place.covers(offset) => {
                    place.go_to(offset)?;
                    Some(place)
                }
                _ => None,
            };
        }
        Ok(())
    }

    /// The next batch; `None` at the high watermark. Its records begin at the reader's position even if it lies in the
    /// middle of the batch. Checksums are verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: nothing was skipped; the next call meets the same. [`Error::OffsetOutOfRange`]: retention has
    /// removed what comes next, or (for a log of another process) the batch that was read last was not durable and is not
    /// in the log any more; [`seek`](Self::seek) to a place of your choice. [`Error::Io`].
    /// # Cost
    /// One read of up to 256 KiB now and then; no allocation for each batch unless it is compressed.
    #[inline]
    pub fn next_batch(&mut self) -> Result<Option<Batch<'_>>> {
        let Next::Batch(head) = self.find_next()? else { return Ok(None) };
        let from = self.next;
        let Some(place) = self.place.as_mut() else { return Ok(None) };
        let position = place.frames.position();
        // A batch that does not decode keeps the place, so that the next call meets it again.
        match place.frames.take(head) {
            Ok(batch) => {
                self.next = batch.last_offset() + 1;
                place.passed = self.next;
                self.taken = Some(Taken { epoch: place.epoch, durable: place.durable });
                Ok(Some(batch.starting_at(from)))
            }
            Err(what) => Err(place.segment.corrupt(position, from, what)),
        }
    }

    /// As [`next_batch`](Self::next_batch), and waits for one if there is none: until `timeout` has passed.
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch).
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<Batch<'_>>> {
        self.view.wait_for(self.next, self.visibility, timeout)?;
        self.next_batch()
    }

    /// Calls `each` with every record up to the high watermark as it is now.
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch), and what `each` returns.
    pub fn for_each<E: From<Error>>(
        &mut self,
        mut each: impl FnMut(crate::record::RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.high_watermark();
        while self.next < end {
            let shown = self.view.shown();
            let Some(batch) = self.next_batch()? else { break };
            for record in batch.records() {
                let record = record.map_err(|what| Error::Corrupt {
                    path: shown.clone(),
                    position: 0,
                    offset: batch.base_offset(),
                    what,
                })?;
                each(record)?;
            }
        }
        if self.next >= end { Ok(self.view.check_end(self.next)?) } else { Ok(()) }
    }

    /// The record at exactly `offset`, if it is still there.
    pub(crate) fn get(&mut self, offset: u64) -> Result<Option<RecordBuf>> {
        self.seek(offset)?;
        let shown = self.view.shown();
        let Some(batch) = self.next_batch()? else { return Ok(None) };
        match batch.records().next() {
            Some(Ok(record)) if record.offset == offset => Ok(Some(RecordBuf::from(record))),
            Some(Err(what)) => {
                Err(Error::Corrupt { path: shown, position: 0, offset: batch.base_offset(), what })
            }
            _ => Ok(None),
        }
    }

    /// Lets go of a segment that was removed, so that its space can be given back.
    pub(crate) fn leave_removed(&mut self) {
        self.place.take_if(|place| place.is_removed(&self.view));
    }

    #[inline]
    fn find_next(&mut self) -> Result<Next> {
        let mut end = self.high_watermark();
        if self.next >= end {
            match &self.view.follower {
                None => {
                    self.view.hand_over.want();
                    return Ok(Next::None);
                }
                Some(follower) => {
                    follower.refresh(&self.view)?;
                    end = self.high_watermark();
                    if self.next >= end {
                        follower.check_end(self.next)?;
                        return self.meet_new_epoch().map(|_| Next::None);
                    }
                }
            }
        }
        loop {
            let next = self.next;
            if self.place.is_none() {
                self.place = Some(Place::find(&self.view, next, end)?);
                if self.is_of_earlier_epoch() {
                    end = self.meet_new_epoch()?;
                    if next >= end {
                        return Ok(Next::None);
                    }
                    continue;
                }
            }
            let Some(place) = self.place.as_mut() else { return Ok(Next::None) };
            if next >= place.filled {
                if place.epoch != self.view.epoch() {
                    end = self.meet_new_epoch()?;
                    if next >= end {
                        return Ok(Next::None);
                    }
                    continue;
                }
                if !place.look_anew(&self.view, next, end)? {
                    self.place = None;
                    continue;
                }
            }
            let step = place.frames.peek().map_err(place.segment.failed("read"))?;
            match step {
                Step::Frame(head) => {
                    let base_offset = place.segment.base_offset() + u64::from(head.delta());
                    if base_offset >= next {
                        if base_offset > next {
                            place.check_gap(next, base_offset)?;
                            if let Some(until) = place.until.filter(|until| base_offset >= *until) {
                                self.next = until;
                                self.place = None;
                                if until >= end {
                                    return Ok(Next::None);
                                }
                                continue;
                            }
                        }
                        // A gap left by compaction may reach over the high watermark.
                        return Ok(if base_offset < end { Next::Batch(head) } else { Next::None });
                    }
                    let position = place.frames.position();
                    let batch = place.frames.batch(head);
                    match batch.map(|batch| batch.last_offset()) {
                        Ok(last) if last >= next => return Ok(Next::Batch(head)),
                        Ok(last) => {
                            place.passed = last + 1;
                            place.frames.skip(&head);
                        }
                        Err(what) => return Err(place.segment.corrupt(position, next, what)),
                    }
                }
                Step::Damaged(_) | Step::End if place.passes_damage(next, end)? => {}
                end_of_segment => {
                    if let Some(follower) = &self.view.follower {
                        // The next writer may have cut the file here.
                        follower.refresh(&self.view)?;
                        if self.is_of_earlier_epoch() {
                            end = self.meet_new_epoch()?;
                            if next >= end {
                                return Ok(Next::None);
                            }
                            continue;
                        }
                    }
                    if !self.leave(end_of_segment, end)? {
                        return Ok(Next::None);
                    }
                }
            }
        }
    }

    /// Whether the batch that was read last was read under an earlier writer.
    fn is_of_earlier_epoch(&self) -> bool {
        self.taken.is_some_and(|taken| taken.epoch != self.view.epoch())
    }

    /// If the log has a new writer: what was not durable under the earlier one may have been lost by a failed sync and
    /// written anew, and then what comes next does not follow what was read. Returns the high watermark.
    #[cold]
    fn meet_new_epoch(&mut self) -> Result<u64> {
        let (epoch, end) = (self.view.epoch(), self.high_watermark());
        self.place.take_if(|place| place.epoch != epoch);
        let Some(taken) = self.taken.filter(|taken| taken.epoch != epoch) else { return Ok(end) };
        if self.next <= taken.durable {
            self.taken = Some(Taken { epoch, ..taken });
            return Ok(end);
        }
        // Compaction may have changed or removed the batch itself, which is no loss.
        let kept = match &self.view.follower {
            Some(follower) => follower.end_of_epoch(&self.view, taken.epoch)?,
            None => None,
        };
        if kept.is_some_and(|kept| self.next <= kept.min(end)) {
            self.taken = Some(Taken { epoch, ..taken });
            return Ok(end);
        }
        // The next call meets the same, as nothing was taken since.
        self.place = None;
        let (offset, start) = (self.next, self.view.start());
        Err(Error::OffsetOutOfRange { offset, start, end: kept.unwrap_or(start).min(end) })
    }

    /// There is no frame at the place: goes to the next segment, or says what is wrong. `false`: nothing more to read.
    #[cold]
    fn leave(&mut self, step: Step, end: u64) -> Result<bool> {
        let Some(place) = self.place.as_mut() else { return Ok(true) };
        let (position, next) = (place.frames.position(), self.next);
        let at_data_end = place.at_data_end()?;
        let until = place.find_end(&self.view)?;
        if at_data_end
            && let (Some(found), Some(footer)) =
                (until, place.segment.footer(place.frames.file().as_ref())?)
            && footer.end_offset < found
        {
            if self.view.follower.is_some() {
                // What was in between may have been merged into a segment before this one.
                self.next = next.max(footer.end_offset);
                self.place = None;
                return Ok(self.next < end);
            }
            let what = Corruption::Gap { expected: footer.end_offset, found };
            return Err(place.segment.corrupt(position, footer.end_offset, what));
        }
        if until.is_none() && place.is_removed(&self.view) {
            // It ended unsealed: what comes next is in another segment, or below the log's start.
            self.place = None;
            return Ok(true);
        }
        match (step, until) {
            // Whatever follows the data of a segment that has a successor is no business of a reader.
            (Step::End, Some(until)) | (Step::Damaged(_), Some(until))
                if until > place.segment.base_offset() && (next >= until || at_data_end) =>
            {
                let next = next.max(until);
                if next < end && !place.is_left_for(&self.view, next)? {
                    return Err(self.missing(position, next, end));
                }
                self.next = next;
                self.place = None;
                Ok(next < end)
            }
            (Step::Damaged(what), _) => Err(place.segment.corrupt(position, next, what)),
            _ => Err(self.missing(position, next, end)),
        }
    }

    /// What to say where there is nothing at `next`, though the log reaches to `end`.
    fn missing(&self, position: u64, next: u64, end: u64) -> Error {
        let (start, noted) = (self.view.start(), self.view.noted_durable());
        match &self.place {
            Some(place) if self.view.follower.is_none() || next < noted => {
                let what = Corruption::LostDurable { durable_upto: end };
                place.segment.corrupt(position, next, what)
            }
            // It was stored and never durable. The next writer has cut it off, and not said yet where the log ends now.
            _ => Error::OffsetOutOfRange { offset: next, start, end: noted },
        }
    }
}

impl Place {
    /// Only compaction leaves gaps.
    #[cold]
    fn check_gap(&self, expected: u64, found: u64) -> Result<()> {
        // Its file may have been replaced since another look at its head.
        if self.segment.unread().head(self.frames.file().as_ref())?.generation > 0 {
            return Ok(());
        }
        let what = Corruption::Offset { expected, found };
        Err(self.segment.corrupt(self.frames.position(), expected, what))
    }

    fn find(view: &View, offset: u64, filled: u64) -> Result<Place> {
        // Looked at before the files: what is found may be newer, and is then looked at once more.
        let (epoch, durable) = (view.epoch(), view.noted_durable());
        let out_of_range = || Error::OffsetOutOfRange { offset, start: view.start(), end: filled };
        let found = match &view.follower {
            Some(follower) => follower.find(view, offset)?,
            None => match view.segment_for(offset) {
                Some((segment, until)) => match segment.open(Open::Read) {
                    Ok(file) => Some((segment, until, file)),
                    // Removed between looking and opening.
                    Err(Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound
                            && view.start() > offset =>
                    {
                        None
                    }
                    Err(e) => return Err(e),
                },
                None => None,
            },
        };
        let (segment, until, file) = found.ok_or_else(out_of_range)?;
        let footer = segment.footer(file.as_ref())?;
        let limit = footer.map_or(u64::MAX, |footer| footer.data_end);
        // Where a footer says that a segment ends, it ends, whatever frames there are behind.
        let end = footer.map(|footer| footer.end_offset);
        let until = until.or(end).filter(|until| *until > offset);
        let filled = until.map_or(filled, |until| filled.min(until));
        let frames_end = end.or(until).unwrap_or(u64::MAX);
        let frames = segment.frames(file, HEAD_LEN as u64, limit)?.until(frames_end);
        let passed = segment.base_offset();
        let mut place =
            Place { segment, frames, until, filled, epoch, durable, passed, behind: None };
        if offset > place.segment.base_offset() {
            place.go_to(offset)?;
        }
        Ok(place)
    }

    /// Forgets what was read before the log came to `end`; `false` if `next` is in another segment.
    #[cold]
    fn look_anew(&mut self, view: &View, next: u64, end: u64) -> Result<bool> {
        // Then all before `end`, which was asked for before this, is in it.
        let is_active = self.segment.is_active();
        if !is_active {
            self.until = self.find_end(view)?;
        }
        if !self.covers(next) {
            return Ok(false);
        }
        let (segment, position) = (self.segment.base_offset(), self.frames.position());
        let buffer = self.frames.forget();
        if is_active {
            view.hand_over.take(segment, position, buffer);
        }
        self.filled = self.until.map_or(end, |until| end.min(until));
        self.durable = view.noted_durable();
        Ok(true)
    }

    /// Where the segment ends, once that is settled, whatever a failed write has left behind.
    fn find_end(&self, view: &View) -> Result<Option<u64>> {
        if self.until.is_some() {
            return Ok(self.until);
        }
        // Looked at before the footer: what was merged with others by then had one.
        let next = view.segment_for(self.segment.base_offset()).and_then(|(_, until)| until);
        let footer = self.segment.footer(self.frames.file().as_ref())?;
        Ok(footer.map(|footer| footer.end_offset).or(next))
    }

    /// Whether the log begins behind it.
    fn is_removed(&self, view: &View) -> bool {
        view.first_segment().is_none_or(|first| first > self.segment.base_offset())
    }

    /// Whether another file than this one is where `offset` should be.
    fn is_left_for(&self, view: &View, offset: u64) -> Result<bool> {
        let Some((found, _)) = view.segment_for(offset) else { return Ok(true) };
        if found.base_offset() != self.segment.base_offset() {
            return Ok(true);
        }
        if Arc::ptr_eq(&found, &self.segment) {
            return Ok(false);
        }
        let generation = self.segment.head(self.frames.file().as_ref())?.generation;
        let found = found.unread();
        let file = found.open(Open::Read)?;
        Ok(found.head(file.as_ref())?.generation != generation)
    }

    /// Goes on behind damaged frames, or zeros in their place, that hold nothing from `next` on, in a log that ends at `end`.
    /// Who has just read what comes before them meets them.
    #[cold]
    fn passes_damage(&mut self, next: u64, end: u64) -> Result<bool> {
        let end = self.until.map_or(end, |until| end.min(until));
        if next <= self.passed || next >= end {
            return Ok(false);
        }
        let delta = next - self.segment.base_offset();
        if self.frames.pass_damage(delta).map_err(self.segment.failed("read"))? {
            return Ok(true);
        }
        // A damaged head does not say where its frame ends.
        let damaged = self.frames.position();
        let file = self.frames.file();
        let runs = match self.behind.take() {
            Some((at, runs)) if at == damaged => runs,
            _ => {
                let limit = self.limit()?;
                self.segment.behind(file, damaged, limit, self.passed..end)?
            }
        };
        let begin = behind::begin(&runs, next);
        self.behind = Some((damaged, runs));
        let Some(position) = begin else { return Ok(false) };
        self.frames.seek(position);
        Ok(true)
    }

    /// Where the frames of the segment end.
    fn limit(&self) -> Result<u64> {
        let footer = self.segment.footer(self.frames.file().as_ref())?;
        Ok(footer.map_or(u64::MAX, |footer| footer.data_end))
    }

    fn covers(&self, offset: u64) -> bool {
        offset >= self.segment.base_offset() && self.until.is_none_or(|until| offset < until)
    }

    fn go_to(&mut self, offset: u64) -> Result<()> {
        let limit = self.limit()?;
        self.passed = self.segment.base_offset();
        self.segment.seek(&mut self.frames, offset, limit, self.filled)
    }

    /// Whether the place is after the last frame of a sealed segment.
    fn at_data_end(&self) -> Result<bool> {
        let footer = self.segment.footer(self.frames.file().as_ref())?;
        Ok(footer.is_some_and(|footer| self.frames.position() >= footer.data_end))
    }
}
