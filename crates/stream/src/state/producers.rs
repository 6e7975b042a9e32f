//! Which named producers there are: their ids, their epochs, and the sequences that their logs may have forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::PartitionId;
use crate::entry::Entry;
use crate::routes::Routes;

/// An idempotent producer as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) name: Arc<str>,
    /// How often it was opened before; whoever holds a lower one is a zombie.
    pub(crate) epoch: u32,
    /// When it was last opened, ms since 1970.
    pub(crate) seen_ms: i64,
    /// The last sequence of each partition, as far as it was written down here.
    pub(crate) sequences: BTreeMap<PartitionId, u64>,
    /// By topic, where its records go.
    pub(crate) routes: BTreeMap<u32, Routes>,
}

/// The named producers, by id and by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producers {
    producers: BTreeMap<u64, ProducerState>,
    by_name: HashMap<Arc<str>, u64>,
    pub(super) next: u64,
}

impl Default for Producers {
    fn default() -> Self {
        Producers { producers: BTreeMap::new(), by_name: HashMap::new(), next: 1 }
    }
}

impl Producers {
    pub(crate) fn next_id(&self) -> u64 {
        self.next
    }

    pub(crate) fn get(&self, producer: u64) -> Option<&ProducerState> {
        self.producers.get(&producer)
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &ProducerState)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    pub(super) fn forget_topic(&mut self, topic: u32) {
        for producer in self.producers.values_mut() {
            producer.sequences.retain(|partition, _| partition.topic != topic);
            producer.routes.remove(&topic);
        }
    }

    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::ProducerOpened { producer, epoch, at_ms, name } => {
                self.next = self.next.max(producer.saturating_add(1));
                if let Some(state) = self.producers.get_mut(producer) {
                    (state.epoch, state.seen_ms) = (*epoch, *at_ms);
                    return;
                }
                let name: Arc<str> = Arc::from(*name);
                self.by_name.insert(name.clone(), *producer);
                let state = ProducerState {
                    name,
                    epoch: *epoch,
                    seen_ms: *at_ms,
                    sequences: BTreeMap::new(),
                    routes: BTreeMap::new(),
                };
                self.producers.insert(*producer, state);
            }
            Entry::ProducerSequence { producer, partition, sequence } => {
                if let Some(state) = self.producers.get_mut(producer) {
                    let last = state.sequences.entry(*partition).or_insert(*sequence);
                    *last = (*last).max(*sequence);
                }
            }
            Entry::ProducerRoute { producer, topic, from, partitions } => {
                if let Some(state) = self.producers.get_mut(producer) {
                    state.routes.entry(*topic).or_default().add(*from, *partitions);
                }
            }
            Entry::ProducerRemoved { producer } => {
                if let Some(state) = self.producers.remove(producer) {
                    self.by_name.remove(&state.name);
                }
            }
            _ => {}
        }
    }

    pub(super) fn restate<'a>(&'a self, entries: &mut Vec<Entry<'a>>) {
        for (producer, state) in self.iter() {
            let ProducerState { name, epoch, seen_ms, sequences, routes } = state;
            entries.push(Entry::ProducerOpened { producer, epoch: *epoch, at_ms: *seen_ms, name });
            for (partition, sequence) in sequences {
                entries.push(Entry::ProducerSequence {
                    producer,
                    partition: *partition,
                    sequence: *sequence,
                });
            }
            for (topic, routes) in routes {
                entries.extend(routes.iter().map(|(from, partitions)| Entry::ProducerRoute {
                    producer,
                    topic: *topic,
                    from,
                    partitions,
                }));
            }
        }
    }
}
