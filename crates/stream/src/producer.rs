//! A producer: collects records into batches, one for each partition, and appends each batch as a whole.
//!
//! ```text
//!   send -> lane of the partition: collecting --full, lingered, waited for--> submitted --> acknowledged
//!                                                                            (order of offsets = order of sending)
//! ```
//! The thread that fills a batch appends it; there is no thread of the producer's own. What lingers is appended by the
//! store's background.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake as TaskWake, Waker};
use std::time::Duration;

use logmill_storage::{AppendOptions, Task};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::TopicPartition;
use crate::config::TimestampType;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::streams::Streams;

#[cfg(feature = "tokio")]
mod asynchronous;
mod batch;
mod config;
mod identity;
mod lane;

#[cfg(feature = "tokio")]
pub use asynchronous::ProducerSink;
pub use batch::RecordMetadata;
use batch::{Batch, Callback};
pub use config::{ProducerConfig, ProducerRecord};
pub(crate) use identity::{Gates, remember_sequences};
use identity::{Identity, next_sequence};
use lane::{Lane, LaneState, Sequences, TopicLanes};

/// A batch that is submitted and not acknowledged, with its lane and its bytes.
type InFlight = (Arc<Lane>, Arc<Batch>, usize);
/// The lanes of the topics that were sent to, by name.
type Topics = BTreeMap<Arc<str>, TopicLanes>;
/// What a duplicate waits for; `None`: the partition has the record.
type Behind = Option<Arc<Batch>>;

#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    config: ProducerConfig,
    identity: Option<Identity>,
    topics: RwLock<Topics>,
    /// Lanes whose batches the background appends once they have lingered.
    lingering: Mutex<Vec<Arc<Lane>>>,
    /// Batches that are submitted and not acknowledged, oldest first, with their bytes.
    in_flight: Mutex<VecDeque<InFlight>>,
    /// Bytes sent and not acknowledged, and what is reserved for more in the batches that are being collected.
    buffered: AtomicUsize,
    is_scheduled: AtomicBool,
    /// The first failure since the last flush.
    failure: Mutex<Option<(TopicPartition, Arc<Error>)>>,
    seed: AtomicU32,
    this: Weak<Core>,
}

/// Appends records to topics. Clones share batches and limits; every method may be called from any thread.
///
/// When the last clone is dropped, what was collected is appended, and nobody waits for it.
#[derive(Clone, Debug)]
pub struct Producer {
    core: Arc<Core>,
    /// The clones, so that the last one can be told from the background's use of the core.
    _handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.submit_all();
    }
}

/// A record on its way. Wait for it by [`wait`](Delivery::wait) or by `await`, which needs no runtime. Dropping it
/// cancels nothing.
#[derive(Debug)]
#[must_use = "waiting tells whether the record is safe"]
pub struct Delivery {
    kind: DeliveryKind,
}

#[derive(Debug)]
enum DeliveryKind {
    Batched {
        batch: Arc<Batch>,
        index: u32,
        timestamp: i64,
    },
    /// The partition has the record, or will have it when this batch is acknowledged.
    Duplicate {
        behind: Behind,
        metadata: RecordMetadata,
    },
}

impl Delivery {
    /// Waits until the record is acknowledged, and says where it went. Its batch lingers no longer.
    ///
    /// # Errors
    /// [`Error::NotDelivered`]: the whole batch failed, and why.
    pub fn wait(self) -> Result<RecordMetadata> {
        match self.kind {
            DeliveryKind::Duplicate { behind: None, metadata } => Ok(metadata),
            DeliveryKind::Duplicate { behind: Some(batch), metadata } => {
                finish_collecting(&batch);
                batch.wait_for(0, metadata.timestamp).map(|_| metadata)
            }
            DeliveryKind::Batched { batch, index, timestamp } => {
                finish_collecting(&batch);
                batch.wait_for(index, timestamp)
            }
        }
    }
}

impl IntoFuture for Delivery {
    type Output = Result<RecordMetadata>;
    type IntoFuture = DeliveryFuture;

    fn into_future(self) -> DeliveryFuture {
        DeliveryFuture { delivery: self }
    }
}

/// What `await` makes of a [`Delivery`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct DeliveryFuture {
    delivery: Delivery,
}

impl Future for DeliveryFuture {
    type Output = Result<RecordMetadata>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &self.delivery.kind {
            DeliveryKind::Duplicate { behind: None, metadata } => Poll::Ready(Ok(metadata.clone())),
            DeliveryKind::Duplicate { behind: Some(batch), metadata } => {
                finish_collecting(batch);
                let outcome = batch.poll_for(0, metadata.timestamp, context);
                outcome.map_ok(|_| metadata.clone())
            }
            DeliveryKind::Batched { batch, index, timestamp } => {
                finish_collecting(batch);
                batch.poll_for(*index, *timestamp, context)
            }
        }
    }
}

/// Appends a batch that is still being collected.
fn finish_collecting(batch: &Arc<Batch>) {
    if batch.is_open()
        && let Some(lane) = batch.lane()
        && let Some(core) = lane.core.upgrade()
    {
        let mut state = lane.state.lock();
        if state.batch.as_ref().is_some_and(|open| Arc::ptr_eq(open, batch)) {
            core.submit(&lane, &mut state);
        }
    }
}

impl Streams {
    /// A producer.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::Storage`].
    /// # Cost
    /// With a name one synced journal entry.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer> {
        let identity = match &config.name {
            Some(name) => Some(Identity::open(&self.shared, name)?),
            None => None,
        };
        let core = Arc::new_cyclic(|this| Core {
            shared: Arc::clone(&self.shared),
            config,
            identity,
            topics: RwLock::default(),
            lingering: Mutex::default(),
            in_flight: Mutex::default(),
            buffered: AtomicUsize::new(0),
            is_scheduled: AtomicBool::new(false),
            failure: Mutex::default(),
            seed: AtomicU32::new(self.shared.next_producer_seed()),
            this: this.clone(),
        });
        Ok(Producer { _handle: Arc::new(Handle(Arc::clone(&core))), core })
    }
}

impl Producer {
    /// Sends a record, and returns before it is acknowledged.
    ///
    /// Records that one thread sends to one partition are appended in the order in which they were sent. If a batch fails,
    /// all its records do, and later ones may succeed; but nothing of a producer with a name goes to a partition behind a
    /// sequence that was not delivered there.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`]; [`Error::KeyMissing`] where the topic is compacted; with a name
    /// also [`Error::ProducerFenced`] if a later producer has it, [`Error::BehindUndelivered`], and [`Error::Storage`] if the partition cannot be asked what it has.
    /// What appending the batch can return is told by the delivery.
    /// # Cost
    /// A copy. Blocks while [`ProducerConfig::buffer_bytes_max`] is on the way.
    pub fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery> {
        self.core.send(record, None)
    }

    /// As [`Producer::send`]; `callback` is called when the record is acknowledged or has failed, by a thread of the
    /// store or by one that sends or waits. It should do little and must not wait for this producer.
    ///
    /// # Errors
    /// As [`Producer::send`]; then `callback` is not called.
    pub fn send_with(
        &self,
        record: &ProducerRecord<'_>,
        callback: impl FnOnce(Result<RecordMetadata>) + Send + 'static,
    ) -> Result<()> {
        self.core.send(record, Some(Box::new(callback))).map(drop)
    }

    /// The highest sequence, in the producer's own counting, that `partition` of `topic` has of this producer; `None` if it
    /// has none, or if the producer has no name.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`]; [`Error::Storage`].
    pub fn last_sequence(&self, topic: &str, partition: u32) -> Result<Option<u64>> {
        let Some(identity) = &self.core.identity else { return Ok(None) };
        let handle = self.core.shared.partition_by_name(topic, partition)?;
        identity.last_sequence(&self.core.shared, handle.id(), &*handle.log()?)
    }

    /// Says that what was not delivered to a partition, up to `sequence`, will not be sent again, so that newer records may go
    /// there; returns those sequences. For a record that no log takes, for one. Opening the name anew does the same everywhere.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`]; [`Error::Storage`] if what was on its way cannot be found out.
    pub fn give_up(&self, topic: &str, partition: u32, sequence: u64) -> Result<Vec<u64>> {
        let (lanes, _) = self.core.lanes(topic)?;
        let lane = lanes.lane(&ProducerRecord::new(topic, &[]).partition(partition))?;
        let mut state = lane.state.lock();
        self.core.sequences(lane, &mut state)?;
        if state.collected_before().is_some() {
            self.core.submit(lane, &mut state);
        }
        Ok(state.give_up(sequence))
    }

    /// Appends everything that was sent and waits until it is acknowledged.
    ///
    /// # Errors
    /// [`Error::NotDelivered`]: the first failure since the last flush. Everything else was waited for.
    pub fn flush(&self) -> Result<()> {
        self.core.flush()
    }

    /// Flushes, and ends this handle.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub fn close(self) -> Result<()> {
        self.flush()
    }

    /// Bytes that were sent and are not acknowledged, up to 1 KiB too many for each batch that is being collected.
    pub fn buffered_bytes(&self) -> usize {
        self.core.buffered.load(Ordering::Relaxed)
    }
}

impl Core {
    fn send(&self, record: &ProducerRecord<'_>, callback: Option<Callback>) -> Result<Delivery> {
        while let Some(batch) = self.in_the_way(self.bytes_of(record)) {
            drop(batch.wait());
        }
        self.send_now(record, callback)
    }

    /// What a record takes of the limit, at least.
    fn bytes_of(&self, record: &ProducerRecord<'_>) -> usize {
        record.bytes().max(self.config.reservation())
    }

    /// Sends though there may be no room.
    fn send_now(
        &self,
        record: &ProducerRecord<'_>,
        mut callback: Option<Callback>,
    ) -> Result<Delivery> {
        let (lanes, routed) = self.lanes(record.topic)?;
        let lane = lanes.lane(record)?;
        routed.inspect_err(|_| lane.state.lock().refused(record.sequence))?;
        let delivery = self.collect(lane, record, &mut callback)?;
        drop(lanes);
        if let (Some(callback), DeliveryKind::Duplicate { metadata, .. }) =
            (callback, &delivery.kind)
        {
            callback(Ok(metadata.clone()));
        }
        Ok(delivery)
    }

    /// The lanes of a topic as it is now, and whether its records may go where they say. While this is held, no record of any
    /// topic changes its way.
    fn lanes(&self, name: &str) -> Result<(MappedRwLockReadGuard<'_, TopicLanes>, Result<()>)> {
        match RwLockReadGuard::try_map(self.topics.read(), |topics| {
            topics.get(name).filter(|lanes| lanes.is_current())
        }) {
            Ok(lanes) => return Ok((lanes, Ok(()))),
            Err(topics) => drop(topics),
        }
        let mut topics = self.topics.write();
        if topics.get(name).is_some_and(TopicLanes::is_deleted)
            && let Some(gone) = topics.remove(name)
        {
            // What was collected for it fails, and is said to have failed.
            gone.lanes().iter().for_each(|lane| self.submit(lane, &mut lane.state.lock()));
        }
        let unknown = || Error::UnknownTopic { name: name.into() };
        if !topics.contains_key(name) {
            let topic = self.shared.topic_by_name(name).ok_or_else(unknown)?;
            let seed = self.seed.fetch_add(1, Ordering::Relaxed);
            topics.insert(topic.shared_name(), TopicLanes::new(topic, seed));
        }
        let lanes = topics.get_mut(name).ok_or_else(unknown)?;
        let partitions = lanes.topic().partition_count();
        let routed = match &self.identity {
            Some(identity) => self.find_routes(identity, lanes, partitions),
            None => Ok(()),
        };
        if routed.is_ok() {
            lanes.grow(&self.shared, &self.this, partitions)?;
            lanes.set_routed();
        }
        let topics = RwLockWriteGuard::downgrade(topics);
        let lanes = RwLockReadGuard::try_map(topics, |topics| topics.get(name));
        Ok((lanes.map_err(|_| unknown())?, routed))
    }

    /// Finds out where a named producer's records go, and writes it down for those that no partition can have yet: sent
    /// again, whenever that is, each goes the same way. After an error the lanes are those of before.
    fn find_routes(
        &self,
        identity: &Identity,
        lanes: &mut TopicLanes,
        partitions: u32,
    ) -> Result<()> {
        let topic = lanes.topic().id();
        let mut routes = identity.routes(&self.shared, topic);
        if routes.latest().is_none() {
            // What was refused when this could not be written down is remembered where it was to go.
            let first = lanes.partitions_to_come().unwrap_or(partitions);
            routes.add(0, first);
            lanes.grow(&self.shared, &self.this, first)?;
            lanes.set_routes(routes);
            identity.add_route(&self.shared, lanes.topic(), 0, first)?;
            routes = identity.routes(&self.shared, topic);
        }
        let before = routes.latest().unwrap_or(partitions);
        lanes.grow(&self.shared, &self.this, before)?;
        lanes.set_routes(routes);
        if before < partitions {
            let mut sent = None;
            for lane in lanes.lanes() {
                sent = sent.max(self.last_sent(identity, lane)?);
            }
            // Behind the last of all numbers nothing comes.
            if let Some(from) = sent.map_or(Some(0), |sent| sent.checked_add(1)) {
                identity.add_route(&self.shared, lanes.topic(), from, partitions)?;
                lanes.set_routes(identity.routes(&self.shared, topic));
            }
        }
        Ok(())
    }

    /// The highest sequence that a partition has, or may get.
    fn last_sent(&self, identity: &Identity, lane: &Lane) -> Result<Option<u64>> {
        let mut state = lane.state.lock();
        // Where nothing was ever, no log is made for the question.
        let has = if lane.partition.has_log() {
            self.sequences(lane, &mut state)?.last
        } else {
            identity.remembered_sequence(&self.shared, lane.partition.id())
        };
        Ok(has.max(state.last_sent()))
    }

    /// Puts a record into the batch of its lane, and appends the batch if that is full.
    fn collect(
        &self,
        lane: &Arc<Lane>,
        record: &ProducerRecord<'_>,
        callback: &mut Option<Callback>,
    ) -> Result<Delivery> {
        let clock = self.shared.dir.clock();
        let timestamp = record.timestamp.unwrap_or_else(|| clock.wall_ms());
        let mut state = lane.state.lock();
        if let Some(identity) = &self.identity {
            drop(identity.enter()?);
            let behind = self.admit(lane, &mut state, record)?;
            if let Some(behind) = behind {
                drop(state);
                return Ok(self.duplicate(lane, behind, timestamp, callback));
            }
        } else {
            lane.check_key(record)?;
        }
        let batch = match &state.batch {
            Some(batch) => Arc::clone(batch),
            None => {
                let batch = Batch::new(lane);
                state.batch = Some(Arc::clone(&batch));
                if !self.config.linger.is_zero() {
                    state.since = clock.monotonic();
                    if !std::mem::replace(&mut state.is_listed, true) {
                        self.lingering.lock().push(Arc::clone(lane));
                    }
                    self.schedule(self.config.linger);
                }
                batch
            }
        };
        let index = u32::try_from(state.collected.len()).unwrap_or(u32::MAX);
        state.collected.push(record, timestamp);
        let collected = state.collected.bytes();
        if collected > state.reserved {
            let more = (collected - state.reserved).max(self.config.reservation());
            state.reserved += more;
            self.buffered.fetch_add(more, Ordering::Relaxed);
        }
        if let Some(callback) = callback.take() {
            batch.call_back(index, timestamp, callback);
        }
        if self.config.linger.is_zero() || state.collected.bytes() >= self.config.batch_bytes_max {
            self.submit(lane, &mut state);
            lane.batch_done();
        }
        drop(state);
        Ok(Delivery { kind: DeliveryKind::Batched { batch, index, timestamp } })
    }

    /// The callback of one that the partition has is left to whoever holds no lock.
    fn duplicate(
        &self,
        lane: &Lane,
        behind: Behind,
        timestamp: i64,
        callback: &mut Option<Callback>,
    ) -> Delivery {
        let metadata = RecordMetadata {
            partition: lane.name.clone(),
            offset: None,
            timestamp,
            duplicate: true,
        };
        if let Some(batch) = &behind
            && let Some(callback) = callback.take()
        {
            let metadata = metadata.clone();
            let call = move |result: Result<_>| callback(result.map(|_| metadata));
            batch.call_back(0, timestamp, Box::new(call));
            self.look_soon();
        }
        Delivery { kind: DeliveryKind::Duplicate { behind, metadata } }
    }

    /// Decides on a named producer's next record: it is collected, or refused, or a duplicate, behind what may still be on
    /// its way.
    fn admit(
        &self,
        lane: &Arc<Lane>,
        state: &mut LaneState,
        record: &ProducerRecord<'_>,
    ) -> Result<Option<Behind>> {
        let sequence = record.sequence;
        let known = self.sequences(lane, state).inspect_err(|_| state.refused(sequence))?;
        if state.collected_before().is_some() {
            // They fail, and come after what is sent again.
            self.submit(lane, state);
        }
        let is_known = |last: Option<u64>| sequence.is_some() && sequence <= last;
        if is_known(known.last) {
            return Ok(Some(state.on_their_way.back().cloned()));
        }
        if is_known(state.collected_sequences.last().copied()) {
            return Ok(Some(state.batch.clone()));
        }
        lane.check_key(record).inspect_err(|_| state.refused(sequence))?;
        if let Some(undelivered) = state.take_next(sequence) {
            state.refused(sequence);
            let partition = lane.name.clone();
            return Err(Error::BehindUndelivered { partition, undelivered, sequence });
        }
        state.collected_sequences.extend(sequence);
        Ok(None)
    }

    /// What a named producer's partition has. After a failure that is asked of the log, and everything that is on its way
    /// is waited for: it may be what the log has.
    fn sequences(&self, lane: &Lane, state: &mut LaneState) -> Result<Sequences> {
        if lane.take_failed() {
            state.sequences = None;
        }
        if let Some(sequences) = state.sequences {
            return Ok(sequences);
        }
        let Some(identity) = &self.identity else { return Ok(Sequences { next: 0, last: None }) };
        state.take_in_all();
        let log = lane.partition.log()?;
        // What an earlier incarnation had on its way is about to be confirmed, so it must be safe.
        log.sync()?;
        let sequences = Sequences {
            next: identity.next_in_log(&log)?,
            last: identity.last_sequence(&self.shared, lane.partition.id(), &log)?,
        };
        state.log_has(sequences.last);
        state.sequences = Some(sequences);
        Ok(sequences)
    }

    /// Appends what a lane has collected. Its fate is the batch's to tell.
    fn submit(&self, lane: &Arc<Lane>, state: &mut LaneState) {
        let Some(batch) = state.batch.take() else { return };
        let bytes = std::mem::take(&mut state.reserved);
        let appended = self.append(lane, state, &batch);
        state.collected.clear();
        let sequences = std::mem::take(&mut state.collected_sequences);
        match appended {
            Err(error) => {
                state.not_delivered(sequences);
                batch.failed(error);
            }
            Ok(()) if self.identity.is_some() => {
                batch.set_sequences(sequences);
                state.on_their_way.push_back(Arc::clone(&batch));
                state.forget_delivered();
            }
            Ok(()) => {}
        }
        if batch.has_callbacks() {
            // They are called by the background: here a lock is held that they may want.
            self.in_flight.lock().push_back((Arc::clone(lane), batch, bytes));
            self.look_soon();
        } else if batch.settle_if_ready() {
            self.buffered.fetch_sub(bytes, Ordering::Relaxed);
            self.note_failure(&batch);
        } else {
            self.in_flight.lock().push_back((Arc::clone(lane), batch, bytes));
        }
    }

    fn append(&self, lane: &Lane, state: &mut LaneState, batch: &Batch) -> Result<()> {
        let count = u32::try_from(state.collected.len()).unwrap_or(u32::MAX);
        let mut options =
            AppendOptions { durability: self.config.durability, ..AppendOptions::default() };
        let collected_last = state.collected_sequences.last().copied();
        let entered = match &self.identity {
            Some(identity) => {
                let entered = identity.enter()?;
                // What failed unseen so far, the log refuses to let anything follow.
                state.forget_delivered();
                let sequences = self.sequences(lane, state)?;
                if let Some(undelivered) = state.collected_before() {
                    return Err(Error::BehindUndelivered {
                        partition: lane.name.clone(),
                        undelivered,
                        sequence: state.collected_sequences.first().copied(),
                    });
                }
                options.producer = Some(identity.in_log(sequences.next));
                if let Some(sequence) = collected_last {
                    state.collected.mark(sequence);
                }
                Some((entered, sequences))
            }
            None => None,
        };
        let stamp = match lane.partition.topic.settings().timestamps {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(self.shared.dir.clock().wall_ms()),
        };
        let ticket = state
            .collected
            .with_records(stamp, |records| lane.partition.submit(records, &options))?;
        if let Some((_, sequences)) = entered {
            state.sequences = Some(Sequences {
                next: next_sequence(sequences.next, count),
                last: sequences.last.max(collected_last),
            });
        }
        batch.submitted(ticket.offsets().base_offset, ticket, stamp);
        Ok(())
    }

    fn note_failure(&self, batch: &Batch) {
        if let Some(failure) = batch.failure() {
            self.failure.lock().get_or_insert(failure);
        }
    }

    /// What has to be acknowledged before `bytes` more may be on their way. One record that is larger than the whole buffer
    /// goes alone.
    #[inline]
    fn in_the_way(&self, bytes: usize) -> Option<Arc<Batch>> {
        let fits = || self.buffered.load(Ordering::Relaxed) + bytes <= self.config.buffer_bytes_max;
        if fits() {
            return None;
        }
        self.settle_ready();
        if fits() {
            return None;
        }
        let oldest = || self.in_flight.lock().front().map(|(_, batch, _)| Arc::clone(batch));
        oldest().or_else(|| {
            self.submit_all();
            oldest()
        })
    }

    /// Takes in what is acknowledged, from the oldest on.
    fn settle_ready(&self) {
        loop {
            let front = self.in_flight.lock().front().cloned();
            match front {
                Some(oldest) if oldest.1.settle_if_ready() => self.settled(&oldest),
                Some(_) | None => return,
            }
        }
    }

    /// Forgets a batch whose outcome is known.
    fn settled(&self, (_, batch, bytes): &InFlight) {
        let mut in_flight = self.in_flight.lock();
        let known = in_flight.len();
        in_flight.retain(|(_, other, _)| !Arc::ptr_eq(other, batch));
        let was_there = in_flight.len() < known;
        drop(in_flight);
        batch.call_callbacks();
        // Two threads may have seen the same outcome.
        if was_there {
            self.buffered.fetch_sub(*bytes, Ordering::Relaxed);
            self.note_failure(batch);
        }
    }

    fn submit_all(&self) {
        // Every lane: the background may be looking at those that linger.
        let topics = self.topics.read();
        let lanes: Vec<_> = topics.values().flat_map(TopicLanes::lanes).cloned().collect();
        drop(topics);
        for lane in lanes {
            self.submit(&lane, &mut lane.state.lock());
        }
    }

    fn flush(&self) -> Result<()> {
        self.submit_all();
        let in_flight: Vec<InFlight> = self.in_flight.lock().iter().cloned().collect();
        for batch in &in_flight {
            drop(batch.1.wait());
            self.settled(batch);
        }
        self.take_failure()
    }

    /// The first failure since this was last asked.
    fn take_failure(&self) -> Result<()> {
        match self.failure.lock().take() {
            Some((partition, cause)) => Err(Error::NotDelivered { partition, cause }),
            None => Ok(()),
        }
    }

    fn schedule(&self, after: Duration) {
        if !self.is_scheduled.swap(true, Ordering::AcqRel) {
            let task: Weak<dyn Task> = self.this.clone();
            self.shared.dir.after(after, task);
        }
    }

    /// Has the background look at what is in flight, at once.
    fn look_soon(&self) {
        let task: Weak<dyn Task> = self.this.clone();
        self.shared.dir.after(Duration::ZERO, task);
    }

    /// Has callbacks called when their batches are acknowledged.
    fn look_at_in_flight(&self) {
        let waker = Waker::from(Arc::new(InFlightWaker { core: self.this.clone() }));
        let mut context = Context::from_waker(&waker);
        let in_flight: Vec<InFlight> = self.in_flight.lock().iter().cloned().collect();
        for batch in in_flight.iter().filter(|batch| batch.1.has_callbacks()) {
            if batch.1.poll(&mut context) {
                self.settled(batch);
            }
        }
    }
}

impl Task for Core {
    fn run(self: Arc<Self>) {
        self.is_scheduled.store(false, Ordering::Release);
        self.look_at_in_flight();
        self.settle_ready();
        let now = self.shared.dir.clock().monotonic();
        let lingering = std::mem::take(&mut *self.lingering.lock());
        let (mut kept, mut next) = (Vec::new(), Duration::MAX);
        for lane in lingering {
            let mut state = lane.state.lock();
            let due = state.since.saturating_add(self.config.linger);
            if state.batch.is_some() && due > now {
                next = next.min(due);
                drop(state);
                kept.push(lane);
            } else {
                state.is_listed = false;
                self.submit(&lane, &mut state);
            }
        }
        if !kept.is_empty() {
            self.lingering.lock().append(&mut kept);
            self.schedule(next - now);
        }
    }
}

/// Has the producer look at its batches once one of them is acknowledged.
struct InFlightWaker {
    core: Weak<Core>,
}

impl TaskWake for InFlightWaker {
    fn wake(self: Arc<Self>) {
        if let Some(core) = self.core.upgrade() {
            core.look_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use logmill_storage::{DataDirOptions, Journal, LogConfig, ManualClock};

    use super::*;
    use crate::{StreamsOptions, TopicConfig};

    /// A busy producer put its lane on the list with every batch that it began, and the background took off only those at
    /// the front that had lingered: with batches that fill sooner than that, the list grew for ever.
    #[test]
    fn a_lane_lingers_once_however_many_batches_it_fills() {
        let place = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(0));
        let dir = DataDirOptions::new().threads(0).clock(clock.clone()).open(place.path()).unwrap();
        let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
        let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
        streams.create_topic("t", &TopicConfig::new().partitions(2)).unwrap();
        let producer = streams.producer(ProducerConfig::new().batch_bytes_max(100)).unwrap();
        for round in 0..100 {
            for partition in [0, 1] {
                let record = ProducerRecord::new("t", &[7; 60]).partition(partition);
                let _ = producer.send(&record).unwrap();
            }
            if round % 10 == 0 {
                dir.tick();
            }
            let listed = producer.core.lingering.lock().len();
            assert!(listed <= 2, "{listed} lanes on the list of two partitions");
        }
        clock.advance(Duration::from_secs(1));
        dir.tick();
        assert_eq!(producer.core.lingering.lock().len(), 0);
        producer.flush().unwrap();
        let ends: u64 = [0, 1]
            .map(|n| streams.topic("t").unwrap().partition(n).unwrap().end_offset().unwrap())
            .iter()
            .sum();
        assert_eq!(ends, 200);
    }
}
