//! `logmill group …`: looking at consumer groups and share groups, and moving them.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write, stdout};

use clap::{Args, Subcommand};
use logmill::{GroupDescription, GroupPhase, Store};
use serde_json::{Value, json};

use crate::consume::Start;
use crate::failure::{Failure, Outcome};
use crate::figures::{kind_name, take_in};
use crate::json::write_line;
use crate::open::Place;
use crate::table::{self, Column};

/// Consumer groups: list, describe, reset, delete
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  logmill --dir store group list
  logmill --dir store group reset billing --to earliest --topic clicks")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the groups: their topics, and how many records they have not read
    #[command(
        after_long_help = "Examples:\n  logmill --dir store group list\n  logmill --dir store group list --json"
    )]
    List,
    /// Show how far a group has come, and its lag, in each partition
    #[command(after_long_help = "Example:\n  logmill --dir store group describe billing")]
    Describe {
        /// The group
        name: String,
    },
    /// Send a group that has no members elsewhere
    #[command(
        after_long_help = "Examples:\n  logmill --dir store group reset billing --to earliest\n  logmill --dir store group reset billing --to @1700000000000 --topic clicks"
    )]
    Reset {
        /// The group
        name: String,
        /// earliest, latest, an offset, or @MS, the first record not older than that (ms since 1970). What is not there
        /// means the nearest that is
        #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
        to: Start,
        /// One topic; without it, every topic in which the group has a position
        #[arg(long)]
        topic: Option<String>,
    },
    /// Delete a group that has no members, with all its positions
    #[command(after_long_help = "Example:\n  logmill --dir store group delete billing")]
    Delete {
        /// The group
        name: String,
    },
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::List => return place.read(|store| list(store, arguments.json)),
        Command::Describe { name } => {
            return place.read(|store| describe(&store.describe_group(name)?, arguments.json));
        }
        Command::Reset { .. } | Command::Delete { .. } => {}
    }
    place.existing_dir()?;
    place.write(|store| change(store, arguments))
}

fn change(store: &Store, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Reset { name, to, topic } => {
            let topics = topics(&store.describe_group(name)?, topic.as_deref());
            if topics.is_empty() {
                return Err(Failure::Failed(format!(
                    "group {name:?} has no position in any topic, so nothing was reset: name a topic with --topic"
                )));
            }
            for topic in topics {
                store.reset_group(name, &topic, (*to).into())?;
            }
            match arguments.json {
                true => describe(&store.describe_group(name)?, true),
                false => Ok(()),
            }
        }
        Command::Delete { name } => {
            store.delete_group(name)?;
            match arguments.json {
                true => write_line(&mut stdout(), &json!({ "name": name, "deleted": true })),
                false => Ok(()),
            }
        }
        Command::List | Command::Describe { .. } => Ok(()),
    }
}

/// The topics in which a group has a position, or the one that is wanted.
fn topics(group: &GroupDescription, wanted: Option<&str>) -> BTreeSet<String> {
    match wanted {
        Some(topic) => BTreeSet::from([topic.to_owned()]),
        None => group.partitions.iter().map(|at| at.partition.topic.to_string()).collect(),
    }
}

/// What is damaged does not keep the rest from being shown, and is told after it.
fn list(store: &Store, as_json: bool) -> Outcome {
    let mut out = BufWriter::new(stdout());
    let (mut rows, mut damage) = (Vec::new(), Vec::new());
    for (name, kind) in store.groups()? {
        let described = store.describe_group(&name).map_err(Failure::from);
        let Some(group) = take_in(&mut damage, described)? else { continue };
        let (kind, topics, lag) = (kind_name(kind), topics(&group, None), group.lag());
        if as_json {
            let line = json!({ "name": name, "kind": kind, "topics": topics, "lag": lag });
            write_line(&mut out, &line)?;
        } else {
            let topics = topics.into_iter().collect::<Vec<_>>().join(",");
            rows.push(vec![name, kind.to_owned(), topics, lag.to_string()]);
        }
    }
    let columns =
        [Column::Left("GROUP"), Column::Left("KIND"), Column::Left("TOPICS"), Column::Right("LAG")];
    table::write(&mut out, &columns, rows)?;
    out.flush().map_err(Failure::output)?;
    Failure::of_damage(&damage)
}

fn describe(group: &GroupDescription, as_json: bool) -> Outcome {
    let phase = match group.phase {
        GroupPhase::Stable => "stable",
        GroupPhase::Rebalancing => "rebalancing",
        _ => "empty",
    };
    let kind = kind_name(group.kind);
    let mut out = BufWriter::new(stdout());
    if as_json {
        let partitions: Vec<Value> = group
            .partitions
            .iter()
            .map(|at| {
                json!({
                    "topic": &*at.partition.topic, "partition": at.partition.partition,
                    "committed": at.committed, "metadata": at.metadata, "start_offset": at.start,
                    "end_offset": at.end, "lag": at.lag, "in_flight": at.in_flight,
                })
            })
            .collect();
        write_line(
            &mut out,
            &json!({
                "name": group.name, "kind": kind, "phase": phase, "members": group.members.len(),
                "lag": group.lag(), "partitions": partitions,
            }),
        )?;
    } else {
        let mut print = || {
            for (name, value) in [("name", &*group.name), ("kind", kind), ("phase", phase)] {
                writeln!(out, "{name:<24} {value}")?;
            }
            writeln!(out, "{:<24} {}", "lag", group.lag())?;
            writeln!(
                out,
                "\n{:>9} {:>20} {:>20} {:>12} TOPIC",
                "PARTITION", "COMMITTED", "END", "LAG"
            )?;
            for at in &group.partitions {
                let committed =
                    at.committed.map_or_else(|| "-".into(), |offset| offset.to_string());
                let (number, topic) = (at.partition.partition, &at.partition.topic);
                writeln!(out, "{number:>9} {committed:>20} {:>20} {:>12} {topic}", at.end, at.lag)?;
            }
            Ok(())
        };
        print().map_err(Failure::output)?;
    }
    out.flush().map_err(Failure::output)
}
