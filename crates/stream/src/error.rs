//! What can go wrong, with the place where it did.

use std::fmt;
use std::sync::Arc;

use crate::TopicPartition;
use crate::group::Refusal;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a name was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameKind {
    /// A topic.
    Topic,
    /// A consumer group or share group.
    Group,
    /// An idempotent producer.
    Producer,
}

/// An error of streams.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The storage engine's error.
    Storage(logmill_storage::Error),
    /// There is no topic of this name, or it was deleted while a handle to it was kept.
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// There is a topic of this name already. Nothing was changed.
    TopicExists {
        /// The name.
        name: String,
    },
    /// The topic has no such partition.
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition that was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A topic has 1 to 10,000 partitions. Nothing was changed.
    InvalidPartitions {
        /// What was asked for.
        asked: u32,
    },
    /// Partitions are added, never removed. Nothing was changed.
    PartitionsNotIncreased {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: u32,
        /// How many it was to have.
        asked: u32,
    },
    /// The number of partitions is no setting: adding partitions is a call of its own. Nothing was changed.
    PartitionsNotChanged {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: u32,
    },
    /// There is no such setting, or it cannot have this value. Nothing was changed.
    InvalidSetting {
        /// The setting, at most its first 64 characters.
        name: String,
        /// The value, at most its first 64 characters.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The name is not permitted. Nothing was changed.
    InvalidName {
        /// What was to be named.
        kind: NameKind,
        /// The name, at most its first 64 characters.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The group refuses what a member wants: see [`Refusal`].
    Group {
        /// The group.
        group: String,
        /// Why.
        refusal: Refusal,
    },
    /// The partition is not assigned to this consumer: it moved to another one, or the consumer was silent for too long.
    /// The commit was refused as a whole.
    NotAssigned {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
    },
    /// There is no such group.
    UnknownGroup {
        /// The group.
        group: String,
    },
    /// The group has members, and this can be done only while it has none.
    GroupActive {
        /// The group.
        group: String,
        /// How many members it has.
        members: usize,
    },
    /// There is a group of that name, but of the other kind: ordinary consumers and share groups do not mix.
    GroupKind {
        /// The group.
        group: String,
    },
    /// The group has no position in this partition, and was told to begin nowhere by itself.
    NoPosition {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
    },
    /// The group's position is beyond the end of what the partition kept when power was lost, or when an older copy of it
    /// was put back: other records have those offsets now, or will. Going on there would skip them, so choose: seek, or
    /// reset the group.
    PositionLost {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
        /// The log epoch in which the position was committed.
        epoch: u32,
        /// The position.
        offset: u64,
        /// Where that epoch ended.
        end: u64,
    },
    /// The position was removed by retention, and the consumer is to say so instead of going on elsewhere.
    PositionRemoved {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: u64,
        /// The first offset that is there.
        start: u64,
    },
    /// A batch could not be appended, or its acknowledgement failed; none of its records counts as sent.
    NotDelivered {
        /// Where it was to go.
        partition: TopicPartition,
        /// Why.
        cause: Arc<Error>,
    },
    /// An earlier record of this named producer was not delivered to the partition, and this one would have gone before it;
    /// sent again, that one would then have counted as a duplicate. Nothing was appended. Send again from `undelivered` on, or
    /// [give up](crate::Producer::give_up) what is not to be sent again.
    BehindUndelivered {
        /// Where it was to go.
        partition: TopicPartition,
        /// The sequence that comes next.
        undelivered: u64,
        /// The sequence that is refused; `None`: the record had none.
        sequence: Option<u64>,
    },
    /// A later producer has opened the name: this one is a zombie and must stop. Nothing was appended.
    ProducerFenced {
        /// The name.
        name: String,
        /// This producer's epoch.
        epoch: u32,
        /// The epoch that holds.
        current: u32,
    },
    /// The topic is compacted, which is by key, and a record has none. Nothing was appended.
    KeyMissing {
        /// Where it was to go.
        partition: TopicPartition,
        /// Which of the records of the call it is, from 0.
        index: usize,
    },
    /// Records of a share group are dead, and the copy of this one for the dead-letter topic is longer than an entry of the
    /// journal may be. Nothing was changed; without a dead-letter topic the group goes on.
    DeadLetterTooLarge {
        /// The partition.
        partition: TopicPartition,
        /// The record.
        offset: u64,
        /// The length of its copy, at most.
        bytes: u64,
        /// The longest that there may be.
        max: u64,
    },
    /// Acknowledgements of these records came after their lease had run out: others may have them. They changed nothing.
    LeaseLost {
        /// The partition and offset of each.
        records: Vec<(TopicPartition, u64)>,
    },
    /// The metadata of a commit is longer than 4,096 bytes. Nothing was committed.
    MetadataTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The value has no JSON. Nothing was sent.
    #[cfg(feature = "serde")]
    NotEncoded {
        /// Where it was to go.
        topic: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The record's value is not the JSON of what it was to be read as.
    #[cfg(feature = "serde")]
    NotDecoded {
        /// The partition.
        partition: TopicPartition,
        /// The record.
        offset: u64,
        /// Where in the value, and why.
        source: serde_json::Error,
    },
    /// The pattern is no regular expression.
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameKind::Topic => "topic",
            NameKind::Group => "group",
            NameKind::Producer => "producer",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Storage(error) => error.fmt(f),
            Error::UnknownTopic { name } => write!(f, "there is no topic {name:?}"),
            Error::TopicExists { name } => write!(f, "there is a topic {name:?} already"),
            Error::UnknownPartition { topic, partition, partitions } => {
                write!(
                    f,
                    "topic {topic:?} has no partition {partition}, only 0 to {}",
                    partitions.saturating_sub(1)
                )
            }
            Error::InvalidPartitions { asked } => {
                write!(f, "a topic has 1 to 10000 partitions, not {asked}")
            }
            Error::PartitionsNotIncreased { topic, partitions, asked } => write!(
                f,
                "topic {topic:?} has {partitions} partitions and cannot have {asked}: they are added, never removed"
            ),
            Error::PartitionsNotChanged { topic, partitions } => {
                write!(
                    f,
                    "topic {topic:?} has {partitions} partitions; to have more, add partitions"
                )
            }
            Error::InvalidSetting { name, value, expected } => {
                write!(f, "{name} = {value:?}: expected {expected}")
            }
            Error::InvalidName { kind, name, why } => {
                write!(f, "{name:?} is no name for a {kind}: {why}")
            }
            Error::Group { group, refusal } => write!(f, "group {group:?}: {refusal}"),
            Error::NotAssigned { group, partition } => {
                write!(
                    f,
                    "group {group:?}: {partition} is not assigned to this consumer (any more)"
                )
            }
            Error::UnknownGroup { group } => write!(f, "there is no group {group:?}"),
            Error::GroupActive { group, members } => {
                write!(f, "group {group:?} has {members} members; this needs one without any")
            }
            Error::GroupKind { group } => {
                write!(
                    f,
                    "group {group:?} is of the other kind: consumer groups and share groups do not mix"
                )
            }
            Error::NoPosition { group, partition } => {
                write!(
                    f,
                    "group {group:?} has no position in {partition} and was told to begin nowhere by itself"
                )
            }
            Error::PositionLost { group, partition, epoch, offset, end } => write!(
                f,
                "group {group:?}: position {offset} of epoch {epoch} in {partition} is beyond {end}, where that \
                 epoch ended: the records before it were lost, and others have their offsets; seek or reset the group"
            ),
            Error::PositionRemoved { partition, offset, start } => {
                write!(
                    f,
                    "position {offset} in {partition} was removed by retention, which keeps records from {start} on"
                )
            }
            Error::NotDelivered { partition, cause } => {
                write!(f, "not delivered to {partition}: {cause}")
            }
            Error::BehindUndelivered { partition, undelivered, sequence } => {
                write!(
                    f,
                    "sequence {undelivered} was not delivered to {partition} and comes before "
                )?;
                match sequence {
                    Some(sequence) => write!(f, "{sequence}"),
                    None => f.write_str("this record"),
                }
            }
            Error::ProducerFenced { name, epoch, current } => {
                write!(f, "producer {name:?}: epoch {epoch} was fenced by epoch {current}")
            }
            Error::KeyMissing { partition, index } => {
                write!(f, "record {index} has no key, and {partition} is compacted by key")
            }
            Error::DeadLetterTooLarge { partition, offset, bytes, max } => write!(
                f,
                "record {offset} of {partition} is dead, and its copy for the dead-letter topic has {bytes} bytes, more \
                 than {max}"
            ),
            Error::LeaseLost { records } => match records.as_slice() {
                [(partition, offset)] => {
                    write!(f, "the lease on record {offset} of {partition} has run out")
                }
                records => write!(f, "the leases on {} records have run out", records.len()),
            },
            Error::MetadataTooLong { bytes } => {
                write!(f, "commit metadata of {bytes} bytes is longer than 4096")
            }
            #[cfg(feature = "serde")]
            Error::NotEncoded { topic, source } => {
                write!(f, "a record for topic {topic:?} has no JSON: {source}")
            }
            #[cfg(feature = "serde")]
            Error::NotDecoded { partition, offset, source } => write!(
                f,
                "the value of record {offset} in {partition} is not the JSON that was expected: {source}"
            ),
            Error::InvalidPattern { pattern, what } => {
                write!(f, "{pattern:?} is no pattern: {what}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Storage(error) => error.source(),
            Error::NotDelivered { cause, .. } => Some(cause.as_ref()),
            Error::Group { refusal, .. } => Some(refusal),
            #[cfg(feature = "serde")]
            Error::NotEncoded { source, .. } | Error::NotDecoded { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<logmill_storage::Error> for Error {
    fn from(error: logmill_storage::Error) -> Error {
        Error::Storage(error)
    }
}
