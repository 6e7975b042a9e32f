//! `logmill bench`: what this machine does with a scratch store.

mod plot;
mod runs;

use std::io::{BufWriter, ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use logmill::{Clock, Store, SystemClock};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::table::{self, Column};
use crate::{duration, signals};

/// Measure appends, scans, queue cycles, and latency under load, in a scratch store
///
/// The store is made in DIR and removed again. `append` appends in batches of 100, buffered; `sync` one record at a time
/// from several threads, each on the disk when it is acknowledged; `scan` reads back what `append` wrote; `queue` sends,
/// receives and deletes in batches of 10; `latency` appends with sync at a fixed rate and counts from the moment at which
/// each record was due, so that a stall is counted for every record that it delays.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  logmill bench /var/lib/app
  logmill bench /var/lib/app --test latency --rate 5000 --time 30s --plot latency.svg
  logmill bench /var/lib/app --json")]
pub struct Arguments {
    /// Where to make the scratch store
    dir: PathBuf,
    /// What to measure; may be repeated; everything unless given
    #[arg(long, value_enum)]
    test: Vec<Test>,
    /// Records of append and scan; sync and queue take a hundredth and a tenth of it
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    value_bytes: u32,
    /// Threads of sync and latency
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Records a second of latency
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long latency takes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    time: Duration,
    /// Draw the latencies into this file, as SVG; any browser shows it, rsvg-convert makes a PNG of it
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    plot: Option<PathBuf>,
    /// Print one JSON object for each test
    #[arg(long)]
    json: bool,
}

fn svg(path: &str) -> Result<PathBuf, String> {
    match path.ends_with(".svg") {
        true => Ok(path.into()),
        false => Err("the drawing is SVG, and so the file's name ends in .svg".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Test {
    Append,
    Sync,
    Scan,
    Queue,
    Latency,
}

/// One result.
struct Measured {
    name: &'static str,
    records: u64,
    bytes: u64,
    took: Duration,
    /// In ns, of what the caller waits for.
    latency: Histogram<u64>,
    /// What that is.
    of: &'static str,
}

/// A directory that goes with the command, however it ends.
struct Scratch(PathBuf);

impl Scratch {
    /// What a thread makes meanwhile goes at the next try.
    #[expect(clippy::disallowed_methods, reason = "a scratch directory that this command has made")]
    fn remove(dir: &Path) -> std::io::Result<()> {
        loop {
            match std::fs::remove_dir_all(dir) {
                Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                removed => return removed,
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What has failed before it is told.
        let _ = Scratch::remove(&self.0);
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Outcome {
    let dir = arguments.dir.join(format!("logmill-bench-{}", std::process::id()));
    let scratch = Scratch(dir.clone());
    let _removed = signals::before_the_end(move || drop(Scratch::remove(&dir)))?;
    let store = Store::open(&scratch.0)?;
    let measured = measure(&store, arguments);
    let closed = store.close().map_err(Failure::from);
    let measured = measured?;
    closed?;
    Scratch::remove(&scratch.0)
        .map_err(|e| Failure::Failed(format!("remove {}: {e}", scratch.0.display())))?;
    if let Some(path) = &arguments.plot {
        plot::draw(path, &measured)?;
    }
    write(&measured, arguments.json)
}

fn measure(store: &Store, arguments: &Arguments) -> Outcome<Vec<Measured>> {
    let wanted = |test| arguments.test.is_empty() || arguments.test.contains(&test);
    let bench = runs::Bench {
        clock: &SystemClock::new(),
        store,
        value: &vec![b'x'; arguments.value_bytes as usize],
        threads: arguments.threads,
    };
    let mut measured = Vec::new();
    if wanted(Test::Append) || wanted(Test::Scan) {
        // What is scanned has to be appended first.
        let appended = bench.append(arguments.records)?;
        if wanted(Test::Append) {
            measured.push(appended);
        }
    }
    if wanted(Test::Scan) {
        measured.push(bench.scan()?);
    }
    if wanted(Test::Sync) {
        measured.push(bench.sync(arguments.records.div_ceil(100))?);
    }
    if wanted(Test::Queue) {
        measured.push(bench.queue(arguments.records.div_ceil(10))?);
    }
    if wanted(Test::Latency) {
        measured.push(bench.latency(arguments.rate, arguments.time)?);
    }
    Ok(measured)
}

impl Measured {
    /// Measures `work`, which notes latencies and returns how many records of how many bytes it did.
    fn of(
        name: &'static str,
        of: &'static str,
        clock: &dyn Clock,
        work: impl FnOnce(&mut Histogram<u64>) -> Outcome<(u64, u64)>,
    ) -> Outcome<Measured> {
        let mut latency = histogram()?;
        let before = clock.monotonic();
        let (records, bytes) = work(&mut latency)?;
        let took = clock.monotonic().saturating_sub(before);
        Ok(Measured { name, records, bytes, took, latency, of })
    }

    fn rate(&self, n: u64) -> u64 {
        u64::try_from(u128::from(n) * 1_000_000_000 / self.took.as_nanos().max(1))
            .unwrap_or(u64::MAX)
    }
}

/// One nanosecond to a minute, to three digits.
fn histogram() -> Outcome<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .map_err(|e| Failure::Failed(format!("make a histogram: {e}")))
}

fn write(measured: &[Measured], as_json: bool) -> Outcome {
    let mut out = BufWriter::new(stdout().lock());
    if as_json {
        for result in measured {
            write_line(&mut out, &to_json(result))?;
        }
        return out.flush().map_err(Failure::output);
    }
    let us = |ns: u64| format!("{}.{}", ns / 1_000, ns % 1_000 / 100);
    let rows = measured.iter().map(|result| {
        let mut row = vec![
            result.name.to_owned(),
            result.rate(result.records).to_string(),
            format!("{}/s", table::bytes(result.rate(result.bytes))),
            result.of.to_owned(),
        ];
        row.extend([0.5, 0.9, 0.99, 0.999].map(|q| us(result.latency.value_at_quantile(q))));
        row.push(us(result.latency.max()));
        row
    });
    table::write(
        &mut out,
        &[
            Column::Left("TEST"),
            Column::Right("RECORDS/S"),
            Column::Right("VALUES"),
            Column::Left("LATENCY OF"),
            Column::Right("P50 US"),
            Column::Right("P90"),
            Column::Right("P99"),
            Column::Right("P99.9"),
            Column::Right("MAX"),
        ],
        rows.collect(),
    )?;
    out.flush().map_err(Failure::output)
}

fn to_json(result: &Measured) -> Value {
    let quantile = |q| result.latency.value_at_quantile(q);
    json!({
        "test": result.name,
        "records": result.records,
        "value_bytes": result.bytes,
        "seconds": result.took.as_secs_f64(),
        "records_per_second": result.rate(result.records),
        "bytes_per_second": result.rate(result.bytes),
        "latency_of": result.of,
        "latency_ns": {
            "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99),
            "p99_9": quantile(0.999), "max": result.latency.max(),
        },
    })
}
