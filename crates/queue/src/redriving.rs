//! The steps of a redrive.
//!
//! A step takes the next messages off a list, so that it costs what it moves. The list is gathered by looking at all
//! messages of the queue, a part of them at a time, so that it needs little memory and that all gathering together costs
//! no more than a few looks at each message. It is not stored: a step that has none, or failed, gathers it anew from where
//! the redrive has come to.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::decide::Now;
use crate::engine::Engine;
use crate::entry::{Entry, Fact, message_in};
use crate::envelope::{DeathReason, Envelope};
use crate::error::{Error, Result};
use crate::held::State;
use crate::ready::{Lane, LaneId};
use crate::redrive::{MoveTask, RedriveFilter, RedriveStatus};
use crate::shared::{Level, Shared};
use crate::state::QueueState;

/// Messages that one step looks at, and their bytes beyond the first.
const STEP: usize = 500;
const STEP_BYTES: u64 = 4 << 20;
/// Messages that are gathered at once: so many, or a sixteenth of all if that is more.
const GATHERED: usize = 16 << 10;
const GATHERINGS: u64 = 16;
/// Finished redrives that are remembered, as in SQS.
const REMEMBERED: usize = 10;

/// Messages that a redrive looks at next, by sequence.
#[derive(Debug)]
pub(crate) struct Ahead {
    task: u64,
    found: VecDeque<Seen>,
    /// There are more behind them.
    more: bool,
}

/// Where a message was when it was gathered: in the run of this lane, or held.
#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    lane: Option<LaneId>,
}

/// A message that a step looks at.
struct Candidate {
    sequence: u64,
    location: u64,
    size: u32,
    /// How it died, if it died here.
    death: Option<DeathReason>,
}

impl Shared {
    /// Goes on with the redrive of a queue; when to come back, if it is not through.
    pub(crate) fn step_redrive(
        &self,
        engine: &mut Engine,
        queue: u32,
        now: Now,
    ) -> Result<Option<i64>> {
        let Some(slot) = engine.slots.get(&queue) else { return Ok(None) };
        let running = slot.state.tasks.values().find(|task| task.status == RedriveStatus::Running);
        let Some(mut task) = running.cloned() else { return Ok(None) };
        let mut most = STEP;
        if task.rate > 0 {
            let (rate, moved) =
                (i64::from(task.rate), i64::try_from(task.moved).unwrap_or(i64::MAX));
            let due = (now.time.saturating_sub(task.started)).saturating_mul(rate) / 1000 + 1;
            let left = due.saturating_sub(moved);
            if left <= 0 {
                return Ok(Some(task.started.saturating_add(moved.saturating_mul(1000) / rate)));
            }
            most = usize::try_from(left).unwrap_or(STEP).min(STEP);
        }
        self.step(engine, queue, now, &mut task, most)
    }

    fn step(
        &self,
        engine: &mut Engine,
        queue: u32,
        now: Now,
        task: &mut MoveTask,
        most: usize,
    ) -> Result<Option<i64>> {
        let Some(slot) = engine.slots.get_mut(&queue) else { return Ok(None) };
        let known = slot.ahead.take().filter(|ahead| ahead.task == task.id);
        let mut ahead = known.unwrap_or_else(|| gather(&slot.state, task));
        if ahead.found.is_empty() && ahead.more {
            ahead = gather(&slot.state, task);
        }
        let candidates = next(&slot.state, &mut ahead.found, task, most);
        let locations: Vec<u64> = candidates.iter().map(|candidate| candidate.location).collect();
        // What is damaged stays where it is.
        let bodies = self.read_undamaged(&locations)?;
        let (mut entries, targets) = moves(engine, queue, now, task, &candidates, &bodies)?;
        if task.target.is_some_and(|target| !engine.slots.contains_key(&target)) {
            task.status = RedriveStatus::Failed("its target queue is gone".to_owned());
        } else if ahead.found.is_empty() && !ahead.more {
            task.status = RedriveStatus::Completed;
        }
        let goes_on = task.status == RedriveStatus::Running;
        if !goes_on {
            task.ended = now.time;
        }
        entries.push(Entry { queue, fact: Fact::MoveTask { task: Cow::Borrowed(task) } });
        self.commit(engine, &entries, Level::buffered())?;
        if let Some(slot) = engine.slots.get_mut(&queue).filter(|_| goes_on) {
            slot.ahead = Some(ahead);
        }
        for target in targets.iter().chain([&queue]) {
            if let Some(slot) = engine.slots.get(target).filter(|slot| slot.waiters > 0) {
                slot.signal.notify_all();
            }
        }
        Ok(goes_on.then_some(now.time))
    }
}

/// What moves those of the candidates that the task is about, and the queues that they come to.
fn moves<'a>(
    engine: &Engine,
    queue: u32,
    now: Now,
    task: &mut MoveTask,
    candidates: &[Candidate],
    bodies: &'a [Option<Bytes>],
) -> Result<(Vec<Entry<'a>>, Vec<u32>)> {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut entries = Vec::new();
    for (candidate, bytes) in candidates.iter().zip(bodies) {
        let Some(bytes) = bytes else { continue };
        let malformed = |what: crate::codec::Malformed| Error::Corrupt {
            offset: candidate.location,
            what: what.0,
        };
        let (_, envelope) = message_in(bytes).map_err(malformed)?;
        if !matches(&task.filter, candidate, &envelope, engine, queue) {
            continue;
        }
        let Some(target) = target_of(engine, queue, task.target, candidate, &envelope) else {
            continue;
        };
        let sequence = candidate.sequence;
        if target == queue {
            if candidate.death.is_some() {
                task.moved += 1;
                entries.push(Entry { queue, fact: Fact::Revived { sequence, time: now.time } });
            }
            continue;
        }
        let Some(slot) = engine.slots.get(&target) else { continue };
        let target_sequence = next.entry(target).or_insert(slot.state.next_sequence);
        let fact = Fact::Moved {
            sequence,
            time: now.time,
            reason: None,
            target,
            target_sequence: *target_sequence,
            envelope: renewed(envelope, queue, sequence, now),
        };
        *target_sequence += 1;
        task.moved += 1;
        entries.push(Entry { queue, fact });
    }
    Ok((entries, next.into_keys().collect()))
}

/// The first messages from the task's cursor on that it may be about.
fn gather(state: &QueueState, task: &MoveTask) -> Ahead {
    let counts = &state.counts;
    let all = counts.ready + counts.delayed + counts.in_flight + counts.dead;
    let most = usize::try_from(all / GATHERINGS).unwrap_or(usize::MAX).max(GATHERED);
    let mut first = First { most, found: Vec::new(), more: false };
    // Of one group the others need not be read to be passed over.
    let group = &task.filter.group;
    let only = (!group.is_empty()).then(|| state.ready.group_named(group));
    let is_asked_for = |lane: &Lane| only.is_none_or(|only| only == Some(lane.group));
    for (id, lane) in state.ready.lanes().filter(|(_, lane)| is_asked_for(lane)) {
        let run = lane.run.iter_from(task.cursor).take_while(|item| item.sequence < task.below);
        for item in run.take(most + 1) {
            first.add(Seen { sequence: item.sequence, lane: Some(id) });
        }
    }
    for slot in state.held.all() {
        let held = state.held.get(slot);
        let here = matches!(held.state, State::Ready | State::Dead);
        if here
            && is_asked_for(state.ready.lane(held.lane))
            && (task.cursor..task.below).contains(&held.sequence)
        {
            first.add(Seen { sequence: held.sequence, lane: None });
        }
    }
    first.cut();
    first.found.sort_unstable_by_key(|seen| seen.sequence);
    Ahead { task: task.id, found: first.found.into(), more: first.more }
}

/// The first `most` of what is added.
struct First {
    most: usize,
    found: Vec<Seen>,
    more: bool,
}

impl First {
    fn add(&mut self, seen: Seen) {
        self.found.push(seen);
        if self.found.len() >= 2 * self.most {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.found.len() > self.most {
            self.found.select_nth_unstable_by_key(self.most, |seen| seen.sequence);
            self.found.truncate(self.most);
            self.more = true;
        }
    }
}

/// Takes the next messages that are still there off the list, and moves the task's cursor behind them.
fn next(
    state: &QueueState,
    ahead: &mut VecDeque<Seen>,
    task: &mut MoveTask,
    most: usize,
) -> Vec<Candidate> {
    let (mut candidates, mut bytes) = (Vec::new(), 0);
    while candidates.len() < most {
        let Some(Seen { sequence, lane }) = ahead.front().copied() else { break };
        let candidate = find(state, sequence, lane);
        let size = candidate.as_ref().map_or(0, |candidate| u64::from(candidate.size));
        if bytes > 0 && bytes + size > STEP_BYTES {
            break;
        }
        bytes += size;
        candidates.extend(candidate);
        ahead.pop_front();
        task.cursor = sequence + 1;
    }
    candidates
}

fn find(state: &QueueState, sequence: u64, lane: Option<LaneId>) -> Option<Candidate> {
    if let Some(slot) = state.held.find(sequence) {
        let held = state.held.get(slot);
        let death = match held.state {
            State::Ready => None,
            State::Dead => {
                let details = state.held.details(slot);
                details.and_then(|details| DeathReason::of(details.death).ok())
            }
            State::Delayed | State::InFlight => return None,
        };
        return Some(Candidate { sequence, location: held.location, size: held.size, death });
    }
    let item = state.ready.in_lane(lane?, sequence)?;
    Some(Candidate { sequence, location: item.location, size: item.size, death: None })
}

/// The queue that a message goes to; `None` if it stays.
fn target_of(
    engine: &Engine,
    queue: u32,
    target: Option<u32>,
    candidate: &Candidate,
    envelope: &Envelope<'_>,
) -> Option<u32> {
    if target.is_some() {
        return target;
    }
    if candidate.death.is_some() {
        return Some(queue);
    }
    let death = envelope.past.as_ref()?.death.as_ref()?;
    let died_in = &engine.named(&death.queue)?.state;
    let here = &engine.slots.get(&queue)?.state;
    (died_in.config.fifo == here.config.fifo).then_some(died_in.id)
}

fn matches(
    filter: &RedriveFilter,
    candidate: &Candidate,
    envelope: &Envelope<'_>,
    engine: &Engine,
    queue: u32,
) -> bool {
    let elsewhere = envelope.past.as_ref().and_then(|past| past.death.as_ref());
    let here = candidate.death.map(|reason| (reason, queue));
    let reason = here.map(|(reason, _)| reason).or_else(|| elsewhere.map(|death| death.reason));
    let name = match here {
        Some((_, queue)) => engine.slots.get(&queue).map(|slot| slot.state.name.as_str()),
        None => elsewhere.map(|death| death.queue.as_str()),
    };
    let attribute = || {
        let attributes = envelope.attributes.decode().unwrap_or_default();
        let (name, value) = (&filter.attribute.0, filter.attribute.1.as_bytes());
        attributes.iter().any(|attribute| attribute.name == name && attribute.value == value)
    };
    (filter.queue.is_empty() || name == Some(filter.queue.as_str()))
        && (filter.reason.is_none() || reason == filter.reason)
        && (filter.group.is_empty() || envelope.group == Some(filter.group.as_str()))
        && (filter.attribute.0.is_empty() || attribute())
}

/// A message that begins anew in another queue: its age counts from now, its id and past stay.
fn renewed(mut envelope: Envelope<'_>, queue: u32, sequence: u64, now: Now) -> Envelope<'_> {
    envelope.origin =
        Some(envelope.origin.unwrap_or(crate::message::MessageId { queue, sequence }));
    envelope.time = now.time;
    envelope.due = 0;
    envelope.expires = 0;
    envelope
}

impl QueueState {
    /// The tasks that are remembered beside a new one.
    pub(crate) fn forget_old_tasks(&mut self) {
        while self.tasks.len() > REMEMBERED + 1 {
            self.tasks.pop_first();
        }
    }
}
