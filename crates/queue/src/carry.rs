//! What the queues need of old journal segments: how much, and the copies that stand for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use logmill_storage::{Carry, Corruption, Error as StorageError, Owner, Part, Place};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::entry::{Entry, Fact, Gone, Memory, message_in};
use crate::error::Error;
use crate::failing::marks;
use crate::held::{Held, SlotId};
use crate::location;
use crate::run::Item;
use crate::shared::{OWNER, Shared};
use crate::standing::Standing;
use crate::state::{Found, QueueState};

/// Deletion markers that are carried in one entry.
const MARKS_AT_ONCE: usize = 10_000;

/// So many segments must be dead before any bytes are copied for them.
const DEAD_SEGMENTS: usize = 2;
/// More than any segment holds: it is all needed.
const ALL: u64 = u64::MAX / 1024;

/// The queues as an owner of journal entries.
#[derive(Debug)]
pub(crate) struct QueueOwner {
    pub(crate) shared: Arc<Shared>,
}

/// What the last carry has written, by index.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    as_of: u64,
    copies: Vec<Copied>,
}

/// What one carried entry stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Copied {
    Message {
        queue: u32,
        sequence: u64,
        from: u64,
    },
    Catalogue {
        queue: u32,
        next_sequence: u64,
        memories: u64,
    },
    /// Ids, as one of several entries: with the last of them the first `ever` are written.
    Memories {
        queue: u32,
        ever: u64,
    },
    /// How far the numbers of messages have come.
    Numbers {
        queue: u32,
        next: u64,
    },
    Purge {
        queue: u32,
    },
    Removal {
        queue: u32,
    },
    Other,
}

/// A message that is to be copied.
struct Wanted {
    queue: u32,
    sequence: u64,
    from: u64,
    standing: Standing,
    /// An id that is remembered as long as the message is there.
    memory: Option<Memory>,
}

pub(crate) type LastCarry = Mutex<Carried>;

/// What is said in a carry, and what each entry stands for.
struct Saying<'a> {
    out: &'a mut Carry,
    entry: Vec<u8>,
    carried: Carried,
}

impl Saying<'_> {
    fn say(&mut self, entry: &Entry<'_>, copied: Copied) {
        self.entry.clear();
        entry.encode(&mut self.entry);
        self.out.say(&self.entry);
        self.carried.copies.push(copied);
    }

    fn say_with_last(&mut self, entry: &Entry<'_>, copied: Copied) {
        self.entry.clear();
        entry.encode(&mut self.entry);
        self.out.say_with_last(&self.entry);
        self.carried.copies.push(copied);
    }
}

impl Owner for QueueOwner {
    fn number(&self) -> u64 {
        OWNER
    }

    fn live_bytes(&self, part: Part, bounds: &[u64]) -> Vec<u64> {
        let mut engine = self.shared.lock();
        let kept = self.shared.kept_from(&mut engine, part);
        let mut live = engine.space.between(part, bounds);
        if part == Part::Hot {
            engine.space.add_changed(bounds, &mut live);
        }
        // A queue that is being worked off empties its segments by itself: what little is needed of them is copied only
        // when enough others wait behind it.
        let dead = live.iter().filter(|bytes| **bytes == 0).count();
        let is_stuck = dead >= DEAD_SEGMENTS;
        let mut is_open = true;
        for (bytes, pair) in live.iter_mut().zip(bounds.windows(2)) {
            // What a queue keeps for reading again pins its segments.
            let pinned = pair.last().is_some_and(|end| *end > kept);
            is_open &= !pinned && (is_stuck || *bytes == 0);
            if !is_open {
                *bytes = ALL;
            }
        }
        live
    }

    fn carry(&self, part: Part, upto: u64, out: &mut Carry) -> Result<u64, StorageError> {
        let mut engine = self.shared.lock();
        let as_of = self.shared.journal.reach().hot;
        let mut saying =
            Saying { out, entry: Vec::new(), carried: Carried { as_of, copies: vec![] } };
        engine.space.carry_begins();
        carry_markers(&engine, part, upto, &mut saying);
        let mut wanted: Vec<Wanted> =
            if engine.space.between(part, &[0, upto]).iter().any(|bytes| *bytes > 0) {
                let states = engine.slots.values().map(|slot| &slot.state);
                states.flat_map(|state| messages_below(state, part, upto)).collect()
            } else {
                Vec::new()
            };
        if part == Part::Hot {
            wanted.extend(changed_below(&engine, upto));
        }
        drop(engine);
        for Wanted { queue, sequence, from, standing, memory } in wanted {
            let Some(bytes) = self.read_wanted(queue, sequence, from)? else { continue };
            let envelope = message_in(&bytes).map_err(|_| self.damaged(from))?;
            let fact = Fact::Snapshot { sequence, standing, envelope };
            saying.say(&Entry { queue, fact }, Copied::Message { queue, sequence, from });
            if let Some(memory) = memory {
                let fact = Fact::Remembered { memories: Cow::Owned(vec![memory]) };
                saying.say_with_last(&Entry { queue, fact }, Copied::Other);
            }
        }
        *self.shared.last_carry.lock() = saying.carried;
        Ok(as_of)
    }

    fn carried(&self, part: Part, upto: u64, places: &[Place]) {
        let carried = std::mem::take(&mut *self.shared.last_carry.lock());
        let mut engine = self.shared.lock();
        let changed = engine.space.carry_ends();
        let mut moves: BTreeMap<u32, Vec<(u64, u64, u64)>> = BTreeMap::new();
        for (copied, place) in carried.copies.iter().zip(places) {
            let at = location::of(*place);
            match *copied {
                Copied::Message { queue, sequence, from } => {
                    moves.entry(queue).or_default().push((sequence, from, at));
                }
                other => note_copy(&mut engine, other, at, carried.as_of),
            }
        }
        for (queue, mut moves) in moves {
            moves.sort_unstable();
            note_messages(&mut engine, queue, &moves, carried.as_of, |sequence| {
                changed.contains(&(queue, sequence))
            });
        }
        match part {
            Part::Hot => engine.space.graves_carried(upto),
            Part::Cold => engine.space.copies_dropped(upto),
        }
        if part == Part::Cold {
            let gone = |at: u64| at & location::COLD != 0 && at & !location::COLD < upto;
            engine.removed.retain(|removed| !gone(removed.marker));
        }
        engine.cold_known = self.shared.journal.reach().cold;
    }

    /// What was said may have left copies behind, which must not come back when their messages are gone.
    fn not_carried(&self) {
        let mut engine = self.shared.lock();
        engine.space.carry_ends();
        let failed = std::mem::take(&mut *self.shared.last_carry.lock());
        let end = self.shared.journal.reach().cold;
        for copied in failed.copies {
            if let Copied::Message { queue, sequence, .. } = copied
                && let Some(slot) = engine.slots.get(&queue)
            {
                let body = slot.state.location_of(sequence);
                let marker = body.filter(|at| at & location::COLD == 0).unwrap_or(failed.as_of);
                engine.space.left_behind(queue, sequence, end, marker);
            }
        }
    }
}

impl QueueOwner {
    /// The entry with a message's body; `None` if the message is gone, or its body is elsewhere by now.
    fn read_wanted(
        &self,
        queue: u32,
        sequence: u64,
        from: u64,
    ) -> Result<Option<Bytes>, StorageError> {
        let read = self.shared.read(from);
        if let Ok(Some(bytes)) = read {
            return Ok(Some(bytes));
        }
        let engine = self.shared.lock();
        let slot = engine.slots.get(&queue);
        if slot.and_then(|slot| slot.state.location_of(sequence)) != Some(from) {
            return Ok(None);
        }
        match read {
            Err(Error::Storage(error)) => Err(error),
            _ => Err(self.damaged(from)),
        }
    }

    fn damaged(&self, at: u64) -> StorageError {
        StorageError::Corrupt {
            path: self.shared.journal.path().to_owned(),
            position: 0,
            offset: location::place(at).offset(),
            what: Corruption::Field("a message that is needed"),
        }
    }
}

/// The catalogue, and the markers of what is gone and has copies in the cold part.
fn carry_markers(engine: &Engine, part: Part, upto: u64, saying: &mut Saying<'_>) {
    let below = |at: u64| location::is_below(at, part, upto);
    let time = engine.latest;
    if let Some((time, wall)) = engine.clock_set {
        saying.say(&Entry { queue: 0, fact: Fact::ClockSet { time, wall } }, Copied::Other);
    }
    for removed in engine.removed.iter().filter(|removed| below(removed.marker)) {
        let queue = removed.queue;
        // In the cold part it goes with what it kills; but the highest number must not be given again.
        if part == Part::Hot || engine.next_queue == queue.saturating_add(1) {
            let fact = Fact::Removed { time };
            saying.say(&Entry { queue, fact }, Copied::Removal { queue });
        }
    }
    for slot in engine.slots.values() {
        let state = &slot.state;
        let queue = state.id;
        let old = match part {
            Part::Hot => state.catalogue.hot.is_some_and(|(first, _)| first < upto),
            Part::Cold => state.catalogue.cold.is_some_and(below),
        };
        if old {
            say_catalogue(state, saying);
        } else if part == Part::Hot {
            say_what_sends_left(state, upto, saying);
        }
        if let Some((purged, _)) = state.purged.filter(|(_, at)| below(*at) && part == Part::Hot) {
            let fact = Fact::Purged { time: 0, below: purged };
            saying.say(&Entry { queue, fact }, Copied::Purge { queue });
        }
    }
    if part == Part::Hot {
        for (queue, graves) in engine.space.graves_below(upto) {
            // A message that was edited lives on: its new copy, or the entry that edited it, replaces the old copy.
            let lives = |sequence: &u64| {
                engine.slots.get(&queue).is_some_and(|slot| slot.state.find(*sequence).is_some())
            };
            let dead: Vec<u64> = graves.into_iter().filter(|sequence| !lives(sequence)).collect();
            for some in dead.chunks(MARKS_AT_ONCE) {
                let fact = Fact::Deleted { time: 0, reason: Gone::Deleted, marks: marks(some) };
                saying.say(&Entry { queue, fact }, Copied::Other);
            }
        }
    }
}

/// The whole catalogue of a queue, which replaces what older entries say of it.
fn say_catalogue(state: &QueueState, saying: &mut Saying<'_>) {
    let queue = state.id;
    for fact in catalogue_of(state) {
        match fact {
            Fact::QueueSnapshot { next_sequence, .. } => {
                let memories = state.memories.ever();
                let copied = Copied::Catalogue { queue, next_sequence, memories };
                saying.say(&Entry { queue, fact }, copied);
            }
            fact => saying.say_with_last(&Entry { queue, fact }, Copied::Other),
        }
    }
}

/// What entries that sent messages say beside the messages: the ids that are remembered, and how far the numbers have come.
fn say_what_sends_left(state: &QueueState, upto: u64, saying: &mut Saying<'_>) {
    let queue = state.id;
    let (memories, ever) = state.memories.new_ones();
    for some in memories.chunks(MARKS_AT_ONCE) {
        let fact = Fact::Remembered { memories: Cow::Borrowed(some) };
        saying.say(&Entry { queue, fact }, Copied::Memories { queue, ever });
    }
    let next = state.next_sequence;
    let last = next.saturating_sub(1);
    // A message that lives says it itself.
    if next > state.sequence_carried && state.last_sent < upto && state.find(last).is_none() {
        let fact = Fact::Deleted { time: 0, reason: Gone::Deleted, marks: marks(&[last]) };
        saying.say(&Entry { queue, fact }, Copied::Numbers { queue, next });
    }
}

/// Everything that says what a queue is, as of now.
pub(crate) fn catalogue_of(state: &QueueState) -> Vec<Fact<'_>> {
    let tags = state.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut facts = vec![Fact::QueueSnapshot {
        name: &state.name,
        config: Cow::Borrowed(&state.config),
        created: state.created,
        modified: state.modified,
        next_sequence: state.next_sequence,
        tags,
    }];
    facts.extend(state.tasks.values().map(|task| Fact::MoveTask { task: Cow::Borrowed(task) }));
    facts.extend(
        state
            .schedules
            .values()
            .map(|schedule| Fact::Schedule { schedule: Cow::Borrowed(schedule) }),
    );
    let memories = state.memories.all();
    for some in memories.chunks(MARKS_AT_ONCE) {
        facts.push(Fact::Remembered { memories: Cow::Owned(some.to_vec()) });
    }
    let parked = state.ready.groups().filter(|(_, group)| group.parked);
    facts.extend(parked.map(|(_, group)| Fact::Parked { time: 0, group: &group.name }));
    facts
}

fn messages_below(state: &QueueState, part: Part, upto: u64) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (_, lane) in state.ready.lanes() {
        let old = lane.run.iter().filter(|item| location::is_below(item.location, part, upto));
        wanted.extend(old.map(|item| in_line(state, item)));
    }
    let old = |slot: &SlotId| location::is_below(state.held.get(*slot).location, part, upto);
    wanted.extend(state.held.all().filter(old).map(|slot| held(state, slot)));
    wanted.sort_unstable_by_key(|wanted| wanted.sequence);
    wanted
}

/// The messages with a copy in the cold part which hot entries below `upto` have changed since.
fn changed_below(engine: &Engine, upto: u64) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (queue, graves) in engine.space.graves_below(upto) {
        let Some(slot) = engine.slots.get(&queue) else { continue };
        let state = &slot.state;
        let living = graves.into_iter().filter_map(|sequence| state.find(sequence));
        let living = living.map(|found| match found {
            Found::InRun(_, item) => in_line(state, item),
            Found::Held(slot) => held(state, slot),
        });
        // What was edited has a body in the hot part again.
        wanted.extend(living.filter(|wanted| wanted.from & location::COLD != 0));
    }
    wanted
}

fn in_line(state: &QueueState, item: Item) -> Wanted {
    let Item { sequence, location, since, .. } = item;
    let standing = Standing { state: None, at: 0, since, holding: false, details: None };
    let memory = state.memories.bound_to(sequence);
    Wanted { queue: state.id, sequence, from: location, standing, memory }
}

fn held(state: &QueueState, slot: SlotId) -> Wanted {
    let Held { sequence, location, at, state: at_state, holding, .. } = state.held.get(slot);
    let details = state.held.details(slot).cloned().map(Box::new);
    let since = details.as_ref().map_or(at, |details| details.since);
    let standing = Standing { state: Some(at_state), at, since, holding, details };
    let memory = state.memories.bound_to(sequence);
    Wanted { queue: state.id, sequence, from: location, standing, memory }
}

/// Notes that messages of a queue were copied: (sequence, from, to), by sequence. The copies are of what was known below
/// `as_of`; `changed` says which may have changed since.
fn note_messages(
    engine: &mut Engine,
    queue: u32,
    moves: &[(u64, u64, u64)],
    as_of: u64,
    changed: impl Fn(u64) -> bool,
) {
    let Some(slot) = engine.slots.get_mut(&queue) else { return };
    let sizes = slot.state.relocate_all(moves, &mut engine.space);
    for ((sequence, _, at), size) in moves.iter().copied().zip(sizes) {
        if let Some(size) = size {
            let changed_from = changed(sequence).then_some(as_of);
            engine.space.copied(queue, sequence, at, size, changed_from);
        } else {
            // Its body changed while it was copied: the entry that says so guards against the copy. If it is gone, its marker
            // is somewhere from `as_of` on.
            let marker = slot.state.location_of(sequence).unwrap_or(as_of);
            engine.space.bury(queue, sequence, at, marker);
        }
    }
}

/// Notes that a copy is at `at`, made of what was known below `as_of`.
pub(crate) fn note_copy(engine: &mut Engine, copied: Copied, at: u64, as_of: u64) {
    match copied {
        Copied::Message { queue, sequence, from } => {
            // Nobody watched what happened since.
            note_messages(engine, queue, &[(sequence, from, at)], as_of, |_| true);
        }
        Copied::Catalogue { queue, next_sequence, memories } => {
            if let Some(slot) = engine.slots.get_mut(&queue) {
                let state = &mut slot.state;
                state.sequence_carried = state.sequence_carried.max(next_sequence);
                state.memories.note_carried(memories);
                let catalogue = &mut slot.state.catalogue;
                catalogue.cold = Some(at);
                catalogue.hot = catalogue
                    .hot
                    .filter(|(_, last)| *last >= as_of)
                    .map(|(first, last)| (first.max(as_of), last));
            }
        }
        Copied::Memories { queue, ever } => {
            if let Some(slot) = engine.slots.get_mut(&queue) {
                slot.state.memories.note_carried(ever);
            }
        }
        Copied::Numbers { queue, next } => {
            if let Some(slot) = engine.slots.get_mut(&queue) {
                slot.state.sequence_carried = slot.state.sequence_carried.max(next);
            }
        }
        Copied::Purge { queue } => {
            if let Some(slot) = engine.slots.get_mut(&queue)
                && let Some((_, marker)) = &mut slot.state.purged
                && *marker < as_of
            {
                *marker = at;
            }
        }
        Copied::Removal { queue } => {
            if let Some(removed) = engine.removed.iter_mut().find(|removed| removed.queue == queue)
            {
                removed.marker = at;
            }
        }
        Copied::Other => {}
    }
}
