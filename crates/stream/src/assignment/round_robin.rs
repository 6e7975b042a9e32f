//! Every partition in order, one to each subscriber in turn.

use std::collections::BTreeSet;

use super::{Subscriber, partitions_of};
use crate::PartitionId;

pub(super) fn assign(
    subscribers: &[Subscriber<'_>],
    topics: &[(u32, u32)],
) -> Vec<BTreeSet<PartitionId>> {
    let mut assignment = vec![BTreeSet::new(); subscribers.len()];
    let mut turn = 0;
    for partition in partitions_of(topics) {
        let taker = (0..subscribers.len())
            .map(|step| (turn + step) % subscribers.len())
            .find(|&i| subscribers[i].topics.contains(&partition.topic));
        if let Some(taker) = taker {
            assignment[taker].insert(partition);
            turn = taker + 1;
        }
    }
    assignment
}
