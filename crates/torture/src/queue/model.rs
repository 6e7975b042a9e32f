//! What a queue may be: the messages that there are, and what became of each.

use std::collections::{BTreeMap, BTreeSet};

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// It can be received.
    Ready,
    /// It can be received from then on.
    Later(i64),
    /// Somebody has it until then.
    Taken(i64),
}

/// One message, under the number in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its sequence in the queue, once that is known.
    pub sequence: u64,
    /// Length of its body in bytes.
    pub len: u32,
    /// Its group, in a FIFO queue.
    pub group: u8,
    /// Where it is.
    pub at: At,
    /// How often it was received.
    pub receives: u32,
}

/// All messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model(pub BTreeMap<u64, Item>);

/// What a call makes of the messages.
#[derive(Clone, Debug)]
pub enum Change {
    /// These are sent.
    Add(Vec<(u64, Item)>),
    /// These are deleted.
    Remove(Vec<u64>),
    /// One is hidden, or shown again.
    Place(u64, At),
    /// Some are received, until then; which, only the queue can tell.
    Take {
        /// As many at most.
        max: usize,
        /// When their turn ends.
        until: i64,
    },
}

impl At {
    /// Whether it can be received at `now`; at a time that nobody knows it may be.
    const fn is_over(self, now: Option<i64>) -> bool {
        match (self, now) {
            (At::Ready, _) | (_, None) => true,
            (At::Later(until) | At::Taken(until), Some(now)) => until <= now,
        }
    }

    /// Whether a message that was so looks like that at `now`. Where the clock has jumped, what was over may not be yet.
    const fn fits(self, seen: At, now: Option<i64>) -> bool {
        match (self, seen) {
            (_, _) if now.is_none() => true,
            (At::Ready, At::Ready) => true,
            (At::Later(_) | At::Taken(_), At::Ready) => self.is_over(now),
            (At::Later(a), At::Later(b)) | (At::Taken(a), At::Taken(b)) => {
                a == b && !self.is_over(now)
            }
            _ => false,
        }
    }
}

impl Model {
    /// The messages that can be received at `now`, which is known, in order of their numbers.
    pub fn receivable(&self, fifo: bool, now: i64) -> Vec<u64> {
        let taken: BTreeSet<u8> = self
            .0
            .values()
            .filter(|item| fifo && matches!(item.at, At::Taken(until) if until > now))
            .map(|item| item.group)
            .collect();
        let free = |item: &Item| item.at.is_over(Some(now)) && !taken.contains(&item.group);
        self.0.iter().filter(|(_, item)| free(item)).map(|(id, _)| *id).collect()
    }

    /// Why the queue that looks like `seen` at `now` is not this one; of the messages in `loose` nobody knows when they were
    /// received.
    pub fn differs(&self, seen: &Model, now: Option<i64>, loose: &BTreeSet<u64>) -> Option<String> {
        for (id, item) in &self.0 {
            let Some(other) = seen.0.get(id) else { return Some(format!("message {id} is gone")) };
            let same = item.len == other.len && item.group == other.group;
            let stands = item.receives == other.receives && item.at.fits(other.at, now);
            if !same || !(stands || loose.contains(id)) {
                return Some(format!("message {id} is {other:?}, not {item:?}"));
            }
        }
        let more = seen.0.keys().find(|id| !self.0.contains_key(id))?;
        Some(format!("message {more} is there"))
    }

    /// Lets `change`, of which nobody knows whether it was made, be made if without it this is not the queue that looks like
    /// `seen` at `now`.
    pub fn follow(&mut self, change: &Change, seen: &Model, now: Option<i64>) {
        match change {
            Change::Add(items) => {
                let is_new = |id: &u64| seen.0.contains_key(id) && !self.0.contains_key(id);
                if items.iter().any(|(id, _)| is_new(id)) {
                    self.0.extend(items.iter().copied());
                }
            }
            Change::Remove(ids) => {
                let is_gone = |id: &u64| !seen.0.contains_key(id) && self.0.contains_key(id);
                if ids.iter().any(is_gone) {
                    self.0.retain(|id, _| !ids.contains(id));
                }
            }
            Change::Place(id, at) => {
                if let (Some(item), Some(other)) = (self.0.get_mut(id), seen.0.get(id))
                    && !item.at.fits(other.at, now)
                {
                    item.at = *at;
                }
            }
            Change::Take { max, until } => {
                let taken = self.0.iter_mut().filter(|(id, item)| {
                    let other = seen.0.get(id);
                    other.is_some_and(|other| other.receives == item.receives + 1)
                });
                for (_, item) in taken.take(*max) {
                    item.receives += 1;
                    item.at = At::Taken(*until);
                }
            }
        }
    }
}
