//! Message queues with the semantics of SQS, in the user's process, on a write-ahead log with delete markers.
#![forbid(unsafe_code)]
#![expect(dead_code, reason = "the engine that calls the state machine is being added")]

mod codec;
mod config;
mod decide;
mod dedup;
mod entry;
mod envelope;
mod error;
mod held;
mod limits;
mod location;
mod message;
mod ready;
mod receipt;
mod recent;
mod redrive;
mod retry;
mod run;
mod schedule;
mod space;
mod standing;
mod state;

pub use config::{
    DeduplicationScope, DeduplicationWindow, OnFailure, Overflow, QueueConfig, RedriveAllow, Retry,
};
pub use envelope::{Death, DeathReason, Past};
pub use error::{Error, Result};
pub use held::{Attempt, Outcome};
pub use limits::Limit;
pub use message::{Attribute, AttributeKind, Message, MessageId};
pub use receipt::Receipt;
pub use state::Counts;
