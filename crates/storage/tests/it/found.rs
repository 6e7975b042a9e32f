//! Defects that the tests of this crate have found, each with its story.

use std::future::Future;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, Fault, Op, SimDisk};
use logmill_storage::recovery::Verdict;
use logmill_storage::verify::verify;
use logmill_storage::{
    AppendOptions, DataDir, DataDirOptions, Durability, Error, Journal, Log, LogConfig,
    ManualClock, Record, RecordView, WritePath,
};

use crate::format;
use crate::support::Bench;

fn dir_on(disk: &SimDisk) -> DataDir {
    DataDirOptions::new().threads(0).open_with(disk.io()).unwrap()
}

/// Golden bytes of an index could not be had: `roll` after a sync left a segment of which nobody knew that it was synced,
/// so it was never sealed unless something was appended to the next one, and the log did not even close cleanly.
#[test]
fn a_segment_that_was_synced_before_the_roll_is_sealed_and_the_log_closes_cleanly() {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    log.append(&Record::value(b"durable")).unwrap();
    log.roll().unwrap();
    log.settle().unwrap();
    assert!(disk.paths().contains(&"0/00000000000000000000.index".to_owned()));
    log.close().unwrap();
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    assert!(log.recovery().clean);
    assert_eq!(log.end_offset(), 1);
}

/// The values in a log of another process, which is gone.
fn follow(disk: &SimDisk) -> Result<Vec<Vec<u8>>, Error> {
    let dir = DataDirOptions::new().threads(0).read_only(true).open_with(disk.io())?;
    let log = Log::open(&dir, "0", LogConfig::default())?;
    let mut values = Vec::new();
    log.reader(0)?.for_each(|record: RecordView<'_>| {
        values.push(record.value.unwrap_or_default().to_vec());
        Ok::<_, Error>(())
    })?;
    Ok(values)
}

fn killed_after(values: &[&[u8]]) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    for value in values {
        log.append(&Record::value(value)).unwrap();
    }
    disk.kill();
    disk
}

/// Flipping bits in a synced tail: `for_each` of a follower stopped in front of the damage and returned Ok.
#[test]
fn for_each_of_a_follower_ends_with_the_damage_at_the_logs_end() {
    let disk = killed_after(&[b"one", b"two"]);
    assert_eq!(follow(&disk).unwrap(), [b"one", b"two"]);
    disk.flip_bit("0/00000000000000000000.log", 170 * 8).unwrap();
    assert!(matches!(follow(&disk), Err(Error::Corrupt { offset: 1, .. })));
}

/// A log whose segments are all gone looked empty to a follower: there was no segment to name in the error.
#[test]
fn a_follower_is_told_that_every_segment_is_gone() {
    let disk = killed_after(&[b"one", b"two"]);
    disk.remove_file("0/00000000000000000000.log").unwrap();
    assert!(matches!(follow(&disk), Err(Error::Corrupt { offset: 0, .. })));
}

/// Cutting a closed log's last segment at every length: one byte that happened to be zero was given back by recovery,
/// which made the file as long again as the manifest says before anybody looked at the frames.
#[test]
fn a_segment_shorter_than_what_is_proven_durable_is_refused_by_open_and_not_touched() {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    log.append(&Record::value(b"durable")).unwrap();
    log.close().unwrap();
    let path = "0/00000000000000000000.log";
    let bytes = disk.read_file(path).unwrap();
    for len in 128..bytes.len() {
        let disk = disk.fork(0);
        disk.write_file(path, &bytes[..len]).unwrap();
        let opened = Log::open(&dir_on(&disk), "0", LogConfig::default());
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "length {len}");
        assert_eq!(disk.read_file(path).unwrap(), &bytes[..len]);
    }
}

/// The manifest had been marked open when there was no descriptor left for the live page. The next append found the mark and
/// went on without the page: nobody outside saw what was acknowledged, and recovery had lost its witness.
#[test]
fn a_live_page_that_could_not_be_made_is_made_by_the_next_append() {
    let bench = Bench::new(2);
    let dir = bench.dir();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    bench.disk.fail_next(Op::Create, Fault::Emfile);
    assert!(matches!(log.append(&Record::value(b"refused")), Err(Error::Io { .. })));
    assert_eq!(bench.disk.faults_fired(), 1);
    bench.disk.heal();
    log.append(&Record::value(b"acknowledged")).unwrap();
    let reading = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let follower = Log::open(&reading, "1", LogConfig::default()).unwrap();
    assert_eq!(follower.high_watermark(), 1);
}

/// A clock at the end of time was acknowledged into records that no reader could decode.
#[test]
fn what_is_appended_under_a_clock_that_is_out_of_its_mind_can_be_read() {
    for ms in [i64::MIN, i64::MAX] {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::at(ms));
        let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap();
        let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
        log.append(&Record::value(b"a")).unwrap();
        log.append(&Record::value(b"b").timestamp(1 << 61)).unwrap();
        log.append(&Record::value(b"c").timestamp(-(1 << 61))).unwrap();
        log.append(&Record::value(b"d")).unwrap();
        assert_eq!(log.read(0, usize::MAX).unwrap().len(), 4);
        log.close().unwrap();
        assert_eq!(verify(&dir, &mut |_| {}).unwrap().worst, None);
    }
}

/// A log keeps a few readers for `get`. Those that were last used in a segment that was then removed kept its space for as
/// long as nobody read again.
#[test]
fn removed_segments_give_their_space_back_even_if_they_were_read_before() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default().segment_bytes_max(64 << 10)).unwrap();
    for _ in 0..10 {
        log.append(&Record::value(&[7; 20_000])).unwrap();
    }
    log.get(0).unwrap();
    log.delete_records_before(9).unwrap();
    let is_removed = |path: &std::path::Path| {
        path.starts_with(place.path()) && path.to_string_lossy().ends_with("(deleted)")
    };
    let held: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| is_removed(path))
        .collect();
    assert!(held.is_empty(), "{held:?}");
}

/// `cp --sparse=always` makes holes of zeros. Holes are not mapped, since a store there can kill the process, so a log that
/// was closed and copied like that could not be appended to again.
#[test]
fn a_copy_of_a_log_with_holes_where_there_were_zeros_is_appended_to() {
    let place = tempfile::tempdir().unwrap();
    let config =
        || LogConfig::default().durability(Durability::Buffered).write_path(WritePath::Mapped);
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", config()).unwrap();
    log.append(&Record::value(&[0; 1 << 20])).unwrap();
    log.append(&Record::value(b"after")).unwrap();
    log.close().unwrap();
    drop(dir);
    let path = place.path().join("1/00000000000000000000.log");
    let bytes = std::fs::read(&path).unwrap();
    let copy = std::fs::File::create(&path).unwrap();
    copy.set_len(bytes.len() as u64).unwrap();
    for (block, position) in bytes.chunks(4096).zip((0..).step_by(4096)) {
        if block.iter().any(|byte| *byte != 0) {
            copy.write_all_at(block, position).unwrap();
        }
    }
    drop(copy);
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", config()).unwrap();
    log.append(&Record::value(b"more")).unwrap();
    let lens: Vec<_> = log
        .read(0, usize::MAX)
        .unwrap()
        .iter()
        .map(|record| record.value.as_ref().unwrap().len())
        .collect();
    assert_eq!(lens, [1 << 20, 5, 4]);
}

/// Once an append with a short interval had asked for a sync, a later one with a shorter interval asked for none of its own.
#[test]
fn each_append_is_synced_within_its_own_interval_whatever_others_have_asked_for() {
    let clock = Arc::new(ManualClock::at(0));
    let options = DataDirOptions::new().threads(0).clock(clock.clone());
    let dir = options.open_with(SimDisk::new(1).io()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default().durability(Durability::Buffered)).unwrap();
    let append = |ms| {
        let durability = Some(Durability::Interval(Duration::from_millis(ms)));
        let options = AppendOptions { durability, ..AppendOptions::default() };
        log.append_with(&[Record::value(b"x")], &options).unwrap();
    };
    for ms in [5000, 900, 20, 400] {
        append(ms);
    }
    clock.advance(Duration::from_millis(20));
    dir.tick();
    assert_eq!(log.durable_offset(), 4);
    append(400);
    append(900);
    clock.advance(Duration::from_millis(400));
    dir.tick();
    assert_eq!(log.durable_offset(), 6);
}

/// The limit counted keys and values alone, so `read` took a log of empty records into memory as a whole, and with a limit
/// of 0 it never came to the record that it promises.
#[test]
fn a_read_of_empty_records_is_bounded_and_gives_at_least_one() {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "1", LogConfig::default()).unwrap();
    log.append_batch(&[Record::value(b""); 10_000]).unwrap();
    assert!(log.read(0, 10_000).unwrap().len() < 1_000);
    assert_eq!(log.read(0, 0).unwrap().len(), 1);
    assert_eq!(log.read(10_000, 0).unwrap().len(), 0);
}

/// A ticket kept the writer of its log alive, and who opened the log again waited for that to end: for ever, if it was the
/// thread that held the ticket.
#[test]
fn a_ticket_nobody_waits_for_does_not_keep_a_closed_log_from_being_opened_again() {
    let bench = Bench::new(4);
    let dir = bench.dir();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let ticket = log.submit(&[Record::value(b"a")], &AppendOptions::default()).unwrap();
    log.close().unwrap();
    let again = Log::open(&dir, "1", LogConfig::default()).unwrap();
    assert_eq!(ticket.wait().unwrap().base_offset, 0);
    assert_eq!(again.append(&Record::value(b"b")).unwrap(), 1);
    assert!(matches!(Log::open(&dir, "1", LogConfig::default()), Err(Error::Locked { .. })));
}

/// The same where the log was dropped instead. And the background stopped with the store, so that a task which awaited the
/// ticket was never woken.
#[test]
fn a_ticket_keeps_a_log_that_was_dropped_open_and_settles_without_it() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let mut ticket = log.submit(&[Record::value(b"a")], &AppendOptions::default()).unwrap();
    drop(log);
    assert!(matches!(Log::open(&dir, "1", LogConfig::default()), Err(Error::Locked { .. })));
    drop(dir);
    let (woken, wakes) = std::sync::mpsc::channel();
    let waker = Waker::from(Arc::new(Sends(woken)));
    let mut context = Context::from_waker(&waker);
    while Pin::new(&mut ticket).poll(&mut context).is_pending() {
        wakes.recv_timeout(Duration::from_secs(60)).expect("the ticket wakes its task");
    }
    drop(ticket);
    let log = Log::open(&DataDir::open(place.path()).unwrap(), "1", LogConfig::default()).unwrap();
    assert_eq!(log.end_offset(), 1);
}

struct Sends(Sender<()>);

impl Wake for Sends {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// Power loss on ext4, XFS and btrfs: the next segment had been made and held nothing. Recovery removed it and left the one
/// before with its reservation, as that was proven already; when the log was closed without another append, the manifest
/// said that the file ends where its frames do. So the next open took a closed log for a crashed one.
#[test]
fn a_recovered_log_whose_last_segment_was_empty_closes_cleanly() {
    let appended = |disk: &SimDisk| {
        let log = Log::open(&dir_on(disk), "0", LogConfig::default()).unwrap();
        log.append(&Record::value(b"one")).unwrap();
        log.settle().unwrap();
        log.roll().unwrap();
        log
    };
    let calls = {
        let disk = SimDisk::new(1);
        let log = appended(&disk);
        let before = disk.ops().total();
        log.append(&Record::value(b"two")).unwrap();
        before..disk.ops().total()
    };
    let mut removed = 0;
    for call in calls {
        let disk = SimDisk::new(1);
        let log = appended(&disk);
        disk.stop_at(call);
        let _ = log.append(&Record::value(b"two"));
        drop(log);
        disk.kill();
        removed +=
            usize::from(disk.paths().iter().filter(|path| path.ends_with(".log")).count() > 1);
        let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
        let end = log.end_offset();
        log.close().unwrap();
        let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
        assert!(log.recovery().clean, "cut at call {call}");
        assert_eq!(log.end_offset(), end);
    }
    assert!(removed > 0, "some cuts left a second segment");
}

/// A log of two segments: the first synced and never sealed, the second begun and empty.
fn an_empty_segment_behind_a_synced_one() -> SimDisk {
    let disk = SimDisk::new(1);
    let dir = dir_on(&disk);
    let log = Log::open(&dir, "0", LogConfig::default().segment_bytes_max(4 << 10)).unwrap();
    log.append(&Record::value(&[b'1'; 2_000])).unwrap();
    log.append(&Record::value(&[b'2'; 1_000])).unwrap();
    log.settle().unwrap();
    let options =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    log.append_with(&[Record::value(&[b'3'; 2_000])], &options).unwrap();
    disk.crash(&CrashPlan::nothing());
    assert_eq!(disk.paths().iter().filter(|path| path.ends_with(".log")).count(), 2);
    disk
}

/// Found beside the one above: where the second of the two durable records had rotted to zeros, recovery looked in the first
/// segment for the place where the log ends, found one a record too early, and did not ask why.
#[test]
fn durable_records_that_are_gone_from_before_an_empty_last_segment_are_missed() {
    let disk = an_empty_segment_behind_a_synced_one();
    let segment = "0/00000000000000000000.log";
    let second = format::frames(&disk.read_file(segment).unwrap()).last().unwrap();
    disk.corrupt(segment, second.start as u64, second.len(), |bytes| bytes.fill(0)).unwrap();
    match Log::open(&dir_on(&disk), "0", LogConfig::default()) {
        Err(Error::Corrupt { position, offset, .. }) => {
            assert_eq!((position, offset), (second.start as u64, 1));
        }
        other => panic!("{:?}", other.map(|log| log.recovery().clone())),
    }
}

/// Sealed records, and one more, synced, in a second segment that begins at offset 10.
fn a_second_segment_after_a_power_loss() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    for n in 0..10u8 {
        log.append(&Record::value(&[n; 100])).unwrap();
    }
    log.roll().unwrap();
    log.settle().unwrap();
    log.append(&Record::value(b"acknowledged")).unwrap();
    disk.crash(&CrashPlan::nothing());
    disk
}

/// A segment whose head had rotted to zeros was taken for one that was begun and never written, though frames followed: it
/// was removed, with an acknowledged record in it, and no copy was kept.
#[test]
fn a_last_segment_that_has_lost_its_head_and_holds_frames_is_not_removed() {
    let disk = a_second_segment_after_a_power_loss();
    let path = "0/00000000000000000010.log";
    // The live page is never synced, so it may not know of the record.
    disk.remove_file("0/live").unwrap();
    disk.corrupt(path, 0, 128, |bytes| bytes.fill(0)).unwrap();
    let before = disk.read_file(path);
    let opened = Log::open(&dir_on(&disk), "0", LogConfig::default());
    assert!(matches!(opened, Err(Error::Corrupt { position: 0, offset: 10, .. })));
    assert_eq!(disk.read_file(path), before);
}

/// The same for a segment behind the end, whatever is wrong with its head: it is set aside.
#[test]
fn a_segment_behind_the_end_with_a_damaged_head_and_frames_is_set_aside() {
    for damage in [|bytes: &mut [u8]| bytes.fill(0), |bytes: &mut [u8]| bytes[20] ^= 1] {
        let disk = SimDisk::new(1);
        let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
        let options =
            AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
        log.append_with(&[Record::value(b"lost")], &options).unwrap();
        log.roll().unwrap();
        log.append_with(&[Record::value(b"kept")], &options).unwrap();
        disk.kill();
        disk.corrupt("0/00000000000000000000.log", 128, 40, |bytes| bytes.fill(0)).unwrap();
        disk.corrupt("0/00000000000000000001.log", 0, 128, damage).unwrap();
        disk.remove_file("0/live").unwrap();
        let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
        assert_eq!(log.recovery().quarantined.len(), 1, "{:?}", log.recovery());
    }
}

/// The last frame before the proven point had lost its bytes, the file had the right length: the log opened as a clean one,
/// and what was appended behind the hole was acknowledged and could not be read.
#[test]
fn a_proven_end_that_the_frames_do_not_bear_out_is_lost_records_whether_the_log_was_closed_or_not()
{
    for closed in [true, false] {
        for value in [10, 10_000, 500_000] {
            let disk = SimDisk::new(1);
            let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
            for _ in 0..3 {
                log.append(&Record::value(&vec![7; value])).unwrap();
            }
            log.settle().unwrap();
            if closed {
                log.close().unwrap();
            }
            disk.kill();
            let path = "0/00000000000000000000.log";
            let last = format::frames(&disk.read_file(path).unwrap()).last().unwrap();
            let sound = Log::open(&dir_on(&disk.fork(1)), "0", LogConfig::default()).unwrap();
            assert_eq!((sound.recovery().clean, sound.recovery().scanned_bytes), (closed, 0));
            disk.corrupt(path, last.start as u64, last.len(), |bytes| bytes.fill(0)).unwrap();
            match Log::open(&dir_on(&disk), "0", LogConfig::default()) {
                Err(Error::Corrupt { position, offset, .. }) => {
                    assert_eq!((position, offset), (last.start as u64, 2));
                }
                other => panic!("{:?}", other.map(|log| log.recovery().clone())),
            }
            assert!(matches!(follow(&disk), Err(Error::Corrupt { offset: 2, .. })));
        }
    }
}

/// A checkpoint that was a sparse file got as much memory as the file was long, before anybody looked at its checksum.
#[test]
fn a_sparse_checkpoint_costs_no_memory() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    journal.checkpoint(5, journal.reach(), &[7; 100_000]).unwrap();
    assert_eq!(journal.load_checkpoint(5), Some((journal.reach(), vec![7; 100_000])));
    let path = place.path().join("0/checkpoint-5");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for len in [1 << 30, 1 << 40] {
        file.set_len(len).unwrap();
        assert_eq!(journal.load_checkpoint(5), None);
    }
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 700 << 10, "{kib} KiB");
}

/// Failing each call of a random workload: a reader at the end of a segment that was ended and removed before anybody sealed it
/// called what came next lost, as nothing said any more that the segment had a successor.
#[test]
fn a_reader_at_the_end_of_a_removed_segment_goes_on_in_what_follows() {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    log.append(&Record::value(b"removed")).unwrap();
    let reading = DataDirOptions::new().threads(0).read_only(true).open_with(disk.io()).unwrap();
    let follower = Log::open(&reading, "0", LogConfig::default()).unwrap();
    let mut readers = [&log, &follower].map(|log| [log.reader(0).unwrap(), log.reader(0).unwrap()]);
    for reader in readers.iter_mut().flatten() {
        assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 0);
    }
    log.roll().unwrap();
    log.append(&Record::value(b"kept")).unwrap();
    log.delete_records_before(1).unwrap();
    for [reader, _] in &mut readers {
        assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), 1);
    }
    log.roll().unwrap();
    log.append(&Record::value(b"the last")).unwrap();
    log.delete_records_before(2).unwrap();
    for [_, late] in &mut readers {
        assert!(matches!(
            late.next_batch(),
            Err(Error::OffsetOutOfRange { offset: 1, start: 2, .. })
        ));
    }
}

/// A log that stores through a mapping went on with the live page of its last start: the page says "stored" without a
/// system call for each append, so it never moves. Behind the first damage in the same boot everything then looked as if
/// it had never been acknowledged, and records that kill -9 must not take were cut off without a copy.
#[test]
fn what_a_mapped_log_had_acknowledged_before_damage_is_set_aside_and_not_just_cut() {
    let disk = SimDisk::new(1);
    let config =
        LogConfig::default().durability(Durability::Buffered).write_path(WritePath::Mapped);
    let log = Log::open(&dir_on(&disk), "0", config.clone()).unwrap();
    log.append(&Record::value(b"of an earlier session")).unwrap();
    log.close().unwrap();
    let log = Log::open(&dir_on(&disk), "0", config.clone()).unwrap();
    let path = "0/00000000000000000000.log";
    let at = |value: &[u8]| {
        let bytes = disk.read_file(path).unwrap();
        bytes.windows(value.len()).position(|window| window == value).unwrap() as u64
    };
    for value in [b"first", b"other", b"third"] {
        log.append(&Record::value(value)).unwrap();
    }
    disk.kill();
    disk.flip_bit(path, at(b"other") * 8).unwrap();
    let log = Log::open(&dir_on(&disk), "0", config).unwrap();
    let report = log.recovery();
    assert_eq!((report.end_offset, report.verdict), (2, Verdict::Ambiguous));
    assert_eq!(report.quarantined.len(), 1);
}

/// Damage below the proven point stops who reads it, and nobody else. A segment that lost its footer is to be sealed anew;
/// that must neither hide what it lost nor touch it.
#[test]
fn a_segment_of_a_closed_log_that_was_cut_is_reported_and_not_sealed_and_appends_go_on() {
    for (len, first_lost) in [(128 + 200, 2), (128 + 500, 3), (128, 2)] {
        let disk = SimDisk::new(1);
        let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
        for value in [[1; 300], [2; 300], [3; 300]] {
            log.append(&Record::value(&value)).unwrap();
            log.append(&Record::value(&value)).unwrap();
            log.roll().unwrap();
        }
        log.close().unwrap();
        let path = "0/00000000000000000002.log";
        let cut = disk.read_file(path).unwrap()[..len].to_vec();
        disk.remove_file(path).unwrap();
        disk.write_file(path, &cut).unwrap();
        let dir = dir_on(&disk);
        let log = Log::open(&dir, "0", LogConfig::default()).unwrap();
        assert_eq!(log.append(&Record::value(b"goes on")).unwrap(), 6);
        for _ in 0..3 {
            dir.tick();
        }
        let health = format!("{:?}", dir.health());
        assert!(
            health.contains("Corrupt") || health.contains("00000000000000000002.log"),
            "{health}"
        );
        let mut reader = log.reader(0).unwrap();
        let stopped = reader.for_each(|_| Ok::<_, Error>(())).unwrap_err();
        assert!(
            matches!(stopped, Error::Corrupt { offset, .. } if offset == first_lost),
            "{stopped}"
        );
        assert_eq!(log.get(6).unwrap().unwrap().value.as_deref(), Some(&b"goes on"[..]));
        log.close().unwrap_err();
        assert_eq!(disk.read_file(path).unwrap(), cut);
    }
}
