//! Which topics have handles, and how topics are changed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use logmill_storage::Durability;

use crate::PartitionId;
use crate::config::{PARTITIONS_MAX, TopicConfig, TopicSettings};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::name;
use crate::partition::PartitionCore;
use crate::settings::Setting;
use crate::shared::{Level, Shared};
use crate::state::State;
use crate::topic::TopicCore;

/// The topics that there are, by id and by name.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_id: HashMap<u32, Arc<TopicCore>>,
    by_name: HashMap<Arc<str>, Arc<TopicCore>>,
}

impl Topics {
    pub(crate) fn by_id(&self, id: u32) -> Option<&Arc<TopicCore>> {
        self.by_id.get(&id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<TopicCore>> {
        self.by_name.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<TopicCore>> {
        self.by_id.values()
    }

    /// All of them, by name.
    pub(crate) fn sorted(&self) -> Vec<Arc<TopicCore>> {
        let mut cores: Vec<_> = self.by_id.values().cloned().collect();
        cores.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        cores
    }

    /// Comes in line with the state.
    pub(crate) fn follow(&mut self, state: &State) -> Result<()> {
        let gone: Vec<u32> =
            self.by_id.keys().copied().filter(|id| state.topics.get(*id).is_none()).collect();
        for id in gone {
            self.forget(id);
        }
        for (id, _) in state.topics.iter() {
            self.follow_one(state, id)?;
        }
        Ok(())
    }

    fn follow_one(&mut self, state: &State, id: u32) -> Result<()> {
        match (state.topics.get(id), self.by_id.get(&id)) {
            (Some(state), Some(core)) => core.update(state)?,
            (Some(state), None) => {
                let core = Arc::new(TopicCore::new(id, state)?);
                self.by_name.insert(core.shared_name(), Arc::clone(&core));
                self.by_id.insert(id, core);
            }
            (None, _) => self.forget(id),
        }
        Ok(())
    }

    fn forget(&mut self, id: u32) {
        if let Some(core) = self.by_id.remove(&id) {
            // Another topic may have the name by now.
            if self.by_name.get(core.name()).is_some_and(|named| Arc::ptr_eq(named, &core)) {
                self.by_name.remove(core.name());
            }
            core.set_deleted();
            for partition in core.partitions() {
                // Its records go anyway, so an error while closing has nothing left to tell.
                let _ = partition.retire();
            }
        }
    }
}

fn check_partitions(count: u32) -> Result<()> {
    if (1..=PARTITIONS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(Error::InvalidPartitions { asked: count })
    }
}

impl Shared {
    fn follow_topic(&self, id: u32) -> Result<()> {
        let known = self.known.lock();
        self.topics.write().follow_one(&known.state, id)?;
        drop(known);
        self.tell_groups();
        Ok(())
    }

    pub(crate) fn create_topic(&self, name: &str, config: &TopicConfig) -> Result<()> {
        name::check_topic(name)?;
        let partitions = config.partitions.unwrap_or(1);
        check_partitions(partitions)?;
        let mut config = config.clone();
        // Kept with the topic: readers in other processes go by it, whatever they were opened with.
        if config.settings.get(Setting::Durability).is_none() && self.durability != Durability::Sync
        {
            config = config.durability(self.durability);
        }
        TopicSettings::from(&config.settings)?;
        let id = self.change(Durability::Sync, |state| {
            if state.topics.id_of(name).is_some() {
                return Err(Error::TopicExists { name: name.into() });
            }
            let topic = state.topics.next_id();
            self.check_unused(topic)?;
            let settings = config.settings.clone();
            Ok((vec![Entry::TopicCreated { topic, name, partitions, settings }.encoded()], topic))
        })?;
        self.follow_topic(id)
    }

    /// An id is journaled before anything is in its directory, and never given twice: what is there belongs to a topic that
    /// the journal has lost, whose records a new one would take for its own.
    fn check_unused(&self, topic: u32) -> Result<()> {
        let name = topic.to_string();
        let failed = |op, source| {
            let path = self.dir.path().join(&name);
            Error::from(logmill_storage::Error::Io { op, path, source })
        };
        match self.dir.io().list(Path::new(&name)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("list", e)),
            Ok(entries) if entries.is_empty() => Ok(()),
            Ok(_) => Err(logmill_storage::Error::Corrupt {
                path: self.dir.path().join(&name),
                position: 0,
                offset: 0,
                what: logmill_storage::Corruption::Field(
                    "a topic that the journal does not know: bring the journal back, or move this elsewhere",
                ),
            }
            .into()),
        }
    }

    pub(crate) fn delete_topic(&self, name: &str) -> Result<()> {
        let id = self.change(Level::FREEING, |state| {
            let unknown = || Error::UnknownTopic { name: name.into() };
            let id = state.topics.id_of(name).ok_or_else(unknown)?;
            let partitions = state.topics.get(id).ok_or_else(unknown)?.partitions;
            Ok((vec![Entry::TopicDeleted { topic: id, partitions }.encoded()], id))
        })?;
        self.follow_topic(id)?;
        self.remove_condemned()
    }

    pub(crate) fn alter_topic(&self, id: u32, config: &TopicConfig) -> Result<()> {
        self.change(Durability::Sync, |state| {
            let topic = state.topics.get(id).ok_or_else(|| self.unknown(id))?;
            if config.partitions.is_some_and(|partitions| partitions != topic.partitions) {
                return Err(Error::PartitionsNotChanged {
                    topic: topic.name.to_string(),
                    partitions: topic.partitions,
                });
            }
            let mut settings = topic.settings.clone();
            settings.merge(&config.settings);
            TopicSettings::from(&settings)?;
            Ok((vec![Entry::TopicAltered { topic: id, settings }.encoded()], ()))
        })?;
        self.follow_topic(id)
    }

    pub(crate) fn add_partitions(&self, id: u32, count: u32) -> Result<()> {
        self.change(Durability::Sync, |state| {
            let topic = state.topics.get(id).ok_or_else(|| self.unknown(id))?;
            check_partitions(count)?;
            if count <= topic.partitions {
                return Err(Error::PartitionsNotIncreased {
                    topic: topic.name.to_string(),
                    partitions: topic.partitions,
                    asked: count,
                });
            }
            Ok((vec![Entry::PartitionsAdded { topic: id, partitions: count }.encoded()], ()))
        })?;
        self.follow_topic(id)
    }

    /// Removes the directories of deleted topics. What somebody still reads, and what a crash cuts short, is left to a
    /// later call, and at the latest to the next open.
    pub(crate) fn remove_condemned(&self) -> Result<()> {
        let condemned: Vec<_> = self.look(|state| state.topics.condemned().collect());
        for (topic, partitions) in condemned {
            let logs = (0..partitions)
                .map(|partition| PartitionCore::log_name(PartitionId { topic, partition }));
            let mut is_gone = true;
            for name in logs.chain([topic.to_string()]) {
                match self.dir.remove_log(&name) {
                    Err(logmill_storage::Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(logmill_storage::Error::Locked { .. }) => {
                        is_gone = false;
                        break;
                    }
                    other => other?,
                }
                // Whatever was wrong with it.
                self.dir.note(&format!("log {name}"), &Ok::<(), Error>(()));
            }
            if is_gone {
                self.change(Durability::Buffered, |_| {
                    Ok((vec![Entry::TopicRemoved { topic }.encoded()], ()))
                })?;
            }
        }
        Ok(())
    }
}
