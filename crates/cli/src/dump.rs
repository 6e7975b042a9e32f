//! `logmill dump`: shows what one file of a store holds.

mod as_json;
mod entries;

use std::fmt::Display;
use std::io::{self, BufWriter, Write, stdout};
use std::path::PathBuf;

use logmill::storage::dump::{
    Footer, Item, Live, Manifest, SegmentHead, State, dump, journal_entry,
};
use logmill::{Batch, RecordView, storage};

use crate::failure::{Failure, Outcome};
use crate::json::write_line;

/// Bytes of a key, value or header that are shown.
const SHOWN_MAX: usize = 200;

const EXAMPLES: &str = "\
Examples:
  logmill dump store/1/0/00000000000000000000.log
  logmill dump store/1/0/00000000000000000000.log --offset 4711 | head
  logmill dump --json store/1/0/00000000000000000000.log | jq 'select(.kind == \"damage\")'
  logmill dump --json store/0/00000000000000000000.log | jq 'select(.kind == \"entry\")'";

/// Show what one file of a store holds
///
/// The file is a segment (.log), an index (.index, .time), a manifest, a live page, a producer snapshot, a checkpoint or the
/// catalogue of a backup, under whatever name; of any other file of a store it says what that is. The records of a journal
/// (0 and 0/1) are shown as the entries that they are. Nothing is changed. Damage is shown at its place, and everything
/// around it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Begin with the batch of a segment that holds this offset, or else with the next
    #[arg(long, value_name = "N")]
    offset: Option<u64>,
    /// Print one JSON object for each thing that the file says; nothing is cut short
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Outcome {
    let mut out = BufWriter::new(stdout().lock());
    let is_journal = entries::is_journal(&arguments.file);
    let mut skipping = arguments.offset;
    let shown = dump(&arguments.file, |item| {
        if let (Some(offset), Item::Batch { batch, .. }) = (skipping, &item)
            && batch.last_offset() >= offset
        {
            skipping = None;
        }
        if skipping.is_some() {
            return Ok(());
        }
        let entry = match &item {
            Item::Record(record) if is_journal => journal_entry(record),
            _ => None,
        };
        match (entry, arguments.json) {
            (Some(entry), true) => write_line(&mut out, &entries::object(&entry))?,
            (Some(entry), false) => entries::write(&mut out, &entry).map_err(Failure::output)?,
            (None, true) => write_line(&mut out, &as_json::object(&item))?,
            (None, false) => write_item(&mut out, &item).map_err(Failure::output)?,
        }
        Ok::<_, Stopped>(())
    });
    out.flush().map_err(Failure::output).and(shown.map_err(|Stopped(failure)| failure))?;
    match skipping {
        Some(offset) => Err(Failure::Failed(format!(
            "{} has no batch with offset {offset} or a later one",
            arguments.file.display()
        ))),
        None => Ok(()),
    }
}

/// Why the file is shown no further.
struct Stopped(Failure);

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped(failure)
    }
}

impl From<storage::Error> for Stopped {
    fn from(error: storage::Error) -> Stopped {
        Stopped(match error {
            // It was the user who named it, and it may be no file of a store.
            storage::Error::NotAFile { .. } => Failure::Failed(error.to_string()),
            error => Failure::from(error),
        })
    }
}

fn write_item(out: &mut impl Write, item: &Item<'_>) -> io::Result<()> {
    match item {
        Item::SegmentHead(head) => write_head(out, head),
        Item::Batch { position, bytes, batch } => write_batch(out, *position, *bytes, batch),
        Item::Record(record) => write_record(out, record),
        Item::Damage { position, bytes, offset, what } => {
            writeln!(
                out,
                "DAMAGE at position {position}, {bytes} bytes, from offset {offset}: {what}"
            )
        }
        Item::Unused { position, bytes } => {
            writeln!(out, "zero bytes at position {position}: {bytes}")
        }
        Item::Footer { position, footer } => write_footer(out, *position, footer),
        Item::ManifestSlot { position, is_current, slot } => {
            write_slot(out, *position, *is_current, slot)
        }
        Item::Live(live) => write_live(out, live),
        Item::Index { is_time, log_id, base_offset, entries } => {
            let title = if *is_time { "time index" } else { "offset index" };
            fields(
                out,
                title,
                0,
                &[("log id", &hex(log_id)), ("base offset", base_offset), ("entries", entries)],
            )
        }
        Item::OffsetEntry { offset, position } => {
            writeln!(out, "  offset {offset}: position {position}")
        }
        Item::TimeEntry { offset, max_timestamp } => {
            writeln!(out, "  timestamp {max_timestamp}: offset {offset}")
        }
        Item::Producers { log_id, offset } => {
            fields(out, "producers", 0, &[("log id", &hex(log_id)), ("before offset", offset)])
        }
        Item::Producer { id, epoch, first_sequence, last_sequence, base_offset } => writeln!(
            out,
            "  producer {id} epoch {epoch} sequences {first_sequence} to {last_sequence}: offset {base_offset}"
        ),
        Item::Checkpoint { log_id, owner, reach, bytes } => fields(
            out,
            "checkpoint",
            0,
            &[
                ("log id", &hex(log_id)),
                ("owner", &entries::owner(*owner)),
                ("before hot offset", &reach.hot),
                ("before cold offset", &reach.cold),
                ("bytes of state", bytes),
            ],
        ),
        Item::Backup { taken_at, logs } => {
            fields(out, "backup", 0, &[("taken at", taken_at), ("logs", logs)])
        }
        Item::BackupLog { name, log_id, epoch, start_offset, end_offset } => writeln!(
            out,
            "  log {name}: id {}, epoch {epoch}, offsets {start_offset}..{end_offset}",
            hex(log_id)
        ),
        Item::BackupCopy { name, offset, bytes, .. } => {
            writeln!(out, "    offset {offset}: files/{name}, {bytes} bytes")
        }
        Item::Plain { what, bytes, text } => {
            writeln!(out, "{bytes} bytes: {what}")?;
            text.lines().try_for_each(|line| writeln!(out, "  {line}"))
        }
        other => writeln!(out, "{other:?}"),
    }
}

/// Writes a structure: its name, its place, a line for each field.
fn fields(
    out: &mut impl Write,
    title: &str,
    position: u64,
    fields: &[(&str, &dyn Display)],
) -> io::Result<()> {
    writeln!(out, "{title} at position {position}")?;
    fields.iter().try_for_each(|(name, value)| writeln!(out, "  {name}: {value}"))
}

fn write_head(out: &mut impl Write, head: &SegmentHead) -> io::Result<()> {
    fields(
        out,
        "segment head",
        0,
        &[
            ("log id", &hex(&head.log_id)),
            ("base offset", &head.base_offset),
            ("log epoch", &head.epoch),
            ("generation", &head.generation),
            ("base timestamp", &head.base_timestamp),
            ("superseded hash", &hex(&head.superseded_hash)),
        ],
    )
}

fn write_footer(out: &mut impl Write, position: u64, footer: &Footer) -> io::Result<()> {
    fields(
        out,
        "footer",
        position,
        &[
            ("log epoch", &footer.epoch),
            ("log id", &hex(&footer.log_id)),
            ("base offset", &footer.base_offset),
            ("end offset", &footer.end_offset),
            ("records", &footer.count),
            ("data end", &footer.data_end),
            ("largest timestamp", &footer.max_timestamp),
            ("smallest timestamp", &footer.min_timestamp),
            ("hash", &hex(&footer.hash)),
            ("sealed at", &footer.sealed_at),
            ("hash of the segment before", &hex(&footer.previous_hash)),
        ],
    )
}

fn write_slot(
    out: &mut impl Write,
    position: u64,
    is_current: bool,
    slot: &Manifest,
) -> io::Result<()> {
    let state = match slot.state {
        State::Open => "open",
        State::Clean => "clean",
    };
    let title = if is_current { "manifest slot, the current one," } else { "manifest slot" };
    fields(
        out,
        title,
        position,
        &[
            ("generation", &slot.generation),
            ("log id", &hex(&slot.log_id)),
            ("log epoch", &slot.epoch),
            ("state", &state),
            ("log start offset", &slot.start_offset),
            ("proven offset", &slot.proven.offset),
            ("proven segment", &slot.proven.segment),
            ("proven position", &slot.proven.position),
            ("boot id", &hex(&slot.boot_id)),
            ("created at", &slot.created_at),
            ("has producers", &slot.has_producers),
            ("owner's bytes", &hex(&slot.owner)),
        ],
    )
}

fn write_live(out: &mut impl Write, live: &Live) -> io::Result<()> {
    fields(
        out,
        "live page",
        0,
        &[
            ("log id", &hex(&live.log_id)),
            ("log epoch", &live.epoch),
            ("durable offset", &live.durable),
            ("write path", &if live.mapped { "mapped" } else { "positional" }),
            ("stored offset", &live.stored),
            ("boot id begins", &hex(&live.boot)),
        ],
    )
}

fn write_batch(
    out: &mut impl Write,
    position: u64,
    bytes: u64,
    batch: &Batch<'_>,
) -> io::Result<()> {
    write!(out, "frame at position {position}, {bytes} bytes: ")?;
    write!(
        out,
        "offsets {} to {}, {} records",
        batch.base_offset(),
        batch.last_offset(),
        batch.count()
    )?;
    if batch.codec() != 0 {
        write!(out, ", codec {}", batch.codec())?;
    }
    if let Some(producer) = batch.producer() {
        let (id, epoch, sequence) = (producer.id, producer.epoch, producer.sequence);
        write!(out, ", producer {id} epoch {epoch} sequence {sequence}")?;
    }
    if let Some(durable_upto) = batch.durable_upto() {
        write!(out, ", durable up to {durable_upto}")?;
    }
    if let Some(horizon) = batch.delete_horizon() {
        write!(out, ", delete horizon {horizon}")?;
    }
    writeln!(out, "{}", if batch.continues() { ", continued" } else { "" })
}

fn write_record(out: &mut impl Write, record: &RecordView<'_>) -> io::Result<()> {
    write!(out, "  offset {} timestamp {}", record.offset, record.timestamp)?;
    if let Some(key) = record.key {
        write!(out, " key {}", quoted(key))?;
    }
    match record.value {
        Some(value) => write!(out, " value {}", quoted(value))?,
        None => write!(out, " tombstone")?,
    }
    for header in record.headers {
        write!(out, " header {}={}", quoted(header.name.as_bytes()), quoted(header.value))?;
    }
    writeln!(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in quotes: printable ASCII as it is, the rest escaped, the end left out where there is much.
fn quoted(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_MAX) {
        Some(start) if bytes.len() > SHOWN_MAX => {
            format!("\"{}\"... ({} bytes)", start.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_escaped_and_what_is_long_is_cut() {
        assert_eq!(quoted(b"a \"b\"\n\xff"), r#""a \"b\"\n\xff""#);
        assert_eq!(quoted(&[b'x'; 200]).len(), 202);
        assert!(quoted(&[b'x'; 201]).ends_with("x\"... (201 bytes)"));
    }
}
