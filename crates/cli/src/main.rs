//! `logmill`: append to, read, check and inspect a store from a shell.
//!
//! One file for each command; what they share is reading lines ([`lines`]), printing records ([`json`]) and saying why
//! they stopped ([`failure`]).
#![forbid(unsafe_code)]

mod backup;
mod bench;
mod compact;
mod consume;
mod doctor;
mod dump;
mod duration;
mod ends;
mod failure;
mod figures;
mod group;
mod json;
mod lines;
mod open;
mod page;
mod produce;
mod progress;
mod queue;
mod salvage;
mod shell;
mod signals;
mod stats;
mod table;
mod top;
mod topic;
mod verify;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::failure::Outcome;

/// Durable message streams and queues in a directory: append, read, send, receive, check, inspect.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage, 3 corruption found.
#[derive(Debug, Parser)]
#[command(name = "logmill", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  logmill --dir store produce events --file access.log     append each line to a topic
  logmill --dir store consume events                       print what is in it
  logmill --dir store queue create jobs
  echo 'resize 17' | logmill --dir store queue send jobs
  logmill --dir store queue receive jobs --delete
  logmill --dir store top                                  watch it")]
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
    Stats(stats::Arguments),
    Top(top::Arguments),
    Verify(verify::Arguments),
    Dump(dump::Arguments),
    Compact(compact::Arguments),
    Salvage(salvage::Arguments),
    Backup(backup::BackupArguments),
    Restore(backup::RestoreArguments),
    Doctor(doctor::Arguments),
    Bench(bench::Arguments),
    Completions(shell::CompletionsArguments),
    Man(shell::ManArguments),
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
        Command::Stats(arguments) => stats::run(&cli.place, arguments),
        Command::Top(arguments) => top::run(&cli.place, arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Compact(arguments) => compact::run(&cli.place, arguments),
        Command::Salvage(arguments) => salvage::run(&cli.place, arguments),
        Command::Backup(arguments) => backup::run_backup(&cli.place, arguments),
        Command::Restore(arguments) => backup::run_restore(&cli.place, arguments),
        Command::Completions(arguments) => shell::run_completions(Cli::command(), arguments),
        Command::Man(arguments) => shell::run_man(Cli::command(), arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(command.get_about().is_some(), "{path} says nothing of itself");
        assert!(help.contains("Example") && help.contains("  logmill "), "{path}: {help}");
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            look(inner, &path);
        }
    }

    #[test]
    fn every_command_down_to_the_last_says_what_it_does_and_has_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let path = command.get_name().to_owned();
            look(command, &path);
        }
    }
}
