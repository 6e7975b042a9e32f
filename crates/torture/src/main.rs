//! `logmill-torture sim|faults|planted`: see the crate's documentation.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it has found")]

use std::process::ExitCode;
use std::time::Instant;

use logmill_torture::case::Case;
use logmill_torture::counts::Counts;
use logmill_torture::faults::{self, FaultCase, FaultFailure, FaultJob, KINDS};
use logmill_torture::queue::QueueMachine;
use logmill_torture::run::Machine;
use logmill_torture::sim::Job;
use logmill_torture::world::World;
use logmill_torture::{planted, sim};

/// Each state makes and drops disks and stores: a fifth of the time went to the allocator of the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str =
    "usage: logmill-torture sim [--states N] [--seed S] [--threads T] [--replay CASE]
       logmill-torture faults [--runs N] [--seed S] [--threads T] [--only log|queue] [--replay CASE]
       logmill-torture planted [--states N] [--runs N] [--seed S] [--threads T], in a build with --cfg planted";

struct Options {
    command: String,
    states: u64,
    runs: u64,
    seed: u64,
    threads: u64,
    only: Option<String>,
    replay: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().ok_or(USAGE)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut options = Options {
        command,
        states: 200_000,
        runs: 50_000,
        seed: 1,
        threads,
        only: None,
        replay: None,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.replace('_', "").parse().map_err(|_| format!("{name} {value}"));
        match name.as_str() {
            "--states" => options.states = number()?,
            "--runs" => options.runs = number()?,
            "--seed" => options.seed = number()?,
            "--threads" => options.threads = number()?,
            "--only" if matches!(value.as_str(), "log" | "queue") => options.only = Some(value),
            "--replay" => options.replay = Some(value),
            _ => return Err(format!("{name} is not known\n{USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    let done = match options.command.as_str() {
        "sim" => simulate(&options),
        "faults" => fail(&options),
        "planted" => planted::run(
            Job { seed: options.seed, states: options.states, threads: options.threads },
            FaultJob { seed: options.seed, runs: options.runs, threads: options.threads },
        )
        .map(|table| print!("{table}")),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(options: &Options) -> Result<(), String> {
    if let Some(line) = &options.replay {
        let counts = match line.starts_with("queue") {
            true => again::<QueueMachine>(line),
            false => again::<Machine>(line),
        };
        print!("{}", counts?);
        return Ok(());
    }
    let Options { seed, threads, states, .. } = *options;
    println!("{:<28}{:>18}{:>10}{:>12}", "phase", "workloads", "points", "states");
    // Opening a queue is more work, and there is one book of them.
    let queue_states = states * 3 / 10;
    let mut total = explore::<Machine>(Job { seed, states: states - queue_states, threads })?;
    total += explore::<QueueMachine>(Job { seed, states: queue_states, threads })?;
    println!("seed {seed}\n{total}");
    enough(&total, states)
}

/// A run that did less than belongs to it has found nothing.
fn enough(total: &Counts, states: u64) -> Result<(), String> {
    let [first, second, third] = total.nested;
    for (what, count, least) in [
        ("crash states", total.states, states * 9 / 10),
        ("crashes in recovery", first, states / 50),
        ("crashes in recovery from these", second, states / 100),
        ("crashes in recovery from those", third, states / 200),
        ("lossy states", total.lossy, states / 100),
        ("states with bytes cut off", total.cut, states / 1_000),
        ("states with bytes set aside", total.quarantined, states / 1_000),
        ("acknowledgements", total.acks, states / 1_000),
        ("records compacted", total.removed, states / 1_000),
        ("bytes carried", total.carried, states / 1_000),
        ("stale receipts", total.stale, states / 10_000),
    ] {
        if count < least {
            return Err(format!("only {count} {what}, and at least {least} belong to such a run"));
        }
    }
    Ok(())
}

/// Explores one kind of store, and prints what came of it.
#[expect(clippy::disallowed_methods, reason = "the rate is a matter of real time")]
fn explore<W: World>(job: Job) -> Result<Counts, String> {
    let started = Instant::now();
    let (phases, failure) = sim::run::<W>(job);
    let seconds = started.elapsed().as_secs_f64();
    let mut total = Counts::default();
    for phase in &phases {
        let of = phase.of.map_or(String::new(), |of| format!(" of {of}"));
        let workloads = format!("{}{of}", phase.counts.workloads);
        println!(
            "{:<28}{workloads:>18}{:>10}{:>12}",
            phase.name, phase.counts.points, phase.counts.states
        );
        total += phase.counts;
    }
    let rate = total.states as f64 / seconds / job.threads as f64;
    println!("{seconds:.1} s, {rate:.0} states a second for each of {} threads\n", job.threads);
    match failure {
        Some(failure) => Err(format!("seed {}\n{total}{}", job.seed, broken(&failure))),
        None => Ok(total),
    }
}

fn again<W: World>(line: &str) -> Result<Counts, String> {
    let case: Case<W> = line.parse()?;
    sim::replay(&case, false).map_err(|failure| broken(&failure))
}

fn broken<W: World>(failure: &sim::Failure<W>) -> String {
    format!(
        "BROKEN: {}\nreplay: cargo run --release -p logmill-torture -- sim --replay '{}'",
        failure.what, failure.case
    )
}

fn fail(options: &Options) -> Result<(), String> {
    match &options.replay {
        Some(line) if line.starts_with("queue") => fail_again::<QueueMachine>(line),
        Some(line) => fail_again::<Machine>(line),
        None => match options.only.as_deref() {
            Some("queue") => fail_all::<QueueMachine>("queue", options.runs, options),
            Some(_) => fail_all::<Machine>("log", options.runs, options),
            None => {
                fail_all::<Machine>("log", options.runs * 7 / 10, options)?;
                fail_all::<QueueMachine>("queue", options.runs * 3 / 10, options)
            }
        },
    }
}

fn fail_again<W: World>(line: &str) -> Result<(), String> {
    let case: FaultCase<W> = line.parse()?;
    print!("{}", faults::replay(&case).map_err(|failure| failed(&failure))?);
    Ok(())
}

fn failed<W: World>(failure: &FaultFailure<W>) -> String {
    format!(
        "BROKEN: {}\nreplay: cargo run --release -p logmill-torture -- faults --replay '{}'",
        failure.what, failure.case
    )
}

#[expect(clippy::disallowed_methods, reason = "the rate is a matter of real time")]
fn fail_all<W: World>(name: &str, runs: u64, options: &Options) -> Result<(), String> {
    let started = Instant::now();
    let Options { seed, threads, .. } = *options;
    let (counts, failure) = faults::run::<W>(FaultJob { seed, runs, threads });
    println!("{name}: {counts}\nseed {seed}, {:.1} s", started.elapsed().as_secs_f64());
    if let Some(failure) = failure {
        return Err(failed(&failure));
    }
    for ((fault, _), tally) in KINDS.iter().zip(&counts.kinds) {
        if tally.runs < runs / 200 {
            return Err(format!("{fault} fired in {} runs only", tally.runs));
        }
    }
    let (poisoned, refilled) = (counts.total.poisoned, counts.total.refilled);
    if poisoned < runs / 200 || refilled < runs / 200 {
        return Err(format!("only {poisoned} logs were poisoned, and {refilled} refilled"));
    }
    Ok(())
}
