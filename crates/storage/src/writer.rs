//! The writing side of a log: gives out offsets, encodes, stores, rolls, syncs, seals.
//!
//! Lock order: `state`, `retired`, `manifest`, `live`. One thread at a time encodes and stores, under `state`, so whatever
//! an acknowledgement covers is stored without a hole before it. Syncing happens outside of `state`, by one leader at a
//! time (see [`Commit`]).

mod durable;
mod replace;
mod settle;
mod space;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::active::{Active, FOOTER_ROOM, RESERVE_FIRST, Way};
use crate::activity::Appends;
use crate::batch::{Encoder, FrameSpec, Producer};
use crate::commit::{Claim, Commit, Standing};
use crate::config::{Durability, LogConfig, WritePath};
use crate::data_dir::Claimed;
use crate::error::{Error, Result};
use crate::io::{File, FileSystem, Open, write_full};
use crate::layout::{HEAD_LEN, Live, Proven, SegmentHead, State as LogState};
use crate::live_config::LiveConfig;
use crate::manifest::ManifestFile;
use crate::planted::{self, Bug};
use crate::producers::{Check, Producers};
use crate::reader::Reader;
use crate::record::{Record, TIMESTAMP_MAX};
use crate::recovery::Unsealed;
use crate::retention::{BeforeRemoval, Keeper};
use crate::schedule::Task;
use crate::segment::{self, Segment};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::view::View;

/// Upper bound of a frame's head and groups.
const FRAME_OVERHEAD: u64 = 100;
/// A positional log writes what is pending when it is this much, even if nobody waits for it.
const PENDING_MAX: usize = 256 << 10;
/// After so many bytes the background is asked to sync, and to move the manifest's proven point up.
const UNPROVEN_MAX: u64 = 8 << 20;
/// The background looks at a log this long after an append at the latest.
const IDLE: Duration = Duration::from_millis(500);
pub(crate) const SPARE: &str = "spare";

/// What one append asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// Another level than the log's.
    pub durability: Option<Durability>,
    /// Makes the append idempotent: a retry with the same producer and sequence is not appended again.
    pub producer: Option<Producer>,
    /// On a full disk, use the log's spare segment, and take records that are larger than the log's limit: for what frees
    /// space, such as deletions, and what was promised elsewhere already, such as intents.
    pub use_spare: bool,
    /// What the wall clock says, ms since 1970, if the caller has just looked. A look costs as much as a tenth of an append.
    pub wall_ms: Option<i64>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: u64,
    /// The offset of its last record.
    pub last_offset: u64,
    /// The log epoch in which it was appended.
    pub epoch: u32,
    /// It was there already: an idempotent producer's retry. (The epoch is then the present one.)
    pub duplicate: bool,
    /// When it was given its place: see [`Claim`].
    generation: u64,
}

impl Appended {
    /// What its acknowledgement waits for. A retry is acknowledged no sooner than the first try: it waits for the same offsets.
    pub(crate) const fn claim(&self) -> Claim {
        Claim { end: self.last_offset + 1, generation: self.generation }
    }
}

/// What is appended to.
#[derive(Debug)]
pub(crate) struct Writer {
    pub view: Arc<View>,
    /// As it was opened. What may change since is in [`LiveConfig`].
    config: LogConfig,
    pub live_config: LiveConfig,
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
    /// The background was asked to look at the log within this many microseconds, and has not come since.
    scheduled_within: AtomicU64,
    urgent: AtomicBool,
    /// The commit thread was asked to sync, and has not begun.
    commit_wanted: AtomicBool,
    syncs: AtomicU64,
    appends: Arc<Appends>,
    /// How many of them the last sync covered.
    appends_synced: AtomicU64,
    failure: Mutex<Option<String>>,
    /// When the background looks for what is too old, ms on the monotonic clock.
    retention_due: AtomicU64,
    this: Weak<Writer>,
    /// The log's own readers: those in removed segments would keep the space.
    kept_readers: Arc<Mutex<Vec<Reader>>>,
    /// Who is asked before retention removes anything.
    keeper: OnceLock<Weak<dyn BeforeRemoval>>,
    /// Given back when nobody can write the files any more: the log was closed, or the last who could is gone.
    claimed: Mutex<Option<Claimed>>,
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
    /// `None`: it is to be looked for.
    end_position: Option<u64>,
    is_synced: bool,
    /// The producers' state at its end.
    producers: Option<Snapshot>,
}

/// The producers' state just before an offset, encoded.
#[derive(Clone, Debug)]
struct Snapshot {
    offset: u64,
    bytes: Vec<u8>,
}

impl From<Unsealed> for Retired {
    fn from(unsealed: Unsealed) -> Retired {
        let Unsealed { segment, file, end_position, end_offset, .. } = unsealed;
        Retired { segment, file, end_offset, end_position, is_synced: true, producers: None }
    }
}

#[derive(Debug)]
struct LivePage {
    file: Option<Arc<dyn File>>,
    page: Live,
    /// The page on the disk says less than has happened.
    is_behind: bool,
}

/// What a writer starts from.
#[derive(Debug)]
pub(crate) struct Start {
    pub end: Proven,
    /// The last segment, if it is not sealed.
    pub resume: Option<Unsealed>,
    /// Segments before it that are not sealed.
    pub retired: Vec<Unsealed>,
    pub producers: Producers,
    /// The log's own readers.
    pub kept_readers: Arc<Mutex<Vec<Reader>>>,
}

impl Writer {
    pub fn new(
        view: Arc<View>,
        config: LogConfig,
        manifest: ManifestFile,
        start: Start,
        claimed: Claimed,
    ) -> Arc<Writer> {
        let end = start.end;
        let page = Live {
            log_id: view.log_id,
            epoch: manifest.current().epoch,
            mapped: false,
            durable: end.offset,
            stored: 0,
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
            retired: Mutex::new(start.retired.into_iter().map(Retired::from).collect()),
            manifest: Mutex::new(manifest),
            live: Mutex::new(LivePage { file: None, page, is_behind: false }),
            maintenance: Mutex::default(),
            synced: Mutex::new(end),
            scheduled_within: AtomicU64::new(u64::MAX),
            urgent: AtomicBool::new(false),
            commit_wanted: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            appends: view.dir.counters().log(),
            appends_synced: AtomicU64::new(0),
            failure: Mutex::default(),
            retention_due: AtomicU64::new(0),
            this: this.clone(),
            kept_readers: start.kept_readers,
            keeper: OnceLock::new(),
            claimed: Mutex::new(Some(claimed)),
            view,
            live_config: LiveConfig::new(&config),
            config,
        })
    }

    pub fn level(&self, options: &AppendOptions) -> Durability {
        options.durability.unwrap_or(self.config.durability)
    }

    /// Stores a batch, or for [`Durability::Sync`] on the positional way only orders it, and says what to wait for.
    pub fn append(&self, records: &[Record<'_>], options: &AppendOptions) -> Result<Appended> {
        let max = if options.use_spare { u64::MAX } else { self.live_config.record_bytes_max() };
        let size = self.measure(records, max)?;
        // A clock that is out of its mind must not make timestamps that no reader takes.
        let now_ms = options.wall_ms.unwrap_or_else(|| self.view.dir.clock().wall_ms());
        let now_ms = now_ms.clamp(-TIMESTAMP_MAX, TIMESTAMP_MAX);
        let mut state = self.state.lock();
        self.check_writable(&state)?;
        if let Some(producer) = options.producer
            && let Check::Duplicate(base_offset) =
                state.producers.check(producer, len_u32(records))?
        {
            return Ok(self.placed(&state, base_offset, records, true));
        }
        self.make_room(&mut state, size, len_u32(records), now_ms, options)?;
        if options.producer.is_some() && state.producers.is_empty() {
            self.note_first_producer()?;
        }
        let state = &mut *state;
        let base_offset = state.next_offset;
        let appended = self.placed(state, base_offset, records, false);
        self.encode_and_store(state, records, options, now_ms);
        let level = self.level(options);
        let pending = state.pending_len();
        if pending > 0
            && (level != Durability::Sync || pending > PENDING_MAX)
            && !planted::has(Bug::AcknowledgedBeforeStored)
        {
            self.flush(state)?;
        }
        if state.unproven > UNPROVEN_MAX {
            state.unproven = 0;
            self.request(Duration::ZERO);
        }
        self.schedule(match level {
            Durability::Interval(interval) => (interval / 2).min(IDLE),
            Durability::Sync | Durability::Buffered => IDLE,
        });
        Ok(appended)
    }

    /// An upper bound of the batch's encoded size; refuses what can never be appended.
    fn measure(&self, records: &[Record<'_>], max: u64) -> Result<u64> {
        let mut total = 0;
        for record in records {
            let bytes = record.encoded_len_max();
            if bytes > max {
                return Err(Error::RecordTooLarge { bytes, max });
            }
            match record.timestamp {
                Some(timestamp) if timestamp.unsigned_abs() > TIMESTAMP_MAX.unsigned_abs() => {
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
        // Most batches fit into a frame, and a division costs as much as all else here.
        let full_frames = match self.config.frame_bytes {
            frame_bytes if total < frame_bytes => 0,
            frame_bytes => total / frame_bytes,
        };
        Ok(total + (full_frames + 1) * 2 * FRAME_OVERHEAD)
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

    /// Before the first frame of a producer, so that a log without producers is never read for them.
    #[cold]
    fn note_first_producer(&self) -> Result<()> {
        self.or_poison(self.manifest.lock().store(|m| m.has_producers = true))
    }

    fn placed(
        &self,
        state: &State,
        base_offset: u64,
        records: &[Record<'_>],
        duplicate: bool,
    ) -> Appended {
        Appended {
            base_offset,
            last_offset: base_offset + records.len() as u64 - 1,
            epoch: self.view.epoch(),
            duplicate,
            generation: state.generation,
        }
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
        let is_mapped = matches!(active.way, Way::Mapped { .. });
        scratch.clear();
        let out = match &mut active.way {
            Way::Mapped { .. } => &mut *scratch,
            Way::Positional { pending, .. } => pending,
        };
        let before = out.len();
        let mut left = records;
        let mut base_offset = state.next_offset;
        while !left.is_empty() {
            let (frame, rest) = left.split_at(frame_count(left, self.config.frame_bytes));
            let position = start + (out.len() - before) as u64;
            let spec = FrameSpec {
                base_offset,
                durable_upto: (durable > active.witnessed).then_some(durable),
                producer: options.producer.map(|p| p.after(len_u32(records) - len_u32(left))),
                continues: !rest.is_empty(),
                compression: self.live_config.compression(),
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
            let stored = self.view.stored();
            producers.note(producer, len_u32(records), state.next_offset, false, stored);
        }
        let bytes = (out.len() - before) as u64;
        state.unproven += bytes;
        self.appends.count(records.len() as u64, bytes);
        state.max_timestamp = active.max_timestamp;
        state.next_offset = base_offset;
        if is_mapped {
            active.store(scratch);
            self.view.hand_over.give(active.scope.base_offset, start, scratch);
            self.view.set_stored(base_offset);
        }
    }
    /// Asks the background to settle the log after `delay`.
    pub fn request(&self, delay: Duration) {
        if !delay.is_zero() || !self.urgent.swap(true, Ordering::AcqRel) {
            self.view.dir.after(delay, self.this.clone());
        }
    }

    /// Has everything that was appended so far synced by another thread, without waiting for it.
    pub fn request_sync(&self) {
        if self.commit_wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        if self.view.dir.commit_soon(this).is_err() {
            self.commit_wanted.store(false, Ordering::Release);
            self.request(Duration::ZERO);
        }
    }

    /// The commit thread's part of [`request_sync`](Self::request_sync).
    pub fn commit_requested(&self) {
        // Before the claim: what is appended after that asks again.
        self.commit_wanted.swap(false, Ordering::AcqRel);
        let state = self.state.lock();
        let claim = Claim { end: state.next_offset, generation: state.generation };
        drop(state);
        // Whoever waits is told by the commit itself.
        let _ = self.wait_durable(claim);
    }

    /// Has the background look at the log within `delay`.
    #[inline]
    fn schedule(&self, delay: Duration) {
        #[expect(clippy::cast_possible_truncation, reason = "at most `IDLE`")]
        let within = delay.as_micros() as u64;
        if within < self.scheduled_within.load(Ordering::Relaxed)
            && within < self.scheduled_within.fetch_min(within, Ordering::AcqRel)
        {
            self.request(delay);
        }
    }
    /// Has `keeper` asked from now on before retention removes anything; the first to say so counts.
    pub fn set_keeper(&self, keeper: Weak<dyn BeforeRemoval>) {
        let _ = self.keeper.set(keeper);
    }

    pub fn keeper(&self) -> Keeper {
        match self.keeper.get().map(Weak::upgrade) {
            None => Keeper::Nobody,
            Some(Some(keeper)) => Keeper::Here(keeper),
            Some(None) => Keeper::Gone,
        }
    }

    /// The user is done with the log, background work may not be.
    pub fn drain(&self) {
        if let Some(claimed) = &*self.claimed.lock() {
            claimed.drain();
        }
    }

    /// The last epoch and sequence of a producer.
    pub fn last_sequence(&self, producer_id: i64) -> Option<(i16, i32)> {
        self.state.lock().producers.last(producer_id)
    }

    /// The offset of the last record of a producer.
    pub fn last_offset_of(&self, producer_id: i64) -> Option<u64> {
        self.state.lock().producers.last_offset(producer_id)
    }

    pub fn end_offset(&self) -> u64 {
        self.state.lock().next_offset
    }

    /// The base offset of the active segment, and its bytes without what is only reserved.
    pub fn active_bytes(&self) -> Option<(u64, u64)> {
        let state = self.state.lock();
        state.active.as_ref().map(|active| (active.scope.base_offset, active.end()))
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Why the log is poisoned, or what the background could not do.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
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
fn boot_prefix(boot_id: &[u8; 16]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&boot_id[..8]);
    prefix
}
fn len_u32(records: &[Record<'_>]) -> u32 {
    u32::try_from(records.len()).unwrap_or(u32::MAX)
}
/// How many of the records go into the next frame, at least one.
fn frame_count(records: &[Record<'_>], frame_bytes: u64) -> usize {
    if records.len() == 1 {
        return 1;
    }
    let mut bytes = 0;
    let fitting = records.iter().take_while(|record| {
        bytes += record.encoded_len_max();
        bytes <= frame_bytes
    });
    fitting.count().max(1)
}
