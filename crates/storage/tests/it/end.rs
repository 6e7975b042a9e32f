//! Damage at the end of a log, as somebody meets it who only reads: what is before it can be had, and what is behind it was
//! lost, which is something else than never written. A writer that comes meanwhile does no damage.

use std::io::Result as IoResult;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use logmill_storage::io::{Entry as Listed, File, FileSystem, Io, Lock, LockKind, Open};
use logmill_storage::recovery::Verdict;
use logmill_storage::{
    AppendOptions, Corruption, DataDir, DataDirOptions, Durability, Entry, Error, Journal, Log,
    LogConfig, Reach, Record, WritePath,
};

use crate::support::Bench;

const FIRST: &str = "0/00000000000000000000.log";
const LAST: &str = "0/00000000000000000002.log";

fn read_only(bench: &Bench) -> DataDir {
    bench.options().read_only(true).open_with(bench.disk.io()).unwrap()
}

/// A closed log of two segments: "a" and "b", "c" and "d".
fn two_segments() -> Bench {
    let bench = Bench::new(1);
    let log = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap();
    for (n, value) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
        log.append(&Record::value(value)).unwrap();
        if n == 1 {
            log.roll().unwrap();
        }
    }
    log.close().unwrap();
    bench
}

/// One byte less at the end of a closed log, and a reader of another process had nothing of it at all, not even of the
/// segments before; and beyond the damage a consumer was told that there is no such offset, as if nothing were wrong.
#[test]
fn what_comes_before_damage_can_be_read_and_what_comes_after_it_is_said_to_be_lost() {
    type Damage = fn(&Bench, &[u8]);
    let cases: [(&str, Damage, &str); 4] = [
        ("a byte", |b, bytes| b.disk.write_file(LAST, &bytes[..bytes.len() - 1]).unwrap(), "abc"),
        ("its end", |b, bytes| b.disk.write_file(LAST, &bytes[..130]).unwrap(), "ab"),
        ("all bytes", |b, _| b.disk.write_file(LAST, &[]).unwrap(), "ab"),
        ("the file", |b, _| b.disk.remove_file(LAST).unwrap(), "ab"),
    ];
    for (what, damage, kept) in cases {
        let bench = two_segments();
        let bytes = bench.disk.read_file(LAST).unwrap();
        damage(&bench, &bytes);
        let lost = kept.len() as u64;
        let is_told = |error: &Error| match error {
            Error::Corrupt { path, offset, .. } => {
                *offset == lost && path.starts_with("0") && path.extension().is_some()
            }
            _ => false,
        };
        let dir = read_only(&bench);
        let log = Log::open(&dir, "0", LogConfig::default()).unwrap();
        assert_eq!(log.recovery().verdict, Verdict::Corrupt, "without {what}");
        let mut values = String::new();
        let told = log.reader(0).unwrap().for_each(|record| {
            values.push_str(std::str::from_utf8(record.value.unwrap()).unwrap());
            Ok::<_, Error>(())
        });
        assert_eq!(values, kept, "without {what}");
        assert!(is_told(&told.unwrap_err()), "without {what}");
        for offset in [lost, lost + 1, u64::MAX] {
            let told = log.get(offset).unwrap_err();
            assert!(is_told(&told), "without {what}, offset {offset}: {told}");
        }
        let told = log.reader(lost + 1).unwrap_err();
        assert!(is_told(&told), "without {what}: {told}");
        // Whoever would write is refused, and changes nothing.
        let refused = Log::open(&bench.dir(), "0", LogConfig::default()).unwrap_err();
        assert!(matches!(refused, Error::Corrupt { .. }), "without {what}: {refused}");
    }
}

#[test]
fn a_log_that_lost_its_first_segment_has_nothing_before_the_damage() {
    let bench = two_segments();
    bench.disk.remove_file(FIRST).unwrap();
    let log = Log::open(&read_only(&bench), "0", LogConfig::default()).unwrap();
    for offset in [0, 3] {
        let told = log.get(offset).unwrap_err();
        let what = Corruption::Gap { expected: 0, found: 2 };
        assert!(matches!(&told, Error::Corrupt { offset: 0, what: w, .. } if *w == what), "{told}");
    }
}

fn replayed(bench: &Bench) -> Result<Vec<u8>, Error> {
    let journal = Journal::open(&read_only(bench), "0", LogConfig::default())?;
    let mut bytes = Vec::new();
    journal.replay(Reach::default(), |entry| {
        bytes.extend_from_slice(entry.bytes);
        Ok(())
    })?;
    Ok(bytes)
}

/// Where the bytes of the first segment end.
fn end_of(bench: &Bench) -> usize {
    let bytes = bench.disk.read_file(FIRST).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn journaled(bench: &Bench, durability: Durability, path: WritePath) -> (DataDir, Journal) {
    let dir = bench.dir();
    let journal = Journal::open(&dir, "0", LogConfig::default().write_path(path)).unwrap();
    let options = AppendOptions { durability: Some(durability), ..AppendOptions::default() };
    for bytes in [b"a", b"b", b"c"] {
        journal.append(&[Entry { owner: 1, bytes }], &options).unwrap();
    }
    (dir, journal)
}

/// Whoever only read took the end of what could be read for the end of the journal: a store whose journal had lost its
/// records had no topics and no queues, and nothing seemed to be wrong.
#[test]
fn whoever_only_reads_a_journal_is_told_that_its_end_was_lost() {
    for is_closed in [true, false] {
        for damage in ["gone", "zeroed"] {
            let bench = Bench::new(1);
            let (dir, journal) = journaled(&bench, Durability::Sync, WritePath::Positional);
            match is_closed {
                true => journal.close().unwrap(),
                false => bench.disk.kill(),
            }
            drop(dir);
            assert_eq!(replayed(&bench).unwrap(), b"abc");
            match damage {
                "gone" => bench.disk.remove_file(FIRST).unwrap(),
                _ => {
                    let end = end_of(&bench);
                    bench.disk.corrupt(FIRST, 180, end - 180, |bytes| bytes.fill(0)).unwrap();
                }
            }
            let told = replayed(&bench).unwrap_err();
            assert!(matches!(told, Error::Corrupt { .. }), "{damage}, closed {is_closed}: {told}");
        }
    }
}

/// What a writer has stored and not synced, or is about to store, is no damage to those who look on; and after its death
/// neither is what was never acknowledged.
#[test]
fn entries_that_are_on_their_way_are_no_damage_to_whoever_reads_the_journal_beside_the_writer() {
    let bench = Bench::new(1);
    let (_dir, _journal) = journaled(&bench, Durability::Buffered, WritePath::Mapped);
    // A part of the last entry is there, as while it is being stored.
    let end = end_of(&bench) as u64;
    bench.disk.corrupt(FIRST, end - 4, 4, |bytes| bytes.fill(0)).unwrap();
    assert_eq!(replayed(&bench).unwrap(), b"ab");
    bench.disk.kill();
    assert_eq!(replayed(&bench).unwrap(), b"ab");
}

/// Only `verify` and the report of the one log said that bytes had been set aside: whoever opened a store with a journal and
/// a thousand partitions was not told.
#[test]
fn what_opening_the_logs_has_set_aside_is_told_by_their_directory() {
    let bench = Bench::new(1);
    let (dir, journal) = journaled(&bench, Durability::Buffered, WritePath::Mapped);
    let config = LogConfig::default().durability(Durability::Buffered);
    let sound = Log::open(&dir, "1/0", config.clone()).unwrap();
    sound.append(&Record::value(b"a")).unwrap();
    sound.close().unwrap();
    let end = end_of(&bench) as u64;
    bench.disk.flip_bit(FIRST, (end - 1) * 8).unwrap();
    bench.disk.kill();
    drop((journal, dir));
    let names = |dir: &DataDir| dir.recovery().into_iter().map(|r| r.log).collect::<Vec<_>>();

    let watching = read_only(&bench);
    drop(Journal::open(&watching, "0", LogConfig::default()).unwrap());
    assert_eq!(names(&watching), ["0"]);
    assert_eq!(watching.recovery()[0].report.verdict, Verdict::Ambiguous);

    let dir = bench.dir();
    assert_eq!(dir.recovery(), []);
    for _ in 0..2 {
        let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
        drop(Log::open(&dir, "1/0", config.clone()).unwrap());
        assert_eq!(names(&dir), ["0"], "what was closed has nothing to tell");
        let report = &dir.recovery()[0].report;
        assert_eq!((report.end_offset, report.quarantined.len()), (2, 1));
        let kept = bench.disk.read_file(report.quarantined[0].to_str().unwrap()).unwrap();
        assert_eq!(report.dropped_bytes, kept.len() as u64);
        journal.close().unwrap();
    }
}

/// Another process, to which something happens before its `at`-th call.
#[derive(Debug)]
struct Interrupted {
    inner: Arc<dyn Io>,
    calls: AtomicU32,
    at: u32,
    event: Mutex<Option<Event>>,
}

struct Event(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Event")
    }
}

impl Interrupted {
    fn count(&self) -> &dyn Io {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at
            && let Some(Event(happen)) = self.event.lock().unwrap().take()
        {
            happen();
        }
        self.inner.as_ref()
    }
}

impl Io for Interrupted {
    fn open(&self, path: &Path, how: Open) -> IoResult<Arc<dyn File>> {
        self.count().open(path, how)
    }
    fn list(&self, path: &Path) -> IoResult<Vec<Listed>> {
        self.count().list(path)
    }
    fn lock(&self, path: &Path, kind: LockKind) -> IoResult<Option<Box<dyn Lock>>> {
        self.count().lock(path, kind)
    }
    fn mode(&self) -> IoResult<u32> {
        self.inner.mode()
    }
    fn create_dir(&self, path: &Path) -> IoResult<()> {
        self.inner.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> IoResult<()> {
        self.inner.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> IoResult<()> {
        self.inner.unlink(path)
    }
    fn remove_dir(&self, path: &Path) -> IoResult<()> {
        self.inner.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> IoResult<()> {
        self.inner.sync_dir(path)
    }
    fn file_system(&self) -> FileSystem {
        self.inner.file_system()
    }
    fn free_space(&self) -> IoResult<u64> {
        self.inner.free_space()
    }
    fn boot_id(&self) -> [u8; 16] {
        self.inner.boot_id()
    }
    fn random(&self, buffer: &mut [u8]) -> IoResult<()> {
        self.inner.random(buffer)
    }
}

/// A reader that had found no writer judged the files by a manifest that the next writer replaced meanwhile: what that one
/// had removed was a gap.
#[test]
fn a_writer_that_comes_while_its_log_is_judged_is_no_damage() {
    for stays in [true, false] {
        let mut at = 0;
        loop {
            let bench = two_segments();
            let next = bench.options();
            let disk = bench.disk.io();
            let alive = Arc::new(Mutex::new(None));
            let event = {
                let alive = Arc::clone(&alive);
                Event(Box::new(move || {
                    let dir = next.open_with(disk).unwrap();
                    let log = Log::open(&dir, "0", LogConfig::default()).unwrap();
                    log.append(&Record::value(b"e")).unwrap();
                    log.roll().unwrap();
                    log.append(&Record::value(b"f")).unwrap();
                    log.delete_records_before(5).unwrap();
                    *alive.lock().unwrap() = Some((dir, log));
                    if !stays {
                        alive.lock().unwrap().take();
                    }
                }))
            };
            let io = Arc::new(Interrupted {
                inner: bench.disk.io(),
                calls: AtomicU32::new(0),
                at,
                event: Mutex::new(Some(event)),
            });
            let options: DataDirOptions = bench.options().read_only(true);
            let dir = options.open_with(Arc::<Interrupted>::clone(&io)).unwrap();
            let log = Log::open(&dir, "0", LogConfig::default());
            let log = log.unwrap_or_else(|e| panic!("call {at}, stays {stays}: {e}"));
            for _ in 0..2 {
                let told = log.reader(log.start_offset()).unwrap().for_each(|_| Ok::<_, Error>(()));
                assert!(
                    matches!(told, Ok(()) | Err(Error::OffsetOutOfRange { .. })),
                    "call {at}, stays {stays}: {told:?}"
                );
            }
            if io.event.lock().unwrap().is_some() {
                assert!(at > 10, "only {at} calls");
                break;
            }
            at += 1;
        }
    }
}
