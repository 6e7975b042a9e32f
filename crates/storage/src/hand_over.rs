//! The commit that a reader at the end of a log waits for, handed over in memory: it need not ask the system for it.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// A longer commit is read from its file.
const COMMIT_MAX: usize = 4 << 10;

#[derive(Debug, Default)]
pub(crate) struct HandOver {
    /// A reader has come to the end since the last commit that was kept.
    is_wanted: AtomicBool,
    kept: Mutex<Kept>,
}

/// A commit as it is in its file.
#[derive(Debug, Default)]
struct Kept {
    segment: u64,
    position: u64,
    bytes: Vec<u8>,
}

impl HandOver {
    /// A reader has come to the end.
    #[inline]
    pub fn want(&self) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps the commit that was stored at `position` of `segment` if a reader wants it: then there is another buffer in its
    /// place. Costs others nothing.
    #[inline]
    pub fn give(&self, segment: u64, position: u64, commit: &mut Vec<u8>) {
        if self.is_wanted.load(Ordering::Relaxed) && commit.len() <= COMMIT_MAX {
            self.is_wanted.store(false, Ordering::Relaxed);
            let mut kept = self.kept.lock();
            (kept.segment, kept.position) = (segment, position);
            std::mem::swap(&mut kept.bytes, commit);
        }
    }

    /// Adds to `buffer` the commit at `position` of `segment`, which is active, if that is kept.
    pub fn take(&self, segment: u64, position: u64, buffer: &mut Vec<u8>) {
        let kept = self.kept.lock();
        if (kept.segment, kept.position) == (segment, position) {
            buffer.extend_from_slice(&kept.bytes);
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use crate::config::{Durability, LogConfig, WritePath};
    use crate::data_dir::{DataDir, DataDirOptions};
    use crate::error::Error;
    use crate::io::sim::{Op, SimDisk};
    use crate::log::Log;
    use crate::reader::Reader;
    use crate::record::Record;

    fn log(disk: &SimDisk) -> (DataDir, Log) {
        let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
        let config = LogConfig::default();
        let config = config.durability(Durability::Buffered).write_path(WritePath::Mapped);
        let log = Log::open(&dir, "1", config).unwrap();
        log.append(&Record::value(b"first")).unwrap();
        (dir, log)
    }

    fn next(reader: &mut Reader) -> Option<Vec<u8>> {
        let batch = reader.next_batch().unwrap()?;
        Some(batch.records().next().unwrap().unwrap().value.unwrap().to_vec())
    }

    #[test]
    fn who_has_come_to_the_end_gets_a_short_commit_without_a_read() {
        let disk = SimDisk::new(1);
        let (_dir, log) = log(&disk);
        let mut reader = log.reader(0).unwrap();
        assert_eq!(next(&mut reader).unwrap(), b"first");
        let reads = || disk.ops().of(Op::Read);
        let mut read = reads();
        for (len, costs) in [(10, 0), (20, 0), (9_000, 2), (30, 0)] {
            assert_eq!(next(&mut reader), None);
            log.append(&Record::value(&vec![7; len])).unwrap();
            assert_eq!(next(&mut reader).unwrap(), vec![7; len]);
            read += costs;
            assert_eq!(reads(), read, "for {len} bytes");
        }
        assert_eq!(next(&mut reader), None);
        for value in [b"one", b"two"] {
            log.append(&Record::value(value)).unwrap();
        }
        assert_eq!(next(&mut reader).unwrap(), b"one");
        assert_eq!(reads(), read);
        assert_eq!(next(&mut reader).unwrap(), b"two");
        assert_eq!(reads(), read + 1);
    }

    /// Compaction may put another file in the place of a segment that has ended.
    #[test]
    fn a_segment_that_has_ended_is_read_from_its_file() {
        let disk = SimDisk::new(1);
        let (_dir, log) = log(&disk);
        let mut reader = log.reader(0).unwrap();
        assert_eq!(next(&mut reader).unwrap(), b"first");
        assert_eq!(next(&mut reader), None);
        log.append(&Record::value(b"second")).unwrap();
        log.roll().unwrap();
        let path = "1/00000000000000000000.log";
        let at = disk.read_file(path).unwrap();
        let at = at.windows(6).position(|window| window == b"second").unwrap() as u64;
        disk.flip_bit(path, at * 8).unwrap();
        assert!(matches!(reader.next_batch(), Err(Error::Corrupt { offset: 1, .. })));
    }
}
