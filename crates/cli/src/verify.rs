//! `logmill verify`: checks every byte of a store and changes none.

use std::io::{self, BufWriter, Write, stdout};

use logmill::Store;
use logmill::storage::verify::{Finding, Problem, Severity, VerifyReport};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::open::{self, Place};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  logmill --dir store verify
  logmill --dir /mnt/backup/store verify    # a backup";

/// Check every byte of a store or of a backup, and change none
///
/// Works beside a live writer, of whose logs only what is durable is judged. What is found goes to standard output, a
/// line for each finding. Notes are no damage. Exits with 3 if records are damaged or missing, or if bytes were set
/// aside that may have been acknowledged.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    let files = place.files()?;
    let dir = files.path();
    let mut bar = None;
    let report = Store::verify(dir, &mut |progress| {
        let bar = bar.get_or_insert_with(|| Progress::bytes(progress.total, true));
        bar.set(progress.done);
    })?;
    drop(bar);
    if report.logs == 0 && report.worst.is_none_or(|worst| worst < Severity::Unreadable) {
        return Err(open::no_store(dir));
    }
    let mut out = BufWriter::new(stdout().lock());
    let printed = match arguments.json {
        true => write_json(&mut out, &report),
        false => write_text(&mut out, &report),
    };
    printed.and_then(|()| out.flush()).map_err(Failure::output)?;
    judge(&report, &dir.display().to_string())
}

/// What the report means for the exit code.
fn judge(report: &VerifyReport, dir: &str) -> Outcome {
    let has = |severity| {
        report.worst == Some(severity) || report.findings.iter().any(|f| f.severity == severity)
    };
    if has(Severity::Corrupt) {
        return Err(Failure::Corrupt(format!(
            "{dir} is damaged; what was found says where. Keep a copy of it before anything is repaired"
        )));
    }
    if has(Severity::Ambiguous) {
        return Err(Failure::Corrupt(format!(
            "{dir} is whole, but bytes that may have been acknowledged are not part of it; what was found says where"
        )));
    }
    if has(Severity::Unreadable) {
        return Err(Failure::Failed(format!("not all of {dir} could be read")));
    }
    Ok(())
}

fn write_text(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    if report.omitted > 0 {
        writeln!(out, "and {} more", report.omitted)?;
    }
    let VerifyReport { logs, segments, batches, records, bytes, .. } = report;
    write!(
        out,
        "{logs} logs, {segments} segments, {batches} batches, {records} records, {bytes} bytes verified: "
    )?;
    match report.worst {
        None => writeln!(out, "sound"),
        Some(Severity::Note) => writeln!(out, "sound, with notes"),
        Some(worst) => writeln!(out, "{worst}"),
    }
}

fn write_json(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    let findings: Vec<Value> = report.findings.iter().map(finding_json).collect();
    let object = json!({
        "sound": report.worst.is_none_or(|worst| worst == Severity::Note),
        "worst": report.worst.map(|worst| worst.to_string()),
        "logs": report.logs,
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.bytes,
        "findings": findings,
        "omitted": report.omitted,
    });
    writeln!(out, "{object}")
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.to_string(),
        "path": finding.path.display().to_string(),
        "position": finding.position,
        "offsets": finding.offsets.as_ref().map(|offsets| {
            // Nobody knows how far it goes.
            let end = Some(offsets.end).filter(|end| *end < u64::MAX);
            json!({"start": offsets.start, "end": end})
        }),
        "problem": problem_name(&finding.problem),
        "message": finding.problem.to_string(),
    })
}

/// The problem in a word that a program can compare.
fn problem_name(problem: &Problem) -> &'static str {
    match problem {
        Problem::Corruption(_) => "corruption",
        Problem::Io { .. } => "io",
        Problem::TornTail { .. } => "torn_tail",
        Problem::DoubtfulTail { .. } => "doubtful_tail",
        Problem::Quarantined { .. } => "quarantined",
        Problem::ManifestSlot(_) => "manifest_slot",
        Problem::Disposable(_) => "disposable",
        Problem::StaleIndex => "stale_index",
        Problem::MissingIndex => "missing_index",
        Problem::Superseded => "superseded",
        Problem::Temporary => "temporary",
        Problem::Unexpected => "unexpected",
        Problem::NotAFile => "not_a_file",
        Problem::LooseMode { .. } => "loose_mode",
        _ => "other",
    }
}
