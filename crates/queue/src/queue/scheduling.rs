//! Messages that are sent again and again.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::errors::CronError;

use super::Queue;
use crate::codec::Input;
use crate::decide::{Now, SendPlan};
use crate::engine::Engine;
use crate::entry::{Entry, Fact};
use crate::envelope::{Deduplication, Envelope};
use crate::error::{Error, Result};
use crate::limits::{self, CENTURY_MS, Limit, within};
use crate::message::Message;
use crate::schedule::{Missed, Repeat, Schedule};
use crate::shared::{Level, Shared};

/// Ticks that one look at a schedule fires.
const AT_ONCE: usize = 100;

/// A schedule, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// Its name in its queue.
    pub name: String,
    /// When it fires.
    pub repeat: Repeat,
    /// What happens to ticks that are missed.
    pub missed: Missed,
    /// Its next tick, in ms since 1970 by the wall clock.
    pub next_at: i64,
}

impl Queue {
    /// Sends `message` at every tick of `repeat` from now on, exactly once for each tick, across crashes: the message
    /// and the step to the next tick are one batch of the journal. A schedule of the same name is replaced. Schedules go
    /// by the wall clock. They ignore the queue's length limits.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`], [`Error::OutOfBounds`], and those of [`send`](Queue::send): nothing was changed.
    pub fn schedule(
        &self,
        name: &str,
        repeat: &Repeat,
        message: &Message<'_>,
        missed: Missed,
    ) -> Result<()> {
        self.begin_schedule(name, repeat, message, missed)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_schedule(
        &self,
        name: &str,
        repeat: &Repeat,
        message: &Message<'_>,
        missed: Missed,
    ) -> Result<()> {
        within(Limit::QueueNameLength, name.chars().count() as u64, 1, 80)?;
        if let Repeat::Every(interval) = repeat {
            limits::duration(Limit::ScheduleInterval, *interval, 1, CENTURY_MS)?;
        }
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let next = tick_after(repeat, now.wall, now.wall)?;
        let state = &engine.slot(self.id)?.state;
        let mut buffer = Vec::new();
        // Each fire has an id of its own, so a FIFO queue needs none here.
        let needs_id = state.config.fifo && message.deduplication_id.is_none();
        let message = if needs_id { message.deduplication_id("schedule") } else { *message };
        let envelope = match state.plan_send(now, &message, &mut buffer)? {
            SendPlan::New(envelope) => envelope,
            SendPlan::Duplicate { .. } => {
                return Err(Error::Unsupported {
                    what: "a schedule with a deduplication id that is in use",
                });
            }
        };
        let mut template = Vec::new();
        let (due, expires) =
            (envelope.due - now.time, envelope.expires.saturating_sub(now.time).max(0));
        Envelope { time: 0, wall: 0, due, expires, ..envelope }.encode(&mut template);
        let schedule = Schedule {
            name: name.to_owned(),
            repeat: repeat.clone(),
            missed,
            next,
            envelope: template,
        };
        let fact = Fact::Schedule { schedule: Cow::Owned(schedule) };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)
    }

    /// Ends a schedule.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn unschedule(&self, name: &str) -> Result<()> {
        self.begin_unschedule(name)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_unschedule(&self, name: &str) -> Result<()> {
        let mut engine = self.shared.lock();
        if !engine.slot(self.id)?.state.schedules.contains_key(name) {
            return Err(Error::NotFound { what: "schedule" });
        }
        let entry = Entry { queue: self.id, fact: Fact::ScheduleRemoved { name } };
        self.shared.commit(&mut engine, &[entry], Level::sync())?;
        self.changed(&mut engine)
    }

    /// The schedules of this queue, by name.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn schedules(&self) -> Result<Vec<ScheduleInfo>> {
        self.with_state(|state| {
            let shown = state.schedules.values().map(|schedule| ScheduleInfo {
                name: schedule.name.clone(),
                repeat: schedule.repeat.clone(),
                missed: schedule.missed,
                next_at: schedule.next,
            });
            shown.collect()
        })
    }
}

/// The first tick after `after`, of a schedule that has a tick (or began) at `known`.
fn tick_after(repeat: &Repeat, known: i64, after: i64) -> Result<i64> {
    match repeat {
        Repeat::Every(interval) => {
            let interval = ms(*interval).max(1);
            let passed = after.saturating_sub(known).max(0) / interval;
            Ok(known.saturating_add(interval.saturating_mul(passed + 1)))
        }
        Repeat::Cron(expression) => {
            let (cron, after) = cron_at(expression, after)?;
            let next = cron.find_next_occurrence(&after, false);
            Ok(next.map_err(|error| invalid(expression, error.to_string()))?.timestamp_millis())
        }
    }
}

/// The last tick up to `bound`, of a schedule that has one at `known` or later.
fn tick_at_or_before(repeat: &Repeat, known: i64, bound: i64) -> Result<i64> {
    match repeat {
        Repeat::Every(interval) => {
            let interval = ms(*interval).max(1);
            Ok(known + bound.saturating_sub(known).max(0) / interval * interval)
        }
        Repeat::Cron(expression) => {
            let (cron, bound) = cron_at(expression, bound)?;
            let last = cron.find_previous_occurrence(&bound, true);
            Ok(last
                .map_err(|error| invalid(expression, error.to_string()))?
                .timestamp_millis()
                .max(known))
        }
    }
}

fn cron_at(expression: &str, wall: i64) -> Result<(Cron, DateTime<Utc>)> {
    let cron: Cron =
        expression.parse().map_err(|error: CronError| invalid(expression, error.to_string()))?;
    let at = DateTime::<Utc>::from_timestamp_millis(wall);
    let at = at.ok_or_else(|| {
        invalid(expression, "the clock is beyond what the parser knows".to_owned())
    })?;
    Ok((cron, at))
}

fn invalid(expression: &str, what: String) -> Error {
    Error::InvalidSchedule { expression: expression.to_owned(), what }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Fires what is due in a queue; when to come back, on the queues' clock.
    pub(crate) fn fire_due(
        &self,
        engine: &mut Engine,
        queue: u32,
        now: Now,
    ) -> Result<Option<i64>> {
        let Some(slot) = engine.slots.get(&queue) else { return Ok(None) };
        let due: Vec<Schedule> = slot
            .state
            .schedules
            .values()
            .filter(|schedule| schedule.next <= now.wall)
            .cloned()
            .collect();
        for mut schedule in due {
            for _ in 0..AT_ONCE {
                if schedule.next > now.wall {
                    break;
                }
                let tick = schedule.next;
                let mut next = tick_after(&schedule.repeat, tick, tick)?;
                // Ticks before the store was opened were missed.
                let skipped = match schedule.missed {
                    Missed::Each => false,
                    Missed::Skip => tick < self.opened_wall,
                    Missed::Latest => next < self.opened_wall,
                };
                if skipped {
                    let over = self.opened_wall - 1;
                    next = match schedule.missed {
                        Missed::Latest => tick_at_or_before(&schedule.repeat, tick, over)?,
                        Missed::Each | Missed::Skip => tick_after(&schedule.repeat, tick, over)?,
                    };
                }
                self.fire(engine, queue, &schedule, tick, next, now, !skipped)?;
                schedule.next = next;
            }
        }
        let Some(slot) = engine.slots.get(&queue) else { return Ok(None) };
        let next = slot.state.schedules.values().map(|schedule| schedule.next).min();
        Ok(next.map(|next| now.time.saturating_add(next.saturating_sub(now.wall).max(0))))
    }

    #[expect(clippy::too_many_arguments, reason = "these are the parts of a fire")]
    fn fire(
        &self,
        engine: &mut Engine,
        queue: u32,
        schedule: &Schedule,
        tick: i64,
        next: i64,
        now: Now,
        sends: bool,
    ) -> Result<()> {
        let slot = engine.slot(queue)?;
        let sequence = slot.state.next_sequence;
        let fifo = slot.state.config.fifo;
        let fired = Entry { queue, fact: Fact::Fired { name: &schedule.name, next } };
        if !sends {
            return self.commit(engine, &[fired], Level::buffered()).map(|_| ());
        }
        let malformed = |what: crate::codec::Malformed| Error::Corrupt { offset: 0, what: what.0 };
        let mut envelope = Envelope::decode(Input(&schedule.envelope)).map_err(malformed)?;
        let id = format!("{}@{tick}", schedule.name);
        if fifo {
            envelope.deduplication = Deduplication::Id(&id);
        }
        envelope.time = now.time;
        envelope.wall = now.wall;
        envelope.due = envelope.due.saturating_add(now.time);
        if envelope.expires > 0 {
            envelope.expires = envelope.expires.saturating_add(now.time);
        }
        let sent = Entry { queue, fact: Fact::Sent { sequence, envelope } };
        let level = self.level(None, engine.slot(queue)?.state.config.durability);
        let at = self.commit(engine, &[sent, fired], level)?;
        let slot = engine.slot(queue)?;
        slot.tally.sent += 1;
        if level.waits() {
            // Shown when it is durable, so that no tick is seen twice: the keeper sees to that next.
            slot.unsynced.push_back(at);
            engine.abandoned.insert(queue);
        } else if slot.waiters > 0 {
            slot.signal.notify_one();
        }
        Ok(())
    }
}
