//! Messages that leave circulation: received too often, rejected, expired, overflowed.

use std::borrow::Cow;

use logmill_storage::Error as StorageError;

use crate::config::OnFailure;
use crate::decide::{Now, ReceivePlan};
use crate::engine::Engine;
use crate::entry::message_in;
use crate::entry::{Entry, Fact, Gone, Mark};
use crate::envelope::{Death, DeathReason, Past};
use crate::error::{Error, Result};
use crate::held::{Attempt, Outcome, State};
use crate::queue::past_of;
use crate::shared::{Level, Shared};
use crate::state::{Found, QueueState};

/// Messages that are put away in one batch, and, where they move, their bytes beyond the first.
const AT_ONCE: usize = 1000;
const AT_ONCE_BYTES: u64 = 4 << 20;

impl Shared {
    /// Everything below it is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.journal.part(logmill_storage::Part::Hot).durable_offset()
    }

    /// Brings a queue to `now`: ends delays and leases, and takes out what has expired.
    #[inline]
    pub(crate) fn expire(&self, engine: &mut Engine, queue: u32, now: Now) -> Result<()> {
        loop {
            let Some(slot) = engine.slots.get_mut(&queue) else { return Ok(()) };
            slot.state.advance(now.time);
            if !slot.state.has_expired() || self.dir.is_read_only() {
                return Ok(());
            }
            let expired = slot.state.expired(AT_ONCE);
            let keep = slot.state.config.expired_to_dead_letter;
            let (dead, alive): (Vec<_>, Vec<_>) = expired.iter().partition(|expired| expired.dead);
            let sequences = |list: Vec<&crate::state::Expired>| {
                list.iter().map(|e| e.sequence).collect::<Vec<_>>()
            };
            self.put_away(engine, queue, &sequences(dead), DeathReason::Expired, false, now.time)?;
            self.put_away(engine, queue, &sequences(alive), DeathReason::Expired, keep, now.time)?;
            engine.slot(queue)?.tally.expired += expired.len() as u64;
        }
    }

    /// Takes messages out: deletes them, or keeps them as dead letters.
    pub(crate) fn put_away(
        &self,
        engine: &mut Engine,
        queue: u32,
        sequences: &[u64],
        reason: DeathReason,
        keep: bool,
        time: i64,
    ) -> Result<()> {
        if sequences.is_empty() {
            return Ok(());
        }
        let level = Level::buffered().with_spare();
        if keep {
            return self.dead_letter(engine, queue, sequences, reason, time, "", level).map(|_| ());
        }
        let marks = marks(sequences);
        let gone = match reason {
            DeathReason::Overflow => Gone::Overflow,
            DeathReason::MaxReceives | DeathReason::Rejected | DeathReason::Expired => {
                Gone::Expired
            }
        };
        let entry = Entry { queue, fact: Fact::Deleted { time, reason: gone, marks } };
        match self.commit(engine, std::slice::from_ref(&entry), level) {
            // What has expired is never shown again even if that cannot be noted; a crash expires it once more.
            Err(Error::Storage(StorageError::DiskFull { .. })) if gone == Gone::Expired => {
                engine.apply(&entry, 0);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Moves messages to the queue's dead-letter queue with their whole past, each in one entry, or keeps them here as
    /// dead if there is none, or if they cannot be read. How many that were.
    #[expect(clippy::too_many_arguments, reason = "these are the parts of a dead letter")]
    pub(crate) fn dead_letter(
        &self,
        engine: &mut Engine,
        queue: u32,
        sequences: &[u64],
        reason: DeathReason,
        time: i64,
        text: &str,
        level: Level,
    ) -> Result<usize> {
        let state = &engine.slot(queue)?.state;
        let (name, target) = (state.name.clone(), state.config.dead_letter.clone());
        let target = target.as_deref().and_then(|name| engine.named(name));
        let Some(target) = target.map(|slot| slot.state.id) else {
            let died = |sequence: &u64| {
                let fact = Fact::Died { sequence: *sequence, time, reason, text };
                Entry { queue, fact }
            };
            let entries: Vec<Entry<'_>> = sequences.iter().map(died).collect();
            self.commit(engine, &entries, level)?;
            engine.slot(queue)?.tally.dead_lettered += sequences.len() as u64;
            return Ok(sequences.len());
        };
        let mut moved = 0;
        let mut left = sequences;
        while !left.is_empty() {
            let (first, rest) = left.split_at(at_once(&engine.slot(queue)?.state, left));
            moved +=
                self.move_dead(engine, (queue, &name), target, first, reason, time, text, level)?;
            left = rest;
        }
        Ok(moved)
    }

    /// Moves messages to a dead-letter queue in one batch.
    #[expect(clippy::too_many_arguments, reason = "these are the parts of a dead letter")]
    fn move_dead(
        &self,
        engine: &mut Engine,
        (queue, name): (u32, &str),
        target: u32,
        sequences: &[u64],
        reason: DeathReason,
        time: i64,
        text: &str,
        level: Level,
    ) -> Result<usize> {
        let state = &engine.slot(target)?.state;
        let (next, fifo) = (state.next_sequence, state.config.fifo);
        let mut bodies = Vec::with_capacity(sequences.len());
        // What cannot be read cannot be moved, and must not hold up the others for ever: it is kept here as dead.
        let mut unreadable = Vec::new();
        for sequence in sequences {
            let state = &engine.slot(queue)?.state;
            let (at, past) = match state.find(*sequence) {
                Some(Found::InRun(_, item)) => (item.location, Past::default()),
                Some(Found::Held(slot)) => {
                    let mut past = state.held.details(slot).map(past_of).unwrap_or_default();
                    let held = state.held.get(slot);
                    if held.state == State::InFlight {
                        past.failed += 1;
                        let received_at =
                            state.held.details(slot).map_or(time, |details| details.received_at);
                        past.attempts.push(Attempt {
                            received_at,
                            ended_at: time,
                            outcome: Outcome::Failed,
                        });
                    }
                    if !text.is_empty() {
                        past.last_reason = Some(text.to_owned());
                    }
                    (held.location, past)
                }
                None => continue,
            };
            match self.read_locked(engine, at) {
                Ok(Some(bytes)) if message_in(&bytes).is_ok() => {
                    bodies.push((*sequence, past, bytes));
                }
                Ok(_) | Err(_) => unreadable.push(*sequence),
            }
        }
        let mut entries = Vec::with_capacity(bodies.len());
        for ((sequence, past, bytes), target_sequence) in bodies.iter().zip(next..) {
            let malformed =
                |what: crate::codec::Malformed| Error::Corrupt { offset: *sequence, what: what.0 };
            let mut envelope = message_in(bytes).map_err(malformed)?;
            let own = crate::message::MessageId { queue, sequence: *sequence };
            envelope.origin = Some(envelope.origin.unwrap_or(own));
            let mut whole = Past::joined(envelope.past.take().as_deref(), past);
            whole.death = Some(Death { queue: name.to_owned(), reason, at: time });
            envelope.past = Some(Box::new(whole));
            envelope.due = 0;
            envelope.expires = 0;
            if fifo {
                envelope.time = time;
            }
            let fact = Fact::Moved {
                sequence: *sequence,
                time,
                reason: Some(reason),
                target,
                target_sequence,
                envelope,
            };
            entries.push(Entry { queue, fact });
        }
        entries.extend(unreadable.into_iter().map(|sequence| {
            let fact = Fact::Died { sequence, time, reason, text };
            Entry { queue, fact }
        }));
        if entries.is_empty() {
            return Ok(0);
        }
        self.commit(engine, &entries, level)?;
        let moved = entries.len();
        engine.slot(queue)?.tally.dead_lettered += moved as u64;
        if let Some(slot) = engine.slots.get_mut(&target)
            && slot.waiters > 0
        {
            slot.signal.notify_all();
        }
        Ok(moved)
    }

    /// Takes out what a receive met that was received too often; whether that changed anything.
    pub(crate) fn clear_exhausted(
        &self,
        engine: &mut Engine,
        queue: u32,
        plan: &ReceivePlan,
        now: Now,
    ) -> Result<bool> {
        let level = Level::buffered().with_spare();
        for group in &plan.park {
            let fact = Fact::Parked { time: now.time, group };
            self.commit(engine, &[Entry { queue, fact }], level)?;
        }
        if plan.exhausted.is_empty() {
            return Ok(!plan.park.is_empty());
        }
        let reason = DeathReason::MaxReceives;
        match self.dead_letter(engine, queue, &plan.exhausted, reason, now.time, "", level) {
            // They stay, unreceived, until there is space.
            Err(Error::Storage(StorageError::DiskFull { .. })) => Ok(false),
            other => other.map(|moved| moved > 0),
        }
    }

    /// A consumer has given up a message that it holds.
    pub(crate) fn fail_for_good(
        &self,
        engine: &mut Engine,
        queue: u32,
        mark: Mark,
        now: Now,
        text: &str,
        level: Level,
    ) -> Result<()> {
        let Mark { sequence, generation } = mark;
        let state = &engine.slot(queue)?.state;
        let group = match state.find(sequence) {
            Some(Found::Held(slot)) => state.ready.group_of(state.held.get(slot).lane),
            _ => None,
        };
        let parks = state.config.fifo && state.config.on_failure == OnFailure::Park;
        if let Some(group) = group.filter(|_| parks).map(|group| std::sync::Arc::clone(&group.name))
        {
            let back = Fact::Returned {
                sequence,
                generation,
                time: now.time,
                outcome: Outcome::Failed,
                due: now.time,
                reason: text,
            };
            let parked = Fact::Parked { time: now.time, group: &group };
            let entries = [back, parked].map(|fact| Entry { queue, fact });
            return self.commit(engine, &entries, level).map(|_| ());
        }
        self.dead_letter(engine, queue, &[sequence], DeathReason::Rejected, now.time, text, level)?;
        let slot = engine.slot(queue)?;
        if slot.waiters > 0 {
            slot.signal.notify_all();
        }
        Ok(())
    }
}

/// How many of the first of `sequences` are moved in one batch.
fn at_once(state: &QueueState, sequences: &[u64]) -> usize {
    let mut bytes = 0;
    let fits = |sequence: &&u64| {
        let first = bytes == 0;
        bytes += state.place_of(**sequence).map_or(0, |(_, size)| u64::from(size));
        first || bytes <= AT_ONCE_BYTES
    };
    sequences.iter().take_while(fits).count()
}

/// Marks without a generation, for deletions that need no receipt.
pub(crate) fn marks(sequences: &[u64]) -> Cow<'static, [Mark]> {
    sequences.iter().map(|sequence| Mark { sequence: *sequence, generation: 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::QueueConfig;
    use crate::envelope::Envelope;
    use crate::space::Space;

    #[test]
    fn a_batch_of_dead_letters_is_bounded_in_bytes_and_holds_at_least_one() {
        let mut state = QueueState::new(1, "q", QueueConfig::standard(), 0);
        let body = vec![7; 5_000_000];
        for (sequence, len) in (1..).zip([1_500_000, 1_500_000, 1_500_000, 5_000_000, 10]) {
            let envelope = Envelope::plain(0, &body[..len]);
            state.apply(&Fact::Sent { sequence, envelope }, sequence, &mut Space::default());
        }
        assert_eq!(at_once(&state, &[1, 2, 3, 4, 5]), 2);
        assert_eq!(at_once(&state, &[3, 4, 5]), 1);
        assert_eq!(at_once(&state, &[4, 5]), 1);
        assert_eq!(at_once(&state, &[5, 99]), 2, "one that is gone takes no room");
        assert_eq!(at_once(&state, &[99, 4]), 2);
    }
}
