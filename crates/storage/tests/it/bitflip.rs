//! Every flipped bit and every truncation of every file of a small store, judged by the whole engine: it opens the log
//! and reads all of it.
//!
//! What may come of it: the same records; a typed error; or, where no witness covers the bytes, fewer records and a report
//! that says so. Never another record, never a panic, never fewer records in silence.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::recovery::Verdict;
use logmill_storage::verify::verify;
use logmill_storage::{
    AppendOptions, Compression, DataDir, DataDirOptions, Durability, Error, Header, Log, LogConfig,
    ManualClock, Producer, Record, RecordBuf, RecordView, Result, Visibility,
};

use crate::format;

const NOW: i64 = 1_700_000_000_000;
const LOG: &str = "0";
const SEALED: &str = "0/00000000000000000000.log";

fn dir_on(disk: &SimDisk, read_only: bool) -> Result<DataDir> {
    let clock = Arc::new(ManualClock::at(NOW));
    DataDirOptions::new().threads(0).read_only(read_only).clock(clock).open_with(disk.io())
}

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(64 << 10)
}

/// A store to be damaged.
struct Golden {
    disk: SimDisk,
    records: Vec<RecordBuf>,
    /// The file that holds the log's end.
    tail: String,
    /// Records from here on lie in bytes that no witness covers.
    witnessed: u64,
}

/// Looks besides reading everything: what each producer last said, some single records, some moments.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    sequences: Vec<Option<(i16, i32)>>,
    singles: Vec<Option<RecordBuf>>,
    moments: Vec<Option<u64>>,
}

/// Where a file differs from the golden one.
#[derive(Clone, Copy, Debug)]
struct Damage<'a> {
    file: &'a str,
    position: u64,
    /// The file ends here; otherwise it has another byte here.
    cut: bool,
}

/// How damage was met, in the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    Harmless,
    RefusedByOpen,
    RefusedByRead,
    /// The log ends earlier, and the report says so.
    Shortened,
    /// The log ends earlier, and nothing is left of what nobody was promised.
    NeverWritten,
}

type Tally = BTreeMap<Met, u64>;

fn fill(log: &Log, rounds: i32) {
    let text = b"an event that repeats itself, as events do ".repeat(4);
    let headers = [Header { name: "trace", value: b"\x00\x01\x02" }];
    for n in 0..rounds {
        log.append(&Record::value(&text).key(&n.to_le_bytes())).unwrap();
        let record = Record::value(&text).headers(&headers).timestamp(NOW + i64::from(n) * 1_000);
        log.append_batch(&[record, Record::tombstone(b"gone"), record]).unwrap();
        let (epoch, sequence) =
            (log.last_sequence(i64::from(n % 3)).unwrap()).map_or((0, 0), |l| (l.0, l.1 + 1));
        let producer = Some(Producer { id: i64::from(n % 3), epoch, sequence });
        let options = AppendOptions { producer, ..AppendOptions::default() };
        log.append_with(&[Record::value(b"once")], &options).unwrap();
    }
}

/// One full, sealed segment of lone records, batches, compressed batches and producers; and a tail of eight synced records
/// beyond what the manifest knows to be durable.
fn log_with_a_tail() -> (SimDisk, Log) {
    let disk = SimDisk::new(7);
    let log =
        Log::open(&dir_on(&disk, false).unwrap(), LOG, config().compression(Compression::Lz4))
            .unwrap();
    fill(&log, 12);
    log.close().unwrap();
    let log = Log::open(&dir_on(&disk, false).unwrap(), LOG, config()).unwrap();
    fill(&log, 64);
    while log.stats().unwrap().segments < 2 {
        log.append(&Record::value(&[b'.'; 600])).unwrap();
    }
    log.settle().unwrap();
    for n in 0..8 {
        log.append(&Record::value(&[b'0' + n; 40]).key(b"tail")).unwrap();
    }
    (disk, log)
}

/// Tells `each` about everything that is stored, up to the first error.
fn read_all(log: &Log, mut each: impl FnMut(&RecordView<'_>)) -> Option<Error> {
    let read = log.reader_with(0, Visibility::Stored).and_then(|mut reader| {
        reader.for_each(|record| {
            each(&record);
            Ok(())
        })
    });
    read.err()
}

fn is_same(found: &RecordView<'_>, expected: &RecordBuf) -> bool {
    found.offset == expected.offset
        && found.timestamp == expected.timestamp
        && found.key == expected.key.as_deref()
        && found.value == expected.value.as_deref()
        && found.headers.len() == expected.headers.len()
        && found.headers.zip(&expected.headers).all(|(f, e)| f.name == e.0 && f.value == e.1)
}

impl Looks {
    fn at(disk: &SimDisk, golden: &Golden) -> Looks {
        let log = Log::open(&dir_on(disk, false).unwrap(), LOG, config()).unwrap();
        let next = log.append(&Record::value(b"goes on")).unwrap();
        assert_eq!(next, golden.records.len() as u64);
        Looks {
            sequences: (0..4).map(|id| log.last_sequence(id).unwrap()).collect(),
            singles: (0..next).step_by(23).map(|offset| log.get(offset).unwrap()).collect(),
            moments: (-1..70).map(|s| log.offset_for_timestamp(NOW + s * 1_000).unwrap()).collect(),
        }
    }
}

fn refused(met: &Tally) -> u64 {
    [Met::RefusedByOpen, Met::RefusedByRead].iter().filter_map(|how| met.get(how)).sum()
}

#[expect(clippy::print_stdout, reason = "the counts are wanted, not only the verdict")]
fn report(what: &str, met: &Tally) {
    println!("{what}: {met:?}");
}

impl Golden {
    fn new(disk: SimDisk, log: &Log, witnessed: u64) -> Golden {
        let mut records = Vec::new();
        let error = read_all(log, |record| records.push(RecordBuf::from(*record)));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(records.len() as u64, log.end_offset());
        let tail = disk.paths().into_iter().rfind(|path| path.ends_with(".log")).unwrap();
        Golden { disk, records, tail, witnessed }
    }

    /// Closed: the manifest says where the log ends.
    fn closed() -> Golden {
        let (disk, log) = log_with_a_tail();
        log.clone().close().unwrap();
        let end = log.end_offset();
        Golden::new(disk, &log, end)
    }

    /// Killed: the live page says what was acknowledged.
    fn killed() -> Golden {
        let (disk, log) = log_with_a_tail();
        let golden = Golden::new(disk, &log, log.end_offset());
        golden.disk.kill();
        golden
    }

    /// Power lost, and with it the live page: only the frames themselves say what was durable before them. The last three
    /// records were never synced; the first of them is the witness of all before.
    fn without_power() -> Golden {
        let (disk, log) = log_with_a_tail();
        let synced = log.end_offset();
        let durability = Some(Durability::Buffered);
        for value in [b"first", b"other", b"third"] {
            let options = AppendOptions { durability, ..AppendOptions::default() };
            log.append_with(&[Record::value(value)], &options).unwrap();
        }
        let golden = Golden::new(disk, &log, synced);
        golden.disk.crash(&CrashPlan::everything());
        golden.disk.remove_file("0/live").unwrap();
        golden
    }

    /// Opens a damaged copy and reads all of it; panics if it is not as it must be.
    fn meet(&self, disk: &SimDisk, damage: Option<&Damage<'_>>, read_only: bool) -> Met {
        let what = (damage, read_only);
        let log = match Log::open(&dir_on(disk, read_only).unwrap(), LOG, config()) {
            Ok(log) => log,
            Err(Error::Corrupt { .. }) => return Met::RefusedByOpen,
            Err(e) => panic!("{what:?}: {e:?}"),
        };
        let mut found = 0;
        let error = read_all(&log, |record| {
            let is_same = self.records.get(found).is_some_and(|expected| is_same(record, expected));
            assert!(is_same, "{what:?}: {record:?} never was");
            found += 1;
        });
        match error {
            Some(Error::Corrupt { offset, .. }) => {
                assert!(offset <= found as u64, "{what:?}: offsets were skipped");
                Met::RefusedByRead
            }
            Some(e) => panic!("{what:?}: {e:?}"),
            None if found == self.records.len() => Met::Harmless,
            None => {
                let Some(Damage { file, position, cut }) = damage else { panic!("fewer records") };
                assert_eq!(*file, self.tail, "{what:?}");
                assert_eq!(
                    found as u64,
                    self.end_before(*position),
                    "{what:?}: not all that is whole"
                );
                // A cut takes witnesses away, too.
                assert!(*cut || found as u64 >= self.witnessed, "{what:?}: witnessed records lost");
                match log.recovery().verdict {
                    Verdict::Ambiguous | Verdict::Cut => Met::Shortened,
                    // A file that was cut between two frames is as one in which the second was never written.
                    Verdict::Clean if *cut => Met::NeverWritten,
                    other => panic!("{what:?}: opened though {other:?}"),
                }
            }
        }
    }

    /// Damages copies of the store in `count` ways, on all processors, and says how often it was met how.
    fn damage(&self, count: u64, meet: impl Fn(u64) -> Met + Sync) -> Tally {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicU64::new(0);
        let tally = Mutex::new(Tally::new());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut own = Tally::new();
                    loop {
                        let from = next.fetch_add(256, Ordering::Relaxed);
                        if from >= count {
                            break;
                        }
                        for n in from..count.min(from + 256) {
                            *own.entry(meet(n)).or_default() += 1;
                        }
                    }
                    let mut tally = tally.lock().unwrap();
                    own.into_iter()
                        .for_each(|(met, times)| *tally.entry(met).or_default() += times);
                });
            }
        });
        tally.into_inner().unwrap()
    }

    /// Flips every `step`-th bit of a file.
    fn flip_bits(&self, file: &str, step: u64, read_only: bool) -> Tally {
        let bits = self.disk.read_file(file).unwrap().len() as u64 * 8;
        self.damage(bits.div_ceil(step), |n| self.flip(file, n * step, read_only))
    }

    /// Flips every bit of the tail's frames and of 512 bytes behind them, and few of the rest of the reservation.
    fn flip_the_tail(&self, read_only: bool) -> Tally {
        let (data_end, len) = self.data_end(&self.tail);
        let bits = densely((data_end + 512) * 8, len * 8, 1021);
        self.damage(bits.len() as u64, |n| self.flip(&self.tail, bits[n as usize], read_only))
    }

    /// Cuts the tail at every length to 512 bytes behind its frames, and at few beyond.
    fn cut_the_tail(&self, read_only: bool) -> Tally {
        let (data_end, len) = self.data_end(&self.tail);
        let lengths = densely(len.min(data_end + 512), len, 127);
        self.damage(lengths.len() as u64, |n| self.cut(&self.tail, lengths[n as usize], read_only))
    }

    fn cut(&self, file: &str, len: u64, read_only: bool) -> Met {
        let disk = self.disk.fork(len);
        let bytes = disk.read_file(file).unwrap();
        disk.write_file(file, &bytes[..len as usize]).unwrap();
        self.meet(&disk, Some(&Damage { file, position: len, cut: true }), read_only)
    }

    fn flip(&self, file: &str, bit: u64, read_only: bool) -> Met {
        let disk = self.disk.fork(bit);
        disk.flip_bit(file, bit).unwrap();
        self.meet(&disk, Some(&Damage { file, position: bit / 8, cut: false }), read_only)
    }

    /// Where the frames of a segment end, and the file.
    fn data_end(&self, file: &str) -> (u64, u64) {
        let bytes = self.disk.read_file(file).unwrap();
        (format::data_end(&bytes) as u64, bytes.len() as u64)
    }

    /// One past the last record of the tail's frames that end at or before `position`.
    fn end_before(&self, position: u64) -> u64 {
        let bytes = self.disk.read_file(&self.tail).unwrap();
        let base = self.tail.rsplit('/').next().and_then(|name| name[..20].parse::<u64>().ok());
        let whole = format::frames(&bytes).filter(|frame| frame.end as u64 <= position).count();
        // Each frame of the tail holds one record.
        base.unwrap() + whole as u64
    }

    fn looks(&self) -> Looks {
        Looks::at(&self.disk.fork(0), self)
    }

    fn cut_at_every_length(&self, file: &str, read_only: bool) -> Tally {
        let (_, len) = self.data_end(file);
        self.damage(len, |len| self.cut(file, len, read_only))
    }
}

/// All numbers below `dense`, and every `step`-th from there to `end`.
fn densely(dense: u64, end: u64, step: usize) -> Vec<u64> {
    (0..dense).chain((dense..end).step_by(step)).collect()
}

#[test]
fn an_undamaged_store_is_read_in_full() {
    for golden in [Golden::closed(), Golden::killed(), Golden::without_power()] {
        for read_only in [true, false] {
            let disk = golden.disk.fork(0);
            assert_eq!(golden.meet(&disk, None, read_only), Met::Harmless);
        }
    }
}

const EVERY: u64 = 1;

#[test]
fn every_bit_of_a_sealed_segment() {
    let golden = Golden::closed();
    let (data_end, len) = golden.data_end(SEALED);
    assert!(data_end > 60 << 10);
    let met = golden.flip_bits(SEALED, EVERY, false);
    // Frames say where they end, so padding and footer are not needed to read them.
    assert_eq!(met.get(&Met::Harmless), Some(&((len - data_end) * 8)));
    assert_eq!(refused(&met), data_end * 8);
    report("sealed segment, every bit", &met);
}

#[test]
fn one_bit_in_sixteen_of_a_sealed_segment_seen_by_a_follower_and_after_a_crash() {
    for (golden, read_only) in
        [(Golden::closed(), true), (Golden::killed(), false), (Golden::without_power(), true)]
    {
        let (data_end, len) = golden.data_end(SEALED);
        let met = golden.flip_bits(SEALED, 17, read_only);
        assert_eq!(refused(&met) + met[&Met::Harmless], (len * 8).div_ceil(17));
        assert_eq!(refused(&met), (data_end * 8).div_ceil(17));
    }
}

#[test]
fn every_truncation_of_a_sealed_segment() {
    for read_only in [false, true] {
        let golden = Golden::closed();
        let (data_end, len) = golden.data_end(SEALED);
        let met = golden.cut_at_every_length(SEALED, read_only);
        assert_eq!(met.get(&Met::Harmless), Some(&(len - data_end)));
        assert_eq!(refused(&met), data_end);
        report("sealed segment, every length", &met);
    }
}

#[test]
fn every_bit_and_every_truncation_of_what_can_be_had_anew() {
    let golden = Golden::closed();
    let looks = golden.looks();
    let files = golden.disk.paths();
    let derived = files.iter().filter(|file| {
        [".index", ".time", ".producers", "live", "LOCK", "ALIVE"]
            .iter()
            .any(|end| file.ends_with(end))
    });
    let mut count = 0;
    for file in derived {
        let bytes = golden.disk.read_file(file).unwrap();
        let bits = bytes.len() as u64 * 8;
        let met = golden.damage(bits + bytes.len() as u64, |n| {
            let disk = golden.disk.fork(n);
            match n.checked_sub(bits) {
                None => disk.flip_bit(file, n).unwrap(),
                Some(len) => disk.write_file(file, &bytes[..len as usize]).unwrap(),
            }
            let met = golden.meet(&disk.fork(n), None, n % 2 == 0);
            assert_eq!(met, Met::Harmless, "{file} {n}");
            assert_eq!(Looks::at(&disk, &golden), looks, "{file} {n}");
            met
        });
        assert_eq!(met.values().sum::<u64>(), bits + bytes.len() as u64);
        count += 1;
    }
    assert_eq!(count, 6, "{files:?}");
}

#[test]
fn every_bit_and_every_truncation_of_the_manifest() {
    let closed = Golden::closed();
    for (golden, steps) in
        [(&closed, [EVERY, 7]), (&Golden::killed(), [5, 7]), (&Golden::without_power(), [7, 5])]
    {
        for (read_only, step) in [false, true].into_iter().zip(steps) {
            let met = golden.flip_bits("0/manifest", step, read_only);
            // The other slot serves, unless this one says that it is of a newer version.
            assert!(met[&Met::Harmless] > 9 * refused(&met), "{met:?}");
            let cut = golden.cut_at_every_length("0/manifest", read_only);
            assert_eq!(refused(&cut), 8192);
        }
    }
}

#[test]
fn every_bit_and_every_truncation_of_the_tail_of_a_closed_log() {
    let golden = Golden::closed();
    let (data_end, len) = golden.data_end(&golden.tail);
    assert_eq!(data_end, len);
    for read_only in [false, true] {
        assert_eq!(refused(&golden.flip_bits(&golden.tail, EVERY, read_only)), len * 8);
        assert_eq!(refused(&golden.cut_the_tail(read_only)), len);
    }
}

#[test]
fn the_tail_of_a_killed_writer_is_witnessed_by_its_live_page() {
    let golden = Golden::killed();
    for read_only in [false, true] {
        let (data_end, _) = golden.data_end(&golden.tail);
        let met = golden.flip_the_tail(read_only);
        assert_eq!(refused(&met), data_end * 8, "{met:?}");
        assert!(!met.contains_key(&Met::Shortened), "{met:?}");
        let met = golden.cut_the_tail(read_only);
        assert_eq!(refused(&met), data_end, "{met:?}");
        let live = golden.flip_bits("0/live", EVERY, read_only);
        assert_eq!(live.get(&Met::Harmless), Some(&512), "the frames are there without it");
    }
}

#[test]
fn without_a_live_page_only_what_was_never_witnessed_may_be_cut_off() {
    let golden = Golden::without_power();
    for read_only in [false, true] {
        let met = golden.flip_the_tail(read_only);
        assert!(met[&Met::Shortened] > 0, "{met:?}");
        assert!(!met.contains_key(&Met::NeverWritten), "{met:?}");
        assert!(refused(&met) > met[&Met::Shortened], "{met:?}");
        report("tail without a live page", &met);
        let met = golden.cut_the_tail(read_only);
        assert_eq!(met[&Met::NeverWritten], 8 + 3, "one cut in front of each frame: {met:?}");
        report("tail without a live page, every length", &met);
    }
}

#[test]
fn verify_finds_flipped_bits_in_every_file_also_where_reading_does_not_need_them() {
    let golden = Golden::closed();
    let worst = |disk: &SimDisk| verify(&dir_on(disk, true).unwrap(), &mut |_| {}).unwrap().worst;
    assert_eq!(worst(&golden.disk), None);
    let (data_end, len) = golden.data_end(SEALED);
    for file in golden.disk.paths().iter().filter(|file| file.starts_with("0/")) {
        let bits = golden.disk.read_file(file).unwrap().len() as u64 * 8;
        let bits: Vec<u64> = match file.as_str() {
            SEALED => {
                densely(1, data_end * 8, 97).into_iter().chain(data_end * 8..len * 8).collect()
            }
            _ => densely(bits.min(1_000), bits, 13),
        };
        golden.damage(bits.len() as u64, |n| {
            let disk = golden.disk.fork(n);
            disk.flip_bit(file, bits[n as usize]).unwrap();
            assert!(worst(&disk).is_some(), "bit {} of {file}", bits[n as usize]);
            Met::Harmless
        });
    }
}
