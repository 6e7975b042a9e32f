//! Compaction by key: what stays, what goes, and what nobody may notice of it.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, Fault, Op};
use logmill_storage::verify::Severity;
use logmill_storage::{
    AppendOptions, CompactionConfig, CompactionReport, Compression, Error, Header, Log, LogConfig,
    Producer, Record, RecordBuf,
};

use crate::support::{Bench, Numbers, records};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(4 << 10)
}

fn compacting(compaction: CompactionConfig) -> LogConfig {
    config().compaction(compaction)
}

fn put(log: &Log, key: &str, value: &str) -> u64 {
    log.append(&Record::value(value.as_bytes()).key(key.as_bytes())).unwrap()
}

/// Ends the active segment, so that all there is can be compacted.
fn seal(log: &Log) {
    log.roll().unwrap();
    log.settle().unwrap();
}

/// Of all keyed records the latest, and all others.
fn latest(all: &[RecordBuf]) -> Vec<RecordBuf> {
    let last: BTreeMap<_, _> =
        all.iter().filter_map(|r| Some((r.key.clone()?, r.offset))).collect();
    all.iter().filter(|r| r.key.as_ref().is_none_or(|key| last[key] == r.offset)).cloned().collect()
}

fn strings(records: &[RecordBuf]) -> Vec<(u64, String)> {
    let text = |r: &RecordBuf| {
        let part =
            |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or(b"-").to_vec()).unwrap();
        (r.offset, format!("{}={}", part(r.key.as_deref()), part(r.value.as_deref())))
    };
    records.iter().map(text).collect()
}

fn sound(bench: &Bench) {
    let report = bench.verify();
    assert!(report.worst <= Some(Severity::Note), "{:?}", report.findings);
}

#[test]
fn of_each_key_the_latest_value_stays_at_its_offset_and_all_else_is_a_gap() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let headers = [Header { name: "h", value: b"1" }, Header { name: "h", value: b"2" }];
    for n in 0..400u32 {
        let (key, value) = (format!("key {}", n * 7 % 50), format!("value {n}"));
        let record = Record::value(value.as_bytes()).key(key.as_bytes()).timestamp(i64::from(n));
        log.append(&record.headers(&headers[..n as usize % 3])).unwrap();
    }
    seal(&log);
    let before = records(&log);
    let report = log.compact().unwrap();
    let after = records(&log);
    assert_eq!(after, latest(&before));
    assert_eq!(after.len(), 50);
    assert_eq!(report.records_removed, 350);
    assert!(report.bytes_after * 2 < report.bytes_before, "{report:?}");
    assert_eq!((log.start_offset(), log.end_offset(), log.high_watermark()), (0, 400, 400));
    for record in &before {
        let got = log.get(record.offset).unwrap();
        assert_eq!(got, after.iter().find(|r| r.offset == record.offset).cloned());
    }
    // Looking up by time finds what is left.
    for ms in [0, 100, 349, 350, 399] {
        let expected = after.iter().find(|r| r.timestamp >= ms).map(|r| r.offset);
        assert_eq!(log.offset_for_timestamp(ms).unwrap(), expected, "{ms}");
    }
    assert_eq!(log.offset_for_timestamp(400).unwrap(), None);
    assert_eq!(put(&log, "key 1", "new"), 400);
    log.close().unwrap();
    drop(dir);
    sound(&bench);
    let log = Log::open(&bench.dir(), "1/0", config()).unwrap();
    assert!(log.recovery().clean, "{:?}", log.recovery());
    assert_eq!(records(&log)[..50], after);
    assert_eq!(records(&log).len(), 51);
}

#[test]
fn a_second_run_with_nothing_to_do_writes_nothing_and_says_so() {
    let bench = Bench::new(2);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    for n in 0..300 {
        put(&log, &format!("k{}", n % 40), &n.to_string());
    }
    seal(&log);
    assert!(!log.compact().unwrap().is_idle());
    let before = bench.disk.ops();
    assert!(log.compact().unwrap().is_idle());
    let after = bench.disk.ops();
    assert_eq!(after.of(Op::Read), before.of(Op::Read), "it need not even look");
    // Another process has to look, and finds the same.
    log.close().unwrap();
    drop(dir);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let before = bench.disk.ops();
    let report = log.compact().unwrap();
    assert!(report.is_idle() && report.passes > 0, "{report:?}");
    let after = bench.disk.ops();
    for op in [Op::Write, Op::Create, Op::Rename, Op::Unlink, Op::Sync] {
        assert_eq!(after.of(op), before.of(op), "{op:?}");
    }
}

#[test]
fn a_later_run_looks_for_the_new_keys_in_all_that_was_compacted_before() {
    let bench = Bench::new(3);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let mut model = BTreeMap::new();
    let mut numbers = Numbers(3);
    for round in 0..12 {
        for n in 0..150 {
            let (key, value) = (format!("k{}", numbers.below(400)), format!("{round} {n}"));
            let offset = put(&log, &key, &value);
            model.insert(key, (offset, value));
        }
        seal(&log);
        log.compact().unwrap();
        let mut expected: Vec<_> = model
            .iter()
            .map(|(key, (offset, value))| (*offset, format!("{key}={value}")))
            .collect();
        expected.sort_unstable();
        assert_eq!(strings(&records(&log)), expected, "round {round}");
    }
    log.close().unwrap();
    drop(dir);
    sound(&bench);
}

#[test]
fn records_without_a_key_stay_and_the_active_segment_is_left_alone() {
    let bench = Bench::new(4);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    for n in 0..100 {
        put(&log, "k", &n.to_string());
        log.append(&Record::value(b"no key")).unwrap();
    }
    log.settle().unwrap();
    let before = records(&log);
    let active_from = {
        let names = bench.files("1/0", ".log");
        let last = names.last().unwrap();
        last["1/0/".len()..last.len() - ".log".len()].parse::<u64>().unwrap()
    };
    log.compact().unwrap();
    let (sealed, active): (Vec<_>, Vec<_>) =
        before.into_iter().partition(|r| r.offset < active_from);
    assert!(active.len() > 3);
    let mut expected = latest(&sealed);
    expected.extend(active);
    assert_eq!(records(&log), expected);
    assert!(expected.iter().filter(|r| r.key.is_none()).count() == 100);
}

#[test]
fn small_neighbours_become_one_segment_and_the_chain_of_hashes_still_holds() {
    let bench = Bench::new(5);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config().segment_bytes_max(64 << 10)).unwrap();
    for round in 0..20 {
        for n in 0..10 {
            put(&log, &format!("k{n}"), &format!("{round}"));
        }
        log.roll().unwrap();
    }
    put(&log, "other", "active");
    log.settle().unwrap();
    assert_eq!(bench.files("1/0", ".log").len(), 21);
    let report = log.compact().unwrap();
    assert_eq!((report.rewritten, report.written), (20, 1));
    assert_eq!(
        bench.files("1/0", ".log"),
        ["1/0/00000000000000000000.log", "1/0/00000000000000000200.log"]
    );
    assert_eq!(bench.files("1/0", ".index").len(), 1);
    for n in 0..10 {
        put(&log, &format!("k{n}"), "again");
    }
    seal(&log);
    log.compact().unwrap();
    assert_eq!(bench.files("1/0", ".log").len(), 1);
    assert_eq!(strings(&records(&log))[1], (201, "k0=again".to_owned()));
    put(&log, "x", "y");
    log.close().unwrap();
    drop(dir);
    sound(&bench);
    let report = bench.verify();
    assert_eq!(report.findings, []);
}

#[test]
fn a_segment_that_loses_all_its_records_leaves_its_offsets() {
    let bench = Bench::new(6);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let big = "x".repeat(3000);
    for _ in 0..4 {
        put(&log, "k", &big);
    }
    seal(&log);
    log.compact().unwrap();
    assert_eq!(records(&log).len(), 1);
    assert_eq!((log.start_offset(), log.end_offset()), (0, 4));
    log.clone().close().unwrap();
    drop((log, dir));
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    assert!(log.recovery().clean, "the log ends in a segment that has another file now");
    for offset in 0..3 {
        assert_eq!(log.get(offset).unwrap(), None);
        let mut reader = log.reader(offset).unwrap();
        assert_eq!(reader.next_batch().unwrap().unwrap().last_offset(), 3);
    }
    // Everything may go, and appends go on behind.
    log.append(&Record::tombstone(b"k")).unwrap();
    seal(&log);
    log.compact().unwrap();
    bench.clock.advance(DAY);
    log.compact().unwrap();
    assert_eq!(records(&log), []);
    assert_eq!(log.end_offset(), 5);
    log.close().unwrap();
    drop(dir);
    sound(&bench);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    assert_eq!(records(&log), []);
    assert_eq!(put(&log, "k", "v"), 5);
    assert_eq!(records(&log).len(), 1);
}

#[test]
fn a_tombstone_stays_for_its_time_from_the_first_compaction_that_meets_it_and_then_goes() {
    let bench = Bench::new(7);
    let dir = bench.dir();
    let hour = Duration::from_secs(3600);
    let config =
        compacting(CompactionConfig { tombstone_retention: hour, ..CompactionConfig::default() });
    let log = Log::open(&dir, "1/0", config).unwrap();
    put(&log, "gone", "value");
    put(&log, "here", "value");
    log.append(&Record::tombstone(b"gone")).unwrap();
    seal(&log);
    // However long nobody compacts, its time has not begun.
    bench.clock.advance(hour * 100);
    let shown = |log: &Log| strings(&records(log)).into_iter().map(|(_, s)| s).collect::<Vec<_>>();
    assert_eq!(log.compact().unwrap().tombstones_removed, 0);
    assert_eq!(shown(&log), ["here=value", "gone=-"]);
    // A rewrite for other reasons does not begin it anew.
    bench.clock.advance(hour / 2);
    put(&log, "here", "newer");
    seal(&log);
    assert!(!log.compact().unwrap().is_idle());
    assert_eq!(shown(&log), ["gone=-", "here=newer"]);
    bench.clock.advance(hour / 2 - Duration::from_millis(1));
    assert!(log.compact().unwrap().is_idle());
    bench.clock.advance(Duration::from_millis(1));
    let report = log.compact().unwrap();
    assert_eq!((report.tombstones_removed, report.passes), (1, 0), "{report:?}");
    assert_eq!(shown(&log), ["here=newer"]);
    assert!(log.compact().unwrap().is_idle());
}

/// The end of such a tombstone's time was further from its own time than 64 bits can say, and what was written in the place
/// of the segment could not be read.
#[test]
fn a_tombstone_of_before_1970_can_be_kept_for_ever() {
    let bench = Bench::new(9);
    let dir = bench.dir();
    let config = compacting(CompactionConfig {
        tombstone_retention: Duration::MAX,
        ..CompactionConfig::default()
    });
    let log = Log::open(&dir, "1/0", config).unwrap();
    for ms in [-1, -(1 << 61), 1 << 61] {
        log.append(&Record::value(b"v").key(b"gone").timestamp(ms)).unwrap();
        log.append(&Record::tombstone(b"gone").timestamp(ms)).unwrap();
        put(&log, "here", "v");
        seal(&log);
        log.compact().unwrap();
        bench.clock.advance(DAY * 365);
        let shown = strings(&records(&log)).into_iter().map(|(_, s)| s).collect::<Vec<_>>();
        assert_eq!(shown, ["gone=-", "here=v"]);
    }
    sound(&bench);
}

#[test]
fn tombstones_that_need_not_be_kept_go_at_once_with_what_they_delete() {
    let bench = Bench::new(8);
    let dir = bench.dir();
    let config = compacting(CompactionConfig {
        tombstone_retention: Duration::ZERO,
        ..CompactionConfig::default()
    });
    let log = Log::open(&dir, "1/0", config).unwrap();
    put(&log, "a", "1");
    log.append(&Record::tombstone(b"a")).unwrap();
    log.append(&Record::tombstone(b"never there")).unwrap();
    put(&log, "b", "2");
    seal(&log);
    log.compact().unwrap();
    assert_eq!(strings(&records(&log)), [(3, "b=2".to_owned())]);
}

#[test]
fn what_is_younger_than_the_minimum_lag_is_left_alone_and_so_is_all_after_it() {
    let bench = Bench::new(9);
    let dir = bench.dir();
    let lag = Duration::from_secs(60);
    let config = compacting(CompactionConfig { min_lag: lag, ..CompactionConfig::default() });
    let log = Log::open(&dir, "1/0", config).unwrap();
    put(&log, "k", "1");
    put(&log, "k", "2");
    log.roll().unwrap();
    bench.clock.advance(lag);
    put(&log, "k", "3");
    put(&log, "k", "4");
    seal(&log);
    let shown = |log: &Log| strings(&records(log)).into_iter().map(|(_, s)| s).collect::<Vec<_>>();
    log.compact().unwrap();
    assert_eq!(shown(&log), ["k=2", "k=3", "k=4"]);
    bench.clock.advance(lag);
    log.compact().unwrap();
    assert_eq!(shown(&log), ["k=4"]);
}

#[test]
fn many_more_keys_than_fit_into_memory_take_many_passes_and_come_out_the_same() {
    let bench = Bench::new(10);
    let dir = bench.dir();
    let config = LogConfig::default()
        .segment_bytes_max(128 << 10)
        .compaction(CompactionConfig { memory_bytes: 64 << 10, ..CompactionConfig::default() });
    let log = Log::open(&dir, "1/0", config).unwrap();
    let mut model = BTreeMap::new();
    let mut numbers = Numbers(10);
    for _ in 0..400 {
        let keys: Vec<String> =
            (0..100).map(|_| format!("key {}", numbers.below(15_000))).collect();
        let batch: Vec<_> =
            keys.iter().map(|key| Record::value(b"v").key(key.as_bytes())).collect();
        let base = log.append_batch(&batch).unwrap().base_offset;
        model.extend((base..).zip(keys).map(|(offset, key)| (key, offset)));
    }
    seal(&log);
    let report = log.compact().unwrap();
    assert!(report.passes >= 10, "{report:?}");
    assert_eq!(report.records_removed, 40_000 - model.len() as u64);
    let mut expected: Vec<u64> = model.into_values().collect();
    expected.sort_unstable();
    let found: Vec<u64> = records(&log).iter().map(|r| r.offset).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_reader_finishes_the_segment_that_is_replaced_under_it_and_goes_on_behind() {
    let bench = Bench::new(11);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    for n in 0..200 {
        put(&log, &format!("k{}", n % 5), &format!("value {n} {}", "x".repeat(40)));
    }
    let mut at_the_end = log.reader(200).unwrap();
    assert!(at_the_end.next_batch().unwrap().is_none());
    let mut in_the_last = log.reader(195).unwrap();
    assert_eq!(in_the_last.next_batch().unwrap().unwrap().base_offset(), 195);
    seal(&log);
    let boundary = log.reader(0).map(|mut reader| {
        reader.next_batch().unwrap();
        reader
    });
    let mut early = boundary.unwrap();
    let mut in_a_gap = log.reader(57).unwrap();
    log.compact().unwrap();
    assert_eq!(bench.files("1/0", ".log").len(), 1);

    let mut offsets = Vec::new();
    while let Some(batch) = early.next_batch().unwrap() {
        offsets.push(batch.base_offset());
    }
    assert_eq!(offsets[..20], (1..21).collect::<Vec<_>>()[..], "its segment is as it was");
    assert_eq!(offsets[offsets.len() - 5..], [195, 196, 197, 198, 199]);
    assert!(offsets.len() < 60, "{offsets:?}");
    assert_eq!(in_a_gap.next_batch().unwrap().unwrap().base_offset(), 195);
    let mut offsets = Vec::new();
    while let Some(batch) = in_the_last.next_batch().unwrap() {
        offsets.push(batch.base_offset());
    }
    assert_eq!(offsets, [196, 197, 198, 199]);
    put(&log, "new", "record");
    assert_eq!(at_the_end.next_batch().unwrap().unwrap().base_offset(), 200);
    assert_eq!(in_the_last.next_batch().unwrap().unwrap().base_offset(), 200);
    assert_eq!(early.next_batch().unwrap().unwrap().base_offset(), 200);
}

#[test]
fn a_follower_in_another_process_reads_on_through_compactions() {
    let bench = Bench::new(12);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let other = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    for n in 0..50 {
        put(&log, &format!("k{}", n % 5), &"x".repeat(40));
    }
    let follower = Log::open(&other, "1/0", config()).unwrap();
    let mut reader = follower.reader(0).unwrap();
    let mut numbers = Numbers(12);
    let mut seen = 0;
    for round in 0..60u64 {
        for n in 0..numbers.below(60) {
            put(&log, &format!("k{}", n % 7), &format!("{round} {}", "x".repeat(40)));
        }
        if numbers.below(2) == 0 {
            seal(&log);
            log.compact().unwrap();
        }
        for _ in 0..numbers.below(40) {
            match reader.next_batch().unwrap() {
                Some(batch) => {
                    assert!(batch.base_offset() >= seen);
                    seen = batch.last_offset() + 1;
                }
                None => break,
            }
        }
        follower.refresh().unwrap();
        let mine = records(&log);
        let found: Vec<u64> = records(&follower).iter().map(|r| r.offset).collect();
        assert_eq!(found, mine.iter().map(|r| r.offset).collect::<Vec<_>>(), "round {round}");
        for record in &mine {
            assert_eq!(follower.get(record.offset).unwrap().as_ref(), Some(record));
        }
    }
    while let Some(batch) = reader.next_batch().unwrap() {
        seen = batch.last_offset() + 1;
    }
    assert_eq!(seen, log.end_offset());
}

#[test]
fn a_retry_of_a_producer_s_last_batches_is_recognised_though_their_records_are_superseded() {
    let bench = Bench::new(13);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let send = |log: &Log, id: i64, sequence: i32, records: &[Record<'_>]| {
        let producer = Some(Producer { id, epoch: 0, sequence });
        log.append_with(records, &AppendOptions { producer, ..AppendOptions::default() })
    };
    // One commit of several frames, and small ones after it.
    let big = vec![7; 400 << 10];
    let commit = [Record::value(&big).key(b"k"); 7];
    send(&log, 1, 0, &commit).unwrap();
    for n in 0..8 {
        send(&log, 2, n * 2, &[Record::value(b"v").key(b"k"); 2]).unwrap();
    }
    put(&log, "k", "last");
    seal(&log);
    let report = log.compact().unwrap();
    assert!(report.records_removed > 5, "{report:?}");
    assert_eq!(strings(&records(&log)[..]).last().unwrap().1, "k=last");
    assert!(log.compact().unwrap().is_idle());
    log.close().unwrap();
    drop(dir);
    sound(&bench);
    for file in bench.files("1/0", ".producers") {
        bench.disk.remove_file(&file).unwrap();
    }
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let again = send(&log, 1, 0, &commit).unwrap();
    assert!(again.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (0, 6));
    for n in 3..8 {
        let again = send(&log, 2, n * 2, &[Record::value(b"v").key(b"k"); 2]).unwrap();
        assert!(again.duplicate, "batch {n}");
    }
    assert!(matches!(
        send(&log, 2, 2, &[Record::value(b"v").key(b"k"); 2]),
        Err(Error::OutOfOrderSequence { .. })
    ));
    assert!(!send(&log, 2, 16, &[Record::value(b"v").key(b"k")]).unwrap().duplicate);
    // When the producer has sent enough, the old ones may go.
    for n in 0..5 {
        send(&log, 1, 7 + n, &[Record::value(b"small").key(b"k")]).unwrap();
    }
    seal(&log);
    log.compact().unwrap();
    assert_eq!(log.get(6).unwrap(), None);
}

#[test]
fn what_is_left_of_a_commit_is_a_whole_commit() {
    let bench = Bench::new(18);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    let send = |log: &Log, sequence: i32| {
        let producer = Some(Producer { id: 1, epoch: 0, sequence });
        let options = AppendOptions { producer, ..AppendOptions::default() };
        log.append_with(&[Record::value(b"v").key(b"p")], &options).unwrap()
    };
    send(&log, 0);
    // A commit of two frames, of which the first stays and the last goes.
    let big = vec![7; 600 << 10];
    let commit = [Record::value(&big).key(b"stays"), Record::value(&big).key(b"goes")];
    log.append_batch(&commit).unwrap();
    send(&log, 1);
    put(&log, "goes", "now");
    seal(&log);
    log.compact().unwrap();
    assert_eq!(log.get(2).unwrap(), None);
    let mut reader = log.reader(1).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    assert_eq!((batch.base_offset(), batch.continues()), (1, false));
    drop(reader);
    log.close().unwrap();
    drop(dir);
    for file in bench.files("1/0", ".producers") {
        bench.disk.remove_file(&file).unwrap();
    }
    let log = Log::open(&bench.dir(), "1/0", config()).unwrap();
    for (sequence, offset) in [(0, 0), (1, 3)] {
        let again = send(&log, sequence);
        assert_eq!((again.duplicate, again.base_offset), (true, offset));
    }
}

#[test]
fn what_was_deleted_before_the_start_goes_and_does_not_count_as_the_latest() {
    let bench = Bench::new(14);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    put(&log, "deleted", "1");
    put(&log, "a", "1");
    put(&log, "b", "1");
    put(&log, "a", "2");
    seal(&log);
    log.delete_records_before(2).unwrap();
    let report = log.compact().unwrap();
    assert_eq!(report.records_removed, 2);
    assert_eq!(strings(&records(&log)), [(2, "b=1".to_owned()), (3, "a=2".to_owned())]);
    assert_eq!(log.start_offset(), 2);
}

#[test]
fn compressed_segments_stay_compressed() {
    for compression in [Compression::Lz4] {
        let bench = Bench::new(15);
        let dir = bench.dir();
        let log = Log::open(&dir, "1/0", config().compression(compression)).unwrap();
        for round in 0..10 {
            let keys: Vec<String> = (0..100).map(|n| format!("key {n}")).collect();
            let value = format!("a value that repeats itself, a value that repeats {round}");
            let batch: Vec<_> = keys
                .iter()
                .map(|key| Record::value(value.as_bytes()).key(key.as_bytes()))
                .collect();
            log.append_batch(&batch).unwrap();
        }
        seal(&log);
        let before = records(&log);
        let report = log.compact().unwrap();
        assert_eq!(records(&log), latest(&before));
        assert!(report.bytes_after < 3000, "{report:?}");
        assert_ne!(log.reader(900).unwrap().next_batch().unwrap().unwrap().codec(), 0);
    }
}

#[test]
fn damage_in_a_sealed_segment_stops_compaction_before_it_changes_anything() {
    let bench = Bench::new(16);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    for n in 0..200 {
        put(&log, "k", &format!("value {n} {}", "x".repeat(40)));
    }
    seal(&log);
    let path = &bench.files("1/0", ".log")[1];
    bench.disk.flip_bit(path, 8 * 1000).unwrap();
    let names = bench.disk.paths();
    match log.compact() {
        Err(Error::Corrupt { path: found, .. }) => assert!(found.ends_with(path)),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.disk.paths(), names);
}

#[test]
fn a_closed_poisoned_or_foreign_log_is_not_compacted() {
    let bench = Bench::new(17);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    put(&log, "k", "1");
    put(&log, "k", "2");
    seal(&log);
    let other = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let follower = Log::open(&other, "1/0", config()).unwrap();
    assert!(matches!(follower.compact(), Err(Error::ReadOnly { .. })));
    let copy = log.clone();
    log.close().unwrap();
    assert!(matches!(copy.compact(), Err(Error::Closed { .. })));
}

/// A log with all that compaction meets: keys that come again, tombstones, records without keys, batches, several runs.
fn mixed(bench: &Bench, config: LogConfig) -> Vec<RecordBuf> {
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config).unwrap();
    let mut numbers = Numbers(99);
    for n in 0..120u64 {
        let keys: Vec<String> = (0..3).map(|_| format!("k{}", numbers.below(30))).collect();
        let value = format!("value {n} {}", "x".repeat(usize::try_from(n % 90).unwrap()));
        let batch: Vec<_> = keys
            .iter()
            .map(|key| match numbers.below(6) {
                0 => Record::tombstone(key.as_bytes()),
                1 => Record::value(value.as_bytes()),
                _ => Record::value(value.as_bytes()).key(key.as_bytes()),
            })
            .collect();
        log.append_batch(&batch).unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    seal(&log);
    let all = records(&log);
    log.close().unwrap();
    all
}

/// Whatever a compaction that was cut short has left: nothing is lost or invented, and a whole one ends where it should.
fn check(bench: &Bench, all: &[RecordBuf], what: &str) {
    let report = bench.verify();
    assert!(report.worst <= Some(Severity::Note), "{what}: {:?}", report.findings);
    let expected = latest(all);
    let look = |log: &Log| {
        assert_eq!((log.start_offset(), log.end_offset()), (0, all.len() as u64), "{what}");
        let found = records(log);
        assert!(found.is_sorted_by(|a, b| a.offset < b.offset), "{what}");
        for record in &found {
            assert_eq!(all[usize::try_from(record.offset).unwrap()], *record, "{what}");
        }
        let offsets: Vec<u64> = found.iter().map(|r| r.offset).collect();
        for record in &expected {
            assert!(offsets.binary_search(&record.offset).is_ok(), "{what}: {record:?}");
            assert_eq!(log.get(record.offset).unwrap().as_ref(), Some(record), "{what}");
        }
    };
    // Whoever only reads tidies nothing up.
    let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    look(&Log::open(&dir, "1/0", config()).unwrap());
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    look(&log);
    log.compact().unwrap();
    assert_eq!(records(&log), expected, "{what}");
    log.close().unwrap();
    drop(dir);
    let temporary: Vec<_> =
        bench.disk.paths().into_iter().filter(|path| path.ends_with(".tmp")).collect();
    assert_eq!(temporary, [""; 0], "{what}");
    let report = bench.verify();
    assert!(report.worst <= Some(Severity::Note), "{what}: {:?}", report.findings);
}

fn compact(bench: &Bench) -> Result<CompactionReport, Error> {
    let dir = bench.options().open_with(bench.disk.io())?;
    let log = Log::open(&dir, "1/0", config())?;
    log.compact()
}

#[test]
fn a_crash_at_any_call_of_a_compaction_loses_and_invents_nothing() {
    let bench = Bench::new(20);
    let all = mixed(&bench, config());
    let whole = bench.fork(0);
    let report = compact(&whole).unwrap();
    assert!(report.written >= 2 && report.rewritten > report.written, "{report:?}");
    let points = whole.disk.change_points();
    assert!(points.len() > 30, "{} calls change something", points.len());
    for op in points {
        for seed in 0..8 {
            let bench = bench.fork(op * 8 + seed);
            if seed % 2 == 0 {
                bench.disk.stop_at(op);
            } else {
                bench.disk.stop_inside(op);
            }
            let stopped = compact(&bench);
            assert!(bench.disk.is_stopped(), "op {op}: {stopped:?}");
            bench.disk.crash(&match seed {
                0 => CrashPlan::nothing(),
                1 => CrashPlan::everything(),
                _ => CrashPlan::random(op * 8 + seed),
            });
            check(&bench, &all, &format!("op {op} seed {seed}"));
        }
    }
}

#[test]
fn a_failing_call_ends_a_compaction_and_the_log_goes_on() {
    let bench = Bench::new(21);
    let all = mixed(&bench, config());
    let calls = {
        let whole = bench.fork(0);
        let log = Log::open(&whole.dir(), "1/0", config()).unwrap();
        let before = whole.disk.ops().total();
        log.compact().unwrap();
        whole.disk.ops().total() - before
    };
    let mut failed = 0;
    for op in (0..calls).step_by(2) {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Emfile, Fault::ShortWrite] {
            let bench = bench.fork(op);
            let dir = bench.options().open_with(bench.disk.io()).unwrap();
            let Ok(log) = Log::open(&dir, "1/0", config()) else { continue };
            bench.disk.fail_nth(bench.disk.ops().total() + op, fault);
            let compacted = log.compact();
            failed += u32::from(compacted.is_err());
            let fired = bench.disk.faults_fired();
            bench.disk.heal();
            assert!(compacted.is_ok() || fired == 1, "{compacted:?}");
            // The process that met the fault reads on, and sees what is there.
            let found = records(&log);
            for record in latest(&all) {
                assert!(found.contains(&record), "op {op} {fault:?}");
            }
            drop(log);
            drop(dir);
            bench.disk.kill();
            check(&bench, &all, &format!("op {op} {fault:?}"));
        }
    }
    assert!(failed > 100, "only {failed} compactions failed");
}

#[test]
fn a_full_disk_ends_a_compaction_with_everything_as_it_was_and_no_temporary_file() {
    let bench = Bench::new(22);
    let all = mixed(&bench, config());
    let used = bench.disk.used();
    let mut full = 0;
    for room in (0..40_000).step_by(1_000) {
        let bench = bench.fork(room);
        let dir = bench.dir();
        let log = Log::open(&dir, "1/0", config()).unwrap();
        bench.disk.set_capacity(Some(used + room));
        let names = bench.disk.paths();
        match log.compact() {
            Err(Error::DiskFull { .. }) => {
                full += 1;
                if room < 4_000 {
                    let mut now = bench.disk.paths();
                    now.retain(|path| !path.ends_with("/live"));
                    assert_eq!(
                        now,
                        names.iter().filter(|p| !p.ends_with("/live")).cloned().collect::<Vec<_>>()
                    );
                    assert_eq!(records(&log), all);
                }
            }
            Err(e) => panic!("{e}"),
            Ok(report) => assert!(report.written > 0),
        }
        assert!(!bench.disk.paths().iter().any(|path| path.ends_with(".tmp")), "room {room}");
        bench.disk.set_capacity(None);
        log.compact().unwrap();
        assert_eq!(records(&log), latest(&all), "room {room}");
        drop(log);
        drop(dir);
        bench.disk.kill();
        check(&bench, &all, &format!("room {room}"));
    }
    assert!(full > 3, "the disk was full {full} times only");
}

/// Random operations, crashes among them, against a list of all that was appended.
#[test]
fn whatever_happens_in_whatever_order_the_latest_of_each_key_is_there_and_nothing_else_comes_back()
{
    let mut compactions = 0;
    let mut crashes = 0;
    for seed in 0..150 {
        let bench = Bench::new(seed);
        let mut numbers = Numbers(seed);
        let retention = Duration::from_secs(numbers.below(3) * 100);
        let config =
            config().segment_bytes_max(4096 << numbers.below(3)).compaction(CompactionConfig {
                tombstone_retention: retention,
                ..CompactionConfig::default()
            });
        let mut dir = bench.dir();
        let mut log = Log::open(&dir, "1/0", config.clone()).unwrap();
        let mut all: Vec<RecordBuf> = Vec::new();
        for step in 0..60 {
            let what = format!("seed {seed} step {step}");
            match numbers.below(12) {
                0..6 => {
                    for _ in 0..numbers.below(40) {
                        let key = format!("k{}", numbers.below(12));
                        let value = "v".repeat(usize::try_from(numbers.below(120)).unwrap());
                        let record = match numbers.below(8) {
                            0 => Record::tombstone(key.as_bytes()),
                            1 => Record::value(value.as_bytes()),
                            _ => Record::value(value.as_bytes()).key(key.as_bytes()),
                        };
                        let offset = log.append(&record).unwrap();
                        assert_eq!(offset, all.len() as u64, "{what}");
                        all.push(log.get(offset).unwrap().unwrap());
                    }
                }
                6 => log.roll().unwrap(),
                7 => bench.clock.advance(Duration::from_secs(numbers.below(80))),
                8 => {
                    let start = log.start_offset();
                    let upto = start + numbers.below(log.end_offset() - start + 1) / 8;
                    assert_eq!(log.delete_records_before(upto).unwrap(), upto);
                }
                9 => {
                    drop(log);
                    drop(dir);
                    bench.disk.crash(&CrashPlan::random(numbers.next()));
                    crashes += 1;
                    dir = bench.dir();
                    log = Log::open(&dir, "1/0", config.clone()).unwrap();
                }
                10 if numbers.below(2) == 0 => {
                    log.close().unwrap();
                    drop(dir);
                    dir = bench.dir();
                    log = Log::open(&dir, "1/0", config.clone()).unwrap();
                }
                _ => compactions += u32::from(!log.compact().unwrap().is_idle()),
            }
            let start = log.start_offset();
            let found = records(&log);
            assert!(found.iter().all(|r| all[usize::try_from(r.offset).unwrap()] == *r), "{what}");
            assert!(found.is_sorted_by(|a, b| a.offset < b.offset), "{what}");
            let found: BTreeMap<u64, &RecordBuf> = found.iter().map(|r| (r.offset, r)).collect();
            for record in latest(&all) {
                let may_be_gone =
                    record.offset < start || (record.key.is_some() && record.value.is_none());
                assert!(may_be_gone || found.contains_key(&record.offset), "{what}: {record:?}");
            }
        }
        // When all is said, each key is there once, and no tombstone is older than it may be.
        seal(&log);
        log.compact().unwrap();
        bench.clock.advance(retention);
        log.compact().unwrap();
        let start = log.start_offset();
        let mut expected = latest(&all);
        expected.retain(|r| r.offset >= start && (r.key.is_none() || r.value.is_some()));
        assert_eq!(records(&log), expected, "seed {seed}");
        log.close().unwrap();
        drop(dir);
        sound(&bench);
    }
    assert!(compactions > 300, "{compactions} compactions did something");
    assert!(crashes > 300, "{crashes} crashes");
}

#[test]
fn appends_and_readers_go_on_while_compactions_run() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let place = tempfile::tempdir().unwrap();
    let dir = logmill_storage::DataDir::open(place.path()).unwrap();
    let config = config().segment_bytes_max(16 << 10);
    let config = config.durability(logmill_storage::Durability::Buffered);
    let log = Log::open(&dir, "1/0", config.clone()).unwrap();
    let done = AtomicBool::new(false);
    let compactions = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let mut latest = BTreeMap::new();
                        let mut next = 0;
                        log.reader(0)
                            .unwrap()
                            .for_each(|record| {
                                assert!(record.offset >= next);
                                next = record.offset + 1;
                                let value: u32 = std::str::from_utf8(record.value.unwrap())
                                    .unwrap()
                                    .parse()
                                    .unwrap();
                                let before = latest.insert(record.key.unwrap().to_vec(), value);
                                assert!(before.is_none_or(|before| before < value));
                                Ok::<_, Error>(())
                            })
                            .unwrap();
                    }
                })
            })
            .collect();
        let compactor = scope.spawn(|| {
            let mut compactions = 0;
            while !done.load(Ordering::Relaxed) || compactions == 0 {
                compactions += u32::from(!log.compact().unwrap().is_idle());
            }
            compactions
        });
        for n in 0..60_000u32 {
            put(&log, &format!("key {}", n % 97), &n.to_string());
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        compactor.join().unwrap()
    });
    assert!(compactions > 0);
    seal(&log);
    log.compact().unwrap();
    let left = records(&log);
    assert_eq!(left.len(), 97);
    assert!(left.iter().all(|record| record.offset >= 60_000 - 97));
    log.close().unwrap();
}

/// The sync of the directory failed after a compacted segment had been renamed over the first of those that it was made of,
/// and the process died. The next one saw the new name in the cache and removed the others; its own sync of the directory
/// said yes, as a sync does after one that failed, and wrote the removals only. The power went, the rename with it, and
/// records that were durable were in no file any more.
#[test]
fn what_a_compacted_segment_was_made_of_stays_until_its_name_is_durable() {
    let bench = Bench::new(31);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    for n in 0..200 {
        put(&log, &format!("k{}", n % 10), &n.to_string());
    }
    seal(&log);
    let before = latest(&records(&log));
    let fired = bench.disk.faults_fired();
    bench.disk.fail_next(Op::SyncDir, Fault::SyncEioKeep);
    let refused = log.compact();
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert_eq!(bench.disk.faults_fired(), fired + 1);
    bench.disk.kill();
    drop((log, dir));
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    assert_eq!(latest(&records(&log)), before);
    drop((log, dir));
    bench.disk.crash(&CrashPlan::nothing());
    let log = Log::open(&bench.dir(), "1/0", config()).unwrap();
    assert_eq!(latest(&records(&log)), before);
}

/// A log with fifty keys, each several times, all of it sealed.
fn fifty_keys(dir: &logmill_storage::DataDir, name: &str) -> Log {
    let log = Log::open(dir, name, config()).unwrap();
    for n in 0..400 {
        put(&log, &format!("key {}", n * 7 % 50), &format!("value {n}"));
    }
    seal(&log);
    log
}

/// A compaction that was begun read its whole log without a rest, however large that was.
#[test]
fn a_compaction_in_steps_reads_a_segment_at_a_time_and_comes_to_what_one_at_once_comes_to() {
    let bench = Bench::new(11);
    let dir = bench.dir();
    let (at_once, in_steps) = (fifty_keys(&dir, "1/0"), fifty_keys(&dir, "1/1"));
    let report = at_once.compact().unwrap();
    let bytes = in_steps.stats().unwrap().bytes;
    let (mut steps, mut read) = (0, 0);
    let done = loop {
        let step = in_steps.compact_step(1).unwrap();
        assert!(step.bytes_read <= 4 << 10, "{step:?}");
        (steps, read) = (steps + 1, read + step.bytes_read);
        if let Some(report) = step.report {
            break report;
        }
        put(&in_steps, "key 1", "appends go on");
    };
    assert_eq!(done, report);
    assert!(steps > 2 * report.segments, "{steps} steps");
    assert!(read > bytes * 2, "{read} of {bytes} bytes");
    let after: Vec<_> =
        records(&in_steps).into_iter().filter(|record| record.offset < 400).collect();
    assert_eq!(strings(&after), strings(&records(&at_once)));
    // As much as there is at once.
    seal(&in_steps);
    assert!(in_steps.compact_step(u64::MAX).unwrap().report.is_some());
}

#[test]
fn what_is_removed_between_two_steps_is_left_out_and_the_rest_is_compacted() {
    const UPTO: u64 = 200;
    let mut compacted_by_the_same = 0;
    for steps_before in 0.. {
        let bench = Bench::new(12);
        let dir = bench.dir();
        let log = fifty_keys(&dir, "1/0");
        let mut expected = latest(&records(&log));
        expected.retain(|record| record.offset >= UPTO);
        if (0..steps_before).any(|_| log.compact_step(1).unwrap().report.is_some()) {
            break;
        }
        log.delete_records_before(UPTO).unwrap();
        while log.compact_step(1).unwrap().report.is_none() {}
        compacted_by_the_same += u32::from(records(&log) == expected);
        log.compact().unwrap();
        assert_eq!(records(&log), expected, "after {steps_before} steps");
        log.close().unwrap();
        drop(dir);
        sound(&bench);
    }
    assert!(compacted_by_the_same > 5, "{compacted_by_the_same}");
}
