//! `logmill queue …`: message queues from a shell. A receipt handle outlives the process that was given it.

use std::fs::File;
use std::io::{BufWriter, Read, Write, stdin, stdout};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use logmill::queue::{
    MessageState, RedriveFilter, RedriveOptions, RedriveStatus, Section, StoredMessage,
};
use logmill::{Attribute, Message, Queue, QueueConfig, Receipt, ReceiveOptions, Store};
use serde_json::{Map, Value, json};

use crate::duration;
use crate::failure::{Failure, Outcome};
use crate::json::bytes_under;
use crate::lines::{LineBlocks, LinesError};
use crate::open::Place;
use crate::produce::acknowledged_before;
use crate::table::{self, Column};

/// How many messages are sent in one batch at most.
const BATCH: usize = 1000;
/// A message's body may not be longer than the queue's limit; this only bounds what is read before that is checked.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Message queues: send, receive, delete, inspect
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  logmill --dir store queue create jobs
  echo 'resize 17' | logmill --dir store queue send jobs
  logmill --dir store queue receive jobs --delete")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a queue, or find it if it is there with the same settings
    #[command(
        after_long_help = "Examples:\n  logmill --dir store queue create failed\n  logmill --dir store queue create jobs --dead-letter failed --max-receives 5\n  logmill --dir store queue create orders.fifo --fifo"
    )]
    Create(Create),
    /// Send each line of a file or of standard input as a message
    #[command(
        after_long_help = "Examples:\n  logmill --dir store queue send jobs --file jobs.txt --delay 10s\n  logmill --dir store queue send orders.fifo --group order-7 --dedup-id payment-1 --json"
    )]
    Send(Send),
    /// Receive messages: they are hidden from others until their visibility timeout
    #[command(
        after_long_help = "Examples:\n  logmill --dir store queue receive jobs --max 10 --wait 20s --json\n  logmill --dir store queue receive jobs --delete"
    )]
    Receive(Receive),
    /// Delete a message that was received, by its receipt handle
    #[command(
        after_long_help = "Example:\n  logmill --dir store queue delete-message jobs RECEIPT"
    )]
    DeleteMessage {
        /// The queue
        name: String,
        /// The receipt handle that the latest receive gave
        receipt: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Set how long a received message stays hidden, counted from now; 0 makes it receivable at once
    #[command(
        after_long_help = "Example:\n  logmill --dir store queue change-visibility jobs RECEIPT 5m"
    )]
    ChangeVisibility {
        /// The queue
        name: String,
        /// The receipt handle that the latest receive gave
        receipt: String,
        /// The time from now, such as 30s
        #[arg(value_parser = duration::parse)]
        timeout: Duration,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show messages without receiving them
    #[command(
        after_long_help = "Example:\n  logmill --dir store queue peek jobs --state delayed --max 100"
    )]
    Peek(Peek),
    /// Remove all messages of a queue
    #[command(after_long_help = "Example:\n  logmill --dir store queue purge jobs")]
    Purge {
        /// The queue
        name: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Move the messages of a dead-letter queue back to where they died, and wait until that is done
    #[command(
        after_long_help = "Examples:\n  logmill --dir store queue redrive failed --rate 100\n  logmill --dir store queue redrive failed --cancel"
    )]
    Redrive(Redrive),
    /// List the queues
    #[command(after_long_help = "Example:\n  logmill --dir store queue list --prefix mail-")]
    List {
        /// Only those whose name begins with this
        #[arg(long, default_value = "")]
        prefix: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a queue's settings and counts
    #[command(after_long_help = "Example:\n  logmill --dir store queue describe jobs --json")]
    Describe {
        /// The queue
        name: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Delete a queue with everything in it
    #[command(after_long_help = "Example:\n  logmill --dir store queue delete jobs")]
    Delete {
        /// The queue
        name: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// 1 to 80 letters, digits, `-` and `_`; a FIFO queue's ends in `.fifo`
    name: String,
    /// First in, first out for each message group, without duplicates
    #[arg(long)]
    fifo: bool,
    /// How long a received message is hidden from others
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    visibility_timeout: Option<Duration>,
    /// How long after it was sent a message can be received first
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    delay: Option<Duration>,
    /// How long a message is kept
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    retention: Option<Duration>,
    /// Where messages go that were received --max-receives times and not deleted
    #[arg(long, value_name = "QUEUE", requires = "max_receives")]
    dead_letter: Option<String>,
    /// How often a message may be received before it counts as failed
    #[arg(long, value_name = "N")]
    max_receives: Option<u32>,
    /// Take messages with the same body for duplicates (FIFO)
    #[arg(long)]
    content_dedup: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Send {
    /// The queue
    name: String,
    /// Read the messages from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long until they can be received
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    delay: Option<Duration>,
    /// 0 to 255; higher goes first
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// The message group (FIFO), or the tenant (standard)
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The deduplication id (FIFO)
    #[arg(long, value_name = "ID")]
    dedup_id: Option<String>,
    /// A string attribute; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    /// One JSON object a line: message_id, sequence_number, duplicate
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Receive {
    /// The queue
    name: String,
    /// How many messages at most
    #[arg(long, value_name = "N", default_value_t = 1)]
    max: usize,
    /// How long to wait for the first one
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    wait: Duration,
    /// How long they are hidden from others, instead of the queue's timeout
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    visibility_timeout: Option<Duration>,
    /// Delete them once they are printed
    #[arg(long)]
    delete: bool,
    /// One JSON object a line; without it, only the bodies are printed
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Peek {
    /// The queue
    name: String,
    /// Messages in this state
    #[arg(long, value_enum, default_value = "ready")]
    state: State,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    max: usize,
    /// One JSON object a line; without it, only the bodies are printed
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Redrive {
    /// The queue in which the dead messages lie
    name: String,
    /// Move all of them to this queue instead
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Only those that died in this queue
    #[arg(long, value_name = "QUEUE")]
    died_in: Option<String>,
    /// At most so many a second
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Cancel the redrive that an earlier command has not seen to its end, and begin none; what it has moved stays moved
    #[arg(long, conflicts_with_all = ["to", "died_in", "rate"])]
    cancel: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    Ready,
    Delayed,
    InFlight,
    Dead,
}

/// `name=value`.
fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("an attribute is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::List { prefix, json } => place.read(|store| list(store, prefix, *json)),
        Command::Describe { name, json } => {
            place.read(|store| describe(&store.queue(name)?, *json))
        }
        Command::Peek(arguments) => {
            place.read(|store| peek(&store.queue(&arguments.name)?, arguments))
        }
        Command::Create(arguments) => place.write(|store| create(store, arguments)),
        command => {
            place.existing_dir()?;
            place.write(|store| change(store, command))
        }
    }
}

fn change(store: &Store, command: &Command) -> Outcome {
    match command {
        Command::Send(arguments) => send(&store.queue(&arguments.name)?, arguments),
        Command::Receive(arguments) => receive(&store.queue(&arguments.name)?, arguments),
        Command::Redrive(arguments) => redrive(store, arguments),
        Command::DeleteMessage { name, receipt, json } => {
            let receipt = handle(receipt)?;
            store.queue(name)?.delete(&receipt).map_err(logmill::Error::from)?;
            told(*json, || json!({ "queue": name, "deleted": true }))
        }
        Command::ChangeVisibility { name, receipt, timeout, json } => {
            let receipt = handle(receipt)?;
            let queue = store.queue(name)?;
            queue.change_visibility(&receipt, *timeout).map_err(logmill::Error::from)?;
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            told(*json, || json!({ "queue": name, "visibility_timeout_ms": ms }))
        }
        Command::Purge { name, json } => {
            store.queue(name)?.purge().map_err(logmill::Error::from)?;
            told(*json, || json!({ "queue": name, "purged": true }))
        }
        Command::Delete { name, json } => {
            store.delete_queue(name)?;
            told(*json, || json!({ "queue": name, "deleted": true }))
        }
        Command::Create(_) | Command::Peek(_) | Command::List { .. } | Command::Describe { .. } => {
            Ok(())
        }
    }
}

fn handle(text: &str) -> Outcome<Receipt> {
    text.parse().map_err(|e| Failure::from(logmill::Error::from(e)))
}

fn create(store: &Store, arguments: &Create) -> Outcome {
    let mut config = if arguments.fifo { QueueConfig::fifo() } else { QueueConfig::standard() };
    if let Some(timeout) = arguments.visibility_timeout {
        config = config.visibility_timeout(timeout);
    }
    if let Some(delay) = arguments.delay {
        config = config.delay(delay);
    }
    if let Some(retention) = arguments.retention {
        config = config.retention(retention);
    }
    config = match (&arguments.dead_letter, arguments.max_receives) {
        (Some(queue), Some(receives)) => config.dead_letter(queue, receives),
        (None, Some(receives)) => config.max_receives(receives),
        _ => config,
    };
    if arguments.content_dedup {
        config = config.content_deduplication(true);
    }
    let queue = store.create_queue(&arguments.name, &config)?;
    told(arguments.json, || json!({ "name": queue.name() }))
}

#[expect(clippy::disallowed_methods, reason = "the input is the user's file, not the store's")]
fn send(queue: &Queue, arguments: &Send) -> Outcome {
    let input: Box<dyn Read> = match &arguments.file {
        Some(path) => Box::new(
            File::open(path)
                .map_err(|e| Failure::Failed(format!("open {}: {e}", path.display())))?,
        ),
        None => Box::new(stdin().lock()),
    };
    let attributes: Vec<_> =
        arguments.attribute.iter().map(|(name, value)| Attribute::string(name, value)).collect();
    let mut acknowledged = 0;
    send_lines(
        queue,
        arguments,
        &attributes,
        LineBlocks::new(input, LINE_BYTES_MAX),
        &mut acknowledged,
    )
    .map_err(|failure| failure.note(&acknowledged_before(acknowledged)))
}

/// Sends all lines, and counts those that are stored.
fn send_lines(
    queue: &Queue,
    arguments: &Send,
    attributes: &[Attribute<'_>],
    mut blocks: LineBlocks<Box<dyn Read>>,
    acknowledged: &mut u64,
) -> Outcome {
    let mut out = BufWriter::new(stdout().lock());
    loop {
        let block = match blocks.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(()),
            Err(LinesError::Io(e)) => return Err(Failure::Failed(format!("read the input: {e}"))),
            Err(LinesError::TooLong { max }) => {
                return Err(Failure::Failed(format!("a line is longer than {max} bytes")));
            }
        };
        let lines: Vec<&[u8]> = block.lines().collect();
        for lines in lines.chunks(BATCH) {
            let messages: Vec<_> =
                lines.iter().map(|line| message(line, arguments, attributes)).collect();
            let all_sent = queue.send_batch(&messages).map_err(logmill::Error::from)?;
            *acknowledged += all_sent.iter().filter(|sent| sent.is_ok()).count() as u64;
            for sent in all_sent {
                let sent = sent.map_err(logmill::Error::from)?;
                if arguments.json {
                    let line = json!({
                        "message_id": sent.id.to_string(),
                        "sequence_number": sent.sequence,
                        "duplicate": sent.duplicate,
                    });
                    writeln!(out, "{line}").map_err(Failure::output)?;
                }
            }
            out.flush().map_err(Failure::output)?;
        }
    }
}

fn message<'a>(
    line: &'a [u8],
    arguments: &'a Send,
    attributes: &'a [Attribute<'a>],
) -> Message<'a> {
    let mut message = Message::new(line).attributes(attributes);
    if let Some(delay) = arguments.delay {
        message = message.delay(delay);
    }
    if let Some(priority) = arguments.priority {
        message = message.priority(priority);
    }
    if let Some(group) = &arguments.group {
        message = message.group(group);
    }
    if let Some(id) = &arguments.dedup_id {
        message = message.deduplication_id(id);
    }
    message
}

fn receive(queue: &Queue, arguments: &Receive) -> Outcome {
    let mut options = ReceiveOptions::new().max(arguments.max).wait(arguments.wait);
    if let Some(timeout) = arguments.visibility_timeout {
        options = options.visibility_timeout(timeout);
    }
    let messages = queue.receive(&options).map_err(logmill::Error::from)?;
    let mut out = BufWriter::new(stdout().lock());
    for message in &messages {
        if arguments.json {
            let mut object = described(message);
            object.insert("receipt_handle".into(), message.receipt().to_string().into());
            writeln!(out, "{}", Value::Object(object)).map_err(Failure::output)?;
        } else {
            out.write_all(message.body())
                .and_then(|()| out.write_all(b"\n"))
                .map_err(Failure::output)?;
        }
    }
    out.flush().map_err(Failure::output)?;
    if arguments.delete && !messages.is_empty() {
        let receipts: Vec<_> = messages.iter().map(|message| *message.receipt()).collect();
        for deleted in queue.delete_batch(&receipts).map_err(logmill::Error::from)? {
            deleted.map_err(logmill::Error::from)?;
        }
    }
    Ok(())
}

/// Between two looks at a redrive that is held back by its rate.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Sees a redrive through. One that an earlier command did not see to its end has its own filter and target: it comes
/// first, and is told of in a line of its own.
fn redrive(store: &Store, arguments: &Redrive) -> Outcome {
    let queue = store.queue(&arguments.name)?;
    let known = queue.redrives().map_err(logmill::Error::from)?;
    let running = known.iter().find(|known| known.status == RedriveStatus::Running);
    if arguments.cancel {
        return cancel_redrive(&queue, running.map(|running| running.id), arguments.json);
    }
    let mut filter = RedriveFilter::new();
    if let Some(name) = &arguments.died_in {
        filter = filter.died_in(name);
    }
    let mut options = RedriveOptions::new().filter(filter);
    if let Some(name) = &arguments.to {
        options = options.to(name);
    }
    if let Some(rate) = arguments.rate {
        options = options.messages_per_second(rate);
    }
    if let Some(earlier) = running {
        follow(store, &queue, earlier.id, arguments.json)?;
    }
    let id = queue.redrive(&options).map_err(logmill::Error::from)?;
    follow(store, &queue, id, arguments.json)
}

fn cancel_redrive(queue: &Queue, running: Option<u64>, as_json: bool) -> Outcome {
    let name = queue.name();
    // It may have come to its end since it was looked at.
    let cancelled = running.map(|id| queue.cancel_redrive(id).map(|()| id));
    let id = match cancelled {
        None | Some(Err(logmill::queue::Error::NotFound { .. })) => {
            return Err(Failure::Failed(format!("no redrive of queue {name} is running")));
        }
        Some(cancelled) => cancelled.map_err(logmill::Error::from)?,
    };
    let known = queue.redrives().map_err(logmill::Error::from)?;
    let moved = known.iter().find(|known| known.id == id).map(|redrive| redrive.moved);
    told(as_json, || json!({ "queue": name, "redrive": id, "moved": moved, "cancelled": true }))
}

/// Waits until a redrive ends.
fn follow(store: &Store, queue: &Queue, id: u64, as_json: bool) -> Outcome {
    loop {
        let known = queue.redrives().map_err(logmill::Error::from)?;
        let Some(redrive) = known.into_iter().find(|known| known.id == id) else {
            return Err(Failure::Failed(format!("redrive {id} is not known any more")));
        };
        match redrive.status {
            RedriveStatus::Running => {
                store.tick();
                std::thread::park_timeout(LOOK_AGAIN);
            }
            RedriveStatus::Failed(why) => {
                return Err(Failure::Failed(format!("redrive of queue {}: {why}", queue.name())));
            }
            _ => {
                let (name, moved) = (queue.name(), redrive.moved);
                return told(as_json, || json!({ "queue": name, "redrive": id, "moved": moved }));
            }
        }
    }
}

fn peek(queue: &Queue, arguments: &Peek) -> Outcome {
    let section = match arguments.state {
        State::Ready => Section::Ready,
        State::Delayed => Section::Delayed,
        State::InFlight => Section::InFlight,
        State::Dead => Section::Dead,
    };
    let mut out = BufWriter::new(stdout().lock());
    for message in queue.page(section, 0, arguments.max).map_err(logmill::Error::from)? {
        if arguments.json {
            let mut object = described(&message);
            let (state, until) = match message.state() {
                MessageState::Delayed { until } => ("delayed", Some(until)),
                MessageState::InFlight { until } => ("in_flight", Some(until)),
                MessageState::Dead => ("dead", None),
                _ => ("ready", None),
            };
            object.insert("state".into(), state.into());
            object.insert("until".into(), until.into());
            writeln!(out, "{}", Value::Object(object)).map_err(Failure::output)?;
        } else {
            out.write_all(message.body())
                .and_then(|()| out.write_all(b"\n"))
                .map_err(Failure::output)?;
        }
    }
    out.flush().map_err(Failure::output)
}

/// What is printed of every message.
fn described(message: &StoredMessage) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("message_id".into(), message.id().to_string().into());
    let (name, body) = bytes_under("body", message.body());
    object.insert(name, body);
    object.insert("receive_count".into(), message.receive_count().into());
    object.insert("sent_at".into(), message.sent_at().into());
    let attributes = message.attributes().into_iter().map(|attribute| {
        let (name, value) = bytes_under("value", attribute.value());
        let mut described = Map::new();
        described.insert("type".into(), attribute.type_name().into());
        described.insert(name, value);
        (attribute.name().to_owned(), Value::Object(described))
    });
    object.insert("attributes".into(), Value::Object(attributes.collect()));
    object.insert("priority".into(), message.priority().into());
    object.insert("group".into(), message.group().into());
    object
}

fn list(store: &Store, prefix: &str, as_json: bool) -> Outcome {
    let mut out = BufWriter::new(stdout().lock());
    let mut rows = Vec::new();
    for name in store.queues(prefix) {
        let counts = store.queue(&name)?.counts().map_err(logmill::Error::from)?;
        if as_json {
            let line = json!({
                "name": name, "ready": counts.ready, "delayed": counts.delayed,
                "in_flight": counts.in_flight, "dead": counts.dead,
            });
            writeln!(out, "{line}").map_err(Failure::output)?;
            continue;
        }
        let counts = [counts.ready, counts.delayed, counts.in_flight, counts.dead];
        rows.push([name].into_iter().chain(counts.map(|count| count.to_string())).collect());
    }
    let columns = [
        Column::Left("QUEUE"),
        Column::Right("READY"),
        Column::Right("DELAYED"),
        Column::Right("IN FLIGHT"),
        Column::Right("DEAD"),
    ];
    table::write(&mut out, &columns, rows)?;
    out.flush().map_err(Failure::output)
}

fn describe(queue: &Queue, as_json: bool) -> Outcome {
    let config = queue.config().map_err(logmill::Error::from)?;
    let counts = queue.counts().map_err(logmill::Error::from)?;
    let age = queue.oldest_claimable_age().map_err(logmill::Error::from)?;
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let facts = [
        ("name", Value::from(queue.name())),
        ("fifo", config.is_fifo().into()),
        ("visibility_timeout_ms", ms(config.get_visibility_timeout()).into()),
        ("delay_ms", ms(config.get_delay()).into()),
        ("retention_ms", ms(config.get_retention()).into()),
        ("dead_letter", config.get_dead_letter().into()),
        ("max_receives", config.get_max_receives().into()),
        ("content_dedup", config.get_content_deduplication().into()),
        ("ready", counts.ready.into()),
        ("delayed", counts.delayed.into()),
        ("in_flight", counts.in_flight.into()),
        ("dead", counts.dead.into()),
        ("oldest_claimable_age_ms", age.map(ms).into()),
    ];
    if as_json {
        let object: Map<String, Value> =
            facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        return print_line(&Value::Object(object));
    }
    let words = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = BufWriter::new(stdout().lock());
    table::facts(&mut out, &facts.map(|(name, value)| (name, words(value))))?;
    out.flush().map_err(Failure::output)
}

/// What a command that only changes something says: nothing, or one object.
fn told(as_json: bool, object: impl FnOnce() -> Value) -> Outcome {
    if as_json { print_line(&object()) } else { Ok(()) }
}

fn print_line(value: &Value) -> Outcome {
    let mut out = stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).map_err(Failure::output)
}
