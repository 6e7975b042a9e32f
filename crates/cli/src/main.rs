//! `logmill`: append to, read, check and inspect a store from a shell.
//!
//! One file for each command; what they share is reading lines ([`lines`]), printing records ([`json`]) and saying why
//! they stopped ([`failure`]).
#![forbid(unsafe_code)]

mod consume;
mod dump;
mod duration;
mod failure;
mod group;
mod json;
mod lines;
mod open;
mod produce;
mod progress;
mod queue;
mod topic;
mod verify;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;

/// Durable message streams and queues in a directory: append, read, send, receive, check, inspect.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage, 3 corruption found.
#[derive(Debug, Parser)]
#[command(name = "logmill", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    place: open::Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Arguments),
    Consume(consume::Arguments),
    Topic(topic::Arguments),
    Group(group::Arguments),
    Queue(queue::Arguments),
    Verify(verify::Arguments),
    Dump(dump::Arguments),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure::Failure::OutputClosed) => failure::Failure::OutputClosed.code(),
        Err(failure) => {
            // Where standard error is closed too, the exit code has to do.
            let _ = writeln!(stderr(), "logmill: {failure}");
            failure.code()
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    match &cli.command {
        Command::Produce(arguments) => produce::run(&cli.place, arguments),
        Command::Consume(arguments) => consume::run(&cli.place, arguments),
        Command::Topic(arguments) => topic::run(&cli.place, arguments),
        Command::Group(arguments) => group::run(&cli.place, arguments),
        Command::Queue(arguments) => queue::run(&cli.place, arguments),
        Command::Verify(arguments) => verify::run(&cli.place, arguments),
        Command::Dump(arguments) => dump::run(arguments),
    }
}
