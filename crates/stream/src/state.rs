//! What the journal says about streams: a fold over entries, one code path for live changes and for replay.
//!
//! No I/O, no clock, no locks: the same entries in the same order give the same state. [`State::restate`] writes the
//! state as entries again, which is both the checkpoint and what lets old journal segments go.

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
use shares::ShareState;

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
    pub(crate) fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Restated { next_topic, next_group, next_producer } => {
                *self = State::default();
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
            | Entry::TopicRemoved { .. } => self.topics.apply(entry),
            Entry::ProducerOpened { .. }
            | Entry::ProducerSequence { .. }
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
    }

    /// Entries that make this state from any other.
    pub(crate) fn restate(&self) -> Vec<Entry<'_>> {
        let mut entries = vec![Entry::Restated {
            next_topic: self.topics.next,
            next_group: self.groups.next,
            next_producer: self.producers.next,
        }];
        self.topics.restate(&mut entries);
        self.groups.restate(&mut entries);
        self.producers.restate(&mut entries);
        entries
    }

    /// The state as one piece of bytes: its entries, each with its length before it.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in self.restate() {
            put_bytes(&mut out, &entry.encoded());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<State, Malformed> {
        let mut state = State::default();
        let mut wire = Wire(bytes);
        while !wire.0.is_empty() {
            state.apply(&Entry::decode(wire.bytes()?)?);
        }
        Ok(state)
    }
}
