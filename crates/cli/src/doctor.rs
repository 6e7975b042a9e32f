//! `logmill doctor`: whether a directory is a good place for a store, and whether its disk keeps what it has synced.

use std::io::{BufWriter, Write, stderr, stdout};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use logmill::storage::io::{Disk, File, FileSystem, Io, Open, read_full, write_full};
use logmill::{Clock, SystemClock};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::table;

const PAGE: usize = 4096;
/// Syncs that are timed.
const SYNCS: u64 = 200;
/// Checks that can fail.
const WRITES_AND_SYNCS: &str = "fdatasync of 4 KiB";
const FREE_SPACE: &str = "free space";
/// The file that is synced and removed again.
const TIMED: &str = "logmill-doctor.tmp";
/// The file of the flush test, which stays until it is checked.
const FLUSHED: &str = "logmill-doctor.flush";

/// See whether a directory is a good place for a store
///
/// Says which file system it is on and how logs are written there, how long a sync takes, how much space there is, and
/// what the system permits; what it cannot find out it names, and exits with 1. With --flush-test it finds out whether the disk keeps what it says it has: run it, note the
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
    /// Print one JSON object; the numbers of --flush-test go to standard error
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
        None if arguments.flush_test => flush_test(&disk, arguments.pages, arguments.json, &failed),
        None => examine(&disk, dir, arguments.json),
    }
}

type Failed<'a> = dyn Fn(std::io::Error) -> Failure + 'a;

/// What was found.
struct Found {
    file_system: &'static str,
    /// How buffered appends are written.
    writes: &'static str,
    /// In ns.
    syncs: std::io::Result<Histogram<u64>>,
    free: std::io::Result<u64>,
    files: Option<u64>,
    file_bytes: Option<u64>,
}

/// Whatever cannot be found out is told as such, and does not keep the rest from being told.
fn examine(disk: &Disk, dir: &Path, as_json: bool) -> Outcome {
    let (file_system, is_mapped) = match disk.file_system() {
        FileSystem::Ext4 => ("ext4", true),
        FileSystem::Tmpfs => ("tmpfs", true),
        FileSystem::Xfs => ("xfs", false),
        FileSystem::Btrfs => ("btrfs", false),
        _ => ("other", false),
    };
    let limit = |resource| getrlimit(resource).current;
    let found = Found {
        file_system,
        writes: if is_mapped { "mapped" } else { "positional" },
        syncs: time_syncs(disk),
        free: disk.free_space(),
        files: limit(Resource::Nofile),
        file_bytes: limit(Resource::Fsize),
    };
    let mut out = BufWriter::new(stdout().lock());
    if as_json {
        write_line(&mut out, &found.to_json())?;
    } else {
        found.write(&mut out).map_err(Failure::output)?;
    }
    out.flush().map_err(Failure::output)?;
    let failed: Vec<_> = found.failures().iter().map(|(check, _)| *check).collect();
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(Failure::Failed(format!(
            "{} is no place for a store as it is, these checks failed: {}",
            dir.display(),
            failed.join(", ")
        ))),
    }
}

impl Found {
    fn failures(&self) -> Vec<(&'static str, &std::io::Error)> {
        let syncs = self.syncs.as_ref().err().map(|e| (WRITES_AND_SYNCS, e));
        let free = self.free.as_ref().err().map(|e| (FREE_SPACE, e));
        syncs.into_iter().chain(free).collect()
    }

    fn warnings(&self) -> Vec<&'static str> {
        let p50_us =
            self.syncs.as_ref().map_or(u64::MAX, |syncs| syncs.value_at_quantile(0.5) / 1_000);
        let mut warnings = Vec::new();
        if self.file_system == "tmpfs" {
            warnings.push("tmpfs is memory: nothing here survives power loss, whatever is synced");
        } else if p50_us < 20 {
            warnings.push(
                "syncs are faster than any disk without a power-safe cache: see --flush-test before you rely on them",
            );
        }
        if self.file_system == "other" {
            warnings.push(
                "this file system was not tested; of network file systems some have no working locks",
            );
        }
        if self.files.is_some_and(|n| n < 1024) {
            warnings.push(
                "few open files are permitted: raise `ulimit -n` if there are many partitions",
            );
        }
        if self.file_bytes.is_some() {
            warnings.push(
                "the size of files is limited (`ulimit -f`): it must be above that of a segment",
            );
        }
        if self.free.as_ref().is_ok_and(|free| *free < 1 << 30) {
            warnings.push("less than 1 GiB is free");
        }
        warnings
    }

    fn to_json(&self) -> Value {
        let us = |syncs: &Histogram<u64>| {
            let at = |quantile| syncs.value_at_quantile(quantile) / 1_000;
            json!({"p50": at(0.5), "p99": at(0.99), "max": syncs.max() / 1_000})
        };
        let failed = self
            .failures()
            .into_iter()
            .map(|(check, e)| json!({"check": check, "message": e.to_string()}));
        json!({
            "file_system": self.file_system,
            "buffered_writes": self.writes,
            "fdatasync_us": self.syncs.as_ref().ok().map(us),
            "free_bytes": self.free.as_ref().ok(),
            "open_files_max": self.files,
            "file_bytes_max": self.file_bytes,
            "warnings": self.warnings(),
            "failed": failed.collect::<Vec<_>>(),
        })
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let unlimited =
            |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |n| n.to_string());
        let failed = |e: &std::io::Error| format!("FAILED: {e}");
        let us = |syncs: &Histogram<u64>| {
            let at = |quantile| syncs.value_at_quantile(quantile) / 1_000;
            format!("p50 {} us, p99 {} us, max {} us", at(0.5), at(0.99), syncs.max() / 1_000)
        };
        let facts = [
            ("file system", self.file_system.to_owned()),
            ("buffered appends", format!("{} writes", self.writes)),
            (WRITES_AND_SYNCS, self.syncs.as_ref().map_or_else(failed, us)),
            (FREE_SPACE, self.free.as_ref().map_or_else(failed, |free| table::bytes(*free))),
            ("open files", unlimited(self.files)),
            ("size of a file", unlimited(self.file_bytes)),
        ];
        facts.iter().try_for_each(|(name, value)| writeln!(out, "{name:<20} {value}"))?;
        self.warnings().iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
    }
}

/// Overwrites pages that are written already, as an append into a reservation does, and syncs each. In ns.
fn time_syncs(disk: &Disk) -> std::io::Result<Histogram<u64>> {
    let path = Path::new(TIMED);
    remove(disk, path)?;
    let file = disk.open(path, Open::Create)?;
    let timed = time_syncs_of(file.as_ref());
    let removed = remove(disk, path);
    timed.and_then(|timed| removed.map(|()| timed))
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

/// Says of each page that it is synced, as soon as it is: on standard output, or, where that is for the one object, on
/// standard error.
fn flush_test(disk: &Disk, pages: u64, as_json: bool, failed: &Failed<'_>) -> Outcome {
    let mut synced = 0;
    let tested = flush_pages(disk, pages, failed, &mut |number| {
        synced = number;
        let said = match as_json {
            true => writeln!(stderr(), "{number}"),
            false => writeln!(stdout(), "{number}").and_then(|()| stdout().flush()),
        };
        said.map_err(Failure::output)
    });
    if as_json {
        let message = tested.as_ref().err().map(Failure::to_string);
        let object = json!({"pages": pages, "synced": synced, "failed": message});
        write_line(&mut stdout(), &object)?;
    }
    tested
}

fn flush_pages(
    disk: &Disk,
    pages: u64,
    failed: &Failed<'_>,
    synced: &mut dyn FnMut(u64) -> Outcome,
) -> Outcome {
    let path = Path::new(FLUSHED);
    remove(disk, path).map_err(failed)?;
    let file = disk.open(path, Open::Create).map_err(failed)?;
    disk.sync_dir(Path::new("")).map_err(failed)?;
    for number in 1..=pages {
        write_full(file.as_ref(), &page(number), (number - 1) * PAGE as u64)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        synced(number)?;
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
