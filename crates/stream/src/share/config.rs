//! How a share group and its consumers behave.

use std::time::Duration;

use logmill_storage::Durability;

use crate::StartAt;
use crate::config::to_ms;
use crate::error::{Error, Result};
use crate::settings::{Setting, Settings};

/// How a share group behaves: what is not set stays as it is, or gets its default. The group remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareGroupConfig {
    pub(crate) settings: Settings,
    pub(crate) dead_letter_topic: Option<Option<String>>,
}

impl ShareGroupConfig {
    /// Nothing set.
    pub fn new() -> ShareGroupConfig {
        ShareGroupConfig::default()
    }

    /// Where the group begins in a partition that is new to it, default [`StartAt::Latest`] as Kafka's.
    /// [`StartAt::Nowhere`] counts as the default.
    pub fn start_at(self, start: StartAt) -> Self {
        match start {
            StartAt::Latest | StartAt::Nowhere => self.with(Setting::ShareAutoOffsetReset, 0),
            StartAt::Earliest => self.with(Setting::ShareAutoOffsetReset, 1),
            StartAt::By(back) => self
                .with(Setting::ShareAutoOffsetReset, 2)
                .with(Setting::ShareAutoOffsetResetMs, to_ms(back)),
        }
    }

    /// How long a record is leased to the consumer that got it, at least 1 ms, default 30 s. Then others get it.
    pub fn lease(self, duration: Duration) -> Self {
        self.with(Setting::ShareRecordLockDurationMs, to_ms(duration))
    }

    /// How often a record is delivered at most, default 5; `None` without limit. After that it is dead.
    pub fn deliveries_max(self, deliveries: Option<u32>) -> Self {
        self.with(Setting::ShareDeliveryCountLimit, deliveries.map_or(-1, i64::from))
    }

    /// How many records of one partition the group has out at most, 1 to 1,000,000, default 2,000. At the limit nothing
    /// more of this partition is handed out until some are acknowledged or their leases run out.
    pub fn in_flight_max(self, records: u32) -> Self {
        self.with(Setting::SharePartitionMaxRecordLocks, i64::from(records))
    }

    /// Hands out the records of one key one at a time and in order, and those of different keys in parallel. Default no. It
    /// can be changed while the group has no members.
    pub fn key_ordered(self, ordered: bool) -> Self {
        self.with(Setting::ShareKeyOrdered, i64::from(ordered))
    }

    /// The topic to which dead records are copied, with headers that say where they come from and why. It must be there.
    /// `None`, the default: dead records are passed over.
    pub fn dead_letter_topic(mut self, topic: Option<&str>) -> Self {
        self.dead_letter_topic = Some(topic.map(str::to_owned));
        self
    }

    fn with(mut self, setting: Setting, value: i64) -> Self {
        self.settings.set(setting, value);
        self
    }
}

/// The settings of a share group that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareSettings {
    pub(crate) start_at: StartAt,
    pub(crate) lease: Duration,
    pub(crate) deliveries_max: Option<u32>,
    pub(crate) in_flight_max: usize,
    pub(crate) key_ordered: bool,
    pub(crate) dead_letter_topic: Option<u32>,
}

impl ShareSettings {
    pub(crate) fn from(settings: &Settings) -> Result<ShareSettings> {
        let number =
            |setting: Setting, least: i64, most: i64, default: i64| match settings.get(setting) {
                Some(value) if !(least..=most).contains(&value) => Err(Error::InvalidSetting {
                    name: setting.name().into(),
                    value: value.to_string(),
                    expected: "a value within its range",
                }),
                value => Ok(value.unwrap_or(default)),
            };
        let ms = |value: i64| Duration::from_millis(value.unsigned_abs());
        Ok(ShareSettings {
            start_at: match number(Setting::ShareAutoOffsetReset, 0, 2, 0)? {
                1 => StartAt::Earliest,
                2 => StartAt::By(ms(number(Setting::ShareAutoOffsetResetMs, 0, i64::MAX, 0)?)),
                _ => StartAt::Latest,
            },
            lease: ms(number(Setting::ShareRecordLockDurationMs, 1, i64::MAX, 30_000)?),
            deliveries_max: u32::try_from(number(
                Setting::ShareDeliveryCountLimit,
                -1,
                i64::from(u32::MAX),
                5,
            )?)
            .ok()
            .map(|limit| limit.max(1)),
            in_flight_max: usize::try_from(number(
                Setting::SharePartitionMaxRecordLocks,
                1,
                1_000_000,
                2_000,
            )?)
            .unwrap_or(1),
            key_ordered: number(Setting::ShareKeyOrdered, 0, 1, 0)? == 1,
            dead_letter_topic: u32::try_from(number(
                Setting::ShareDeadLetterTopic,
                0,
                i64::from(u32::MAX),
                0,
            )?)
            .ok()
            .filter(|topic| *topic > 0),
        })
    }
}

/// How one consumer of a share group behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareConsumerConfig {
    pub(crate) group: ShareGroupConfig,
    pub(crate) explicit: bool,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) durability: Option<Durability>,
}

impl Default for ShareConsumerConfig {
    fn default() -> Self {
        ShareConsumerConfig {
            group: ShareGroupConfig::default(),
            explicit: false,
            records_max: 500,
            bytes_max: 50 << 20,
            durability: None,
        }
    }
}

impl ShareConsumerConfig {
    /// The defaults.
    pub fn new() -> ShareConsumerConfig {
        ShareConsumerConfig::default()
    }

    /// What the group shall be like from now on.
    pub fn group(mut self, group: ShareGroupConfig) -> Self {
        self.group = group;
        self
    }

    /// Whether every record is acknowledged by [`acknowledge`](crate::ShareConsumer::acknowledge). Otherwise, as by
    /// default, what a poll returned counts as accepted at the next poll or commit, unless something else was said.
    pub fn explicit(mut self, explicit: bool) -> Self {
        self.explicit = explicit;
        self
    }

    /// How many records a poll returns at most, at least 1, default 500. No poll takes more than 65,536 of one partition.
    pub fn records_max(mut self, records: usize) -> Self {
        self.records_max = records.max(1);
        self
    }

    /// How many bytes of keys, values and headers a poll returns at most, but always at least one record. Default 50 MiB.
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes.max(1);
        self
    }

    /// When a commit of acknowledgements that is waited for returns. Default: what the store says, which is
    /// [`Durability::Sync`] unless it was told otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}
