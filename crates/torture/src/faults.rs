//! Faults: every call of a workload fails once, or from there on until the disk is healed, in every way that it can.
//!
//! R8 to R12: what fails is refused with the right error and costs only itself; a full disk is no poison; what was promised
//! before is there afterwards, whichever way the session ends.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use logmill_storage::Error;
use logmill_storage::io::sim::{CrashPlan, Fault};

use crate::case::Plan;
use crate::counts::Counts;
use crate::examine::{lose, unless_panicked};
use crate::oracle::End;
use crate::random::{Random, mix};
use crate::world::{Halt, World, enumerated, explain};

/// Every kind of fault, with its name in replay lines.
pub const KINDS: [(Fault, &str); 12] = [
    (Fault::Eio, "eio"),
    (Fault::Enospc, "enospc"),
    (Fault::Edquot, "edquot"),
    (Fault::Eintr, "eintr"),
    (Fault::ShortWrite, "short-write"),
    (Fault::ShortRead, "short-read"),
    (Fault::Emfile, "emfile"),
    (Fault::SyncEioKeep, "sync-keep"),
    (Fault::SyncEioSome, "sync-some"),
    (Fault::SyncEioRevert, "sync-revert"),
    (Fault::SyncEioDrop, "sync-drop"),
    (Fault::SyncFalseFailure, "sync-false"),
];

/// One run with a fault, in a line: `mapped+sync;1;s1 bf;enospc@17+;k` is a workload whose calls from 17 on find the disk
/// full, and whose process is killed after the disk was healed.
#[derive(Debug, PartialEq)]
pub struct FaultCase<W: World> {
    /// The store.
    pub setup: W::Setup,
    /// Decides what else is random.
    pub salt: u64,
    /// The workload.
    pub ops: Vec<W::Op>,
    /// What goes wrong: an index into [`KINDS`].
    pub kind: usize,
    /// The call, counted from the opening of the store.
    pub call: u64,
    /// All calls from there on, until the disk is healed.
    pub forever: bool,
    /// How the session ends.
    pub end: Plan,
}

/// A broken promise, and how to have it again.
#[derive(Debug)]
pub struct FaultFailure<W: World> {
    /// The run.
    pub case: FaultCase<W>,
    /// What was wrong.
    pub what: String,
}

/// What one kind of fault has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Runs in which it fired.
    pub runs: u64,
    /// How often it fired.
    pub fired: u64,
    /// Operations that were refused.
    pub refused: u64,
}

/// The tallies of all [`KINDS`], and the sums.
#[derive(Clone, Debug, Default)]
pub struct FaultCounts {
    /// In the order of [`KINDS`].
    pub kinds: [Tally; KINDS.len()],
    /// Acknowledgements, poisoned and refilled logs, and so on.
    pub total: Counts,
}

impl FaultCounts {
    fn add(&mut self, other: &FaultCounts) {
        for (sum, tally) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.runs += tally.runs;
            sum.fired += tally.fired;
            sum.refused += tally.refused;
        }
        self.total += other.total;
    }
}

impl<W: World> Clone for FaultCase<W> {
    fn clone(&self) -> FaultCase<W> {
        FaultCase { ops: self.ops.clone(), ..*self }
    }
}

impl<W: World> FaultCase<W> {
    fn fault(&self) -> Fault {
        KINDS[self.kind].0
    }

    /// After such a fault only what is durable is sure: a write or a sync may have left anything.
    fn leaves_doubt(&self) -> bool {
        !matches!(
            self.fault(),
            Fault::Enospc
                | Fault::Edquot
                | Fault::Eintr
                | Fault::ShortWrite
                | Fault::ShortRead
                | Fault::Emfile
        )
    }

    fn fills_the_disk(&self) -> bool {
        matches!(self.fault(), Fault::Enospc | Fault::Edquot)
    }
}

/// Runs one case on a copy of `base`, a closed store.
fn play<W: World>(base: &W, case: &FaultCase<W>, counts: &mut FaultCounts) -> Result<(), String> {
    play_on(base.copy(mix(case.salt ^ case.call)), case, counts)
}

fn play_on<W: World>(
    mut machine: W,
    case: &FaultCase<W>,
    counts: &mut FaultCounts,
) -> Result<(), String> {
    let (fired_before, call) =
        (machine.disk().faults_fired(), machine.disk().ops().total() + case.call);
    if case.forever {
        machine.disk().fail_from(call, case.fault());
    } else {
        machine.disk().fail_nth(call, case.fault());
    }
    let mut refused = 0;
    match machine.start(End::Closed) {
        Ok(_) => {}
        Err(Halt::Refused(e)) => {
            refused += 1;
            fits(&e, case)?;
        }
        Err(halt) if met_in_reading(&halt) => refused += 1,
        Err(halt) => return Err(format!("opening: {}", explain(halt))),
    }
    for op in &case.ops {
        if !machine.is_open() {
            break;
        }
        let done = machine.run(*op);
        if case.leaves_doubt() && machine.disk().faults_fired() > fired_before {
            machine.doubt();
        }
        match done {
            Ok(()) => {}
            Err(Halt::Refused(e)) => {
                refused += 1;
                fits(&e, case).map_err(|e| format!("{op}: {e}"))?;
            }
            Err(halt) if met_in_reading(&halt) => refused += 1,
            Err(_) if machine.is_doubtful() && machine.may_forget(*op) => refused += 1,
            Err(halt) => return Err(format!("{op}: {}", explain(halt))),
        }
    }
    let fired = machine.disk().faults_fired() - fired_before;
    if fired == 0 {
        return Ok(());
    }
    let tally = &mut counts.kinds[case.kind];
    tally.runs += 1;
    tally.fired += fired;
    tally.refused += refused;
    counts.total.fault_runs += 1;
    counts.total.faults += fired;
    machine.disk().heal();
    if machine.is_open() {
        healed(&mut machine, case, refused, counts)?;
    }
    if case.leaves_doubt() {
        machine.doubt();
    }
    let mut left = machine.copy(mix(case.call));
    let dead = if left.is_doubtful() { End::Failure } else { End::Process };
    let how = lose(&mut left, case.end, dead);
    left.start(how).map_err(|halt| format!("opening again: {}", explain(halt)))?;
    let after = |halt| format!("after opening again: {}", explain(halt));
    left.run(W::PROBE).map_err(after)?;
    left.crash(&CrashPlan::random(0));
    left.start(End::Power).map_err(after)?;
    left.run(W::LOOK).map_err(after)?;
    left.tally(&mut counts.total);
    Ok(())
}

/// The fault met the reads with which the contents were checked, and was told.
fn met_in_reading(halt: &Halt) -> bool {
    matches!(halt, Halt::Broken(what) if what.contains("(os error "))
}

/// The disk is well again and the store was not reopened: it must go on, unless it was poisoned with reason.
fn healed<W: World>(
    machine: &mut W,
    case: &FaultCase<W>,
    refused: u64,
    counts: &mut FaultCounts,
) -> Result<(), String> {
    match machine.run(W::PROBE) {
        Ok(()) => counts.total.refilled += u64::from(case.fills_the_disk() && refused > 0),
        Err(Halt::Refused(Error::Poisoned { .. } | Error::OutcomeUnknown { .. }))
            if case.leaves_doubt() =>
        {
            counts.total.poisoned += 1;
            let again = machine.run(W::PROBE);
            if !matches!(again, Err(Halt::Refused(Error::Poisoned { .. }))) {
                return Err(format!("a poisoned log answered {again:?}"));
            }
        }
        Err(halt) => return Err(format!("appending on a healed disk: {}", explain(halt))),
    }
    if machine.may_forget(W::LOOK) && case.leaves_doubt() {
        return Ok(());
    }
    machine.run(W::LOOK).map_err(|halt| format!("reading on a healed disk: {}", explain(halt)))
}

/// Whether this is what a user may be told of such a fault.
fn fits<W: World>(error: &Error, case: &FaultCase<W>) -> Result<(), String> {
    let right = match case.fault() {
        Fault::Enospc | Fault::Edquot => matches!(error, Error::DiskFull { .. }),
        Fault::Eintr | Fault::ShortWrite | Fault::ShortRead => false,
        Fault::Emfile => matches!(error, Error::Io { .. }),
        _ => {
            matches!(
                error,
                Error::Io { .. } | Error::Poisoned { .. } | Error::OutcomeUnknown { .. }
            ) || W::answers_late(case.setup)
        }
    };
    if right { Ok(()) } else { Err(format!("{} was answered by {error}", KINDS[case.kind].0)) }
}

/// What [`run`] is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct FaultJob {
    /// Decides everything.
    pub seed: u64,
    /// About how many runs in which a fault fires.
    pub runs: u64,
    /// Worker threads.
    pub threads: u64,
}

/// Runs workloads with faults, every call of each workload in turn; stops at the first broken promise.
#[expect(clippy::disallowed_methods, reason = "one thread for each core")]
pub fn run<W: World>(job: FaultJob) -> (FaultCounts, Option<FaultFailure<W>>) {
    let (next, so_far) = (AtomicU64::new(0), AtomicU64::new(0));
    let total = Mutex::new(FaultCounts::default());
    let failure = Mutex::new(None);
    let work = || {
        let mut counts = FaultCounts::default();
        while so_far.load(Ordering::Relaxed) < job.runs {
            let before = counts.total.fault_runs;
            let found = workload(next.fetch_add(1, Ordering::Relaxed), job.seed, &mut counts);
            so_far.fetch_add(counts.total.fault_runs - before, Ordering::Relaxed);
            if let Err(found) = found {
                so_far.store(u64::MAX / 2, Ordering::Relaxed);
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(found);
                }
            }
        }
        if let Ok(mut total) = total.lock() {
            total.add(&counts);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..job.threads.max(1) {
            scope.spawn(work);
        }
    });
    (total.into_inner().unwrap_or_default(), failure.into_inner().ok().flatten())
}

/// The workload with this number: short ones in turn, then random ones.
fn ops<W: World>(number: u64, random: &mut Random) -> (W::Setup, Vec<W::Op>) {
    if number.is_multiple_of(2) {
        let books = W::books();
        let book = &books[(number / 2) as usize % books.len()];
        let len = 1 + (number / 2 / books.len() as u64 % 3) as u32;
        let index = random.below((book.letters.len() as u64).pow(len));
        (random.pick(book.setups), enumerated(book.letters, len, index))
    } else {
        let len = 3 + random.below(10);
        let setup = W::random_setup(random);
        (setup, (0..len).map(|_| W::random_op(random)).collect())
    }
}

fn workload<W: World>(
    number: u64,
    seed: u64,
    counts: &mut FaultCounts,
) -> Result<(), FaultFailure<W>> {
    let mut random = Random::new(mix(seed ^ number ^ 0x6661_756C));
    let (setup, ops) = ops::<W>(number, &mut random);
    let template =
        FaultCase { setup, salt: number, ops, kind: 0, call: 0, forever: false, end: Plan::Kill };
    let blame = |what: String| FaultFailure { case: template.clone(), what };
    let base = W::fresh(setup, 1).map_err(|halt| blame(explain(halt)))?;
    let calls = calls_of(&base, &template).map_err(blame)?;
    for call in 0..calls {
        let kind = random.below(KINDS.len() as u64) as usize;
        // No kernel interrupts the same call for ever.
        let forever = KINDS[kind].0 != Fault::Eintr && random.once_in(3);
        let end = match random.below(4) {
            0 => Plan::Kill,
            1 => Plan::Nothing,
            2 => Plan::Everything,
            _ => Plan::Random(random.below(1_000_000)),
        };
        attempt(&base, FaultCase { kind, call, forever, end, ..template.clone() }, counts)?;
    }
    Ok(())
}

/// How many calls the workload makes on a healthy disk.
fn calls_of<W: World>(base: &W, case: &FaultCase<W>) -> Result<u64, String> {
    let mut machine = base.copy(mix(case.salt));
    let before = machine.disk().ops().total();
    machine.start(End::Closed).map_err(explain)?;
    for op in &case.ops {
        machine.run(*op).map_err(|halt| format!("{op}, unharmed: {}", explain(halt)))?;
    }
    Ok(machine.disk().ops().total() - before)
}

fn attempt<W: World>(
    base: &W,
    case: FaultCase<W>,
    counts: &mut FaultCounts,
) -> Result<(), FaultFailure<W>> {
    unless_panicked(|| play(base, &case, counts))
        .and_then(|played| played)
        .map_err(|what| FaultFailure { case, what })
}

/// Runs one case again, and prints the calls.
#[expect(clippy::print_stderr, reason = "what a replay is for")]
pub fn replay<W: World>(case: &FaultCase<W>) -> Result<FaultCounts, FaultFailure<W>> {
    let blame = |what: String| FaultFailure { case: case.clone(), what };
    let mut counts = FaultCounts::default();
    let base = W::fresh(case.setup, 1).map_err(|halt| blame(explain(halt)))?;
    let traced = base.copy(mix(case.salt ^ case.call));
    traced.disk().start_trace();
    let disk = traced.disk().clone();
    let played = play_on(traced, case, &mut counts);
    for line in disk.trace() {
        eprintln!("  {line}");
    }
    played.map_err(blame)?;
    Ok(counts)
}

impl<W: World> fmt::Display for FaultCase<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{};", self.setup, self.salt)?;
        for (i, op) in self.ops.iter().enumerate() {
            write!(f, "{}{op}", if i > 0 { " " } else { "" })?;
        }
        let plus = if self.forever { "+" } else { "" };
        write!(f, ";{}@{}{plus};{}", KINDS[self.kind].1, self.call, self.end)
    }
}

impl<W: World> FromStr for FaultCase<W> {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultCase<W>, String> {
        let broken = || format!("{text:?} is no run with a fault");
        let parts: Vec<&str> = text.trim().split(';').collect();
        let [setup, salt, ops, fault, end] = parts[..] else { return Err(broken()) };
        let (name, at) = fault.split_once('@').ok_or_else(broken)?;
        let call = at.strip_suffix('+').unwrap_or(at);
        Ok(FaultCase {
            setup: setup.parse()?,
            salt: salt.parse().map_err(|_| broken())?,
            ops: ops.split_whitespace().map(W::Op::from_str).collect::<Result<_, _>>()?,
            kind: KINDS.iter().position(|(_, n)| *n == name).ok_or_else(broken)?,
            call: call.parse().map_err(|_| broken())?,
            forever: at.ends_with('+'),
            end: end.parse()?,
        })
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<30}{:>10}{:>10}{:>10}", "fault", "runs", "fired", "refused")?;
        for ((fault, _), tally) in KINDS.iter().zip(&self.kinds) {
            let Tally { runs, fired, refused } = tally;
            writeln!(f, "{:<30}{runs:>10}{fired:>10}{refused:>10}", fault.to_string())?;
        }
        write!(f, "\n{}", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueMachine;
    use crate::run::Machine;

    #[test]
    fn a_run_with_a_fault_is_read_as_it_is_written() {
        let line = "mapped+buffered;3;s1 bf roll;sync-keep@17+;r99";
        assert_eq!(line.parse::<FaultCase<Machine>>().unwrap().to_string(), line);
        assert!("mapped;3;s1;nothing@4;k".parse::<FaultCase<Machine>>().is_err());
    }

    fn every_kind_fires<W: World>() {
        let (counts, failure) = run::<W>(FaultJob { seed: 1, runs: 3_000, threads: 2 });
        if let Some(FaultFailure { case, what }) = failure {
            panic!("{what}: {case}");
        }
        for ((fault, _), tally) in KINDS.iter().zip(&counts.kinds) {
            assert!(tally.fired > 0, "{fault} never fired");
        }
        assert!(counts.total.poisoned > 0 && counts.total.refilled > 0, "{counts}");
    }

    /// A message whose read failed while space was given back was passed over, and its segment removed.
    #[test]
    fn no_call_that_fails_while_space_is_given_back_costs_a_message() {
        let mut counts = FaultCounts::default();
        for kind in ["eio", "enospc", "emfile", "short-read", "sync-drop"] {
            for call in 30..110 {
                let line = format!("queue+positional+sync;1;reclaim;{kind}@{call};k");
                let case: FaultCase<QueueMachine> = line.parse().unwrap();
                let base = QueueMachine::fresh(case.setup, 1).unwrap();
                play(&base, &case, &mut counts).unwrap_or_else(|what| panic!("{what}: {case}"));
            }
        }
        assert!(counts.total.faults > 100, "{counts}");
    }

    fn plays<W: World>(lines: &[&str]) {
        for line in lines {
            let case: FaultCase<W> = line.parse().unwrap();
            let base = W::fresh(case.setup, 1).unwrap();
            let mut counts = FaultCounts::default();
            play(&base, &case, &mut counts).unwrap_or_else(|what| panic!("{what}: {case}"));
            assert!(counts.total.faults > 0, "{counts}");
        }
    }

    /// A receive was noted, and then could not read its message. What came after it came back with it, and the account
    /// knew of either only.
    #[test]
    fn a_receive_without_an_answer_comes_back_beside_the_sends_after_it() {
        plays::<QueueMachine>(&[
            "queue+mapped+sync;319;ahead later close drop send look take close big send three;eio@233+;e",
            "queue+mapped+buffered;451;expire delete take power330 tick later take tick later take send;eio@71+;r969283",
        ]);
    }

    /// A receive took a message whose body could not be read. The account let it pass for one that was not taken, and took the
    /// queue's refusal of the receipt of the receive before for a broken promise.
    #[test]
    fn a_message_that_a_receive_took_and_could_not_read_is_taken() {
        plays::<QueueMachine>(&[
            "queue+positional+buffered;1265;three checkpoint release take take deleteall pass power7785 takeall;eio@84;n",
        ]);
    }

    /// The simulated disk never made the length durable that a failed sync had given up, so that what recovery had
    /// rewritten and synced was lost.
    #[test]
    fn what_recovery_rewrites_after_a_recovery_whose_sync_failed_is_durable() {
        plays::<Machine>(&[
            "mapped+buffered+lz4+keyed;3203;settle sync ui drop sync;sync-drop@92+;k",
        ]);
        plays::<QueueMachine>(&[
            "queue+fifo+positional+buffered;677;big drop stale checkpoint reclaim pass send take deleteall reclaim;sync-drop@119+;k",
            "queue+positional+buffered;583;later drop big takeall;sync-some@109+;k",
        ]);
    }

    #[test]
    fn every_kind_of_fault_fires_and_breaks_no_promise_of_a_log() {
        every_kind_fires::<Machine>();
    }

    #[test]
    fn every_kind_of_fault_fires_and_breaks_no_promise_of_a_queue() {
        every_kind_fires::<QueueMachine>();
    }
}
