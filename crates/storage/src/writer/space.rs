//! Where the next frame goes: the active segment, a new one, or the spare.

use super::*;

impl Writer {
    /// Has an active segment with room for `size` more bytes.
    pub(super) fn make_room(
        &self,
        state: &mut State,
        size: u64,
        count: u32,
        now_ms: i64,
        options: &AppendOptions,
    ) -> Result<()> {
        if state.resume.is_some() {
            self.resume(state)?;
        }
        let next_offset = state.next_offset;
        if let Some(active) = &state.active {
            let is_full = active.end() + size + FOOTER_ROOM > active.full_at
                || next_offset + u64::from(count) - active.scope.base_offset > u64::from(u32::MAX);
            let age_ms = now_ms.saturating_sub(active.scope.base_timestamp);
            let is_old =
                u64::try_from(age_ms).is_ok_and(|ms| ms >= self.live_config.segment_age_max_ms());
            if (is_full || is_old) && active.end() > HEAD_LEN as u64 {
                self.retire(state)?;
            }
        }
        let zero_ahead = self.level(options) == Durability::Sync;
        let needed = |active: &Active| active.end() + size + FOOTER_ROOM;
        let reserved = match &mut state.active {
            Some(active) => {
                active.reserve(needed(active), self.live_config.segment_bytes_max(), zero_ahead)
            }
            None => self.begin_segment(state, size, now_ms, zero_ahead),
        };
        match reserved {
            Err(Error::DiskFull { .. })
                if options.use_spare && self.begin_spare_segment(state, size, now_ms)? =>
            {
                Ok(())
            }
            reserved => reserved,
        }
    }

    /// Goes on in the last segment of an earlier session.
    #[cold]
    pub(super) fn resume(&self, state: &mut State) -> Result<()> {
        let Some(Unsealed { segment, end_position, end_offset, .. }) = &state.resume else {
            return Ok(());
        };
        let (segment, end_offset) = (Arc::clone(segment), *end_offset);
        let file = segment.open(Open::Write)?;
        let scope = segment.scope(file.as_ref())?;
        self.mark_open()?;
        match *end_position {
            Some(end_position) if scope.epoch == self.view.epoch() => {
                if self.is_mapped() {
                    // A copy of a store may have holes where the segment had zeros.
                    file.reserve(0, end_position).map_err(segment.failed("reserve"))?;
                }
                state.active = Some(Active {
                    way: self.way(&file, end_position)?,
                    segment: Arc::clone(&segment),
                    file,
                    scope,
                    reserved: end_position,
                    full_at: self.live_config.segment_bytes_max(),
                    stored: end_position,
                    max_timestamp: state.max_timestamp,
                    witnessed: 0,
                    index_at: end_position,
                });
                segment.set_active(true);
            }
            // An epoch never changes inside a segment.
            end_position => {
                self.retired.lock().push(Retired {
                    segment,
                    file,
                    end_offset,
                    end_position,
                    is_synced: true,
                    producers: None,
                });
                self.request(Duration::ZERO);
            }
        }
        state.resume = None;
        Ok(())
    }

    pub(super) fn is_mapped(&self) -> bool {
        match self.config.write_path {
            WritePath::Mapped => true,
            WritePath::Positional => false,
            WritePath::Auto => {
                self.config.durability != Durability::Sync
                    && matches!(
                        self.view.dir.io().file_system(),
                        FileSystem::Ext4 | FileSystem::Tmpfs
                    )
            }
        }
    }

    pub(super) fn way(&self, file: &Arc<dyn File>, reserved: u64) -> Result<Way> {
        if self.is_mapped() {
            let region = file.map(reserved).map_err(|e| Error::io("map", self.view.shown(), e))?;
            Ok(Way::Mapped { region, zeroed: reserved })
        } else {
            Ok(Way::Positional { pending: Vec::new(), zeroed: reserved, dirty: 0 })
        }
    }

    pub(super) fn head(&self, base_offset: u64, now_ms: i64) -> SegmentHead {
        SegmentHead {
            read_only_features: 0,
            log_id: self.view.log_id,
            base_offset,
            epoch: self.view.epoch(),
            generation: 0,
            base_timestamp: now_ms,
            superseded_hash: [0; 16],
        }
    }

    pub(super) fn new_segment(&self, base_offset: u64) -> Arc<Segment> {
        let dir = &self.view.dir;
        Arc::new(Segment::new(
            Arc::clone(dir.io()),
            dir.path(),
            &self.view.path,
            self.view.log_id,
            base_offset,
        ))
    }

    #[cold]
    pub(super) fn begin_segment(
        &self,
        state: &mut State,
        size: u64,
        now_ms: i64,
        zero_ahead: bool,
    ) -> Result<()> {
        self.mark_open()?;
        let head = self.head(state.next_offset, now_ms);
        let segment = self.new_segment(head.base_offset);
        let needed = HEAD_LEN as u64 + size + FOOTER_ROOM;
        let generous = state.reserve.min(self.live_config.segment_bytes_max()).max(needed);
        let (file, reserved) = match segment.create(&head, generous) {
            Ok(file) => (file, generous),
            Err(Error::DiskFull { .. }) if generous > needed => {
                (segment.create(&head, needed)?, needed)
            }
            Err(e) => return Err(e),
        };
        let active = self.activate(
            segment,
            file,
            reserved,
            HEAD_LEN as u64,
            self.live_config.segment_bytes_max(),
        )?;
        let active = state.active.insert(active);
        active.reserve(needed, self.live_config.segment_bytes_max(), zero_ahead)
    }

    /// Turns the spare file into the active segment; `false` if there is none, or it is too small.
    #[cold]
    pub(super) fn begin_spare_segment(
        &self,
        state: &mut State,
        size: u64,
        now_ms: i64,
    ) -> Result<bool> {
        let spare = self.view.path.join(SPARE);
        let len = match self.view.dir.io().open(&spare, Open::Read).and_then(|file| file.len()) {
            Ok(len) => len,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("open", self.view.dir.path().join(spare), e)),
        };
        if HEAD_LEN as u64 + size + FOOTER_ROOM > len {
            return Ok(false);
        }
        if state.active.as_ref().is_some_and(|active| active.end() == HEAD_LEN as u64) {
            return Ok(false);
        }
        self.retire(state)?;
        self.mark_open()?;
        let head = self.head(state.next_offset, now_ms);
        let segment = self.new_segment(head.base_offset);
        let file = segment.create_from_spare(&head, &spare)?;
        state.active = Some(self.activate(segment, file, len, len, len)?);
        Ok(true)
    }

    pub(super) fn activate(
        &self,
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        reserved: u64,
        zeroed: u64,
        full_at: u64,
    ) -> Result<Active> {
        let ready = segment
            .scope(file.as_ref())
            .and_then(|scope| self.way(&file, reserved).map(|way| (scope, way)));
        let (scope, mut way) = ready.inspect_err(|_| segment.abandon())?;
        segment.set_active(true);
        match &mut way {
            Way::Positional { zeroed: already, .. } | Way::Mapped { zeroed: already, .. } => {
                *already = zeroed
            }
        }
        self.view.change_segments(|segments| segments.push(Arc::clone(&segment)));
        Ok(Active {
            segment,
            file,
            scope,
            way,
            reserved,
            full_at,
            stored: HEAD_LEN as u64,
            max_timestamp: i64::MIN,
            witnessed: 0,
            index_at: 0,
        })
    }
    /// Ends the active segment, if it holds anything.
    pub fn roll(&self) -> Result<()> {
        let mut state = self.state.lock();
        self.check_writable(&state)?;
        self.resume(&mut state)?;
        match &state.active {
            Some(active) if active.end() > HEAD_LEN as u64 => self.retire(&mut state),
            _ => Ok(()),
        }
    }
    /// Ends the active segment.
    #[cold]
    pub(super) fn retire(&self, state: &mut State) -> Result<()> {
        self.flush(state)?;
        let Some(active) = state.active.take() else { return Ok(()) };
        state.reserve = active.reserved;
        let Active { segment, file, stored, way, .. } = active;
        // Unmapped before anybody can cut the file.
        drop(way);
        segment.set_active(false);
        let producers = self.producers_now(state);
        if planted::has(Bug::SnapshotAheadBelieved)
            && let Some(snapshot) = &producers
        {
            let _ = self.store_producers(snapshot);
        }
        self.retired.lock().push(Retired {
            segment,
            file,
            end_offset: state.next_offset,
            end_position: Some(stored),
            // Nobody may ask for a sync again if the last one had it all.
            is_synced: self.view.durable() >= state.next_offset
                || planted::has(Bug::RetiredNotSynced),
            producers,
        });
        self.request(Duration::ZERO);
        Ok(())
    }
    /// The producers' state as it is at the log's end.
    pub(super) fn producers_now(&self, state: &State) -> Option<Snapshot> {
        (!state.producers.is_empty()).then(|| Snapshot {
            offset: state.next_offset,
            bytes: state.producers.encode(&self.view.log_id, state.next_offset),
        })
    }
    /// Writes the producers' state beside the log, durably, and removes older ones. Everything below its offset must be
    /// durable: a snapshot that is ahead of the log speaks of records that were never acknowledged.
    pub(super) fn store_producers(&self, snapshot: &Snapshot) -> Result<()> {
        let (io, dir) = (self.view.dir.io(), &self.view.path);
        let name = segment::file_name(snapshot.offset, "producers");
        let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(&name));
        let failed = |e| Error::io("write", self.view.dir.path().join(&path), e);
        let _ = io.unlink(&temporary);
        let file = io.open(&temporary, Open::Create).map_err(failed)?;
        write_full(file.as_ref(), &snapshot.bytes, 0)
            .and_then(|()| file.sync_data())
            .and_then(|()| io.rename(&temporary, &path))
            .and_then(|()| io.sync_dir(dir))
            .map_err(failed)?;
        for entry in io.list(dir).unwrap_or_default() {
            if segment::parse_name(&entry.name, "producers")
                .is_some_and(|offset| offset < snapshot.offset)
            {
                let _ = io.unlink(&dir.join(entry.name));
            }
        }
        Ok(())
    }
    /// Has the reserve for a full disk, if the log wants one and there is space.
    pub fn ensure_spare(&self) -> Result<()> {
        let _maintenance = self.maintenance.lock();
        if self.state.lock().is_closed {
            return Ok(());
        }
        make_spare(&self.view, self.config.spare_bytes)
    }
}

fn make_spare(view: &View, bytes: u64) -> Result<()> {
    let (io, dir) = (view.dir.io(), &view.path);
    let (temporary, path) = (dir.join("spare.tmp"), dir.join(SPARE));
    if bytes == 0 {
        return Ok(());
    }
    let failed = |e| Error::io("reserve", view.dir.path().join(&path), e);
    if let Ok(file) = io.open(&path, Open::Write) {
        // A copy of a store may have it without its blocks.
        return file.reserve(0, bytes).map_err(failed);
    }
    let _ = io.unlink(&temporary);
    let file = io.open(&temporary, Open::Create).map_err(failed)?;
    let zeros = vec![0; 64 << 10];
    let mut position = 0;
    while position < bytes {
        let len = usize::try_from(bytes - position).unwrap_or(zeros.len()).min(zeros.len());
        if let Err(e) = write_full(file.as_ref(), &zeros[..len], position) {
            let _ = io.unlink(&temporary);
            return Err(failed(e));
        }
        position += len as u64;
    }
    file.sync_data().map_err(failed)?;
    io.rename(&temporary, &path).map_err(failed)?;
    io.sync_dir(dir).map_err(failed)
}
