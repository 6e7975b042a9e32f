//! How what was appended becomes durable: flush, sync, the live page, the manifest's marks, the close.

use super::*;
use crate::events;

impl Writer {
    /// Notes durably that the log has a writer, before its first byte: from now on its end is found by a scan.
    pub(super) fn mark_open(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let boot_id = self.view.dir.io().boot_id();
        if manifest.current().state != LogState::Open || manifest.current().boot_id != boot_id {
            if planted::has(Bug::NotMarkedOpen) {
                return Ok(());
            }
            self.or_poison(manifest.store(|m| {
                m.state = LogState::Open;
                m.boot_id = boot_id;
            }))?;
        }
        drop(manifest);
        let mut live = self.live.lock();
        if live.file.is_some() {
            return Ok(());
        }
        // Without the page there are no acknowledgements, so what failed here is tried again by the next append.
        live.page.boot = boot_prefix(&boot_id);
        live.page.mapped = self.is_mapped();
        if !live.page.mapped {
            // Through a mapping no append touches the page, so what it said would soon be too little: then nothing behind
            // it would count as acknowledged, and recovery would cut it off without a copy.
            live.page.stored = self.view.stored();
        }
        live.file = Some(self.open_live()?);
        live.write(&self.view).inspect_err(|_| live.file = None)
    }

    pub(super) fn open_live(&self) -> Result<Arc<dyn File>> {
        let (io, path) = (self.view.dir.io(), self.view.path.join("live"));
        let file = match io.open(&path, Open::Write) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => io.open(&path, Open::Create),
            other => other,
        };
        file.map_err(|e| Error::open(self.view.dir.path().join(path), e))
    }
    /// Writes what is pending, so that kill -9 cannot take it.
    pub(super) fn flush(&self, state: &mut State) -> Result<()> {
        if state.pending_len() == 0 {
            return Ok(());
        }
        let next_offset = state.next_offset;
        let Some(active) = &mut state.active else { return Ok(()) };
        let ready = self.live.lock().catch_up(&self.view);
        let written = ready.and_then(|()| active.flush().map_err(active.segment.failed("write")));
        match written {
            Ok(()) => {
                let mut live = self.live.lock();
                live.page.stored = next_offset;
                live.note(&self.view).inspect_err(|e| self.poison(e))?;
                drop(live);
                self.view.set_stored(next_offset);
                Ok(())
            }
            Err(error)
                if !matches!(error, Error::DiskFull { .. })
                    || planted::has(Bug::FullDiskPoisons) =>
            {
                self.poison(&error);
                Err(error)
            }
            Err(error) => {
                // None of it was acknowledged: its offsets are given again.
                let stored = self.view.stored();
                active.discard();
                active.segment.truncate_index(active.stored);
                active.index_at = active.stored;
                state.producers.truncate(stored);
                if !planted::has(Bug::RolledBackByHalf) {
                    state.next_offset = stored;
                }
                self.commit.roll_back(state.generation, stored);
                state.generation += 1;
                Err(error)
            }
        }
    }
    pub(super) fn point(&self, state: &State) -> Proven {
        let offset = self.view.stored();
        match &state.active {
            Some(active) => Proven {
                offset,
                segment: active.scope.base_offset,
                position: active.stored,
                max_timestamp: active.max_timestamp,
            },
            None => match self.retired.lock().last() {
                Some(Retired { segment, end_position: Some(position), end_offset, .. })
                    if *end_offset == offset =>
                {
                    Proven {
                        offset,
                        segment: segment.base_offset(),
                        position: *position,
                        max_timestamp: state.max_timestamp,
                    }
                }
                // Nothing was appended since.
                _ => *self.synced.lock(),
            },
        }
    }

    /// Blocks until everything below the claim's end is durable, syncing if nobody else does.
    pub fn wait_durable(&self, claim: Claim) -> Result<()> {
        if planted::has(Bug::AcknowledgedBeforeSync) {
            return Ok(());
        }
        loop {
            let lead = match self.commit.wait_or_lead(claim) {
                Ok(standing) => return self.outcome(standing),
                Err(lead) => lead,
            };
            lead.let_others_append();
            let synced = self.sync_once();
            drop(lead);
            if let Err(e) = synced {
                return match self.commit.standing(claim) {
                    Standing::Durable => Ok(()),
                    Standing::Unknown => Err(Error::OutcomeUnknown { path: self.view.shown() }),
                    Standing::Pending | Standing::RolledBack => Err(e),
                };
            }
        }
    }

    pub fn outcome(&self, standing: Standing) -> Result<()> {
        match standing {
            Standing::Durable => Ok(()),
            Standing::RolledBack => Err(Error::DiskFull {
                path: self.view.shown(),
                source: std::io::ErrorKind::StorageFull.into(),
            }),
            Standing::Unknown | Standing::Pending => {
                Err(Error::OutcomeUnknown { path: self.view.shown() })
            }
        }
    }

    pub const fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Writes and syncs everything that was appended before. Only the leader calls it.
    pub(super) fn sync_once(&self) -> Result<()> {
        let mut state = self.state.lock();
        if self.commit.is_poisoned() {
            return Err(Error::Poisoned { path: self.view.shown() });
        }
        self.flush(&mut state)?;
        let point = self.point(&state);
        let appends = self.appends.batches();
        let active = state.active.as_ref().map(|active| Arc::clone(&active.file));
        let retired: Vec<Retired> =
            self.retired.lock().iter().filter(|r| !r.is_synced).cloned().collect();
        drop(state);
        let clock = self.view.dir.clock();
        let began = clock.monotonic();
        for segment in &retired {
            self.sync_file(segment.file.as_ref())?;
        }
        if let Some(file) = active {
            self.sync_file(file.as_ref())?;
        }
        for segment in self.retired.lock().iter_mut() {
            segment.is_synced |= segment.end_offset <= point.offset;
        }
        let took = clock.monotonic().saturating_sub(began);
        let before = self.appends_synced.swap(appends, Ordering::Relaxed);
        self.view.dir.counters().synced(took, appends - before);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        *self.synced.lock() = point;
        let mut live = self.live.lock();
        live.page.durable = live.page.durable.max(point.offset);
        live.note(&self.view).inspect_err(|e| self.poison(e))?;
        drop(live);
        self.view.set_durable(point.offset);
        self.commit.advance(point.offset);
        Ok(())
    }

    pub(super) fn sync_file(&self, file: &dyn File) -> Result<()> {
        if planted::has(Bug::NoSync) {
            return Ok(());
        }
        let mut synced = file.sync_data();
        if planted::has(Bug::SyncRetried) && synced.is_err() {
            synced = file.sync_data();
        }
        synced.map_err(|source| {
            let error = Error::Io { op: "sync", path: self.view.shown(), source };
            self.poison(&error);
            error
        })
    }

    pub(super) fn poison(&self, why: &Error) {
        *self.failure.lock() = Some(why.to_string());
        self.view.dir.note(&self.part(), &Err(why));
        events::poisoned(&self.view.path, why);
        if !planted::has(Bug::NotPoisoned) {
            self.commit.poison();
        }
    }

    pub(super) fn or_poison<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result
            && !matches!(e, Error::DiskFull { .. })
        {
            self.poison(e);
        }
        result
    }
    /// Makes everything durable that was appended before the call.
    pub fn sync(&self) -> Result<u64> {
        self.wait_durable(self.claim_all()?)?;
        Ok(self.view.durable())
    }

    /// What to wait for so that everything appended so far is durable.
    pub fn claim_all(&self) -> Result<Claim> {
        let state = self.state.lock();
        self.check_writable(&state)?;
        Ok(Claim { end: state.next_offset, generation: state.generation })
    }
    /// Ends writing: everything is made durable, the active segment trimmed, the log marked as closed. From then on it can be
    /// opened again, whoever still holds this writer; and so can a poisoned log, which stays as it is.
    pub fn close(&self) -> Result<()> {
        let _maintenance = self.maintenance.lock();
        let closed = self.close_locked();
        if self.commit.is_poisoned() {
            // Whoever opens it is to find nobody at work on its files.
            self.commit.wait_for_leader();
        } else if closed.is_err() {
            return closed;
        }
        drop(self.claimed.lock().take());
        closed
    }

    fn close_locked(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Ok(());
        }
        state.is_closed = true;
        let claim = Claim { end: state.next_offset, generation: state.generation };
        drop(state);
        if self.commit.is_poisoned() {
            return Err(Error::Poisoned { path: self.view.shown() });
        }
        if self.manifest.lock().current().state == LogState::Clean {
            return Ok(());
        }
        if !planted::has(Bug::ClosedBeforeSync) {
            self.wait_durable(claim)?;
        }
        let sealed = self.seal_retired();
        let mut state = self.state.lock();
        let mut end = *self.synced.lock();
        if state.active.is_some() {
            // A segment that was begun and got no record since the last sync is the last one all the same.
            end = self.point(&state);
        }
        if let Some(active) = state.active.take() {
            drop(active.way);
            active
                .file
                .set_len(active.stored)
                .and_then(|()| active.file.sync_data())
                .map_err(active.segment.failed("trim"))?;
            active.segment.set_active(false);
        }
        if let Some(snapshot) = self.producers_now(&state) {
            // It spares the next open a scan, and no more.
            let _ = self.store_producers(&snapshot);
        }
        self.manifest.lock().store(|m| {
            m.state = LogState::Clean;
            m.proven = end;
        })?;
        sealed
    }
}

impl LivePage {
    fn write(&mut self, view: &View) -> Result<()> {
        if let Some(file) = &self.file {
            write_full(file.as_ref(), &self.page.encode(), 0)
                .map_err(|e| Error::io("write", view.shown().join("live"), e))?;
        }
        self.is_behind = false;
        Ok(())
    }

    /// Says what was stored or synced. On a full disk (where even this page takes a block) the page falls behind by this
    /// once, since what it would say has happened.
    fn note(&mut self, view: &View) -> Result<()> {
        match self.write(view) {
            Err(Error::DiskFull { .. }) => {
                self.is_behind = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Nothing more is stored while the page is behind.
    fn catch_up(&mut self, view: &View) -> Result<()> {
        if self.is_behind { self.write(view) } else { Ok(()) }
    }
}
