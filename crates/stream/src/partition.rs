//! One partition: a log that is opened when somebody uses it and closed again when nobody does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use logmill_storage::{
    AppendOptions, Appended, Batch, BeforeRemoval, CompactionReport, Corruption, Durability, Log,
    LogStats, Reader, Record, RecordBuf, RecordView, RecoveryReport, Ticket, Visibility, Wake,
};
use parking_lot::Mutex;

use crate::binding;
use crate::compactor::Compacted;
use crate::config::TimestampType;
use crate::entry::{Entry, LogId};
use crate::error::{Error, Result};
use crate::producer::remember_sequences;
use crate::shared::Shared;
use crate::signal::Signal;
use crate::topic::TopicCore;
use crate::{PartitionId, TopicPartition};

#[cfg(feature = "tokio")]
mod asynchronous;

/// How often a process that only reads looks for what the writer has appended or made.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An open log. As long as somebody else has one, it is not closed for being idle.
#[derive(Debug)]
pub(crate) struct OpenLog {
    log: Log,
    id: PartitionId,
    shared: Weak<Shared>,
    /// The topic's settings, counted, when the log was opened: how readers see it goes by these.
    opened_with: u64,
    /// Those that its appends and segments go by.
    settings_version: AtomicU64,
    /// It was poisoned, and has been closed under the hands of whoever has it: the next use opens it anew.
    is_given_up: AtomicBool,
}

impl std::ops::Deref for OpenLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

/// The records that retention is about to remove may be the last that say how far a named producer came.
impl BeforeRemoval for OpenLog {
    fn before_removal(&self) -> logmill_storage::Result<()> {
        let path = PathBuf::from(PartitionCore::log_name(self.id));
        let Some(shared) = self.shared.upgrade() else {
            return Err(logmill_storage::Error::Closed { path });
        };
        remember_sequences(&shared, self.id, self).map_err(|error| match error {
            Error::Storage(error) => error,
            other => {
                let source = std::io::Error::other(other.to_string());
                logmill_storage::Error::Io { op: "note the producers of", path, source }
            }
        })
    }
}

impl OpenLog {
    /// Goes by the topic's settings of now, as far as an open log can.
    fn follow(&self, topic: &TopicCore) -> Result<()> {
        if self.settings_version.load(Ordering::Relaxed) != topic.settings_version() {
            let (version, config) = topic.log_config();
            self.log.set_config(&config)?;
            self.settings_version.store(version, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether what it shows is all that it will ever show, and the partition has another by now, or will.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// The log itself. It may be closed for being idle while somebody has this.
    pub(crate) fn clone_log(&self) -> Log {
        self.log.clone()
    }

    /// Shows `look` the record at `offset`, stored or durable; `None` if it is gone.
    pub(crate) fn with_record<T>(
        &self,
        offset: u64,
        look: impl FnOnce(&RecordView<'_>) -> T,
    ) -> Result<Option<T>> {
        let mut reader = self.log.reader_with(offset, Visibility::Stored)?;
        let Some(batch) = reader.next_batch()? else { return Ok(None) };
        match batch.records().next() {
            Some(Ok(record)) if record.offset == offset => Ok(Some(look(&record))),
            _ => Ok(None),
        }
    }
}

#[derive(Debug)]
enum Slot {
    Closed,
    Open(Arc<OpenLog>),
    /// The topic was deleted, or the store is closed.
    Gone,
}

/// What all handles of a partition share.
pub(crate) struct PartitionCore {
    pub(crate) id: PartitionId,
    slot: Mutex<Slot>,
    /// When retention was last looked at while the log was closed, in seconds of the store's monotonic clock.
    visited_s: AtomicU64,
    /// The journal knows that there is a log: if its directory is gone, it is lost.
    is_made: AtomicBool,
    /// Which log it is, if the journal knows that too: another in its place is not opened.
    log_id: OnceLock<LogId>,
    /// Held while the journal is told so.
    telling: Mutex<()>,
    /// What the last compaction left, and when the compactor last looked.
    pub(crate) compacted: Mutex<Option<Compacted>>,
    pub(crate) visited_to_compact: Mutex<Option<Duration>>,
    /// Set by each use and cleared by the sweep: what it finds cleared was idle since the sweep before.
    used: AtomicBool,
    /// Who wants to know of appends. They outlive the log, which may be closed and opened again.
    wakers: Mutex<Vec<Weak<dyn Wake>>>,
}

impl std::fmt::Debug for PartitionCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionCore").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Wake for PartitionCore {
    fn wake(&self) {
        self.wakers.lock().retain(|waker| match waker.upgrade() {
            Some(waker) => {
                waker.wake();
                true
            }
            None => false,
        });
    }
}

impl PartitionCore {
    pub(crate) fn new(id: PartitionId) -> Arc<PartitionCore> {
        Arc::new(PartitionCore {
            id,
            slot: Mutex::new(Slot::Closed),
            visited_s: AtomicU64::new(0),
            is_made: AtomicBool::new(false),
            log_id: OnceLock::new(),
            telling: Mutex::new(()),
            compacted: Mutex::new(None),
            visited_to_compact: Mutex::new(None),
            used: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
        })
    }

    /// The name of its log.
    pub(crate) fn log_name(id: PartitionId) -> String {
        format!("{}/{}", id.topic, id.partition)
    }

    /// The partition whose log has this name.
    pub(crate) fn parse_log_name(name: &str) -> Option<PartitionId> {
        let (topic, partition) = name.split_once('/')?;
        Some(PartitionId { topic: topic.parse().ok()?, partition: partition.parse().ok()? })
    }

    pub(crate) fn on_append(&self, waker: Weak<dyn Wake>) {
        let mut wakers = self.wakers.lock();
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(waker);
    }

    /// Notes that the journal knows of a log, and perhaps which.
    pub(crate) fn set_made(&self, log_id: Option<LogId>) {
        if let Some(id) = log_id {
            let _ = self.log_id.set(id);
        }
        self.is_made.store(true, Ordering::Release);
    }

    /// Whether there is a log on the disk: a partition has none before its first use.
    pub(crate) fn has_log(&self, shared: &Shared) -> Result<bool> {
        Ok(shared.dir.has_log(&PartitionCore::log_name(self.id))?)
    }

    /// Whether there is no log and never was one.
    fn is_unused(&self, shared: &Shared) -> Result<bool> {
        let is_closed = matches!(*self.slot.lock(), Slot::Closed);
        Ok(is_closed && !self.is_made.load(Ordering::Acquire) && !self.has_log(shared)?)
    }

    /// The log, opened if it is not. The journal knows of it by then.
    pub(crate) fn log(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        topic: &TopicCore,
    ) -> Result<Arc<OpenLog>> {
        let log = self.log_untold(shared, topic)?;
        if self.log_id.get().is_none() && !shared.dir.is_read_only() {
            self.tell(shared, &log)?;
        }
        Ok(log)
    }

    /// Journals that there is a log, which is durable by now, and which, so that a loss of its directory is noticed, and
    /// another in its place. Before it has a record this is waited for. Where there are some (its store is from before this
    /// was journaled, or a crash came in between) it can wait for a journal that takes it.
    fn tell(&self, shared: &Shared, log: &OpenLog) -> Result<()> {
        let _once = self.telling.lock();
        if self.log_id.get().is_some() {
            return Ok(());
        }
        let is_first = !self.is_made.load(Ordering::Acquire) && log.end_offset() == 0;
        let level = if is_first { Durability::Sync } else { Durability::Buffered };
        let PartitionId { topic, partition } = self.id;
        let told = shared.change(level, |state| {
            let known = state.topics.get(topic);
            let is_told = known.is_none_or(|topic| topic.log_id(partition).is_some());
            let named = Entry::LogsNamed { topic, logs: vec![(partition, log.id())] }.encoded();
            Ok((if is_told { Vec::new() } else { vec![named] }, ()))
        });
        match told {
            Ok(()) => self.set_made(Some(log.id())),
            Err(error) if is_first => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    /// As [`PartitionCore::log`], for whoever holds a lock that the journal is written under.
    pub(crate) fn log_untold(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        topic: &TopicCore,
    ) -> Result<Arc<OpenLog>> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let mut slot = self.slot.lock();
        match &*slot {
            Slot::Open(open) if open.opened_with == topic.settings_version() => {
                return Ok(Arc::clone(open));
            }
            // Settings changed, and somebody works with the log, which is not opened anew under his hands.
            Slot::Open(open) if Arc::strong_count(open) > 1 => {
                if !shared.dir.is_read_only() {
                    open.follow(topic)?;
                }
                return Ok(Arc::clone(open));
            }
            Slot::Open(_) => close(&mut slot)?,
            Slot::Closed => {}
            Slot::Gone => {
                // What is still to be appended to it can wait, unlike to a topic that is gone.
                shared.check_open()?;
                return Err(Error::UnknownTopic { name: topic.name().into() });
            }
        }
        let (settings_version, config) = topic.log_config();
        let name = PartitionCore::log_name(self.id);
        if self.is_made.load(Ordering::Acquire) {
            binding::check_and_note(&shared.dir, self.id, self.log_id.get().copied())?;
        }
        let log = Log::open(&shared.dir, &name, config)?;
        let waker: Weak<dyn Wake> = Arc::downgrade(&(Arc::clone(self) as Arc<dyn Wake>));
        log.on_append(waker);
        let version = AtomicU64::new(settings_version);
        let open = Arc::new(OpenLog {
            log,
            id: self.id,
            shared: Arc::downgrade(shared),
            opened_with: settings_version,
            settings_version: version,
            is_given_up: AtomicBool::new(false),
        });
        if !shared.dir.is_read_only() {
            let keeper: Weak<dyn BeforeRemoval> =
                Arc::downgrade(&(Arc::clone(&open) as Arc<dyn BeforeRemoval>));
            open.ask_before_removal(keeper)?;
        }
        *slot = Slot::Open(Arc::clone(&open));
        drop(slot);
        shared.open_logs.opened(self);
        Ok(open)
    }

    /// Whether the log is closed, and was not visited for `interval`; it counts as visited from now on.
    pub(crate) fn is_visit_due(&self, now: Duration, interval: Duration) -> bool {
        let visited = Duration::from_secs(self.visited_s.load(Ordering::Relaxed));
        if now.saturating_sub(visited) < interval || !matches!(*self.slot.lock(), Slot::Closed) {
            return false;
        }
        self.visited_s.store(now.as_secs(), Ordering::Relaxed);
        true
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.slot.lock(), Slot::Open(_))
    }

    /// Closes the log if nobody used it since the last call, or if it is poisoned, whoever uses it; says whether it is closed
    /// now.
    pub(crate) fn close_if_idle(&self, even_if_recent: bool) -> Result<bool> {
        let recent = self.used.swap(false, Ordering::Relaxed);
        let mut slot = self.slot.lock();
        match &*slot {
            Slot::Open(open) if open.is_poisoned() => {
                open.is_given_up.store(true, Ordering::Release);
                // Its users have been told, and will be by each other call.
                let _ = close(&mut slot);
                drop(slot);
                // Who waits for records looks for them elsewhere.
                self.wake();
                Ok(true)
            }
            Slot::Open(open) if (recent && !even_if_recent) || Arc::strong_count(open) > 1 => {
                Ok(false)
            }
            Slot::Open(_) => close(&mut slot).map(|()| true),
            Slot::Closed | Slot::Gone => Ok(true),
        }
    }

    /// Closes the log for good, whoever uses it: their next call fails.
    pub(crate) fn retire(&self) -> Result<()> {
        let mut slot = self.slot.lock();
        let closed = match &*slot {
            Slot::Open(open) => open.log.clone().close().map_err(Error::from),
            Slot::Closed | Slot::Gone => Ok(()),
        };
        *slot = Slot::Gone;
        drop(slot);
        // Whoever waits for records learns that none will come.
        self.wake();
        closed
    }
}

fn is_lost<T>(opened: &Result<T>) -> bool {
    let Err(Error::Storage(logmill_storage::Error::Corrupt { what, .. })) = opened else {
        return false;
    };
    // What removes a log begins with its manifest.
    matches!(what, Corruption::LostLog | Corruption::LostManifest)
}

fn close(slot: &mut Slot) -> Result<()> {
    match std::mem::replace(slot, Slot::Closed) {
        Slot::Open(open) => Ok(open.log.clone().close()?),
        Slot::Closed | Slot::Gone => Ok(()),
    }
}

/// One partition of a topic: an ordered log of records.
///
/// A handle is cheap to clone and keeps no file open by itself.
#[derive(Clone, Debug)]
pub struct Partition {
    pub(crate) shared: Arc<Shared>,
    pub(crate) topic: Arc<TopicCore>,
    pub(crate) core: Arc<PartitionCore>,
}

impl Partition {
    /// Its number, from 0.
    pub fn number(&self) -> u32 {
        self.core.id.partition
    }

    /// Its topic's id and its number.
    pub fn id(&self) -> PartitionId {
        self.core.id
    }

    /// Its topic's name and its number.
    pub fn name(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.shared_name(), partition: self.number() }
    }

    pub(crate) fn log(&self) -> Result<Arc<OpenLog>> {
        let opened = self.core.log(&self.shared, &self.topic);
        if self.shared.dir.is_read_only() && is_lost(&opened) {
            // Its topic may have been deleted since the journal was read.
            self.shared.catch_up()?;
            if self.topic.is_deleted() {
                return Err(self.unknown());
            }
        }
        opened
    }

    pub(crate) fn unknown(&self) -> Error {
        Error::UnknownTopic { name: self.topic.name().into() }
    }

    pub(crate) fn has_log(&self) -> bool {
        self.core.has_log(&self.shared).unwrap_or(false)
    }

    /// The log, or `None` if there never was one: then the partition is empty, and does not get a log for being asked.
    pub(crate) fn log_if_made(&self) -> Result<Option<Arc<OpenLog>>> {
        if self.core.is_unused(&self.shared)? && !self.topic.is_deleted() {
            return Ok(None);
        }
        match self.log() {
            Ok(log) => Ok(Some(log)),
            // The writer is about to make it.
            Err(Error::Storage(logmill_storage::Error::Io { source, .. }))
                if self.shared.dir.is_read_only()
                    && source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The offset of the first record that is still there.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] if the topic was deleted; [`Error::Storage`] if the log cannot be opened. So for all
    /// methods here.
    pub fn start_offset(&self) -> Result<u64> {
        Ok(self.log_if_made()?.map_or(0, |log| log.start_offset()))
    }

    /// One past the last offset that was given.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn end_offset(&self) -> Result<u64> {
        Ok(self.log_if_made()?.map_or(0, |log| log.end_offset()))
    }

    /// One past the last offset that readers see: with durability sync what is on the disk, otherwise what is stored.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn high_watermark(&self) -> Result<u64> {
        let Some(log) = self.log_if_made()? else { return Ok(0) };
        log.refresh()?;
        Ok(log.high_watermark())
    }

    /// To go with a position that is kept elsewhere than in a group: see [`Partition::end_of_epoch`]. It rises when a power
    /// loss or a restored backup may have taken records back whose offsets others have then. 0 before the first record.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn epoch(&self) -> Result<u32> {
        Ok(self.log_if_made()?.map_or(0, |log| log.epoch()))
    }

    /// Where an epoch ended, or for the present one, where the partition ends now. A position of `epoch` beyond that
    /// speaks of records that are lost, and to go on there would be to skip new ones.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn end_of_epoch(&self, epoch: u32) -> Result<u64> {
        Ok(self.log_if_made()?.map_or(Ok(0), |log| log.end_of_epoch(epoch))?)
    }

    /// Appends a record and returns its offset when the topic's durability holds for it.
    ///
    /// # Errors
    /// As [`Partition::start_offset`], and what the log refuses; [`Error::KeyMissing`] where the topic is compacted.
    pub fn append(&self, record: &Record<'_>) -> Result<u64> {
        Ok(self.append_batch(std::slice::from_ref(record))?.base_offset)
    }

    /// Appends records, all or none, under consecutive offsets.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub fn append_batch(&self, records: &[Record<'_>]) -> Result<Appended> {
        self.append_with(records, &AppendOptions::default())
    }

    /// As [`Partition::append_batch`], with a durability or a producer for this call.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub fn append_with(&self, records: &[Record<'_>], options: &AppendOptions) -> Result<Appended> {
        let log = self.log()?;
        let (stamped, options) = self.prepare(records, options)?;
        log.append_with(stamped.as_deref().unwrap_or(records), &options)
            .map_err(|error| self.met(error))
    }

    /// Appends records in order and returns before their durability holds: the ticket waits for it.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub fn submit(&self, records: &[Record<'_>], options: &AppendOptions) -> Result<Ticket> {
        let log = self.log()?;
        let (stamped, options) = self.prepare(records, options)?;
        log.submit(stamped.as_deref().unwrap_or(records), &options).map_err(|error| self.met(error))
    }

    /// What a log says that was closed under the caller's hands, because its topic was deleted.
    fn met(&self, error: logmill_storage::Error) -> Error {
        match error {
            logmill_storage::Error::Closed { .. } if self.topic.is_deleted() => self.unknown(),
            error => error.into(),
        }
    }

    /// What the topic makes of an append by its settings of now (the log may have been opened under others): the records
    /// with the time of the append, where it wants that, and the durability.
    fn prepare<'a>(
        &self,
        records: &[Record<'a>],
        options: &AppendOptions,
    ) -> Result<(Option<Vec<Record<'a>>>, AppendOptions)> {
        let settings = self.topic.settings();
        if settings.cleanup.compacts()
            && let Some(index) = records.iter().position(|record| !record.has_key())
        {
            return Err(Error::KeyMissing { partition: self.name(), index });
        }
        let stamped = match settings.timestamps {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => {
                let now = self.shared.dir.clock().wall_ms();
                Some(records.iter().map(|record| record.timestamp(now)).collect())
            }
        };
        let durability = options.durability.unwrap_or(settings.durability);
        Ok((stamped, AppendOptions { durability: Some(durability), ..*options }))
    }

    /// Makes everything that was appended so far durable; returns the offset up to which it is.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub fn sync(&self) -> Result<u64> {
        self.log()?.sync().map_err(|error| self.met(error))
    }

    /// Does now what the background does in time: makes everything durable and seals what is full.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub fn settle(&self) -> Result<()> {
        self.log()?.settle().map_err(|error| self.met(error))
    }

    /// A reader of this partition alone, from `from` on, which belongs to no group.
    ///
    /// # Errors
    /// As [`Partition::start_offset`]; `from` must lie between the start offset and the high watermark.
    pub fn reader(&self, from: u64) -> Result<PartitionReader> {
        let mut reader = PartitionReader { partition: self.clone(), place: None, from };
        reader.place()?;
        Ok(reader)
    }

    /// The record at `offset`; `None` if compaction took it.
    ///
    /// # Errors
    /// As [`Partition::reader`].
    pub fn get(&self, offset: u64) -> Result<Option<RecordBuf>> {
        match self.log_if_made()? {
            Some(log) => Ok(log.get(offset)?),
            None => Err(empty(offset)),
        }
    }

    /// Records from `from` on, at least one if there is one, and then as long as they are at most `bytes_max` together:
    /// keys, values, headers, and a little for each record.
    ///
    /// # Errors
    /// As [`Partition::reader`].
    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<RecordBuf>> {
        match self.log_if_made()? {
            Some(log) => Ok(log.read(from, bytes_max)?),
            None if from == 0 => Ok(Vec::new()),
            None => Err(empty(from)),
        }
    }

    /// The offset of the first record with a timestamp of at least `ms` (since 1970), if there is one.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn offset_for_timestamp(&self, ms: i64) -> Result<Option<u64>> {
        match self.log_if_made()? {
            Some(log) => Ok(log.offset_for_timestamp(ms)?),
            None => Ok(None),
        }
    }

    /// Waits until readers see `offset`, at most for `timeout`; says whether they do.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn wait_for(&self, offset: u64, timeout: Duration) -> Result<bool> {
        let clock = self.shared.dir.clock();
        let deadline = clock.monotonic().saturating_add(timeout);
        let mut signal: Option<Arc<Signal>> = None;
        loop {
            let now = clock.monotonic();
            if let Some(log) = self.log_if_made()? {
                // Where nobody tells of appends, the log looks for itself.
                let is_told = self.is_told_of_appends();
                let left = if is_told { Duration::ZERO } else { deadline.saturating_sub(now) };
                if log.wait_for(offset, left)? {
                    return Ok(true);
                }
            }
            match &signal {
                _ if now >= deadline => return Ok(false),
                Some(signal) => signal.wait_until(&**clock, self.next_look(now, deadline)),
                // An append may have come just before.
                None => signal = Some(self.signal()),
            }
        }
    }

    /// Somewhere to wait for appends, and for the end of the topic.
    fn signal(&self) -> Arc<Signal> {
        let signal = Arc::new(Signal::default());
        let waker: Arc<dyn Wake> = Arc::<Signal>::clone(&signal);
        self.core.on_append(Arc::downgrade(&waker));
        signal
    }

    /// Nobody tells a process that only reads.
    fn is_told_of_appends(&self) -> bool {
        !self.shared.dir.is_read_only()
    }

    /// Until when somebody waits for the signal.
    fn next_look(&self, now: Duration, deadline: Duration) -> Duration {
        match self.is_told_of_appends() {
            true => deadline,
            false => deadline.min(now.saturating_add(LOOK_AGAIN)),
        }
    }

    /// Removes every record before `offset`, for consumers and new readers at once, from the disk by whole segments; returns
    /// the new start offset. A reader that is open finishes the segment that it is in. An offset beyond the high watermark
    /// counts as the high watermark.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn delete_records_before(&self, offset: u64) -> Result<u64> {
        let log = self.log()?;
        remember_sequences(&self.shared, self.id(), &log)?;
        let start = log.delete_records_before(offset.min(log.high_watermark()))?;
        // Whoever waits at a limit may have to pass over what is gone.
        self.core.wake();
        Ok(start)
    }

    /// What was found when the partition's log was opened last: whether it had been closed, and what a crash left behind
    /// its end. `None` if nothing was ever appended.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn recovery(&self) -> Result<Option<RecoveryReport>> {
        Ok(self.log_if_made()?.map(|log| log.recovery().clone()))
    }

    /// Removes the segments that retention no longer keeps, now and not when the background comes to it; returns the new
    /// start offset.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn apply_retention(&self) -> Result<u64> {
        let Some(log) = self.log_if_made()? else { return Ok(0) };
        let start = log.apply_retention()?;
        self.core.wake();
        Ok(start)
    }

    /// Keeps of all records of a key the latest, over all sealed segments, whatever the topic's cleanup policy says. The
    /// background does so by itself where that is `compact`, when half of the partition is new.
    ///
    /// # Errors
    /// As [`Partition::start_offset`]; [`Error::Storage`] on a full disk: older segments may have been compacted, the rest
    /// is as it was.
    /// # Cost
    /// Reads the sealed segments two or three times, and writes what changes. Appends and reads go on.
    pub fn compact(&self) -> Result<CompactionReport> {
        let log = self.log()?;
        remember_sequences(&self.shared, self.id(), &log)?;
        let report = log.compact()?;
        self.note_compacted(report.is_idle())?;
        Ok(report)
    }

    /// Figures about the partition's log.
    ///
    /// # Errors
    /// As [`Partition::start_offset`].
    pub fn stats(&self) -> Result<LogStats> {
        Ok(self.log()?.stats()?)
    }
}

/// What a log without records says of any offset but 0.
fn empty(offset: u64) -> Error {
    Error::Storage(logmill_storage::Error::OffsetOutOfRange { offset, start: 0, end: 0 })
}

/// Reads one partition in order, outside of any group. While it exists the partition's log stays open.
#[derive(Debug)]
pub struct PartitionReader {
    partition: Partition,
    place: Option<(Reader, Arc<OpenLog>)>,
    /// Where to begin once there is a log.
    from: u64,
}

impl PartitionReader {
    fn place(&mut self) -> Result<Option<&mut Reader>> {
        if let Some((reader, log)) = &self.place
            && log.is_given_up()
        {
            (self.from, self.place) = (reader.position(), None);
        }
        if self.place.is_none() {
            match self.partition.log_if_made()? {
                Some(log) => self.place = Some((log.reader(self.from)?, log)),
                None if self.from == 0 => {}
                None => return Err(empty(self.from)),
            }
        }
        Ok(self.place.as_mut().map(|(reader, _)| reader))
    }

    /// The next batch of records, or `None` at the high watermark. The first may begin in the middle of a batch.
    ///
    /// # Errors
    /// [`Error::Storage`]: corrupt, or removed by retention.
    pub fn next_batch(&mut self) -> Result<Option<Batch<'_>>> {
        match self.place()? {
            Some(reader) => Ok(reader.next_batch()?),
            None => Ok(None),
        }
    }

    /// As [`PartitionReader::next_batch`], and waits for one at most for `timeout`.
    ///
    /// # Errors
    /// As [`PartitionReader::next_batch`].
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<Batch<'_>>> {
        self.partition.wait_for(self.position(), timeout)?;
        self.next_batch()
    }

    /// The next offset that it will read.
    pub fn position(&self) -> u64 {
        self.place.as_ref().map_or(self.from, |(reader, _)| reader.position())
    }

    /// One past the last offset that it sees now.
    ///
    /// # Errors
    /// As [`Partition::high_watermark`].
    pub fn high_watermark(&self) -> Result<u64> {
        self.partition.high_watermark()
    }

    /// Goes to `offset`, forwards or backwards.
    ///
    /// # Errors
    /// [`Error::Storage`] if the offset is not there.
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        match self.place()? {
            Some(reader) => Ok(reader.seek(offset)?),
            None if offset == 0 => Ok(()),
            None => Err(empty(offset)),
        }
    }
}
