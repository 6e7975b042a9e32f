//! Rigs: the engine on real file systems whose disk loses power, fails, or is full.
//!
//! The scripts of the same names in `scripts/` build this and give it a mount namespace of its own. Every rig keeps its
//! own account of what was acknowledged, outside of the store, and fails unless its faults have fired.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command that says what it has found; it works on real files beside the store, in real time"
)]

mod device;
mod failed_fsync;
mod full_disk;
mod history;
mod image;
mod lossy;
mod power_loss;
mod tools;
mod workload;
mod write_log;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "logmill-rigs", version)]
enum Command {
    PowerLoss(power_loss::Arguments),
    FailedFsync(failed_fsync::Arguments),
    FullDisk(full_disk::Arguments),
    LossyDisk(lossy::Arguments),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::PowerLoss(arguments) => power_loss::run(&arguments),
        Command::FailedFsync(arguments) => failed_fsync::run(&arguments),
        Command::FullDisk(arguments) => full_disk::run(&arguments),
        Command::LossyDisk(arguments) => lossy::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}
