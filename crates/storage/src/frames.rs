//! Walks the frames of one segment file, verifying each: the one way by which readers, recovery, sealing, compaction and
//! verify look at a log's bytes.

use std::io;
use std::sync::Arc;

use crate::batch::{Batch, FrameHead, HEAD_LEN, Scope};
use crate::error::Corruption;
use crate::io::{File, read_at_least};

const BUFFER_MIN: usize = 16 << 10;
/// Whoever waits at the tail mostly finds little there.
const BUFFER_AT_TAIL: usize = 4 << 10;
const BUFFER_MAX: usize = 256 << 10;

/// What stands at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame with valid checksums.
    Frame(FrameHead),
    /// Nothing: zero bytes, or the end of the walk.
    End,
    /// Bytes that are no valid frame.
    Damaged(Corruption),
}

/// A position in a segment file, and a buffer around it.
#[derive(Debug)]
pub(crate) struct Frames {
    file: Arc<dyn File>,
    scope: Scope,
    position: u64,
    /// The walk ends here: the end of the data, or of the file.
    limit: u64,
    buffer: Vec<u8>,
    /// Position of `buffer[0]`.
    buffer_at: u64,
    /// How much the next fill reads.
    fill: usize,
    unfolded: Vec<u8>,
    /// The frame at this position in the buffer was verified.
    verified: Option<(u64, FrameHead)>,
}

impl Frames {
    pub fn new(file: Arc<dyn File>, scope: Scope, position: u64, limit: u64) -> Frames {
        Frames {
            file,
            scope,
            position,
            limit,
            buffer: Vec::new(),
            buffer_at: position,
            fill: BUFFER_MIN,
            unfolded: Vec::new(),
            verified: None,
        }
    }

    /// Takes a batch that reaches to offset `until` or further for damage.
    pub const fn until(mut self, until: u64) -> Frames {
        self.scope.until = until;
        self
    }

    pub const fn position(&self) -> u64 {
        self.position
    }

    pub const fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Goes to `position`, which must be where a frame begins.
    pub fn seek(&mut self, position: u64) {
        let is_buffered =
            position.checked_sub(self.buffer_at).is_some_and(|at| at < self.buffer.len() as u64);
        if !is_buffered {
            // Whoever jumps about reads little at each place.
            self.fill = BUFFER_MIN;
        }
        self.position = position;
    }

    /// Forgets what was read, because the file may have changed there. What stands at the position can be put into the buffer.
    pub fn forget(&mut self) -> &mut Vec<u8> {
        self.buffer.clear();
        self.verified = None;
        self.buffer_at = self.position;
        self.fill = BUFFER_AT_TAIL;
        &mut self.buffer
    }

    /// Looks at the frame at the position, and verifies it.
    #[inline]
    pub fn peek(&mut self) -> io::Result<Step> {
        if let Some((position, head)) = self.verified
            && position == self.position
        {
            return Ok(Step::Frame(head));
        }
        let step = self.look()?;
        if let Step::Frame(head) = step {
            self.verified = Some((self.position, head));
        }
        Ok(step)
    }

    fn look(&mut self) -> io::Result<Step> {
        if self.limit.saturating_sub(self.position) < HEAD_LEN as u64 {
            return Ok(if self.limit > self.position { self.rest_is_zero()? } else { Step::End });
        }
        let Some(bytes) = self.bytes(HEAD_LEN)?.first_chunk::<HEAD_LEN>() else {
            return Ok(Step::End);
        };
        let bytes = *bytes;
        if let Some(head) = self.buffered_frame(&bytes) {
            return Ok(Step::Frame(head));
        }
        let head = match FrameHead::decode(&self.scope, &bytes) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Step::End),
            Err(damage) => return Ok(Step::Damaged(damage)),
        };
        let len = head.frame_len();
        if len as u64 > self.limit - self.position {
            let found = self.limit - self.position;
            return Ok(Step::Damaged(Corruption::Truncated { expected: len as u64, found }));
        }
        if len > BUFFER_MAX && len as u64 > self.file.len()?.saturating_sub(self.position) {
            // Before a buffer is made for it: a damaged length passes the head's checksum once in 65,536 times.
            let found = self.file.len()?.saturating_sub(self.position);
            return Ok(Step::Damaged(Corruption::Truncated { expected: len as u64, found }));
        }
        let start = self.ensure(len)?;
        let frame = &self.buffer[start..];
        if frame.len() < len {
            return Ok(Step::Damaged(Corruption::Truncated {
                expected: len as u64,
                found: frame.len() as u64,
            }));
        }
        match head.verify(&self.scope, &frame[..len]) {
            Ok(()) => Ok(Step::Frame(head)),
            Err(damage) => Ok(Step::Damaged(damage)),
        }
    }

    /// The frame at the position if all of it is in the buffer and its checksum holds. That covers the head too, whose own
    /// checksum is for a length that cannot be believed yet.
    #[inline]
    fn buffered_frame(&self, bytes: &[u8; HEAD_LEN]) -> Option<FrameHead> {
        let head = FrameHead::unverified(bytes)?;
        let start = usize::try_from(self.position - self.buffer_at).ok()?;
        // What was read ends before the limit.
        let frame = self.buffer.get(start..start.checked_add(head.frame_len())?)?;
        head.verify(&self.scope, frame).is_ok().then_some(head)
    }

    /// The batch of the frame that was just peeked at.
    #[inline]
    pub fn batch(&mut self, head: FrameHead) -> Result<Batch<'_>, Corruption> {
        #[expect(clippy::cast_possible_truncation, reason = "an index into the buffer")]
        let start = (self.position - self.buffer_at) as usize;
        let frame = &self.buffer[start..start + head.frame_len()];
        Batch::decode(&self.scope, head, frame, &mut self.unfolded)
    }

    /// The bytes of the frame that was just peeked at.
    pub fn frame_bytes(&self, head: &FrameHead) -> &[u8] {
        #[expect(clippy::cast_possible_truncation, reason = "an index into the buffer")]
        let start = (self.position - self.buffer_at) as usize;
        &self.buffer[start..start + head.frame_len()]
    }

    /// Goes from damaged frames to the first whole one behind them, if that begins at offset delta `delta` or before, so that
    /// none of them holds anything from there on. The head of each says where it ends.
    #[cold]
    pub fn pass_damage(&mut self, delta: u64) -> io::Result<bool> {
        let from = self.position;
        while let Some(end) = self.damaged_end()? {
            self.position = end;
            match self.peek()? {
                Step::Frame(head) if u64::from(head.delta()) <= delta => return Ok(true),
                Step::Damaged(_) => {}
                Step::Frame(_) | Step::End => break,
            }
        }
        self.position = from;
        Ok(false)
    }

    fn damaged_end(&mut self) -> io::Result<Option<u64>> {
        let Some(bytes) = self.bytes(HEAD_LEN)?.first_chunk::<HEAD_LEN>() else { return Ok(None) };
        let bytes = *bytes;
        let Ok(Some(head)) = FrameHead::decode(&self.scope, &bytes) else { return Ok(None) };
        let end = self.position + head.frame_len() as u64;
        Ok(Some(end).filter(|end| *end < self.limit))
    }

    /// Goes to the next frame.
    #[inline]
    pub fn skip(&mut self, head: &FrameHead) {
        self.position += head.frame_len() as u64;
    }

    /// The batch of the frame that was just peeked at; goes to the next frame, unless it does not decode.
    #[inline]
    pub fn take(&mut self, head: FrameHead) -> Result<Batch<'_>, Corruption> {
        #[expect(clippy::cast_possible_truncation, reason = "an index into the buffer")]
        let start = (self.position - self.buffer_at) as usize;
        let frame = &self.buffer[start..start + head.frame_len()];
        let batch = Batch::decode(&self.scope, head, frame, &mut self.unfolded)?;
        self.position += head.frame_len() as u64;
        Ok(batch)
    }

    /// The batch at the position if a whole frame is there that decodes; then goes to the next frame.
    pub fn next_valid(&mut self) -> io::Result<Option<Batch<'_>>> {
        Ok(match self.peek()? {
            Step::Frame(head) => self.take(head).ok(),
            Step::End | Step::Damaged(_) => None,
        })
    }

    /// Fewer bytes than a head are left: they must be zero.
    fn rest_is_zero(&mut self) -> io::Result<Step> {
        #[expect(clippy::cast_possible_truncation, reason = "less than a head")]
        let left = (self.limit - self.position) as usize;
        let zero = self.bytes(left)?.iter().all(|b| *b == 0);
        Ok(if zero {
            Step::End
        } else {
            Step::Damaged(Corruption::Field("bytes too few for a frame"))
        })
    }

    /// At most `len` bytes at the position, fewer where the file ends.
    fn bytes(&mut self, len: usize) -> io::Result<&[u8]> {
        let start = self.ensure(len)?;
        let end = self.buffer.len().min(start + len);
        Ok(&self.buffer[start..end])
    }

    /// Has `len` bytes at the position in the buffer if the file has them; returns their index.
    #[inline]
    fn ensure(&mut self, len: usize) -> io::Result<usize> {
        if self.position >= self.buffer_at {
            let start = self.position - self.buffer_at;
            if start + len as u64 <= self.buffer.len() as u64 {
                #[expect(clippy::cast_possible_truncation, reason = "inside the buffer")]
                return Ok(start as usize);
            }
        }
        self.refill(len)?;
        Ok(0)
    }

    #[cold]
    fn refill(&mut self, len: usize) -> io::Result<()> {
        let left = usize::try_from(self.limit - self.position).unwrap_or(usize::MAX);
        let want = len.max(self.fill).min(left.max(len));
        self.fill = (self.fill * 2).min(BUFFER_MAX);
        self.buffer
            .try_reserve(want.saturating_sub(self.buffer.len()))
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.verified = None;
        self.buffer.resize(want, 0);
        // Once is enough where the file ends behind these.
        let got = read_at_least(self.file.as_ref(), &mut self.buffer, len, self.position);
        self.buffer.truncate(*got.as_ref().unwrap_or(&0));
        self.buffer_at = self.position;
        got.map(|_| ())
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

    fn scope() -> Scope {
        Scope::new(&[7; 16], 1, 0, 0)
    }

    /// Frames of one record each, from offset 0 on.
    fn frames(values: &[&[u8]]) -> Vec<Vec<u8>> {
        let frame = |(offset, value): (u64, &&[u8])| {
            let mut out = Vec::new();
            let spec = FrameSpec { base_offset: offset, ..FrameSpec::default() };
            Encoder::default().dense(&mut out, &scope(), &spec, &[Record::value(value)], 0);
            out
        };
        (0..).zip(values).map(frame).collect()
    }

    fn walk(bytes: &[u8], limit: u64) -> Frames {
        let disk = SimDisk::new(1);
        disk.write_file("a", bytes).unwrap();
        let file = disk.io().open("a".as_ref(), Open::Read).unwrap();
        Frames::new(file, scope(), 0, limit)
    }

    #[test]
    fn damage_is_passed_only_to_a_whole_frame_at_or_before_what_is_looked_for() {
        let sound = frames(&[b"zero", b"one", b"two"]);
        let damaged = |n: usize, at: usize| {
            let mut bytes = sound.clone();
            bytes[n][at] ^= 1;
            bytes.concat()
        };
        let (one, two) = (sound[0].len() as u64, (sound[0].len() + sound[1].len()) as u64);
        let pass = |bytes: &[u8], limit: u64, from: u64, delta: u64| {
            let mut walk = walk(bytes, limit);
            walk.seek(from);
            assert!(matches!(walk.peek().unwrap(), Step::Damaged(_)));
            let passed = walk.pass_damage(delta).unwrap();
            (passed, walk.position())
        };
        let body = damaged(0, 20);
        for limit in [u64::MAX, body.len() as u64] {
            assert_eq!(pass(&body, limit, 0, 0), (false, 0), "offset 0 was in what is damaged");
            assert_eq!(pass(&body, limit, 0, 1), (true, one));
            assert_eq!(pass(&body, limit, 0, 2), (true, one));
        }
        let mut two_damaged = body.clone();
        two_damaged[one as usize + 20] ^= 1;
        assert_eq!(pass(&two_damaged, u64::MAX, 0, 1), (false, 0));
        assert_eq!(pass(&two_damaged, u64::MAX, 0, 2), (true, two));
        // Nothing says where a damaged head's frame ends, and behind the last frame there is nothing.
        assert_eq!(pass(&damaged(0, 5), u64::MAX, 0, 9), (false, 0));
        assert_eq!(pass(&damaged(2, 20), u64::MAX, two, 9), (false, two));
        assert_eq!(pass(&damaged(2, 20), body.len() as u64, two, 9), (false, two));
        assert_eq!(pass(&body, one, 0, 9), (false, 0), "the walk ends with the damage");
        assert_eq!(pass(&sound[0][..5], 5, 0, 9), (false, 0));
    }

    #[test]
    fn a_frame_that_ends_behind_the_limit_or_the_file_is_cut_short_and_costs_no_buffer() {
        let long = &frames(&[&[7; 2 * BUFFER_MAX]])[0];
        let expected = long.len() as u64;
        for (bytes, limit, found) in [
            (&long[..], expected - 1, expected - 1),
            (&long[..1_000], u64::MAX, 1_000),
            (&long[..1_000], expected, 1_000),
            (&long[..], HEAD_LEN as u64, HEAD_LEN as u64),
        ] {
            let mut walk = walk(bytes, limit);
            let cut = Corruption::Truncated { expected, found };
            assert_eq!(walk.peek().unwrap(), Step::Damaged(cut), "limit {limit}");
            assert!(walk.buffer.capacity() <= BUFFER_MAX, "{} bytes", walk.buffer.capacity());
        }
        assert!(matches!(walk(long, expected).peek().unwrap(), Step::Frame(_)));
        let short = &frames(&[b"in the buffer as a whole"])[0];
        let limit = short.len() as u64 - 1;
        let cut = || Step::Damaged(Corruption::Truncated { expected: limit + 1, found: limit });
        assert_eq!(walk(short, limit).peek().unwrap(), cut());
        let mut behind_another = walk(&[&short[..], short].concat(), limit + 1 + limit);
        behind_another.seek(limit + 1);
        assert_eq!(behind_another.peek().unwrap(), cut());
    }

    #[test]
    fn bytes_too_few_for_a_frame_are_the_end_if_they_are_zero() {
        for len in 0..HEAD_LEN {
            assert_eq!(walk(&vec![0; len], len as u64).peek().unwrap(), Step::End, "{len}");
        }
        for len in 1..HEAD_LEN {
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                let damage = Corruption::Field("bytes too few for a frame");
                assert_eq!(walk(&bytes, len as u64).peek().unwrap(), Step::Damaged(damage));
            }
        }
        let mut before_others = walk(&[[0; 100], [1; 100]].concat(), 100);
        before_others.seek(95);
        assert_eq!(
            before_others.peek().unwrap(),
            Step::End,
            "what is behind the limit is not looked at"
        );
    }
}
