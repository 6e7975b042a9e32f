//! What the explorers of crashes and faults need of a machine with a store on it: to be copied, run, cut, and asked.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use logmill_storage::Error;
use logmill_storage::io::sim::{CrashPlan, SimDisk};

use crate::counts::Counts;
use crate::examine::Looks;
use crate::oracle::End;
use crate::random::Random;

/// Something that a replay line spells.
pub trait Word:
    Copy + PartialEq + Debug + Display + FromStr<Err = String> + Send + Sync + 'static
{
}

impl<T> Word for T where
    T: Copy + PartialEq + Debug + Display + FromStr<Err = String> + Send + Sync + 'static
{
}

/// Why a run did not go on.
#[derive(Debug)]
pub enum Halt {
    /// The machine was stopped: what the store says no longer counts.
    Cut,
    /// The store refused.
    Refused(Error),
    /// A promise was broken.
    Broken(String),
}

impl From<String> for Halt {
    fn from(what: String) -> Halt {
        Halt::Broken(what)
    }
}

/// Workloads of which all short ones are tried.
#[derive(Debug)]
pub struct Book<W: World> {
    /// Its name.
    pub name: &'static str,
    /// The stores.
    pub setups: &'static [W::Setup],
    /// The operations.
    pub letters: &'static [W::Op],
    /// Its part of the states, in proportion to the other books and to the long workloads, which have 100.
    pub share: u64,
}

/// A machine, its store, and an account of what the store has promised.
pub trait World: Debug + Sized + Send + 'static {
    /// The variants of the store.
    type Setup: Word;
    /// What a workload may do to it.
    type Op: Word;
    /// What is found when the store is opened.
    type Found: Debug;

    /// An operation that must be possible on a healthy disk.
    const PROBE: Self::Op;
    /// An operation that looks at everything.
    const LOOK: Self::Op;
    /// How a user goes on after a recovery.
    const GOES_ON: &'static [Self::Op];

    /// Its alphabets.
    fn books() -> Vec<Book<Self>>;
    /// Any variant.
    fn random_setup(random: &mut Random) -> Self::Setup;
    /// Any operation.
    fn random_op(random: &mut Random) -> Self::Op;

    /// A machine that is off, with an empty disk.
    fn empty(setup: Self::Setup, seed: u64) -> Self;
    /// A machine that is off, whose store was made and closed.
    fn fresh(setup: Self::Setup, seed: u64) -> Result<Self, Halt>;
    /// The same machine again, off, and with its own disk.
    fn copy(&self, seed: u64) -> Self;
    /// Takes the account of the same machine at an earlier time: nobody has heard of what happened since.
    fn take_account_of(&mut self, earlier: &Self);

    /// The disk.
    fn disk(&self) -> &SimDisk;
    /// The variant.
    fn setup(&self) -> Self::Setup;
    /// Counts what a workload has come to.
    fn tally(&self, counts: &mut Counts);
    /// The promises, for people.
    fn promises(&self) -> String;

    /// Opens the store and compares what is there with what was promised before the last session ended `how`.
    fn start(&mut self, how: End) -> Result<Self::Found, Halt>;
    /// Runs one operation. A refusal leaves the account as it must be then.
    fn run(&mut self, op: Self::Op) -> Result<(), Halt>;
    /// Whether a store is open.
    fn is_open(&self) -> bool;
    /// The process dies, with all that it had open; the disk stays as it is.
    fn kill(&mut self);
    /// The power goes.
    fn crash(&mut self, plan: &CrashPlan);

    /// Counts what opening `self` as `open` has found.
    fn note(&self, open: &Self, found: &Self::Found, counts: &mut Counts);
    /// Whether two openings have found the same.
    fn same(first: &Self::Found, second: &Self::Found) -> bool;
    /// Looks that only this kind of store has, at `self` as the crash left it and at `open`, the same after recovery.
    fn compare(
        &self,
        how: End,
        open: &Self,
        found: &Self::Found,
        looks: Looks,
        seed: u64,
        counts: &mut Counts,
    ) -> Result<(), String>;
    /// Ends of the paths of files that can be had again from others.
    const DERIVED: &'static [&'static str];
    /// They were taken away or damaged.
    fn stripped(&mut self);

    /// A call has failed that may have left bytes behind, so what was only stored is no longer sure.
    fn doubt(&mut self);
    /// Whether one has.
    fn is_doubtful(&self) -> bool;
    /// Whether this operation may show less than before, after such a call.
    fn may_forget(&self, op: Self::Op) -> bool;
    /// Whether any answer may follow a failed write or sync, since it is met later.
    fn answers_late(setup: Self::Setup) -> bool;
}

/// A refusal of a healthy disk's store is a broken promise, too.
pub fn explain(halt: Halt) -> String {
    match halt {
        Halt::Cut => "the machine was cut, and should not have been".into(),
        Halt::Refused(e) => format!("refused: {e}"),
        Halt::Broken(what) => what,
    }
}

/// The sequence of `len` of the `letters` that has the number `index`.
pub fn enumerated<T: Copy>(letters: &[T], len: u32, mut index: u64) -> Vec<T> {
    let count = letters.len() as u64;
    (0..len)
        .map(|_| {
            let letter = letters[(index % count) as usize];
            index /= count;
            letter
        })
        .collect()
}
