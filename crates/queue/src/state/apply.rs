//! The fold.

use super::{Counts, QueueState, Taken};
use crate::config::QueueConfig;
use crate::entry::{Fact, Gone, Lease, Mark, RECEIVES_TO_THE_BACK};
use crate::envelope::{DeathReason, Envelope};
use crate::held::{Details, Held, HeldTable, Outcome, SlotId, State};
use crate::ready::LaneId;
use crate::run::Item;
use crate::space::Space;
use crate::standing::Standing;
use crate::state::Found;

impl QueueState {
    /// Takes note of a fact about this queue that stands at `location` of the journal. Facts about messages that are
    /// gone change nothing, so that a fold may begin in the middle of the journal.
    #[inline]
    pub(crate) fn apply(&mut self, fact: &Fact<'_>, location: u64, space: &mut Space) {
        if space.notes_changes() {
            self.note_changes(fact, location, space);
        }
        match fact {
            Fact::Sent { sequence, envelope } => {
                self.advance(envelope.time);
                self.accept(*sequence, envelope, location, space);
            }
            Fact::Deleted { time, marks, reason } => {
                self.advance(*time);
                if *reason == Gone::Deleted && self.config.keep_deleted_ms > 0 {
                    self.keep_deleted(marks, *time);
                }
                marks.iter().for_each(|mark| self.delete(mark.sequence, *time, location, space));
            }
            Fact::Received { lease, attempt, marks } => {
                self.advance(lease.time);
                marks.iter().for_each(|mark| self.start_lease(*mark, lease));
                if !attempt.is_empty() {
                    self.recent.remember(attempt, marks, lease.time, lease.until);
                }
            }
            Fact::VisibilityChanged { time, until, marks } => {
                self.advance(*time);
                marks.iter().for_each(|mark| self.change_visibility(*mark, *time, *until));
            }
            Fact::Returned { sequence, generation, time, outcome, due, reason } => {
                self.advance(*time);
                self.give_back(
                    Mark { sequence: *sequence, generation: *generation },
                    *time,
                    *outcome,
                    *due,
                    reason,
                );
            }
            Fact::Moved { sequence, time, .. } => {
                self.advance(*time);
                self.delete(*sequence, *time, location, space);
            }
            fact => self.apply_rare(fact, location, space),
        }
    }

    /// A copy of a message in the cold part does not know what entries say of it that come later.
    fn note_changes(&self, fact: &Fact<'_>, marker: u64, space: &mut Space) {
        let mut note = |sequence: u64| {
            if let Some((location, size)) = self.place_of(sequence) {
                space.note_change(self.id, sequence, location, size, marker);
            }
        };
        match fact {
            Fact::Received { marks, .. } | Fact::VisibilityChanged { marks, .. } => {
                marks.iter().for_each(|mark| note(mark.sequence));
            }
            Fact::Returned { sequence, .. }
            | Fact::Rescheduled { sequence, .. }
            | Fact::Died { sequence, .. }
            | Fact::Revived { sequence, .. } => note(*sequence),
            _ => {}
        }
    }

    fn apply_rare(&mut self, fact: &Fact<'_>, location: u64, space: &mut Space) {
        if fact.is_of_catalogue() {
            let is_first = matches!(fact, Fact::QueueSnapshot { .. });
            self.catalogue.note(location, is_first);
        }
        match fact {
            Fact::Snapshot { sequence, standing, envelope } => {
                self.restore(*sequence, standing, envelope, location, space)
            }
            Fact::Edited { sequence, time, standing, envelope } => {
                self.advance(*time);
                if let Some(old) = self.location_of(*sequence) {
                    space.bury(self.id, *sequence, old, location);
                }
                self.restore(*sequence, standing, envelope, location, space);
                self.remember_bound(*sequence, envelope);
            }
            Fact::Rescheduled { sequence, time, due } => {
                self.advance(*time);
                self.reschedule(*sequence, *time, *due);
            }
            Fact::Died { sequence, time, reason, text } => {
                self.advance(*time);
                self.die(*sequence, *time, *reason, text);
            }
            Fact::Revived { sequence, time } => {
                self.advance(*time);
                self.revive(*sequence, *time);
            }
            Fact::Parked { time, group } => {
                self.advance(*time);
                self.set_parked(group, true);
            }
            Fact::Resumed { time, group } => {
                self.advance(*time);
                self.forgive(group, location, space);
                self.set_parked(group, false);
            }
            Fact::AttributesSet { time, config } => {
                self.advance(*time);
                self.modified = *time;
                self.reconfigure(config);
            }
            Fact::Tagged { tags } => {
                self.tags = tags
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect();
            }
            Fact::Purged { time, below } => {
                self.advance(*time);
                self.purge(*below, location, space);
            }
            Fact::QueueSnapshot { name, config, created, modified, next_sequence, tags } => {
                self.name = (*name).to_owned();
                self.created = *created;
                self.modified = *modified;
                self.next_sequence = self.next_sequence.max(*next_sequence);
                self.sequence_carried = self.sequence_carried.max(*next_sequence);
                // An older copy may stand before this one, with what is gone since.
                self.tasks.clear();
                self.schedules.clear();
                self.memories.clear();
                self.ready.resume_all();
                self.tags = tags
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect();
                self.reconfigure(config);
            }
            Fact::Remembered { memories } => {
                memories.iter().for_each(|memory| self.memories.remember(*memory))
            }
            Fact::MoveTask { task } => {
                self.tasks.insert(task.id, task.as_ref().clone());
                self.forget_old_tasks();
            }
            Fact::Schedule { schedule } => {
                self.schedules.insert(schedule.name.clone(), schedule.as_ref().clone());
            }
            Fact::ScheduleRemoved { name } => {
                self.schedules.remove(*name);
            }
            Fact::Fired { name, next } => {
                if let Some(schedule) = self.schedules.get_mut(*name) {
                    schedule.next = *next;
                }
            }
            // The queue itself begins and ends in the catalogue.
            Fact::Created { .. } | Fact::Removed { .. } | Fact::ClockSet { .. } => {}
            Fact::Sent { .. }
            | Fact::Moved { .. }
            | Fact::Deleted { .. }
            | Fact::Received { .. }
            | Fact::VisibilityChanged { .. }
            | Fact::Returned { .. } => {}
        }
    }

    /// Takes in a new message: sent here, or moved here from another queue at `self.now`.
    #[inline]
    pub(crate) fn accept(
        &mut self,
        sequence: u64,
        envelope: &Envelope<'_>,
        location: u64,
        space: &mut Space,
    ) {
        if sequence < self.next_sequence && self.find(sequence).is_some() {
            return;
        }
        self.next_sequence = self.next_sequence.max(sequence + 1);
        self.last_sent = location;
        if let Some(memory) = self.memory_of(sequence, envelope) {
            self.memories.remember(memory);
        }
        space.add(location, envelope.size());
        self.has_strangers |= envelope.origin.is_some();
        let lane = self.ready.lane_for(envelope.group, envelope.priority);
        self.line_up_new(lane, sequence, envelope, location);
    }

    #[inline]
    fn line_up_new(&mut self, lane: u32, sequence: u64, envelope: &Envelope<'_>, location: u64) {
        let size = envelope.size();
        let delayed = envelope.due > self.now;
        let since = envelope.due.max(envelope.time);
        let in_line = !delayed && envelope.expires == 0 && self.is_in_order(sequence, since);
        if in_line {
            self.line_up(lane, Item { sequence, location, since, size });
            return;
        }
        let details = (envelope.expires != 0 || !delayed).then(|| {
            let since = if delayed { envelope.due } else { since };
            Box::new(Details {
                since,
                place: sequence,
                expires_at: envelope.expires,
                ..Details::default()
            })
        });
        if delayed {
            self.last_due = self.last_due.max(envelope.due);
            self.place(
                lane,
                sequence,
                location,
                size,
                State::Delayed,
                envelope.due,
                false,
                details,
            );
        } else {
            let expiry = self.expiry(since, envelope.expires);
            self.place(lane, sequence, location, size, State::Ready, expiry, false, details);
        }
    }

    /// An id that is remembered as long as its message is there: the entry that sent it may be gone when it is edited.
    fn remember_bound(&mut self, sequence: u64, envelope: &Envelope<'_>) {
        let memory = self.memory_of(sequence, envelope).filter(|memory| memory.expires == 0);
        if let Some(memory) = memory
            && self.memories.find(&memory.key, self.now).is_none()
        {
            self.memories.remember(memory);
        }
    }

    fn delete(&mut self, sequence: u64, time: i64, marker: u64, space: &mut Space) {
        // The entry that sent it may be gone, and its number must not be given again.
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        self.memories.deleted(sequence);
        if let Some(taken) = self.take(sequence, time) {
            space.remove(taken.location, taken.size);
            space.bury(self.id, sequence, taken.location, marker);
            self.ready.let_go(taken.lane);
        }
    }

    /// Notes that messages that are about to be deleted must stay readable for a while.
    fn keep_deleted(&mut self, marks: &[Mark], time: i64) {
        for mark in marks {
            if let Some(at) = self.location_of(mark.sequence) {
                self.kept.note(time, self.config.keep_deleted_ms, at);
            }
        }
    }

    fn start_lease(&mut self, mark: Mark, lease: &Lease) {
        let Lease { time, until, epoch, session, back } = *lease;
        // Most messages are received for the first time, and in order.
        let first = (mark.generation == 1).then(|| self.ready.lane_from(mark.sequence)).flatten();
        let found = if first.is_some() { None } else { self.find(mark.sequence) };
        let slot = match (first, found) {
            (None, None) => return,
            (Some(lane), _) => {
                let Some(first) = self.ready.lane(lane).run.front().copied() else { return };
                self.leave_line(lane, first, until)
            }
            (None, Some(Found::InRun(lane, item))) => self.leave_line(lane, item, until),
            (None, Some(Found::Held(slot))) => {
                let held = self.held.get(slot);
                let receives = self.held.details(slot).map(|details| details.receives);
                match held.state {
                    // Asked for again by its attempt id.
                    State::InFlight if receives == Some(mark.generation) => {
                        return self.held.set_at(slot, until);
                    }
                    State::InFlight => self.end_lease(slot, Outcome::TimedOut, time, time),
                    State::Delayed => {
                        self.held.details_mut(slot, held.at);
                        self.make_ready(slot, time);
                    }
                    State::Ready | State::Dead => {}
                }
                self.enter(slot, State::InFlight, until, false, time);
                slot
            }
        };
        let goes_back = !self.config.fifo && mark.generation >= RECEIVES_TO_THE_BACK;
        let details = self.held.details_mut(slot, time);
        details.receives = mark.generation;
        details.received_at = time;
        details.epoch = epoch;
        details.session = session;
        details.death = 0;
        if details.first_received_at == 0 {
            details.first_received_at = time;
        }
        if goes_back {
            details.place = back;
        }
    }

    /// Puts a message that stands in line in flight.
    #[inline(always)]
    fn leave_line(&mut self, lane: LaneId, item: Item, until: i64) -> SlotId {
        let Item { sequence, location, since, size } = item;
        self.ready.hold(lane);
        self.ready.remove(lane, sequence);
        self.counts.subtract(State::Ready, size);
        self.counts.add(State::InFlight, size);
        let details = Details { since, place: sequence, ..Details::default() };
        let state = State::InFlight;
        let held = Held { sequence, location, at: until, size, lane, state, holding: false };
        let slot = self.held.insert(held, Some(Box::new(details)));
        self.ready.started(lane);
        slot
    }

    fn change_visibility(&mut self, mark: Mark, time: i64, until: i64) {
        let Some(slot) = self.held.find(mark.sequence) else { return };
        let latest =
            self.held.details(slot).is_some_and(|details| details.receives == mark.generation);
        match self.held.get(slot).state {
            State::InFlight if latest && until <= time => {
                self.end_lease(slot, Outcome::Released, time, time)
            }
            State::InFlight if latest => self.held.set_at(slot, until),
            State::Ready if latest && until > time => {
                self.enter(slot, State::InFlight, until, false, time)
            }
            State::InFlight | State::Ready | State::Delayed | State::Dead => {}
        }
    }

    fn give_back(&mut self, mark: Mark, time: i64, outcome: Outcome, due: i64, reason: &str) {
        let Some(slot) = self.held.find(mark.sequence) else { return };
        let latest =
            self.held.details(slot).is_some_and(|details| details.receives == mark.generation);
        if !latest || self.held.get(slot).state != State::InFlight {
            return;
        }
        if !reason.is_empty() {
            self.held.details_mut(slot, time).reason = Some(reason.into());
        }
        self.end_lease(slot, outcome, time, due);
    }

    /// A copy of a live message that was written further on: the fold begins after the original.
    fn restore(
        &mut self,
        sequence: u64,
        standing: &Standing,
        envelope: &Envelope<'_>,
        location: u64,
        space: &mut Space,
    ) {
        // An older copy may stand before this one.
        if let Some(older) = self.take(sequence, self.now) {
            space.remove(older.location, older.size);
            self.ready.let_go(older.lane);
        }
        self.next_sequence = self.next_sequence.max(sequence + 1);
        space.add(location, envelope.size());
        self.has_strangers |= envelope.origin.is_some();
        let lane = self.ready.lane_for(envelope.group, envelope.priority);
        let size = envelope.size();
        match standing.state {
            None => self.line_up(lane, Item { sequence, location, since: standing.since, size }),
            Some(state) => {
                let details = standing.details.clone();
                self.place(
                    lane,
                    sequence,
                    location,
                    size,
                    state,
                    standing.at,
                    standing.holding,
                    details,
                );
            }
        }
    }

    /// Changes when a waiting message can be received.
    fn reschedule(&mut self, sequence: u64, time: i64, due: i64) {
        match self.find(sequence) {
            Some(Found::InRun(..)) if due > time => {
                let Some(Taken { lane, location, size, .. }) = self.take(sequence, time) else {
                    return;
                };
                self.place(lane, sequence, location, size, State::Delayed, due, false, None);
                self.ready.let_go(lane);
            }
            Some(Found::Held(slot)) => match self.held.get(slot).state {
                State::Delayed | State::Ready if due > time => {
                    let holding = self.held.get(slot).holding;
                    self.enter(slot, State::Delayed, due, holding, time);
                }
                State::Delayed => {
                    self.held.set_at(slot, due);
                    self.make_ready(slot, time);
                }
                State::Ready | State::InFlight | State::Dead => {}
            },
            Some(Found::InRun(..)) | None => {}
        }
    }

    /// Keeps a message that failed for good.
    fn die(&mut self, sequence: u64, time: i64, reason: DeathReason, text: &str) {
        self.memories.deleted(sequence);
        if let Some(slot) = self.held.find(sequence)
            && self.held.get(slot).state == State::InFlight
        {
            self.end_lease(slot, Outcome::Failed, time, time);
        }
        let Some(taken) = self.take(sequence, time) else { return };
        let mut details = taken.details.unwrap_or_else(|| {
            Box::new(Details { since: taken.since, place: sequence, ..Details::default() })
        });
        if !text.is_empty() {
            details.reason = Some(text.into());
        }
        details.death = reason.code();
        details.died_at = time;
        let expiry = self.expiry(time, 0);
        self.place(
            taken.lane,
            sequence,
            taken.location,
            taken.size,
            State::Dead,
            expiry,
            false,
            Some(details),
        );
        self.ready.let_go(taken.lane);
    }

    /// Gives a dead message another life.
    fn revive(&mut self, sequence: u64, time: i64) {
        let Some(slot) = self.held.find(sequence) else { return };
        if self.held.get(slot).state != State::Dead {
            return;
        }
        let details = self.held.details_mut(slot, time);
        details.death = 0;
        details.died_at = 0;
        details.forgiven = details.receives;
        details.since = time;
        details.expires_at = 0;
        self.make_ready(slot, time);
    }

    fn set_parked(&mut self, name: &str, parked: bool) {
        self.ready.set_parked(name, parked);
    }

    /// Lets the messages of a group that were received too often be received again.
    fn forgive(&mut self, name: &str, marker: u64, space: &mut Space) {
        let Some(group) = self.ready.group_named(name) else { return };
        let slots: Vec<u32> =
            self.ready.lanes_of(group).flat_map(|lane| lane.returned.values().copied()).collect();
        for slot in slots {
            if self.is_exhausted(slot) {
                let details = self.held.details_mut(slot, self.now);
                details.forgiven = details.receives;
                let Held { sequence, location, size, .. } = self.held.get(slot);
                space.note_change(self.id, sequence, location, size, marker);
            }
        }
    }

    fn reconfigure(&mut self, config: &QueueConfig) {
        let old = std::mem::replace(&mut self.config, config.clone());
        self.follow_config();
        if self.config.keep_deleted_ms == 0 {
            self.kept.clear();
        }
        if old.retention_ms != self.config.retention_ms {
            let kept: Vec<_> =
                self.held.in_state(State::Ready).chain(self.held.in_state(State::Dead)).collect();
            for slot in kept {
                self.held.set_at(slot, self.expiry_of(slot));
            }
        }
        if self.config.fifo && old.delay_ms != self.config.delay_ms {
            let waiting: Vec<_> = self
                .held
                .in_state(State::Delayed)
                .filter(|slot| !self.held.get(*slot).holding)
                .collect();
            for slot in waiting {
                let at = self.held.get(slot).at;
                self.held.set_at(
                    slot,
                    at.saturating_sub(old.delay_ms).saturating_add(self.config.delay_ms),
                );
            }
            self.last_due = self
                .held
                .in_state(State::Delayed)
                .map(|slot| self.held.get(slot).at)
                .max()
                .unwrap_or(0);
        }
    }

    fn purge(&mut self, below: u64, location: u64, space: &mut Space) {
        self.purged = Some((below, location));
        let held = self
            .held
            .all()
            .map(|slot| self.held.get(slot))
            .map(|held| (held.sequence, held.location, held.size));
        let runs = self.ready.lanes().flat_map(|(_, lane)| lane.run.iter());
        let all = held.chain(runs.map(|item| (item.sequence, item.location, item.size)));
        if below >= self.next_sequence {
            all.for_each(|(_, location, size)| space.remove(location, size));
            self.held = HeldTable::default();
            self.ready.clear();
            self.counts = Counts::default();
        } else {
            let mut gone: Vec<u64> =
                all.map(|(sequence, ..)| sequence).filter(|sequence| *sequence < below).collect();
            gone.sort_unstable();
            let now = self.now;
            gone.into_iter().for_each(|sequence| self.delete(sequence, now, location, space));
        }
        self.ready.resume_all();
        self.memories.clear();
        self.recent.clear();
    }

    /// Notes that the bodies of messages were copied: `moves` are (sequence, old location, new one), by sequence, and the
    /// old ones will go. Returns the size of each; `None` if it was not at the old location any more.
    pub(crate) fn relocate_all(
        &mut self,
        moves: &[(u64, u64, u64)],
        space: &mut Space,
    ) -> Vec<Option<u32>> {
        let mut in_line = std::collections::HashMap::new();
        self.ready.relocate_all(moves, |item| {
            in_line.insert(item.sequence, item.size);
        });
        let moved = moves.iter().map(|(sequence, old, location)| {
            let size = in_line.get(sequence).copied().or_else(|| {
                let slot = self.held.find(*sequence)?;
                let held = self.held.get(slot);
                if held.location != *old {
                    return None;
                }
                self.held.set_body(slot, *location, held.size);
                Some(held.size)
            })?;
            space.remove(*old, size);
            space.add(*location, size);
            Some(size)
        });
        moved.collect()
    }

    /// Where the body of a message is.
    pub(crate) fn location_of(&self, sequence: u64) -> Option<u64> {
        self.place_of(sequence).map(|(location, _)| location)
    }

    /// Where the body of a message is, and its size.
    pub(crate) fn place_of(&self, sequence: u64) -> Option<(u64, u32)> {
        Some(match self.find(sequence)? {
            Found::Held(slot) => {
                let held = self.held.get(slot);
                (held.location, held.size)
            }
            Found::InRun(_, item) => (item.location, item.size),
        })
    }
}
