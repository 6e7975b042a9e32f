//! The walk over one file.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::Item;
use crate::backup::catalogue::{self, Catalogue};
use crate::batch::{Batch, Scope};
use crate::checkpoint::{self, CheckpointHead};
use crate::error::{Corruption, Error};
use crate::frames::{Frames, Step};
use crate::index::{self, Entries, IndexFile};
use crate::io::{File, read_full};
use crate::layout::{
    self, FOOTER_LEN, Footer, HEAD_LEN, LIVE_LEN, Live, Manifest, OFFSET_END, SEGMENT_BYTES_MAX,
    SLOT_LEN, SegmentHead,
};
use crate::producers::{self, Producers};
use crate::resync::{Resync, frames_end};
use crate::writer::SPARE;
use crate::{journal, stats_page};

/// Index, producer and checkpoint files are read as a whole up to this size.
const WHOLE_MAX: u64 = 1 << 30;

/// Files that say little, and what they are for.
const PLAIN: [(&str, &str); 5] = [
    ("LOCK", "the lock of the store's writer, with the number of the latest writer's process"),
    ("ALIVE", "the lock by which readers learn whether a writer lives; nothing is written in it"),
    (journal::MARK, "the mark of a store that has a journal; it is empty"),
    (
        SPARE,
        "space that is kept back, so that a full disk can still be tidied up; its bytes say nothing",
    ),
    (stats_page::NAME, "what the writer last said of itself, for top and stats"),
];
/// How much is read at a time where zeros belong, which may be gigabytes of a hole.
const ZEROS_AT_ONCE: usize = 256 << 10;
/// How much is shown of the others, in bytes.
const TEXT_MAX: usize = 64 << 10;

pub(super) struct Dump<'f, E> {
    pub file: Arc<dyn File>,
    /// Of the file.
    pub name: &'f str,
    pub shown: PathBuf,
    pub len: u64,
    /// The first that was met.
    pub damage: Option<Error>,
    pub each: &'f mut dyn FnMut(Item<'_>) -> Result<(), E>,
}

impl<E: From<Error>> Dump<'_, E> {
    pub fn run(&mut self) -> Result<(), E> {
        let (first, second) = (self.magic(0)?, self.magic(SLOT_LEN as u64)?);
        match &first {
            layout::HEAD_MAGIC => self.segment(),
            layout::LIVE_MAGIC => self.live(),
            index::MAGIC => self.index(),
            producers::MAGIC => self.producers(),
            checkpoint::MAGIC => self.checkpoint(),
            // One slot of a manifest may be torn.
            first if [first, &second].contains(&layout::MANIFEST_MAGIC) => self.manifest(),
            first if catalogue::TITLE.as_bytes().starts_with(first) => self.backup(),
            _ => match PLAIN.iter().find(|(name, _)| *name == self.name) {
                Some((_, what)) => self.plain(what),
                None => Err(E::from(self.corrupt(0, 0, Corruption::Magic))),
            },
        }
    }

    fn backup(&mut self) -> Result<(), E> {
        let catalogue = match Catalogue::decode(&self.whole()?) {
            Ok(catalogue) => catalogue,
            Err(what) => return self.damaged(0, self.len, 0, what),
        };
        let logs = catalogue.logs.len() as u64;
        (self.each)(Item::Backup { taken_at: catalogue.taken_at, logs })?;
        for log in &catalogue.logs {
            (self.each)(Item::BackupLog {
                name: &log.name,
                log_id: log.log_id,
                epoch: log.epoch,
                start_offset: log.start_offset,
                end_offset: log.end_offset,
            })?;
            for copy in log.files() {
                let (name, bytes) = (&copy.name, copy.len);
                (self.each)(Item::BackupCopy {
                    name,
                    offset: copy.offset,
                    bytes,
                    hash: copy.hash,
                })?;
            }
        }
        Ok(())
    }

    fn plain(&mut self, what: &'static str) -> Result<(), E> {
        let mut bytes = vec![0; TEXT_MAX];
        let got = self.read(&mut bytes, 0)?;
        // A reservation is zeros.
        let text = std::str::from_utf8(&bytes[..got]).unwrap_or_default();
        let text = text.trim_end().trim_matches('\0');
        (self.each)(Item::Plain { what, bytes: self.len, text })
    }

    fn corrupt(&self, position: u64, offset: u64, what: Corruption) -> Error {
        Error::Corrupt { path: self.shown.clone(), position, offset, what }
    }

    fn read(&self, bytes: &mut [u8], position: u64) -> Result<usize, Error> {
        read_full(self.file.as_ref(), bytes, position)
            .map_err(|e| Error::io("read", &self.shown, e))
    }

    fn magic(&self, position: u64) -> Result<[u8; 8], Error> {
        let mut magic = [0; 8];
        self.read(&mut magic, position)?;
        Ok(magic)
    }

    fn whole(&self) -> Result<Vec<u8>, Error> {
        let too_long = || {
            let what = Corruption::Truncated { expected: WHOLE_MAX, found: self.len };
            self.corrupt(0, 0, what)
        };
        let len = usize::try_from(self.len.min(WHOLE_MAX + 1)).map_err(|_| too_long())?;
        let mut bytes = Vec::new();
        if self.len > WHOLE_MAX || bytes.try_reserve_exact(len).is_err() {
            return Err(too_long());
        }
        bytes.resize(len, 0);
        let got = self.read(&mut bytes, 0)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    fn damaged(&mut self, position: u64, end: u64, offset: u64, what: Corruption) -> Result<(), E> {
        if self.damage.is_none() {
            self.damage = Some(self.corrupt(position, offset, what.clone()));
        }
        (self.each)(Item::Damage { position, bytes: end.saturating_sub(position), offset, what })
    }

    fn segment(&mut self) -> Result<(), E> {
        let mut bytes = [0; HEAD_LEN];
        let got = self.read(&mut bytes, 0)?;
        let truncated = Corruption::Truncated { expected: HEAD_LEN as u64, found: got as u64 };
        let decoded = if got < HEAD_LEN { Err(truncated) } else { SegmentHead::decode(&bytes) };
        // Without its fields no frame can be verified.
        let head = decoded.map_err(|what| self.corrupt(0, 0, what))?;
        (self.each)(Item::SegmentHead(&head))?;
        let footer = self.footer(&head)?;
        // No segment goes further: what is written there is none of its records.
        let too_long = footer.is_none() && self.has_written_from(SEGMENT_BYTES_MAX)?;
        let (limit, end) = match &footer {
            Some(footer) => (footer.data_end, footer.data_end),
            None => {
                let limit = frames_end(self.file.as_ref());
                let end = if too_long { SEGMENT_BYTES_MAX } else { self.len };
                (limit.map_err(|e| Error::io("read", &self.shown, e))?, end)
            }
        };
        let scope = Scope::new(&head.log_id, head.epoch, head.base_offset, head.base_timestamp);
        self.frames(&scope, limit, end)?;
        if let Some(footer) = &footer {
            let position = Footer::position(footer.data_end);
            self.unused(footer.data_end..position, position, footer.end_offset)?;
            (self.each)(Item::Footer { position, footer })?;
        }
        if too_long {
            let what = Corruption::Truncated { expected: SEGMENT_BYTES_MAX, found: self.len };
            self.damaged(SEGMENT_BYTES_MAX, self.len, OFFSET_END, what)?;
        }
        Ok(())
    }

    fn has_written_from(&self, position: u64) -> Result<bool, Error> {
        let read = |e| Error::io("read", &self.shown, e);
        Ok(self.len > position && !self.file.written_from(position).map_err(read)?.is_empty())
    }

    /// The footer, if the file ends with one that belongs to `head`.
    fn footer(&self, head: &SegmentHead) -> Result<Option<Footer>, Error> {
        let Some(position) = self.len.checked_sub(FOOTER_LEN as u64) else { return Ok(None) };
        let mut bytes = [0; FOOTER_LEN];
        self.read(&mut bytes, position)?;
        let Ok(footer) = Footer::decode(&bytes) else { return Ok(None) };
        let own = footer.log_id == head.log_id
            && footer.base_offset == head.base_offset
            && footer.epoch == head.epoch
            && Footer::position(footer.data_end) == position;
        Ok(own.then_some(footer))
    }

    /// What follows the frames goes up to `end`; between `limit` and that, nothing was ever written.
    fn frames(&mut self, scope: &Scope, limit: u64, end: u64) -> Result<(), E> {
        let file = Arc::clone(&self.file);
        let mut frames = Frames::new(Arc::clone(&file), scope.clone(), HEAD_LEN as u64, limit);
        let mut resync = Resync::new(&file, scope, limit);
        let mut next_offset = scope.base_offset;
        loop {
            let position = frames.position();
            let step = frames.peek().map_err(|e| Error::io("read", &self.shown, e))?;
            let what = match step {
                Step::Frame(head) => {
                    let bytes = head.frame_len() as u64;
                    let decoded = match frames.batch(head) {
                        Ok(batch) => {
                            (self.each)(Item::Batch { position, bytes, batch })?;
                            next_offset = batch.last_offset() + 1;
                            self.records(&batch)?
                        }
                        Err(what) => Some(what),
                    };
                    frames.skip(&head);
                    if let Some(what) = decoded {
                        self.damaged(position, frames.position(), next_offset, what)?;
                    }
                    continue;
                }
                Step::End => None,
                Step::Damaged(what) => Some(what),
            };
            let found = resync.next(position + u64::from(what.is_some()));
            let found = found.map_err(|e| Error::io("read", &self.shown, e))?;
            let end = found.unwrap_or(end);
            match what {
                Some(what) => self.damaged(position, end, next_offset, what)?,
                None => self.unused(position..limit, end, next_offset)?,
            }
            match found {
                Some(at) => frames.seek(at),
                None => return Ok(()),
            }
        }
    }

    /// Tells of every record; what is wrong with the first that does not decode.
    fn records(&mut self, batch: &Batch<'_>) -> Result<Option<Corruption>, E> {
        for record in batch.records() {
            match record {
                Ok(record) => (self.each)(Item::Record(record))?,
                Err(what) => return Ok(Some(what)),
            }
        }
        Ok(None)
    }

    /// Bytes up to `end` that should be zero, of which only some have to be `read`.
    fn unused(&mut self, read: Range<u64>, end: u64, offset: u64) -> Result<(), E> {
        let mut buffer = vec![0; ZEROS_AT_ONCE];
        let from = read.start;
        let (mut position, read_end) = (from, read.end.min(end));
        while position < read_end {
            let want =
                usize::try_from(read_end - position).unwrap_or(buffer.len()).min(buffer.len());
            let got = self.read(&mut buffer[..want], position)?;
            if let Some(i) = buffer[..got].iter().position(|b| *b != 0) {
                let at = position + i as u64;
                if at > from {
                    (self.each)(Item::Unused { position: from, bytes: at - from })?;
                }
                let what = Corruption::Field("bytes where zeros belong");
                return self.damaged(at, end, offset, what);
            }
            if got == 0 {
                break;
            }
            position += got as u64;
        }
        if position == read_end {
            position = end;
        }
        match position.saturating_sub(from) {
            0 => Ok(()),
            bytes => (self.each)(Item::Unused { position: from, bytes }),
        }
    }

    fn manifest(&mut self) -> Result<(), E> {
        let mut bytes = [0; 2 * SLOT_LEN];
        let got = self.read(&mut bytes, 0)?;
        let (slots, _) = bytes.as_chunks::<SLOT_LEN>();
        let decoded: Vec<_> = slots.iter().map(Manifest::decode).collect();
        let current = decoded.iter().flatten().map(|slot| slot.generation).max();
        for (i, slot) in decoded.into_iter().enumerate() {
            let position = (i * SLOT_LEN) as u64;
            let end = position + SLOT_LEN as u64;
            match slot {
                Ok(slot) => (self.each)(Item::ManifestSlot {
                    position,
                    is_current: Some(slot.generation) == current,
                    slot: &slot,
                })?,
                Err(_) if (got as u64) < end => {
                    let what = Corruption::Truncated { expected: end, found: got as u64 };
                    self.damaged(position, end, 0, what)?;
                }
                Err(what) => self.damaged(position, end, 0, what)?,
            }
        }
        Ok(())
    }

    fn live(&mut self) -> Result<(), E> {
        let mut bytes = [0; LIVE_LEN];
        let got = self.read(&mut bytes, 0)?;
        let decoded = if got < LIVE_LEN {
            Err(Corruption::Truncated { expected: LIVE_LEN as u64, found: got as u64 })
        } else {
            Live::decode(&bytes)
        };
        match decoded {
            Ok(live) => (self.each)(Item::Live(&live)),
            Err(what) => self.damaged(0, self.len, 0, what),
        }
    }

    fn index(&mut self) -> Result<(), E> {
        let file = match IndexFile::decode(&self.whole()?) {
            Ok(file) => file,
            Err(what) => return self.damaged(0, self.len, 0, what),
        };
        let IndexFile { log_id, base_offset, entries } = file;
        let offset = |delta: u32| base_offset.saturating_add(u64::from(delta));
        match entries {
            Entries::Offsets(entries) => {
                let count = entries.len() as u64;
                (self.each)(Item::Index { is_time: false, log_id, base_offset, entries: count })?;
                for entry in entries {
                    let position = u64::from(entry.position);
                    (self.each)(Item::OffsetEntry { offset: offset(entry.delta), position })?;
                }
            }
            Entries::Times(entries) => {
                let count = entries.len() as u64;
                (self.each)(Item::Index { is_time: true, log_id, base_offset, entries: count })?;
                for entry in entries {
                    let max_timestamp = entry.max_timestamp;
                    (self.each)(Item::TimeEntry { offset: offset(entry.delta), max_timestamp })?;
                }
            }
        }
        Ok(())
    }

    fn producers(&mut self) -> Result<(), E> {
        let (log_id, offset, producers) = match Producers::decode_any(&self.whole()?) {
            Ok(decoded) => decoded,
            Err(what) => return self.damaged(0, self.len, 0, what),
        };
        (self.each)(Item::Producers { log_id, offset })?;
        for (id, batch) in producers.recent() {
            (self.each)(Item::Producer {
                id,
                epoch: batch.epoch,
                first_sequence: batch.first_sequence,
                last_sequence: batch.last_sequence,
                base_offset: batch.base_offset,
            })?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), E> {
        let bytes = self.whole()?;
        match CheckpointHead::decode(&bytes) {
            Ok((CheckpointHead { log_id, owner, reach }, state)) => {
                let bytes = state.len() as u64;
                (self.each)(Item::Checkpoint { log_id, owner, reach, bytes })
            }
            Err(what) => self.damaged(0, self.len, 0, what),
        }
    }
}
