//! What a store has done and holds, as plain numbers.

use std::fmt;

use logmill_queue::{QueueStats, SpaceReport};
use logmill_storage::{Activity, Health};
use logmill_stream::GroupStats;

use crate::error::Result;
use crate::store::Store;

/// What a store has done since it was opened, and what it holds now: [`Store::stats`].
///
/// [`Display`](std::fmt::Display) gives it in Prometheus' text format.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Appends, syncs, space and recovery of all logs.
    pub activity: Activity,
    /// What the queues hold of the journal, and what was given back.
    pub space: SpaceReport,
    /// Every queue, by name.
    pub queues: Vec<QueueStats>,
    /// Every consumer and share group, by name.
    pub groups: Vec<GroupStats>,
    /// What background work could not do.
    pub health: Health,
}

impl Store {
    /// What the store has done since it was opened, and what it holds.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage).
    /// # Cost
    /// The counters cost some hundred loads. Each queue takes the queues' lock three times for an instant; each group looks
    /// at the ends of its partitions, which opens those that are closed. Meant for every few seconds.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats {
            activity: self.dir.activity(),
            groups: self.streams.group_stats()?,
            health: self.health(),
            ..Stats::default()
        };
        if let Some(queues) = &self.queues {
            (stats.space, stats.queues) = (queues.space(), queues.stats()?);
        }
        Ok(stats)
    }

    /// What background work (retention, compaction, checkpoints, delayed messages, idle syncs) could not do at its last
    /// try, and which logs cannot be written to until the store is opened again. It goes on trying by itself.
    pub fn health(&self) -> Health {
        self.dir.health()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.activity.fmt(f)?;
        let problems = self.health.problems.len();
        writeln!(f, "# TYPE logmill_problems gauge\nlogmill_problems {problems}")?;
        GroupStats::write_text(&self.groups, f)?;
        QueueStats::write_text(&self.queues, f)
    }
}
