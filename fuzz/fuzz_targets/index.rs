//! Index files and snapshots of producers, beside a sealed segment: whatever they say, and however rightly it is summed,
//! reading gives the same records.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use logmill_fuzz::{checksums, dir_on, dump, read, stores};
use logmill_storage::io::sim::SimDisk;
use logmill_storage::{Log, LogConfig, RecordBuf};

fn golden() -> &'static (SimDisk, Vec<RecordBuf>) {
    static GOLDEN: OnceLock<(SimDisk, Vec<RecordBuf>)> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let disk = stores::closed();
        let log = Log::open(&dir_on(&disk, true).unwrap(), "1", LogConfig::default()).unwrap();
        let records = read(&log).unwrap();
        (disk, records)
    })
}

fuzz_target!(|data: &[u8]| {
    let (disk, records) = golden();
    let path = match data {
        [b'L', b'O', b'G', b'M', b'I', b'L', b'L', b'P', ..] => "1/00000000000000000024.producers",
        [_, _, _, _, _, _, _, _, _, _, 2, ..] => "1/00000000000000000000.time",
        _ => "1/00000000000000000000.index",
    };
    let disk = disk.fork(1);
    disk.write_file(path, data).unwrap();
    let _ = dump(&disk, path);
    for read_only in [true, false] {
        let log = Log::open(&dir_on(&disk, read_only).unwrap(), "1", LogConfig::default()).unwrap();
        for record in records {
            assert_eq!(log.get(record.offset).unwrap().as_ref(), Some(record));
        }
        assert_eq!(&read(&log).unwrap(), records);
        let _ = log.offset_for_timestamp(records[3].timestamp);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if !seed.is_multiple_of(8) {
        checksums::repair(&mut data[..size]);
    }
    size
});
