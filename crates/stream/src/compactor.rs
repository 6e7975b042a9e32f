//! Compaction in the background: one partition after the other, by one thread, and only where it is worth reading.
//!
//! A task of its own beside the keeper's, since a large partition takes a while and members' time-outs do not wait. It reads a
//! tenth of a second's worth, or one segment, and rests for as long as what was read lasts at the rate that is permitted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{CompactionStep, Task};
use parking_lot::Mutex;

use crate::PartitionId;
use crate::error::Result;
use crate::partition::{OpenLog, Partition};
use crate::producer::remember_sequences;
use crate::shared::Shared;

/// How often partitions are looked at, as Kafka's `log.cleaner.backoff.ms`.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A closed log is opened so often to see whether it has grown.
const VISIT_EVERY: Duration = Duration::from_secs(30 * 60);

/// What the last compaction of this process has left of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    end_offset: u64,
    bytes: u64,
    at: Duration,
    /// It may find more without new records: tombstones whose time has come.
    is_unfinished: bool,
}

impl Compacted {
    /// Whether the time has come for what had to be kept for a while.
    fn is_overdue(&self, now: Duration, keeps_for: Duration) -> bool {
        self.is_unfinished && now.saturating_sub(self.at) >= keeps_for
    }
}

/// What a partition is like now.
#[derive(Clone, Copy, Debug)]
struct Now {
    end_offset: u64,
    bytes: u64,
    at: Duration,
}

/// Whether a partition is worth reading: half of it is new, as with Kafka's `min.cleanable.dirty.ratio`, or something is
/// overdue.
fn is_worth_it(last: Option<Compacted>, now: Now, keeps_for: Duration) -> bool {
    let Some(last) = last else { return true };
    let has_doubled = now.end_offset > last.end_offset && now.bytes / 2 >= last.bytes;
    has_doubled || last.is_overdue(now.at, keeps_for)
}

/// Does the compactions of a store.
#[derive(Debug)]
pub(crate) struct Compactor {
    shared: Weak<Shared>,
    bytes_per_second: u64,
    /// The partition that was compacted last: those behind it come next, so that none waits for ever.
    last: Mutex<Option<PartitionId>>,
    /// The one that is half done. Its log is not closed for being idle.
    resting: Mutex<Option<(PartitionId, Arc<OpenLog>)>>,
}

impl Compactor {
    pub(crate) fn new(shared: &Arc<Shared>, bytes_per_second: u64) -> Arc<Compactor> {
        let shared = Arc::downgrade(shared);
        let (last, resting) = (Mutex::default(), Mutex::default());
        Arc::new(Compactor { shared, bytes_per_second, last, resting })
    }

    pub(crate) fn schedule(self: &Arc<Self>, shared: &Shared, after: Duration) {
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(self) as Arc<dyn Task>));
        shared.dir.after(after, task);
    }

    /// How long so many bytes last.
    fn rest_after(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The partitions of compacted topics, in the order in which it is their turn.
    fn turns(&self, shared: &Shared) -> Vec<PartitionId> {
        let topics = shared.topics.read().sorted();
        let compacted = topics.iter().filter(|topic| topic.settings().cleanup.compacts());
        let mut ids: Vec<_> =
            compacted.flat_map(|topic| topic.partitions()).map(|core| core.id).collect();
        ids.sort_unstable();
        let behind = ids.partition_point(|id| Some(*id) <= *self.last.lock());
        ids.rotate_left(behind);
        ids
    }

    /// Does the next part of a partition's compaction; says how many bytes it read.
    fn work(&self, shared: &Arc<Shared>, id: PartitionId, log: Arc<OpenLog>) -> Result<u64> {
        let step = log.compact_step(self.bytes_per_second / 10);
        let is_done = !matches!(step, Ok(CompactionStep { report: None, .. }));
        if is_done {
            *self.last.lock() = Some(id);
        } else {
            *self.resting.lock() = Some((id, log));
        }
        let step = step?;
        if let Some(report) = step.report {
            shared.partition(id)?.note_compacted(report.is_idle())?;
        }
        Ok(step.bytes_read)
    }
}

impl Task for Compactor {
    fn run(self: Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        // One that was given up is compacted anew, in its turn.
        let resting = self.resting.lock().take().filter(|(_, log)| !log.is_given_up());
        let chosen = |id| {
            let partition = shared.partition(id).ok()?;
            Some((id, partition.log_if_worth_it().ok()??))
        };
        let turns = std::iter::once_with(|| self.turns(&shared)).flatten().filter_map(chosen);
        // What fails here is tried again, and a log that is damaged tells its readers.
        for (id, log) in resting.into_iter().chain(turns) {
            if let Ok(bytes) = self.work(&shared, id, log) {
                return self.schedule(&shared, self.rest_after(bytes));
            }
        }
        self.schedule(&shared, LOOK_EVERY);
    }
}

impl Partition {
    /// The log, if it is worth being compacted.
    fn log_if_worth_it(&self) -> Result<Option<Arc<OpenLog>>> {
        let at = self.shared.dir.clock().monotonic();
        let last = *self.core.compacted.lock();
        let keeps_for = self.topic.settings().tombstone_retention;
        if !self.core.is_open() {
            // Nothing was appended since it was closed, but it may have grown before.
            let visited = *self.core.visited_to_compact.lock();
            let is_due = visited.is_none_or(|visited| at.saturating_sub(visited) >= VISIT_EVERY)
                || last.is_some_and(|last| last.is_overdue(at, keeps_for));
            if !is_due || !self.has_log() {
                return Ok(None);
            }
        }
        *self.core.visited_to_compact.lock() = Some(at);
        let log = self.log()?;
        let stats = log.stats()?;
        let now = Now { end_offset: stats.end_offset, bytes: stats.bytes, at };
        if !is_worth_it(last, now, keeps_for) {
            return Ok(None);
        }
        remember_sequences(&self.shared, self.id(), &log)?;
        Ok(Some(log))
    }

    /// Notes what a compaction has left.
    pub(crate) fn note_compacted(&self, is_idle: bool) -> Result<()> {
        let stats = self.stats()?;
        let mut compacted = self.core.compacted.lock();
        let has_new = compacted.is_none_or(|last| last.end_offset < stats.end_offset);
        // What is too young now is looked at again, whatever was found.
        let waits = !self.topic.settings().compaction_lag_min.is_zero();
        *compacted = Some(Compacted {
            end_offset: stats.end_offset,
            bytes: stats.bytes,
            at: self.shared.dir.clock().monotonic(),
            is_unfinished: has_new || !is_idle || waits,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_worth_reading_when_half_of_it_is_new_or_tombstones_may_go() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let last =
            |is_unfinished| Some(Compacted { end_offset: 10, bytes: 100, at: HOUR, is_unfinished });
        let now = |end_offset, bytes, hours| Now { end_offset, bytes, at: HOUR * hours };
        assert!(is_worth_it(None, now(0, 0, 1), HOUR));
        assert!(!is_worth_it(last(true), now(11, 199, 1), HOUR), "not half of it is new");
        assert!(is_worth_it(last(false), now(11, 200, 1), HOUR));
        assert!(!is_worth_it(last(false), now(10, 200, 1), HOUR), "only reserved");
        assert!(is_worth_it(last(true), now(10, 100, 2), HOUR));
        assert!(!is_worth_it(last(false), now(10, 100, 9), HOUR), "nothing is left to go");
    }
}
