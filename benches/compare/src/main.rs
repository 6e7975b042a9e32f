//! logmill and its rivals on the same work, in turns, in one run: `just bench-compare`, or
//! `compare ROW.. [--rounds N] [--only NAME,..] [--json FILE]`, or `compare --growth WHAT`. docs/benchmarks.md says what the rows mean.

mod engine;
mod growth;
mod ours;
mod peers;
mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{Engine, Kind, Level, Peer};

/// What is done, and how much of it in one round.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Appends by that many threads, each alone.
    Append {
        batch: usize,
        threads: u64,
    },
    Scan {
        batch: usize,
    },
    Get,
    /// Receive and delete.
    Take,
    /// Send, receive and delete by that many threads, each message by itself.
    Cycle {
        threads: u64,
    },
}

struct Row {
    name: &'static str,
    kind: Kind,
    title: &'static str,
    work: Work,
    level: Level,
    bytes: usize,
    /// Records in a round.
    count: u64,
}

const ROWS: &[Row] = &[
    row(
        Kind::Log,
        "append",
        "Buffered append, one at a time, 100 B",
        Work::Append { batch: 1, threads: 1 },
        Level::Buffered,
        100,
        2_000_000,
    ),
    row(
        Kind::Log,
        "append_100",
        "Buffered append, batches of 100, 100 B",
        Work::Append { batch: 100, threads: 1 },
        Level::Buffered,
        100,
        4_000_000,
    ),
    row(
        Kind::Log,
        "append_1k",
        "Buffered append, batches of 100, 1 KiB",
        Work::Append { batch: 100, threads: 1 },
        Level::Buffered,
        1024,
        400_000,
    ),
    row(
        Kind::Log,
        "synced",
        "Synced append, 1 thread, 100 B",
        Work::Append { batch: 1, threads: 1 },
        Level::Synced,
        100,
        1_000_000,
    ),
    row(
        Kind::Log,
        "synced_16",
        "Synced append, 16 threads, 100 B",
        Work::Append { batch: 1, threads: 16 },
        Level::Synced,
        100,
        4_000_000,
    ),
    row(
        Kind::Log,
        "synced_64",
        "Synced append, 64 threads, 100 B",
        Work::Append { batch: 1, threads: 64 },
        Level::Synced,
        100,
        4_000_000,
    ),
    row(
        Kind::Log,
        "scan",
        "Scan, hot, appended one at a time, 100 B",
        Work::Scan { batch: 1 },
        Level::Buffered,
        100,
        1_000_000,
    ),
    row(
        Kind::Log,
        "scan_100",
        "Scan, hot, appended in batches of 100, 100 B",
        Work::Scan { batch: 100 },
        Level::Buffered,
        100,
        2_000_000,
    ),
    row(
        Kind::Log,
        "scan_1k",
        "Scan, hot, appended in batches of 100, 1 KiB",
        Work::Scan { batch: 100 },
        Level::Buffered,
        1024,
        300_000,
    ),
    row(
        Kind::Log,
        "get",
        "Random get, hot, appended in batches of 100, 100 B",
        Work::Get,
        Level::Buffered,
        100,
        1_000_000,
    ),
    row(
        Kind::Queue,
        "send",
        "Queue send, unsynced, one at a time, 100 B",
        Work::Append { batch: 1, threads: 1 },
        Level::Buffered,
        100,
        500_000,
    ),
    row(
        Kind::Queue,
        "take",
        "Queue receive and delete, unsynced, one at a time, 100 B",
        Work::Take,
        Level::Buffered,
        100,
        200_000,
    ),
    row(
        Kind::Queue,
        "cycle_64",
        "Queue, send, receive and delete, synced, 64 threads, one message a call, 100 B",
        Work::Cycle { threads: 64 },
        Level::Synced,
        100,
        640_000,
    ),
    row(
        Kind::Broker,
        "broker",
        "Beside brokers: publish, acknowledged, not synced, one at a time, 100 B",
        Work::Append { batch: 1, threads: 1 },
        Level::Buffered,
        100,
        2_000_000,
    ),
    row(
        Kind::Broker,
        "broker_synced",
        "Beside brokers: publish, synced, 1 thread, 100 B",
        Work::Append { batch: 1, threads: 1 },
        Level::Synced,
        100,
        1_000_000,
    ),
    row(
        Kind::Broker,
        "broker_synced_16",
        "Beside brokers: publish, synced, 16 threads, 100 B",
        Work::Append { batch: 1, threads: 16 },
        Level::Synced,
        100,
        4_000_000,
    ),
    row(
        Kind::Broker,
        "broker_take",
        "Beside brokers: receive one message and acknowledge it, not synced, 100 B",
        Work::Take,
        Level::Buffered,
        100,
        20_000,
    ),
];

const fn row(
    kind: Kind,
    name: &'static str,
    title: &'static str,
    work: Work,
    level: Level,
    bytes: usize,
    count: u64,
) -> Row {
    Row { name, kind, title, work, level, bytes, count }
}

/// One round of one engine.
#[derive(Clone, Copy)]
pub struct Sample {
    pub per_second: f64,
    pub p50_us: Option<f64>,
    pub p999_us: Option<f64>,
}

/// How long an engine has for a round; what it did until then counts.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Appends records `first..first + count`, and returns how many there was time for and the time of each synced call.
fn append(engine: &dyn Engine, row: &Row, batch: usize, first: u64, count: u64) -> (u64, Vec<f32>) {
    let mut owned = vec![vec![b'x'; row.bytes]; batch];
    let (mut done, mut times) = (0, Vec::new());
    let begin = Instant::now();
    while done < count {
        for (payload, index) in owned.iter_mut().zip(first + done..) {
            payload[..8].copy_from_slice(&index.to_le_bytes());
        }
        let called = (row.level == Level::Synced).then(Instant::now);
        if let [one] = &owned[..] {
            engine.append(&[one]);
        } else {
            let mut borrowed: [&[u8]; 100] = [&[]; 100];
            for (slot, payload) in borrowed.iter_mut().zip(&owned) {
                *slot = payload;
            }
            engine.append(&borrowed[..batch]);
        }
        times.extend(called.map(|called| called.elapsed().as_secs_f32() * 1e6));
        done += batch as u64;
        // The clock is not what is measured.
        let is_time_to_look = row.level == Level::Synced || done.is_multiple_of(256 * batch as u64);
        if is_time_to_look && begin.elapsed() > PATIENCE {
            break;
        }
    }
    engine.finish();
    (done, times)
}

/// The records that a round of reading needs, however long it takes to append them.
fn fill(engine: &dyn Engine, row: &Row, batch: usize) {
    let mut done = 0;
    while done < row.count {
        done += append(engine, row, batch, done, row.count - done).0;
    }
}

fn round(peer: &Peer, row: &Row, place: &Path) -> Option<Sample> {
    let path = place.join(format!(
        "{}-{}",
        peer.name.replace([' ', ':', '(', ')'], ""),
        std::process::id()
    ));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("directory");
    let sample = (peer.open)(&path, row.level).and_then(|engine| {
        // What the last engine has left to be written is not this one's burden.
        let _ = std::process::Command::new("sync").arg("-f").arg(&path).status();
        timed(peer.name, engine.as_ref(), row)
    });
    let _ = std::fs::remove_dir_all(&path);
    sample
}

fn timed(name: &str, engine: &dyn Engine, row: &Row) -> Option<Sample> {
    let rate = |done: u64, begin: Instant| Sample {
        per_second: done as f64 / begin.elapsed().as_secs_f64(),
        p50_us: None,
        p999_us: None,
    };
    match row.work {
        Work::Append { batch, threads } => {
            let begin = Instant::now();
            let results: Vec<(u64, Vec<f32>)> = std::thread::scope(|scope| {
                let share = row.count / threads;
                let spawn =
                    |thread| scope.spawn(move || append(engine, row, batch, thread << 40, share));
                let running: Vec<_> = (0..threads).map(spawn).collect();
                running.into_iter().map(|thread| thread.join().expect("a thread")).collect()
            });
            let mut sample = rate(results.iter().map(|(done, _)| done).sum(), begin);
            let mut times: Vec<f32> = results.into_iter().flat_map(|(_, times)| times).collect();
            times.sort_unstable_by(f32::total_cmp);
            let at =
                |part: f64| times.get((times.len() as f64 * part) as usize).map(|t| f64::from(*t));
            (sample.p50_us, sample.p999_us) = (at(0.5), at(0.999));
            Some(sample)
        }
        Work::Scan { batch } => {
            engine.can_scan().then_some(())?;
            fill(engine, row, batch);
            let begin = Instant::now();
            let bytes = engine.scan();
            let sample = rate(row.count, begin);
            let is_whole = bytes == row.count * row.bytes as u64;
            if !is_whole {
                eprintln!("{name} is left out: it read {bytes} bytes of what was appended");
            }
            is_whole.then_some(sample)
        }
        Work::Get => {
            engine.can_get().then_some(())?;
            fill(engine, row, 100);
            let (mut index, mut done) = (1u64, 0);
            let begin = Instant::now();
            while done < 500_000 && (done % 256 != 0 || begin.elapsed() < PATIENCE) {
                index = index
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                assert_eq!(engine.get((index >> 20) % row.count), row.bytes);
                done += 1;
            }
            Some(rate(done, begin))
        }
        Work::Cycle { threads } => {
            let begin = Instant::now();
            let cycle = |thread| {
                let (mut done, payload) = (0, vec![b'x'; row.bytes]);
                while done < row.count / threads && begin.elapsed() < PATIENCE {
                    engine.append(&[&payload]);
                    assert!(engine.take(), "thread {thread} has sent one");
                    done += 1;
                }
                done
            };
            let done = std::thread::scope(|scope| {
                let running: Vec<_> =
                    (0..threads).map(|thread| scope.spawn(move || cycle(thread))).collect();
                running.into_iter().map(|thread| thread.join().expect("a thread")).sum()
            });
            Some(rate(done, begin))
        }
        Work::Take => {
            fill(engine, row, 1);
            let begin = Instant::now();
            let mut done = 0;
            while done < row.count && (done % 256 != 0 || begin.elapsed() < PATIENCE) {
                assert!(engine.take(), "what was sent is received");
                done += 1;
            }
            Some(rate(done, begin))
        }
    }
}

fn main() {
    let (mut names, mut growths, mut rounds, mut only, mut json) =
        (Vec::new(), Vec::new(), 5, None::<String>, None::<PathBuf>);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value for the option");
        match argument.as_str() {
            "--rounds" => rounds = value().parse().expect("a number of rounds"),
            "--only" => only = Some(value()),
            "--json" => json = Some(value().into()),
            "--report" => return report::write(Path::new(&value())),
            "--growth" => growths.push(value()),
            name => names.push(name.to_owned()),
        }
    }
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/data");
    let place = std::env::var_os("LOGMILL_BENCH_DIR").map_or(place, PathBuf::from);
    std::fs::create_dir_all(&place).expect("the place of the data");
    growths.iter().for_each(|what| growth::run(&place, what));
    if !growths.is_empty() {
        return;
    }
    for row in
        ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name))
    {
        let rivals: Vec<&Peer> = ours::PEERS
            .iter()
            .chain(peers::PEERS)
            .filter(|peer| peer.kind == row.kind)
            .filter(|peer| {
                only.as_ref().is_none_or(|only| only.split(',').any(|name| name == peer.name))
            })
            .collect();
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); rivals.len()];
        for _ in 0..rounds {
            for (rival, samples) in rivals.iter().zip(&mut samples) {
                samples.extend(round(rival, row, &place));
            }
        }
        let results: Vec<report::Line> = rivals
            .iter()
            .zip(&samples)
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(rival, samples)| report::Line::new(rival, samples))
            .collect();
        report::print(row.title, &results);
        if let Some(json) = &json {
            report::keep(json, row.name, row.title, rounds, &results);
        }
    }
}
