//! Crash states: every short workload, many long ones, cut at every call, with what each cut may leave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::case::{Case, Cut, Plan};
use crate::counts::Counts;
use crate::examine::{Looks, cut_recovery, examine, explain, lose, stop, unless_panicked};
use crate::op::{Op, SMALL, enumerated};
use crate::oracle::{End, Oracle};
use crate::random::{Random, mix};
use crate::run::{Halt, Machine};
use crate::setup::Setup;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How to have it again.
    pub case: Case,
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
struct Bases(Mutex<Vec<(Setup, u64, Machine)>>);

impl Bases {
    fn machine(&self, setup: Setup, salt: u64) -> Result<Machine, String> {
        let mut bases = self.0.lock().map_err(|_| "a worker has panicked")?;
        let known = bases.iter().find(|(s, _, _)| *s == setup);
        if let Some((_, _, machine)) = known {
            return Ok(machine.copy(salt));
        }
        let machine = Machine::fresh(setup, 1).map_err(explain)?;
        let copy = machine.copy(salt);
        bases.push((setup, salt, machine));
        Ok(copy)
    }
}

/// Workloads begin on a store that was made and closed, but for this salt: then on an empty disk.
pub const SALT_EMPTY: u64 = 0;

fn base(bases: &Bases, setup: Setup, salt: u64) -> Result<Machine, String> {
    if salt == SALT_EMPTY {
        return Ok(Machine::new(
            logmill_storage::io::sim::SimDisk::new(9),
            setup,
            Default::default(),
        ));
    }
    bases.machine(setup, mix(salt))
}

/// Opens the store and runs the workload; `Ok(false)`: it was cut.
fn play(machine: &mut Machine, ops: &[Op]) -> Result<bool, String> {
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
fn explore(
    bases: &Bases,
    case: &Case,
    effort: Effort,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<(), (Case, String)> {
    let blame = |what: String| (case.clone(), what);
    counts.workloads += 1;
    let mut whole = base(bases, case.setup, case.salt).map_err(blame)?;
    if !play(&mut whole, &case.ops).map_err(blame)? {
        return Err(blame("a workload that nobody cut was cut".into()));
    }
    counts.acks += whole.oracle.acks;
    let mut points = whole.disk.change_points();
    points.push(whole.disk.ops().total());
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
                let mut case = case.clone();
                case.cuts = vec![Cut { point, inside, plan: Plan::Kill }];
                return Err((case, what));
            }
            for plan in plans(&machine, effort, inside, random) {
                let mut case = case.clone();
                case.cuts = vec![Cut { point, inside, plan }];
                let mut left = machine.copy(case.seed());
                let how = lose(&mut left, plan, End::Process);
                let looks = effort.looks.unwrap_or_else(|| Looks::some(random));
                examine(&left, how, &case, looks, counts)?;
            }
        }
    }
    Ok(())
}

fn plans(machine: &Machine, effort: Effort, inside: bool, random: &mut Random) -> Vec<Plan> {
    let mut plans = Vec::new();
    if effort.fixed_plans {
        plans.push(Plan::Kill);
        if !inside {
            plans.extend([Plan::Nothing, Plan::Everything]);
        }
        let (pieces, names) = (machine.disk.pending_pieces(512), machine.disk.pending_names());
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
fn narrate(left: &Machine, how: End, case: &Case) {
    let mut copy = left.copy(case.seed());
    for path in copy.disk.paths() {
        let bytes = copy.disk.read_file(&path).unwrap_or_default();
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        eprintln!("  {path}: {} bytes, {used} up to the last that is not zero", bytes.len());
    }
    eprintln!("  promised: {:?}", Promises(&copy.oracle));
    copy.disk.start_trace();
    let opened = copy.start(how);
    for line in copy.disk.trace() {
        eprintln!("  {line}");
    }
    eprintln!("  {opened:?}");
    if let Ok(store) = copy.store() {
        eprintln!("  {:?}", store.log().recovery());
    }
}

struct Promises<'a>(&'a Oracle);

impl std::fmt::Debug for Promises<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Oracle { durable, stored, start, start_max, epoch, .. } = self.0;
        write!(
            f,
            "start {start}..={start_max}, durable {durable}, stored {stored}, appended {}, epoch {epoch}",
            self.0.end()
        )
    }
}

/// Runs a case again and looks at it in all ways; says what happens unless `quiet`.
pub fn replay(case: &Case, quiet: bool) -> Result<Counts, Failure> {
    let bases = Bases(Mutex::default());
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
        let mut so_far = Case { cuts: vec![*first], ..case.clone() };
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
pub fn every_cut(case: &Case, plans: u64, nested: u32) -> Result<Counts, Failure> {
    let bases = Bases(Mutex::default());
    let mut counts = Counts::default();
    let looks = Some(Looks { nested, ..Looks::ALL });
    let effort = Effort { point_stride: 1, random_plans: plans, fixed_plans: true, looks };
    let case = Case { cuts: Vec::new(), ..case.clone() };
    caught(&case, || explore(&bases, &case, effort, &mut Random::new(case.salt), &mut counts))?;
    Ok(counts)
}

fn caught(case: &Case, work: impl FnOnce() -> Result<(), (Case, String)>) -> Result<(), Failure> {
    match unless_panicked(work) {
        Ok(done) => done.map_err(|(case, what)| Failure { case, what }),
        Err(what) => Err(Failure { case: case.clone(), what }),
    }
}

/// One workload and how much of it is tried.
struct Item {
    case: Case,
    effort: Effort,
    random: Random,
}

/// The phases of a run: their share of the states, and the workloads of each.
struct Phase {
    name: &'static str,
    share: u64,
    items: u64,
    make: fn(u64, u64) -> Item,
}

const FULL: Effort = Effort { point_stride: 1, random_plans: 2, fixed_plans: true, looks: None };
const THIN: Effort = Effort { point_stride: 3, random_plans: 1, fixed_plans: false, looks: None };

const SETUPS: u64 = Setup::PLAIN.len() as u64;
const LETTERS: u64 = SMALL.len() as u64;

fn short(len: u32, index: u64, seed: u64, effort: Effort) -> Item {
    // A permutation, so that a part of them is a fair sample.
    let count = SETUPS * LETTERS.pow(len);
    let index = index * 7_919 % count;
    let setup = Setup::PLAIN[(index % SETUPS) as usize];
    let case = Case { setup, salt: 1, ops: enumerated(len, index / SETUPS), cuts: Vec::new() };
    Item { case, effort, random: Random::new(mix(seed ^ index)) }
}

fn creation(index: u64, seed: u64) -> Item {
    let mut random = Random::new(mix(seed ^ index));
    let setup = Setup::random(&mut random);
    let ops = vec![SMALL[(index % LETTERS) as usize]];
    Item { case: Case { setup, salt: SALT_EMPTY, ops, cuts: Vec::new() }, effort: FULL, random }
}

fn long(index: u64, seed: u64) -> Item {
    let mut random = Random::new(mix(seed ^ index ^ 0x6C6F_6E67));
    let setup = Setup::random(&mut random);
    let len = 4 + random.below(16);
    let ops = (0..len).map(|_| Op::random(&mut random)).collect();
    let case = Case { setup, salt: 1 + random.below(1_000), ops, cuts: Vec::new() };
    let effort = Effort { point_stride: 1 + random.below(6), random_plans: 2, ..THIN };
    Item { case, effort, random }
}

const PHASES: [Phase; 6] = [
    Phase { name: "made anew", share: 3, items: 24, make: creation },
    Phase {
        name: "1 operation",
        share: 2,
        items: SETUPS * LETTERS,
        make: |i, s| short(1, i, s, FULL),
    },
    Phase {
        name: "2 operations",
        share: 20,
        items: SETUPS * LETTERS.pow(2),
        make: |i, s| short(2, i, s, FULL),
    },
    Phase {
        name: "3 operations",
        share: 20,
        items: SETUPS * LETTERS.pow(3),
        make: |i, s| short(3, i, s, THIN),
    },
    Phase {
        name: "4 operations",
        share: 20,
        items: SETUPS * LETTERS.pow(4),
        make: |i, s| short(4, i, s, THIN),
    },
    Phase { name: "long", share: 35, items: u64::MAX, make: long },
];

/// What a phase has come to.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Its name.
    pub name: &'static str,
    /// How many workloads there are, if they can be counted.
    pub of: Option<u64>,
    /// What was done.
    pub counts: Counts,
}

/// Runs the job; stops at the first failure, which is then made as small as it gets.
pub fn run(job: Job) -> (Vec<Done>, Option<Failure>) {
    let bases = Bases(Mutex::default());
    let mut done = Vec::new();
    let shares: u64 = PHASES.iter().map(|phase| phase.share).sum();
    let (mut budget, mut left) = (job.states, shares);
    for phase in &PHASES {
        // What a phase does not need is for the others.
        let wanted = budget * phase.share / left.max(1);
        let (counts, failure) = run_phase(&bases, phase, wanted, job);
        budget = budget.saturating_sub(counts.states);
        left -= phase.share;
        let of = (phase.items < u64::MAX).then_some(phase.items);
        done.push(Done { name: phase.name, of, counts });
        if let Some((failure, effort)) = failure {
            return (done, Some(shrink(&bases, failure, effort)));
        }
    }
    (done, None)
}

fn run_phase(
    bases: &Bases,
    phase: &Phase,
    states: u64,
    job: Job,
) -> (Counts, Option<(Failure, Effort)>) {
    let (next, so_far, stopped) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Counts::default());
    let failure = Mutex::new(None);
    let work = || {
        let mut counts = Counts::default();
        while !stopped.load(Ordering::Relaxed) && so_far.load(Ordering::Relaxed) < states {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= phase.items {
                break;
            }
            let mut item = (phase.make)(index, job.seed);
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
fn shrink(bases: &Bases, mut failure: Failure, effort: Effort) -> Failure {
    let effort = Effort { point_stride: 1, random_plans: effort.random_plans.max(4), ..FULL };
    let mut at = 0;
    let mut tries = 0;
    while at < failure.case.ops.len() && tries < 200 {
        tries += 1;
        let mut smaller = Case { cuts: Vec::new(), ..failure.case.clone() };
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
