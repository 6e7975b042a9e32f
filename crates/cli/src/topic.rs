//! `logmill topic …`: making, changing and looking at topics.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write, stdout};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use logmill::{Cleanup, Partition, Store, Topic, TopicConfig};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Outcome};
use crate::figures::TopicFigures;
use crate::json::write_line;
use crate::open::Place;
use crate::table::{self, Column};
use crate::{duration, ends};

mod retain;

/// Topics: create, list, describe, alter, add partitions, apply retention, delete
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  logmill --dir store topic create clicks --partitions 3 --retention 7d
  logmill --dir store topic list --json")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a topic
    #[command(
        after_long_help = "Examples:\n  logmill --dir store topic create clicks --partitions 3 --retention 7d\n  logmill --dir store topic create users --cleanup compact"
    )]
    Create {
        /// 1 to 249 letters, digits, `.`, `_` and `-`
        name: String,
        /// How many partitions, 1 to 10000; later there can be more, never fewer
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
        #[command(flatten)]
        settings: Settings,
    },
    /// List the topics: how many partitions, records and bytes each has, and what happens to old records
    #[command(
        after_long_help = "Examples:\n  logmill --dir store topic list\n  logmill --dir store topic list --json | jq -r .name"
    )]
    List,
    /// Show a topic's settings and partitions
    #[command(after_long_help = "Example:\n  logmill --dir store topic describe clicks --json")]
    Describe {
        /// The topic
        name: String,
    },
    /// Change settings; what is not given stays
    #[command(
        after_long_help = "Example:\n  logmill --dir store topic alter clicks --retention 30d --set segment.bytes=67108864"
    )]
    Alter {
        /// The topic
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Add partitions; keys may go to other partitions than before
    #[command(
        after_long_help = "Example:\n  logmill --dir store topic add-partitions clicks --partitions 6"
    )]
    AddPartitions {
        /// The topic
        name: String,
        /// How many there shall be in all
        #[arg(long, value_name = "N")]
        partitions: u32,
    },
    /// Remove now what the topic's retention no longer keeps
    ///
    /// A writer does so by itself, within a minute where it appends and about twice an hour elsewhere. Whole segments are removed;
    /// the one that is being written is left alone.
    #[command(
        after_long_help = "Examples:\n  logmill --dir store topic retain clicks\n  logmill --dir store topic retain clicks --partition 3 --json"
    )]
    Retain {
        /// The topic
        name: String,
        /// One partition; all of them unless given
        #[arg(long, value_name = "N")]
        partition: Option<u32>,
    },
    /// Delete a topic with its records and every group's positions in it
    #[command(after_long_help = "Example:\n  logmill --dir store topic delete clicks")]
    Delete {
        /// The topic
        name: String,
    },
}

#[derive(Debug, Args)]
struct Settings {
    /// How long records are kept at least, such as 7d, or forever
    #[arg(long, value_name = "TIME")]
    retention: Option<Keep>,
    /// What happens to old records
    #[arg(long, value_enum)]
    cleanup: Option<Policy>,
    /// Any setting under its name, such as segment.bytes=67108864; may be repeated. `describe` shows them all
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

/// For how long; `None` for ever.
#[derive(Clone, Copy, Debug)]
struct Keep(Option<Duration>);

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Keep, String> {
        match text {
            "forever" => Ok(Keep(None)),
            _ => duration::parse(text).map(|time| Keep(Some(time))),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// Whole segments go by age, bytes or count
    Delete,
    /// The latest record of each key stays
    Compact,
    /// Both
    #[value(aliases = ["compact,delete", "delete,compact"])]
    Both,
}

/// `name=value`.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Settings {
    /// Each setting is given once: of two values one would be lost without a word.
    fn config(&self) -> Outcome<TopicConfig> {
        let named = self.set.iter().map(|(name, _)| name.as_str());
        let retention = self.retention.map(|_| "retention.ms");
        let cleanup = self.cleanup.map(|_| "cleanup.policy");
        let mut given = BTreeSet::new();
        for name in named.chain(retention).chain(cleanup) {
            if !given.insert(name) {
                return Err(Failure::Usage(format!("{name} is given twice")));
            }
        }
        let mut config = TopicConfig::new();
        for (name, value) in &self.set {
            config = config.set(name, value).map_err(|error| Failure::Usage(error.to_string()))?;
        }
        if let Some(Keep(time)) = self.retention {
            config = config.retention(time);
        }
        if let Some(policy) = self.cleanup {
            config = config.cleanup(match policy {
                Policy::Delete => Cleanup::Delete,
                Policy::Compact => Cleanup::Compact,
                Policy::Both => Cleanup::CompactAndDelete,
            });
        }
        Ok(config)
    }
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::List => return place.read(|store| list(store, arguments.json)),
        Command::Describe { name } => {
            return place.read(|store| describe(store, &store.topic(name)?, arguments.json));
        }
        Command::Create { settings, .. } | Command::Alter { settings, .. } => {
            // Before the store: a setting that is wrong makes none.
            settings.config()?;
        }
        Command::AddPartitions { .. } | Command::Retain { .. } | Command::Delete { .. } => {}
    }
    if !matches!(arguments.command, Command::Create { .. }) {
        place.existing_dir()?;
    }
    place.write(|store| change(store, arguments))
}

fn change(store: &Store, arguments: &Arguments) -> Outcome {
    let topic = match &arguments.command {
        Command::Create { name, partitions, settings } => {
            store.create_topic(name, settings.config()?.partitions(*partitions))?
        }
        Command::Alter { name, settings } => {
            let topic = store.topic(name)?;
            topic.alter(settings.config()?)?;
            topic
        }
        Command::AddPartitions { name, partitions } => {
            let topic = store.topic(name)?;
            topic.add_partitions(*partitions)?;
            topic
        }
        Command::Retain { name, partition } => {
            return retain::run(&store.topic(name)?, *partition, arguments.json);
        }
        Command::Delete { name } => {
            store.delete_topic(name)?;
            return match arguments.json {
                true => write_line(&mut stdout(), &json!({ "name": name, "deleted": true })),
                false => Ok(()),
            };
        }
        Command::List | Command::Describe { .. } => return Ok(()),
    };
    match arguments.json {
        true => describe(store, &topic, true),
        false => Ok(()),
    }
}

/// As [`describe`] with damage.
fn list(store: &Store, as_json: bool) -> Outcome {
    let mut out = BufWriter::new(stdout());
    let (mut rows, mut damage) = (Vec::new(), Vec::new());
    for topic in store.topics()? {
        let TopicFigures { name, partitions, records, bytes, .. } =
            TopicFigures::of(&topic, &store.path(), &mut damage)?;
        let settings = topic.settings().by_name();
        let cleanup = settings.into_iter().find(|(name, _)| *name == "cleanup.policy");
        let cleanup = cleanup.map(|(_, policy)| policy).unwrap_or_default();
        if as_json {
            let line = json!({
                "name": name, "partitions": partitions, "records": records, "bytes": bytes,
                "cleanup": cleanup,
            });
            write_line(&mut out, &line)?;
        } else {
            let figures = [partitions.to_string(), records.to_string(), table::bytes(bytes)];
            rows.push([name].into_iter().chain(figures).chain([cleanup]).collect());
        }
    }
    let columns = [
        Column::Left("TOPIC"),
        Column::Right("PARTITIONS"),
        Column::Right("RECORDS"),
        Column::Right("SIZE"),
        Column::Left("CLEANUP"),
    ];
    table::write(&mut out, &columns, rows)?;
    out.flush().map_err(Failure::output)?;
    Failure::of_damage(&damage)
}

/// What is damaged does not keep the rest from being shown, and is told after it.
fn describe(store: &Store, topic: &Topic, as_json: bool) -> Outcome {
    let settings = topic.settings().by_name();
    let mut out = BufWriter::new(stdout());
    let (mut partitions, mut damage) = (Vec::new(), Vec::new());
    for partition in topic.partitions() {
        let ended = bounds(&partition).and_then(|bounds| {
            partitions.push(bounds);
            ends::check(&store.path(), &partition)
        });
        match ended {
            Err(Failure::Corrupt(message)) => damage.push(message),
            ended => ended?,
        }
    }
    if as_json {
        let settings: Map<String, Value> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let partitions: Vec<_> = partitions
            .into_iter()
            .map(|(number, start, end)| {
                json!({ "partition": number, "start_offset": start, "end_offset": end })
            })
            .collect();
        write_line(
            &mut out,
            &json!({
                "name": topic.name(), "id": topic.id(), "partition_count": topic.partition_count(),
                "settings": settings, "partitions": partitions,
            }),
        )?;
    } else {
        let mut print = || {
            writeln!(out, "{:<24} {}", "name", topic.name())?;
            writeln!(out, "{:<24} {}", "partitions", topic.partition_count())?;
            for (name, value) in &settings {
                writeln!(out, "{name:<24} {value}")?;
            }
            writeln!(out, "\n{:>9} {:>20} {:>20}", "PARTITION", "START", "END")?;
            for (number, start, end) in &partitions {
                writeln!(out, "{number:>9} {start:>20} {end:>20}")?;
            }
            Ok(())
        };
        print().map_err(Failure::output)?;
    }
    out.flush().map_err(Failure::output)?;
    Failure::of_damage(&damage)
}

/// Its number, its start and its end.
fn bounds(partition: &Partition) -> Outcome<(u32, u64, u64)> {
    Ok((partition.number(), partition.start_offset()?, partition.high_watermark()?))
}
