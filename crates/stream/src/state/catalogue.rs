//! Which topics there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::PartitionId;
use crate::entry::{Entry, LogId};
use crate::range_set::RangeSet;
use crate::settings::Settings;

/// A topic as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicState {
    pub(crate) name: Arc<str>,
    pub(crate) partitions: u32,
    pub(crate) settings: Settings,
    /// Which partitions have had a log.
    made: RangeSet,
    /// Which log that was.
    logs: BTreeMap<u32, LogId>,
}

impl TopicState {
    /// Whether the partition has had a log, so that it must be there as long as the topic is. A store from before this was
    /// journaled says so of no partition that was not used since.
    pub(crate) fn is_made(&self, partition: u32) -> bool {
        self.made.contains(partition.into())
    }

    /// The only log that can be the partition's. Of a partition that was not used since this is journaled, nobody knows.
    pub(crate) fn log_id(&self, partition: u32) -> Option<LogId> {
        self.logs.get(&partition).copied()
    }
}

/// The topics, by id and by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalogue {
    topics: BTreeMap<u32, TopicState>,
    by_name: HashMap<Arc<str>, u32>,
    /// Deleted topics whose directories may still be there, with their numbers of partitions.
    condemned: BTreeMap<u32, u32>,
    /// The id of the next topic. Ids are not used again, so a left-over directory can never pass for a new topic's.
    pub(super) next: u32,
}

impl Default for Catalogue {
    fn default() -> Self {
        Catalogue {
            topics: BTreeMap::new(),
            by_name: HashMap::new(),
            condemned: BTreeMap::new(),
            next: 1,
        }
    }
}

impl Catalogue {
    pub(crate) fn next_id(&self) -> u32 {
        self.next
    }

    pub(crate) fn get(&self, topic: u32) -> Option<&TopicState> {
        self.topics.get(&topic)
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &TopicState)> {
        self.topics.iter().map(|(id, topic)| (*id, topic))
    }

    /// The partitions that have had a log, and which.
    pub(crate) fn made(&self) -> impl Iterator<Item = (PartitionId, Option<LogId>)> + '_ {
        self.iter().flat_map(|(topic, state)| {
            (0..state.partitions)
                .filter(|partition| state.is_made(*partition))
                .map(move |partition| (PartitionId { topic, partition }, state.log_id(partition)))
        })
    }

    pub(crate) fn has_made(&self, id: PartitionId) -> bool {
        self.get(id.topic).is_some_and(|topic| topic.is_made(id.partition))
    }

    pub(crate) fn condemned(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.condemned.iter().map(|(topic, partitions)| (*topic, *partitions))
    }

    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::TopicCreated { topic, name, partitions, settings } => {
                let name: Arc<str> = Arc::from(*name);
                self.by_name.insert(name.clone(), *topic);
                self.topics.insert(
                    *topic,
                    TopicState {
                        name,
                        partitions: *partitions,
                        settings: settings.clone(),
                        made: RangeSet::default(),
                        logs: BTreeMap::new(),
                    },
                );
                self.next = self.next.max(topic.saturating_add(1));
            }
            Entry::TopicAltered { topic, settings } => {
                if let Some(state) = self.topics.get_mut(topic) {
                    state.settings = settings.clone();
                }
            }
            Entry::PartitionsAdded { topic, partitions } => {
                if let Some(state) = self.topics.get_mut(topic) {
                    state.partitions = state.partitions.max(*partitions);
                }
            }
            Entry::LogsMade { topic, partitions } => {
                if let Some(state) = self.topics.get_mut(topic) {
                    for (first, end) in partitions {
                        state.made.insert(*first, *end);
                    }
                }
            }
            Entry::LogsNamed { topic, logs } => {
                if let Some(state) = self.topics.get_mut(topic) {
                    for (partition, id) in logs {
                        state.made.insert((*partition).into(), u64::from(*partition) + 1);
                        state.logs.insert(*partition, *id);
                    }
                }
            }
            Entry::TopicDeleted { topic, partitions } => {
                if let Some(state) = self.topics.remove(topic) {
                    self.by_name.remove(&state.name);
                }
                self.condemned.insert(*topic, *partitions);
            }
            Entry::TopicRemoved { topic } => {
                self.condemned.remove(topic);
            }
            _ => {}
        }
    }

    pub(super) fn restate<'a>(&'a self, entries: &mut Vec<Entry<'a>>) {
        for (topic, partitions) in self.condemned() {
            entries.push(Entry::TopicDeleted { topic, partitions });
        }
        for (topic, state) in self.iter() {
            entries.push(Entry::TopicCreated {
                topic,
                name: &state.name,
                partitions: state.partitions,
                settings: state.settings.clone(),
            });
            if state.made.len() > 0 {
                entries.push(Entry::LogsMade { topic, partitions: state.made.iter().collect() });
            }
            if !state.logs.is_empty() {
                let logs = state.logs.iter().map(|(partition, id)| (*partition, *id)).collect();
                entries.push(Entry::LogsNamed { topic, logs });
            }
        }
    }
}
