//! What readers share: the segments of a log, and how far they may look.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::Visibility;
use crate::data_dir::DataDir;
use crate::error::{Error, Result};
use crate::follower::Follower;
use crate::hand_over::HandOver;
use crate::planted::{self, Bug};
use crate::segment::Segment;
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::tail::{Tail, Wake};

/// How often a log that is written by another process is looked at while somebody waits.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The part of a log that readers see.
pub(crate) struct View {
    pub dir: DataDir,
    /// Relative to the store directory.
    pub path: PathBuf,
    pub log_id: [u8; 16],
    /// Oldest first; the last one is the active one, if there is one.
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    start: AtomicU64,
    stored: AtomicU64,
    durable: AtomicU64,
    epoch: AtomicU32,
    shows_durable_only: bool,
    tail: Tail,
    pub hand_over: HandOver,
    /// Where a log of another process gets its news; `None` in the writer's process.
    pub follower: Option<Follower>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("path", &self.shown()).finish_non_exhaustive()
    }
}

/// How far a log reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub start: u64,
    pub stored: u64,
    pub durable: u64,
    pub epoch: u32,
}

impl View {
    pub fn new(
        dir: DataDir,
        path: PathBuf,
        log_id: [u8; 16],
        segments: Vec<Arc<Segment>>,
        bounds: Bounds,
        shows_durable_only: bool,
        follower: Option<Follower>,
    ) -> View {
        View {
            dir,
            path,
            log_id,
            segments: RwLock::new(Arc::new(segments)),
            start: AtomicU64::new(bounds.start),
            stored: AtomicU64::new(bounds.stored),
            durable: AtomicU64::new(bounds.durable),
            epoch: AtomicU32::new(bounds.epoch),
            shows_durable_only,
            tail: Tail::default(),
            hand_over: HandOver::default(),
            follower,
        }
    }

    /// For messages.
    pub fn shown(&self) -> PathBuf {
        self.dir.path().join(&self.path)
    }

    pub fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// One past what somebody has vouched for: of another process's log, less than what is shown while it has no writer.
    pub fn noted_durable(&self) -> u64 {
        self.follower.as_ref().map_or_else(|| self.durable(), Follower::noted_durable)
    }

    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// One past the last offset that a reader with `visibility` sees.
    pub fn high_watermark(&self, visibility: Visibility) -> u64 {
        let durable_only = match visibility {
            Visibility::Level => self.shows_durable_only,
            Visibility::Durable => true,
            Visibility::Stored => false,
        };
        let durable_only = durable_only && !planted::has(Bug::UndurableShown);
        if durable_only { self.durable() } else { self.stored() }
    }

    pub fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read())
    }

    /// The base offset of the oldest segment.
    pub fn first_segment(&self) -> Option<u64> {
        self.segments.read().first().map(|segment| segment.base_offset())
    }

    /// The segment that holds `offset`, and the base offset of the one after it.
    pub fn segment_for(&self, offset: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.base_offset() <= offset);
        let segment = Arc::clone(segments.get(after.checked_sub(1)?)?);
        Some((segment, segments.get(after).map(|next| next.base_offset())))
    }

    pub fn change_segments(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        change(Arc::make_mut(&mut *self.segments.write()));
    }

    pub fn set_start(&self, start: u64) {
        self.start.fetch_max(start, Ordering::AcqRel);
    }

    pub fn set_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// In the writer's process called with its lock held, so it never goes back: what a full disk takes back was not stored.
    #[inline]
    pub fn set_stored(&self, stored: u64) {
        self.stored.store(stored, Ordering::Release);
        if !self.shows_durable_only {
            self.tail.notify();
        }
    }

    /// The next writer of another process's log ends it at `durable`, whatever was seen of it while it had none.
    pub fn end_anew_at(&self, durable: u64) {
        self.durable.store(durable, Ordering::Release);
    }

    pub fn set_durable(&self, durable: u64) {
        self.durable.fetch_max(durable, Ordering::AcqRel);
        self.tail.notify();
    }

    /// Asks for a call whenever the high watermark has moved.
    pub fn on_append(&self, waker: Weak<dyn Wake>) {
        self.tail.on_move(waker);
    }

    /// Blocks until the high watermark is above `offset`, or `timeout` has passed; returns which.
    pub fn wait_for(&self, offset: u64, visibility: Visibility, timeout: Duration) -> Result<bool> {
        let clock = self.dir.clock();
        let deadline = clock.monotonic().saturating_add(timeout);
        let watch = self.tail.watch();
        let mut is_first = true;
        loop {
            let pause = match &self.follower {
                Some(follower) if is_first => follower.refresh(self).map(|()| LOOK_AGAIN)?,
                // Whoever waits is woken by what others see, and looks no more often for it.
                Some(follower) => follower.look_again(self, LOOK_AGAIN)?,
                None => Duration::MAX,
            };
            is_first = false;
            let left = deadline.saturating_sub(clock.monotonic());
            let nap = pause.min(left);
            if watch.sleep_unless(nap, || self.high_watermark(visibility) > offset) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Where reading comes to `offset` and no further: what is wrong there, if anything is.
    pub fn check_end(&self, offset: u64) -> Result<()> {
        self.follower.as_ref().map_or(Ok(()), |follower| follower.check_end(offset))
    }

    /// Why `offset` cannot be had: what is behind damage may have been there.
    pub fn out_of_range(&self, offset: u64, visibility: Visibility) -> Error {
        let (start, end) = (self.start(), self.high_watermark(visibility));
        self.check_end(offset).err().unwrap_or(Error::OffsetOutOfRange { offset, start, end })
    }
}
