//! Message queues with the semantics of SQS, in the user's process, on a write-ahead log with delete markers.
//!
//! With feature `tokio`, each call that waits for the disk or for messages has a twin whose name ends in `_async`, and
//! `Queue::messages` makes a queue a `futures::Stream`. The twins need a runtime with its timer on. A call that neither
//! syncs nor waits (`nack`, `release`, `change_visibility`, `counts`) needs no twin. Those that wait for more than a sync have
//! none, since a task would only hand them to a thread: making, deleting and closing queues, `RunningWorker::shutdown`.
//!
//! With feature `serde`, bodies are values: `Queue::send_json`, `Queue::receive_json`, `StoredMessage::json`.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod bodies;
mod carry;
mod checkpoint;
mod clock;
mod codec;
mod config;
mod decide;
mod dedup;
mod engine;
mod entry;
mod envelope;
mod error;
mod failing;
mod graves;
mod held;
mod keeper;
mod kept;
mod limits;
mod location;
mod message;
mod queue;
mod queues;
mod ready;
mod receipt;
mod recent;
mod recent_bodies;
mod redrive;
mod redriving;
mod replay;
mod retry;
mod run;
mod schedule;
mod shared;
mod signal;
mod space;
mod standing;
mod state;
mod stats;
mod stored;
#[cfg(feature = "serde")]
mod typed;
mod worker;

pub use config::{
    DeduplicationScope, DeduplicationWindow, OnFailure, Overflow, QueueConfig, RedriveAllow, Retry,
};
pub use engine::{SpaceReport, Tally};
pub use entry::{JOURNAL_OWNER, describe_entry};
pub use envelope::{Death, DeathReason, Past};
pub use error::{Error, Result};
pub use held::{Attempt, Outcome};
pub use limits::Limit;
pub use logmill_storage::Durability;
pub use message::{Attribute, AttributeKind, Message, MessageId};
pub use queue::{
    Edit, Queue, ReceiveOptions, Redrive, RedriveOptions, Replay, ReplayFrom, ScheduleInfo,
    Section, Sent,
};
pub use queues::{Queues, QueuesOptions};
pub use receipt::Receipt;
pub use redrive::{RedriveFilter, RedriveStatus};
pub use schedule::{Missed, Repeat};
pub use state::Counts;
pub use stats::QueueStats;
pub use stored::{MessageState, ReceivedMessage, StoredMessage};
#[cfg(feature = "serde")]
pub use typed::Typed;
pub use worker::{Failure, RunningWorker, Worker, WorkerOptions, WorkerReport};
