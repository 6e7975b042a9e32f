//! Failing calls and full disks.

use super::*;

#[test]
fn after_a_failed_sync_the_cache_lies_until_it_is_dropped() {
    let (disk, file) = durable(28, 2 * PAGE);
    write_full(&*file, &[2; PAGE], 0).unwrap();
    disk.fail_next(Op::Sync, Fault::SyncEioKeep);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(disk.faults_fired(), 1);
    file.sync_data().unwrap();
    assert_eq!(disk.read_file("a").unwrap()[0], 2, "read from the cache");
    assert_eq!(disk.durable_file("a").unwrap()[0], 1);
    let crashed = disk.fork(0);
    crashed.crash(&CrashPlan::everything());
    assert_eq!(
        crashed.read_file("a").unwrap(),
        vec![1; 2 * PAGE],
        "though the second sync said Ok"
    );
    file.drop_cache().unwrap();
    assert_eq!(disk.read_file("a").unwrap(), vec![1; 2 * PAGE]);
}

#[test]
fn a_page_that_a_failed_sync_gave_up_comes_along_with_the_next_change_to_it() {
    let (disk, file) = durable(29, 2 * PAGE);
    write_full(&*file, &[2; 2 * PAGE], 0).unwrap();
    disk.fail_next(Op::Sync, Fault::SyncEioKeep);
    file.sync_data().unwrap_err();
    write_full(&*file, &[3], 4_000).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.faults_fired(), 1);
    disk.crash(&CrashPlan::nothing());
    let bytes = disk.read_file("a").unwrap();
    assert_eq!((bytes[0], bytes[4_000], bytes[PAGE]), (2, 3, 1));
}

/// The rewritten end of a log was lost after a sync that said Ok, since the length that a sync had failed to write never was.
#[test]
fn a_length_that_a_failed_sync_gave_up_comes_along_with_the_next_write_behind_the_durable_one() {
    let (disk, file) = durable(33, 100);
    write_full(&*file, &[2; 50], 100).unwrap();
    disk.fail_next(Op::Sync, Fault::SyncEioKeep);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(disk.durable_file("a").unwrap().len(), 100, "though the second sync said Ok");
    write_full(&*file, &[3; 50], 100).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.faults_fired(), 1);
    disk.crash(&CrashPlan::nothing());
    assert_eq!(disk.read_file("a").unwrap()[100..], [3; 50]);
}

#[test]
fn a_drop_of_the_cache_keeps_dirty_and_mapped_pages() {
    let (disk, file) = durable(30, PAGE);
    write_full(&*file, &[2; 10], 0).unwrap();
    file.drop_cache().unwrap();
    assert_eq!(disk.read_file("a").unwrap()[0], 2);
    let region = file.map(PAGE as u64).unwrap();
    disk.fail_next(Op::Sync, Fault::SyncEioKeep);
    file.sync_data().unwrap_err();
    file.drop_cache().unwrap();
    assert_eq!(disk.read_file("a").unwrap()[0], 2);
    drop(region);
    file.drop_cache().unwrap();
    assert_eq!(disk.read_file("a").unwrap()[0], 1);
    assert_eq!(disk.faults_fired(), 1);
}

#[test]
fn each_way_for_a_sync_to_fail_leaves_its_own_mixture() {
    let outcome = |fault: Fault, seed: u64| {
        let (disk, file) = durable(seed, 4 * PAGE);
        write_full(&*file, &[2; 4 * PAGE], 0).unwrap();
        disk.fail_next(Op::Sync, fault);
        assert!(file.sync_data().is_err());
        assert_eq!(disk.faults_fired(), 1);
        let seen = sectors(&disk.read_file("a").unwrap(), PAGE);
        file.sync_data().unwrap();
        disk.crash(&CrashPlan::everything());
        (seen, sectors(&disk.read_file("a").unwrap(), PAGE))
    };
    let (new, old) = (vec![2; 4], vec![1; 4]);
    for seed in 0..20 {
        assert_eq!(outcome(Fault::SyncEioKeep, seed), (new.clone(), old.clone()));
        assert_eq!(outcome(Fault::SyncEioRevert, seed), (old.clone(), old.clone()));
        assert_eq!(outcome(Fault::SyncFalseFailure, seed), (new.clone(), new.clone()));
        assert_eq!(outcome(Fault::SyncEioSome, seed).0, new);
        let (seen, left) = outcome(Fault::SyncEioDrop, seed);
        assert_eq!(seen, left, "what is not on the platter is not in the cache either");
    }
    for fault in [Fault::SyncEioSome, Fault::SyncEioDrop] {
        assert!((0..20).map(|seed| outcome(fault, seed).1).collect::<BTreeSet<_>>().len() > 5);
    }
    let any: BTreeSet<_> = (0..50).map(|seed| outcome(Fault::Eio, seed)).collect();
    for plain in [(new.clone(), old.clone()), (old.clone(), old), (new.clone(), new)] {
        assert!(any.contains(&plain), "EIO of a sync is any of them");
    }
}

#[test]
fn a_failed_sync_of_a_directory_forgets_its_names_and_the_next_one_says_ok() {
    let disk = SimDisk::new(31);
    let io = disk.io();
    create(&io, "a");
    disk.fail_next(Op::SyncDir, Fault::SyncEioKeep);
    assert!(io.sync_dir(Path::new("")).is_err());
    assert_eq!(disk.faults_fired(), 1);
    io.sync_dir(Path::new("")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&[], &["a"]]));
    // A new change of the same name is not undone by the forgotten one.
    io.unlink(Path::new("a")).unwrap();
    io.sync_dir(Path::new("")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&[]]));
}

#[test]
fn a_fault_hits_the_first_call_that_it_can_happen_at_once_or_for_ever() {
    let (disk, file) = durable(32, 100);
    let now = disk.ops().total();
    disk.fail_nth(now + 1, Fault::Enospc);
    assert_eq!(file.write_at(&[2], 0).unwrap(), 1);
    file.len().unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.faults_fired(), 0, "a full disk stops no sync");
    assert_eq!(file.write_at(&[3], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[4], 0).unwrap(), 1);
    assert_eq!((disk.faults_fired(), disk.read_file("a").unwrap()[0]), (1, 4));

    disk.fail_from(0, Fault::Edquot);
    for _ in 0..3 {
        assert_eq!(file.write_at(&[5], 0).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    }
    assert_eq!((disk.faults_fired(), disk.read_file("a").unwrap()[0]), (4, 4));
    disk.heal();
    assert_eq!(file.write_at(&[6], 0).unwrap(), 1);
    disk.fail_from(0, Fault::Emfile);
    assert_eq!(disk.io().open(Path::new("a"), Open::Read).unwrap_err().raw_os_error(), Some(24));
    file.write_at(&[7], 0).unwrap();
    disk.kill();
    disk.io().open(Path::new("a"), Open::Read).unwrap();
}

#[test]
fn loops_over_short_and_interrupted_calls_get_everything_through() {
    let (disk, file) = durable(33, 100);
    disk.fail_from(0, Fault::ShortWrite);
    disk.fail_from(0, Fault::ShortRead);
    disk.fail_nth(disk.ops().total() + 2, Fault::Eintr);
    let bytes: Vec<u8> = (0..200).collect();
    write_full(&*file, &bytes, 50).unwrap();
    let mut back = [0; 200];
    assert_eq!(read_full(&*file, &mut back, 50).unwrap(), 200);
    assert_eq!(back[..], bytes);
    assert!(disk.ops().of(Op::Write) > 3);
    assert!(disk.faults_fired() > 4, "{}", disk.faults_fired());
    assert_eq!(file.write_at(&[1], 0).unwrap(), 1, "one byte cannot be short");
}

#[test]
fn a_write_or_a_change_of_names_that_failed_may_have_been_done() {
    let (mut put, mut names) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..60 {
        let (disk, file) = durable(seed, 4);
        disk.fail_next(Op::Write, Fault::Eio);
        assert!(file.write_at(&[2; 4], 0).is_err());
        put.insert(disk.read_file("a").unwrap());
        disk.fail_next(Op::Rename, Fault::Eio);
        assert!(disk.io().rename(Path::new("a"), Path::new("b")).is_err());
        names.insert(disk.paths());
        assert_eq!(disk.faults_fired(), 2);
    }
    assert_eq!(put.len(), 5, "any part from the front");
    assert_eq!(names, sets(&[&["a"], &["b"]]));
}

#[test]
fn a_full_disk_cuts_the_write_at_the_byte_and_then_says_so() {
    let (disk, file) = durable(34, 1_000);
    disk.set_capacity(Some(1_700));
    assert_eq!(disk.io().free_space().unwrap(), 700);
    assert_eq!(
        file.write_at(&[2; 1_000], 900).unwrap(),
        800,
        "100 bytes have blocks, 700 are free"
    );
    assert_eq!(file.write_at(&[2; 10], 1_700).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(
        file.write_at(&[3; 1_700], 0).unwrap(),
        1_700,
        "what has blocks can be written again"
    );
    assert_eq!((disk.used(), file.len().unwrap()), (1_700, 1_700));
    file.set_len(600).unwrap();
    assert_eq!(disk.used(), 600);
    assert_eq!(file.reserve(0, 1_701).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!((disk.used(), file.len().unwrap()), (600, 600), "all or nothing");
    file.reserve(500, 1_200).unwrap();
    assert_eq!((disk.used(), file.len().unwrap()), (1_700, 1_700));
    file.map(1_700).unwrap().store(1_000, &[4; 700]);
    assert_eq!(
        disk.read_file("a").unwrap()[1_699],
        4,
        "a store into reserved bytes needs no more room"
    );
}

#[test]
fn the_blocks_of_a_removed_file_are_free_when_nobody_has_it_open() {
    let (disk, file) = durable(35, 1_000);
    disk.write_file("b", &[0; 500]).unwrap();
    let io = disk.io();
    io.unlink(Path::new("a")).unwrap();
    assert_eq!(disk.used(), 1_500);
    drop(file);
    assert_eq!(disk.used(), 500);
    create(&io, "c").reserve(0, 100).unwrap();
    io.rename(Path::new("c"), Path::new("b")).unwrap();
    assert_eq!(disk.used(), 100);
    disk.crash(&CrashPlan::nothing());
    assert_eq!(
        (disk.used(), disk.paths()),
        (1_500, vec!["a".to_owned(), "b".to_owned()]),
        "no removal was synced"
    );
}

#[test]
fn a_sparse_file_is_not_mapped() {
    let (disk, file) = durable(36, 100);
    file.set_len(200).unwrap();
    assert_eq!(file.map(200).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(file.map(0).is_err());
    file.reserve(0, 200).unwrap();
    assert_eq!(file.map(200).unwrap().len(), 200);
    assert_eq!(disk.ops().of(Op::Map), 3);
}

#[test]
#[should_panic(expected = "SIGBUS")]
fn a_store_into_a_file_that_was_cut_under_its_mapping_is_the_end_of_the_process() {
    let (_disk, file) = durable(37, PAGE);
    let mut region = file.map(PAGE as u64).unwrap();
    file.set_len(10).unwrap();
    region.store(0, &[1; 11]);
}

#[test]
#[should_panic(expected = "outside the mapped region")]
fn a_store_outside_its_region_is_the_callers_mistake() {
    let (_disk, file) = durable(38, PAGE);
    file.map(100).unwrap().store(99, &[1; 2]);
}
