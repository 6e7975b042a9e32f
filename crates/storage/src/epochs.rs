//! Where the epochs of a log end: what a position that is kept elsewhere is checked against.

use crate::error::Result;
use crate::io::Open;
use crate::log::Log;

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
        // An epoch never changes inside a segment, and never goes back from one to the next.
        let segments = view.segments();
        let (mut first, mut last) = (0, segments.len());
        while first < last {
            let middle = usize::midpoint(first, last);
            let segment = &segments[middle];
            let file = segment.open(Open::Read)?;
            if segment.head(file.as_ref())?.epoch > epoch {
                last = middle;
            } else {
                first = middle + 1;
            }
        }
        Ok(segments.get(first).map_or_else(|| self.end_offset(), |segment| segment.base_offset()))
    }
}
