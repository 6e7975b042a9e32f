//! Finds the next valid frame behind damage.
//!
//! Every byte position is tried. The checksums are seeded with the log's random id, its epoch and the segment's base offset, so
//! that nobody who does not know these can send a value that passes for a frame; who does, can, which is why `behind` asks for
//! more. What is found is for those who look for damage or through it (`verify`, `dump`, `salvage`), and recovery takes it for a
//! witness, which can make it refuse a log and never has it give one up.

use std::io;
use std::sync::Arc;

use crate::batch::{FRAME_MAX, FrameHead, HEAD_LEN, Scope};
use crate::frames::Frames;
use crate::io::{File, read_full};
use crate::layout::SEGMENT_BYTES_MAX;

const WINDOW: usize = 256 << 10;

/// Where frames end at the latest in a file without a footer, however long a hole it ends with. The last one may end in
/// zeros that the file system keeps as a hole, too.
pub(crate) fn frames_end(file: &dyn File) -> io::Result<u64> {
    let written = file.written_from(0)?.last().map_or(0, |last| last.end);
    Ok(file.len()?.min(written.saturating_add(FRAME_MAX)).min(SEGMENT_BYTES_MAX))
}

/// A search in one segment file.
#[derive(Debug)]
pub(crate) struct Resync<'a> {
    file: &'a Arc<dyn File>,
    scope: &'a Scope,
    limit: u64,
    /// How many more bytes candidates may cost, so that a file made of false heads takes no quadratic time.
    budget: u64,
    is_exhausted: bool,
    window: Vec<u8>,
    /// Position of `window[0]`. The window is kept from one search to the next: frames may follow each other closely.
    window_at: u64,
}

impl<'a> Resync<'a> {
    /// A search before the position `limit`.
    pub fn new(file: &'a Arc<dyn File>, scope: &'a Scope, limit: u64) -> Resync<'a> {
        let budget = limit.saturating_mul(8).saturating_add(64 << 20);
        Resync { file, scope, limit, budget, is_exhausted: false, window: Vec::new(), window_at: 0 }
    }

    /// The position of the first frame at or after `from` that verifies and decodes.
    pub fn next(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut position = from;
        while position < self.limit {
            let i = self.fill(position)?;
            let Some(bytes) = self.window[i..].first_chunk::<HEAD_LEN>() else { break };
            match FrameHead::decode(self.scope, bytes) {
                Ok(Some(head)) if self.is_frame(&head, position)? => return Ok(Some(position)),
                Ok(None) => {
                    // A head that ends in the first byte that is not zero cannot begin in the zeros before.
                    let zeros = self.window[i..].iter().take_while(|b| **b == 0).count();
                    position += (zeros - HEAD_LEN) as u64;
                }
                Ok(Some(_)) | Err(_) => {}
            }
            position += 1;
        }
        Ok(None)
    }

    /// Whether there were more false heads than could be followed, so that a frame may have been passed over.
    pub const fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Has a head's bytes at `position` in the window, if the file has them; returns their index.
    #[inline]
    fn fill(&mut self, position: u64) -> io::Result<usize> {
        // Before the window is as far from it as can be.
        let i = position.wrapping_sub(self.window_at);
        if i.saturating_add(HEAD_LEN as u64) <= self.window.len() as u64 {
            #[expect(clippy::cast_possible_truncation, reason = "inside the window")]
            return Ok(i as usize);
        }
        self.window.resize(WINDOW, 0);
        self.window_at = position;
        let got = read_full(self.file.as_ref(), &mut self.window, position);
        self.window.truncate(*got.as_ref().unwrap_or(&0));
        got.map(|_| 0)
    }

    fn is_frame(&mut self, head: &FrameHead, at: u64) -> io::Result<bool> {
        let len = head.frame_len() as u64;
        if len > self.limit.saturating_sub(at) {
            return Ok(false);
        }
        if len > self.budget {
            self.is_exhausted = true;
            return Ok(false);
        }
        self.budget -= len;
        let mut frames = Frames::new(Arc::clone(self.file), self.scope.clone(), at, at + len);
        Ok(frames.next_valid()?.is_some())
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use super::*;
    use crate::batch::{Encoder, FrameSpec};
    use crate::io::Open;
    use crate::io::sim::SimDisk;
    use crate::record::Record;

    fn file_of(bytes: &[u8]) -> (SimDisk, Arc<dyn File>) {
        let disk = SimDisk::new(1);
        disk.write_file("a", bytes).unwrap();
        let file = disk.io().open("a".as_ref(), Open::Read).unwrap();
        (disk, file)
    }

    fn frame(scope: &Scope, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let spec = FrameSpec { base_offset: 5, ..FrameSpec::default() };
        Encoder::default().dense(&mut out, scope, &spec, &[Record::value(value)], 0);
        out
    }

    #[test]
    fn a_frame_is_found_behind_any_number_of_zeros_and_of_other_bytes() {
        let scope = Scope::new(&[7; 16], 1, 0, 0);
        let frame = frame(&scope, b"here");
        for gap in [0, 1, 15, 16, 17, 4096, WINDOW - 20, WINDOW - 1, WINDOW, WINDOW + 3] {
            for filler in [0u8, 0xAB] {
                let mut bytes = vec![filler; gap];
                bytes.extend_from_slice(&frame);
                let limit = bytes.len() as u64;
                let (_disk, file) = file_of(&bytes);
                let found = Resync::new(&file, &scope, limit).next(0).unwrap();
                assert_eq!(found, Some(gap as u64), "gap {gap} of {filler}");
                assert_eq!(Resync::new(&file, &scope, limit).next(gap as u64 + 1).unwrap(), None);
                assert_eq!(Resync::new(&file, &scope, limit - 1).next(0).unwrap(), None);
            }
        }
    }

    /// A head's checksum holds for whatever follows it, so a file may be full of heads of long frames.
    #[test]
    fn a_file_of_false_heads_costs_no_more_than_so_many_bytes_for_each_of_its_own() {
        let scope = Scope::new(&[7; 16], 1, 0, 0);
        let len = 4 << 20;
        let long = frame(&scope, &vec![0; len]);
        let sound = frame(&scope, b"here");
        // Each false head costs 4 MiB; 64 MiB and eight times what the file has is what may be spent.
        for (heads, left, is_found) in [
            (24, sound.len(), true),
            (24, sound.len() - 1, false),
            (25, long.len() + 1, false),
            (28, long.len(), false),
        ] {
            let mut bytes = long[..HEAD_LEN].repeat(heads);
            let at = bytes.len();
            bytes.extend_from_slice(&sound);
            bytes.resize(len + HEAD_LEN * 40, 0xAB);
            let (_disk, file) = file_of(&bytes);
            let mut search = Resync::new(&file, &scope, bytes.len() as u64);
            search.budget = (24 * long.len() + left) as u64;
            let found = search.next(0).unwrap();
            assert_eq!(found, is_found.then_some(at as u64), "{heads}, {left} left");
            assert_eq!(search.is_exhausted(), !is_found, "{heads}, {left} left");
        }
        assert!(Resync::new(&file_of(&[]).1, &scope, 1 << 20).budget == (8 << 20) + (64 << 20));
    }

    #[test]
    fn a_frame_of_another_log_epoch_or_segment_inside_a_payload_is_not_one() {
        let scope = Scope::new(&[7; 16], 1, 0, 0);
        for other in [
            Scope::new(&[8; 16], 1, 0, 0),
            Scope::new(&[7; 16], 2, 0, 0),
            Scope::new(&[7; 16], 1, 1, 0),
        ] {
            let bytes = frame(&other, b"stale");
            let (_disk, file) = file_of(&bytes);
            let found = Resync::new(&file, &scope, bytes.len() as u64).next(0).unwrap();
            assert_eq!(found, None);
        }
    }
}
