//! Looking at the disk and changing it behind the engine's back.

use super::*;

#[test]
fn the_trace_tells_the_order_of_calls() {
    let disk = SimDisk::new(39);
    disk.start_trace();
    let io = disk.io();
    io.create_dir(Path::new("0")).unwrap();
    let file = create(&io, "0/manifest.tmp");
    write_full(&*file, &[1; 8192], 0).unwrap();
    disk.fail_next(Op::Sync, Fault::SyncFalseFailure);
    file.sync_data().unwrap_err();
    file.len().unwrap();
    io.rename(Path::new("0/manifest.tmp"), Path::new("0/manifest")).unwrap();
    io.sync_dir(Path::new("0")).unwrap();
    disk.stop_inside(disk.ops().total());
    file.write_at(&[1], 5).unwrap_err();
    file.write_at(&[1], 6).unwrap_err();
    let expected = [
        "create_dir 0",
        "create 0/manifest.tmp",
        "write 0/manifest.tmp 0+8192",
        "sync 0/manifest.tmp (EIO, yet durable)",
        "rename 0/manifest.tmp -> 0/manifest",
        "sync_dir 0",
        "write 0/manifest.tmp 5+1 (cut)",
    ];
    assert_eq!(disk.trace(), expected);
    assert_eq!(disk.trace(), [""; 0]);
}

#[test]
fn calls_are_counted_by_kind() {
    let (disk, file) = durable(40, 100);
    read_full(&*file, &mut [0; 100], 0).unwrap();
    let ops = disk.ops();
    let counts =
        [Op::Create, Op::Write, Op::Sync, Op::SyncDir, Op::Read, Op::Store].map(|op| ops.of(op));
    assert_eq!((counts, ops.total()), ([1, 1, 1, 1, 1, 0], 5));
    assert_eq!(disk.change_points(), [0, 1, 2, 3]);
}

#[test]
fn rot_is_on_the_platter_and_in_the_cache() {
    let (disk, file) = durable(41, 5_000);
    disk.flip_bit("a", 4_096 * 8 + 3).unwrap();
    disk.corrupt("a", 10, 4, |bytes| bytes.copy_from_slice(b"evil")).unwrap();
    assert!(disk.corrupt("a", 4_998, 3, |_| ()).is_err());
    assert!(disk.flip_bit("a", 5_000 * 8).is_err());
    let mut expected = vec![1; 5_000];
    expected[4_096] = 1 ^ 8;
    expected[10..14].copy_from_slice(b"evil");
    let mut cached = vec![0; 5_000];
    read_full(&*file, &mut cached, 0).unwrap();
    disk.crash(&CrashPlan::nothing());
    assert_eq!((cached, disk.read_file("a").unwrap()), (expected.clone(), expected));
}

#[test]
fn a_planted_file_is_durable_and_replaces_what_was_there() {
    let disk = SimDisk::new(42);
    let io = disk.io();
    io.create_dir(Path::new("0")).unwrap();
    create(&io, "0/a");
    disk.write_file("0/a", b"planted").unwrap();
    assert!(disk.write_file("0/a/b", b"").is_err());
    for found in after_crashes(&disk, "0/a", 50) {
        // The directory itself was made by the process and never synced.
        assert!(found.is_none_or(|b| b == b"planted"));
    }
    io.sync_dir(Path::new("")).unwrap();
    disk.remove_file("0/a").unwrap();
    assert!(disk.remove_file("0/a").is_err());
    disk.crash(&CrashPlan::everything());
    assert_eq!(disk.paths(), [""; 0]);
}

#[test]
fn the_file_system_is_the_one_that_the_test_wants() {
    let disk = SimDisk::new(43);
    assert_eq!(disk.io().file_system(), FileSystem::Ext4);
    disk.set_file_system(FileSystem::Other);
    assert_eq!(disk.fork(0).io().file_system(), FileSystem::Other);
}

#[test]
fn paths_handles_and_positions_are_checked_as_a_real_disk_does() {
    let (disk, file) = durable(44, 10);
    let io = disk.io();
    for path in ["/a", "../a", "x/../a"] {
        assert_eq!(
            io.open(Path::new(path), Open::Read).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
    assert_eq!(
        io.open(Path::new("no/a"), Open::Create).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        io.open(Path::new("a"), Open::Create).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    let reader = io.open(Path::new("a"), Open::Read).unwrap();
    assert!(reader.write_at(&[1], 0).is_err());
    assert!(reader.set_len(0).is_err());
    assert_eq!(file.write_at(&[1], u64::MAX).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(file.set_len(u64::MAX).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(file.read_at(&mut [0], u64::MAX).unwrap(), 0);
    io.create_dir(Path::new("d")).unwrap();
    io.create_dir(Path::new("d")).unwrap();
    create(&io, "d/f");
    assert_eq!(io.remove_dir(Path::new("d")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    assert!(io.unlink(Path::new("d")).is_err());
    io.rename(Path::new("d"), Path::new("e")).unwrap();
    assert!(io.rename(Path::new("e"), Path::new("e/e")).is_err());
    io.unlink(Path::new("e/f")).unwrap();
    io.remove_dir(Path::new("e")).unwrap();
    assert_eq!(disk.paths(), ["a"]);
}

#[test]
fn many_removed_files_do_not_pile_up() {
    let disk = SimDisk::new(45);
    let io = disk.io();
    for i in 0..500 {
        let path = format!("{i}");
        write_full(&*create(&io, &path), &[1; PAGE], 0).unwrap();
        io.unlink(Path::new(&path)).unwrap();
        io.sync_dir(Path::new("")).unwrap();
    }
    assert_eq!((disk.used(), disk.pending_names()), (0, 0));
    assert!(disk.machine.state.lock().volume.inodes().count() <= 20);
}
