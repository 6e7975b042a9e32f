//! The steps of a redrive.
//!
//! A step takes the next messages off a list, so that it costs what it moves. The list is gathered by looking at all
//! messages of the queue, for a part of them at a time, so that it needs little memory and that all gathering together costs
//! no more than a few looks at each message. It is not stored: after a crash or a step that failed it is gathered anew from
//! where the redrive has come to.
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
use crate::ready::{Group, GroupId, LaneId};
use crate::redrive::{MoveTask, RedriveFilter, RedriveStatus};
use crate::redriving::gathering::{Gathering, LOOKED_AT};
use crate::run::Item;
use crate::shared::{Level, Shared};
use crate::state::QueueState;

mod gathering;

/// Messages that one step looks at, and their bytes beyond the first.
const STEP: usize = 500;
const STEP_BYTES: u64 = 4 << 20;
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

impl Ahead {
    fn is_of_use(&self, task: &MoveTask) -> bool {
        self.task == task.id && !(self.found.is_empty() && self.more)
    }
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
        let mut outcome = Ok(());
        for queue in queues {
            outcome = outcome.and(self.read_for_redrive(&mut engine, queue, now));
        }
        outcome
    }

    fn read_for_redrive(
        &self,
        engine: &mut MutexGuard<'_, Engine>,
        queue: u32,
        now: Now,
    ) -> Result<()> {
        let task = engine.slots.get(&queue).and_then(|slot| slot.state.running_task());
        let Some(Ok(most)) = task.map(|task| most_now(task, now)) else { return Ok(()) };
        self.gather(engine, queue, || {});
        let Some(slot) = engine.slots.get(&queue) else { return Ok(()) };
        let Some(ahead) = &slot.ahead else { return Ok(()) };
        let candidates = next(&slot.state, &ahead.found, most).0;
        let locations: Vec<u64> = candidates.iter().map(|one| one.location).collect();
        let read = MutexGuard::unlocked(engine, || self.read_undamaged(&locations))?;
        if let Some(ahead) = engine.slots.get_mut(&queue).and_then(|slot| slot.ahead.as_mut()) {
            let whole = locations.into_iter().zip(read);
            ahead.read = whole.filter_map(|(at, bytes)| Some((at, bytes?))).collect();
        }
        Ok(())
    }

    /// Has the list of a queue's redrive, unless that ends meanwhile. The lock is let go of now and then, and `between` is
    /// called each time.
    fn gather(
        &self,
        engine: &mut MutexGuard<'_, Engine>,
        queue: u32,
        mut between: impl FnMut(),
    ) -> Option<()> {
        let slot = engine.slots.get_mut(&queue)?;
        let task = slot.state.running_task()?;
        if slot.ahead.as_ref().is_some_and(|ahead| ahead.is_of_use(task)) {
            return Some(());
        }
        slot.ahead = None;
        let mut gathering = Gathering::of(&slot.state, task);
        loop {
            let state = &engine.slots.get(&queue)?.state;
            // Another thread may have gathered, and made a step.
            if !gathering.is_for(state.running_task()?) {
                return None;
            }
            if gathering.look_on(state, LOOKED_AT) {
                break;
            }
            MutexGuard::unlocked_fair(engine, || {
                gathering.thin();
                between();
            });
        }
        MutexGuard::unlocked_fair(engine, || gathering.finish());
        let slot = engine.slots.get_mut(&queue)?;
        if gathering.is_for(slot.state.running_task()?) {
            slot.ahead = Some(gathering.into());
        }
        Some(())
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
        let Some(mut ahead) = slot.ahead.take().filter(|ahead| ahead.is_of_use(task)) else {
            // The next round gathers one first.
            return Ok(Some(now.time));
        };
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
        let envelope = message_in(bytes).map_err(malformed)?;
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
    let was_there = |item: &Item| item.sequence < task.below;
    let is_taken = |id: GroupId, group: &Group| {
        let elsewhere = group.delayed + group.dead + u64::from(group.in_flight + group.holding);
        elsewhere == 0
            && state.ready.lanes_of(id).all(|lane| {
                lane.returned.keys().all(|(_, sequence)| goes(*sequence))
                    && lane.run.iter().take_while(was_there).all(|item| goes(item.sequence))
            })
    };
    let parked = state.ready.groups().filter(|(_, group)| group.parked);
    parked.filter(|(id, group)| is_taken(*id, group)).map(|(_, g)| Arc::clone(&g.name)).collect()
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

    use crate::{
        Message, Queue, QueueConfig, Queues, QueuesOptions, RedriveFilter, RedriveOptions,
    };

    /// A store with an empty queue to redrive, and `other`, to which it goes.
    fn queues() -> (SimDisk, Queues, Queue) {
        let disk = SimDisk::new(1);
        let options = DataDirOptions::new().threads(0).clock(Arc::new(ManualClock::at(0)));
        let dir = options.open_with(disk.io()).unwrap();
        let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
        let queue = queues.create("q", &QueueConfig::standard()).unwrap();
        queues.create("other", &QueueConfig::standard()).unwrap();
        (disk, queues, queue)
    }

    /// A step read what it looked at while every call at every queue waited for it.
    #[test]
    fn a_step_that_looks_at_much_and_moves_nothing_reads_nothing_under_the_lock() {
        let (disk, queues, queue) = queues();
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

    #[test]
    fn a_send_has_its_turn_while_a_list_is_gathered() {
        let (_disk, queues, queue) = queues();
        let messages = vec![Message::new(b"x"); 1000];
        for _ in 0..20 {
            queue.send_batch(&messages).unwrap();
        }
        queue.redrive(&RedriveOptions::new().to("other")).unwrap();
        let mut turns = 0;
        let mut engine = queues.shared.lock();
        let gathered = queues.shared.gather(&mut engine, queue.id, || {
            queue.send(&Message::new(b"x")).unwrap();
            turns += 1;
        });
        assert_eq!(gathered, Some(()));
        drop(engine);
        assert!(turns > 3, "{turns}");
        while queue.redrives().unwrap()[0].ended_at.is_none() {
            queues.shared.keep();
        }
        assert_eq!(queue.redrives().unwrap()[0].moved, 20_000);
        assert_eq!(queue.counts().unwrap().ready, turns as u64, "what came later stays");
    }
}
