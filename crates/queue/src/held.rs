//! Messages that are held in full: in flight, delayed, dead, or ready out of order. 40 bytes each, an index by
//! sequence, and two heaps of moments.
//!
//! Invariant: a slot's moment stands in the heap of its state, at the place that the slot says.

use hashbrown::HashTable;

use crate::held::heap::Heap;

mod heap;

/// 48 bits: messages, journal offsets and milliseconds since 1970 all stay below 2^48.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct U48([u16; 3]);

impl U48 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sixteen bits at a time; the bound is asserted"
    )]
    fn new(value: u64) -> U48 {
        assert!(value < 1 << 48, "a number beyond 48 bits");
        U48([value as u16, (value >> 16) as u16, (value >> 32) as u16])
    }

    #[inline]
    fn get(self) -> u64 {
        u64::from(self.0[0]) | u64::from(self.0[1]) << 16 | u64::from(self.0[2]) << 32
    }
}

/// Where a held message is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Receivable, but not in a run: it was received before, or it expires by itself.
    #[default]
    Ready,
    /// Not receivable before its moment.
    Delayed,
    /// A consumer has it until its moment.
    InFlight,
    /// It failed for good and stays here.
    Dead,
}

/// How one receive of a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The handler said that it failed.
    Failed,
    /// The visibility timeout passed.
    TimedOut,
    /// The consumer gave it back without blame.
    Released,
}

/// One receive of a message that did not end in its deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// When it was received, in ms since 1970.
    pub received_at: i64,
    /// When that ended.
    pub ended_at: i64,
    /// How.
    pub outcome: Outcome,
}

/// What only messages with a past need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// When it could first be received.
    pub(crate) since: i64,
    /// Its own time to live ends then; 0: it has none.
    pub(crate) expires_at: i64,
    pub(crate) first_received_at: i64,
    pub(crate) received_at: i64,
    /// Receives, which is also the generation of the latest receipt.
    pub(crate) receives: u32,
    pub(crate) failed: u32,
    pub(crate) timed_out: u32,
    pub(crate) released: u32,
    /// The store's open epoch at the latest receive.
    pub(crate) epoch: u32,
    /// Not 0 if the latest receive could not be stored (full disk): the run of the process that it belongs to.
    pub(crate) session: u32,
    /// Receives that were forgiven by a resume or a redrive in place: they do not count against the limit.
    pub(crate) forgiven: u32,
    /// Where it stands among the ready: a sequence, its own or a later one.
    pub(crate) place: u64,
    /// [`crate::envelope::DeathReason`]'s code if it is dead, and since when; 0 otherwise.
    pub(crate) death: u8,
    pub(crate) died_at: i64,
    /// The latest [`ATTEMPTS_MAX`].
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) reason: Option<Box<str>>,
}

/// More attempts than a queue can permit with a limit.
pub(crate) const ATTEMPTS_MAX: usize = 1000;

#[derive(Debug, Default)]
struct Slot {
    sequence: U48,
    location: U48,
    at: U48,
    size: u32,
    heap_place: u32,
    lane: u32,
    state: State,
    /// A nacked message of a FIFO queue that waits: its group waits with it.
    holding: bool,
    details: Option<Box<Details>>,
}

const _: () = assert!(size_of::<Slot>() == 40);

/// A held message, as its parts are needed outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) sequence: u64,
    pub(crate) location: u64,
    /// Delay or lease end, or expiry, by state.
    pub(crate) at: i64,
    pub(crate) size: u32,
    pub(crate) lane: u32,
    pub(crate) state: State,
    pub(crate) holding: bool,
}

/// A place in the table of held messages; it stays the same while the message is held.
pub(crate) type SlotId = u32;

const SLOTS_PER_BLOCK: usize = 1024;

/// The table of held messages of one queue.
#[derive(Debug, Default)]
pub(crate) struct HeldTable {
    blocks: Vec<Vec<Slot>>,
    free: Vec<SlotId>,
    index: HashTable<SlotId>,
    /// What was held last: who receives one message looks for it again, and so does who deletes it.
    latest: SlotId,
    /// Delays and leases, by their end.
    wakes: Heap,
    /// Ready and dead messages, by their expiry.
    expiries: Heap,
    /// How many are held in each state.
    counts: [usize; 4],
}

fn hash(sequence: u64) -> u64 {
    let mixed = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

fn moment(at: i64) -> U48 {
    U48::new(at.clamp(0, MOMENT_MAX).cast_unsigned())
}

/// The last moment that is told from never, in ms since 1970: the year 10,889.
pub(crate) const MOMENT_MAX: i64 = (1 << 48) - 1;

impl HeldTable {
    #[expect(clippy::indexing_slicing, reason = "slot ids come from this table alone")]
    fn slot(&self, id: SlotId) -> &Slot {
        &self.blocks[id as usize / SLOTS_PER_BLOCK][id as usize % SLOTS_PER_BLOCK]
    }

    #[expect(clippy::indexing_slicing, reason = "slot ids come from this table alone")]
    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.blocks[id as usize / SLOTS_PER_BLOCK][id as usize % SLOTS_PER_BLOCK]
    }

    #[inline]
    pub(crate) fn find(&self, sequence: u64) -> Option<SlotId> {
        if self.used(self.latest).is_some_and(|slot| slot.sequence.get() == sequence) {
            return Some(self.latest);
        }
        self.look_up(sequence)
    }

    fn look_up(&self, sequence: u64) -> Option<SlotId> {
        self.index.find(hash(sequence), |id| self.slot(*id).sequence.get() == sequence).copied()
    }

    pub(crate) fn get(&self, id: SlotId) -> Held {
        let slot = self.slot(id);
        Held {
            sequence: slot.sequence.get(),
            location: slot.location.get(),
            at: slot.at.get().cast_signed(),
            size: slot.size,
            lane: slot.lane,
            state: slot.state,
            holding: slot.holding,
        }
    }

    /// Moves a message within the heap of its state.
    pub(crate) fn set_at(&mut self, id: SlotId, at: i64) {
        self.change(id, self.slot(id).state, at);
    }

    pub(crate) fn details(&self, id: SlotId) -> Option<&Details> {
        self.slot(id).details.as_deref()
    }

    /// The details of a message, made where it has none; `since` counts only then.
    pub(crate) fn details_mut(&mut self, id: SlotId, since: i64) -> &mut Details {
        let slot = self.slot_mut(id);
        let place = slot.sequence.get();
        slot.details.get_or_insert_with(|| Box::new(Details { since, place, ..Details::default() }))
    }

    /// Holds a message that is not held yet.
    pub(crate) fn insert(&mut self, held: Held, details: Option<Box<Details>>) -> SlotId {
        let id = self.free.pop().unwrap_or_else(|| self.append());
        // In its place, field by field: moved there at once, it would wait for the last of them.
        let slot = self.slot_mut(id);
        slot.sequence = U48::new(held.sequence);
        slot.location = U48::new(held.location);
        slot.at = moment(held.at);
        slot.size = held.size;
        slot.lane = held.lane;
        slot.state = held.state;
        slot.holding = held.holding;
        slot.details = details;
        self.latest = id;
        let blocks = &self.blocks;
        self.index.insert_unique(hash(held.sequence), id, |id| hash(sequence_of(blocks, *id)));
        *self.count(held.state) += 1;
        self.schedule(id);
        id
    }

    fn append(&mut self) -> SlotId {
        if self.blocks.last().is_none_or(|block| block.len() == SLOTS_PER_BLOCK) {
            let first = self.blocks.is_empty();
            self.blocks.push(Vec::with_capacity(if first { 4 } else { SLOTS_PER_BLOCK }));
        }
        let full = (self.blocks.len() - 1) * SLOTS_PER_BLOCK;
        let Some(block) = self.blocks.last_mut() else { return heap::NOWHERE };
        block.push(Slot { heap_place: heap::NOWHERE, ..Slot::default() });
        let id = SlotId::try_from(full + block.len() - 1).unwrap_or(heap::NOWHERE);
        assert!(id != heap::NOWHERE, "more than 2^32 held messages in one queue");
        id
    }

    /// Lets go of a message.
    pub(crate) fn remove(&mut self, id: SlotId) -> Option<Box<Details>> {
        self.unschedule(id);
        let slot = self.slot_mut(id);
        let (sequence, state, details) = (slot.sequence.get(), slot.state, slot.details.take());
        *self.count(state) -= 1;
        if let Ok(entry) = self.index.find_entry(hash(sequence), |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
        if self.index.is_empty() {
            self.free.clear();
            self.blocks.truncate(1);
            self.blocks.iter_mut().for_each(Vec::clear);
        }
        details
    }

    /// Puts a message into another state, until another moment.
    pub(crate) fn change(&mut self, id: SlotId, state: State, at: i64) {
        self.unschedule(id);
        *self.count(self.slot(id).state) -= 1;
        *self.count(state) += 1;
        let slot = self.slot_mut(id);
        slot.state = state;
        slot.at = moment(at);
        self.schedule(id);
    }

    pub(crate) fn set_holding(&mut self, id: SlotId, holding: bool) {
        self.slot_mut(id).holding = holding;
    }

    pub(crate) fn set_body(&mut self, id: SlotId, location: u64, size: u32) {
        let slot = self.slot_mut(id);
        slot.location = U48::new(location);
        slot.size = size;
    }

    /// The message whose delay or lease ends first, and when.
    pub(crate) fn next_wake(&self) -> Option<(i64, SlotId)> {
        let id = self.wakes.first()?;
        Some((self.slot(id).at.get().cast_signed(), id))
    }

    /// The ready or dead message that expires first, and when.
    pub(crate) fn next_expiry(&self) -> Option<(i64, SlotId)> {
        let id = self.expiries.first()?;
        Some((self.slot(id).at.get().cast_signed(), id))
    }

    /// Ready and dead messages that expire at `now` or before, at most `max`, in no order. Cost: those returned.
    pub(crate) fn expired(&self, now: i64, max: usize) -> Vec<SlotId> {
        self.expiries.up_to(max, |id| self.slot(id).at.get().cast_signed() <= now)
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many counts as states")]
    fn count(&mut self, state: State) -> &mut usize {
        &mut self.counts[state as usize]
    }

    /// The messages that are held in `state`, in no order. Cost: a look at all that are held, unless there is none.
    #[expect(clippy::indexing_slicing, reason = "there are as many counts as states")]
    pub(crate) fn in_state(&self, state: State) -> impl Iterator<Item = SlotId> + '_ {
        let count = self.counts[state as usize];
        let of_state = move |id: &SlotId| self.slot(*id).state == state;
        self.index.iter().copied().take(if count == 0 { 0 } else { usize::MAX }).filter(of_state)
    }

    /// No message is held at this place or a later one.
    pub(crate) fn end(&self) -> SlotId {
        let full = self.blocks.len().saturating_sub(1) * SLOTS_PER_BLOCK;
        SlotId::try_from(full + self.blocks.last().map_or(0, Vec::len)).unwrap_or(heap::NOWHERE)
    }

    /// The message that is held at `id`, if there is one.
    pub(crate) fn in_use(&self, id: SlotId) -> Option<Held> {
        self.used(id).map(|_| self.get(id))
    }

    fn used(&self, id: SlotId) -> Option<&Slot> {
        let slot =
            self.blocks.get(id as usize / SLOTS_PER_BLOCK)?.get(id as usize % SLOTS_PER_BLOCK)?;
        (slot.heap_place != heap::NOWHERE).then_some(slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.index.iter().copied()
    }

    fn schedule(&mut self, id: SlotId) {
        let heap = match self.slot(id).state {
            State::Delayed | State::InFlight => &mut self.wakes,
            State::Ready | State::Dead => &mut self.expiries,
        };
        heap.push(id, &mut Places(&mut self.blocks));
    }

    fn unschedule(&mut self, id: SlotId) {
        let place = self.slot(id).heap_place;
        let heap = match self.slot(id).state {
            State::Delayed | State::InFlight => &mut self.wakes,
            State::Ready | State::Dead => &mut self.expiries,
        };
        heap.remove(place, &mut Places(&mut self.blocks));
        self.slot_mut(id).heap_place = heap::NOWHERE;
    }
}

#[expect(clippy::indexing_slicing, reason = "slot ids come from this table alone")]
fn sequence_of(blocks: &[Vec<Slot>], id: SlotId) -> u64 {
    blocks[id as usize / SLOTS_PER_BLOCK][id as usize % SLOTS_PER_BLOCK].sequence.get()
}

/// The slots as a heap sees them: a moment to compare, a place to keep.
struct Places<'a>(&'a mut Vec<Vec<Slot>>);

impl heap::Nodes for Places<'_> {
    #[expect(clippy::indexing_slicing, reason = "slot ids come from this table alone")]
    fn key(&self, id: u32) -> (u64, u64) {
        let slot = &self.0[id as usize / SLOTS_PER_BLOCK][id as usize % SLOTS_PER_BLOCK];
        (slot.at.get(), slot.sequence.get())
    }

    #[expect(clippy::indexing_slicing, reason = "slot ids come from this table alone")]
    fn placed(&mut self, id: u32, place: u32) {
        self.0[id as usize / SLOTS_PER_BLOCK][id as usize % SLOTS_PER_BLOCK].heap_place = place;
    }
}
