//! Salvage: what can be had out of a damaged log, and what is said of the rest.

use std::collections::BTreeSet;

use logmill_storage::io::sim::{CrashPlan, Fault, Op, SimDisk};
use logmill_storage::salvage::{Event, Gap, SalvageReport, salvage};
use logmill_storage::verify::{Problem, Severity};
use logmill_storage::{
    AppendOptions, Compression, Corruption, Error, Header, Log, LogConfig, Producer, Record,
    RecordBuf,
};

use crate::damage::{append, forged, frame, log_of, seed, spoil_head, values};
use crate::support::{Bench, Numbers, records};

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(4 << 10)
}

/// A closed log "7/0": lone records and batches, keys, headers, tombstones, a producer, two epochs.
fn filled(bench: &Bench, config: &LogConfig) -> Vec<RecordBuf> {
    let mut all = Vec::new();
    for epoch in 0..2 {
        let dir = bench.dir();
        let log = Log::open(&dir, "7/0", config.clone()).unwrap();
        let headers = [Header { name: "h", value: b"1" }];
        for n in 0..40i32 {
            let value = format!("epoch {epoch} value {n} {}", "x".repeat(n as usize));
            let options = AppendOptions {
                producer: (n % 2 == 0).then_some(Producer {
                    id: 5,
                    epoch: epoch as i16,
                    sequence: n / 2 * 3,
                }),
                ..AppendOptions::default()
            };
            let batch = [
                Record::value(value.as_bytes()).key(b"k").timestamp(1000 + i64::from(n * 7 % 40)),
                Record::tombstone(b"k"),
                Record::value(value.as_bytes()).headers(&headers),
            ];
            log.append_with(&batch, &options).unwrap();
        }
        log.sync().unwrap();
        if epoch == 0 {
            drop((log, dir));
            bench.disk.crash(&CrashPlan::nothing());
        } else {
            all = records(&log);
            log.close().unwrap();
        }
    }
    all
}

/// Salvages into another disk.
fn saved(bench: &Bench) -> (Bench, Result<SalvageReport, Error>, Vec<Gap>) {
    saved_of(bench, "7/0")
}

fn saved_of(bench: &Bench, name: &str) -> (Bench, Result<SalvageReport, Error>, Vec<Gap>) {
    let target = Bench { disk: SimDisk::new(77), clock: bench.clock.clone() };
    let source = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let mut gaps = Vec::new();
    let report = salvage(&source, name, &target.dir(), &mut |event| {
        if let Event::Gap(gap) = event {
            gaps.push(gap.clone());
        }
    });
    (target, report, gaps)
}

/// Everything is there that no gap names, as it was; and the new log is sound and goes on.
fn check(target: &Bench, report: &SalvageReport, all: &[RecordBuf], gaps: &[Gap], what: &str) {
    let lost: BTreeSet<u64> = gaps.iter().flat_map(|gap| gap.offsets.clone()).collect();
    let expected: Vec<_> = all.iter().filter(|r| !lost.contains(&r.offset)).cloned().collect();
    let verified = target.verify();
    assert_eq!(verified.findings, [], "{what}");
    let dir = target.dir();
    let log = Log::open(&dir, "7/0", config()).unwrap();
    assert!(log.recovery().clean, "{what}");
    assert!(records(&log) == expected, "{what}: {gaps:?}");
    assert_eq!(report.records, expected.len() as u64, "{what}");
    assert_eq!((report.start_offset, report.end_offset), (log.start_offset(), log.end_offset()));
    for offset in log.start_offset()..log.end_offset() {
        let found = log.get(offset).unwrap();
        let kept = expected.iter().find(|r| r.offset == offset);
        assert_eq!(found.as_ref(), kept, "{what}");
    }
    let end = log.end_offset();
    assert_eq!(log.append(&Record::value(b"new")).unwrap(), end);
    assert_eq!(log.get(end).unwrap().unwrap().value.as_deref(), Some(&b"new"[..]));
    log.close().unwrap();
    drop(dir);
    assert_eq!(target.verify().findings, [], "{what}");
}

#[test]
fn of_a_sound_log_everything_is_copied_as_it_was() {
    for config in [config(), config().compression(Compression::Lz4)] {
        let bench = Bench::new(1);
        let all = filled(&bench, &config);
        let (target, report, gaps) = saved(&bench);
        assert_eq!(gaps, []);
        let report = report.unwrap();
        assert_eq!((report.gaps, report.partial_commits), (0, 0));
        check(&target, &report, &all, &gaps, "sound");
        let (old, new) = (bench.dir(), target.dir());
        let old = Log::open(&old, "7/0", config.clone()).unwrap();
        let new = Log::open(&new, "7/0", config.clone()).unwrap();
        // Positions that are kept elsewhere stay good, a retry is recognised, and codecs are what they were.
        assert!(new.epoch() > old.epoch());
        for epoch in 1..old.epoch() {
            assert_eq!(new.end_of_epoch(epoch).unwrap(), old.end_of_epoch(epoch).unwrap());
        }
        assert_eq!(new.last_sequence(5).unwrap(), old.last_sequence(5).unwrap());
        let codec = |log: &Log| log.reader(0).unwrap().next_batch().unwrap().unwrap().codec();
        assert_eq!(codec(&new), codec(&old));
    }
}

#[test]
fn whatever_is_damaged_all_that_no_gap_names_is_there_and_the_source_is_not_touched() {
    let bench = Bench::new(2);
    let all = filled(&bench, &config());
    let files: Vec<String> =
        bench.disk.paths().into_iter().filter(|path| path.starts_with("7/0/")).collect();
    let mut lossy = 0;
    for seed in 0..1500 {
        let bench = bench.fork(seed);
        let mut numbers = Numbers(seed);
        let mut what = format!("seed {seed}");
        for _ in 0..=numbers.below(3) {
            let file = &files[usize::try_from(numbers.below(files.len() as u64)).unwrap()];
            let bytes = bench.disk.read_file(file).filter(|bytes| !bytes.is_empty());
            let Some(bytes) = bytes else { continue };
            let len = bytes.len() as u64;
            what += &format!(", {file}: ");
            match numbers.below(6) {
                0 => {
                    bench.disk.remove_file(file).unwrap();
                    what += "removed";
                }
                1 => {
                    let keep = usize::try_from(numbers.below(len + 1)).unwrap();
                    bench.disk.write_file(file, &bytes[..keep]).unwrap();
                    what += &format!("cut to {keep}");
                }
                2 => {
                    let at = numbers.below(len / 512 + 1) * 512;
                    let sector = usize::try_from((len - at).min(512)).unwrap();
                    bench.disk.corrupt(file, at, sector, |b| b.fill(0)).unwrap();
                    what += &format!("sector at {at} zeroed");
                }
                3 => {
                    bench.disk.corrupt(file, 0, bytes.len().min(128), |b| b.fill(0xA5)).unwrap();
                    what += "head lost";
                }
                _ => {
                    let bit = numbers.below(len * 8);
                    bench.disk.flip_bit(file, bit).unwrap();
                    what += &format!("bit {bit}");
                }
            }
        }
        let before: Vec<_> =
            bench.disk.paths().iter().map(|path| bench.disk.read_file(path)).collect();
        let (target, report, gaps) = saved(&bench);
        let after: Vec<_> =
            bench.disk.paths().iter().map(|path| bench.disk.read_file(path)).collect();
        assert!(before == after, "{what}");
        let report = report.unwrap();
        assert_eq!(report.gaps, gaps.len() as u64, "{what}");
        let mut known = all.clone();
        if what.contains("manifest") {
            // Nobody may know where the log began and how far it went.
            known.retain(|r| (report.start_offset..report.end_offset).contains(&r.offset));
        }
        if report.segments_with_guessed_timestamps == 0 {
            check(&target, &report, &known, &gaps, &what);
        }
        lossy += u32::from(report.offsets_lost > 0);
        assert!(report.offsets_lost <= all.len() as u64, "{what}: {gaps:?}");
    }
    assert!(lossy > 50, "only {lossy} logs had lost anything");
}

#[test]
fn one_flipped_bit_costs_one_batch_and_is_named_with_its_place() {
    let bench = Bench::new(3);
    let all = filled(&bench, &config());
    let path = &bench.files("7/0", ".log")[1];
    let bytes = bench.disk.read_file(path).unwrap();
    bench.disk.flip_bit(path, bytes.len() as u64 * 4).unwrap();
    let (target, report, gaps) = saved(&bench);
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.offsets.end - gap.offsets.start, 3);
    assert!(gap.path.ends_with(path) && gap.position > 128);
    assert!(matches!(gap.problem, Problem::Corruption(Corruption::Checksum { .. })));
    assert_eq!(report.as_ref().unwrap().offsets_lost, 3);
    check(&target, &report.unwrap(), &all, &gaps, "one bit");
}

#[test]
fn without_any_manifest_and_without_the_heads_of_sealed_segments_nothing_is_lost() {
    let bench = Bench::new(4);
    let all = filled(&bench, &config());
    let segments = bench.files("7/0", ".log");
    let no_manifest = bench.fork(1);
    no_manifest.disk.remove_file("7/0/manifest").unwrap();
    let torn = bench.fork(2);
    torn.disk.corrupt("7/0/manifest", 0, 8192, |b| b.fill(0xEE)).unwrap();
    let headless = bench.fork(3);
    // The last one is not sealed.
    for path in &segments[..segments.len() - 1] {
        headless.disk.corrupt(path, 0, 128, |b| b.fill(0xEE)).unwrap();
    }
    for (bench, has_manifest) in [(no_manifest, false), (torn, false), (headless, true)] {
        let (target, report, gaps) = saved(&bench);
        assert_eq!(gaps, []);
        assert_eq!(report.as_ref().unwrap().is_without_manifest, !has_manifest);
        check(&target, &report.unwrap(), &all, &gaps, "nothing is lost");
    }
}

#[test]
fn a_lost_end_is_a_gap_as_far_as_anything_knows_of_it_and_its_offsets_are_not_given_again() {
    let bench = Bench::new(5);
    let all = filled(&bench, &config());
    let last = bench.files("7/0", ".log").pop().unwrap();
    bench.disk.remove_file(&last).unwrap();
    let (target, report, gaps) = saved(&bench);
    let report = report.unwrap();
    assert_eq!(report.end_offset, all.len() as u64);
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.offsets.end, all.len() as u64);
    assert!(matches!(gap.problem, Problem::Corruption(Corruption::LostDurable { .. })));
    check(&target, &report, &all, &gaps, "the last segment");
}

#[test]
fn of_a_commit_whose_end_is_lost_the_rest_is_copied_and_counted() {
    let bench = Bench::new(6);
    let dir = bench.dir();
    let log = Log::open(&dir, "7/0", config()).unwrap();
    let big = vec![7; 700 << 10];
    log.append_batch(&[Record::value(&big), Record::value(&big), Record::value(&big)]).unwrap();
    log.append(&Record::value(b"after")).unwrap();
    let all = records(&log);
    log.close().unwrap();
    drop(dir);
    let path = &bench.files("7/0", ".log")[0];
    bench.disk.flip_bit(path, 8 * (1800 << 10)).unwrap();
    let (target, report, gaps) = saved(&bench);
    let report = report.unwrap();
    assert_eq!((report.partial_commits, gaps[0].offsets.clone()), (1, 2..3));
    check(&target, &report, &all, &gaps, "a commit");
}

#[test]
fn a_compacted_log_is_copied_with_its_gaps_and_they_are_not_reported_as_lost() {
    let bench = Bench::new(7);
    let dir = bench.dir();
    let log = Log::open(&dir, "7/0", config()).unwrap();
    for n in 0..300u32 {
        let key = format!("k{}", n % 37);
        log.append(&Record::value(&[7; 60]).key(key.as_bytes())).unwrap();
    }
    log.roll().unwrap();
    log.compact().unwrap();
    log.delete_records_before(270).unwrap();
    let all = records(&log);
    log.close().unwrap();
    drop(dir);
    let (target, report, gaps) = saved(&bench);
    assert_eq!(gaps, []);
    check(&target, &report.unwrap(), &all, &gaps, "compacted");
}

#[test]
fn a_target_that_is_there_and_a_source_that_is_written_are_refused() {
    let bench = Bench::new(8);
    filled(&bench, &config());
    let source = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let other = Bench::new(9);
    filled(&other, &config());
    match salvage(&source, "7/0", &other.dir(), &mut |_| {}) {
        Err(Error::Io { op: "create", source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
        }
        unexpected => panic!("{unexpected:?}"),
    }
    let empty = Bench::new(10);
    assert!(matches!(
        salvage(&source, "nonsense", &empty.dir(), &mut |_| {}),
        Err(Error::InvalidName { .. })
    ));
    assert!(matches!(
        salvage(&source, "9/9", &empty.dir(), &mut |_| {}),
        Err(Error::Io { op: "list", .. })
    ));
    let writer = bench.dir();
    assert!(matches!(
        salvage(&source, "7/0", &empty.dir(), &mut |_| {}),
        Err(Error::Locked { .. })
    ));
    drop(writer);
    let reader = empty.options().read_only(true).open_with(empty.disk.io()).unwrap();
    assert!(matches!(salvage(&source, "7/0", &reader, &mut |_| {}), Err(Error::ReadOnly { .. })));
}

#[test]
fn a_target_that_fails_has_no_log_and_takes_the_next_try() {
    let bench = Bench::new(11);
    let all = filled(&bench, &config());
    let source = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let mut failed = 0;
    for op in 0..60 {
        for fault in [Fault::Enospc, Fault::SyncEioKeep] {
            let target = Bench { disk: SimDisk::new(op), clock: bench.clock.clone() };
            let dir = target.dir();
            target.disk.fail_nth(target.disk.ops().total() + op, fault);
            let report = salvage(&source, "7/0", &dir, &mut |_| {});
            if let Err(e) = report {
                failed += 1;
                assert_eq!(target.disk.faults_fired(), 1, "{e}");
                let left = target.disk.paths();
                assert!(!left.iter().any(|path| path.ends_with(".log")), "{left:?}");
                target.disk.heal();
                let report = salvage(&source, "7/0", &dir, &mut |_| {}).unwrap();
                drop(dir);
                check(&target, &report, &all, &[], &format!("op {op} {fault:?}"));
            }
        }
    }
    assert!(failed > 20, "only {failed} salvages failed");
}

#[test]
fn a_block_that_cannot_be_read_at_the_first_try_is_read_at_the_second() {
    let bench = Bench::new(12);
    let all = filled(&bench, &config());
    let source = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    for n in 0..20 {
        let target = Bench::new(n);
        let reads = bench.disk.ops().of(Op::Read);
        for _ in 0..5 {
            bench.disk.fail_next(Op::Read, Fault::Eio);
        }
        let report = salvage(&source, "7/0", &target.dir(), &mut |_| {}).unwrap();
        assert!(bench.disk.ops().of(Op::Read) > reads);
        assert!(report.records <= all.len() as u64);
        assert!(target.verify().worst <= Some(Severity::Note));
    }
    assert!(bench.disk.faults_fired() > 20);
}

/// They were put in the place of sound records, or hid all segments that followed.
#[test]
fn frames_in_the_value_of_a_damaged_record_replace_no_records_and_hide_none() {
    let plain = values(200);
    let sample = log_of(&plain, false);
    let (seed, like) = (seed(&sample), frame(&sample, &plain[30]).1);
    let fake = |delta| forged(&like, delta, b"an invention", &seed);
    // What a frame contradicts that may be one is lost with it; what lies out of the segment contradicts nothing.
    for (claimed, last_lost) in [
        (&[10][..], 40),
        (&[43, 44, 45, 46, 47], 47),
        (&[45, 60], 60),
        (&[100_000], 40),
        (&[4_000_000_000], 40),
    ] {
        for is_sealed in [false, true] {
            let what = format!("claimed: {claimed:?}, sealed: {is_sealed}");
            let mut all = plain.clone();
            all[40] = claimed.iter().flat_map(|delta| fake(*delta)).collect();
            let bench = log_of(&all, is_sealed);
            if is_sealed {
                let log = Log::open(&bench.dir(), "1", LogConfig::default()).unwrap();
                let next = [b"of the next segment".to_vec(), b"and another".to_vec()];
                append(&log, &next);
                log.close().unwrap();
                assert_eq!(bench.files("1", ".log").len(), 2, "{what}");
                all.extend(next);
            }
            spoil_head(&bench, &all[40]);
            // Sound ones behind it were blamed, or all of the segment.
            let blamed: Vec<_> =
                bench.verify().findings.iter().map(|f| f.offsets.clone()).collect();
            assert_eq!(blamed, [Some(40..last_lost + 1)], "{what}");
            let (target, report, gaps) = saved_of(&bench, "1");
            let [gap] = &gaps[..] else { panic!("{what}: {gaps:?}") };
            assert_eq!(gap.offsets, 40..last_lost + 1, "{what}");
            let report = report.unwrap();
            assert_eq!(
                (report.end_offset, report.offsets_lost),
                (all.len() as u64, last_lost - 39)
            );
            let found = records(&Log::open(&target.dir(), "1", LogConfig::default()).unwrap());
            let found: Vec<_> = found.into_iter().map(|r| (r.offset, r.value.unwrap())).collect();
            let kept = all.iter().enumerate().map(|(n, value)| (n as u64, value.clone().into()));
            let kept: Vec<_> = kept.filter(|(n, _)| !gap.offsets.contains(n)).collect();
            assert!(found == kept, "{what}");
        }
    }
}
