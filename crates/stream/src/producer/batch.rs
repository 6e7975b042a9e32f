//! Records of one partition that are appended together, and what becomes of them.

use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use logmill_storage::{Header, Record, Ticket};
use parking_lot::{Condvar, Mutex};

use super::config::ProducerRecord;
use super::lane::Lane;
use crate::TopicPartition;
use crate::error::{Error, Result};

/// The header that carries the last sequence of a batch, on its last record.
pub(crate) const SEQUENCE_HEADER: &str = "logmill.sequence";

/// Where a record went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// Its partition.
    pub partition: TopicPartition,
    /// Its offset; `None` if it was a duplicate, of which only its presence is known.
    pub offset: Option<u64>,
    /// Its timestamp, ms since 1970.
    pub timestamp: i64,
    /// Whether the partition had it already.
    pub duplicate: bool,
}

/// What is called when a record is acknowledged or has failed.
pub(super) type Callback = Box<dyn FnOnce(Result<RecordMetadata>) + Send>;

#[derive(Clone, Copy, Debug)]
struct Span {
    from: usize,
    to: usize,
}

impl Span {
    fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.from..self.to]
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Option<Span>,
    value: Option<Span>,
    /// Which of the batch's headers are this record's.
    headers: Span,
    timestamp: i64,
}

/// Records that are being collected.
#[derive(Debug, Default)]
pub(super) struct Collected {
    arena: Vec<u8>,
    places: Vec<Place>,
    headers: Vec<(Span, Span)>,
}

impl Collected {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.places.clear();
        self.headers.clear();
    }

    fn put(&mut self, bytes: &[u8]) -> Span {
        let from = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span { from, to: self.arena.len() }
    }

    pub(super) fn push(&mut self, record: &ProducerRecord<'_>, timestamp: i64) {
        let key = record.key.map(|key| self.put(key));
        let value = record.value.map(|value| self.put(value));
        let from = self.headers.len();
        for header in record.headers {
            let named = (self.put(header.name.as_bytes()), self.put(header.value));
            self.headers.push(named);
        }
        let headers = Span { from, to: self.headers.len() };
        self.places.push(Place { key, value, headers, timestamp });
    }

    /// Puts the sequence on the last record.
    pub(super) fn mark(&mut self, sequence: u64) {
        let named = (self.put(SEQUENCE_HEADER.as_bytes()), self.put(&sequence.to_le_bytes()));
        self.headers.push(named);
        if let Some(last) = self.places.last_mut() {
            last.headers.to = self.headers.len();
        }
    }

    /// Gives the records to `append`; all of them the time `stamp`, if there is one.
    pub(super) fn with_records<T>(
        &self,
        stamp: Option<i64>,
        append: impl FnOnce(&[Record<'_>]) -> T,
    ) -> T {
        let headers: Vec<Header<'_>> = self
            .headers
            .iter()
            .map(|(name, value)| Header {
                // It was put here as text.
                name: std::str::from_utf8(name.of(&self.arena)).unwrap_or_default(),
                value: value.of(&self.arena),
            })
            .collect();
        let records: Vec<Record<'_>> = self
            .places
            .iter()
            .map(|place| {
                let mut record = match (place.key, place.value) {
                    (key, Some(value)) => {
                        let record = Record::value(value.of(&self.arena));
                        key.map_or(record, |key| record.key(key.of(&self.arena)))
                    }
                    (Some(key), None) => Record::tombstone(key.of(&self.arena)),
                    (None, None) => Record::default(),
                };
                if place.headers.from < place.headers.to {
                    record = record.headers(&headers[place.headers.from..place.headers.to]);
                }
                record.timestamp(stamp.unwrap_or(place.timestamp))
            })
            .collect();
        append(&records)
    }
}

#[derive(Debug)]
enum Outcome {
    /// Still collecting.
    Open,
    /// Appended, and not acknowledged. The ticket is with whoever waits first.
    Submitted {
        base_offset: u64,
        ticket: Option<Ticket>,
    },
    Done(std::result::Result<u64, Arc<Error>>),
}

/// What the records of a batch and those who wait for them share.
pub(super) struct Batch {
    partition: TopicPartition,
    lane: Weak<Lane>,
    outcome: Mutex<Outcome>,
    settled: Condvar,
    waiting: Mutex<Waiting>,
    /// Those of its records, once it is submitted.
    sequences: OnceLock<Vec<u64>>,
}

/// Those who are to be called, with the index and the time of their record.
#[derive(Default)]
struct Waiting {
    callbacks: Vec<(u32, i64, Callback)>,
    /// The time that all records got, where the topic gives it.
    stamp: Option<i64>,
    /// Tasks that wait for the outcome.
    tasks: Vec<Waker>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl Batch {
    pub(super) fn new(lane: &Arc<Lane>) -> Arc<Batch> {
        Arc::new(Batch {
            partition: lane.name.clone(),
            lane: Arc::downgrade(lane),
            outcome: Mutex::new(Outcome::Open),
            settled: Condvar::new(),
            waiting: Mutex::default(),
            sequences: OnceLock::new(),
        })
    }

    /// Where it is, or was, collected; `None` if its producer is gone.
    pub(super) fn lane(&self) -> Option<Arc<Lane>> {
        self.lane.upgrade()
    }

    pub(super) fn set_sequences(&self, sequences: Vec<u64>) {
        let _ = self.sequences.set(sequences);
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = u64> {
        self.sequences.get().into_iter().flatten().copied()
    }

    pub(super) fn call_back(&self, index: u32, timestamp: i64, callback: Callback) {
        self.waiting.lock().callbacks.push((index, timestamp, callback));
    }

    pub(super) fn has_callbacks(&self) -> bool {
        !self.waiting.lock().callbacks.is_empty()
    }

    pub(super) fn submitted(&self, base_offset: u64, ticket: Ticket, stamp: Option<i64>) {
        self.waiting.lock().stamp = stamp;
        *self.outcome.lock() = Outcome::Submitted { base_offset, ticket: Some(ticket) };
    }

    /// The callbacks are left for [`Batch::call_callbacks`]: whoever says this may hold a lock that they want.
    pub(super) fn failed(&self, error: Error) {
        self.set_done(Err(Arc::new(error)));
    }

    fn set_done(&self, result: std::result::Result<u64, Arc<Error>>) {
        if result.is_err()
            && let Some(lane) = self.lane.upgrade()
        {
            lane.note_failed();
        }
        *self.outcome.lock() = Outcome::Done(result);
        self.settled.notify_all();
        let tasks = std::mem::take(&mut self.waiting.lock().tasks);
        tasks.into_iter().for_each(Waker::wake);
    }

    /// Calls those who wait for the outcome, if it is known. The caller holds no lock of the producer's.
    pub(super) fn call_callbacks(&self) {
        let result = match &*self.outcome.lock() {
            Outcome::Done(result) => result.clone(),
            Outcome::Open | Outcome::Submitted { .. } => return,
        };
        let mut waiting = self.waiting.lock();
        let (callbacks, stamp) = (std::mem::take(&mut waiting.callbacks), waiting.stamp);
        drop(waiting);
        for (index, timestamp, callback) in callbacks {
            callback(self.metadata(&result, index, stamp.unwrap_or(timestamp)));
        }
    }

    fn metadata(
        &self,
        result: &std::result::Result<u64, Arc<Error>>,
        index: u32,
        timestamp: i64,
    ) -> Result<RecordMetadata> {
        match result {
            Ok(base_offset) => Ok(RecordMetadata {
                partition: self.partition.clone(),
                offset: Some(base_offset + u64::from(index)),
                timestamp,
                duplicate: false,
            }),
            Err(cause) => Err(Error::NotDelivered {
                partition: self.partition.clone(),
                cause: Arc::clone(cause),
            }),
        }
    }

    /// What went wrong, if something did.
    pub(super) fn failure(&self) -> Option<(TopicPartition, Arc<Error>)> {
        match &*self.outcome.lock() {
            Outcome::Done(Err(cause)) => Some((self.partition.clone(), Arc::clone(cause))),
            Outcome::Done(Ok(_)) | Outcome::Open | Outcome::Submitted { .. } => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(*self.outcome.lock(), Outcome::Open)
    }

    /// Takes the outcome in if it is known by now; says whether it is.
    pub(super) fn settle_if_ready(&self) -> bool {
        let mut outcome = self.outcome.lock();
        match &mut *outcome {
            Outcome::Done(_) => true,
            Outcome::Submitted { base_offset, ticket }
                if ticket.as_ref().is_some_and(Ticket::is_settled) =>
            {
                let (base_offset, ticket) = (*base_offset, ticket.take());
                drop(outcome);
                self.conclude(base_offset, ticket);
                true
            }
            Outcome::Open | Outcome::Submitted { .. } => false,
        }
    }

    /// As [`Batch::settle_if_ready`], and has `context` woken when it is known.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> bool {
        let mut outcome = self.outcome.lock();
        match &mut *outcome {
            Outcome::Done(_) => true,
            Outcome::Submitted { base_offset, ticket: Some(ticket) } => {
                let base_offset = *base_offset;
                match std::pin::Pin::new(ticket).poll(context) {
                    Poll::Ready(result) => {
                        drop(outcome);
                        self.set_done(
                            result.map(|_| base_offset).map_err(|error| Arc::new(error.into())),
                        );
                        true
                    }
                    Poll::Pending => false,
                }
            }
            // Somebody waits already, and will tell.
            Outcome::Open | Outcome::Submitted { ticket: None, .. } => false,
        }
    }

    /// As [`Batch::wait`], for a task. Every task asks the ticket by itself: another one that did may be gone.
    pub(super) fn poll_done(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<u64, Arc<Error>>> {
        self.poll(context);
        let outcome = self.outcome.lock();
        if let Outcome::Done(result) = &*outcome {
            return Poll::Ready(result.clone());
        }
        // Before the outcome can become known, so that whoever learns it wakes this task too.
        let mut waiting = self.waiting.lock();
        if !waiting.tasks.last().is_some_and(|kept| kept.will_wake(context.waker())) {
            waiting.tasks.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// As [`Batch::wait_for`], for a task.
    pub(super) fn poll_for(
        &self,
        index: u32,
        timestamp: i64,
        context: &mut Context<'_>,
    ) -> Poll<Result<RecordMetadata>> {
        self.poll_done(context).map(|result| {
            self.call_callbacks();
            let stamp = self.waiting.lock().stamp;
            self.metadata(&result, index, stamp.unwrap_or(timestamp))
        })
    }

    /// Waits until the outcome is known. The batch must not be open.
    pub(super) fn wait(&self) -> std::result::Result<u64, Arc<Error>> {
        let mut outcome = self.outcome.lock();
        loop {
            match &mut *outcome {
                Outcome::Done(result) => return result.clone(),
                Outcome::Submitted { base_offset, ticket } if ticket.is_some() => {
                    let (base_offset, ticket) = (*base_offset, ticket.take());
                    drop(outcome);
                    self.conclude(base_offset, ticket);
                    outcome = self.outcome.lock();
                }
                Outcome::Open | Outcome::Submitted { .. } => self.settled.wait(&mut outcome),
            }
        }
    }

    fn conclude(&self, base_offset: u64, ticket: Option<Ticket>) {
        let result = match ticket.map(Ticket::wait) {
            Some(Err(error)) => Err(Arc::new(error.into())),
            Some(Ok(_)) | None => Ok(base_offset),
        };
        self.set_done(result);
    }

    /// The outcome for one record, once it is known.
    pub(super) fn wait_for(&self, index: u32, timestamp: i64) -> Result<RecordMetadata> {
        let result = self.wait();
        self.call_callbacks();
        let stamp = self.waiting.lock().stamp;
        self.metadata(&result, index, stamp.unwrap_or(timestamp))
    }
}
