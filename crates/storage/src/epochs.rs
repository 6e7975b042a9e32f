//! Where the epochs of a log end: what a position that is kept elsewhere is checked against.

use std::sync::Arc;

use crate::error::Result;
use crate::io::Open;
use crate::log::Log;
use crate::segment::Segment;

impl Log {
    /// One past the last offset of `epoch` and the epochs before it.
    ///
    /// A position (epoch, offset) that lies beyond this was committed for records that power loss has taken back since;
    /// later ones have, or will have, their offsets.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::Io`](crate::Error::Io).
    /// # Cost
    /// None for the present epoch; otherwise the heads of a few segments are read.
    pub fn end_of_epoch(&self, epoch: u32) -> Result<u64> {
        let view = self.view();
        if epoch >= view.epoch() {
            return Ok(self.end_offset());
        }
        let segments = view.segments();
        let later = segments.get(first_after(&segments, epoch)?);
        Ok(later.map_or_else(|| self.end_offset(), |segment| segment.base_offset()))
    }
}

/// The epoch of a log that is restored from a backup or salvaged: higher than any that the one which it was made from comes
/// to by crashing, less than 65,536 times, afterwards.
pub(crate) const fn raised(epoch: u32) -> u32 {
    (epoch | 0xFFFF).saturating_add(1)
}

/// The number of the first segment of a later epoch than `epoch`, or how many there are. An epoch never changes inside a
/// segment, and never goes back from one to the next.
pub(crate) fn first_after(segments: &[Arc<Segment>], epoch: u32) -> Result<usize> {
    let (mut first, mut last) = (0, segments.len());
    while first < last {
        let middle = usize::midpoint(first, last);
        // Another process may have put another file in its place since somebody looked.
        let segment = segments[middle].unread();
        let file = segment.open(Open::Read)?;
        if segment.head(file.as_ref())?.epoch > epoch {
            last = middle;
        } else {
            first = middle + 1;
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use crate::config::{Durability, LogConfig};
    use crate::data_dir::DataDir;
    use crate::log::Log;
    use crate::record::Record;

    #[test]
    fn an_epoch_ends_where_the_first_record_of_a_later_one_begins() {
        let place = tempfile::tempdir().unwrap();
        let config = LogConfig::default().durability(Durability::Buffered);
        for (epoch, records) in [(1, 3), (2, 2)] {
            let dir = DataDir::open(place.path()).unwrap();
            let log = Log::open(&dir, "0", config.clone()).unwrap();
            assert_eq!(log.epoch(), epoch);
            for _ in 0..records {
                log.append(&Record::value(b"x")).unwrap();
            }
            // Dropped without closing, which raises the epoch.
        }
        let dir = DataDir::open(place.path()).unwrap();
        let log = Log::open(&dir, "0", config).unwrap();
        let ends = |log: &Log| [1, 2, 3, 4].map(|epoch| log.end_of_epoch(epoch).unwrap());
        assert_eq!(ends(&log), [3, 5, 5, 5]);
        log.append(&Record::value(b"y")).unwrap();
        assert_eq!(ends(&log), [3, 5, 6, 6]);
    }
}
