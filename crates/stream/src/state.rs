//! What the journal says about streams: a fold over entries, one code path for live changes and for replay.
//!
//! No I/O, no clock, no locks: the same entries in the same order give the same state. [`State::snapshot`] says the
//! whole state in one entry, which is both the checkpoint and what lets old journal segments go.

use crate::entry::Entry;
use crate::wire::{Malformed, Wire, put_bytes};

mod catalogue;
mod groups;
mod producers;
mod shares;
#[cfg(test)]
mod tests;

use catalogue::Catalogue;
pub(crate) use catalogue::TopicState;
use groups::Groups;
pub(crate) use groups::Position;
use producers::Producers;
pub(crate) use shares::ShareState;

/// Everything that streams keep in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) topics: Catalogue,
    pub(crate) groups: Groups,
    pub(crate) producers: Producers,
}

impl State {
    /// Folds one entry in. Entries about things that are not there any more change nothing: a commit may be journaled
    /// just before its group's deletion takes effect.
    pub(crate) fn apply(&mut self, entry: &Entry<'_>) -> Result<(), Malformed> {
        match entry {
            Entry::Snapshot { next_topic, next_group, next_producer, entries } => {
                *self = State::default();
                let mut wire = Wire(entries);
                while !wire.0.is_empty() {
                    match Entry::decode(wire.bytes()?)? {
                        Entry::Snapshot { .. } => return Err("a snapshot inside a snapshot"),
                        entry => self.apply(&entry)?,
                    }
                }
                self.topics.next = *next_topic;
                self.groups.next = *next_group;
                self.producers.next = *next_producer;
            }
            Entry::TopicDeleted { topic, .. } => {
                self.topics.apply(entry);
                self.groups.forget_topic(*topic);
                self.producers.forget_topic(*topic);
            }
            Entry::TopicCreated { .. }
            | Entry::TopicAltered { .. }
            | Entry::PartitionsAdded { .. }
            | Entry::LogsMade { .. }
            | Entry::LogsNamed { .. }
            | Entry::TopicRemoved { .. } => self.topics.apply(entry),
            Entry::ProducerOpened { .. }
            | Entry::ProducerSequence { .. }
            | Entry::ProducerRoute { .. }
            | Entry::ProducerRemoved { .. } => {
                self.producers.apply(entry);
            }
            Entry::GroupCreated { .. }
            | Entry::GroupAltered { .. }
            | Entry::GroupDeleted { .. }
            | Entry::GroupSeen { .. }
            | Entry::Committed { .. }
            | Entry::PositionsDropped { .. }
            | Entry::ShareStarted { .. }
            | Entry::ShareAcquired { .. }
            | Entry::ShareDone { .. }
            | Entry::ShareEpoch { .. }
            | Entry::ShareDeliveries { .. } => self.groups.apply(entry),
        }
        Ok(())
    }

    /// The bytes of one entry that makes this state from any other.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        self.topics.restate(&mut parts);
        self.groups.restate(&mut parts);
        self.producers.restate(&mut parts);
        let mut entries = Vec::new();
        for part in parts {
            put_bytes(&mut entries, &part.encoded());
        }
        let entry = Entry::Snapshot {
            next_topic: self.topics.next,
            next_group: self.groups.next,
            next_producer: self.producers.next,
            entries: &entries,
        };
        entry.encoded()
    }
}
