//! Every limit, by name, with the checks that more than one call makes.
//!
//! Where a limit of SQS is pointless inside a process it is raised; docs/queue.md has the table.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};

/// A limit that a call can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// Characters of a queue's name: 1 to 80.
    QueueNameLength,
    /// Bytes of a message, its attributes included: 1 to the queue's `message_bytes_max`.
    MessageBytes,
    /// A queue's `message_bytes_max`: 1,024 to 16,000,000.
    MessageBytesMax,
    /// Bytes of the messages of one batch: at most 64 MiB.
    BatchBytes,
    /// Entries of a batch: 1 to 1,000.
    BatchEntries,
    /// Messages that one receive may ask for: 1 to 1,000.
    ReceiveMax,
    /// How long a receive may wait, in ms: at most 24 h.
    ReceiveWait,
    /// A visibility timeout, in ms: at most the queue's `lease_max`.
    VisibilityTimeout,
    /// A queue's `lease_max`, in ms: 1 s to 30 days (12 h by default, as in SQS).
    LeaseMax,
    /// A delay, in ms: at most 100 years.
    Delay,
    /// A retention period, in ms: 1 s to 100 years.
    Retention,
    /// A time to live, in ms: 1 to 100 years.
    TimeToLive,
    /// Attributes of one message: at most 10.
    Attributes,
    /// Characters of an attribute's name: 1 to 256.
    AttributeNameLength,
    /// Characters of an attribute's type with its label: at most 256.
    AttributeTypeLength,
    /// Bytes of an attribute's value: at least 1.
    AttributeValueBytes,
    /// Significant digits of a number attribute: at most 38.
    NumberDigits,
    /// Characters of a group id: 1 to 128.
    GroupIdLength,
    /// Characters of a deduplication id: 1 to 128.
    DeduplicationIdLength,
    /// A deduplication window, in ms: 1 to 100 years.
    DeduplicationWindow,
    /// Characters of a receive attempt id: 1 to 128.
    ReceiveAttemptIdLength,
    /// Receives before a message counts as failed for good: 1 to 1,000.
    MaxReceives,
    /// Source queues that a redrive allow policy names: 1 to 10.
    RedriveSources,
    /// Messages in flight in one queue: 1 to 16,000,000 (120,000 by default, as in SQS).
    InFlight,
    /// Messages in flight for one group of a standard queue: 1 to 16,000,000.
    GroupConcurrency,
    /// Messages that a queue may hold waiting: at least 1.
    LengthMessages,
    /// Bytes that a queue may hold waiting: at least 1.
    LengthBytes,
    /// Tags of a queue: at most 50.
    Tags,
    /// Characters of a tag's key: 1 to 128; of its value: at most 256.
    TagLength,
    /// Bytes of the reason given with a nack: at most 4,096.
    ReasonBytes,
    /// Bytes of a trace header: 1 to 1,024.
    TraceHeaderBytes,
    /// Messages a second that a redrive moves: 1 to 1,000,000.
    RedriveRate,
    /// A retry's delay, in ms: at most 100 years.
    RetryDelay,
    /// The jitter of a retry's delay: 0 to 100 per cent.
    RetryJitter,
    /// A schedule's interval, in ms: 1 to 100 years.
    ScheduleInterval,
    /// Threads of a worker: 1 to 1,024.
    WorkerThreads,
    /// How long deleted messages are kept, in ms: at most 100 years.
    KeepDeleted,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::QueueNameLength => "length of the queue name",
            Limit::MessageBytes => "bytes of the message",
            Limit::MessageBytesMax => "message_bytes_max",
            Limit::BatchBytes => "bytes of the batch",
            Limit::BatchEntries => "entries of the batch",
            Limit::ReceiveMax => "messages of one receive",
            Limit::ReceiveWait => "wait of a receive in ms",
            Limit::VisibilityTimeout => "visibility timeout in ms",
            Limit::LeaseMax => "lease_max in ms",
            Limit::Delay => "delay in ms",
            Limit::Retention => "retention in ms",
            Limit::TimeToLive => "time to live in ms",
            Limit::Attributes => "number of attributes",
            Limit::AttributeNameLength => "length of the attribute name",
            Limit::AttributeTypeLength => "length of the attribute type",
            Limit::AttributeValueBytes => "bytes of the attribute value",
            Limit::NumberDigits => "digits of a number attribute",
            Limit::GroupIdLength => "length of the group id",
            Limit::DeduplicationIdLength => "length of the deduplication id",
            Limit::DeduplicationWindow => "deduplication window in ms",
            Limit::ReceiveAttemptIdLength => "length of the receive attempt id",
            Limit::MaxReceives => "max_receives",
            Limit::RedriveSources => "sources of the redrive allow policy",
            Limit::InFlight => "messages in flight",
            Limit::GroupConcurrency => "messages in flight for one group",
            Limit::LengthMessages => "length limit in messages",
            Limit::LengthBytes => "length limit in bytes",
            Limit::Tags => "number of tags",
            Limit::TagLength => "length of a tag",
            Limit::ReasonBytes => "bytes of the reason",
            Limit::TraceHeaderBytes => "bytes of the trace header",
            Limit::RedriveRate => "messages a second of a redrive",
            Limit::RetryDelay => "delay of a retry in ms",
            Limit::RetryJitter => "jitter in per cent",
            Limit::ScheduleInterval => "interval of a schedule in ms",
            Limit::WorkerThreads => "threads of a worker",
            Limit::KeepDeleted => "period for which deleted messages are kept, in ms",
        })
    }
}

pub(crate) const CENTURY_MS: u64 = 100 * 365 * 24 * 3_600_000;
pub(crate) const BATCH_ENTRIES_MAX: u64 = 1000;
pub(crate) const BATCH_BYTES_MAX: u64 = 64 << 20;
pub(crate) const REASON_BYTES_MAX: usize = 4096;

/// `found`, if it is in `least..=most`.
pub(crate) fn within(limit: Limit, found: u64, least: u64, most: u64) -> Result<u64> {
    if (least..=most).contains(&found) {
        Ok(found)
    } else {
        Err(Error::OutOfBounds { limit, found, least, most })
    }
}

/// A duration in ms, if it is in `least..=most` ms.
pub(crate) fn duration(limit: Limit, duration: Duration, least: u64, most: u64) -> Result<i64> {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    within(limit, ms, least, most).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
}

fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Checks a queue's name: SQS's alphabet and length, `.fifo` at the end of a FIFO queue's and of no other.
pub(crate) fn queue_name(name: &str, fifo: bool) -> Result<()> {
    within(Limit::QueueNameLength, chars(name), 1, 80)?;
    let stem = name.strip_suffix(".fifo");
    let plain = stem.unwrap_or(name);
    let legal = plain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !legal || plain.is_empty() || stem.is_some() != fifo {
        return Err(Error::InvalidQueueName { name: name.to_owned(), fifo });
    }
    Ok(())
}

/// Checks a group, deduplication or receive attempt id: 1 to 128 letters, digits and punctuation.
pub(crate) fn id(limit: Limit, text: &str) -> Result<()> {
    within(limit, chars(text), 1, 128)?;
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Error::InvalidId { limit, id: text.to_owned() })
    }
}
