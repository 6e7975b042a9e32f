//! `logmill backup` and `logmill restore`.

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use logmill::storage::DataDirOptions;
use logmill::storage::backup::{BackupProgress, restore};
use logmill::stream::backup;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::open::Place;
use crate::progress::Progress;
use crate::table;

const BACKUP_EXAMPLES: &str = "\
Examples:
  logmill --dir store backup /mnt/backup/store
  logmill --dir store backup /mnt/backup/store    # again: copies what is new
  logmill --dir new-store restore /mnt/backup/store";

/// Copy a store into a directory, beside its live writer
///
/// Where the directory holds an earlier backup of the store, only what is new is copied; the earlier one counts until
/// the new one is complete. Every byte is verified on the way. A backup is no store: `restore` makes one of it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = BACKUP_EXAMPLES)]
pub struct BackupArguments {
    /// The directory of the backup: new, empty, or a backup of this store
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Make a store of a backup
///
/// The store is made in --dir, which must be new or empty. Every record is verified. The log epochs rise, so positions
/// and receipts that were given out after the backup was taken are recognised, and refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  logmill --dir new-store restore /mnt/backup/store")]
pub struct RestoreArguments {
    /// The directory of the backup
    #[arg(value_name = "BACKUP")]
    source: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `backup`.
pub fn run_backup(place: &Place, arguments: &BackupArguments) -> Outcome {
    let source = place.open_files()?;
    let target = DataDirOptions::new().lock_wait(place.lock_wait()).open(&arguments.target)?;
    let report = with_bar(|tell| backup(&source, &target, tell))?;
    let mut out = BufWriter::new(stdout().lock());
    if arguments.json {
        let line = json!({
            "logs": report.logs,
            "offsets": report.offsets,
            "segments": report.segments,
            "bytes": report.bytes,
            "copied_segments": report.copied_segments,
            "copied_bytes": report.copied_bytes,
            "cloned_segments": report.cloned_segments,
            "removed_files": report.removed_files,
            "doubtful": report.doubtful,
        });
        write_line(&mut out, &line)?;
    } else {
        writeln!(
            out,
            "{} logs, {} segments, {}; of these {} segments, {} were copied",
            report.logs,
            report.segments,
            table::bytes(report.bytes),
            report.copied_segments,
            table::bytes(report.copied_bytes)
        )
        .map_err(Failure::output)?;
        for log in &report.doubtful {
            writeln!(
                out,
                "not in the backup: what a dead writer left behind the end of log {log}; it may have been acknowledged, \
                 see logmill verify"
            )
            .map_err(Failure::output)?;
        }
    }
    out.flush().map_err(Failure::output)
}

/// Runs `restore`.
pub fn run_restore(place: &Place, arguments: &RestoreArguments) -> Outcome {
    let source = DataDirOptions::new().read_only(true).open(&arguments.source)?;
    let target = DataDirOptions::new().lock_wait(place.lock_wait()).open(place.dir()?)?;
    let report = with_bar(|tell| restore(&source, &target, tell))?;
    let mut out = BufWriter::new(stdout().lock());
    if arguments.json {
        let line = json!({
            "taken_at": report.taken_at,
            "logs": report.logs,
            "segments": report.segments,
            "bytes": report.bytes,
            "epoch": report.epoch,
        });
        write_line(&mut out, &line)?;
    } else {
        let (dir, size) = (target.path().display(), table::bytes(report.bytes));
        let (logs, segments) = (report.logs, report.segments);
        writeln!(out, "{dir}: {logs} logs, {segments} segments, {size} restored and verified")
            .map_err(Failure::output)?;
    }
    out.flush().map_err(Failure::output)
}

fn with_bar<T, E: Into<Failure>>(
    work: impl FnOnce(&mut dyn FnMut(BackupProgress)) -> Result<T, E>,
) -> Outcome<T> {
    let mut bar = None;
    let done = work(&mut |progress| {
        let bar = bar.get_or_insert_with(|| Progress::bytes(progress.total, true));
        bar.set(progress.done);
    });
    done.map_err(Into::into)
}
