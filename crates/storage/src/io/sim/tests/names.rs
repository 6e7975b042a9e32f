//! What a crash takes from names.

use super::*;

#[test]
fn a_synced_file_in_an_unsynced_directory_may_be_gone() {
    let disk = SimDisk::new(12);
    let file = create(&disk.io(), "a");
    write_full(&*file, b"synced", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&[], &["a"]]));
    disk.crash(&CrashPlan::everything());
    assert_eq!(disk.read_file("a").unwrap(), b"synced");
}

#[test]
fn a_lost_rename_gives_both_old_names_back_and_is_never_half_done() {
    let disk = SimDisk::new(13);
    disk.write_file("a", b"old").unwrap();
    disk.write_file("b", b"new").unwrap();
    disk.io().rename(Path::new("b"), Path::new("a")).unwrap();
    assert_eq!(disk.read_file("a").unwrap(), b"new");
    assert_eq!(names_after(&disk, 50), sets(&[&["a"], &["a", "b"]]));
    let lost = disk.fork(0);
    lost.crash(&CrashPlan::nothing());
    assert_eq!(
        (lost.read_file("a").unwrap(), lost.read_file("b").unwrap()),
        (b"old".to_vec(), b"new".to_vec())
    );
    disk.io().sync_dir(Path::new("")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&["a"]]));
}

#[test]
fn changes_of_names_are_lost_one_by_one() {
    let disk = SimDisk::new(14);
    disk.write_file("a", b"a").unwrap();
    let io = disk.io();
    io.unlink(Path::new("a")).unwrap();
    create(&io, "b");
    create(&io, "c.tmp");
    io.rename(Path::new("c.tmp"), Path::new("c")).unwrap();
    assert_eq!(disk.pending_names(), 4);
    let seen = names_after(&disk, 1_000);
    for a in [&["a"][..], &[]] {
        for b in [&["b"][..], &[]] {
            for c in [&["c"][..], &["c.tmp"], &[]] {
                let expected: Vec<String> =
                    [a, b, c].concat().iter().map(|n| n.to_string()).collect();
                assert!(seen.contains(&expected), "{expected:?}");
            }
        }
    }
    assert_eq!(seen.len(), 12);
    disk.crash(&CrashPlan::exactly(0, 0b1000));
    assert_eq!(disk.paths(), ["a", "c"], "the rename alone");
}

#[test]
fn a_lost_directory_takes_its_files_along() {
    let disk = SimDisk::new(15);
    let io = disk.io();
    io.create_dir(Path::new("0")).unwrap();
    create(&io, "0/a").sync_data().unwrap();
    io.sync_dir(Path::new("0")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&[], &["0/a"]]));
    io.sync_dir(Path::new("")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&["0/a"]]));
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let disk = SimDisk::new(16);
    let io = disk.io();
    disk.write_file("0/a", b"a").unwrap();
    disk.write_file("1/b", b"b").unwrap();
    io.rename(Path::new("0/a"), Path::new("1/a")).unwrap();
    io.sync_dir(Path::new("1")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&["0/a", "1/b"], &["1/a", "1/b"]]));
    io.sync_dir(Path::new("0")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&["1/a", "1/b"]]));
}

#[test]
fn a_file_never_comes_back_under_two_names() {
    let disk = SimDisk::new(17);
    let io = disk.io();
    io.create_dir(Path::new("d")).unwrap();
    io.sync_dir(Path::new("")).unwrap();
    create(&io, "x");
    for (from, to) in [("x", "y"), ("y", "d/z"), ("d/z", "d/w")] {
        io.rename(Path::new(from), Path::new(to)).unwrap();
    }
    let check =
        |disk: &SimDisk| assert!(names_after(disk, 300).iter().all(|names| names.len() <= 1));
    check(&disk);
    io.sync_dir(Path::new("d")).unwrap();
    check(&disk);
    io.sync_dir(Path::new("")).unwrap();
    assert_eq!(names_after(&disk, 100), sets(&[&["d/w"]]));
}

#[test]
fn an_unlinked_file_may_come_back_whole_until_its_directory_is_synced() {
    let (disk, file) = durable(18, 100);
    disk.io().unlink(Path::new("a")).unwrap();
    assert_eq!(disk.read_file("a"), None);
    let mut still = [0; 100];
    assert_eq!(read_full(&*file, &mut still, 0).unwrap(), 100, "who has it open goes on reading");
    assert_eq!(names_after(&disk, 50), sets(&[&[], &["a"]]));
    let back = disk.fork(0);
    back.crash(&CrashPlan::nothing());
    assert_eq!(back.read_file("a").unwrap(), [1; 100]);
    disk.io().sync_dir(Path::new("")).unwrap();
    assert_eq!(names_after(&disk, 50), sets(&[&[]]));
}
