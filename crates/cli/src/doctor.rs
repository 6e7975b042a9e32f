//! `logmill doctor`: whether a directory is a good place for a store, and whether its disk keeps what it has synced.

use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use logmill::storage::io::{Disk, File, FileSystem, Io, Open, read_full, write_full};
use logmill::{Clock, SystemClock};
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::table;

const PAGE: usize = 4096;
/// Syncs that are timed.
const SYNCS: u64 = 200;
/// The file that is synced and removed again.
const TIMED: &str = "logmill-doctor.tmp";
/// The file of the flush test, which stays until it is checked.
const FLUSHED: &str = "logmill-doctor.flush";

/// See whether a directory is a good place for a store
///
/// Says which file system it is on and how logs are written there, how long a sync takes, how much space there is, and
/// what the system permits. With --flush-test it finds out whether the disk keeps what it says it has: run it, note the
/// last number that it printed (from another machine, over ssh), cut the power, and run it again with --flush-check and
/// that number.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  logmill doctor /var/lib/app
  ssh server logmill doctor /var/lib/app --flush-test    # pull the plug while it prints
  logmill doctor /var/lib/app --flush-check 48211        # the last number that was printed")]
pub struct Arguments {
    /// The directory
    dir: PathBuf,
    /// Write and sync one page after the other, and print the number of each when the disk says that it is safe
    #[arg(long, conflicts_with = "flush_check")]
    flush_test: bool,
    /// Stop the flush test after so many pages
    #[arg(long, value_name = "N", default_value_t = 1_000_000, requires = "flush_test")]
    pages: u64,
    /// See whether all pages up to number N are there, after the power was cut
    #[arg(long, value_name = "N")]
    flush_check: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Outcome {
    let dir = &arguments.dir;
    let disk = Disk::open(dir, false)
        .map_err(|e| Failure::Failed(format!("open {}: {e}", dir.display())))?;
    let failed = |e: std::io::Error| Failure::Failed(format!("{}: {e}", dir.display()));
    match arguments.flush_check {
        Some(last) => flush_check(&disk, last, arguments.json, &failed),
        None if arguments.flush_test => flush_test(&disk, arguments.pages, &failed),
        None => examine(&disk, arguments.json, &failed),
    }
}

type Failed<'a> = dyn Fn(std::io::Error) -> Failure + 'a;

fn examine(disk: &Disk, as_json: bool, failed: &Failed<'_>) -> Outcome {
    let (file_system, is_mapped) = match disk.file_system() {
        FileSystem::Ext4 => ("ext4", true),
        FileSystem::Tmpfs => ("tmpfs", true),
        FileSystem::Xfs => ("xfs", false),
        FileSystem::Btrfs => ("btrfs", false),
        _ => ("other", false),
    };
    let writes = if is_mapped { "mapped" } else { "positional" };
    let syncs = time_syncs(disk).map_err(failed)?;
    let free = disk.free_space().map_err(failed)?;
    let limit = |resource| getrlimit(resource).current;
    let (files, file_bytes) = (limit(Resource::Nofile), limit(Resource::Fsize));
    let us = |quantile| syncs.value_at_quantile(quantile) / 1_000;
    let mut warnings = Vec::new();
    if file_system == "tmpfs" {
        warnings.push("tmpfs is memory: nothing here survives power loss, whatever is synced");
    } else if us(0.5) < 20 {
        warnings.push(
            "syncs are faster than any disk without a power-safe cache: see --flush-test before you rely on them",
        );
    }
    if file_system == "other" {
        warnings.push(
            "this file system was not tested; of network file systems some have no working locks",
        );
    }
    if files.is_some_and(|n| n < 1024) {
        warnings
            .push("few open files are permitted: raise `ulimit -n` if there are many partitions");
    }
    if file_bytes.is_some() {
        warnings
            .push("the size of files is limited (`ulimit -f`): it must be above that of a segment");
    }
    if free < 1 << 30 {
        warnings.push("less than 1 GiB is free");
    }
    let mut out = BufWriter::new(stdout().lock());
    if as_json {
        let line = json!({
            "file_system": file_system,
            "buffered_writes": writes,
            "fdatasync_us": {"p50": us(0.5), "p99": us(0.99), "max": syncs.max() / 1_000},
            "free_bytes": free,
            "open_files_max": files,
            "file_bytes_max": file_bytes,
            "warnings": warnings,
        });
        write_line(&mut out, &line)?;
        return out.flush().map_err(Failure::output);
    }
    let unlimited =
        |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |n| n.to_string());
    let facts = [
        ("file system", file_system.to_owned()),
        ("buffered appends", format!("{writes} writes")),
        (
            "fdatasync of 4 KiB",
            format!("p50 {} us, p99 {} us, max {} us", us(0.5), us(0.99), syncs.max() / 1_000),
        ),
        ("free space", table::bytes(free)),
        ("open files", unlimited(files)),
        ("size of a file", unlimited(file_bytes)),
    ];
    let printed = facts
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "{name:<20} {value}"))
        .and_then(|()| warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}")));
    printed.and_then(|()| out.flush()).map_err(Failure::output)
}

/// Overwrites pages that are written already, as an append into a reservation does, and syncs each. In ns.
fn time_syncs(disk: &Disk) -> std::io::Result<Histogram<u64>> {
    let path = Path::new(TIMED);
    remove(disk, path)?;
    let file = disk.open(path, Open::Create)?;
    let timed = time_syncs_of(file.as_ref());
    remove(disk, path)?;
    timed
}

fn time_syncs_of(file: &dyn File) -> std::io::Result<Histogram<u64>> {
    let clock = SystemClock::new();
    write_full(file, &vec![0; PAGE * 64], 0)?;
    file.sync_data()?;
    let mut histogram =
        Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).map_err(std::io::Error::other)?;
    for n in 0..SYNCS {
        write_full(file, &[n.to_le_bytes()[0]; PAGE], n % 64 * PAGE as u64)?;
        let before = clock.monotonic();
        file.sync_data()?;
        let took = clock.monotonic().saturating_sub(before);
        histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(histogram)
}

fn remove(disk: &Disk, path: &Path) -> std::io::Result<()> {
    match disk.unlink(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Page `number`, counted from 1: its number over and over.
fn page(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(PAGE / 8)
}

fn flush_test(disk: &Disk, pages: u64, failed: &Failed<'_>) -> Outcome {
    let path = Path::new(FLUSHED);
    remove(disk, path).map_err(failed)?;
    let file = disk.open(path, Open::Create).map_err(failed)?;
    disk.sync_dir(Path::new("")).map_err(failed)?;
    let mut out = stdout().lock();
    for number in 1..=pages {
        write_full(file.as_ref(), &page(number), (number - 1) * PAGE as u64)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        writeln!(out, "{number}").and_then(|()| out.flush()).map_err(Failure::output)?;
    }
    Ok(())
}

fn flush_check(disk: &Disk, last: u64, as_json: bool, failed: &Failed<'_>) -> Outcome {
    let path = Path::new(FLUSHED);
    let file = disk.open(path, Open::Read).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::Corrupt(format!(
            "{FLUSHED} is not there: no --flush-test was run here, or the disk has lost a synced directory"
        )),
        _ => failed(e),
    })?;
    let mut found = vec![0; PAGE];
    let mut kept = 0;
    while kept < last {
        let read = read_full(file.as_ref(), &mut found, kept * PAGE as u64).map_err(failed)?;
        if read < PAGE || found != page(kept + 1) {
            break;
        }
        kept += 1;
    }
    let mut out = stdout().lock();
    if as_json {
        write_line(&mut out, &json!({"synced": last, "kept": kept, "sound": kept == last}))?;
    }
    if kept < last {
        return Err(Failure::Corrupt(format!(
            "page {} of {last} was synced and is not there: this disk, or a cache before it, loses what it says it has",
            kept + 1
        )));
    }
    drop(file);
    remove(disk, path).map_err(failed)?;
    if !as_json {
        writeln!(out, "all {last} synced pages are there").map_err(Failure::output)?;
    }
    Ok(())
}
