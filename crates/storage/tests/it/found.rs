//! Defects that the tests of this crate have found, each with its story.

use logmill_storage::io::sim::SimDisk;
use logmill_storage::{DataDir, DataDirOptions, Log, LogConfig, Record};

fn dir_on(disk: &SimDisk) -> DataDir {
    DataDirOptions::new().threads(0).open_with(disk.io()).unwrap()
}

/// Golden bytes of an index could not be had: `roll` after a sync left a segment of which nobody knew that it was synced,
/// so it was never sealed unless something was appended to the next one, and the log did not even close cleanly.
#[test]
fn a_segment_that_was_synced_before_the_roll_is_sealed_and_the_log_closes_cleanly() {
    let disk = SimDisk::new(1);
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    log.append(&Record::value(b"durable")).unwrap();
    log.roll().unwrap();
    log.settle().unwrap();
    assert!(disk.paths().contains(&"0/00000000000000000000.index".to_owned()));
    log.close().unwrap();
    let log = Log::open(&dir_on(&disk), "0", LogConfig::default()).unwrap();
    assert!(log.recovery().clean);
    assert_eq!(log.end_offset(), 1);
}
