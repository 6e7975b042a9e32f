//! kill -9 of a producer at any moment takes nothing that it acknowledged.
//!
//! Many cycles in a store: each starts the real binary, feeds it lines through a pipe, kills it at a pseudo-random
//! moment, and then reads everything back and verifies it. `LOGMILL_KILLS` says how many cycles there are in all (40
//! unless it is set).

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{Numbers, Store, parsed};

const SEED: u64 = 0x6c6f_676d_696c_6c00;

/// After so many kills a new store is begun, so that a cycle does not cost more and more.
const STORE_CYCLES: u64 = 20;

pub fn cycles() -> u64 {
    match std::env::var("LOGMILL_KILLS") {
        Ok(count) => count.parse().expect("LOGMILL_KILLS is a number"),
        Err(_) => 40,
    }
}

/// The lines of one cycle, the same whenever they are made again: its number, the line's, and filler of arbitrary bytes.
struct Lines {
    cycle: u64,
    next: u64,
    numbers: Numbers,
}

impl Iterator for Lines {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut line = format!("{}:{}:", self.cycle, self.next).into_bytes();
        self.next += 1;
        let len = match self.numbers.below(200) {
            0 => 20_000 + self.numbers.below(60_000),
            1..20 => 0,
            _ => self.numbers.below(200),
        };
        line.extend((0..len).map(|_| match self.numbers.next().to_le_bytes()[0] {
            b'\n' => b'.',
            byte => byte,
        }));
        Some(line)
    }
}

/// One producer's life.
pub struct Cycle {
    number: u64,
    seed: u64,
    /// The first offset that it was given.
    pub first: u64,
    /// How many lines it acknowledged; it was killed while there were more.
    pub acknowledged: u64,
}

impl Cycle {
    fn lines(number: u64, seed: u64) -> Lines {
        Lines { cycle: number, next: 0, numbers: Numbers(seed) }
    }

    /// Its lines with the offsets that they were to get.
    pub fn records(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        (self.first..).zip(Cycle::lines(self.number, self.seed))
    }

    /// Starts a producer of the topic `events`, feeds it, kills it when it has acknowledged something and `wait` returns, and
    /// notes what it acknowledged.
    pub fn run(
        store: &Store,
        durability: &str,
        number: u64,
        seed: u64,
        wait: impl FnOnce(),
    ) -> Cycle {
        let mut producer = store
            .command(&["produce", "events", "--print-offsets", "--durability", durability])
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdin = producer.stdin.take().unwrap();
        let feeder = thread::spawn(move || feed(stdin, Cycle::lines(number, seed), Numbers(!seed)));
        let printed = kill_at_work(&mut producer, wait);
        let fed = feeder.join().unwrap();

        // The last line may have been cut by the kill: only whole ones were said.
        let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
        let offsets: Vec<u64> =
            whole.lines().map(|place| place.strip_prefix("0 ").unwrap().parse().unwrap()).collect();
        let (first, acknowledged) = (offsets[0], offsets.len() as u64);
        assert!(
            offsets.into_iter().eq(first..first + acknowledged),
            "cycle {number}: offsets are not dense"
        );
        assert!(acknowledged < fed, "cycle {number}: the kill met an idle producer");
        Cycle { number, seed, first, acknowledged }
    }

    /// Everything from this cycle's first offset on is its lines in order, and all that it acknowledged is there.
    fn check(&self, records: &[serde_json::Value]) {
        let number = self.number;
        for (record, (offset, line)) in records.iter().zip(self.records()) {
            assert_eq!(record["offset"], offset, "cycle {number}: offsets are dense");
            assert_eq!(value(record), line, "cycle {number}, offset {offset}");
        }
        let found = records.len() as u64;
        assert!(
            found >= self.acknowledged,
            "cycle {number}: {} acknowledged, {found} there",
            self.acknowledged
        );
    }
}

/// Feeds lines until the pipe breaks, singly and in bursts; returns how many were on their way.
fn feed(mut input: impl Write, mut lines: Lines, mut numbers: Numbers) -> u64 {
    loop {
        let burst = if numbers.below(2) == 0 { 1 } else { 1 + numbers.below(400) };
        let mut bytes = Vec::new();
        for line in lines.by_ref().take(usize::try_from(burst).unwrap()) {
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
        }
        if input.write_all(&bytes).is_err() {
            return lines.next;
        }
    }
}

/// Kills `producer` once it has acknowledged something and `wait` has returned; gives all that it printed.
fn kill_at_work(producer: &mut Child, wait: impl FnOnce()) -> String {
    let mut stdout = producer.stdout.take().unwrap();
    let mut printed = vec![0; 4096];
    let first = stdout.read(&mut printed).unwrap();
    assert!(first > 0, "the producer ended before it acknowledged anything");
    printed.truncate(first);
    let reader = thread::spawn(move || {
        stdout.read_to_end(&mut printed).unwrap();
        printed
    });
    wait();
    producer.kill().unwrap();
    let status = producer.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "the kill did not meet it: {status}"
    );
    String::from_utf8(reader.join().unwrap()).unwrap()
}

/// Reads everything from `from` on, with a process of its own.
fn read(store: &Store, from: u64) -> Vec<serde_json::Value> {
    parsed(&store.run(&["consume", "events", "--format", "json", "--from", &from.to_string()]).ok())
}

pub fn value(record: &serde_json::Value) -> Vec<u8> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    match record.get("value") {
        Some(text) => text.as_str().unwrap().as_bytes().to_vec(),
        None => BASE64_STANDARD.decode(record["value_base64"].as_str().unwrap()).unwrap(),
    }
}

fn nothing_acknowledged_is_lost(durability: &str, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut left = cycles().div_ceil(4);
    while left > 0 {
        let cycles = left.min(STORE_CYCLES);
        a_store_keeps_everything(durability, cycles, &mut numbers);
        left -= cycles;
    }
}

/// Kills that many producers of one store.
fn a_store_keeps_everything(durability: &str, cycles: u64, numbers: &mut Numbers) {
    let store = Store::new();
    let mut history = Vec::new();
    for number in 0..cycles {
        let (seed, nap) = (numbers.next(), Duration::from_micros(numbers.below(30_000)));
        let cycle = Cycle::run(&store, durability, number, seed, || thread::sleep(nap));
        cycle.check(&read(&store, cycle.first));
        assert_eq!(store.run(&["verify"]).code, 0, "cycle {number}");
        history.push(cycle);
    }
    // All cycles again: recovery after a later kill must not have touched what an earlier one left.
    let records = read(&store, 0);
    let ends = history.iter().skip(1).map(|cycle| cycle.first).chain([records.len() as u64]);
    for (cycle, end) in history.iter().zip(ends) {
        let range = usize::try_from(cycle.first).unwrap()..usize::try_from(end).unwrap();
        cycle.check(&records[range]);
    }
    assert_eq!(history[0].first, 0);
}

#[test]
fn kill_takes_nothing_that_a_synced_producer_acknowledged() {
    nothing_acknowledged_is_lost("sync", SEED);
}

#[test]
fn kill_takes_nothing_that_a_buffered_producer_acknowledged() {
    nothing_acknowledged_is_lost("buffered", SEED + 1);
}
