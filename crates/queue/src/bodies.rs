//! Reading entries back from the journal: a few readers, each of which goes on from where it stands and keeps what else
//! came with the batch that it had to read.

use std::collections::VecDeque;

use bytes::Bytes;
use logmill_storage::{Error as StorageError, Journal, Part, Reader, Visibility};
use parking_lot::Mutex;

use crate::error::Result;
use crate::location;

/// Readers that are kept.
const READERS: usize = 8;
/// A reader goes on from where it stands if what is wanted is fewer entries ahead.
const NEAR: u64 = 256;
/// What a reader keeps of a batch beyond what was asked for.
const AHEAD_BYTES: usize = 128 << 10;

/// A place in a part of the journal, and what comes next there.
#[derive(Debug)]
struct Cursor {
    part: Part,
    reader: Reader,
    ahead: VecDeque<(u64, Bytes)>,
}

/// The readers of a store's queues.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    #[expect(
        clippy::vec_box,
        reason = "each call takes one and brings it back, and they are large"
    )]
    cursors: Mutex<Vec<Box<Cursor>>>,
}

impl Bodies {
    /// The bytes of the entries at `wanted`; `None` for those that are not there any more. Cost: entries that lie close
    /// behind each other, or that were stored in one batch, are read once.
    pub(crate) fn read(&self, journal: &Journal, wanted: &[u64]) -> Result<Vec<Option<Bytes>>> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut kept = None;
        for at in wanted {
            found.push(self.read_with(journal, *at, &mut kept)?);
        }
        self.keep(kept);
        Ok(found)
    }

    /// As [`read`](Self::read), of one entry.
    pub(crate) fn read_one(&self, journal: &Journal, at: u64) -> Result<Option<Bytes>> {
        let mut kept = None;
        let found = self.read_with(journal, at, &mut kept)?;
        self.keep(kept);
        Ok(found)
    }

    fn read_with(
        &self,
        journal: &Journal,
        at: u64,
        kept: &mut Option<Box<Cursor>>,
    ) -> Result<Option<Bytes>> {
        let place = location::place(at);
        let (part, offset) = (place.part(), place.offset());
        if kept.as_ref().is_some_and(|cursor| cursor.part != part) {
            self.keep(kept.take());
        }
        if kept.is_none() {
            *kept = self.take(part, offset);
        }
        if let Some(cursor) = kept
            && let Ok(Some(entry)) = cursor.get(offset)
        {
            return Ok(Some(entry));
        }
        // A reader that stood in a segment that is gone knows less than a new one.
        match Cursor::at(journal, part, offset) {
            Ok(cursor) => Ok(gone(kept.insert(Box::new(cursor)).get(offset))?.flatten()),
            other => Ok(gone(other)?.and(None)),
        }
    }

    /// A cursor that stands at or shortly before `offset`, or, if there are many, any of that part.
    fn take(&self, part: Part, offset: u64) -> Option<Box<Cursor>> {
        let mut cursors = self.cursors.lock();
        let full = cursors.len() == READERS;
        let near = cursors.iter().rposition(|cursor| cursor.part == part && cursor.is_near(offset));
        let index =
            near.or_else(|| cursors.iter().position(|cursor| full && cursor.part == part))?;
        Some(cursors.swap_remove(index))
    }

    fn keep(&self, cursor: Option<Box<Cursor>>) {
        let Some(cursor) = cursor else { return };
        let mut cursors = self.cursors.lock();
        if cursors.len() == READERS {
            cursors.remove(0);
        }
        cursors.push(cursor);
    }
}

/// An offset before the start is not an error here: what was there is gone.
fn gone<T>(result: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StorageError::OffsetOutOfRange { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Cursor {
    fn at(journal: &Journal, part: Part, offset: u64) -> Result<Cursor, StorageError> {
        let reader = journal.part(part).reader_with(offset, Visibility::Stored)?;
        Ok(Cursor { part, reader, ahead: VecDeque::new() })
    }

    fn is_near(&self, offset: u64) -> bool {
        let first = self.ahead.front().map_or(self.reader.position(), |(first, _)| *first);
        offset >= first && offset < self.reader.position() + NEAR
    }

    fn get(&mut self, offset: u64) -> Result<Option<Bytes>, StorageError> {
        while let Some((next, _)) = self.ahead.front().filter(|(next, _)| *next <= offset) {
            let is_it = *next == offset;
            let entry = self.ahead.pop_front();
            if is_it {
                return Ok(entry.map(|(_, bytes)| bytes));
            }
        }
        self.ahead.clear();
        self.reader.seek(offset)?;
        let Some(batch) = self.reader.next_batch()? else { return Ok(None) };
        let base_offset = batch.base_offset();
        let (mut found, mut kept) = (None, 0);
        for record in batch.records() {
            let record = record.map_err(|what| StorageError::Corrupt {
                path: std::path::PathBuf::from("journal"),
                position: 0,
                offset: base_offset,
                what,
            })?;
            let Some(value) = record.value else { continue };
            if record.offset == offset {
                found = Some(Bytes::copy_from_slice(value));
            } else if found.is_none() || kept > AHEAD_BYTES {
                break;
            } else {
                kept += value.len();
                self.ahead.push_back((record.offset, Bytes::copy_from_slice(value)));
            }
        }
        Ok(found)
    }
}
