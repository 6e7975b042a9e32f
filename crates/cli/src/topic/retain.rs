//! `logmill topic retain`: removes what retention no longer keeps.

use std::io::{BufWriter, Write, stdout};

use logmill::Topic;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::json::write_line;
use crate::table;

/// Runs the command.
pub fn run(topic: &Topic, partition: Option<u32>, as_json: bool) -> Outcome {
    let partitions = match partition {
        Some(number) => vec![topic.partition(number)?],
        None => topic.partitions(),
    };
    let mut out = BufWriter::new(stdout().lock());
    for partition in partitions {
        let number = partition.number();
        // One that never had a record has no log, and its numbers would make it one.
        let bytes = || match partition.end_offset()? {
            0 => Ok(0),
            _ => partition.stats().map(|stats| stats.bytes),
        };
        let (first, before) = (partition.start_offset()?, bytes()?);
        let start = partition.apply_retention()?;
        let after = bytes()?;
        let removed = start - first;
        if as_json {
            let line = json!({
                "partition": number, "records_removed": removed, "start_offset": start,
                "bytes_before": before, "bytes_after": after,
            });
            write_line(&mut out, &line)?;
        } else if removed == 0 {
            writeln!(out, "partition {number}: nothing to remove").map_err(Failure::output)?;
        } else {
            let (before, after) = (table::bytes(before), table::bytes(after));
            writeln!(out, "partition {number}: {removed} records removed, {before} became {after}")
                .map_err(Failure::output)?;
        }
    }
    out.flush().map_err(Failure::output)
}
