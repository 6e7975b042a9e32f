//! Frames and blocks with right checksums, in memory: refused, or encoded again to what says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logmill_storage::fuzzing;

fuzz_target!(|data: &[u8]| {
    match data {
        [b'f', d0, d1, d2, d3, f0, f1, body @ ..] => {
            fuzzing::frame(
                u32::from_le_bytes([*d0, *d1, *d2, *d3]),
                u16::from_le_bytes([*f0, *f1]),
                body,
            );
        }
        _ => fuzzing::block(data),
    }
});
