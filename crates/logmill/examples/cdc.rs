//! Change data capture: a topic that keeps the latest version of each row.
//!
//! ```text
//! cargo run --example cdc -- changes.txt [DIR]
//! ```
//! Each line is a change: its first word is the row's key, the rest its new value; a line of one word deletes the row.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "what is read is no file of the store")]

use std::collections::BTreeMap;
use std::path::Path;

use logmill::{Cleanup, Record, Store, TopicConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The table that the changes of `input` make, read back from the topic after its compaction, and how many records that
/// still has.
pub fn run(input: &str, dir: &Path) -> Outcome<(BTreeMap<String, String>, usize)> {
    let store = Store::open(dir)?;
    // Compaction looks at whole segments: small ones for a small example.
    let config = TopicConfig::new().cleanup(Cleanup::Compact).segment_bytes_max(64 << 10);
    let rows = store.create_topic("rows", config)?.partition(0)?;
    let lines: Vec<&str> = input.lines().filter(|line| !line.trim().is_empty()).collect();
    for lines in lines.chunks(50) {
        let changes: Vec<Record<'_>> = lines.iter().map(|line| change(line)).collect();
        rows.append_batch(&changes)?;
    }
    // The background does it in time; here it is to be seen.
    rows.compact()?;
    let mut table = BTreeMap::new();
    let mut records = 0;
    let mut reader = rows.reader(rows.start_offset()?)?;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records().flatten() {
            let key = String::from_utf8(record.key.unwrap_or_default().to_vec())?;
            match record.value {
                Some(value) => table.insert(key, String::from_utf8(value.to_vec())?),
                None => table.remove(&key),
            };
            records += 1;
        }
    }
    store.close()?;
    Ok((table, records))
}

fn change(line: &str) -> Record<'_> {
    match line.trim().split_once(' ') {
        Some((key, value)) => Record::value(value.as_bytes()).key(key.as_bytes()),
        None => Record::tombstone(line.trim().as_bytes()),
    }
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next() else { return Err("usage: cdc FILE [DIR]".into()) };
    let input = std::fs::read_to_string(file)?;
    let place = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| place.path().to_owned(), Into::into);
    let (table, records) = run(&input, &dir)?;
    println!("{} rows in {records} records, of {} changes", table.len(), input.lines().count());
    Ok(())
}
