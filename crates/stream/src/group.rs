//! A consumer group's members and who reads what: a state machine without I/O and without a clock of its own.
//!
//! ```text
//!                    join, leave, time-out, topics changed
//!   members ---------------------------------------------------> target (by the strategy)
//!
//!   a member asks          to_revoke: what it must give up        release: it did
//!                          claim:     what it may start
//! ```
//! *Target* says who shall read a partition, *owner* who reads it now. A rebalance computes the target anew and raises
//! the generation; then each partition passes from owner to target in two steps, release and claim, so there is never
//! a moment with two readers. Cooperative strategies release only what moves. With the others every member releases
//! everything, and nobody claims before all have.
//!
//! Not here: positions (`positions`), waiting and waking (`consumer`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::PartitionId;
use crate::assignment::{Assignor, Subscriber, assign};

#[cfg(test)]
mod tests;

/// A member of a group, by the number that it got when it joined. Numbers are not used again while the store is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// Why the coordinator refuses something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The group's members use another strategy: all members of a group use one.
    InconsistentStrategy {
        /// The strategy of the group.
        group: Assignor,
        /// The strategy that the new member asked for.
        found: Assignor,
    },
    /// The member is not, or no longer, in the group: it left, or was silent for longer than its session time-out.
    UnknownMember(MemberId),
    /// Another member joined with the same instance id and took over.
    InstanceFenced {
        /// The instance id.
        instance: String,
    },
    /// The partition is not assigned to this member.
    NotAssigned {
        /// The member.
        member: MemberId,
        /// The partition.
        partition: PartitionId,
        /// The group's generation now.
        generation: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::InconsistentStrategy { group, found } => {
                write!(f, "the group assigns partitions by {group}, this member asked for {found}")
            }
            Refusal::UnknownMember(member) => write!(f, "{member} is not in the group"),
            Refusal::InstanceFenced { instance } => {
                write!(f, "another member joined with the instance id {instance:?} and took over")
            }
            Refusal::NotAssigned { member, partition, generation } => write!(
                f,
                "partition {} of topic {} is not assigned to {member} in generation {generation}",
                partition.partition, partition.topic
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// What the coordinator says.
type Result<T> = std::result::Result<T, Refusal>;

/// What a member says when it joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// The ids of the topics that it wants to read.
    pub topics: BTreeSet<u32>,
    /// A static member's name. If it goes away and comes back within its session time-out, nothing is rebalanced.
    pub instance: Option<String>,
    /// How long it may be silent before its partitions go to others.
    pub session_timeout: Duration,
    /// How partitions are dealt out; the same for all members of the group.
    pub strategy: Assignor,
}

#[derive(Debug)]
struct Member {
    /// Its place among the members, which a static member keeps when it comes back under a new id.
    slot: u64,
    topics: BTreeSet<u32>,
    instance: Option<String>,
    session_timeout: Duration,
    last_seen: Duration,
    target: BTreeSet<PartitionId>,
    owned: BTreeSet<PartitionId>,
}

/// The members of one group, their partitions, and the rebalance that may be going on.
///
/// `now` is time since any fixed moment, the same moment in every call, and never goes back.
#[derive(Debug, Default)]
pub struct Coordinator {
    strategy: Assignor,
    generation: u64,
    members: BTreeMap<MemberId, Member>,
    /// Who reads a partition now; the inverse of the members' `owned`.
    owners: BTreeMap<PartitionId, MemberId>,
    /// Id and number of partitions of every topic there is, in the order in which strategies take them.
    topics: Vec<(u32, u32)>,
    /// Members that must release before anyone claims. Always empty with a cooperative strategy.
    holding: BTreeSet<MemberId>,
    /// Static members that were replaced, so that the one that lost its place learns why.
    fenced: BTreeMap<MemberId, String>,
    next_member: u64,
}

impl Coordinator {
    /// A group without members in a store with these topics.
    pub fn new(topics: Vec<(u32, u32)>) -> Coordinator {
        Coordinator { topics, ..Coordinator::default() }
    }

    /// How often the target was computed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How partitions are dealt out; that of the first member.
    pub fn strategy(&self) -> Assignor {
        self.strategy
    }

    /// The members in the order in which strategies see them.
    pub fn members(&self) -> Vec<MemberId> {
        let mut ids: Vec<_> = self.members.keys().copied().collect();
        ids.sort_by_key(|id| self.members[id].slot);
        ids
    }

    /// Whether the group has no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether some partition has not reached the member that shall read it.
    pub fn is_rebalancing(&self) -> bool {
        self.members.values().any(|member| member.owned != member.target)
    }

    /// A static member's name.
    pub fn instance(&self, member: MemberId) -> Option<&str> {
        self.members.get(&member)?.instance.as_deref()
    }

    /// What a member reads now; nothing if it is not in the group.
    pub fn owned(&self, member: MemberId) -> BTreeSet<PartitionId> {
        self.members.get(&member).map(|member| member.owned.clone()).unwrap_or_default()
    }

    /// Who reads a partition now.
    pub fn owner(&self, partition: PartitionId) -> Option<MemberId> {
        self.owners.get(&partition).copied()
    }

    /// Adds a member. A static member takes the place and the partitions of the one with its instance id, if there is
    /// one, and nothing is rebalanced if it wants the same topics.
    ///
    /// # Errors
    /// [`Refusal::InconsistentStrategy`].
    pub fn join(&mut self, now: Duration, join: Join) -> Result<MemberId> {
        if self.members.is_empty() {
            self.strategy = join.strategy;
        } else if self.strategy != join.strategy {
            return Err(Refusal::InconsistentStrategy {
                group: self.strategy,
                found: join.strategy,
            });
        }
        self.next_member += 1;
        let id = MemberId(self.next_member);
        let predecessor =
            join.instance.as_deref().and_then(|instance| self.member_of_instance(instance));
        if let Some(predecessor) = predecessor {
            self.replace(now, predecessor, id, join);
            return Ok(id);
        }
        let member = Member {
            slot: id.0,
            topics: join.topics,
            instance: join.instance,
            session_timeout: join.session_timeout,
            last_seen: now,
            target: BTreeSet::new(),
            owned: BTreeSet::new(),
        };
        self.members.insert(id, member);
        self.rebalance();
        Ok(id)
    }

    fn member_of_instance(&self, instance: &str) -> Option<MemberId> {
        self.members
            .iter()
            .find(|(_, member)| member.instance.as_deref() == Some(instance))
            .map(|(id, _)| *id)
    }

    fn replace(&mut self, now: Duration, old: MemberId, new: MemberId, join: Join) {
        let Some(mut member) = self.members.remove(&old) else { return };
        let same_topics = member.topics == join.topics;
        member.last_seen = now;
        member.session_timeout = join.session_timeout;
        member.topics = join.topics;
        for partition in &member.owned {
            self.owners.insert(*partition, new);
        }
        if self.holding.remove(&old) {
            self.holding.insert(new);
        }
        self.fenced.insert(old, member.instance.clone().unwrap_or_default());
        self.members.insert(new, member);
        if !same_topics {
            self.rebalance();
        }
    }

    /// Removes a member, whatever it reads; others may claim that at once. Leaving twice is no error.
    pub fn leave(&mut self, member: MemberId) {
        self.fenced.remove(&member);
        if self.remove(member) {
            self.rebalance();
        }
    }

    fn remove(&mut self, id: MemberId) -> bool {
        let Some(member) = self.members.remove(&id) else { return false };
        for partition in &member.owned {
            self.owners.remove(partition);
        }
        self.holding.remove(&id);
        true
    }

    /// Notes that a member is alive.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`], [`Refusal::InstanceFenced`].
    pub fn heartbeat(&mut self, now: Duration, member: MemberId) -> Result<()> {
        self.member(member)?.last_seen = now;
        Ok(())
    }

    /// Removes the members that were silent for longer than their session time-out.
    pub fn expire(&mut self, now: Duration) -> Vec<MemberId> {
        let silent =
            |member: &Member| now.saturating_sub(member.last_seen) > member.session_timeout;
        let gone: Vec<_> =
            self.members.iter().filter(|(_, m)| silent(m)).map(|(id, _)| *id).collect();
        for id in &gone {
            self.remove(*id);
        }
        if !gone.is_empty() {
            self.rebalance();
        }
        gone
    }

    /// The earliest moment at which [`Coordinator::expire`] could find somebody.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.members
            .values()
            .map(|member| member.last_seen.saturating_add(member.session_timeout))
            .min()
    }

    /// Changes what a member wants to read.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`], [`Refusal::InstanceFenced`].
    pub fn subscribe(&mut self, member: MemberId, topics: BTreeSet<u32>) -> Result<()> {
        let entry = self.member(member)?;
        if entry.topics != topics {
            entry.topics = topics;
            self.rebalance();
        }
        Ok(())
    }

    /// Says which topics there are now, with their numbers of partitions.
    pub fn topics_changed(&mut self, topics: Vec<(u32, u32)>) {
        if self.topics == topics {
            return;
        }
        let wanted: BTreeSet<u32> =
            self.members.values().flat_map(|member| &member.topics).copied().collect();
        let relevant = |list: &[(u32, u32)]| -> Vec<(u32, u32)> {
            list.iter().filter(|(topic, _)| wanted.contains(topic)).copied().collect()
        };
        let changed = relevant(&self.topics) != relevant(&topics);
        self.topics = topics;
        if changed {
            self.rebalance();
        }
    }

    /// Computes the target anew.
    fn rebalance(&mut self) {
        self.generation += 1;
        let ids = self.members();
        let subscribers: Vec<_> = ids
            .iter()
            .map(|id| Subscriber {
                topics: &self.members[id].topics,
                owned: &self.members[id].owned,
            })
            .collect();
        let targets = assign(self.strategy, &subscribers, &self.topics);
        for (id, target) in ids.iter().zip(targets) {
            if let Some(member) = self.members.get_mut(id) {
                member.target = target;
            }
        }
        self.holding.clear();
        if !self.strategy.is_cooperative() && self.is_rebalancing() {
            let holders = self.members.iter().filter(|(_, member)| !member.owned.is_empty());
            self.holding = holders.map(|(id, _)| *id).collect();
        }
    }

    /// What a member must stop reading and then [`Coordinator::release`]. Until it does, it is still the owner and
    /// may commit.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`], [`Refusal::InstanceFenced`].
    pub fn to_revoke(&mut self, member: MemberId) -> Result<BTreeSet<PartitionId>> {
        let all = self.holding.contains(&member);
        let entry = self.member(member)?;
        Ok(if all {
            entry.owned.clone()
        } else {
            entry.owned.difference(&entry.target).copied().collect()
        })
    }

    /// Gives up partitions. Those that the member does not own are ignored.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`], [`Refusal::InstanceFenced`].
    pub fn release(&mut self, member: MemberId, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        let entry = self.member(member)?;
        let released: Vec<_> =
            partitions.iter().copied().filter(|p| entry.owned.remove(p)).collect();
        let holds_nothing = entry.owned.is_empty();
        for partition in released {
            self.owners.remove(&partition);
        }
        if holds_nothing {
            self.holding.remove(&member);
        }
        Ok(())
    }

    /// Takes what the member shall read and nobody reads any more; returns only what is new.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`], [`Refusal::InstanceFenced`].
    pub fn claim(&mut self, member: MemberId) -> Result<BTreeSet<PartitionId>> {
        let waiting = !self.holding.is_empty();
        let owners = &self.owners;
        let fenced = &self.fenced;
        let Some(entry) = self.members.get_mut(&member) else { return Err(gone(fenced, member)) };
        if waiting {
            return Ok(BTreeSet::new());
        }
        let free = |p: &&PartitionId| !owners.contains_key(*p);
        let new: BTreeSet<_> =
            entry.target.difference(&entry.owned).filter(free).copied().collect();
        entry.owned.extend(&new);
        self.owners.extend(new.iter().map(|partition| (*partition, member)));
        Ok(new)
    }

    /// Whether a member may commit a position of a partition: whether it is the one that reads it.
    ///
    /// # Errors
    /// [`Refusal::NotAssigned`], [`Refusal::UnknownMember`], [`Refusal::InstanceFenced`].
    pub fn check_owner(&self, member: MemberId, partition: PartitionId) -> Result<()> {
        if !self.members.contains_key(&member) {
            return Err(gone(&self.fenced, member));
        }
        if self.owners.get(&partition) != Some(&member) {
            return Err(Refusal::NotAssigned { member, partition, generation: self.generation });
        }
        Ok(())
    }

    fn member(&mut self, member: MemberId) -> Result<&mut Member> {
        let fenced = &self.fenced;
        self.members.get_mut(&member).ok_or_else(|| gone(fenced, member))
    }
}

fn gone(fenced: &BTreeMap<MemberId, String>, member: MemberId) -> Refusal {
    match fenced.get(&member) {
        Some(instance) => Refusal::InstanceFenced { instance: instance.clone() },
        None => Refusal::UnknownMember(member),
    }
}
