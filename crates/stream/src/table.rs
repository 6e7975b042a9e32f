//! The latest value of each key of a topic, as a compacted topic means it.

use std::collections::HashMap;

use logmill_storage::RecordBuf;

use crate::consumer::damaged;
use crate::error::{Error, Result};
use crate::partition::{Partition, PartitionReader};
use crate::partition_for_key;
use crate::topic::Topic;

/// Finds the latest record of a key. Made by [`Topic::table`].
///
/// It keeps every key and the place of its latest record in memory, not the values. What was appended since is read
/// when it is asked.
#[derive(Debug)]
pub struct Table {
    topic: Topic,
    partitions: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    partition: Partition,
    reader: PartitionReader,
    latest: HashMap<Box<[u8]>, u64>,
}

impl Topic {
    /// Reads the topic once and remembers where the latest record of each key is.
    ///
    /// # Errors
    /// [`Error::Storage`].
    /// # Cost
    /// One pass over all records; memory for all keys.
    pub fn table(&self) -> Result<Table> {
        let mut table = Table { topic: self.clone(), partitions: Vec::new() };
        table.refresh()?;
        Ok(table)
    }
}

impl Table {
    /// Reads what was appended since the last time.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn refresh(&mut self) -> Result<()> {
        let known = self.partitions.len();
        for partition in self.topic.partitions().into_iter().skip(known) {
            let reader = partition.reader(partition.start_offset()?)?;
            self.partitions.push(Part { partition, reader, latest: HashMap::new() });
        }
        self.partitions.iter_mut().try_for_each(Part::refresh)
    }

    /// The latest record of `key`; `None` if it has none or was deleted by a tombstone. Looks in the partition that the
    /// key goes to now, and, since that changes when partitions are added, in the others if it finds nothing there.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<RecordBuf>> {
        self.refresh()?;
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let home = partition_for_key(key, count.max(1)) as usize;
        let others = (0..self.partitions.len()).filter(|index| *index != home);
        for index in std::iter::once(home).chain(others) {
            let Some(part) = self.partitions.get_mut(index) else { continue };
            if let Some(record) = part.get(key)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.partitions.iter().map(|part| part.latest.len()).sum()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys that have a value, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.partitions.iter().flat_map(|part| part.latest.keys()).map(|key| &**key)
    }
}

impl Part {
    fn refresh(&mut self) -> Result<()> {
        loop {
            let name = self.partition.name();
            match self.reader.next_batch() {
                Ok(None) => return Ok(()),
                Ok(Some(batch)) => {
                    for record in batch.records() {
                        let record =
                            record.map_err(|what| damaged(&name, batch.base_offset(), what))?;
                        let Some(key) = record.key else { continue };
                        if record.value.is_none() {
                            self.latest.remove(key);
                        } else if let Some(offset) = self.latest.get_mut(key) {
                            *offset = record.offset;
                        } else {
                            self.latest.insert(key.into(), record.offset);
                        }
                    }
                }
                Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange { start, .. })) => {
                    // Retention was faster.
                    self.reader.seek(start)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<RecordBuf>> {
        let Some(offset) = self.latest.get(key) else { return Ok(None) };
        match self.partition.get(*offset) {
            Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange { .. })) => {
                self.latest.remove(key);
                Ok(None)
            }
            found => found,
        }
    }
}

/// Records of one partition between two offsets, read forwards. Made by [`Partition::range`].
#[derive(Debug)]
pub struct RangeReader {
    reader: PartitionReader,
    name: crate::TopicPartition,
    end: u64,
}

impl Partition {
    /// The records with offsets of `from..to`. An end beyond the high watermark counts as the high watermark at this
    /// moment, so `..u64::MAX` is a snapshot: what is appended later is not in it.
    ///
    /// # Errors
    /// As [`Partition::reader`].
    pub fn range(&self, from: u64, to: u64) -> Result<RangeReader> {
        let end = to.min(self.high_watermark()?);
        Ok(RangeReader { reader: self.reader(from.min(end))?, name: self.name(), end })
    }
}

impl RangeReader {
    /// Calls `each` with every record, in order, until it has seen all or `each` fails.
    ///
    /// # Errors
    /// [`Error::Storage`], and what `each` returns.
    pub fn for_each<E: From<Error>>(
        mut self,
        mut each: impl FnMut(&logmill_storage::RecordView<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        while self.reader.position() < self.end {
            let Some(batch) = self.reader.next_batch()? else { break };
            for record in batch.records() {
                let record =
                    record.map_err(|what| damaged(&self.name, batch.base_offset(), what))?;
                if record.offset >= self.end {
                    return Ok(());
                }
                each(&record)?;
            }
        }
        Ok(())
    }

    /// One past the last offset that will be read.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// All records, copied.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn collect(self) -> Result<Vec<RecordBuf>> {
        let mut records = Vec::new();
        self.for_each(|record| {
            records.push(RecordBuf::from(*record));
            Ok::<(), Error>(())
        })?;
        Ok(records)
    }
}
