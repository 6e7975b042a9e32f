//! `logmill produce`: appends each line of a file or of standard input to a topic.
//!
//! Three threads: one reads lines and hands over whatever has arrived, so that a lone line is appended at once and a fast
//! input in large batches; one appends; one waits for acknowledgements, in input order, while the others go on.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, StdoutLock, Write, stdin, stdout};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::ValueEnum;
use logmill::stream::{self, partition_for_key};
use logmill::{AppendOptions, Durability, Record, Store, Ticket, Topic, TopicConfig};

use crate::failure::{Failure, Outcome};
use crate::lines::{self, Block, LineBlocks, LinesError};
use crate::open::Place;
use crate::progress::Progress;

/// Blocks that were read ahead while earlier ones are being appended.
const BLOCKS_AHEAD: usize = 4;
/// Blocks that may be on their way to the disk at a time: the more, the fewer syncs.
const BLOCKS_IN_FLIGHT: usize = 64;
/// Records in one batch, so that lines of a few bytes do not make a batch of a million records.
const BATCH_RECORDS_MAX: usize = 4096;
/// Longer lines are refused while they are read. The topic's own limit, a little lower, is checked when they are appended.
const LINE_BYTES_MAX: usize = 16 << 20;
/// What `--durability interval` promises.
const INTERVAL: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  logmill --dir store produce events --file access.log
  tail -f access.log | logmill --dir store produce events --print-offsets";

/// Append each line of a file or of standard input to a topic
///
/// A line is the bytes before a newline, whatever they are; a last line without a newline counts. Killed half-way, it
/// has stored every line that it acknowledged.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The topic; made with one partition if it is not there
    topic: String,
    /// Read this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The N-th field of a line, counted from 1 between white space, is its key; the value stays the whole line
    #[arg(long, value_name = "N")]
    key_field: Option<NonZeroUsize>,
    /// What has happened to a line when it is acknowledged
    #[arg(long, value_enum, default_value = "sync")]
    durability: Level,
    /// Print a line `PARTITION OFFSET` for each record, in input order, once it is acknowledged
    #[arg(long)]
    print_offsets: bool,
    /// Print `{"partition":..,"offset":..}` for each record, in input order, once it is acknowledged
    #[arg(long, conflicts_with = "print_offsets")]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// On the disk: survives power loss
    Sync,
    /// Survives kill -9 at once and power loss a second later
    Interval,
    /// Survives kill -9; power loss takes what the system has not written back
    Buffered,
}

impl From<Level> for Durability {
    fn from(level: Level) -> Durability {
        match level {
            Level::Sync => Durability::Sync,
            Level::Interval => Durability::Interval(INTERVAL),
            Level::Buffered => Durability::Buffered,
        }
    }
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    // Before the store: a file that is not there makes no store.
    let input = Input::open(arguments.file.as_deref())?;
    place.write(|store| produce(store, arguments, input))
}

fn produce(store: &Store, arguments: &Arguments, input: Input) -> Outcome {
    let topic = open_topic(store, arguments)?;
    let print = match (arguments.json, arguments.print_offsets) {
        (true, _) => Some(Form::Json),
        (false, true) => Some(Form::Text),
        (false, false) => None,
    };
    let progress = Progress::bytes(
        input.len.unwrap_or(0),
        input.len.is_some() && !(print.is_some() && stdout().is_terminal()),
    );
    let mut acknowledger = Acknowledger {
        partitions: topic.partition_count(),
        acknowledged: 0,
        offsets: print.map(|form| (form, BufWriter::with_capacity(64 << 10, stdout().lock()))),
        progress,
    };
    let (blocks, reading) = input.read_ahead();
    let appender = Appender {
        topic,
        key_field: arguments.key_field.map(NonZeroUsize::get),
        options: AppendOptions {
            durability: Some(arguments.durability.into()),
            ..AppendOptions::default()
        },
        sticky: 0,
    };
    let (in_flight, appending) = appender.append_ahead(blocks);
    let produced = in_flight.into_iter().try_for_each(|block| acknowledger.acknowledge(block?));
    if produced.is_ok() {
        // Both have ended, if not by the end of the input then by a panic. After a failure they may wait for ever.
        for thread in [reading, appending] {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
    let acknowledged = acknowledger.acknowledged;
    drop(acknowledger);
    produced.map_err(|failure| {
        let lines = if acknowledged == 1 { "line" } else { "lines" };
        failure.note(&format!("acknowledged before that: {acknowledged} {lines} of input"))
    })
}

fn open_topic(store: &Store, arguments: &Arguments) -> Outcome<Topic> {
    match store.topic(&arguments.topic) {
        Err(logmill::Error::Stream(stream::Error::UnknownTopic { .. })) => {
            let config = TopicConfig::new().partitions(1).durability(arguments.durability.into());
            Ok(store.create_topic(&arguments.topic, config)?)
        }
        found => Ok(found?),
    }
}

/// Where lines come from.
struct Input {
    reader: Box<dyn Read + Send>,
    /// For messages.
    name: String,
    /// Length in bytes, of a file that was named.
    len: Option<u64>,
}

impl Input {
    #[expect(
        clippy::disallowed_methods,
        reason = "the input is a file of the user, and not the store's"
    )]
    fn open(path: Option<&Path>) -> Outcome<Input> {
        let Some(path) = path else {
            return Ok(Input {
                reader: Box::new(stdin()),
                name: "standard input".into(),
                len: None,
            });
        };
        let failed = |e| Failure::Failed(format!("open {}: {e}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::Failed(format!(
                "{} is a directory; a file of lines is needed",
                path.display()
            )));
        }
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Input { reader: Box::new(file), name: path.display().to_string(), len })
    }

    /// Reads blocks of lines in a thread of its own, until the receiver is gone.
    #[expect(clippy::disallowed_methods, reason = "one thread reads ahead, one says what was sent")]
    fn read_ahead(self) -> (Receiver<Outcome<Block>>, JoinHandle<()>) {
        let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
        let thread = thread::spawn(move || {
            let mut blocks = LineBlocks::new(self.reader, LINE_BYTES_MAX);
            loop {
                let block = match blocks.next_block() {
                    Ok(Some(block)) => Ok(block),
                    Ok(None) => return,
                    Err(LinesError::Io(e)) => {
                        Err(Failure::Failed(format!("read {}: {e}", self.name)))
                    }
                    Err(LinesError::TooLong { max }) => Err(Failure::Failed(format!(
                        "a line of {} is longer than {max} bytes",
                        self.name
                    ))),
                };
                let last = block.is_err();
                if sender.send(block).is_err() || last {
                    return;
                }
            }
        });
        (receiver, thread)
    }
}

/// A block of lines that was handed to the log and not yet acknowledged.
struct InFlight {
    /// One for each batch, with its partition.
    tickets: Vec<(u32, Ticket)>,
    /// The partition of each line.
    route: Vec<u32>,
    bytes: u64,
}

/// Appends lines.
struct Appender {
    topic: Topic,
    key_field: Option<usize>,
    options: AppendOptions,
    /// The partition for the next block's lines without a key.
    sticky: u32,
}

impl Appender {
    /// Appends everything that arrives in a thread of its own, until something fails or the receiver is gone.
    #[expect(clippy::disallowed_methods, reason = "one thread reads ahead, one says what was sent")]
    fn append_ahead(
        mut self,
        blocks: Receiver<Outcome<Block>>,
    ) -> (Receiver<Outcome<InFlight>>, JoinHandle<()>) {
        let (sender, receiver) = sync_channel(BLOCKS_IN_FLIGHT);
        let thread = thread::spawn(move || {
            for block in blocks {
                let appended = block.and_then(|block| self.submit(&block));
                let last = appended.is_err();
                if sender.send(appended).is_err() || last {
                    return;
                }
            }
        });
        (receiver, thread)
    }

    /// Hands a block to the partitions.
    fn submit(&mut self, block: &Block) -> Outcome<InFlight> {
        let partitions = self.topic.partition_count();
        let mut route = Vec::new();
        let mut records: Vec<Vec<Record<'_>>> = vec![Vec::new(); partitions as usize];
        for line in block.lines() {
            let (mut record, mut partition) = (Record::value(line), self.sticky);
            if let Some(key) = self.key_field.and_then(|number| lines::field(line, number)) {
                record = record.key(key);
                partition = partition_for_key(key, partitions);
            }
            route.push(partition);
            records[partition as usize].push(record);
        }
        let mut tickets = Vec::new();
        for (partition, records) in (0..).zip(&records) {
            for batch in records.chunks(BATCH_RECORDS_MAX) {
                let ticket = self.topic.partition(partition)?.submit(batch, &self.options)?;
                tickets.push((partition, ticket));
            }
        }
        self.sticky = (self.sticky + 1) % partitions;
        Ok(InFlight { tickets, route, bytes: block.input_len() })
    }
}

/// How the place of a record is printed.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    Json,
}

/// Waits for what was appended, and says so.
struct Acknowledger {
    partitions: u32,
    /// Lines acknowledged.
    acknowledged: u64,
    /// Where offsets are printed, as long as anybody reads them.
    offsets: Option<(Form, BufWriter<StdoutLock<'static>>)>,
    progress: Progress,
}

impl Acknowledger {
    fn acknowledge(&mut self, InFlight { tickets, route, bytes }: InFlight) -> Outcome {
        let mut given = vec![Vec::new(); self.partitions as usize];
        for (partition, ticket) in tickets {
            let appended = ticket.wait()?;
            given[partition as usize].extend(appended.base_offset..=appended.last_offset);
        }
        self.acknowledged += route.len() as u64;
        self.progress.add(bytes);
        let Some((form, out)) = &mut self.offsets else { return Ok(()) };
        match print_offsets(out, *form, &route, given) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                // Nobody wants the offsets any more; the lines are still to be appended.
                self.offsets = None;
                Ok(())
            }
            Err(e) => Err(Failure::output(e)),
        }
    }
}

/// Prints a place for each line: its partition, and the next of the offsets that the partition gave.
fn print_offsets(
    out: &mut impl Write,
    form: Form,
    route: &[u32],
    given: Vec<Vec<u64>>,
) -> io::Result<()> {
    let mut given: Vec<_> = given.into_iter().map(Vec::into_iter).collect();
    for partition in route {
        if let Some(offset) = given[*partition as usize].next() {
            match form {
                Form::Text => writeln!(out, "{partition} {offset}")?,
                Form::Json => {
                    writeln!(out, "{{\"partition\":{partition},\"offset\":{offset}}}")?;
                }
            }
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_printed_in_input_order_whatever_the_partitions_gave() {
        let mut out = Vec::new();
        print_offsets(&mut out, Form::Text, &[1, 0, 1, 1, 0], vec![vec![7, 8], vec![0, 1, 9]])
            .unwrap();
        assert_eq!(out, b"1 0\n0 7\n1 1\n1 9\n0 8\n");
    }
}
