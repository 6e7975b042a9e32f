//! Consumers in tasks of a runtime (feature `tokio`).
//!
//! A call does here what its twin does, and only the waiting differs: no thread stands still for it. Between taking
//! records and handing them out nothing is awaited, so a future that is dropped has taken none.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::task::coop;

use super::{CommitTicket, Consumer};
use crate::chunk::{Chunk, ConsumerRecord, Part, Records, Skipped};
use crate::error::{Error, Result};
use crate::turn::{self, TakesTurns, Turn};
use crate::{PartitionId, TopicPartition};

impl Consumer {
    /// As [`Consumer::poll`], for tasks. Dropped before it is ready it has returned nothing, and the next poll returns what
    /// this one would have.
    ///
    /// # Errors
    /// As [`Consumer::poll`].
    /// # Cost
    /// As [`Consumer::poll`]: records that are not in the page cache are read from the disk by the polling thread.
    pub async fn poll_async(&mut self, timeout: Duration) -> Result<Records> {
        turn::poll_async(self, timeout).await
    }

    /// As [`Consumer::close`], for tasks. Dropped before it is ready, the group was left, and the commit is done all the
    /// same.
    ///
    /// # Errors
    /// As [`Consumer::close`].
    pub async fn close_async(mut self) -> Result<()> {
        self.tell_leaving();
        if self.config.auto_commit.is_none() || self.assigned.is_empty() {
            return Ok(());
        }
        self.commit_async()?.await
    }

    /// The consumer as a stream of records, one after the other, which waits for more for ever. It ends when the store is
    /// closed.
    ///
    /// Asking for a record says that those before it are done: that is what automatic commits and
    /// [`RecordStream::commit_async`] go by. Dropping the stream sends the consumer back to the first record that was not
    /// handed out.
    ///
    /// ```
    /// # use logmill_stream::{ConsumerConfig, ProducerConfig, ProducerRecord, StartAt, TopicConfig};
    /// use futures_util::StreamExt;
    ///
    /// # let place = tempfile::tempdir()?;
    /// # let dir = logmill_storage::DataDir::open(place.path())?;
    /// # let journal = logmill_storage::Journal::open(&dir, "0", Default::default())?;
    /// # let streams = logmill_stream::Streams::open(&dir, &journal, &Default::default())?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    /// # runtime.block_on(async {
    /// # streams.create_topic("clicks", &TopicConfig::new())?;
    /// # let producer = streams.producer(ProducerConfig::new())?;
    /// # producer.send(&ProducerRecord::new("clicks", b"home"))?.wait()?;
    /// # let mut consumer = streams.consumer("pages", ConsumerConfig::new().start_at(StartAt::Earliest))?;
    /// consumer.subscribe(&["clicks"])?;
    /// let mut records = consumer.records();
    /// while let Some(polled) = records.next().await {
    ///     let polled = polled?;
    ///     println!("{}: {:?}", polled.record().offset, polled.record().value);
    ///     records.commit_async()?.await?;
    /// #   break;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// An item is an error as [`Consumer::poll`] returns it; the stream may be polled on.
    pub fn records(&mut self) -> RecordStream<'_> {
        RecordStream { consumer: self, unread: VecDeque::new(), skipped: Vec::new(), wait: None }
    }
}

/// A consumer as a stream of records: [`Consumer::records`].
#[must_use = "a stream does nothing unless it is polled"]
pub struct RecordStream<'a> {
    consumer: &'a mut Consumer,
    /// What was polled and not handed out.
    unread: VecDeque<Part>,
    skipped: Vec<Skipped>,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for RecordStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

/// A record that keeps what it was polled with alive: to be handed to another task.
#[derive(Clone, Debug)]
pub struct PolledRecord {
    name: TopicPartition,
    chunk: Arc<Chunk>,
    index: usize,
}

impl PolledRecord {
    /// The record.
    pub fn record(&self) -> ConsumerRecord<'_> {
        self.chunk.consumer_record(&self.name, self.index)
    }
}

impl RecordStream<'_> {
    /// Commits the position after the last record that was handed out, for every partition.
    ///
    /// # Errors
    /// As [`Consumer::commit_async`].
    pub fn commit_async(&mut self) -> Result<CommitTicket> {
        let unread = self.first_unread();
        self.consumer.commit_changed(None, &unread)
    }

    /// What the consumer had to skip since this was last asked: see
    /// [`ConsumerConfig::out_of_range`](crate::ConsumerConfig::out_of_range).
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    fn first_unread(&self) -> BTreeMap<PartitionId, u64> {
        let mut first = BTreeMap::new();
        for part in &self.unread {
            let assigned = self.consumer.assigned.iter().find(|(_, a)| a.name == part.name);
            if let (Some((id, _)), Some(offset)) = (assigned, part.chunk.offset(part.from)) {
                first.entry(*id).or_insert(offset);
            }
        }
        first
    }

    fn take(&mut self) -> Option<PolledRecord> {
        let part = self.unread.front_mut()?;
        let record = PolledRecord {
            name: part.name.clone(),
            chunk: Arc::clone(&part.chunk),
            index: part.from,
        };
        part.from += 1;
        if part.from == part.to {
            self.unread.pop_front();
        }
        Some(record)
    }

    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<PolledRecord>>> {
        loop {
            if let Some(record) = self.take() {
                return Poll::Ready(Some(Ok(record)));
            }
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            let now = self.consumer.now();
            match self.consumer.turn(now, Duration::MAX) {
                Ok(Turn::Done(records)) => {
                    self.unread.extend(records.parts);
                    self.skipped.extend(records.skipped);
                }
                Ok(Turn::WaitUntil(until)) => {
                    let (signal, clock) = self.consumer.place();
                    self.wait = Some(Box::pin(async move {
                        signal.wait_until_async(&*clock, until).await;
                    }));
                }
                Err(Error::Storage(logmill_storage::Error::Closed { .. })) => {
                    return Poll::Ready(None);
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Stream for RecordStream<'_> {
    type Item = Result<PolledRecord>;

    /// A task that always gets something lets the others of its thread have their turn all the same.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let proceed = ready!(coop::poll_proceed(context));
        let polled = self.poll_record(context);
        if polled.is_ready() {
            proceed.made_progress();
        }
        polled
    }
}

impl Drop for RecordStream<'_> {
    fn drop(&mut self) {
        for (id, offset) in self.first_unread() {
            self.consumer.go_to(id, offset);
        }
    }
}
