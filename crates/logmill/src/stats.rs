//! What a store has done and holds, as plain numbers.

use std::time::Duration;

use logmill_queue::{Counts, SpaceReport, Tally};
use logmill_storage::{Activity, Health};
use logmill_stream::GroupKind;

use crate::error::{Error, Result};
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

/// One queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Its messages by state, exact at this moment.
    pub counts: Counts,
    /// How long the oldest message that could be received now has been waiting.
    pub oldest_claimable_age: Option<Duration>,
    /// What has happened in it since the store was opened.
    pub tally: Tally,
}

/// One group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: String,
    /// Whether its members share partitions or records.
    pub kind: GroupKind,
    /// How many members it has in this process.
    pub members: usize,
    /// Records between its positions and the ends of its partitions.
    pub lag: u64,
}

impl Store {
    /// What the store has done since it was opened, and what it holds.
    ///
    /// # Errors
    /// [`Error::Storage`].
    /// # Cost
    /// The counters cost some hundred loads. Each queue takes the queues' lock three times for an instant; each group looks
    /// at the ends of its partitions, which opens those that are closed. Meant for every few seconds.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats {
            activity: self.dir().activity(),
            space: self.queue_space(),
            health: self.health(),
            ..Stats::default()
        };
        for name in self.queues("") {
            match self.queue_stats(name) {
                Ok(queue) => stats.queues.push(queue),
                // It was deleted this moment.
                Err(Error::Queue(logmill_queue::Error::QueueDoesNotExist { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        for (name, kind) in self.groups()? {
            match self.describe_group(&name) {
                Ok(group) => stats.groups.push(GroupStats {
                    name,
                    kind,
                    members: group.members.len(),
                    lag: group.partitions.iter().map(|partition| partition.lag).sum(),
                }),
                Err(Error::Stream(logmill_stream::Error::UnknownGroup { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(stats)
    }

    fn queue_stats(&self, name: String) -> Result<QueueStats> {
        let queue = self.queue(&name)?;
        Ok(QueueStats {
            counts: queue.counts()?,
            oldest_claimable_age: queue.oldest_claimable_age()?,
            tally: queue.tally()?,
            name,
        })
    }

    /// What background work (retention, compaction, checkpoints, delayed messages, idle syncs) could not do at its last
    /// try, and which logs cannot be written to until the store is opened again. It goes on trying by itself.
    pub fn health(&self) -> Health {
        self.dir().health()
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Activity { appends, records, bytes, reclaimed_bytes, .. } = &self.activity;
        let counters = [
            ("appends", appends),
            ("records", records),
            ("appended_bytes", bytes),
            ("reclaimed_bytes", reclaimed_bytes),
        ];
        for (name, value) in counters {
            writeln!(f, "# TYPE logmill_{name}_total counter\nlogmill_{name}_total {value}")?;
        }
        let recovery = self.activity.recovery_time.as_secs_f64();
        writeln!(f, "# TYPE logmill_recovery_seconds gauge\nlogmill_recovery_seconds {recovery}")?;
        histogram(f, "sync_seconds", &self.activity.sync_micros, 1e-6)?;
        histogram(f, "group_appends", &self.activity.group_sizes, 1.0)?;
        writeln!(
            f,
            "# TYPE logmill_problems gauge\nlogmill_problems {}",
            self.health.problems.len()
        )?;
        writeln!(f, "# TYPE logmill_group_lag gauge")?;
        for group in &self.groups {
            writeln!(f, "logmill_group_lag{{group={}}} {}", label(&group.name), group.lag)?;
        }
        writeln!(f, "# TYPE logmill_queue_messages gauge")?;
        for queue in &self.queues {
            let Counts { ready, delayed, in_flight, dead, .. } = queue.counts;
            let states =
                [("ready", ready), ("delayed", delayed), ("in_flight", in_flight), ("dead", dead)];
            for (state, count) in states {
                let name = label(&queue.name);
                writeln!(f, "logmill_queue_messages{{queue={name},state=\"{state}\"}} {count}")?;
            }
        }
        writeln!(f, "# TYPE logmill_queue_oldest_claimable_seconds gauge")?;
        for queue in &self.queues {
            let age = queue.oldest_claimable_age.unwrap_or_default().as_secs_f64();
            let name = label(&queue.name);
            writeln!(f, "logmill_queue_oldest_claimable_seconds{{queue={name}}} {age}")?;
        }
        Ok(())
    }
}

fn histogram(
    f: &mut std::fmt::Formatter<'_>,
    name: &str,
    histogram: &logmill_storage::Histogram,
    unit: f64,
) -> std::fmt::Result {
    writeln!(f, "# TYPE logmill_{name} histogram")?;
    let mut seen = 0;
    for (bound, count) in histogram.buckets() {
        seen += count;
        writeln!(f, "logmill_{name}_bucket{{le=\"{}\"}} {seen}", bound as f64 * unit)?;
    }
    writeln!(f, "logmill_{name}_bucket{{le=\"+Inf\"}} {seen}")?;
    writeln!(f, "logmill_{name}_sum {}\nlogmill_{name}_count {seen}", histogram.sum() as f64 * unit)
}

fn label(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
