//! The steps of a redrive.
//!
//! A step takes the next messages off a list, so that it costs what it moves. The list is gathered by looking at all
//! messages of the queue, a part of them at a time, so that it needs little memory and that all gathering together costs
//! no more than a few looks at each message. It is not stored: a step that has none, or failed, gathers it anew from where
//! the redrive has come to.
//!
//! Whether a message is one that the redrive is about, its bytes say. They are read before the step, while nobody waits.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::MutexGuard;

use crate::decide::Now;
use crate::engine::Engine;
use crate::entry::{Entry, Fact, message_in};
use crate::envelope::{DeathReason, Envelope};
use crate::error::{Error, Result};
use crate::held::State;
use crate::ready::{Group, GroupId, Lane, LaneId};
use crate::redrive::{MoveTask, RedriveFilter, RedriveStatus};
use crate::shared::{Level, Shared};
use crate::state::QueueState;

/// Messages that one step looks at, and their bytes beyond the first.
const STEP: usize = 500;
const STEP_BYTES: u64 = 4 << 20;
/// Messages that are gathered at once: so many, or a sixteenth of those that are looked at for it if that is more.
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
    /// The bytes at these locations, for the next step.
    read: HashMap<u64, Bytes>,
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
        let Some(mut task) = slot.state.running_task().cloned() else { return Ok(None) };
        match most_now(&task, now) {
            Ok(most) => self.step(engine, queue, now, &mut task, most),
            Err(later) => Ok(Some(later)),
        }
    }

    /// Reads what the next steps of all redrives look at. What cannot be read is met again by the step.
    pub(crate) fn read_for_redrives(&self) -> Result<()> {
        let mut engine = self.lock();
        let now = self.now();
        let running = engine.slots.iter().filter(|(_, slot)| slot.state.running_task().is_some());
        let queues: Vec<u32> = running.map(|(queue, _)| *queue).collect();
        for queue in queues {
            let Some(slot) = engine.slots.get_mut(&queue) else { continue };
            let Some(task) = slot.state.running_task() else { continue };
            let Ok(most) = most_now(task, now) else { continue };
            let ahead = looked_ahead(slot.ahead.take(), &slot.state, task);
            let candidates = next(&slot.state, &ahead.found, most).0;
            slot.ahead = Some(ahead);
            let locations: Vec<u64> = candidates.iter().map(|one| one.location).collect();
            let read = MutexGuard::unlocked(&mut engine, || self.read_undamaged(&locations))?;
            if let Some(ahead) = engine.slots.get_mut(&queue).and_then(|slot| slot.ahead.as_mut()) {
                let whole = locations.into_iter().zip(read);
                ahead.read = whole.filter_map(|(at, bytes)| Some((at, bytes?))).collect();
            }
        }
        Ok(())
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
        let mut ahead = looked_ahead(slot.ahead.take(), &slot.state, task);
        let (candidates, looked_at) = next(&slot.state, &ahead.found, most);
        if let Some(last) = ahead.found.drain(..looked_at).next_back() {
            task.cursor = last.sequence + 1;
        }
        let mut read = std::mem::take(&mut ahead.read);
        let mut bodies: Vec<_> =
            candidates.iter().map(|candidate| read.remove(&candidate.location)).collect();
        let missing = candidates.iter().zip(&mut bodies).filter(|(_, body)| body.is_none());
        let (locations, bodies_missing): (Vec<u64>, Vec<_>) =
            missing.map(|(candidate, body)| (candidate.location, body)).unzip();
        // What is damaged stays where it is.
        for (body, bytes) in bodies_missing.into_iter().zip(self.read_undamaged(&locations)?) {
            *body = bytes;
        }
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
        let freed = match (&task.status, engine.slots.get(&queue)) {
            (RedriveStatus::Completed, Some(slot)) => freed(&slot.state, task, &entries),
            _ => Vec::new(),
        };
        let resumed = |group| Entry { queue, fact: Fact::Resumed { time: now.time, group } };
        entries.extend(freed.iter().map(|group| resumed(group)));
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

/// How many messages a task's step may look at now, or when the next may begin.
fn most_now(task: &MoveTask, now: Now) -> std::result::Result<usize, i64> {
    if task.rate == 0 {
        return Ok(STEP);
    }
    let (rate, moved) = (i64::from(task.rate), i64::try_from(task.moved).unwrap_or(i64::MAX));
    let due = (now.time.saturating_sub(task.started)).saturating_mul(rate) / 1000 + 1;
    match due.saturating_sub(moved) {
        ..=0 => Err(task.started.saturating_add(moved.saturating_mul(1000) / rate)),
        left => Ok(usize::try_from(left).unwrap_or(STEP).min(STEP)),
    }
}

/// The list of a task: as it is known, or gathered.
fn looked_ahead(known: Option<Ahead>, state: &QueueState, task: &MoveTask) -> Ahead {
    let is_of_use =
        |ahead: &Ahead| ahead.task == task.id && !(ahead.found.is_empty() && ahead.more);
    known.filter(is_of_use).unwrap_or_else(|| gather(state, task))
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

/// The parked groups of which a task that ends with `moves` has taken all that was there when it began.
fn freed(state: &QueueState, task: &MoveTask, moves: &[Entry<'_>]) -> Vec<Arc<str>> {
    let taken: BTreeSet<u64> = moves
        .iter()
        .filter_map(|entry| match &entry.fact {
            Fact::Moved { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .collect();
    let goes = |sequence: u64| sequence >= task.below || taken.contains(&sequence);
    let is_taken = |id: GroupId, group: &Group| {
        let elsewhere = group.delayed + group.dead + u64::from(group.in_flight + group.holding);
        elsewhere == 0
            && state.ready.lanes_of(id).all(|lane| {
                lane.returned.keys().all(|(_, sequence)| goes(*sequence))
                    && lane.run.iter().all(|item| goes(item.sequence))
            })
    };
    let parked = state.ready.groups().filter(|(_, group)| group.parked);
    parked.filter(|(id, group)| is_taken(*id, group)).map(|(_, g)| Arc::clone(&g.name)).collect()
}

/// The first messages from the task's cursor on that it may be about.
fn gather(state: &QueueState, task: &MoveTask) -> Ahead {
    // Of one group the others need not be read to be passed over.
    let group = &task.filter.group;
    let only = (!group.is_empty()).then(|| state.ready.group_named(group));
    let is_asked_for = |lane: &Lane| only.is_none_or(|only| only == Some(lane.group));
    let in_lane = |lane: &Lane| lane.run.len().min(GATHERED as u64);
    let in_lanes: u64 = state.ready.lanes().map(|(_, lane)| in_lane(lane)).sum();
    let looked_at = in_lanes + state.held.len() as u64;
    let most = usize::try_from(looked_at / GATHERINGS).unwrap_or(usize::MAX).max(GATHERED);
    let mut first = First { most, found: Vec::new(), more: false };
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
    Ahead { task: task.id, found: first.found.into(), more: first.more, read: HashMap::new() }
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

/// The first messages of a list that are still there, and how much of the list was looked at for them.
fn next(state: &QueueState, found: &VecDeque<Seen>, most: usize) -> (Vec<Candidate>, usize) {
    let (mut candidates, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
    for Seen { sequence, lane } in found {
        let candidate = find(state, *sequence, *lane);
        let size = candidate.as_ref().map_or(0, |candidate| u64::from(candidate.size));
        if candidates.len() == most || bytes > 0 && bytes + size > STEP_BYTES {
            break;
        }
        bytes += size;
        candidates.extend(candidate);
        looked_at += 1;
    }
    (candidates, looked_at)
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
    /// The redrive that goes on.
    fn running_task(&self) -> Option<&MoveTask> {
        self.tasks.values().find(|task| task.status == RedriveStatus::Running)
    }

    /// The tasks that are remembered beside a new one.
    pub(crate) fn forget_old_tasks(&mut self) {
        while self.tasks.len() > REMEMBERED + 1 {
            self.tasks.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logmill_storage::io::sim::{Op, SimDisk};
    use logmill_storage::{DataDirOptions, ManualClock};

    use crate::{Message, QueueConfig, Queues, QueuesOptions, RedriveFilter, RedriveOptions};

    /// A step read what it looked at while every call at every queue waited for it.
    #[test]
    fn a_step_that_looks_at_much_and_moves_nothing_reads_nothing_under_the_lock() {
        let disk = SimDisk::new(1);
        let options = DataDirOptions::new().threads(0).clock(Arc::new(ManualClock::at(0)));
        let dir = options.open_with(disk.io()).unwrap();
        let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
        let queue = queues.create("q", &QueueConfig::standard()).unwrap();
        queues.create("other", &QueueConfig::standard()).unwrap();
        let body = vec![7; 2_000];
        for _ in 0..1_200 {
            queue.send(&Message::new(&body)).unwrap();
        }
        let filter = RedriveFilter::new().attribute("colour", "red");
        queue.redrive(&RedriveOptions::new().filter(filter).to("other")).unwrap();
        let reads = || disk.ops().of(Op::Read);
        for step in 0..3 {
            let before = reads();
            queues.shared.read_for_redrives().unwrap();
            let read = reads();
            assert!(read > before, "step {step}");
            let mut engine = queues.shared.lock();
            let now = queues.shared.now();
            let later = queues.shared.step_redrive(&mut engine, queue.id, now).unwrap();
            assert_eq!(later.is_some(), step < 2, "500 are looked at in a step");
            assert_eq!(reads(), read, "step {step}");
        }
        assert_eq!(queue.counts().unwrap().ready, 1_200);
    }
}
