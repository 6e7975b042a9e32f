//! What follows behind the appends: sealing, proving, removing.

use super::*;
use crate::events;
use crate::retention;

impl Writer {
    /// Syncs, seals what is retired, and moves the manifest's proven point up.
    pub fn settle(&self) -> Result<()> {
        // First, and whatever else is going on: an append within an interval is not to wait for the sealing of a segment.
        self.sync_all()?;
        let _maintenance = self.maintenance.lock();
        if self.claimed.lock().is_none() {
            // It was closed meanwhile, and may be open elsewhere.
            return Ok(());
        }
        // What is synced is proven, whether its segment can be sealed or is damaged.
        let sealed = self.seal_retired();
        let synced = *self.synced.lock();
        let mut manifest = self.manifest.lock();
        if manifest.current().state == LogState::Open
            && manifest.current().proven.offset < synced.offset
        {
            self.or_poison(manifest.store(|m| m.proven = synced))?;
        }
        sealed
    }

    fn sync_all(&self) -> Result<()> {
        let state = self.state.lock();
        let claim = Claim { end: state.next_offset, generation: state.generation };
        drop(state);
        self.wait_durable(claim)
    }

    pub(super) fn seal_retired(&self) -> Result<()> {
        loop {
            let Some(next) = self.retired.lock().first().filter(|r| r.is_synced).cloned() else {
                return Ok(());
            };
            let now_ms = self.view.dir.clock().wall_ms();
            let previous_hash = self.chain_hash_before(next.segment.base_offset())?;
            let file = next.segment.open(Open::Write)?;
            next.segment.seal(&file, next.end_offset, next.end_position, previous_hash, now_ms)?;
            if let Some(snapshot) = &next.producers {
                // Without it the older one serves, and what came after that is read again.
                let _ = self.store_producers(snapshot);
            }
            self.retired.lock().retain(|r| r.segment.base_offset() != next.segment.base_offset());
        }
    }

    pub(super) fn chain_hash_before(&self, base_offset: u64) -> Result<[u8; 16]> {
        let segments = self.view.segments();
        let before = segments.partition_point(|segment| segment.base_offset() < base_offset);
        match before.checked_sub(1).map(|i| &segments[i]) {
            Some(previous) => previous.chain_hash(previous.open(Open::Read)?.as_ref()),
            None => Ok([0; 16]),
        }
    }
    /// Raises the start offset durably, then removes the segments that lie wholly below it.
    pub fn delete_before(&self, offset: u64) -> Result<u64> {
        let _maintenance = self.maintenance.lock();
        if offset > self.view.durable() {
            self.sync_all()?;
        }
        if offset > self.view.durable() {
            return Err(self.view.out_of_range(offset, crate::config::Visibility::Durable));
        }
        if offset > self.view.start() {
            let state = self.state.lock();
            self.check_writable(&state)?;
            let claim = Claim { end: state.next_offset, generation: state.generation };
            let producers = self.producers_now(&state);
            drop(state);
            if let Some(snapshot) = producers {
                // What the records that go say of their producers is nowhere else.
                self.wait_durable(claim)?;
                self.store_producers(&snapshot)?;
            }
            self.mark_open()?;
            if planted::has(Bug::RemovedBeforeStart) {
                self.view.set_start(offset);
                self.remove_obsolete()?;
            }
            self.or_poison(self.manifest.lock().store(|m| m.start_offset = offset))?;
            self.view.set_start(offset);
        }
        self.remove_obsolete()?;
        Ok(self.view.start())
    }

    pub(super) fn remove_obsolete(&self) -> Result<()> {
        let start = self.view.start();
        let mut removed = Vec::new();
        self.view.change_segments(|segments| {
            let first = segments
                .partition_point(|segment| segment.base_offset() <= start)
                .saturating_sub(1);
            removed = segments.drain(..first).collect();
        });
        if removed.is_empty() {
            return Ok(());
        }
        self.kept_readers.lock().clear();
        self.retired
            .lock()
            .retain(|r| !removed.iter().any(|s| s.base_offset() == r.segment.base_offset()));
        let (io, root, dir) = (self.view.dir.io(), self.view.dir.path(), &self.view.path);
        let mut bytes = 0;
        for (i, segment) in removed.iter().enumerate() {
            let base_offset = segment.base_offset();
            bytes += segment
                .open(Open::Read)
                .and_then(|file| file.len().map_err(segment.failed("stat")))
                .unwrap_or(0);
            if let Err(e) = crate::recovery::remove_segment(io.as_ref(), root, dir, base_offset) {
                // They are tried again with the next removal.
                self.view
                    .change_segments(|segments| drop(segments.splice(0..0, removed.drain(i..))));
                return Err(e);
            }
        }
        self.view.dir.counters().reclaimed(removed.len() as u64, bytes);
        events::removed(dir, removed.len() as u64, bytes);
        io.sync_dir(dir).map_err(|e| Error::io("sync", self.view.shown(), e))
    }

    /// What it is called in the store's health.
    pub(super) fn part(&self) -> String {
        format!("log {}", self.view.path.display())
    }

    /// Has the background come back for segments that grow too old while nothing is appended.
    pub fn watch_age(&self) {
        if !self.live_config.has_age_limit() {
            return;
        }
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let now = ms(self.view.dir.clock().monotonic());
        let due = self.retention_due.load(Ordering::Relaxed);
        let next = now.saturating_add(ms(retention::INTERVAL));
        let is_mine = now >= due
            && self
                .retention_due
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_mine {
            self.request(retention::INTERVAL);
        }
    }
}

impl Task for Writer {
    fn run(self: Arc<Self>) {
        self.scheduled_within.store(u64::MAX, Ordering::Release);
        self.urgent.store(false, Ordering::Release);
        let is_closed = self.state.lock().is_closed;
        if is_closed || self.commit.is_poisoned() {
            return;
        }
        let done =
            self.settle().and_then(|()| retention::apply(&self)).and_then(|_| self.ensure_spare());
        self.watch_age();
        if !self.commit.is_poisoned() {
            self.view.dir.note(&self.part(), &done);
        }
        match done {
            Ok(()) => {
                if !self.commit.is_poisoned() {
                    *self.failure.lock() = None;
                }
            }
            Err(e) => {
                *self.failure.lock() = Some(e.to_string());
                if !self.commit.is_poisoned() {
                    self.schedule(IDLE);
                }
            }
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::config::Visibility;
    use crate::data_dir::DataDirOptions;
    use crate::io::sim::SimDisk;
    use crate::log::Log;

    /// Sealing reads a whole segment, and an interval of some milliseconds was over before it had ended.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody settles meanwhile")]
    fn what_is_to_be_synced_does_not_wait_while_segments_are_sealed_or_replaced() {
        let dir = DataDirOptions::new().threads(0).open_with(SimDisk::new(1).io()).unwrap();
        let config = LogConfig::default().durability(Durability::Buffered);
        let log = Log::open(&dir, "1", config).unwrap();
        log.append(&Record::value(b"v")).unwrap();
        let writer = log.writer().unwrap();
        std::thread::scope(|threads| {
            let sealing = writer.maintenance.lock();
            let settling = threads.spawn(|| writer.settle());
            let minute = Duration::from_secs(60);
            assert!(log.view().wait_for(0, Visibility::Durable, minute).unwrap());
            drop(sealing);
            settling.join().unwrap().unwrap();
        });
    }
}
