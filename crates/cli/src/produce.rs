//! `logmill produce`: appends each line of a file or of standard input to a topic.
//!
//! Three threads: one reads lines and hands over whatever has arrived, so that a lone line is appended at once and a fast
//! input in large batches; one appends; one waits for acknowledgements, in input order, while the others go on.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, StdoutLock, Write, stdin, stdout};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
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
    let gate = Arc::<Gate>::default();
    let appender = Appender {
        input: input.name.clone(),
        record_bytes_max: topic.settings().record_bytes_max,
        topic,
        key_field: arguments.key_field.map(NonZeroUsize::get),
        options: AppendOptions {
            durability: Some(arguments.durability.into()),
            ..AppendOptions::default()
        },
        sticky: 0,
        lines: 0,
    };
    let (blocks, reading) = input.read_ahead(appender.record_bytes_max);
    let (in_flight, appending) = appender.append_ahead(blocks, Arc::clone(&gate));
    let mut produced = Ok(());
    let mut taken = 0;
    // After a failure whatever else was handed to the log may still be stored, and counts.
    while produced.is_ok() || taken < gate.close() {
        let Ok(block) = in_flight.recv() else { break };
        taken += 1;
        let acknowledged = acknowledger.acknowledge(block);
        produced = produced.and(acknowledged);
    }
    if produced.is_ok() {
        // Both have ended, if not by the end of the input then by a panic. After a failure they may wait for ever.
        for thread in [reading, appending] {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
    let acknowledged = acknowledger.acknowledged;
    drop(acknowledger);
    produced.map_err(|failure| failure.note(&acknowledged_before(acknowledged)))
}

/// What a command that stores lines says of those that it stored before it failed.
pub fn acknowledged_before(lines: u64) -> String {
    let noun = if lines == 1 { "line" } else { "lines" };
    format!("acknowledged before that: {lines} {noun} of input")
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
    fn read_ahead(
        self,
        line_bytes_max: u64,
    ) -> (Receiver<Result<Block, LinesError>>, JoinHandle<()>) {
        let line_bytes_max = usize::try_from(line_bytes_max).unwrap_or(usize::MAX);
        let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
        let thread = thread::spawn(move || {
            let mut blocks = LineBlocks::new(self.reader, line_bytes_max);
            while let Some(block) = blocks.next_block().transpose() {
                let last = block.is_err();
                if sender.send(block).is_err() || last {
                    return;
                }
            }
        });
        (receiver, thread)
    }
}

/// Lines that were handed to the log and not yet acknowledged.
#[derive(Default)]
struct InFlight {
    /// One for each batch, with its partition.
    tickets: Vec<(u32, Ticket)>,
    /// The partition of each line.
    route: Vec<u32>,
    bytes: u64,
    /// Why not all of a block was handed over, and nothing will be that follows it.
    failure: Option<Failure>,
}

/// Lets the appender append, until a failure closes it.
#[derive(Debug, Default)]
struct Gate(Mutex<GateState>);

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    /// How many blocks were handed to the log.
    passed: u64,
}

impl Gate {
    /// Does `work` and counts it, unless the gate is closed.
    fn pass<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        state.passed += 1;
        Some(work())
    }

    /// Closes it, and says how many have passed.
    fn close(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_closed = true;
        state.passed
    }
}

/// Appends lines.
struct Appender {
    /// The name of the input, for messages.
    input: String,
    record_bytes_max: u64,
    topic: Topic,
    key_field: Option<usize>,
    options: AppendOptions,
    /// The partition for the next block's lines without a key.
    sticky: u32,
    /// Lines so far.
    lines: u64,
}

impl Appender {
    /// Appends everything that arrives in a thread of its own, until something fails or the gate is closed.
    #[expect(clippy::disallowed_methods, reason = "one thread reads ahead, one says what was sent")]
    fn append_ahead(
        mut self,
        blocks: Receiver<Result<Block, LinesError>>,
        gate: Arc<Gate>,
    ) -> (Receiver<InFlight>, JoinHandle<()>) {
        let (sender, receiver) = sync_channel(BLOCKS_IN_FLIGHT);
        let thread = thread::spawn(move || {
            for block in blocks {
                let Some(appended) = gate.pass(|| self.submit(block)) else { return };
                let last = appended.failure.is_some();
                if sender.send(appended).is_err() || last {
                    return;
                }
            }
        });
        (receiver, thread)
    }

    /// Hands a block to the partitions, as far as that goes.
    fn submit(&mut self, block: Result<Block, LinesError>) -> InFlight {
        let mut handed = InFlight::default();
        handed.failure = match block {
            Ok(block) => self.submit_lines(&block, &mut handed).err(),
            Err(LinesError::Io(e)) => Some(Failure::Failed(format!("read {}: {e}", self.input))),
            Err(LinesError::TooLong { .. }) => {
                Some(self.too_long(&format!("more than {}", self.record_bytes_max)))
            }
        };
        handed
    }

    fn submit_lines(&mut self, block: &Block, handed: &mut InFlight) -> Outcome {
        let partitions = self.topic.partition_count();
        let mut records: Vec<Vec<Record<'_>>> = vec![Vec::new(); partitions as usize];
        let mut refused = None;
        for line in block.lines() {
            let (mut record, mut partition) = (Record::value(line), self.sticky);
            if let Some(key) = self.key_field.and_then(|number| lines::field(line, number)) {
                record = record.key(key);
                partition = partition_for_key(key, partitions);
            }
            if record.encoded_len_max() > self.record_bytes_max {
                refused = Some(self.too_long(&record.encoded_len_max().to_string()));
                break;
            }
            self.lines += 1;
            handed.route.push(partition);
            records[partition as usize].push(record);
        }
        for (partition, records) in (0..).zip(&records) {
            for batch in records.chunks(BATCH_RECORDS_MAX) {
                let ticket = self.topic.partition(partition)?.submit(batch, &self.options)?;
                handed.tickets.push((partition, ticket));
            }
        }
        self.sticky = (self.sticky + 1) % partitions;
        handed.bytes = block.input_len();
        refused.map_or(Ok(()), Err)
    }

    /// Refuses the line after those that were taken.
    fn too_long(&self, bytes: &str) -> Failure {
        Failure::Failed(format!(
            "line {} of {} takes {bytes} bytes as a record, and a record of this topic at most {} (max.message.bytes)",
            self.lines + 1,
            self.input,
            self.record_bytes_max
        ))
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
    /// Waits for all of it, whatever fails: the first failure is what counts.
    fn acknowledge(&mut self, InFlight { tickets, route, bytes, failure }: InFlight) -> Outcome {
        let mut given = vec![Vec::new(); self.partitions as usize];
        let mut outcome = Ok(());
        for (partition, ticket) in tickets {
            match ticket.wait() {
                Ok(appended) => {
                    let offsets = appended.base_offset..=appended.last_offset;
                    self.acknowledged += appended.last_offset - appended.base_offset + 1;
                    given[partition as usize].extend(offsets.map(Some));
                }
                // Behind it no line of the partition can be told from the next.
                Err(e) => {
                    given[partition as usize].push(None);
                    outcome = outcome.and(Err(e.into()));
                }
            }
        }
        outcome = outcome.and(failure.map_or(Ok(()), Err));
        self.progress.add(bytes);
        let Some((form, out)) = &mut self.offsets else { return outcome };
        match print_offsets(out, *form, &route, given) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                // Nobody wants the offsets any more; the lines are still to be appended.
                self.offsets = None;
            }
            Err(e) => outcome = outcome.and(Err(Failure::output(e))),
        }
        if outcome.is_err() {
            // What follows is not in input order any more.
            self.offsets = None;
        }
        outcome
    }
}

/// Prints a place for each line, up to the first that has none: its partition, and the next of the offsets that the partition
/// gave.
fn print_offsets(
    out: &mut impl Write,
    form: Form,
    route: &[u32],
    given: Vec<Vec<Option<u64>>>,
) -> io::Result<()> {
    let mut given: Vec<_> = given.into_iter().map(Vec::into_iter).collect();
    for partition in route {
        let Some(offset) = given[*partition as usize].next().flatten() else { break };
        match form {
            Form::Text => writeln!(out, "{partition} {offset}")?,
            Form::Json => writeln!(out, "{{\"partition\":{partition},\"offset\":{offset}}}")?,
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
        let given = [vec![7, 8], vec![0, 1, 9]];
        let all: Vec<Vec<_>> = given.map(|of| of.into_iter().map(Some).collect()).into();
        print_offsets(&mut out, Form::Text, &[1, 0, 1, 1, 0], all).unwrap();
        assert_eq!(out, b"1 0\n0 7\n1 1\n1 9\n0 8\n");
    }

    #[test]
    fn no_offset_is_printed_behind_a_line_that_has_none() {
        let mut out = Vec::new();
        let given = vec![vec![Some(7), Some(8)], vec![Some(0), None, Some(9)]];
        print_offsets(&mut out, Form::Text, &[1, 0, 1, 1, 0], given).unwrap();
        assert_eq!(out, b"1 0\n0 7\n");
    }
}
