//! Sending.

use logmill_storage::Durability;

use super::Queue;
use crate::config::Overflow;
use crate::decide::{Room, SendPlan};
use crate::dedup::Key;
use crate::engine::Engine;
use crate::entry::{Entry, Fact};
use crate::envelope::{DeathReason, Envelope};
use crate::error::{Error, Result};
use crate::limits::{self, Limit, within};
use crate::message::{Message, MessageId};
use crate::shared::Level;
use crate::state::{Counts, QueueState};

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its id for its whole life.
    pub id: MessageId,
    /// Its number in its queue: larger than that of every message sent before.
    pub sequence: u64,
    /// It was not sent again: the FIFO queue remembers a message with this deduplication id, and this is its id.
    pub duplicate: bool,
}

/// What has to hold before a call may answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    pub(crate) level: Level,
    /// Messages that were sent are to be shown then.
    pub(crate) shows: bool,
}

impl Owed {
    pub(crate) const fn settled(level: Level) -> Owed {
        Owed { level, shows: false }
    }
}

impl Queue {
    /// Sends a message.
    ///
    /// With [`Durability::Sync`], `Ok` means that it survives power loss, with the others that it survives kill -9. It
    /// can be received when this returns, unless it is delayed.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::InvalidAttribute`], [`Error::InvalidId`], [`Error::Unsupported`],
    /// [`Error::Missing`], [`Error::QueueFull`]: nothing was written.
    /// # Cost
    /// A copy into the journal; with `Sync` one sync, shared by all who wait at the time.
    #[inline]
    pub fn send(&self, message: &Message<'_>) -> Result<Sent> {
        self.send_as(message, None)
    }

    /// As [`send`](Queue::send), with another durability than the queue's.
    ///
    /// # Errors
    /// As [`send`](Queue::send).
    pub fn send_with(&self, message: &Message<'_>, durability: Durability) -> Result<Sent> {
        self.send_as(message, Some(durability))
    }

    fn send_as(&self, message: &Message<'_>, durability: Option<Durability>) -> Result<Sent> {
        let (sent, owed) = self.begin_send(message, durability)?;
        self.settle(owed)?;
        Ok(sent)
    }

    /// Journals and applies the message, and says what has to hold before the call may answer.
    pub(crate) fn begin_send(
        &self,
        message: &Message<'_>,
        durability: Option<Durability>,
    ) -> Result<(Sent, Owed)> {
        let shared = &self.shared;
        let mut buffer = Vec::new();
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let level = shared.level(durability, slot.state.config.durability).at(now);
        let sequence = slot.state.next_sequence;
        let envelope = match slot.state.plan_send(now, message, &mut buffer)? {
            SendPlan::New(envelope) => envelope,
            SendPlan::Duplicate { sequence } => {
                slot.tally.duplicates += 1;
                return Ok((self.sent(sequence, true), Owed::settled(level)));
            }
        };
        let expiry = expiry_of(&slot.state, &envelope);
        if slot.state.config.messages_max | slot.state.config.bytes_max != 0 {
            self.make_room(&mut engine, &envelope, 0, 0)?;
        }
        let entry = Entry { queue: self.id, fact: Fact::Sent { sequence, envelope } };
        let at = shared.commit(&mut engine, &[entry], level)?;
        if expiry < engine.keeper_at {
            shared.wake_keeper(&mut engine, expiry);
        }
        let slot = engine.slot(self.id)?;
        slot.tally.sent += 1;
        if level.waits() {
            slot.unsynced.push_back(at);
        } else if slot.waiters > 0 {
            slot.signal.notify_one();
        }
        Ok((self.sent(sequence, false), Owed { level, shows: level.waits() }))
    }

    /// Sends up to 1,000 messages; each has its own result, in order. Those that can be sent are sent in one batch.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]: none or too many messages, or more than 64 MiB; nothing was sent.
    pub fn send_batch(&self, messages: &[Message<'_>]) -> Result<Vec<Result<Sent>>> {
        self.send_batch_as(messages, None)
    }

    /// As [`send_batch`](Queue::send_batch), with another durability than the queue's.
    ///
    /// # Errors
    /// As [`send_batch`](Queue::send_batch).
    pub fn send_batch_with(
        &self,
        messages: &[Message<'_>],
        durability: Durability,
    ) -> Result<Vec<Result<Sent>>> {
        self.send_batch_as(messages, Some(durability))
    }

    fn send_batch_as(
        &self,
        messages: &[Message<'_>],
        durability: Option<Durability>,
    ) -> Result<Vec<Result<Sent>>> {
        let (results, owed) = self.begin_send_batch(messages, durability)?;
        self.settle(owed)?;
        Ok(results)
    }

    pub(crate) fn begin_send_batch(
        &self,
        messages: &[Message<'_>],
        durability: Option<Durability>,
    ) -> Result<(Vec<Result<Sent>>, Owed)> {
        within(Limit::BatchEntries, messages.len() as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        let bytes = messages.iter().map(Message::bytes).sum();
        within(Limit::BatchBytes, bytes, 0, limits::BATCH_BYTES_MAX)?;
        let shared = &self.shared;
        let mut buffers = vec![Vec::new(); messages.len()];
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let level = shared.level(durability, slot.state.config.durability).at(now);
        let is_limited = slot.state.config.messages_max | slot.state.config.bytes_max != 0;
        let mut next = slot.state.next_sequence;
        let mut results = Vec::with_capacity(messages.len());
        let mut entries = Vec::with_capacity(messages.len());
        // Ids of this batch, which the queue does not know yet.
        let mut ids: Vec<(Key, u64)> = Vec::new();
        let (mut new, mut new_bytes) = (0, 0);
        let mut expiry = i64::MAX;
        for (message, buffer) in messages.iter().zip(&mut buffers) {
            let state = &engine.slot(self.id)?.state;
            let envelope = match state.plan_send(now, message, buffer) {
                Ok(SendPlan::New(envelope)) => envelope,
                Ok(SendPlan::Duplicate { sequence }) => {
                    engine.slot(self.id)?.tally.duplicates += 1;
                    results.push(Ok(self.sent(sequence, true)));
                    continue;
                }
                Err(error) => {
                    results.push(Err(error));
                    continue;
                }
            };
            if let Some(key) = state.memory_key(envelope.group, &envelope.deduplication) {
                if let Some((_, sequence)) = ids.iter().find(|(other, _)| *other == key) {
                    let duplicate = self.sent(*sequence, true);
                    engine.slot(self.id)?.tally.duplicates += 1;
                    results.push(Ok(duplicate));
                    continue;
                }
                ids.push((key, next));
            }
            expiry = expiry.min(expiry_of(state, &envelope));
            if is_limited && let Err(error) = self.make_room(&mut engine, &envelope, new, new_bytes)
            {
                ids.retain(|(_, sequence)| *sequence != next);
                results.push(Err(error));
                continue;
            }
            new += 1;
            new_bytes += u64::from(envelope.size());
            results.push(Ok(self.sent(next, false)));
            entries.push(Entry { queue: self.id, fact: Fact::Sent { sequence: next, envelope } });
            next += 1;
        }
        if entries.is_empty() {
            return Ok((results, Owed::settled(level)));
        }
        let at = shared.commit(&mut engine, &entries, level)?;
        if expiry < engine.keeper_at {
            shared.wake_keeper(&mut engine, expiry);
        }
        let slot = engine.slot(self.id)?;
        slot.tally.sent += entries.len() as u64;
        if level.waits() {
            slot.unsynced.push_back(at);
        } else if slot.waiters > 0 {
            slot.signal.notify_all();
        }
        Ok((results, Owed { level, shows: level.waits() }))
    }

    fn sent(&self, sequence: u64, duplicate: bool) -> Sent {
        Sent { id: MessageId { queue: self.id, sequence }, sequence, duplicate }
    }

    /// Waits until what was begun holds.
    fn settle(&self, owed: Owed) -> Result<()> {
        self.shared.settle(owed.level)?;
        if owed.shows {
            self.shared.show(self.id);
        }
        Ok(())
    }

    /// Sees to it that the message fits, by the queue's overflow policy.
    fn make_room(
        &self,
        engine: &mut Engine,
        envelope: &Envelope<'_>,
        more: u64,
        more_bytes: u64,
    ) -> Result<()> {
        let state = &engine.slot(self.id)?.state;
        let gone = match state.plan_room(envelope.size(), more, more_bytes) {
            Room::Enough => return Ok(()),
            Room::Full => {
                let Counts { ready, delayed, waiting_bytes, .. } = state.counts;
                return Err(Error::QueueFull { messages: ready + delayed, bytes: waiting_bytes });
            }
            Room::After(gone) => gone,
        };
        let dead = state.config.overflow == Overflow::DeadLetter;
        self.shared.put_away(engine, self.id, &gone, DeathReason::Overflow, dead, envelope.time)
    }
}

fn expiry_of(state: &QueueState, envelope: &Envelope<'_>) -> i64 {
    state.expiry(envelope.due.max(envelope.time), envelope.expires)
}
