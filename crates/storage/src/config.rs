//! How a log behaves: durability, segments, retention, compaction.

use std::time::Duration;

use crate::compress::Compression;
use crate::error::{Error, Result};

/// What has happened to a record when its append is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is on the device: it survives power loss. One sync serves everything that was appended before it began.
    #[default]
    Sync,
    /// It is stored where kill -9 cannot take it, and is synced at the latest after this time.
    Interval(Duration),
    /// It is stored where kill -9 cannot take it. Power loss can take what the background has not synced yet.
    Buffered,
}

/// How far a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Visibility {
    /// What the log's level calls done: a synced log shows what is durable, any other what is stored.
    #[default]
    Level,
    /// Only what is durable: what was seen once never vanishes.
    Durable,
    /// Everything that is stored; power loss can take back what was seen.
    Stored,
}

/// By which way bytes get into the active segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WritePath {
    /// Mapped for logs that are not synced on ext4 and tmpfs, positional otherwise.
    #[default]
    Auto,
    /// Stores through a shared mapping of reserved blocks.
    ///
    /// On file systems other than ext4 and tmpfs a store can kill the process with SIGBUS: on btrfs when the disk is full,
    /// on XFS when the segment was cloned (`cp` does that) and the disk is full.
    Mapped,
    /// `pwrite`.
    Positional,
}

/// Which whole segments are removed, oldest first. The active segment stays. Limits combine: one that is exceeded is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Remove segments whose latest timestamp is older than this.
    pub age: Option<Duration>,
    /// Remove segments as long as those after them hold at least this many bytes.
    pub bytes: Option<u64>,
    /// Remove segments as long as those after them hold at least this many offsets.
    pub records: Option<u64>,
}

/// When and how compaction by key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// How long a tombstone is kept after the compaction that first met it, so that slow readers learn of the deletion.
    /// Default 24 h, as Kafka's `delete.retention.ms`.
    pub tombstone_retention: Duration,
    /// Records younger than this are left alone. Default 0, as Kafka's `min.compaction.lag.ms`.
    pub min_lag: Duration,
    /// How many bytes of keys one pass holds in memory. More keys than fit take more passes. Default 64 MiB.
    pub memory_bytes: usize,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        CompactionConfig {
            tombstone_retention: Duration::from_secs(24 * 60 * 60),
            min_lag: Duration::ZERO,
            memory_bytes: 64 << 20,
        }
    }
}

/// The settings of a [`Log`](crate::Log). They are given at every open and not stored; all of them may change
/// between opens, many with [`Log::set_config`](crate::Log::set_config) at any time.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub(crate) durability: Durability,
    pub(crate) visibility: Visibility,
    pub(crate) write_path: WritePath,
    pub(crate) compression: Compression,
    pub(crate) segment_bytes_max: u64,
    pub(crate) segment_age_max: Duration,
    pub(crate) record_bytes_max: u64,
    /// Frames of one commit are cut at about this size, so that a reader needs no larger buffer.
    pub(crate) frame_bytes: u64,
    pub(crate) retention: Retention,
    pub(crate) compaction: CompactionConfig,
    pub(crate) spare_bytes: u64,
    pub(crate) strict: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            durability: Durability::Sync,
            visibility: Visibility::Level,
            write_path: WritePath::Auto,
            compression: Compression::None,
            segment_bytes_max: 128 << 20,
            segment_age_max: Duration::from_secs(7 * 24 * 60 * 60),
            record_bytes_max: 16 << 20,
            frame_bytes: 1 << 20,
            retention: Retention::default(),
            compaction: CompactionConfig::default(),
            spare_bytes: 0,
            strict: false,
        }
    }
}

impl LogConfig {
    /// What an acknowledged append promises, unless a call says otherwise. Default [`Durability::Sync`].
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How far readers see. Default [`Visibility::Level`].
    pub const fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// How bytes get into the active segment. Default [`WritePath::Auto`]; the format is the same.
    pub const fn write_path(mut self, write_path: WritePath) -> Self {
        self.write_path = write_path;
        self
    }

    /// How new batches are compressed. Default none. What is there already stays as it is and readable.
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// At which size a new segment begins, in bytes: 4 KiB–1 GiB, default 128 MiB. A batch that is larger gets a segment
    /// of its own. Smaller segments make retention and compaction finer, and more files.
    pub const fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// At which age a new segment begins at the next append, at least 1 ms, default 7 days as Kafka's `segment.ms`.
    pub const fn segment_age_max(mut self, age: Duration) -> Self {
        self.segment_age_max = age;
        self
    }

    /// The largest encoded record in bytes: 1 KiB–1 GiB, default 16 MiB. Larger ones already there stay readable.
    pub const fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// At about which size a batch is cut into frames, in bytes: small here, so that small workloads have commits of several
    /// frames. Default 1 MiB.
    #[cfg(feature = "sim")]
    pub const fn frame_bytes(mut self, bytes: u64) -> Self {
        self.frame_bytes = bytes;
        self
    }

    /// What to remove as the log grows. Default: nothing.
    pub const fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How compaction works when it is asked for.
    pub const fn compaction(mut self, compaction: CompactionConfig) -> Self {
        self.compaction = compaction;
        self
    }

    /// Bytes of zero-written reserve for appends that ask for it on a full disk: 0 (none, the default) to 1 GiB.
    pub const fn spare_bytes(mut self, bytes: u64) -> Self {
        self.spare_bytes = bytes;
        self
    }

    /// Refuse to open, instead of setting bytes aside, when recovery meets bytes that may have been acknowledged.
    /// Default false.
    pub const fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let within = |name, value: u64, least, most| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::InvalidConfig { name, value, least, most }),
        };
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        within("segment_bytes_max", self.segment_bytes_max, 4 << 10, 1 << 30)?;
        within("segment_age_max (ms)", ms(self.segment_age_max), 1, i64::MAX as u64)?;
        within("record_bytes_max", self.record_bytes_max, 1 << 10, 1 << 30)?;
        within("spare_bytes", self.spare_bytes, 0, 1 << 30)?;
        within("compaction.memory_bytes", self.compaction.memory_bytes as u64, 64 << 10, u64::MAX)?;
        self.compression.check()
    }

    /// Whether readers wait for the sync.
    pub(crate) fn shows_durable_only(&self) -> bool {
        match self.visibility {
            Visibility::Durable => true,
            Visibility::Stored => false,
            Visibility::Level => self.durability == Durability::Sync,
        }
    }
}
