//! Where a producer collects the records of each partition.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::batch::{Batch, Collected};
use super::{Core, ProducerRecord};
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::partitioner::{Sticky, partition_for_key, partition_for_sequence};
use crate::routes::Routes;
use crate::shared::Shared;
use crate::topic::TopicCore;
use crate::{PartitionId, TopicPartition};

/// So many refused sequences are remembered for each partition.
const REFUSED_MAX: usize = 1 << 16;

/// The batch of one partition that is being collected, and what a named producer knows of those before.
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
    /// The sequences of the records being collected, rising.
    pub(super) collected_sequences: Vec<u64>,
    /// A named producer's batches whose outcome is not taken in, oldest first.
    pub(super) on_their_way: VecDeque<Arc<Batch>>,
    /// Sequences that were sent and neither are in the partition nor on their way there. Nothing goes behind the first of them.
    undelivered: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sequences {
    /// The sequence of the next batch, as the log counts.
    pub(super) next: i32,
    /// The highest sequence that the partition has, as the producer counts.
    pub(super) last: Option<u64>,
}

impl LaneState {
    /// Takes in that these were sent and not delivered.
    pub(super) fn not_delivered(&mut self, sequences: impl IntoIterator<Item = u64>) {
        self.undelivered.extend(sequences);
    }

    /// Notes the sequence of a record that was refused. Somebody who sends on and on whatever he is told is not noted for ever.
    pub(super) fn refused(&mut self, sequence: Option<u64>) {
        if self.undelivered.len() < REFUSED_MAX {
            self.undelivered.extend(sequence);
        }
    }

    /// What the log has after all is delivered.
    pub(super) fn log_has(&mut self, last: Option<u64>) {
        if let Some(last) = last {
            self.undelivered.retain(|sequence| *sequence > last);
        }
    }

    /// Says which undelivered sequence a record with `sequence`, or with none, would go before; if none, it is on its way.
    pub(super) fn take_next(&mut self, sequence: Option<u64>) -> Option<u64> {
        let first = *self.undelivered.first()?;
        match sequence {
            Some(sequence) if sequence <= first => {
                self.undelivered.remove(&sequence);
                None
            }
            _ => Some(first),
        }
    }

    /// The highest sequence that was sent, whatever became of it, beyond what the partition has.
    pub(super) fn last_sent(&self) -> Option<u64> {
        self.collected_sequences.last().max(self.undelivered.last()).copied()
    }

    /// Says which undelivered sequence the collected records, or some of them, would go before.
    pub(super) fn collected_before(&self) -> Option<u64> {
        let first = *self.undelivered.first()?;
        let is_numbered = self.collected_sequences.len() == self.collected.len();
        let is_behind = self.collected_sequences.last().is_some_and(|last| *last > first);
        (is_behind || !is_numbered).then_some(first)
    }

    /// Nothing waits for those up to `sequence` any more; says which they were.
    pub(super) fn give_up(&mut self, sequence: u64) -> Vec<u64> {
        let kept = match sequence.checked_add(1) {
            Some(next) => self.undelivered.split_off(&next),
            None => BTreeSet::new(),
        };
        std::mem::replace(&mut self.undelivered, kept).into_iter().collect()
    }

    /// Forgets the oldest batches that arrived.
    pub(super) fn forget_delivered(&mut self) {
        while self
            .on_their_way
            .front()
            .is_some_and(|batch| batch.settle_if_ready() && batch.failure().is_none())
        {
            self.on_their_way.pop_front();
        }
    }

    /// Waits until it is known what arrived of all that is on its way.
    pub(super) fn take_in_all(&mut self) {
        for batch in std::mem::take(&mut self.on_their_way) {
            if batch.wait().is_err() {
                self.undelivered.extend(batch.sequences());
            }
        }
    }
}

/// One partition, as a producer sees it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) core: Weak<Core>,
    pub(super) partition: Partition,
    pub(super) name: TopicPartition,
    sticky: Arc<Mutex<Sticky>>,
    pub(super) state: Mutex<LaneState>,
    /// A batch has failed, and its lane has not taken that in.
    has_failed: AtomicBool,
}

impl Lane {
    /// Before anybody is told of it: whoever sends the batch again finds the lane informed.
    pub(super) fn note_failed(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    pub(super) fn take_failed(&self) -> bool {
        self.has_failed.swap(false, Ordering::AcqRel)
    }

    /// Refuses a record that would make its whole batch fail.
    pub(super) fn check_key(&self, record: &ProducerRecord<'_>) -> Result<()> {
        if record.key.is_none() && self.partition.topic.settings().cleanup.compacts() {
            return Err(Error::KeyMissing { partition: self.name.clone(), index: 0 });
        }
        Ok(())
    }

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
    /// By which a named producer's numbered records go.
    routes: Option<Routes>,
    /// Whether records may go there: it is written down where that must be.
    is_routed: bool,
}

impl TopicLanes {
    pub(super) fn new(topic: Arc<TopicCore>, seed: u32) -> TopicLanes {
        let sticky = Arc::new(Mutex::new(Sticky::new(seed)));
        TopicLanes { topic, sticky, lanes: Vec::new(), routes: None, is_routed: false }
    }

    pub(super) fn topic(&self) -> &TopicCore {
        &self.topic
    }

    pub(super) fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    pub(super) fn set_routes(&mut self, routes: Routes) {
        self.routes = Some(routes);
    }

    /// Over how many partitions what comes next is spread, or will be.
    pub(super) fn partitions_to_come(&self) -> Option<u32> {
        self.routes.as_ref().and_then(Routes::latest)
    }

    pub(super) fn set_routed(&mut self) {
        self.is_routed = true;
    }

    /// Whether the topic is there, with as many partitions as there are lanes.
    pub(super) fn is_current(&self) -> bool {
        self.is_routed
            && !self.topic.is_deleted()
            && self.topic.partition_count() as usize == self.lanes.len()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.topic.is_deleted()
    }

    /// Makes lanes for those of `partitions` that have none.
    pub(super) fn grow(
        &mut self,
        shared: &Arc<Shared>,
        core: &Weak<Core>,
        partitions: u32,
    ) -> Result<()> {
        let known = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        for partition in known..partitions {
            let handle = shared.partition(PartitionId { topic: self.topic.id(), partition })?;
            self.lanes.push(Arc::new(Lane {
                core: core.clone(),
                name: handle.name(),
                partition: handle,
                sticky: Arc::clone(&self.sticky),
                state: Mutex::default(),
                has_failed: AtomicBool::new(false),
            }));
        }
        Ok(())
    }

    /// The lane for a record.
    pub(super) fn lane(&self, record: &ProducerRecord<'_>) -> Result<&Arc<Lane>> {
        let partitions = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let numbered = self.routes.as_ref().zip(record.sequence).map(|(routes, sequence)| {
            (sequence, routes.partitions(sequence).unwrap_or(partitions))
        });
        let spread = numbered.map_or(partitions, |(_, spread)| spread);
        let partition = match (record.partition, record.key, numbered) {
            (Some(partition), ..) => partition,
            (None, Some(key), _) => partition_for_key(key, spread),
            (None, None, Some((sequence, _))) => partition_for_sequence(sequence, spread),
            (None, None, None) => self.sticky.lock().current(partitions),
        };
        self.lanes.get(partition as usize).ok_or_else(|| Error::UnknownPartition {
            topic: record.topic.into(),
            partition,
            partitions,
        })
    }
}
