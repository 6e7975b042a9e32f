//! `logmill compact`: keeps the latest record of each key.

use std::io::{BufWriter, Write, stdout};

use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::open::Place;
use crate::progress::Progress;
use crate::table;

const EXAMPLES: &str = "\
Examples:
  logmill --dir store compact users
  logmill --dir store compact users --partition 3 --json";

/// Why nothing was done.
const ACTIVE_ONLY: &str =
    "all its records are in the segment that is being written, which is left alone";
const ALL_LATEST: &str = "every record of the full segments is the latest of its key, or has none";

/// Keep of all records of a key the latest, now
///
/// A topic whose cleanup is `compact` does so by itself when half of a partition is new. The segment that is being
/// written is left alone. Offsets stay as they are, and so do records without a key.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The topic
    topic: String,
    /// One partition; all of them unless given
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Print one JSON object for each partition
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    place.existing_dir()?;
    place.write(|store| compact(store, arguments))
}

fn compact(store: &logmill::Store, arguments: &Arguments) -> Outcome {
    let topic = store.topic(&arguments.topic)?;
    let partitions = match arguments.partition {
        Some(number) => vec![topic.partition(number)?],
        None => topic.partitions(),
    };
    let mut before = Vec::new();
    for partition in &partitions {
        before.push(partition.stats()?);
    }
    let progress = Progress::bytes(before.iter().map(|stats| stats.bytes).sum(), true);
    let mut out = BufWriter::new(stdout().lock());
    for (partition, stats) in partitions.iter().zip(before) {
        let report = partition.compact()?;
        progress.add(stats.bytes);
        let why_idle = report.is_idle().then_some(match stats.segments {
            0 | 1 => ACTIVE_ONLY,
            _ => ALL_LATEST,
        });
        let number = partition.number();
        if arguments.json {
            let line = json!({
                "partition": number,
                "segments_rewritten": report.rewritten,
                "segments_written": report.written,
                "records_removed": report.records_removed,
                "tombstones_removed": report.tombstones_removed,
                "bytes_before": report.bytes_before,
                "bytes_after": report.bytes_after,
                "why_idle": why_idle,
            });
            write_line(&mut out, &line)?;
        } else if let Some(why) = why_idle {
            writeln!(out, "partition {number}: nothing to remove: {why}")
                .map_err(Failure::output)?;
        } else {
            let (before, after) =
                (table::bytes(report.bytes_before), table::bytes(report.bytes_after));
            writeln!(
                out,
                "partition {number}: {} records removed, {before} became {after}",
                report.records_removed
            )
            .map_err(Failure::output)?;
        }
    }
    out.flush().map_err(Failure::output)
}
