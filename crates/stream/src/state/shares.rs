//! What a share group has done with the records of one partition: exact, whatever the number of holes.
//!
//! ```text
//!   start                                  nothing below is to be done
//!     |  done   |      |  done  |          ranges: memory grows with the holes, not with the records
//!     |         |  2   |        |  1       deliveries of what was handed out and is not done
//! ```
//! Leases are not here: they end with the process that granted them.

use std::collections::BTreeMap;

use crate::PartitionId;
use crate::entry::Entry;
use crate::range_set::RangeSet;

/// One partition of a share group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareState {
    /// The log's epoch to which the offsets belong.
    pub(crate) epoch: u32,
    pub(crate) start: u64,
    /// Offsets from `start` on that were accepted or are dead. Never holds `start` itself.
    pub(crate) done: RangeSet,
    /// How often each offset that is not done was delivered; absent: never.
    pub(crate) deliveries: BTreeMap<u64, u32>,
}

impl ShareState {
    pub(crate) fn new(epoch: u32, start: u64) -> ShareState {
        ShareState { epoch, start, done: RangeSet::default(), deliveries: BTreeMap::new() }
    }

    pub(crate) fn is_done(&self, offset: u64) -> bool {
        offset < self.start || self.done.contains(offset)
    }

    pub(crate) fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::ShareAcquired { ranges, .. } => {
                for offset in ranges.iter().flat_map(|(first, end)| *first..*end) {
                    if !self.is_done(offset) {
                        *self.deliveries.entry(offset).or_insert(0) += 1;
                    }
                }
            }
            Entry::ShareDone { ranges, .. } => {
                for &(first, end) in ranges {
                    self.finish(first, end);
                }
            }
            Entry::ShareEpoch { epoch, offset, .. } => {
                self.epoch = *epoch;
                self.start = self.start.min(*offset);
                self.done.remove_from(*offset);
                self.deliveries.split_off(offset);
            }
            Entry::ShareDeliveries { deliveries, .. } => {
                self.deliveries.extend(deliveries.iter().copied())
            }
            _ => {}
        }
    }

    fn finish(&mut self, first: u64, end: u64) {
        if end - first <= 64 {
            for offset in first..end {
                self.deliveries.remove(&offset);
            }
        } else {
            self.deliveries.retain(|offset, _| !(first..end).contains(offset));
        }
        let first = first.max(self.start);
        self.done.insert(first, end);
        if let Some(end) = self.done.end_of(self.start) {
            self.start = end;
            self.done.remove_below(end);
        }
    }

    pub(super) fn restate(&self, group: u64, partition: PartitionId, entries: &mut Vec<Entry<'_>>) {
        entries.push(Entry::ShareStarted {
            group,
            partition,
            epoch: self.epoch,
            offset: self.start,
        });
        if self.done.len() > 0 {
            entries.push(Entry::ShareDone { group, partition, ranges: self.done.iter().collect() });
        }
        if !self.deliveries.is_empty() {
            let deliveries =
                self.deliveries.iter().map(|(offset, count)| (*offset, *count)).collect();
            entries.push(Entry::ShareDeliveries { group, partition, deliveries });
        }
    }
}
