//! What can go wrong, with the place where it did.

use std::fmt;

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
    /// The group's members use another assignment strategy: all members of a group use one.
    InconsistentStrategy {
        /// The strategy of the group.
        group: crate::Assignor,
        /// The strategy that the new member asked for.
        found: crate::Assignor,
    },
    /// The member is not, or no longer, in its group: it left, or was not heard of for its session time-out.
    /// The next poll joins again.
    UnknownMember {
        /// The member.
        member: crate::MemberId,
    },
    /// Another member joined with the same instance id, and took over: this one must stop.
    InstanceFenced {
        /// The instance id.
        instance: String,
    },
    /// The partition is not assigned to this member: it moved to another one. The commit was refused as a whole.
    NotAssigned {
        /// The member.
        member: crate::MemberId,
        /// The partition.
        partition: crate::TopicPartition,
        /// The group's generation now.
        generation: u64,
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
            Error::InconsistentStrategy { group, found } => {
                write!(f, "the group assigns partitions by {group}, this member asked for {found}")
            }
            Error::UnknownMember { member } => write!(f, "{member} is not in the group"),
            Error::InstanceFenced { instance } => {
                write!(f, "another member joined with the instance id {instance:?} and took over")
            }
            Error::NotAssigned { member, partition, generation } => write!(
                f,
                "partition {} of topic {} is not assigned to {member} in generation {generation}",
                partition.partition, partition.topic
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Storage(error) => error.source(),
            _ => None,
        }
    }
}

impl From<logmill_storage::Error> for Error {
    fn from(error: logmill_storage::Error) -> Error {
        Error::Storage(error)
    }
}
