//! Ends of processes, and how one run is like another.

use super::*;

#[test]
fn a_kill_loses_nothing_that_was_written_or_stored() {
    let (disk, file) = durable(19, 2 * PAGE);
    let io = disk.io();
    write_full(&*file, &[2; 10], 0).unwrap();
    file.map(PAGE as u64).unwrap().store(100, &[3; 10]);
    create(&io, "b");
    let boot = io.boot_id();
    disk.kill();
    let bytes = disk.read_file("a").unwrap();
    assert_eq!((&bytes[..10], &bytes[100..110]), (&[2; 10][..], &[3; 10][..]));
    assert_eq!(disk.paths(), ["a", "b"]);
    assert_eq!(disk.io().boot_id(), boot);
    assert!(disk.pending_pieces(512) > 0, "a crash after the kill can still take it");
}

#[test]
fn every_call_of_a_dead_process_fails_and_changes_nothing() {
    for crash in [false, true] {
        let (disk, file) = durable(20, PAGE);
        let io = disk.io();
        let mut region = file.map(PAGE as u64).unwrap();
        let lock = io.lock(Path::new("LOCK"), LockKind::Exclusive).unwrap().unwrap();
        io.sync_dir(Path::new("")).unwrap();
        if crash {
            disk.crash(&CrashPlan::everything())
        } else {
            disk.kill()
        }
        region.store(0, &[9; 9]);
        let path = Path::new("a");
        let errors = [
            io.open(path, Open::Read).unwrap_err(),
            io.open(Path::new("new"), Open::Create).unwrap_err(),
            io.create_dir(Path::new("new")).unwrap_err(),
            io.list(Path::new("")).unwrap_err(),
            io.rename(path, Path::new("b")).unwrap_err(),
            io.unlink(path).unwrap_err(),
            io.remove_dir(path).unwrap_err(),
            io.sync_dir(Path::new("")).unwrap_err(),
            io.lock(path, LockKind::Shared).unwrap_err(),
            io.free_space().unwrap_err(),
            io.random(&mut [0]).unwrap_err(),
            file.read_at(&mut [0], 0).unwrap_err(),
            file.write_at(&[9], 0).unwrap_err(),
            file.len().unwrap_err(),
            file.set_len(0).unwrap_err(),
            file.reserve(0, 9).unwrap_err(),
            file.sync_data().unwrap_err(),
            file.drop_cache().unwrap_err(),
            file.map(9).unwrap_err(),
        ];
        assert!(errors.iter().all(is_cut), "{errors:?}");
        assert_eq!(disk.read_file("a").unwrap(), vec![1; PAGE]);
        assert_eq!(disk.paths(), ["LOCK", "a"]);
        let held = disk.io().lock(Path::new("LOCK"), LockKind::Exclusive).unwrap();
        assert!(held.is_some(), "death frees the lock");
        drop(lock);
        assert!(
            disk.io().lock(Path::new("LOCK"), LockKind::Shared).unwrap().is_none(),
            "but not the next one's"
        );
    }
}

#[test]
fn a_crash_changes_the_boot_id() {
    let disk = SimDisk::new(21);
    let mut ids = BTreeSet::from([disk.io().boot_id()]);
    for _ in 0..10 {
        disk.crash(&CrashPlan::nothing());
        assert!(ids.insert(disk.io().boot_id()));
    }
}

#[test]
fn locks_exclude_or_are_shared() {
    let disk = SimDisk::new(22);
    let (io, other, path) = (disk.io(), disk.io(), Path::new("LOCK"));
    let held = io.lock(path, LockKind::Exclusive).unwrap();
    assert!(held.is_some());
    assert!(other.lock(path, LockKind::Exclusive).unwrap().is_none());
    assert!(io.lock(path, LockKind::Shared).unwrap().is_none());
    drop(held);
    let shared = [(); 2].map(|()| other.lock(path, LockKind::Shared).unwrap().unwrap());
    assert!(io.lock(path, LockKind::Exclusive).unwrap().is_none());
    drop(shared);
    assert!(io.lock(path, LockKind::Exclusive).unwrap().is_some());
    let absent = io.lock(Path::new("ABSENT"), LockKind::Shared).unwrap_err();
    assert_eq!(absent.kind(), io::ErrorKind::NotFound, "whoever only reads makes no file");
}

#[test]
fn a_stop_cuts_before_the_call_and_leaves_all_before_it() {
    let run = |disk: &SimDisk| -> io::Result<()> {
        let file = disk.io().open(Path::new("a"), Open::Create)?;
        write_full(&*file, &[1; 100], 0)?;
        write_full(&*file, &[2; 100], 100)?;
        file.sync_data()
    };
    let whole = SimDisk::new(23);
    run(&whole).unwrap();
    assert_eq!(whole.change_points(), [0, 1, 2, 3]);
    for (stop, len) in [(0, None), (1, Some(0)), (2, Some(100)), (3, Some(200))] {
        let disk = SimDisk::new(23);
        disk.stop_at(stop);
        assert!(is_cut(&run(&disk).unwrap_err()));
        assert!(
            is_cut(&disk.io().list(Path::new("")).unwrap_err()),
            "and nothing works afterwards"
        );
        assert!(disk.is_stopped());
        assert_eq!(disk.ops().total(), stop);
        disk.kill();
        assert_eq!(disk.read_file("a").map(|b| b.len()), len);
        disk.io().list(Path::new("")).unwrap();
    }
    let disk = SimDisk::new(23);
    disk.stop_at(4);
    run(&disk).unwrap();
    assert!(!disk.is_stopped());
}

#[test]
fn a_stop_inside_a_call_leaves_it_done_in_part() {
    let (mut lengths, mut torn, mut created) = (BTreeSet::new(), 0, BTreeSet::new());
    for seed in 0..100 {
        let (disk, file) = durable(seed, PAGE);
        disk.stop_inside(disk.ops().total());
        assert!(is_cut(&file.write_at(&[2; 8], PAGE as u64).unwrap_err()));
        lengths.insert(disk.read_file("a").unwrap().len() - PAGE);

        let (disk, file) = durable(seed, PAGE);
        let mut region = file.map(PAGE as u64).unwrap();
        disk.stop_inside(disk.ops().total());
        region.store(3, &[2; 80]);
        region.store(200, &[2; 80]);
        let bytes = disk.read_file("a").unwrap();
        assert!(bytes[83..].iter().all(|b| *b == 1), "no store after the cut one");
        torn += u32::from(bytes[3..83].contains(&1) && bytes[3..83].contains(&2));

        let disk = SimDisk::new(seed);
        disk.stop_inside(0);
        assert!(is_cut(&disk.io().open(Path::new("a"), Open::Create).unwrap_err()));
        created.insert(disk.paths().len());
    }
    assert_eq!(lengths, (0..=8).collect());
    assert!(torn > 0);
    assert_eq!(created, BTreeSet::from([0, 1]));
}

#[test]
fn a_fork_is_another_machine() {
    let (disk, file) = durable(24, 3 * PAGE);
    write_full(&*file, &[2; 10], 0).unwrap();
    let fork = disk.fork(1);
    assert_eq!((fork.ops().total(), fork.io().boot_id()), (0, disk.io().boot_id()));
    write_full(&*open(&fork, "a"), &[3; PAGE], PAGE as u64).unwrap();
    fork.crash(&CrashPlan::everything());
    fork.remove_file("a").unwrap();
    let mut expected = vec![1; 3 * PAGE];
    expected[..10].fill(2);
    assert_eq!(disk.read_file("a").unwrap(), expected);
    disk.crash(&CrashPlan::nothing());
    assert_eq!(disk.read_file("a").unwrap(), vec![1; 3 * PAGE]);
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let (disk, file) = durable(seed, 10 * PAGE);
        let mut region = file.map(10 * PAGE as u64).unwrap();
        (0..20).for_each(|i| region.store(i * 1_000, &[i as u8; 900]));
        for name in 0..8 {
            create(&disk.io(), &format!("{name}"));
        }
        let order: Vec<Entry> = disk.io().list(Path::new("")).unwrap();
        let mut id = [0; 20];
        disk.io().random(&mut id).unwrap();
        disk.crash(&CrashPlan::random(seed));
        (order, id, disk.paths(), disk.read_file("a"), disk.io().boot_id())
    };
    assert_eq!(run(25), run(25));
    assert_ne!(run(25), run(26));
}

#[test]
fn a_listing_comes_in_any_order() {
    let disk = SimDisk::new(27);
    for name in ["a", "b", "c"] {
        disk.write_file(name, b"12").unwrap();
    }
    disk.write_file("d/e", b"").unwrap();
    disk.plant_other("l").unwrap();
    let io = disk.io();
    let orders: BTreeSet<Vec<String>> = (0..200)
        .map(|_| io.list(Path::new("")).unwrap().into_iter().map(|e| e.name).collect())
        .collect();
    assert!(orders.len() > 50, "{}", orders.len());
    for entry in io.list(Path::new("")).unwrap() {
        let expected = match entry.name.as_str() {
            "d" => (Kind::Directory, 0),
            "l" => (Kind::Other, 0),
            _ => (Kind::File, 2),
        };
        assert_eq!((entry.kind, entry.len), expected);
    }
    assert!(is_not_a_file(&io.open(Path::new("l"), Open::Read).unwrap_err()));
    assert!(is_not_a_file(&io.open(Path::new("d"), Open::Write).unwrap_err()));
    assert!(is_not_a_file(&io.create_dir(Path::new("a")).unwrap_err()));
}
