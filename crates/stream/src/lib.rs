//! Topics, partitions, producers and consumer groups as Kafka has them, inside your process.
//!
//! With feature `tokio`, each call that waits for the disk or for records has a twin whose name ends in `_async`, and
//! `Consumer::records` makes a consumer a `futures::Stream`, `Producer::sink` a producer a `futures::Sink`. The twins need a
//! runtime with its timer on; tickets (`Partition::submit`, `Producer::send`, `Consumer::commit_async`) are futures without the
//! feature and without a runtime. Calls that make, remove or rewrite files (topics, groups, retention, compaction) have no twin,
//! since a task would only hand them to a thread: call them from `spawn_blocking`.
//!
//! With feature `serde`, values of records are values of yours: `Producer::send_json`, `Records::json`, `ConsumerRecord::json`.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

mod assignment;
mod backup;
mod binding;
mod chunk;
mod compactor;
mod config;
mod consumer;
mod entry;
mod error;
mod group;
mod groups;
mod keeper;
mod known;
mod name;
mod open_logs;
mod partition;
mod partitioner;
mod producer;
mod range_set;
mod routes;
mod settings;
mod share;
mod shared;
mod signal;
mod state;
mod stats;
mod streams;
mod table;
mod topic;
mod topics;
mod turn;
#[cfg(feature = "serde")]
mod typed;
mod verify;
mod wire;

pub use assignment::{Assignor, Subscriber, assign};
pub use backup::backup;
pub use chunk::{ConsumerHeaders, ConsumerRecord, Records, Skipped};
pub use config::{Cleanup, TimestampType, TopicConfig, TopicSettings};
pub use consumer::{
    CommitTicket, Consumer, ConsumerConfig, ConsumerWaker, OffsetAndMetadata, OutOfRange,
    RebalanceListener, StartAt,
};
#[cfg(feature = "tokio")]
pub use consumer::{PolledRecord, RecordStream};
pub use entry::{GroupKind, JOURNAL_OWNER, describe_entry};
pub use error::{Error, NameKind, Result};
pub use group::{Coordinator, Join, MemberId, Refusal};
pub use groups::{GroupDescription, GroupPhase, MemberDescription, PartitionProgress, ResetTo};
pub use partition::{Partition, PartitionReader};
pub use partitioner::{murmur2, partition_for_key};
#[cfg(feature = "tokio")]
pub use producer::ProducerSink;
pub use producer::{
    Delivery, DeliveryFuture, Producer, ProducerConfig, ProducerRecord, RecordMetadata,
};
pub use share::{
    Acknowledge, ShareConsumer, ShareConsumerConfig, ShareGroupConfig, ShareReceipt, ShareRecord,
    ShareRecords,
};
pub use stats::GroupStats;
pub use streams::{Streams, StreamsOptions};
pub use table::{RangeReader, Table};
pub use topic::Topic;
#[cfg(feature = "serde")]
pub use typed::TypedRecord;
pub use verify::{bound_logs, misplaced_logs, verify};

/// One partition of one topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, counted from 0.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of topic {:?}", self.partition, self.topic)
    }
}

/// One partition of one topic, by the topic's id, which no later topic of that name shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic's id, from 1.
    pub topic: u32,
    /// The partition, counted from 0.
    pub partition: u32,
}
