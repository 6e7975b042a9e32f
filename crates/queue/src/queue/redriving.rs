//! Moving dead messages back into circulation: asking for it, and how it stands.

use std::borrow::Cow;

use super::Queue;
use crate::entry::{Entry, Fact};
use crate::error::{Error, Result};
use crate::limits::{Limit, within};
use crate::redrive::{MoveTask, RedriveFilter, RedriveStatus};
use crate::shared::Level;

/// What a redrive moves, and where to.
#[derive(Clone, Debug, Default)]
pub struct RedriveOptions {
    filter: RedriveFilter,
    target: Option<String>,
    rate: u32,
}

impl RedriveOptions {
    /// Everything, each message to the queue in which it died, as fast as it goes.
    pub fn new() -> RedriveOptions {
        RedriveOptions::default()
    }

    /// Only the messages that the filter describes.
    pub fn filter(mut self, filter: RedriveFilter) -> Self {
        self.filter = filter;
        self
    }

    /// All to the queue `name`, of the same type.
    pub fn to(mut self, name: &str) -> Self {
        self.target = Some(name.to_owned());
        self
    }

    /// At most so many messages a second: 1 to 1,000,000.
    pub fn messages_per_second(mut self, rate: u32) -> Self {
        // 0 is the default's number, and out of range here.
        self.rate = if rate == 0 { u32::MAX } else { rate };
        self
    }
}

/// A redrive, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redrive {
    /// Its number in its queue.
    pub id: u64,
    /// How it stands.
    pub status: RedriveStatus,
    /// Messages moved.
    pub moved: u64,
    /// When it began, in ms on the queues' clock.
    pub started_at: i64,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<i64>,
}

impl Queue {
    /// Begins to move dead messages back: those that lie in this queue because another died of them, and those that
    /// died here and stayed. They keep their id and history, and may be received as often again as before. What comes
    /// to this queue later stays, and so may what is edited while the redrive goes on. It does that in the background, after
    /// a crash too, until it is through or cancelled; if its target is deleted, it fails. A parked group of which it has
    /// taken all that was there goes on. Returns its number.
    ///
    /// # Errors
    /// [`Error::MoveTaskRunning`]: one at a time. [`Error::QueueDoesNotExist`] (the target), [`Error::RedriveRefused`],
    /// [`Error::OutOfBounds`].
    pub fn redrive(&self, options: &RedriveOptions) -> Result<u64> {
        let id = self.begin_redrive(options)?;
        self.shared.settle(Level::sync())?;
        Ok(id)
    }

    pub(crate) fn begin_redrive(&self, options: &RedriveOptions) -> Result<u64> {
        if options.rate != 0 {
            let rate = if options.rate == u32::MAX { 0 } else { u64::from(options.rate) };
            within(Limit::RedriveRate, rate, 1, 1_000_000)?;
        }
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let fifo = engine.slot(self.id)?.state.config.fifo;
        let target = match &options.target {
            None => None,
            Some(name) => {
                let missing = || Error::QueueDoesNotExist { name: name.clone() };
                let slot = engine.named(name).ok_or_else(missing)?;
                if slot.state.config.fifo != fifo {
                    let (source, target) = (self.name.to_string(), name.clone());
                    return Err(Error::RedriveRefused {
                        source,
                        target,
                        what: "one is FIFO and the other is not",
                    });
                }
                Some(slot.state.id)
            }
        };
        let state = &engine.slot(self.id)?.state;
        if state.tasks.values().any(|task| task.status == RedriveStatus::Running) {
            return Err(Error::MoveTaskRunning { source: self.name.to_string() });
        }
        let id = state.tasks.keys().next_back().map_or(1, |last| last + 1);
        let task = MoveTask {
            id,
            target,
            rate: options.rate,
            cursor: 0,
            below: state.next_sequence,
            moved: 0,
            started: now.time,
            ended: 0,
            status: RedriveStatus::Running,
            filter: options.filter.clone(),
        };
        let fact = Fact::MoveTask { task: Cow::Owned(task) };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)?;
        Ok(id)
    }

    /// The redrives of this queue, the latest first: the one that runs and up to 10 that have ended.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn redrives(&self) -> Result<Vec<Redrive>> {
        self.with_state(|state| {
            let shown = state.tasks.values().rev().map(|task| Redrive {
                id: task.id,
                status: task.status.clone(),
                moved: task.moved,
                started_at: task.started,
                ended_at: (task.status != RedriveStatus::Running).then_some(task.ended),
            });
            shown.collect()
        })
    }

    /// Ends a running redrive. What it has moved stays moved.
    ///
    /// # Errors
    /// [`Error::NotFound`]: no redrive with this number runs.
    pub fn cancel_redrive(&self, id: u64) -> Result<()> {
        self.begin_cancel_redrive(id)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_cancel_redrive(&self, id: u64) -> Result<()> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let time = shared.now().time;
        let task = engine.slot(self.id)?.state.tasks.get(&id);
        let Some(task) = task.filter(|task| task.status == RedriveStatus::Running) else {
            return Err(Error::NotFound { what: "running redrive" });
        };
        let task = MoveTask { status: RedriveStatus::Cancelled, ended: time, ..task.clone() };
        let fact = Fact::MoveTask { task: Cow::Owned(task) };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)
    }
}
