//! What the trait promises, asked of the machine's own file system.
#![expect(
    clippy::disallowed_methods,
    reason = "hostile directories are laid out behind the trait's back"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::io::{is_not_a_file, read_full, write_full};

fn disk() -> (tempfile::TempDir, Disk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path(), false).unwrap();
    (directory, disk)
}

/// Every case that resolves names, with `openat2` and without.
fn both_ways(case: impl Fn(&Path, &Disk)) {
    let (directory, disk) = disk();
    case(directory.path(), &disk);
    let (directory, mut disk) = self::disk();
    disk.beneath = false;
    case(directory.path(), &disk);
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(disk: &Disk, path: &str) -> Vec<String> {
    let mut names: Vec<String> =
        disk.list(Path::new(path)).unwrap().into_iter().map(|e| e.name).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read_back_by_another_handle() {
    both_ways(|_, disk| {
        disk.create_dir(Path::new("0")).unwrap();
        let path = Path::new("0/a");
        let file = disk.open(path, Open::Create).unwrap();
        write_full(&*file, b"hello, log", 5).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("0")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file.drop_cache().unwrap();
        let mut bytes = [9; 20];
        let other = disk.open(path, Open::Read).unwrap();
        assert_eq!(read_full(&*other, &mut bytes, 0).unwrap(), 15);
        assert_eq!(&bytes[..15], b"\0\0\0\0\0hello, log");
        assert_eq!(other.len().unwrap(), 15);
        assert!(other.write_at(b"x", 0).is_err(), "a handle for reading does not write");
        file.set_len(7).unwrap();
        assert_eq!(other.len().unwrap(), 7);
    });
}

#[test]
fn create_refuses_a_name_that_exists_and_the_other_ways_one_that_does_not() {
    both_ways(|_, disk| {
        let path = Path::new("a");
        for how in [Open::Read, Open::Write] {
            assert_eq!(disk.open(path, how).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        disk.open(path, Open::Create).unwrap();
        assert_eq!(disk.open(path, Open::Create).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            disk.open(Path::new("no/a"), Open::Create).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    });
}

#[test]
fn rename_replaces_and_unlink_removes_across_directories() {
    both_ways(|_, disk| {
        for directory in ["1", "1/2", "1"] {
            disk.create_dir(Path::new(directory)).unwrap();
        }
        let written = disk.open(Path::new("1/a.tmp"), Open::Create).unwrap();
        write_full(&*written, b"new", 0).unwrap();
        disk.open(Path::new("1/2/a"), Open::Create).unwrap();
        disk.rename(Path::new("1/a.tmp"), Path::new("1/2/a")).unwrap();
        assert_eq!(names(disk, "1"), ["2"]);
        assert_eq!(disk.open(Path::new("1/2/a"), Open::Read).unwrap().len().unwrap(), 3);
        assert!(disk.remove_dir(Path::new("1/2")).is_err(), "it is not empty");
        disk.unlink(Path::new("1/2/a")).unwrap();
        disk.remove_dir(Path::new("1/2")).unwrap();
        assert_eq!(names(disk, "1"), [""; 0]);
        assert_eq!(disk.unlink(Path::new("1/2")).unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_path_that_could_leave_the_directory_is_refused_before_any_call() {
    both_ways(|root, disk| {
        std::fs::create_dir(root.join("in")).unwrap();
        for path in ["/etc/passwd", "../x", "in/../x", "in/../../x", "./in"] {
            let path = Path::new(path);
            assert_eq!(
                disk.open(path, Open::Read).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{path:?}"
            );
            assert!(disk.create_dir(path).is_err());
            assert!(disk.unlink(path).is_err());
            assert!(disk.rename(Path::new("in"), path).is_err());
            assert!(disk.sync_dir(path).is_err());
        }
        assert!(disk.open(Path::new("a\0b"), Open::Create).is_err());
        assert!(disk.unlink(Path::new("")).is_err());
    });
}

#[test]
fn links_fifos_sockets_and_directories_in_a_files_place_are_recognised_and_not_touched() {
    both_ways(|root, disk| {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("target"), b"theirs").unwrap();
        std::os::unix::fs::symlink(outside.path().join("target"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("linked")).unwrap();
        std::fs::write(root.join("one"), b"").unwrap();
        std::fs::hard_link(root.join("one"), root.join("two")).unwrap();
        std::fs::create_dir(root.join("directory")).unwrap();
        let fifo = Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
        assert!(fifo.success());
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        for name in ["link", "one", "two", "fifo", "socket", "linked/target"] {
            for how in [Open::Read, Open::Write] {
                let error = disk.open(Path::new(name), how).unwrap_err();
                assert!(is_not_a_file(&error), "{name}: {error:?}");
            }
            assert!(
                is_not_a_file(&disk.lock(Path::new(name), LockKind::Exclusive).unwrap_err()),
                "{name}"
            );
        }
        assert!(is_not_a_file(&disk.open(Path::new("directory"), Open::Read).unwrap_err()));
        for name in ["link", "linked", "one", "fifo"] {
            assert!(is_not_a_file(&disk.create_dir(Path::new(name)).unwrap_err()), "{name}");
            assert!(is_not_a_file(&disk.list(Path::new(name)).unwrap_err()), "{name}");
        }
        for entry in disk.list(Path::new("")).unwrap() {
            let expected = if entry.name == "directory" { Kind::Directory } else { Kind::Other };
            assert_eq!(entry.kind, expected, "{entry:?}");
        }
        assert!(disk.unlink(Path::new("linked/target")).is_err());
        assert_eq!(std::fs::read(outside.path().join("target")).unwrap(), b"theirs");
    });
}

#[test]
fn a_listing_tells_files_and_their_lengths() {
    let (_directory, disk) = disk();
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    write_full(&*file, &[1; 300], 0).unwrap();
    let listed = disk.list(Path::new("")).unwrap();
    assert_eq!(listed, [Entry { name: "a".to_owned(), kind: Kind::File, len: 300, mode: 0o600 }]);
}

#[test]
fn a_new_root_is_made_with_its_parents_and_is_closed_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b");
    assert_eq!(Disk::open(&root, false).unwrap_err().kind(), io::ErrorKind::NotFound);
    Disk::open(&root, true).unwrap();
    Disk::open(&root, true).unwrap();
    assert_eq!((mode_of(&root), mode_of(&directory.path().join("a"))), (0o700, 0o700));
    std::fs::write(directory.path().join("file"), b"").unwrap();
    assert!(Disk::open(&directory.path().join("file"), true).is_err());
}

#[test]
fn one_exclusive_holder_or_many_shared_ones() {
    let (_directory, disk) = disk();
    let path = Path::new("LOCK");
    let held = disk.lock(path, LockKind::Exclusive).unwrap();
    assert!(held.is_some());
    assert!(disk.lock(path, LockKind::Exclusive).unwrap().is_none());
    assert!(disk.lock(path, LockKind::Shared).unwrap().is_none());
    drop(held);
    let shared = [(); 2].map(|()| disk.lock(path, LockKind::Shared).unwrap().unwrap());
    assert!(disk.lock(path, LockKind::Exclusive).unwrap().is_none());
    drop(shared);
    assert!(disk.lock(path, LockKind::Exclusive).unwrap().is_some());
    let absent = disk.lock(Path::new("ABSENT"), LockKind::Shared).unwrap_err();
    assert_eq!(absent.kind(), io::ErrorKind::NotFound, "whoever only reads makes no file");
}

#[test]
fn reserved_bytes_have_blocks_and_a_sparse_file_is_not_mapped() {
    let (_directory, disk) = disk();
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    file.reserve(0, 0).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(file.map(1 << 20).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    file.reserve(0, 1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 20);
    assert_eq!(file.map(1 << 20).unwrap().len(), 1 << 20);
    assert!(file.map((1 << 20) + 1).is_err());
    assert!(file.map(0).is_err());
}

#[test]
fn what_was_reserved_and_never_written_is_told_from_what_was_stored() {
    let (_directory, disk) = disk();
    if disk.file_system() == FileSystem::Other {
        eprintln!("SKIPPED: this file system is not asked");
        return;
    }
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    file.reserve(0, 64 << 20).unwrap();
    assert_eq!(file.written_from(0).unwrap(), [], "nothing was written yet");
    let stored = [5, 9 << 20, (64 << 20) - 1];
    stored.iter().for_each(|position| write_full(&*file, b"x", *position).unwrap());
    let holds = |written: &[Range<u64>], at| written.iter().any(|range| range.contains(&at));
    let written = file.written_from(0).unwrap();
    assert!(stored.iter().all(|position| holds(&written, *position)), "{written:?}");
    assert!(!holds(&written, 32 << 20), "{written:?}");
    file.sync_data().unwrap();
    let written = file.written_from(6).unwrap();
    assert_eq!(written[0].start, 6, "what lies before the position is left out");
    assert!(holds(&written, 9 << 20) && holds(&written, (64 << 20) - 1), "{written:?}");
    assert_eq!(file.written_from(64 << 20).unwrap(), []);
    if let Ok(mut map) = file.map(64 << 20) {
        map.store(20 << 20, b"y");
        assert!(holds(&file.written_from(0).unwrap(), 20 << 20), "a store that no sync has seen");
    }
}

#[test]
fn a_file_in_very_many_pieces_is_told_in_a_bounded_number() {
    let (_directory, disk) = disk();
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    let piece = 8192;
    for n in 0..5000 {
        write_full(&*file, b"x", n * piece).unwrap();
    }
    let written = file.written_from(0).unwrap();
    assert!(written.len() <= 4097, "{}", written.len());
    assert!((0..5000).all(|n| written.iter().any(|range| range.contains(&(n * piece)))));
}

#[test]
fn a_file_system_that_cannot_reserve_gets_zeros_beyond_the_end_only() {
    let (_directory, disk) = disk();
    let file = disk.open_file(Path::new("a"), Open::Create).unwrap();
    write_full(&file, b"kept", 0).unwrap();
    file.write_zeros(4, 200_000).unwrap();
    assert!(is_reserved(&file.file.metadata().unwrap(), 200_000));
    let mut bytes = vec![1; 200_001];
    assert_eq!(read_full(&file, &mut bytes, 0).unwrap(), 200_000);
    assert_eq!(&bytes[..4], b"kept");
    assert!(bytes[4..200_000].iter().all(|b| *b == 0));
}

#[test]
fn identities_differ_and_the_boot_id_does_not() {
    let (_directory, disk) = disk();
    let mut ids = [[0; 40]; 2];
    for id in &mut ids {
        disk.random(id).unwrap();
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(disk.boot_id(), self::disk().1.boot_id());
    assert!(disk.free_space().unwrap() > 0);
    #[cfg(target_os = "linux")]
    assert_ne!(disk.boot_id(), [0; 16]);
}

/// Runs the test `name` of this binary again in a process that a shell has put under `limits`.
fn in_child(name: &str, limits: &str) {
    let binary = std::env::current_exe().unwrap();
    // Its output goes through a pipe: the limits would hold for a log file that this process writes to, too.
    let child = Command::new("sh")
        .args(["-c", &format!("{limits}; exec \"$0\" --exact io::disk::tests::{name} --nocapture")])
        .arg(binary)
        .env("LOGMILL_CHILD", limits)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{limits}: {}: {said}", child.status);
}

fn is_child() -> bool {
    std::env::var_os("LOGMILL_CHILD").is_some()
}

#[test]
fn modes_are_0600_and_0700_under_any_umask() {
    if !is_child() {
        return ["umask 000", "umask 022", "umask 777"]
            .iter()
            .for_each(|limits| in_child("modes_are_0600_and_0700_under_any_umask", limits));
    }
    // Not `tempfile`, whose own directory the umask would close.
    let base = std::env::temp_dir().join(format!("logmill-umask-{}", std::process::id()));
    let root: PathBuf = base.join("deep");
    let disk = Disk::open(&root, true).unwrap();
    disk.create_dir(Path::new("d")).unwrap();
    disk.open(Path::new("d/f"), Open::Create).unwrap();
    disk.lock(Path::new("LOCK"), LockKind::Exclusive).unwrap();
    let modes =
        [&base, &root, &root.join("d"), &root.join("d/f"), &root.join("LOCK")].map(|p| mode_of(p));
    std::fs::remove_dir_all(&base).unwrap();
    assert_eq!(modes, [0o700, 0o700, 0o700, 0o600, 0o600]);
}

#[test]
fn a_file_size_limit_is_an_error_and_not_the_signal_that_kills_the_process() {
    if !is_child() {
        // 8 blocks of 512 bytes or of 1,024, as the shell has it.
        return in_child(
            "a_file_size_limit_is_an_error_and_not_the_signal_that_kills_the_process",
            "ulimit -f 8",
        );
    }
    let max = file_bytes_max();
    assert!(max == 4096 || max == 8192, "{max}");
    let (_directory, disk) = disk();
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    assert_eq!(file.write_at(&[7; 100], max - 10).unwrap(), 10);
    let errors = [
        file.write_at(&[7; 100], max).unwrap_err(),
        file.set_len(max + 1).unwrap_err(),
        file.reserve(max - 1, 2).unwrap_err(),
        file.reserve(u64::MAX, 2).unwrap_err(),
        write_full(&*file, &[7; 100], max - 10).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
    assert_eq!(file.len().unwrap(), max);
    assert_eq!(file.write_at(b"", max).unwrap(), 0);
}
