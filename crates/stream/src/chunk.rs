//! Records as a consumer gets them: copied out of the log once, many at a time, into one allocation that is then shared.

use std::sync::Arc;

use logmill_storage::{Header, RecordView};

use crate::TopicPartition;
use crate::wire::{Wire, put_bytes};

/// Stands for "no key" and "no value" where a length is expected. No record is that long.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    timestamp: i64,
    at: u32,
    key_len: u32,
    value_len: u32,
    headers: u32,
}

/// Consecutive records of one partition.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Key, value and headers of each record, one after the other.
    arena: Vec<u8>,
    places: Vec<Place>,
}

impl Chunk {
    pub(crate) fn clear(&mut self) {
        self.arena.clear();
        self.places.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arena.len()
    }

    fn bytes_between(&self, from: usize, to: usize) -> usize {
        let at = |index: usize| {
            self.places.get(index).map_or(self.arena.len(), |place| place.at as usize)
        };
        at(to) - at(from)
    }

    pub(crate) fn offset(&self, index: usize) -> Option<u64> {
        self.places.get(index).map(|place| place.offset)
    }

    /// The index after the last record that fits into `bytes_max` beginning with `from`, at least one more than `from`.
    pub(crate) fn end_within(&self, from: usize, records_max: usize, bytes_max: usize) -> usize {
        let to = self.places.len().min(from.saturating_add(records_max));
        let Some(first) = self.places.get(from) else { return to };
        let limit = u32::try_from(bytes_max).unwrap_or(u32::MAX).saturating_add(first.at);
        if self.arena.len() <= limit as usize {
            return to;
        }
        let fitting = self.places[from..to].partition_point(|place| place.at < limit);
        from + fitting.max(1)
    }

    #[inline]
    pub(crate) fn push(&mut self, record: &RecordView<'_>) {
        let at = self.arena.len();
        let key_len = put(&mut self.arena, record.key);
        let value_len = put(&mut self.arena, record.value);
        let mut headers = 0;
        for header in record.headers {
            put_bytes(&mut self.arena, header.name.as_bytes());
            put_bytes(&mut self.arena, header.value);
            headers += 1;
        }
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.places.push(Place {
            offset: record.offset,
            timestamp: record.timestamp,
            at,
            key_len,
            value_len,
            headers,
        });
    }

    /// The record at `index`, of the partition `name`.
    #[inline]
    pub(crate) fn consumer_record<'a>(
        &'a self,
        name: &'a TopicPartition,
        index: usize,
    ) -> ConsumerRecord<'a> {
        let place = &self.places[index];
        let (key, rest) = take(&self.arena[place.at as usize..], place.key_len);
        let (value, rest) = take(rest, place.value_len);
        ConsumerRecord {
            topic: &name.topic,
            partition: name.partition,
            offset: place.offset,
            timestamp: place.timestamp,
            key,
            value,
            headers: ConsumerHeaders { wire: Wire(rest), left: place.headers },
        }
    }
}

#[inline]
fn put(arena: &mut Vec<u8>, bytes: Option<&[u8]>) -> u32 {
    match bytes {
        Some(bytes) => {
            arena.extend_from_slice(bytes);
            u32::try_from(bytes.len()).unwrap_or(NONE - 1)
        }
        None => NONE,
    }
}

#[inline]
fn take(bytes: &[u8], len: u32) -> (Option<&[u8]>, &[u8]) {
    if len == NONE {
        return (None, bytes);
    }
    let (taken, rest) = bytes.split_at(len as usize);
    (Some(taken), rest)
}

/// One record that a consumer got.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConsumerRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in the order in which they were appended.
    pub headers: ConsumerHeaders<'a>,
}

/// The headers of a [`ConsumerRecord`]: an iterator over borrowed [`Header`]s.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerHeaders<'a> {
    wire: Wire<'a>,
    left: u32,
}

impl<'a> Iterator for ConsumerHeaders<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let name = self.wire.text().ok()?;
        let value = self.wire.bytes().ok()?;
        Some(Header { name, value })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for ConsumerHeaders<'_> {}

/// A run of records of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: TopicPartition,
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Records that were skipped, because retention had removed them before the consumer came to them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The partition.
    pub partition: TopicPartition,
    /// Where the consumer was to go on.
    pub position: u64,
    /// Where it went on.
    pub resumed_at: u64,
}

/// What one poll returned: records of one or more partitions, in order for each partition.
///
/// Owns its records, so that they can be handed to another thread. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub(crate) parts: Vec<Part>,
    pub(crate) skipped: Vec<Skipped>,
}

impl Records {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.to - part.from).sum()
    }

    /// Bytes of keys, values and headers.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.chunk.bytes_between(part.from, part.to)).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// All records: those of one partition in order, one partition after the other.
    pub fn iter(&self) -> impl Iterator<Item = ConsumerRecord<'_>> {
        self.parts.iter().flat_map(|part| {
            (part.from..part.to).map(|index| part.chunk.consumer_record(&part.name, index))
        })
    }

    /// The partitions that have records here.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.iter().map(|part| &part.name)
    }

    /// What the consumer had to skip before these records: see
    /// [`ConsumerConfig::out_of_range`](crate::ConsumerConfig::out_of_range).
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

#[cfg(test)]
mod tests {
    use logmill_storage::{DataDir, Log, LogConfig, Record};

    use super::*;

    fn chunk_of(records: &[Record<'_>]) -> Chunk {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let log = Log::open(&dir, "1/0", LogConfig::default()).unwrap();
        log.append_batch(records).unwrap();
        let mut chunk = Chunk::default();
        let mut reader = log.reader(0).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            batch.records().for_each(|record| chunk.push(&record.unwrap()));
        }
        chunk
    }

    #[test]
    fn a_chunk_gives_back_every_part_of_a_record() {
        let headers = [Header { name: "a", value: b"1" }, Header { name: "a", value: b"" }];
        let chunk = chunk_of(&[
            Record::value(b"v").key(b"k").headers(&headers).timestamp(7),
            Record::value(b""),
            Record::tombstone(b"k"),
        ]);
        let name = TopicPartition { topic: "t".into(), partition: 3 };
        let part = Part { name, chunk: Arc::new(chunk), from: 0, to: 3 };
        let records = Records { parts: vec![part], skipped: Vec::new() };
        let all: Vec<_> = records.iter().collect();
        assert_eq!(
            (all[0].topic, all[0].partition, all[0].offset, all[0].timestamp),
            ("t", 3, 0, 7)
        );
        assert_eq!((all[0].key, all[0].value), (Some(b"k".as_slice()), Some(b"v".as_slice())));
        assert_eq!(all[0].headers.collect::<Vec<_>>(), headers);
        assert_eq!(
            (all[1].key, all[1].value, all[1].headers.len()),
            (None, Some(b"".as_slice()), 0)
        );
        assert_eq!((all[2].key, all[2].value), (Some(b"k".as_slice()), None));
    }

    #[test]
    fn a_run_ends_at_the_count_or_the_bytes_but_has_at_least_one_record() {
        let chunk = chunk_of(&[Record::value(&[0; 10]); 10]);
        assert_eq!(chunk.end_within(0, 4, 1_000), 4);
        assert_eq!(chunk.end_within(8, 4, 1_000), 10);
        assert_eq!(chunk.end_within(0, 10, 25), 3);
        assert_eq!(chunk.end_within(5, 10, 20), 7);
        assert_eq!(chunk.end_within(5, 10, 1), 6);
    }
}
