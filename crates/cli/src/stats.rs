//! `logmill stats`: what there is in a store, in numbers.

use std::io::{BufWriter, Write, stdout};

use crate::failure::{Failure, Outcome};
use crate::figures::Watched;
use crate::json::write_line;
use crate::open::Place;
use crate::table::{self, Column};

const EXAMPLES: &str = "\
Examples:
  logmill --dir store stats
  logmill --dir store stats --json | jq '.queues[] | select(.dead > 0)'";

/// Show what there is in a store, in numbers: topics, groups and their lag, queues and their depth
///
/// Reads beside a live writer and changes nothing. What is damaged is told after the figures, with exit code 3.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    let store = Watched::open(place)?;
    let figures = store.figures(store.queues()?)?;
    let mut out = BufWriter::new(stdout().lock());
    if arguments.json {
        write_line(&mut out, &figures.to_json())?;
        out.flush().map_err(Failure::output)?;
        return Failure::of_damage(&figures.damage);
    }
    let writer = if figures.writer_is_alive { "a writer is alive" } else { "no writer" };
    writeln!(out, "{writer}, journal {}", table::bytes(figures.journal_bytes))
        .map_err(Failure::output)?;
    table::write(
        &mut out,
        &[
            Column::Left("TOPIC"),
            Column::Right("PARTITIONS"),
            Column::Right("RECORDS"),
            Column::Right("SEGMENTS"),
            Column::Right("SIZE"),
        ],
        figures
            .topics
            .iter()
            .map(|t| {
                vec![
                    t.name.clone(),
                    t.partitions.to_string(),
                    t.records.to_string(),
                    t.segments.to_string(),
                    table::bytes(t.bytes),
                ]
            })
            .collect(),
    )?;
    table::write(
        &mut out,
        &[
            Column::Left("GROUP"),
            Column::Left("KIND"),
            Column::Right("PARTITIONS"),
            Column::Right("LAG"),
        ],
        figures
            .groups
            .iter()
            .map(|g| {
                vec![g.name.clone(), g.kind.into(), g.partitions.to_string(), g.lag.to_string()]
            })
            .collect(),
    )?;
    table::write(
        &mut out,
        &[
            Column::Left("QUEUE"),
            Column::Right("READY"),
            Column::Right("DELAYED"),
            Column::Right("IN FLIGHT"),
            Column::Right("DEAD"),
            Column::Right("OLDEST"),
        ],
        figures
            .queues
            .iter()
            .map(|q| {
                let counts = [q.ready, q.delayed, q.in_flight, q.dead];
                let mut row = vec![q.name.clone()];
                row.extend(counts.map(|count| count.to_string()));
                row.push(q.oldest_ms.map_or_else(|| "-".into(), table::age));
                row
            })
            .collect(),
    )?;
    out.flush().map_err(Failure::output)?;
    Failure::of_damage(&figures.damage)
}
