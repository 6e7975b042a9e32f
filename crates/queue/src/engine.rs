//! All queues of a store: the catalogue, and the fold of entries that concern more than one queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use logmill_storage::Reclaimed;

use crate::carry::{Copied, note_copy};
use crate::config::QueueConfig;
use crate::entry::{Entry, Fact, Mark};
use crate::error::{Error, Result};
use crate::location::COLD;
use crate::recent_bodies::RecentBodies;
use crate::redriving::Ahead;
use crate::signal::Signal;
use crate::space::Space;
use crate::state::QueueState;

/// One queue and those who wait at it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) state: QueueState,
    /// Locations of messages whose send waits for its sync: nothing from the first of them on is shown.
    pub(crate) unsynced: VecDeque<u64>,
    pub(crate) waiters: usize,
    pub(crate) signal: Arc<Signal>,
    pub(crate) tally: Tally,
    /// What the running redrive looks at next.
    pub(crate) ahead: Option<Ahead>,
}

/// What has happened in a queue since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// FIFO messages that were not sent because their id was known.
    pub duplicates: u64,
    /// Messages received.
    pub received: u64,
    /// Receives that returned nothing.
    pub empty_receives: u64,
    /// Messages deleted with a receipt.
    pub deleted: u64,
    /// Receipts that were refused because they were stale.
    pub stale_receipts: u64,
    /// Messages that failed for good.
    pub dead_lettered: u64,
    /// Messages that expired.
    pub expired: u64,
    /// Messages that were to be received and whose bytes could not be read. They stay, and come again after their timeout.
    pub unreadable: u64,
}

impl Tally {
    /// Counts the receipt of what was planned if it was refused because it was stale.
    pub(crate) fn note_receipt<T>(&mut self, planned: &Result<T>) {
        self.stale_receipts +=
            u64::from(matches!(planned, Err(Error::ReceiptHandleExpired { .. })));
    }
}

impl Slot {
    pub(crate) fn new(state: QueueState) -> Slot {
        Slot {
            state,
            unsynced: VecDeque::new(),
            waiters: 0,
            signal: Arc::default(),
            tally: Tally::default(),
            ahead: None,
        }
    }
}

/// A queue that is gone, and where its marker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemovedQueue {
    pub(crate) queue: u32,
    pub(crate) marker: u64,
}

/// Everything that is folded from the journal, and what goes with it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) by_name: BTreeMap<String, u32>,
    pub(crate) next_queue: u32,
    pub(crate) removed: Vec<RemovedQueue>,
    pub(crate) space: Space,
    /// The queues' clock and the wall clock when they last had to be told apart.
    pub(crate) clock_set: Option<(i64, i64)>,
    /// The latest time that any entry has named.
    pub(crate) latest: i64,
    pub(crate) recent: RecentBodies,
    pub(crate) is_closed: bool,
    /// Queues with sends whose caller went away before the sync.
    pub(crate) abandoned: BTreeSet<u32>,
    /// Bytes journaled since the last checkpoint.
    pub(crate) unchecked_bytes: u64,
    /// When the background looks after the queues next, on their clock.
    pub(crate) keeper_at: i64,
    /// When a checkpoint, or giving back space, that failed is tried again.
    pub(crate) space_due: Option<i64>,
    /// When that was last tried.
    pub(crate) space_tried: i64,
    pub(crate) scratch: Vec<u8>,
    /// Empty, and kept for the next receive.
    pub(crate) marks: Vec<Mark>,
    /// Every copy in the cold part below this offset is known here.
    pub(crate) cold_known: u64,
    /// Bytes of the last checkpoint.
    pub(crate) checkpoint_len: u64,
    pub(crate) reclaimed: SpaceReport,
}

/// What was done about the journal's space since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceReport {
    /// Segments that were removed.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of live messages that were copied forward for it.
    pub carried_bytes: u64,
    /// Bytes of entries that were journaled.
    pub journaled_bytes: u64,
    /// Bytes that are needed now.
    pub live_bytes: u64,
}

impl SpaceReport {
    pub(crate) fn add(&mut self, done: &Reclaimed) {
        self.segments += done.segments as u64;
        self.bytes += done.bytes;
        self.carried_bytes += done.carried_bytes;
    }

    /// Bytes written for each byte that was sent to the journal: 1 if nothing was copied forward.
    pub fn write_amplification(&self) -> f64 {
        if self.journaled_bytes == 0 {
            return 1.0;
        }
        (self.journaled_bytes + self.carried_bytes) as f64 / self.journaled_bytes as f64
    }
}

impl Default for Engine {
    fn default() -> Engine {
        Engine {
            slots: BTreeMap::new(),
            by_name: BTreeMap::new(),
            next_queue: 1,
            removed: Vec::new(),
            space: Space::default(),
            clock_set: None,
            latest: 0,
            recent: RecentBodies::default(),
            is_closed: false,
            abandoned: BTreeSet::new(),
            unchecked_bytes: 0,
            keeper_at: i64::MAX,
            space_due: None,
            space_tried: i64::MIN,
            scratch: Vec::new(),
            marks: Vec::new(),
            cold_known: 0,
            checkpoint_len: 0,
            reclaimed: SpaceReport::default(),
        }
    }
}

impl Engine {
    pub(crate) fn slot(&mut self, queue: u32) -> Result<&mut Slot> {
        if self.is_closed {
            return Err(Error::Closed);
        }
        self.slots
            .get_mut(&queue)
            .ok_or_else(|| Error::QueueDoesNotExist { name: format!("number {queue}") })
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Slot> {
        self.slots.get(self.by_name.get(name)?)
    }

    /// Takes note of an entry: the one way in, live and at replay.
    #[inline]
    pub(crate) fn apply(&mut self, entry: &Entry<'_>, location: u64) {
        match &entry.fact {
            Fact::Created { time, name, config } => {
                self.create(entry.queue, name, config, *time, location)
            }
            Fact::QueueSnapshot { name, .. } => {
                self.name_queue(entry.queue, name);
                let slot = self.slot_or_new(entry.queue);
                slot.state.apply(&entry.fact, location, &mut Space::default());
            }
            Fact::Removed { .. } => self.remove(entry.queue, location),
            Fact::ClockSet { time, wall } => {
                self.clock_set = Some((*time, *wall));
                self.latest = self.latest.max(*time);
            }
            Fact::Moved { .. } => self.apply_moved(entry, location, true, true),
            _ => self.apply_to(entry, location),
        }
    }

    /// Takes a message out of one queue and into another; a replay may know one half already.
    pub(crate) fn apply_moved(
        &mut self,
        entry: &Entry<'_>,
        location: u64,
        source: bool,
        target: bool,
    ) {
        let Fact::Moved { time, target: queue, target_sequence, envelope, .. } = &entry.fact else {
            return;
        };
        if source {
            self.apply_to(entry, location);
        }
        if target && !self.is_removed(*queue) {
            self.slot_or_new(*queue);
            if let Some(slot) = self.slots.get_mut(queue) {
                slot.state.advance(*time);
                slot.state.accept(*target_sequence, envelope, location, &mut self.space);
            }
        }
    }

    #[inline]
    fn apply_to(&mut self, entry: &Entry<'_>, location: u64) {
        let Engine { slots, space, latest, .. } = self;
        if let Some(slot) = slots.get_mut(&entry.queue) {
            slot.state.apply(&entry.fact, location, space);
            *latest = (*latest).max(slot.state.now);
        } else if !self.is_removed(entry.queue) {
            self.slot_or_new(entry.queue);
            self.apply_to(entry, location);
        }
    }

    fn is_removed(&self, queue: u32) -> bool {
        self.removed.iter().any(|removed| removed.queue == queue)
    }

    /// The queue's slot. A fold that begins in the middle may meet a queue's messages before its name.
    fn slot_or_new(&mut self, queue: u32) -> &mut Slot {
        self.next_queue = self.next_queue.max(queue.saturating_add(1));
        let nameless = || Slot::new(QueueState::new(queue, "", QueueConfig::standard(), 0));
        self.slots.entry(queue).or_insert_with(nameless)
    }

    fn create(&mut self, queue: u32, name: &str, config: &QueueConfig, time: i64, location: u64) {
        self.name_queue(queue, name);
        let slot = self.slot_or_new(queue);
        slot.state.name = name.to_owned();
        slot.state.created = time;
        slot.state.modified = time;
        slot.state.apply(
            &Fact::AttributesSet { time, config: std::borrow::Cow::Borrowed(config) },
            location,
            &mut Space::default(),
        );
        self.latest = self.latest.max(time);
    }

    fn name_queue(&mut self, queue: u32, name: &str) {
        self.by_name.retain(|_, other| *other != queue);
        self.by_name.insert(name.to_owned(), queue);
    }

    fn remove(&mut self, queue: u32, location: u64) {
        self.next_queue = self.next_queue.max(queue.saturating_add(1));
        if !self.is_removed(queue) {
            self.removed.push(RemovedQueue { queue, marker: location });
        }
        let Some(mut slot) = self.slots.remove(&queue) else { return };
        self.by_name.retain(|_, other| *other != queue);
        slot.state.release_all(&mut self.space);
        self.space.forget_queue(queue);
        slot.signal.notify_all();
    }

    /// Takes note of a copy that is older than what is known.
    pub(crate) fn apply_known_copy(&mut self, entry: &Entry<'_>, at: u64, as_of: u64) {
        let queue = entry.queue;
        let copied = match &entry.fact {
            Fact::Snapshot { sequence, .. } => {
                let from =
                    self.slots.get(&queue).and_then(|slot| slot.state.location_of(*sequence));
                // A body that is in the hot part from `as_of` on is a later version.
                let from =
                    from.filter(|from| *from < as_of || *from & COLD != 0).unwrap_or(u64::MAX);
                Copied::Message { queue, sequence: *sequence, from }
            }
            Fact::QueueSnapshot { next_sequence, .. } => {
                Copied::Catalogue { queue, next_sequence: *next_sequence, memories: 0 }
            }
            Fact::Purged { .. } => Copied::Purge { queue },
            Fact::Removed { .. } => Copied::Removal { queue },
            _ => Copied::Other,
        };
        note_copy(self, copied, at, as_of);
    }

    /// Ends a replay: what has no name belongs to a queue that is gone.
    pub(crate) fn replayed(&mut self) {
        let nameless: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.state.name.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for queue in nameless {
            if let Some(mut slot) = self.slots.remove(&queue) {
                slot.state.release_all(&mut self.space);
            }
        }
    }
}
