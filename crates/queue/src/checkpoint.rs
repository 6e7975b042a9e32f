//! The state as bytes: disposable, so its format may change with the build.
//!
//! ```text
//! version u8, next queue, latest, clock (0, or 1 time wall), removed queues, queues, graves
//! ```
//! Everything is varint based; runs stand as [`Run::save`] writes them, so that a deep backlog is copied, not decoded.

use std::collections::BTreeMap;

use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms, put_varint};
use crate::config::QueueConfig;
use crate::engine::{Engine, RemovedQueue, Slot};
use crate::entry::{Mark, Memory};
use crate::held::{Held, State};
use crate::kept::Kept;
use crate::redrive::MoveTask;
use crate::run::Run;
use crate::schedule::Schedule;
use crate::standing::Standing;
use crate::state::{Catalogued, QueueState};

const VERSION: u8 = 2;

pub(crate) fn save(engine: &mut Engine, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_varint(out, u64::from(engine.next_queue));
    put_ms(out, engine.latest);
    match engine.clock_set {
        None => out.push(0),
        Some((time, wall)) => {
            out.push(1);
            put_ms(out, time);
            put_ms(out, wall);
        }
    }
    put_varint(out, engine.removed.len() as u64);
    for removed in &engine.removed {
        put_varint(out, u64::from(removed.queue));
        put_varint(out, removed.marker);
    }
    put_varint(out, engine.slots.len() as u64);
    for slot in engine.slots.values() {
        save_queue(&slot.state, out);
    }
    let graves = engine.space.graves();
    put_varint(out, graves.len() as u64);
    for (queue, graves) in graves {
        put_varint(out, u64::from(*queue));
        graves.run().save(out);
    }
}

pub(crate) fn load(bytes: &[u8]) -> Decoded<Engine> {
    let mut input = Input(bytes);
    if input.byte()? != VERSION {
        return Err(Malformed("a checkpoint of another build"));
    }
    let mut engine = Engine { next_queue: input.u32()?, latest: input.ms()?, ..Engine::default() };
    if input.byte()? == 1 {
        engine.clock_set = Some((input.ms()?, input.ms()?));
    }
    for _ in 0..input.count()? {
        engine.removed.push(RemovedQueue { queue: input.u32()?, marker: input.varint()? });
    }
    for _ in 0..input.count()? {
        let state = load_queue(&mut input, &mut engine)?;
        // A queue may have come further by time alone, which no entry says. Time begins where no queue is ahead of it.
        engine.latest = engine.latest.max(state.now);
        engine.by_name.insert(state.name.clone(), state.id);
        engine.slots.insert(state.id, Slot::new(state));
    }
    for _ in 0..input.count()? {
        let queue = input.u32()?;
        engine.space.set_graves(queue, Run::load(&mut input, |_| Ok(()))?);
    }
    input.end()?;
    engine.checkpoint_len = bytes.len() as u64;
    Ok(engine)
}

fn save_queue(state: &QueueState, out: &mut Vec<u8>) {
    put_varint(out, u64::from(state.id));
    put_bytes(out, state.name.as_bytes());
    state.config.encode(out);
    put_varint(out, state.tags.len() as u64);
    for (key, value) in &state.tags {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    for time in [state.created, state.modified, state.now, state.last_due()] {
        put_ms(out, time);
    }
    put_varint(out, state.next_sequence);
    out.push(u8::from(state.has_strangers));
    put_pair(out, state.purged);
    put_pair(out, state.catalogue.hot);
    put_pair(out, state.catalogue.cold.map(|cold| (cold, 0)));
    state.kept.save(out);
    put_varint(out, state.tasks.len() as u64);
    state.tasks.values().for_each(|task| task.encode(out));
    put_varint(out, state.schedules.len() as u64);
    state.schedules.values().for_each(|schedule| schedule.encode(out));
    save_memories(state, out);
    save_lanes(state, out);
}

fn put_pair(out: &mut Vec<u8>, pair: Option<(u64, u64)>) {
    match pair {
        None => out.push(0),
        Some((first, second)) => {
            out.push(1);
            put_varint(out, first);
            put_varint(out, second);
        }
    }
}

fn take_pair(input: &mut Input<'_>) -> Decoded<Option<(u64, u64)>> {
    Ok(if input.byte()? == 0 { None } else { Some((input.varint()?, input.varint()?)) })
}

fn save_memories(state: &QueueState, out: &mut Vec<u8>) {
    let memories = state.memories.all();
    put_varint(out, memories.len() as u64);
    for memory in memories {
        out.extend_from_slice(&memory.key);
        put_varint(out, memory.sequence);
        put_ms(out, memory.expires);
    }
    let recent: Vec<_> = state.recent.all().collect();
    put_varint(out, recent.len() as u64);
    for (id, time, attempted) in recent {
        put_bytes(out, id.as_bytes());
        put_ms(out, time);
        put_ms(out, attempted.until);
        put_varint(out, attempted.marks.len() as u64);
        for mark in &attempted.marks {
            put_varint(out, mark.sequence);
            put_varint(out, u64::from(mark.generation));
        }
    }
}

fn load_memories(state: &mut QueueState, input: &mut Input<'_>) -> Decoded<()> {
    for _ in 0..input.count()? {
        let key =
            input.take(16)?.try_into().map_err(|_| Malformed("a key that is not 16 bytes"))?;
        state.memories.remember(Memory { key, sequence: input.varint()?, expires: input.ms()? });
    }
    for _ in 0..input.count()? {
        let id = input.text()?;
        let (time, until) = (input.ms()?, input.ms()?);
        let marks: Vec<Mark> = (0..input.count()?)
            .map(|_| Ok(Mark { sequence: input.varint()?, generation: input.u32()? }))
            .collect::<Decoded<_>>()?;
        state.recent.remember(id, &marks, time, until);
    }
    Ok(())
}

/// For each lane its group (0, or 1 and text), priority and run; then the held messages, each with the number of its lane
/// in that order; then the groups. Nothing is gathered on the way: this runs under the lock, over millions of messages.
fn save_lanes(state: &QueueState, out: &mut Vec<u8>) {
    let mut numbers: BTreeMap<u32, u64> = BTreeMap::new();
    put_varint(out, state.ready.lanes().count() as u64);
    for ((id, lane), number) in state.ready.lanes().zip(0..) {
        numbers.insert(id, number);
        match state.ready.group(lane.group) {
            None => out.push(0),
            Some(group) => {
                out.push(1);
                put_bytes(out, group.name.as_bytes());
            }
        }
        out.push(lane.priority);
        lane.run.save(out);
    }
    put_varint(out, state.held.all().count() as u64);
    for slot in state.held.all() {
        let Held { sequence, location, at, size, lane, state: at_state, holding } =
            state.held.get(slot);
        put_varint(out, numbers.get(&lane).copied().unwrap_or_default());
        put_varint(out, sequence);
        put_varint(out, location);
        put_varint(out, u64::from(size));
        let details = state.held.details(slot).cloned().map(Box::new);
        let since = details.as_ref().map_or(at, |details| details.since);
        Standing { state: Some(at_state), at, since, holding, details }.encode(out);
    }
    state.ready.save_groups(out);
}

fn load_queue(input: &mut Input<'_>, engine: &mut Engine) -> Decoded<QueueState> {
    let (id, name) = (input.u32()?, input.text()?);
    let config = QueueConfig::decode(input)?;
    let mut state = QueueState::new(id, name, config, 0);
    for _ in 0..input.count()? {
        let (key, value) = (input.text()?, input.text()?);
        state.tags.insert(key.to_owned(), value.to_owned());
    }
    (state.created, state.modified, state.now) = (input.ms()?, input.ms()?, input.ms()?);
    state.set_last_due(input.ms()?);
    state.next_sequence = input.varint()?;
    state.has_strangers = input.byte()? != 0;
    state.purged = take_pair(input)?;
    state.catalogue =
        Catalogued { hot: take_pair(input)?, cold: take_pair(input)?.map(|(cold, _)| cold) };
    state.kept = Kept::load(input)?;
    for _ in 0..input.count()? {
        let task = MoveTask::decode(input)?;
        state.tasks.insert(task.id, task);
    }
    for _ in 0..input.count()? {
        let schedule = Schedule::decode(input)?;
        state.schedules.insert(schedule.name.clone(), schedule);
    }
    load_memories(&mut state, input)?;
    let mut lanes = Vec::new();
    for _ in 0..input.count()? {
        let group = if input.byte()? == 0 { None } else { Some(input.text()?) };
        let lane = state.ready.lane_for(group, input.byte()?);
        let (mut bytes, mut space) = (0, engine.space.add_many());
        let run = Run::load(input, |item| {
            bytes += u64::from(item.size);
            space.add(item.location, item.size)
        })?;
        space.end()?;
        // An empty lane would go before its held messages come.
        state.ready.hold(lane);
        state.load_run(lane, run, bytes);
        lanes.push(lane);
    }
    for _ in 0..input.count()? {
        let number = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        let lane = *lanes.get(number).ok_or(Malformed("a held message without a lane"))?;
        let (sequence, location, size) = (input.varint()?, input.varint()?, input.u32()?);
        let standing = Standing::decode(input)?;
        if sequence == 0
            || sequence >> 48 != 0
            || location >> 48 != 0
            || state.find(sequence).is_some()
        {
            return Err(Malformed("a held message that cannot be"));
        }
        engine.space.add_known(location, size)?;
        let held = standing.state.unwrap_or(State::Ready);
        state.load_held(lane, sequence, location, size, held, standing);
    }
    lanes.into_iter().for_each(|lane| state.ready.let_go(lane));
    state.ready.load_groups(input)?;
    Ok(state)
}
