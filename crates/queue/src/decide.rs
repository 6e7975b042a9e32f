//! What a call would write: decisions from the state and the time alone, which change nothing. What they return is then
//! journaled and applied.

use std::sync::Arc;

use crate::config::{OnFailure, Overflow};
use crate::dedup;
use crate::entry::Mark;
use crate::envelope::{Attributes, Deduplication, Envelope};
use crate::error::{Error, Result};
use crate::held::{Held, SlotId, State};
use crate::limits::{CENTURY_MS, Limit, duration, within};
use crate::message::{Message, MessageId};
use crate::ready::{Candidate, LaneId, Order};
use crate::receipt::Receipt;
use crate::standing::Standing;
use crate::state::{Found, QueueState};

/// The time of a call: on the queues' clock and on the wall, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) time: i64,
    pub(crate) wall: i64,
}

/// What a send does.
#[derive(Debug)]
pub(crate) enum SendPlan<'a> {
    /// It writes this.
    New(Envelope<'a>),
    /// Nothing: the queue remembers the message that came with this id.
    Duplicate { sequence: u64 },
}

/// What a receive does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceivePlan {
    /// It gets these.
    pub(crate) take: Vec<Mark>,
    /// These were received too often and leave first.
    pub(crate) exhausted: Vec<u64>,
    /// These groups stand still from now on.
    pub(crate) park: Vec<Arc<str>>,
}

/// What a message that may not fit does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// It is refused.
    Full,
    /// These go first, oldest first.
    After(Vec<u64>),
}

impl QueueState {
    /// Checks `message` and makes the envelope that is to be journaled. `buffer` is for its attributes.
    pub(crate) fn plan_send<'a>(
        &self,
        now: Now,
        message: &Message<'a>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<SendPlan<'a>> {
        message.check()?;
        within(Limit::MessageBytes, message.bytes(), 1, self.config.message_bytes_max)?;
        within(Limit::MessageBytes, message.body.len() as u64, 1, self.config.message_bytes_max)?;
        let delay = match message.delay {
            Some(delay) => duration(Limit::Delay, delay, 0, CENTURY_MS)?,
            None => self.config.delay_ms,
        };
        let mut due = now.time.saturating_add(delay);
        let deduplication = if self.config.fifo {
            let delay = if message.delay.is_some_and(|delay| !delay.is_zero()) {
                return Err(Error::Unsupported {
                    what: "a delay of its own for a message of a FIFO queue",
                });
            } else {
                self.config.delay_ms
            };
            // Messages of a group become receivable in order, even where the queue's delay was shortened.
            due = now.time.saturating_add(delay).max(if delay > 0 { self.last_due() } else { 0 });
            self.plan_fifo(message)?
        } else if message.deduplication_id.is_some() {
            return Err(Error::Unsupported { what: "a deduplication id on a standard queue" });
        } else {
            Deduplication::None
        };
        if let Some(key) = self.memory_key(message.group, &deduplication)
            && let Some(sequence) = self.memories.find(&key, now.time)
        {
            return Ok(SendPlan::Duplicate { sequence });
        }
        let expires = match message.time_to_live {
            Some(ttl) => now.time.saturating_add(duration(Limit::TimeToLive, ttl, 1, CENTURY_MS)?),
            None => 0,
        };
        Ok(SendPlan::New(Envelope {
            wall: now.wall,
            priority: message.priority.unwrap_or(0),
            group: message.group,
            deduplication,
            due: due.max(now.time),
            expires,
            attributes: Attributes::encode(message.attributes, buffer),
            trace: message.trace_header,
            ..Envelope::plain(now.time, message.body)
        }))
    }

    fn plan_fifo<'a>(&self, message: &Message<'a>) -> Result<Deduplication<'a>> {
        if message.group.is_none() {
            return Err(Error::Missing { what: "the group of a message of a FIFO queue" });
        }
        if message.priority.is_some_and(|priority| priority != 0) {
            return Err(Error::Unsupported { what: "a priority in a FIFO queue" });
        }
        match message.deduplication_id {
            Some(id) => Ok(Deduplication::Id(id)),
            None if self.config.content_deduplication => {
                Ok(Deduplication::Content(dedup::content(message.body)))
            }
            None => Err(Error::Missing {
                what: "a deduplication id, in a FIFO queue without content deduplication",
            }),
        }
    }

    /// Whether a message of `size` bytes fits, beside `more` messages with `more_bytes` of the same batch.
    pub(crate) fn plan_room(&self, size: u32, more: u64, more_bytes: u64) -> Room {
        let (messages_max, bytes_max) = (self.config.messages_max, self.config.bytes_max);
        if messages_max == 0 && bytes_max == 0 {
            return Room::Enough;
        }
        let counts = &self.counts;
        let messages = counts.ready + counts.delayed + more + 1;
        let bytes = counts.waiting_bytes + more_bytes + u64::from(size);
        let over = |messages: u64, bytes: u64| {
            (messages_max > 0 && messages > messages_max) || (bytes_max > 0 && bytes > bytes_max)
        };
        if !over(messages, bytes) {
            return Room::Enough;
        }
        if self.config.overflow == Overflow::Reject || over(1, u64::from(size)) {
            return Room::Full;
        }
        let (mut messages, mut bytes, mut gone) = (messages, bytes, Vec::new());
        for (sequence, size) in self.oldest_waiting() {
            if !over(messages, bytes) {
                break;
            }
            messages -= 1;
            bytes -= u64::from(size);
            gone.push(sequence);
        }
        if over(messages, bytes) { Room::Full } else { Room::After(gone) }
    }

    /// The waiting messages with their sizes: those in line by age, then the others.
    fn oldest_waiting(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let line = self
            .ready
            .lanes_by_age()
            .flat_map(|lane| lane.run.iter())
            .map(|item| (item.sequence, item.size));
        let mut apart: Vec<(u64, u32)> = self
            .held
            .in_state(State::Ready)
            .chain(self.held.in_state(State::Delayed))
            .map(|slot| self.held.get(slot))
            .map(|held| (held.sequence, held.size))
            .collect();
        apart.sort_unstable();
        let mut line = line.peekable();
        let mut apart = apart.into_iter().peekable();
        std::iter::from_fn(move || match (line.peek(), apart.peek()) {
            (Some((first, _)), Some((second, _))) if second < first => apart.next(),
            (None, _) => apart.next(),
            _ => line.next(),
        })
    }

    /// The messages that a receive of at most `max` gets. `is_visible` says of a location whether what lies there may be
    /// shown yet; `take` is where they are put.
    pub(crate) fn plan_receive(
        &self,
        max: usize,
        is_visible: impl Fn(u64) -> bool,
        mut take: Vec<Mark>,
    ) -> ReceivePlan {
        take.clear();
        let room = self.config.in_flight_max.saturating_sub(self.ready.in_flight());
        let max = max.min(usize::try_from(room).unwrap_or(usize::MAX));
        if let Some(run) = self.ready.only_run() {
            let visible = run.iter().take(max).take_while(|item| is_visible(item.location));
            take.extend(visible.map(|item| Mark { sequence: item.sequence, generation: 1 }));
            return ReceivePlan { take, ..ReceivePlan::default() };
        }
        let mut plan = ReceivePlan { take, ..ReceivePlan::default() };
        let mut order = Order::of(&self.ready);
        while plan.take.len() < max
            && let Some((lane, candidate)) = order.next()
        {
            match candidate {
                Candidate::Fresh(item) if !is_visible(item.location) => order.skip_lane(lane),
                Candidate::Fresh(item) => {
                    plan.take.push(Mark { sequence: item.sequence, generation: 1 });
                    order.take(lane);
                }
                Candidate::Returned { sequence, slot } if self.is_exhausted(slot) => {
                    self.plan_exhausted(lane, sequence, &mut plan, &mut order);
                }
                Candidate::Returned { slot, .. } if !is_visible(self.held.get(slot).location) => {
                    order.skip_lane(lane)
                }
                Candidate::Returned { sequence, slot } => {
                    let receives = self.held.details(slot).map_or(0, |details| details.receives);
                    plan.take.push(Mark { sequence, generation: receives.saturating_add(1) });
                    order.take(lane);
                }
            }
        }
        plan
    }

    fn plan_exhausted(
        &self,
        lane: LaneId,
        sequence: u64,
        plan: &mut ReceivePlan,
        order: &mut Order<'_>,
    ) {
        let group = self
            .ready
            .group_of(lane)
            .filter(|_| self.config.fifo && self.config.on_failure == OnFailure::Park);
        match group {
            Some(group) => {
                plan.park.push(Arc::clone(&group.name));
                order.skip_lane(lane);
            }
            None => plan.exhausted.push(sequence),
        }
    }

    /// The messages that a receive with this attempt id got before, if none of them was touched since.
    pub(crate) fn plan_repeat(&self, attempt: &str) -> Option<&[Mark]> {
        let attempted = self.recent.find(attempt)?;
        let untouched = |mark: &Mark| {
            self.held.find(mark.sequence).is_some_and(|slot| {
                let held = self.held.get(slot);
                let generation = self.held.details(slot).map(|details| details.receives);
                held.state == State::InFlight
                    && held.at == attempted.until
                    && generation == Some(mark.generation)
            })
        };
        attempted.marks.iter().all(untouched).then_some(&attempted.marks)
    }

    /// The held message that `receipt` is the latest receipt of; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error::ReceiptHandleIsInvalid`]: of another queue. [`Error::ReceiptHandleExpired`]: received again since.
    fn latest(&self, receipt: &Receipt) -> Result<Option<(SlotId, Held)>> {
        if receipt.queue != self.id || receipt.generation == 0 {
            return Err(Error::ReceiptHandleIsInvalid);
        }
        let expired = || Error::ReceiptHandleExpired { id: receipt.place() };
        match self.find(receipt.sequence) {
            None => Ok(None),
            Some(Found::InRun(..)) => Err(expired()),
            Some(Found::Held(slot)) => {
                let given = (receipt.generation, receipt.epoch, receipt.session);
                let held = self.held.get(slot);
                let details =
                    self.held.details(slot).filter(|d| (d.receives, d.epoch, d.session) == given);
                match details {
                    Some(_) if held.state != State::Dead => Ok(Some((slot, held))),
                    _ => Err(expired()),
                }
            }
        }
    }

    /// What a delete with `receipt` marks; `None`: the message is gone already, which is as good.
    pub(crate) fn plan_delete(&self, receipt: &Receipt) -> Result<Option<Mark>> {
        let Some((_, held)) = self.latest(receipt)? else { return Ok(None) };
        if self.config.fifo && held.state != State::InFlight {
            return Err(Error::ReceiptHandleExpired { id: receipt.place() });
        }
        Ok(Some(Mark { sequence: receipt.sequence, generation: receipt.generation }))
    }

    /// What a change of visibility to `until` marks. On a standard queue it also works after the lease is over, as long as
    /// nobody has received the message again.
    pub(crate) fn plan_visibility(
        &self,
        receipt: &Receipt,
        now: Now,
        timeout_ms: i64,
    ) -> Result<Mark> {
        let Some((slot, held)) = self.latest(receipt)? else {
            return Err(Error::MessageDoesNotExist { id: receipt.place() });
        };
        match held.state {
            State::InFlight => {}
            State::Ready if !self.config.fifo => {}
            State::Delayed if !self.config.fifo => {
                return Err(Error::MessageNotInflight { id: receipt.place() });
            }
            _ => return Err(Error::ReceiptHandleExpired { id: receipt.place() }),
        }
        let received_at = self.held.details(slot).map_or(now.time, |details| details.received_at);
        let passed = now.time.saturating_sub(received_at);
        let left = u64::try_from(self.config.lease_max_ms.saturating_sub(passed)).unwrap_or(0);
        within(Limit::VisibilityTimeout, timeout_ms.unsigned_abs(), 0, left)?;
        Ok(Mark { sequence: receipt.sequence, generation: receipt.generation })
    }

    /// The message that a nack, release or reject with `receipt` gives back, and how often it has failed.
    pub(crate) fn plan_return(&self, receipt: &Receipt) -> Result<(Mark, u32)> {
        let Some((slot, held)) = self.latest(receipt)? else {
            return Err(Error::MessageDoesNotExist { id: receipt.place() });
        };
        if held.state != State::InFlight {
            return Err(if self.config.fifo {
                Error::ReceiptHandleExpired { id: receipt.place() }
            } else {
                Error::MessageNotInflight { id: receipt.place() }
            });
        }
        let failed = self.held.details(slot).map_or(0, |details| details.failed);
        Ok((Mark { sequence: receipt.sequence, generation: receipt.generation }, failed))
    }

    /// A message that waits: in line, delayed, or ready again.
    pub(crate) fn plan_waiting(&self, sequence: u64) -> Result<Found> {
        let id = MessageId { queue: self.id, sequence };
        match self.find(sequence) {
            None => Err(Error::MessageDoesNotExist { id }),
            Some(Found::Held(slot))
                if matches!(self.held.get(slot).state, State::InFlight | State::Dead) =>
            {
                Err(Error::Unsupported { what: "changing a message that is in flight or dead" })
            }
            Some(found) => Ok(found),
        }
    }

    /// How a message that waits stands when it is edited and can be received from `due` on.
    pub(crate) fn plan_edit(&self, found: Found, due: i64, now: Now) -> Standing {
        let slot = match found {
            Found::InRun(_, item) if due <= now.time => {
                let since = item.since;
                return Standing { state: None, at: 0, since, holding: false, details: None };
            }
            Found::InRun(..) => {
                let state = Some(State::Delayed);
                return Standing { state, at: due, since: due, holding: false, details: None };
            }
            Found::Held(slot) => slot,
        };
        let Held { at, state, holding, .. } = self.held.get(slot);
        let details = self.held.details(slot).cloned().map(Box::new);
        let since = details.as_ref().map_or(at, |details| details.since).min(now.time);
        match details {
            _ if due > now.time => {
                Standing { state: Some(State::Delayed), at: due, since: due, holding, details }
            }
            None => Standing { state: None, at: 0, since, holding: false, details: None },
            Some(details) if state == State::Delayed => {
                let expiry = self.expiry(since, details.expires_at);
                let details = Some(details);
                Standing { state: Some(State::Ready), at: expiry, since, holding: false, details }
            }
            details => Standing { state: Some(State::Ready), at, since, holding: false, details },
        }
    }

    /// When the oldest message that could be received now could first be; `None` if there is none.
    pub(crate) fn oldest_claimable(&self) -> Option<i64> {
        let heads = self.ready.heads().into_iter().map(|lane| {
            let lane = self.ready.lane(lane);
            let line = lane.run.front().map(|item| item.since);
            let returned =
                lane.returned.first_key_value().and_then(|(_, slot)| self.held.details(*slot));
            line.into_iter().chain(returned.map(|details| details.since)).min()
        });
        heads.flatten().min()
    }
}
