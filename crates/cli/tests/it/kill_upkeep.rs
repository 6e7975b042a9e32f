//! kill -9 of what makes room: a compaction, and a producer whose topic keeps few records. `LOGMILL_KILLS` as in
//! [`kill`](crate::kill).

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use crate::kill::{Cycle, cycles, value};
use crate::support::{Numbers, Store, parsed};

const SEED: u64 = 0x7570_6b65_6570;
const STORE_CYCLES: u64 = 10;
const SMALL: [&str; 2] = ["--set", "segment.bytes=16384"];
/// What retention keeps at least.
const RECORDS: u64 = 100;

#[test]
fn kill_of_a_compaction_takes_the_latest_record_of_no_key() {
    let mut random = Numbers(SEED);
    let (mut left, mut killed) = (cycles().div_ceil(8), 0);
    while left > 0 {
        let store = Store::new();
        let compacted = ["topic", "create", "users", "--cleanup", "compact"];
        store.run(&[&compacted[..], &SMALL].concat()).ok();
        let mut lines = Vec::new();
        for cycle in 0..left.min(STORE_CYCLES) {
            let new: Vec<_> = (0..400)
                .map(|n| format!("k{} {cycle}:{n} {}", random.below(60), "a".repeat(300)))
                .collect();
            let input = new.join("\n");
            store.run_with(&["produce", "users", "--key-field", "1"], input.as_bytes()).ok();
            lines.extend(new);
            let mut compaction = store.command(&["compact", "users"]).spawn().unwrap();
            thread::sleep(Duration::from_micros(random.below(12_000)));
            compaction.kill().unwrap();
            let status = compaction.wait().unwrap();
            assert!(status.success() || status.signal() == Some(9), "{status}");
            killed += u64::from(!status.success());

            let mut latest = BTreeMap::new();
            for record in parsed(&store.run(&["consume", "users", "--json"]).ok()) {
                let offset = usize::try_from(record["offset"].as_u64().unwrap()).unwrap();
                assert_eq!(record["value"].as_str().unwrap(), lines[offset], "cycle {cycle}");
                latest.insert(record["key"].as_str().unwrap().to_owned(), offset);
            }
            let key = |line: &String| line.split(' ').next().unwrap().to_owned();
            let expected = lines.iter().map(key).zip(0..);
            assert_eq!(latest, expected.collect(), "cycle {cycle}");
            assert_eq!(store.run(&["verify"]).code, 0, "cycle {cycle}");
        }
        left = left.saturating_sub(STORE_CYCLES);
    }
    eprintln!("{killed} compactions were killed at work");
    assert!(killed > 0);
}

#[test]
fn kill_while_old_segments_go_takes_no_record_that_retention_keeps() {
    let mut random = Numbers(SEED + 1);
    let mut left = cycles().div_ceil(8);
    while left > 0 {
        let store = Store::new();
        let few = ["topic", "create", "events", "--set", &format!("retention.records={RECORDS}")];
        store.run(&[&few[..], &SMALL].concat()).ok();
        for number in 0..left.min(STORE_CYCLES) {
            let durability = if number.is_multiple_of(2) { "sync" } else { "buffered" };
            let (seed, nap) = (random.next(), Duration::from_micros(random.below(30_000)));
            let first_segment = || store.files("log").into_iter().next();
            let cycle = Cycle::run(&store, durability, number, seed, || {
                let before = first_segment();
                while first_segment() <= before {
                    thread::yield_now();
                }
                // By then the next may be on its way.
                thread::sleep(nap);
            });
            let found = parsed(&store.run(&["consume", "events", "--format", "json"]).ok());
            let first = found[0]["offset"].as_u64().unwrap();
            let end = first + found.len() as u64;
            let dense = found.iter().map(|record| record["offset"].as_u64().unwrap());
            assert!(dense.eq(first..end), "cycle {number}");
            assert!(end >= cycle.first + cycle.acknowledged, "cycle {number}: it ends at {end}");
            assert!(end - first >= RECORDS.min(end), "cycle {number}: {first}..{end}");
            let from = usize::try_from(cycle.first.saturating_sub(first)).unwrap();
            let lines = cycle.records().skip_while(|(offset, _)| *offset < first);
            for (record, (offset, line)) in found[from..].iter().zip(lines) {
                assert_eq!((record["offset"].as_u64(), value(record)), (Some(offset), line));
            }
            assert_eq!(store.run(&["verify"]).code, 0, "cycle {number}");
            assert!(first > 0, "cycle {number}: nothing was removed");
        }
        left = left.saturating_sub(STORE_CYCLES);
    }
}
