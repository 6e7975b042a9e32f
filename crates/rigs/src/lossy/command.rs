//! The real command, run to its end.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::tools::{Outcome, failed, text};

/// Longer than any of them takes.
const SECONDS_MAX: &str = "60";

/// What a command came to.
pub struct Ran {
    /// `None`, and 128 and above: it was killed.
    pub code: Option<i32>,
    /// What it printed in whole lines.
    pub lines: Vec<String>,
    pub said: String,
}

/// Runs the command to its end, and kills it where it has none.
pub fn run(command: &Path, store: &Path, arguments: &[&str], input: String) -> Outcome<Ran> {
    let mut child = Command::new("timeout")
        .args(["--signal", "KILL", SECONDS_MAX, text(command), "--dir", text(store)])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("timeout"))?;
    // The pipe breaks where the command ends first.
    let feeder = child
        .stdin
        .take()
        .map(|mut stdin| thread::spawn(move || drop(stdin.write_all(input.as_bytes()))));
    let output = child.wait_with_output().map_err(failed("waiting"))?;
    if let Some(feeder) = feeder {
        let _ = feeder.join();
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    Ok(Ran {
        code: output.status.code(),
        lines: whole.lines().map(str::to_owned).collect(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
