//! What a share consumer's poll returns.

use std::sync::Arc;

use crate::chunk::{Chunk, ConsumerRecord};
use crate::{PartitionId, TopicPartition};

/// A lease on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loan {
    pub(crate) lease: u64,
    pub(crate) deliveries: u32,
}

/// Leased records of one partition.
#[derive(Clone, Debug)]
pub(crate) struct SharePart {
    pub(crate) name: TopicPartition,
    pub(crate) id: PartitionId,
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) loans: Arc<[Loan]>,
}

/// A record that is leased to a share consumer, to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct ShareRecord<'a> {
    /// The record.
    pub record: ConsumerRecord<'a>,
    /// How often it was delivered by now, this time included.
    pub delivery_count: u32,
    pub(crate) partition: PartitionId,
    pub(crate) lease: u64,
}

impl ShareRecord<'_> {
    /// What is needed to acknowledge it: also later, and from elsewhere than where the record is.
    pub fn receipt(&self) -> ShareReceipt {
        ShareReceipt { partition: self.partition, offset: self.record.offset, lease: self.lease }
    }
}

/// Stands for one lease of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareReceipt {
    pub(crate) partition: PartitionId,
    pub(crate) offset: u64,
    pub(crate) lease: u64,
}

/// Records that are leased to a share consumer.
#[derive(Clone, Debug, Default)]
pub struct ShareRecords {
    pub(crate) parts: Vec<SharePart>,
}

impl ShareRecords {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.chunk.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// All records, one partition after the other.
    pub fn iter(&self) -> impl Iterator<Item = ShareRecord<'_>> {
        self.parts.iter().flat_map(|part| {
            (0..part.chunk.len()).map(move |index| {
                let loan = part.loans[index];
                ShareRecord {
                    record: part.chunk.consumer_record(&part.name, index),
                    delivery_count: loan.deliveries,
                    partition: part.id,
                    lease: loan.lease,
                }
            })
        })
    }

    /// The receipts of all records.
    pub fn receipts(&self) -> impl Iterator<Item = ShareReceipt> {
        self.iter().map(|record| record.receipt())
    }
}
