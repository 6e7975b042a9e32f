use super::*;

fn file() -> Content {
    Content::File(File::default())
}

fn bytes(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    let number = disk.lookup(ROOT, name).ok()?;
    Some(disk.read(number, 0, 1 << 20).unwrap().to_vec())
}

/// What a power loss leaves of a disk that `prepare` has written to, with many seeds.
fn outcomes(prepare: impl Fn(&mut Disk)) -> BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let mut disk = Disk::new(false);
        prepare(&mut disk);
        disk.power_loss(&mut Random::new(seed));
        bytes(&disk, "a")
    };
    (0..200).map(outcome).collect()
}

#[test]
fn a_synced_file_without_a_synced_name_may_be_gone() {
    let with = |sync_name: bool| {
        outcomes(|disk| {
            let number = disk.make(ROOT, "a", 0o600, file()).unwrap();
            disk.write(number, 0, b"synced").unwrap();
            disk.sync(number).unwrap();
            if sync_name {
                disk.sync(ROOT).unwrap();
            }
        })
    };
    assert_eq!(with(true), [Some(b"synced".to_vec())].into());
    assert_eq!(with(false), [None, Some(b"synced".to_vec())].into());
}

#[test]
fn sectors_that_were_not_synced_arrive_in_any_order() {
    let (old, new) = ([1; 1024], [2; 1024]);
    let seen = outcomes(|disk| {
        let number = disk.make(ROOT, "a", 0o600, file()).unwrap();
        disk.write(number, 0, &old).unwrap();
        disk.sync(number).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(number, 0, &new).unwrap();
    });
    let half = [[1; 512], [2; 512]].concat();
    let other = [[2; 512], [1; 512]].concat();
    let all = [old.to_vec(), new.to_vec(), half, other];
    assert_eq!(seen, all.into_iter().map(Some).collect());
}

#[test]
fn a_rename_without_a_synced_directory_leaves_the_old_file_or_the_new_one() {
    let seen = outcomes(|disk| {
        for (name, byte) in [("a", b"old"), ("b", b"new")] {
            let number = disk.make(ROOT, name, 0o600, file()).unwrap();
            disk.write(number, 0, byte).unwrap();
            disk.sync(number).unwrap();
        }
        disk.sync(ROOT).unwrap();
        disk.rename((ROOT, "b"), (ROOT, "a")).unwrap();
    });
    assert_eq!(seen, [Some(b"old".to_vec()), Some(b"new".to_vec())].into());
}

#[test]
fn what_a_failed_sync_did_not_write_is_never_written() {
    for fault in [Fault::FailedSync, Fault::ForgetfulSync] {
        let mut disk = Disk::new(false);
        let number = disk.make(ROOT, "a", 0o600, file()).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(number, 0, b"in doubt").unwrap();
        disk.plan(Some(fault), 0);
        assert_eq!(disk.sync(number), Err(Refusal::Io));
        assert_eq!(disk.sync(number), Ok(()), "and the retry lies");
        let cached: &[u8] = if fault == Fault::FailedSync { b"in doubt" } else { &[0; 8] };
        assert_eq!(bytes(&disk, "a").unwrap(), cached);
        disk.power_loss(&mut Random::new(1));
        assert_eq!(bytes(&disk, "a").unwrap(), [0; 8]);
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_what_has_its_blocks() {
    let mut disk = Disk::new(false);
    let number = disk.make(ROOT, "a", 0o600, file()).unwrap();
    disk.reserve(number, 0..BLOCK).unwrap();
    disk.plan(Some(Fault::Full), 0);
    let more = vec![7; 10 * BLOCK as usize];
    assert_eq!(disk.write(number, BLOCK, &more), Ok(4 * BLOCK as usize));
    assert_eq!(disk.write(number, 5 * BLOCK, &more), Err(Refusal::Full));
    assert_eq!(disk.write(number, 0, b"in place"), Ok(8));
    assert_eq!(disk.fired(), 2);
    disk.remove(ROOT, "a").unwrap();
    let other = disk.make(ROOT, "b", 0o600, file()).unwrap();
    assert_eq!(disk.write(other, 0, &more), Ok(5 * BLOCK as usize));
}

#[test]
fn without_power_nothing_is_done_and_nothing_is_read() {
    let mut disk = Disk::new(false);
    let number = disk.make(ROOT, "a", 0o600, file()).unwrap();
    disk.plan(Some(Fault::Power), 1);
    disk.write(number, 0, b"one").unwrap();
    assert_eq!(disk.write(number, 3, b"two"), Err(Refusal::Io));
    assert_eq!(disk.read(number, 0, 9), Err(Refusal::Io));
    assert!(disk.is_dark());
    disk.power_loss(&mut Random::new(1));
    assert!(!disk.is_dark());
}
