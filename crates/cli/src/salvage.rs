//! `logmill salvage`: copies what still verifies out of a damaged store into a new one.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use logmill::storage::io::Kind;
use logmill::storage::salvage::{Event, Gap, SalvageReport, salvage};
use logmill::storage::{self, Corruption, DataDir, DataDirOptions, Log, LogConfig};
use logmill::stream;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::open::Place;
use crate::progress::Progress;

/// The journal and its cold part.
const JOURNAL: &str = "0";
const COLD: &str = "0/1";

const EXAMPLES: &str = "\
Examples:
  logmill --dir damaged verify
  logmill --dir damaged salvage rescued
  logmill --dir damaged salvage rescued --log 7/3 --json";

/// Copy every record that still verifies out of a damaged store into a new one
///
/// The damaged store is only read; it must have no writer. Offsets stay as they are, and what is lost is printed, a line
/// for each gap, and for each log that is missing or in the place of another. Exits with 3 if something is lost.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The directory of the new store
    target: PathBuf,
    /// One log, such as 7/3 (topic 7, partition 3; 0 and 0/1 are the journal); all of them unless given
    #[arg(long, value_name = "NAME")]
    log: Option<String>,
    /// Print JSON, an object for each gap and for each log
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
    let mut refused = BTreeSet::new();
    for name in names {
        let mut bar = None;
        let mut gaps = Vec::new();
        let salvaged = salvage(&source, &name, &target, &mut |event| match event {
            Event::Gap(gap) => gaps.push(gap.clone()),
            Event::Progress { done, total } => {
                bar.get_or_insert_with(|| Progress::bytes(total, true)).set(done);
            }
            _ => {}
        });
        drop(bar);
        let report = match salvaged {
            // There are others.
            Err(error) if arguments.log.is_none() && is_of(&error, source.path()) => {
                write_lost(&mut out, Some(&name), &error, arguments.json)?;
                refused.insert(name);
                continue;
            }
            salvaged => salvaged?,
        };
        lost |= report.gaps > 0 || report.partial_commits > 0;
        for gap in &gaps {
            write_gap(&mut out, &name, gap, arguments.json)?;
        }
        write_report(&mut out, &name, &report, arguments.json)?;
        out.flush().map_err(Failure::output)?;
    }
    if arguments.log.is_none() && target.has_log(JOURNAL)? && !target.has_log(COLD)? {
        // Without it nobody sees what the journal knows until a writer has made it.
        Log::open(&target, COLD, LogConfig::default())?.close()?;
        if !refused.contains(COLD) {
            write_lost(&mut out, Some(COLD), &Corruption::LostLog, arguments.json)?;
        }
        lost = true;
    }
    target.close();
    lost |= !refused.is_empty();
    if arguments.log.is_none() {
        for error in misplaced(&arguments.target)? {
            // It was named above.
            if refused.iter().any(|name| is_of(&error, &arguments.target.join(name))) {
                continue;
            }
            write_misplaced(&mut out, &arguments.target, &error, arguments.json)?;
            lost = true;
        }
        out.flush().map_err(Failure::output)?;
    }
    if lost {
        return Err(Failure::Corrupt(format!(
            "something of {} is lost; the rest is in {}",
            source.path().display(),
            arguments.target.display()
        )));
    }
    Ok(())
}

/// Whether the error is one of a file below `dir`.
fn is_of(error: &storage::Error, dir: &Path) -> bool {
    use storage::Error::{Corrupt, Io, NotAFile};
    let (Corrupt { path, .. } | NotAFile { path } | Io { path, .. }) = error else { return false };
    path.starts_with(dir)
}

/// What the journal that was rescued says of the logs beside it: that some are missing, or others than they should be. It is
/// the result that is asked, since a log that has lost its manifest has one again there.
fn misplaced(target: &Path) -> Outcome<Vec<storage::Error>> {
    let target = DataDirOptions::new().read_only(true).open(target)?;
    match stream::misplaced_logs(&target) {
        // Without a journal nobody knows what there should be.
        Err(stream::Error::Storage(error)) => Ok(vec![error]),
        found => Ok(found?),
    }
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

/// Writes what is the matter with a log as a whole.
fn write_misplaced(
    out: &mut impl Write,
    dir: &Path,
    error: &storage::Error,
    as_json: bool,
) -> Outcome {
    let storage::Error::Corrupt { path, what, .. } = error else {
        return write_lost(out, None, error, as_json);
    };
    let name = path.strip_prefix(dir).unwrap_or(path).display().to_string();
    write_lost(out, Some(&name), what, as_json)
}

fn write_lost(
    out: &mut impl Write,
    log: Option<&str>,
    message: &dyn Display,
    as_json: bool,
) -> Outcome {
    if as_json {
        return write_line(out, &json!({"log": log, "message": message.to_string()}));
    }
    let log = log.map(|name| format!("{name}: ")).unwrap_or_default();
    writeln!(out, "lost: {log}{message}").map_err(Failure::output)
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
