//! Entries in the journal that no version of their owner wrote: owner (u8), length (u16), bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logmill_fuzz::{dir_on, stores};
use logmill_storage::{AppendOptions, Durability, Entry, Journal, LogConfig};

fuzz_target!(|data: &[u8]| {
    let disk = stores::engines().fork(1);
    let dir = dir_on(&disk, false).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let entries = stores::entries(data);
    let entries: Vec<_> = entries.iter().map(|&(owner, bytes)| Entry { owner, bytes }).collect();
    if !entries.is_empty() {
        let durability = Some(Durability::Buffered);
        let options = AppendOptions { durability, ..AppendOptions::default() };
        journal.append(&entries, &options).unwrap();
    }
    stores::open_engines(&dir, &journal);
});
