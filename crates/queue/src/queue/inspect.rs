//! Looking at messages without receiving them, and changing those that wait.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::Queue;
use crate::entry::{Entry, Fact, Gone, message_in};
use crate::envelope::Attributes;
use crate::error::{Error, Result};
use crate::failing::marks;
use crate::held::State;
use crate::limits::{self, CENTURY_MS, Limit, within};
use crate::message::{Attribute, Message, MessageId};
use crate::ready::{Candidate, Order};
use crate::shared::Level;
use crate::state::{Found, QueueState};
use crate::stored::StoredMessage;

/// A part of a queue's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Section {
    /// Those that can be received, or as soon as their group is free.
    Ready,
    /// Those that can be received later.
    Delayed,
    /// Those that a consumer has.
    InFlight,
    /// Those that failed for good and stayed.
    Dead,
}

/// What to change of a message that waits. What is not set stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit<'a> {
    body: Option<&'a [u8]>,
    attributes: Option<&'a [Attribute<'a>]>,
    priority: Option<u8>,
    delay: Option<Duration>,
}

impl<'a> Edit<'a> {
    /// No change.
    pub const fn new() -> Edit<'a> {
        Edit { body: None, attributes: None, priority: None, delay: None }
    }

    /// Another body.
    pub const fn body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self
    }

    /// Other attributes.
    pub const fn attributes(mut self, attributes: &'a [Attribute<'a>]) -> Self {
        self.attributes = Some(attributes);
        self
    }

    /// Another priority. Standard queues only.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Receivable this long from now. Standard queues only.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }
}

impl Queue {
    /// The next messages that a receive would get, in that order, without receiving them: at most `max` (1 to 1,000).
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn peek(&self, max: usize) -> Result<Vec<StoredMessage>> {
        within(Limit::ReceiveMax, max as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        let sequences = self.with_state(|state| {
            let mut order = Order::of(&state.ready);
            let mut sequences = Vec::new();
            while sequences.len() < max
                && let Some((_, candidate)) = order.next()
            {
                let exhausted = matches!(candidate, Candidate::Returned { slot, .. } if state.is_exhausted(slot));
                if !exhausted {
                    sequences.push(candidate.sequence());
                }
            }
            sequences
        })?;
        self.read_stored(sequences)
    }

    /// The messages of a section whose sequence is above `after`, in order of their sequence: at most `max` (1 to 1,000).
    /// Begin with 0, and go on with the last one's sequence.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    /// # Cost
    /// A look at every message that is not in line.
    pub fn page(&self, section: Section, after: u64, max: usize) -> Result<Vec<StoredMessage>> {
        within(Limit::ReceiveMax, max as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        let sequences = self.with_state(|state| sequences_of(state, section, after, max))?;
        self.read_stored(sequences)
    }

    fn read_stored(&self, sequences: Vec<u64>) -> Result<Vec<StoredMessage>> {
        let mut messages = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            match self.stored(sequence) {
                // It went in the meantime.
                Err(Error::MessageDoesNotExist { .. }) => {}
                other => messages.push(other?),
            }
        }
        Ok(messages)
    }

    /// The message called `id`, in whatever state it is here.
    ///
    /// # Errors
    /// [`Error::MessageDoesNotExist`].
    /// # Cost
    /// A look-up for messages that were sent to this queue; for those that were moved here, reading until it is found.
    pub fn find(&self, id: MessageId) -> Result<StoredMessage> {
        self.stored(self.sequence_of(id)?)
    }

    /// Changes a message that waits (ready or delayed). It keeps its id, its place and its past.
    ///
    /// # Errors
    /// [`Error::MessageDoesNotExist`]; [`Error::Unsupported`]: it is in flight or dead, or a priority or delay was given
    /// in a FIFO queue; and those of [`send`](Queue::send) for the changed message: nothing was changed.
    pub fn edit(&self, id: MessageId, edit: &Edit<'_>) -> Result<()> {
        self.begin_edit(id, edit)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_edit(&self, id: MessageId, edit: &Edit<'_>) -> Result<()> {
        let sequence = self.sequence_of(id)?;
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        engine.slot(self.id)?;
        shared.expire(&mut engine, self.id, now)?;
        let state = &engine.slot(self.id)?.state;
        let found = state.plan_waiting(sequence)?;
        let (at, due) = match found {
            Found::InRun(_, item) => (item.location, now.time),
            Found::Held(slot) => {
                let held = state.held.get(slot);
                (held.location, if held.state == State::Delayed { held.at } else { now.time })
            }
        };
        let due = match edit.delay {
            Some(delay) => now.time + limits::duration(Limit::Delay, delay, 0, CENTURY_MS)?,
            None => due,
        };
        if state.config.fifo && (edit.priority.is_some() || edit.delay.is_some()) {
            return Err(Error::Unsupported {
                what: "a priority or a delay of its own in a FIFO queue",
            });
        }
        let standing = state.plan_edit(found, due, now);
        let bytes_max = state.config.message_bytes_max;
        let bytes = shared.read_locked(&engine, at)?.ok_or(Error::MessageDoesNotExist { id })?;
        let mut envelope =
            message_in(&bytes).map_err(|what| Error::Corrupt { offset: at, what: what.0 })?;
        let mut buffer = Vec::new();
        let attributes = match edit.attributes {
            Some(attributes) => Cow::Borrowed(attributes),
            None => Cow::Owned(envelope.attributes.decode().unwrap_or_default()),
        };
        envelope.body = edit.body.unwrap_or(envelope.body);
        envelope.priority = edit.priority.unwrap_or(envelope.priority);
        let whole = Message::new(envelope.body).attributes(&attributes);
        whole.check()?;
        within(Limit::MessageBytes, whole.bytes(), 1, bytes_max)?;
        within(Limit::MessageBytes, envelope.body.len() as u64, 1, bytes_max)?;
        envelope.attributes = Attributes::encode(&attributes, &mut buffer);
        let fact = Fact::Edited { sequence, time: now.time, standing, envelope };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)
    }

    /// Deletes a message that waits or is dead, unread, durably.
    ///
    /// # Errors
    /// [`Error::MessageDoesNotExist`]; [`Error::Unsupported`]: it is in flight.
    pub fn cancel(&self, id: MessageId) -> Result<()> {
        self.begin_cancel(id)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_cancel(&self, id: MessageId) -> Result<()> {
        let sequence = self.sequence_of(id)?;
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        engine.slot(self.id)?.state.advance(now.time);
        let state = &engine.slot(self.id)?.state;
        let in_flight = |slot| state.held.get(slot).state == State::InFlight;
        match state.find(sequence) {
            None => return Err(Error::MessageDoesNotExist { id }),
            Some(Found::Held(slot)) if in_flight(slot) => {
                return Err(Error::Unsupported { what: "cancelling a message that is in flight" });
            }
            Some(_) => {}
        }
        let fact =
            Fact::Deleted { time: now.time, reason: Gone::Cancelled, marks: marks(&[sequence]) };
        let level = Level::sync().with_spare();
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], level)?;
        self.changed(&mut engine)
    }

    /// Makes a delayed message receivable now.
    ///
    /// # Errors
    /// [`Error::MessageDoesNotExist`]; [`Error::Unsupported`]: it is in flight or dead, or the queue is FIFO.
    pub fn fire_now(&self, id: MessageId) -> Result<()> {
        self.begin_fire_now(id)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_fire_now(&self, id: MessageId) -> Result<()> {
        let sequence = self.sequence_of(id)?;
        let shared = &self.shared;
        let mut engine = shared.lock();
        let time = shared.now().time;
        let state = &mut engine.slot(self.id)?.state;
        state.advance(time);
        state.plan_waiting(sequence)?;
        if state.config.fifo {
            return Err(Error::Unsupported {
                what: "changing when one message of a FIFO queue comes",
            });
        }
        let fact = Fact::Rescheduled { sequence, time, due: time };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)
    }

    /// The sequence here of the message called `id`.
    fn sequence_of(&self, id: MessageId) -> Result<u64> {
        let (is_here, mut all) = self.with_state(|state| {
            // One that was moved away and came back has another sequence than the one in its id.
            let is_here = id.queue == self.id && state.location_of(id.sequence).is_some();
            if is_here || !state.has_strangers {
                return (is_here, Vec::new());
            }
            let held = state
                .held
                .all()
                .map(|slot| state.held.get(slot))
                .map(|held| (held.sequence, held.location));
            let line = state.ready.lanes().flat_map(|(_, lane)| lane.run.iter());
            let line = line.map(|item| (item.sequence, item.location));
            (is_here, held.chain(line).collect::<Vec<_>>())
        })?;
        if is_here {
            return Ok(id.sequence);
        }
        all.sort_unstable_by_key(|(_, at)| *at);
        for some in all.chunks(256) {
            let places: Vec<u64> = some.iter().map(|(_, at)| *at).collect();
            let bodies = self.shared.read_undamaged(&places)?;
            for ((sequence, _), bytes) in some.iter().zip(bodies) {
                if bytes.is_some_and(|bytes| is_called(&bytes, id)) {
                    return Ok(*sequence);
                }
            }
        }
        Err(Error::MessageDoesNotExist { id })
    }
}

fn is_called(entry: &Bytes, id: MessageId) -> bool {
    message_in(entry).is_ok_and(|envelope| envelope.origin == Some(id))
}

fn sequences_of(state: &QueueState, section: Section, after: u64, max: usize) -> Vec<u64> {
    let wanted = match section {
        Section::Ready => State::Ready,
        Section::Delayed => State::Delayed,
        Section::InFlight => State::InFlight,
        Section::Dead => State::Dead,
    };
    let held = state.held.in_state(wanted).map(|slot| state.held.get(slot).sequence);
    let mut sequences: Vec<u64> = held.filter(|sequence| *sequence > after).collect();
    if section == Section::Ready {
        for (_, lane) in state.ready.lanes() {
            sequences.extend(lane.run.iter_from(after + 1).take(max).map(|item| item.sequence));
        }
    }
    sequences.sort_unstable();
    sequences.truncate(max);
    sequences
}
