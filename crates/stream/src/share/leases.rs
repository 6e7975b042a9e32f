//! Who holds which records of one partition of a share group: leases, returns, and one at a time for each key.
//!
//! ```text
//!            scan                 grant                     accept, reject
//!   not seen ----> free ------------------------> leased ------------------> done (the journal knows)
//!                   ^  \ key busy                    |
//!                   |   -----> parked behind         | release, lease ran out
//!                   |          its key's head        |
//!                   ---------------------------------
//! ```
//! Everything below the cursor is done, free, leased or parked. All of this ends with the process: a new one scans
//! from the first record that is not done. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::group::MemberId;

/// A record on loan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    /// Given once in the life of the process, so that an acknowledgement of an earlier loan is told from this one.
    id: u64,
    holder: MemberId,
    until: Duration,
}

/// Why an acknowledgement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseLost;

/// The records of one key: the first is free or leased, the others wait for it.
type Waiting = VecDeque<u64>;

#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Every offset below was looked at.
    cursor: u64,
    /// Retention took every record below.
    start: u64,
    /// To be handed out (again), in the order of offsets.
    free: BTreeSet<u64>,
    leased: BTreeMap<u64, Lease>,
    by_deadline: BTreeSet<(Duration, u64)>,
    /// For key-ordered groups: the records of each key that has one which is not done.
    keys: HashMap<u64, Waiting>,
    /// The key of each record that is free or leased and has one.
    key_of: HashMap<u64, u64>,
    parked: usize,
}

impl Leases {
    pub(crate) fn starting_at(cursor: u64) -> Leases {
        Leases { cursor, ..Leases::default() }
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(crate) fn leased_count(&self) -> usize {
        self.leased.len()
    }

    /// How many records wait for an earlier one of their key.
    pub(crate) fn parked_count(&self) -> usize {
        self.parked
    }

    /// The first end of a lease at `from` or later.
    pub(crate) fn next_deadline(&self, from: Duration) -> Option<Duration> {
        self.by_deadline.range((from, 0)..).next().map(|(until, _)| *until)
    }

    /// Notes that everything up to `offset` was looked at: what [`Leases::see`] was not told of is done.
    pub(crate) fn advance_cursor(&mut self, offset: u64) {
        self.cursor = self.cursor.max(offset);
    }

    /// A record that is not done was found at or after the cursor. With a key, it waits for earlier ones of that key.
    pub(crate) fn see(&mut self, offset: u64, key: Option<u64>) {
        debug_assert!(offset >= self.cursor, "each record is looked at once");
        self.cursor = offset + 1;
        let Some(key) = key else {
            self.free.insert(offset);
            return;
        };
        let waiting = self.keys.entry(key).or_default();
        waiting.push_back(offset);
        if waiting.len() == 1 {
            self.key_of.insert(offset, key);
            self.free.insert(offset);
        } else {
            self.parked += 1;
        }
    }

    /// The first free record at `from` or after.
    pub(crate) fn next_free(&self, from: u64) -> Option<u64> {
        self.free.range(from..).next().copied()
    }

    /// Lends a free record until `until`.
    pub(crate) fn grant(&mut self, offset: u64, id: u64, holder: MemberId, until: Duration) {
        if self.free.remove(&offset) {
            self.leased.insert(offset, Lease { id, holder, until });
            self.by_deadline.insert((until, offset));
        }
    }

    /// Whether lease `id` on `offset` still holds.
    pub(crate) fn check(&self, offset: u64, id: u64, now: Duration) -> Result<(), LeaseLost> {
        match self.leased.get(&offset) {
            Some(lease) if lease.id == id && now <= lease.until => Ok(()),
            _ => Err(LeaseLost),
        }
    }

    pub(crate) fn renew(&mut self, offset: u64, until: Duration) {
        if let Some(lease) = self.leased.get_mut(&offset) {
            self.by_deadline.remove(&(lease.until, offset));
            lease.until = until;
            self.by_deadline.insert((until, offset));
        }
    }

    /// A record is done. The next of its key becomes free.
    pub(crate) fn finish(&mut self, offset: u64) {
        self.end_lease(offset);
        self.free.remove(&offset);
        let Some(key) = self.key_of.remove(&offset) else { return };
        let Some(waiting) = self.keys.get_mut(&key) else { return };
        waiting.pop_front();
        match waiting.front() {
            Some(next) => {
                self.parked -= 1;
                self.key_of.insert(*next, key);
                self.free.insert(*next);
            }
            None => {
                self.keys.remove(&key);
            }
        }
    }

    /// A record comes back to be handed out again, if it is still there; its key stays with it.
    pub(crate) fn put_back(&mut self, offset: u64) {
        if offset < self.start {
            self.finish(offset);
        } else if self.end_lease(offset) {
            self.free.insert(offset);
        }
    }

    fn end_lease(&mut self, offset: u64) -> bool {
        match self.leased.remove(&offset) {
            Some(lease) => self.by_deadline.remove(&(lease.until, offset)),
            None => false,
        }
    }

    /// The records whose lease ran out before `now`; they stay leased until they are put back or finished.
    pub(crate) fn run_out(&self, now: Duration) -> Vec<u64> {
        self.by_deadline
            .iter()
            .take_while(|(until, _)| *until < now)
            .map(|(_, offset)| *offset)
            .collect()
    }

    /// What `holder` has on loan.
    pub(crate) fn held_by(&self, holder: MemberId) -> Vec<u64> {
        self.leased
            .iter()
            .filter(|(_, lease)| lease.holder == holder)
            .map(|(offset, _)| *offset)
            .collect()
    }

    /// Retention took everything below `start`, and loans of it end; but one with a key may still be worked on, and keeps the
    /// next record of its key waiting until its lease ends.
    pub(crate) fn forget_below(&mut self, start: u64) {
        self.cursor = self.cursor.max(start);
        self.start = self.start.max(start);
        let leased: Vec<u64> = self.leased.range(..start).map(|(offset, _)| *offset).collect();
        for offset in leased {
            match self.key_of.get(&offset).and_then(|key| self.keys.get_mut(key)) {
                Some(waiting) => {
                    let known = waiting.len();
                    waiting.retain(|waiting| *waiting == offset || *waiting >= start);
                    self.parked -= known - waiting.len();
                }
                None => self.finish(offset),
            }
        }
        // Finishing a key's head may free the next, which may be below as well.
        while let Some(offset) = self.free.first().copied().filter(|offset| *offset < start) {
            self.finish(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ME: MemberId = MemberId(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn free(leases: &Leases) -> Vec<u64> {
        std::iter::successors(leases.next_free(0), |at| leases.next_free(at + 1)).collect()
    }

    #[test]
    fn a_record_that_comes_back_is_handed_out_before_later_ones() {
        let mut leases = Leases::starting_at(0);
        (0..4).for_each(|offset| leases.see(offset, None));
        (0..3).for_each(|offset| leases.grant(offset, offset + 100, ME, at(30)));
        leases.put_back(1);
        assert_eq!(free(&leases), [1, 3]);
        leases.finish(0);
        assert_eq!(leases.leased_count(), 1);
    }

    #[test]
    fn an_acknowledgement_of_an_earlier_loan_is_refused() {
        let mut leases = Leases::starting_at(0);
        leases.see(0, None);
        leases.grant(0, 1, ME, at(30));
        assert_eq!(leases.check(0, 1, at(30)), Ok(()));
        assert_eq!(leases.check(0, 1, at(31)), Err(LeaseLost));
        assert_eq!(leases.run_out(at(30)), [0_u64; 0]);
        assert_eq!(leases.run_out(at(31)), [0]);
        leases.put_back(0);
        leases.grant(0, 2, MemberId(2), at(60));
        assert_eq!(leases.check(0, 1, at(31)), Err(LeaseLost));
        assert_eq!(leases.check(0, 2, at(31)), Ok(()));
        leases.renew(0, at(90));
        assert_eq!(leases.check(0, 2, at(80)), Ok(()));
        assert_eq!(leases.next_deadline(Duration::ZERO), Some(at(90)));
        leases.finish(0);
        assert_eq!(leases.check(0, 2, at(31)), Err(LeaseLost));
    }

    #[test]
    fn a_blocked_key_hides_no_other_however_many_records_it_has() {
        let mut leases = Leases::starting_at(0);
        leases.see(0, Some(7));
        leases.grant(0, 1, ME, at(30));
        (1..100_000).for_each(|offset| leases.see(offset, Some(7)));
        leases.see(100_000, Some(8));
        assert_eq!(free(&leases), [100_000]);
        assert_eq!(leases.parked_count(), 99_999);
        leases.finish(0);
        assert_eq!(free(&leases), [1, 100_000]);
    }

    #[test]
    fn retention_takes_parked_records_too() {
        let mut leases = Leases::starting_at(0);
        (0..10).for_each(|offset| leases.see(offset, Some(offset % 2)));
        leases.grant(0, 1, ME, at(30));
        leases.forget_below(7);
        assert_eq!((free(&leases), leases.parked_count(), leases.leased_count()), (vec![7], 2, 1));
        leases.finish(0);
        assert_eq!(
            (free(&leases), leases.parked_count(), leases.leased_count()),
            (vec![7, 8], 1, 0)
        );
    }

    /// The next record of its key was handed out while the one that retention took was still worked on.
    #[test]
    fn what_retention_takes_while_it_is_leased_keeps_its_key_until_the_lease_ends() {
        for end in [Leases::finish, Leases::put_back] {
            let mut leases = Leases::starting_at(0);
            (0..2).for_each(|offset| leases.see(offset, Some(7)));
            leases.grant(0, 1, ME, at(30));
            leases.forget_below(1);
            assert_eq!(free(&leases), [0_u64; 0]);
            assert_eq!(leases.check(0, 1, at(30)), Ok(()));
            end(&mut leases, 0);
            assert_eq!((free(&leases), leases.leased_count()), (vec![1], 0));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        See(Option<u64>),
        Grant,
        Finish(usize),
        PutBack(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::option::of(0u64..4).prop_map(Step::See),
            Just(Step::Grant),
            (0usize..10).prop_map(Step::Finish),
            (0usize..10).prop_map(Step::PutBack),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn of_each_key_one_record_at_a_time_in_order_and_nothing_is_forgotten(
            steps in proptest::collection::vec(step(), 1..80)
        ) {
            let mut leases = Leases::starting_at(0);
            let mut open: BTreeMap<u64, Option<u64>> = BTreeMap::new();
            for (n, step) in steps.into_iter().enumerate() {
                let held = leases.held_by(ME);
                let pick = |i: usize| held.get(i % held.len().max(1)).copied();
                match step {
                    Step::See(key) => {
                        open.insert(leases.cursor(), key);
                        leases.see(leases.cursor(), key);
                    }
                    Step::Grant => if let Some(offset) = leases.next_free(0) {
                        leases.grant(offset, n as u64, ME, at(30));
                    }
                    Step::Finish(i) => if let Some(offset) = pick(i) {
                        leases.finish(offset);
                        open.remove(&offset);
                    }
                    Step::PutBack(i) => if let Some(offset) = pick(i) {
                        leases.put_back(offset);
                    }
                }
                // A record is to be had, or on loan, exactly if it is the first of its key that is not done.
                let mut seen_keys = BTreeSet::new();
                let first: Vec<u64> = open
                    .iter()
                    .filter(|(_, key)| key.is_none_or(|key| seen_keys.insert(key)))
                    .map(|(offset, _)| *offset)
                    .collect();
                let mut out = free(&leases);
                out.extend(leases.held_by(ME));
                out.sort_unstable();
                prop_assert_eq!(&out, &first);
                prop_assert_eq!(leases.parked_count(), open.len() - first.len());
            }
        }
    }
}
