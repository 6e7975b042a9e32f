//! What happens by time alone.

use super::QueueState;
use crate::held::{Outcome, SlotId, State};
use crate::ready::NO_GROUP;
use crate::run::Item;

/// A message whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) sequence: u64,
    /// It was dead already: it only goes.
    pub(crate) dead: bool,
}

impl QueueState {
    /// Ends every delay and lease that is over at `now`.
    #[inline]
    pub(crate) fn advance(&mut self, now: i64) {
        if now > self.now {
            self.advance_to(now);
        }
    }

    fn advance_to(&mut self, now: i64) {
        while let Some((at, slot)) = self.held.next_wake().filter(|(at, _)| *at <= now) {
            self.wake(slot, at);
        }
        self.memories.advance(now);
        self.recent.advance(now);
        self.kept.advance(now);
        self.now = now;
    }

    fn wake(&mut self, slot: SlotId, at: i64) {
        match self.held.get(slot).state {
            State::InFlight => self.end_lease(slot, Outcome::TimedOut, at, at),
            State::Delayed | State::Ready | State::Dead => self.make_ready(slot, at),
        }
    }

    /// The messages whose life is over at the time that the fold has come to; at most `max`.
    ///
    /// The messages of the runs expire in sequence order: [`is_in_order`](Self::is_in_order) sees to it that none of them
    /// is held up for long by that.
    pub(crate) fn expired(&self, max: usize) -> Vec<Expired> {
        let held = self.held.expired(self.now, max).into_iter().map(|slot| self.held.get(slot));
        let mut expired: Vec<Expired> = held
            .map(|held| Expired { sequence: held.sequence, dead: held.state == State::Dead })
            .collect();
        for lane in self.ready.lanes_by_age() {
            let over = lane.run.iter().take_while(|item| self.is_over(item));
            let before = expired.len();
            expired.extend(
                over.map(|item| Expired { sequence: item.sequence, dead: false })
                    .take(max - before.min(max)),
            );
            if lane.group != NO_GROUP && expired.len() == before {
                break;
            }
        }
        expired.sort_unstable_by_key(|expired| expired.sequence);
        expired
    }

    /// Whether any message's life is over. Cost: a look at the first of each order.
    #[inline]
    pub(crate) fn has_expired(&self) -> bool {
        self.held.next_expiry().is_some_and(|(at, _)| at <= self.now)
            || self.ready.eldest().is_some_and(|item| self.is_over(item))
    }

    fn is_over(&self, item: &Item) -> bool {
        self.expiry(item.since, 0) <= self.now
    }

    /// When the next message expires.
    pub(crate) fn next_expiry(&self) -> Option<i64> {
        let held = self.held.next_expiry().map(|(at, _)| at);
        let line = self.ready.eldest().map(|item| self.expiry(item.since, 0));
        held.into_iter().chain(line).min()
    }

    /// When something happens next by time alone. (Schedules go by the wall clock and are not counted here.)
    pub(crate) fn next_moment(&self) -> Option<i64> {
        let wake = self.held.next_wake().map(|(at, _)| at);
        let expiry = self.held.next_expiry().map(|(at, _)| at);
        let run = self.ready.eldest().map(|item| self.expiry(item.since, 0));
        wake.into_iter().chain(expiry).chain(run).min()
    }
}
