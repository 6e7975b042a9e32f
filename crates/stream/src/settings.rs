//! Settings that were given for one topic or group: numbered, so that each costs a few bytes in the journal and a
//! default is never stored.

use std::collections::BTreeMap;

use crate::wire::{Malformed, Wire, put_signed, put_varint};

macro_rules! settings {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A setting, under the number that docs/stream.md gives it for ever.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Setting {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Setting {
            /// All settings.
            pub const ALL: &'static [Setting] = &[$(Setting::$variant,)*];

            /// Its name, Kafka's where Kafka has it.
            pub const fn name(self) -> &'static str {
                match self { $(Setting::$variant => $name,)* }
            }

            const fn from_number(number: u64) -> Option<Setting> {
                match number { $($number => Some(Setting::$variant),)* _ => None }
            }
        }
    };
}

settings! {
    /// How long records are kept at least, in ms; -1 without limit.
    RetentionMs = 1, "retention.ms";
    /// How many bytes a partition may have before its oldest segments go; -1 without limit.
    RetentionBytes = 2, "retention.bytes";
    /// How many records a partition may have before its oldest segments go; -1 without limit.
    RetentionRecords = 3, "retention.records";
    /// What is done with old records: 0 delete, 1 compact, 2 both.
    CleanupPolicy = 4, "cleanup.policy";
    /// The size at which a segment is sealed, in bytes.
    SegmentBytes = 5, "segment.bytes";
    /// The age at which a segment is sealed, in ms.
    SegmentMs = 6, "segment.ms";
    /// Kafka's number of the codec: 0 none, 3 lz4, 4 zstd.
    CompressionType = 7, "compression.type";
    /// When an append is acknowledged: 0 sync, 1 buffered, 2 by interval.
    Durability = 8, "durability";
    /// With durability by interval: after how many ms a record is on disk at the latest.
    DurabilityIntervalMs = 9, "durability.interval.ms";
    /// The largest record, encoded, in bytes.
    MaxMessageBytes = 10, "max.message.bytes";
    /// How long a tombstone survives compaction, in ms.
    DeleteRetentionMs = 11, "delete.retention.ms";
    /// How long a record is safe from compaction, in ms.
    MinCompactionLagMs = 12, "min.compaction.lag.ms";
    /// 0 the producer's time, 1 the time of the append.
    MessageTimestampType = 13, "message.timestamp.type";
    /// How often a record of a share group is delivered before it counts as dead; -1 without limit.
    ShareDeliveryCountLimit = 33, "share.delivery.count.limit";
    /// The id of the topic to which a share group's dead records go.
    ShareDeadLetterTopic = 34, "share.deadletterqueue.topic.id";
    /// Whether a share group hands out the records of one key one at a time: 0 no, 1 yes.
    ShareKeyOrdered = 35, "share.key.ordered";
    /// Where a share group begins: 0 latest, 1 earliest, 2 by duration.
    ShareAutoOffsetReset = 36, "share.auto.offset.reset";
    /// With a start by duration: how far back, in ms.
    ShareAutoOffsetResetMs = 37, "share.auto.offset.reset.ms";
    /// How long a record is leased to a consumer of a share group, in ms.
    ShareRecordLockDurationMs = 38, "share.record.lock.duration.ms";
    /// How many records of a partition a share group has out at most.
    SharePartitionMaxRecordLocks = 39, "share.partition.max.record.locks";
}

/// The settings that differ from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<Setting, i64>);

impl Settings {
    pub(crate) fn get(&self, setting: Setting) -> Option<i64> {
        self.0.get(&setting).copied()
    }

    pub(crate) fn set(&mut self, setting: Setting, value: i64) {
        self.0.insert(setting, value);
    }

    /// Takes over every setting that `other` gives.
    pub(crate) fn merge(&mut self, other: &Settings) {
        self.0.extend(&other.0);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Setting, i64)> + '_ {
        self.0.iter().map(|(setting, value)| (*setting, *value))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for (setting, value) in self.iter() {
            put_varint(out, setting as u64);
            put_signed(out, value);
        }
    }

    pub(crate) fn decode(wire: &mut Wire<'_>) -> Result<Settings, Malformed> {
        let mut settings = Settings::default();
        for _ in 0..wire.count()? {
            let setting = Setting::from_number(wire.varint()?)
                .ok_or("a setting that this build does not know")?;
            settings.set(setting, wire.signed()?);
        }
        Ok(settings)
    }
}
