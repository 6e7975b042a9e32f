//! A transactional outbox: rows that a database committed reach a topic exactly once, whatever is run again.
//!
//! ```text
//! cargo run --example outbox -- rows.txt [DIR]
//! ```
//! The file stands for the database's outbox table, its line numbers for the rows' ids. The producer has a name, and each
//! record the row's id as its sequence: a row that the topic has already is confirmed and not appended. So the relay may
//! start from any row that was certainly sent, here from the first.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "what is read is no file of the store")]

use std::path::Path;

use logmill::{ProducerConfig, ProducerRecord, Store, TopicConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Relays `rows`, and returns how many records the topic has then.
pub fn run(rows: &[&str], dir: &Path) -> Outcome<u64> {
    let store = Store::open(dir)?;
    let topic = store.ensure_topic("orders", TopicConfig::new())?;
    let producer = store.producer_with(ProducerConfig::new().name("outbox-relay"))?;
    for (id, row) in (1..).zip(rows) {
        // The delivery could be waited for; the flush below waits for all of them.
        let _ = producer.send(&ProducerRecord::new("orders", row.as_bytes()).sequence(id))?;
    }
    // From here on the rows may be deleted from the outbox.
    producer.close()?;
    let records = topic.partition(0)?.end_offset()?;
    store.close()?;
    Ok(records)
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next() else { return Err("usage: outbox FILE [DIR]".into()) };
    let input = std::fs::read_to_string(file)?;
    let place = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| place.path().to_owned(), Into::into);
    let rows: Vec<&str> = input.lines().filter(|line| !line.is_empty()).collect();
    for relay in 1..=2 {
        println!("after relay {relay}: {} records of {} rows", run(&rows, &dir)?, rows.len());
    }
    Ok(())
}
