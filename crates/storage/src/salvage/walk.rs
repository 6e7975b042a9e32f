//! A walk over a segment that does not stop at damage.

use std::sync::Arc;
use std::vec;

use crate::batch::{FrameHead, Scope};
use crate::behind::{self, Run};
use crate::error::Corruption;
use crate::frames::{Frames, Step};
use crate::io::{File, read_full};
use crate::layout::HEAD_LEN;

/// Bytes between two frames that are none.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub position: u64,
    pub what: Corruption,
}

pub(super) struct Walk<'a> {
    pub frames: Frames,
    file: &'a Arc<dyn File>,
    scope: &'a Scope,
    limit: u64,
    /// The runs that are left, once damage was met.
    behind: Option<vec::IntoIter<Run>>,
    /// One past the last offset of the run that the walk is in.
    run_end: u64,
    /// What lies between the frame before and this one, or the end.
    pub damage: Option<Damage>,
}

impl<'a> Walk<'a> {
    pub fn new(file: &'a Arc<dyn File>, scope: &'a Scope, limit: u64) -> Walk<'a> {
        Walk {
            frames: Frames::new(Arc::clone(file), scope.clone(), HEAD_LEN as u64, limit),
            file,
            scope,
            limit,
            behind: None,
            run_end: u64::MAX,
            damage: None,
        }
    }

    /// Goes to the next frame that is to be believed: behind damage as readers do, with the next offset and one past the
    /// last that the segment can have, if anything says so. Whoever calls takes or skips it.
    pub fn next(&mut self, next: u64, end: Option<u64>) -> std::io::Result<Option<FrameHead>> {
        self.damage = None;
        loop {
            let position = self.frames.position();
            let what = match self.frames.peek()? {
                Step::Frame(head) if next < self.run_end => return Ok(Some(head)),
                Step::Frame(_) => Corruption::Field("a frame that contradicts others"),
                Step::End if self.is_zero(position)? => return Ok(None),
                Step::End => Corruption::Field("zero bytes in place of a frame"),
                Step::Damaged(what) => what,
            };
            self.damage.get_or_insert(Damage { position, what });
            let behind = match &mut self.behind {
                Some(behind) => behind,
                none => {
                    let (file, scope, limit) = (self.file, self.scope, self.limit);
                    let runs = behind::runs(file, scope, position, limit, next, end)?;
                    none.insert(runs.into_iter())
                }
            };
            let Some(run) = behind.next() else { return Ok(None) };
            self.frames.seek(run.position);
            self.run_end = run.offsets.end;
        }
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
