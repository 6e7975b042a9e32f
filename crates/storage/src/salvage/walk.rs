//! A walk over a segment that does not stop at damage.

use std::sync::Arc;

use crate::batch::{FrameHead, Scope};
use crate::error::Corruption;
use crate::frames::{Frames, Step};
use crate::io::{File, read_full};
use crate::layout::HEAD_LEN;
use crate::resync::Resync;

/// Bytes between two frames that are none.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub position: u64,
    pub what: Corruption,
}

pub(super) struct Walk<'a> {
    pub frames: Frames,
    resync: Resync<'a>,
    file: &'a Arc<dyn File>,
    limit: u64,
    /// What lies between the frame before and this one, or the end.
    pub damage: Option<Damage>,
}

impl<'a> Walk<'a> {
    pub fn new(file: &'a Arc<dyn File>, scope: &'a Scope, limit: u64) -> Walk<'a> {
        Walk {
            frames: Frames::new(Arc::clone(file), scope.clone(), HEAD_LEN as u64, limit),
            resync: Resync::new(file, scope, limit),
            file,
            limit,
            damage: None,
        }
    }

    /// Goes to the next frame that verifies. Whoever calls takes or skips it.
    pub fn next(&mut self) -> std::io::Result<Option<FrameHead>> {
        self.damage = None;
        while self.frames.position() < self.limit {
            let position = self.frames.position();
            let what = match self.frames.peek()? {
                Step::Frame(head) => return Ok(Some(head)),
                Step::End => Corruption::Field("zero bytes in place of a frame"),
                Step::Damaged(what) => what,
            };
            let found = self.resync.next(position + 1)?;
            if found.is_some() || !self.is_zero(position)? {
                self.damage = Some(Damage { position, what });
            }
            match found {
                Some(at) => self.frames.seek(at),
                None => break,
            }
        }
        Ok(None)
    }

    /// Whether there is nothing but zeros from `position` on.
    fn is_zero(&self, mut position: u64) -> std::io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        while position < self.limit {
            let left = usize::try_from(self.limit - position).unwrap_or(buffer.len());
            let want = left.min(buffer.len());
            let got = read_full(self.file.as_ref(), &mut buffer[..want], position)?;
            if buffer[..got].iter().any(|b| *b != 0) {
                return Ok(false);
            }
            if got < want {
                break;
            }
            position += got as u64;
        }
        Ok(true)
    }
}
