//! The latest value of each key of a topic, as a compacted topic means it.

use std::collections::HashMap;

use logmill_storage::{RecordBuf, RecordView};

use crate::consumer::damaged;
use crate::error::{Error, Result};
use crate::partition::{Partition, PartitionReader};
use crate::partition_for_key;
use crate::topic::Topic;

/// So many deleted keys are remembered without asking for how long.
const DELETED_KEPT: usize = 1_024;

/// Finds the latest record of a key. Made by [`Topic::table`].
///
/// It keeps every key and the place of its latest record in memory, not the values; of a deleted key too, as long as the
/// topic's `delete.retention.ms` says. What was appended since is read when it is asked.
#[derive(Debug)]
pub struct Table {
    topic: Topic,
    partitions: Vec<Source>,
    latest: Latest,
}

#[derive(Debug)]
struct Source {
    partition: Partition,
    reader: PartitionReader,
    /// Nothing before this is known.
    start: u64,
}

impl Topic {
    /// Reads the topic once and remembers where the latest record of each key is.
    ///
    /// # Errors
    /// [`Error::Storage`].
    /// # Cost
    /// One pass over all records; memory for all keys.
    pub fn table(&self) -> Result<Table> {
        let mut table =
            Table { topic: self.clone(), partitions: Vec::new(), latest: Latest::default() };
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
        for partition in self.topic.partitions().into_iter().skip(self.partitions.len()) {
            let start = partition.start_offset()?;
            let reader = partition.reader(start)?;
            self.partitions.push(Source { partition, reader, start });
        }
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        for Source { partition, reader, start } in &mut self.partitions {
            let number = partition.number();
            read_on(partition, reader, |record| self.latest.take_in(record, number, count))?;
            let now = partition.start_offset()?;
            if std::mem::replace(start, now) < now {
                self.latest.forget_below(number, now);
            }
        }
        let kept = self.topic.core.settings().tombstone_retention.as_millis();
        let now = self.topic.shared.dir.clock().wall_ms();
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        self.latest.forget_deleted_before(now.saturating_sub(kept));
        Ok(())
    }

    /// The latest record of `key`; `None` if it has none or was deleted by a tombstone.
    ///
    /// In a partition the record with the highest offset is the latest. If several partitions have records of the key, which
    /// happens when partitions were added, or a record's partition was chosen by hand, it is the last one of the partition that has
    /// the newest timestamp of the key; of equal ones, of the partition that the key goes to now.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<RecordBuf>> {
        self.refresh()?;
        let Some((number, offset)) = self.latest.place_of(key) else { return Ok(None) };
        let Some(source) = self.partitions.get(number as usize) else { return Ok(None) };
        match source.partition.get(offset) {
            Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange { .. })) => {
                self.latest.forget(key);
                Ok(None)
            }
            found => found,
        }
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.latest.places.len() - self.latest.deleted
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys that have a value, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.latest.places.iter().filter(|(_, place)| !place.is_deleted).map(|(key, _)| &**key)
    }
}

/// Shows `each` what was appended to a partition since it was last read.
fn read_on(
    partition: &Partition,
    reader: &mut PartitionReader,
    mut each: impl FnMut(&RecordView<'_>),
) -> Result<()> {
    loop {
        match reader.next_batch() {
            Ok(None) => return Ok(()),
            Ok(Some(batch)) => {
                for record in batch.records() {
                    each(
                        &record.map_err(|what| {
                            damaged(&partition.name(), batch.base_offset(), what)
                        })?,
                    );
                }
            }
            Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange { start, .. })) => {
                // Retention was faster.
                reader.seek(start)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Where the latest record of each key is.
#[derive(Debug, Default)]
struct Latest {
    places: HashMap<Box<[u8]>, Place>,
    /// How many of these are of tombstones.
    deleted: usize,
    /// With how many of them it is time to look which are still needed.
    deleted_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    partition: u32,
    offset: u64,
    /// The newest that the partition has of the key.
    timestamp: i64,
    /// A deleted key is remembered, since another partition may still have an older value.
    is_deleted: bool,
}

impl Latest {
    /// Takes in a record of a topic with so many partitions. Those of one partition come in order, but one partition may come
    /// before or after another.
    fn take_in(&mut self, record: &RecordView<'_>, partition: u32, partitions: u32) {
        let Some(key) = record.key else { return };
        let is_deleted = record.value.is_none();
        let mut found =
            Place { partition, offset: record.offset, timestamp: record.timestamp, is_deleted };
        let Some(known) = self.places.get_mut(key) else {
            self.places.insert(key.into(), found);
            self.deleted += usize::from(is_deleted);
            return;
        };
        if known.partition == partition {
            found.timestamp = found.timestamp.max(known.timestamp);
        } else {
            let home = partition_for_key(key, partitions);
            let age = |place: &Place| (place.timestamp, place.partition == home, place.partition);
            if age(&found) < age(known) {
                return;
            }
        }
        self.deleted -= usize::from(known.is_deleted);
        self.deleted += usize::from(is_deleted);
        *known = found;
    }

    /// The partition and the offset of the latest value.
    fn place_of(&self, key: &[u8]) -> Option<(u32, u64)> {
        let place = self.places.get(key).filter(|place| !place.is_deleted)?;
        Some((place.partition, place.offset))
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(place) = self.places.remove(key) {
            self.deleted -= usize::from(place.is_deleted);
        }
    }

    /// Forgets what a partition no longer has.
    fn forget_below(&mut self, partition: u32, start: u64) {
        self.places.retain(|_, place| place.partition != partition || place.offset >= start);
        self.deleted = self.places.values().filter(|place| place.is_deleted).count();
    }

    /// Forgets the keys that were deleted before `ms`, once they have become as many again as there were left.
    fn forget_deleted_before(&mut self, ms: i64) {
        if self.deleted <= self.deleted_max.max(DELETED_KEPT) {
            return;
        }
        self.places.retain(|_, place| !place.is_deleted || place.timestamp >= ms);
        self.deleted = self.places.values().filter(|place| place.is_deleted).count();
        self.deleted_max = 2 * self.deleted;
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

#[cfg(test)]
mod tests {
    use logmill_storage::{DataDir, Journal, Record};
    use tempfile::TempDir;

    use super::*;
    use crate::{Streams, StreamsOptions, TopicConfig};

    fn store() -> (TempDir, DataDir, Streams) {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let journal = Journal::open(&dir, "0", Default::default()).unwrap();
        let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
        (place, dir, streams)
    }

    #[test]
    fn deleted_keys_take_no_more_memory_than_those_of_the_time_that_tombstones_are_kept() {
        let (_place, dir, streams) = store();
        let topic = streams.create_topic("t", &TopicConfig::new()).unwrap();
        let partition = topic.partition(0).unwrap();
        let now = dir.clock().wall_ms();
        let day_ms = 86_400_000;
        let mut table = topic.table().unwrap();
        partition.append(&Record::value(b"v").key(b"stays")).unwrap();
        for round in 0..20u32 {
            let keys: Vec<String> = (0..500).map(|n| format!("{round} {n}")).collect();
            let tombstones: Vec<Record<'_>> = keys
                .iter()
                .map(|key| Record::tombstone(key.as_bytes()).timestamp(now - 2 * day_ms))
                .collect();
            partition.append_batch(&tombstones).unwrap();
            table.refresh().unwrap();
            assert!(table.latest.deleted <= DELETED_KEPT, "{}", table.latest.deleted);
            assert_eq!((table.len(), table.latest.places.len()), (1, 1 + table.latest.deleted));
        }
        let keys: Vec<String> = (0..5_000).map(|n| format!("today {n}")).collect();
        let tombstones: Vec<Record<'_>> =
            keys.iter().map(|key| Record::tombstone(key.as_bytes()).timestamp(now)).collect();
        partition.append_batch(&tombstones).unwrap();
        table.refresh().unwrap();
        assert_eq!((table.len(), table.latest.deleted), (1, 5_000));
    }

    /// They were named as long as the table lived, and took memory.
    #[test]
    fn keys_whose_records_retention_took_are_forgotten() {
        let (_place, _dir, streams) = store();
        let config = TopicConfig::new().partitions(2).segment_bytes_max(64 << 10);
        let topic = streams.create_topic("t", &config).unwrap();
        let partition = topic.partition(0).unwrap();
        let value = vec![b'v'; 1_000];
        let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        for key in &keys {
            partition.append(&Record::value(&value).key(key.as_bytes())).unwrap();
        }
        partition.append(&Record::tombstone(b"0")).unwrap();
        topic.partition(1).unwrap().append(&Record::value(b"v").key(b"stays")).unwrap();
        let mut table = topic.table().unwrap();
        assert_eq!(table.len(), 300);
        let start = partition.delete_records_before(200).unwrap();
        assert!(start > 0, "a segment was meant to go");
        table.refresh().unwrap();
        let left: Vec<&[u8]> = table.keys().collect();
        assert_eq!((left.len(), table.len()), (301 - start as usize, 301 - start as usize));
        assert!(left.contains(&&b"stays"[..]) && !left.contains(&&b"1"[..]));
    }
}
