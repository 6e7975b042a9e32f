//! Planted bugs: do the tests notice them?

use crate::faults::FaultJob;
#[cfg(planted)]
use crate::run::Machine;
use crate::sim::Job;

/// Wakes one bug after the other and looks for it with damage, crash states and faults.
///
/// # Errors
/// A bug that was not noticed, or a false alarm when none was awake.
#[cfg(planted)]
pub fn run(states: Job, faults: FaultJob) -> Result<String, String> {
    use logmill_storage::planted::{Bug, plant};

    // What panics is noticed, and not worth a trace for each.
    std::panic::set_hook(Box::new(|_| ()));
    if let Some(what) = noticed(states, faults) {
        return Err(format!("without a planted bug: {what}"));
    }
    let mut table = String::new();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(bug));
        let found = noticed(states, faults);
        plant(None);
        if found.is_none() {
            missed.push(bug);
        }
        let shown = found.unwrap_or_else(|| "NOT NOTICED".to_owned());
        let short: String = shown.chars().take(90).collect();
        table.push_str(&format!("{:<26}{short}\n", format!("{bug:?}")));
    }
    table.push_str(&format!("\n{} planted, {} missed\n", Bug::ALL.len(), missed.len()));
    if missed.is_empty() { Ok(table) } else { Err(format!("{table}missed: {missed:?}")) }
}

/// Only a build with `--cfg planted` has bugs to find.
///
/// # Errors
/// Always.
#[cfg(not(planted))]
pub fn run(_: Job, _: FaultJob) -> Result<String, String> {
    Err("built without --cfg planted: RUSTFLAGS='--cfg planted' cargo run --release \
         --target-dir target/planted -p logmill-torture -- planted"
        .to_owned())
}

/// A workload that broke a promise once, in few of its crash states.
#[cfg(planted)]
const BROKE_ONCE: &str = "positional+sync;1;si b1 b3 b1 sl;";

#[cfg(planted)]
fn noticed(states: Job, faults: FaultJob) -> Option<String> {
    let damage = crate::examine::unless_panicked(crate::damage::run).and_then(|found| found);
    if let Err(what) = damage {
        return Some(format!("damage: {what}"));
    }
    if let Some(failure) = crate::sim::run::<Machine>(states).1 {
        return Some(format!("crash: {}", failure.what));
    }
    let once = BROKE_ONCE.parse().map(|case| crate::sim::every_cut::<Machine>(&case, 2, 1));
    match once {
        Err(what) => return Some(what),
        Ok(Err(failure)) => return Some(format!("crash: {}", failure.what)),
        Ok(Ok(_)) => {}
    }
    crate::faults::run::<Machine>(faults).1.map(|failure| format!("fault: {}", failure.what))
}
