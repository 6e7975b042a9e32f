//! A queue: send, receive, delete, return, and what it is set to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::{AppendOptions, Durability};

use crate::config::QueueConfig;
use crate::engine::{Engine, Tally};
use crate::entry::{Entry, Fact, Gone, Mark};
use crate::error::{Error, Result};
use crate::held::Outcome;
use crate::limits::{self, CENTURY_MS, Limit, within};
use crate::queues::check_dead_letter;
use crate::receipt::Receipt;
use crate::shared::{Level, Shared};
use crate::state::Counts;

mod inspect;
mod receive;
mod redriving;
mod replaying;
mod scheduling;
mod send;

pub use inspect::{Edit, Section};
pub use receive::ReceiveOptions;
#[cfg(feature = "tokio")]
pub(crate) use receive::Turn;
pub(crate) use receive::past_of;
pub use redriving::{Redrive, RedriveOptions};
pub use replaying::{Replay, ReplayFrom};
pub use scheduling::ScheduleInfo;
#[cfg(feature = "tokio")]
pub(crate) use send::Owed;
pub use send::Sent;

/// One queue of a store. Cheap to clone; every method may be called from any thread.
///
/// Every method can also fail with [`Error::QueueDoesNotExist`] once the queue is deleted, [`Error::Closed`] once the
/// queues are closed, and [`Error::Storage`].
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
}

impl Queue {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes a message for good, with the receipt of its latest receive.
    ///
    /// With [`Durability::Sync`], `Ok` means that it is never delivered again, whatever happens. Deleting again is `Ok`.
    /// On a standard queue the receipt also works after the visibility timeout, as long as nobody has received the
    /// message again. Works on a full disk, from the reserve.
    ///
    /// # Errors
    /// [`Error::ReceiptHandleExpired`]: the message was received again (FIFO: or its lease is over); it is not deleted.
    /// [`Error::ReceiptHandleIsInvalid`]: the receipt is of another queue.
    pub fn delete(&self, receipt: &Receipt) -> Result<()> {
        let level = self.delete_one(receipt)?;
        self.shared.settle(level)
    }

    /// As [`begin_delete`](Self::begin_delete), of one message.
    fn delete_one(&self, receipt: &Receipt) -> Result<Level> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let planned = slot.state.plan_delete(receipt);
        slot.tally.note_receipt(&planned);
        let mark = planned?;
        let level = shared.level(None, slot.state.config.durability).with_spare().at(now);
        if let Some(mark) = mark {
            self.commit_deleted(&mut engine, now.time, &[mark], &level.options())?;
        }
        Ok(level)
    }

    fn commit_deleted(
        &self,
        engine: &mut Engine,
        time: i64,
        marks: &[Mark],
        options: &AppendOptions,
    ) -> Result<()> {
        let fact = Fact::Deleted { time, reason: Gone::Deleted, marks: Cow::Borrowed(marks) };
        self.shared.commit_with(engine, &[Entry { queue: self.id, fact }], options)?;
        let slot = engine.slot(self.id)?;
        slot.tally.deleted += marks.len() as u64;
        if slot.waiters > 0 && (slot.state.config.fifo || slot.state.config.group_concurrency > 0) {
            slot.signal.notify_all();
        }
        Ok(())
    }

    /// Deletes up to 1,000 messages in one batch; each has its own result, in order.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]: nothing was deleted.
    pub fn delete_batch(&self, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        within(Limit::BatchEntries, receipts.len() as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        self.delete_all(receipts, None)
    }

    /// As [`delete_batch`](Queue::delete_batch), with another durability than the queue's.
    ///
    /// # Errors
    /// As [`delete_batch`](Queue::delete_batch).
    pub fn delete_batch_with(
        &self,
        receipts: &[Receipt],
        durability: Durability,
    ) -> Result<Vec<Result<()>>> {
        within(Limit::BatchEntries, receipts.len() as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        self.delete_all(receipts, Some(durability))
    }

    fn delete_all(
        &self,
        receipts: &[Receipt],
        durability: Option<Durability>,
    ) -> Result<Vec<Result<()>>> {
        let (results, level) = self.begin_delete(receipts, durability)?;
        self.shared.settle(level)?;
        Ok(results)
    }

    /// Deletes, and says how sure that has to be before the call may answer.
    pub(crate) fn begin_delete(
        &self,
        receipts: &[Receipt],
        durability: Option<Durability>,
    ) -> Result<(Vec<Result<()>>, Level)> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let mut marks: Vec<Mark> = Vec::with_capacity(receipts.len());
        let mut results = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let planned = slot.state.plan_delete(receipt);
            if let Ok(Some(mark)) = &planned
                && !marks.iter().any(|other| other.sequence == mark.sequence)
            {
                marks.push(*mark);
            }
            slot.tally.note_receipt(&planned);
            results.push(planned.map(|_| ()));
        }
        let level = shared.level(durability, slot.state.config.durability).with_spare().at(now);
        if !marks.is_empty() {
            self.commit_deleted(&mut engine, now.time, &marks, &level.options())?;
        }
        // A receipt of a message that is gone may mean a delete that has not been synced yet: `level` holds for that, too.
        Ok((results, level))
    }

    /// Sets a received message's visibility timeout anew: `timeout` from now, at most until `lease_max` after the
    /// receive. Zero gives the message back at once, without blame.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::ReceiptHandleExpired`], [`Error::ReceiptHandleIsInvalid`];
    /// [`Error::MessageDoesNotExist`]; [`Error::MessageNotInflight`].
    pub fn change_visibility(&self, receipt: &Receipt, timeout: Duration) -> Result<()> {
        let shared = &self.shared;
        let timeout_ms = limits::duration(Limit::VisibilityTimeout, timeout, 0, CENTURY_MS)?;
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let planned = slot.state.plan_visibility(receipt, now, timeout_ms);
        slot.tally.note_receipt(&planned);
        let marks = vec![planned?].into();
        let fact = Fact::VisibilityChanged { time: now.time, until: now.time + timeout_ms, marks };
        shared.commit_lease(&mut engine, &mut Entry { queue: self.id, fact }, now)?;
        let slot = engine.slot(self.id)?;
        if slot.waiters > 0 {
            slot.signal.notify_all();
        }
        Ok(())
    }

    /// Says that handling a message failed, and why. It comes back after the delay of the queue's retry policy; its
    /// receive and failure counts, and the reason, stay with it.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] (a reason of more than 4,096 bytes); [`Error::ReceiptHandleExpired`],
    /// [`Error::ReceiptHandleIsInvalid`]; [`Error::MessageDoesNotExist`]; [`Error::MessageNotInflight`].
    pub fn nack(&self, receipt: &Receipt, reason: &str) -> Result<()> {
        self.give_back(receipt, Outcome::Failed, None, reason)
    }

    /// As [`nack`](Queue::nack), with a delay of its own (0 to 100 years) instead of the policy's.
    ///
    /// # Errors
    /// As [`nack`](Queue::nack).
    pub fn nack_after(&self, receipt: &Receipt, delay: Duration, reason: &str) -> Result<()> {
        self.give_back(receipt, Outcome::Failed, Some(delay), reason)
    }

    /// Gives a message back at once and without blame: it counts as released, not as failed.
    ///
    /// # Errors
    /// As [`nack`](Queue::nack).
    pub fn release(&self, receipt: &Receipt) -> Result<()> {
        self.give_back(receipt, Outcome::Released, Some(Duration::ZERO), "")
    }

    fn give_back(
        &self,
        receipt: &Receipt,
        outcome: Outcome,
        delay: Option<Duration>,
        reason: &str,
    ) -> Result<()> {
        within(Limit::ReasonBytes, reason.len() as u64, 0, limits::REASON_BYTES_MAX as u64)?;
        let own =
            delay.map(|delay| limits::duration(Limit::Delay, delay, 0, CENTURY_MS)).transpose()?;
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let planned = slot.state.plan_return(receipt);
        slot.tally.note_receipt(&planned);
        let (Mark { sequence, generation }, failed) = planned?;
        let by_policy = || slot.state.config.retry.delay_ms(failed + 1, sequence);
        let due = now.time.saturating_add(own.unwrap_or_else(by_policy));
        let fact = Fact::Returned { sequence, generation, time: now.time, outcome, due, reason };
        shared.commit_lease(&mut engine, &mut Entry { queue: self.id, fact }, now)?;
        let slot = engine.slot(self.id)?;
        if slot.waiters > 0 {
            slot.signal.notify_all();
        }
        Ok(())
    }

    /// Gives a message up for good, now: it goes to the dead-letter queue, or stays here as dead if there is none. In a
    /// FIFO queue that parks, it stays where it is and its group stands still.
    ///
    /// # Errors
    /// As [`nack`](Queue::nack).
    pub fn reject(&self, receipt: &Receipt, reason: &str) -> Result<()> {
        let level = self.begin_reject(receipt, reason)?;
        self.shared.settle(level)
    }

    pub(crate) fn begin_reject(&self, receipt: &Receipt, reason: &str) -> Result<Level> {
        within(Limit::ReasonBytes, reason.len() as u64, 0, limits::REASON_BYTES_MAX as u64)?;
        let shared = &self.shared;
        let mut engine = shared.lock();
        let now = shared.now();
        let slot = engine.slot(self.id)?;
        slot.state.advance(now.time);
        let planned = slot.state.plan_return(receipt);
        slot.tally.note_receipt(&planned);
        let (mark, _) = planned?;
        let level = shared.level(None, slot.state.config.durability);
        shared.fail_for_good(&mut engine, self.id, mark, now, reason, level)?;
        Ok(level)
    }

    /// Deletes all messages, in flight and delayed ones too, and forgets all deduplication ids, durably.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn purge(&self) -> Result<()> {
        let level = self.begin_purge()?;
        self.shared.settle(level)
    }

    pub(crate) fn begin_purge(&self) -> Result<Level> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let below = engine.slot(self.id)?.state.next_sequence;
        let fact = Fact::Purged { time: shared.now().time, below };
        let level = Level::sync().with_spare();
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], level)?;
        Ok(level)
    }

    /// Messages by state, exact at this moment.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn counts(&self) -> Result<Counts> {
        self.with_state(|state| state.counts)
    }

    /// Messages of one group by state, exact at this moment; bytes are not kept by group and are 0.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn group_counts(&self, group: &str) -> Result<Counts> {
        self.with_state(|state| {
            let Some(id) = state.ready.group_named(group) else { return Counts::default() };
            let ready = state.ready.ready_in(id);
            state.ready.group(id).map_or_else(Counts::default, |group| Counts {
                ready,
                delayed: group.delayed,
                in_flight: u64::from(group.in_flight),
                dead: group.dead,
                ..Counts::default()
            })
        })
    }

    /// The groups or tenants that have messages, in order of their names, and whether each is parked.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn groups(&self) -> Result<Vec<(String, bool)>> {
        self.with_state(|state| {
            let mut groups: Vec<_> = state
                .ready
                .groups()
                .map(|(_, group)| (group.name.to_string(), group.parked))
                .collect();
            groups.sort_unstable();
            groups
        })
    }

    /// How long the oldest message that could be received now has been waiting for it; `None` if there is none. Messages
    /// of blocked groups do not count.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn oldest_claimable_age(&self) -> Result<Option<Duration>> {
        let age = |state: &crate::state::QueueState| {
            let since = state.oldest_claimable()?;
            Some(Duration::from_millis(state.now.saturating_sub(since).max(0).unsigned_abs()))
        };
        self.with_state(age)
    }

    /// What has happened since the store was opened.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn tally(&self) -> Result<Tally> {
        Ok(self.shared.lock().slot(self.id)?.tally)
    }

    /// Its attributes.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn config(&self) -> Result<QueueConfig> {
        self.with_state(|state| state.config.clone())
    }

    /// When it was created and when its attributes were last changed, in ms on the queues' clock.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn created_and_modified(&self) -> Result<(i64, i64)> {
        self.with_state(|state| (state.created, state.modified))
    }

    /// Changes attributes, durably and at once: `change` is given the present ones and returns the new ones.
    ///
    /// # Errors
    /// As [`Queues::create`](crate::Queues::create); [`Error::Unsupported`]: the type of a queue cannot be changed.
    pub fn set_config(&self, change: impl FnOnce(QueueConfig) -> QueueConfig) -> Result<()> {
        self.begin_set_config(change)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_set_config(
        &self,
        change: impl FnOnce(QueueConfig) -> QueueConfig,
    ) -> Result<()> {
        let shared = &self.shared;
        let mut engine = shared.lock();
        let old = engine.slot(self.id)?.state.config.clone();
        let new = change(old.clone());
        if new.fifo != old.fifo {
            return Err(Error::Unsupported { what: "changing the type of a queue" });
        }
        new.validate()?;
        check_dead_letter(&engine, &self.name, &new)?;
        let fact = Fact::AttributesSet { time: shared.now().time, config: Cow::Owned(new) };
        shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)
    }

    /// After a change that may make something receivable or expired.
    fn changed(&self, engine: &mut Engine) -> Result<()> {
        engine.slot(self.id)?.signal.notify_all();
        self.shared.wake_keeper(engine, self.shared.now().time);
        Ok(())
    }

    /// Its tags.
    ///
    /// # Errors
    /// [`Error::QueueDoesNotExist`].
    pub fn tags(&self) -> Result<BTreeMap<String, String>> {
        self.with_state(|state| state.tags.clone())
    }

    /// Replaces its tags, durably: at most 50, keys of 1 to 128 characters, values of at most 256.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn set_tags(&self, tags: &BTreeMap<String, String>) -> Result<()> {
        self.begin_set_tags(tags)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_set_tags(&self, tags: &BTreeMap<String, String>) -> Result<()> {
        within(Limit::Tags, tags.len() as u64, 0, 50)?;
        for (key, value) in tags {
            within(Limit::TagLength, key.chars().count() as u64, 1, 128)?;
            within(Limit::TagLength, value.chars().count() as u64, 0, 256)?;
        }
        let tags = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut engine = self.shared.lock();
        engine.slot(self.id)?;
        let entry = Entry { queue: self.id, fact: Fact::Tagged { tags } };
        self.shared.commit(&mut engine, &[entry], Level::sync())?;
        self.changed(&mut engine)
    }

    /// Lets a parked group of a FIFO queue go on: its messages that were received too often may be received as often
    /// again.
    ///
    /// # Errors
    /// [`Error::NotFound`]: the group is not parked.
    pub fn resume(&self, group: &str) -> Result<()> {
        self.begin_resume(group)?;
        self.shared.settle(Level::sync())
    }

    pub(crate) fn begin_resume(&self, group: &str) -> Result<()> {
        let mut engine = self.shared.lock();
        let state = &engine.slot(self.id)?.state;
        let id = state.ready.group_named(group);
        if !id.and_then(|id| state.ready.group(id)).is_some_and(|group| group.parked) {
            return Err(Error::NotFound { what: "parked group" });
        }
        let fact = Fact::Resumed { time: self.shared.now().time, group };
        self.shared.commit(&mut engine, &[Entry { queue: self.id, fact }], Level::sync())?;
        self.changed(&mut engine)
    }

    /// Wakes all who wait at the queue.
    pub(crate) fn wake_all(&self) {
        if let Some(slot) = self.shared.lock().slots.get(&self.id) {
            slot.signal.notify_all();
        }
    }

    /// Looks at the state as it is now.
    pub(crate) fn with_state<T>(
        &self,
        look: impl FnOnce(&crate::state::QueueState) -> T,
    ) -> Result<T> {
        let mut engine = self.shared.lock();
        let now = self.shared.now();
        engine.slot(self.id)?;
        self.shared.expire(&mut engine, self.id, now)?;
        let slot = engine.slot(self.id)?;
        Ok(look(&slot.state))
    }
}
