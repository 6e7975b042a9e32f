//! What there is in a store, in numbers: what `stats` prints and `top` shows.

use std::path::Path;
use std::time::Duration;

use logmill::queue::{Queues, QueuesOptions};
use logmill::storage::DataDir;
use logmill::stream::{Streams, StreamsOptions};
use logmill::{GroupKind, Partition, Topic};
use serde_json::{Value, json};

use crate::ends;
use crate::failure::{Failure, Outcome};
use crate::open::Place;
use crate::page::Page;

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
    /// What is damaged, of which the figures show as much as can be read.
    pub damage: Vec<String>,
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

impl QueueFigures {
    /// A queue of which nothing else is known yet.
    pub fn named(name: &str) -> QueueFigures {
        let name = name.to_owned();
        QueueFigures { name, ready: 0, delayed: 0, in_flight: 0, dead: 0, oldest_ms: None }
    }
}

/// A store that is open for reading, to be looked at again and again.
pub struct Watched {
    files: DataDir,
    streams: Streams,
}

impl Watched {
    /// Opens the store for reading, beside whatever writes to it.
    pub fn open(place: &Place) -> Outcome<Watched> {
        let files = place.open_files()?;
        let streams = Streams::follow(&files, &StreamsOptions::default())?;
        Ok(Watched { files, streams })
    }

    /// What the store's live writer has published.
    pub fn page(&self) -> Outcome<Option<Page>> {
        let page = self.files.stats_page()?;
        Ok(page.map(|page| Page::of(&page, self.files.clock().wall_ms())))
    }

    /// The queues, as the journal has them now.
    pub fn queues(&self) -> Outcome<Vec<QueueFigures>> {
        let failed = logmill::Error::from;
        let queues = Queues::follow(&self.files, QueuesOptions::default()).map_err(failed)?;
        let stats = queues.map_or(Ok(Vec::new()), |queues| queues.stats()).map_err(failed)?;
        let figures = stats.into_iter().map(|queue| QueueFigures {
            ready: queue.counts.ready,
            delayed: queue.counts.delayed,
            in_flight: queue.counts.in_flight,
            dead: queue.counts.dead,
            oldest_ms: queue.oldest_claimable_age.map(ms),
            ..QueueFigures::named(&queue.name)
        });
        Ok(figures.collect())
    }

    /// Looks at the store, of which `queues` are the queues.
    pub fn figures(&self, queues: Vec<QueueFigures>) -> Outcome<Figures> {
        let mut figures = Figures {
            writer_is_alive: self.files.writer_is_alive()?,
            journal_bytes: self.segment_bytes("0") + self.segment_bytes("0/1"),
            queues,
            damage: ends::doubts_of_journal(self.files.path(), &self.files.recovery()),
            ..Figures::default()
        };
        for topic in self.streams.topics()? {
            let sum = TopicFigures::of(&topic, self.files.path(), &mut figures.damage)?;
            figures.topics.push(sum);
        }
        for (name, kind) in self.streams.groups()? {
            let described = self.streams.describe_group(&name).map_err(Failure::from);
            let Some(group) = take_in(&mut figures.damage, described)? else { continue };
            let kind = kind_name(kind);
            let (partitions, lag) = (group.partitions.len() as u64, group.lag());
            figures.groups.push(GroupFigures { name, kind, partitions, lag });
        }
        Ok(figures)
    }

    /// Of a log that may not be there.
    fn segment_bytes(&self, log: &str) -> u64 {
        let files = self.files.io().list(Path::new(log)).unwrap_or_default();
        files.iter().filter(|file| file.name.ends_with(".log")).map(|file| file.len).sum()
    }
}

/// What kind of group it is, in a word.
pub const fn kind_name(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Share => "share",
        _ => "consumers",
    }
}

/// Notes damage; other failures stay what they are.
pub fn take_in<T>(damage: &mut Vec<String>, looked: Outcome<T>) -> Outcome<Option<T>> {
    match looked {
        Err(Failure::Corrupt(message)) => {
            // Several looks meet the same.
            if !damage.contains(&message) {
                damage.push(message);
            }
            Ok(None)
        }
        looked => looked.map(Some),
    }
}

impl TopicFigures {
    /// Those of a topic of the store in `path`, as far as it is not damaged.
    pub fn of(topic: &Topic, path: &Path, damage: &mut Vec<String>) -> Outcome<TopicFigures> {
        let mut sum = TopicFigures {
            name: topic.name().to_owned(),
            partitions: topic.partition_count(),
            records: 0,
            appended: 0,
            segments: 0,
            bytes: 0,
        };
        for partition in topic.partitions() {
            take_in(damage, sum.add(&partition))?;
            take_in(damage, ends::check(path, &partition))?;
        }
        Ok(sum)
    }

    fn add(&mut self, partition: &Partition) -> Outcome {
        // Also a look for what was appended since. One to which nothing ever was has no log.
        if partition.high_watermark()? == 0 {
            return Ok(());
        }
        let stats = partition.stats()?;
        self.records += stats.end_offset - stats.start_offset;
        self.appended += stats.end_offset;
        self.segments += stats.segments as u64;
        self.bytes += stats.bytes;
        Ok(())
    }
}

impl Figures {
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
            "damage": self.damage,
        })
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
