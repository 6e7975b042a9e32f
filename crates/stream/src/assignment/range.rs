//! A contiguous range of each topic's partitions to each of its subscribers.

use std::collections::BTreeSet;

use super::Subscriber;
use crate::PartitionId;

pub(super) fn assign(
    subscribers: &[Subscriber<'_>],
    topics: &[(u32, u32)],
) -> Vec<BTreeSet<PartitionId>> {
    let mut assignment = vec![BTreeSet::new(); subscribers.len()];
    for &(topic, partitions) in topics {
        let readers: Vec<usize> =
            (0..subscribers.len()).filter(|&i| subscribers[i].topics.contains(&topic)).collect();
        let mut next = 0;
        let mut left = partitions as usize;
        for (i, reader) in readers.iter().enumerate() {
            let share = left.div_ceil(readers.len() - i);
            left -= share;
            for _ in 0..share {
                assignment[*reader].insert(PartitionId { topic, partition: next });
                next += 1;
            }
        }
    }
    assignment
}
