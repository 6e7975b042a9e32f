//! The twins of calls that wait, for tasks of a runtime (feature `tokio`).
//!
//! A call does here what its twin does, under the same short lock, and only the waiting differs: for a sync, which the
//! store's commit thread does, or for messages. No thread of a pool is occupied. Dropping a future before it is ready is
//! safe: a receive has taken nothing while it waits; a send or delete that has begun is done all the same, and nobody is told.
//! A task whose calls are always ready at once lets the others of its thread have their turn all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use logmill_storage::{Durability, Part};
use tokio::task::coop;

use crate::error::{Error, Result};
use crate::limits::{self, Limit, within};
use crate::message::Message;
use crate::queue::{Owed, Queue, ReceiveOptions, Sent, Turn};
use crate::receipt::Receipt;
use crate::shared::{Level, Shared};
use crate::stored::ReceivedMessage;

mod changes;

/// How long a stream of messages waits at a time, unless its options say.
const STREAM_WAIT: Duration = Duration::from_secs(20);

impl Shared {
    async fn settle_async(&self, level: Level) -> Result<()> {
        coop::consume_budget().await;
        if level.waits() {
            self.journal.part(Part::Hot).submit_sync()?.await?;
        }
        Ok(())
    }
}

/// Messages that were sent and are shown once they are durable, by the background if their sender goes away.
struct Showing<'a> {
    queue: &'a Queue,
    is_done: bool,
}

impl Drop for Showing<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let mut engine = self.queue.shared.lock();
            engine.abandoned.insert(self.queue.id);
            self.queue.shared.wake_keeper(&mut engine, i64::MIN);
        }
    }
}

/// A task that waits at a queue.
struct Waiting<'a> {
    queue: &'a Queue,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Ok(slot) = self.queue.shared.lock().slot(self.queue.id) {
            slot.waiters -= 1;
        }
    }
}

impl Queue {
    async fn settle_async(&self, owed: Owed) -> Result<()> {
        let mut showing = Showing { queue: self, is_done: !owed.shows };
        self.shared.settle_async(owed.level).await?;
        if owed.shows {
            self.shared.show(self.id);
            showing.is_done = true;
        }
        Ok(())
    }

    /// As [`send`](Queue::send), for tasks. Dropped before it is ready, the message may be sent all the same.
    ///
    /// # Errors
    /// As [`send`](Queue::send).
    /// # Cost
    /// As [`send`](Queue::send), and for a sync two hand-overs between threads.
    pub async fn send_async(&self, message: &Message<'_>) -> Result<Sent> {
        let (sent, owed) = self.begin_send(message, None)?;
        self.settle_async(owed).await?;
        Ok(sent)
    }

    /// As [`send_with`](Queue::send_with), for tasks.
    ///
    /// # Errors
    /// As [`send`](Queue::send).
    pub async fn send_with_async(
        &self,
        message: &Message<'_>,
        durability: Durability,
    ) -> Result<Sent> {
        let (sent, owed) = self.begin_send(message, Some(durability))?;
        self.settle_async(owed).await?;
        Ok(sent)
    }

    /// As [`send_batch`](Queue::send_batch), for tasks.
    ///
    /// # Errors
    /// As [`send_batch`](Queue::send_batch).
    pub async fn send_batch_async(&self, messages: &[Message<'_>]) -> Result<Vec<Result<Sent>>> {
        let (results, owed) = self.begin_send_batch(messages, None)?;
        self.settle_async(owed).await?;
        Ok(results)
    }

    /// As [`send_batch_with`](Queue::send_batch_with), for tasks.
    ///
    /// # Errors
    /// As [`send_batch`](Queue::send_batch).
    pub async fn send_batch_with_async(
        &self,
        messages: &[Message<'_>],
        durability: Durability,
    ) -> Result<Vec<Result<Sent>>> {
        let (results, owed) = self.begin_send_batch(messages, Some(durability))?;
        self.settle_async(owed).await?;
        Ok(results)
    }

    /// As [`receive`](Queue::receive), for tasks. Dropped before it is ready it has received nothing.
    ///
    /// # Errors
    /// As [`receive`](Queue::receive).
    /// # Cost
    /// As [`receive`](Queue::receive): a body that is not in memory is read from the disk by the polling thread.
    pub async fn receive_async(
        &self,
        options: &ReceiveOptions<'_>,
    ) -> Result<Vec<ReceivedMessage>> {
        coop::consume_budget().await;
        let ask = self.ask(&mut self.shared.lock(), options)?;
        let signal = Arc::clone(&self.shared.lock().slot(self.id)?.signal);
        loop {
            // The lock is free again before anything is waited for, and no news is missed between.
            let (notified, pause, waiting) = {
                let mut engine = self.shared.lock();
                match self.turn(&mut engine, &ask)? {
                    Turn::Messages(taken) => {
                        drop(engine);
                        return self.read_bodies(taken);
                    }
                    Turn::Over => return Ok(Vec::new()),
                    Turn::Wait(pause) => {
                        engine.slot(self.id)?.waiters += 1;
                        (signal.notified(), pause, Waiting { queue: self })
                    }
                }
            };
            // That the pause is over is no error: it is time to look again.
            let _ = tokio::time::timeout(pause, notified).await;
            drop(waiting);
        }
    }

    /// As [`delete`](Queue::delete), for tasks. Dropped before it is ready, the message may be deleted all the same.
    ///
    /// # Errors
    /// As [`delete`](Queue::delete).
    pub async fn delete_async(&self, receipt: &Receipt) -> Result<()> {
        let (mut results, level) = self.begin_delete(std::slice::from_ref(receipt), None)?;
        self.shared.settle_async(level).await?;
        results.pop().unwrap_or(Ok(()))
    }

    /// As [`delete_batch`](Queue::delete_batch), for tasks.
    ///
    /// # Errors
    /// As [`delete_batch`](Queue::delete_batch).
    pub async fn delete_batch_async(&self, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        within(Limit::BatchEntries, receipts.len() as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        let (results, level) = self.begin_delete(receipts, None)?;
        self.shared.settle_async(level).await?;
        Ok(results)
    }

    /// As [`delete_batch_with`](Queue::delete_batch_with), for tasks.
    ///
    /// # Errors
    /// As [`delete_batch`](Queue::delete_batch).
    pub async fn delete_batch_with_async(
        &self,
        receipts: &[Receipt],
        durability: Durability,
    ) -> Result<Vec<Result<()>>> {
        within(Limit::BatchEntries, receipts.len() as u64, 1, limits::BATCH_ENTRIES_MAX)?;
        let (results, level) = self.begin_delete(receipts, Some(durability))?;
        self.shared.settle_async(level).await?;
        Ok(results)
    }

    /// As [`reject`](Queue::reject), for tasks.
    ///
    /// # Errors
    /// As [`reject`](Queue::reject).
    pub async fn reject_async(&self, receipt: &Receipt, reason: &str) -> Result<()> {
        let level = self.begin_reject(receipt, reason)?;
        self.shared.settle_async(level).await
    }

    /// As [`purge`](Queue::purge), for tasks.
    ///
    /// # Errors
    /// As [`purge`](Queue::purge).
    pub async fn purge_async(&self) -> Result<()> {
        let level = self.begin_purge()?;
        self.shared.settle_async(level).await
    }

    /// The queue as a stream of received messages, each to be deleted or returned by its receipt. It receives up to the
    /// options' `max` at a time; the lease of all of them runs from then on. It ends when the queue is deleted or closed.
    ///
    /// Dropping the stream gives back at once, without blame, what it received and has not handed out.
    ///
    /// An item is an error as [`receive`](Queue::receive) returns it; the stream may be polled on.
    pub fn messages(
        &self,
        options: ReceiveOptions<'static>,
    ) -> impl Stream<Item = Result<ReceivedMessage>> + Send + Unpin + use<> {
        let options = options.wait_or(STREAM_WAIT);
        let source = Source { queue: self.clone(), options, received: VecDeque::new() };
        Box::pin(futures_util::stream::unfold(source, |mut source| async move {
            let item = source.next().await?;
            Some((item, source))
        }))
    }
}

/// What a stream of messages keeps.
struct Source {
    queue: Queue,
    options: ReceiveOptions<'static>,
    received: VecDeque<ReceivedMessage>,
}

impl Source {
    async fn next(&mut self) -> Option<Result<ReceivedMessage>> {
        loop {
            if !self.received.is_empty() {
                coop::consume_budget().await;
            }
            if let Some(message) = self.received.pop_front() {
                return Some(Ok(message));
            }
            match self.queue.receive_async(&self.options).await {
                Ok(messages) => self.received.extend(messages),
                Err(Error::Closed | Error::QueueDoesNotExist { .. }) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        for message in self.received.drain(..) {
            // One whose lease is over is receivable already.
            let _ = self.queue.release(message.receipt());
        }
    }
}
