//! A log: what it is made of is elsewhere; here is how it is opened, and its face.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::batch::RecordBuf;
use crate::compaction::{self, CompactionReport, CompactionStep};
use crate::config::{Durability, LogConfig, Visibility};
use crate::data_dir::{DataDir, is_log_name};
use crate::error::{Corruption, Error, Result};
use crate::events;
use crate::follower::Follower;
use crate::io::Open;
use crate::layout::{Manifest, Proven, State};
use crate::live_page;
use crate::manifest::{self, ManifestFile};
use crate::planted::{self, Bug};
use crate::producers::{Producers, SNAPSHOT_MAX};
use crate::reader::Reader;
use crate::record::Record;
use crate::recovery::{self, Known, RecoveryReport, Scan, Verdict};
use crate::retention::BeforeRemoval;
use crate::segment::{self, Segment};
use crate::sync::Mutex;
use crate::tail::Wake;
use crate::ticket::{SyncTicket, Ticket};
use crate::view::{Bounds, View};
use crate::writer::{AppendOptions, Appended, Start, Writer};

/// How many readers are kept for `get`.
const READERS: usize = 8;

/// An append-only log of records in segment files. Clones share it; every method may be called from any thread.
///
/// Dropping the last clone without [`close`](Log::close) is as a crash of the process: nothing that was acknowledged is
/// lost, and the next open has to look at the log's tail.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: Arc<View>,
    /// `None` if the directory was opened for reading only.
    writer: Option<Arc<Writer>>,
    report: RecoveryReport,
    readers: Arc<Mutex<Vec<Reader>>>,
    compaction: Mutex<compaction::Memory>,
    /// After all else, so that what it waits for is not waiting for us.
    _dir: DataDir,
}

/// Numbers about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// The first offset that is there.
    pub start_offset: u64,
    /// The next offset to be given.
    pub end_offset: u64,
    /// Every offset below is durable.
    pub durable_offset: u64,
    /// The log epoch.
    pub epoch: u32,
    /// Segments, the active one included.
    pub segments: usize,
    /// Bytes of all segment files, reservations included.
    pub bytes: u64,
    /// Syncs of data since the log was opened; one serves all appends that it covers.
    pub syncs: u64,
    /// Why the log is poisoned, or what the background could not do at its last try.
    pub failure: Option<String>,
}

impl Log {
    /// Opens the log `name`, one or two numbers such as `0` or `7/3`, in `dir`, and makes it if it is not there (but no
    /// segment file before the first append). After a crash this recovers: see [`recovery`](Log::recovery).
    ///
    /// Where `dir` is open for reading only, a log whose durable records are damaged is opened all the same: what comes before
    /// the damage can be read, and whoever reads on, or asks for what is behind it, gets [`Error::Corrupt`].
    ///
    /// # Errors
    /// [`Error::Corrupt`]: durable records are damaged; nothing was changed. [`Error::Ambiguous`] in strict mode.
    /// [`Error::InvalidConfig`], [`Error::InvalidName`], [`Error::NotAFile`], [`Error::Io`].
    /// # Cost
    /// Reads what is not proven durable: at most about 16 MiB at the usual settings, whatever the size of the log.
    pub fn open(dir: &DataDir, name: &str, config: LogConfig) -> Result<Log> {
        config.validate()?;
        if !is_log_name(name) {
            return Err(Error::InvalidName { name: name.to_owned() });
        }
        let _span = events::opening(Path::new(name));
        let inner = if dir.is_read_only() {
            let inner = Inner::follow(dir, Path::new(name), &config)?;
            if inner.report.verdict != Verdict::Clean {
                dir.note_recovery(name, &inner.report);
            }
            inner
        } else {
            let began = dir.clock().monotonic();
            let inner = Inner::open(dir, Path::new(name), config)?;
            if !inner.report.clean {
                dir.counters().recovered(dir.clock().monotonic().saturating_sub(began));
                dir.note_recovery(name, &inner.report);
            }
            events::opened(&inner.view.path, &inner.report);
            // An earlier life of the log may have ended badly.
            dir.note(&format!("log {name}"), &Ok::<(), Error>(()));
            inner
        };
        Ok(Log { inner: Arc::new(inner) })
    }

    pub(crate) fn writer(&self) -> Result<&Arc<Writer>> {
        self.inner.writer.as_ref().ok_or_else(|| Error::ReadOnly { path: self.inner.view.shown() })
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.inner.view
    }

    /// Appends one record and returns its offset.
    ///
    /// With [`Durability::Sync`], `Ok` means that the record survives power loss; with the other levels, that it survives
    /// kill -9.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::RecordTooLarge`]: nothing was appended. [`Error::OutcomeUnknown`]: the record may or
    /// may not be there after reopening. [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`].
    /// # Cost
    /// A copy into the page cache; with `Sync` one sync, shared by all who wait at the time.
    #[inline]
    pub fn append(&self, record: &Record<'_>) -> Result<u64> {
        self.append_with(std::slice::from_ref(record), &AppendOptions::default())
            .map(|appended| appended.base_offset)
    }

    /// Appends a batch: all of it or nothing, whatever happens and whatever its size, with consecutive offsets.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`Error::EmptyBatch`].
    pub fn append_batch(&self, records: &[Record<'_>]) -> Result<Appended> {
        self.append_with(records, &AppendOptions::default())
    }

    /// As [`append_batch`](Self::append_batch), with a durability or a producer of its own.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`Error::InvalidProducer`], [`Error::OutOfOrderSequence`],
    /// [`Error::ProducerFenced`].
    #[inline]
    pub fn append_with(&self, records: &[Record<'_>], options: &AppendOptions) -> Result<Appended> {
        let writer = self.writer()?;
        if writer.level(options) != Durability::Sync {
            return writer.append(records, options);
        }
        let appended = writer.append(records, options)?;
        writer.wait_durable(appended.claim())?;
        Ok(appended)
    }

    /// Gives the batch its place and returns at once; the ticket is waited for when the acknowledgement is wanted. This is
    /// how one thread keeps many synced appends on their way. Tickets may be waited for in any order.
    ///
    /// # Errors
    /// As [`append_with`](Self::append_with).
    pub fn submit(&self, records: &[Record<'_>], options: &AppendOptions) -> Result<Ticket> {
        let writer = self.writer()?;
        let appended = writer.append(records, options)?;
        let claim = (writer.level(options) == Durability::Sync).then_some(appended.claim());
        Ok(Ticket::new(Arc::clone(writer), self.clone(), appended, claim))
    }

    /// Makes everything durable that was appended before the call, and returns the durable offset.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: the sync failed. [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`].
    pub fn sync(&self) -> Result<u64> {
        self.writer()?.sync()
    }

    /// As [`sync`](Self::sync), without blocking: the ticket is a future that needs no runtime.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`].
    pub fn submit_sync(&self) -> Result<SyncTicket> {
        let writer = self.writer()?;
        Ok(SyncTicket::new(Arc::clone(writer), self.clone(), writer.claim_all()?))
    }

    /// The first offset that is there.
    pub fn start_offset(&self) -> u64 {
        self.inner.view.start()
    }

    /// The next offset to be given. What lies between the high watermark and here is on its way.
    pub fn end_offset(&self) -> u64 {
        self.inner
            .writer
            .as_ref()
            .map_or_else(|| self.inner.view.stored(), |writer| writer.end_offset())
    }

    /// Every offset below this survives power loss.
    pub fn durable_offset(&self) -> u64 {
        self.inner.view.durable()
    }

    /// One past the last offset that readers see.
    pub fn high_watermark(&self) -> u64 {
        self.inner.view.high_watermark(Visibility::Level)
    }

    /// The log epoch: it rises when a crash may have taken back what was not durable. A position kept elsewhere is
    /// (epoch, offset).
    pub fn epoch(&self) -> u32 {
        self.inner.view.epoch()
    }

    /// Whether a write or sync has failed, so that nothing can be appended before the log is closed and opened again. What is
    /// durable can be read all the same.
    pub fn is_poisoned(&self) -> bool {
        self.inner.writer.as_ref().is_some_and(|writer| writer.commit().is_poisoned())
    }

    /// The id that it was given when it was made: see [`DataDir::log_id`].
    pub fn id(&self) -> [u8; 16] {
        self.inner.view.log_id
    }

    /// A reader that begins at `from`.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] unless `from` is between the start offset and the high watermark, inclusive.
    pub fn reader(&self, from: u64) -> Result<Reader> {
        self.reader_with(from, Visibility::Level)
    }

    /// As [`reader`](Self::reader), seeing more or less than the log's level calls done.
    ///
    /// # Errors
    /// As [`reader`](Self::reader).
    pub fn reader_with(&self, from: u64, visibility: Visibility) -> Result<Reader> {
        Reader::new(Arc::clone(&self.inner.view), visibility, from)
    }

    /// The record at `offset`; `None` if compaction has removed it.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`], [`Error::Corrupt`], [`Error::Io`].
    /// # Cost
    /// One look-up in the index and one verified read of the batch; less if `offset` follows close on the last one.
    pub fn get(&self, offset: u64) -> Result<Option<RecordBuf>> {
        self.with_reader(|reader| {
            if offset >= reader.high_watermark() {
                return Err(self.inner.view.out_of_range(offset, Visibility::Level));
            }
            reader.get(offset)
        })
    }

    /// Records from `from` on, at least one if there is one, and then as long as they are at most `bytes_max` together:
    /// keys, values, headers, and a little for each record, so that empty ones do not fill the memory.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<RecordBuf>> {
        self.with_reader(|reader| {
            reader.seek(from)?;
            let (mut records, mut bytes) = (Vec::new(), 0usize);
            while records.is_empty() || bytes < bytes_max {
                let shown = self.inner.view.shown();
                let Some(batch) = reader.next_batch()? else { break };
                let base_offset = batch.base_offset();
                for record in batch.records() {
                    let record = record.map_err(|what| Error::Corrupt {
                        path: shown.clone(),
                        position: 0,
                        offset: base_offset,
                        what,
                    })?;
                    let record = RecordBuf::from(record);
                    bytes = bytes.saturating_add(record.len_in_memory());
                    if bytes > bytes_max && !records.is_empty() {
                        return Ok(records);
                    }
                    records.push(record);
                }
            }
            Ok(records)
        })
    }

    /// The first offset whose record has a timestamp of at least `ms`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    /// # Cost
    /// A look-up in the time index, then a scan of at most 64 KiB if timestamps rise.
    pub fn offset_for_timestamp(&self, ms: i64) -> Result<Option<u64>> {
        let view = &self.inner.view;
        let segments = view.segments();
        for (i, segment) in segments.iter().enumerate() {
            let file = segment.open(Open::Read)?;
            let footer = segment.footer(file.as_ref())?;
            if footer.is_some_and(|footer| footer.max_timestamp < ms) {
                continue;
            }
            let limit = footer.map_or(u64::MAX, |footer| footer.data_end);
            let until = segments.get(i + 1).map_or(u64::MAX, |next| next.base_offset());
            let end = until.min(view.high_watermark(Visibility::Level));
            let from = segment.offset_before_time(&file, ms, limit, end)?.max(view.start());
            if let Some(offset) = self.first_at_or_after(from, until, ms)? {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    fn first_at_or_after(&self, from: u64, until: u64, ms: i64) -> Result<Option<u64>> {
        let view = &self.inner.view;
        if from >= view.high_watermark(Visibility::Level) {
            return Ok(None);
        }
        self.with_reader(|reader| {
            reader.seek(from)?;
            while reader.position() < until {
                let Some(batch) = reader.next_batch()? else { break };
                if batch.max_timestamp() < ms {
                    continue;
                }
                for record in batch.records() {
                    let record = record.map_err(|what| Error::Corrupt {
                        path: view.shown(),
                        position: 0,
                        offset: batch.base_offset(),
                        what,
                    })?;
                    if record.timestamp >= ms {
                        return Ok(Some(record.offset));
                    }
                }
            }
            Ok(None)
        })
    }

    fn with_reader<T>(&self, work: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
        let kept = self.inner.readers.lock().pop();
        let mut reader = kept
            .unwrap_or_else(|| Reader::unplaced(Arc::clone(&self.inner.view), Visibility::Level));
        let result = work(&mut reader);
        let mut readers = self.inner.readers.lock();
        reader.leave_removed();
        if result.is_ok() && readers.len() < READERS {
            readers.push(reader);
        }
        result
    }

    /// Blocks until the high watermark is above `offset` or `timeout` has passed, and returns which. Wakes without polling
    /// (a log of another process is looked at every 10 ms).
    ///
    /// # Errors
    /// For a log of another process: as [`open`](Self::open).
    pub fn wait_for(&self, offset: u64, timeout: Duration) -> Result<bool> {
        self.inner.view.wait_for(offset, Visibility::Level, timeout)
    }

    /// Looks for what another process has appended; needless for the writer's own process.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn refresh(&self) -> Result<()> {
        match &self.inner.view.follower {
            Some(follower) => follower.refresh(&self.inner.view),
            None => Ok(()),
        }
    }

    /// Calls `waker` whenever the high watermark has moved, as long as it lives.
    pub fn on_append(&self, waker: Weak<dyn Wake>) {
        self.inner.view.on_append(waker);
    }

    /// Has `keeper` asked before retention removes records, as long as the log is open. If it is dropped before, retention
    /// removes nothing any more. The first call counts; [`Log::delete_records_before`] asks nobody.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn ask_before_removal(&self, keeper: Weak<dyn BeforeRemoval>) -> Result<()> {
        self.writer()?.set_keeper(keeper);
        Ok(())
    }

    /// Removes all records below `offset`, durably, and returns the new start offset. Whole segments give their space back;
    /// open readers of a removed segment finish it.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] if `offset` is above the end; [`Error::Io`], [`Error::Poisoned`].
    pub fn delete_records_before(&self, offset: u64) -> Result<u64> {
        self.writer()?.delete_before(offset)
    }

    /// Removes now what [`LogConfig::retention`] says, and returns the start offset. The background does the same after
    /// appends, and once a minute where there is a limit of age.
    ///
    /// Whole segments go, oldest first, up to the first that stays, as in Kafka; the active one stays. The age of a segment
    /// is that of its latest timestamp, so a record from the future keeps its segment and all after it. A clock that jumps
    /// back removes nothing. Open readers of a removed segment finish it.
    ///
    /// # Errors
    /// As [`delete_records_before`](Self::delete_records_before).
    /// # Cost
    /// Nothing for what stays, but for one look at each segment's footer after opening.
    pub fn apply_retention(&self) -> Result<u64> {
        let writer = self.writer()?;
        writer.settle()?;
        crate::retention::apply(writer)
    }

    /// Keeps of all records of a key the latest, over all sealed segments; the active one is left alone. Offsets and order
    /// stay as they are. Small adjacent segments become one. Appends and reads go on meanwhile.
    ///
    /// A tombstone stays for [`CompactionConfig::tombstone_retention`](crate::CompactionConfig) after the first compaction
    /// that meets it. Records without a key stay (Kafka refuses them in a compacted topic). Of each of the last five batches
    /// of an idempotent producer at least one record stays, so that a retry is recognised.
    ///
    /// Readers that are in a segment which is replaced finish it as it was. `Ok` with [`CompactionReport::is_idle`] means
    /// that nothing was there to be removed, and nothing was written.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: a sealed segment is damaged, nothing was changed. [`Error::DiskFull`], [`Error::Io`]: older
    /// segments may have been compacted, the rest is as it was. [`Error::Poisoned`], [`Error::Closed`],
    /// [`Error::ReadOnly`].
    /// # Cost
    /// Reads all sealed segments two times, and once more for each [`CompactionConfig::memory_bytes`](crate::CompactionConfig)
    /// of new keys, and writes what changes, which is read once before it takes the place of anything. Memory: that much,
    /// and a bit for each record. A log whose sealed segments are as the last compaction of this process left them is not
    /// read at all.
    pub fn compact(&self) -> Result<CompactionReport> {
        let _span = events::compacting(&self.inner.view.path);
        let writer = self.writer()?;
        let report = compaction::run(writer, &mut self.inner.compaction.lock());
        // Kept readers would keep the space of what was replaced.
        self.inner.readers.lock().clear();
        report
    }

    /// As [`compact`](Self::compact), a part at a time: goes on with the compaction that was begun so, or begins one, and
    /// returns when at least `bytes` of segments were read, or it is done. Whoever wants to bound the rate rests in between.
    ///
    /// # Errors
    /// As [`compact`](Self::compact); then the next call begins anew.
    /// # Cost
    /// One segment more than `bytes` at most. What a compaction holds in memory, and open, it holds from its first step to
    /// its last.
    pub fn compact_step(&self, bytes: u64) -> Result<CompactionStep> {
        let _span = events::compacting(&self.inner.view.path);
        let step = compaction::step(self.writer()?, &mut self.inner.compaction.lock(), bytes);
        if !matches!(step, Ok(CompactionStep { report: None, .. })) {
            self.inner.readers.lock().clear();
        }
        step
    }

    /// Takes over from `config` what may change while the log is open: compression, the size and age of segments, the
    /// largest record, retention and compaction. What is in the log stays as it is; the active segment goes by its old size.
    /// The rest of `config` counts at the next open.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::ReadOnly`]. Then nothing changes.
    pub fn set_config(&self, config: &LogConfig) -> Result<()> {
        config.validate()?;
        self.writer()?.live_config.set(config);
        Ok(())
    }

    /// Ends the active segment, if it holds anything; the next append begins a new one.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn roll(&self) -> Result<()> {
        self.writer()?.roll()
    }

    /// Does now what the background does in time: syncs, seals, notes what is proven durable, restores the spare.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn settle(&self) -> Result<()> {
        let writer = self.writer()?;
        writer.settle()?;
        writer.ensure_spare()
    }

    /// Has the reserve for a full disk, if the log wants one.
    pub(crate) fn ensure_spare(&self) -> Result<()> {
        self.writer()?.ensure_spare()
    }

    /// The last epoch and sequence number of an idempotent producer.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn last_sequence(&self, producer_id: i64) -> Result<Option<(i16, i32)>> {
        Ok(self.writer()?.last_sequence(producer_id))
    }

    /// The run of sealed segments, oldest first: base offset and bytes.
    pub(crate) fn sealed_stretches(&self) -> Result<Vec<(u64, u64)>> {
        let mut stretches = Vec::new();
        let segments = self.inner.view.segments();
        for segment in segments_from(&segments, self.start_offset()) {
            let file = segment.open(Open::Read)?;
            if segment.footer(file.as_ref())?.is_none() {
                break;
            }
            stretches.push((segment.base_offset(), file.len().map_err(segment.failed("stat"))?));
        }
        Ok(stretches)
    }

    /// Where the run of sealed segments ends.
    pub(crate) fn sealed_end(&self) -> Result<u64> {
        let mut end = self.start_offset();
        let segments = self.inner.view.segments();
        for segment in segments_from(&segments, end) {
            match segment.footer(segment.open(Open::Read)?.as_ref())? {
                Some(footer) => end = footer.end_offset,
                None => break,
            }
        }
        Ok(end)
    }

    /// The offset of the last record that an idempotent producer has appended, as far as the log remembers; retention or
    /// compaction may have removed the record itself.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub fn last_offset_of(&self, producer_id: i64) -> Result<Option<u64>> {
        Ok(self.writer()?.last_offset_of(producer_id))
    }

    /// What opening the log found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Numbers about the log.
    ///
    /// # Errors
    /// [`Error::Io`].
    /// # Cost
    /// The writer asks the system for the size of the active segment alone, and of each other the first time.
    pub fn stats(&self) -> Result<LogStats> {
        let view = &self.inner.view;
        let segments = view.segments();
        let mut bytes = 0;
        // Another process may put other files in their places.
        let is_own = self.inner.writer.is_some();
        for segment in segments.iter() {
            bytes += match segment.known_footer() {
                Some(footer) if is_own => footer.file_len(),
                _ => {
                    let file = segment.open(Open::Read)?;
                    // A damaged one has a size all the same.
                    let _ = segment.footer(file.as_ref());
                    file.len().map_err(segment.failed("stat"))?
                }
            };
        }
        Ok(LogStats {
            start_offset: view.start(),
            end_offset: self.end_offset(),
            durable_offset: view.durable(),
            epoch: view.epoch(),
            segments: segments.len(),
            bytes,
            syncs: self.inner.writer.as_ref().map_or(0, |writer| writer.syncs()),
            failure: self.inner.writer.as_ref().and_then(|writer| writer.failure()),
        })
    }

    /// Makes everything durable, trims the reservation and marks the log as closed, for all its clones: further appends get
    /// [`Error::Closed`], readers go on.
    ///
    /// # Errors
    /// What a sync can return: then the log is as after a crash. [`Error::Poisoned`]: likewise, and it can be opened again,
    /// whoever has clones of it.
    pub fn close(self) -> Result<()> {
        self.inner.readers.lock().clear();
        match &self.inner.writer {
            Some(writer) => writer.close(),
            None => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.drain();
        }
    }
}

impl Inner {
    fn open(dir: &DataDir, name: &Path, config: LogConfig) -> Result<Inner> {
        let (io, root) = (dir.io(), dir.path());
        let claimed = dir.claim(name)?;
        make_directories(dir, name)?;
        let bases = recovery::list_segments(io.as_ref(), root, name)?;
        let mut manifest = match manifest::load(io.as_ref(), name, root, Open::Write)? {
            Some((current, file)) => {
                if bases.is_empty() {
                    // Its maker may have died before the name was durable, and nothing has been synced there since.
                    io.sync_dir(name).map_err(|e| Error::io("sync", root.join(name), e))?;
                }
                ManifestFile::opened(file, root.join(name).join(manifest::NAME), current)
            }
            None => {
                if let Some(base) = bases.first() {
                    return Err(without_manifest(root.join(name).join(manifest::NAME), *base));
                }
                ManifestFile::create(io.as_ref(), name, root, first_manifest(dir)?)?
            }
        };
        let current = manifest.current().clone();
        manifest::check_writable(&current, &root.join(name))?;
        let known = Known {
            io,
            root,
            dir: name,
            manifest: &current,
            live: live_page::load(io.as_ref(), root, name)?,
            from: current.proven,
            strict: config.strict,
            drop_cache: true,
        };
        let closed = known.closed(&bases)?;
        let clean = closed.is_some();
        let mut scan = match closed {
            Some(scan) => scan,
            None => known.scan(&bases)?,
        };
        let mut report = report(clean, &current, &scan);
        if clean {
            for base in &scan.obsolete {
                recovery::remove_segment(io.as_ref(), root, name, *base)?;
            }
        } else {
            let behind = scan.rest_bytes + scan.later_bytes;
            let dropped = if scan.verdict == Verdict::Clean { 0 } else { behind };
            report.quarantined = recovery::apply(&known, &mut scan)?;
            report.dropped_bytes = dropped;
            if planted::has(Bug::OffsetReused) && dropped > 0 {
                scan.end.offset = scan.end.offset.saturating_sub(1);
            }
            report.epoch = if planted::has(Bug::EpochKept) { scan.epoch } else { scan.epoch + 1 };
            manifest.store(|m| {
                m.epoch = report.epoch;
                m.state = State::Clean;
                m.proven = scan.end;
            })?;
        }
        let proven = current.proven;
        if let Some(holder) = scan.segments.iter().find(|s| s.base_offset() == proven.segment) {
            holder.set_landmark(proven.offset, proven.position);
        }
        let bounds = Bounds {
            start: current.start_offset,
            stored: scan.end.offset,
            durable: scan.end.offset,
            epoch: report.epoch,
        };
        let view = Arc::new(View::new(
            dir.unused(),
            name.to_owned(),
            current.log_id,
            scan.segments,
            bounds,
            config.shows_durable_only(),
            None,
        ));
        let resume = match scan.unsealed.last() {
            Some(last) if scan.end.segment == last.segment.base_offset() => scan.unsealed.pop(),
            _ => None,
        };
        let start = Start {
            end: scan.end,
            resume,
            retired: scan.unsealed,
            producers: load_producers(&view, scan.end.offset, current.has_producers)?,
            kept_readers: Arc::default(),
        };
        let readers = Arc::clone(&start.kept_readers);
        let has_unsealed = !start.retired.is_empty();
        let writer = Writer::new(Arc::clone(&view), config, manifest, start, claimed);
        if has_unsealed {
            writer.request(Duration::ZERO);
        }
        writer.watch_age();
        writer.ensure_spare().or_else(|e| match e {
            // The reserve can wait for space.
            Error::DiskFull { .. } => Ok(()),
            e => Err(e),
        })?;
        Ok(Inner {
            view,
            writer: Some(writer),
            report,
            readers,
            compaction: Mutex::default(),
            _dir: dir.clone(),
        })
    }

    fn follow(dir: &DataDir, name: &Path, config: &LogConfig) -> Result<Inner> {
        let (io, root) = (dir.io(), dir.path());
        let path = root.join(name).join(manifest::NAME);
        let Some((current, _)) = manifest::load(io.as_ref(), name, root, Open::Read)? else {
            // A log that its writer is removing loses its manifest first.
            if !dir.writer_is_alive()?
                && let Some(base) = recovery::list_segments(io.as_ref(), root, name)
                    .ok()
                    .and_then(|bases| bases.first().copied())
            {
                return Err(without_manifest(path, base));
            }
            return Err(Error::Io {
                op: "open",
                path,
                source: std::io::ErrorKind::NotFound.into(),
            });
        };
        let bounds =
            Bounds { start: current.start_offset, stored: 0, durable: 0, epoch: current.epoch };
        let view = Arc::new(View::new(
            dir.unused(),
            name.to_owned(),
            current.log_id,
            Vec::new(),
            bounds,
            config.shows_durable_only(),
            Some(Follower::default()),
        ));
        let mut report = RecoveryReport {
            clean: false,
            verdict: Verdict::Clean,
            end_offset: 0,
            epoch: current.epoch,
            proven_offset: current.proven.offset,
            scanned_bytes: 0,
            dropped_bytes: 0,
            quarantined: Vec::new(),
        };
        if let Some(follower) = &view.follower {
            follower.refresh(&view)?;
            report.verdict = follower.verdict();
        }
        report.end_offset = view.stored();
        Ok(Inner {
            view,
            writer: None,
            report,
            readers: Arc::default(),
            compaction: Mutex::default(),
            _dir: dir.clone(),
        })
    }
}

fn without_manifest(path: PathBuf, first: u64) -> Error {
    Error::Corrupt { path, position: 0, offset: first, what: Corruption::LostManifest }
}

fn report(clean: bool, manifest: &Manifest, scan: &Scan) -> RecoveryReport {
    RecoveryReport {
        clean,
        verdict: scan.verdict,
        end_offset: scan.end.offset,
        epoch: manifest.epoch,
        proven_offset: manifest.proven.offset,
        scanned_bytes: scan.scanned_bytes,
        dropped_bytes: 0,
        quarantined: Vec::new(),
    }
}

/// Makes the log's directory, and makes its name durable before anything in it is acknowledged.
pub(crate) fn make_directories(dir: &DataDir, name: &Path) -> Result<()> {
    let io = dir.io();
    let mut made = PathBuf::new();
    for part in name.components() {
        let parent = made.clone();
        made.push(part);
        let holds_logs = made != name;
        if holds_logs && dir.durable_names().lock().contains(&made) {
            continue;
        }
        let failed = |e| Error::open(dir.path().join(&made), e);
        if io.list(&made).is_err() {
            dir.refuse_backup()?;
            io.create_dir(&made).map_err(failed)?;
        }
        if io.list(&made).map_err(failed)?.is_empty() {
            // It may have been made by a process that died before this.
            io.sync_dir(&parent).map_err(failed)?;
        }
        if holds_logs {
            dir.durable_names().lock().insert(made.clone());
        }
    }
    Ok(())
}

/// One that no other log has.
pub(crate) fn new_log_id(dir: &DataDir) -> Result<[u8; 16]> {
    let mut log_id = [0; 16];
    dir.io().random(&mut log_id).map_err(|e| Error::io("random", dir.path(), e))?;
    Ok(log_id)
}

fn first_manifest(dir: &DataDir) -> Result<Manifest> {
    Ok(Manifest {
        read_only_features: 0,
        generation: 1,
        log_id: new_log_id(dir)?,
        epoch: 1,
        state: State::Clean,
        start_offset: 0,
        proven: Proven { offset: 0, segment: 0, position: 0, max_timestamp: i64::MIN },
        boot_id: dir.io().boot_id(),
        created_at: dir.clock().wall_ms(),
        has_producers: false,
        owner: Vec::new(),
    })
}

/// The producers' state at `end`: the latest snapshot, and what was appended after it.
fn load_producers(view: &Arc<View>, end: u64, wanted: bool) -> Result<Producers> {
    if !wanted {
        return Ok(Producers::default());
    }
    let io = view.dir.io();
    let mut snapshots: Vec<u64> = io
        .list(&view.path)
        .map_err(|e| Error::io("list", view.shown(), e))?
        .iter()
        .filter_map(|entry| segment::parse_name(&entry.name, "producers"))
        .filter(|offset| *offset <= end || planted::has(Bug::SnapshotAheadBelieved))
        .collect();
    snapshots.sort_unstable();
    let mut loaded = None;
    for offset in snapshots.into_iter().rev() {
        let path = view.path.join(segment::file_name(offset, "producers"));
        // A damaged one is made up for by an older one and the records since; one that cannot be had now is an error,
        // since those records may be gone.
        let shown = || view.dir.path().join(&path);
        let file = io.open(&path, Open::Read).map_err(|e| Error::open(shown(), e))?;
        let len = file.len().map_err(|e| Error::io("stat", shown(), e))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(SNAPSHOT_MAX)];
        crate::io::read_full(file.as_ref(), &mut bytes, 0)
            .map_err(|e| Error::io("read", shown(), e))?;
        if let Some(producers) = Producers::decode(&bytes, &view.log_id, offset) {
            loaded = Some((offset, producers));
            break;
        }
    }
    let (from, mut producers) = loaded.unwrap_or((view.start(), Producers::default()));
    let mut reader = Reader::new(Arc::clone(view), Visibility::Stored, from.max(view.start()))?;
    let mut continued = false;
    while let Some(batch) = reader.next_batch()? {
        if let Some(producer) = batch.producer() {
            // As many as were appended, whatever compaction has left of them.
            let count = batch.last_offset() - batch.base_offset() + 1;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            producers.note(producer, count, batch.base_offset(), continued, u64::MAX);
        }
        continued = batch.continues();
    }
    Ok(producers)
}

/// The segments without those that lie wholly before `start`: an error cut their removal short, and they may be gone already.
fn segments_from(segments: &[Arc<Segment>], start: u64) -> &[Arc<Segment>] {
    let first =
        segments.partition_point(|segment| segment.base_offset() <= start).saturating_sub(1);
    segments.get(first..).unwrap_or_default()
}
