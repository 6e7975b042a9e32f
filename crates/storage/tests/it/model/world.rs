//! A log on the simulated disk and beside it what it must hold: a map that forgets nothing by itself.
//!
//! The model knows no file, no frame and no sync. It says what was appended and acknowledged, and after each operation the
//! log must show exactly that; after a loss of power, a prefix of it that has everything that was acknowledged as durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::verify::{Finding, Problem, Severity, verify};
use logmill_storage::{
    AppendOptions, Clock, CompactionConfig, Compression, DataDir, DataDirOptions, Durability,
    Error, Log, LogConfig, ManualClock, Record, RecordBuf, Retention, Visibility, WritePath,
};

const NAME: &str = "3/1";
const START_MS: i64 = 1_700_000_000_000;
const TOMBSTONES: Duration = Duration::from_secs(60);

/// One record of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    pub key: Option<u8>,
    /// Length of the value; `None` is a tombstone.
    pub value: Option<u16>,
    /// Seconds from now to its timestamp; `None`: the log gives it.
    pub shift: Option<i8>,
}

/// What can happen to a log.
#[derive(Clone, Debug)]
pub enum Op {
    Append(Durability, Vec<Item>),
    /// Appends without waiting, and syncs then.
    Submit(Vec<Item>),
    Sync,
    Roll,
    Settle,
    /// Lets seconds pass, and the background work.
    Tick(u8),
    Retain,
    /// Removes records below the point at so many 256ths of the log.
    DeleteBefore(u8),
    Compact,
    /// Single records, moments, and the log as another process sees it.
    Look(u8),
    Reopen,
    /// kill -9.
    Kill,
    /// Loss of power.
    Crash(u64),
}

/// How the log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    pub durability: Durability,
    pub write_path: WritePath,
    pub compression: Compression,
    pub segment_bytes: u64,
    pub retention: Retention,
}

/// What has happened, so that a test that tests nothing is seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub appended: u64,
    pub crashes: u64,
    /// Records that a loss of power took, none of them acknowledged as durable.
    pub lost: u64,
    pub compacted: u64,
    pub tombstones_removed: u64,
    pub retained: u64,
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            appended: self.appended + other.appended,
            crashes: self.crashes + other.crashes,
            lost: self.lost + other.lost,
            compacted: self.compacted + other.compacted,
            tombstones_removed: self.tombstones_removed + other.tombstones_removed,
            retained: self.retained + other.retained,
        }
    }
}

struct World {
    setup: Setup,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    open: Option<(DataDir, Log)>,
    records: BTreeMap<u64, RecordBuf>,
    start: u64,
    end: u64,
    /// Everything below was acknowledged as durable.
    durable: u64,
    /// Ends of batches: the only places where a log may end.
    ends: BTreeSet<u64>,
    /// When each tombstone was first met by a compaction, ms.
    met: BTreeMap<u64, i64>,
    epoch: u32,
    counts: Counts,
}

/// Runs a history; panics where the log is not as the model says.
pub fn run(setup: Setup, ops: &[Op]) -> Counts {
    let mut world = World::new(setup);
    for op in ops {
        world.apply(op);
        world.check();
    }
    world.apply(&Op::Reopen);
    world.check();
    world.open = None;
    let dir = world.options().read_only(true).open_with(world.disk.io()).unwrap();
    let report = verify(&dir, &mut |_| {}).unwrap();
    let is_fine = |finding: &Finding| {
        // What a crash had left half written was set aside.
        finding.severity <= Severity::Note || matches!(finding.problem, Problem::Quarantined { .. })
    };
    assert!(report.findings.iter().all(is_fine), "{:?}", report.findings);
    world.counts
}

impl World {
    fn new(setup: Setup) -> World {
        let mut world = World {
            setup,
            disk: SimDisk::new(setup.seed),
            clock: Arc::new(ManualClock::at(START_MS)),
            open: None,
            records: BTreeMap::new(),
            start: 0,
            end: 0,
            durable: 0,
            ends: BTreeSet::from([0]),
            met: BTreeMap::new(),
            epoch: 0,
            counts: Counts::default(),
        };
        world.reopen();
        world
    }

    fn options(&self) -> DataDirOptions {
        DataDirOptions::new().threads(0).clock(Arc::<ManualClock>::clone(&self.clock))
    }

    fn config(&self) -> LogConfig {
        let compaction =
            CompactionConfig { tombstone_retention: TOMBSTONES, ..CompactionConfig::default() };
        LogConfig::default()
            .durability(self.setup.durability)
            .write_path(self.setup.write_path)
            .compression(self.setup.compression)
            .segment_bytes_max(self.setup.segment_bytes)
            .frame_bytes(700)
            .retention(self.setup.retention)
            .compaction(compaction)
    }

    fn log(&self) -> Log {
        self.open.as_ref().expect("an open log").1.clone()
    }

    fn reopen(&mut self) {
        let dir = self.options().open_with(self.disk.io()).unwrap();
        let log = Log::open(&dir, NAME, self.config()).unwrap();
        assert_eq!(log.durable_offset(), log.end_offset(), "what an open found is durable");
        self.durable = log.end_offset();
        self.open = Some((dir, log));
    }

    fn apply(&mut self, op: &Op) {
        let log = self.log();
        match op {
            Op::Append(durability, items) => self.append(items, *durability),
            Op::Submit(items) => self.submit(items),
            Op::Sync => {
                assert_eq!(log.sync().unwrap(), self.end);
                self.durable = self.end;
            }
            Op::Roll => log.roll().unwrap(),
            Op::Settle => {
                log.settle().unwrap();
                self.durable = self.end;
            }
            Op::Tick(seconds) => {
                self.clock.advance(Duration::from_secs(u64::from(*seconds)));
                let bases = self.bases();
                self.open.as_ref().expect("an open log").0.tick();
                self.follow_retention(&bases);
            }
            Op::Retain => {
                log.settle().unwrap();
                self.durable = self.end;
                let bases = self.bases();
                log.apply_retention().unwrap();
                self.follow_retention(&bases);
                self.check_retention(&bases);
            }
            Op::DeleteBefore(part) => {
                let before = self.start + (self.end - self.start) * u64::from(*part) / 255;
                assert_eq!(log.delete_records_before(before).unwrap(), before);
                self.remove_before(before);
            }
            Op::Compact => self.compact(),
            Op::Look(part) => self.look(*part),
            Op::Reopen => {
                let (dir, own) = self.open.take().expect("an open log");
                drop(log);
                own.close().unwrap();
                drop(dir);
                self.reopen();
                let (_, log) = self.open.as_ref().expect("an open log");
                assert!(log.recovery().clean, "{:?}", log.recovery());
            }
            Op::Kill => {
                self.disk.kill();
                drop((log, self.open.take()));
                self.reopen();
            }
            Op::Crash(seed) => {
                let promised = self.durable.max(log.durable_offset());
                self.disk.crash(&CrashPlan::random(*seed));
                drop((log, self.open.take()));
                self.reopen();
                self.accept_loss(promised);
            }
        }
    }

    fn now(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// The records that `items` become when they are appended now.
    fn made_of(&self, items: &[Item]) -> Vec<RecordBuf> {
        let record = |(offset, item): (u64, &Item)| {
            // Nothing deletes what has no name.
            let len = item.value.or(item.key.is_none().then_some(0));
            RecordBuf {
                offset,
                timestamp: self.now() + item.shift.map_or(0, |seconds| i64::from(seconds) * 1000),
                key: item.key.map(|key| vec![b'k', key].into()),
                value: len.map(|len| value(offset, len).into()),
                headers: Vec::new(),
            }
        };
        (self.end..).zip(items).map(record).collect()
    }

    fn append(&mut self, items: &[Item], durability: Durability) {
        let made = self.made_of(items);
        let options = AppendOptions { durability: Some(durability), ..AppendOptions::default() };
        let appended = self.log().append_with(&as_records(&made, items), &options).unwrap();
        assert_eq!(appended.base_offset, self.end);
        self.note(made);
        assert_eq!(appended.last_offset, self.end - 1);
        if durability == Durability::Sync {
            self.durable = self.end;
        }
    }

    fn submit(&mut self, items: &[Item]) {
        let made = self.made_of(items);
        let options =
            AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
        let log = self.log();
        let tickets: Vec<_> = as_records(&made, items)
            .iter()
            .map(|record| log.submit(std::slice::from_ref(record), &options).unwrap())
            .collect();
        for (record, ticket) in made.into_iter().zip(tickets) {
            assert_eq!(ticket.wait().unwrap().base_offset, record.offset);
            self.note(vec![record]);
        }
        self.durable = self.end;
    }

    /// A batch was appended.
    fn note(&mut self, made: Vec<RecordBuf>) {
        self.counts.appended += made.len() as u64;
        self.end += made.len() as u64;
        self.records.extend(made.into_iter().map(|record| (record.offset, record)));
        self.ends.insert(self.end);
    }

    /// Base offsets of the segments that are there.
    fn bases(&self) -> Vec<u64> {
        self.segments().iter().map(|(base, _)| *base).collect()
    }

    fn segments(&self) -> Vec<(u64, String)> {
        let base =
            |path: &String| path.strip_prefix("3/1/")?.strip_suffix(".log")?.parse::<u64>().ok();
        self.disk.paths().into_iter().filter_map(|path| Some((base(&path)?, path))).collect()
    }

    fn remove_before(&mut self, start: u64) {
        self.records = self.records.split_off(&start);
        self.start = start;
    }

    /// Whole segments may have gone, and the last one not.
    fn follow_retention(&mut self, bases: &[u64]) {
        let start = self.log().start_offset();
        if start == self.start {
            return;
        }
        let is_end_of_segment = bases.contains(&start) || start == self.end;
        assert!(start > self.start && is_end_of_segment, "{start} of {bases:?}");
        let Retention { age, records, .. } = self.setup.retention;
        let now = self.now();
        let is_old = |record: &RecordBuf| {
            age.is_some_and(|age| now - record.timestamp > age.as_millis() as i64)
        };
        let is_too_much = records.is_some_and(|records| self.end - start >= records);
        assert!(is_too_much || self.records.range(..start).all(|(_, record)| is_old(record)));
        self.counts.retained += 1;
        self.remove_before(start);
    }

    /// A limit of records is kept as well as whole segments can.
    fn check_retention(&self, bases: &[u64]) {
        if let Retention { age: None, bytes: None, records: Some(records) } = self.setup.retention {
            let least = bases.iter().rfind(|base| self.end - **base >= records);
            assert_eq!(self.start, self.start.max(least.copied().unwrap_or(0)));
        }
    }

    fn compact(&mut self) {
        let log = self.log();
        log.settle().unwrap();
        self.durable = self.end;
        let sealed_end = self.segments().last().map_or(0, |(base, path)| {
            let bytes = self.disk.read_file(path).unwrap();
            let is_sealed = bytes[bytes.len() - 128..].starts_with(b"LOGMILLF");
            if is_sealed { self.end } else { *base }
        });
        let report = log.compact().unwrap();
        let now = self.now();
        let latest: BTreeMap<_, _> = self
            .records
            .range(..sealed_end)
            .filter_map(|(offset, record)| Some((record.key.clone()?, *offset)))
            .collect();
        let before = self.records.len();
        self.records.retain(|offset, record| {
            *offset >= sealed_end || record.key.as_ref().is_none_or(|key| latest[key] == *offset)
        });
        // A tombstone may go once its time is over, and it need not.
        let found: BTreeSet<u64> = read(&log).iter().map(|record| record.offset).collect();
        let (met, counts) = (&mut self.met, &mut self.counts);
        self.records.retain(|offset, record| {
            if *offset >= sealed_end || record.value.is_some() || found.contains(offset) {
                return true;
            }
            let since = met.get(offset).copied();
            let is_over = since.is_some_and(|since| now >= since + TOMBSTONES.as_millis() as i64);
            assert!(is_over, "tombstone {offset} went too soon: {report:?}");
            counts.tombstones_removed += 1;
            false
        });
        for (offset, record) in self.records.range(..sealed_end) {
            if record.value.is_none() {
                met.entry(*offset).or_insert(now);
            }
        }
        counts.compacted += (before - self.records.len()) as u64;
    }

    /// What power took is the end of the log, in whole batches, and nothing of what was promised.
    fn accept_loss(&mut self, promised: u64) {
        let end = self.log().end_offset();
        assert!((promised..=self.end).contains(&end), "{end}: {promised}..={}", self.end);
        assert!(self.ends.contains(&end), "a batch is all or nothing: {end}");
        if end < self.end {
            assert!(self.log().epoch() > self.epoch, "offsets are given again in the same epoch");
        }
        self.counts.crashes += 1;
        self.counts.lost += self.end - end;
        self.records.split_off(&end);
        self.ends.split_off(&(end + 1));
        self.end = end;
    }

    fn look(&self, part: u8) {
        let log = self.log();
        let seen = log.high_watermark();
        let offset = self.start + (self.end - self.start) * u64::from(part) / 256;
        match log.get(offset) {
            Ok(record) => assert_eq!(record.as_ref(), self.records.get(&offset)),
            Err(Error::OffsetOutOfRange { .. }) => assert!(offset >= seen),
            Err(e) => panic!("{e}"),
        }
        let ms = START_MS + (self.now() - START_MS) * i64::from(part) / 128;
        let first = self.records.range(..seen).find(|(_, r)| r.timestamp >= ms).map(|(o, _)| *o);
        assert_eq!(log.offset_for_timestamp(ms).unwrap(), first);
        let dir = self.options().read_only(true).open_with(self.disk.io()).unwrap();
        let other = Log::open(&dir, NAME, self.config()).unwrap();
        let found = read(&other);
        let expected: Vec<_> = self.records.values().take(found.len()).cloned().collect();
        assert_eq!(found, expected, "another process sees something else");
        assert!(self.records.values().nth(found.len()).is_none_or(|r| r.offset >= self.durable));
    }

    /// The log shows what the model says.
    fn check(&mut self) {
        let log = self.log();
        assert_eq!((log.start_offset(), log.end_offset()), (self.start, self.end));
        assert!((self.durable..=self.end).contains(&log.durable_offset()));
        assert!(log.epoch() >= self.epoch);
        self.epoch = log.epoch();
        let found = read(&log);
        assert!(found.iter().eq(self.records.values()), "{found:?}\nis not\n{:?}", self.records);
    }
}

/// Everything that is stored.
fn read(log: &Log) -> Vec<RecordBuf> {
    let mut records = Vec::new();
    let mut reader = log.reader_with(log.start_offset(), Visibility::Stored).unwrap();
    reader
        .for_each(|record| {
            records.push(RecordBuf::from(record));
            Ok::<_, Error>(())
        })
        .unwrap();
    records
}

/// What to append, so that it becomes `made`.
fn as_records<'a>(made: &'a [RecordBuf], items: &[Item]) -> Vec<Record<'a>> {
    let record = |(made, item): (&'a RecordBuf, &Item)| {
        let record = match (&made.value, &made.key) {
            (Some(value), _) => Record::value(value),
            (None, Some(key)) => Record::tombstone(key),
            (None, None) => unreachable!("made with a value"),
        };
        let record = made.key.iter().fold(record, |record, key| record.key(key));
        item.shift.iter().fold(record, |record, _| record.timestamp(made.timestamp))
    };
    made.iter().zip(items).map(record).collect()
}

/// Bytes that no other offset has.
fn value(offset: u64, len: u16) -> Vec<u8> {
    offset.to_le_bytes().into_iter().cycle().take(usize::from(len)).collect()
}
