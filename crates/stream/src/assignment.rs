//! Who reads which partition: pure functions from subscriptions to an assignment.

use std::collections::BTreeSet;
use std::fmt;

use crate::PartitionId;

mod range;
mod round_robin;
mod sticky;
#[cfg(test)]
mod tests;

/// How the partitions of the subscribed topics are dealt out to the members of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// For each topic, a contiguous range of partitions to each member. Topics with as many partitions are assigned
    /// alike, so a member has the same partition numbers in all of them. Every rebalance stops all members.
    Range,
    /// All partitions of all topics, one to each member in turn. Every rebalance stops all members.
    RoundRobin,
    /// As even as possible, and as much as possible as before. Every rebalance stops all members.
    Sticky,
    /// As even as possible, and as much as possible as before. Only partitions that move are stopped.
    #[default]
    CooperativeSticky,
}

impl Assignor {
    /// Whether members keep, during a rebalance, the partitions that do not move.
    pub const fn is_cooperative(self) -> bool {
        matches!(self, Assignor::CooperativeSticky)
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "round-robin",
            Assignor::Sticky => "sticky",
            Assignor::CooperativeSticky => "cooperative-sticky",
        })
    }
}

/// A member of a group, as the strategies see it.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber<'a> {
    /// The topics that it wants to read.
    pub topics: &'a BTreeSet<u32>,
    /// The partitions that it reads now. Only the sticky strategies look at them; partitions that are gone, that it no
    /// longer subscribes to, or that an earlier member names too are ignored.
    pub owned: &'a BTreeSet<PartitionId>,
}

/// Deals out the partitions of `topics` (id and number of partitions, in the order in which they are to be taken).
///
/// The n-th set of the result belongs to the n-th subscriber. Every partition of a topic that somebody subscribes to
/// is in exactly one of them. The same input gives the same result.
///
/// # Cost
/// Range and round-robin are linear in the partitions times the members. The sticky strategies are too when all
/// subscribe to the same topics; otherwise they may move each partition several times.
pub fn assign(
    strategy: Assignor,
    subscribers: &[Subscriber<'_>],
    topics: &[(u32, u32)],
) -> Vec<BTreeSet<PartitionId>> {
    match strategy {
        Assignor::Range => range::assign(subscribers, topics),
        Assignor::RoundRobin => round_robin::assign(subscribers, topics),
        Assignor::Sticky | Assignor::CooperativeSticky => sticky::assign(subscribers, topics),
    }
}

/// Every partition of `topics`, in order.
fn partitions_of(topics: &[(u32, u32)]) -> impl Iterator<Item = PartitionId> {
    topics.iter().flat_map(|&(topic, partitions)| {
        (0..partitions).map(move |partition| PartitionId { topic, partition })
    })
}
