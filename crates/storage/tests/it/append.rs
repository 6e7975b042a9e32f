//! Appending and reading back.

use logmill_storage::io::sim::{Op, SimDisk};
use logmill_storage::{
    Compression, DataDir, DataDirOptions, Durability, Error, Log, LogConfig, Record, Retention,
    WritePath,
};

fn all(log: &Log) -> Vec<(u64, Vec<u8>)> {
    let mut reader = log.reader(log.start_offset()).unwrap();
    let mut out = Vec::new();
    reader
        .for_each(|record| {
            out.push((record.offset, record.value.unwrap().to_vec()));
            Ok::<_, logmill_storage::Error>(())
        })
        .unwrap();
    out
}

fn ways() -> Vec<LogConfig> {
    let base = LogConfig::default().segment_bytes_max(16 << 10);
    vec![
        base.clone(),
        base.clone().durability(Durability::Buffered).write_path(WritePath::Mapped),
        base.clone().durability(Durability::Buffered).write_path(WritePath::Positional),
        base.durability(Durability::Sync).write_path(WritePath::Mapped),
    ]
}

#[test]
fn what_is_appended_is_read_back_in_order_over_many_segments_and_after_every_way_of_reopening() {
    for config in ways() {
        let place = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for round in 0..4u32 {
            let dir = DataDir::open(place.path()).unwrap();
            let log = Log::open(&dir, "7/3", config.clone()).unwrap();
            assert_eq!(all(&log), expected, "round {round}, {config:?}");
            for n in 0..300u32 {
                let value = format!("round {round} record {n} {}", "x".repeat(n as usize % 97))
                    .into_bytes();
                let offset = log.append(&Record::value(&value)).unwrap();
                assert_eq!(offset, expected.len() as u64);
                expected.push((offset, value));
            }
            let values: Vec<_> =
                (0..100).map(|n| format!("batch {round} {n}").into_bytes()).collect();
            let records: Vec<_> = values.iter().map(|value| Record::value(value)).collect();
            let appended = log.append_batch(&records).unwrap();
            for (n, value) in values.into_iter().enumerate() {
                expected.push((appended.base_offset + n as u64, value));
            }
            assert_eq!(all(&log), expected);
            for (offset, value) in expected.iter().rev().step_by(7) {
                let got = log.get(*offset).unwrap().unwrap();
                assert_eq!((got.offset, got.value.as_deref()), (*offset, Some(value.as_slice())));
            }
            match round % 2 {
                0 => log.close().unwrap(),
                _ => drop(log),
            }
        }
    }
}

#[test]
fn an_open_log_goes_by_new_settings_from_the_next_append_on() {
    let disk = SimDisk::new(1);
    let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
    let value = [7; 3_000];
    let append_ten = || {
        for _ in 0..10 {
            log.append(&Record::value(&value)).unwrap();
        }
    };
    let sealed_bytes = || {
        log.roll().unwrap();
        log.settle().unwrap();
        log.stats().unwrap().bytes
    };
    append_ten();
    let plain = sealed_bytes();
    log.set_config(&LogConfig::default().compression(Compression::Lz4)).unwrap();
    append_ten();
    let compressed = sealed_bytes() - plain;
    assert!(compressed < plain / 10, "{plain} bytes, then {compressed}");

    let small = LogConfig::default().segment_bytes_max(4 << 10).record_bytes_max(4 << 10);
    log.set_config(&small).unwrap();
    assert!(matches!(
        log.append(&Record::value(&[7; 5_000])),
        Err(Error::RecordTooLarge { max: 4_096, .. })
    ));
    append_ten();
    assert_eq!(log.stats().unwrap().segments, 12);
    let few = Retention { records: Some(5), ..Retention::default() };
    log.set_config(&small.clone().retention(few)).unwrap();
    log.settle().unwrap();
    assert_eq!(log.apply_retention().unwrap(), 25);

    assert!(log.set_config(&small.segment_bytes_max(1)).is_err());
    assert_eq!(log.append(&Record::value(&value)).unwrap(), 30);
}

/// Near the end of the file's reservation the read came back short, and a second one was made only to hear that the file ends.
#[test]
fn a_reader_at_the_tail_fetches_an_append_with_one_read() {
    let disk = SimDisk::new(1);
    let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
    let config = LogConfig::default().durability(Durability::Buffered);
    let log = Log::open(&dir, "1", config).unwrap();
    let mut reader = log.reader(0).unwrap();
    for n in 0..200 {
        log.append(&Record::value(&[b'x'; 1_000])).unwrap();
        let before = disk.ops().of(Op::Read);
        assert!(reader.next_batch().unwrap().is_some());
        // The first also finds its place.
        let reads = disk.ops().of(Op::Read) - before;
        assert!(n == 0 || reads == 1, "{reads} reads for record {n}");
    }
}
