//! Durable message streams inside your process: what Kafka gives, in one directory, with no broker.
//!
//! ```
//! use logmill::{Record, Store, TopicConfig};
//! # let place = tempfile::tempdir().unwrap();
//! # let dir = place.path();
//! let store = Store::open(dir)?;
//! let topic = store.create_topic("user-events", TopicConfig::new().partitions(3))?;
//!
//! let partition = topic.partition_for_key(b"user-7")?;
//! let offset = partition.append(&Record::value(b"signed up").key(b"user-7"))?; // on the disk when this returns
//!
//! let mut reader = partition.reader(offset)?;
//! while let Some(batch) = reader.next_batch()? {
//!     for record in batch.records().flatten() {
//!         assert_eq!(record.value, Some(b"signed up".as_slice()));
//!     }
//! }
//! store.close()?;
//! # Ok::<(), logmill::Error>(())
//! ```
//!
//! | what happens to a thing that was written | take |
//! |---|---|
//! | somebody does it once, and it is gone; failures come back, later, and end in a dead-letter queue | a [`Queue`] |
//! | many read it, each at its own pace, in order for each key, again if they like | a [`Topic`], a [`Producer`], [`Consumer`]s |
//! | many read it together and acknowledge each record by itself | a [`Topic`], [`ShareConsumer`]s |
//!
//! The [`guide`] has an example of each thing that a store does.
//!
//! Features, all off by default: `serde` (messages and records as JSON of your values), `tokio` (calls for tasks, queues
//! and consumers as `futures::Stream`, producers as `Sink`), `tracing`, `metrics`, `zstd`.

#![forbid(unsafe_code)]

mod error;
mod stats;
mod store;

pub use error::{Error, Result};
pub use logmill_queue as queue;
#[cfg(feature = "serde")]
pub use logmill_queue::Typed;
pub use logmill_queue::{
    Attribute, Counts, Message, MessageId, Queue, QueueConfig, QueueStats, Receipt, ReceiveOptions,
    ReceivedMessage, Sent,
};
pub use logmill_storage as storage;
pub use logmill_storage::{
    Activity, AppendOptions, Appended, Batch, Clock, Compression, Durability, Header, Headers,
    Health, Histogram, LogStats, ManualClock, Problem, Record, RecordBuf, RecordView, SystemClock,
    Ticket,
};
pub use logmill_stream as stream;
#[cfg(feature = "serde")]
pub use logmill_stream::TypedRecord;
pub use logmill_stream::{
    Acknowledge, Assignor, Cleanup, CommitTicket, Consumer, ConsumerConfig, ConsumerRecord,
    ConsumerWaker, Delivery, DeliveryFuture, GroupDescription, GroupKind, GroupPhase, GroupStats,
    OffsetAndMetadata, OutOfRange, Partition, PartitionReader, Producer, ProducerConfig,
    ProducerRecord, RangeReader, RebalanceListener, RecordMetadata, Records, ResetTo,
    ShareConsumer, ShareConsumerConfig, ShareGroupConfig, ShareReceipt, ShareRecord, ShareRecords,
    Skipped, StartAt, Table, TimestampType, Topic, TopicConfig, TopicPartition, TopicSettings,
};
#[cfg(feature = "tokio")]
pub use logmill_stream::{PolledRecord, ProducerSink, RecordStream};
pub use stats::Stats;
pub use store::{Store, StoreBuilder};

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(any(doc, doctest))]
#[doc = include_str!("../guide.md")]
pub mod guide {}
