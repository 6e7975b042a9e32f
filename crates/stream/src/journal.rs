//! The store's journal as a plain log of entries: one record for each, its key the owner's number.

use logmill_storage::{AppendOptions, DataDir, Log, LogConfig, Record, Result, Ticket};

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct JournalEntry<'a> {
    /// Whose entry it is.
    pub owner: u64,
    /// What it says.
    pub bytes: &'a [u8],
}

/// A log of entries.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: DataDir,
    name: String,
    log: std::sync::Arc<std::sync::OnceLock<Log>>,
    config: LogConfig,
}

impl Journal {
    /// Opens the journal `name` in `dir`. In a directory that is open for reading it may not be there yet.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(dir: &DataDir, name: &str, config: LogConfig) -> Result<Journal> {
        let journal =
            Journal { dir: dir.clone(), name: name.into(), log: std::sync::Arc::default(), config };
        if !dir.is_read_only() {
            journal.log()?;
        }
        Ok(journal)
    }

    fn log(&self) -> Result<&Log> {
        if let Some(log) = self.log.get() {
            return Ok(log);
        }
        let log = Log::open(&self.dir, &self.name, self.config.clone())?;
        Ok(self.log.get_or_init(|| log))
    }

    /// Appends entries, all or none.
    ///
    /// # Errors
    /// As [`Log::submit`].
    pub fn submit(&self, entries: &[JournalEntry<'_>], options: &AppendOptions) -> Result<Ticket> {
        let owners: Vec<[u8; 8]> = entries.iter().map(|entry| entry.owner.to_le_bytes()).collect();
        let records: Vec<_> = entries
            .iter()
            .zip(&owners)
            .map(|(entry, owner)| Record::value(entry.bytes).key(owner))
            .collect();
        self.log()?.submit(&records, options)
    }

    /// Calls `apply` with the offset, owner and bytes of each entry from offset `from` on.
    ///
    /// # Errors
    /// As [`Log::reader`], and what `apply` returns.
    pub fn replay(
        &self,
        from: u64,
        mut apply: impl FnMut(u64, u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let log = match self.log() {
            Ok(log) => log,
            Err(logmill_storage::Error::Io { source, .. })
                if self.dir.is_read_only() && source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        log.refresh()?;
        let mut reader = log.reader(from)?;
        while let Some(batch) = reader.next_batch()? {
            for record in batch.records() {
                let record = record.map_err(|what| logmill_storage::Error::Corrupt {
                    path: self.dir.path().join(&self.name),
                    position: 0,
                    offset: batch.base_offset(),
                    what,
                })?;
                let owner = record
                    .key
                    .and_then(|key| key.try_into().ok())
                    .map_or(u64::MAX, u64::from_le_bytes);
                apply(record.offset, owner, record.value.unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// Makes everything durable and closes the log.
    ///
    /// # Errors
    /// As [`Log::close`].
    pub fn close(self) -> Result<()> {
        match self.log.get() {
            Some(log) => log.clone().close(),
            None => Ok(()),
        }
    }
}
