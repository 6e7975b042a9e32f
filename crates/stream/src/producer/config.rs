//! How a producer behaves, and what it is given.

use std::time::Duration;

use logmill_storage::{Durability, Header};

/// How a producer behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    pub(crate) name: Option<String>,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes_max: usize,
    pub(crate) buffer_bytes_max: usize,
    pub(crate) durability: Option<Durability>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            name: None,
            linger: Duration::from_millis(5),
            batch_bytes_max: 64 << 10,
            buffer_bytes_max: 32 << 20,
            durability: None,
        }
    }
}

impl ProducerConfig {
    /// The defaults.
    pub fn new() -> ProducerConfig {
        ProducerConfig::default()
    }

    /// Makes the producer idempotent under this name: an earlier producer of the name is fenced, and records that carry a
    /// [`sequence`](ProducerRecord::sequence) are appended once however often they are sent, across crashes too. Default:
    /// no name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long a record may wait for others of its partition to make a batch with, default 5 ms as Kafka's. With 0 each
    /// record is appended when it is sent. Waiting for a record's acknowledgement ends its lingering.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The size at which a batch is appended without lingering, in bytes of keys, values and headers. Default 64 KiB.
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.batch_bytes_max = bytes.max(1);
        self
    }

    /// How many bytes may be on their way, sent and not acknowledged, before sending blocks. Default 32 MiB as Kafka's.
    pub fn buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.buffer_bytes_max = bytes.max(1);
        self
    }

    /// How much of the limit a batch takes at a time: the count of all is kept by all threads, and not touched by each record.
    pub(crate) fn reservation(&self) -> usize {
        (self.buffer_bytes_max / 64).min(1 << 10)
    }

    /// What an acknowledgement means, instead of what each topic says. Default: what each topic says.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// A record and where it is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) timestamp: Option<i64>,
    pub(crate) sequence: Option<u64>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with a value.
    pub const fn new(topic: &'a str, value: &'a [u8]) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: None,
            key: None,
            value: Some(value),
            headers: &[],
            timestamp: None,
            sequence: None,
        }
    }

    /// A record whose value is empty, or given otherwise, as `Producer::send_json` does.
    pub const fn to(topic: &'a str) -> ProducerRecord<'a> {
        ProducerRecord::new(topic, b"")
    }

    /// A record with a key and no value: after compaction, `key` has no latest value.
    pub const fn tombstone(topic: &'a str, key: &'a [u8]) -> ProducerRecord<'a> {
        let mut record = ProducerRecord::new(topic, key);
        record.key = Some(key);
        record.value = None;
        record
    }

    /// Sets the key. Records of one key go to one partition, in the order in which they are sent.
    pub const fn key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// Sends the record to this partition, whatever its key is.
    pub const fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the headers.
    pub const fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the timestamp in ms since 1970; without it the record gets the time at which it is sent.
    pub const fn timestamp(mut self, ms: i64) -> Self {
        self.timestamp = Some(ms);
        self
    }

    /// The record's number in the producer's own counting, such as a line number or a database's log position: rising
    /// from record to record, with gaps if it likes. A producer with a name does not append a record to a partition that
    /// has one of its records with the same or a higher number. A record that is sent again with its number, its key and its
    /// partition, if it had one, goes to the same partition as before, though partitions were added.
    pub const fn sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    pub(crate) fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}
