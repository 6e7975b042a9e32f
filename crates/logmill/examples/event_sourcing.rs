//! Event sourcing: events are the truth, the counts a fold over them, and a snapshot says how far the fold has come.
//!
//! ```text
//! cargo run --example event_sourcing -- words.txt [DIR]
//! ```
//! Each word of the file is an event `counted` of the word. The snapshot is a record of a topic of its own that keeps the
//! latest one only; a restart reads it and folds what came after it.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "what is read is no file of the store")]

use std::collections::BTreeMap;
use std::path::Path;

use logmill::{Cleanup, Partition, Record, Store, TopicConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The state, and the offset of the first event that is not in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often each word was counted.
    pub words: BTreeMap<String, u64>,
    /// The offset of the first event that is not counted yet.
    pub next: u64,
}

impl Counts {
    /// Folds every event that is not in the state yet; says how many there were.
    fn catch_up(&mut self, events: &Partition) -> Outcome<u64> {
        let before = self.next;
        let mut reader = events.reader(before)?;
        while self.next < events.high_watermark()? {
            let Some(batch) = reader.next_batch()? else { break };
            for record in batch.records().flatten() {
                let word = std::str::from_utf8(record.value.unwrap_or_default())?;
                *self.words.entry(word.to_owned()).or_default() += 1;
                self.next = record.offset + 1;
            }
        }
        Ok(self.next - before)
    }

    fn encode(&self) -> String {
        let words = self.words.iter().map(|(word, count)| format!("{count} {word}\n"));
        format!("{}\n{}", self.next, words.collect::<String>())
    }

    fn decode(text: &str) -> Outcome<Counts> {
        let mut lines = text.lines();
        let next = lines.next().unwrap_or_default().parse()?;
        let mut words = BTreeMap::new();
        for (count, word) in lines.filter_map(|line| line.split_once(' ')) {
            words.insert(word.to_owned(), count.parse()?);
        }
        Ok(Counts { words, next })
    }
}

/// Appends the words of `input`, in two runs with a snapshot between; returns the state of a third run, which starts from
/// the snapshot, and how many events that had to fold.
pub fn run(input: &str, dir: &Path) -> Outcome<(Counts, u64)> {
    let words: Vec<&str> = input.split_whitespace().collect();
    let (first, second) = words.split_at(words.len() / 2);
    let store = Store::open(dir)?;
    let events =
        store.create_topic("word-events", TopicConfig::new().retention(None))?.partition(0)?;
    store.create_topic("word-snapshots", TopicConfig::new().cleanup(Cleanup::Compact))?;
    append(&events, first)?;
    let mut counts = Counts::default();
    counts.catch_up(&events)?;
    let snapshots = store.topic("word-snapshots")?.partition(0)?;
    snapshots.append(&Record::value(counts.encode().as_bytes()).key(b"words"))?;
    append(&events, second)?;
    store.close()?;

    let store = Store::open(dir)?;
    let snapshot = store.topic("word-snapshots")?.table()?.get(b"words")?;
    let mut counts = match snapshot.and_then(|record| record.value) {
        Some(text) => Counts::decode(std::str::from_utf8(&text)?)?,
        None => Counts::default(),
    };
    let folded = counts.catch_up(&store.topic("word-events")?.partition(0)?)?;
    store.close()?;
    Ok((counts, folded))
}

fn append(events: &Partition, words: &[&str]) -> Outcome<()> {
    for words in words.chunks(100) {
        let records: Vec<Record<'_>> =
            words.iter().map(|word| Record::value(word.as_bytes())).collect();
        events.append_batch(&records)?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next() else {
        return Err("usage: event_sourcing FILE [DIR]".into());
    };
    let input = std::fs::read_to_string(file)?;
    let place = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| place.path().to_owned(), Into::into);
    let (counts, folded) = run(&input, &dir)?;
    println!("{} different words; {folded} events folded after the snapshot", counts.words.len());
    Ok(())
}
