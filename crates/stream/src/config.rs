//! How a topic behaves.

use std::time::Duration;

use logmill_storage::{CompactionConfig, Compression, Durability, LogConfig, Retention};

use crate::error::{Error, Result};
use crate::settings::{Setting, Settings};

/// Most partitions that a topic may have.
pub(crate) const PARTITIONS_MAX: u32 = 10_000;
/// Kafka's default of `retention.ms`.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Stands for "without limit" where Kafka writes -1.
const UNLIMITED: i64 = -1;

/// What happens to old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cleanup {
    /// Whole segments go, oldest first, by age, bytes or count.
    #[default]
    Delete,
    /// The latest record of each key stays, for ever.
    Compact,
    /// Both: the latest record of each key stays until its segment goes.
    CompactAndDelete,
}

impl Cleanup {
    /// Whether whole segments go.
    pub const fn deletes(self) -> bool {
        matches!(self, Cleanup::Delete | Cleanup::CompactAndDelete)
    }

    /// Whether older records of a key go.
    pub const fn compacts(self) -> bool {
        matches!(self, Cleanup::Compact | Cleanup::CompactAndDelete)
    }
}

/// Which time a record has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestampType {
    /// The one that the producer gave, or else the time of the append.
    #[default]
    CreateTime,
    /// The time of the append, whatever the producer gave.
    LogAppendTime,
}

/// What a topic shall be like: what is not set stays as it is, or gets its default.
///
/// ```
/// # use std::time::Duration;
/// use logmill_stream::{Cleanup, TopicConfig};
/// let config = TopicConfig::new().partitions(3).retention(Some(Duration::from_secs(86_400))).cleanup(Cleanup::Delete);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicConfig {
    pub(crate) partitions: Option<u32>,
    pub(crate) settings: Settings,
}

impl TopicConfig {
    /// Nothing set.
    pub fn new() -> TopicConfig {
        TopicConfig::default()
    }

    /// How many partitions, 1 to 10,000, default 1. Later there can be more, never fewer, and more of them send the
    /// records of a key to another partition than before.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// How long records are kept, default 7 days, `None` for ever. Whole segments go when their newest record is older;
    /// the active one stays. A shorter time holds for the records that are there already.
    pub fn retention(self, time: Option<Duration>) -> Self {
        self.with(Setting::RetentionMs, time.map_or(UNLIMITED, to_ms))
    }

    /// How many bytes a partition keeps at least, default `None`: without limit.
    pub fn retention_bytes(self, bytes: Option<u64>) -> Self {
        self.with(Setting::RetentionBytes, bytes.map_or(UNLIMITED, to_i64))
    }

    /// How many records a partition keeps at least, default `None`: without limit.
    pub fn retention_records(self, records: Option<u64>) -> Self {
        self.with(Setting::RetentionRecords, records.map_or(UNLIMITED, to_i64))
    }

    /// What happens to old records, default [`Cleanup::Delete`].
    pub fn cleanup(self, cleanup: Cleanup) -> Self {
        let number = match cleanup {
            Cleanup::Delete => 0,
            Cleanup::Compact => 1,
            Cleanup::CompactAndDelete => 2,
        };
        self.with(Setting::CleanupPolicy, number)
    }

    /// The size at which a segment is sealed, in bytes: 4 KiB to 1 GiB, default 128 MiB. Only sealed segments can be
    /// deleted or compacted.
    pub fn segment_bytes_max(self, bytes: u64) -> Self {
        self.with(Setting::SegmentBytes, to_i64(bytes))
    }

    /// The age at which a segment is sealed, at least 1 ms, default 7 days.
    pub fn segment_age_max(self, age: Duration) -> Self {
        self.with(Setting::SegmentMs, to_ms(age))
    }

    /// How new batches are compressed, default not at all. What is there already stays readable.
    pub fn compression(self, compression: Compression) -> Self {
        self.with(Setting::CompressionType, i64::from(compression.codec()))
    }

    /// When an append is acknowledged unless the call says otherwise, default [`Durability::Sync`].
    pub fn durability(self, durability: Durability) -> Self {
        match durability {
            Durability::Sync => self.with(Setting::Durability, 0),
            Durability::Buffered => self.with(Setting::Durability, 1),
            Durability::Interval(interval) => self
                .with(Setting::Durability, 2)
                .with(Setting::DurabilityIntervalMs, to_ms(interval)),
        }
    }

    /// The largest record, encoded, in bytes: 1 KiB to 1 GiB, default 16 MiB.
    pub fn record_bytes_max(self, bytes: u64) -> Self {
        self.with(Setting::MaxMessageBytes, to_i64(bytes))
    }

    /// How long a tombstone survives the compaction that first meets it, default 24 h.
    pub fn tombstone_retention(self, time: Duration) -> Self {
        self.with(Setting::DeleteRetentionMs, to_ms(time))
    }

    /// How long a record is safe from compaction, default 0.
    pub fn compaction_lag_min(self, time: Duration) -> Self {
        self.with(Setting::MinCompactionLagMs, to_ms(time))
    }

    /// Which time records have, default [`TimestampType::CreateTime`].
    pub fn timestamps(self, kind: TimestampType) -> Self {
        let number = match kind {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => 1,
        };
        self.with(Setting::MessageTimestampType, number)
    }

    /// Sets one setting by its name (Kafka's where Kafka has it, such as `retention.ms`) from text.
    ///
    /// Numbers are decimal, -1 means without limit where Kafka says so. `cleanup.policy` is `delete`, `compact` or
    /// `compact,delete`; `compression.type` is `none`, `lz4` or `zstd`; `durability` is `sync`, `buffered` or `interval`;
    /// `message.timestamp.type` is `CreateTime` or `LogAppendTime`.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`]: no topic has this setting, or not this value.
    pub fn set(mut self, name: &str, value: &str) -> Result<Self> {
        let known =
            Setting::ALL.iter().find(|setting| setting.name() == name && (**setting as u8) < 32);
        let Some(setting) = known else {
            return Err(Error::InvalidSetting {
                name: name.chars().take(64).collect(),
                value: value.chars().take(64).collect(),
                expected: "the name of a topic's setting, such as retention.ms",
            });
        };
        let number = match (setting, value) {
            (Setting::CleanupPolicy, "delete")
            | (Setting::CompressionType, "none")
            | (Setting::Durability, "sync")
            | (Setting::MessageTimestampType, "CreateTime") => 0,
            (Setting::CleanupPolicy, "compact")
            | (Setting::Durability, "buffered")
            | (Setting::MessageTimestampType, "LogAppendTime") => 1,
            (Setting::CleanupPolicy, "compact,delete" | "delete,compact")
            | (Setting::Durability, "interval") => 2,
            (Setting::CompressionType, "lz4") => 3,
            (Setting::CompressionType, "zstd") => 4,
            (
                Setting::CleanupPolicy
                | Setting::CompressionType
                | Setting::Durability
                | Setting::MessageTimestampType,
                _,
            ) => {
                return Err(invalid(*setting, value, "one of its words"));
            }
            _ => value.parse().map_err(|_| invalid(*setting, value, "a whole number"))?,
        };
        self.settings.set(*setting, number);
        self.resolve()?;
        Ok(self)
    }

    fn with(mut self, setting: Setting, value: i64) -> Self {
        self.settings.set(setting, value);
        self
    }

    /// The values that hold with these settings, and the defaults for the rest.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`].
    pub fn resolve(&self) -> Result<TopicSettings> {
        TopicSettings::from(&self.settings)
    }
}

fn invalid(setting: Setting, value: &str, expected: &'static str) -> Error {
    Error::InvalidSetting {
        name: setting.name().into(),
        value: value.chars().take(64).collect(),
        expected,
    }
}

fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn to_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// How a topic behaves: the settings that were given, and the defaults for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSettings {
    /// How long records are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// How many bytes a partition keeps at least; `None`: without limit.
    pub retention_bytes: Option<u64>,
    /// How many records a partition keeps at least; `None`: without limit.
    pub retention_records: Option<u64>,
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// The size at which a segment is sealed, in bytes.
    pub segment_bytes_max: u64,
    /// The age at which a segment is sealed.
    pub segment_age_max: Duration,
    /// How new batches are compressed.
    pub compression: Compression,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// The largest record, encoded, in bytes.
    pub record_bytes_max: u64,
    /// How long a tombstone survives the compaction that first meets it.
    pub tombstone_retention: Duration,
    /// How long a record is safe from compaction.
    pub compaction_lag_min: Duration,
    /// Which time records have.
    pub timestamps: TimestampType,
}

impl TopicSettings {
    pub(crate) fn from(settings: &Settings) -> Result<TopicSettings> {
        let number = |setting, least: i64, most: i64, default: i64| match settings.get(setting) {
            Some(value) if !(least..=most).contains(&value) => {
                Err(invalid(setting, &value.to_string(), "a value within its range"))
            }
            value => Ok(value.unwrap_or(default)),
        };
        let limit = |setting, default| match number(setting, UNLIMITED, i64::MAX, default) {
            Ok(value) => Ok(u64::try_from(value).ok()),
            Err(error) => Err(error),
        };
        let time = |setting, least, default: Duration| {
            number(setting, least, i64::MAX, to_ms(default))
                .map(|ms| Duration::from_millis(ms.unsigned_abs()))
        };
        let interval = time(Setting::DurabilityIntervalMs, 1, Duration::from_secs(1))?;
        let compaction = CompactionConfig::default();
        Ok(TopicSettings {
            retention: limit(Setting::RetentionMs, to_ms(RETENTION))?.map(Duration::from_millis),
            retention_bytes: limit(Setting::RetentionBytes, UNLIMITED)?,
            retention_records: limit(Setting::RetentionRecords, UNLIMITED)?,
            cleanup: match number(Setting::CleanupPolicy, 0, 2, 0)? {
                1 => Cleanup::Compact,
                2 => Cleanup::CompactAndDelete,
                _ => Cleanup::Delete,
            },
            segment_bytes_max: number(Setting::SegmentBytes, 4 << 10, 1 << 30, 128 << 20)?
                .unsigned_abs(),
            segment_age_max: time(Setting::SegmentMs, 1, RETENTION)?,
            compression: match number(Setting::CompressionType, 0, 4, 0)? {
                0 => Compression::None,
                3 => Compression::Lz4,
                4 => Compression::Zstd,
                other => {
                    return Err(invalid(
                        Setting::CompressionType,
                        &other.to_string(),
                        "a codec of this build",
                    ));
                }
            },
            durability: match number(Setting::Durability, 0, 2, 0)? {
                1 => Durability::Buffered,
                2 => Durability::Interval(interval),
                _ => Durability::Sync,
            },
            record_bytes_max: number(Setting::MaxMessageBytes, 1 << 10, 1 << 30, 16 << 20)?
                .unsigned_abs(),
            tombstone_retention: time(
                Setting::DeleteRetentionMs,
                0,
                compaction.tombstone_retention,
            )?,
            compaction_lag_min: time(Setting::MinCompactionLagMs, 0, compaction.min_lag)?,
            timestamps: match number(Setting::MessageTimestampType, 0, 1, 0)? {
                1 => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
        })
    }

    /// Every setting by the name and in the words that [`TopicConfig::set`] takes, -1 for "without limit".
    pub fn by_name(&self) -> Vec<(&'static str, String)> {
        let limit = |limit: Option<u64>| limit.map_or(UNLIMITED, to_i64).to_string();
        let ms = |time: Duration| to_ms(time).to_string();
        let (durability, interval) = match self.durability {
            Durability::Buffered => ("buffered", None),
            Durability::Interval(interval) => ("interval", Some(interval)),
            Durability::Sync => ("sync", None),
        };
        let cleanup = match self.cleanup {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
            Cleanup::CompactAndDelete => "compact,delete",
        };
        let compression = match self.compression {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            _ => "none",
        };
        let timestamps = match self.timestamps {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        let mut named = vec![
            (Setting::RetentionMs, self.retention.map_or(UNLIMITED, to_ms).to_string()),
            (Setting::RetentionBytes, limit(self.retention_bytes)),
            (Setting::RetentionRecords, limit(self.retention_records)),
            (Setting::CleanupPolicy, cleanup.into()),
            (Setting::SegmentBytes, self.segment_bytes_max.to_string()),
            (Setting::SegmentMs, ms(self.segment_age_max)),
            (Setting::CompressionType, compression.into()),
            (Setting::Durability, durability.into()),
            (Setting::MaxMessageBytes, self.record_bytes_max.to_string()),
            (Setting::DeleteRetentionMs, ms(self.tombstone_retention)),
            (Setting::MinCompactionLagMs, ms(self.compaction_lag_min)),
            (Setting::MessageTimestampType, timestamps.into()),
        ];
        named.extend(interval.map(|interval| (Setting::DurabilityIntervalMs, ms(interval))));
        named.into_iter().map(|(setting, value)| (setting.name(), value)).collect()
    }

    /// Whether records are removed as time passes or more come.
    pub(crate) fn retires_records(&self) -> bool {
        let limited = self.retention.is_some()
            || self.retention_bytes.is_some()
            || self.retention_records.is_some();
        self.cleanup.deletes() && limited
    }

    /// How the log of one of the topic's partitions is opened.
    pub(crate) fn log_config(&self) -> LogConfig {
        let retention = Retention {
            age: self.retention.filter(|_| self.cleanup.deletes()),
            bytes: self.retention_bytes.filter(|_| self.cleanup.deletes()),
            records: self.retention_records.filter(|_| self.cleanup.deletes()),
        };
        let compaction = CompactionConfig {
            tombstone_retention: self.tombstone_retention,
            min_lag: self.compaction_lag_min,
            ..CompactionConfig::default()
        };
        LogConfig::default()
            .durability(self.durability)
            .segment_bytes_max(self.segment_bytes_max)
            .segment_age_max(self.segment_age_max)
            .record_bytes_max(self.record_bytes_max)
            .compression(self.compression)
            .retention(retention)
            .compaction(compaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kafkas_where_kafka_has_them() {
        let settings = TopicConfig::new().resolve().unwrap();
        assert_eq!(settings.retention, Some(Duration::from_secs(604_800)));
        assert_eq!(settings.retention_bytes, None);
        assert_eq!(settings.cleanup, Cleanup::Delete);
        assert_eq!(settings.tombstone_retention, Duration::from_secs(86_400));
        assert_eq!(settings.durability, Durability::Sync);
    }

    #[test]
    fn settings_go_by_kafkas_names_too() {
        let by_name = TopicConfig::new()
            .set("retention.ms", "-1")
            .and_then(|c| c.set("cleanup.policy", "compact,delete"))
            .and_then(|c| c.set("compression.type", "lz4"))
            .and_then(|c| c.set("message.timestamp.type", "LogAppendTime"))
            .and_then(|c| c.set("segment.bytes", "65536"))
            .unwrap();
        let by_method = TopicConfig::new()
            .retention(None)
            .cleanup(Cleanup::CompactAndDelete)
            .compression(Compression::Lz4)
            .timestamps(TimestampType::LogAppendTime)
            .segment_bytes_max(65_536);
        assert_eq!(by_name, by_method);
    }

    #[test]
    fn settings_are_told_in_the_words_that_set_them() {
        let config = TopicConfig::new()
            .retention(None)
            .retention_records(Some(7))
            .cleanup(Cleanup::CompactAndDelete)
            .compression(Compression::Lz4)
            .durability(Durability::Interval(Duration::from_millis(250)))
            .timestamps(TimestampType::LogAppendTime);
        for settings in [TopicConfig::new().resolve().unwrap(), config.resolve().unwrap()] {
            let again = settings
                .by_name()
                .into_iter()
                .try_fold(TopicConfig::new(), |config, (name, value)| config.set(name, &value))
                .unwrap();
            assert_eq!(again.resolve().unwrap(), settings);
        }
    }

    #[test]
    fn values_out_of_range_and_unknown_names_are_refused_by_name() {
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("segment.bytes", "100"),
            ("max.message.bytes", "1023"),
            ("cleanup.policy", "burn"),
            ("cleanup.policy", "1"),
            ("compression.type", "gzip"),
            ("share.key.ordered", "1"),
            ("no.such.setting", "1"),
        ] {
            let refused = TopicConfig::new().set(name, value);
            assert!(
                matches!(refused, Err(Error::InvalidSetting { name: n, .. }) if n == name),
                "{name}={value}"
            );
        }
    }

    #[test]
    fn every_durability_survives_the_settings() {
        for durability in [
            Durability::Sync,
            Durability::Buffered,
            Durability::Interval(Duration::from_millis(250)),
        ] {
            assert_eq!(
                TopicConfig::new().durability(durability).resolve().unwrap().durability,
                durability
            );
        }
    }
}
