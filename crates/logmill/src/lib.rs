//! Durable message queues and streams inside your process: what SQS and Kafka give, in one directory, with no broker.
//!
//! | what happens to a thing that was written | take |
//! |---|---|
//! | somebody does it once, and it is gone; failures come back, later, and end in a dead-letter queue | a [`Queue`] |
//! | many read it, each at its own pace, in order for each key, again if they like | a [`Topic`], a [`Producer`], [`Consumer`]s |
//! | many read it together and acknowledge each record by itself | a [`Topic`], [`ShareConsumer`]s |
//!
//! A queue hands work to workers; what is not deleted in time comes again:
//!
//! ```
//! use logmill::{Message, QueueConfig, ReceiveOptions, Store};
//! # let place = tempfile::tempdir().unwrap();
//! # let dir = place.path();
//! let store = Store::open(dir)?;
//! let mail = store.create_queue("mail", &QueueConfig::standard())?; // made, or found
//! mail.send(&Message::new(b"welcome user-7"))?; // on the disk when this returns
//!
//! for message in mail.receive(&ReceiveOptions::new().max(10))? {
//!     assert_eq!(message.body(), b"welcome user-7");
//!     mail.delete(message.receipt())?; // done, durably
//! }
//! store.close()?;
//! # Ok::<(), logmill::Error>(())
//! ```
//!
//! A stream keeps its records for whoever reads them, now or later; each group remembers how far it came:
//!
//! ```
//! use std::time::Duration;
//! use logmill::{ConsumerConfig, ProducerRecord, StartAt, Store, TopicConfig};
//! # let place = tempfile::tempdir().unwrap();
//! # let dir = place.path();
//! let store = Store::open(dir)?;
//! store.ensure_topic("user-events", TopicConfig::new().partitions(3))?;
//! let producer = store.producer()?;
//! let signed_up = ProducerRecord::new("user-events", b"signed up").key(b"user-7");
//! producer.send(&signed_up)?.wait()?; // on the disk
//!
//! let mut analytics = store.consumer_with("analytics", ConsumerConfig::new().start_at(StartAt::Earliest))?;
//! analytics.subscribe(&["user-events"])?;
//! for record in analytics.poll(Duration::from_secs(1))?.iter() {
//!     assert_eq!(record.value, Some(b"signed up".as_slice()));
//! }
//! analytics.commit()?; // the next run goes on from here
//! store.close()?;
//! # Ok::<(), logmill::Error>(())
//! ```
//!
//! What `Ok` promises is a [`Durability`], of the store, a topic, a queue or a single call; the default survives power loss.
//! One process has a store open for writing, others may read beside it. Nothing has to be started: retention, compaction and
//! delayed messages run on two threads until [`Store::close`].
//!
//! Then: the [`guide`] has an example of each thing that a store does, [`Store`] every call from which the others follow,
//! [`Error`] what can go wrong. [`queue`], [`stream`] and [`storage`] are the crates below, whole.
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
