//! As even as possible; among the even assignments, one near the present one.
//!
//! Where all subscribe to the same topics, each member's share is known beforehand (the quotient, or one more), so
//! partitions are kept up to the share and only the rest moves. Otherwise partitions start where they are and move,
//! one at a time, from a member to one that has at least two fewer, until there is no such move.

use std::collections::{BTreeMap, BTreeSet};

use super::{Subscriber, partitions_of};
use crate::PartitionId;

pub(super) fn assign(
    subscribers: &[Subscriber<'_>],
    topics: &[(u32, u32)],
) -> Vec<BTreeSet<PartitionId>> {
    let counts: BTreeMap<u32, u32> = topics.iter().copied().collect();
    let mut assignment = kept(subscribers, &counts);
    if subscribers.is_empty() {
        return assignment;
    }
    let taken: BTreeSet<PartitionId> = assignment.iter().flatten().copied().collect();
    let mut homeless: Vec<PartitionId> =
        partitions_of(topics).filter(|p| !taken.contains(p)).collect();
    if subscribers.iter().all(|s| s.topics == subscribers[0].topics) {
        homeless.retain(|p| subscribers[0].topics.contains(&p.topic));
        deal_to_equals(&mut assignment, homeless);
    } else {
        deal_to_eligible(&mut assignment, subscribers, homeless);
        while improve(&mut assignment, subscribers) {}
    }
    assignment
}

/// What each subscriber reads now and still may, each partition once.
fn kept(subscribers: &[Subscriber<'_>], counts: &BTreeMap<u32, u32>) -> Vec<BTreeSet<PartitionId>> {
    let mut claimed = BTreeSet::new();
    subscribers
        .iter()
        .map(|subscriber| {
            let exists =
                |p: &PartitionId| counts.get(&p.topic).is_some_and(|count| p.partition < *count);
            let still_wanted = |p: &PartitionId| exists(p) && subscriber.topics.contains(&p.topic);
            subscriber
                .owned
                .iter()
                .copied()
                .filter(still_wanted)
                .filter(|p| claimed.insert(*p))
                .collect()
        })
        .collect()
}

fn deal_to_equals(assignment: &mut [BTreeSet<PartitionId>], mut homeless: Vec<PartitionId>) {
    let members = assignment.len();
    let partitions = assignment.iter().map(BTreeSet::len).sum::<usize>() + homeless.len();
    let least = partitions / members;
    // How many members have one more than the least.
    let mut richer = partitions % members;
    let mut share = vec![least; members];
    for (set, share) in assignment.iter().zip(&mut share) {
        if set.len() > least && richer > 0 {
            *share += 1;
            richer -= 1;
        }
    }
    for share in share.iter_mut().filter(|share| **share == least) {
        if richer > 0 {
            *share += 1;
            richer -= 1;
        }
    }
    for (set, share) in assignment.iter_mut().zip(&share) {
        while set.len() > *share {
            homeless.extend(set.pop_last());
        }
    }
    homeless.sort_unstable();
    let mut homeless = homeless.into_iter();
    // In turn and not member by member, so that a topic's partitions are spread.
    let mut turn = 0;
    let mut next = homeless.next();
    while let Some(partition) = next {
        if assignment[turn % members].len() < share[turn % members] {
            assignment[turn % members].insert(partition);
            next = homeless.next();
        }
        turn += 1;
    }
}

fn deal_to_eligible(
    assignment: &mut [BTreeSet<PartitionId>],
    subscribers: &[Subscriber<'_>],
    mut homeless: Vec<PartitionId>,
) {
    let readers =
        |p: &PartitionId| subscribers.iter().filter(|s| s.topics.contains(&p.topic)).count();
    // Those with the least choice first.
    homeless.sort_by_cached_key(|p| (readers(p), *p));
    for partition in homeless {
        if let Some(least) = least_loaded(assignment, subscribers, partition.topic) {
            assignment[least].insert(partition);
        }
    }
}

fn least_loaded(
    assignment: &[BTreeSet<PartitionId>],
    subscribers: &[Subscriber<'_>],
    topic: u32,
) -> Option<usize> {
    (0..subscribers.len())
        .filter(|&i| subscribers[i].topics.contains(&topic))
        .min_by_key(|&i| assignment[i].len())
}

/// Makes moves from richer to poorer members; false when there was none to make. Each move lowers the sum of the
/// squared loads, so this ends.
fn improve(assignment: &mut [BTreeSet<PartitionId>], subscribers: &[Subscriber<'_>]) -> bool {
    let mut moved = false;
    for from in 0..assignment.len() {
        for partition in assignment[from].clone() {
            let Some(to) = least_loaded(assignment, subscribers, partition.topic) else { continue };
            if assignment[to].len() + 1 < assignment[from].len() {
                assignment[from].remove(&partition);
                assignment[to].insert(partition);
                moved = true;
            }
        }
    }
    moved
}
