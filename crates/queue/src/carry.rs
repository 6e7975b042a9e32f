//! What the queues need of old journal segments: how much, and the copies that stand for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use logmill_storage::{Owner, Part, Place};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::entry::{Entry, Fact, Gone, message_in};
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
    Message { queue: u32, sequence: u64, from: u64 },
    Catalogue { queue: u32 },
    Purge { queue: u32 },
    Removal { queue: u32 },
    Other,
}

/// A message that is to be copied.
struct Wanted {
    queue: u32,
    sequence: u64,
    from: u64,
    standing: Standing,
}

pub(crate) type LastCarry = Mutex<Carried>;

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

    fn carry(&self, part: Part, upto: u64, out: &mut dyn FnMut(&[u8])) -> u64 {
        let mut entry_bytes = Vec::new();
        let mut carried = Carried::default();
        let mut say = |entry: &Entry<'_>, copied: Copied, carried: &mut Carried| {
            entry_bytes.clear();
            entry.encode(&mut entry_bytes);
            out(&entry_bytes);
            carried.copies.push(copied);
        };
        let mut engine = self.shared.lock();
        self.forget_failed(&mut engine);
        carried.as_of = self.shared.journal.reach().hot;
        engine.space.carry_begins();
        self.carry_markers(&mut engine, part, upto, &mut carried, &mut say);
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
        for Wanted { queue, sequence, from, standing } in wanted {
            // What cannot be read was damaged on the disk; its segment then stays, see `Journal::reclaim`.
            let Ok(Some(bytes)) = self.shared.read(from) else { continue };
            let Ok((_, envelope)) = message_in(&bytes) else { continue };
            let fact = Fact::Snapshot { sequence, standing, envelope };
            say(&Entry { queue, fact }, Copied::Message { queue, sequence, from }, &mut carried);
        }
        let as_of = carried.as_of;
        *self.shared.last_carry.lock() = carried;
        as_of
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
}

impl QueueOwner {
    /// A carry that failed may have left copies behind, which must not come back when their messages are gone.
    fn forget_failed(&self, engine: &mut Engine) {
        let failed = std::mem::take(&mut *self.shared.last_carry.lock());
        let end = location::of(Place::new(Part::Cold, self.shared.journal.reach().cold));
        for copied in failed.copies {
            if let Copied::Message { queue, sequence, .. } = copied
                && let Some(slot) = engine.slots.get(&queue)
            {
                let body = slot.state.location_of(sequence);
                let marker = body.filter(|at| at & location::COLD == 0).unwrap_or(failed.as_of);
                engine.space.bury(queue, sequence, end, marker);
            }
        }
    }

    /// The catalogue, and the markers of what is gone and has copies in the cold part.
    fn carry_markers(
        &self,
        engine: &mut Engine,
        part: Part,
        upto: u64,
        carried: &mut Carried,
        say: &mut dyn FnMut(&Entry<'_>, Copied, &mut Carried),
    ) {
        let below = |at: u64| location::is_below(at, part, upto);
        let time = engine.latest;
        if part == Part::Hot {
            for removed in engine.removed.iter().filter(|removed| below(removed.marker)) {
                let queue = removed.queue;
                say(
                    &Entry { queue, fact: Fact::Removed { time } },
                    Copied::Removal { queue },
                    carried,
                );
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
                for fact in catalogue_of(state) {
                    let copied = match &fact {
                        Fact::QueueSnapshot { .. } => Copied::Catalogue { queue },
                        _ => Copied::Other,
                    };
                    say(&Entry { queue, fact }, copied, carried);
                }
            }
            if let Some((purged, at)) =
                state.purged.filter(|(_, at)| below(*at) && part == Part::Hot)
            {
                let _ = at;
                let fact = Fact::Purged { time: 0, below: purged };
                say(&Entry { queue, fact }, Copied::Purge { queue }, carried);
            }
        }
        if part == Part::Hot {
            for (queue, graves) in engine.space.graves_below(upto) {
                // A message that was edited lives on: its new copy, or the entry that edited it, replaces the old copy.
                let lives = |sequence: &u64| {
                    engine
                        .slots
                        .get(&queue)
                        .is_some_and(|slot| slot.state.find(*sequence).is_some())
                };
                let dead: Vec<u64> =
                    graves.into_iter().filter(|sequence| !lives(sequence)).collect();
                for some in dead.chunks(MARKS_AT_ONCE) {
                    let fact = Fact::Deleted { time: 0, reason: Gone::Deleted, marks: marks(some) };
                    say(&Entry { queue, fact }, Copied::Other, carried);
                }
            }
        }
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
        wanted.extend(old.map(|item| in_line(state.id, item)));
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
            Found::InRun(_, item) => in_line(queue, item),
            Found::Held(slot) => held(state, slot),
        });
        // What was edited has a body in the hot part again.
        wanted.extend(living.filter(|wanted| wanted.from & location::COLD != 0));
    }
    wanted
}

fn in_line(queue: u32, item: Item) -> Wanted {
    let Item { sequence, location, since, .. } = item;
    let standing = Standing { state: None, at: 0, since, holding: false, details: None };
    Wanted { queue, sequence, from: location, standing }
}

fn held(state: &QueueState, slot: SlotId) -> Wanted {
    let Held { sequence, location, at, state: at_state, holding, .. } = state.held.get(slot);
    let details = state.held.details(slot).cloned().map(Box::new);
    let since = details.as_ref().map_or(at, |details| details.since);
    let standing = Standing { state: Some(at_state), at, since, holding, details };
    Wanted { queue: state.id, sequence, from: location, standing }
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
    let mut missed = HashSet::new();
    for (sequence, at) in slot.state.relocate_all(moves, &mut engine.space) {
        // Its body changed while it was copied: the entry that says so guards against the copy. If it is gone, its marker
        // is somewhere from `as_of` on.
        let marker = slot.state.location_of(sequence).unwrap_or(as_of);
        engine.space.bury(queue, sequence, at, marker);
        missed.insert(sequence);
    }
    for (sequence, _, at) in moves.iter().filter(|(sequence, ..)| !missed.contains(sequence)) {
        let size = slot.state.place_of(*sequence).map_or(0, |(_, size)| size);
        let changed_from = changed(*sequence).then_some(as_of);
        engine.space.copied(queue, *sequence, *at, size, changed_from);
    }
}

/// Notes that a copy is at `at`, made of what was known below `as_of`.
pub(crate) fn note_copy(engine: &mut Engine, copied: Copied, at: u64, as_of: u64) {
    match copied {
        Copied::Message { queue, sequence, from } => {
            // Nobody watched what happened since.
            note_messages(engine, queue, &[(sequence, from, at)], as_of, |_| true);
        }
        Copied::Catalogue { queue } => {
            if let Some(slot) = engine.slots.get_mut(&queue) {
                let catalogue = &mut slot.state.catalogue;
                catalogue.cold = Some(at);
                catalogue.hot = catalogue
                    .hot
                    .filter(|(_, last)| *last >= as_of)
                    .map(|(first, last)| (first.max(as_of), last));
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
