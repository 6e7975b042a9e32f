//! Which groups there are, and how far each has read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ShareState;
use crate::PartitionId;
use crate::entry::{CommittedPosition, Entry, GroupKind};
use crate::settings::Settings;

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: u32,
    pub(crate) offset: u64,
    pub(crate) metadata: Box<str>,
    pub(crate) at_ms: i64,
}

/// A group as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) name: Arc<str>,
    pub(crate) kind: GroupKind,
    pub(crate) settings: Settings,
    /// When it last committed or had a member, ms since 1970.
    pub(crate) seen_ms: i64,
    pub(crate) positions: BTreeMap<PartitionId, Position>,
    pub(crate) shares: BTreeMap<PartitionId, ShareState>,
}

/// The groups, by id and by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    groups: BTreeMap<u64, GroupState>,
    by_name: HashMap<Arc<str>, u64>,
    pub(super) next: u64,
}

impl Default for Groups {
    fn default() -> Self {
        Groups { groups: BTreeMap::new(), by_name: HashMap::new(), next: 1 }
    }
}

impl Groups {
    pub(crate) fn next_id(&self) -> u64 {
        self.next
    }

    pub(crate) fn get(&self, group: u64) -> Option<&GroupState> {
        self.groups.get(&group)
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &GroupState)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    pub(super) fn forget_topic(&mut self, topic: u32) {
        for group in self.groups.values_mut() {
            group.positions.retain(|partition, _| partition.topic != topic);
            group.shares.retain(|partition, _| partition.topic != topic);
        }
    }

    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::GroupCreated { group, kind, name, settings } => {
                let name: Arc<str> = Arc::from(*name);
                self.by_name.insert(name.clone(), *group);
                let state = GroupState {
                    name,
                    kind: *kind,
                    settings: settings.clone(),
                    seen_ms: i64::MIN,
                    positions: BTreeMap::new(),
                    shares: BTreeMap::new(),
                };
                self.groups.insert(*group, state);
                self.next = self.next.max(group.saturating_add(1));
            }
            Entry::GroupDeleted { group } => {
                if let Some(state) = self.groups.remove(group) {
                    self.by_name.remove(&state.name);
                }
            }
            Entry::GroupAltered { group, .. }
            | Entry::GroupSeen { group, .. }
            | Entry::Committed { group, .. }
            | Entry::PositionsDropped { group, .. }
            | Entry::ShareStarted { group, .. }
            | Entry::ShareAcquired { group, .. }
            | Entry::ShareDone { group, .. }
            | Entry::ShareEpoch { group, .. }
            | Entry::ShareDeliveries { group, .. } => {
                if let Some(state) = self.groups.get_mut(group) {
                    state.apply(entry);
                }
            }
            _ => {}
        }
    }

    pub(super) fn restate<'a>(&'a self, entries: &mut Vec<Entry<'a>>) {
        for (group, state) in self.iter() {
            let settings = state.settings.clone();
            entries.push(Entry::GroupCreated {
                group,
                kind: state.kind,
                name: &state.name,
                settings,
            });
            entries.push(Entry::GroupSeen { group, at_ms: state.seen_ms });
            // One entry for all positions of a moment: in practice few, since members commit all they read at once.
            let mut moments: BTreeMap<i64, Vec<CommittedPosition<'a>>> = BTreeMap::new();
            for (partition, position) in &state.positions {
                moments.entry(position.at_ms).or_default().push(CommittedPosition {
                    partition: *partition,
                    epoch: position.epoch,
                    offset: position.offset,
                    metadata: &position.metadata,
                });
            }
            for (at_ms, positions) in moments {
                entries.push(Entry::Committed { group, at_ms, positions });
            }
            for (partition, share) in &state.shares {
                share.restate(group, *partition, entries);
            }
        }
    }
}

impl GroupState {
    fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::GroupAltered { settings, .. } => self.settings = settings.clone(),
            Entry::GroupSeen { at_ms, .. } => self.seen_ms = self.seen_ms.max(*at_ms),
            Entry::Committed { at_ms, positions, .. } => {
                self.seen_ms = self.seen_ms.max(*at_ms);
                for position in positions {
                    self.commit(*at_ms, position);
                }
            }
            Entry::PositionsDropped { partitions, .. } => {
                for partition in partitions {
                    self.positions.remove(partition);
                    self.shares.remove(partition);
                }
            }
            Entry::ShareStarted { partition, epoch, offset, .. } => {
                self.shares.insert(*partition, ShareState::new(*epoch, *offset));
            }
            Entry::ShareAcquired { partition, .. }
            | Entry::ShareDone { partition, .. }
            | Entry::ShareEpoch { partition, .. }
            | Entry::ShareDeliveries { partition, .. } => {
                if let Some(share) = self.shares.get_mut(partition) {
                    share.apply(entry);
                }
            }
            _ => {}
        }
    }

    /// Commits come many times a second: the common one, without metadata, allocates nothing here.
    fn commit(&mut self, at_ms: i64, position: &CommittedPosition<'_>) {
        let CommittedPosition { partition, epoch, offset, metadata } = *position;
        match self.positions.get_mut(&partition) {
            Some(known) => {
                (known.epoch, known.offset, known.at_ms) = (epoch, offset, at_ms);
                if *known.metadata != *metadata {
                    known.metadata = metadata.into();
                }
            }
            None => {
                self.positions.insert(
                    partition,
                    Position { epoch, offset, metadata: metadata.into(), at_ms },
                );
            }
        }
    }
}
