//! `logmill consume`: prints the records of a topic.

use std::fmt;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use logmill::{Partition, PartitionReader, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ends;
use crate::failure::{Failure, Outcome};
use crate::json::{self, Printed};
use crate::open::Place;
use crate::progress::Progress;

mod members;

/// How long a follower of several partitions waits for the first of them before it looks at all again.
const LOOK: Duration = Duration::from_millis(10);
/// How long it waits at least for each of them, so that looking at thousands does not keep a processor busy.
const LOOK_EACH: Duration = Duration::from_micros(500);
/// How long a follower of one partition waits before it looks whether anybody still reads its output; it is woken when
/// something arrives.
const WAIT: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  logmill --dir store consume events --max 10
  logmill --dir store consume events --follow --from latest
  logmill --dir store consume events --json --from @1700000000000
  logmill --dir store consume events --group audit --max 10";

/// Print the records of a topic
///
/// Reads beside a live producer and changes nothing. It stops at the end that it found when it started, unless it
/// is told to follow. With --group it goes on where the group has come to, and commits what it printed; for that it
/// needs the store for itself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The topic
    topic: String,
    /// One partition; all of them unless given
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Where to start: earliest, latest, an offset, or @MS, the first record not older than that (ms since 1970). With
    /// --group only where the group has no position in the topic yet
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    from: Start,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Go on with what arrives; partitions are then read side by side
    #[arg(long)]
    follow: bool,
    /// What to print of a record
    #[arg(long, value_enum, default_value = "plain")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Read as this consumer group: each record of the topic once, whatever the number of runs
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["partition", "follow"])]
    group: Option<String>,
    /// How many consumers of the group share the partitions, each in a thread, 1 to 256; none is started for whom there is no
    /// partition
    #[arg(long, value_name = "N", default_value = "1", requires = "group", value_parser = clap::value_parser!(u16).range(1..=256))]
    members: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The value and a newline
    Plain,
    /// An object in a line: partition, offset, timestamp, key, value, headers
    Json,
}

/// Where to start in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record that is there.
    Earliest,
    /// After the last record.
    Latest,
    /// This offset.
    Offset(u64),
    /// The first record with at least this timestamp.
    Timestamp(i64),
}

/// The text names no place to start at.
#[derive(Debug)]
pub struct StartError;

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is none of earliest, latest, an offset, or @ and ms since 1970")
    }
}

impl std::error::Error for StartError {}

impl FromStr for Start {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Start, StartError> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            _ => match text.strip_prefix('@') {
                Some(ms) => ms.parse().map(Start::Timestamp).map_err(|_| StartError),
                None => text.parse().map(Start::Offset).map_err(|_| StartError),
            },
        }
    }
}

impl Start {
    /// The first offset to print.
    fn offset(self, partition: &Partition) -> Outcome<u64> {
        Ok(match self {
            Start::Earliest => partition.start_offset()?,
            Start::Latest => partition.high_watermark()?,
            Start::Offset(offset) => offset,
            Start::Timestamp(ms) => match partition.offset_for_timestamp(ms)? {
                Some(offset) => offset,
                None => partition.high_watermark()?,
            },
        })
    }
}

/// A partition that is being read.
struct Source {
    /// The store's directory.
    store: PathBuf,
    partition: Partition,
    reader: PartitionReader,
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    if let Some(group) = &arguments.group {
        return members::run(place, arguments, group);
    }
    place.read(|store| print(store, arguments))
}

fn print(store: &Store, arguments: &Arguments) -> Outcome {
    let topic = store.topic(&arguments.topic)?;
    let partitions = match arguments.partition {
        Some(number) => vec![topic.partition(number)?],
        None => topic.partitions(),
    };
    if partitions.len() > 1 && matches!(arguments.from, Start::Offset(_)) {
        return Err(Failure::Usage(format!(
            "--from with an offset needs --partition: {} has {} partitions",
            arguments.topic,
            partitions.len()
        )));
    }
    let mut printer = Printer::new(arguments, stdout());
    let mut sources = Vec::new();
    for partition in partitions {
        let reader = partition.reader(arguments.from.offset(&partition)?)?;
        sources.push(Source { store: store.path(), partition, reader });
    }
    let printed = match arguments.follow {
        true => printer.follow(&mut sources),
        false => printer.print_all(&mut sources),
    };
    // What came before the failure is printed before the failure is.
    printer.flush().and(printed)
}

/// Prints records until enough are printed.
struct Printer {
    out: BufWriter<Box<dyn Write + Send>>,
    format: Format,
    left: u64,
    progress: Progress,
}

impl Printer {
    fn new(arguments: &Arguments, out: impl Write + Send + 'static) -> Printer {
        Printer {
            out: BufWriter::with_capacity(256 << 10, Box::new(out)),
            format: if arguments.json { Format::Json } else { arguments.format },
            left: arguments.max.unwrap_or(u64::MAX),
            progress: Progress::default(),
        }
    }

    /// One partition after the other, each to the end that it has now.
    fn print_all(&mut self, sources: &mut [Source]) -> Outcome {
        let (mut ends, mut total) = (Vec::new(), 0);
        for source in sources.iter() {
            let end = source.partition.high_watermark()?;
            total += end.saturating_sub(source.reader.position());
            ends.push(end);
        }
        // On a terminal the records themselves are what moves.
        self.progress = Progress::records(total.min(self.left), !stdout().is_terminal());
        for (source, end) in sources.iter_mut().zip(ends) {
            self.print_up_to(source, end)?;
            if self.left > 0 {
                ends::check(&source.store, &source.partition)?;
            }
        }
        Ok(())
    }

    /// All partitions in turn, waiting where there is nothing new.
    fn follow(&mut self, sources: &mut [Source]) -> Outcome {
        let count = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        let wait = if count == 1 { WAIT } else { LOOK.max(LOOK_EACH * count) };
        while self.left > 0 {
            let mut moved = false;
            for source in sources.iter_mut() {
                let before = source.reader.position();
                self.print_up_to(source, u64::MAX)?;
                moved |= source.reader.position() > before;
            }
            if !moved {
                self.flush()?;
                if nobody_reads() {
                    return Err(Failure::OutputClosed);
                }
                // Reading from the others looks at them.
                if let Some(first) = sources.first() {
                    first.partition.wait_for(first.reader.position(), wait)?;
                }
            }
        }
        Ok(())
    }

    /// Prints what there is below `end`.
    fn print_up_to(&mut self, source: &mut Source, end: u64) -> Outcome {
        let number = source.partition.number();
        while self.left > 0 && source.reader.position() < end {
            let Some(batch) = source.reader.next_batch()? else { return Ok(()) };
            let base_offset = batch.base_offset();
            self.progress.add(batch.count().into());
            for record in batch.records() {
                let record = record.map_err(|what| {
                    let dir = ends::partition_dir(&source.store, &source.partition);
                    Failure::Corrupt(format!(
                        "corrupt: {}, batch at offset {base_offset}: {what}; see logmill verify",
                        dir.display()
                    ))
                })?;
                if self.left == 0 || record.offset >= end {
                    return Ok(());
                }
                let printed = Printed {
                    partition: number,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                };
                let headers = record.headers.map(|header| (header.name, header.value));
                self.print(printed, headers).map_err(Failure::output)?;
                self.left -= 1;
            }
        }
        Ok(())
    }

    fn print<'h>(
        &mut self,
        record: Printed<'_>,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) -> std::io::Result<()> {
        match self.format {
            Format::Plain => {
                self.out.write_all(record.value.unwrap_or_default())?;
                self.out.write_all(b"\n")
            }
            Format::Json => json::write_record(&mut self.out, record, headers),
        }
    }

    fn flush(&mut self) -> Outcome {
        self.out.flush().map_err(Failure::output)
    }
}

/// Whether standard output is a pipe that nobody reads any more.
fn nobody_reads() -> bool {
    let out = stdout();
    let mut fds = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_or_a_timestamp() {
        let cases = [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0", Start::Offset(0)),
            ("18446744073709551615", Start::Offset(u64::MAX)),
            ("@1700000000000", Start::Timestamp(1_700_000_000_000)),
            ("@-5", Start::Timestamp(-5)),
        ];
        for (text, start) in cases {
            assert_eq!(text.parse::<Start>().ok(), Some(start), "{text}");
        }
        for text in ["", "first", "-1", "18446744073709551616", "@", "@x", "@ 1", "1.0"] {
            assert!(text.parse::<Start>().is_err(), "{text}");
        }
    }
}
