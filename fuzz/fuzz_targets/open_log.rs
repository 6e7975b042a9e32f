//! A whole log directory of any bytes: it opens or is refused, and what it shows once it shows always.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use logmill_fuzz::files::{NAMES, disk_with, repair};
use logmill_fuzz::{dir_on, dump, read};
use logmill_storage::io::sim::SimDisk;
use logmill_storage::salvage::salvage;
use logmill_storage::verify::verify;
use logmill_storage::{Log, LogConfig, Record};

fuzz_target!(|data: &[u8]| {
    let disk = disk_with(data);
    NAMES.iter().for_each(|path| drop(dump(&disk, path)));
    let dir = dir_on(&disk, true).unwrap();
    verify(&dir, &mut |_| {}).unwrap();
    let target = SimDisk::new(2);
    let _ = salvage(&dir, "1", &dir_on(&target, false).unwrap(), &mut |_| {});
    if let Ok(log) = Log::open(&dir, "1", LogConfig::default()) {
        let _ = read(&log);
    }
    let before = disk.fork(1);
    let Ok(log) = Log::open(&dir_on(&disk, false).unwrap(), "1", LogConfig::default()) else {
        return;
    };
    let Ok(mut records) = read(&log) else { return };
    let _ = log.offset_for_timestamp(1_700_000_000_000);
    if let Ok(offset) = log.append(&Record::value(b"goes on")) {
        let appended = log.get(offset).expect("what was acknowledged").expect("a record");
        assert_eq!(appended.value.as_deref(), Some(&b"goes on"[..]));
        records.push(appended);
    }
    disk.kill();
    drop(log);
    let log = Log::open(&dir_on(&disk, false).unwrap(), "1", LogConfig::default());
    assert_eq!(read(&log.expect("it was open before")).expect("it was read before"), records);
    // Opening is the same every time.
    let again = Log::open(&dir_on(&before, false).unwrap(), "1", LogConfig::default());
    let again = read(&again.expect("it was open before")).expect("it was read before");
    assert!(records.starts_with(&again));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed.is_multiple_of(8) {
        return size;
    }
    let repaired = repair(&data[..size]);
    if repaired.len() > max_size {
        return size;
    }
    data[..repaired.len()].copy_from_slice(&repaired);
    repaired.len()
});
