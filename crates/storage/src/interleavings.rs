//! The interleavings of the writer's, the reader's and the retention's threads, by model checkers.
//!
//! `RUSTFLAGS="--cfg loom --cfg planted" cargo test --release -p logmill-storage --lib -- interleavings` goes through all of them (and
//! what else the memory model allows) of few threads with few steps; the same with `--cfg shuttle` through many random ones of
//! whole histories. What either of them must notice is planted: a checker that finds nothing in wrong code has not looked.

#[cfg(loom)]
mod exhaustive;
#[cfg(shuttle)]
mod random;

use std::panic::{UnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::ManualClock;
use crate::data_dir::DataDirOptions;
use crate::io::sim::SimDisk;
use crate::log::Log;
use crate::planted::{Bug, plant};
use crate::{DataDir, LogConfig};

fn options(threads: usize) -> DataDirOptions {
    DataDirOptions::new().threads(threads).clock(Arc::new(ManualClock::at(1_700_000_000_000)))
}

fn open(disk: &SimDisk, threads: usize, config: LogConfig) -> (DataDir, Log) {
    let dir = options(threads).open_with(disk.io()).unwrap();
    let log = Log::open(&dir, "1", config).unwrap();
    (dir, log)
}

/// A planted bug is awake for all threads of the process, so tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `check` fails while `bug` is awake.
fn notices<T>(bug: Bug, check: impl FnOnce() -> T + UnwindSafe) -> bool {
    plant(Some(bug));
    let outcome = catch_unwind(check);
    plant(None);
    outcome.is_err()
}
