//! Atomic batches of tagged entries, their replay, and what carrying forward keeps.

use std::cell::RefCell;
use std::collections::BTreeMap;

use logmill_storage::io::FileSystem;
use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{
    AppendOptions, DataDir, DataDirOptions, Durability, Entry, Journal, LogConfig, Owner, Part,
    Place, Reach,
};

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(16 << 10).durability(Durability::Buffered)
}

fn contents(journal: &Journal, from: Reach) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    journal
        .replay(from, |entry| {
            out.push((entry.owner, entry.bytes.to_vec()));
            Ok(())
        })
        .unwrap();
    out
}

#[test]
fn a_batch_is_replayed_in_order_with_its_owners_and_read_back_by_place() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    let big = vec![7; 40 << 10];
    let entries = [
        Entry { owner: 0, bytes: b"a" },
        Entry { owner: 300, bytes: &big },
        Entry { owner: u64::MAX, bytes: b"" },
    ];
    let appended = journal.append(&entries, &AppendOptions::default()).unwrap();
    let expected: Vec<_> =
        entries.iter().map(|entry| (entry.owner, entry.bytes.to_vec())).collect();
    assert_eq!(contents(&journal, Reach::default()), expected);
    let at = Place::new(Part::Hot, appended.base_offset + 1);
    assert_eq!(journal.get(at).unwrap().as_deref(), Some(big.as_slice()));
    drop(journal);
    drop(dir);
    let journal = Journal::open(&DataDir::open(place.path()).unwrap(), "0", config()).unwrap();
    assert_eq!(contents(&journal, Reach::default()), expected);
}

#[test]
fn a_checkpoint_is_given_back_and_a_damaged_one_is_not() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    journal.append(&[Entry { owner: 5, bytes: b"x" }], &AppendOptions::default()).unwrap();
    let reach = journal.reach();
    journal.checkpoint(5, reach, b"state").unwrap();
    assert_eq!(journal.load_checkpoint(5), Some((reach, b"state".to_vec())));
    assert_eq!(journal.load_checkpoint(6), None);
    let file = place.path().join("0/checkpoint-5");
    let bytes = std::fs::read(&file).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(journal.load_checkpoint(5), None, "bit {bit}");
    }
}

/// A map whose entries are `key=value` or `key` (removed); the smallest owner there can be.
#[derive(Default)]
struct Map {
    live: RefCell<BTreeMap<String, (String, Place, usize)>>,
    /// Keys that died in the hot part and have a snapshot in the cold one.
    buried: RefCell<BTreeMap<String, u64>>,
    applied: RefCell<u64>,
    carrying: RefCell<Vec<Option<String>>>,
}

impl Map {
    fn apply(
        &self,
        place: Place,
        as_of: Option<u64>,
        bytes: &[u8],
        known: &mut BTreeMap<String, u64>,
    ) {
        let text = std::str::from_utf8(bytes).unwrap();
        let (key, value) =
            text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        match as_of {
            Some(as_of) => {
                known.insert(key.to_owned(), as_of);
            }
            None if known.get(key).is_some_and(|as_of| place.offset() < *as_of) => return,
            None => *self.applied.borrow_mut() = place.offset() + 1,
        }
        match value {
            Some(value) => {
                self.live
                    .borrow_mut()
                    .insert(key.to_owned(), (value.to_owned(), place, bytes.len()));
            }
            None => {
                self.live.borrow_mut().remove(key);
                if place.part() == Part::Hot {
                    self.buried.borrow_mut().insert(key.to_owned(), place.offset());
                }
            }
        }
    }

    fn state(&self) -> BTreeMap<String, String> {
        self.live.borrow().iter().map(|(key, (value, _, _))| (key.clone(), value.clone())).collect()
    }
}

impl Owner for Map {
    fn number(&self) -> u64 {
        9
    }

    fn live_bytes(&self, part: Part, bounds: &[u64]) -> Vec<u64> {
        let mut bytes = vec![0; bounds.len() - 1];
        for (_, place, len) in self.live.borrow().values() {
            let i = bounds.partition_point(|bound| *bound <= place.offset());
            if place.part() == part && i > 0 && i < bounds.len() {
                bytes[i - 1] += *len as u64;
            }
        }
        bytes
    }

    fn carry(&self, part: Part, upto: u64, out: &mut dyn FnMut(&[u8])) -> u64 {
        let mut carrying = self.carrying.borrow_mut();
        carrying.clear();
        for (key, (value, place, _)) in self.live.borrow().iter() {
            if place.part() == part && place.offset() < upto {
                out(format!("{key}={value}").as_bytes());
                carrying.push(Some(key.clone()));
            }
        }
        if part == Part::Hot {
            self.buried.borrow_mut().retain(|key, at| {
                let goes = *at < upto;
                if goes && !self.live.borrow().contains_key(key) {
                    out(key.as_bytes());
                    carrying.push(None);
                }
                !goes
            });
        }
        *self.applied.borrow()
    }

    fn carried(&self, _: Part, _: u64, places: &[Place]) {
        let mut live = self.live.borrow_mut();
        assert_eq!(places.len(), self.carrying.borrow().len());
        for (key, place) in self.carrying.borrow().iter().zip(places) {
            if let Some(found) = key.as_ref().and_then(|key| live.get_mut(key)) {
                found.1 = *place;
            }
        }
    }
}

fn replay(journal: &Journal) -> Map {
    let map = Map::default();
    let mut known = BTreeMap::new();
    journal
        .replay(Reach::default(), |entry| {
            map.apply(entry.place, entry.as_of, entry.bytes, &mut known);
            Ok(())
        })
        .unwrap();
    map
}

#[test]
fn reclaiming_keeps_what_lives_forgets_what_died_and_leaves_few_segments_beside_one_stuck_entry() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    let map = Map::default();
    let mut known = BTreeMap::new();
    let mut say = |text: &str| {
        let appended = journal
            .append(&[Entry { owner: 9, bytes: text.as_bytes() }], &AppendOptions::default())
            .unwrap();
        map.apply(Place::new(Part::Hot, appended.base_offset), None, text.as_bytes(), &mut known);
    };
    say("stuck=for ever");
    let mut carried = 0;
    for round in 0..40 {
        for n in 0..200 {
            say(&format!("k{n}={round} {}", "v".repeat(60)));
        }
        for n in 0..200 {
            if n % 50 != round % 50 {
                say(&format!("k{n}"));
            }
        }
        journal.part(Part::Hot).settle().unwrap();
        carried += journal.reclaim(&[&map]).unwrap().carried_bytes;
        assert_eq!(replay(&journal).state(), map.state(), "round {round}");
    }
    assert!(carried > 0, "something was carried");
    assert!(map.state().contains_key("stuck"));
    let segments = [Part::Hot, Part::Cold].map(|part| journal.part(part).stats().unwrap().segments);
    assert!(segments.iter().sum::<usize>() <= 6, "{segments:?}");
    for (value, at, _) in map.live.borrow().values() {
        let bytes = journal.get(*at).unwrap().unwrap();
        assert!(bytes.ends_with(value.as_bytes()));
    }
}

/// A batch of a thousand entries that is many frames long and begins a segment of its own, on a machine that ends before any of
/// its calls, or inside it, or right after the acknowledgement.
#[test]
fn a_batch_of_a_thousand_entries_is_there_as_a_whole_or_not_at_all_wherever_it_is_cut() {
    let open = |disk: &SimDisk, durability| {
        let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
        let config = LogConfig::default().segment_bytes_max(16 << 10).frame_bytes(1 << 10);
        Journal::open(&dir, "0", config.durability(durability))
    };
    let bytes: Vec<Vec<u8>> = (0..1000u16).map(|n| n.to_le_bytes().repeat(20)).collect();
    let batch: Vec<Entry<'_>> =
        bytes.iter().map(|bytes| Entry { owner: 7, bytes: bytes.as_slice() }).collect();
    let (mut nothing, mut everything) = (0, 0);
    for (file_system, durability) in [
        (FileSystem::Ext4, Durability::Sync),
        (FileSystem::Ext4, Durability::Buffered),
        (FileSystem::Other, Durability::Buffered),
    ] {
        let before = SimDisk::new(11);
        before.set_file_system(file_system);
        let journal = open(&before, durability).unwrap();
        let first = [Entry { owner: 7, bytes: b"before" }; 100];
        journal.append(&first, &AppendOptions::default()).unwrap();
        journal.sync().unwrap();
        drop(journal);
        before.kill();
        let mut call = 0;
        let mut is_done = false;
        while !is_done {
            for inside in [false, true] {
                let disk = before.fork(call);
                let journal = open(&disk, durability).unwrap();
                let calls = disk.ops().total() + call;
                if inside {
                    disk.stop_inside(calls)
                } else {
                    disk.stop_at(calls)
                }
                let done = journal.append(&batch, &AppendOptions::default());
                // A store into the mapping cannot say that its process is dead.
                is_done = done.is_ok() && !disk.is_stopped();
                drop(journal);
                for seed in 0..12 {
                    let left = disk.fork(seed);
                    match seed {
                        0 => left.kill(),
                        1 => left.crash(&CrashPlan::nothing()),
                        _ => left.crash(&CrashPlan::random(seed)),
                    }
                    let found = contents(&open(&left, durability).unwrap(), Reach::default());
                    let tail = &found[100..];
                    assert!(found[..100].iter().all(|(_, bytes)| bytes == b"before"));
                    if tail.is_empty() {
                        nothing += 1;
                        let may_be_lost = durability == Durability::Buffered && seed > 0;
                        assert!(!is_done || may_be_lost, "call {call}, {seed}");
                    } else {
                        everything += 1;
                        let is_whole = tail.iter().map(|(_, bytes)| bytes).eq(bytes.iter());
                        assert!(is_whole, "{} of 1,000, call {call}, {seed}", tail.len());
                    }
                }
            }
            call += 1;
        }
    }
    assert!(nothing > 50 && everything > 50, "{nothing} and {everything}");
}
