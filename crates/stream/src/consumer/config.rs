//! How a consumer behaves.

use std::time::Duration;

use logmill_storage::{Clock, Durability};

use crate::Assignor;
use crate::config::to_ms;
use crate::error::Result;
use crate::partition::OpenLog;

/// Where a group begins in a partition in which it has no position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// The first record that is there.
    Earliest,
    /// After the last record, so that only later ones are read.
    #[default]
    Latest,
    /// The first record of the last so many.
    By(Duration),
    /// Nowhere: the poll fails with [`Error::NoPosition`](crate::Error::NoPosition).
    Nowhere,
}

impl StartAt {
    /// The offset in a log; `None` for nowhere.
    pub(crate) fn offset(self, log: &OpenLog, clock: &dyn Clock) -> Result<Option<u64>> {
        Ok(Some(match self {
            StartAt::Earliest => log.start_offset(),
            StartAt::Latest => log.high_watermark(),
            StartAt::By(back) => {
                let from = clock.wall_ms().saturating_sub(to_ms(back));
                log.offset_for_timestamp(from)?.unwrap_or_else(|| log.high_watermark())
            }
            StartAt::Nowhere => return Ok(None),
        }))
    }
}

/// What happens when the records at a consumer's position were removed by retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutOfRange {
    /// It goes on with the first record that is there, and [`Records::skipped`](crate::Records::skipped) says so.
    #[default]
    Earliest,
    /// It goes on after the last record, and [`Records::skipped`](crate::Records::skipped) says so.
    Latest,
    /// The poll fails with [`Error::PositionRemoved`](crate::Error::PositionRemoved) until the consumer seeks.
    Error,
}

/// How a consumer behaves. The defaults are Kafka's unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    pub(crate) assignor: Assignor,
    pub(crate) instance: Option<String>,
    pub(crate) session_timeout: Duration,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) commit_durability: Option<Durability>,
    pub(crate) start_at: StartAt,
    pub(crate) out_of_range: OutOfRange,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) partition_bytes_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        ConsumerConfig {
            assignor: Assignor::default(),
            instance: None,
            session_timeout: Duration::from_secs(300),
            auto_commit: Some(Duration::from_secs(5)),
            commit_durability: None,
            start_at: StartAt::default(),
            out_of_range: OutOfRange::default(),
            records_max: 500,
            bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
        }
    }
}

impl ConsumerConfig {
    /// The defaults.
    pub fn new() -> ConsumerConfig {
        ConsumerConfig::default()
    }

    /// How the group's partitions are dealt out; all members must agree. Default [`Assignor::CooperativeSticky`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = assignor;
        self
    }

    /// Makes this a static member with this name: when it is dropped or closed, its partitions wait for a member of the
    /// same name for the session time-out before others get them. Default: none.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// How long the consumer may go without polling, committing or [`heartbeat`](crate::Consumer::heartbeat) before its
    /// partitions go to others, default 5 minutes. Between threads of one process there is no network to lose, so one
    /// time stands for Kafka's `session.timeout.ms` and `max.poll.interval.ms`. While it waits in a poll a consumer is
    /// alive however long that takes.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Commits by itself, during a poll, what earlier polls returned, at least so long after the last time. `None`: only
    /// when told. Default 5 seconds.
    pub fn auto_commit(mut self, interval: Option<Duration>) -> Self {
        self.auto_commit = interval;
        self
    }

    /// When a commit that is waited for returns. Default: what the store says, which is [`Durability::Sync`] unless it was
    /// told otherwise: when it is on the disk. One sync serves all who wait at the same time.
    pub fn commit_durability(mut self, durability: Durability) -> Self {
        self.commit_durability = Some(durability);
        self
    }

    /// Where the group begins in a partition in which it has no position, default [`StartAt::Latest`].
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start_at = start;
        self
    }

    /// What happens when the records at the position were removed by retention, default [`OutOfRange::Earliest`]. (Kafka
    /// has one setting, `auto.offset.reset`, for this and for the start.)
    pub fn out_of_range(mut self, policy: OutOfRange) -> Self {
        self.out_of_range = policy;
        self
    }

    /// How many records a poll returns at most, at least 1, default 500.
    pub fn records_max(mut self, records: usize) -> Self {
        self.records_max = records.max(1);
        self
    }

    /// How many bytes of keys, values and headers a poll returns at most, but always at least one record. Default 50 MiB.
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes.max(1);
        self
    }

    /// The same for each partition, default 1 MiB.
    pub fn partition_bytes_max(mut self, bytes: usize) -> Self {
        self.partition_bytes_max = bytes.max(1);
        self
    }
}
