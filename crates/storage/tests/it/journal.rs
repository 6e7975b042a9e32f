//! Atomic batches of tagged entries, their replay, and what carrying forward keeps.

use std::cell::RefCell;
use std::collections::BTreeMap;

use logmill_storage::io::FileSystem;
use logmill_storage::io::sim::{CrashPlan, Fault, SimDisk};
use logmill_storage::{
    AppendOptions, Carry, DataDir, DataDirOptions, Durability, Entry, Error, Journal, LogConfig,
    Owner, Part, Place, Reach,
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
    /// Keys whose values cannot be read now.
    unreadable: RefCell<Vec<String>>,
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

    fn carry(&self, part: Part, upto: u64, out: &mut Carry) -> logmill_storage::Result<u64> {
        let mut carrying = self.carrying.borrow_mut();
        carrying.clear();
        for (key, (value, place, _)) in self.live.borrow().iter() {
            if place.part() == part && place.offset() < upto {
                if self.unreadable.borrow().contains(key) {
                    let offset = place.offset();
                    return Err(Error::OffsetOutOfRange { offset, start: 0, end: 0 });
                }
                out.say(format!("{key}={value}").as_bytes());
                carrying.push(Some(key.clone()));
            }
        }
        if part == Part::Hot {
            for (key, _) in self.buried.borrow().iter().filter(|(_, at)| **at < upto) {
                if !self.live.borrow().contains_key(key) {
                    out.say(key.as_bytes());
                    carrying.push(None);
                }
            }
        }
        Ok(*self.applied.borrow())
    }

    fn carried(&self, part: Part, upto: u64, places: &[Place]) {
        if part == Part::Hot {
            self.buried.borrow_mut().retain(|_, at| *at >= upto);
        }
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

/// A journal whose oldest entry is needed, with two segments behind it that are not.
fn stuck_before_dead_ones(disk: &SimDisk) -> (Journal, Map) {
    let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
    let journal = Journal::open(&dir, "0", config()).unwrap();
    let map = Map::default();
    let mut known = BTreeMap::new();
    let texts = (0..3).flat_map(|segment| {
        let first = (segment == 0).then(|| "stuck=for ever".to_owned());
        let rest = (0..400).flat_map(|n| [format!("k{n}={}", "v".repeat(60)), format!("k{n}")]);
        first.into_iter().chain(rest)
    });
    for text in texts {
        let entry = Entry { owner: 9, bytes: text.as_bytes() };
        let appended = journal.append(&[entry], &AppendOptions::default()).unwrap();
        map.apply(Place::new(Part::Hot, appended.base_offset), None, text.as_bytes(), &mut known);
    }
    journal.part(Part::Hot).settle().unwrap();
    (journal, map)
}

/// What an owner could not read was not carried, and its segment went all the same.
#[test]
fn nothing_goes_while_an_owner_cannot_say_what_it_needs_and_the_next_round_works() {
    let (journal, map) = stuck_before_dead_ones(&SimDisk::new(1));
    map.unreadable.borrow_mut().push("stuck".to_owned());
    let before = journal.reach();
    for _ in 0..3 {
        let refused = journal.reclaim(&[&map]);
        assert!(matches!(&refused, Err(Error::OffsetOutOfRange { .. })), "{refused:?}");
        assert_eq!(journal.part(Part::Hot).start_offset(), 0);
        assert_eq!(journal.reach(), before, "nothing was carried");
    }
    map.unreadable.borrow_mut().clear();
    let done = journal.reclaim(&[&map]).unwrap();
    assert!(done.segments > 1 && done.carried_bytes > 0, "{done:?}");
    assert_eq!(replay(&journal).state(), map.state());
}

/// The disk fails at each call of a round in turn.
#[test]
fn a_round_that_fails_anywhere_loses_nothing_and_the_next_one_finishes_it() {
    let (mut failed, mut poisoned) = (0, 0);
    for nth in 0.. {
        let disk = SimDisk::new(1);
        let (journal, map) = stuck_before_dead_ones(&disk);
        disk.fail_nth(disk.ops().total() + nth, Fault::Eio);
        let first = journal.reclaim(&[&map]);
        if disk.faults_fired() == 0 {
            break;
        }
        disk.heal();
        let second = journal.reclaim(&[&map]);
        match (&first, &second) {
            (Ok(_), Ok(_)) => {}
            (Err(_), Ok(_)) => failed += 1,
            (_, Err(error)) => {
                assert!(matches!(error, Error::Poisoned { .. }), "call {nth}: {error}");
                poisoned += 1;
            }
        }
        if second.is_ok() {
            // What a failed sync has left in the cache is anybody's guess.
            assert_eq!(replay(&journal).state(), map.state(), "call {nth}");
        }
        drop(journal);
        disk.kill();
        let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
        let journal = Journal::open(&dir, "0", config()).unwrap();
        let found = replay(&journal);
        assert_eq!(found.state(), map.state(), "call {nth}, after the kill");
        journal.reclaim(&[&found]).unwrap();
        assert!(journal.part(Part::Hot).start_offset() > 0, "call {nth}");
        assert_eq!(replay(&journal).state(), map.state(), "call {nth}, reclaimed");
    }
    assert!(failed > 3 && poisoned > 3, "{failed} and {poisoned}");
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
