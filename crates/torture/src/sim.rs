//! Crash states: every short workload, many long ones, cut at every call, with what each cut may leave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::case::{Case, Cut, Plan};
use crate::counts::Counts;
use crate::examine::{Looks, cut_recovery, examine, lose, stop, unless_panicked};
use crate::oracle::End;
use crate::random::{Random, mix};
use crate::world::{Book, Halt, World, enumerated, explain};

/// A broken promise.
#[derive(Debug)]
pub struct Failure<W: World> {
    /// How to have it again.
    pub case: Case<W>,
    /// What was wrong.
    pub what: String,
}

/// How many plans are tried at a point.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// One point in so many is tried.
    pub point_stride: u64,
    /// Beside the fixed plans, so many random ones.
    pub random_plans: u64,
    /// Whether the plans that leave nothing, everything or the page cache are all tried, and all subsets where there are few.
    pub fixed_plans: bool,
    /// How the results are looked at; `None`: a few ways by turns.
    pub looks: Option<Looks>,
}

/// What [`run`] is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Decides everything.
    pub seed: u64,
    /// About how many crash states.
    pub states: u64,
    /// Worker threads.
    pub threads: u64,
}

/// A base for workloads: a store that was made and closed. One for each setup, made once.
#[derive(Debug)]
struct Bases<W>(Mutex<Vec<W>>);

impl<W: World> Bases<W> {
    const fn new() -> Bases<W> {
        Bases(Mutex::new(Vec::new()))
    }

    fn machine(&self, setup: W::Setup, salt: u64) -> Result<W, String> {
        let mut bases = self.0.lock().map_err(|_| "a worker has panicked")?;
        if let Some(known) = bases.iter().find(|machine| machine.setup() == setup) {
            return Ok(known.copy(salt));
        }
        let machine = W::fresh(setup, 1).map_err(explain)?;
        let copy = machine.copy(salt);
        bases.push(machine);
        Ok(copy)
    }
}

/// Workloads begin on a store that was made and closed, but for this salt: then on an empty disk.
pub const SALT_EMPTY: u64 = 0;

fn base<W: World>(bases: &Bases<W>, setup: W::Setup, salt: u64) -> Result<W, String> {
    if salt == SALT_EMPTY {
        return Ok(W::empty(setup, 9));
    }
    bases.machine(setup, mix(salt))
}

/// Opens the store and runs the workload; `Ok(false)`: it was cut.
fn play<W: World>(machine: &mut W, ops: &[W::Op]) -> Result<bool, String> {
    match machine.start(End::Closed) {
        Ok(_) => {}
        Err(Halt::Cut) => return Ok(false),
        Err(halt) => return Err(explain(halt)),
    }
    for op in ops {
        match machine.run(*op) {
            Ok(()) => {}
            Err(Halt::Cut) => return Ok(false),
            Err(halt) => return Err(format!("{op}: {}", explain(halt))),
        }
    }
    Ok(true)
}

/// Tries one workload at its points.
fn explore<W: World>(
    bases: &Bases<W>,
    case: &Case<W>,
    effort: Effort,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<(), (Case<W>, String)> {
    let blame = |what: String| (case.clone(), what);
    counts.workloads += 1;
    let mut whole = base(bases, case.setup, case.salt).map_err(blame)?;
    if !play(&mut whole, &case.ops).map_err(blame)? {
        return Err(blame("a workload that nobody cut was cut".into()));
    }
    whole.tally(counts);
    let mut points = whole.disk().change_points();
    points.push(whole.disk().ops().total());
    for point in points {
        if !random.once_in(effort.point_stride) {
            continue;
        }
        for inside in [false, true] {
            if inside && !effort.fixed_plans && random.once_in(2) {
                continue;
            }
            counts.points += 1;
            let mut machine = base(bases, case.setup, case.salt).map_err(blame)?;
            stop(&machine, Cut { point, inside, plan: Plan::Kill });
            if let Err(what) = play(&mut machine, &case.ops) {
                let cuts = vec![Cut { point, inside, plan: Plan::Kill }];
                return Err((case.with_cuts(cuts), what));
            }
            for plan in plans(&machine, effort, inside, random) {
                let case = case.with_cuts(vec![Cut { point, inside, plan }]);
                let mut left = machine.copy(case.seed());
                let how = lose(&mut left, plan, End::Process);
                let looks = effort.looks.unwrap_or_else(|| Looks::some(random));
                examine(&left, how, &case, looks, counts)?;
            }
        }
    }
    Ok(())
}

fn plans<W: World>(machine: &W, effort: Effort, inside: bool, random: &mut Random) -> Vec<Plan> {
    let mut plans = Vec::new();
    if effort.fixed_plans {
        plans.push(Plan::Kill);
        if !inside {
            plans.extend([Plan::Nothing, Plan::Everything]);
        }
        let (pieces, names) = (machine.disk().pending_pieces(512), machine.disk().pending_names());
        if !inside && (1..=5).contains(&(pieces + names)) {
            for bits in 1..(1u64 << (pieces + names)) - 1 {
                plans.push(Plan::Exactly(bits & ((1 << pieces) - 1), bits >> pieces));
            }
        }
    } else if random.once_in(4) {
        plans.push(random.pick(&[Plan::Kill, Plan::Nothing, Plan::Everything]));
    }
    for _ in 0..effort.random_plans {
        plans.push(Plan::Random(random.below(1_000_000)));
    }
    plans
}

/// Prints what a cut has left, and the calls of the recovery from it.
#[expect(clippy::print_stderr, reason = "what a replay is for")]
fn narrate<W: World>(left: &W, how: End, case: &Case<W>) {
    let mut copy = left.copy(case.seed());
    let disk = copy.disk().clone();
    for path in disk.paths() {
        let bytes = disk.read_file(&path).unwrap_or_default();
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        eprintln!("  {path}: {} bytes, {used} up to the last that is not zero", bytes.len());
    }
    eprintln!("  promised: {}", copy.promises());
    disk.start_trace();
    let opened = copy.start(how);
    for line in disk.trace() {
        eprintln!("  {line}");
    }
    eprintln!("  {opened:?}");
}

/// Runs a case again and looks at it in all ways; says what happens unless `quiet`.
pub fn replay<W: World>(case: &Case<W>, quiet: bool) -> Result<Counts, Failure<W>> {
    let bases = Bases::<W>::new();
    let mut counts = Counts::default();
    caught(case, || {
        let blame = |what: String| (case.clone(), what);
        let mut machine = base(&bases, case.setup, case.salt).map_err(blame)?;
        let Some((first, deeper)) = case.cuts.split_first() else {
            play(&mut machine, &case.ops).map_err(blame)?;
            return Ok(());
        };
        stop(&machine, *first);
        play(&mut machine, &case.ops).map_err(blame)?;
        let mut so_far = case.with_cuts(vec![*first]);
        let mut left = machine.copy(so_far.seed());
        let mut how = lose(&mut left, first.plan, End::Process);
        for cut in deeper {
            (left, how) = cut_recovery(&left, how, &so_far, *cut).map_err(blame)?;
            so_far.cuts.push(*cut);
        }
        if !quiet {
            narrate(&left, how, &so_far);
        }
        examine(&left, how, &so_far, Looks { nested: 8, ..Looks::ALL }, &mut counts)
    })?;
    Ok(counts)
}

/// Cuts the workload of `case` at every call, with `plans` random losses at each beside the fixed ones, looks at what is left
/// in all ways, and cuts each recovery `nested` times. Unlike a replay it goes on to mean the same when calls come and go.
pub fn every_cut<W: World>(case: &Case<W>, plans: u64, nested: u32) -> Result<Counts, Failure<W>> {
    let bases = Bases::<W>::new();
    let mut counts = Counts::default();
    let looks = Some(Looks { nested, ..Looks::ALL });
    let effort = Effort { point_stride: 1, random_plans: plans, fixed_plans: true, looks };
    let case = case.with_cuts(Vec::new());
    caught(&case, || explore(&bases, &case, effort, &mut Random::new(case.salt), &mut counts))?;
    Ok(counts)
}

fn caught<W: World>(
    case: &Case<W>,
    work: impl FnOnce() -> Result<(), (Case<W>, String)>,
) -> Result<(), Failure<W>> {
    match unless_panicked(work) {
        Ok(done) => done.map_err(|(case, what)| Failure { case, what }),
        Err(what) => Err(Failure { case: case.clone(), what }),
    }
}

/// One workload and how much of it is tried.
struct Item<W: World> {
    case: Case<W>,
    effort: Effort,
    random: Random,
}

/// A part of a run.
enum Phase<W: World> {
    /// Single operations of a book on an empty disk.
    New(Book<W>),
    /// All sequences of so many operations of a book.
    Short(Book<W>, u32),
    /// Long random ones.
    Long,
}

const FULL: Effort = Effort { point_stride: 1, random_plans: 2, fixed_plans: true, looks: None };
const THIN: Effort = Effort { point_stride: 3, random_plans: 1, fixed_plans: false, looks: None };

/// The share of the long workloads.
const LONG: u64 = 100;
/// How the share of a book falls to its new stores, and to its sequences of 1, 2, 3 and 4 operations, in per cent and more, so
/// that ten million states come to the end of all or nearly all of them.
const PARTS: [u64; 5] = [5, 5, 30, 30, 80];

impl<W: World> Phase<W> {
    /// All phases, each with its share.
    fn all() -> Vec<(Phase<W>, u64)> {
        let mut all = Vec::new();
        for (part, percent) in (0..).zip(PARTS) {
            for book in W::books() {
                let share = book.share * percent / 100;
                all.push(match part {
                    0 => (Phase::New(book), share),
                    len => (Phase::Short(book, len), share),
                });
            }
        }
        all.push((Phase::Long, LONG));
        all
    }

    fn name(&self) -> String {
        match self {
            Phase::New(book) => format!("{}, made anew", book.name),
            Phase::Short(book, 1) => format!("{}, 1 operation", book.name),
            Phase::Short(book, len) => format!("{}, {len} operations", book.name),
            Phase::Long => "long".to_owned(),
        }
    }

    /// How many workloads there are, if they can be counted.
    fn items(&self) -> Option<u64> {
        match self {
            Phase::New(book) => Some((book.setups.len() * book.letters.len()) as u64),
            Phase::Short(book, len) => {
                Some(book.setups.len() as u64 * (book.letters.len() as u64).pow(*len))
            }
            Phase::Long => None,
        }
    }

    /// The workload with this number.
    fn item(&self, index: u64, seed: u64) -> Item<W> {
        match self {
            Phase::New(book) => Phase::short(book, 1, index, seed, SALT_EMPTY),
            Phase::Short(book, len) => {
                // A permutation, so that a part of them is a fair sample.
                let count = self.items().unwrap_or(1);
                Phase::short(book, *len, index * 7_919 % count, seed, 1)
            }
            Phase::Long => {
                let mut random = Random::new(mix(seed ^ index ^ 0x6C6F_6E67));
                let setup = W::random_setup(&mut random);
                let len = 4 + random.below(16);
                let ops = (0..len).map(|_| W::random_op(&mut random)).collect();
                let case = Case { setup, salt: 1 + random.below(1_000), ops, cuts: Vec::new() };
                let stride = 1 + random.below(6);
                let effort = Effort { point_stride: stride, random_plans: 2, ..THIN };
                Item { case, effort, random }
            }
        }
    }

    fn short(book: &Book<W>, len: u32, index: u64, seed: u64, salt: u64) -> Item<W> {
        let setups = book.setups.len() as u64;
        let setup = book.setups[(index % setups) as usize];
        let ops = enumerated(book.letters, len, index / setups);
        let effort = if len < 3 { FULL } else { THIN };
        let case = Case { setup, salt, ops, cuts: Vec::new() };
        Item { case, effort, random: Random::new(mix(seed ^ index)) }
    }
}

/// What a phase has come to.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its name.
    pub name: String,
    /// How many workloads there are, if they can be counted.
    pub of: Option<u64>,
    /// What was done.
    pub counts: Counts,
}

/// Runs the job; stops at the first failure, which is then made as small as it gets.
pub fn run<W: World>(job: Job) -> (Vec<Done>, Option<Failure<W>>) {
    let bases = Bases::new();
    let mut done = Vec::new();
    let phases = Phase::<W>::all();
    let mut left: u64 = phases.iter().map(|(_, share)| share).sum();
    let mut budget = job.states;
    for (phase, share) in &phases {
        // What a phase does not need is for the others.
        let wanted = budget * share / left.max(1);
        let (counts, failure) = run_phase(&bases, phase, wanted, job);
        budget = budget.saturating_sub(counts.states);
        left -= share;
        done.push(Done { name: phase.name(), of: phase.items(), counts });
        if let Some((failure, effort)) = failure {
            return (done, Some(shrink(&bases, failure, effort)));
        }
    }
    (done, None)
}

#[expect(clippy::disallowed_methods, reason = "one thread for each core")]
fn run_phase<W: World>(
    bases: &Bases<W>,
    phase: &Phase<W>,
    states: u64,
    job: Job,
) -> (Counts, Option<(Failure<W>, Effort)>) {
    let (next, so_far, stopped) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Counts::default());
    let failure = Mutex::new(None);
    let work = || {
        let mut counts = Counts::default();
        while !stopped.load(Ordering::Relaxed) && so_far.load(Ordering::Relaxed) < states {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if phase.items().is_some_and(|items| index >= items) {
                break;
            }
            let mut item = phase.item(index, job.seed);
            let before = counts.states;
            let result = caught(&item.case, || {
                explore(bases, &item.case, item.effort, &mut item.random, &mut counts)
            });
            so_far.fetch_add(counts.states - before, Ordering::Relaxed);
            if let Err(found) = result {
                stopped.store(true, Ordering::Relaxed);
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert((found, item.effort));
                }
            }
        }
        if let Ok(mut total) = total.lock() {
            *total += counts;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..job.threads.max(1) {
            scope.spawn(work);
        }
    });
    (total.into_inner().unwrap_or_default(), failure.into_inner().ok().flatten())
}

/// Leaves operations out as long as what remains fails, too.
fn shrink<W: World>(bases: &Bases<W>, mut failure: Failure<W>, effort: Effort) -> Failure<W> {
    let effort = Effort { point_stride: 1, random_plans: effort.random_plans.max(4), ..FULL };
    let mut at = 0;
    let mut tries = 0;
    while at < failure.case.ops.len() && tries < 200 {
        tries += 1;
        let mut smaller = failure.case.with_cuts(Vec::new());
        smaller.ops.remove(at);
        let mut random = Random::new(tries);
        let tried = caught(&smaller, || {
            explore(bases, &smaller, effort, &mut random, &mut Counts::default())
        });
        match tried {
            Err(found) if found.what.split(' ').next() == failure.what.split(' ').next() => {
                failure = found;
            }
            _ => at += 1,
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueMachine;

    /// A power loss took a message that had been received, and its number was given to another one. The queue refused the
    /// receipt of the first, as it must, and the account, which knew of no such message, took that for a broken promise.
    #[test]
    fn a_receipt_of_a_lost_message_has_no_power_over_the_one_that_has_its_number() {
        for setup in ["queue+fifo+positional+buffered", "queue+mapped+buffered"] {
            let line = format!("{setup};750;delete big send take power503 three delete look;");
            let case: Case<QueueMachine> = line.parse().unwrap();
            replay(&case, true).unwrap_or_else(|failure| panic!("{}: {case}", failure.what));
        }
    }
}
