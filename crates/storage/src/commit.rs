//! Group commit: who syncs, who waits, and what they are told.
//!
//! Whoever needs an offset durable and finds nobody syncing becomes the leader and syncs everything that was appended
//! before; the others wait for it. A failed sync ends the log's writing life: every waiter learns that its outcome is
//! unknown, and nobody ever syncs those files again, since the kernel would say yes to pages that it has dropped.

use std::task::Waker;

use crate::planted::{self, Bug};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// The hand-over between the leader and those who wait.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    state: Mutex<State>,
    moved: Condvar,
    /// Set with `state` locked; appends look without locking.
    poisoned: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    syncing: bool,
    /// Somebody has waited for the leader since the last one began.
    has_company: bool,
    /// Every offset below is durable.
    durable: u64,
    /// Writes that failed for want of space: what was appended in `generation` from `from` on never came to be.
    rollbacks: Vec<Rollback>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct Rollback {
    generation: u64,
    from: u64,
}

/// What somebody waits for: the durability of all offsets below `end`, given out in `generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub end: u64,
    pub generation: u64,
}

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Pending,
    Durable,
    /// There was no space for it.
    RolledBack,
    /// A sync failed before it was known to be durable.
    Unknown,
}

impl State {
    fn standing(&self, claim: Claim, poisoned: &AtomicBool) -> Standing {
        let rolled_back = |r: &Rollback| r.generation >= claim.generation && r.from < claim.end;
        if self.rollbacks.iter().any(rolled_back) {
            Standing::RolledBack
        } else if self.durable >= claim.end {
            Standing::Durable
        } else if poisoned.load(Ordering::Acquire) {
            Standing::Unknown
        } else {
            Standing::Pending
        }
    }
}

/// Leading: whoever holds it syncs, and no one else does.
#[derive(Debug)]
pub(crate) struct Lead<'a> {
    commit: &'a Commit,
    has_company: bool,
}

impl Lead<'_> {
    /// Lets those run who were woken together with this leader: what they append is then synced with the rest. Without it one
    /// half of them waited while the other half was synced, and each sync covered half as much as it could.
    pub fn let_others_append(&self) {
        if self.has_company {
            thread::yield_now();
        }
    }
}

impl Drop for Lead<'_> {
    /// A leader that panics must not leave the others waiting for ever.
    fn drop(&mut self) {
        self.commit.state.lock().syncing = false;
        self.commit.moved.notify_all();
    }
}

impl Commit {
    pub fn starting_at(durable: u64) -> Commit {
        Commit { state: Mutex::new(State { durable, ..State::default() }), ..Commit::default() }
    }

    pub fn standing(&self, claim: Claim) -> Standing {
        self.state.lock().standing(claim, &self.poisoned)
    }

    /// As [`standing`](Self::standing), and keeps `waker` if it is pending.
    pub fn standing_or_wake(&self, claim: Claim, waker: &Waker) -> Standing {
        let mut state = self.state.lock();
        let standing = state.standing(claim, &self.poisoned);
        // A task that asks again has mostly been the last one too. Looking through all of them would make thousands of
        // waiting tasks pay for each other, and one that is there twice is woken twice.
        if standing == Standing::Pending
            && !state.wakers.last().is_some_and(|kept| kept.will_wake(waker))
        {
            if planted::has(Bug::WakerKeptLate) {
                drop(state);
                state = self.state.lock();
            }
            state.wakers.push(waker.clone());
        }
        standing
    }

    /// Waits until the claim is settled, or until it is this thread's turn to lead.
    pub fn wait_or_lead(&self, claim: Claim) -> Result<Standing, Lead<'_>> {
        let mut state = self.state.lock();
        loop {
            match state.standing(claim, &self.poisoned) {
                Standing::Pending if state.syncing => {
                    state.has_company = true;
                    self.moved.wait(&mut state);
                }
                Standing::Pending => {
                    state.syncing = true;
                    let has_company = std::mem::take(&mut state.has_company);
                    return Err(Lead { commit: self, has_company });
                }
                settled => return Ok(settled),
            }
        }
    }

    /// The leader's news: everything below `durable` is.
    pub fn advance(&self, durable: u64) {
        let mut state = self.state.lock();
        state.durable = state.durable.max(durable);
        wake(state);
    }

    /// What was appended from `from` on, in `generation` or before, never came to be.
    pub fn roll_back(&self, generation: u64, from: u64) {
        let mut state = self.state.lock();
        // It covers what earlier ones did from there on: a disk that stays full leaves one.
        state.rollbacks.retain(|earlier| earlier.from < from);
        state.rollbacks.push(Rollback { generation, from });
        wake(state);
        self.moved.notify_all();
    }

    pub fn poison(&self) {
        let state = self.state.lock();
        self.poisoned.store(true, Ordering::Release);
        wake(state);
        self.moved.notify_all();
    }

    /// Waits until nobody syncs. Where it was poisoned nobody begins to any more.
    pub fn wait_for_leader(&self) {
        let mut state = self.state.lock();
        while state.syncing {
            self.moved.wait(&mut state);
        }
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let wakers = std::mem::take(&mut state.wakers);
    drop(state);
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn claim(end: u64, generation: u64) -> Claim {
        Claim { end, generation }
    }

    #[test]
    fn the_first_to_wait_leads_and_the_settled_return_at_once() {
        let commit = Commit::starting_at(10);
        assert!(matches!(commit.wait_or_lead(claim(10, 0)), Ok(Standing::Durable)));
        let lead = commit.wait_or_lead(claim(11, 0)).expect_err("nobody leads yet");
        commit.advance(12);
        drop(lead);
        assert!(matches!(commit.wait_or_lead(claim(12, 0)), Ok(Standing::Durable)));
    }

    #[test]
    fn a_rollback_settles_its_generation_and_not_the_offsets_given_again() {
        let commit = Commit::starting_at(0);
        commit.roll_back(3, 5);
        assert_eq!(commit.standing(claim(5, 3)), Standing::Pending);
        assert_eq!(commit.standing(claim(6, 3)), Standing::RolledBack);
        assert_eq!(commit.standing(claim(6, 4)), Standing::Pending);
        commit.advance(6);
        assert_eq!(commit.standing(claim(6, 3)), Standing::RolledBack);
        assert_eq!(commit.standing(claim(6, 4)), Standing::Durable);
    }

    #[test]
    fn rollbacks_on_a_disk_that_stays_full_do_not_pile_up() {
        let commit = Commit::starting_at(0);
        commit.roll_back(0, 3);
        for generation in 1..1000 {
            commit.roll_back(generation, 5);
        }
        assert_eq!(commit.state.lock().rollbacks.len(), 2);
        assert_eq!(commit.standing(claim(4, 0)), Standing::RolledBack);
        assert_eq!(commit.standing(claim(6, 500)), Standing::RolledBack);
        assert_eq!(commit.standing(claim(6, 1000)), Standing::Pending);
    }

    #[test]
    fn poison_makes_the_pending_unknown_and_leaves_the_durable_durable() {
        let commit = Commit::starting_at(4);
        commit.poison();
        assert_eq!(commit.standing(claim(4, 0)), Standing::Durable);
        assert_eq!(commit.standing(claim(5, 0)), Standing::Unknown);
    }
}
