//! Topics, partitions, producers and consumer groups as Kafka has them, inside your process.
#![forbid(unsafe_code)]
#![expect(dead_code, reason = "producers, consumers and share groups, which use the rest, follow")]

mod assignment;
mod config;
mod entry;
mod error;
mod group;
mod journal;
mod name;
mod open_logs;
mod partition;
mod partitioner;
mod range_set;
mod settings;
mod share;
mod state;
mod streams;
mod topic;
mod wire;

pub use assignment::{Assignor, Subscriber, assign};
pub use config::{Cleanup, TimestampType, TopicConfig, TopicSettings};
pub use error::{Error, NameKind, Result};
pub use group::{Coordinator, Join, MemberId};
pub use journal::{Journal, JournalEntry};
pub use partition::{Partition, PartitionReader};
pub use partitioner::{murmur2, partition_for_key};
pub use streams::{Streams, StreamsOptions};
pub use topic::Topic;

/// One partition of one topic, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's id. Ids start at 1 and are never used again.
    pub topic: u32,
    /// The partition, counted from 0.
    pub partition: u32,
}
