//! What recovery makes of files, one decision at a time: each case is a log whose bytes were changed behind its back.

use std::io::ErrorKind;

use logmill_storage::io::FileSystem;
use logmill_storage::io::sim::{CrashPlan, Fault, Op, SimDisk};
use logmill_storage::recovery::Verdict;
use logmill_storage::{
    AppendOptions, Corruption, DataDir, DataDirOptions, Durability, Error, Log, LogConfig,
    Producer, Record, WritePath,
};

use crate::format;
use crate::lens::Lens;

fn dir_on(disk: &SimDisk) -> DataDir {
    DataDirOptions::new().threads(0).open_with(disk.io()).unwrap()
}

fn config() -> LogConfig {
    LogConfig::default().spare_bytes(0)
}

fn open(disk: &SimDisk) -> Result<Log, Error> {
    Log::open(&dir_on(disk), "0", config())
}

fn named(base: u64) -> String {
    format!("0/{base:020}.log")
}

fn file(disk: &SimDisk, base: u64) -> Vec<u8> {
    disk.read_file(&named(base)).unwrap()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".log")).collect()
}

fn append(log: &Log, values: &[&[u8]], durability: Durability) {
    let options = AppendOptions { durability: Some(durability), ..AppendOptions::default() };
    for value in values {
        log.append_with(&[Record::value(value)], &options).unwrap();
    }
}

fn values(log: &Log) -> Vec<Vec<u8>> {
    let records = log.read(log.start_offset(), usize::MAX).unwrap();
    records.into_iter().map(|record| record.value.unwrap().to_vec()).collect()
}

/// A segment whose head says something else at `at`, with the checksum that it should have.
fn with_head(mut segment: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    segment[at..][..bytes.len()].copy_from_slice(bytes);
    let crc = format::crc32(&[&segment[..124]]);
    segment[124..128].copy_from_slice(&crc.to_le_bytes());
    segment
}

const GENERATION: usize = 52;

/// A log that begins at `start`, in its first segment; and a segment of the same log that holds the last two offsets of that one,
/// as they were before.
fn with_another_past(start: u64) -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"a"], Durability::Sync);
    log.close().unwrap();
    let other = disk.fork(2);
    let old = open(&other).unwrap();
    old.roll().unwrap();
    append(&old, &[b"old", b"old"], Durability::Sync);
    old.roll().unwrap();
    old.settle().unwrap();
    let log = open(&disk).unwrap();
    append(&log, &[b"new", b"new"], Durability::Sync);
    log.roll().unwrap();
    append(&log, &[b"z"], Durability::Sync);
    log.settle().unwrap();
    log.delete_records_before(start).unwrap();
    disk.kill();
    (disk, file(&other, 1))
}

#[test]
fn of_two_segments_that_hold_the_start_the_earlier_counts_only_if_compaction_made_it() {
    let (disk, old) = with_another_past(2);
    assert_eq!(values(&open(&disk.fork(1)).unwrap()), [b"new".as_slice(), b"z"]);
    let merged = with_head(file(&disk, 0), GENERATION, &[1]);
    let mut headless = merged.clone();
    headless[0] ^= 1;
    for (first, kept, gone) in
        [(&merged, b"new", 1), (&file(&disk, 0), b"old", 0), (&headless, b"old", 0)]
    {
        let disk = disk.fork(1);
        disk.write_file(&named(0), first).unwrap();
        disk.write_file(&named(1), &old).unwrap();
        let log = open(&disk).unwrap();
        assert_eq!(values(&log), [kept.as_slice(), b"z"]);
        assert!(!disk.paths().contains(&named(gone)), "{:?}", disk.paths());
    }
}

#[test]
fn a_segment_within_another_is_left_over_from_compaction_or_damage() {
    let (disk, old) = with_another_past(0);
    disk.write_file(&named(1), &old).unwrap();
    let before = segments(&disk);
    match open(&disk) {
        Err(Error::Corrupt {
            offset: 1,
            what: Corruption::Offset { expected: 3, found: 1 },
            ..
        }) => {}
        other => panic!("{:?}", other.map(|log| log.recovery().clone())),
    }
    assert_eq!(segments(&disk), before);
    disk.write_file(&named(0), &with_head(file(&disk, 0), GENERATION, &[1])).unwrap();
    assert_eq!(values(&open(&disk).unwrap()), [b"a".as_slice(), b"new", b"new", b"z"]);
    assert_eq!(segments(&disk), [named(0), named(3)]);
}

#[test]
fn what_lies_wholly_below_the_start_is_removed_whatever_it_looks_like() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    for value in [b"0", b"1", b"2"] {
        append(&log, &[value], Durability::Sync);
        log.roll().unwrap();
        log.settle().unwrap();
    }
    let sealed = file(&disk, 0);
    log.delete_records_before(1).unwrap();
    assert_eq!(segments(&disk), [named(1), named(2)]);
    disk.kill();
    let compacted = with_head(sealed.clone(), GENERATION, &[1]);
    for rest in [&sealed[..], &compacted, &sealed[..sealed.len() - 1], b"not a segment", b""] {
        let disk = disk.fork(1);
        disk.write_file(&named(0), rest).unwrap();
        assert_eq!(values(&open(&disk).unwrap()), [b"1", b"2"]);
        assert_eq!(segments(&disk), [named(1), named(2)]);
    }
}

/// A follower lists the segments and then opens them; retention may remove some in between.
#[test]
fn a_segment_that_goes_while_a_follower_opens_the_log_is_passed_and_one_that_cannot_be_read_is_not()
{
    let (disk, old) = with_another_past(2);
    disk.write_file(&named(1), &old).unwrap();
    let opened = |kind| {
        let io = Lens::refusing(disk.io(), &named(0), kind);
        let dir = DataDirOptions::new().threads(0).read_only(true).open_with(io).unwrap();
        Log::open(&dir, "0", config()).map(|log| values(&log))
    };
    assert_eq!(opened(ErrorKind::NotFound).unwrap(), [b"old".as_slice(), b"z"]);
    assert!(matches!(opened(ErrorKind::PermissionDenied), Err(Error::Io { op: "open", .. })));
}

/// A manifest slot that says something else at `at`, twice.
fn set_manifest(disk: &SimDisk, changes: &[(usize, u64)]) {
    let bytes = disk.read_file("0/manifest").unwrap();
    let generation = |slot: &&[u8]| u64::from_le_bytes(slot[24..32].try_into().unwrap());
    let mut slot = bytes.chunks(4096).max_by_key(generation).unwrap().to_vec();
    for (at, value) in changes {
        slot[*at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let crc = format::crc32(&[&slot[..4092]]);
    slot[4092..].copy_from_slice(&crc.to_le_bytes());
    disk.write_file("0/manifest", &slot.repeat(2)).unwrap();
}

const PROVEN_OFFSET: usize = 64;
const PROVEN_SEGMENT: usize = 72;
const PROVEN_POSITION: usize = 80;

#[test]
fn a_log_that_was_closed_behind_a_segment_without_frames_is_clean_if_that_begins_at_the_end() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"a", b"b"], Durability::Sync);
    log.close().unwrap();
    let empty = with_head(file(&disk, 0)[..128].to_vec(), 40, &[2]);
    disk.write_file(&named(2), &empty).unwrap();
    for (offset, position, clean) in [(2, 128, true), (3, 128, false), (3, 127, false)] {
        let disk = disk.fork(1);
        let point = [(PROVEN_OFFSET, offset), (PROVEN_SEGMENT, 2), (PROVEN_POSITION, position)];
        set_manifest(&disk, &point);
        disk.write_file(&named(2), &empty[..position as usize]).unwrap();
        match open(&disk) {
            Ok(log) => assert_eq!((log.recovery().clean, log.end_offset()), (true, 2)),
            // Offset 2 was proven, and is not there.
            Err(Error::Corrupt { .. }) => assert!(!clean),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_closed_log_is_clean_only_if_its_last_segment_is_the_one_that_the_manifest_names() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"a", b"b"], Durability::Sync);
    log.close().unwrap();
    set_manifest(&disk, &[(PROVEN_SEGMENT, 1)]);
    let log = open(&disk).unwrap();
    assert_eq!((log.recovery().clean, values(&log)), (false, vec![b"a".to_vec(), b"b".to_vec()]));
}

/// Values may hold what looks like any number of frames that end where they do.
#[test]
fn the_frame_before_the_proven_end_is_looked_for_so_often_and_then_everything_is_verified() {
    for (false_heads, scanned) in [(63, false), (64, true)] {
        let mut value = vec![0xFF; 40 + false_heads * 20];
        let len = value.len();
        for n in 1..=false_heads {
            let head = &mut value[len - n * 20..][..20];
            head.fill(0);
            // The record ends with a count of headers.
            head[4..8].copy_from_slice(&(n as u32 * 20 + 1 - 16).to_le_bytes());
        }
        let disk = SimDisk::new(1);
        append(&open(&disk).unwrap(), &[&value], Durability::Sync);
        disk.kill();
        let data_end = format::data_end(&file(&disk, 0)) as u64;
        set_manifest(&disk, &[(PROVEN_OFFSET, 1), (PROVEN_POSITION, data_end)]);
        let log = open(&disk).unwrap();
        assert_eq!(log.recovery().scanned_bytes > 0, scanned, "{false_heads}");
        assert_eq!(values(&log), [value]);
    }
}

/// The log of one durable record and one that is not, in a second segment.
fn two_segments() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"first"], Durability::Sync);
    log.roll().unwrap();
    log.settle().unwrap();
    append(&log, &[b"second"], Durability::Buffered);
    disk.kill();
    disk
}

#[test]
fn a_last_segment_that_was_named_and_never_written_is_removed_unless_it_held_what_was_durable() {
    let disk = two_segments();
    for len in [0, 1, 128, 4096] {
        let disk = disk.fork(1);
        disk.remove_file("0/live").unwrap();
        disk.write_file(&named(1), &vec![0; len]).unwrap();
        let log = open(&disk).unwrap();
        assert_eq!((log.recovery().verdict, log.recovery().epoch), (Verdict::Cut, 2));
        assert_eq!((values(&log), segments(&disk)), (vec![b"first".to_vec()], vec![named(0)]));
    }
    // The same in the middle of the log, and where the manifest says that a record of it was durable.
    let between = disk.fork(1);
    between.write_file(&named(2), &with_head(file(&disk, 1), 40, &[2])).unwrap();
    set_manifest(&disk, &[(PROVEN_OFFSET, 2), (PROVEN_SEGMENT, 1), (PROVEN_POSITION, 128)]);
    for disk in [between, disk] {
        disk.remove_file("0/live").unwrap();
        disk.write_file(&named(1), &[0; 4096]).unwrap();
        let before = segments(&disk);
        assert!(matches!(open(&disk), Err(Error::Corrupt { position: 0, offset: 1, .. })));
        assert_eq!(segments(&disk), before);
    }
}

/// A write failed half-way, the log went on in another segment: bytes between the end of a segment and the next segment that
/// begins there are nobody's.
#[test]
fn what_a_failed_write_left_before_the_next_segment_is_nothing() {
    for is_sealed in [false, true] {
        let disk = SimDisk::new(1);
        let log = open(&disk).unwrap();
        let proves_nothing = disk.read_file("0/manifest").unwrap();
        append(&log, &[b"first"], Durability::Buffered);
        log.roll().unwrap();
        append(&log, &[b"second"], Durability::Buffered);
        if is_sealed {
            log.roll().unwrap();
            log.settle().unwrap();
        }
        disk.kill();
        disk.write_file("0/manifest", &proves_nothing).unwrap();
        let bytes = file(&disk, 0);
        let end = format::data_end(&bytes);
        disk.write_file(&named(0), &[&bytes[..end], b"half a frame"].concat()).unwrap();
        let log = open(&disk).unwrap();
        let report = log.recovery();
        let found = (report.verdict, report.dropped_bytes, report.end_offset);
        assert_eq!(found, (Verdict::Clean, 0, 2), "{is_sealed}");
        assert_eq!(values(&log), [b"first".as_slice(), b"second"]);
    }
}

/// Checksums hold wherever in its segment a frame lies, so a frame that is missing shows by the offsets alone.
#[test]
fn a_frame_whose_offset_does_not_follow_ends_the_log() {
    let disk = SimDisk::new(1);
    append(&open(&disk).unwrap(), &[b"1", b"2", b"3"], Durability::Buffered);
    disk.kill();
    let bytes = file(&disk, 0);
    let frames: Vec<_> = format::frames(&bytes).collect();
    disk.remove_file("0/live").unwrap();
    disk.write_file(&named(0), &[&bytes[..frames[1].start], &bytes[frames[2].clone()]].concat())
        .unwrap();
    let log = open(&disk).unwrap();
    let report = log.recovery();
    assert_eq!((report.verdict, report.end_offset), (Verdict::Ambiguous, 1));
    // The last byte of a record without headers is zero, as is what was reserved behind it.
    let rest = &bytes[frames[2].start..frames[2].end - 1];
    assert_eq!(report.dropped_bytes, rest.len() as u64);
    assert_eq!(disk.read_file(report.quarantined[0].to_str().unwrap()).unwrap(), rest);
    assert_eq!(values(&log), [b"1"]);
}

#[test]
fn a_footer_behind_which_the_length_was_not_cut_yet_is_no_rest() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"1", b"2"], Durability::Sync);
    log.roll().unwrap();
    log.settle().unwrap();
    disk.crash(&CrashPlan::everything());
    let sealed = file(&disk, 0);
    let mut damaged = sealed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (bytes, verdict) in [
        (sealed.clone(), Verdict::Clean),
        ([&sealed[..], &[0; 4096]].concat(), Verdict::Clean),
        ([&damaged[..], &[0; 4096]].concat(), Verdict::Ambiguous),
    ] {
        let disk = disk.fork(1);
        disk.remove_file("0/live").unwrap();
        disk.write_file(&named(0), &bytes).unwrap();
        let log = open(&disk).unwrap();
        assert_eq!(log.recovery().verdict, verdict);
        assert_eq!(values(&log), [b"1", b"2"]);
    }
}

/// `empty` is a last segment in which nothing was stored; what is before it is the end, sealed or not.
#[test]
fn the_end_of_a_log_whose_last_segment_is_empty_is_that_of_the_one_before_it() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    for value in [b"1", b"2"] {
        append(&log, &[value], Durability::Sync);
        log.roll().unwrap();
        log.settle().unwrap();
    }
    disk.kill();
    let sealed = [0, 1].map(|base| file(&disk, base));
    disk.write_file(&named(2), &with_head(sealed[1][..128].to_vec(), 40, &[2])).unwrap();
    set_manifest(&disk, &[(PROVEN_OFFSET, 2), (PROVEN_SEGMENT, 2), (PROVEN_POSITION, 128)]);
    let frames = |base: usize| sealed[base][..format::data_end(&sealed[base])].to_vec();
    for (first, second) in [
        (sealed[0].clone(), sealed[1].clone()),
        (frames(0), sealed[1].clone()),
        (sealed[0].clone(), [&frames(1)[..], &[0; 4096]].concat()),
        (frames(0), [&frames(1)[..], &[0; 4096]].concat()),
    ] {
        let disk = disk.fork(1);
        disk.write_file(&named(0), &first).unwrap();
        disk.write_file(&named(1), &second).unwrap();
        let log = open(&disk).unwrap();
        assert_eq!((log.recovery().verdict, log.recovery().end_offset), (Verdict::Clean, 2));
        assert_eq!(file(&disk, 1).len() == sealed[1].len(), second.len() == sealed[1].len());
        append(&log, &[b"3"], Durability::Sync);
        assert_eq!(values(&log), [b"1", b"2", b"3"]);
        log.close().unwrap();
        assert!(open(&disk).unwrap().recovery().clean);
    }
}

/// Bytes in doubt, on a disk without space for a copy of them.
#[test]
fn what_cannot_be_set_aside_for_want_of_space_is_not_cut_off_either() {
    let disk = SimDisk::new(1);
    append(&open(&disk).unwrap(), &[b"1", &[7; 9_000]], Durability::Buffered);
    disk.kill();
    disk.remove_file("0/live").unwrap();
    let frames: Vec<_> = format::frames(&file(&disk, 0)).collect();
    disk.flip_bit(&named(0), (frames[1].start as u64 + 100) * 8).unwrap();
    let before = file(&disk, 0);
    // Of a reserve nothing is taken that is not worth it.
    for reserve in [None, Some(0), Some((8 << 10) - 1), Some(8 << 10)] {
        let disk = disk.fork(1);
        if let Some(bytes) = reserve {
            disk.write_file("0/spare", &vec![0; bytes]).unwrap();
        }
        disk.set_capacity(Some(disk.used()));
        let refused = open(&disk).map(|log| log.recovery().clone()).unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
        assert_eq!(file(&disk, 0), before);
        let left = disk.read_file("0/spare").map(|spare| spare.len());
        assert_eq!(left, reserve.map(|bytes| if bytes == 8 << 10 { 4 << 10 } else { bytes }));
        disk.set_capacity(None);
        let report = open(&disk).unwrap().recovery().clone();
        assert_eq!((report.verdict, report.end_offset), (Verdict::Ambiguous, 1));
        let kept = disk.read_file(report.quarantined[0].to_str().unwrap()).unwrap();
        assert!(kept == before[frames[1].start..frames[1].end - 1], "{} bytes", kept.len());
    }
}

#[test]
fn recovery_removes_what_was_half_made_or_tells_of_lost_records_and_nothing_else() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    let producer = Some(Producer { id: 1, epoch: 0, sequence: 0 });
    let options = AppendOptions { producer, ..AppendOptions::default() };
    log.append_with(&[Record::value(b"1")], &options).unwrap();
    log.close().unwrap();
    append(&open(&disk).unwrap(), &[b"2"], Durability::Sync);
    disk.kill();
    let snapshot = |offset: u64| format!("0/{offset:020}.producers");
    let stays = [snapshot(0), snapshot(2), "0/notes".into(), "0/made.tmp/inside".into()];
    let goes = [snapshot(3), "0/made.half.tmp".into()];
    for path in stays.iter().chain(&goes) {
        disk.write_file(path, b"anything").unwrap();
    }
    disk.write_file("0/quarantine", b"a file of this name").unwrap();
    let log = open(&disk).unwrap();
    assert_eq!((log.recovery().clean, log.end_offset()), (false, 2));
    let paths = disk.paths();
    for path in stays {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    for path in goes {
        assert!(!paths.contains(&path), "{path} in {paths:?}");
    }
}

#[test]
fn two_slots_of_different_logs_are_no_manifest() {
    let disk = SimDisk::new(1);
    let dir = dir_on(&disk);
    for name in ["0", "1"] {
        drop(Log::open(&dir, name, config()).unwrap());
    }
    let slots = ["0", "1"].map(|log| disk.read_file(&format!("{log}/manifest")).unwrap());
    disk.write_file("0/manifest", &[&slots[0][..4096], &slots[1][4096..]].concat()).unwrap();
    match Log::open(&dir, "0", config()) {
        Err(Error::Corrupt { position: 4096, what: Corruption::Misplaced, .. }) => {}
        other => panic!("{:?}", other.map(|log| log.recovery().clone())),
    }
}

/// An index tells where to begin; of another copy of the segment it tells the wrong place.
#[test]
fn an_index_that_does_not_fit_its_segment_costs_time_and_no_record() {
    let disk = SimDisk::new(1);
    drop(open(&disk).unwrap());
    let filled = |disk: &SimDisk, len: usize| {
        let log = open(disk).unwrap();
        for n in 0..20u8 {
            log.append(&Record::value(&vec![n; len])).unwrap();
        }
        log.close().unwrap();
    };
    let other = disk.fork(1);
    for (disk, len) in [(&disk, 2_000), (&other, 3_000)] {
        filled(disk, len);
        let log = open(disk).unwrap();
        log.roll().unwrap();
        log.append(&Record::value(b"next")).unwrap();
        log.settle().unwrap();
        log.close().unwrap();
    }
    // One that tells of each frame that it begins an offset earlier than it does.
    let early = disk.fork(1);
    let path = format!("0/{:020}.index", 0);
    let mut bytes = disk.read_file(&path).unwrap();
    for entry in bytes[44..].chunks_mut(8).skip(1) {
        entry[0] -= 1;
    }
    let crc = format::crc32(&[&bytes[..40], &bytes[44..]]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    early.write_file(&path, &bytes).unwrap();
    let foreign = other.read_file(&path).unwrap();
    assert_ne!(disk.read_file(&path).unwrap(), foreign);
    disk.write_file(&path, &foreign).unwrap();
    for disk in [disk, early] {
        let log = open(&disk).unwrap();
        // Backwards: what is close ahead is not looked up.
        for n in (0..20u8).rev() {
            let found = log.get(n.into()).unwrap().unwrap();
            assert_eq!(found.value.as_deref(), Some(&[n; 2_000][..]));
        }
    }
}

#[test]
fn a_batch_that_did_not_fit_on_the_disk_leaves_no_trace_in_a_segment_that_was_opened_again() {
    for file_system in [FileSystem::Ext4, FileSystem::Other] {
        batch_that_does_not_fit(file_system);
    }
}

fn batch_that_does_not_fit(file_system: FileSystem) {
    let disk = SimDisk::new(1);
    disk.set_file_system(file_system);
    append(&open(&disk).unwrap(), &[&[1u8; 5_000][..]; 3], Durability::Sync);
    let log = open(&disk).unwrap();
    log.close().unwrap();
    let log = open(&disk).unwrap();
    disk.set_capacity(Some(disk.used()));
    let buffered =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    let refused = log.append_with(&[Record::value(&[9; 300_000])], &buffered).unwrap_err();
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    disk.set_capacity(None);
    append(&log, &[&[2u8; 5_000][..]; 3], Durability::Sync);
    for (offset, byte) in [(0, 1), (2, 1), (3, 2), (5, 2)] {
        assert_eq!(log.get(offset).unwrap().unwrap().value.as_deref(), Some(&[byte; 5_000][..]));
    }
    assert_eq!(values(&log).len(), 6);
}

/// What the index had learnt of it would say that nothing before its later frames is late.
#[test]
fn a_time_look_up_knows_nothing_of_a_batch_that_did_not_fit_on_the_disk() {
    let disk = SimDisk::new(1);
    let config = config().write_path(WritePath::Positional).durability(Durability::Buffered);
    let log = Log::open(&dir_on(&disk), "0", config.frame_bytes(4 << 10)).unwrap();
    log.append(&Record::value(b"first").timestamp(500)).unwrap();
    disk.fail_next(Op::Write, Fault::Enospc);
    let early = vec![Record::value(&[7; 4_000]).timestamp(1_000); 100];
    let refused = log.append_with(&early, &AppendOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    assert_eq!(disk.faults_fired(), 1);
    for _ in 0..100 {
        log.append(&Record::value(b"late").timestamp(2_000)).unwrap();
    }
    assert_eq!(log.offset_for_timestamp(2_000).unwrap(), Some(1));
}

/// The footer says that nothing in it is late enough, so what is wrong with it is not met.
#[test]
fn a_time_look_up_does_not_read_a_segment_that_is_too_early() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    for ms in [1_000, 2_000] {
        log.append(&Record::value(b"v").timestamp(ms)).unwrap();
        log.roll().unwrap();
        log.settle().unwrap();
    }
    let frame = format::frames(&file(&disk, 0)).next().unwrap();
    disk.flip_bit(&named(0), (frame.end as u64 - 2) * 8).unwrap();
    assert!(matches!(log.offset_for_timestamp(500), Err(Error::Corrupt { offset: 0, .. })));
    assert_eq!(log.offset_for_timestamp(1_500).unwrap(), Some(1));
}

/// A footer in the right place that is another segment's, or another log's, seals nothing.
#[test]
fn a_footer_of_another_segment_or_log_or_place_is_none() {
    let disk = SimDisk::new(1);
    let sealed = |name: &str| {
        let log = Log::open(&dir_on(&disk), name, config()).unwrap();
        for _ in 0..2 {
            append(&log, &[b"1"], Durability::Sync);
            log.roll().unwrap();
            log.settle().unwrap();
        }
        [0, 1].map(|base| disk.read_file(&format!("{name}/{base:020}.log")).unwrap())
    };
    let (other, [_, own]) = (sealed("1"), sealed("0"));
    disk.crash(&CrashPlan::everything());
    let at = own.len() - 128;
    let mut later_epoch = own[at..].to_vec();
    later_epoch[12] += 1;
    let crc = format::crc32(&[&later_epoch[..124]]);
    later_epoch[124..].copy_from_slice(&crc.to_le_bytes());
    let [other_segment, other_log] = &other;
    let cases = [
        (own[at..].to_vec(), at, true),
        (other_log[at..].to_vec(), at, false),
        (file(&disk, 0)[at..].to_vec(), at, false),
        (other_segment[at..].to_vec(), at, false),
        (later_epoch, at, false),
        (own[at..].to_vec(), at + 512, false),
    ];
    for (n, (footer, at, is_own)) in cases.iter().enumerate() {
        let disk = disk.fork(1);
        disk.remove_file("0/live").unwrap();
        let mut bytes = own[..format::data_end(&own)].to_vec();
        bytes.resize(*at, 0);
        disk.write_file(&named(1), &[&bytes[..], footer].concat()).unwrap();
        let log = open(&disk).unwrap();
        let expected = if *is_own { Verdict::Clean } else { Verdict::Ambiguous };
        assert_eq!((log.recovery().verdict, log.end_offset()), (expected, 2), "case {n}");
    }
}

/// What a footer says is the end of its segment is the end of what is read in it, whatever frames there are behind. A reader
/// that had come to that end met those frames instead of the record that was appended next: found by fuzzing whole
/// directories. A batch across the end is damage.
#[test]
fn what_lies_behind_the_end_that_a_footer_states_is_not_in_the_log() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    let proves_nothing = disk.read_file("0/manifest").unwrap();
    append(&log, &[b"0", b"1", b"2"], Durability::Sync);
    let options = AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
    log.append_with(&[Record::value(b"3"), Record::value(b"4")], &options).unwrap();
    log.roll().unwrap();
    log.settle().unwrap();
    disk.crash(&CrashPlan::everything());
    let whole = file(&disk, 0);
    let frames: Vec<_> = format::frames(&whole).collect();
    // Which frames are there, the end, and what is read: with gaps the segment is one that was compacted.
    let cases = [
        (&[0, 1, 2, 3][..], 2, Some(&[&b"0"[..], b"1"][..])),
        (&[0, 2, 3], 2, Some(&[b"0"])),
        (&[0, 3], 2, Some(&[b"0"])),
        (&[3], 1, Some(&[])),
        (&[0, 1, 2, 3], 4, None),
        (&[0, 3], 4, None),
    ];
    for (n, (kept, end, expected)) in cases.into_iter().enumerate() {
        let disk = disk.fork(1);
        disk.remove_file("0/live").unwrap();
        disk.write_file("0/manifest", &proves_nothing).unwrap();
        let mut bytes = with_head(whole[..128].to_vec(), 52, &[u8::from(kept.len() < 4)]);
        kept.iter().for_each(|i| bytes.extend_from_slice(&whole[frames[*i].clone()]));
        let data_end = bytes.len();
        let mut footer = whole[whole.len() - 128..].to_vec();
        footer[40] = end;
        footer[48] = footer[48].min(end);
        footer[56..64].copy_from_slice(&(data_end as u64).to_le_bytes());
        let crc = format::crc32(&[&footer[..124]]);
        footer[124..].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(data_end.next_multiple_of(512), 0);
        disk.write_file(&named(0), &[bytes, footer].concat()).unwrap();
        let read = |log: &Log| {
            let mut values = Vec::new();
            log.reader(0)?.for_each(|record| {
                values.push(record.value.unwrap().to_vec());
                Ok::<_, Error>(())
            })?;
            Ok::<_, Error>(values)
        };
        let log = open(&disk).unwrap();
        assert_eq!(log.end_offset(), u64::from(end), "case {n}");
        let Some(expected) = expected else {
            assert!(matches!(read(&log).unwrap_err(), Error::Corrupt { .. }), "case {n}");
            continue;
        };
        assert_eq!(read(&log).unwrap(), expected, "case {n}");
        let mut tail = log.reader(0).unwrap();
        while tail.next_batch().unwrap().is_some() {}
        log.offset_for_timestamp(i64::MAX).unwrap();
        let offset = log.append(&Record::value(b"goes on")).unwrap();
        let got = log.get(offset).unwrap().expect("what was appended");
        assert_eq!(got.value.as_deref(), Some(b"goes on".as_slice()), "case {n}");
        let next = tail.next_batch().unwrap().expect("what was appended");
        assert_eq!(next.base_offset(), offset, "case {n}");
        let expected = [expected, &[b"goes on"]].concat();
        assert_eq!(read(&log).unwrap(), expected, "case {n}");
        disk.kill();
        drop(log);
        assert_eq!(read(&open(&disk).unwrap()).unwrap(), expected, "case {n}");
    }
}

/// The last record of a segment rotted to zeros after it was synced and before the segment was sealed: the footer would have
/// said that it never was.
#[test]
fn a_segment_that_has_lost_its_last_record_since_it_was_written_is_not_sealed() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"1", b"2"], Durability::Sync);
    let last = format::frames(&file(&disk, 0)).last().unwrap();
    disk.corrupt(&named(0), last.start as u64, last.len(), |bytes| bytes.fill(0)).unwrap();
    log.roll().unwrap();
    let refused = log.settle().unwrap_err();
    let position = last.start as u64;
    assert!(
        matches!(refused, Error::Corrupt { position: at, offset: 1, .. } if at == position),
        "{refused}"
    );
    assert!(!disk.paths().contains(&format!("0/{:020}.index", 0)));
}

/// The bytes of an earlier frame in the place of a later one are whole, and of this segment; its end comes out right all the
/// same.
#[test]
fn a_segment_in_which_a_frame_stands_twice_is_not_sealed() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[b"1", b"2", b"3"], Durability::Sync);
    let segment = file(&disk, 0);
    let frames: Vec<_> = format::frames(&segment).collect();
    assert_eq!((frames.len(), frames[1].len()), (3, frames[2].len()));
    // The first one says less.
    let second = segment[frames[1].clone()].to_vec();
    append(&log, &[b"4"], Durability::Sync);
    disk.corrupt(&named(0), frames[2].start as u64, second.len(), |b| b.copy_from_slice(&second))
        .unwrap();
    log.roll().unwrap();
    let refused = log.settle().unwrap_err();
    let what = Corruption::Offset { expected: 2, found: 1 };
    assert!(matches!(&refused, Error::Corrupt { what: found, .. } if *found == what), "{refused}");
    assert!(!disk.paths().contains(&format!("0/{:020}.index", 0)));
}

/// It is looked for close to the end first, and then further away.
#[test]
fn a_closed_log_that_lost_its_last_record_is_not_clean_however_long_that_was() {
    for len in [1, 5_000, 200_000, (2 << 20) - 100] {
        let disk = SimDisk::new(1);
        let log = open(&disk).unwrap();
        append(&log, &[b"first", &vec![7; len]], Durability::Sync);
        log.close().unwrap();
        let last = format::frames(&file(&disk, 0)).last().unwrap();
        let log = open(&disk.fork(1)).unwrap();
        assert_eq!((log.recovery().clean, log.recovery().scanned_bytes), (true, 0), "{len}");
        disk.corrupt(&named(0), last.start as u64, last.len(), |bytes| bytes.fill(0)).unwrap();
        let refused = open(&disk).map(|log| log.recovery().clone()).unwrap_err();
        assert!(matches!(refused, Error::Corrupt { offset: 1, .. }), "{len}: {refused}");
    }
}

/// Nothing lies behind the end in its own segment, so there is nothing to be copied from it.
#[test]
fn of_a_doubtful_later_segment_that_alone_is_set_aside() {
    let disk = two_segments();
    let segment = file(&disk, 1);
    let frames = (format::data_end(&segment) - 128) as u64;
    disk.remove_file(&named(1)).unwrap();
    disk.write_file(&named(5), &with_head(segment, 40, &[5])).unwrap();
    let report = open(&disk).unwrap().recovery().clone();
    assert_eq!((report.verdict, report.end_offset), (Verdict::Ambiguous, 1));
    let quarantine = disk.paths().into_iter().filter(|path| path.contains("quarantine/"));
    let found: Vec<_> = quarantine.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(&format!("{:020}-", 5)), "{found:?}");
    // The last byte of a record without headers is zero, as is what was reserved behind it.
    assert_eq!(report.dropped_bytes, frames - 1);
}

/// A record whose value was full of heads of long frames, one flipped bit before them, and no live page: the search for
/// witnesses had spent all that it may on the false heads before it came to the true ones. What was acknowledged behind
/// them, synced, was set aside, and its offsets were given a second time.
#[test]
fn false_heads_that_hide_the_witnesses_make_a_damaged_log_and_no_ambiguous_one() {
    for is_found in [true, false] {
        let disk = SimDisk::new(1);
        let log = open(&disk).unwrap();
        let filler = vec![b'x'; 100_000];
        append(&log, &[&filler, &filler[..1000], b"x"], Durability::Sync);
        // Long ones first, and then shorter ones for what is left.
        let (mut at, mut evil) = (128, Vec::new());
        for count in [900, 110, 50] {
            let head = file(&disk, 0)[at..][..16].to_vec();
            at += 16 + u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
            evil.extend(if is_found {
                b"no head at all..".repeat(count)
            } else {
                head.repeat(count)
            });
        }
        append(&log, &[&evil, &filler, b"acknowledged", b"with a witness"], Durability::Sync);
        drop(log);
        let mut bytes = file(&disk, 0);
        let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(&evil)).unwrap();
        bytes[at - 20..at].fill(0xAA);
        disk.write_file(&named(0), &bytes).unwrap();
        disk.remove_file("0/live").unwrap();
        let Err(Error::Corrupt { offset: 3, what, .. }) = open(&disk) else { panic!("{is_found}") };
        assert_eq!(matches!(what, Corruption::Field(_)), !is_found, "{what}");
        assert_eq!(file(&disk, 0), bytes, "nothing was touched");
    }
}

/// The live page with other bytes here and there.
fn set_live(disk: &SimDisk, changes: &[(usize, &[u8])]) {
    let mut page = disk.read_file("0/live").unwrap();
    for (at, bytes) in changes {
        page[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    let crc = format::crc32(&[&page[..60]]);
    page[60..].copy_from_slice(&crc.to_le_bytes());
    disk.write_file("0/live", &page).unwrap();
}

const LIVE_LOG_ID: usize = 8;
const LIVE_EPOCH: usize = 24;
const LIVE_MAPPED: usize = 28;
const LIVE_DURABLE: usize = 32;
const LIVE_STORED: usize = 40;
const LIVE_BOOT: usize = 48;

#[test]
fn the_live_page_of_another_log_or_epoch_is_no_witness() {
    let disk = SimDisk::new(1);
    append(&open(&disk).unwrap(), &[b"1"], Durability::Buffered);
    disk.kill();
    let more: (usize, &[u8]) = (LIVE_DURABLE, &[5]);
    for (change, lost) in
        [(more, true), ((LIVE_LOG_ID, &[0xEE; 16]), false), ((LIVE_EPOCH, &[9]), false)]
    {
        let disk = disk.fork(1);
        set_live(&disk, &[more, change]);
        match open(&disk) {
            Ok(log) => assert!(!lost && log.recovery().verdict == Verdict::Clean),
            Err(Error::Corrupt { offset: 1, .. }) => assert!(lost, "{change:?}"),
            Err(e) => panic!("{e}"),
        }
    }
}

/// A process died within an append, or the machine did: in the one case nobody can have been told of it.
#[test]
fn what_follows_the_end_is_cut_off_only_if_this_boot_acknowledged_none_of_it() {
    let disk = SimDisk::new(1);
    append(&open(&disk).unwrap(), &[b"1", b"2"], Durability::Buffered);
    disk.kill();
    let second = format::frames(&file(&disk, 0)).nth(1).unwrap();
    let verdict = |zeros: usize, change: &dyn Fn(&SimDisk)| {
        let disk = disk.fork(1);
        disk.corrupt(&named(0), second.start as u64, zeros, |head| head.fill(0)).unwrap();
        disk.flip_bit(&named(0), (second.end as u64 - 2) * 8).unwrap();
        set_live(&disk, &[(LIVE_MAPPED, &[0]), (LIVE_STORED, &[1])]);
        change(&disk);
        let log = open(&disk).unwrap();
        assert_eq!(log.end_offset(), 1);
        log.recovery().verdict
    };
    assert_eq!(verdict(0, &|_| {}), Verdict::Cut);
    for change in [
        (LIVE_LOG_ID, &[0xEE; 16][..]),
        (LIVE_EPOCH, &[9]),
        (LIVE_BOOT, &[0xEE; 8]),
        (LIVE_MAPPED, &[1]),
        (LIVE_STORED, &[2]),
    ] {
        assert_eq!(verdict(0, &|disk| set_live(disk, &[change])), Verdict::Ambiguous, "{change:?}");
    }
    assert_eq!(verdict(0, &|disk| disk.crash(&CrashPlan::everything())), Verdict::Ambiguous);
    // A head is stored before what is acknowledged behind it, whatever a page says.
    let no_page = |disk: &SimDisk| disk.remove_file("0/live").unwrap();
    assert_eq!(verdict(0, &no_page), Verdict::Ambiguous);
    assert_eq!(verdict(16, &no_page), Verdict::Cut);
    let another_boot = |disk: &SimDisk| {
        no_page(disk);
        disk.crash(&CrashPlan::everything());
    };
    assert_eq!(verdict(16, &another_boot), Verdict::Ambiguous);
}

#[test]
fn what_is_wrong_at_the_end_is_the_damage_there_or_the_records_that_somebody_has_seen() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    let proves_nothing = disk.read_file("0/manifest").unwrap();
    append(&log, &[b"1", b"2"], Durability::Sync);
    log.roll().unwrap();
    append(&log, &[b"3"], Durability::Sync);
    log.roll().unwrap();
    log.settle().unwrap();
    disk.kill();
    disk.write_file("0/manifest", &proves_nothing).unwrap();
    disk.remove_file("0/live").unwrap();
    let bytes = file(&disk, 0);
    let frames: Vec<_> = format::frames(&bytes).collect();
    let wrong = |bytes: &[u8]| {
        let disk = disk.fork(1);
        disk.write_file(&named(0), bytes).unwrap();
        match open(&disk) {
            Err(Error::Corrupt { offset: 1, what, .. }) => what,
            other => panic!("{:?}", other.map(|log| log.recovery().clone())),
        }
    };
    assert_eq!(wrong(&bytes[..frames[1].start]), Corruption::LostDurable { durable_upto: 3 });
    let mut flipped = bytes[..frames[1].end].to_vec();
    flipped[frames[1].end - 2] ^= 1;
    let damage = wrong(&flipped);
    assert!(matches!(damage, Corruption::Checksum { .. } | Corruption::Hash), "{damage}");
}

#[test]
fn the_proven_point_of_one_segment_says_nothing_about_the_length_of_the_next() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, &[&[7; 9_000]], Durability::Sync);
    log.roll().unwrap();
    append(&log, &[b"short"], Durability::Buffered);
    disk.kill();
    let [first, second] = [0, 1].map(|base| {
        let bytes = file(&disk, base);
        bytes[..format::data_end(&bytes)].to_vec()
    });
    disk.write_file(&named(0), &first).unwrap();
    disk.write_file(&named(1), &second).unwrap();
    set_manifest(
        &disk,
        &[(PROVEN_OFFSET, 1), (PROVEN_SEGMENT, 0), (PROVEN_POSITION, first.len() as u64)],
    );
    let log = open(&disk).unwrap();
    assert_eq!((log.recovery().verdict, log.end_offset()), (Verdict::Clean, 2));
}

/// The frame before the proven point is looked for 2 MiB back at the most.
#[test]
fn a_segment_that_was_cut_below_the_proven_point_ends_with_the_last_frame_that_is_left() {
    let long = vec![7; 1_200_000];
    for values in [&[b"1".as_slice(), b"2"][..], &[b"1", &long, &long, b"2"]] {
        let disk = SimDisk::new(1);
        append(&open(&disk).unwrap(), values, Durability::Sync);
        disk.kill();
        let bytes = file(&disk, 0);
        let (last, end) = (format::frames(&bytes).last().unwrap(), values.len() as u64);
        let refused = |bytes: &[u8], position: usize| {
            let disk = disk.fork(1);
            set_manifest(&disk, &[(PROVEN_OFFSET, end), (PROVEN_POSITION, position as u64)]);
            disk.write_file(&named(0), bytes).unwrap();
            match open(&disk) {
                Err(Error::Corrupt { offset, what, .. }) => (offset, what),
                other => panic!("{:?}", other.map(|log| log.recovery().clone())),
            }
        };
        let lost = (end - 1, Corruption::LostDurable { durable_upto: end });
        assert_eq!(refused(&bytes[..last.start], last.end), lost);
        // What was proven lay behind all records that are there.
        let what = Corruption::Truncated { expected: last.end as u64 + 1, found: last.end as u64 };
        assert_eq!(refused(&bytes[..last.end], last.end + 1), (end, what));
    }
}

#[test]
fn a_segment_whose_head_was_cut_short_is_damaged_by_that() {
    let disk = two_segments();
    let head = file(&disk, 0)[..100].to_vec();
    disk.write_file(&named(0), &head).unwrap();
    match open(&disk) {
        Err(Error::Corrupt { position: 0, what, .. }) => {
            assert_eq!(what, Corruption::Truncated { expected: 128, found: 100 });
        }
        other => panic!("{:?}", other.map(|log| log.recovery().clone())),
    }
}

/// A page or a manifest that is there and cannot be opened may say much: without it, acknowledged records would be cut off.
#[test]
fn what_cannot_be_opened_is_not_taken_for_what_is_not_there() {
    for path in ["0/live", "0/manifest"] {
        let disk = two_segments();
        let io = Lens::refusing(disk.io(), path, ErrorKind::PermissionDenied);
        let dir = DataDirOptions::new().threads(0).open_with(io).unwrap();
        let before = disk.read_file("0/manifest");
        let refused = Log::open(&dir, "0", config()).map(|log| log.recovery().clone());
        assert!(matches!(refused, Err(Error::Io { op: "open", .. })), "{path}: {refused:?}");
        assert_eq!(disk.read_file("0/manifest"), before);
    }
}

#[test]
fn a_log_with_a_feature_that_only_readers_may_ignore_is_read_and_not_written() {
    let disk = two_segments();
    set_manifest(&disk, &[(16, 4)]);
    let features = Corruption::Features { unknown: 4 };
    match open(&disk) {
        Err(Error::Corrupt { position: 0, what, .. }) => assert_eq!(what, features),
        other => panic!("{:?}", other.map(|log| log.recovery().clone())),
    }
    let options = DataDirOptions::new().threads(0).read_only(true);
    let dir = options.open_with(disk.io()).unwrap();
    assert_eq!(values(&Log::open(&dir, "0", config()).unwrap()), [b"first".as_slice(), b"second"]);
}

/// The process died after it had moved a segment there, and the machine after the next one had opened the log.
#[test]
fn what_an_earlier_recovery_has_set_aside_is_made_durable() {
    let disk = two_segments();
    disk.remove_file("0/live").unwrap();
    let io = disk.io();
    io.create_dir("0/quarantine".as_ref()).unwrap();
    io.sync_dir("0".as_ref()).unwrap();
    let aside = "0/quarantine/aside.log";
    io.rename(named(1).as_ref(), aside.as_ref()).unwrap();
    disk.kill();
    let log = open(&disk).unwrap();
    assert_eq!((log.recovery().verdict, log.end_offset()), (Verdict::Clean, 1));
    disk.crash(&CrashPlan::nothing());
    assert!(disk.paths().contains(&aside.into()), "{:?}", disk.paths());
    assert!(!disk.paths().contains(&named(1)));
}
