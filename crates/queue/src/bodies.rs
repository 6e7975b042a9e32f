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
            let mut entry = Bytes::new();
            let is_there = self.read_with(journal, *at, &mut kept, &mut entry)?;
            found.push(is_there.then_some(entry));
        }
        self.keep(kept);
        Ok(found)
    }

    /// Reads the entry at `at` into `entry`, if it is there still.
    #[inline]
    pub(crate) fn read_one(&self, journal: &Journal, at: u64, entry: &mut Bytes) -> Result<bool> {
        let mut kept = None;
        let is_there = self.read_with(journal, at, &mut kept, entry)?;
        self.keep(kept);
        Ok(is_there)
    }

    #[inline]
    fn read_with(
        &self,
        journal: &Journal,
        at: u64,
        kept: &mut Option<Box<Cursor>>,
        entry: &mut Bytes,
    ) -> Result<bool> {
        let place = location::place(at);
        let (part, offset) = (place.part(), place.offset());
        if kept.as_ref().is_some_and(|cursor| cursor.part != part) {
            self.keep(kept.take());
        }
        if kept.is_none() {
            *kept = self.take(part, offset);
        }
        if let Some(cursor) = kept
            && let Ok(true) = cursor.get(offset, entry)
        {
            return Ok(true);
        }
        // A reader that stood in a segment that is gone knows less than a new one.
        let read = Cursor::at(journal, part, offset)
            .and_then(|cursor| kept.insert(Box::new(cursor)).get(offset, entry));
        match read {
            // What was before the start is gone.
            Err(StorageError::OffsetOutOfRange { .. }) => Ok(false),
            read => Ok(read?),
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

impl Cursor {
    fn at(journal: &Journal, part: Part, offset: u64) -> Result<Cursor, StorageError> {
        let reader = journal.part(part).reader_with(offset, Visibility::Stored)?;
        Ok(Cursor { part, reader, ahead: VecDeque::new() })
    }

    fn is_near(&self, offset: u64) -> bool {
        let first = self.ahead.front().map_or(self.reader.position(), |(first, _)| *first);
        offset >= first && offset < self.reader.position() + NEAR
    }

    /// Reads the entry at `offset` into `entry`, if it is there. (What is handed out by value is moved once for each caller.)
    fn get(&mut self, offset: u64, entry: &mut Bytes) -> Result<bool, StorageError> {
        while let Some((next, bytes)) = self.ahead.pop_front_if(|(next, _)| *next <= offset) {
            if next == offset {
                *entry = bytes;
                return Ok(true);
            }
        }
        self.ahead.clear();
        self.reader.seek(offset)?;
        let Some(batch) = self.reader.next_batch()? else { return Ok(false) };
        let undecoded = |what| StorageError::Corrupt {
            path: std::path::PathBuf::from("journal"),
            position: 0,
            offset: batch.base_offset(),
            what,
        };
        let mut records = batch.records();
        let found = match records.next() {
            Some(Ok(record)) if record.offset == offset => record.value,
            Some(Err(what)) => return Err(undecoded(what)),
            _ => None,
        };
        let Some(found) = found else { return Ok(false) };
        let mut kept = 0;
        for record in records {
            let record = record.map_err(undecoded)?;
            let Some(value) = record.value.filter(|_| kept <= AHEAD_BYTES) else { break };
            kept += value.len();
            self.ahead.push_back((record.offset, Bytes::copy_from_slice(value)));
        }
        *entry = Bytes::copy_from_slice(found);
        Ok(true)
    }
}
