//! The groups that have members now, and what is known about all groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logmill_storage::Durability;
use parking_lot::Mutex;

use crate::entry::{CommittedPosition, Entry, GroupKind};
use crate::error::{Error, NameKind, Result};
use crate::group::{Coordinator, MemberId, Refusal};
use crate::settings::Settings;
use crate::share::ShareSettings;
use crate::shared::{Level, Shared};
use crate::signal::Signal;
use crate::{PartitionId, TopicPartition, name};

/// A group that has, or had, members in this process.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    members: Mutex<Members>,
    /// Rises with every change that a member may have to act upon.
    version: AtomicU64,
    /// When the first member could be found silent, in ns of the store's monotonic clock.
    next_expiry: AtomicU64,
}

#[derive(Debug)]
struct Members {
    coordinator: Coordinator,
    signals: BTreeMap<MemberId, Arc<Signal>>,
}

impl Group {
    pub(crate) fn new(id: u64, name: Arc<str>, topics: Vec<(u32, u32)>) -> Group {
        Group {
            id,
            name,
            members: Mutex::new(Members {
                coordinator: Coordinator::new(topics),
                signals: BTreeMap::new(),
            }),
            version: AtomicU64::new(1),
            next_expiry: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Changes membership, and tells every member.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Coordinator) -> T) -> T {
        let mut members = self.members.lock();
        let result = change(&mut members.coordinator);
        self.changed(&members);
        result
    }

    /// Looks at membership, or changes what concerns the caller alone.
    pub(crate) fn quietly<T>(&self, look: impl FnOnce(&mut Coordinator) -> T) -> T {
        look(&mut self.members.lock().coordinator)
    }

    fn changed(&self, members: &Members) {
        let next = members.coordinator.next_expiry().map_or(u64::MAX, to_nanos);
        self.next_expiry.store(next, Ordering::Release);
        self.version.fetch_add(1, Ordering::AcqRel);
        for signal in members.signals.values() {
            signal.kick();
        }
    }

    /// Adds a member that is reached by `signal`.
    pub(crate) fn join(
        &self,
        now: Duration,
        join: crate::group::Join,
        signal: &Arc<Signal>,
    ) -> Result<MemberId, Refusal> {
        let mut members = self.members.lock();
        let member = members.coordinator.join(now, join)?;
        members.signals.insert(member, Arc::clone(signal));
        self.changed(&members);
        Ok(member)
    }

    /// Removes a member, or, if it is static, leaves its place to be taken by its successor, for a session time-out from now on.
    pub(crate) fn leave(&self, now: Duration, member: MemberId, even_if_static: bool) {
        let mut members = self.members.lock();
        members.signals.remove(&member);
        if even_if_static || members.coordinator.instance(member).is_none() {
            members.coordinator.leave(member);
        } else {
            // One that lost its place has none to keep.
            let _ = members.coordinator.heartbeat(now, member);
        }
        self.changed(&members);
    }

    /// Removes the members that were silent for too long, if it is time to look for some.
    pub(crate) fn expire(&self, now: Duration) {
        if to_nanos(now) <= self.next_expiry.load(Ordering::Acquire) {
            return;
        }
        let mut members = self.members.lock();
        let Members { coordinator, signals } = &mut *members;
        for (member, signal) in signals.iter() {
            // One that is gone already has nothing to say.
            let _ = coordinator.heartbeat(signal.last_seen(now), *member);
        }
        let gone = coordinator.expire(now);
        if gone.is_empty() {
            let next = coordinator.next_expiry().map_or(u64::MAX, to_nanos);
            self.next_expiry.store(next, Ordering::Release);
        } else {
            self.changed(&members);
            // They have been told, and come back as others.
            gone.iter().for_each(|member| drop(members.signals.remove(member)));
        }
    }

    /// The refusal as an error that names the group.
    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        Error::Group { group: self.name.to_string(), refusal }
    }
}

fn to_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The groups of a store that were used since it was opened.
#[derive(Debug, Default)]
pub(crate) struct ActiveGroups {
    by_id: Mutex<HashMap<u64, Arc<Group>>>,
}

impl ActiveGroups {
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Group>> {
        self.by_id.lock().get(&id).cloned()
    }

    fn get_or_make(&self, id: u64, make: impl FnOnce() -> Group) -> Arc<Group> {
        Arc::clone(self.by_id.lock().entry(id).or_insert_with(|| Arc::new(make())))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Group>> {
        self.by_id.lock().values().cloned().collect()
    }

    fn remove(&self, id: u64) {
        self.by_id.lock().remove(&id);
    }
}

/// Where a reset sends a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// The first record that is there.
    Earliest,
    /// After the last record.
    Latest,
    /// This offset, or the nearest that is there.
    Offset(u64),
    /// The first record with at least this timestamp (ms since 1970), or after the last record if there is none.
    Timestamp(i64),
}

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupPhase {
    /// It has no members.
    Empty,
    /// Every partition is with the member that shall read it.
    Stable,
    /// Some partition is on its way from one member to another.
    Rebalancing,
}

/// A group, as [`Streams::describe_group`](crate::Streams::describe_group) sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Whether its members share partitions or records.
    pub kind: GroupKind,
    /// What it is doing.
    pub phase: GroupPhase,
    /// How often its partitions were dealt out since the store was opened.
    pub generation: u64,
    /// Its members.
    pub members: Vec<MemberDescription>,
    /// How far it has read each partition of the topics in which it has a position or a member.
    pub partitions: Vec<PartitionProgress>,
}

impl GroupDescription {
    /// How many records it has not read yet, in all partitions.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// Its number.
    pub id: MemberId,
    /// A static member's name.
    pub instance: Option<String>,
    /// What it reads.
    pub partitions: Vec<TopicPartition>,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed position: the next record to read. `None` if there is none.
    pub committed: Option<u64>,
    /// What was committed with it.
    pub metadata: String,
    /// The first offset that is there.
    pub start: u64,
    /// One past the last offset that readers see.
    pub end: u64,
    /// How many offsets lie between the position and the end. Without a position: all that are there, and for a share group
    /// those from where it would begin.
    pub lag: u64,
    /// The member that reads it now. Share groups have none.
    pub member: Option<MemberId>,
    /// How many of its records are leased to consumers of a share group.
    pub in_flight: usize,
}

impl Shared {
    /// The id of the group called `name`, made if there is none.
    pub(crate) fn make_group(
        &self,
        name: &str,
        kind: GroupKind,
        settings: &Settings,
    ) -> Result<u64> {
        name::check_other(NameKind::Group, name)?;
        self.change(Durability::Buffered, |state| match state.groups.id_of(name) {
            Some(id) if state.groups.get(id).is_some_and(|group| group.kind == kind) => {
                Ok((Vec::new(), id))
            }
            Some(_) => Err(Error::GroupKind { group: name.into() }),
            None => {
                let group = state.groups.next_id();
                let settings = settings.clone();
                let seen = Entry::GroupSeen { group, at_ms: self.dir.clock().wall_ms() }.encoded();
                Ok((
                    vec![Entry::GroupCreated { group, kind, name, settings }.encoded(), seen],
                    group,
                ))
            }
        })
    }

    /// The group of consumers called `name`, made if there is none.
    pub(crate) fn open_group(&self, name: &str) -> Result<Arc<Group>> {
        let id = self.make_group(name, GroupKind::Consumers, &Settings::default())?;
        Ok(self.groups.get_or_make(id, || Group::new(id, name.into(), self.topic_list())))
    }

    /// Tells every group which topics there are now.
    pub(crate) fn tell_groups(&self) {
        for group in self.share_groups.all() {
            group.tell(self);
        }
        let groups = self.groups.all();
        if groups.is_empty() {
            return;
        }
        let topics = self.topic_list();
        for group in groups {
            group.change(|coordinator| coordinator.topics_changed(topics.clone()));
        }
    }

    pub(crate) fn expire_members(&self) {
        let now = self.dir.clock().monotonic();
        for group in self.groups.all() {
            group.expire(now);
        }
    }

    fn group_id(&self, name: &str) -> Result<u64> {
        self.look(|state| state.groups.id_of(name))
            .ok_or_else(|| Error::UnknownGroup { group: name.into() })
    }

    /// How many members a group has, of whichever kind it is.
    pub(crate) fn member_count(&self, id: u64) -> usize {
        let members = self.groups.get(id).map_or(0, |group| group.quietly(|c| c.members().len()));
        members + self.share_groups.get(id).map_or(0, |group| group.members().len())
    }

    /// Does something that only a group without members may have done to it; nobody joins meanwhile.
    fn while_inactive<T>(&self, id: u64, name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let active = |members| Error::GroupActive { group: name.into(), members };
        match self.look(|state| state.groups.get(id).map(|group| group.kind)) {
            Some(GroupKind::Share) => self.share_groups.while_inactive(id, act).map_err(active)?,
            Some(GroupKind::Consumers) => {
                let make = || Group::new(id, name.into(), self.topic_list());
                let group = self.groups.get_or_make(id, make);
                group.quietly(|coordinator| match coordinator.members().len() {
                    0 => act(),
                    members => Err(active(members)),
                })
            }
            None => Err(Error::UnknownGroup { group: name.into() }),
        }
    }

    pub(crate) fn delete_group(&self, name: &str) -> Result<()> {
        let id = self.group_id(name)?;
        let ((), ticket) = self.while_inactive(id, name, || {
            self.begin(Level::FREEING, |state| match state.groups.get(id) {
                Some(_) => Ok((vec![Entry::GroupDeleted { group: id }.encoded()], ())),
                None => Err(Error::UnknownGroup { group: name.into() }),
            })
        })?;
        self.groups.remove(id);
        if let Some(ticket) = ticket {
            ticket.wait()?;
        }
        Ok(())
    }

    pub(crate) fn reset_group(
        self: &Arc<Self>,
        name: &str,
        topic: &str,
        to: ResetTo,
    ) -> Result<()> {
        let id = self.group_id(name)?;
        let topic =
            self.topic_by_name(topic).ok_or_else(|| Error::UnknownTopic { name: topic.into() })?;
        let mut targets = Vec::new();
        for number in 0..topic.partition_count() {
            let partition = self.partition(PartitionId { topic: topic.id(), partition: number })?;
            // Where there is no log there is one place to go to.
            let (epoch, offset) = match partition.log_if_made()? {
                Some(log) => {
                    let (start, end) = (log.start_offset(), log.high_watermark());
                    let offset = match to {
                        ResetTo::Earliest => start,
                        ResetTo::Latest => end,
                        ResetTo::Offset(offset) => offset.clamp(start, end),
                        ResetTo::Timestamp(ms) => log.offset_for_timestamp(ms)?.unwrap_or(end),
                    };
                    (log.epoch(), offset)
                }
                None => (0, 0),
            };
            targets.push((partition.id(), epoch, offset));
        }
        let at_ms = self.dir.clock().wall_ms();
        let ((), ticket) = self.while_inactive(id, name, || {
            self.begin(Durability::Sync, |state| {
                if state.topics.get(topic.id()).is_none() {
                    return Err(Error::UnknownTopic { name: topic.name().into() });
                }
                let group = state
                    .groups
                    .get(id)
                    .ok_or_else(|| Error::UnknownGroup { group: name.into() })?;
                let entries = match group.kind {
                    GroupKind::Consumers => {
                        let position = |&(partition, epoch, offset): &(PartitionId, u32, u64)| {
                            CommittedPosition { partition, epoch, offset, metadata: "" }
                        };
                        let positions = targets.iter().map(position).collect();
                        vec![Entry::Committed { group: id, at_ms, positions }.encoded()]
                    }
                    GroupKind::Share => targets
                        .iter()
                        .map(|&(partition, epoch, offset)| {
                            Entry::ShareStarted { group: id, partition, epoch, offset }.encoded()
                        })
                        .collect(),
                };
                Ok((entries, ()))
            })
        })?;
        if let Some(ticket) = ticket {
            ticket.wait()?;
        }
        Ok(())
    }

    pub(crate) fn group_names(&self) -> Vec<(String, GroupKind)> {
        let mut names: Vec<_> = self.look(|state| {
            state.groups.iter().map(|(_, group)| (group.name.to_string(), group.kind)).collect()
        });
        names.sort_unstable_by(|a: &(String, GroupKind), b| a.0.cmp(&b.0));
        names
    }

    pub(crate) fn describe_group(self: &Arc<Self>, name: &str) -> Result<GroupDescription> {
        let id = self.group_id(name)?;
        let unknown = || Error::UnknownGroup { group: name.into() };
        let (kind, settings, positions, shares) = self
            .look(|state| {
                state.groups.get(id).map(|group| {
                    let shares: BTreeMap<_, _> =
                        group.shares.iter().map(|(p, share)| (*p, share.start)).collect();
                    (group.kind, group.settings.clone(), group.positions.clone(), shares)
                })
            })
            .ok_or_else(unknown)?;
        let mut members = Vec::new();
        let mut owners: BTreeMap<PartitionId, MemberId> = BTreeMap::new();
        let (mut phase, mut generation) = (GroupPhase::Empty, 0);
        if let Some(group) = self.groups.get(id) {
            group.quietly(|coordinator| {
                generation = coordinator.generation();
                for member in coordinator.members() {
                    phase = if coordinator.is_rebalancing() {
                        GroupPhase::Rebalancing
                    } else {
                        GroupPhase::Stable
                    };
                    let owned = coordinator.owned(member);
                    owners.extend(owned.iter().map(|partition| (*partition, member)));
                    members.push((member, coordinator.instance(member).map(str::to_owned), owned));
                }
            });
        }
        let share_group = self.share_groups.get(id);
        for member in share_group.iter().flat_map(|group| group.members()) {
            phase = GroupPhase::Stable;
            members.push((member, None, BTreeSet::new()));
        }
        let known = positions.keys().chain(owners.keys()).chain(shares.keys());
        let topics: BTreeSet<u32> = known.map(|id| id.topic).collect();
        let cores = topics.iter().filter_map(|id| self.topics.read().by_id(*id).cloned());
        let cores: Vec<_> = cores.flat_map(|topic| topic.partitions()).collect();
        let mut partitions = Vec::new();
        for id in cores.iter().map(|core| core.id) {
            let Ok(partition) = self.partition(id) else { continue };
            let (start, end) = (partition.start_offset()?, partition.high_watermark()?);
            let position = positions.get(&id);
            let committed =
                position.map(|position| position.offset).or_else(|| shares.get(&id).copied());
            // A share group knows where it begins. Of others each member does, and all that is there may be read.
            let begins_at = if kind == GroupKind::Share
                && committed.is_none()
                && let Some(log) = partition.log_if_made()?
            {
                let start_at = ShareSettings::from(&settings)?.start_at;
                start_at.offset(&log, &**self.dir.clock())?.unwrap_or(end)
            } else {
                start
            };
            partitions.push(PartitionProgress {
                partition: partition.name(),
                committed,
                metadata: position
                    .map(|position| position.metadata.to_string())
                    .unwrap_or_default(),
                start,
                end,
                lag: end.saturating_sub(committed.unwrap_or(begins_at).max(start)),
                member: owners.get(&id).copied(),
                in_flight: share_group.as_ref().map_or(0, |group| group.counts(id).0),
            });
        }
        partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
        let members = members
            .into_iter()
            .map(|(id, instance, owned)| MemberDescription {
                id,
                instance,
                partitions: owned
                    .iter()
                    .filter_map(|p| self.partition(*p).ok())
                    .map(|p| p.name())
                    .collect(),
            })
            .collect();
        Ok(GroupDescription { name: name.into(), kind, phase, generation, members, partitions })
    }
}
