//! `logmill dump`: shows what one file of a store holds.

use std::io::{self, BufWriter, Write, stdout};
use std::path::PathBuf;

use logmill::storage::inspect::{Item, inspect};
use logmill::{Batch, RecordView};

use crate::failure::{Failure, Outcome};

/// Bytes of a key, value or header that are shown.
const SHOWN_MAX: usize = 200;

/// Show what one file of a store holds
///
/// The file is a segment (.log), an index (.index, .time), a manifest or a live page. Nothing is changed. Damage is
/// named with its position, after everything before it was shown.
///
/// Example:
///   logmill dump store/1/0/00000000000000000000.log
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The file
    #[arg(value_name = "SEGMENT")]
    file: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Outcome {
    let mut out = BufWriter::new(stdout().lock());
    let shown = inspect(&arguments.file, |item| show(&mut out, &item));
    out.flush().map_err(Failure::output).and(shown)
}

fn show(out: &mut impl Write, item: &Item<'_>) -> Outcome {
    write_item(out, item).map_err(Failure::output)?;
    match item {
        Item::Frame { batch, .. } => write_records(out, batch),
        _ => Ok(()),
    }
}

fn write_item(out: &mut impl Write, item: &Item<'_>) -> io::Result<()> {
    match item {
        Item::Fields { title, position, fields } => {
            writeln!(out, "{title} at position {position}")?;
            fields.iter().try_for_each(|(name, value)| writeln!(out, "  {name}: {value}"))
        }
        Item::Frame { position, len, batch } => write_frame(out, *position, *len, batch),
        Item::Position { offset, position } => {
            writeln!(out, "  offset {offset}: position {position}")
        }
        Item::Time { max_timestamp, offset } => {
            writeln!(out, "  timestamp {max_timestamp}: offset {offset}")
        }
        other => writeln!(out, "{other:?}"),
    }
}

fn write_frame(out: &mut impl Write, position: u64, len: u64, batch: &Batch<'_>) -> io::Result<()> {
    write!(out, "frame at position {position}, {len} bytes: ")?;
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

fn write_records(out: &mut impl Write, batch: &Batch<'_>) -> Outcome {
    for record in batch.records() {
        let record = record.map_err(|what| {
            Failure::Corrupt(format!("corrupt: batch at offset {}: {what}", batch.base_offset()))
        })?;
        write_record(out, &record).map_err(Failure::output)?;
    }
    Ok(())
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
