//! Where a producer collects the records of each partition.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::batch::{Batch, Collected};
use super::{Core, ProducerRecord};
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::partitioner::{Sticky, partition_for_key};
use crate::shared::Shared;
use crate::topic::TopicCore;
use crate::{PartitionId, TopicPartition};

/// The batch of one partition that is being collected.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    pub(super) collected: Collected,
    /// What the producer's limit counts for the batch, which is at least what it holds.
    pub(super) reserved: usize,
    pub(super) batch: Option<Arc<Batch>>,
    /// When the first record of the batch was sent.
    pub(super) since: Duration,
    /// Whether the background has the lane on its list. A lane is there once, however many batches it fills meanwhile.
    pub(super) is_listed: bool,
    /// For named producers; `None`: to be asked of the log.
    pub(super) sequences: Option<Sequences>,
    /// The highest sequence of the records being collected.
    pub(super) collected_sequence: Option<u64>,
    /// The last batch with a sequence that was begun here: a duplicate is as safe as this is.
    pub(super) latest: Option<Arc<Batch>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sequences {
    /// The sequence of the next batch, as the log counts.
    pub(super) next: i32,
    /// The highest sequence that the partition has, as the producer counts.
    pub(super) last: Option<u64>,
}

/// One partition, as a producer sees it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) core: Weak<Core>,
    pub(super) partition: Partition,
    pub(super) name: TopicPartition,
    sticky: Arc<Mutex<Sticky>>,
    pub(super) state: Mutex<LaneState>,
}

impl Lane {
    /// Sends keyless records elsewhere, if they came here: a batch is done.
    pub(super) fn batch_done(&self) {
        let partitions = self.partition.topic.partition_count();
        self.sticky.lock().batch_done(self.partition.number(), partitions);
    }
}

/// The lanes of one topic.
#[derive(Debug)]
pub(super) struct TopicLanes {
    topic: Arc<TopicCore>,
    sticky: Arc<Mutex<Sticky>>,
    lanes: Vec<Arc<Lane>>,
}

impl TopicLanes {
    pub(super) fn new(topic: Arc<TopicCore>, seed: u32) -> TopicLanes {
        TopicLanes { topic, sticky: Arc::new(Mutex::new(Sticky::new(seed))), lanes: Vec::new() }
    }

    pub(super) fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// Whether the topic is there, with as many partitions as there are lanes.
    pub(super) fn is_current(&self) -> bool {
        !self.topic.is_deleted() && self.topic.partition_count() as usize == self.lanes.len()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.topic.is_deleted()
    }

    /// Makes lanes for the partitions that have none.
    pub(super) fn grow(&mut self, shared: &Arc<Shared>, core: &Weak<Core>) -> Result<()> {
        let known = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        for partition in known..self.topic.partition_count() {
            let handle = shared.partition(PartitionId { topic: self.topic.id(), partition })?;
            self.lanes.push(Arc::new(Lane {
                core: core.clone(),
                name: handle.name(),
                partition: handle,
                sticky: Arc::clone(&self.sticky),
                state: Mutex::default(),
            }));
        }
        Ok(())
    }

    /// The lane for a record.
    pub(super) fn lane(&self, record: &ProducerRecord<'_>) -> Result<&Arc<Lane>> {
        let partitions = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let partition = match (record.partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            (None, None) => self.sticky.lock().current(partitions),
        };
        self.lanes.get(partition as usize).ok_or_else(|| Error::UnknownPartition {
            topic: record.topic.into(),
            partition,
            partitions,
        })
    }
}
