//! The real command on a file system of our own, which forgets what was not synced and fails as it is told.
//!
//! A case is a few commands on one store, each with a fault that comes with one of its calls, and most of them followed by a
//! power loss. After each the store is settled by a synced append, verified, read in full, and held against what was
//! acknowledged. The threads of a command take turns as they will, so a case that is run again meets the same commands and
//! faults, and the same state as a rule.

use std::ops::Range;
use std::path::PathBuf;

use crate::tools::{Boot, Outcome, beside, failed};
use crate::workload;

mod account;
mod case;
mod command;
mod disk;
mod plan;
mod serve;

use case::Case;
use plan::Fault;

/// Cases of each control, of which some must be caught.
const CONTROLS: u64 = 25;

/// Run the real command on a file system that forgets and fails
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many cases
    #[arg(long, default_value_t = 100)]
    cases: u64,
    /// Chooses commands and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// This case alone
    #[arg(long)]
    case: Option<u64>,
    /// The `logmill` command; the one beside this program unless it is given
    #[arg(long)]
    command: Option<PathBuf>,
}

/// What is made wrong on purpose, to see that it is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Nothing,
    /// What is only stored is taken for synced.
    EarlyAcknowledgement,
    /// Syncs do nothing.
    LyingDisk,
}

#[derive(Debug, Default)]
struct Counts {
    cases: u64,
    commands: u64,
    acknowledged: u64,
    losses: u64,
    forgot: u64,
    /// Of each fault: how often it was planned, and how often it came.
    faults: [(u64, u64); Fault::ALL.len()],
    violations: u64,
}

struct Rig {
    home: PathBuf,
    command: PathBuf,
    boot: Boot,
    seed: u64,
}

/// Runs the rig.
pub fn run(arguments: &Arguments) -> Outcome {
    let home = workload::home()?;
    std::fs::create_dir(home.path().join("mounted")).map_err(failed("a mount point"))?;
    let rig = Rig {
        home: home.path().to_owned(),
        command: beside(arguments.command.as_deref())?,
        boot: Boot::take_over(home.path())?,
        seed: arguments.seed,
    };
    if let Some(case) = arguments.case {
        let counts = rig.cases(case..case + 1, Control::Nothing)?;
        return if counts.violations == 0 { Ok(()) } else { Err("broken".to_owned()) };
    }
    for control in [Control::EarlyAcknowledgement, Control::LyingDisk] {
        let caught = rig.cases(0..CONTROLS, control)?.violations;
        println!("{control:?}: caught in {caught} of {CONTROLS} cases");
        if caught == 0 {
            return Err(format!("{control:?} was not caught: this rig proves nothing"));
        }
    }
    let counts = rig.cases(0..arguments.cases, Control::Nothing)?;
    println!("{:<16}{:>10}{:>10}", "fault", "planned", "came");
    for (fault, (planned, came)) in Fault::ALL.iter().zip(counts.faults) {
        println!("{:<16}{planned:>10}{came:>10}", format!("{fault:?}"));
        if planned >= 20 && came == 0 {
            return Err(format!("{fault:?} never came"));
        }
    }
    println!(
        "seed {}: {} cases, {} commands, {} acknowledgements, {} power losses of which {} took something, {} violations",
        rig.seed,
        counts.cases,
        counts.commands,
        counts.acknowledged,
        counts.losses,
        counts.forgot,
        counts.violations
    );
    if counts.violations > 0 {
        return Err("an acknowledgement was broken".to_owned());
    }
    if counts.acknowledged < counts.cases || counts.forgot < counts.cases / 4 {
        return Err("too little was acknowledged, or the power losses took nothing".to_owned());
    }
    Ok(())
}

impl Rig {
    fn cases(&self, numbers: Range<u64>, control: Control) -> Outcome<Counts> {
        let mut counts = Counts::default();
        for number in numbers {
            counts.cases += 1;
            let mut case = Case::start(self, number, control)?;
            let done = case.play(&mut counts);
            case.end()?;
            if let Err(violation) = done {
                counts.violations += 1;
                if control == Control::Nothing {
                    println!(
                        "{violation}\n  again: scripts/lossy-disk --seed {} --case {number}",
                        self.seed
                    );
                }
            }
        }
        Ok(counts)
    }
}
