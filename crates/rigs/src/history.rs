//! What was asked of a store and what it acknowledged, kept outside of it.
//!
//! Operations follow one another, and an acknowledgement covers everything before it. So whatever a crash leaves must be
//! the outcome of the first *k* operations, where *k* is at least what was acknowledged and at most what was begun.

use std::ops::RangeInclusive;

/// A moment, told by how long the log of writes was.
pub type Moment = u64;

/// Operations with the moments of their beginning and of their acknowledgement.
#[derive(Clone, Debug, Default)]
pub struct History {
    begun: Vec<Moment>,
    done: Vec<Moment>,
}

impl History {
    /// The next operation begins.
    pub fn begin(&mut self, now: Moment) {
        self.begun.push(now);
    }

    /// All operations that have begun are acknowledged, up to the `count`-th.
    pub fn acknowledge(&mut self, count: usize, now: Moment) {
        self.done.resize(self.done.len().max(count), now);
    }

    /// How many have begun.
    pub fn begun(&self) -> usize {
        self.begun.len()
    }

    /// How many are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.done.len()
    }

    /// How many operations may be found after a crash at `moment`.
    pub fn legal(&self, moment: Moment) -> RangeInclusive<usize> {
        let least = self.done.partition_point(|done| *done <= moment);
        let most = self.begun.partition_point(|begun| *begun <= moment);
        least..=most
    }
}

/// In what way a store differs from every legal outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Something acknowledged is not there, or a deletion was forgotten.
    Lost(String),
    /// Something is there that was never asked for, or not yet.
    Invented(String),
    /// Everything is there, in another order.
    Reordered(String),
    /// The store cannot be opened or read.
    Refused(String),
}

impl Violation {
    /// Says where it was seen.
    pub fn at(self, place: &str) -> Violation {
        let add = |what| format!("{place}: {what}");
        match self {
            Violation::Lost(what) => Violation::Lost(add(what)),
            Violation::Invented(what) => Violation::Invented(add(what)),
            Violation::Reordered(what) => Violation::Reordered(add(what)),
            Violation::Refused(what) => Violation::Refused(add(what)),
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Violation::Lost(what) => write!(f, "LOST: {what}"),
            Violation::Invented(what) => write!(f, "INVENTED: {what}"),
            Violation::Reordered(what) => write!(f, "REORDERED: {what}"),
            Violation::Refused(what) => write!(f, "REFUSED: {what}"),
        }
    }
}

/// Holds a number of operations that was found against what is legal.
pub fn judge(found: usize, legal: &RangeInclusive<usize>) -> Result<(), Violation> {
    let what = || format!("{found} operations found, {legal:?} are legal");
    if found < *legal.start() {
        Err(Violation::Lost(what()))
    } else if found > *legal.end() {
        Err(Violation::Invented(what()))
    } else {
        Ok(())
    }
}
