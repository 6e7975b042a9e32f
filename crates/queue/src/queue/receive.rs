//! Receiving.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::Queue;
use crate::decide::Now;
use crate::engine::Engine;
use crate::entry::{Entry, Fact, Lease, Mark};
use crate::envelope::Past;
use crate::error::{Error, Result};
use crate::held::{Details, Held, State};
use crate::limits::{self, Limit, within};
use crate::message::MessageId;
use crate::receipt::Receipt;
use crate::state::{Found, QueueState};
use crate::stored::{MessageState, ReceivedMessage, StoredMessage};

/// What a receive asks for.
///
/// ```
/// use logmill_queue::ReceiveOptions;
/// use std::time::Duration;
/// let options = ReceiveOptions::new().max(10).wait(Duration::from_secs(20));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveOptions<'a> {
    max: Option<usize>,
    wait: Option<Duration>,
    visibility_timeout: Option<Duration>,
    attempt_id: Option<&'a str>,
}

impl<'a> ReceiveOptions<'a> {
    /// One message, the queue's wait and visibility timeout.
    pub const fn new() -> ReceiveOptions<'a> {
        ReceiveOptions { max: None, wait: None, visibility_timeout: None, attempt_id: None }
    }

    /// How many messages at most: 1 (default) to 1,000.
    pub const fn max(mut self, messages: usize) -> Self {
        self.max = Some(messages);
        self
    }

    /// How long to wait for the first message: at most 24 h. It comes as soon as one is sent, or the delay or visibility
    /// timeout of one ends; nothing is polled.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// With `wait` if none was set.
    #[cfg(feature = "tokio")]
    pub(crate) fn wait_or(mut self, wait: Duration) -> Self {
        self.wait.get_or_insert(wait);
        self
    }

    /// How long the messages stay hidden from others, instead of the queue's visibility timeout: at most its `lease_max`.
    pub const fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = Some(timeout);
        self
    }

    /// An id for this receive, 1 to 128 characters, FIFO only: a receive with the same id within 5 minutes returns the
    /// same messages with the same receipts and their visibility timeout set anew, if none was touched since.
    pub const fn attempt_id(mut self, id: &'a str) -> Self {
        self.attempt_id = Some(id);
        self
    }
}

/// What a receive asks for, checked.
pub(crate) struct Ask<'a> {
    max: usize,
    lease_ms: i64,
    waits: bool,
    deadline: i64,
    attempt_id: Option<&'a str>,
}

/// What came of looking once.
pub(crate) enum Turn {
    /// These were taken; their bodies are to be read.
    Messages(Vec<ReceivedMessage>),
    /// The wait is over.
    Over,
    Wait(Duration),
}

#[inline]
pub(crate) fn past_of(details: &Details) -> Past {
    Past {
        receives: details.receives,
        failed: details.failed,
        timed_out: details.timed_out,
        released: details.released,
        first_received_at: details.first_received_at,
        attempts: details.attempts.clone(),
        last_reason: details.reason.as_deref().map(str::to_owned),
        death: None,
    }
}

impl Queue {
    /// Receives messages: hides them from others until their visibility timeout, and gives a receipt for each.
    ///
    /// Returns nothing if there is nothing to receive and the wait is over. A receive survives kill -9 but not power
    /// loss, which makes the messages receivable again; their old receipts are refused then. Needs no disk space.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::InvalidId`], [`Error::Unsupported`]; [`Error::OverLimit`]: as many messages are in
    /// flight as the queue permits (standard queues, without a wait). [`Error::Unreadable`]: no message could be
    /// read, or, in a FIFO queue, not all of them; they come again after their visibility timeout. In a standard queue those
    /// that can be read are returned, and the others counted in [`Tally::unreadable`](crate::Tally::unreadable).
    #[inline]
    pub fn receive(&self, options: &ReceiveOptions<'_>) -> Result<Vec<ReceivedMessage>> {
        self.receive_unless(options, &AtomicBool::new(false))
    }

    /// As [`receive`](Queue::receive), and stops waiting when it is woken and `stop` is set.
    pub(crate) fn receive_unless(
        &self,
        options: &ReceiveOptions<'_>,
        stop: &AtomicBool,
    ) -> Result<Vec<ReceivedMessage>> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let ask = self.ask(&mut engine, options)?;
        loop {
            if stop.load(Ordering::Acquire) {
                return Ok(Vec::new());
            }
            match self.turn(&mut engine, &ask)? {
                Turn::Messages(taken) => {
                    drop(engine);
                    return self.read_bodies(taken);
                }
                Turn::Over => return Ok(Vec::new()),
                Turn::Wait(pause) => {
                    let slot = engine.slot(self.id)?;
                    slot.waiters += 1;
                    let signal = std::sync::Arc::clone(&slot.signal);
                    signal.wait_for(&mut engine, pause);
                    engine.slot(self.id)?.waiters -= 1;
                }
            }
        }
    }

    /// Checks what a receive asks for.
    pub(crate) fn ask<'a>(
        &self,
        engine: &mut Engine,
        options: &ReceiveOptions<'a>,
    ) -> Result<Ask<'a>> {
        let max = options.max.unwrap_or(1);
        within(Limit::ReceiveMax, max as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        if let Some(id) = options.attempt_id {
            limits::id(Limit::ReceiveAttemptIdLength, id)?;
        }
        let config = &engine.slot(self.id)?.state.config;
        if options.attempt_id.is_some() && !config.fifo {
            return Err(Error::Unsupported { what: "a receive attempt id on a standard queue" });
        }
        let lease_ms = match options.visibility_timeout {
            Some(timeout) => limits::duration(
                Limit::VisibilityTimeout,
                timeout,
                0,
                config.lease_max_ms.unsigned_abs(),
            )?,
            None => config.visibility_timeout_ms,
        };
        let wait_ms = match options.wait {
            Some(wait) => limits::duration(Limit::ReceiveWait, wait, 0, 24 * 3_600_000)?,
            None => config.receive_wait_ms,
        };
        // Who does not wait needs no look at the clock for it.
        let deadline =
            if wait_ms > 0 { self.shared.now().time.saturating_add(wait_ms) } else { i64::MIN };
        Ok(Ask { max, lease_ms, waits: wait_ms > 0, deadline, attempt_id: options.attempt_id })
    }

    /// Takes what there is, or says for how long to wait for something to happen at the queue.
    pub(crate) fn turn(&self, engine: &mut Engine, ask: &Ask<'_>) -> Result<Turn> {
        let shared = &self.shared;
        let now = shared.now();
        shared.expire(engine, self.id, now)?;
        let mut taken = self.take(engine, ask.max, now, ask.lease_ms, ask.attempt_id)?;
        if !taken.is_empty() {
            for message in &mut taken {
                if let Some(entry) = engine.recent.find(message.location) {
                    message.stored.entry = Bytes::copy_from_slice(entry);
                }
            }
            return Ok(Turn::Messages(taken));
        }
        let slot = engine.slot(self.id)?;
        if now.time >= ask.deadline {
            slot.tally.empty_receives += 1;
            let limit = slot.state.config.in_flight_max;
            if !ask.waits && !slot.state.config.fifo && slot.state.counts.in_flight >= limit {
                return Err(Error::OverLimit { in_flight_max: limit });
            }
            return Ok(Turn::Over);
        }
        let next = slot.state.next_moment().map_or(ask.deadline, |next| next.min(ask.deadline));
        let pause = next.saturating_sub(now.time).max(1).unsigned_abs();
        Ok(Turn::Wait(Duration::from_millis(pause)))
    }

    fn take(
        &self,
        engine: &mut Engine,
        max: usize,
        now: Now,
        lease_ms: i64,
        attempt_id: Option<&str>,
    ) -> Result<Vec<ReceivedMessage>> {
        let shared = &self.shared;
        let until = now.time.saturating_add(lease_ms);
        let epoch = shared.journal.epoch();
        let lease = |back| Lease { time: now.time, until, epoch, session: 0, back };
        if let Some(id) = attempt_id {
            let state = &engine.slot(self.id)?.state;
            if let Some(marks) = state.plan_repeat(id) {
                let (marks, lease) = (marks.to_vec(), lease(state.next_sequence));
                let fact = Fact::Received { lease, attempt: id, marks: Cow::Borrowed(&marks) };
                shared.commit_lease(engine, &mut Entry { queue: self.id, fact }, now)?;
                return Ok(taken(&engine.slot(self.id)?.state, &marks));
            }
        }
        loop {
            let durable = shared.durable();
            let marks = std::mem::take(&mut engine.marks);
            let slot = engine.slot(self.id)?;
            while slot.unsynced.pop_front_if(|at| *at < durable).is_some() {}
            let hidden_from = slot.unsynced.front().copied().unwrap_or(u64::MAX);
            let visible = |at: u64| at < hidden_from || at & crate::location::COLD != 0;
            let back = slot.state.next_sequence;
            let plan = slot.state.plan_receive(max, visible, marks);
            let cleared = plan.exhausted.is_empty() && plan.park.is_empty();
            if !cleared && shared.clear_exhausted(engine, self.id, &plan, now)? {
                continue;
            }
            if plan.take.is_empty() {
                engine.marks = plan.take;
                return Ok(Vec::new());
            }
            let fact = Fact::Received {
                lease: lease(back),
                attempt: attempt_id.unwrap_or_default(),
                marks: Cow::Borrowed(&plan.take),
            };
            shared.commit_lease(engine, &mut Entry { queue: self.id, fact }, now)?;
            let slot = engine.slot(self.id)?;
            slot.tally.received += plan.take.len() as u64;
            let taken = taken(&slot.state, &plan.take);
            engine.marks = plan.take;
            return Ok(taken);
        }
    }

    /// Reads the bodies of messages that were taken. Those that are gone by now are left out.
    pub(crate) fn read_bodies(
        &self,
        mut messages: Vec<ReceivedMessage>,
    ) -> Result<Vec<ReceivedMessage>> {
        let shared = &self.shared;
        let read = match &messages[..] {
            // Read below, by itself.
            [_] => Vec::new(),
            many => {
                let unread = many.iter().filter(|message| message.entry.is_empty());
                let missing: Vec<u64> = unread.map(|message| message.location).collect();
                // If one of them cannot be read, each is tried by itself.
                shared.read_all(&missing).unwrap_or_default()
            }
        };
        let mut read = read.into_iter();
        let mut unreadable = Vec::new();
        messages.retain_mut(|message| {
            let stored = &mut message.stored;
            let (sequence, location) = (stored.sequence, stored.location);
            if stored.entry.is_empty() {
                stored.entry = read.next().flatten().unwrap_or_default();
            }
            if stored.entry.is_empty() {
                // It may be carried away, or deleted, between the receive and the reading.
                match shared.read_message(self.id, sequence, location, &mut stored.entry) {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(error) => {
                        unreadable.push(self.unreadable(sequence, error));
                        return false;
                    }
                }
            }
            let is_read = stored.decode();
            if !is_read {
                unreadable.push(self.unreadable(sequence, without_message(location)));
            }
            is_read
        });
        if unreadable.is_empty() {
            return Ok(messages);
        }
        let mut engine = shared.lock();
        let slot = engine.slot(self.id)?;
        slot.tally.unreadable += unreadable.len() as u64;
        // What comes behind it in its group must not overtake it.
        let fails = messages.is_empty() || slot.state.config.fifo;
        match unreadable.pop().filter(|_| fails) {
            Some(error) => Err(error),
            None => Ok(messages),
        }
    }

    fn unreadable(&self, sequence: u64, error: Error) -> Error {
        match error {
            Error::Closed | Error::QueueDoesNotExist { .. } => error,
            error => {
                let id = MessageId { queue: self.id, sequence };
                Error::Unreadable { id, source: Box::new(error) }
            }
        }
    }

    /// A message with what its queue knows of it, its body read.
    pub(crate) fn stored(&self, sequence: u64) -> Result<StoredMessage> {
        let missing = || Error::MessageDoesNotExist { id: MessageId { queue: self.id, sequence } };
        let (location, past, state) =
            self.with_state(|state| facts_about(state, sequence))?.ok_or_else(missing)?;
        let mut stored = StoredMessage::unread(self.id, sequence, location, past, state);
        let read = self.shared.read_message(self.id, sequence, location, &mut stored.entry);
        if !read.map_err(|error| self.unreadable(sequence, error))? {
            return Err(missing());
        }
        if !stored.decode() {
            return Err(self.unreadable(sequence, without_message(location)));
        }
        Ok(stored)
    }
}

/// What is known of messages that have just been received.
fn taken(state: &QueueState, marks: &[Mark]) -> Vec<ReceivedMessage> {
    let mut taken = Vec::with_capacity(marks.len());
    for mark in marks {
        let Some(id) = state.held.find(mark.sequence) else { continue };
        let Some(details) = state.held.details(id) else { continue };
        let Held { sequence, location, at: until, .. } = state.held.get(id);
        let place = MessageState::InFlight { until };
        let receipt = Receipt {
            queue: state.id,
            sequence,
            epoch: details.epoch,
            generation: details.receives,
            session: details.session,
        };
        let stored = StoredMessage::unread(state.id, sequence, location, past_of(details), place);
        taken.push(ReceivedMessage { stored, receipt });
    }
    taken
}

fn without_message(location: u64) -> Error {
    Error::Corrupt { offset: location, what: "a message's entry without a message" }
}

fn facts_about(state: &QueueState, sequence: u64) -> Option<(u64, Past, MessageState)> {
    Some(match state.find(sequence)? {
        Found::InRun(_, item) => (item.location, Past::default(), MessageState::Ready),
        Found::Held(slot) => {
            let held = state.held.get(slot);
            let details = state.held.details(slot);
            let mut past = details.map(past_of).unwrap_or_default();
            if let Some(details) = details.filter(|_| held.state == State::Dead)
                && let Ok(reason) = crate::envelope::DeathReason::of(details.death)
            {
                let queue = state.name.clone();
                past.death = Some(crate::envelope::Death { queue, reason, at: details.died_at });
            }
            (held.location, past, MessageState::of(held.state, held.at))
        }
    })
}

#[cfg(test)]
mod tests;
