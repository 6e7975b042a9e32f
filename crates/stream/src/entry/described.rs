//! An entry as its fields, for whoever looks at a journal.

use logmill_storage::dump::{Field, Fields};
use logmill_storage::entry_fields as fields;

use super::{CommittedPosition, Entry, GroupKind, OffsetRange};
use crate::PartitionId;
use crate::settings::Settings;
use crate::wire::Wire;

/// The owner's number of every entry of streams in a journal.
pub const JOURNAL_OWNER: u64 = crate::known::OWNER;

/// The fields of an entry of streams in a journal, `entry` first, which names its kind; `None` if this build does not know
/// it.
pub fn describe_entry(bytes: &[u8]) -> Option<Fields> {
    Entry::decode(bytes).ok().map(|entry| described(&entry))
}

fn described(entry: &Entry<'_>) -> Fields {
    match entry {
        Entry::Snapshot { next_topic, next_group, next_producer, entries } => {
            let entries = inner(entries);
            fields!("snapshot", next_topic, next_group, next_producer, entries)
        }
        Entry::TopicCreated { topic, name, partitions, settings } => {
            let settings = all_settings(settings);
            fields!("topic created", topic, name, partitions, settings)
        }
        Entry::TopicAltered { topic, settings } => {
            let settings = all_settings(settings);
            fields!("topic altered", topic, settings)
        }
        Entry::PartitionsAdded { topic, partitions } => {
            fields!("partitions added", topic, partitions)
        }
        Entry::TopicDeleted { topic, partitions } => fields!("topic deleted", topic, partitions),
        Entry::TopicRemoved { topic } => fields!("topic removed", topic),
        Entry::GroupCreated { group, kind, name, settings } => {
            let (kind, settings) = (of(*kind), all_settings(settings));
            fields!("group created", group, kind, name, settings)
        }
        Entry::GroupAltered { group, settings } => {
            let settings = all_settings(settings);
            fields!("group altered", group, settings)
        }
        Entry::GroupDeleted { group } => fields!("group deleted", group),
        Entry::GroupSeen { group, at_ms } => fields!("group seen", group, at_ms),
        Entry::Committed { group, at_ms, positions } => {
            let positions: Vec<_> = positions.iter().map(position).collect();
            fields!("committed", group, at_ms, positions)
        }
        Entry::PositionsDropped { group, partitions } => {
            let partitions: Vec<_> = partitions.iter().map(place).collect();
            fields!("positions dropped", group, partitions)
        }
        Entry::ProducerOpened { producer, epoch, at_ms, name } => {
            fields!("producer opened", producer, epoch, at_ms, name)
        }
        Entry::ProducerSequence { producer, partition, sequence } => {
            let partition = place(partition);
            fields!("producer sequence", producer, partition, sequence)
        }
        Entry::ProducerRemoved { producer } => fields!("producer removed", producer),
        Entry::ShareStarted { group, partition, epoch, offset } => {
            let partition = place(partition);
            fields!("share started", group, partition, epoch, offset)
        }
        Entry::ShareAcquired { group, partition, ranges } => {
            let (partition, offsets) = (place(partition), all_ranges(ranges));
            fields!("share acquired", group, partition, offsets)
        }
        Entry::ShareDone { group, partition, ranges } => {
            let (partition, offsets) = (place(partition), all_ranges(ranges));
            fields!("share done", group, partition, offsets)
        }
        Entry::ShareEpoch { group, partition, epoch, offset } => {
            let partition = place(partition);
            fields!("share epoch", group, partition, epoch, offset)
        }
        Entry::ShareDeliveries { group, partition, deliveries } => {
            let partition = place(partition);
            let delivery = |(offset, deliveries): &(u64, u32)| {
                Field::Fields(vec![("offset", offset.into()), ("deliveries", deliveries.into())])
            };
            let deliveries: Vec<_> = deliveries.iter().map(delivery).collect();
            fields!("share deliveries", group, partition, deliveries)
        }
        Entry::LogsMade { topic, partitions } => {
            let partitions = all_ranges(partitions);
            fields!("logs made", topic, partitions)
        }
        Entry::LogsNamed { topic, logs } => {
            let log = |(partition, id): &(u32, [u8; 16])| {
                let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                Field::Fields(vec![("partition", partition.into()), ("log_id", id.into())])
            };
            let logs: Vec<_> = logs.iter().map(log).collect();
            fields!("logs named", topic, logs)
        }
        Entry::ProducerRoute { producer, topic, from, partitions } => {
            fields!("producer route", producer, topic, from, partitions)
        }
    }
}

const fn of(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Consumers => "consumers",
        GroupKind::Share => "share",
    }
}

/// The entries of a snapshot, as far as they can be told apart.
fn inner(entries: &[u8]) -> Vec<Field> {
    let mut wire = Wire(entries);
    let mut all = Vec::new();
    while let Ok(bytes) = wire.bytes() {
        all.push(match Entry::decode(bytes) {
            // There is none within another, and whoever made one up need not be followed.
            Err(_) | Ok(Entry::Snapshot { .. }) => bytes.into(),
            Ok(entry) => described(&entry).into(),
        });
    }
    all
}

fn all_settings(settings: &Settings) -> Fields {
    settings.iter().map(|(setting, value)| (setting.name(), value.into())).collect()
}

/// As the directory of its log is called.
fn place(partition: &PartitionId) -> Field {
    format!("{}/{}", partition.topic, partition.partition).into()
}

fn position(position: &CommittedPosition<'_>) -> Field {
    Field::Fields(vec![
        ("partition", place(&position.partition)),
        ("epoch", position.epoch.into()),
        ("offset", position.offset.into()),
        ("metadata", position.metadata.into()),
    ])
}

fn all_ranges(ranges: &[OffsetRange]) -> Vec<Field> {
    ranges.iter().map(|(first, end)| format!("{first}..{end}").into()).collect()
}
