//! The active segment: where bytes are stored, and the space ahead of them.

use std::sync::Arc;

use crate::batch::{HEAD_LEN as FRAME_HEAD_LEN, Scope};
use crate::error::{Error, Result};
use crate::io::{File, Region, write_full};
use crate::layout::{FOOTER_ALIGN, FOOTER_LEN};
use crate::segment::Segment;

/// Space that every segment keeps for its footer.
pub(crate) const FOOTER_ROOM: u64 = FOOTER_ALIGN + FOOTER_LEN as u64;
/// The first reservation; it doubles up to the size of the segment.
pub(crate) const RESERVE_FIRST: u64 = 64 << 10;
/// How much is zero-written at once ahead of the tail: in one call, at a multiple of itself, so that the page cache takes it
/// in as one large folio.
const ZERO_STRETCH: u64 = 1 << 20;
static ZEROS: [u8; ZERO_STRETCH as usize] = [0; ZERO_STRETCH as usize];

/// The way into the file.
#[derive(Debug)]
pub(crate) enum Way {
    /// Stores through a mapping of everything that is reserved.
    Mapped {
        region: Box<dyn Region>,
        /// As for the positional way; storing there takes no block from the file system.
        zeroed: u64,
    },
    /// Bytes wait in `pending` until somebody writes them at `stored`.
    Positional {
        pending: Vec<u8>,
        /// Bytes before this were written once, so a sync of them commits no metadata.
        zeroed: u64,
        /// Bytes before this may hold what a failed write has left behind.
        dirty: u64,
    },
}

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub segment: Arc<Segment>,
    pub file: Arc<dyn File>,
    pub scope: Scope,
    pub way: Way,
    /// Bytes before this have blocks.
    pub reserved: u64,
    /// A frame that would end behind this goes to the next segment, unless this one is empty.
    pub full_at: u64,
    /// Bytes before this are in the file.
    pub stored: u64,
    /// Largest timestamp so far.
    pub max_timestamp: i64,
    /// The `durable_upto` that was last said in this segment.
    pub witnessed: u64,
    /// The next position at which the index wants to know.
    pub index_at: u64,
}

impl Active {
    /// Where the next frame begins.
    #[inline]
    pub fn end(&self) -> u64 {
        match &self.way {
            Way::Mapped { .. } => self.stored,
            Way::Positional { pending, .. } => self.stored + pending.len() as u64,
        }
    }

    /// Has blocks for everything before `needed`, at best for as much again as there is.
    #[inline]
    pub fn reserve(&mut self, needed: u64, segment_bytes_max: u64, zero_ahead: bool) -> Result<()> {
        if needed > self.reserved {
            let generous =
                (self.reserved * 2).max(RESERVE_FIRST).min(segment_bytes_max).max(needed);
            self.reserve_exactly(generous).or_else(|e| match e {
                Error::DiskFull { .. } if generous > needed => {
                    self.reserve_exactly(needed.next_multiple_of(4096))
                }
                e => Err(e),
            })?;
        }
        let (Way::Mapped { zeroed, .. } | Way::Positional { zeroed, .. }) = &self.way;
        if needed > *zeroed && (zero_ahead || matches!(self.way, Way::Mapped { .. })) {
            self.zero_write(needed)?;
        }
        Ok(())
    }

    /// Writes zeros ahead of the tail, so that a sync finds no block to be converted, and a store through the mapping a
    /// page to go to.
    #[cold]
    fn zero_write(&mut self, needed: u64) -> Result<()> {
        let (Way::Mapped { zeroed, .. } | Way::Positional { zeroed, .. }) = &mut self.way;
        let stretch = (*zeroed).clamp(RESERVE_FIRST, ZERO_STRETCH);
        let upto = ((*zeroed + stretch) / stretch * stretch).min(self.reserved);
        if upto < needed {
            // A commit that is larger than the stretch writes its own blocks.
            *zeroed = needed;
            return Ok(());
        }
        let len = usize::try_from(upto - *zeroed).unwrap_or(ZEROS.len());
        write_full(self.file.as_ref(), &ZEROS[..len], *zeroed)
            .map_err(self.segment.failed("write"))?;
        *zeroed = upto;
        Ok(())
    }

    #[cold]
    fn reserve_exactly(&mut self, reserved: u64) -> Result<()> {
        self.file
            .reserve(self.reserved, reserved - self.reserved)
            .map_err(self.segment.failed("reserve"))?;
        if let Way::Mapped { region, .. } = &mut self.way {
            *region = self.file.map(reserved).map_err(self.segment.failed("map"))?;
        }
        self.reserved = reserved;
        Ok(())
    }

    /// Stores one commit at the end through the mapping. Its first head goes last: until then there is a zero head, and
    /// a process that dies half-way leaves nothing that could be taken for a frame.
    pub fn store(&mut self, commit: &[u8]) {
        let Way::Mapped { region, .. } = &mut self.way else { return };
        let (head, body) = commit.split_at(FRAME_HEAD_LEN);
        region.store(self.stored + FRAME_HEAD_LEN as u64, body);
        region.store(self.stored, head);
        self.stored += commit.len() as u64;
    }

    /// Writes what is pending. After an error nothing of it counts as stored.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let Way::Positional { pending, dirty, zeroed } = &mut self.way else { return Ok(()) };
        if pending.is_empty() {
            return Ok(());
        }
        let end = self.stored + pending.len() as u64;
        let trash = usize::try_from(dirty.saturating_sub(end)).unwrap_or(0);
        let len = pending.len();
        pending.resize(len + trash, 0);
        let written = write_full(self.file.as_ref(), pending, self.stored);
        pending.truncate(len);
        match written {
            Ok(()) => {
                pending.clear();
                self.stored = end;
                *dirty = 0;
                *zeroed = (*zeroed).max(end);
                Ok(())
            }
            Err(e) => {
                *dirty = (*dirty).max(end);
                Err(e)
            }
        }
    }

    /// Forgets what is pending.
    pub fn discard(&mut self) {
        if let Way::Positional { pending, .. } = &mut self.way {
            pending.clear();
        }
    }
}
