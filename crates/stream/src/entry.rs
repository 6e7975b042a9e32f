//! The journal entries of streams: what is on disk about topics, groups, producers and share groups.
//!
//! ```text
//! kind | version | fields
//! u8   | u8 = 1  | varints (signed ones zigzag), text and lists with a varint length before them
//!
//!  1 snapshot            next topic, next group, next producer, list of entries: everything before this one is void
//!  2 topic created       topic, name, partitions, settings
//!  3 topic altered       topic, settings
//!  4 partitions added    topic, partitions in all
//!  5 topic deleted       topic, partitions: it is gone, its directories may not be
//!  6 topic removed       topic: its directories are gone too
//!  7 group created       group, group kind (0 consumers, 1 share), name, settings
//!  8 group altered       group, settings
//!  9 group deleted       group
//! 10 group seen          group, signed ms: it had a member then
//! 11 committed           group, signed ms, list of (topic, partition, epoch, offset, metadata)
//! 12 positions dropped   group, list of (topic, partition)
//! 13 producer opened     producer, epoch, signed ms, name
//! 14 producer sequence   producer, topic, partition, sequence: what the log itself may have forgotten
//! 15 producer removed    producer
//! 16 share started       group, topic, partition, epoch, offset: below is nothing to do
//! 17 share acquired      group, topic, partition, ranges: each was delivered once more
//! 18 share done          group, topic, partition, ranges: accepted or dead
//! 19 share epoch         group, topic, partition, epoch, offset: what was known from there on is void
//! 20 share deliveries    group, topic, partition, list of (offset, deliveries)
//! 21 logs made           topic, ranges: these partitions have had a log, durably, before this was said
//! 22 logs named          topic, list of (partition, log id of 16 bytes): as 21, and no other log is theirs
//! 23 producer route      producer, topic, sequence, partitions: from there on it spreads its records over so many
//!
//! settings = list of (number, signed value)      ranges = list of (first - end of the range before, length)
//! ```
//! Each kind with its version is pinned by golden bytes. A changed layout gets a new version; old ones stay readable.

mod described;

use crate::PartitionId;
use crate::config::PARTITIONS_MAX;
use crate::settings::Settings;
use crate::wire::{Malformed, Wire, put_bytes, put_signed, put_varint};

pub use described::{JOURNAL_OWNER, describe_entry};

const VERSION: u8 = 1;
/// Most records of a partition that are lent at once.
pub(crate) const ACQUIRED_MAX: u64 = 1 << 16;

/// Offsets, or numbers of partitions, `first..end`.
pub(crate) type OffsetRange = (u64, u64);

/// What a group's members read: each its own partitions, or each its own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupKind {
    /// Ordinary consumers: at most one for each partition.
    Consumers,
    /// A share group: any number for each partition, with an acknowledgement for each record.
    Share,
}

/// What tells a log from all others.
pub(crate) type LogId = [u8; 16];

/// A position as it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedPosition<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u32,
    pub(crate) offset: u64,
    pub(crate) metadata: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// The entries come one after the other, each with its length before it.
    Snapshot {
        next_topic: u32,
        next_group: u64,
        next_producer: u64,
        entries: &'a [u8],
    },
    TopicCreated {
        topic: u32,
        name: &'a str,
        partitions: u32,
        settings: Settings,
    },
    TopicAltered {
        topic: u32,
        settings: Settings,
    },
    PartitionsAdded {
        topic: u32,
        partitions: u32,
    },
    TopicDeleted {
        topic: u32,
        partitions: u32,
    },
    TopicRemoved {
        topic: u32,
    },
    GroupCreated {
        group: u64,
        kind: GroupKind,
        name: &'a str,
        settings: Settings,
    },
    GroupAltered {
        group: u64,
        settings: Settings,
    },
    GroupDeleted {
        group: u64,
    },
    GroupSeen {
        group: u64,
        at_ms: i64,
    },
    Committed {
        group: u64,
        at_ms: i64,
        positions: Vec<CommittedPosition<'a>>,
    },
    PositionsDropped {
        group: u64,
        partitions: Vec<PartitionId>,
    },
    ProducerOpened {
        producer: u64,
        epoch: u32,
        at_ms: i64,
        name: &'a str,
    },
    ProducerSequence {
        producer: u64,
        partition: PartitionId,
        sequence: u64,
    },
    ProducerRemoved {
        producer: u64,
    },
    ShareStarted {
        group: u64,
        partition: PartitionId,
        epoch: u32,
        offset: u64,
    },
    ShareAcquired {
        group: u64,
        partition: PartitionId,
        ranges: Vec<OffsetRange>,
    },
    ShareDone {
        group: u64,
        partition: PartitionId,
        ranges: Vec<OffsetRange>,
    },
    ShareEpoch {
        group: u64,
        partition: PartitionId,
        epoch: u32,
        offset: u64,
    },
    ShareDeliveries {
        group: u64,
        partition: PartitionId,
        deliveries: Vec<(u64, u32)>,
    },
    LogsMade {
        topic: u32,
        partitions: Vec<OffsetRange>,
    },
    LogsNamed {
        topic: u32,
        logs: Vec<(u32, LogId)>,
    },
    ProducerRoute {
        producer: u64,
        topic: u32,
        from: u64,
        partitions: u32,
    },
}

impl Entry<'_> {
    fn kind(&self) -> u8 {
        match self {
            Entry::Snapshot { .. } => 1,
            Entry::TopicCreated { .. } => 2,
            Entry::TopicAltered { .. } => 3,
            Entry::PartitionsAdded { .. } => 4,
            Entry::TopicDeleted { .. } => 5,
            Entry::TopicRemoved { .. } => 6,
            Entry::GroupCreated { .. } => 7,
            Entry::GroupAltered { .. } => 8,
            Entry::GroupDeleted { .. } => 9,
            Entry::GroupSeen { .. } => 10,
            Entry::Committed { .. } => 11,
            Entry::PositionsDropped { .. } => 12,
            Entry::ProducerOpened { .. } => 13,
            Entry::ProducerSequence { .. } => 14,
            Entry::ProducerRemoved { .. } => 15,
            Entry::ShareStarted { .. } => 16,
            Entry::ShareAcquired { .. } => 17,
            Entry::ShareDone { .. } => 18,
            Entry::ShareEpoch { .. } => 19,
            Entry::ShareDeliveries { .. } => 20,
            Entry::LogsMade { .. } => 21,
            Entry::LogsNamed { .. } => 22,
            Entry::ProducerRoute { .. } => 23,
        }
    }

    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.encode(&mut out);
        out
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.kind(), VERSION]);
        match self {
            Entry::Snapshot { next_topic, next_group, next_producer, entries } => {
                put_varint(out, u64::from(*next_topic));
                put_varint(out, *next_group);
                put_varint(out, *next_producer);
                put_bytes(out, entries);
            }
            Entry::TopicCreated { topic, name, partitions, settings } => {
                put_varint(out, u64::from(*topic));
                put_bytes(out, name.as_bytes());
                put_varint(out, u64::from(*partitions));
                settings.encode(out);
            }
            Entry::TopicAltered { topic, settings } => {
                put_varint(out, u64::from(*topic));
                settings.encode(out);
            }
            Entry::PartitionsAdded { topic, partitions }
            | Entry::TopicDeleted { topic, partitions } => {
                put_varint(out, u64::from(*topic));
                put_varint(out, u64::from(*partitions));
            }
            Entry::TopicRemoved { topic } => put_varint(out, u64::from(*topic)),
            Entry::GroupCreated { group, kind, name, settings } => {
                put_varint(out, *group);
                out.push(match kind {
                    GroupKind::Consumers => 0,
                    GroupKind::Share => 1,
                });
                put_bytes(out, name.as_bytes());
                settings.encode(out);
            }
            Entry::GroupAltered { group, settings } => {
                put_varint(out, *group);
                settings.encode(out);
            }
            Entry::GroupDeleted { group } => put_varint(out, *group),
            Entry::GroupSeen { group, at_ms } => {
                put_varint(out, *group);
                put_signed(out, *at_ms);
            }
            Entry::Committed { group, at_ms, positions } => {
                put_varint(out, *group);
                put_signed(out, *at_ms);
                put_varint(out, positions.len() as u64);
                for position in positions {
                    put_partition(out, position.partition);
                    put_varint(out, u64::from(position.epoch));
                    put_varint(out, position.offset);
                    put_bytes(out, position.metadata.as_bytes());
                }
            }
            Entry::PositionsDropped { group, partitions } => {
                put_varint(out, *group);
                put_varint(out, partitions.len() as u64);
                for partition in partitions {
                    put_partition(out, *partition);
                }
            }
            Entry::ProducerOpened { producer, epoch, at_ms, name } => {
                put_varint(out, *producer);
                put_varint(out, u64::from(*epoch));
                put_signed(out, *at_ms);
                put_bytes(out, name.as_bytes());
            }
            Entry::ProducerSequence { producer, partition, sequence } => {
                put_varint(out, *producer);
                put_partition(out, *partition);
                put_varint(out, *sequence);
            }
            Entry::ProducerRemoved { producer } => put_varint(out, *producer),
            Entry::ShareStarted { group, partition, epoch, offset }
            | Entry::ShareEpoch { group, partition, epoch, offset } => {
                put_varint(out, *group);
                put_partition(out, *partition);
                put_varint(out, u64::from(*epoch));
                put_varint(out, *offset);
            }
            Entry::ShareAcquired { group, partition, ranges }
            | Entry::ShareDone { group, partition, ranges } => {
                put_varint(out, *group);
                put_partition(out, *partition);
                put_ranges(out, ranges);
            }
            Entry::ShareDeliveries { group, partition, deliveries } => {
                put_varint(out, *group);
                put_partition(out, *partition);
                put_varint(out, deliveries.len() as u64);
                for (offset, count) in deliveries {
                    put_varint(out, *offset);
                    put_varint(out, u64::from(*count));
                }
            }
            Entry::LogsMade { topic, partitions } => {
                put_varint(out, u64::from(*topic));
                put_ranges(out, partitions);
            }
            Entry::LogsNamed { topic, logs } => {
                put_varint(out, u64::from(*topic));
                put_varint(out, logs.len() as u64);
                for (partition, id) in logs {
                    put_varint(out, u64::from(*partition));
                    out.extend_from_slice(id);
                }
            }
            Entry::ProducerRoute { producer, topic, from, partitions } => {
                put_varint(out, *producer);
                put_varint(out, u64::from(*topic));
                put_varint(out, *from);
                put_varint(out, u64::from(*partitions));
            }
        }
    }
}

impl<'a> Entry<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, Malformed> {
        let mut wire = Wire(bytes);
        let w = &mut wire;
        let kind = w.byte()?;
        if w.byte()? != VERSION {
            return Err("an entry version that this build does not know");
        }
        let entry = match kind {
            1 => Entry::Snapshot {
                next_topic: w.varint32()?,
                next_group: w.varint()?,
                next_producer: w.varint()?,
                entries: w.bytes()?,
            },
            2 => Entry::TopicCreated {
                topic: w.varint32()?,
                name: w.text()?,
                partitions: take_partitions(w)?,
                settings: Settings::decode(w)?,
            },
            3 => Entry::TopicAltered { topic: w.varint32()?, settings: Settings::decode(w)? },
            4 => Entry::PartitionsAdded { topic: w.varint32()?, partitions: take_partitions(w)? },
            5 => Entry::TopicDeleted { topic: w.varint32()?, partitions: take_partitions(w)? },
            6 => Entry::TopicRemoved { topic: w.varint32()? },
            7 => Entry::GroupCreated {
                group: w.varint()?,
                kind: match w.byte()? {
                    0 => GroupKind::Consumers,
                    1 => GroupKind::Share,
                    _ => return Err("a group kind that this build does not know"),
                },
                name: w.text()?,
                settings: Settings::decode(w)?,
            },
            8 => Entry::GroupAltered { group: w.varint()?, settings: Settings::decode(w)? },
            9 => Entry::GroupDeleted { group: w.varint()? },
            10 => Entry::GroupSeen { group: w.varint()?, at_ms: w.signed()? },
            11 => Entry::Committed {
                group: w.varint()?,
                at_ms: w.signed()?,
                positions: take_list(w, take_position)?,
            },
            12 => Entry::PositionsDropped {
                group: w.varint()?,
                partitions: take_list(w, take_partition)?,
            },
            13 => Entry::ProducerOpened {
                producer: w.varint()?,
                epoch: w.varint32()?,
                at_ms: w.signed()?,
                name: w.text()?,
            },
            14 => Entry::ProducerSequence {
                producer: w.varint()?,
                partition: take_partition(w)?,
                sequence: w.varint()?,
            },
            15 => Entry::ProducerRemoved { producer: w.varint()? },
            16 => Entry::ShareStarted {
                group: w.varint()?,
                partition: take_partition(w)?,
                epoch: w.varint32()?,
                offset: w.varint()?,
            },
            17 => Entry::ShareAcquired {
                group: w.varint()?,
                partition: take_partition(w)?,
                ranges: take_acquired(w)?,
            },
            18 => Entry::ShareDone {
                group: w.varint()?,
                partition: take_partition(w)?,
                ranges: take_ranges(w)?,
            },
            19 => Entry::ShareEpoch {
                group: w.varint()?,
                partition: take_partition(w)?,
                epoch: w.varint32()?,
                offset: w.varint()?,
            },
            20 => Entry::ShareDeliveries {
                group: w.varint()?,
                partition: take_partition(w)?,
                deliveries: take_list(w, |w| Ok((w.varint()?, w.varint32()?)))?,
            },
            21 => Entry::LogsMade { topic: w.varint32()?, partitions: take_ranges(w)? },
            22 => Entry::LogsNamed {
                topic: w.varint32()?,
                logs: take_list(w, |w| Ok((w.varint32()?, w.array()?)))?,
            },
            23 => Entry::ProducerRoute {
                producer: w.varint()?,
                topic: w.varint32()?,
                from: w.varint()?,
                partitions: take_partitions(w)?,
            },
            _ => return Err("an entry kind that this build does not know"),
        };
        wire.end()?;
        Ok(entry)
    }
}

fn put_partition(out: &mut Vec<u8>, partition: PartitionId) {
    put_varint(out, u64::from(partition.topic));
    put_varint(out, u64::from(partition.partition));
}

fn take_partition(wire: &mut Wire<'_>) -> Result<PartitionId, Malformed> {
    Ok(PartitionId { topic: wire.varint32()?, partition: wire.varint32()? })
}

/// As many as a topic may have: whoever follows the entry goes through them one by one.
fn take_partitions(wire: &mut Wire<'_>) -> Result<u32, Malformed> {
    match wire.varint32()? {
        partitions if partitions <= PARTITIONS_MAX => Ok(partitions),
        _ => Err("more partitions than a topic may have"),
    }
}

fn take_position<'a>(wire: &mut Wire<'a>) -> Result<CommittedPosition<'a>, Malformed> {
    Ok(CommittedPosition {
        partition: take_partition(wire)?,
        epoch: wire.varint32()?,
        offset: wire.varint()?,
        metadata: wire.text()?,
    })
}

fn take_list<'a, T>(
    wire: &mut Wire<'a>,
    mut take: impl FnMut(&mut Wire<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = wire.count()?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(take(wire)?);
    }
    Ok(list)
}

fn put_ranges(out: &mut Vec<u8>, ranges: &[OffsetRange]) {
    put_varint(out, ranges.len() as u64);
    let mut before = 0;
    for &(first, end) in ranges {
        debug_assert!(before <= first && first < end, "ranges are in order and not empty");
        put_varint(out, first - before);
        put_varint(out, end - first);
        before = end;
    }
}

fn take_ranges(wire: &mut Wire<'_>) -> Result<Vec<OffsetRange>, Malformed> {
    let mut before = 0u64;
    take_list(wire, |wire| {
        let first = before.checked_add(wire.varint()?).ok_or("an offset beyond 64 bits")?;
        let end = first.checked_add(wire.varint()?).ok_or("an offset beyond 64 bits")?;
        if end == first {
            return Err("an empty range");
        }
        before = end;
        Ok((first, end))
    })
}

/// Ranges that hold no more offsets than are lent at once: each of them is counted by itself.
fn take_acquired(wire: &mut Wire<'_>) -> Result<Vec<OffsetRange>, Malformed> {
    let ranges = take_ranges(wire)?;
    let count = ranges.iter().fold(0u64, |sum, (first, end)| sum.saturating_add(end - first));
    if count <= ACQUIRED_MAX { Ok(ranges) } else { Err("more records than are lent at once") }
}

#[cfg(test)]
mod tests;
