//! What an owner of the journal finds in its checkpoint. The first byte says whose it is; the file around it is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logmill_fuzz::{dir_on, stores};
use logmill_storage::{Journal, LogConfig};

fuzz_target!(|data: &[u8]| {
    let Some((owner, state)) = data.split_first() else { return };
    let disk = stores::engines().fork(1);
    let dir = dir_on(&disk, false).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    journal.checkpoint(u64::from(owner % 4), journal.reach(), state).unwrap();
    stores::open_engines(&dir, &journal);
});
