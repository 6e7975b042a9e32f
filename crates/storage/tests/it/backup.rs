//! Backups: complete beside a live writer, incremental, whole after any crash, and verified byte by byte.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use logmill_storage::backup::{BackupReport, RestoreReport, backup, restore};
use logmill_storage::io::sim::{CrashPlan, Fault, SimDisk};
use logmill_storage::{AppendOptions, Reach};
use logmill_storage::{
    Corruption, DataDir, DataDirOptions, Durability, Entry, Error, Journal, Log, LogConfig,
    Producer, Record, RecordBuf,
};

use crate::support::{Bench, records};

type Contents = BTreeMap<String, Vec<RecordBuf>>;

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(4 << 10)
}

/// Appends `count` records of some 200 bytes to a log, some of them by an idempotent producer.
fn append(log: &Log, from: u64, count: u64) {
    for n in from..from + count {
        let value = format!("record {n} {}", "x".repeat(190));
        let sequence = i32::try_from(n).unwrap();
        let options = AppendOptions {
            producer: Some(Producer { id: 5, epoch: 0, sequence }),
            ..AppendOptions::default()
        };
        log.append_with(&[Record::value(value.as_bytes()).key(b"k")], &options).unwrap();
    }
}

fn target(bench: &Bench, seed: u64) -> Bench {
    Bench { disk: SimDisk::new(seed), clock: bench.clock.clone() }
}

fn back_up(from: &Bench, to: &Bench) -> Result<BackupReport, Error> {
    let source = from.options().read_only(true).open_with(from.disk.io()).unwrap();
    backup(&source, &to.options().open_with(to.disk.io())?, &mut |_| {})
}

fn bring_back(from: &Bench, to: &Bench) -> Result<RestoreReport, Error> {
    let source = from.options().read_only(true).open_with(from.disk.io()).unwrap();
    restore(&source, &to.dir(), &mut |_| {})
}

/// Everything in a store.
fn contents(bench: &Bench) -> Contents {
    let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let logs = dir.logs().unwrap();
    let read = |name: String| {
        let log = Log::open(&dir, &name, config()).unwrap();
        (name, records(&log))
    };
    logs.into_iter().map(read).collect()
}

/// What a restored store holds, which must be sound.
fn restored(backup: &Bench) -> Contents {
    let store = target(backup, 9);
    bring_back(backup, &store).unwrap();
    let report = store.verify();
    assert_eq!(report.worst, None, "{:?}", report.findings);
    contents(&store)
}

#[test]
fn a_restored_store_has_every_record_and_goes_on_under_a_higher_epoch() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    journal.append(&[Entry { owner: 7, bytes: b"said" }], &AppendOptions::default()).unwrap();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    append(&log, 0, 60);
    log.delete_records_before(10).unwrap();
    let before = records(&log);
    // The writer is alive.
    let kept = target(&bench, 2);
    let report = back_up(&bench, &kept).unwrap();
    assert_eq!((report.logs, report.doubtful.len()), (3, 0));
    assert!(report.copied_segments >= 3, "{report:?}");

    let store = target(&bench, 3);
    let restored = bring_back(&kept, &store).unwrap();
    assert_eq!(restored.epoch, 0x1_0000);
    assert_eq!(store.verify().worst, None);
    let again = store.dir();
    let copy = Log::open(&again, "1/0", config()).unwrap();
    assert_eq!(records(&copy), before);
    assert_eq!((copy.start_offset(), copy.epoch()), (10, 0x1_0000));
    assert!(copy.recovery().clean);
    // The producer goes on where it was, and is not taken for a new one.
    assert_eq!(copy.last_sequence(5).unwrap(), Some((0, 59)));
    append(&copy, 59, 2);
    assert_eq!(copy.end_offset(), 61);
    // A position that was committed in the old store for a record that came after the backup.
    append(&log, 60, 5);
    let (epoch, position) = (log.epoch(), log.end_offset());
    assert!(copy.end_of_epoch(epoch).unwrap() == 60 && position == 65);
    let journal = Journal::open(&again, "0", config()).unwrap();
    let mut said = Vec::new();
    journal
        .replay(Reach::default(), |replayed| {
            said.push((replayed.owner, replayed.bytes.to_vec()));
            Ok(())
        })
        .unwrap();
    assert_eq!(said, [(7, b"said".to_vec())]);
}

#[test]
fn the_next_backup_copies_what_is_new_and_removes_what_is_gone() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    append(&log, 0, 200);
    log.settle().unwrap();
    let kept = target(&bench, 2);
    let first = back_up(&bench, &kept).unwrap();
    assert!(first.copied_segments > 8, "{first:?}");
    append(&log, 200, 30);
    log.settle().unwrap();
    log.delete_records_before(100).unwrap();
    let second = back_up(&bench, &kept).unwrap();
    assert!(second.copied_segments < 5 && second.copied_segments > 0, "{second:?}");
    assert!(second.removed_files > 0);
    assert_eq!(second.segments, kept.files("files", ".log").len() as u64);
    assert_eq!(restored(&kept)["1/0"], records(&log));
}

#[test]
fn a_compacted_log_comes_back_as_it_was() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    for n in 0..200u32 {
        let (key, value) = ([b'k', (n % 5) as u8], [b'v'; 150]);
        log.append(&Record::value(&value).key(&key)).unwrap();
    }
    let kept = target(&bench, 2);
    back_up(&bench, &kept).unwrap();
    log.settle().unwrap();
    assert!(log.compact().unwrap().written > 0);
    let second = back_up(&bench, &kept).unwrap();
    assert!(second.removed_files > 0);
    assert_eq!(restored(&kept)["1/0"], records(&log));
}

/// Whatever the moment at which the machine of a backup stops, and whatever its disk has kept: the backup is the one
/// before, or the new one.
#[test]
fn a_crash_during_a_backup_leaves_the_one_before_or_the_new_one() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    append(&log, 0, 40);
    let kept = target(&bench, 2);
    back_up(&bench, &kept).unwrap();
    let old = restored(&kept);
    append(&log, 40, 40);
    log.delete_records_before(30).unwrap();
    let whole = kept.fork(3);
    let before = whole.disk.ops().total();
    back_up(&bench, &whole).unwrap();
    let new = restored(&whole);
    assert_ne!(old, new);
    let steps = whole.disk.ops().total() - before;
    let (mut olds, mut news) = (0, 0);
    for step in 0..=steps {
        for plan in [CrashPlan::nothing(), CrashPlan::everything(), CrashPlan::random(step)] {
            let kept = kept.fork(4);
            kept.disk.stop_at(kept.disk.ops().total() + step);
            let _ = back_up(&bench, &kept);
            kept.disk.crash(&plan);
            kept.disk.heal();
            let found = restored(&kept);
            olds += u32::from(found == old);
            news += u32::from(found == new);
            assert!(found == old || found == new, "step {step}");
            // And it goes on from there.
            back_up(&bench, &kept).unwrap();
            assert_eq!(restored(&kept), new, "step {step}");
        }
    }
    assert!(olds > 10 && news > 3, "{olds} {news}");
}

#[test]
fn a_full_disk_or_a_failed_sync_stops_a_backup_and_leaves_the_one_before() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    append(&log, 0, 40);
    let kept = target(&bench, 2);
    back_up(&bench, &kept).unwrap();
    let old = restored(&kept);
    append(&log, 40, 40);
    let whole = kept.fork(3);
    back_up(&bench, &whole).unwrap();
    let new = restored(&whole);
    for fault in [Fault::Enospc, Fault::SyncEioKeep] {
        let (mut fired, mut failed) = (0, 0);
        for step in 0..60 {
            let kept = kept.fork(4);
            kept.disk.fail_nth(kept.disk.ops().total() + step, fault);
            let result = back_up(&bench, &kept);
            fired += kept.disk.faults_fired();
            kept.disk.heal();
            if result.is_err() {
                failed += 1;
                // The last sync may fail when the new one is in its place.
                let found = restored(&kept);
                assert!(found == old || found == new, "step {step}: {result:?}");
            }
        }
        assert!(fired > 0 && failed > 0, "{fault:?}: {fired} fired, {failed} failed");
    }
}

#[test]
fn a_store_is_restored_only_into_an_empty_directory() {
    let bench = Bench::new(1);
    append(&Log::open(&bench.dir(), "1/0", config()).unwrap(), 0, 3);
    let kept = target(&bench, 2);
    back_up(&bench, &kept).unwrap();
    let store = target(&bench, 3);
    bring_back(&kept, &store).unwrap();
    let before = store.disk.paths();
    for full in [&store, &bench] {
        let error = bring_back(&kept, full).unwrap_err();
        assert!(error.to_string().contains("it must be empty, and there is"), "{error}");
    }
    assert_eq!(store.disk.paths(), before);
    // Nor is a store backed up into another one, or restored from what is no backup.
    let error = back_up(&bench, &store).unwrap_err();
    assert!(error.to_string().contains("it must be empty"), "{error}");
    let error = bring_back(&bench, &target(&bench, 4)).unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
}

/// It was taken for an earlier one of the same store: its files were needed no more, and removed.
#[test]
fn a_backup_of_another_store_is_not_replaced() {
    let store = |seed| {
        let bench = Bench::new(seed);
        let journal = Journal::open(&bench.dir(), "0", config()).unwrap();
        journal.append(&[Entry { owner: 7, bytes: b"said" }], &AppendOptions::default()).unwrap();
        drop(journal);
        bench
    };
    let (ours, theirs) = (store(1), store(2));
    let kept = target(&ours, 3);
    back_up(&ours, &kept).unwrap();
    let before = restored(&kept);
    let error = back_up(&theirs, &kept).unwrap_err();
    assert!(error.to_string().contains("the backup of another store"), "{error}");
    assert_eq!(restored(&kept), before);
    // What was restored of it is the same store.
    let again = target(&ours, 4);
    bring_back(&kept, &again).unwrap();
    drop(Journal::open(&again.dir(), "0", config()).unwrap());
    back_up(&again, &kept).unwrap();
}

#[test]
fn a_crash_during_a_restore_leaves_no_store_or_a_whole_one() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    journal.append(&[Entry { owner: 7, bytes: b"said" }], &AppendOptions::default()).unwrap();
    append(&Log::open(&dir, "1/0", config()).unwrap(), 0, 40);
    let kept = target(&bench, 2);
    back_up(&bench, &kept).unwrap();
    let expected = restored(&kept);
    let whole = target(&bench, 3);
    bring_back(&kept, &whole).unwrap();
    let (mut nothing, mut complete) = (0, 0);
    for step in 0..=whole.disk.ops().total() {
        for plan in [CrashPlan::nothing(), CrashPlan::everything(), CrashPlan::random(step)] {
            let store = target(&bench, 4);
            store.disk.stop_at(step);
            let source = kept.options().read_only(true).open_with(kept.disk.io()).unwrap();
            if let Ok(dir) = store.options().open_with(store.disk.io()) {
                let _ = restore(&source, &dir, &mut |_| {});
            }
            store.disk.crash(&plan);
            store.disk.heal();
            let dir = store.dir();
            // As long as there is no mark, nothing has been made of it; behind it, nothing opens but the whole.
            let is_begun = store.disk.paths().iter().any(|path| path.contains("JOURNAL"));
            match Journal::open(&dir, "0", config()) {
                Ok(_) if !is_begun => nothing += 1,
                Ok(journal) => {
                    drop((journal, dir));
                    assert_eq!(contents(&store), expected, "step {step}");
                    complete += 1;
                }
                Err(Error::Corrupt { .. }) => nothing += 1,
                Err(e) => panic!("step {step}: {e}"),
            }
        }
    }
    assert!(nothing > 10 && complete > 0, "{nothing} {complete}");
}

#[test]
fn damage_is_noticed_on_the_way_in_and_on_the_way_out() {
    let bench = Bench::new(1);
    let dir = bench.dir();
    let log = Log::open(&dir, "1/0", config()).unwrap();
    append(&log, 0, 60);
    log.close().unwrap();
    drop(dir);
    let kept = target(&bench, 2);
    back_up(&bench, &kept).unwrap();
    let old = restored(&kept);
    for file in kept.files("files", "") {
        let len = kept.disk.read_file(&file).unwrap().len() as u64;
        for position in [40, 140, 1000].into_iter().filter(|position| *position < len) {
            let damaged = kept.fork(3);
            damaged.disk.corrupt(&file, position, 1, |bytes| bytes[0] ^= 4).unwrap();
            let error = bring_back(&damaged, &target(&bench, 4)).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{file} {position}: {error}");
        }
    }
    let source = bench.fork(5);
    let file = &source.files("1/0", ".log")[0];
    source.disk.corrupt(file, 1000, 1, |bytes| bytes[0] ^= 4).unwrap();
    let error = back_up(&source, &target(&bench, 6)).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { what: Corruption::Hash, .. }), "{error}");
    // What is known by its hash already is not read again.
    back_up(&source, &kept).unwrap();
    assert_eq!(restored(&kept), old);
}

/// On the real disk, with a writer that appends, rolls, removes and compacts all the time.
#[test]
fn every_backup_that_is_taken_while_others_write_is_a_prefix_of_the_log() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let dir = DataDir::open(at("store")).unwrap();
    let config = LogConfig::default().segment_bytes_max(8 << 10).durability(Durability::Buffered);
    let log = Log::open(&dir, "1/0", config.clone()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                log.append(&Record::value(&n.to_le_bytes()).key(&[(n % 7) as u8])).unwrap();
                n += 1;
                if n.is_multiple_of(5000) {
                    log.settle().unwrap();
                    log.compact().unwrap();
                }
                if n.is_multiple_of(7000) {
                    log.delete_records_before(n / 2).unwrap();
                }
            }
        });
        let (mut end, mut round) = (0, 0);
        // However late the writer is given the processor for the first time.
        while round < 8 || end == 0 {
            let source = DataDirOptions::new().read_only(true).open(at("store")).unwrap();
            let result = backup(&source, &DataDir::open(at("backup")).unwrap(), &mut |_| {});
            let report = match result {
                Ok(report) => report,
                Err(e) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("round {round}: {e}");
                }
            };
            assert_eq!(report.doubtful, [""; 0]);
            let kept = DataDirOptions::new().read_only(true).open(at("backup")).unwrap();
            let store = DataDir::open(at(&format!("restored-{round}"))).unwrap();
            restore(&kept, &store, &mut |_| {}).unwrap();
            let copy = Log::open(&store, "1/0", config.clone()).unwrap();
            for record in records(&copy) {
                assert_eq!(record.value.as_deref(), Some(&record.offset.to_le_bytes()[..]));
            }
            assert!(copy.end_offset() >= end);
            end = copy.end_offset();
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
}
