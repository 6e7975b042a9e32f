//! `logmill salvage`: copies what still verifies out of a damaged store into a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{BufWriter, Write, stdout};
use std::path::{Component, Path, PathBuf};

use logmill::storage::io::Kind;
use logmill::storage::salvage::{Event, Gap, SalvageReport, log_id, salvage_as};
use logmill::storage::{self, Corruption, DataDir, DataDirOptions, Log, LogConfig};
use logmill::stream;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::open::{self, Place};
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
/// The damaged store is only read; it must have no writer, and the new one must lie elsewhere. Offsets stay as they are, and what is lost is printed, a line
/// for each gap, and for each log that is missing or in the place of another. Partitions that lie in each other's places
/// are put where the journal says that they belong. Exits with 3 if something is lost, be it a manifest, which alone says
/// where a log ends, or what timestamps count from.
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
    let source = place.files()?;
    source.refuse_backup()?;
    let names = match &arguments.log {
        Some(name) => vec![name.clone()],
        None => logs(&source)?,
    };
    if names.is_empty() {
        return Err(open::no_store(source.path()));
    }
    refuse_overlap(source.path(), &arguments.target)?;
    let target = DataDirOptions::new().lock_wait(place.lock_wait()).open(&arguments.target)?;
    target.refuse_backup()?;
    let mut out = BufWriter::new(stdout().lock());
    let mut lost = false;
    let mut refused = BTreeSet::new();
    let (journal, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| [JOURNAL, COLD].contains(&name.as_str()));
    let mut copy = |out: &mut BufWriter<_>, name: &str, home: &str| -> Outcome {
        let mut bar = None;
        let mut gaps = Vec::new();
        let salvaged = salvage_as(&source, name, &target, home, &mut |event| match event {
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
                write_lost(out, Some(home), &error, arguments.json)?;
                refused.insert(home.to_owned());
                return Ok(());
            }
            salvaged => salvaged?,
        };
        let doubts = doubts(&report);
        lost |= report.gaps > 0 || report.partial_commits > 0 || !doubts.is_empty();
        for doubt in &doubts {
            write_lost(out, Some(home), doubt, arguments.json)?;
        }
        for gap in &gaps {
            write_gap(out, home, gap, arguments.json)?;
        }
        write_report(out, name, home, &report, arguments.json)?;
        out.flush().map_err(Failure::output)
    };
    for name in &journal {
        copy(&mut out, name, name)?;
    }
    let is_cold_lost =
        arguments.log.is_none() && target.has_log(JOURNAL)? && !target.has_log(COLD)?;
    if is_cold_lost {
        // Without it nobody sees what the journal knows until a writer has made it.
        Log::open(&target, COLD, LogConfig::default())?.close()?;
    }
    let homes = match &arguments.log {
        Some(_) => BTreeMap::new(),
        None => homes(&source, &arguments.target, &others)?,
    };
    for name in &others {
        copy(&mut out, name, homes.get(name).unwrap_or(name))?;
    }
    if is_cold_lost {
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

/// What was lost beside records.
fn doubts(report: &SalvageReport) -> Vec<String> {
    let mut doubts = Vec::new();
    if report.is_without_manifest {
        doubts.push("its manifest; what the log's ends were is not known".to_owned());
    }
    let guessed = report.segments_with_guessed_timestamps;
    if guessed > 0 {
        doubts.push(format!("heads of {guessed} segments; all timestamps in them are guessed"));
    }
    doubts
}

/// Refuses to write into what is to be rescued, and around it, where its files would be in the way.
fn refuse_overlap(source: &Path, target: &Path) -> Outcome {
    let (from, to) = (real_place(source)?, real_place(target)?);
    if !from.starts_with(&to) && !to.starts_with(&from) {
        return Ok(());
    }
    let (source, target) = (source.display(), target.display());
    Err(Failure::Failed(format!(
        "{target} and the damaged store {source} lie inside of each other; salvage to a directory elsewhere"
    )))
}

/// Where a path leads, as far as it is there.
fn real_place(path: &Path) -> Outcome<PathBuf> {
    let failed = |e| Failure::Failed(format!("the current directory: {e}"));
    let mut place = std::env::current_dir().map_err(failed)?;
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                place.pop();
            }
            part => place.push(part),
        }
        // What is not there yet will be no link.
        place = place.canonicalize().unwrap_or(place);
    }
    Ok(place)
}

/// Whether the error is one of a file below `dir`.
fn is_of(error: &storage::Error, dir: &Path) -> bool {
    use storage::Error::{Corrupt, Io, NotAFile};
    let (Corrupt { path, .. } | NotAFile { path } | Io { path, .. }) = error else { return false };
    path.starts_with(dir)
}

/// The logs that lie in the place of another, and where they belong, as the journal says that was rescued.
fn homes(source: &DataDir, target: &Path, names: &[String]) -> Outcome<BTreeMap<String, String>> {
    let target = DataDirOptions::new().read_only(true).open(target)?;
    // Without a journal nobody knows, and that is told at the end.
    let bound = stream::bound_logs(&target).unwrap_or_default();
    let lying = names.iter().map(|name| (name.clone(), log_id(source, name))).collect();
    Ok(moves(&lying, &bound))
}

/// Of the logs that lie in the place of another, those of which there is no doubt where they belong: each lies in one place
/// and belongs to one, and what lies there moves away itself, if anything does.
fn moves(
    lying: &BTreeMap<String, Option<[u8; 16]>>,
    bound: &BTreeMap<String, [u8; 16]>,
) -> BTreeMap<String, String> {
    let only = |name: &String, id: &[u8; 16]| {
        let mut lie = lying.iter().filter(|(_, found)| **found == Some(*id));
        let mut belong = bound.iter().filter(|(_, bound)| *bound == id);
        let (there, home) = (lie.next()?.0, belong.next()?.0);
        let is_certain = there == name && lie.next().is_none() && belong.next().is_none();
        (is_certain && there != home).then(|| (there.clone(), home.clone()))
    };
    let mut moves: BTreeMap<_, _> =
        lying.iter().filter_map(|(name, id)| only(name, id.as_ref()?)).collect();
    loop {
        let before = moves.len();
        let goes: BTreeSet<String> = moves.keys().cloned().collect();
        moves.retain(|_, home| goes.contains(home) || !lying.contains_key(home));
        if moves.len() == before {
            return moves;
        }
    }
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
    let Gap { offsets, path, position, problem, .. } = gap;
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

fn write_report(
    out: &mut impl Write,
    name: &str,
    log: &str,
    report: &SalvageReport,
    as_json: bool,
) -> Outcome {
    if as_json {
        let line = json!({
            "log": log,
            "found_in": name,
            "start_offset": report.start_offset,
            "end_offset": report.end_offset,
            "segments": report.segments,
            "records": report.records,
            "gaps": report.gaps,
            "offsets_lost": report.offsets_lost,
            "partial_commits": report.partial_commits,
            "is_without_manifest": report.is_without_manifest,
            "segments_with_guessed_timestamps": report.segments_with_guessed_timestamps,
        });
        return write_line(out, &line);
    }
    let SalvageReport { records, start_offset, end_offset, offsets_lost, gaps, .. } = report;
    let put_back = if name == log { String::new() } else { format!("; it lay in {name}") };
    writeln!(
        out,
        "{log}: {records} records of offsets {start_offset}..{end_offset}, {offsets_lost} offsets lost in {gaps} gaps{put_back}"
    )
    .map_err(Failure::output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moves of logs, given as the number of the log that lies in each place, and of that which belongs there. 0: nobody
    /// knows which.
    fn found(lying: &[(&str, u8)], bound: &[(&str, u8)]) -> Vec<String> {
        let id = |number: u8| (number > 0).then_some([number; 16]);
        let lying = lying.iter().map(|(name, number)| ((*name).to_owned(), id(*number)));
        let bound = bound.iter().map(|(name, number)| ((*name).to_owned(), [*number; 16]));
        let moves = moves(&lying.collect(), &bound.collect());
        moves.into_iter().map(|(name, home)| format!("{name} to {home}")).collect()
    }

    #[test]
    fn a_log_moves_only_if_it_lies_once_and_belongs_once_and_its_place_becomes_free() {
        let bound = [("1/0", 1), ("1/1", 2), ("1/2", 3)];
        for (lying, expected) in [
            (&[("1/0", 1), ("1/1", 2), ("1/2", 3)][..], &[][..]),
            (&[("1/0", 2), ("1/1", 1), ("1/2", 3)], &["1/0 to 1/1", "1/1 to 1/0"]),
            (&[("1/0", 2), ("1/1", 3), ("1/2", 1)], &["1/0 to 1/1", "1/1 to 1/2", "1/2 to 1/0"]),
            // Its place is free; or holds a log of another store, or one of which nobody knows which it is.
            (&[("1/0", 2), ("1/2", 3)], &["1/0 to 1/1"]),
            (&[("9/0", 2), ("1/0", 1)], &["9/0 to 1/1"]),
            (&[("1/0", 2), ("1/1", 7)], &[]),
            (&[("1/0", 2), ("1/1", 0)], &[]),
            // So does the place of what would have to make room.
            (&[("1/0", 2), ("1/1", 3), ("1/2", 7)], &[]),
            // A copy of one in the place of the other.
            (&[("1/0", 1), ("1/1", 1)], &[]),
            (&[("1/0", 2), ("1/1", 1), ("1/2", 1)], &[]),
        ] {
            assert_eq!(found(lying, &bound), expected, "{lying:?}");
        }
        let twice = [("1/0", 2), ("1/1", 2)];
        assert_eq!(found(&[("9/0", 2)], &twice), [""; 0]);
        assert_eq!(found(&[("1/0", 2), ("1/1", 1)], &[]), [""; 0]);
    }
}
