//! Readers that are sent past damage: they lose what is damaged and nothing else, and are given nothing that was not a record.

use logmill_storage::{Corruption, Error, Log, LogConfig, Reader, Record};

use crate::support::Bench;

const SEGMENT: &str = "1/00000000000000000000.log";
const HEAD_LEN: usize = 16;

/// A log of these values, each in a frame of its own, that was closed; sealed, or to be gone on with.
pub(crate) fn log_of(values: &[Vec<u8>], is_sealed: bool) -> Bench {
    let bench = Bench::new(1);
    let log = Log::open(&bench.dir(), "1", LogConfig::default()).unwrap();
    append(&log, values);
    if is_sealed {
        log.roll().unwrap();
        log.settle().unwrap();
    }
    log.close().unwrap();
    bench
}

pub(crate) fn append(log: &Log, values: &[Vec<u8>]) {
    for value in values {
        log.append(&Record::value(value)).unwrap();
    }
}

pub(crate) fn values(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("value {n:04} {}", "x".repeat(n % 90)).into_bytes()).collect()
}

/// Where the last frame begins that holds `value`, and its bytes.
pub(crate) fn frame(bench: &Bench, value: &[u8]) -> (usize, Vec<u8>) {
    let bytes = bench.disk.read_file(SEGMENT).unwrap();
    let at = (0..bytes.len()).rev().find(|at| bytes[*at..].starts_with(value)).unwrap();
    // The head, and what a record has before its value, is as long in all frames of one record.
    let start = (at - 64..at).rev().find(|start| {
        let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap());
        start + HEAD_LEN + length as usize == at + value.len() + 1
    });
    let start = start.unwrap();
    (start, bytes[start..at + value.len() + 1].to_vec())
}

fn overwrite(bench: &Bench, position: usize, bytes: &[u8]) {
    let mut all = bench.disk.read_file(SEGMENT).unwrap();
    all[position..position + bytes.len()].copy_from_slice(bytes);
    bench.disk.write_file(SEGMENT, &all).unwrap();
}

pub(crate) fn spoil_head(bench: &Bench, value: &[u8]) {
    let (start, bytes) = frame(bench, value);
    let head: Vec<u8> = bytes[..HEAD_LEN].iter().map(|byte| !byte).collect();
    overwrite(bench, start, &head);
}

fn next(reader: &mut Reader) -> Result<(u64, Vec<u8>), Error> {
    let batch = reader.next_batch()?.expect("there is more");
    let record = batch.records().next().unwrap().unwrap();
    Ok((record.offset, record.value.unwrap().to_vec()))
}

/// Every record by itself: what a reader gets that is sent there from the one before, and one that another process has and
/// that begins there. The latter may be led behind damage by an index.
type Found = [Option<Vec<u8>>; 2];

fn each(bench: &Bench, count: u64) -> Vec<Found> {
    let dir = bench.dir();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let read_only = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let follower = Log::open(&read_only, "1", LogConfig::default()).unwrap();
    let mut reader = log.reader(0).unwrap();
    let each = (0..count).map(|offset| {
        reader.seek(offset).unwrap();
        let here = next(&mut reader);
        let there = follower.reader(offset).and_then(|mut reader| next(&mut reader));
        [here, there].map(|found| match found {
            Ok((at, value)) => {
                assert_eq!(at, offset);
                Some(value)
            }
            Err(Error::Corrupt { offset: from, .. }) => {
                assert_eq!(from, offset);
                None
            }
            Err(e) => panic!("{offset}: {e}"),
        })
    });
    each.collect()
}

fn lost(found: &[Found]) -> Vec<usize> {
    (0..found.len()).filter(|n| found[*n].iter().any(Option::is_none)).collect()
}

fn is_right(found: &Found, value: &[u8]) -> bool {
    found.iter().flatten().all(|found| found == value)
}

/// Everything behind the damage was out of reach: in a sealed segment up to the next entry of its index, in one that is gone on
/// with up to its end.
#[test]
fn a_reader_that_is_sent_past_a_damaged_head_loses_that_record_alone() {
    let values = values(300);
    for is_sealed in [false, true] {
        for damaged in [&[0][..], &[7], &[7, 8], &[7, 100, 298], &[150, 151, 200]] {
            let bench = log_of(&values, is_sealed);
            for n in damaged {
                spoil_head(&bench, &values[*n]);
            }
            let found = each(&bench, 300);
            assert_eq!(lost(&found), damaged, "sealed: {is_sealed}");
            assert!(found.iter().zip(&values).all(|(found, value)| is_right(found, value)));
        }
    }
}

#[test]
fn zeros_in_the_place_of_frames_are_passed_as_other_damage_is() {
    let values = values(300);
    for (is_sealed, left) in [(false, 0), (false, 3), (true, 0), (true, 3)] {
        let bench = log_of(&values, is_sealed);
        let (from, to) = (frame(&bench, &values[20]).0 + left, frame(&bench, &values[31]).0 + 5);
        overwrite(&bench, from, &vec![0; to - from]);
        assert_eq!(lost(&each(&bench, 300)), (20..=31).collect::<Vec<_>>(), "{left} left");
    }
}

#[test]
fn a_reader_that_comes_to_damage_is_told_each_time_and_goes_on_where_it_is_sent() {
    let values = values(50);
    let bench = log_of(&values, false);
    spoil_head(&bench, &values[20]);
    let log = Log::open(&bench.dir(), "1", LogConfig::default()).unwrap();
    let mut reader = log.reader(0).unwrap();
    for n in 0..20 {
        assert_eq!(next(&mut reader).unwrap(), (n, values[n as usize].clone()));
    }
    for _ in 0..3 {
        assert!(matches!(next(&mut reader), Err(Error::Corrupt { offset: 20, .. })));
    }
    append(&log, &[b"the latest".to_vec()]);
    reader.seek(21).unwrap();
    for n in 21..50 {
        assert_eq!(next(&mut reader).unwrap(), (n, values[n as usize].clone()));
    }
    assert_eq!(next(&mut reader).unwrap(), (50, b"the latest".to_vec()));
}

/// A frame for the offset `delta`, whose value is `value` and as long as that of `like`.
pub(crate) fn forged(like: &[u8], delta: u32, value: &[u8], seed: &[u8]) -> Vec<u8> {
    let mut bytes = like.to_vec();
    let at = bytes.len() - 1 - value.len();
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes[8..12].copy_from_slice(&delta.to_le_bytes());
    let crc = |bytes: &[u8]| crc32fast::hash(&[seed, bytes].concat());
    let head_crc = crc(&bytes[4..14]).to_le_bytes();
    bytes[14..16].copy_from_slice(&head_crc[..2]);
    let crc = crc(&bytes[4..]).to_le_bytes();
    bytes[..4].copy_from_slice(&crc);
    bytes
}

/// What the checksums of the first segment are seeded with.
pub(crate) fn seed(bench: &Bench) -> Vec<u8> {
    let bytes = bench.disk.read_file(SEGMENT).unwrap();
    let dir = bench.options().read_only(true).open_with(bench.disk.io()).unwrap();
    let log_id = dir.log_id("1").unwrap().unwrap();
    [&log_id[..], &bytes[48..52], &[0; 8]].concat()
}

/// Whoever can read the files knows the seed of the checksums, and can send whole frames as a value.
#[test]
fn frames_in_the_value_of_a_damaged_record_are_not_taken_for_records() {
    let plain = values(200);
    let sample = log_of(&plain, false);
    let (seed, like) = (seed(&sample), frame(&sample, &plain[30]).1);
    let fake = |delta| forged(&like, delta, b"an invention", &seed);
    assert_eq!(forged(&like, 30, b"", &seed), like, "a forged frame is a whole one");
    let inner: [Vec<u8>; 6] = [
        frame(&sample, &plain[10]).1,
        fake(45),
        [fake(45), fake(46), fake(47)].concat(),
        [b"x".to_vec(), fake(45), b"x".to_vec(), fake(60)].concat(),
        [fake(199), fake(200), fake(100_000)].concat(),
        [fake(41), fake(199)].concat(),
    ];
    for (case, inner) in inner.into_iter().enumerate() {
        for is_sealed in [false, true] {
            let mut values = plain.clone();
            values[40] = inner.clone();
            let bench = log_of(&values, is_sealed);
            assert_eq!(lost(&each(&bench, 200)), [0; 0], "case {case}");
            spoil_head(&bench, &values[40]);
            let found = each(&bench, 200);
            for (n, found) in found.iter().enumerate() {
                assert!(is_right(found, &values[n]), "case {case}: {n}");
            }
            // Only what such a frame contradicts is out of reach with it.
            let lost = lost(&found);
            assert_eq!(lost[0], 40, "case {case}");
            let contradicted = [40, 45, 47, 60, 199, 199][case];
            assert!(*lost.last().unwrap() <= contradicted, "case {case}: {lost:?}");
        }
    }
}

#[test]
fn damage_that_was_passed_is_still_damage_to_whoever_reads_on() {
    let values = values(60);
    let bench = log_of(&values, true);
    spoil_head(&bench, &values[20]);
    spoil_head(&bench, &values[40]);
    let log = Log::open(&bench.dir(), "1", LogConfig::default()).unwrap();
    let mut reader = log.reader(25).unwrap();
    for n in 25..40 {
        assert_eq!(next(&mut reader).unwrap().0, n);
    }
    let met = next(&mut reader).unwrap_err();
    let Error::Corrupt { offset: 40, position, what, .. } = &met else { panic!("{met:?}") };
    assert_eq!(*position, frame(&log_of(&values, true), &values[40]).0 as u64);
    assert!(matches!(what, Corruption::Checksum { .. } | Corruption::Field(_)), "{what:?}");
}
