//! What a crash takes from files, and what it cannot take.

use super::*;

#[test]
fn synced_bytes_under_a_synced_name_survive_every_crash() {
    let disk = SimDisk::new(1);
    let io = disk.io();
    io.create_dir(Path::new("7")).unwrap();
    io.create_dir(Path::new("7/3")).unwrap();
    let file = create(&io, "7/3/a.tmp");
    file.reserve(0, 20_000).unwrap();
    write_full(&*file, &[1; 10_000], 0).unwrap();
    file.map(20_000).unwrap().store(10_000, &[2; 5_000]);
    file.sync_data().unwrap();
    io.rename(Path::new("7/3/a.tmp"), Path::new("7/3/a")).unwrap();
    for directory in ["7/3", "7", ""] {
        io.sync_dir(Path::new(directory)).unwrap();
    }
    let expected = disk.read_file("7/3/a").unwrap();
    assert_eq!(expected.len(), 20_000);
    assert_eq!((disk.pending_pieces(512), disk.pending_names()), (0, 0));
    for plan in [CrashPlan::nothing(), CrashPlan::everything(), CrashPlan::exactly(0, 0)] {
        let disk = disk.fork(0);
        disk.crash(&plan);
        assert_eq!(disk.read_file("7/3/a").as_ref(), Some(&expected));
    }
    for found in after_crashes(&disk, "7/3/a", 500) {
        assert_eq!(found.as_ref(), Some(&expected));
    }
    disk.crash(&CrashPlan::nothing());
    assert_eq!(disk.paths(), ["7/3/a"]);
}

#[test]
fn what_was_synced_stays_below_what_was_not() {
    let (disk, file) = durable(2, 8 * PAGE);
    write_full(&*file, &[2; 2 * PAGE], 3 * PAGE as u64).unwrap();
    for found in after_crashes(&disk, "a", 300) {
        let found = found.unwrap();
        assert_eq!(found.len(), 8 * PAGE);
        assert!(found[..3 * PAGE].iter().all(|b| *b == 1));
        assert!(found[5 * PAGE..].iter().all(|b| *b == 1));
    }
}

#[test]
fn unsynced_sectors_are_lost_one_by_one_in_every_combination() {
    let (disk, file) = durable(3, 4 * 512);
    write_full(&*file, &[2; 4 * 512], 0).unwrap();
    assert_eq!(disk.pending_pieces(512), 4);
    let mut exact = BTreeSet::new();
    for mask in 0..16 {
        let disk = disk.fork(0);
        disk.crash(&CrashPlan::exactly(mask, 0));
        let found = sectors(&disk.read_file("a").unwrap(), 512);
        let expected: Vec<u8> = (0..4).map(|i| 1 + (mask >> i & 1) as u8).collect();
        assert_eq!(found, expected);
        exact.insert(found);
    }
    let random: BTreeSet<Vec<u8>> =
        after_crashes(&disk, "a", 2_000).into_iter().map(|b| sectors(&b.unwrap(), 512)).collect();
    assert_eq!(random, exact, "random crashes come upon every combination");
}

#[test]
fn sectors_of_4096_bytes_are_not_torn() {
    let (disk, file) = durable(4, 4 * PAGE);
    write_full(&*file, &[2; 4 * PAGE], 0).unwrap();
    assert_eq!(disk.pending_pieces(PAGE), 4);
    for seed in 0..200 {
        let disk = disk.fork(seed);
        disk.crash(&CrashPlan { sector: PAGE, ..CrashPlan::random(seed) });
        for page in disk.read_file("a").unwrap().chunks(PAGE) {
            assert!(page.iter().all(|b| *b == page[0]));
        }
    }
}

#[test]
fn a_later_write_may_survive_an_earlier_one_and_any_version_of_a_sector_may_be_left() {
    let (disk, file) = durable(5, 1024);
    for version in 2..=5 {
        write_full(&*file, &[version; 1024], 0).unwrap();
    }
    let seen: BTreeSet<Vec<u8>> =
        after_crashes(&disk, "a", 3_000).into_iter().map(|b| sectors(&b.unwrap(), 512)).collect();
    assert_eq!(seen.len(), 25, "five versions of one sector with five of the other");
}

#[test]
fn a_growing_file_may_come_back_with_any_of_its_lengths_and_zeros_or_stale_bytes_in_it() {
    let (disk, file) = durable(6, 100);
    for i in 0..3 {
        write_full(&*file, &[7; 4096], 100 + i * 4096).unwrap();
    }
    let found: Vec<Vec<u8>> = after_crashes(&disk, "a", 500).into_iter().flatten().collect();
    let lengths: BTreeSet<usize> = found.iter().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([100, 4196, 8292, 12388]));
    assert!(found.iter().all(|b| b[..100].iter().all(|b| *b == 1)));
    let is_stale = |bytes: &Vec<u8>| bytes[512..].iter().any(|b| ![0, 7].contains(b));
    assert!(found.iter().any(|b| b.len() == 12388 && b[512..].contains(&0)), "a hole");
    assert!(found.iter().filter(|b| b.len() > 512).any(is_stale), "what the blocks held before");
}

#[test]
fn stale_bytes_are_those_of_files_that_are_gone() {
    let disk = SimDisk::new(7);
    let io = disk.io();
    disk.write_file("old", &[0xAB; 40 * PAGE]).unwrap();
    io.unlink(Path::new("old")).unwrap();
    io.sync_dir(Path::new("")).unwrap();
    disk.crash(&CrashPlan::nothing());
    let file = create(&disk.io(), "a");
    write_full(&*file, &[1; 8 * PAGE], 0).unwrap();
    disk.io().sync_dir(Path::new("")).unwrap();
    let exposed =
        after_crashes(&disk, "a", 200).into_iter().flatten().filter(|b| b.contains(&0xAB)).count();
    assert!(exposed > 0);
}

#[test]
fn reserved_bytes_are_zeros_or_what_was_written_and_never_stale() {
    let disk = SimDisk::new(8);
    disk.write_file("old", &[0xAB; 40 * PAGE]).unwrap();
    disk.remove_file("old").unwrap();
    let file = create(&disk.io(), "a");
    file.reserve(0, 8 * PAGE as u64).unwrap();
    file.sync_data().unwrap();
    disk.io().sync_dir(Path::new("")).unwrap();
    write_full(&*file, &[1; 8 * PAGE], 0).unwrap();
    for found in after_crashes(&disk, "a", 300) {
        let found = found.unwrap();
        assert_eq!(found.len(), 8 * PAGE);
        assert!(found.iter().all(|b| [0, 1].contains(b)));
    }
}

#[test]
fn a_cut_and_what_was_written_after_it_are_lost_independently() {
    let (disk, file) = durable(9, 2048);
    file.set_len(512).unwrap();
    file.set_len(2048).unwrap();
    write_full(&*file, &[2; 512], 1024).unwrap();
    let seen: BTreeSet<Vec<u8>> =
        after_crashes(&disk, "a", 3_000).into_iter().map(|b| sectors(&b.unwrap(), 512)).collect();
    assert!(seen.contains(&vec![1, 1, 1, 1]), "nothing happened");
    assert!(seen.contains(&vec![1, 0, 2, 0]), "all happened");
    assert!(seen.contains(&vec![1, 1, 2, 1]), "the write without the cut");
    assert!(seen.contains(&vec![1]), "only the cut");
    assert!(seen.iter().all(|s| s[0] == 1));
}

#[test]
fn a_mapped_store_may_be_half_done_inside_a_sector_and_a_write_may_not() {
    let torn = |mapped: bool| {
        let (disk, file) = durable(10, PAGE);
        if mapped {
            file.map(PAGE as u64).unwrap().store(0, &[2; 512]);
        } else {
            write_full(&*file, &[2; 512], 0).unwrap();
        }
        let mixed = |b: Option<Vec<u8>>| {
            let b = b.unwrap();
            b[..512].contains(&1) && b[..512].contains(&2)
        };
        after_crashes(&disk, "a", 300).into_iter().filter(|b| mixed(b.clone())).count()
    };
    assert!(torn(true) > 0);
    assert_eq!(torn(false), 0);
}

#[test]
fn a_crash_does_not_touch_what_was_not_written_since_the_last_sync() {
    let (disk, file) = durable(11, 3 * PAGE);
    write_full(&*file, &[2; 10], 100).unwrap();
    file.sync_data().unwrap();
    write_full(&*file, &[3; 10], 2 * PAGE as u64 + 600).unwrap();
    assert_eq!(disk.pending_pieces(512), 1);
    let mut expected = vec![1; 3 * PAGE];
    expected[100..110].fill(2);
    disk.crash(&CrashPlan::nothing());
    assert_eq!(disk.read_file("a").unwrap(), expected);
}
