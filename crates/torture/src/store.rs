//! The store under test: a log, or a journal whose hot part is one.

use std::sync::Arc;

use logmill_storage::io::Io;
use logmill_storage::{
    AppendOptions, Appended, Clock, DataDir, DataDirOptions, Durability, Entry, Error, Journal,
    Log, ManualClock, Part, Producer, Reach, Record, Ticket, Visibility,
};

use crate::op::Level;
use crate::oracle::{Slot, key, payload};
use crate::setup::Setup;

/// The id of the one idempotent producer.
pub const PRODUCER: i64 = 7;

/// An open store.
#[derive(Debug)]
pub struct Store {
    journal: Option<Journal>,
    log: Log,
    keyed: bool,
    dir: DataDir,
}

/// The log's level for one call.
pub const fn durability(level: Level) -> Durability {
    match level {
        Level::Sync => Durability::Sync,
        Level::Buffered => Durability::Buffered,
        Level::Interval => Durability::Interval(std::time::Duration::from_millis(200)),
    }
}

impl Store {
    /// Opens the store on `io` for writing, with no thread but the caller's.
    pub fn open(io: Arc<dyn Io>, setup: &Setup, clock: &Arc<ManualClock>) -> Result<Store, Error> {
        let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
        let dir = DataDirOptions::new().threads(0).clock(clock).open_with(io)?;
        Store::in_dir(dir, setup)
    }

    /// Opens the store on `io` as another process would that only reads.
    pub fn follow(
        io: Arc<dyn Io>,
        setup: &Setup,
        clock: &Arc<ManualClock>,
    ) -> Result<Store, Error> {
        let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
        let dir = DataDirOptions::new().threads(0).clock(clock).read_only(true).open_with(io)?;
        Store::in_dir(dir, setup)
    }

    fn in_dir(dir: DataDir, setup: &Setup) -> Result<Store, Error> {
        if setup.journal {
            let journal = Journal::open(&dir, "0", setup.config())?;
            let log = journal.part(Part::Hot).clone();
            Ok(Store { journal: Some(journal), log, keyed: false, dir })
        } else {
            let log = Log::open(&dir, "0", setup.config())?;
            Ok(Store { journal: None, log, keyed: setup.keyed, dir })
        }
    }

    /// The log, or the journal's hot part.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The journal, if it is one.
    pub const fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Whether records have keys, so that compaction may remove some.
    pub const fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// Does the background work that is due.
    pub fn tick(&self) {
        self.dir.tick();
    }

    /// Appends a batch and waits for its level.
    pub fn append(
        &self,
        slots: &[Slot],
        level: Level,
        first_sequence: Option<i32>,
    ) -> Result<Appended, Error> {
        let options = options(level, first_sequence);
        self.with_batch(
            slots,
            |records| self.log.append_with(records, &options),
            |journal, entries| journal.append(entries, &options),
        )
    }

    /// Appends a batch durably without waiting.
    pub fn submit(&self, slots: &[Slot], first_sequence: Option<i32>) -> Result<Ticket, Error> {
        let options = options(Level::Sync, first_sequence);
        self.with_batch(
            slots,
            |records| self.log.submit(records, &options),
            |journal, entries| journal.submit(entries, &options),
        )
    }

    fn with_batch<T>(
        &self,
        slots: &[Slot],
        to_log: impl FnOnce(&[Record<'_>]) -> Result<T, Error>,
        to_journal: impl FnOnce(&Journal, &[Entry<'_>]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let values: Vec<Vec<u8>> = slots.iter().map(|slot| payload(slot.id, slot.len)).collect();
        match &self.journal {
            None => {
                let keys: Vec<[u8; 1]> = slots.iter().map(|slot| [key(slot.id)]).collect();
                let record = |(value, key)| match self.keyed {
                    true => Record::value(value).key(key),
                    false => Record::value(value),
                };
                let records: Vec<Record<'_>> = values
                    .iter()
                    .map(Vec::as_slice)
                    .zip(keys.iter().map(<[u8; 1]>::as_slice))
                    .map(record)
                    .collect();
                to_log(&records)
            }
            Some(journal) => {
                let entries: Vec<Entry<'_>> = values
                    .iter()
                    .zip(slots)
                    .map(|(bytes, slot)| Entry { owner: slot.id, bytes })
                    .collect();
                to_journal(journal, &entries)
            }
        }
    }

    /// Tells `each` every stored record from the start on; returns the offset after the last one.
    pub fn visit(
        &self,
        visibility: Visibility,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<u64, String> {
        if let Some(journal) = &self.journal
            && visibility == Visibility::Stored
        {
            let mut end = self.log.start_offset();
            let mut wrong = Ok(());
            let replayed = journal.replay(Reach::default(), |entry| {
                let offset = entry.place.offset();
                if wrong.is_ok() {
                    wrong =
                        each(offset, entry.bytes).and_then(|()| owner(entry.owner, entry.bytes));
                }
                end = offset + 1;
                Ok(())
            });
            replayed.map_err(|e| format!("replaying: {e}"))?;
            return wrong.map(|()| end);
        }
        let reading = |e: Error| format!("reading: {e}");
        let mut reader =
            self.log.reader_with(self.log.start_offset(), visibility).map_err(reading)?;
        while let Some(batch) = reader.next_batch().map_err(reading)? {
            for record in batch.records() {
                let record = record.map_err(|what| format!("decoding: {what}"))?;
                each(record.offset, record.value.unwrap_or(&[]))?;
            }
        }
        Ok(reader.position())
    }

    /// Ends writing.
    pub fn close(self) -> Result<(), Error> {
        match self.journal {
            Some(journal) => journal.close(),
            None => self.log.close(),
        }
    }
}

fn owner(owner: u64, bytes: &[u8]) -> Result<(), String> {
    let named = bytes.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
    if named == Some(owner) {
        Ok(())
    } else {
        Err(format!("an entry of {named:?} came back with the owner {owner}"))
    }
}

fn options(level: Level, first_sequence: Option<i32>) -> AppendOptions {
    AppendOptions {
        durability: Some(durability(level)),
        producer: first_sequence.map(|sequence| Producer { id: PRODUCER, epoch: 0, sequence }),
        use_spare: false,
        wall_ms: None,
    }
}
