//! What there is in a store, in numbers: what `stats` prints and `top` shows.

use std::path::Path;
use std::time::Duration;

use logmill::storage::{DataDirOptions, Log, LogConfig};
use logmill::{GroupKind, Store};
use serde_json::{Value, json};

use crate::failure::Outcome;

/// A store in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether a process has the store open for writing.
    pub writer_is_alive: bool,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// By name.
    pub topics: Vec<TopicFigures>,
    /// By name.
    pub groups: Vec<GroupFigures>,
    /// By name.
    pub queues: Vec<QueueFigures>,
}

/// A topic in numbers, over all its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFigures {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// Offsets that are there.
    pub records: u64,
    /// Offsets that were ever given.
    pub appended: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of their files, reservations included.
    pub bytes: u64,
}

/// A group in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    /// Its name.
    pub name: String,
    /// `consumers` or `share`.
    pub kind: &'static str,
    /// Partitions in which it has a position.
    pub partitions: u64,
    /// Records that it has not read yet.
    pub lag: u64,
}

/// A queue in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    /// Its name.
    pub name: String,
    /// Messages that can be received.
    pub ready: u64,
    /// Messages whose delay is not over.
    pub delayed: u64,
    /// Messages with a consumer.
    pub in_flight: u64,
    /// Messages that failed for good.
    pub dead: u64,
    /// How long the oldest message has waited that can be received.
    pub oldest_ms: Option<u64>,
}

impl Figures {
    /// Looks at the store in `dir`, which `store` has open for reading.
    pub fn of(store: &Store, dir: &Path) -> Outcome<Figures> {
        let files = DataDirOptions::new().read_only(true).open(dir)?;
        let mut figures =
            Figures { writer_is_alive: files.writer_is_alive()?, ..Figures::default() };
        let logs = files.logs()?;
        for name in ["0", "0/1"].into_iter().filter(|name| logs.iter().any(|log| log == name)) {
            figures.journal_bytes += Log::open(&files, name, LogConfig::default())?.stats()?.bytes;
        }
        for topic in store.topics()? {
            let mut sum = TopicFigures {
                name: topic.name().to_owned(),
                partitions: topic.partition_count(),
                records: 0,
                appended: 0,
                segments: 0,
                bytes: 0,
            };
            for number in 0..topic.partition_count() {
                // A partition to which nothing was ever appended has no log.
                if !logs.contains(&format!("{}/{number}", topic.id())) {
                    continue;
                }
                let stats = topic.partition(number)?.stats()?;
                sum.records += stats.end_offset - stats.start_offset;
                sum.appended += stats.end_offset;
                sum.segments += stats.segments as u64;
                sum.bytes += stats.bytes;
            }
            figures.topics.push(sum);
        }
        for (name, kind) in store.groups()? {
            let group = store.describe_group(&name)?;
            let kind = match kind {
                GroupKind::Share => "share",
                _ => "consumers",
            };
            let (partitions, lag) = (group.partitions.len() as u64, group.lag());
            figures.groups.push(GroupFigures { name, kind, partitions, lag });
        }
        for name in store.queues("") {
            let queue = store.queue(&name)?;
            let counts = queue.counts().map_err(logmill::Error::from)?;
            let oldest = queue.oldest_claimable_age().map_err(logmill::Error::from)?;
            figures.queues.push(QueueFigures {
                name,
                ready: counts.ready,
                delayed: counts.delayed,
                in_flight: counts.in_flight,
                dead: counts.dead,
                oldest_ms: oldest.map(ms),
            });
        }
        Ok(figures)
    }

    /// As one object.
    pub fn to_json(&self) -> Value {
        let topics = self.topics.iter().map(|topic| {
            json!({
                "name": topic.name, "partitions": topic.partitions, "records": topic.records,
                "appended": topic.appended, "segments": topic.segments, "bytes": topic.bytes,
            })
        });
        let groups = self.groups.iter().map(|group| {
            json!({
                "name": group.name, "kind": group.kind, "partitions": group.partitions,
                "lag": group.lag,
            })
        });
        let queues = self.queues.iter().map(|queue| {
            json!({
                "name": queue.name, "ready": queue.ready, "delayed": queue.delayed,
                "in_flight": queue.in_flight, "dead": queue.dead,
                "oldest_claimable_age_ms": queue.oldest_ms,
            })
        });
        json!({
            "writer_is_alive": self.writer_is_alive,
            "journal_bytes": self.journal_bytes,
            "topics": topics.collect::<Vec<_>>(),
            "groups": groups.collect::<Vec<_>>(),
            "queues": queues.collect::<Vec<_>>(),
        })
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
