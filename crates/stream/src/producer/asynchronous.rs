//! Producers in tasks of a runtime (feature `tokio`).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Sink;
use tokio::task::coop;

use super::{Core, InFlight, Producer, ProducerRecord, RecordMetadata};
use crate::error::{Error, Result};

impl Core {
    /// Ready when `bytes` more may be on their way.
    fn poll_room(&self, bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        while let Some(batch) = self.in_the_way(bytes) {
            // Whether it was delivered is for others to say: it is not on its way any more.
            let _ = ready!(batch.poll_done(context));
        }
        Poll::Ready(())
    }
}

impl Producer {
    /// Sends a record and waits until it is acknowledged, for tasks: [`Producer::send`] and [`Delivery`](super::Delivery) in
    /// one. Its batch lingers no longer. Dropped before it is ready, the record may be sent all the same.
    ///
    /// To have many on their way at once, wait for the deliveries of several [`Producer::send`]s, or use a
    /// [`Producer::sink`].
    ///
    /// # Errors
    /// As [`Producer::send`]; [`Error::NotDelivered`].
    /// # Cost
    /// As [`Producer::send`], and for a sync two hand-overs between threads.
    pub async fn send_async(&self, record: &ProducerRecord<'_>) -> Result<RecordMetadata> {
        coop::consume_budget().await;
        let bytes = self.core.bytes_of(record);
        poll_fn(|context| self.core.poll_room(bytes, context)).await;
        self.core.send_now(record, None)?.await
    }

    /// As [`Producer::flush`], for tasks. Dropped before it is ready, everything was appended.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn flush_async(&self) -> Result<()> {
        self.core.submit_all();
        let in_flight: Vec<InFlight> = self.core.in_flight.lock().iter().cloned().collect();
        for batch in &in_flight {
            // What went wrong is noted, and told at the end.
            let _ = poll_fn(|context| batch.1.poll_done(context)).await;
            self.core.settled(batch);
        }
        self.core.take_failure()
    }

    /// As [`Producer::close`], for tasks.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close_async(self) -> Result<()> {
        self.flush_async().await
    }

    /// The producer as a sink of records. It takes one while there is room for what is on its way
    /// ([`ProducerConfig::buffer_bytes_max`](super::ProducerConfig::buffer_bytes_max)), flushes by [`Producer::flush`]'s rules
    /// and tells what went wrong then.
    ///
    /// ```
    /// # use logmill_stream::{ProducerConfig, ProducerRecord, TopicConfig};
    /// use futures_util::{SinkExt, StreamExt, stream};
    ///
    /// # let place = tempfile::tempdir()?;
    /// # let dir = logmill_storage::DataDir::open(place.path())?;
    /// # let journal = logmill_storage::Journal::open(&dir, "0", Default::default())?;
    /// # let streams = logmill_stream::Streams::open(&dir, &journal, &Default::default())?;
    /// # streams.create_topic("clicks", &TopicConfig::new())?;
    /// # let producer = streams.producer(ProducerConfig::new())?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    /// # runtime.block_on(async {
    /// let lines = stream::iter(["home", "basket", "till"]);
    /// let records = lines.map(|line| Ok(ProducerRecord::new("clicks", line.as_bytes())));
    /// records.forward(producer.sink()).await?; // all of them are acknowledged
    /// # assert_eq!(streams.topic("clicks")?.partition(0)?.end_offset()?, 3);
    /// # Ok::<(), logmill_stream::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sink(&self) -> ProducerSink {
        ProducerSink { producer: self.clone(), flush: None }
    }
}

/// A producer as a sink of records: [`Producer::sink`].
#[must_use = "a sink does nothing unless it is polled"]
pub struct ProducerSink {
    producer: Producer,
    flush: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
}

impl std::fmt::Debug for ProducerSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerSink").field("producer", &self.producer).finish_non_exhaustive()
    }
}

impl Sink<ProducerRecord<'_>> for ProducerSink {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        // A task that always has something to send lets the others of its thread have their turn all the same.
        let proceed = ready!(coop::poll_proceed(context));
        ready!(self.producer.core.poll_room(1, context));
        proceed.made_progress();
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, record: ProducerRecord<'_>) -> Result<()> {
        // A flush that has begun knows nothing of this one.
        self.flush = None;
        self.producer.core.send_now(&record, None).map(drop)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let producer = self.producer.clone();
        let flush =
            self.flush.get_or_insert_with(|| Box::pin(async move { producer.flush_async().await }));
        let result = ready!(flush.as_mut().poll(context));
        self.flush = None;
        Poll::Ready(result)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        <Self as Sink<ProducerRecord<'_>>>::poll_flush(self, context)
    }
}
