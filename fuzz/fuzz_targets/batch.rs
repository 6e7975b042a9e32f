//! A segment file: any bytes give items and damage, in bounded time and memory.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use logmill_fuzz::{checksums, dump};
use logmill_storage::io::sim::SimDisk;

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::new(1);
    disk.write_file("segment", data).expect("a plain path");
    let first = dump(&disk, "segment").map_err(|e| e.to_string());
    assert_eq!(dump(&disk, "segment").map_err(|e| e.to_string()), first);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if !seed.is_multiple_of(8) {
        checksums::repair(&mut data[..size]);
    }
    size
});
