//! What counts as a segment file.

use super::*;
use crate::io::Disk;

#[test]
fn a_name_is_that_of_a_segment_in_its_one_spelling_and_below_the_end_of_offsets() {
    for base in [0, 1, 99, OFFSET_END - 1] {
        assert_eq!(parse_name(&file_name(base, "log"), "log"), Some(base));
        assert_eq!(parse_name(&file_name(base, "log"), "index"), None);
    }
    for base in [OFFSET_END, u64::MAX] {
        assert_eq!(parse_name(&file_name(base, "log"), "log"), None, "{base}");
    }
    for name in ["1.log", "000000000000000000001.log", "00000000000000000001log", ".log"] {
        assert_eq!(parse_name(name, "log"), None, "{name}");
    }
}

#[test]
fn a_file_may_be_as_long_as_a_segment_can_be_and_no_longer() {
    let place = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Io> = Arc::new(Disk::open(place.path(), false).unwrap());
    let segment = Segment::new(Arc::clone(&disk), Path::new(""), Path::new(""), [0; 16], 0);
    let file = disk.open(&segment.path(), Open::Create).unwrap();
    file.set_len(SEGMENT_BYTES_MAX).unwrap();
    assert_eq!(segment.len(file.as_ref()).unwrap(), SEGMENT_BYTES_MAX);
    file.set_len(SEGMENT_BYTES_MAX + 1).unwrap();
    let refused = segment.len(file.as_ref()).unwrap_err();
    let Error::Corrupt { position: SEGMENT_BYTES_MAX, offset: 0, what, .. } = &refused else {
        panic!("{refused}");
    };
    let found = SEGMENT_BYTES_MAX + 1;
    assert_eq!(*what, Corruption::Truncated { expected: SEGMENT_BYTES_MAX, found });
}
