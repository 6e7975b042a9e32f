//! A durable, segmented, append-only log, and a journal of atomic batches on it: the ground under logmill.
//!
//! This crate knows bytes, files and offsets. It knows no topic and no queue.
//!
//! ```
//! use logmill_storage::{DataDir, Log, LogConfig, Record};
//! # let place = tempfile::tempdir().unwrap();
//! # let path = place.path();
//! let dir = DataDir::open(path)?;
//! let log = Log::open(&dir, "0", LogConfig::default())?;
//! let offset = log.append(&Record::value(b"signed up").key(b"user-7"))?; // on the device when this returns
//!
//! let mut reader = log.reader(offset)?;
//! while let Some(batch) = reader.next_batch()? {
//!     for record in batch.records().flatten() {
//!         println!("{} {:?}", record.offset, record.value);
//!     }
//! }
//! log.close()?;
//! # Ok::<(), logmill_storage::Error>(())
//! ```

#![deny(unsafe_code)]

mod active;
mod activity;
pub mod backup;
mod batch;
mod behind;
mod carry;
mod checkpoint;
pub mod clock;
mod commit;
mod committer;
mod compaction;
mod compress;
mod config;
mod data_dir;
pub mod dump;
mod epochs;
mod error;
mod events;
mod follower;
mod frames;
mod hand_over;
mod health;
mod index;
mod intent;
#[cfg(all(test, any(loom, shuttle)))]
mod interleavings;
pub mod io;
mod journal;
mod layout;
mod live_config;
mod live_page;
mod log;
mod manifest;
#[doc(hidden)]
pub mod planted;
mod producers;
mod reader;
mod record;
pub mod recovery;
mod resync;
mod retention;
pub mod salvage;
mod schedule;
mod segment;
mod segment_writer;
mod stats_page;
mod sync;
mod tail;
mod ticket;
mod varint;
pub mod verify;
mod view;
mod writer;

pub use activity::{Activity, Histogram, Label};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use batch::fuzzing;
pub use batch::{Batch, Producer, RecordBuf, Records};
pub use carry::Carry;
pub use clock::{Clock, ManualClock, SystemClock};
pub use compaction::{CompactionReport, CompactionStep};
pub use compress::Compression;
pub use config::{CompactionConfig, Durability, LogConfig, Retention, Visibility, WritePath};
pub use data_dir::{DataDir, DataDirOptions};
pub use error::{Corruption, Error, Result};
pub use health::{Health, Problem};
pub use intent::{INTENTS, Intent, Intents, JOURNAL_PRODUCER};
pub use journal::{
    Entry, Journal, Owner, Part, Place, Reach, Reclaimed, Replayed, worth_reclaiming,
};
pub use log::{Log, LogStats};
pub use reader::Reader;
pub use record::{Header, Headers, Record, RecordView};
pub use recovery::{LogRecovery, RecoveryReport};
pub use retention::BeforeRemoval;
pub use schedule::Task;
pub use stats_page::{Publisher, StatsPage, Tell};
pub use tail::Wake;
pub use ticket::{SyncTicket, Ticket};
pub use writer::{AppendOptions, Appended};
