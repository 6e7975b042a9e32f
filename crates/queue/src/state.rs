//! What a queue is: a fold over its entries, with no clock and no I/O inside. Live calls and replay both go through
//! [`QueueState::apply`], so they cannot differ.
//!
//! Invariants: every message of the queue is either in a run of [`Ready`] or held; the counts are those of the messages;
//! time never goes back. Delays and leases end by time alone ([`QueueState::advance`]), and every entry carries the
//! time up to which the fold advances first: so it does not matter when, or whether, somebody looked in between.

use std::collections::BTreeMap;

use crate::config::{DeduplicationScope, DeduplicationWindow, QueueConfig};
use crate::dedup::Memories;
use crate::entry::Memory;
use crate::envelope::{Deduplication, Envelope};
use crate::held::{ATTEMPTS_MAX, Attempt, Details, Held, HeldTable, Outcome, SlotId, State};
use crate::kept::Kept;
use crate::location::COLD;
use crate::ready::{LaneId, Ready, Rules};
use crate::recent::RecentReceives;
use crate::redrive::MoveTask;
use crate::run::{Item, Run};
use crate::schedule::Schedule;
use crate::space::Space;
use crate::standing::Standing;

mod apply;
mod moments;

pub(crate) use moments::Expired;

/// Messages and their bytes, by where they are. Exact at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Receivable now, or as soon as their group is free.
    pub ready: u64,
    /// Not receivable before their delay is over.
    pub delayed: u64,
    /// With a consumer.
    pub in_flight: u64,
    /// Failed for good and kept in this queue.
    pub dead: u64,
    /// Bytes of the ready and the delayed.
    pub waiting_bytes: u64,
    /// Bytes of those in flight and the dead.
    pub held_bytes: u64,
}

impl Counts {
    fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Ready => &mut self.ready,
            State::Delayed => &mut self.delayed,
            State::InFlight => &mut self.in_flight,
            State::Dead => &mut self.dead,
        }
    }

    fn bytes_of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Ready | State::Delayed => &mut self.waiting_bytes,
            State::InFlight | State::Dead => &mut self.held_bytes,
        }
    }

    fn add(&mut self, state: State, size: u32) {
        *self.of(state) += 1;
        *self.bytes_of(state) += u64::from(size);
    }

    fn subtract(&mut self, state: State, size: u32) {
        *self.of(state) -= 1;
        *self.bytes_of(state) -= u64::from(size);
    }
}

/// A message, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Held(SlotId),
    InRun(LaneId, Item),
}

/// The state of one queue.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) config: QueueConfig,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) next_sequence: u64,
    pub(crate) counts: Counts,
    pub(crate) held: HeldTable,
    pub(crate) ready: Ready,
    pub(crate) memories: Memories,
    pub(crate) recent: RecentReceives,
    pub(crate) tasks: BTreeMap<u64, MoveTask>,
    pub(crate) schedules: BTreeMap<String, Schedule>,
    /// The time that the fold has come to.
    pub(crate) now: i64,
    /// It has, or had, messages that were given their id in another queue, or here before they were moved.
    pub(crate) has_strangers: bool,
    /// The latest message that was put in line, by sequence.
    last_in_line: Item,
    /// The latest delay's end in a FIFO queue: a later message's delay does not end before an earlier one's.
    last_due: i64,
    /// The latest purge: below which sequence, and where its marker is.
    pub(crate) purged: Option<(u64, u64)>,
    /// Where the entries are that say what the queue is.
    pub(crate) catalogue: Catalogued,
    /// What must stay because it may be read again.
    pub(crate) kept: Kept,
    /// Where the latest message was sent or moved here, as far as this process knows.
    pub(crate) last_sent: u64,
    /// The `next_sequence` that the cold part of the journal knows of, at least.
    pub(crate) sequence_carried: u64,
}

/// Where the entries are that say what a queue is: its attributes, tasks, schedules and what it remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogued {
    /// The copy in the cold part.
    pub(crate) cold: Option<u64>,
    /// The oldest and the latest in the hot part that the copy does not know.
    pub(crate) hot: Option<(u64, u64)>,
}

impl Catalogued {
    /// Notes an entry that says what the queue is. Of a copy in the cold part, `is_first` begins it, and counts.
    pub(crate) fn note(&mut self, location: u64, is_first: bool) {
        if location & COLD == 0 {
            let (first, _) = self.hot.unwrap_or((location, location));
            self.hot = Some((first, location));
        } else if is_first {
            self.cold = Some(location);
        }
    }
}

impl QueueState {
    pub(crate) fn new(id: u32, name: &str, config: QueueConfig, now: i64) -> QueueState {
        let mut state = QueueState {
            id,
            name: name.to_owned(),
            config,
            tags: BTreeMap::new(),
            created: now,
            modified: now,
            next_sequence: 1,
            counts: Counts::default(),
            held: HeldTable::default(),
            ready: Ready::default(),
            memories: Memories::default(),
            recent: RecentReceives::default(),
            tasks: BTreeMap::new(),
            schedules: BTreeMap::new(),
            now,
            has_strangers: false,
            last_in_line: Item::default(),
            last_due: 0,
            purged: None,
            catalogue: Catalogued::default(),
            kept: Kept::default(),
            last_sent: 0,
            sequence_carried: 0,
        };
        state.follow_config();
        state
    }

    pub(crate) fn last_due(&self) -> i64 {
        self.last_due
    }

    pub(crate) fn set_last_due(&mut self, due: i64) {
        self.last_due = due;
    }

    /// Takes over the run of a checkpoint, whose messages have `bytes`.
    pub(crate) fn load_run(&mut self, lane: LaneId, run: Run, bytes: u64) {
        if let Some(last) = run.last().filter(|last| last.sequence > self.last_in_line.sequence) {
            self.last_in_line = *last;
        }
        self.counts.ready += run.len();
        self.counts.waiting_bytes += bytes;
        self.ready.load_run(lane, run);
    }

    /// Takes over a held message of a checkpoint.
    pub(crate) fn load_held(
        &mut self,
        lane: LaneId,
        sequence: u64,
        location: u64,
        size: u32,
        state: State,
        standing: Standing,
    ) {
        let Standing { at, holding, details, .. } = standing;
        self.place(lane, sequence, location, size, state, at, holding, details);
    }

    fn follow_config(&mut self) {
        self.ready.set_rules(Rules {
            fifo: self.config.fifo,
            concurrency: self.config.group_concurrency,
        });
    }

    pub(crate) fn find(&self, sequence: u64) -> Option<Found> {
        match self.held.find(sequence) {
            Some(slot) => Some(Found::Held(slot)),
            None => self.ready.find(sequence).map(|(lane, item)| Found::InRun(lane, item)),
        }
    }

    /// When a message leaves the queue by age: the end of its own time to live or of the queue's retention.
    pub(crate) fn expiry(&self, since: i64, expires_at: i64) -> i64 {
        let retention = since.saturating_add(self.config.retention_ms);
        if expires_at == 0 { retention } else { retention.min(expires_at) }
    }

    fn expiry_of(&self, slot: SlotId) -> i64 {
        let held = self.held.get(slot);
        self.held.details(slot).map_or(held.at, |details| {
            let since = if held.state == State::Dead { details.died_at } else { details.since };
            self.expiry(since, if held.state == State::Dead { 0 } else { details.expires_at })
        })
    }

    /// Whether a message has been received as often as it may be.
    pub(crate) fn is_exhausted(&self, slot: SlotId) -> bool {
        self.config.max_receives > 0
            && self
                .held
                .details(slot)
                .is_some_and(|d| d.receives.saturating_sub(d.forgiven) >= self.config.max_receives)
    }

    /// The key under which the queue remembers this message's id.
    #[inline]
    pub(crate) fn memory_key(
        &self,
        group: Option<&str>,
        id: &Deduplication<'_>,
    ) -> Option<crate::dedup::Key> {
        if *id == Deduplication::None {
            return None;
        }
        let scope = match self.config.deduplication_scope {
            DeduplicationScope::Queue => "",
            DeduplicationScope::Group => group.unwrap_or_default(),
        };
        crate::dedup::key(scope, id)
    }

    /// Puts a message, new or not, where it belongs.
    #[expect(clippy::too_many_arguments, reason = "these are the parts of a message's state")]
    fn place(
        &mut self,
        lane: LaneId,
        sequence: u64,
        location: u64,
        size: u32,
        state: State,
        at: i64,
        holding: bool,
        details: Option<Box<Details>>,
    ) {
        self.counts.add(state, size);
        self.ready.hold(lane);
        let place = details.as_ref().map_or(sequence, |details| details.place);
        let slot =
            self.held.insert(Held { sequence, location, at, size, lane, state, holding }, details);
        match state {
            State::Ready => self.ready.add_returned(lane, place, sequence, slot),
            State::Delayed => self.ready.change_group(lane, |group| {
                group.delayed += 1;
                group.holding += u32::from(holding);
            }),
            State::InFlight => self.ready.started(lane),
            State::Dead => self.ready.change_group(lane, |group| group.dead += 1),
        }
    }

    /// Gives back the space of all messages: the queue is gone.
    pub(crate) fn release_all(&mut self, space: &mut Space) {
        let held =
            self.held.all().map(|slot| self.held.get(slot)).map(|held| (held.location, held.size));
        let runs = self.ready.lanes().flat_map(|(_, lane)| lane.run.iter());
        held.chain(runs.map(|item| (item.location, item.size)))
            .for_each(|(at, size)| space.remove(at, size));
    }

    /// Whether a message that could first be received at `since` may stand in line, where messages expire one after the
    /// other: it does not hold up a later one, nor does an earlier one hold it up. A 64th of the retention period is
    /// nothing. (A dead letter keeps its age, and a long delay may end before many a later message is old.)
    #[inline]
    fn is_in_order(&self, sequence: u64, since: i64) -> bool {
        let slack = self.config.retention_ms / 64;
        if sequence > self.last_in_line.sequence && since >= self.last_in_line.since - slack {
            return true;
        }
        self.ready.eldest().is_none_or(|eldest| {
            sequence < self.last_in_line.sequence && since <= eldest.since + slack
        })
    }

    /// Puts a message without a past in line.
    #[inline]
    fn line_up(&mut self, lane: LaneId, item: Item) {
        if item.sequence > self.last_in_line.sequence {
            self.last_in_line = item;
        }
        self.counts.add(State::Ready, item.size);
        self.ready.push(lane, item);
    }

    /// Takes a message out of the queue, wherever it is. `time` counts for the processing time of its tenant.
    fn take(&mut self, sequence: u64, time: i64) -> Option<Taken> {
        match self.find(sequence)? {
            Found::InRun(lane, item) => {
                self.ready.hold(lane);
                self.ready.remove(lane, sequence);
                self.counts.subtract(State::Ready, item.size);
                let Item { location, size, since, .. } = item;
                Some(Taken { lane, location, size, since, details: None })
            }
            Found::Held(slot) => {
                let held = self.held.get(slot);
                self.leave(slot, &held, time);
                let details = self.held.remove(slot);
                let since = details.as_ref().map_or(held.at, |details| details.since);
                let Held { lane, location, size, .. } = held;
                Some(Taken { lane, location, size, since, details })
            }
        }
    }

    /// Undoes what the state of a held message counts for.
    fn leave(&mut self, slot: SlotId, held: &Held, time: i64) {
        let Held { sequence, lane, state, holding, size, .. } = *held;
        self.counts.subtract(state, size);
        let details = self.held.details(slot);
        match state {
            State::Ready => {
                let place = details.map_or(sequence, |details| details.place);
                self.ready.remove_returned(lane, place, sequence);
            }
            State::Delayed => self.ready.change_group(lane, |group| {
                group.delayed -= 1;
                group.holding -= u32::from(holding);
            }),
            State::InFlight => {
                let held_ms = details.map_or(0, |details| time - details.received_at);
                self.ready.ended(lane, time, held_ms);
            }
            State::Dead => self.ready.change_group(lane, |group| group.dead -= 1),
        }
    }

    /// Moves a held message from one state to another.
    fn enter(&mut self, slot: SlotId, state: State, at: i64, holding: bool, time: i64) {
        let held = self.held.get(slot);
        self.leave(slot, &held, time);
        self.held.change(slot, state, at);
        self.held.set_holding(slot, holding);
        let Held { sequence, lane, size, .. } = held;
        self.counts.add(state, size);
        let place = self.held.details(slot).map_or(sequence, |details| details.place);
        match state {
            State::Ready => self.ready.add_returned(lane, place, sequence, slot),
            State::Delayed => self.ready.change_group(lane, |group| {
                group.delayed += 1;
                group.holding += u32::from(holding);
            }),
            State::InFlight => self.ready.started(lane),
            State::Dead => self.ready.change_group(lane, |group| group.dead += 1),
        }
    }

    /// Ends the lease of a message: it waits until `due`, or is ready at once.
    fn end_lease(&mut self, slot: SlotId, outcome: Outcome, ended_at: i64, due: i64) {
        let details = self.held.details_mut(slot, ended_at);
        match outcome {
            Outcome::Failed => details.failed += 1,
            Outcome::TimedOut => details.timed_out += 1,
            Outcome::Released => details.released += 1,
        }
        if details.attempts.len() == ATTEMPTS_MAX {
            details.attempts.remove(0);
        }
        let received_at = details.received_at;
        details.attempts.push(Attempt { received_at, ended_at, outcome });
        if due > ended_at {
            self.enter(slot, State::Delayed, due, self.config.fifo, ended_at);
        } else {
            self.make_ready(slot, ended_at);
        }
    }

    /// Makes a held message ready: in line, if it has no past.
    fn make_ready(&mut self, slot: SlotId, time: i64) {
        let held = self.held.get(slot);
        let Held { sequence, location, size, lane, at, .. } = held;
        if self.held.details(slot).is_none() && self.is_in_order(sequence, at) {
            self.leave(slot, &held, time);
            self.held.remove(slot);
            self.line_up(lane, Item { sequence, location, since: at, size });
            self.ready.let_go(lane);
            return;
        }
        let expiry = {
            let details = self.held.details_mut(slot, at);
            if details.since == 0 {
                details.since = time;
            }
            let (since, expires_at) = (details.since, details.expires_at);
            self.expiry(since, expires_at)
        };
        self.enter(slot, State::Ready, expiry, false, time);
    }

    fn memory_of(&self, sequence: u64, envelope: &Envelope<'_>) -> Option<Memory> {
        let key = self.memory_key(envelope.group, &envelope.deduplication)?;
        let expires = match self.config.deduplication_window {
            DeduplicationWindow::UntilDeleted => 0,
            DeduplicationWindow::For(window) => {
                envelope.time.saturating_add(i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
            }
        };
        Some(Memory { key, sequence, expires })
    }
}

/// A message that was taken out.
struct Taken {
    /// Still held for the taker: [`Ready::let_go`] it.
    lane: LaneId,
    location: u64,
    size: u32,
    since: i64,
    details: Option<Box<Details>>,
}

#[cfg(test)]
mod tests;
