//! What is done to a store before its disk fails, and what must be there afterwards.

use std::path::Path;
use std::time::Duration;

use logmill::storage::recovery::{RecoveryReport, Verdict};
use logmill::storage::verify::{Severity, verify};
use logmill::storage::{DataDir, DataDirOptions, Log};
use logmill_torture::random::{Random, mix};

use crate::history::{Moment, Violation};
use crate::tools::{Outcome, failed};

mod append;
mod compaction;
mod queue;

pub use append::Appends;
pub use compaction::Compaction;
pub use queue::Deletes;

/// What an acknowledgement of the workload rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every call is synced.
    Sync,
    /// Calls are buffered; only an explicit sync acknowledges.
    Buffered,
    /// Calls are buffered and taken for synced all the same: what must be caught.
    Lying,
}

/// Operations on a store, and the memory of them.
pub trait Workload {
    /// Plays `operations` operations on a new store in `store`. `now` tells the time in the log of writes.
    fn play(
        &mut self,
        store: &Path,
        operations: usize,
        level: Level,
        random: &mut Random,
        now: &dyn Fn() -> Moment,
    ) -> Outcome;

    /// Opens what a crash at `moment` has left, and holds it against the memory; goes on using it, and opens it again.
    fn check(&self, store: &Path, moment: Moment) -> Result<Seen, Violation>;
}

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Append,
    Queue,
    Compaction,
}

impl Kind {
    /// One that has done nothing yet.
    pub fn workload(self) -> Box<dyn Workload> {
        match self {
            Kind::Append => Box::new(Appends::default()),
            Kind::Queue => Box::new(Deletes::default()),
            Kind::Compaction => Box::new(Compaction::default()),
        }
    }
}

/// What an opening was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Something was begun and is not there, and need not be.
    pub lossy: bool,
    /// Bytes were cut off.
    pub cut: bool,
    /// Bytes were set aside.
    pub quarantined: bool,
}

impl Seen {
    fn new(lossy: bool, report: Option<&RecoveryReport>) -> Seen {
        let verdict = |is: Verdict| report.is_some_and(|report| report.verdict == is);
        Seen { lossy, cut: verdict(Verdict::Cut), quarantined: verdict(Verdict::Ambiguous) }
    }
}

/// The bytes that belong to a number: its eight, and up to two thousand more, now and then ten thousand.
pub fn payload(id: u64) -> Vec<u8> {
    let mut bytes = Random::new(mix(id ^ 0x7061_796c_6f61_6400));
    let len = if bytes.once_in(40) { bytes.below(10_000) } else { bytes.below(2_000) };
    let mut value = id.to_le_bytes().to_vec();
    value.extend((0..len).map(|_| bytes.next() as u8));
    value
}

/// A directory in memory for images and mount points.
pub fn home() -> Outcome<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("logmill-rigs-")
        .tempdir_in("/dev/shm")
        .map_err(failed("a directory in /dev/shm"))
}

/// The directory of a store. A handle that was just dropped may still be let go of by the background.
pub fn dir(store: &Path) -> logmill::storage::Result<DataDir> {
    DataDirOptions::new().lock_wait(Duration::from_secs(10)).open(store)
}

/// The engine finds nothing wrong with the logs in a directory, but for bytes that recovery has set aside.
pub fn sound(store: &Path) -> Result<(), Violation> {
    let found = dir(store).and_then(|dir| verify(&dir, &mut |_| {})).map_err(refused("verify"))?;
    match found.worst {
        None | Some(Severity::Note | Severity::Ambiguous) => Ok(()),
        Some(worst) => Err(Violation::Refused(format!("verify found {worst:?}: {found:?}"))),
    }
}

/// An error of the engine where there must be none.
fn refused<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Violation {
    move |e| Violation::Refused(format!("{what}: {e}"))
}

/// How many records a log holds, which must be those that were appended, in order.
pub fn read(log: &Log) -> Outcome<u64> {
    let mut next = 0;
    let mut reader = log.reader(0).map_err(failed("reader"))?;
    while let Some(batch) = reader.next_batch().map_err(failed("reading"))? {
        for record in batch.records() {
            let record = record.map_err(failed("decoding"))?;
            if (record.offset, record.value) != (next, Some(&payload(next))) {
                return Err(format!("something else at offset {next}"));
            }
            next += 1;
        }
    }
    Ok(next)
}
