//! Looks at what a crash has left, in every way that a user could.

use std::panic::{AssertUnwindSafe, catch_unwind};

use logmill_storage::io::sim::CrashPlan;

use crate::case::{Case, Cut, Plan};
use crate::counts::Counts;
use crate::oracle::End;
use crate::random::{Random, mix};
use crate::world::{Halt, World, explain};

/// How deep a crash in the recovery from a crash in a recovery may be nested.
pub const DEPTH: usize = 3;

/// What is done to a crashed machine beside opening it.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// A reader in another process looks first.
    pub follow: bool,
    /// The power goes again as soon as the store is open: what was found is still there.
    pub durable: bool,
    /// Appends go on, and survive the next power loss.
    pub goes_on: bool,
    /// Opened again, it is the same.
    pub again: bool,
    /// Without its indexes and other derived files, it is the same.
    pub bare: bool,
    /// How many cuts of the recovery are tried.
    pub nested: u32,
}

impl Looks {
    /// All of them.
    pub const ALL: Looks =
        Looks { follow: true, durable: true, goes_on: true, again: true, bare: true, nested: 0 };

    /// A few of them, by turns.
    pub fn some(random: &mut Random) -> Looks {
        Looks {
            follow: random.once_in(4),
            durable: random.once_in(4),
            goes_on: random.once_in(8),
            again: random.once_in(8),
            bare: random.once_in(16),
            nested: u32::from(random.once_in(8)),
        }
    }
}

/// Does to a machine that was cut what the plan says.
pub fn lose<W: World>(machine: &mut W, plan: Plan, how: End) -> End {
    match plan.crash() {
        None => {
            machine.kill();
            how
        }
        Some(plan) => {
            machine.crash(&plan);
            if how == End::Failure { how } else { End::Power }
        }
    }
}

/// Opens what `case` has left of `machine`, and tries the looks.
pub fn examine<W: World>(
    machine: &W,
    how: End,
    case: &Case<W>,
    looks: Looks,
    counts: &mut Counts,
) -> Result<(), (Case<W>, String)> {
    let blame = |what: String| (case.clone(), what);
    let seed = case.seed();
    counts.states += 1;
    let mut open = machine.copy(seed);
    let found = opened(&mut open, how).map_err(blame)?;
    machine.note(&open, &found, counts);
    machine.compare(how, &open, &found, looks, seed, counts).map_err(blame)?;
    if looks.durable {
        counts.second += 1;
        let mut dark = open.copy(seed);
        dark.crash(&CrashPlan::nothing());
        let again = opened(&mut dark, End::Power)
            .map_err(|e| blame(format!("power lost after recovery: {e}")))?;
        same::<W>(&found, &again).map_err(|e| blame(format!("power lost after recovery: {e}")))?;
    }
    if looks.again {
        counts.second += 1;
        let mut twice = open.copy(seed);
        let again =
            opened(&mut twice, End::Process).map_err(|e| blame(format!("opened twice: {e}")))?;
        same::<W>(&found, &again).map_err(|e| blame(format!("opened twice: {e}")))?;
    }
    if looks.goes_on {
        counts.second += 1;
        go_on(&mut open, seed).map_err(|e| blame(format!("going on after recovery: {e}")))?;
    }
    if looks.bare {
        counts.second += 1;
        let mut bare = machine.copy(seed);
        strip(&mut bare, seed).map_err(blame)?;
        let again =
            opened(&mut bare, how).map_err(|e| blame(format!("without derived files: {e}")))?;
        if how == End::Power {
            same::<W>(&found, &again).map_err(|e| blame(format!("without derived files: {e}")))?;
        }
    }
    if looks.nested > 0 && case.cuts.len() <= DEPTH {
        nested(machine, how, case, &found, looks.nested, counts)?;
    }
    Ok(())
}

fn opened<W: World>(machine: &mut W, how: End) -> Result<W::Found, String> {
    machine.start(how).map_err(explain)
}

fn same<W: World>(first: &W::Found, second: &W::Found) -> Result<(), String> {
    if W::same(first, second) { Ok(()) } else { Err(format!("first {first:?}, then {second:?}")) }
}

/// A panic is a broken promise, too.
pub fn unless_panicked<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        format!("panic: {}", said.unwrap_or_default())
    })
}

/// Goes on as a user would, and loses power again.
fn go_on<W: World>(open: &mut W, seed: u64) -> Result<(), String> {
    for op in W::GOES_ON {
        open.run(*op).map_err(explain)?;
    }
    open.crash(&CrashPlan::random(seed));
    opened(open, End::Power)?;
    open.run(W::PROBE).map_err(explain)?;
    open.run(W::LOOK).map_err(explain)
}

/// Removes or damages every file that can be had again.
fn strip<W: World>(machine: &mut W, seed: u64) -> Result<(), String> {
    machine.stripped();
    let mut random = Random::new(seed);
    let disk = machine.disk();
    for path in disk.paths() {
        if !W::DERIVED.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        let len = disk.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
        let done = match random.below(3) {
            0 if len > 0 => disk.flip_bit(&path, random.below(len * 8)),
            1 => {
                let noise: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
                disk.write_file(&path, &noise)
            }
            _ => disk.remove_file(&path),
        };
        done.map_err(|e| format!("stripping {path}: {e}"))?;
    }
    Ok(())
}

/// Cuts the recovery.
fn nested<W: World>(
    machine: &W,
    how: End,
    case: &Case<W>,
    found: &W::Found,
    times: u32,
    counts: &mut Counts,
) -> Result<(), (Case<W>, String)> {
    let seed = case.seed();
    let mut random = Random::new(mix(seed ^ 0x6E65_7374));
    let mut whole = machine.copy(seed);
    opened(&mut whole, how).map_err(|what| (case.clone(), what))?;
    let points = whole.disk().change_points();
    if points.is_empty() {
        return Ok(());
    }
    for _ in 0..times {
        let plan = match random.below(8) {
            0 => Plan::Kill,
            1 => Plan::Nothing,
            2 => Plan::Everything,
            _ => Plan::Random(random.below(1_000_000)),
        };
        let cut = Cut { point: random.pick(&points), inside: random.once_in(2), plan };
        let mut deeper = case.clone();
        deeper.cuts.push(cut);
        let (left, how) =
            cut_recovery(machine, how, case, cut).map_err(|what| (deeper.clone(), what))?;
        counts.nested[case.cuts.len() - 1] += 1;
        let looks = Looks {
            durable: true,
            nested: u32::from(random.once_in(2)),
            ..Looks::some(&mut random)
        };
        examine(&left, how, &deeper, looks, counts)?;
        if how == End::Power && case.cuts.last().is_some_and(|cut| cut.plan != Plan::Kill) {
            let mut again = left.copy(deeper.seed());
            let end = opened(&mut again, how).map_err(|what| (deeper.clone(), what))?;
            same::<W>(found, &end).map_err(|e| {
                (deeper.clone(), format!("a crash in recovery changed its result: {e}"))
            })?;
        }
    }
    Ok(())
}

/// Opens what `case` has left of `machine` and cuts that.
pub fn cut_recovery<W: World>(
    machine: &W,
    how: End,
    case: &Case<W>,
    cut: Cut,
) -> Result<(W, End), String> {
    let mut left = machine.copy(case.seed());
    stop(&left, cut);
    match left.start(how) {
        Err(Halt::Cut) | Ok(_) => {}
        Err(halt) => return Err(explain(halt)),
    }
    // What a reopened store may have settled never reached a user.
    left.take_account_of(machine);
    let how = lose(&mut left, cut.plan, how);
    Ok((left, how))
}

/// Has the machine stop where the cut says.
pub fn stop<W: World>(machine: &W, cut: Cut) {
    if cut.inside {
        machine.disk().stop_inside(cut.point);
    } else {
        machine.disk().stop_at(cut.point);
    }
}
