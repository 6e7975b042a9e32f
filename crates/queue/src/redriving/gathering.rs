//! The list of a redrive, gathered a part at a time, so that others have their turn between.
//!
//! Runs are looked at before the table of held messages: a message that is received and comes back meanwhile goes from the
//! first to the second, and stays in its place there. So none that could be taken all along is missed; one may be met twice.

use std::collections::HashMap;

use super::{Ahead, Seen};
use crate::held::{SlotId, State};
use crate::ready::{Lane, LaneId};
use crate::redrive::MoveTask;
use crate::run::CHUNK_BYTES;
use crate::state::QueueState;

/// Messages and lanes that are looked at while every call at every queue has to wait.
pub(super) const LOOKED_AT: usize = 4 << 10;
/// Messages that are gathered at once: so many, or a sixteenth of those that are looked at for it if that is more.
const GATHERED: usize = 16 << 10;
const GATHERINGS: u64 = 16;

/// What is looked at next.
#[derive(Clone, Copy, Debug)]
enum At {
    /// The messages of this lane from `from` on, of which `taken` are in the list.
    Lane {
        id: LaneId,
        from: u64,
        taken: usize,
    },
    Slot(SlotId),
}

/// A list in the making: the first messages from the task's cursor on that it may be about.
#[derive(Debug)]
pub(super) struct Gathering {
    task: u64,
    cursor: u64,
    below: u64,
    /// Of one group the others need not be read to be passed over.
    group: String,
    most: usize,
    at: At,
    found: Vec<Seen>,
    more: bool,
}

impl Gathering {
    pub(super) fn of(state: &QueueState, task: &MoveTask) -> Gathering {
        let in_lanes = state.counts.ready.min(u64::from(state.ready.lanes_end()) * GATHERED as u64);
        let all = in_lanes + state.held.len() as u64;
        Gathering {
            task: task.id,
            cursor: task.cursor,
            below: task.below,
            group: task.filter.group.clone(),
            most: usize::try_from(all / GATHERINGS).unwrap_or(usize::MAX).max(GATHERED),
            at: At::Lane { id: 0, from: task.cursor, taken: 0 },
            found: Vec::new(),
            more: false,
        }
    }

    /// Looks at some `budget` more messages; whether that were the last.
    pub(super) fn look_on(&mut self, state: &QueueState, budget: usize) -> bool {
        let only = (!self.group.is_empty()).then(|| state.ready.group_named(&self.group));
        let is_asked_for = |lane: &Lane| only.is_none_or(|only| only == Some(lane.group));
        let mut left = budget;
        while left > 0 {
            match self.at {
                At::Lane { id, .. } if id >= state.ready.lanes_end() => self.at = At::Slot(0),
                At::Lane { id, from, taken } => {
                    let lane = state.ready.find_lane(id).filter(|lane| is_asked_for(lane));
                    let cost =
                        lane.map_or(1, |lane| self.look_at_lane(lane, id, from, taken, left));
                    left = left.saturating_sub(cost);
                    if lane.is_none() {
                        self.at = At::Lane { id: id + 1, from: self.cursor, taken: 0 };
                    }
                }
                At::Slot(id) if id >= state.held.end() => return true,
                At::Slot(id) => {
                    let is_here = |state| matches!(state, State::Ready | State::Dead);
                    let held = state.held.in_use(id).filter(|held| {
                        is_here(held.state)
                            && (self.cursor..self.below).contains(&held.sequence)
                            && is_asked_for(state.ready.lane(held.lane))
                    });
                    self.found
                        .extend(held.map(|held| Seen { sequence: held.sequence, lane: None }));
                    self.at = At::Slot(id + 1);
                    left -= 1;
                }
            }
        }
        false
    }

    /// Looks at a lane's next messages, at most `left`; what that cost.
    fn look_at_lane(
        &mut self,
        lane: &Lane,
        id: LaneId,
        from: u64,
        taken: usize,
        left: usize,
    ) -> usize {
        let most = left.min(self.most + 1 - taken);
        let before = self.found.len();
        let run = lane.run.iter_from(from).take_while(|item| item.sequence < self.below);
        self.found
            .extend(run.take(most).map(|item| Seen { sequence: item.sequence, lane: Some(id) }));
        let found = self.found.len() - before;
        let taken = taken + found;
        let last = self.found.last().filter(|_| found == most && taken <= self.most);
        self.at = match last {
            Some(last) => At::Lane { id, from: last.sequence + 1, taken },
            None => At::Lane { id: id + 1, from: self.cursor, taken: 0 },
        };
        // To come to `from`, a chunk may have to be decoded.
        1 + found + usize::try_from(lane.run.len()).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
    }

    /// Keeps the list short. It needs no lock.
    pub(super) fn thin(&mut self) {
        if self.found.len() >= 2 * self.most {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.found.len() > self.most {
            self.found.select_nth_unstable_by_key(self.most, |seen| seen.sequence);
            self.found.truncate(self.most);
            self.more = true;
        }
    }

    /// Has the list in order. It needs no lock.
    pub(super) fn finish(&mut self) {
        self.cut();
        self.found.sort_unstable_by_key(|seen| seen.sequence);
        self.found.dedup_by_key(|seen| seen.sequence);
    }

    /// Whether the task has not come further since.
    pub(super) fn is_for(&self, task: &MoveTask) -> bool {
        (self.task, self.cursor) == (task.id, task.cursor)
    }
}

impl From<Gathering> for Ahead {
    fn from(gathering: Gathering) -> Ahead {
        let Gathering { task, found, more, .. } = gathering;
        Ahead { task, found: found.into(), more, read: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::QueueConfig;
    use crate::entry::{Fact, Lease, Mark};
    use crate::envelope::{DeathReason, Envelope};
    use crate::redrive::{RedriveFilter, RedriveStatus};
    use crate::space::Space;

    const MESSAGES: u64 = 40_000;

    fn apply(state: &mut QueueState, fact: &Fact<'_>) {
        state.apply(fact, 1, &mut Space::default());
    }

    /// A queue of `MESSAGES` in 500 groups, every third of them dead.
    fn queue() -> QueueState {
        let mut state = QueueState::new(1, "q", QueueConfig::standard(), 0);
        for sequence in 1..=MESSAGES {
            let group = format!("g{}", sequence % 500);
            let envelope = Envelope { group: Some(&group), ..Envelope::plain(0, b"x") };
            apply(&mut state, &Fact::Sent { sequence, envelope });
        }
        for sequence in (3..=MESSAGES).step_by(3) {
            let reason = DeathReason::Rejected;
            apply(&mut state, &Fact::Died { sequence, time: 0, reason, text: "" });
        }
        state
    }

    fn task(cursor: u64, filter: RedriveFilter) -> MoveTask {
        MoveTask {
            id: 1,
            target: None,
            rate: 0,
            cursor,
            below: MESSAGES - 9,
            moved: 0,
            started: 0,
            ended: 0,
            status: RedriveStatus::Running,
            filter,
        }
    }

    fn gather(state: &QueueState, task: &MoveTask) -> (Vec<u64>, bool, usize) {
        let (mut gathering, mut looks) = (Gathering::of(state, task), 1);
        while !gathering.look_on(state, LOOKED_AT) {
            gathering.thin();
            looks += 1;
        }
        gathering.finish();
        let ahead = Ahead::from(gathering);
        (ahead.found.iter().map(|seen| seen.sequence).collect(), ahead.more, looks)
    }

    /// A list of millions was gathered in one go, while every call at every queue waited for it.
    #[test]
    fn a_list_is_gathered_in_bounded_looks_and_has_the_first_in_order() {
        let state = queue();
        let (found, more, looks) = gather(&state, &task(100, RedriveFilter::new()));
        assert_eq!(found, (100..100 + GATHERED as u64).collect::<Vec<_>>());
        assert!(more);
        assert!(looks > 8, "{looks}");
        let (found, more, _) = gather(&state, &task(30_000, RedriveFilter::new()));
        assert_eq!(found, (30_000..MESSAGES - 9).collect::<Vec<_>>());
        assert!(!more);
        let (found, _, _) = gather(&state, &task(100, RedriveFilter::new().group("g7")));
        assert_eq!(found, (507..MESSAGES - 9).step_by(500).collect::<Vec<_>>());
    }

    #[test]
    fn messages_that_are_received_and_come_back_meanwhile_are_in_the_list_once() {
        let mut state = queue();
        let task = task(30_000, RedriveFilter::new());
        let mut gathering = Gathering::of(&state, &task);
        let mut returned = BTreeSet::new();
        let mut next = 30_001;
        while !gathering.look_on(&state, 500) {
            gathering.thin();
            let marks = [Mark { sequence: next, generation: 1 }];
            let lease = Lease { time: 0, until: 10, epoch: 1, session: 0, back: 0 };
            apply(&mut state, &Fact::Received { lease, attempt: "", marks: Cow::Borrowed(&marks) });
            let marks = Cow::Borrowed(&marks[..]);
            apply(&mut state, &Fact::VisibilityChanged { time: 0, until: 0, marks });
            returned.insert(next);
            next += 3;
        }
        assert!(returned.len() > 50, "{}", returned.len());
        gathering.finish();
        let found: Vec<u64> = gathering.found.iter().map(|seen| seen.sequence).collect();
        assert_eq!(found, (30_000..MESSAGES - 9).collect::<Vec<_>>());
    }
}
