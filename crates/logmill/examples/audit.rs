//! An audit log: every line is on the disk before its act goes on, what is older than a month goes by itself, and what
//! happened at a given time is found without reading the rest.
//!
//! ```text
//! cargo run --example audit -- events.txt [DIR]
//! ```
//! Each line is an event; they are spread over the last sixty days, as if they had been written down then.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "what is read is no file of the store")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill::{Clock, Header, Record, Store, SystemClock, TopicConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DAYS: i64 = 60;

/// What the audit log had to say.
#[derive(Debug)]
pub struct Report {
    /// Events that were written down.
    pub written: u64,
    /// The first that retention has left.
    pub first_kept: u64,
    /// How old that is, in days.
    pub oldest_days: i64,
    /// The events of the day that was asked for, with who did them.
    pub day: Vec<(String, String)>,
}

/// Writes `input` down over sixty days and keeps thirty; reads what happened `days_ago`.
pub fn run(input: &str, days_ago: i64, dir: &Path) -> Outcome<Report> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let now = clock.wall_ms();
    let store = Store::builder().clock(clock).open(dir)?;
    // Retention gives back whole segments: small ones for a small example. Never more than a gigabyte, whatever the age.
    let config = TopicConfig::new()
        .retention(Some(30 * DAY))
        .retention_bytes(Some(1 << 30))
        .segment_bytes_max(64 << 10);
    let audit = store.create_topic("audit", config)?.partition(0)?;

    let day_ms = i64::try_from(DAY.as_millis())?;
    let ms = |days: i64| now - days * day_ms;
    let lines: Vec<&str> = input.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for (n, events) in (0..).zip(lines.chunks(lines.len().div_ceil(DAYS as usize).max(1))) {
        let events: Vec<(&str, &str)> =
            events.iter().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
        let who: Vec<[Header<'_>; 1]> =
            events.iter().map(|(who, _)| [Header { name: "who", value: who.as_bytes() }]).collect();
        let records: Vec<Record<'_>> = events
            .iter()
            .zip(&who)
            .map(|((_, what), who)| {
                Record::value(what.as_bytes()).headers(who).timestamp(ms(DAYS - n))
            })
            .collect();
        // On the disk when this returns. Somebody who is to act upon one event waits for that one: `append`.
        audit.append_batch(&records)?;
    }
    // The background does it in time; here it is to be seen.
    audit.apply_retention()?;

    let (first_kept, written) = (audit.start_offset()?, audit.end_offset()?);
    let oldest = audit.get(first_kept)?.map_or(now, |record| record.timestamp);
    let mut day = Vec::new();
    if let Some(from) = audit.offset_for_timestamp(ms(days_ago))? {
        let mut reader = audit.reader(from)?;
        'day: while let Some(batch) = reader.next_batch()? {
            for record in batch.records().flatten().filter(|record| record.offset >= from) {
                if record.timestamp >= ms(days_ago - 1) {
                    break 'day;
                }
                let who = record.headers.into_iter().next().map_or(&b""[..], |header| header.value);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                day.push((text(who), text(record.value.unwrap_or_default())));
            }
        }
    }
    store.close()?;
    let oldest_days = (now - oldest) / day_ms;
    Ok(Report { written, first_kept, oldest_days, day })
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next() else { return Err("usage: audit FILE [DIR]".into()) };
    let input = std::fs::read_to_string(file)?;
    let place = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| place.path().to_owned(), Into::into);
    let report = run(&input, 7, &dir)?;
    let Report { written, first_kept, oldest_days, day } = report;
    println!("{written} events, kept from event {first_kept} on, which is {oldest_days} days old");
    println!("a week ago:");
    for (who, what) in day {
        println!("  {who}: {what}");
    }
    Ok(())
}
