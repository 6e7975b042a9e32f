//! `logmill salvage`: copies what still verifies out of a damaged store into a new one.

use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use logmill::storage::io::Kind;
use logmill::storage::salvage::{Event, Gap, SalvageReport, salvage};
use logmill::storage::{DataDir, DataDirOptions};
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::open::Place;
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  logmill --dir damaged verify
  logmill --dir damaged salvage rescued
  logmill --dir damaged salvage rescued --log 7/3 --json";

/// Copy every record that still verifies out of a damaged store into a new one
///
/// The damaged store is only read; it must have no writer. Offsets stay as they are, and what is lost is printed, a line
/// for each gap. Exits with 3 if something is lost.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The directory of the new store
    target: PathBuf,
    /// One log, such as 7/3 (topic 7, partition 3; 0 and 0/1 are the journal); all of them unless given
    #[arg(long, value_name = "NAME")]
    log: Option<String>,
    /// Print JSON, an object for each gap and one for each log
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    let source = DataDirOptions::new().read_only(true).open(place.existing_dir()?)?;
    let names = match &arguments.log {
        Some(name) => vec![name.clone()],
        None => logs(&source)?,
    };
    if names.is_empty() {
        let dir = source.path().display();
        return Err(Failure::Failed(format!("{dir} is no store: there is no log in it")));
    }
    let target = DataDir::open(&arguments.target)?;
    let mut out = BufWriter::new(stdout().lock());
    let mut lost = false;
    for name in names {
        let mut bar = None;
        let mut gaps = Vec::new();
        let report = salvage(&source, &name, &target, &mut |event| match event {
            Event::Gap(gap) => gaps.push(gap.clone()),
            Event::Progress { done, total } => {
                bar.get_or_insert_with(|| Progress::bytes(total, true)).set(done);
            }
            _ => {}
        })?;
        drop(bar);
        lost |= report.gaps > 0 || report.partial_commits > 0;
        for gap in &gaps {
            write_gap(&mut out, &name, gap, arguments.json)?;
        }
        write_report(&mut out, &name, &report, arguments.json)?;
        out.flush().map_err(Failure::output)?;
    }
    if lost {
        return Err(Failure::Corrupt(format!(
            "something of {} is lost; the rest is in {}",
            source.path().display(),
            target.path().display()
        )));
    }
    Ok(())
}

/// The logs of a store, also those that have lost their manifests.
fn logs(dir: &DataDir) -> Outcome<Vec<String>> {
    let list = |path: &Path| {
        dir.io()
            .list(path)
            .map_err(|e| Failure::Failed(format!("list {}: {e}", dir.path().join(path).display())))
    };
    let is_number = |name: &str| name.parse::<u64>().is_ok_and(|n| n.to_string() == name);
    let mut logs = Vec::new();
    let mut look = |name: String| -> Outcome {
        let entries = list(Path::new(&name))?;
        if entries.iter().any(|e| e.name == "manifest" || e.name.ends_with(".log")) {
            logs.push(name);
        }
        Ok(())
    };
    for outer in list(Path::new(""))? {
        if outer.kind != Kind::Directory || !is_number(&outer.name) {
            continue;
        }
        look(outer.name.clone())?;
        for inner in list(Path::new(&outer.name))? {
            if inner.kind == Kind::Directory && is_number(&inner.name) {
                look(format!("{}/{}", outer.name, inner.name))?;
            }
        }
    }
    logs.sort();
    Ok(logs)
}

fn write_gap(out: &mut impl Write, log: &str, gap: &Gap, as_json: bool) -> Outcome {
    let Gap { offsets, path, position, problem } = gap;
    if as_json {
        let line = json!({
            "log": log,
            "lost": {"start": offsets.start, "end": offsets.end},
            "path": path.display().to_string(),
            "position": position,
            "message": problem.to_string(),
        });
        return write_line(out, &line);
    }
    let (start, end, path) = (offsets.start, offsets.end, path.display());
    writeln!(out, "lost: {log} offsets {start}..{end}: {path} at position {position}: {problem}")
        .map_err(Failure::output)
}

fn write_report(out: &mut impl Write, log: &str, report: &SalvageReport, as_json: bool) -> Outcome {
    if as_json {
        let line = json!({
            "log": log,
            "start_offset": report.start_offset,
            "end_offset": report.end_offset,
            "segments": report.segments,
            "records": report.records,
            "gaps": report.gaps,
            "offsets_lost": report.offsets_lost,
            "partial_commits": report.partial_commits,
            "segments_with_guessed_timestamps": report.segments_with_guessed_timestamps,
        });
        return write_line(out, &line);
    }
    let SalvageReport { records, start_offset, end_offset, offsets_lost, gaps, .. } = report;
    writeln!(
        out,
        "{log}: {records} records of offsets {start_offset}..{end_offset}, {offsets_lost} offsets lost in {gaps} gaps"
    )
    .map_err(Failure::output)
}
