//! Appending and reading back.

use logmill_storage::{DataDir, Durability, Log, LogConfig, Record, WritePath};

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
