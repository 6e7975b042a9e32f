//! Moving dead messages back into circulation, step by step in the background.

use std::borrow::Cow;

use super::Queue;
use crate::decide::Now;
use crate::engine::Engine;
use crate::entry::{Entry, Fact, message_in};
use crate::envelope::{DeathReason, Envelope};
use crate::error::{Error, Result};
use crate::held::State;
use crate::limits::{Limit, within};
use crate::redrive::{MoveTask, RedriveFilter, RedriveStatus};
use crate::shared::{Level, Shared};
use crate::state::QueueState;

/// Messages that one step looks at.
const STEP: usize = 500;
/// Finished redrives that are remembered, as in SQS.
const REMEMBERED: usize = 10;

/// What a redrive moves, and where to.
#[derive(Clone, Debug, Default)]
pub struct RedriveOptions {
    filter: RedriveFilter,
    target: Option<String>,
    rate: u32,
}

impl RedriveOptions {
    /// Everything, each message to the queue in which it died, as fast as it goes.
    pub fn new() -> RedriveOptions {
        RedriveOptions::default()
    }

    /// Only the messages that the filter describes.
    pub fn filter(mut self, filter: RedriveFilter) -> Self {
        self.filter = filter;
        self
    }

    /// All to the queue `name`, of the same type.
    pub fn to(mut self, name: &str) -> Self {
        self.target = Some(name.to_owned());
        self
    }

    /// At most so many messages a second: 1 to 1,000,000.
    pub fn messages_per_second(mut self, rate: u32) -> Self {
        // 0 is the default's number, and out of range here.
        self.rate = if rate == 0 { u32::MAX } else { rate };
        self
    }
}

/// A redrive, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// Its number in its queue.
    pub id: u64,
    /// How it stands.
    pub status: RedriveStatus,
    /// Messages moved.
    pub moved: u64,
    /// When it began, in ms on the queues' clock.
    pub started_at: i64,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<i64>,
}

impl Queue {
    /// Begins to move dead messages back: those that lie in this queue because another died of them, and those that
    /// died here and stayed. They keep their id and history, and may be received as often again as before. What comes
    /// to this queue later stays. The redrive goes on in the background, after a crash too, until it is through or
    /// cancelled. Returns its number.
    ///
    /// # Errors
    /// [`Error::MoveTaskRunning`]: one at a time. [`Error::QueueDoesNotExist`] (the target), [`Error::RedriveRefused`],
    /// [`Error::OutOfBounds`].
    pub fn redrive(&self, options: &RedriveOptions) -> Result<u64> {
        if options.rate != 0 {
            let rate = if options.rate == u32::MAX { 0 } else { u64::from(options.rate) };
            within(Limit::RedriveRate, rate, 1, 1_000_000)?;
        }
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let fifo = engine.slot(self.id)?.state.config.fifo;
        let target = match &options.target {
            None => None,
            Some(name) => {
                let missing = || Error::QueueDoesNotExist { name: name.clone() };
                let slot = engine.named(name).ok_or_else(missing)?;
                if slot.state.config.fifo != fifo {
                    let (source, target) = (self.name.to_string(), name.clone());
                    return Err(Error::RedriveRefused {
                        source,
                        target,
                        what: "one is FIFO and the other is not",
                    });
                }
                Some(slot.state.id)
            }
        };
        let state = &engine.slot(self.id)?.state;
        if state.tasks.values().any(|task| task.status == RedriveStatus::Running) {
            return Err(Error::MoveTaskRunning { source: self.name.to_string() });
        }
        let id = state.tasks.keys().next_back().map_or(1, |last| last + 1);
        let task = MoveTask {
            id,
            target,
            rate: options.rate,
            cursor: 0,
            below: state.next_sequence,
            moved: 0,
            started: now.time,
            ended: 0,
            status: RedriveStatus::Running,
            filter: options.filter.clone(),
        };
        let fact = Fact::MoveTask { task: Cow::Owned(task) };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(engine)?;
        Ok(id)
    }

    /// The redrives of this queue, the latest first: the one that runs and up to 10 that have ended.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn redrives(&self) -> Result<Vec<Redrive>> {
        self.with_state(|state| {
            let shown = state.tasks.values().rev().map(|task| Redrive {
                id: task.id,
                status: task.status.clone(),
                moved: task.moved,
                started_at: task.started,
                ended_at: (task.status != RedriveStatus::Running).then_some(task.ended),
            });
            shown.collect()
        })
    }

    /// Ends a running redrive. What it has moved stays moved.
    ///
    /// # Errors
    /// [`Error::NotFound`]: no redrive with this number runs.
    pub fn cancel_redrive(&self, id: u64) -> Result<()> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let time = shared.now().time;
        let task = engine.slot(self.id)?.state.tasks.get(&id);
        let Some(task) = task.filter(|task| task.status == RedriveStatus::Running) else {
            return Err(Error::NotFound { what: "running redrive" });
        };
        let task = MoveTask { status: RedriveStatus::Cancelled, ended: time, ..task.clone() };
        let fact = Fact::MoveTask { task: Cow::Owned(task) };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(engine)
    }
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
        let rate = i64::from(task.rate);
        if task.rate > 0 {
            let due = (now.time.saturating_sub(task.started)).saturating_mul(rate) / 1000 + 1;
            let left = due.saturating_sub(i64::try_from(task.moved).unwrap_or(i64::MAX));
            if left <= 0 {
                let next =
                    i64::try_from(task.moved).unwrap_or(i64::MAX).saturating_mul(1000) / rate;
                return Ok(Some(task.started.saturating_add(next)));
            }
            return self.step(
                engine,
                queue,
                now,
                &mut task,
                usize::try_from(left).unwrap_or(STEP).min(STEP),
            );
        }
        self.step(engine, queue, now, &mut task, STEP)
    }

    fn step(
        &self,
        engine: &mut Engine,
        queue: u32,
        now: Now,
        task: &mut MoveTask,
        max: usize,
    ) -> Result<Option<i64>> {
        let Some(slot) = engine.slots.get(&queue) else { return Ok(None) };
        let candidates = candidates(&slot.state, task, max);
        let bodies: Vec<_> = candidates
            .iter()
            .map(|at| self.read_locked(engine, at.location))
            .collect::<Result<_>>()?;
        let mut next = std::collections::BTreeMap::new();
        let mut entries = Vec::new();
        for (candidate, bytes) in candidates.iter().zip(&bodies) {
            task.cursor = candidate.sequence + 1;
            let Some(bytes) = bytes else { continue };
            let malformed = |what: crate::codec::Malformed| Error::Corrupt {
                offset: candidate.location,
                what: what.0,
            };
            let (_, envelope) = message_in(bytes).map_err(malformed)?;
            if !matches(&task.filter, candidate, &envelope, engine, queue) {
                continue;
            }
            let sequence = candidate.sequence;
            let here = candidate.death.is_some();
            let target = match (task.target, &envelope.past) {
                (None, _) if here => queue,
                (None, Some(past)) => {
                    let died_in = past.death.as_ref().and_then(|death| engine.named(&death.queue));
                    match died_in
                        .filter(|slot| slot.state.config.fifo == engine_fifo(engine, queue))
                    {
                        Some(slot) => slot.state.id,
                        None => continue,
                    }
                }
                (None, None) => continue,
                (Some(target), _) => target,
            };
            task.moved += 1;
            if target == queue {
                if here {
                    entries.push(Entry { queue, fact: Fact::Revived { sequence, time: now.time } });
                }
                continue;
            }
            let Some(slot) = engine.slots.get(&target) else { continue };
            let target_sequence = *next.entry(target).or_insert(slot.state.next_sequence);
            next.insert(target, target_sequence + 1);
            let envelope = renewed(envelope, queue, sequence, now);
            let fact = Fact::Moved {
                sequence,
                time: now.time,
                reason: None,
                target,
                target_sequence,
                envelope,
            };
            entries.push(Entry { queue, fact });
        }
        if candidates.len() < max {
            task.status = RedriveStatus::Completed;
            task.ended = now.time;
        }
        let done = task.status == RedriveStatus::Completed;
        entries.push(Entry { queue, fact: Fact::MoveTask { task: Cow::Borrowed(task) } });
        self.commit(engine, &entries, Level::buffered())?;
        for target in next.keys().chain([&queue]) {
            if let Some(slot) = engine.slots.get(target).filter(|slot| slot.waiters > 0) {
                slot.signal.notify_all();
            }
        }
        Ok((!done).then_some(now.time))
    }
}

fn engine_fifo(engine: &Engine, queue: u32) -> bool {
    engine.slots.get(&queue).is_some_and(|slot| slot.state.config.fifo)
}

/// A message that a redrive looks at.
struct Candidate {
    sequence: u64,
    location: u64,
    /// How it died, if it died here.
    death: Option<DeathReason>,
}

fn candidates(state: &QueueState, task: &MoveTask, max: usize) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (_, lane) in state.ready.lanes() {
        let from =
            lane.run.iter_from(task.cursor).take_while(|item| item.sequence < task.below).take(max);
        found.extend(from.map(|item| Candidate {
            sequence: item.sequence,
            location: item.location,
            death: None,
        }));
    }
    for slot in state.held.in_state(State::Ready).chain(state.held.in_state(State::Dead)) {
        let held = state.held.get(slot);
        if (task.cursor..task.below).contains(&held.sequence) {
            let dead = state.held.details(slot).filter(|_| held.state == State::Dead);
            let death = dead.and_then(|details| DeathReason::of(details.death).ok());
            found.push(Candidate { sequence: held.sequence, location: held.location, death });
        }
    }
    found.sort_unstable_by_key(|candidate| candidate.sequence);
    found.truncate(max);
    found
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
