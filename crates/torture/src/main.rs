//! `logmill-torture sim|faults|planted`: see the crate's documentation.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it has found")]

use std::process::ExitCode;
use std::time::Instant;

use logmill_torture::case::Case;
use logmill_torture::counts::Counts;
use logmill_torture::faults::{self, FaultCase, FaultFailure, FaultJob, KINDS};
use logmill_torture::sim::Job;
use logmill_torture::{planted, sim};

const USAGE: &str =
    "usage: logmill-torture sim [--states N] [--seed S] [--threads T] [--replay CASE]
       logmill-torture faults [--runs N] [--seed S] [--threads T] [--replay CASE]
       logmill-torture planted [--states N] [--runs N] [--seed S] [--threads T], in a build with --cfg planted";

struct Options {
    command: String,
    states: u64,
    runs: u64,
    seed: u64,
    threads: u64,
    replay: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().ok_or(USAGE)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut options =
        Options { command, states: 200_000, runs: 50_000, seed: 1, threads, replay: None };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.replace('_', "").parse().map_err(|_| format!("{name} {value}"));
        match name.as_str() {
            "--states" => options.states = number()?,
            "--runs" => options.runs = number()?,
            "--seed" => options.seed = number()?,
            "--threads" => options.threads = number()?,
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

#[expect(clippy::disallowed_methods, reason = "the rate is a matter of real time")]
fn simulate(options: &Options) -> Result<(), String> {
    if let Some(line) = &options.replay {
        let case: Case = line.parse()?;
        let counts = sim::replay(&case, false).map_err(|failure| report(&failure))?;
        print!("{counts}");
        return Ok(());
    }
    let started = Instant::now();
    let (states, seed, threads) = (options.states, options.seed, options.threads);
    let (phases, failure) = sim::run(Job { seed, states, threads });
    let seconds = started.elapsed().as_secs_f64();
    let mut total = Counts::default();
    println!("{:<14}{:>20}{:>10}{:>12}", "phase", "workloads", "points", "states");
    for phase in &phases {
        let of = phase.of.map_or(String::new(), |of| format!(" of {of}"));
        let workloads = format!("{}{of}", phase.counts.workloads);
        println!(
            "{:<14}{workloads:>20}{:>10}{:>12}",
            phase.name, phase.counts.points, phase.counts.states
        );
        total += phase.counts;
    }
    println!("\nseed {seed}\n{total}");
    let rate = total.states as f64 / seconds / threads as f64;
    println!("{seconds:.1} s, {rate:.0} states a second for each of {threads} threads");
    if let Some(failure) = failure {
        return Err(report(&failure));
    }
    for (what, count, least) in [
        ("crash states", total.states, states * 9 / 10),
        ("crashes in recovery", total.nested, states / 100),
        ("lossy states", total.lossy, states / 100),
        ("states with bytes cut off", total.cut, states / 1_000),
        ("states with bytes set aside", total.quarantined, states / 1_000),
        ("acknowledgements", total.acks, states / 1_000),
    ] {
        if count < least {
            return Err(format!("only {count} {what}, and at least {least} belong to such a run"));
        }
    }
    Ok(())
}

fn report(failure: &sim::Failure) -> String {
    format!(
        "BROKEN: {}\nreplay: cargo run --release -p logmill-torture -- sim --replay '{}'",
        failure.what, failure.case
    )
}

#[expect(clippy::disallowed_methods, reason = "the rate is a matter of real time")]
fn fail(options: &Options) -> Result<(), String> {
    let report = |failure: FaultFailure| {
        format!(
            "BROKEN: {}\nreplay: cargo run --release -p logmill-torture -- faults --replay '{}'",
            failure.what, failure.case
        )
    };
    if let Some(line) = &options.replay {
        let case: FaultCase = line.parse()?;
        print!("{}", faults::replay(&case).map_err(report)?);
        return Ok(());
    }
    let started = Instant::now();
    let (runs, seed, threads) = (options.runs, options.seed, options.threads);
    let (counts, failure) = faults::run(FaultJob { seed, runs, threads });
    println!("{counts}\nseed {seed}, {:.1} s", started.elapsed().as_secs_f64());
    if let Some(failure) = failure {
        return Err(report(failure));
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
