//! Recovery's last step: what is before the end is written again.

use super::*;
use crate::io::sim::{CrashPlan, Fault, Op, SimDisk};

fn segment_of(disk: &SimDisk, bytes: &[u8]) -> (Segment, Arc<dyn File>) {
    let segment = Segment::new(disk.io(), Path::new(""), Path::new(""), [7; 16], 0);
    disk.write_file(segment.path().to_str().unwrap(), bytes).unwrap();
    let file = disk.io().open(&segment.path(), Open::Write).unwrap();
    (segment, file)
}

/// After a sync that failed, the cache shows all and counts it as written: a later sync keeps nothing of it.
#[test]
fn what_a_failed_sync_left_in_the_cache_alone_is_on_the_device_afterwards() {
    let disk = SimDisk::new(1);
    let (segment, file) = segment_of(&disk, &[1; HEAD_LEN]);
    let frames: Vec<u8> = (0..=250).cycle().take(COPY_BYTES * 5 / 2).collect();
    write_full(file.as_ref(), &frames, HEAD_LEN as u64).unwrap();
    disk.fail_next(Op::Sync, Fault::SyncEioKeep);
    assert!(file.sync_data().is_err());
    assert_eq!(disk.faults_fired(), 1);
    let end = (HEAD_LEN + frames.len()) as u64;
    rewrite(&segment, file.as_ref(), HEAD_LEN as u64, end).unwrap();
    disk.crash(&CrashPlan::nothing());
    let kept = disk.read_file(segment.path().to_str().unwrap()).unwrap();
    assert!(kept == [&[1; HEAD_LEN], &frames[..]].concat(), "{} bytes", kept.len());
}

#[test]
fn a_segment_that_became_shorter_while_it_was_recovered_is_damaged() {
    let disk = SimDisk::new(1);
    let (segment, file) = segment_of(&disk, &[1; 1_000]);
    let refused = rewrite(&segment, file.as_ref(), HEAD_LEN as u64, 1_005).unwrap_err();
    let what = Corruption::Truncated { expected: 1_005, found: 1_000 };
    assert!(matches!(&refused, Error::Corrupt { what: found, .. } if *found == what), "{refused}");
}
