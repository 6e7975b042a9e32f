//! The writing side of a log: gives out offsets, encodes, stores, rolls, syncs, seals.
//!
//! Lock order: `state`, `retired`, `manifest`, `live`. One thread at a time encodes and stores, under `state`, so whatever
//! an acknowledgement covers is stored without a hole before it. Syncing happens outside of `state`, by one leader at a
//! time (see [`Commit`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::active::{Active, FOOTER_ROOM, RESERVE_FIRST, Way};
use crate::batch::{Encoder, FrameSpec, Producer};
use crate::commit::{Claim, Commit, Standing};
use crate::config::{Durability, LogConfig, WritePath};
use crate::error::{Error, Result};
use crate::io::{File, FileSystem, Open, write_full};
use crate::layout::{HEAD_LEN, Live, Proven, SegmentHead, State as LogState};
use crate::manifest::ManifestFile;
use crate::producers::{Check, Producers};
use crate::record::Record;
use crate::recovery::Unsealed;
use crate::schedule::Task;
use crate::segment::{self, Segment};
use crate::view::View;

/// Frames of one commit are cut at about this size, so that a reader needs no larger buffer.
const FRAME_BYTES: u64 = 1 << 20;
/// Upper bound of a frame's head and groups.
const FRAME_OVERHEAD: u64 = 100;
/// A positional log writes what is pending when it is this much, even if nobody waits for it.
const PENDING_MAX: usize = 256 << 10;
/// After so many bytes the background is asked to sync, and to move the manifest's proven point up.
const UNPROVEN_MAX: u64 = 8 << 20;
/// The background looks at a log this long after an append at the latest.
const IDLE: Duration = Duration::from_millis(500);
const TIMESTAMP_MAX: u64 = 1 << 61;
pub(crate) const SPARE: &str = "spare";

/// What one append asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// Another level than the log's.
    pub durability: Option<Durability>,
    /// Makes the append idempotent: a retry with the same producer and sequence is not appended again.
    pub producer: Option<Producer>,
    /// On a full disk, use the log's spare segment: for what frees space, such as deletions.
    pub use_spare: bool,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: u64,
    /// The offset of its last record.
    pub last_offset: u64,
    /// The log epoch in which it was appended.
    pub epoch: u32,
    /// It was there already: an idempotent producer's retry. (The epoch is then the present one.)
    pub duplicate: bool,
}

/// What is appended to.
#[derive(Debug)]
pub(crate) struct Writer {
    pub view: Arc<View>,
    pub config: LogConfig,
    commit: Commit,
    state: Mutex<State>,
    /// Segments that are no longer appended to and have no footer yet, oldest first.
    retired: Mutex<Vec<Retired>>,
    manifest: Mutex<ManifestFile>,
    live: Mutex<LivePage>,
    /// Held while segments are sealed, removed or replaced.
    maintenance: Mutex<()>,
    /// What the last sync covered.
    synced: Mutex<Proven>,
    scheduled: AtomicBool,
    /// For an interval that is shorter than [`IDLE`].
    scheduled_soon: AtomicBool,
    urgent: AtomicBool,
    syncs: AtomicU64,
    failure: Mutex<Option<String>>,
    this: std::sync::Weak<Writer>,
}

#[derive(Debug)]
struct State {
    next_offset: u64,
    active: Option<Active>,
    /// A segment of an earlier session that can be gone on with.
    resume: Option<Unsealed>,
    encoder: Encoder,
    scratch: Vec<u8>,
    producers: Producers,
    /// Rises with each rollback.
    generation: u64,
    /// Bytes appended since the background was last asked to prove them.
    unproven: u64,
    /// What the next segment reserves at once.
    reserve: u64,
    max_timestamp: i64,
    is_closed: bool,
}

#[derive(Clone, Debug)]
struct Retired {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    end_offset: u64,
    end_position: u64,
    is_synced: bool,
}

#[derive(Debug)]
struct LivePage {
    file: Option<Arc<dyn File>>,
    page: Live,
}

/// What a writer starts from.
#[derive(Debug)]
pub(crate) struct Start {
    pub end: Proven,
    pub resume: Option<Unsealed>,
    pub producers: Producers,
}

impl Writer {
    pub fn new(
        view: Arc<View>,
        config: LogConfig,
        manifest: ManifestFile,
        start: Start,
    ) -> Arc<Writer> {
        let end = start.end;
        let page = Live {
            log_id: view.log_id,
            epoch: manifest.current().epoch,
            durable: end.offset,
            stored: end.offset,
            boot: boot_prefix(&manifest.current().boot_id),
        };
        Arc::new_cyclic(|this| Writer {
            commit: Commit::starting_at(end.offset),
            state: Mutex::new(State {
                next_offset: end.offset,
                active: None,
                resume: start.resume,
                encoder: Encoder::default(),
                scratch: Vec::new(),
                producers: start.producers,
                generation: 0,
                unproven: 0,
                reserve: RESERVE_FIRST,
                max_timestamp: end.max_timestamp,
                is_closed: false,
            }),
            retired: Mutex::default(),
            manifest: Mutex::new(manifest),
            live: Mutex::new(LivePage { file: None, page }),
            maintenance: Mutex::default(),
            synced: Mutex::new(end),
            scheduled: AtomicBool::new(false),
            scheduled_soon: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            failure: Mutex::default(),
            this: this.clone(),
            view,
            config,
        })
    }

    pub fn level(&self, options: &AppendOptions) -> Durability {
        options.durability.unwrap_or(self.config.durability)
    }

    /// Stores a batch, or for [`Durability::Sync`] on the positional way only orders it, and says what to wait for.
    pub fn append(
        &self,
        records: &[Record<'_>],
        options: &AppendOptions,
    ) -> Result<(Appended, Claim)> {
        let size = self.measure(records)?;
        let now_ms = self.view.dir.clock().wall_ms();
        let mut state = self.state.lock();
        self.check_writable(&state)?;
        if let Some(producer) = options.producer
            && let Check::Duplicate(base_offset) =
                state.producers.check(producer, len_u32(records))?
        {
            return Ok(self.duplicate(&state, base_offset, records));
        }
        self.make_room(&mut state, size, len_u32(records), now_ms, options)?;
        if options.producer.is_some() && state.producers.is_empty() {
            // Before the first such frame, so that a log without producers is never read for them.
            self.or_poison(self.manifest.lock().store(|m| m.has_producers = true))?;
        }
        let state = &mut *state;
        let base_offset = state.next_offset;
        let appended = Appended {
            base_offset,
            last_offset: base_offset + records.len() as u64 - 1,
            epoch: self.view.epoch(),
            duplicate: false,
        };
        self.encode_and_store(state, records, options, now_ms);
        let claim = Claim { end: appended.last_offset + 1, generation: state.generation };
        let level = self.level(options);
        if level != Durability::Sync || state.pending_len() > PENDING_MAX {
            self.flush(state)?;
        }
        if state.unproven > UNPROVEN_MAX {
            state.unproven = 0;
            self.request(Duration::ZERO);
        }
        if !self.scheduled.load(Ordering::Relaxed) || matches!(level, Durability::Interval(_)) {
            self.schedule(level);
        }
        Ok((appended, claim))
    }

    /// An upper bound of the batch's encoded size; refuses what can never be appended.
    fn measure(&self, records: &[Record<'_>]) -> Result<u64> {
        let mut total = 0;
        for record in records {
            let bytes = record.encoded_len_max();
            if bytes > self.config.record_bytes_max {
                return Err(Error::RecordTooLarge { bytes, max: self.config.record_bytes_max });
            }
            match record.timestamp {
                Some(timestamp) if timestamp.unsigned_abs() > TIMESTAMP_MAX => {
                    return Err(Error::TimestampOutOfRange { timestamp });
                }
                _ => {}
            }
            total += bytes;
        }
        if records.is_empty() {
            return Err(Error::EmptyBatch);
        }
        if records.len() > u32::MAX as usize / 2 || total > u64::from(u32::MAX) / 2 {
            return Err(Error::RecordTooLarge { bytes: total, max: u64::from(u32::MAX) / 2 });
        }
        Ok(total + (total / FRAME_BYTES + 1) * FRAME_OVERHEAD)
    }

    fn check_writable(&self, state: &State) -> Result<()> {
        if state.is_closed {
            return Err(Error::Closed { path: self.view.shown() });
        }
        if self.commit.is_poisoned() {
            return Err(Error::Poisoned { path: self.view.shown() });
        }
        Ok(())
    }

    fn duplicate(
        &self,
        state: &State,
        base_offset: u64,
        records: &[Record<'_>],
    ) -> (Appended, Claim) {
        let last_offset = base_offset + records.len() as u64 - 1;
        let appended =
            Appended { base_offset, last_offset, epoch: self.view.epoch(), duplicate: true };
        // A retry is acknowledged no sooner than the first try: it waits for the same offsets.
        (appended, Claim { end: last_offset + 1, generation: state.generation })
    }

    /// Has an active segment with room for `size` more bytes.
    fn make_room(
        &self,
        state: &mut State,
        size: u64,
        count: u32,
        now_ms: i64,
        options: &AppendOptions,
    ) -> Result<()> {
        self.resume(state)?;
        let next_offset = state.next_offset;
        if let Some(active) = &state.active {
            let is_full = active.end() + size + FOOTER_ROOM > self.config.segment_bytes_max
                || next_offset + u64::from(count) - active.scope.base_offset > u64::from(u32::MAX);
            let age_ms = now_ms.saturating_sub(active.scope.base_timestamp);
            let is_old = u128::try_from(age_ms)
                .is_ok_and(|ms| ms >= self.config.segment_age_max.as_millis());
            if (is_full || is_old) && active.end() > HEAD_LEN as u64 {
                self.retire(state)?;
            }
        }
        let zero_ahead = self.level(options) == Durability::Sync;
        let needed = |active: &Active| active.end() + size + FOOTER_ROOM;
        let reserved = match &mut state.active {
            Some(active) => {
                active.reserve(needed(active), self.config.segment_bytes_max, zero_ahead)
            }
            None => self.begin_segment(state, size, now_ms, zero_ahead),
        };
        match reserved {
            Err(Error::DiskFull { path, source }) => {
                if options.use_spare && self.begin_spare_segment(state, size, now_ms)? {
                    Ok(())
                } else {
                    Err(Error::DiskFull { path, source })
                }
            }
            other => other,
        }
    }

    /// Goes on in the last segment of an earlier session.
    fn resume(&self, state: &mut State) -> Result<()> {
        let Some(Unsealed { segment, end_position, end_offset, .. }) = &state.resume else {
            return Ok(());
        };
        let (segment, end_position, end_offset) = (Arc::clone(segment), *end_position, *end_offset);
        let file = segment.open(Open::Write)?;
        let scope = segment.scope(file.as_ref())?;
        self.mark_open()?;
        if scope.epoch == self.view.epoch() {
            state.active = Some(Active {
                way: self.way(&file, end_position)?,
                segment: Arc::clone(&segment),
                file,
                scope,
                reserved: end_position,
                stored: end_position,
                max_timestamp: state.max_timestamp,
                witnessed: 0,
                index_at: end_position,
            });
            segment.set_active(true);
        } else {
            self.retired.lock().push(Retired {
                segment,
                file,
                end_offset,
                end_position,
                is_synced: true,
            });
        }
        state.resume = None;
        Ok(())
    }

    fn way(&self, file: &Arc<dyn File>, reserved: u64) -> Result<Way> {
        let is_mapped = match self.config.write_path {
            WritePath::Mapped => true,
            WritePath::Positional => false,
            WritePath::Auto => {
                self.config.durability != Durability::Sync
                    && matches!(
                        self.view.dir.io().file_system(),
                        FileSystem::Ext4 | FileSystem::Tmpfs
                    )
            }
        };
        if is_mapped {
            let region = file.map(reserved).map_err(|e| Error::io("map", self.view.shown(), e))?;
            Ok(Way::Mapped(region))
        } else {
            Ok(Way::Positional { pending: Vec::new(), zeroed: reserved, dirty: 0 })
        }
    }

    fn head(&self, base_offset: u64, now_ms: i64) -> SegmentHead {
        SegmentHead {
            log_id: self.view.log_id,
            base_offset,
            epoch: self.view.epoch(),
            generation: 0,
            base_timestamp: now_ms,
            superseded_hash: [0; 16],
        }
    }

    fn new_segment(&self, base_offset: u64) -> Arc<Segment> {
        let dir = &self.view.dir;
        Arc::new(Segment::new(
            Arc::clone(dir.io()),
            dir.path(),
            &self.view.path,
            self.view.log_id,
            base_offset,
        ))
    }

    fn begin_segment(
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
        let generous = state.reserve.min(self.config.segment_bytes_max).max(needed);
        let (file, reserved) = match segment.create(&head, generous) {
            Ok(file) => (file, generous),
            Err(Error::DiskFull { .. }) if generous > needed => {
                (segment.create(&head, needed)?, needed)
            }
            Err(e) => return Err(e),
        };
        let active = self.activate(segment, file, reserved, HEAD_LEN as u64)?;
        let active = state.active.insert(active);
        active.reserve(needed, self.config.segment_bytes_max, zero_ahead)
    }

    /// Turns the spare file into the active segment; `false` if there is none, or it is too small.
    fn begin_spare_segment(&self, state: &mut State, size: u64, now_ms: i64) -> Result<bool> {
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
        state.active = Some(self.activate(segment, file, len, len)?);
        Ok(true)
    }

    fn activate(
        &self,
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        reserved: u64,
        zeroed: u64,
    ) -> Result<Active> {
        segment.set_active(true);
        let scope = segment.scope(file.as_ref())?;
        let mut way = self.way(&file, reserved)?;
        if let Way::Positional { zeroed: already, .. } = &mut way {
            *already = zeroed;
        }
        self.view.change_segments(|segments| segments.push(Arc::clone(&segment)));
        Ok(Active {
            segment,
            file,
            scope,
            way,
            reserved,
            stored: HEAD_LEN as u64,
            max_timestamp: i64::MIN,
            witnessed: 0,
            index_at: 0,
        })
    }

    /// Notes durably that the log has a writer, before its first byte: from now on its end is found by a scan.
    fn mark_open(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let boot_id = self.view.dir.io().boot_id();
        if manifest.current().state == LogState::Open && manifest.current().boot_id == boot_id {
            return Ok(());
        }
        self.or_poison(manifest.store(|m| {
            m.state = LogState::Open;
            m.boot_id = boot_id;
        }))?;
        drop(manifest);
        let mut live = self.live.lock();
        live.page.boot = boot_prefix(&boot_id);
        if live.file.is_none() {
            live.file = Some(self.open_live()?);
        }
        live.write(&self.view)
    }

    fn open_live(&self) -> Result<Arc<dyn File>> {
        let (io, path) = (self.view.dir.io(), self.view.path.join("live"));
        let file = match io.open(&path, Open::Write) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => io.open(&path, Open::Create),
            other => other,
        };
        file.map_err(|e| Error::open(self.view.dir.path().join(path), e))
    }

    fn encode_and_store(
        &self,
        state: &mut State,
        records: &[Record<'_>],
        options: &AppendOptions,
        now_ms: i64,
    ) {
        let State { active: Some(active), encoder, scratch, producers, .. } = state else { return };
        let durable = self.view.durable();
        let start = active.end();
        let is_mapped = matches!(active.way, Way::Mapped(_));
        scratch.clear();
        let out = match &mut active.way {
            Way::Mapped(_) => &mut *scratch,
            Way::Positional { pending, .. } => pending,
        };
        let before = out.len();
        let mut left = records;
        let mut base_offset = state.next_offset;
        while !left.is_empty() {
            let (frame, rest) = left.split_at(frame_count(left));
            let position = start + (out.len() - before) as u64;
            let spec = FrameSpec {
                base_offset,
                durable_upto: (durable > active.witnessed).then_some(durable),
                producer: options.producer.map(|p| p.after(len_u32(records) - len_u32(left))),
                continues: !rest.is_empty(),
                compression: self.config.compression,
                ..FrameSpec::default()
            };
            active.witnessed = durable;
            let max_timestamp = encoder.dense(out, &active.scope, &spec, frame, now_ms);
            active.max_timestamp = active.max_timestamp.max(max_timestamp);
            if position >= active.index_at {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a segment ends before 2^32 offsets"
                )]
                let delta = (base_offset - active.scope.base_offset) as u32;
                active.segment.note(delta, position, active.max_timestamp);
                active.index_at =
                    (position / crate::index::OFFSET_STRETCH + 1) * crate::index::OFFSET_STRETCH;
            }
            base_offset += frame.len() as u64;
            left = rest;
        }
        if let Some(producer) = options.producer {
            producers.note(producer, len_u32(records), state.next_offset, false);
        }
        state.unproven += (out.len() - before) as u64;
        state.max_timestamp = active.max_timestamp;
        state.next_offset = base_offset;
        if is_mapped {
            active.store(scratch);
            self.view.set_stored(base_offset);
        }
    }

    /// Writes what is pending, so that kill -9 cannot take it.
    fn flush(&self, state: &mut State) -> Result<()> {
        if state.pending_len() == 0 {
            return Ok(());
        }
        let next_offset = state.next_offset;
        let Some(active) = &mut state.active else { return Ok(()) };
        match active.flush() {
            Ok(()) => {
                let mut live = self.live.lock();
                live.page.stored = next_offset;
                live.write(&self.view).inspect_err(|_| self.commit.poison())?;
                drop(live);
                self.view.set_stored(next_offset);
                Ok(())
            }
            Err(e) => {
                let error = active.segment.failed("write")(e);
                if !matches!(error, Error::DiskFull { .. }) {
                    self.poison(&error);
                    return Err(error);
                }
                // None of it was acknowledged: its offsets are given again.
                let stored = self.view.stored();
                active.discard();
                active.segment.truncate_index(active.stored);
                active.index_at = active.stored;
                state.producers.truncate(stored);
                state.next_offset = stored;
                self.commit.roll_back(state.generation, stored);
                state.generation += 1;
                Err(error)
            }
        }
    }

    /// Ends the active segment.
    fn retire(&self, state: &mut State) -> Result<()> {
        self.flush(state)?;
        let Some(active) = state.active.take() else { return Ok(()) };
        state.reserve = active.reserved;
        let Active { segment, file, stored, way, .. } = active;
        // Unmapped before anybody can cut the file.
        drop(way);
        segment.set_active(false);
        self.store_producers(state);
        self.retired.lock().push(Retired {
            segment,
            file,
            end_offset: state.next_offset,
            end_position: stored,
            is_synced: false,
        });
        self.request(Duration::ZERO);
        Ok(())
    }

    fn point(&self, state: &State) -> Proven {
        let offset = self.view.stored();
        match &state.active {
            Some(active) => Proven {
                offset,
                segment: active.scope.base_offset,
                position: active.stored,
                max_timestamp: active.max_timestamp,
            },
            None => match self.retired.lock().last() {
                Some(last) => Proven {
                    offset,
                    segment: last.segment.base_offset(),
                    position: last.end_position,
                    max_timestamp: state.max_timestamp,
                },
                None => *self.synced.lock(),
            },
        }
    }

    /// Blocks until everything below the claim's end is durable, syncing if nobody else does.
    pub fn wait_durable(&self, claim: Claim) -> Result<()> {
        loop {
            let lead = match self.commit.wait_or_lead(claim) {
                Ok(standing) => return self.outcome(standing),
                Err(lead) => lead,
            };
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
    fn sync_once(&self) -> Result<()> {
        let mut state = self.state.lock();
        if self.commit.is_poisoned() {
            return Err(Error::Poisoned { path: self.view.shown() });
        }
        self.flush(&mut state)?;
        let point = self.point(&state);
        let active = state.active.as_ref().map(|active| Arc::clone(&active.file));
        let retired: Vec<Retired> =
            self.retired.lock().iter().filter(|r| !r.is_synced).cloned().collect();
        drop(state);
        for segment in &retired {
            self.sync_file(segment.file.as_ref())?;
        }
        if let Some(file) = active {
            self.sync_file(file.as_ref())?;
        }
        for segment in self.retired.lock().iter_mut() {
            segment.is_synced |= segment.end_offset <= point.offset;
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        *self.synced.lock() = point;
        let mut live = self.live.lock();
        live.page.durable = live.page.durable.max(point.offset);
        live.write(&self.view).inspect_err(|_| self.commit.poison())?;
        drop(live);
        self.view.set_durable(point.offset);
        self.commit.advance(point.offset);
        Ok(())
    }

    fn sync_file(&self, file: &dyn File) -> Result<()> {
        file.sync_data().map_err(|source| {
            let error = Error::Io { op: "sync", path: self.view.shown(), source };
            self.poison(&error);
            error
        })
    }

    fn poison(&self, why: &Error) {
        *self.failure.lock() = Some(why.to_string());
        self.commit.poison();
    }

    fn or_poison<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result
            && !matches!(e, Error::DiskFull { .. })
        {
            self.poison(e);
        }
        result
    }

    /// Makes everything durable that was appended before the call.
    pub fn sync(&self) -> Result<u64> {
        let state = self.state.lock();
        self.check_writable(&state)?;
        let claim = Claim { end: state.next_offset, generation: state.generation };
        drop(state);
        self.wait_durable(claim)?;
        Ok(self.view.durable())
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

    /// Syncs, seals what is retired, and moves the manifest's proven point up.
    pub fn settle(&self) -> Result<()> {
        let _maintenance = self.maintenance.lock();
        self.settle_locked()
    }

    fn settle_locked(&self) -> Result<()> {
        let state = self.state.lock();
        let claim = Claim { end: state.next_offset, generation: state.generation };
        drop(state);
        self.wait_durable(claim)?;
        self.seal_retired()?;
        let synced = *self.synced.lock();
        let mut manifest = self.manifest.lock();
        if manifest.current().state == LogState::Open
            && manifest.current().proven.offset < synced.offset
        {
            self.or_poison(manifest.store(|m| m.proven = synced))?;
        }
        Ok(())
    }

    fn seal_retired(&self) -> Result<()> {
        loop {
            let Some(next) = self.retired.lock().first().filter(|r| r.is_synced).cloned() else {
                return Ok(());
            };
            let now_ms = self.view.dir.clock().wall_ms();
            let previous_hash = self.chain_hash_before(next.segment.base_offset())?;
            next.segment.seal(
                &next.file,
                next.end_offset,
                next.end_position,
                previous_hash,
                now_ms,
            )?;
            self.retired.lock().retain(|r| r.segment.base_offset() != next.segment.base_offset());
        }
    }

    fn chain_hash_before(&self, base_offset: u64) -> Result<[u8; 16]> {
        let segments = self.view.segments();
        let before = segments.partition_point(|segment| segment.base_offset() < base_offset);
        match before.checked_sub(1).map(|i| &segments[i]) {
            Some(previous) => previous.chain_hash(previous.open(Open::Read)?.as_ref()),
            None => Ok([0; 16]),
        }
    }

    /// Asks the background to settle the log after `delay`.
    pub fn request(&self, delay: Duration) {
        if !delay.is_zero() || !self.urgent.swap(true, Ordering::AcqRel) {
            self.view.dir.after(delay, self.this.clone());
        }
    }

    fn schedule(&self, level: Durability) {
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            self.request(IDLE);
        }
        if let Durability::Interval(interval) = level
            && interval / 2 < IDLE
            && !self.scheduled_soon.swap(true, Ordering::AcqRel)
        {
            self.request(interval / 2);
        }
    }

    /// Raises the start offset durably, then removes the segments that lie wholly below it.
    pub fn delete_before(&self, offset: u64) -> Result<u64> {
        let _maintenance = self.maintenance.lock();
        if offset > self.view.durable() {
            self.settle_locked()?;
        }
        if offset > self.view.durable() {
            return Err(self.view.out_of_range(offset, crate::config::Visibility::Durable));
        }
        if offset > self.view.start() {
            self.check_writable(&self.state.lock())?;
            self.mark_open()?;
            self.or_poison(self.manifest.lock().store(|m| m.start_offset = offset))?;
            self.view.set_start(offset);
        }
        self.remove_obsolete()?;
        Ok(self.view.start())
    }

    fn remove_obsolete(&self) -> Result<()> {
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
        self.retired
            .lock()
            .retain(|r| !removed.iter().any(|s| s.base_offset() == r.segment.base_offset()));
        let (io, root, dir) = (self.view.dir.io(), self.view.dir.path(), &self.view.path);
        for segment in &removed {
            crate::recovery::remove_segment(io.as_ref(), root, dir, segment.base_offset())?;
        }
        io.sync_dir(dir).map_err(|e| Error::io("sync", self.view.shown(), e))
    }

    /// Ends writing: everything is made durable, the active segment trimmed, the log marked as closed.
    pub fn close(&self) -> Result<()> {
        let _maintenance = self.maintenance.lock();
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
        self.wait_durable(claim)?;
        self.seal_retired()?;
        let mut state = self.state.lock();
        if let Some(active) = state.active.take() {
            drop(active.way);
            let end = active.stored;
            active
                .file
                .set_len(end)
                .and_then(|()| active.file.sync_data())
                .map_err(active.segment.failed("trim"))?;
            active.segment.set_active(false);
        }
        self.store_producers(&state);
        let end = *self.synced.lock();
        self.manifest.lock().store(|m| {
            m.state = LogState::Clean;
            m.proven = end;
        })
    }

    /// Writes the producers' state beside the log. It can always be had by reading the log, so errors only cost time.
    fn store_producers(&self, state: &State) {
        if state.producers.is_empty() {
            return;
        }
        let (io, dir) = (self.view.dir.io(), &self.view.path);
        let name = segment::file_name(state.next_offset, "producers");
        let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(&name));
        let bytes = state.producers.encode(&self.view.log_id, state.next_offset);
        let _ = io.unlink(&temporary);
        let written =
            io.open(&temporary, Open::Create).and_then(|file| write_full(file.as_ref(), &bytes, 0));
        if written.and_then(|()| io.rename(&temporary, &path)).is_ok() {
            for entry in io.list(dir).unwrap_or_default() {
                if segment::parse_name(&entry.name, "producers")
                    .is_some_and(|offset| offset < state.next_offset)
                {
                    let _ = io.unlink(&dir.join(entry.name));
                }
            }
        }
    }

    /// The last epoch and sequence of a producer.
    pub fn last_sequence(&self, producer_id: i64) -> Option<(i16, i32)> {
        self.state.lock().producers.last(producer_id)
    }

    pub fn end_offset(&self) -> u64 {
        self.state.lock().next_offset
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Why the log is poisoned, or what the background could not do.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// The lock under which segments are sealed, removed or replaced.
    pub fn maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock()
    }

    /// Has the reserve for a full disk, if the log wants one and there is space.
    pub fn ensure_spare(&self) -> Result<()> {
        make_spare(&self.view, self.config.spare_bytes)
    }
}

impl Task for Writer {
    fn run(self: Arc<Self>) {
        self.scheduled.store(false, Ordering::Release);
        self.scheduled_soon.store(false, Ordering::Release);
        self.urgent.store(false, Ordering::Release);
        let is_closed = self.state.lock().is_closed;
        if is_closed || self.commit.is_poisoned() {
            return;
        }
        let done = self.settle().and_then(|()| self.ensure_spare());
        match done {
            Ok(()) => {
                if !self.commit.is_poisoned() {
                    *self.failure.lock() = None;
                }
            }
            Err(e) => {
                *self.failure.lock() = Some(e.to_string());
                if !self.commit.is_poisoned() && !self.scheduled.swap(true, Ordering::AcqRel) {
                    self.request(IDLE);
                }
            }
        }
    }
}

impl State {
    fn pending_len(&self) -> usize {
        match &self.active {
            Some(Active { way: Way::Positional { pending, .. }, .. }) => pending.len(),
            _ => 0,
        }
    }
}

impl LivePage {
    fn write(&self, view: &View) -> Result<()> {
        match &self.file {
            Some(file) => write_full(file.as_ref(), &self.page.encode(), 0)
                .map_err(|e| Error::io("write", view.shown().join("live"), e)),
            None => Ok(()),
        }
    }
}

fn boot_prefix(boot_id: &[u8; 16]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&boot_id[..8]);
    prefix
}

fn len_u32(records: &[Record<'_>]) -> u32 {
    u32::try_from(records.len()).unwrap_or(u32::MAX)
}

/// How many of the records go into the next frame, at least one.
fn frame_count(records: &[Record<'_>]) -> usize {
    if records.len() == 1 {
        return 1;
    }
    let mut bytes = 0;
    let fitting = records.iter().take_while(|record| {
        bytes += record.encoded_len_max();
        bytes <= FRAME_BYTES
    });
    fitting.count().max(1)
}

fn make_spare(view: &View, bytes: u64) -> Result<()> {
    let (io, dir) = (view.dir.io(), Path::new(&view.path));
    let (temporary, path): (PathBuf, PathBuf) = (dir.join("spare.tmp"), dir.join(SPARE));
    if bytes == 0 || io.open(&path, Open::Read).is_ok() {
        return Ok(());
    }
    let failed = |e| Error::io("reserve", view.dir.path().join(&path), e);
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
