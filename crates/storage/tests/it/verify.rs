//! `verify`: finds what is wrong, calls it by its name, and changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use logmill_storage::io::sim::{CrashPlan, Fault, Op};
use logmill_storage::verify::{Finding, Problem, Severity, VerifyProgress, VerifyReport, verify};
use logmill_storage::{
    AppendOptions, Compression, Corruption, DataDir, DataDirOptions, Durability, Entry, Journal,
    Log, LogConfig, Producer, Record,
};

use crate::support::Bench;

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(4 << 10)
}

/// A log "7/0" of several sealed segments, closed.
fn filled(bench: &Bench, config: LogConfig, records: u32) -> u64 {
    let dir = bench.dir();
    let log = Log::open(&dir, "7/0", config).unwrap();
    for n in 0..records {
        let value = format!("record {n} {}", "x".repeat(n as usize % 200));
        let sequence = i32::try_from(n).unwrap();
        let options = AppendOptions {
            producer: Some(Producer { id: 1, epoch: 0, sequence }),
            ..AppendOptions::default()
        };
        log.append_with(&[Record::value(value.as_bytes()).key(b"k")], &options).unwrap();
    }
    let end = log.end_offset();
    log.close().unwrap();
    end
}

fn sound(report: &VerifyReport) {
    assert_eq!(report.findings, [], "{:?}", report.worst);
}

fn only(report: &VerifyReport) -> &Finding {
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    &report.findings[0]
}

#[test]
fn a_sound_store_has_no_findings_and_every_record_is_counted_and_no_byte_is_written() {
    let ways = [
        config(),
        config().compression(Compression::Lz4),
        config().durability(Durability::Buffered),
    ];
    for config in ways {
        let bench = Bench::new(1);
        let dir = bench.dir();
        let journal = Journal::open(&dir, "0", config.clone()).unwrap();
        let entries = [Entry { owner: 3, bytes: b"a" }, Entry { owner: 4, bytes: b"b" }];
        journal.append(&entries, &AppendOptions::default()).unwrap();
        journal.checkpoint(3, journal.reach(), b"state").unwrap();
        journal.close().unwrap();
        drop(dir);
        filled(&bench, config, 300);

        let before = bench.disk.ops();
        let report = bench.verify();
        sound(&report);
        assert_eq!((report.logs, report.records), (3, 302));
        assert!(report.segments >= 8, "{report:?}");
        let after = bench.disk.ops();
        for op in [Op::Write, Op::Create, Op::SetLen, Op::Rename, Op::Unlink, Op::Sync, Op::Map] {
            assert_eq!(after.of(op), before.of(op), "{op:?}");
        }
    }
}

#[test]
fn a_crash_at_any_time_leaves_nothing_worse_than_a_note_or_doubt() {
    let mut doubts = 0;
    for seed in 0..200 {
        let bench = Bench::new(seed);
        filled(&bench, config(), 20);
        bench.disk.stop_at(bench.disk.ops().total() + 5 + seed * 3);
        let dir = bench.options().open_with(bench.disk.io());
        let config = config().durability(if seed % 2 == 0 {
            Durability::Sync
        } else {
            Durability::Buffered
        });
        let log = dir.and_then(|dir| Log::open(&dir, "7/0", config));
        if let Ok(log) = log {
            for n in 0..100u32 {
                if log.append(&Record::value(&[n as u8; 100])).is_err() {
                    break;
                }
            }
        }
        bench.disk.crash(&CrashPlan::random(seed));
        let report = bench.verify();
        assert!(report.worst <= Some(Severity::Ambiguous), "seed {seed}: {:?}", report.findings);
        doubts += u32::from(report.worst == Some(Severity::Ambiguous));
        // What verify calls doubtful is what recovery sets aside.
        let dir = bench.dir();
        let log = Log::open(&dir, "7/0", LogConfig::default()).unwrap();
        let has_quarantine = !log.recovery().quarantined.is_empty();
        assert_eq!(has_quarantine, report.worst == Some(Severity::Ambiguous), "seed {seed}");
        log.close().unwrap();
        drop(dir);
        let again = bench.verify();
        assert_eq!(again.worst == Some(Severity::Ambiguous), has_quarantine, "seed {seed}");
        assert!(again.worst <= Some(Severity::Ambiguous), "seed {seed}: {:?}", again.findings);
    }
    assert!(doubts > 5, "only {doubts} crashes left anything doubtful");
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_sealed_segment_is_corruption_at_that_segment() {
    let bench = Bench::new(2);
    filled(&bench, config(), 60);
    let segments = bench.files("7/0", ".log");
    let path = &segments[1];
    let len = bench.disk.read_file(path).unwrap().len();
    for bit in (0..len as u64 * 8).step_by(7) {
        let bench = bench.fork(bit);
        bench.disk.flip_bit(path, bit).unwrap();
        let report = bench.verify();
        assert_eq!(report.worst, Some(Severity::Corrupt), "bit {bit}");
        assert!(report.findings.iter().any(|f| f.path.ends_with(path)), "bit {bit}: {report:?}");
    }
    let bytes = bench.disk.read_file(path).unwrap();
    for cut in (0..len).rev().step_by(5) {
        let bench = bench.fork(cut as u64);
        bench.disk.write_file(path, &bytes[..cut]).unwrap();
        assert_eq!(bench.verify().worst, Some(Severity::Corrupt), "cut to {cut}");
    }
}

#[test]
fn a_damaged_frame_is_reported_with_its_place_and_offsets_and_what_follows_is_still_verified() {
    let bench = Bench::new(3);
    let end = filled(&bench, config(), 100);
    let path = &bench.files("7/0", ".log")[0];
    let bytes = bench.disk.read_file(path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"record 7 ").unwrap();
    bench.disk.flip_bit(path, at as u64 * 8).unwrap();
    let report = bench.verify();
    let finding = only(&report);
    assert!(matches!(finding.problem, Problem::Corruption(Corruption::Checksum { .. })));
    assert_eq!(finding.offsets, Some(7..8));
    assert!(finding.position < at as u64 && finding.position > 128);
    assert_eq!(report.records, end - 1);
    assert!(finding.to_string().contains("offsets 7..8"), "{finding}");
}

#[test]
fn a_missing_segment_is_a_gap_and_a_foreign_or_misplaced_one_is_refused() {
    let bench = Bench::new(4);
    filled(&bench, config(), 100);
    let segments = bench.files("7/0", ".log");
    let missing = bench.fork(1);
    missing.disk.remove_file(&segments[1]).unwrap();
    let report = missing.verify();
    let gap = report.findings.iter().find(|f| f.severity == Severity::Corrupt).unwrap();
    assert!(matches!(gap.problem, Problem::Corruption(Corruption::Gap { .. })), "{gap}");

    let swapped = bench.fork(2);
    let bytes = swapped.disk.read_file(&segments[2]).unwrap();
    swapped.disk.write_file(&segments[1], &bytes).unwrap();
    let report = swapped.verify();
    assert!(
        report.findings.iter().any(|f| f.path.ends_with(&segments[1])
            && f.problem == Problem::Corruption(Corruption::Misplaced)),
        "{report:?}"
    );
}

/// A segment that was cut short was said to lack no offset at all, one that was empty to lack all up to 2^64.
#[test]
fn what_is_found_says_which_offsets_are_lost_as_far_as_anybody_knows() {
    for is_closed in [true, false] {
        let bench = Bench::new(9);
        let end = filled(&bench, config(), 60);
        if !is_closed {
            let log = Log::open(&bench.dir(), "7/0", config()).unwrap();
            log.append(&Record::value(b"the last")).unwrap();
            bench.disk.kill();
        }
        let end = if is_closed { end } else { end + 1 };
        let segments = bench.files("7/0", ".log");
        let base = |path: &String| path[4..24].parse::<u64>().unwrap();
        for (i, path) in segments.iter().enumerate() {
            let range = base(path)..segments.get(i + 1).map_or(end, base);
            let other = bench.disk.read_file(&segments[usize::from(i == 0)]).unwrap();
            let bytes = bench.disk.read_file(path).unwrap();
            for damage in ["cut", "empty", "foreign", "gone"] {
                let bench = bench.fork(1);
                match damage {
                    "cut" => bench.disk.write_file(path, &bytes[..bytes.len().min(400) - 1]),
                    "empty" => bench.disk.write_file(path, &[]),
                    "foreign" => bench.disk.write_file(path, &other),
                    _ => bench.disk.remove_file(path),
                }
                .unwrap();
                let report = bench.verify();
                let case = format!("{path} {damage}, closed {is_closed}: {:?}", report.findings);
                let is_bad = |f: &&Finding| f.severity == Severity::Corrupt;
                let found = report.findings.iter().filter(is_bad).filter_map(|f| f.offsets.clone());
                let found: Vec<_> = found.collect();
                assert!(!found.is_empty(), "{case}");
                for lost in found {
                    assert!(lost.end == range.end && lost.start < lost.end, "{case}");
                    assert!(lost.start >= range.start, "{case}");
                }
            }
        }
    }
}

#[test]
fn what_can_be_made_anew_is_a_note_whatever_its_bytes() {
    let bench = Bench::new(5);
    let dir = bench.dir();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    journal.append(&[Entry { owner: 3, bytes: b"a" }], &AppendOptions::default()).unwrap();
    journal.checkpoint(3, journal.reach(), b"state").unwrap();
    journal.close().unwrap();
    drop(dir);
    filled(&bench, config(), 100);
    let mut files: Vec<String> = [".index", ".time", ".producers"]
        .iter()
        .filter_map(|extension| bench.files("7/0", extension).first().cloned())
        .collect();
    files.extend(["7/0/live".to_owned(), "0/checkpoint-3".to_owned()]);
    assert_eq!(files.len(), 5);
    for file in files {
        for bit in (0..bench.disk.read_file(&file).unwrap().len() as u64 * 8).step_by(11) {
            let bench = bench.fork(bit);
            bench.disk.flip_bit(&file, bit).unwrap();
            let report = bench.verify();
            assert_eq!(report.worst, Some(Severity::Note), "{file} bit {bit}: {report:?}");
            assert!(only(&report).path.ends_with(&file));
        }
    }
}

#[test]
fn one_torn_slot_of_the_manifest_is_a_note_two_are_corruption_and_the_segments_are_verified_still()
{
    let bench = Bench::new(6);
    filled(&bench, config(), 100);
    let manifest = "7/0/manifest";
    let current = bench.disk.read_file(manifest).unwrap();
    let generation = |slot: usize| {
        u64::from_le_bytes(current[slot * 4096 + 24..slot * 4096 + 32].try_into().unwrap())
    };
    let older = u64::from(generation(0) > generation(1));
    bench.disk.corrupt(manifest, older * 4096 + 50, 4, |b| b.fill(0xEE)).unwrap();
    let report = bench.verify();
    assert!(matches!(only(&report).problem, Problem::ManifestSlot(Corruption::Checksum { .. })));
    assert_eq!(report.worst, Some(Severity::Note));
    bench.disk.corrupt(manifest, (1 - older) * 4096 + 50, 4, |b| b.fill(0xEE)).unwrap();
    let report = bench.verify();
    assert_eq!(report.worst, Some(Severity::Corrupt));
    assert_eq!(report.records, 100);
}

#[test]
fn a_read_error_is_unreadable_and_not_called_corrupt_and_the_rest_is_looked_at() {
    let bench = Bench::new(7);
    filled(&bench, config(), 200);
    let whole = bench.verify();
    sound(&whole);
    let mut unreadable = 0;
    for seed in 0..40 {
        let bench = bench.fork(seed);
        let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
        let fired = bench.disk.faults_fired();
        bench.disk.fail_nth(bench.disk.ops().total() + 8 + seed * 2, Fault::Eio);
        let Ok(report) = verify(&dir, &mut |_| {}) else { continue };
        if bench.disk.faults_fired() == fired {
            continue;
        }
        // Where the fault hits a file that is not needed, nothing is said of it.
        assert!(report.worst <= Some(Severity::Unreadable), "seed {seed}: {report:?}");
        unreadable += u32::from(report.worst == Some(Severity::Unreadable));
    }
    assert!(unreadable > 10, "only {unreadable} faults were reported");
}

#[test]
fn progress_rises_to_the_total() {
    let bench = Bench::new(8);
    filled(&bench, config(), 100);
    let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let mut seen: Vec<VerifyProgress> = Vec::new();
    verify(&dir, &mut |progress| seen.push(progress)).unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    let last = seen.last().unwrap();
    assert_eq!(last.done, last.total);
    assert!(last.total > 0 && seen.len() > 50);
}

/// A store with one record, closed.
fn one_record() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    log.append(&Record::value(b"v")).unwrap();
    log.close().unwrap();
    place
}

#[test]
fn loose_modes_links_and_strange_names_are_noted() {
    use std::os::unix::fs::PermissionsExt;
    let place = one_record();
    let at = |name: &str| place.path().join(name);
    let loosen = |name: &str, mode| {
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    loosen("1/0/manifest", 0o640);
    loosen("1", 0o755);
    loosen("", 0o711);
    std::os::unix::fs::symlink("manifest", at("1/0/link")).unwrap();
    std::fs::File::create(at("1/0/notes.txt")).unwrap();
    loosen("1/0/notes.txt", 0o600);
    let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let report = verify(&dir, &mut |_| {}).unwrap();
    let mut found: Vec<_> =
        report.findings.iter().map(|f| (f.path.clone(), f.problem.clone())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        found,
        [
            (place.path().to_owned(), Problem::LooseMode { mode: 0o711 }),
            (at("1"), Problem::LooseMode { mode: 0o755 }),
            (at("1/0/link"), Problem::NotAFile),
            (at("1/0/manifest"), Problem::LooseMode { mode: 0o640 }),
            (at("1/0/notes.txt"), Problem::Unexpected),
        ]
    );
    assert_eq!(report.worst, Some(Severity::Note));
}

/// The segment, the look for what follows it and the look at strange files each met it and each said so.
#[test]
fn what_is_no_file_is_named_once() {
    let place = one_record();
    for name in ["1/0/00000000000000000007.log", "1/0/live"] {
        let fifo = place.path().join(name);
        let _ = std::fs::remove_file(&fifo);
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
        let report = verify(&dir, &mut |_| {}).unwrap();
        let found: Vec<_> = report.findings.iter().filter(|f| f.path == fifo).collect();
        assert!(
            matches!(found[..], [finding] if finding.severity == Severity::Corrupt),
            "{found:?}"
        );
    }
}

// The end was asked for anew in each round, and the active segment was read from its head again as long as it had grown:
// beside a writer of 50 records a second a segment of 100 MB was never done, and its records were counted each time.
#[test]
fn beside_a_writer_that_keeps_appending_each_record_is_looked_at_once() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1/0", LogConfig::default()).unwrap();
    log.append(&Record::value(b"before")).unwrap();
    let reader = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
    let mut appended = 0;
    let report = verify(&reader, &mut |_| {
        if appended < 100 {
            appended += 1;
            log.append(&Record::value(b"meanwhile")).unwrap();
        }
    })
    .unwrap();
    assert!(appended > 0, "nothing came in between");
    assert_eq!(report.segments, 1);
    assert!((1..=log.end_offset()).contains(&report.records), "{} records", report.records);
    log.close().unwrap();
}

#[test]
fn beside_a_writer_that_appends_rolls_and_removes_nothing_is_wrong() {
    let place = tempfile::tempdir().unwrap();
    // The engine makes it, with the mode that it should have.
    let store = place.path().join("store");
    let dir = DataDir::open(&store).unwrap();
    let log = Log::open(&dir, "1/0", config().durability(Durability::Buffered)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (log, stop) = (log.clone(), Arc::clone(&stop));
        move || {
            let mut n = 0u32;
            while !stop.load(Ordering::Relaxed) {
                let end = log.append(&Record::value(&[n as u8; 90])).unwrap();
                if n.is_multiple_of(500) {
                    log.sync().unwrap();
                }
                if n.is_multiple_of(3000) {
                    log.delete_records_before(end.saturating_sub(4000)).unwrap();
                }
                n += 1;
            }
        }
    });
    let (mut records, mut round) = (0, 0);
    while records < 50_000 || round < 20 {
        let dir = DataDirOptions::new().read_only(true).open(&store).unwrap();
        let report = verify(&dir, &mut |_| {}).unwrap();
        assert!(report.worst <= Some(Severity::Note), "round {round}: {:?}", report.findings);
        records += report.records;
        round += 1;
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    log.close().unwrap();
    drop(dir);
    let dir = DataDirOptions::new().read_only(true).open(&store).unwrap();
    sound(&verify(&dir, &mut |_| {}).unwrap());
}
