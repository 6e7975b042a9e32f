//! Looks at what a crash has left, in every way that a user could.

use std::panic::{AssertUnwindSafe, catch_unwind};

use logmill_storage::Visibility;
use logmill_storage::io::sim::CrashPlan;

use crate::case::{Case, Cut, Plan};
use crate::check::{self, Found};
use crate::counts::Counts;
use crate::op::{Level, Op, Shape};
use crate::oracle::End;
use crate::random::{Random, mix};
use crate::run::{Halt, Machine};

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
pub fn lose(machine: &mut Machine, plan: Plan, how: End) -> End {
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
pub fn examine(
    machine: &Machine,
    how: End,
    case: &Case,
    looks: Looks,
    counts: &mut Counts,
) -> Result<(), (Case, String)> {
    let blame = |what: String| (case.clone(), what);
    let seed = case.seed();
    counts.states += 1;
    let followed = if looks.follow { follow(machine, seed, counts).map_err(blame)? } else { None };
    let frames = if looks.again { segments_with_frames(machine) } else { Vec::new() };
    let mut open = machine.copy(seed);
    let found = opened(&mut open, how).map_err(blame)?;
    counts.note(&found, machine.oracle.end(), open.store().map(|s| s.log().recovery()).ok());
    if let Some(end) = followed
        && end != found.end
        && how != End::Failure
    {
        return Err(blame(format!(
            "a reader saw the end at {end}, and recovery keeps {}",
            found.end
        )));
    }
    let left = segments_with_frames(&open);
    // One that begins where the log ends now held no whole commit, and its bytes are cut off or set aside.
    let gone = |base: &&u64| **base >= found.start && **base != found.end && !left.contains(base);
    if let Some(lost) = frames.iter().find(gone) {
        return Err(blame(format!("recovery has deleted the segment {lost}, which held frames")));
    }
    if looks.durable {
        counts.second += 1;
        let mut dark = open.copy(seed);
        dark.crash(&CrashPlan::nothing());
        let again = opened(&mut dark, End::Power)
            .map_err(|e| blame(format!("power lost after recovery: {e}")))?;
        same(&found, &again).map_err(|e| blame(format!("power lost after recovery: {e}")))?;
    }
    if looks.again {
        counts.second += 1;
        let mut twice = open.copy(seed);
        let again =
            opened(&mut twice, End::Process).map_err(|e| blame(format!("opened twice: {e}")))?;
        same(&found, &again).map_err(|e| blame(format!("opened twice: {e}")))?;
    }
    if looks.goes_on {
        counts.second += 1;
        go_on(&mut open, seed).map_err(|e| blame(format!("going on after recovery: {e}")))?;
    }
    if looks.bare {
        counts.second += 1;
        let mut bare = machine.copy(seed);
        strip(&bare, seed).map_err(blame)?;
        bare.oracle.bare = true;
        let again =
            opened(&mut bare, how).map_err(|e| blame(format!("without derived files: {e}")))?;
        if how == End::Power {
            same(&found, &again).map_err(|e| blame(format!("without derived files: {e}")))?;
        }
    }
    if looks.nested > 0 && case.cuts.len() <= DEPTH {
        nested(machine, how, case, &found, looks.nested, counts)?;
    }
    Ok(())
}

fn opened(machine: &mut Machine, how: End) -> Result<Found, String> {
    machine.start(how).map_err(explain)
}

/// A refusal of a healthy disk's store is a broken promise, too.
pub fn explain(halt: Halt) -> String {
    match halt {
        Halt::Cut => "the machine was cut, and should not have been".into(),
        Halt::Refused(e) => format!("refused: {e}"),
        Halt::Broken(what) => what,
    }
}

/// A panic is a broken promise, too.
pub fn unless_panicked<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        format!("panic: {}", said.unwrap_or_default())
    })
}

fn same(first: &Found, second: &Found) -> Result<(), String> {
    if (first.start, first.end) == (second.start, second.end) {
        Ok(())
    } else {
        Err(format!("first {first:?}, then {second:?}"))
    }
}

/// What a read-only open sees while no writer lives: its end.
fn follow(machine: &Machine, seed: u64, counts: &mut Counts) -> Result<Option<u64>, String> {
    counts.second += 1;
    let copy = machine.copy(seed);
    let Some(follower) = copy.try_follow().map_err(explain)? else { return Ok(None) };
    let (start, high) = (follower.log().start_offset(), follower.log().high_watermark());
    check::contents(&follower, &machine.oracle, Visibility::Level, start, high)
        .map_err(|what| format!("a reader of what is left: {what}"))?;
    if !copy.disk.change_points().is_empty() {
        return Err("a reader has written".into());
    }
    Ok(Some(high))
}

/// Goes on as a user would, and loses power again.
fn go_on(open: &mut Machine, seed: u64) -> Result<(), String> {
    let ops = [
        Op::Append(Level::Buffered, Shape::Three),
        Op::Append(Level::Sync, Shape::Idempotent),
        Op::Retry,
        Op::Read,
        Op::Follow,
    ];
    for op in ops {
        open.run(op).map_err(explain)?;
    }
    open.crash(&CrashPlan::random(seed));
    opened(open, End::Power)?;
    open.run(Op::Append(Level::Sync, Shape::One)).map_err(explain)?;
    open.run(Op::Close).map_err(explain)
}

/// The base offsets of the segment files, quarantined ones included, that hold anything behind their head.
fn segments_with_frames(machine: &Machine) -> Vec<u64> {
    let holds = |path: &String| {
        let bytes = machine.disk.read_file(path)?;
        let name = path.rsplit('/').next()?;
        let base = name.get(..20)?.parse().ok()?;
        (name.ends_with(".log") && bytes.iter().skip(128).any(|b| *b != 0)).then_some(base)
    };
    machine.disk.paths().iter().filter(|path| path.starts_with("0/")).filter_map(holds).collect()
}

/// Removes or damages every file that can be had again.
fn strip(machine: &Machine, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    for path in machine.disk.paths() {
        let derived = [".index", ".time", ".producers", "/live"];
        if !derived.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        let len = machine.disk.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
        let done = match random.below(3) {
            0 if len > 0 => machine.disk.flip_bit(&path, random.below(len * 8)),
            1 => {
                let noise: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
                machine.disk.write_file(&path, &noise)
            }
            _ => machine.disk.remove_file(&path),
        };
        done.map_err(|e| format!("stripping {path}: {e}"))?;
    }
    Ok(())
}

/// Cuts the recovery.
fn nested(
    machine: &Machine,
    how: End,
    case: &Case,
    found: &Found,
    times: u32,
    counts: &mut Counts,
) -> Result<(), (Case, String)> {
    let seed = case.seed();
    let mut random = Random::new(mix(seed ^ 0x6E65_7374));
    let mut whole = machine.copy(seed);
    opened(&mut whole, how).map_err(|what| (case.clone(), what))?;
    let points = whole.disk.change_points();
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
        counts.nested += 1;
        let looks = Looks {
            durable: true,
            nested: u32::from(random.once_in(2)),
            ..Looks::some(&mut random)
        };
        examine(&left, how, &deeper, looks, counts)?;
        if how == End::Power && case.cuts.last().is_some_and(|cut| cut.plan != Plan::Kill) {
            let mut again = left.copy(deeper.seed());
            let end = opened(&mut again, how).map_err(|what| (deeper.clone(), what))?;
            same(found, &end).map_err(|e| {
                (deeper.clone(), format!("a crash in recovery changed its result: {e}"))
            })?;
        }
    }
    Ok(())
}

/// Opens what `case` has left of `machine` and cuts that.
pub fn cut_recovery(
    machine: &Machine,
    how: End,
    case: &Case,
    cut: Cut,
) -> Result<(Machine, End), String> {
    let mut left = machine.copy(case.seed());
    stop(&left, cut);
    match left.start(how) {
        Err(Halt::Cut) | Ok(_) => {}
        Err(halt) => return Err(explain(halt)),
    }
    // What a reopened store may have settled never reached a user.
    left.oracle = machine.oracle.clone();
    let how = lose(&mut left, cut.plan, how);
    Ok((left, how))
}

/// Has the machine stop where the cut says.
pub fn stop(machine: &Machine, cut: Cut) {
    if cut.inside {
        machine.disk.stop_inside(cut.point);
    } else {
        machine.disk.stop_at(cut.point);
    }
}
