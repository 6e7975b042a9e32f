//! Reading entries back from the journal: a few readers, each of which goes on from where it stands and keeps what else
//! came with the batch that it had to read.

use std::collections::VecDeque;

use bytes::Bytes;
use logmill_storage::{Error as StorageError, Journal, Part, Reader, Visibility};
use parking_lot::{Mutex, MutexGuard};

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

/// The readers of a store's queues. Who reads holds one of the locks meanwhile, and nobody waits for one.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    cursors: [Mutex<Option<Cursor>>; READERS],
}

type Held<'a> = MutexGuard<'a, Option<Cursor>>;

impl Bodies {
    /// The bytes of the entries at `wanted`; `None` for those that are not there any more. Cost: entries that lie close
    /// behind each other, or that were stored in one batch, are read once.
    pub(crate) fn read(&self, journal: &Journal, wanted: &[u64]) -> Result<Vec<Option<Bytes>>> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut held = None;
        for at in wanted {
            found.push(self.read_with(journal, *at, &mut held)?);
        }
        Ok(found)
    }

    /// As [`read`](Self::read), of one entry.
    #[inline]
    pub(crate) fn read_one(&self, journal: &Journal, at: u64) -> Result<Option<Bytes>> {
        self.read_with(journal, at, &mut None)
    }

    fn read_with<'a>(
        &'a self,
        journal: &Journal,
        at: u64,
        held: &mut Option<Held<'a>>,
    ) -> Result<Option<Bytes>> {
        let place = location::place(at);
        let (part, offset) = (place.part(), place.offset());
        held.take_if(|held| held.as_ref().is_some_and(|cursor| cursor.part != part));
        if held.is_none() {
            *held = self.take(part, offset);
        }
        if let Some(cursor) = held.as_mut().and_then(|held| held.as_mut())
            && let Ok(Some(entry)) = cursor.get(offset)
        {
            return Ok(Some(entry));
        }
        // A reader that stood in a segment that is gone knows less than a new one.
        let Some(mut cursor) = gone(Cursor::at(journal, part, offset))? else { return Ok(None) };
        let found = gone(cursor.get(offset))?.flatten();
        if let Some(held) = held {
            **held = Some(cursor);
        }
        Ok(found)
    }

    /// The place of a cursor that stands at or shortly before `offset`, of one to be, or of any of that part; `None` if all are
    /// in use.
    fn take(&self, part: Part, offset: u64) -> Option<Held<'_>> {
        let is_near = |cursor: &Cursor| cursor.part == part && cursor.is_near(offset);
        let found = |wanted: &dyn Fn(&Option<Cursor>) -> bool| {
            let free = self.cursors.iter().filter_map(Mutex::try_lock);
            free.into_iter().find(|held| wanted(held))
        };
        found(&|cursor| cursor.as_ref().is_some_and(is_near))
            .or_else(|| found(&Option::is_none))
            .or_else(|| found(&|cursor| cursor.as_ref().is_some_and(|cursor| cursor.part == part)))
            .or_else(|| found(&|_| true))
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
